//! HTTP/1.1 itself: interim answers, pipelining, trailers, slow and impatient clients, sockets.

use std::time::{Duration, Instant};

use testkit::{
    command::{run, tool},
    image::sha256,
    server::{Server, Setup},
    wire::Wire,
};

use crate::{PLAIN, REGISTRY, check, content, plain_registry, push, verify};

/// A registry with `roadstead.limits`.
fn limited(limits: &str) -> Server {
    Setup::new(REGISTRY, &format!("{PLAIN}roadstead:\n  limits: {{{limits}}}\n")).start()
}

fn connect(server: &Server) -> Wire {
    Wire::tcp(server.host_port()).expect("connect")
}

/// Begins an upload and returns its path.
fn begin(server: &Server, repo: &str) -> String {
    server.client().start_upload(repo).expect("begin an upload").replace(&server.url(), "")
}

fn head(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: registry.test\r\n{headers}\r\n")
}

#[test]
fn clients_may_wait_for_a_go_ahead() {
    let server = plain_registry();
    let digest = sha256(b"abc");
    let mut wire = connect(&server);
    let put = format!("PUT {}?digest={digest}", begin(&server, "r"));
    wire.send(head(&put, "Content-Length: 3\r\nExpect: 100-continue\r\n")).expect("send");
    assert_eq!(wire.answer("PUT").expect("a go-ahead").status, 100);
    wire.send("abc").expect("send");
    verify("PUT", &wire.answer("PUT").expect("an answer"), "201");
    // What is refused anyway gets no go-ahead.
    for line in ["PATCH /v2/r/blobs/uploads/01234567-89ab-4cde-8f01-23456789abcd", "PUT /v2/R/manifests/x"] {
        let mut wire = connect(&server);
        wire.send(head(line, "Content-Length: 50000000\r\nExpect: 100-continue\r\n")).expect("send");
        let got = wire.answer("PATCH").expect("an answer");
        assert!((400..500).contains(&got.status), "{line}: {}", got.status);
    }
}

#[test]
fn a_connection_carries_many_requests() {
    let server = plain_registry();
    let client = server.client();
    let small = push(&client, "r", sha256, b"small");
    let large = content(1, 300_000);
    let large_digest = push(&client, "r", sha256, &large);
    let mut wire = connect(&server);
    let get = |digest: &str| head(&format!("GET /v2/r/blobs/{digest}"), "");
    for _ in 0..3 {
        // Two at once.
        wire.send(get(&small) + &get(&large_digest)).expect("send");
        assert_eq!(wire.answer("GET").expect("the first").text(), "small");
        assert!(wire.answer("GET").expect("the second").body == large);
    }
    // A body in chunks with trailers, and the next request right behind it.
    for trailer in ["", "X-Checksum: 1\r\n", "Content-Length: 7\r\nX: y\r\n"] {
        let put = format!("PUT {}?digest={}", begin(&server, "r"), sha256(b"hello world"));
        wire.send(head(&put, "Transfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n")).expect("send");
        wire.send_chunks(b"hello world", 5, true).expect("send");
        wire.send(format!("0\r\n{trailer}\r\n{}", get(&small))).expect("send");
        verify("PUT", &wire.answer("PUT").expect("the put"), "201");
        assert_eq!(wire.answer("GET").expect("the get").text(), "small");
    }
    for line in ["HEAD /v2/", "GET /v2/r/blobs/sha256:x", "DELETE /v2/r/manifests/absent"] {
        wire.send(head(line, "")).expect("send");
        wire.answer(line.split(' ').next().unwrap_or_default()).expect("an answer");
    }
    wire.send(head("GET /v2/", "Connection: close\r\n")).expect("send");
    assert_eq!(wire.answer("GET").expect("the last").status, 200);
    assert!(wire.is_closed());
}

#[test]
fn large_heads_are_refused() {
    let server = limited("header: 8KiB");
    for (size, statuses) in [(4000, &[200][..]), (9000, &[431]), (60_000, &[431]), (200_000, &[431])] {
        let mut wire = connect(&server);
        wire.send(head("GET /v2/", &format!("X: {}\r\n", "x".repeat(size)))).expect("send");
        let got = wire.answer("GET").unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(statuses.contains(&got.status), "{size}: {}", got.status);
    }
}

#[test]
fn slow_clients_are_let_go() {
    let server = limited("idle: 1s");
    let client = server.client();
    for (line, more) in [
        (format!("PATCH {}", begin(&server, "r")), "Content-Length: 100\r\n"),
        (format!("PUT {}?digest={}", begin(&server, "r"), sha256(b"x")), "Transfer-Encoding: chunked\r\n"),
        ("PUT /v2/r/manifests/t".to_owned(), "Content-Length: 100\r\n"),
    ] {
        let begun = Instant::now();
        let mut wire = connect(&server);
        wire.send(head(&line, more)).expect("send");
        wire.send("2\r\nab\r\n").expect("send");
        let got = wire.answer("PATCH").expect("an answer");
        verify(&line, &got, "408 UNAVAILABLE | connection: close");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
        assert!(wire.is_closed());
        if line.starts_with("PATCH") {
            // The upload can go on.
            check(&client, &format!("GET {}", &line["PATCH ".len()..]), b"", "204 | range: 0-6");
        }
    }
    // A head that never ends, and a connection that says nothing.
    for silence in ["GET /v2/ HTTP/1.1\r\nHos", ""] {
        let begun = Instant::now();
        let mut wire = connect(&server);
        wire.send(silence).expect("send");
        // An answer before the end is welcome.
        while wire.answer("GET").is_ok() {}
        assert!(begun.elapsed() < Duration::from_secs(10), "{silence:?}: {:?}", begun.elapsed());
    }
    // Slow but steady is fine.
    let digest = sha256(b"abcdef");
    let mut wire = connect(&server);
    wire.send(head(&format!("PUT {}?digest={digest}", begin(&server, "r")), "Content-Length: 6\r\n")).expect("send");
    for byte in ["a", "b", "c", "d", "e", "f"] {
        std::thread::sleep(Duration::from_millis(400));
        wire.send(byte).expect("send");
    }
    verify("PUT", &wire.answer("PUT").expect("an answer"), "201");
}

