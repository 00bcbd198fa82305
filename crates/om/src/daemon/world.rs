//! Owns the facts that texts of configurations refer to, as they are now: this node, its labels, and the configuration of
//! the cluster. Does not own what follows from a change of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use om_core::{
    config::{cluster::ClusterConfig, resolve::Context},
    path::{NodeName, ObjectPath},
};

/// Facts that texts refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// This node.
    pub node: NodeName,
    /// The cluster's id.
    pub cluster_id: String,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
    /// The configuration of the cluster.
    pub cluster: ClusterConfig,
}

impl World {
    /// What a text of an object is read in, as a node sees it.
    pub fn context(&self, path: &ObjectPath, node: &NodeName) -> Context {
        Context {
            path: path.clone(),
            node: node.clone(),
            cluster: self.cluster.name.clone(),
            cluster_id: self.cluster_id.clone(),
            cluster_nodes: self.cluster.nodes.clone(),
            dns: self.cluster.dns.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// The facts as they are now. Clones share them.
#[derive(Clone)]
pub struct Current(Arc<RwLock<Arc<World>>>);

impl Current {
    /// These facts, for now.
    pub fn new(world: World) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(world))))
    }

    /// The facts now.
    pub fn get(&self) -> Arc<World> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other facts count from now on; returns those of before.
    pub fn set(&self, world: World) -> Arc<World> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(world))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.get()).finish()
    }
}

/// With facts for tests of what uses them.
#[cfg(test)]
pub mod tests {
    use om_core::config::{Document, cluster};

    use super::*;

    /// The facts of a cluster of one node with this configuration.
    pub fn world(text: &str) -> World {
        let node: NodeName = "aubergine".parse().unwrap();
        let (cluster, found) = cluster::read(&Document::parse(text).unwrap(), &node, "id");
        assert_eq!(found, []);
        World { node, cluster_id: "id".into(), labels: BTreeMap::new(), cluster }
    }

    #[test]
    fn facts_are_shared() {
        let current = Current::new(world("[cluster]\nname = a\n"));
        let shared = current.clone();
        assert_eq!(current.set(world("[cluster]\nname = b\n")).cluster.name, "a");
        assert_eq!(shared.get().cluster.name, "b");
    }
}
