//! Owns the Unix socket over which root and the server's own user give orders: making it, who may
//! speak on it, and taking it away.
//!
//! Does not own what an order does. Whoever makes the socket holds the lock of the data directory:
//! a socket that is already there belongs to a server that is dead.

use std::{
    convert::Infallible,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use registry_core::oci_error::Code;
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    process::geteuid,
};
use service::shutdown::Shutdown;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Admin, Sender,
    authority::Actor,
    error::{Kind, OrderError},
};
use crate::{
    api::{
        admin::{Instruction, PATH, answer, read},
        inbound::Inbound,
    },
    app::now,
    body::Body,
    failure::{Chain, Failure},
    operations::Operations,
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 8;
/// Connections that the kernel lets wait.
const BACKLOG: i32 = 64;
/// How long the next bytes of a request may take.
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may take in all.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long open orders may go on at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest path that fits the address of a socket. Source: unix(7).
const MAX_PATH: usize = 107;

/// Who carries out what comes over the socket.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Orders to access control, where there are accounts.
    pub(crate) admin: Option<Arc<Admin>>,
    /// Orders about what is stored.
    pub(crate) operations: Arc<Operations>,
}

/// A socket that takes orders; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the socket: another one under the same path is not ours to remove.
    file: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub(crate) struct SocketError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The address of a socket at `path`, and the directory that it refers to if the path is too long:
/// an address is good as long as that is open.
fn address(path: &Path) -> io::Result<(SocketAddrUnix, Option<File>)> {
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((SocketAddrUnix::new(path)?, None));
    }
    let name = path.file_name().unwrap_or(OsStr::new(""));
    let directory = File::open(path.parent().unwrap_or(Path::new(".")))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((SocketAddrUnix::new(short)?, Some(directory)))
}

fn socket(flags: SocketFlags) -> io::Result<rustix::fd::OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Connects to the socket of a server that runs. `NotFound` and `ConnectionRefused` say that none does.
pub(crate) fn connect(path: &Path) -> io::Result<StdStream> {
    let (address, _directory) = address(path)?;
    let socket = socket(SocketFlags::empty())?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

impl AdminSocket {
    /// Makes the socket, in place of one that a dead server left behind. Nobody but the owner can
    /// connect to it. Needs a runtime.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |what: &'static str| {
            let path = path.to_owned();
            move |source: io::Error| SocketError { what, path, source }
        };
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed("remove the old socket"))?;
            }
            Ok(_) => {
                let error = io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket");
                return Err(failed("make the socket")(error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("make the socket")(error)),
        }
        let listen = || -> io::Result<(StdListener, (u64, u64))> {
            let (address, _directory) = address(path)?;
            let socket = socket(SocketFlags::NONBLOCK)?;
            rustix::net::bind(&socket, &address)?;
            // Before it listens: until then nobody gets in.
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            rustix::net::listen(&socket, BACKLOG)?;
            let made = fs::symlink_metadata(path)?;
            Ok((socket.into(), (made.dev(), made.ino())))
        };
        let (listener, file) = listen().map_err(failed("make the socket"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("make the socket"))?;
        Ok(Self { listener, path: path.to_owned(), file })
    }

    /// Takes orders until shutdown, and lets open ones end.
    pub(crate) async fn serve(self, desk: Desk, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = shutdown.requested() => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let (desk, shutdown) = (desk.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let _place = place;
                        speak(&desk, stream, shutdown).await;
                    });
                }
                Err(error) => {
                    // Such as no free file: another try at once would only repeat it.
                    tracing::warn!(%error, "cannot accept a connection on the admin socket, trying again");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        if timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await.is_err() {
            connections.shutdown().await;
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "remove the admin socket {}", self.path.display());
        }
    }
}

async fn speak(desk: &Desk, stream: UnixStream, shutdown: Shutdown) {
    let user = match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => peer.uid(),
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                "refused a connection to the admin socket: neither root nor the server's user"
            );
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "refused a connection to the admin socket: its other end is unknown");
            return;
        }
    };
    let service = service_fn(|request| async move {
        let reply = handle(desk, user, request).await;
        Ok::<_, Infallible>(reply.unwrap_or_else(Failure::into_response))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).keep_alive(false).max_buf_size(16 * 1024);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let serve = async {
        tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match timeout(CONNECTION, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %Chain(&error), "a connection to the admin socket broke off"),
        Err(_) => tracing::debug!("a connection to the admin socket took too long"),
    }
}

async fn handle(desk: &Desk, user: u32, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    if head.uri.path() != PATH {
        return Err(Failure::from(Code::Unsupported).status(StatusCode::NOT_FOUND).message("nothing is here"));
    }
    if head.method != Method::POST {
        return Err(Failure::from(Code::Unsupported).header(http::header::ALLOW, "POST"));
    }
    let instruction = read(&head, &mut Inbound::new(body, IDLE)).await?;
    let sender = Sender { actor: Actor::Local, from: format!("socket, uid {user}") };
    match (instruction, &desk.admin) {
        (Instruction::Access(order), Some(admin)) => answer(admin.carry_out(order, sender, now()).await),
        (Instruction::Access(_), None) => {
            let hint = "end the server and make some with `registry init`, with the same data directory";
            Err(OrderError::new(Kind::Conflict, "this registry has no accounts", hint).into())
        }
        (Instruction::Operation(operation), _) => answer(desk.operations.carry_out(operation, sender, now()).await),
    }
}

#[cfg(test)]
mod tests;
