//! The servers under test as child processes: configuration, start, what the kernel says about them, and their end.
//!
//! A [`Server`] is ended by its process id when dropped. What is asked of it is no concern of this file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::payload::random_bytes;

/// Clock ticks per second in `/proc/<pid>/stat`; fixed at 100 in what Linux shows to programs.
const TICKS: f64 = 100.0;
/// Longest time a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Time a server has to end by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the guarded server has besides. Its tokens outlive the rounds of any scenario.
const ACCESS_CONTROL: &str = "auth:\n  roadstead:\n    tokenlifetime: 1h\n";

/// What the server has whose work beside requests is measured: all rates are the defaults.
const UPKEEP: &str = "roadstead:\n  gc:\n    interval: 1s\n    grace: 0s\n    lease: 5s\n    quarantine: 0s\n  scrub:\n    \
                      enabled: false\n";

/// Which program a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Ours,
    /// Ours with access control.
    Guarded,
    /// Ours with work beside requests, begun by hand, that waits for nothing.
    Upkept,
    /// Docker Registry 2.8, the peer.
    V2,
    /// The limit for reads: static files by sendfile from one process.
    Nginx,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Guarded => "guarded",
            Self::Upkept => "upkept",
            Self::V2 => "v2",
            Self::Nginx => "nginx",
        }
    }
}

/// How to start a server: a program and the directory that holds all it writes.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) dir: PathBuf,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// From exec to the first answer that says that it is up.
    pub(crate) start: Duration,
    /// Resident bytes at the first answer.
    pub(crate) ready_memory: u64,
}

/// What `/proc/<pid>/status` says about a process.
#[derive(Clone, Copy, Default)]
pub(crate) struct Footprint {
    /// Resident bytes now (`VmRSS`) and at most (`VmHWM`).
    pub(crate) resident: u64,
    pub(crate) peak: u64,
    pub(crate) threads: u64,
}

impl Launch {
    /// Starts the server on a free loopback port and waits for its first answer.
    pub(crate) fn start(&self) -> Result<Server> {
        let name = self.kind.name();
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        // The port is free when asked for; nothing else on this machine takes loopback ports at random meanwhile.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let (config, log) = (self.dir.join("config.yml"), self.dir.join("log"));
        let data = self.dir.join("data");
        let text = match self.kind {
            Kind::Nginx => nginx_config(&self.dir, addr),
            Kind::Ours | Kind::V2 => config_file(&data, addr),
            Kind::Guarded => config_file(&data, addr) + ACCESS_CONTROL,
            Kind::Upkept => config_file(&data, addr) + UPKEEP,
        };
        fs::write(&config, text)?;
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Nginx => command.arg("-c").arg(&config).arg("-e").arg(&log).arg("-p").arg(&self.dir),
            Kind::Ours | Kind::Guarded | Kind::Upkept | Kind::V2 => command.arg("serve").arg(&config),
        };
        // Its own process group: Ctrl-C reaches only this tool, which then ends its servers itself.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("start {name} ({})", self.program.display()))?;
        let mut server = Server { child, addr, start: Duration::ZERO, ready_memory: 0 };
        let (path, status) = match self.kind {
            Kind::Nginx => ("/1k", b" 200"),
            Kind::Ours | Kind::Upkept | Kind::V2 => ("/v2/", b" 200"),
            Kind::Guarded => ("/v2/", b" 401"),
        };
        while !answers(addr, path, status) {
            let ended = server.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > START_LIMIT {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                bail!("{name} did not start ({ended:?}); the end of its log: {tail:?}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        server.start = begin.elapsed();
        server.ready_memory = server.footprint()?.resident;
        Ok(server)
    }
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn footprint(&self) -> Result<Footprint> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Footprint { resident: field("VmRSS:") * 1024, peak: field("VmHWM:") * 1024, threads: field("Threads:") })
    }

    fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already; the wait below tells.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// CPU seconds, user and system, of all threads a process has or had.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}; did the server end?"))?;
    // The command name, in parentheses, may hold spaces; utime and stime are fields 14 and 15, state is 3.
    let fields = text.rsplit_once(')').context("unknown format of /proc/<pid>/stat")?.1;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().unwrap_or(0));
    Ok((ticks.next().unwrap_or(0) + ticks.next().unwrap_or(0)) as f64 / TICKS)
}

/// Writes the files nginx serves: `/1k`, `/10k/0` to `/10k/999` and `/100m`.
pub(crate) fn write_static_files(dir: &Path) -> Result<()> {
    let root = dir.join("data");
    fs::create_dir_all(root.join("10k"))?;
    fs::write(root.join("1k"), random_bytes(1_000, 1))?;
    fs::write(root.join("100m"), random_bytes(100_000_000, 2))?;
    for file in 0..1000 {
        fs::write(root.join("10k").join(file.to_string()), random_bytes(10_000, file))?;
    }
    Ok(())
}

/// The same settings for both registries; all else is left at each one's default.
fn config_file(data: &Path, addr: SocketAddr) -> String {
    let root = data.display();
    format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
         rootdirectory: {root}\n  delete:\n    enabled: true\nhttp:\n  addr: {addr}\n  secret: only-for-benchmarks\n"
    )
}

fn nginx_config(dir: &Path, addr: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/log error;\n\
         events {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  \
         keepalive_requests 1000000000;\n  client_body_temp_path {dir}/t1;\n  proxy_temp_path {dir}/t2;\n  \
         fastcgi_temp_path {dir}/t3;\n  uwsgi_temp_path {dir}/t4;\n  scgi_temp_path {dir}/t5;\n  \
         server {{ listen {addr}; root {dir}/data; }}\n}}\n"
    )
}

fn answers(addr: SocketAddr, path: &str, status: &[u8]) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(status))
    };
    attempt().unwrap_or(false)
}
