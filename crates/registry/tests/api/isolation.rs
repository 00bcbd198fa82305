//! Nobody reads through one repository what another one holds, nor learns that it does.

use testkit::{
    client::Client,
    image::{sha256, sha512},
    issuer::{Account, Issuer, KeyHint},
    server::Setup,
};

use crate::{OCI_MANIFEST, PLAIN, REGISTRY, check, get_manifest, image, plain_registry, push, push_image, put};

#[test]
fn content_is_read_through_a_repository_that_holds_it() {
    let server = plain_registry();
    let client = server.client();
    for algorithm in crate::ALGORITHMS {
        for size in [5, 100_000] {
            let blob = push(&client, "mine", algorithm, &crate::content(5, size));
            push(&client, "theirs", sha256, b"something else");
            for repo in ["theirs", "nobody", "mine/sub", "min"] {
                check(&client, &format!("GET /v2/{repo}/blobs/{blob}"), b"", "404 BLOB_UNKNOWN");
                check(&client, &format!("HEAD /v2/{repo}/blobs/{blob}"), b"", "404");
                check(&client, &format!("GET /v2/{repo}/blobs/{blob} | Range: bytes=0-1"), b"", "404 BLOB_UNKNOWN");
                check(&client, &format!("GET /v2/{repo}/blobs/{blob} | If-None-Match: *"), b"", "404 BLOB_UNKNOWN");
                let text = image(&[(&blob, size)]);
                put(&client, repo, "t", OCI_MANIFEST, text.as_bytes(), "400 MANIFEST_BLOB_UNKNOWN");
            }
        }
    }
    let manifest = push_image(&client, "mine", "t", 1);
    for repo in ["theirs", "nobody"] {
        for reference in ["t", &manifest] {
            check(&client, &get_manifest(repo, reference), b"", "404 MANIFEST_UNKNOWN");
        }
        check(&client, &format!("GET /v2/{repo}/blobs/{manifest}"), b"", "404 BLOB_UNKNOWN");
    }
}

const ACCOUNTS: &[Account] = &[
    Account {
        name: "root",
        password: "",
        access: &[("mine/*", "pull,push,delete"), ("secret/*", "pull,push,delete"), ("catalog", "*")],
    },
    Account { name: "dev", password: "", access: &[("mine/*", "pull,push")] },
];

#[test]
fn tokens_keep_repositories_apart() {
    let issuer = Issuer::start(ACCOUNTS, KeyHint::KeyId);
    let (realm, jwks) = (issuer.realm(), issuer.jwks());
    let auth = format!(
        "auth:\n  token:\n    realm: {realm}\n    service: {}\n    issuer: {}\n    jwks: {}\n",
        Issuer::SERVICE,
        Issuer::NAME,
        jwks.display()
    );
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{auth}")).start();
    let caller = |account: &str, scope: &str| Client::bearer(&server.url(), &issuer.token(account, scope, 300));
    let root = caller("root", "repository:secret/a:pull,push,delete repository:mine/a:pull,push registry:catalog:*");
    let dev = caller("dev", "repository:mine/a:pull,push repository:secret/a:pull,push registry:catalog:*");
    push_image(&root, "secret/a", "t", 1);
    let unauthorized = "401 UNAUTHORIZED | www-authenticate: ~Bearer realm=";
    for (seed, algorithm) in (1..).zip([sha256, sha512]) {
        let bytes = crate::content(seed, 200);
        let blob = push(&root, "secret/a", algorithm, &bytes);
        let absent = algorithm(b"absent");
        check(&dev, &format!("GET /v2/secret/a/blobs/{blob}"), b"", unauthorized);
        let mount = |digest: &str, from: &str| {
            let got = check(&dev, &format!("POST /v2/mine/a/blobs/uploads/?mount={digest}{from}"), b"", "202");
            let location = got.header("location").to_owned();
            let headers: Vec<String> = got.headers().iter().map(|line| shape(line)).collect();
            (headers, location)
        };
        for from in ["&from=secret/a", "", "&from=secret/unknown"] {
            // What is there and what is not look the same.
            let (held, location) = mount(&blob, from);
            assert_eq!(held, mount(&absent, from).0, "{from}");
            check(&dev, &format!("GET /v2/mine/a/blobs/{blob}"), b"", "404 BLOB_UNKNOWN");
            check(&dev, &format!("HEAD {location}"), b"", "204 | range: 0-0");
        }
        let text = image(&[(&blob, 200)]);
        put(&dev, "mine/a", "t", OCI_MANIFEST, text.as_bytes(), "400 MANIFEST_BLOB_UNKNOWN");
        check(&root, &format!("POST /v2/mine/a/blobs/uploads/?mount={blob}&from=secret/a"), b"", "201");
        check(&dev, &format!("GET /v2/mine/a/blobs/{blob}"), b"", "200");
    }
    let got = check(&root, "GET /v2/_catalog", b"", "200");
    assert_eq!(got.json()["repositories"], serde_json::json!(["secret/a"]));
    let scope = "www-authenticate: ~scope=\"registry:catalog:*\"";
    for stranger in [&dev, &server.client(), &caller("dev", "repository:mine/a:pull")] {
        check(stranger, "GET /v2/_catalog", b"", &format!("{unauthorized} | {scope}"));
    }
    check(&dev, "DELETE /v2/mine/a/manifests/t", b"", unauthorized);
    for path in ["secret/a/manifests/t", "secret/a/manifests/absent", "secret/a/tags/list", "secret/none/tags/list"] {
        check(&dev, &format!("GET /v2/{path}"), b"", unauthorized);
    }
    check(&dev, &format!("GET /v2/secret/a/referrers/{}", sha256(b"x")), b"", unauthorized);
}

/// A header without what differs from answer to answer.
fn shape(line: &str) -> String {
    let (name, value) = line.split_once(": ").unwrap_or((line, ""));
    match name {
        "location" | "docker-upload-uuid" | "x-request-id" | "date" | "warning" => name.to_owned(),
        _ => format!("{name}: {value}"),
    }
}
