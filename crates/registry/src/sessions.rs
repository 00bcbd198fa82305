//! Owns uploads in progress: what was received, and where it goes on.
//!
//! A small upload stays in memory until it ends; a large one goes to a file as it comes. Nothing
//! of an upload is promised before it is committed, so nothing of it is synced.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use registry_core::{
    digest::{Algorithm, Digest},
    name::RepoName,
    store::{Blobs, Commit, Content, INLINE_MAX, Metadata, NewBlob, Staging, StoreError},
    upload::Progress,
};
use registry_store::hash::digest_of;
use tokio::sync::OwnedMutexGuard;

use crate::{
    api::route::UploadId,
    app::now,
    failure::Chain,
    reservations::{Reservations, Reserved},
};

/// Uploads that are remembered. Beyond that the one that was idle longest is parked in its file.
const MOST: usize = 10_000;
/// Bytes of small uploads in memory, all together. Beyond that they go to files as they come.
const IN_MEMORY: usize = 16 * 1024 * 1024;

/// Uploads in progress, by name.
pub(crate) struct Sessions {
    uploads: Mutex<HashMap<UploadId, Arc<Session>>>,
    in_memory: Arc<AtomicUsize>,
    reservations: Reservations,
}

/// One upload in progress.
pub(crate) struct Session {
    /// The repository that it was begun in.
    pub(crate) repository: RepoName,
    /// Its name.
    pub(crate) id: UploadId,
    algorithm: Algorithm,
    touched: AtomicI64,
    received: Arc<tokio::sync::Mutex<Received>>,
}

/// An upload that a request works on; others wait.
pub(crate) struct Held {
    /// Which one.
    pub(crate) session: Arc<Session>,
    /// What was received of it.
    pub(crate) received: OwnedMutexGuard<Received>,
}

/// What was received of an upload.
pub(crate) struct Received {
    /// How far it has come.
    pub(crate) progress: Progress,
    state: State,
    reserved: Reserved,
}

enum State {
    /// In memory.
    Small(Small),
    /// In a file that this process writes.
    Large(Box<dyn Staging>),
    /// In a file that is not open, if anywhere.
    Parked,
    /// Ended or failed: only a new upload helps.
    Over,
}

/// Bytes in memory, counted.
struct Small {
    bytes: BytesMut,
    in_memory: Arc<AtomicUsize>,
}

