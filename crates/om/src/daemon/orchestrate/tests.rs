//! Whole engines of several nodes on one shared memory, with fake drivers and a clock that jumps.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use om_core::{
    driver::{Cluster, Driver, KeyName, Secret, Work as Effect},
    instance::{CniIp, InstanceConfig, Orchestrate, Placement, Resource, ResourceKind, VolumeClaim},
    kv::{Answer, KvError, Rev},
    path::{NodeName, ObjectPath, Rid},
    plan::Verb,
    status::Status,
    truth::{Fact, News, Object, Truth},
    view::{At, Failure, Job, Order, Owner, Report, Session, Target, Want, Work},
};
use om_drivers::fake::{Fake, Fault, Faults};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{Compile, Engine, Level, Orchestrator, Settings, Teller};
use crate::daemon::executor::{Drivers, Executor, Supply};

/// The shared state, and which nodes reach it.
#[derive(Default)]
struct Memory {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    rev: u64,
    log: Vec<(u64, Fact)>,
    objects: BTreeMap<ObjectPath, At<Object>>,
    wants: BTreeMap<ObjectPath, At<Want>>,
    owners: BTreeMap<ObjectPath, At<Owner>>,
    reports: BTreeMap<(ObjectPath, NodeName), Report>,
    sessions: BTreeMap<NodeName, At<Session>>,
    cut: Vec<NodeName>,
}

impl State {
    fn put(&mut self, fact: impl FnOnce(Rev) -> Fact) -> Rev {
        self.rev += 1;
        self.log.push((self.rev, fact(Rev(self.rev))));
        Rev(self.rev)
    }
}

/// One node's way to it.
struct Link {
    memory: Arc<Memory>,
    node: NodeName,
}

impl Link {
    async fn act<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, KvError> {
        sleep(Duration::from_millis(2)).await;
        let done = {
            let mut state = self.memory.state.lock().unwrap();
            if state.cut.contains(&self.node) { None } else { Some(act(&mut state)) }
        };
        self.memory.news.notify_waiters();
        done.ok_or_else(|| KvError::Failed("no way to the store".into()))
    }
}

struct Following {
    memory: Arc<Memory>,
    node: NodeName,
    from: u64,
}

impl News for Following {
    fn next(&mut self) -> Answer<'_, Option<Vec<Fact>>> {
        Box::pin(async move {
            loop {
                let memory = Arc::clone(&self.memory);
                let notified = memory.news.notified();
                {
                    let state = memory.state.lock().unwrap();
                    if !state.cut.contains(&self.node) && state.rev > self.from {
                        let news = state.log.iter().filter(|(rev, _)| *rev > self.from);
                        let facts = news.map(|(_, fact)| fact.clone()).collect();
                        self.from = state.rev;
                        return Ok(Some(facts));
                    }
                }
                notified.await;
            }
        })
    }
}

