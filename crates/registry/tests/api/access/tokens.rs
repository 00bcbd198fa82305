//! Tokens: replayed, forged, wider than the rules, of accounts and secrets that have ended.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use testkit::{
    client::Client,
    command::{run, tool},
    http::Response,
    image::sha256,
    process::wait_until,
    wire::Wire,
};

use super::{House, UNAUTHORIZED, give, parts, rights, text};
use crate::{REGISTRY, check, content, get_manifest, push, push_image, verify};

/// What a token that proves nothing is told.
const INVALID: &str = "401 UNAUTHORIZED | www-authenticate: ~error=\"invalid_token\"";
const TAGS: &str = "GET /v2/team/a/tags/list";

/// How long a secret lives that is to end soon, in seconds: a busy machine has to be quicker.
const BRIEF: u64 = 5;
/// Longer than any secret here lives.
const SOON: Duration = Duration::from_secs(20);

fn ends(client: &Client) -> bool {
    wait_until(SOON, || client.get("/v2/team/a/tags/list").expect("an answer").status == 401)
}

#[test]
fn a_token_cannot_be_used_after_its_end() {
    let house = House::new();
    push_image(&house.admin(), "team/a", "t", 1);
    let secret = house.robot("brief", &["team/** pull"], Some(BRIEF));
    let robot = house.basic("brief", &secret);
    let issued = house.issue(&robot, "repository:team/a:pull");
    let life = issued["expires_in"].as_i64().expect("a number");
    assert!((1..=5).contains(&life), "a token outlives the secret that it was issued for: {life} s");
    let (_, claims) = parts(&text(&issued["token"]));
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(life));
    let (bearer, refresh) = (house.bearer(&text(&issued["token"])), text(&issued["refresh_token"]));
    check(&bearer, TAGS, b"", "200");
    assert!(ends(&bearer), "the token never ends");
    check(&bearer, TAGS, b"", INVALID);
    check(&bearer, "GET /v2/", b"", INVALID);
    check(&robot, TAGS, b"", UNAUTHORIZED);
    check(&robot, "GET /token?scope=repository:team/a:pull", b"", "401 UNAUTHORIZED");
    let form = format!("grant_type=refresh_token&service=registry&refresh_token={refresh}");
    let post = "POST /token | Content-Type: application/x-www-form-urlencoded";
    check(&house.anonymous(), post, form.as_bytes(), "401 UNAUTHORIZED");
    // A user's token lives as long as the configuration says, and not longer.
    let issued = house.issue(&house.admin(), "repository:team/a:pull");
    assert_eq!(issued["expires_in"], 60);
}

#[test]
fn keys_rotate_in_the_middle_of_a_pull() {
    let house = House::new();
    let blob = content(1, 24 << 20);
    let digest = push(&house.admin(), "team/a", sha256, &blob);
    push_image(&house.admin(), "team/a", "t", 1);
    let puller = house.user("alice", &["team/** pull"]);
    let token = house.token(&puller, "repository:team/a:pull");
    let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token}\r\n\r\n");
    // More than the sockets hold: the server is still sending while the key changes.
    wire.send(get(&format!("/v2/team/a/blobs/{digest}"))).expect("send");
    let mut command = tool(REGISTRY);
    command.args(["key", "rotate", "--format", "json", "--config"]).arg(house.server.config());
    let rotated: Value = serde_json::from_str(&run(command).ok().stdout).expect("JSON");
    let got = wire.answer("GET").expect("the whole blob");
    assert!(got.status == 200 && got.body == blob, "the pull was cut off: {}", got.status);
    // What was signed before goes on, in the same connection and in others.
    wire.send(get(&format!("/v2/team/a/blobs/{digest}"))).expect("send");
    assert_eq!(wire.answer("GET").expect("an answer").status, 200);
    let bearer = house.bearer(&token);
    check(&bearer, &get_manifest("team/a", "t"), b"", "200");
    let kid = |token: &str| parts(token).0["kid"].clone();
    let newer = house.token(&puller, "repository:team/a:pull");
    assert_eq!((kid(&newer), kid(&newer) == kid(&token)), (rotated["key"]["id"].clone(), false));
    check(&house.bearer(&newer), TAGS, b"", "200");
    let keys = check(&house.anonymous(), "GET /.well-known/jwks.json", b"", "200").json();
    let published: Vec<Value> = keys["keys"].as_array().expect("keys").iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(published, [kid(&newer), kid(&token)]);
    // A key that has gone takes what it signed along, even what was proved a moment ago.
    for _ in 0..15 {
        check(&bearer, TAGS, b"", "200");
        house.order(&json!({"order": "key-rotate"}));
    }
    check(&bearer, TAGS, b"", INVALID);
    check(&house.bearer(&newer), TAGS, b"", "200");
}

