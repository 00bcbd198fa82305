//! Owns the daemon's side of the socket: who may connect, how much is taken, how answers are sent. Does not own what is
//! answered; that is a [`Handler`]'s.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use om_core::path::{Kind, ObjectPath};
use serde::{Serialize, de::DeserializeOwned};
use service::shutdown::Shutdown;
use tokio::{
    net::{UnixListener, UnixStream, unix::UCred},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::api::{
    Failure, MAX_BODY, code,
    routes::{self, Match, Route},
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 256;
/// The longest wait for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The longest wait for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How long running answers may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(3);
/// Pause after an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A request that was understood so far.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub route: Route,
    /// Of which object.
    pub object: Option<ObjectPath>,
    /// Undecoded.
    pub query: String,
    /// [`MAX_BODY`] bytes at most.
    pub body: Bytes,
}

impl Call {
    /// A value of the query.
    pub fn value(&self, name: &str) -> Option<String> {
        routes::query_value(&self.query, name)
    }

    /// A switch of the query.
    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "true" || value == "1")
    }

    /// The object; every route that has one in its path has it.
    ///
    /// # Errors
    /// A route without one.
    pub fn object(&self) -> Result<&ObjectPath, Refusal> {
        self.object.as_ref().ok_or_else(|| Refusal::bad("the path names no object"))
    }

    /// The body's meaning.
    ///
    /// # Errors
    /// It is not the JSON that is expected; the message says where.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| Refusal::bad(format!("the body cannot be read: {error}")))
    }
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// JSON, already written.
    Json(Vec<u8>),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// JSON lines, until the sender is dropped. A reader that is gone closes the channel.
    Lines(mpsc::Receiver<Bytes>),
}

impl Reply {
    /// A value as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        serde_json::to_vec(value)
            .map(Self::Json)
            .map_err(|error| Refusal::internal(format!("write the answer: {error}")))
    }
}

/// A request that is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Refusal(pub Box<Failure>);

impl Refusal {
    /// An error of this code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { code: code.into(), message: message.into(), ..Failure::default() }))
    }

    /// A request that makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(code::BAD_REQUEST, message)
    }

    /// A failure of the daemon.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, message)
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    fn status(&self) -> StatusCode {
        match self.0.code.as_str() {
            code::BAD_REQUEST => StatusCode::BAD_REQUEST,
            code::FORBIDDEN => StatusCode::FORBIDDEN,
            code::NOT_FOUND => StatusCode::NOT_FOUND,
            code::EXISTS | code::CONFLICT => StatusCode::CONFLICT,
            code::INVALID => StatusCode::UNPROCESSABLE_ENTITY,
            code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The future of an answer.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send + 'a>>;

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. Dropped when its reader goes away, so what must happen is spawned.
    fn answer(&self, call: Call) -> Answering<'_>;
}

/// A socket that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon answers there.
    #[error("listen on {}: another daemon answers there", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("listen on {}: it is there and no socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// Anything else.
    #[error("listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The socket of the API. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, for root only. What a daemon that was killed left there is removed.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Listen { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServeError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(ServeError::InUse { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // The directory is closed to others already; until here the peer's user id is what counts.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until a stop is requested, then lets running answers end for some seconds.
    pub async fn serve(self, handler: Arc<dyn Handler>, shutdown: Shutdown) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let me = rustix::process::geteuid().as_raw();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = shutdown.requested() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let allowed = stream.peer_cred().is_ok_and(|peer| may_call(peer, me));
            let (handler, shutdown) = (Arc::clone(&handler), shutdown.clone());
            connections.spawn(async move {
                connection(stream, allowed, handler, shutdown).await;
                drop(slot);
            });
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN, drained).await.is_err() {
            debug!("some answers were cut off");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever starts next removes what is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Root may, and whoever the daemon itself is, which differs from root in tests only.
fn may_call(peer: UCred, me: u32) -> bool {
    peer.uid() == 0 || peer.uid() == me
}

async fn connection(stream: UnixStream, allowed: bool, handler: Arc<dyn Handler>, shutdown: Shutdown) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let answered = if allowed {
                answer(request, &*handler).await
            } else {
                Err(Refusal::new(code::FORBIDDEN, "only root may talk to the daemon").hint("run this as root"))
            };
            Ok::<_, Infallible>(respond(answered))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(64 << 10);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.requested() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection of the API ended early");
    }
}

