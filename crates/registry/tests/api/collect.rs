//! Collection, by `garbage-collect`, by `gc` and by itself: only what nothing refers to goes, and its
//! bytes really do.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use testkit::{
    command::{Outcome, run, tool},
    http::send,
    image::{sha256, sha512},
    process::wait_until,
    server::{Server, Setup},
};

use crate::{
    DEBUG, OCI_INDEX, OCI_MANIFEST, PLAIN, REGISTRY, check, content, descriptor, get_manifest, image, plain_registry,
    push, put,
};

fn collect(server: &Server, args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.arg("garbage-collect").args(args).arg(server.config());
    run(command)
}

/// Where a large blob's bytes are.
fn file(server: &Server, digest: &str) -> PathBuf {
    let (algorithm, hex) = digest.split_once(':').expect("a digest");
    server.data().join(format!("docker/registry/v2/blobs/{algorithm}/{}/{hex}/data", &hex[..2]))
}

#[test]
fn only_what_nothing_refers_to_goes() {
    let mut server = plain_registry();
    let client = server.client();
    let large = |seed: u64| content(seed, 200_000);
    let config = push(&client, "r", sha256, b"{}");
    let tagged = push(&client, "r", sha256, &large(1));
    let indexed = push(&client, "r", sha512, &large(2));
    let untagged = push(&client, "r", sha256, &large(3));
    let orphan = push(&client, "r", sha256, &large(4));
    let small_orphan = push(&client, "r", sha512, b"small orphan");
    let deleted = push(&client, "r", sha256, &large(5));
    let referrer = push(&client, "r", sha256, &large(6));
    let shared = push(&client, "r", sha256, &large(7));
    check(&client, &format!("POST /v2/other/blobs/uploads/?mount={shared}&from=r"), b"", "201");
    let manifest = |layer: &str| image(&[(&config, 2), (layer, 200_000)]);
    let put_manifest = |repo: &str, reference: &str, text: &str| {
        put(&client, repo, reference, OCI_MANIFEST, text.as_bytes(), "201");
        sha256(text.as_bytes())
    };
    let by_digest = |text: &str| put_manifest("r", &sha256(text.as_bytes()), text);
    let tagged_manifest = put_manifest("r", "tagged", &manifest(&tagged));
    let child = by_digest(&manifest(&indexed));
    let entry = descriptor(OCI_MANIFEST, &child, manifest(&indexed).len(), "");
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entry}]}}"#);
    put(&client, "r", "index", OCI_INDEX, index.as_bytes(), "201");
    let loose = by_digest(&manifest(&untagged));
    let about = descriptor(OCI_MANIFEST, &tagged_manifest, 1, "");
    let signature = by_digest(&manifest(&referrer).replacen('{', &format!("{{\"subject\":{about},"), 1));
    let gone = put_manifest("r", "deleted", &manifest(&deleted));
    check(&client, &format!("DELETE /v2/r/manifests/{gone}"), b"", "202");
    push(&client, "other", sha256, b"{}");
    let other = put_manifest("other", "t", &manifest(&shared));

    let eligible = |dry: Outcome| {
        for digest in [&orphan, &small_orphan, &deleted, &gone] {
            assert!(dry.stdout.contains(&format!("blob eligible for deletion: {digest}")), "{digest}: {dry}");
        }
        assert!(!dry.stdout.contains(&format!("blob eligible for deletion: {tagged}")), "{dry}");
    };
    eligible(collect(&server, &["--dry-run"]).ok());
    server.stop();
    let files = |server: &Server| {
        [&tagged, &indexed, &untagged, &orphan, &deleted, &referrer, &shared]
            .map(|digest| file(server, digest).exists())
    };
    eligible(collect(&server, &["--dry-run"]).ok());
    assert_eq!(files(&server), [true; 7]);
    assert_eq!(collect(&server, &["--dry-run", "--quiet", "-m"]).ok().stdout, "");
    assert_eq!(files(&server), [true; 7]);
    collect(&server, &[]).ok();
    assert_eq!(files(&server), [true, true, true, false, false, true, true]);
    server.start_again();
    let get = |repo: &str, target: &str, expected: &str| {
        check(&client, &format!("GET /v2/{repo}/blobs/{target}"), b"", expected);
    };
    for digest in [&tagged, &indexed, &untagged, &referrer, &config] {
        get("r", digest, "200");
    }
    for digest in [&orphan, &small_orphan, &deleted] {
        get("r", digest, "404 BLOB_UNKNOWN");
    }
    get("other", &shared, "200");
    check(&client, &get_manifest("r", &loose), b"", "200");

    server.stop();
    let got = collect(&server, &["-m"]).ok();
    assert!(got.stdout.contains(&format!("r: manifest eligible for deletion: {loose}")), "{got}");
    assert_eq!(files(&server), [true, true, false, false, false, true, true]);
    assert!(collect(&server, &["-m"]).ok().stdout.contains("0 blobs and 0 manifests eligible"));
    server.start_again();
    for reference in ["tagged", "index", &child, &signature] {
        check(&client, &get_manifest("r", reference), b"", "200");
    }
    check(&client, &get_manifest("r", &loose), b"", "404 MANIFEST_UNKNOWN");
    check(&client, &get_manifest("other", &other), b"", "200");
    get("r", &untagged, "404 BLOB_UNKNOWN");
    // What is gone can be pushed again.
    for seed in [3, 4, 5] {
        let again = push(&client, "r", sha256, &large(seed));
        let got = check(&client, &format!("GET /v2/r/blobs/{again}"), b"", "200");
        assert!(got.body == large(seed));
    }
    check(&client, &format!("GET /v2/r/referrers/{tagged_manifest}"), b"", "200");
}

