//! Where the bytes and rows of the registry live: files and SQLite, or memory.
//!
//! Owns every SQL statement and every path below the data directory. Knows neither HTTP nor users.

pub mod adopt;
pub mod backup;
pub mod blob;
pub mod check;
pub mod claims;
pub mod data_dir;
pub mod disk;
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod maintenance;
pub mod meta;
pub mod scrub;
pub mod verify;
