//! The `gc` command: what the collection does, and telling it to run or to rest.
//!
//! With a server it is asked; without one, the command looks into the data directory, or works on
//! it under its lock.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Subcommand;
use registry_core::{adopt::Wish, gc::Collection as _};
use registry_store::{
    adopt::stand,
    blob::fs::FsBlobs,
    claims::Claims,
    data_dir::{DataDir, DataDirError},
    disk::Poison,
    meta::sqlite::SqliteMetadata,
};
use service::shutdown::Shutdown;
use tokio::time::{Instant, sleep};

use crate::{
    accounts::messenger::Messenger,
    app::now,
    cli::Format,
    collector::{
        self, Collector, Files, PAUSED, PROMISED, Wanted,
        status::{Progress, Round, State, Status, Totals},
    },
    config::settings::Collecting,
    operations::{operation::Operation, server},
    size::Size,
    target::{Target, attach},
};

/// What to do with the collection.
#[derive(Debug, Subcommand)]
pub(crate) enum Gc {
    /// Show what the collection does and what waits for it
    #[command(
        after_help = "Examples:\n  registry gc status config.yml\n  registry gc status --data /var/lib/registry --format json"
    )]
    Status {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Collect now, and wait until it is done
    #[command(
        after_help = "With a server it runs there, at the rate that the configuration sets; without one it runs here.\n\n\
                      Examples:\n  registry gc run config.yml\n  registry gc run --now config.yml"
    )]
    Run {
        /// Do not wait for grace periods; only what a client was promised within the last hour stays
        #[arg(long)]
        now: bool,
        /// Also remove manifests that no tag and no index reaches
        #[arg(long)]
        untagged: bool,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Stop the collection until it is resumed, over restarts too
    #[command(after_help = "Example:\n  registry gc pause config.yml")]
    Pause {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Let the collection go on
    #[command(after_help = "Example:\n  registry gc resume config.yml")]
    Resume {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
}

/// How often the course of a round is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is told where nobody watches.
const TELL: Duration = Duration::from_secs(10);

/// Carries the command out. Exits with 1 if a round did not come to its end.
pub(crate) fn gc(command: &Gc) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match command {
            Gc::Status { format, target } => show(*format, &ask(target, &Operation::GcStatus {}).await?),
            Gc::Pause { format, target } => show(*format, &ask(target, &Operation::GcPause {}).await?),
            Gc::Resume { format, target } => show(*format, &ask(target, &Operation::GcResume {}).await?),
            Gc::Run { now, untagged, format, target } => {
                let found = target.find()?;
                let wanted = Wanted { now: *now, untagged: *untagged };
                let settings = found.config.map(|config| config.gc).unwrap_or_default();
                let mut course = Told::new(false);
                let (round, status) = match server::find(&found.root)? {
                    Some(messenger) => served(&messenger, wanted, &mut course).await?,
                    None => {
                        let promised = if wanted.now { PROMISED } else { settings.policy.lease };
                        let files = open(&found.root)?;
                        alone(files, settings, promised, wanted, &mut course).await?
                    }
                };
                ended(*format, &round, &status)
            }
        }
    })
}

/// Asks the server, or looks and acts here.
async fn ask(target: &Target, operation: &Operation) -> Result<Status> {
    let found = target.find()?;
    if let Some(answer) = server::ask(&found.root, operation).await? {
        return serde_json::from_value(answer).context("understand the server's answer");
    }
    let metadata = attach(&found.root)?;
    match operation {
        Operation::GcPause {} => metadata.set_state(PAUSED, Some("yes".to_owned())).await?,
        Operation::GcResume {} => collector::resume(&metadata).await?,
        _ => {}
    }
    let settings = found.config.map(|config| config.gc).unwrap_or_default();
    Ok(collector::stored(&metadata, settings.policy, now()).await?)
}

/// Opens a data directory that no server has, under its lock.
pub(crate) fn open(root: &Path) -> Result<Files> {
    let dir = DataDir::open(root).map_err(|error| match error {
        DataDirError::Locked(_) => {
            anyhow!("{error}, which takes no orders now (hint: it starts, ends, or is another command; try again)")
        }
        error => error.into(),
    })?;
    let poison = Poison::default();
    let metadata = Arc::new(SqliteMetadata::open_in(&dir, poison.clone())?);
    stand(&metadata, &dir, Wish::Work)?;
    Ok(Files { metadata, blobs: FsBlobs::new(dir, poison), claims: Claims::default() })
}

