//! The power goes at any moment: whatever the disk keeps of what was not synced, all that was acknowledged is there.
//!
//! The real server runs under strace while clients push, move, delete and push again and the collection runs; the
//! recorded calls tell what may be on the disk at each moment (`testkit::powercut`), and the recorded answers what has
//! to be. Each state is laid out and opened by the code that a start of the server runs.
//!
//! `POWER_CUT_STATES`, `POWER_CUT_SECONDS` and `POWER_CUT_REPORT=<file>` make more of it by hand; see
//! docs/power-cut.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use registry_core::digest::Digest;
use registry_core::gc::{Collection, Policy};
use registry_core::name::RepoName;
use registry_core::reference::Reference;
use registry_core::retention::Rules;
use registry_core::store::{BlobEntry, Blobs, Content, Metadata};
use registry_store::blob::fs::FsBlobs;
use registry_store::check::{self, Kind};
use registry_store::claims::Claims;
use registry_store::data_dir::DataDir;
use registry_store::disk::Poison;
use registry_store::maintenance::{purge, settle, sweep, sweep_parts};
use registry_store::meta::sqlite::SqliteMetadata;
use serde_json::{Value, json};
use testkit::client::{Client, PushError};
use testkit::image::{OCI_CONFIG, OCI_MANIFEST, descriptor, sha256};
use testkit::powercut::STRACE;
use testkit::powercut::disk::{Blind, Disk, Fate};
use testkit::powercut::exchange::{Exchange, exchanges};
use testkit::powercut::trace::{Call, Moment, parse};
use testkit::process::wait_until;
use testkit::random::{Random, seed};
use testkit::server::Setup;

use crate::{PLAIN, REGISTRY};

/// Keeps nothing for longer than some seconds, so that all of the collection is on the record.
const COLLECTION: &str = "
roadstead:
  gc:
    interval: 1s
    grace: 2s
    lease: 4s
    quarantine: 1s
    untagged: keep
    orphans: 3s
";
/// For how long a blob is promised at least, in seconds: renewed once a quarter is over, counted in whole seconds.
const PROMISED: f64 = 1.75;
const CLIENTS: u64 = 3;
/// More than objects rest in the metadata before they move to their files.
const RECORDED: u64 = 22;
const STATES: usize = 1200;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// --- the recording ---

/// Runs the workload on a recorded server; returns the calls and the data directory's path.
fn record(random: &mut Random) -> (Vec<Call>, String) {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let (trace, wrapper) = (dir.path().join("trace"), dir.path().join("recorded"));
    let options: Vec<String> = STRACE.iter().map(|option| format!("'{option}'")).collect();
    let script = format!("#!/bin/sh\nexec strace {} -o '{}' '{REGISTRY}' \"$@\"\n", options.join(" "), trace.display());
    fs::write(&wrapper, script).expect("write the wrapper");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let data = dir.path().join("data");
    let config = format!("{PLAIN}{COLLECTION}");
    let mut server = Setup::new(&wrapper.to_string_lossy(), &config).data(&data).start();
    let client = server.client();
    let until = Instant::now() + Duration::from_secs(setting("POWER_CUT_SECONDS", RECORDED));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (client, random) = (&client, Random::new(random.next_u64()));
            scope.spawn(move || work(client, number, random, until));
        }
    });
    server.stop();
    let ended = || fs::read_to_string(&trace).is_ok_and(|text| text.contains("+++ exited with 0 +++"));
    assert!(wait_until(Duration::from_secs(60), ended), "strace does not end:\n{}", server.log());
    let text = fs::read_to_string(&trace).expect("read the trace");
    (parse(&text), data.to_string_lossy().into_owned())
}

/// One client, in a repository of its own: one request after the other.
fn work(client: &Client, number: u64, mut random: Random, until: Instant) {
    let repo = format!("cut/r{number}");
    let mut pushed: Vec<(String, String)> = Vec::new();
    while Instant::now() < until {
        match random.below(10) {
            0 | 1 if pushed.len() > 2 => {
                let (digest, _) = pushed.remove(random.below(pushed.len() as u64) as usize);
                client.send("DELETE", &format!("/v2/{repo}/manifests/{digest}"), &[], b"").expect("an answer");
            }
            2 => {
                let tag = format!("t{}", random.below(3));
                client.send("DELETE", &format!("/v2/{repo}/manifests/{tag}"), &[], b"").expect("an answer");
            }
            _ => match push(client, &repo, &mut random) {
                Ok(manifest) => pushed.push(manifest),
                // A promise ran out on a slow machine; the next push is another one.
                Err(PushError::Refused(answer)) if answer.error_code() == "MANIFEST_BLOB_UNKNOWN" => {}
                Err(error) => panic!("a push was not acknowledged: {error:?}"),
            },
        }
        thread::sleep(Duration::from_millis(60 + random.below(240)));
    }
}

