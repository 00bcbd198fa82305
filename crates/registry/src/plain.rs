//! Owns the answer to clients that speak plain HTTP on a port that speaks TLS: what to do instead.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::{HeaderName, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use registry_core::oci_error::Code;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{body::Body, failure::Failure};

/// The first byte of every TLS connection: a record of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// Largest head that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// What is taken of a body, in bytes and time, so that the client gets to the answer.
const BODY: (usize, Duration) = (64 * 1024, Duration::from_secs(1));

/// A connection whose first byte can be looked at without taking it.
pub(crate) trait Peek: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits for a byte and tells whether it begins TLS; also if the client hung up, for the handshake to fail.
    async fn begins_tls(&self) -> std::io::Result<bool>;
    /// Where the connection was accepted, if that says something to a client.
    fn local(&self) -> Option<SocketAddr>;
}

impl Peek for TcpStream {
    async fn begins_tls(&self) -> std::io::Result<bool> {
        let mut first = [HANDSHAKE];
        self.peek(&mut first).await?;
        Ok(first == [HANDSHAKE])
    }

    fn local(&self) -> Option<SocketAddr> {
        let address = self.local_addr().ok()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl Peek for UnixStream {
    async fn begins_tls(&self) -> std::io::Result<bool> {
        use rustix::net::{RecvFlags, recv};
        let mut first = [HANDSHAKE];
        self.async_io(Interest::READABLE, || Ok(recv(self, &mut first[..], RecvFlags::PEEK)?)).await?;
        Ok(first == [HANDSHAKE])
    }

    fn local(&self) -> Option<SocketAddr> {
        None
    }
}

/// Answers one request and closes. The whole takes at most `limit`.
pub(crate) async fn answer(stream: impl Peek, limit: Duration) {
    let local = stream.local();
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(refuse(request, local).await) });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limit).max_buf_size(MAX_HEAD).keep_alive(false);
    match timeout(limit, builder.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => tracing::debug!("plain HTTP on a TLS port"),
        Ok(Err(error)) => tracing::debug!(%error, "neither TLS nor HTTP on a TLS port"),
        Err(_) => tracing::debug!("plain HTTP on a TLS port took too long"),
    }
}

async fn refuse(request: Request<Incoming>, local: Option<SocketAddr>) -> Response<Body> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    // Whoever waits for a go-ahead sends no body without it.
    if !request.headers().contains_key(header::EXPECT) {
        let mut body = request.into_body();
        let mut left = BODY.0;
        let drain = async {
            while let Some(Ok(frame)) = body.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        // Either way the answer is next.
        timeout(BODY.1, drain).await.ok();
    }
    Failure::from(Code::Unsupported)
        .status(StatusCode::BAD_REQUEST)
        .message(advice(host.as_deref(), local))
        .header(HeaderName::from_static("docker-distribution-api-version"), "registry/2.0")
        .header(header::CONNECTION, "close")
        .into_response()
}

/// What the client should do, with the address it asked for or, failing that, the one it reached.
fn advice(host: Option<&str>, local: Option<SocketAddr>) -> String {
    let sane = |host: &Authority| {
        host.as_str().len() < 264 && host.as_str().chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
    };
    let asked = host.and_then(|host| host.parse::<Authority>().ok()).filter(sane);
    match asked.map(|host| host.to_string()).or(local.map(|address| address.to_string())) {
        Some(address) => format!(
            "this port speaks TLS, and the request came in plain HTTP: use https://{address}/; for Docker and podman to \
             trust it, run `registry trust {address}` on their host"
        ),
        None => "this socket speaks TLS, and the request came in plain HTTP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn the_advice_names_the_address() {
        let check = |host: Option<&str>, local: Option<&str>, expected: &str| {
            let seen = advice(host, local.map(|local| local.parse().expect("an address")));
            assert!(seen.contains(expected), "{seen}");
        };
        let local = Some("192.0.2.7:5000");
        check(Some("registry.test:5000"), local, "use https://registry.test:5000/;");
        check(Some("registry.test:5000"), local, "run `registry trust registry.test:5000` on");
        check(Some("[::1]:5000"), local, "https://[::1]:5000/");
        for odd in [
            None,
            Some(""),
            Some("a b"),
            Some("user@registry.test"),
            Some("a/b"),
            Some("`x`"),
            Some("$(x)"),
            Some(&*"x".repeat(300)),
        ] {
            check(odd, local, "https://192.0.2.7:5000/");
        }
        check(None, Some("[2001:db8::1]:5000"), "https://[2001:db8::1]:5000/");
        check(None, None, "this socket speaks TLS");
    }
}
