//! Owns keys of `cfg`, `sec` and `usr` objects: names, versions, values; those of `sec` and `usr` are sealed. Does not
//! own who may read them.

use om_core::{
    driver::Secret,
    kv::{Compare, Entry, Op},
    path::{Kind, ObjectPath},
};

use super::{Store, StoreError, TRIES, wall_ms, wire};
use crate::{
    keys::{self, Key},
    limits::MAX_VALUE,
    seal::{self, SealError, Subject},
};

/// Format, whether it is sealed, version.
const HEAD: usize = 1 + 1 + 8;
/// The largest value, in bytes.
pub const MAX_KEY_VALUE: usize = MAX_VALUE - HEAD - seal::OVERHEAD;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;

/// A key, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name; may have slashes.
    pub name: String,
    /// Bytes of its value.
    pub size: usize,
    /// From 1; grows with every change.
    pub version: u64,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Secret,
    /// From 1; grows with every change.
    pub version: u64,
}

/// What must be there for a value to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// Whatever.
    Any,
    /// This version of the value.
    Version(u64),
}

impl Store {
    /// The keys of an object, sorted.
    ///
    /// # Errors
    /// The object is not there, or has no keys.
    pub async fn keys(&self, path: &ObjectPath) -> Result<Vec<KeyInfo>, StoreError> {
        if !path.kind.is_key_store() {
            return Err(StoreError::NoKeys(path.clone()));
        }
        if self.config(path).await?.is_none() {
            return Err(StoreError::Missing(path.clone()));
        }
        let prefix = keys::values_of(path);
        let info = |entry: Entry| {
            let frame = Frame::read(&entry)?;
            let size = frame.body.len().saturating_sub(if frame.sealed { seal::OVERHEAD } else { 0 });
            Ok(KeyInfo { name: entry.key[prefix.len()..].to_owned(), size, version: frame.version })
        };
        self.list_prefix(&prefix).await?.into_iter().map(info).collect()
    }

    /// The value of a key; none: there is no such key, or no such object.
    ///
    /// # Errors
    /// It does not open, or the object has no keys.
    pub async fn value(&self, path: &ObjectPath, key: &str) -> Result<Option<Value>, StoreError> {
        check_name(path, key)?;
        let Some(entry) = self.get(&Key::Value(path.clone(), key.into()).name()).await? else { return Ok(None) };
        let Frame { sealed, version, body } = Frame::read(&entry)?;
        // A clear value put in the place of a sealed one is no value.
        if sealed != is_sealed(path.kind) {
            return Err(StoreError::Damaged(entry.key.to_string()));
        }
        let bytes = if sealed {
            let name = subject_name(path);
            let subject = self.subject(subject(path, &name, key, version));
            self.key.open(&subject, body).map_err(|source| sealing(path, key, source))?
        } else {
            body.to_vec()
        };
        Ok(Some(Value { bytes: Secret(bytes), version }))
    }

    /// Writes a value, and answers its version. The same value again changes nothing.
    ///
    /// # Errors
    /// The object is not there or has no keys, what was expected is not so, the value is too large.
    pub async fn put_value(
        &self,
        path: &ObjectPath,
        key: &str,
        bytes: &[u8],
        expect: Expect,
    ) -> Result<u64, StoreError> {
        check_name(path, key)?;
        if bytes.len() > MAX_KEY_VALUE {
            let what = format!("the value of {path} key {key}");
            return Err(StoreError::TooLarge { what, size: bytes.len(), limit: MAX_KEY_VALUE });
        }
        for _ in 0..TRIES {
            let config = self.config(path).await?.ok_or_else(|| StoreError::Missing(path.clone()))?;
            let seen = self.value(path, key).await?;
            match (expect, &seen) {
                (Expect::Absent, Some(_)) => {
                    return Err(StoreError::KeyExists { path: path.clone(), key: key.into() });
                }
                (Expect::Version(version), found) if found.as_ref().map(|value| value.version) != Some(version) => {
                    return Err(StoreError::Changed(format!("{path} key {key}")));
                }
                (_, Some(value)) if value.bytes.0 == bytes => return Ok(value.version),
                _ => {}
            }
            // The object's generation is in it, so that a key that is removed and made again has another version.
            let version = seen.map_or(0, |value| value.version).max(config.generation) + 1;
            let sealed = is_sealed(path.kind);
            let body = if sealed {
                let name = subject_name(path);
                let subject = self.subject(subject(path, &name, key, version));
                self.key.seal(&subject, bytes).map_err(|source| sealing(path, key, source))?
            } else {
                bytes.to_vec()
            };
            let record = Frame { sealed, version, body: &body }.write();
            if self.change_key(path, &config, Op::Put(Key::Value(path.clone(), key.into()).name(), record)).await? {
                return Ok(version);
            }
        }
        Err(StoreError::Changed(format!("{path} key {key}")))
    }

    /// Removes a key; false: it is not there.
    ///
    /// # Errors
    /// The object is not there or has no keys.
    pub async fn remove_value(&self, path: &ObjectPath, key: &str) -> Result<bool, StoreError> {
        check_name(path, key)?;
        let name = Key::Value(path.clone(), key.into()).name();
        for _ in 0..TRIES {
            let config = self.config(path).await?.ok_or_else(|| StoreError::Missing(path.clone()))?;
            if self.get(&name).await?.is_none() {
                return Ok(false);
            }
            if self.change_key(path, &config, Op::Delete(name.clone())).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Changed(format!("{path} key {key}")))
    }

    /// Changes a key together with its object's generation: who uses the object sees that it changed, and no key is
    /// added to one that is being deleted.
    async fn change_key(&self, path: &ObjectPath, config: &super::Config, change: Op) -> Result<bool, StoreError> {
        let key = Key::Config(path.clone()).name();
        let object = wire::put_config(config.generation + 1, &config.text, wall_ms());
        let condition = Compare::Modified(key.clone(), config.rev);
        Ok(self.txn(vec![condition], vec![Op::Put(key, object), change]).await?.done)
    }
}

/// The kind is part of the name: a `usr` object's value is none of the `sec` object of the same name.
fn subject_name(path: &ObjectPath) -> String {
    format!("{}/{}", path.kind, path.name)
}

fn subject<'a>(path: &'a ObjectPath, name: &'a str, key: &'a str, version: u64) -> Subject<'a> {
    Subject { cluster: "", namespace: path.namespace.as_str(), name, key, version }
}

fn sealing(path: &ObjectPath, key: &str, source: SealError) -> StoreError {
    StoreError::Seal { what: format!("{path} key {key}"), source }
}

fn is_sealed(kind: Kind) -> bool {
    kind != Kind::Cfg
}

/// Names become files: none leads out of its directory.
fn check_name(path: &ObjectPath, key: &str) -> Result<(), StoreError> {
    if !path.kind.is_key_store() {
        return Err(StoreError::NoKeys(path.clone()));
    }
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    if key.len() <= MAX_NAME && key.split('/').all(part) { Ok(()) } else { Err(StoreError::KeyName(key.into())) }
}

/// A value as it is stored.
struct Frame<'a> {
    sealed: bool,
    version: u64,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(entry: &'a Entry) -> Result<Self, StoreError> {
        let read = || match entry.value.split_at_checked(HEAD)? {
            ([1, sealed @ (0 | 1), version @ ..], body) => {
                Some(Self { sealed: *sealed == 1, version: u64::from_be_bytes(version.try_into().ok()?), body })
            }
            _ => None,
        };
        read().ok_or_else(|| StoreError::Damaged(entry.key.to_string()))
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = vec![1, u8::from(self.sealed)];
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(self.body);
        bytes
    }
}
