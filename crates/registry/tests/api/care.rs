//! Looking after the data: `check`, `backup`, `restore`, and the scrub, on real damage.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use testkit::{
    client::Client,
    command::{Outcome, run, tool},
    image::sha256,
    process::wait_until,
    server::Server,
};

use crate::{OCI_MANIFEST, REGISTRY, check, content, get_manifest, image, plain_registry, push, put};

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
