//! Who may give which order, what it does and what it answers.

use proptest::prelude::*;
use registry_core::{
    account::Kind,
    directory::{Directory, Edit, SigningKey},
    policy::{Policy, Right},
};
use serde_json::{Value, json};

use super::{DAY, Fresh, plan};
use crate::admin::{
    authority::{Actor, Proof, authorize},
    error::OrderError,
    order::Order,
};

const NOW: i64 = 1_800_000_000;

fn order(text: Value) -> Order {
    serde_json::from_value(text.clone()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What an order needs, the same each time.
fn fresh(order: &Order) -> Fresh {
    match order {
        Order::UserAdd { password, .. } | Order::UserPasswd { password, .. } => {
            Fresh::Password { hash: "the hash".into(), made: password.is_none().then(|| "the password".into()) }
        }
        Order::UserToken { .. } | Order::RobotCreate { .. } | Order::RobotRotate { .. } => {
            Fresh::Secret { text: "the secret".into(), hash: [7; 32] }
        }
        Order::KeyRotate {} => Fresh::Key(SigningKey { id: "k2".into(), pkcs8: vec![1], created_at: NOW }),
        _ => Fresh::Nothing,
    }
}

/// What an order of `actor` does: the directory afterwards, and the answer.
fn give(directory: &Directory, actor: Actor, order: &Order) -> Result<(Directory, Value), OrderError> {
    let authority = authorize(order, actor, directory)?;
    let (edits, answer) = plan(order, directory, &authority, &fresh(order), NOW)?;
    assert_eq!(edits.is_empty(), !order.changes(), "{order:?}");
    Ok((directory.edited(&edits, NOW).unwrap(), answer))
}

/// root administers everything, lead administers team/**, bob and the robot ci pull and push there,
/// boss administers everything by his group.
fn house() -> Directory {
    let mut house = Directory::new("test".into());
    for text in [
        json!({"order": "user-add", "name": "root"}),
        json!({"order": "grant-add", "subject": "user:root", "repositories": "**", "rights": "admin"}),
        json!({"order": "user-add", "name": "lead", "description": "leads", "password": "chosen by lead"}),
        json!({"order": "grant-add", "subject": "user:lead", "repositories": "team/**", "rights": "admin"}),
        json!({"order": "user-add", "name": "bob"}),
        json!({"order": "group-add", "name": "dev"}),
        json!({"order": "group-join", "name": "dev", "member": "user:bob"}),
        json!({"order": "grant-add", "subject": "group:dev", "repositories": "team/*", "rights": "push"}),
        json!({"order": "robot-create", "name": "ci", "allow": [{"repositories": "team/api", "rights": "pull"}]}),
        json!({"order": "user-add", "name": "boss"}),
        json!({"order": "group-add", "name": "ops"}),
        json!({"order": "group-join", "name": "ops", "member": "user:boss"}),
        json!({"order": "grant-add", "subject": "group:ops", "repositories": "**", "rights": "admin"}),
        json!({"order": "grant-add", "subject": "anonymous", "repositories": "public/**", "rights": "pull"}),
        json!({"order": "user-add", "name": "gone"}),
        json!({"order": "grant-add", "subject": "user:gone", "repositories": "**", "rights": "admin"}),
        json!({"order": "user-disable", "name": "gone"}),
        json!({"order": "key-rotate"}),
    ] {
        house = give(&house, Actor::Local, &order(text)).unwrap().0;
    }
    house
}

fn actor(house: &Directory, name: &str) -> Actor {
    let kind = |kind| house.account_named(kind, &name.parse().unwrap());
    match name {
        "local" => Actor::Local,
        "nobody" => Actor::Account(registry_core::account::AccountId(999), Proof::Password),
        _ => match kind(Kind::User) {
            Ok(user) => Actor::Account(user.id, Proof::Password),
            Err(_) => Actor::Account(kind(Kind::Robot).unwrap().id, Proof::Secret),
        },
    }
}

fn rule(house: &Directory, subject: &str, glob: &str) -> u64 {
    let subject = house.subject(&subject.parse().unwrap()).unwrap();
    let found = house.rules().find(|rule| rule.subject == subject && rule.repositories.as_str() == glob);
    found.unwrap().id.0
}

#[test]
fn who_may_give_which_order() {
    let house = house();
    let check = |text: Value, allowed: &[&str]| {
        let order = order(text);
        let all = ["local", "root", "boss", "lead", "bob", "ci", "gone", "nobody"];
        let may = all.into_iter().filter(|name| match authorize(&order, actor(&house, name), &house) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!((error.kind, error.hint), (crate::admin::error::Kind::Denied, "ask an administrator"));
                false
            }
        });
        assert_eq!(may.collect::<Vec<_>>(), allowed, "{order:?}");
    };
    let full = ["local", "root", "boss"];
    let with = |name| [&full[..], &[name]].concat();
    for text in [
        json!({"order": "user-add", "name": "eve"}),
        json!({"order": "user-list"}),
        json!({"order": "user-disable", "name": "bob"}),
        json!({"order": "user-enable", "name": "bob"}),
        json!({"order": "user-remove", "name": "bob"}),
        json!({"order": "user-passwd", "name": "root"}),
        json!({"order": "user-passwd", "name": "ci"}),
        json!({"order": "user-token", "name": "boss"}),
        json!({"order": "user-revoke-tokens", "name": "no-one"}),
        json!({"order": "robot-create", "name": "cd", "allow": [{"repositories": "team/api", "rights": "pull"}]}),
        json!({"order": "robot-list"}),
        json!({"order": "robot-rotate", "name": "ci", "overlap": 0}),
        json!({"order": "robot-revoke", "name": "ci"}),
        json!({"order": "group-add", "name": "qa"}),
        json!({"order": "group-list"}),
        json!({"order": "group-remove", "name": "dev"}),
        json!({"order": "group-join", "name": "dev", "member": "user:lead"}),
        json!({"order": "group-leave", "name": "dev", "member": "user:bob"}),
        json!({"order": "key-list"}),
        json!({"order": "key-rotate"}),
        json!({"order": "grant-add", "subject": "user:bob", "repositories": "**", "rights": "pull"}),
        json!({"order": "grant-add", "subject": "user:lead", "repositories": "other/**", "rights": "pull"}),
        json!({"order": "grant-add", "subject": "user:lead", "repositories": "team", "rights": "pull"}),
        json!({"order": "grant-add", "subject": "user:lead", "repositories": "*/api", "rights": "pull"}),
        json!({"order": "grant-remove", "rule": rule(&house, "user:root", "**")}),
        json!({"order": "grant-remove", "rule": 4_000_000}),
        json!({"order": "grant-explain", "subject": "user:bob", "repository": "other/api", "right": "pull"}),
    ] {
        // Removing what is not there is refused later, and only to those who may know.
        check(text, &full);
    }
    for name in ["bob", "lead"] {
        check(json!({"order": "user-passwd", "name": name}), &with(name));
        check(json!({"order": "user-token", "name": name}), &with(name));
        check(json!({"order": "user-revoke-tokens", "name": name}), &with(name));
    }
    for text in [
        json!({"order": "grant-add", "subject": "user:bob", "repositories": "team/api", "rights": "admin"}),
        json!({"order": "grant-add", "subject": "anonymous", "repositories": "team/**", "rights": "pull"}),
        json!({"order": "grant-remove", "rule": rule(&house, "group:dev", "team/*")}),
        json!({"order": "grant-list"}),
        json!({"order": "grant-explain", "subject": "user:bob", "repository": "team/api", "right": "pull"}),
    ] {
        check(text, &with("lead"));
    }
}

