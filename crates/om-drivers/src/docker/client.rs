//! Owns talking to the container engine over its Unix socket: one connection for each request, with a limit on every
//! wait and every size (Docker Engine API, 1.40 to 1.44). Does not own what is asked.
//!
//! A request that is dropped may have been carried out.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// The newest version of the API that is spoken; an older engine is asked in its own.
const NEWEST: (u32, u32) = (1, 44);
/// The longest wait for an answer that the engine has at once.
pub const QUICK: Duration = Duration::from_secs(20);
/// The largest answer, in bytes: a list of some thousand containers.
const MAX_ANSWER: usize = 32 << 20;
/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 1 << 20;

/// A request that the engine did not do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody listens on its socket.
    #[error("the container engine does not answer on {}: {source}", socket.display())]
    Unreachable {
        /// Which.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine said no.
    #[error("{message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// What it said, one line.
        message: String,
    },
    /// The connection broke, or what came is no answer.
    #[error("{operation}: {problem}")]
    Broken {
        /// Such as `GET /containers/json`.
        operation: String,
        /// What happened.
        problem: String,
    },
    /// No answer in time.
    #[error("{operation}: the container engine did not answer for {} s", limit.as_secs())]
    Timeout {
        /// Such as `GET /containers/json`.
        operation: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl EngineError {
    /// Whether there is no such thing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether it collides with something that is there or under way.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether the engine itself is not there.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. })
    }
}

/// Where the engine is.
pub struct Client {
    socket: PathBuf,
    /// The version that is spoken with the engine that was seen last.
    version: Mutex<Option<(u32, u32)>>,
}

/// A request before it is sent.
pub struct Ask {
    method: Method,
    path: String,
    body: Option<Value>,
    auth: Option<String>,
}