#[test]
fn forged_tokens_prove_nothing() {
    let house = House::new();
    push_image(&house.admin(), "team/a", "t", 1);
    let reader = house.user("reader", &["team/** pull"]);
    let scope = "repository:team/a:pull,push,delete";
    let issued = house.issue(&reader, scope);
    let (good, refresh) = (text(&issued["token"]), text(&issued["refresh_token"]));
    assert_eq!(rights(&good), ["team/a:pull"]);
    let of_admin = parts(&house.token(&house.admin(), scope)).1;
    let (header, claims) = parts(&good);
    let pieces: Vec<&str> = good.split('.').collect();
    let encode = |value: &Value| B64.encode(value.to_string());
    let refused = |token: &str, why: &str| {
        let client = house.bearer(token);
        for request in ["GET /v2/", TAGS, "DELETE /v2/team/a/manifests/t"] {
            let (method, target) = request.split_once(' ').expect("a method and a target");
            let got = client.send(method, target, &[], b"").expect("an answer");
            verify(&format!("{request} with {why}"), &got, INVALID);
        }
        if token == refresh {
            return; // Which is made to be pasted.
        }
        let pasted = house.basic("<token>", token);
        let got = pasted.send("GET", "/v2/", &[], b"").expect("an answer");
        assert!([401, 429].contains(&got.status), "{why}: {}", got.status);
    };
    check(&house.bearer(&good), TAGS, b"", "200");
    check(&house.bearer(&good), "DELETE /v2/team/a/manifests/t", b"", "403 DENIED");

    // `alg` is compared, not obeyed.
    let more = encode(&of_admin);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let head = encode(&json!({"alg": alg, "typ": "JWT", "kid": header["kid"]}));
        for signature in ["", pieces[2], "AA"] {
            refused(&format!("{head}.{more}.{signature}"), "no algorithm");
            refused(&format!("{head}.{}.{signature}", pieces[1]), "no algorithm, own claims");
        }
        refused(&format!("{head}.{more}"), "two parts");
    }
    // The public key, in all the forms in which it is published, as the secret of an HMAC.
    let jwks = check(&house.anonymous(), "GET /.well-known/jwks.json", b"", "200");
    let key = jwks.json()["keys"][0].clone();
    let x = text(&key["x"]);
    let raw = B64.decode(&x).expect("base64url");
    // Source: RFC 8410, 4.
    let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &raw].concat();
    let in_base64 = base64::prelude::BASE64_STANDARD.encode(&spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{in_base64}\n-----END PUBLIC KEY-----\n");
    let documents = [&key.to_string(), &jwks.text(), &pem, &in_base64, &x, &text(&key["kid"])];
    let secrets = [vec![], raw, spki].into_iter().chain(documents.map(|text| text.as_bytes().to_vec()));
    for secret in secrets {
        for (alg, algorithm) in
            [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512), ("EdDSA", hmac::HMAC_SHA256)]
        {
            let head = encode(&json!({"alg": alg, "typ": "JWT", "kid": header["kid"]}));
            let signed = format!("{head}.{more}");
            let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), signed.as_bytes());
            refused(&format!("{signed}.{}", B64.encode(tag)), alg);
        }
    }
    // A key of the attacker's own, named in every way.
    let own = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
    let own = Ed25519KeyPair::from_pkcs8(own.as_ref()).expect("a good key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": B64.encode(own.public_key())});
    for hint in [
        json!({}),
        json!({"kid": header["kid"]}),
        json!({"kid": "unknown"}),
        json!({"kid": "../../../../dev/null"}),
        json!({"jwk": jwk}),
        json!({"kid": header["kid"], "jwk": jwk}),
        json!({"kid": header["kid"], "jku": house.server.url()}),
        json!({"x5c": [in_base64]}),
        json!({"kid": header["kid"], "crit": ["exp"]}),
    ] {
        let mut head = json!({"alg": "EdDSA", "typ": "JWT"});
        head.as_object_mut().expect("an object").extend(hint.as_object().expect("an object").clone());
        let signed = format!("{}.{more}", encode(&head));
        let signature = B64.encode(own.sign(signed.as_bytes()));
        refused(&format!("{signed}.{signature}"), "own key");
        if head != header {
            refused(&format!("{}.{}.{}", encode(&head), pieces[1], pieces[2]), "another header");
        }
    }
    // Claims under a signature that was made for others.
    for (name, value) in [
        ("exp", json!(claims["exp"].as_i64().expect("a time") + 1)),
        ("exp", json!(9_999_999_999_i64)),
        ("sub", json!("admin")),
        ("account", of_admin["account"].clone()),
        ("credential", of_admin["credential"].clone()),
        ("access", of_admin["access"].clone()),
        ("aud", json!(["registry"])),
        ("iss", json!("other")),
    ] {
        let mut tampered = claims.clone();
        tampered[name] = value;
        refused(&format!("{}.{}.{}", pieces[0], encode(&tampered), pieces[2]), name);
    }
    let flipped: String = pieces[2].chars().rev().collect();
    refused(&format!("{}.{}.{flipped}", pieces[0], pieces[1]), "signature");
    // Other spellings of a good one, and the other kind.
    for odd in [
        format!("{good}="),
        format!("{good}."),
        format!("{good}.x"),
        format!(".{good}"),
        good.replace('.', ".."),
        good[..good.len() - 1].to_owned(),
        pieces[..2].join("."),
        refresh.clone(),
        "x".repeat(40_000),
        String::from("eyJ"),
        String::from(".."),
    ] {
        refused(&odd, "spelling");
    }
    // Another registry's, for an administrator of the same name.
    let other = House::new();
    refused(&other.token(&other.admin(), scope), "another registry");
    // An access token is no refresh token.
    let post = "POST /token | Content-Type: application/x-www-form-urlencoded";
    for token in [&good, &refresh.to_uppercase()] {
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        check(&house.anonymous(), post, form.as_bytes(), "401 UNAUTHORIZED");
    }
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&scope={scope}");
    let again = check(&house.anonymous(), post, form.as_bytes(), "200").json();
    assert_eq!(rights(&text(&again["access_token"])), ["team/a:pull"]);
    // The good one is as good as before.
    check(&house.bearer(&good), TAGS, b"", "200");
}

