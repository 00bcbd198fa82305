//! Guessing: what thousands of wrong passwords get, cost, and hold up, and whose they count as.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use testkit::{client::Client, wire::Wire};

use super::{House, UNAUTHORIZED, password, shape};
use crate::{PLAIN, check, get_manifest, push_image};

/// What whoever guessed too often is told.
const LOCKED: &str = "429 TOOMANYREQUESTS | content-type: application/json";

/// How many guesses at one user, or from one address, are looked at within a minute at most.
const MOST: usize = 100;

/// Trusts the machine itself to say where a request came from.
const PROXIED: &str = "roadstead:\n  proxies: [127.0.0.1]\n";

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// Sends a request from an address of this machine; returns the status and the whole answer.
fn ask_from(source: Ipv4Addr, house: &House, line: &str, headers: &str) -> (u16, String) {
    let server: SocketAddrV4 = house.server.host_port().parse().expect("an address");
    let open = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&open, &SocketAddr::from((source, 0))).expect("bind to a loopback address");
    connect(&open, &server).expect("connect");
    let mut stream = TcpStream::from(open);
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    write!(stream, "{line} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{headers}\r\n").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

/// The processor time that the server has used.
fn computed(house: &House) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", house.server.id())).expect("the server runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the fields after the name");
    let ticks =
        |index: usize| -> u64 { fields.split(' ').nth(index).and_then(|ticks| ticks.parse().ok()).unwrap_or(0) };
    // A tick is ten milliseconds on every Linux that this runs on.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Fails if the server grew by more than the hashes that ran at once took, or kept that.
#[track_caller]
fn check_growth(house: &House, before: u64) {
    let (now, most) = house.memory();
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    let (kept, most) = (now.saturating_sub(before), most.saturating_sub(before));
    assert!(most < (24 + 20 * cores) << 10, "the server has grown by {most} KiB");
    assert!(kept < 24 << 10, "the server keeps {kept} KiB more");
}

/// Guesses on connections that stay open; counts what is answered as wrong, and stops where that
/// is more than `most`.
fn guess(house: &House, count: usize, most: usize, wrong: &AtomicUsize, request: impl Fn(usize) -> String) {
    let dial = || Wire::tcp(house.server.host_port()).expect("connect");
    let mut wire = dial();
    for number in (0..count).take_while(|_| wrong.load(Ordering::Relaxed) <= most) {
        wire.send(request(number)).expect("send");
        let got = wire.answer("GET").expect("an answer");
        match got.status {
            401 => drop(wrong.fetch_add(1, Ordering::Relaxed)),
            429 => assert!(got.header("retry-after").parse::<u32>().is_ok_and(|wait| (1..=900).contains(&wait))),
            status => panic!("a guess is answered {status}: {}", got.text()),
        }
        if got.header("connection") == "close" {
            wire = dial();
        }
    }
}

