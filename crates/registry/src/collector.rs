//! Owns when what is collected: rounds of reviews (G1), retired blobs (G2) and removed files (G3),
//! at a bounded rate, and what is told about them. What is garbage is decided in
//! `registry_core::gc`; rows and files are the stores'.
//!
//! Between two rounds nothing is kept but the stores' queues, so that a round may end at any
//! moment. `gc.running` in the store's state is there while a server runs: found at the start, it
//! says that the last one did not end in order, and that there may be files without rows.

pub(crate) mod clock;
pub(crate) mod status;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use registry_core::{
    gc::{Collection as _, Policy},
    store::StoreError,
};
use registry_store::{
    blob::fs::FsBlobs,
    claims::Claims,
    maintenance::{due_within, purge, sweep, sweep_parts},
    meta::sqlite::SqliteMetadata,
};
use service::shutdown::Shutdown;
use tokio::{sync::Notify, time::Instant};

use self::{
    clock::Clock,
    status::{Progress, Round, State, Status, Totals, Trouble},
};
use crate::{
    admin::{
        error::{Kind, OrderError},
        plan::timestamp,
    },
    app::now as wall,
    config::settings::Collecting,
    failure::Chain,
    jobs::pause,
    metrics::Collection as Counters,
};

/// Objects at a time: about as many as share a commit of pushes.
const BATCH: usize = 64;
/// Collecting takes at most one part in so many of the time, so that requests have the disk.
const SHARE: u32 = 5;
/// The first round comes so long after the start, or after one interval.
const FIRST: Duration = Duration::from_secs(10);
/// Longest wait after rounds that failed.
const LONGEST: Duration = Duration::from_secs(600);
/// How often the time is looked at, at least: a jump should not hide in a long interval.
const LOOK: Duration = Duration::from_secs(300);
/// Batches with files that cannot be removed, in a round. The next is twice as large, so that they
/// do not keep the others waiting.
const FAILED_BATCHES: u32 = 8;
/// How long a promise holds for those who do not want to wait, in seconds.
pub(crate) const PROMISED: i64 = 3600;
/// How far the clock may go on before it is written down, in seconds.
const CLOCK_STEP: i64 = 600;

/// Says that the collection shall rest; any value.
pub(crate) const PAUSED: &str = "gc.paused";
/// Until when no bytes may go, in seconds since 1970.
pub(crate) const HOLD_UNTIL: &str = "gc.hold_until";
const CLOCK: &str = "gc.clock";
const POLICY: &str = "gc.policy";
const RUNNING: &str = "gc.running";
/// When the first and the last server since the last sweep began after one that did not end in
/// order: seconds since 1970, with a space between.
const SWEEP: &str = "gc.sweep";
/// Whose the files are: absent or `own` where they are ours alone.
const ADOPTION: &str = "adoption";

/// What somebody wants of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Without waiting for grace periods.
    pub(crate) now: bool,
    /// Also manifests that no tag reaches.
    pub(crate) untagged: bool,
}

/// Where rows and bytes are, and how they are claimed.
#[derive(Clone)]
pub(crate) struct Files {
    /// Rows.
    pub(crate) metadata: Arc<SqliteMetadata>,
    /// Bytes.
    pub(crate) blobs: FsBlobs,
    /// Who touches them.
    pub(crate) claims: Claims,
}

/// How much of the machine the collection takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many objects a second, and a part of the time.
    Bounded(u32),
    /// All that there is: nobody else is here.
    Free,
}

impl Pace {
    fn batch(self) -> usize {
        match self {
            Self::Bounded(rate) => BATCH.min(usize::try_from(rate).unwrap_or(BATCH)),
            Self::Free => 16 * BATCH,
        }
    }

    /// Makes up for `objects` that took so long. Returns whether to go on.
    async fn rest(self, objects: u64, took: Duration, stop: &Shutdown) -> bool {
        match self {
            Self::Bounded(rate) => {
                let share = took * (SHARE - 1);
                let least = Duration::from_secs(objects) / rate.max(1);
                pause(stop, share.max(least.saturating_sub(took))).await
            }
            Self::Free => {
                tokio::task::yield_now().await;
                !stop.is_requested()
            }
        }
    }
}

