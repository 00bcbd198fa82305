//! What somebody may not see cannot be told from what is not there, nor got at by a way around.

use serde_json::json;
use testkit::{client::Client, image::sha256};

use super::{House, UNAUTHORIZED, password, shape, text};
use crate::{OCI_INDEX, OCI_MANIFEST, check, content, descriptor, get_manifest, image, push, push_image};

/// Two names of one length: what is in the first is not in the second, which is not there.
const THERE: &str = "hidden/there";
const EMPTY: &str = "hidden/empty";
const TAG: &str = "tag-there";
const NO_TAG: &str = "tag-empty";

/// A registry with a repository that only `alice` and the administrator see.
struct Hidden {
    house: House,
    alice: Client,
    manifest: String,
    blob: String,
    bytes: Vec<u8>,
}

impl Hidden {
    fn new() -> Self {
        let house = House::new();
        let alice = house.user("alice", &["hidden/** pull,push,delete", "shared/** pull,push"]);
        let bytes = content(3, 300);
        let blob = push(&alice, THERE, sha256, &bytes);
        let text = image(&[(&blob, 300)]);
        crate::put(&alice, THERE, TAG, OCI_MANIFEST, text.as_bytes(), "201");
        let manifest = sha256(text.as_bytes());
        // Something that refers to it.
        let config = push(&alice, THERE, sha256, b"{}");
        let subject = format!(r#","subject":{}"#, descriptor(OCI_MANIFEST, &manifest, text.len(), ""));
        let refers = image(&[(&config, 2)]).replace(r#","layers""#, &format!(r#"{subject},"layers""#));
        crate::put(&alice, THERE, "refers", OCI_MANIFEST, refers.as_bytes(), "201");
        Self { house, alice, manifest, blob, bytes }
    }

    /// Begins an upload in a repository; returns its name.
    fn upload(&self, client: &Client, repo: &str) -> String {
        let location = client.start_upload(repo).expect("begin an upload");
        location.rsplit('/').next().expect("a name").to_owned()
    }
}

/// Fails unless two requests are answered the same, but for these words.
#[track_caller]
fn alike(who: &str, client: &Client, one: (&str, &str), two: (&str, &str), headers: &[(&str, &str)], words: &[&str]) {
    let ask = |(method, target): (&str, &str)| {
        let body = if ["PUT", "POST", "PATCH"].contains(&method) { &b"{}"[..] } else { b"" };
        shape(&client.send(method, target, headers, body).expect("an answer"), words)
    };
    let (first, second) = (ask(one), ask(two));
    assert!(first == second, "{who}: {one:?} and {two:?} differ:\n{first}\n----\n{second}");
    assert!(!first.starts_with('2'), "{who}: {one:?} is answered:\n{first}");
}

#[test]
fn what_is_hidden_looks_like_what_is_not_there() {
    let hidden = Hidden::new();
    let house = &hidden.house;
    let absent = sha256(b"absent");
    let upload = hidden.upload(&hidden.alice, THERE);
    let other_upload = "01234567-89ab-4cde-8f01-23456789abcd";
    let all = format!("repository:{THERE}:pull,push,delete repository:{EMPTY}:pull,push,delete");
    let bob =
        house.user("bob", &["mine/** pull,push,delete", "hidden/other pull,push", "hidden pull", "hidde/** pull"]);
    let gone = house.user("gone", &["hidden/** pull"]);
    let gone_token = house.token(&gone, &all);
    house.order(&json!({"order": "user-disable", "name": "gone"}));
    let robot = house.robot("ci", &["mine/** pull,push"], None);
    house.grant("anonymous", "public/** pull");
    let callers = [
        ("anonymous", house.anonymous()),
        ("anonymous with a token", house.bearer(&house.token(&house.anonymous(), &all))),
        ("bob", house.basic("bob", &password("bob"))),
        ("bob with a token", house.bearer(&house.token(&bob, &all))),
        ("bob with a token for his own", house.bearer(&house.token(&bob, "repository:mine/a:pull,push"))),
        ("a robot", house.basic("ci", &robot)),
        ("a disabled user's token", house.bearer(&gone_token)),
        ("nonsense", house.bearer("eyJhbGciOiJub25lIn0.e30.x")),
    ];
    let target = |repo: &str, rest: &str| format!("/v2/{repo}/{rest}");
    let (uploads, tags) = ("blobs/uploads/".to_owned(), "tags/list".to_owned());
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (there, empty) in [
        (format!("manifests/{TAG}"), format!("manifests/{NO_TAG}")),
        (format!("manifests/{}", hidden.manifest), format!("manifests/{absent}")),
        (format!("blobs/{}", hidden.blob), format!("blobs/{absent}")),
        (format!("referrers/{}", hidden.manifest), format!("referrers/{absent}")),
        (format!("blobs/uploads/{upload}"), format!("blobs/uploads/{other_upload}")),
        (format!("blobs/uploads/{upload}?digest={absent}"), format!("blobs/uploads/{other_upload}?digest={absent}")),
        (uploads.clone(), uploads.clone()),
        (format!("{uploads}?digest={}", hidden.blob), format!("{uploads}?digest={absent}")),
        (format!("{uploads}?mount={}&from=mine/a", hidden.blob), format!("{uploads}?mount={absent}&from=mine/a")),
        (format!("{uploads}?mount={}", hidden.blob), format!("{uploads}?mount={absent}")),
        (tags.clone(), tags.clone()),
        (format!("{tags}?n=1&last=a"), format!("{tags}?n=1&last=a")),
    ] {
        pairs.push((target(THERE, &there), target(EMPTY, &empty)));
        pairs.push((target(THERE, &there), target(THERE, &empty)));
    }
    let words = [THERE, EMPTY, TAG, NO_TAG, &hidden.manifest, &hidden.blob, &absent, &upload, other_upload];
    let range = [("Range", "bytes=0-1")];
    let etag = [("If-None-Match", "*")];
    let chunk = [("Content-Range", "0-1"), ("Content-Type", OCI_MANIFEST)];
    for (who, client) in &callers {
        for (there, empty) in &pairs {
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
                alike(who, client, (method, there), (method, empty), &[], &words);
            }
            alike(who, client, ("GET", there), ("GET", empty), &range, &words);
            alike(who, client, ("HEAD", there), ("HEAD", empty), &etag, &words);
            alike(who, client, ("PUT", there), ("PUT", empty), &chunk, &words);
        }
    }
    // Whoever may see them sees the difference, and nothing of it was changed.
    let seen = |rest: &str, expected: &str| {
        check(&hidden.alice, &format!("GET /v2/{rest}"), b"", expected);
    };
    seen(&format!("{THERE}/manifests/{TAG}"), "200");
    seen(&format!("{EMPTY}/manifests/{TAG}"), "404 MANIFEST_UNKNOWN");
    seen(&format!("{THERE}/blobs/{}", hidden.blob), "200");
    seen(&format!("{EMPTY}/blobs/{}", hidden.blob), "404 BLOB_UNKNOWN");
    seen(&format!("{THERE}/tags/list"), "200");
    seen(&format!("{EMPTY}/tags/list"), "404 NAME_UNKNOWN");
    seen(&format!("{THERE}/blobs/uploads/{upload}"), "204 | range: 0-0");
    let got = check(&hidden.alice, &format!("GET /v2/{THERE}/referrers/{}", hidden.manifest), b"", "200");
    assert_eq!(got.json()["manifests"].as_array().map(Vec::len), Some(1));
}

#[test]
fn there_is_no_way_around_through_other_spellings() {
    let hidden = Hidden::new();
    let house = &hidden.house;
    let bob = house.user("bob", &["mine/** pull,push,delete"]);
    push_image(&bob, "mine/a", TAG, 9);
    let secret = "refers";
    let callers = [
        house.anonymous(),
        bob.clone(),
        house.bearer(&house.token(&bob, "repository:mine/a:pull,push repository:hidden/there:pull")),
    ];
    for path in [
        "hidden/there",
        "hidden%2fthere",
        "hidden%2Fthere",
        "%68idden/there",
        "hidden%252fthere",
        "hidden%25252fthere",
        "mine/../hidden/there",
        "mine/a/../../hidden/there",
        "mine/%2e%2e/hidden/there",
        "mine/%2E%2E%2Fhidden%2Fthere",
        "mine%2f..%2fhidden%2fthere",
        "mine/%252e%252e/hidden/there",
        "mine/..;/hidden/there",
        "mine/..%00/hidden/there",
        "mine/..\\hidden\\there",
        "mine/..%5chidden%5cthere",
        "mine/a/blobs/uploads/../../../../hidden/there",
        "./hidden/there",
        "../v2/hidden/there",
        "/hidden/there",
        "//hidden/there",
        "hidden//there",
        "hidden/./there",
        "Hidden/there",
        "HIDDEN/THERE",
        "%48idden/there",
        "hidden/there/",
        "hidden/there%00",
        "hidden/there%20",
        "hidden/there%09",
        "hidden/there#",
        "hidden/there%23",
        "hidden/there?x",
        "hidden/there%3f",
        "hidden/there;x=y",
        "%ef%bb%bfhidden/there",
        "hidden%c0%afthere",
        "hidden%e2%81%84there",
        "mine/a%0d%0ahidden/there",
        "mine/a,hidden/there",
        "mine/a%20repository:hidden/there",
        "mine/a:latest/hidden/there",
        "mine/a@hidden/there",
    ] {
        for rest in ["tags/list".to_owned(), format!("manifests/{TAG}"), format!("blobs/{}", hidden.blob)] {
            for client in &callers {
                let got = client.get(&format!("/v2/{path}/{rest}")).expect("an answer");
                assert!([400, 401, 403, 404].contains(&got.status), "{path}/{rest}: {} {}", got.status, got.text());
                assert!(!got.text().contains(secret) && got.body != hidden.bytes, "{path}: {}", got.text());
            }
        }
    }
    // Parameters do not stand for paths, nor other headers for what was asked.
    for headers in [
        [("X-Original-URL", "/v2/hidden/there/tags/list"), ("X-Rewrite-URL", "/v2/hidden/there/tags/list")],
        [("X-HTTP-Method-Override", "GET"), ("X-Forwarded-User", "alice")],
        [("X-Forwarded-Prefix", "/v2/hidden/there"), ("X-Remote-User", "admin")],
    ] {
        let got = bob.send("GET", "/v2/mine/a/tags/list?name=hidden/there", &headers, b"").expect("an answer");
        assert!(got.status == 200 && !got.text().contains(secret), "{}", got.text());
        let got = house.anonymous().send("GET", "/v2/hidden/there/tags/list", &headers, b"").expect("an answer");
        assert_eq!(got.status, 401);
    }
    // An encoded slash is a slash, for who may.
    check(&hidden.alice, "GET /v2/hidden%2Fthere/tags/list", b"", "200");
}

#[test]
fn a_mount_takes_nothing_from_where_one_may_not_pull() {
    let hidden = Hidden::new();
    let house = &hidden.house;
    let bob = house.user("bob", &["mine/** pull,push", "base/** pull"]);
    house.grant("anonymous", "drop/** pull,push");
    let token = house.bearer(&house.token(&bob, "repository:mine/a:pull,push repository:hidden/there:pull"));
    let (blob, absent) = (hidden.blob.as_str(), sha256(b"absent"));
    push(&bob, "mine/b", sha256, b"own");
    let begun = |who: &str, client: &Client, repo: &str, from: &str| {
        let mount = |digest: &str| {
            let request = format!("POST /v2/{repo}/blobs/uploads/?mount={digest}{from}");
            let got = check(client, &request, b"", "202 | range: 0-0 | docker-content-digest: -");
            let id = got.header("docker-upload-uuid").to_owned();
            shape(&got, &[&id])
        };
        let (held, unknown) = (mount(blob), mount(&absent));
        assert_eq!(held, unknown, "{who} {from}");
        check(client, &format!("GET /v2/{repo}/blobs/{blob}"), b"", "404 BLOB_UNKNOWN");
    };
    for from in [
        "",
        "&from=",
        "&from=hidden/there",
        "&from=hidden/empty",
        "&from=hidden%2Fthere",
        "&from=mine/a",
        "&from=mine/b",
        "&from=base/none",
        "&from=../hidden/there",
        "&from=Hidden/there",
        "&from=mine/b&from=hidden/there",
        "&from=hidden/there&from=mine/b",
        "&From=hidden/there",
        "&origin=hidden/there",
    ] {
        begun("bob", &bob, "mine/a", from);
        begun("bob with a token", &token, "mine/a", from);
        begun("anonymous", &house.anonymous(), "drop/a", from);
    }
    // Without the right to push where it would go, nothing begins.
    for client in [&house.anonymous(), &bob] {
        let request = format!("POST /v2/hidden/empty/blobs/uploads/?mount={blob}&from=mine/b");
        assert!([401, 403].contains(&check_status(client, &request)));
    }
    // One who may pull there mounts; one whose token is too narrow for it uploads.
    push(&house.admin(), "base/x", sha256, &hidden.bytes);
    begun("bob with a token", &token, "mine/a", "&from=base/x");
    begun("bob with a token", &token, "mine/a", "");
    let wide = house.bearer(&house.token(&bob, "repository:mine/a:pull,push repository:base/x:pull"));
    check(&wide, &format!("POST /v2/mine/a/blobs/uploads/?mount={blob}&from=base/x"), b"", "201");
    check(&bob, &format!("POST /v2/mine/c/blobs/uploads/?mount={blob}"), b"", "201");
    check(&bob, &format!("POST /v2/mine/d/blobs/uploads/?mount={blob}&from=base/x"), b"", "201");
    check(&bob, &format!("GET /v2/mine/d/blobs/{blob}"), b"", "200");
}

#[track_caller]
fn check_status(client: &Client, request: &str) -> u16 {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    client.send(method, target, &[], b"").expect("an answer").status
}

#[test]
fn a_manifest_brings_nothing_along_that_one_may_not_pull() {
    let hidden = Hidden::new();
    let house = &hidden.house;
    let bob = house.user("bob", &["mine/** pull,push"]);
    let config = push(&bob, "mine/a", sha256, b"{}");
    let absent = sha256(b"absent");
    let answer = |text: String, kind: &str, status: u16, words: &[&str]| {
        let headers = [("Content-Type", kind)];
        let got = bob.send("PUT", "/v2/mine/a/manifests/t", &headers, text.as_bytes()).expect("an answer");
        assert_eq!(got.status, status, "{}", got.text());
        shape(&got, &[words, &[&sha256(text.as_bytes())]].concat())
    };
    let words = [hidden.blob.as_str(), hidden.manifest.as_str(), absent.as_str()];
    let layered = |digest: &str| image(&[(&config, 2), (digest, 300)]);
    assert_eq!(
        answer(layered(&hidden.blob), OCI_MANIFEST, 400, &words),
        answer(layered(&absent), OCI_MANIFEST, 400, &words)
    );
    let index = |digest: &str| {
        let child = descriptor(OCI_MANIFEST, digest, 300, "");
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{child}]}}"#)
    };
    assert_eq!(answer(index(&hidden.manifest), OCI_INDEX, 400, &words), answer(index(&absent), OCI_INDEX, 400, &words));
    // A subject need not be there.
    let about = |digest: &str| {
        let subject = format!(r#","subject":{},"layers""#, descriptor(OCI_MANIFEST, digest, 300, ""));
        image(&[(&config, 2)]).replace(r#","layers""#, &subject)
    };
    assert_eq!(
        answer(about(&hidden.manifest), OCI_MANIFEST, 201, &words),
        answer(about(&absent), OCI_MANIFEST, 201, &words)
    );
    // And is no more there than before, on either side.
    for reference in [TAG, &hidden.manifest] {
        check(&bob, &get_manifest("mine/a", reference), b"", "404 MANIFEST_UNKNOWN");
    }
    check(&bob, &format!("GET /v2/mine/a/blobs/{}", hidden.blob), b"", "404 BLOB_UNKNOWN");
    let got = check(&hidden.alice, &format!("GET /v2/{THERE}/referrers/{}", hidden.manifest), b"", "200");
    assert_eq!(got.json()["manifests"].as_array().map(Vec::len), Some(1), "{}", got.text());
    // Nor does the digest alone bring bytes along.
    for digest in [&hidden.blob, &absent] {
        check(&bob, &format!("POST /v2/mine/a/blobs/uploads/?digest={digest}"), b"", "400 DIGEST_INVALID");
    }
}

#[test]
fn lists_hold_what_one_may_pull_and_tell_of_no_more() {
    let house = House::new();
    let bob = house.user("bob", &["mine/* pull,push", "nn/x pull"]);
    let nobody = house.user("nobody", &[]);
    for repo in ["mine/a", "mine/b", "nn/x"] {
        push_image(&house.admin(), repo, "t", 1);
    }
    let token = house.bearer(&house.token(&bob, "registry:catalog:*"));
    let page = |client: &Client, query: &str| {
        let got = check(client, &format!("GET /v2/_catalog{query}"), b"", "200");
        let names: Vec<String> = got.json()["repositories"].as_array().expect("names").iter().map(text).collect();
        (names.join(" "), got.header("link").to_owned())
    };
    let queries =
        ["", "?n=0", "?n=1", "?n=2", "?n=3", "?n=100", "?n=1&last=mine/a", "?n=1&last=mine/b", "?n=1&last=nn/x"];
    let all = |client: &Client| -> Vec<(String, String)> { queries.iter().map(|query| page(client, query)).collect() };
    let before = all(&bob);
    assert_eq!(before[0], ("mine/a mine/b nn/x".to_owned(), String::new()));
    assert_eq!(before[2].0, "mine/a");
    assert!(before[2].1.contains("last=mine/a&n=1"), "{:?}", before[2]);
    assert_eq!(before[4], ("mine/a mine/b nn/x".to_owned(), String::new()));
    // Everywhere around what he sees, others come to be that he does not.
    for repo in ["a", "hidden/x", "mine", "mine/a/sub", "mine/b/sub", "mine-2/a", "nn", "nn/w", "nn/y", "zz/last"] {
        push_image(&house.admin(), repo, "t", 1);
    }
    for client in [&bob, &token] {
        assert_eq!(all(client), before);
        // The name of a hidden one is as good a place to begin as one that nothing has.
        for (hidden, free) in
            [("hidden/x", "hidden/y"), ("mine/a/sub", "mine/a/sud"), ("nn", "nm"), ("zz/last", "zz/lasu")]
        {
            for n in ["", "&n=1", "&n=2"] {
                let last = |name: &str| page(client, &format!("?last={name}{n}"));
                assert_eq!(last(hidden), last(free), "{hidden} {n}");
            }
        }
    }
    assert_eq!(page(&house.admin(), "").0.split(' ').count(), 13);
    // Page by page, to the end.
    let (mut query, mut seen) = ("?n=1".to_owned(), Vec::new());
    loop {
        let (names, link) = page(&bob, &query);
        seen.push(names);
        match link.split_once('?').and_then(|(_, rest)| rest.split_once('>')) {
            Some((next, _)) => query = format!("?{next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["mine/a", "mine/b", "nn/x"]);
    // Who sees nothing.
    for query in ["", "?n=1", "?n=1&last=hidden/x"] {
        assert_eq!(page(&nobody, query), Default::default());
        check(&house.anonymous(), &format!("GET /v2/_catalog{query}"), b"", UNAUTHORIZED);
    }
    check(&nobody, "GET /v2/mine/a/tags/list", b"", "403 DENIED");
    check(&house.anonymous(), "GET /v2/mine/a/tags/list", b"", UNAUTHORIZED);
    house.grant("anonymous", "mine/a pull");
    assert_eq!(page(&house.anonymous(), "").0, "mine/a");
    assert_eq!(page(&house.anonymous(), "?n=1"), ("mine/a".to_owned(), String::new()));
    // Tags and referrers of another repository are not in one's own.
    let tags = check(&bob, "GET /v2/mine/a/tags/list", b"", "200").json();
    assert_eq!(tags, json!({"name": "mine/a", "tags": ["t"]}));
    assert_eq!(check(&bob, "GET /v2/mine/a/tags/list?n=1&last=a", b"", "200 | link: -").json()["tags"], json!(["t"]));
}

#[test]
fn an_upload_belongs_to_its_repository_and_not_to_who_began_it() {
    let hidden = Hidden::new();
    let house = &hidden.house;
    let bob = house.user("bob", &["mine/** pull,push", "shared/** pull,push", "read/** pull"]);
    let begin = |repo: &str| {
        let id = hidden.upload(&hidden.alice, repo);
        check(&hidden.alice, &format!("PATCH /v2/{repo}/blobs/uploads/{id}"), b"abc", "202 | range: 0-2");
        id
    };
    // Whoever may push to a repository may go on with an upload there, as with the original: its
    // name has 122 random bits.
    let id = begin("shared/a");
    check(&bob, &format!("GET /v2/shared/a/blobs/uploads/{id}"), b"", "204 | range: 0-2");
    check(&bob, &format!("PATCH /v2/shared/a/blobs/uploads/{id}"), b"def", "202 | range: 0-5");
    // Through no other repository, and in none where he may not push.
    for size in [3, 100_000] {
        let id = hidden.upload(&hidden.alice, THERE);
        let body = content(7, size);
        check(&hidden.alice, &format!("PATCH /v2/{THERE}/blobs/uploads/{id}"), &body, "202");
        let (digest, none) = (sha256(&body), "01234567-89ab-4cde-8f01-23456789abcd");
        for repo in ["mine/a", "shared/a", THERE, "read/a", EMPTY] {
            for (method, query) in [
                ("GET", ""),
                ("HEAD", ""),
                ("PATCH", ""),
                ("PUT", format!("?digest={digest}").as_str()),
                ("DELETE", ""),
            ] {
                let target = |id: &str| format!("/v2/{repo}/blobs/uploads/{id}{query}");
                let (one, two) = (target(&id), target(none));
                alike("bob", &bob, (method, &one), (method, &two), &[], &[&id, none]);
            }
        }
        check(&bob, &format!("HEAD /v2/mine/a/blobs/{digest}"), b"", "404");
        let range = format!("204 | range: 0-{}", size - 1);
        check(&hidden.alice, &format!("GET /v2/{THERE}/blobs/uploads/{id}"), b"", &range);
        check(&hidden.alice, &format!("PUT /v2/{THERE}/blobs/uploads/{id}?digest={digest}"), b"", "201");
    }
}
