//! Manifests: kept byte for byte whatever they are, and refused with a reason.

use testkit::{
    client::Client,
    image::{sha256, sha512},
    server::Setup,
};

use crate::{
    ALGORITHMS, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, PLAIN, REGISTRY, check, content, descriptor,
    get_manifest, image, plain_registry, push, put,
};

const OCTETS: &str = "application/octet-stream";

/// Fails unless a manifest is served as it was pushed, by tag and by digest.
#[track_caller]
fn check_served(client: &Client, repo: &str, references: &[&str], kind: &str, bytes: &[u8], digest: &str) {
    for reference in references {
        let expected = format!(
            "200 | content-type: {kind} | docker-content-digest: {digest} | etag: \"{digest}\" | content-length: {}",
            bytes.len()
        );
        let get = get_manifest(repo, reference);
        let got = check(client, &get, b"", &expected);
        assert!(got.body == bytes, "{reference} differs");
        check(client, &get.replacen("GET", "HEAD", 1), b"", &expected);
        for same in [format!("\"{digest}\""), digest.to_owned(), format!("W/\"{digest}\""), "\"x\", *".into()] {
            let unchanged = format!("304 | docker-content-digest: {digest} | etag: \"{digest}\"");
            let got = check(client, &format!("{get} | If-None-Match: {same}"), b"", &unchanged);
            assert!(got.body.is_empty());
        }
        check(client, &format!("{get} | If-None-Match: \"x\""), b"", "200");
    }
}