#[test]
fn requests_end_in_time() {
    let server = limited("idle: 10s, request: 1s");
    let upload = begin(&server, "r");
    let mut wire = connect(&server);
    wire.send(head(&format!("PATCH {upload}"), "Content-Length: 10\r\n")).expect("send");
    // Steady, but for too long.
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(250));
        // The server may have hung up by now.
        let _ = wire.send("x");
    }
    verify("PATCH", &wire.answer("PATCH").expect("an answer"), "408 UNAVAILABLE | connection: close");
    check(&server.client(), &format!("GET {upload}"), b"", "204 | range: ~0-");
}

#[test]
fn too_many_uploads_are_asked_to_come_back() {
    let server = limited("uploads: 1");
    let client = server.client();
    let (first, second) = (begin(&server, "r"), begin(&server, "r"));
    let mut wire = connect(&server);
    wire.send(head(&format!("PATCH {first}"), "Content-Length: 10\r\n")).expect("send");
    wire.send("half.").expect("send");
    let busy = "503 UNAVAILABLE | retry-after: 1";
    let refused = testkit::process::wait_until(Duration::from_secs(10), || {
        let got = client.send("PATCH", &second, &[], b"x").expect("an answer");
        if got.status == 503 {
            verify("PATCH", &got, busy);
        }
        got.status == 503
    });
    assert!(refused, "the second upload is never refused");
    check(&client, &format!("PUT {second}?digest={}", sha256(b"x")), b"x", busy);
    check(&client, &format!("POST /v2/r/blobs/uploads/?digest={}", sha256(b"x")), b"x", busy);
    check(&client, "GET /v2/", b"", "200");
    wire.send("other").expect("send");
    verify("PATCH", &wire.answer("PATCH").expect("an answer"), "202");
    let got = client.send("PATCH", &second, &[], b"x").expect("an answer");
    verify("PATCH", &got, "202");
}

#[test]
fn early_errors_reach_clients_that_are_still_sending() {
    let server = plain_registry();
    let client = server.client();
    let body = content(9, 50 << 20);
    let upload = "/v2/r/blobs/uploads/01234567-89ab-4cde-8f01-23456789abcd";
    for _ in 0..3 {
        check(&client, &format!("PATCH {upload}"), &body, "404 BLOB_UPLOAD_UNKNOWN | connection: close");
    }
    check(&client, "PUT /v2/r/manifests/t", &body, "413 MANIFEST_INVALID");
    let open = begin(&server, "r");
    check(&client, &format!("PATCH {open} | Content-Range: 7-52428806"), &body, "416 RANGE_INVALID");
    // curl, which watches for early answers.
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("body");
    std::fs::write(&file, &body).expect("write the body");
    for more in ["Expect:", "Transfer-Encoding: chunked"] {
        let mut curl = tool("curl");
        curl.args(["-sS", "-m", "60", "-X", "PATCH", "-H", more, "-w", "%{http_code}", "-T"]).arg(&file);
        let got = run(commanded(curl, &format!("{}{upload}", server.url())));
        assert!(got.stdout.ends_with("404"), "{got}");
        assert!(got.stdout.contains("BLOB_UPLOAD_UNKNOWN"), "{got}");
    }
    check(&client, "GET /v2/", b"", "200");
}

fn commanded(mut command: std::process::Command, last: &str) -> std::process::Command {
    command.arg(last);
    command
}

#[test]
fn a_unix_socket_serves_too() {
    let config = PLAIN.replace("addr: {addr}", "net: unix\n  addr: {data}/r.sock");
    let mut server = Setup::new(REGISTRY, &config).probe_log().start();
    // A socket that a killed server left is no obstacle.
    for _ in 0..2 {
        let mut wire = Wire::unix(&server.data().join("r.sock")).expect("connect");
        wire.send(head("GET /v2/", "")).expect("send");
        verify("GET", &wire.answer("GET").expect("an answer"), "200 | body: {}");
        let digest = sha256(b"abc");
        let post = format!("POST /v2/r/blobs/uploads/?digest={digest}");
        wire.send(head(&post, "Content-Length: 3\r\n") + "abc").expect("send");
        let location = format!("201 | location: http://registry.test/v2/r/blobs/{digest}");
        verify("POST", &wire.answer("POST").expect("an answer"), &location);
        server.kill9();
        server.start_again();
    }
}
