//! The command line: reads words, asks the daemon, shows answers, and says with the exit code how it went. Nothing of
//! what a verb does to the cluster is done here.
//!
//! Codes: 0 done; 1 any error, refusal, timeout, or nothing selected. `status`, `frozen`, `validate` and
//! `daemon running` say with it what they were asked.

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use om_core::path::{Kind, Namespace, ObjectPath};
use serde_json_path::JsonPath;

use self::{
    grammar::Area,
    parse::{Asked, Command, UsageError},
};
use crate::{
    api,
    client::{Client, ClientError},
    output::{text, yaml},
    places::{Places, ROOT_VARIABLE},
};

pub mod backup;
pub mod complete;
pub mod config;
pub mod create;
pub mod daemon;
pub mod edit;
pub mod follow;
pub mod grammar;
pub mod help;
pub mod ini;
pub mod keys;
pub mod keywords;
pub mod live;
pub mod look;
pub mod node;
pub mod parse;
pub mod reference;
pub mod scratch;

/// What `om daemon run` is: returns when the daemon has ended.
pub type RunDaemon = fn(Places) -> ExitCode;

/// A command that was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// What failed; empty: nothing is said.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What is wrong with a configuration.
    pub diagnostics: Vec<api::Diagnostic>,
    /// The exit code.
    pub code: u8,
}

impl Failed {
    /// A failure with code 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: 1, ..Self::default() }
    }

    /// A failed operation on a file.
    pub fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{operation} {}: {error}", path.display()))
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A failure as the daemon said it.
    pub fn said(failure: &api::Failure) -> Self {
        Self {
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            diagnostics: failure.diagnostics.clone(),
            code: 1,
        }
    }

    /// What is written to the standard error.
    pub fn text(&self, colour: bool) -> String {
        let mut lines: Vec<text::Text> = self.diagnostics.iter().map(diagnostic).collect();
        if !self.message.is_empty() {
            for (number, message) in self.message.lines().enumerate() {
                let mut line = text::Text::new(if number == 0 { "E " } else { "" }, text::Colour::Red);
                line.push(message, text::Colour::Plain);
                lines.push(line);
            }
        }
        lines.extend(self.hint.iter().map(|hint| text::Text::plain(format!("  hint: {hint}"))));
        text::lines(&lines, colour)
    }
}

/// `file:line:column: error: message (hint: …)`.
pub fn diagnostic(found: &api::Diagnostic) -> text::Text {
    let mut line = text::Text::default();
    if !found.file.is_empty() {
        line.push(format!("{}:", found.file), text::Colour::Bold);
    }
    if found.line > 0 {
        line.push(format!("{}:{}:", found.line, found.column.max(1)), text::Colour::Bold);
    }
    if !line.is_empty() {
        line.push(" ", text::Colour::Plain);
    }
    line.push(&found.severity, text::Colour::of_severity(&found.severity));
    line.push(format!(": {}", found.message), text::Colour::Plain);
    if let Some(hint) = &found.hint {
        line.push(format!(" (hint: {hint})"), text::Colour::Plain);
    }
    line
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        if let ClientError::Refused { failure, .. } = &error {
            return Self::said(failure);
        }
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Self { hint: error.hint().map(str::to_owned), ..Self::new(format!("{error}{cause}")) }
    }
}

impl From<UsageError> for Failed {
    fn from(error: UsageError) -> Self {
        Self { hint: error.hint.clone(), ..Self::new(error) }
    }
}

/// An exit code, or a failure.
pub type Outcome = Result<u8, Failed>;

/// The form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// What every verb needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// Where things are.
    pub places: Places,
    /// The namespace of names without one; none: root.
    pub namespace: Option<Namespace>,
    /// The form that was asked for.
    pub format: Format,
    /// The parts of answers that were asked for.
    pub filter: Option<JsonPath>,
    /// Whether the standard output is coloured.
    pub colour: bool,
    /// Columns of the terminal, if the standard output is one.
    pub width: Option<usize>,
}

