//! Owns `app`: a plain process, supervised. It has a session of its own and outlives the daemon; the next daemon knows it
//! again by its number and the time at which it began. Does not own its restarts, which the engine decides.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{App, Resource, ResourceKind},
    path::ObjectPath,
    status::{Provisioned, ResourceStatus, Severity, Status},
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::owner::Account;

/// The variable by which processes of a resource are known, those of a daemon that died before it could note them too.
const MARK: &str = "OM_RESOURCE";
/// Where programs are looked for by those that are started.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Gives a program a session of its own (setsid(1)).
const SETSID: &str = "setsid";
/// How long a process that ends at once is waited for: a start that failed is said to be one.
const EARLY: Duration = Duration::from_millis(300);
/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How long the system may take to end a process after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);
/// The longest time of a command that checks.
const CHECK: Duration = Duration::from_secs(10);
/// Between looks at a process that ends.
const LOOK: Duration = Duration::from_millis(20);
/// The largest log of output, in bytes. It is cut at looks, and may be larger between two.
const LOG_LIMIT: u64 = 8 << 20;
/// How many characters of the log a failed start shows.
const LAST_WORDS: usize = 400;

/// Makes processes so.
pub struct AppDriver {
    run: PathBuf,
    logs: PathBuf,
    deaths: mpsc::UnboundedSender<ObjectPath>,
    /// Processes whose death is waited for.
    watched: Arc<Mutex<Vec<Process>>>,
}

/// A process that cannot be taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// In clock ticks since the boot (proc(5), field 22 of `stat`).
    began: u64,
}

impl Process {
    /// The process of this number as it is now; none if it is not there, or is dead and not yet collected.
    fn of(pid: i32) -> Option<Self> {
        // The name in parentheses may hold anything: what follows the last one counts.
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let began = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, began })
    }

    fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, began) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, began: began.parse().ok()? })
    }
}

fn of(resource: &Resource) -> Result<&App, DriverError> {
    match &resource.kind {
        ResourceKind::App(app) => Ok(app),
        _ => Err(DriverError::failed(format!("{} is no app", resource.rid), None)),
    }
}

fn failed(operation: &str, error: &impl std::fmt::Display) -> DriverError {
    DriverError::failed(format!("{operation}: {error}"), None)
}

/// What a resource's processes are marked with: the id of its object, which no other one ever has.
fn mark(scene: &Scene, resource: &Resource) -> String {
    format!("{}.{}", scene.instance.id, resource.rid.to_string().replace('#', "."))
}

impl AppDriver {
    /// A driver. `run` is where a boot forgets what runs, `logs` gets the output. Paths of objects come out of the
    /// receiver when a process of theirs dies.
    pub fn new(run: PathBuf, logs: PathBuf) -> (Self, mpsc::UnboundedReceiver<ObjectPath>) {
        let (deaths, dead) = mpsc::unbounded_channel();
        (Self { run, logs, deaths, watched: Arc::default() }, dead)
    }

    fn note(&self, scene: &Scene, resource: &Resource) -> PathBuf {
        self.run.join(mark(scene, resource))
    }

    fn log(&self, scene: &Scene, resource: &Resource) -> PathBuf {
        let path = scene.instance.path.fqn().replace('/', ".");
        self.logs.join(format!("{path}.{}.log", resource.rid.to_string().replace('#', ".")))
    }

    /// The process of a resource, if it lives.
    fn process(&self, scene: &Scene, resource: &Resource) -> Option<Process> {
        Process::read(&self.note(scene, resource)).filter(|process| process.lives())
    }

    /// Tells when a process dies. It may not be our child: a former daemon may have started it.
    fn watch(&self, path: &ObjectPath, process: Process) {
        let is_new = {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = !watched.contains(&process);
            if is_new {
                watched.push(process);
            }
            is_new
        };
        let opened = Pid::from_raw(process.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let (true, Some(Ok(fd))) = (is_new, opened) else { return };
        let (deaths, watched, path) = (self.deaths.clone(), Arc::clone(&self.watched), path.clone());
        tokio::spawn(async move {
            // Deprecated for types that do not own what they name; this one does.
            #[allow(deprecated)]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE);
            if let Ok(fd) = fd {
                // It can be read from once the process is dead (pidfd_open(2)).
                let _ = fd.readable().await;
            }
            watched.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != process);
            // Nobody listens once the daemon ends.
            let _ = deaths.send(path);
        });
    }

