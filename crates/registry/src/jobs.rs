//! Owns the work that a serving registry does beside requests, each piece small and repeatable.

use std::{sync::Arc, time::Duration};

use registry_core::store::{Change, StoreError};
use registry_store::{blob::fs::FsBlobs, claims::Claims, maintenance::settle, meta::sqlite::SqliteMetadata};
use service::shutdown::Shutdown;
use tokio::time::{Instant, sleep};

use crate::{app::App, config::settings::UploadPurging, failure::Chain};

/// How long objects rest in the metadata before they move to their files, in seconds. Bursts of
/// pushes end before it begins.
const SETTLE_AGE: i64 = 10;
/// Objects that move at a time.
const SETTLE_BATCH: usize = 64;
/// Moving takes at most one part in so many of the time, so that requests have the disk.
const SETTLE_SHARE: u32 = 5;
/// How often idle uploads are looked for.
const PARK_EVERY: Duration = Duration::from_secs(60);
/// Seconds without a byte after which an upload leaves memory.
const PARK_AFTER: i64 = 600;

/// Events of a receiver that may wait; about a kilobyte each.
const WAITING_EVENTS: usize = 100_000;
/// Dead letters that are kept.
const DEAD_LETTERS: usize = 100_000;
/// How often the outbox is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How often pulls are written down.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Pulls that are written in one change.
const NOTES: usize = 1000;

/// Waits, or learns that it is over.
pub(crate) async fn pause(shutdown: &Shutdown, length: Duration) -> bool {
    tokio::select! {
        () = sleep(length) => true,
        () = shutdown.requested() => false,
    }
}

/// Moves small objects to their files.
pub(crate) async fn settle_objects(metadata: Arc<SqliteMetadata>, blobs: FsBlobs, claims: Claims, shutdown: Shutdown) {
    let mut rest = Duration::from_secs(1);
    while pause(&shutdown, rest).await {
        let started = Instant::now();
        rest = match settle(&metadata, &blobs, &claims, SETTLE_AGE, SETTLE_BATCH).await {
            Ok(moved) => {
                if moved > 0 {
                    tracing::debug!(moved, "objects moved to their files");
                }
                let rest = started.elapsed() * SETTLE_SHARE;
                if moved < SETTLE_BATCH { rest.max(Duration::from_secs(1)) } else { rest }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "move objects to their files; they stay in the metadata");
                Duration::from_secs(60)
            }
        };
    }
}

/// Moves idle uploads from memory to their files.
pub(crate) async fn park_uploads(app: Arc<App>, shutdown: Shutdown) {
    while pause(&shutdown, PARK_EVERY).await {
        park(&app, PARK_AFTER).await;
    }
}

/// Parks the uploads that were idle for so many seconds.
pub(crate) async fn park(app: &App, idle: i64) {
    for session in app.sessions.idle(idle) {
        if let Err(error) = app.sessions.park(&*app.blobs, &session, idle).await {
            tracing::warn!(error = %Chain(&error), "an idle upload is dropped");
            app.sessions.forget(&session.id);
        }
    }
}

/// Keeps a receiver's queue within bounds while it is away.
pub(crate) async fn trim_outbox(app: Arc<App>, endpoint: String, shutdown: Shutdown) {
    while pause(&shutdown, TRIM_EVERY).await {
        match app.metadata.trim_outbox(&endpoint, WAITING_EVENTS, DEAD_LETTERS).await {
            Ok(0) => {}
            Ok(buried) => tracing::error!(endpoint, buried, "too many events wait: the oldest became dead letters"),
            Err(error) => tracing::error!(error = %Chain(&error), "trim the outbox"),
        }
    }
}

/// Writes down which manifests were pulled, so that no pull has to wait for that.
pub(crate) async fn write_pulls(app: Arc<App>, shutdown: Shutdown) {
    while pause(&shutdown, NOTE_EVERY).await {
        write_pulls_now(&app).await;
    }
}

/// Writes down the pulls that were noted until now.
pub(crate) async fn write_pulls_now(app: &App) {
    let mut noted = app.pulls.take();
    while !noted.is_empty() {
        let some = noted.split_off(noted.len().saturating_sub(NOTES));
        let change = Change::Used(some.iter().map(|(name, digest)| (name.clone(), *digest, true)).collect());
        match app.metadata.apply(change, Vec::new()).await {
            Ok(()) => {}
            // Until a restart nothing is written any more, nor collected.
            Err(StoreError::Poisoned) => return,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "pulls are not written down; another try follows");
                noted.extend(some);
                app.pulls.put_back(noted);
                return;
            }
        }
    }
}

/// Removes uploads that nobody came back to.
pub(crate) async fn purge_uploads(app: Arc<App>, purging: UploadPurging, shutdown: Shutdown) {
    // Not right at the start, when clients may be about to go on after a restart.
    let mut rest = purging.interval.min(Duration::from_secs(60));
    while pause(&shutdown, rest).await {
        rest = purging.interval;
        if app.is_read_only() {
            continue;
        }
        match app.blobs.purge_uploads(purging.age, purging.dry_run).await {
            Ok(purged) if purged.is_empty() => {}
            Ok(purged) if purging.dry_run => {
                tracing::info!(count = purged.len(), uploads = purged.join(" "), "abandoned uploads would be removed");
            }
            Ok(purged) => tracing::info!(count = purged.len(), "abandoned uploads removed"),
            Err(error) => tracing::error!(error = %Chain(&error), "remove abandoned uploads"),
        }
    }
}
