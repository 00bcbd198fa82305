//! Owns the ends of pushes: from the last byte to the row. No hang-up of a client cuts them, so that
//! no file is left behind that no row names. Does not own what they do (`api/uploads`,
//! `api/manifests`).

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::failure::Failure;

/// Pushes that end at a time; more wait. Each has an open file or a manifest in memory.
const MOST: u32 = 1024;
/// How long open ones may go on when the server ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Pushes that end.
#[derive(Debug)]
pub(crate) struct Commits {
    places: Arc<Semaphore>,
}

impl Commits {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST as usize)) }
    }

    /// Carries `work` out to its end, whether or not the caller waits for it. Nothing of it has
    /// happened if the caller stops waiting before it begins.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let task = tokio::spawn(async move {
            let _place = place;
            work.await
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the end of a push was cut off");
            Err(Failure::unavailable("the push was cut off; try again"))
        })
    }

    /// Waits, not for ever, until those under way have ended.
    pub(crate) async fn ended(&self) {
        if tokio::time::timeout(DRAIN, self.places.acquire_many(MOST)).await.is_err() {
            tracing::warn!("pushes are cut off at their end: the disk takes too long");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::Commits;

    #[tokio::test]
    async fn nothing_cuts_the_end_of_a_push() {
        let commits = Commits::new();
        let (go, wait) = oneshot::channel::<()>();
        let (say, done) = oneshot::channel();
        let work = commits.run(async move {
            wait.await.ok();
            say.send(()).ok();
            Ok(())
        });
        // The caller hangs up while the work waits.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), work).await.is_err());
        go.send(()).unwrap();
        commits.ended().await;
        done.await.expect("the work went on");
    }
}
