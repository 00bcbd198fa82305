//! Owns what the scrub says of itself, as it goes over the wire and to people.

use registry_store::scrub;
use serde::{Deserialize, Serialize};

use crate::admin::plan::timestamp;

/// What the scrub does and what it found. Times are RFC 3339 texts in UTC, spans seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What it does.
    pub(crate) state: State,
    /// The number of the pass that was asked for and goes on.
    pub(crate) pass: Option<u64>,
    /// Most bytes in a second.
    pub(crate) rate: u64,
    /// Bytes in a second that it goes at now.
    pub(crate) pace: Option<u64>,
    /// Within which everything is verified once.
    pub(crate) period: u64,
    /// What there is.
    pub(crate) all: Shown,
    /// What was verified within the period, or in the pass that was asked for.
    pub(crate) verified: Shown,
    /// How long it takes until nothing is due.
    pub(crate) seconds_left: Option<u64>,
    /// When the blob was verified that waits longest; null where one never was.
    pub(crate) oldest: Option<String>,
    /// How many blobs are damaged.
    pub(crate) damaged_count: u64,
    /// The first 1,000 of them.
    pub(crate) damaged: Vec<Damaged>,
    /// What was read since the server started.
    pub(crate) since_start: Option<Shown>,
    /// The pass that was asked for and ended last.
    pub(crate) last: Option<Pass>,
    /// Why it rests.
    pub(crate) error: Option<Trouble>,
}

/// What the scrub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Nothing is due.
    Idle,
    /// It reads.
    Verifying,
    /// Something is wrong, and it tries again later.
    Troubled,
    /// It only runs when it is asked to.
    Disabled,
    /// No server runs.
    NoServer,
}

impl State {
    /// In some words for people.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle, nothing is due",
            Self::Verifying => "verifying",
            Self::Troubled => "resting after an error",
            Self::Disabled => "off (roadstead.scrub.enabled)",
            Self::NoServer => "no server runs",
        }
    }
}

/// Blobs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// How many.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl From<(u64, u64)> for Shown {
    fn from((blobs, bytes): (u64, u64)) -> Self {
        Self { blobs, bytes }
    }
}

/// A damaged blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Damaged {
    /// Its digest.
    pub(crate) digest: String,
    /// The size that it should have.
    pub(crate) size: u64,
    /// Since when that is known.
    pub(crate) since: String,
    /// The repositories that hold it, a thousand at most.
    pub(crate) repositories: Vec<String>,
}

impl From<&scrub::Damaged> for Damaged {
    fn from(damaged: &scrub::Damaged) -> Self {
        Self {
            digest: damaged.digest.to_string(),
            size: damaged.size,
            since: timestamp(damaged.since),
            repositories: damaged.holders.iter().map(|holder| holder.repository.to_string()).collect(),
        }
    }
}

/// A pass that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// Its number, from 1 at each start of the server.
    pub(crate) number: u64,
    /// When it began.
    pub(crate) started: String,
    /// When it ended.
    pub(crate) ended: String,
    /// Blobs that were read.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that it found damaged.
    pub(crate) damaged: u64,
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