impl Ask {
    /// A request without a body. The path has no version and no query.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, auth: None }
    }

    /// With one more parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path += name;
        self.path.push('=');
        self.path += &encoded(value);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With credentials for a registry, as the engine takes them.
    #[must_use]
    pub fn auth(mut self, auth: Option<String>) -> Self {
        self.auth = auth;
        self
    }

    fn operation(&self) -> String {
        format!("{} {}", self.method, self.path.split('?').next().unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "ApiVersion")]
    api: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Client {
    /// An engine that listens on this socket, now or later.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), version: Mutex::default() }
    }

    /// An answer without content.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn done(&self, ask: Ask, limit: Duration) -> Result<(), EngineError> {
        self.bytes(ask, limit).await.map(|_| ())
    }

    /// An answer in JSON.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn json<T: DeserializeOwned>(&self, ask: Ask, limit: Duration) -> Result<T, EngineError> {
        let operation = ask.operation();
        let bytes = self.bytes(ask, limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| broken(&operation, error))
    }

    /// An answer whole.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn bytes(&self, ask: Ask, limit: Duration) -> Result<Bytes, EngineError> {
        let operation = ask.operation();
        let work = async {
            let version = self.version().await?;
            let response = self.send(ask, version).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| broken(&operation, error))
        };
        match timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(EngineError::Timeout { operation, limit }),
        }
    }

    /// An answer that comes in pieces, as long as it goes on. `limit` is for its beginning.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn stream(&self, ask: Ask, limit: Duration) -> Result<Pieces, EngineError> {
        let operation = ask.operation();
        let work = async {
            let version = self.version().await?;
            self.send(ask, version).await
        };
        match timeout(limit, work).await {
            Ok(result) => Ok(Pieces { body: result?.into_body(), held: BytesMut::new(), operation }),
            Err(_) => Err(EngineError::Timeout { operation, limit }),
        }
    }

    /// What engine and client both speak. Asked once for each life of the engine.
    async fn version(&self) -> Result<(u32, u32), EngineError> {
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known {
            return Ok(known);
        }
        let ask = Ask::new(Method::GET, "/version");
        let operation = ask.operation();
        let response = self.send(ask, (0, 0)).await?;
        let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
        let body = body.map_err(|error| broken(&operation, error))?.to_bytes();
        let version: Version = serde_json::from_slice(&body).map_err(|error| broken(&operation, error))?;
        let parts = version.api.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some(spoken) = parts else {
            return Err(broken(&operation, format!("`{}` is no version", version.api)));
        };
        let spoken = spoken.min(NEWEST);
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(spoken);
        Ok(spoken)
    }

    async fn send(&self, ask: Ask, version: (u32, u32)) -> Result<Response<Incoming>, EngineError> {
        let operation = ask.operation();
        let result = self.exchange(ask, version, &operation).await;
        if result.as_ref().is_err_and(EngineError::is_away) {
            // The next one may be another.
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    async fn exchange(
        &self,
        ask: Ask,
        version: (u32, u32),
        operation: &str,
    ) -> Result<Response<Incoming>, EngineError> {
        let unreachable = |source| EngineError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(operation, e))?;
        // Ends when the answer was read or dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the container engine ended: {error}");
            }
        });
        let uri = match version {
            (0, 0) => ask.path,
            (major, minor) => format!("/v{major}.{minor}{}", ask.path),
        };
        let mut request = Request::builder().method(ask.method).uri(uri).header(header::HOST, "docker");
        if let Some(auth) = ask.auth {
            request = request.header("X-Registry-Auth", auth);
        }
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(ask.body.map(|body| Bytes::from(body.to_string())).unwrap_or_default());
        let request = request.body(body).map_err(|error| broken(operation, error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(operation, error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
        let body = body.map_err(|error| broken(operation, error))?.to_bytes();
        let message = match serde_json::from_slice(&body) {
            Ok(Refusal { message }) => message,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(EngineError::Refused { status: status.as_u16(), message: one_line(&message) })
    }
}

/// An answer that comes in pieces.
pub struct Pieces {
    body: Incoming,
    held: BytesMut,
    operation: String,
}

impl Pieces {
    /// The next line of JSON; none: it ended. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke, or the line is too long or none of these.
    pub async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, EngineError> {
        loop {
            if let Some(at) = self.held.iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(at + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|error| broken(&self.operation, error));
            }
            if self.held.len() > MAX_LINE {
                return Err(broken(&self.operation, "a line is too long"));
            }
            if !self.more().await? {
                let rest = self.held.split();
                let rest = rest.trim_ascii();
                if rest.is_empty() {
                    return Ok(None);
                }
                return serde_json::from_slice(rest).map(Some).map_err(|error| broken(&self.operation, error));
            }
        }
    }

    /// What a container wrote next, without the engine's frames; none: it ended. `is_terminal`: it has a terminal,
    /// and there are no frames. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke, or a frame is too long.
    pub async fn output(&mut self, is_terminal: bool) -> Result<Option<Bytes>, EngineError> {
        loop {
            if is_terminal && !self.held.is_empty() {
                return Ok(Some(self.held.split().freeze()));
            }
            // Eight bytes: the stream's number, three zeros, the length in network order.
            if !is_terminal && let [_, 0, 0, 0, a, b, c, d, ..] = self.held[..] {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if len > MAX_LINE {
                    return Err(broken(&self.operation, "a frame is too long"));
                }
                if self.held.len() >= 8 + len {
                    self.held.advance(8);
                    return Ok(Some(self.held.split_to(len).freeze()));
                }
            } else if !is_terminal && self.held.len() >= 8 {
                return Err(broken(&self.operation, "what came is no frame"));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self) -> Result<bool, EngineError> {
        match self.body.frame().await {
            None => Ok(false),
            Some(Err(error)) => Err(broken(&self.operation, error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.held.extend_from_slice(&data);
                }
                Ok(true)
            }
        }
    }
}

fn broken(operation: &str, problem: impl ToString) -> EngineError {
    EngineError::Broken { operation: operation.to_owned(), problem: problem.to_string() }
}

/// The engine's words, on one line that is not too long.
pub fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A value of a query, percent-encoded (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}
