//! From a tree to the typed configuration: defaults, and what values mean together.
//!
//! Wrong shapes were reported by `schema`; here such a value counts as absent. Everything found is reported,
//! nothing stops at the first problem.

use std::time::Duration;

use super::diagnostic::{Diagnostic, Place};
use super::keys;
use super::scalar::{self, Span};
use super::schema::join;
use super::settings::{
    Address, Auth, CipherSuite, ClientAuth, ClientCertificates, Config, Driver, Formatter, Headers, Level, Limits,
    Listen, Log, Realm, RoadsteadAuth, Storage, Tls, TokenAuth, UploadPurging,
};
use super::tree::{Entry, Node};
use crate::proxies::{Network, Proxies};

mod http;
mod upkeep;
mod watch;

type Found = Vec<Diagnostic>;

/// A value that may be absent, with its path.
#[derive(Clone)]
struct View<'a> {
    node: Option<&'a Node>,
    path: String,
    place: Place,
}

impl<'a> View<'a> {
    fn get(&self, key: &str) -> Self {
        let entry = self.node.and_then(|node| node.entry(key));
        Self {
            node: entry.map(|entry| &entry.value),
            path: join(&self.path, key),
            place: entry.map_or_else(|| self.place.clone(), |entry| entry.value.place.clone()),
        }
    }

    fn entries(&self) -> &'a [Entry] {
        self.node.map_or(&[], Node::entries)
    }

    fn items(&self) -> Vec<Self> {
        let items = self.node.map_or(&[][..], Node::list).iter().enumerate();
        items
            .map(|(i, node)| Self { node: Some(node), path: format!("{}[{i}]", self.path), place: node.place.clone() })
            .collect()
    }

    fn is_set(&self) -> bool {
        self.node.is_some_and(Node::is_filled)
    }

    /// The text, unless absent or empty.
    fn text(&self) -> Option<&'a str> {
        self.node?.scalar().map(|scalar| scalar.text.as_str()).filter(|text| !text.is_empty())
    }

    fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(View::text).map(str::to_owned).collect()
    }

    fn flag(&self, default: bool) -> bool {
        self.node.and_then(Node::scalar).and_then(scalar::flag).unwrap_or(default)
    }

    fn int(&self) -> Option<i64> {
        self.node.and_then(Node::scalar).and_then(scalar::int)
    }

    /// The duration, unless absent or zero.
    fn duration(&self) -> Option<Duration> {
        match scalar::span(self.node?.scalar()?)? {
            Span::Unit(span) | Span::Bare(span) if !span.is_zero() => Some(span),
            _ => None,
        }
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.place, &self.path, message)
    }

    fn warning(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(&self.place, &self.path, message)
    }

    fn no_effect(&self, why: &str) -> Diagnostic {
        Diagnostic::no_effect(&self.place, &self.path, why)
    }

    /// A text that must be there.
    fn required(&self, found: &mut Found) -> String {
        match self.text() {
            Some(text) => text.to_owned(),
            None => {
                found.push(self.error("is missing"));
                String::new()
            }
        }
    }

    /// A number of things within `1..=most`; zero and absent mean the default.
    fn count(&self, default: u32, most: u32, found: &mut Found) -> u32 {
        match self.int() {
            None | Some(0) => default,
            Some(n) => u32::try_from(n).ok().filter(|n| *n <= most).unwrap_or_else(|| {
                found.push(self.error(format!("must be from 1 to {most}")));
                default
            }),
        }
    }

    /// Names and values that can be sent as HTTP headers.
    fn headers(&self, found: &mut Found) -> Headers {
        let mut headers = Headers::new();
        for entry in self.entries() {
            let view = self.get(&entry.key);
            if !is_token(&entry.key) {
                let message = "is no valid header name";
                found.push(Diagnostic::error(&entry.place, &view.path, message));
                continue;
            }
            let values = view.texts();
            for item in view.items() {
                if item.text().is_some_and(|text| text.chars().any(|c| c.is_control() && c != '\t')) {
                    found.push(item.error("a header value cannot contain line breaks or control characters"));
                }
            }
            headers.push((entry.key.clone(), values));
        }
        headers
    }
}

