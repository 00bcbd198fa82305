//! The `serve` command: builds the server from its configuration, runs it, drains it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use http::{HeaderName, HeaderValue};
use registry_auth::{
    Htpasswd, Roadstead, Scheme, Silly, Token, htpasswd::HtpasswdConfig, roadstead::RoadsteadConfig, token::TokenConfig,
};
use registry_core::{
    directory::Directories,
    gc::Collection,
    manifest::{IndexPolicy, Platform},
    retention::Rules,
    store::{Blobs, Metadata},
};
use registry_store::{
    blob::{fs::FsBlobs, memory::MemoryBlobs},
    claims::Claims,
    data_dir::DataDir,
    disk::Poison,
    meta::{memory::MemoryMetadata, sqlite::SqliteMetadata},
    scrub::Scrubber,
};
use service::{
    audit::{AuditLog, AuditOptions},
    limits,
    listen::{self, Bound, Endpoint, ListenError},
    shutdown::{self, Shutdown},
    telemetry::{self, LogHandle, LogOptions},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use crate::{
    admin::{
        Admin,
        socket::{AdminSocket, Desk},
    },
    adopt,
    answers::Answers,
    api::route,
    app::{App, now, random},
    audit::Audit,
    cli::ConfigPath,
    collector::{Collector, Files},
    commits::Commits,
    config::{
        self, Config,
        settings::{Auth, Driver, Formatter, IndexPlatforms, Level, Listen, Log, Realm, RoadsteadAuth},
    },
    configured_with_warnings, deliver, encryption,
    encryption::Encryption,
    health, jobs,
    keeping::Keeping,
    leases::Leases,
    live::LiveDirectory,
    load,
    metrics::Metrics,
    notify::Notifier,
    operations::Operations,
    outbound::Outbound,
    permit::Turns,
    pulls::Pulls,
    reservations::Reservations,
    scrub::Scrub,
    server,
    sessions::Sessions,
    signing,
};

/// Pull events on their way to the outbox at a time.
const RECORDING: usize = 1024;

/// How long the last lines of the audit log may take.
const AUDIT_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Lists of unlimited length at a time; each may take some tens of megabytes.
const LISTING: usize = 2;

/// Where rows and bytes live, and what looks after them if they are files.
struct Stores {
    metadata: Arc<dyn Metadata>,
    blobs: Arc<dyn Blobs>,
    directories: Arc<dyn Directories>,
    files: Option<(Arc<SqliteMetadata>, FsBlobs)>,
}

/// What looks after accounts of our own.
struct Accounts {
    live: Arc<LiveDirectory>,
    log: Arc<AuditLog>,
    admin: Arc<Admin>,
}

impl Accounts {
    /// In the data directory at `root`, whose lock is held.
    fn open(live: Arc<LiveDirectory>, root: &Path) -> anyhow::Result<Self> {
        let dir = DataDir::peek(root);
        let log = AuditLog::open(AuditOptions::new(dir.audit())).context("open the audit log")?;
        let log = Arc::new(log);
        let admin = Admin::new(Arc::clone(&live), Arc::clone(&log));
        Ok(Self { live, log, admin })
    }
}

/// Serves until a signal ends it.
pub(crate) fn serve(path: ConfigPath) -> anyhow::Result<ExitCode> {
    let (config, warnings) = configured_with_warnings(&path)?;
    let log = telemetry::init(&log_options(&config.log)).context("start the log")?;
    for warning in warnings {
        tracing::warn!("{}", warning.to_string().replace('\n', " "));
    }
    if let Err(error) = limits::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Threads that wait for the disk; more at once would only make it seek.
        .max_blocking_threads(64)
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(run(config, path, log));
    // A look-up of a name may still wait on its thread; nothing hangs on it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

fn log_options(log: &Log) -> LogOptions {
    LogOptions {
        level: level(log.level),
        format: log.formatter.map(|formatter| match formatter {
            Formatter::Text => telemetry::Format::Text,
            Formatter::Json => telemetry::Format::Json,
            Formatter::Logstash => telemetry::Format::Logstash,
        }),
        fields: log.fields.clone(),
    }
}

fn level(level: Level) -> tracing::Level {
    match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    }
}

async fn run(mut config: Config, path: ConfigPath, log: LogHandle) -> anyhow::Result<ExitCode> {
    // Everything that can be wrong is looked at before the port is taken.
    if config.http.tls.is_none()
        && let Some(given) = encryption::given(Path::new(encryption::GIVEN))
    {
        tracing::info!("TLS with the certificate that was given in {}", encryption::GIVEN);
        config.http.tls = Some(given);
    }
    let tls = Encryption::open(&config)?;
    let headers = headers(&config)?;
    let stores = open(&config).await?;
    let (scheme, directory) = access(&config, &stores).await?;
    stores.metadata.govern(rules(&config)).await.context("count what the quotas hold")?;
    let accounts = match (directory, &config.storage.driver) {
        (Some(live), Driver::Filesystem { root }) => Some(Accounts::open(live, Path::new(root))?),
        _ => None,
    };
    let (claims, metrics) = (Claims::default(), Metrics::new());
    let collector = stores.files.as_ref().map(|(metadata, blobs)| {
        let files = Files { metadata: Arc::clone(metadata), blobs: blobs.clone(), claims: claims.clone() };
        Arc::new(Collector::new(files, config.gc, metrics.collection.clone()))
    });
    let (outbox, reservations) = (Arc::new(Notify::new()), Reservations::new(config.quotas.clone()));
    let instance = random::<4>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let keeping = Arc::new(Keeping {
        metadata: Arc::clone(&stores.metadata),
        state: stores.files.as_ref().map(|(metadata, _)| Arc::clone(metadata) as Arc<dyn Collection>),
        retention: config.retention.rules.clone(),
        immutable: config.immutable.clone(),
        reservations: reservations.clone(),
        notifier: Notifier::new(&config.notifications, host.trim(), &instance),
        outbox: Arc::clone(&outbox),
        started: now(),
    });
    keeping.begin().await.context("note since when pulls are known")?;
    let scrub = match &stores.files {
        Some((metadata, blobs)) => {
            let scrubber = Scrubber::open(Arc::clone(metadata), blobs.clone(), claims.clone())?;
            Some(Arc::new(Scrub::new(scrubber, config.scrub, metrics.scrub.clone())))
        }
        None => None,
    };
    let operations = Arc::new(Operations {
        collector: collector.clone(),
        keeping: Arc::clone(&keeping),
        scrub: scrub.clone(),
        live: accounts.as_ref().map(|accounts| Arc::clone(&accounts.live)),
        audit: accounts.as_ref().map(|accounts| Arc::clone(&accounts.log)),
    });
    let socket = match &config.storage.driver {
        Driver::Filesystem { root } => Some(AdminSocket::bind(&DataDir::peek(Path::new(root)).admin_socket())?),
        Driver::Memory => None,
    };
    let bound = hinted(listen::bind(&endpoint(&config.http.listen)))?;
    let debug = match &config.http.debug {
        Some(debug) => {
            let address = Endpoint::Tcp { host: debug.address.host.clone(), port: debug.address.port };
            let bound = hinted(listen::bind_own(&address)).context("the debug listener (http.debug.addr)")?;
            Some((bound, debug.metrics_path.clone()))
        }
        None => None,
    };
    let address = bound.address().to_owned();
    let source = format!("{}:{}", host.trim(), address.rsplit(':').next().unwrap_or("5000"));
    let app = Arc::new(App {
        notifier: Notifier::new(&config.notifications, &source, &instance),
        index_policy: index_policy(&config.validation.index_platforms),
        read_only: AtomicBool::new(config.storage.readonly),
        read_only_file: AtomicBool::new(config.storage.readonly),
        receiving: Semaphore::new(config.limits.uploads as usize),
        metadata: Arc::clone(&stores.metadata),
        blobs: Arc::clone(&stores.blobs),
        claims,
        scheme: scheme.map(Arc::new),
        admin: accounts.as_ref().map(|accounts| Arc::clone(&accounts.admin)),
        operations: Arc::clone(&operations),
        audit: Audit::new(accounts.as_ref().map(|accounts| Arc::clone(&accounts.log))),
        turns: Turns::new(),
        headers,
        sessions: Sessions::new(reservations),
        commits: Commits::new(),
        leases: Leases::new(config.gc.policy.lease),
        pulls: Pulls::new(config.gc.policy.lease),
        answers: Answers::new(),
        health: Arc::default(),
        metrics,
        outbox,
        listing: Semaphore::new(LISTING),
        recording: Arc::new(Semaphore::new(RECORDING)),
        instance,
        requests: AtomicU64::new(0),
        config,
    });
    announce(&app, &address);
    let stop = Shutdown::new();
    let mut tasks = JoinSet::new();
    if let Some(collector) = &collector {
        collector.begin().await.context("take up the collection")?;
    }
    start_tasks(&app, &stores, &mut tasks, &stop);
    if let Some(collector) = &collector {
        let app = Arc::clone(&app);
        tasks.spawn(Arc::clone(collector).run(move || app.is_read_only(), stop.clone()));
    }
    if !app.config.retention.rules.is_empty() {
        tasks.spawn(keeping.run(Arc::clone(&app), app.config.retention.interval, stop.clone()));
    }
    if let Some(scrub) = scrub {
        tasks.spawn(scrub.run(Arc::clone(&app), stop.clone()));
    }
    if let Some(socket) = socket {
        tasks.spawn(socket.serve(Desk { admin: app.admin.clone(), operations }, stop.clone()));
    }
    if let Some(Accounts { live, .. }) = accounts {
        tasks.spawn(signing::keep_keys(live, stop.clone()));
    }
    if let Some(tls) = &tls {
        tasks.spawn(Arc::clone(tls).keep_fresh(stop.clone()));
    }
    if let Some((bound, metrics_path)) = debug {
        tracing::info!("debug listener on {}", bound.address());
        tasks.spawn(server::serve_debug(Arc::clone(&app), bound, metrics_path, stop.clone()));
    }
    let reload = {
        let (app, tls) = (Arc::clone(&app), tls.clone());
        move || {
            reread(&app, &path, &log);
            if let Some(tls) = &tls {
                tls.look_now();
            }
        }
    };
    let signals = tokio::spawn(shutdown::signals(stop.clone(), reload));
    server::serve(Arc::clone(&app), bound, tls, stop.clone()).await;
    while tasks.join_next().await.is_some() {}
    signals.abort();
    // It holds a part of the server: only once that is gone does the store close in good order.
    drop(signals.await);
    app.commits.ended().await;
    jobs::write_pulls_now(&app).await;
    // What is in memory of unfinished uploads goes to files, from where clients can go on.
    jobs::park(&app, 0).await;
    if let Some(log) = app.audit.log()
        && tokio::time::timeout(AUDIT_ENDS_WITHIN, log.close()).await.is_err()
    {
        tracing::warn!("the last lines of the audit log are not written: the disk takes too long");
    }
    if let Some(collector) = collector {
        collector.end().await;
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn start_tasks(app: &Arc<App>, stores: &Stores, tasks: &mut JoinSet<()>, stop: &Shutdown) {
    if let Some((metadata, blobs)) = &stores.files {
        tasks.spawn(jobs::settle_objects(Arc::clone(metadata), blobs.clone(), app.claims.clone(), stop.clone()));
    }
    tasks.spawn(jobs::park_uploads(Arc::clone(app), stop.clone()));
    tasks.spawn(jobs::write_pulls(Arc::clone(app), stop.clone()));
    if let Some(purging) = app.config.storage.upload_purging {
        tasks.spawn(jobs::purge_uploads(Arc::clone(app), purging, stop.clone()));
    }
    let checks = &app.config.health;
    let endpoints = &app.config.notifications.endpoints;
    // The machine's certificates cost a moment to read: only where something is asked outside.
    if endpoints.is_empty()
        && checks.http.is_empty()
        && checks.tcp.is_empty()
        && checks.files.is_empty()
        && checks.storage.is_none()
    {
        return;
    }
    let outbound = Outbound::new(!endpoints.is_empty() || !checks.http.is_empty());
    health::watch(tasks, &app.health, checks, &stores.blobs, &outbound, stop);
    for endpoint in endpoints {
        tasks.spawn(jobs::trim_outbox(Arc::clone(app), endpoint.name.clone(), stop.clone()));
        tasks.spawn(deliver::run(Arc::clone(app), endpoint.clone(), outbound.clone(), stop.clone()));
    }
}

fn announce(app: &App, address: &str) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "listening on {address}");
    if app.scheme.is_none() {
        tracing::warn!(
            "no access control is configured: everyone who reaches {address} may pull, push{}; see `auth` in the configuration reference",
            if app.config.storage.delete { " and delete" } else { "" }
        );
    }
    if app.is_read_only() {
        tracing::warn!("read-only mode on (storage.maintenance.readonly)");
    }
}

/// What SIGHUP does: the log level and the read-only switch follow the file.
fn reread(app: &App, path: &ConfigPath, log: &LogHandle) {
    match load(path) {
        Ok(config::Loaded { config: Some(config), .. }) => {
            log.set_level(level(config.log.level));
            // A file that did not change must not undo what was switched by hand since.
            if app.read_only_file.swap(config.storage.readonly, Ordering::Relaxed) != config.storage.readonly {
                app.set_read_only(config.storage.readonly);
            }
            tracing::info!("configuration re-read: log.level and storage.maintenance.readonly are in effect");
        }
        Ok(loaded) => {
            for problem in loaded.diagnostics {
                tracing::error!("configuration not re-read: {}", problem.to_string().replace('\n', " "));
            }
        }
        Err(error) => tracing::error!("configuration not re-read: {error:#}"),
    }
}

async fn open(config: &Config) -> anyhow::Result<Stores> {
    let Driver::Filesystem { root } = &config.storage.driver else {
        let (metadata, blobs) = (Arc::new(MemoryMetadata::default()), Arc::new(MemoryBlobs::default()));
        return Ok(Stores { metadata: metadata.clone(), blobs, directories: metadata, files: None });
    };
    let dir = DataDir::open(&PathBuf::from(root))?;
    let poison = Poison::default();
    let metadata = Arc::new(SqliteMetadata::open_in(&dir, poison.clone())?);
    adopt::before_serving(&metadata, &dir, config.limits.manifest).await?;
    let blobs = FsBlobs::new(dir, poison);
    Ok(Stores {
        metadata: metadata.clone(),
        blobs: Arc::new(blobs.clone()),
        directories: metadata.clone(),
        files: Some((metadata, blobs)),
    })
}

/// What holds for every change.
fn rules(config: &Config) -> Rules {
    Rules { immutable: config.immutable.clone(), quotas: config.quotas.clone(), gc: config.gc.policy }
}

fn endpoint(listen: &Listen) -> Endpoint {
    match listen {
        Listen::Tcp(address) => Endpoint::Tcp { host: address.host.clone(), port: address.port },
        Listen::Unix(path) => Endpoint::Unix(path.into()),
    }
}

fn hinted(bound: Result<Bound, ListenError>) -> anyhow::Result<Bound> {
    bound.map_err(|error| {
        let hint = error.hint();
        let error = anyhow::Error::new(error);
        match hint {
            Some(hint) => anyhow::anyhow!("{error:#} ({hint})"),
            None => error,
        }
    })
}

pub(crate) fn index_policy(platforms: &IndexPlatforms) -> IndexPolicy {
    match platforms {
        IndexPlatforms::All => IndexPolicy::All,
        IndexPlatforms::None => IndexPolicy::None,
        IndexPlatforms::Listed(listed) => IndexPolicy::Platforms(
            listed
                .iter()
                .map(|platform| Platform { architecture: platform.architecture.clone(), os: platform.os.clone() })
                .collect(),
        ),
    }
}

fn headers(config: &Config) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    for (name, values) in &config.http.headers {
        for value in values {
            let name = HeaderName::try_from(name).with_context(|| format!("http.headers: {name}"))?;
            headers.push((name, HeaderValue::try_from(value).context("http.headers: a value")?));
        }
    }
    Ok(headers)
}

