//! Whole configurations in, diagnostics, settings and reports out.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};
use registry_core::{gc::Policy, retention::TagRule};

use super::keys::{self, Shape, Stance};
use super::report::Status;
use super::settings::{
    Address, Auth, ClientAuth, Collecting, Driver, Formatter, IndexPlatforms, Level, Listen, Realm, Scrubbing,
};
use super::{Config, DEFAULT_YAML, Loaded, load};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../tests/fixtures/config/", $name, ".yml"))
    };
}

const BASE: &str = "version: 0.1\nstorage: {inmemory: }\nhttp: {addr: ':5000'}\n";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn said(loaded: &Loaded) -> String {
    loaded.diagnostics.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The diagnostics of a file, as printed.
#[track_caller]
fn check(text: &str, expected: &str) -> Option<Config> {
    check_env(text, &[], expected)
}

#[track_caller]
fn check_env(text: &str, pairs: &[(&str, &str)], expected: &str) -> Option<Config> {
    let loaded = load("c.yml", text, &env(pairs));
    let seen = said(&loaded);
    assert_eq!(seen.trim(), expected.trim(), "\n--- seen ---\n{seen}");
    assert_eq!(loaded.config.is_none(), seen.contains(": error: "));
    loaded.config
}

/// The diagnostics of a fixture are those in the text file beside it; `UPDATE_FIXTURES=1` writes it anew.
#[track_caller]
fn check_fixture(name: &str) -> Option<Config> {
    let path = format!("{}/tests/fixtures/config/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = |path: String| std::fs::read_to_string(path).expect("a fixture");
    let text = read(format!("{path}.yml"));
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        let seen = said(&load("c.yml", &text, &BTreeMap::new()));
        std::fs::write(format!("{path}.txt"), seen).expect("a writable fixture");
    }
    check(&text, &read(format!("{path}.txt")))
}

/// A configuration without any remark.
#[track_caller]
fn clean(text: &str, pairs: &[(&str, &str)]) -> Config {
    check_env(text, pairs, "").expect("valid")
}

#[test]
fn the_default_is_clean() {
    let config = clean(DEFAULT_YAML, &[]);
    assert_eq!(config.storage.driver, Driver::Filesystem { root: "/var/lib/registry".into() });
    assert!(config.storage.delete && !config.storage.readonly && config.log.access);
    let purging = config.storage.upload_purging.expect("on");
    assert_eq!((purging.age.as_secs(), purging.interval.as_secs()), (168 * 3600, 24 * 3600));
    assert_eq!(config.http.listen, Listen::Tcp(Address { host: String::new(), port: 5000 }));
    let debug = config.http.debug.expect("on");
    assert_eq!((debug.address.port, debug.metrics_path.as_deref()), (5001, Some("/metrics")));
    assert_eq!(config.http.headers, [("X-Content-Type-Options".into(), vec!["nosniff".into()])]);
    let pace = config.health.storage.expect("on");
    assert_eq!((pace.interval.as_secs(), pace.threshold), (10, 3));
    assert_eq!((config.auth, config.log.level, config.log.formatter), (Auth::Unset, Level::Info, None));
    assert_eq!((config.catalog_max_entries, config.tags_max), (1000, 1000));
    assert_eq!((config.limits.manifest, config.limits.header), (4 << 20, 64 << 10));
    assert_eq!((config.limits.idle.as_secs(), config.limits.request.as_secs()), (60, 3600));
    assert!(config.http.http2 && !config.http.h2c && config.http.tls.is_none());
    assert!(config.validation.urls.is_some_and(|urls| urls.allow.is_empty() && urls.deny.is_empty()));
}

#[test]
fn htpasswd_and_tls() {
    let config = check_fixture("htpasswd-tls").expect("valid");
    assert_eq!(config.auth, Auth::Htpasswd { realm: "Registry Realm".into(), path: "/auth/htpasswd".into() });
    assert_eq!((config.log.level, config.log.formatter), (Level::Warn, Some(Formatter::Json)));
    assert_eq!(config.log.fields["environment"], "production");
    assert_eq!(config.http.host.as_deref(), Some("https://registry.example.com"));
    assert_eq!(config.http.drain_timeout, Some(Duration::from_secs(60)));
    assert!(!config.http.http2);
    let tls = config.http.tls.expect("on");
    assert_eq!(tls.clients.expect("asked for").mode, ClientAuth::VerifyIfGiven);
    let suites: Vec<_> = tls.cipher_suites.iter().map(|suite| suite.number).collect();
    assert_eq!(suites, [0x1302, 0x1301, 0x1303, 0xc02c]);
}

#[test]
fn an_authority_of_our_own() {
    let more = "roadstead: {authority: {directory: /tls, names: [Registry.test, 192.0.2.7]}}\n";
    let config = clean(&(BASE.to_owned() + more), &[("REGISTRY_HTTP_TLS_MINIMUMTLS", "tls1.3")]);
    let authority = config.authority.expect("on");
    let names: Vec<String> = authority.names.iter().map(ToString::to_string).collect();
    assert_eq!((&*authority.directory, &*names.join(" ")), ("/tls", "registry.test 192.0.2.7"));
    let tls = config.http.tls.expect("on");
    assert_eq!((&*tls.certificate, &*tls.key, tls.tls13_only), ("/tls/server.pem", "/tls/server.key", true));
    let variables = [("REGISTRY_ROADSTEAD_AUTHORITY_DIRECTORY", "/a"), ("REGISTRY_ROADSTEAD_AUTHORITY_NAMES", "[x]")];
    let config = clean(BASE, &variables);
    assert_eq!(config.http.tls.expect("on").certificate, "/a/server.pem");
    assert_eq!(config.authority.expect("on").names.len(), 1);
}

#[test]
fn upkeep() {
    let config = clean(BASE, &[]);
    assert_eq!((config.gc, config.scrub), (Collecting::default(), Scrubbing::default()));
    assert_eq!((config.gc.policy, config.retention.interval.as_secs()), (Policy::default(), 3600));
    assert!(config.retention.rules.is_empty() && config.immutable.is_empty() && config.quotas.is_empty());

    let config = clean(
        "version: 0.1
storage: inmemory
http: {addr: ':1'}
roadstead:
  gc: {enabled: false, interval: 2s, grace: 0s, lease: 72h, quarantine: 90m, untagged: Keep, rate: 50, orphans: 1500ms}
  scrub: {enabled: no, period: 168h, rate: 1MB}
  retention:
    interval: 10m
    rules:
      - {repositories: 'team/*', tags: '^pr-', keep_last: 5}
      - {repositories: '**', keep_pushed_within: 720h, keep_pulled_within: 24h}
  immutable: [{repositories: 'team/**', tags: '^v[0-9]+$'}]
  quotas: [{prefix: team, limit: 10GiB}, {prefix: team/api, limit: 2TiB}]
",
        &[("REGISTRY_ROADSTEAD_RETENTION_RULES_0_KEEPLAST", "7"), ("REGISTRY_ROADSTEAD_QUOTAS_0_LIMIT", "1KiB")],
    );
    let gc = config.gc;
    assert_eq!((gc.enabled, gc.interval.as_secs(), gc.rate, gc.orphans.as_secs()), (false, 2, 50, 2));
    assert_eq!(gc.policy, Policy { grace: 0, lease: 72 * 3600, quarantine: 5400, untagged: None });
    assert_eq!(config.scrub, Scrubbing { enabled: false, period: Duration::from_secs(168 * 3600), rate: 1_000_000 });
    let [first, second] = &config.retention.rules[..] else { panic!("two rules") };
    let covers = |rule: &TagRule, name: &str, tag: &str| {
        rule.covers(&name.parse().expect("a name"), &tag.parse().expect("a tag"))
    };
    assert!(covers(&first.tags, "team/api", "pr-1") && !covers(&first.tags, "team/api", "v1"));
    assert_eq!((first.keep_last, first.keep_pushed_within), (Some(7), None));
    assert_eq!((second.keep_pushed_within, second.keep_pulled_within), (Some(720 * 3600), Some(86_400)));
    assert!(covers(&config.immutable[0], "team/a/b", "v1") && !covers(&config.immutable[0], "team/a/b", "v1.1"));
    let quotas: Vec<_> = config.quotas.iter().map(|quota| (quota.prefix.as_str(), quota.limit)).collect();
    assert_eq!(quotas, [("team", 1024), ("team/api", 2 << 40)]);
    let clean_untagged = |text: &str| clean(BASE, &[("REGISTRY_ROADSTEAD_GC_UNTAGGED", text)]).gc.policy.untagged;
    assert_eq!((clean_untagged("0s"), clean_untagged("48h")), (Some(0), Some(48 * 3600)));
}

#[test]
fn upkeep_that_goes_wrong() {
    check_fixture("upkeep");
}

#[test]
fn token_and_validation() {
    let config = check_fixture("token").expect("valid");
    let Auth::Token(token) = config.auth else { panic!("token expected") };
    assert_eq!(token.realm, Realm::Fixed("https://auth.example.com/token".into()));
    assert_eq!(token.signing_algorithms, ["ES256", "EdDSA"]);
    assert_eq!(config.storage.driver, Driver::Filesystem { root: "/var/lib/registry".into() });
    assert_eq!(config.log.level, Level::Debug);
    assert_eq!(config.http.prefix, "/images");
    assert!(config.http.relative_urls && config.http.h2c);
    let urls = config.validation.urls.expect("on");
    assert!(urls.allow[0].is_match("https://a.example.com/x") && urls.deny[0].is_match("http://www.example.com/"));
    let IndexPlatforms::Listed(platforms) = config.validation.index_platforms else { panic!("listed") };
    assert_eq!((platforms[0].architecture.as_str(), platforms[0].os.as_str()), ("amd64", "linux"));
    assert_eq!((config.catalog_max_entries, config.tags_max), (500, 200));
    assert_eq!((config.limits.manifest, config.limits.connections), (8 << 20, 100));
}

#[test]
fn notifications_and_health() {
    let config = check_fixture("notifications").expect("valid");
    assert!(config.storage.readonly && config.storage.upload_purging.is_none());
    assert!(config.notifications.include_references);
    let [scanner, slow] = &config.notifications.endpoints[..] else { panic!("two enabled endpoints") };
    assert_eq!((scanner.timeout.as_millis(), scanner.threshold, scanner.backoff.as_secs()), (500, 5, 10));
    assert_eq!(scanner.ignored_media_types.len(), 2);
    assert_eq!(scanner.ignored_actions, ["pull"]);
    assert_eq!((slow.timeout.as_nanos(), slow.threshold, slow.backoff.as_secs()), (3000, 10, 1));
    let http = &config.health.http[0];
    assert_eq!((http.status, http.timeout.as_secs(), http.pace.threshold), (204, 3, 2));
    assert_eq!(config.health.tcp[0].address.to_string(), "db.example.com:5432");
    assert_eq!(config.health.files[0].interval, Duration::from_secs(60));
    assert!(!format!("{config:?}").contains("hunter2"), "secrets stay out of Debug");
}

#[test]
fn features_of_the_original() {
    check_fixture("v2-redis");
    check_fixture("proxy");
    check_fixture("s3");
}

#[test]
fn every_problem_at_once() {
    check_fixture("broken");
}

#[test]
fn variables() {
    // Go field names, maps in any case, replaced maps, lists that grow.
    let file = fixture!("htpasswd-tls");
    let config = |pairs: &[(&str, &str)]| load("c.yml", file, &env(pairs)).config.expect("valid");
    assert_eq!(
        config(&[("REGISTRY_HTTP_ADDR", ":6000")]).http.listen,
        Listen::Tcp(Address { host: String::new(), port: 6000 })
    );
    let replaced = config(&[("REGISTRY_STORAGE", "filesystem"), ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/x")]);
    assert_eq!(replaced.storage.driver, Driver::Filesystem { root: "/x".into() });
    assert!(!replaced.storage.delete, "REGISTRY_STORAGE replaces the whole section");
    assert!(config(&[("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true")]).storage.readonly);
    assert!(config(&[("REGISTRY_STORAGE_MAINTENANCE_READONLY", "{\"enabled\":true}")]).storage.readonly);
    assert_eq!(config(&[("REGISTRY_AUTH", "none")]).auth, Auth::None);
    assert_eq!(config(&[("REGISTRY_AUTH", "")]).auth, Auth::Unset);
    let silly = config(&[("REGISTRY_AUTH", "{silly: {realm: a, service: b}}")]);
    assert_eq!(silly.auth, Auth::Silly { realm: "a".into(), service: "b".into() });
    let fields = config(&[("REGISTRY_LOG_FIELDS_SERVICE", "other"), ("REGISTRY_LOG_FIELDS_Zone", "b")]).log.fields;
    assert_eq!((fields["service"].as_str(), fields["zone"].as_str(), fields.len()), ("other", "b", 3));
    let headers = config(&[("REGISTRY_HTTP_HEADERS_x-content-type-options", "[a, b]")]).http.headers;
    assert_eq!(headers[0], ("X-Content-Type-Options".into(), vec!["a".into(), "b".into()]));
    let cas = config(&[("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/b.pem")]).http.tls.expect("on").clients.expect("on");
    assert_eq!(cas.authorities, ["/certs/ca.pem", "/b.pem"]);
    let health = config(&[
        ("REGISTRY_HEALTH_FILECHECKERS_0_FILE", "/a"),
        ("REGISTRY_HEALTH_HTTPCHECKERS_0_URI", "http://a/"),
        ("REGISTRY_HEALTH_TCPCHECKERS_0_ADDR", "a:1"),
        ("REGISTRY_HEALTH_TCPCHECKERS_1_ADDR", "b:2"),
        ("REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES", "true"),
    ]);
    assert_eq!((health.health.files.len(), health.health.http.len(), health.health.tcp.len()), (1, 1, 2));
    assert!(health.notifications.include_references);
}

#[test]
fn variables_that_go_wrong() {
    check_env(
        BASE,
        &[
            ("PATH", "/bin"),
            ("REGISTRY_CONFIGURATION_PATH", "/etc/x.yml"),
            ("REGISTRY_HEALTH_FILE_0_FILE", "/a"),
            ("REGISTRY_HTP_ADDR", ":1"),
            ("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/x"),
            ("REGISTRY_LOG_HOOKS_0_MAILOPTIONS_SMTP_PASSWORD", "hunter2"),
            ("REGISTRY_LOG_LEVEL_X", "1"),
            ("REGISTRY_NOTIFICATIONS_ENDPOINTS", "https://robot:hunter2@x/"),
            ("REGISTRY_REDIS_ADDR", "redis:6379"),
            ("REGISTRY_SERVICE_HOST", "10.0.0.1"),
            ("REGISTRY_STORAGE_DELETE_ENABLED", "'true'"),
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/x"),
            ("REGISTRY_VALIDATION", "@x"),
            ("REGISTRY_VERSION", "0.2"),
        ],
        r#"
REGISTRY_HEALTH_FILE_0_FILE: warning: health: `FILE` is no setting, the variable is ignored
  hint: did you mean `REGISTRY_HEALTH_FILECHECKERS_0_FILE`?
REGISTRY_HTP_ADDR: warning: `HTP` is no setting, the variable is ignored
  hint: did you mean `REGISTRY_HTTP_ADDR`?
REGISTRY_HTTP_TLS_CLIENTCAS_1: error: http.tls.clientcas: `1` is no element of this list
  hint: the list is empty; begin with 0
REGISTRY_LOG_HOOKS_0_MAILOPTIONS_SMTP_PASSWORD: warning: log.hooks: has no effect here: no mail is sent, have your log collector raise the alarm
REGISTRY_LOG_LEVEL_X: warning: log.level: is a plain value without a part `X`, the variable is ignored
  hint: `_` separates keys; a key with `_` in its name cannot be set by a variable
REGISTRY_NOTIFICATIONS_ENDPOINTS: error: notifications.endpoints: expected a list, found a plain value
  hint: a variable's value is read as YAML; put it in brackets: [value]
REGISTRY_REDIS_ADDR: warning: redis: has no effect here: no cache server is needed, facts about blobs come from the metadata store
REGISTRY_SERVICE_HOST: warning: `SERVICE` is no setting, the variable is ignored
  hint: Kubernetes sets such variables for a service named `registry`; `enableServiceLinks: false` stops it
REGISTRY_STORAGE_DELETE_ENABLED: error: storage.delete.enabled: expected true or false, found `"true"`
  hint: remove the quotes
REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: error: storage.filesystem: a second storage driver, after `inmemory` at c.yml:2:11
  hint: set REGISTRY_STORAGE=filesystem to replace the file's section
REGISTRY_VALIDATION: error: is not YAML: unexpected character: `@'
  hint: a variable's value is read as YAML; put it in double quotes inside the variable
REGISTRY_VERSION: warning: version: the version cannot be set by a variable, it is ignored
  hint: write `version: 0.1` in the file
"#,
    );
}

#[test]
fn small_problems() {
    for (text, expected) in [
        (
            "",
            "c.yml:1:1: error: version: is missing\n  hint: write `version: 0.1` as the first line\n\
             c.yml:1:1: error: storage: no storage driver is given\n  hint: write `filesystem:` below `storage`\n\
             c.yml:1:1: warning: http.addr: is not set, port 5000 is used\n  hint: write `addr: :5000` below `http`",
        ),
        (
            "a: b: c",
            "c.yml:1:5: error: is not YAML: mapping values are not allowed in this context\n  \
             hint: check the indentation, and quote values that begin with a special character",
        ),
        (
            "version: 0.1\nstorage: {cache: {}}\nhttp: {addr: ':1'}",
            "c.yml:2:10: error: storage: no storage driver is given\n  hint: write `filesystem:` below `storage`",
        ),
        (
            "version: 0.1\nstorage: {inmemory: , swfit: }\nhttp: {addr: ':1'}",
            "c.yml:2:23: error: storage.swfit: no such storage driver\n  hint: did you mean `swift`?",
        ),
        (
            "version: 0.1\nstorage: inmemory\nhttp: {addr: ':1', tls: {clientcas: [/ca]}}",
            "c.yml:3:37: error: http.tls.clientcas: asks for client certificates, but TLS is not switched on\n  \
             hint: set http.tls.certificate and http.tls.key",
        ),
        (
            "version: 0.1\nstorage: inmemory\nhttp: {addr: ':1', tls: {certificate: /c, key: /k}}\n\
             roadstead: {authority: {directory: /tls}}",
            "c.yml:3:39: error: http.tls.certificate: a second certificate, besides that of `roadstead.authority` at c.yml:4:24\n  \
             hint: remove this one, or the section `roadstead.authority`\n\
             c.yml:3:48: error: http.tls.key: a second certificate, besides that of `roadstead.authority` at c.yml:4:24\n  \
             hint: remove this one, or the section `roadstead.authority`",
        ),
        (
            "version: 0.1\nstorage: inmemory\nhttp: {addr: ':1'}\nroadstead: {authority: {names: [a, 'https://b', c:5000]}}",
            "c.yml:4:24: error: roadstead.authority.directory: is missing\n  \
             hint: name the directory that keeps its files, such as /var/lib/registry-tls\n\
             c.yml:4:36: error: roadstead.authority.names[1]: `https://b` is no name; give only the host, without `https://` and without a path\n\
             c.yml:4:49: error: roadstead.authority.names[2]: `c:5000` is no name; give only the host, without a port",
        ),
        (
            "version: 0.1\nstorage: inmemory\nhttp: {addr: ':1'}\nauth: {token: {autoredirect: true, service: s, issuer: i}}",
            "c.yml:4:15: error: auth.token: no key to verify tokens with\n  \
             hint: set `rootcertbundle` or `jwks` to a file of trusted keys",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn addresses() {
    let check = |addr: &str, expected: &str| {
        let text = format!("version: 0.1\nstorage: inmemory\nhttp: {{addr: '{addr}'}}\n");
        let loaded = load("c.yml", &text, &BTreeMap::new());
        let seen = match &loaded.config {
            Some(config) => match &config.http.listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(path) => path.clone(),
            },
            None => loaded.diagnostics[0].message.clone(),
        };
        assert_eq!(seen, expected, "{addr}");
    };
    check(":5000", ":5000");
    check("localhost:5000", "localhost:5000");
    check("[::1]:5000", "[::1]:5000");
    check(":https", ":443");
    check("5000", "has no port");
    check("::1:5000", "is an IPv6 address without brackets");
    check(":65536", "has a port above 65535");
    check(":tcp", "has a port that is no number");
    check("http://x:5000", "is no host and port");
}

/// Writes the path as nested YAML in flow style over several lines, with an unknown key in the section it names.
fn with_unknown_key(path: &[String]) -> (String, usize) {
    let mut text = String::from("version: 0.1\n");
    let mut indent = String::new();
    for part in path {
        text.push_str(&format!("{indent}{part}:\n"));
        indent.push_str("  ");
    }
    text.push_str(&format!("{indent}zzunknown: 1\n"));
    let line = text.lines().count();
    (text, line)
}

#[test]
fn unknown_keys_are_found_at_every_level() {
    fn sections(shape: &Shape, path: &[String], into: &mut Vec<Vec<String>>) {
        match shape {
            Shape::Struct(fields) | Shape::Params(fields) | Shape::Drivers(fields) => {
                if !matches!(shape, Shape::Drivers(_)) {
                    into.push(path.to_vec());
                }
                for field in fields.iter().filter(|field| field.stance == Stance::Honoured) {
                    sections(&field.shape, &[path, &[field.key.to_owned()]].concat(), into);
                }
            }
            Shape::List(inner) if matches!(inner, Shape::Struct(_)) => {
                let mut path = path.to_vec();
                // `key:` then `- zzunknown: 1` below it.
                path.push("-".to_owned());
                sections(inner, &path, into);
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    sections(&keys::ROOT, &[], &mut all);
    assert!(all.len() > 30, "{}", all.len());
    for path in all {
        let (text, line) = with_unknown_key(&path);
        let text = text.replace("-:\n", "-\n");
        let loaded = load("c.yml", &text, &BTreeMap::new());
        let start = format!("c.yml:{line}:");
        let seen = said(&loaded);
        assert!(
            seen.lines().any(|l| l.starts_with(&start) && l.contains("zzunknown: no such key, it is ignored")),
            "{text}\n{seen}"
        );
    }
}

#[test]
fn reports() {
    let file = "version: 0.1\nstorage: {inmemory: }\nhttp:\n  addr: :5000\n  adr: hunter2\n  tls: {letsencrypt: {email: me}}\n";
    let env = env(&[("REGISTRY_HTTP_SECRET", "hunter2"), ("REGISTRY_LOG_LEVEL", "loud")]);
    let expected = "\
KEY                         VALUE     FROM                  STATUS
version                     0.1       line 1                honoured
storage.inmemory                      line 2                honoured
http.addr                   :5000     line 4                honoured
http.adr                    ********  line 5                ignored (no such key, it is ignored)
http.tls.letsencrypt.email  me        line 6                unsupported (certificates from Let's Encrypt)
http.secret                 ********  REGISTRY_HTTP_SECRET  ignored (uploads need no shared secret, their state stays on the server)
log.level                   loud      REGISTRY_LOG_LEVEL    invalid (expected one of error, warn, info, debug, found `loud`)

c.yml:5:3: warning: http.adr: no such key, it is ignored
  hint: did you mean `addr`?

c.yml:6:9: error: http.tls.letsencrypt: not yet: certificates from Let's Encrypt
  hint: let an ACME client such as certbot write the files, and name them in http.tls.certificate and http.tls.key

REGISTRY_HTTP_SECRET: warning: http.secret: has no effect here: uploads need no shared secret, their state stays on the server

REGISTRY_LOG_LEVEL: error: log.level: expected one of error, warn, info, debug, found `loud`

c.yml cannot be used: 2 errors, 2 warnings
";
    assert_eq!(load("c.yml", file, &env).report.table(), expected);
}

#[test]
fn reports_tell_the_status_and_no_secret() {
    let status = |name: &str, text: &str, path: &str, expected: Status| {
        let loaded = load(name, text, &BTreeMap::new());
        let key = loaded.report.keys.iter().find(|key| key.path == path);
        assert_eq!(key.map(|key| key.status), Some(expected), "{name} {path}");
        for text in [loaded.report.table(), loaded.report.json().to_string(), said(&loaded)] {
            assert!(!text.to_lowercase().contains("hunter2") && !text.contains("not-for-your-eyes"), "{text}");
        }
    };
    let text = fixture!("htpasswd-tls");
    status("tls", text, "http.secret", Status::Ignored);
    status("tls", text, "http.tls.key", Status::Honoured);
    status("tls", text, "http.tls.ciphersuites", Status::Honoured);
    status("tls", text, "storage.filesystem.maxthreads", Status::Ignored);
    let text = fixture!("notifications");
    status("notifications", text, "notifications.endpoints[0].url", Status::Honoured);
    status("notifications", text, "notifications.endpoints[1].url", Status::Honoured);
    status("proxy", fixture!("proxy"), "proxy.remoteurl", Status::Unsupported);
    status("proxy", fixture!("proxy"), "proxy.password", Status::Ignored);
    status("s3", fixture!("s3"), "storage.s3.secretkey", Status::Unsupported);
    status("s3", fixture!("s3"), "middleware.storage[0].options.privatekey", Status::Unsupported);
    status("s3", fixture!("s3"), "http.tls.letsencrypt.email", Status::Unsupported);
    let text = fixture!("broken");
    status("broken", text, "storage.delete.enabled", Status::Invalid);
    status("broken", text, "log.formater", Status::Ignored);
    status("broken", text, "http.tls.ciphersuites", Status::Invalid);
    status("broken", text, "http.tls.certificate", Status::Honoured);
}

#[test]
fn a_lost_variable_does_not_condemn_its_section() {
    let loaded = load("c.yml", DEFAULT_YAML, &env(&[("REGISTRY_HEALTH_FILE_0_FILE", "/x")]));
    assert!(loaded.report.keys.iter().all(|key| key.status == Status::Honoured));
    assert_eq!(loaded.diagnostics.len(), 1);
}

#[test]
fn the_report_in_json() {
    let json = load("c.yml", BASE, &env(&[("REGISTRY_HTTP_SECRET", "x")])).report.json();
    assert_eq!(json["valid"], true);
    assert_eq!(json["keys"][3]["key"], "http.secret");
    assert_eq!(json["keys"][3]["from"], "REGISTRY_HTTP_SECRET");
    assert_eq!(json["keys"][3]["value"], "********");
    assert_eq!(json["keys"][3]["status"], "ignored");
    assert_eq!(json["problems"][0]["severity"], "warning");
}

/// Texts that look like configurations: lines of known keys and odd values at odd indentation.
fn yamlish() -> impl Strategy<Value = String> {
    let mut words: Vec<String> =
        keys::leaves().iter().flat_map(|l| l.split(['.', '[', ']']).map(str::to_owned).collect::<Vec<_>>()).collect();
    words.sort();
    words.dedup();
    let value = prop::sample::select(vec![
        "",
        "1",
        "-1",
        "true",
        "10s",
        "x",
        "[a]",
        "{a: b}",
        "&a b",
        "*a",
        "[",
        "\"",
        "|",
        "- x",
        "1e9",
        "0x",
        "é",
        "!!str 1",
        "9999999999999999999",
    ]);
    let line =
        (0usize..5, any::<bool>(), prop::sample::select(words), value).prop_map(|(indent, dash, word, value)| {
            format!("{}{}{word}: {value}\n", "  ".repeat(indent), if dash { "- " } else { "" })
        });
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.concat())
}

fn variables_strategy() -> impl Strategy<Value = BTreeMap<String, String>> {
    let part = prop::sample::select(vec![
        "HTTP",
        "ADDR",
        "STORAGE",
        "AUTH",
        "LOG",
        "FIELDS",
        "HEALTH",
        "TCPCHECKERS",
        "0",
        "1",
        "99",
        "-1",
        "",
        "HEADERS",
        "X-Y",
        "TLS",
        "CLIENTCAS",
        "NOTIFICATIONS",
        "ENDPOINTS",
        "URL",
        "MIDDLEWARE",
        "OPTIONS",
        "é",
        "MAINTENANCE",
        "READONLY",
    ]);
    let name = prop::collection::vec(part, 1..6).prop_map(|parts| format!("REGISTRY_{}", parts.join("_")));
    let value = prop::sample::select(vec![
        "",
        "1",
        "true",
        "[a, b]",
        "{a: {b: c}}",
        "*x",
        "x: y: z",
        ":5000",
        "filesystem",
        "\u{0}",
    ]);
    prop::collection::btree_map(name, value.prop_map(str::to_owned), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "\\PC*", env in variables_strategy()) {
        let loaded = load("c.yml", &text, &env);
        let _ = (loaded.report.table(), loaded.report.json());
    }

    #[test]
    fn any_bytes_of_yaml_are_survived(text in "[-:\\[\\]{}&*!|>'\"%@`#,? \n\ta0<]{0,80}") {
        load("c.yml", &text, &BTreeMap::new());
    }

    #[test]
    fn any_configuration_is_survived(text in yamlish(), env in variables_strategy()) {
        let loaded = load("c.yml", &text, &env);
        let _ = (loaded.report.table(), loaded.report.json());
        assert_eq!(loaded.config.is_some(), loaded.report.is_valid());
    }
}
