//! The typed configuration: what the server may rely on, every default filled in.
//!
//! Plain data. Owns no parsing; `interpret` builds it from a tree that has no errors.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use regex_lite::Regex;
use registry_core::{
    gc::Policy,
    retention::{Quota, RetentionRule, TagRule},
};
use service::tls::name::Name;

use crate::proxies::Proxies;

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `log`.
    pub(crate) log: Log,
    /// `storage`.
    pub(crate) storage: Storage,
    /// `auth`.
    pub(crate) auth: Auth,
    /// `http`.
    pub(crate) http: Http,
    /// `notifications`.
    pub(crate) notifications: Notifications,
    /// `health`.
    pub(crate) health: Health,
    /// `validation`.
    pub(crate) validation: Validation,
    /// Largest `n` a client may ask of `_catalog`; more is refused. At least 1.
    pub(crate) catalog_max_entries: u32,
    /// Most tags in one answer when a client sends `n`; a larger `n` is lowered to it. At least 1.
    pub(crate) tags_max: u32,
    /// `roadstead.limits`.
    pub(crate) limits: Limits,
    /// `roadstead.authority`; `http.tls` names its files then.
    pub(crate) authority: Option<Authority>,
    /// `roadstead.proxies`.
    pub(crate) proxies: Proxies,
    /// `roadstead.gc`.
    pub(crate) gc: Collecting,
    /// `roadstead.scrub`.
    pub(crate) scrub: Scrubbing,
    /// `roadstead.retention`.
    pub(crate) retention: Retention,
    /// `roadstead.immutable`, in the order written.
    pub(crate) immutable: Vec<TagRule>,
    /// `roadstead.quotas`, in the order written; no two have the same prefix.
    pub(crate) quotas: Vec<Quota>,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// Least severe level that is written.
    pub(crate) level: Level,
    /// `None`: text on a terminal, JSON otherwise.
    pub(crate) formatter: Option<Formatter>,
    /// Added to every line.
    pub(crate) fields: BTreeMap<String, String>,
    /// Whether requests are logged.
    pub(crate) access: bool,
}

/// A log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Only failures.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
}

/// A log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Formatter {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// JSON with the field names Logstash expects.
    Logstash,
}

/// Where things are kept and how they are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// The one driver.
    pub(crate) driver: Driver,
    /// Whether manifests, tags and blobs can be deleted over HTTP.
    pub(crate) delete: bool,
    /// Whether every write is refused.
    pub(crate) readonly: bool,
    /// Removal of abandoned uploads; `None` if switched off.
    pub(crate) upload_purging: Option<UploadPurging>,
}

/// A place for blobs and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Driver {
    /// A directory.
    Filesystem {
        /// Everything is kept below it.
        root: String,
    },
    /// Memory, for tests: all is gone at the end.
    Memory,
}

/// When abandoned uploads go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadPurging {
    /// Uploads begun longer ago are removed. Above zero.
    pub(crate) age: Duration,
    /// Time between two rounds. Above zero.
    pub(crate) interval: Duration,
    /// Only log what would go.
    pub(crate) dry_run: bool,
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    /// Nothing is said: everybody, unless the data directory has accounts.
    Unset,
    /// Everybody.
    None,
    /// Everybody who sends any `Authorization` header; for development.
    Silly {
        /// Named in the challenge.
        realm: String,
        /// Named in the challenge.
        service: String,
    },
    /// Users of a password file.
    Htpasswd {
        /// Named in the challenge.
        realm: String,
        /// The file, bcrypt entries only.
        path: String,
    },
    /// Bearers of a token from a token server.
    Token(TokenAuth),
    /// Users and robots of this registry.
    Roadstead(RoadsteadAuth),
}

/// How this registry's own tokens are issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoadsteadAuth {
    /// Where clients get tokens; `None` for the host that they asked.
    pub(crate) realm: Option<String>,
    /// The audience of the tokens.
    pub(crate) service: String,
    /// How long an access token lives. One minute to one hour.
    pub(crate) token_lifetime: Duration,
    /// How long a refresh token lives. One hour to 400 days.
    pub(crate) refresh_lifetime: Duration,
}

impl Default for RoadsteadAuth {
    fn default() -> Self {
        Self {
            realm: None,
            service: "registry".to_owned(),
            token_lifetime: Duration::from_secs(300),
            refresh_lifetime: Duration::from_secs(90 * 86_400),
        }
    }
}

/// How bearer tokens are asked for and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenAuth {
    /// Where clients get tokens.
    pub(crate) realm: Realm,
    /// The audience a token must name.
    pub(crate) service: String,
    /// The issuer a token must name.
    pub(crate) issuer: String,
    /// PEM file of trusted certificates. This or `jwks` is set.
    pub(crate) root_cert_bundle: Option<String>,
    /// JWKS file of trusted keys.
    pub(crate) jwks: Option<String>,
    /// Accepted `alg` values, never empty; names as in RFC 7518 and `EdDSA`.
    pub(crate) signing_algorithms: Vec<&'static str>,
}

