//! Owns what every [`Kv`] has to keep. Each store runs all of it.

use std::{future::Future, time::Duration};

use om_core::kv::{Compare, Entry, KeyRange, Kv, KvError, Op, Outcome, Rev, Watch, WatchMsg};

fn put(key: &str, value: &str) -> Op {
    Op::Put(key.into(), value.into())
}

fn delete(key: &str) -> Op {
    Op::Delete(key.into())
}

async fn txn(kv: &impl Kv, conditions: Vec<Compare>, changes: Vec<Op>) -> Outcome {
    kv.txn(conditions, changes).await.expect("a transaction")
}

/// `key=value@created.modified` of each, and the revision.
async fn shown(kv: &impl Kv, range: KeyRange) -> (Vec<String>, Rev) {
    let (entries, rev) = kv.range(range).await.expect("a range");
    let show = |Entry { key, value, created, modified }: &Entry| {
        format!("{key}={}@{}.{}", String::from_utf8_lossy(value), created.0, modified.0)
    };
    (entries.iter().map(show).collect(), rev)
}

async fn news(watch: &mut Box<dyn Watch>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("news in time");
    match next.expect("news") {
        WatchMsg::Compacted(rev) => format!("compacted {}", rev.0),
        WatchMsg::Batch(rev, changes) => {
            let show = |(key, value): &om_core::kv::Changed| match value {
                Some(value) => format!("{key}={}", String::from_utf8_lossy(value)),
                None => format!("{key} gone"),
            };
            format!("{}: {}", rev.0, changes.iter().map(show).collect::<Vec<_>>().join(", "))
        }
    }
}

async fn is_silent(watch: &mut Box<dyn Watch>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err()
}

/// Runs everything, each on a new store.
pub(crate) async fn all<K: Kv, F: Future<Output = K>>(open: impl Fn() -> F) {
    revisions_count_changes(&open().await).await;
    conditions_decide(&open().await).await;
    ranges_are_sorted_and_bounded(&open().await).await;
    watches_tell_each_transaction_once(&open().await).await;
    watches_go_back_and_say_when_they_cannot(&open().await).await;
    limits_hold(&open().await).await;
}

async fn revisions_count_changes(kv: &impl Kv) {
    assert_eq!(shown(kv, KeyRange::Prefix("/".into())).await, (vec![], Rev(0)));
    let first = txn(kv, vec![], vec![put("/a", "1"), put("/b", "1")]).await;
    assert_eq!(first, Outcome { done: true, rev: Rev(1) }, "one revision for a transaction");
    assert_eq!(txn(kv, vec![], vec![put("/a", "2")]).await.rev, Rev(2));
    assert_eq!(txn(kv, vec![], vec![]).await, Outcome { done: true, rev: Rev(2) }, "nothing changed");
    assert_eq!(txn(kv, vec![], vec![delete("/none")]).await.rev, Rev(2), "nothing changed");
    assert_eq!(shown(kv, KeyRange::Prefix("/".into())).await, (vec!["/a=2@1.2".into(), "/b=1@1.1".into()], Rev(2)));
    assert_eq!(txn(kv, vec![], vec![delete("/a")]).await.rev, Rev(3));
    assert_eq!(txn(kv, vec![], vec![put("/a", "3")]).await.rev, Rev(4));
    assert_eq!(shown(kv, KeyRange::Key("/a".into())).await, (vec!["/a=3@4.4".into()], Rev(4)), "it was made anew");
    assert!(kv.generation() > 0);
}

async fn conditions_decide(kv: &impl Kv) {
    let absent = |key: &str| Compare::Absent(key.into());
    let modified = |key: &str, rev| Compare::Modified(key.into(), Rev(rev));
    txn(kv, vec![absent("/a")], vec![put("/a", "1")]).await;
    for (conditions, done) in [
        (vec![absent("/a")], false),
        (vec![absent("/b")], true),
        (vec![modified("/a", 1)], true),
        (vec![modified("/a", 2)], false),
        (vec![modified("/b", 0)], false),
        (vec![modified("/a", 1), absent("/b")], true),
        (vec![modified("/a", 1), absent("/a")], false),
    ] {
        let outcome = txn(kv, conditions.clone(), vec![]).await;
        assert_eq!(outcome, Outcome { done, rev: Rev(1) }, "{conditions:?}");
    }
    let refused = txn(kv, vec![modified("/a", 9)], vec![put("/a", "2"), put("/c", "1")]).await;
    assert_eq!(refused, Outcome { done: false, rev: Rev(1) });
    assert_eq!(shown(kv, KeyRange::Prefix("/".into())).await.0, ["/a=1@1.1"], "all or nothing");
    assert!(txn(kv, vec![modified("/a", 1)], vec![put("/a", "2")]).await.done);
    assert!(!txn(kv, vec![modified("/a", 1)], vec![put("/a", "3")]).await.done, "compared with what is there now");
}