#[test]
fn every_kind_is_kept_byte_for_byte() {
    let mut server = plain_registry();
    let client = server.client();
    let repo = "kinds/all";
    let config = push(&client, repo, sha256, b"{}");
    let layer = push(&client, repo, sha512, &content(1, 70_000));
    let image_bytes = image(&[(&config, 2), (&layer, 70_000)]);
    let image_digest = sha256(image_bytes.as_bytes());
    put(&client, repo, "base", OCI_MANIFEST, image_bytes.as_bytes(), "201");
    let oci_image = descriptor(OCI_MANIFEST, &image_digest, image_bytes.len(), "");
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{oci_image}]}}"#);
    put(&client, repo, "index", OCI_INDEX, index.as_bytes(), "201");
    let nested = descriptor(OCI_INDEX, &sha256(index.as_bytes()), index.len(), "");
    let config_of = |kind: &str| descriptor(kind, &config, 2, "");
    let oci_config = config_of("application/vnd.oci.image.config.v1+json");
    let docker_config = config_of("application/vnd.docker.container.image.v1+json");
    let docker_layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer, 70_000, "");
    let absent = sha256(b"absent");
    let foreign = |kind: &str| descriptor(kind, &absent, 9, "");
    let head = |kind: &str| format!(r#""schemaVersion":2,"mediaType":"{kind}""#);
    let (oci, idx, docker, list) = (head(OCI_MANIFEST), head(OCI_INDEX), head(DOCKER_MANIFEST), head(DOCKER_LIST));
    let empty = descriptor("application/vnd.oci.empty.v1+json", &config, 2, r#","data":"e30=""#);
    let artifact_kind = "application/vnd.oci.artifact.manifest.v1+json";
    let kinds: &[(&str, &str, String)] = &[
        ("image", OCI_MANIFEST, image_bytes.replace('{', "{ \n")),
        ("no-layers", OCI_MANIFEST, format!("{{{oci},\"config\":{oci_config},\"layers\":[]}}")),
        ("layers-absent", OCI_MANIFEST, format!("{{{oci},\"config\":{oci_config}}}")),
        (
            "artifact",
            OCI_MANIFEST,
            format!("{{{oci},\"artifactType\":\"a/b\",\"config\":{empty},\"layers\":[{empty}]}}"),
        ),
        (
            "unknown-fields",
            OCI_MANIFEST,
            format!("{{\"x\":[{{}}],{oci},\"config\":{oci_config},\"layers\":[],\"é\":null}}\n\n"),
        ),
        ("no-media-type", OCI_MANIFEST, format!("{{\"schemaVersion\":2,\"config\":{oci_config},\"layers\":[]}}")),
        (
            "foreign",
            OCI_MANIFEST,
            format!(
                "{{{oci},\"config\":{oci_config},\"layers\":[{},{}]}}",
                foreign("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
                foreign("application/vnd.oci.image.layer.nondistributable.v1.tar")
            ),
        ),
        ("index", OCI_INDEX, index.clone()),
        ("empty-index", OCI_INDEX, format!("{{{idx},\"manifests\":[]}}")),
        (
            "nested",
            OCI_INDEX,
            format!("{{{idx},\"manifests\":[{nested},{oci_image}],\"annotations\":{{\"a\":\"b\"}}}}"),
        ),
        ("docker", DOCKER_MANIFEST, format!("{{{docker},\"config\":{docker_config},\"layers\":[{docker_layer}]}}")),
        (
            "docker-foreign",
            DOCKER_MANIFEST,
            format!(
                "{{{docker},\"config\":{docker_config},\"layers\":[{}]}}",
                foreign("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
            ),
        ),
        ("list", DOCKER_LIST, format!("{{{list},\"manifests\":[{oci_image}]}}")),
        (
            "old-artifact",
            artifact_kind,
            format!("{{\"mediaType\":\"{artifact_kind}\",\"artifactType\":\"a/b\",\"blobs\":[{empty}]}}"),
        ),
    ];
    for (tag, kind, text) in kinds {
        let digest = sha256(text.as_bytes());
        let expected = format!(
            "201 | docker-content-digest: {digest} | location: ~/v2/{repo}/manifests/{digest} | content-length: 0 | oci-subject: -"
        );
        put(&client, repo, tag, kind, text.as_bytes(), &expected);
        put(&client, repo, &digest, &format!("{kind}; charset=utf-8"), text.as_bytes(), &expected);
        let digest = sha512(text.as_bytes());
        put(&client, repo, &digest, kind, text.as_bytes(), &format!("201 | docker-content-digest: {digest}"));
        let by_tag = format!("512-{tag}?digest={digest}");
        put(&client, repo, &by_tag, kind, text.as_bytes(), &format!("201 | docker-content-digest: {digest}"));
    }
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        for (tag, kind, text) in kinds {
            let [short, long] = ALGORITHMS.map(|algorithm| algorithm(text.as_bytes()));
            check_served(&client, repo, &[tag, &short], kind, text.as_bytes(), &short);
            check_served(&client, repo, &[&format!("512-{tag}"), &long], kind, text.as_bytes(), &long);
        }
    }
    for unknown in ["absent", &sha256(b"absent"), &sha512(b"absent")] {
        check(&client, &get_manifest(repo, unknown), b"", "404 MANIFEST_UNKNOWN");
        check(&client, &get_manifest("unknown/repo", unknown), b"", "404 MANIFEST_UNKNOWN");
        check(&client, &format!("HEAD /v2/{repo}/manifests/{unknown}"), b"", "404");
    }
}

#[test]
fn bad_documents_are_refused_with_a_reason() {
    let server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let config = descriptor("application/vnd.oci.image.config.v1+json", &config, 2, "");
    let good = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[]}}"#);
    let check = |kind: &str, text: &str, reason: &str| {
        let got = put(&client, "r", "bad", kind, text.as_bytes(), "400 MANIFEST_INVALID");
        let message = got.json()["errors"][0]["message"].to_string();
        assert!(message.to_lowercase().contains(&reason.to_lowercase()), "{reason:?} is not said: {message}");
    };
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    check(OCI_MANIFEST, "", "JSON");
    check(OCI_MANIFEST, "{", "JSON");
    check(OCI_MANIFEST, "[]", "JSON");
    check(OCI_MANIFEST, "null", "JSON");
    check(OCI_MANIFEST, "\"x\"", "JSON");
    check(OCI_MANIFEST, &format!("{good}{good}"), "JSON");
    check(OCI_MANIFEST, &format!("{good}\0"), "JSON");
    check(OCI_MANIFEST, &"[".repeat(200_000), "JSON");
    check(OCI_MANIFEST, &with("\"layers\":[]", &format!("\"layers\":[],\"x\":{}", "[".repeat(100_000))), "JSON");
    check(OCI_MANIFEST, &with("\"layers\":[]", "\"layers\":{}"), "JSON");
    check(OCI_MANIFEST, &with("\"layers\":[]", "\"layers\":[],\"layers\":[]"), "layers");
    check(OCI_MANIFEST, &with("\"size\":2", "\"size\":\"2\""), "JSON");
    check(OCI_MANIFEST, &with("\"size\":2", "\"size\":-2"), "negative");
    check(OCI_MANIFEST, &with("\"size\":2", "\"size\":1e99"), "JSON");
    check(OCI_MANIFEST, &with("sha256:", "md5:"), "digest");
    check(OCI_MANIFEST, &with("sha256:", "sha256:é"), "digest");
    check(OCI_MANIFEST, &with("\"schemaVersion\":2,", ""), "schemaVersion");
    check(OCI_MANIFEST, &with("\"schemaVersion\":2", "\"schemaVersion\":3"), "schemaVersion");
    check(OCI_MANIFEST, &with("\"config\":", "\"konfig\":"), "config");
    check(OCI_MANIFEST, &with("\"layers\":[]", "\"layers\":[],\"manifests\":[]"), "manifests");
    check(OCI_MANIFEST, &with("\"layers\":[]", "\"layers\":[],\"subject\":{\"digest\":\"x\",\"size\":1}"), "subject");
    check(OCI_INDEX, &with(OCI_MANIFEST, OCI_INDEX), "layers");
    check(OCI_INDEX, &with(OCI_MANIFEST, OCI_INDEX).replace(",\"layers\":[]", ",\"manifests\":[]"), "config");
    check(DOCKER_MANIFEST, &good, DOCKER_MANIFEST);
    check(OCI_INDEX, &good, OCI_INDEX);
    check("application/vnd.example+json", &with(OCI_MANIFEST, "application/vnd.example+json"), "unsupported");
    check("text/html", "<html>", "JSON");
    check(OCTETS, &with(OCI_MANIFEST, "a/b"), "unsupported");
    for kind in ["v1+json", "v1+prettyjws"] {
        let kind = format!("application/vnd.docker.distribution.manifest.{kind}");
        let text = r#"{"schemaVersion":1,"name":"r","tag":"bad","fsLayers":[],"history":[]}"#;
        check(&kind, text, "schema 1 is no longer supported");
        check(OCTETS, text, "schema 1 is no longer supported");
    }
    crate::check(&client, &get_manifest("r", "bad"), b"", "404 MANIFEST_UNKNOWN");
    for digest in [sha256(b"other"), sha512(b"other")] {
        put(&client, "r", &digest, OCI_MANIFEST, good.as_bytes(), "400 DIGEST_INVALID");
        put(&client, "r", &format!("tag?digest={digest}"), OCI_MANIFEST, good.as_bytes(), "400 DIGEST_INVALID");
    }
    for kind in [OCI_MANIFEST, OCTETS, "application/json"] {
        put(&client, "r", "good", kind, good.as_bytes(), "201");
    }
}

