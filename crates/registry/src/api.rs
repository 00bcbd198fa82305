//! Owns the HTTP API: finds the route of a request, the handler of the route, and what every
//! answer carries.

pub(crate) mod admin;
pub(crate) mod blobs;
pub(crate) mod inbound;
pub(crate) mod lists;
pub(crate) mod manifests;
pub(crate) mod route;
pub(crate) mod token;
pub(crate) mod uploads;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use registry_core::{
    access::{Access, Action},
    digest::{Digest, DigestError},
    name::RepoName,
    oci_error::Code,
    store::{Answer, OutboxEvent},
};
use serde_json::json;

use crate::{
    api::{
        inbound::Inbound,
        route::{NoRoute, Query, Route},
    },
    app::{App, now},
    body::Body,
    failure::Failure,
    notify::{Requested, Told},
    permit::{Permit, client_address, permit, permit_with},
    sendfile::KernelCopies,
};

/// What every answer of the API says; Docker looks for it.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Finds the request in the log again.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The digest of the content that an answer is about.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// A token that ends in less than this many seconds is warned about.
const EXPIRES_SOON: i64 = 20;

/// How long storage may take to say that it is well.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// The connection that a request came by.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The other end; absent for a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// Whether the connection is encrypted here.
    pub(crate) tls: bool,
    /// Set where the kernel can copy files to the connection.
    pub(crate) copies: Option<KernelCopies>,
}

/// A request on its way through a handler.
pub(crate) struct Call<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) peer: &'a Peer,
    pub(crate) head: &'a Parts,
    pub(crate) query: Query,
    pub(crate) id: &'a str,
    pub(crate) permit: Permit,
}

/// What a handler gives back.
pub(crate) type Reply = Result<Response<Body>, Failure>;

/// Answers a request. Never fails: what goes wrong becomes an answer.
pub(crate) async fn handle(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let mut body = Inbound::new(body, app.config.limits.idle);
    let id = app.request_id();
    let _answering = app.metrics.answering();
    let handler;
    let mut caller = String::new();
    let limit = app.config.limits.request;
    let reply = match routed(&app, &head) {
        Err(failure) => {
            handler = "unrouted";
            Err(failure)
        }
        Ok(route) => {
            handler = name_of(&route);
            let is_audited = changes_content(&route, &head.method);
            let work = dispatch(&app, &peer, &head, &id, route, &mut body, &mut caller);
            match tokio::time::timeout(limit, work).await {
                Ok(reply) => {
                    if is_audited && reply.is_ok() {
                        app.audit.changed(&caller, client_address(&app, &peer, &head), &head.method, head.uri.path());
                    }
                    reply
                }
                Err(_) => Err(Failure::from(Code::Unavailable)
                    .status(StatusCode::REQUEST_TIMEOUT)
                    .message("the request took longer than this registry allows")),
            }
        }
    };
    let mut response = reply.unwrap_or_else(Failure::into_response);
    if head.method == Method::HEAD && !http_body::Body::is_end_stream(response.body()) {
        let length = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Body::Empty;
    }
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in &app.headers {
        headers.append(name, value.clone());
    }
    if !body.is_over() {
        let unsent = head.headers.contains_key(header::EXPECT) && !body.is_begun();
        if unsent || status == StatusCode::REQUEST_TIMEOUT {
            // The client waits for a word before it sends the body, or did not send it in time:
            // it shall not send it any more.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else {
            // Some time is enough to see an answer: nobody shall keep a connection with a byte now and then.
            tokio::spawn(tokio::time::timeout(app.config.limits.idle, body.drain()));
        }
    }
    app.metrics.observe(handler, &head.method, status, started.elapsed());
    if app.config.log.access {
        log_access(&peer, &head, &id, &caller, &response, started);
    }
    response
}