#[test]
fn a_token_carries_less_than_asked_and_counts_for_less_than_it_carries() {
    let house = House::new();
    for repo in ["team/a", "team/b", "hidden/x"] {
        push_image(&house.admin(), repo, "t", 1);
    }
    let bob = house.user("bob", &["team/* pull,push"]);
    let deleting = house.grant("user:bob", "team/a delete");
    let asks = |client: &Client, scope: &str, expected: &[&str]| {
        assert_eq!(rights(&house.token(client, scope)), expected, "{scope}");
    };
    asks(&bob, "repository:team/a:pull,push,delete", &["team/a:delete", "team/a:pull", "team/a:push"]);
    asks(&bob, "repository:team/b:pull,push,delete", &["team/b:pull", "team/b:push"]);
    asks(&bob, "repository:team/b:*", &["team/b:pull", "team/b:push"]);
    asks(&bob, "repository:hidden/x:pull,push repository:team/b:pull", &["team/b:pull"]);
    asks(&house.anonymous(), "repository:team/a:pull repository:hidden/x:pull registry:catalog:*", &[]);
    for nothing in [
        "repository:hidden/x:pull",
        "repository:team/a/../../hidden/x:pull",
        "repository:../hidden/x:pull",
        "repository:hidden%2fx:pull",
        "repository:team%2Fa:pull",
        "repository:hidden%252fx:pull",
        "repository:HIDDEN/x:pull",
        "repository:Team/a:pull",
        "repository:team/*:pull",
        "repository:**:pull",
        "repository:*:*",
        "repository:team/a:",
        "repository:team/a",
        "repository:team/a:,,",
        "repository:team/a:admin",
        "repository:team/a:PULL",
        "repository::pull",
        "repository:team/a/:pull",
        "repository://team/a:pull",
        "repository:team\\a:pull",
        "user:team/a:pull",
        "registry:team/a:*",
        "registry:*:*",
        "*:*:*",
        ":::",
        "",
    ] {
        asks(&bob, nothing, &[]);
    }
    // What it does not carry, it does not do, whatever its owner may do.
    let narrow = house.bearer(&house.token(&bob, "repository:team/a:pull"));
    let too_narrow = "401 UNAUTHORIZED | www-authenticate: ~error=\"insufficient_scope\"";
    check(&narrow, TAGS, b"", "200");
    check(&narrow, "GET /v2/team/b/tags/list", b"", too_narrow);
    check(&narrow, "DELETE /v2/team/a/manifests/t", b"", too_narrow);
    check(&narrow, "POST /v2/team/a/blobs/uploads/", b"", too_narrow);
    check(&narrow, "GET /v2/_catalog", b"", too_narrow);
    check(&narrow, "GET /v2/hidden/x/tags/list", b"", "403 DENIED");
    // And what the rules do not allow any more, it does not do either.
    let wide = house.bearer(&house.token(&bob, "repository:team/a:*"));
    house.order(&json!({"order": "grant-remove", "rule": deleting}));
    check(&wide, "DELETE /v2/team/a/manifests/t", b"", "403 DENIED");
    check(&wide, TAGS, b"", "200");
    let grants = house.order(&json!({"order": "grant-list", "subject": "user:bob"}));
    house.order(&json!({"order": "grant-remove", "rule": grants["grants"][0]["rule"]}));
    for client in [&wide, &narrow, &bob] {
        check(client, TAGS, b"", "403 DENIED");
    }
    // A group's rights go with the membership, those of an account with the account.
    house.order(&json!({"order": "group-add", "name": "dev"}));
    house.order(&json!({"order": "group-join", "name": "dev", "member": "user:bob"}));
    house.grant("group:dev", "team/** pull");
    check(&narrow, TAGS, b"", "200");
    house.order(&json!({"order": "group-leave", "name": "dev", "member": "user:bob"}));
    check(&narrow, TAGS, b"", "403 DENIED");
    house.order(&json!({"order": "group-join", "name": "dev", "member": "user:bob"}));
    check(&narrow, TAGS, b"", "200");
    house.order(&json!({"order": "user-remove", "name": "bob"}));
    check(&narrow, TAGS, b"", INVALID);
    // Somebody else of the same name is somebody else.
    house.user("bob", &["team/** pull"]);
    check(&narrow, TAGS, b"", INVALID);
    check(&bob, TAGS, b"", "200");
    // So is the same person with another password.
    let older = house.bearer(&house.token(&bob, "repository:team/a:pull"));
    check(&older, TAGS, b"", "200");
    house.order(&json!({"order": "user-passwd", "name": "bob", "password": "another good one"}));
    check(&older, TAGS, b"", INVALID);
    check(&bob, TAGS, b"", UNAUTHORIZED);
}

