//! Owns the loop of a node: what is known is kept up to date, [`decide`] says what is due, the executor does it, and
//! what came of it is reported. Does not own decisions, steps, or how shared state is stored.
//!
//! One task owns the view and changes it; others read it through [`Engine`]. Everything that waits, such as drivers and
//! the store, runs in tasks of its own and sends its result back, so that nothing holds up the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use om_core::{
    aggregate::{self, Summary},
    decide::{Action, decide},
    instance::InstanceConfig,
    kv::Rev,
    path::{NodeName, ObjectPath, Rid},
    plan::Seen,
    status::Status,
    truth::{Fact, Truth},
    view::{At, Failure, Job, Local, Monitor, NodeView, ObjectView, Report, Session, View, Want, Work},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

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

/// A request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The object is not there, or cannot be used.
    #[error("{0} is not there, or its configuration cannot be used (hint: om {0} validate config)")]
    Unknown(ObjectPath),
    /// Something is done to it already.
    #[error("{path} is {doing} (hint: wait, or om {path} abort)")]
    Busy {
        /// The object.
        path: ObjectPath,
        /// What is done.
        doing: &'static str,
    },
    /// It was begun, and failed.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

/// What became of a request.
pub type Answered = Result<(), Refused>;

enum Request {
    Look { paths: Option<Vec<ObjectPath>>, done: Option<mpsc::Sender<()>> },
    Run { path: ObjectPath, job: Box<Job>, done: oneshot::Sender<Answered> },
    Freeze { since: Option<u64>, done: oneshot::Sender<Answered> },
    Reread { members: Vec<NodeName> },
    Interrupted,
}

/// The node's engine, as the rest of the daemon sees it. Clones share it.
#[derive(Clone)]
pub struct Engine {
    view: Arc<RwLock<View>>,
    requests: mpsc::Sender<Request>,
}