impl Context {
    fn new(command: &Command) -> Result<Self, Failed> {
        let root = command
            .value("root")
            .map(PathBuf::from)
            .or_else(|| env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty()).map(PathBuf::from));
        let places = Places::new(root.as_deref());
        let namespace = command.value("namespace").map(str::to_owned).or_else(|| env::var("OSVC_NAMESPACE").ok());
        let namespace = match namespace.filter(|namespace| !namespace.is_empty()) {
            Some(text) => Some(text.parse().map_err(|error| Failed::new(format!("--namespace: {error}")))?),
            None => None,
        };
        let format = match command.value("format") {
            None | Some("table" | "human" | "text") => Format::Human,
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            Some(other) => return Err(Failed::new(format!("--format {other}: json, yaml or table"))),
        };
        let filter = match command.value("filter") {
            None => None,
            // As people write it: the root goes without saying.
            Some(text) if !text.starts_with('$') => Some(format!("$.{}", text.trim_start_matches('.'))),
            Some(text) => Some(text.to_owned()),
        };
        let filter = filter.map(|text| JsonPath::parse(&text)).transpose();
        let filter = filter.map_err(|error| {
            Failed::new(format!("--filter: {error}")).hint("a JSONPath of RFC 9535, such as $.objects..avail")
        })?;
        let format = if filter.is_some() && format == Format::Human { Format::Json } else { format };
        let terminal = io::stdout().is_terminal();
        let colour = match command.value("color").unwrap_or("auto") {
            "auto" => {
                terminal && env::var_os("NO_COLOR").is_none() && env::var("TERM").is_ok_and(|term| term != "dumb")
            }
            "always" | "yes" => true,
            "never" | "no" => false,
            other => return Err(Failed::new(format!("--color {other}: auto, always or never"))),
        };
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(io::stdout()).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 20)
            .map(|columns| columns - 4);
        Ok(Self { client: Client::new(places.socket()), places, namespace, format, filter, colour, width })
    }

    /// The selector as the daemon takes it: names that are plain get their namespace and kind.
    pub fn selector(&self, command: &Command) -> Result<String, Failed> {
        if command.selector.is_empty() {
            let namespace = self.namespace.as_ref().map_or("*", Namespace::as_str);
            let kind = command.kind.map_or("*", Kind::as_str);
            return Ok(if (namespace, kind) == ("*", "*") { "**".into() } else { format!("{namespace}/{kind}/*") });
        }
        let elements: Result<Vec<String>, Failed> =
            command.selector.split(',').map(|element| self.element(element, command.kind)).collect();
        Ok(elements?.join(","))
    }

    fn element(&self, element: &str, kind: Option<Kind>) -> Result<String, Failed> {
        if element.contains(['*', '?', '[', '!', '+', '=', '<', '>', '~', ':', '$']) {
            // A pattern for a last part alone gets what a name would get.
            let bare = !element.contains(['/', '+', '!', '=', '<', '>', '~', ':', '$']) && element != "**";
            return Ok(match (bare, &self.namespace, kind) {
                (true, None, None) | (false, _, _) => element.into(),
                (true, namespace, kind) => {
                    let namespace = namespace.as_ref().map_or("*", Namespace::as_str);
                    format!("{namespace}/{}/{element}", kind.unwrap_or(Kind::Svc))
                }
            });
        }
        Ok(self.path(element, kind)?.fqn())
    }

    fn path(&self, text: &str, kind: Option<Kind>) -> Result<ObjectPath, Failed> {
        let root = Namespace::root();
        ObjectPath::parse_in(text, self.namespace.as_ref().unwrap_or(&root), kind.unwrap_or(Kind::Svc))
            .map_err(Failed::new)
    }

    /// The one object that is named.
    pub fn one(&self, command: &Command) -> Result<ObjectPath, Failed> {
        if command.verb.area == Area::Cluster {
            return Ok(ObjectPath::cluster());
        }
        if command.selector.contains([',', '+', '*', '?', '!', '=']) {
            return Err(Failed::new(format!("`{}` is not one object", command.selector))
                .hint(format!("`{}` works on one: name it", command.verb.words)));
        }
        if command.selector.is_empty() {
            return Err(Failed::new(format!("{} what?", command.verb.words))
                .hint(format!("`om NAMESPACE/NAME {0}`, or `svcmgr {0} -s NAMESPACE/NAME`", command.verb.words)));
        }
        self.path(&command.selector, command.kind)
    }

    /// All objects that are selected.
    pub async fn paths(&self, command: &Command) -> Result<Vec<ObjectPath>, Failed> {
        if command.verb.area == Area::Cluster {
            return Ok(vec![ObjectPath::cluster()]);
        }
        let selector = self.selector(command)?;
        let paths = self.client.objects(&selector).await?;
        if paths.is_empty() {
            return Err(no_match());
        }
        paths.iter().map(|path| path.parse().map_err(Failed::new)).collect()
    }

    /// How the object is called on the first line of its tree: by its bare name if it was named `NAMESPACE/NAME`.
    pub fn heading(&self, command: &Command, path: &str) -> String {
        let Ok(parsed) = path.parse::<ObjectPath>() else { return path.into() };
        let short = format!("{}/{}", parsed.namespace, parsed.name);
        let named_short = command.selector.split(',').any(|element| element == short);
        let in_namespace = self.namespace.as_ref() == Some(&parsed.namespace);
        if parsed.kind == Kind::Svc && (named_short || in_namespace) {
            parsed.name.to_string()
        } else {
            parsed.to_string()
        }
    }

    /// Writes a value in the form that was asked for, JSON if none was.
    pub fn value(&self, value: &serde_json::Value) -> Outcome {
        if let Some(filter) = &self.filter {
            // One line for each: words as they are, for scripts.
            let line = |found: &serde_json::Value| match found {
                serde_json::Value::String(text) => format!("{text}\n"),
                other => format!("{other}\n"),
            };
            return put(&filter.query(value).iter().map(|found| line(found)).collect::<String>());
        }
        let text = match self.format {
            Format::Yaml => yaml::write(value),
            Format::Human | Format::Json => format!("{value:#}\n"),
        };
        put(&text)
    }

    /// Writes lines.
    pub fn lines(&self, lines: &[text::Text]) -> Outcome {
        put(&text::lines(lines, self.colour))
    }
}

