//! Owns the decisions of the online collection: what a review finds, where new bytes may go, and
//! what time it is. Pure: facts and a time in, a verdict out.
//!
//! An object goes in three steps, each a transaction of its own. **Review** (G1) takes away what
//! nothing needs and condemns a blob that nobody holds any more; **retire** (G2) removes the row of
//! a blob that stayed condemned through the quarantine, and notes its file; **purge** (G3) removes
//! the file. A push can bring a blob back at any time before: its bytes then get a place that never
//! was used, so that a late purge cannot hit them.
//!
//! Does not own rows and files; a store carries the verdicts out inside its transactions.

use crate::{
    digest::Digest,
    store::{Answer, Place},
};

/// How long things are kept that nothing refers to. All in seconds, zero or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a manifest that was deleted can be brought back, and how long a manifest waits for
    /// its subject.
    pub grace: i64,
    /// For how long "this repository has it" is a promise to the client that was told so.
    pub lease: i64,
    /// How long a blob stays condemned: more than the longest request takes.
    pub quarantine: i64,
    /// How long a manifest is kept that no tag and no index reaches; `None` for ever.
    pub untagged: Option<i64>,
}

impl Default for Policy {
    /// A day of grace, an hour of quarantine, thirty days for untagged manifests.
    fn default() -> Self {
        const HOUR: i64 = 3600;
        Self { grace: 24 * HOUR, lease: 24 * HOUR, quarantine: HOUR, untagged: Some(30 * 24 * HOUR) }
    }
}

/// What to do with something that was reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is needed; it is looked at again when that ends.
    Keep,
    /// It is not needed, but is kept until then (seconds since 1970).
    Later(i64),
    /// It goes.
    Remove,
}

/// What is known of a repository's link to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Whether a manifest of that repository refers to the blob.
    pub referred: bool,
    /// When a client was last told that the repository holds the blob.
    pub used_at: i64,
}

/// What is known of a manifest of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Since when it is deleted.
    pub deleted_at: Option<i64>,
    /// Whether a tag names it.
    pub tagged: bool,
    /// Whether a manifest of the same repository refers to it as an entry.
    pub listed: bool,
    /// The manifest that it is about, if it says one: whether the repository has that.
    pub subject: Option<bool>,
    /// Since when no tag names it, or when it was pushed.
    pub untagged_at: i64,
    /// When a client last asked for it.
    pub used_at: i64,
}

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// Whether a repository holds it, as a blob or as a manifest.
    pub held: bool,
    /// Whether a manifest anywhere refers to it.
    pub referred: bool,
}

fn until(end: i64, now: i64) -> Verdict {
    if now >= end { Verdict::Remove } else { Verdict::Later(end) }
}

/// Reviews a link: it goes once no manifest needs it and no promise rests on it.
pub fn review_link(facts: &LinkFacts, policy: &Policy, now: i64) -> Verdict {
    if facts.referred { Verdict::Keep } else { until(facts.used_at.saturating_add(policy.lease), now) }
}

/// Reviews a manifest: one that was deleted goes after the grace period; one that nothing reaches
/// after its own time.
pub fn review_manifest(facts: &ManifestFacts, policy: &Policy, now: i64) -> Verdict {
    if let Some(deleted_at) = facts.deleted_at {
        return until(deleted_at.saturating_add(policy.grace), now);
    }
    if facts.tagged || facts.listed || facts.subject == Some(true) {
        return Verdict::Keep;
    }
    let idle_since = facts.untagged_at.max(facts.used_at);
    match (facts.subject, policy.untagged) {
        // What is about a manifest that is not there serves nobody, unless that one is on its way.
        (Some(_), _) => until(idle_since.saturating_add(policy.grace.max(policy.lease)), now),
        (None, Some(untagged)) => until(idle_since.saturating_add(untagged), now),
        (None, None) => Verdict::Keep,
    }
}

/// Whether a blob is to be condemned.
pub fn is_garbage(facts: &BlobFacts) -> bool {
    !facts.held && !facts.referred
}