    /// A command of the resource, with its user, directory and variables.
    fn command(scene: &Scene, resource: &Resource, app: &App, words: &[String]) -> Result<Command, DriverError> {
        let mut command = Command::new(SETSID);
        command.args(words).env_clear().env("PATH", PATH).env(MARK, mark(scene, resource));
        if let Some(user) = &app.user {
            let account = Account::of(user)?;
            command.uid(account.uid).gid(account.gid).env("HOME", &account.home).env("USER", user);
        }
        command.envs(app.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(app.cwd.as_deref().unwrap_or("/")).stdin(Stdio::null());
        Ok(command)
    }

    fn open_log(&self, scene: &Scene, resource: &Resource) -> io::Result<(File, u64)> {
        fs::create_dir_all(&self.logs)?;
        let path = self.log(scene, resource);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = log.metadata()?.len();
        Ok((log, length))
    }

    async fn started(&self, scene: &Scene, resource: &Resource) -> Result<(), DriverError> {
        let app = of(resource)?;
        if let Some(process) = self.process(scene, resource) {
            self.watch(&scene.instance.path, process);
            return Ok(());
        }
        let Some(program) = app.start.first() else {
            return Err(DriverError::failed(format!("{} has no `start`", resource.rid), None));
        };
        // What a daemon started that died before it could note it, or what outlived its parent.
        end_all(&mark(scene, resource), Duration::ZERO).await;
        let what = format!("start {program}");
        let (log, length) =
            self.open_log(scene, resource).map_err(|error| failed("open the log of its output", &error))?;
        let mut command = Self::command(scene, resource, app, &app.start)?;
        command.stderr(log.try_clone().map_err(|error| failed(&what, &error))?).stdout(log);
        let mut child = tokio::process::Command::from(command).spawn().map_err(|error| failed(&what, &error))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(process) = pid.and_then(Process::of) {
            let note = self.note(scene, resource);
            let written = fs::create_dir_all(&self.run)
                .and_then(|()| fs::write(&note, format!("{} {}\n", process.pid, process.began)));
            written.map_err(|error| failed(&format!("write {}", note.display()), &error))?;
            self.watch(&scene.instance.path, process);
        }
        match timeout(EARLY, child.wait()).await {
            // It goes on. The runtime collects it when it dies, whoever holds it.
            Err(_) => Ok(()),
            Ok(Ok(status)) => {
                let words = self.last_words(scene, resource, length);
                let hint = format!("its output is in {}", self.log(scene, resource).display());
                Err(DriverError::failed(format!("{what}: it ended at once ({status}){words}"), hint))
            }
            Ok(Err(error)) => Err(failed(&what, &error)),
        }
    }

    /// The end of what was written to the log since it had this length.
    fn last_words(&self, scene: &Scene, resource: &Resource, since: u64) -> String {
        let bytes = fs::read(self.log(scene, resource)).unwrap_or_default();
        let new = bytes.get(usize::try_from(since).unwrap_or(usize::MAX)..).unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        let text = text.trim();
        let skipped = text.chars().count().saturating_sub(LAST_WORDS);
        let end: String = text.chars().skip(skipped).collect();
        if end.is_empty() { end } else { format!(": {end}") }
    }

    async fn stopped(&self, scene: &Scene, resource: &Resource) -> Result<(), DriverError> {
        let app = of(resource)?;
        // The engine's own limit ends the wait before this does where it is shorter.
        let grace = GRACE.min(resource.stop_timeout / 2);
        if let Some(process) = self.process(scene, resource) {
            if let Some(words) = &app.stop {
                let mut command = Self::command(scene, resource, app, words)?;
                // It is not one of those that are ended.
                command.env_remove(MARK).stdout(Stdio::null()).stderr(Stdio::null());
                let mut command = tokio::process::Command::from(command);
                let run = command.kill_on_drop(true).status();
                // If that takes too long, the process is ended without it.
                if let Ok(ran) = timeout(grace, run).await {
                    ran.map_err(|error| failed(&format!("run {}", words.join(" ")), &error))?;
                    gone(process, grace).await;
                }
            } else if let Some(pid) = Pid::from_raw(process.pid) {
                // It leads a group, as it leads a session. An error means that it is dead.
                let _ = kill_process_group(pid, Signal::TERM);
                gone(process, grace).await;
            }
        }
        if !end_all(&mark(scene, resource), KILLED).await {
            return Err(DriverError::failed(format!("a process of {} does not die", resource.rid), None));
        }
        match fs::remove_file(self.note(scene, resource)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("forget the process", &error)),
            _ => Ok(()),
        }
    }

