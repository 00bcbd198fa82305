//! Owns response bodies: nothing, bytes at hand, or a slice of a blob.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use registry_core::{range::Slice, store::BlobReader};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::sendfile::{KernelCopies, Mapped};

/// How much of a blob is read at a time when it is copied through the server.
const COPY: u64 = 256 * 1024;
/// How much of a blob is handed to the kernel at a time.
const WINDOW: u64 = 1024 * 1024;
/// Slices from this size on are copied by the kernel where it can.
const KERNEL_MIN: u64 = 64 * 1024;

/// A response body.
pub(crate) enum Body {
    /// No bytes.
    Empty,
    /// These bytes.
    Full(Bytes),
    /// A slice of a blob.
    Blob(Box<BlobBody>),
}

/// A slice of a blob on its way out.
pub(crate) struct BlobBody {
    reader: Arc<dyn BlobReader>,
    slice: Slice,
    mapped: Option<Bytes>,
    /// The mapped file starts here.
    base: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    /// A slice of a blob. With `kernel` the connection can copy from files without us.
    pub(crate) fn blob(reader: Arc<dyn BlobReader>, slice: Slice, kernel: Option<&KernelCopies>) -> Self {
        let length = slice.end - slice.start;
        let mapped = kernel
            .filter(|_| length >= KERNEL_MIN)
            .and_then(|kernel| Mapped::new(&reader, slice, kernel))
            .map(Bytes::from_owner);
        Self::Blob(Box::new(BlobBody { reader, base: slice.start, slice, mapped, reading: None }))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(text.into())
    }
}

impl BlobBody {
    /// Whether the window's ends are in memory, so that the kernel will not wait for the disk
    /// while it copies. Read-ahead makes what lies between follow its ends.
    fn is_warm(&self, length: u64) -> bool {
        let here = |at| self.reader.read_now(at, 1).is_some();
        here(self.slice.start) && here(self.slice.start + length - 1)
    }

    fn poll_blob(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let left = self.slice.end - self.slice.start;
        if left == 0 {
            return Poll::Ready(None);
        }
        let length = left.min(if self.mapped.is_some() { WINDOW } else { COPY });
        let taken = if let Some(reading) = &mut self.reading {
            let result = ready!(Pin::new(reading).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
            self.reading = None;
            Some(result)
        } else if self.mapped.is_some() {
            self.is_warm(length).then(|| Ok(Bytes::new()))
        } else {
            self.reader.read_now(self.slice.start, length as usize)
        };
        let Some(taken) = taken else {
            let (reader, start, warm_only) = (Arc::clone(&self.reader), self.slice.start, self.mapped.is_some());
            self.reading = Some(spawn_blocking(move || {
                if warm_only { warm(&*reader, start, length) } else { reader.read(start, length as usize) }
            }));
            return self.poll_blob(cx);
        };
        Poll::Ready(Some(taken.map(|bytes| {
            let from = (self.slice.start - self.base) as usize;
            self.slice.start += length;
            match &self.mapped {
                Some(mapped) => mapped.slice(from..from + length as usize),
                None => bytes,
            }
        })))
    }
}

/// Brings a window into memory.
fn warm(reader: &dyn BlobReader, start: u64, length: u64) -> io::Result<Bytes> {
    let mut at = start;
    while at < start + length {
        let part = COPY.min(start + length - at);
        reader.read(at, part as usize)?;
        at += part;
    }
    Ok(Bytes::new())
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => match std::mem::replace(&mut *self, Self::Empty) {
                Self::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Blob(blob) => blob.poll_blob(cx).map(|polled| polled.map(|result| result.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Blob(blob) => blob.slice.start == blob.slice.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Full(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.slice.end - blob.slice.start,
        })
    }
}
