//! Owns the state of the cluster as one file, for callers. Does not own where they keep it, nor putting it back.

use std::fs;

use om_cluster::sqlite;

use crate::{api::server::Refusal, daemon::app::App};

impl App {
    /// The store as it is now, as a SQLite database. Secrets in it are sealed; the key that opens them is not part of it.
    ///
    /// # Errors
    /// It could not be copied, or there is no room for the copy.
    pub async fn backup(&self) -> Result<Vec<u8>, Refusal> {
        let (store, directory) = (self.places.store(), self.places.var.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let failed = |error: std::io::Error| Refusal::internal(format!("copy the store: {error}"));
            // Only root enters the directory.
            let copy = directory.join("store.copy");
            let _ = fs::remove_file(&copy);
            let cause = |error: &dyn std::error::Error| error.source().map(ToString::to_string).unwrap_or_default();
            let copied = sqlite::backup(&store, &copy)
                .map_err(|error| Refusal::internal(format!("copy the store: {error}: {}", cause(&error))))
                .and_then(|()| fs::read(&copy).map_err(failed));
            let _ = fs::remove_file(&copy);
            copied
        });
        copied.await.map_err(|error| Refusal::internal(format!("copy the store: {error}")))?
    }
}
