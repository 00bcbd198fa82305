//! Owns talking to the daemon: one method for each thing that can be asked. Does not own what is shown of the answers.
//!
//! Each request has a connection of its own, which costs some tens of microseconds on a Unix socket and leaves nothing
//! to keep alive. Methods are not cancel-safe in one respect: a request that was sent is carried out.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use om_core::path::ObjectPath;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::api::{self, routes::query};

/// The longest wait for the beginning of an answer. Refreshing asks the engine, which may be slow.
const LIMIT: Duration = Duration::from_secs(60);
/// The largest answer, in bytes: a thousand services' status with room.
const MAX_ANSWER: usize = 64 << 20;
/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 4 << 20;
/// A stream on which nothing is said for so long has lost its daemon, which says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(40);

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("the daemon is not running: nobody listens on {}", socket.display())]
    NotRunning {
        /// Which.
        socket: PathBuf,
    },
    /// The socket is root's.
    #[error("only root may talk to the daemon on {}", socket.display())]
    Denied {
        /// Which.
        socket: PathBuf,
    },
    /// The daemon said no.
    #[error("{}", failure.message)]
    Refused {
        /// The status of the answer.
        status: u16,
        /// Why.
        failure: Box<api::Failure>,
    },
    /// The connection failed.
    #[error("{operation}: the connection to the daemon failed")]
    Broken {
        /// Such as `GET /v1/status`.
        operation: String,
        /// What was said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{operation}: the daemon did not answer for {} s", limit.as_secs())]
    Timeout {
        /// Such as `GET /v1/status`.
        operation: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotRunning { .. } => Some("start it: `om daemon start`, or `systemctl start om`"),
            Self::Denied { .. } => Some("run this as root, for example with sudo"),
            Self::Refused { failure, .. } => failure.hint.as_deref(),
            Self::Broken { .. } => Some("see what the daemon said: `om node logs`"),
            Self::Timeout { .. } => None,
        }
    }

    /// Whether the daemon said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { failure, .. } if failure.code == api::code::NOT_FOUND)
    }
}