/// Collects what nothing needs.
pub(crate) struct Collector {
    files: Files,
    settings: Collecting,
    pace: Pace,
    /// For how long a promise holds in rounds that do not wait.
    promised: i64,
    counters: Counters,
    clock: Mutex<Clock>,
    course: Mutex<Course>,
    wake: Notify,
}

/// What is known of rounds.
#[derive(Debug, Default)]
struct Course {
    /// The number of the round that began last.
    begun: u64,
    wanted: Option<Wanted>,
    current: Option<Current>,
    last: Option<Round>,
    trouble: Option<(i64, String)>,
    next: Option<i64>,
    written_clock: i64,
}

#[derive(Debug)]
struct Current {
    state: State,
    since: Instant,
    known: u64,
    done: u64,
    did: Totals,
}

/// How a round ends that does not come to its end.
enum Ended {
    /// The server stops.
    Stopping,
    /// Somebody or something wants no collection now.
    Hindered(String),
    /// A store failed.
    Failed(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    /// A collection beside a server.
    pub(crate) fn new(files: Files, settings: Collecting, counters: Counters) -> Self {
        Self::with_pace(files, settings, counters, Pace::Bounded(settings.rate), PROMISED)
    }

    /// A collection while no server runs. Promises older than `promised` seconds do not count in
    /// rounds that do not wait.
    pub(crate) fn offline(files: Files, settings: Collecting, promised: i64) -> Self {
        Self::with_pace(files, settings, Counters::default(), Pace::Free, promised)
    }

    fn with_pace(files: Files, settings: Collecting, counters: Counters, pace: Pace, promised: i64) -> Self {
        let (clock, course) = (Mutex::new(Clock::new(None)), Mutex::default());
        Self { files, settings, pace, promised, counters, clock, course, wake: Notify::new() }
    }

    /// Goes on where the clock of an earlier process was.
    pub(crate) async fn take_clock(&self) -> Result<(), StoreError> {
        let left = number(self.files.metadata.state(CLOCK).await?);
        *locked(&self.clock) = Clock::new(left);
        locked(&self.course).written_clock = left.unwrap_or(0);
        Ok(())
    }

    /// Takes up what an earlier server left. Nothing is collected before.
    pub(crate) async fn begin(&self) -> Result<(), StoreError> {
        self.take_clock().await?;
        let metadata = &self.files.metadata;
        let now = wall();
        if metadata.state(RUNNING).await?.is_some() {
            tracing::warn!(
                "the last server did not end in order: files that nothing names are looked for in {:?}",
                self.settings.orphans
            );
            let first = metadata.state(SWEEP).await?.and_then(|span| sweep_span(&span)).map_or(now, |(first, _)| first);
            metadata.set_state(SWEEP, Some(format!("{first} {now}"))).await?;
        }
        metadata.set_state(RUNNING, Some(now.to_string())).await
    }

    /// Leaves word that the server ended in order: whatever was written has its row.
    pub(crate) async fn end(&self) {
        let metadata = &self.files.metadata;
        if let Err(error) = metadata.set_state(RUNNING, None).await {
            tracing::warn!(error = %Chain(&error), "the end is not written down: the next start takes it for a crash");
        }
    }

    /// Collects until shutdown: a round each interval, and whenever somebody wants one.
    pub(crate) async fn run(self: Arc<Self>, is_read_only: impl Fn() -> bool + Send, stop: Shutdown) {
        let interval = self.settings.interval;
        let mut failures = 0_u32;
        let mut due = Instant::now() + interval.min(FIRST);
        loop {
            locked(&self.course).next = self.settings.enabled.then(|| wall() + seconds(due - Instant::now()));
            let rest = due.saturating_duration_since(Instant::now()).min(LOOK);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.wake.notified() => {}
                () = stop.requested() => return,
            }
            self.read_clock();
            let asked = locked(&self.course).wanted.is_some();
            let ripe = Instant::now() >= due;
            let begins = ripe && self.settings.enabled && !is_read_only();
            if !asked && !begins {
                if ripe {
                    due = Instant::now() + interval;
                }
                continue;
            }
            let failed = self.round(&stop).await;
            failures = if failed { failures.saturating_add(1) } else { 0 };
            let back_off = interval.max(FIRST) * 2_u32.saturating_pow(failures.min(8));
            due = Instant::now() + if failed { back_off.min(LONGEST.max(interval)) } else { interval };
        }
    }

