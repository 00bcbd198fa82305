//! Owns when stored bytes are read again and how fast, what is told about those that are wrong, and
//! the `scrub` command. Reading and marking are the store's.
//!
//! The pace spreads one pass over the period, within the rate; a pass that was asked for goes at
//! the rate. Where it is stays in the rows, so that a restart loses nothing.

pub(crate) mod status;

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use registry_core::{
    digest::Digest,
    store::{OutboxEvent, StoreError},
};
use registry_store::scrub::{Candidate, Damaged, Examined, Holder, Ledger, Scrubber, Totals};
use service::shutdown::Shutdown;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use self::status::{Pass, Shown, State, Status, Trouble};
use crate::{
    admin::{error::OrderError, plan::timestamp},
    app::{App, now as wall},
    cli::Format,
    config::settings::Scrubbing,
    failure::Chain,
    jobs::pause,
    meter::{Meter, span},
    metrics::Scrub as Counters,
    notify::{Action, Requested, Target as Subject, Told},
    operations::{operation::Operation, server},
    size::Size,
    target::Target,
};

/// Blobs that are listed at a time, and written down together as verified.
const BATCH: usize = 256;
/// Written down no later than after so long.
const WRITTEN_EVERY: Duration = Duration::from_secs(30);
/// The first look comes so long after the start, unless it is asked for.
const FIRST: Duration = Duration::from_secs(60);
/// Bytes that a blob counts for at least: a seek costs as much as reading these.
const LEAST: u64 = 16 * 1024;
/// The slowest pace, in bytes a second: what is small is done quickly all the same.
const SLOWEST: u64 = 256 * 1024;
/// So many bad blobs in a row are no bad blobs, but a disk that is not there.
const IN_A_ROW: usize = 16;
/// How long it rests when something is wrong with the disk or the metadata.
const TROUBLED: Duration = Duration::from_secs(600);
/// Longest rest when nothing is due.
const LONGEST: Duration = Duration::from_secs(600);
/// Damaged blobs that are listed.
const LISTED: usize = 1000;
/// How long a count of all rows is good for.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Verifies what is stored, beside requests.
pub(crate) struct Scrub {
    scrubber: Scrubber,
    settings: Scrubbing,
    counters: Counters,
    course: Mutex<Course>,
    wake: Notify,
    /// Bytes and blobs since the start.
    bytes: AtomicU64,
    blobs: AtomicU64,
}

/// What is known of passes.
#[derive(Debug, Default)]
struct Course {
    /// The number of the pass that was asked for last.
    asked: u64,
    /// What was verified before that was due in it.
    before: i64,
    current: Option<Current>,
    last: Option<Pass>,
    trouble: Option<(i64, String)>,
    is_verifying: bool,
    /// Bytes a second that it goes at.
    pace: u64,
    counted: Option<(Instant, i64, Totals)>,
}

/// A pass that was asked for.
#[derive(Clone, Copy, Debug)]
struct Current {
    number: u64,
    started: i64,
    /// What was verified before is due.
    before: i64,
    blobs: u64,
    bytes: u64,
    damaged: u64,
}

