//! Owns what the collection says of itself, as it goes over the wire and to people.

use registry_core::gc::{Backlog, Policy};
use serde::{Deserialize, Serialize};

/// What the collection does and what waits for it. Times are RFC 3339 texts in UTC, spans seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What it does.
    pub(crate) state: State,
    /// Why it does nothing, in a sentence, where it does not.
    pub(crate) why: Option<String>,
    /// Until when no bytes are removed, such as for a backup.
    pub(crate) held_until: Option<String>,
    /// The number of the round that goes on, or that ended last; 0 before the first.
    pub(crate) round: u64,
    /// How far the round is that goes on.
    pub(crate) progress: Option<Progress>,
    /// When the next round begins by itself.
    pub(crate) next: Option<String>,
    /// What waits.
    pub(crate) waiting: Waiting,
    /// What was done since the server started.
    pub(crate) since_start: Totals,
    /// The round that ended last.
    pub(crate) last: Option<Round>,
    /// What went wrong last.
    pub(crate) error: Option<Trouble>,
    /// For how long what is kept.
    pub(crate) policy: Periods,
}

/// What the collection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It waits for its next round.
    Idle,
    /// It looks at what may have become garbage.
    Reviewing,
    /// It removes blobs whose quarantine is over.
    Retiring,
    /// It removes files.
    Purging,
    /// It looks for files that nothing names.
    Sweeping,
    /// It does nothing, and `why` says so.
    Stopped,
    /// No server runs.
    NoServer,
}

impl State {
    /// In a word for people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Reviewing => "reviewing",
            Self::Retiring => "retiring blobs",
            Self::Purging => "removing files",
            Self::Sweeping => "looking for files that nothing names",
            Self::Stopped => "stopped",
            Self::NoServer => "no server runs",
        }
    }
}

/// How far a round is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps done; a step is about one object, and each object takes up to three.
    pub(crate) done: u64,
    /// Steps left, as far as is known.
    pub(crate) left: u64,
    /// Steps in a second.
    pub(crate) rate: f64,
    /// Seconds to the end, as far as can be said.
    pub(crate) seconds_left: Option<u64>,
}

/// What waits for the collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Things that will be looked at some time.
    pub(crate) reviews: u64,
    /// Those whose time has come.
    pub(crate) due: u64,
    /// Blobs in quarantine.
    pub(crate) quarantined: u64,
    /// Their bytes.
    pub(crate) quarantined_bytes: u64,
    /// Files to be removed.
    pub(crate) files: u64,
    /// Their bytes, as far as they are known.
    pub(crate) file_bytes: u64,
    /// Deleted manifests that can be brought back.
    pub(crate) deleted_manifests: u64,
}

impl From<Backlog> for Waiting {
    fn from(backlog: Backlog) -> Self {
        Self {
            reviews: backlog.reviews,
            due: backlog.due,
            quarantined: backlog.condemned.0,
            quarantined_bytes: backlog.condemned.1,
            files: backlog.purges.0,
            file_bytes: backlog.purges.1,
            deleted_manifests: backlog.deleted,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Things looked at.
    pub(crate) reviews: u64,
    /// Manifests removed.
    pub(crate) manifests: u64,
    /// Links of repositories to blobs removed.
    pub(crate) links: u64,
    /// Blobs that went into quarantine.
    pub(crate) condemned: u64,
    /// Blobs removed.
    pub(crate) retired: u64,
    /// Files removed.
    pub(crate) files: u64,
    /// Their bytes, as far as they are known.
    pub(crate) bytes: u64,
    /// Files removed that nothing named.
    pub(crate) orphans: u64,
    /// Their bytes.
    pub(crate) orphan_bytes: u64,
    /// Failures; what failed is tried again.
    pub(crate) errors: u64,
}

impl Totals {
    /// Whether anything is there afterwards that was not there before, or the other way round.
    pub(crate) fn changed_anything(&self) -> bool {
        Self { reviews: 0, errors: 0, ..*self } != Self::default()
    }
}

/// A round that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Its number, from 1 at each start of the server.
    pub(crate) round: u64,
    /// When it ended.
    pub(crate) ended: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What it did.
    pub(crate) did: Totals,
    /// Objects that stay because they were promised to a client within the last hour; only of
    /// rounds that do not wait for grace periods.
    pub(crate) promised: Option<u64>,
    /// Why it did not come to its end.
    pub(crate) error: Option<String>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// When.
    pub(crate) at: String,
    /// What.
    pub(crate) text: String,
}

/// For how long what is kept, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Periods {
    /// Deleted manifests.
    pub(crate) grace: i64,
    /// What a client was told is there.
    pub(crate) lease: i64,
    /// Blobs on their way out.
    pub(crate) quarantine: i64,
    /// Manifests that nothing reaches; null for ever.
    pub(crate) untagged: Option<i64>,
}

impl From<Policy> for Periods {
    fn from(policy: Policy) -> Self {
        let Policy { grace, lease, quarantine, untagged } = policy;
        Self { grace, lease, quarantine, untagged }
    }
}