    /// Has a round begun soon; returns its number.
    pub(crate) async fn ask(&self, wanted: Wanted) -> Result<u64, OrderError> {
        if let Some(why) = self.hindrance().await? {
            let hint = "`registry gc status` says more";
            return Err(OrderError::new(Kind::Conflict, format!("the collection rests: {why}"), hint));
        }
        let number = {
            let mut course = locked(&self.course);
            let other = course.wanted.unwrap_or_default();
            course.wanted = Some(Wanted { now: wanted.now || other.now, untagged: wanted.untagged || other.untagged });
            course.begun + 1
        };
        self.wake.notify_one();
        Ok(number)
    }

    /// Stops the collection, over restarts too.
    pub(crate) async fn pause(&self, now: i64) -> Result<Status, OrderError> {
        self.files.metadata.set_state(PAUSED, Some("yes".to_owned())).await?;
        self.status(now).await
    }

    /// Lets the collection go on, whatever the clock did.
    pub(crate) async fn resume(&self, now: i64) -> Result<Status, OrderError> {
        resume(&self.files.metadata).await?;
        locked(&self.clock).trust();
        locked(&self.course).written_clock = 0;
        self.wake.notify_one();
        self.status(now).await
    }

    /// What it does and what waits for it.
    pub(crate) async fn status(&self, now: i64) -> Result<Status, OrderError> {
        let why = self.hindrance().await?;
        let mut status = stored(&self.files.metadata, self.settings.policy, now).await?;
        let counters = &self.counters;
        status.since_start = Totals {
            reviews: counters.reviews.get(),
            manifests: counters.manifests.get(),
            links: counters.links.get(),
            condemned: counters.condemned.get(),
            retired: counters.retired.get(),
            files: counters.purged.get(),
            bytes: counters.purged_bytes.get(),
            orphans: counters.swept.get(),
            orphan_bytes: counters.swept_bytes.get(),
            errors: counters.errors.get(),
        };
        let course = locked(&self.course);
        status.round = course.begun;
        status.last.clone_from(&course.last);
        status.error = course.trouble.as_ref().map(|(at, text)| Trouble { at: timestamp(*at), text: text.clone() });
        status.progress = course.current.as_ref().map(Current::progress);
        status.state = match (&course.current, &why) {
            (Some(current), _) => current.state,
            (None, Some(_)) => State::Stopped,
            (None, None) if self.settings.enabled => State::Idle,
            (None, None) => State::Stopped,
        };
        let off = || "it is switched off (roadstead.gc.enabled); `registry gc run` runs it once".to_owned();
        status.why = why.or_else(|| (!self.settings.enabled && course.current.is_none()).then(off));
        status.next = course.next.filter(|_| status.why.is_none() && course.current.is_none()).map(timestamp);
        Ok(status)
    }

    /// Why nothing may be collected now.
    async fn hindrance(&self) -> Result<Option<String>, StoreError> {
        if let Some(why) = obstacle(&self.files.metadata).await? {
            return Ok(Some(why));
        }
        Ok(self.read_clock().still.map(|left| {
            format!("the machine's clock jumped; promises of before are kept for {} s more", left.as_secs() + 1)
        }))
    }

    fn read_clock(&self) -> clock::Reading {
        let Policy { grace, lease, quarantine, .. } = self.settings.policy;
        let stillness = Duration::from_secs(u64::try_from(grace.max(lease).max(quarantine)).unwrap_or(0));
        let reading = locked(&self.clock).read(wall(), Instant::now(), stillness);
        if let Some(seconds) = reading.jumped {
            tracing::error!(
                seconds,
                "the clock of this machine jumped by {seconds} s: nothing is collected for {stillness:?}, or until \
                 `registry gc resume`"
            );
        }
        reading
    }

