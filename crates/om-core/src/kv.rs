//! Owns what the cluster's shared state is asked for: the trait [`Kv`], which SQLite, etcd and the simulator have in
//! common. Nothing expires and nothing is locked: all agreement is made of [`Kv::txn`].

use std::{future::Future, pin::Pin, sync::Arc};

/// A revision of the whole state: every transaction that changes something makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rev(pub u64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Such as `/om/1/cfg/test/svc/registry`; 1 KiB at most.
    pub key: Arc<str>,
    /// 64 KiB at most.
    pub value: Arc<[u8]>,
    /// The transaction that made the key.
    pub created: Rev,
    /// The one that changed it last.
    pub modified: Rev,
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One.
    Key(String),
    /// All that begin so.
    Prefix(String),
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(String),
    /// The key was changed last by this transaction.
    Modified(String, Rev),
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(String, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(String),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all conditions held, and the changes were made.
    pub done: bool,
    /// The revision after it.
    pub rev: Rev,
}

/// A change of a key: its new value, or none where it was removed.
pub type Changed = (Arc<str>, Option<Arc<[u8]>>);

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMsg {
    /// One transaction's changes of the range, in order.
    Batch(Rev, Vec<Changed>),
    /// What it should have begun with is gone: list again, watch from there.
    Compacted(Rev),
}

/// A store that did not do it.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Whether it was done is unknown: read back.
    #[error("{0}: whether it was done is unknown")]
    Unknown(String),
    /// It was not done.
    #[error("{0}")]
    Failed(String),
    /// A key or value is over the limit.
    #[error("{0} is too large")]
    TooLarge(String),
}

/// The future of a request.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, KvError>> + Send + 'a>>;

/// A watch. Dropping it ends it.
pub trait Watch: Send {
    /// The next message; an error ends the watch.
    fn next(&mut self) -> Answer<'_, WatchMsg>;
}

/// The cluster's shared state.
pub trait Kv: Send + Sync {
    /// The entries of a range, sorted by key, and the revision they are of. Linearizable.
    fn range(&self, range: KeyRange) -> Answer<'_, (Vec<Entry>, Rev)>;
    /// Makes all changes if all conditions hold, else none; durable when it answers.
    fn txn(&self, conditions: Vec<Compare>, changes: Vec<Op>) -> Answer<'_, Outcome>;
    /// The changes of a range after `from`.
    fn watch(&self, range: KeyRange, from: Rev) -> Box<dyn Watch>;
    /// Forgets changes before `rev` that no watch needs.
    fn compact(&self, rev: Rev) -> Answer<'_, ()>;
    /// Grows whenever the state was put back or moved: a token of before must never count again.
    fn generation(&self) -> u64;
}
