//! Owns the shared state in the words of the domain: typed repositories on any [`Kv`]. Every change is a
//! compare-and-swap. Each file below is one kind of thing; [`om_core::truth::Truth`] is what the engine sees of it.

mod authority;
mod news;
mod nodes;
mod objects;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::{fmt::Write as _, path::Path, sync::Arc};

use om_core::{
    kv::{Compare, Entry, KeyRange, Kv, KvError, Op, Outcome, Rev},
    path::ObjectPath,
};

pub use self::{
    nodes::NodeFacts,
    objects::{Config, New},
    values::{Expect, KeyInfo, MAX_KEY_VALUE, Value},
};
use crate::{
    keys,
    memory::MemoryKv,
    seal::{ClusterKey, KeyFileError, SealError, Subject, random},
};

/// What is sealed to tell whether a key is the cluster's.
const PROOF: Subject<'static> = Subject { cluster: "", namespace: "", name: "cluster", key: "", version: 1 };
/// How often a change is tried again when something else was changed meanwhile.
const TRIES: usize = 16;

/// A request to the shared state that was not fulfilled. Reads well after "cannot create test/sec/creds: ".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An object is there already.
    #[error("{0} exists")]
    Exists(ObjectPath),
    /// An object is not there.
    #[error("{0} does not exist")]
    Missing(ObjectPath),
    /// Something is not as the caller had seen it.
    #[error("{0} was changed meanwhile (hint: look at it again, then try again)")]
    Changed(String),
    /// A key is there already.
    #[error("key '{key}' already exists. use the 'change' action to change the current value.")]
    KeyExists {
        /// The object.
        path: ObjectPath,
        /// The key.
        key: String,
    },
    /// A name that no key has.
    #[error(
        "`{0}` is no name of a key (hint: at most 255 bytes, parts between slashes, no part empty, `.` or `..`, no \
         control characters)"
    )]
    KeyName(String),
    /// Too many bytes.
    #[error("{what} has {size} bytes, and may have {limit} at most")]
    TooLarge {
        /// What.
        what: String,
        /// Its bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Not an object with keys, or not one with resources.
    #[error("{0} has no keys (hint: cfg, sec and usr objects have)")]
    NoKeys(ObjectPath),
    /// A record that does not read.
    #[error("the store's record {0} is damaged (hint: put the store back from a copy)")]
    Damaged(String),
    /// The store's secrets are sealed, and their key is not there.
    #[error("its secrets are sealed with another key than that of {path} (hint: put the file of the backup back)")]
    OtherKey {
        /// The key file.
        path: String,
    },
    /// Sealing or opening a value.
    #[error("{what}")]
    Seal {
        /// Whose value: an object and a key.
        what: String,
        /// Why.
        source: SealError,
    },
    /// The key file.
    #[error("read the cluster's key")]
    KeyFile(#[from] KeyFileError),
    /// The kernel gave no random numbers.
    #[error("get random numbers")]
    Random(#[source] SealError),
    /// The store.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl StoreError {
    /// Whether it may have been done all the same: read back.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Kv(KvError::Unknown(_)))
    }
}

/// The shared state. Clones share it.
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
    key: Arc<ClusterKey>,
    cluster: Arc<str>,
}

impl Store {
    /// The state in a store, with the cluster's key in a file. Of an empty store: the cluster is made, with a new id
    /// and, if there is no file, a new key. Of one that is not: the file must be there.
    ///
    /// # Errors
    /// The key is missing or another one's; the store or the file cannot be used.
    pub async fn open(kv: Arc<dyn Kv>, key_file: &Path) -> Result<Self, StoreError> {
        let path = key_file.display().to_string();
        // A new key beside old secrets would only hide that theirs is lost.
        if one(&*kv, keys::CLUSTER).await?.is_some() && !key_file.exists() {
            return Err(StoreError::OtherKey { path });
        }
        // Small, and once, before anything else runs: not worth another thread.
        let key = ClusterKey::load_or_create(key_file)?;
        match Self::with_key(kv, key).await {
            Err(StoreError::OtherKey { .. }) => Err(StoreError::OtherKey { path }),
            result => result,
        }
    }

    /// The state in a store, with a key that the caller has.
    ///
    /// # Errors
    /// The store cannot be used, or was sealed with another key.
    pub async fn with_key(kv: Arc<dyn Kv>, key: ClusterKey) -> Result<Self, StoreError> {
        for _ in 0..TRIES {
            if let Some(cluster) = wire::cluster(one(&*kv, keys::CLUSTER).await?.as_ref())? {
                let store = Self { kv, key: Arc::new(key), cluster: cluster.id.into() };
                return match store.key.open(&store.subject(PROOF), &cluster.proof) {
                    Ok(_) => Ok(store),
                    Err(_) => Err(StoreError::OtherKey { path: "the cluster".into() }),
                };
            }
            let id = uuid().map_err(StoreError::Random)?;
            let subject = Subject { cluster: &id, ..PROOF };
            let proof = key.seal(&subject, b"").map_err(StoreError::Random)?;
            let record = wire::put_cluster(id.clone(), proof);
            let absent = vec![Compare::Absent(keys::CLUSTER.into())];
            kv.txn(absent, vec![Op::Put(keys::CLUSTER.into(), record)]).await?;
        }
        Err(StoreError::Changed("the cluster's record".into()))
    }

    /// A new state in memory, for tests and the simulator.
    ///
    /// # Errors
    /// The kernel gave no random numbers.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let key = ClusterKey::new().map_err(StoreError::Random)?;
        Self::with_key(Arc::new(MemoryKv::default()), key).await
    }

    fn subject<'a>(&'a self, subject: Subject<'a>) -> Subject<'a> {
        Subject { cluster: &self.cluster, ..subject }
    }

    /// Id of the cluster: a UUID, made with the store.
    pub fn cluster_id(&self) -> &str {
        &self.cluster
    }

    /// Grows whenever the state was put back or moved; the first half of a fencing token.
    pub fn generation(&self) -> u64 {
        self.kv.generation()
    }

    /// What is below.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, KvError> {
        one(&*self.kv, key).await
    }

    async fn list_prefix(&self, prefix: &str) -> Result<Vec<Entry>, KvError> {
        Ok(self.kv.range(KeyRange::Prefix(prefix.into())).await?.0)
    }

    async fn txn(&self, conditions: Vec<Compare>, changes: Vec<Op>) -> Result<Outcome, KvError> {
        self.kv.txn(conditions, changes).await
    }
}

async fn one(kv: &dyn Kv, key: &str) -> Result<Option<Entry>, KvError> {
    Ok(kv.range(KeyRange::Key(key.into())).await?.0.pop())
}

/// The condition that a key is as it was seen; revision 0 and none: it was not there.
fn as_seen(key: String, seen: Option<Rev>) -> Compare {
    match seen.filter(|rev| *rev > Rev(0)) {
        Some(rev) => Compare::Modified(key, rev),
        None => Compare::Absent(key),
    }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid() -> Result<String, SealError> {
    let mut bytes: [u8; 16] = random().map_err(SealError::Random)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]))
}

/// Milliseconds since 1970, to be shown, never compared.
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