#[test]
fn refusals_do_not_tell_what_is_there() {
    let house = house();
    let refusal = |name: &str, text: Value| {
        let rule = text["rule"].to_string();
        let error = give(&house, actor(&house, name), &order(text)).unwrap_err();
        error.what.replace(&rule, "N")
    };
    let removed = |rule: u64| refusal("lead", json!({"order": "grant-remove", "rule": rule}));
    assert_eq!(removed(rule(&house, "user:root", "**")), removed(4_000_000));
    let remove = |name: &str| refusal("lead", json!({"order": "user-remove", "name": name}));
    assert_eq!(remove("bob"), remove("no-one"));
    let explain = |repository: &str| {
        refusal(
            "bob",
            json!({"order": "grant-explain", "subject": "user:x", "repository": repository, "right": "pull"}),
        )
    };
    assert_eq!(explain("team/api").replace("team/api", "X"), explain("no/thing").replace("no/thing", "X"));
}

#[test]
fn a_token_makes_nothing_that_outlives_it() {
    let house = house();
    let check = |who: &str, name: &str, whom: &str, allowed: bool| {
        let id = house.account_named(Kind::User, &who.parse().unwrap()).unwrap().id;
        let fields = if name.ends_with("list") { json!({"order": name}) } else { json!({"order": name, "name": whom}) };
        let seen = authorize(&order(fields), Actor::Account(id, Proof::Secret), &house);
        assert_eq!(seen.is_ok(), allowed, "{who}: {name} {whom}: {seen:?}");
    };
    check("bob", "user-passwd", "bob", false);
    check("bob", "user-token", "bob", false);
    check("bob", "user-revoke-tokens", "bob", true);
    // Not even those of an administrator, who may do all of it with the password.
    for name in ["user-passwd", "user-token", "user-add", "user-remove", "robot-create", "group-add"] {
        check("root", name, "bob", false);
    }
    check("root", "user-revoke-tokens", "bob", false);
    check("root", "user-revoke-tokens", "root", true);
    check("root", "user-list", "", true);
}

