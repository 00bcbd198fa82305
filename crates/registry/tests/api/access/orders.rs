//! Orders to access control, given by those who may not.

use serde_json::{Value, json};
use testkit::{client::Client, http::Response};

use super::{ADMIN, House, give, password, shape, text};
use crate::{check, push_image, verify};

/// Every order that somebody else's rights, secrets or existence hang on.
fn orders() -> Vec<Value> {
    vec![
        json!({"order": "user-add", "name": "eve", "password": "a good password"}),
        json!({"order": "user-passwd", "name": "admin", "password": "a good password"}),
        json!({"order": "user-passwd", "name": "nobody", "password": "a good password"}),
        json!({"order": "user-list"}),
        json!({"order": "user-disable", "name": "admin"}),
        json!({"order": "user-enable", "name": "off"}),
        json!({"order": "user-remove", "name": "admin"}),
        json!({"order": "user-token", "name": "admin"}),
        json!({"order": "user-revoke-tokens", "name": "admin"}),
        json!({"order": "robot-create", "name": "spy", "allow": [{"repositories": "**", "rights": "admin"}]}),
        json!({"order": "robot-list"}),
        json!({"order": "robot-rotate", "name": "ci", "overlap": 0}),
        json!({"order": "robot-revoke", "name": "ci"}),
        json!({"order": "group-add", "name": "evil"}),
        json!({"order": "group-list"}),
        json!({"order": "group-remove", "name": "dev"}),
        json!({"order": "group-join", "name": "dev", "member": "user:bob"}),
        json!({"order": "group-leave", "name": "dev", "member": "user:lead"}),
        json!({"order": "grant-add", "subject": "user:bob", "repositories": "**", "rights": "admin"}),
        json!({"order": "grant-add", "subject": "users", "repositories": "other/x", "rights": "pull"}),
        json!({"order": "grant-remove", "rule": 1}),
        json!({"order": "grant-explain", "subject": "user:admin", "repository": "other/x", "right": "pull"}),
        json!({"order": "key-list"}),
        json!({"order": "key-rotate"}),
        json!({"order": "gc-status"}),
        json!({"order": "gc-run", "now": true, "untagged": true}),
        json!({"order": "gc-pause"}),
        json!({"order": "gc-resume"}),
        json!({"order": "undelete", "repository": "other/x", "reference": "t"}),
        json!({"order": "history", "repository": "other/x"}),
        json!({"order": "retention", "run": true}),
        json!({"order": "retention"}),
        json!({"order": "quota"}),
    ]
}

fn post(client: &Client, kind: &str, body: &str) -> Response {
    let headers: &[(&str, &str)] = if kind.is_empty() { &[] } else { &[("Content-Type", kind)] };
    client.send("POST", ADMIN, headers, body.as_bytes()).expect("an answer")
}

/// A house with an administrator of everything, one of `team/**`, and those who are none.
fn village() -> House {
    let house = House::new();
    house.user("lead", &["team/** admin"]);
    house.user("bob", &["team/** pull,push"]);
    house.user("off", &[]);
    house.order(&json!({"order": "user-disable", "name": "off"}));
    house.order(&json!({"order": "group-add", "name": "dev"}));
    house
}

/// All that the administrator sees.
fn everything(house: &House) -> Vec<Value> {
    let lists = ["user-list", "robot-list", "group-list", "grant-list", "key-list"];
    lists.map(|list| house.order(&json!({ "order": list }))).into()
}

