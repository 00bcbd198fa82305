//! The server under the soak: its configuration, its violent ends, and what is in its directory.
//!
//! Owns no judgement; `audit` and `client` compare.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::drive::block_on;
use crate::bench::http::Conn;
use crate::bench::registry::request;

/// Longest time from a start to the first answer, and from SIGTERM to the end.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the server keeps things, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) grace: u64,
    pub(super) lease: u64,
    pub(super) quarantine: u64,
    pub(super) untagged: u64,
    pub(super) orphans: u64,
    /// Age at which an upload that nobody goes on with is removed.
    pub(super) uploads: u64,
}

impl Times {
    /// The longest that an object can outlive the last reason to keep it: an index goes, then its entries, then their
    /// blobs, and a file that a crash left.
    pub(super) fn until_clean(&self) -> Duration {
        let sum = 2 * self.untagged + 2 * self.grace + self.lease + self.quarantine + self.orphans + self.uploads;
        Duration::from_secs(sum + 10)
    }
}

/// What is below the directory of the blobs.
#[derive(Default)]
pub(super) struct Files {
    /// Digests to the sizes of the files that their directory holds.
    pub(super) blobs: BTreeMap<String, Vec<u64>>,
    /// Files in a place of their own, since the canonical one was given up before.
    pub(super) moved: usize,
    /// Files that are no blob's.
    pub(super) strange: Vec<PathBuf>,
}

/// A server in a directory of its own; killed when dropped.
pub(super) struct Server {
    program: PathBuf,
    dir: PathBuf,
    pub(super) address: SocketAddr,
    debug: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Writes the configuration; nothing runs yet.
    pub(super) fn new(program: &Path, dir: &Path, times: Option<&Times>, seed: u64) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (address, debug) = (free_address(seed)?, free_address(seed ^ 0xDEB)?);
        let mut text = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\n  delete:\n    enabled: true\n",
            dir.join("data").display()
        );
        if let Some(times) = times {
            text += &format!(
                "  maintenance:\n    uploadpurging:\n      enabled: true\n      age: {}s\n      interval: 2s\n      \
                 dryrun: false\n",
                times.uploads
            );
        }
        text +=
            &format!("http:\n  addr: {address}\n  debug:\n    addr: {debug}\n    prometheus:\n      enabled: true\n");
        if let Some(times) = times {
            let Times { grace, lease, quarantine, untagged, orphans, .. } = times;
            text += &format!(
                "roadstead:\n  gc:\n    enabled: true\n    interval: 1s\n    grace: {grace}s\n    lease: {lease}s\n    \
                 quarantine: {quarantine}s\n    untagged: {untagged}s\n    orphans: {orphans}s\n"
            );
        }
        let server = Self { program: program.to_owned(), dir: dir.to_owned(), address, debug, child: None };
        fs::write(server.config(), text).context("write the configuration")?;
        Ok(server)
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.yml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts it and waits for its first answer; returns how long that took.
    pub(super) fn start(&mut self) -> Result<Duration> {
        let output = File::options().create(true).append(true).open(self.log()).context("open the server's log")?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.config()).stdin(Stdio::null());
        // Its own process group: Ctrl-C reaches only this tool, which then ends its server itself.
        command.stdout(output.try_clone()?).stderr(output).process_group(0);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let child = self.child.insert(child);
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended at its start with {status}; its log is {}", self.log().display());
            }
            let mut conn = Conn::blocking(self.address);
            if block_on(conn.exchange(&[&request("GET", "/v2/", "")], false)).is_ok_and(|answer| answer.status == 200) {
                return Ok(begin.elapsed());
            }
            ensure!(begin.elapsed() < LIMIT, "the server did not answer within {LIMIT:?} of its start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails if it has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        match self.child.as_mut().context("no server runs")?.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself with {status}; its log is {}", self.log().display()),
        }
    }

    /// Kills it, as a power cut would end it, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in good order.
    pub(super) fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no server runs")?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).context("send SIGTERM to the server")?;
        }
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the server ended with {status} after SIGTERM");
                return Ok(());
            }
            if begin.elapsed() > LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the server did not end within {LIMIT:?} of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command of the program on this server's configuration.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg(self.config()).args(["--format", "json"]).stdin(Stdio::null());
        command.output().with_context(|| format!("run `registry {}`", arguments.join(" ")))
    }

    /// The lines of the log that tell of trouble, at most `limit`.
    pub(super) fn complaints(&self, limit: usize) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let bad = |line: &&str| ["ERROR", "level=error", "panicked"].iter().any(|word| line.contains(word));
        text.lines().filter(bad).take(limit).map(str::to_owned).collect()
    }

    /// What this process has collected so far, by the names of its metrics.
    pub(super) fn collected(&self) -> BTreeMap<String, u64> {
        let mut conn = Conn::blocking(self.debug);
        if block_on(conn.exchange(&[&request("GET", "/metrics", "")], true)).is_err() {
            return BTreeMap::new();
        }
        let page = String::from_utf8_lossy(conn.body()).into_owned();
        let counter = |line: &str| {
            let (name, value) = line.strip_prefix("registry_gc_")?.split_once(' ')?;
            Some((name.strip_suffix("_total")?.replace('_', " "), value.trim().parse().ok()?))
        };
        page.lines().filter_map(counter).collect()
    }

    /// The files below the directory of the blobs.
    pub(super) fn blob_files(&self) -> Result<Files> {
        let mut files = Files::default();
        let root = self.dir.join("data/docker/registry/v2/blobs");
        for algorithm in list(&root)? {
            for fan_out in list(&algorithm)? {
                for own in list(&fan_out)? {
                    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let digest = format!("{}:{}", name(&algorithm), name(&own));
                    let entries = list(&own)?;
                    // A directory without a file is left over as well.
                    let sizes = files.blobs.entry(digest).or_default();
                    for file in entries {
                        let (size, name) = (fs::metadata(&file).map(|meta| meta.len()), name(&file));
                        match size {
                            Ok(size) if name == "data" => sizes.push(size),
                            Ok(size) if name.starts_with("data.") => {
                                sizes.push(size);
                                files.moved += 1;
                            }
                            // Gone since it was listed.
                            Err(_) => {}
                            Ok(_) => files.strange.push(file),
                        }
                    }
                }
            }
        }
        Ok(files)
    }

    /// The files of uploads that nobody finished.
    pub(super) fn upload_files(&self) -> Result<Vec<PathBuf>> {
        list(&self.dir.join("data/roadstead/uploads"))
    }

    /// Bytes in the metadata database and its log.
    pub(super) fn metadata_bytes(&self) -> u64 {
        ["meta.sqlite3", "meta.sqlite3-wal"]
            .iter()
            .filter_map(|name| fs::metadata(self.dir.join("data/roadstead").join(name)).ok())
            .map(|meta| meta.len())
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The entries of a directory; none if it is gone.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {}", dir.display())),
    }
}

/// A free port below the range that Linux takes for outgoing connections: while a killed server is down, a client's own
/// connection must not sit on its port.
fn free_address(seed: u64) -> Result<SocketAddr> {
    let mut random = super::content::Random::new(seed ^ (u64::from(std::process::id()) << 32));
    for _ in 0..1000 {
        let port = 15_000 + random.below(15_000) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no free port between 15000 and 30000")
}
