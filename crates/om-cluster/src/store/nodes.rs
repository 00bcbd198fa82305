//! Owns what each node says of itself: facts and labels. Does not own its sign of life, which is a session.

use std::collections::BTreeMap;

use om_core::{kv::Op, path::NodeName};

use super::{Store, StoreError, wire};
use crate::keys::Key;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Version of its daemon.
    pub version: String,
    /// Facts for people: kernel, processors, engine.
    pub facts: BTreeMap<String, String>,
    /// Words that users gave it.
    pub labels: BTreeMap<String, String>,
}

impl Store {
    /// What a node said of itself; none: it never did.
    ///
    /// # Errors
    /// The record is damaged.
    pub async fn node(&self, node: &NodeName) -> Result<Option<NodeFacts>, StoreError> {
        self.get(&Key::Node(node.clone()).name()).await?.map(|entry| wire::node(&entry)).transpose()
    }

    /// Says what this node is. Only a node writes its own facts; nothing is written if nothing changed.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn put_node(&self, node: &NodeName, facts: &NodeFacts) -> Result<(), StoreError> {
        let key = Key::Node(node.clone()).name();
        let record = wire::put_node(facts);
        if self.get(&key).await?.is_none_or(|entry| *entry.value != *record) {
            self.txn(Vec::new(), vec![Op::Put(key, record)]).await?;
        }
        Ok(())
    }
}