    /// Runs a round; returns whether a store failed.
    pub(crate) async fn round(&self, stop: &Shutdown) -> bool {
        let began = Instant::now();
        let (number, wanted) = {
            let mut course = locked(&self.course);
            course.begun += 1;
            let state = State::Reviewing;
            course.current = Some(Current { state, since: began, known: 0, done: 0, did: Totals::default() });
            (course.begun, course.wanted.take())
        };
        let ended = self.collect(wanted, stop).await;
        let (mut promised, mut error, mut failed) = (None, None, false);
        match ended {
            Ok(held) => promised = held,
            Err(Ended::Stopping) => error = Some("the server was stopped".to_owned()),
            Err(Ended::Hindered(why)) => error = wanted.is_some().then_some(why),
            Err(Ended::Failed(failure)) => {
                tracing::error!(error = %Chain(&failure), "a round of the collection failed and is tried again");
                error = Some(self.trouble(&failure));
                failed = true;
            }
        }
        if let Err(error) = self.look_at_backlog().await {
            tracing::debug!(error = %Chain(&error), "count what waits for the collection");
        }
        self.counters.rounds.inc();
        self.counters.last_round.set(wall());
        self.counters.last_round_duration.set(began.elapsed().as_secs_f64());
        let mut course = locked(&self.course);
        let did = course.current.take().map(|current| current.did).unwrap_or_default();
        if did.changed_anything() {
            let Totals { manifests, links, condemned, retired, files, bytes, orphans, .. } = did;
            tracing::info!(
                round = number,
                manifests,
                links,
                condemned,
                retired,
                files,
                bytes,
                orphans,
                "collected: {manifests} manifests and {links} links removed, {condemned} blobs condemned, {files} files \
                 with {bytes} bytes removed"
            );
        }
        let seconds = began.elapsed().as_secs_f64();
        course.last = Some(Round { round: number, ended: timestamp(wall()), seconds, did, promised, error });
        failed
    }

    /// One round; returns how many objects stay because of promises, if it does not wait.
    async fn collect(&self, wanted: Option<Wanted>, stop: &Shutdown) -> Result<Option<u64>, Ended> {
        let Files { metadata, blobs, claims } = &self.files;
        self.go_on(stop).await?;
        let now = self.time().await?;
        let usual = self.settings.policy;
        let Wanted { now: at_once, untagged } = wanted.unwrap_or_default();
        let lease = usual.lease.min(self.promised);
        let mut policy = if at_once { Policy { grace: 0, lease, quarantine: 0, ..usual } } else { usual };
        if untagged {
            // Who pushes an index pushes its images first.
            policy.untagged = Some(lease);
        }
        let serves = matches!(self.pace, Pace::Bounded(_));
        let before = metadata.state(POLICY).await?;
        let changed = serves && before.as_deref() != Some(&*written(&usual));
        // Where nothing is written down yet, all that is in the queue was put there by this policy.
        if (changed && before.is_some()) || at_once || untagged {
            metadata.review_all().await?;
        }
        if changed {
            metadata.set_state(POLICY, Some(written(&usual))).await?;
        }
        let waiting = metadata.backlog(now).await?;
        self.set_known(waiting.due + waiting.purges.0);

        // What an earlier round left comes first: reviews that come in faster than they are done, or a round that is
        // cut short again and again, must not keep files from going.
        self.remove(now, policy, stop).await?;
        self.set_state(State::Reviewing);
        let limit = self.pace.batch();
        loop {
            let began = Instant::now();
            let did = metadata.review(now, policy, limit).await?;
            if did.reviews == 0 {
                break;
            }
            let more = if policy.quarantine == 0 { 2 * count(did.condemned) } else { 0 };
            self.count(count(did.reviews), more, |totals| {
                totals.reviews += count(did.reviews);
                totals.manifests += count(did.manifests);
                totals.links += count(did.links);
                totals.condemned += count(did.condemned);
            });
            self.rest(count(did.reviews), began, stop).await?;
        }
        self.remove(now, policy, stop).await?;

        let after_crash = self.sweep_is_due(now).await?;
        if after_crash.is_some() || at_once {
            self.set_state(State::Sweeping);
            let age = if at_once {
                self.settings.orphans.min(Duration::from_secs(u64::try_from(self.promised).unwrap_or(0)))
            } else {
                self.settings.orphans
            };
            let parts = sweep_parts(metadata, blobs).await?;
            self.restart(count(parts.len()));
            for part in parts {
                let began = Instant::now();
                let found = sweep(metadata, blobs, claims, &part, age).await?;
                self.count(1, 0, |totals| {
                    totals.orphans += found.files;
                    totals.orphan_bytes += found.bytes;
                });
                self.rest(found.looked, began, stop).await?;
                if is_held(metadata, wall()).await? {
                    return Err(Ended::Hindered("a backup or another command holds it".to_owned()));
                }
            }
            if let Some(rest) = after_crash {
                metadata.set_state(SWEEP, rest).await?;
            }
        }
        if !(at_once || untagged) {
            return Ok(None);
        }
        Ok(Some(due_within(metadata, now, lease)?))
    }

