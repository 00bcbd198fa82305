//! Uploading blobs: every way there is, every way to go wrong, and going on after a restart.

use testkit::{
    client::Client,
    http::Response,
    image::{sha256, sha512},
    server::Server,
    wire::Wire,
};

use crate::{ALGORITHMS, check, content, plain_registry, verify};

const SIZES: [usize; 5] = [0, 10, 65_536, 65_537, 200_000];

/// Uploads the bytes as the digest and returns the last answer.
type Way = fn(&Server, &Client, &str, &[u8], &str) -> Response;

const WAYS: [(&str, Way); 8] = [
    ("put", |_, client, repo, bytes, digest| {
        let location = begin(client, repo, "");
        finish(client, &location, bytes, digest)
    }),
    ("hint", |_, client, repo, bytes, digest| {
        let algorithm = digest.split(':').next().unwrap_or_default();
        let location = begin(client, repo, &format!("?digest-algorithm={algorithm}"));
        finish(client, &location, bytes, digest)
    }),
    ("post", |_, client, repo, bytes, digest| {
        check(client, &format!("POST /v2/{repo}/blobs/uploads/?digest={digest}"), bytes, "201")
    }),
    ("chunked-post", |server, _, repo, bytes, digest| {
        chunked(server, &format!("POST /v2/{repo}/blobs/uploads/?digest={digest}"), bytes)
    }),
    ("chunked-put", |server, client, repo, bytes, digest| {
        let location = begin(client, repo, "");
        chunked(server, &format!("PUT {}", with_digest(&location, digest)), bytes)
    }),
    ("stream", |server, client, repo, bytes, digest| {
        let location = begin(client, repo, "");
        let got = chunked(server, &format!("PATCH {location}"), bytes);
        verify("PATCH", &got, &format!("202 | range: 0-{}", bytes.len().saturating_sub(1)));
        finish(client, got.header("location"), b"", digest)
    }),
    ("stream-with-length", |_, client, repo, bytes, digest| {
        let location = begin(client, repo, "");
        let got = check(client, &format!("PATCH {location} | Content-Type: application/octet-stream"), bytes, "202");
        finish(client, got.header("location"), b"", digest)
    }),
    ("parts", |server, client, repo, bytes, digest| {
        let mut location = begin(client, repo, "");
        let (first, last) = bytes.split_at(bytes.len() / 3 * 2);
        let mut at = 0;
        for (index, part) in first.chunks((first.len() / 2).max(1)).enumerate() {
            let range = format!("{at}-{}", at + part.len() - 1);
            let request = format!("PATCH {location} | Content-Range: {range}");
            at += part.len();
            let expected = format!("202 | range: 0-{} | docker-upload-uuid: ~-4", at - 1);
            let got = if index == 0 {
                let got = chunked(server, &request, part);
                verify("PATCH", &got, &expected);
                got
            } else {
                check(client, &request, part, &expected)
            };
            location = got.header("location").to_owned();
            check(client, &format!("GET {location}"), b"", &format!("204 | range: 0-{} | location: ~/v2/", at - 1));
        }
        let range = match last.len() {
            0 => String::new(),
            length => format!(" | Content-Range: {at}-{}", at + length - 1),
        };
        check(client, &format!("PUT {}{range}", with_digest(&location, digest)), last, "201")
    }),
];

fn begin(client: &Client, repo: &str, query: &str) -> String {
    let expected = "202 | location: ~/blobs/uploads/ | range: 0-0 | docker-upload-uuid: ~-4 | content-length: 0";
    let got = check(client, &format!("POST /v2/{repo}/blobs/uploads/{query}"), b"", expected);
    let location = got.header("location").to_owned();
    assert!(location.contains(got.header("docker-upload-uuid")), "{location} does not name the upload");
    location
}

fn with_digest(location: &str, digest: &str) -> String {
    format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
}

#[track_caller]
fn finish(client: &Client, location: &str, bytes: &[u8], digest: &str) -> Response {
    check(client, &format!("PUT {}", with_digest(location, digest)), bytes, "201")
}

