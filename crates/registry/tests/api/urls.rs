//! The addresses that answers name: prefix, host, relative, behind a proxy; configured headers.

use testkit::{image::sha256, server::Setup};

use crate::{PLAIN, REGISTRY, check, push_image};

#[test]
fn locations_follow_the_client_and_the_configuration() {
    let forwarded = " | X-Forwarded-Proto: https | X-Forwarded-Host: reg.example";
    for (config, headers, origin) in [
        ("", "", "http://{addr}"),
        ("", forwarded, "https://reg.example"),
        ("", " | X-Forwarded-Proto: https", "https://{addr}"),
        ("", " | X-Forwarded-Proto: https, http | X-Forwarded-Host: one.example, two.example", "https://one.example"),
        ("", " | X-Forwarded-Proto: gopher", "http://{addr}"),
        ("", " | X-Forwarded-Host: ", "http://{addr}"),
        ("  host: https://fixed.example\n", "", "https://fixed.example"),
        ("  host: https://fixed.example:8443\n", forwarded, "https://fixed.example:8443"),
        ("  relativeurls: true\n", forwarded, ""),
        ("  prefix: /p/q/\n", "", "http://{addr}/p/q"),
        ("  prefix: /p/q/\n  relativeurls: true\n", "", "/p/q"),
        ("  prefix: /p\n  host: https://fixed.example\n", "", "https://fixed.example/p"),
    ] {
        let server = Setup::new(REGISTRY, &format!("{PLAIN}{config}")).start();
        let client = server.client();
        let prefix = config.split_once("prefix: ").map_or("", |(_, rest)| rest.lines().next().unwrap_or(""));
        let prefix = prefix.trim_end_matches('/');
        let base = format!("{}/v2/r", origin.replace("{addr}", server.host_port()));
        let digest = sha256(b"abc");
        let path = format!("{prefix}/v2/r/blobs/uploads/");
        let got = check(&client, &format!("POST {path}{headers}"), b"", "202");
        let location = got.header("location");
        assert!(location.starts_with(&format!("{base}/blobs/uploads/")), "{config}{headers}: {location}");
        let upload = &location[location.find("/v2/").expect("a path")..];
        let expected = format!("location: {base}/blobs/uploads/{}", got.header("docker-upload-uuid"));
        for (method, status) in [("GET", 204), ("PATCH", 202)] {
            check(&client, &format!("{method} {prefix}{upload}{headers}"), b"", &format!("{status} | {expected}"));
        }
        let range = format!("PATCH {prefix}{upload}{headers} | Content-Range: 5-5");
        check(&client, &range, b"x", &format!("416 RANGE_INVALID | {expected}"));
        let created = format!("201 | location: {base}/blobs/{digest}");
        check(&client, &format!("PUT {prefix}{upload}?digest={digest}{headers}"), b"abc", &created);
        check(&client, &format!("POST {path}?mount={digest}&from=r{headers}"), b"", &created);
        check(&client, &format!("POST {path}?digest={digest}{headers}"), b"abc", &created);
        if !prefix.is_empty() {
            check(&client, &format!("GET {prefix}/v2/"), b"", "200 | body: {}");
            check(&client, &format!("GET {prefix}/"), b"", "200");
            check(&client, "GET /v2/", b"", "404 UNSUPPORTED");
            check(&client, &format!("GET /v2/r/blobs/{digest}"), b"", "404 UNSUPPORTED");
            check(&client, "GET /pp/v2/", b"", "404 UNSUPPORTED");
        } else {
            push_image(&client, "r", "a", 1);
            push_image(&client, "r", "b", 1);
            check(&client, "GET /v2/r/tags/list?n=1", b"", "200 | link: </v2/r/tags/list?last=a&n=1>; rel=\"next\"");
        }
    }
}

#[test]
fn configured_headers_are_on_every_answer() {
    let headers =
        "  headers:\n    X-Content-Type-Options: [nosniff]\n    Access-Control-Allow-Methods: ['HEAD', 'GET']\n";
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{headers}")).start();
    let client = server.client();
    push_image(&client, "r", "t", 1);
    for (line, status) in [
        ("GET /", "200"),
        ("GET /v2/", "200"),
        ("GET /v2/r/tags/list", "200"),
        ("HEAD /v2/r/manifests/t", "200"),
        ("GET /v2/r/manifests/absent", "404 MANIFEST_UNKNOWN"),
        ("GET /nowhere", "404 UNSUPPORTED"),
        ("BREW /v2/", "405 UNSUPPORTED"),
        ("POST /v2/r/blobs/uploads/", "202"),
        ("GET /v2/%zz/tags/list", "400 NAME_INVALID"),
    ] {
        let got = check(&client, line, b"", &format!("{status} | x-content-type-options: nosniff"));
        let methods: Vec<String> =
            got.headers().into_iter().filter(|line| line.starts_with("access-control-allow-methods")).collect();
        assert_eq!(methods.len(), 2, "{line}: {methods:?}");
    }
    check(&client, "GET /", b"", "200 | cache-control: no-cache | body: -");
    check(&client, "GET /v2/", b"", "200 | content-type: application/json | body: {}");
    check(&client, "GET /v2", b"", "200");
}