fn log_access(peer: &Peer, head: &Parts, id: &str, caller: &str, response: &Response<Body>, started: Instant) {
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let status = response.status().as_u16();
    tracing::info!(
        target: "access",
        {
            http.request.id = id,
            http.request.method = head.method.as_str(),
            http.request.uri = path,
            http.request.host = host_of(head).unwrap_or("-"),
            http.request.remoteaddr = peer.address.map(|address| address.to_string()).as_deref().unwrap_or("@"),
            http.request.useragent = text(header::USER_AGENT),
            auth.user.name = caller,
            http.response.status = status,
            http.response.written = bytes,
            http.response.duration_ms = started.elapsed().as_micros() as f64 / 1e3
        },
        "{} {path} {status}",
        head.method
    );
}

fn routed(app: &App, head: &Parts) -> Result<Route, Failure> {
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size as u64 > app.config.limits.header {
        return Err(Failure::from(Code::Unsupported)
            .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            .message("the request's headers are larger than this registry accepts"));
    }
    let path = route::decode(head.uri.path())
        .ok_or_else(|| Failure::from(Code::NameInvalid).message("the path has a malformed escape"))?;
    let route = route::parse(&path, &app.config.http.prefix).map_err(|error| match error {
        NoRoute::NotFound => not_found(),
        NoRoute::Malformed(code, what) => Failure::from(code).message(what),
    })?;
    if !matches!(route, Route::Healthz | Route::Readyz) && !app.health.is_well() {
        return Err(Failure::unavailable("a health check of the registry fails").detail(json!(app.health.failing())));
    }
    Ok(route)
}

fn not_found() -> Failure {
    Failure::from(Code::Unsupported).status(StatusCode::NOT_FOUND).message("nothing is here")
}

fn name_of(route: &Route) -> &'static str {
    match route {
        Route::Root | Route::Base => "base",
        Route::Catalog => "catalog",
        Route::Tags(_) => "tags",
        Route::Manifest(..) => "manifest",
        Route::Blob(..) => "blob",
        Route::Uploads(_) => "blob_upload",
        Route::Upload(..) => "blob_upload_chunk",
        Route::Referrers(..) => "referrers",
        Route::Token => "token",
        Route::Keys => "keys",
        Route::Healthz | Route::Readyz => "health",
        Route::Admin => "admin",
    }
}

