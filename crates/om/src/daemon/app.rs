//! The composition root of the daemon: builds every part from what is on disk, runs them, and ends them in order. Does
//! not own what any part does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use om_cluster::{
    Store, StoreError,
    sqlite::{OpenError, SqliteKv},
    store::New,
};
use om_core::{
    config::{Diagnostic, Document, Severity, cluster},
    kv::Kv,
    path::{Kind, NodeName, ObjectPath},
    view::Monitor,
};
use service::shutdown::Shutdown;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    api::{
        self, Event,
        server::{Listener, Refusal, ServeError},
    },
    daemon::{
        answer::Answers,
        certificates::{CertificateError, Certificates},
        executor::{Drivers, Executor},
        facts,
        hub::Hub,
        journal::{Journal, Level, now},
        names::Names,
        node,
        orchestrate::{Engine, Orchestrator, Settings},
        refresh,
        supply::{Images, Supplies},
        telling::Telling,
        texts, trust,
        world::{Current, World},
    },
    places::Places,
};

/// The name of a cluster that was not given one.
const CLUSTER: &str = "default";
/// How long the parts may take to end.
const END: Duration = Duration::from_secs(10);
/// Longest wait for the container engine to know the cluster's names, and between two looks.
const ENGINE_LIMIT: Duration = Duration::from_secs(15);
const ENGINE_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for all services to stop before the daemon does.
const SHUTDOWN: Duration = Duration::from_secs(300);

/// What the daemon works with that is made elsewhere.
pub struct Parts {
    /// Makes resources so.
    pub drivers: Arc<dyn Drivers>,
    /// Knows images.
    pub images: Arc<dyn Images>,
    /// How the command line of the container engine names it: `unix:///var/run/docker.sock`.
    pub engine_host: String,
    /// Facts of the node for people.
    pub facts: BTreeMap<String, String>,
    /// Tells the orchestrator what to look at again, as long as it is polled.
    pub news: Option<News>,
    /// The port of the cluster's DNS on this node; none: it is not answered.
    pub dns_port: Option<u16>,
}

/// Makes the future that follows what happens to resources, given whom to tell.
pub type News = Box<dyn FnOnce(Engine) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What the parts need to know before they can be made.
pub struct Ground {
    /// Facts of the cluster.
    pub world: Arc<World>,
    /// Paths of this node.
    pub places: Places,
}

