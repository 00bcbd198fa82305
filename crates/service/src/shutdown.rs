//! Owns the wish to stop: the token that carries it through the process, and the signals that
//! express it.
//!
//! It does not stop anything. Whoever holds the token finishes its own work and returns.

use std::{future::pending, io, process, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// A request to stop, shared by all clones. Once made it cannot be taken back.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    /// Makes a token on which nothing has been requested.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Asks every holder of the token to stop.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Says whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until a stop is requested; at once if it was already. Cancel-safe.
    pub async fn requested(&self) {
        let mut requests = self.0.subscribe();
        if requests.wait_for(|requested| *requested).await.is_err() {
            // Only a dropped sender ends the channel, and `self` holds it.
            pending::<()>().await;
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// Turns SIGTERM and SIGINT into a request to stop, and SIGHUP into a call of `on_hangup`.
///
/// A second SIGTERM or SIGINT ends the process at once, with code 143 or 130: somebody does not want to wait for the
/// orderly end. Hangups during the orderly end are ignored, as there is nothing left to reload for. Never
/// returns otherwise; drop the future to stop it, which leaves the signals without effect.
///
/// # Errors
/// A signal handler could not be installed.
pub async fn signals(shutdown: Shutdown, mut on_hangup: impl FnMut()) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stopping = false;
    loop {
        let (name, code) = tokio::select! {
            () = next(&mut terminate) => ("SIGTERM", 143),
            () = next(&mut interrupt) => ("SIGINT", 130),
            () = next(&mut hangup) => {
                if !shutdown.is_requested() {
                    on_hangup();
                }
                continue;
            }
        };
        if stopping {
            tracing::warn!(signal = name, "second signal, exiting at once");
            process::exit(code);
        }
        stopping = true;
        tracing::info!(signal = name, "shutting down, a second signal exits at once");
        shutdown.request();
    }
}

async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader},
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
        time::Duration,
    };

    use rustix::process::{Pid, Signal as Sig, kill_process};

    use super::*;

    #[tokio::test]
    async fn request_reaches_every_clone_early_and_late() {
        let shutdown = Shutdown::new();
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        assert!(tokio::time::timeout(Duration::from_millis(5), shutdown.requested()).await.is_err());
        shutdown.clone().request();
        early.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    /// Not a test of its own: the process that `signals_do_what_they_say` sends signals to. It says what happens, one
    /// line each, and never finishes its work after a request to stop.
    #[test]
    fn child() {
        if env::var_os("SHUTDOWN_TEST_CHILD").is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = Shutdown::new();
            let mut signals = Box::pin(signals(shutdown.clone(), || println!("\n@hangup")));
            // Polled once, it has installed its handlers.
            assert!(tokio::time::timeout(Duration::ZERO, &mut signals).await.is_err());
            println!("\n@ready");
            let waiting = async {
                shutdown.requested().await;
                println!("\n@stopping");
                pending::<()>().await;
            };
            let _ = tokio::join!(signals, waiting);
        });
    }

    fn check(script: &[(Sig, &str)], last: Sig, code: i32) {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--nocapture"])
            .env("SHUTDOWN_TEST_CHILD", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let mut said = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix('@').map(str::to_owned));
        assert_eq!(said.next().as_deref(), Some("ready"));
        for (signal, answer) in script {
            kill_process(pid, *signal).unwrap();
            assert_eq!(said.next().as_deref(), Some(*answer), "{script:?}");
        }
        kill_process(pid, last).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{script:?}");
        assert_eq!(said.next(), None, "{script:?}");
    }

    #[test]
    fn signals_do_what_they_say() {
        check(&[(Sig::TERM, "stopping")], Sig::TERM, 143);
        check(&[(Sig::INT, "stopping")], Sig::INT, 130);
        check(&[(Sig::TERM, "stopping")], Sig::INT, 130);
        check(&[(Sig::HUP, "hangup"), (Sig::HUP, "hangup"), (Sig::TERM, "stopping")], Sig::TERM, 143);
    }
}
