//! Handlers of `/v2/<name>/blobs/uploads/`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use registry_core::{
    digest::{Algorithm, Digest},
    name::RepoName,
    oci_error::Code,
    range::{Slice, parse_content_range},
    store::{Change, OutboxEvent, Refusal, StoreError},
    upload::ChunkError,
};

use crate::{
    answers::ContentHeaders,
    api::{CONTENT_DIGEST, Call, Reply, blobs::mend, digest_param, empty, inbound::Inbound, route::UploadId},
    app::{App, random},
    body::Body,
    failure::Failure,
    notify::{Action, Target, Told},
    sessions::{End, Held, Session},
};

/// How many holders of a blob are looked at for a mount that names none.
const HOLDERS: usize = 64;

/// Mounts a blob, takes a whole one, or begins an upload.
pub(crate) async fn post(call: &Call<'_>, name: &RepoName, body: &mut Inbound) -> Reply {
    if let Some(mount) = call.query.get("mount") {
        let digest = digest_param(mount)?;
        if let Some(response) = try_mount(call, name, &digest).await? {
            return Ok(response);
        }
    }
    let algorithm = match call.query.get("digest-algorithm") {
        None | Some("") => Algorithm::Sha256,
        Some(text) => text
            .parse()
            .map_err(|_| Failure::from(Code::DigestInvalid).message("digest-algorithm is neither sha256 nor sha512"))?,
    };
    let digest = match call.query.get("digest") {
        Some(text) => Some(digest_param(text)?),
        None => None,
    };
    let algorithm = digest.map_or(algorithm, |digest| digest.algorithm());
    let app = call.app;
    app.sessions.admit(&*app.metadata, name).await?;
    let mut held = app.sessions.begin(&*app.blobs, name, UploadId::from_random(random()), algorithm).await;
    match digest {
        Some(digest) => {
            if let Err(failure) = receive(call, &mut held, None, body).await {
                // Nobody was told its name: nobody can go on with it.
                held.received.discard().await.ok();
                app.sessions.forget(&held.session.id);
                return Err(failure);
            }
            commit(call, held, digest).await
        }
        None => Ok(call.finish(accepted(call, &held.session, 0))),
    }
}

