//! The data directory of Debian's `docker-registry`, taken over in place, used, and given back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::client::Client;
use testkit::command::{self, Outcome, tool};
use testkit::http::Response;
use testkit::image::{Image, OCI_INDEX, OCI_MANIFEST, descriptor, sha256, sha512};
use testkit::random::{Random, seed};
use testkit::server::Setup;

use crate::{PLAIN, REGISTRY};

const OLD: &str = "docker-registry";

/// Someone who pushes images and remembers all that ever was.
struct Year {
    random: Random,
    /// Repository and digest of each manifest.
    manifests: BTreeSet<(String, String)>,
    /// Repository and digest of each blob.
    blobs: BTreeSet<(String, String)>,
}

impl Year {
    fn image(&mut self, architecture: &str) -> Image {
        let len = 2000 + self.random.below(90_000) as usize;
        Image::empty(architecture).with_random(&mut self.random, len).0
    }

    fn blob(&mut self, client: &Client, repo: &str, content: &[u8]) -> String {
        let digest = client.push_blob(repo, content).expect("push a blob");
        self.blobs.insert((repo.into(), digest.clone()));
        digest
    }

    fn manifest(&mut self, client: &Client, repo: &str, reference: Option<&str>, manifest: &[u8]) -> String {
        let digest = sha256(manifest);
        client.push_manifest(repo, reference.unwrap_or(&digest), manifest).expect("push a manifest");
        self.manifests.insert((repo.into(), digest.clone()));
        digest
    }

    /// Pushes an image under some tags, or by its digest.
    fn push(&mut self, client: &Client, repo: &str, tags: &[&str]) -> String {
        let image = self.image("amd64");
        self.push_image(client, repo, tags, &image, Value::Null)
    }

    fn push_image(&mut self, client: &Client, repo: &str, tags: &[&str], image: &Image, subject: Value) -> String {
        for blob in image.blobs().chain([image.config().as_slice()]) {
            self.blob(client, repo, blob);
        }
        let mut manifest: Value = serde_json::from_slice(&image.manifest()).expect("a manifest is JSON");
        if !subject.is_null() {
            manifest["subject"] = subject;
        }
        let bytes = manifest.to_string();
        for tag in tags {
            self.manifest(client, repo, Some(tag), bytes.as_bytes());
        }
        self.manifest(client, repo, None, bytes.as_bytes())
    }

    /// Pushes an index of two architectures under a tag.
    fn push_index(&mut self, client: &Client, repo: &str, tag: &str) -> String {
        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let image = self.image(architecture);
            self.push_image(client, repo, &[], &image, Value::Null);
            let mut entry = descriptor(OCI_MANIFEST, &image.manifest());
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            entries.push(entry);
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        self.manifest(client, repo, Some(tag), index.to_string().as_bytes())
    }

    /// Pushes the kind of image that Docker does.
    fn push_docker_image(&mut self, client: &Client, repo: &str, tag: &str) {
        let image = self.image("amd64");
        self.push_image(client, repo, &[], &image, Value::Null);
        let text = String::from_utf8(image.manifest()).expect("JSON is text");
        let text = text
            .replace("vnd.oci.image.manifest.v1+json", "vnd.docker.distribution.manifest.v2+json")
            .replace("vnd.oci.image.config.v1+json", "vnd.docker.container.image.v1+json")
            .replace("vnd.oci.image.layer.v1.tar+gzip", "vnd.docker.image.rootfs.diff.tar.gzip");
        self.manifest(client, repo, Some(tag), text.as_bytes());
    }

    /// All that a client can get: what it asks for, what it is given.
    fn everything(&self, client: &Client) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let get = |path: &str| client.get(path).expect("an answer");
        let mut keep = |name: String, got: Response| {
            if got.status == 200 {
                // What was pushed as sha512 the old server calls by its sha256, ours by its name.
                let digest = if name.contains(" blob ") { "" } else { got.header("docker-content-digest") };
                let kind = got.header("content-type").to_owned();
                all.insert(name, format!("{kind} {digest} {} {}", got.body.len(), sha256(&got.body)));
            }
        };
        let catalog: Value = serde_json::from_str(&get("/v2/_catalog?n=1000").text()).expect("a catalog is JSON");
        for repo in catalog["repositories"].as_array().expect("a catalog lists").iter().filter_map(Value::as_str) {
            let tags: Value = serde_json::from_str(&get(&format!("/v2/{repo}/tags/list")).text()).expect("JSON");
            for tag in tags["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                keep(format!("{repo}:{tag}"), get(&format!("/v2/{repo}/manifests/{tag}")));
            }
        }
        for (repo, digest) in &self.manifests {
            keep(format!("{repo}@{digest}"), get(&format!("/v2/{repo}/manifests/{digest}")));
        }
        for (repo, digest) in &self.blobs {
            keep(format!("{repo} blob {digest}"), get(&format!("/v2/{repo}/blobs/{digest}")));
        }
        all
    }
}