async fn answer(request: http::Request<Incoming>, handler: &dyn Handler) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    let (route, object) = match routes::find(head.method.as_str(), head.uri.path()) {
        Match::Found(route, object) => (route, object),
        Match::OtherMethod => return Err(Refusal::bad(format!("{} takes no {}", head.uri.path(), head.method))),
        Match::Nothing => return Err(Refusal::new(code::NOT_FOUND, format!("there is no {}", head.uri.path()))),
    };
    let object = match object {
        None => None,
        Some(text) => Some(full_path(text)?),
    };
    let body = match timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => return Err(Refusal::bad("the body did not come in time")),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Refusal::new(code::TOO_LARGE, format!("the body has more than {MAX_BODY} bytes")));
        }
        Ok(Err(error)) => return Err(Refusal::bad(format!("the body cannot be read: {error}"))),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let query = head.uri.query().unwrap_or_default().to_owned();
    handler.answer(Call { route, object, query, body }).await
}

/// A path with all its three parts, as the API wants it.
pub fn full_path(text: &str) -> Result<ObjectPath, Refusal> {
    let path: ObjectPath = text.parse().map_err(|error| Refusal::bad(format!("{error}")))?;
    if path.fqn() == text || path.kind == Kind::Ccfg {
        Ok(path)
    } else {
        Err(Refusal::bad(format!("`{text}` is not a full path")))
    }
}

fn respond(answered: Result<Reply, Refusal>) -> Response<Sent> {
    let (status, kind, body) = match answered {
        Ok(Reply::Json(text)) => (StatusCode::OK, "application/json", Sent::Whole(Some(text.into()))),
        Ok(Reply::Bytes(bytes)) => (StatusCode::OK, "application/octet-stream", Sent::Whole(Some(bytes.into()))),
        Ok(Reply::Lines(lines)) => (StatusCode::OK, "application/x-ndjson", Sent::Lines(lines)),
        Err(refusal) => {
            if refusal.0.code == code::INTERNAL {
                warn!("a request failed: {}", refusal.0.message);
            }
            // A struct of texts is always written.
            let text = serde_json::to_vec(&refusal.0).unwrap_or_default();
            (refusal.status(), "application/json", Sent::Whole(Some(text.into())))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// The body of an answer.
enum Sent {
    Whole(Option<Bytes>),
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines) => lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Event, KeyChanged, WriteMode},
        client::{Client, ClientError},
    };

    /// Answers some routes with what it was asked.
    struct Echo;

    impl Handler for Echo {
        fn answer(&self, call: Call) -> Answering<'_> {
            Box::pin(async move {
                match call.route {
                    Route::Objects => {
                        Reply::json(&crate::api::Objects { paths: vec![call.value("selector").unwrap_or_default()] })
                    }
                    Route::Value => Ok(Reply::Bytes(call.value("key").unwrap_or_default().into_bytes())),
                    Route::ValuePut => Reply::json(&KeyChanged { changed: true, size: call.body.len() as u64 }),
                    Route::Events => {
                        let (sender, lines) = mpsc::channel(4);
                        for path in ["a/svc/b", "c/svc/d"] {
                            let mut line = serde_json::to_vec(&Event::Gone { path: path.into() }).unwrap();
                            line.push(b'\n');
                            sender.send(line.into()).await.unwrap();
                        }
                        Ok(Reply::Lines(lines))
                    }
                    _ => Err(Refusal::new(code::NOT_FOUND, "nothing here").hint("look elsewhere")),
                }
            })
        }
    }

    #[tokio::test]
    async fn what_is_asked_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let client = Client::new(&socket);
        assert!(matches!(client.objects("x").await, Err(ClientError::NotRunning { .. })));

        let shutdown = Shutdown::new();
        // As a daemon that was killed leaves it.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let listener = Listener::bind(&socket).await.unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let serving = tokio::spawn(listener.serve(Arc::new(Echo), shutdown.clone()));
        assert!(matches!(Listener::bind(&socket).await, Err(ServeError::InUse { .. })));

        assert_eq!(client.objects("test/*,a b#1").await.unwrap(), ["test/*,a b#1"]);
        let path: ObjectPath = "myns/sec/creds".parse().unwrap();
        assert_eq!(client.value(&path, "a/b c").await.unwrap(), b"a/b c");
        let put = client.value_put(&path, "k", WriteMode::Add, vec![0; 1000]).await.unwrap();
        assert_eq!(put.size, 1000);
        let refused = client.value_put(&path, "k", WriteMode::Add, vec![0; MAX_BODY + 1]).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 413, .. }), "{refused:?}");
        let refused = client.node().await.unwrap_err();
        assert!(refused.is_not_found() && refused.hint() == Some("look elsewhere"), "{refused:?}");
        let mut events = client.events(None, None).await.unwrap();
        for path in ["a/svc/b", "c/svc/d"] {
            assert_eq!(events.next().await.unwrap(), Some(Event::Gone { path: path.into() }));
        }
        assert_eq!(events.next().await.unwrap(), None);

        shutdown.request();
        serving.await.unwrap();
        assert!(!socket.exists());
    }
}
