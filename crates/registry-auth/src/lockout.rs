//! Owns how long a caller waits after failed logins: per user and address, per address, per user.
//!
//! Does not own what a login is, and keeps nothing over a restart. User names are kept as hashes
//! only: people type passwords where the name belongs.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ring::digest;

/// The longest delay, in seconds.
pub const MAX_DELAY: i64 = 15 * 60;
/// Failures that are forgotten after as many seconds without another.
pub const MEMORY: i64 = 60 * 60;
/// How long an address at which a user logged in is known for that user, in seconds.
pub const KNOWN: i64 = 24 * 60 * 60;
/// The most entries of each of the four tables; all together stay below 6 MiB.
pub const MAX_ENTRIES: usize = 16_384;

/// Failures of one user at one address that cost nothing.
const FREE_PAIR: u32 = 5;
/// Failures of one address with any users that cost nothing.
const FREE_ADDRESS: u32 = 50;
/// Failures of one user at any addresses that cost nothing.
const FREE_USER: u32 = 50;
/// How many seconds apart threads may come that read the clock one after the other. A clock that
/// goes back further was set back.
const DISORDER: i64 = 5;

/// A login that is not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins: try again in {retry_after} s")]
pub struct Locked {
    /// Seconds to wait; `1..=MAX_DELAY`. Good as a `Retry-After`.
    pub retry_after: u32,
}

/// How many seconds the `failures`-th failure in a row delays the next login, when `free` cost
/// nothing: 1, 2, 4 and so on, up to [`MAX_DELAY`].
pub fn delay(free: u32, failures: u32) -> i64 {
    match failures.checked_sub(free) {
        None | Some(0) => 0,
        Some(paid) => 1_i64.checked_shl(paid - 1).filter(|delay| (1..MAX_DELAY).contains(delay)).unwrap_or(MAX_DELAY),
    }
}

/// Counts failed logins. Every method takes the caller's address, `None` if it is not known, and
/// the time in seconds since 1970; each is quick (a few look-ups under one lock).
///
/// Where a user logged in within the last [`KNOWN`] seconds, only the failures of that user at that
/// address count. So nobody else can lock them out: neither someone who guesses their password
/// from elsewhere, nor a broken script behind the same address.
#[derive(Debug, Default)]
pub struct Lockout {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: Clock,
    pairs: Table<(User, Option<Network>)>,
    addresses: Table<Network>,
    users: Table<User>,
    /// When each user last logged in at an address; the failures are always 0.
    known: Table<(User, Option<Network>)>,
}

impl Lockout {
    /// Whether a login may be tried now. Ask right before the password is checked, not when the
    /// request arrives: then no more guesses slip through than are checked at once.
    pub fn permit(&self, user: &str, address: Option<IpAddr>, now: i64) -> Result<(), Locked> {
        let (user, network) = (User::of(user), address.map(Network::of));
        let mut state = self.lock();
        let now = state.clock.tick(now);
        let mut wait = state.pairs.wait(&(user, network), FREE_PAIR, now);
        if !state.knows(user, network, now) {
            wait = wait.max(state.users.wait(&user, FREE_USER, now));
            wait = wait.max(network.map_or(0, |network| state.addresses.wait(&network, FREE_ADDRESS, now)));
        }
        match u32::try_from(wait) {
            Ok(0) | Err(_) => Ok(()),
            Ok(retry_after) => Err(Locked { retry_after }),
        }
    }

    /// Counts a failed login: a wrong password or an unknown user, but not one that was refused by
    /// [`Lockout::permit`].
    pub fn failed(&self, user: &str, address: Option<IpAddr>, now: i64) {
        let (user, network) = (User::of(user), address.map(Network::of));
        let mut state = self.lock();
        let now = state.clock.tick(now);
        state.pairs.failed((user, network), now);
        if !state.knows(user, network, now) {
            state.users.failed(user, now);
            if let Some(network) = network {
                state.addresses.failed(network, now);
            }
        }
    }

