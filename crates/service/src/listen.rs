//! Owns the sockets that a server listens on: how they come to be, and the accepting of
//! connections from them.
//!
//! It speaks no protocol, not even TLS; that begins with the accepted stream.

use std::{
    env, fmt,
    fs::{self, Permissions},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs as _},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::Instant,
};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Silence after which the kernel asks the peer whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(180);

/// Pause after an error that another attempt at once would only repeat, such as no free file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Errors of accepting are logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// A name or an address without brackets. Empty, `0.0.0.0` and `::` all mean every address of the machine, of
        /// IPv6 and IPv4 alike as far as the machine has them. A name with several addresses means the first IPv4
        /// one.
        host: String,
        /// 0 lets the system choose.
        port: u16,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is nothing to accept connections from.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process, or this one, listens there.
    #[error("listen on {endpoint}: address in use")]
    InUse {
        /// Where it was tried.
        endpoint: Endpoint,
    },
    /// The operating system does not let this user listen there.
    #[error("listen on {endpoint}: permission denied")]
    Denied {
        /// Where it was tried.
        endpoint: Endpoint,
    },
    /// The machine does not have this address.
    #[error("listen on {endpoint}: this machine has no such address")]
    NotHere {
        /// Where it was tried.
        endpoint: Endpoint,
    },
    /// The name of the host means nothing.
    #[error("listen on {endpoint}: cannot resolve the host name")]
    Unresolved {
        /// Where it was tried.
        endpoint: Endpoint,
        /// What the resolver said.
        source: io::Error,
    },
    /// The path of the Unix socket holds something else, which is left alone.
    #[error("listen on {endpoint}: the path exists and is not a socket")]
    NotASocket {
        /// Where it was tried.
        endpoint: Endpoint,
    },
    /// The service manager passed something that cannot be listened on.
    #[error("listen on the socket passed by the service manager: {problem}")]
    Inherited {
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else.
    #[error("listen on {endpoint}")]
    Other {
        /// Where it was tried.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    fn new(endpoint: &Endpoint, source: io::Error) -> Self {
        let endpoint = endpoint.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { endpoint },
            io::ErrorKind::PermissionDenied => Self::Denied { endpoint },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { endpoint },
            _ => Self::Other { endpoint, source },
        }
    }

    /// Says what the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let unix = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Unix(_));
        match self {
            Self::InUse { endpoint } if unix(endpoint) => {
                Some("another server answers on this socket: stop it, or choose another path in http.addr")
            }
            Self::InUse { .. } => Some(
                "another process holds the port, perhaps an earlier copy of this server (`ss -ltnp` names it): stop it, \
                 or choose another port in http.addr",
            ),
            Self::Denied { endpoint } if unix(endpoint) => {
                Some("the user of this process needs the right to write to the directory of the socket")
            }
            Self::Denied { .. } => Some(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher port in http.addr, or grant the \
                 capability",
            ),
            Self::NotHere { .. } => Some("choose an address that `ip address` lists, or leave the host out for all"),
            Self::Unresolved { .. } => Some("write an address instead of a name, or leave the host out for all"),
            Self::NotASocket { .. } => Some("choose another path in http.addr, or move the file away"),
            Self::Inherited { .. } => Some("the socket unit needs exactly one ListenStream="),
            Self::Other { .. } => None,
        }
    }
}

/// A socket that connections can be accepted from.
///
/// A Unix socket that was made here is removed from the file system when this is dropped.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    address: String,
    file: Option<SocketFile>,
    complaints: Mutex<Complaints>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What was said about failures to accept.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Accepted {
    /// The bytes to and from the peer.
    pub stream: Stream,
    /// The peer; an IPv4 peer of an IPv6 socket has its IPv4 address. `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
}

