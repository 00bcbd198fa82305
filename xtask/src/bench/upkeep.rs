//! `cargo xtask bench-upkeep`: what pushes and pulls feel of the collection and of the scrub.
//!
//! The same load runs in turns while the work beside it rests and while it goes on, on one server with one data
//! directory, until the collection has removed all that it was given, or the scrub has read it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::drive::{Budget, Sample, Target, block_on, drive};
use super::http::Conn;
use super::payload::{Payload, digest_of};
use super::registry::{Style, blob_request, image, manifest_request, push_blob, put_manifest};
use super::server::{Kind, Launch};

/// Images that are pulled.
const IMAGES: u64 = 100;
/// One operation in so many is a push.
const PUSHES: u64 = 8;
const WORKERS: usize = 8;
const LAYER: usize = 10_000;
/// Of the blobs that are collected or read.
const SEED: u64 = 3;
/// Bytes of a blob that the collection removes.
const GARBAGE: usize = 1024;
/// Bytes of a blob that the scrub reads.
const READ: usize = 4 * 1024 * 1024;
/// Longest time for the work beside the load.
const LIMIT: Duration = Duration::from_secs(1800);

/// Options of `cargo xtask bench-upkeep`.
#[derive(Args)]
pub(crate) struct Options {
    /// What goes on beside the load.
    #[arg(value_enum)]
    work: Work,
    /// Our server.
    #[arg(long, value_name = "PATH", default_value = "target/release/registry")]
    ours: PathBuf,
    /// Blobs that are collected, or of 4 MiB each that are read [default: 100000, or 400].
    #[arg(long, value_name = "N")]
    blobs: Option<u64>,
    /// Seconds of a round of quiet; rounds with work are three times as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// The collection removes blobs that nothing names.
    Collection,
    /// The scrub reads and compares blobs.
    Scrub,
}

/// Rounds of one kind, put together.
#[derive(Default)]
struct Sum(Sample);

impl Sum {
    fn add(&mut self, sample: Sample) -> Result<()> {
        let sample = sample.ok()?;
        self.0.seconds += sample.seconds;
        self.0.server_cpu += sample.server_cpu;
        self.0.latencies.extend(sample.latencies);
        self.0.latencies.sort_unstable();
        Ok(())
    }
}

/// Measures and prints Markdown.
///
/// # Errors
/// If the server does not start, a request is answered wrongly, or the work does not end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let program = options.ours.canonicalize().or_else(|_| root.join(&options.ours).canonicalize());
    let program = program.with_context(|| format!("find {}; build it first", options.ours.display()))?;
    let dir = root.join("target/bench-data").join(format!("upkeep-{}", std::process::id()));
    let result = measure(options, &Launch { kind: Kind::Upkept, program, dir: dir.clone() });
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    result
}

fn measure(options: &Options, launch: &Launch) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("install a signal handler")?;
    }
    let (blobs, size) = match options.work {
        Work::Collection => (options.blobs.unwrap_or(100_000), GARBAGE),
        Work::Scrub => (options.blobs.unwrap_or(400), READ),
    };
    eprintln!("writing {blobs} blobs of {size} bytes");
    let data = launch.dir.join("data");
    write_blobs(&data, blobs, size)?;
    let server = launch.start()?;
    let target = Target { addr: server.addr, pid: server.pid(), stop, badge: None };
    let order = |words: &[&str]| -> Result<()> {
        let output = Command::new(&launch.program).args(words).arg("--data").arg(&data).output()?;
        ensure!(output.status.success(), "registry {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    order(&["gc", "pause"])?;
    let layers = Payload::new(LAYER, 7);
    let images = fill(&mut target.conn(), &layers)?;
    let ids = Cell::new(IMAGES);
    let load = |seconds: u64| {
        let budget = Budget { time: Duration::from_secs(seconds), operations: u64::MAX };
        drive(&target, WORKERS, budget, &ids, async |conn, id| operate(conn, id, &layers, &images).await)
    };
    load(3)?.ok()?;
    let (mut quiet, mut busy) = (Sum::default(), Sum::default());
    let begin = Instant::now();
    let (mut rounds, mut worked) = (0, Duration::ZERO);
    loop {
        quiet.add(load(options.seconds)?)?;
        let mut reader = None;
        match options.work {
            Work::Collection => order(&["gc", "resume"])?,
            Work::Scrub => {
                let mut command = Command::new(&launch.program);
                command.args(["scrub", "run", "--data"]).arg(&data).stdout(Stdio::null()).stderr(Stdio::null());
                reader = Some(command.spawn().context("start the scrub")?);
            }
        }
        let started = Instant::now();
        let sample = load(3 * options.seconds)?;
        let left = match &mut reader {
            None => left(&data, blobs),
            Some(reader) => u64::from(reader.try_wait()?.is_none()),
        };
        worked += started.elapsed();
        // A round in which the work ended was quiet for a part of it; it counts where there is no other.
        if left > 0 || rounds == 0 {
            busy.add(sample)?;
            rounds += 1;
        }
        eprintln!("round {rounds}: {left} left, {:.0} operations/s", busy.0.rate());
        if let Some(mut reader) = reader {
            ensure!(reader.wait()?.success(), "the scrub found damage, or failed");
            if rounds >= 3 {
                break;
            }
        } else if left == 0 {
            break;
        } else {
            order(&["gc", "pause"])?;
        }
        if begin.elapsed() > LIMIT {
            bail!("{left} were left after {} s", LIMIT.as_secs());
        }
    }
    report(options.work, blobs, rounds, worked, &quiet.0, &busy.0);
    Ok(())
}

/// Writes blobs as another registry would have left them: files that no link names.
fn write_blobs(data: &Path, blobs: u64, size: usize) -> Result<()> {
    let payload = Payload::new(size, SEED);
    fs::create_dir_all(data.join("docker/registry/v2/repositories/old/_layers"))?;
    for id in 0..blobs {
        let blob = payload.variant(id);
        let dir = place(data, &blob.digest);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("data"), [blob.base, &blob.tail].concat()).context("write a blob")?;
    }
    Ok(())
}

