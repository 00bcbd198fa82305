//! What holds for orders to access control: the body of a request to the admin API.

use std::sync::LazyLock;

use registry::fuzzing::Order;
use registry_core::{
    account::{Account, AccountId, Kind},
    directory::{Directory, Edit},
    policy::{Policy, Right},
};
use registry_store::fuzzing::encode;
use serde_json::Value;

use super::bed::{NOW, add, rule, secret};

/// `root` may do everything, `lead` gives rights on `team/**`, `dev` has none to give, nor has the
/// robot `ci`; `dev` is in the group `staff`.
static HOUSE: LazyLock<Directory> = LazyLock::new(|| {
    let name = |text: &str| text.parse().expect("a name");
    let password = |text: &str| Edit::SetPassword(name(text), "hash".to_owned());
    let edits = [
        add("root", Kind::User),
        password("root"),
        rule("user:root", "**", "admin"),
        add("dev", Kind::User),
        password("dev"),
        secret(Kind::User, "dev", &format!("rsk_{}", "B".repeat(42) + "A")),
        add("lead", Kind::User),
        password("lead"),
        secret(Kind::User, "lead", &format!("rsk_{}", "C".repeat(42) + "A")),
        rule("user:lead", "team/**", "admin"),
        add("ci", Kind::Robot),
        secret(Kind::Robot, "ci", &format!("rsk_{}", "D".repeat(42) + "A")),
        rule("robot:ci", "team/api", "push"),
        Edit::AddGroup(name("staff")),
        Edit::AddMember(name("staff"), Kind::User, name("dev")),
        rule("group:staff", "private/*", "pull"),
        rule("anonymous", "public/**", "pull"),
    ];
    Directory::new("house".to_owned()).edited(&edits, NOW - 100).expect("good edits")
});

/// The house as it looks to `dev`, who shall not see a difference.
static EMPTY: LazyLock<Directory> = LazyLock::new(|| {
    let name = |text: &str| text.parse().expect("a name");
    let gone = [
        Edit::RemoveAccount(Kind::User, name("lead")),
        Edit::RemoveAccount(Kind::Robot, name("ci")),
        Edit::RemoveGroup(name("staff")),
    ];
    HOUSE.edited(&gone, NOW).expect("good edits")
});

/// Where rights are compared: within and beyond what `lead` administers.
const WITHIN: [&str; 3] = ["team/api", "team/a/b", "team/x"];
const BEYOND: [&str; 6] = ["team", "team-x/api", "private", "private/x", "public/x", "a/team/api"];

/// An order travels unchanged, shows no password, and gives nobody more than its giver can give.
pub fn check(data: &[u8]) {
    let Ok(order) = Order::read(data) else { return };
    let json = order.to_json();
    let again = Order::read(json.to_string().as_bytes()).expect("an order that is sent can be read");
    assert_eq!(again.to_json(), json);
    shows_no_password(&order, &json);

    let root = account(&HOUSE, Kind::User, "root").id;
    for giver in [None, Some((root, true)), Some((root, false))] {
        if let Ok((after, _)) = carry_out(&order, &HOUSE, giver) {
            assert!(after.has_admin(), "nobody is left who could change anything");
        }
    }
    for (kind, name, by_password) in [
        (Kind::User, "lead", true),
        (Kind::User, "lead", false),
        (Kind::User, "dev", true),
        (Kind::User, "dev", false),
        (Kind::Robot, "ci", false),
    ] {
        let giver = account(&HOUSE, kind, name);
        let outcome = carry_out(&order, &HOUSE, Some((giver.id, by_password)));
        if let Ok((after, _)) = &outcome {
            stays_within(after, giver, by_password);
        }
        if name == "dev" {
            let elsewhere = carry_out(&order, &EMPTY, Some((giver.id, by_password)));
            assert_eq!(outcome.err(), elsewhere.err(), "a refusal tells what exists");
        }
    }
}

fn account<'a>(directory: &'a Directory, kind: Kind, name: &str) -> &'a Account {
    directory.account_named(kind, &name.parse().expect("a name")).expect("it was added")
}

fn carry_out(order: &Order, on: &Directory, giver: Option<(AccountId, bool)>) -> Result<(Directory, Value), String> {
    let outcome = order.carry_out(on, giver, NOW);
    match &outcome {
        Ok((after, answer)) => {
            assert!(answer.is_object());
            encode(after.clone()).expect("what was edited can be stored");
        }
        Err(what) => assert!(!what.is_empty() && what.len() < 2048 && !what.contains(char::is_control), "{what:?}"),
    }
    outcome
}

fn shows_no_password(order: &Order, json: &Value) {
    assert!(!order.audited().contains_key("password"));
    if json["password"].is_string() {
        let mut other = json.clone();
        other["password"] = "another".into();
        let other = Order::read(other.to_string().as_bytes()).expect("an order with another password");
        assert_eq!(format!("{order:?}"), format!("{other:?}"));
        assert_eq!(order.audited(), other.audited());
    }
}

/// What somebody who is no administrator of everything may have changed.
fn stays_within(after: &Directory, giver: &Account, by_password: bool) {
    // Others are as they were.
    let others = |directory: &Directory| -> Vec<Account> {
        directory.accounts().filter(|account| account.id != giver.id).cloned().collect()
    };
    assert_eq!(others(after), others(&HOUSE));
    assert!(after.groups().eq(HOUSE.groups()));
    assert_eq!(after.keys(), HOUSE.keys());
    let own = after.account(giver.id).expect("nobody removes themselves");
    let is_leader = giver.name.as_str() == "lead";
    if !by_password {
        assert!(own.credentials.iter().all(|credential| giver.credentials.contains(credential)));
    }
    let (before, after) = (Policy::new(&HOUSE), Policy::new(after));
    let everywhere = if is_leader { &BEYOND[..] } else { &[BEYOND.as_slice(), WITHIN.as_slice()].concat() };
    for name in everywhere {
        let name = name.parse().expect("a name");
        let callers = HOUSE.accounts().map(|account| Some(account.id)).chain([None]);
        for (who, right) in callers.flat_map(|who| Right::ALL.map(|right| (who, right))) {
            assert_eq!(after.allows(who, &name, right), before.allows(who, &name, right), "{right} on {name}");
        }
    }
}