/// The bytes of a connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Listens on the socket that the service manager passed, if it passed one, else on the endpoint.
///
/// A passed socket (`LISTEN_FDS`, sd_listen_fds(3)) is taken by the first call; later ones find none. Needs a tokio
/// runtime. Blocks while a host name is resolved.
///
/// # Errors
/// See [`ListenError`].
pub fn bind(endpoint: &Endpoint) -> Result<Bound, ListenError> {
    match inherited()? {
        Some(bound) => {
            tracing::info!("listening on the socket passed by the service manager, not on {endpoint}");
            Ok(bound)
        }
        None => bind_own(endpoint),
    }
}

/// Listens on the endpoint, whatever the service manager passed: for the second and further sockets of a server.
///
/// # Errors
/// As for [`bind`].
pub fn bind_own(endpoint: &Endpoint) -> Result<Bound, ListenError> {
    match endpoint {
        Endpoint::Tcp { host, port } => bind_tcp(endpoint, host, *port),
        Endpoint::Unix(path) => bind_unix(endpoint, path),
    }
}

impl Bound {
    fn tcp(socket: OwnedFd) -> io::Result<Self> {
        // Accepted sockets inherit these on Linux, which saves three system calls for each connection. A socket that
        // refuses works nonetheless.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        let _ = sockopt::set_tcp_keepidle(&socket, KEEPALIVE);
        let listener = StdTcpListener::from(socket);
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        Ok(Self::new(Listener::Tcp(TcpListener::from_std(listener)?), address, None))
    }

    fn unix(socket: OwnedFd, file: Option<SocketFile>) -> io::Result<Self> {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let address = match listener.local_addr()?.as_pathname() {
            Some(path) => format!("unix:{}", path.display()),
            None => "unix:(unnamed)".to_owned(),
        };
        Ok(Self::new(Listener::Unix(UnixListener::from_std(listener)?), address, file))
    }

    fn new(listener: Listener, address: String, file: Option<SocketFile>) -> Self {
        Self { listener, address, file, complaints: Mutex::default() }
    }

    /// The address that is listened on: `127.0.0.1:5000`, `[::]:5000` or `unix:/run/x.sock`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address that is listened on, unless it is a Unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Waits for the next connection. Cancel-safe: no connection is lost.
    ///
    /// Failures that pass, such as too many open files or a client that gave up, are logged now and then and tried
    /// again.
    ///
    /// # Errors
    /// The socket is broken; no later call can succeed.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted {
                    stream: Stream::Tcp(stream),
                    peer: Some(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
                }),
                Listener::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted { stream: Stream::Unix(stream), peer: None })
                }
            };
            match accepted {
                Ok(accepted) => return Ok(accepted),
                Err(error) => match Failure::of(&error) {
                    Failure::Listener => return Err(error),
                    Failure::Connection => self.complain(&error),
                    Failure::Shortage => {
                        self.complain(&error);
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    fn complain(&self, error: &io::Error) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            complaints.unsaid += 1;
            return;
        }
        tracing::warn!(
            address = self.address,
            error = error as &(dyn std::error::Error + 'static),
            unsaid = complaints.unsaid,
            "cannot accept a connection, trying again"
        );
        *complaints = Complaints { last: Some(Instant::now()), unsaid: 0 };
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

/// What a failure to accept a connection is about.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// This one connection; the next may be waiting.
    Connection,
    /// The machine or the process is short of something.
    Shortage,
    /// The listening socket itself.
    Listener,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => Self::Listener,
            // accept(2) passes on what happened to the connection before it was accepted.
            Some(
                Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::TIMEDOUT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH,
            ) => Self::Connection,
            _ => Self::Shortage,
        }
    }
}

fn bind_tcp(endpoint: &Endpoint, host: &str, port: u16) -> Result<Bound, ListenError> {
    let unspecified = host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
    let bound = if host.is_empty() || unspecified {
        match open_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            // IPv6 is not built in, or switched off.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => open_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            opened => opened,
        }
    } else {
        let unresolved = |source| ListenError::Unresolved { endpoint: endpoint.clone(), source };
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        open_tcp(*address.ok_or_else(|| unresolved(io::ErrorKind::NotFound.into()))?)
    };
    bound.map_err(io::Error::from).and_then(Bound::tcp).map_err(|error| ListenError::new(endpoint, error))
}

