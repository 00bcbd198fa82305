//! Owns the zone of the cluster's DNS: which names there are, and what is answered for them, derived from what is seen of
//! services. Pure. Does not own the protocol, nor who is asked for everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    instance::{Expose, ResourceKind},
    network::Subnet,
    path::{Kind, NodeName, ObjectPath},
    status::Status,
    view::View,
};

/// How long an answer may be kept: a service that moved is found again after so many seconds.
pub const TTL: u32 = 5;
/// How long the names of the servers may be kept.
pub const SERVER_TTL: u32 = 3600;
/// The weight of every server of a service: none is better than another.
const WEIGHT: u16 = 100;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// The zone's own record: the server that has it first, who cares for it, and its number (RFC 1035 section 3.3.13).
    Authority {
        /// The first server.
        server: String,
        /// A mail address, written as a name.
        contact: String,
        /// Grows when the zone changes.
        serial: u32,
    },
    /// A server of the zone.
    Server(String),
    /// An address: a record A or AAAA.
    Address(IpAddr),
    /// A port of a service (RFC 2782).
    Service {
        /// Among records of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The name whose address has it.
        target: String,
    },
    /// The name of an address.
    Pointer(String),
}

impl Data {
    /// The type's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Authority { .. } => "SOA",
            Self::Server(_) => "NS",
            Self::Address(IpAddr::V4(_)) => "A",
            Self::Address(IpAddr::V6(_)) => "AAAA",
            Self::Service { .. } => "SRV",
            Self::Pointer(_) => "PTR",
        }
    }

    /// How long it may be kept.
    pub fn ttl(&self) -> u32 {
        if matches!(self, Self::Server(_)) { SERVER_TTL } else { TTL }
    }

    /// As in a zone file.
    pub fn text(&self) -> String {
        match self {
            Self::Authority { server, contact, serial } => {
                let [refresh, retry, expire] = TIMES;
                format!("{server}. {contact}. {serial} {refresh} {retry} {expire} {TTL}")
            }
            Self::Server(name) | Self::Pointer(name) => format!("{name}."),
            Self::Address(address) => address.to_string(),
            Self::Service { weight, port, target } => format!("0 {weight} {port} {target}."),
        }
    }
}

/// Refresh, retry and expiry of the zone, in seconds. Nobody copies it; they are what people expect to read.
pub const TIMES: [i32; 3] = [7200, 3600, 432_000];

/// What there is for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The name is not of this zone.
    Elsewhere,
    /// There is no such name.
    Nothing,
    /// There is such a name; these are all of its records, perhaps none.
    Records(&'a [Data]),
}

/// The zone: all names and what is said of them. Names are in lower case and have no last dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    origin: String,
    names: BTreeMap<String, Vec<Data>>,
    /// Ends of names of addresses that are answered for here.
    reverse: Vec<String>,
}

/// What a zone is made of besides what is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// The cluster's name, which is the zone's.
    pub cluster: String,
    /// Addresses at which it is answered.
    pub servers: Vec<IpAddr>,
    /// Networks whose addresses nobody else has names for.
    pub networks: Vec<Subnet>,
    /// Names of ports, such as `http` of 80 and `tcp` (services(5)).
    pub services: BTreeMap<(u16, String), String>,
}

/// An address of an instance that is up.
struct Seen<'a> {
    path: &'a ObjectPath,
    node: &'a NodeName,
    address: IpAddr,
    ports: &'a [Expose],
}

impl Zone {
    /// The zone of a cluster, from what is seen of its services. Only an instance that is up, on a node that lives, is
    /// found in it.
    pub fn of(view: &View, ground: &Ground, serial: u32) -> Self {
        let origin = ground.cluster.to_ascii_lowercase();
        let reverse = ground.networks.iter().flat_map(|network| ends(*network)).collect();
        let mut zone = Self { origin: origin.clone(), names: BTreeMap::new(), reverse };
        let (server, contact) = (format!("ns1.{origin}"), format!("hostmaster.{origin}"));
        zone.put(&origin, Data::Authority { server, contact, serial });
        for (index, address) in ground.servers.iter().enumerate() {
            let name = format!("ns{}.{origin}", index + 1);
            zone.put(&origin, Data::Server(name.clone()));
            zone.put(&name, Data::Address(*address));
        }
        for seen in seen(view) {
            zone.publish(&seen, &ground.services);
        }
        zone.fill();
        zone
    }