    /// G2 and G3, over all that is due.
    async fn remove(&self, now: i64, policy: Policy, stop: &Shutdown) -> Result<(), Ended> {
        let metadata = &self.files.metadata;
        let limit = self.pace.batch();
        self.set_state(State::Retiring);
        loop {
            let began = Instant::now();
            let retired = count(metadata.retire(now, policy, limit).await?);
            if retired == 0 {
                break;
            }
            let more = if policy.quarantine == 0 { 0 } else { 2 * retired };
            self.count(retired, more, |totals| totals.retired += retired);
            self.rest(retired, began, stop).await?;
        }
        self.set_state(State::Purging);
        let before = metadata.backlog(now).await?.purges.1;
        let purged = self.purge(now, stop).await;
        let bytes = before.saturating_sub(metadata.backlog(now).await?.purges.1);
        self.count(0, 0, |totals| totals.bytes += bytes);
        purged
    }

    /// G3, over files that cannot be removed.
    async fn purge(&self, now: i64, stop: &Shutdown) -> Result<(), Ended> {
        let Files { metadata, blobs, claims } = &self.files;
        let (mut limit, mut failed) = (self.pace.batch(), 0);
        loop {
            let began = Instant::now();
            match purge(metadata, blobs, claims, now, limit).await {
                Ok(0) => return Ok(()),
                Ok(purged) => {
                    self.count(count(purged), 0, |totals| totals.files += count(purged));
                    self.rest(count(purged), began, stop).await?;
                }
                Err(error @ StoreError::Poisoned) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "a file is not removed yet and is tried again");
                    self.trouble(&error);
                    failed += 1;
                    // What is left now was tried just now.
                    if failed >= FAILED_BATCHES || metadata.purges(limit).await?.len() < limit {
                        return Ok(());
                    }
                    limit *= 2;
                    self.rest(BATCH as u64, began, stop).await?;
                }
            }
        }
    }

    /// What is left of the sweeps that crashes asked for once one is done now; `None` if none is due.
    async fn sweep_is_due(&self, now: i64) -> Result<Option<Option<String>>, StoreError> {
        let span = self.files.metadata.state(SWEEP).await?;
        let Some((first, last)) = span.as_deref().and_then(sweep_span) else { return Ok(None) };
        let due = first.saturating_add(seconds(self.settings.orphans)) <= now;
        Ok(due.then(|| (last > first).then(|| format!("{last} {last}"))))
    }

    /// The time, written down now and then.
    async fn time(&self) -> Result<i64, StoreError> {
        let now = self.read_clock().now;
        let written = locked(&self.course).written_clock;
        if (now - written).abs() >= CLOCK_STEP {
            self.files.metadata.set_state(CLOCK, Some(now.to_string())).await?;
            locked(&self.course).written_clock = now;
        }
        Ok(now)
    }

    async fn go_on(&self, stop: &Shutdown) -> Result<(), Ended> {
        if stop.is_requested() {
            return Err(Ended::Stopping);
        }
        self.hindrance().await?.map_or(Ok(()), |why| Err(Ended::Hindered(why)))
    }

    async fn rest(&self, objects: u64, began: Instant, stop: &Shutdown) -> Result<(), Ended> {
        if !self.pace.rest(objects, began.elapsed(), stop).await {
            return Err(Ended::Stopping);
        }
        self.go_on(stop).await
    }

    fn with_current(&self, change: impl FnOnce(&mut Current)) {
        if let Some(current) = &mut locked(&self.course).current {
            change(current);
        }
    }

    fn set_state(&self, state: State) {
        self.with_current(|current| current.state = state);
    }

    fn set_known(&self, known: u64) {
        self.with_current(|current| current.known = known);
    }

    /// Begins to count steps of another kind.
    fn restart(&self, known: u64) {
        self.with_current(|current| (current.known, current.done, current.since) = (known, 0, Instant::now()));
    }

    /// Counts steps that are done, and those that they lead to.
    fn count(&self, done: u64, more: u64, add: impl FnOnce(&mut Totals)) {
        let mut these = Totals::default();
        add(&mut these);
        let Totals { reviews, manifests, links, condemned, retired, files, bytes, orphans, orphan_bytes, errors } =
            these;
        let counters = &self.counters;
        counters.reviews.inc_by(reviews);
        counters.manifests.inc_by(manifests);
        counters.links.inc_by(links);
        counters.condemned.inc_by(condemned);
        counters.retired.inc_by(retired);
        counters.purged.inc_by(files);
        counters.purged_bytes.inc_by(bytes);
        counters.swept.inc_by(orphans);
        counters.swept_bytes.inc_by(orphan_bytes);
        counters.errors.inc_by(errors);
        self.with_current(|current| {
            current.done += done;
            current.known += more;
            let did = &mut current.did;
            did.reviews += reviews;
            did.manifests += manifests;
            did.links += links;
            did.condemned += condemned;
            did.retired += retired;
            did.files += files;
            did.bytes += bytes;
            did.orphans += orphans;
            did.orphan_bytes += orphan_bytes;
            did.errors += errors;
        });
    }

    /// Notes what went wrong, and returns it as text.
    fn trouble(&self, error: &StoreError) -> String {
        self.count(0, 0, |totals| totals.errors += 1);
        let text = Chain(error).to_string();
        locked(&self.course).trouble = Some((wall(), text.clone()));
        text
    }

    async fn look_at_backlog(&self) -> Result<(), StoreError> {
        let waiting = self.files.metadata.backlog(wall()).await?;
        let set = |gauge: &prometheus_client::metrics::gauge::Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.counters.due, waiting.due);
        set(&self.counters.quarantined, waiting.condemned.0);
        set(&self.counters.quarantined_bytes, waiting.condemned.1);
        set(&self.counters.files, waiting.purges.0);
        Ok(())
    }
}