fn push(client: &Client, repo: &str, random: &mut Random) -> Result<(String, String), PushError> {
    let mut layers = Vec::new();
    for _ in 0..1 + random.below(2) {
        // A few layers that come and go and come back, small ones and large ones, and some that are new.
        let which = random.below(12);
        let size = if which.is_multiple_of(3) { 70_000 + which as usize * 9_000 } else { 900 + which as usize * 4_000 };
        layers.push(if which == 11 { random.bytes(90_000) } else { Random::new(which).bytes(size) });
    }
    layers.dedup();
    let config = json!({"architecture": "amd64", "os": "linux", "id": random.next_u64()}).to_string().into_bytes();
    for blob in layers.iter().chain([&config]) {
        if client.head(&format!("/v2/{repo}/blobs/{}", sha256(blob)))?.status == 200 {
            continue;
        }
        match random.below(3) {
            0 => client.push_parts(repo, blob, 40_000)?,
            _ => client.push_blob(repo, blob)?,
        };
    }
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, &config), "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let tag = format!("t{}", random.below(3));
    client.push_manifest(repo, &tag, &manifest)?;
    Ok((sha256(&manifest), tag))
}

// --- what has to be there ---

#[derive(Debug, Clone)]
enum What {
    Put { tag: Option<String>, digest: String },
    DeleteTag(String),
    DeleteManifest(String),
}

#[derive(Debug)]
struct Operation {
    asked: Moment,
    answered: Moment,
    what: What,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Contents {
    tags: BTreeMap<String, String>,
    manifests: BTreeSet<String>,
}

impl Contents {
    fn apply(&mut self, what: &What) {
        match what {
            What::Put { tag, digest } => {
                self.manifests.insert(digest.clone());
                self.tags.extend(tag.iter().map(|tag| (tag.clone(), digest.clone())));
            }
            What::DeleteTag(tag) => {
                self.tags.remove(tag);
            }
            What::DeleteManifest(digest) => {
                self.manifests.remove(digest);
                self.tags.retain(|_, named| named != digest);
            }
        }
    }
}

/// What the clients asked for and were told, from the recording alone.
#[derive(Debug, Default)]
struct History {
    /// Each repository's operations, one after the other.
    operations: BTreeMap<String, Vec<Operation>>,
    /// Blobs by repository and digest, with the moment and time of their acknowledgement.
    blobs: Vec<(String, String, Moment, f64)>,
}

impl History {
    fn of(exchanges: &[Exchange]) -> Self {
        let mut history = Self::default();
        for exchange in exchanges {
            let (answered, status) = exchange.answered.unwrap_or((Moment::MAX, 0));
            let path = exchange.path.strip_prefix("/v2/").unwrap_or_default();
            let digest = exchange.header("docker-content-digest").to_owned();
            if let Some((repo, reference)) = path.split_once("/manifests/") {
                let is_digest = reference.contains(':');
                let what = match (exchange.method.as_str(), status) {
                    ("PUT", 201) => What::Put { tag: (!is_digest).then(|| reference.to_owned()), digest },
                    ("DELETE", 202) if is_digest => What::DeleteManifest(reference.to_owned()),
                    ("DELETE", 202) => What::DeleteTag(reference.to_owned()),
                    // Refused, or only read.
                    _ => continue,
                };
                let operation = Operation { asked: exchange.asked, answered, what };
                history.operations.entry(repo.to_owned()).or_default().push(operation);
            } else if let (Some((repo, _)), 201) = (path.split_once("/blobs/uploads/"), status) {
                history.blobs.push((repo.to_owned(), digest, answered, exchange.time));
            }
        }
        history
    }