/// The token server's address in a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Realm {
    /// As configured.
    Fixed(String),
    /// The host the client asked for, with this path; scheme from `X-Forwarded-Proto`, else `https`.
    SameHost {
        /// Begins with a slash.
        path: String,
    },
}

/// How HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http {
    /// Where the API listens.
    pub(crate) listen: Listen,
    /// Path before `/v2/`: empty, or `/a/b` without a trailing slash.
    pub(crate) prefix: String,
    /// External base of generated URLs, `https://name[:port][/path]` without a trailing slash.
    pub(crate) host: Option<String>,
    /// Whether `Location` headers carry only a path.
    pub(crate) relative_urls: bool,
    /// Longest wait for open requests at shutdown; `None` leaves it to the server.
    pub(crate) drain_timeout: Option<Duration>,
    /// Added to every response, in the order written.
    pub(crate) headers: Headers,
    /// Serve TLS.
    pub(crate) tls: Option<Tls>,
    /// The second listener, for health and metrics.
    pub(crate) debug: Option<Debug>,
    /// Whether HTTP/2 is offered over TLS.
    pub(crate) http2: bool,
    /// Whether HTTP/2 is accepted without TLS.
    pub(crate) h2c: bool,
}

/// Header names, each with its values; both valid for HTTP.
pub(crate) type Headers = Vec<(String, Vec<String>)>;

/// A socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// TCP.
    Tcp(Address),
    /// A Unix socket at this path.
    Unix(String),
}

/// A host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or IP address without brackets; empty for all addresses of the machine.
    pub(crate) host: String,
    /// Zero lets the system choose.
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// TLS of the API listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// PEM file: the certificate and its chain.
    pub(crate) certificate: String,
    /// PEM file: the private key.
    pub(crate) key: String,
    /// Client certificates; `None` if they are not asked for.
    pub(crate) clients: Option<ClientCertificates>,
    /// Refuse TLS 1.2.
    pub(crate) tls13_only: bool,
    /// What may be negotiated, never empty, best first. Holds all TLS 1.3 suites, as in the original.
    pub(crate) cipher_suites: Vec<CipherSuite>,
}

/// A certificate authority of this server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Where its files are.
    pub(crate) directory: String,
    /// What the server's certificate is made out to, besides the names of the machine.
    pub(crate) names: Vec<Name>,
}

/// Whose client certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    /// PEM files of authorities, never empty.
    pub(crate) authorities: Vec<String>,
    /// How strictly.
    pub(crate) mode: ClientAuth,
}

/// How strictly client certificates are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// Ask; accept any or none.
    Request,
    /// Ask; accept any, not none.
    RequireAny,
    /// Ask; accept a verified one or none.
    VerifyIfGiven,
    /// Accept only a verified one.
    RequireAndVerify,
}

/// A cipher suite: its name and its IANA number, which `rustls` uses too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CipherSuite {
    /// The name in the IANA registry and in the configuration.
    pub(crate) name: &'static str,
    /// The number in the IANA registry.
    pub(crate) number: u16,
}