impl Truth for Link {
    fn list(&self) -> Answer<'_, (Vec<Fact>, Rev)> {
        Box::pin(self.act(|state| {
            let mut facts = Vec::new();
            facts.extend(state.objects.iter().map(|(p, o)| Fact::Object(p.clone(), Some(o.clone()))));
            facts.extend(state.wants.iter().map(|(p, o)| Fact::Want(p.clone(), Some(o.clone()))));
            facts.extend(state.owners.iter().map(|(p, o)| Fact::Owner(p.clone(), Some(o.clone()))));
            facts.extend(state.reports.iter().map(|((p, n), r)| Fact::Report(p.clone(), n.clone(), Some(r.clone()))));
            facts.extend(state.sessions.iter().map(|(n, s)| Fact::Session(n.clone(), Some(s.clone()))));
            (facts, Rev(state.rev))
        }))
    }

    fn watch(&self, from: Rev) -> Box<dyn News> {
        Box::new(Following { memory: Arc::clone(&self.memory), node: self.node.clone(), from: from.0 })
    }

    fn want<'a>(&'a self, path: &'a ObjectPath, seen: Rev, want: Want) -> Answer<'a, bool> {
        Box::pin(self.act(move |state| {
            if state.wants.get(path).map_or(Rev(0), |w| w.rev) != seen || !state.objects.contains_key(path) {
                return false;
            }
            let rev = state.put(|rev| Fact::Want(path.clone(), Some(At { value: want.clone(), rev })));
            state.wants.insert(path.clone(), At { value: want, rev });
            true
        }))
    }

    fn own<'a>(
        &'a self,
        path: &'a ObjectPath,
        seen: Option<Rev>,
        owner: Owner,
        session: Option<(NodeName, Rev)>,
    ) -> Answer<'a, bool> {
        Box::pin(self.act(move |state| {
            let held = session.is_none_or(|(node, rev)| state.sessions.get(&node).is_some_and(|s| s.rev == rev));
            if state.owners.get(path).map(|o| o.rev) != seen || !held {
                return false;
            }
            let rev = state.put(|rev| Fact::Owner(path.clone(), Some(At { value: owner.clone(), rev })));
            state.owners.insert(path.clone(), At { value: owner, rev });
            true
        }))
    }

    fn report<'a>(&'a self, path: &'a ObjectPath, node: &'a NodeName, report: Option<Report>) -> Answer<'a, ()> {
        Box::pin(self.act(move |state| {
            state.put(|_| Fact::Report(path.clone(), node.clone(), report.clone()));
            match report {
                Some(report) => drop(state.reports.insert((path.clone(), node.clone()), report)),
                None => drop(state.reports.remove(&(path.clone(), node.clone()))),
            }
        }))
    }

    fn session<'a>(&'a self, node: &'a NodeName, seen: Option<Rev>, session: Session) -> Answer<'a, Option<Rev>> {
        Box::pin(self.act(move |state| {
            if state.sessions.get(node).map(|s| s.rev) != seen {
                return None;
            }
            let rev = state.put(|rev| Fact::Session(node.clone(), Some(At { value: session.clone(), rev })));
            state.sessions.insert(node.clone(), At { value: session, rev });
            Some(rev)
        }))
    }

    fn forget<'a>(&'a self, path: &'a ObjectPath, _: u64, want: Rev) -> Answer<'a, bool> {
        Box::pin(self.act(move |state| {
            if state.wants.get(path).map_or(Rev(0), |w| w.rev) != want {
                return false;
            }
            state.put(|_| Fact::Object(path.clone(), None));
            state.objects.remove(path);
            state.wants.remove(path);
            state.owners.remove(path);
            true
        }))
    }
}

struct Silent(Mutex<Vec<String>>);

impl Teller for Silent {
    fn changed(&self, _: &ObjectPath) {}
    fn gone(&self, _: &ObjectPath) {}
    fn node(&self, _: &NodeName) {}
    fn touched(&self, _: &ObjectPath) {}
    fn altered(&self, _: &ObjectPath) {}
    fn progress(&self, _: &ObjectPath, _: Option<&Rid>, _: Option<&str>, _: &str) {}
    fn say(&self, _: Level, _: &ObjectPath, _: Option<&Rid>, text: String) {
        self.0.lock().unwrap().push(text);
    }
    fn ended(&self, _: &ObjectPath, request: &str, failure: Option<&Failure>) {
        let how = failure.map_or_else(|| "done".into(), |failure| failure.message.clone());
        self.0.lock().unwrap().push(format!("{request}: {how}"));
    }
}

struct Rim(Fake);

impl Drivers for Rim {
    fn of(&self, _: &ResourceKind) -> Arc<dyn Driver> {
        Arc::new(self.0.clone())
    }
}

struct Nothing;

impl Supply for Nothing {
    fn cluster(&self) -> Cluster {
        Cluster {
            name: "pool".into(),
            id: "1".into(),
            nodes: Vec::new(),
            dns: Vec::new(),
            networks: Vec::new(),
            plugins: None,
        }
    }
    fn keys<'a>(&'a self, _: &'a InstanceConfig, _: &'a Resource) -> Effect<'a, BTreeMap<KeyName, Secret>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }
    fn files<'a>(&'a self, _: &'a InstanceConfig, _: &'a Resource) -> Effect<'a, Vec<(String, Secret)>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn volume<'a>(&'a self, _: &'a InstanceConfig, _: &'a VolumeClaim) -> Effect<'a, Option<Arc<InstanceConfig>>> {
        Box::pin(async { Ok(None) })
    }
    fn claim<'a>(&'a self, i: &'a InstanceConfig, _: &'a VolumeClaim) -> Effect<'a, Arc<InstanceConfig>> {
        Box::pin(async { Ok(Arc::new(i.clone())) })
    }
    fn unclaim<'a>(&'a self, _: &'a InstanceConfig, _: &'a VolumeClaim) -> Effect<'a, ()> {
        Box::pin(async { Ok(()) })
    }
    fn is_used<'a>(&'a self, _: &'a InstanceConfig, _: &'a InstanceConfig) -> Effect<'a, bool> {
        Box::pin(async { Ok(false) })
    }
}