async fn dispatch(
    app: &Arc<App>,
    peer: &Peer,
    head: &Parts,
    id: &str,
    route: Route,
    body: &mut Inbound,
    caller: &mut String,
) -> Reply {
    let method = &head.method;
    let get = method == Method::GET || method == Method::HEAD;
    let query = Query::parse(head.uri.query());
    let administered = match &route {
        Route::Admin => Some(admin::admit(app.admin.as_ref(), head)?),
        _ => None,
    };
    let permit = match needs(&route, method) {
        None => Permit::everyone(),
        Some(wanted) => match (&route, query.get("from").map(str::parse::<RepoName>)) {
            (Route::Uploads(_), Some(Ok(from))) => {
                // Who may not pull where a mount comes from uploads instead, and learns nothing.
                permit_with(app, peer, head, &wanted, Access::repository(&from, Action::Pull)).await?
            }
            _ => permit(app, peer, head, &wanted).await.map_err(|failure| sayable(failure, &route, method))?,
        },
    };
    caller.clone_from(&permit.caller.name);
    let call = &Call { app, peer, head, query, id, permit };
    Ok(match route {
        Route::Healthz if get => text(StatusCode::OK, "ok\n"),
        Route::Readyz if get => ready(app).await?,
        Route::Token => token::issue(call, app.roadstead().ok_or_else(not_found)?, body).await?,
        Route::Keys if get => token::keys(app.roadstead().ok_or_else(not_found)?),
        Route::Root if get => {
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Route::Base if get => call.finish(json_body(StatusCode::OK, "{}".to_owned())),
        Route::Admin => match administered {
            // Also while the registry is read-only, which is about images.
            Some(admin) if method == Method::POST => admin::post(call, admin, body).await?,
            _ => return Err(not_allowed("POST")),
        },
        Route::Catalog if get => lists::catalog(call).await?,
        Route::Tags(name) if get => lists::tags(call, &name).await?,
        Route::Referrers(name, digest) if get => lists::referrers(call, &name, &digest).await?,
        Route::Manifest(name, reference) => match *method {
            Method::GET | Method::HEAD => manifests::get(call, &name, &reference).await?,
            Method::PUT => {
                writable(app)?;
                manifests::put(call, &name, &reference, body).await?
            }
            Method::DELETE => {
                deletable(app)?;
                manifests::delete(call, &name, &reference).await?
            }
            _ => return Err(not_allowed("GET, HEAD, PUT, DELETE")),
        },
        Route::Blob(name, digest) => match *method {
            Method::GET | Method::HEAD => blobs::get(call, &name, &digest).await?,
            Method::DELETE => {
                deletable(app)?;
                blobs::delete(call, &name, &digest).await?
            }
            _ => return Err(not_allowed("GET, HEAD, DELETE")),
        },
        Route::Uploads(name) => match *method {
            Method::POST => {
                writable(app)?;
                uploads::post(call, &name, body).await?
            }
            _ => return Err(not_allowed("POST")),
        },
        Route::Upload(name, upload) => match *method {
            Method::GET | Method::HEAD => uploads::status(call, &name, &upload).await?,
            Method::PATCH => {
                writable(app)?;
                uploads::patch(call, &name, &upload, body).await?
            }
            Method::PUT => {
                writable(app)?;
                uploads::put(call, &name, &upload, body).await?
            }
            Method::DELETE => {
                writable(app)?;
                uploads::cancel(call, &name, &upload).await?
            }
            _ => return Err(not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
        },
        _ => return Err(not_allowed("GET, HEAD")),
    })
}

/// Makes a refusal one that people get to read. An answer to `HEAD` cannot say which right is missing,
/// and clients that ask in this way whether they have to upload a blob show a bare 403. Told that it
/// is not here, as is said of every blob alike, they begin the upload, whose refusal does say it.
fn sayable(failure: Failure, route: &Route, method: &Method) -> Failure {
    match route {
        Route::Blob(_, digest) if method == Method::HEAD && failure.is(Code::Denied) => blobs::unknown(digest),
        _ => failure,
    }
}

/// Whether a request changes what others see.
fn changes_content(route: &Route, method: &Method) -> bool {
    match route {
        Route::Manifest(..) => method == Method::PUT || method == Method::DELETE,
        Route::Blob(..) => method == Method::DELETE,
        _ => false,
    }
}

/// The rights that a request needs; `None` where nobody has to say who they are. Cancelling one's
/// own upload needs no more than beginning it.
fn needs(route: &Route, method: &Method) -> Option<Vec<Access>> {
    let write = !(method == Method::GET || method == Method::HEAD);
    match route {
        Route::Healthz | Route::Readyz | Route::Root | Route::Token | Route::Keys => None,
        Route::Base | Route::Admin => Some(Vec::new()),
        Route::Catalog => Some(vec![Access::catalog()]),
        Route::Uploads(name) | Route::Upload(name, _) => Some(push(name)),
        Route::Manifest(name, _) | Route::Blob(name, _) if method == Method::DELETE => {
            Some(vec![Access::repository(name, Action::Delete)])
        }
        Route::Manifest(name, _) if write => Some(push(name)),
        Route::Manifest(name, _) | Route::Blob(name, _) | Route::Tags(name) | Route::Referrers(name, _) => {
            Some(vec![Access::repository(name, Action::Pull)])
        }
    }
}

fn push(name: &RepoName) -> Vec<Access> {
    vec![Access::repository(name, Action::Pull), Access::repository(name, Action::Push)]
}

fn not_allowed(allow: &str) -> Failure {
    Failure::from(Code::Unsupported).header(header::ALLOW, allow)
}

fn writable(app: &App) -> Result<(), Failure> {
    if app.is_read_only() {
        return Err(Failure::from(Code::Unsupported).message("the registry is read-only for now"));
    }
    Ok(())
}

fn deletable(app: &App) -> Result<(), Failure> {
    if !app.config.storage.delete {
        return Err(
            Failure::from(Code::Unsupported).message("deleting is switched off; storage.delete.enabled switches it on")
        );
    }
    writable(app)
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An answer with a JSON body.
pub(crate) fn json_body(status: StatusCode, json: String) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

async fn ready(app: &App) -> Reply {
    let mut failing = app.health.failing();
    let mut check = async |name: &str, state: Answer<'_, ()>| match tokio::time::timeout(READY_WITHIN, state).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => drop(failing.insert(name.to_owned(), error.to_string())),
        Err(_) => drop(failing.insert(name.to_owned(), "no answer in time".to_owned())),
    };
    check("metadata", app.metadata.check()).await;
    check("blobs", app.blobs.check()).await;
    let access = if app.scheme.is_some() { "authenticated" } else { "open to everyone" };
    let read_only = app.read_only.load(Ordering::Relaxed);
    let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let details = json!({ "ready": failing.is_empty(), "failing": failing, "access": access, "readonly": read_only });
    Ok(json_body(status, details.to_string() + "\n"))
}

impl Call<'_> {
    /// A request header as text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Content-Length`, if it is given.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Scheme and host that this client knows the registry by.
    fn origin(&self) -> String {
        if let Some(host) = &self.app.config.http.host {
            return host.clone();
        }
        let scheme = match forwarded(self.head, "x-forwarded-proto") {
            Some("https") => "https",
            Some("http") => "http",
            _ if self.peer.tls => "https",
            _ => "http",
        };
        format!("{scheme}://{}", public_host(self.head).unwrap_or("localhost"))
    }

    /// A URL of this registry for the client: with its origin, unless `relativeurls` is set.
    pub(crate) fn url(&self, path: &str) -> HeaderValue {
        let http = &self.app.config.http;
        let origin = if http.relative_urls { String::new() } else { self.origin() };
        let url = format!("{origin}{}{path}", http.prefix);
        // A host that is no header value can only come from the client's own headers.
        HeaderValue::from_str(&url)
            .unwrap_or_else(|_| HeaderValue::from_str(&format!("{}{path}", http.prefix)).expect("paths are ASCII"))
    }

    /// Adds what the caller has to be told.
    pub(crate) fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(left) = self.permit.expires_at.map(|at| at - now())
            && left < EXPIRES_SOON
        {
            let text = format!("299 - \"Your auth token will expire in {} seconds.\"", left.max(0));
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(header::WARNING, value);
            }
        }
        response
    }

    /// The events of something that this request did.
    pub(crate) fn events(&self, told: &Told<'_>) -> Vec<OutboxEvent> {
        let notifier = &self.app.notifier;
        if !notifier.is_wanted(told) {
            return Vec::new();
        }
        let requested = Requested {
            id: self.id,
            address: self.peer.address.map(|address| address.to_string()).unwrap_or_default(),
            host: host_of(self.head).unwrap_or_default(),
            method: self.head.method.as_str(),
            user_agent: self.header(header::USER_AGENT).unwrap_or_default(),
            actor: &self.permit.caller.name,
        };
        notifier.events(told, &requested, &self.origin())
    }
}

/// A digest in a query.
pub(crate) fn digest_param(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error: DigestError| Failure::from(Code::DigestInvalid).message(error.to_string()))
}

/// What the outermost proxy says of the request that it got.
fn forwarded<'a>(head: &'a Parts, name: &'static str) -> Option<&'a str> {
    let value = head.headers.get(name)?.to_str().ok()?;
    Some(value.split(',').next().unwrap_or(value).trim()).filter(|text| !text.is_empty())
}

/// The host that the client knows this registry by, with proxies in between.
pub(crate) fn public_host(head: &Parts) -> Option<&str> {
    forwarded(head, "x-forwarded-host").or_else(|| host_of(head))
}

/// The host that a request is for: a header in HTTP/1, a part of the address in HTTP/2.
pub(crate) fn host_of(head: &Parts) -> Option<&str> {
    let header = head.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| head.uri.authority().map(http::uri::Authority::as_str))
}