/// Has a server run a round, and waits for its end.
pub(crate) async fn served(messenger: &Messenger, wanted: Wanted, told: &mut Told) -> Result<(Round, Status)> {
    let answer = messenger.send(&Operation::GcRun { now: wanted.now, untagged: wanted.untagged }).await?;
    let number = answer["round"].as_u64().context("understand the server's answer")?;
    loop {
        let answer = messenger.send(&Operation::GcStatus {}).await.context("the round goes on without this command")?;
        let status: Status = serde_json::from_value(answer).context("understand the server's answer")?;
        if let Some(round) = status.last.clone().filter(|last| last.round >= number) {
            told.end();
            return Ok((round, status));
        }
        if status.state == State::Stopped && status.round < number {
            told.end();
            bail!("the collection rests: {}", status.why.as_deref().unwrap_or("no reason is known"));
        }
        told.tell(status.state, status.progress);
        sleep(LOOK).await;
    }
}

/// Runs a round in this process, which is the only one with the data. Promises older than
/// `promised` seconds do not count if the round does not wait.
pub(crate) async fn alone(
    files: Files,
    settings: Collecting,
    promised: i64,
    wanted: Wanted,
    told: &mut Told,
) -> Result<(Round, Status)> {
    let collector = Collector::offline(files, settings, promised);
    collector.take_clock().await?;
    collector.ask(wanted).await.map_err(|error| anyhow!("{error} (hint: {})", error.hint))?;
    let stop = Shutdown::new();
    let mut round = std::pin::pin!(collector.round(&stop));
    loop {
        tokio::select! {
            _ = round.as_mut() => break,
            () = sleep(LOOK) => {
                let status = collector.status(now()).await?;
                told.tell(status.state, status.progress);
            }
        }
    }
    told.end();
    let status = collector.status(now()).await?;
    Ok((status.last.clone().context("the round is over")?, status))
}

/// Tells on standard error how far a round is.
pub(crate) struct Told {
    terminal: bool,
    quiet: bool,
    last: Option<(State, Instant)>,
    width: usize,
}

impl Told {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), quiet, last: None, width: 0 }
    }

    fn tell(&mut self, state: State, progress: Option<Progress>) {
        let Some(progress) = progress.filter(|progress| !self.quiet && progress.done + progress.left > 0) else {
            return;
        };
        let Progress { done, left, rate, seconds_left } = progress;
        let mut line = format!("{}: {done} steps done, {left} left", state.as_str());
        if rate >= 1.0 {
            let _ = write!(line, ", {rate:.0} in a second");
        }
        if let Some(seconds) = seconds_left.filter(|_| left > 0) {
            let _ = write!(line, ", about {seconds} s to go");
        }
        // Where nobody reads it, it does not matter.
        let mut out = io::stderr();
        if self.terminal {
            let width = self.width;
            self.width = line.len();
            let _ = write!(out, "\r{line:<width$}");
            let _ = out.flush();
        } else if self.last.is_none_or(|(last, at)| last != state || at.elapsed() >= TELL) {
            let _ = writeln!(out, "{line}");
            self.last = Some((state, Instant::now()));
        }
    }

    fn end(&mut self) {
        if self.width > 0 {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = self.width);
            self.width = 0;
        }
    }
}

/// What a round did, in a sentence without an end.
fn sentence(did: &Totals) -> String {
    let Totals { manifests, links, condemned, files, bytes, orphans, orphan_bytes, .. } = *did;
    let mut text = format!(
        "{manifests} manifests and {links} links removed, {condemned} blobs condemned, {files} files with {} removed",
        Size(bytes)
    );
    if orphans > 0 {
        let _ = write!(text, ", and {orphans} that nothing named, with {}", Size(orphan_bytes));
    }
    text
}

/// What stays because of promises, if anything does.
pub(crate) fn promised(round: &Round) -> Option<String> {
    let promised = round.promised.filter(|promised| *promised > 0)?;
    Some(format!("{promised} objects stay, because clients were promised them within the last hour"))
}

