//! Owns how jobs are carried out on this node: the steps of a plan given to drivers one after another, with what each
//! needs, in its time, and taken back if one fails. Does not own whether a job is due.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use om_core::{
    aggregate,
    driver::{Cluster, Driver, DriverError, KeyName, Progress, Scene, Secret, Work},
    instance::{InstanceConfig, Resource, ResourceKind, VolumeClaim},
    path::{NodeName, ObjectPath, Rid},
    plan::{self, Seen, Step, Verb},
    status::{Provisioned, ResourceStatus, Severity, Status},
    view::{Failure, Job, Work as JobKind},
};
use tokio::{sync::watch, time::timeout};

use crate::daemon::orchestrate::{Level, Teller};

/// The longest wait for a driver to say how a resource is.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// The least time that is given to what destroys or makes, which may move much data.
const MAKE_LIMIT: Duration = Duration::from_secs(120);

/// Finds the driver of a resource.
pub trait Drivers: Send + Sync {
    /// The driver that makes this kind so.
    fn of(&self, kind: &ResourceKind) -> Arc<dyn Driver>;
}

/// What the rest of the daemon brings to a step.
pub trait Supply: Send + Sync {
    /// Facts of the cluster.
    fn cluster(&self) -> Cluster;
    /// The values that a resource's configuration refers to. Missing objects and keys are errors that name them.
    fn keys<'a>(&'a self, instance: &'a InstanceConfig, resource: &'a Resource) -> Work<'a, BTreeMap<KeyName, Secret>>;
    /// Files that a container gets beside those of its configuration, such as certificates.
    fn files<'a>(&'a self, instance: &'a InstanceConfig, resource: &'a Resource) -> Work<'a, Vec<(String, Secret)>>;
    /// The volume object of a claim, if it is there.
    fn volume<'a>(
        &'a self,
        instance: &'a InstanceConfig,
        claim: &'a VolumeClaim,
    ) -> Work<'a, Option<Arc<InstanceConfig>>>;
    /// The volume object of a claim, made if it is not there; the service is among its users afterwards.
    fn claim<'a>(&'a self, instance: &'a InstanceConfig, claim: &'a VolumeClaim) -> Work<'a, Arc<InstanceConfig>>;
    /// The service is no user of the volume any more. The volume and its data stay.
    fn unclaim<'a>(&'a self, instance: &'a InstanceConfig, claim: &'a VolumeClaim) -> Work<'a, ()>;
    /// Whether another service uses the volume on this node now.
    fn is_used<'a>(&'a self, volume: &'a InstanceConfig, but: &'a InstanceConfig) -> Work<'a, bool>;
}

/// A job that was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A step failed.
    #[error("cannot {} {} of {}: {source}", step.verb.as_str(), step.rid, path)]
    Step {
        /// Of which object.
        path: Box<ObjectPath>,
        /// Which step.
        step: Step,
        /// What the driver said.
        source: DriverError,
    },
    /// Nobody wants it any more.
    #[error("{0} was taken back before it was done")]
    Cancelled(&'static str),
}

impl JobError {
    /// As it is told to people.
    pub fn failure(&self) -> Failure {
        let hint = match self {
            Self::Step { source, .. } => source.hint().map(Into::into),
            Self::Cancelled(_) => None,
        };
        Failure { message: self.to_string(), hint }
    }
}

/// Carries out jobs. Clones share it.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {
    node: NodeName,
    drivers: Arc<dyn Drivers>,
    supply: Arc<dyn Supply>,
    teller: Arc<dyn Teller>,
    locks: Mutex<BTreeMap<ObjectPath, Weak<tokio::sync::Mutex<()>>>>,
}

/// What a job needs throughout.
struct Scope<'a> {
    config: &'a Arc<InstanceConfig>,
    job: &'a Job,
    cancel: &'a watch::Receiver<bool>,
}

