//! Signals: a drain that lets clients finish but not linger, and a reload that undoes nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use testkit::{
    http::send,
    image::sha256,
    process::{signal, wait_until},
    server::{Server, Setup},
    wire::Wire,
};

use crate::{DEBUG, PLAIN, REGISTRY, check, content, verify};

/// Begins a PUT and sends the first half of its body.
fn half_a_put(server: &Server, path: &str, bytes: &[u8]) -> Wire {
    let (digest, length) = (sha256(bytes), bytes.len());
    let mut wire = Wire::tcp(server.host_port()).expect("connect");
    let line = format!("PUT {path}?digest={digest} HTTP/1.1");
    wire.send(format!("{line}\r\nHost: registry.test\r\nContent-Length: {length}\r\n\r\n")).expect("send the head");
    wire.send(&bytes[..length / 2]).expect("send one half");
    wire
}

fn begin(server: &Server) -> String {
    server.client().start_upload("r").expect("begin an upload").replace(&server.url(), "")
}

#[test]
fn a_drain_lets_uploads_finish() {
    for size in [10, 300_000] {
        let mut server = Setup::new(REGISTRY, &format!("{PLAIN}  draintimeout: 10s\n")).start();
        let bytes = content(1, size);
        let mut wire = half_a_put(&server, &begin(&server), &bytes);
        thread::sleep(Duration::from_millis(300));
        signal(server.id(), "TERM");
        thread::sleep(Duration::from_millis(500));
        assert!(!server.log().contains("stopped"), "the server did not wait");
        wire.send(&bytes[size / 2..]).expect("send the rest");
        verify("PUT", &wire.answer("PUT").expect("an answer"), "201");
        let ended = wait_until(Duration::from_secs(5), || server.log().contains("stopped"));
        assert!(ended, "the server does not end after the last upload");
        server.stop();
        server.start_again();
        let got = check(&server.client(), &format!("GET /v2/r/blobs/{}", sha256(&bytes)), b"", "200");
        assert!(got.body == bytes);
    }
}

#[test]
fn stalled_clients_on_every_connection_do_not_hold_the_end_up() {
    let more = "  draintimeout: 1s\nroadstead:\n  limits: {connections: 2}\n";
    let mut server = Setup::new(REGISTRY, &format!("{PLAIN}{more}")).start();
    let paths = [begin(&server), begin(&server)];
    let stalled = paths.map(|path| half_a_put(&server, &path, &content(1, 100_000)));
    // One more waits for its turn.
    let waiting = Wire::tcp(server.host_port()).expect("connect");
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(server.log().contains("stopped"));
    drop((stalled, waiting));
}

#[test]
fn a_reload_does_not_undo_what_was_switched_by_hand() {
    let config = format!("{PLAIN}{DEBUG}");
    let mut server = Setup::new(REGISTRY, &config).start();
    let client = server.client();
    let read_only = |server: &Server| {
        send("GET", &format!("{}/debug/readonly", server.debug_url()), &[], b"").expect("an answer").text()
    };
    let mut reloads = 0;
    let mut reload = |server: &Server| {
        reloads += 1;
        signal(server.id(), "HUP");
        let done = || server.log().matches("configuration re-read:").count() == reloads;
        assert!(wait_until(Duration::from_secs(10), done), "SIGHUP has no effect");
    };
    let post = "POST /v2/r/blobs/uploads/";
    check(&client, post, b"", "202");
    let on = send("POST", &format!("{}/debug/readonly/on", server.debug_url()), &[], b"").expect("an answer");
    assert_eq!(on.status, 200);
    reload(&server);
    assert_eq!(read_only(&server), "true\n");
    check(&client, post, b"", "405 UNSUPPORTED");
    // A file that did change counts.
    let switched =
        |on: bool| config.replace("storage:\n", &format!("storage:\n  maintenance: {{readonly: {{enabled: {on}}}}}\n"));
    for (on, expected) in [(true, "true\n"), (false, "false\n")] {
        server.write_config(&switched(on));
        reload(&server);
        assert_eq!(read_only(&server), expected);
    }
    check(&client, post, b"", "202");
}
