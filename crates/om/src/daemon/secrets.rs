//! Owns what callers do with keys of `cfg`, `sec` and `usr` objects. Values pass through and are neither kept nor logged.

use om_cluster::store::{Expect, KeyInfo};
use om_core::{config::resolve::is_match, driver::Secret, path::ObjectPath};

use crate::{
    api::{self, code, server::Refusal},
    daemon::{app::App, journal::Level, objects::of_store},
};

/// How often an appended value is read again when somebody else changed it meanwhile.
const TRIES: usize = 8;

impl App {
    /// Keys of an object.
    ///
    /// # Errors
    /// It is not there, or has none.
    pub async fn keys(&self, path: &ObjectPath, pattern: Option<&str>) -> Result<api::Keys, Refusal> {
        let keys = self.store.keys(path).await.map_err(|error| of_store(&format!("list keys of {path}"), &error))?;
        let keys = keys.into_iter().filter(|key| pattern.is_none_or(|pattern| is_match(pattern, &key.name)));
        let told = |key: KeyInfo| api::KeyInfo { size: key.size as u64, version: key.version, name: key.name };
        Ok(api::Keys { keys: keys.map(told).collect() })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// There is no such key.
    pub async fn value(&self, path: &ObjectPath, key: &str) -> Result<Secret, Refusal> {
        let what = format!("read key {key} of {path}");
        match self.store.value(path, key).await.map_err(|error| of_store(&what, &error))? {
            Some(value) => Ok(value.bytes),
            None => {
                self.config_of(path).await?;
                let kind = if path.kind == om_core::path::Kind::Cfg { "config" } else { "secret" };
                let text = format!("{kind} {path} key {key} does not exist or has no value");
                Err(Refusal::new(code::NOT_FOUND, text).hint(format!("om {path} keys")))
            }
        }
    }

    /// Writes the value of a key.
    ///
    /// # Errors
    /// It is there and must not be; it is too large.
    pub async fn put_value(
        &self,
        path: &ObjectPath,
        key: &str,
        mode: api::WriteMode,
        value: &[u8],
    ) -> Result<api::KeyChanged, Refusal> {
        let what = format!("write key {key} of {path}");
        let before = self.config_of(path).await?.generation;
        let size = match mode {
            api::WriteMode::Add => {
                self.store
                    .put_value(path, key, value, Expect::Absent)
                    .await
                    .map_err(|error| of_store(&what, &error))?;
                value.len()
            }
            api::WriteMode::Change => {
                self.store.put_value(path, key, value, Expect::Any).await.map_err(|error| of_store(&what, &error))?;
                value.len()
            }
            api::WriteMode::Append => self.append(path, key, value, &what).await?,
        };
        let changed = self.config_of(path).await?.generation != before;
        if changed {
            self.journal.say(Level::Info, Some(path), None, format!("key '{key}' written ({size} bytes)"));
        }
        Ok(api::KeyChanged { changed, size: size as u64 })
    }

    async fn append(&self, path: &ObjectPath, key: &str, value: &[u8], what: &str) -> Result<usize, Refusal> {
        for _ in 0..TRIES {
            let old = self.store.value(path, key).await.map_err(|error| of_store(what, &error))?;
            let (mut whole, expect) = match old {
                Some(old) => (old.bytes.0, Expect::Version(old.version)),
                None => (Vec::new(), Expect::Absent),
            };
            whole.extend_from_slice(value);
            match self.store.put_value(path, key, &whole, expect).await {
                Ok(_) => return Ok(whole.len()),
                Err(om_cluster::StoreError::Changed(_) | om_cluster::StoreError::KeyExists { .. }) => {}
                Err(error) => return Err(of_store(what, &error)),
            }
        }
        Err(Refusal::new(code::CONFLICT, format!("cannot {what}: it is changed again and again")))
    }

    /// Removes a key; one that is not there is none to remove.
    ///
    /// # Errors
    /// The object is not there.
    pub async fn remove_value(&self, path: &ObjectPath, key: &str) -> Result<api::KeyChanged, Refusal> {
        let what = format!("remove key {key} of {path}");
        let changed = self.store.remove_value(path, key).await.map_err(|error| of_store(&what, &error))?;
        if changed {
            self.journal.say(Level::Info, Some(path), None, format!("key '{key}' removed"));
        }
        Ok(api::KeyChanged { changed, size: 0 })
    }
}
