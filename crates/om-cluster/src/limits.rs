//! Owns what a transaction may ask for; the same for every store, so that what fits into one fits into all.

use std::collections::HashSet;

use om_core::kv::{Compare, KeyRange, KvError, Op};

/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 1024;
/// The longest value, in bytes.
pub(crate) const MAX_VALUE: usize = 64 * 1024;
/// Most conditions and changes of one transaction, as etcd allows.
pub(crate) const MAX_OPERATIONS: usize = 128;

/// Refuses a transaction that no store takes.
pub(crate) fn check(conditions: &[Compare], changes: &[Op]) -> Result<(), KvError> {
    if conditions.len() > MAX_OPERATIONS || changes.len() > MAX_OPERATIONS {
        return Err(KvError::TooLarge("a transaction of more than 128 operations".into()));
    }
    let mut changed = HashSet::new();
    for key in changes.iter().map(key_of) {
        // etcd refuses it as well: which of them counts would depend on the order.
        if !changed.insert(key) {
            return Err(KvError::Failed(format!("change {key} twice in a transaction")));
        }
    }
    let keys = conditions.iter().map(|condition| match condition {
        Compare::Absent(key) | Compare::Modified(key, _) => key.as_str(),
    });
    for key in keys.chain(changed) {
        if key.len() > MAX_KEY {
            return Err(KvError::TooLarge(format!("a key of {} bytes", key.len())));
        }
        if key.is_empty() || !key.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(KvError::Failed(format!("use {key:?} as a key")));
        }
    }
    for change in changes {
        if let Op::Put(key, value) = change
            && value.len() > MAX_VALUE
        {
            return Err(KvError::TooLarge(format!("the value of {key}, with {} bytes,", value.len())));
        }
    }
    Ok(())
}

/// The key of a change.
pub(crate) fn key_of(change: &Op) -> &str {
    match change {
        Op::Put(key, _) | Op::Delete(key) => key,
    }
}

/// The first key of a range, and the first one after it; none: the range is one key.
pub(crate) fn bounds(range: &KeyRange) -> (String, Option<String>) {
    match range {
        KeyRange::Key(key) => (key.clone(), None),
        // Keys are printable ASCII, so that the next character sorts after all that begin so.
        KeyRange::Prefix(prefix) => (prefix.clone(), Some(format!("{prefix}\u{7f}"))),
    }
}
