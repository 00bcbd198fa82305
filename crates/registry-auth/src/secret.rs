//! Owns the secrets of robots and personal tokens: their text, and what is stored of one.
//!
//! Does not own whose a secret is, nor until when it is good.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest;

use crate::random;

/// What every secret begins with, so that people and scanners of leaked secrets recognise one.
pub const PREFIX: &str = "rsk_";
/// Random bytes of a secret.
const ENTROPY: usize = 32;

/// A new secret, `rsk_` and 43 characters of base64url; shown to its owner once, never stored.
pub struct Secret(String);

impl Secret {
    /// Makes a secret of 256 random bits.
    pub fn generate() -> Self {
        Self(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<ENTROPY>())))
    }

    /// The stored form of a text that has the form of a secret, such as the password of a Basic
    /// header; `None` for any other text.
    pub fn parse(text: &[u8]) -> Option<SecretHash> {
        let random = text.strip_prefix(PREFIX.as_bytes())?;
        // A whole secret has one spelling; this refuses spare bits, padding and other lengths.
        let mut bytes = [0; ENTROPY];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(random, &mut bytes).ok()?;
        (length == ENTROPY).then(|| SecretHash::of(text))
    }

    /// The secret itself, to show it to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is stored of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a secret's whole text.
///
/// Not argon2: slowness protects what can be guessed, and nobody guesses 256 random bits. Nor does
/// looking one up in a map tell anything by its time: a caller cannot choose a hash that begins
/// like a stored one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    fn of(text: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
        Self(hash)
    }
}

impl From<[u8; 32]> for SecretHash {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl From<SecretHash> for [u8; 32] {
    fn from(hash: SecretHash) -> Self {
        hash.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, proptest};

    use super::Secret;

    #[test]
    fn a_secret_is_found_by_its_hash() {
        let secret = Secret::generate();
        assert_eq!(secret.as_str().len(), 47);
        assert_eq!(Secret::parse(secret.as_str().as_bytes()), Some(secret.hash()));
        assert_ne!(Secret::generate().hash(), secret.hash());
        let shown = format!("{secret:?} {:?}", secret.hash());
        assert_eq!(shown, "Secret(..) SecretHash(..)");
    }

    #[test]
    fn the_hash_is_the_one_of_sha256sum() {
        // printf rsk_AAAA…A | sha256sum
        let text = format!("rsk_{}", "A".repeat(43));
        let hash = "c149f85026f8dd6df1706e7721ada2483a0f059647fed26663f703640a6d5744";
        let bytes: [u8; 32] = Secret::parse(text.as_bytes()).unwrap().into();
        assert_eq!(bytes.map(|byte| format!("{byte:02x}")).concat(), hash);
    }

    #[test]
    fn only_whole_secrets_are_secrets() {
        let check = |text: &str, good: bool| assert_eq!(Secret::parse(text.as_bytes()).is_some(), good, "{text:?}");
        let body = "A".repeat(43);
        check(&format!("rsk_{body}"), true);
        check(&format!("rsk_{}-8", "A".repeat(41)), true);
        check(&format!("rsk_{}B", "A".repeat(42)), false); // Spare bits.
        check(&format!("rsk_{body}="), false);
        check(&format!("rsk_{body}A"), false);
        check(&format!("rsk_{}", &body[1..]), false);
        check(&format!("rsk_{}+", &body[1..]), false);
        check(&format!("rsk_{body}\n"), false);
        check(&format!("RSK_{body}"), false);
        check(&body, false);
        check("rsk_", false);
        check("", false);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_is_no_secret(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            assert_eq!(Secret::parse(&bytes), None);
            assert_eq!(Secret::parse(&[b"rsk_".as_slice(), &bytes].concat()), None);
        }
    }
}