/// How a batch ended.
enum Ended {
    /// It is done.
    Done,
    /// The server stops, or does not write now.
    Stopped,
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// Keeps reading within a number of bytes a second.
struct Pacer {
    next: Instant,
}

impl Pacer {
    /// Makes up for `bytes`; returns whether to go on.
    async fn rest(&mut self, bytes: u64, pace: u64, stop: &Shutdown) -> bool {
        // What was not used before is lost: no burst makes up for it.
        self.next = self.next.max(Instant::now());
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(pace.max(1));
        self.next += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let length = self.next.saturating_duration_since(Instant::now());
        if length.is_zero() { !stop.is_requested() } else { pause(stop, length).await }
    }
}

impl Scrub {
    /// For the blobs that `scrubber` knows.
    pub(crate) fn new(scrubber: Scrubber, settings: Scrubbing, counters: Counters) -> Self {
        let (course, wake) = (Mutex::default(), Notify::new());
        Self { scrubber, settings, counters, course, wake, bytes: AtomicU64::new(0), blobs: AtomicU64::new(0) }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a whole pass run now; returns its number. One that runs already begins anew.
    pub(crate) fn ask(&self) -> u64 {
        let number = {
            let mut course = self.course();
            course.asked += 1;
            let started = wall();
            // What was pushed or verified in this very second is verified, too.
            let before = started.max(course.before).saturating_add(1);
            course.before = before;
            course.current = Some(Current { number: course.asked, started, before, blobs: 0, bytes: 0, damaged: 0 });
            course.counted = None;
            course.asked
        };
        self.wake.notify_one();
        number
    }

    /// Verifies until shutdown.
    pub(crate) async fn run(self: Arc<Self>, app: Arc<App>, stop: Shutdown) {
        let mut rest = FIRST.min(self.settings.period);
        let mut pacer = Pacer { next: Instant::now() };
        loop {
            let until = Instant::now() + rest;
            loop {
                self.count_damaged().await;
                let left = until.saturating_duration_since(Instant::now()).min(COUNTED_FOR);
                tokio::select! {
                    going = pause(&stop, left) => if !going { return },
                    () = self.wake.notified() => break,
                }
                if Instant::now() >= until {
                    break;
                }
            }
            let is_asked = self.course().current.is_some();
            rest = LONGEST.min(self.settings.period);
            if !(is_asked || self.settings.enabled) || app.is_read_only() {
                continue;
            }
            self.course().is_verifying = true;
            let ended = self.verify_all(&app, &mut pacer, &stop).await;
            self.course().is_verifying = false;
            match ended {
                Ok(Ended::Done) => self.course().trouble = None,
                Ok(Ended::Stopped) => {}
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the scrub rests, and tries again in ten minutes");
                    self.fail(Chain(&error).to_string());
                    rest = TROUBLED;
                }
            }
        }
    }

    /// Notes what went wrong. A pass that was asked for ends with it.
    fn fail(&self, text: String) {
        let mut course = self.course();
        course.trouble = Some((wall(), text.clone()));
        if let Some(current) = course.current.take() {
            course.last = Some(current.over(Some(text)));
        }
    }

    /// What was verified before that time is due.
    fn before(&self) -> i64 {
        self.course().current.map_or_else(|| wall().saturating_sub(seconds(self.settings.period)), |pass| pass.before)
    }

    /// Counts all rows, if that was not done a while ago.
    async fn count(&self, before: i64) -> Result<Totals, StoreError> {
        let counted = self.course().counted.filter(|(at, for_before, _)| {
            at.elapsed() < COUNTED_FOR && (before - for_before).abs() < seconds(COUNTED_FOR)
        });
        if let Some((_, _, totals)) = counted {
            return Ok(totals);
        }
        let ledger = Arc::clone(self.scrubber.ledger());
        let totals = blocking(move || ledger.totals(before)).await?;
        self.course().counted = Some((Instant::now(), before, totals));
        Ok(totals)
    }

    /// Counts damaged blobs: pushes mend them, and nobody says so.
    async fn count_damaged(&self) {
        let ledger = Arc::clone(self.scrubber.ledger());
        match blocking(move || ledger.damaged_count()).await {
            Ok(count) => drop(self.counters.damaged.set(i64::try_from(count).unwrap_or(i64::MAX))),
            Err(error) => tracing::debug!(error = %Chain(&error), "count damaged blobs"),
        }
    }

    /// Verifies what is due, until nothing is.
    async fn verify_all(&self, app: &Arc<App>, pacer: &mut Pacer, stop: &Shutdown) -> Result<Ended, StoreError> {
        self.scrubber.tidy().await?;
        for digest in self.scrubber.reinstate().await? {
            tracing::info!(%digest, "{digest} is right again, and served");
        }
        loop {
            let before = self.before();
            let totals = self.count(before).await?;
            let is_asked = self.course().current.is_some();
            // A quarter faster than it has to be, so that the oldest never waits longer than the period.
            let needed = totals.all.1 / self.settings.period.as_secs().max(1) * 5 / 4;
            let pace = if is_asked { self.settings.rate } else { self.settings.rate.min(needed.max(SLOWEST)) };
            self.course().pace = pace;
            let ledger = Arc::clone(self.scrubber.ledger());
            let due = blocking(move || ledger.due(before, BATCH)).await?;
            if due.is_empty() {
                let mut course = self.course();
                course.counted = None;
                // Another one may have been asked for meanwhile.
                if course.current.is_some_and(|pass| pass.before == before) {
                    let pass = course.current.take().map(|pass| pass.over(None));
                    course.last = pass;
                }
                if course.current.is_none() {
                    return Ok(Ended::Done);
                }
                continue;
            }
            if let Ended::Stopped = self.verify_batch(app, due, before, pacer, pace, stop).await? {
                return Ok(Ended::Stopped);
            }
            if app.is_read_only() {
                return Ok(Ended::Stopped);
            }
        }
    }

