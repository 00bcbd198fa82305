//! Owns what is remembered of pulls until it is written: which manifests were asked for.
//!
//! A pull never waits for a write. It leaves a note here, and a job writes the notes of the last
//! second in one change. Retention counts pulls in hours and days, and an untagged manifest that is
//! pulled is kept as long as a tagged one that is not: so a manifest is noted at most four times an
//! hour, however often it is pulled, or four times in a lease that is shorter than an hour.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use registry_core::{digest::Digest, name::RepoName};

/// Manifests that are remembered, some 200 bytes each.
const MOST: usize = 10_000;
/// Seconds within which a pull counts once, at most.
const AN_HOUR: i64 = 3600;

type Key = (RepoName, Digest);

/// Pulls of manifests.
#[derive(Debug)]
pub(crate) struct Pulls {
    interval: i64,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// When each was noted last.
    at: HashMap<Key, i64>,
    /// What is not written yet; all of it is in `at`.
    waiting: Vec<Key>,
}

impl Pulls {
    /// Where leases have so many seconds.
    pub(crate) fn new(lease: i64) -> Self {
        Self { interval: (lease.min(AN_HOUR) / 4).max(1), noted: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pull at `now` is worth a note, where the last one was made at `noted_at`. No lock
    /// is taken for the others.
    pub(crate) fn is_due(&self, noted_at: i64, now: i64) -> bool {
        now.saturating_sub(noted_at) >= self.interval
    }

    /// Notes a pull. Returns `false` if there is no room before the next write, so that a later
    /// pull tries again.
    pub(crate) fn note(&self, repository: &RepoName, digest: &Digest, now: i64) -> bool {
        let mut noted = self.lock();
        let key = (repository.clone(), *digest);
        if noted.at.get(&key).is_some_and(|&at| !self.is_due(at, now)) {
            return true;
        }
        if noted.at.len() >= MOST {
            // Only what waits has to stay; the others could be written once too often.
            if noted.waiting.len() >= MOST / 2 {
                return false;
            }
            let Noted { at, waiting } = &mut *noted;
            at.clear();
            at.extend(waiting.iter().map(|key| (key.clone(), now)));
        }
        noted.at.insert(key.clone(), now);
        noted.waiting.push(key);
        true
    }

    /// Takes what is to be written.
    pub(crate) fn take(&self) -> Vec<Key> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Puts back what could not be written, as far as there is room.
    pub(crate) fn put_back(&self, keys: Vec<Key>) {
        let mut noted = self.lock();
        let room = (MOST / 2).saturating_sub(noted.waiting.len());
        noted.waiting.extend(keys.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use registry_core::digest::{Algorithm, Digest};

    use super::{MOST, Pulls};

    fn digest(number: usize) -> Digest {
        let mut raw = [0; 32];
        raw[..8].copy_from_slice(&number.to_be_bytes());
        Digest::from_raw(Algorithm::Sha256, &raw).unwrap()
    }

    #[test]
    fn a_pull_counts_once_in_a_while() {
        let check = |lease: i64, pulls: &[i64], written: usize| {
            let noted = Pulls::new(lease);
            let name = "team/api".parse().unwrap();
            let mut count = 0;
            for &at in pulls {
                assert!(noted.note(&name, &digest(1), at));
                count += noted.take().len();
            }
            assert_eq!(count, written, "{lease} {pulls:?}");
        };
        check(86_400, &[1000, 1000, 1899], 1);
        check(86_400, &[1000, 1900], 2);
        check(40, &[1000, 1009, 1010, 1019, 1020], 3);
        check(0, &[1000, 1000, 1001], 2);
    }

    #[test]
    fn memory_has_a_limit() {
        let pulls = Pulls::new(86_400);
        let name = "team/api".parse().unwrap();
        let noted = (0..3 * MOST).filter(|&number| pulls.note(&name, &digest(number), 1000)).count();
        assert_eq!(noted, MOST, "what waits is never dropped");
        let waiting = pulls.take();
        assert_eq!(waiting.len(), MOST);
        pulls.put_back(waiting);
        assert_eq!(pulls.take().len(), MOST / 2);
        // Written, they make room.
        assert!(pulls.note(&name, &digest(3 * MOST), 1000));
        assert!(pulls.lock().at.len() <= MOST);
    }
}
