//! Requests that no good client sends: the right code, a JSON body, and a connection that is
//! usable afterwards or closed in order.

use testkit::{image::sha256, server::Server, wire::Wire};

use crate::{clip, plain_registry, push_image, verify};

/// Sends the head of a request as it is, and a good request after it on the same connection.
#[track_caller]
fn check_head(server: &Server, line: &str, headers: &str, expected: &str) {
    let shown = clip(line);
    let mut wire = Wire::tcp(server.host_port()).expect("connect");
    wire.send(format!("{line} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", server.host_port())).expect("send");
    let method = line.split(' ').next().unwrap_or_default();
    let got = wire.answer(method).unwrap_or_else(|error| panic!("{shown}: {error}"));
    verify(&shown, &got, expected);
    if got.header("connection") == "close" {
        assert!(wire.is_closed(), "{shown}: the connection stays open");
    } else {
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", server.host_port())).expect("send another");
        let next = wire.answer("GET").unwrap_or_else(|error| panic!("after {shown}: {error}"));
        assert_eq!(next.status, 200, "after {shown}");
    }
}

#[test]
fn malformed_requests_are_told_what_is_wrong() {
    let server = plain_registry();
    let client = server.client();
    let manifest = push_image(&client, "r", "t", 1);
    let digest = sha256(b"x");
    let hex = &digest[7..];
    let check = |line: &str, expected: &str| check_head(&server, line, "", expected);
    let (name, tag, bad_digest, upload) =
        ("400 NAME_INVALID", "400 TAG_INVALID", "400 DIGEST_INVALID", "404 BLOB_UPLOAD_UNKNOWN");
    let nothing = "404 UNSUPPORTED";
    for bad in [
        "R",
        "r_",
        "-r",
        "r..s",
        "r%20s",
        "r%00s",
        "%00",
        "r%0as",
        "r%zz",
        "r%",
        "r%f",
        "%ff%fe",
        "r%2F",
        "%2Fr",
        "r%2F%2Fs",
        "..",
        "../..",
        "%2e%2e/r",
        "r//s",
        "r%C3%A9",
        "r:s",
        "r@s",
        "~",
        "*",
        "r%252Fs",
        "r;s",
        "r,s",
        "r'--",
        "%27%20OR%201=1",
        &"r".repeat(256),
        &"r/".repeat(5000),
        &"%72".repeat(3000),
    ] {
        check(&format!("GET /v2/{bad}/tags/list"), name);
        check(&format!("GET /v2/{bad}/manifests/t"), name);
        check(&format!("HEAD /v2/{bad}/blobs/{digest}"), "400");
        check(&format!("GET /v2/{bad}/blobs/uploads/"), name);
        check(&format!("GET /v2/{bad}/referrers/{digest}"), name);
    }
    for good in ["unknown", &"u".repeat(255), "a%2Fb", "%61", "a__b", "a---b", "0", "a.b/c-d_e"] {
        check(&format!("GET /v2/{good}/tags/list"), "404 NAME_UNKNOWN");
    }
    for bad in ["-t", ".t", "t%20", "t%00", "t!", "t@t", "t%C3%A9", &"t".repeat(129), "%0d%0a", "t;t"] {
        check(&format!("GET /v2/r/manifests/{bad}"), tag);
        check(&format!("DELETE /v2/r/manifests/{bad}"), tag);
    }
    check(&format!("GET /v2/r/manifests/{}", "t".repeat(128)), "404 MANIFEST_UNKNOWN");
    check("GET /v2/r/manifests/%74", "200");
    check(&format!("GET /v2/r/manifests/{}", manifest.replace(':', "%3a")), "200");
    for bad in [
        "sha256:".to_owned(),
        "sha256:12".into(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("sha1:{}", &hex[..40]),
        format!("sha256:{}%00", &hex[..63]),
        format!("sha256:{}%2F", &hex[..62]),
        format!(":{hex}"),
        format!("sha256:{}", "a".repeat(20_000)),
    ] {
        check(&format!("GET /v2/r/blobs/{bad}"), bad_digest_or_name(&bad, bad_digest));
        check(&format!("GET /v2/r/manifests/{bad}"), bad_digest_or_name(&bad, bad_digest));
        check(&format!("GET /v2/r/referrers/{bad}"), bad_digest_or_name(&bad, bad_digest));
    }
    check(&format!("GET /v2/r/blobs/{hex}"), bad_digest);
    check("GET /v2/r/blobs/", bad_digest);
    check("GET /v2/r/manifests/", tag);
    let uuid = "01234567-89ab-4cde-8f01-23456789abcd";
    for bad in [
        "x",
        "..",
        "%2e%2e",
        "%00",
        &uuid.to_uppercase(),
        &uuid.replace('-', ""),
        &format!("{uuid}x"),
        &"0".repeat(5000),
    ] {
        check(&format!("GET /v2/r/blobs/uploads/{bad}"), upload);
        check(&format!("DELETE /v2/r/blobs/uploads/{bad}"), upload);
    }
    for path in [
        "/v2/r",
        "/v2/r/tags",
        "/v2/r/tags/x",
        "/v2/tags/list",
        "/v2/_catalog/",
        "/v1/_ping",
        "/v2/r/manifests",
        "/x",
        "//v2/",
        "/v2//",
        "/V2/",
        "/v2/%2e%2e/",
        "/favicon.ico",
        "/debug/health",
        "/metrics",
        "/v2/r/blobs/uploads/x/y",
    ] {
        check(&format!("GET {path}"), nothing);
    }
    for line in [
        "BREW /v2/",
        "OPTIONS /v2/",
        "TRACE /v2/",
        "get /v2/",
        "POST /v2/",
        "DELETE /v2/_catalog",
        "PUT /v2/r/tags/list",
    ] {
        check_head(&server, line, "Content-Length: 0\r\n", "405 UNSUPPORTED | allow: GET, HEAD");
    }
    check_head(&server, "POST /v2/r/manifests/t", "Content-Length: 0\r\n", "405 UNSUPPORTED | allow: ~PUT");
    check_head(&server, "PATCH /v2/r/blobs/uploads/", "Content-Length: 0\r\n", "405 UNSUPPORTED | allow: POST");
    check_head(&server, "GET /v2/r/blobs/uploads/", "", "405 UNSUPPORTED | allow: POST");
    check_head(
        &server,
        &format!("PUT /v2/r/blobs/{digest}"),
        "Content-Length: 0\r\n",
        "405 UNSUPPORTED | allow: ~DELETE",
    );
    check_head(&server, "OPTIONS *", "", nothing);
    check_head(&server, &format!("GET http://{}/v2/", server.host_port()), "", "200");
    for bad in ["n=%zz", "n=1%zz&n=x", "=", "&&&", "%00=1", "last=%ff"] {
        let got = client.get(&format!("/v2/r/tags/list?{bad}")).expect("an answer");
        assert!(got.status == 200 || got.error_code() == "PAGINATION_NUMBER_INVALID", "{bad}: {}", got.status);
    }
    for headers in [
        "Range: bytes=%00\r\n",
        "If-None-Match: \u{e9}\r\n",
        "Authorization: Basic x\r\n",
        "Accept: ,;,\r\n",
        "Host: b\r\n",
    ] {
        check_head(&server, "GET /v2/r/manifests/t", headers, "200");
    }
}

/// An escape that decodes to a slash moves the digest into the name.
fn bad_digest_or_name<'a>(text: &str, otherwise: &'a str) -> &'a str {
    if text.contains("%2F") { "404 UNSUPPORTED" } else { otherwise }
}

