//! Owns who may touch the files of a digest within this process.
//!
//! Whoever brings bytes shares the claim of their digest from before the place is chosen until the
//! row is committed; whoever removes a file has it alone. So a file without a row is either about
//! to get one, and claimed, or garbage. Does not protect against other processes: they are kept out
//! by the lock of the data directory.

use std::{collections::BTreeSet, sync::Arc};

use registry_core::digest::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Digests share so many locks.
const STRIPES: usize = 256;

/// The claims of a data directory.
#[derive(Clone, Debug)]
pub struct Claims(Arc<[Arc<RwLock<()>>]>);

/// Digests that a writer shares with other writers, until this is dropped.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "held for their drop")] Vec<OwnedRwLockReadGuard<()>>);

/// A digest that nobody else may touch, until this is dropped.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>);

impl Default for Claims {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Arc::default()).collect())
    }
}

impl Claims {
    fn stripe(digest: &Digest) -> usize {
        // Any byte of a digest is as good as random.
        digest.to_key().last().copied().map_or(0, usize::from) % STRIPES
    }

    /// Shares the claims of digests whose bytes are coming.
    pub async fn share(&self, digests: impl IntoIterator<Item = &Digest>) -> Shared {
        // Each once and in one order: a second turn behind somebody who waits to be alone would
        // never come.
        let stripes: BTreeSet<usize> = digests.into_iter().map(Self::stripe).collect();
        let mut held = Vec::with_capacity(stripes.len());
        for stripe in stripes {
            held.push(Arc::clone(&self.0[stripe]).read_owned().await);
        }
        Shared(held)
    }

    /// Claims a digest alone, to remove a file of it. Whoever holds one waits for no other.
    pub async fn alone(&self, digest: &Digest) -> Alone {
        Alone(Arc::clone(&self.0[Self::stripe(digest)]).write_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry_core::digest::{Algorithm, Digest};
    use tokio::time::timeout;

    use super::Claims;

    fn digest(last: u8) -> Digest {
        let mut raw = [0; 32];
        raw[31] = last;
        Digest::from_raw(Algorithm::Sha256, &raw).unwrap()
    }

    #[tokio::test]
    async fn writers_share_and_a_remover_is_alone() {
        let claims = Claims::default();
        let soon = Duration::from_millis(20);
        let (a, b) = (digest(1), digest(2));
        let first = claims.share([&a, &b, &a]).await;
        let second = timeout(soon, claims.share([&a])).await.unwrap();
        assert!(timeout(soon, claims.alone(&a)).await.is_err(), "two write");
        drop((first, second));
        let alone = timeout(soon, claims.alone(&a)).await.unwrap();
        assert!(timeout(soon, claims.share([&b, &a])).await.is_err(), "one removes");
        timeout(soon, claims.share([&b])).await.unwrap();
        drop(alone);
        timeout(soon, claims.share([&b, &a])).await.unwrap();
    }
}
