//! Handlers of `/v2/<name>/manifests/<reference>`.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use registry_core::{
    digest::{Algorithm, Digest},
    manifest::{Manifest, Platform, media_type, parse},
    name::RepoName,
    oci_error::Code,
    reference::{Reference, Tag},
    store::{Change, Content, INLINE_MAX, NewBlob, NewManifest, StoreError},
};
use registry_store::hash::digest_of;
use serde_json::json;

use crate::{
    answers::{ContentHeaders, ServedManifest},
    api::{
        CONTENT_DIGEST, Call, Reply,
        blobs::{matches_etag, mend, write_file},
        digest_param, empty,
        inbound::Inbound,
        route::encode,
    },
    app::{App, now},
    body::Body,
    config::settings::UrlRules,
    failure::Failure,
    notify::{Action, Target, Told},
};

/// Manifests up to this many bytes are kept in memory once they were read.
const KEEP_MAX: usize = 256 * 1024;
/// Most `tag` parameters of one request; the specification asks for at least ten.
const TAGS_MAX: usize = 100;

/// Serves a manifest exactly as it was pushed.
pub(crate) async fn get(call: &Call<'_>, name: &RepoName, reference: &Reference) -> Reply {
    let mut manifest = find(call, name, reference).await?.ok_or_else(|| unknown(reference))?;
    if let Some(child) = child_for_old_client(call, reference, &manifest) {
        let reference = Reference::Digest(child);
        manifest = find(call, name, &reference).await?.ok_or_else(|| unknown(&reference))?;
    }
    note_use(call, name, &manifest).await?;
    let mut response = if matches_etag(call, &manifest.headers) {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::Full(manifest.bytes.clone()))
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&manifest.media_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(CONTENT_DIGEST, manifest.headers.digest.clone());
    headers.insert(header::ETAG, manifest.headers.etag.clone());
    if response.status() == StatusCode::OK && call.head.method == http::Method::GET {
        let tag = if let Reference::Tag(tag) = reference { Some(tag) } else { None };
        let size = manifest.bytes.len() as u64;
        let target = Target::manifest(name, &manifest.digest, Some(size), Some(&manifest.media_type), tag);
        call.app.record(call.events(&Told { action: Action::Pull, target }));
    }
    Ok(call.finish(response))
}

/// Notes that a client was told of a manifest. One that gets it does not wait for that; one that only
/// asks whether it is here may rely on the answer, and waits, once in a while.
async fn note_use(call: &Call<'_>, name: &RepoName, manifest: &ServedManifest) -> Result<(), Failure> {
    let (app, now) = (call.app, now());
    if call.head.method == http::Method::GET {
        let noted_at = &manifest.noted_at;
        if app.pulls.is_due(noted_at.load(Ordering::Relaxed), now) && app.pulls.note(name, &manifest.digest, now) {
            noted_at.store(now, Ordering::Relaxed);
        }
        return Ok(());
    }
    let change = || Change::Used(vec![(name.clone(), manifest.digest, false)]);
    match app.leases.promise(&*app.metadata, &manifest.used_at, now, change).await {
        // Engines ask in this way before each pull, which a full disk shall not end.
        Err(StoreError::Full { operation }) => {
            tracing::warn!(operation, "no space left: the use of a manifest is not noted");
            Ok(())
        }
        noted => Ok(noted?),
    }
}

fn unknown(reference: &Reference) -> Failure {
    Failure::from(Code::ManifestUnknown).detail(json!(match reference {
        Reference::Tag(tag) => json!({ "Tag": tag.as_str() }),
        Reference::Digest(digest) => json!(format!("unknown manifest {digest}")),
    }))
}

