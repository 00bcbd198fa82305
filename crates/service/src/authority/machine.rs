//! Finds the names under which this machine may be reached: its host name and its addresses.

use std::{collections::BTreeSet, fs, net::IpAddr};

use crate::tls::name::Name;

/// Addresses that are taken at most: a machine with very many has most of them for something else.
const MAX_ADDRESSES: usize = 64;

/// `localhost`, the host name, its full name where `/etc/hosts` knows one, and the addresses of all interfaces but
/// those that are good on one link only.
pub(super) fn names() -> BTreeSet<Name> {
    let mut names = BTreeSet::from([
        Name::Dns("localhost".into()),
        Name::Ip([127, 0, 0, 1].into()),
        Name::Ip(IpAddr::from(1_u128.to_be_bytes())),
    ]);
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    // A host name that no certificate can hold is none that a client could ask for.
    names.extend(host.parse::<Name>());
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    names.extend(full_name(&host, &hosts).and_then(|name| name.parse().ok()));
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => {
            let addresses = interfaces.iter().filter(|found| !found.is_link_local()).map(if_addrs::Interface::ip);
            let addresses = addresses.filter(|address| !address.is_loopback() && !address.is_unspecified());
            names.extend(addresses.take(MAX_ADDRESSES).map(Name::Ip));
        }
        Err(error) => tracing::warn!(%error, "the addresses of this machine are not known, its certificate lacks them"),
    }
    names
}

/// The first name on the line of `/etc/hosts` that has `host` as another one: its full name, as in hostname(1).
fn full_name<'a>(host: &str, hosts: &'a str) -> Option<&'a str> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        let first = words.next()?;
        let full = first.len() > host.len() && first.starts_with(host) && first.as_bytes()[host.len()] == b'.';
        (full && words.any(|word| word == host)).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names() {
        let check = |hosts: &str, expected: Option<&str>| assert_eq!(full_name("box", hosts), expected, "{hosts}");
        check("127.0.0.1 localhost\n10.0.0.7\tbox.example.com box # box\n", Some("box.example.com"));
        check("127.0.1.1 box.example.com box", Some("box.example.com"));
        check("127.0.0.1 localhost box", None);
        check("10.0.0.7 box", None);
        check("10.0.0.7 boxes.example.com box", None);
        check("# 10.0.0.7 box.example.com box", None);
        check("", None);
    }

    #[test]
    fn this_machine_has_names() {
        let names = names();
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(names.contains(&name.parse().unwrap()), "{names:?}");
        }
    }
}
