//! Owns the copying of files to sockets inside the kernel, under an HTTP library that only knows
//! memory.
//!
//! A body hands out slices of a memory mapping of the file. The connection's stream recognises
//! their addresses and calls sendfile(2) for them, so that the mapping is never touched. Were it
//! touched, the bytes would be the right ones: the trick can only fail to be fast.

#![expect(unsafe_code, reason = "mapping a file is unsafe: see `Mapped::new`")]

use std::{
    ffi::c_void,
    io::{self, IoSlice},
    num::NonZeroUsize,
    pin::Pin,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use registry_core::{range::Slice, store::BlobReader};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Mappings are made at multiples of this. The largest page size that Linux has on our targets.
const PAGE: u64 = 64 * 1024;

/// The mapped files that a connection may be about to send. One or two at a time.
#[derive(Clone, Default)]
pub(crate) struct KernelCopies(Arc<Mutex<Vec<Range>>>);

struct Range {
    address: usize,
    length: usize,
    offset: u64,
    reader: Arc<dyn BlobReader>,
}

impl KernelCopies {
    fn lock(&self) -> MutexGuard<'_, Vec<Range>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file and the offset behind an address, if it is a mapped one.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<dyn BlobReader>, u64)> {
        let address = bytes.as_ptr().addr();
        let ranges = self.lock();
        let range = ranges.iter().find(|range| (range.address..range.address + range.length).contains(&address))?;
        Some((Arc::clone(&range.reader), range.offset + (address - range.address) as u64))
    }
}

/// A slice of a file, mapped.
pub(crate) struct Mapped {
    base: *mut c_void,
    mapped: NonZeroUsize,
    skip: usize,
    length: usize,
    copies: KernelCopies,
}

// SAFETY: the mapping belongs to this value alone and is only read.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a slice of a blob, or nothing if it is no file or cannot be mapped.
    pub(crate) fn new(reader: &Arc<dyn BlobReader>, slice: Slice, copies: &KernelCopies) -> Option<Self> {
        let file = reader.file()?;
        let start = slice.start / PAGE * PAGE;
        let skip = usize::try_from(slice.start - start).ok()?;
        let length = usize::try_from(slice.end - slice.start).ok()?;
        let mapped = NonZeroUsize::new(skip + length)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the address is the kernel's choice, and the mapping lives until `drop`. Blobs are
        // never written in place; one that somebody truncates by hand could only end this process
        // (SIGBUS) if the bytes were read, which the stream below avoids.
        let base = unsafe { mmap(ptr::null_mut(), mapped.get(), ProtFlags::READ, flags, file, start) }.ok()?;
        let address = base.addr() + skip;
        copies.lock().push(Range { address, length, offset: slice.start, reader: Arc::clone(reader) });
        Some(Self { base, mapped, skip, length, copies: copies.clone() })
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.cast::<u8>().add(self.skip), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let address = self.base.addr() + self.skip;
        self.copies.lock().retain(|range| range.address != address);
        // SAFETY: made by `new` with this length; no slice of it outlives `self`.
        if let Err(error) = unsafe { munmap(self.base, self.mapped.get()) } {
            tracing::warn!(%error, "unmap a blob");
        }
    }
}

/// A TCP stream that sends mapped files by sendfile(2).
pub(crate) struct FileStream {
    stream: TcpStream,
    copies: KernelCopies,
}

impl FileStream {
    /// Wraps a stream; `copies` tells it which addresses are files.
    pub(crate) fn new(stream: TcpStream, copies: KernelCopies) -> Self {
        Self { stream, copies }
    }

    fn poll_file(
        &self,
        cx: &mut Context<'_>,
        reader: &dyn BlobReader,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(file) = reader.file() else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut offset = offset;
                rustix::fs::sendfile(&self.stream, file, Some(&mut offset), length).map_err(io::Error::from)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncRead for FileStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.copies.lock().is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let bufs = &bufs[bufs.iter().take_while(|buf| buf.is_empty()).count()..];
        if let Some(first) = bufs.first()
            && let Some((reader, offset)) = self.copies.find(first)
        {
            return self.poll_file(cx, &*reader, offset, first.len());
        }
        let plain = bufs.iter().take_while(|buf| self.copies.find(buf).is_none()).count();
        Pin::new(&mut self.stream).poll_write_vectored(cx, &bufs[..plain])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
