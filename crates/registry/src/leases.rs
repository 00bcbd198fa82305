//! Owns the promises behind "this repository has it": when one has to be renewed, and that it is
//! before a client is told.
//!
//! A client that is told so by `HEAD` goes on without sending the object, so that the answer has to
//! hold until its push ends: for the length of a lease. Noted durably at most once in a quarter of
//! it; in between an answer costs no more than a look at the clock. Does not own what a lease does
//! to a collection (`registry_core::gc`).

use std::sync::atomic::{AtomicI64, Ordering};

use registry_core::store::{Change, Metadata, StoreError};

use crate::failure::Chain;

/// For how long promises hold, and when they are renewed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leases {
    quarter: i64,
}

impl Leases {
    /// With leases of so many seconds.
    pub(crate) fn new(lease: i64) -> Self {
        Self { quarter: lease / 4 }
    }

    /// Whether what was promised at `used_at` has to be promised anew at `now`.
    pub(crate) fn is_due(self, used_at: i64, now: i64) -> bool {
        now.saturating_sub(used_at) >= self.quarter
    }

    /// Makes the promise that `change` notes, unless the one of `used_at` is young enough.
    ///
    /// # Errors
    /// `Refused` if the object went meanwhile; else what the store says.
    pub(crate) async fn promise(
        self,
        metadata: &dyn Metadata,
        used_at: &AtomicI64,
        now: i64,
        change: impl FnOnce() -> Change,
    ) -> Result<(), StoreError> {
        if !self.is_due(used_at.load(Ordering::Relaxed), now) {
            return Ok(());
        }
        match metadata.apply(change(), Vec::new()).await {
            Ok(()) => {
                used_at.fetch_max(now, Ordering::Relaxed);
                Ok(())
            }
            // Nothing is written any more, so nothing is collected either; and reads go on.
            Err(StoreError::Poisoned) => {
                tracing::debug!(error = %Chain(&StoreError::Poisoned), "an answer goes without a lease");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Leases;

    #[test]
    fn promises_are_renewed_once_in_a_quarter() {
        let check = |lease: i64, age: i64, due: bool| {
            let now = 1_000_000;
            assert_eq!(Leases::new(lease).is_due(now - age, now), due, "{age} s of {lease} s");
        };
        check(400, 0, false);
        check(400, 99, false);
        check(400, 100, true);
        check(400, 1_000_000, true);
        // A clock that went back: the promise lasts all the longer.
        check(400, -5, false);
        // Leases of nothing are for tests that collect at once.
        check(0, 0, true);
        check(3, 0, true);
        check(4, 0, false);
    }
}