fn ended(format: Format, round: &Round, status: &Status) -> Result<ExitCode> {
    match format {
        Format::Json => println!("{}", serde_json::to_string(round)?),
        Format::Table => {
            println!("round {} took {:.1} s: {}", round.round, round.seconds, sentence(&round.did));
            promised(round).into_iter().for_each(|line| println!("{line}"));
            let waiting = &status.waiting;
            if waiting.quarantined > 0 {
                println!("{} blobs with {} are in quarantine", waiting.quarantined, Size(waiting.quarantined_bytes));
            }
            if let Some(until) = &status.held_until {
                println!("until {until} no bytes are removed: a backup or another command holds them");
            }
        }
    }
    match &round.error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => bail!("the round did not come to its end: {error}"),
    }
}

fn show(format: Format, status: &Status) -> Result<ExitCode> {
    match format {
        Format::Json => println!("{}", serde_json::to_string(status)?),
        Format::Table => print!("{}", table(status)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    row(
        "collection",
        match (&status.why, &status.next) {
            (Some(why), _) => format!("{}: {why}", status.state.as_str()),
            (None, Some(next)) => format!("{}, next round at {next}", status.state.as_str()),
            (None, None) => status.state.as_str().to_owned(),
        },
    );
    if let Some(Progress { done, left, rate, seconds_left }) = status.progress {
        let end = seconds_left.filter(|_| left > 0).map_or_else(String::new, |left| format!(", about {left} s to go"));
        row("round", format!("{}: {done} steps done, {left} left, {rate:.0} in a second{end}", status.round));
    }
    if let Some(until) = &status.held_until {
        row("held", format!("until {until} no bytes are removed: a backup or another command holds them"));
    }
    let waiting = &status.waiting;
    row(
        "waiting",
        format!(
            "{} to be looked at, {} of them now; {} blobs with {} in quarantine; {} files with {} to be removed",
            waiting.reviews,
            waiting.due,
            waiting.quarantined,
            Size(waiting.quarantined_bytes),
            waiting.files,
            Size(waiting.file_bytes)
        ),
    );
    row("deleted", format!("{} manifests that can be brought back", waiting.deleted_manifests));
    if status.state != State::NoServer {
        row("since start", sentence(&status.since_start));
    }
    if let Some(last) = &status.last {
        let what = last.error.as_ref().map_or_else(|| sentence(&last.did), |error| format!("broke off: {error}"));
        row("last round", format!("{}, ended {} after {:.1} s: {what}", last.round, last.ended, last.seconds));
    }
    if let Some(error) = &status.error {
        row("last error", format!("{}: {}", error.at, error.text));
    }
    let policy = &status.policy;
    let untagged = policy.untagged.map_or_else(|| "for ever".to_owned(), span);
    row(
        "kept",
        format!(
            "deleted {}, promised {}, in quarantine {}, untagged {untagged}",
            span(policy.grace),
            span(policy.lease),
            span(policy.quarantine)
        ),
    );
    text
}

/// Seconds in their largest whole unit.
fn span(seconds: i64) -> String {
    match seconds {
        0 => "0 s".to_owned(),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use registry_core::gc::Policy;

    use super::*;

    #[test]
    fn what_people_read() {
        let mut status = Status {
            state: State::NoServer,
            why: None,
            held_until: None,
            round: 0,
            progress: None,
            next: None,
            waiting: Default::default(),
            since_start: Totals::default(),
            last: None,
            error: None,
            policy: Policy::default().into(),
        };
        assert_eq!(
            table(&status),
            "collection    no server runs\n\
             waiting       0 to be looked at, 0 of them now; 0 blobs with 0 B in quarantine; 0 files with 0 B to be removed\n\
             deleted       0 manifests that can be brought back\n\
             kept          deleted 24 h, promised 24 h, in quarantine 1 h, untagged 720 h\n"
        );
        status.state = State::Purging;
        status.round = 7;
        status.progress = Some(Progress { done: 30, left: 60, rate: 15.2, seconds_left: Some(4) });
        status.held_until = Some("2026-01-01T00:00:00Z".into());
        status.policy.untagged = None;
        status.policy.lease = 90;
        status.policy.grace = 120;
        let text = table(&status);
        for line in [
            "collection    removing files\n",
            "round         7: 30 steps done, 60 left, 15 in a second, about 4 s to go\n",
            "held          until 2026-01-01T00:00:00Z no bytes",
            "since start   0 manifests and 0 links removed",
            "kept          deleted 2 min, promised 90 s, in quarantine 1 h, untagged for ever\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
