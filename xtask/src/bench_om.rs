//! `cargo xtask bench-om`: what a node of `om` costs at rest, and how long its commands take beside a shell's start.
//!
//! The daemon runs in a network namespace of its own, on a directory that is removed afterwards. Services are flags and
//! plain processes: what is measured is `om`, not a container engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

/// Says that this process is in a network namespace of its own.
const INSIDE: &str = "OM_BENCH_INSIDE";
/// Ticks of a second in `/proc/<pid>/stat` (proc(5); the same on every architecture of Linux).
const TICKS: f64 = 100.0;
/// Longest wait for the daemon to answer, and for a service to be up.
const LIMIT: Duration = Duration::from_secs(60);

/// Options of `cargo xtask bench-om`.
#[derive(Args)]
pub(crate) struct Options {
    /// The program.
    #[arg(long, value_name = "PATH", default_value = "target/release/om")]
    om: PathBuf,
    /// Services of the node at the end; at first there are a tenth of them.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    services: usize,
    /// Times that each command is run, in turns with the others.
    #[arg(long, value_name = "N", default_value_t = 50)]
    rounds: usize,
    /// Seconds at rest that are measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    rest: u64,
    /// Write all figures.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A figure with what it must not exceed.
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    limit: Option<f64>,
}

/// A node that runs while this lives.
struct Node {
    om: PathBuf,
    root: PathBuf,
    daemon: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Processes of services would outlive it.
        let _ = self.command(&["bench/plain", "purge"]).output();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Measures, prints Markdown to standard output and progress to standard error.
///
/// # Errors
/// If the daemon does not start or a command fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--net", "--"]).arg(std::env::current_exe().context("find this program")?);
        let status = again.args(std::env::args_os().skip(1)).env(INSIDE, "1").status().context("run unshare")?;
        ensure!(status.success(), "the benchmark failed in its namespace");
        return Ok(());
    }
    ensure!(options.services >= 10 && options.rounds > 0, "at least 10 services and 1 round");
    ensure!(options.om.is_file(), "{} is not built: cargo build --release --package om", options.om.display());
    ensure!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success(), "bring lo up");
    let node = Node::start(&options.om)?;
    let few = options.services / 10;
    let mut figures = Vec::new();

    eprintln!("creating {few} services");
    let begin = Instant::now();
    for number in 0..few {
        node.create(number)?;
    }
    figures.push(figure("create and provision a service", ms(begin.elapsed()) / few as f64, "ms", None));
    node.plain()?;
    figures.push(figure("a killed process is started again", node.noticed()?, "ms", Some(1000.0)));
    node.rest(options, few, Some((0.5, 40.0)), &mut figures)?;
    node.commands(options, few, &mut figures)?;

    eprintln!("creating {} services", options.services - few);
    for number in few..options.services {
        node.create(number)?;
    }
    node.rest(options, options.services, None, &mut figures)?;
    node.commands(options, options.services, &mut figures)?;

    println!("| what | measured | limit |\n|---|---:|---:|");
    for Figure { what, value, unit, limit } in &figures {
        let limit = limit.map_or_else(String::new, |limit| format!("{limit} {unit}"));
        println!("| {what} | {value:.1} {unit} | {limit} |");
    }
    if let Some(file) = &options.json {
        let told = |one: &Figure| json!({ "what": one.what, "value": one.value, "unit": one.unit, "limit": one.limit });
        let all = Value::Array(figures.iter().map(told).collect());
        fs::write(file, format!("{all:#}\n")).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

fn figure(what: impl Into<String>, value: f64, unit: &'static str, limit: Option<f64>) -> Figure {
    Figure { what: what.into(), value, unit, limit }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Node {
    fn start(om: &Path) -> Result<Self> {
        let om = om.canonicalize().with_context(|| format!("find {}", om.display()))?;
        let root = std::env::temp_dir().join(format!("om-bench-{}", std::process::id()));
        fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
        let log = fs::File::create(root.join("log")).context("make the log")?;
        let mut daemon = Command::new(&om);
        daemon.args(["daemon", "run"]).env("OM_ROOT", &root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = daemon.spawn().context("start the daemon")?;
        let node = Self { om, root, daemon };
        let end = Instant::now() + LIMIT;
        while node.run(&["daemon", "status"]).is_err() {
            ensure!(Instant::now() < end, "the daemon does not answer; see {}", node.root.join("log").display());
            sleep(Duration::from_millis(20));
        }
        let template = "[DEFAULT]\norchestrate = ha\nnodes = {clusternodes}\n\n[fs#1]\ntype = flag\n";
        fs::write(node.template(), template).context("write the template")?;
        Ok(node)
    }

    fn template(&self) -> PathBuf {
        self.root.join("service.conf")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.om);
        command.args(words).env("OM_ROOT", &self.root).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("run om")?;
        ensure!(output.status.success(), "om {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn create(&self, number: usize) -> Result<()> {
        let template = self.template().display().to_string();
        self.run(&[&format!("bench/s{number}"), "create", "--config", &template, "--provision"]).map(|_| ())
    }

    /// A service with a process that writes down when it starts.
    fn plain(&self) -> Result<()> {
        let file = self.root.join("plain.conf");
        let starts = self.root.join("starts");
        let script = format!("date +%s%N >> {}; exec sleep 1000000", starts.display());
        let text = format!("[app#1]\nstart = /bin/sh -c '{script}'\nrestart = 100\n");
        fs::write(&file, text).context("write a service")?;
        self.run(&["bench/plain", "create", "--config", &file.display().to_string(), "--provision"]).map(|_| ())
    }

    fn starts(&self) -> Vec<f64> {
        let text = fs::read_to_string(self.root.join("starts")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse::<f64>().ok()).map(|ns| ns / 1e6).collect()
    }

    /// Milliseconds from the kill of a process to its next start.
    fn noticed(&self) -> Result<f64> {
        let begin = Instant::now();
        while self.starts().is_empty() {
            ensure!(begin.elapsed() < LIMIT, "the process does not start");
            sleep(Duration::from_millis(10));
        }
        // Until it is up and settled.
        sleep(Duration::from_secs(1));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("read the clock")?;
        let notes = fs::read_dir(self.root.join("run/apps")).context("find the process")?;
        let ids = notes
            .flatten()
            .filter_map(|note| fs::read_to_string(note.path()).ok()?.split_whitespace().next().map(ToOwned::to_owned));
        for id in ids {
            Command::new("kill").args(["-9", &id]).status().context("kill the process")?;
        }
        let begin = Instant::now();
        loop {
            if let [_, next] = self.starts()[..] {
                return Ok(next - now.as_secs_f64() * 1000.0);
            }
            ensure!(begin.elapsed() < LIMIT, "the process is not started again");
            sleep(Duration::from_millis(10));
        }
    }

    fn ticks(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id())).context("read the daemon's times")?;
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        // utime and stime are the fields 14 and 15; the name, which may have blanks, is the second.
        Ok(fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum())
    }

    fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).context("read its memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("find VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().next().unwrap_or_default().parse().context("read VmRSS")?;
        Ok(kilobytes / 1024.0)
    }

    /// What the daemon costs while nothing happens.
    fn rest(
        &self,
        options: &Options,
        services: usize,
        limits: Option<(f64, f64)>,
        figures: &mut Vec<Figure>,
    ) -> Result<()> {
        eprintln!("{} s at rest with {services} services", options.rest);
        sleep(Duration::from_secs(3));
        let before = self.ticks()?;
        sleep(Duration::from_secs(options.rest));
        let used = (self.ticks()? - before) / TICKS / options.rest as f64 * 100.0;
        figures.push(figure(format!("at rest, {services} services"), used, "% of a core", limits.map(|l| l.0)));
        figures.push(figure(format!("resident, {services} services"), self.resident()?, "MiB", limits.map(|l| l.1)));
        Ok(())
    }

    /// Medians of commands, run in turns.
    fn commands(&self, options: &Options, services: usize, figures: &mut Vec<Figure>) -> Result<()> {
        let reads: [(&str, &[&str], f64); 7] = [
            ("om bench/s5 print status", &["bench/s5", "print", "status"], 10.0),
            ("om bench/s5 print config", &["bench/s5", "print", "config"], 10.0),
            ("om bench/s5 get --kw orchestrate", &["bench/s5", "get", "--kw", "orchestrate"], 10.0),
            ("om bench/s5 keys (refused)", &["bench/s5", "keys"], 10.0),
            ("om node facts", &["node", "facts"], 10.0),
            ("om '*' ls", &["bench/svc/*", "ls"], 50.0),
            ("om '*' print status", &["bench/svc/*", "print", "status"], 50.0),
        ];
        let mut shell = Vec::new();
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); reads.len()];
        for _ in 0..options.rounds {
            shell.push(timed(Command::new("/bin/sh").args(["-c", "true"]))?.0);
            for ((name, words, _), times) in reads.iter().zip(&mut times) {
                let (time, done) = timed(&mut self.command(words))?;
                ensure!(done != name.ends_with("(refused)"), "om {words:?} answered otherwise than before");
                times.push(time);
            }
        }
        figures.push(figure(format!("/bin/sh -c true, {services} services"), median(&mut shell)?, "ms", None));
        for ((name, _, limit), times) in reads.iter().zip(&mut times) {
            figures.push(figure(format!("{name}, {services} services"), median(times)?, "ms", Some(*limit)));
        }
        Ok(())
    }
}

/// How long a command took, and whether it succeeded.
fn timed(command: &mut Command) -> Result<(f64, bool)> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().context("run a command")?;
    Ok((ms(begin.elapsed()), status.success()))
}

fn median(times: &mut [f64]) -> Result<f64> {
    times.sort_by(f64::total_cmp);
    match times.get(times.len() / 2) {
        Some(median) => Ok(*median),
        None => bail!("nothing was measured"),
    }
}
