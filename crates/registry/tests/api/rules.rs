//! Immutable tags and quotas: what is refused, at which moment, and in which words.

use testkit::{
    client::Client,
    image::sha256,
    server::{Server, Setup},
    wire::Wire,
};

use crate::{OCI_MANIFEST, PLAIN, REGISTRY, check, content, get_manifest, image, push, push_image, put};

const RULES: &str = "
roadstead:
  immutable:
    - repositories: 'team/*'
      tags: '^v[0-9]'
  quotas:
    - {prefix: team, limit: 300KB}
    - {prefix: team/api, limit: 200KB}
";

fn registry() -> Server {
    Setup::new(REGISTRY, &format!("{PLAIN}{RULES}")).start()
}

#[test]
fn immutable_tags_neither_move_nor_go() {
    let server = registry();
    let client = server.client();
    let immutable = "403 DENIED | body: ~tag v1 is immutable here";
    for repo in ["team/api", "free/api"] {
        let covered = repo == "team/api";
        let expect = |otherwise: &'static str| if covered { immutable } else { otherwise };
        let config = push(&client, repo, sha256, b"{}");
        let (old, new) = (image(&[(&config, 2)]), image(&[(&config, 2), (&config, 2)]));
        let digest = sha256(old.as_bytes());
        put(&client, repo, "v1", OCI_MANIFEST, old.as_bytes(), "201");
        // The same once more is what a repeated job does.
        put(&client, repo, "v1", OCI_MANIFEST, old.as_bytes(), "201");
        put(&client, repo, "latest", OCI_MANIFEST, old.as_bytes(), "201");
        put(&client, repo, "latest", OCI_MANIFEST, new.as_bytes(), "201");
        put(&client, repo, "v1", OCI_MANIFEST, new.as_bytes(), expect("201"));
        put(&client, repo, "v1", OCI_MANIFEST, old.as_bytes(), "201");
        check(&client, &format!("DELETE /v2/{repo}/manifests/{digest}"), b"", expect("202"));
        check(&client, &format!("DELETE /v2/{repo}/manifests/v1"), b"", expect("404 MANIFEST_UNKNOWN"));
        check(&client, &format!("DELETE /v2/{repo}/manifests/latest"), b"", "202");
        let expected =
            if covered { format!("200 | docker-content-digest: {digest}") } else { "404 MANIFEST_UNKNOWN".into() };
        check(&client, &get_manifest(repo, "v1"), b"", &expected);
    }
}

/// Begins an upload; returns where it goes on.
fn begin(client: &Client, repo: &str) -> String {
    check(client, &format!("POST /v2/{repo}/blobs/uploads/"), b"", "202").header("location").to_owned()
}

#[test]
fn a_quota_ends_what_does_not_fit() {
    let server = registry();
    let client = server.client();
    let full = |prefix: &str| format!("403 DENIED | body: ~the quota of {prefix} is ");
    let whole = |repo: &str, bytes: &[u8], expected: &str| {
        let line = format!("POST /v2/{repo}/blobs/uploads/?digest={}", sha256(bytes));
        drop(check(&client, &line, bytes, expected));
    };
    let (first, second) = (content(1, 150_000), content(2, 100_000));
    whole("team/api", &first, "201");
    whole("team/api", &second, &full("team/api"));
    whole("team/web", &second, "201");
    // Held twice, counted once.
    whole("team/web", &first, "403 DENIED");
    let digest = sha256(&first);
    check(&client, &format!("POST /v2/team/web/blobs/uploads/?mount={digest}&from=team/api"), b"", "201");
    whole("elsewhere", &content(3, 400_000), "201");
    let foreign = sha256(&content(3, 400_000));
    let mount = format!("POST /v2/team/web/blobs/uploads/?mount={foreign}&from=elsewhere");
    check(&client, &mount, b"", &full("team"));
    // A part that says its length is refused before it is read, and nothing is left to go on with.
    let upload = begin(&client, "team/web");
    check(&client, &format!("PATCH {upload}"), &content(4, 30_000), "202");
    check(&client, &format!("PATCH {upload}"), &content(4, 30_000), &full("team"));
    check(&client, &format!("PATCH {upload}"), b"x", "404 BLOB_UPLOAD_UNKNOWN");
    // What is promised to one is not there for another, and comes back when it ends.
    let upload = begin(&client, "team/web");
    check(&client, &format!("PATCH {upload}"), &content(5, 40_000), "202");
    let other = begin(&client, "team/x");
    check(&client, &format!("PATCH {other}"), &content(6, 40_000), &full("team"));
    check(&client, &format!("DELETE {upload}"), b"", "204");
    let other = begin(&client, "team/x");
    check(&client, &format!("PATCH {other}"), &content(6, 50_000), "202");
    // Not a byte more: an upload does not even begin.
    check(&client, "POST /v2/team/y/blobs/uploads/", b"", &full("team"));
    check(&client, &format!("PUT {other}?digest={}", sha256(&content(6, 50_000))), b"", "201");
    check(&client, "POST /v2/team/y/blobs/uploads/", b"", &full("team"));
    let got = check(&client, "POST /v2/team/y/blobs/uploads/", b"", "403 DENIED");
    let error = &got.json()["errors"][0];
    assert_eq!(error["detail"], serde_json::json!({ "prefix": "team", "limit": 300_000, "used": 300_000, "asked": 1 }));
    let message = "the quota of team is 292 KiB: images and uploads under way take 292 KiB, and 1 B more were asked for; \
                   delete images, whose room is free after the grace period, or have it raised";
    assert_eq!(error["message"], message);
}

#[test]
fn a_body_of_unknown_length_is_cut_where_it_does_not_fit() {
    let server = registry();
    let client = server.client();
    let upload = begin(&client, "team/api");
    let path = upload.strip_prefix(&server.url()).expect("a location on this server").to_owned();
    let mut wire = Wire::tcp(server.host_port()).expect("a connection");
    wire.send(format!("PATCH {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")).expect("sent");
    // The end never comes, and the answer does not wait for it.
    wire.send_chunks(&content(9, 300_000), 100_000, true).ok();
    let got = wire.answer("PATCH").expect("an answer");
    assert_eq!((got.status, got.error_code().as_str()), (403, "DENIED"), "{}", got.text());
    drop(wire);
    // All of it is free again.
    let upload = begin(&client, "team/api");
    check(&client, &format!("PATCH {upload}"), &content(7, 190_000), "202");
}

#[test]
fn manifests_count_as_well() {
    let server = registry();
    let client = server.client();
    push_image(&client, "team/api", "x", 1);
    let bytes = content(8, 199_000);
    let layer = push(&client, "team/api", sha256, &bytes);
    let manifest = image(&[(&layer, 199_000)]);
    let padded =
        |size: usize| manifest.replacen('{', &format!("{{\"annotations\":{{\"x\":\"{}\"}},", "y".repeat(size)), 1);
    put(&client, "team/api", "y", OCI_MANIFEST, padded(2000).as_bytes(), "403 DENIED");
    check(&client, &get_manifest("team/api", "y"), b"", "404 MANIFEST_UNKNOWN");
    put(&client, "team/api", "y", OCI_MANIFEST, manifest.as_bytes(), "201");
}
