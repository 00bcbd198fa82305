//! What the policy promises: a rule never reaches beyond its subject, its glob and its rights.

use proptest::prelude::*;

use super::{Policy, RepoGlob, Right, Rights, Says};
use crate::{
    account::{AccountId, Kind, PrincipalName},
    directory::{Directory, Edit, SubjectName},
    name::RepoName,
};

fn glob(text: &str) -> RepoGlob {
    text.parse().unwrap()
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

#[test]
fn globs_hold() {
    let check = |pattern: &str, repository: &str, holds: bool| {
        assert_eq!(glob(pattern).holds(&name(repository)), holds, "{pattern} {repository}");
    };
    check("team/api", "team/api", true);
    check("team/api", "team/api/v2", false);
    check("team/api", "team", false);
    check("team/*", "team/api", true);
    check("team/*", "team", false);
    check("team/*", "team/api/v2", false);
    check("team/*", "teams/api", false);
    check("team/**", "team/api", true);
    check("team/**", "team/api/v2", true);
    check("team/**", "team", false);
    check("team/**", "team-b/api", false);
    check("**", "a", true);
    check("**", "a/b/c", true);
    check("*", "a", true);
    check("*", "a/b", false);
    check("team-*/app", "team-b/app", true);
    check("team-*/app", "team-b/x/app", false);
    check("*-*-x", "a-b-c-x", true);
    check("*-*-x", "a-x", false);
    check("*b*", "abc", true);
    check("*/*", "a/b", true);
}

#[test]
fn texts_that_are_no_globs() {
    let check = |text: &str, expected: &str| {
        let error = text.parse::<RepoGlob>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "empty component");
    check("/a", "empty component");
    check("a//b", "empty component");
    check("a/", "empty component");
    check("A", "character");
    check("a b", "character");
    check("a?", "character");
    check("é", "character");
    check("**/a", "whole last component");
    check("a**", "whole last component");
    check("a/***", "whole last component");
    check(&"a".repeat(256), "255");
}

#[test]
fn a_glob_covers_another() {
    let check = |wide: &str, narrow: &str, covers: bool| {
        assert_eq!(glob(wide).covers(&glob(narrow)), covers, "{wide} {narrow}");
    };
    check("**", "**", true);
    check("**", "a/*", true);
    check("team/**", "team/api", true);
    check("team/**", "team/*/x", true);
    check("team/**", "team", false);
    check("team/**", "**", false);
    check("team/*", "team/**", false);
    check("team/*", "team/a*", true);
    check("team/a*", "team/*", false);
    check("*", "**", false);
    check("a*c", "ab*c", true);
}

#[test]
fn rights_include_others() {
    let check = |written: &str, gives: &str| {
        let rights: Rights = written.parse().unwrap();
        let given: Vec<&str> = Right::ALL.into_iter().filter(|r| rights.give(*r)).map(Right::as_str).collect();
        assert_eq!(given.join(","), gives, "{written}");
        assert_eq!(rights.to_string().parse::<Rights>().unwrap(), rights);
    };
    check("pull", "pull");
    check("push", "pull,push");
    check("delete", "delete");
    check("pull, delete", "pull,delete");
    check("admin", "pull,push,delete,admin");
    for bad in ["", "PULL", "pull,", "read", "*"] {
        assert!(bad.parse::<Rights>().is_err(), "{bad}");
    }
}

/// Alice, bob (in group dev), robot ci, and the rules given as `subject glob rights`.
fn directory(rules: &[(&str, &str, &str)]) -> Directory {
    let principal = |text: &str| text.parse::<PrincipalName>().unwrap();
    let account = |name: &str, kind| Edit::AddAccount { name: principal(name), kind, description: String::new() };
    let people = [
        account("alice", Kind::User),
        account("bob", Kind::User),
        account("ci", Kind::Robot),
        Edit::AddGroup(principal("dev")),
        Edit::AddMember(principal("dev"), Kind::User, principal("bob")),
    ];
    let rules = rules.iter().map(|(subject, repositories, rights)| {
        Edit::AddRule(subject.parse().unwrap(), glob(repositories), rights.parse().unwrap())
    });
    let edits: Vec<Edit> = people.into_iter().chain(rules).collect();
    Directory::new("test".into()).edited(&edits, 0).unwrap()
}

fn id(directory: &Directory, who: &str) -> Option<AccountId> {
    let named = |account: &&crate::account::Account| account.name.as_str() == who;
    directory.accounts().find(named).map(|account| account.id)
}

#[test]
fn whom_rules_are_for() {
    let check = |rules: &[(&str, &str, &str)], who: &str, allowed: bool| {
        let directory = directory(rules);
        let policy = Policy::new(&directory);
        let who = id(&directory, who);
        assert_eq!(policy.allows(who, &name("team/api"), Right::Pull), allowed, "{rules:?} {who:?}");
    };
    for who in ["alice", "bob", "ci", "nobody"] {
        check(&[], who, false);
        check(&[("anonymous", "**", "pull")], who, true);
        check(&[("users", "**", "pull")], who, matches!(who, "alice" | "bob"));
        check(&[("group:dev", "team/*", "push")], who, who == "bob");
        check(&[("robot:ci", "team/api", "pull")], who, who == "ci");
        check(&[("user:alice", "team/*", "admin")], who, who == "alice");
        check(&[("user:alice", "other/*", "admin"), ("user:alice", "team/*", "delete")], who, false);
    }
}

fn component() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "ab", "team", "team-a", "x"]).prop_map(str::to_owned)
}

