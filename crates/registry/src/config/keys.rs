//! Every configuration key: its shape, the name of its Go field, and whether it does anything here.
//!
//! A table, no behaviour. `schema` checks trees against it, `environment` finds its way with it, and a test
//! holds the reference in `docs/configuration.md` against it. Keys and field names are those of CNCF
//! distribution's `configuration/configuration.go`; `roadstead` is our own.

use Shape::{Any, Choice, Drivers, Duration, Flag, Int, List, Map, Params, Size, Struct, Text, UnitDuration};

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Any plain value, as text.
    Text,
    /// A boolean.
    Flag,
    /// An integer.
    Int,
    /// A Go duration; a bare integer counts nanoseconds and is doubtful.
    Duration,
    /// A duration that must carry a unit.
    UnitDuration,
    /// Bytes, with or without a unit.
    Size,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A section whose variables use the Go field names.
    Struct(&'static [Field]),
    /// A section the original keeps as a map: variables match its keys in any case and may add some.
    Params(&'static [Field]),
    /// As `Params`, but each key chooses a driver: a plain word stands for that key without parameters, and
    /// keys that are not in the table are for `settings` to judge.
    Drivers(&'static [Field]),
    /// A map with free keys.
    Map(&'static Shape),
    /// A list.
    List(&'static Shape),
    /// Anything; not looked into.
    Any,
}

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// What it says.
    Honoured,
    /// Nothing, and why.
    Ignored(&'static str),
    /// Refused when it holds anything: a feature that is not there yet.
    NotYet(&'static str, &'static str),
    /// Refused when it is present, even empty.
    Refused(&'static str, &'static str),
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// The key in the file.
    pub(crate) key: &'static str,
    /// The part of a variable's name that stands for it, upper case.
    pub(crate) variable: &'static str,
    /// What its value must look like.
    pub(crate) shape: Shape,
    /// What it does here.
    pub(crate) stance: Stance,
}

const fn key(key: &'static str, variable: &'static str, shape: Shape) -> Field {
    Field { key, variable, shape, stance: Stance::Honoured }
}

const fn ignored(key: &'static str, variable: &'static str, shape: Shape, why: &'static str) -> Field {
    Field { key, variable, shape, stance: Stance::Ignored(why) }
}

const fn store(key: &'static str, what: &'static str) -> Field {
    let hint = "use `filesystem` with a volume; other storage stays with the original registry for now";
    Field { key, variable: "", shape: Any, stance: Stance::Refused(what, hint) }
}

const LEVELS: Shape = Choice(&["error", "warn", "info", "debug"]);
const TEXTS: Shape = List(&Text);
/// Header name to list of values.
const HEADERS: Shape = Map(&TEXTS);

/// The whole file.
pub(crate) const ROOT: Shape = Struct(&[
    key("version", "VERSION", Text),
    key("log", "LOG", Struct(LOG)),
    key("loglevel", "LOGLEVEL", LEVELS),
    key("storage", "STORAGE", Drivers(STORAGE)),
    key("auth", "AUTH", Drivers(AUTH)),
    key("middleware", "MIDDLEWARE", Params(MIDDLEWARE)),
    key("http", "HTTP", Struct(HTTP)),
    key("notifications", "NOTIFICATIONS", Struct(NOTIFICATIONS)),
    ignored("redis", "REDIS", Any, "no cache server is needed, facts about blobs come from the metadata store"),
    key("health", "HEALTH", Struct(HEALTH)),
    key("catalog", "CATALOG", Struct(&[key("maxentries", "MAXENTRIES", Int)])),
    key("tags", "TAGS", Struct(&[key("maxtags", "MAXTAGS", Int)])),
    key("proxy", "PROXY", Struct(PROXY)),
    key("validation", "VALIDATION", Struct(VALIDATION)),
    key("policy", "POLICY", Struct(&[key("repository", "REPOSITORY", Struct(POLICY))])),
    key("roadstead", "ROADSTEAD", Struct(ROADSTEAD)),
]);

const LOG: &[Field] = &[
    key("accesslog", "ACCESSLOG", Struct(&[key("disabled", "DISABLED", Flag)])),
    key("level", "LEVEL", LEVELS),
    key("formatter", "FORMATTER", Choice(&["text", "json", "logstash"])),
    key("fields", "FIELDS", Map(&Text)),
    ignored("hooks", "HOOKS", List(&Struct(HOOK)), "no mail is sent, have your log collector raise the alarm"),
    ignored("reportcaller", "REPORTCALLER", Flag, "log lines name their module instead"),
];

const HOOK: &[Field] = &[
    key("disabled", "DISABLED", Flag),
    key("type", "TYPE", Text),
    key("levels", "LEVELS", TEXTS),
    key(
        "options",
        "MAILOPTIONS",
        Struct(&[
            key(
                "smtp",
                "SMTP",
                Struct(&[
                    key("addr", "ADDR", Text),
                    key("username", "USERNAME", Text),
                    key("password", "PASSWORD", Text),
                    key("insecure", "INSECURE", Flag),
                ]),
            ),
            key("from", "FROM", Text),
            key("to", "TO", TEXTS),
        ]),
    ),
];

const STORAGE: &[Field] = &[
    key(
        "filesystem",
        "",
        Params(&[
            key("rootdirectory", "", Text),
            ignored("maxthreads", "", Any, "file operations run on a pool of fixed size"),
        ]),
    ),
    key("inmemory", "", Params(&[])),
    store("s3", "storage in S3"),
    store("gcs", "storage in Google Cloud Storage"),
    store("azure", "storage in Azure Blob Storage"),
    store("swift", "storage in OpenStack Swift"),
    store("oss", "storage in Alibaba OSS"),
    key("delete", "", Params(&[key("enabled", "", Flag)])),
    ignored("redirect", "", Any, "the filesystem has no address to redirect to, blobs are served directly"),
    ignored("cache", "", Any, "facts about blobs come from the metadata store, which caches by itself"),
    ignored("tag", "", Any, "tags are looked up by an index, not by reading every tag"),
    key("maintenance", "", Params(MAINTENANCE)),
];

const MAINTENANCE: &[Field] = &[
    key(
        "uploadpurging",
        "",
        Params(&[
            key("enabled", "", Flag),
            key("age", "", UnitDuration),
            key("interval", "", UnitDuration),
            key("dryrun", "", Flag),
        ]),
    ),
    key("readonly", "", Params(&[key("enabled", "", Flag)])),
];

const AUTH: &[Field] = &[
    key("none", "", Any),
    key("silly", "", Params(&[key("realm", "", Text), key("service", "", Text)])),
    key("htpasswd", "", Params(&[key("realm", "", Text), key("path", "", Text)])),
    key(
        "token",
        "",
        Params(&[
            key("realm", "", Text),
            key("service", "", Text),
            key("issuer", "", Text),
            key("rootcertbundle", "", Text),
            key("jwks", "", Text),
            key("signingalgorithms", "", TEXTS),
            key("autoredirect", "", Flag),
            key("autoredirectpath", "", Text),
        ]),
    ),
    key(
        "roadstead",
        "",
        Params(&[
            key("realm", "", Text),
            key("service", "", Text),
            key("tokenlifetime", "", UnitDuration),
            key("refreshlifetime", "", UnitDuration),
        ]),
    ),
];

const MIDDLEWARE: &[Field] =
    &[key("registry", "", WRAPPERS), key("repository", "", WRAPPERS), key("storage", "", WRAPPERS)];

const WRAPPERS: Shape =
    List(&Struct(&[key("name", "NAME", Text), key("disabled", "DISABLED", Flag), key("options", "OPTIONS", Any)]));

const HTTP: &[Field] = &[
    key("addr", "ADDR", Text),
    key("net", "NET", Text),
    key("host", "HOST", Text),
    key("prefix", "PREFIX", Text),
    ignored("secret", "SECRET", Text, "uploads need no shared secret, their state stays on the server"),
    key("relativeurls", "RELATIVEURLS", Flag),
    key("draintimeout", "DRAINTIMEOUT", Duration),
    key("headers", "HEADERS", HEADERS),
    key("tls", "TLS", Struct(TLS)),
    key(
        "debug",
        "DEBUG",
        Struct(&[
            key("addr", "ADDR", Text),
            key("prometheus", "PROMETHEUS", Struct(&[key("enabled", "ENABLED", Flag), key("path", "PATH", Text)])),
        ]),
    ),
    key("http2", "HTTP2", Struct(&[key("disabled", "DISABLED", Flag)])),
    key("h2c", "H2C", Struct(&[key("enabled", "ENABLED", Flag)])),
];

const TLS: &[Field] = &[
    key("certificate", "CERTIFICATE", Text),
    key("key", "KEY", Text),
    key("clientcas", "CLIENTCAS", TEXTS),
    key(
        "clientauth",
        "CLIENTAUTH",
        Choice(&[
            "request-client-cert",
            "require-any-client-cert",
            "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ]),
    ),
    key("minimumtls", "MINIMUMTLS", Choice(&["tls1.2", "tls1.3"])),
    key("ciphersuites", "CIPHERSUITES", TEXTS),
    Field {
        key: "letsencrypt",
        variable: "LETSENCRYPT",
        shape: Struct(&[
            key("cachefile", "CACHEFILE", Text),
            key("email", "EMAIL", Text),
            key("hosts", "HOSTS", TEXTS),
            key("directoryurl", "DIRECTORYURL", Text),
        ]),
        stance: Stance::NotYet(
            "certificates from Let's Encrypt",
            "let an ACME client such as certbot write the files, and name them in http.tls.certificate and http.tls.key",
        ),
    },
];

const NOTIFICATIONS: &[Field] = &[
    key("events", "EVENTCONFIG", Struct(&[key("includereferences", "INCLUDEREFERENCES", Flag)])),
    key(
        "endpoints",
        "ENDPOINTS",
        List(&Struct(&[
            key("name", "NAME", Text),
            key("disabled", "DISABLED", Flag),
            key("url", "URL", Text),
            key("headers", "HEADERS", HEADERS),
            key("timeout", "TIMEOUT", Duration),
            key("threshold", "THRESHOLD", Int),
            key("backoff", "BACKOFF", Duration),
            key("ignoredmediatypes", "IGNOREDMEDIATYPES", TEXTS),
            key(
                "ignore",
                "IGNORE",
                Struct(&[key("mediatypes", "MEDIATYPES", TEXTS), key("actions", "ACTIONS", TEXTS)]),
            ),
        ])),
    ),
];

const HEALTH: &[Field] = &[
    key(
        "storagedriver",
        "STORAGEDRIVER",
        Struct(&[
            key("enabled", "ENABLED", Flag),
            key("interval", "INTERVAL", Duration),
            key("threshold", "THRESHOLD", Int),
        ]),
    ),
    key(
        "file",
        "FILECHECKERS",
        List(&Struct(&[
            key("file", "FILE", Text),
            key("interval", "INTERVAL", Duration),
            ignored("threshold", "THRESHOLD", Int, "one look at a file is enough, as in the original"),
        ])),
    ),
    key(
        "http",
        "HTTPCHECKERS",
        List(&Struct(&[
            key("uri", "URI", Text),
            key("headers", "HEADERS", HEADERS),
            key("statuscode", "STATUSCODE", Int),
            key("timeout", "TIMEOUT", Duration),
            key("interval", "INTERVAL", Duration),
            key("threshold", "THRESHOLD", Int),
        ])),
    ),
    key(
        "tcp",
        "TCPCHECKERS",
        List(&Struct(&[
            key("addr", "ADDR", Text),
            key("timeout", "TIMEOUT", Duration),
            key("interval", "INTERVAL", Duration),
            key("threshold", "THRESHOLD", Int),
        ])),
    ),
];

const NO_PROXY: &str = "it belongs to the pull-through cache, which is not there yet";

const PROXY: &[Field] = &[
    Field {
        key: "remoteurl",
        variable: "REMOTEURL",
        shape: Text,
        stance: Stance::NotYet(
            "pulling through from another registry",
            "keep the original registry for the mirror, and run this one without the `proxy` section",
        ),
    },
    ignored("username", "USERNAME", Text, NO_PROXY),
    ignored("password", "PASSWORD", Text, NO_PROXY),
    ignored(
        "exec",
        "EXEC",
        Struct(&[key("command", "COMMAND", Text), key("lifetime", "LIFETIME", Duration)]),
        NO_PROXY,
    ),
    ignored("ttl", "TTL", Duration, NO_PROXY),
    ignored("cachewritetimeout", "CACHEWRITETIMEOUT", Duration, NO_PROXY),
];

const VALIDATION: &[Field] = &[
    key("enabled", "ENABLED", Flag),
    key("disabled", "DISABLED", Flag),
    key(
        "manifests",
        "MANIFESTS",
        Struct(&[
            key("urls", "URLS", Struct(&[key("allow", "ALLOW", TEXTS), key("deny", "DENY", TEXTS)])),
            key(
                "indexes",
                "INDEXES",
                Struct(&[
                    key("platforms", "PLATFORMS", Choice(&["all", "none", "list"])),
                    key(
                        "platformlist",
                        "PLATFORMLIST",
                        List(&Struct(&[key("architecture", "ARCHITECTURE", Text), key("os", "OS", Text)])),
                    ),
                ]),
            ),
        ]),
    ),
];

const POLICY: &[Field] =
    &[ignored("classes", "CLASSES", TEXTS, "repositories have no classes, every kind of artifact is accepted")];

const ROADSTEAD: &[Field] = &[
    key(
        "limits",
        "LIMITS",
        Struct(&[
            key("manifest", "MANIFEST", Size),
            key("header", "HEADER", Size),
            key("uploads", "UPLOADS", Int),
            key("connections", "CONNECTIONS", Int),
            key("idle", "IDLE", UnitDuration),
            key("request", "REQUEST", UnitDuration),
        ]),
    ),
    key("durability", "DURABILITY", Choice(&["strict"])),
    key("authority", "AUTHORITY", Struct(&[key("directory", "DIRECTORY", Text), key("names", "NAMES", TEXTS)])),
    key("proxies", "PROXIES", TEXTS),
    key(
        "gc",
        "GC",
        Struct(&[
            key("enabled", "ENABLED", Flag),
            key("interval", "INTERVAL", UnitDuration),
            key("grace", "GRACE", UnitDuration),
            key("lease", "LEASE", UnitDuration),
            key("quarantine", "QUARANTINE", UnitDuration),
            key("untagged", "UNTAGGED", Text),
            key("rate", "RATE", Int),
            key("orphans", "ORPHANS", UnitDuration),
        ]),
    ),
    key(
        "scrub",
        "SCRUB",
        Struct(&[key("enabled", "ENABLED", Flag), key("period", "PERIOD", UnitDuration), key("rate", "RATE", Size)]),
    ),
    key(
        "retention",
        "RETENTION",
        Struct(&[
            key("interval", "INTERVAL", UnitDuration),
            key(
                "rules",
                "RULES",
                List(&Struct(&[
                    key("repositories", "REPOSITORIES", Text),
                    key("tags", "TAGS", Text),
                    key("keep_last", "KEEPLAST", Int),
                    key("keep_pushed_within", "KEEPPUSHEDWITHIN", UnitDuration),
                    key("keep_pulled_within", "KEEPPULLEDWITHIN", UnitDuration),
                ])),
            ),
        ]),
    ),
    key(
        "immutable",
        "IMMUTABLE",
        List(&Struct(&[key("repositories", "REPOSITORIES", Text), key("tags", "TAGS", Text)])),
    ),
    key("quotas", "QUOTAS", List(&Struct(&[key("prefix", "PREFIX", Text), key("limit", "LIMIT", Size)]))),
];

/// The dotted paths of all leaves; `[]` marks a list, `*` a free key.
pub(crate) fn leaves() -> Vec<String> {
    fn collect(shape: &Shape, path: &str, into: &mut Vec<String>) {
        match shape {
            Struct(fields) | Params(fields) | Drivers(fields) if !fields.is_empty() => {
                for field in *fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    collect(&field.shape, &format!("{path}{dot}{}", field.key), into);
                }
            }
            List(inner @ Struct(_)) => collect(inner, &format!("{path}[]"), into),
            _ => into.push(path.to_owned()),
        }
    }
    let mut paths = Vec::new();
    collect(&ROOT, "", &mut paths);
    paths
}

/// The closest of `names` to a misspelled `word`, if any is close.
pub(crate) fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let far = if word.chars().count() < 5 { 1 } else { 2 };
    names
        .into_iter()
        .map(|name| (distance(&word, &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= far)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings() {
        let names = ["addr", "headers", "host", "http2"];
        for (word, near) in [
            ("adr", Some("addr")),
            ("header", Some("headers")),
            ("HOST", Some("host")),
            ("hots", None),
            ("storage", None),
        ] {
            assert_eq!(closest(word, names), near, "{word}");
        }
    }

    #[test]
    fn the_reference_names_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let text = std::fs::read_to_string(path).expect("docs/configuration.md");
        let missing: Vec<_> = leaves().into_iter().filter(|leaf| !text.contains(&format!("| `{leaf}` |"))).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:#?}");
    }
}
