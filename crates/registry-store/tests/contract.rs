//! One suite for every store: what the traits promise, on memory and on the real thing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use registry_core::{
    account::Kind,
    digest::{Algorithm, Digest},
    directory::{Directories, Directory, Edit},
    gc::{Collection, Policy},
    manifest::{IndexPolicy, parse},
    name::RepoName,
    reference::{Reference, Tag},
    retention::{Quota, Rules, TagRule},
    store::{
        Blobs, Change, Commit, Content, Delivered, INLINE_MAX, Metadata, NewBlob, NewManifest, OutboxEvent, Place,
        Refusal, StoreError, TagFacts,
    },
};
use registry_store::{
    blob::{fs::FsBlobs, memory::MemoryBlobs},
    claims::Claims,
    data_dir::{DataDir, DataDirError},
    disk::Poison,
    hash::digest_of,
    maintenance::settle,
    meta::{memory::MemoryMetadata, sqlite::SqliteMetadata},
};

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, bytes)
}

fn inline(bytes: &[u8]) -> NewBlob {
    let content = Content::Inline(Bytes::copy_from_slice(bytes));
    NewBlob { digest: digest(bytes), size: bytes.len() as u64, content }
}

fn image(config: &[u8], subject: Option<&Digest>, tags: &[&str]) -> Box<NewManifest> {
    let subject = subject
        .map(|subject| format!(r#","subject":{{"mediaType":"x/y","digest":"{subject}","size":1}}"#))
        .unwrap_or_default();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"c/t","digest":"{}","size":{}}},"layers":[]{subject}}}"#,
        digest(config),
        config.len()
    );
    manifest(&text, tags)
}

fn manifest(text: &str, tags: &[&str]) -> Box<NewManifest> {
    Box::new(NewManifest {
        blob: inline(text.as_bytes()),
        manifest: parse(text.as_bytes(), None).unwrap(),
        tags: tags.iter().map(|text| tag(text)).collect(),
        index_policy: IndexPolicy::All,
    })
}

async fn apply(store: &dyn Metadata, change: Change) -> Result<(), Refusal> {
    match store.apply(change, Vec::new()).await {
        Ok(()) => Ok(()),
        Err(StoreError::Refused(refusal)) => Err(refusal),
        Err(error) => panic!("{error}"),
    }
}

