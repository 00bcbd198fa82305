//! Odd bytes: requests that hide others, connections that say little or nothing, heads without end,
//! floods of streams. None gets another's rights, and none keeps others from being served.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use testkit::{client::Client, process::wait_until, wire::Wire};

use super::{House, UNAUTHORIZED, password};
use crate::{PLAIN, check, get_manifest, push_image};

const TAG: &str = "tag-there";

fn dial(house: &House) -> TcpStream {
    let stream = TcpStream::connect(house.server.host_port()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    stream
}

/// All that comes back until the server hangs up.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A server that hangs up on bytes it has not read resets the connection.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the connection stays open: {error}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// The statuses in what came back.
fn statuses(text: &str) -> Vec<u16> {
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, head)| text.get(at + head.len()..)?.get(2..5));
    heads.filter_map(|status| status.parse().ok()).collect()
}

/// The longest that a pull took, of some while others are at it.
fn slowest(house: &House, client: &Client) -> Duration {
    let pull = |_| {
        let begun = Instant::now();
        check(client, &get_manifest("team/a", TAG), b"", "200");
        check(&house.anonymous(), "GET /v2/", b"", UNAUTHORIZED);
        begun.elapsed()
    };
    (0..10).map(pull).max().unwrap_or_default()
}

#[test]
fn no_request_hides_in_another() {
    let house = House::with(PLAIN, "roadstead: {limits: {idle: 2s}}\n");
    push_image(&house.admin(), "team/a", TAG, 1);
    let alice = house.user("alice", &["team/** pull,push"]);
    let token = house.token(&alice, "repository:team/a:pull,push");
    // A request of hers that begins an upload; what is hidden in it asks for what only she may see.
    let hidden = "GET /v2/team/a/tags/list HTTP/1.1\r\nHost: r\r\nX: ";
    let last = "GET /healthz HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n";
    let post = |version: &str, headers: &str| {
        format!("POST /v2/team/a/blobs/uploads/ {version}\r\nHost: r\r\nAuthorization: Bearer {token}\r\n{headers}\r\n")
    };
    let check = |headers: &str, body: &str, expected: &[u16]| {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let mut stream = dial(&house);
            let request = post(version, headers) + body + last;
            stream.write_all(request.as_bytes()).expect("send");
            let got = rest(&mut stream);
            assert!(!got.contains(TAG), "{headers:?} {body:?}: a hidden request is answered:\n{got}");
            // What an old client may not do is refused, or the connection ends after it.
            let got = statuses(&got);
            let good = if version == "HTTP/1.1" { got == expected } else { got.len() == 1 };
            assert!(good, "{version} {headers:?} {body:?}: {got:?}, not {expected:?}");
        }
    };
    let (begun, refused) = ([202, 200], [400]);
    // The plain ones: a body of known length, and one in chunks, that look like requests.
    let length = format!("Content-Length: {}\r\n", hidden.len());
    check("", "", &begun);
    check(&length, hidden, &begun);
    let chunks = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    check(chunked, &chunks, &begun);
    // Two lengths.
    check(&length.repeat(2), hidden, &begun);
    for two in ["Content-Length: 0\r\n", "Content-Length: 5\r\n", "content-length: 999999\r\n"] {
        check(&format!("{two}{length}"), hidden, &refused);
        check(&format!("{length}{two}"), hidden, &refused);
    }
    for bad in ["5, 5", "5,6", "+5", "-1", "0x5", "5 5", "5;", "", "five", "18446744073709551616", "\u{661}", "5\t5"] {
        check(&format!("Content-Length: {bad}\r\n"), hidden, &refused);
    }
    // A length and chunks: chunks count, and the connection ends.
    for length in [length.as_str(), "Content-Length: 0\r\n", "Content-Length: 5\r\n"] {
        check(&format!("{length}{chunked}"), "0\r\n\r\n", &[202]);
        check(&format!("{chunked}{length}"), "0\r\n\r\n", &[202]);
        check(&format!("{chunked}{length}"), &chunks, &[202]);
    }
    // Codings that are none, or hide what they are.
    for bad in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "chunked;",
        "chunked;q=1",
        "identity",
        "\"chunked\"",
        "chun ked",
        "cow",
        "",
        "\u{b}chunked",
        "chunked\u{b}",
    ] {
        check(&format!("Transfer-Encoding: {bad}\r\n"), &chunks, &refused);
        check(&format!("Transfer-Encoding: {bad}\r\nContent-Length: 0\r\n"), &chunks, &refused);
    }
    // Names and values that proxies read otherwise.
    for bad in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer Encoding: chunked\r\n",
        "Transfer-Encoding\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\u{0}: 5\r\n",
        "X: \u{0}\r\n",
        "X: a\rContent-Length: 5\r\n",
        "X[y]: z\r\n",
        "X\u{e9}: z\r\n",
        ": empty\r\n",
        "no colon\r\n",
    ] {
        check(bad, &chunks, &refused);
    }
    // Other names are other headers, which say nothing about the body.
    for other in ["Content_Length: 5\r\n", "Transfer_Encoding: chunked\r\n", "X-Transfer-Encoding: chunked\r\n"] {
        check(&format!("{other}{length}"), hidden, &begun);
    }
    // The other parser's idea of a line's end: a head of bare line feeds is one head.
    check(&format!("X: a\nContent-Length: {}\n", hidden.len()), hidden, &begun);
    // Chunks that are none end the connection, whatever follows. The upload had begun.
    for bad in ["0x5", "-1", "+5", "g", "", "5 5", "FFFFFFFFFFFFFFFFF", "5\u{0}", "\u{661}"] {
        let mut stream = dial(&house);
        let request = post("HTTP/1.1", chunked) + &format!("{bad}\r\n{hidden}\r\n0\r\n\r\n{last}");
        stream.write_all(request.as_bytes()).expect("send");
        let got = rest(&mut stream);
        assert!(
            !got.contains(TAG) && statuses(&got).iter().all(|status| [202, 400].contains(status)),
            "{bad:?}: {got}"
        );
        assert!(statuses(&got).len() <= 1, "{bad:?}: {got}");
    }
}

