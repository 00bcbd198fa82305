//! Owns making containers so: what is due for one container to be as its configuration says. Does not own the engine's
//! language, nor the order among resources.

pub mod arguments;
pub mod client;
pub mod credentials;
pub mod engine;
pub mod events;
pub mod grants;
pub mod image;
pub mod memory;
pub mod pull;
pub mod specification;

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use om_core::{
    config::resolve::is_match,
    driver::{Driver, DriverError, KeyName, Scene, Secret, Work},
    instance::{Container, KeyFile, KeyVariable, MountSource, PullPolicy, Resource, ResourceKind},
    path::{Kind, Name, ObjectPath, Rid},
    status::{Provisioned, ResourceStatus, Severity, Status},
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, open, openat, statat};
use serde_json::{Value, json};

use crate::{
    docker::{
        client::EngineError,
        credentials::{Credentials, CredentialsError, Login},
        engine::{ContainerFacts, ContainerState, Engine, ImageFacts, PullError},
        grants::Grants,
        image::ImageName,
        memory::{Memory, Placed, Reader},
        pull::Used,
        specification::{LABEL_CONFIG, LABEL_ID, LABEL_JOINED, LABEL_MADE, Means},
    },
    netns::{Sandbox, Sandboxes},
};

/// The label of images that serve TLS with the certificate that they are given.
pub const LABEL_TLS: &str = "io.roadstead.tls";
/// The key of a `sec` object that has credentials for pulls.
const CREDENTIALS_KEY: &str = "config.json";
/// A container that ends so soon after its start was not started well.
const EARLY: Duration = Duration::from_millis(150);
/// What is left of the time for a stop when the container is killed.
const KILL_MARGIN: Duration = Duration::from_secs(2);
/// Where variables with secrets are in a container. They are not among the engine's variables, which the engine keeps on
/// its disk and shows to whoever inspects the container.
const VARIABLES: &str = "/run/om/environment";
/// The shell that reads them and becomes the container's program.
const SHELL: &str = "/bin/sh";

/// Where the driver finds and keeps things.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The engine's socket.
    pub socket: PathBuf,
    /// A directory for files of containers that never touch a disk; it becomes one in memory.
    pub memory: PathBuf,
    /// A file that records who may use which image.
    pub grants: PathBuf,
    /// The `config.json` of root's `docker login`.
    pub login: PathBuf,
}

/// Makes containers of a Docker engine so.
pub struct DockerDriver {
    engine: Arc<Engine>,
    memory: Memory,
    grants: Grants,
    login: PathBuf,
}

/// A resource that is a container, with its scene.
#[derive(Clone, Copy)]
struct Job<'a> {
    scene: &'a Scene,
    resource: &'a Resource,
    container: &'a Container,
}

/// What was found of a job's container.
enum Found {
    /// Nothing.
    Nothing,
    /// It, by its name.
    Own(ContainerFacts),
    /// Somebody else's container with its name.
    Foreign,
}

fn failed(what: impl Display, error: impl Display) -> DriverError {
    DriverError::failed(format!("{what}: {error}"), None)
}

/// An error of the engine while it did `what`.
fn of_engine(what: impl Display, error: &EngineError) -> DriverError {
    let what = format!("{what}: {error}");
    match error {
        EngineError::Unreachable { .. } => {
            DriverError::Missing { what, hint: Some("start it: systemctl start docker".into()) }
        }
        EngineError::Refused { message, .. } => {
            let lower = message.to_ascii_lowercase();
            let hint = if lower.contains("port is already allocated") || lower.contains("address already in use") {
                Some("another process has the port: `ss -ltnp` shows which".into())
            } else if lower.contains("no space left") {
                Some("free space on the engine's disk: docker system df".into())
            } else {
                None
            };
            DriverError::Failed { what, hint }
        }
        _ => DriverError::Failed { what, hint: None },
    }
}