/// The daemon of this node, as the command line sees it.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// The daemon that listens on this socket. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who answers.
    pub async fn daemon(&self) -> Answer<api::Daemon> {
        self.get("/daemon", &[]).await
    }

    /// `stop` or `shutdown`.
    pub async fn daemon_act(&self, verb: &str) -> Answer<api::Done> {
        self.send(Method::POST, "/daemon/actions", &[], &api::DaemonAct { verb: verb.into() }).await
    }

    /// What is known of the selected objects; with `refresh` the drivers are asked first.
    pub async fn status(&self, selector: &str, refresh: bool) -> Answer<api::Snapshot> {
        self.get("/status", &[("selector", Some(selector)), ("refresh", refresh.then_some("true"))]).await
    }

    /// Full paths of the selected objects.
    pub async fn objects(&self, selector: &str) -> Answer<Vec<String>> {
        let found: api::Objects = self.get("/objects", &[("selector", Some(selector))]).await?;
        Ok(found.paths)
    }

    /// Makes an object.
    pub async fn create(&self, create: &api::Create) -> Answer<api::Created> {
        self.send(Method::POST, "/objects", &[], create).await
    }

    /// An object's configuration.
    pub async fn config(&self, path: &ObjectPath) -> Answer<api::Config> {
        self.get(&of(path, "config"), &[]).await
    }

    /// Replaces an object's configuration.
    pub async fn config_replace(&self, path: &ObjectPath, replace: &api::Replace) -> Answer<api::Changed> {
        self.send(Method::PUT, &of(path, "config"), &[], replace).await
    }

    /// Sets and unsets keywords.
    pub async fn config_patch(&self, path: &ObjectPath, patch: &api::Patch) -> Answer<api::Changed> {
        self.send(Method::PATCH, &of(path, "config"), &[], patch).await
    }

    /// What an object's configuration means on a node, by default this one.
    pub async fn config_eval(&self, path: &ObjectPath, node: Option<&str>) -> Answer<api::Evaluated> {
        self.get(&of(path, "config/eval"), &[("node", node)]).await
    }

    /// What is wrong with the stored configuration.
    pub async fn config_check(&self, path: &ObjectPath) -> Answer<api::Checked> {
        self.get(&of(path, "config/check"), &[]).await
    }

    /// What is wrong with a text that would be the object's.
    pub async fn config_check_text(&self, path: &ObjectPath, text: &api::Replace) -> Answer<api::Checked> {
        self.send(Method::POST, &of(path, "config/check"), &[], text).await
    }

    /// Keys of a `sec`, `cfg` or `usr`; only those that fit the pattern, if there is one.
    pub async fn keys(&self, path: &ObjectPath, pattern: Option<&str>) -> Answer<Vec<api::KeyInfo>> {
        let keys: api::Keys = self.get(&of(path, "keys"), &[("match", pattern)]).await?;
        Ok(keys.keys)
    }

    /// The value of a key.
    pub async fn value(&self, path: &ObjectPath, key: &str) -> Answer<Vec<u8>> {
        let (operation, response) =
            self.request(Method::GET, &of(path, "keys/value"), &[("key", Some(key))], Bytes::new()).await?;
        Ok(body(&operation, response).await?.to_vec())
    }

    /// Writes the value of a key.
    pub async fn value_put(
        &self,
        path: &ObjectPath,
        key: &str,
        mode: api::WriteMode,
        value: Vec<u8>,
    ) -> Answer<api::KeyChanged> {
        let names = [("key", Some(key)), ("mode", Some(mode.as_str()))];
        let (operation, response) = self.request(Method::PUT, &of(path, "keys/value"), &names, value.into()).await?;
        read(&operation, response).await
    }

    /// Removes a key; one that is not there is no error.
    pub async fn value_delete(&self, path: &ObjectPath, key: &str) -> Answer<api::KeyChanged> {
        let (operation, response) =
            self.request(Method::DELETE, &of(path, "keys/value"), &[("key", Some(key))], Bytes::new()).await?;
        read(&operation, response).await
    }

    /// How to see what a resource prints: its last `backlog` bytes or so, and with `follow` what comes after them.
    pub async fn output(&self, path: &ObjectPath, rid: &str, backlog: u64, follow: bool) -> Answer<api::Enter> {
        let backlog = backlog.to_string();
        let names = [("rid", Some(rid)), ("backlog", Some(backlog.as_str())), ("follow", follow.then_some("true"))];
        self.get(&of(path, "output"), &names).await
    }

    /// The state of the cluster as a file.
    pub async fn backup(&self) -> Answer<Vec<u8>> {
        let (operation, response) = self.request(Method::GET, "/backup", &[], Bytes::new()).await?;
        Ok(body(&operation, response).await?.to_vec())
    }

    /// How to get a shell in a container; by default in the one container that is up.
    pub async fn enter(&self, path: &ObjectPath, rid: Option<&str>) -> Answer<api::Enter> {
        self.get(&of(path, "enter"), &[("rid", rid)]).await
    }

    /// Asks for a verb on the selected objects.
    pub async fn act(&self, act: &api::Act) -> Answer<api::Acted> {
        self.send(Method::POST, "/actions", &[], act).await
    }

    /// What happens to the selected objects, or with one request until it ended.
    pub async fn events(&self, selector: Option<&str>, request: Option<&str>) -> Answer<Lines<api::Event>> {
        self.lines("/events", &[("selector", selector), ("request", request)]).await
    }

    /// What was said of the selected objects, or of the node without one: the last `backlog` bytes, and with `follow`
    /// all that is said from now on.
    pub async fn logs(
        &self,
        selector: Option<&str>,
        backlog: Option<u64>,
        follow: bool,
    ) -> Answer<Lines<api::LogLine>> {
        let backlog = backlog.map(|bytes| bytes.to_string());
        let node = selector.is_none().then_some("true");
        let names = [
            ("selector", selector),
            ("backlog", backlog.as_deref()),
            ("follow", follow.then_some("true")),
            ("node", node),
        ];
        self.lines("/logs", &names).await
    }

    /// This node.
    pub async fn node(&self) -> Answer<api::Node> {
        self.get("/node", &[]).await
    }

    /// `freeze` or `thaw`.
    pub async fn node_act(&self, verb: &str) -> Answer<api::Done> {
        self.send(Method::POST, "/node/actions", &[], &api::NodeAct { verb: verb.into() }).await
    }

    /// This node's configuration.
    pub async fn node_config(&self) -> Answer<api::Config> {
        self.get("/node/config", &[]).await
    }

    /// Replaces this node's configuration.
    pub async fn node_config_replace(&self, replace: &api::Replace) -> Answer<api::Changed> {
        self.send(Method::PUT, "/node/config", &[], replace).await
    }

    /// Sets and unsets this node's keywords.
    pub async fn node_config_patch(&self, patch: &api::Patch) -> Answer<api::Changed> {
        self.send(Method::PATCH, "/node/config", &[], patch).await
    }

    /// Pools of volumes.
    pub async fn pools(&self) -> Answer<Vec<api::Pool>> {
        let pools: api::Pools = self.get("/pools", &[]).await?;
        Ok(pools.pools)
    }

    /// Networks.
    pub async fn networks(&self) -> Answer<Vec<api::Network>> {
        let networks: api::Networks = self.get("/networks", &[]).await?;
        Ok(networks.networks)
    }

    /// The zone.
    pub async fn dns(&self) -> Answer<api::Dns> {
        self.get("/dns", &[]).await
    }

    /// Makes this node's resolver ask the cluster's, or undoes it.
    pub async fn dns_setup(&self, setup: &api::DnsSetup) -> Answer<api::DnsSetupDone> {
        self.send(Method::POST, "/dns/setup", &[], setup).await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Answer<serde_json::Value> {
        self.get("/openapi.json", &[]).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, names: &[(&str, Option<&str>)]) -> Answer<T> {
        let (operation, response) = self.request(Method::GET, path, names, Bytes::new()).await?;
        read(&operation, response).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        names: &[(&str, Option<&str>)],
        sent: &impl Serialize,
    ) -> Answer<T> {
        let sent = serde_json::to_vec(sent).map_err(|error| broken(path, error))?;
        let (operation, response) = self.request(method, path, names, sent.into()).await?;
        read(&operation, response).await
    }

    async fn lines<T>(&self, path: &str, names: &[(&str, Option<&str>)]) -> Answer<Lines<T>> {
        let (operation, response) = self.request(Method::GET, path, names, Bytes::new()).await?;
        Ok(Lines { operation, body: response.into_body(), rest: BytesMut::new(), of: PhantomData })
    }

    /// Sends a request, and waits for the head of its answer, which is a success.
    async fn request(
        &self,
        method: Method,
        path: &str,
        names: &[(&str, Option<&str>)],
        sent: Bytes,
    ) -> Answer<(String, Response<Incoming>)> {
        let operation = format!("{method} /{}{path}", api::VERSION);
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket: self.socket.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket: self.socket.clone() },
            _ => broken(&operation, source),
        })?;
        let uri = format!("/{}{path}{}", api::VERSION, query(names));
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::HOST, "om")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(sent))
            .map_err(|error| broken(&operation, error))?;
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends by itself: when the answer was read, or its reader is gone.
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let response = match timeout(LIMIT, exchange).await {
            Err(_) => return Err(ClientError::Timeout { operation, limit: LIMIT }),
            Ok(response) => response.map_err(|error| broken(&operation, error))?,
        };
        let status = response.status();
        if status.is_success() {
            return Ok((operation, response));
        }
        let text = body(&operation, response).await?;
        let failure = serde_json::from_slice(&text).unwrap_or_else(|_| api::Failure {
            code: if status == StatusCode::FORBIDDEN { api::code::FORBIDDEN } else { api::code::INTERNAL }.into(),
            message: format!("{operation}: {status}"),
            ..api::Failure::default()
        });
        Err(ClientError::Refused { status: status.as_u16(), failure: Box::new(failure) })
    }
}

