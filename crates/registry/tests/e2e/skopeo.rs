//! Skopeo copies, inspects, lists and deletes.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use testkit::command::{self, Outcome, tool};
use testkit::image::{Image, sha256, write_layout};
use testkit::random::{Random, seed};

use crate::plain_registry;

/// The `skopeo` command line with credentials of its own.
pub(crate) struct Skopeo {
    home: TempDir,
}

impl Skopeo {
    /// Someone who has not logged in anywhere.
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().expect("create a temp dir") }
    }

    /// Runs `skopeo` with `args`, whatever comes of it.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        let mut command = tool("skopeo");
        command.env("HOME", self.home.path());
        command.env("REGISTRY_AUTH_FILE", self.home.path().join("auth.json"));
        command.arg("--insecure-policy").args(args);
        command::run(command)
    }

    /// Pushes image or index `tag` of a layout, unchanged, to `reference` (`<host>/<name>:<tag>`).
    #[track_caller]
    pub(crate) fn push(&self, layout: &Path, tag: &str, reference: &str) {
        let (from, to) = (oci(layout, tag), format!("docker://{reference}"));
        self.run(&["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to]).ok();
    }
}

/// The name skopeo and podman give an image in a layout.
pub(crate) fn oci(layout: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", layout.display())
}

#[test]
fn an_image_travels_there_and_back() {
    let (server, skopeo) = (plain_registry(), Skopeo::new());
    let mut random = Random::new(seed());
    let (image, _) = Image::busybox().with_random(&mut random, 3 << 20);
    let from = tempfile::tempdir().expect("create a temp dir");
    let digest = write_layout(from.path(), "src", &[image]);
    let target = format!("docker://{}/team/web:1.0", server.host_port());
    skopeo.push(from.path(), "src", &format!("{}/team/web:1.0", server.host_port()));

    let seen = skopeo.run(&["inspect", "--tls-verify=false", &target]).ok().stdout;
    let seen: Value = serde_json::from_str(&seen).expect("inspect prints JSON");
    assert_eq!(seen["Digest"], digest.as_str());
    assert_eq!(seen["RepoTags"], serde_json::json!(["1.0"]));
    let raw = skopeo.run(&["inspect", "--raw", "--tls-verify=false", &target]).ok().stdout;
    assert_eq!(sha256(raw.as_bytes()), digest);

    let to = tempfile::tempdir().expect("create a temp dir");
    let back = oci(to.path(), "dst");
    skopeo.run(&["copy", "--preserve-digests", "--src-tls-verify=false", &target, &back]).ok();
    check_same_blobs(from.path(), to.path());
}

#[test]
fn an_index_travels_with_all_its_architectures() {
    let (server, skopeo) = (plain_registry(), Skopeo::new());
    let mut random = Random::new(seed());
    let images = ["amd64", "arm64"].map(|architecture| Image::empty(architecture).with_random(&mut random, 100_000).0);
    let from = tempfile::tempdir().expect("create a temp dir");
    let index = write_layout(from.path(), "src", &images);
    let reference = format!("{}/team/multi:1.0", server.host_port());
    skopeo.push(from.path(), "src", &reference);

    for image in &images {
        let digest = sha256(&image.manifest());
        let path = format!("/v2/team/multi/manifests/{digest}");
        let got = server.client().get(&path).expect("get the child manifest");
        assert_eq!((got.status, sha256(&got.body)), (200, digest));
    }
    let head = server.client().head("/v2/team/multi/manifests/1.0").expect("head of the index");
    assert_eq!((head.status, head.header("docker-content-digest")), (200, index.as_str()));

    let to = tempfile::tempdir().expect("create a temp dir");
    let (source, back) = (format!("docker://{reference}"), oci(to.path(), "dst"));
    skopeo.run(&["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &source, &back]).ok();
    check_same_blobs(from.path(), to.path());
}

#[test]
fn tags_are_listed_and_a_deleted_image_leaves_the_list() {
    let (server, skopeo) = (plain_registry(), Skopeo::new());
    let layout = tempfile::tempdir().expect("create a temp dir");
    let target = |tag: &str| format!("{}/team/web{tag}", server.host_port());
    for tag in ["1.0", "1.1", "latest"] {
        let image = Image::empty("amd64").with_file("version", 0o644, tag.as_bytes());
        write_layout(layout.path(), "src", &[image]);
        skopeo.push(layout.path(), "src", &target(&format!(":{tag}")));
    }
    let check = |expected: &[&str]| {
        let name = format!("docker://{}", target(""));
        let listed = skopeo.run(&["list-tags", "--tls-verify=false", &name]).ok().stdout;
        let listed: Value = serde_json::from_str(&listed).expect("list-tags prints JSON");
        let tags = listed["Tags"].as_array().expect("list-tags lists tags");
        let mut tags: Vec<_> = tags.iter().filter_map(Value::as_str).collect();
        tags.sort_unstable();
        assert_eq!(tags, expected);
    };
    check(&["1.0", "1.1", "latest"]);
    let name = format!("docker://{}", target(":1.1"));
    skopeo.run(&["delete", "--tls-verify=false", &name]).ok();
    check(&["1.0", "latest"]);
    let gone = skopeo.run(&["inspect", "--tls-verify=false", &name]);
    gone.refused(&["manifest unknown", "not found"]);
}

/// Fails unless both layouts hold the same blobs with the content their names promise.
#[track_caller]
fn check_same_blobs(from: &Path, to: &Path) {
    let blobs = |layout: &Path| {
        let dir = layout.join("blobs/sha256");
        let entries = std::fs::read_dir(&dir).expect("the layout has blobs");
        let mut names: Vec<_> = entries
            .map(|entry| {
                let path = entry.expect("read the folder").path();
                let name = path.file_name().expect("a blob has a name").to_string_lossy();
                let content = std::fs::read(&path).expect("read the blob");
                assert_eq!(sha256(&content), format!("sha256:{name}"));
                name.into_owned()
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(blobs(from), blobs(to));
}
