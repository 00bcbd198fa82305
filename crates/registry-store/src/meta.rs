//! Where rows live: SQLite in the data directory, or memory.

pub mod memory;
mod schema;
pub mod sqlite;
mod statements;

pub(crate) use statements::digest_from;
