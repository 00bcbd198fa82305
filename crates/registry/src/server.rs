//! Owns connections: accepts them, speaks HTTP on them, ends them in order.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use serde_json::json;
use service::{
    listen::{Accepted, Bound, Stream},
    shutdown::Shutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    api::{self, Peer},
    app::App,
    body::Body,
    encryption::Encryption,
    plain::{self, Peek},
    sendfile::{FileStream, KernelCopies},
};

/// How long open requests may go on at shutdown when `http.draintimeout` says nothing. Docker
/// waits ten seconds before it kills.
const DRAIN: Duration = Duration::from_secs(9);
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 100;

/// Which HTTP versions a connection may speak.
#[derive(Clone, Copy)]
enum Versions {
    One,
    Two,
    Either,
}

/// Serves the API until shutdown, then lets open requests end.
pub(crate) async fn serve(app: Arc<App>, bound: Bound, tls: Option<Arc<Encryption>>, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(app.config.limits.connections as usize));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, bound.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.requested() => break,
        };
        while connections.try_join_next().is_some() {}
        let Accepted { stream, peer } = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "the listening socket is broken");
                shutdown.request();
                break;
            }
        };
        if let Stream::Tcp(stream) = &stream {
            forget_dead_readers(stream, app.config.limits.idle);
        }
        let (app, tls, shutdown) = (Arc::clone(&app), tls.clone(), shutdown.clone());
        connections.spawn(async move {
            let _place = place;
            let peer = Peer { address: peer, tls: tls.is_some(), copies: None };
            match (stream, tls) {
                (Stream::Tcp(stream), None) => {
                    let copies = KernelCopies::default();
                    let stream = FileStream::new(stream, copies.clone());
                    let versions = if app.config.http.h2c { Versions::Either } else { Versions::One };
                    speak(app, Peer { copies: Some(copies), ..peer }, stream, versions, shutdown).await;
                }
                (Stream::Tcp(stream), Some(tls)) => encrypted(app, peer, stream, tls, shutdown).await,
                (Stream::Unix(stream), None) => speak(app, peer, stream, Versions::One, shutdown).await,
                (Stream::Unix(stream), Some(tls)) => encrypted(app, peer, stream, tls, shutdown).await,
            }
        });
    }
    drop(bound);
    let drain = app.config.http.drain_timeout.unwrap_or(DRAIN);
    tracing::info!(open = connections.len(), limit_s = drain.as_secs_f64(), "shutting down; open requests may end");
    if timeout(drain, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = connections.len(), "requests are cut off: http.draintimeout has passed");
        connections.shutdown().await;
    }
}

/// Ends a connection whose other end takes no bytes for `idle`, even if it says it is alive.
fn forget_dead_readers(stream: &TcpStream, idle: Duration) {
    let limit = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, limit) {
        tracing::debug!(%error, "set TCP_USER_TIMEOUT");
    }
}

async fn encrypted(app: Arc<App>, peer: Peer, stream: impl Peek, tls: Arc<Encryption>, shutdown: Shutdown) {
    let idle = app.config.limits.idle;
    let first = tokio::select! {
        first = timeout(idle, stream.begins_tls()) => first,
        // Who has said nothing yet misses nothing.
        () = shutdown.requested() => return,
    };
    match first {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return plain::answer(stream, idle).await,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection broke off before it began"),
        Err(_) => return tracing::debug!("a client said nothing for too long"),
    }
    match timeout(idle, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(app, peer, stream, if two { Versions::Two } else { Versions::One }, shutdown).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn speak<S>(app: Arc<App>, peer: Peer, stream: S, versions: Versions, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = app.config.limits;
    // Also what one read of a body takes at most; `routed` looks at the head's own limit.
    let buffer = usize::try_from(limits.header).unwrap_or(usize::MAX).clamp(256 * 1024, 1024 * 1024);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(buffer);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.idle);
    let builder = match versions {
        Versions::One => builder.http1_only(),
        Versions::Two => builder.http2_only(),
        Versions::Either => builder,
    };
    let service = service_fn(move |request| {
        let (app, peer) = (Arc::clone(&app), peer.clone());
        async move { Ok::<_, Infallible>(api::handle(app, peer, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection broke off");
    }
}

/// Serves health, metrics and switches, for operators only, until shutdown.
pub(crate) async fn serve_debug(app: Arc<App>, bound: Bound, metrics_path: Option<String>, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    let metrics_path: Arc<Option<String>> = Arc::new(metrics_path);
    loop {
        let accepted = tokio::select! {
            accepted = bound.accept() => accepted,
            () = shutdown.requested() => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok(Accepted { stream: Stream::Tcp(stream), .. }) => stream,
            Ok(_) => continue,
            Err(error) => {
                tracing::error!(%error, "the debug listener is broken");
                break;
            }
        };
        let (app, metrics_path) = (Arc::clone(&app), Arc::clone(&metrics_path));
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answer = debug(&app, metrics_path.as_deref(), &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = Builder::new(TokioExecutor::new()).http1_only();
            builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error, "a debug connection broke off");
            }
        });
    }
    connections.shutdown().await;
}

fn debug(app: &App, metrics_path: Option<&str>, request: &Request<Incoming>) -> Response<Body> {
    let plain = |status: StatusCode, body: String, kind: &'static str| {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    let (text, json) = ("text/plain; charset=utf-8", "application/json");
    let done = || plain(StatusCode::OK, String::new(), text);
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/debug/health") => {
            let failing = app.health.failing();
            let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            plain(status, json!(failing).to_string(), json)
        }
        (&Method::POST, "/debug/health/down") => {
            app.health.set("manual_http_status", Err("Manual Check".into()));
            done()
        }
        (&Method::POST, "/debug/health/up") => {
            app.health.set("manual_http_status", Ok(()));
            done()
        }
        (&Method::GET, "/debug/readonly") => plain(StatusCode::OK, format!("{}\n", app.is_read_only()), text),
        (&Method::POST, "/debug/readonly/on") => {
            app.set_read_only(true);
            done()
        }
        (&Method::POST, "/debug/readonly/off") => {
            app.set_read_only(false);
            done()
        }
        (&Method::GET | &Method::HEAD, path) if Some(path) == metrics_path => {
            plain(StatusCode::OK, app.metrics.page(), "application/openmetrics-text; version=1.0.0; charset=utf-8")
        }
        (
            _,
            "/debug/health" | "/debug/health/down" | "/debug/health/up" | "/debug/readonly/on" | "/debug/readonly/off",
        ) => plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n".into(), text),
        _ => plain(StatusCode::NOT_FOUND, "not found\n".into(), text),
    }
}
