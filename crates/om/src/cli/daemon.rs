//! Owns starting, stopping and asking the daemon as a process. Does not own being it.

use std::{
    env,
    fs::{self, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    process::{Child, Command as Process, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Context, Failed, Outcome, follow, look, node, parse::Command, put};
use crate::{api, daemon::app};

/// How long a daemon may take to answer after its start, or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);
/// The unit of the service manager.
const UNIT: &str = "om.service";

/// `om daemon …`, but not `run`.
pub async fn run(context: &Context, command: &Command) -> Outcome {
    match command.verb.words {
        "start" => start(context).await,
        "stop" => stop(context).await,
        "restart" => {
            if answers(context).await {
                stop(context).await?;
            }
            start(context).await
        }
        "running" => Ok(u8::from(!answers(context).await)),
        "shutdown" => {
            let act = api::Act { selector: "**".into(), verb: "shutdown".into(), ..api::Act::default() };
            let acted = context.client.act(&act).await?;
            let requests =
                acted.results.into_iter().filter_map(|result| Some((result.path, result.request?))).collect();
            if follow::follow(&context.client, requests, follow::patience(command)?).await? > 0 {
                return Err(Failed::new("some services could not be stopped; the daemon goes on"));
            }
            stop(context).await
        }
        "dns dump" => node::dns(context).await,
        _ => look::cluster(context, command).await,
    }
}

/// Leaves the session of the terminal that `om daemon start` was typed on.
///
/// # Errors
/// The process leads a group already.
pub fn leave_session(command: &Command) -> Result<(), Failed> {
    if command.has("session") {
        rustix::process::setsid().map_err(|error| Failed::new(format!("leave the session: {error}")))?;
    }
    Ok(())
}

async fn answers(context: &Context) -> bool {
    context.client.daemon().await.is_ok()
}

/// Whether the service manager has our unit, and this is the machine's own daemon.
fn is_managed(context: &Context) -> bool {
    let unit = |directory: &str| Path::new(directory).join(UNIT).exists();
    !context.places.moved
        && Path::new("/run/systemd/system").is_dir()
        && ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"].into_iter().any(unit)
}

fn systemctl(verb: &str) -> Result<(), Failed> {
    match Process::new("systemctl").args([verb, UNIT]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            Err(Failed::new(format!("systemctl {verb} {UNIT} failed")).hint(format!("journalctl -u {UNIT} says why")))
        }
        Err(error) => Err(Failed::new(format!("run systemctl: {error}"))),
    }
}

async fn start(context: &Context) -> Outcome {
    if answers(context).await {
        return put("  the daemon is running already\n");
    }
    let mut child = None;
    if is_managed(context) {
        systemctl("start")?;
    } else {
        child = Some(spawn(context)?);
    }
    let until = Instant::now() + LIMIT;
    while !answers(context).await {
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            let said = fs::read_to_string(log(context)).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            let last: String = last.into_iter().rev().map(|line| format!("\n  {line}")).collect();
            return Err(Failed::new(format!("the daemon ended at once ({status}):{last}"))
                .hint(format!("see {}", log(context).display())));
        }
        if Instant::now() > until {
            return Err(Failed::new(format!("the daemon does not answer after {} s", LIMIT.as_secs()))
                .hint(format!("see {}", log(context).display())));
        }
        sleep(PAUSE).await;
    }
    put("  the daemon is running\n")
}

/// Where the daemon's own output goes where no service manager takes it.
fn log(context: &Context) -> std::path::PathBuf {
    context.places.logs().join("daemon.log")
}

fn spawn(context: &Context) -> Result<Child, Failed> {
    let logs = context.places.logs();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&logs)
        .map_err(|error| Failed::io("make", &logs, &error))?;
    let path = log(context);
    let open = || {
        // What the last one said makes room for what this one says.
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)
    };
    let file = open().map_err(|error| Failed::io("write", &path, &error))?;
    let errors = file.try_clone().map_err(|error| Failed::io("write", &path, &error))?;
    let own = env::current_exe().map_err(|error| Failed::new(format!("find this program: {error}")))?;
    let mut process = Process::new(own);
    process.args(["daemon", "run", "--session"]);
    if context.places.moved {
        // The root is the parent of all its places.
        process.arg("--root").arg(context.places.var.parent().unwrap_or(&context.places.var));
    }
    process
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .map_err(|error| Failed::new(format!("start the daemon: {error}")))
}

async fn stop(context: &Context) -> Outcome {
    if is_managed(context) {
        systemctl("stop")?;
    } else {
        context.client.daemon_act("stop").await?;
    }
    let until = Instant::now() + LIMIT;
    let lock = context.places.lock();
    // It answers no more before it has given back what the next one needs.
    while answers(context).await || app::running(&lock).is_ok_and(|holder| holder.is_some()) {
        if Instant::now() > until {
            return Err(Failed::new(format!("the daemon goes on after {} s", LIMIT.as_secs())));
        }
        sleep(PAUSE).await;
    }
    put("  the daemon has ended; services go on\n")
}
