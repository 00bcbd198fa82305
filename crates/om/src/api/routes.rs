//! Owns the table of the API's routes: what is asked with which method and path. The server finds its handler with it,
//! the OpenAPI document is made of it. Does not own bodies.

use std::fmt::Write as _;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// The daemon.
    Daemon,
    /// Stop of the daemon.
    DaemonAct,
    /// This document.
    OpenApi,
    /// State of everything selected.
    Status,
    /// Paths.
    Objects,
    /// A new object.
    Create,
    /// A configuration.
    Config,
    /// Another configuration.
    ConfigReplace,
    /// Some keywords.
    ConfigPatch,
    /// What it means.
    ConfigEval,
    /// What is wrong with the stored one.
    ConfigCheck,
    /// What is wrong with a text.
    ConfigCheckText,
    /// Names of keys.
    Keys,
    /// A value.
    Value,
    /// Another value.
    ValuePut,
    /// No value.
    ValueDelete,
    /// The way into a container.
    Enter,
    /// The way to what a resource prints.
    Output,
    /// A verb.
    Act,
    /// What happens.
    Events,
    /// What was said.
    Logs,
    /// This node.
    Node,
    /// Freeze of this node.
    NodeAct,
    /// This node's configuration.
    NodeConfig,
    /// Another one.
    NodeConfigReplace,
    /// Some keywords of it.
    NodeConfigPatch,
    /// The state of the cluster as a file.
    Backup,
    /// Pools.
    Pools,
    /// Networks.
    Networks,
    /// The zone.
    Dns,
    /// The node's resolver.
    DnsSetup,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is asked for.
    pub route: Route,
    /// Such as `GET`.
    pub method: &'static str,
    /// Below `/v1`; `{object}` stands for three parts.
    pub path: &'static str,
    /// Names in the query.
    pub query: &'static [&'static str],
    /// One sentence.
    pub about: &'static str,
}

const fn row(
    route: Route,
    method: &'static str,
    path: &'static str,
    query: &'static [&'static str],
    about: &'static str,
) -> Row {
    Row { route, method, path, query, about }
}

/// All routes.
pub const TABLE: &[Row] = &[
    row(Route::Daemon, "GET", "/daemon", &[], "The daemon that answers."),
    row(Route::DaemonAct, "POST", "/daemon/actions", &[], "Stops the daemon, or all services before it."),
    row(Route::OpenApi, "GET", "/openapi.json", &[], "This document."),
    row(Route::Status, "GET", "/status", &["selector", "refresh"], "What is known of the selected objects."),
    row(Route::Objects, "GET", "/objects", &["selector"], "Paths of the selected objects."),
    row(Route::Create, "POST", "/objects", &[], "Makes an object."),
    row(Route::Config, "GET", "/objects/{object}/config", &[], "The text of a configuration."),
    row(Route::ConfigReplace, "PUT", "/objects/{object}/config", &[], "Replaces the text of a configuration."),
    row(Route::ConfigPatch, "PATCH", "/objects/{object}/config", &[], "Sets and unsets keywords."),
    row(Route::ConfigEval, "GET", "/objects/{object}/config/eval", &["node"], "What a configuration means on a node."),
    row(Route::ConfigCheck, "GET", "/objects/{object}/config/check", &[], "What is wrong with the stored text."),
    row(Route::ConfigCheckText, "POST", "/objects/{object}/config/check", &[], "What is wrong with a text."),
    row(Route::Keys, "GET", "/objects/{object}/keys", &["match"], "Names of keys."),
    row(Route::Value, "GET", "/objects/{object}/keys/value", &["key"], "The bytes of a key's value."),
    row(Route::ValuePut, "PUT", "/objects/{object}/keys/value", &["key", "mode"], "Writes a key's value."),
    row(Route::ValueDelete, "DELETE", "/objects/{object}/keys/value", &["key"], "Removes a key."),
    row(Route::Enter, "GET", "/objects/{object}/enter", &["rid"], "How to get a shell in a container."),
    row(
        Route::Output,
        "GET",
        "/objects/{object}/output",
        &["rid", "follow", "backlog"],
        "How to see what a resource prints.",
    ),
    row(Route::Act, "POST", "/actions", &[], "Asks for a verb on the selected objects."),
    row(Route::Events, "GET", "/events", &["selector", "request"], "What happens, a line each, as it happens."),
    row(Route::Logs, "GET", "/logs", &["selector", "follow", "backlog", "node"], "What was said, a line each."),
    row(Route::Node, "GET", "/node", &[], "Facts of this node."),
    row(Route::NodeAct, "POST", "/node/actions", &[], "Freezes or thaws this node."),
    row(Route::NodeConfig, "GET", "/node/config", &[], "This node's configuration."),
    row(Route::NodeConfigReplace, "PUT", "/node/config", &[], "Replaces this node's configuration."),
    row(Route::NodeConfigPatch, "PATCH", "/node/config", &[], "Sets and unsets this node's keywords."),
    row(Route::Backup, "GET", "/backup", &[], "The state of the cluster as a file; secrets are sealed."),
    row(Route::Pools, "GET", "/pools", &[], "Pools of volumes, as this node has them."),
    row(Route::Networks, "GET", "/networks", &[], "Networks, as this node has them."),
    row(Route::Dns, "GET", "/dns", &[], "The zone as it is answered now."),
    row(Route::DnsSetup, "POST", "/dns/setup", &[], "Makes this node's resolver ask the cluster's."),
];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// A route; its object's full path, as it is written, if it has one.
    Found(Route, Option<&'a str>),
    /// The path is known, but not with this method.
    OtherMethod,
    /// The path is not known.
    Nothing,
}

