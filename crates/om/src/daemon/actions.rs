//! Owns what a verb means: which target becomes wanted of an object, or which job is done on this node at once, and when
//! it is refused. Does not own how targets come about.

use std::collections::BTreeSet;

use om_cluster::{StoreError, store::Config as Stored};
use om_core::{
    instance::InstanceConfig,
    path::{Kind, NodeName, ObjectPath, Rid},
    plan,
    view::{Failure, Job, Monitor, Order, Target, Want, Work},
};

use crate::{
    api::{self, code, server::Refusal},
    daemon::{
        app::App,
        journal::{Level, now},
        objects::of_store,
        orchestrate::Refused,
        shown,
    },
};

/// Objects of one request.
const MAX_OBJECTS: usize = 10_000;

/// What a verb asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verb {
    /// A target for the object.
    Target(Target),
    Freeze,
    Thaw,
    Clear,
    Abort,
    Refresh,
    Enable(bool),
}

impl Verb {
    /// The verb of a word; `to`: nodes of a move.
    fn read(act: &api::Act, me: &NodeName) -> Result<Self, Refusal> {
        let node = || -> Result<NodeName, Refusal> {
            match act.to.as_slice() {
                [node] => node.parse().map_err(|error| Refusal::bad(format!("{error}"))),
                [] => Err(Refusal::bad(format!("{} needs a node", act.verb)).hint("write --to NODE")),
                _ => Err(Refusal::bad(format!("{} takes one node", act.verb))),
            }
        };
        Ok(match act.verb.as_str() {
            "provision" => Self::Target(Target::Provisioned),
            "unprovision" => Self::Target(Target::Unprovisioned),
            "start" => Self::Target(Target::Started),
            "stop" => Self::Target(Target::Stopped),
            "shutdown" => Self::Target(Target::Shutdown),
            "restart" => Self::Target(Target::Restarted),
            "delete" if act.unprovision => Self::Target(Target::Purged),
            "delete" => Self::Target(Target::Deleted),
            "purge" => Self::Target(Target::Purged),
            "switch" | "move" => Self::Target(Target::Placed(node()?)),
            "takeover" => Self::Target(Target::Placed(me.clone())),
            "giveback" => Self::Target(Target::Giveback),
            "freeze" => Self::Freeze,
            "thaw" | "unfreeze" => Self::Thaw,
            "clear" => Self::Clear,
            "abort" => Self::Abort,
            "refresh" => Self::Refresh,
            "enable" => Self::Enable(true),
            "disable" => Self::Enable(false),
            other => return Err(Refusal::bad(format!("there is no verb `{other}`")).hint("om --help lists the verbs")),
        })
    }
}

/// The job that a target is on one node.
fn work(target: &Target) -> Option<Work> {
    Some(match target {
        Target::Provisioned => Work::Provision,
        Target::Unprovisioned => Work::Unprovision,
        Target::Started => Work::Start,
        Target::Stopped | Target::Shutdown => Work::Stop,
        Target::Restarted => Work::Restart,
        Target::Purged | Target::Deleted | Target::Placed(_) | Target::Giveback => return None,
    })
}

/// The resources that are asked for by ids and groups, tags and subsets: those that all of these mean; empty: nothing was
/// asked for, all are meant.
fn resources(config: &InstanceConfig, act: &api::Act) -> Result<BTreeSet<Rid>, Refusal> {
    let mut found = by_id(config, &act.rids)?;
    if act.tags.is_empty() && act.subsets.is_empty() {
        return Ok(found);
    }
    if act.rids.is_empty() {
        found = config.resources.keys().cloned().collect();
    }
    found.retain(|rid| {
        let resource = &config.resources[rid];
        let has = |tags: &String| tags.split('+').all(|tag| resource.tags.iter().any(|own| own == tag));
        let is_of = |subset: &String| resource.subset.as_ref() == Some(subset);
        (act.tags.is_empty() || act.tags.iter().any(has)) && (act.subsets.is_empty() || act.subsets.iter().any(is_of))
    });
    if found.is_empty() {
        let refusal = Refusal::new(code::NOT_FOUND, format!("{} has no resource that is meant", config.path));
        return Err(refusal.hint(format!("om {} print config shows its tags and subsets", config.path)));
    }
    Ok(found)
}

/// The resources that ids and groups mean.
fn by_id(config: &InstanceConfig, words: &[String]) -> Result<BTreeSet<Rid>, Refusal> {
    let mut found = BTreeSet::new();
    for word in words {
        let before = found.len();
        let meant = config.resources.keys().filter(|rid| rid.to_string() == *word || rid.group() == word);
        found.extend(meant.cloned());
        if found.len() == before && !config.resources.keys().any(|rid| rid.to_string() == *word) {
            let there: Vec<String> = config.resources.keys().map(ToString::to_string).collect();
            let refusal = Refusal::new(code::NOT_FOUND, format!("{} has no resource {word}", config.path));
            return Err(refusal.hint(format!("it has {}", there.join(", "))));
        }
    }
    Ok(found)
}