/// A daemon that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has the state.
    #[error("another daemon runs on {}", path.display())]
    Running {
        /// Its lock.
        path: PathBuf,
    },
    /// The node has no usable name.
    #[error(transparent)]
    Name(#[from] facts::BadName),
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is in the store.
    #[error("read the cluster's state: {0}")]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A configuration.
    #[error("read {file}: {problem}")]
    Config {
        /// Which.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The parts that are made elsewhere.
    #[error("{0}")]
    Parts(String),
}

/// Everything of a running daemon that answers need.
pub struct App {
    /// Paths of this node.
    pub places: Places,
    /// Facts of the node and its cluster.
    pub current: Current,
    /// The shared state.
    pub store: Store,
    /// What runs here.
    pub engine: Engine,
    /// What is told to people.
    pub journal: Journal,
    /// Who listens.
    pub hub: Hub,
    /// The engine's news.
    pub telling: Arc<Telling>,
    /// The cluster's authority.
    pub certificates: Arc<Certificates>,
    /// What jobs are supplied with.
    pub supplies: Arc<Supplies>,
    /// The cluster's DNS.
    pub names: Arc<Names>,
    /// What has newer files than what runs.
    pub refresh: refresh::Due,
    /// Ends the daemon.
    pub shutdown: Shutdown,
    /// How the container engine's command line names it.
    pub engine_host: String,
    /// Facts of the parts.
    pub facts: BTreeMap<String, String>,
    started: f64,
    following: tokio::sync::Mutex<()>,
}

/// Runs the daemon until a stop is requested. `make` builds the parts that are made elsewhere.
///
/// `ready` is called when the socket answers.
///
/// # Errors
/// It did not start; see [`StartError`].
pub async fn run(
    places: Places,
    shutdown: Shutdown,
    make: impl AsyncFnOnce(&Ground) -> Result<Parts, String>,
    ready: impl FnOnce(&Arc<App>),
) -> Result<(), StartError> {
    let _lock = prepare(&places)?;
    let kv: Arc<dyn Kv> = Arc::new(SqliteKv::open(&places.store())?);
    let store = Store::open(kv, &places.key()).await?;
    let own = own_config(&places)?;
    let name = match own.get("node", "name").filter(|name| !name.is_empty()) {
        None => facts::node_name()?,
        Some(name) => name.parse().map_err(|error| StartError::Config {
            file: places.node_config().display().to_string(),
            problem: format!("{error}"),
        })?,
    };
    let (world, found) = world(name, &store, &own).await?;
    for diagnostic in found {
        tracing::warn!("{}", diagnostic.shown("cluster"));
    }
    let current = Current::new(world);
    let world = current.get();
    let journal = Journal::open(&places.logs(), world.node.clone()).map_err(|source| StartError::File {
        operation: "make",
        path: places.logs(),
        source,
    })?;
    let certificates = Arc::new(Certificates::open(&store, &world.cluster.name).await?);
    let ground = Ground { world: Arc::clone(&world), places: places.clone() };
    let parts = make(&ground).await.map_err(StartError::Parts)?;
    let names = Arc::new(Names::new(&world.cluster, parts.dns_port));
    // Before anything is started: containers may ask at once.
    names.bind().await;

    let hub = Hub::default();
    let telling = Arc::new(Telling::new(world.node.clone(), hub.clone(), journal.clone()));
    let supplies = Arc::new(Supplies {
        current: current.clone(),
        places: places.clone(),
        store: store.clone(),
        certificates: Arc::clone(&certificates),
        images: parts.images,
        engine: OnceLock::new(),
    });
    let executor =
        Executor::new(world.node.clone(), parts.drivers, Arc::clone(&supplies) as _, Arc::clone(&telling) as _);
    let settings = Settings::new(world.node.clone(), world.cluster.nodes.clone(), facts::boot_id());
    let compiled = current.clone();
    let compile = Arc::new(move |path: &ObjectPath, text: &str| {
        let read = texts::read(&compiled.get(), path, text).map_err(|found| {
            found.first().map(|first| first.shown(&path.to_string()).to_string()).unwrap_or_default()
        })?;
        read.instance.ok_or_else(|| format!("{path} has no resources"))
    });
    let (orchestrator, engine) =
        Orchestrator::new(settings, Arc::new(store.clone()), executor.clone(), Arc::clone(&telling) as _, compile);
    // Set once, here: nobody else has it.
    let _ = supplies.engine.set(engine.clone());
    let app = Arc::new(App {
        places: places.clone(),
        current,
        store,
        engine,
        journal: journal.clone(),
        hub,
        telling,
        certificates,
        supplies,
        names,
        refresh: refresh::Due::default(),
        shutdown: shutdown.clone(),
        engine_host: parts.engine_host,
        facts: parts.facts,
        started: now(),
        following: tokio::sync::Mutex::default(),
    });

    let listener = Listener::bind(&places.socket()).await?;
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(orchestrator.run(stopping));
    tasks.spawn(derive(Arc::clone(&app)));
    let (answering, refreshing, ending) = (Arc::clone(&app.names), Arc::clone(&app), shutdown.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = answering.serve() => {}
            () = refresh::run(refreshing, executor) => {}
            () = ending.requested() => {}
        }
    });
    if let Some(news) = parts.news {
        let (following, ending) = (news(app.engine.clone()), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = following => {}
                () = ending.requested() => {}
            }
        });
    }
    tasks.spawn(listener.serve(Arc::new(Answers(Arc::clone(&app))), shutdown.clone()));
    journal.say(Level::Info, None, None, format!("daemon {} started", env!("CARGO_PKG_VERSION")));
    ready(&app);
    shutdown.requested().await;
    journal.say(Level::Info, None, None, "daemon stops; services stay as they are");
    stop.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(END, ended).await.is_err() {
        tracing::warn!("some parts of the daemon did not end in time");
    }
    Ok(())
}

/// Makes the directories, and takes the lock that one daemon holds.
fn prepare(places: &Places) -> Result<File, StartError> {
    for directory in [&places.etc, &places.var, &places.run] {
        let failed = |source| StartError::File { operation: "make", path: directory.clone(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        if *directory != places.etc {
            fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
        }
    }
    let path = places.lock();
    let failed = |operation| {
        let path = path.clone();
        move |source| StartError::File { operation, path, source }
    };
    let options = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let mut lock = options().map_err(failed("open"))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::Running { path }),
        Err(error) => return Err(failed("lock")(error.into())),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed("write"))?;
    Ok(lock)
}

fn parse(file: &str, text: &str) -> Result<Document, StartError> {
    Document::parse(text).map_err(|found| StartError::Config {
        file: file.into(),
        problem: found.first().map(|first| first.shown(file).to_string()).unwrap_or_default(),
    })
}