/// An HTTP token (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(token)
}

/// Builds the configuration. It may be used only if no error was found, here or before.
pub(crate) fn interpret(root: &Node, found: &mut Found) -> Config {
    let root = View { node: Some(root), path: String::new(), place: root.place.clone() };
    version(&root.get("version"), found);
    let tags = root.get("tags").get("maxtags");
    if tags.int().is_some_and(|n| n < 0) {
        found.push(tags.error("cannot be negative"));
    }
    let entries = root.get("catalog").get("maxentries");
    let most = |view: &View<'_>| view.int().filter(|n| *n > 0).map_or(1000, |n| u32::try_from(n).unwrap_or(u32::MAX));
    let ours = root.get("roadstead");
    let limits = limits(&ours.get("limits"), found);
    Config {
        log: log(&root, found),
        storage: storage(&root.get("storage"), found),
        auth: auth(&root.get("auth"), found),
        http: http::read(&root.get("http"), &ours.get("authority"), found),
        notifications: watch::notifications(&root.get("notifications"), found),
        health: watch::health(&root.get("health"), found),
        validation: watch::validation(&root.get("validation"), found),
        catalog_max_entries: most(&entries),
        tags_max: most(&tags),
        limits: {
            middleware(&root.get("middleware"), found);
            limits
        },
        authority: http::authority(&ours.get("authority"), found),
        proxies: proxies(&ours.get("proxies"), found),
        gc: upkeep::collecting(&ours.get("gc"), limits.request, found),
        scrub: upkeep::scrubbing(&ours.get("scrub"), found),
        retention: upkeep::retention(&ours.get("retention"), found),
        immutable: upkeep::immutable(&ours.get("immutable"), found),
        quotas: upkeep::quotas(&ours.get("quotas"), found),
    }
}

fn version(version: &View<'_>, found: &mut Found) {
    match version.text() {
        Some("0.1") => {}
        Some(other) => {
            let other: String = other.chars().take(20).collect();
            found.push(
                version.error(format!("there is no version `{}`", other.escape_debug())).hint("write `version: 0.1`"),
            );
        }
        None => found.push(version.error("is missing").hint("write `version: 0.1` as the first line")),
    }
}

fn log(root: &View<'_>, found: &mut Found) -> Log {
    let log = root.get("log");
    let (new, old) = (log.get("level"), root.get("loglevel"));
    if old.is_set() {
        found.push(match new.text() {
            Some(_) => old.no_effect("`log.level` wins").hint("remove it"),
            None => old.warning("is an old name").hint("write it as `level` below `log`"),
        });
    }
    let level = new.text().or(old.text()).map(str::to_ascii_lowercase);
    let formatter = log.get("formatter").text().map(str::to_ascii_lowercase);
    let fields = log.get("fields");
    Log {
        level: match level.as_deref() {
            Some("error") => Level::Error,
            Some("warn") => Level::Warn,
            Some("debug") => Level::Debug,
            _ => Level::Info,
        },
        formatter: match formatter.as_deref() {
            Some("text") => Some(Formatter::Text),
            Some("json") => Some(Formatter::Json),
            Some("logstash") => Some(Formatter::Logstash),
            _ => None,
        },
        fields: fields
            .entries()
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), entry.value.scalar()?.text.clone())))
            .collect(),
        access: !log.get("accesslog").get("disabled").flag(false),
    }
}

/// Keys of `storage` that choose no driver.
const NO_DRIVERS: [&str; 5] = ["maintenance", "cache", "delete", "redirect", "tag"];
const DRIVERS: [&str; 7] = ["filesystem", "inmemory", "s3", "gcs", "azure", "swift", "oss"];