    /// What a repository holds at that moment: as it was acknowledged, and with what was under way.
    fn at(operations: &[Operation], moment: Moment) -> (Contents, Contents) {
        let mut sure = Contents::default();
        operations.iter().filter(|one| one.answered < moment).for_each(|one| sure.apply(&one.what));
        let mut perhaps = sure.clone();
        let under_way = |one: &&Operation| one.asked < moment && one.answered >= moment;
        operations.iter().filter(under_way).for_each(|one| perhaps.apply(&one.what));
        (sure, perhaps)
    }
}

// --- the look at a state ---

/// An opened data directory.
struct Opened {
    metadata: SqliteMetadata,
    blobs: FsBlobs,
}

impl Opened {
    fn open(root: &Path) -> Result<Self, String> {
        let dir = DataDir::open(root).map_err(|error| format!("open the directory: {error}"))?;
        let poison = Poison::default();
        let metadata = SqliteMetadata::open_in(&dir, poison.clone())
            .map_err(|error| format!("open the metadata: {error} {:?}", std::error::Error::source(&error)))?;
        Ok(Self { metadata, blobs: FsBlobs::new(dir, poison) })
    }

    /// The bytes of a blob, or what is wrong with them.
    async fn bytes(&self, entry: &BlobEntry) -> Result<Vec<u8>, String> {
        let bytes = match &entry.content {
            Content::Inline(bytes) => bytes.to_vec(),
            Content::Stored(place) => {
                let open = self.blobs.open(&entry.digest, place).await.map_err(|error| error.to_string())?;
                let reader = open.ok_or_else(|| format!("{}: no bytes at {place:?}", entry.digest))?;
                let read = reader.read(0, reader.size() as usize);
                read.map_err(|error| format!("{}: {error}", entry.digest))?.to_vec()
            }
        };
        let actual = sha256(&bytes);
        if actual == entry.digest.to_string() { Ok(bytes) } else { Err(format!("{}: wrong bytes", entry.digest)) }
    }

    /// Compares a repository with what it may hold; what is wrong goes to `problems`.
    async fn compare(&self, name: &str, operations: &[Operation], moment: Moment, problems: &mut Vec<String>) {
        let repository: RepoName = name.parse().expect("a repository of the test");
        let (sure, perhaps) = History::at(operations, moment);
        for tag in 0..3 {
            let tag = format!("t{tag}");
            let reference: Reference = tag.parse().expect("a tag");
            let found = match self.metadata.manifest(&repository, &reference).await {
                Ok(entry) => entry.map(|entry| entry.blob.digest.to_string()),
                Err(error) => return problems.push(format!("{name}:{tag}: {error}")),
            };
            if found.as_ref() != sure.tags.get(&tag) && found.as_ref() != perhaps.tags.get(&tag) {
                problems.push(format!("{name}:{tag} names {found:?}, not {:?}", sure.tags.get(&tag)));
            }
        }
        let all: BTreeSet<&String> = operations
            .iter()
            .filter_map(|one| match &one.what {
                What::Put { digest, .. } if one.asked < moment => Some(digest),
                _ => None,
            })
            .collect();
        for text in all {
            let digest: Digest = text.parse().expect("a digest of the trace");
            let entry = match self.metadata.manifest(&repository, &Reference::Digest(digest)).await {
                Ok(entry) => entry,
                Err(error) => return problems.push(format!("{name}@{text}: {error}")),
            };
            let there = entry.is_some();
            if there != sure.manifests.contains(text) && there != perhaps.manifests.contains(text) {
                problems.push(format!("{name}@{text} is there: {there}, acknowledged: {}", !there));
            }
            if let Some(entry) = entry {
                match self.bytes(&entry.blob).await {
                    Ok(bytes) => self.parts(&repository, text, &bytes, problems).await,
                    Err(error) => problems.push(format!("{name}@{text}: {error}")),
                }
            }
        }
    }

    async fn parts(&self, repository: &RepoName, manifest: &str, bytes: &[u8], problems: &mut Vec<String>) {
        let manifest_value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let layers = manifest_value["layers"].as_array().into_iter().flatten();
        for part in layers.chain([&manifest_value["config"]]) {
            if let Err(error) = self.blob(repository, part["digest"].as_str().unwrap_or_default()).await {
                problems.push(format!("{repository}@{manifest}: its part {error}"));
            }
        }
    }

    async fn blob(&self, repository: &RepoName, text: &str) -> Result<(), String> {
        let digest: Digest = text.parse().map_err(|_| format!("{text} is no digest"))?;
        let entry = self.metadata.blob(repository, &digest).await.map_err(|error| error.to_string())?;
        self.bytes(&entry.ok_or_else(|| format!("{text} is unknown"))?).await.map(drop)
    }

