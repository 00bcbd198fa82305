//! Owns what is asked of the container engine: facts of containers and images, pulls, and the orders that change
//! containers. Each order is idempotent. Does not own which orders are due.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use http::Method;
use om_core::path::{ObjectPath, Rid};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::docker::{
    client::{Ask, Client, EngineError, Pieces, QUICK},
    image::ImageName,
    pull::{PullLine, Tally},
    specification::{LABEL_ID, LABEL_PATH, LABEL_RID},
};

/// The longest wait for the engine to make or remove a container, which may copy many files.
const SLOW: Duration = Duration::from_secs(60);
/// Added to the time that a container has to stop.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// A pull on which nothing is said for so long is dead.
const SILENCE: Duration = Duration::from_secs(90);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(250);
/// Between two looks at what is being removed.
const LOOK: Duration = Duration::from_millis(50);

/// A container engine. It need not run when this is made, and may come and go.
pub struct Engine {
    client: Client,
}

/// What is true of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// 64 hex.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// What it does.
    pub state: ContainerState,
    /// When it was started last, as the engine writes it: another text for each start.
    pub started: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// Who it runs as, `user[:group]`; empty: root.
    pub user: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It was made, and not started.
    Made,
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
        /// Whether its processes are held.
        is_paused: bool,
    },
    /// It ended.
    Ended {
        /// The exit code of its first process.
        code: i64,
        /// Whether memory ran out.
        is_out_of_memory: bool,
        /// Why it could not be started; empty: it could.
        error: String,
    },
    /// It is being removed, or cannot be.
    Going,
}

impl ContainerFacts {
    /// Its first process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            ContainerState::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }
}

/// A container that belongs to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// 64 hex.
    pub id: String,
    /// `<id of the object>.<rid>`.
    pub key: String,
    /// The object.
    pub path: ObjectPath,
    /// The resource.
    pub rid: Rid,
    /// Whether it runs.
    pub is_running: bool,
}

/// What is true of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// `sha256:<64 hex>`.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The words that a container of it runs with.
    pub entrypoint: Vec<String>,
    /// The words after those.
    pub command: Vec<String>,
    /// Who it runs as; empty: root.
    pub user: String,
}

