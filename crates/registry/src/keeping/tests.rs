//! Orders about what is kept, on rows in memory.

use std::sync::Arc;

use registry_core::{
    digest::{Algorithm, Digest},
    manifest::{IndexPolicy, parse},
    retention::{RetentionRule, Rules, TagRule},
    store::{Change, Content, Metadata as _, NewBlob, NewManifest},
};
use registry_store::{hash::digest_of, meta::memory::MemoryMetadata};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Keeping, rule_text, span};
use crate::{
    app::now,
    config::settings::{Endpoint, Notifications},
    notify::Notifier,
    operations::operation::Operation,
    reservations::Reservations,
};

fn rule(repositories: &str, tags: &str, keep_last: Option<usize>) -> RetentionRule {
    let tags = (!tags.is_empty()).then(|| regex_lite::Regex::new(tags).unwrap());
    let tags = TagRule { repositories: repositories.parse().unwrap(), tags };
    RetentionRule { tags, keep_last, keep_pushed_within: None, keep_pulled_within: None }
}

/// A registry whose `team` has the tags 1 to 5 and `fixed`, each of its own manifest.
async fn house() -> (Arc<MemoryMetadata>, Keeping) {
    let metadata = Arc::new(MemoryMetadata::default());
    let immutable = vec![rule("**", "^fixed$", None).tags];
    metadata.govern(Rules { immutable: immutable.clone(), ..Rules::default() }).await.unwrap();
    for tag in ["1", "2", "3", "4", "5", "fixed"] {
        push(&metadata, tag).await;
    }
    let endpoint = Endpoint {
        name: "all".into(),
        url: "http://127.0.0.1:1/".into(),
        headers: Vec::new(),
        timeout: std::time::Duration::from_secs(1),
        threshold: 1,
        backoff: std::time::Duration::from_secs(1),
        ignored_media_types: Vec::new(),
        ignored_actions: Vec::new(),
    };
    let notifications = Notifications { include_references: false, endpoints: vec![endpoint] };
    let keeping = Keeping {
        metadata: metadata.clone(),
        state: None,
        retention: vec![rule("team/**", "", Some(2))],
        immutable,
        reservations: Reservations::new(Vec::new()),
        notifier: Notifier::new(&notifications, "test", "i"),
        outbox: Arc::new(Notify::new()),
        started: now() - 1,
    };
    (metadata, keeping)
}

/// Keeps nothing, by no rules.
pub(crate) fn empty() -> Keeping {
    let notifications = Notifications { include_references: false, endpoints: Vec::new() };
    Keeping {
        metadata: Arc::new(MemoryMetadata::default()),
        state: None,
        retention: Vec::new(),
        immutable: Vec::new(),
        reservations: Reservations::new(Vec::new()),
        notifier: Notifier::new(&notifications, "test", "i"),
        outbox: Arc::new(Notify::new()),
        started: 0,
    }
}

async fn push(metadata: &MemoryMetadata, tag: &str) -> Digest {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"x":"{tag}"}}}}"#
    );
    let bytes = bytes::Bytes::from(text);
    let manifest = parse(&bytes, None).unwrap();
    let digest = digest_of(Algorithm::Sha256, &bytes);
    let blob = NewBlob { digest, size: bytes.len() as u64, content: Content::Inline(bytes) };
    let new = NewManifest { blob, manifest, tags: vec![tag.parse().unwrap()], index_policy: IndexPolicy::All };
    metadata.apply(Change::PutManifest("team/api".parse().unwrap(), Box::new(new)), Vec::new()).await.unwrap();
    digest
}

async fn order(keeping: &Keeping, order: Value) -> String {
    let operation: Operation = serde_json::from_value(order).unwrap();
    match keeping.answer(&operation, "somebody", now()).await {
        Ok(answer) => answer.to_string(),
        Err(error) => format!("{}: {error}", error.kind.as_str()),
    }
}

