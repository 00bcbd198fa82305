//! Shared truth of a cluster: the store on one node (SQLite) and its twin in memory, and sealed values. The only crate
//! that names a key of the store.

#[cfg(test)]
mod contract;
mod limits;
pub mod memory;
pub mod seal;
pub mod sqlite;