#[test]
fn a_user_who_is_disabled_in_the_middle_of_a_push_is_refused() {
    let house = House::new();
    let alice = house.user("alice", &["team/** pull,push"]);
    let bob = house.user("bob", &["team/** pull,push"]);
    let bearer = house.bearer(&house.token(&alice, "repository:team/a:pull,push"));
    for client in [&alice, &bearer] {
        check(client, "GET /v2/", b"", "200");
    }
    let begin = || alice.start_upload("team/a").expect("begin an upload").replace(&house.server.url(), "");
    let (upload, other) = (begin(), begin());
    check(&alice, &format!("PATCH {upload}"), b"first ", "202");
    // One request is under way when the order comes.
    let mut wire = Wire::tcp(house.server.host_port()).expect("connect");
    let token = house.token(&alice, "repository:team/a:pull,push");
    let head = format!(
        "PATCH {upload} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    wire.send(head).expect("send");
    wire.send_chunks(b"second ", 3, true).expect("send");
    house.order(&json!({"order": "user-disable", "name": "alice"}));
    wire.send("0\r\n\r\n").expect("send");
    // It was permitted when it began.
    assert_eq!(wire.answer("PATCH").expect("an answer").status, 202);
    let digest = sha256(b"first second ");
    let next = format!("PUT {upload}?digest={digest} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token}\r\n");
    wire.send(format!("{next}Content-Length: 0\r\n\r\n")).expect("send");
    verify("PUT", &wire.answer("PUT").expect("an answer"), INVALID);
    let refused = |got: Response| assert!([401, 429].contains(&got.status), "{}: {}", got.status, got.text());
    for (request, body) in [
        (format!("PATCH {upload}"), &b"more"[..]),
        (format!("PUT {upload}?digest={digest}"), b""),
        (format!("GET {upload}"), b""),
        (format!("DELETE {upload}"), b""),
        (format!("PATCH {other}"), b"x"),
        ("POST /v2/team/a/blobs/uploads/".to_owned(), b""),
        (TAGS.to_owned(), b""),
        ("GET /v2/".to_owned(), b""),
        ("GET /v2/_catalog".to_owned(), b""),
    ] {
        check(&bearer, &request, body, INVALID);
        // The password too, until it is not even looked at any more.
        let (method, target) = request.split_once(' ').expect("a method and a target");
        refused(alice.send(method, target, &[], body).expect("an answer"));
    }
    refused(alice.get("/token?scope=repository:team/a:pull").expect("an answer"));
    refused(give(&alice, &json!({"order": "user-passwd", "name": "alice"})));
    // Nothing of it happened, and who may push there can go on.
    check(&bob, &format!("GET {upload}"), b"", "204 | range: 0-12");
    check(&bob, &format!("HEAD /v2/team/a/blobs/{digest}"), b"", "404");
    check(&bob, &format!("PUT {upload}?digest={digest}"), b"", "201");
    house.order(&json!({"order": "user-enable", "name": "alice"}));
    check(&bearer, &format!("GET {other}"), b"", "204 | range: 0-0");
}

#[test]
fn a_robot_is_rotated_with_overlap_and_revoked_at_once() {
    let house = House::new();
    push_image(&house.admin(), "team/a", "t", 1);
    let first = house.robot("ci", &["team/** pull"], None);
    let (old, old_token) = {
        let old = house.basic("ci", &first);
        let token = house.bearer(&house.token(&old, "repository:team/a:pull"));
        (old, token)
    };
    let second = text(&house.order(&json!({"order": "robot-rotate", "name": "ci", "overlap": BRIEF}))["secret"]);
    assert_ne!(first, second);
    let new = house.basic("ci", &second);
    let late = house.issue(&old, "repository:team/a:pull");
    assert!(late["expires_in"].as_i64().is_some_and(|life| life <= 5), "{late}");
    let late = house.bearer(&text(&late["token"]));
    for client in [&old, &old_token, &late, &new] {
        check(client, TAGS, b"", "200");
    }
    assert!(ends(&old), "the older secret never ends");
    for client in [&old, &late] {
        check(client, TAGS, b"", UNAUTHORIZED);
    }
    check(&old_token, TAGS, b"", INVALID);
    check(&new, TAGS, b"", "200");
    // Without overlap the older one ends with the order.
    let third = text(&house.order(&json!({"order": "robot-rotate", "name": "ci", "overlap": 0}))["secret"]);
    check(&new, TAGS, b"", UNAUTHORIZED);
    let newest = house.basic("ci", &third);
    let issued = house.issue(&newest, "repository:team/a:pull");
    let (token, refresh) = (house.bearer(&text(&issued["token"])), text(&issued["refresh_token"]));
    check(&token, TAGS, b"", "200");
    house.order(&json!({"order": "robot-revoke", "name": "ci"}));
    check(&newest, TAGS, b"", UNAUTHORIZED);
    check(&token, TAGS, b"", INVALID);
    check(&house.basic("ci", &refresh), TAGS, b"", UNAUTHORIZED);
    // A robot of the same name does not bring them back.
    let fourth = house.robot("ci", &["team/** pull"], None);
    check(&house.basic("ci", &third), TAGS, b"", UNAUTHORIZED);
    check(&token, TAGS, b"", INVALID);
    check(&house.basic("ci", &fourth), TAGS, b"", "200");
    // A secret is its robot's, under no other name.
    house.user("alice", &["team/** pull"]);
    check(&house.basic("alice", &fourth), TAGS, b"", UNAUTHORIZED);
}