    async fn checked(&self, scene: &Scene, resource: &Resource, app: &App) -> Result<Option<String>, DriverError> {
        let Some(words) = &app.check else { return Ok(None) };
        let mut command = Self::command(scene, resource, app, words)?;
        command.env_remove(MARK).stdout(Stdio::null()).stderr(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let shown = words.join(" ");
        Ok(match timeout(CHECK, command.kill_on_drop(true).status()).await {
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(status)) => Some(format!("`{shown}` says no: {status}")),
            Ok(Err(error)) => Some(format!("run {shown}: {error}")),
            Err(_) => Some(format!("`{shown}` took longer than {} s", CHECK.as_secs())),
        })
    }

    async fn seen(&self, scene: &Scene, resource: &Resource) -> Result<ResourceStatus, DriverError> {
        let app = of(resource)?;
        let label = format!("app {}", app.start.join(" "));
        let status = |status| {
            let mut status = ResourceStatus::new(status, label.clone());
            status.provisioned = Provisioned::NotApplicable;
            status.info.insert("output".into(), self.log(scene, resource).display().to_string());
            status
        };
        self.cut_log(scene, resource);
        let Some(process) = self.process(scene, resource) else { return Ok(status(Status::Down)) };
        self.watch(&scene.instance.path, process);
        let mut found = match self.checked(scene, resource, app).await? {
            None => status(Status::Up),
            Some(why) => status(Status::Warn).with(Severity::Warn, why),
        };
        found.info.insert("pid".into(), process.pid.to_string());
        Ok(found)
    }

    /// Keeps a log from growing without end: the newest half stays. The process writes at the end, wherever that is.
    fn cut_log(&self, scene: &Scene, resource: &Resource) {
        let path = self.log(scene, resource);
        if fs::metadata(&path).map_or(0, |found| found.len()) <= LOG_LIMIT {
            return;
        }
        let cut = (|| {
            let bytes = fs::read(&path)?;
            let half = bytes.len() / 2;
            let from = bytes[half..].iter().position(|byte| *byte == b'\n').map_or(half, |at| half + at + 1);
            // Written in place, as the process holds the file open.
            fs::write(&path, &bytes[from..])
        })();
        if let Err(error) = cut {
            tracing::warn!(%error, "the log {} cannot be cut", path.display());
        }
    }
}

/// Waits until a process is gone; false if that takes too long.
async fn gone(process: Process, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while process.lives() {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Kills all processes with a mark, and waits for their end. True if none is left, or nobody waits.
async fn end_all(mark: &str, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = marked(mark);
        for process in &left {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // An error means that it is dead.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if left.is_empty() || limit.is_zero() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK).await;
    }
}

/// Processes with a mark.
fn marked(mark: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={mark}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_mark = |pid: &i32| {
        let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        text.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    pids.filter(has_mark).filter_map(Process::of).collect()
}

impl Driver for AppDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(self.seen(scene, resource))
    }

    fn provision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.started(scene, resource))
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.stopped(scene, resource))
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            self.stopped(scene, resource).await?;
            match fs::remove_file(self.log(scene, resource)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove the log", &error)),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
