//! Owns the loop of a node: what is known is kept up to date, [`decide`] says what is due, the executor does it, and
//! what came of it is reported. Does not own decisions, steps, or how shared state is stored.
//!
//! One task owns the view and changes it; others read it through [`Engine`]. Everything that waits, such as drivers and
//! the store, runs in tasks of its own and sends its result back, so that nothing holds up the loop.

mod handle;
mod learn;
mod report;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use om_core::{
    decide::{Action, decide},
    instance::InstanceConfig,
    kv::Rev,
    path::{NodeName, ObjectPath, Rid},
    plan::Seen,
    truth::Truth,
    view::{Failure, Job, Monitor, Report, Session, View, Work},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

pub use self::handle::{Answered, Engine, Refused};
use self::{handle::Request, report::empty_report};
use crate::daemon::executor::Executor;

/// Requests to the loop that may wait.
const REQUESTS: usize = 1024;
/// Longest time between two starts that nobody ordered.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// So long must something be up before its restarts are given back.
const SETTLED: Duration = Duration::from_secs(60);
/// Pause after the store did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for the store to make one change.
const STORE_LIMIT: Duration = Duration::from_secs(15);

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something was done.
    Info,
    /// How it was done.
    Debug,
}

/// Who is told what happens. Called often, from many tasks; it must not wait.
pub trait Teller: Send + Sync {
    /// An object is seen otherwise than before.
    fn changed(&self, path: &ObjectPath);
    /// An object is no more.
    fn gone(&self, path: &ObjectPath);
    /// A node is seen otherwise than before.
    fn node(&self, node: &NodeName);
    /// An object was worked on as part of another one's job.
    fn touched(&self, path: &ObjectPath);
    /// An object without resources is otherwise than before, or is no more: its text or its keys.
    fn altered(&self, path: &ObjectPath);
    /// How far a step is.
    fn progress(&self, path: &ObjectPath, rid: Option<&Rid>, request: Option<&str>, text: &str);
    /// A line for the journal.
    fn say(&self, level: Level, path: &ObjectPath, rid: Option<&Rid>, text: String);
    /// An order ended.
    fn ended(&self, path: &ObjectPath, request: &str, failure: Option<&Failure>);
}

/// Makes of a configuration's text what it means on this node; the error is for people.
pub type Compile = Arc<dyn Fn(&ObjectPath, &str) -> Result<InstanceConfig, String> + Send + Sync>;

/// How a node's engine is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeName,
    /// All nodes, this one included.
    pub members: Vec<NodeName>,
    /// Another text after every boot.
    pub boot: String,
    /// Every instance is looked at again after this time, whatever events say.
    pub poll: Duration,
    /// Instances that are looked at, and jobs that run, at a time.
    pub parallel: usize,
    /// Time between renewals of this node's session.
    pub renew: Duration,
    /// Longest wait for one renewal.
    pub attempt: Duration,
    /// Without a renewal for so long, what this node owns is stopped.
    pub soft_stop: Duration,
    /// Without a renewal for so long, others take over.
    pub takeover: Duration,
}

impl Settings {
    /// The standard times: renewals every 2 s, stop after 8 s, takeover after 20 s.
    pub fn new(node: NodeName, members: Vec<NodeName>, boot: String) -> Self {
        Self {
            node,
            members,
            boot,
            poll: Duration::from_secs(60),
            parallel: 10,
            renew: Duration::from_secs(2),
            attempt: Duration::from_millis(1500),
            soft_stop: Duration::from_secs(8),
            takeover: Duration::from_secs(20),
        }
    }
}

/// The loop; [`Orchestrator::run`] runs it.
pub struct Orchestrator {
    settings: Settings,
    truth: Arc<dyn Truth>,
    executor: Executor,
    teller: Arc<dyn Teller>,
    compile: Compile,
    view: Arc<RwLock<View>>,
    requests: mpsc::Receiver<Request>,
    instances: BTreeMap<ObjectPath, Instance>,
    seen_sessions: BTreeMap<NodeName, Instant>,
    started: Instant,
    renewed: Option<Instant>,
    sent: BTreeMap<u64, Instant>,
    renewing: bool,
    next_renewal: Instant,
    freeze: Option<Option<u64>>,
    tasks: JoinSet<Outcome>,
    slots: Arc<Semaphore>,
    jobs: Arc<Semaphore>,
    pending: BTreeSet<Key>,
    failed_until: Option<Instant>,
    listing: bool,
}