impl Executor {
    /// An executor of this node.
    pub fn new(node: NodeName, drivers: Arc<dyn Drivers>, supply: Arc<dyn Supply>, teller: Arc<dyn Teller>) -> Self {
        Self(Arc::new(Inner { node, drivers, supply, teller, locks: Mutex::default() }))
    }

    /// How the resources of an instance are now. A driver that fails or hangs makes its resource `undef`.
    pub async fn look(&self, config: &Arc<InstanceConfig>) -> Seen {
        let scene = self.scene(config, None).await;
        let mut seen = Seen::new();
        for (rid, resource) in &config.resources {
            if resource.disable {
                seen.insert(rid.clone(), ResourceStatus::new(Status::NotApplicable, ""));
                continue;
            }
            let driver = self.0.drivers.of(&resource.kind);
            let status = match timeout(LOOK_LIMIT, driver.status(&scene, resource)).await {
                Ok(Ok(status)) => status,
                Ok(Err(error)) => unknown(error.to_string()),
                Err(_) => unknown(format!("no answer within {} s", LOOK_LIMIT.as_secs())),
            };
            seen.insert(rid.clone(), status);
        }
        seen
    }

    /// Does a job, unless `cancel` becomes true; what it did is taken back if a step fails.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub async fn run(
        &self,
        config: &Arc<InstanceConfig>,
        job: &Job,
        cancel: &watch::Receiver<bool>,
    ) -> Result<(), JobError> {
        let scope = Scope { config, job, cancel };
        let lock = self.lock(&config.path);
        let _held = lock.lock().await;
        let seen = self.look(config).await;
        let steps = plan::steps(config, job, &seen);
        let mut done: Vec<Step> = Vec::new();
        let mut result = Ok(());
        for step in steps {
            if *cancel.borrow() {
                result = Err(JobError::Cancelled(job.work.doing()));
                break;
            }
            self.tell(&scope, &step, "");
            match self.cancellable(&scope, &step).await {
                Ok(()) => done.push(step),
                Err(JobError::Step { source, .. }) if step.optional => {
                    self.say(&scope, Level::Warn, &step.rid, format!("cannot {step}, which is optional: {source}"));
                }
                Err(error) => {
                    self.say(&scope, Level::Error, &step.rid, error.to_string());
                    // What was begun may be half there; a stop takes away what there is of it. What was half made is
                    // left to the next try: destroying is only for what this job is known to have made.
                    if step.verb == Verb::Start {
                        done.push(step);
                    }
                    result = Err(error);
                    break;
                }
            }
        }
        if result.is_err() && config.rollback && !job.keep {
            self.undo(&scope, &done).await;
        }
        result
    }

    /// Brings files of what is up to date with the keys and certificates that they come from; nothing is restarted.
    /// Answers what could not be.
    pub async fn refresh(&self, config: &Arc<InstanceConfig>) -> Vec<(Rid, DriverError)> {
        let lock = self.lock(&config.path);
        let _held = lock.lock().await;
        let mut scene = self.scene(config, None).await;
        let mut failures = Vec::new();
        for (rid, resource) in config.resources.iter().filter(|(_, resource)| !resource.disable) {
            if !matches!(resource.kind, ResourceKind::Container(_) | ResourceKind::Volume(_)) {
                continue;
            }
            let driver = self.0.drivers.of(&resource.kind);
            let refreshed = async {
                // What is not up gets its files when it is started; what it needs may not be there until then.
                if driver.status(&scene, resource).await?.status != Status::Up {
                    return Ok(());
                }
                scene.keys = self.0.supply.keys(config, resource).await?;
                scene.files = self.0.supply.files(config, resource).await?;
                driver.refresh(&scene, resource).await
            };
            let limited = timeout(LOOK_LIMIT, refreshed).await;
            let what = || format!("refresh {rid} of {}", config.path);
            if let Err(error) =
                limited.unwrap_or_else(|_| Err(DriverError::Timeout { what: what(), limit: LOOK_LIMIT }))
            {
                failures.push((rid.clone(), error));
            }
        }
        failures
    }

    async fn undo(&self, scope: &Scope<'_>, done: &[Step]) {
        for step in plan::undo(scope.config, done) {
            self.say(scope, Level::Info, &step.rid, format!("taking back: {step}"));
            if let Err(error) = self.step(scope, &step).await {
                self.say(scope, Level::Warn, &step.rid, format!("taking back failed: {error}"));
            }
        }
    }

    /// A step that ends when the job is cancelled: a driver leaves what its opposite undoes.
    async fn cancellable(&self, scope: &Scope<'_>, step: &Step) -> Result<(), JobError> {
        let mut cancel = scope.cancel.clone();
        let cancelled = async {
            if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
                // Whoever could cancel is gone: nobody will.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            result = self.step(scope, step) => result.map_err(|source| {
                JobError::Step { path: Box::new(scope.config.path.clone()), step: step.clone(), source }
            }),
            () = cancelled => Err(JobError::Cancelled(scope.job.work.doing())),
        }
    }

    async fn step(&self, scope: &Scope<'_>, step: &Step) -> Result<(), DriverError> {
        let Some(resource) = scope.config.resources.get(&step.rid) else { return Ok(()) };
        let limit = limit(resource, step.verb);
        let work = async {
            if let ResourceKind::Volume(claim) = &resource.kind {
                self.before_volume(scope, step.verb, claim).await?;
            }
            let driver = self.0.drivers.of(&resource.kind);
            let progress = self.progress(scope, &step.rid);
            let mut scene = self.scene(scope.config, Some(progress)).await;
            if matches!(step.verb, Verb::Provision | Verb::Start) {
                scene.keys = self.0.supply.keys(scope.config, resource).await?;
                if matches!((step.verb, &resource.kind), (Verb::Start, ResourceKind::Container(_))) {
                    // Its image says whether it wants a certificate, and may have to be pulled first.
                    driver.provision(&scene, resource).await?;
                }
                scene.files = self.0.supply.files(scope.config, resource).await?;
            }
            match step.verb {
                Verb::Provision => driver.provision(&scene, resource).await?,
                Verb::Start => driver.start(&scene, resource).await?,
                Verb::Stop => driver.stop(&scene, resource).await?,
                Verb::Unprovision => driver.unprovision(&scene, resource).await?,
            }
            if let ResourceKind::Volume(claim) = &resource.kind {
                self.after_volume(scope, step.verb, claim).await?;
            }
            Ok(())
        };
        let what = || format!("{} {} of {}", step.verb.as_str(), step.rid, scope.config.path);
        timeout(limit, work).await.unwrap_or_else(|_| Err(DriverError::Timeout { what: what(), limit }))
    }

    /// A volume object is made and up on this node before a service uses it.
    async fn before_volume(&self, scope: &Scope<'_>, verb: Verb, claim: &VolumeClaim) -> Result<(), DriverError> {
        let (volume, work) = match verb {
            Verb::Provision => (self.0.supply.claim(scope.config, claim).await?, JobKind::Provision),
            Verb::Start => match self.0.supply.volume(scope.config, claim).await? {
                Some(volume) => (volume, JobKind::Start),
                None => {
                    let what = format!("the volume {} does not exist", claim.name);
                    let hint = format!("om {} provision", scope.config.path);
                    return Err(DriverError::Missing { what, hint: Some(hint) });
                }
            },
            Verb::Stop | Verb::Unprovision => return Ok(()),
        };
        self.volume_job(scope, &volume, work).await
    }

    /// A volume that nobody uses on this node any more is taken down, and given up when it was unprovisioned.
    async fn after_volume(&self, scope: &Scope<'_>, verb: Verb, claim: &VolumeClaim) -> Result<(), DriverError> {
        match verb {
            Verb::Provision | Verb::Start => Ok(()),
            Verb::Unprovision => self.0.supply.unclaim(scope.config, claim).await,
            Verb::Stop => match self.0.supply.volume(scope.config, claim).await? {
                Some(volume) if !self.0.supply.is_used(&volume, scope.config).await? => {
                    self.volume_job(scope, &volume, JobKind::Stop).await
                }
                _ => Ok(()),
            },
        }
    }

    async fn volume_job(
        &self,
        scope: &Scope<'_>,
        volume: &Arc<InstanceConfig>,
        work: JobKind,
    ) -> Result<(), DriverError> {
        let job = Job { work, request: scope.job.request.clone(), leader: scope.job.leader, ..Job::new(work) };
        let result = Box::pin(self.run(volume, &job, scope.cancel)).await;
        self.0.teller.touched(&volume.path);
        match result {
            Ok(()) => Ok(()),
            Err(JobError::Step { source, .. }) => Err(source),
            Err(error) => Err(DriverError::failed(error.to_string(), None)),
        }
    }

    /// What drivers are given. Keys and files are not part of it.
    async fn scene(&self, config: &Arc<InstanceConfig>, progress: Option<Progress>) -> Scene {
        let mut volumes = BTreeMap::new();
        for (rid, resource) in &config.resources {
            let ResourceKind::Volume(claim) = &resource.kind else { continue };
            let Ok(Some(volume)) = self.0.supply.volume(config, claim).await else { continue };
            let seen = Box::pin(self.look(&volume)).await;
            let summary = aggregate::instance(&volume, &seen);
            if let (Status::Up | Status::StandbyUp | Status::Warn, Some(head)) = (summary.avail, head(&volume)) {
                volumes.insert(rid.clone(), (head, claim.access.is_read_only()));
            }
        }
        Scene {
            instance: InstanceConfig::clone(config),
            cluster: self.0.supply.cluster(),
            node: self.0.node.clone(),
            volumes,
            keys: BTreeMap::new(),
            files: Vec::new(),
            progress: progress.unwrap_or_else(Progress::silent),
        }
    }

    fn progress(&self, scope: &Scope<'_>, rid: &Rid) -> Progress {
        let (teller, path, rid) = (Arc::clone(&self.0.teller), scope.config.path.clone(), rid.clone());
        let request = scope.job.request.clone();
        Progress::new(move |text| teller.progress(&path, Some(&rid), request.as_deref(), &text))
    }

    fn tell(&self, scope: &Scope<'_>, step: &Step, rest: &str) {
        let request = scope.job.request.as_deref();
        self.0.teller.progress(&scope.config.path, Some(&step.rid), request, &format!("{step}{rest}"));
        self.say(scope, Level::Info, &step.rid, step.to_string());
    }

    fn say(&self, scope: &Scope<'_>, level: Level, rid: &Rid, text: String) {
        self.0.teller.say(level, &scope.config.path, Some(rid), text);
    }

    /// One job of an object at a time; a volume may be asked for by a service and by an order at once.
    fn lock(&self, path: &ObjectPath) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(path).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(path.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// The directory of a volume object: its filesystem's.
pub fn head(volume: &InstanceConfig) -> Option<PathBuf> {
    volume.resources.values().find_map(|resource| match &resource.kind {
        ResourceKind::Directory(directory) => Some(PathBuf::from(&directory.path)),
        ResourceKind::Loop(disk) => Some(PathBuf::from(&disk.mount_point)),
        _ => None,
    })
}

fn limit(resource: &Resource, verb: Verb) -> Duration {
    let pull = match &resource.kind {
        ResourceKind::Container(container) => container.pull_timeout,
        _ => Duration::ZERO,
    };
    match verb {
        Verb::Provision => resource.start_timeout.max(MAKE_LIMIT) + pull,
        Verb::Start => resource.start_timeout + pull,
        Verb::Stop => resource.stop_timeout,
        Verb::Unprovision => resource.stop_timeout.max(MAKE_LIMIT),
    }
}

fn unknown(why: String) -> ResourceStatus {
    let mut status = ResourceStatus::new(Status::Undef, "").with(Severity::Warn, why);
    status.provisioned = Provisioned::NotApplicable;
    status
}
