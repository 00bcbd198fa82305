//! Owns repository names: which strings are one, and how they sort.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest repository name, in bytes, as the `registry` image enforces it.
pub const MAX_NAME: usize = 255;

/// A repository name such as `team/api`.
///
/// Slash-separated components of lower-case letters and digits, joined inside by one dot, one or
/// two underscores, or any number of dashes; at most [`MAX_NAME`] bytes in all.
/// Source: OCI distribution spec, "Pulling manifests".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoName(Arc<str>);

/// A string that is no repository name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`MAX_NAME`].
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// Outside the grammar.
    #[error("invalid repository name")]
    Grammar,
}

impl RepoName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that orders names component by component, as the catalog does: the slash sorts
    /// before every other character, so `a/b` comes before `a-b`.
    pub fn sort_key(&self) -> String {
        sort_key(&self.0)
    }
}

/// [`RepoName::sort_key`] of any text, for a page that starts after a name that need not exist.
pub fn sort_key(text: &str) -> String {
    text.replace('/', "\u{1}")
}

fn is_component(component: &[u8]) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let run = rest.iter().take_while(|c| alnum(**c)).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        let Some(first) = rest.first() else {
            return true;
        };
        let separator = rest.iter().take_while(|c| *c == first).count();
        let allowed = match first {
            b'.' => separator == 1,
            b'_' => separator <= 2,
            b'-' => true,
            _ => false,
        };
        if !allowed {
            return false;
        }
        rest = &rest[separator..];
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !text.split('/').all(|component| is_component(component.as_bytes())) {
            return Err(NameError::Grammar);
        }
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl Ord for RepoName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |name: &Self| name.0.bytes().map(|c| if c == b'/' { 1 } else { c }).collect::<Vec<_>>();
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for RepoName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{NameError, RepoName};

    fn check(text: &str, good: bool) {
        assert_eq!(text.parse::<RepoName>().is_ok(), good, "{text:?}");
    }

    #[test]
    fn grammar() {
        for good in ["a", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1/2", "library/ubuntu"] {
            check(good, true);
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a.-b", "a b", "a/../b", "é", "a\n"]
        {
            check(bad, false);
        }
        check(&"a".repeat(255), true);
        assert_eq!("a".repeat(256).parse::<RepoName>(), Err(NameError::TooLong));
    }

    #[test]
    fn order_is_by_component() {
        let mut names: Vec<RepoName> = ["a-b", "a/b", "a", "a.b", "ab"].iter().map(|n| n.parse().unwrap()).collect();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(RepoName::as_str).collect();
        assert_eq!(sorted, ["a", "a/b", "a-b", "a.b", "ab"]);
        let mut keys: Vec<String> = names.iter().map(RepoName::sort_key).collect();
        keys.sort();
        assert_eq!(keys, names.iter().map(RepoName::sort_key).collect::<Vec<_>>());
    }
}
