//! Where rows live: SQLite in the data directory, or memory.

pub(crate) mod adoption;
pub(crate) mod document;
mod history;
#[cfg(test)]
mod interleavings;
pub mod memory;
pub(crate) mod private;
mod quota;
pub(crate) mod readonly;
pub(crate) mod review;
pub(crate) mod schema;
pub mod sqlite;
pub(crate) mod statements;

pub(crate) use statements::digest_from;

/// Seconds since 1970, as rows say when they were written.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