#[test]
fn files_that_nothing_names_go() {
    for foreign in [false, true] {
        let mut server = plain_registry();
        let client = server.client();
        let config = push(&client, "r", sha256, b"{}");
        let layer = push(&client, "r", sha256, &content(1, 200_000));
        let text = image(&[(&config, 2), (&layer, 200_000)]);
        put(&client, "r", "t", OCI_MANIFEST, text.as_bytes(), "201");
        server.stop();
        let orphan = sha256(b"orphan");
        let path = file(&server, &orphan);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make its folder");
        std::fs::write(&path, "orphan").expect("write an orphan");
        if foreign {
            let links = server.data().join("docker/registry/v2/repositories/other/_layers");
            std::fs::create_dir_all(links).expect("make another server's links");
        }
        collect(&server, &["--dry-run"]).ok();
        assert!(path.exists(), "a dry run removes nothing");
        collect(&server, &[]).ok();
        assert_eq!(path.exists(), foreign, "with another server's links: {foreign}");
        server.start_again();
        check(&client, &get_manifest("r", "t"), b"", "200");
        let got = check(&client, &format!("GET /v2/r/blobs/{layer}"), b"", "200");
        assert!(got.body == content(1, 200_000));
    }
}

/// A registry that collects each second and keeps nothing for longer.
fn hasty() -> Server {
    let keys = [("INTERVAL", "1s"), ("GRACE", "1s"), ("LEASE", "1s"), ("QUARANTINE", "1s"), ("ORPHANS", "1s")];
    let setup = Setup::new(REGISTRY, &format!("{PLAIN}{DEBUG}"));
    let setup =
        keys.iter().fold(setup, |setup, (key, value)| setup.env(&format!("REGISTRY_ROADSTEAD_GC_{key}"), value));
    setup.start()
}

fn gc(server: &Server, args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.arg("gc").args(args).arg("--data").arg(server.data());
    run(command)
}

fn status(server: &Server) -> Value {
    serde_json::from_str(&gc(server, &["status", "--format", "json"]).ok().stdout).expect("the status in JSON")
}

#[track_caller]
fn wait_for(what: &str, happened: impl FnMut() -> bool) {
    assert!(wait_until(Duration::from_secs(60), happened), "{what} does not happen");
}

