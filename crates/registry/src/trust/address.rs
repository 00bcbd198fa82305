//! Owns the address of a registry as image names have it: `HOST` or `HOST:PORT`.

use std::str::FromStr;

use service::tls::name::{Name, NameError};

/// A registry's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As image names have it, and so Docker's directories.
    pub(super) text: String,
    /// The host, an IPv6 address without brackets.
    pub(super) host: Name,
    /// The port; 443 if none was given.
    pub(super) port: u16,
}

/// Why a text is no address of a registry.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error(
        "`{0}` is plain HTTP, where nothing is there to trust; give the host and port of a registry that speaks TLS"
    )]
    Http(String),
    #[error("`{0}` is an IPv6 address without brackets; write it as [{0}] or [{0}]:5000")]
    Brackets(String),
    #[error("`{0}` is no registry; write HOST or HOST:PORT, as image names begin")]
    Shape(String),
    #[error("`{0}` has a wildcard, where one host is meant")]
    Wildcard(String),
    #[error(transparent)]
    Host(#[from] NameError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shown = || text.chars().take(100).flat_map(char::escape_debug).collect::<String>();
        if text.starts_with("http://") {
            return Err(AddressError::Http(shown()));
        }
        // As copied from a browser.
        let text = text.strip_prefix("https://").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(AddressError::Brackets(shown()));
        }
        let end = text.find(']').map_or(0, |end| end + 1);
        let (host, port) = match text[end..].split_once(':') {
            Some((rest, port)) => (&text[..end + rest.len()], Some(port)),
            None => (text, None),
        };
        let port = match port {
            None => 443,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port != 0).ok_or_else(|| AddressError::Shape(shown()))?
            }
            Some(_) => return Err(AddressError::Shape(shown())),
        };
        if host.contains('/') {
            return Err(AddressError::Shape(shown()));
        }
        let name: Name = host.parse()?;
        match &name {
            Name::Dns(name) if name.starts_with('*') => Err(AddressError::Wildcard(shown())),
            _ => Ok(Self { text: text.to_owned(), host: name, port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: &str| {
            let seen = match text.parse::<Address>() {
                Ok(Address { text, host, port }) => format!("{text} = {host} {port}"),
                Err(error) => error.to_string(),
            };
            assert!(seen.contains(expected), "{text:?}: {seen}");
        };
        check("registry.test:5000", "registry.test:5000 = registry.test 5000");
        check("registry.test", "registry.test = registry.test 443");
        check("registry.test:443", "registry.test:443 = registry.test 443");
        check("https://registry.test:5000/", "registry.test:5000 = registry.test 5000");
        check("192.0.2.7:5000", "192.0.2.7:5000 = 192.0.2.7 5000");
        check("[::1]:5000", "[::1]:5000 = ::1 5000");
        check("[::1]", "[::1] = ::1 443");
        check("::1", "write it as [::1]");
        check("http://x:5000", "plain HTTP");
        check("x:5000/app", "is no registry");
        check("x/app", "is no registry");
        check("x:", "is no registry");
        check("x:0", "is no registry");
        check("x:65536", "is no registry");
        check("x:+1", "is no registry");
        check("x:y:1", "is no registry");
        check("*.x:5000", "wildcard");
        check("", "is empty");
        for odd in ["..", ".", "../x:1", "/", "a\u{0}b", "[..]:1", "[::1", "]x"] {
            assert!(odd.parse::<Address>().is_err(), "{odd:?}");
        }
    }
}