async fn ranges_are_sorted_and_bounded(kv: &impl Kv) {
    let keys = ["/x/b", "/x/a", "/x", "/xa", "/x/~", "/y", "/x/a/b"];
    txn(kv, vec![], keys.map(|key| put(key, "")).into()).await;
    let found = async |range: KeyRange| -> Vec<String> {
        let (entries, _) = kv.range(range).await.expect("a range");
        entries.iter().map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(found(KeyRange::Prefix("/x/".into())).await, ["/x/a", "/x/a/b", "/x/b", "/x/~"]);
    assert_eq!(found(KeyRange::Key("/x".into())).await, ["/x"]);
    assert_eq!(found(KeyRange::Key("/z".into())).await, [""; 0]);
    assert_eq!(found(KeyRange::Prefix("/".into())).await.len(), keys.len());
}

async fn watches_tell_each_transaction_once(kv: &impl Kv) {
    let mut all = kv.watch(KeyRange::Prefix("/a".into()), Rev(0));
    let mut one = kv.watch(KeyRange::Key("/a/1".into()), Rev(0));
    txn(kv, vec![], vec![put("/a/2", "x"), put("/b", "x"), put("/a/1", "x")]).await;
    txn(kv, vec![], vec![put("/b", "y")]).await;
    txn(kv, vec![Compare::Absent("/b".into())], vec![put("/a/1", "never")]).await;
    txn(kv, vec![], vec![delete("/a/1"), delete("/a/none")]).await;
    assert_eq!(news(&mut all).await, "1: /a/2=x, /a/1=x");
    assert_eq!(news(&mut all).await, "3: /a/1 gone");
    assert_eq!(news(&mut one).await, "1: /a/1=x");
    assert_eq!(news(&mut one).await, "3: /a/1 gone");
    assert!(is_silent(&mut all).await && is_silent(&mut one).await);
    txn(kv, vec![], vec![put("/a/3", "z")]).await;
    assert_eq!(news(&mut all).await, "4: /a/3=z", "a wait that was given up loses nothing");
    let mut later = kv.watch(KeyRange::Prefix("/a".into()), Rev(3));
    assert_eq!(news(&mut later).await, "4: /a/3=z");
}

async fn watches_go_back_and_say_when_they_cannot(kv: &impl Kv) {
    for i in 1..=10 {
        txn(kv, vec![], vec![put("/a", &i.to_string())]).await;
    }
    let mut behind = kv.watch(KeyRange::Key("/a".into()), Rev(0));
    assert_eq!(news(&mut behind).await, "1: /a=1");
    kv.compact(Rev(6)).await.expect("a compaction");
    let mut early = kv.watch(KeyRange::Key("/a".into()), Rev(4));
    assert_eq!(news(&mut early).await, "compacted 5");
    let mut just = kv.watch(KeyRange::Key("/a".into()), Rev(5));
    assert_eq!(news(&mut just).await, "6: /a=6");
    assert_eq!(shown(kv, KeyRange::Key("/a".into())).await, (vec!["/a=10@1.10".into()], Rev(10)));
    kv.compact(Rev(3)).await.expect("it was done before");
    kv.compact(Rev(99)).await.expect("all that there is");
    let mut newest = kv.watch(KeyRange::Key("/a".into()), Rev(10));
    txn(kv, vec![], vec![put("/a", "11")]).await;
    assert_eq!(news(&mut newest).await, "11: /a=11");
}

async fn limits_hold(kv: &impl Kv) {
    let many: Vec<Op> = (0..129).map(|i| put(&format!("/{i}"), "")).collect();
    for changes in
        [many, vec![put(&format!("/{}", "k".repeat(1024)), "")], vec![Op::Put("/a".into(), vec![0; 64 * 1024 + 1])]]
    {
        let got = kv.txn(vec![], changes).await;
        assert!(matches!(got, Err(KvError::TooLarge(_))), "{got:?}");
    }
    for changes in [vec![put("/a", ""), delete("/a")], vec![put("", "")], vec![put("/a b", "")], vec![put("/ä", "")]] {
        let got = kv.txn(vec![], changes).await;
        assert!(matches!(got, Err(KvError::Failed(_))), "{got:?}");
    }
    assert_eq!(shown(kv, KeyRange::Prefix("/".into())).await, (vec![], Rev(0)));
    assert!(txn(kv, vec![], vec![Op::Put("/a".into(), vec![0; 64 * 1024])]).await.done);
}
