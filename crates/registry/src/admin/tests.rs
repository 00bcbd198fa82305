//! Orders from end to end: what they change, what is told, what is written down.

use std::{path::Path, sync::Arc};

use registry_auth::password::PasswordHash;
use registry_core::{
    account::Kind,
    directory::{Directory, Edit},
};
use serde_json::{Value, json};
use service::audit::{AuditLog, AuditOptions};

use super::{
    Admin, Sender,
    authority::{Actor, Proof},
    error::OrderError,
    order::Order,
};
use crate::live::{
    LiveDirectory,
    tests::{Shelf, user},
};

/// An administration of root, who may everything, and bob; its audit log is in `root`.
pub(crate) async fn house(root: &Path) -> (Arc<Admin>, Arc<LiveDirectory>) {
    let everything = Edit::AddRule("user:root".parse().unwrap(), "**".parse().unwrap(), "admin".parse().unwrap());
    let edits = [user("root"), everything, user("bob")];
    let live = LiveDirectory::initialise(Arc::new(Shelf::default()), "test".into(), &edits, 0).await.unwrap();
    let audit = AuditLog::open(AuditOptions::new(root.join("audit"))).unwrap();
    (Admin::new(live.clone(), Arc::new(audit)), live)
}

/// The lines of the audit log, without their times.
pub(crate) fn written(root: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(root.join("audit/audit.log")).unwrap();
    let line = |line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("time").unwrap();
        line
    };
    text.lines().map(line).collect()
}

fn sender(directory: &Directory, name: &str) -> Sender {
    let actor = match name {
        "local" => Actor::Local,
        name => {
            let account = directory.account_named(Kind::User, &name.parse().unwrap()).unwrap();
            Actor::Account(account.id, Proof::Password)
        }
    };
    Sender { actor, from: "here".into() }
}

async fn give(admin: &Arc<Admin>, live: &LiveDirectory, name: &str, text: Value) -> Result<Value, OrderError> {
    let order: Order = serde_json::from_value(text).unwrap();
    admin.carry_out(order, sender(&live.current(), name), 1000).await
}

fn proves(live: &LiveDirectory, name: &str, password: &str) -> bool {
    let directory = live.current();
    let account = directory.account_named(Kind::User, &name.parse().unwrap()).unwrap();
    let (_, hash) = account.password(1000).unwrap();
    hash.parse::<PasswordHash>().unwrap().verify(password.as_bytes())
}

