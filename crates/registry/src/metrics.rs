//! Owns the counters and the page that shows them. HTTP metrics have distribution's names.

use std::{sync::atomic::AtomicU64, time::Duration};

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    handler: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    handler: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    endpoint: String,
    outcome: &'static str,
}

/// The counters of this process.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    duration: Family<Timed, Histogram, fn() -> Histogram>,
    deliveries: Family<Sent, Counter>,
    in_flight: Gauge,
    /// Pull events that found no room.
    pub(crate) events_dropped: Counter,
    /// What the collection does.
    pub(crate) collection: Collection,
    /// What the scrub does.
    pub(crate) scrub: Scrub,
}

/// What the scrub of this process read so far. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrub {
    /// Bytes read again.
    pub(crate) bytes: Counter,
    /// Blobs read again.
    pub(crate) blobs: Counter,
    /// Blobs that are damaged now.
    pub(crate) damaged: Gauge,
}

impl Scrub {
    fn register(&self, registry: &mut Registry) {
        registry.register_with_unit("scrub", "Bytes read again and compared", Unit::Bytes, self.bytes.clone());
        registry.register("scrub_blobs", "Blobs read again and compared", self.blobs.clone());
        registry.register("damaged_blobs", "Blobs whose bytes are damaged", self.damaged.clone());
    }
}

/// What the collection of this process did so far, and what waits for it. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collection {
    /// Objects looked at.
    pub(crate) reviews: Counter,
    /// Manifests removed.
    pub(crate) manifests: Counter,
    /// Links of repositories to blobs removed.
    pub(crate) links: Counter,
    /// Blobs condemned.
    pub(crate) condemned: Counter,
    /// Blobs removed, whose files are noted.
    pub(crate) retired: Counter,
    /// Files removed.
    pub(crate) purged: Counter,
    /// Their bytes, as far as they are known.
    pub(crate) purged_bytes: Counter,
    /// Files removed that nothing named.
    pub(crate) swept: Counter,
    /// Their bytes.
    pub(crate) swept_bytes: Counter,
    /// Rounds ended.
    pub(crate) rounds: Counter,
    /// Rounds and files that failed.
    pub(crate) errors: Counter,
    /// Reviews that are due.
    pub(crate) due: Gauge,
    /// Blobs in quarantine.
    pub(crate) quarantined: Gauge,
    /// Bytes in quarantine.
    pub(crate) quarantined_bytes: Gauge,
    /// Files to be removed.
    pub(crate) files: Gauge,
    /// When the last round ended, in seconds since 1970.
    pub(crate) last_round: Gauge,
    /// How long it took, in seconds.
    pub(crate) last_round_duration: Gauge<f64, AtomicU64>,
}

impl Collection {
    fn register(&self, registry: &mut Registry) {
        let gc = registry.sub_registry_with_prefix("gc");
        gc.register("reviews", "Objects looked at by the collection", self.reviews.clone());
        gc.register("manifests", "Manifests removed by the collection", self.manifests.clone());
        gc.register("links", "Links to blobs removed by the collection", self.links.clone());
        gc.register("condemned_blobs", "Blobs found to be needed by nobody", self.condemned.clone());
        gc.register("retired_blobs", "Blobs removed after their quarantine", self.retired.clone());
        gc.register("purged_files", "Files of blobs removed", self.purged.clone());
        gc.register_with_unit("purged", "Bytes of the files removed", Unit::Bytes, self.purged_bytes.clone());
        gc.register("swept_files", "Files removed that nothing named", self.swept.clone());
        gc.register_with_unit("swept", "Bytes of the files that nothing named", Unit::Bytes, self.swept_bytes.clone());
        gc.register("rounds", "Rounds of the collection", self.rounds.clone());
        gc.register("errors", "Rounds and files that failed", self.errors.clone());
        gc.register("due_reviews", "Objects that wait to be looked at", self.due.clone());
        gc.register("quarantined_blobs", "Blobs in quarantine", self.quarantined.clone());
        gc.register_with_unit("quarantined", "Bytes in quarantine", Unit::Bytes, self.quarantined_bytes.clone());
        gc.register("waiting_files", "Files that wait to be removed", self.files.clone());
        let help = "When the last round ended, since 1970";
        gc.register_with_unit("last_round_timestamp", help, Unit::Seconds, self.last_round.clone());
        let help = "How long the last round took";
        gc.register_with_unit("last_round_duration", help, Unit::Seconds, self.last_round_duration.clone());
    }
}

/// A request that is being answered.
pub(crate) struct Answering(Gauge);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn durations() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

/// A method as a label: what clients make up is one value.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("registry");
        let requests = Family::default();
        let duration = Family::new_with_constructor(durations as fn() -> Histogram);
        let (deliveries, in_flight, events_dropped) = (Family::default(), Gauge::default(), Counter::default());
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to the answer's head",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register("http_in_flight_requests", "Requests being answered", in_flight.clone());
        registry.register("notifications_deliveries", "Tries to deliver an event", deliveries.clone());
        registry.register(
            "notifications_pull_events_dropped",
            "Pull events that found no room",
            events_dropped.clone(),
        );
        let collection = Collection::default();
        collection.register(&mut registry);
        let scrub = Scrub::default();
        scrub.register(&mut registry);
        Self { registry, requests, duration, deliveries, in_flight, events_dropped, collection, scrub }
    }

    /// Counts a request as being answered, until the value is dropped, as it is when a client
    /// hangs up too.
    pub(crate) fn answering(&self) -> Answering {
        self.in_flight.inc();
        Answering(self.in_flight.clone())
    }

    /// Counts an answer.
    pub(crate) fn observe(&self, handler: &'static str, method: &Method, status: StatusCode, took: Duration) {
        let method = label(method);
        self.requests.get_or_create(&Request { handler, method, code: status.as_u16() }).inc();
        self.duration.get_or_create(&Timed { handler, method }).observe(took.as_secs_f64());
    }

    /// Counts a try to deliver an event.
    pub(crate) fn delivered(&self, endpoint: &str, outcome: &'static str) {
        self.deliveries.get_or_create(&Sent { endpoint: endpoint.to_owned(), outcome }).inc();
    }

    /// The page in the OpenMetrics text format.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            page.clear();
        }
        page
    }
}
