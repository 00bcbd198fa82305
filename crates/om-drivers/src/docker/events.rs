//! Owns hearing of what happens to containers as it happens, and of the engine's coming and going. Does not own what is
//! done about it.

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use om_core::path::{ObjectPath, Rid};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use crate::docker::{
    client::{Ask, QUICK},
    engine::Engine,
    specification::{LABEL_ID, LABEL_PATH, LABEL_RID},
};

/// Between tries to reach an engine that is away: the first, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(2);
/// What changes the state of a container.
const KINDS: [&str; 7] = ["create", "destroy", "die", "oom", "pause", "start", "unpause"];

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The engine answers: whatever happened before was not heard.
    Connected,
    /// The engine does not answer any more.
    Lost {
        /// Why; for people.
        why: String,
    },
    /// Something happened to a container of an object.
    Container {
        /// The object.
        path: ObjectPath,
        /// The resource.
        rid: Rid,
        /// The container's id.
        id: String,
        /// What happened, such as `die`.
        what: String,
    },
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

/// Tells what happens, as long as it is polled. `tell` must not wait. Never returns.
///
/// [`Heard::Connected`] comes first and after every [`Heard::Lost`]; an engine that is away is told once.
pub async fn listen(engine: &Engine, tell: impl Fn(Heard)) {
    let mut pause = FIRST;
    let mut is_told = false;
    loop {
        let why = match connect(engine, &tell, &mut pause, &mut is_told).await {
            Ok(()) => "it ended the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        if !is_told {
            tell(Heard::Lost { why });
            is_told = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn connect(
    engine: &Engine,
    tell: &impl Fn(Heard),
    pause: &mut Duration,
    is_told: &mut bool,
) -> Result<(), crate::docker::client::EngineError> {
    let filters = json!({ "type": ["container"], "label": [LABEL_ID], "event": KINDS }).to_string();
    let ask = Ask::new(Method::GET, "/events").with("filters", &filters);
    let mut events = engine.client().stream(ask, QUICK).await?;
    (*pause, *is_told) = (FIRST, false);
    tell(Heard::Connected);
    while let Some(event) = events.line::<Event>().await? {
        let of = |label: &str| event.actor.attributes.get(label);
        let named =
            of(LABEL_PATH).and_then(|path| path.parse().ok()).zip(of(LABEL_RID).and_then(|rid| rid.parse().ok()));
        let Some((path, rid)) = named else { continue };
        tell(Heard::Container { path, rid, id: event.actor.id, what: event.action });
    }
    Ok(())
}