async fn find(call: &Call<'_>, name: &RepoName, reference: &Reference) -> Result<Option<Arc<ServedManifest>>, Failure> {
    let app = call.app;
    if let Some(manifest) = app.answers.manifest(&*app.metadata, name, reference) {
        return Ok(Some(manifest));
    }
    let version = app.metadata.version(name);
    let Some(entry) = app.metadata.manifest(name, reference).await? else {
        return Ok(None);
    };
    let digest = entry.blob.digest;
    let bytes = match entry.blob.content {
        Content::Inline(bytes) => bytes,
        Content::Stored(place) => {
            let Some(reader) = app.blobs.open(&digest, &place).await? else {
                tracing::error!(%digest, "a manifest's bytes are gone from the data directory");
                return Ok(None);
            };
            let length = usize::try_from(entry.blob.size).unwrap_or(usize::MAX);
            let read = match reader.read_now(0, length) {
                Some(read) => read,
                None => tokio::task::spawn_blocking(move || reader.read(0, length))
                    .await
                    .unwrap_or_else(|error| Err(std::io::Error::other(error))),
            };
            read.map_err(|error| {
                tracing::error!(%digest, %error, "a manifest's file cannot be read");
                Failure::from(Code::Unknown).message("the manifest is damaged; push it again")
            })?
        }
    };
    let headers = ContentHeaders::new(&digest);
    let used_at = entry.blob.used_at.into();
    let noted_at = AtomicI64::new(0);
    let manifest = Arc::new(ServedManifest { digest, media_type: entry.media_type, bytes, headers, used_at, noted_at });
    if manifest.bytes.len() <= KEEP_MAX {
        app.answers.keep_manifest(version, name, reference, &manifest);
    }
    Ok(Some(manifest))
}

/// The linux/amd64 image of a Docker list that a client from before lists asks for by tag.
fn child_for_old_client(call: &Call<'_>, reference: &Reference, manifest: &ServedManifest) -> Option<Digest> {
    if manifest.media_type != media_type::DOCKER_LIST || !matches!(reference, Reference::Tag(_)) {
        return None;
    }
    let accepted: Vec<&str> = call
        .head
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or(kind).trim())
        .collect();
    let takes = |kind: &str| accepted.contains(&kind);
    if takes(media_type::DOCKER_LIST) || takes("*/*") || takes("application/*") || !takes(media_type::DOCKER_MANIFEST) {
        return None;
    }
    let wanted = Platform { architecture: "amd64".into(), os: "linux".into() };
    let list = parse(&manifest.bytes, Some(&manifest.media_type)).ok()?;
    list.links.into_iter().find(|link| link.platform.as_ref() == Some(&wanted)).map(|link| link.digest)
}

/// Takes a manifest.
pub(crate) async fn put(call: &Call<'_>, name: &RepoName, reference: &Reference, body: &mut Inbound) -> Reply {
    let bytes = receive(call, body).await?;
    let algorithm = match reference {
        Reference::Digest(digest) => digest.algorithm(),
        Reference::Tag(_) => match call.query.get("digest") {
            // A tag may be put together with the digest that shall name its manifest.
            Some(text) => digest_param(text)?.algorithm(),
            None => Algorithm::Sha256,
        },
    };
    let digest = digest_of(algorithm, &bytes);
    let wanted = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => call.query.get("digest").map(digest_param).transpose()?,
    };
    if wanted.is_some_and(|wanted| wanted != digest) {
        return Err(Failure::from(Code::DigestInvalid)
            .message(format!("the manifest's digest is {digest}, not the one that it was pushed as")));
    }
    let content_type = call.header(header::CONTENT_TYPE);
    let manifest = parse(&bytes, content_type)?;
    if let Some(rules) = &call.app.config.validation.urls {
        check_urls(&manifest, rules)?;
    }
    let (tags, by_query) = tags(call, reference)?;
    let subject = manifest.subject;
    let events = put_events(call, name, &digest, bytes.len() as u64, &manifest, &tags);
    let rings = !events.is_empty();
    let (app, repository) = (Arc::clone(call.app), name.clone());
    let work = async move {
        let _claim = app.claims.share([&digest]).await;
        let blob = store_bytes(&app, &repository, digest, bytes).await?;
        let index_policy = app.index_policy.clone();
        let new = Box::new(NewManifest { blob, manifest, tags, index_policy });
        app.metadata.apply(Change::PutManifest(repository, new), events).await?;
        app.ring(rings);
        Ok(())
    };
    call.app.commits.run(work).await?;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, call.url(&format!("/v2/{name}/manifests/{digest}")));
    headers.insert(CONTENT_DIGEST, ContentHeaders::new(&digest).digest);
    if let Some(subject) = subject {
        headers.insert(HeaderName::from_static("oci-subject"), ContentHeaders::new(&subject).digest);
    }
    if !by_query.is_empty() {
        let list = by_query.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ");
        headers
            .insert(HeaderName::from_static("oci-tag"), HeaderValue::try_from(list).expect("tags are printable ASCII"));
    }
    Ok(call.finish(response))
}

