//! What `registry verify-config` shows: every key that is set, where from, and whether it does anything.
//!
//! Built from the tree and the diagnostics alone, so it cannot say anything else than the server does. Secrets
//! are masked here and nowhere else.

use std::fmt::Write as _;

use serde_json::json;

use super::diagnostic::{Diagnostic, Kind, Place, Severity};
use super::schema::join;
use super::tree::{Node, Value};

/// What stands in place of a secret.
const MASK: &str = "********";

/// Whether a key does what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It does.
    Honoured,
    /// It does nothing.
    Ignored,
    /// It asks for a feature that is not there.
    Unsupported,
    /// Its value is wrong.
    Invalid,
}

impl Status {
    /// The status as a lower-case word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Ignored => "ignored",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
        }
    }
}

/// One key that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Dotted path with list indexes.
    pub(crate) path: String,
    /// Where the value was written.
    pub(crate) place: Place,
    /// The value on one line; secrets are masked.
    pub(crate) value: String,
    /// Whether it does what it says.
    pub(crate) status: Status,
    /// Why not, or what is doubtful about it.
    pub(crate) reason: Option<String>,
}

/// All keys that are set, in the order written, and all problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The file's name as the user gave it.
    pub(crate) file: String,
    /// Every leaf of the tree.
    pub(crate) keys: Vec<Key>,
    /// Every problem, in the order found.
    pub(crate) problems: Vec<Diagnostic>,
}

impl Report {
    /// Joins a tree with what was found out about it.
    pub(crate) fn new(file: &str, root: &Node, problems: &[Diagnostic]) -> Self {
        let mut report = Self { file: file.to_owned(), keys: Vec::new(), problems: problems.to_vec() };
        report.collect(root, String::new());
        report
    }

    /// Whether the server would start.
    pub(crate) fn is_valid(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity != Severity::Error)
    }

    fn collect(&mut self, node: &Node, path: String) {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    self.collect(&entry.value, join(&path, &entry.key));
                }
            }
            // A list of plain values reads best on one line.
            Value::List(items) if items.iter().any(|item| !item.entries().is_empty() || !item.list().is_empty()) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(item, format!("{path}[{index}]"));
                }
            }
            _ if path.is_empty() => {}
            _ => {
                let (status, reason) = self.judge(&path);
                let unknown = self.problems.iter().any(|p| p.kind == Kind::Unknown && p.covers(&path));
                let value = if unknown { MASK.to_owned() } else { masked(node, &path) };
                self.keys.push(Key { place: node.place.clone(), path, value, status, reason });
            }
        }
    }

    fn judge(&self, path: &str) -> (Status, Option<String>) {
        let status = |problem: &Diagnostic| match (problem.kind, problem.severity) {
            (Kind::NotYet, _) => Status::Unsupported,
            (Kind::Value, Severity::Error) => Status::Invalid,
            (Kind::Unknown | Kind::NoEffect, _) => Status::Ignored,
            (Kind::Value, Severity::Warning) => Status::Honoured,
        };
        // A wrong value condemns its own key or the elements of its own list, not a whole section.
        let about = |problem: &&Diagnostic| match problem.kind {
            Kind::Value => problem.key_path.split('[').next() == Some(path) || problem.key_path == path,
            _ => {
                !problem.key_path.is_empty() && problem.covers(path)
                    || problem
                        .key_path
                        .strip_suffix(']')
                        .and_then(|p| p.rsplit_once('['))
                        .is_some_and(|(list, _)| list == path)
            }
        };
        let rank = |problem: &&Diagnostic| match status(problem) {
            Status::Invalid => 3,
            Status::Unsupported => 2,
            Status::Ignored => 1,
            Status::Honoured => 0,
        };
        let worst = self.problems.iter().filter(about).max_by_key(rank);
        match worst {
            // One element of a list without effect leaves the others.
            Some(problem) if status(problem) == Status::Ignored && !problem.covers(path) => {
                (Status::Honoured, Some(format!("{}: {}", problem.key_path, problem.message)))
            }
            Some(problem) => {
                let message = problem.message.as_str();
                let reason = message
                    .strip_prefix("has no effect here: ")
                    .or(message.strip_prefix("not yet: "))
                    .unwrap_or(message);
                (status(problem), Some(reason.to_owned()))
            }
            None => (Status::Honoured, None),
        }
    }

    /// A table for people, then the problems, then a verdict; ends with a line feed.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![["KEY", "VALUE", "FROM", "STATUS"].map(str::to_owned)];
        for key in &self.keys {
            let status = match &key.reason {
                Some(reason) => format!("{} ({reason})", key.status.name()),
                None => key.status.name().to_owned(),
            };
            // The verdict names the file; a long path in every row would push the status out of sight.
            let place = match &key.place {
                Place::File { line, .. } => format!("line {line}"),
                Place::Variable(name) => name.to_string(),
            };
            rows.push([key.path.clone(), key.value.clone(), place, status]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(60);
        let widths = [width(0), width(1), width(2)];
        let mut text = String::new();
        for [key, value, place, status] in &rows {
            let [a, b, c] = widths;
            writeln!(text, "{key:a$}  {value:b$}  {place:c$}  {status}").expect("a String takes every write");
        }
        for problem in &self.problems {
            write!(text, "\n{problem}\n").expect("a String takes every write");
        }
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let warnings = self.problems.len() - errors;
        let verdict = if errors == 0 { "is valid" } else { "cannot be used" };
        writeln!(text, "\n{} {verdict}: {errors} errors, {warnings} warnings", self.file)
            .expect("a String takes every write");
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let keys = self.keys.iter().map(|key| {
            json!({
                "key": key.path, "value": key.value, "from": key.place.to_string(),
                "status": key.status.name(), "reason": key.reason,
            })
        });
        let problems = self.problems.iter().map(|problem| {
            json!({
                "severity": problem.severity.name(), "from": problem.place.to_string(),
                "key": problem.key_path, "message": problem.message, "hint": problem.hint,
            })
        });
        json!({
            "file": self.file,
            "valid": self.is_valid(),
            "keys": keys.collect::<Vec<_>>(),
            "problems": problems.collect::<Vec<_>>(),
        })
    }
}