#[test]
fn references_have_to_be_there() {
    let server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let elsewhere = push(&client, "elsewhere", sha256, b"elsewhere");
    let absent = sha512(b"absent");
    let text = image(&[(&config, 2), (&elsewhere, 9), (&config, 2), (&absent, 6)]);
    let got = put(&client, "r", "t", OCI_MANIFEST, text.as_bytes(), "400 MANIFEST_BLOB_UNKNOWN");
    for digest in [&elsewhere, &absent] {
        assert!(got.text().contains(digest.as_str()), "{digest} is not named in {}", got.text());
    }
    assert!(!got.text().contains(&config), "{}", got.text());
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        descriptor(OCI_MANIFEST, &absent, 6, "")
    );
    let got = put(&client, "r", "t", OCI_INDEX, index.as_bytes(), "400 MANIFEST_BLOB_UNKNOWN");
    assert!(got.text().contains(&absent), "{}", got.text());
    check(&client, &get_manifest("r", "t"), b"", "404 MANIFEST_UNKNOWN");
}

#[test]
fn a_push_by_digest_sets_many_tags() {
    let server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let text = image(&[(&config, 2)]);
    let digest = sha256(text.as_bytes());
    let tags: Vec<String> = (0..100).map(|number| format!("v{number}")).collect();
    let put = |query: &str, expected: &str| {
        put(&client, "r", &format!("{digest}?{query}"), OCI_MANIFEST, text.as_bytes(), expected)
    };
    put("tag=1.2.3&tag=1.2&tag=1&tag=1", "201 | oci-tag: 1.2.3, 1.2, 1");
    put("", "201 | oci-tag: -");
    put(
        &tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&"),
        &format!("201 | oci-tag: {}", tags.join(", ")),
    );
    for tag in ["1.2.3", "1.2", "1", "v0", "v99"] {
        check(&client, &get_manifest("r", tag), b"", &format!("200 | docker-content-digest: {digest}"));
    }
    let many: Vec<String> = (0..101).map(|number| format!("tag=w{number}")).collect();
    put(&many.join("&"), "414 TAG_INVALID");
    for bad in ["", "-x", "a%2Fb", "%00", &"a".repeat(129)] {
        put(&format!("tag=good&tag={bad}"), "400 TAG_INVALID");
    }
    for unset in ["w0", "good"] {
        check(&client, &get_manifest("r", unset), b"", "404 MANIFEST_UNKNOWN");
    }
}

