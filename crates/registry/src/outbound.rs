//! Owns requests that this server makes: to receivers of events and to watched addresses.
//!
//! One connection for each request: they are rare, and a receiver that moved is found again.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Where distributions keep the certificates that the machine trusts.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("the URL {0:?} cannot be used: expected http://host/… or https://host/…")]
    Url(String),
    #[error("connect to {host}")]
    Connect { host: String, source: io::Error },
    #[error("ask {host}")]
    Http { host: String, source: hyper::Error },
    #[error("no answer from {host} within {limit:?}")]
    TimedOut { host: String, limit: Duration },
}

/// Makes requests.
#[derive(Clone)]
pub(crate) struct Outbound(Arc<ClientConfig>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Outbound {
    /// Trusts what the machine trusts, or, where it says nothing, the public authorities that
    /// browsers trust.
    ///
    /// Without `web` no certificate is read, for those who only open connections.
    pub(crate) fn new(web: bool) -> Self {
        let mut roots = RootCertStore::empty();
        let named = std::env::var_os("SSL_CERT_FILE");
        let bundle = named.into_iter().chain(BUNDLES.map(Into::into)).find(|path| std::path::Path::new(path).exists());
        if web && let Some(certificates) = bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok()) {
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(config))
    }

    /// Makes a request and returns the answer's status. The answer's body is not read.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(String, Vec<String>)],
        body: Bytes,
        limit: Duration,
    ) -> Result<StatusCode, OutboundError> {
        let unusable = || OutboundError::Url(without_password(url));
        let uri: Uri = url.parse().map_err(|_| unusable())?;
        let authority = uri.authority().ok_or_else(unusable)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unusable()),
        };
        let host = authority.host().to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let (user, address) =
            authority.as_str().rsplit_once('@').map_or((None, authority.as_str()), |(u, a)| (Some(u), a));
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| unusable())?;
        let map = request.headers_mut();
        map.insert(header::HOST, HeaderValue::from_str(address).map_err(|_| unusable())?);
        map.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("roadstead-registry/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(user) = user {
            let user = crate::api::route::decode(user).ok_or_else(unusable)?;
            let value = format!("Basic {}", BASE64_STANDARD.encode(user.as_bytes()));
            map.insert(header::AUTHORIZATION, HeaderValue::try_from(value).expect("base64 is a header value"));
        }
        for (name, values) in headers {
            let Ok(name) = HeaderName::try_from(name) else { continue };
            map.remove(&name);
            for value in values.iter().filter_map(|value| HeaderValue::from_str(value).ok()) {
                map.append(name.clone(), value);
            }
        }
        let asked = async {
            let stream = self
                .connect(&host, port, tls)
                .await
                .map_err(|source| OutboundError::Connect { host: host.clone(), source })?;
            let failed = |source| OutboundError::Http { host: host.clone(), source };
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
            let driver = tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(failed);
            drop(sender);
            driver.abort();
            Ok(answer?.status())
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(result) => result,
            Err(_) => Err(OutboundError::TimedOut { host: host.clone(), limit }),
        }
    }

    async fn connect(&self, host: &str, port: u16, tls: bool) -> io::Result<Box<dyn Stream>> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port)).await?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await?))
    }
}

/// A URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…@{}", &url[..scheme], &url[at + 1..]),
        _ => url.to_owned(),
    }
}
