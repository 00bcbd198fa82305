//! Attacks on access control, over real HTTP against the real program: what strangers, users with
//! too few rights, old tokens and odd requests must not get, learn, or hold up.

mod guessing;
mod hidden;
mod orders;
mod secrets;
mod tokens;
mod wires;

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{
    client::Client,
    command::{run, tool},
    http::Response,
    server::{Server, Setup},
};

use crate::{PLAIN, REGISTRY, check};

/// Where orders go.
const ADMIN: &str = "/roadstead/v1/admin";
/// What a request without good credentials is told.
const UNAUTHORIZED: &str = "401 UNAUTHORIZED | www-authenticate: ~Bearer realm=";

/// A registry that `init` made, with an administrator, who is `admin`.
struct House {
    server: Server,
    /// The password of `admin`.
    password: String,
    _dir: TempDir,
}

impl House {
    #[track_caller]
    fn new() -> Self {
        Self::with(PLAIN, "")
    }

    /// One of a configuration that ends inside `http`, and with `more` of it at the top.
    #[track_caller]
    fn with(config: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let root = dir.path().join("registry");
        let mut init = tool(REGISTRY);
        init.arg("init").arg(&root).args(["--no-tls", "--format", "json"]);
        init.env_remove("REGISTRY_CONFIGURATION_PATH").env_remove("REGISTRY_ADMIN_PASSWORD_FILE");
        let answer: Value = serde_json::from_str(&run(init).ok().stdout).expect("init answers JSON");
        let password = answer["admin"]["password"].as_str().expect("a password").to_owned();
        let config = format!("{config}auth:\n  roadstead: {{tokenlifetime: 60s}}\n{more}");
        let server = Setup::new(REGISTRY, &config).data(&root).start();
        Self { server, password, _dir: dir }
    }

    fn admin(&self) -> Client {
        self.basic("admin", &self.password)
    }

    fn basic(&self, name: &str, password: &str) -> Client {
        Client::basic(&self.server.url(), name, password)
    }

    fn bearer(&self, token: &str) -> Client {
        Client::bearer(&self.server.url(), token)
    }

    fn anonymous(&self) -> Client {
        self.server.client()
    }

    /// Fails unless the administrator's order is carried out.
    #[track_caller]
    fn order(&self, order: &Value) -> Value {
        let got = give(&self.admin(), order);
        assert_eq!(got.status, 200, "{order}: {}", got.text());
        got.json()
    }

    /// A new user, with these rules (`team/** pull,push`).
    #[track_caller]
    fn user(&self, name: &str, rules: &[&str]) -> Client {
        self.order(&json!({"order": "user-add", "name": name, "password": password(name)}));
        for rule in rules {
            self.grant(&format!("user:{name}"), rule);
        }
        self.basic(name, &password(name))
    }

    /// A new robot, with these rules; its secret, which ends after `expires_in` seconds if it ends.
    #[track_caller]
    fn robot(&self, name: &str, rules: &[&str], expires_in: Option<u64>) -> String {
        let mut order = json!({"order": "robot-create", "name": name});
        if let Some(seconds) = expires_in {
            order["expires_in"] = json!(seconds);
        }
        let secret = text(&self.order(&order)["secret"]);
        for rule in rules {
            self.grant(&format!("robot:{name}"), rule);
        }
        secret
    }

    /// Makes the rule that `<glob> <rights>` says; returns its number.
    #[track_caller]
    fn grant(&self, subject: &str, rule: &str) -> u64 {
        let (repositories, rights) = rule.split_once(' ').expect("a glob and rights");
        let order = json!({"order": "grant-add", "subject": subject, "repositories": repositories, "rights": rights});
        self.order(&order)["grant"]["rule"].as_u64().expect("a rule has a number")
    }

    /// The answer of the token endpoint to a GET for this scope.
    #[track_caller]
    fn issue(&self, client: &Client, scope: &str) -> Value {
        let scope = scope.replace('%', "%25").replace(' ', "%20").replace('&', "%26");
        let target = format!("/token?service=registry&offline_token=true&scope={scope}");
        check(client, &format!("GET {target}"), b"", "200 | cache-control: no-store").json()
    }

    /// A token for this scope.
    #[track_caller]
    fn token(&self, client: &Client, scope: &str) -> String {
        text(&self.issue(client, scope)["token"])
    }

    /// The resident memory of the server: now, and the most there was, in KiB.
    fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).expect("the server runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of memory");
            line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

/// The password of a user whom [`House::user`] made.
fn password(name: &str) -> String {
    format!("battery staple of {name}")
}

/// Gives an order as JSON.
#[track_caller]
fn give(client: &Client, order: &Value) -> Response {
    let headers = [("Content-Type", "application/json")];
    client.send("POST", ADMIN, &headers, order.to_string().as_bytes()).expect("an answer")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

/// The header and the claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let part = |index: usize| {
        let part = token.split('.').nth(index).expect("a token has three parts");
        serde_json::from_slice(&B64.decode(part).expect("base64url")).expect("JSON")
    };
    (part(0), part(1))
}

/// The rights in a token, as `<name>:<action>`, sorted.
fn rights(token: &str) -> Vec<String> {
    let access = parts(token).1["access"].clone();
    let entries = access.as_array().expect("a list of rights").iter();
    let mut rights: Vec<String> = entries
        .flat_map(|entry| {
            let name = text(&entry["name"]);
            let actions = entry["actions"].as_array().expect("a list of actions").clone();
            actions.into_iter().map(move |action| format!("{name}:{}", text(&action)))
        })
        .collect();
    rights.sort();
    rights
}

/// All of an answer but what differs from one to the next: its number, the time, and these words,
/// which become `…`.
fn shape(got: &Response, words: &[&str]) -> String {
    let without = |text: String| words.iter().fold(text, |text, word| text.replace(word, "…"));
    let mut headers: Vec<String> = got.headers();
    headers.retain(|line| !["date", "x-request-id", "warning"].contains(&line.split(':').next().unwrap_or_default()));
    headers.sort();
    without(format!("{}\n{}\n{}", got.status, headers.join("\n"), got.text()))
}

/// What all files below a directory hold, lossily.
fn everything_in(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("list a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(everything_in(&path));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found
}
