//! Owns the store's twin in memory: for simulations and tests of what is built on [`Kv`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use om_core::kv::{Answer, Changed, Compare, Entry, KeyRange, Kv, KvError, Op, Outcome, Rev, Watch, WatchMsg};
use tokio::sync::watch;

use crate::limits::{bounds, check};

/// A store that is gone with its process. Clones are the same store.
#[derive(Clone)]
pub struct MemoryKv {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<Rev>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    rev: Rev,
    compacted: Rev,
    log: VecDeque<(Rev, Vec<Changed>)>,
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self { state: Arc::default(), newest: watch::Sender::new(Rev(0)) }
    }
}

impl State {
    fn holds(&self, condition: &Compare) -> bool {
        match condition {
            Compare::Absent(key) => !self.entries.contains_key(key.as_str()),
            Compare::Modified(key, rev) => self.entries.get(key.as_str()).is_some_and(|entry| entry.modified == *rev),
        }
    }

    fn apply(&mut self, changes: Vec<Op>) {
        let rev = Rev(self.rev.0 + 1);
        let mut changed = Vec::new();
        for change in changes {
            match change {
                Op::Put(key, value) => {
                    let (key, value): (Arc<str>, Arc<[u8]>) = (key.into(), value.into());
                    let created = self.entries.get(&key).map_or(rev, |entry| entry.created);
                    let entry = Entry { key: key.clone(), value: value.clone(), created, modified: rev };
                    self.entries.insert(key.clone(), entry);
                    changed.push((key, Some(value)));
                }
                Op::Delete(key) => {
                    if let Some(entry) = self.entries.remove(key.as_str()) {
                        changed.push((entry.key, None));
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.rev = rev;
            self.log.push_back((rev, changed));
        }
    }
}

impl MemoryKv {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemoryKv {
    fn range(&self, range: KeyRange) -> Answer<'_, (Vec<Entry>, Rev)> {
        let state = self.state();
        let entries = match bounds(&range) {
            (key, None) => state.entries.get(key.as_str()).cloned().into_iter().collect(),
            (from, Some(to)) => {
                let all = state.entries.range::<str, _>((
                    std::ops::Bound::Included(from.as_str()),
                    std::ops::Bound::Excluded(to.as_str()),
                ));
                all.map(|(_, entry)| entry.clone()).collect()
            }
        };
        let rev = state.rev;
        Box::pin(std::future::ready(Ok((entries, rev))))
    }

    fn txn(&self, conditions: Vec<Compare>, changes: Vec<Op>) -> Answer<'_, Outcome> {
        let answer = check(&conditions, &changes).map(|()| {
            let mut state = self.state();
            let done = conditions.iter().all(|condition| state.holds(condition));
            if done {
                state.apply(changes);
            }
            self.newest.send_replace(state.rev);
            Outcome { done, rev: state.rev }
        });
        Box::pin(std::future::ready(answer))
    }

    fn watch(&self, range: KeyRange, from: Rev) -> Box<dyn Watch> {
        Box::new(MemoryWatch { kv: self.clone(), range, from, newest: self.newest.subscribe() })
    }

    fn compact(&self, rev: Rev) -> Answer<'_, ()> {
        let mut state = self.state();
        state.compacted = state.compacted.max(Rev(rev.0.saturating_sub(1)).min(state.rev));
        let compacted = state.compacted;
        state.log.retain(|(rev, _)| *rev > compacted);
        Box::pin(std::future::ready(Ok(())))
    }

    fn generation(&self) -> u64 {
        1
    }
}

struct MemoryWatch {
    kv: MemoryKv,
    range: KeyRange,
    from: Rev,
    newest: watch::Receiver<Rev>,
}

impl MemoryWatch {
    fn look(&mut self) -> Option<WatchMsg> {
        let state = self.kv.state();
        if self.from < state.compacted {
            return Some(WatchMsg::Compacted(state.compacted));
        }
        let (first, end) = bounds(&self.range);
        let inside = |key: &str| match &end {
            None => key == first,
            Some(end) => key >= first.as_str() && key < end.as_str(),
        };
        let begin = state.log.partition_point(|(rev, _)| *rev <= self.from);
        for (rev, changes) in state.log.range(begin..) {
            self.from = *rev;
            let changes: Vec<Changed> = changes.iter().filter(|(key, _)| inside(key)).cloned().collect();
            if !changes.is_empty() {
                return Some(WatchMsg::Batch(*rev, changes));
            }
        }
        None
    }
}

impl Watch for MemoryWatch {
    fn next(&mut self) -> Answer<'_, WatchMsg> {
        Box::pin(async move {
            loop {
                self.newest.borrow_and_update();
                if let Some(message) = self.look() {
                    return Ok(message);
                }
                let ended = |_| KvError::Failed("watch a store that has ended".into());
                self.newest.changed().await.map_err(ended)?;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        contract::all(|| async { MemoryKv::default() }).await;
    }
}