    /// Collects all that can be collected, as if much time had passed.
    async fn collect(&self) -> Result<(), Box<dyn std::error::Error>> {
        let gc = Policy { untagged: None, ..Policy::default() };
        self.metadata.govern(Rules { gc, ..Rules::default() }).await?;
        let claims = Claims::default();
        let later = |days: i64| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map(|now| now.as_secs() as i64 + days * 86_400)
        };
        while settle(&self.metadata, &self.blobs, &claims, -1, 64).await? > 0 {}
        self.metadata.review_all().await?;
        while self.metadata.review(later(3)?, gc, 1000).await?.reviews > 0 {}
        while self.metadata.retire(later(6)?, gc, 1000).await? > 0 {}
        while purge(&self.metadata, &self.blobs, &claims, later(6)?, 1000).await? > 0 {}
        for part in sweep_parts(&self.metadata, &self.blobs).await? {
            sweep(&self.metadata, &self.blobs, &claims, &part, Duration::ZERO).await?;
        }
        Ok(())
    }
}

/// Everything that is known of the recording.
struct Recording {
    disk: Disk,
    history: History,
    /// Moments and their times, for the promises.
    times: Vec<(Moment, f64)>,
}

impl Recording {
    fn new(calls: &[Call], root: &str, blind: Blind) -> Self {
        // The index of the log is rebuilt at each start and never durable; sockets are no files.
        let ignored = |path: &str| path.ends_with("-shm") || path.ends_with(".sock");
        let disk = Disk::replay(calls, root, blind, ignored);
        let times = calls.iter().map(|call| (call.start, call.time)).collect();
        Self { disk, history: History::of(&exchanges(calls)), times }
    }

    fn time(&self, moment: Moment) -> f64 {
        let index = self.times.partition_point(|(start, _)| *start < moment);
        self.times.get(index.max(1) - 1).map_or(0.0, |(_, time)| *time)
    }

    /// What is wrong with a state; with `collects` also after a collection.
    fn look(&self, moment: Moment, fate: Fate, collects: bool, scratch: &Path) -> Vec<String> {
        let root = tempfile::tempdir_in(scratch).expect("create a directory for a state");
        self.disk.crash(moment, fate, root.path()).expect("lay out a state");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
        let mut problems = Vec::new();
        runtime.block_on(async {
            let opened = match Opened::open(root.path()) {
                Ok(opened) => opened,
                Err(error) => return problems.push(error),
            };
            for (name, operations) in &self.history.operations {
                opened.compare(name, operations, moment, &mut problems).await;
            }
            let now = self.time(moment);
            let promised = |time: f64| now < time + PROMISED;
            for (name, digest, answered, time) in &self.history.blobs {
                if *answered < moment && promised(*time) {
                    let repository = name.parse().expect("a repository of the test");
                    if let Err(error) = opened.blob(&repository, digest).await {
                        problems.push(format!("{name}: a blob that was promised: {error}"));
                    }
                }
            }
            if collects && problems.is_empty() {
                if let Err(error) = opened.collect().await {
                    problems.push(format!("collect: {error}"));
                }
                for (name, operations) in &self.history.operations {
                    opened.compare(name, operations, moment, &mut problems).await;
                }
                problems.iter_mut().for_each(|problem| problem.insert_str(0, "after a collection: "));
            }
        });
        drop(runtime);
        match check::check(root.path(), &check::Options { read: true, ..check::Options::default() }, &mut |_, _| {}) {
            Ok(report) => {
                // What only takes space is no harm, but after a collection nothing may be left of it.
                let counts = |kind: Kind| kind.is_damage() || (collects && kind == Kind::Orphan);
                let wrong = report.problems.iter().filter(|problem| counts(problem.kind));
                problems.extend(wrong.map(|problem| format!("check: {problem:?}")));
            }
            Err(error) => problems.push(format!("check: {error}")),
        }
        problems
    }

    /// So many states: moments right after answers and between any two changes, each with every fate.
    fn states(&self, count: usize, random: &mut Random) -> Vec<(Moment, Fate)> {
        let answers: Vec<Moment> = self
            .history
            .operations
            .values()
            .flatten()
            .map(|one| one.answered)
            .chain(self.history.blobs.iter().map(|(_, _, answered, _)| *answered))
            .filter(|answered| *answered != Moment::MAX)
            .map(|answered| answered + 1)
            .collect();
        let mut states = Vec::new();
        while states.len() < count {
            let from = if states.len().is_multiple_of(2) { &answers[..] } else { self.disk.steps() };
            let moment = from[random.below(from.len() as u64) as usize];
            let fates = [Fate::Lost, Fate::Kept, Fate::OnlyNames, Fate::OnlyContent];
            states.extend(fates.map(|fate| (moment, fate)));
            states.extend((0..3).map(|_| (moment, Fate::Chance(random.next_u64()))));
        }
        states
    }
}