async fn receive(call: &Call<'_>, body: &mut Inbound) -> Result<Bytes, Failure> {
    let limit = call.app.config.limits.manifest;
    let too_large =
        || Failure::from(Code::ManifestTooLarge).message(format!("manifests may have up to {limit} bytes here"));
    if call.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let Ok(_turn) = call.app.receiving.try_acquire() else {
        return Err(Failure::unavailable("too many uploads are under way; try again"));
    };
    body.whole(limit).await?.ok_or_else(too_large)
}

/// The tags to set, and which of them the query named.
fn tags(call: &Call<'_>, reference: &Reference) -> Result<(Vec<Tag>, Vec<Tag>), Failure> {
    let mut tags = Vec::new();
    if let Reference::Tag(tag) = reference {
        tags.push(tag.clone());
        return Ok((tags, Vec::new()));
    }
    for text in call.query.all("tag") {
        let tag: Tag = text.parse().map_err(|error: registry_core::reference::TagError| {
            Failure::from(Code::TagInvalid).message(error.to_string()).detail(json!({ "tag": encode(text) }))
        })?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > TAGS_MAX {
            return Err(Failure::from(Code::TagInvalid)
                .status(StatusCode::URI_TOO_LONG)
                .message(format!("at most {TAGS_MAX} tags can be set at a time")));
        }
    }
    Ok((tags.clone(), tags))
}

fn check_urls(manifest: &Manifest, rules: &UrlRules) -> Result<(), Failure> {
    for url in manifest.links.iter().flat_map(|link| &link.urls) {
        let web = url.starts_with("http://") || url.starts_with("https://");
        let allowed = if rules.allow.is_empty() {
            !rules.deny.is_empty()
        } else {
            rules.allow.iter().any(|rule| rule.is_match(url))
        };
        if !web || !allowed || rules.deny.iter().any(|rule| rule.is_match(url)) {
            return Err(Failure::from(Code::ManifestInvalid)
                .message(format!("the URL {url:?} in the manifest is not allowed; see validation.manifests.urls")));
        }
    }
    Ok(())
}

fn put_events(
    call: &Call<'_>,
    name: &RepoName,
    digest: &Digest,
    size: u64,
    manifest: &Manifest,
    tags: &[Tag],
) -> Vec<registry_core::store::OutboxEvent> {
    let shown: Vec<Option<&Tag>> = if tags.is_empty() { vec![None] } else { tags.iter().map(Some).collect() };
    shown
        .into_iter()
        .flat_map(|tag| {
            let mut target = Target::manifest(name, digest, Some(size), Some(&manifest.media_type), tag);
            target.references = &manifest.links;
            call.events(&Told { action: Action::Push, target })
        })
        .collect()
}

/// Brings a manifest's bytes to where its row can name them.
async fn store_bytes(app: &App, name: &RepoName, digest: Digest, bytes: Bytes) -> Result<NewBlob, Failure> {
    let size = bytes.len() as u64;
    if bytes.len() <= INLINE_MAX {
        return mend(app, name, NewBlob { digest, size, content: Content::Inline(bytes) }).await;
    }
    write_file(app, name, digest, bytes).await
}

/// Takes away a tag, or a manifest with its tags.
pub(crate) async fn delete(call: &Call<'_>, name: &RepoName, reference: &Reference) -> Reply {
    let (change, target) = match reference {
        Reference::Tag(tag) => (Change::DeleteTag(name.clone(), tag.clone()), Target::tag(name, tag)),
        Reference::Digest(digest) => {
            (Change::DeleteManifest(name.clone(), *digest), Target::manifest(name, digest, None, None, None))
        }
    };
    let events = call.events(&Told { action: Action::Delete, target });
    let rings = !events.is_empty();
    call.app.metadata.apply(change, events).await?;
    call.app.ring(rings);
    Ok(call.finish(empty(StatusCode::ACCEPTED)))
}
