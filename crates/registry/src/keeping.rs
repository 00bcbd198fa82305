//! Owns the orders about what is kept: bringing back what was deleted, the history of tags, retention
//! and quotas. A server and the commands that work without one share it.
//!
//! Does not own the rules (`registry_core::retention`), nor who may give the orders (`operations`).

pub(crate) mod command;

use std::{sync::Arc, time::Duration};

use registry_core::{
    gc::Collection,
    name::RepoName,
    oci_error::Code,
    reference::{Reference, Tag},
    retention::{RetentionRule, TagRule},
    store::{Change, Metadata, OutboxEvent, Refusal, StoreError, TagAction, TagEvent},
};
use serde_json::{Value, json};
use service::shutdown::Shutdown;
use tokio::{sync::Notify, time::Instant};

use crate::{
    admin::{
        error::{Kind, OrderError, shown},
        plan::timestamp,
    },
    app::{App, now as wall},
    failure::Chain,
    jobs::{pause, write_pulls_now},
    notify::{Action, Notifier, Requested, Target, Told},
    operations::operation::Operation,
    reservations::Reservations,
    retention::{Mode, Rules, Swept, Time, sweep},
};

/// Tags that one order lets go; each takes a moment on the disk.
pub(crate) const AT_ONCE: u64 = 1000;
/// Entries of a history where nothing is said.
const ENTRIES: u32 = 50;
/// Entries of a history at most.
const MOST_ENTRIES: u32 = 10_000;
/// The first look of a server comes so long after its start, or after one interval.
const FIRST: Duration = Duration::from_secs(60);

/// Since when pulls are written down, in seconds since 1970.
const PULLS_SINCE: &str = "pulls.since";

/// What is kept, and by which rules.
pub(crate) struct Keeping {
    /// Where the rows live.
    pub(crate) metadata: Arc<dyn Metadata>,
    /// What outlives the process; `None` where nothing does.
    pub(crate) state: Option<Arc<dyn Collection>>,
    /// Which tags go.
    pub(crate) retention: Vec<RetentionRule>,
    /// Which never do.
    pub(crate) immutable: Vec<TagRule>,
    /// Room that uploads under way have.
    pub(crate) reservations: Reservations,
    /// Tells receivers.
    pub(crate) notifier: Notifier,
    /// Rings when it did.
    pub(crate) outbox: Arc<Notify>,
    /// When this process began, in seconds since 1970.
    pub(crate) started: i64,
}

/// Why an order is not carried out, in the words of the store where it refused.
fn unkept(error: StoreError) -> OrderError {
    const HISTORY: &str = "`registry history REPO` shows what can be brought back";
    match error {
        StoreError::Refused(refusal) => match refusal {
            Refusal::NothingToUndelete(_) => OrderError::new(Kind::NotFound, refusal.to_string(), HISTORY),
            Refusal::TagTaken { ref tag, digest } => OrderError::new(
                Kind::Conflict,
                format!("tag {tag} is there and names {digest}"),
                "delete the tag first, or bring the manifest back by its digest",
            ),
            Refusal::TagImmutable(_) | Refusal::QuotaExceeded(_) => {
                OrderError::new(Kind::Conflict, refusal.to_string(), "the rules are in the configuration")
            }
            other => StoreError::Refused(other).into(),
        },
        error => error.into(),
    }
}

fn repository(text: &str) -> Result<RepoName, OrderError> {
    Ok(text.parse()?)
}

fn malformed(what: &str, text: &str) -> OrderError {
    OrderError::invalid(
        format!("`{}` is no {what}", shown(text)),
        "write a tag such as 1.4, or a digest such as sha256:<64 hexadecimal digits>",
    )
}

impl Keeping {
    /// Notes since when pulls are written down, unless that was noted before.
    pub(crate) async fn begin(&self) -> Result<(), StoreError> {
        match &self.state {
            Some(state) if state.state(PULLS_SINCE).await?.is_none() => {
                state.set_state(PULLS_SINCE, Some(self.started.to_string())).await
            }
            _ => Ok(()),
        }
    }

    async fn pulls_since(&self) -> Result<i64, StoreError> {
        let noted = match &self.state {
            Some(state) => state.state(PULLS_SINCE).await?,
            None => None,
        };
        Ok(noted.and_then(|text| text.parse().ok()).unwrap_or(self.started))
    }