/// What only the loop needs of an object.
#[derive(Default)]
struct Instance {
    text: Arc<str>,
    looking: bool,
    again: bool,
    next_look: Option<Instant>,
    waiting: Vec<mpsc::Sender<()>>,
    cancel: Option<watch::Sender<bool>>,
    written: Option<Report>,
    writing: bool,
    starts: u32,
    last_start: Option<Instant>,
    restarts: BTreeMap<Rid, (u32, Instant)>,
}

/// A change of shared state that is under way: it is not asked for twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Object(ObjectPath),
    Node(NodeName),
}

enum Outcome {
    Looked {
        path: ObjectPath,
        generation: u64,
        seen: Seen,
    },
    Ran {
        path: ObjectPath,
        job: Box<Job>,
        result: Result<(), Failure>,
        seen: Seen,
        done: Option<oneshot::Sender<Answered>>,
    },
    Reported {
        path: ObjectPath,
        report: Box<Report>,
        result: bool,
    },
    Changed {
        key: Key,
        result: bool,
    },
    Renewed {
        sent: Instant,
        session: Session,
        result: Result<Option<Rev>, String>,
        done: Option<oneshot::Sender<Answered>>,
    },
}

impl Orchestrator {
    /// A loop and the handle to it.
    pub fn new(
        settings: Settings,
        truth: Arc<dyn Truth>,
        executor: Executor,
        teller: Arc<dyn Teller>,
        compile: Compile,
    ) -> (Self, Engine) {
        let view = View {
            me: settings.node.clone(),
            members: settings.members.clone(),
            now: Duration::ZERO,
            wall: wall().as_secs(),
            renewed: None,
            soft_stop: settings.soft_stop,
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        let view = Arc::new(RwLock::new(view));
        let (sender, requests) = mpsc::channel(REQUESTS);
        let now = Instant::now();
        let parallel = settings.parallel.max(1);
        let orchestrator = Self {
            settings,
            truth,
            executor,
            teller,
            compile,
            view: Arc::clone(&view),
            requests,
            instances: BTreeMap::new(),
            seen_sessions: BTreeMap::new(),
            started: now,
            renewed: None,
            sent: BTreeMap::new(),
            renewing: false,
            next_renewal: now,
            freeze: None,
            tasks: JoinSet::new(),
            slots: Arc::new(Semaphore::new(parallel)),
            jobs: Arc::new(Semaphore::new(parallel)),
            pending: BTreeSet::new(),
            failed_until: None,
            listing: false,
        };
        (orchestrator, Engine { view, requests: sender })
    }

    /// Runs until `stop` becomes true or all handles are gone. What runs keeps running; jobs are ended as they are, and
    /// done again by the next loop if they are still wanted.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let listed = tokio::select! {
                listed = self.truth.list() => listed,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match listed {
                Ok((facts, rev)) => {
                    self.learn_all(facts);
                    let mut news = Arc::clone(&self.truth).watch(rev);
                    if self.follow(&mut *news, &mut stop).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read the cluster's state");
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }
        }
    }

