//! Blobs in memory: the twin of the files, and the `inmemory` storage driver. Nothing survives.

use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use registry_core::{
    digest::{Algorithm, Digest},
    name::RepoName,
    store::{Answer, BlobReader, Blobs, Commit, Place, Staging},
};

use crate::hash::digest_of;

/// Blobs by digest.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs {
    blobs: Arc<Mutex<HashMap<(Digest, Place), Bytes>>>,
}

impl MemoryBlobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Digest, Place), Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct MemoryStaging {
    store: MemoryBlobs,
    bytes: BytesMut,
}

struct MemoryReader(Bytes);

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Staging for MemoryStaging {
    fn append(&mut self, bytes: Bytes) -> Answer<'_, ()> {
        self.bytes.extend_from_slice(&bytes);
        ready(())
    }

    fn flush(&mut self) -> Answer<'_, u64> {
        ready(self.bytes.len() as u64)
    }

    fn commit(&mut self, digest: Digest, place: Place) -> Answer<'_, Commit> {
        let actual = digest_of(digest.algorithm(), &self.bytes);
        if actual != digest {
            return ready(Commit::Mismatch { actual });
        }
        let size = self.bytes.len() as u64;
        self.store.lock().insert((digest, place), self.bytes.split().freeze());
        ready(Commit::Stored { place, size })
    }

    fn discard(&mut self) -> Answer<'_, ()> {
        self.bytes = BytesMut::new();
        ready(())
    }
}

impl BlobReader for MemoryReader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_now(&self, offset: u64, length: usize) -> Option<io::Result<Bytes>> {
        Some(self.read(offset, length))
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(length).filter(|end| *end <= self.0.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(self.0.slice(start..end))
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Blobs for MemoryBlobs {
    fn stage<'a>(&'a self, _: &'a RepoName, _: &'a str, _: Algorithm) -> Answer<'a, Box<dyn Staging>> {
        ready(Box::new(MemoryStaging { store: self.clone(), bytes: BytesMut::new() }) as Box<dyn Staging>)
    }

    fn resume<'a>(&'a self, _: &'a RepoName, _: &'a str, _: Algorithm) -> Answer<'a, Option<(Box<dyn Staging>, u64)>> {
        ready(None)
    }

    fn open<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, Option<Arc<dyn BlobReader>>> {
        let found = self.lock().get(&(*digest, *place)).cloned();
        ready(found.map(|bytes| Arc::new(MemoryReader(bytes)) as Arc<dyn BlobReader>))
    }

    fn remove<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, ()> {
        self.lock().remove(&(*digest, *place));
        ready(())
    }

    fn purge_uploads(&self, _: Duration, _: bool) -> Answer<'_, Vec<String>> {
        ready(Vec::new())
    }

    fn check(&self) -> Answer<'_, ()> {
        ready(())
    }
}