/// Looks at states on all cores; returns the problems of each that has some, at most a hundred of them.
fn look_at(recording: &Recording, states: &[(Moment, Fate)], scratch: &Path) -> Vec<String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                while let Some((moment, fate)) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let collects = moment.is_multiple_of(4);
                    let problems = recording.look(*moment, *fate, collects, scratch);
                    let mut found = found.lock().expect("nobody panics with it");
                    if !problems.is_empty() && found.len() < 100 {
                        found.push(format!("at line {moment}, {fate:?}:\n    {}", problems.join("\n    ")));
                    }
                }
            });
        }
    });
    found.into_inner().expect("nobody panicked with it")
}

fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut_at_any_moment() {
    let seed = seed();
    let mut random = Random::new(seed);
    let begin = Instant::now();
    let (calls, root) = record(&mut random);
    let recorded = begin.elapsed();
    let recording = Recording::new(&calls, &root, Blind::No);
    let operations: usize = recording.history.operations.values().map(Vec::len).sum();
    assert!(operations > 60 && recording.history.blobs.len() > 60, "the recording shows hardly any work");

    let states = recording.states(setting("POWER_CUT_STATES", STATES as u64) as usize, &mut random);
    let begin = Instant::now();
    let found = look_at(&recording, &states, &scratch());
    let looked = begin.elapsed();

    // The same, with a disk that takes no notice of syncs: that has to be seen.
    let mut planted = Vec::new();
    for blind in [Blind::ToFileSyncs, Blind::ToDirectorySyncs] {
        let recording = Recording::new(&calls, &root, blind);
        let states: Vec<_> =
            recording.states(140, &mut random).into_iter().filter(|(_, fate)| *fate != Fate::Kept).collect();
        planted.push((blind, look_at(&recording, &states, &scratch()).len(), states.len()));
    }
    let report = report(seed, &calls, &recording, &states, (recorded, looked), &found, &planted);
    eprintln!("{report}");
    if let Ok(file) = std::env::var("POWER_CUT_REPORT") {
        fs::write(&file, &report).unwrap_or_else(|error| panic!("write {file}: {error}"));
    }
    assert!(found.is_empty(), "{} states are wrong:\n{}", found.len(), found.join("\n"));
    for (blind, wrong, _) in planted {
        assert!(wrong > 0, "a disk that is blind {blind:?} was not noticed: this test cannot fail");
    }
}

fn report(
    seed: u64,
    calls: &[Call],
    recording: &Recording,
    states: &[(Moment, Fate)],
    (recorded, looked): (Duration, Duration),
    found: &[String],
    planted: &[(Blind, usize, usize)],
) -> String {
    let mut report = String::from("| | |\n|---|---|\n");
    let mut line = |name: &str, value: String| {
        writeln!(report, "| {name} | {value} |").expect("a string takes all");
    };
    let syncs = calls.iter().filter(|call| matches!(call.name.as_str(), "fsync" | "fdatasync")).count();
    let operations = || recording.history.operations.values().flatten();
    let puts = operations().filter(|one| matches!(one.what, What::Put { .. })).count();
    let unlinks = calls.iter().filter(|call| call.name.starts_with("unlink")).count();
    let renames = calls.iter().filter(|call| call.name.starts_with("rename")).count();
    let moments: BTreeSet<Moment> = states.iter().map(|(moment, _)| *moment).collect();
    line("seed", seed.to_string());
    line("recorded", format!("{:.0} s, {} system calls", recorded.as_secs_f64(), calls.len()));
    line("changes of the disk", recording.disk.steps().len().to_string());
    line("syncs, renames, unlinks", format!("{syncs}, {renames}, {unlinks}"));
    line(
        "acknowledged",
        format!("{} blobs, {puts} manifests, {} deletions", recording.history.blobs.len(), operations().count() - puts),
    );
    line(
        "states looked at",
        format!("{} at {} moments, in {:.0} s", states.len(), moments.len(), looked.as_secs_f64()),
    );
    line("states in which something was wrong", found.len().to_string());
    for (blind, wrong, of) in planted {
        line(&format!("wrong states found with a disk blind {blind:?}"), format!("{wrong} of {of}, at most 100"));
    }
    report
}
