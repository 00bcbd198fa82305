//! Reading blobs: whole, in parts, conditionally, small and large, before and after a restart.

use testkit::client::Client;

use crate::{ALGORITHMS, check, content, plain_registry, push};

/// Kept beside the metadata up to 65536, in a file above.
const SIZES: [usize; 5] = [20, 1000, 65_536, 65_537, 300_000];

#[test]
fn blobs_are_served_whole_and_in_parts() {
    let mut server = plain_registry();
    let client = server.client();
    let mut pushed = Vec::new();
    for (seed, algorithm) in (1..).zip(ALGORITHMS) {
        for size in SIZES {
            let bytes = content(seed, size);
            pushed.push((push(&client, "r/blobs", algorithm, &bytes), bytes));
        }
    }
    // The second time from memory, the third from the data folder.
    for restart in [false, false, true] {
        if restart {
            server.restart();
        }
        for (digest, bytes) in &pushed {
            check_reads(&client, digest, bytes);
        }
    }
}

fn check_reads(client: &Client, digest: &str, bytes: &[u8]) {
    let size = bytes.len();
    let target = format!("/v2/r/blobs/blobs/{digest}");
    let always = format!(
        "docker-content-digest: {digest} | etag: \"{digest}\" | cache-control: max-age=31536000, immutable \
         | accept-ranges: bytes"
    );
    let kind = "content-type: application/octet-stream";
    check(client, &format!("HEAD {target}"), b"", &format!("200 | {always} | {kind} | content-length: {size}"));
    let get = |headers: &str, expected: &str, want: &[u8]| {
        let got = check(client, &format!("GET {target}{headers}"), b"", &format!("{expected} | {always}"));
        assert!(got.body == want, "{headers}: {} bytes of {digest} differ", got.body.len());
    };
    let length = format!("200 | {kind} | content-length: {size} | content-range: -");
    get("", &length, bytes);
    let part = |range: &str, from: usize, to: usize| {
        let (last, length) = (to - 1, to - from);
        let expected = format!("206 | content-range: bytes {from}-{last}/{size} | content-length: {length} | {kind}");
        get(&format!(" | Range: bytes={range}"), &expected, &bytes[from..to]);
    };
    part("0-0", 0, 1);
    part("3-8", 3, 9);
    part("-5", size - 5, size);
    part(&format!("-{}", size + 1), 0, size);
    part("4-", 4, size);
    part(&format!("{}-", size - 1), size - 1, size);
    part(&format!("2-{}", size * 2), 2, size);
    for whole in ["bytes=0-1,4-5", "bytes=5-2", "lines=1-2", "bytes=a-b", "bytes=", "bytes=0-1,"] {
        get(&format!(" | Range: {whole}"), &length, bytes);
    }
    for beyond in [format!("{size}-"), format!("{size}-{}", size + 5), "-0".to_owned()] {
        let expected = format!("416 RANGE_INVALID | content-range: bytes */{size}");
        check(client, &format!("GET {target} | Range: bytes={beyond}"), b"", &expected);
    }
    let quoted = format!("\"{digest}\"");
    for same in [
        &format!("If-None-Match: {quoted}"),
        &format!("If-None-Match: {digest}"),
        &format!("If-None-Match: W/{quoted}"),
        &format!("If-None-Match: \"x\", {quoted}"),
        "If-None-Match: *",
        &format!("If-None-Match: \"x\" | If-None-Match: {quoted}"),
        &format!("If-None-Match: {quoted} | Range: bytes=0-1"),
    ] {
        get(&format!(" | {same}"), "304 | content-range: -", b"");
        check(client, &format!("HEAD {target} | {same}"), b"", &format!("304 | {always}"));
    }
    get(" | If-None-Match: \"x\"", &length, bytes);
    let first = &bytes[..2];
    let range = "Range: bytes=0-1";
    get(&format!(" | {range} | If-Range: {quoted}"), "206", first);
    for other in ["\"x\"", &format!("W/{quoted}"), "Mon, 01 Jan 2024 00:00:00 GMT"] {
        get(&format!(" | {range} | If-Range: {other}"), &length, bytes);
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = plain_registry();
    let client = server.client();
    push(&client, "r", ALGORITHMS[0], b"something");
    for digest in ALGORITHMS.map(|algorithm| algorithm(b"nothing")) {
        for repo in ["r", "unknown/repo"] {
            let got = check(&client, &format!("GET /v2/{repo}/blobs/{digest}"), b"", "404 BLOB_UNKNOWN");
            assert!(got.text().contains(&digest), "{}", got.text());
            check(&client, &format!("HEAD /v2/{repo}/blobs/{digest}"), b"", "404");
        }
    }
}
