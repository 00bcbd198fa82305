//! Owns where clients get tokens, and how they hand them in.

use crate::Ask;

/// The longest `Host` that a realm is made of: a DNS name and a port.
const MAX_HOST: usize = 260;

/// The token of `Bearer <token>`.
pub(crate) fn bearer(authorization: Option<&str>) -> Option<&str> {
    let (kind, token) = authorization?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (kind.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// `path` on the host that the client asked, by the scheme that the outermost proxy says, else by
/// `scheme`. `None` if the client's `Host` is none.
pub(crate) fn same_host(ask: &Ask<'_>, scheme: &str, path: &str) -> Option<String> {
    let host = ask.host.filter(|host| is_host(host))?;
    // Proxies in a row each add their own; the first is what the client used.
    let proto = ask.forwarded_proto.and_then(|all| all.split(',').next()).unwrap_or_default().trim();
    let known = ["http", "https"].into_iter().find(|known| proto.eq_ignore_ascii_case(known));
    Some(format!("{}://{host}{path}", known.unwrap_or(scheme)))
}

/// A name, IPv4 or bracketed IPv6 address, with or without a port; nothing that ends an authority.
pub(crate) fn is_host(host: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c);
    !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(good)
}
