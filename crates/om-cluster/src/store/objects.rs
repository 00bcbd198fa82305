//! Owns configurations of objects, and what is wanted of them: create, change, delete. Does not read the texts.

use std::sync::Arc;

use om_core::{
    kv::{Compare, Op, Rev},
    path::ObjectPath,
    view::{At, Want},
};

use super::{Store, StoreError, TRIES, as_seen, wall_ms, wire};
use crate::{
    keys::{self, Key},
    limits::MAX_OPERATIONS,
};

/// The longest configuration, in bytes: leaves room for the line before it.
const MAX_TEXT: usize = 60 * 1024;
/// The most objects of one request.
const MAX_NEW: usize = 60;

/// The configuration of an object, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From 1; grows with every change, also of its keys.
    pub generation: u64,
    /// The text.
    pub text: Arc<str>,
    /// When it was changed; milliseconds since 1970.
    pub modified: u64,
    /// The revision to compare with.
    pub rev: Rev,
}

/// An object to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its name.
    pub path: ObjectPath,
    /// Its configuration, already checked.
    pub text: String,
    /// What is wanted of it from the start, such as to be frozen, so that no daemon starts it half-made.
    pub want: Option<Want>,
}

impl Store {
    /// The configuration of an object; none: there is no such object.
    ///
    /// # Errors
    /// The store did not answer, or the record is damaged.
    pub async fn config(&self, path: &ObjectPath) -> Result<Option<Config>, StoreError> {
        self.get(&Key::Config(path.clone()).name()).await?.map(|entry| wire::config(&entry)).transpose()
    }

