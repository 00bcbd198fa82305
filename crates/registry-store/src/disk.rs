//! Owns the few disk operations that durability hangs on, and the memory of a failed one.
//!
//! Syncs go through the C library, as all of the standard library does, so that a test can make
//! them fail.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use registry_core::store::StoreError;

/// Remembers that a sync failed. After that nothing may be acknowledged: Linux reports a
/// write-back error once, drops the pages, and lets the next sync succeed (PostgreSQL's
/// "fsyncgate", 2018).
#[derive(Clone, Debug, Default)]
pub struct Poison(Arc<AtomicBool>);

impl Poison {
    /// Fails if a sync has failed before.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Remembers a failure.
    pub fn set(&self) {
        if !self.0.swap(true, Ordering::AcqRel) {
            tracing::error!("a write could not be made durable: no more writes until a restart");
        }
    }
}

/// Makes a file's content and size durable.
pub(crate) fn sync_file(file: &File, poison: &Poison, operation: impl FnOnce() -> String) -> Result<(), StoreError> {
    file.sync_data().map_err(|error| failed_sync(error, poison, operation))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path, poison: &Poison) -> Result<(), StoreError> {
    let operation = || format!("sync directory {}", path.display());
    File::open(path)
        .map_err(|error| StoreError::io(operation(), error))?
        .sync_all()
        .map_err(|error| failed_sync(error, poison, operation))
}

/// A full disk shows up here too when blocks are allocated late: that upload is lost, no other.
fn failed_sync(error: io::Error, poison: &Poison, operation: impl FnOnce() -> String) -> StoreError {
    let error = StoreError::io(operation(), error);
    if !matches!(error, StoreError::Full { .. }) {
        poison.set();
    }
    error
}

/// Asks the kernel to start writing a range to the disk, without waiting, so that the final sync
/// has little left to do. A hint: failures do not matter.
pub(crate) fn start_writing(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return;
    };
    #[expect(unsafe_code, reason = "no safe wrapper of sync_file_range(2) exists")]
    // SAFETY: the descriptor is open for the length of the call, and no memory is passed.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
