//! `garbage-collect`: only what nothing refers to goes, and its bytes really do.

use std::path::PathBuf;

use testkit::{
    command::{Outcome, run, tool},
    image::{sha256, sha512},
    server::Server,
};

use crate::{
    OCI_INDEX, OCI_MANIFEST, REGISTRY, check, content, descriptor, get_manifest, image, plain_registry, push, put,
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

    let refused = collect(&server, &[]);
    assert_eq!(refused.code, Some(1));
    refused.refused(&["in use by another registry", "stop it first"]);
    server.stop();
    let files = |server: &Server| {
        [&tagged, &indexed, &untagged, &orphan, &deleted, &referrer, &shared]
            .map(|digest| file(server, digest).exists())
    };
    let dry = collect(&server, &["--dry-run"]).ok();
    for digest in [&orphan, &small_orphan, &deleted, &gone] {
        assert!(dry.stdout.contains(&format!("blob eligible for deletion: {digest}")), "{digest}: {dry}");
    }
    assert!(!dry.stdout.contains(&format!("blob eligible for deletion: {tagged}")), "{dry}");
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
