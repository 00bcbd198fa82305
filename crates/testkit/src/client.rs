//! A registry client that records nothing and hides nothing: each step of a push by hand.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::{self, Response};
use crate::image::sha256;

/// Why a push was not acknowledged.
#[derive(Debug)]
pub enum PushError {
    /// No answer: the server may or may not have carried the step out.
    Lost(io::Error),
    /// An answer other than the one that acknowledges the step.
    Refused(Response),
}

impl From<io::Error> for PushError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Talks to one registry as one caller.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    authorization: Option<String>,
}

impl Client {
    /// An anonymous caller of the registry at `base` (`http://<host>:<port>`).
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), authorization: None }
    }

    /// The same, with a name and password in each request.
    pub fn basic(base: &str, user: &str, password: &str) -> Self {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        Self { base: base.to_owned(), authorization: Some(format!("Basic {pair}")) }
    }

    /// The same, with a bearer token in each request.
    pub fn bearer(base: &str, token: &str) -> Self {
        Self { base: base.to_owned(), authorization: Some(format!("Bearer {token}")) }
    }

    /// Sends a request to `target`, a path (`/v2/…`) or a whole URL as found in `Location`.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let url = match target.strip_prefix('/') {
            Some(_) => format!("{}{target}", self.base),
            None => target.to_owned(),
        };
        let mut headers = headers.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        http::send(method, &url, &headers, body)
    }

    /// Sends a GET that accepts every kind of manifest.
    pub fn get(&self, target: &str) -> io::Result<Response> {
        self.send("GET", target, &[("Accept", MANIFEST_TYPES)], b"")
    }

    /// Sends a HEAD that accepts every kind of manifest.
    pub fn head(&self, target: &str) -> io::Result<Response> {
        self.send("HEAD", target, &[("Accept", MANIFEST_TYPES)], b"")
    }

    /// Opens an upload in `repo`; returns where to send the next part.
    pub fn start_upload(&self, repo: &str) -> Result<String, PushError> {
        let opened = self.send("POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"")?;
        Ok(expect(opened, 202)?.header("location").to_owned())
    }

    /// Appends `part` at `offset`; returns where to send the next part.
    pub fn patch(&self, location: &str, offset: usize, part: &[u8]) -> Result<String, PushError> {
        let range = format!("{offset}-{}", (offset + part.len()).saturating_sub(1));
        let headers = [("Content-Type", OCTETS), ("Content-Range", range.as_str())];
        Ok(expect(self.send("PATCH", location, &headers, part)?, 202)?.header("location").to_owned())
    }

    /// Closes an upload with its last bytes; acknowledged when this returns `Ok`.
    pub fn finish(&self, location: &str, last: &[u8], digest: &str) -> Result<(), PushError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={digest}");
        let headers = [("Content-Type", OCTETS)];
        expect(self.send("PUT", &target, &headers, last)?, 201).map(drop)
    }

    /// Pushes `content` whole in the closing PUT; returns its digest.
    pub fn push_blob(&self, repo: &str, content: &[u8]) -> Result<String, PushError> {
        let digest = sha256(content);
        let location = self.start_upload(repo)?;
        self.finish(&location, content, &digest)?;
        Ok(digest)
    }

    /// Pushes `content` in parts of `part` bytes, as skopeo does; returns its digest.
    pub fn push_parts(&self, repo: &str, content: &[u8], part: usize) -> Result<String, PushError> {
        let digest = sha256(content);
        let mut location = self.start_upload(repo)?;
        for (index, bytes) in content.chunks(part).enumerate() {
            location = self.patch(&location, index * part, bytes)?;
        }
        self.finish(&location, b"", &digest)?;
        Ok(digest)
    }

    /// Puts a manifest under `reference` (tag or digest) with the media type it names itself.
    pub fn push_manifest(&self, repo: &str, reference: &str, manifest: &[u8]) -> Result<Response, PushError> {
        let value: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
        let kind = value["mediaType"].as_str().unwrap_or(OCTETS);
        let target = format!("/v2/{repo}/manifests/{reference}");
        expect(self.send("PUT", &target, &[("Content-Type", kind)], manifest)?, 201)
    }
}

/// Every manifest type there is, as a client that can read all would list them.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

const OCTETS: &str = "application/octet-stream";

fn expect(response: Response, status: u16) -> Result<Response, PushError> {
    if response.status == status { Ok(response) } else { Err(PushError::Refused(response)) }
}
