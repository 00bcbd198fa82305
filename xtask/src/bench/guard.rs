//! The registry with access control: its accounts, the tokens that clients ask it for, and what they show.
//!
//! Accounts are made by the commands of the server under test, tokens are asked for as Docker does it. What is done
//! with them is no concern of this file.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::drive::block_on;
use super::http::Conn;
use super::registry::{local, request};
use super::server::{Launch, Server};

/// The robot may do everything in the scenarios, by the last of its rules.
const ROBOT_RULES: [&str; 5] =
    ["team/*:pull", "mirror/**:pull", "verify/**:push,delete", "many/**:push,delete", "bench/**:push,delete"];
/// The reader sees one repository in five of those in the large fixture.
const READER_RULES: [&str; 3] = ["team/*:pull", "many/r*3:pull", "many/r*8:pull"];
/// A right that the robot has, and that is of no use in any scenario.
const ELSEWHERE: &str = "repository:bench/elsewhere:pull,push";

/// What a client shows with its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// What it should.
    Own,
    /// Nothing.
    Nothing,
    /// A good token for another repository.
    Elsewhere,
}

/// The header line of a client, and what it shows in place of it while refusals are tried.
#[derive(Clone)]
pub(crate) struct Badge {
    own: Rc<str>,
    elsewhere: Rc<str>,
    shown: Rc<Cell<Shown>>,
}

impl Badge {
    /// `Authorization: …\r\n`, or nothing.
    pub(crate) fn line(&self) -> Rc<str> {
        match self.shown.get() {
            Shown::Own => self.own.clone(),
            Shown::Nothing => Rc::from(""),
            Shown::Elsewhere => self.elsewhere.clone(),
        }
    }
}

/// Somebody who asks for tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    /// A user with a password.
    Admin,
    /// A robot with a secret.
    Robot,
    /// A robot that may pull from few repositories.
    Reader,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Robot => "robot",
            Self::Reader => "reader",
        }
    }
}

/// What is known of a server with access control.
pub(crate) struct Guard {
    /// `Basic …` of each.
    basic: BTreeMap<Who, String>,
    elsewhere: Rc<str>,
    shown: Rc<Cell<Shown>>,
    /// The place to ask for tokens at, as the server says; `/token?service=…`.
    tokens: String,
    /// The connection on which they are asked for.
    conn: RefCell<Conn>,
}

impl Guard {
    /// Makes the accounts of a server that was not started yet.
    pub(crate) fn initialise(launch: &Launch) -> Result<()> {
        let data = launch.dir.join("data");
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let mut init = Command::new(&launch.program);
        init.arg("init").arg(data).args(["--no-tls", "--admin", Who::Admin.name()]);
        init.arg("--password-file").arg(password(&launch.dir));
        output(&mut init).map(drop)
    }

    /// Makes the robots, and finds out where tokens come from.
    pub(crate) fn of(launch: &Launch, server: &Server) -> Result<Self> {
        let path = password(&launch.dir);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut basic = BTreeMap::from([(Who::Admin, basic(Who::Admin.name(), text.trim()))]);
        for (who, rules) in [(Who::Robot, &ROBOT_RULES[..]), (Who::Reader, &READER_RULES)] {
            let mut create = Command::new(&launch.program);
            create.args(["robot", "create", who.name(), "--config"]).arg(launch.dir.join("config.yml"));
            create.args(rules.iter().flat_map(|rule| ["--allow", rule]));
            basic.insert(who, self::basic(who.name(), output(&mut create)?.trim()));
        }
        let mut conn = Conn::blocking(server.addr);
        block_on(conn.expect(&[&request("GET", "/v2/", "")], false, 401))?;
        let challenge = conn.header("www-authenticate").context("a 401 without a challenge")?;
        let field = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let fields = field("realm").zip(field("service"));
        let (realm, service) = fields.with_context(|| format!("no realm and service in `{challenge}`"))?;
        let tokens = format!("{}?service={service}", local(realm));
        let shown = Rc::new(Cell::new(Shown::Own));
        let mut guard = Self { basic, elsewhere: Rc::from(""), shown, tokens, conn: RefCell::new(conn) };
        guard.elsewhere = Rc::from(bearer(&guard.token(Who::Robot, ELSEWHERE)?));
        Ok(guard)
    }

    /// A badge with a token for `scope`.
    pub(crate) fn bearer(&self, who: Who, scope: &str) -> Result<Badge> {
        Ok(self.badge(bearer(&self.token(who, scope)?)))
    }

    /// A badge with name and password, or name and secret.
    pub(crate) fn basic(&self, who: Who) -> Badge {
        self.badge(self.basic_line(who))
    }

    fn badge(&self, own: String) -> Badge {
        Badge { own: Rc::from(own), elsewhere: self.elsewhere.clone(), shown: self.shown.clone() }
    }

    /// `Authorization: Basic …\r\n`.
    pub(crate) fn basic_line(&self, who: Who) -> String {
        format!("Authorization: {}\r\n", self.basic[&who])
    }

    /// The same with a wrong password.
    pub(crate) fn wrong_line(&self, who: Who) -> String {
        format!("Authorization: {}\r\n", basic(who.name(), "not the password"))
    }

    /// The address that answers with a token for `scope`.
    pub(crate) fn token_path(&self, scope: &str) -> String {
        format!("{}&scope={scope}", self.tokens)
    }

    fn token(&self, who: Who, scope: &str) -> Result<String> {
        let conn = &mut *self.conn.borrow_mut();
        block_on(conn.expect(&[&request("GET", &self.token_path(scope), &self.basic_line(who))], true, 200))?;
        field(conn.body(), "token")
    }

    /// Does something while every badge shows something else.
    pub(crate) fn while_showing<T>(&self, shown: Shown, work: impl FnOnce() -> T) -> T {
        self.shown.set(shown);
        let outcome = work();
        self.shown.set(Shown::Own);
        outcome
    }
}

/// `Authorization: Bearer …\r\n`.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// `Basic …`.
fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// A text in the answer of the token endpoint.
pub(crate) fn field(body: &[u8], name: &str) -> Result<String> {
    let answer: Value = serde_json::from_slice(body).context("read the answer with a token")?;
    answer[name].as_str().map(str::to_owned).with_context(|| format!("no `{name}` in the answer with a token"))
}

fn password(dir: &Path) -> PathBuf {
    dir.join("password")
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", text.trim());
    String::from_utf8(output.stdout).with_context(|| format!("read what {command:?} printed"))
}
