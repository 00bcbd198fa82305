//! Looking after the data: `check`, `backup`, `restore`, and the scrub, on real damage.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use testkit::{
    client::Client,
    command::{Outcome, run, tool},
    image::sha256,
    process::wait_until,
    receiver::Receiver,
    server::{Server, Setup},
};

use crate::{DEBUG, OCI_MANIFEST, PLAIN, REGISTRY, check, content, get_manifest, image, plain_registry, push, put};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command of the program.
fn registry(args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.args(args);
    run(command)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of tests is text")
}

/// Where a blob's bytes are.
fn file(data: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    data.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

/// Runs `check` and compares its exit code and the kinds of problems that it counts.
#[track_caller]
fn checked(data: &Path, more: &[&str], code: i32, want: &[(&str, u64)]) -> Value {
    let mut args = vec!["check", "--format", "json", "--data", text(data)];
    args.extend(more);
    let outcome = registry(&args);
    assert_eq!(outcome.code, Some(code), "{outcome}");
    let report: Value = serde_json::from_str(&outcome.stdout).expect("a report");
    for (kind, count) in report["counts"].as_object().expect("counts") {
        let wanted = want.iter().find(|(name, _)| name == kind).map_or(0, |(_, count)| *count);
        assert_eq!(count.as_u64(), Some(wanted), "{kind}: {outcome}");
    }
    assert_eq!(report["ok"], code == 0);
    report
}

/// Pushes an image of one large layer; returns the manifest's digest and the layer's.
fn push_large(client: &Client, repo: &str, tag: &str, seed: u64) -> (String, String) {
    let config = push(client, repo, sha256, &content(seed, 100));
    let layer = push(client, repo, sha256, &content(seed, 200_000));
    let manifest = image(&[(&config, 100), (&layer, 200_000)]);
    put(client, repo, tag, OCI_MANIFEST, manifest.as_bytes(), "201");
    (sha256(manifest.as_bytes()), layer)
}

#[test]
fn check_finds_what_is_wrong() {
    let mut server = plain_registry();
    let client = server.client();
    let (_, layer) = push_large(&client, "team/app", "1", 1);
    let (_, other) = push_large(&client, "team/app", "2", 2);
    let data = server.data().to_owned();
    let running = registry(&["check", "--data", text(&data)]);
    assert_eq!(running.code, Some(2), "{running}");
    running.refused(&["registry scrub"]);
    assert_eq!(registry(&["check", "--data", "/nowhere"]).code, Some(2));
    server.stop();
    let report = checked(&data, &["--read"], 0, &[]);
    assert_eq!((&report["blobs"], &report["manifests"], &report["tags"]), (&6.into(), &2.into(), &2.into()));

    let path = file(&data, &layer);
    let whole = fs::read(&path).expect("the layer's file");
    let mut flipped = whole.clone();
    flipped[100_000] ^= 4;
    fs::write(&path, &flipped).expect("damage it");
    checked(&data, &[], 0, &[]);
    let report = checked(&data, &["--read"], 1, &[("damaged", 1)]);
    assert_eq!(report["problems"][0]["subject"], layer);
    fs::write(&path, &whole[1..]).expect("shorten it");
    checked(&data, &[], 1, &[("damaged", 1)]);
    fs::remove_file(&path).expect("remove it");
    checked(&data, &[], 1, &[("missing", 1)]);
    fs::write(&path, &whole).expect("put it back");
    let orphan = file(&data, &sha256(b"orphan"));
    fs::create_dir_all(orphan.parent().expect("a folder")).expect("make a folder");
    fs::write(&orphan, "orphan").expect("write an orphan");
    fs::write(file(&data, &other).with_file_name("new.x.tmp"), "x").expect("write a leftover");
    checked(&data, &["--read"], 0, &[("orphan", 1), ("leftover", 1)]);

    // What a killed server left in its log is seen, and nothing is written to see it.
    server.start_again();
    push_large(&server.client(), "team/app", "3", 3);
    server.kill9();
    let own = data.join("roadstead");
    let listed = || -> Vec<(PathBuf, std::time::SystemTime)> {
        let mut all: Vec<_> = fs::read_dir(&own)
            .expect("a folder")
            .flatten()
            .map(|entry| (entry.path(), entry.metadata().and_then(|file| file.modified()).expect("a file")))
            .collect();
        all.sort();
        all
    };
    assert!(own.join("meta.sqlite3-wal").metadata().is_ok_and(|log| log.len() > 0), "the log is moved already");
    let before = listed();
    fs::set_permissions(&own, Permissions::from_mode(0o500)).expect("take away the right to write");
    let report = checked(&data, &["--read"], 0, &[("orphan", 1), ("leftover", 1)]);
    fs::set_permissions(&own, Permissions::from_mode(0o700)).expect("give it back");
    assert_eq!(report["tags"], 3);
    assert_eq!(before, listed());
}

/// The answer of a `scrub` command, which exits with 1 if something is damaged.
#[track_caller]
fn scrub(server: &Server, what: &str) -> Value {
    let outcome = registry(&["scrub", what, "--format", "json", "--data", text(server.data())]);
    let status: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("no status: {outcome}"));
    let damaged = status["damaged_count"].as_u64().expect("a count");
    assert_eq!(outcome.code, Some(i32::from(damaged > 0)), "{outcome}");
    assert_eq!(status["damaged"].as_array().expect("a list").len() as u64, damaged, "{outcome}");
    status
}

