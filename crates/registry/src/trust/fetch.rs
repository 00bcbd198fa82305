//! Asks a server for its certificates, without believing a word of them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use service::tls::name::Name;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Certificate, address::Address};

/// Why a server did not tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("start a client")]
    Start(#[source] io::Error),
    #[error("find the address of {0}; is the name right?")]
    Resolve(String, #[source] io::Error),
    #[error("connect to {0}: refused; is the registry running, and is this its port?")]
    Refused(String),
    #[error("connect to {0}")]
    Connect(String, #[source] io::Error),
    #[error(
        "{0} does not speak TLS, probably plain HTTP: nothing is there to trust; have it serve TLS, with http.tls or roadstead.authority in its configuration"
    )]
    Plain(String),
    #[error("speak TLS with {0}")]
    Handshake(String, #[source] io::Error),
    #[error("{0} did not answer within {limit} s", limit = .1.as_secs())]
    TimedOut(String, Duration),
}

/// The certificates that the server sends, its own first.
pub(super) fn chain(address: &Address, limit: Duration) -> Result<Vec<Certificate>, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FetchError::Start)?;
    let result = runtime.block_on(async { timeout(limit, ask(address)).await });
    // A look-up of a name may still wait on its thread.
    runtime.shutdown_background();
    result.unwrap_or_else(|_| Err(FetchError::TimedOut(address.text.clone(), limit)))
}

async fn ask(address: &Address) -> Result<Vec<Certificate>, FetchError> {
    let shown = || address.text.clone();
    let targets: Vec<SocketAddr> = match &address.host {
        Name::Ip(ip) => vec![SocketAddr::new(*ip, address.port)],
        Name::Dns(name) => lookup_host((name.as_str(), address.port))
            .await
            .map_err(|error| FetchError::Resolve(name.clone(), error))?
            .collect(),
    };
    let stream = TcpStream::connect(&*targets).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => FetchError::Refused(shown()),
        _ => FetchError::Connect(shown(), error),
    })?;
    let provider = Arc::new(ring::default_provider());
    let listener = Arc::new(Listener { provider: Arc::clone(&provider), heard: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the library's own algorithms serve its own versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&listener) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name =
        ServerName::try_from(address.host.to_string()).expect("every name for a certificate is one for a server");
    let outcome = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let heard = std::mem::take(&mut *listener.heard.lock().unwrap_or_else(PoisonError::into_inner));
    match outcome {
        Ok(_) => Ok(heard),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            // Such as a server that asks for a certificate of ours: it has told its own by then.
            Some(Error::AlertReceived(_)) if !heard.is_empty() => Ok(heard),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Err(FetchError::Plain(shown())),
            _ => Err(FetchError::Handshake(shown(), error)),
        },
    }
}

/// Notes the certificates and accepts them: nothing is said to this server that a stranger may not hear.
#[derive(Debug)]
struct Listener {
    provider: Arc<CryptoProvider>,
    heard: Mutex<Vec<Certificate>>,
}

impl ServerCertVerifier for Listener {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(own).chain(others).map(|der| der.clone().into_owned());
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use super::*;

    #[test]
    fn silence_and_nonsense_end_in_time() {
        let check = |said: &'static [u8], expected: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address").to_string().parse().expect("an address");
            let (told, ended) = std::sync::mpsc::channel::<()>();
            let server = thread::spawn(move || {
                let mut stream = listener.accept().expect("a client").0;
                stream.write_all(said).expect("said");
                // The connection stays open until the client has given up.
                ended.recv().ok();
            });
            let seen = chain(&address, Duration::from_millis(300)).expect_err("no certificates").to_string();
            assert!(seen.contains(expected), "{seen}");
            drop(told);
            server.join().expect("the server ends");
        };
        check(b"", "did not answer within");
        check(b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS");
        check(b"\x16\x03\x03\xff\xff", "speak TLS with");
        check(b"\x15\x03\x03\x00\x02\x02\x28", "speak TLS with");
    }
}