fn same(have: &Value, wanted: &Value, path: &str) {
    match (have, wanted) {
        (_, Value::String(any)) if any == "*" => {}
        (Value::Object(have), Value::Object(wanted)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(have), names(wanted), "at {path}");
            have.iter().for_each(|(name, value)| same(value, &wanted[name], &format!("{path}.{name}")));
        }
        (Value::Array(have), Value::Array(wanted)) => {
            assert_eq!(have.len(), wanted.len(), "at {path}: {have:?}");
            have.iter().zip(wanted).for_each(|(have, wanted)| same(have, wanted, path));
        }
        _ => assert_eq!(have, wanted, "at {path}"),
    }
}

#[test]
fn answers() {
    let house = house();
    // `*` stands for anything.
    let check = |name: &str, text: Value, wanted: Value| {
        let (_, answer) = give(&house, actor(&house, name), &order(text.clone())).unwrap();
        same(&answer, &wanted, &text.to_string());
    };
    let at = |seconds: i64| super::timestamp(NOW + seconds);
    let now = at(0);
    assert_eq!(now, "2027-01-15T08:00:00Z");
    let password = json!({"id": "*", "type": "password", "label": "", "created": now, "expires": null});
    let secret = |label: &str, expires: Value| json!({"id": "*", "type": "secret", "label": label, "created": now, "expires": expires});
    let account = |name: &str, kind: &str, groups: Value, credentials: Value| {
        json!({
            "name": name, "kind": kind, "state": "enabled", "description": "*", "created": now, "groups": groups,
            "credentials": credentials,
        })
    };
    let grant = |subject: &str, repositories: &str, rights: &str| json!({"rule": "*", "subject": subject, "repositories": repositories, "rights": rights, "created": now});
    let eve = account("eve", "user", json!([]), json!([password]));
    let bob = |credentials| account("bob", "user", json!(["dev"]), credentials);
    check("root", json!({"order": "user-add", "name": "eve"}), json!({"user": eve, "password": "the password"}));
    check("root", json!({"order": "user-add", "name": "eve", "password": "her own choice"}), json!({"user": eve}));
    check(
        "bob",
        json!({"order": "user-passwd", "name": "bob"}),
        json!({"user": bob(json!([password])), "password": "the password"}),
    );
    let mut disabled = bob(json!([password]));
    disabled["state"] = json!("disabled");
    check("root", json!({"order": "user-disable", "name": "bob"}), json!({ "user": disabled }));
    check("root", json!({"order": "user-enable", "name": "bob"}), json!({ "user": bob(json!([password])) }));
    check(
        "root",
        json!({"order": "user-remove", "name": "lead"}),
        json!({"removed": "user:lead", "rules": [rule(&house, "user:lead", "team/**")]}),
    );
    check(
        "bob",
        json!({"order": "user-token", "name": "bob", "label": "laptop"}),
        json!({
            "user": bob(json!([password, secret("laptop", json!(at(90 * DAY)))])),
            "token": "the secret",
            "expires": at(90 * DAY),
        }),
    );
    check(
        "bob",
        json!({"order": "user-revoke-tokens", "name": "bob"}),
        json!({"user": bob(json!([password])), "revoked": 0}),
    );
    let ci = account("ci", "robot", json!([]), json!([secret("", Value::Null)]));
    check("root", json!({"order": "robot-list"}), json!({ "robots": [ci] }));
    check(
        "root",
        json!({"order": "robot-create", "name": "cd", "expires_in": 60, "allow": [
            {"repositories": "team/*", "rights": "delete, pull"}, {"repositories": "x", "rights": "push"},
        ]}),
        json!({
            "robot": account("cd", "robot", json!([]), json!([secret("", json!(at(60)))])),
            "secret": "the secret",
            "expires": at(60),
            "grants": [grant("robot:cd", "team/*", "pull,delete"), grant("robot:cd", "x", "push")],
        }),
    );
    check(
        "root",
        json!({"order": "robot-rotate", "name": "ci", "overlap": 3600}),
        json!({
            "robot": account("ci", "robot", json!([]), json!([secret("", json!(at(3600))), secret("", Value::Null)])),
            "secret": "the secret",
            "expires": null,
            "old_until": at(3600),
        }),
    );
    check(
        "root",
        json!({"order": "robot-rotate", "name": "ci", "overlap": 0, "expires_in": 5}),
        json!({
            "robot": account("ci", "robot", json!([]), json!([secret("", json!(at(5)))])),
            "secret": "the secret",
            "expires": at(5),
            "old_until": now,
        }),
    );
    check("root", json!({"order": "robot-revoke", "name": "ci"}), json!({"removed": "robot:ci", "rules": ["*"]}));
    check("root", json!({"order": "group-add", "name": "qa"}), json!({"group": {"name": "qa", "members": []}}));
    let groups = json!([{"name": "dev", "members": ["user:bob"]}, {"name": "ops", "members": ["user:boss"]}]);
    check("root", json!({"order": "group-list"}), json!({ "groups": groups }));
    check(
        "root",
        json!({"order": "group-join", "name": "dev", "member": "robot:ci"}),
        json!({"group": {"name": "dev", "members": ["user:bob", "robot:ci"]}}),
    );
    check(
        "root",
        json!({"order": "group-leave", "name": "dev", "member": "user:bob"}),
        json!({"group": {"name": "dev", "members": []}}),
    );
    check("root", json!({"order": "group-remove", "name": "dev"}), json!({"removed": "group:dev", "rules": ["*"]}));
    check(
        "lead",
        json!({"order": "grant-add", "subject": "users", "repositories": "team/x", "rights": "push"}),
        json!({ "grant": grant("users", "team/x", "push") }),
    );
    check(
        "lead",
        json!({"order": "grant-remove", "rule": rule(&house, "group:dev", "team/*")}),
        json!({ "removed": grant("group:dev", "team/*", "push") }),
    );
    let team = [
        grant("user:lead", "team/**", "admin"),
        grant("group:dev", "team/*", "push"),
        grant("robot:ci", "team/api", "pull"),
    ];
    check("lead", json!({"order": "grant-list"}), json!({ "grants": team }));
    check("lead", json!({"order": "grant-list", "repository": "team/x"}), json!({ "grants": team[..2] }));
    check("lead", json!({"order": "grant-list", "subject": "robot:ci"}), json!({ "grants": team[2..] }));
    check("lead", json!({"order": "grant-list", "subject": "user:root"}), json!({ "grants": [] }));
    check(
        "root",
        json!({"order": "grant-list", "repository": "public/x"}),
        json!({"grants": [
            grant("user:root", "**", "admin"), grant("group:ops", "**", "admin"),
            grant("anonymous", "public/**", "pull"), grant("user:gone", "**", "admin"),
        ]}),
    );
    check("root", json!({"order": "key-list"}), json!({"keys": [{"id": "k2", "created": now, "signs": true}]}));
    let said = |mut grant: Value, says: &str| {
        grant["says"] = json!(says);
        grant
    };
    let dev = grant("group:dev", "team/*", "push");
    let anonymous = grant("anonymous", "public/**", "pull");
    check(
        "root",
        json!({"order": "grant-explain", "subject": "user:bob", "repository": "team/api", "right": "delete"}),
        json!({
            "subject": "user:bob", "repository": "team/api", "right": "delete", "allowed": false, "rule": null,
            "disabled": false,
            "considered": [said(dev.clone(), "other rights"), said(anonymous.clone(), "other repositories")],
            "administrators": ["root", "lead", "boss"],
        }),
    );
    // Who may only ask about the team's repositories does not see what holds elsewhere.
    check(
        "lead",
        json!({"order": "grant-explain", "subject": "user:bob", "repository": "team/api", "right": "pull"}),
        json!({
            "subject": "user:bob", "repository": "team/api", "right": "pull", "allowed": true,
            "rule": rule(&house, "group:dev", "team/*"), "disabled": false, "considered": [said(dev, "allows")],
            "administrators": ["root", "lead", "boss"],
        }),
    );
    check(
        "root",
        json!({"order": "grant-explain", "subject": "user:gone", "repository": "public/x", "right": "pull"}),
        json!({
            "subject": "user:gone", "repository": "public/x", "right": "pull", "allowed": false, "rule": null,
            "disabled": true, "considered": [], "administrators": ["root", "boss"],
        }),
    );
    check(
        "root",
        json!({"order": "grant-explain", "subject": "anonymous", "repository": "public/x", "right": "pull"}),
        json!({
            "subject": "anonymous", "repository": "public/x", "right": "pull", "allowed": true, "rule": "*",
            "disabled": false, "considered": [said(anonymous, "allows")], "administrators": ["root", "boss"],
        }),
    );
}