#[test]
fn orders_need_the_right_proof_and_the_right_rights() {
    let house = village();
    let ci = house.robot("ci", &["team/** pull,push,delete"], None);
    push_image(&house.admin(), "other/x", "t", 1);
    let admin_scope = "repository:other/x:pull,push,delete registry:catalog:*";
    let issued = house.issue(&house.admin(), admin_scope);
    let of_bob = house.issue(&house.basic("bob", &password("bob")), "repository:team/a:pull,push");
    let pasted = house.order(&json!({"order": "user-token", "name": "bob"}));
    let before = everything(&house);
    // A token that was given for pulling does not change who may pull, not even an administrator's.
    let unproved = "401 UNAUTHORIZED | www-authenticate: ~Basic realm=";
    for (who, client) in [
        ("nobody", house.anonymous()),
        ("a bearer", house.bearer(&text(&issued["token"]))),
        ("a bearer of a refresh token", house.bearer(&text(&issued["refresh_token"]))),
        ("a bearer of a secret", house.bearer(&ci)),
        ("an anonymous bearer", house.bearer(&house.token(&house.anonymous(), admin_scope))),
    ] {
        for order in orders() {
            verify(who, &give(&client, &order), unproved);
        }
    }
    for (who, client) in [
        ("bob", house.basic("bob", &password("bob"))),
        ("bob's refresh token", house.basic("bob", &text(&of_bob["refresh_token"]))),
        ("bob's refresh token", house.basic("<token>", &text(&of_bob["refresh_token"]))),
        ("bob's pasted token", house.basic("bob", &text(&pasted["token"]))),
        ("a robot", house.basic("ci", &ci)),
        ("one of team/**", house.basic("lead", &password("lead"))),
    ] {
        for order in orders() {
            let got = give(&client, &order);
            verify(&format!("{order} of {who}"), &got, "403 DENIED");
            assert!(!got.text().contains("rsk_"), "{who}: {}", got.text());
        }
    }
    // A token of one's own makes no password and no other token: it would outlive its end.
    for order in [json!({"order": "user-passwd", "name": "bob"}), json!({"order": "user-token", "name": "bob"})] {
        for token in [&of_bob["refresh_token"], &pasted["token"]] {
            verify("a token", &give(&house.basic("bob", &text(token)), &order), "403 DENIED");
        }
    }
    // Wrong ones are wrong here too.
    verify("wrong", &give(&house.basic("admin", "wrong"), &json!({"order": "user-list"})), "401 UNAUTHORIZED");
    verify("off", &give(&house.basic("off", &password("off")), &json!({"order": "user-list"})), "401 UNAUTHORIZED");
    assert_eq!(everything(&house), before, "an order was carried out");
    // What may be deleted may be brought back, with a robot's secret too.
    push_image(&house.admin(), "team/a", "gone", 2);
    let robot = house.basic("ci", &ci);
    check(&robot, "DELETE /v2/team/a/manifests/gone", b"", "202");
    let history = json!({"order": "history", "repository": "team/a", "tag": "gone"});
    let undelete = json!({"order": "undelete", "repository": "team/a", "reference": "gone"});
    assert_eq!(give(&robot, &history).json()["entries"][0]["action"], "deleted");
    verify("bob", &give(&house.basic("bob", &password("bob")), &undelete), "403 DENIED");
    verify("ci", &give(&robot, &json!({"order": "history", "repository": "other/x"})), "403 DENIED");
    assert_eq!(give(&robot, &undelete).json()["tags"], json!(["gone"]));
    check(&robot, "HEAD /v2/team/a/manifests/gone", b"", "200");
    // With the right ones they are carried out.
    assert_eq!(give(&house.admin(), &json!({"order": "key-rotate"})).status, 200);
    assert_eq!(house.order(&json!({"order": "gc-status"}))["why"], Value::Null, "nobody paused it");
    // An administrator's token looks, and changes nothing.
    let pasted = house.order(&json!({"order": "user-token", "name": "admin"}));
    let pasted = house.basic("admin", &text(&pasted["token"]));
    verify("a token", &give(&pasted, &json!({"order": "gc-status"})), "200");
    verify("a token", &give(&pasted, &json!({"order": "gc-pause"})), "403 DENIED");
    assert_eq!(house.order(&json!({"order": "gc-pause"}))["state"], "stopped");
    let log = std::fs::read_to_string(house.server.data().join("roadstead/audit/audit.log")).expect("the audit log");
    let written = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(written(&["gc-pause", "user:admin", r#""result":"ok""#]), "{log}");
    assert!(written(&["gc-run", "user:bob", r#""untagged":true"#, r#""result":"denied""#]), "{log}");
}

#[test]
fn an_administrator_of_some_repositories_stays_within_them() {
    let house = village();
    let lead = house.basic("lead", &password("lead"));
    let before = everything(&house);
    let grant = |glob: &str, rights: &str| {
        give(&lead, &json!({"order": "grant-add", "subject": "user:bob", "repositories": glob, "rights": rights}))
    };
    for glob in ["**", "*", "tea*", "team*", "team", "*/**", "t*/**", "other/**", "team2/**", "other/team/a", "**/team"]
    {
        let status = grant(glob, "pull").status;
        // Some are no globs at all.
        assert!([400, 403].contains(&status), "{glob}: {status}");
    }
    // What is there and what is not are refused in the same words.
    let same = |one: Value, two: Value, words: &[&str]| {
        let ask = |order: &Value| shape(&give(&lead, order), words);
        let (first, second) = (ask(&one), ask(&two));
        assert!(first == second && first.starts_with("403"), "{one} and {two}:\n{first}\n{second}");
    };
    for order in ["user-disable", "user-remove", "user-passwd", "user-token", "user-revoke-tokens"] {
        same(json!({"order": order, "name": "admin"}), json!({"order": order, "name": "nobod"}), &["admin", "nobod"]);
    }
    same(json!({"order": "robot-revoke", "name": "ci"}), json!({"order": "robot-revoke", "name": "xx"}), &["ci", "xx"]);
    let rules = house.order(&json!({"order": "grant-list"}))["grants"].as_array().expect("rules").clone();
    let theirs = rules[0]["rule"].as_u64().expect("a number");
    let none = (1..10).find(|number| rules.iter().all(|rule| rule["rule"] != *number)).expect("a free number");
    assert_eq!((&rules[0]["subject"], theirs < 10), (&json!("user:admin"), true));
    let words = [format!("rule {theirs}"), format!("rule {none}")];
    let remove = |rule: u64| json!({"order": "grant-remove", "rule": rule});
    same(remove(theirs), remove(none), &[&words[0], &words[1]]);
    let explain =
        |subject: &str| json!({"order": "grant-explain", "subject": subject, "repository": "other/x", "right": "pull"});
    same(explain("user:admin"), explain("user:nobod"), &[]);
    assert_eq!(everything(&house), before);
    // Within them, rules are made, shown and removed.
    let made = grant("team/a", "pull,delete");
    assert_eq!(made.status, 200, "{}", made.text());
    let listed = give(&lead, &json!({"order": "grant-list"})).json();
    let globs: Vec<String> =
        listed["grants"].as_array().expect("rules").iter().map(|rule| text(&rule["repositories"])).collect();
    assert!(globs.len() >= 2 && globs.iter().all(|glob| glob.starts_with("team/")), "{globs:?}");
    let rule = &made.json()["grant"]["rule"];
    assert_eq!(give(&lead, &json!({"order": "grant-remove", "rule": rule})).status, 200);
    assert_eq!(everything(&house), before);
}

#[test]
fn other_sites_cannot_give_orders_in_a_browser() {
    let house = village();
    let admin = house.admin();
    let order = json!({"order": "group-add", "name": "evil"}).to_string();
    let before = everything(&house);
    for kind in [
        "",
        "text/plain",
        "text/plain; application/json",
        "text/plain;charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "application/jsonx",
        "application/json, text/plain",
        "text/json",
    ] {
        let got = post(&admin, kind, &order);
        assert_eq!(got.status, 415, "{kind}: {}", got.text());
    }
    let query = format!("{ADMIN}?order=group-add&name=evil");
    for (method, target) in [("GET", ADMIN), ("GET", &query), ("HEAD", ADMIN), ("PUT", ADMIN), ("DELETE", ADMIN)] {
        let headers = [("Content-Type", "application/json")];
        let got = admin.send(method, target, &headers, order.as_bytes()).expect("an answer");
        assert_eq!((got.status, got.header("allow")), (405, "POST"), "{method} {target}");
    }
    // A browser that asks first is not told that it may.
    let headers = [("Origin", "https://evil.test"), ("Access-Control-Request-Method", "POST")];
    for client in [&admin, &house.anonymous()] {
        let got = client.send("OPTIONS", ADMIN, &headers, b"").expect("an answer");
        assert!([401, 405].contains(&got.status), "{}", got.status);
        let told = got.headers().iter().any(|line| line.to_lowercase().starts_with("access-control-"));
        assert!(!told, "{:?}", got.headers());
    }
    // What is no order is none, however it is wrong.
    for body in [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        r#"{"order":"format-disk"}"#.into(),
        r#"{"order":"group-add"}"#.into(),
        r#"{"order":"group-add","name":7}"#.into(),
        r#"{"order":"group-add","name":"evil","as":"admin"}"#.into(),
        format!("{order}{order}"),
        "[".repeat(30_000),
        "\u{feff}".to_owned() + &order,
    ] {
        let got = post(&admin, "application/json", &body);
        assert_eq!(got.status, 400, "{body}: {}", got.text());
    }
    assert_eq!(post(&admin, "application/json", &format!("{order}{}", " ".repeat(65 << 10))).status, 413);
    // There is one path to it.
    for path in ["/roadstead/v1/admin/", "/roadstead/v1//admin", "/roadstead/v1", "/v2/roadstead/v1/admin", "/admin"] {
        check(&admin, &format!("POST {path} | Content-Type: application/json"), order.as_bytes(), "404 UNSUPPORTED");
    }
    assert_eq!(everything(&house), before);
    assert_eq!(post(&admin, "Application/JSON; charset=utf-8", &order).status, 200);
}