/// Nothing was selected.
pub fn no_match() -> Failed {
    Failed::new("no match").hint("`om '**' ls` lists all objects")
}

/// Writes to the standard output. A reader that went away ends the command quietly.
pub fn put(text: &str) -> Outcome {
    put_bytes(text.as_bytes())
}

/// Writes bytes to the standard output.
pub fn put_bytes(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failed { code: 141, ..Failed::default() }),
        Err(error) => Err(Failed::new(format!("write to the standard output: {error}"))),
    }
}

/// Writes to the standard error, where nobody may be listening.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether the standard error is a terminal that takes colours.
pub fn coloured_errors() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()
}

/// Asks a question that is answered with y or n; without a terminal the answer is no.
pub fn ask(question: &str, by_default: bool) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    tell(&format!("{question} [{}] ", if by_default { "Y/n" } else { "y/N" }));
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(0) | Err(_) => false,
        Ok(_) => match answer.trim().to_ascii_lowercase().as_str() {
            "" => by_default,
            answer => answer == "y" || answer == "yes",
        },
    }
}

/// Runs the program with this process's words.
pub fn main(run_daemon: RunDaemon) -> ExitCode {
    let mut words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let name = words.next().unwrap_or_else(|| "om".into());
    let words: Vec<String> = words.collect();
    let outcome = match parse::parse(&name, &words) {
        Ok(Asked::Run(command)) if command.verb.area == Area::Daemon && command.verb.words == "run" => {
            match Context::new(&command).and_then(|context| daemon::leave_session(&command).map(|()| context)) {
                Ok(context) => return run_daemon(context.places),
                Err(failed) => Err(failed),
            }
        }
        Ok(asked) => answer(asked),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            tell(&failed.text(coloured_errors()));
            ExitCode::from(failed.code)
        }
    }
}

fn answer(asked: Asked) -> Outcome {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    match asked {
        Asked::Help => put(&text::lines(&help::overview(), colour)),
        Asked::HelpArea(area) => put(&text::lines(&help::area(area), colour)),
        Asked::HelpVerb(verb) => put(&text::lines(&help::verb(verb), colour)),
        Asked::Complete(words) => {
            let places = Places::new(env::var_os(ROOT_VARIABLE).map(PathBuf::from).as_deref());
            runtime()?.block_on(complete::candidates(&Client::new(places.socket()), &words))
        }
        Asked::Run(command) => {
            let context = Context::new(&command)?;
            runtime()?.block_on(run(&context, &command))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::new(format!("start the runtime: {error}")))
}

async fn run(context: &Context, command: &Command) -> Outcome {
    match command.verb.area {
        Area::Object => object(context, command).await,
        Area::Cluster => match command.verb.words {
            "status" => look::cluster(context, command).await,
            "name" => put(&format!("{}\n", context.client.daemon().await?.cluster)),
            "freeze" | "thaw" => node::run(context, command).await,
            "backup" => backup::backup(context, command).await,
            "restore" => backup::restore(context, command).await,
            _ => object(context, command).await,
        },
        Area::Node => node::run(context, command).await,
        Area::Daemon => daemon::run(context, command).await,
        Area::Pool => node::pools(context, command).await,
        Area::Net => node::networks(context, command).await,
        Area::Dns => match command.verb.words {
            "setup" => node::dns_setup(context, command).await,
            "status" => node::dns_status(context).await,
            _ => node::dns(context).await,
        },
        Area::Top => match command.verb.words {
            "mon" => live::run(context, command).await,
            "completion" => complete::script(command.rest.first().map_or("", String::as_str)),
            "kw" => keywords::run(context, command),
            "reference" => reference::run(command.rest.first().map_or("", String::as_str)),
            "templates" => create::templates(context),
            _ => put(&format!("om {}\n", env!("CARGO_PKG_VERSION"))),
        },
    }
}

async fn object(context: &Context, command: &Command) -> Outcome {
    match command.verb.words {
        "create" | "deploy" => create::run(context, command).await,
        "edit" if command.has("key") => edit::key(context, command).await,
        "edit" => edit::config(context, command).await,
        "set" | "unset" => config::patch(context, command).await,
        "get" | "eval" => config::get(context, command).await,
        "print config" => config::print(context, command).await,
        "print config mtime" => config::modified(context, command).await,
        "validate" => config::validate(context, command).await,
        "delete" if command.has("rid") => config::delete_sections(context, command).await,
        "print status" => look::status(context, command).await,
        "print resource status" => look::resource(context, command).await,
        "print devices" => look::devices(context, command).await,
        "status" => look::code(context, command).await,
        "frozen" => look::frozen(context, command).await,
        "ls" => look::list(context, command).await,
        "mon" => live::run(context, command).await,
        "logs" => look::logs(context, command).await,
        "enter" => look::enter(context, command).await,
        "add" | "change" | "append" => keys::write(context, command).await,
        "decode" => keys::decode(context, command).await,
        "keys" => keys::list(context, command).await,
        "remove" => keys::remove(context, command).await,
        _ => follow::act(context, command).await,
    }
}