    /// Forgets the failures of this user at this address. Those of the user elsewhere and of the
    /// address with other users stay: else one account of one's own would free an address.
    pub fn succeeded(&self, user: &str, address: Option<IpAddr>, now: i64) {
        let (user, network) = (User::of(user), address.map(Network::of));
        let mut state = self.lock();
        let now = state.clock.tick(now);
        state.pairs.entries.remove(&(user, network));
        // Callers without an address are no group of their own that could be known.
        if network.is_some() {
            state.known.entry((user, network), now, KNOWN).last = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn knows(&self, user: User, network: Option<Network>, now: i64) -> bool {
        self.known.entries.get(&(user, network)).is_some_and(|entry| now - entry.last < KNOWN)
    }
}

/// A clock that never goes back: it stops for a moment when the machine's clock is set back, and
/// runs on with it. So no entry is ever in the future, and no lock grows by a clock's jump.
#[derive(Debug, Default)]
struct Clock {
    /// The latest time that was seen.
    seen: Option<i64>,
    /// Seconds since the first.
    elapsed: i64,
}

impl Clock {
    fn tick(&mut self, now: i64) -> i64 {
        let step = now.saturating_sub(*self.seen.get_or_insert(now));
        if !(-DISORDER..=0).contains(&step) {
            self.seen = Some(now);
        }
        // After that long everything is forgotten, so a longer step would only bring the end near.
        self.elapsed += step.clamp(0, KNOWN);
        self.elapsed
    }
}

/// What is kept of a user's name: half of its SHA-256, so that memory does not depend on names.
type UserHash = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct User(UserHash);

impl User {
    fn of(name: &str) -> Self {
        let mut hash = UserHash::default();
        hash.copy_from_slice(&digest::digest(&digest::SHA256, name.as_bytes()).as_ref()[..16]);
        Self(hash)
    }
}

/// What one attacker can be expected to have: an IPv4 address, or the first half of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    /// In the time of [`Clock`].
    last: i64,
}

/// At most [`MAX_ENTRIES`] entries.
#[derive(Debug)]
struct Table<K> {
    entries: HashMap<K, Entry>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Table<K> {
    /// Seconds until `key` may try again.
    fn wait(&self, key: &K, free: u32, now: i64) -> i64 {
        self.entries.get(key).map_or(0, |entry| (entry.last + delay(free, entry.failures) - now).max(0))
    }

    fn failed(&mut self, key: K, now: i64) {
        let entry = self.entry(key, now, MEMORY);
        if now - entry.last >= MEMORY {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
    }

    fn entry(&mut self, key: K, now: i64, memory: i64) -> &mut Entry {
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&key) {
            self.make_room(now, memory);
        }
        self.entries.entry(key).or_insert(Entry { failures: 0, last: now })
    }

    /// Drops what is forgotten anyway, then the eighth with the fewest failures, the oldest first.
    /// To flush an entry out, an attacker must bring thousands of others to as many failures. One
    /// pass over the table per thousands of new entries.
    fn make_room(&mut self, now: i64, memory: i64) {
        const ROOM: usize = MAX_ENTRIES / 8;
        self.entries.retain(|_, entry| now - entry.last < memory);
        if self.entries.len() <= MAX_ENTRIES - ROOM {
            return;
        }
        let mut order: Vec<(u32, i64, K)> =
            self.entries.iter().map(|(key, entry)| (entry.failures, entry.last, *key)).collect();
        order.select_nth_unstable_by_key(ROOM, |(failures, last, _)| (*failures, *last));
        for (_, _, key) in &order[..ROOM] {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

    use super::{DISORDER, KNOWN, Lockout, MAX_DELAY, MAX_ENTRIES, MEMORY, delay};

    const NOW: i64 = 1_800_000_000;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn wait(lockout: &Lockout, user: &str, address: Option<IpAddr>, now: i64) -> i64 {
        lockout.permit(user, address, now).err().map_or(0, |locked| i64::from(locked.retry_after))
    }

    /// The address of a botnet's `n`-th machine.
    fn bot(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4((0x0a00_0000 + n).into()))
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let check = |free: u32, failures: u32, expected: i64| assert_eq!(delay(free, failures), expected, "{failures}");
        for failures in 0..=5 {
            check(5, failures, 0);
        }
        for (failures, expected) in [(6, 1), (7, 2), (8, 4), (9, 8), (15, 512), (16, 900), (17, 900)] {
            check(5, failures, expected);
        }
        for failures in [68, 69, 70, 71, u32::MAX] {
            check(5, failures, MAX_DELAY);
        }
        check(50, 50, 0);
        check(50, 51, 1);
        check(0, u32::MAX, MAX_DELAY);
        check(u32::MAX, u32::MAX, 0);
    }

    /// Plays `who` failing `times` times in one second, then says how long each of `others` waits.
    fn check(times: u32, who: impl Fn(u32) -> (String, Option<IpAddr>), others: &[(&str, Option<IpAddr>, i64)]) {
        let lockout = Lockout::default();
        for n in 0..times {
            let (user, address) = who(n);
            lockout.failed(&user, address, NOW);
        }
        for (user, address, expected) in others {
            assert_eq!(wait(&lockout, user, *address, NOW), *expected, "{user} at {address:?} after {times}");
        }
    }

    #[test]
    fn three_counters_each_lock_their_own() {
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let ann = |_| ("ann".to_owned(), here);
        check(5, ann, &[("ann", here, 0)]);
        check(6, ann, &[("ann", here, 1), ("ann", there, 0), ("bob", here, 0), ("ann", None, 0)]);
        check(8, ann, &[("ann", here, 4), ("ann", there, 0)]);
        // Many names from one address.
        let names = |n: u32| (format!("user-{n}"), here);
        check(50, names, &[("ann", here, 0)]);
        check(52, names, &[("ann", here, 2), ("ann", there, 0), ("ann", None, 0)]);
        // One name from many addresses.
        let bots = |n: u32| ("ann".to_owned(), bot(n));
        check(50, bots, &[("ann", here, 0)]);
        check(70, bots, &[("ann", here, MAX_DELAY), ("ann", None, MAX_DELAY), ("bob", here, 0), ("bob", bot(1), 0)]);
        // Without an address, there is no counter for all of them together.
        check(200, |n| (format!("user-{n}"), None), &[("ann", None, 0)]);
        check(6, |_| ("ann".to_owned(), None), &[("ann", None, 1), ("ann", here, 0)]);
        // An IPv6 /64 is one machine; a mapped IPv4 address is that address.
        let privacy = |n: u32| ("ann".to_owned(), ip(&format!("2001:db8:0:1::{n:x}")));
        check(6, privacy, &[("ann", ip("2001:db8:0:1:ffff::1"), 1), ("ann", ip("2001:db8:0:2::1"), 0)]);
        check(6, ann, &[("ann", ip("::ffff:192.0.2.1"), 1)]);
    }

    #[test]
    fn a_success_clears_the_pair_and_nothing_else() {
        let here = ip("192.0.2.1");
        let lockout = Lockout::default();
        for n in 0..60 {
            lockout.failed(&format!("user-{n}"), here, NOW);
        }
        for _ in 0..6 {
            lockout.failed("ann", None, NOW);
        }
        lockout.succeeded("bob", here, NOW);
        assert!(wait(&lockout, "ann", here, NOW) > 0, "one's own account frees no address");
        assert_eq!(wait(&lockout, "ann", None, NOW), 1);
        lockout.succeeded("ann", None, NOW);
        assert_eq!(wait(&lockout, "ann", None, NOW), 0);
    }

    #[test]
    fn an_owner_is_not_locked_out_by_others() {
        let home = ip("192.0.2.1");
        let lockout = Lockout::default();
        lockout.succeeded("ann", home, NOW);
        for n in 0..200 {
            lockout.failed("ann", bot(n), NOW);
            lockout.failed(&format!("user-{n}"), home, NOW);
        }
        assert_eq!(wait(&lockout, "ann", home, NOW), 0);
        assert_eq!(wait(&lockout, "ann", ip("192.0.2.9"), NOW), MAX_DELAY);
        assert_eq!(wait(&lockout, "bob", home, NOW), MAX_DELAY);
        // A day later the address is like any other, if the attack goes on.
        for n in 0..70 {
            lockout.failed("ann", bot(n), NOW + KNOWN);
        }
        assert_eq!(wait(&lockout, "ann", home, NOW + KNOWN), MAX_DELAY);
        // At the known address, guesses still cost.
        let lockout = Lockout::default();
        lockout.succeeded("ann", home, NOW);
        (0..200).for_each(|_| lockout.failed("ann", home, NOW));
        assert_eq!(wait(&lockout, "ann", home, NOW), MAX_DELAY);
        assert_eq!(wait(&lockout, "ann", bot(1), NOW), 0, "a broken script locks only itself");
        assert_eq!(wait(&lockout, "bob", home, NOW), 0);
    }

    #[test]
    fn an_hour_without_failure_forgets() {
        let here = ip("192.0.2.1");
        let lockout = Lockout::default();
        (0..100).for_each(|_| lockout.failed("ann", here, NOW));
        assert_eq!(wait(&lockout, "ann", here, NOW + 1), MAX_DELAY - 1);
        assert_eq!(wait(&lockout, "ann", here, NOW + MAX_DELAY), 0);
        lockout.failed("ann", here, NOW + MAX_DELAY);
        assert_eq!(wait(&lockout, "ann", here, NOW + MAX_DELAY), MAX_DELAY);
        let later = NOW + MAX_DELAY + MEMORY;
        lockout.failed("ann", here, later);
        assert_eq!(wait(&lockout, "ann", here, later), 0);
    }

    #[test]
    fn jumps_of_the_clock_lock_nobody_for_longer() {
        let here = ip("192.0.2.1");
        let check = |jumps: &[i64], expected: i64| {
            let lockout = Lockout::default();
            (0..100).for_each(|_| lockout.failed("ann", here, NOW));
            let waits: Vec<i64> = jumps.iter().map(|now| wait(&lockout, "ann", here, *now)).collect();
            assert_eq!(waits.last(), Some(&expected), "{jumps:?}: {waits:?}");
        };
        check(&[NOW - 86_400], MAX_DELAY);
        check(&[NOW - 86_400, NOW - 86_400 + 100], MAX_DELAY - 100);
        check(&[NOW - 86_400, NOW - 86_400 + MAX_DELAY], 0);
        check(&[NOW + 86_400], 0);
        check(&[NOW + 86_400, NOW], 0);
        check(&[i64::MAX, i64::MIN, 0, i64::MIN, i64::MAX], 0);
        check(&[i64::MIN], MAX_DELAY);
        check(&[i64::MIN, i64::MAX], 0);
        // Threads that come a little out of order do not hurry the clock.
        check(&[NOW + 1, NOW, NOW + 1, NOW, NOW + 1], MAX_DELAY - 1);
    }

    #[test]
    fn a_flood_of_names_stays_bounded_and_flushes_nobody() {
        let here = ip("192.0.2.1");
        let lockout = Lockout::default();
        (0..16).for_each(|_| lockout.failed("victim", here, NOW));
        for n in 0..100_000 {
            lockout.failed(&format!("name-{n}"), bot(n), NOW + i64::from(n) / 1000);
            lockout.succeeded(&format!("name-{n}"), bot(n / 2), NOW + i64::from(n) / 1000);
        }
        let state = lockout.lock();
        let sizes = [
            state.pairs.entries.len(),
            state.addresses.entries.len(),
            state.users.entries.len(),
            state.known.entries.len(),
        ];
        assert!(sizes.iter().all(|size| (MAX_ENTRIES / 2..=MAX_ENTRIES).contains(size)), "{sizes:?}");
        drop(state);
        assert_eq!(wait(&lockout, "victim", here, NOW + 100), MAX_DELAY - 100);
        // The latest are there, too.
        (0..6).for_each(|_| lockout.failed("name-99999", bot(99_999), NOW + 100));
        assert!(wait(&lockout, "name-99999", bot(99_999), NOW + 100) > 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(i64),
        /// The clock is set to any time.
        Jump(i64),
        Fail(u8, u8, u8),
        Succeed(u8, u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                (0_i64..2000).prop_map(Step::Wait),
                prop_oneof![any::<i64>(), NOW - 5000..NOW + 5000].prop_map(Step::Jump),
                (0_u8..3, 0_u8..3, 1_u8..60).prop_map(|(user, address, times)| Step::Fail(user, address, times)),
                (0_u8..3, 0_u8..3).prop_map(|(user, address)| Step::Succeed(user, address)),
            ],
            0..40,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happened and however the clock jumped, nobody waits longer than they are told,
        /// nor longer than the longest delay; and a success is the end of the pair's delay.
        #[test]
        fn never_longer_than_the_longest(steps in steps()) {
            let user = |n: u8| format!("user-{n}");
            let address = |n: u8| (n > 0).then(|| bot(u32::from(n))).flatten();
            let lockout = Lockout::default();
            let mut now = NOW;
            for step in steps {
                match step {
                    Step::Wait(seconds) => now = now.saturating_add(seconds),
                    Step::Jump(time) => now = time,
                    Step::Fail(u, a, times) => (0..times).for_each(|_| lockout.failed(&user(u), address(a), now)),
                    Step::Succeed(u, a) => {
                        lockout.succeeded(&user(u), address(a), now);
                        // Known addresses answer to the pair only, which is clear.
                        if a > 0 {
                            assert_eq!(wait(&lockout, &user(u), address(a), now), 0);
                        }
                    }
                }
                for (u, a) in (0..3).flat_map(|u| (0..3).map(move |a| (u, a))) {
                    assert!(wait(&lockout, &user(u), address(a), now) <= MAX_DELAY);
                }
            }
            let waits: Vec<i64> = (0..3).map(|u| wait(&lockout, &user(u), bot(1), now)).collect();
            for (u, told) in waits.into_iter().enumerate() {
                let later = now.saturating_add(told + DISORDER);
                // At the end of time, no waiting helps.
                if later < i64::MAX {
                    assert_eq!(wait(&lockout, &user(u as u8), bot(1), later), 0);
                }
            }
        }

        #[test]
        fn any_name_and_address(name in ".{0,300}", address in any::<u128>(), now in any::<i64>()) {
            let lockout = Lockout::default();
            let address = Some(IpAddr::V6(address.into()));
            (0..7).for_each(|_| lockout.failed(&name, address, now));
            assert_eq!(wait(&lockout, &name, address, now), 2);
            lockout.succeeded(&name, address, now);
            assert_eq!(wait(&lockout, &name, address, now), 0);
        }
    }
}