    async fn verify_batch(
        &self,
        app: &Arc<App>,
        due: Vec<Candidate>,
        before: i64,
        pacer: &mut Pacer,
        pace: u64,
        stop: &Shutdown,
    ) -> Result<Ended, StoreError> {
        let (mut sound, mut written) = (Vec::new(), Instant::now());
        let mut suspects: Vec<Candidate> = Vec::new();
        let mut ended = Ended::Done;
        for blob in due {
            let (mut paid, mut examination) = (0, self.scrubber.examine(&blob));
            let verdict = loop {
                let (bytes, verdict) = match examination.step().await {
                    Ok(Examined::Read(bytes)) => (bytes, None),
                    Ok(Examined::Over(bytes, verdict)) => (bytes, Some(verdict)),
                    Err(error) => break Err(error),
                };
                paid += bytes;
                self.counters.bytes.inc_by(bytes);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                let going = pacer.rest(bytes, pace, stop).await;
                if verdict.is_some() || !going {
                    break Ok(verdict);
                }
            };
            let going = if paid < LEAST { pacer.rest(LEAST - paid, pace, stop).await } else { !stop.is_requested() };
            match verdict {
                Ok(Some(Ok(()))) => {
                    self.done(&blob);
                    sound.push(blob);
                    self.judge(app, &mut suspects).await?;
                }
                // One that moved meanwhile is in the next batch.
                Ok(Some(Err(_))) if !self.stays(&blob).await? => {}
                Ok(Some(Err(_))) => {
                    suspects.push(blob);
                    if suspects.len() >= IN_A_ROW {
                        let operation = format!(
                            "{IN_A_ROW} blobs in a row seem to be missing or damaged, which a failing disk explains better: \
                             none is marked"
                        );
                        let source = "look at the disk and its mounts, then `registry scrub run`".into();
                        return Err(StoreError::Failed { operation, source });
                    }
                }
                Ok(None) => {
                    ended = Ended::Stopped;
                    break;
                }
                Err(error) => {
                    // It says nothing about this blob, and little about the next.
                    self.write_down(&mut sound, before).await?;
                    return Err(error);
                }
            }
            if written.elapsed() >= WRITTEN_EVERY {
                self.write_down(&mut sound, before).await?;
                written = Instant::now();
            }
            if !going {
                ended = Ended::Stopped;
                break;
            }
        }
        self.judge(app, &mut suspects).await?;
        self.write_down(&mut sound, before).await?;
        Ok(ended)
    }

    async fn stays(&self, blob: &Candidate) -> Result<bool, StoreError> {
        let (ledger, blob) = (Arc::clone(self.scrubber.ledger()), blob.clone());
        blocking(move || ledger.stays(&blob)).await
    }

    fn done(&self, blob: &Candidate) {
        self.counters.blobs.inc();
        self.blobs.fetch_add(1, Ordering::Relaxed);
        let mut course = self.course();
        if let Some(pass) = &mut course.current {
            pass.blobs += 1;
            pass.bytes += blob.size;
        }
        if let Some((_, _, totals)) = &mut course.counted {
            totals.due = (totals.due.0.saturating_sub(1), totals.due.1.saturating_sub(blob.size));
        }
    }

    async fn write_down(&self, sound: &mut Vec<Candidate>, before: i64) -> Result<(), StoreError> {
        if sound.is_empty() {
            return Ok(());
        }
        self.scrubber.verified(std::mem::take(sound), wall().max(before)).await
    }

