//! The registry server and its commands: the composition root.

mod accounts;
mod admin;
mod adopt;
mod answers;
mod api;
mod app;
mod audit;
mod backup;
mod body;
mod check;
mod cli;
mod collect;
mod collector;
mod commits;
mod config;
mod deliver;
mod encryption;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod health;
mod init;
mod jobs;
mod keeping;
mod leases;
mod letters;
mod live;
mod manual;
mod meter;
mod metrics;
mod notify;
mod operations;
mod outbound;
mod permit;
mod plain;
mod proxies;
mod pulls;
mod reservations;
mod retention;
mod scrub;
mod sendfile;
mod serve;
mod server;
mod sessions;
mod signing;
mod size;
mod target;
mod trust;

use std::{collections::BTreeMap, os::unix::process::CommandExt, path::Path, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};

use crate::{
    cli::{Cli, Command, Entry, Format, Notifications},
    config::{Config, Diagnostic, Loaded, settings::Driver},
};

/// Runs the command that the arguments of the process name.
pub fn main() -> ExitCode {
    // A kernel without the switch has no such pages either; a larger process is no failure.
    service::limits::keep_pages_small().ok();
    service::limits::share_heaps();
    let mut args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let called = args.first().map(String::as_str).unwrap_or_default();
    if Path::new(called).file_name().is_some_and(|name| name == "entrypoint.sh") {
        match cli::entry(args.drain(1..).collect()) {
            Entry::Registry(rest) => args = std::iter::once("registry".to_owned()).chain(rest).collect(),
            Entry::Exec(command) => {
                let error = std::process::Command::new(&command[0]).args(&command[1..]).exec();
                eprintln!("registry: run {}: {error}", command[0]);
                return ExitCode::from(127);
            }
        }
    }
    match run(Cli::parse_from(args).command) {
        Ok(code) => code,
        Err(error) => {
            // One line with all causes; the last one says most.
            eprintln!("registry: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(path) => serve::serve(path),
        Command::Scrub(command) => scrub::scrub(&command),
        Command::Gc(command) => gc::gc(&command),
        Command::Undelete(options) => keeping::command::undelete(&options),
        Command::History(options) => keeping::command::history(&options),
        Command::Retention(options) => keeping::command::retention(&options),
        Command::Quota(options) => keeping::command::quota(&options),
        Command::GarbageCollect(options) => collect::collect(&options),
        Command::Check(options) => Ok(check::check(&options)),
        Command::Backup(options) => backup::backup(&options),
        Command::Restore(options) => backup::restore(&options),
        Command::Adopt(options) => adopt::adopt(&options),
        Command::Release(options) => adopt::release(&options),
        Command::VerifyConfig(options) => {
            let loaded = load(&options.path)?;
            match options.format {
                Format::Table => print!("{}", loaded.report.table()),
                Format::Json => println!("{}", loaded.report.json()),
            }
            Ok(if loaded.report.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Notifications(Notifications::List { format, path }) => letters::list(format, &configured(&path)?),
        Command::Notifications(Notifications::Replay { id, path, .. }) => letters::replay(&id, &configured(&path)?),
        Command::Trust(options) => trust::trust(&options),
        Command::Init(options) => init::init(&options),
        Command::User(with) => accounts::run(with),
        Command::Robot(with) => accounts::run(with),
        Command::Group(with) => accounts::run(with),
        Command::Grant(with) => accounts::run(with),
        Command::Key(with) => accounts::run(with),
        Command::DefaultConfig => {
            print!("{}", config::DEFAULT_YAML);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            manual::write(&mut std::io::stdout()).context("write the manual page")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "registry", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads a configuration with the environment's overrides.
fn load(path: &cli::ConfigPath) -> anyhow::Result<Loaded> {
    let path = path.config.as_deref().ok_or_else(|| {
        anyhow!("no configuration: name a file, or set REGISTRY_CONFIGURATION_PATH (try `registry serve --help`)")
    })?;
    let text = std::fs::read_to_string(path).with_context(|| format!("read configuration {path}"))?;
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(config::load(path, &text, &env))
}

/// A configuration that is valid; its errors go to the terminal.
fn configured(path: &cli::ConfigPath) -> anyhow::Result<Config> {
    Ok(configured_with_warnings(path)?.0)
}

/// A configuration that is valid, with its warnings; its errors go to the terminal.
fn configured_with_warnings(path: &cli::ConfigPath) -> anyhow::Result<(Config, Vec<Diagnostic>)> {
    let Loaded { config, diagnostics, .. } = load(path)?;
    if let Some(config) = config {
        return Ok((config, diagnostics));
    }
    let errors: Vec<String> = diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    for error in &errors {
        eprintln!("{error}");
    }
    anyhow::bail!("the configuration has {} error{}", errors.len(), if errors.len() == 1 { "" } else { "s" })
}

/// The directory of the filesystem driver; commands that work on files need one.
fn data_root(config: &Config) -> anyhow::Result<&Path> {
    match &config.storage.driver {
        Driver::Filesystem { root } => Ok(Path::new(root)),
        Driver::Memory => Err(anyhow!("storage.inmemory keeps nothing to work on")),
    }
}
