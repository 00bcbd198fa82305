//! Owns the seams to storage: where rows live ([`Metadata`]) and where bytes live ([`Blobs`]).
//!
//! A change is decided inside the store's transaction, because only there the facts hold still.
//! The order is fixed: bytes are durable before the row that names them is, and a row is gone
//! before its bytes are.

use std::{fmt, future::Future, os::fd::BorrowedFd, pin::Pin};

use bytes::Bytes;

use crate::{
    digest::{Algorithm, Digest},
    manifest::{IndexPolicy, Manifest},
    name::RepoName,
    page::Page,
    reference::{Reference, Tag},
    retention::{Exceeded, Rules, Usage},
};

/// The future of a store's answer. Dropping it never leaves a change half made: the change
/// happens wholly or not at all.
pub type Answer<'a, T, E = StoreError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Objects up to this many bytes are committed together with their row, in one write, and moved
/// to their file later. 64 KiB holds nearly every manifest and config.
pub const INLINE_MAX: usize = 64 * 1024;

/// Where a blob's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In the metadata store, beside the row.
    Inline,
    /// In the file that distribution's layout gives to the digest.
    Canonical,
    /// In a file beside that one, with a number in its name that is never used twice: the digest
    /// was collected once, and a late purge may still come to the canonical place.
    Unique(u64),
}

/// A blob that a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes when they are inline, else where they are.
    pub content: Content,
    /// When a client was last told that the repository holds it, in seconds since 1970; 0 where
    /// no repository was asked for.
    pub used_at: i64,
}

/// Bytes at hand, or the place to read them from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves.
    Inline(Bytes),
    /// To be read from the blob store.
    Stored(Place),
}

/// A manifest that a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The media type that it was pushed as.
    pub media_type: String,
    /// Its bytes; `used_at` is the manifest's.
    pub blob: BlobEntry,
}

/// A new object whose bytes are durable (`Stored`) or become so with its row (`Inline`).
#[derive(Clone, Debug)]
pub struct NewBlob {
    /// Its digest, verified against the bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub content: Content,
}

/// A manifest to be put.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Its bytes.
    pub blob: NewBlob,
    /// What they say.
    pub manifest: Manifest,
    /// Tags that shall name it.
    pub tags: Vec<Tag>,
    /// Which entries of an index have to exist.
    pub index_policy: IndexPolicy,
}

/// What to change. A change is applied as a whole, in one transaction with its events.
#[derive(Clone, Debug)]
pub enum Change {
    /// A repository gets a blob.
    PutBlob(RepoName, NewBlob),
    /// A repository gets a blob that another one holds.
    Mount {
        /// Which blob.
        digest: Digest,
        /// The repository that holds it.
        from: RepoName,
        /// The repository that gets it.
        to: RepoName,
    },
    /// A repository gets a manifest and tags.
    PutManifest(RepoName, Box<NewManifest>),
    /// A tag goes; its manifest stays until the collection finds that nothing reaches it.
    DeleteTag(RepoName, Tag),
    /// A tag goes as with `DeleteTag`, if it still names what it did and was not pushed since; else
    /// this is refused as if it were not there.
    Expire(RepoName, TagFacts),
    /// A manifest goes, and the tags that name it. It can be brought back for the grace period.
    DeleteManifest(RepoName, Digest),
    /// A repository no longer holds a blob.
    DeleteBlob(RepoName, Digest),
    /// What was deleted is there again: a tag as it was last, or a manifest with the tags that were
    /// taken with it, as far as they do not name something else by now.
    Undelete(RepoName, Reference),
    /// A client is told that a repository holds a blob: from now on for the length of a lease that
    /// is a promise. Refused where it is not held.
    Promise(RepoName, Digest),
    /// Clients were told that repositories hold manifests, by being given them (`true`) or not.
    /// What is gone meanwhile is passed over.
    Used(Vec<(RepoName, Digest, bool)>),
    /// Nothing but the events.
    Nothing,
}

impl Change {
    /// The repository whose answers the change alters.
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Self::PutBlob(name, _)
            | Self::Mount { to: name, .. }
            | Self::PutManifest(name, _)
            | Self::DeleteTag(name, _)
            | Self::Expire(name, _)
            | Self::DeleteManifest(name, _)
            | Self::DeleteBlob(name, _)
            | Self::Undelete(name, _) => Some(name),
            // They alter when something is collected, and no answer.
            Self::Promise(..) | Self::Used(_) | Self::Nothing => None,
        }
    }
}

/// A notification that waits for delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// The endpoint's name.
    pub endpoint: String,
    /// The event as JSON text, without the envelope.
    pub body: String,
}

