//! Owns the server's side of TLS: from files and choices to a configuration for rustls.
//!
//! It holds no connections. `reload` keeps a configuration that follows its files, `certificate` says what is in a
//! certificate, `name` what one can be made out to.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, InconsistentKeys, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject as _},
    },
    server::{
        NoClientAuth, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

pub mod certificate;
pub mod name;
pub mod reload;

/// Largest file that is read, in bytes. The bundle of all public authorities is a tenth of it.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// How the server presents itself, and what it asks of clients.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// PEM file with the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// PEM files with the authorities that vouch for clients.
    pub client_authorities: Vec<PathBuf>,
    /// What is asked of clients.
    pub client_mode: ClientMode,
    /// Refuses TLS 1.2. Nothing older is ever spoken.
    pub tls13_only: bool,
    /// IANA numbers of the cipher suites to use, best first; empty leaves the choice to the library. A list without
    /// suites of TLS 1.3 is one for TLS 1.2, and leaves TLS 1.3 as it is.
    pub cipher_suites: Vec<u16>,
    /// Application protocols, best first, such as `h2` and `http/1.1`.
    pub alpn: Vec<Vec<u8>>,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// Nothing.
    None,
    /// A certificate; any will do, and none will too.
    Request,
    /// A certificate; any will do.
    RequireAny,
    /// A certificate from one of the authorities, or none.
    VerifyIfGiven,
    /// A certificate from one of the authorities.
    RequireAndVerify,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("read the {role} `{}`", path.display())]
    Read {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("read the {role} `{}`: larger than 4 MiB", path.display())]
    TooLarge {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
    },
    /// A file has a damaged PEM section.
    #[error("read the {role} `{}`: not valid PEM", path.display())]
    Pem {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file has no `BEGIN CERTIFICATE` section.
    #[error("read the {role} `{}`: no certificate in the file, expected a PEM section `BEGIN CERTIFICATE`", path.display())]
    NoCertificate {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
    },
    /// A file has no section with a private key.
    #[error("read the private key `{}`: no private key in the file, expected a PEM section `BEGIN PRIVATE KEY`", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is protected by a passphrase, which nobody is there to type.
    #[error("read the private key `{}`: the key is encrypted; remove its passphrase with `openssl pkey`", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of a kind or size that cannot be used.
    #[error("use the private key `{}`", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A certificate cannot be used.
    #[error("use the {role} `{}`", path.display())]
    UnusableCertificate {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Key and certificate are not a pair.
    #[error("use the certificate `{}`: the private key `{}` does not belong to it (the server's own certificate must come first in the file)", certificate.display(), key.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Clients are to be verified, but no authority is named.
    #[error("verify clients: no client authority is given")]
    NoAuthorities,
    /// The authorities cannot be used.
    #[error("verify clients")]
    Verifier {
        /// What is wrong with them.
        source: VerifierBuilderError,
    },
    /// None of the listed cipher suites is supported.
    #[error(
        "choose cipher suites: none of {} is supported, only those with forward secrecy and AEAD are",
        listed(suites)
    )]
    NoCipherSuite {
        /// The list.
        suites: Vec<u16>,
    },
    /// Anything else that rustls objects to.
    #[error("set up tls")]
    Setup {
        /// What rustls said.
        source: rustls::Error,
    },
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server's certificate.
    Certificate,
    /// The server's private key.
    Key,
    /// Authorities that vouch for clients.
    ClientAuthority,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
            Self::ClientAuthority => "client authority",
        })
    }
}

fn listed(suites: &[u16]) -> String {
    let names: Vec<String> = suites.iter().map(|suite| format!("0x{suite:04x}")).collect();
    names.join(", ")
}

/// Reads the files and makes a configuration of them. Blocks while reading.
///
/// Sessions resume by tickets, under a key that this configuration makes for itself and never shows.
///
/// # Errors
/// See [`TlsError`]; each names the file.
pub fn server_config(options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let setup = |source| TlsError::Setup { source };
    let provider = Arc::new(provider(options)?);
    let versions = if options.tls13_only { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(setup)?
        .with_client_cert_verifier(client_verifier(options, &provider)?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(options, &provider)?)));
    config.ignore_client_order = !options.cipher_suites.is_empty();
    config.alpn_protocols = options.alpn.clone();
    config.ticketer = ring::Ticketer::new().map_err(setup)?;
    Ok(Arc::new(config))
}