fn storage(storage: &View<'_>, found: &mut Found) -> Storage {
    let mut chosen: Vec<&Entry> = Vec::new();
    for entry in storage.entries().iter().filter(|entry| !NO_DRIVERS.contains(&entry.key.as_str())) {
        if DRIVERS.contains(&entry.key.as_str()) {
            chosen.push(entry);
            continue;
        }
        let path = join(&storage.path, &entry.key);
        let problem = Diagnostic::error(&entry.place, &path, "no such storage driver");
        found.push(match keys::closest(&entry.key, NO_DRIVERS.into_iter().chain(DRIVERS)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("the drivers are `filesystem` and `inmemory`"),
        });
    }
    if let [first, second, ..] = chosen[..] {
        let path = join(&storage.path, &second.key);
        let message = format!("a second storage driver, after `{}` at {}", first.key, first.place);
        let problem = Diagnostic::error(&second.place, &path, message);
        found.push(match &second.place {
            Place::Variable(_) => {
                problem.hint(format!("set REGISTRY_STORAGE={} to replace the file's section", second.key))
            }
            Place::File { .. } => problem.hint("keep one of them"),
        });
    }
    if chosen.is_empty() && storage.entries().iter().all(|e| NO_DRIVERS.contains(&e.key.as_str())) {
        found.push(storage.error("no storage driver is given").hint("write `filesystem:` below `storage`"));
    }

    let root = storage.get("filesystem").get("rootdirectory");
    if root.node.is_some() && root.text().is_none() {
        found.push(root.error("is empty").hint("name a directory, or remove the key for /var/lib/registry"));
    }
    let upkeep = storage.get("maintenance");
    Storage {
        driver: match chosen.first().map(|entry| entry.key.as_str()) {
            Some("inmemory") => Driver::Memory,
            _ => Driver::Filesystem { root: root.text().unwrap_or("/var/lib/registry").to_owned() },
        },
        delete: storage.get("delete").get("enabled").flag(false),
        readonly: upkeep.get("readonly").get("enabled").flag(false),
        upload_purging: upload_purging(&upkeep.get("uploadpurging"), found),
    }
}

fn upload_purging(purging: &View<'_>, found: &mut Found) -> Option<UploadPurging> {
    let hours = |key: &str, hours: u64, found: &mut Found| {
        let view = purging.get(key);
        match (view.is_set(), view.duration()) {
            (true, None) if matches!(view.node.and_then(Node::scalar).and_then(scalar::span), Some(Span::Unit(_))) => {
                found.push(view.error("must be longer than zero"));
                Duration::ZERO
            }
            (_, span) => span.unwrap_or(Duration::from_secs(hours * 3600)),
        }
    };
    let (age, interval) = (hours("age", 168, found), hours("interval", 24, found));
    let on = purging.get("enabled").flag(true);
    on.then(|| UploadPurging { age, interval, dry_run: purging.get("dryrun").flag(false) })
}

const ALGORITHMS: [&str; 13] = [
    "EdDSA", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

fn auth(auth: &View<'_>, found: &mut Found) -> Auth {
    let Some(first) = auth.entries().first() else {
        return Auth::Unset;
    };
    if let Some(second) = auth.entries().get(1) {
        let message = format!("a second way of authentication, after `{}` at {}", first.key, first.place);
        let problem = Diagnostic::error(&second.place, &join(&auth.path, &second.key), message);
        found.push(match &second.place {
            Place::Variable(_) => {
                problem.hint(format!("set REGISTRY_AUTH={} to replace the file's section", second.key))
            }
            Place::File { .. } => problem.hint("keep one of them"),
        });
    }
    let scheme = auth.get(&first.key);
    match first.key.as_str() {
        key if key.eq_ignore_ascii_case("none") => Auth::None,
        "silly" => {
            Auth::Silly { realm: name(&scheme.get("realm"), found), service: name(&scheme.get("service"), found) }
        }
        "htpasswd" => {
            Auth::Htpasswd { realm: name(&scheme.get("realm"), found), path: scheme.get("path").required(found) }
        }
        "token" => Auth::Token(token(&scheme, found)),
        "roadstead" => Auth::Roadstead(roadstead(&scheme, found)),
        other => {
            let problem = Diagnostic::error(&first.place, &scheme.path, "no such way of authentication");
            found.push(match keys::closest(other, ["none", "silly", "htpasswd", "token", "roadstead"]) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint("there are `roadstead`, `htpasswd`, `token`, `silly` and `none`"),
            });
            Auth::None
        }
    }
}

