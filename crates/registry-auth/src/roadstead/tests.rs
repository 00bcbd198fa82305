//! Checks the scheme on directories as an administrator would make them.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use registry_core::{
    access::Access,
    account::{Kind, PrincipalName, RuleId},
    directory::{Directory, Edit, SigningKey},
};

use super::{IssueError, Issued, Proof, Roadstead, RoadsteadConfig, TokenAsk};
use crate::{
    Ask, AuthError, Verdict,
    issuer::Key,
    password::{Password, PasswordHash},
    scope,
    secret::Secret,
};

const NOW: i64 = 1_700_000_000;

fn principal(text: &str) -> PrincipalName {
    text.parse().unwrap()
}

fn add(name: &str, kind: Kind) -> Edit {
    Edit::AddAccount { name: principal(name), kind, description: String::new() }
}

fn password(name: &str, text: &str) -> Edit {
    let password = Password::parse(text, name).unwrap();
    Edit::SetPassword(principal(name), PasswordHash::new(&password).as_str().to_owned())
}

fn secret(name: &str, secret: &Secret, expires_at: Option<i64>) -> Edit {
    let hash = secret.hash().into();
    Edit::AddSecret { kind: Kind::Robot, name: principal(name), hash, label: String::new(), expires_at }
}

fn rule(subject: &str, glob: &str, rights: &str) -> Edit {
    Edit::AddRule(subject.parse().unwrap(), glob.parse().unwrap(), rights.parse().unwrap())
}

fn key(now: i64) -> Edit {
    let Key { id, pkcs8, created_at } = Key::generate(now).unwrap();
    Edit::AddKey(SigningKey { id, pkcs8, created_at })
}

/// A registry with root, bob, the robot ci, and a public corner.
struct Bed {
    directory: Directory,
    scheme: Roadstead,
    secret: Secret,
}

impl Bed {
    fn new() -> Self {
        let robot = Secret::generate();
        let edits = [
            key(NOW - 100),
            add("root", Kind::User),
            password("root", "correct horse"),
            rule("user:root", "**", "admin"),
            add("bob", Kind::User),
            password("bob", "battery staple"),
            rule("user:bob", "team/*", "push"),
            rule("user:bob", "shared/**", "pull"),
            add("ci", Kind::Robot),
            secret("ci", &robot, None),
            rule("robot:ci", "team/api", "push"),
            rule("anonymous", "public/**", "pull"),
        ];
        let directory = Directory::new("test".into()).edited(&edits, NOW - 100).unwrap();
        let config = RoadsteadConfig {
            realm: None,
            path: "/token".into(),
            service: "reg".into(),
            token_lifetime: 300,
            refresh_lifetime: 86_400,
        };
        Self { scheme: Roadstead::new(config, Arc::new(directory.clone())).unwrap(), directory, secret: robot }
    }

    fn edit(&mut self, edits: &[Edit]) {
        self.directory = self.directory.edited(edits, NOW).unwrap();
        self.scheme.publish(Arc::new(self.directory.clone())).unwrap();
    }

    fn verify(&self, authorization: Option<&str>, wanted: &str, now: i64) -> Result<Verdict, AuthError> {
        let wanted = wanted_of(wanted);
        self.scheme.verify(&Ask { authorization, wanted: &wanted, host: Some("reg.test:5000"), now, ..Ask::default() })
    }

    /// Checks what becomes of a request: `NAME` if it goes on, `401 …` with the challenge's error,
    /// or `403 …` with the message.
    #[track_caller]
    fn check_at(&self, now: i64, authorization: Option<&str>, wanted: &str, expected: &str) {
        let seen = match self.verify(authorization, wanted, now).unwrap() {
            Verdict::Granted { caller, .. } => caller.name,
            Verdict::Refused(challenge) => {
                let error = challenge.www_authenticate.split_once(",error=").map_or("", |(_, error)| error);
                assert!(challenge.www_authenticate.starts_with("Bearer realm=\"http://reg.test:5000/token\","));
                format!("401 {}", error.trim_matches('"').replace("\",error_description=\"", ": "))
            }
            Verdict::Forbidden(forbidden) => format!("403 {}", forbidden.message()),
        };
        assert_eq!(seen.trim(), expected, "{wanted}");
    }

    #[track_caller]
    fn check(&self, authorization: Option<&str>, wanted: &str, expected: &str) {
        self.check_at(NOW, authorization, wanted, expected);
    }

    fn issue(&self, proof: Proof<'_>, wanted: &str, offline: bool, now: i64) -> Result<Issued, IssueError> {
        let wanted = wanted_of(wanted);
        let ask = TokenAsk { proof, wanted: &wanted, offline, address: None, now };
        self.scheme.issue(&ask, true).unwrap()
    }

