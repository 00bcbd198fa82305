//! `cargo xtask soak`: clients that push, pull, move and delete at once for a given time, a server that is killed again
//! and again while it collects every second, and a model that says what each answer may be.
//!
//! This file owns the options and the order of things: run, let it rest, audit, report. It knows the registry only as
//! its users do, by its program and HTTP.

mod audit;
mod client;
mod content;
mod model;
mod report;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use client::Client;
use content::{Content, Image, Pool, Random};
use model::{Model, Moment, Rules, SECOND};
use server::{Server, Times};

/// Repositories that all clients write to.
const SHARED: usize = 3;
/// Tags in each repository.
const TAGS: usize = 6;
/// Deleted images that are remembered to be pushed again.
const GRAVES: usize = 200;
/// Requests that are remembered to explain a violation.
const EVENTS: usize = 20_000;
/// Violations that are kept; a run with more than that shows nothing new.
const VIOLATIONS: usize = 100;
/// Lines that explain one.
const EXPLANATION: usize = 40;

/// How long the server keeps things: long enough for a client's push, short enough that all is collected many times.
const TIMES: Times = Times { grace: 4, lease: 8, quarantine: 2, untagged: 6, orphans: 6, uploads: 20 };

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub(crate) struct Options {
    /// How long to run, such as 90s, 2m or 1h; the audit comes after that.
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = duration)]
    time: Duration,
    /// What the random choices follow from [default: from the clock].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the report, Markdown, to this file as well.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Clients at a time.
    #[arg(long, value_name = "K", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=64))]
    clients: u8,
    /// Our server; it is started as `PATH serve CONFIG`.
    #[arg(long, value_name = "PATH", default_value = "target/release/registry")]
    server: PathBuf,
    /// Where the server keeps its data; removed after a run without violations [default: target/soak].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Do not kill the server.
    #[arg(long)]
    no_kills: bool,
    /// Leave the collection out, and with it the look for what it left.
    #[arg(long)]
    no_collection: bool,
    /// Give the server a lease of so many seconds while the clients count on the usual one: a mistake that has to be
    /// found, to see that this program can fail.
    #[arg(long, value_name = "SECONDS")]
    planted_lease: Option<u64>,
}

/// Parses a whole number with `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: give a number and s, m or h, such as 90s");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    if !(1..=7 * 24 * 3600).contains(&(number.saturating_mul(unit))) {
        return Err("the time must be a second to a week".to_owned());
    }
    Ok(Duration::from_secs(number * unit))
}

/// Something that must not be.
struct Violation {
    at: Moment,
    who: String,
    subject: String,
    what: String,
    /// The last events about the subject.
    explanation: Vec<String>,
}

struct Event {
    at: Moment,
    who: String,
    text: String,
}

/// What the clients, the one who kills and the audit share.
struct Shared {
    seed: u64,
    clock: Instant,
    address: SocketAddr,
    model: Mutex<Model>,
    pool: Pool,
    /// A blob that every referrer has.
    empty: Arc<Content>,
    shared: Vec<String>,
    own: Vec<String>,
    tags: Vec<String>,
    /// Odd while the server runs; every start and every end adds one.
    generation: AtomicU64,
    over: AtomicBool,
    graves: Mutex<VecDeque<(String, Arc<Image>, Moment)>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    events: Mutex<VecDeque<Event>>,
    violations: Mutex<(Vec<Violation>, u64)>,
}

