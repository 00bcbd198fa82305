//! Handlers of the lists: catalog, tags, referrers. Their cost follows the page, not the registry.

use http::{HeaderName, HeaderValue, StatusCode, header};
use registry_core::{
    access::Grant, digest::Digest, manifest::media_type, name::RepoName, oci_error::Code, page::parse_limit,
};
use serde_json::json;

use crate::{
    api::{Call, Reply, json_body, route::encode},
    failure::Failure,
};

/// Entries of a catalog page when the client does not say.
const CATALOG_PAGE: usize = 100;
/// Tags that are read at a time.
const TAGS_PART: usize = 4096;
/// Bytes of descriptors in one page of referrers: the size that clients are sure to take.
const REFERRERS_BYTES: usize = 3 * 1024 * 1024;
/// Descriptors in one page of referrers.
const REFERRERS_PAGE: usize = 4096;

fn limit(call: &Call<'_>) -> Result<Option<usize>, Failure> {
    parse_limit(call.query.get("n")).map_err(|error| {
        Failure::from(Code::PaginationNumberInvalid).message(error.to_string()).detail(json!({ "n": error.0 }))
    })
}

fn next_link(call: &Call<'_>, path: &str, query: &str) -> HeaderValue {
    let link = format!("<{}{path}?{query}>; rel=\"next\"", call.app.config.http.prefix);
    HeaderValue::try_from(link).expect("names, digests and encoded text are ASCII")
}

/// Lists the repositories that hold a manifest and that the caller may see.
pub(crate) async fn catalog(call: &Call<'_>) -> Reply {
    let most = call.app.config.catalog_max_entries as usize;
    let limit = match limit(call)? {
        None => CATALOG_PAGE.min(most),
        Some(n) if n > most => {
            return Err(Failure::from(Code::PaginationNumberInvalid)
                .message(format!("n is {n}, this registry lists up to {most} repositories at a time"))
                .detail(json!({ "n": n })));
        }
        Some(n) => n,
    };
    let last = call.query.get("last").filter(|last| !last.is_empty());
    let (names, more) = if limit == 0 { (Vec::new(), false) } else { visible(call, last, limit).await? };
    let shown: Vec<&str> = names.iter().map(RepoName::as_str).collect();
    let mut response = json_body(StatusCode::OK, json!({ "repositories": shown }).to_string() + "\n");
    if more && let Some(last) = names.last() {
        let query = format!("last={}&n={limit}", encode(last.as_str()));
        response.headers_mut().insert(header::LINK, next_link(call, "/v2/_catalog", &query));
    }
    Ok(call.finish(response))
}

/// A page of what the caller may see, and whether they may see more: what they may not leaves no
/// trace, not even an empty page behind this one.
async fn visible(call: &Call<'_>, last: Option<&str>, limit: usize) -> Result<(Vec<RepoName>, bool), Failure> {
    let grant = &call.permit.grant;
    let sees_all = !matches!(grant, Grant::Policy(_));
    // Who sees little makes the server look at much: not many at a time, and in large pieces.
    let _turn = match sees_all {
        true => None,
        false => Some(call.app.listing.acquire().await.expect("the semaphore is never closed")),
    };
    // One more than is shown tells whether there is more.
    let part = if sees_all { limit } else { CATALOG_PAGE.max(limit + 1) };
    let mut names = Vec::new();
    let mut after = last.map(str::to_owned);
    loop {
        let page = call.app.metadata.repositories(after.as_deref(), part).await?;
        after = page.entries.last().map(|name| name.as_str().to_owned());
        for name in page.entries.into_iter().filter(|name| grant.may_see(name)) {
            if names.len() == limit {
                return Ok((names, true));
            }
            names.push(name);
        }
        if !page.more || (sees_all && names.len() == limit) {
            return Ok((names, page.more));
        }
    }
}

/// Lists the tags of a repository.
pub(crate) async fn tags(call: &Call<'_>, name: &RepoName) -> Reply {
    let asked = limit(call)?;
    let limit = asked.map(|n| n.min(call.app.config.tags_max as usize));
    let last = call.query.get("last").filter(|last| !last.is_empty());
    // Without `n` a client wants all there are: as many as one may be, in memory twice at most.
    let _turn = match limit {
        Some(_) => None,
        None => Some(call.app.listing.acquire().await.expect("the semaphore is never closed")),
    };
    // Tags are made of characters that JSON takes as they are.
    let mut body = format!("{{\"name\":\"{name}\",\"tags\":[");
    let mut after = last.map(str::to_owned);
    let mut count = 0;
    let more = loop {
        let wanted = limit.map_or(TAGS_PART, |limit| TAGS_PART.min(limit - count));
        let page = call.app.metadata.tags(name, after.as_deref(), wanted).await?;
        let page = page.ok_or_else(|| Failure::from(Code::NameUnknown).detail(json!({ "name": name.as_str() })))?;
        for tag in &page.entries {
            body.push_str(if count == 0 { "\"" } else { ",\"" });
            body.push_str(tag);
            body.push('"');
            count += 1;
        }
        let more = page.more && limit != Some(0);
        after = page.entries.into_iter().last().or(after);
        if !more || limit == Some(count) {
            break more;
        }
        // Others have their turn between the parts.
        tokio::task::yield_now().await;
    };
    body.push_str("]}\n");
    let mut response = json_body(StatusCode::OK, body);
    if let (true, Some(last), Some(limit)) = (more, after, limit) {
        let link = next_link(call, &format!("/v2/{name}/tags/list"), &format!("last={}&n={limit}", encode(&last)));
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(call.finish(response))
}

/// Lists what refers to a manifest. Unknown digests have no referrers.
pub(crate) async fn referrers(call: &Call<'_>, name: &RepoName, subject: &Digest) -> Reply {
    let wanted = call.query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let after = match call.query.get("last") {
        None => None,
        Some(text) => Some(
            text.parse::<Digest>()
                .map_err(|error| Failure::from(Code::DigestInvalid).message(format!("last: {error}")))?,
        ),
    };
    // The specification leaves the page to the registry; `n` works as it does for tags.
    let limit = limit(call)?.map_or(REFERRERS_PAGE, |n| n.clamp(1, REFERRERS_PAGE));
    let page = call.app.metadata.referrers(name, subject, wanted, after.as_ref(), limit, REFERRERS_BYTES).await?;
    let mut body = String::with_capacity(128 + page.entries.iter().map(|(_, text)| text.len() + 1).sum::<usize>());
    body.push_str("{\"schemaVersion\":2,\"mediaType\":\"");
    body.push_str(media_type::OCI_INDEX);
    body.push_str("\",\"manifests\":[");
    for (index, (_, descriptor)) in page.entries.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(descriptor);
    }
    body.push_str("]}");
    let mut response = json_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    if wanted.is_some() {
        headers.insert(HeaderName::from_static("oci-filters-applied"), HeaderValue::from_static("artifactType"));
    }
    if page.more
        && let Some((last, _)) = page.entries.last()
    {
        let mut query = format!("last={last}");
        if let Some(wanted) = wanted {
            query = format!("artifactType={}&{query}", encode(wanted));
        }
        if call.query.get("n").is_some() {
            query = format!("{query}&n={limit}");
        }
        let link = next_link(call, &format!("/v2/{name}/referrers/{subject}"), &query);
        headers.insert(header::LINK, link);
    }
    Ok(call.finish(response))
}
