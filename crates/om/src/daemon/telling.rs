//! Owns what becomes of the engine's news: lines for the journal, progress for followers, and a list of what changed for
//! whoever derives something from it. Waits for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use om_core::{
    path::{NodeName, ObjectPath, Rid},
    view::Failure,
};
use tokio::sync::Notify;

use crate::{
    api::Event,
    daemon::{
        hub::Hub,
        journal::{self, Journal},
        orchestrate::{Level, Teller},
        shown,
    },
};

/// What changed since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Objects that are seen otherwise.
    pub objects: BTreeSet<ObjectPath>,
    /// Objects that are no more.
    pub gone: BTreeSet<ObjectPath>,
    /// Nodes that are seen otherwise.
    pub nodes: BTreeSet<NodeName>,
    /// Objects that have to be looked at, as another one's job worked on them.
    pub touched: BTreeSet<ObjectPath>,
    /// Objects without resources whose text or keys are otherwise, or that are no more.
    pub altered: BTreeSet<ObjectPath>,
}

/// The engine's listener.
#[derive(Debug)]
pub struct Telling {
    node: NodeName,
    hub: Hub,
    journal: Journal,
    changes: Mutex<Changes>,
    changed: Notify,
    progress: Mutex<BTreeMap<ObjectPath, String>>,
}

impl Telling {
    /// Tells this node's news.
    pub fn new(node: NodeName, hub: Hub, journal: Journal) -> Self {
        Self { node, hub, journal, changes: Mutex::default(), changed: Notify::new(), progress: Mutex::default() }
    }

    /// Waits until something changed, and takes what did. Cancel-safe.
    pub async fn changes(&self) -> Changes {
        self.changed.notified().await;
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The step that is under way of an object.
    pub fn step(&self, path: &ObjectPath) -> Option<String> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Forgets the step of an object that is not busy any more.
    pub fn settled(&self, path: &ObjectPath) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    fn note(&self, note: impl FnOnce(&mut Changes)) {
        note(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

impl Teller for Telling {
    fn changed(&self, path: &ObjectPath) {
        self.note(|changes| {
            changes.gone.remove(path);
            changes.objects.insert(path.clone());
        });
    }

    fn gone(&self, path: &ObjectPath) {
        self.settled(path);
        self.note(|changes| {
            changes.objects.remove(path);
            changes.gone.insert(path.clone());
        });
    }

    fn node(&self, node: &NodeName) {
        self.note(|changes| {
            changes.nodes.insert(node.clone());
        });
    }

    fn touched(&self, path: &ObjectPath) {
        self.note(|changes| {
            changes.touched.insert(path.clone());
        });
    }

    fn altered(&self, path: &ObjectPath) {
        self.note(|changes| {
            changes.altered.insert(path.clone());
        });
    }

    fn progress(&self, path: &ObjectPath, rid: Option<&Rid>, request: Option<&str>, text: &str) {
        let step = rid.map_or_else(|| text.to_owned(), |rid| format!("{rid}: {text}"));
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), step);
        self.hub.tell(Event::Progress {
            path: path.fqn(),
            node: self.node.to_string(),
            rid: rid.map(ToString::to_string),
            text: text.to_owned(),
            request: request.map(ToOwned::to_owned),
        });
    }

    fn say(&self, level: Level, path: &ObjectPath, rid: Option<&Rid>, text: String) {
        let level = match level {
            Level::Error => journal::Level::Error,
            Level::Warn => journal::Level::Warn,
            Level::Info => journal::Level::Info,
            Level::Debug => journal::Level::Debug,
        };
        self.journal.say(level, Some(path), rid, text);
    }

    fn ended(&self, path: &ObjectPath, request: &str, failure: Option<&Failure>) {
        self.hub.ended(path.fqn(), request.to_owned(), failure.map(shown::told));
    }
}
