//! Owns the networks of the cluster's configuration, and who has which of their addresses here. Pure. Does not own making
//! them so.

use om_core::{
    config::{Document, convert, resolve::Resolver},
    network::{DEFAULT, Network, NetworkType},
    path::ObjectPath,
    view::View,
};

use crate::{api, daemon::texts::World};

/// The networks of the cluster's configuration, sorted by name; `default` is there unless it is configured otherwise. Those
/// that make no sense come with why.
pub fn networks(world: &World, cluster: &Document) -> (Vec<Network>, Vec<String>) {
    let context = world.context(&ObjectPath::cluster(), &world.node);
    let resolver = Resolver::new(cluster, &context);
    let mut found = vec![Network::implied(world.nodes.len())];
    let mut problems = Vec::new();
    for (section, _) in cluster.sections() {
        let Some(name) = section.strip_prefix("network#") else { continue };
        let word = |keyword: &str| resolver.get(section, keyword).ok().flatten().map(|value| value.text);
        let implied = Network::implied(world.nodes.len());
        let kind = match word("type").as_deref() {
            Some("bridge") => NetworkType::Bridge,
            Some("routed_bridge") => NetworkType::RoutedBridge,
            None => implied.kind,
            Some(other) => {
                problems
                    .push(format!("network {name}: `{other}` is no type of network (hint: bridge or routed_bridge)"));
                continue;
            }
        };
        let subnet = match word("network").map(|text| text.parse()) {
            None if name == DEFAULT => implied.subnet,
            None => {
                problems.push(format!("network {name} has no addresses (hint: network = 10.30.0.0/16)"));
                continue;
            }
            Some(Ok(subnet)) => subnet,
            Some(Err(error)) => {
                problems.push(format!("network {name}: {error}"));
                continue;
            }
        };
        let per_node = word("ips_per_node").and_then(|text| convert::integer(&text, 1 << 24).ok());
        let network =
            Network { name: name.to_owned(), kind, subnet, ips_per_node: per_node.unwrap_or(implied.ips_per_node) };
        found.retain(|other| other.name != network.name);
        if let Some(other) = found.iter().find(|other| other.subnet.overlaps(network.subnet) && other.name != DEFAULT) {
            problems.push(format!("network {name} overlaps network {}, and is left out", other.name));
            continue;
        }
        found.push(network);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    (found, problems)
}

/// A network for callers, with the addresses that instances report.
pub fn told(world: &World, view: &View, network: &Network) -> api::Network {
    let part = network.part(&world.nodes, &world.node);
    let mut addresses = Vec::new();
    for (path, object) in &view.objects {
        for (node, report) in &object.reports {
            for (rid, seen) in report.resources.iter().filter(|(rid, _)| rid.group() == "ip") {
                let Some(address) = seen.info.get("ipaddr").filter(|address| !address.is_empty()) else { continue };
                let of = object.config.as_ref().and_then(|config| config.resources.get(rid)).map(|r| &r.kind);
                if let Some(om_core::instance::ResourceKind::Cni(ip)) = of
                    && ip.network == network.name
                {
                    addresses.push(api::Address {
                        address: address.clone(),
                        path: path.fqn(),
                        rid: rid.to_string(),
                        node: node.to_string(),
                    });
                }
            }
        }
    }
    api::Network {
        name: network.name.clone(),
        kind: network.kind.as_str().into(),
        network: network.subnet.to_string(),
        subnet: part.as_ref().map(ToString::to_string).unwrap_or_default(),
        // Without the network's own address, its gateway and its broadcast address.
        size: part.map_or(0, |part| part.size().saturating_sub(3)),
        addresses,
    }
}
