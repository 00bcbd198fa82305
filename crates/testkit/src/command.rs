//! Runs a tool such as `skopeo` to its end, with a time limit, and judges how it went.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any single step here takes on a slow, busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Debian packages of the tools whose name differs from their package.
const PACKAGES: &[(&str, &str)] = &[
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("htpasswd", "apache2-utils"),
    ("busybox", "busybox-static"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// How a tool ended: what it was, whether it succeeded, and all it wrote.
#[derive(Debug)]
pub struct Outcome {
    line: String,
    /// True for exit status 0; false otherwise and when the time limit ended it.
    pub success: bool,
    /// The exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, with lossy UTF-8.
    pub stdout: String,
    /// Standard error, with lossy UTF-8.
    pub stderr: String,
}

impl Outcome {
    /// Panics with the whole output unless the tool succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.success, "should have succeeded: {self}");
        self
    }

    /// Panics unless the tool failed and wrote one of `reasons` (compared without case).
    #[track_caller]
    pub fn refused(self, reasons: &[&str]) -> Self {
        assert!(!self.success, "should have failed: {self}");
        let text = self.text().to_lowercase();
        let told = reasons.iter().any(|reason| text.contains(&reason.to_lowercase()));
        assert!(told, "should have failed saying one of {reasons:?}: {self}");
        self
    }

    /// Both outputs, standard output first.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, success, stdout, stderr, .. } = self;
        let verdict = if *success { "succeeded" } else { "failed" };
        write!(f, "`{line}` {verdict}\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
    }
}

/// Returns a command for `program` that a proxy set in the environment cannot lead astray.
pub fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// As [`tool`], but the program finds the folder `etc_docker` where the machine has `/etc/docker`.
/// Needs root. Of the machine's folder nothing is seen or changed, but that there is one. What is mounted outside later is
/// seen by the program, not the other way round.
pub fn tool_seeing(etc_docker: &Path, program: &str) -> Command {
    let mut command = tool("unshare");
    // The mount vanishes with the process and its children, however they end.
    let script = r#"mkdir -p /etc/docker && mount --bind "$0" /etc/docker && exec "$@""#;
    command.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(etc_docker).arg(program);
    command
}

/// Runs `command` for at most two minutes and collects its output.
#[track_caller]
pub fn run(command: Command) -> Outcome {
    run_until(command, || false)
}

/// Runs `command` until it ends, two minutes pass or `cancelled` says so; the last two kill it.
#[track_caller]
pub fn run_until(mut command: Command, cancelled: impl Fn() -> bool) -> Outcome {
    let program = command.get_program().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy());
    let line = [program.as_str().into()].into_iter().chain(words).collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| cannot_start(&program, &error));
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let deadline = Instant::now() + LIMIT;
    let mut note = "";
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours to wait for") {
            break status;
        }
        if note.is_empty() && (cancelled() || Instant::now() > deadline) {
            note = "\n(ended by the test: cancelled or past the time limit)";
            // Fails only when it has just ended.
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text = |pipe: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&pipe.join().expect("the reader does not panic")).into_owned()
    };
    Outcome { line, success: status.success(), code: status.code(), stdout: text(stdout), stderr: text(stderr) + note }
}

/// True when `program` can be found.
pub fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        || ["/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file())
}

/// Fails the test because `program` did not start, and says how to get it.
#[track_caller]
pub fn cannot_start(program: &str, error: &io::Error) -> ! {
    let package = PACKAGES.iter().find(|(tool, _)| *tool == program);
    let package = package.map_or(program, |(_, package)| package);
    panic!(
        "start `{program}`: {error}\nhint: it comes with the Debian package `{package}`; \
         `make test` or `scripts/install-packages.sh test` installs all that the tests need"
    );
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe only cuts the report short.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