/// This node's own configuration.
fn own_config(places: &Places) -> Result<Document, StartError> {
    let path = places.node_config();
    let text =
        node::read(places).map_err(|source| StartError::File { operation: "read", path: path.clone(), source })?;
    parse(&path.display().to_string(), &text)
}

/// The facts of a node and its cluster, with what is wrong with the cluster's configuration. That is made where there is
/// none.
async fn world(node: NodeName, store: &Store, own: &Document) -> Result<(World, Vec<Diagnostic>), StartError> {
    let path = ObjectPath::cluster();
    if store.config(&path).await?.is_none() {
        let text = format!("[cluster]\nname = {CLUSTER}\nnodes = {node}\n");
        match store.create(&[New { path: path.clone(), text, want: None }]).await {
            Ok(_) | Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = store.config(&path).await?.map(|config| config.text).unwrap_or_default();
    let document = parse("the configuration of the cluster", &text)?;
    let (cluster, found) = cluster::read(&document, &node, store.cluster_id());
    Ok((World { node, cluster_id: store.cluster_id().to_owned(), labels: node::labels(own), cluster }, found))
}

/// Keeps what follows from the state of objects: events, names, and the engine's trust in the cluster's registries.
async fn derive(app: Arc<App>) {
    app.trust().await;
    app.engine.read(|view| app.names.publish(view));
    loop {
        let changes = tokio::select! {
            changes = app.telling.changes() => changes,
            () = app.shutdown.requested() => return,
        };
        if changes.altered.contains(&ObjectPath::cluster()) {
            app.follow_config().await;
        }
        changes.altered.iter().filter(|path| path.kind.is_key_store()).for_each(|path| app.refresh.keys(path));
        app.engine.read(|view| app.names.publish(view));
        for path in &changes.touched {
            app.engine.touch(Some(path));
        }
        for path in &changes.gone {
            app.hub.tell(Event::Gone { path: path.fqn() });
        }
        for path in &changes.objects {
            let Ok(config) = app.config_of(path).await else { continue };
            let object = Box::new(app.status_of(path, &config));
            app.hub.tell(Event::Instance { path: path.fqn(), node: app.current.get().node.to_string(), object });
        }
        for node in &changes.nodes {
            if let Some(status) = app.nodes().remove(node.as_str()) {
                app.hub.tell(Event::Node { node: node.to_string(), status: Box::new(status) });
            }
        }
        if !changes.objects.is_empty() || !changes.gone.is_empty() {
            app.trust().await;
        }
    }
}

impl App {
    /// Reads the configurations of the cluster and of this node again, and has everything follow what they say now.
    pub async fn follow_config(&self) {
        // What was read first must not be set last.
        let _one = self.following.lock().await;
        let old = self.current.get();
        let read = async { world(old.node.clone(), &self.store, &own_config(&self.places)?).await };
        let new = match read.await {
            // What cannot be used as it is was not accepted here: the old one counts on.
            Ok((_, found)) if found.iter().any(|one| one.severity == Severity::Error) => return,
            Ok((new, _)) => new,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the cluster's configuration is not followed");
                return;
            }
        };
        if *old == new {
            return;
        }
        self.current.set(new);
        let new = self.current.get();
        self.names.change(&new.cluster);
        if self.engine.reread(new.cluster.nodes.clone()).await.is_err() {
            return;
        }
        self.refresh.everything();
        if old.cluster.name != new.cluster.name {
            // That zone is no more.
            self.write_trust(old.cluster.name.clone(), BTreeSet::new()).await;
        }
        self.trust().await;
        self.journal.say(Level::Info, None, None, "another configuration of the cluster counts");
    }

    /// Waits until the container engine knows the cluster's names as well. It reads `resolv.conf` again at a look-up that
    /// comes more than 5 s after another one, and may not have made one yet.
    pub async fn engine_follows(&self) {
        let name = format!("ns1.{}", self.current.get().cluster.name);
        let follows = async {
            // One that cannot be asked will find what it needs when it is started.
            while let Ok(false) = self.supplies.images.resolves(&name).await {
                sleep(ENGINE_PAUSE).await;
            }
        };
        if timeout(ENGINE_LIMIT, follows).await.is_err() {
            let text = format!("the container engine does not find {name}: it may need a restart");
            self.journal.say(Level::Warn, None, None, text);
        }
    }

    /// This daemon.
    pub fn daemon(&self) -> api::Daemon {
        let world = self.current.get();
        api::Daemon {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started,
            node: world.node.to_string(),
            cluster: world.cluster.name.clone(),
            cluster_id: world.cluster_id.clone(),
            parts: self.facts.clone(),
        }
    }

    /// All nodes as they are seen from here.
    pub fn nodes(&self) -> BTreeMap<String, api::NodeStatus> {
        let others = self.engine.read(|view| {
            let others = view.members.iter().filter(|node| **node != view.me);
            let status = |node: &NodeName| {
                let session = view.nodes.get(node).map(|seen| &seen.session.value);
                let status = api::NodeStatus {
                    alive: view.lives(node),
                    state: if view.lives(node) { "idle" } else { "unreachable" }.into(),
                    frozen: session.and_then(|session| session.frozen).map(|since| since as f64),
                    ..api::NodeStatus::default()
                };
                (node.to_string(), status)
            };
            others.map(status).collect::<BTreeMap<_, _>>()
        });
        let mut nodes = others;
        nodes.insert(self.current.get().node.to_string(), self.node_status());
        nodes
    }

    /// Ends the daemon; with `shutdown` all services are stopped before.
    ///
    /// # Errors
    /// Another verb.
    pub fn daemon_act(self: &Arc<Self>, verb: &str) -> Result<(), Refusal> {
        match verb {
            "stop" => self.shutdown.request(),
            "shutdown" => {
                let app = Arc::clone(self);
                tokio::spawn(async move {
                    if timeout(SHUTDOWN, app.stop_all()).await.is_err() {
                        app.journal.say(Level::Warn, None, None, "some services did not stop in time");
                    }
                    app.shutdown.request();
                });
            }
            other => return Err(Refusal::bad(format!("a daemon takes no {other}")).hint("stop or shutdown")),
        }
        Ok(())
    }

    /// Stops what runs on this node.
    async fn stop_all(&self) {
        let act = api::Act { selector: "*/svc/*".into(), verb: "shutdown".into(), local: true, ..api::Act::default() };
        if let Err(refusal) = self.act(&act).await {
            tracing::warn!("services are not stopped: {refusal}");
            return;
        }
        loop {
            let mut news = self.hub.listen();
            let busy = self.engine.read(|view| {
                let mut reports = view.objects.values().filter_map(|object| object.report(&view.me));
                reports.any(|report| matches!(report.monitor, Monitor::Busy(_)))
            });
            if !busy || news.recv().await.is_err() {
                return;
            }
        }
    }

    /// Makes the engine trust the authority for the registries that have a certificate of it. Certificates of services
    /// that are no more are removed.
    async fn trust(&self) {
        let Ok(configs) = self.store.configs().await else { return };
        let world = self.current.get();
        let mut registries = BTreeSet::new();
        let services: BTreeSet<&ObjectPath> = configs.iter().map(|(path, _)| path).collect();
        for (path, config) in configs.iter().filter(|(path, _)| path.kind == Kind::Sec) {
            let Some(service) = Certificates::owner(&config.text) else { continue };
            if !services.contains(&service) {
                if let Err(error) = self.store.delete(path, Some(config.generation)).await {
                    tracing::warn!(%error, object.path = %path, "the certificate of a service that is gone stays");
                }
                continue;
            }
            let ports = self.engine.read(|view| {
                let config = view.objects.get(&service).and_then(|object| object.config.clone())?;
                Some(ports(&config))
            });
            let host = format!("{}.{}.svc.{}", service.name, service.namespace, world.cluster.name);
            registries.extend(ports.unwrap_or_default().into_iter().map(|port| format!("{host}:{port}")));
        }
        self.write_trust(world.cluster.name.clone(), registries).await;
    }

    /// Makes the engine trust the authority for exactly these registries of a zone.
    async fn write_trust(&self, zone: String, registries: BTreeSet<String>) {
        let (etc, authority) = (self.places.docker_etc.clone(), self.certificates.authority());
        let done = tokio::task::spawn_blocking(move || trust::trust(&etc, &zone, &registries, &authority)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the engine does not trust the cluster's registries"
            );
        }
    }
}

/// Ports that a service's registry may be reached at: those it exposes, or the usual one.
fn ports(config: &om_core::instance::InstanceConfig) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    for resource in config.resources.values() {
        if let om_core::instance::ResourceKind::Cni(ip) = &resource.kind {
            ports.extend(ip.expose.iter().filter(|expose| expose.protocol == "tcp").map(|expose| expose.port));
        }
    }
    if ports.is_empty() { vec![5000] } else { ports }
}

/// The file that tells whether a daemon runs, for commands that cannot ask it.
///
/// # Errors
/// The file is there and cannot be read.
pub fn running(lock: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    Ok(fs::read_to_string(lock)?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