/// The library's algorithms, with the chosen cipher suites in the chosen order.
fn provider(options: &TlsOptions) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if options.cipher_suites.is_empty() {
        return Ok(provider);
    }
    let all = &provider.cipher_suites;
    let find = |number: &u16| all.iter().copied().find(|suite| u16::from(suite.suite()) == *number);
    let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();

    let unsupported: Vec<u16> = options.cipher_suites.iter().copied().filter(|number| find(number).is_none()).collect();
    let mut suites: Vec<SupportedCipherSuite> = options.cipher_suites.iter().filter_map(find).collect();
    if suites.is_empty() {
        return Err(TlsError::NoCipherSuite { suites: options.cipher_suites.clone() });
    }
    if !unsupported.is_empty() {
        tracing::warn!("cipher suites that are not supported are left out: {}", listed(&unsupported));
    }
    if !suites.iter().any(is_tls13) {
        let tls13 = all.iter().copied().filter(is_tls13);
        suites.splice(0..0, tls13);
    }
    provider.cipher_suites = suites;
    Ok(provider)
}

fn certified_key(options: &TlsOptions, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(Role::Certificate, &options.certificate)?;
    let key = provider
        .key_provider
        .load_private_key(read_key(&options.key)?)
        .map_err(|source| TlsError::UnusableKey { path: options.key.clone(), source })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // `Unknown` is a key that cannot tell its public half; handshakes will show.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: options.certificate.clone(), key: options.key.clone() })
        }
        Err(source) => {
            Err(TlsError::UnusableCertificate { role: Role::Certificate, path: options.certificate.clone(), source })
        }
    }
}

fn client_verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mode = options.client_mode;
    if mode == ClientMode::None {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut roots = RootCertStore::empty();
    for path in &options.client_authorities {
        for certificate in read_certificates(Role::ClientAuthority, path)? {
            roots.add(certificate).map_err(|source| TlsError::UnusableCertificate {
                role: Role::ClientAuthority,
                path: path.clone(),
                source,
            })?;
        }
    }
    if matches!(mode, ClientMode::Request | ClientMode::RequireAny) {
        let mandatory = mode == ClientMode::RequireAny;
        return Ok(Arc::new(AnyClient { mandatory, hints: roots.subjects(), provider: Arc::clone(provider) }));
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mode == ClientMode::VerifyIfGiven { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|source| TlsError::Verifier { source })
}

/// Accepts every client certificate, from whomever it is, of whoever has its private key.
#[derive(Debug)]
struct AnyClient {
    mandatory: bool,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn read(role: Role, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content))
        .map_err(|source| TlsError::Read { role, path: path.to_owned(), source })?;
    if content.len() as u64 > MAX_FILE {
        return Err(TlsError::TooLarge { role, path: path.to_owned() });
    }
    Ok(content)
}

fn read_certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(role, path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { role, path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { role, path: path.to_owned() });
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = read(Role::Key, path)?;
    match PrivateKeyDer::from_pem_slice(&content) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(&content) => Err(TlsError::EncryptedKey { path: path.to_owned() }),
        Err(pem::Error::NoItemsFound) => Err(TlsError::NoKey { path: path.to_owned() }),
        Err(source) => Err(TlsError::Pem { role: Role::Key, path: path.to_owned(), source }),
    }
}