/// Whether the value under this path could be a secret, judged by the names in the path.
pub(crate) fn is_secret(path: &str) -> bool {
    // Paths of files, and sections whose own name merely sounds secret.
    if matches!(path, "http.tls.key" | "redis.tls.key" | "storage.gcs.keyfile") {
        return false;
    }
    let path = path.to_ascii_lowercase();
    if (path.starts_with("notifications.") || path.starts_with("health.")) && path.contains(".headers") {
        return true;
    }
    let names = path.strip_prefix("auth.token").unwrap_or(&path).split(['.', '[']);
    let secret = ["secret", "password", "passwd", "passphrase", "token", "credential", "apikey"];
    names.into_iter().any(|name| {
        (secret.iter().any(|word| name.contains(word)) && name != "htpasswd")
            || name.ends_with("key")
            || name == "keyid"
    })
}

fn masked(node: &Node, path: &str) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Map(_) => "{}".to_owned(),
        _ if is_secret(path) => MASK.to_owned(),
        Value::Scalar(scalar) => {
            let text = without_password(&scalar.text);
            if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text }
        }
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| masked(item, path)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// Masks the user part of a URL.
pub(crate) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{MASK}{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
        for (path, secret) in [
            ("http.secret", true),
            ("http.tls.key", false),
            ("proxy.password", true),
            ("redis.sentinelpassword", true),
            ("storage.s3.secretkey", true),
            ("storage.s3.accesskey", true),
            ("storage.azure.credentials.clientid", true),
            ("log.hooks[0].options.smtp.password", true),
            ("notifications.endpoints[0].headers.Authorization", true),
            ("http.headers.X-Content-Type-Options", false),
            ("auth.htpasswd.path", false),
            ("auth.token.issuer", false),
            ("storage.filesystem.rootdirectory", false),
        ] {
            assert_eq!(is_secret(path), secret, "{path}");
        }
        assert_eq!(without_password("https://u:p@h/x@y"), format!("https://{MASK}@h/x@y"));
        assert_eq!(without_password("https://h/x@y"), "https://h/x@y");
    }
}