/// A text that is sent in a challenge.
fn name(view: &View<'_>, found: &mut Found) -> String {
    let text = view.required(found);
    if text.chars().any(char::is_control) {
        found.push(view.error("cannot contain line breaks or control characters"));
    }
    text
}

fn token(token: &View<'_>, found: &mut Found) -> TokenAuth {
    let realm = if token.get("autoredirect").flag(false) {
        let path = token.get("autoredirectpath");
        let text = path.text().unwrap_or("/auth/token");
        if !text.starts_with('/') || text.chars().any(|c| c.is_control() || c == ' ') {
            found.push(path.error("must be a path that begins with a slash"));
        }
        Realm::SameHost { path: text.to_owned() }
    } else {
        let path = token.get("autoredirectpath");
        if path.is_set() {
            found.push(path.no_effect("`autoredirect` is not switched on"));
        }
        Realm::Fixed(name(&token.get("realm"), found))
    };
    let (bundle, jwks) = (token.get("rootcertbundle").text(), token.get("jwks").text());
    if bundle.is_none() && jwks.is_none() {
        found.push(
            token
                .error("no key to verify tokens with")
                .hint("set `rootcertbundle` or `jwks` to a file of trusted keys"),
        );
    }
    let listed = token.get("signingalgorithms");
    let mut algorithms = Vec::new();
    for item in listed.items() {
        let Some(text) = item.text() else { continue };
        match ALGORITHMS.into_iter().find(|name| *name == text) {
            Some(name) => algorithms.push(name),
            None => found.push(
                item.error("no such signing algorithm").hint(format!("the algorithms are {}", ALGORITHMS.join(", "))),
            ),
        }
    }
    TokenAuth {
        realm,
        service: name(&token.get("service"), found),
        issuer: token.get("issuer").required(found),
        root_cert_bundle: bundle.map(str::to_owned),
        jwks: jwks.map(str::to_owned),
        signing_algorithms: if algorithms.is_empty() { ALGORITHMS.to_vec() } else { algorithms },
    }
}

fn roadstead(scheme: &View<'_>, found: &mut Found) -> RoadsteadAuth {
    let defaults = RoadsteadAuth::default();
    let realm = scheme.get("realm");
    if let Some(Err(problem)) = realm.text().map(|text| web_url(text, false)) {
        found.push(realm.error(problem));
    }
    let service = scheme.get("service");
    let mut lifetime = |key: &str, default: Duration, least: u64, most: u64| {
        let view = scheme.get(key);
        match view.duration() {
            Some(span) if (least..=most).contains(&span.as_secs()) => span,
            None if !view.is_set() => default,
            _ => {
                found.push(view.error(format!("must be from {least}s to {most}s")));
                default
            }
        }
    };
    let token_lifetime = lifetime("tokenlifetime", defaults.token_lifetime, 60, 3600);
    let refresh_lifetime = lifetime("refreshlifetime", defaults.refresh_lifetime, 3600, 400 * 86_400);
    let service = if service.is_set() { name(&service, found) } else { defaults.service };
    RoadsteadAuth { realm: realm.text().map(str::to_owned), service, token_lifetime, refresh_lifetime }
}

/// The proxies whose word on a client's address counts.
fn proxies(list: &View<'_>, found: &mut Found) -> Proxies {
    let mut networks = Vec::new();
    for item in list.items() {
        match item.text().map(str::parse::<Network>) {
            Some(Ok(network)) => networks.push(network),
            Some(Err(error)) => found.push(item.error(error.to_string())),
            None => {}
        }
    }
    Proxies::new(networks)
}

