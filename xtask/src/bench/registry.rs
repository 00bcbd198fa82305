//! The registry protocol as clients speak it: requests, uploads in their styles, manifests, lists.
//!
//! Every function checks the status it must see and names the request when it differs. It measures nothing.

use anyhow::{Context, Result, bail};

use super::http::Conn;
use super::payload::{Blob, digest_of};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Body of one HTTP chunk as Docker sends them: Go copies 32 KiB at a time.
const FRAME: usize = 32 * 1024;

/// How a blob is uploaded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// POST, then the bytes in the closing PUT; containerd and buildkit.
    Put,
    /// POST, one PATCH in chunked transfer coding without `Content-Range`, PUT; docker push.
    Stream,
    /// POST, a PATCH with `Content-Range` for each so many bytes, PUT.
    Chunks(usize),
    /// One POST with `?digest=`.
    Post,
}

/// A manifest, ready to be sent.
pub(crate) struct Manifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

/// A request without body; `headers` are whole lines.
pub(crate) fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    let length = if matches!(method, "POST" | "PATCH" | "PUT") { "Content-Length: 0\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{headers}{length}\r\n").into_bytes()
}

/// A request for an image manifest by tag or digest.
pub(crate) fn manifest_request(method: &str, repo: &str, reference: &str) -> Vec<u8> {
    let accept = format!("Accept: {OCI_MANIFEST}\r\n");
    request(method, &format!("/v2/{repo}/manifests/{reference}"), &accept)
}

/// A request for a blob.
pub(crate) fn blob_request(method: &str, repo: &str, digest: &str) -> Vec<u8> {
    request(method, &format!("/v2/{repo}/blobs/{digest}"), "")
}

/// An image manifest; `mark` makes it unique.
pub(crate) fn image(blobs: &[Blob<'_>], subject: Option<&Manifest>, mark: u64) -> Manifest {
    let descriptor = |kind: &str, digest: &str, size: usize| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let config = descriptor("config.v1+json", &blobs[0].digest, blobs[0].size());
    let layers: Vec<String> =
        blobs[1..].iter().map(|blob| descriptor("layer.v1.tar+gzip", &blob.digest, blob.size())).collect();
    let subject = subject
        .map(|m| format!(r#","subject":{}"#, descriptor("manifest.v1+json", &m.digest, m.bytes.len())))
        .unwrap_or_default();
    let layers = layers.join(",");
    Manifest::new(format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layers}]{subject},"annotations":{{"mark":"{mark}"}}}}"#
    ))
}

impl Manifest {
    fn new(text: String) -> Self {
        Self { digest: digest_of(text.as_bytes()), bytes: text.into_bytes() }
    }
}

/// Stores a manifest under a tag or its digest.
pub(crate) async fn put_manifest(conn: &mut Conn, repo: &str, reference: &str, manifest: &Manifest) -> Result<()> {
    let path = format!("/v2/{repo}/manifests/{reference}");
    let head = with_length("PUT", &path, OCI_MANIFEST, manifest.bytes.len(), "");
    conn.expect(&[&head, &manifest.bytes], false, 201).await?;
    Ok(())
}

