//! Runs the repositories on the store in memory.

use std::{fs, sync::Arc, time::Duration};

use om_core::{
    aggregate::Summary,
    driver::Secret,
    kv::{Kv, Op, Rev},
    path::{NodeName, ObjectPath},
    truth::{Fact, Truth},
    view::{Monitor, Order, Owner, Phase, Report, Session, Target, Want},
};

use super::{Config, Expect, MAX_KEY_VALUE, New, NodeFacts, Store, StoreError};
use crate::{memory::MemoryKv, seal::ClusterKey, sqlite::SqliteKv};

fn path(text: &str) -> ObjectPath {
    text.parse().expect("a path")
}

fn node(text: &str) -> NodeName {
    text.parse().expect("a node")
}

fn new(text: &str) -> New {
    New { path: path(text), text: "[DEFAULT]\n".into(), want: None }
}

async fn made(objects: &[&str]) -> Store {
    let store = Store::in_memory().await.expect("a store");
    store.create(&objects.iter().map(|text| new(text)).collect::<Vec<_>>()).await.expect("made");
    store
}

fn report() -> Report {
    Report {
        generation: 1,
        summary: Summary::UNKNOWN,
        resources: [].into(),
        restarts: [].into(),
        monitor: Monitor::Idle,
        expected: false,
        boot: "b".into(),
        done: None,
        updated: 0,
    }
}

#[tokio::test]
async fn objects_are_made_changed_and_removed() {
    let store = made(&["web"]).await;
    let web = path("web");
    let seen = store.config(&web).await.expect("read").expect("there");
    assert_eq!((seen.generation, &*seen.text), (1, "[DEFAULT]\n"));
    let error = store.create(&[new("db"), new("web")]).await.expect_err("one exists");
    assert!(matches!(error, StoreError::Exists(found) if found == web));
    assert!(store.config(&path("db")).await.expect("read").is_none(), "none was made");

    assert_eq!(store.update(&web, None, "[DEFAULT]\n").await.expect("same"), seen, "nothing changes");
    let Config { generation, .. } = store.update(&web, Some(1), "[env]\n").await.expect("changed");
    assert_eq!(generation, 2);
    assert!(matches!(store.update(&web, Some(1), "x").await, Err(StoreError::Changed(_))));
    assert!(matches!(store.update(&path("db"), None, "x").await, Err(StoreError::Missing(_))));
    assert!(matches!(store.update(&web, None, &"x".repeat(61 << 10)).await, Err(StoreError::TooLarge { .. })));
    assert!(store.update(&web, None, &"\u{1}".repeat(60 << 10)).await.is_ok(), "the limit fits, whatever the bytes");

    assert!(matches!(store.delete(&web, Some(1)).await, Err(StoreError::Changed(_))));
    assert!(store.delete(&web, None).await.expect("deleted"));
    assert!(!store.delete(&web, None).await.expect("gone already"));
    assert!(store.configs().await.expect("read").is_empty());
}