    fn publish(&mut self, seen: &Seen<'_>, services: &BTreeMap<(u16, String), String>) {
        let service = format!("{}.{}.svc", seen.path.name, seen.path.namespace);
        let name = format!("{service}.{}", self.origin);
        let on_node = format!("{service}.{}.node.{}", seen.node, self.origin);
        let dashed = format!("{}.{name}", seen.address.to_string().replace(['.', ':'], "-"));
        for address_of in [&name, &on_node, &dashed] {
            self.put(address_of, Data::Address(seen.address));
        }
        for Expose { port, protocol, .. } in seen.ports {
            let known = services.get(&(*port, protocol.clone())).cloned();
            for label in known.into_iter().chain([port.to_string()]) {
                let data = Data::Service { weight: WEIGHT, port: *port, target: dashed.clone() };
                self.put(&format!("_{label}._{protocol}.{name}"), data);
            }
        }
        self.put(&reversed(seen.address), Data::Pointer(name));
    }

    /// A record, once.
    fn put(&mut self, name: &str, data: Data) {
        let records = self.names.entry(name.to_ascii_lowercase()).or_default();
        if !records.contains(&data) {
            records.push(data);
        }
    }

    /// Names between the zone's and one that has records exist, with no records (RFC 8020).
    fn fill(&mut self) {
        let mut between = BTreeSet::new();
        for name in self.names.keys().filter(|name| self.covers(name)) {
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.').filter(|(_, parent)| self.covers(parent)) {
                between.insert(parent.to_owned());
                rest = parent;
            }
        }
        for name in between {
            self.names.entry(name).or_default();
        }
    }

    /// Whether a name is answered here, whether or not it exists.
    fn covers(&self, name: &str) -> bool {
        let below = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        below(&self.origin) || self.reverse.iter().any(|end| below(end))
    }

    /// The zone's name, without its last dot.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What there is for a name, in lower case and without its last dot.
    pub fn find(&self, name: &str) -> Found<'_> {
        match self.names.get(name) {
            Some(records) => Found::Records(records),
            // The name of an address outside of the cluster's networks is somebody else's.
            None if self.covers(name) => Found::Nothing,
            None => Found::Elsewhere,
        }
    }

    /// The zone's own record, which goes with every "no".
    pub fn authority(&self) -> Option<&Data> {
        self.names.get(&self.origin)?.iter().find(|data| matches!(data, Data::Authority { .. }))
    }

    /// All records, the zone's own first.
    pub fn records(&self) -> impl Iterator<Item = (&str, &Data)> {
        let own = self.names.get_key_value(&self.origin);
        let others = self.names.iter().filter(|(name, _)| **name != self.origin);
        own.into_iter().chain(others).flat_map(|(name, all)| all.iter().map(|data| (name.as_str(), data)))
    }

    /// Whether two zones answer the same, whatever their numbers.
    pub fn same(&self, other: &Self) -> bool {
        let numbered = |(_, data): &(&str, &Data)| matches!(data, Data::Authority { .. });
        let (mine, others) = (self.records(), other.records());
        self.origin == other.origin
            && self.reverse == other.reverse
            && mine.filter(|record| !numbered(record)).eq(others.filter(|record| !numbered(record)))
    }
}

/// Addresses of instances that are up.
fn seen(view: &View) -> Vec<Seen<'_>> {
    let mut all = Vec::new();
    for (path, object) in view.objects.iter().filter(|(path, _)| path.kind == Kind::Svc) {
        let Some(config) = &object.config else { continue };
        for (node, report) in &object.reports {
            if report.summary.avail != Status::Up || !view.lives(node) {
                continue;
            }
            for (rid, status) in report.resources.iter().filter(|(_, status)| status.status == Status::Up) {
                let Some(address) = status.info.get("ipaddr").and_then(|address| address.parse().ok()) else {
                    continue;
                };
                let ports = match config.resources.get(rid).map(|resource| &resource.kind) {
                    Some(ResourceKind::Cni(ip)) => &ip.expose[..],
                    _ => &[],
                };
                all.push(Seen { path, node, address, ports });
            }
        }
    }
    all
}

/// The name under which an address is looked up (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// What the names of a network's addresses end with. There is one end for each block of 24, 16 or 8 bits; a network that
/// is smaller than the smallest block has none, and names of its addresses that are not known are somebody else's.
fn ends(network: Subnet) -> Vec<String> {
    let step: u8 = match network.prefix() {
        ..=8 => 8,
        9..=16 => 16,
        17..=24 => 24,
        25.. => return Vec::new(),
    };
    let blocks = 0..1_u32 << (step - network.prefix());
    let first = u32::from(network.address());
    let end = |index: u32| {
        let octets = Ipv4Addr::from(first + (index << (32 - step))).octets();
        let known = octets[..usize::from(step / 8)].iter().rev();
        known.map(|octet| format!("{octet}.")).collect::<String>() + "in-addr.arpa"
    };
    blocks.map(end).collect()
}

#[cfg(test)]
mod tests;