/// An answer that goes on, a JSON object a line. Dropping it ends it.
#[derive(Debug)]
pub struct Lines<T> {
    operation: String,
    body: Incoming,
    rest: BytesMut,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; none after the last. Cancel-safe.
    pub async fn next(&mut self) -> Answer<Option<T>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| broken(&self.operation, error));
            }
            if self.rest.len() > MAX_LINE {
                return Err(broken(&self.operation, "a line is too long"));
            }
            match timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(ClientError::Timeout { operation: self.operation.clone(), limit: SILENCE }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broken(&self.operation, error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn of(path: &ObjectPath, rest: &str) -> String {
    format!("/objects/{}/{rest}", path.fqn())
}

fn broken(operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken { operation: operation.into(), source: source.into() }
}

async fn read<T: DeserializeOwned>(operation: &str, response: Response<Incoming>) -> Answer<T> {
    let text = body(operation, response).await?;
    serde_json::from_slice(&text).map_err(|error| broken(operation, error))
}

async fn body(operation: &str, response: Response<Incoming>) -> Answer<Bytes> {
    let collected = timeout(LIMIT, Limited::new(response.into_body(), MAX_ANSWER).collect()).await;
    match collected {
        Err(_) => Err(ClientError::Timeout { operation: operation.into(), limit: LIMIT }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(broken(operation, "the answer is too large")),
        Ok(Err(error)) => Err(broken(operation, error)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}