/// Why a change is refused. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The repository holds no such blob.
    #[error("blob {0} is unknown")]
    BlobUnknown(Digest),
    /// The repository holds no such manifest or tag.
    #[error("manifest {0} is unknown")]
    ManifestUnknown(String),
    /// There is no such repository.
    #[error("repository {0} is unknown")]
    NameUnknown(RepoName),
    /// The manifest refers to things that the repository does not hold, in document order.
    #[error("{} referenced blobs or manifests are unknown", .0.len())]
    ReferencesUnknown(Vec<Digest>),
    /// A tag that must not move or go.
    #[error("tag {0} is immutable here: push under another tag, or ask the administrator")]
    TagImmutable(Tag),
    /// There is no room in a quota.
    #[error(transparent)]
    QuotaExceeded(#[from] Exceeded),
    /// The bytes are at a place that was given up meanwhile: they have to be stored once more.
    #[error("blob {0} was collected at this very moment; send it again")]
    PlaceRetired(Digest),
    /// There is nothing to bring back.
    #[error("nothing is left of {0}: it never was there, or the grace period is over")]
    NothingToUndelete(String),
    /// A tag that is to be brought back names something by now.
    #[error("tag {tag} is there and names {digest}: delete it first, or bring the manifest back by its digest")]
    TagTaken {
        /// Which.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// Another change of the directory came first.
    #[error("accounts or rules were changed meanwhile")]
    DirectoryChanged,
}

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The change contradicts the facts.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room left. The object was not stored; what was stored is untouched.
    #[error("{operation}: no space left")]
    Full {
        /// What was being done, with its subject.
        operation: String,
    },
    /// A lower layer failed. The object was not stored.
    #[error("{operation}")]
    Failed {
        /// What was being done, with its subject.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A write could not be made durable before, so that the store takes no writes any more: the
    /// kernel may have dropped the data and would report success on a second try.
    #[error("storage failed before and takes no writes until the server is restarted")]
    Poisoned,
}

impl StoreError {
    /// A failure of `operation`, told apart by whether the disk is full.
    pub fn io(operation: impl fmt::Display, source: std::io::Error) -> Self {
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            Self::Full { operation: operation.to_string() }
        } else {
            Self::Failed { operation: operation.to_string(), source: Box::new(source) }
        }
    }
}

/// An event in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Rises with the order of the events.
    pub id: i64,
    /// What to deliver where.
    pub event: OutboxEvent,
    /// Failed tries so far.
    pub attempts: u32,
    /// When it was written, in seconds since 1970.
    pub created_at: i64,
    /// Set once it was given up: the last failure's text.
    pub dead: Option<String>,
}

/// What became of a try to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The endpoint took it; it leaves the outbox.
    Accepted,
    /// It failed and will be tried again.
    Failed,
    /// It failed for the last time and becomes a dead letter; the text says why.
    Dead(String),
    /// A dead letter goes back to the queue.
    Replayed,
}

/// What became of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagAction {
    /// It was made, or moved.
    Set,
    /// It was deleted, by itself or with its manifest.
    Deleted,
    /// It was brought back.
    Restored,
}

/// An entry of a repository's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEvent {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Which tag.
    pub tag: Tag,
    /// What became of it.
    pub action: TagAction,
    /// The manifest that it named then, or named last.
    pub digest: Digest,
    /// Whether that manifest is still there, so that the tag can be brought back to it.
    pub kept: bool,
}

/// A tag as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFacts {
    /// Its name.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
    /// When it was last pushed, in seconds since 1970.
    pub pushed_at: i64,
    /// When its manifest was last pulled, under whatever name; 0 for never.
    pub pulled_at: i64,
}

