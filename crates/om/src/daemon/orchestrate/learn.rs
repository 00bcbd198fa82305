//! Owns how news of the shared state come into the view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use om_core::{
    instance::InstanceConfig,
    kv::Rev,
    path::{NodeName, ObjectPath},
    truth::Fact,
    view::{At, Local, Monitor, NodeView, ObjectView, Report, Session, Want},
};
use tokio::time::Instant;

use super::{Level, Orchestrator};

impl Orchestrator {
    pub(super) fn learn_all(&mut self, facts: Vec<Fact>) {
        let listed: BTreeSet<ObjectPath> = facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Object(path, Some(_)) => Some(path.clone()),
                _ => None,
            })
            .collect();
        let gone: Vec<ObjectPath> = self.instances.keys().filter(|path| !listed.contains(*path)).cloned().collect();
        // Configurations first: the rest is kept only of objects that are there.
        let (objects, rest): (Vec<Fact>, Vec<Fact>) =
            facts.into_iter().partition(|fact| matches!(fact, Fact::Object(..)));
        gone.into_iter().for_each(|path| self.learn(Fact::Object(path, None)));
        self.listing = true;
        objects.into_iter().chain(rest).for_each(|fact| self.learn(fact));
        self.listing = false;
    }

    pub(super) fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Object(path, object) => {
                if path.kind.has_resources() {
                    self.learn_object(path, object.map(|object| object.value));
                } else {
                    self.teller.altered(&path);
                }
            }
            Fact::Want(path, want) => {
                let want = want.unwrap_or(At { value: Want::default(), rev: Rev(0) });
                let ended = self.with_view(|view, _| {
                    let object = view.objects.get_mut(&path)?;
                    let ended = want.value.last.clone().filter(|_| want.value.last != object.want.value.last);
                    // At the daemon's start everything is news; only what ends from then on is told.
                    let known = object.want.rev != Rev(0);
                    object.want = want;
                    Some(ended.filter(|_| known))
                });
                if let Some(ended) = ended {
                    if let Some((request, failure)) = ended {
                        self.teller.ended(&path, &request, failure.as_ref());
                    }
                    self.teller.changed(&path);
                }
            }
            Fact::Owner(path, owner) => {
                self.with_view(|view, _| {
                    if let Some(object) = view.objects.get_mut(&path) {
                        object.owner = owner;
                    }
                });
                self.teller.changed(&path);
            }
            Fact::Report(path, node, report) => self.learn_report(&path, node, report),
            Fact::Session(node, session) => self.learn_session(node, session),
        }
    }

    pub(super) fn learn_object(&mut self, path: ObjectPath, object: Option<om_core::truth::Object>) {
        let Some(object) = object else {
            if let Some(instance) = self.instances.remove(&path) {
                instance.cancel.iter().for_each(|cancel| {
                    let _ = cancel.send(true);
                });
                let view = self.with_view(|view, _| view.objects.remove(&path));
                // Its order was to be no more.
                if let Some(order) = view.and_then(|view| view.want.value.order) {
                    self.teller.ended(&path, &order.id, None);
                }
                self.teller.gone(&path);
            }
            return;
        };
        let known = self.instances.contains_key(&path);
        let same = self.with_view(|view, _| view.objects.get(&path).is_some_and(|o| o.generation == object.generation));
        if known && same {
            return;
        }
        let config = self.compiled(&path, &object.text);
        let instance = self.instances.entry(path.clone()).or_default();
        instance.text = object.text;
        self.with_view(|view, this| {
            let entry = view.objects.entry(path.clone()).or_insert_with(|| ObjectView {
                generation: object.generation,
                config: None,
                want: At { value: Want::default(), rev: Rev(0) },
                owner: None,
                reports: BTreeMap::new(),
                // What went down before this daemon was there went unseen.
                local: Local { interrupted: this.listing, ..Local::default() },
            });
            entry.generation = object.generation;
            entry.config = config;
            // What was seen was of the configuration of before.
            entry.local.seen = false;
        });
        self.teller.changed(&path);
        self.look(&path);
    }

    /// What a text means here; none: it cannot be used, which is told.
    pub(super) fn compiled(&self, path: &ObjectPath, text: &str) -> Option<Arc<InstanceConfig>> {
        match (self.compile)(path, text) {
            Ok(config) => Some(Arc::new(config)),
            Err(error) => {
                self.teller.say(Level::Error, path, None, format!("the configuration cannot be used: {error}"));
                None
            }
        }
    }

    /// Texts are read again, as what they refer to was changed.
    pub(super) fn reread(&mut self, members: Vec<NodeName>) {
        self.settings.members.clone_from(&members);
        self.with_view(|view, _| view.members = members);
        let texts: Vec<(ObjectPath, Arc<str>)> =
            self.instances.iter().map(|(path, instance)| (path.clone(), Arc::clone(&instance.text))).collect();
        for (path, text) in texts {
            let config = self.compiled(&path, &text);
            let changed = self.with_view(|view, _| {
                let Some(object) = view.objects.get_mut(&path).filter(|object| object.config != config) else {
                    return false;
                };
                object.config = config;
                object.local.seen = false;
                true
            });
            if changed {
                self.teller.changed(&path);
                self.look(&path);
            }
        }
        self.next_renewal = Instant::now();
    }

    fn learn_report(&mut self, path: &ObjectPath, node: NodeName, report: Option<Report>) {
        let me = node == self.settings.node;
        let boot = self.settings.boot.clone();
        let changed = self.with_view(|view, this| {
            let object = view.objects.get_mut(path)?;
            if !me {
                let before = match report {
                    Some(report) => object.reports.insert(node.clone(), report.clone()) != Some(report),
                    None => object.reports.remove(&node).is_some(),
                };
                return before.then_some(());
            }
            // Of this node, only what a daemon of before knew: from then on the loop knows better.
            let (report, instance) = (report?, this.instances.get_mut(path)?);
            if instance.written.is_some() {
                return None;
            }
            instance.written = Some(report.clone());
            let booted = report.boot != boot;
            object.local.booted = booted;
            let mine = object.reports.entry(node.clone()).or_insert_with(|| report.clone());
            mine.expected = report.expected && !booted;
            mine.done = report.done;
            mine.restarts = report.restarts;
            mine.boot = report.boot;
            if let Monitor::Failed { .. } = report.monitor
                && mine.monitor == Monitor::Idle
            {
                mine.monitor = report.monitor;
            } else if matches!(mine.monitor, Monitor::Busy(_)) && object.local.job.is_none() {
                mine.monitor = Monitor::Idle;
            }
            Some(())
        });
        if changed.is_some() {
            self.teller.changed(path);
        }
    }

    pub(super) fn learn_session(&mut self, node: NodeName, session: Option<At<Session>>) {
        let me = node == self.settings.node;
        let now = Instant::now();
        let changed = self.with_view(|view, this| {
            let before = view.nodes.get(&node).map(|node| node.session.clone());
            match session {
                None => {
                    this.seen_sessions.remove(&node);
                    view.nodes.remove(&node);
                }
                Some(session) if before.as_ref().is_none_or(|before| before.rev < session.rev) => {
                    this.seen_sessions.insert(node.clone(), now);
                    if me {
                        this.adopt(before.as_ref(), &session);
                    }
                    view.nodes.insert(node.clone(), NodeView { session, age: Duration::ZERO });
                }
                Some(_) => return false,
            }
            let told = |session: &Session| (session.live, session.epoch, session.frozen);
            before.map(|b| told(&b.value)) != view.nodes.get(&node).map(|n| told(&n.session.value))
        });
        if changed {
            self.teller.node(&node);
        }
    }
}