impl App {
    /// Asks for a verb on the selected objects. What is refused for one of them is told in its place.
    ///
    /// # Errors
    /// The selector or the verb makes no sense.
    pub async fn act(&self, act: &api::Act) -> Result<api::Acted, Refusal> {
        let verb = Verb::read(act, &self.current.get().node)?;
        let selected = self.select(&act.selector).await?;
        if selected.len() > MAX_OBJECTS {
            return Err(Refusal::new(code::TOO_LARGE, format!("more than {MAX_OBJECTS} objects are selected")));
        }
        let mut results = Vec::with_capacity(selected.len());
        for (path, stored) in selected {
            let mut result = api::ActResult { path: path.fqn(), ..api::ActResult::default() };
            if let Err(refusal) = self.act_on(act, &verb, &path, &stored, &mut result).await {
                result.refused = Some(*refusal.0);
            }
            results.push(result);
        }
        Ok(api::Acted { results })
    }

    async fn act_on(
        &self,
        act: &api::Act,
        verb: &Verb,
        path: &ObjectPath,
        stored: &Stored,
        result: &mut api::ActResult,
    ) -> Result<(), Refusal> {
        let since = now() as u64;
        if !path.kind.has_resources() {
            return match verb {
                Verb::Target(Target::Purged | Target::Deleted) if act.dry_run => Ok(()),
                Verb::Target(Target::Purged | Target::Deleted) if path.kind != Kind::Ccfg => {
                    let what = format!("delete {path}");
                    self.store.delete(path, None).await.map_err(|error| of_store(&what, &error))?;
                    self.journal.say(Level::Info, Some(path), None, "deleted");
                    Ok(())
                }
                _ => Err(Refusal::bad(format!("a {} object takes no {}", path.kind, act.verb))),
            };
        }
        let local = act.local || ![&act.rids, &act.tags, &act.subsets].iter().all(|words| words.is_empty());
        match verb {
            Verb::Refresh => {
                let refreshed = self.engine.refresh(vec![path.clone()]).await;
                return refreshed.map_err(|refused| refusal(&refused));
            }
            Verb::Enable(enable) => return self.enable(path, *enable, &act.rids).await,
            Verb::Freeze if act.dry_run => return Ok(()),
            Verb::Thaw | Verb::Clear | Verb::Abort if act.dry_run => return Ok(()),
            Verb::Freeze => {
                self.change(path, |want| Ok(want.freeze(want.frozen.or(Some(since))))).await?;
                result.target = Some("frozen".into());
                return Ok(());
            }
            Verb::Thaw => {
                self.change(path, |want| Ok(want.freeze(None))).await?;
                result.target = Some("thawed".into());
                return Ok(());
            }
            Verb::Clear => return self.change(path, |want| Ok(want.clear())).await,
            Verb::Abort => {
                let aborted = || Failure { message: "it was aborted".into(), hint: None };
                return self
                    .change(path, |want| {
                        Ok(if want.order.is_some() { want.ended(Some(aborted())) } else { want.clone() })
                    })
                    .await;
            }
            Verb::Target(_) => {}
        }
        let Verb::Target(target) = verb else { return Ok(()) };
        let config = self.engine.read(|view| view.objects.get(path).and_then(|object| object.config.clone()));
        let Some(config) = config else { return self.act_on_unusable(target, path, stored).await };
        if let Some(volume) = config.volume.as_ref().filter(|volume| target.stops() && !volume.children.is_empty())
            && matches!(target, Target::Purged | Target::Deleted | Target::Unprovisioned)
            && !act.force
        {
            let children: Vec<String> = volume.children.iter().map(ToString::to_string).collect();
            let refusal = Refusal::new(code::CONFLICT, format!("{path} is used by {}", children.join(", ")));
            return Err(refusal.hint("purge or unprovision those first, or use --force"));
        }
        if config.disable && !target.stops() {
            let refusal = Refusal::new(code::CONFLICT, format!("{path} is disabled"));
            return Err(refusal.hint(format!("om {path} enable")));
        }
        let job = work(target).map(|work| Job {
            only: BTreeSet::new(),
            force: act.force || *target == Target::Shutdown,
            keep: act.disable_rollback,
            ..Job::new(work)
        });
        if act.dry_run {
            let only = resources(&config, act)?;
            let job = job.or_else(|| matches!(target, Target::Purged).then(|| Job::new(Work::Unprovision)));
            let job = Job { only, ..job.unwrap_or_else(|| Job::new(Work::Stop)) };
            let seen = self.engine.read(|view| {
                let report = view.objects.get(path).and_then(|object| object.report(&view.me));
                report.map(|report| report.resources.clone()).unwrap_or_default()
            });
            result.plan = plan::steps(&config, &job, &seen).iter().map(|step| self.told_step(&config, step)).collect();
            return Ok(());
        }
        if local {
            let Some(mut job) = job else {
                return Err(
                    Refusal::bad(format!("{} is for the whole object", act.verb)).hint("leave --local and --rid out")
                );
            };
            job.only = resources(&config, act)?;
            result.request = Some(self.run_here(path, job)?);
            return Ok(());
        }
        let order = Order { id: self.new_id()?, target: target.clone(), force: act.force, keep: act.disable_rollback };
        result.request = Some(order.id.clone());
        result.target = Some(target.word());
        self.busy(path, target, act.force)?;
        self.hub.begin(&order.id, &path.fqn());
        self.change(path, |want| Ok(want.ordered(order.clone(), since))).await
    }