impl Shared {
    fn new(seed: u64, address: SocketAddr, clients: usize, times: &Times) -> Self {
        // The server counts whole seconds, and renews a promise only once a quarter of the lease is over.
        let rules = Rules {
            lease: (times.lease * SECOND * 3 / 4).saturating_sub(SECOND + SECOND / 4),
            grace: (times.grace * SECOND).saturating_sub(SECOND + SECOND / 4),
            untagged: (times.untagged * SECOND).saturating_sub(SECOND + SECOND / 4),
        };
        let shared: Vec<String> = (0..SHARED).map(|number| format!("soak/shared-{number}")).collect();
        let own: Vec<String> = (0..clients).map(|number| format!("soak/own-{number}")).collect();
        let tags: Vec<String> = (0..TAGS).map(|number| format!("t{number}")).collect();
        let all: Vec<String> = shared.iter().chain(&own).cloned().collect();
        Self {
            seed,
            clock: Instant::now(),
            address,
            model: Mutex::new(Model::new(rules, &all, &tags)),
            pool: Pool::new(seed),
            empty: Arc::new(Content::new(seed, 2)),
            shared,
            own,
            tags,
            generation: AtomicU64::new(0),
            over: AtomicBool::new(false),
            graves: Mutex::default(),
            counts: Mutex::default(),
            events: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    fn now(&self) -> Moment {
        self.clock.elapsed().as_micros() as Moment
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, client: usize) -> String {
        self.own.get(client).unwrap_or(&self.shared[0]).clone()
    }

    fn repositories(&self) -> impl Iterator<Item = &String> {
        self.shared.iter().chain(&self.own)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn note(&self, who: &str, text: &str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(Event { at: self.now(), who: who.to_owned(), text: text.to_owned() });
    }

    fn violation(&self, who: &str, subject: &str, what: &str) {
        let at = self.now();
        eprintln!("soak: VIOLATION at {:.3} s, {who}: {subject}: {what}", at as f64 / SECOND as f64);
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        violations.1 += 1;
        if violations.0.len() == VIOLATIONS {
            return;
        }
        // A digest is found by its own text, a tag by its path, and a restart explains much.
        let path = subject.replacen(':', "/manifests/", 1);
        let needle = if subject.starts_with("sha256:") { subject } else { &path };
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let about = events.iter().filter(|event| event.text.contains(needle) || event.who == "server");
        let mut explanation: Vec<String> = about.rev_take(EXPLANATION);
        explanation.reverse();
        drop(events);
        violations.0.push(Violation {
            at,
            who: who.to_owned(),
            subject: subject.to_owned(),
            what: what.to_owned(),
            explanation,
        });
    }

    /// Remembers an image that was deleted.
    fn bury(&self, repository: &str, image: &Arc<Image>) {
        let mut graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        if graves.len() == GRAVES {
            graves.pop_front();
        }
        graves.push_back((repository.to_owned(), Arc::clone(image), self.now()));
    }

    /// One of those images, mostly one whose blobs are about to be collected.
    fn exhume(&self, random: &mut Random) -> Option<(String, Arc<Image>)> {
        let (now, quiet) = (self.now(), (TIMES.grace + TIMES.lease) * SECOND);
        let graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        let ripe = |at: Moment| (now - at).abs_diff(quiet) < (TIMES.quarantine + 3) * SECOND;
        let ripe: Vec<_> = graves.iter().filter(|(_, _, at)| ripe(*at)).collect();
        let all: Vec<_> = graves.iter().collect();
        let any = ripe.is_empty() || random.one_in(4);
        let chosen = random.pick(if any { &all } else { &ripe });
        chosen.map(|(repository, image, _)| (repository.clone(), Arc::clone(image)))
    }
}

/// The last few of many.
trait RevTake {
    fn rev_take(self, count: usize) -> Vec<String>;
}

impl<'a, I: DoubleEndedIterator<Item = &'a Event>> RevTake for I {
    fn rev_take(self, count: usize) -> Vec<String> {
        let line = |event: &Event| format!("{:10.3} {} {}", event.at as f64 / SECOND as f64, event.who, event.text);
        self.rev().take(count).map(line).collect()
    }
}

/// What a run was, for the report.
struct Summary {
    seed: u64,
    clients: usize,
    asked: Duration,
    took: Duration,
    kills: u64,
    slowest_start: Duration,
    clean_after: Option<Duration>,
    check: String,
    status: Option<serde_json::Value>,
    /// What all processes collected, as far as they could tell before they were killed.
    collected: BTreeMap<String, u64>,
    /// Files at the end whose canonical place had been given up before.
    moved: usize,
    /// Operations and manifests in the model at most.
    model: (usize, usize),
    metadata_bytes: u64,
    complaints: Vec<String>,
}

/// Runs, audits and reports.
///
/// # Errors
/// If the server does not start, or anything was found that must not be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let program = options.server.canonicalize().or_else(|_| root.join(&options.server).canonicalize());
    let program = program.with_context(|| {
        format!(
            "find {}: build it with `cargo build --release -p registry`, or name another one",
            options.server.display()
        )
    })?;
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = options.seed.unwrap_or_else(|| clock.map_or(0, |since| since.as_secs()));
    let data = options.data.clone().unwrap_or_else(|| root.join("target/soak"));
    let data = data.join(std::process::id().to_string());
    fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
    let data = data.canonicalize()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("install a signal handler")?;
    }
    let told = Times { lease: options.planted_lease.unwrap_or(TIMES.lease), ..TIMES };
    let mut server = Server::new(&program, &data, (!options.no_collection).then_some(&told), seed)?;
    eprintln!("soak: seed {seed}, {} clients, {:?}, data in {}", options.clients, options.time, data.display());
    let shared = Shared::new(seed, server.address, usize::from(options.clients), &TIMES);
    let summary = soak(options, &shared, &mut server, &stop)?;
    server.kill();
    let violations = shared.violations.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
    let text = report::markdown(&summary, &counts, &violations.0, violations.1);
    print!("{text}");
    if let Some(file) = &options.report {
        fs::write(file, &text).with_context(|| format!("write {}", file.display()))?;
    }
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    if violations.1 > 0 {
        bail!("{} violations; the server's data and log are in {}", violations.1, data.display());
    }
    fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    Ok(())
}

fn soak(options: &Options, shared: &Shared, server: &mut Server, stop: &AtomicBool) -> Result<Summary> {
    let begin = Instant::now();
    let mut kills = Kills {
        random: Random::new(shared.seed ^ 0xDEAD),
        count: 0,
        slowest_start: Duration::ZERO,
        collected: BTreeMap::new(),
    };
    let mut model = (0, 0);
    kills.start(shared, server)?;
    let outcome = thread::scope(|scope| -> Result<()> {
        for number in 0..usize::from(options.clients) {
            scope.spawn(move || Client::new(shared, number).run());
        }
        let result = (|| {
            let mut next = kills.next();
            while begin.elapsed() < options.time && !stop.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100));
                server.check_alive()?;
                if (begin.elapsed().as_millis() / 100).is_multiple_of(5) {
                    let mut sweeping = shared.model();
                    sweeping.sweep(shared.now());
                    let (operations, manifests) = sweeping.size();
                    model = (model.0.max(operations), model.1.max(manifests));
                }
                if !options.no_kills && Instant::now() >= next {
                    kills.kill(shared, server)?;
                    next = kills.next();
                }
            }
            Ok(())
        })();
        // However it went, the clients are to end.
        shared.over.store(true, Ordering::Relaxed);
        result
    });
    if let Err(error) = outcome {
        shared.violation("server", "the server", &format!("{error:#}"));
    }
    let took = begin.elapsed();
    let (mut clean_after, mut check, mut status) = (None, "not run".to_owned(), None);
    if server.check_alive().is_ok() {
        eprintln!("soak: pulling everything");
        audit::pull_everything(shared);
        if !options.no_collection && !stop.load(Ordering::Relaxed) {
            eprintln!("soak: waiting until all is collected");
            clean_after = Some(audit::wait_until_clean(shared, server, &TIMES)?);
            status = self::status(server);
            shared.model().sweep(shared.now());
            audit::pull_everything(shared);
        }
        kills.note_collected(server);
        server.stop()?;
        if !options.no_collection {
            check = audit::check_directory(shared, server)?;
        }
        kills.start(shared, server)?;
        eprintln!("soak: pulling everything once more, after a restart");
        audit::pull_everything(shared);
    }
    Ok(Summary {
        seed: shared.seed,
        clients: usize::from(options.clients),
        asked: options.time,
        took,
        kills: kills.count,
        slowest_start: kills.slowest_start,
        clean_after,
        check,
        status,
        collected: kills.collected,
        moved: server.blob_files()?.moved,
        model,
        metadata_bytes: server.metadata_bytes(),
        complaints: server.complaints(20),
    })
}