fn repository() -> impl Strategy<Value = RepoName> {
    proptest::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/").parse().unwrap())
}

fn any_glob() -> impl Strategy<Value = RepoGlob> {
    let part =
        prop_oneof![component(), proptest::sample::select(vec!["*", "a*", "*b", "team-*"]).prop_map(String::from)];
    (proptest::collection::vec(part, 0..3), any::<bool>()).prop_map(|(mut parts, deep)| {
        if deep || parts.is_empty() {
            parts.push("**".into());
        }
        parts.join("/").parse().unwrap()
    })
}

fn any_right() -> impl Strategy<Value = Right> {
    proptest::sample::select(Right::ALL.to_vec())
}

const SUBJECTS: [&str; 6] = ["user:alice", "user:bob", "robot:ci", "group:dev", "users", "anonymous"];

fn any_rule() -> impl Strategy<Value = Edit> {
    let rights = proptest::collection::vec(any_right(), 1..3);
    (proptest::sample::select(SUBJECTS.to_vec()), any_glob(), rights).prop_map(|(subject, repositories, rights)| {
        let subject: SubjectName = subject.parse().unwrap();
        Edit::AddRule(subject, repositories, rights.into_iter().collect())
    })
}

/// A directory with those of `rules` that are accepted.
fn with(rules: &[Edit]) -> Directory {
    rules
        .iter()
        .fold(directory(&[]), |directory, rule| directory.edited(std::slice::from_ref(rule), 0).unwrap_or(directory))
}

const CALLERS: [&str; 4] = ["alice", "bob", "ci", "nobody"];

proptest! {
    #[test]
    fn a_wider_glob_holds_what_a_narrower_does(wide in any_glob(), narrow in any_glob(), name in repository()) {
        if wide.covers(&narrow) && narrow.holds(&name) {
            prop_assert!(wide.holds(&name), "{} {} {}", wide, narrow, name);
        }
        prop_assert!(RepoGlob::everything().covers(&wide) && wide.covers(&wide));
    }

    #[test]
    fn a_rule_reaches_no_further_than_it_says(
        rules in proptest::collection::vec(any_rule(), 0..6), rule in any_rule(),
        who in proptest::sample::select(CALLERS.to_vec()), repository in repository(), right in any_right(),
    ) {
        let before = with(&rules);
        let after = with(&[rules, vec![rule.clone()]].concat());
        let ask = |directory: &Directory| {
            Policy::new(directory).allows(id(directory, who), &repository, right)
        };
        let (was, is) = (ask(&before), ask(&after));
        prop_assert!(!was || is, "a rule took something away");
        if is && !was {
            let Edit::AddRule(subject, glob, rights) = rule else { unreachable!() };
            prop_assert!(glob.holds(&repository) && rights.give(right));
            let meant = match subject.to_string().as_str() {
                "anonymous" => true,
                "users" => who == "alice" || who == "bob",
                "group:dev" => who == "bob",
                one => one.ends_with(&format!(":{who}")),
            };
            prop_assert!(meant, "{subject} is not {who}");
        }
    }

    #[test]
    fn without_a_rule_nothing_is_allowed(
        who in proptest::sample::select(CALLERS.to_vec()), repository in repository(), right in any_right(),
    ) {
        let directory = directory(&[]);
        prop_assert_eq!(Policy::new(&directory).decide(id(&directory, who), &repository, right), None);
    }

    #[test]
    fn the_explanation_agrees_with_the_decision(
        rules in proptest::collection::vec(any_rule(), 0..8),
        who in proptest::sample::select(CALLERS.to_vec()), repository in repository(), right in any_right(),
    ) {
        let directory = with(&rules);
        let (policy, who) = (Policy::new(&directory), id(&directory, who));
        let said = policy.explain(who, &repository, right);
        let first = said.iter().find(|(_, says)| *says == Says::Yes).map(|(rule, _)| rule.id);
        let decided = policy.decide(who, &repository, right);
        prop_assert_eq!(first, decided);
        prop_assert_eq!(decided.is_some(), policy.allows(who, &repository, right));
    }

    #[test]
    fn a_disabled_or_removed_account_may_nothing(
        rules in proptest::collection::vec(any_rule(), 0..8), remove in any::<bool>(),
        repository in repository(), right in any_right(),
    ) {
        let before = with(&rules);
        let (alice, bob) = (id(&before, "alice"), "bob".parse::<PrincipalName>().unwrap());
        let gone = id(&before, "bob");
        let edit = if remove { Edit::RemoveAccount(Kind::User, bob) } else { Edit::SetDisabled(Kind::User, bob, true) };
        // The last administrator stays.
        let Ok(after) = before.edited(&[edit], 0) else { return Ok(()) };
        prop_assert!(!Policy::new(&after).allows(gone, &repository, right));
        prop_assert_eq!(
            Policy::new(&before).decide(alice, &repository, right),
            Policy::new(&after).decide(alice, &repository, right)
        );
    }
}