/// Sends a body with `Transfer-Encoding: chunked`.
fn chunked(server: &Server, request: &str, bytes: &[u8]) -> Response {
    let mut wire = Wire::tcp(server.host_port()).expect("connect");
    let host = server.host_port();
    let request = request.replace(&server.url(), "");
    let mut lines = request.split(" | ");
    let line = lines.next().unwrap_or_default();
    let headers: String = lines.map(|line| format!("{line}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n");
    wire.send(head).expect("send the head");
    // A server may answer and hang up before it has read all: the answer still counts.
    let _ = wire.send_chunks(bytes, 7777, false);
    wire.answer(line.split(' ').next().unwrap_or_default()).expect("an answer")
}

#[test]
fn every_way_to_upload_gives_the_same_blob() {
    let mut server = plain_registry();
    let client = server.client();
    let mut done = Vec::new();
    for (index, (way, upload)) in WAYS.iter().enumerate() {
        for (algorithm, digest_of) in ALGORITHMS.iter().enumerate() {
            for size in SIZES {
                let (repo, bytes) = (format!("up/{way}"), content((index * 2 + algorithm) as u64, size));
                let digest = digest_of(&bytes);
                let got = upload(&server, &client, &repo, &bytes, &digest);
                let location = format!("location: ~/v2/{repo}/blobs/{digest}");
                verify(way, &got, &format!("201 | docker-content-digest: {digest} | {location} | content-length: 0"));
                done.push((got.header("location").to_owned(), bytes));
            }
        }
    }
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        for (location, bytes) in &done {
            let got =
                check(&client, &format!("GET {location}"), b"", &format!("200 | content-length: {}", bytes.len()));
            assert!(got.body == *bytes, "{location} differs");
        }
    }
}

#[test]
fn parts_come_in_order() {
    let server = plain_registry();
    let client = server.client();
    for size in [30, 150_000] {
        let bytes = content(40, size);
        let (part, digest) = (size / 3, sha256(&bytes));
        let location = begin(&client, "r", "");
        let step = |method: &str, range: &str, body: &[u8], expected: &str| {
            let target = if method == "PUT" { with_digest(&location, &digest) } else { location.clone() };
            let range = if range.is_empty() { String::new() } else { format!(" | Content-Range: {range}") };
            let got = check(&client, &format!("{method} {target}{range}"), body, expected);
            if got.status == 416 {
                assert_eq!(got.header("location"), location);
            }
        };
        let range = |from: usize| format!("{from}-{}", from + part - 1);
        let at = |next: usize| format!("416 RANGE_INVALID | range: 0-{} | docker-upload-uuid: ~-4", next - 1);
        step("PATCH", &range(1), &bytes[1..=part], "416 RANGE_INVALID | range: 0-0");
        step("PATCH", &range(0), &bytes[..part], "202");
        step("PATCH", &range(0), &bytes[..part], &at(part));
        step("PATCH", &range(part + 1), &bytes[part + 1..=2 * part], &at(part));
        step("PUT", &range(part + 1), &bytes[part + 1..=2 * part], &at(part));
        for bad in ["x", "5", "5-", "9-3", "-5", "99999999999999999999-99999999999999999999", "0-18446744073709551615"]
        {
            step("PATCH", bad, b"x", "400 RANGE_INVALID");
        }
        step("PATCH", &range(part), &bytes[part..part + 1], "400 SIZE_INVALID");
        step("PATCH", &range(part), &bytes, "400 SIZE_INVALID");
        step("GET", "", b"", &format!("204 | range: 0-{}", part - 1));
        step("HEAD", "", b"", &format!("204 | range: 0-{}", part - 1));
        step("PATCH", &format!("bytes {}/*", range(part)), &bytes[part..2 * part], "202");
        step("PUT", &range(2 * part), &bytes[2 * part..], "201");
        step("PATCH", "", b"more", "404 BLOB_UPLOAD_UNKNOWN");
        let got = check(&client, &format!("GET /v2/r/blobs/{digest}"), b"", "200");
        assert!(got.body == bytes);
    }
}

#[test]
fn a_chunked_part_has_to_fill_its_range() {
    let server = plain_registry();
    let client = server.client();
    for (range, size) in [("0-9", 5), ("0-9", 20), ("0-99999", 70_000), ("0-69999", 100_000)] {
        let location = begin(&client, "r", "");
        let got = chunked(&server, &format!("PATCH {location} | Content-Range: {range}"), &content(1, size));
        verify("PATCH", &got, "400 SIZE_INVALID");
    }
}

