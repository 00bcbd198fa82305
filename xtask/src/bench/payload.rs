//! Content to push: random bytes of which any number of distinct variants, with digests, cost almost nothing.
//!
//! Owns bytes and digests, not how they travel.

use sha2::{Digest as _, Sha256};

/// Bytes at the end of a payload that tell its variants apart.
const TAIL: usize = 16;

/// A base of random bytes whose variants differ in the last 16, hashed once up to there.
pub(crate) struct Payload {
    base: Vec<u8>,
    prefix: Sha256,
}

/// One blob, in two slices.
pub(crate) struct Blob<'a> {
    pub(crate) base: &'a [u8],
    pub(crate) tail: Vec<u8>,
    /// `sha256:<64 hex>`.
    pub(crate) digest: String,
}

impl Payload {
    /// `size` is at least 16.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let base = random_bytes(size - TAIL, seed);
        let prefix = Sha256::new_with_prefix(&base);
        Self { base, prefix }
    }

    pub(crate) fn variant(&self, id: u64) -> Blob<'_> {
        let mut tail = b"variant ".to_vec();
        tail.extend(id.to_le_bytes());
        let digest = self.prefix.clone().chain_update(&tail).finalize();
        Blob { base: &self.base, tail, digest: digest_text(&digest) }
    }
}

impl<'a> Blob<'a> {
    pub(crate) fn whole(bytes: &'a [u8]) -> Self {
        Self { base: bytes, tail: Vec::new(), digest: digest_of(bytes) }
    }

    pub(crate) fn size(&self) -> usize {
        self.base.len() + self.tail.len()
    }

    /// The bytes from `start` to `end` (exclusive, within the blob), split where base and tail meet.
    pub(crate) fn slices(&self, start: usize, end: usize) -> [&[u8]; 2] {
        let middle = self.base.len();
        [
            &self.base[start.min(middle)..end.min(middle)],
            &self.tail[start.max(middle) - middle..end.max(middle) - middle],
        ]
    }
}

/// `sha256:<64 hex>` of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

/// Bytes that no file system or server can compress or share; the same for the same seed.
pub(crate) fn random_bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn digest_text(digest: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for &byte in digest {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_hash_to_their_digest() {
        let payload = Payload::new(1000, 7);
        for (id, start, end) in [(0, 0, 1000), (1, 0, 990), (2, 983, 985), (u64::MAX, 984, 1000), (3, 5, 5)] {
            check(&payload.variant(id), start, end);
        }
        check(&Blob::whole(b"abc"), 1, 3);
        check(&Blob::whole(b""), 0, 0);
    }

    fn check(blob: &Blob<'_>, start: usize, end: usize) {
        let whole = [blob.base, &blob.tail].concat();
        assert_eq!(whole.len(), blob.size());
        assert_eq!(digest_of(&whole), blob.digest);
        assert_eq!(blob.slices(start, end).concat(), &whole[start..end]);
    }

    #[test]
    fn digest_text_is_the_known_one() {
        let expected = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(b""), expected);
    }
}