/// Finds the route of a method and a path, without its query.
pub fn find<'a>(method: &str, path: &'a str) -> Match<'a> {
    let Some(path) = path.strip_prefix("/v1") else { return Match::Nothing };
    let mut known = false;
    for row in TABLE {
        let Some(object) = fits(row.path, path) else { continue };
        if row.method == method {
            return Match::Found(row.route, object);
        }
        known = true;
    }
    if known { Match::OtherMethod } else { Match::Nothing }
}

/// The object in `path`, if it fits the template; none of a template without one.
fn fits<'a>(template: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = template.split_once("{object}") else { return (template == path).then_some(None) };
    let object = path.strip_prefix(before)?.strip_suffix(after)?;
    (object.split('/').count() == 3).then_some(Some(object))
}

/// The values of a query's names, decoded; names that come twice keep the last value.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.rsplit('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value))
}

/// A query of names and values; those without a value are left out.
pub fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/*!,:@$".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_route() {
        let check = |method, path, expected| assert_eq!(find(method, path), expected, "{method} {path}");
        check("GET", "/v1/status", Match::Found(Route::Status, None));
        check("GET", "/v1/objects/test/svc/registry/config", Match::Found(Route::Config, Some("test/svc/registry")));
        check("PUT", "/v1/objects/a/sec/b/keys/value", Match::Found(Route::ValuePut, Some("a/sec/b")));
        check("PUT", "/v1/status", Match::OtherMethod);
        check("GET", "/v1/objects/registry/config", Match::Nothing);
        check("GET", "/status", Match::Nothing);
        check("GET", "/v2/status", Match::Nothing);
    }

    #[test]
    fn queries_read_back() {
        for value in ["**", "test/registry,web", "a b&c=d", "container#1", "naïve+100%", "config.json"] {
            let text = query(&[("x", Some("1")), ("none", None), ("selector", Some(value))]);
            assert_eq!(query_value(&text[1..], "selector").as_deref(), Some(value), "{text}");
            assert!(!text.contains("none") && !text.contains('#'), "{text}");
        }
        assert_eq!(query_value("a=%zz", "a").as_deref(), Some("%zz"));
    }
}
