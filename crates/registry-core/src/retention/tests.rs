//! What is kept, what goes, and how much fits.

use proptest::{collection::vec, option, prelude::*};
use regex_lite::Regex;

use super::{Quota, RetentionRule, TagRule, Usage, expired};
use crate::{
    digest::{Algorithm, Digest},
    name::RepoName,
    store::TagFacts,
};

const NOW: i64 = 1_000_000;

fn digest() -> Digest {
    Digest::from_raw(Algorithm::Sha256, &[7; 32]).expect("32 bytes")
}

/// `NAME:SECONDS SINCE IT WAS PUSHED[:SECONDS SINCE IT WAS PULLED]`, joined by spaces.
fn tags(text: &str) -> Vec<TagFacts> {
    text.split_whitespace()
        .map(|one| {
            let mut parts = one.split(':');
            let tag = parts.next().and_then(|name| name.parse().ok()).expect("a tag");
            let mut at = || parts.next().map_or(0, |ago| NOW - ago.parse::<i64>().expect("seconds"));
            TagFacts { tag, digest: digest(), pushed_at: at(), pulled_at: at() }
        })
        .collect()
}

fn tag_rule(text: &str) -> TagRule {
    let (repositories, tags) = text.split_once(' ').unwrap_or((text, ""));
    let tags = (!tags.is_empty()).then(|| Regex::new(tags).expect("a regular expression"));
    TagRule { repositories: repositories.parse().expect("a glob"), tags }
}

/// `GLOB REGEX | last N | pushed N | pulled N`, all but the glob optional.
fn rule(text: &str) -> RetentionRule {
    let mut parts = text.split(" | ");
    let tags = tag_rule(parts.next().unwrap_or_default());
    let mut rule = RetentionRule { tags, keep_last: None, keep_pushed_within: None, keep_pulled_within: None };
    for part in parts {
        let (what, number) = part.split_once(' ').expect("a condition and a number");
        let number = number.parse::<i64>().expect("a number");
        match what {
            "last" => rule.keep_last = usize::try_from(number).ok(),
            "pushed" => rule.keep_pushed_within = Some(number),
            "pulled" => rule.keep_pulled_within = Some(number),
            _ => panic!("{what}"),
        }
    }
    rule
}

#[test]
fn what_goes() {
    let check = |rules: &[&str], immutable: &[&str], facts: &str, gone: &str| {
        let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
        let immutable: Vec<_> = immutable.iter().map(|text| tag_rule(text)).collect();
        let name: RepoName = "team/api".parse().unwrap();
        let seen = expired(&rules, &immutable, &name, &tags(facts), NOW);
        let seen: Vec<String> = seen.iter().map(|gone| format!("{}/{}", gone.facts.tag, gone.rule)).collect();
        assert_eq!(seen.join(" "), gone, "{facts}");
    };
    check(&["team/* | last 2"], &[], "a:30 b:20 c:10", "a/0");
    check(&["team/* | last 2"], &[], "c:10 a:10 b:10", "c/0");
    check(&["team/* | last 0"], &[], "a:30", "a/0");
    check(&["other/* | last 0"], &[], "a:30", "");
    check(&["team/* ^v | last 1"], &[], "v1:30 v2:20 x:99", "v1/0");
    check(&["team/* | pushed 25"], &[], "a:30 b:20", "a/0");
    check(&["team/* | pushed 25"], &[], "a:25 b:24", "a/0");
    check(&["team/* | pulled 25"], &[], "a:90:30 b:90:20 c:90", "a/0 c/0");
    check(&["team/* | last 1 | pushed 25 | pulled 5"], &[], "a:99:4 b:99:6 c:24 d:10", "b/0");
    // The first rule that covers a tag decides, whatever later ones say.
    check(&["team/* ^v | last 9", "** | last 0"], &[], "v1:9 x:9", "x/1");
    check(&["team/* | last 0"], &["team/* ^v"], "v1:9 x:9", "x/0");
    // What is immutable takes none of the places.
    check(&["team/* | last 1"], &["team/* ^v"], "v1:1 a:2 b:3", "b/0");
    check(&["team/* | last 1"], &["other/* ^v"], "v1:1 a:2 b:3", "a/0 b/0");
}

proptest! {
    #[test]
    fn nothing_goes_that_no_rule_lets_go(
        facts in vec((0_i64..100, option::of(0_i64..100)), 0..40),
        last in option::of(0_usize..6),
        pushed in option::of(1_i64..100),
        pulled in option::of(1_i64..100),
    ) {
        // The covered ones begin with `c`, the immutable ones with `i`, the rest is nobody's.
        let facts: Vec<TagFacts> = facts
            .iter()
            .enumerate()
            .map(|(index, (push, pull))| TagFacts {
                tag: format!("{}{index}", ["c", "i", "n"][index % 3]).parse().unwrap(),
                digest: digest(),
                pushed_at: NOW - push,
                pulled_at: pull.map_or(0, |ago| NOW - ago),
            })
            .collect();
        let rules = [RetentionRule {
            tags: tag_rule("** ^[ci]"),
            keep_last: last,
            keep_pushed_within: pushed,
            keep_pulled_within: pulled,
        }];
        let name: RepoName = "r".parse().unwrap();
        let gone = expired(&rules, &[tag_rule("** ^i")], &name, &facts, NOW);
        prop_assert!(gone.iter().all(|gone| gone.facts.tag.as_str().starts_with('c')));
        let covered = facts.iter().filter(|facts| facts.tag.as_str().starts_with('c')).count();
        if pushed.is_none() && pulled.is_none() {
            // Nothing else keeps: exactly so many stay.
            prop_assert_eq!(covered - gone.len(), last.unwrap_or(0).min(covered));
        }
        if let Some(limit) = last {
            prop_assert!(covered - gone.len() >= limit.min(covered));
        }
        for gone in &gone {
            prop_assert!(pushed.is_none_or(|within| gone.facts.pushed_at <= NOW - within));
            prop_assert!(pulled.is_none_or(|within| gone.facts.pulled_at <= NOW - within));
        }
        // What went does not let more go the next time.
        let left: Vec<TagFacts> =
            facts.iter().filter(|facts| gone.iter().all(|gone| gone.facts != **facts)).cloned().collect();
        prop_assert!(expired(&rules, &[tag_rule("** ^i")], &name, &left, NOW).is_empty());
    }
}

#[test]
fn what_fits() {
    let check = |used: u64, promised: u64, asked: u64, fits: bool| {
        let usage = Usage { quota: Quota { prefix: "team".parse().unwrap(), limit: 100 }, used };
        assert_eq!(usage.admit(promised, asked).is_ok(), fits, "{used} + {promised} + {asked}");
    };
    check(0, 0, 100, true);
    check(0, 0, 101, false);
    check(60, 40, 0, true);
    check(60, 40, 1, false);
    check(60, 41, 0, false);
    check(u64::MAX, u64::MAX, u64::MAX, false);
}

#[test]
fn whom_a_quota_covers() {
    let check = |prefix: &str, name: &str, covered: bool| {
        let quota = Quota { prefix: prefix.parse().unwrap(), limit: 1 };
        assert_eq!(quota.covers(&name.parse().unwrap()), covered, "{prefix} {name}");
    };
    check("team", "team", true);
    check("team", "team/api", true);
    check("team", "team/api/web", true);
    check("team", "teams/api", false);
    check("team/api", "team", false);
    check("team/api", "team/apis", false);
}
