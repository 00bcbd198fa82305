//! The server is killed in the middle of pushes, again and again; what it acknowledged must stay.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{Client, PushError};
use testkit::engine::{Docker, Engine, pushed_digest};
use testkit::image::{Image, OCI_CONFIG, OCI_MANIFEST, descriptor, host_architecture, sha256};
use testkit::random::{Random, seed};

use crate::plain_registry;

const KILLS: u64 = 12;
const WRITERS: u64 = 4;

/// What the server was asked to keep and what it acknowledged.
#[derive(Debug, Default)]
struct Ledger {
    /// Path of a blob or manifest (`/v2/<name>/blobs/<digest>`) to whether it was acknowledged.
    contents: BTreeMap<String, bool>,
    /// Path of a tag to the digests it may have: acknowledged first, then the one in flight.
    tags: BTreeMap<String, Tag>,
}

#[derive(Debug, Default)]
struct Tag {
    acknowledged: Option<String>,
    in_flight: Option<String>,
}

/// Notes `path` as tried, runs `push`, and notes it as acknowledged when that succeeds.
fn record<T>(ledger: &Mutex<Ledger>, path: &str, push: impl FnOnce() -> Result<T, PushError>) -> Result<T, PushError> {
    ledger.lock().expect("no writer panics").contents.entry(path.to_owned()).or_insert(false);
    let pushed = push()?;
    ledger.lock().expect("no writer panics").contents.insert(path.to_owned(), true);
    Ok(pushed)
}

/// Pushes images until the server goes away.
fn write_until_killed(client: &Client, ledger: &Mutex<Ledger>, writer: u64, round: u64, seed: u64) {
    let mut random = Random::new(seed ^ (round << 32) ^ (writer << 16));
    loop {
        match write_image(client, ledger, &mut random, writer, seed ^ round) {
            Ok(()) => {}
            Err(PushError::Lost(_)) => return,
            Err(PushError::Refused(response)) => {
                panic!("a push was refused with {}: {}", response.status, response.text());
            }
        }
    }
}

