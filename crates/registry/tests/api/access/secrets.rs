//! Secrets turn up nowhere but in the one answer that made them: not in logs, the audit log,
//! errors, argument lists, metrics, nor in what is stored.

use std::{fs, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use testkit::{client::Client, image::sha256, process::wait_until, wire::Wire};

use super::{ADMIN, House, everything_in, give, password, text};
use crate::{DEBUG, PLAIN, check, push_image};

#[test]
fn secrets_are_written_down_nowhere() {
    let config = PLAIN.replace("accesslog:\n    disabled: true", "level: debug") + DEBUG;
    let house = House::with(&config, "");
    let mut secrets = vec![("the administrator's password", house.password.clone())];
    let alice = house.user("alice", &["team/** pull,push,delete"]);
    secrets.push(("alice's password", password("alice")));
    let robot = house.robot("ci", &["team/** pull,push"], None);
    let rotated = text(&house.order(&json!({"order": "robot-rotate", "name": "ci", "overlap": 60}))["secret"]);
    let token = text(&house.order(&json!({"order": "user-token", "name": "alice", "label": "laptop"}))["token"]);
    let made = house.order(&json!({"order": "user-add", "name": "bob"}));
    let issued = house.issue(&alice, "repository:team/a:pull,push");
    let (access, refresh) = (text(&issued["token"]), text(&issued["refresh_token"]));
    let by_robot = house.token(&house.basic("ci", &rotated), "repository:team/a:pull");
    let mut errors = String::new();

    // What goes well.
    let bearer = house.bearer(&access);
    push_image(&bearer, "team/a", "t", 1);
    check(&bearer, "GET /v2/team/a/manifests/t", b"", "200");
    for (name, password) in [("ci", &robot), ("ci", &rotated), ("alice", &token), ("<token>", &refresh)] {
        check(&house.basic(name, password), "GET /v2/", b"", "200");
    }
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&access_type=offline");
    let post = "POST /token | Content-Type: application/x-www-form-urlencoded";
    let again = check(&house.anonymous(), post, form.as_bytes(), "200").json();
    let rename = json!({"order": "user-passwd", "name": "bob", "password": "horse battery 1"});
    house.order(&rename);
    secrets.extend([
        ("a robot's first secret", robot.clone()),
        ("a robot's second secret", rotated.clone()),
        ("a pasted token", token.clone()),
        ("a password that was made", text(&made["password"])),
        ("a password that was changed to", "horse battery 1".to_owned()),
        ("an access token", access.clone()),
        ("a refresh token", refresh.clone()),
        ("a robot's access token", by_robot),
        ("a second access token", text(&again["access_token"])),
    ]);

    // What goes wrong, with secrets in the right places and in wrong ones.
    let wrong = "correct horse of nobody";
    secrets.push(("a wrong password", wrong.to_owned()));
    let misplaced = format!("rsk_{}", "Q".repeat(43));
    secrets.push(("a secret that nobody has", misplaced.clone()));
    let mut say = |client: &Client, method: &str, target: &str, headers: &[(&str, &str)], body: &str| {
        let got = client.send(method, target, headers, body.as_bytes()).expect("an answer");
        assert!(got.status >= 400, "{method} {target} is answered {}", got.status);
        errors += &format!("{:?}\n{}\n", got.headers(), got.text());
    };
    for (name, password) in [
        ("alice", wrong),
        ("nobody", wrong),
        ("alice", &misplaced),
        ("ci", &access),
        (rotated.as_str(), "x"),
        (token.as_str(), ""),
        (access.as_str(), "x"),
        (refresh.as_str(), "x"),
        (misplaced.as_str(), misplaced.as_str()),
        (&format!("{rotated}:{rotated}"), "x"),
    ] {
        let client = house.basic(name, password);
        say(&client, "GET", "/v2/", &[], "");
        say(&client, "GET", "/token?service=registry&scope=repository:team/a:pull", &[], "");
        say(&client, "POST", ADMIN, &[("Content-Type", "application/json")], "{}");
        let form = format!("grant_type=password&username={name}&password={password}");
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        say(&house.anonymous(), "POST", "/token", &kind, &form);
        say(&house.anonymous(), "POST", "/token", &kind, &form.replace("password&", "magic&"));
        say(&house.anonymous(), "POST", "/token", &[], &form);
    }
    for value in [
        format!("Bearer {refresh}"),
        format!("Bearer {rotated}"),
        format!("Bearer {access}x"),
        format!("Bearer x{access}"),
        format!("Token {rotated}"),
        format!("Basic {rotated}"),
        format!("Basic {access}"),
        rotated.clone(),
        format!("Basic {}", BASE64_STANDARD.encode(&rotated)),
        format!("Digest username=\"alice\", response=\"{rotated}\""),
    ] {
        let headers = [("Authorization", value.as_str()), ("Cookie", &value), ("X-Registry-Auth", &value)];
        say(&house.anonymous(), "GET", "/v2/team/a/tags/list", &headers, "");
        say(&house.anonymous(), "PUT", "/v2/team/a/manifests/t", &headers, "{}");
        say(&house.anonymous(), "GET", "/token", &headers[..1], "");
        say(&house.anonymous(), "POST", ADMIN, &headers, "{}");
    }
    let orders = [
        json!({"order": "user-add", "name": "alice", "password": wrong}),
        json!({"order": "user-add", "name": "Not A Name", "password": wrong}),
        json!({"order": "user-passwd", "name": "nobody", "password": wrong}),
        json!({"order": "user-passwd", "name": "alice", "password": [wrong]}),
        json!({"order": "user-passwd", "name": "alice", "password": {"text": wrong}}),
        json!({"order": "user-passwd", "name": "alice", "password": wrong, "more": 1}),
        json!({"order": "user-passwd", "name": "alice", "password": wrong.repeat(100)}),
        json!({"order": "user-password", "name": "alice", "password": wrong}),
    ];
    for order in &orders {
        say(&house.admin(), "POST", ADMIN, &[("Content-Type", "application/json")], &order.to_string());
    }
    // Her wrong passwords of above delay her for a moment.
    let mut seen = 0;
    wait_until(Duration::from_secs(60), || {
        seen = give(&alice, &json!({"order": "user-list"})).status;
        seen != 429
    });
    assert_eq!(seen, 403);
    // Heads that are no heads.
    for bad in [format!("Authorization : Bearer {access}"), format!("Authorization: Basic {rotated}\0")] {
        let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: r\r\n{bad}\r\n\r\n")).expect("send");
        let got = wire.answer("GET").expect("an answer");
        assert_eq!(got.status, 400);
        errors += &got.text();
    }
    check(&bearer, &format!("GET /v2/team/a/blobs/{}", sha256(b"x")), b"", "404 BLOB_UNKNOWN");

    let metrics = Client::new(&house.server.debug_url()).get("/metrics").expect("a page").text();
    let mut places = everything_in(house.server.data());
    assert!(places.iter().any(|(name, text)| name.contains("/audit/") && text.contains("wrong credentials")));
    let log = house.server.log();
    assert!(log.contains("/v2/team/a/manifests/t") && metrics.contains("http_requests"), "not much was looked at");
    places.extend([
        ("the log".to_owned(), log),
        ("the errors".to_owned(), errors),
        ("the metrics".to_owned(), metrics),
    ]);
    for file in ["cmdline", "comm", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", house.server.id())).expect("the server runs");
        places.push((format!("the process's {file}"), String::from_utf8_lossy(&bytes).into_owned()));
    }
    for (what, secret) in &secrets {
        // A token without its last part proves nothing; the last part is what has to be kept.
        let secret = secret.rsplit('.').next().unwrap_or(secret);
        for form in
            [secret.to_owned(), BASE64_STANDARD.encode(secret), secret.replace(' ', "+"), secret.replace(' ', "%20")]
        {
            for (place, content) in &places {
                assert!(!content.contains(&form), "{what} ({form}) is in {place}{}", around(content, &form));
            }
        }
    }
    // The look can find something.
    assert!(places.iter().any(|(place, content)| place.ends_with("audit.log") && content.contains("alice")));
}

/// The line of a text that holds something.
fn around(content: &str, found: &str) -> String {
    content
        .lines()
        .find(|line| line.contains(found))
        .map(|line| format!(":\n{}", crate::clip(line)))
        .unwrap_or_default()
}