    /// Follows the news until they end; true: for good.
    async fn follow(&mut self, news: &mut dyn om_core::truth::News, stop: &mut watch::Receiver<bool>) -> bool {
        loop {
            let wake = self.turn();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return true,
                facts = news.next() => match facts {
                    Ok(Some(facts)) => facts.into_iter().for_each(|fact| self.learn(fact)),
                    Ok(None) => return false,
                    Err(error) => {
                        tracing::warn!(%error, "the watch of the cluster's state ended");
                        return false;
                    }
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(outcome) => self.outcome(outcome),
                    Err(error) => tracing::error!(%error, "a task of the engine failed"),
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => return true,
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Decides, begins what is due, and says when to look again without being told anything.
    fn turn(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + self.settings.poll;
        if self.next_renewal <= now && !self.renewing {
            self.renew(None);
        }
        if self.settings.members.len() > 1 {
            wake = wake.min(self.next_renewal.max(now + Duration::from_millis(10)));
        }
        let due: Vec<ObjectPath> = self
            .instances
            .iter()
            .filter(|(_, instance)| !instance.looking && instance.next_look.is_some_and(|at| at <= now))
            .map(|(path, _)| path.clone())
            .collect();
        due.iter().for_each(|path| self.look(path));
        let next = self.instances.values().filter(|i| !i.looking).filter_map(|i| i.next_look).min();
        wake = next.map_or(wake, |next| wake.min(next));
        self.write_reports();
        match self.failed_until {
            // The store did not take a change: not at once again.
            Some(until) if until > now => return wake.min(until),
            _ => self.failed_until = None,
        }
        let actions = self.with_view(|view, this| {
            view.now = now - this.started;
            view.wall = wall().as_secs();
            view.renewed = this.renewed.map(|at| now - at);
            for (name, node) in &mut view.nodes {
                node.age = this.seen_sessions.get(name).map_or(Duration::ZERO, |at| now - *at);
            }
            decide(view)
        });
        for action in actions {
            if let Action::Wait { until } = action {
                wake = wake.min(self.started + until);
            } else {
                self.act(action);
            }
        }
        // A session that runs out is noticed at its time, not at the next event.
        if let Some(renewed) = self.renewed
            && self.settings.members.len() > 1
            && renewed + self.settings.soft_stop > now
        {
            wake = wake.min(renewed + self.settings.soft_stop);
        }
        wake.max(now + Duration::from_millis(1))
    }

    fn with_view<T>(&mut self, change: impl FnOnce(&mut View, &mut Self) -> T) -> T {
        let view = Arc::clone(&self.view);
        let mut view = view.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut view, self)
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Look { paths, done } => {
                let paths = paths.unwrap_or_else(|| self.instances.keys().cloned().collect());
                for path in paths {
                    if let Some(instance) = self.instances.get_mut(&path) {
                        instance.waiting.extend(done.clone());
                    }
                    self.look(&path);
                }
            }
            Request::Run { path, job, done } => {
                let busy = self.with_view(|view, _| {
                    let object = view.objects.get(&path)?;
                    object.config.as_ref()?;
                    Some(object.local.job.as_ref().map(|job| job.work.doing()))
                });
                match busy {
                    None => drop(done.send(Err(Refused::Unknown(path)))),
                    Some(Some(doing)) => drop(done.send(Err(Refused::Busy { path, doing }))),
                    Some(None) => self.begin(&path, *job, "asked for on this node", Some(done)),
                }
            }
            Request::Reread { members } => self.reread(members),
            Request::Interrupted => {
                // What was seen until now may have been seen while nothing answered.
                self.with_view(|view, _| {
                    view.objects.values_mut().for_each(|object| object.local.interrupted = true);
                });
                let paths: Vec<ObjectPath> = self.instances.keys().cloned().collect();
                paths.iter().for_each(|path| self.look(path));
            }
            Request::Freeze { since, done } => {
                self.freeze = Some(since);
                self.renew(Some(done));
            }
        }
    }

    fn look(&mut self, path: &ObjectPath) {
        let (poll, me) = (self.settings.poll, self.settings.node.clone());
        let config = self.with_view(|view, _| {
            let object = view.objects.get(path)?;
            Some((object.config.clone()?, object.generation, object.local.job.is_some()))
        });
        let Some(instance) = self.instances.get_mut(path) else { return };
        let Some((config, generation, _)) = config else {
            instance.waiting.clear();
            instance.next_look = None;
            return;
        };
        if !config.nodes.contains(&me) && instance.written.is_none() && instance.next_look.is_none() {
            // Not a node of it, and never was: looked at once, in case something of it runs here.
            instance.next_look = Some(Instant::now() + poll);
        }
        if instance.looking {
            instance.again = true;
            return;
        }
        instance.looking = true;
        instance.again = false;
        let (executor, slots, path) = (self.executor.clone(), Arc::clone(&self.slots), path.clone());
        self.tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let seen = executor.look(&config).await;
            Outcome::Looked { path, generation, seen }
        });
    }

    fn begin(&mut self, path: &ObjectPath, job: Job, why: &str, done: Option<oneshot::Sender<Answered>>) {
        let now = Instant::now();
        let node = self.settings.node.clone();
        let Some(config) = self.with_view(|view, _| view.objects.get(path)?.config.clone()) else { return };
        let Some(instance) = self.instances.get_mut(path) else { return };
        let (cancel, cancelled) = watch::channel(false);
        instance.cancel = Some(cancel);
        if job.work == Work::Start && job.request.is_none() {
            instance.starts = instance.starts.saturating_add(1);
            instance.last_start = Some(now);
        }
        let not_before = now + backoff(instance.starts);
        let mut delays = BTreeMap::new();
        if job.work == Work::Repair {
            for rid in &job.only {
                let (count, at) = instance.restarts.entry(rid.clone()).or_insert((0, now));
                *count = count.saturating_add(1);
                *at = now;
                let delay = config.resources.get(rid).map_or(Duration::ZERO, |r| r.restart_delay);
                delays.insert(rid.clone(), now + delay.max(backoff(*count)));
            }
        }
        let started = self.started;
        self.with_view(|view, _| {
            let generation = view.objects.get(path).map_or(0, |object| object.generation);
            let Some(object) = view.objects.get_mut(path) else { return };
            object.local.job = Some(job.clone());
            object.local.booted = false;
            object.local.interrupted &= !matches!(job.work, Work::Start | Work::Restart | Work::Stop);
            if job.work == Work::Start && job.request.is_none() {
                object.local.not_before = not_before - started;
            }
            for (rid, at) in delays {
                if let Some(report) = object.reports.get_mut(&node) {
                    let left = report.restarts.entry(rid.clone()).or_insert(0);
                    *left = left.saturating_sub(1);
                }
                object.local.resources.insert(rid, at - started);
            }
            let report = object.reports.entry(node.clone()).or_insert_with(|| empty_report(generation));
            report.monitor = Monitor::Busy(job.work);
        });
        self.teller.say(Level::Info, path, None, format!("{}: {why}", job.work.doing()));
        self.teller.changed(path);
        let (executor, jobs, path) = (self.executor.clone(), Arc::clone(&self.jobs), path.clone());
        self.tasks.spawn(async move {
            let _slot = jobs.acquire_owned().await;
            let result = executor.run(&config, &job, &cancelled).await.map_err(|error| error.failure());
            let seen = executor.look(&config).await;
            Outcome::Ran { path, job: Box::new(job), result, seen, done }
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Wait { .. } => {}
            Action::Run { path, job, why } => {
                // A change that is under way may be what this is based on.
                if !self.pending.contains(&Key::Object(path.clone())) {
                    self.begin(&path, job, why, None);
                }
            }
            Action::Cancel { path } => {
                if let Some(cancel) = self.instances.get(&path).and_then(|instance| instance.cancel.as_ref()) {
                    // Only the first one changes anything.
                    cancel.send_if_modified(|cancelled| !std::mem::replace(cancelled, true));
                }
            }
            Action::DeclareDead { node, seen } => {
                let session = self.with_view(|view, _| view.nodes.get(&node).map(|n| n.session.value.clone()));
                let Some(session) = session else { return };
                tracing::warn!(%node, "declared dead: its session was not renewed");
                self.change(Key::Node(node.clone()), move |truth| async move {
                    let dead = Session { live: false, ..session };
                    truth.session(&node, Some(seen), dead).await.map(|rev| rev.is_some())
                });
            }
            Action::Own { path, seen, owner, why } => {
                let me = self.settings.node.clone();
                let session = self.with_view(|view, _| {
                    let session = view.nodes.get(&me).map(|node| (me.clone(), node.session.rev));
                    session.filter(|_| view.members.len() > 1)
                });
                tracing::info!(object.path = %path, phase = ?owner.phase, "ownership changes: {why}");
                self.change(Key::Object(path.clone()), move |truth| async move {
                    truth.own(&path, seen, owner, session).await
                });
            }
            Action::Wish { path, seen, want } => {
                self.change(Key::Object(path.clone()), move |truth| async move { truth.want(&path, seen, want).await });
            }
            Action::Forget { path, generation, want } => {
                self.change(Key::Object(path.clone()), move |truth| async move {
                    truth.forget(&path, generation, want).await
                });
            }
        }
    }

    /// Makes a change of the shared state, one at a time of each object. Whatever its answer: what is so then comes as
    /// news.
    fn change<F, W>(&mut self, key: Key, change: W)
    where
        W: FnOnce(Arc<dyn Truth>) -> F + Send + 'static,
        F: Future<Output = Result<bool, om_core::kv::KvError>> + Send,
    {
        if !self.pending.insert(key.clone()) {
            return;
        }
        let truth = Arc::clone(&self.truth);
        self.tasks.spawn(async move {
            let result = match timeout(STORE_LIMIT, change(truth)).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot change the cluster's state");
                    false
                }
                Err(_) => {
                    tracing::warn!("the cluster's state did not change in time");
                    false
                }
            };
            Outcome::Changed { key, result }
        });
    }
}

fn backoff(count: u32) -> Duration {
    Duration::from_secs(1_u64 << count.saturating_sub(1).min(6)).min(MAX_BACKOFF)
}

fn failed(message: impl Into<String>) -> Refused {
    Refused::Failed(Failure { message: message.into(), hint: None })
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
