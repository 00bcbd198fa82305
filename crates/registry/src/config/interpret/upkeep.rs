//! The sections that look after what is stored: `roadstead.gc`, `scrub`, `retention`, `immutable` and `quotas`.

use std::time::Duration;

use registry_core::{
    gc::Policy,
    name::RepoName,
    policy::RepoGlob,
    retention::{Quota, RetentionRule, TagRule},
};

use super::{Found, View, watch::pattern};
use crate::config::{
    diagnostic::Place,
    scalar::{self, Span},
    settings::{Collecting, Retention, Scrubbing},
    tree::Node,
};

/// Longest time that anything is kept for: a hundred years, which leaves sums of times in range.
const FOR_EVER: u64 = 100 * 365 * 86_400;
const WEEK: u64 = 7 * 86_400;

/// A span of whole seconds, rounded up, within `least..=most`; `None` if it is absent or wrong.
fn span(view: &View<'_>, least: u64, most: u64, found: &mut Found) -> Option<Duration> {
    let Span::Unit(span) = view.node.and_then(Node::scalar).and_then(scalar::span)? else { return None };
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    if (least..=most).contains(&seconds) {
        return Some(Duration::from_secs(seconds));
    }
    let shown = |seconds: u64| {
        if seconds.is_multiple_of(3600) { format!("{}h", seconds / 3600) } else { format!("{seconds}s") }
    };
    found.push(match (seconds, least) {
        (0, _) => view.error("must be longer than zero").hint(format!("the shortest is {least}s")),
        _ => view.error(format!("must be from {least}s to {}", shown(most))),
    });
    None
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// `longest` is the longest time of a request.
pub(super) fn collecting(gc: &View<'_>, longest: Duration, found: &mut Found) -> Collecting {
    let defaults = Collecting::default();
    let kept =
        |key: &str, default: i64, found: &mut Found| span(&gc.get(key), 0, FOR_EVER, found).map_or(default, seconds);
    let (lease, quarantine) = (gc.get("lease"), gc.get("quarantine"));
    let policy = Policy {
        grace: kept("grace", defaults.policy.grace, found),
        lease: kept("lease", defaults.policy.lease, found),
        quarantine: kept("quarantine", defaults.policy.quarantine, found),
        untagged: untagged(&gc.get("untagged"), defaults.policy.untagged, found),
    };
    let short = |view: &View<'_>, span: i64| view.is_set() && span < seconds(longest);
    let hint = || format!("at least {}s, the longest request (roadstead.limits.request)", longest.as_secs());
    if short(&quarantine, policy.quarantine) {
        found.push(quarantine.warning("a pull that takes longer may lose its blob on the way").hint(hint()));
    }
    if short(&lease, policy.lease) {
        found.push(lease.warning("a push that takes longer may have to send layers once more").hint(hint()));
    }
    Collecting {
        enabled: gc.get("enabled").flag(defaults.enabled),
        interval: span(&gc.get("interval"), 1, 86_400, found).unwrap_or(defaults.interval),
        policy,
        rate: rate(&gc.get("rate"), defaults.rate, found),
        orphans: span(&gc.get("orphans"), 0, FOR_EVER, found).unwrap_or(defaults.orphans),
    }
}

/// A duration, or `keep` for ever.
fn untagged(view: &View<'_>, default: Option<i64>, found: &mut Found) -> Option<i64> {
    match view.node.and_then(Node::scalar) {
        None => default,
        Some(scalar) if scalar.text.eq_ignore_ascii_case("keep") => None,
        Some(scalar) => match scalar::span(scalar) {
            Some(Span::Unit(_)) => span(view, 0, FOR_EVER, found).map_or(default, |span| Some(seconds(span))),
            Some(Span::Negative) => {
                found.push(view.error("a duration cannot be negative"));
                default
            }
            _ => {
                found.push(
                    view.error("expected a duration or `keep`")
                        .hint("write a number and a unit, such as 720h, or `keep` for ever"),
                );
                default
            }
        },
    }
}

fn rate(view: &View<'_>, default: u32, found: &mut Found) -> u32 {
    const MOST: u32 = 1_000_000;
    match view.int() {
        None => default,
        Some(0) => {
            found.push(view.error("must be above zero").hint("write `enabled: false` to switch the collection off"));
            default
        }
        Some(_) => view.count(default, MOST, found),
    }
}

pub(super) fn scrubbing(scrub: &View<'_>, found: &mut Found) -> Scrubbing {
    const LEAST: u64 = 64 << 10;
    let defaults = Scrubbing::default();
    let rate = scrub.get("rate");
    Scrubbing {
        enabled: scrub.get("enabled").flag(defaults.enabled),
        period: span(&scrub.get("period"), 1, 10 * 365 * 86_400, found).unwrap_or(defaults.period),
        rate: match rate.node.and_then(Node::scalar).and_then(scalar::size) {
            Some(bytes) if bytes < LEAST => {
                let hint = "write `enabled: false` to switch it off";
                found.push(rate.error("must be at least 64KiB, which are bytes in a second").hint(hint));
                defaults.rate
            }
            Some(bytes) => bytes,
            None => defaults.rate,
        },
    }
}

pub(super) fn retention(retention: &View<'_>, found: &mut Found) -> Retention {
    let interval = span(&retention.get("interval"), 1, WEEK, found).unwrap_or(Duration::from_secs(3600));
    let rules = retention.get("rules");
    Retention { interval, rules: rules.items().iter().filter_map(|item| retention_rule(item, found)).collect() }
}

fn retention_rule(item: &View<'_>, found: &mut Found) -> Option<RetentionRule> {
    let tags = tag_rule(item, found);
    let last = item.get("keep_last");
    let keep_last = match last.int() {
        Some(n) if n > 0 => usize::try_from(n).ok(),
        Some(_) => {
            found.push(last.error("must be 1 or more").hint("remove the key if the number does not matter"));
            return None;
        }
        None => None,
    };
    let within = |key: &str, found: &mut Found| span(&item.get(key), 1, FOR_EVER, found).map(seconds);
    let keep_pushed_within = within("keep_pushed_within", found);
    let keep_pulled_within = within("keep_pulled_within", found);
    let keys = ["keep_last", "keep_pushed_within", "keep_pulled_within"];
    if keys.iter().all(|key| !item.get(key).is_set()) {
        found.push(
            item.error("keeps nothing: every tag that it covers would go")
                .hint("say what stays with keep_last, keep_pushed_within or keep_pulled_within"),
        );
        return None;
    }
    Some(RetentionRule { tags: tags?, keep_last, keep_pushed_within, keep_pulled_within })
}

pub(super) fn immutable(list: &View<'_>, found: &mut Found) -> Vec<TagRule> {
    list.items().iter().filter_map(|item| tag_rule(item, found)).collect()
}

fn tag_rule(item: &View<'_>, found: &mut Found) -> Option<TagRule> {
    let (repositories, tags) = (item.get("repositories"), item.get("tags"));
    let glob = match repositories.text().map(str::parse::<RepoGlob>) {
        Some(Ok(glob)) => Some(glob),
        Some(Err(error)) => {
            found.push(repositories.error(error.to_string()));
            None
        }
        None => {
            found.push(repositories.error("is missing").hint("write which, such as team/*, or '**' for all"));
            None
        }
    };
    let tags = if tags.is_set() { Some(pattern(&tags, found)?) } else { None };
    Some(TagRule { repositories: glob?, tags })
}

pub(super) fn quotas(list: &View<'_>, found: &mut Found) -> Vec<Quota> {
    let mut quotas: Vec<(Quota, Place)> = Vec::new();
    for item in list.items() {
        let (prefix, limit) = (item.get("prefix"), item.get("limit"));
        let name = match prefix.text().map(str::parse::<RepoName>) {
            Some(Ok(name)) => Some(name),
            Some(Err(error)) => {
                let hint = "write the name of a repository or how some begin, without a slash at the end: team";
                found.push(prefix.error(error.to_string()).hint(hint));
                None
            }
            None => {
                found.push(prefix.error("is missing").hint("write how the repositories begin, such as team"));
                None
            }
        };
        let bytes = match limit.node.and_then(Node::scalar).map(scalar::size) {
            Some(Some(0)) => {
                let hint = "remove the entry for no limit; to allow no pushes, take the right away";
                found.push(limit.error("must be above zero").hint(hint));
                None
            }
            // The store counts in signed numbers.
            Some(Some(bytes)) if i64::try_from(bytes).is_err() => {
                found.push(limit.error("is more than can be counted").hint("write a size such as 10GiB"));
                None
            }
            Some(bytes) => bytes,
            None => {
                if limit.node.is_none_or(Node::is_null) {
                    found.push(limit.error("is missing").hint("write a size such as 10GiB"));
                }
                None
            }
        };
        let (Some(name), Some(limit)) = (name, bytes) else { continue };
        if let Some((_, place)) = quotas.iter().find(|(quota, _)| quota.prefix == name) {
            let problem = prefix.error(format!("a second quota of `{name}`, after the one at {place}"));
            found.push(problem.hint("keep one of them"));
            continue;
        }
        quotas.push((Quota { prefix: name, limit }, prefix.place));
    }
    quotas.into_iter().map(|(quota, _)| quota).collect()
}