/// Runs a suite on memory and on SQLite.
async fn on_each<F: AsyncFn(&dyn Metadata)>(suite: F) {
    suite(&MemoryMetadata::default()).await;
    let dir = tempfile::tempdir().unwrap();
    suite(&SqliteMetadata::open(&dir.path().join("meta"), Poison::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_seen_only_where_they_are_held() {
    on_each(async |store| {
        let (a, b, blob) = (name("a"), name("b"), inline(b"one"));
        let one = blob.digest;
        apply(store, Change::PutBlob(a.clone(), blob)).await.unwrap();
        assert_eq!(store.blob(&a, &one).await.unwrap().unwrap().size, 3);
        assert_eq!(store.blob(&b, &one).await.unwrap(), None);
        let mount = |from: &RepoName, to: &RepoName| Change::Mount { digest: one, from: from.clone(), to: to.clone() };
        assert_eq!(apply(store, mount(&b, &a)).await, Err(Refusal::BlobUnknown(one)));
        apply(store, mount(&a, &b)).await.unwrap();
        assert!(store.blob(&b, &one).await.unwrap().is_some());
        assert_eq!(store.holders(&one, 10).await.unwrap().len(), 2);
        apply(store, Change::DeleteBlob(a.clone(), one)).await.unwrap();
        assert_eq!(apply(store, Change::DeleteBlob(a.clone(), one)).await, Err(Refusal::BlobUnknown(one)));
        assert_eq!(store.blob(&a, &one).await.unwrap(), None);
        assert!(store.blob(&b, &one).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_need_what_they_refer_to() {
    on_each(async |store| {
        let a = name("a");
        let new = image(b"config", None, &["v1", "v2"]);
        let id = new.blob.digest;
        let put = Change::PutManifest(a.clone(), new);
        assert_eq!(apply(store, put.clone()).await, Err(Refusal::ReferencesUnknown(vec![digest(b"config")])));
        assert_eq!(store.tags(&a, None, 10).await.unwrap(), None, "a refused change leaves no repository");
        apply(store, Change::PutBlob(a.clone(), inline(b"config"))).await.unwrap();
        assert!(store.repositories(None, 10).await.unwrap().entries.is_empty(), "blobs alone are not listed");
        apply(store, put).await.unwrap();
        for reference in [Reference::Tag(tag("v1")), Reference::Tag(tag("v2")), Reference::Digest(id)] {
            assert_eq!(store.manifest(&a, &reference).await.unwrap().unwrap().blob.digest, id);
        }
        assert_eq!(store.repositories(None, 10).await.unwrap().entries, std::slice::from_ref(&a));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1}}]}}"#, digest(b"config"));
        let refused = Err(Refusal::ReferencesUnknown(vec![digest(b"config")]));
        assert_eq!(apply(store, Change::PutManifest(a.clone(), manifest(&index, &[]))).await, refused, "a blob is no manifest");
        apply(store, Change::DeleteManifest(a.clone(), id)).await.unwrap();
        assert_eq!(store.manifest(&a, &Reference::Tag(tag("v1"))).await.unwrap(), None);
        assert_eq!(store.tags(&a, None, 10).await.unwrap().unwrap().entries.len(), 0);
        assert!(store.repositories(None, 10).await.unwrap().entries.is_empty());
        let unknown = Refusal::ManifestUnknown(id.to_string());
        assert_eq!(apply(store, Change::DeleteManifest(a.clone(), id)).await, Err(unknown));
        let unknown = Refusal::NameUnknown(name("nowhere"));
        assert_eq!(apply(store, Change::DeleteTag(name("nowhere"), tag("x"))).await, Err(unknown));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_sorted_and_paged() {
    on_each(async |store| {
        for repository in ["b", "a-b", "a/b", "a"] {
            apply(store, Change::PutBlob(name(repository), inline(b"config"))).await.unwrap();
            let tags = ["x", "B", "a", "1.0"];
            apply(store, Change::PutManifest(name(repository), image(b"config", None, &tags))).await.unwrap();
        }
        let page = store.repositories(None, 3).await.unwrap();
        assert_eq!(page.entries, [name("a"), name("a/b"), name("a-b")]);
        assert!(page.more);
        let page = store.repositories(Some("a/b"), 3).await.unwrap();
        assert_eq!((page.entries, page.more), (vec![name("a-b"), name("b")], false));
        let page = store.tags(&name("a"), None, 2).await.unwrap().unwrap();
        assert_eq!((page.entries, page.more), (vec!["1.0".to_owned(), "B".to_owned()], true));
        let page = store.tags(&name("a"), Some("B"), 2).await.unwrap().unwrap();
        assert_eq!((page.entries, page.more), (vec!["a".to_owned(), "x".to_owned()], false));
        let page = store.tags(&name("a"), None, 0).await.unwrap().unwrap();
        assert!(page.entries.is_empty() && page.more);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_come_and_go_with_their_manifests() {
    on_each(async |store| {
        let (a, subject) = (name("a"), digest(b"subject"));
        let mut ids = Vec::new();
        for config in [&b"c1"[..], b"c2", b"c3"] {
            apply(store, Change::PutBlob(a.clone(), inline(config))).await.unwrap();
            let new = image(config, Some(&subject), &[]);
            ids.push(new.blob.digest);
            apply(store, Change::PutManifest(a.clone(), new)).await.unwrap();
        }
        ids.sort_by_key(Digest::to_key);
        let list = async |kind: Option<&str>, after: Option<&Digest>, limit| {
            let page = store.referrers(&a, &subject, kind, after, limit, usize::MAX).await.unwrap();
            (page.entries.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(list(None, None, 10).await, (ids.clone(), false));
        assert_eq!(list(Some("c/t"), None, 2).await, (ids[..2].to_vec(), true));
        assert_eq!(list(Some("c/t"), Some(&ids[1]), 2).await, (ids[2..].to_vec(), false));
        assert_eq!(list(Some("other"), None, 2).await, (vec![], false));
        apply(store, Change::DeleteManifest(a.clone(), ids[0])).await.unwrap();
        assert_eq!(list(None, None, 10).await, (ids[1..].to_vec(), false));
        let (_, descriptor) = store.referrers(&a, &subject, None, None, 1, 1).await.unwrap().entries.remove(0);
        let descriptor: serde_json::Value = serde_json::from_str(&descriptor).unwrap();
        assert_eq!((&descriptor["artifactType"], &descriptor["digest"]), (&"c/t".into(), &ids[1].to_string().into()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_with_their_change() {
    on_each(async |store| {
        let event = |body: &str| OutboxEvent { endpoint: "hook".into(), body: body.into() };
        let change = Change::PutBlob(name("a"), inline(b"x"));
        store.apply(change, vec![event("1"), event("2")]).await.unwrap();
        let refused = Change::DeleteBlob(name("a"), digest(b"absent"));
        assert!(store.apply(refused, vec![event("3")]).await.is_err());
        let queue = async || {
            let events = store.pending("hook", 10).await.unwrap();
            events.into_iter().map(|delivery| (delivery.event.body, delivery.attempts)).collect::<Vec<_>>()
        };
        assert_eq!(queue().await, [("1".to_owned(), 0), ("2".to_owned(), 0)]);
        let ids: Vec<i64> = store.pending("hook", 10).await.unwrap().iter().map(|delivery| delivery.id).collect();
        store.delivered(ids[0], Delivered::Failed).await.unwrap();
        assert_eq!(queue().await[0], ("1".to_owned(), 1));
        store.delivered(ids[0], Delivered::Dead("why".into())).await.unwrap();
        store.delivered(ids[1], Delivered::Accepted).await.unwrap();
        assert_eq!(queue().await, []);
        let dead = store.dead_letters(10).await.unwrap();
        assert_eq!((dead.len(), dead[0].dead.as_deref(), dead[0].attempts), (1, Some("why"), 2));
        store.delivered(ids[0], Delivered::Replayed).await.unwrap();
        assert_eq!(queue().await, [("1".to_owned(), 0)]);
        for body in ["4", "5", "6", "7"] {
            store.apply(Change::Nothing, vec![event(body)]).await.unwrap();
        }
        assert_eq!(store.trim_outbox("hook", 10, 10).await.unwrap(), 0);
        assert_eq!(store.trim_outbox("hook", 2, 2).await.unwrap(), 3);
        assert_eq!(queue().await, [("6".to_owned(), 0), ("7".to_owned(), 0)]);
        let dead = store.dead_letters(10).await.unwrap();
        assert_eq!(dead.iter().map(|letter| letter.event.body.as_str()).collect::<Vec<_>>(), ["4", "5"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_expires_only_as_it_was_seen() {
    on_each(async |store| {
        let rule =
            TagRule { repositories: "r".parse().unwrap(), tags: Some(regex_lite::Regex::new("^fixed$").unwrap()) };
        store.govern(Rules { immutable: vec![rule], ..Rules::default() }).await.unwrap();
        let r = name("r");
        for config in [b"one", b"two"] {
            apply(store, Change::PutBlob(r.clone(), inline(config))).await.unwrap();
        }
        let put = |config: &[u8], tags: &[&str]| Change::PutManifest(r.clone(), image(config, None, tags));
        apply(store, put(b"one", &["fixed", "moved", "seen"])).await.unwrap();
        let facts = store.tag_facts(&r, None, 10).await.unwrap().entries;
        let [fixed, moved, seen] = facts.as_slice() else { panic!("{facts:?}") };
        let pulled = vec![(r.clone(), seen.digest, true), (name("nowhere"), seen.digest, true)];
        apply(store, Change::Used(pulled)).await.unwrap();
        let now = store.tag_facts(&r, Some(&tag("moved")), 10).await.unwrap().entries;
        assert!(now[0].pulled_at >= seen.pushed_at && seen.pulled_at == 0, "{now:?}");
        apply(store, put(b"two", &["moved"])).await.unwrap();
        let earlier = TagFacts { pushed_at: seen.pushed_at - 1, ..seen.clone() };
        for (facts, refusal) in [
            (moved, Some(Refusal::ManifestUnknown("moved".into()))),
            (&earlier, Some(Refusal::ManifestUnknown("seen".into()))),
            (fixed, Some(Refusal::TagImmutable(tag("fixed")))),
            (seen, None),
            (seen, Some(Refusal::ManifestUnknown("seen".into()))),
        ] {
            assert_eq!(apply(store, Change::Expire(r.clone(), facts.clone())).await.err(), refusal, "{facts:?}");
        }
        assert_eq!(store.tags(&r, None, 10).await.unwrap().unwrap().entries, ["fixed", "moved"]);
        apply(store, Change::Undelete(r.clone(), Reference::Tag(tag("seen")))).await.unwrap();
        assert_eq!(store.tags(&r, None, 10).await.unwrap().unwrap().entries, ["fixed", "moved", "seen"]);
    })
    .await;
}

/// Steps of a random history over a tiny world, where everything collides.
#[derive(Clone, Debug)]
enum Step {
    PutBlob(u8, u8),
    Mount(u8, u8, u8),
    PutManifest(u8, u8, Option<u8>, u8),
    DeleteTag(u8, u8),
    DeleteManifest(u8, u8),
    DeleteBlob(u8, u8),
    UndeleteTag(u8, u8),
    UndeleteManifest(u8, u8),
    Promise(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || 0..3_u8;
    let step = prop_oneof![
        (few(), few()).prop_map(|(r, b)| Step::PutBlob(r, b)),
        (few(), few(), few()).prop_map(|(b, f, t)| Step::Mount(b, f, t)),
        (few(), few(), prop_oneof![Just(None), few().prop_map(Some)], few())
            .prop_map(|(r, c, s, t)| Step::PutManifest(r, c, s, t)),
        (few(), few()).prop_map(|(r, t)| Step::DeleteTag(r, t)),
        (few(), few()).prop_map(|(r, c)| Step::DeleteManifest(r, c)),
        (few(), few()).prop_map(|(r, b)| Step::DeleteBlob(r, b)),
        (few(), few()).prop_map(|(r, t)| Step::UndeleteTag(r, t)),
        (few(), few()).prop_map(|(r, c)| Step::UndeleteManifest(r, c)),
        (few(), few()).prop_map(|(r, b)| Step::Promise(r, b)),
    ];
    (any::<u8>(), proptest::collection::vec(step, 1..40)).prop_map(|(_, steps)| steps)
}

fn change(step: &Step) -> Change {
    let repository = |n: &u8| name(&format!("r/{n}"));
    let config = |n: &u8| vec![b'c', *n];
    match step {
        Step::PutBlob(r, b) => Change::PutBlob(repository(r), inline(&config(b))),
        Step::Mount(b, from, to) => {
            Change::Mount { digest: digest(&config(b)), from: repository(from), to: repository(to) }
        }
        Step::PutManifest(r, c, subject, t) => {
            let subject = subject.map(|n| digest(&[n]));
            Change::PutManifest(repository(r), image(&config(c), subject.as_ref(), &[&format!("t{t}")]))
        }
        Step::DeleteTag(r, t) => Change::DeleteTag(repository(r), tag(&format!("t{t}"))),
        Step::DeleteManifest(r, c) => Change::DeleteManifest(repository(r), image(&config(c), None, &[]).blob.digest),
        Step::DeleteBlob(r, b) => Change::DeleteBlob(repository(r), digest(&config(b))),
        Step::UndeleteTag(r, t) => Change::Undelete(repository(r), Reference::Tag(tag(&format!("t{t}")))),
        Step::UndeleteManifest(r, c) => {
            Change::Undelete(repository(r), Reference::Digest(image(&config(c), None, &[]).blob.digest))
        }
        Step::Promise(r, b) => Change::Promise(repository(r), digest(&config(b))),
    }
}

/// A tag that stays as it is in one repository, and quotas that are soon full.
fn rules() -> Rules {
    let quota = |prefix: &str, limit| Quota { prefix: name(prefix), limit };
    let immutable =
        TagRule { repositories: "r/1".parse().unwrap(), tags: Some(regex_lite::Regex::new("^t1$").unwrap()) };
    Rules { immutable: vec![immutable], quotas: vec![quota("r", 900), quota("r/2", 5)], gc: Policy::default() }
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

/// Everything that can be seen from outside.
async fn view(store: &dyn Metadata) -> String {
    let mut seen = format!("{:?}\n", store.repositories(None, 100).await.unwrap());
    seen += &format!("{:?}\n", store.usage().await.unwrap());
    for r in 0..3 {
        let repository = name(&format!("r/{r}"));
        seen += &format!("{r} tags {:?}\n", store.tags(&repository, None, 100).await.unwrap());
        for n in 0..3_u8 {
            let mut blob = store.blob(&repository, &digest(&[b'c', n])).await.unwrap();
            let mut named = store.manifest(&repository, &Reference::Tag(tag(&format!("t{n}")))).await.unwrap();
            // Times differ by the moment that passes between the two stores.
            blob.iter_mut().for_each(|blob| blob.used_at = 0);
            named.iter_mut().for_each(|named| named.blob.used_at = 0);
            let referrers = store.referrers(&repository, &digest(&[n]), None, None, 100, 300).await.unwrap();
            seen += &format!("{r}/{n} {blob:?} {named:?} {referrers:?}\n");
        }
        for event in store.history(&repository, None, 1000).await.unwrap() {
            seen += &format!("{r} {:?} {} {}\n", event.action, event.tag, event.digest);
        }
        let facts = store.tag_facts(&repository, None, 100).await.unwrap();
        seen += &format!("{r} {:?}\n", facts.entries.iter().map(|tag| (&tag.tag, tag.digest)).collect::<Vec<_>>());
    }
    seen
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 48, ..Default::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let model = MemoryMetadata::default();
            let path = dir.path().join("meta");
            let mut store = SqliteMetadata::open(&path, Poison::default()).unwrap();
            model.govern(rules()).await.unwrap();
            store.govern(rules()).await.unwrap();
            for (index, step) in steps.iter().enumerate() {
                let version = store.version(&name("r/0"));
                let before = view(&store).await;
                let (want, seen) = (apply(&model, change(step)).await, apply(&store, change(step)).await);
                assert_eq!(want, seen, "{step:?}");
                let after = view(&store).await;
                assert_eq!(view(&model).await, after, "after {step:?}");
                if matches!(change(step).repository(), Some(n) if n.as_str() == "r/0") && before != after {
                    assert_ne!(version, store.version(&name("r/0")), "after {step:?}");
                }
                if index % 8 == 7 {
                    // Nothing that was used this day is collected.
                    store.review_all().await.unwrap();
                    while store.review(now(), Policy::default(), 10).await.unwrap().reviews > 0 {}
                    store.retire(now(), Policy::default(), 10).await.unwrap();
                    assert_eq!(view(&store).await, after, "collected after {step:?}");
                }
                if index % 16 == 15 {
                    drop(store);
                    store = SqliteMetadata::open(&path, Poison::default()).unwrap();
                    store.govern(rules()).await.unwrap();
                }
            }
        });
    }
}

/// A directory that can be told from others by its number.
fn directory(number: u64) -> Directory {
    let edits: Vec<Edit> = (0..=number)
        .map(|n| Edit::AddAccount {
            name: format!("u{n}").parse().unwrap(),
            kind: Kind::User,
            description: "x".repeat(200),
        })
        .collect();
    Directory::new(format!("issuer {number}")).edited(&edits, 100).unwrap()
}

async fn on_each_directories<F: AsyncFn(Arc<dyn Directories>)>(suite: F) {
    suite(Arc::new(MemoryMetadata::default())).await;
    let dir = tempfile::tempdir().unwrap();
    suite(Arc::new(SqliteMetadata::open(&dir.path().join("meta"), Poison::default()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_replaced_only_by_who_knows_the_newest() {
    on_each_directories(async |store| {
        let changed =
            |saved: Result<u64, StoreError>| matches!(saved, Err(StoreError::Refused(Refusal::DirectoryChanged)));
        assert_eq!(store.load().await.unwrap(), None);
        for early in [1, 2, u64::from(u32::MAX)] {
            assert!(changed(store.save(early, directory(9)).await), "{early} was never there");
        }
        assert_eq!(store.load().await.unwrap(), None);
        let mut version = 0;
        for number in 0..4 {
            let next = store.save(version, directory(number)).await.unwrap();
            assert!(next > version);
            for stale in [0, version, next + 1] {
                assert!(changed(store.save(stale, directory(9)).await), "{stale} at {next}");
            }
            assert_eq!(store.load().await.unwrap(), Some((next, directory(number))));
            version = next;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_saves_at_the_same_time_one_wins() {
    on_each_directories(async |store| {
        let mut version = 0;
        for _round in 0..10 {
            let saves = (0..8).map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { (number, store.save(version, directory(number)).await) })
            });
            let mut won = Vec::new();
            for save in saves.collect::<Vec<_>>() {
                match save.await.unwrap() {
                    (number, Ok(next)) => won.push((next, directory(number))),
                    (_, Err(StoreError::Refused(Refusal::DirectoryChanged))) => {}
                    (_, Err(error)) => panic!("{error}"),
                }
            }
            assert_eq!(won.len(), 1, "{won:?}");
            assert_eq!(store.load().await.unwrap().as_ref(), won.first());
            version = won[0].0;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let mut version = 0;
    for number in 0..3 {
        let store = SqliteMetadata::open(&path, Poison::default()).unwrap();
        let before = (number > 0).then(|| (version, directory(number - 1)));
        assert_eq!(store.load().await.unwrap(), before);
        version = store.save(version, directory(number)).await.unwrap();
    }
}

/// What a copy has in it that ends anywhere in the log: some version, whole, and the newest if it is
/// a copy of everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_files_holds_a_whole_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("meta"), dir.path().join("copy"));
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let store = SqliteMetadata::open(&path, Poison::default()).unwrap();
    let saves = 12;
    for number in 0..saves {
        assert_eq!(store.save(number, directory(number)).await.unwrap(), number + 1);
        let length = std::fs::metadata(log(&path)).unwrap().len();
        let mut cuts: Vec<u64> = (0..4).map(|part| length * part / 4 + 7 * number).collect();
        cuts.push(length);
        let mut last = 0;
        for cut in cuts {
            std::fs::copy(&path, &copy).unwrap();
            std::fs::copy(log(&path), log(&copy)).unwrap();
            std::fs::File::options().write(true).open(log(&copy)).unwrap().set_len(cut.min(length)).unwrap();
            let copied = SqliteMetadata::open(&copy, Poison::default()).unwrap();
            let version = match copied.load().await.unwrap() {
                None => 0,
                Some((version, found)) => {
                    assert_eq!(found, directory(version - 1));
                    version
                }
            };
            assert!(version >= last, "a longer log holds {version} after {last}");
            last = version;
        }
        assert_eq!(last, number + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_read_is_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let check = async |set: &str, expected: &str| {
        let store = SqliteMetadata::open(&path, Poison::default()).unwrap();
        if store.load().await.is_ok_and(|found| found.is_none()) {
            store.save(0, directory(0)).await.unwrap();
        }
        let db = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(db.execute(&format!("UPDATE directory SET document = {set}"), []).unwrap(), 1);
        let error = store.load().await.unwrap_err();
        assert_eq!(error.to_string(), "read the accounts and rules");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(expected), "{set}: {cause}");
        let first = store.save(0, directory(1)).await;
        assert!(matches!(first, Err(StoreError::Refused(Refusal::DirectoryChanged))), "{set}: {first:?}");
    };
    check("''", "damaged").await;
    check("'{}'", "damaged").await;
    check("cast(x'7bff7d' as text)", "damaged").await;
    check("'{\"format\":7}'", "run the newer server").await;
}

async fn on_each_blobs<F: AsyncFn(&dyn Blobs)>(suite: F) {
    suite(&MemoryBlobs::default()).await;
    let dir = tempfile::tempdir().unwrap();
    suite(&FsBlobs::new(DataDir::open(dir.path()).unwrap(), Poison::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_bytes_are_committed_or_thrown_away() {
    on_each_blobs(async |blobs| {
        let owner = name("a");
        for size in [0, 1, 4096, INLINE_MAX + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = digest_of(algorithm, &bytes);
                let mut staging =
                    blobs.stage(&owner, &format!("u-{size}-{algorithm:?}"), Algorithm::Sha256).await.unwrap();
                for part in bytes.chunks(100_000) {
                    staging.append(Bytes::copy_from_slice(part)).await.unwrap();
                }
                assert_eq!(staging.flush().await.unwrap(), size as u64);
                let stored = Commit::Stored { place: Place::Canonical, size: size as u64 };
                assert_eq!(staging.commit(digest, Place::Canonical).await.unwrap(), stored);
                let reader = blobs.open(&digest, &Place::Canonical).await.unwrap().unwrap();
                assert_eq!(reader.size(), size as u64);
                assert_eq!(reader.read(0, size).unwrap(), bytes);
                if size > 10 {
                    assert_eq!(reader.read(5, 3).unwrap(), bytes[5..8]);
                }
                assert!(reader.read(size as u64, 1).is_err());
                blobs.remove(&digest, &Place::Canonical).await.unwrap();
                blobs.remove(&digest, &Place::Canonical).await.unwrap();
                assert!(blobs.open(&digest, &Place::Canonical).await.unwrap().is_none());
            }
        }
        let mut staging = blobs.stage(&owner, "wrong", Algorithm::Sha256).await.unwrap();
        staging.append(Bytes::from_static(b"abc")).await.unwrap();
        let mismatch = Commit::Mismatch { actual: digest(b"abc") };
        assert_eq!(staging.commit(digest(b"abd"), Place::Canonical).await.unwrap(), mismatch);
        assert!(blobs.open(&digest(b"abc"), &Place::Canonical).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FsBlobs::new(DataDir::open(dir.path()).unwrap(), Poison::default());
    {
        let blobs = open();
        let mut staging = blobs.stage(&name("a"), "id", Algorithm::Sha256).await.unwrap();
        staging.append(Bytes::from_static(b"first ")).await.unwrap();
        staging.flush().await.unwrap();
    }
    let blobs = open();
    assert!(blobs.resume(&name("b"), "id", Algorithm::Sha256).await.unwrap().is_none(), "another repository's");
    let (mut staging, size) = blobs.resume(&name("a"), "id", Algorithm::Sha256).await.unwrap().unwrap();
    assert_eq!(size, 6);
    staging.append(Bytes::from_static(b"second")).await.unwrap();
    let whole = digest(b"first second");
    assert!(matches!(staging.commit(whole, Place::Canonical).await.unwrap(), Commit::Stored { size: 12, .. }));
    let mut abandoned = blobs.stage(&name("a"), "old", Algorithm::Sha256).await.unwrap();
    abandoned.append(Bytes::from_static(b"x")).await.unwrap();
    abandoned.flush().await.unwrap();
    assert_eq!(blobs.purge_uploads(Duration::from_secs(3600), false).await.unwrap().len(), 0);
    assert_eq!(blobs.purge_uploads(Duration::ZERO, true).await.unwrap().len(), 1);
    assert_eq!(blobs.purge_uploads(Duration::ZERO, false).await.unwrap().len(), 1);
    assert_eq!(blobs.purge_uploads(Duration::ZERO, false).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_objects_move_to_distributions_files() {
    let root = tempfile::tempdir().unwrap();
    let dir = DataDir::open(root.path()).unwrap();
    let metadata = Arc::new(SqliteMetadata::open_in(&dir, Poison::default()).unwrap());
    let blobs = FsBlobs::new(dir, Poison::default());
    let a = name("a");
    for n in 0..100_u8 {
        metadata.apply(Change::PutBlob(a.clone(), inline(&[n; 10])), Vec::new()).await.unwrap();
    }
    assert_eq!(settle(&metadata, &blobs, &Claims::default(), 3600, 64).await.unwrap(), 0, "too young");
    assert_eq!(settle(&metadata, &blobs, &Claims::default(), 0, 64).await.unwrap(), 64);
    assert_eq!(settle(&metadata, &blobs, &Claims::default(), 0, 64).await.unwrap(), 36);
    assert_eq!(settle(&metadata, &blobs, &Claims::default(), 0, 64).await.unwrap(), 0);
    for n in 0..100_u8 {
        let digest = digest(&[n; 10]);
        let entry = metadata.blob(&a, &digest).await.unwrap().unwrap();
        assert_eq!(entry.content, Content::Stored(Place::Canonical));
        let hex = digest.hex();
        let file = root.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
        assert_eq!(std::fs::read(file).unwrap(), [n; 10]);
    }
    assert_eq!(std::fs::read_dir(root.path().join("roadstead/uploads")).unwrap().count(), 0);
}

#[test]
fn a_data_directory_has_one_server() {
    let root = tempfile::tempdir().unwrap();
    let first = DataDir::open(root.path()).unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DataDirError::Locked(_))));
    drop(first);
    DataDir::open(root.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_may_read_the_metadata() {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };
    let root = tempfile::tempdir().unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    let files = ["roadstead/meta.sqlite3", "roadstead/meta.sqlite3-wal", "roadstead/meta.sqlite3-shm"];
    let check_files = |when: &str| {
        for file in files {
            assert_eq!(mode(file), 0o600, "{file} {when}");
        }
    };
    let dir = DataDir::open(root.path()).unwrap();
    assert_eq!(mode("roadstead"), 0o700);
    let store = SqliteMetadata::open_in(&dir, Poison::default()).unwrap();
    apply(&store, Change::PutBlob(name("a"), inline(b"x"))).await.unwrap();
    check_files("when made");
    // As an older server would have left them when it was killed.
    let killed = tempfile::tempdir().unwrap();
    for file in files {
        let copy = killed.path().join(file.rsplit('/').next().unwrap());
        fs::copy(root.path().join(file), &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
    }
    drop(store);
    for file in files {
        fs::rename(killed.path().join(file.rsplit('/').next().unwrap()), root.path().join(file)).unwrap();
        assert_eq!(mode(file), 0o644);
    }
    let store = SqliteMetadata::open_in(&dir, Poison::default()).unwrap();
    check_files("when opened");
    assert!(store.blob(&name("a"), &digest(b"x")).await.unwrap().is_some());
    // Through a link, as some mount their database from elsewhere.
    drop(store);
    let (path, elsewhere) = (dir.metadata(), root.path().join("elsewhere"));
    fs::rename(&path, &elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o660)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let store = SqliteMetadata::open_in(&dir, Poison::default()).unwrap();
    assert_eq!(mode("elsewhere"), 0o600);
    assert!(store.blob(&name("a"), &digest(b"x")).await.unwrap().is_some());
}