impl DockerDriver {
    /// A driver; the engine need not run.
    pub fn new(paths: Paths) -> Self {
        Self {
            engine: Arc::new(Engine::new(&paths.socket)),
            memory: Memory::new(paths.memory),
            grants: Grants::new(paths.grants),
            login: paths.login,
        }
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Whether an image that the engine has says that it serves TLS with what it is given. False if it is not there.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn wants_tls(&self, image: &str) -> Result<bool, DriverError> {
        let found = self.engine.image(image).await.map_err(|e| of_engine(format!("look at image {image}"), &e))?;
        let label = found.and_then(|facts| facts.labels.get(LABEL_TLS).cloned());
        Ok(label.is_some_and(|label| matches!(label.as_str(), "1" | "true" | "yes")))
    }

    /// Whether the engine finds the address of a name.
    ///
    /// # Errors
    /// If the engine cannot be asked.
    pub async fn resolves(&self, name: &str) -> Result<bool, DriverError> {
        self.engine.resolves(name).await.map_err(|error| of_engine(format!("ask the engine for {name}"), &error))
    }

    /// Whether a container has a shell, which `om enter` needs.
    ///
    /// # Errors
    /// If the engine cannot be asked.
    pub async fn has_shell(&self, id: &str) -> Result<bool, DriverError> {
        self.engine.has_file(id, SHELL).await.map_err(|error| of_engine(format!("look into container {id}"), &error))
    }

    async fn find(&self, job: Job<'_>) -> Result<Found, EngineError> {
        Ok(match self.engine.container(&job.container.name).await? {
            None => Found::Nothing,
            Some(facts) if facts.labels.get(LABEL_ID) == Some(&job.key()) => Found::Own(facts),
            Some(_) => Found::Foreign,
        })
    }

    async fn seen(&self, job: Job<'_>) -> Result<ResourceStatus, EngineError> {
        let label = format!("docker container {}@{}", job.container.name, job.container.image);
        let found = self.find(job).await?;
        let status = |status| {
            let mut status = ResourceStatus::new(status, label.clone());
            status.provisioned = Provisioned::NotApplicable;
            status
        };
        if !job.container.detach {
            return Ok(status(Status::NotApplicable));
        }
        let facts = match found {
            Found::Own(facts) => facts,
            Found::Foreign => {
                let line = format!("container {} of the engine is not one of this object", job.container.name);
                return Ok(status(Status::Down).with(Severity::Warn, line));
            }
            Found::Nothing => {
                let strays = self.engine.containers_of(&job.key()).await?;
                return Ok(match strays.iter().find(|stray| stray.is_running) {
                    Some(stray) => {
                        let mut status = status(Status::Warn).with(Severity::Warn, "it runs under its former name");
                        status.info.insert("container_id".into(), stray.id.clone());
                        status
                    }
                    None => status(Status::Down).with(Severity::Info, "there is no container yet"),
                });
            }
        };
        let mut status = match &facts.state {
            ContainerState::Running { is_paused: false, .. } => status(Status::Up),
            ContainerState::Running { is_paused: true, .. } => {
                status(Status::Warn).with(Severity::Warn, format!("it is paused: docker unpause {}", facts.name))
            }
            ContainerState::Made => status(Status::Down).with(Severity::Info, "it was made, but not started"),
            ContainerState::Going => status(Status::Down).with(Severity::Info, "it is being removed"),
            ContainerState::Ended { code, is_out_of_memory, error } => {
                let text = match (is_out_of_memory, error.is_empty()) {
                    (true, _) => "it ended: memory ran out".to_owned(),
                    (false, false) => format!("it was not started: {}", client::one_line(error)),
                    (false, true) => format!("it ended with exit code {code}"),
                };
                status(Status::Down).with(Severity::Info, text)
            }
        };
        status.provisioned = Provisioned::Yes;
        status.info.insert("container_id".into(), facts.id.clone());
        let Some(pid) = facts.pid() else { return Ok(status) };
        status.info.insert("pid".into(), pid.to_string());
        if let Some(gone) = self.stale(job, &facts).await? {
            // Not down: its processes run, and have to be stopped.
            status.status = Status::Warn;
            status = status.with(Severity::Warn, format!("it lives in what is left of an earlier {gone}"));
        }
        let mark = specification::mark_of(job.scene, job.rid(), job.container);
        if facts.labels.get(LABEL_CONFIG).is_some_and(|label| *label != mark) {
            let line = format!(
                "its configuration was changed since: om {} restart --rid {} has it take effect",
                job.scene.instance.path,
                job.rid()
            );
            status = status.with(Severity::Warn, line);
        }
        Ok(status)
    }

    /// The resource whose namespaces a running container shares, if that was started anew since or does not run.
    async fn stale(&self, job: Job<'_>, facts: &ContainerFacts) -> Result<Option<Rid>, EngineError> {
        let label = facts.labels.get(LABEL_JOINED).map_or("", String::as_str);
        for rid in specification::shared(job.container) {
            let now = match job.other(rid) {
                Some(owner) => match self.find(owner).await? {
                    Found::Own(owner) => Some(owner).filter(|owner| owner.pid().is_some()),
                    Found::Nothing | Found::Foreign => None,
                },
                None => None,
            };
            let joined = now.map(|owner| joined_text(rid, &owner));
            if !joined.is_some_and(|joined| label.split(',').any(|part| part == joined)) {
                return Ok(Some(rid.clone()));
            }
        }
        Ok(None)
    }

    /// The containers whose namespaces are shared: their ids, and the label that says so.
    async fn owners(&self, job: Job<'_>) -> Result<(BTreeMap<Rid, String>, String), DriverError> {
        let (mut ids, mut label) = (BTreeMap::new(), Vec::new());
        for rid in specification::shared(job.container) {
            let found = match job.other(rid) {
                None => Found::Nothing,
                Some(owner) => self.find(owner).await.map_err(|error| of_engine(format!("look for {rid}"), &error))?,
            };
            match found {
                Found::Own(owner) if owner.pid().is_some() => {
                    label.push(joined_text(rid, &owner));
                    ids.insert(rid.clone(), owner.id);
                }
                _ => {
                    let what = format!("{rid}, whose namespace it shares, does not run");
                    let hint = format!("om {} start", job.scene.instance.path);
                    return Err(DriverError::Missing { what, hint: Some(hint) });
                }
            }
        }
        Ok((ids, label.join(",")))
    }

    /// The image, pulled if that is due.
    async fn image(&self, job: Job<'_>, policy: PullPolicy) -> Result<ImageFacts, DriverError> {
        let Container { image: text, pull_timeout, .. } = job.container;
        let name = ImageName::parse(text);
        let namespace = &job.scene.instance.path.namespace;
        let look = || format!("look for image {name}");
        let record = |error: io::Error| failed("keep in mind who may use which image", error);
        let found = self.engine.image(text).await.map_err(|error| of_engine(look(), &error))?;
        if let Some(facts) = found
            && policy == PullPolicy::Once
            && self.grants.is_open(&facts.id, text, namespace).map_err(record)?
        {
            return Ok(facts);
        }
        let (used, login) = self.credentials(job, &name).await?;
        let is_own = matches!(used, Used::Secret(_));
        if is_own {
            self.grants.begin(text, namespace).map_err(record)?;
        }
        let progress = &job.scene.progress;
        progress.tell(format!("pulling {name}"));
        let auth = login.as_ref().map(Login::header);
        self.engine.pull(&name, auth, *pull_timeout, |line| progress.tell(line)).await.map_err(
            |error| match error {
                PullError::Refused(said) => {
                    let (what, hint) = pull::meaning(&name, &used, &said);
                    DriverError::Failed { what, hint }
                }
                PullError::Engine(error) => of_engine(format!("pull image {name}"), &error),
                PullError::Timeout(limit) => DriverError::Timeout { what: format!("pull image {name}"), limit },
            },
        )?;
        let found = self.engine.image(text).await.map_err(|error| of_engine(look(), &error))?;
        let Some(facts) = found else {
            return Err(failed(format!("pull image {name}"), "the engine does not have it afterwards"));
        };
        if is_own {
            self.grants.granted(&facts.id, text, namespace).map_err(record)?;
            if self.grants.is_long().map_err(record)?
                && let Ok(ids) = self.engine.images().await
            {
                self.grants.keep(&ids).map_err(record)?;
            }
        } else {
            self.grants.opened(&facts.id, text).map_err(record)?;
        }
        Ok(facts)
    }

    /// What the image's registry is told: the service's credentials if it names any, and only those; else root's.
    async fn credentials(&self, job: Job<'_>, image: &ImageName) -> Result<(Used, Option<Login>), DriverError> {
        let registry = &image.registry;
        let Some(object) = &job.container.registry_creds else {
            let login = Credentials::of_node(&self.login, registry).await.map_err(|error| {
                let what = format!("use root's docker login, {}, for {registry}: {error}", self.login.display());
                DriverError::failed(what, format!("docker login {registry}"))
            })?;
            return Ok((if login.is_some() { Used::Node } else { Used::Nobody }, login));
        };
        let path = job.object(Kind::Sec, object);
        let key = KeyName { secret: true, object: object.clone(), key: CREDENTIALS_KEY.into() };
        let Some(Secret(bytes)) = job.scene.keys.get(&key) else {
            return Err(DriverError::Missing {
                what: format!(
                    "pull image {image}: registry_creds: {path} does not exist, or has no key {CREDENTIALS_KEY}"
                ),
                hint: Some(format!("om {path} create, then om {path} edit --key {CREDENTIALS_KEY}")),
            });
        };
        let wrong = |error: CredentialsError| {
            let what = format!("pull image {image}: registry_creds: key {CREDENTIALS_KEY} of {path}: {error}");
            DriverError::failed(what, format!("om {path} edit --key {CREDENTIALS_KEY}"))
        };
        let login = Credentials::parse(bytes).and_then(|credentials| credentials.of(registry)).map_err(wrong)?;
        let used = if login.is_some() { Used::Secret } else { Used::NoneInSecret };
        Ok((used(path.to_string()), login))
    }

    async fn started(&self, job: Job<'_>) -> Result<(), DriverError> {
        let Job { container, scene, .. } = job;
        let name = &container.name;
        let files = job.files()?;
        let place = |user: &str| self.place(job, &files, user);
        let found = self.find(job).await.map_err(|error| of_engine(format!("look for container {name}"), &error))?;
        let found = match found {
            Found::Nothing => None,
            Found::Own(facts) => Some(facts),
            Found::Foreign => {
                let what = format!("make container {name}: the engine has one of this name that is not of this object");
                return Err(DriverError::failed(what, format!("docker rm {name}, or set `name`")));
            }
        };
        if found.is_none() {
            self.remove_all(job).await?;
        }
        let (owners, joined) = self.owners(job).await?;
        if let Some(facts) = &found
            && facts.pid().is_some()
            && facts.labels.get(LABEL_JOINED).map_or("", String::as_str) == joined
        {
            // It is so already. What its files hold may be newer.
            return place(&facts.user);
        }
        let image = self.image(job, container.pull_policy).await?;
        let mounts = self.memory.mounts(name, files.keys().map(String::as_str));
        let means = job.means(owners, &mounts, &image)?;
        let what = || format!("make container {name}");
        let mut body =
            specification::body(scene, job.rid(), container, &means).map_err(|error| failed(what(), error))?;
        let made = specification::mark(&json!([body, joined, image.id]));
        let reusable = found.as_ref().is_some_and(|facts| {
            facts.labels.get(LABEL_MADE) == Some(&made)
                && matches!(facts.state, ContainerState::Made | ContainerState::Ended { .. })
        });
        place(&image.user)?;
        let id = match found {
            Some(facts) if reusable => facts.id,
            found => {
                if let Some(old) = found {
                    scene.progress.tell(format!("removing the former container {name}"));
                    self.engine.remove(&old.id).await.map_err(|error| of_engine(what(), &error))?;
                }
                let mark = specification::mark_of(scene, job.rid(), container);
                add_labels(&mut body, job, &[(LABEL_CONFIG, mark), (LABEL_MADE, made), (LABEL_JOINED, joined)]);
                let id = self.engine.create(name, body).await.map_err(|error| of_engine(what(), &error))?;
                self.check_shell(job, &id).await?;
                id
            }
        };
        self.engine.start(&id).await.map_err(|error| of_engine(format!("start container {name}"), &error))?;
        self.outlives_start(&id, name).await
    }

    /// Writes a container's files for its own user, or the image's.
    fn place(&self, job: Job<'_>, files: &BTreeMap<String, Secret>, user: &str) -> Result<(), DriverError> {
        let Job { container, .. } = job;
        let user = container.user.as_deref().unwrap_or(user);
        let written = self.memory.write(&container.name, files, Reader::of(user));
        written.map_err(|error| failed(format!("write files of container {}", container.name), error))
    }

    async fn refreshed(&self, job: Job<'_>) -> Result<(), DriverError> {
        let name = &job.container.name;
        let found = self.find(job).await.map_err(|error| of_engine(format!("look for container {name}"), &error))?;
        match found {
            Found::Own(facts) if facts.pid().is_some() => self.place(job, &job.files()?, &facts.user),
            _ => Ok(()),
        }
    }

    /// Variables with secrets need a shell in the image.
    async fn check_shell(&self, job: Job<'_>, id: &str) -> Result<(), DriverError> {
        if job.container.secrets_environment.is_empty() {
            return Ok(());
        }
        let what = || format!("make container {}", job.container.name);
        if self.engine.has_file(id, SHELL).await.map_err(|error| of_engine(what(), &error))? {
            return Ok(());
        }
        self.engine.remove(id).await.map_err(|error| of_engine(what(), &error))?;
        Err(DriverError::failed(
            format!("{}: secrets_environment needs {SHELL} in image {}", what(), job.container.image),
            "use `secrets`, which are files".to_owned(),
        ))
    }

    async fn outlives_start(&self, id: &str, name: &str) -> Result<(), DriverError> {
        let what = || format!("start container {name}");
        match self.engine.wait(id, EARLY).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let facts = self.engine.container(id).await.map_err(|error| of_engine(what(), &error))?;
                let Some(facts) = facts else { return Err(failed(what(), "it was removed at once")) };
                Err(self.ended(&what(), &facts).await)
            }
            Err(error) => Err(of_engine(what(), &error)),
        }
    }

    async fn ended(&self, what: &str, facts: &ContainerFacts) -> DriverError {
        let why = match &facts.state {
            ContainerState::Ended { is_out_of_memory: true, .. } => "memory ran out".to_owned(),
            ContainerState::Ended { code, .. } => format!("it ended with exit code {code}"),
            _ => "it ended".to_owned(),
        };
        let words = self.engine.last_words(facts).await;
        let words = if words.is_empty() { words } else { format!(": {words}") };
        DriverError::failed(format!("{what}: {why}{words}"), Some(format!("docker logs {}", facts.name)))
    }

    /// Runs a container to its end.
    async fn ran(&self, job: Job<'_>) -> Result<(), DriverError> {
        let Job { container, scene, resource } = job;
        let name = &container.name;
        let what = format!("run container {name}");
        let files = job.files()?;
        self.remove_all(job).await?;
        let (owners, _) = self.owners(job).await?;
        let image = self.image(job, container.pull_policy).await?;
        let mounts = self.memory.mounts(name, files.keys().map(String::as_str));
        let means = job.means(owners, &mounts, &image)?;
        let mut body =
            specification::body(scene, job.rid(), container, &means).map_err(|error| failed(&what, error))?;
        add_labels(&mut body, job, &[]);
        let reader = Reader::of(container.user.as_deref().unwrap_or(&image.user));
        self.memory.write(name, &files, reader).map_err(|error| failed(&what, error))?;
        let id = self.engine.create(name, body).await.map_err(|error| of_engine(&what, &error))?;
        self.check_shell(job, &id).await?;
        let result = async {
            self.engine.start(&id).await.map_err(|error| of_engine(&what, &error))?;
            let limit = resource.start_timeout;
            match self.engine.wait(&id, limit).await.map_err(|error| of_engine(&what, &error))? {
                Some(0) => Ok(()),
                None => Err(DriverError::Timeout { what: what.clone(), limit }),
                Some(code) => match self.engine.container(&id).await {
                    Ok(Some(facts)) => Err(self.ended(&what, &facts).await),
                    _ => Err(failed(&what, format!("it ended with exit code {code}"))),
                },
            }
        };
        let result = result.await;
        let removed = self.remove_all(job).await;
        result.and(removed)
    }

    async fn stopped(&self, job: Job<'_>) -> Result<(), DriverError> {
        let Job { container, resource, .. } = job;
        let name = &container.name;
        let what = || format!("stop container {name}");
        let grace = resource.stop_timeout.saturating_sub(KILL_MARGIN).max(Duration::from_secs(1));
        let all = self.engine.containers_of(&job.key()).await.map_err(|error| of_engine(what(), &error))?;
        for one in all {
            if one.is_running {
                self.engine.stop(&one.id, grace).await.map_err(|error| of_engine(what(), &error))?;
            }
            if container.rm || !container.detach {
                self.engine.remove(&one.id).await.map_err(|error| of_engine(what(), &error))?;
            }
        }
        self.memory.forget(name).map_err(|error| failed(what(), error))
    }

    /// Removes the resource's containers, whatever they are called, and their files.
    async fn remove_all(&self, job: Job<'_>) -> Result<(), DriverError> {
        let name = &job.container.name;
        let what = || format!("remove container {name}");
        let all = self.engine.containers_of(&job.key()).await.map_err(|error| of_engine(what(), &error))?;
        for one in all {
            self.engine.remove(&one.id).await.map_err(|error| of_engine(what(), &error))?;
        }
        self.memory.forget(name).map_err(|error| failed(what(), error))
    }
}