/// Fails with what is missing, extra or different.
#[track_caller]
fn check_same(when: &str, want: &BTreeMap<String, String>, seen: &BTreeMap<String, String>) {
    let lines = |from: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
        let odd = from.iter().filter(|(name, text)| other.get(*name) != Some(text));
        odd.map(|(name, text)| format!("{name}: {text}")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!((lines(want, seen), lines(seen, want)), (String::new(), String::new()), "{when}: missing, extra");
}

fn registry(args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.args(args);
    command::run(command)
}

fn delete(client: &Client, target: &str) {
    let got = client.send("DELETE", target, &[], b"").expect("an answer");
    assert_eq!(got.status, 202, "{target}: {}", got.text());
}

fn below(data: &Path, path: &str) -> PathBuf {
    data.join("docker/registry/v2").join(path)
}

fn write(path: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("below the data folder")).expect("make a folder");
    fs::write(path, bytes).expect("write a file");
}

#[test]
fn a_year_of_another_registry_is_taken_over_and_given_back() {
    let folder = tempfile::tempdir().expect("create a temp dir");
    let data = folder.path();
    // What it logs would hide what a failure says.
    let quiet = format!("{PLAIN}log:\n  level: warn\n  accesslog:\n    disabled: true\n");
    let mut old = Setup::other(OLD, &quiet).data(data).start();
    let client = old.client();
    let mut year = Year { random: Random::new(seed()), manifests: BTreeSet::new(), blobs: BTreeSet::new() };

    // Many images, tags that move, more than one architecture, what is about an image.
    for repo in ["team/api", "team/web", "base", "a/b/c/d"] {
        for version in ["1.0", "1.1", "1.2"] {
            year.push(&client, repo, &[version, "latest"]);
        }
    }
    year.push_index(&client, "team/multi", "1.0");
    year.push_docker_image(&client, "team/docker", "1.0");
    let about = year.push(&client, "team/api", &["signed"]);
    let signature = year.image("unknown");
    let subject = json!({"mediaType": OCI_MANIFEST, "digest": about, "size": 1});
    let signature = year.push_image(&client, "team/api", &[], &signature, subject);
    let wide = b"pushed under its sha512";
    let location = client.start_upload("team/api").expect("start an upload");
    client.finish(&location, wide, &sha512(wide)).expect("push as sha512");
    year.blobs.extend([sha512(wide), sha256(wide)].map(|digest| ("team/api".to_owned(), digest)));
    // Deletes of a manifest, its tag with it, and of a blob.
    let gone = year.push(&client, "team/web", &["gone"]);
    delete(&client, &format!("/v2/team/web/manifests/{gone}"));
    let gone = year.blob(&client, "team/web", b"nobody needs this");
    delete(&client, &format!("/v2/team/web/blobs/{gone}"));
    // An interrupted upload, an orphan, and what a crash leaves.
    let location = client.start_upload("team/web").expect("start an upload");
    client.patch(&location, 0, b"half of it").expect("send a part");
    let orphan = sha256(b"orphan").replace("sha256:", "");
    write(below(data, &format!("blobs/sha256/{}/{orphan}/data", &orphan[..2])), b"orphan");
    write(below(data, &format!("repositories/base/_layers/sha256/{orphan}/link")), b"");
    write(below(data, "repositories/base/_manifests/tags/empty/current/link"), b"");

    // Taken over while it serves.
    let place = data.to_string_lossy().into_owned();
    let adopt = || {
        let said = registry(&["adopt", &place, "--format", "json"]).ok().stdout;
        serde_json::from_str::<Value>(&said).expect("the report is JSON")
    };
    let first = adopt();
    assert_eq!(
        (&first["state"], &first["unnamed"], first["skipped"].as_array().map(Vec::len)),
        (&json!("following"), &json!(3), Some(2)),
        "{first:#}"
    );
    registry(&["release", &place]).refused(&["followed"]);
    // It goes on meanwhile.
    year.push(&client, "team/api", &["1.3", "latest"]);
    year.push(&client, "late", &["1.0"]);
    // Not in `base`: the empty link makes the old server answer 500 to deletes there.
    let moved = year.push(&client, "a/b/c/d", &["1.0"]);
    let second = adopt();
    assert_eq!((&second["added"]["tags"], &second["added"]["manifests"]), (&json!(4), &json!(3)), "{second:#}");
    assert_eq!(second["removed"], json!({"blobs": 0, "manifests": 0, "tags": 0}));
    delete(&client, &format!("/v2/a/b/c/d/manifests/{moved}"));
    year.push(&client, "last", &["1.0"]);
    let before = year.everything(&client);
    assert!(before.len() > 60, "{}", before.len());
    old.stop();

    // Served here: all the same, and more.
    let mut new = Setup::new(REGISTRY, &quiet).data(data).start();
    let client = new.client();
    check_same("adopted", &before, &year.everything(&client));
    let referrers = client.get(&format!("/v2/team/api/referrers/{about}")).expect("an answer").text();
    assert!(referrers.contains(&signature), "{referrers}");
    year.push(&client, "team/api", &["2.0", "latest"]);
    year.push_index(&client, "team/multi", "latest");
    year.push(&client, "new/here", &["1.0"]);
    let gone = year.push(&client, "team/web", &["gone"]);
    delete(&client, &format!("/v2/team/web/manifests/{gone}"));
    delete(&client, "/v2/a/b/c/d/manifests/1.1");
    registry(&["adopt", &place]).refused(&["in use"]);
    let config = new.config().to_string_lossy().into_owned();
    new.stop();
    registry(&["adopt", &place]).refused(&["registry release"]);
    registry(&["garbage-collect", &config]).ok();
    assert!(!below(data, &format!("blobs/sha256/{}/{orphan}/data", &orphan[..2])).exists(), "the orphan is collected");
    new.start_again();
    let used = year.everything(&new.client());
    new.stop();
    assert!(used.contains_key("new/here:1.0") && !used.contains_key("a/b/c/d:1.1"));

    // Given back, and taken again.
    registry(&["release", &place]).ok();
    registry(&["serve", &config]).refused(&["registry adopt"]);
    registry(&["garbage-collect", &config]).refused(&["registry adopt"]);
    old.start_again();
    check_same("released", &used, &year.everything(&old.client()));
    let mut command = tool(OLD);
    command.args(["garbage-collect", "--dry-run"]).arg(old.config());
    command::run(command).ok();
    year.push(&old.client(), "team/api", &["3.0", "latest"]);
    let returned = year.everything(&old.client());
    let third = adopt();
    assert_eq!((&third["added"]["tags"], &third["skipped"]), (&json!(2), &json!([])), "{third:#}");
    old.stop();
    new.start_again();
    check_same("adopted again", &returned, &year.everything(&new.client()));
}

#[test]
fn an_old_volume_is_served_at_once() {
    let folder = tempfile::tempdir().expect("create a temp dir");
    let mut old = Setup::other(OLD, PLAIN).data(folder.path()).start();
    let mut year = Year { random: Random::new(seed()), manifests: BTreeSet::new(), blobs: BTreeSet::new() };
    year.push(&old.client(), "team/api", &["1.0"]);
    year.push_index(&old.client(), "team/multi", "1.0");
    let before = year.everything(&old.client());
    old.stop();
    let mut new = Setup::new(REGISTRY, PLAIN).data(folder.path()).start();
    check_same("at once", &before, &year.everything(&new.client()));
    new.kill9();
    new.start_again();
    check_same("after a kill", &before, &year.everything(&new.client()));
    new.stop();
    // The links say less than the rows by now: without the rows nothing is served that was deleted.
    fs::remove_file(folder.path().join("roadstead/meta.sqlite3")).expect("remove the metadata");
    let config = new.config().to_string_lossy().into_owned();
    registry(&["serve", &config]).refused(&["backup"]);
}