impl Engine {
    /// Reads what the node knows. The reader must be quick: the loop waits.
    pub fn read<T>(&self, reader: impl FnOnce(&View) -> T) -> T {
        reader(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that an object may have changed, or without one that anything may have; it is looked at soon.
    pub fn touch(&self, path: Option<&ObjectPath>) {
        // A full queue is full of work that leads to looking anyway, and the poll follows.
        let _ = self.requests.try_send(Request::Look { paths: path.map(|path| vec![path.clone()]), done: None });
    }

    /// Says that whatever runs resources is there again: what ended with it is started again.
    pub fn interrupted(&self) {
        // The queue is full where nothing else is done than this; the poll follows.
        let _ = self.requests.try_send(Request::Interrupted);
    }

    /// Looks at objects, and returns when what was seen is in the view.
    ///
    /// # Errors
    /// The daemon stops.
    pub async fn refresh(&self, paths: Vec<ObjectPath>) -> Answered {
        // Every object has a copy of the sender until it was looked at; the last one's end is the end.
        let (done, mut wait) = mpsc::channel(1);
        self.send(Request::Look { paths: Some(paths), done: Some(done) }).await?;
        while wait.recv().await.is_some() {}
        if self.requests.is_closed() { Err(Refused::Stopping) } else { Ok(()) }
    }

    /// Does a job on this node's instance, whatever is wanted of the object, and returns when it is done.
    ///
    /// # Errors
    /// It is busy, or the job failed.
    pub async fn run(&self, path: &ObjectPath, job: Job) -> Answered {
        let (done, wait) = oneshot::channel();
        self.send(Request::Run { path: path.clone(), job: Box::new(job), done }).await?;
        wait.await.map_err(|_| Refused::Stopping)?
    }

    /// The configuration of the cluster was changed: these are its nodes now, and what refers to it means something else.
    ///
    /// # Errors
    /// The daemon stops.
    pub async fn reread(&self, members: Vec<NodeName>) -> Answered {
        self.send(Request::Reread { members }).await
    }

    /// Freezes or thaws this node.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn freeze_node(&self, since: Option<u64>) -> Answered {
        let (done, wait) = oneshot::channel();
        self.send(Request::Freeze { since, done }).await?;
        wait.await.map_err(|_| Refused::Stopping)?
    }

    async fn send(&self, request: Request) -> Answered {
        self.requests.send(request).await.map_err(|_| Refused::Stopping)
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

    // --- What is so ---------------------------------------------------------------------------------------------------

    fn learn_all(&mut self, facts: Vec<Fact>) {
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

    fn learn(&mut self, fact: Fact) {
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

    fn learn_object(&mut self, path: ObjectPath, object: Option<om_core::truth::Object>) {
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
    fn compiled(&self, path: &ObjectPath, text: &str) -> Option<Arc<InstanceConfig>> {
        match (self.compile)(path, text) {
            Ok(config) => Some(Arc::new(config)),
            Err(error) => {
                self.teller.say(Level::Error, path, None, format!("the configuration cannot be used: {error}"));
                None
            }
        }
    }

    /// Texts are read again, as what they refer to was changed.
    fn reread(&mut self, members: Vec<NodeName>) {
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

    fn learn_session(&mut self, node: NodeName, session: Option<At<Session>>) {
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

    // --- This node's session --------------------------------------------------------------------------------------------

    /// A renewal whose answer was lost may have been made after all: it counts from when it was sent.
    fn adopt(&mut self, before: Option<&At<Session>>, session: &At<Session>) {
        let same = before.is_none_or(|before| before.value.epoch == session.value.epoch) && session.value.live;
        if !same {
            self.renewed = None;
            self.sent.clear();
            self.next_renewal = Instant::now();
        } else if let Some(sent) = self.sent.get(&session.value.seq).copied() {
            self.renewed = self.renewed.max(Some(sent));
            self.sent = self.sent.split_off(&session.value.seq);
        }
    }

    /// Begins or renews this node's session. The only node of a cluster writes it when it starts, and when it changes.
    fn renew(&mut self, done: Option<oneshot::Sender<Answered>>) {
        let now = Instant::now();
        let freeze = self.freeze.take();
        let settings = &self.settings;
        let (seen, session) = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let before = view.nodes.get(&settings.node).map(|node| node.session.clone());
            let runs = view.objects.values().any(|o| {
                let up = |report: &Report| matches!(report.summary.avail, Status::Up | Status::Warn);
                o.local.job.is_some() || o.reports.get(&settings.node).is_some_and(up)
            });
            let session = match &before {
                // The same boot, and nobody declared it dead: the daemon was started again, or renews.
                Some(At { value: old, .. }) if old.live && old.boot == settings.boot => {
                    Session { seq: old.seq + 1, takeover: settings.takeover, ..old.clone() }
                }
                // What ran under a dead session must be gone before there is another.
                Some(At { value: old, .. }) if old.boot == settings.boot && runs => {
                    tracing::warn!(
                        epoch = old.epoch,
                        "this node was declared dead; it begins anew when all is stopped"
                    );
                    self.next_renewal = now + self.settings.renew;
                    return;
                }
                old => Session {
                    epoch: old.as_ref().map_or(0, |old| old.value.epoch) + 1,
                    boot: settings.boot.clone(),
                    seq: 0,
                    live: true,
                    takeover: settings.takeover,
                    frozen: old.as_ref().and_then(|old| old.value.frozen),
                },
            };
            (before.map(|before| before.rev), session)
        };
        let session = Session { frozen: freeze.unwrap_or(session.frozen), ..session };
        self.renewing = true;
        let solo = self.settings.members.len() < 2;
        self.next_renewal = now + if solo { Duration::from_secs(86_400) } else { self.settings.renew };
        self.sent.insert(session.seq, now);
        let (truth, node, limit) = (Arc::clone(&self.truth), self.settings.node.clone(), self.settings.attempt);
        let limit = if solo { STORE_LIMIT } else { limit };
        self.tasks.spawn(async move {
            let result = match timeout(limit, truth.session(&node, seen, session.clone())).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("the store did not answer in time".into()),
            };
            Outcome::Renewed { sent: now, session, result, done }
        });
    }

    // --- What is done -----------------------------------------------------------------------------------------------------

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

    // --- What came of it ------------------------------------------------------------------------------------------------

    fn outcome(&mut self, outcome: Outcome) {
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
                    let interrupted = |view: &View| view.objects.get(&path).is_some_and(|o| o.local.interrupted);
                    let before = self.with_view(|view, _| interrupted(view));
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
    fn saw(&mut self, path: &ObjectPath, seen: Seen) {
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

    fn ran(&mut self, path: &ObjectPath, job: &Job, result: &Result<(), Failure>, seen: Seen) {
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
    fn write_reports(&mut self) {
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

fn empty_report(generation: u64) -> Report {
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