fn open_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = open(family)?;
    // Without it, a restarted server would wait for its earlier connections to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn open(family: AddressFamily) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn bind_unix(endpoint: &Endpoint, path: &Path) -> Result<Bound, ListenError> {
    let fail = |error: io::Error| ListenError::new(endpoint, error);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { endpoint: endpoint.clone() });
        }
        Ok(_) if is_answered(path).map_err(fail)? => return Err(ListenError::InUse { endpoint: endpoint.clone() }),
        Ok(_) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => tracing::debug!("replaced the stale socket {}", path.display()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let open = || -> io::Result<Bound> {
        let socket = open(AddressFamily::UNIX)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = SocketFile::at(path)?;
        // Nobody can connect before `listen`, so that nobody gets in under the permissions of the umask.
        let ready = fs::set_permissions(path, Permissions::from_mode(0o660))
            .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?));
        if let Err(error) = ready {
            file.remove();
            return Err(error);
        }
        Bound::unix(socket, Some(file))
    };
    open().map_err(fail)
}

/// Says whether a process listens on the Unix socket at the path.
fn is_answered(path: &Path) -> io::Result<bool> {
    // Never blocks: a connection that would have to wait for its turn fails with EAGAIN.
    match rustix::net::connect(&open(AddressFamily::UNIX)?, &SocketAddrUnix::new(path)?) {
        // Bound by a process that uses it for something other than streams.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The file of a Unix socket, as it was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Removes the file unless somebody else's has taken its place.
    fn remove(&self) {
        let same = Self::at(&self.path).is_ok_and(|now| (now.device, now.inode) == (self.device, self.inode));
        if same {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the socket that the service manager passed, once.
fn inherited() -> Result<Option<Bound>, ListenError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(count) => return Err(ListenError::Inherited { problem: format!("expected one socket, got {count}") }),
    }
    let socket = passed_socket().map_err(|error| ListenError::Inherited { problem: error.to_string() })?;
    adopt(socket).map(Some)
}

/// Takes ownership of file descriptor 3. Called once.
#[expect(unsafe_code, reason = "a file descriptor that was passed from outside has a number and no owner")]
fn passed_socket() -> io::Result<OwnedFd> {
    // SAFETY: the borrow ends before anything can close the descriptor; if there is none, EBADF is all that happens.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(3) })?;
    // SAFETY: the descriptor is open, as was just seen, and by the protocol of LISTEN_FDS it was opened before this
    // process began and is meant for it. `inherited` comes here once, so that there is one owner.
    let socket = unsafe { OwnedFd::from_raw_fd(3) };
    fcntl_setfd(&socket, flags | FdFlags::CLOEXEC)?;
    Ok(socket)
}

fn adopt(socket: OwnedFd) -> Result<Bound, ListenError> {
    let problem = |problem: String| ListenError::Inherited { problem };
    let system = |error: io::Error| problem(error.to_string());
    let listens = sockopt::socket_acceptconn(&socket).map_err(|error| system(error.into()))?;
    if !listens || sockopt::socket_type(&socket).map_err(|error| system(error.into()))? != SocketType::STREAM {
        return Err(problem("it is not a listening stream socket".to_owned()));
    }
    match sockopt::socket_domain(&socket).map_err(|error| system(error.into()))? {
        AddressFamily::INET | AddressFamily::INET6 => Bound::tcp(socket).map_err(system),
        AddressFamily::UNIX => Bound::unix(socket, None).map_err(system),
        family => Err(problem(format!("it is of the unknown address family {}", family.as_raw()))),
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    /// Sends a byte each way over a new connection.
    async fn check(bound: &Bound, client: impl AsyncRead + AsyncWrite + Unpin) -> Accepted {
        let mut client = client;
        let mut accepted = bound.accept().await.unwrap();
        let mut byte = [0];
        client.write_all(b"a").await.unwrap();
        accepted.stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"a");
        accepted.stream.write_all(b"b").await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b");
        accepted
    }

    #[tokio::test]
    async fn tcp_hosts() {
        for (host, printed, from) in [
            ("127.0.0.1", "127.0.0.1:", &["127.0.0.1"][..]),
            ("localhost", "127.0.0.1:", &["127.0.0.1"]),
            ("::1", "[::1]:", &["::1"]),
            ("", "[::]:", &["127.0.0.1", "::1"]),
            ("0.0.0.0", "[::]:", &["127.0.0.1", "::1"]),
            ("::", "[::]:", &["127.0.0.1", "::1"]),
        ] {
            let without_v6 = StdTcpListener::bind("[::1]:0").is_err();
            if without_v6 && host == "::1" {
                continue;
            }
            let bound = bind(&tcp(host, 0)).unwrap();
            let port = bound.tcp_address().unwrap().port();
            if !without_v6 {
                assert_eq!(bound.address(), format!("{printed}{port}"), "{host:?}");
            }
            for from in from.iter().filter(|from| !(without_v6 && from.contains(':'))) {
                let client = TcpStream::connect((*from, port)).await.unwrap();
                let client_address = client.local_addr().unwrap();
                let accepted = check(&bound, client).await;
                assert_eq!(accepted.peer, Some(client_address), "{host:?}");
                let Stream::Tcp(stream) = accepted.stream else { panic!("{host:?}") };
                assert!(stream.nodelay().unwrap());
                assert!(sockopt::socket_keepalive(&stream).unwrap());
                assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE);
            }
        }
    }

    #[tokio::test]
    async fn errors_name_the_endpoint() {
        let taken = bind(&tcp("127.0.0.1", 0)).unwrap();
        let port = taken.tcp_address().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let (file, missing) = (directory.path().join("file"), directory.path().join("no/socket"));
        fs::write(&file, "precious").unwrap();
        let long = directory.path().join("x".repeat(200));
        for (endpoint, message, hint) in [
            (
                tcp("127.0.0.1", port),
                format!("listen on 127.0.0.1:{port}: address in use"),
                "another port in http.addr",
            ),
            (tcp("", port), format!("listen on :{port}: address in use"), "another port in http.addr"),
            (
                tcp("192.0.2.1", 5000),
                "listen on 192.0.2.1:5000: this machine has no such address".to_owned(),
                "`ip address`",
            ),
            (
                tcp("no such host", 5000),
                "listen on no such host:5000: cannot resolve the host name".to_owned(),
                "an address instead",
            ),
            (
                Endpoint::Unix(file.clone()),
                format!("listen on unix:{}: the path exists and is not a socket", file.display()),
                "another path",
            ),
            (Endpoint::Unix(missing.clone()), format!("listen on unix:{}", missing.display()), ""),
            (Endpoint::Unix(long.clone()), format!("listen on unix:{}", long.display()), ""),
        ] {
            let error = bind(&endpoint).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().unwrap_or_default().contains(hint), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let denied = ListenError::new(&tcp("", 80), Errno::ACCESS.into());
        assert_eq!(denied.to_string(), "listen on :80: permission denied");
        assert!(denied.hint().unwrap().contains("1024"));
    }

    #[tokio::test]
    async fn unix_socket_lives_as_long_as_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let endpoint = Endpoint::Unix(path.clone());
        // A server that was killed leaves its socket behind.
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let bound = bind(&endpoint).unwrap();
        assert_eq!(bound.address(), format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let accepted = check(&bound, UnixStream::connect(&path).await.unwrap()).await;
        assert_eq!((accepted.peer, bound.tcp_address()), (None, None));

        let error = bind(&endpoint).unwrap_err();
        assert!(matches!(&error, ListenError::InUse { .. }), "{error}");
        let _ = bound.accept().await.unwrap();
        check(&bound, UnixStream::connect(&path).await.unwrap()).await;

        // A successor's socket is not the predecessor's to remove.
        fs::remove_file(&path).unwrap();
        let successor = bind(&endpoint).unwrap();
        drop(bound);
        assert!(path.exists());
        drop(successor);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn sockets_from_outside_are_adopted_or_refused() {
        let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bound = adopt(listener.into()).unwrap();
        assert_eq!(bound.tcp_address(), Some(address));
        check(&bound, TcpStream::connect(address).await.unwrap()).await;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let bound = adopt(StdUnixListener::bind(&path).unwrap().into()).unwrap();
        check(&bound, UnixStream::connect(&path).await.unwrap()).await;
        drop(bound);
        assert!(path.exists(), "the service manager keeps it for the next start");

        let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let file: OwnedFd = fs::File::open("/dev/null").unwrap().into();
        let connected: OwnedFd =
            std::net::TcpStream::connect(address).map_or_else(|_| open(AddressFamily::INET).unwrap(), Into::into);
        for socket in [datagrams, file, connected] {
            let error = adopt(socket).unwrap_err();
            assert!(error.to_string().starts_with("listen on the socket passed by the service manager: "), "{error}");
        }
    }

    /// Not a test of its own: a process to which `passed_socket_is_taken_once` passes a socket.
    #[tokio::test]
    async fn child() {
        if env::var_os("LISTEN_TEST_CHILD").is_none() {
            return;
        }
        let first = bind(&tcp("127.0.0.1", 0)).unwrap();
        let second = bind(&tcp("127.0.0.1", 0)).unwrap();
        println!("\n@{} {}", first.address(), second.address());
    }

    #[test]
    fn passed_socket_is_taken_once() {
        let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // The shell puts the socket where the protocol wants it, and its process number is kept over `exec`.
        let output = process::Command::new("sh")
            .args(["-c", "exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --exact listen::tests::child --nocapture"])
            .arg(env::current_exe().unwrap())
            .env("LISTEN_TEST_CHILD", "1")
            .stdin(OwnedFd::from(listener))
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let said = output.lines().find_map(|line| line.strip_prefix('@')).expect(&output);
        let (first, second) = said.split_once(' ').unwrap();
        assert_eq!(first, address);
        assert_ne!(second, address);
    }

    /// Not a test of its own: a process that runs out of files, for `accepting_outlives_a_shortage`.
    #[tokio::test]
    async fn short_child() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        if env::var_os("LISTEN_TEST_SHORT").is_none() {
            return;
        }
        let bound = bind(&tcp("127.0.0.1", 0)).unwrap();
        let _client = TcpStream::connect(bound.tcp_address().unwrap()).await.unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
        let early = tokio::time::timeout(PAUSE / 2, bound.accept()).await;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let complained = bound.complaints.lock().unwrap().last.is_some();
        println!("\n@{} {complained} {}", early.is_err(), bound.accept().await.is_ok());
    }

    #[test]
    fn accepting_outlives_a_shortage() {
        let output = process::Command::new(env::current_exe().unwrap())
            .args(["--exact", "listen::tests::short_child", "--nocapture"])
            .env("LISTEN_TEST_SHORT", "1")
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.lines().find_map(|line| line.strip_prefix('@')), Some("true true true"), "{output}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_to_accept() {
        for (errno, expected) in [
            (Errno::MFILE, Failure::Shortage),
            (Errno::NFILE, Failure::Shortage),
            (Errno::NOMEM, Failure::Shortage),
            (Errno::CONNABORTED, Failure::Connection),
            (Errno::NETDOWN, Failure::Connection),
            (Errno::BADF, Failure::Listener),
            (Errno::INVAL, Failure::Listener),
        ] {
            assert_eq!(Failure::of(&errno.into()), expected, "{errno}");
        }
        let bound = bind(&tcp("127.0.0.1", 0)).unwrap();
        let unsaid = || {
            bound.complain(&Errno::MFILE.into());
            bound.complaints.lock().unwrap().unsaid
        };
        assert_eq!([unsaid(), unsaid(), unsaid()], [0, 1, 2]);
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!([unsaid(), unsaid()], [0, 1]);
    }
}