    /// Looks again at blobs that seem to be damaged, and marks those that are.
    async fn judge(&self, app: &Arc<App>, suspects: &mut Vec<Candidate>) -> Result<(), StoreError> {
        for blob in std::mem::take(suspects) {
            let (digest, size) = (blob.digest, blob.size);
            let teller = Arc::clone(app);
            let tell = Box::new(move |holders: &[Holder]| events(&teller, &digest, size, holders));
            if let Some(flaw) = self.scrubber.put_aside(&blob, tell).await? {
                tracing::error!(
                    %digest,
                    "blob {digest} is damaged: {flaw}. It is no longer served, and mended by the next push of it; \
                     `registry scrub status` says who holds it"
                );
                self.done(&blob);
                self.counters.damaged.inc();
                let mut course = self.course();
                if let Some(pass) = &mut course.current {
                    pass.damaged += 1;
                }
                course.counted = None;
                drop(course);
                app.ring(true);
            }
        }
        Ok(())
    }

    /// What it does and what it found.
    pub(crate) async fn status(&self) -> Result<Status, OrderError> {
        let totals = self.count(self.before()).await?;
        let ledger = Arc::clone(self.scrubber.ledger());
        let damaged = blocking(move || Ok((ledger.damaged_count()?, ledger.damaged(LISTED)?))).await?;
        let course = self.course();
        let state = match (course.is_verifying, &course.trouble, self.settings.enabled) {
            (true, ..) => State::Verifying,
            (false, Some(_), _) => State::Troubled,
            (false, None, true) => State::Idle,
            (false, None, false) => State::Disabled,
        };
        let left = (state == State::Verifying && course.pace > 0)
            .then(|| totals.due.1.max(totals.due.0 * LEAST) / course.pace);
        Ok(Status {
            pass: course.current.map(|pass| pass.number),
            pace: course.is_verifying.then_some(course.pace),
            seconds_left: left,
            since_start: Some(Shown {
                blobs: self.blobs.load(Ordering::Relaxed),
                bytes: self.bytes.load(Ordering::Relaxed),
            }),
            last: course.last.clone(),
            error: course.trouble.as_ref().map(|(at, text)| Trouble { at: timestamp(*at), text: text.clone() }),
            ..stored(&totals, damaged, &self.settings, state)
        })
    }
}

impl Current {
    fn over(self, error: Option<String>) -> Pass {
        let Self { number, started, blobs, bytes, damaged, .. } = self;
        let (started, ended) = (timestamp(started), timestamp(wall()));
        Pass { number, started, ended, blobs, bytes, damaged, error }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let failed = |source: tokio::task::JoinError| StoreError::Failed {
        operation: "look at the rows".into(),
        source: source.into(),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// The events of a damaged blob, one for each repository and receiver.
fn events(app: &App, digest: &Digest, size: u64, holders: &[Holder]) -> Vec<OutboxEvent> {
    let requested = Requested { id: "", address: String::new(), host: "", method: "", user_agent: "", actor: "scrub" };
    let http = &app.config.http;
    let origin = http.host.as_ref().map_or_else(String::new, |host| format!("{host}{}", http.prefix));
    let mut events = Vec::new();
    for Holder { repository, is_manifest } in holders {
        let target = match is_manifest {
            true => Subject::manifest(repository, digest, Some(size), None, None),
            false => Subject::blob(repository, digest, Some(size)),
        };
        events.extend(app.notifier.events(&Told { action: Action::Corrupt, target }, &requested, &origin));
    }
    events
}

fn stored(
    totals: &Totals,
    (damaged_count, damaged): (u64, Vec<Damaged>),
    settings: &Scrubbing,
    state: State,
) -> Status {
    Status {
        state,
        rate: settings.rate,
        period: settings.period.as_secs(),
        all: totals.all.into(),
        verified: (totals.all.0.saturating_sub(totals.due.0), totals.all.1.saturating_sub(totals.due.1)).into(),
        oldest: (totals.oldest > 0 && totals.all.0 > 0).then(|| timestamp(totals.oldest)),
        damaged_count,
        damaged: damaged.iter().map(status::Damaged::from).collect(),
        pass: None,
        pace: None,
        seconds_left: None,
        since_start: None,
        last: None,
        error: None,
    }
}

/// What to do with the scrub.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how much is verified, and what is damaged
    #[command(
        after_help = "Exits with 1 if something is damaged.\n\nExamples:\n  registry scrub status config.yml\n  \
                      registry scrub status --data /srv/registry --format json"
    )]
    Status {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Have the server verify everything now, at its rate, and wait until it is done
    #[command(
        after_help = "Exits with 1 if something is damaged. Without a server there is `registry check --read`.\n\n\
                      Example:\n  registry scrub run config.yml"
    )]
    Run {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
}

/// How often the course of a pass is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Carries the command out.
pub(crate) fn scrub(command: &Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let (format, status) = match command {
            Command::Status { format, target } => (*format, look(target).await?),
            Command::Run { format, target } => (*format, pass(target).await?),
        };
        show(format, &status)?;
        if let (Command::Run { .. }, Some(error)) = (command, status.last.as_ref().and_then(|last| last.error.as_ref()))
        {
            return Err(anyhow!("the pass did not come to its end: {error}"));
        }
        Ok(if status.damaged_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Asks the server, or looks into the data.
async fn look(target: &Target) -> Result<Status> {
    let found = target.find()?;
    if let Some(answer) = server::ask(&found.root, &Operation::ScrubStatus {}).await? {
        return serde_json::from_value(answer).context("understand the server's answer");
    }
    let settings = found.config.map(|config| config.scrub).unwrap_or_default();
    let ledger = Ledger::open(&found.root)?;
    let totals = ledger.totals(wall().saturating_sub(seconds(settings.period)))?;
    let damaged = (ledger.damaged_count()?, ledger.damaged(LISTED)?);
    Ok(stored(&totals, damaged, &settings, State::NoServer))
}

/// Has the server verify everything, and waits for the end.
async fn pass(target: &Target) -> Result<Status> {
    let found = target.find()?;
    let messenger = server::find(&found.root)?.ok_or_else(|| {
        anyhow!("no server runs on {} (hint: `registry check --read` verifies without one)", found.root.display())
    })?;
    let answer = messenger.send(&Operation::ScrubRun {}).await?;
    let number = answer["pass"].as_u64().context("understand the server's answer")?;
    let mut meter = Meter::new("verified");
    loop {
        let answer =
            messenger.send(&Operation::ScrubStatus {}).await.context("the pass goes on without this command")?;
        let status: Status = serde_json::from_value(answer).context("understand the server's answer")?;
        if status.last.as_ref().is_some_and(|last| last.number >= number) {
            return Ok(status);
        }
        meter.show(status.verified.bytes, status.all.bytes);
        sleep(LOOK).await;
    }
}

fn show(format: Format, status: &Status) -> Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string(status)?),
        Format::Table => print!("{}", table(status)),
    }
    Ok(())
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text.push_str(&format!("{name:<10}{value}\n"));
    let pace = status.pace.map_or_else(String::new, |pace| format!(" at {} a second", Size(pace)));
    let left = status
        .seconds_left
        .map_or_else(String::new, |left| format!(", about {} to go", span(Duration::from_secs(left))));
    row("scrub", format!("{}{pace}{left}", status.state.as_str()));
    let (done, all) = (&status.verified, &status.all);
    let within = match status.pass {
        Some(_) => "in this pass".to_owned(),
        None => format!("within {}", span(Duration::from_secs(status.period))),
    };
    row(
        "verified",
        format!("{} of {} blobs, {} of {}, {within}", done.blobs, all.blobs, Size(done.bytes), Size(all.bytes)),
    );
    if let Some(oldest) = &status.oldest {
        row("oldest", format!("every blob was verified since {oldest}"));
    }
    if let Some(Pass { started, ended, blobs, bytes, damaged, .. }) = &status.last {
        let what = format!("{blobs} blobs with {}, {damaged} found damaged", Size(*bytes));
        row("last run", format!("from {started} to {ended}: {what}"));
    }
    if let Some(Trouble { at, text }) = &status.error {
        row("error", format!("at {at}: {text}"));
    }
    row(
        "damaged",
        match status.damaged_count {
            0 => "none".to_owned(),
            count => format!("{count}; each is mended by the next push of it"),
        },
    );
    for status::Damaged { digest, size, since, repositories } in &status.damaged {
        let holders = if repositories.is_empty() { "no repository".to_owned() } else { repositories.join(", ") };
        text.push_str(&format!("  {digest}  {}, since {since}, in {holders}\n", Size(*size)));
    }
    text
}
