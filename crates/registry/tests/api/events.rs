//! Notifications: what they say, that they arrive in order whatever happens, and dead letters.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    client::Client,
    command::{Outcome, run, tool},
    image::sha256,
    process::wait_until,
    receiver::Receiver,
    server::{Server, Setup},
};

use crate::{OCI_MANIFEST, PLAIN, REGISTRY, check, get_manifest, image, push, push_image, put};

const LIMIT: Duration = Duration::from_secs(30);
const BLOBS: &str = "application/octet-stream";

fn endpoint(name: &str, receiver: &Receiver, more: &str) -> String {
    let url = format!("http://{}/events", receiver.address());
    format!("    - {{name: {name}, url: '{url}', timeout: 5s, threshold: 1, backoff: 1ms{more}}}\n")
}

fn registry(endpoints: &[String]) -> Server {
    let section =
        format!("notifications:\n  events:\n    includereferences: true\n  endpoints:\n{}", endpoints.concat());
    Setup::new(REGISTRY, &format!("{PLAIN}{section}")).start()
}

/// Waits for `count` events; fails unless there are exactly so many by then.
#[track_caller]
fn events(receiver: &Receiver, count: usize) -> Vec<Value> {
    wait_until(LIMIT, || receiver.events().len() >= count);
    let events = receiver.events();
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

fn kinds(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    events
        .iter()
        .map(|event| {
            let target = &event["target"];
            let what = if target["mediaType"] == BLOBS { "blob" } else { "manifest" };
            let tag = target["tag"].as_str().map(|tag| format!(" {tag}")).unwrap_or_default();
            format!("{} {what} {}{tag}", text(&event["action"]), text(&target["repository"]))
        })
        .collect()
}

#[test]
fn events_say_what_happened() {
    let (all, some) = (Receiver::start(200), Receiver::start(200));
    let server = registry(&[
        endpoint("all", &all, ", headers: {Authorization: [Bearer hook]}"),
        endpoint("some", &some, &format!(", ignore: {{mediatypes: [{BLOBS}], actions: [pull]}}")),
        endpoint("off", &some, ", disabled: true"),
    ]);
    let client = server.client();
    let agent = " | User-Agent: test/1";
    let blob = push(&client, "src", sha256, b"{}");
    check(&client, &format!("POST /v2/dst/blobs/uploads/?mount={blob}&from=src{agent}"), b"", "201");
    let text = image(&[(&blob, 2)]);
    let digest = sha256(text.as_bytes());
    check(
        &client,
        &format!(
            "PUT /v2/dst/manifests/v1 | Content-Type: {OCI_MANIFEST}{agent} | X-Forwarded-Proto: https | X-Forwarded-Host: reg.example"
        ),
        text.as_bytes(),
        "201",
    );
    put(&client, "dst", &format!("{digest}?tag=a&tag=b"), OCI_MANIFEST, text.as_bytes(), "201");
    put(&client, "dst", &digest, OCI_MANIFEST, text.as_bytes(), "201");
    // A pull is recorded beside its answer; wait so that their order is known.
    let pulls = [get_manifest("dst", "v1"), get_manifest("dst", &digest), format!("GET /v2/dst/blobs/{blob}")];
    for (count, pull) in (7..).zip(&pulls) {
        check(&client, pull, b"", "200");
        events(&all, count);
    }
    // None of these is an event.
    check(&client, &format!("HEAD /v2/dst/manifests/{digest}"), b"", "200");
    check(&client, &format!("GET /v2/dst/blobs/{blob} | If-None-Match: *"), b"", "304");
    check(&client, &format!("POST /v2/dst/blobs/uploads/?mount={}", sha256(b"absent")), b"", "202");
    put(&client, "dst", "bad", OCI_MANIFEST, b"{}", "400 MANIFEST_INVALID");
    check(&client, "DELETE /v2/dst/manifests/absent", b"", "404 MANIFEST_UNKNOWN");
    check(&client, "DELETE /v2/dst/manifests/a", b"", "202");
    check(&client, &format!("DELETE /v2/dst/manifests/{digest}"), b"", "202");
    check(&client, &format!("DELETE /v2/dst/blobs/{blob}"), b"", "202");
    let seen = events(&all, 12);
    assert_eq!(
        kinds(&seen),
        [
            "push blob src",
            "mount blob dst",
            "push manifest dst v1",
            "push manifest dst a",
            "push manifest dst b",
            "push manifest dst",
            "pull manifest dst v1",
            "pull manifest dst",
            "pull blob dst",
            "delete manifest dst a",
            "delete manifest dst",
            "delete blob dst",
        ]
    );
    let base = server.url();
    let fields = |index: usize, target: Value| assert_eq!(seen[index]["target"], target, "{}", seen[index]);
    let blob_of = |repo: &str, more: Value| {
        let mut target = json!({"mediaType": BLOBS, "digest": blob, "repository": repo});
        for (key, value) in more.as_object().expect("fields") {
            target[key] = value.clone();
        }
        target
    };
    let url = |repo: &str| format!("{base}/v2/{repo}/blobs/{blob}");
    fields(0, blob_of("src", json!({"size": 2, "length": 2, "url": url("src")})));
    fields(1, blob_of("dst", json!({"fromRepository": "src", "url": url("dst")})));
    let reference = json!({"mediaType": testkit::image::OCI_CONFIG, "digest": blob, "size": 2});
    fields(
        2,
        json!({
            "mediaType": OCI_MANIFEST, "digest": digest, "size": text.len(), "length": text.len(), "repository": "dst",
            "tag": "v1", "url": format!("https://reg.example/v2/dst/manifests/{digest}"), "references": [reference],
        }),
    );
    fields(
        6,
        json!({
            "mediaType": OCI_MANIFEST, "digest": digest, "size": text.len(), "length": text.len(), "repository": "dst",
            "tag": "v1", "url": format!("{base}/v2/dst/manifests/{digest}"),
        }),
    );
    fields(9, json!({"repository": "dst", "tag": "a"}));
    assert_eq!((&seen[10]["target"]["digest"], &seen[10]["target"]["size"]), (&json!(digest), &Value::Null));
    assert_eq!(seen[11]["target"]["digest"], json!(blob));
    let request = &seen[2]["request"];
    assert_eq!((&request["method"], &request["useragent"]), (&json!("PUT"), &json!("test/1")));
    assert_eq!(request["host"], server.host_port());
    assert!(request["addr"].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")), "{request}");
    let mut ids: Vec<&str> = seen.iter().filter_map(|event| event["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), seen.len(), "ids are not unique");
    for event in &seen {
        assert!(event["timestamp"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')), "{event}");
        assert_eq!(event["actor"], json!({"name": ""}));
        assert_eq!(event["source"]["instanceID"], seen[0]["source"]["instanceID"]);
        let port = server.host_port().rsplit(':').next().unwrap_or_default();
        assert!(event["source"]["addr"].as_str().is_some_and(|addr| addr.ends_with(port)), "{event}");
        assert!(event["request"]["id"].as_str().is_some_and(|id| !id.is_empty()), "{event}");
    }
    for request in all.received() {
        let head = request.head.to_lowercase();
        assert!(head.contains("content-type: application/vnd.docker.distribution.events.v2+json"), "{head}");
        assert!(head.starts_with("post /events http/1.1") && head.contains("authorization: bearer hook"), "{head}");
        assert_eq!(request.json["events"].as_array().map(Vec::len), Some(1));
    }
    assert_eq!(
        kinds(&events(&some, 6)),
        [
            "push manifest dst v1",
            "push manifest dst a",
            "push manifest dst b",
            "push manifest dst",
            "delete manifest dst a",
            "delete manifest dst",
        ]
    );
}

#[test]
fn events_name_the_host_over_http_2_too() {
    let receiver = Receiver::start(200);
    let section = format!("  h2c:\n    enabled: true\nnotifications:\n  endpoints:\n{}", endpoint("a", &receiver, ""));
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{section}")).start();
    let mut curl = tool("curl");
    let target = format!("{}/v2/r/blobs/uploads/?digest={}", server.url(), sha256(b"abc"));
    curl.args(["-sSf", "--http2-prior-knowledge", "-d", "abc", &target]);
    run(curl).ok();
    assert_eq!(events(&receiver, 1)[0]["request"]["host"], server.host_port());
}

fn push_all(client: &Client, tags: &[String]) {
    for tag in tags {
        push_image(client, "r", tag, 1);
    }
}

fn tags_of(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|event| event["target"]["tag"].as_str().map(str::to_owned)).collect()
}

#[test]
fn failures_keep_the_order_and_a_kill_loses_nothing() {
    let receiver = Receiver::start(503);
    let only_manifests = format!(", ignore: {{mediatypes: [{BLOBS}]}}");
    let mut server = registry(&[endpoint("hook", &receiver, &only_manifests)]);
    let tags: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    push_all(&server.client(), &tags);
    assert!(wait_until(LIMIT, || receiver.received().len() >= 3), "nothing is tried again");
    server.kill9();
    server.start_again();
    push_all(&server.client(), &["last".to_owned()]);
    receiver.set_status(200);
    let seen = events(&receiver, 21);
    let expected: Vec<String> = tags.into_iter().chain(["last".to_owned()]).collect();
    assert_eq!(tags_of(&seen), expected);
    let first = receiver.received().remove(0);
    assert_eq!(first.json["events"][0]["id"], seen[0]["id"], "an event keeps its id");
}

fn letters(server: &Server, args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.arg("notifications").args(args).arg(server.config());
    run(command)
}

#[test]
fn what_is_never_accepted_becomes_a_dead_letter() {
    let receiver = Receiver::start(500);
    let only_manifests = format!(", ignoredmediatypes: [{BLOBS}]");
    let server = registry(&[endpoint("hook", &receiver, &only_manifests)]);
    assert_eq!(letters(&server, &["list"]).ok().stdout, "no dead letters\n");
    push_all(&server.client(), &["dead".to_owned()]);
    let list = || {
        let text = letters(&server, &["list", "--format", "json"]).ok().stdout;
        serde_json::from_str::<Vec<Value>>(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    assert!(wait_until(LIMIT, || !list().is_empty()), "no dead letter");
    let letter = list().remove(0);
    assert_eq!((&letter["endpoint"], &letter["event"]["target"]["tag"]), (&json!("hook"), &json!("dead")));
    assert!(letter["error"].as_str().is_some_and(|text| text.contains("500")), "{letter}");
    assert!(letter["attempts"].as_u64().is_some_and(|count| count >= 16), "{letter}");
    let table = letters(&server, &["list"]).ok().stdout;
    assert!(table.contains("hook") && table.contains("push") && table.contains("500"), "{table}");
    // It does not hold up the next one.
    receiver.set_status(200);
    push_all(&server.client(), &["alive".to_owned()]);
    assert_eq!(tags_of(&events(&receiver, 1)), ["alive"]);
    let id = letter["id"].to_string();
    let unknown = letters(&server, &["replay", "--id", "999999"]);
    assert_eq!(unknown.code, Some(1));
    unknown.refused(&["no dead letter 999999"]);
    let replayed = letters(&server, &["replay", "--id", &id]).ok();
    assert_eq!(replayed.stdout, "1 event back in the queue\n");
    assert_eq!(tags_of(&events(&receiver, 2)), ["alive", "dead"]);
    assert!(wait_until(LIMIT, || list().is_empty()), "the letter stays");
    assert_eq!(letters(&server, &["replay", "--all"]).ok().stdout, "0 events back in the queue\n");
}