/// The scheme, and the accounts of our own where it is about them: also where nothing is said and
/// there are accounts, because whoever made some wanted them to count.
async fn access(config: &Config, stores: &Stores) -> anyhow::Result<(Option<Scheme>, Option<Arc<LiveDirectory>>)> {
    let (settings, must) = match &config.auth {
        Auth::Roadstead(settings) => (settings.clone(), true),
        Auth::Unset => (RoadsteadAuth::default(), false),
        other => return Ok((scheme(other)?, None)),
    };
    let Some(directory) = LiveDirectory::open(Arc::clone(&stores.directories)).await? else {
        if must {
            anyhow::bail!("auth.roadstead: the data directory has no accounts yet (make some with `registry init`)");
        }
        return Ok((None, None));
    };
    if !must {
        tracing::info!("the data directory has accounts: they are asked for, as with `auth: {{roadstead: {{}}}}`");
    }
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let path = format!("{}{}", config.http.prefix, route::TOKEN);
    let settings = RoadsteadConfig {
        realm: settings.realm.or_else(|| config.http.host.as_ref().map(|host| format!("{host}{path}"))),
        path,
        service: settings.service,
        token_lifetime: seconds(settings.token_lifetime),
        refresh_lifetime: seconds(settings.refresh_lifetime),
    };
    let scheme = Arc::new(Roadstead::new(settings, directory.current())?);
    let published = Arc::clone(&scheme);
    directory.subscribe(move |directory| {
        if let Err(error) = published.publish(Arc::clone(directory)) {
            tracing::error!(%error, "accounts or rules changed, and the change is not in effect");
        }
    });
    Ok((Some(Scheme::Roadstead(scheme)), Some(directory)))
}