impl CipherSuite {
    /// Every suite this server can speak, best first.
    pub(crate) const ALL: [Self; 9] = [
        Self { name: "TLS_AES_256_GCM_SHA384", number: 0x1302 },
        Self { name: "TLS_AES_128_GCM_SHA256", number: 0x1301 },
        Self { name: "TLS_CHACHA20_POLY1305_SHA256", number: 0x1303 },
        Self { name: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", number: 0xc02c },
        Self { name: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", number: 0xc02b },
        Self { name: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", number: 0xcca9 },
        Self { name: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", number: 0xc030 },
        Self { name: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", number: 0xc02f },
        Self { name: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", number: 0xcca8 },
    ];

    /// Whether it belongs to TLS 1.3.
    pub(crate) fn is_tls13(self) -> bool {
        self.number >> 8 == 0x13
    }
}

/// The debug listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debug {
    /// Where it listens.
    pub(crate) address: Address,
    /// Path of the metrics page, begins with a slash; `None` if switched off.
    pub(crate) metrics_path: Option<String>,
}

/// Who is told about pushes and pulls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Notifications {
    /// Whether manifest events list what the manifest refers to.
    pub(crate) include_references: bool,
    /// Enabled receivers only.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A receiver of events.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// For logs and metrics.
    pub(crate) name: String,
    /// `http` or `https`. May contain a password.
    pub(crate) url: String,
    /// Sent with every event. May contain a password.
    pub(crate) headers: Headers,
    /// Longest wait for an answer. Above zero.
    pub(crate) timeout: Duration,
    /// Failures in a row before a pause. At least 1.
    pub(crate) threshold: u32,
    /// The pause. Above zero.
    pub(crate) backoff: Duration,
    /// Events about these media types are not sent; from both keys that can say so.
    pub(crate) ignored_media_types: Vec<String>,
    /// Events with these actions are not sent.
    pub(crate) ignored_actions: Vec<String>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What must be well for the server to answer at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// A look at the storage; `None` if switched off.
    pub(crate) storage: Option<Pace>,
    /// Unhealthy while the file exists.
    pub(crate) files: Vec<FileCheck>,
    /// Unhealthy while the address does not answer as expected.
    pub(crate) http: Vec<HttpCheck>,
    /// Unhealthy while the address cannot be connected to.
    pub(crate) tcp: Vec<TcpCheck>,
}

/// How often something is checked and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Time between two checks. Above zero.
    pub(crate) interval: Duration,
    /// Failures in a row that count as unhealthy. At least 1.
    pub(crate) threshold: u32,
}

/// `health.file[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileCheck {
    /// The file that must not exist.
    pub(crate) file: String,
    /// Time between two looks. Above zero.
    pub(crate) interval: Duration,
}

/// `health.http[]`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    /// Asked with `HEAD`.
    pub(crate) uri: String,
    /// Sent along. May contain a password.
    pub(crate) headers: Headers,
    /// The only status that is well, 100 to 599.
    pub(crate) status: u16,
    /// Longest wait. Above zero.
    pub(crate) timeout: Duration,
    /// How often.
    pub(crate) pace: Pace,
}

impl fmt::Debug for HttpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck").field("status", &self.status).field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// `health.tcp[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpCheck {
    /// Where to connect.
    pub(crate) address: Address,
    /// Longest wait. Above zero.
    pub(crate) timeout: Duration,
    /// How often.
    pub(crate) pace: Pace,
}

/// What a pushed manifest must satisfy.
#[derive(Debug, Clone)]
pub(crate) struct Validation {
    /// What URLs in a manifest may be; `None` if validation is switched off.
    pub(crate) urls: Option<UrlRules>,
    /// Which images of an index must be there.
    pub(crate) index_platforms: IndexPlatforms,
}

/// Rules for URLs in manifests. With both lists empty every URL is refused.
#[derive(Debug, Clone)]
pub(crate) struct UrlRules {
    /// One of them must match, unless the list is empty and `deny` is not.
    pub(crate) allow: Vec<Regex>,
    /// None of them may match.
    pub(crate) deny: Vec<Regex>,
}

/// Which images of an index must be there when it is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexPlatforms {
    /// All.
    All,
    /// None.
    None,
    /// Those for one of these platforms.
    Listed(Vec<Platform>),
}

/// An operating system and a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    /// As in an image index, `amd64`.
    pub(crate) architecture: String,
    /// As in an image index, `linux`.
    pub(crate) os: String,
}

/// Bounds on what one client, or all of them, can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest manifest, in bytes.
    pub(crate) manifest: u64,
    /// Largest request head, in bytes.
    pub(crate) header: u64,
    /// Most uploads at a time.
    pub(crate) uploads: u32,
    /// Most connections at a time.
    pub(crate) connections: u32,
    /// Longest wait for the next byte or the next request.
    pub(crate) idle: Duration,
    /// Longest time for one request.
    pub(crate) request: Duration,
}

/// How what nothing needs is collected while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collecting {
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
    /// Time between two rounds. One second to one day.
    pub(crate) interval: Duration,
    /// How long what is kept.
    pub(crate) policy: Policy,
    /// Most objects in a second. At least 1.
    pub(crate) rate: u32,
    /// How old a file has to be that no row names, before it is swept.
    pub(crate) orphans: Duration,
}

impl Default for Collecting {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(60),
            policy: Policy::default(),
            rate: 1000,
            orphans: Duration::from_secs(48 * 3600),
        }
    }
}

/// How stored bytes are read again and compared with their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scrubbing {
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
    /// Time within which every blob is read once. One second to ten years.
    pub(crate) period: Duration,
    /// Most bytes in a second. At least 64 KiB.
    pub(crate) rate: u64,
}

impl Default for Scrubbing {
    fn default() -> Self {
        Self { enabled: true, period: Duration::from_secs(720 * 3600), rate: 10 << 20 }
    }
}

/// Which tags go by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// Time between two looks. One second to one week.
    pub(crate) interval: Duration,
    /// In the order written: the first that covers a tag decides. Each keeps something.
    pub(crate) rules: Vec<RetentionRule>,
}
