//! Owns the running server's parts: what every request handler can reach.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue};
use registry_auth::{Roadstead, Scheme};
use registry_core::{
    manifest::IndexPolicy,
    store::{Blobs, Metadata, OutboxEvent},
};
use registry_store::claims::Claims;
use tokio::sync::{Notify, Semaphore};

use crate::{
    admin::Admin, answers::Answers, audit::Audit, commits::Commits, config::Config, health::Health, leases::Leases,
    metrics::Metrics, notify::Notifier, operations::Operations, permit::Turns, pulls::Pulls, sessions::Sessions,
};

/// The parts of a running server.
pub(crate) struct App {
    /// Where rows live.
    pub(crate) metadata: Arc<dyn Metadata>,
    /// Where bytes live.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// Who may touch the files of a digest.
    pub(crate) claims: Claims,
    /// How callers prove who they are; `None` for an open registry.
    pub(crate) scheme: Option<Arc<Scheme>>,
    /// Who did what.
    pub(crate) audit: Audit,
    /// Carries out orders to access control, where this registry has its own.
    pub(crate) admin: Option<Arc<Admin>>,
    /// Carries out orders about what is stored.
    pub(crate) operations: Arc<Operations>,
    /// Who may check a password now.
    pub(crate) turns: Turns,
    /// The configuration that it was started with.
    pub(crate) config: Config,
    /// `http.headers`, parsed.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Which entries of an index have to exist.
    pub(crate) index_policy: IndexPolicy,
    /// Whether writes are refused for now.
    pub(crate) read_only: AtomicBool,
    /// What the configuration file said of it when it was read last.
    pub(crate) read_only_file: AtomicBool,
    /// Uploads in progress.
    pub(crate) sessions: Sessions,
    /// Requests that may receive a body at a time.
    pub(crate) receiving: Semaphore,
    /// The ends of pushes.
    pub(crate) commits: Commits,
    /// For how long "it is here" holds.
    pub(crate) leases: Leases,
    /// Pulls that are not written yet.
    pub(crate) pulls: Pulls,
    /// Answers kept in memory.
    pub(crate) answers: Answers,
    /// What is wrong, if anything.
    pub(crate) health: Arc<Health>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Makes events for the endpoints, if there are any.
    pub(crate) notifier: Notifier,
    /// Rings when the outbox has something new.
    pub(crate) outbox: Arc<Notify>,
    /// Lists of unlimited length that may be made at a time.
    pub(crate) listing: Semaphore,
    /// Pull events that may be on their way to the outbox at a time.
    pub(crate) recording: Arc<Semaphore>,
    /// Tells this process's request ids from another's.
    pub(crate) instance: String,
    /// Requests so far.
    pub(crate) requests: AtomicU64,
}

impl App {
    /// The scheme of our own, where that is the one in effect.
    pub(crate) fn roadstead(&self) -> Option<&Arc<Roadstead>> {
        match self.scheme.as_deref() {
            Some(Scheme::Roadstead(scheme)) => Some(scheme),
            _ => None,
        }
    }

    /// Wakes the deliverers, if there was anything for them.
    pub(crate) fn ring(&self, events: bool) {
        if events {
            self.outbox.notify_waiters();
        }
    }

    /// Records events that no change goes with. They are on their way when this returns; under a
    /// flood of pulls they wait for room, and those that find none are dropped and counted.
    pub(crate) fn record(self: &Arc<Self>, events: Vec<OutboxEvent>) {
        if events.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.recording).try_acquire_owned() else {
            self.metrics.events_dropped.inc_by(events.len() as u64);
            return;
        };
        let app = Arc::clone(self);
        tokio::spawn(async move {
            let _permit = permit;
            match app.metadata.apply(registry_core::store::Change::Nothing, events).await {
                Ok(()) => app.ring(true),
                Err(error) => tracing::warn!(%error, "a pull event was not recorded"),
            }
        });
    }

    /// Whether writes are refused for now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Refuses writes from now on, or takes them again.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        if self.read_only.swap(read_only, Ordering::Relaxed) != read_only {
            tracing::warn!(read_only, "read-only mode {}", if read_only { "on" } else { "off" });
        }
    }

    /// A name for a new request.
    pub(crate) fn request_id(&self) -> String {
        format!("{}-{:x}", self.instance, self.requests.fetch_add(1, Ordering::Relaxed))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}