/// Looks for the marks of PKCS#8 and of the older OpenSSL format.
fn is_encrypted(content: &[u8]) -> bool {
    content.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    })
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fs};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{ClientConfig, ProtocolVersion, pki_types::ServerName};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const AES128: u16 = 0xc02f;
    const CHACHA: u16 = 0xcca8;
    const RSA_CBC: u16 = 0x002f;
    const TLS13_CHACHA: u16 = 0x1303;

    /// Two authorities; the server and the client `known` have certificates of the first.
    struct Files {
        directory: TempDir,
        roots: RootCertStore,
    }

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut roots = RootCertStore::empty();
            for (authority, clients) in [("ca", &["server", "known"][..]), ("other-ca", &["stranger"])] {
                let mut params = CertificateParams::new(vec![]).unwrap();
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.distinguished_name.push(rcgen::DnType::CommonName, authority);
                let key = KeyPair::generate().unwrap();
                let certificate = params.self_signed(&key).unwrap();
                fs::write(directory.path().join(format!("{authority}.pem")), certificate.pem()).unwrap();
                if authority == "ca" {
                    roots.add(certificate.der().clone()).unwrap();
                }
                let issuer = Issuer::new(params, key);
                for name in clients {
                    let key = KeyPair::generate().unwrap();
                    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                    let certificate = params.signed_by(&key, &issuer).unwrap();
                    fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
                    fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
                }
            }
            Self { directory, roots }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn options(&self) -> TlsOptions {
            TlsOptions {
                certificate: self.path("server.pem"),
                key: self.path("server.key"),
                client_authorities: vec![],
                client_mode: ClientMode::None,
                tls13_only: false,
                cipher_suites: vec![],
                alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            }
        }

        /// Connects as a client, if any, whose certificate and key may come from different files, and speaks.
        async fn connect(
            &self,
            options: &TlsOptions,
            client: Option<(&str, &str)>,
            version: &'static rustls::SupportedProtocolVersion,
        ) -> Result<(ProtocolVersion, u16, Option<Vec<u8>>, usize), String> {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(self.roots.clone());
            let mut config = match client {
                None => builder.with_no_client_auth(),
                Some((certificate, key)) => {
                    let chain = read_certificates(Role::Certificate, &self.path(certificate)).unwrap();
                    let key = ring::sign::any_supported_type(&read_key(&self.path(key)).unwrap()).unwrap();
                    builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
                }
            };
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let (near, far) = tokio::io::duplex(64 * 1024);
            let acceptor = TlsAcceptor::from(server_config(options).expect("a configuration"));
            let client = async {
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                Ok::<_, io::Error>(answer)
            };
            let server = async {
                let mut stream = acceptor.accept(far).await?;
                let (_, session) = stream.get_ref();
                let facts = (
                    session.protocol_version().unwrap(),
                    u16::from(session.negotiated_cipher_suite().unwrap().suite()),
                    session.alpn_protocol().map(<[u8]>::to_vec),
                    session.peer_certificates().unwrap_or_default().len(),
                );
                stream.write_all(b"hello").await?;
                stream.shutdown().await?;
                Ok::<_, io::Error>(facts)
            };
            let (answer, facts) = tokio::join!(client, server);
            let facts = facts.map_err(|error| error.to_string())?;
            assert_eq!(answer.map_err(|error| error.to_string())?, "hello");
            Ok(facts)
        }
    }

    #[tokio::test]
    async fn client_modes() {
        let files = Files::new();
        let (known, stranger) = (Some(("known.pem", "known.key")), Some(("stranger.pem", "stranger.key")));
        // Somebody else's certificate without its key.
        let thief = Some(("known.pem", "stranger.key"));
        for (mode, client, certificates) in [
            (ClientMode::None, None, Some(0)),
            (ClientMode::None, known, Some(0)),
            (ClientMode::Request, None, Some(0)),
            (ClientMode::Request, known, Some(1)),
            (ClientMode::Request, stranger, Some(1)),
            (ClientMode::Request, thief, None),
            (ClientMode::RequireAny, None, None),
            (ClientMode::RequireAny, stranger, Some(1)),
            (ClientMode::RequireAny, thief, None),
            (ClientMode::VerifyIfGiven, None, Some(0)),
            (ClientMode::VerifyIfGiven, known, Some(1)),
            (ClientMode::VerifyIfGiven, stranger, None),
            (ClientMode::RequireAndVerify, None, None),
            (ClientMode::RequireAndVerify, known, Some(1)),
            (ClientMode::RequireAndVerify, stranger, None),
            (ClientMode::RequireAndVerify, thief, None),
        ] {
            let options =
                TlsOptions { client_mode: mode, client_authorities: vec![files.path("ca.pem")], ..files.options() };
            for version in [&TLS12, &TLS13] {
                let result = files.connect(&options, client, version).await;
                let seen = result.as_ref().ok().map(|facts| facts.3);
                assert_eq!(seen, certificates, "{mode:?} {client:?} {version:?}: {result:?}");
            }
        }
    }

    #[tokio::test]
    async fn versions_suites_and_protocols() {
        // ECDSA twins of the RSA suites, as the test's keys are of that kind.
        const ECDSA_AES128: u16 = 0xc02b;
        const ECDSA_CHACHA: u16 = 0xcca9;
        let files = Files::new();
        for (tls13_only, suites, tls12, tls13) in [
            (false, &[][..], Some(0xc02c), Some(0x1302)),
            (true, &[], None, Some(0x1302)),
            (false, &[ECDSA_CHACHA, ECDSA_AES128], Some(ECDSA_CHACHA), Some(0x1302)),
            (false, &[RSA_CBC, ECDSA_AES128, ECDSA_CHACHA], Some(ECDSA_AES128), Some(0x1302)),
            (false, &[TLS13_CHACHA], None, Some(TLS13_CHACHA)),
            (true, &[ECDSA_AES128], None, Some(0x1302)),
            (false, &[ECDSA_AES128, TLS13_CHACHA], Some(ECDSA_AES128), Some(TLS13_CHACHA)),
            // RSA suites are no use with the test's ECDSA key.
            (false, &[AES128, CHACHA], None, Some(0x1302)),
        ] {
            let options = TlsOptions { tls13_only, cipher_suites: suites.to_vec(), ..files.options() };
            for (version, expected) in [(&TLS12, tls12), (&TLS13, tls13)] {
                let result = files.connect(&options, None, version).await;
                assert_eq!(result.as_ref().ok().map(|facts| facts.1), expected, "{suites:x?} {version:?}: {result:?}");
                if let Ok((spoken, _, protocol, _)) = result {
                    assert_eq!((spoken, protocol.as_deref()), (version.version, Some(&b"http/1.1"[..])));
                }
            }
        }
    }

    #[test]
    fn errors_name_the_file() {
        let files = Files::new();
        let write = |name: &str, content: &str| fs::write(files.path(name), content).unwrap();
        write("empty", "");
        write("text", "not a certificate\n");
        write("damaged", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
        write("bogus", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        write("bogus-key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        write("pkcs8", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        write(
            "openssl",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
             -----END RSA PRIVATE KEY-----\n",
        );
        File::create(files.path("huge")).unwrap().set_len(MAX_FILE + 1).unwrap();

        let check = |change: &dyn Fn(&mut TlsOptions), file: &str, problem: &str| {
            let mut options = files.options();
            change(&mut options);
            let error = server_config(&options).unwrap_err();
            let mut text = error.to_string();
            if let Some(source) = error.source() {
                text = format!("{text}: {source}");
            }
            assert!(text.contains(&format!("`{}`", files.path(file).display())) || file.is_empty(), "{text}");
            assert!(text.contains(problem), "{text} should say {problem}");
        };
        for (file, problem) in [
            ("missing", "No such file"),
            ("empty", "no certificate in the file"),
            ("text", "no certificate in the file"),
            ("server.key", "no certificate in the file"),
            ("damaged", "not valid PEM"),
            ("bogus", "invalid peer certificate"),
            ("huge", "larger than 4 MiB"),
            ("known.pem", "does not belong to it"),
        ] {
            check(&|options| options.certificate = files.path(file), file, problem);
        }
        for (file, problem) in [
            ("missing", "No such file"),
            ("empty", "no private key in the file"),
            ("server.pem", "no private key in the file"),
            ("bogus-key", "failed to parse private key"),
            ("pkcs8", "encrypted"),
            ("openssl", "encrypted"),
            ("known.key", "does not belong to it"),
        ] {
            check(&|options| options.key = files.path(file), file, problem);
        }
        let authority = |options: &mut TlsOptions, file: &str| {
            options.client_mode = ClientMode::VerifyIfGiven;
            options.client_authorities = vec![files.path("ca.pem"), files.path(file)];
        };
        for (file, problem) in [("missing", "No such file"), ("empty", "no certificate"), ("bogus", "certificate")] {
            check(&|options| authority(options, file), file, problem);
        }
        check(&|options| options.client_mode = ClientMode::RequireAndVerify, "", "no client authority is given");
        check(&|options| options.cipher_suites = vec![RSA_CBC], "", "none of 0x002f is supported");
    }
}
