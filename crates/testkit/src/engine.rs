//! A private Docker engine for one test: own data, own socket, own `/etc/docker`, no network set-up,
//! no firewall.
//!
//! Each test starts its own, which takes about a second: nextest runs every test in a process of
//! its own, and an engine that has never seen an image cannot hide a pull that does not work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{self, Outcome, tool, tool_seeing};
use crate::image::{GREETING, Image};
use crate::process::{Process, wait_until};

/// The engine starts in well under a second when the machine is idle.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the engine may take to end itself and its containerd.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Its `/etc/docker`, in its folder.
const ETC: &str = "etc";
/// Storage drivers to try, best first: overlay does not work on every file system.
const STORAGE: &[&str] = &["overlay2", "vfs"];

/// A running engine; dropping it ends it.
#[derive(Debug)]
pub struct Engine {
    // Fields drop in this order: first the engine, then its files.
    process: Process,
    storage: &'static str,
    options: Vec<String>,
    host: String,
    runs_containers: bool,
    clients: AtomicU32,
    dir: TempDir,
}

impl Engine {
    /// Starts an engine; fails the test when this machine has none or the caller is not root.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts an engine with more options, as [`Engine::start`] does.
    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("engine-").tempdir().expect("create a temp dir");
        let status = fs::read_to_string("/proc/self/status").expect("Linux has /proc");
        let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
        assert!(root, "a private docker engine needs root\nhint: run `make test` as root");
        let found = ["dockerd", "docker"].into_iter().find(|name| !command::present(name));
        if let Some(missing) = found {
            command::cannot_start(missing, &std::io::ErrorKind::NotFound.into());
        }
        let mut logs = String::new();
        for storage in STORAGE {
            let root = dir.path().join(storage);
            fs::create_dir(&root).expect("create a folder for the engine");
            let host = format!("unix://{}", root.join("docker.sock").display());
            let etc = dir.path().join(ETC);
            fs::create_dir_all(&etc).expect("create a folder for the engine");
            let mut process = spawn(&root, &etc, &host, storage, options);
            let client = Docker { host: host.clone(), config: root.join("probe") };
            let up = || process.ended().is_some() || client.try_run(&["version"]).success;
            if wait_until(START_LIMIT, up) && process.ended().is_none() {
                let clients = AtomicU32::new(0);
                let options = options.iter().map(|option| (*option).to_owned()).collect();
                let mut engine = Self { process, storage, options, host, runs_containers: false, clients, dir };
                engine.runs_containers = engine.probe();
                return engine;
            }
            logs += &process.log();
        }
        panic!("dockerd does not start with any of {STORAGE:?}:\n{logs}");
    }

    /// Ends the engine; its containers end as well, unless it has live-restore.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Kills the engine at once. Its containers go on until the next one ends them.
    pub fn kill9(&mut self) {
        self.process.kill9();
        // Its containerd dies with it. Where nobody collects the dead, the next engine takes it for a living one.
        let note = self.dir.path().join(self.storage).join("exec/containerd/containerd.pid");
        let Ok(id) = fs::read_to_string(&note) else { return };
        let stat = Path::new("/proc").join(id.trim()).join("stat");
        wait_until(STOP_LIMIT, || fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")));
        fs::remove_file(note).expect("remove the note of a containerd that is dead");
    }

    /// Starts it again, with all that it has on disk.
    #[track_caller]
    pub fn start_again(&mut self) {
        let (root, etc) = (self.dir.path().join(self.storage), self.dir.path().join(ETC));
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.process = spawn(&root, &etc, &self.host, self.storage, &options);
        let client = self.client();
        assert!(wait_until(START_LIMIT, || client.try_run(&["version"]).success), "{}", self.process.log());
    }

    /// A command line for this engine with credentials of its own.
    pub fn client(&self) -> Docker {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let config = self.dir.path().join(format!("client-{number}"));
        fs::create_dir(&config).expect("create a folder for the client");
        Docker { host: self.host.clone(), config }
    }

    /// How `DOCKER_HOST` names it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What it finds in `/etc/docker`; see [`tool_seeing`].
    pub fn etc_docker(&self) -> PathBuf {
        self.dir.path().join(ETC)
    }

    /// True when containers run here; false in a sandbox without usable control groups, where
    /// only their files can be looked at.
    pub fn runs_containers(&self) -> bool {
        self.runs_containers
    }

    fn probe(&self) -> bool {
        let docker = self.client();
        docker.load(&Image::busybox(), "probe:1");
        let outcome = docker.try_run(&["run", "--rm", "--network", "none", "probe:1"]);
        if !outcome.success {
            eprintln!("note: no container runs here, only their files are compared: {outcome}");
        }
        docker.run(&["rmi", "--force", "probe:1"]);
        outcome.success && outcome.stdout.trim() == GREETING
    }
}