fn write_image(
    client: &Client,
    ledger: &Mutex<Ledger>,
    random: &mut Random,
    writer: u64,
    shared_seed: u64,
) -> Result<(), PushError> {
    // Some repositories and layers are everybody's, so that writers race for the same digest.
    let shared = random.below(3) == 0;
    let repo = if shared { "crash/all".to_owned() } else { format!("crash/w{writer}") };
    let size = [1_000, 60_000, 700_000][random.below(3) as usize];
    let layer = match shared {
        true => Random::new(shared_seed ^ random.below(4)).bytes(size),
        false => random.bytes(size),
    };
    let config = json!({"architecture": "amd64", "os": "linux", "id": random.next_u64()});
    let config = config.to_string().into_bytes();
    for blob in [&layer, &config] {
        let part = 1 + random.below(size as u64) as usize;
        let whole = random.below(2) == 0;
        record(ledger, &format!("/v2/{repo}/blobs/{}", sha256(blob)), || match whole {
            true => client.push_blob(&repo, blob),
            false => client.push_parts(&repo, blob, part.max(size / 5)),
        })?;
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let digest = sha256(&manifest);
    let tag = format!("w{writer}-{}", random.below(3));
    let path = format!("/v2/{repo}/manifests/{tag}");
    let edit = |change: &dyn Fn(&mut Tag)| {
        change(ledger.lock().expect("no writer panics").tags.entry(path.clone()).or_default());
    };
    edit(&|tag| tag.in_flight = Some(digest.clone()));
    record(ledger, &format!("/v2/{repo}/manifests/{digest}"), || client.push_manifest(&repo, &tag, &manifest))?;
    edit(&|tag| *tag = Tag { acknowledged: Some(digest.clone()), in_flight: None });
    Ok(())
}

/// Checks everything in `ledger` against the server and settles what was in flight.
#[track_caller]
fn check_kept(client: &Client, ledger: &mut Ledger) {
    let get = |path: &str| client.get(path).unwrap_or_else(|error| panic!("get {path}: {error}"));
    for (path, acknowledged) in &ledger.contents {
        let digest = path.rsplit('/').next().expect("the path ends in a digest");
        let head = client.head(path).unwrap_or_else(|error| panic!("head {path}: {error}"));
        let body = get(path);
        assert_eq!(head.status, body.status, "HEAD and GET disagree about {path}");
        assert!([200, 404].contains(&body.status), "{path}: {} {}", body.status, body.text());
        assert!(body.status == 200 || !acknowledged, "acknowledged but lost: {path}");
        if body.status == 404 {
            continue;
        }
        assert_eq!(sha256(&body.body), digest, "visible with wrong content: {path}");
        if let Some((repo, _)) = path.split_once("/manifests/") {
            let manifest = body.json();
            let layers = manifest["layers"].as_array().expect("an image manifest has layers");
            for blob in layers.iter().chain([&manifest["config"]]) {
                let digest = blob["digest"].as_str().expect("a descriptor has a digest");
                let part = client.head(&format!("{repo}/blobs/{digest}")).expect("an answer");
                assert_eq!(part.status, 200, "{path} is visible without its part {digest}");
            }
        }
    }
    for (path, tag) in &mut ledger.tags {
        let got = get(path);
        let seen = (got.status == 200).then(|| sha256(&got.body));
        let allowed = seen == tag.acknowledged || (seen.is_some() && seen == tag.in_flight);
        assert!(allowed, "{path} is {seen:?} ({}), but should be {tag:?}", got.status);
        let (repo, name) = path.split_once("/manifests/").expect("a path of a tag");
        let list = get(&format!("{repo}/tags/list"));
        let listed = list.json()["tags"].as_array().is_some_and(|tags| tags.contains(&Value::from(name)));
        assert_eq!(listed, seen.is_some(), "{path} in the list: {}", list.text());
        *tag = Tag { acknowledged: seen, in_flight: None };
    }
}

/// Pushes `reference` until it succeeds or `killed` is set; records it when acknowledged.
fn docker_push(docker: &Docker, reference: &str, ledger: &Mutex<Ledger>, killed: &AtomicBool) {
    let outcome = docker.try_run_until(&["push", reference], || killed.load(Ordering::Relaxed));
    if outcome.success {
        let (_, name) = reference.split_once('/').expect("host/name:tag");
        let (repo, tag) = name.rsplit_once(':').expect("name:tag");
        let digest = pushed_digest(&outcome);
        let mut ledger = ledger.lock().expect("no writer panics");
        ledger.contents.insert(format!("/v2/{repo}/manifests/{digest}"), true);
        let tag = ledger.tags.entry(format!("/v2/{repo}/manifests/{tag}")).or_default();
        *tag = Tag { acknowledged: Some(digest), in_flight: None };
    }
}

#[test]
fn docker_and_others_find_all_that_was_acknowledged_before_a_kill() {
    let engine = Engine::start();
    let docker = engine.client();
    let mut server = plain_registry();
    let seed = seed();
    let mut random = Random::new(seed);
    let images: Vec<_> = (0..KILLS)
        .map(|round| {
            let reference = format!("{}/crash/docker:{round}", server.host_port());
            let (image, first) = Image::empty(host_architecture()).with_random(&mut random, 1_500_000);
            let (image, _) = image.with_random(&mut random, 2_500_000);
            docker.load(&image, &reference);
            (reference, first)
        })
        .collect();

    let client = server.client();
    let mut total = Ledger::default();
    for (round, (reference, _)) in (0..).zip(&images) {
        // Tags live on through the rounds; contents are checked when new, and all at the end.
        let tags = std::mem::take(&mut total.tags);
        let ledger = Mutex::new(Ledger { contents: BTreeMap::new(), tags });
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (client, ledger) = (&client, &ledger);
                scope.spawn(move || write_until_killed(client, ledger, writer, round, seed));
            }
            scope.spawn(|| docker_push(&docker, reference, &ledger, &killed));
            thread::sleep(Duration::from_millis(50 + random.below(700)));
            server.kill9();
            killed.store(true, Ordering::Relaxed);
        });
        server.start_again();
        let mut ledger = ledger.into_inner().expect("no writer panics");
        check_kept(&client, &mut ledger);
        total.tags = ledger.tags;
        total.contents.extend(ledger.contents);
    }
    let acknowledged = total.contents.values().filter(|acknowledged| **acknowledged).count();
    eprintln!("{acknowledged} of {} contents were acknowledged", total.contents.len());
    let few = usize::try_from(KILLS).expect("a small number") * 2;
    assert!(acknowledged > few, "the writers hardly wrote anything");

    for (reference, _) in &images {
        docker_push(&docker, reference, &Mutex::default(), &AtomicBool::new(false));
    }
    server.restart();
    check_kept(&client, &mut total);
    docker.forget_images();
    for (reference, file) in &images {
        docker.pull(reference);
        assert_eq!(&sha256(&docker.file_of(reference, "/random/0")), file, "{reference}");
    }
}
