//! Conformance tests: the protocol over real HTTP against the real program, as data tables.
//!
//! A request is one line, `<METHOD> <target> | <header>: <value> | …`; what is expected is one
//! too, `<status> <error code> | <header>: <value> | …`. Every answer is also held against what
//! holds for all: never a failure of the server, errors always with a JSON body.

mod access;
mod accounts;
mod blobs;
mod care;
mod cli;
mod collect;
mod connection;
mod damage;
mod deletion;
mod events;
mod flood;
mod health;
mod indexes;
mod isolation;
mod keeping;
mod lists;
mod malformed;
mod manifests;
mod metadata;
mod mounts;
mod referrers;
mod resume;
mod rules;
mod signals;
mod tls;
mod uploads;
mod urls;

use testkit::{
    client::{Client, MANIFEST_TYPES},
    http::Response,
    image::{sha256, sha512},
    random::Random,
    server::{Server, Setup},
};

/// The program under test.
const REGISTRY: &str = env!("CARGO_BIN_EXE_registry");

/// A registry that stores in a folder. It ends inside `http`, for more of that to follow.
const PLAIN: &str = "
version: 0.1
log:
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
http:
  addr: {addr}
";

/// The debug listener, for use after [`PLAIN`].
const DEBUG: &str = "  debug:
    addr: {debug}
    prometheus:
      enabled: true
      path: /metrics
";

/// Both digest algorithms.
const ALGORITHMS: [fn(&[u8]) -> String; 2] = [sha256, sha512];

/// Starts a registry that lets everyone do everything.
#[track_caller]
fn plain_registry() -> Server {
    Setup::new(REGISTRY, PLAIN).start()
}

/// Bytes that are the same for the same seed and size.
fn content(seed: u64, size: usize) -> Vec<u8> {
    Random::new(seed.wrapping_mul(7919) + size as u64 + 1).bytes(size)
}

/// Sends the request of a line and fails unless the answer is the expected one.
#[track_caller]
fn check(client: &Client, request: &str, body: &[u8], expected: &str) -> Response {
    let mut parts = request.split(" | ");
    let line = parts.next().unwrap_or_default();
    let (method, target) = line.split_once(' ').expect("a method and a target");
    let headers: Vec<(&str, &str)> = parts.map(|part| part.split_once(": ").expect("a header")).collect();
    let got = client.send(method, target, &headers, body).unwrap_or_else(|error| panic!("{request}: {error}"));
    verify(request, &got, expected);
    got
}

/// Fails unless an answer is the expected one: `<status> <code> | <header>: <value> | …`. A value
/// that starts with `~` has to be contained, `-` stands for an absent header, and the name `body`
/// for the body.
#[track_caller]
fn verify(request: &str, got: &Response, expected: &str) {
    let show = || format!("{request}\nanswered {} {:#?}\n{}", got.status, got.headers(), clip(&got.text()));
    let head = request.starts_with("HEAD");
    let mut parts = expected.split(" | ");
    let code = got.error_code();
    let seen = format!("{} {}", got.status, if head { "" } else { &code });
    let wanted = parts.next().unwrap_or_default();
    assert_eq!(seen.trim_end(), wanted, "{}", show());
    assert_eq!(got.header("docker-distribution-api-version"), "registry/2.0", "{}", show());
    if got.status >= 400 {
        assert_eq!(got.header("content-type"), "application/json", "{}", show());
        if !head {
            let error = &got.json()["errors"][0];
            let told = ["code", "message"].iter().all(|key| error[key].as_str().is_some_and(|text| !text.is_empty()));
            assert!(told, "an error without a body: {}", show());
        }
    }
    for part in parts {
        let (name, value) = part.split_once(": ").expect("an expectation is a name and a value");
        let have = if name == "body" { got.text() } else { got.header(name).to_owned() };
        let good = match value.strip_prefix('~') {
            Some(inner) => have.contains(inner),
            None if value == "-" => have.is_empty(),
            None => have == value,
        };
        assert!(good, "expected {part:?}: {}", show());
    }
}

fn clip(text: &str) -> String {
    text.chars().take(600).collect()
}

/// Pushes `bytes` in one request under the digest that `algorithm` gives; returns it.
#[track_caller]
fn push(client: &Client, repo: &str, algorithm: fn(&[u8]) -> String, bytes: &[u8]) -> String {
    let digest = algorithm(bytes);
    let expected = format!("201 | docker-content-digest: {digest} | location: ~/v2/{repo}/blobs/{digest}");
    check(client, &format!("POST /v2/{repo}/blobs/uploads/?digest={digest}"), bytes, &expected);
    digest
}

/// Pushes `bytes` as a manifest of type `kind`; returns the answer.
#[track_caller]
fn put(client: &Client, repo: &str, reference: &str, kind: &str, bytes: &[u8], expected: &str) -> Response {
    check(client, &format!("PUT /v2/{repo}/manifests/{reference} | Content-Type: {kind}"), bytes, expected)
}

/// Pushes an image of one random config and no layers under a tag; returns the manifest's digest.
#[track_caller]
fn push_image(client: &Client, repo: &str, tag: &str, seed: u64) -> String {
    let config = content(seed, 100);
    let digest = push(client, repo, sha256, &config);
    let manifest = image(&[(&digest, 100)]);
    put(client, repo, tag, OCI_MANIFEST, manifest.as_bytes(), "201");
    sha256(manifest.as_bytes())
}

const OCI_MANIFEST: &str = testkit::image::OCI_MANIFEST;
const OCI_INDEX: &str = testkit::image::OCI_INDEX;
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An OCI image manifest: the first blob is the config, the others are layers.
fn image(blobs: &[(&str, usize)]) -> String {
    let layers: Vec<String> =
        blobs[1..].iter().map(|(digest, size)| descriptor(testkit::image::OCI_LAYER, digest, *size, "")).collect();
    let config = descriptor(testkit::image::OCI_CONFIG, blobs[0].0, blobs[0].1, "");
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{}]}}"#, layers.join(","))
}

/// A descriptor; `more` is further JSON fields, each beginning with a comma.
fn descriptor(kind: &str, digest: &str, size: usize, more: &str) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}{more}}}"#)
}

/// GET of a manifest that takes every type.
fn get_manifest(repo: &str, reference: &str) -> String {
    format!("GET /v2/{repo}/manifests/{reference} | Accept: {MANIFEST_TYPES}")
}