#[tokio::test]
async fn keys_are_sealed_in_secrets_only() {
    let store = made(&["test/sec/creds", "test/cfg/motd", "web"]).await;
    let (sec, cfg) = (path("test/sec/creds"), path("test/cfg/motd"));
    for (path, sealed) in [(&sec, true), (&cfg, false)] {
        let first = store.put_value(path, "a/config.json", b"hunter2", Expect::Absent).await.expect("added");
        assert_eq!(store.put_value(path, "a/config.json", b"hunter2", Expect::Any).await.expect("same"), first);
        let error = store.put_value(path, "a/config.json", b"x", Expect::Absent).await.expect_err("is there");
        assert!(error.to_string().contains("already exists. use the 'change' action"), "{error}");
        let value = store.value(path, "a/config.json").await.expect("read").expect("there");
        assert_eq!((value.bytes, value.version), (Secret(b"hunter2".to_vec()), first));
        let keys = store.keys(path).await.expect("keys");
        assert_eq!((&*keys[0].name, keys[0].size, keys.len()), ("a/config.json", 7, 1));
        let entries = store.list_prefix(&crate::keys::values_of(path)).await.expect("read");
        let clear = entries.iter().any(|entry| entry.value.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(clear, !sealed, "{path}");

        let second = store.put_value(path, "a/config.json", b"y", Expect::Version(first)).await.expect("changed");
        assert!(second > first);
        let late = store.put_value(path, "a/config.json", b"z", Expect::Version(first)).await;
        assert!(matches!(late, Err(StoreError::Changed(_))));
        assert!(store.remove_value(path, "a/config.json").await.expect("removed"));
        assert!(!store.remove_value(path, "a/config.json").await.expect("gone already"));
        let third = store.put_value(path, "a/config.json", b"y", Expect::Any).await.expect("again");
        assert!(third > second, "a version is never used twice");
        let most = vec![7; MAX_KEY_VALUE];
        store.put_value(path, "big", &most, Expect::Any).await.expect("the largest value");
        let more = vec![7; MAX_KEY_VALUE + 1];
        assert!(matches!(store.put_value(path, "big", &more, Expect::Any).await, Err(StoreError::TooLarge { .. })));
    }
    for wrong in ["", "/a", "a//b", "../x", "a/.", "a\nb"] {
        let answer = store.put_value(&sec, wrong, b"", Expect::Any).await;
        assert!(matches!(answer, Err(StoreError::KeyName(_))), "{wrong:?}");
    }
    assert!(matches!(store.keys(&path("web")).await, Err(StoreError::NoKeys(_))));
    assert!(matches!(store.keys(&path("sec/none")).await, Err(StoreError::Missing(_))));
    let none = store.put_value(&path("sec/none"), "k", b"", Expect::Any).await;
    assert!(matches!(none, Err(StoreError::Missing(_))));
}

#[tokio::test]
async fn a_secret_opens_in_its_own_place_only() {
    let store = made(&["test/sec/creds", "prod/sec/creds", "test/usr/creds", "test/cfg/creds"]).await;
    let home = path("test/sec/creds");
    store.put_value(&home, "k", b"v", Expect::Any).await.expect("added");
    let sealed = store.get("/om/1/val/test/sec/creds/k").await.expect("read").expect("there").value.to_vec();
    for elsewhere in ["prod/sec/creds/k", "test/usr/creds/k", "test/sec/creds/other", "test/cfg/creds/k"] {
        let key = format!("/om/1/val/{elsewhere}");
        store.txn(vec![], vec![Op::Put(key, sealed.clone())]).await.expect("copied");
        let (object, key) = elsewhere.rsplit_once('/').expect("a key");
        let answer = store.value(&path(object), key).await;
        assert!(matches!(answer, Err(StoreError::Seal { .. } | StoreError::Damaged(_))), "{elsewhere}");
    }
}

#[tokio::test]
async fn removing_takes_everything_along() {
    let store = made(&["test/sec/many", "test/sec/many2"]).await;
    let many = path("test/sec/many");
    for number in 0..300 {
        store.put_value(&many, &format!("k{number}"), b"v", Expect::Any).await.expect("added");
    }
    store.put_value(&path("test/sec/many2"), "k", b"v", Expect::Any).await.expect("added");
    assert!(store.delete(&many, None).await.expect("deleted"));
    assert!(store.list_prefix("/om/1/val/test/sec/many/").await.expect("read").is_empty());
    assert_eq!(store.keys(&path("test/sec/many2")).await.expect("keys").len(), 1);
}

#[tokio::test]
async fn wants_change_by_comparison() {
    let store = made(&["web"]).await;
    let web = path("web");
    let order = Order { id: "r1".into(), target: Target::Started, force: false, keep: false };
    let frozen = store.change_want(&web, |want| Ok::<_, StoreError>(want.freeze(Some(5)))).await.expect("frozen");
    let again = store.change_want(&web, |want| Ok::<_, StoreError>(want.freeze(Some(5)))).await.expect("same");
    assert_eq!(again, frozen);
    let started = store.change_want(&web, |want| Ok::<_, StoreError>(want.ordered(order.clone(), 9))).await;
    assert_eq!(started.expect("ordered").value.frozen, None);
    assert!(!store.want(&web, frozen.rev, Want::default()).await.expect("late"));
    let seen = store.wanted(&web).await.expect("read");
    assert!(store.want(&web, seen.rev, seen.value.ended(None)).await.expect("ended"));
    let gone = store.change_want(&path("db"), |want| Ok::<_, StoreError>(want.clear())).await;
    assert!(matches!(gone, Err(StoreError::Missing(_))));
    assert!(!store.want(&path("db"), Rev(0), Want::default()).await.expect("nothing to want"));
}

#[tokio::test]
async fn owning_takes_a_live_session() {
    let store = made(&["web"]).await;
    let (web, n1, n2) = (path("web"), node("n1"), node("n2"));
    let mut session =
        Session { epoch: 1, boot: "b".into(), seq: 0, live: true, takeover: Duration::from_secs(20), frozen: None };
    let first = store.session(&n1, None, session.clone()).await.expect("asked").expect("begun");
    assert_eq!(store.session(&n1, None, session.clone()).await.expect("asked"), None, "one is there");
    session.seq = 1;
    let second = store.session(&n1, Some(first), session.clone()).await.expect("asked").expect("renewed");
    let mine = Owner { node: n1.clone(), epoch: 1, phase: Phase::Held };
    let own = |seen, owner: &Owner, session| store.own(&web, seen, owner.clone(), session);
    assert!(!own(None, &mine, Some((n1.clone(), first))).await.expect("asked"), "a session of before");
    assert!(own(None, &mine, Some((n1.clone(), second))).await.expect("asked"));
    let theirs = Owner { node: n2, ..mine.clone() };
    assert!(!own(None, &theirs, None).await.expect("asked"), "somebody owns it");
    // Declared dead: a renewal of what the node had seen is refused.
    let dead = Session { live: false, ..session.clone() };
    store.session(&n1, Some(second), dead).await.expect("asked").expect("declared dead");
    assert_eq!(store.session(&n1, Some(second), session).await.expect("asked"), None);
}

#[tokio::test]
async fn the_engine_lists_and_follows() {
    let store = made(&["web"]).await;
    let (web, n1) = (path("web"), node("n1"));
    let (facts, rev) = store.list().await.expect("listed");
    assert!(matches!(&facts[..], [Fact::Object(path, Some(_))] if *path == web), "{facts:?}");
    let mut news = Truth::watch(&store, rev);
    store.put_node(&n1, &NodeFacts::default()).await.expect("facts are no news");
    store.report(&web, &n1, Some(report())).await.expect("reported");
    let said = news.next().await.expect("news").expect("some");
    assert!(matches!(&said[..], [Fact::Report(_, node, Some(_))] if *node == n1), "{said:?}");

    let want = store.wanted(&web).await.expect("read").rev;
    assert!(!store.forget(&web, 2, want).await.expect("asked"), "another generation");
    assert!(store.forget(&web, 1, want).await.expect("asked"));
    let said = news.next().await.expect("news").expect("some");
    assert_eq!(said.len(), 2, "configuration and report: {said:?}");
    store.report(&web, &n1, Some(report())).await.expect("a late report is not kept");
    assert!(store.list().await.expect("listed").0.is_empty());

    store.txn(vec![], vec![Op::Put("/om/1/want/root/svc/x".into(), b"{".to_vec())]).await.expect("damaged");
    assert!(store.list().await.expect("a damaged record is left out").0.is_empty());
}

#[tokio::test]
async fn the_authority_is_kept_once() {
    let store = Store::in_memory().await.expect("a store");
    assert!(store.authority().await.expect("read").is_none());
    let (first, second) = (Secret(b"first".to_vec()), Secret(b"second".to_vec()));
    assert_eq!(store.keep_authority(&first).await.expect("kept"), first);
    assert_eq!(store.keep_authority(&second).await.expect("kept"), first);
}

#[tokio::test]
async fn a_store_opens_with_its_own_key_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, key) = (dir.path().join("db"), dir.path().join("key"));
    let open = async || {
        let kv: Arc<dyn Kv> = Arc::new(SqliteKv::open(&db).expect("a database"));
        Store::open(kv, &key).await
    };
    let store = open().await.expect("made");
    let id = store.cluster_id().to_owned();
    assert_eq!(id.len(), 36, "{id}");
    store.create(&[new("sec/creds")]).await.expect("made");
    store.put_value(&path("sec/creds"), "k", b"v", Expect::Any).await.expect("added");
    drop(store);
    let store = open().await.expect("opened");
    assert_eq!(store.cluster_id(), id);
    assert_eq!(store.value(&path("sec/creds"), "k").await.expect("read").expect("there").bytes.0, b"v");
    drop(store);
    fs::rename(&key, dir.path().join("lost")).expect("moved");
    assert!(matches!(open().await, Err(StoreError::OtherKey { .. })));
    assert!(!key.exists(), "none is made in its place");
    fs::write(&key, [1; 32]).expect("another key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    assert!(matches!(open().await, Err(StoreError::OtherKey { .. })));
}

#[tokio::test]
async fn two_daemons_make_one_cluster() {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
    let key = ClusterKey::new().expect("a key");
    let (one, two) =
        tokio::join!(Store::with_key(Arc::clone(&kv), key.clone()), Store::with_key(Arc::clone(&kv), key.clone()));
    assert_eq!(one.expect("one").cluster_id(), two.expect("two").cluster_id());
}