    /// Carries one of these orders out, for somebody of that name.
    pub(crate) async fn answer(&self, operation: &Operation, actor: &str, now: i64) -> Result<Value, OrderError> {
        match operation {
            Operation::Undelete { repository: name, reference } => {
                let name = repository(name)?;
                let reference: Reference =
                    reference.parse().map_err(|_| malformed("tag or digest of a manifest", reference))?;
                self.undelete(&name, &reference, actor).await.map_err(unkept)
            }
            Operation::History { repository: name, tag, limit } => {
                let name = repository(name)?;
                let tag = tag.as_deref().map(|tag| tag.parse().map_err(|_| malformed("tag", tag))).transpose()?;
                self.history(&name, tag.as_ref(), limit.unwrap_or(ENTRIES)).await
            }
            Operation::Retention { run } => {
                let swept = if *run { self.remove_expired(actor, now, AT_ONCE).await } else { self.look(now).await };
                Ok(self.told(*run, &swept.map_err(unkept)?))
            }
            _ => self.usage().await.map_err(unkept),
        }
    }

    /// The events of something that was done here.
    fn events(&self, told: &Told<'_>, actor: &str) -> Vec<OutboxEvent> {
        let requested = Requested {
            id: "",
            address: String::new(),
            host: "",
            method: "",
            user_agent: concat!("roadstead-registry/", env!("CARGO_PKG_VERSION")),
            actor,
        };
        self.notifier.events(told, &requested, "")
    }

    fn ring(&self) {
        self.outbox.notify_waiters();
    }

    async fn undelete(&self, name: &RepoName, reference: &Reference, actor: &str) -> Result<Value, StoreError> {
        let before = wall();
        // A tag comes back to what it named last.
        let last = match reference {
            Reference::Tag(tag) => {
                self.metadata.history(name, Some(tag), 1).await?.into_iter().next().map(|entry| entry.digest)
            }
            Reference::Digest(digest) => Some(*digest),
        };
        let tag = if let Reference::Tag(tag) = reference { Some(tag) } else { None };
        // Receivers are told of what is there again as of what is pushed.
        let events = last.map_or_else(Vec::new, |digest| {
            let target = Target::manifest(name, &digest, None, None, tag);
            self.events(&Told { action: Action::Push, target }, actor)
        });
        self.metadata.apply(Change::Undelete(name.clone(), reference.clone()), events).await?;
        self.ring();
        let entries = self.metadata.history(name, tag, MOST_ENTRIES as usize).await?;
        let back = entries
            .iter()
            .filter(|entry| entry.action == TagAction::Restored && entry.at >= before && Some(entry.digest) == last);
        let mut tags: Vec<&str> = back.map(|entry| entry.tag.as_str()).collect();
        tags.sort_unstable();
        tags.dedup();
        let digest = last.map(|digest| digest.to_string());
        Ok(json!({ "repository": name.as_str(), "digest": digest, "tags": tags }))
    }

    async fn history(&self, name: &RepoName, tag: Option<&Tag>, limit: u32) -> Result<Value, OrderError> {
        let limit = limit.min(MOST_ENTRIES) as usize;
        let entries = self.metadata.history(name, tag, limit).await.map_err(unkept)?;
        if entries.is_empty() && self.metadata.tags(name, None, 1).await.map_err(unkept)?.is_none() {
            let code = Code::NameUnknown.message();
            return Err(OrderError::new(Kind::NotFound, format!("{name}: {code}"), "look how it is written"));
        }
        let entries: Vec<Value> = entries.iter().map(entry).collect();
        Ok(json!({ "repository": name.as_str(), "entries": entries }))
    }

