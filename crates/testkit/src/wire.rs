//! A raw connection to a server: exact bytes out, one answer after the other in.
//!
//! For what [`crate::http`] would never send: pipelined, broken, slow and unfinished requests. It
//! keeps the connection open between answers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{Response, parse_one};

const TIMEOUT: Duration = Duration::from_secs(30);

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An open connection.
pub struct Wire {
    stream: Stream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects to `<host>:<port>`.
    pub fn tcp(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Tcp(stream), received: Vec::new() })
    }

    /// Connects to `127.0.0.1:<port>` over TLS, trusting the authorities of a PEM file; the handshake is complete.
    pub fn tls(address: &str, authorities: &Path) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(authorities).map_err(io::Error::other)?;
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(session, stream))), received: Vec::new() })
    }

    /// The certificate that the server showed, DER; empty without TLS.
    pub fn certificate(&self) -> Vec<u8> {
        match &self.stream {
            Stream::Tls(stream) => stream.conn.peer_certificates().map_or_else(Vec::new, |chain| chain[0].to_vec()),
            Stream::Tcp(_) | Stream::Unix(_) => Vec::new(),
        }
    }

    /// Connects to a Unix socket.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: Stream::Unix(stream), received: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Stream::Unix(stream) => stream.write_all(bytes.as_ref()),
            Stream::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        }
    }

    /// Sends a body in chunks of `piece` bytes, without the last chunk's end when `open` is set.
    pub fn send_chunks(&mut self, body: &[u8], piece: usize, open: bool) -> io::Result<()> {
        for part in body.chunks(piece) {
            self.send(format!("{:x}\r\n", part.len()))?;
            self.send(part)?;
            self.send("\r\n")?;
        }
        if open { Ok(()) } else { self.send("0\r\n\r\n") }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        }
    }

    /// Reads the next answer, interim ones included. `method` is that of its request.
    pub fn answer(&mut self, method: &str) -> io::Result<Response> {
        loop {
            if let Some(end) = self.complete(method) {
                let raw: Vec<u8> = self.received.drain(..end).collect();
                return parse_one(method, &raw);
            }
            if self.read_some()? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed after {:?}", String::from_utf8_lossy(&self.received)),
                ));
            }
        }
    }

    /// Whether the server has closed the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && matches!(self.read_some(), Ok(0))
    }

    /// The length of the first answer once it is here; its body has a `Content-Length` or none.
    fn complete(&self, method: &str) -> Option<usize> {
        let head = self.received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let parsed = parse_one("HEAD", &self.received[..head]).ok()?;
        let bodiless = method == "HEAD" || matches!(parsed.status, 100..200 | 204 | 304);
        let length = if bodiless { 0 } else { parsed.header("content-length").parse().unwrap_or(0) };
        (self.received.len() >= head + length).then_some(head + length)
    }

    fn read_some(&mut self) -> io::Result<usize> {
        let mut part = [0; 16 * 1024];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut part)?,
            Stream::Unix(stream) => stream.read(&mut part)?,
            Stream::Tls(stream) => stream.read(&mut part)?,
        };
        self.received.extend_from_slice(&part[..count]);
        Ok(count)
    }
}