/// Middleware wraps the original's Go objects; there is none here, so only switched-off entries can be passed over.
fn middleware(middleware: &View<'_>, found: &mut Found) {
    for kind in ["registry", "repository", "storage"] {
        for item in middleware.get(kind).items() {
            let name = item.get("name");
            if item.get("disabled").flag(false) {
                continue;
            }
            if kind == "storage" && matches!(name.text(), Some("cloudfront" | "redirect" | "rewrite")) {
                let what = format!("the storage middleware `{}`", name.text().unwrap_or_default());
                found.push(
                    Diagnostic::not_yet(&name.place, &item.path, &what)
                        .hint("remove the entry or set `disabled: true`; blobs are then served directly"),
                );
            } else {
                found.push(Diagnostic::error(&name.place, &item.path, "no such middleware").hint(
                    "remove the entry or set `disabled: true`; compiled-in extensions of the original cannot be loaded",
                ));
            }
        }
    }
}

fn limits(limits: &View<'_>, found: &mut Found) -> Limits {
    let size = |key: &str, default: u64, least: u64, most: u64, found: &mut Found| {
        let view = limits.get(key);
        match view.node.and_then(Node::scalar).and_then(scalar::size) {
            Some(bytes) if (least..=most).contains(&bytes) => bytes,
            Some(_) => {
                found.push(view.error(format!("must be from {} KiB to {} KiB", least >> 10, most >> 10)));
                default
            }
            None => default,
        }
    };
    let time = |key: &str, default: u64, most: u64, found: &mut Found| {
        let view = limits.get(key);
        let span = view.node.and_then(Node::scalar).and_then(scalar::span);
        match span {
            Some(Span::Unit(span)) if (1..=most).contains(&span.as_secs()) => span,
            Some(Span::Unit(_)) => {
                found.push(view.error(format!("must be from 1s to {most}s")));
                Duration::from_secs(default)
            }
            _ => Duration::from_secs(default),
        }
    };
    Limits {
        manifest: size("manifest", 4 << 20, 64 << 10, 64 << 20, found),
        header: size("header", 64 << 10, 8 << 10, 1 << 20, found),
        uploads: limits.get("uploads").count(512, 65_536, found),
        connections: limits.get("connections").count(4096, 1_000_000, found),
        idle: time("idle", 60, 3600, found),
        request: time("request", 3600, 604_800, found),
    }
}

/// `host:port`, `:port`, `[::1]:port`; the port may be `http` or `https`.
fn address(text: &str) -> Result<Address, &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/@".contains(c);
    if text.chars().any(odd) {
        return Err("is no host and port");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("has no port");
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("has an opening bracket without a closing one")?,
        None if host.contains(':') => return Err("is an IPv6 address without brackets"),
        None => host,
    };
    if host.chars().any(|c| c.is_control() || c.is_whitespace() || "/@[]".contains(c)) {
        return Err("is no host and port");
    }
    let port = match port {
        "http" => 80,
        "https" => 443,
        "" => 0,
        _ if !port.chars().all(|c| c.is_ascii_digit()) => {
            return Err("has a port that is no number");
        }
        _ => port.parse().map_err(|_| "has a port above 65535")?,
    };
    Ok(Address { host: host.to_owned(), port })
}

/// Checks `http://…` or `https://…` and says what is wrong; returns it without a trailing slash.
fn web_url(text: &str, may_have_password: bool) -> Result<&str, &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or("must begin with http:// or https://")?;
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || "\"<>\\^`{|}".contains(c)) {
        return Err("contains a character no URL can have");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = match authority.rsplit_once('@') {
        Some(_) if !may_have_password => return Err("must not contain a user name"),
        Some((_, place)) => place,
        None => authority,
    };
    let host = match address(place) {
        Ok(address) => address.host,
        Err("has no port") => place.to_owned(),
        Err(_) if place.starts_with('[') && place.ends_with(']') => place.to_owned(),
        Err(_) => return Err("has no valid host and port"),
    };
    if host.is_empty() {
        return Err("has no host");
    }
    Ok(text.trim_end_matches('/'))
}
