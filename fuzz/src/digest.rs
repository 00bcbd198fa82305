//! What holds for digests.

use registry_core::digest::Digest;

use super::text;

/// A digest has one spelling and one stored form, and nothing else is either.
pub fn check(data: &[u8]) {
    if let Some(digest) = Digest::from_key(data) {
        assert_eq!(digest.to_key(), data);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    let Some(text) = text(data) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert_eq!(digest.raw().len(), digest.algorithm().size());
    assert_eq!(Digest::from_raw(digest.algorithm(), digest.raw()), Some(digest));
    assert_eq!(Digest::from_key(&digest.to_key()), Some(digest));
}