#[test]
fn ten_thousand_wrong_passwords_get_nothing_and_hold_nobody_up() {
    let house = House::new();
    push_image(&house.admin(), "public/a", "t", 1);
    house.grant("anonymous", "public/** pull");
    let owner = house.user("owner", &["team/** pull,push"]);
    let carol = house.user("carol", &["public/** pull"]);
    check(&carol, "GET /v2/", b"", "200");
    let token = house.bearer(&house.token(&carol, "repository:public/a:pull"));
    // Who is unknown and who is wrong cannot be told apart.
    let refusal = |name: &str| {
        let wrong = house.basic(name, "wrong password");
        shape(&check(&wrong, "GET /v2/", b"", UNAUTHORIZED), &[name])
            + &shape(&check(&wrong, "GET /token", b"", "401 UNAUTHORIZED"), &[name])
    };
    assert_eq!(refusal("owner"), refusal("stranger"));
    let (memory, computing) = (house.memory().0, computed(&house));

    let (wrong, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let requests = |kind: usize, number: usize| {
            let name = if kind.is_multiple_of(2) { "owner".to_owned() } else { format!("user{kind}-{number}") };
            let guess = format!("guess {number}");
            let form = format!("grant_type=password&service=registry&username={name}&password=guess+{number}");
            match kind {
                0 | 1 => format!("GET /v2/ HTTP/1.1\r\nHost: r\r\n{}\r\n", basic(&name, &guess)),
                2 | 3 => format!("GET /token?service=registry HTTP/1.1\r\nHost: r\r\n{}\r\n", basic(&name, &guess)),
                _ => format!(
                    "POST /token HTTP/1.1\r\nHost: r\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                     Content-Length: {}\r\n\r\n{form}",
                    form.len()
                ),
            }
        };
        let (house, wrong, over) = (&house, &wrong, &over);
        scope.spawn(move || {
            thread::scope(|scope| {
                for kind in 0..5 {
                    scope.spawn(move || guess(house, 2000, MOST, wrong, |number| requests(kind, number)));
                }
            });
            over.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds < 5 {
            for client in [&house.anonymous(), &carol, &token] {
                let begun = Instant::now();
                check(client, &get_manifest("public/a", "t"), b"", "200");
                slowest = slowest.max(begun.elapsed());
            }
            if rounds == 3 {
                // The owner, whom nobody knows there, and somebody whom nobody guesses at.
                for name in ["owner", "carol"] {
                    let headers = basic(name, &password(name));
                    let (status, answer) = ask_from(Ipv4Addr::new(127, 0, 0, 2), house, "GET /v2/", &headers);
                    assert_eq!(status, 200, "{name} is locked out everywhere: {answer}");
                }
            }
            rounds += 1;
        }
    });
    let wrong = wrong.into_inner();
    assert!((5..=MOST).contains(&wrong), "{wrong} of 10,000 guesses were looked at");
    assert!(slowest < Duration::from_secs(2), "others waited {slowest:?}");
    // Ten thousand runs of argon2 would take minutes.
    let computing = computed(&house) - computing;
    assert!(computing < Duration::from_secs(40), "the server computed for {computing:?}");
    check_growth(&house, memory);
    // Not even the right one is looked at now, from there.
    let shut = check(&owner, "GET /v2/", b"", LOCKED);
    assert!(shut.header("retry-after").parse::<u32>().is_ok_and(|wait| wait >= 1), "{:?}", shut.headers());
    check(&owner, "GET /token", b"", LOCKED);
    // Who had logged in there before is not shut out with the guesser.
    check(&carol, "GET /v2/", b"", "200");
    check(&house.admin(), "GET /v2/", b"", "200");
}

#[test]
fn a_client_cannot_choose_whose_guesses_it_makes() {
    let house = House::new();
    let bob = house.user("bob", &[]);
    // Another address in each request evades nothing.
    let lie = |number: usize| {
        let headers = [("X-Forwarded-For", format!("10.0.0.{number}")), ("Forwarded", format!("for=10.0.0.{number}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        house.basic("bob", "wrong password").send("GET", "/v2/", &headers, b"").expect("an answer").status
    };
    assert!((0..30).any(|number| lie(number) == 429), "thirty guesses were looked at");
    check(&bob, "GET /v2/ | X-Forwarded-For: 10.1.1.1", b"", LOCKED);
    // Nor does somebody else's lock them out.
    for source in [2, 3] {
        let headers = format!("X-Forwarded-For: 127.0.0.1\r\n{}", basic("bob", &password("bob")));
        let (status, answer) = ask_from(Ipv4Addr::new(127, 0, 0, source), &house, "GET /v2/", &headers);
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn guesses_count_for_the_client_behind_a_proxy() {
    let house = House::with(PLAIN, PROXIED);
    house.user("bob", &[]);
    let ask = |password: &str, forwarded_for: &str| {
        let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: r\r\n{}{forwarded_for}\r\n", basic("bob", password));
        // Latin-1, as a header is: some values here are no UTF-8.
        let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
        wire.send(bytes).expect("send");
        wire.answer("GET").expect("an answer").status
    };
    let right = password("bob");
    let of = |hops: &str| format!("X-Forwarded-For: {hops}\r\n");
    // The first delay is a second: on a busy machine it may be over before the next request.
    let is_held_up = |forwarded_for: &str| {
        (0..5).any(|_| {
            assert!((0..30).any(|_| ask("wrong password", &of("10.0.0.1")) == 429));
            ask(&right, forwarded_for) == 429
        })
    };
    // Whatever stands before what the proxy added, the client may have made up.
    for same in [
        of("10.0.0.1"),
        of("10.0.0.2, 10.0.0.1"),
        of("10.0.0.2,10.0.0.1"),
        of("10.0.0.2, 10.0.0.1, 127.0.0.1"),
        of("nonsense, 10.0.0.1"),
        of("\u{ff}\u{fe}, 10.0.0.1"),
        of(", 10.0.0.1"),
        of("10.0.0.2") + &of("10.0.0.1"),
        of("\u{ff}") + &of("10.0.0.1"),
        of("::ffff:10.0.0.1"),
        of(&format!("{}10.0.0.1", "10.0.0.2, ".repeat(100))),
    ] {
        assert!(is_held_up(&same), "{same}");
    }
    for other in [of("10.0.0.2"), of("10.0.0.1, 10.0.0.3"), of("2001:db8::1"), String::new()] {
        assert_eq!(ask(&right, &other), 200, "{other}");
    }
    // An address that is no proxy says nothing that counts.
    let headers = of("10.0.0.2") + &basic("bob", "wrong password");
    let from = |source| ask_from(Ipv4Addr::new(127, 0, 0, source), &house, "GET /v2/", &headers).0;
    assert!((0..30).any(|_| from(2) == 429));
    assert_eq!(ask(&right, &of("10.0.0.2")), 200);
}

#[test]
fn a_botnet_costs_little_and_shuts_nobody_out_of_home() {
    let house = House::with(PLAIN, PROXIED);
    house.user("bob", &[]);
    let secret = format!("rsk_{}", "A".repeat(43));
    let ask = |name: &str, password: &str, from: usize| {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(from).expect("a small number"));
        format!("GET /v2/ HTTP/1.1\r\nHost: r\r\nX-Forwarded-For: {from}\r\n{}\r\n", basic(name, password))
    };
    let status = |password: &str, from: usize| {
        let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
        wire.send(ask("bob", password, from)).expect("send");
        wire.answer("GET").expect("an answer").status
    };
    assert_eq!(status(&password("bob"), 0xff_0000), 200);
    let memory = house.memory().0;
    let wrong = AtomicUsize::new(0);
    // Ten thousand machines with a name each, then all at one.
    thread::scope(|scope| {
        for part in 0..2 {
            let (house, wrong, ask, secret) = (&house, &wrong, &ask, &secret);
            scope.spawn(move || {
                guess(house, 5000, 10_000, wrong, |number| {
                    ask(&format!("u{part}-{number}"), secret, part * 5000 + number)
                });
            });
        }
    });
    assert_eq!(wrong.into_inner(), 10_000);
    let wrong = AtomicUsize::new(0);
    guess(&house, 1000, MOST, &wrong, |number| ask("bob", &secret, 20_000 + number));
    assert!((50..=MOST).contains(&wrong.into_inner()), "all those guesses at bob were looked at");
    assert_eq!(status(&password("bob"), 30_000), 429);
    assert_eq!(status(&password("bob"), 0xff_0000), 200, "bob is shut out at home");
    check_growth(&house, memory);
    let anyone: Client = house.anonymous();
    check(&anyone, "GET /v2/", b"", UNAUTHORIZED);
}
