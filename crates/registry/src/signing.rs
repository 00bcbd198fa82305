//! Owns the housekeeping of signing keys: when a new one takes over, and when an old one goes.
//!
//! Does not own what a key signs, nor how one is made (`registry-auth`).

use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};

use registry_auth::{SetupError, issuer::Key};
use registry_core::directory::{Directory, Edit, MAX_KEYS, SigningKey};
use service::shutdown::Shutdown;

use crate::{app::now, failure::Chain, live::LiveDirectory};

const DAY: i64 = 24 * 3600;
/// How long a key signs.
const SIGNS_FOR: i64 = 30 * DAY;
/// How long a key is kept once another one signs: nothing that it signed lives longer.
const KEPT_FOR: i64 = 400 * DAY;
/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What makes `fresh` the key that signs. Where there are as many as there may be, the oldest goes.
pub(crate) fn takeover(directory: &Directory, mut fresh: SigningKey) -> Vec<Edit> {
    let keys = directory.keys();
    let oldest = keys.first().filter(|_| keys.len() >= MAX_KEYS);
    // Whoever signs looks for the newest: that is the last, whatever the clock says.
    fresh.created_at = keys.last().map_or(fresh.created_at, |last| fresh.created_at.max(last.created_at + 1));
    let gone = oldest.map(|key| Edit::RemoveKey(key.id.clone()));
    gone.into_iter().chain([Edit::AddKey(fresh)]).collect()
}

/// What there is to do at `now`: `fresh` signs from now on if there is no key, or if the newest one
/// has signed for long enough; keys go once nothing that they signed can be alive.
///
/// A key from the future stays: the clock is wrong now, or was when the key was made, and another
/// key at each start of a machine without a clock would push out those that are in use.
pub(crate) fn key_edits(directory: &Directory, now: i64, fresh: SigningKey) -> Vec<Edit> {
    let keys = directory.keys();
    // A key signs until the next one is made.
    let ended = keys.windows(2).take_while(|pair| now - pair[1].created_at > KEPT_FOR);
    let mut edits: Vec<Edit> = ended.map(|pair| Edit::RemoveKey(pair[0].id.clone())).collect();
    if keys.last().is_none_or(|newest| now - newest.created_at > SIGNS_FOR) {
        for edit in takeover(directory, fresh) {
            // The oldest is the first to go either way.
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
    }
    edits
}

/// A key as it is made at `now`.
pub(crate) fn new_key(now: i64) -> Result<SigningKey, SetupError> {
    let Key { id, pkcs8, created_at } = Key::generate(now)?;
    Ok(SigningKey { id, pkcs8, created_at })
}

/// Looks after the keys, at once and then daily, until shutdown.
pub(crate) async fn keep_keys(live: Arc<LiveDirectory>, shutdown: Shutdown) {
    loop {
        if let Err(error) = look(&live, now()).await {
            tracing::error!(error = %Chain(&*error), "look after the signing keys; tried again in a day");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}

async fn look(live: &Arc<LiveDirectory>, now: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let fresh = new_key(now)?;
    let plan = |directory: &Directory| {
        let edits = key_edits(directory, now, fresh.clone());
        let signs = edits.iter().any(|edit| matches!(edit, Edit::AddKey(_)));
        Ok::<_, Infallible>((edits, signs))
    };
    if live.edit(plan, now).await? {
        tracing::info!(key = fresh.id, "tokens are signed with a new key");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use registry_core::directory::{Directory, Edit, SigningKey};

    use super::{DAY, key_edits, look, takeover};
    use crate::live::{LiveDirectory, tests::Shelf};

    fn key(day: i64) -> SigningKey {
        SigningKey { id: format!("k{day}"), pkcs8: Vec::new(), created_at: day * DAY }
    }

    fn with(days: &[i64]) -> Directory {
        let edits: Vec<Edit> = days.iter().map(|day| Edit::AddKey(key(*day))).collect();
        Directory::new("test".into()).edited(&edits, 0).unwrap()
    }

    /// Days on which the keys of a directory were made, and what happens to them on day `today`.
    fn check(days: &[i64], today: i64, expected: &[i64]) {
        let before = with(days);
        let after = before.edited(&key_edits(&before, today * DAY, key(today)), 0).unwrap();
        let left: Vec<i64> = after.keys().iter().map(|key| key.created_at / DAY).collect();
        assert_eq!(left, expected, "{days:?} on day {today}");
    }

    #[test]
    fn keys_take_turns() {
        check(&[], 5, &[5]);
        check(&[5], 5, &[5]);
        check(&[5], 35, &[5]);
        check(&[5], 36, &[5, 36]);
        // The old one signed until just now, however old it is.
        check(&[5], 5000, &[5, 5000]);
        check(&[5, 36], 436, &[5, 36, 436]);
        check(&[5, 36, 430], 437, &[36, 430]);
        check(&[5, 36, 66], 1000, &[66, 1000]);
        // A clock that is wrong moves nothing.
        check(&[5, 36], 1, &[5, 36]);
        let many: Vec<i64> = (100..116).collect();
        check(&many, 120, &many);
        let shifted: Vec<i64> = (101..116).chain([200]).collect();
        check(&many, 200, &shifted);
    }

    #[test]
    fn a_rotation_by_hand_always_has_room() {
        let mut directory = with(&[0]);
        for day in 1..40 {
            directory = directory.edited(&takeover(&directory, key(day)), 0).unwrap();
            assert_eq!(directory.keys().last().unwrap().id, format!("k{day}"));
        }
        // Even in the same second, and with a clock that was set back.
        for day in [40, 40, 3] {
            directory = directory.edited(&takeover(&directory, key(day)), 0).unwrap();
            let newest = directory.keys().iter().max_by_key(|key| key.created_at).unwrap();
            assert_eq!(newest, directory.keys().last().unwrap());
            assert_eq!(newest.id, format!("k{day}"));
        }
    }

    #[tokio::test]
    async fn keys_are_made_and_kept() {
        let shelf = Arc::new(Shelf::default());
        let live = LiveDirectory::initialise(shelf, "test".into(), &[], 0).await.unwrap();
        for (day, keys) in [(1, 1), (2, 1), (40, 2), (41, 2), (500, 2)] {
            look(&live, day * DAY).await.unwrap();
            assert_eq!(live.current().keys().len(), keys, "day {day}");
        }
    }

    #[test]
    fn a_year_of_days() {
        let mut directory = with(&[]);
        for day in 0..1200 {
            directory = directory.edited(&key_edits(&directory, day * DAY, key(day)), 0).unwrap();
            let newest = directory.keys().last().unwrap().created_at / DAY;
            assert!(day - newest <= 30);
            // What was signed up to 400 days ago can still be checked.
            let oldest = directory.keys()[0].created_at / DAY;
            assert!(oldest <= (day - 400).max(0), "day {day}: the oldest is {oldest}");
        }
    }
}
