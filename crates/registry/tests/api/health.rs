//! Health: the probes, the gate, the checks, and the metrics page.

use std::net::TcpListener;
use std::time::Duration;

use testkit::{
    http::{Response, send},
    process::wait_until,
    receiver::Receiver,
    server::{Server, Setup},
};

use crate::{DEBUG, PLAIN, REGISTRY, check, push_image};

fn debug(server: &Server, method: &str, path: &str) -> Response {
    send(method, &format!("{}{path}", server.debug_url()), &[], b"").expect("an answer of the debug listener")
}

const PATHS: [&str; 4] = ["/", "/v2/", "/v2/_catalog", "/v2/r/manifests/t"];

#[test]
fn the_gate_closes_and_opens() {
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{DEBUG}")).start();
    let client = server.client();
    push_image(&client, "r", "t", 1);
    for (way, open) in [("up", true), ("down", false), ("down", false), ("up", true)] {
        assert_eq!(debug(&server, "GET", &format!("/debug/health/{way}")).status, 405);
        assert_eq!(debug(&server, "POST", &format!("/debug/health/{way}")).status, 200);
        let got = debug(&server, "GET", "/debug/health");
        let expected =
            if open { serde_json::json!({}) } else { serde_json::json!({"manual_http_status": "Manual Check"}) };
        assert_eq!((got.status, got.json()), (if open { 200 } else { 503 }, expected));
        for path in PATHS {
            let expected = if open { "200" } else { "503 UNAVAILABLE | retry-after: 1" };
            check(&client, &format!("GET {path}"), b"", expected);
        }
        check(&client, "GET /healthz", b"", "200 | body: ok\n");
        let got = client.get("/readyz").expect("an answer");
        assert_eq!(got.status, if open { 200 } else { 503 });
        assert_eq!(got.json()["ready"], open);
    }
    assert_eq!(debug(&server, "GET", "/nowhere").status, 404);
}

#[test]
fn checks_close_the_gate() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("down");
    let web = Receiver::start(200);
    let port = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    let address = port.local_addr().expect("an address");
    let checks = format!(
        "health:\n  storagedriver: {{enabled: true, interval: 50ms, threshold: 1}}\n  \
         file:\n    - {{file: {}, interval: 50ms}}\n  \
         http:\n    - {{uri: 'http://{}/probe', interval: 50ms, timeout: 2s, threshold: 2, headers: {{X-Probe: [yes]}}}}\n  \
         tcp:\n    - {{addr: '{address}', interval: 50ms, timeout: 1s, threshold: 1}}\n",
        file.display(),
        web.address()
    );
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{DEBUG}{checks}")).start();
    let client = server.client();
    let settles = |failing: &[&str]| {
        let reached = wait_until(Duration::from_secs(10), || {
            let got = debug(&server, "GET", "/debug/health").json();
            let names: Vec<String> = got.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
            names.len() == failing.len() && failing.iter().all(|name| names.iter().any(|have| have.contains(name)))
        });
        assert!(reached, "expected {failing:?}, have {}", debug(&server, "GET", "/debug/health").text());
        for path in PATHS {
            let got = client.get(path).expect("an answer");
            assert_eq!(got.status == 503, !failing.is_empty(), "{path}");
        }
    };
    settles(&[]);
    std::fs::write(&file, "").expect("make the file");
    settles(&["down"]);
    std::fs::remove_file(&file).expect("remove the file");
    settles(&[]);
    web.set_status(500);
    settles(&["/probe"]);
    let probe = web.received().first().expect("a probe").head.to_lowercase();
    assert!(probe.starts_with("head /probe http/1.1") && probe.contains("x-probe: yes"), "{probe}");
    web.set_status(200);
    settles(&[]);
    let address = address.to_string();
    drop(port);
    settles(&[&address]);
    let _port = TcpListener::bind(&address).expect("bind it again");
    settles(&[]);
}

#[test]
fn every_line_of_the_metrics_page_parses() {
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{DEBUG}")).start();
    let client = server.client();
    push_image(&client, "r", "t", 1);
    for line in ["GET /v2/r/manifests/t", "GET /v2/", "GET /nowhere", "BREW /v2/"] {
        let (method, path) = line.split_once(' ').expect("two words");
        client.send(method, path, &[], b"").expect("an answer");
    }
    let got = debug(&server, "GET", "/metrics");
    assert_eq!(got.status, 200);
    assert!(got.header("content-type").starts_with("application/openmetrics-text"), "{}", got.header("content-type"));
    let text = got.text();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let word = comment.split(' ').next().unwrap_or_default();
            assert!(["HELP", "TYPE", "UNIT", "EOF"].contains(&word), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        let name = series.split('{').next().unwrap_or_default();
        assert!(
            name.starts_with("registry_") && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'),
            "{line}"
        );
        if let Some(labels) = series.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')) {
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {line}"));
            for label in labels.split(',') {
                let (_, value) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
                assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        samples.push(series.to_owned());
    }
    assert!(text.ends_with("# EOF\n"));
    for wanted in [
        r#"registry_http_requests_total{handler="manifest",method="get",code="200"}"#,
        r#"registry_http_requests_total{handler="unrouted",method="get",code="404"}"#,
        r#"registry_http_requests_total{handler="base",method="other",code="405"}"#,
        r#"registry_http_request_duration_seconds_count{handler="manifest",method="put"}"#,
    ] {
        assert!(samples.iter().any(|sample| sample == wanted), "{wanted} is not in\n{text}");
    }
}