async fn try_mount(call: &Call<'_>, name: &RepoName, digest: &Digest) -> Result<Option<Response<Body>>, Failure> {
    let app = call.app;
    let from = match call.query.get("from") {
        // A malformed or forbidden source is none: the client uploads.
        Some(text) => text.parse::<RepoName>().ok().filter(|from| call.permit.grant.may_pull(from)),
        None => {
            let holders = app.metadata.holders(digest, HOLDERS).await?;
            holders.into_iter().find(|holder| call.permit.grant.may_pull(holder))
        }
    };
    let Some(from) = from else {
        return Ok(None);
    };
    let mut target = Target::blob(name, digest, None);
    target.from = Some(&from);
    let events = call.events(&Told { action: Action::Mount, target });
    let rings = !events.is_empty();
    let change = Change::Mount { digest: *digest, from: from.clone(), to: name.clone() };
    match app.metadata.apply(change, events).await {
        Ok(()) => {
            app.ring(rings);
            Ok(Some(call.finish(created(call, name, digest))))
        }
        Err(StoreError::Refused(Refusal::BlobUnknown(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn created(call: &Call<'_>, name: &RepoName, digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, call.url(&format!("/v2/{name}/blobs/{digest}")));
    headers.insert(CONTENT_DIGEST, ContentHeaders::new(digest).digest);
    response
}

/// The state of an upload in the headers of an answer.
fn state(call: &Call<'_>, session: &Session, next: u64, mut response: Response<Body>) -> Response<Body> {
    let (name, id) = (&session.repository, session.id.as_str());
    let range = registry_core::upload::Progress { next }.range_header();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, call.url(&format!("/v2/{name}/blobs/uploads/{id}")));
    headers.insert(header::RANGE, HeaderValue::try_from(range).expect("digits are a header value"));
    let id = HeaderValue::from_str(id).expect("a UUID is a header value");
    headers.insert(HeaderName::from_static("docker-upload-uuid"), id);
    response
}

fn accepted(call: &Call<'_>, session: &Session, next: u64) -> Response<Body> {
    state(call, session, next, empty(StatusCode::ACCEPTED))
}

async fn find(call: &Call<'_>, name: &RepoName, id: &UploadId) -> Result<Held, Failure> {
    let app = call.app;
    app.sessions.find(&*app.blobs, name, id).await?.ok_or_else(|| Failure::from(Code::BlobUploadUnknown))
}

/// Says how far an upload has come.
pub(crate) async fn status(call: &Call<'_>, name: &RepoName, id: &UploadId) -> Reply {
    let held = find(call, name, id).await?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(call.finish(state(call, &held.session, held.received.progress.next, response)))
}

/// Takes the next part of an upload.
pub(crate) async fn patch(call: &Call<'_>, name: &RepoName, id: &UploadId, body: &mut Inbound) -> Reply {
    let mut held = find(call, name, id).await?;
    let range = check_range(call, &held)?;
    receive(call, &mut held, range, body).await?;
    held.received.flush().await?;
    Ok(call.finish(accepted(call, &held.session, held.received.progress.next)))
}

/// Takes the last part of an upload, if there is one, and ends it.
pub(crate) async fn put(call: &Call<'_>, name: &RepoName, id: &UploadId, body: &mut Inbound) -> Reply {
    let digest = call
        .query
        .get("digest")
        .ok_or_else(|| Failure::from(Code::DigestInvalid).message("the digest parameter is missing"))?;
    let digest = digest_param(digest)?;
    let mut held = find(call, name, id).await?;
    let range = check_range(call, &held)?;
    receive(call, &mut held, range, body).await?;
    commit(call, held, digest).await
}

/// Throws an upload away.
pub(crate) async fn cancel(call: &Call<'_>, name: &RepoName, id: &UploadId) -> Reply {
    let mut held = find(call, name, id).await?;
    held.received.discard().await?;
    call.app.sessions.forget(id);
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let id = HeaderValue::from_str(id.as_str()).expect("a UUID is a header value");
    response.headers_mut().insert(HeaderName::from_static("docker-upload-uuid"), id);
    Ok(call.finish(response))
}

/// Reads `Content-Range` and checks it before the first byte is read.
fn check_range(call: &Call<'_>, held: &Held) -> Result<Option<Slice>, Failure> {
    let (session, received) = (&held.session, &held.received);
    let range = match call.header(header::CONTENT_RANGE) {
        None => None,
        Some(text) => Some(parse_content_range(text).ok_or_else(|| {
            Failure::from(Code::RangeInvalid)
                .status(StatusCode::BAD_REQUEST)
                .message("Content-Range of a chunk is <first>-<last>, both inclusive")
        })?),
    };
    match received.progress.accept(range, call.content_length()) {
        Ok(()) => Ok(range),
        Err(error @ ChunkError::OutOfOrder { .. }) => {
            let path = format!("/v2/{}/blobs/uploads/{}", session.repository, session.id.as_str());
            let location = call.url(&path);
            Err(Failure::from(Code::RangeInvalid)
                .message(error.to_string())
                .header(header::LOCATION, location.to_str().unwrap_or(&path))
                .header(header::RANGE, &received.progress.range_header())
                .header(HeaderName::from_static("docker-upload-uuid"), session.id.as_str()))
        }
        Err(error @ ChunkError::Length { .. }) => Err(Failure::from(Code::SizeInvalid).message(error.to_string())),
    }
}

/// Receives a body into an upload. A body in chunks says its length only by ending: it has to
/// fill the range that it came with.
async fn receive(call: &Call<'_>, held: &mut Held, range: Option<Slice>, body: &mut Inbound) -> Result<(), Failure> {
    if body.is_over() {
        return Ok(());
    }
    let Ok(_turn) = call.app.receiving.try_acquire() else {
        return Err(Failure::unavailable("too many uploads are under way; try again"));
    };
    if let Some(length) = call.content_length() {
        reserve(call, held, length, false).await?;
    }
    let unfilled = || Failure::from(Code::SizeInvalid).message("the chunk does not fill its Content-Range");
    while let Some(bytes) = body.next().await? {
        let length = bytes.len() as u64;
        if range.is_some_and(|range| held.received.progress.next + length > range.end) {
            return Err(unfilled());
        }
        reserve(call, held, length, true).await?;
        held.received.append(&*call.app.blobs, &held.session, bytes).await?;
    }
    if range.is_some_and(|range| held.received.progress.next != range.end) {
        return Err(unfilled());
    }
    Ok(())
}

/// Reserves room for `more` bytes, or ends the upload: no later part of it could help.
async fn reserve(call: &Call<'_>, held: &mut Held, more: u64, others_follow: bool) -> Result<(), Failure> {
    let reserved = held.received.reserve(&*call.app.metadata, more, others_follow).await;
    if matches!(reserved, Err(StoreError::Refused(_))) {
        held.received.discard().await.ok();
        call.app.sessions.forget(&held.session.id);
    }
    Ok(reserved?)
}

/// Makes an upload a blob of its repository. Ended or failed, nobody can go on with it.
async fn commit(call: &Call<'_>, mut held: Held, digest: Digest) -> Reply {
    let name = held.session.repository.clone();
    let target = Target::blob(&name, &digest, Some(held.received.progress.next));
    let events = call.events(&Told { action: Action::Push, target });
    let app = Arc::clone(call.app);
    let work = async move {
        let ended = end(&app, &mut held, digest, events).await;
        app.sessions.forget(&held.session.id);
        ended
    };
    call.app.commits.run(work).await?;
    Ok(call.finish(created(call, &name, &digest)))
}

async fn end(app: &App, held: &mut Held, digest: Digest, events: Vec<OutboxEvent>) -> Result<(), Failure> {
    let name = &held.session.repository;
    let _claim = app.claims.share([&digest]).await;
    let blob = match held.received.finish(&*app.metadata, digest).await? {
        End::Whole(blob) => blob,
        End::Mismatch(actual) => {
            return Err(Failure::from(Code::DigestInvalid)
                .message(format!("provided digest {digest} did not match uploaded content, which is {actual}")));
        }
    };
    let blob = mend(app, name, blob).await?;
    let rings = !events.is_empty();
    app.metadata.apply(Change::PutBlob(name.clone(), blob), events).await?;
    app.ring(rings);
    Ok(())
}
