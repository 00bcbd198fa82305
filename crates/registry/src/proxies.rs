//! Owns whose word on a client's address counts: the reverse proxies in front of this server.

use std::{fmt, net::IpAddr, str::FromStr};

/// Hops of `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 32;

/// Addresses that begin with the same bits, such as `10.0.0.0/8`; a bare address is itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: u128,
    bits: u32,
    is_v4: bool,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkError;

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be an address or a network such as 10.0.0.0/8 or fd00::/8")
    }
}

fn number(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        // Shifted to the top, so that the first bits are compared in both families alike.
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
        IpAddr::V6(address) => (address.to_bits(), false),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let (address, is_v4) = number(address.parse().map_err(|_| NetworkError)?);
        let most = if is_v4 { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| NetworkError)?;
        if bits > most {
            return Err(NetworkError);
        }
        Ok(Self { address, bits, is_v4 })
    }
}

impl Network {
    pub(crate) fn holds(self, address: IpAddr) -> bool {
        let (address, is_v4) = number(address);
        let different = address ^ self.address;
        is_v4 == self.is_v4 && (self.bits == 0 || different >> (128 - self.bits) == 0)
    }
}

/// The proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies(Vec<Network>);

impl Proxies {
    /// Trusts the machines of these networks.
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// The address of a client: that of the connection, unless a trusted proxy made it, which says
    /// where the request came from. Whatever stands left of the first hop that is not trusted, a
    /// client may have made up. A connection without an address is a Unix socket, which only
    /// somebody on this machine reaches.
    pub(crate) fn client(&self, peer: Option<IpAddr>, forwarded_for: Option<&str>) -> Option<IpAddr> {
        let trusted = |address: IpAddr| self.0.iter().any(|network| network.holds(address));
        let mut client = peer;
        if peer.is_some_and(|peer| !trusted(peer)) {
            return client;
        }
        for hop in forwarded_for.unwrap_or_default().rsplit(',').take(MAX_HOPS) {
            let Ok(address) = hop.trim().parse::<IpAddr>() else {
                break;
            };
            client = Some(address);
            if !trusted(address) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, Proxies};

    #[test]
    fn networks() {
        let check = |text: &str, address: &str, expected: Option<bool>| {
            let network = text.parse::<Network>();
            assert_eq!(
                network.ok().map(|network| network.holds(address.parse().unwrap())),
                expected,
                "{text} {address}"
            );
        };
        check("10.0.0.0/8", "10.255.0.1", Some(true));
        check("10.0.0.0/8", "11.0.0.1", Some(false));
        check("10.0.0.0/8", "::ffff:10.0.0.1", Some(true));
        check("192.0.2.7", "192.0.2.7", Some(true));
        check("192.0.2.7", "192.0.2.6", Some(false));
        check("0.0.0.0/0", "198.51.100.1", Some(true));
        check("0.0.0.0/0", "::1", Some(false));
        check("fd00::/8", "fd12::1", Some(true));
        check("::1", "::1", Some(true));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "example.org", "10.0.0.0/8/8", "10.0.0.0/-1"]
        {
            check(bad, "::1", None);
        }
    }

    #[test]
    fn who_a_client_is() {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let check = |peer: Option<&str>, header: Option<&str>, expected: Option<&str>| {
            let address = |text: &str| text.parse().unwrap();
            assert_eq!(proxies.client(peer.map(address), header), expected.map(address), "{peer:?} {header:?}");
        };
        check(Some("192.0.2.1"), Some("198.51.100.9"), Some("192.0.2.1"));
        check(Some("10.0.0.1"), Some("198.51.100.9"), Some("198.51.100.9"));
        check(Some("10.0.0.1"), Some("1.1.1.1, 198.51.100.9, 10.0.0.2"), Some("198.51.100.9"));
        check(Some("10.0.0.1"), Some("1.1.1.1, nonsense"), Some("10.0.0.1"));
        check(Some("10.0.0.1"), None, Some("10.0.0.1"));
        check(None, Some("198.51.100.9"), Some("198.51.100.9"));
        check(None, None, None);
    }
}