/// How a pull ended badly.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The engine or the registry said no.
    #[error("{0}")]
    Refused(String),
    /// The engine is not there.
    #[error(transparent)]
    Engine(EngineError),
    /// It took too long.
    #[error("it took longer than {} s", .0.as_secs())]
    Timeout(Duration),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: InspectedState,
    config: InspectedConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    exit_code: i64,
    #[serde(default, rename = "OOMKilled")]
    oom_killed: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    started_at: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct InspectedConfig {
    labels: Option<BTreeMap<String, String>>,
    tty: bool,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedImage {
    id: String,
    #[serde(default)]
    config: Option<InspectedConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Waited {
    status_code: i64,
}

impl Engine {
    /// The engine that listens on this socket.
    pub fn new(socket: &Path) -> Self {
        Self { client: Client::new(socket) }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Facts of a container, by id or name; none: there is none.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, EngineError> {
        let ask = Ask::new(Method::GET, format!("/containers/{id}/json"));
        let found = match self.client.json::<Inspected>(ask, QUICK).await {
            Err(error) if error.is_missing() => return Ok(None),
            found => found?,
        };
        let InspectedState { status, pid, exit_code, oom_killed, error, started_at } = found.state;
        let state = match status.as_str() {
            "created" => ContainerState::Made,
            // One that is restarted by hand has a process for as long as it runs.
            "running" | "restarting" if pid > 0 => ContainerState::Running { pid, is_paused: false },
            "paused" => ContainerState::Running { pid, is_paused: true },
            "removing" | "dead" => ContainerState::Going,
            _ => ContainerState::Ended { code: exit_code, is_out_of_memory: oom_killed, error },
        };
        Ok(Some(ContainerFacts {
            id: found.id,
            name: found.name.trim_start_matches('/').to_owned(),
            state,
            started: started_at,
            labels: found.config.labels.unwrap_or_default(),
            has_terminal: found.config.tty,
            user: found.config.user,
        }))
    }

    /// The containers of a resource, whatever their names are: `key` is the label's value. Normally one at most.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn containers_of(&self, key: &str) -> Result<Vec<Owned>, EngineError> {
        self.list(&format!("{LABEL_ID}={key}")).await
    }

    /// All containers that belong to objects, running or not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn owned(&self) -> Result<Vec<Owned>, EngineError> {
        self.list(LABEL_ID).await
    }

    async fn list(&self, label: &str) -> Result<Vec<Owned>, EngineError> {
        let filters = json!({ "label": [label] }).to_string();
        let ask = Ask::new(Method::GET, "/containers/json").with("all", "1").with("filters", &filters);
        let listed: Vec<Listed> = self.client.json(ask, QUICK).await?;
        let owned = listed.into_iter().filter_map(|listed| {
            let labels = listed.labels.unwrap_or_default();
            Some(Owned {
                id: listed.id,
                key: labels.get(LABEL_ID)?.clone(),
                path: labels.get(LABEL_PATH)?.parse().ok()?,
                rid: labels.get(LABEL_RID)?.parse().ok()?,
                is_running: matches!(listed.state.as_str(), "running" | "paused" | "restarting"),
            })
        });
        Ok(owned.collect())
    }

    /// Facts of an image; none: the engine does not have it.
    ///
    /// # Errors
    /// The engine does not answer, or the name is none.
    pub async fn image(&self, name: &str) -> Result<Option<ImageFacts>, EngineError> {
        let ask = Ask::new(Method::GET, format!("/images/{name}/json"));
        let found = match self.client.json::<InspectedImage>(ask, QUICK).await {
            Err(error) if error.is_missing() => return Ok(None),
            found => found?,
        };
        let config = found.config.unwrap_or_default();
        Ok(Some(ImageFacts {
            id: found.id,
            labels: config.labels.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            user: config.user,
        }))
    }

    /// The ids of all images.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn images(&self) -> Result<BTreeSet<String>, EngineError> {
        let listed: Vec<Made> = self.client.json(Ask::new(Method::GET, "/images/json"), QUICK).await?;
        Ok(listed.into_iter().map(|image| image.id).collect())
    }

    /// Pulls an image. `auth` goes into the header of that name; `tell` hears how far it is.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(
        &self,
        image: &ImageName,
        auth: Option<String>,
        limit: Duration,
        tell: impl Fn(String),
    ) -> Result<(), PullError> {
        let ask = Ask::new(Method::POST, "/images/create")
            .with("fromImage", &image.repository)
            .with("tag", &image.version)
            .auth(auth);
        let work = async {
            let refused = |error: EngineError| match error {
                EngineError::Refused { message, .. } => PullError::Refused(message),
                error => PullError::Engine(error),
            };
            let mut lines = self.client.stream(ask, limit).await.map_err(refused)?;
            let (mut tally, mut told) = (Tally::default(), None::<Instant>);
            loop {
                let line = match timeout(SILENCE, lines.line::<PullLine>()).await {
                    Err(_) => return Err(PullError::Timeout(SILENCE)),
                    Ok(line) => line.map_err(refused)?,
                };
                let Some(line) = line else { return Ok(()) };
                if let Some(error) = line.error {
                    return Err(PullError::Refused(super::client::one_line(&error)));
                }
                if tally.count(&line) && told.is_none_or(|at| at.elapsed() >= PROGRESS) {
                    tell(tally.shown(image));
                    told = Some(Instant::now());
                }
            }
        };
        timeout(limit, work).await.unwrap_or(Err(PullError::Timeout(limit)))
    }

    /// Whether the engine finds the address of a name. It is asked for a login there, with words that are no secret.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn resolves(&self, name: &str) -> Result<bool, EngineError> {
        let body = json!({ "username": "om", "password": "none", "serveraddress": format!("https://{name}") });
        match self.client.done(Ask::new(Method::POST, "/auth").body(body), QUICK).await {
            // As Go says it: `dial tcp: lookup NAME on SERVER: no such host`.
            Err(EngineError::Refused { message, .. }) => Ok(!message.contains(": lookup ")),
            result => result.map(|()| true),
        }
    }

    /// Makes a container. Returns its id.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn create(&self, name: &str, body: Value) -> Result<String, EngineError> {
        let ask = Ask::new(Method::POST, "/containers/create").with("name", name).body(body);
        Ok(self.client.json::<Made>(ask, SLOW).await?.id)
    }

    /// Starts a container; nothing happens if it runs.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.client.done(Ask::new(Method::POST, format!("/containers/{id}/start")), SLOW).await
    }

    /// Stops a container: its signal, and a kill after `grace`. Nothing happens if it does not run, or is not there.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let ask = Ask::new(Method::POST, format!("/containers/{id}/stop")).with("t", &grace.as_secs().to_string());
        missing_is_done(self.client.done(ask, grace + STOP_MARGIN).await)
    }

    /// Removes a container with its volumes that have no name, running or not. Nothing happens if it is not there.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let ask = || Ask::new(Method::DELETE, format!("/containers/{id}")).with("force", "1").with("v", "1");
        let result = self.client.done(ask(), SLOW).await;
        if !result.as_ref().is_err_and(EngineError::is_conflict) {
            return missing_is_done(result);
        }
        // Somebody else removes it; it is gone when they are done.
        let gone = async {
            while let Some(facts) = self.container(id).await? {
                if facts.state != ContainerState::Going {
                    return missing_is_done(self.client.done(ask(), SLOW).await);
                }
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(SLOW, gone).await.unwrap_or(result)
    }

    /// Waits for the end of a container, at most `limit`; none: it runs still. Returns its exit code.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Option<i64>, EngineError> {
        let ask = Ask::new(Method::POST, format!("/containers/{id}/wait"));
        let work = async {
            let mut lines = self.client.stream(ask, limit + STOP_MARGIN).await?;
            lines.line::<Waited>().await
        };
        match timeout(limit, work).await {
            Err(_) => Ok(None),
            Ok(waited) => Ok(waited?.map(|waited| waited.status_code)),
        }
    }

    /// Whether a container has a file, whether or not it runs. Links are followed inside it.
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn has_file(&self, id: &str, path: &str) -> Result<bool, EngineError> {
        let ask = Ask::new(Method::HEAD, format!("/containers/{id}/archive")).with("path", path);
        match self.client.done(ask, QUICK).await {
            Err(error) if error.is_missing() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// What a container wrote: the last `tail` lines, and, with `follow`, what it writes until it ends. Read it with
    /// [`Pieces::output`].
    ///
    /// # Errors
    /// The engine refused or does not answer.
    pub async fn logs(&self, id: &str, tail: u32, follow: bool) -> Result<Pieces, EngineError> {
        let ask = Ask::new(Method::GET, format!("/containers/{id}/logs"))
            .with("stdout", "1")
            .with("stderr", "1")
            .with("tail", &tail.to_string())
            .with("follow", if follow { "1" } else { "0" });
        self.client.stream(ask, QUICK).await
    }

    /// The last words of a container, on one line; empty: it said nothing, or they cannot be had.
    pub async fn last_words(&self, facts: &ContainerFacts) -> String {
        let work = async {
            let mut logs = self.logs(&facts.id, 5, false).await?;
            let mut all = Vec::new();
            while let Some(piece) = logs.output(facts.has_terminal).await? {
                all.extend_from_slice(&piece);
                if all.len() > 64 << 10 {
                    break;
                }
            }
            Ok::<_, EngineError>(all)
        };
        match timeout(QUICK, work).await {
            Ok(Ok(all)) => super::client::one_line(&String::from_utf8_lossy(&all)),
            _ => String::new(),
        }
    }
}

fn missing_is_done(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}
