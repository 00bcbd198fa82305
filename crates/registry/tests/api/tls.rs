//! TLS, HTTP/2 and client certificates, through curl.

use testkit::{
    certificate::{Authority, Certificate},
    command::{Outcome, run, tool},
    image::sha256,
    server::{Server, Setup},
};

use crate::{PLAIN, REGISTRY, content, plain_registry};

fn registry(authority: &Authority, more: &str) -> Server {
    let Certificate { certificate, key } = authority.sign("127.0.0.1");
    let (certificate, key) = (certificate.display(), key.display());
    let config = format!("{PLAIN}  tls:\n    certificate: {certificate}\n    key: {key}\n{more}");
    Setup::new(REGISTRY, &config).probe_log().start()
}

/// Runs curl; standard output ends with `<HTTP version> <status>`.
fn curl(args: &[&str]) -> Outcome {
    let mut command = tool("curl");
    command.args(["-sS", "-m", "30", "-w", "\n%{http_version} %{http_code}"]).args(args);
    run(command)
}

#[track_caller]
fn check(args: &[&str], expected: &str) -> Outcome {
    let got = curl(args);
    let last = got.stdout.lines().last().unwrap_or_default();
    assert_eq!(last, expected, "{got}");
    got
}

#[test]
fn http_2_works_over_tls() {
    let authority = Authority::new();
    let ca = authority.file().display().to_string();
    for (more, version) in [("", "2"), ("  http2:\n    disabled: true\n", "1.1")] {
        let server = registry(&authority, more);
        let url = server.url().replace("http://", "https://");
        let tls = |args: &[&str], expected: &str| {
            check(&[&["--cacert", &ca], args].concat(), &format!("{version} {expected}"))
        };
        tls(&["--http2", &format!("{url}/v2/")], "200");
        check(&["--cacert", &ca, "--http1.1", &format!("{url}/v2/")], "1.1 200");
        let got = tls(&["--http2", "-X", "POST", "-i", &format!("{url}/v2/r/blobs/uploads/")], "202");
        let location =
            got.stdout.lines().find_map(|line| line.to_lowercase().strip_prefix("location: ").map(str::to_owned));
        let location = location.expect("a location");
        assert!(location.starts_with(&format!("{url}/v2/r/")), "{location}");
        // A body of some windows' size both ways.
        let dir = tempfile::tempdir().expect("create a temp dir");
        let (sent, back) = (dir.path().join("sent"), dir.path().join("back"));
        let bytes = content(1, 9 << 20);
        let digest = sha256(&bytes);
        std::fs::write(&sent, &bytes).expect("write the body");
        let put = format!("{}?digest={digest}", location.trim());
        tls(&["--http2", "-T", &sent.display().to_string(), &put], "201");
        let blob = format!("{url}/v2/r/blobs/{digest}");
        tls(&["--http2", "-o", &back.display().to_string(), &blob], "200");
        assert!(std::fs::read(&back).expect("read what came back") == bytes);
        let got = tls(&["--http2", "-r", "5-9", "-o", &back.display().to_string(), &blob], "206");
        assert!(got.success && std::fs::read(&back).expect("read what came back") == bytes[5..10]);
        tls(&["--http2", "-I", &blob], "200");
        tls(&["--http2", "-X", "BREW", &format!("{url}/v2/")], "405");
        tls(&["--http2", &format!("{url}/v2/R/tags/list")], "400");
        // An error while the body is still being sent, and the connection afterwards.
        let unknown = format!("{url}/v2/r/blobs/uploads/01234567-89ab-4cde-8f01-23456789abcd");
        let got = tls(&["--http2", "-X", "PATCH", "-H", "Expect:", "-T", &sent.display().to_string(), &unknown], "404");
        assert!(got.stdout.contains("BLOB_UPLOAD_UNKNOWN"), "{got}");
        // Plain text is no TLS, and a stranger's authority is not trusted.
        assert!(!curl(&[&server.url()]).success);
        let stranger = Authority::new();
        assert!(!curl(&["--cacert", &stranger.file().display().to_string(), &url]).success);
        // A broken handshake costs nobody else anything.
        tls(&["--http2", &format!("{url}/v2/")], "200");
    }
}

#[test]
fn http_2_without_tls_has_to_be_asked_for() {
    let server = Setup::new(REGISTRY, &format!("{PLAIN}  h2c:\n    enabled: true\n")).start();
    let url = format!("{}/v2/", server.url());
    check(&["--http2-prior-knowledge", &url], "2 200");
    check(&["--http1.1", &url], "1.1 200");
    let got = check(
        &["--http2-prior-knowledge", "-d", "abc", &format!("{url}r/blobs/uploads/?digest={}", sha256(b"abc"))],
        "2 201",
    );
    assert!(got.success, "{got}");
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("body");
    std::fs::write(&file, content(1, 20 << 20)).expect("write the body");
    let unknown = format!("{url}r/blobs/uploads/01234567-89ab-4cde-8f01-23456789abcd");
    check(&["--http2-prior-knowledge", "-X", "PATCH", "-T", &file.display().to_string(), &unknown], "2 404");
    let huge = format!("X: {}", "x".repeat(70_000));
    let got = curl(&["--http2-prior-knowledge", "-H", &huge, &url]);
    assert!(!got.success || got.stdout.ends_with("431"), "{got}");
    check(&["--http2-prior-knowledge", &url], "2 200");

    let plain = plain_registry();
    assert!(!curl(&["--http2-prior-knowledge", &plain.url()]).success);
    check(&["--http2", &plain.url()], "1.1 200");
}

#[test]
fn client_certificates_are_checked() {
    let (authority, friends, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let ca = authority.file().display().to_string();
    for (mode, anonymous, stranger) in [
        ("require-and-verify-client-cert", false, false),
        ("verify-client-cert-if-given", true, false),
        ("require-any-client-cert", false, true),
        ("request-client-cert", true, true),
    ] {
        let more = format!("    clientcas: [{}]\n    clientauth: {mode}\n", friends.file().display());
        let server = registry(&authority, &more);
        let url = format!("{}/v2/", server.url().replace("http://", "https://"));
        let check = |caller: Option<&Certificate>, good: bool| {
            let mut args = vec!["--cacert".to_owned(), ca.clone()];
            if let Some(Certificate { certificate, key }) = caller {
                args.extend([
                    "--cert".into(),
                    certificate.display().to_string(),
                    "--key".into(),
                    key.display().to_string(),
                ]);
            }
            args.push(url.clone());
            let got = curl(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(got.success && got.stdout.ends_with("200"), good, "{mode}: {got}");
        };
        check(Some(&friends.sign("friend")), true);
        check(Some(&strangers.sign("stranger")), stranger);
        check(None, anonymous);
    }
}

#[test]
fn errors_without_a_body_end_cleanly_over_http_2() {
    let authority = Authority::new();
    let ca = authority.file().display().to_string();
    let blob = sha256(b"unknown");
    for (more, status) in [("", "2 404"), ("auth:\n  silly: {realm: r, service: s}\n", "2 401")] {
        let server = registry(&authority, more);
        let url = server.url().replace("http://", "https://");
        let target = format!("{url}/v2/r/blobs/{blob}");
        for method in [&["-I"][..], &[]] {
            check(&[&["--cacert", &ca, "--http2"], method, &[&target]].concat(), status).ok();
        }
    }
}
