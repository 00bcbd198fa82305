//! Owns what is watched besides requests, and what is wrong now.

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use registry_core::store::Blobs;
use service::shutdown::Shutdown;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{config, failure::Chain, outbound::Outbound};

/// How long the storage may take to say that it is well.
const STORAGE_WITHIN: Duration = Duration::from_secs(10);

/// The failing checks.
#[derive(Default)]
pub(crate) struct Health {
    failing: Mutex<BTreeMap<String, String>>,
    unwell: AtomicBool,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no check fails.
    pub(crate) fn is_well(&self) -> bool {
        !self.unwell.load(Ordering::Relaxed)
    }

    /// The failing checks and what they say.
    pub(crate) fn failing(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    /// Records a check's state: well, or what is wrong.
    pub(crate) fn set(&self, check: &str, state: Result<(), String>) {
        let mut failing = self.lock();
        match state {
            Ok(()) => {
                if failing.remove(check).is_some() {
                    tracing::info!(check, "a health check is well again");
                }
            }
            Err(why) => {
                if !failing.contains_key(check) {
                    tracing::error!(check, why, "a health check fails");
                }
                failing.insert(check.to_owned(), why);
            }
        }
        self.unwell.store(!failing.is_empty(), Ordering::Relaxed);
    }
}

/// Starts the configured checks; they end at shutdown.
pub(crate) fn watch(
    tasks: &mut JoinSet<()>,
    health: &Arc<Health>,
    config: &config::settings::Health,
    blobs: &Arc<dyn Blobs>,
    outbound: &Outbound,
    shutdown: &Shutdown,
) {
    let mut every = Repeat { tasks, health, shutdown };
    if let Some(pace) = config.storage {
        let blobs = Arc::clone(blobs);
        every.check("storagedriver", pace.interval, pace.threshold, move || {
            let blobs = Arc::clone(&blobs);
            async move {
                match timeout(STORAGE_WITHIN, blobs.check()).await {
                    Ok(state) => state.map_err(|error| Chain(&error).to_string()),
                    Err(_) => Err("no answer in time".into()),
                }
            }
        });
    }
    for check in &config.files {
        let file = check.file.clone();
        every.check(&check.file, check.interval, 1, move || {
            let there = Path::new(&file).try_exists();
            async move {
                match there {
                    Ok(false) => Ok(()),
                    Ok(true) => Err("file exists".to_owned()),
                    Err(error) => Err(format!("look for the file: {error}")),
                }
            }
        });
    }
    for check in config.http.clone() {
        let outbound = outbound.clone();
        let name = crate::outbound::without_password(&check.uri);
        every.check(&name, check.pace.interval, check.pace.threshold, move || {
            let (outbound, check) = (outbound.clone(), check.clone());
            async move {
                let asked = outbound.send(Method::HEAD, &check.uri, &check.headers, Bytes::new(), check.timeout);
                match asked.await {
                    Ok(status) if status.as_u16() == check.status => Ok(()),
                    Ok(status) => Err(format!("answered {status}, expected {}", check.status)),
                    Err(error) => Err(Chain(&error).to_string()),
                }
            }
        });
    }
    for check in config.tcp.clone() {
        let address = check.address.to_string();
        every.check(&address, check.pace.interval, check.pace.threshold, move || {
            let check = check.clone();
            async move {
                let host = if check.address.host.is_empty() { "localhost" } else { &check.address.host };
                match timeout(check.timeout, TcpStream::connect((host, check.address.port))).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(format!("connect: {error}")),
                    Err(_) => Err("connect: no answer in time".into()),
                }
            }
        });
    }
}

struct Repeat<'a> {
    tasks: &'a mut JoinSet<()>,
    health: &'a Arc<Health>,
    shutdown: &'a Shutdown,
}

impl Repeat<'_> {
    /// Runs a check every `interval`; `threshold` failures in a row count.
    fn check<F, Fut>(&mut self, name: &str, interval: Duration, threshold: u32, check: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send,
    {
        let (name, health, shutdown) = (name.to_owned(), Arc::clone(self.health), self.shutdown.clone());
        self.tasks.spawn(async move {
            let mut failures = 0;
            loop {
                let state = tokio::select! {
                    state = check() => state,
                    () = shutdown.requested() => return,
                };
                match state {
                    Ok(()) => {
                        failures = 0;
                        health.set(&name, Ok(()));
                    }
                    Err(why) => {
                        failures += 1;
                        if failures >= threshold {
                            health.set(&name, Err(why));
                        }
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = shutdown.requested() => return,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn one_failing_check_is_unwell() {
        let health = Health::default();
        health.set("a", Err("x".into()));
        health.set("b", Err("y".into()));
        health.set("a", Ok(()));
        assert!(!health.is_well());
        assert_eq!(health.failing().into_keys().collect::<Vec<_>>(), ["b"]);
        health.set("b", Ok(()));
        assert!(health.is_well());
    }
}