#[test]
fn an_identity_ends_with_its_request() {
    let house = House::with(PLAIN, "roadstead: {limits: {idle: 2s}}\n");
    push_image(&house.admin(), "team/a", TAG, 1);
    let alice = house.user("alice", &["team/** pull,push"]);
    let bob = house.user("bob", &[]);
    let token = |client| house.token(client, "repository:team/a:pull,push");
    let (hers, his) = (token(&alice), token(&bob));
    let head = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: r\r\n{headers}\r\n");
    let tags = "GET /v2/team/a/tags/list";
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    // On one connection, one after the other and at once.
    let last = head("GET /healthz", "Connection: close\r\n");
    let check = |requests: &[String], expected: &[u16]| {
        let mut stream = dial(&house);
        stream.write_all((requests.concat() + &last).as_bytes()).expect("send");
        let got = rest(&mut stream);
        assert_eq!(statuses(&got), [expected, &[200]].concat(), "{requests:?}\n{got}");
    };
    let (of_her, of_him, of_nobody) = (head(tags, &bearer(&hers)), head(tags, &bearer(&his)), head(tags, ""));
    check(&[of_her.clone(), of_nobody.clone(), of_him.clone(), of_her.clone()], &[200, 401, 403, 200]);
    check(&[of_nobody.clone(), of_her.clone(), of_nobody], &[401, 200, 401]);
    // A body that is not read holds no request.
    let upload =
        head("POST /v2/team/a/blobs/uploads/", &format!("{}Content-Length: {}\r\n", bearer(&hers), of_her.len()));
    check(&[upload + &of_her], &[202]);
    let refused = head("PUT /v2/team/a/manifests/x", &format!("{}Content-Length: {}\r\n", bearer(&his), of_her.len()));
    check(&[refused + &of_her], &[403]);
    // Of two the first counts; they are not tried one after the other.
    check(&[head(tags, &(bearer(&hers) + &bearer(&his)))], &[200]);
    check(&[head(tags, &(bearer(&his) + &bearer(&hers)))], &[403]);
    check(&[head(tags, &(bearer("x") + &bearer(&hers)))], &[401]);
    check(&[head(tags, &format!("Authorization: Bearer x, Bearer {hers}\r\n"))], &[401]);
    // Whole addresses: the host in them chooses nothing, and nothing is fetched for anybody.
    for (target, status) in [
        ("http://registry.test/v2/team/a/tags/list", 200),
        ("http://127.0.0.1:1/v2/team/a/tags/list", 200),
        ("https://evil.test/v2/team/a/tags/list", 200),
        ("http://admin:secret@evil.test/v2/team/a/tags/list", 200),
        ("http://evil.test/", 200),
        ("http://evil.test/secret", 404),
    ] {
        check(&[head(&format!("GET {target}"), &bearer(&hers))], &[status]);
    }
    check(&[head("GET http://evil.test/v2/team/a/tags/list", "")], &[401]);
    check(&[head("OPTIONS *", &bearer(&hers))], &[404]);
    // No tunnel.
    for target in ["127.0.0.1:22", "evil.test:443", "/v2/team/a/tags/list", house.server.host_port()] {
        let mut stream = dial(&house);
        let connect = head(&format!("CONNECT {target}"), &bearer(&hers));
        stream.write_all((connect + &of_her + &last).as_bytes()).expect("send");
        let _ = stream.shutdown(Shutdown::Write);
        let got = statuses(&rest(&mut stream));
        assert!(got.first().is_some_and(|status| [400, 404, 405].contains(status)), "{target}: {got:?}");
    }
    for line in
        ["GET", "GET /v2/", "GET  /v2/ HTTP/1.1", "GET /v2/ HTTP/9.9", "GET /v2/ HTTP/1.1 x", "\0GET /v2/ HTTP/1.1"]
    {
        let mut stream = dial(&house);
        stream.write_all(format!("{line}\r\nHost: r\r\n{}\r\n{of_her}", bearer(&hers)).as_bytes()).expect("send");
        let got = rest(&mut stream);
        assert!(!got.contains(TAG) && statuses(&got) == [400], "{line:?}: {got}");
    }
}