/// Uploads a blob.
pub(crate) async fn push_blob(conn: &mut Conn, repo: &str, blob: &Blob<'_>, style: Style) -> Result<()> {
    const OCTETS: &str = "application/octet-stream";
    let uploads = format!("/v2/{repo}/blobs/uploads/");
    let [base, tail] = blob.slices(0, blob.size());
    if let Style::Post = style {
        let head = with_length("POST", &format!("{uploads}?digest={}", blob.digest), OCTETS, blob.size(), "");
        conn.expect(&[&head, base, tail], false, 201).await?;
        return Ok(());
    }
    conn.expect(&[&request("POST", &uploads, "")], false, 202).await?;
    let mut location = location(conn)?;
    match style {
        Style::Put | Style::Post => {
            let head = with_length("PUT", &closing(&location, &blob.digest), OCTETS, blob.size(), "");
            conn.expect(&[&head, base, tail], false, 201).await?;
            return Ok(());
        }
        Style::Stream => {
            let head = format!("PATCH {location} HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n");
            let sizes: Vec<String> = [FRAME, base.len() % FRAME, tail.len()].map(|n| format!("{n:x}\r\n")).into();
            let mut parts: Vec<&[u8]> = vec![head.as_bytes()];
            for frame in base.chunks(FRAME) {
                let size = &sizes[usize::from(frame.len() != FRAME)];
                parts.extend([size.as_bytes(), frame, b"\r\n"]);
            }
            if !tail.is_empty() {
                parts.extend([sizes[2].as_bytes(), tail, b"\r\n"]);
            }
            parts.push(b"0\r\n\r\n");
            conn.expect(&parts, false, 202).await?;
            location = self::location(conn)?;
        }
        Style::Chunks(step) => {
            for start in (0..blob.size()).step_by(step) {
                let end = blob.size().min(start + step);
                let range = format!("Content-Range: {start}-{}\r\n", end - 1);
                let head = with_length("PATCH", &location, OCTETS, end - start, &range);
                let [base, tail] = blob.slices(start, end);
                conn.expect(&[&head, base, tail], false, 202).await?;
                location = self::location(conn)?;
            }
        }
    }
    conn.expect(&[&request("PUT", &closing(&location, &blob.digest), "")], false, 201).await?;
    Ok(())
}

/// Makes a blob of the repository `from` available in another one.
pub(crate) async fn mount_blob(conn: &mut Conn, to: &str, from: &str, digest: &str) -> Result<()> {
    let path = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
    conn.expect(&[&request("POST", &path, "")], false, 201).await.map(drop)
}

/// Pushes an image as docker does: for each blob HEAD and a streamed upload, then the manifest by tag.
pub(crate) async fn push_image(conn: &mut Conn, repo: &str, tag: &str, blobs: &[Blob<'_>]) -> Result<Manifest> {
    for blob in blobs {
        conn.expect(&[&blob_request("HEAD", repo, &blob.digest)], false, 404).await?;
        push_blob(conn, repo, blob, Style::Stream).await?;
    }
    let manifest = image(blobs, None, 0);
    put_manifest(conn, repo, tag, &manifest).await?;
    Ok(manifest)
}

/// Reads a blob whole and fails unless its bytes are the right ones.
pub(crate) async fn check_blob(conn: &mut Conn, repo: &str, blob: &Blob<'_>) -> Result<()> {
    conn.expect(&[&blob_request("GET", repo, &blob.digest)], true, 200).await?;
    if conn.body() != blob.slices(0, blob.size()).concat() {
        bail!("blob {} of {} bytes came back different", blob.digest, blob.size());
    }
    Ok(())
}

/// Reads a list, following `Link` to its end; returns how often `entry` occurs in it, and in how many pages.
pub(crate) async fn walk(conn: &mut Conn, path: &str, entry: &str) -> Result<(usize, usize)> {
    let (mut path, mut entries, mut pages) = (path.to_owned(), 0, 0);
    loop {
        conn.expect(&[&request("GET", &path, "")], true, 200).await?;
        entries += memchr::memmem::find_iter(conn.body(), entry.as_bytes()).count();
        pages += 1;
        let Some(link) = conn.header("link") else {
            return Ok((entries, pages));
        };
        path = link.split(['<', '>']).nth(1).map(local).context("malformed Link")?.to_owned();
    }
}

/// The head of a request with a body of `length` bytes; `headers` are whole lines.
pub(crate) fn with_length(method: &str, path: &str, media: &str, length: usize, headers: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media}\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// The path and query of the last answer's `Location`.
pub(crate) fn location(conn: &Conn) -> Result<String> {
    conn.header("location").map(|text| local(text).to_owned()).context("answer without Location")
}

/// The address that closes an upload.
pub(crate) fn closing(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

/// Strips scheme and host.
pub(crate) fn local(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    }
}
