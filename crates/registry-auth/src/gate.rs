//! Owns how often a slow hash runs: what was proved before, what is being proved, how many at once.
//!
//! Does not know passwords: a credential is a keyed [`Tag`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::AuthError;

/// How long a password that was proved stays proved without another run of the hash, in seconds.
/// A change of the user's hash ends it at once.
pub const CACHE_TTL: i64 = 300;
/// How long a check waits for a free core before it is [`AuthError::Busy`].
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// HMAC-SHA256 over user, hash and password.
pub(crate) type Tag = [u8; 32];

/// The most proved credentials that are remembered.
const MAX_PROVED: usize = 1024;
/// The most checks that wait for another check or for a free core.
const MAX_WAITING: usize = 256;

/// Lets few checks run at once, and the same check only once.
pub(crate) struct Gate {
    slots: usize,
    runs: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When each credential was proved, in seconds since 1970. Only successes are kept.
    proved: HashMap<Tag, i64>,
    /// The outcome of each check that runs now, for those who wait for it.
    running: HashMap<Tag, Arc<OnceLock<bool>>>,
    waiting: usize,
}

impl Gate {
    /// A gate that runs at most `slots` checks at once.
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, runs: AtomicU64::new(0), state: Mutex::default(), changed: Condvar::new() }
    }

    /// How many checks ran since the start.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Whether `tag` was proved within the last [`CACHE_TTL`] seconds.
    pub(crate) fn remembers(&self, tag: &Tag, now: i64) -> bool {
        self.lock().remembers(tag, now)
    }

    /// Answers from memory, from an equal check under way, or by running `work`.
    pub(crate) fn check(&self, tag: Tag, now: i64, work: impl FnOnce() -> bool) -> Result<bool, AuthError> {
        let started = Instant::now();
        let mut state = self.lock();
        let outcome = loop {
            if state.remembers(&tag, now) {
                return Ok(true);
            }
            let joined = state.running.get(&tag).cloned();
            if joined.is_none() && state.running.len() < self.slots {
                let outcome = Arc::new(OnceLock::new());
                state.running.insert(tag, Arc::clone(&outcome));
                break outcome;
            }
            let left = MAX_WAIT.saturating_sub(started.elapsed());
            if state.waiting >= MAX_WAITING || left.is_zero() {
                return Err(AuthError::Busy);
            }
            state.waiting += 1;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            if let Some(outcome) = joined.and_then(|outcome| outcome.get().copied()) {
                return Ok(outcome);
            }
        };
        drop(state);

        self.runs.fetch_add(1, Ordering::Relaxed);
        let good = work();

        let mut state = self.lock();
        // Nobody else sets this cell: `running` held it for this check alone.
        let _ = outcome.set(good);
        state.running.remove(&tag);
        if good {
            state.remember(tag, now);
        }
        drop(state);
        self.changed.notify_all();
        Ok(good)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remembers(&self, tag: &Tag, now: i64) -> bool {
        self.proved.get(tag).is_some_and(|at| is_fresh(*at, now))
    }

    fn remember(&mut self, tag: Tag, now: i64) {
        if self.proved.len() >= MAX_PROVED {
            self.proved.retain(|_, at| is_fresh(*at, now));
        }
        if self.proved.len() >= MAX_PROVED
            && let Some(oldest) = self.proved.iter().min_by_key(|(_, at)| **at).map(|(tag, _)| *tag)
        {
            self.proved.remove(&oldest);
        }
        self.proved.insert(tag, now);
    }
}

/// A clock that was set back ends the memory too.
fn is_fresh(at: i64, now: i64) -> bool {
    (0..CACHE_TTL).contains(&now.saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::{CACHE_TTL, Gate, MAX_PROVED, Tag};

    fn tag(number: usize) -> Tag {
        let mut tag = Tag::default();
        tag[..8].copy_from_slice(&number.to_be_bytes());
        tag
    }

    #[test]
    fn memory_is_bounded_and_ends() {
        let gate = Gate::new(1);
        let check = |number, now, runs| {
            assert_eq!(gate.check(tag(number), now, || true), Ok(true));
            assert_eq!(gate.runs(), runs, "tag {number} at {now}");
        };
        check(0, 1000, 1);
        check(0, 1000 + CACHE_TTL - 1, 1);
        check(0, 1000 + CACHE_TTL, 2);
        check(0, 999, 3);
        for number in 1..=MAX_PROVED {
            check(number, 1000, 3 + number as u64);
        }
        assert_eq!(gate.lock().proved.len(), MAX_PROVED);
        check(0, 1000, 4 + MAX_PROVED as u64); // The oldest made room.
        assert_eq!(gate.check(tag(usize::MAX), 1000, || false), Ok(false));
        assert!(!gate.remembers(&tag(usize::MAX), 1000));
    }

    /// Runs one slow check, and `others` while it runs; says how many ran in all.
    fn runs_beside(slots: usize, good: bool, others: &[usize]) -> u64 {
        let gate = Gate::new(slots);
        let (entered, is_in) = mpsc::channel();
        let (release, go_on) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                gate.check(tag(0), 0, move || {
                    entered.send(()).unwrap();
                    go_on.recv().unwrap();
                    good
                })
            });
            is_in.recv().unwrap();
            let gate = &gate;
            let rest: Vec<_> =
                others.iter().map(|number| scope.spawn(move || gate.check(tag(*number), 0, || good))).collect();
            while gate.lock().waiting < others.len() {
                thread::yield_now();
            }
            assert_eq!(gate.runs(), 1);
            release.send(()).unwrap();
            for check in rest.into_iter().chain([slow]) {
                assert_eq!(check.join().unwrap(), Ok(good));
            }
        });
        gate.runs()
    }

    #[test]
    fn equal_checks_share_one_run_and_others_wait_for_a_slot() {
        assert_eq!(runs_beside(2, true, &[0, 0, 0]), 1);
        assert_eq!(runs_beside(2, false, &[0, 0, 0]), 1);
        assert_eq!(runs_beside(1, true, &[1, 2]), 3);
        assert_eq!(runs_beside(1, false, &[1, 2]), 3);
    }
}
