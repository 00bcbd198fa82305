//! Owns what time it is for the collection, and whether that can be trusted.
//!
//! A promise carries the time of the clock on the wall. When that clock jumps, promises look older
//! or newer than they are; so nothing is collected until all that were given before the jump have
//! run out by a clock that cannot jump.

use std::time::Duration;

use registry_core::gc::advance;
use tokio::time::Instant;

/// Differences up to so many seconds are no jump: clocks are set right by a little now and then.
const TOLERANCE: i64 = 60;

/// The collection's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    /// What it said last, and when.
    last: Option<(i64, Instant)>,
    /// What an earlier process left.
    left: Option<i64>,
    still_until: Option<Instant>,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Seconds since 1970, never less than before.
    pub(crate) now: i64,
    /// By how many seconds the clock on the wall has just jumped; negative if backwards.
    pub(crate) jumped: Option<i64>,
    /// How long nothing may be collected yet.
    pub(crate) still: Option<Duration>,
}

impl Clock {
    /// A clock that goes on where an earlier process left it.
    pub(crate) fn new(left: Option<i64>) -> Self {
        Self { last: None, left, still_until: None }
    }

    /// What time it is if the clock on the wall says `wall` at the moment `at`. After a jump nothing
    /// may be collected for `stillness`.
    pub(crate) fn read(&mut self, wall: i64, at: Instant, stillness: Duration) -> Reading {
        let first = self.last.is_none();
        let expected = match self.last {
            Some((last, then)) => {
                Some(last.saturating_add(i64::try_from(at.duration_since(then).as_secs()).unwrap_or(i64::MAX)))
            }
            None => self.left,
        };
        let floor = self.last.map(|(last, _)| last).or(self.left);
        let (mut now, mut jumped) = advance(expected, wall, first);
        if expected.is_some_and(|expected| wall < expected && expected - wall <= TOLERANCE) {
            (now, jumped) = (wall.max(floor.unwrap_or(wall)), false);
        }
        self.last = Some((now, at));
        if jumped {
            self.still_until = Some(at + stillness);
        }
        let still = self.still_until.map(|until| until.duration_since(at)).filter(|left| !left.is_zero());
        if still.is_none() {
            self.still_until = None;
        }
        Reading { now, jumped: jumped.then(|| wall - expected.unwrap_or(wall)), still }
    }

    /// Believes the clock on the wall from now on.
    pub(crate) fn trust(&mut self) {
        *self = Self::new(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps() {
        // Each step: seconds that pass, what the wall says, the time, the jump, the stillness left.
        type Step = (u64, i64, i64, Option<i64>, Option<u64>);
        let check = |left: Option<i64>, steps: &[Step]| {
            let (mut clock, mut at) = (Clock::new(left), Instant::now());
            for step in steps {
                let &(pass, wall, now, jumped, still) = step;
                at += Duration::from_secs(pass);
                let seen = clock.read(wall, at, Duration::from_secs(100));
                let expected = Reading { now, jumped, still: still.map(Duration::from_secs) };
                assert_eq!(seen, expected, "{step:?} of {left:?} {steps:?}");
            }
        };
        check(None, &[(0, 10_000, 10_000, None, None), (60, 10_060, 10_060, None, None)]);
        // Away for long, and a pause of days between two readings.
        check(Some(10), &[(0, 900_000, 900_000, None, None), (300_000, 1_200_000, 1_200_000, None, None)]);
        // Set right by a little.
        check(Some(1000), &[(0, 990, 1000, None, None), (60, 1050, 1050, None, None), (10, 1040, 1050, None, None)]);
        // Backwards: time stands until the wall is there again, and then for as long as promises live.
        check(Some(5000), &[(0, 1000, 5000, Some(-4000), Some(100)), (50, 5050, 5050, None, Some(50))]);
        check(None, &[(0, 5000, 5000, None, None), (10, 10, 5010, Some(-5000), Some(100))]);
        check(
            None,
            &[
                (0, 5000, 5000, None, None),
                (10, 1_000_000, 8610, Some(994_990), Some(100)),
                (10, 1_000_010, 12_220, Some(991_390), Some(100)),
                (10, 12_230, 12_230, None, Some(90)),
                (90, 12_320, 12_320, None, None),
            ],
        );
    }
}