/// How a label names a container whose namespaces are shared: each start of it makes new ones.
fn joined_text(rid: &Rid, owner: &ContainerFacts) -> String {
    format!("{rid}={}@{}", owner.id, owner.started)
}

fn add_labels(body: &mut Value, job: Job<'_>, more: &[(&str, String)]) {
    let mut labels = body.get("Labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.extend(specification::labels(job.scene, job.rid()));
    labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), Value::String(value.clone()))));
    if let Some(body) = body.as_object_mut() {
        body.insert("Labels".into(), Value::Object(labels));
    }
}

impl<'a> Job<'a> {
    fn new(scene: &'a Scene, resource: &'a Resource) -> Result<Self, DriverError> {
        match &resource.kind {
            ResourceKind::Container(container) => Ok(Self { scene, resource, container }),
            _ => Err(failed(&resource.rid, "it is no container")),
        }
    }

    fn rid(&self) -> &'a Rid {
        &self.resource.rid
    }

    fn key(&self) -> String {
        specification::id_of(self.scene, self.rid())
    }

    /// The same for another container of the object.
    fn other(&self, rid: &Rid) -> Option<Self> {
        self.scene.instance.resources.get(rid).and_then(|resource| Self::new(self.scene, resource).ok())
    }

    fn object(&self, kind: Kind, name: &Name) -> ObjectPath {
        ObjectPath { namespace: self.scene.instance.path.namespace.clone(), kind, name: name.clone() }
    }

    /// What the configuration refers to, as it is now.
    fn means(
        &self,
        owners: BTreeMap<Rid, String>,
        mounts: &[Placed],
        image: &ImageFacts,
    ) -> Result<Means, DriverError> {
        let Self { container, scene, .. } = *self;
        let mut binds = self.binds()?;
        binds.extend(mounts.iter().map(|m| format!("{}:{}:ro", m.source.display(), m.destination)));
        let mut environment: Vec<String> = container.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        for variable in &container.configs_environment {
            environment.push(format!("{}={}", variable.variable, self.text(Kind::Cfg, variable)?));
        }
        let (mut entrypoint, mut command) = (None, None);
        if !container.secrets_environment.is_empty() {
            // As the engine joins them: an entrypoint of ours leaves the image's words out.
            let own = container.entrypoint.is_some();
            let mut words = container.entrypoint.clone().unwrap_or_else(|| image.entrypoint.clone());
            words.extend(match &container.command {
                Some(command) => command.clone(),
                None if own => Vec::new(),
                None => image.command.clone(),
            });
            if words.is_empty() {
                let what = format!("make container {}: image {} has no command", container.name, container.image);
                return Err(DriverError::failed(what, "set `command`".to_owned()));
            }
            let script = format!(". {VARIABLES} && exec \"$@\"");
            entrypoint = Some([SHELL, "-c", &script, "sh"].map(str::to_owned).to_vec());
            command = Some(words);
        }
        let dns = scene.cluster.dns.iter().map(ToString::to_string).collect();
        Ok(Means { owners, binds, environment, entrypoint, command, dns })
    }

    fn binds(&self) -> Result<Vec<String>, DriverError> {
        let Self { container, scene, .. } = *self;
        let mut binds = Vec::new();
        for mount in &container.mounts {
            let destination = &mount.destination;
            let what = || format!("mount {destination} of container {}", container.name);
            let (source, forced) = match &mount.source {
                MountSource::Host(path) => {
                    if std::fs::metadata(path).is_err() {
                        let missing = format!("{}: {path} does not exist on this node", what());
                        return Err(DriverError::Missing { what: missing, hint: Some(format!("mkdir -p {path}")) });
                    }
                    (PathBuf::from(path), false)
                }
                MountSource::Volume { rid, path } => {
                    let Some((head, read_only)) = scene.volumes.get(rid) else {
                        return Err(DriverError::Missing {
                            what: format!("{}: {rid} is not up", what()),
                            hint: Some(format!("om {} start --rid {rid}", scene.instance.path)),
                        });
                    };
                    let inside = make_inside(head, path, *read_only);
                    (inside.map_err(|error| failed(format!("{} from {rid}", what()), error))?, *read_only)
                }
            };
            let source = source.to_string_lossy().into_owned();
            if source.contains(':') {
                return Err(failed(what(), format!("the engine takes no colon in a path such as {source}")));
            }
            let mut options = vec![if mount.read_only || forced { "ro" } else { "rw" }];
            // Nothing is ever copied into what the host has.
            options.extend(mount.options.iter().map(String::as_str).filter(|option| *option != "nocopy"));
            binds.push(format!("{source}:{destination}:{}", options.join(",")));
        }
        Ok(binds)
    }

    /// The container's files that are kept in memory: path inside, bytes.
    fn files(&self) -> Result<BTreeMap<String, Secret>, DriverError> {
        let Self { container, scene, .. } = *self;
        let mut files: BTreeMap<String, Secret> = scene.files.iter().cloned().collect();
        for (kind, list) in [(Kind::Cfg, &container.configs), (Kind::Sec, &container.secrets)] {
            for file in list {
                self.add_files(kind, file, &mut files)?;
            }
        }
        if !container.secrets_environment.is_empty() {
            let mut script = Vec::new();
            for variable in &container.secrets_environment {
                let value = self.text(Kind::Sec, variable)?;
                script.extend(format!("export {}='{}'\n", variable.variable, value.replace('\'', r"'\''")).bytes());
            }
            files.insert(VARIABLES.into(), Secret(script));
        }
        Ok(files)
    }

    fn add_files(&self, kind: Kind, file: &KeyFile, files: &mut BTreeMap<String, Secret>) -> Result<(), DriverError> {
        let KeyFile { object, key: pattern, .. } = file;
        let matching = self.scene.keys.iter().filter(|(name, _)| {
            name.secret == (kind == Kind::Sec) && name.object == *object && is_match(pattern, &name.key)
        });
        let mut count = 0;
        for (name, value) in matching {
            let destination = file.destination(&name.key);
            if destination.split('/').any(|part| part == "..") || destination.contains([':', '\0']) {
                return Err(failed(format!("use key {} of {}", name.key, self.object(kind, object)), "it is no path"));
            }
            files.insert(destination, value.clone());
            count += 1;
        }
        if count == 0 && !pattern.contains('*') {
            return Err(self.missing(kind, object, pattern));
        }
        Ok(())
    }

    fn text(&self, kind: Kind, variable: &KeyVariable) -> Result<String, DriverError> {
        let KeyVariable { variable, object, key } = variable;
        let name = KeyName { secret: kind == Kind::Sec, object: object.clone(), key: key.clone() };
        let Some(Secret(bytes)) = self.scene.keys.get(&name) else { return Err(self.missing(kind, object, key)) };
        let text = String::from_utf8(bytes.clone()).ok().filter(|text| !text.contains('\0'));
        text.ok_or_else(|| {
            let what = format!("set {variable} from key {key} of {}: it is no text", self.object(kind, object));
            DriverError::failed(what, "mount it as a file".to_owned())
        })
    }

    fn missing(&self, kind: Kind, object: &Name, key: &str) -> DriverError {
        let path = self.object(kind, object);
        let what = format!("{path} has no key {key}");
        DriverError::Missing { what, hint: Some(format!("om {path} edit --key {key}")) }
    }
}

