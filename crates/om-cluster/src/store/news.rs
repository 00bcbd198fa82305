//! Owns what the engine asks of the shared state, and the news that it follows: [`Truth`] on any store. A watch is only a
//! hint; every change compares with what was read.

use om_core::{
    kv::{Answer, Compare, Entry, KeyRange, KvError, Op, Rev, Watch, WatchMsg},
    path::{NodeName, ObjectPath},
    truth::{Fact, News, Truth},
    view::{Owner, Report, Session, Want},
};

use super::{Store, StoreError, TRIES, as_seen, wire};
use crate::keys::{self, Key};

impl Truth for Store {
    fn list(&self) -> Answer<'_, (Vec<Fact>, Rev)> {
        Box::pin(async move {
            let (entries, rev) = self.kv.range(KeyRange::Prefix(keys::ROOT.into())).await?;
            Ok((entries.iter().filter_map(|entry| fact(&entry.key, Some(entry))).collect(), rev))
        })
    }

    fn watch(&self, from: Rev) -> Box<dyn News> {
        Box::new(StoreNews(self.kv.watch(KeyRange::Prefix(keys::ROOT.into()), from)))
    }

    fn want<'a>(&'a self, path: &'a ObjectPath, seen: Rev, want: Want) -> Answer<'a, bool> {
        Box::pin(async move {
            // The object may be changed in between without being gone: only then it is worth another try.
            for _ in 0..TRIES {
                let Some(config) = self.get(&Key::Config(path.clone()).name()).await? else { return Ok(false) };
                if self.put_want(path, config.modified, seen, &want).await.map_err(plain)?.done {
                    return Ok(true);
                }
                let now = self.get(&Key::Want(path.clone()).name()).await?.map_or(Rev(0), |entry| entry.modified);
                if now != seen {
                    return Ok(false);
                }
            }
            Ok(false)
        })
    }

    fn own<'a>(
        &'a self,
        path: &'a ObjectPath,
        seen: Option<Rev>,
        owner: Owner,
        session: Option<(NodeName, Rev)>,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            let key = Key::Owner(path.clone()).name();
            let mut conditions = vec![as_seen(key.clone(), seen)];
            if let Some((node, rev)) = session {
                conditions.push(Compare::Modified(Key::Session(node).name(), rev));
            }
            Ok(self.txn(conditions, vec![Op::Put(key, wire::put_owner(&owner))]).await?.done)
        })
    }

    fn report<'a>(&'a self, path: &'a ObjectPath, node: &'a NodeName, report: Option<Report>) -> Answer<'a, ()> {
        Box::pin(async move {
            let key = Key::Report(path.clone(), node.clone()).name();
            let Some(report) = report else {
                self.txn(Vec::new(), vec![Op::Delete(key)]).await?;
                return Ok(());
            };
            let record = wire::put_report(&report);
            for _ in 0..TRIES {
                // A report that comes late must not outlive its object.
                let config = Key::Config(path.clone()).name();
                let Some(seen) = self.get(&config).await? else { return Ok(()) };
                let conditions = vec![Compare::Modified(config, seen.modified)];
                if self.txn(conditions, vec![Op::Put(key.clone(), record.clone())]).await?.done {
                    return Ok(());
                }
            }
            Err(KvError::Failed(format!("report on {path}: it changes all the time")))
        })
    }

    fn session<'a>(&'a self, node: &'a NodeName, seen: Option<Rev>, session: Session) -> Answer<'a, Option<Rev>> {
        Box::pin(async move {
            let key = Key::Session(node.clone()).name();
            let change = vec![Op::Put(key.clone(), wire::put_session(&session))];
            let outcome = self.txn(vec![as_seen(key, seen)], change).await?;
            Ok(outcome.done.then_some(outcome.rev))
        })
    }

    fn forget<'a>(&'a self, path: &'a ObjectPath, generation: u64, want: Rev) -> Answer<'a, bool> {
        Box::pin(async move {
            match self.config(path).await.map_err(plain)? {
                Some(config) if config.generation == generation => {
                    self.remove(path, config.rev, Some(want)).await.map_err(plain)
                }
                _ => Ok(false),
            }
        })
    }
}

fn plain(error: StoreError) -> KvError {
    match error {
        StoreError::Kv(error) => error,
        other => KvError::Failed(other.to_string()),
    }
}

/// What a key says; none: nothing that the engine asks for. A damaged record is told in the log and left out: one of
/// them must not stop everything else.
fn fact(name: &str, entry: Option<&Entry>) -> Option<Fact> {
    let read = || -> Result<Option<Fact>, StoreError> {
        Ok(Some(match Key::parse(name) {
            Some(Key::Config(path)) => Fact::Object(path, entry.map(wire::object).transpose()?),
            Some(Key::Want(path)) => Fact::Want(path, entry.map(wire::want).transpose()?),
            Some(Key::Owner(path)) => Fact::Owner(path, entry.map(wire::owner).transpose()?),
            Some(Key::Report(path, node)) => Fact::Report(path, node, entry.map(wire::report).transpose()?),
            Some(Key::Session(node)) => Fact::Session(node, entry.map(wire::session).transpose()?),
            Some(Key::Value(..) | Key::Node(_)) | None => return Ok(None),
        }))
    };
    read().unwrap_or_else(|error| {
        tracing::error!(key = name, error = %error, "a record of the store is damaged, and left out");
        None
    })
}

struct StoreNews(Box<dyn Watch>);

impl News for StoreNews {
    fn next(&mut self) -> Answer<'_, Option<Vec<Fact>>> {
        Box::pin(async move {
            loop {
                let (rev, changes) = match self.0.next().await? {
                    WatchMsg::Compacted(_) => return Ok(None),
                    WatchMsg::Batch(rev, changes) => (rev, changes),
                };
                let facts: Vec<Fact> = changes
                    .into_iter()
                    .filter_map(|(key, value)| {
                        let entry = value.map(|value| Entry { key: key.clone(), value, created: rev, modified: rev });
                        fact(&key, entry.as_ref())
                    })
                    .collect();
                if !facts.is_empty() {
                    return Ok(Some(facts));
                }
            }
        })
    }
}
