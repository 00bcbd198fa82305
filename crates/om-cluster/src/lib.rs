//! Shared truth of a cluster: the store on one node (SQLite) and its twin in memory, sealed values, and typed
//! repositories on top. The only crate that names a key of the store.

#[cfg(test)]
mod contract;
mod keys;
mod limits;
pub mod memory;
pub mod seal;
pub mod sqlite;
pub mod store;

pub use store::{Store, StoreError};
