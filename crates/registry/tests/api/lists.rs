//! Tags and the catalog: order, pages, and what counts as a number.

use testkit::{client::Client, image::sha256, server::Setup};

use crate::{PLAIN, REGISTRY, check, plain_registry, push, push_image, referrers::next_of};

/// Follows the links from `path` to the end; returns the entries of each page.
#[track_caller]
fn pages(client: &Client, path: &str, key: &str) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), path.to_owned());
    while !next.is_empty() {
        let got = check(client, &format!("GET {next}"), b"", "200 | content-type: application/json");
        let json = got.json();
        let entries = json[key].as_array().unwrap_or_else(|| panic!("{next}: {}", got.text()));
        pages.push(entries.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect());
        next = next_of(&got);
        assert!(pages.len() < 100, "the links from {path} never end");
    }
    pages
}

/// `/v2/<name>/tags/list` and the catalog follow the same rules. `all` is in order.
#[track_caller]
fn check_paging(client: &Client, path: &str, key: &str, all: &[&str]) {
    assert_eq!(pages(client, path, key).concat(), all);
    for n in 1..=all.len() + 1 {
        let want: Vec<Vec<&str>> = all.chunks(n).map(<[&str]>::to_vec).collect();
        assert_eq!(pages(client, &format!("{path}?n={n}"), key), want, "n={n}");
    }
    for (index, last) in all.iter().enumerate() {
        assert_eq!(pages(client, &format!("{path}?n=2&last={last}"), key).concat(), all[index + 1..], "{last}");
        assert_eq!(pages(client, &format!("{path}?last={last}"), key).concat(), all[index + 1..], "{last}");
    }
    assert_eq!(pages(client, &format!("{path}?last=zzz"), key).concat(), [""; 0]);
    assert_eq!(pages(client, &format!("{path}?n=0"), key), [[""; 0]]);
    assert_eq!(pages(client, &format!("{path}?n="), key).concat(), all);
    for bad in ["x", "-1", "1.5", "%2B1", "1%20", "99999999999999999999999", "-99999999999999999999", "%00", "0x10"] {
        check(client, &format!("GET {path}?n={bad}"), b"", "400 PAGINATION_NUMBER_INVALID");
    }
    check(client, &format!("HEAD {path}"), b"", "200 | content-type: application/json");
}

#[test]
fn tags_are_listed_in_order() {
    let mut server = plain_registry();
    let client = server.client();
    for (seed, tag) in (0..).zip(["b", "a", "C", "_x", "10", "9", "a.b", "a-b", "A"]) {
        push_image(&client, "deep/er/tags", tag, seed % 3);
    }
    push_image(&client, "other", "elsewhere", 1);
    let sorted = ["10", "9", "A", "C", "_x", "a", "a-b", "a.b", "b"];
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        check_paging(&client, "/v2/deep/er/tags/tags/list", "tags", &sorted);
    }
    let got = check(&client, "GET /v2/deep/er/tags/tags/list?n=1&last=zzz", b"", "200 | link: -");
    assert_eq!(got.json(), serde_json::json!({"name": "deep/er/tags", "tags": []}));
    let got = check(&client, "GET /v2/unknown/tags/list", b"", "404 NAME_UNKNOWN");
    assert_eq!(got.json()["errors"][0]["detail"]["name"], "unknown");
    check(&client, "GET /v2/unknown/tags/list?n=0", b"", "404 NAME_UNKNOWN");
}

#[test]
fn the_catalog_is_ordered_by_component() {
    let mut server = plain_registry();
    let client = server.client();
    let sorted = ["a", "a/b", "a/b/c", "a-b", "a.b", "ab", "b", "z/y"];
    for (seed, repo) in (0..).zip(sorted.iter().rev()) {
        push_image(&client, repo, "t", seed);
    }
    push(&client, "only/blobs", sha256, b"no manifest here");
    let gone = push_image(&client, "emptied", "t", 99);
    check(&client, &format!("DELETE /v2/emptied/manifests/{gone}"), b"", "202");
    for restart in [false, true] {
        if restart {
            server.restart();
        }
        check_paging(&client, "/v2/_catalog", "repositories", &sorted);
    }
}

#[test]
fn pages_have_limits() {
    let server = Setup::new(REGISTRY, &format!("{PLAIN}catalog:\n  maxentries: 3\ntags:\n  maxtags: 2\n")).start();
    let client = server.client();
    for (seed, repo) in (0..).zip(["a", "b", "c", "d"]) {
        push_image(&client, repo, "t", seed);
    }
    for tag in ["u", "v"] {
        push_image(&client, "a", tag, 0);
    }
    let lengths = |path: &str, key: &str| pages(&client, path, key).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths("/v2/_catalog", "repositories"), [3, 1]);
    assert_eq!(lengths("/v2/_catalog?n=3", "repositories"), [3, 1]);
    check(&client, "GET /v2/_catalog?n=4", b"", "400 PAGINATION_NUMBER_INVALID");
    assert_eq!(lengths("/v2/a/tags/list", "tags"), [3]);
    assert_eq!(lengths("/v2/a/tags/list?n=1000", "tags"), [2, 1]);
}