fn scheme(auth: &Auth) -> anyhow::Result<Option<Scheme>> {
    Ok(Some(match auth {
        Auth::None | Auth::Unset | Auth::Roadstead(_) => return Ok(None),
        Auth::Silly { realm, service } => Scheme::Silly(Silly { realm: realm.clone(), service: service.clone() }),
        Auth::Htpasswd { realm, path } => {
            let config = HtpasswdConfig { realm: realm.clone(), path: path.into() };
            let (scheme, made) = Htpasswd::open(config)?;
            if let Some(made) = made {
                // As the original does: there is no other way to learn it, and it is said once.
                tracing::warn!(user = %made.user, password = %made.password, "{path} was missing: made with one user");
            }
            Scheme::Htpasswd(scheme)
        }
        Auth::Token(token) => {
            let (realm, path) = match &token.realm {
                Realm::Fixed(realm) => (realm.clone(), None),
                Realm::SameHost { path } => (String::new(), Some(path.clone())),
            };
            Scheme::Token(Token::open(TokenConfig {
                realm,
                service: token.service.clone(),
                issuer: token.issuer.clone(),
                rootcertbundle: token.root_cert_bundle.as_ref().map(PathBuf::from),
                jwks: token.jwks.as_ref().map(PathBuf::from),
                signingalgorithms: token.signing_algorithms.iter().map(|&name| name.to_owned()).collect(),
                autoredirect: path.is_some(),
                autoredirectpath: path.unwrap_or_default(),
            })?)
        }
    }))
}