#[test]
fn orders_that_make_no_sense() {
    let house = house();
    let check = |text: Value, wanted: &str| {
        let error = give(&house, Actor::Local, &order(text.clone())).unwrap_err();
        let seen = format!("{}: {} ({})", error.kind.as_str(), error.what, error.hint);
        assert!(seen.contains(wanted), "{text}: {seen}");
        assert!(seen.len() < 500 && !seen.contains('\n'), "{seen}");
    };
    check(json!({"order": "user-add", "name": "Bob"}), "invalid: a name is");
    check(json!({"order": "user-add", "name": "bob"}), "conflict: there is a user `bob` already (users and robots");
    check(json!({"order": "user-add", "name": "x", "description": "a\nb"}), "invalid: a label or description");
    check(json!({"order": "user-remove", "name": "x"}), "not found: there is no user `x` (`user list`");
    check(json!({"order": "user-remove", "name": "ci"}), "not found: there is no user `ci`");
    check(json!({"order": "user-token", "name": "bob", "expires_in": 401 * DAY}), "invalid: expires_in is 1 to");
    check(json!({"order": "user-token", "name": "bob", "expires_in": 0}), "invalid: expires_in is 1 to");
    check(json!({"order": "user-token", "name": "bob", "label": "x".repeat(257)}), "invalid: a label");
    check(json!({"order": "robot-create", "name": "cd", "expires_in": u64::MAX}), "invalid: expires_in is 1 to");
    check(json!({"order": "robot-rotate", "name": "ci", "overlap": u64::MAX}), "invalid: older secrets work for 0 to");
    let allow = |number: usize, glob: &str| {
        let allow: Vec<Value> =
            (0..number).map(|n| json!({"repositories": format!("{glob}{n}"), "rights": "pull"})).collect();
        json!({"order": "robot-create", "name": "cd", "allow": allow})
    };
    check(allow(101, "team/"), "invalid: a robot is made with up to 100 rules");
    check(allow(1, "Team/"), "invalid: `Team/0` has a character");
    check(json!({"order": "group-add", "name": "dev"}), "conflict: there is a group");
    check(json!({"order": "group-join", "name": "dev", "member": "group:ops"}), "invalid: `group:ops` cannot be");
    check(json!({"order": "group-join", "name": "dev", "member": "users"}), "members are users and robots");
    check(json!({"order": "group-join", "name": "qa", "member": "user:bob"}), "not found: there is no group `qa`");
    check(json!({"order": "group-leave", "name": "dev", "member": "user:lead"}), "not found: `lead` is not in");
    let add = |subject: &str, glob: &str, rights: &str| json!({"order": "grant-add", "subject": subject, "repositories": glob, "rights": rights});
    check(add("bob", "x", "pull"), "invalid: `bob` names nobody");
    check(add("user:B", "x", "pull"), "invalid: `user:B`: a name is");
    check(add(&"é\n".repeat(9000), "x", "pull"), "names nobody");
    check(add("user:bob", "x/", "pull"), "empty component");
    check(add("user:bob", &"x".repeat(60_000), "pull"), "invalid: a glob must not");
    check(add("user:bob", "x", "write"), "`write` is no right");
    check(add("user:bob", "x", &"w".repeat(60_000)), "is no right");
    check(add("users", "x", "admin"), "invalid: the right `admin` is for");
    check(add("group:dev", "team/*", "push"), "conflict: rule");
    check(json!({"order": "grant-remove", "rule": 4_000_000}), "not found: there is no rule 4000000");
    let explain = |subject: &str, repository: &str, right: &str| json!({"order": "grant-explain", "subject": subject, "repository": repository, "right": right});
    check(explain("group:dev", "x", "pull"), "invalid: `group:dev` pulls and pushes nothing");
    check(explain("user:bob", "../x", "pull"), "invalid");
    check(explain("user:bob", "x", "pull,push"), "is no right");
    check(explain("user:eve", "x", "pull"), "not found: there is no user `eve`");
}