/// Where the rows live: repositories, links, manifests, tags, referrers, the outbox.
///
/// Reads see every change that was acknowledged before they began.
pub trait Metadata: Send + Sync {
    /// Applies a change with its events, durably, or refuses it.
    fn apply(&self, change: Change, events: Vec<OutboxEvent>) -> Answer<'_, ()>;
    /// A blob, if the repository holds it.
    fn blob<'a>(&'a self, repository: &'a RepoName, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>>;
    /// A blob in any repository, for deduplication.
    fn blob_anywhere<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>>;
    /// Up to `limit` repositories that hold a blob.
    fn holders<'a>(&'a self, digest: &'a Digest, limit: usize) -> Answer<'a, Vec<RepoName>>;
    /// A manifest, if the repository holds it.
    fn manifest<'a>(&'a self, repository: &'a RepoName, reference: &'a Reference) -> Answer<'a, Option<ManifestEntry>>;
    /// A page of tags in byte order; `None` if there is no such repository.
    fn tags<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Option<Page<String>>>;
    /// A page of the repositories that hold a manifest, in catalog order.
    fn repositories<'a>(&'a self, after: Option<&'a str>, limit: usize) -> Answer<'a, Page<RepoName>>;
    /// A page of referrers as descriptors in JSON, each with its digest, in digest order. The
    /// page ends early where the descriptors exceed `budget` bytes, but has one at least.
    fn referrers<'a>(
        &'a self,
        repository: &'a RepoName,
        subject: &'a Digest,
        artifact_type: Option<&'a str>,
        after: Option<&'a Digest>,
        limit: usize,
        budget: usize,
    ) -> Answer<'a, Page<(Digest, String)>>;
    /// Up to `limit` undelivered events of an endpoint, oldest first.
    fn pending<'a>(&'a self, endpoint: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>>;
    /// The dead letters, oldest first, at most `limit`.
    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<Delivery>>;
    /// Records what became of a try.
    fn delivered(&self, id: i64, outcome: Delivered) -> Answer<'_, ()>;
    /// Keeps the outbox within bounds: of an endpoint's waiting events beyond `waiting` the oldest
    /// become dead letters, and of all dead letters beyond `dead` the oldest go. Returns how many
    /// became dead letters.
    fn trim_outbox<'a>(&'a self, endpoint: &'a str, waiting: usize, dead: usize) -> Answer<'a, usize>;
    /// A number that is another one after every change to what this repository's reads answer, so
    /// that an answer may be kept while it stays; `None` if the store cannot tell.
    ///
    /// Take it before the read whose answer is kept.
    fn version(&self, repository: &RepoName) -> Option<u64>;
    /// Fails if the store cannot be read or no longer takes writes.
    fn check(&self) -> Answer<'_, ()>;
    /// Where the file of new bytes goes. Asked while the digest is claimed (see
    /// [`gc`](crate::gc)), so that nobody purges it between here and its row.
    fn place<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Place>;
    /// From now on these rules hold for every change. Counts what the quotas hold, which may take
    /// a while the first time.
    fn govern(&self, rules: Rules) -> Answer<'_, ()>;
    /// What the quotas hold, in the order of the rules.
    fn usage(&self) -> Answer<'_, Vec<Usage>>;
    /// What became of a repository's tags, or of one, newest first; at most `limit`.
    fn history<'a>(&'a self, repository: &'a RepoName, tag: Option<&'a Tag>, limit: usize)
    -> Answer<'a, Vec<TagEvent>>;
    /// All tags of a repository, for retention; at most `limit`, in byte order after `after`.
    fn tag_facts<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a Tag>,
        limit: usize,
    ) -> Answer<'a, Page<TagFacts>>;
}

/// A blob's bytes, open for reading.
pub trait BlobReader: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Up to `length` bytes at `offset`, without waiting for a disk; `None` if that may wait.
    fn read_now(&self, offset: u64, length: usize) -> Option<std::io::Result<Bytes>>;
    /// Exactly `length` bytes at `offset`, which lie inside the blob. May wait for the disk.
    fn read(&self, offset: u64, length: usize) -> std::io::Result<Bytes>;
    /// The open file, if there is one, for copying inside the kernel.
    fn file(&self) -> Option<BorrowedFd<'_>>;
}

/// An upload that is too large to be held in memory.
pub trait Staging: Send {
    /// Appends bytes. An error is final for this upload. Cancel-safe: an interrupted call may
    /// have appended the bytes or not; [`flush`](Self::flush) tells how many there are.
    fn append(&mut self, bytes: Bytes) -> Answer<'_, ()>;
    /// Waits until what was appended is written, and returns the size so far.
    fn flush(&mut self) -> Answer<'_, u64>;
    /// Compares the content with `digest` and makes it durable at `place`, which is a file, its name
    /// included. The digest is claimed from before the place was asked for until its row is there.
    fn commit(&mut self, digest: Digest, place: Place) -> Answer<'_, Commit>;
    /// Throws the upload away.
    fn discard(&mut self) -> Answer<'_, ()>;
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The bytes are durable in `place`.
    Stored {
        /// Where.
        place: Place,
        /// How many bytes.
        size: u64,
    },
    /// The content has another digest; it was thrown away.
    Mismatch {
        /// The content's own digest, of the same algorithm.
        actual: Digest,
    },
}

/// Where the bytes live.
pub trait Blobs: Send + Sync {
    /// Starts to stage an upload. `owner` and `id` name it across restarts.
    fn stage<'a>(&'a self, owner: &'a RepoName, id: &'a str, algorithm: Algorithm) -> Answer<'a, Box<dyn Staging>>;
    /// Opens what an earlier process staged under the same names, with its size.
    fn resume<'a>(
        &'a self,
        owner: &'a RepoName,
        id: &'a str,
        algorithm: Algorithm,
    ) -> Answer<'a, Option<(Box<dyn Staging>, u64)>>;
    /// Opens a blob; `None` if its bytes are gone.
    fn open<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, Option<std::sync::Arc<dyn BlobReader>>>;
    /// Removes a file of a blob, whose digest the caller has claimed alone; an absent one is no
    /// error. After a power cut it may be there again.
    fn remove<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, ()>;
    /// Removes uploads that were not touched for `age`; returns their names. With `dry_run` it only names them.
    fn purge_uploads(&self, age: std::time::Duration, dry_run: bool) -> Answer<'_, Vec<String>>;
    /// Fails if the place where bytes live cannot be read. Writes are [`Metadata::check`]'s, which
    /// shares what is known of failed syncs.
    fn check(&self) -> Answer<'_, ()>;
}
