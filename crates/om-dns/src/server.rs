//! Owns the sockets: datagrams and streams in, answers out, within limits. Does not own what is answered.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use om_core::zone::Zone;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    forward,
    message::{self, QUERY_LIMIT, Step, Transport},
};

/// The port of DNS.
pub const PORT: u16 = 53;
/// How many queries may wait for other servers at a time.
const WAITING: usize = 512;
/// How many streams may be open at a time.
const STREAMS: usize = 128;
/// How long a stream may be idle, and how long a client may take to read.
const IDLE: Duration = Duration::from_secs(10);
/// The wait after a failure of a socket, so that a lasting one does not keep a core busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The servers to ask for what is not of the zone, at this moment.
pub type Upstream = Arc<dyn Fn() -> Vec<SocketAddr> + Send + Sync>;

/// The two sockets of an address.
#[derive(Debug)]
pub struct Bound {
    datagrams: UdpSocket,
    streams: TcpListener,
}

impl Bound {
    /// Takes an address. Port 0 takes one that is free for both.
    ///
    /// # Errors
    /// What the system says, such as `AddrInUse` or `AddrNotAvailable`.
    pub async fn new(address: IpAddr, port: u16) -> io::Result<Self> {
        let streams = TcpListener::bind((address, port)).await?;
        let datagrams = UdpSocket::bind(streams.local_addr()?).await?;
        Ok(Self { datagrams, streams })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.datagrams.local_addr()
    }
}

/// What every query needs.
struct Shared {
    zone: watch::Receiver<Arc<Zone>>,
    upstream: Upstream,
    waiting: Semaphore,
}

impl Shared {
    /// What becomes of a query, with the newest zone.
    fn step(&self, query: &[u8], transport: Transport) -> Step {
        let zone = Arc::clone(&self.zone.borrow());
        message::step(query, &zone, transport)
    }

    /// What others answer; a refusal if they do not.
    async fn forwarded(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let servers = (self.upstream)();
        if servers.is_empty() {
            return message::fail(query, ResponseCode::Refused);
        }
        let Ok(_turn) = self.waiting.try_acquire() else { return message::fail(query, ResponseCode::ServFail) };
        match forward::ask(query, &servers, transport).await {
            Some(answer) => Some(answer),
            None => message::fail(query, ResponseCode::ServFail),
        }
    }
}

/// Answers until it is dropped.
pub async fn serve(bound: Bound, zone: watch::Receiver<Arc<Zone>>, upstream: Upstream) {
    let shared = Arc::new(Shared { zone, upstream, waiting: Semaphore::new(WAITING) });
    tokio::join!(datagrams(bound.datagrams, Arc::clone(&shared)), streams(bound.streams, shared));
}

async fn datagrams(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUERY_LIMIT];
    let mut waiting = JoinSet::new();
    loop {
        // Those that are done give back what they hold.
        while waiting.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a query cannot be read");
                sleep(PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..length];
        match shared.step(query, Transport::Datagram) {
            Step::Reply(answer) => send(&socket, &answer, client).await,
            Step::Forward => {
                let (socket, shared, query) = (Arc::clone(&socket), Arc::clone(&shared), query.to_vec());
                waiting.spawn(async move {
                    if let Some(answer) = shared.forwarded(&query, Transport::Datagram).await {
                        send(&socket, &answer, client).await;
                    }
                });
            }
            Step::Ignore => {}
        }
    }
}

/// A client that cannot be answered asks again.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, "{client} does not get its answer");
    }
}

async fn streams(listener: TcpListener, shared: Arc<Shared>) {
    let open = Arc::new(Semaphore::new(STREAMS));
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&open).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a client cannot be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        clients.spawn(async move {
            let _turn = turn;
            if let Err(error) = converse(stream, &shared).await {
                tracing::debug!(%error, "a client is gone");
            }
        });
    }
}

/// Answers one query after the other (RFC 7766).
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let mut query = match timeout(IDLE, stream.read_u16()).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => vec![0; usize::from(length?)],
        };
        if query.len() > QUERY_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let answer = match shared.step(&query, Transport::Stream) {
            Step::Reply(answer) => Some(answer),
            Step::Forward => shared.forwarded(&query, Transport::Stream).await,
            Step::Ignore => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())).await??;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RecordType},
    };

    use super::*;
    use crate::message::tests::zone_of;

    /// A server of a zone; it ends with the test.
    async fn server(cluster: &str, upstream: Vec<SocketAddr>) -> SocketAddr {
        let bound = Bound::new(Ipv4Addr::LOCALHOST.into(), 0).await.unwrap();
        let address = bound.address().unwrap();
        // So many servers do not fit a datagram.
        let zone = watch::channel(Arc::new(zone_of(cluster, 100))).1;
        tokio::spawn(serve(bound, zone, Arc::new(move || upstream.clone())));
        address
    }

    async fn asked(server: SocketAddr, name: &str, kind: RecordType, transport: Transport) -> String {
        let mut query = Message::new(77, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = forward::ask(&query.to_vec().unwrap(), &[server], transport).await;
        let Some(answer) = answer else { return "silence".into() };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 77);
        let cut = if answer.metadata.truncation { " cut" } else { "" };
        format!("{:?} {}{cut}", answer.metadata.response_code, answer.answers.len())
    }

    #[tokio::test]
    async fn it_answers_and_forwards() {
        let upper = server("upper", Vec::new()).await;
        // Nobody listens at the first, and no other test is given that port.
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let lower = server("lower", vec![nobody, upper]).await;
        for transport in [Transport::Datagram, Transport::Stream] {
            let all = if transport == Transport::Datagram { "NoError 0 cut" } else { "NoError 100" };
            for (server, name, kind, expected) in [
                (lower, "ns1.lower.", RecordType::A, "NoError 1"),
                (lower, "ns1.upper.", RecordType::A, "NoError 1"),
                (lower, "absent.upper.", RecordType::A, "NXDomain 0"),
                (lower, "upper.", RecordType::NS, all),
                // It asks nobody.
                (upper, "example.org.", RecordType::A, "Refused 0"),
            ] {
                assert_eq!(asked(server, name, kind, transport).await, expected, "{name} {transport:?}");
            }
        }
        let alone = server("alone", vec![nobody]).await;
        assert_eq!(asked(alone, "example.org.", RecordType::A, Transport::Stream).await, "ServFail 0");
    }

    #[tokio::test]
    async fn a_stream_has_limits() {
        let server = server("lower", Vec::new()).await;
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(&[0xff, 0xff]).await.unwrap();
        let end = timeout(Duration::from_secs(5), stream.read_u8()).await.expect("it ends at once");
        assert!(end.is_err());
    }
}
