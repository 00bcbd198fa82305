//! Owns the states of a blob upload and which bytes it accepts next. Does not hold bytes.

use crate::range::Slice;

/// How far an upload has come: bytes `0..next` have been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The offset of the next byte.
    pub next: u64,
}

/// A chunk that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The chunk starts elsewhere; the answer is `416` with the current range.
    #[error("chunk starts at {start}, the next byte is {next}")]
    OutOfOrder {
        /// Where the chunk says it starts.
        start: u64,
        /// Where it has to start.
        next: u64,
    },
    /// `Content-Length` and `Content-Range` disagree.
    #[error("chunk of {length} bytes does not fill its range of {range} bytes")]
    Length {
        /// What `Content-Length` says.
        length: u64,
        /// What `Content-Range` says.
        range: u64,
    },
}

impl Progress {
    /// Decides whether a chunk may be appended, before its first byte is read.
    ///
    /// A chunk without a range continues where the upload stands: that is what Docker sends.
    pub fn accept(self, range: Option<Slice>, length: Option<u64>) -> Result<(), ChunkError> {
        let Some(range) = range else {
            return Ok(());
        };
        let span = range.end - range.start;
        if range.start != self.next {
            return Err(ChunkError::OutOfOrder { start: range.start, next: self.next });
        }
        match length {
            Some(length) if length != span => Err(ChunkError::Length { length, range: span }),
            _ => Ok(()),
        }
    }

    /// The value of the `Range` header: the last byte received, inclusive; `0-0` when there is
    /// none, as the `registry` image answers.
    pub fn range_header(self) -> String {
        format!("0-{}", self.next.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkError, Progress};
    use crate::range::Slice;

    #[test]
    fn accepts_only_what_comes_next() {
        let at = Progress { next: 10 };
        let range = |start, end| Some(Slice { start, end });
        assert_eq!(at.accept(None, None), Ok(()));
        assert_eq!(at.accept(range(10, 20), Some(10)), Ok(()));
        assert_eq!(at.accept(range(10, 20), None), Ok(()));
        assert_eq!(at.accept(range(0, 10), Some(10)), Err(ChunkError::OutOfOrder { start: 0, next: 10 }));
        assert_eq!(at.accept(range(11, 12), None), Err(ChunkError::OutOfOrder { start: 11, next: 10 }));
        assert_eq!(at.accept(range(10, 20), Some(9)), Err(ChunkError::Length { length: 9, range: 10 }));
        assert_eq!(Progress::default().range_header(), "0-0");
        assert_eq!(at.range_header(), "0-9");
    }
}
