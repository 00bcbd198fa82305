//! Owns the delivery of events from the outbox: one receiver, one task, one event at a time, in
//! order.
//!
//! Each failure in a row below the receiver's `threshold` is tried again at once; from there on
//! the pause starts at `backoff` and doubles. After [`TRIES_BEYOND`] more failures the event
//! becomes a dead letter, so that one that is never accepted cannot hold up the rest for ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use registry_core::store::{Delivered, Delivery};
use service::shutdown::Shutdown;

use crate::{app::App, config::settings::Endpoint, failure::Chain, outbound::Outbound};

/// Tries after the threshold, before an event becomes a dead letter: with the default of one
/// second these are more than two hours.
const TRIES_BEYOND: u32 = 16;
/// The longest pause, as a multiple of `backoff`.
const LONGEST_PAUSE: u32 = 1024;
/// Events read from the outbox at a time.
const BATCH: usize = 64;
/// How often the outbox is looked at when nothing rang.
const LOOK: Duration = Duration::from_secs(5);

/// What to do after a try, decided from its outcome alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Try again after a pause.
    Retry(Duration),
    /// Give it up.
    Bury,
}

fn after_failure(endpoint: &Endpoint, failures: u32) -> Next {
    if failures < endpoint.threshold {
        return Next::Retry(Duration::ZERO);
    }
    let beyond = failures - endpoint.threshold;
    if beyond >= TRIES_BEYOND {
        return Next::Bury;
    }
    Next::Retry(endpoint.backoff.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX).min(LONGEST_PAUSE)))
}

/// Delivers a receiver's events until shutdown.
pub(crate) async fn run(app: Arc<App>, endpoint: Endpoint, outbound: Outbound, shutdown: Shutdown) {
    loop {
        // Registered before the outbox is read, so that what comes in between rings.
        let rung = app.outbox.notified();
        match app.metadata.pending(&endpoint.name, BATCH).await {
            Ok(events) if events.is_empty() => {
                tokio::select! {
                    () = rung => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = shutdown.requested() => return,
                }
            }
            Ok(events) => {
                for event in events {
                    tokio::select! {
                        () = deliver(&app, &endpoint, &outbound, event) => {}
                        () = shutdown.requested() => return,
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "read the outbox");
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = shutdown.requested() => return,
                }
            }
        }
    }
}

/// Tries until the event is accepted or given up.
async fn deliver(app: &App, endpoint: &Endpoint, outbound: &Outbound, event: Delivery) {
    let envelope = Bytes::from(format!("{{\"events\":[{}]}}", event.event.body));
    let mut headers = vec![("content-type".to_owned(), vec![crate::deliver::MEDIA_TYPE.to_owned()])];
    headers.extend(endpoint.headers.iter().cloned());
    let mut failures = event.attempts;
    loop {
        let answer = outbound.send(Method::POST, &endpoint.url, &headers, envelope.clone(), endpoint.timeout).await;
        let why = match answer {
            Ok(status) if status.is_success() || status.is_redirection() => {
                app.metrics.delivered(&endpoint.name, "accepted");
                record(app, event.id, Delivered::Accepted).await;
                return;
            }
            Ok(status) => format!("answered {status}"),
            Err(error) => Chain(&error).to_string(),
        };
        failures += 1;
        app.metrics.delivered(&endpoint.name, "failed");
        match after_failure(endpoint, failures) {
            Next::Retry(pause) => {
                if !pause.is_zero() {
                    tracing::warn!(endpoint = endpoint.name, failures, why, "an event waits for its receiver");
                }
                record(app, event.id, Delivered::Failed).await;
                tokio::time::sleep(pause).await;
            }
            Next::Bury => {
                tracing::error!(
                    endpoint = endpoint.name,
                    event = event.id,
                    why,
                    "an event is given up as a dead letter"
                );
                app.metrics.delivered(&endpoint.name, "dead");
                record(app, event.id, Delivered::Dead(why)).await;
                return;
            }
        }
    }
}

/// The media type of an envelope.
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// Records what became of a try, again and again while the store takes no writes: an event that
/// was accepted must not be sent once more because of that.
async fn record(app: &App, id: i64, outcome: Delivered) {
    let mut pause = Duration::from_secs(1);
    while let Err(error) = app.metadata.delivered(id, outcome.clone()).await {
        tracing::error!(error = %Chain(&error), event = id, "record a delivery");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Next, after_failure};
    use crate::config::settings::Endpoint;

    #[test]
    fn pauses_grow_and_end() {
        let endpoint = Endpoint {
            name: "a".into(),
            url: String::new(),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            threshold: 3,
            backoff: Duration::from_secs(1),
            ignored_media_types: Vec::new(),
            ignored_actions: Vec::new(),
        };
        let check = |failures, want| assert_eq!(after_failure(&endpoint, failures), want, "after {failures}");
        let pause = |seconds| Next::Retry(Duration::from_secs(seconds));
        check(1, pause(0));
        check(2, pause(0));
        check(3, pause(1));
        check(4, pause(2));
        check(12, pause(512));
        check(18, pause(1024));
        check(19, Next::Bury);
        check(u32::MAX, Next::Bury);
    }
}
