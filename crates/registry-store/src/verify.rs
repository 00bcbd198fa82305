//! Owns the verdict about one blob's bytes: read from the disk, hashed, compared.
//!
//! Reads with one bounded buffer, and leaves the page cache as it was: what was in it is read from
//! the disk once more and stays, what was not leaves again. Does not own what follows from a flaw.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    num::NonZeroU64,
    os::unix::fs::FileExt as _,
    path::Path,
};

use registry_core::digest::Digest;
use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
};

use crate::hash::{Hasher, digest_of};

/// Bytes that are read at a time.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// What is wrong with a blob's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There are none.
    #[error("its bytes are missing")]
    Missing,
    /// There are more or less than there should be.
    #[error("it has {found} bytes, not {wanted}")]
    Size {
        /// As many as there are.
        found: u64,
        /// As many as there should be.
        wanted: u64,
    },
    /// They are other ones.
    #[error("its bytes have digest {0}")]
    Content(Digest),
    /// The disk does not give them back.
    #[error("its bytes cannot be read: {0}")]
    Unreadable(String),
}

/// Whether an error says that the bytes are lost, rather than that they cannot be had just now.
fn is_loss(error: &io::Error) -> bool {
    // EUCLEAN and EBADMSG are what file systems with checksums answer.
    let lost = [Errno::IO, Errno::NODATA, Errno::UCLEAN, Errno::BADMSG];
    error.raw_os_error().is_some_and(|code| lost.iter().any(|errno| errno.raw_os_error() == code))
}

/// Tells a flaw from an error that may pass.
fn flaw(error: io::Error) -> io::Result<Flaw> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Flaw::Missing),
        _ if is_loss(&error) => Ok(Flaw::Unreadable(error.to_string())),
        _ => Err(error),
    }
}

/// A file that is being verified.
pub(crate) struct Reading {
    file: File,
    digest: Digest,
    hasher: Hasher,
    size: u64,
    done: u64,
}

/// How far a reading is.
pub(crate) enum Step {
    /// So many bytes were read, and there are more.
    Read(u64),
    /// That was all; so many bytes were read.
    Over(u64, Result<(), Flaw>),
}

impl Reading {
    /// Opens the file of a blob of `size` bytes. Blocks, as all of this does. An error is one that
    /// may pass.
    pub(crate) fn open(path: &Path, digest: &Digest, size: u64) -> io::Result<Result<Self, Flaw>> {
        let opened = File::open(path).and_then(|file| {
            let found = file.metadata()?;
            if found.is_file() { Ok((found.len(), file)) } else { Err(io::ErrorKind::NotFound.into()) }
        });
        let (found, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return flaw(error).map(Err),
        };
        if found != size {
            return Ok(Err(Flaw::Size { found, wanted: size }));
        }
        // No more than is asked for, so that what was in memory before can be told. A hint, as all
        // advice is: failures do not matter.
        fadvise(&file, 0, None, Advice::Random).ok();
        Ok(Ok(Self { file, digest: *digest, hasher: Hasher::new(digest.algorithm()), size, done: 0 }))
    }

    /// Reads the next piece, of the buffer's length at most.
    pub(crate) fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        let length = usize::try_from(self.size - self.done).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..length];
        let range = NonZeroU64::new(length as u64);
        if range.is_some() {
            let first = preadv2(&self.file, &mut [IoSliceMut::new(&mut [0])], self.done, ReadWriteFlags::NOWAIT);
            let was_in_memory = first == Ok(1);
            if was_in_memory {
                fadvise(&self.file, self.done, range, Advice::DontNeed).ok();
            }
            let read = self.file.read_exact_at(buffer, self.done);
            if !was_in_memory {
                fadvise(&self.file, self.done, range, Advice::DontNeed).ok();
            }
            match read {
                Ok(()) => {}
                // It became shorter.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let found = self.file.metadata()?.len();
                    return Ok(Step::Over(0, Err(Flaw::Size { found, wanted: self.size })));
                }
                Err(error) => return flaw(error).map(|flaw| Step::Over(0, Err(flaw))),
            }
            self.hasher.update(buffer);
            self.done += length as u64;
        }
        if self.done < self.size {
            return Ok(Step::Read(length as u64));
        }
        let actual = self.hasher.clone().finish();
        let verdict = if actual == self.digest { Ok(()) } else { Err(Flaw::Content(actual)) };
        Ok(Step::Over(length as u64, verdict))
    }
}