#[test]
fn the_last_administrator_stays() {
    let house = house();
    let (house, _) = give(&house, Actor::Local, &order(json!({"order": "user-remove", "name": "boss"}))).unwrap();
    let last = rule(&house, "user:root", "**");
    for text in [
        json!({"order": "user-disable", "name": "root"}),
        json!({"order": "user-remove", "name": "root"}),
        json!({"order": "grant-remove", "rule": last}),
    ] {
        let error = give(&house, actor(&house, "root"), &order(text)).unwrap_err();
        assert_eq!(error.kind.as_str(), "conflict", "{error}");
    }
}

#[test]
fn unknown_orders_and_fields_are_refused() {
    for text in [
        r#"{"order":"user-ad","name":"x"}"#,
        r#"{"order":"user-list","name":"x"}"#,
        r#"{"order":"user-add","name":"x","admin":true}"#,
        r#"{"order":"robot-create","name":"x","allow":[{"repositories":"a","rights":"pull","x":1}]}"#,
        r#"{"order":"grant-remove","rule":-1}"#,
        r#"{"name":"x"}"#,
        "[]",
    ] {
        assert!(serde_json::from_str::<Order>(text).is_err(), "{text}");
    }
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(words)
}

fn names() -> impl Strategy<Value = &'static str> {
    one_of(&["root", "lead", "bob", "boss", "ci", "gone", "eve", "dev", "ops"])
}