#[test]
fn scrub_finds_damage_and_a_push_mends_it() {
    let receiver = Receiver::start(200);
    let section = format!(
        "{DEBUG}notifications:\n  endpoints:\n    - {{name: all, url: 'http://{}/events', timeout: 5s, threshold: 1, backoff: 1ms}}\n",
        receiver.address()
    );
    let mut server = Setup::new(REGISTRY, &format!("{PLAIN}{section}")).start();
    let client = server.client();
    let (_, layer) = push_large(&client, "team/app", "1", 1);
    check(&client, &format!("POST /v2/other/blobs/uploads/?mount={layer}&from=team/app"), b"", "201");
    let (_, gone) = push_large(&client, "team/app", "2", 2);
    let (_, short) = push_large(&client, "team/app", "3", 3);
    let fine = scrub(&server, "run");
    assert_eq!((&fine["last"]["damaged"], &fine["last"]["blobs"]), (&0.into(), &9.into()));
    // So that answers kept in memory would be seen.
    for digest in [&layer, &gone, &short] {
        check(&client, &format!("GET /v2/team/app/blobs/{digest}"), b"", "200");
    }
    let path = file(server.data(), &layer);
    let mut bytes = fs::read(&path).expect("the layer's file");
    bytes[199_999] ^= 1;
    fs::write(&path, &bytes).expect("damage it");
    fs::remove_file(file(server.data(), &gone)).expect("remove another");
    fs::write(file(server.data(), &short), &bytes[..1000]).expect("shorten a third");
    let before = receiver.events().len();

    let found = scrub(&server, "run");
    assert_eq!(found["last"]["damaged"], 3, "{found}");
    let listed = found["damaged"].as_array().expect("a list");
    let shared = listed.iter().find(|damaged| damaged["digest"] == layer).expect("the layer is listed");
    assert_eq!(shared["repositories"], serde_json::json!(["other", "team/app"]));
    for digest in [&layer, &gone, &short] {
        check(&client, &format!("HEAD /v2/team/app/blobs/{digest}"), b"", "404");
        check(&client, &format!("GET /v2/team/app/blobs/{digest}"), b"", "404 BLOB_UNKNOWN");
    }
    check(&client, &format!("HEAD /v2/other/blobs/{layer}"), b"", "404");
    let corrupt = || -> Vec<Value> {
        let events = receiver.events().split_off(before);
        events.into_iter().filter(|event| event["action"] == "corrupt").collect()
    };
    assert!(wait_until(LIMIT, || corrupt().len() == 4), "{:#?}", receiver.events());
    assert_eq!(corrupt().iter().filter(|event| event["target"]["digest"] == layer).count(), 2);
    let quarantine = || fs::read_dir(server.data().join("roadstead/quarantine")).map_or(0, Iterator::count);
    assert_eq!(quarantine(), 2);
    let metrics = Client::new(&server.debug_url()).get("/metrics").expect("metrics").text();
    for line in ["registry_damaged_blobs 3", "registry_scrub_blobs_total 18"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    // A manifest that needs it is refused, as for any blob that is not there, and the push mends it.
    for seed in [1, 2, 3] {
        push(&client, "team/app", sha256, &content(seed, 200_000));
    }
    for (seed, digest) in [(1, &layer), (2, &gone), (3, &short)] {
        let got = check(&client, &format!("GET /v2/team/app/blobs/{digest}"), b"", "200");
        assert!(got.body == content(seed, 200_000), "{digest}");
    }
    check(&client, &format!("HEAD /v2/other/blobs/{layer}"), b"", "200");
    assert_eq!(scrub(&server, "status")["damaged_count"], 0);
    assert_eq!(scrub(&server, "run")["last"]["damaged"], 0);
    let data = server.data().to_owned();
    server.stop();
    assert_eq!(scrub(&server, "status")["state"], "no-server");
    registry(&["scrub", "run", "--data", text(&data)]).refused(&["check --read"]);
    checked(&data, &["--read"], 0, &[]);
}

#[test]
fn scrub_marks_nothing_where_the_disk_is_gone() {
    let server = plain_registry();
    let client = server.client();
    let layers: Vec<String> = (1..4).map(|seed| push_large(&client, "r", &seed.to_string(), seed).1).collect();
    let blobs = server.data().join("docker/registry/v2/blobs");
    let away = server.data().join("away");
    fs::rename(blobs.join("sha256"), &away).expect("take the blobs away");
    let outcome = registry(&["scrub", "run", "--data", text(server.data())]);
    outcome.refused(&["mounted"]);
    // By now the small ones may have been written there.
    fs::remove_dir_all(blobs.join("sha256")).ok();
    fs::rename(&away, blobs.join("sha256")).expect("bring the blobs back");
    assert_eq!(scrub(&server, "status")["damaged_count"], 0);
    for layer in layers {
        check(&client, &format!("GET /v2/r/blobs/{layer}"), b"", "200");
    }
}

/// A registry that collects all the time, and waits for nothing.
const HASTY: &str =
    "roadstead:\n  gc: {interval: 1s, grace: 0s, lease: 3s, quarantine: 0s, untagged: 0s, orphans: 0s}\n";

#[test]
fn a_backup_under_load_is_whole() {
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{HASTY}")).start();
    let client = server.client();
    let kept: Vec<(String, String)> =
        (0..8).map(|seed| push_large(&client, "kept", &format!("v{seed}"), seed)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 1..4_u64 {
            let (client, stop) = (server.client(), &stop);
            scope.spawn(move || {
                for seed in (worker * 1000..).take(60) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // On a busy machine the collection may take a part before the whole is there: the
                    // lease is short.
                    let bytes = content(seed, 70_000);
                    let pushed = client.push_blob("churn", &content(seed, 50)).and_then(|config| {
                        let layer = client.push_blob("churn", &bytes)?;
                        let text = image(&[(&config, 50), (&layer, bytes.len())]);
                        client.push_manifest("churn", &format!("w{worker}-{}", seed % 3), text.as_bytes())?;
                        Ok(sha256(text.as_bytes()))
                    });
                    if let (Ok(digest), true) = (&pushed, seed % 2 == 0) {
                        client.send("DELETE", &format!("/v2/churn/manifests/{digest}"), &[], b"").ok();
                    }
                }
            });
        }
        let collected = || -> Value {
            let status = registry(&["gc", "status", "--data", text(server.data()), "--format", "json"]).ok();
            serde_json::from_str(&status.stdout).expect("a status")
        };
        let (mut taken, mut failed) = (0, None);
        // Until the collection removed a good number of files between and beside the backups.
        wait_until(LIMIT, || {
            let outcome = registry(&["backup", text(&backup), "--data", text(server.data()), "--format", "json"]);
            let summary: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            let is_new = taken == 0 || summary["copied"].as_u64() < summary["blobs"].as_u64();
            let check = registry(&["check", "--read", "--data", text(&backup)]);
            taken += 1;
            if !(outcome.success && is_new && check.success && check.stdout.ends_with("\nsound\n")) {
                failed = Some(format!("backup {taken}: {outcome}\n{check}"));
            }
            // No backup holds it now.
            registry(&["gc", "run", "--data", text(server.data())]);
            failed.is_some() || (taken >= 4 && collected()["since_start"]["files"].as_u64() > Some(40))
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
        assert!(collected()["since_start"]["files"].as_u64() > Some(40), "{}", collected());
    });
    let held = registry(&["gc", "status", "--data", text(server.data()), "--format", "json"]).ok();
    let held: Value = serde_json::from_str(&held.stdout).expect("a status");
    assert_eq!(held["held_until"], Value::Null);

    let restored = folder.path().join("restored");
    registry(&["restore", text(&backup), text(&restored)]).ok();
    checked(&restored, &["--read"], 0, &[]);
    // As patient as it is by default: what is old only because the backup is does not go.
    let again = Setup::new(REGISTRY, PLAIN).data(&restored).start();
    let client = again.client();
    for (seed, (manifest, layer)) in (0..).zip(&kept) {
        let got = check(&client, &get_manifest("kept", &format!("v{seed}")), b"", "200");
        assert_eq!(&sha256(&got.body), manifest);
        assert!(check(&client, &format!("GET /v2/kept/blobs/{layer}"), b"", "200").body == content(seed, 200_000));
    }
    let tags = check(&client, "GET /v2/churn/tags/list", b"", "200").json();
    for tag in tags["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let manifest = check(&client, &get_manifest("churn", tag), b"", "200").json();
        let layers = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
        for digest in layers.filter_map(|layer| layer["digest"].as_str()) {
            let got = check(&client, &format!("GET /v2/churn/blobs/{digest}"), b"", "200");
            assert_eq!(sha256(&got.body), digest);
        }
    }
}

#[test]
fn backups_and_restores_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (backup, restored) = (folder.path().join("b"), folder.path().join("r"));
    let mut server = plain_registry();
    let client = server.client();
    let (first, layer) = push_large(&client, "r", "1", 1);
    let (_, other) = push_large(&client, "r", "2", 2);
    let data = server.data().to_owned();
    let take = |more: &[&str]| {
        let mut args = vec!["backup", text(&backup), "--data", text(&data), "--format", "json"];
        args.extend(more);
        registry(&args)
    };
    let summary = |outcome: &Outcome| -> Value { serde_json::from_str(&outcome.stdout).expect("a summary") };
    assert_eq!(summary(&take(&[]).ok())["copied"], 2);
    let mode = fs::metadata(backup.join("roadstead/meta.sqlite3")).expect("its metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(summary(&take(&[]).ok())["copied"], 0);
    registry(&["backup", text(&data), "--data", text(&data)]).refused(&["itself"]);
    let foreign = folder.path().join("foreign");
    fs::create_dir_all(foreign.join("photos")).expect("make a folder");
    registry(&["backup", text(&foreign), "--data", text(&data)]).refused(&["neither empty nor a backup"]);

    // What an interrupted one leaves behind is no harm, and goes.
    fs::write(backup.join("roadstead/uploads/backup.x"), "x").expect("write a leftover");
    fs::write(backup.join("roadstead/meta.backup"), "x").expect("write a leftover");
    checked(&backup, &["--read"], 0, &[("leftover", 2)]);
    take(&[]).ok();
    checked(&backup, &["--read"], 0, &[]);

    // A blob that cannot be had: said, marked, and mended by the next backup.
    let (_, third) = push_large(&client, "r", "3", 3);
    let path = file(&data, &third);
    fs::write(&path, vec![0; 200_000]).expect("damage a blob");
    let incomplete = take(&[]);
    assert_eq!(incomplete.code, Some(1), "{incomplete}");
    assert_eq!(summary(&incomplete)["flawed"][0]["digest"], third);
    checked(&backup, &["--read"], 1, &[("damaged", 1)]);
    fs::write(&path, content(3, 200_000)).expect("mend it");
    assert_eq!(summary(&take(&[]).ok())["copied"], 1);
    checked(&backup, &["--read"], 0, &[]);
    // What the backup has is not lost because the registry lost it.
    fs::remove_file(&path).expect("lose a blob");
    let found = scrub(&server, "run");
    assert_eq!(found["damaged_count"], 1, "{found}");
    take(&[]).ok();
    checked(&backup, &["--read"], 0, &[]);

    registry(&["restore", text(&backup), text(&data)]).refused(&["not empty"]);
    registry(&["restore", text(&backup), text(&data), "--replace-metadata"]).refused(&["stop the server"]);
    server.stop();
    registry(&["restore", text(&backup), text(&data), "--into-existing"]).refused(&["--replace-metadata"]);
    let back = registry(&["restore", text(&backup), text(&data), "--replace-metadata", "--format", "json"]).ok();
    assert_eq!(summary(&back)["copied"], 1, "{back}");
    let aside = summary(&back)["put_aside"].as_str().map(PathBuf::from).expect("the old metadata is kept");
    assert!(aside.exists());
    checked(&data, &["--read"], 0, &[]);
    server.start_again();
    let client = server.client();
    for (tag, layer) in [("1", &layer), ("2", &other), ("3", &third)] {
        check(&client, &get_manifest("r", tag), b"", "200");
        check(&client, &format!("GET /v2/r/blobs/{layer}"), b"", "200");
    }

    // What is deleted leaves the backup with the rows that named it, unless it is kept.
    check(&client, &format!("DELETE /v2/r/manifests/{first}"), b"", "202");
    registry(&["gc", "run", "--now", "--data", text(&data)]).ok();
    take(&["--keep"]).ok();
    assert!(file(&backup, &layer).exists());
    take(&[]).ok();

    // A backup is a data directory: a server can serve it, and then it is no backup any more.
    registry(&["restore", text(&backup), text(&restored)]).ok();
    let served = Setup::new(REGISTRY, PLAIN).data(&backup).start();
    check(&served.client(), &get_manifest("r", "2"), b"", "200");
    take(&[]).refused(&["being served"]);
    drop(served);
    take(&[]).refused(&["a server has run on the backup"]);
    checked(&restored, &["--read"], 0, &[]);
}
