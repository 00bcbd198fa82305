//! Owns digests: which strings are one, and their compact form. Does not hash.

use std::{fmt, str::FromStr};

/// A hash algorithm that content may be named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    #[default]
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// `sha256` or `sha512`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the raw hash in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Algorithm),
        }
    }
}

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`, lower case.
///
/// Source: OCI image spec, "Descriptor", section "Digests".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The raw hash; bytes past [`Algorithm::size`] are zero.
    raw: [u8; 64],
}

/// A string that is no digest that this registry can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon, a wrong length, or a character outside `0-9a-f`.
    #[error("invalid checksum digest format")]
    Format,
    /// Neither `sha256` nor `sha512`.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl Digest {
    /// A digest from a raw hash, or nothing if its length is not the algorithm's.
    pub fn from_raw(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        let mut raw = [0; 64];
        if hash.len() != algorithm.size() {
            return None;
        }
        raw[..hash.len()].copy_from_slice(hash);
        Some(Self { algorithm, raw })
    }

    /// The algorithm that made it.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash, 32 or 64 bytes.
    pub fn raw(&self) -> &[u8] {
        &self.raw[..self.algorithm.size()]
    }

    /// The raw hash as lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(2 * self.algorithm.size());
        for byte in self.raw() {
            hex.push(DIGITS[usize::from(byte >> 4)].into());
            hex.push(DIGITS[usize::from(byte & 15)].into());
        }
        hex
    }

    /// The stored form: one byte for the algorithm (1 sha256, 2 sha512), then the raw hash.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.algorithm.size());
        key.push(self.algorithm.tag());
        key.extend_from_slice(self.raw());
        key
    }

    /// The digest whose [`to_key`](Self::to_key) is `key`.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (tag, hash) = key.split_first()?;
        let algorithm = match tag {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return None,
        };
        Self::from_raw(algorithm, hash)
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Format)?;
        let algorithm: Algorithm = algorithm.parse()?;
        if hex.len() != 2 * algorithm.size() {
            return Err(DigestError::Format);
        }
        let mut raw = [0; 64];
        for (byte, pair) in raw.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(DigestError::Format);
            };
            *byte = high << 4 | low;
        }
        Ok(Self { algorithm, raw })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, DigestError};

    #[test]
    fn round_trips() {
        for text in [format!("sha256:{}", "0f".repeat(32)), format!("sha512:{}", "a9".repeat(64))] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest.to_string(), text);
            assert_eq!(Digest::from_key(&digest.to_key()), Some(digest));
        }
    }

    #[test]
    fn refuses() {
        let check = |text: String, want| assert_eq!(text.parse::<Digest>(), Err(want), "{text}");
        check(String::new(), DigestError::Format);
        check("sha256".into(), DigestError::Format);
        check(format!("sha256:{}", "0F".repeat(32)), DigestError::Format);
        check(format!("sha256:{}", "0f".repeat(31)), DigestError::Format);
        check(format!("sha512:{}", "0f".repeat(32)), DigestError::Format);
        check(format!("md5:{}", "0f".repeat(16)), DigestError::Algorithm);
        check(format!("sha256:{}é", "0f".repeat(31)), DigestError::Format);
    }
}