fn subjects() -> impl Strategy<Value = &'static str> {
    one_of(&["user:lead", "user:bob", "user:eve", "robot:ci", "group:dev", "group:ops", "users", "anonymous"])
}

fn globs() -> impl Strategy<Value = &'static str> {
    one_of(&["**", "*", "team", "team/**", "team/*", "team/api", "*/api", "*/*", "team*/**", "other/**", "t*/api", "x"])
}

fn rights() -> impl Strategy<Value = &'static str> {
    one_of(&["pull", "push", "delete", "admin", "pull,delete", "push,admin"])
}

/// Any order that a stranger could think of.
fn orders() -> impl Strategy<Value = Value> {
    let named = one_of(&[
        "user-add",
        "user-passwd",
        "user-disable",
        "user-enable",
        "user-remove",
        "user-token",
        "user-revoke-tokens",
        "robot-revoke",
        "group-add",
        "group-remove",
    ]);
    prop_oneof![
        3 => (named, names()).prop_map(|(order, name)| json!({"order": order, "name": name})),
        8 => (subjects(), globs(), rights()).prop_map(|(subject, glob, rights)| {
            json!({"order": "grant-add", "subject": subject, "repositories": glob, "rights": rights})
        }),
        4 => (1_u64..60).prop_map(|rule| json!({"order": "grant-remove", "rule": rule})),
        1 => (names(), globs(), rights()).prop_map(|(name, glob, rights)| {
            let allow = json!([{"repositories": glob, "rights": rights}]);
            json!({"order": "robot-create", "name": name, "allow": allow})
        }),
        1 => names().prop_map(|name| json!({"order": "robot-rotate", "name": name, "overlap": 5})),
        1 => (one_of(&["group-join", "group-leave"]), names(), subjects())
            .prop_map(|(order, name, member)| json!({"order": order, "name": name, "member": member})),
        1 => one_of(&["user-list", "robot-list", "group-list", "grant-list", "key-list", "key-rotate"])
            .prop_map(|order| json!({ "order": order })),
        1 => (subjects(), one_of(&["team/api", "other/api"]), one_of(&["pull", "admin"])).prop_map(
            |(subject, repository, right)| {
                json!({"order": "grant-explain", "subject": subject, "repository": repository, "right": right})
            }
        ),
    ]
}

