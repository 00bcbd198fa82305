//! The `init` command: a registry with access control and TLS out of an empty directory.
//!
//! Each step can be repeated, and the configuration is written last: a directory without one is
//! not finished, whatever else is in it. Nothing that is there is overwritten.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use registry_auth::{
    issuer::Key,
    password::{Password, PasswordHash},
};
use registry_core::{
    account::{Kind, PrincipalName},
    directory::{Directory, Edit, SigningKey, SubjectName},
    policy::{RepoGlob, Right},
};
use registry_store::{
    data_dir::{DataDir, DataDirError},
    disk::Poison,
    meta::sqlite::SqliteMetadata,
};
use serde_json::{Value, json};
use service::{
    authority::{self, Authority},
    replace::replace,
    tls::name::Name,
};
use time::OffsetDateTime;

use crate::{
    accounts::password,
    app::{now, random},
    cli::Format,
    config::{
        self, Config,
        settings::{Address, Auth, Listen},
    },
    data_root,
    live::LiveDirectory,
};

/// Where a registry of the whole machine is; the image mounts its volume there.
pub(crate) const SYSTEM: &str = "/var/lib/registry";
/// The configuration's name in the directory.
pub(crate) const CONFIG: &str = "config.yml";
/// The authority's directory in the directory.
const TLS: &str = "tls";

/// Where a registry of the user who asks is, unless that is root.
pub(crate) fn home() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    // In a container, users without an entry in `/etc/passwd` get the root directory.
    let is_real = home.is_absolute() && home.parent().is_some();
    is_real.then(|| home.join(".local/share/registry"))
}

/// What to begin with.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where everything is kept [default: /var/lib/registry for root, ~/.local/share/registry for others]
    dir: Option<PathBuf>,
    /// A name or address that clients use, besides those of this machine; can be given again
    #[arg(long, value_name = "NAME", conflicts_with = "no_tls")]
    name: Vec<Name>,
    /// Where to listen [default: :5000, and 127.0.0.1:5000 with --no-tls]
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// The user who may do everything
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: PrincipalName,
    /// Keep that user's password in this file instead of printing it; one that is there is used
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Make no certificates: something in front of the registry encrypts
    #[arg(long)]
    no_tls: bool,
    /// Let everybody pull everything without a login
    #[arg(long)]
    anonymous_pull: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Makes a registry, or says that there is one.
