//! Owns a request's body on its way in: how long its next bytes may take, and whether all of it
//! was read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use registry_core::oci_error::Code;

use crate::failure::Failure;

/// Bytes of a refused body that are read to no end, so that its sender gets to see the answer.
const DRAIN_MAX: usize = 64 * 1024 * 1024;

/// A request's body.
pub(crate) struct Inbound {
    body: Incoming,
    idle: Duration,
    begun: bool,
    ended: bool,
}

impl Inbound {
    /// A body whose next bytes may take up to `idle` each time.
    pub(crate) fn new(body: Incoming, idle: Duration) -> Self {
        let ended = http_body::Body::is_end_stream(&body);
        Self { body, idle, begun: false, ended }
    }

    /// Whether nothing is left to read. A body in chunks only knows once its end was read.
    pub(crate) fn is_over(&self) -> bool {
        self.ended
    }

    /// Whether anybody asked for its bytes, which tells a waiting client to send them.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.begun = true;
        while !self.ended {
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Err(_) => {
                    return Err(Failure::from(Code::Unavailable)
                        .status(StatusCode::REQUEST_TIMEOUT)
                        .message("no more of the request arrived for too long"));
                }
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                // The client has gone; nobody will read this.
                Ok(Some(Err(error))) => {
                    return Err(Failure::from(Code::BlobUploadInvalid)
                        .status(StatusCode::BAD_REQUEST)
                        .message(format!("the request's body broke off: {error}")));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers carry nothing that a registry uses.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// All of it, unless that is more than `limit` bytes.
    pub(crate) async fn whole(&mut self, limit: u64) -> Result<Option<Bytes>, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(part) = self.next().await? {
            if (bytes.len() + part.len()) as u64 > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes.freeze()))
    }

    /// Reads what is left and forgets it. A connection that is closed, or a stream that is reset,
    /// with bytes unread can take the answer with it before the client has seen it.
    pub(crate) async fn drain(mut self) {
        let mut left = DRAIN_MAX;
        while let Ok(Some(bytes)) = self.next().await
            && left > bytes.len()
        {
            left -= bytes.len();
        }
    }
}