#[tokio::test]
async fn tags_go_and_come_back() {
    let (metadata, keeping) = house().await;
    let check = async |given: Value, want: &[&str]| {
        let seen = order(&keeping, given.clone()).await;
        assert!(want.iter().all(|want| seen.contains(want)), "{given}: {seen}");
    };
    let tags = async || {
        let page = metadata.tags(&"team/api".parse().unwrap(), None, 100).await.unwrap().unwrap();
        page.entries.join(" ")
    };
    // All were pushed in the same second: names decide.
    check(json!({ "order": "retention" }), &[r#""expired":3"#, r#""tags":6"#, r#""tag":"3""#, r#""run":false"#]).await;
    assert_eq!(tags().await, "1 2 3 4 5 fixed");
    check(json!({ "order": "retention", "run": true }), &[r#""expired":3"#, r#""more":false"#]).await;
    assert_eq!(tags().await, "1 2 fixed");
    let events = metadata.pending("all", 100).await.unwrap();
    assert_eq!(events.len(), 3);
    assert!(events[0].event.body.contains(r#""actor":{"name":"somebody"}"#), "{}", events[0].event.body);
    assert!(events[0].event.body.contains(r#""action":"delete""#));
    let undelete = |reference: &str| json!({ "order": "undelete", "repository": "team/api", "reference": reference });
    check(undelete("4"), &[r#""tags":["4"]"#]).await;
    assert_eq!(tags().await, "1 2 4 fixed");
    assert!(metadata.pending("all", 100).await.unwrap()[3].event.body.contains(r#""action":"push""#));
    check(undelete("4"), &["conflict: tag 4 is there"]).await;
    check(undelete("never"), &["not found: nothing is left of team/api:never"]).await;
    check(undelete("-"), &["invalid: `-` is no tag or digest"]).await;
    let digest = push(&metadata, "2").await;
    metadata.apply(Change::DeleteManifest("team/api".parse().unwrap(), digest), Vec::new()).await.unwrap();
    check(undelete(&digest.to_string()), &[r#""tags":["2"]"#, &digest.to_string()]).await;
    assert_eq!(tags().await, "1 2 4 fixed");
    let history =
        |name: &str, tag: Option<&str>| json!({ "order": "history", "repository": name, "tag": tag, "limit": 3 });
    check(history("team/api", Some("4")), &[r#""action":"restored""#, r#""action":"deleted""#, r#""action":"set""#])
        .await;
    check(history("team/api", Some("never")), &[r#""entries":[]"#]).await;
    check(history("elsewhere", None), &["not found: elsewhere"]).await;
    check(history("Team", None), &["invalid: "]).await;
    check(json!({ "order": "quota" }), &[r#"{"quotas":[]}"#]).await;
}

#[tokio::test]
async fn what_was_pushed_meanwhile_stays() {
    let (metadata, keeping) = house().await;
    let name = "team/api".parse().unwrap();
    let seen = metadata.tag_facts(&name, None, 1).await.unwrap().entries.remove(0);
    let other = registry_core::store::TagFacts { pushed_at: seen.pushed_at - 1, ..seen.clone() };
    assert!(metadata.apply(Change::Expire(name.clone(), other), Vec::new()).await.is_err());
    metadata.apply(Change::Expire(name.clone(), seen.clone()), Vec::new()).await.unwrap();
    assert!(metadata.apply(Change::Expire(name, seen), Vec::new()).await.is_err());
    // A limit of tags says that it was one.
    let swept = keeping.remove_expired("x", now(), 1).await.unwrap();
    assert_eq!((swept.expired, swept.more), (1, true));
}

#[test]
fn rules_in_words() {
    let mut rule = rule("team/*", "^v", Some(3));
    rule.keep_pushed_within = Some(30 * 86_400);
    rule.keep_pulled_within = Some(36 * 3600);
    assert_eq!(rule_text(&rule), "team/* ^v: the last 3, what was pushed within 30d, what was pulled within 36h");
    for (seconds, text) in [(90, "90s"), (120, "2m"), (0, "0d"), (86_401, "86401s")] {
        assert_eq!(span(seconds), text);
    }
}
