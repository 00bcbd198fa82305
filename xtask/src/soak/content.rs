//! What the clients push: blobs that can be made again from a number, and manifests over them.
//!
//! Nothing keeps the bytes of a blob: they are derived when they are sent or compared, so that an hour of pushing
//! takes no more memory than a minute. Owns no idea of who pushes what where.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bench::payload::{digest_of, random_bytes};
use crate::bench::registry::OCI_MANIFEST;

/// Media type of an index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Distinct layers that images are made of at a time.
const SLOTS: usize = 160;
/// One pick in so many replaces a layer of the pool by a new one.
const RENEWED: usize = 25;

/// Repeatable random numbers (SplitMix64). Not for secrets.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A number below `limit`, which is above zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them, if there is one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

/// A blob.
#[derive(Debug)]
pub(crate) struct Content {
    seed: u64,
    pub(crate) size: usize,
    /// `sha256:<64 hex>`.
    pub(crate) digest: String,
}

impl Content {
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        Self { seed, size, digest: digest_of(&random_bytes(size, seed)) }
    }

    /// The bytes, made anew.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        random_bytes(self.size, self.seed)
    }

    /// A new blob of one of the sizes that images have: most are small enough to lie beside their row, some large
    /// enough to be received in several batches.
    fn any(random: &mut Random) -> Self {
        let size = match random.below(100) {
            0..55 => 100 + random.below(40_000),
            55..88 => 66_000 + random.below(340_000),
            _ => 500_000 + random.below(2_500_000),
        };
        Self::new(random.next(), size)
    }
}

/// A manifest, and what it refers to.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// Config and layers.
    pub(crate) blobs: Vec<Arc<Content>>,
    /// The entries of an index.
    pub(crate) children: Vec<Arc<Image>>,
    /// The manifest that it is about.
    pub(crate) subject: Option<String>,
}

impl Image {
    fn new(text: String, media_type: &'static str) -> Self {
        let (blobs, children, subject) = (Vec::new(), Vec::new(), None);
        Self { digest: digest_of(text.as_bytes()), bytes: text.into_bytes(), media_type, blobs, children, subject }
    }

    /// An image of a config and layers, about `subject` if one is given.
    pub(crate) fn of(blobs: Vec<Arc<Content>>, subject: Option<&Image>, mark: u64) -> Self {
        let entries: Vec<String> = blobs
            .iter()
            .zip(std::iter::once("config.v1+json").chain(std::iter::repeat("layer.v1.tar+gzip")))
            .map(|(blob, kind)| descriptor(&format!("application/vnd.oci.image.{kind}"), &blob.digest, blob.size))
            .collect();
        let about = subject.map(|subject| {
            format!(r#","subject":{}"#, descriptor(subject.media_type, &subject.digest, subject.bytes.len()))
        });
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]{},"annotations":{{"mark":"{mark}"}}}}"#,
            entries[0],
            entries[1..].join(","),
            about.unwrap_or_default(),
        );
        Self { blobs, subject: subject.map(|subject| subject.digest.clone()), ..Self::new(text, OCI_MANIFEST) }
    }

    /// An index of images.
    pub(crate) fn index(children: Vec<Arc<Image>>, mark: u64) -> Self {
        let entries: Vec<String> =
            children.iter().map(|child| descriptor(child.media_type, &child.digest, child.bytes.len())).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}],"annotations":{{"mark":"{mark}"}}}}"#,
            entries.join(",")
        );
        Self { children, ..Self::new(text, OCI_INDEX) }
    }
}

fn descriptor(kind: &str, digest: &str, size: usize) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

/// The layers that images share. Some are in nearly every image, some are left and come back.
pub(crate) struct Pool(Mutex<Vec<Arc<Content>>>);

impl Pool {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self(Mutex::new((0..SLOTS).map(|_| Arc::new(Content::any(&mut random))).collect()))
    }

    fn pick(&self, random: &mut Random) -> Arc<Content> {
        let slot = random.below(SLOTS).min(random.below(SLOTS));
        if random.one_in(RENEWED) {
            let new = Arc::new(Content::any(random));
            self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot] = Arc::clone(&new);
            return new;
        }
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot])
    }

    /// The blobs of a new image: a config of its own and some shared layers, and now and then one that only it has.
    pub(crate) fn blobs(&self, random: &mut Random) -> Vec<Arc<Content>> {
        let config_size = 200 + random.below(2_000);
        let mut blobs = vec![Arc::new(Content::new(random.next(), config_size))];
        for _ in 0..1 + random.below(4) {
            let layer = if random.one_in(6) { Arc::new(Content::any(random)) } else { self.pick(random) };
            if blobs.iter().all(|blob| blob.digest != layer.digest) {
                blobs.push(layer);
            }
        }
        blobs
    }
}
