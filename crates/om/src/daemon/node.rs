//! Owns this node's own configuration, `node.conf`: labels and `[env]`; and freezing the node. Does not own facts.

use std::{collections::BTreeMap, fs, io};

use om_core::{
    config::{Diagnostic, Document, Place, diagnostic::nearest},
    path::ObjectPath,
};
use service::replace::replace;

use crate::{
    api::{self, code, server::Refusal},
    daemon::{
        actions::refusal,
        app::App,
        facts,
        journal::{Level, now},
        texts,
    },
    places::Places,
};

/// Sections of the node's configuration.
const SECTIONS: [&str; 4] = ["DEFAULT", "node", "labels", "env"];

/// The text of the node's configuration; empty where there is none.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(places: &Places) -> io::Result<String> {
    match fs::read_to_string(places.node_config()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// The labels of a configuration of a node.
pub fn labels(document: &Document) -> BTreeMap<String, String> {
    let settings = document.settings();
    let labels = settings.iter().filter(|setting| setting.section == "labels" && setting.scope.is_none());
    labels.map(|setting| (setting.keyword.to_owned(), setting.value.clone())).collect()
}

fn check(document: &Document) -> Vec<Diagnostic> {
    let unknown = |(name, place): (&str, Place)| {
        let hint = nearest(name, SECTIONS).map(|near| format!("did you mean [{near}]?"));
        (!SECTIONS.contains(&name))
            .then(|| Diagnostic::error(place, format!("[{name}] is no section of a node's configuration"), hint))
    };
    document.sections().into_iter().filter_map(unknown).collect()
}

impl App {
    /// This node.
    pub fn node(&self) -> api::Node {
        let mut facts = facts::facts();
        facts.extend(self.facts.clone());
        api::Node { name: self.current.get().node.to_string(), status: self.node_status(), facts }
    }

    /// This node as it is seen now.
    pub fn node_status(&self) -> api::NodeStatus {
        let mut status = facts::status();
        status.frozen = self.engine.read(|view| {
            let session = &view.nodes.get(&view.me)?.session.value;
            session.frozen.map(|since| since as f64)
        });
        status.labels.clone_from(&self.current.get().labels);
        status
    }

    /// Freezes or thaws this node.
    ///
    /// # Errors
    /// Another verb; the store did not take it.
    pub async fn node_act(&self, verb: &str) -> Result<(), Refusal> {
        let since = match verb {
            "freeze" => Some(now() as u64),
            "thaw" | "unfreeze" => None,
            other => return Err(Refusal::bad(format!("a node takes no {other}")).hint("freeze or thaw")),
        };
        self.engine.freeze_node(since).await.map_err(|refused| refusal(&refused))?;
        self.journal.say(Level::Info, None, None, format!("node {verb}"));
        Ok(())
    }

    /// The node's configuration.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn node_config(&self) -> Result<api::Config, Refusal> {
        let text = read(&self.places).map_err(|error| self.cannot("read", &error))?;
        let modified = fs::metadata(self.places.node_config()).and_then(|file| file.modified()).ok();
        let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(api::Config { generation: sum(&text), modified: modified.map_or(0, |at| at.as_secs()), text })
    }

    /// Replaces the node's configuration. Labels count at once, the name from the next start of the daemon on.
    ///
    /// # Errors
    /// It has errors, or was changed meanwhile.
    pub async fn node_config_replace(&self, new: &api::Replace) -> Result<api::Changed, Refusal> {
        let old = self.node_config()?;
        if new.generation.is_some_and(|generation| generation != old.generation) {
            return Err(Refusal::new(code::CONFLICT, "the node's configuration was changed meanwhile"));
        }
        let file = if new.file.is_empty() { "node.conf" } else { &new.file };
        let wrong = |found: Vec<Diagnostic>| {
            let mut refusal =
                Refusal::new(code::INVALID, "the configuration of the node has errors, nothing was changed");
            refusal.0.diagnostics = texts::told(file, &found);
            refusal
        };
        let document = Document::parse(&new.text).map_err(wrong)?;
        let found = check(&document);
        if !found.is_empty() {
            return Err(wrong(found));
        }
        let changed = old.text != new.text;
        if changed && !new.dry_run {
            replace(&self.places.node_config(), new.text.as_bytes(), 0o600)
                .map_err(|error| self.cannot("write", &error))?;
            self.journal.say(Level::Info, None, None, "node configuration installed");
            self.follow_config().await;
        }
        Ok(api::Changed { generation: sum(&new.text), changed, diagnostics: Vec::new() })
    }

    /// Changes keywords of the node's configuration.
    ///
    /// # Errors
    /// As for [`Self::node_config_replace`].
    pub async fn node_config_patch(&self, patch: &api::Patch) -> Result<api::Changed, Refusal> {
        let old = self.node_config()?;
        let wrong =
            |found: Vec<Diagnostic>| crate::daemon::objects::invalid(&ObjectPath::cluster(), "node.conf", &found);
        let document = Document::parse(&old.text).map_err(wrong)?;
        let document = texts::patch(&document, patch).map_err(wrong)?;
        self.node_config_replace(&api::Replace {
            text: document.to_string(),
            generation: Some(old.generation),
            file: String::new(),
            dry_run: patch.dry_run,
        })
        .await
    }

    fn cannot(&self, operation: &str, error: &io::Error) -> Refusal {
        Refusal::internal(format!("cannot {operation} {}: {error}", self.places.node_config().display()))
    }
}

/// A number of a text: another text has another one.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
