//! Mounting blobs from other repositories.

use testkit::image::sha256;

use crate::{ALGORITHMS, check, content, plain_registry, push};

#[test]
fn blobs_are_mounted() {
    let mut server = plain_registry();
    let client = server.client();
    let mut blobs = Vec::new();
    for (seed, algorithm) in (60..).zip(ALGORITHMS) {
        for size in [0, 10, 100_000] {
            let bytes = content(seed, size);
            blobs.push((push(&client, "src", algorithm, &bytes), bytes));
        }
    }
    for (index, restart) in [false, true].into_iter().enumerate() {
        if restart {
            server.restart();
        }
        for (digest, bytes) in &blobs {
            for (way, query) in [
                ("named", format!("mount={digest}&from=src")),
                ("anonymous", format!("mount={digest}")),
                ("escaped", format!("from=src&mount={}", digest.replace(':', "%3A"))),
            ] {
                let to = format!("{way}/to{index}");
                let expected = format!(
                    "201 | docker-content-digest: {digest} | location: ~/v2/{to}/blobs/{digest} | content-length: 0"
                );
                check(&client, &format!("POST /v2/{to}/blobs/uploads/?{query}"), b"", &expected);
                let got = check(&client, &format!("GET /v2/{to}/blobs/{digest}"), b"", "200");
                assert!(got.body == *bytes, "{digest} differs in {to}");
            }
            check(&client, &format!("POST /v2/src/blobs/uploads/?mount={digest}&from=src"), b"", "201");
        }
    }
}

#[test]
fn what_cannot_be_mounted_is_uploaded() {
    let server = plain_registry();
    let client = server.client();
    let held = push(&client, "src", sha256, b"held");
    let absent = sha256(b"absent");
    for query in [
        format!("mount={held}&from=unknown"),
        format!("mount={held}&from=BAD..NAME"),
        format!("mount={absent}&from=src"),
        format!("mount={absent}"),
    ] {
        let expected = "202 | location: ~/blobs/uploads/ | range: 0-0 | docker-upload-uuid: ~-4";
        let got = check(&client, &format!("POST /v2/to/blobs/uploads/?{query}"), b"", expected);
        check(&client, &format!("GET /v2/to/blobs/{held}"), b"", "404 BLOB_UNKNOWN");
        let body = format!("uploaded for {query}");
        let target = format!("{}?digest={}", got.header("location"), sha256(body.as_bytes()));
        check(&client, &format!("PUT {target}"), body.as_bytes(), "201");
    }
    for bad in ["", "x", "sha256:12", "md5:900150983cd24fb0d6963f7d28e17f72", "sha256"] {
        check(&client, &format!("POST /v2/to/blobs/uploads/?mount={bad}&from=src"), b"", "400 DIGEST_INVALID");
    }
}