impl Small {
    fn has_room(&self, more: usize) -> bool {
        self.bytes.len() + more <= INLINE_MAX && self.in_memory.load(Ordering::Relaxed) + more <= IN_MEMORY
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.in_memory.fetch_add(bytes.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(bytes);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// What became of the end of an upload.
pub(crate) enum End {
    /// The content has the digest.
    Whole(NewBlob),
    /// It has another one, and was thrown away.
    Mismatch(Digest),
}

impl Sessions {
    /// None yet. Those that come have to find room in `reservations`.
    pub(crate) fn new(reservations: Reservations) -> Self {
        Self { uploads: Mutex::default(), in_memory: Arc::default(), reservations }
    }

    /// Fails if there is no room for another upload to a repository.
    pub(crate) async fn admit(&self, metadata: &dyn Metadata, repository: &RepoName) -> Result<(), StoreError> {
        self.reservations.of(repository).begin(metadata).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload and holds it.
    pub(crate) async fn begin(
        &self,
        blobs: &dyn Blobs,
        repository: &RepoName,
        id: UploadId,
        algorithm: Algorithm,
    ) -> Held {
        let small = Small { bytes: BytesMut::new(), in_memory: Arc::clone(&self.in_memory) };
        let (session, crowded_out) = self.place(repository, &id, algorithm, State::Small(small));
        self.make_room(blobs, crowded_out).await;
        let received = Arc::clone(&session.received).lock_owned().await;
        Held { session, received }
    }

    /// The upload of that name, made if there is none, and the one that has to give way to it.
    fn place(
        &self,
        repository: &RepoName,
        id: &UploadId,
        algorithm: Algorithm,
        state: State,
    ) -> (Arc<Session>, Option<Arc<Session>>) {
        let mut uploads = self.lock();
        if let Some(session) = uploads.get(id) {
            return (Arc::clone(session), None);
        }
        let oldest = || uploads.values().min_by_key(|session| session.touched.load(Ordering::Relaxed)).cloned();
        let crowded_out = if uploads.len() >= MOST { oldest() } else { None };
        let session = Arc::new(Session {
            repository: repository.clone(),
            id: id.clone(),
            algorithm,
            touched: AtomicI64::new(now()),
            received: Arc::new(tokio::sync::Mutex::new(Received {
                progress: Progress::default(),
                state,
                reserved: self.reservations.of(repository),
            })),
        });
        uploads.insert(id.clone(), Arc::clone(&session));
        (session, crowded_out)
    }

    async fn make_room(&self, blobs: &dyn Blobs, crowded_out: Option<Arc<Session>>) {
        if let Some(oldest) = crowded_out
            && let Err(error) = self.park(blobs, &oldest, 0).await
        {
            tracing::warn!(error = %Chain(&error), "an idle upload is dropped");
            self.forget(&oldest.id);
        }
    }

    /// Finds an upload of a repository, in memory or in its file, and holds it.
    ///
    /// At most one holder of a name works on its file: whoever comes first places the session,
    /// and opens the file while holding it.
    pub(crate) async fn find(
        &self,
        blobs: &dyn Blobs,
        repository: &RepoName,
        id: &UploadId,
    ) -> Result<Option<Held>, StoreError> {
        loop {
            let (session, crowded_out) = self.place(repository, id, Algorithm::Sha256, State::Parked);
            self.make_room(blobs, crowded_out).await;
            if session.repository != *repository {
                return Ok(None);
            }
            let mut received = Arc::clone(&session.received).lock_owned().await;
            session.touched.store(now(), Ordering::Relaxed);
            let current = self.lock().get(id).is_some_and(|current| Arc::ptr_eq(current, &session));
            match (&received.state, current) {
                (State::Small(_) | State::Large(_), true) => {
                    // A request that was cut off may have left more behind than it could say.
                    received.flush().await?;
                    return Ok(Some(Held { session, received }));
                }
                (State::Parked, true) => {
                    let resumed = blobs.resume(repository, id.as_str(), session.algorithm).await;
                    if let Ok(Some((staging, next))) = resumed {
                        received.progress = Progress { next };
                        received.state = State::Large(staging);
                        return Ok(Some(Held { session, received }));
                    }
                    received.state = State::Over;
                    self.forget(id);
                    return resumed.map(|_| None);
                }
                // It was parked while this request waited for it: its file has the rest.
                (State::Parked, false) => {}
                (_, false) | (State::Over, true) => return Ok(None),
            }
        }
    }

    /// Forgets an upload that has ended.
    pub(crate) fn forget(&self, id: &UploadId) {
        self.lock().remove(id);
    }

    /// Uploads that nobody touched for `idle` seconds.
    pub(crate) fn idle(&self, idle: i64) -> Vec<Arc<Session>> {
        let before = now() - idle;
        self.lock().values().filter(|s| s.touched.load(Ordering::Relaxed) <= before).cloned().collect()
    }

    /// Moves an upload that is still idle from memory to its file, from where it can go on.
    pub(crate) async fn park(&self, blobs: &dyn Blobs, session: &Session, idle: i64) -> Result<(), StoreError> {
        // Somebody may be at work on it, or have come back: then it is not idle.
        let Ok(mut received) = Arc::clone(&session.received).try_lock_owned() else {
            return Ok(());
        };
        if session.touched.load(Ordering::Relaxed) > now() - idle {
            return Ok(());
        }
        received.park(blobs, session).await?;
        self.forget(&session.id);
        Ok(())
    }
}

impl Received {
    /// Reserves room in the quotas of the repository for `more` bytes, and for some beyond where
    /// others may follow.
    pub(crate) async fn reserve(
        &mut self,
        metadata: &dyn Metadata,
        more: u64,
        others_follow: bool,
    ) -> Result<(), StoreError> {
        self.reserved.grow(metadata, self.progress.next.saturating_add(more), others_follow).await
    }

    /// Takes the next bytes. An error ends the upload.
    pub(crate) async fn append(
        &mut self,
        blobs: &dyn Blobs,
        session: &Session,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let length = bytes.len();
        if let State::Small(small) = &mut self.state {
            if small.has_room(length) {
                small.extend(&bytes);
                self.progress.next += length as u64;
                return Ok(());
            }
            self.spill(blobs, session).await?;
        }
        let State::Large(staging) = &mut self.state else {
            return Err(over());
        };
        match staging.append(bytes).await {
            Ok(()) => {
                self.progress.next += length as u64;
                session.touched.store(now(), Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.state = State::Over;
                Err(error)
            }
        }
    }

    /// Ends a part: what is in a file of it outlives this process from now on, and `progress`
    /// says how much there is.
    pub(crate) async fn flush(&mut self) -> Result<(), StoreError> {
        match &mut self.state {
            State::Small(small) => self.progress.next = small.bytes.len() as u64,
            State::Large(staging) => match staging.flush().await {
                Ok(size) => self.progress.next = size,
                Err(error) => {
                    self.state = State::Over;
                    return Err(error);
                }
            },
            State::Parked | State::Over => {}
        }
        Ok(())
    }

    async fn spill(&mut self, blobs: &dyn Blobs, session: &Session) -> Result<(), StoreError> {
        // Should the file fail, the bytes are gone, and the upload with them.
        if let State::Small(small) = std::mem::replace(&mut self.state, State::Over) {
            let mut staging = blobs.stage(&session.repository, session.id.as_str(), session.algorithm).await?;
            staging.append(Bytes::copy_from_slice(&small.bytes)).await?;
            self.state = State::Large(staging);
        }
        Ok(())
    }

    async fn park(&mut self, blobs: &dyn Blobs, session: &Session) -> Result<(), StoreError> {
        if matches!(self.state, State::Small(_)) {
            self.spill(blobs, session).await?;
        }
        if matches!(self.state, State::Large(_)) {
            self.flush().await?;
            self.state = State::Parked;
            self.reserved.release();
        }
        Ok(())
    }

    /// Ends the upload: its bytes are durable afterwards, or become so with their row. The digest is
    /// claimed until that is there.
    pub(crate) async fn finish(&mut self, metadata: &dyn Metadata, digest: Digest) -> Result<End, StoreError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Small(small) => {
                let bytes = Bytes::copy_from_slice(&small.bytes);
                let actual = digest_of(digest.algorithm(), &bytes);
                if actual != digest {
                    return Ok(End::Mismatch(actual));
                }
                Ok(End::Whole(NewBlob { digest, size: bytes.len() as u64, content: Content::Inline(bytes) }))
            }
            State::Large(mut staging) => {
                let place = metadata.place(&digest).await?;
                Ok(match staging.commit(digest, place).await? {
                    Commit::Stored { place, size } => {
                        End::Whole(NewBlob { digest, size, content: Content::Stored(place) })
                    }
                    Commit::Mismatch { actual } => End::Mismatch(actual),
                })
            }
            State::Parked | State::Over => Err(over()),
        }
    }

    /// Throws the upload away.
    pub(crate) async fn discard(&mut self) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Large(mut staging) => staging.discard().await,
            State::Small(_) | State::Parked | State::Over => Ok(()),
        }
    }
}

fn over() -> StoreError {
    let source = "it has ended or failed before".into();
    StoreError::Failed { operation: "continue the upload".into(), source }
}