/// What the program says about its collection.
fn status(server: &Server) -> Option<serde_json::Value> {
    let output = server.command(&["gc", "status"]).ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// Who kills the server.
struct Kills {
    random: Random,
    count: u64,
    slowest_start: Duration,
    collected: BTreeMap<String, u64>,
}

impl Kills {
    /// Adds up what the running server has collected, which is to end now.
    fn note_collected(&mut self, server: &Server) {
        for (name, count) in server.collected() {
            *self.collected.entry(name).or_default() += count;
        }
    }

    /// When the next one is due.
    fn next(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(5_000 + self.random.below(10_000) as u64)
    }

    fn start(&mut self, shared: &Shared, server: &mut Server) -> Result<()> {
        let took = server.start()?;
        self.slowest_start = self.slowest_start.max(took);
        shared.note("server", &format!("started within {took:?}"));
        shared.generation.fetch_add(shared.generation() % 2 + 1, Ordering::SeqCst);
        Ok(())
    }

    fn kill(&mut self, shared: &Shared, server: &mut Server) -> Result<()> {
        self.note_collected(server);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        server.kill();
        self.count += 1;
        shared.model().killed(shared.now());
        shared.note("server", "killed");
        sleep(Duration::from_millis(self.random.below(400) as u64));
        self.start(shared, server)
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        };
        check("90s", Some(90));
        check("2m", Some(120));
        check("1h", Some(3600));
        check("0s", None);
        check("200h", None);
        check("1", None);
        check("h", None);
        check("", None);
    }
}
