//! What goes by itself, what comes back, and what is promised: retention, undelete, history, leases.

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

use crate::{
    OCI_MANIFEST, PLAIN, REGISTRY, check, content, get_manifest, image, plain_registry, push, push_image, put,
};

fn registry(server: &Server, command: &str, args: &[&str]) -> Outcome {
    let mut program = tool(REGISTRY);
    program.arg(command).args(args).arg(server.config());
    run(program)
}

fn answer(server: &Server, command: &str, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
    serde_json::from_str(&registry(server, command, &args).ok().stdout).expect("an answer in JSON")
}

fn tags(client: &Client, repo: &str) -> String {
    let got = check(client, &format!("GET /v2/{repo}/tags/list"), b"", "200").json();
    let tags: Vec<&str> = got["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    tags.join(" ")
}

#[test]
fn what_was_deleted_comes_back() {
    let mut server = plain_registry();
    let client = server.client();
    let (old, new) = (push_image(&client, "team/api", "1", 1), push_image(&client, "team/api", "2", 2));
    push_image(&client, "team/api", "also", 2);
    check(&client, "DELETE /v2/team/api/manifests/1", b"", "202");
    check(&client, &format!("DELETE /v2/team/api/manifests/{new}"), b"", "202");
    assert_eq!(tags(&client, "team/api"), "");
    // While a server runs, by asking it, and then without one.
    for served in [true, false] {
        if !served {
            check(&client, "DELETE /v2/team/api/manifests/1", b"", "202");
            check(&client, &format!("DELETE /v2/team/api/manifests/{new}"), b"", "202");
            server.stop();
        }
        let got = answer(&server, "undelete", &["team/api:1"]);
        assert_eq!(got, json!({ "repository": "team/api", "digest": old, "tags": ["1"] }));
        let shown = registry(&server, "undelete", &[&format!("team/api@{new}")]).ok().stdout;
        assert_eq!(shown, format!("team/api@{new} is there; tags: 2, also\n"));
        registry(&server, "undelete", &["team/api:1"]).refused(&["tag 1 is there and names", "hint: delete the tag"]);
        registry(&server, "undelete", &["team/api:3"]).refused(&["nothing is left of team/api:3", "registry history"]);
        registry(&server, "undelete", &["team/none:3"]).refused(&["nothing is left of team/none:3"]);
        registry(&server, "undelete", &["team/api"]).refused(&["write REPO:TAG or REPO@DIGEST"]);
        let entries = answer(&server, "history", &["team/api:1"])["entries"].clone();
        let actions: Vec<&Value> = entries.as_array().into_iter().flatten().map(|entry| &entry["action"]).collect();
        let want = ["restored", "deleted", "restored", "deleted", "set"];
        assert_eq!(actions, if served { &want[2..] } else { &want[..] });
        assert!(entries[0]["kept"] == true && entries[0]["digest"] == old, "{entries}");
        let shown = registry(&server, "history", &["team/api", "--limit", "1"]).ok().stdout;
        assert!(shown.starts_with("WHEN") && shown.lines().count() == 2 && shown.contains("restored"), "{shown}");
        registry(&server, "history", &["elsewhere"]).refused(&["elsewhere: repository name not known"]);
        if !served {
            server.start_again();
        }
        for (tag, digest) in [("1", &old), ("2", &new), ("also", &new)] {
            check(&client, &get_manifest("team/api", tag), b"", &format!("200 | docker-content-digest: {digest}"));
        }
        assert_eq!(tags(&client, "team/api"), "1 2 also");
    }
}

/// A registry that looks every second which tags go.
fn forgetful(more: &str) -> Server {
    let rules = "
roadstead:
  retention:
    interval: 1s
    rules:
      - {repositories: 'team/*', tags: '^[0-9]', keep_last: 2}
      - {repositories: 'ci/**', keep_pulled_within: 1h, keep_pushed_within: 4s}
  immutable:
    - {repositories: 'team/*', tags: 'lts'}
";
    Setup::new(REGISTRY, &format!("{PLAIN}{rules}{more}")).start()
}

#[test]
fn retention_lets_go_what_no_rule_keeps() {
    let receiver = Receiver::start(200);
    let events = format!("notifications:\n  endpoints:\n    - {{name: all, url: 'http://{}/'}}\n", receiver.address());
    let server = forgetful(&events);
    let client = server.client();
    for (seed, tag) in (1..).zip(["1", "2-lts", "3", "4", "5", "latest"]) {
        push_image(&client, "team/api", tag, seed);
        push_image(&client, "free/api", tag, seed);
    }
    assert!(wait_until(Duration::from_secs(30), || tags(&client, "team/api").split(' ').count() == 4));
    assert!(tags(&client, "team/api").ends_with(" latest") && tags(&client, "team/api").contains("2-lts"));
    assert_eq!(tags(&client, "free/api"), "1 2-lts 3 4 5 latest");
    // Of what was pushed in the same second names decide, so it is not known which went: the log says.
    assert_eq!(server.log().matches("retention removed team/api:").count(), 2, "{}", server.log());
    let deletes = || receiver.events().iter().filter(|event| event["action"] == "delete").count();
    assert!(wait_until(Duration::from_secs(30), || deletes() == 2));
    let events = receiver.events();
    let event = events.iter().find(|event| event["action"] == "delete").expect("an event");
    assert_eq!((&event["actor"]["name"], &event["target"]["repository"]), (&json!("retention"), &json!("team/api")));
}

#[test]
fn what_is_pulled_stays() {
    let server = forgetful("");
    let client = server.client();
    push_image(&client, "ci/app", "idle", 1);
    push_image(&client, "ci/app", "used", 2);
    check(&client, &get_manifest("ci/app", "used"), b"", "200");
    assert!(wait_until(Duration::from_secs(30), || tags(&client, "ci/app") == "used"), "{}", tags(&client, "ci/app"));
    let got = answer(&server, "retention", &[]);
    assert_eq!((&got["expired"], &got["tags"], &got["run"]), (&json!(0), &json!(1), &json!(false)), "{got}");
}

#[test]
fn a_dry_run_tells_and_a_run_removes() {
    let config = format!(
        "{PLAIN}\nroadstead:\n  retention:\n    interval: 24h\n    rules:\n      - {{repositories: '**', tags: '^[0-9]', keep_last: 1}}\n"
    );
    let mut server = Setup::new(REGISTRY, &config).start();
    let client = server.client();
    for (seed, tag) in (1..).zip(["1", "2", "3", "4", "x"]) {
        push_image(&client, "team/api", tag, seed);
    }
    for served in [true, false] {
        let went = if served { 3 } else { 2 };
        let got = answer(&server, "retention", &["--dry-run"]);
        assert_eq!(got["rules"], json!(["** ^[0-9]: the last 1"]));
        assert_eq!((&got["expired"], &got["listed"][0]["rule"]), (&json!(went), &json!(1)), "{got}");
        assert_eq!(got["listed"][0]["pulled"], Value::Null);
        let shown = registry(&server, "retention", &[]).ok().stdout;
        assert!(shown.contains("nothing was removed (--run removes them)") && shown.contains("team/api"), "{shown}");
        let shown = registry(&server, "retention", &["--run"]).ok().stdout;
        assert!(shown.contains(&format!("{went} tags removed; `registry undelete`")), "{shown}");
        let gone = got["listed"][0]["tag"].as_str().expect("a tag").to_owned();
        if served {
            assert_eq!(tags(&client, "team/api").split(' ').count(), 2);
            for gone in got["listed"].as_array().expect("a list").iter().take(2) {
                registry(&server, "undelete", &[&format!("team/api:{}", gone["tag"].as_str().expect("a tag"))]).ok();
            }
            server.stop();
        } else {
            registry(&server, "undelete", &[&format!("team/api:{gone}")]).ok();
            server.start_again();
            assert_eq!(tags(&client, "team/api").split(' ').count(), 3);
        }
    }
    let mut program = tool(REGISTRY);
    program.args(["retention", "--data"]).arg(server.data());
    // The server knows its rules, wherever the command was told to look.
    assert!(run(program).ok().stdout.contains("rule 1 keeps of ** ^[0-9]: the last 1"));
    server.stop();
    let mut program = tool(REGISTRY);
    program.args(["quota", "--data"]).arg(server.data());
    run(program).refused(&["name CONFIG in place of --data"]);
}

#[test]
fn quotas_are_told() {
    let config = format!(
        "{PLAIN}\nroadstead:\n  quotas:\n    - {{prefix: team, limit: 1MiB}}\n    - {{prefix: a, limit: 1KiB}}\n"
    );
    let mut server = Setup::new(REGISTRY, &config).start();
    let client = server.client();
    push(&client, "team/api", sha256, &content(1, 300_000));
    push(&client, "team/web", sha256, &content(1, 300_000));
    let upload = check(&client, "POST /v2/team/x/blobs/uploads/", b"", "202").header("location").to_owned();
    check(&client, &format!("PATCH {upload}"), &content(2, 1000), "202");
    let quota = |prefix: &str, limit: u64, used: u64, reserved: u64| json!({ "prefix": prefix, "limit": limit, "used": used, "reserved": reserved });
    let want = json!([quota("team", 1 << 20, 300_000, 1000), quota("a", 1024, 0, 0)]);
    assert_eq!(answer(&server, "quota", &[])["quotas"], want);
    let shown = registry(&server, "quota", &[]).ok().stdout;
    assert!(shown.contains("team    1 MiB  292.9 KiB") || shown.contains("292 KiB  1000 B    28%"), "{shown}");
    server.stop();
    let want = json!([quota("team", 1 << 20, 300_000, 0), quota("a", 1024, 0, 0)]);
    assert_eq!(answer(&server, "quota", &[])["quotas"], want);
}

#[test]
fn what_head_says_holds_for_a_lease() {
    let gc = "\nroadstead:\n  gc: {interval: 1s, grace: 1s, lease: 8s, quarantine: 0s, untagged: 1s}\n";
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{gc}")).start();
    let client = server.client();
    let (asked, unasked) = (content(1, 100_000), content(2, 100_000));
    let asked = push(&client, "r", sha256, &asked);
    let unasked = push(&client, "r", sha256, &unasked);
    let is_there =
        |digest: &str| client.send("GET", &format!("/v2/r/blobs/{digest}"), &[], b"").expect("an answer").status == 200;
    // Whoever is told that a blob is here may rely on that, and is told again and again.
    assert!(wait_until(Duration::from_secs(60), || {
        check(&client, &format!("HEAD /v2/r/blobs/{asked}"), b"", "200");
        !is_there(&unasked)
    }));
    assert!(is_there(&asked));
    check(&client, &format!("HEAD /v2/r/blobs/{unasked}"), b"", "404");
    let manifest = image(&[(&asked, 100_000)]);
    put(&client, "r", "t", OCI_MANIFEST, manifest.as_bytes(), "201");
    // Nobody asks for it any more: it goes as well.
    check(&client, "DELETE /v2/r/manifests/t", b"", "202");
    assert!(wait_until(Duration::from_secs(60), || !is_there(&asked)));
    check(&client, &format!("HEAD /v2/r/blobs/{asked}"), b"", "404");
}
