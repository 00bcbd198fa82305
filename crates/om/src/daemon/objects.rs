//! Owns what callers do with objects and their configurations: select, make, read, change, check. Does not own actions on
//! what runs, nor keys.

use om_cluster::{StoreError, store::Config as Stored, store::New};
use om_core::{
    config::{Diagnostic, Document},
    instance::{InstanceConfig, ResourceKind},
    path::{Kind, Namespace, NodeName, ObjectPath, Rid},
    plan::{self, Seen},
    selector::{Facts, Selector},
    status::Status,
    view::{Job, Order, Target, Want, Work},
};

use crate::{
    api::{
        self, code,
        server::{Refusal, full_path},
    },
    daemon::{
        app::App,
        journal::{Level, now},
        shown,
        texts::{self, Read},
    },
};

/// How often a change is tried again when something else was changed meanwhile.
const TRIES: usize = 8;

/// A random UUID (RFC 9562 §5.4).
///
/// # Errors
/// The kernel gave no random numbers.
pub fn uuid() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A refusal of the store, for callers.
pub fn of_store(what: &str, error: &StoreError) -> Refusal {
    let word = match error {
        StoreError::Exists(_) | StoreError::KeyExists { .. } => code::EXISTS,
        StoreError::Missing(_) => code::NOT_FOUND,
        StoreError::Changed(_) => code::CONFLICT,
        StoreError::KeyName(_) | StoreError::NoKeys(_) => code::BAD_REQUEST,
        StoreError::TooLarge { .. } => code::TOO_LARGE,
        _ => code::INTERNAL,
    };
    match error {
        // It says itself what was done, in the words that people know.
        StoreError::KeyExists { .. } => Refusal::new(word, error.to_string()),
        _ => Refusal::new(word, format!("cannot {what}: {error}")),
    }
}

/// A refusal of a text, with all that is wrong with it.
pub fn invalid(path: &ObjectPath, file: &str, found: &[Diagnostic]) -> Refusal {
    let file = if file.is_empty() { path.to_string() } else { file.to_owned() };
    let mut refusal =
        Refusal::new(code::INVALID, format!("the configuration of {path} has errors, nothing was changed"));
    refusal.0.diagnostics = texts::told(&file, found);
    refusal
}

/// Text and state of an object, as selectors ask for them.
struct Known<'a> {
    app: &'a App,
    path: &'a ObjectPath,
    config: &'a Stored,
}

impl Facts for Known<'_> {
    fn values(&self, section: &str, keyword: Option<&str>) -> Vec<String> {
        let Ok(document) = Document::parse(&self.config.text) else { return Vec::new() };
        let world = self.app.current.get();
        let Ok(sections) = texts::evaluated(&world, self.path, &world.node, &document) else { return Vec::new() };
        let is_meant = |name: &str| name == section || name.split_once('#').is_some_and(|(group, _)| group == section);
        let meant = sections.into_iter().filter(|(name, _)| is_meant(name)).map(|(_, values)| values);
        match keyword {
            None => meant.map(|_| String::new()).collect(),
            Some(keyword) => meant.filter_map(|mut values| values.remove(keyword)).map(plain).collect(),
        }
    }

    fn status(&self, field: &str) -> Option<String> {
        let mut value = serde_json::to_value(self.app.status_of(self.path, self.config)).ok()?;
        for part in field.split('.') {
            value = value.get_mut(part)?.take();
        }
        Some(plain(value))
    }
}

fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Array(words) => {
            words.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(" ")
        }
        value => value.to_string(),
    }
}

