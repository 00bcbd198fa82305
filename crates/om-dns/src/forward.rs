//! Owns asking other servers. Queries and answers pass as they are, but for the id. Does not own which servers there are.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

use crate::message::{Transport, is_reply};

/// The longest wait for one server. Clients wait 5 s altogether, as a rule (resolv.conf(5), `timeout`).
const ONE: Duration = Duration::from_millis(1500);
/// How many servers are asked, one after the other.
pub const SERVERS: usize = 3;

/// The answer of the first server that has one; none if nobody answers.
pub async fn ask(query: &[u8], servers: &[SocketAddr], transport: Transport) -> Option<Vec<u8>> {
    let given = query.get(..2)?;
    for server in servers.iter().take(SERVERS) {
        let mut id = [0; 2];
        getrandom::fill(&mut id).ok()?;
        let mut asked = query.to_vec();
        asked[..2].copy_from_slice(&id);
        let answer = match transport {
            Transport::Datagram => datagram(&asked, id, *server).await,
            Transport::Stream => stream(&asked, id, *server).await,
        };
        match answer {
            Ok(mut answer) => {
                answer[..2].copy_from_slice(given);
                return Some(answer);
            }
            Err(error) => tracing::debug!(%error, "the DNS server {server} does not answer"),
        }
    }
    None
}

async fn datagram(query: &[u8], id: [u8; 2], server: SocketAddr) -> io::Result<Vec<u8>> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of the system's choice: whoever makes answers up has to guess it too.
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let end = Instant::now() + ONE;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = timeout_at(end, socket.recv(&mut buffer)).await??;
        if is_reply(query, u16::from_be_bytes(id), &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn stream(query: &[u8], id: [u8; 2], server: SocketAddr) -> io::Result<Vec<u8>> {
    let asked = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(ONE, asked).await??;
    if is_reply(query, u16::from_be_bytes(id), &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}
