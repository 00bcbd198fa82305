//! Owns retention at work: looks at the tags of all repositories that a rule covers, and removes
//! those that the rules let go. The job of a server and the command `retention` share it.
//!
//! A tag that goes is deleted as by a client, with an event, and can be brought back for the grace
//! period. Does not own the rules (`registry_core::retention`).

use std::time::Duration;

use registry_core::{
    name::RepoName,
    reference::Tag,
    retention::{Expired, RetentionRule, TagRule, expired},
    store::{Change, Metadata, OutboxEvent, Refusal, StoreError, TagFacts},
};

/// Repositories or tags that are read at a time.
const PAGE: usize = 1000;
/// Tags that are listed in an answer; all are counted.
pub(crate) const LISTED: usize = 10_000;
/// Furthest that the clock may have jumped ahead between two looks, in seconds: a wrong date must
/// not end every period at once.
const MAX_JUMP: i64 = 3600;

/// What holds where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The first that covers a tag decides.
    pub(crate) retention: &'a [RetentionRule],
    /// What never goes.
    pub(crate) immutable: &'a [TagRule],
    /// Since when pulls are written down, in seconds since 1970. What is older than that may have
    /// been pulled until then, for all that is known.
    pub(crate) pulls_since: i64,
}

/// What a look at all repositories found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Repositories that a rule covers.
    pub(crate) repositories: u64,
    /// Their tags.
    pub(crate) tags: u64,
    /// How many go, or went.
    pub(crate) expired: u64,
    /// Since when pulls are known.
    pub(crate) pulls_since: i64,
    /// Whether it ended early, because as many went as may go at a time.
    pub(crate) more: bool,
    /// The first [`LISTED`] of them, by repository and name.
    pub(crate) listed: Vec<(RepoName, Expired)>,
}

/// What is done about tags that go.
pub(crate) enum Mode<'a> {
    /// Nothing: they are only listed.
    Look,
    /// They are deleted.
    Remove {
        /// Makes the events of each.
        events: &'a (dyn Fn(&RepoName, &Tag) -> Vec<OutboxEvent> + Send + Sync),
        /// So many at a time.
        most: u64,
    },
}

/// Looks at all repositories at `now`, in seconds since 1970. Stopped at any point, whole tags are
/// gone or not.
pub(crate) async fn sweep(
    metadata: &dyn Metadata,
    rules: Rules<'_>,
    now: i64,
    mode: &Mode<'_>,
) -> Result<Swept, StoreError> {
    let mut swept = Swept { pulls_since: rules.pulls_since, ..Swept::default() };
    let mut after: Option<String> = None;
    loop {
        let page = metadata.repositories(after.as_deref(), PAGE).await?;
        for repository in &page.entries {
            if rules.retention.iter().any(|rule| rule.tags.repositories.holds(repository)) {
                sweep_one(metadata, rules, repository, now, mode, &mut swept).await?;
            }
            if swept.more {
                return Ok(swept);
            }
        }
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.to_string()),
            _ => return Ok(swept),
        }
    }
}

async fn sweep_one(
    metadata: &dyn Metadata,
    rules: Rules<'_>,
    repository: &RepoName,
    now: i64,
    mode: &Mode<'_>,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let mut tags: Vec<TagFacts> = Vec::new();
    loop {
        let page = metadata.tag_facts(repository, tags.last().map(|facts| &facts.tag), PAGE).await?;
        tags.extend(page.entries.into_iter().map(|facts| with_unknown_pulls(facts, rules.pulls_since)));
        if !page.more {
            break;
        }
    }
    swept.repositories += 1;
    swept.tags += tags.len() as u64;
    for gone in expired(rules.retention, rules.immutable, repository, &tags, now) {
        if let Mode::Remove { events, most } = mode {
            if swept.expired >= *most {
                swept.more = true;
                return Ok(());
            }
            if !remove(metadata, repository, &gone, events(repository, &gone.facts.tag)).await? {
                continue;
            }
        }
        swept.expired += 1;
        if swept.listed.len() < LISTED {
            swept.listed.push((repository.clone(), gone));
        }
    }
    Ok(())
}

/// What is older than the notes of pulls counts as pulled when they began: nobody knows better, and
/// a rule about pulls must not empty a registry on the day that it learns to count them.
fn with_unknown_pulls(facts: TagFacts, pulls_since: i64) -> TagFacts {
    if facts.pushed_at < pulls_since {
        TagFacts { pulled_at: facts.pulled_at.max(pulls_since), ..facts }
    } else {
        facts
    }
}

/// Removes a tag, unless it was pushed or deleted since it was looked at.
async fn remove(
    metadata: &dyn Metadata,
    repository: &RepoName,
    gone: &Expired,
    events: Vec<OutboxEvent>,
) -> Result<bool, StoreError> {
    let TagFacts { tag, digest, .. } = &gone.facts;
    match metadata.apply(Change::Expire(repository.clone(), gone.facts.clone()), events).await {
        Ok(()) => {
            tracing::info!(%repository, %tag, %digest, rule = gone.rule + 1, "retention removed {repository}:{tag}");
            Ok(true)
        }
        Err(StoreError::Refused(Refusal::ManifestUnknown(_) | Refusal::TagImmutable(_) | Refusal::NameUnknown(_))) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The time that a server's looks go by: the clock, as long as that does not jump ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(i64);

impl Time {
    /// At the start the clock is believed.
    pub(crate) fn new(wall: i64) -> Self {
        Self(wall)
    }

    /// The time where the clock says `wall` and so much went by since the last call, and whether the
    /// clock jumped ahead.
    pub(crate) fn now(&mut self, wall: i64, elapsed: Duration) -> (i64, bool) {
        let elapsed = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        let furthest = self.0.saturating_add(elapsed).saturating_add(MAX_JUMP);
        self.0 = wall.min(furthest);
        (self.0, wall > furthest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Time;

    #[test]
    fn a_clock_that_jumps_ahead_is_followed_slowly() {
        let mut time = Time::new(1000);
        let mut check = |later: u64, wall: i64, want: (i64, bool)| {
            assert_eq!(time.now(wall, Duration::from_secs(later)), want, "{later} s later, at {wall}");
        };
        check(60, 1060, (1060, false));
        check(86_400, 87_460, (87_460, false));
        check(60, 87_460 + 3660, (91_120, false));
        check(60, 1_000_000, (94_780, true));
        // One that goes back is believed: then less has ended.
        check(60, 50, (50, false));
    }
}
