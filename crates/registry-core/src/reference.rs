//! Owns tags and references: how a request names a manifest.

use std::{fmt, str::FromStr, sync::Arc};

use crate::digest::{Digest, DigestError};

/// A tag: a word character, then up to 127 of word characters, dots and dashes.
///
/// Source: OCI distribution spec, "Pulling manifests".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// A string that is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid tag: at most 128 characters of A-Z a-z 0-9 _ . - with no dot or dash at the start")]
pub struct TagError;

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let Some((first, rest)) = text.as_bytes().split_first() else {
            return Err(TagError);
        };
        if !word(*first) || rest.len() > 127 || !rest.iter().all(|c| word(*c) || matches!(c, b'.' | b'-')) {
            return Err(TagError);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By a tag, which may move.
    Tag(Tag),
    /// By what it is.
    Digest(Digest),
}

/// Why a string names no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon and is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has no colon and is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reference, Tag};

    #[test]
    fn tags() {
        let check = |text: &str, good| assert_eq!(text.parse::<Tag>().is_ok(), good, "{text:?}");
        for good in ["latest", "1.2.3", "_x", "A-b.C", &"a".repeat(128)] {
            check(good, true);
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "é", &"a".repeat(129)] {
            check(bad, false);
        }
        assert!("sha256:12".parse::<Reference>().is_err());
    }
}