/// The path of something inside a volume, its directories made. A link inside the volume, which whoever writes there
/// could have made, is not followed: it might lead out of it.
fn make_inside(head: &Path, path: &str, read_only: bool) -> io::Result<PathBuf> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let mut dir: OwnedFd = open(head, flags, Mode::empty())?;
    let mut whole = head.to_owned();
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    while let Some(part) = parts.next() {
        whole.push(part);
        if !read_only {
            match mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let kind = FileType::from_raw_mode(statat(&dir, part, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        match kind {
            FileType::RegularFile if parts.peek().is_none() => return Ok(whole),
            FileType::Directory => {}
            _ => {
                let what = format!("{} is neither a directory nor a file", whole.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        dir = openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(whole)
}

impl Driver for DockerDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let job = Job::new(scene, resource)?;
            Ok(self.seen(job).await.unwrap_or_else(|error| {
                let label = format!("docker container {}@{}", job.container.name, job.container.image);
                let mut status = ResourceStatus::new(Status::Undef, label).with(Severity::Warn, error.to_string());
                status.provisioned = Provisioned::NotApplicable;
                status
            }))
        })
    }

    fn provision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.image(Job::new(scene, resource)?, PullPolicy::Once).await.map(|_| ()) })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let job = Job::new(scene, resource)?;
            if job.container.detach { self.started(job).await } else { self.ran(job).await }
        })
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.stopped(Job::new(scene, resource)?).await })
    }

    fn refresh<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.refreshed(Job::new(scene, resource)?).await })
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.remove_all(Job::new(scene, resource)?).await })
    }
}

impl Sandboxes for DockerDriver {
    fn sandbox<'a>(&'a self, scene: &'a Scene, rid: &'a Rid) -> Work<'a, Option<Sandbox>> {
        Box::pin(async move {
            let resource = scene.instance.resources.get(rid);
            let resource = resource.ok_or_else(|| failed(rid, "the object has no such resource"))?;
            let job = Job::new(scene, resource)?;
            let what = || format!("look for container {}", job.container.name);
            let found = self.find(job).await.map_err(|error| of_engine(what(), &error))?;
            let Found::Own(facts) = found else { return Ok(None) };
            let Some(pid) = facts.pid() else { return Ok(None) };
            Ok(Some(Sandbox { container: facts.id, netns: format!("/proc/{pid}/ns/net").into() }))
        })
    }
}