#[test]
fn a_server_collects_by_itself() {
    let mut server = hasty();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let kept = push(&client, "r", sha256, &content(1, 200_000));
    let text = image(&[(&config, 2), (&kept, 200_000)]);
    put(&client, "r", "kept", OCI_MANIFEST, text.as_bytes(), "201");
    let gone = push(&client, "r", sha256, &content(2, 200_000));
    let shared = push(&client, "r", sha256, &content(3, 200_000));
    let other = image(&[(&config, 2), (&gone, 200_000), (&shared, 200_000)]);
    put(&client, "r", "gone", OCI_MANIFEST, other.as_bytes(), "201");
    check(&client, &format!("POST /v2/other/blobs/uploads/?mount={shared}&from=r"), b"", "201");
    push(&client, "other", sha256, b"{}");
    put(&client, "other", "t", OCI_MANIFEST, image(&[(&config, 2), (&shared, 200_000)]).as_bytes(), "201");
    let loose = push(&client, "r", sha256, &content(4, 200_000));
    check(&client, &format!("DELETE /v2/r/manifests/{}", sha256(other.as_bytes())), b"", "202");

    gc(&server, &["pause"]).ok();
    server.restart();
    let paused = status(&server);
    assert_eq!(paused["state"], "stopped", "{paused}");
    assert!(paused["why"].as_str().is_some_and(|why| why.contains("gc resume")), "{paused}");
    gc(&server, &["run"]).refused(&["the collection rests: it is paused", "gc resume"]);
    collect(&server, &[]).refused(&["the collection rests"]);
    assert!(file(&server, &gone).exists() && file(&server, &loose).exists(), "it rests");
    gc(&server, &["resume"]).ok();
    wait_for("the collection", || !file(&server, &gone).exists() && !file(&server, &loose).exists());
    let get = |repo: &str, digest: &str, expected: &str| {
        check(&client, &format!("GET /v2/{repo}/blobs/{digest}"), b"", expected);
    };
    for digest in [&kept, &config] {
        get("r", digest, "200");
    }
    get("other", &shared, "200");
    for digest in [&gone, &loose] {
        get("r", digest, "404 BLOB_UNKNOWN");
    }
    wait_for("the end of the round", || status(&server)["state"] == "idle");
    let seen = status(&server);
    assert_eq!(seen["error"], Value::Null, "{seen}");
    assert_eq!(seen["since_start"]["manifests"], 1, "{seen}");
    assert!(seen["since_start"]["files"].as_u64() >= Some(2) && seen["since_start"]["bytes"].as_u64() >= Some(400_000));
    wait_for("the next round is told", || {
        let shown = gc(&server, &["status"]).ok().stdout;
        shown.contains("collection    idle, next round at ") && shown.contains("1 manifests")
    });
    let page = send("GET", &format!("{}/metrics", server.debug_url()), &[], b"").expect("the metrics").text();
    for series in ["reviews_total", "manifests_total 1", "purged_files_total", "purged_bytes_total", "due_reviews 0"] {
        assert!(page.contains(&format!("\nregistry_gc_{series}")), "{series} is not in\n{page}");
    }
    // The same bytes come again, and stay.
    for (seed, digest) in [(2, &gone), (4, &loose)] {
        assert_eq!(&push(&client, "r", sha256, &content(seed, 200_000)), digest);
    }
    put(
        &client,
        "r",
        "again",
        OCI_MANIFEST,
        image(&[(&config, 2), (&gone, 200_000), (&loose, 200_000)]).as_bytes(),
        "201",
    );
    let rounds = status(&server)["round"].as_u64();
    wait_for("some rounds", || status(&server)["round"].as_u64() > rounds.map(|rounds| rounds + 3));
    for (seed, digest) in [(2, &gone), (4, &loose)] {
        let got = check(&client, &format!("GET /v2/r/blobs/{digest}"), b"", "200");
        assert!(got.body == content(seed, 200_000));
    }
}

