//! Handlers of `/v2/<name>/blobs/<digest>`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use registry_core::{
    digest::Digest,
    name::RepoName,
    oci_error::Code,
    range::{Selection, Slice, select},
    store::{Change, Commit, Content, NewBlob},
};
use serde_json::json;

use crate::{
    answers::{BlobSource, ContentHeaders, ServedBlob},
    api::{CONTENT_DIGEST, Call, Reply, empty, route::UploadId},
    app::{App, now, random},
    body::Body,
    failure::Failure,
    notify::{Action, Target, Told},
};

/// Blobs up to this many bytes are kept in memory once they were read.
const KEEP_MAX: u64 = 16 * 1024;

/// What a digest names never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// Serves a blob or a slice of it.
pub(crate) async fn get(call: &Call<'_>, name: &RepoName, digest: &Digest) -> Reply {
    let blob = find(call, name, digest).await?;
    if call.head.method == http::Method::HEAD {
        let app = call.app;
        let change = || Change::Promise(name.clone(), *digest);
        app.leases.promise(&*app.metadata, &blob.used_at, now(), change).await?;
    }
    let mut response = if matches_etag(call, &blob.headers) {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        serve(call, &blob)?
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, blob.headers.digest.clone());
    headers.insert(header::ETAG, blob.headers.etag.clone());
    headers.insert(header::CACHE_CONTROL, FOREVER);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if response.status() == StatusCode::OK && call.head.method == http::Method::GET {
        let target = Target::blob(name, digest, Some(blob.size));
        call.app.record(call.events(&Told { action: Action::Pull, target }));
    }
    Ok(call.finish(response))
}

/// Whether the client has the content already. Quoted or not, weak or not, in a list or alone.
pub(crate) fn matches_etag(call: &Call<'_>, content: &ContentHeaders) -> bool {
    let digest = content.digest.to_str().unwrap_or_default();
    let lines = call.head.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.trim_matches('"') == digest
    })
}

/// What is said of a blob that the repository does not hold.
pub(crate) fn unknown(digest: &Digest) -> Failure {
    Failure::from(Code::BlobUnknown).detail(json!(digest.to_string()))
}

async fn find(call: &Call<'_>, name: &RepoName, digest: &Digest) -> Result<Arc<ServedBlob>, Failure> {
    let app = call.app;
    if let Some(blob) = app.answers.blob(&*app.metadata, name, digest) {
        return Ok(blob);
    }
    let version = app.metadata.version(name);
    let entry = app.metadata.blob(name, digest).await?.ok_or_else(|| unknown(digest))?;
    let headers = ContentHeaders::new(digest);
    let source = match entry.content {
        Content::Inline(bytes) => BlobSource::Bytes(bytes),
        Content::Stored(place) => {
            let Some(reader) = app.blobs.open(digest, &place).await? else {
                tracing::error!(%digest, "a blob's bytes are gone from the data directory");
                return Err(unknown(digest));
            };
            if reader.size() != entry.size {
                tracing::error!(%digest, size = reader.size(), wanted = entry.size, "a blob's file has a wrong size");
                return Err(Failure::from(Code::Unknown).message("the blob is damaged; push it again"));
            }
            match entry.size {
                size @ 1..=KEEP_MAX => match reader.read_now(0, size as usize) {
                    Some(Ok(bytes)) => BlobSource::Bytes(bytes),
                    _ => BlobSource::Reader(reader),
                },
                _ => BlobSource::Reader(reader),
            }
        }
    };
    let blob = Arc::new(ServedBlob { size: entry.size, source, headers, used_at: entry.used_at.into() });
    if blob.size <= KEEP_MAX || matches!(blob.source, BlobSource::Reader(_)) {
        app.answers.keep_blob(version, name, digest, &blob);
    }
    Ok(blob)
}

fn serve(call: &Call<'_>, blob: &ServedBlob) -> Reply {
    // A range that depends on another version of the content asks for the whole.
    let range = call
        .header(header::RANGE)
        .filter(|_| call.header(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == blob.headers.etag.as_bytes()));
    let (slice, status) = match select(range, blob.size) {
        Selection::Whole => (Slice { start: 0, end: blob.size }, StatusCode::OK),
        Selection::Part(slice) => (slice, StatusCode::PARTIAL_CONTENT),
        Selection::Unsatisfiable => {
            return Err(Failure::from(Code::RangeInvalid)
                .message("the blob has no such bytes")
                .header(header::CONTENT_RANGE, &format!("bytes */{}", blob.size)));
        }
    };
    let body = match &blob.source {
        _ if slice.start == slice.end => Body::Empty,
        BlobSource::Bytes(bytes) => Body::Full(bytes.slice(slice.start as usize..slice.end as usize)),
        BlobSource::Reader(reader) => {
            let kernel = call.peer.copies.as_ref().filter(|_| call.head.version < http::Version::HTTP_2);
            // For HEAD the body only says how long it would be.
            Body::blob(Arc::clone(reader), slice, kernel.filter(|_| call.head.method == http::Method::GET))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (slice.end - slice.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{}", slice.start, slice.end - 1, blob.size);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("digits are a header value"));
    }
    Ok(response)
}

/// Makes a push of small bytes mend a file that is gone or cut short: where a row says that they
/// are in their file, and they are not, they are written there again.
///
/// The digest is claimed until the row is there.
pub(crate) async fn mend(app: &App, name: &RepoName, blob: NewBlob) -> Result<NewBlob, Failure> {
    let Content::Inline(bytes) = &blob.content else {
        return Ok(blob);
    };
    let Some(Content::Stored(place)) = app.metadata.blob_anywhere(&blob.digest).await?.map(|known| known.content)
    else {
        return Ok(blob);
    };
    if app.blobs.open(&blob.digest, &place).await?.is_some_and(|reader| reader.size() == blob.size) {
        return Ok(blob);
    }
    tracing::warn!(digest = %blob.digest, "a damaged blob is mended by a push");
    write_file(app, name, blob.digest, bytes.clone()).await
}

/// Writes bytes at hand to a file, durably. The digest is claimed until the row is there.
pub(crate) async fn write_file(app: &App, name: &RepoName, digest: Digest, bytes: Bytes) -> Result<NewBlob, Failure> {
    let id = UploadId::from_random(random());
    let mut staging = app.blobs.stage(name, id.as_str(), digest.algorithm()).await?;
    staging.append(bytes).await?;
    let place = app.metadata.place(&digest).await?;
    match staging.commit(digest, place).await? {
        Commit::Stored { place, size } => Ok(NewBlob { digest, size, content: Content::Stored(place) }),
        Commit::Mismatch { .. } => {
            Err(Failure::from(Code::Unknown).message("the content changed on its way to the disk"))
        }
    }
}

/// Takes a blob out of a repository.
pub(crate) async fn delete(call: &Call<'_>, name: &RepoName, digest: &Digest) -> Reply {
    let target = Target::blob(name, digest, None);
    let events = call.events(&Told { action: Action::Delete, target });
    let rings = !events.is_empty();
    call.app.metadata.apply(Change::DeleteBlob(name.clone(), *digest), events).await?;
    call.app.ring(rings);
    let mut response = empty(StatusCode::ACCEPTED);
    response.headers_mut().insert(CONTENT_DIGEST, ContentHeaders::new(digest).digest);
    Ok(call.finish(response))
}
