//! Indexes whose entries may be absent, and Docker lists for clients from before them.

use testkit::{
    image::sha256,
    server::{Server, Setup},
};

use crate::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, PLAIN, REGISTRY, check, descriptor, image, push, put,
};

fn registry(policy: &str) -> Server {
    let section = match policy {
        "" => String::new(),
        policy => format!("validation:\n  manifests:\n    indexes:\n      {}\n", policy.replace(';', "\n      ")),
    };
    Setup::new(REGISTRY, &format!("{PLAIN}{section}")).start()
}

fn platform(architecture: &str) -> String {
    format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}"#)
}

#[test]
fn sparse_indexes_follow_the_policy() {
    let listed = "platforms: list;platformlist: [{architecture: amd64, os: linux}]";
    for (policy, amd64_absent, arm64_absent) in
        [("", false, false), ("platforms: all", false, false), ("platforms: none", true, true), (listed, false, true)]
    {
        let server = registry(policy);
        let client = server.client();
        let config = push(&client, "r", sha256, b"{}");
        let present = image(&[(&config, 2)]);
        put(&client, "r", "p", OCI_MANIFEST, present.as_bytes(), "201");
        let present = (sha256(present.as_bytes()), present.len());
        let absent = (sha256(b"absent"), 6);
        for (kind, child) in [(OCI_INDEX, OCI_MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)] {
            for (amd64, arm64, good) in
                [(&present, &present, true), (&absent, &present, amd64_absent), (&present, &absent, arm64_absent)]
            {
                let entry = |(digest, size): &(String, usize), architecture: &str| {
                    descriptor(child, digest, *size, &platform(architecture))
                };
                let entries = format!("{},{}", entry(amd64, "amd64"), entry(arm64, "arm64"));
                let text = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{entries}]}}"#);
                let expected = if good { "201" } else { "400 MANIFEST_BLOB_UNKNOWN" };
                put(&client, "r", "index", kind, text.as_bytes(), expected);
            }
        }
    }
}

#[test]
fn old_clients_get_the_child_of_a_docker_list() {
    let server = registry("");
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let mut entries = Vec::new();
    let mut children = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let text = image(&[(&config, 2)]).replace(OCI_MANIFEST, DOCKER_MANIFEST);
        let text = text.replacen('{', &format!("{{\"x\":\"{architecture}\","), 1);
        put(&client, "r", architecture, DOCKER_MANIFEST, text.as_bytes(), "201");
        entries.push(descriptor(DOCKER_MANIFEST, &sha256(text.as_bytes()), text.len(), &platform(architecture)));
        children.push(sha256(text.as_bytes()));
    }
    let list = |entries: &[String]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{}]}}"#, entries.join(","))
    };
    let (both, arm_only) = (list(&entries), list(&entries[..1]));
    put(&client, "r", "both", DOCKER_LIST, both.as_bytes(), "201");
    put(&client, "r", "arm", DOCKER_LIST, arm_only.as_bytes(), "201");
    let (whole, child) = (sha256(both.as_bytes()), &children[1]);
    for (reference, accept, kind, digest) in [
        ("both", DOCKER_MANIFEST, DOCKER_MANIFEST, child),
        ("both", &format!("{DOCKER_MANIFEST};q=0.9, application/json"), DOCKER_MANIFEST, child),
        ("both", &format!("{DOCKER_MANIFEST}, {DOCKER_LIST}"), DOCKER_LIST, &whole),
        ("both", &format!("{DOCKER_MANIFEST} | Accept: {DOCKER_LIST}"), DOCKER_LIST, &whole),
        ("both", "*/*", DOCKER_LIST, &whole),
        (&whole, DOCKER_MANIFEST, DOCKER_LIST, &whole),
        ("arm", DOCKER_MANIFEST, DOCKER_LIST, &sha256(arm_only.as_bytes())),
    ] {
        let expected = format!("200 | content-type: {kind} | docker-content-digest: {digest} | etag: \"{digest}\"");
        for method in ["GET", "HEAD"] {
            check(&client, &format!("{method} /v2/r/manifests/{reference} | Accept: {accept}"), b"", &expected);
        }
    }
}