#[test]
fn files_that_a_crash_left_go() {
    let mut server = hasty();
    let client = server.client();
    push(&client, "r", sha256, b"{}");
    let path = file(&server, &sha256(b"orphan"));
    let leave = || {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make its folder");
        std::fs::write(&path, "orphan").expect("write an orphan");
    };
    leave();
    server.restart();
    let rounds = |server: &Server| status(server)["round"].as_u64();
    wait_for("some rounds", || rounds(&server) > Some(3));
    assert!(path.exists(), "it ended in order: nothing is looked for");
    server.kill9();
    server.start_again();
    wait_for("the sweep", || !path.exists());
    assert!(server.log().contains("did not end in order"), "{}", server.log());
    leave();
    wait_for("some rounds", || rounds(&server) > Some(6));
    assert!(path.exists(), "once is enough");
}

#[test]
fn who_cannot_wait_collects_beside_the_server() {
    let mut server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let layer = push(&client, "r", sha256, &content(1, 200_000));
    let loose = push(&client, "r", sha256, &content(2, 200_000));
    let text = image(&[(&config, 2), (&layer, 200_000)]);
    put(&client, "r", "t", OCI_MANIFEST, text.as_bytes(), "201");
    check(&client, &format!("DELETE /v2/r/manifests/{}", sha256(text.as_bytes())), b"", "202");
    // All was pushed just now, and is promised to who pushed it.
    let seen = collect(&server, &[]).ok();
    assert!(seen.stdout.contains(&format!("blob eligible for deletion: {loose}")), "{seen}");
    assert!(seen.stdout.contains("3 objects stay, because clients were promised them"), "{seen}");
    assert_eq!(collect(&server, &["-q", "-m"]).ok().stdout, "");
    let round: Value =
        serde_json::from_str(&gc(&server, &["run", "--now", "--format", "json"]).ok().stdout).expect("a round in JSON");
    assert_eq!((&round["promised"], &round["error"]), (&Value::from(3), &Value::Null), "{round}");
    assert!(file(&server, &layer).exists() && file(&server, &loose).exists());
    server.stop();
    let seen = gc(&server, &["status"]).ok().stdout;
    assert!(seen.contains("collection    no server runs") && seen.contains("3 to be looked at"), "{seen}");
    let seen = gc(&server, &["run", "--now"]).ok().stdout;
    assert!(seen.contains("3 objects stay"), "promises of the last hour hold: {seen}");
    assert!(file(&server, &layer).exists() && file(&server, &loose).exists());
    collect(&server, &[]).ok();
    assert!(!file(&server, &layer).exists() && !file(&server, &loose).exists());
    let seen = gc(&server, &["status", "--format", "json"]).ok().stdout;
    assert!(seen.contains(r#""reviews":0,"due":0,"quarantined":0"#), "{seen}");
    server.start_again();
    check(&client, &format!("GET /v2/r/blobs/{layer}"), b"", "404 BLOB_UNKNOWN");
    let mut command = tool(REGISTRY);
    command.args(["gc", "status", "--data", "/nowhere"]);
    run(command).refused(&["/nowhere holds no data of this registry"]);
}

#[test]
fn a_file_that_cannot_be_removed_keeps_no_other_waiting() {
    let server = hasty();
    let client = server.client();
    let [stuck, free] = [1, 2].map(|seed| push(&client, "r", sha256, &content(seed, 200_000)));
    std::fs::remove_file(file(&server, &stuck)).expect("remove a file");
    std::fs::create_dir_all(file(&server, &stuck).join("x")).expect("put a folder in its place");
    wait_for("the other is removed", || !file(&server, &free).exists());
    wait_for("the failure is told", || status(&server)["error"]["text"].is_string());
    std::fs::remove_dir_all(file(&server, &stuck)).expect("remove the folder");
    wait_for("nothing waits", || status(&server)["waiting"]["files"] == 0);
}