#[test]
fn what_is_wrong_with_an_upload_is_said() {
    let server = plain_registry();
    let client = server.client();
    let (right, wrong) = (sha256(b"abc"), sha256(b"abd"));
    for (digest, expected) in [
        ("", "400 DIGEST_INVALID"),
        ("digest=", "400 DIGEST_INVALID"),
        ("digest=sha256:abc", "400 DIGEST_INVALID"),
        ("digest=md5:900150983cd24fb0d6963f7d28e17f72", "400 DIGEST_INVALID"),
        (&format!("digest={}", right.to_uppercase()), "400 DIGEST_INVALID"),
        (&format!("digest={right}%00"), "400 DIGEST_INVALID"),
        (&format!("digest={}", right.replace(':', "%3A")), "201"),
        (&format!("digest={wrong}"), "400 DIGEST_INVALID"),
        (&format!("digest={}", sha512(b"abd")), "400 DIGEST_INVALID"),
        (&format!("digest={}", sha512(b"abc")), "201"),
    ] {
        let location = begin(&client, "r", "");
        check(&client, &format!("PUT {location}?{digest}"), b"abc", expected);
        if !digest.is_empty() && digest != "digest=" {
            let expected = if expected == "201" { "201" } else { "400 DIGEST_INVALID" };
            check(&client, &format!("POST /v2/r/blobs/uploads/?{digest}"), b"abc", expected);
        }
    }
    // A digest that is malformed or missing costs nothing: the upload goes on.
    let location = begin(&client, "r", "");
    check(&client, &format!("PUT {location}"), b"abc", "400 DIGEST_INVALID");
    check(&client, &format!("PUT {location}?digest=sha256:12"), b"abc", "400 DIGEST_INVALID");
    finish(&client, &location, b"abc", &right);
    // A wrong one ends it, large or small, and nothing is stored.
    for size in [3, 100_000] {
        let location = begin(&client, "r", "");
        let (bytes, other) = (content(3, size), sha256(b"other"));
        check(&client, &format!("PUT {}", with_digest(&location, &other)), &bytes, "400 DIGEST_INVALID");
        check(&client, &format!("GET {location}"), b"", "404 BLOB_UPLOAD_UNKNOWN");
        check(&client, &format!("GET /v2/r/blobs/{other}"), b"", "404 BLOB_UNKNOWN");
        check(&client, &format!("GET /v2/r/blobs/{}", sha256(&bytes)), b"", "404 BLOB_UNKNOWN");
    }
    for bad in ["md5", "SHA512", "sha1", "%00"] {
        check(&client, &format!("POST /v2/r/blobs/uploads/?digest-algorithm={bad}"), b"", "400 DIGEST_INVALID");
    }
}

#[test]
fn uploads_are_cancelled_for_good() {
    let mut server = plain_registry();
    let client = server.client();
    let sizes = [0, 10, 100_000];
    let gone: Vec<String> = sizes
        .map(|size| {
            let location = begin(&client, "r", "");
            check(&client, &format!("PATCH {location}"), &content(4, size), "202");
            let uuid = location.rsplit('/').next().unwrap_or_default();
            check(&client, &format!("DELETE {location}"), b"", &format!("204 | docker-upload-uuid: {uuid}"));
            location
        })
        .into();
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        for location in &gone {
            for method in ["GET", "DELETE", "PATCH"] {
                check(&client, &format!("{method} {location}"), b"", "404 BLOB_UPLOAD_UNKNOWN");
            }
            let target = with_digest(location, &sha256(b""));
            check(&client, &format!("PUT {target}"), b"", "404 BLOB_UPLOAD_UNKNOWN");
        }
    }
}

#[test]
fn uploads_belong_to_their_repository_and_outlive_a_restart() {
    let mut server = plain_registry();
    let client = server.client();
    let mut open = Vec::new();
    for (seed, algorithm) in (50..).zip(ALGORITHMS) {
        for size in [10, 65_536, 200_000] {
            let bytes = content(seed, size);
            let digest = algorithm(&bytes);
            let hint = format!("?digest-algorithm={}", digest.split(':').next().unwrap_or_default());
            let location = begin(&client, "mine", &hint);
            check(&client, &format!("PATCH {location}"), &bytes[..size / 2], "202");
            open.push((location, bytes, digest));
        }
    }
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        for (location, bytes, digest) in &open {
            let theirs = location.replace("/v2/mine/", "/v2/theirs/");
            let unknown = "404 BLOB_UPLOAD_UNKNOWN";
            check(&client, &format!("GET {theirs}"), b"", unknown);
            check(&client, &format!("PATCH {theirs}"), b"x", unknown);
            check(&client, &format!("PUT {}", with_digest(&theirs, digest)), b"x", unknown);
            check(&client, &format!("DELETE {theirs}"), b"", unknown);
            check(&client, &format!("GET {location}"), b"", &format!("204 | range: 0-{}", bytes.len() / 2 - 1));
        }
    }
    for (location, bytes, digest) in &open {
        finish(&client, location, &bytes[bytes.len() / 2..], digest);
        let got = check(&client, &format!("GET /v2/mine/blobs/{digest}"), b"", "200");
        assert!(got.body == *bytes, "{digest} differs");
    }
    let never = "/v2/mine/blobs/uploads/01234567-89ab-4cde-8f01-23456789abcd";
    check(&client, &format!("GET {never}"), b"", "404 BLOB_UPLOAD_UNKNOWN");
}