#[test]
fn those_who_say_little_hold_nobody_up() {
    let house = House::with(PLAIN, "roadstead: {limits: {idle: 2s}}\n");
    push_image(&house.admin(), "team/a", TAG, 1);
    let alice = house.user("alice", &["team/** pull,push"]);
    let bearer = house.bearer(&house.token(&alice, "repository:team/a:pull"));
    let begun = Instant::now();
    let mut open: Vec<TcpStream> = Vec::new();
    for number in 0..400 {
        let mut stream = dial(&house);
        let said = match number % 4 {
            0 => "",
            1 => "GET /v2/ HTTP/1.1\r\nHost: r\r\nX-Slow: ",
            2 => "PUT /v2/team/a/manifests/x HTTP/1.1\r\nHost: r\r\nContent-Length: 4000000\r\n\r\n{",
            _ => {
                "POST /token HTTP/1.1\r\nHost: r\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 30000\r\n\r\ngrant"
            }
        };
        stream.write_all(said.as_bytes()).expect("send");
        open.push(stream);
    }
    let waited = slowest(&house, &bearer);
    assert!(waited < Duration::from_secs(1), "others waited {waited:?}");
    // All are let go, those too who go on with a byte at a time, but not with a request.
    let mut dripping: Vec<TcpStream> = (0..20)
        .map(|number| {
            let mut stream = dial(&house);
            let head = match number % 2 {
                0 => "GET /v2/ HTTP/1.1\r\nHost: r\r\nX-Slow: ",
                // Refused at once: the rest of it is only read so that the answer is seen.
                _ => "PUT /v2/team/a/manifests/x HTTP/1.1\r\nHost: r\r\nContent-Length: 4000000\r\n\r\n{",
            };
            stream.write_all(head.as_bytes()).expect("send");
            stream.set_nonblocking(true).expect("set nonblocking");
            stream
        })
        .collect();
    let over = |stream: &mut TcpStream| {
        let _ = stream.write(b"x");
        let mut part = [0; 4096];
        loop {
            match stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    };
    let let_go = wait_until(Duration::from_secs(15), || {
        thread::sleep(Duration::from_millis(100));
        dripping.retain_mut(|stream| !over(stream));
        dripping.is_empty()
    });
    assert!(let_go, "{} that drip are still served after {:?}", dripping.len(), begun.elapsed());
    for mut stream in open {
        rest(&mut stream);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    check(&bearer, &get_manifest("team/a", TAG), b"", "200");
}

#[test]
fn heads_scopes_and_forms_have_limits() {
    let house = House::new();
    let alice = house.user("alice", &["team/** pull"]);
    check(&alice, "GET /v2/", b"", "200");
    let memory = house.memory().0;
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize, what: &str| (0..count).map(|number| format!("{what}{number}")).collect::<Vec<_>>();
    let token = |scopes: Vec<String>| format!("GET /token?scope={}", scopes.join("%20"));
    let scopes = |count: usize| token(many(count, "repository:team/a:pull,push,x"));
    let head = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: r\r\n{headers}\r\n");
    let basic = format!("Authorization: Basic {}\r\n", long(30_000));
    let form = |length: usize| {
        let body = format!("grant_type=password&username=alice&password={}", long(length));
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        head("POST /token", &format!("{kind}Content-Length: {}\r\n", body.len())) + &body
    };
    for (what, request, expected) in [
        ("64 scopes", head(&scopes(64), ""), &[200][..]),
        ("65 scopes", head(&scopes(65), ""), &[400]),
        ("1000 parameters", head(&format!("GET /token?{}", "scope=repository:a:pull&".repeat(1000)), ""), &[400]),
        ("a long scope", head(&token(vec![format!("repository:{}:pull", long(9000))]), ""), &[400]),
        ("a long name", head(&format!("GET /v2/{}/tags/list", long(5000)), ""), &[400]),
        ("a long line", head(&format!("GET /v2/?{}", long(100_000)), ""), &[400, 414, 431]),
        ("a long header", head("GET /v2/", &format!("X: {}\r\n", long(70_000))), &[431]),
        ("many long headers", head("GET /v2/", &format!("X: {}\r\n", long(7000)).repeat(12)), &[431]),
        ("many headers", head("GET /v2/", &"X: y\r\n".repeat(3000)), &[431]),
        ("a long name of a header", head("GET /v2/", &format!("{}: y\r\n", long(70_000))), &[400, 431]),
        ("a head without end", format!("GET /v2/ HTTP/1.1\r\n{}", "X: y\r\n".repeat(500_000)), &[431]),
        ("a line without end", format!("GET /{}", long(4 << 20)), &[400, 414, 431]),
        ("long credentials", head("GET /v2/", &basic), &[401]),
        ("a long bearer", head("GET /v2/", &basic.replace("Basic", "Bearer")), &[401]),
        ("a form", form(4000), &[401]),
        ("a long form", form(33 << 10), &[400]),
        ("a form without end", form(8 << 20), &[400]),
    ] {
        let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
        // It may be refused before all of it is sent.
        let _ = wire.send(&request);
        let got = wire.answer("GET").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(expected.contains(&got.status), "{what}: {} {}", got.status, crate::clip(&got.text()));
        assert!(got.body.len() < 64 << 10, "{what}: an answer of {} bytes", got.body.len());
    }
    let grown = house.memory().0.saturating_sub(memory);
    assert!(grown < 32 << 10, "the server has grown by {grown} KiB");
    check(&house.basic("alice", &password("alice")), "GET /v2/", b"", "200");
}

/// A frame of HTTP/2. Source: RFC 9113, 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END: u8 = 0x1 | 0x4;

#[test]
fn floods_of_streams_end_their_connection_and_no_other() {
    let house = House::with(&format!("{PLAIN}  h2c:\n    enabled: true\n"), "");
    push_image(&house.admin(), "team/a", TAG, 1);
    let alice = house.user("alice", &["team/** pull"]);
    let bearer = house.bearer(&house.token(&alice, "repository:team/a:pull"));
    // GET, http, `/v2/`, an authority. Source: RFC 7541, appendix A.
    let request = [&[0x82, 0x86, 0x44, 4][..], b"/v2/", &[0x41, 1], b"r"].concat();
    let memory = house.memory().0;
    let open = |id: u32| frame(HEADERS, END, 2 * id + 1, &request);
    // A header that is not to be indexed, again and again.
    let more = [&[0x10, 1][..], b"x", &[100], &[b'y'; 100]].concat().repeat(100);
    let unended = frame(HEADERS, 0, 1, &[0x82]);
    type Frames<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);
    let floods: [(&str, &[u8], Frames<'_>, u32); 6] = [
        ("resets", b"", &|id| [open(id), frame(RST_STREAM, 0, 2 * id + 1, &[0, 0, 0, 8])].concat(), 50_000),
        ("streams without an end", b"", &|id| frame(HEADERS, 0x4, 2 * id + 1, &request), 50_000),
        ("headers without an end", &unended, &|_| frame(CONTINUATION, 0, 1, &more), 2000),
        ("empty headers", &unended, &|_| frame(CONTINUATION, 0, 1, &[]), 200_000),
        ("pings", b"", &|_| frame(PING, 0, 0, &[0; 8]), 3_000_000),
        ("settings", b"", &|_| frame(SETTINGS, 0, 0, &[]), 3_000_000),
    ];
    for (what, first, each, count) in floods {
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut stream = dial(&house);
                stream.set_write_timeout(Some(Duration::from_millis(500))).expect("set a timeout");
                let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
                stream.write_all(&preface).expect("send");
                stream.write_all(first).expect("send");
                // Nothing is read: a server that keeps answers for somebody like this has to stop.
                let taken = (0..count).step_by(1000).take_while(|id| {
                    let batch: Vec<u8> = (*id..id + 1000).flat_map(each).collect();
                    stream.write_all(&batch).is_ok()
                });
                1000 * taken.count()
            });
            let waited = slowest(&house, &bearer);
            assert!(waited < Duration::from_secs(2), "{what}: others waited {waited:?}");
            let taken = flood.join().expect("the flood does not panic");
            assert!(taken < count as usize, "{what}: all of {count} were taken");
        });
        let (_, most) = house.memory();
        let grown = most.saturating_sub(memory);
        assert!(grown < 48 << 10, "{what}: the server has grown by {grown} KiB");
    }
    // HTTP/2 itself works, and has the same idea of who may do what.
    let mut stream = dial(&house);
    let preface =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END, 1, &request)];
    stream.write_all(&preface.concat()).expect("send");
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let told = wait_until(Duration::from_secs(10), || {
        let count = stream.read(&mut part).expect("an answer");
        answer.extend_from_slice(&part[..count]);
        String::from_utf8_lossy(&answer).contains("UNAUTHORIZED")
    });
    assert!(told, "{}", String::from_utf8_lossy(&answer));
}
