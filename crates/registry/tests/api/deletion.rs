//! Deleting, and refusing to: at once, switched off, read-only.

use testkit::{
    image::{sha256, sha512},
    process::{signal, wait_until},
    server::Setup,
};

use crate::{
    ALGORITHMS, DEBUG, OCI_MANIFEST, PLAIN, REGISTRY, check, content, get_manifest, image, plain_registry, push,
    push_image, put,
};

#[test]
fn what_is_deleted_is_gone_at_once() {
    let mut server = plain_registry();
    let client = server.client();
    let digest = push_image(&client, "r", "one", 1);
    push_image(&client, "r", "two", 1);
    push_image(&client, "r", "keep", 2);
    let get = |reference: &str, expected: &str| drop(check(&client, &get_manifest("r", reference), b"", expected));
    let (unknown, delete) = ("404 MANIFEST_UNKNOWN", |target: &str| format!("DELETE /v2/r/{target}"));
    // Read first, so that an answer kept in memory would show.
    get("one", "200");
    check(&client, &delete("manifests/one"), b"", "202");
    get("one", unknown);
    check(&client, &delete("manifests/one"), b"", unknown);
    get("two", "200");
    get(&digest, "200");
    check(&client, &delete(&format!("manifests/{digest}")), b"", "202");
    get("two", unknown);
    get(&digest, unknown);
    check(&client, &delete(&format!("manifests/{digest}")), b"", unknown);
    let got = check(&client, "GET /v2/r/tags/list", b"", "200");
    assert_eq!(got.json()["tags"], serde_json::json!(["keep"]));
    for (seed, algorithm) in (70..).zip(ALGORITHMS) {
        for size in [0, 10, 100_000] {
            let blob = push(&client, "r", algorithm, &content(seed, size));
            push(&client, "other", algorithm, &content(seed, size));
            check(&client, &format!("GET /v2/r/blobs/{blob}"), b"", "200");
            check(&client, &delete(&format!("blobs/{blob}")), b"", "202 | content-length: 0");
            check(&client, &format!("GET /v2/r/blobs/{blob}"), b"", "404 BLOB_UNKNOWN");
            check(&client, &format!("HEAD /v2/r/blobs/{blob}"), b"", "404");
            check(&client, &delete(&format!("blobs/{blob}")), b"", "404 BLOB_UNKNOWN");
            check(&client, &format!("GET /v2/other/blobs/{blob}"), b"", "200");
            check(&client, &format!("POST /v2/r/blobs/uploads/?mount={blob}&from=other"), b"", "201");
            check(&client, &format!("GET /v2/r/blobs/{blob}"), b"", "200");
        }
    }
    server.restart();
    get("one", unknown);
    get("two", unknown);
    get("keep", "200");
    for target in ["manifests/x", &format!("manifests/{digest}"), &format!("blobs/{}", sha512(b"x"))] {
        let got = client.send("DELETE", &format!("/v2/unknown/{target}"), &[], b"").expect("an answer");
        assert_eq!(got.status, 404, "{target}");
    }
}

#[test]
fn deleting_can_be_switched_off() {
    let server = Setup::new(REGISTRY, &PLAIN.replace("enabled: true", "enabled: false")).start();
    let client = server.client();
    let digest = push_image(&client, "r", "t", 1);
    let blob = push(&client, "r", sha256, b"blob");
    for target in ["manifests/t", &format!("manifests/{digest}"), &format!("blobs/{blob}"), "manifests/absent"] {
        check(&client, &format!("DELETE /v2/r/{target}"), b"", "405 UNSUPPORTED");
    }
    check(&client, &get_manifest("r", "t"), b"", "200");
    let upload = check(&client, "POST /v2/r/blobs/uploads/", b"", "202");
    check(&client, &format!("DELETE {}", upload.header("location")), b"", "204");
}

#[test]
fn read_only_is_switched_while_running() {
    let config = format!("{PLAIN}{DEBUG}");
    let mut server = Setup::new(REGISTRY, &config).start();
    let client = server.client();
    let digest = push_image(&client, "r", "t", 1);
    let blob = push(&client, "r", sha256, b"blob");
    let text = image(&[(&blob, 4)]);
    let upload = check(&client, "POST /v2/r/blobs/uploads/", b"", "202").header("location").to_owned();
    let debug = |method: &str, path: &str| {
        let url = format!("{}{path}", server.debug_url());
        testkit::http::send(method, &url, &[], b"").expect("an answer of the debug listener")
    };
    let check_writes = |read_only: bool| {
        let expect = |otherwise: &'static str| if read_only { "405 UNSUPPORTED" } else { otherwise };
        put(&client, "r", "u", OCI_MANIFEST, text.as_bytes(), expect("201"));
        check(&client, "POST /v2/r/blobs/uploads/", b"", expect("202"));
        check(&client, &format!("POST /v2/r/blobs/uploads/?mount={blob}&from=r"), b"", expect("201"));
        check(&client, &format!("POST /v2/r/blobs/uploads/?digest={blob}"), b"blob", expect("201"));
        check(&client, &format!("PATCH {upload}"), b"x", expect("202"));
        if read_only {
            check(&client, &format!("PUT {upload}?digest={blob}"), b"", "405 UNSUPPORTED");
            check(&client, &format!("DELETE {upload}"), b"", "405 UNSUPPORTED");
            for target in ["manifests/t", &format!("manifests/{digest}"), &format!("blobs/{blob}")] {
                check(&client, &format!("DELETE /v2/r/{target}"), b"", "405 UNSUPPORTED");
            }
        }
        for read in ["manifests/t", &format!("blobs/{blob}"), "tags/list", &format!("referrers/{digest}")] {
            check(&client, &format!("GET /v2/r/{read}"), b"", "200");
        }
        check(&client, &format!("GET {upload}"), b"", "204");
        check(&client, "GET /v2/_catalog", b"", "200");
    };
    check_writes(false);
    assert_eq!(debug("POST", "/debug/readonly/on").status, 200);
    assert_eq!(debug("GET", "/debug/readonly").text(), "true\n");
    check_writes(true);
    assert_eq!(debug("GET", "/debug/readonly/on").status, 405);
    assert_eq!(debug("POST", "/debug/readonly/off").status, 200);
    check_writes(false);
    for read_only in [true, false] {
        let maintenance = format!("  maintenance:\n    readonly:\n      enabled: {read_only}\nhttp:");
        server.write_config(&config.replace("http:", &maintenance));
        signal(server.id(), "HUP");
        let state = format!("{}/debug/readonly", server.debug_url());
        let switched = || {
            let got = testkit::http::send("GET", &state, &[], b"");
            got.is_ok_and(|got| got.text() == format!("{read_only}\n"))
        };
        assert!(wait_until(std::time::Duration::from_secs(10), switched), "SIGHUP has no effect");
        let expected = if read_only { "405 UNSUPPORTED" } else { "202" };
        check(&client, "POST /v2/r/blobs/uploads/", b"", expected);
    }
}
