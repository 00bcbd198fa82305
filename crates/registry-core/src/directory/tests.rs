//! What changes of a directory do and refuse.

use super::{Directory, Edit, EditError, SubjectName};
use crate::{
    account::{Kind, PrincipalName, Verifier},
    policy::{Policy, Right},
};

fn principal(text: &str) -> PrincipalName {
    text.parse().unwrap()
}

fn user(name: &str) -> Edit {
    Edit::AddAccount { name: principal(name), kind: Kind::User, description: String::new() }
}

fn robot(name: &str) -> Edit {
    Edit::AddAccount { name: principal(name), kind: Kind::Robot, description: String::new() }
}

fn rule(subject: &str, glob: &str, rights: &str) -> Edit {
    Edit::AddRule(subject.parse().unwrap(), glob.parse().unwrap(), rights.parse().unwrap())
}

fn secret(name: &str, byte: u8, expires_at: Option<i64>) -> Edit {
    Edit::AddSecret { kind: Kind::Robot, name: principal(name), hash: [byte; 32], label: String::new(), expires_at }
}

fn after(edits: &[Edit]) -> Directory {
    Directory::new("test".into()).edited(edits, 100).unwrap()
}

#[test]
fn refusals() {
    let check = |edits: &[Edit], expected: &str| {
        let before =
            after(&[user("root"), rule("user:root", "**", "admin"), robot("ci"), Edit::AddGroup(principal("dev"))]);
        let error = before.edited(edits, 0).unwrap_err();
        assert!(error.to_string().contains(expected), "{edits:?}: {error}");
    };
    check(&[user("ci")], "there is a robot `ci` already");
    check(&[robot("root")], "there is a user `root` already");
    check(&[Edit::RemoveAccount(Kind::User, principal("ci"))], "there is no user `ci`");
    check(&[Edit::SetPassword(principal("ci"), "x".into())], "there is no user `ci`");
    check(&[rule("user:ci", "**", "pull")], "there is no user `ci`");
    check(&[rule("group:ops", "**", "pull")], "there is no group `ops`");
    check(&[rule("user:root", "**", "admin")], "says the same already");
    check(&[rule("users", "team/**", "admin")], "for users, robots and groups that are named");
    check(&[rule("anonymous", "a", "pull,admin")], "for users, robots and groups that are named");
    check(&[Edit::RemoveRule(crate::account::RuleId(99))], "there is no rule 99");
    check(&[Edit::AddGroup(principal("dev"))], "there is a group `dev` already");
    check(&[Edit::RemoveMember(principal("dev"), Kind::User, principal("root"))], "is not in group");
    check(&[Edit::RemoveAccount(Kind::User, principal("root"))], "nobody would be left");
    check(&[Edit::SetDisabled(Kind::User, principal("root"), true)], "nobody would be left");
    check(
        &[user("next"), rule("user:next", "team/**", "admin"), Edit::RemoveAccount(Kind::User, principal("root"))],
        "nobody",
    );
    check(&[Edit::RemoveKey("k".into())], "no key `k`");
    let long = Edit::AddAccount { name: principal("x"), kind: Kind::User, description: "é".repeat(129) };
    check(&[long], "256 bytes");
}

#[test]
fn a_new_account_of_an_old_name_begins_with_nothing() {
    let directory = after(&[
        user("root"),
        rule("user:root", "**", "admin"),
        user("bob"),
        rule("user:bob", "team/**", "push"),
        Edit::AddGroup(principal("dev")),
        Edit::AddMember(principal("dev"), Kind::User, principal("bob")),
        rule("group:dev", "dev/**", "push"),
    ]);
    let old = directory.account_named(Kind::User, &principal("bob")).unwrap().id;
    let again = directory.edited(&[Edit::RemoveAccount(Kind::User, principal("bob")), user("bob")], 200).unwrap();
    let new = again.account_named(Kind::User, &principal("bob")).unwrap().id;
    assert_ne!(old, new);
    let policy = Policy::new(&again);
    for repository in ["team/api", "dev/api"] {
        assert!(Policy::new(&directory).allows(Some(old), &repository.parse().unwrap(), Right::Push));
        for who in [old, new] {
            assert!(!policy.allows(Some(who), &repository.parse().unwrap(), Right::Pull), "{repository}");
        }
    }
}

#[test]
fn a_rotation_overlaps() {
    let directory = after(&[robot("ci"), secret("ci", 1, None), secret("ci", 2, Some(150))]);
    let ids = |directory: &Directory| -> Vec<u64> {
        let account = directory.account_named(Kind::Robot, &principal("ci")).unwrap();
        account.credentials.iter().map(|own| own.id.0).collect()
    };
    let before = ids(&directory);
    let rotated =
        directory.edited(&[Edit::EndSecrets(Kind::Robot, principal("ci"), 300), secret("ci", 3, None)], 200).unwrap();
    let account = rotated.account_named(Kind::Robot, &principal("ci")).unwrap();
    // The second had ended before and is swept out.
    let ends: Vec<Option<i64>> = account.credentials.iter().map(|own| own.expires_at).collect();
    assert_eq!(ends, [Some(300), None]);
    let first = crate::account::CredentialId(before[0]);
    assert!(account.accepts(first, 299) && !account.accepts(first, 300));
    let revoked = rotated.edited(&[Edit::RevokeSecrets(Kind::Robot, principal("ci"))], 250).unwrap();
    assert!(ids(&revoked).is_empty());
}

#[test]
fn a_new_password_takes_the_place_of_the_old() {
    let set = |hash: &str| Edit::SetPassword(principal("bob"), hash.into());
    let directory = after(&[user("bob"), set("one")]);
    let changed = directory.edited(&[set("two")], 200).unwrap();
    let account = changed.account_named(Kind::User, &principal("bob")).unwrap();
    let old = directory.accounts().next().unwrap().credentials[0].id;
    assert_eq!(account.credentials.len(), 1);
    assert_eq!(account.credentials[0].verifier, Verifier::Password("two".into()));
    assert!(!account.accepts(old, 200), "what the old password proved has ended");
    assert_eq!(account.password(200), Some((account.credentials[0].id, "two")));
}

#[test]
fn all_edits_or_none() {
    let before = after(&[user("bob")]);
    let refused = before.edited(&[user("eve"), user("bob")], 0).unwrap_err();
    assert_eq!(refused, EditError::AccountExists { kind: Kind::User, name: principal("bob") });
    assert_eq!(before.accounts().count(), 1);
    assert_eq!(Directory::from_parts(before.clone().into_parts()), before);
}

#[test]
fn subject_names() {
    let check = |text: &str, good: bool| {
        let parsed = text.parse::<SubjectName>();
        assert_eq!(parsed.is_ok(), good, "{text}");
        if let Ok(subject) = parsed {
            assert_eq!(subject.to_string(), text);
        }
    };
    for good in ["user:alice", "robot:ci", "group:dev", "users", "anonymous"] {
        check(good, true);
    }
    for bad in ["", "alice", "user:", "user:A", "User:a", "everybody", "group:a:b", "user:alice "] {
        check(bad, false);
    }
}