    /// What can be done with an object whose configuration cannot be used: it can be removed.
    async fn act_on_unusable(&self, target: &Target, path: &ObjectPath, stored: &Stored) -> Result<(), Refusal> {
        if !matches!(target, Target::Deleted | Target::Purged) {
            let refusal = Refusal::new(code::INVALID, format!("the configuration of {path} cannot be used"));
            return Err(refusal.hint(format!("om {path} validate config")));
        }
        let what = format!("delete {path}");
        self.store.delete(path, Some(stored.generation)).await.map_err(|error| of_store(&what, &error))?;
        self.journal.say(Level::Warn, Some(path), None, "deleted, though its configuration could not be used");
        Ok(())
    }

    /// Begins a job of this node's instance; the request to follow.
    fn run_here(&self, path: &ObjectPath, job: Job) -> Result<String, Refusal> {
        let id = self.new_id()?;
        self.hub.begin(&id, &path.fqn());
        let (engine, hub, path, request) = (self.engine.clone(), self.hub.clone(), path.clone(), id.clone());
        // Goes on without its caller; the engine ends it when the daemon stops.
        tokio::spawn(async move {
            let failure = match engine.run(&path, job).await {
                Ok(()) => None,
                Err(Refused::Failed(failure)) => Some(shown::told(&failure)),
                Err(refused) => Some(*refusal(&refused).0),
            };
            hub.ended(path.fqn(), request, failure);
        });
        Ok(id)
    }

    /// Refuses an order while something is done that it would not end.
    fn busy(&self, path: &ObjectPath, target: &Target, force: bool) -> Result<(), Refusal> {
        let busy = self.engine.read(|view| {
            let object = view.objects.get(path)?;
            object.reports.iter().find_map(|(node, report)| match report.monitor {
                Monitor::Busy(work) if work != Work::Repair => Some((node.clone(), work)),
                _ => None,
            })
        });
        match busy {
            Some((node, work)) if !force && !target.stops() => {
                let doing = work.doing();
                let refusal = Refusal::new(code::CONFLICT, format!("{path}: instance on node {node} in {doing} state"));
                Err(refusal.hint(format!("wait, or om {path} abort")))
            }
            _ => Ok(()),
        }
    }

    /// Changes what is wanted of an object. An order that is replaced ends.
    async fn change(
        &self,
        path: &ObjectPath,
        change: impl Fn(&Want) -> Result<Want, StoreError>,
    ) -> Result<(), Refusal> {
        let what = format!("change {path}");
        let before = self.store.wanted(path).await.map_err(|error| of_store(&what, &error))?;
        let after = self.store.change_want(path, change).await.map_err(|error| of_store(&what, &error))?;
        let (old, new) = (before.value.order, after.value.order);
        if let Some(old) = old
            && new.as_ref().is_some_and(|new| new.id != old.id)
        {
            let failure = api::Failure {
                code: code::CONFLICT.into(),
                message: format!("{path}: another order took its place"),
                ..api::Failure::default()
            };
            self.hub.ended(path.fqn(), old.id, Some(failure));
        }
        Ok(())
    }

    async fn enable(&self, path: &ObjectPath, enable: bool, rids: &[String]) -> Result<(), Refusal> {
        let sections = if rids.is_empty() { vec!["DEFAULT".to_owned()] } else { rids.to_vec() };
        let keywords = sections.iter().map(|section| format!("{section}.disable"));
        let patch = if enable {
            api::Patch { unset: keywords.collect(), ..api::Patch::default() }
        } else {
            api::Patch { set: keywords.map(|keyword| format!("{keyword}=true")).collect(), ..api::Patch::default() }
        };
        self.patch(path, &patch).await.map(|_| ())
    }

    /// A step for callers.
    pub fn told_step(&self, config: &InstanceConfig, step: &plan::Step) -> api::Step {
        let label = config.resources.get(&step.rid).map(|resource| shown::label(&resource.kind));
        api::Step {
            node: self.current.get().node.to_string(),
            verb: step.verb.as_str().into(),
            rid: step.rid.to_string(),
            label: label.unwrap_or_default(),
        }
    }
}

/// What the engine refuses, for callers.
pub fn refusal(refused: &Refused) -> Refusal {
    match refused {
        Refused::Unknown(_) => Refusal::new(code::INVALID, refused.to_string()),
        Refused::Busy { .. } => Refusal::new(code::CONFLICT, refused.to_string()),
        Refused::Failed(failure) => Refusal(Box::new(shown::told(failure))),
        Refused::Stopping => Refusal::new(code::UNAVAILABLE, refused.to_string()),
    }
}
