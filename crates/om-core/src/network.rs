//! Owns networks of the cluster: their configuration, the part of each that a node hands out, and the CNI configuration
//! that this comes to. Does not own running plugins.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use crate::path::NodeName;

/// The network that is there when none is configured.
pub const DEFAULT: &str = "default";

/// An IPv4 network: address and prefix length, `10.22.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: u32,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network (hint: an address and a prefix from 8 to 30, such as 10.22.0.0/16)")]
pub struct SubnetError(pub String);

impl Subnet {
    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from(self.address)
    }

    /// The length of its prefix, 8 to 30.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses it has, with the two that no host gets.
    pub fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The gateway that plugins take: the address after the first.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.address + 1)
    }

    /// Whether the two have addresses in common.
    pub fn overlaps(self, other: Self) -> bool {
        let shared = self.prefix.min(other.prefix);
        (self.address ^ other.address) >> (32 - shared) == 0
    }

    /// The block of `size` addresses, rounded up to a power of two, with number `index`; none if it is outside.
    pub fn block(self, size: u64, index: u64) -> Option<Self> {
        let size = size.max(4).checked_next_power_of_two()?;
        let first = size.checked_mul(index)?;
        if first.checked_add(size)? > self.size() {
            return None;
        }
        let prefix = 32 - u8::try_from(size.trailing_zeros()).ok()?;
        Some(Self { address: self.address + u32::try_from(first).ok()?, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (Ipv4Addr, u8) =
            (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        let address = u32::from(address);
        // An address with bits after the prefix is a slip: which network was meant?
        if !(8..=30).contains(&prefix) || address & (u32::MAX >> prefix) != 0 {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

/// How nodes reach addresses of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkType {
    /// They do not: every node hands out the same addresses, behind its own.
    Bridge,
    /// Each node hands out a block of its own, and has routes to the others'.
    RoutedBridge,
}

impl NetworkType {
    /// The word in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::RoutedBridge => "routed_bridge",
        }
    }
}

/// A network of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name: a word of at most 11 characters, so that the bridge's name fits.
    pub name: String,
    /// How nodes reach each other's addresses.
    pub kind: NetworkType,
    /// All of its addresses.
    pub subnet: Subnet,
    /// Of a routed one: addresses of a node's block.
    pub ips_per_node: u64,
}

/// A network that cannot be used on a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There are more nodes than blocks.
    #[error(
        "network {network} ({subnet}) has no block of {size} addresses for node {node} (hint: a larger network, or a smaller ips_per_node)"
    )]
    Full {
        /// The network.
        network: String,
        /// Its addresses.
        subnet: Subnet,
        /// Addresses of a block.
        size: u64,
        /// The node.
        node: NodeName,
    },
    /// The name does not fit.
    #[error("`{0}` is no name of a network (hint: 1 to 11 lower-case letters, digits and hyphens)")]
    Name(String),
}

impl Network {
    /// The network that is there when none is configured: a bridge on one node, blocks on several.
    pub fn implied(nodes: usize) -> Self {
        let kind = if nodes > 1 { NetworkType::RoutedBridge } else { NetworkType::Bridge };
        let subnet = Subnet { address: u32::from(Ipv4Addr::new(10, 22, 0, 0)), prefix: 16 };
        Self { name: DEFAULT.to_owned(), kind, subnet, ips_per_node: 1024 }
    }

    /// The name of the bridge on each node.
    pub fn bridge(&self) -> String {
        format!("obr_{}", self.name)
    }

    /// Whether its name is one: 1 to 11 lower-case letters, digits and hyphens.
    pub fn has_name(&self) -> bool {
        (1..=11).contains(&self.name.len())
            && self.name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    }

    /// What a node hands out.
    ///
    /// # Errors
    /// If there is nothing left for it, or the network's name is none.
    pub fn part(&self, nodes: &[NodeName], node: &NodeName) -> Result<Subnet, NetworkError> {
        if !self.has_name() {
            return Err(NetworkError::Name(self.name.clone()));
        }
        if self.kind == NetworkType::Bridge {
            return Ok(self.subnet);
        }
        let index = nodes.iter().position(|other| other == node).unwrap_or(nodes.len());
        self.subnet.block(self.ips_per_node, index as u64).ok_or_else(|| NetworkError::Full {
            network: self.name.clone(),
            subnet: self.subnet,
            size: self.ips_per_node,
            node: node.clone(),
        })
    }

    /// The plugins that give an address of `part`, in order, as JSON objects (CNI specification 0.4, "Network
    /// configuration lists"). With `ports`, the last one opens ports of the host.
    pub fn plugins(&self, part: Subnet, ports: bool) -> Vec<String> {
        let masquerade = self.kind == NetworkType::Bridge;
        let bridge = format!(
            r#"{{"type":"bridge","bridge":"{}","isGateway":true,"ipMasq":{masquerade},"hairpinMode":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"{part}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}"#,
            self.bridge()
        );
        let portmap = r#"{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}"#.to_owned();
        if ports { vec![bridge, portmap] } else { vec![bridge] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_are_read_and_shown() {
        for text in ["10.22.0.0/16", "192.168.1.0/24", "10.0.0.0/8", "10.1.2.4/30"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in ["10.22.0.1/16", "10.22.0.0", "10.22.0.0/7", "10.22.0.0/31", "x/16", "10.22/16", "10.22.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        assert_eq!(subnet("10.22.0.0/16").gateway().to_string(), "10.22.0.1");
    }

    #[test]
    fn blocks_part_a_network() {
        let check = |size, index, expected: Option<&str>| {
            assert_eq!(
                subnet("10.30.0.0/16").block(size, index).map(|s| s.to_string()).as_deref(),
                expected,
                "{size} {index}"
            );
        };
        check(1024, 0, Some("10.30.0.0/22"));
        check(1024, 1, Some("10.30.4.0/22"));
        check(1000, 1, Some("10.30.4.0/22"));
        check(1024, 63, Some("10.30.252.0/22"));
        check(1024, 64, None);
        check(1, 1, Some("10.30.0.4/30"));
        check(u64::MAX, 0, None);
        check(1024, u64::MAX, None);
    }

    #[test]
    fn networks_overlap_where_one_is_in_the_other() {
        let check = |a, b, expected| assert_eq!(subnet(a).overlaps(subnet(b)), expected, "{a} {b}");
        check("10.22.0.0/16", "10.22.4.0/24", true);
        check("10.22.0.0/16", "10.23.0.0/16", false);
        check("10.0.0.0/8", "10.23.0.0/16", true);
    }

    #[test]
    fn each_node_of_a_routed_network_has_its_part() {
        let nodes: Vec<NodeName> = ["a", "b"].map(|node| node.parse().expect("a node")).to_vec();
        let network = Network::implied(2);
        let parts: Vec<String> =
            nodes.iter().map(|node| network.part(&nodes, node).expect("a part").to_string()).collect();
        assert_eq!(parts, ["10.22.0.0/22", "10.22.4.0/22"]);
        assert_eq!(Network::implied(1).part(&nodes, &nodes[1]).expect("a part").to_string(), "10.22.0.0/16");
        let small = Network { subnet: subnet("10.9.0.0/22"), ..network };
        assert!(matches!(small.part(&nodes, &nodes[1]), Err(NetworkError::Full { .. })));
        let long = Network { name: "a-name-too-long".into(), ..Network::implied(1) };
        assert!(matches!(long.part(&nodes, &nodes[0]), Err(NetworkError::Name(_))));
    }
}
