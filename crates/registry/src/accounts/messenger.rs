//! Owns orders on their way to a running server: over its Unix socket, or over HTTP with a name
//! and a password.
//!
//! One connection for each order. Nothing is sent before the server has proved who it is.

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    commands::To,
    password::{self, Terminal},
};
use crate::{admin::socket, api::admin::PATH, outbound::without_password};

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for an answer. A change waits for the disk, and a password for its hash.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of an answer: the list of as many accounts as there can be has less.
const MOST: usize = 64 << 20;
/// Where Docker and Podman keep the authorities of each registry, in a folder `HOST:PORT`.
const ENGINES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// The way to a server.
pub(crate) struct Messenger {
    line: Line,
    /// As in a URL, and for people.
    authority: String,
    path: String,
    authorization: Option<HeaderValue>,
}

enum Line {
    Socket(PathBuf),
    Tcp { host: String, port: u16, tls: Option<Arc<ClientConfig>> },
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Messenger {
    /// To the server that listens on a socket; its permissions say who may.
    pub(crate) fn over_socket(path: PathBuf) -> Self {
        let authority = path.display().to_string();
        Self { line: Line::Socket(path), authority, path: PATH.to_owned(), authorization: None }
    }

    /// To the server at a URL, as a user who proves it with a password, which is read here.
    pub(crate) fn over_http(url: &str, to: &To) -> Result<Self> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let shown = without_password(&whole);
        let unusable = || anyhow!("--server {shown}: expected https://HOST:PORT");
        let uri: Uri = whole.parse().map_err(|_| unusable())?;
        let authority = uri.authority().ok_or_else(unusable)?;
        ensure!(
            !authority.as_str().contains('@'),
            "--server {shown}: a name or password does not belong into the address, where others can see it (hint: \
             --login NAME, and the password is asked for)"
        );
        ensure!(uri.query().is_none(), unusable());
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("https") => (Some(Arc::new(trust(to, authority.as_str())?)), 443),
            Some("http") => {
                ensure!(
                    to.insecure_http || is_loopback(&host),
                    "{shown} does not encrypt, and everybody on the way could read the password (hint: use https, or \
                     say --insecure-http)"
                );
                (None, 80)
            }
            _ => return Err(unusable()),
        };
        let login = to.login.as_deref().unwrap_or("admin");
        ensure!(!login.contains(':'), "--login {login}: there is no colon in a name");
        let password = match &to.login_password_file {
            Some(path) => password::from_file(path)?,
            None => Terminal::open()
                .context("no password to log in with (hint: --login-password-file FILE, `-` for standard input)")?
                .secret(&format!("Password of {login} at {authority}: "))?,
        };
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{login}:{password}")));
        let mut authorization = HeaderValue::try_from(basic).expect("base64 is a header value");
        authorization.set_sensitive(true);
        Ok(Self {
            line: Line::Tcp { host, port: authority.port_u16().unwrap_or(port), tls },
            authority: authority.to_string(),
            path: format!("{}{PATH}", uri.path().trim_end_matches('/')),
            authorization: Some(authorization),
        })
    }

    /// Sends an order and returns the answer to it.
    pub(crate) async fn send(&self, order: &impl Serialize) -> Result<Value> {
        let authority = &self.authority;
        let (status, bytes) = self.exchange(serde_json::to_vec(order).context("write the order")?).await?;
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match (status, answer) {
            (StatusCode::OK, Some(answer)) => Ok(answer),
            (StatusCode::OK, None) => Err(anyhow!("{authority} answered something that is no answer to an order")),
            (status, answer) => Err(refusal(authority, status, answer.as_ref())),
        }
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<(StatusCode, Bytes)> {
        let authority = &self.authority;
        let stream = timeout(CONNECT_LIMIT, self.connect())
            .await
            .map_err(|_| anyhow!("no connection to {authority} within {CONNECT_LIMIT:?}"))??;
        let host = if matches!(self.line, Line::Socket(_)) { "localhost" } else { authority };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("roadstead-registry/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(body))).with_context(|| format!("ask {authority}"))?;
        let asked = async {
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
            let driver = tokio::spawn(connection);
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(|error| anyhow!("{error}"))?;
            driver.abort();
            anyhow::Ok((status, body.to_bytes()))
        };
        timeout(ANSWER_LIMIT, asked)
            .await
            .map_err(|_| anyhow!("no answer from {authority} within {ANSWER_LIMIT:?}; look whether it was done"))?
            .with_context(|| format!("ask {authority}"))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let authority = &self.authority;
        let failed = || format!("connect to {authority}");
        match &self.line {
            Line::Socket(path) => {
                let stream = socket::connect(path).with_context(failed)?;
                stream.set_nonblocking(true).with_context(failed)?;
                Ok(Box::new(UnixStream::from_std(stream).with_context(failed)?))
            }
            Line::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.with_context(failed)?;
                let Some(tls) = tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone()).with_context(failed)?;
                let connected = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
                Ok(Box::new(connected.map_err(|error| untrusted(authority, &error))?))
            }
        }
    }
}