fn spawn(root: &Path, etc: &Path, host: &str, storage: &str, options: &[&str]) -> Process {
    // All its mounts live in the namespace of that one.
    let mut command = tool_seeing(etc, "dockerd");
    command.args(["--host", host, "--storage-driver", storage]);
    for (option, name) in [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")] {
        command.arg(format!("--{option}={}", root.join(name).display()));
    }
    command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]).args(options);
    Process::spawn("dockerd", command, &root.join("log"), STOP_LIMIT)
}

/// The `docker` command line of one user of an engine.
#[derive(Debug, Clone)]
pub struct Docker {
    host: String,
    config: PathBuf,
}

impl Docker {
    /// Runs `docker` with `args`; fails the test unless it succeeds.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.try_run(args).ok()
    }

    /// Runs `docker` with `args`, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, args: &[&str]) -> Outcome {
        self.try_run_until(args, || false)
    }

    /// As [`Docker::try_run`], but ends the command as soon as `cancelled` says so.
    #[track_caller]
    pub fn try_run_until(&self, args: &[&str], cancelled: impl Fn() -> bool) -> Outcome {
        let mut command = tool("docker");
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.config);
        // The old builder is part of the engine; the new one is a plug-in Debian may not have.
        command.env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_CONTEXT").args(args);
        command::run_until(command, cancelled)
    }

    /// Loads `image` under the name `reference`.
    #[track_caller]
    pub fn load(&self, image: &Image, reference: &str) {
        let archive = tempfile::NamedTempFile::new().expect("create a temp file");
        fs::write(archive.path(), image.docker_archive(reference)).expect("write the archive");
        self.run(&["load", "--input", &archive.path().to_string_lossy()]);
    }

    /// Pushes `reference`; returns the manifest digest the engine reports.
    #[track_caller]
    pub fn push(&self, reference: &str) -> String {
        pushed_digest(&self.run(&["push", reference]))
    }

    /// Pulls `reference`; returns the manifest digest the engine reports.
    #[track_caller]
    pub fn pull(&self, reference: &str) -> String {
        let outcome = self.run(&["pull", reference]);
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("Digest: "));
        line.unwrap_or_else(|| panic!("a pull reports its digest: {outcome}")).trim().to_owned()
    }

    /// Forgets every image, so that the next pull has to fetch everything.
    #[track_caller]
    pub fn forget_images(&self) {
        let images = self.run(&["image", "ls", "--all", "--quiet"]).stdout;
        let mut args = vec!["rmi", "--force"];
        args.extend(images.lines());
        if args.len() > 2 {
            // Removing a parent takes its children along, which are then reported missing.
            self.try_run(&args);
        }
        let left = self.run(&["image", "ls", "--all", "--quiet"]).stdout;
        assert_eq!(left.trim(), "", "all images should be gone");
    }

    /// Reads a file from the image `reference` without running it.
    #[track_caller]
    pub fn file_of(&self, reference: &str, path: &str) -> Vec<u8> {
        let container = self.run(&["create", "--network", "none", reference]).stdout;
        let container = container.trim();
        let copy = tempfile::tempdir().expect("create a temp dir");
        let target = copy.path().join("file");
        self.run(&["cp", &format!("{container}:{path}"), &target.to_string_lossy()]);
        self.run(&["rm", container]);
        fs::read(&target).expect("docker has copied the file")
    }
}

/// Returns the digest in the last line of a `docker push`.
#[track_caller]
pub fn pushed_digest(outcome: &Outcome) -> String {
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    let digest = words.windows(2).find(|pair| pair[0] == "digest:").map(|pair| pair[1]);
    digest.unwrap_or_else(|| panic!("a push reports its digest: {outcome}")).to_owned()
}