impl Current {
    fn progress(&self) -> Progress {
        let took = self.since.elapsed().as_secs_f64();
        let left = self.known.saturating_sub(self.done);
        // Numbers of objects are far below where this is inexact.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = if took > 0.0 { self.done as f64 / took } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let estimate = || Duration::try_from_secs_f64(left as f64 / rate).ok().map(|left| left.as_secs() + 1);
        Progress { done: self.done, left, rate, seconds_left: if rate > 0.0 { estimate() } else { None } }
    }
}

/// What the stores say, whether a server runs or not.
pub(crate) async fn stored(metadata: &SqliteMetadata, policy: Policy, now: i64) -> Result<Status, StoreError> {
    let held = number(metadata.state(HOLD_UNTIL).await?).filter(|until| *until > now);
    Ok(Status {
        state: State::NoServer,
        why: obstacle(metadata).await?,
        held_until: held.map(timestamp),
        round: 0,
        progress: None,
        next: None,
        waiting: metadata.backlog(now).await?.into(),
        since_start: Totals::default(),
        last: None,
        error: None,
        policy: policy.into(),
    })
}

/// What is written down against collecting.
async fn obstacle(metadata: &SqliteMetadata) -> Result<Option<String>, StoreError> {
    if metadata.state(PAUSED).await?.is_some() {
        return Ok(Some("it is paused; `registry gc resume` lets it go on".to_owned()));
    }
    Ok(match metadata.state(ADOPTION).await?.as_deref() {
        None | Some("own") => None,
        Some("released") => Some("the data was given back to another registry".to_owned()),
        Some(_) => Some("another registry still writes to this data directory".to_owned()),
    })
}

/// Lets the collection go on, whatever the clock did.
pub(crate) async fn resume(metadata: &SqliteMetadata) -> Result<(), StoreError> {
    metadata.set_state(PAUSED, None).await?;
    metadata.set_state(CLOCK, None).await
}

async fn is_held(metadata: &SqliteMetadata, now: i64) -> Result<bool, StoreError> {
    Ok(number(metadata.state(HOLD_UNTIL).await?).is_some_and(|until| until > now))
}

fn number(text: Option<String>) -> Option<i64> {
    text.and_then(|text| text.parse().ok())
}

fn sweep_span(text: &str) -> Option<(i64, i64)> {
    let (first, last) = text.split_once(' ')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// A policy as it is written down, to notice that it changed.
fn written(policy: &Policy) -> String {
    let Policy { grace, lease, quarantine, untagged } = policy;
    let untagged = untagged.map_or_else(|| "keep".to_owned(), |untagged| untagged.to_string());
    format!("grace={grace} lease={lease} quarantine={quarantine} untagged={untagged}")
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