    #[track_caller]
    fn token(&self, proof: Proof<'_>, wanted: &str) -> String {
        format!("Bearer {}", self.issue(proof, wanted, false, NOW).unwrap().token)
    }

    /// Checks the rights that a token for `wanted` carries.
    #[track_caller]
    fn check_rights(&self, proof: Proof<'_>, wanted: &str, expected: &str) {
        let issued = self.issue(proof, wanted, false, NOW).unwrap();
        let rights: Vec<String> = issued.granted.iter().map(crate::challenge::scope_of).collect();
        assert_eq!(rights.join(" "), expected, "{wanted}");
    }
}

fn wanted_of(scopes: &str) -> Vec<Access> {
    scope::parse([scopes]).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

const BOB: Proof<'_> = Proof::Password("bob", "battery staple");

#[test]
fn who_may_do_what() {
    let bed = Bed::new();
    let (bob, ci) = (basic("bob", "battery staple"), basic("ci", bed.secret.as_str()));
    let root = basic("root", "correct horse");
    bed.check(None, "", "401");
    bed.check(None, "repository:public/a:pull", "");
    bed.check(None, "repository:public/a:pull,push", "401");
    bed.check(None, "repository:team/api:pull", "401");
    bed.check(None, "registry:catalog:*", "");
    bed.check(Some(&bob), "", "bob");
    bed.check(Some(&bob), "repository:team/api:pull,push", "bob");
    bed.check(Some(&bob), "repository:public/a:pull", "bob");
    bed.check(Some(&bob), "repository:shared/x/y:pull", "bob");
    bed.check(
        Some(&bob),
        "repository:shared/x:pull,push",
        "403 bob lacks the right to push on shared/x; ask root for it",
    );
    for wanted in ["repository:hidden:pull,push", "repository:hidden:pull,push repository:other:pull"] {
        bed.check(Some(&bob), wanted, "403 bob lacks the right to push on hidden; ask root for it");
    }
    bed.check(
        Some(&bob),
        "repository:team/api:delete",
        "403 bob lacks the right to delete on team/api; ask root for it",
    );
    bed.check(Some(&ci), "repository:team/api:pull,push", "ci");
    bed.check(Some(&ci), "repository:team/web:pull", "403 ci lacks the right to pull on team/web; ask root for it");
    bed.check(Some(&root), "repository:any/thing:pull,push,delete", "root");
    for wrong in [
        basic("bob", "wrong password"),
        basic("nobody", "battery staple"),
        basic("bob", bed.secret.as_str()),
        basic("ci", "rsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        basic("Bob", "battery staple"),
        basic("", ""),
        "Basic !".into(),
        "Bearer x".into(),
    ] {
        let expected = if wrong.starts_with("Bearer") { "401 invalid_token" } else { "401" };
        bed.check(Some(&wrong), "repository:public/a:pull", expected);
    }
}

#[test]
fn a_token_carries_what_was_asked_and_is_allowed() {
    let bed = Bed::new();
    let ci = basic("ci", bed.secret.as_str());
    bed.check_rights(BOB, "repository:team/api:pull,push,delete", "repository:team/api:pull repository:team/api:push");
    bed.check_rights(BOB, "repository:team/api:*", "repository:team/api:pull repository:team/api:push");
    bed.check_rights(BOB, "repository:other/x:pull repository:shared/x:push", "");
    bed.check_rights(
        Proof::Header(&ci),
        "repository:team/web:push repository:team/api:push",
        "repository:team/api:push",
    );
    bed.check_rights(Proof::None, "repository:public/a:pull,push repository:team/api:pull", "repository:public/a:pull");
    bed.check_rights(Proof::None, "registry:catalog:*", "registry:catalog:*");

    let token = bed.token(BOB, "repository:team/api:pull");
    bed.check(Some(&token), "repository:team/api:pull", "bob");
    bed.check(Some(&token), "", "bob");
    // Another token would help, and the challenge says so; where none would, the answer is final.
    bed.check(Some(&token), "repository:team/api:push", "401 insufficient_scope");
    bed.check(Some(&token), "repository:team/web:pull", "401 insufficient_scope");
    bed.check(Some(&token), "repository:x:pull", "403 bob lacks the right to pull on x; ask root for it");
    let anonymous = bed.token(Proof::None, "repository:public/a:pull");
    bed.check(Some(&anonymous), "", "");
    bed.check(Some(&anonymous), "repository:public/a:pull", "");
    // The client asked for too little, or has to log in, and is told how.
    bed.check(Some(&anonymous), "repository:public/b:pull", "401 insufficient_scope");
    for (wanted, right) in [
        ("repository:team/api:pull", "with the right to pull on team/api"),
        ("repository:team/api:pull,push", "with the right to push on team/api"),
        ("repository:public/a:pull,push", "with the right to push on public/a"),
        ("repository:nowhere:pull", "with the right to pull on nowhere"),
    ] {
        let told = format!("401 insufficient_scope: log in first, {right}: docker login reg.test:5000");
        bed.check(Some(&anonymous), wanted, &told);
    }
    // It cannot be used after its end, not even by a second.
    bed.check_at(NOW + 299, Some(&token), "", "bob");
    bed.check_at(NOW + 300, Some(&token), "", "401 invalid_token");
    bed.check_at(NOW - 3600, Some(&token), "", "401 invalid_token");
}

#[test]
fn refresh_tokens_stand_for_their_account() {
    let mut bed = Bed::new();
    let issued = bed.issue(BOB, "repository:team/api:pull", true, NOW).unwrap();
    let refresh = issued.refresh_token.unwrap();
    bed.check_rights(Proof::Refresh(&refresh), "repository:team/web:push", "repository:team/web:push");
    // Pasted in place of a password, with the name or with Docker's word for none.
    for user in ["bob", "<token>"] {
        bed.check(Some(&basic(user, &refresh)), "repository:team/api:push", "bob");
    }
    bed.check(Some(&basic("root", &refresh)), "", "401");
    // Neither kind of token serves as the other.
    bed.check(Some(&format!("Bearer {refresh}")), "", "401 invalid_token");
    assert!(bed.issue(Proof::Refresh(&issued.token), "", false, NOW).is_err());
    assert!(bed.issue(Proof::Refresh(&refresh), "", false, NOW + 86_400).is_err());
    assert!(bed.issue(Proof::None, "", true, NOW).unwrap().refresh_token.is_none());
    // A token made shortly before the end of what it was made from ends with it.
    assert_eq!(bed.issue(Proof::Refresh(&refresh), "", false, NOW + 86_390).unwrap().expires_in, 10);
    // A new password ends everything that the old one proved.
    let access = bed.token(BOB, "");
    bed.edit(&[password("bob", "something else")]);
    bed.check(Some(&access), "", "401 invalid_token");
    assert!(bed.issue(Proof::Refresh(&refresh), "", false, NOW).is_err());
    bed.check(Some(&basic("bob", "battery staple")), "", "401");
    bed.check(Some(&basic("bob", "something else")), "", "bob");
}

#[test]
fn what_changes_is_felt_by_the_next_request() {
    let mut bed = Bed::new();
    let (token, bob) = (bed.token(BOB, "repository:team/api:pull,push"), basic("bob", "battery staple"));
    bed.check(Some(&token), "repository:team/api:push", "bob");
    bed.check(Some(&bob), "repository:team/api:push", "bob");
    bed.edit(&[Edit::SetDisabled(Kind::User, principal("bob"), true)]);
    bed.check(Some(&token), "repository:team/api:push", "401 invalid_token");
    bed.check(Some(&bob), "repository:team/api:push", "401");
    bed.edit(&[Edit::SetDisabled(Kind::User, principal("bob"), false)]);
    bed.check(Some(&token), "repository:team/api:push", "bob");
    // A right that was taken is gone for tokens that carry it, too.
    let rule = bed.directory.rules().find(|rule| rule.repositories.as_str() == "team/*").map(|rule| rule.id);
    bed.edit(&[Edit::RemoveRule(rule.unwrap_or(RuleId(0)))]);
    bed.check(Some(&token), "repository:team/api:push", "403 bob lacks the right to push on team/api; ask root for it");
    // A new user of the same name is somebody else.
    bed.edit(&[
        Edit::RemoveAccount(Kind::User, principal("bob")),
        add("bob", Kind::User),
        password("bob", "battery staple"),
    ]);
    bed.check(Some(&token), "", "401 invalid_token");
    bed.check(Some(&bob), "repository:shared/x:pull", "403 bob lacks the right to pull on shared/x; ask root for it");
}

#[test]
fn a_robot_is_rotated_with_overlap() {
    let mut bed = Bed::new();
    let (old, new) = (basic("ci", bed.secret.as_str()), Secret::generate());
    let old_token = bed.issue(Proof::Header(&old), "repository:team/api:push", true, NOW).unwrap();
    bed.edit(&[Edit::EndSecrets(Kind::Robot, principal("ci"), NOW + 100), secret("ci", &new, None)]);
    let new = basic("ci", new.as_str());
    for (now, good) in [(NOW, true), (NOW + 99, true), (NOW + 100, false)] {
        let expected = |error| if good { "ci".to_owned() } else { format!("401{error}") };
        bed.check_at(now, Some(&old), "repository:team/api:push", &expected(""));
        let token = format!("Bearer {}", old_token.token);
        bed.check_at(now, Some(&token), "repository:team/api:push", &expected(" invalid_token"));
        let refreshed = bed.issue(Proof::Refresh(old_token.refresh_token.as_ref().unwrap()), "", false, now);
        assert_eq!(refreshed.is_ok(), good);
        bed.check_at(now, Some(&new), "repository:team/api:push", "ci");
    }
    // What is issued for a proof that ends does not outlive it.
    assert_eq!(bed.issue(Proof::Header(&old), "", false, NOW + 40).unwrap().expires_in, 60);
}

#[test]
fn keys_rotate_in_the_middle_of_a_pull() {
    let mut bed = Bed::new();
    let token = bed.token(BOB, "repository:team/api:pull");
    bed.edit(&[key(NOW)]);
    bed.check(Some(&token), "repository:team/api:pull", "bob");
    bed.check(Some(&bed.token(BOB, "repository:team/api:pull")), "repository:team/api:pull", "bob");
    assert_eq!(bed.scheme.jwks()["keys"].as_array().unwrap().len(), 2);
    let first = bed.directory.keys()[0].id.clone();
    bed.edit(&[Edit::RemoveKey(first)]);
    bed.check(Some(&token), "repository:team/api:pull", "401 invalid_token");
}

#[test]
fn wrong_passwords_are_delayed_and_cost_little() {
    let bed = Bed::new();
    let address: Option<IpAddr> = Some("192.0.2.7".parse().unwrap());
    let ask = |user: &str, password: &str, address, now| {
        let authorization = basic(user, password);
        let authorization = Some(authorization.as_str());
        bed.scheme.verify(&Ask { authorization, address, now, ..Ask::default() })
    };
    let locked = |answer: Result<Verdict, AuthError>| matches!(answer, Err(AuthError::Locked { .. }));
    let mut delayed = 0;
    for number in 0..10_000 {
        delayed += usize::from(locked(ask("bob", &format!("guess {number}"), address, NOW)));
    }
    assert!(delayed > 9_900, "only {delayed} of 10,000 guesses were delayed");
    assert!(bed.scheme.hash_runs() < 100, "{} slow hashes ran", bed.scheme.hash_runs());
    // From there not even the right one is looked at now; from elsewhere it is.
    assert!(locked(ask("bob", "battery staple", address, NOW)));
    assert!(matches!(
        ask("bob", "battery staple", Some("192.0.2.8".parse().unwrap()), NOW),
        Ok(Verdict::Granted { .. })
    ));
    assert!(matches!(ask("bob", "battery staple", address, NOW + 3600), Ok(Verdict::Granted { .. })));
}

#[test]
fn what_cannot_be_guessed_is_not_delayed() {
    let bed = Bed::new();
    let ci = |password: &str| bed.verify(Some(&basic("ci", password)), "", NOW);
    let older = format!("rsk_{}", "A".repeat(43));
    while !matches!(ci(&older), Err(AuthError::Locked { .. })) {}
    assert!(matches!(ci(bed.secret.as_str()), Ok(Verdict::Granted { .. })));
    let refresh = bed.issue(Proof::Password("ci", bed.secret.as_str()), "", true, NOW).unwrap().refresh_token.unwrap();
    assert!(matches!(ci(&refresh), Ok(Verdict::Granted { .. })));
    assert!(matches!(ci(&older), Err(AuthError::Locked { .. })));
    assert!(matches!(ci("a password"), Err(AuthError::Locked { .. })));
}

#[test]
fn what_was_proved_is_quick_and_what_was_not_is_left() {
    let bed = Bed::new();
    let quick = |authorization: &str| {
        bed.scheme.verify_quick(&Ask { authorization: Some(authorization), now: NOW, ..Ask::default() })
    };
    let bob = basic("bob", "battery staple");
    assert!(quick(&bob).is_none());
    bed.check(Some(&bob), "", "bob");
    assert!(matches!(quick(&bob), Some(Ok(Verdict::Granted { .. }))));
    assert!(quick(&basic("bob", "wrong password")).is_none());
    assert!(quick(&basic("nobody", "wrong password")).is_none());
    assert!(matches!(quick(&basic("ci", bed.secret.as_str())), Some(Ok(Verdict::Granted { .. }))));
}