/// Public authorities, those on the command line, and those that engines trust for this registry.
fn trust(to: &To, authority: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for folder in ENGINES {
        let files = fs::read_dir(format!("{folder}/{authority}")).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "crt")) {
            // As engines do, what cannot be read is passed over: --ca is for those who want to know.
            if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            }
        }
    }
    if let Some(path) = &to.ca {
        let shown = path.display();
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| anyhow!("read authorities from {shown}: {error}"))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        ensure!(added > 0, "{shown} holds no certificate of an authority");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn untrusted(authority: &str, error: &io::Error) -> anyhow::Error {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match cause {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            format!(" (hint: --ca FILE trusts its authority; `registry trust {authority} --install` does so for good)")
        }
        Some(rustls::Error::InvalidMessage(_)) => " (hint: it may not encrypt at all)".to_owned(),
        _ => String::new(),
    };
    anyhow!("connect to {authority}: {error}{hint}")
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a server said in place of an answer.
fn refusal(authority: &str, status: StatusCode, answer: Option<&Value>) -> anyhow::Error {
    let error = answer.map(|answer| &answer["errors"][0]);
    let text = |key: &str| error.and_then(|error| error[key].as_str()).filter(|text| !text.is_empty());
    let hint = error.and_then(|error| error["detail"]["hint"].as_str()).filter(|hint| !hint.is_empty());
    match (status, text("message")) {
        (StatusCode::UNAUTHORIZED, _) => anyhow!("{authority} does not know this name with this password"),
        (StatusCode::TOO_MANY_REQUESTS, message) => {
            anyhow!("{}", message.unwrap_or("too many wrong passwords; wait a while"))
        }
        // What an order is about may be missing as well, but that comes with a hint.
        (StatusCode::NOT_FOUND, _) if hint.is_none() => {
            anyhow!("{authority} takes no orders (hint: is it a registry with `auth: roadstead`?)")
        }
        (_, Some(message)) => match hint {
            Some(hint) => anyhow!("{message} (hint: {hint})"),
            None => anyhow!("{message}"),
        },
        (status, None) => anyhow!("{authority} answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> To {
        To {
            format: crate::cli::Format::Table,
            config: None,
            server: None,
            login: None,
            login_password_file: Some("/dev/null/nowhere".into()),
            ca: None,
            insecure_http: false,
        }
    }

    #[test]
    fn passwords_go_nowhere_unseen() {
        let check = |url: &str, want: &str| {
            let error = Messenger::over_http(url, &to()).err().expect("there is no password");
            assert!(format!("{error:#}").contains(want), "{url}: {error:#}");
        };
        // These are fine: what fails is the password, which comes last.
        for url in
            ["https://r.example", "r.example:5000", "http://localhost:5000", "http://127.0.0.2/p", "http://[::1]:1"]
        {
            check(url, "open password file");
        }
        check("http://r.example:5000", "does not encrypt");
        check("http://localhost.example", "does not encrypt");
        check("https://admin:secret@r.example", "does not belong into the address");
        check("ftp://r.example", "expected https://HOST:PORT");
        check("https://", "expected https://HOST:PORT");
        check("https://r.example/?x", "expected https://HOST:PORT");
        let error = Messenger::over_http("https://admin:secret@r.example", &to()).err().expect("refused");
        assert!(!format!("{error:#}").contains("secret"));
    }
}