    async fn rules(&self) -> Result<Rules<'_>, StoreError> {
        let pulls_since = self.pulls_since().await?;
        Ok(Rules { retention: &self.retention, immutable: &self.immutable, pulls_since })
    }

    async fn look(&self, now: i64) -> Result<Swept, StoreError> {
        sweep(&*self.metadata, self.rules().await?, now, &Mode::Look).await
    }

    /// Lets go what the rules let go at `now`, up to `most` tags.
    async fn remove_expired(&self, actor: &str, now: i64, most: u64) -> Result<Swept, StoreError> {
        let events = |name: &RepoName, tag: &Tag| {
            self.events(&Told { action: Action::Delete, target: Target::tag(name, tag) }, actor)
        };
        let mode = Mode::Remove { events: &events, most };
        let swept = sweep(&*self.metadata, self.rules().await?, now, &mode).await;
        self.ring();
        swept
    }

    fn told(&self, run: bool, swept: &Swept) -> Value {
        let listed = swept.listed.iter().map(|(name, gone)| {
            let facts = &gone.facts;
            json!({
                "repository": name.as_str(),
                "tag": facts.tag.as_str(),
                "digest": facts.digest.to_string(),
                "pushed": timestamp(facts.pushed_at),
                "pulled": (facts.pulled_at > swept.pulls_since).then(|| timestamp(facts.pulled_at)),
                "rule": gone.rule + 1,
            })
        });
        json!({
            "run": run,
            "rules": self.retention.iter().map(rule_text).collect::<Vec<_>>(),
            "repositories": swept.repositories,
            "tags": swept.tags,
            "expired": swept.expired,
            "more": swept.more,
            "listed": listed.collect::<Vec<_>>(),
        })
    }

    async fn usage(&self) -> Result<Value, StoreError> {
        let usage = self.metadata.usage().await?;
        let promised = self.reservations.promised();
        let shown = usage.iter().enumerate().map(|(index, usage)| {
            json!({
                "prefix": usage.quota.prefix.as_str(),
                "limit": usage.quota.limit,
                "used": usage.used,
                "reserved": promised.get(index).copied().unwrap_or_default(),
            })
        });
        Ok(json!({ "quotas": shown.collect::<Vec<_>>() }))
    }

    /// Lets go what the rules let go, again and again.
    pub(crate) async fn run(self: Arc<Self>, app: Arc<App>, interval: Duration, shutdown: Shutdown) {
        let (mut time, mut last) = (Time::new(wall()), Instant::now());
        let mut rest = interval.min(FIRST);
        while pause(&shutdown, rest).await {
            rest = interval;
            let (now, jumped) = time.now(wall(), last.elapsed());
            last = Instant::now();
            if jumped {
                tracing::error!("the clock has jumped ahead; retention follows it by an hour each time");
            }
            if app.is_read_only() {
                continue;
            }
            // What was pulled in the last second counts.
            write_pulls_now(&app).await;
            let removed = self.remove_expired("retention", now, u64::MAX);
            let swept = tokio::select! {
                swept = removed => swept,
                () = shutdown.requested() => return,
            };
            match swept {
                Ok(Swept { expired: 0, .. }) => {}
                Ok(swept) => tracing::info!(
                    removed = swept.expired,
                    tags = swept.tags,
                    repositories = swept.repositories,
                    "retention removed {} of {} tags",
                    swept.expired,
                    swept.tags
                ),
                Err(error) => tracing::error!(error = %Chain(&error), "retention stopped half way; it goes on later"),
            }
        }
    }
}

fn entry(event: &TagEvent) -> Value {
    let action = match event.action {
        TagAction::Set => "set",
        TagAction::Deleted => "deleted",
        TagAction::Restored => "restored",
    };
    json!({
        "at": timestamp(event.at),
        "tag": event.tag.as_str(),
        "action": action,
        "digest": event.digest.to_string(),
        "kept": event.kept,
    })
}

/// `team/* ^v: the last 3, what was pushed within 30d`.
fn rule_text(rule: &RetentionRule) -> String {
    let tags = rule.tags.tags.as_ref().map_or_else(String::new, |tags| format!(" {}", tags.as_str()));
    let kept = [
        rule.keep_last.map(|last| format!("the last {last}")),
        rule.keep_pushed_within.map(|within| format!("what was pushed within {}", span(within))),
        rule.keep_pulled_within.map(|within| format!("what was pulled within {}", span(within))),
    ];
    let kept: Vec<String> = kept.into_iter().flatten().collect();
    format!("{}{tags}: {}", rule.tags.repositories, kept.join(", "))
}

/// Seconds in the largest unit that holds them exactly.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let unit = units.into_iter().find(|(length, _)| seconds % length == 0);
    unit.map_or_else(String::new, |(length, name)| format!("{}{name}", seconds / length))
}

#[cfg(test)]
pub(crate) mod tests;
