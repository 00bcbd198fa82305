//! Runs an operation over and over from one or more workers and says how fast it went.
//!
//! All workers share one thread: a single worker blocks on its socket, several are futures woken by one epoll
//! instance. On two cores this leaves a whole core to the server, which eight client threads do not.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::guard::Badge;
use super::http::{Conn, PATIENCE};
use super::server::cpu_seconds;

/// Errors after which a phase is given up.
const MAX_ERRORS: u64 = 20;

/// Where a phase sends its requests, and whose CPU it counts.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) pid: u32,
    /// Set by Ctrl-C: every phase ends early and fails.
    pub(crate) stop: Arc<AtomicBool>,
    /// What every request proves itself with, where that has to be.
    pub(crate) badge: Option<Badge>,
}

impl Target {
    /// A blocking connection.
    pub(crate) fn conn(&self) -> Conn {
        Conn::blocking(self.addr).with_line(self.line())
    }

    fn line(&self) -> Rc<str> {
        self.badge.as_ref().map_or_else(|| Rc::from(""), Badge::line)
    }
}

/// When a phase ends, whichever comes first.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) time: Duration,
    pub(crate) operations: u64,
}

impl Budget {
    /// So many operations, however long they take.
    pub(crate) fn operations(operations: u64) -> Self {
        Self { time: Duration::from_secs(1800), operations }
    }
}

/// The outcome of one phase.
#[derive(Default)]
pub(crate) struct Sample {
    /// Seconds spent on operations: wall time, or for a single worker the sum of its latencies, so that what the
    /// client prepares between two operations does not count.
    pub(crate) seconds: f64,
    /// Of operations that succeeded, in microseconds, ascending.
    pub(crate) latencies: Vec<u32>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) server_cpu: f64,
    pub(crate) client_cpu: f64,
    /// Resident bytes of a server that the phase started itself, when it first answered.
    pub(crate) ready_memory: Option<u64>,
}

impl Sample {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds.max(1e-9)
    }

    /// Server CPU in milliseconds per operation.
    pub(crate) fn cpu_ms(&self) -> f64 {
        self.server_cpu * 1e3 / (self.latencies.len() as f64).max(1.0)
    }

    /// Latency in milliseconds below which the share `q` (0 to 1) of operations stayed.
    pub(crate) fn quantile_ms(&self, q: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * q).round() as usize;
        self.latencies.get(index).map_or(f64::NAN, |&us| f64::from(us) / 1e3)
    }

    /// Fails with the first error, for phases that prepare something.
    pub(crate) fn ok(self) -> Result<Self> {
        match &self.first_error {
            Some(error) => bail!("{} of {} operations failed, first: {error}", self.errors, self.latencies.len()),
            None => Ok(self),
        }
    }
}

/// Calls `operation` with ever new ids, taken from `ids`, from `workers` connections until `budget` is used up.
pub(crate) fn drive<F>(target: &Target, workers: usize, budget: Budget, ids: &Cell<u64>, operation: F) -> Result<Sample>
where
    F: AsyncFn(&mut Conn, u64) -> Result<()>,
{
    let sample = RefCell::new(Sample::default());
    let issued = Cell::new(0);
    let begin = Instant::now();
    let work = async |mut conn: Conn| {
        while issued.get() < budget.operations
            && begin.elapsed() < budget.time
            && sample.borrow().errors < MAX_ERRORS
            && !target.stop.load(Ordering::Relaxed)
        {
            issued.set(issued.get() + 1);
            let id = ids.replace(ids.get() + 1);
            let started = Instant::now();
            let result = operation(&mut conn, id).await;
            let took = started.elapsed();
            let mut sample = sample.borrow_mut();
            match result {
                Ok(()) => sample.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
                Err(error) => {
                    sample.errors += 1;
                    sample.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
            if workers == 1 {
                sample.seconds += took.as_secs_f64();
            }
        }
    };
    let (server, client) = (cpu_seconds(target.pid)?, cpu_seconds(std::process::id())?);
    if workers == 1 {
        block_on(work(target.conn()));
    } else {
        let epoll = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC).context("create epoll")?);
        let conn = |key| Conn::polled(target.addr, epoll.clone(), key as u64).with_line(target.line());
        run_all((0..workers).map(|key| Box::pin(work(conn(key)))).collect(), &epoll)?;
    }
    let mut sample = sample.into_inner();
    if workers > 1 {
        sample.seconds = begin.elapsed().as_secs_f64();
    }
    sample.server_cpu = cpu_seconds(target.pid)? - server;
    sample.client_cpu = cpu_seconds(std::process::id())? - client;
    sample.latencies.sort_unstable();
    if target.stop.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(sample)
}

/// Runs a future that only uses blocking connections, and so is ready at its first poll.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a blocking connection never returns pending"),
    }
}

/// Polls each future once, then whenever the socket registered under its index has news, until all are ready.
fn run_all<F: Future<Output = ()>>(mut tasks: Vec<Pin<Box<F>>>, poller: &impl std::os::fd::AsFd) -> Result<()> {
    let mut context = TaskContext::from_waker(Waker::noop());
    let mut running: Vec<bool> = tasks.iter_mut().map(|task| task.as_mut().poll(&mut context).is_pending()).collect();
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut events = Vec::with_capacity(tasks.len().max(1));
    while running.contains(&true) {
        events.clear();
        match epoll::wait(poller, spare_capacity(&mut events), Some(&patience)) {
            Ok(0) => bail!("no answer from the server for {} s", PATIENCE.as_secs()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        for event in &events {
            let key = { event.data }.u64() as usize;
            if running[key] {
                running[key] = tasks[key].as_mut().poll(&mut context).is_pending();
            }
        }
    }
    Ok(())
}
