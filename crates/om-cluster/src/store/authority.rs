//! Owns where the cluster's certificate authority is kept: one sealed record. Does not know what the bytes are.

use om_core::{driver::Secret, kv::Compare, kv::Op};

use super::{Store, StoreError};
use crate::{
    keys,
    limits::MAX_VALUE,
    seal::{self, SealError, Subject},
};

const SUBJECT: Subject<'static> = Subject { cluster: "", namespace: "", name: "authority", key: "", version: 1 };

impl Store {
    /// The authority; none: none was kept yet.
    ///
    /// # Errors
    /// It does not open.
    pub async fn authority(&self) -> Result<Option<Secret>, StoreError> {
        let Some(entry) = self.get(keys::AUTHORITY).await? else { return Ok(None) };
        Ok(Some(Secret(self.key.open(&self.subject(SUBJECT), &entry.value).map_err(sealing)?)))
    }

    /// Keeps the authority, unless there is one: answers the one that is kept, which all nodes use.
    ///
    /// # Errors
    /// It is too large, or the store did not answer.
    pub async fn keep_authority(&self, bytes: &Secret) -> Result<Secret, StoreError> {
        let limit = MAX_VALUE - seal::OVERHEAD;
        if bytes.0.len() > limit {
            return Err(StoreError::TooLarge { what: "the authority".into(), size: bytes.0.len(), limit });
        }
        let sealed = self.key.seal(&self.subject(SUBJECT), &bytes.0).map_err(sealing)?;
        let absent = vec![Compare::Absent(keys::AUTHORITY.into())];
        if self.txn(absent, vec![Op::Put(keys::AUTHORITY.into(), sealed)]).await?.done {
            return Ok(bytes.clone());
        }
        self.authority().await?.ok_or_else(|| StoreError::Changed("the authority".into()))
    }
}

fn sealing(source: SealError) -> StoreError {
    StoreError::Seal { what: "the cluster's authority".into(), source }
}
