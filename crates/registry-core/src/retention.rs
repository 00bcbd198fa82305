//! Owns the rules about what is kept how long, what may not change, and how much there may be:
//! retention of tags, immutable tags, quotas. Pure.
//!
//! Does not own when anything is done about it, nor the counting of bytes, which a store does in
//! the transactions that alter them.

use regex_lite::Regex;

use crate::{gc::Policy, name::RepoName, policy::RepoGlob, reference::Tag, store::TagFacts};

/// A set of tags: those of matching repositories whose whole name matches.
#[derive(Clone, Debug)]
pub struct TagRule {
    /// Which repositories.
    pub repositories: RepoGlob,
    /// Which tags; `None` for all. Matches the whole name only if it is anchored.
    pub tags: Option<Regex>,
}

impl TagRule {
    /// Whether a tag is one of them.
    pub fn covers(&self, repository: &RepoName, tag: &Tag) -> bool {
        self.repositories.holds(repository) && self.tags.as_ref().is_none_or(|tags| tags.is_match(tag.as_str()))
    }
}

/// Which tags of the covered ones stay. A tag stays if any of the conditions holds for it.
#[derive(Clone, Debug)]
pub struct RetentionRule {
    /// Whom it is about.
    pub tags: TagRule,
    /// So many of the covered tags stay in each repository, those that were pushed last.
    pub keep_last: Option<usize>,
    /// What was pushed within so many seconds stays.
    pub keep_pushed_within: Option<i64>,
    /// What was pulled within so many seconds stays.
    pub keep_pulled_within: Option<i64>,
}

/// A tag that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The tag, as it was when that was decided.
    pub facts: TagFacts,
    /// The rule that lets it go, by its place in the list.
    pub rule: usize,
}

/// Decides which tags of a repository go at `now`. The first rule that covers a tag decides; tags
/// that none covers, and immutable ones, stay.
pub fn expired(
    rules: &[RetentionRule],
    immutable: &[TagRule],
    repository: &RepoName,
    tags: &[TagFacts],
    now: i64,
) -> Vec<Expired> {
    let mut covered: Vec<Vec<&TagFacts>> = vec![Vec::new(); rules.len()];
    for facts in tags {
        if immutable.iter().any(|rule| rule.covers(repository, &facts.tag)) {
            continue;
        }
        if let Some(rule) = rules.iter().position(|rule| rule.tags.covers(repository, &facts.tag)) {
            covered[rule].push(facts);
        }
    }
    let mut expired = Vec::new();
    for (index, (rule, mut tags)) in rules.iter().zip(covered).enumerate() {
        // Newest first; equally new ones in the order of their names, so that each run agrees.
        tags.sort_by(|a, b| b.pushed_at.cmp(&a.pushed_at).then_with(|| a.tag.as_str().cmp(b.tag.as_str())));
        let recent = |at: i64, within: Option<i64>| within.is_some_and(|within| at > now.saturating_sub(within));
        let gone = tags.into_iter().enumerate().filter(|(rank, facts)| {
            rule.keep_last.is_none_or(|last| *rank >= last)
                && !recent(facts.pushed_at, rule.keep_pushed_within)
                && !recent(facts.pulled_at, rule.keep_pulled_within)
        });
        expired.extend(gone.map(|(_, facts)| Expired { facts: facts.clone(), rule: index }));
    }
    expired.sort_by(|a, b| a.facts.tag.as_str().cmp(b.facts.tag.as_str()));
    expired
}

/// How many bytes the repositories below a name may hold together, each blob counted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The name of a repository, and the beginning of those below it.
    pub prefix: RepoName,
    /// Bytes.
    pub limit: u64,
}

impl Quota {
    /// Whether a repository counts: the one of that name, and those below it.
    pub fn covers(&self, repository: &RepoName) -> bool {
        let rest = repository.as_str().strip_prefix(self.prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What holds for every change of a store.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Tags that neither move nor go.
    pub immutable: Vec<TagRule>,
    /// How much there may be. No two have the same prefix.
    pub quotas: Vec<Quota>,
    /// When what was let go is looked at by the collection.
    pub gc: Policy,
}

impl Rules {
    /// Whether a tag must stay as it is.
    pub fn is_immutable(&self, repository: &RepoName, tag: &Tag) -> bool {
        self.immutable.iter().any(|rule| rule.covers(repository, tag))
    }
}

/// How full a quota is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which.
    pub quota: Quota,
    /// Bytes that its repositories hold, each blob counted once.
    pub used: u64,
}

/// There is no room for something in a quota.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the quota of {} is {} bytes, {used} are used and {asked} more were asked for: delete images or have it raised",
    quota.prefix, quota.limit
)]
pub struct Exceeded {
    /// Which.
    pub quota: Quota,
    /// Bytes in use, and promised to uploads that are under way.
    pub used: u64,
    /// Bytes that there is no room for.
    pub asked: u64,
}

impl Usage {
    /// Fails if there is no room for so many bytes more.
    pub fn admit(&self, promised: u64, asked: u64) -> Result<(), Exceeded> {
        let used = self.used.saturating_add(promised);
        if used.saturating_add(asked) <= self.quota.limit {
            Ok(())
        } else {
            Err(Exceeded { quota: self.quota.clone(), used, asked })
        }
    }
}

#[cfg(test)]
mod tests;
