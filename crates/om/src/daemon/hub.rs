//! Owns telling what happens: events for all who listen, and what was said of each request, so that who asks late still
//! hears it. Does not own when a request has ended.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;

use crate::api::{Event, Failure};

/// Events that a slow listener may be behind.
const LISTENERS: usize = 1024;
/// Requests that are remembered.
const REQUESTS: usize = 512;
/// Lines of progress that are remembered of a request.
const LINES: usize = 64;

/// Everybody who listens. Clones share it.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: broadcast::Sender<Arc<Event>>,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    by_id: BTreeMap<String, Told>,
    order: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Told {
    path: String,
    lines: VecDeque<Arc<Event>>,
    ended: Option<Arc<Event>>,
}

impl Default for Hub {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(LISTENERS);
        Self(Arc::new(Inner { sender, requests: Mutex::default() }))
    }
}

impl Hub {
    /// Tells everybody.
    pub fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match &*event {
            Event::Progress { request: Some(id), .. } => {
                let told = requests.of(id);
                if told.lines.len() == LINES {
                    told.lines.pop_front();
                }
                told.lines.push_back(Arc::clone(&event));
            }
            Event::Ended { request, .. } => {
                let told = requests.of(request);
                if told.ended.is_some() {
                    return;
                }
                told.ended = Some(Arc::clone(&event));
            }
            _ => {}
        }
        // Under the lock, so that nobody who begins to listen hears it twice or not at all.
        let _ = self.0.sender.send(event);
    }

    /// Tells that a request has ended. Only the first time counts.
    pub fn ended(&self, path: String, request: String, failure: Option<Failure>) {
        self.tell(Event::Ended { path, request, failure });
    }

    /// Remembers whose a request is, before anything is said of it.
    pub fn begin(&self, request: &str, path: &str) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.of(request).path = path.to_owned();
    }

    /// Whose a request is, if it is remembered.
    pub fn path_of(&self, request: &str) -> Option<String> {
        let requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.by_id.get(request).map(|told| told.path.clone())
    }

    /// All events from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.sender.subscribe()
    }

    /// What was told of a request, and all events from then on.
    pub fn listen_for(&self, request: &str) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let told = requests.by_id.get(request);
        let told = told.map(|told| told.lines.iter().chain(&told.ended).cloned().collect()).unwrap_or_default();
        (told, self.listen())
    }
}

impl Requests {
    fn of(&mut self, id: &str) -> &mut Told {
        if !self.by_id.contains_key(id) {
            if self.order.len() == REQUESTS {
                let oldest = self.order.pop_front().unwrap_or_default();
                self.by_id.remove(&oldest);
            }
            self.order.push_back(id.to_owned());
        }
        self.by_id.entry(id.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(request: &str, text: &str) -> Event {
        Event::Progress {
            path: "test/svc/web".into(),
            node: "n1".into(),
            rid: None,
            text: text.into(),
            request: Some(request.into()),
        }
    }

    #[test]
    fn who_asks_late_hears_it_still() {
        let hub = Hub::default();
        hub.tell(progress("r1", "one"));
        hub.tell(progress("r2", "other"));
        let (told, mut now) = hub.listen_for("r1");
        assert_eq!(told.len(), 1);
        hub.ended("test/svc/web".into(), "r1".into(), None);
        hub.ended("test/svc/web".into(), "r1".into(), Some(Failure::default()));
        assert!(matches!(&*now.try_recv().unwrap(), Event::Ended { failure: None, .. }));
        assert!(now.try_recv().is_err(), "it ends once");
        assert_eq!(hub.listen_for("r1").0.len(), 2);
        for n in 0..REQUESTS * 2 {
            hub.tell(progress(&format!("x{n}"), "line"));
        }
        assert!(hub.listen_for("r1").0.is_empty(), "old requests are forgotten");
    }
}
