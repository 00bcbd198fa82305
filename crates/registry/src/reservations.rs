//! Owns the room in quotas that uploads under way have been promised. In memory: it ends with the
//! process, as uploads in memory do.
//!
//! Room is promised before bytes are received, so that a push that cannot fit is refused when it
//! begins. Does not own what is used, nor the last word: the store counts both in the transaction
//! that ends the upload, where a blob that is there already costs nothing.

use std::sync::{Arc, Mutex, PoisonError};

use registry_core::{
    name::RepoName,
    retention::{Exceeded, Quota, Usage},
    store::{Metadata, StoreError},
};

/// Bytes that an upload of unknown length is promised at a time.
const STEP: u64 = 16 * 1024 * 1024;

/// The room that is promised, in all quotas. A clone is another handle.
#[derive(Clone, Debug)]
pub(crate) struct Reservations {
    quotas: Vec<Quota>,
    /// Bytes, in the order of the quotas.
    promised: Arc<Mutex<Vec<u64>>>,
}

/// The room that one upload is promised; released when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    /// The quotas that count, by their places.
    quotas: Vec<usize>,
    bytes: u64,
    promised: Arc<Mutex<Vec<u64>>>,
}

impl Reservations {
    /// Nothing promised yet.
    pub(crate) fn new(quotas: Vec<Quota>) -> Self {
        let promised = Arc::new(Mutex::new(vec![0; quotas.len()]));
        Self { quotas, promised }
    }

    /// The reservation of an upload to a repository, with no room so far.
    pub(crate) fn of(&self, repository: &RepoName) -> Reserved {
        let quotas = self.quotas.iter().enumerate().filter(|(_, quota)| quota.covers(repository));
        let quotas = quotas.map(|(index, _)| index).collect();
        Reserved { quotas, bytes: 0, promised: Arc::clone(&self.promised) }
    }

    /// Bytes that are promised now, in the order of the quotas.
    pub(crate) fn promised(&self) -> Vec<u64> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Reserved {
    /// Fails if a quota is full, with what is promised to others: then not a byte has to come.
    pub(crate) async fn begin(&self, metadata: &dyn Metadata) -> Result<(), StoreError> {
        if self.quotas.is_empty() {
            return Ok(());
        }
        let usage = metadata.usage().await?;
        Ok(self.admit(&usage, 1)?)
    }

    /// Makes it room for `size` bytes in all. `more` says that others may follow: then some are
    /// reserved ahead, where they fit.
    pub(crate) async fn grow(&mut self, metadata: &dyn Metadata, size: u64, more: bool) -> Result<(), StoreError> {
        if self.quotas.is_empty() || size <= self.bytes {
            return Ok(());
        }
        let usage = metadata.usage().await?;
        let ahead = self.bytes.saturating_add(STEP);
        if more && ahead > size && self.take(&usage, ahead - self.bytes).is_ok() {
            return Ok(());
        }
        Ok(self.take(&usage, size - self.bytes)?)
    }

    /// Gives the room back, such as when an upload leaves memory.
    pub(crate) fn release(&mut self) {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        for &index in &self.quotas {
            promised[index] = promised[index].saturating_sub(self.bytes);
        }
        self.bytes = 0;
    }

    fn admit(&self, usage: &[Usage], bytes: u64) -> Result<(), registry_core::store::Refusal> {
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(fits(&promised, &self.quotas, usage, bytes)?)
    }

    fn take(&mut self, usage: &[Usage], bytes: u64) -> Result<(), registry_core::store::Refusal> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        fits(&promised, &self.quotas, usage, bytes)?;
        for &index in &self.quotas {
            promised[index] = promised[index].saturating_add(bytes);
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// Whether `bytes` more fit into all of these quotas. `usage` is in the order of the quotas.
fn fits(promised: &[u64], quotas: &[usize], usage: &[Usage], bytes: u64) -> Result<(), Exceeded> {
    quotas
        .iter()
        .filter_map(|&index| Some((usage.get(index)?, promised[index])))
        .try_for_each(|(usage, promised)| usage.admit(promised, bytes))
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use registry_core::retention::{Quota, Rules};
    use registry_core::store::{Metadata as _, Refusal, StoreError};
    use registry_store::meta::memory::MemoryMetadata;

    use super::{Reservations, Reserved, STEP};

    fn quotas(limits: &[(&str, u64)]) -> Vec<Quota> {
        limits.iter().map(|(prefix, limit)| Quota { prefix: prefix.parse().unwrap(), limit: *limit }).collect()
    }

    /// Who was refused by which quota, or how much is promised in all.
    async fn grown(
        metadata: &MemoryMetadata,
        reservations: &Reservations,
        reserved: &mut Reserved,
        size: u64,
        more: bool,
    ) -> String {
        match reserved.grow(metadata, size, more).await {
            Ok(()) => format!("{:?}", reservations.promised.lock().unwrap()),
            Err(StoreError::Refused(Refusal::QuotaExceeded(exceeded))) => exceeded.quota.prefix.to_string(),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn room_is_promised_once_and_given_back() {
        let quotas = quotas(&[("team", 100), ("team/api", 60), ("huge", 10 * STEP)]);
        let metadata = MemoryMetadata::default();
        metadata.govern(Rules { quotas: quotas.clone(), ..Rules::default() }).await.unwrap();
        let reservations = Reservations::new(quotas);
        let of = |name: &str| reservations.of(&name.parse().unwrap());
        let [mut web, mut api, mut other, mut huge] = ["team/web", "team/api/x", "elsewhere", "huge"].map(of);
        let check = async |reserved: &mut Reserved, size: u64, more: bool, want: &str| {
            assert_eq!(grown(&metadata, &reservations, reserved, size, more).await, want, "{size}");
        };
        check(&mut web, 50, false, "[50, 0, 0]").await;
        check(&mut web, 40, false, "[50, 0, 0]").await;
        check(&mut api, 51, false, "team").await;
        check(&mut api, 50, false, "[100, 50, 0]").await;
        assert!(of("team/web").begin(&metadata).await.is_err(), "it is full");
        assert!(of("elsewhere").begin(&metadata).await.is_ok());
        check(&mut web, 51, false, "team").await;
        check(&mut other, u64::MAX, false, "[100, 50, 0]").await;
        drop(web);
        check(&mut api, 61, true, "team/api").await;
        // No step fits, but what is there does.
        check(&mut api, 60, true, "[60, 60, 0]").await;
        api.release();
        check(&mut huge, 1, true, &format!("[0, 0, {STEP}]")).await;
        check(&mut huge, STEP, true, &format!("[0, 0, {STEP}]")).await;
        check(&mut huge, STEP + 1, true, &format!("[0, 0, {}]", 2 * STEP)).await;
        check(&mut huge, 5 * STEP, true, &format!("[0, 0, {}]", 5 * STEP)).await;
        drop((api, other, huge));
        assert_eq!(reservations.promised(), [0, 0, 0]);
    }
}