/// A manifest of exactly `size` bytes.
fn padded(config: &str, size: usize) -> String {
    let text = image(&[(config, 2)]).replacen('{', "{\"annotations\":{\"pad\":\"\"},", 1);
    text.replacen("\"pad\":\"", &format!("\"pad\":\"{}", "x".repeat(size - text.len())), 1)
}

#[test]
fn manifests_have_a_limit() {
    let mut server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let limit = 4 * 1024 * 1024;
    let sizes = [65_536, 65_537, 300_000, limit];
    let texts = sizes.map(|size| padded(&config, size));
    for text in &texts {
        put(&client, "r", &format!("t{}", text.len()), OCI_MANIFEST, text.as_bytes(), "201");
    }
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        for text in &texts {
            let digest = sha256(text.as_bytes());
            check_served(&client, "r", &[&format!("t{}", text.len()), &digest], OCI_MANIFEST, text.as_bytes(), &digest);
        }
    }
    put(&client, "r", "huge", OCI_MANIFEST, padded(&config, limit + 1).as_bytes(), "413 MANIFEST_INVALID");
    put(&client, "r", "huge", OCI_MANIFEST, &vec![b' '; 20 << 20], "413 MANIFEST_INVALID");
    check(&client, &get_manifest("r", "huge"), b"", "404 MANIFEST_UNKNOWN");
}

#[test]
fn urls_are_judged_by_the_configuration() {
    let text = |config: &str, url: &str| {
        let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        let layer = descriptor(kind, &sha256(b"absent"), 9, &format!(r#","urls":["{url}"]"#));
        image(&[(config, 2)]).replace("\"layers\":[", &format!("\"layers\":[{layer}"))
    };
    let check = |rules: &str, table: &[(&str, &str)]| {
        let config = format!("{PLAIN}{rules}");
        let server = Setup::new(REGISTRY, &config).start();
        let client = server.client();
        let config = push(&client, "r", sha256, b"{}");
        for (url, expected) in table {
            put(&client, "r", "t", OCI_MANIFEST, text(&config, url).as_bytes(), expected);
        }
    };
    let refused = "400 MANIFEST_INVALID";
    let section = |rules: &str| format!("validation:\n  manifests:\n    urls: {{{rules}}}\n");
    check("", &[("https://any/x", refused)]);
    check("validation:\n  disabled: true\n", &[("https://any/x", "201"), ("ftp://any/x", "201")]);
    check(
        &section("allow: ['^https://good/'], deny: [secret]"),
        &[
            ("https://good/x", "201"),
            ("https://good/secret", refused),
            ("https://other/x", refused),
            ("ftp://good/x", refused),
        ],
    );
    check(&section("deny: ['^http://']"), &[("https://any/x", "201"), ("http://any/x", refused)]);
}
