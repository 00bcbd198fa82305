//! Owns what becomes of what was seen and done: the report of each instance of this node, and when it is written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use om_core::{
    aggregate::{self, Summary},
    path::ObjectPath,
    plan::Seen,
    status::Status,
    view::{At, Failure, Job, Monitor, Report, Work},
};
use tokio::time::{Instant, timeout};

use super::{Level, Orchestrator, Outcome, PAUSE, Refused, SETTLED, STORE_LIMIT, failed, wall};

impl Orchestrator {
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Looked { path, generation, seen } => {
                let Some(instance) = self.instances.get_mut(&path) else { return };
                instance.looking = false;
                instance.next_look = Some(Instant::now() + self.settings.poll);
                let again = std::mem::take(&mut instance.again);
                // What was seen during a job, or of another configuration, is old already.
                let current = self.with_view(|view, _| {
                    view.objects.get(&path).is_some_and(|o| o.generation == generation && o.local.job.is_none())
                });
                if current {
                    let before = self.with_view(|view, _| view.objects.get(&path).is_some_and(|o| o.local.interrupted));
                    self.saw(&path, seen);
                    // What was seen may be from before the interruption; the next look is from after it.
                    if again && before {
                        self.with_view(|view, _| {
                            view.objects.get_mut(&path).into_iter().for_each(|o| o.local.interrupted = true);
                        });
                    }
                }
                if again {
                    self.look(&path);
                } else if let Some(instance) = self.instances.get_mut(&path) {
                    instance.waiting.clear();
                }
            }
            Outcome::Ran { path, job, result, seen, done } => {
                self.ran(&path, &job, &result, seen);
                if let Some(done) = done {
                    drop(done.send(result.map_err(Refused::Failed)));
                }
            }
            Outcome::Reported { path, report, result } => {
                if let Some(instance) = self.instances.get_mut(&path) {
                    instance.writing = false;
                    if result {
                        instance.written = Some(*report);
                    } else {
                        self.failed_until = Some(Instant::now() + PAUSE);
                    }
                }
            }
            Outcome::Changed { key, result } => {
                self.pending.remove(&key);
                if !result {
                    // Somebody was faster, and news of it are on their way; or the store is not well.
                    self.failed_until = Some(Instant::now() + Duration::from_millis(50));
                }
            }
            Outcome::Renewed { sent, session, result, done } => {
                self.renewing = false;
                let answer = match &result {
                    Ok(Some(rev)) => {
                        let node = self.settings.node.clone();
                        self.learn_session(node, Some(At { value: session, rev: *rev }));
                        self.renewed = self.renewed.max(Some(sent));
                        Ok(())
                    }
                    Ok(None) => {
                        self.next_renewal = self.next_renewal.min(Instant::now() + PAUSE);
                        Err(failed("this node's state was changed meanwhile; try again"))
                    }
                    Err(error) => {
                        tracing::warn!(error, "this node's session was not renewed");
                        self.next_renewal = self.next_renewal.min(Instant::now() + PAUSE);
                        Err(failed(error.clone()))
                    }
                };
                if let Some(done) = done {
                    drop(done.send(answer));
                }
            }
        }
    }

    /// Takes what was seen of an instance into its report.
    pub(super) fn saw(&mut self, path: &ObjectPath, seen: Seen) {
        let now = Instant::now();
        let (me, boot) = (self.settings.node.clone(), self.settings.boot.clone());
        let changed = self.with_view(|view, this| {
            let (Some(object), Some(instance)) = (view.objects.get_mut(path), this.instances.get_mut(path)) else {
                return false;
            };
            let Some(config) = object.config.clone() else { return false };
            let generation = object.generation;
            let report = object.reports.entry(me).or_insert_with(|| empty_report(generation));
            let before = report.clone();
            report.generation = generation;
            report.summary = aggregate::instance(&config, &seen);
            report.resources = seen;
            report.updated = u64::try_from(wall().as_millis()).unwrap_or(u64::MAX);
            if report.summary.avail == Status::Up {
                object.local.booted = false;
                object.local.interrupted = false;
                if instance.last_start.is_some_and(|at| now - at >= SETTLED) {
                    instance.starts = 0;
                }
            }
            if !object.local.booted {
                report.boot = boot;
            }
            for (rid, resource) in &config.resources {
                if resource.restart == 0 {
                    report.restarts.remove(rid);
                    continue;
                }
                let up = report.resources.get(rid).is_some_and(|seen| seen.status == Status::Up);
                let settled = instance.restarts.get(rid).is_none_or(|(_, at)| now - *at >= SETTLED);
                if up && settled {
                    instance.restarts.remove(rid);
                    object.local.resources.remove(rid);
                    report.restarts.insert(rid.clone(), resource.restart);
                }
                let left = report.restarts.entry(rid.clone()).or_insert(resource.restart);
                *left = (*left).min(resource.restart);
            }
            report.restarts.retain(|rid, _| config.resources.contains_key(rid));
            object.local.seen = true;
            !same(&before, report)
        });
        if changed {
            self.teller.changed(path);
        }
    }

    pub(super) fn ran(&mut self, path: &ObjectPath, job: &Job, result: &Result<(), Failure>, seen: Seen) {
        if let Some(instance) = self.instances.get_mut(path) {
            instance.cancel = None;
        }
        let me = self.settings.node.clone();
        let whole = job.only.is_empty();
        self.with_view(|view, _| {
            let Some(object) = view.objects.get_mut(path) else { return };
            object.local.job = None;
            let (cleared, generation) = (object.want.value.cleared, object.generation);
            let report = object.reports.entry(me).or_insert_with(|| empty_report(generation));
            match result {
                Ok(()) => {
                    report.monitor = Monitor::Idle;
                    report.done.clone_from(&job.request);
                    match job.work {
                        Work::Start | Work::Restart if whole => report.expected = true,
                        Work::Provision if job.leader => report.expected = true,
                        Work::Stop | Work::Unprovision if whole => report.expected = false,
                        _ => {}
                    }
                }
                Err(failure) => {
                    let (work, request, failure) = (job.work, job.request.clone(), failure.clone());
                    report.monitor = Monitor::Failed { work, request, cleared, failure };
                }
            }
        });
        match result {
            Ok(()) => self.teller.say(Level::Info, path, None, format!("{} is done", job.work.doing())),
            Err(failure) => self.teller.say(Level::Error, path, None, failure.message.clone()),
        }
        self.saw(path, seen);
        self.teller.changed(path);
        // Volumes of it may be otherwise too, and what happened during the job may have been missed.
        self.look(path);
    }

    /// Writes what is not yet written of this node's instances.
    pub(super) fn write_reports(&mut self) {
        let me = self.settings.node.clone();
        let due: Vec<(ObjectPath, Report)> = self.with_view(|view, this| {
            let unwritten = view.objects.iter().filter_map(|(path, object)| {
                let (report, instance) = (object.reports.get(&me)?, this.instances.get(path)?);
                let written = instance.written.as_ref().is_some_and(|written| same(written, report));
                (object.local.seen && !instance.writing && !written).then(|| (path.clone(), report.clone()))
            });
            unwritten.collect()
        });
        for (path, report) in due {
            if let Some(instance) = self.instances.get_mut(&path) {
                instance.writing = true;
            }
            let (truth, node) = (Arc::clone(&self.truth), self.settings.node.clone());
            self.tasks.spawn(async move {
                let written = timeout(STORE_LIMIT, truth.report(&path, &node, Some(report.clone()))).await;
                let result = matches!(written, Ok(Ok(())));
                Outcome::Reported { path, report: Box::new(report), result }
            });
        }
    }
}

pub(super) fn empty_report(generation: u64) -> Report {
    Report {
        generation,
        summary: Summary::UNKNOWN,
        resources: BTreeMap::new(),
        restarts: BTreeMap::new(),
        monitor: Monitor::Idle,
        expected: false,
        boot: String::new(),
        done: None,
        updated: 0,
    }
}

/// Whether two reports say the same, whenever they were made.
fn same(a: &Report, b: &Report) -> bool {
    let Report { generation, summary, resources, restarts, monitor, expected, boot, done, updated: _ } = a;
    (generation, summary, resources, restarts) == (&b.generation, &b.summary, &b.resources, &b.restarts)
        && (monitor, expected, boot, done) == (&b.monitor, &b.expected, &b.boot, &b.done)
}