impl App {
    /// The selected objects, sorted by path. The configuration of the cluster only where it is named.
    ///
    /// # Errors
    /// The selector makes no sense, or names one object that is not there.
    pub async fn select(&self, text: &str) -> Result<Vec<(ObjectPath, Stored)>, Refusal> {
        let selector = Selector::parse_in(text, &Namespace::root(), Kind::Svc);
        let selector = selector.map_err(|error| Refusal::bad(format!("{error}")))?;
        if let Some(path) = selector.exact() {
            return Ok(vec![(path.clone(), self.config_of(path).await?)]);
        }
        let mut found = self.store.configs().await.map_err(|error| of_store("list objects", &error))?;
        found.retain(|(path, config)| {
            path.kind != Kind::Ccfg && selector.matches(path, &Known { app: self, path, config })
        });
        Ok(found)
    }

    /// An object as it is seen now.
    pub fn status_of(&self, path: &ObjectPath, config: &Stored) -> api::ObjectStatus {
        let status = self.engine.read(|view| {
            let object = view.objects.get(path)?;
            Some((shown::object(view, path, object, Vec::new()), object.config.is_some()))
        });
        let Some((mut status, usable)) = status else { return shown::key_store(path, config.generation) };
        if !usable && let Err(found) = texts::read(&self.current.get(), path, &config.text) {
            status.problems = texts::told(&path.to_string(), &found);
        }
        if let Some(instance) = status.instances.get_mut(self.current.get().node.as_str()) {
            if instance.monitor == "idle" || instance.monitor.ends_with("failed") {
                self.telling.settled(path);
            } else {
                instance.progress = self.telling.step(path);
            }
        }
        status
    }

