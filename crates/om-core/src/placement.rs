//! Owns which node is preferred for an object. Does not own whether it can run there now.

use sha2::{Digest as _, Sha256};

use crate::{
    instance::{InstanceConfig, Placement},
    path::{NodeName, ObjectPath},
};

/// The nodes of an object, the most preferred first. The same on every node, whoever asks.
pub fn rank(config: &InstanceConfig) -> Vec<NodeName> {
    let mut nodes = config.nodes.clone();
    if config.placement == Placement::Spread {
        nodes.sort_by_cached_key(|node| weight(&config.path, node));
    }
    nodes
}

/// The node where an object runs best; none where nodes are equal.
pub fn preferred(config: &InstanceConfig) -> Option<NodeName> {
    match config.placement {
        Placement::None => None,
        Placement::NodesOrder | Placement::Spread => rank(config).into_iter().next(),
    }
}

/// Rendezvous hashing: a node that comes or goes moves only what is on it.
fn weight(path: &ObjectPath, node: &NodeName) -> [u8; 32] {
    Sha256::digest(format!("{}@{node}", path.fqn())).into()
}
