//! Resuming uploads: one request wins each step, and a part that was cut off counts.

use std::{sync::Barrier, thread, time::Duration};

use testkit::{client::Client, image::sha256, process::wait_until, wire::Wire};

use crate::{check, content, plain_registry};

const RACERS: usize = 12;

/// Sends one request from many clients at the same moment; returns the statuses, sorted.
fn race(client: &Client, method: &str, target: &str, range: &str, body: &[u8]) -> Vec<u16> {
    let barrier = Barrier::new(RACERS);
    let mut statuses: Vec<u16> = thread::scope(|scope| {
        let send = || {
            barrier.wait();
            client.send(method, target, &[("Content-Range", range)], body).expect("an answer").status
        };
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(send)).collect();
        racers.into_iter().map(|racer| racer.join().expect("a racer does not panic")).collect()
    });
    statuses.sort_unstable();
    statuses
}

#[test]
fn one_of_many_goes_on_with_an_upload_after_a_restart() {
    let mut server = plain_registry();
    let client = server.client();
    for seed in 0..3 {
        let bytes = content(seed, 900_000);
        let digest = sha256(&bytes);
        let location = client.start_upload("r").expect("begin an upload");
        client.patch(&location, 0, &bytes[..300_000]).expect("the first part");
        server.restart();
        let statuses = race(&client, "PATCH", &location, "300000-599999", &bytes[300_000..600_000]);
        assert_eq!(statuses, [&[202][..], &[416; RACERS - 1]].concat());
        check(&client, &format!("GET {location}"), b"", "204 | range: 0-599999");
        server.restart();
        let put = format!("{location}?digest={digest}");
        let statuses = race(&client, "PUT", &put, "600000-899999", &bytes[600_000..]);
        assert_eq!(statuses, [&[201][..], &[404; RACERS - 1]].concat());
        for late in ["", "PATCH", "PUT"] {
            match late {
                "" => {}
                "PUT" => drop(check(&client, &format!("PUT {put}"), b"late", "404 BLOB_UPLOAD_UNKNOWN")),
                _ => drop(check(&client, &format!("{late} {location}"), b"late", "404 BLOB_UPLOAD_UNKNOWN")),
            }
            let got = check(&client, &format!("GET /v2/r/blobs/{digest}"), b"", "200");
            assert!(got.body == bytes, "{digest} differs after a late {late:?}");
        }
    }
}

#[test]
fn a_part_that_was_cut_off_counts_as_far_as_it_came() {
    let server = plain_registry();
    let client = server.client();
    let bytes = content(1, 1 << 20);
    let (half, digest) = (bytes.len() / 2, sha256(&bytes));
    let location = client.start_upload("r").expect("begin an upload");
    let path = location.replace(&server.url(), "");
    let mut wire = Wire::tcp(server.host_port()).expect("connect");
    let length = bytes.len();
    wire.send(format!("PATCH {path} HTTP/1.1\r\nHost: registry.test\r\nContent-Length: {length}\r\n\r\n"))
        .expect("send the head");
    wire.send(&bytes[..half]).expect("send one half");
    drop(wire);
    let mut next = 0;
    let told = wait_until(Duration::from_secs(10), || {
        let got = check(&client, &format!("GET {path}"), b"", "204");
        let last: usize = got.header("range").trim_start_matches("0-").parse().expect("a range");
        next = if last == 0 { 0 } else { last + 1 };
        next > 0
    });
    assert!(told && next <= half, "{next} of {half} bytes");
    let range = format!("{next}-{}", length - 1);
    check(&client, &format!("PATCH {path} | Content-Range: {range}"), &bytes[next..], "202 | range: 0-1048575");
    check(&client, &format!("PUT {path}?digest={digest}"), b"", "201");
    let got = check(&client, &format!("GET /v2/r/blobs/{digest}"), b"", "200");
    assert!(got.body == bytes, "{digest} differs");
}