    /// Makes an object.
    ///
    /// # Errors
    /// Its configuration has errors, or it is there already.
    pub async fn create(&self, create: api::Create) -> Result<api::Created, Refusal> {
        let path = full_path(&create.path)?;
        if matches!(path.kind, Kind::Ccfg) {
            return Err(Refusal::bad("the cluster's configuration is there from the start").hint("om cluster edit"));
        }
        let text = if create.config.trim().is_empty() { "[DEFAULT]\n" } else { create.config.as_str() };
        let wrong = |found: Vec<Diagnostic>| invalid(&path, &create.file, &found);
        let mut document = Document::parse(text).map_err(wrong)?;
        for pair in &create.env {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Refusal::bad(format!("`{pair}` is no value of [env]")).hint("write --env NAME=VALUE"));
            };
            document.set("env", name.trim(), value.trim());
        }
        if !create.keywords.is_empty() {
            let patch = api::Patch { set: create.keywords.clone(), ..api::Patch::default() };
            document = texts::patch(&document, &patch).map_err(wrong)?;
        }
        // Checked before an id is added, so that places are those of the caller's text.
        let read = texts::read(&self.current.get(), &path, &document.to_string()).map_err(wrong)?;
        if document.settings().iter().any(|setting| setting.section == "data") {
            let hint = format!("om {path} add --key NAME --value VALUE");
            return Err(Refusal::bad("keys are no part of a configuration").hint(hint));
        }
        let id = document.get("DEFAULT", "id").filter(|id| create.restore && !id.is_empty());
        let id = match id {
            Some(id) => id,
            None => self.new_id()?,
        };
        document.set("DEFAULT", "id", &id);
        let mut created = api::Created {
            path: path.fqn(),
            diagnostics: texts::told(&create.file, &read.warnings),
            ..api::Created::default()
        };
        let provision = create.provision && path.kind.has_resources();
        if create.dry_run {
            if self.config_of(&path).await.is_ok() {
                return Err(Refusal::new(code::EXISTS, format!("cannot create {path}: {path} exists")));
            }
            if let Some(instance) = read.instance.filter(|_| provision) {
                let steps = plan::steps(&instance, &Job::new(Work::Provision), &Seen::new());
                created.plan = steps.iter().map(|step| self.told_step(&instance, step)).collect();
            }
            return Ok(created);
        }
        // Frozen until it is provisioned, so that no daemon starts what is half made.
        let since = now() as u64;
        let mut want =
            path.kind.has_resources().then(|| Want::default().freeze((path.kind == Kind::Svc).then_some(since)));
        if provision {
            let order = Order { id: self.new_id()?, target: Target::Provisioned, force: false, keep: false };
            created.request = Some(order.id.clone());
            self.hub.begin(&order.id, &path.fqn());
            want = want.map(|want| want.ordered(order, since));
        }
        let new = New { path: path.clone(), text: document.to_string(), want };
        let made = self.store.create(&[new]).await.map_err(|error| of_store(&format!("create {path}"), &error))?;
        created.generation = made.first().map_or(1, |config| config.generation);
        self.journal.say(Level::Info, Some(&path), None, "created");
        Ok(created)
    }

    /// The configuration of an object.
    ///
    /// # Errors
    /// It is not there.
    pub async fn config_of(&self, path: &ObjectPath) -> Result<Stored, Refusal> {
        let found = self.store.config(path).await.map_err(|error| of_store(&format!("read {path}"), &error))?;
        found.ok_or_else(|| {
            Refusal::new(code::NOT_FOUND, format!("{path} does not exist")).hint(format!("om {path} create"))
        })
    }

    /// The configuration of an object, for callers.
    ///
    /// # Errors
    /// It is not there.
    pub async fn config(&self, path: &ObjectPath) -> Result<api::Config, Refusal> {
        let found = self.config_of(path).await?;
        Ok(api::Config { text: found.text.to_string(), generation: found.generation, modified: found.modified / 1000 })
    }

    /// Replaces the configuration of an object.
    ///
    /// # Errors
    /// It has errors, or was changed meanwhile.
    pub async fn replace(&self, path: &ObjectPath, replace: &api::Replace) -> Result<api::Changed, Refusal> {
        let old = self.config_of(path).await?;
        let wrong = |found: Vec<Diagnostic>| invalid(path, &replace.file, &found);
        let mut document = Document::parse(&replace.text).map_err(wrong)?;
        let read = texts::read(&self.current.get(), path, &replace.text).map_err(wrong)?;
        // Who an object is does not change with what it says: its containers carry the id.
        let id = Document::parse(&old.text).ok().and_then(|old| old.get("DEFAULT", "id"));
        if let Some(id) = id.filter(|id| document.get("DEFAULT", "id").as_ref() != Some(id)) {
            document.set("DEFAULT", "id", &id);
        }
        self.write(path, &old, replace.generation, &document, read, replace.dry_run, &replace.file).await
    }

    /// Changes keywords of an object.
    ///
    /// # Errors
    /// What it comes to has errors, or it is changed again and again.
    pub async fn patch(&self, path: &ObjectPath, patch: &api::Patch) -> Result<api::Changed, Refusal> {
        for _ in 0..TRIES {
            let old = self.config_of(path).await?;
            let wrong = |found: Vec<Diagnostic>| invalid(path, "", &found);
            let document = Document::parse(&old.text).map_err(wrong)?;
            let document = texts::patch(&document, patch).map_err(wrong)?;
            let read = texts::read(&self.current.get(), path, &document.to_string()).map_err(wrong)?;
            let changed = self.write(path, &old, Some(old.generation), &document, read, patch.dry_run, "").await;
            match changed {
                Err(refusal) if refusal.0.code == code::CONFLICT => {}
                changed => return changed,
            }
        }
        Err(Refusal::new(code::CONFLICT, format!("{path} is changed again and again")))
    }

    #[expect(clippy::too_many_arguments, reason = "the last step of two changes, with what both know")]
    async fn write(
        &self,
        path: &ObjectPath,
        old: &Stored,
        generation: Option<u64>,
        document: &Document,
        read: Read,
        dry_run: bool,
        file: &str,
    ) -> Result<api::Changed, Refusal> {
        let text = document.to_string();
        self.keeps_what_is_up(path, read.instance.as_ref())?;
        let mut changed = api::Changed {
            generation: old.generation,
            changed: *old.text != *text,
            diagnostics: texts::told(if file.is_empty() { "configuration" } else { file }, &read.warnings),
        };
        if !dry_run && changed.changed {
            let what = format!("change {path}");
            let new = self.store.update(path, generation, &text).await.map_err(|error| of_store(&what, &error))?;
            changed.generation = new.generation;
            self.journal.say(Level::Info, Some(path), None, format!("configuration {} installed", new.generation));
            if path.kind == Kind::Ccfg {
                // Whoever changed it finds it to count.
                self.follow_config().await;
            }
        }
        Ok(changed)
    }

    /// Refuses a configuration by which something that is up would not be found any more, such as one without its section:
    /// nobody would ever stop it, nor give its address back.
    fn keeps_what_is_up(&self, path: &ObjectPath, new: Option<&InstanceConfig>) -> Result<(), Refusal> {
        let left: Vec<String> = self.engine.read(|view| {
            let Some(object) = view.objects.get(path) else { return Vec::new() };
            let Some(old) = &object.config else { return Vec::new() };
            let stays = |rid: &Rid| {
                let both = old.resources.get(rid).zip(new.and_then(|new| new.resources.get(rid)));
                both.is_some_and(|(old, new)| old.kind.finds(&new.kind))
            };
            let is_up = |rid: &Rid| {
                let mut seen = object.reports.values().filter_map(|report| report.resources.get(rid));
                seen.any(|seen| matches!(seen.status, Status::Up | Status::Warn | Status::StandbyUp))
            };
            let gone = old.resources.iter().filter(|(_, one)| !one.disable && !matches!(one.kind, ResourceKind::Sync));
            gone.map(|(rid, _)| rid).filter(|rid| !stays(rid) && is_up(rid)).map(ToString::to_string).collect()
        });
        if left.is_empty() {
            return Ok(());
        }
        let text = format!("{} of {path} is up, and nobody would find it any more", left.join(", "));
        // Frozen, it is not started again by its restarts.
        let hint = format!("om {path} freeze && om {path} stop --rid {}, then once more", left.join(","));
        Err(Refusal::new(code::INVALID, text).hint(hint))
    }

    /// What a configuration means on a node.
    ///
    /// # Errors
    /// It is not there, or has values that cannot be resolved.
    pub async fn evaluate(&self, path: &ObjectPath, node: Option<&str>) -> Result<api::Evaluated, Refusal> {
        let stored = self.config_of(path).await?;
        let node: NodeName = match node {
            None => self.current.get().node.clone(),
            Some(node) => node.parse().map_err(|error| Refusal::bad(format!("{error}")))?,
        };
        if !self.current.get().cluster.nodes.contains(&node) {
            return Err(Refusal::new(code::NOT_FOUND, format!("{node} is no node of the cluster")));
        }
        let wrong = |found: Vec<Diagnostic>| invalid(path, "", &found);
        let document = Document::parse(&stored.text).map_err(wrong)?;
        texts::evaluated(&self.current.get(), path, &node, &document).map_err(wrong)
    }

    /// What is wrong with a text, or with the stored one.
    ///
    /// # Errors
    /// There is no text, and the object is not there.
    pub async fn check(&self, path: &ObjectPath, text: Option<api::Replace>) -> Result<api::Checked, Refusal> {
        let (text, file) = match text.filter(|replace| !replace.text.is_empty()) {
            Some(replace) => (replace.text, replace.file),
            None => (self.config_of(path).await?.text.to_string(), path.to_string()),
        };
        let found = texts::read(&self.current.get(), path, &text).map_or_else(|found| found, |read| read.warnings);
        Ok(api::Checked { diagnostics: texts::told(&file, &found) })
    }

    /// A random UUID.
    ///
    /// # Errors
    /// The kernel gave no random numbers.
    pub fn new_id(&self) -> Result<String, Refusal> {
        uuid().map_err(|error| Refusal::internal(format!("make an id: {error}")))
    }
}