/// The directory of a blob.
fn place(data: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    data.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex)
}

/// How many of the blobs are still there.
fn left(data: &Path, blobs: u64) -> u64 {
    let payload = Payload::new(GARBAGE, SEED);
    (0..blobs).filter(|id| place(data, &payload.variant(*id).digest).exists()).count() as u64
}

fn fill(conn: &mut Conn, layers: &Payload) -> Result<Vec<String>> {
    (0..IMAGES)
        .map(|id| {
            block_on(async {
                let layer = layers.variant(id);
                let digest = layer.digest.clone();
                push_blob(conn, "load/pull", &layer, Style::Put).await?;
                put_manifest(conn, "load/pull", &format!("t{id}"), &image(&[layer], None, id)).await?;
                Ok(digest)
            })
        })
        .collect()
}

/// A push of a new image, or a pull of one of the old ones.
async fn operate(conn: &mut Conn, id: u64, layers: &Payload, images: &[String]) -> Result<()> {
    if id.is_multiple_of(PUSHES) {
        let layer = layers.variant(id);
        push_blob(conn, "load/push", &layer, Style::Put).await?;
        return put_manifest(conn, "load/push", &format!("t{}", id % 1000), &image(&[layer], None, id)).await;
    }
    let which = (id % IMAGES) as usize;
    conn.expect(&[&manifest_request("GET", "load/pull", &format!("t{which}"))], false, 200).await?;
    let answer = conn.expect(&[&blob_request("GET", "load/pull", &images[which])], true, 200).await?;
    ensure!(answer.length == LAYER as u64 && digest_of(conn.body()) == images[which], "wrong bytes");
    Ok(())
}

fn report(work: Work, blobs: u64, rounds: u32, worked: Duration, quiet: &Sample, busy: &Sample) {
    let what = match work {
        Work::Collection => format!("the collection removed {blobs} blobs"),
        Work::Scrub => format!("the scrub read {blobs} blobs of 4 MiB"),
    };
    println!(
        "While {what} ({rounds} rounds in turns, {:.0} s of work), {WORKERS} connections, one push in {PUSHES} \
         operations:\n",
        worked.as_secs_f64()
    );
    println!("| | at rest | at work | ratio | floor |\n|---|---|---|---|---|");
    let (rate, share) = (quiet.rate(), busy.rate() / quiet.rate());
    println!("| operations/s | {rate:.0} | {:.0} | {share:.2} | at least 0.90 |", busy.rate());
    for (name, q, floor) in [("p50, ms", 0.5, ""), ("p99, ms", 0.99, "at most 2"), ("p99.9, ms", 0.999, "")] {
        let (rest, work) = (quiet.quantile_ms(q), busy.quantile_ms(q));
        println!("| {name} | {rest:.2} | {work:.2} | {:.2} | {floor} |", work / rest);
    }
}