/// Verifies the file of a blob, from the disk. Blocks. An error is one that may pass.
pub(crate) fn verify_file(
    path: &Path,
    digest: &Digest,
    size: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(u64),
) -> io::Result<Result<(), Flaw>> {
    let mut reading = match Reading::open(path, digest, size)? {
        Ok(reading) => reading,
        Err(flaw) => return Ok(Err(flaw)),
    };
    loop {
        match reading.step(buffer)? {
            Step::Read(bytes) => read(bytes),
            Step::Over(bytes, verdict) => {
                read(bytes);
                return Ok(verdict);
            }
        }
    }
}

/// Verifies bytes at hand.
pub(crate) fn verify_bytes(bytes: &[u8], digest: &Digest, size: u64) -> Result<(), Flaw> {
    let found = bytes.len() as u64;
    if found != size {
        return Err(Flaw::Size { found, wanted: size });
    }
    let actual = digest_of(digest.algorithm(), bytes);
    if actual == *digest { Ok(()) } else { Err(Flaw::Content(actual)) }
}

/// Looks at the size of a blob's file. An error is one that may pass.
pub(crate) fn verify_size(path: &Path, size: u64) -> io::Result<Result<(), Flaw>> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Ok(Err(Flaw::Missing)),
        Ok(found) if found.len() != size => Ok(Err(Flaw::Size { found: found.len(), wanted: size })),
        Ok(_) => Ok(Ok(())),
        Err(error) => flaw(error).map(Err),
    }
}

#[cfg(test)]
mod tests {
    use registry_core::digest::Algorithm;

    use super::{CHUNK, Flaw, digest_of, verify_bytes, verify_file, verify_size};

    #[test]
    fn flaws() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let long: Vec<u8> = (0..3 * CHUNK + 7).map(|index| (index % 251) as u8).collect();
        let check = |content: Option<&[u8]>, stored: Option<&[u8]>, algorithm: Algorithm| {
            let content = content.unwrap_or(&long);
            let digest = digest_of(algorithm, content);
            let size = content.len() as u64;
            match stored {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let mut read = 0;
            let whole = verify_file(&path, &digest, size, &mut vec![0; CHUNK], |bytes| read += bytes).unwrap();
            assert_eq!(
                verify_size(&path, size).unwrap().is_err(),
                stored.is_none_or(|bytes| bytes.len() != content.len())
            );
            if let Some(stored) = stored {
                assert_eq!(verify_bytes(stored, &digest, size), whole);
                if stored.len() == content.len() {
                    assert_eq!(read, size);
                }
            }
            match whole {
                Ok(()) => "sound",
                Err(Flaw::Missing) => "missing",
                Err(Flaw::Size { .. }) => "size",
                Err(Flaw::Content(_)) => "content",
                Err(Flaw::Unreadable(_)) => "unreadable",
            }
        };
        let mut bad = long.clone();
        bad[2 * CHUNK] ^= 1;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            assert_eq!(check(None, Some(&long), algorithm), "sound");
            assert_eq!(check(Some(b""), Some(b""), algorithm), "sound");
            assert_eq!(check(Some(&long[..CHUNK]), Some(&long[..CHUNK]), algorithm), "sound");
            assert_eq!(check(None, Some(&bad), algorithm), "content");
            assert_eq!(check(None, Some(&long[1..]), algorithm), "size");
            assert_eq!(check(None, None, algorithm), "missing");
        }
    }
}
