//! Owns networks as they are told to callers: who has which of their addresses. Pure. Does not own making them so.

use om_core::{network::Network, view::View};

use crate::{api, daemon::world::World};

/// A network for callers, with the addresses that instances report.
pub fn told(world: &World, view: &View, network: &Network) -> api::Network {
    let part = network.part(&world.cluster.nodes, &world.node);
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