/// What is known of a digest when bytes of it arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceFacts {
    /// The place in its row and whether that is live; `None` without a row.
    pub row: Option<(Place, bool)>,
    /// Whether the canonical place was given up once: its file is gone, or may go at any time.
    pub canonical_retired: bool,
}

/// Where the file of new bytes goes. `unique` is a number that was never used.
///
/// Bytes of a live blob go where the row says, which mends a damaged file. Otherwise a place that
/// a purge may still come to is never taken.
pub fn choose_place(facts: &PlaceFacts, unique: u64) -> Place {
    match facts.row {
        Some((place @ (Place::Canonical | Place::Unique(_)), true)) => place,
        Some((Place::Canonical | Place::Unique(_), false)) => Place::Unique(unique),
        Some((Place::Inline, _)) | None if facts.canonical_retired => Place::Unique(unique),
        Some((Place::Inline, _)) | None => Place::Canonical,
    }
}

/// Furthest that the collection's time may run ahead of what it last was, in seconds: a clock that
/// jumps forwards must not end every grace period at once.
pub const MAX_STEP: i64 = 3600;

/// The collection's time: never earlier than before, and at most [`MAX_STEP`] later while a process
/// runs. `last` is what this returned last, `wall` the clock. Returns the time and whether the
/// clock jumped.
///
/// At a start a process may have been away for long: then `first` is true and the clock is
/// believed.
pub fn advance(last: Option<i64>, wall: i64, first: bool) -> (i64, bool) {
    match last {
        None => (wall, false),
        Some(last) if wall < last => (last, true),
        Some(last) if !first && wall > last.saturating_add(MAX_STEP) => (last.saturating_add(MAX_STEP), true),
        Some(_) => (wall, false),
    }
}

/// A file to be removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purge {
    /// Of which blob.
    pub digest: Digest,
    /// Where it is.
    pub place: Place,
}

/// What a round of reviews did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Reviews taken from the queue.
    pub reviews: usize,
    /// Manifests removed.
    pub manifests: usize,
    /// Links removed.
    pub links: usize,
    /// Blobs condemned.
    pub condemned: usize,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Reviews in the queue, due or not.
    pub reviews: u64,
    /// Reviews that are due.
    pub due: u64,
    /// Blobs in quarantine, and their bytes.
    pub condemned: (u64, u64),
    /// Files to be removed, and their bytes as far as they are known.
    pub purges: (u64, u64),
    /// Manifests that were deleted and can be brought back.
    pub deleted: u64,
}

/// The rows of a collection. Every method is one transaction, and may be repeated after a crash.
pub trait Collection: Send + Sync {
    /// G1: takes up to `limit` due reviews from the queue and carries their verdicts out.
    fn review(&self, now: i64, policy: Policy, limit: usize) -> Answer<'_, Reviewed>;
    /// G2: removes up to `limit` rows of blobs that were condemned for the whole quarantine, and
    /// notes their files. Returns how many.
    fn retire(&self, now: i64, policy: Policy, limit: usize) -> Answer<'_, usize>;
    /// Up to `limit` files to be removed, in the order of their digests.
    fn purges(&self, limit: usize) -> Answer<'_, Vec<Purge>>;
    /// Whether a row names this file: then it must not be removed.
    fn names<'a>(&'a self, file: &'a Purge) -> Answer<'a, bool>;
    /// G3, after the files are gone: forgets them, but not that their places were used.
    fn purged(&self, now: i64, files: Vec<Purge>) -> Answer<'_, ()>;
    /// Puts everything into the queue that may be garbage whether anybody noticed or not, and makes
    /// all of the queue due: after a change of the policy, or because somebody wants it now.
    /// Returns how many reviews there are then.
    fn review_all(&self) -> Answer<'_, u64>;
    /// What waits.
    fn backlog(&self, now: i64) -> Answer<'_, Backlog>;
    /// A value that outlives the process, by name.
    fn state<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>>;
    /// Keeps a value under a name; `None` forgets it.
    fn set_state<'a>(&'a self, name: &'a str, value: Option<String>) -> Answer<'a, ()>;
}

#[cfg(test)]
mod tests;
