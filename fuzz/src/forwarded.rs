//! What holds for the address of a client behind proxies: the networks that are trusted, separated by
//! commas; the address of the connection; `X-Forwarded-For`. One a line.

use std::net::IpAddr;

use registry::fuzzing::{client, trusts};

use super::text;

/// Whoever is not trusted says nothing about addresses, and nobody says more than the next one.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let networks: Vec<&str> = lines.next().unwrap_or_default().split(',').filter(|text| !text.is_empty()).collect();
    let peer = lines.next().and_then(|peer| peer.parse::<IpAddr>().ok());
    let header = lines.next();
    let Some(found) = client(&networks, peer, header) else {
        return assert!(networks.iter().any(|network| trusts(network, [0, 0, 0, 0].into()).is_none()));
    };
    let trusted = |address: IpAddr| {
        let one = |network: &&str| trusts(network, address).expect("all of them are networks");
        assert!(networks.iter().all(|network| one(network) == within(network, address)), "{networks:?} {address}");
        networks.iter().any(one)
    };
    // The connection, then what each hop said about the one before it, as far as one believes them.
    let hops = header.unwrap_or_default().rsplit(',').map(|hop| hop.trim().parse::<IpAddr>().ok());
    let mut believed = vec![peer];
    for hop in hops {
        let last = believed.last().copied().flatten();
        if hop.is_none() || last.is_some_and(|last| !trusted(last)) || last.is_none() && believed.len() > 1 {
            break;
        }
        believed.push(hop);
    }
    assert!(believed.contains(&found), "{found:?} is none of {believed:?}");
    if believed.len() <= 32 {
        assert_eq!(Some(&found), believed.last());
    }
}

/// Whether the first bits are the same, bit by bit.
fn within(network: &str, address: IpAddr) -> bool {
    let bits = |address: IpAddr| -> Vec<bool> {
        let octets = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let (base, length) = network.split_once('/').unwrap_or((network, ""));
    let (base, address) = (bits(base.parse().expect("an address")), bits(address));
    let length = length.parse().unwrap_or(base.len());
    base.len() == address.len() && base[..length] == address[..length]
}