/// `flag#1` holds a namespace of its own kind, `ip#1` is in no container.
fn config(path: &ObjectPath, text: &str) -> Result<InstanceConfig, String> {
    let nodes =
        text.split_whitespace().map(|node| node.parse().map_err(|e| format!("{e}"))).collect::<Result<_, _>>()?;
    let resource = |rid: &str, kind: ResourceKind| -> (Rid, Resource) {
        let rid: Rid = rid.parse().expect("a resource id");
        let resource = Resource {
            rid: rid.clone(),
            disable: false,
            optional: false,
            standby: false,
            shared: false,
            monitor: false,
            restart: 1,
            restart_delay: Duration::ZERO,
            provision: true,
            unprovision: true,
            subset: None,
            tags: Vec::new(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            kind,
        };
        (rid, resource)
    };
    let directory = om_core::instance::Directory { path: "/d".into(), user: None, group: None, perm: None };
    let ip = |netns: &str| CniIp {
        network: "default".into(),
        netns: Some(netns.parse().expect("a resource id")),
        ipdev: "eth12".into(),
        expose: Vec::new(),
    };
    Ok(InstanceConfig {
        path: path.clone(),
        id: "1".into(),
        nodes,
        orchestrate: Orchestrate::Ha,
        placement: Placement::NodesOrder,
        rollback: true,
        disable: false,
        priority: 100,
        volume: None,
        resources: BTreeMap::from([
            resource("fs#1", ResourceKind::Directory(directory)),
            resource("fs#2", ResourceKind::Flag),
            resource("ip#1", ResourceKind::Cni(ip("fs#2"))),
        ]),
    })
}

struct Node {
    engine: Engine,
    fake: Fake,
    teller: Arc<Silent>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct Sim {
    memory: Arc<Memory>,
    nodes: BTreeMap<NodeName, Node>,
    members: Vec<NodeName>,
    path: ObjectPath,
    orders: u32,
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

impl Sim {
    async fn new(nodes: &str, faults: Faults) -> Self {
        let members: Vec<NodeName> = nodes.split_whitespace().map(name).collect();
        let path: ObjectPath = "test/svc/web".parse().unwrap();
        let memory: Arc<Memory> = Arc::default();
        {
            let mut state = memory.state.lock().unwrap();
            let object = Object { generation: 1, text: nodes.into() };
            let want = Want { frozen: Some(1), ..Want::default() };
            let rev = state.put(|rev| Fact::Object(path.clone(), Some(At { value: object.clone(), rev })));
            state.objects.insert(path.clone(), At { value: object, rev });
            let rev = state.put(|rev| Fact::Want(path.clone(), Some(At { value: want.clone(), rev })));
            state.wants.insert(path.clone(), At { value: want, rev });
        }
        let mut sim = Self { memory, nodes: BTreeMap::new(), members: members.clone(), path, orders: 0 };
        for node in members {
            sim.begin(&node, Fake::new(Duration::from_millis(100), Arc::clone(&faults)), "boot-1");
        }
        sleep(Duration::from_secs(5)).await;
        sim
    }

    fn begin(&mut self, node: &NodeName, fake: Fake, boot: &str) {
        let teller = Arc::new(Silent(Mutex::default()));
        let truth = Arc::new(Link { memory: Arc::clone(&self.memory), node: node.clone() });
        let drivers = Arc::new(Rim(fake.clone()));
        let executor = Executor::new(node.clone(), drivers, Arc::new(Nothing), Arc::<Silent>::clone(&teller));
        let settings = Settings::new(node.clone(), self.members.clone(), boot.into());
        let compile: Compile = Arc::new(config);
        let told = Arc::<Silent>::clone(&teller);
        let (orchestrator, engine) = Orchestrator::new(settings, truth, executor, told, compile);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(orchestrator.run(stopped));
        self.nodes.insert(node.clone(), Node { engine, fake, teller, stop, task });
    }

    async fn order(&mut self, target: Target) -> String {
        self.orders += 1;
        let id = format!("r{}", self.orders);
        {
            let mut state = self.memory.state.lock().unwrap();
            let order = Order { id: id.clone(), target, force: false, keep: false };
            let want = state.wants[&self.path].value.ordered(order, 1);
            let path = self.path.clone();
            let rev = state.put(|rev| Fact::Want(path, Some(At { value: want.clone(), rev })));
            state.wants.insert(self.path.clone(), At { value: want, rev });
        }
        self.memory.news.notify_waiters();
        for _ in 0..4_000 {
            sleep(Duration::from_millis(100)).await;
            self.exclusive();
            let state = self.memory.state.lock().unwrap();
            let Some(want) = state.wants.get(&self.path) else { return "gone".into() };
            if let Some((last, failure)) = &want.value.last
                && *last == id
            {
                return failure.as_ref().map_or_else(|| "done".into(), |failure| failure.message.clone());
            }
        }
        let told: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|(name, node)| {
                let told = node.teller.0.lock().unwrap().clone();
                told.into_iter().map(move |line| format!("{name}: {line}"))
            })
            .collect();
        let state = self.memory.state.lock().unwrap();
        let (want, owner) = (&state.wants[&self.path], state.owners.get(&self.path));
        panic!("{id} did not end: {want:?}\n{owner:?}\n{:?}\n{}", state.sessions, told.join("\n"))
    }

    /// Time passes, and never do two nodes run it.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds * 10 {
            sleep(Duration::from_millis(100)).await;
            self.exclusive();
        }
    }

    fn exclusive(&self) {
        let running: Vec<&NodeName> =
            self.nodes.iter().filter(|(_, n)| !n.fake.running().is_empty()).map(|(name, _)| name).collect();
        assert!(running.len() < 2, "it runs on {running:?}");
    }

    fn running(&self) -> String {
        let mut words = Vec::new();
        for (name, node) in &self.nodes {
            words.extend(node.fake.running().into_iter().map(|(_, rid)| format!("{name}:{rid}")));
        }
        words.join(" ")
    }

    fn cut(&self, node: &str, cut: bool) {
        let mut state = self.memory.state.lock().unwrap();
        state.cut.retain(|other| *other != name(node));
        if cut {
            state.cut.push(name(node));
        }
        drop(state);
        self.memory.news.notify_waiters();
    }
}

