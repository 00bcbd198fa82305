//! A child process that logs to a file, is ended by its id, and shows its log when a test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command;

/// How much of the end of a log is printed when a test fails, in lines.
const LOG_TAIL_LINES: usize = 150;

/// A running daemon. Dropping it sends SIGTERM, and SIGKILL when it is still there after `grace`.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    grace: Duration,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path, grace: Duration) -> Self {
        let open = || {
            File::options().create(true).append(true).open(log).unwrap_or_else(|error| {
                panic!("open log `{}`: {error}", log.display());
            })
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|error| command::cannot_start(name, &error));
        Self { name: name.to_owned(), child, log: log.to_owned(), grace }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Kills it at once, as a power cut would, and waits until it is gone.
    pub fn kill9(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, waits for `grace`, then kills it.
    pub fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        signal(self.id(), "TERM");
        let deadline = Instant::now() + self.grace;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not end within {:?} of SIGTERM, killing it", self.name, self.grace);
        self.kill9();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
            eprintln!("---- end of the log of {} ----\n{}\n----", self.name, tail.join("\n"));
        }
    }
}

/// Sends signal `name` (`TERM`, `INT`, …) to process `id`; one that has ended is no error.
pub fn signal(id: u32, name: &str) {
    // The standard library can only send SIGKILL, and this workspace has no unsafe code.
    let _ = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
}

/// Calls `ready` until it is true; false when `limit` passes first.
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
