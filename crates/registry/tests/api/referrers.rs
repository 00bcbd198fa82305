//! Referrers: who is listed, how the list is filtered and paged.

use serde_json::Value;
use testkit::{
    client::Client,
    http::Response,
    image::{sha256, sha512},
};

use crate::{OCI_INDEX, OCI_MANIFEST, check, descriptor, image, plain_registry, push, put};

/// Asks for referrers; follows the links to the end and returns every descriptor and the pages.
#[track_caller]
fn list(client: &Client, path: &str) -> (Vec<Value>, Vec<Response>) {
    let (mut all, mut pages, mut next) = (Vec::new(), Vec::new(), path.to_owned());
    while !next.is_empty() {
        let got = check(client, &format!("GET {next}"), b"", &format!("200 | content-type: {OCI_INDEX}"));
        let json = got.json();
        assert_eq!((&json["schemaVersion"], &json["mediaType"]), (&2.into(), &OCI_INDEX.into()), "{next}");
        all.extend(json["manifests"].as_array().expect("a list").clone());
        next = next_of(&got);
        pages.push(got);
    }
    (all, pages)
}

pub(crate) fn next_of(response: &Response) -> String {
    let link = response.header("link");
    if link.is_empty() {
        return String::new();
    }
    let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    target.unwrap_or_else(|| panic!("no link: {link}")).to_owned()
}

#[test]
fn referrers_are_listed_and_filtered() {
    let mut server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let base = image(&[(&config, 2)]);
    for subject in [sha256(base.as_bytes()), sha512(base.as_bytes())] {
        let repo = "r";
        let path = format!("/v2/{repo}/referrers/{subject}");
        assert_eq!(list(&client, &path).0.len(), 0);
        let about = |text: &str| {
            let about = descriptor(OCI_MANIFEST, &subject, base.len(), "");
            text.replacen("\"schemaVersion\":2,", &format!("\"schemaVersion\":2,\"subject\":{about},"), 1)
        };
        let notes = r#""annotations":{"org.example":"ü"},"#;
        let plain = about(&image(&[(&config, 2)]));
        let typed =
            about(&image(&[(&config, 2)])).replacen('{', &format!("{{{notes}\"artifactType\":\"a/sbom+x\","), 1);
        let index = about(&format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#));
        let typed_index = index.replacen('{', "{\"artifactType\":\"a/index\",", 1);
        let mut expected = Vec::new();
        for (kind, text, artifact_type, annotated) in [
            (OCI_MANIFEST, &plain, Some(testkit::image::OCI_CONFIG), false),
            (OCI_MANIFEST, &typed, Some("a/sbom+x"), true),
            (OCI_INDEX, &index, None, false),
            (OCI_INDEX, &typed_index, Some("a/index"), false),
        ] {
            let digest = sha256(text.as_bytes());
            put(&client, repo, &digest, kind, text.as_bytes(), &format!("201 | oci-subject: {subject}"));
            let mut entry = serde_json::json!({"mediaType": kind, "digest": digest, "size": text.len()});
            if let Some(artifact_type) = artifact_type {
                entry["artifactType"] = artifact_type.into();
            }
            if annotated {
                entry["annotations"] = serde_json::json!({"org.example": "ü"});
            }
            expected.push(entry);
        }
        expected.sort_by_key(|entry| entry["digest"].to_string());
        for restart in [false, true] {
            if restart {
                server.restart();
            }
            let (all, pages) = list(&client, &path);
            assert_eq!(all, expected);
            assert_eq!(pages[0].header("oci-filters-applied"), "");
            for wanted in ["a/sbom+x", "a/index", testkit::image::OCI_CONFIG, "a/none"] {
                let query = wanted.replace('/', "%2F").replace('+', "%2B");
                let (found, pages) = list(&client, &format!("{path}?artifactType={query}"));
                let some: Vec<_> = expected.iter().filter(|entry| entry["artifactType"] == wanted).cloned().collect();
                assert_eq!(found, some, "{wanted}");
                assert_eq!(pages[0].header("oci-filters-applied"), "artifactType");
            }
            for n in [1, 3] {
                let (all, pages) = list(&client, &format!("{path}?n={n}"));
                assert_eq!((all, pages.len()), (expected.clone(), 4_usize.div_ceil(n)));
            }
        }
        check(&client, &format!("HEAD {path}"), b"", &format!("200 | content-type: {OCI_INDEX}"));
        // The subject may come after what refers to it; a referrer that goes leaves the list.
        put(&client, repo, &subject, OCI_MANIFEST, base.as_bytes(), "201");
        assert_eq!(list(&client, &path).0, expected);
        check(&client, &format!("DELETE /v2/{repo}/manifests/{}", sha256(plain.as_bytes())), b"", "202");
        assert_eq!(list(&client, &path).0.len(), 3);
    }
    for unknown in [sha256(b"x"), sha512(b"x")] {
        for repo in ["r", "unknown/repo"] {
            let got = check(&client, &format!("GET /v2/{repo}/referrers/{unknown}"), b"", "200");
            assert_eq!(got.json()["manifests"], serde_json::json!([]));
        }
    }
    for (path, expected) in [
        ("r/referrers/tag", "400 DIGEST_INVALID"),
        ("r/referrers/sha256:12", "400 DIGEST_INVALID"),
        ("R/referrers/sha256:12", "400 NAME_INVALID"),
    ] {
        check(&client, &format!("GET /v2/{path}"), b"", expected);
    }
}

#[test]
fn large_lists_come_in_pages() {
    for (count, size) in [(7, 1_000_000), (40, 200_000)] {
        check_pages(count, size);
    }
}

/// Pushes so many referrers with annotations of a size and reads them all back.
#[track_caller]
fn check_pages(count: usize, size: usize) {
    let server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let subject = sha256(b"subject");
    let mut expected = Vec::new();
    for number in 0..count {
        let pad = format!("{number}{}", "x".repeat(size));
        let about = descriptor(OCI_MANIFEST, &subject, 7, "");
        let head = format!(r#"{{"annotations":{{"pad":"{pad}"}},"subject":{about},"artifactType":"a/b","#);
        let text = image(&[(&config, 2)]).replacen('{', &head, 1);
        put(&client, "r", &sha256(text.as_bytes()), OCI_MANIFEST, text.as_bytes(), "201");
        expected.push(sha256(text.as_bytes()));
    }
    expected.sort();
    for query in ["", "?artifactType=a/b"] {
        let (all, pages) = list(&client, &format!("/v2/r/referrers/{subject}{query}"));
        let seen: Vec<&str> = all.iter().filter_map(|entry| entry["digest"].as_str()).collect();
        assert_eq!(seen, expected);
        assert!(pages.len() > 1, "all in one page");
        for page in pages {
            assert!(page.body.len() <= 3_500_000, "a page of {} bytes", page.body.len());
            assert_eq!(page.header("oci-filters-applied"), if query.is_empty() { "" } else { "artifactType" });
        }
    }
}