/// Everything that does not belong to the team: who may do what elsewhere, the rules about other
/// repositories, who there is, and the keys.
fn outside(house: &Directory) -> impl PartialEq + std::fmt::Debug + use<> {
    let policy = Policy::new(house);
    let everybody: Vec<_> = house.accounts().map(|account| Some(account.id)).chain([None]).collect();
    let mut decisions = Vec::new();
    for repository in ["team", "teams/api", "other/api", "public/x", "x", "a/b/c"] {
        for right in Right::ALL {
            decisions.extend(everybody.iter().map(|who| policy.allows(*who, &repository.parse().unwrap(), right)));
        }
    }
    let team = "team/**".parse::<registry_core::policy::RepoGlob>().unwrap();
    let rules: Vec<_> = house.rules().filter(|rule| !team.covers(&rule.repositories)).cloned().collect();
    // The leader's own credentials are theirs.
    let mut accounts: Vec<_> = house.accounts().cloned().collect();
    accounts.iter_mut().filter(|own| own.name.as_str() == "lead").for_each(|own| own.credentials.clear());
    (decisions, rules, accounts, house.groups().cloned().collect::<Vec<_>>(), house.keys().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_administers_a_part_never_reaches_beyond_it(texts in proptest::collection::vec(orders(), 1..25)) {
        let mut house = house();
        let before = outside(&house);
        for text in texts {
            let Ok((after, answer)) = give(&house, actor(&house, "lead"), &order(text.clone())) else { continue };
            let shown = answer["grants"].as_array().into_iter().flatten();
            for grant in shown {
                prop_assert!(grant["repositories"].as_str().unwrap().starts_with("team/"), "{text}: {answer}");
            }
            house = after;
            prop_assert_eq!(&outside(&house), &before, "{}", text);
        }
    }

    #[test]
    fn who_administers_nothing_changes_nothing_but_their_own(texts in proptest::collection::vec(orders(), 1..25)) {
        let mut house = house();
        let other = |house: &Directory| {
            let mut parts = house.clone().into_parts();
            parts.next = 0;
            parts.accounts.iter_mut().filter(|own| own.name.as_str() == "bob").for_each(|own| own.credentials.clear());
            parts
        };
        let before = other(&house);
        for name in ["bob", "ci", "gone"] {
            for text in &texts {
                if let Ok((after, _)) = give(&house, actor(&house, name), &order(text.clone())) {
                    house = after;
                }
                prop_assert_eq!(&other(&house), &before, "{} {}", name, text);
            }
        }
    }

    #[test]
    fn no_order_panics_and_no_answer_holds_a_hash(texts in proptest::collection::vec(orders(), 1..25)) {
        let mut house = house();
        for text in texts {
            if let Ok((after, answer)) = give(&house, Actor::Local, &order(text)) {
                prop_assert!(!answer.to_string().contains("the hash"));
                prop_assert!(after.has_admin());
                house = after;
            }
        }
    }
}

#[test]
fn edits_are_those_of_the_newest_directory() {
    // A plan on another directory would name another rule.
    let house = house();
    let remove = order(json!({"order": "user-remove", "name": "lead"}));
    let authority = authorize(&remove, Actor::Local, &house).unwrap();
    let (edits, _) = plan(&remove, &house, &authority, &Fresh::Nothing, NOW).unwrap();
    assert_eq!(edits, [Edit::RemoveAccount(Kind::User, "lead".parse().unwrap())]);
}