pub(crate) fn init(options: &Init) -> Result<ExitCode> {
    let dir = match &options.dir {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("find {}", dir.display()))?,
        None => home().unwrap_or_else(|| SYSTEM.into()),
    };
    ensure!(dir.to_str().is_some(), "{} is no text that a configuration can name", dir.display());
    let file = dir.join(CONFIG);
    let given = given(&file)?;
    let text = match &given {
        Some(config) => Text { yaml: None, host: host(config, options) },
        None => {
            look(&dir, options)?;
            configuration(options, &dir)?
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("make directory {}", dir.display()))?;
    // From here on this is the only process that works on the directory.
    let data = match DataDir::open(given.as_ref().map_or(Ok(&*dir), data_root)?) {
        Err(DataDirError::Locked(_)) if given.is_some() => return already(options, &dir),
        data => data?,
    };
    if given.is_none() && file.exists() {
        return already(options, &dir);
    }
    let store = Arc::new(SqliteMetadata::open_in(&data, Poison::default())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let live = runtime.block_on(LiveDirectory::open(Arc::clone(&store) as _))?;
    if given.is_some() && live.as_ref().is_some_and(|live| live.current().has_admin()) {
        return already(options, &dir);
    }
    let (certificates, names) = match &given {
        Some(config) => match &config.authority {
            Some(authority) => (Some(PathBuf::from(&authority.directory)), &authority.names),
            None => (None, &options.name),
        },
        None => ((!options.no_tls).then(|| dir.join(TLS)), &options.name),
    };
    let tls = certificates.map(|directory| {
        let made = authority::ensure(&directory, names, OffsetDateTime::now_utc());
        made.with_context(|| format!("make certificates in {}", directory.display()))
    });
    let tls = tls.transpose()?;
    let password = runtime.block_on(accounts(options, live, store))?;
    // What must be kept is said before the last step: who did not see it can begin again.
    let report = Report { options, dir: &dir, host: &text.host, password, tls };
    let mut out = io::stdout().lock();
    match options.format {
        Format::Table => write!(out, "{}", report.table()),
        Format::Json => writeln!(out, "{}", report.json()),
    }
    .and_then(|()| out.flush())
    .context("say what must be kept")?;
    if let Some(yaml) = &text.yaml {
        replace(&file, yaml.as_bytes(), 0o600).with_context(|| {
            format!("write {} (hint: `registry init` can be called again, and makes another password)", file.display())
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration that is there, if there is one; it has to be of a registry with accounts.
fn given(file: &Path) -> Result<Option<Config>> {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {shown}"))?,
    };
    match config::load(&shown.to_string(), &text, &Default::default()).config {
        // Without an `auth` section the accounts of the directory count.
        Some(config) if matches!(config.auth, Auth::Roadstead(_) | Auth::Unset) => Ok(Some(config)),
        Some(_) => bail!(
            "{shown} is the configuration of a registry without accounts, and is left alone (hint: write `auth: \
             {{roadstead: {{}}}}` in it, or choose another directory)"
        ),
        None => bail!("{shown} is no configuration that works (hint: `registry verify-config {shown}` says why)"),
    }
}

/// Says that there is a registry already.
fn already(options: &Init, dir: &Path) -> Result<ExitCode> {
    let file = dir.join(CONFIG);
    match options.format {
        Format::Json => println!("{}", json!({ "initialised": false, "directory": dir, "config": file })),
        Format::Table => println!(
            "{} is a registry already; nothing was changed.\n\n  registry serve {}\n\n\
             Nobody knows the password any more? registry user passwd {} --config {}",
            dir.display(),
            word(&file.to_string_lossy()),
            options.admin,
            word(&file.to_string_lossy()),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a directory that holds other things than a registry of ours.
fn look(dir: &Path, options: &Init) -> Result<()> {
    let shown = dir.display();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("look into {shown}"))?,
    };
    let mut others = Vec::new();
    let password_file = options.password_file.as_ref().and_then(|path| std::path::absolute(path).ok());
    for entry in entries {
        let entry = entry.with_context(|| format!("look into {shown}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What an interrupted beginning leaves, and what file systems have of their own.
        let ours = ["docker", "roadstead", TLS, "lost+found"].contains(&name.as_str())
            || (name.starts_with(&format!(".{CONFIG}.")) && name.ends_with(".new"))
            || password_file.as_ref() == Some(&entry.path());
        if !ours {
            others.push(name);
        }
    }
    others.sort();
    if let Some(first) = others.first() {
        let more = if others.len() > 1 { format!(" and {} more", others.len() - 1) } else { String::new() };
        bail!(
            "{shown} holds other things: `{}`{more} (hint: name a directory that is empty or new)",
            first.escape_debug()
        );
    }
    ensure!(
        !DataDir::peek(dir).looks_foreign(),
        "{shown} holds images of another registry server (hint: `registry adopt {shown}` takes them over; then run this \
         again)"
    );
    Ok(())
}

/// The first accounts; the password if it is the one that was made or given now.
async fn accounts(
    options: &Init,
    live: Option<Arc<LiveDirectory>>,
    store: Arc<SqliteMetadata>,
) -> Result<Option<Password>> {
    let empty = Directory::new(String::new());
    let current = live.as_ref().map(|live| live.current());
    let directory = current.as_deref().unwrap_or(&empty);
    // A password without a configuration was perhaps never seen. Where there are others already,
    // somebody knows what to do, and it is not for this command to take an account over.
    let only = directory.accounts().all(|account| account.name == options.admin && account.kind == Kind::User);
    let password = if only || !directory.has_admin() { Some(chosen(options)?) } else { None };
    let (edits, at) = (first(options, directory, password.as_ref())?, now());
    match live {
        None => {
            let issuer: String = random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
            LiveDirectory::initialise(store, issuer, &edits, at).await?;
        }
        Some(live) => live.edit(|_| Ok::<_, std::convert::Infallible>((edits.clone(), ())), at).await?,
    }
    Ok(password)
}

/// What is missing of an administrator with this password, of the rule for everybody, and of a key.
fn first(options: &Init, directory: &Directory, password: Option<&Password>) -> Result<Vec<Edit>> {
    let name = &options.admin;
    let mut edits = Vec::new();
    let mut rules = Vec::new();
    if let Some(password) = password {
        if directory.account_named(Kind::User, name).is_err() {
            let description = String::from("made by `registry init`");
            edits.push(Edit::AddAccount { name: name.clone(), kind: Kind::User, description });
        }
        edits.push(Edit::SetPassword(name.clone(), PasswordHash::new(password).as_str().to_owned()));
        rules.push((SubjectName::Account(Kind::User, name.clone()), Right::Admin));
    }
    if options.anonymous_pull {
        rules.push((SubjectName::Anonymous, Right::Pull));
    }
    for (subject, right) in rules {
        let rights = [right].into_iter().collect();
        let there = directory.rules().any(|rule| {
            directory.subject_name(rule.subject).as_ref() == Some(&subject)
                && rule.repositories == RepoGlob::everything()
                && rule.rights == rights
        });
        if !there {
            edits.push(Edit::AddRule(subject, RepoGlob::everything(), rights));
        }
    }
    if directory.keys().is_empty() {
        let Key { id, pkcs8, created_at } = Key::generate(now()).context("make a key that signs tokens")?;
        edits.push(Edit::AddKey(SigningKey { id, pkcs8, created_at }));
    }
    Ok(edits)
}

/// The administrator's password: that of the file, or a new one, which the file then has.
fn chosen(options: &Init) -> Result<Password> {
    let Some(path) = &options.password_file else { return Ok(Password::generate()) };
    let shown = path.display();
    if path.exists() {
        let text = password::from_file(path)?;
        return Password::parse(&text, options.admin.as_str()).with_context(|| format!("use password file {shown}"));
    }
    let made = Password::generate();
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", made.as_str())?;
        file.sync_all()
    };
    write().with_context(|| format!("write password file {shown}"))?;
    Ok(made)
}

/// The configuration, and what it says to people.
struct Text {
    /// `None` if there is one already.
    yaml: Option<String>,
    /// The registry in the name of an image.
    host: String,
}

fn configuration(options: &Init, dir: &Path) -> Result<Text> {
    let quoted = |text: &str| Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let addr = options.addr.as_deref().unwrap_or(if options.no_tls { "127.0.0.1:5000" } else { ":5000" });
    let http = match options.no_tls {
        false => "  # All addresses unless one is named. Requests without TLS are not served.",
        true => "  # Passwords and tokens cross this in the clear: only what encrypts should reach it.",
    };
    let authority = match options.no_tls {
        true => String::new(),
        false => {
            let names: Vec<String> = options.name.iter().map(|name| quoted(&name.to_string())).collect();
            format!(
                "
roadstead:
  # A certificate authority of this registry's own, and the server's certificate, which is renewed
  # in time. `registry trust` tells Docker and Podman to trust it.
  authority:
    directory: {}
    # Names and addresses that clients use, besides those of this machine.
    names: [{}]
",
                path(&dir.join(TLS)),
                names.join(", ")
            )
        }
    };
    let yaml = format!(
        "# Made by `registry init`; yours to change. `registry verify-config` checks it, and
# docs/configuration.md explains every key. Any key can be set by a variable instead: http.addr by
# REGISTRY_HTTP_ADDR.
version: 0.1

log:
  # error, warn, info or debug.
  level: info

storage:
  # Images, accounts and rules.
  filesystem:
    rootdirectory: {root}
  # Those who have the right may delete tags, manifests and blobs.
  delete:
    enabled: true

auth:
  # Users, robots, groups and rules of this registry; what no rule allows is refused. `registry
  # user`, `robot`, `group` and `grant` change them while it runs.
  roadstead: {{}}

http:
{http}
  addr: {addr}
  headers:
    X-Content-Type-Options: [nosniff]

health:
  # Answer 503 after three failed looks at the storage, ten seconds apart.
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
{authority}",
        root = path(dir),
        addr = quoted(addr),
    );
    // What `serve` would refuse is refused now.
    let loaded = config::load(CONFIG, &yaml, &Default::default());
    let Some(config) = loaded.config else {
        let problem = loaded.diagnostics.iter().find(|problem| problem.is_error());
        return Err(match (&options.addr, problem) {
            (Some(addr), Some(problem)) if problem.key_path == "http.addr" => {
                anyhow!("--addr {addr}: {}", problem.message)
            }
            (_, Some(problem)) => anyhow!("the configuration would not work: {problem}"),
            (_, None) => anyhow!("the configuration would not work"),
        });
    };
    Ok(Text { host: host(&config, options), yaml: Some(yaml) })
}

/// The registry as image names begin.
fn host(config: &Config, options: &Init) -> String {
    let Listen::Tcp(address) = &config.http.listen else { return "localhost".to_owned() };
    let everywhere = matches!(address.host.as_str(), "" | "0.0.0.0" | "::");
    let host = match (everywhere, options.name.first()) {
        (true, Some(name)) => name.to_string(),
        (true, None) => "localhost".to_owned(),
        (false, _) => address.host.clone(),
    };
    Address { host, port: address.port }.to_string()
}

/// What must be kept, and what to do next.
struct Report<'a> {
    options: &'a Init,
    dir: &'a Path,
    host: &'a str,
    password: Option<Password>,
    tls: Option<Authority>,
}

impl Report<'_> {
    fn next(&self) -> Vec<String> {
        let (host, admin) = (self.host, &self.options.admin);
        let config = self.dir.join(CONFIG);
        let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
        let mut next = vec![format!("registry serve {}", word(&config.to_string_lossy()))];
        next.extend(
            self.tls
                .as_ref()
                .map(|tls| format!("{sudo}registry trust {host} --install --fingerprint {}", tls.fingerprint)),
        );
        next.push(match &self.options.password_file {
            Some(file) => {
                format!("docker login {host} -u {admin} --password-stdin < {}", word(&file.to_string_lossy()))
            }
            None => format!("docker login {host} -u {admin}"),
        });
        next.push(format!("docker tag busybox {host}/busybox"));
        next.push(format!("docker push {host}/busybox"));
        next
    }

    fn table(&self) -> String {
        let Self { options, dir, .. } = self;
        let mut text = format!("A registry in {}\n\n", dir.display());
        match (&self.password, &options.password_file) {
            (None, _) => text += "  accounts     those that were there are kept\n",
            (Some(_), Some(file)) => {
                text += &format!("  user         {}\n  password     in {}\n", options.admin, file.display());
            }
            (Some(password), None) => {
                text += &format!(
                    "  user         {}\n  password     {}\n               it is not stored: keep it, this is the only time it is shown\n",
                    options.admin,
                    password.as_str()
                );
            }
        }
        if let Some(tls) = &self.tls {
            text += &format!("  authority    {}\n               {}\n", tls.fingerprint, tls.certificate.display());
        }
        text += "\nType next:\n\n";
        for line in self.next() {
            text += &format!("  {line}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let Self { options, dir, host, .. } = self;
        let shown = self.password.as_ref().filter(|_| options.password_file.is_none()).map(Password::as_str);
        json!({
            "initialised": true,
            "directory": dir,
            "config": dir.join(CONFIG),
            "registry": host,
            "admin": self.password.as_ref().map(|_| json!({
                "name": options.admin.as_str(),
                "password": shown,
                "password_file": options.password_file,
            })),
            "authority": self.tls.as_ref().map(|tls| json!({
                "certificate": tls.certificate,
                "fingerprint": tls.fingerprint,
                "names": tls.names.iter().map(Name::to_string).collect::<Vec<_>>(),
            })),
            "next": self.next(),
        })
    }
}

/// A word as a shell reads it back.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
