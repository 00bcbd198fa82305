//! Owns answers kept in memory: manifests and small blobs that were read before.
//!
//! A kept answer carries the version of its repository from before it was read, and counts only
//! while that is still the repository's version. Every acknowledged change makes a new version
//! before it is acknowledged, so that nobody is served what somebody was told is gone.

use std::sync::{Arc, atomic::AtomicI64};

use bytes::Bytes;
use http::HeaderValue;
use quick_cache::{Weighter, sync::Cache};
use registry_core::{
    digest::Digest,
    name::RepoName,
    reference::Reference,
    store::{BlobReader, Metadata},
};

/// Bytes of manifests and small blobs that are kept at most.
const CAPACITY: u64 = 8 * 1024 * 1024;
/// What one kept answer costs beside its bytes, roughly.
const OVERHEAD: u64 = 512;

/// A manifest, ready to be served.
#[derive(Debug)]
pub(crate) struct ServedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
    pub(crate) headers: ContentHeaders,
    /// When a client was last told that it is here, in seconds since 1970, as far as is known.
    pub(crate) used_at: AtomicI64,
    /// When a pull was last noted.
    pub(crate) noted_at: AtomicI64,
}

/// A blob, ready to be served.
pub(crate) struct ServedBlob {
    pub(crate) size: u64,
    pub(crate) source: BlobSource,
    pub(crate) headers: ContentHeaders,
    /// When a client was last told that it is here, in seconds since 1970, as far as is known.
    pub(crate) used_at: AtomicI64,
}

/// Where a blob's bytes come from.
pub(crate) enum BlobSource {
    Bytes(Bytes),
    Reader(Arc<dyn BlobReader>),
}

/// The header values that say what the content is.
#[derive(Clone, Debug)]
pub(crate) struct ContentHeaders {
    pub(crate) digest: HeaderValue,
    pub(crate) etag: HeaderValue,
}

impl ContentHeaders {
    /// The headers of a digest.
    pub(crate) fn new(digest: &Digest) -> Self {
        let value = |text: String| HeaderValue::try_from(text).expect("a digest is printable ASCII");
        let text = digest.to_string();
        Self { etag: value(format!("\"{text}\"")), digest: value(text) }
    }
}

#[derive(Clone)]
enum Kept {
    Manifest(Arc<ServedManifest>),
    Blob(Arc<ServedBlob>),
}

type Key = (RepoName, bool, Reference);

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, (u64, Kept)> for Weigh {
    fn weight(&self, _: &Key, (_, kept): &(u64, Kept)) -> u64 {
        OVERHEAD
            + match kept {
                Kept::Manifest(manifest) => manifest.bytes.len() as u64,
                Kept::Blob(blob) => match &blob.source {
                    BlobSource::Bytes(bytes) => bytes.len() as u64,
                    // An open file's memory is the kernel's, but descriptors are scarce: at most
                    // some hundreds of them in all.
                    BlobSource::Reader(_) => 16 * 1024,
                },
            }
    }
}

/// The kept answers.
pub(crate) struct Answers(Cache<Key, (u64, Kept), Weigh>);

impl Answers {
    /// No answers yet.
    pub(crate) fn new() -> Self {
        Self(Cache::with_weighter(4096, CAPACITY, Weigh))
    }

    fn get(&self, metadata: &dyn Metadata, key: &Key) -> Option<Kept> {
        let (version, kept) = self.0.get(key)?;
        (metadata.version(&key.0) == Some(version)).then_some(kept)
    }

    /// A manifest that was kept and still holds.
    pub(crate) fn manifest(
        &self,
        metadata: &dyn Metadata,
        name: &RepoName,
        reference: &Reference,
    ) -> Option<Arc<ServedManifest>> {
        match self.get(metadata, &(name.clone(), true, reference.clone()))? {
            Kept::Manifest(manifest) => Some(manifest),
            Kept::Blob(_) => None,
        }
    }

    /// Keeps a manifest. `version` was taken before it was read.
    pub(crate) fn keep_manifest(
        &self,
        version: Option<u64>,
        name: &RepoName,
        reference: &Reference,
        manifest: &Arc<ServedManifest>,
    ) {
        if let Some(version) = version {
            let kept = Kept::Manifest(Arc::clone(manifest));
            self.0.insert((name.clone(), true, reference.clone()), (version, kept));
        }
    }

    /// A blob that was kept and is still held.
    pub(crate) fn blob(&self, metadata: &dyn Metadata, name: &RepoName, digest: &Digest) -> Option<Arc<ServedBlob>> {
        match self.get(metadata, &(name.clone(), false, Reference::Digest(*digest)))? {
            Kept::Blob(blob) => Some(blob),
            Kept::Manifest(_) => None,
        }
    }

    /// Keeps a blob. `version` was taken before it was read.
    pub(crate) fn keep_blob(&self, version: Option<u64>, name: &RepoName, digest: &Digest, blob: &Arc<ServedBlob>) {
        if let Some(version) = version {
            let kept = Kept::Blob(Arc::clone(blob));
            self.0.insert((name.clone(), false, Reference::Digest(*digest)), (version, kept));
        }
    }
}