#[test]
fn what_is_not_http_is_answered_or_hung_up_on() {
    let server = plain_registry();
    let host = server.host_port();
    let long = "x".repeat(70_000);
    let many: String = (0..3000).map(|number| format!("X-{number}: 12345678901234567890\r\n")).collect();
    for (raw, statuses) in [
        ("\r\n\r\nnonsense\r\n\r\n".to_owned(), &[400][..]),
        ("GET\r\n\r\n".into(), &[400]),
        ("GET /v2/\0 HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET /v2/ HTTP/1.1\r\nX: \0\r\n\r\n".into(), &[400]),
        ("GET /v2/ HTTP/9.9\r\n\r\n".into(), &[400, 505]),
        ("GET /v2/ HTTP/1.1\r\nNo colon\r\n\r\n".into(), &[400]),
        (
            format!(
                "POST /v2/r/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            ),
            &[400],
        ),
        (format!("POST /v2/r/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n"), &[400]),
        (format!("POST /v2/r/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: zip\r\n\r\n"), &[400]),
        (format!("GET /v2/{long} HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[414, 431]),
        (format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nX: {long}\r\n\r\n"), &[431]),
        (format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{many}\r\n"), &[431]),
        (format!("\u{16}\u{3}\u{1}{}", &long[..200]), &[400]),
    ] {
        let mut wire = Wire::tcp(host).expect("connect");
        wire.send(&raw).expect("send");
        let got = wire.answer("GET");
        let shown = clip(&raw);
        let got = got.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(statuses.contains(&got.status), "{shown}: {}", got.status);
        // Not all that was sent may have been read, so that a reset is as good as an end.
        let _ = wire.finish_sending();
        assert_eq!(server.client().get("/v2/").expect("an answer").status, 200);
    }
    // HTTP/1.0, and a request without a host.
    for raw in ["GET /v2/ HTTP/1.0\r\n\r\n", "GET /v2/ HTTP/1.1\r\n\r\n"] {
        let mut wire = Wire::tcp(host).expect("connect");
        wire.send(raw).expect("send");
        assert_eq!(wire.answer("GET").expect("an answer").status, 200, "{raw}");
    }
}

#[test]
fn broken_bodies_are_refused() {
    let server = plain_registry();
    let client = server.client();
    for (index, (headers, body)) in [
        ("Transfer-Encoding: chunked\r\n", "zz\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nabc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabcdef\r\n"),
        ("Content-Length: 100\r\n", "abc"),
    ]
    .into_iter()
    .enumerate()
    {
        let location = client.start_upload("r").expect("begin an upload");
        let path = location.replace(&server.url(), "");
        let mut wire = Wire::tcp(server.host_port()).expect("connect");
        wire.send(format!("PATCH {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")).expect("send");
        wire.finish_sending().expect("finish");
        match wire.answer("PATCH") {
            Ok(got) => verify(&format!("PATCH {index}"), &got, "400 BLOB_UPLOAD_INVALID"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{index}"),
        }
        // The upload is where it was, or has what did arrive, and goes on.
        let got = client.get(&location).expect("an answer");
        assert_eq!(got.status, 204, "{index}: {}", got.text());
        let have: usize = got.header("range")[2..].parse().expect("a range");
        assert!(have <= 2, "{index}: {have}");
    }
}
