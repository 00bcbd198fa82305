//! Owns what a certificate can be made out to: a DNS name or an IP address.

use std::{fmt, net::IpAddr, str::FromStr};

/// A DNS name in lower case, perhaps with `*` as its first label, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// Why a text is no name for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {problem}", text.escape_debug())]
pub struct NameError {
    text: String,
    problem: &'static str,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Ip(address));
        }
        let wrong = |problem| Err(NameError { text: text.chars().take(80).collect(), problem });
        if text.is_empty() {
            return wrong("is empty; give a DNS name or an IP address");
        }
        if text.contains('/') {
            return wrong("is no name; give only the host, without `https://` and without a path");
        }
        if text.contains(':') {
            return wrong("is no name; give only the host, without a port");
        }
        if text.len() > 253 {
            return wrong("is longer than 253 characters");
        }
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let good = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !labels.split('.').all(good) {
            return wrong("is no DNS name: labels are 1 to 63 letters, digits and hyphens, with dots between them");
        }
        if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return wrong("is neither a DNS name nor a valid IP address");
        }
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expected: &str| {
            let seen = match text.parse::<Name>() {
                Ok(name) => name.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(seen.contains(expected), "{text:?}: {seen}");
        };
        for (text, expected) in [
            ("registry.Example.com", "registry.example.com"),
            ("localhost", "localhost"),
            ("my_host", "my_host"),
            ("*.example.com", "*.example.com"),
            ("10.1.2.3", "10.1.2.3"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
        ] {
            check(text, expected);
            assert_eq!(text.parse::<Name>().unwrap().to_string(), expected);
        }
        let long = "a.".repeat(127) + "a";
        for (text, expected) in [
            ("", "is empty"),
            ("https://x", "without `https://`"),
            ("x:5000", "without a port"),
            ("10.1.2.300", "nor a valid IP address"),
            ("a..b", "is no DNS name"),
            ("a.", "is no DNS name"),
            ("-a", "is no DNS name"),
            ("a.*.b", "is no DNS name"),
            ("*", "is no DNS name"),
            ("büro", "is no DNS name"),
            ("a b", "is no DNS name"),
            ("a\n", "`a\\n` is no DNS name"),
            (&long, "longer than 253"),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
            check(text, expected);
        }
    }
}