    /// All configurations, sorted by path. Damaged records are left out, and told in the log.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn configs(&self) -> Result<Vec<(ObjectPath, Config)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.list_prefix(keys::CONFIGS).await? {
            match (Key::parse(&entry.key), wire::config(&entry)) {
                (Some(Key::Config(path)), Ok(config)) => found.push((path, config)),
                _ => tracing::error!(key = &*entry.key, "a record of the store is damaged, and left out"),
            }
        }
        Ok(found)
    }

    /// Makes objects, all or none.
    ///
    /// # Errors
    /// One is there already, or a text is too long.
    pub async fn create(&self, new: &[New]) -> Result<Vec<Config>, StoreError> {
        if new.len() > MAX_NEW {
            return Err(StoreError::TooLarge { what: "a list of objects".into(), size: new.len(), limit: MAX_NEW });
        }
        let modified = wall_ms();
        let (mut conditions, mut changes) = (Vec::new(), Vec::new());
        for New { path, text, want } in new {
            check_text(path, text)?;
            let key = Key::Config(path.clone()).name();
            conditions.push(Compare::Absent(key.clone()));
            changes.push(Op::Put(key, wire::put_config(1, text, modified)));
            // A want that outlived its object would be an order nobody gave.
            let want_key = Key::Want(path.clone()).name();
            changes.push(match want {
                Some(want) => Op::Put(want_key, wire::put_want(want)),
                None => Op::Delete(want_key),
            });
        }
        let outcome = self.txn(conditions, changes).await?;
        if outcome.done {
            let made = |new: &New| Config { generation: 1, text: new.text.as_str().into(), modified, rev: outcome.rev };
            return Ok(new.iter().map(made).collect());
        }
        for New { path, .. } in new {
            if self.config(path).await?.is_some() {
                return Err(StoreError::Exists(path.clone()));
            }
        }
        Err(StoreError::Changed("the list of objects".into()))
    }

    /// Replaces a configuration; the same text changes nothing. With `generation` only if that is still its number.
    ///
    /// # Errors
    /// It is not there, has another generation, or the text is too long.
    pub async fn update(&self, path: &ObjectPath, generation: Option<u64>, text: &str) -> Result<Config, StoreError> {
        check_text(path, text)?;
        for _ in 0..TRIES {
            let seen = self.config(path).await?.ok_or_else(|| StoreError::Missing(path.clone()))?;
            if generation.is_some_and(|expected| expected != seen.generation) {
                return Err(StoreError::Changed(path.to_string()));
            }
            if *seen.text == *text {
                return Ok(seen);
            }
            let (key, modified) = (Key::Config(path.clone()).name(), wall_ms());
            let change = Op::Put(key.clone(), wire::put_config(seen.generation + 1, text, modified));
            let outcome = self.txn(vec![Compare::Modified(key, seen.rev)], vec![change]).await?;
            if outcome.done {
                let generation = seen.generation + 1;
                return Ok(Config { generation, text: text.into(), modified, rev: outcome.rev });
            }
        }
        Err(StoreError::Changed(path.to_string()))
    }

    /// Removes an object with everything that is known of it; false: it is not there. With `generation` only if that is
    /// still its number. What it runs or holds on nodes is not touched: the engine sees to that first, see
    /// [`om_core::truth::Truth::forget`].
    ///
    /// # Errors
    /// It has another generation.
    pub async fn delete(&self, path: &ObjectPath, generation: Option<u64>) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let Some(seen) = self.config(path).await? else { return Ok(false) };
            if generation.is_some_and(|expected| expected != seen.generation) {
                return Err(StoreError::Changed(path.to_string()));
            }
            if self.remove(path, seen.rev, None).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Changed(path.to_string()))
    }

    /// Removes an object if its configuration, and with `want` what is wanted of it, are as they were seen.
    pub(super) async fn remove(&self, path: &ObjectPath, seen: Rev, want: Option<Rev>) -> Result<bool, StoreError> {
        let mut conditions = vec![Compare::Modified(Key::Config(path.clone()).name(), seen)];
        if let Some(want) = want {
            conditions.push(as_seen(Key::Want(path.clone()).name(), Some(want)));
        }
        let mut parts = self.list_prefix(&keys::values_of(path)).await?;
        parts.extend(self.list_prefix(&keys::reports_of(path)).await?);
        let mut changes: Vec<Op> = parts.iter().map(|entry| Op::Delete(entry.key.to_string())).collect();
        // Who adds a key or a report compares with the configuration, so none is added behind the last of these.
        while changes.len() > MAX_OPERATIONS - 3 {
            let rest = changes.split_off(MAX_OPERATIONS - 3);
            if !self.txn(conditions.clone(), changes).await?.done {
                return Ok(false);
            }
            changes = rest;
        }
        let records = [Key::Config(path.clone()), Key::Want(path.clone()), Key::Owner(path.clone())];
        changes.extend(records.iter().map(|key| Op::Delete(key.name())));
        Ok(self.txn(conditions, changes).await?.done)
    }

    /// What is wanted of an object; revision 0: nothing ever was.
    ///
    /// # Errors
    /// The store did not answer, or the record is damaged.
    pub async fn wanted(&self, path: &ObjectPath) -> Result<At<Want>, StoreError> {
        let found = self.get(&Key::Want(path.clone()).name()).await?.map(|entry| wire::want(&entry)).transpose()?;
        Ok(found.unwrap_or(At { value: Want::default(), rev: Rev(0) }))
    }

    /// Changes what is wanted of an object: `change` is given what is wanted, and answers what is wanted from now on, or
    /// why not. It may be called again when something else was changed meanwhile.
    ///
    /// # Errors
    /// The object is not there; what `change` says; too many changes at once.
    pub async fn change_want<E: From<StoreError>>(
        &self,
        path: &ObjectPath,
        change: impl Fn(&Want) -> Result<Want, E>,
    ) -> Result<At<Want>, E> {
        for _ in 0..TRIES {
            let config = self.config(path).await?.ok_or_else(|| StoreError::Missing(path.clone()))?;
            let seen = self.wanted(path).await?;
            let value = change(&seen.value)?;
            if value == seen.value {
                return Ok(seen);
            }
            let outcome = self.put_want(path, config.rev, seen.rev, &value).await?;
            if outcome.done {
                return Ok(At { value, rev: outcome.rev });
            }
        }
        Err(StoreError::Changed(path.to_string()).into())
    }

    pub(super) async fn put_want(
        &self,
        path: &ObjectPath,
        config: Rev,
        seen: Rev,
        want: &Want,
    ) -> Result<om_core::kv::Outcome, StoreError> {
        let key = Key::Want(path.clone()).name();
        let exists = Compare::Modified(Key::Config(path.clone()).name(), config);
        let conditions = vec![exists, as_seen(key.clone(), Some(seen))];
        Ok(self.txn(conditions, vec![Op::Put(key, wire::put_want(want))]).await?)
    }
}

fn check_text(path: &ObjectPath, text: &str) -> Result<(), StoreError> {
    if text.len() > MAX_TEXT {
        let what = format!("the configuration of {path}");
        return Err(StoreError::TooLarge { what, size: text.len(), limit: MAX_TEXT });
    }
    Ok(())
}