#[tokio::test]
async fn passwords_are_chosen_or_made() {
    let root = tempfile::tempdir().unwrap();
    let (admin, live) = house(root.path()).await;
    let chosen = json!({"order": "user-add", "name": "eve", "password": "correct horse"});
    let answer = give(&admin, &live, "root", chosen).await.unwrap();
    assert_eq!(answer.get("password"), None);
    assert!(proves(&live, "eve", "correct horse"));
    let answer = give(&admin, &live, "eve", json!({"order": "user-passwd", "name": "eve"})).await.unwrap();
    let made = answer["password"].as_str().unwrap();
    assert!(made.len() >= 20 && made.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)), "{made}");
    assert!(proves(&live, "eve", made) && !proves(&live, "eve", "correct horse"));
    for (password, wanted) in [("short", "shorter"), ("eve@home", "the user's name"), ("two\nlines!", "control")] {
        let order = json!({"order": "user-add", "name": "eve@home", "password": password});
        let error = give(&admin, &live, "root", order).await.unwrap_err();
        assert!(error.what.contains(wanted), "{}", error.what);
    }
    let log = json!(written(root.path())).to_string();
    for secret in [made, "correct horse", "short", "two"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn secrets_are_told_once_and_proved_by_their_hash() {
    let root = tempfile::tempdir().unwrap();
    let (admin, live) = house(root.path()).await;
    let create = json!({"order": "robot-create", "name": "ci"});
    let secret = give(&admin, &live, "root", create).await.unwrap()["secret"].as_str().unwrap().to_owned();
    let hash: [u8; 32] = registry_auth::secret::Secret::parse(secret.as_bytes()).unwrap().into();
    let directory = live.current();
    let robot = directory.account_named(Kind::Robot, &"ci".parse().unwrap()).unwrap();
    assert!(robot.credentials.iter().any(|own| own.verifier == registry_core::account::Verifier::Secret(hash)));
    let list = give(&admin, &live, "root", json!({"order": "robot-list"})).await.unwrap().to_string();
    assert!(!list.contains(&secret) && !json!(written(root.path())).to_string().contains(&secret));
}

#[tokio::test]
async fn what_changes_something_is_written_down() {
    let root = tempfile::tempdir().unwrap();
    let (admin, live) = house(root.path()).await;
    let mut expected = Vec::new();
    let mut check = async |name: &str, order: Value, entry: Option<(Value, &str)>| {
        let _ = give(&admin, &live, name, order.clone()).await;
        if let Some((about, result)) = entry {
            let actor = if name == "local" { name.to_owned() } else { format!("user:{name}") };
            let mut line = json!({
                "event": "admin", "actor": actor, "from": "here", "order": order["order"], "result": result,
            });
            line.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
            expected.push(line);
        }
        assert_eq!(written(root.path()), expected);
    };
    let grant = json!({"order": "grant-add", "subject": "user:bob", "repositories": "a", "rights": "pull"});
    let made = json!({"rule": 4, "subject": "user:bob", "repositories": "a", "rights": "pull", "created": "1970-01-01T00:16:40Z"});
    let asked = json!({"subject": "user:bob", "repositories": "a", "rights": "pull"});
    let mut about = asked.clone();
    about["grant"] = made.clone();
    check("bob", grant.clone(), Some((asked.clone(), "denied"))).await;
    check("root", grant.clone(), Some((about, "ok"))).await;
    check("root", grant, Some((asked, "conflict"))).await;
    check("root", json!({"order": "grant-list"}), None).await;
    check("bob", json!({"order": "user-list"}), None).await;
    let removed = json!({"rule": 4, "removed": made});
    check("local", json!({"order": "grant-remove", "rule": 4}), Some((removed, "ok"))).await;
    let label = json!({"name": "bob", "label": "x", "expires_in": 60, "expires": "1970-01-01T00:17:40Z"});
    let token = json!({"order": "user-token", "name": "bob", "label": "x", "expires_in": 60});
    check("bob", token, Some((label, "ok"))).await;
}

#[tokio::test]
async fn an_order_rests_on_the_directory_that_it_changes() {
    let place = tempfile::tempdir().unwrap();
    let (admin, live) = house(place.path()).await;
    let root = sender(&live.current(), "root");
    for text in [
        json!({"order": "user-add", "name": "next", "password": "correct horse"}),
        json!({"order": "grant-add", "subject": "user:next", "repositories": "**", "rights": "admin"}),
    ] {
        give(&admin, &live, "local", text).await.unwrap();
    }
    // Both begin while root is still there; whichever comes second finds what the first one left.
    let disable: Order = serde_json::from_value(json!({"order": "user-disable", "name": "root"})).unwrap();
    let add: Order =
        serde_json::from_value(json!({"order": "user-add", "name": "eve", "password": "a good one"})).unwrap();
    let next = sender(&live.current(), "next");
    let (disabled, added) = tokio::join!(admin.carry_out(disable, next, 1000), admin.carry_out(add, root, 1000));
    disabled.unwrap();
    // Hashing took longer than disabling.
    assert_eq!(added.unwrap_err().kind, super::error::Kind::Denied);
    assert!(live.current().account_named(Kind::User, &"eve".parse().unwrap()).is_err());
}

#[tokio::test]
async fn orders_at_once_all_land() {
    let root = tempfile::tempdir().unwrap();
    let (admin, live) = house(root.path()).await;
    let orders = (0..6).map(|number| {
        let (admin, live) = (admin.clone(), live.clone());
        tokio::spawn(async move {
            let order = json!({"order": "group-add", "name": format!("g{number}")});
            give(&admin, &live, "local", order).await.unwrap();
        })
    });
    for order in orders.collect::<Vec<_>>() {
        order.await.unwrap();
    }
    assert_eq!((live.current().groups().count(), written(root.path()).len()), (6, 6));
}