fn faultless() -> Faults {
    Arc::new(|_, _, _, _| None)
}

const A: &str = "a:fs#1 a:fs#2 a:ip#1";
const B: &str = "b:fs#1 b:fs#2 b:ip#1";

#[tokio::test(start_paused = true)]
async fn one_node_from_provision_to_purge() {
    let mut sim = Sim::new("a", faultless()).await;
    sim.pass(60).await;
    assert_eq!(sim.running(), "", "frozen, and nothing was made");
    assert_eq!(sim.order(Target::Provisioned).await, "done");
    assert_eq!(sim.running(), A);
    let log = sim.nodes[&name("a")].fake.log();
    assert_eq!(log, ["provision fs#1", "start fs#1", "start fs#2", "start ip#1"]);
    assert_eq!(sim.order(Target::Stopped).await, "done");
    sim.pass(120).await;
    assert_eq!(sim.running(), "", "stopped stays stopped");
    assert_eq!(sim.nodes[&name("a")].fake.log(), ["stop ip#1", "stop fs#2", "stop fs#1"]);
    assert_eq!(sim.order(Target::Started).await, "done");
    assert_eq!(sim.order(Target::Restarted).await, "done");
    assert_eq!(sim.running(), A);
    assert_eq!(sim.order(Target::Unprovisioned).await, "done");
    assert_eq!((sim.running(), sim.nodes[&name("a")].fake.made().len()), (String::new(), 0));
    assert_eq!(sim.order(Target::Purged).await, "gone");
    sim.pass(1).await;
    assert!(sim.nodes[&name("a")].engine.read(|view| view.objects.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn what_dies_is_started_again_with_what_lives_in_it() {
    let mut sim = Sim::new("a", faultless()).await;
    assert_eq!(sim.order(Target::Provisioned).await, "done");
    let (path, node) = (sim.path.clone(), &sim.nodes[&name("a")]);
    node.fake.log();
    node.fake.kill(&path, &"fs#2".parse().unwrap());
    node.engine.touch(Some(&path));
    sim.pass(2).await;
    assert_eq!(sim.running(), A);
    assert!(node.fake.log().contains(&"start ip#1".to_owned()));
    // Its only restart is spent: it is left down.
    node.fake.kill(&path, &"fs#2".parse().unwrap());
    node.engine.touch(Some(&path));
    sim.pass(20).await;
    let avail = node.engine.read(|view| view.objects[&path].reports[&name("a")].summary.avail);
    assert_eq!(avail, Status::Warn, "{}", sim.running());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_killed_finds_what_runs() {
    let mut sim = Sim::new("a", faultless()).await;
    assert_eq!(sim.order(Target::Provisioned).await, "done");
    let old = sim.nodes.remove(&name("a")).unwrap();
    old.task.abort();
    old.fake.log();
    sim.begin(&name("a"), old.fake.clone(), "boot-1");
    sim.pass(120).await;
    assert_eq!((sim.running(), old.fake.log()), (A.to_owned(), Vec::new()), "nothing was done");
    // An engine that says nothing changes nothing.
    old.fake.hide(true);
    sim.nodes[&name("a")].engine.touch(None);
    sim.pass(60).await;
    old.fake.hide(false);
    sim.pass(60).await;
    assert_eq!(old.fake.log(), Vec::<String>::new());
    // A boot starts it.
    let old = sim.nodes.remove(&name("a")).unwrap();
    old.task.abort();
    old.fake.reboot();
    sim.begin(&name("a"), old.fake.clone(), "boot-2");
    sim.pass(10).await;
    assert_eq!(sim.running(), A);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_taken_back() {
    let faults: Faults =
        Arc::new(|_, verb, _, rid| (verb == Verb::Start && rid.to_string() == "ip#1").then_some(Fault::After));
    let mut sim = Sim::new("a", faults).await;
    let why = sim.order(Target::Provisioned).await;
    assert!(why.contains("cannot start ip#1 of test/svc/web: the fake was told to fail"), "{why}");
    let node = &sim.nodes[&name("a")];
    assert_eq!((sim.running(), node.fake.made()), (String::new(), Vec::new()));
    sim.pass(300).await;
    node.fake.log();
    sim.pass(300).await;
    assert_eq!(node.fake.log(), Vec::<String>::new(), "it is left");
    assert!(node.teller.0.lock().unwrap().iter().any(|line| line.starts_with("taking back")));
}

#[tokio::test(start_paused = true)]
async fn a_job_by_hand() {
    let mut sim = Sim::new("a", faultless()).await;
    assert_eq!(sim.order(Target::Provisioned).await, "done");
    let (path, node) = (sim.path.clone(), &sim.nodes[&name("a")]);
    assert_eq!(node.engine.run(&path, Job::new(Work::Stop)).await, Ok(()));
    assert_eq!(sim.running(), "");
    node.engine.refresh(vec![path]).await.unwrap();
    node.stop.send(true).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(node.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn several_nodes_never_run_it_twice() {
    let mut sim = Sim::new("a b c", faultless()).await;
    assert_eq!(sim.order(Target::Provisioned).await, "done");
    assert_eq!(sim.running(), A);
    assert_eq!(sim.order(Target::Placed(name("b"))).await, "done");
    assert_eq!(sim.running(), B);
    sim.pass(120).await;
    assert_eq!(sim.running(), B, "nothing moves back by itself");
    assert_eq!(sim.order(Target::Giveback).await, "done");
    assert_eq!(sim.running(), A);
    // Cut off, the node stops what it has before another one takes it.
    sim.cut("a", true);
    sim.pass(12).await;
    assert_eq!(sim.running(), "");
    sim.pass(20).await;
    assert_eq!(sim.running(), B);
    sim.cut("a", false);
    sim.pass(120).await;
    assert_eq!(sim.running(), B);
}

#[tokio::test(start_paused = true)]
async fn seeds() {
    for seed in 0..20_u64 {
        // Every seventh step or so goes wrong in one way or another, by the seed.
        let faults: Faults = Arc::new(move |step, verb, _, _| {
            let dice = (step + seed * 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            match dice % 21 {
                _ if verb == Verb::Stop => None,
                0 => Some(Fault::Before),
                1 => Some(Fault::After),
                2 => Some(Fault::Hang),
                _ => None,
            }
        });
        let mut sim = Sim::new("a b c", faults).await;
        let mut dice = seed;
        for _ in 0..12 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let node = ["a", "b", "c"][usize::try_from(dice >> 33).unwrap_or(0) % 3];
            match (dice >> 40) % 6 {
                0 => drop(sim.order(Target::Provisioned).await),
                1 => drop(sim.order(Target::Started).await),
                2 => drop(sim.order(Target::Placed(name(node))).await),
                3 => {
                    sim.cut(node, true);
                    sim.pass(40).await;
                    sim.cut(node, false);
                }
                4 => {
                    let old = sim.nodes.remove(&name(node)).unwrap();
                    old.task.abort();
                    sim.begin(&name(node), old.fake, "boot-1");
                }
                _ => drop(sim.order(Target::Stopped).await),
            }
            sim.pass(10).await;
        }
    }
}
