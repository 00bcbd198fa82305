//! TLS, HTTP/2 and client certificates, through curl; changed certificates, an authority of our own, and trust in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::{
    certificate::{Authority, Certificate},
    command::{Outcome, run, tool},
    image::sha256,
    process::{signal, wait_until},
    server::{Server, Setup},
    wire::Wire,
};

use crate::{PLAIN, REGISTRY, content, plain_registry, verify};

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
        check(&[&server.url()], "1.1 400");
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

const GET: &str = "GET /v2/ HTTP/1.1\r\nHost: registry.test:5000\r\n\r\n";

#[test]
fn changed_certificates_are_used_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("create a temp dir");
    let path = |name: &str| dir.path().join(name);
    let read = |path: &Path| fs::read_to_string(path).expect("read");
    fs::write(path("both.pem"), read(&old.file()) + &read(&new.file())).expect("write");
    let [before, after] = [&old, &new].map(|authority| authority.sign("127.0.0.1"));
    fs::copy(&before.certificate, path("c")).expect("copy");
    fs::copy(&before.key, path("k")).expect("copy");
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", path("c").display(), path("k").display());
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{tls}")).probe_log().start();
    let connect = || Wire::tls(server.host_port(), &path("both.pem")).expect("a handshake");
    let ask = |wire: &mut Wire| {
        wire.send(GET).expect("send");
        assert_eq!(wire.answer("GET").expect("an answer").status, 200);
    };
    let mut first = connect();
    ask(&mut first);
    let shown = first.certificate();
    let (done, served) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut wire = connect();
                    ask(&mut wire);
                    ask(&mut wire);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Half of the change: the old pair stays, and is complained about once.
        fs::copy(&after.certificate, path("c")).expect("copy");
        let told = || server.log().matches("changed TLS files are not used").count();
        signal(server.id(), "HUP");
        assert!(wait_until(Duration::from_secs(10), || told() == 1), "{}", server.log());
        for _ in 0..3 {
            signal(server.id(), "HUP");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(connect().certificate() == shown && told() == 1);
        // The other half, noticed without any signal.
        fs::copy(&after.key, path("k")).expect("copy");
        let changed = wait_until(Duration::from_secs(20), || connect().certificate() != shown);
        let already = served.load(Ordering::Relaxed);
        let goes_on = wait_until(Duration::from_secs(10), || served.load(Ordering::Relaxed) > already + 4);
        done.store(true, Ordering::Relaxed);
        assert!(changed && goes_on, "{}", server.log());
    });
    assert!(server.log().contains("new connections use the changed certificate"), "{}", server.log());
    // Who was there before is still served, and sees the old one.
    ask(&mut first);
    assert!(first.certificate() == shown);
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    let server = registry(&authority, "roadstead:\n  limits: {idle: 1s}\n");
    let check = |sent: &str, body: &[u8], expected: &str| {
        let mut wire = Wire::tcp(server.host_port()).expect("connect");
        wire.send(sent).expect("send");
        // It may have answered and closed by now.
        wire.send(body).ok();
        let method = sent.split(' ').next().unwrap_or_default();
        let got = wire.answer(method).unwrap_or_else(|error| panic!("{sent}: {error}"));
        verify(sent, &got, expected);
        assert!(wire.is_closed(), "{sent}");
    };
    let said = "400 UNSUPPORTED | connection: close | body: ~https://registry.test:5000/; for Docker";
    check(GET, b"", said);
    check(&GET.replace("GET", "POST"), b"", said);
    check(&GET.replace("GET", "HEAD"), b"", "400");
    let put = "PUT /v2/r/manifests/t HTTP/1.1\r\nHost: registry.test:5000\r\nContent-Length: 50000\r\n\r\n";
    check(put, &content(1, 50_000), said);
    check("PUT / HTTP/1.1\r\nHost: registry.test:5000\r\nContent-Length: 9999\r\n\r\n", b"x", said);
    check("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"", "400 UNSUPPORTED");
    let reached = format!("400 UNSUPPORTED | body: ~registry trust {}", server.host_port());
    check("GET / HTTP/1.1\r\nHost: no host/\r\n\r\n", b"", &reached);
    check("GET / HTTP/1.0\r\n\r\n", b"", &reached);
    // No HTTP, a head without end, silence: let go in time.
    for (odd, answers) in [("\x00\x01\x02\r\n\r\n", true), ("GET / HTTP/1.1\r\nHost: x", false), ("", false)] {
        let begun = Instant::now();
        let mut wire = Wire::tcp(server.host_port()).expect("connect");
        wire.send(odd).expect("send");
        assert_eq!(wire.answer("GET").is_ok_and(|got| got.status == 400), answers, "{odd:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{odd:?}: {:?}", begun.elapsed());
    }
    let mut wire = Wire::tls(server.host_port(), &authority.file()).expect("a handshake");
    wire.send(GET).expect("send");
    assert_eq!(wire.answer("GET").expect("an answer").status, 200);

    let Certificate { certificate, key } = authority.sign("127.0.0.1");
    let dir = tempfile::tempdir().expect("create a temp dir");
    let socket = dir.path().join("socket");
    let http = format!(
        "http:\n  net: unix\n  addr: {}\n  tls: {{certificate: {}, key: {}}}\n",
        socket.display(),
        certificate.display(),
        key.display()
    );
    let config = PLAIN.replace("http:\n  addr: {addr}\n", &http);
    let _server = Setup::new(REGISTRY, &config).probe_log().start();
    let mut wire = Wire::unix(&socket).expect("connect");
    wire.send("GET / HTTP/1.0\r\n\r\n").expect("send");
    verify("GET", &wire.answer("GET").expect("an answer"), "400 UNSUPPORTED | body: ~this socket speaks TLS");
}

/// A registry with an authority of its own, below its data.
fn own_authority(names: &str) -> Server {
    let more = format!("roadstead:\n  authority: {{directory: '{{data}}/tls', names: [{names}]}}\n");
    Setup::new(REGISTRY, &(PLAIN.to_owned() + &more)).probe_log().start()
}

#[test]
fn an_authority_of_its_own_is_made_and_kept() {
    let mut server = own_authority("registry.test");
    let tls = server.data().join("tls");
    let ca = tls.join("ca.pem");
    let read = |name: &str| fs::read(tls.join(name)).expect("a file of the authority");
    let (made, issued) = (read("ca.pem"), read("server.pem"));
    assert_eq!(fs::metadata(tls.join("ca.key")).expect("a key").permissions().mode() & 0o777, 0o600);
    let port = server.host_port().rsplit(':').next().unwrap_or_default().to_owned();
    let reach = |host: &str, good: bool| {
        let resolve = format!("registry.test:{port}:127.0.0.1");
        let stray = format!("other.test:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/v2/");
        let cacert = ca.display().to_string();
        let got = curl(&["--cacert", &cacert, "--resolve", &resolve, "--resolve", &stray, &url]);
        assert_eq!(got.success && got.stdout.ends_with("200"), good, "{host}: {got}");
    };
    for host in ["127.0.0.1", "localhost", "registry.test"] {
        reach(host, true);
    }
    reach("other.test", false);
    // The same after a restart; another certificate of the same authority if a name is added.
    server.restart();
    assert!(made == read("ca.pem") && issued == read("server.pem"));
    let more = "roadstead:\n  authority: {directory: '{data}/tls', names: [registry.test, other.test]}\n";
    server.write_config(&(PLAIN.to_owned() + more));
    server.restart();
    assert!(made == read("ca.pem") && issued != read("server.pem"));
    reach("other.test", true);
    // A damaged authority is not replaced: the server does not start, and says what helps.
    server.stop();
    fs::write(&ca, "damaged").expect("write");
    let mut command = tool(REGISTRY);
    command.arg("serve").arg(server.config());
    run(command).refused(&["ca.pem`: no certificate can be read from it"]);
    assert_eq!(read("ca.pem"), b"damaged");
}

/// Runs `registry trust`.
fn trust(directory: &Path, line: &str) -> Outcome {
    let mut command = tool(REGISTRY);
    command.env_remove("REGISTRY_CONFIGURATION_PATH");
    command.arg("trust").args(line.split_whitespace()).arg("--directory").arg(directory);
    run(command)
}

#[test]
fn trust_is_shown_installed_and_taken_back() {
    let (server, other) = (own_authority(""), own_authority(""));
    let dir = tempfile::tempdir().expect("create a temp dir");
    let directory = dir.path().join("docker/certs.d");
    let trust = |line: &str| trust(&directory, line);
    let at = server.host_port();
    let ca = server.data().join("tls/ca.pem");
    let read = |path: &Path| fs::read_to_string(path).expect("read");
    // Shown: the certificate alone on standard output.
    let shown = trust(at).ok();
    assert_eq!(shown.stdout, read(&ca), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&trust(&format!("{at} --format json")).ok().stdout).expect("JSON");
    let fingerprint = json["authorities"][0]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    assert!(shown.stderr.contains(&format!("registry trust {at} --install --fingerprint {fingerprint}")), "{shown}");
    assert_eq!((&json["outcome"], &json["authorities"][0]["pem"]), (&"shown".into(), &read(&ca).into()));
    assert!(json["server"]["names"].as_array().is_some_and(|names| names.contains(&"127.0.0.1".into())), "{json}");
    assert!(!directory.exists());
    // Not on the server's own word.
    trust(&format!("{at} --install")).refused(&["nobody vouches"]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    trust(&format!("{at} --install --fingerprint {wrong}")).refused(&["has the fingerprint"]);
    trust(&format!("{at} --install --fingerprint 00")).refused(&["64 hex digits"]);
    trust(&format!("{at} --install --config {}", other.config().display())).refused(&["nobody vouches"]);
    trust(&format!("{at} --install --ca {}", other.data().join("tls/ca.pem").display())).refused(&["is not signed by"]);
    assert!(!directory.exists());
    // On that of each who may give it, once.
    let file = directory.join(at).join("ca.crt");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let upper = fingerprint["sha256:".len()..].to_uppercase();
    let (config, ca) = (server.config().display().to_string(), ca.display().to_string());
    for word in [
        format!("--fingerprint {upper}"),
        format!("--ca {ca}"),
        format!("--ca {ca} --offline"),
        format!("--config {config}"),
    ] {
        let line = format!("{at} --install {word}");
        trust(&line).ok();
        assert_eq!((read(&file), mode(&file), mode(&directory)), (read(Path::new(&ca)), 0o644, 0o755), "{word}");
        assert!(trust(&format!("{at} --install")).ok().stderr.contains("already there"));
        trust(&format!("{at} --remove")).ok();
        assert!(!directory.join(at).exists());
        assert!(trust(&format!("{at} --remove")).ok().stderr.contains("nothing to do"));
    }
    // Nothing that is there is lost by accident.
    fs::create_dir_all(directory.join(at)).expect("make the directory");
    fs::copy(other.data().join("tls/ca.pem"), &file).expect("copy");
    trust(&format!("{at} --install --fingerprint {upper}")).refused(&["nothing was changed; `--replace`"]);
    assert_ne!(read(&file), read(Path::new(&ca)));
    trust(&format!("{at} --install --replace --fingerprint {upper}")).ok();
    assert_eq!(read(&file), read(Path::new(&ca)));
    // With what was installed, and only with it, a client is content.
    let url = format!("https://{at}/v2/");
    assert!(!curl(&[&url]).success);
    let installed = file.display().to_string();
    assert!(curl(&["--cacert", &installed, &url]).ok().stdout.ends_with("200"));
}

#[test]
fn trust_says_why_not() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let check = |line: &str, reason: &str| {
        let got = trust(dir.path(), line).refused(&[reason]);
        assert_eq!(got.code, Some(1), "{got}");
    };
    let authority = Authority::new();
    let bare = registry(&authority, "");
    let at = bare.host_port();
    check(at, "sends no certificate of its authority");
    check(&format!("{at} --ca /absent"), "read the authority `/absent`");
    check(&at.replace("127.0.0.1", "127.0.0.2"), "refused; is the registry running");
    trust(dir.path(), &format!("{at} --install --ca {}", authority.file().display())).ok();
    check(plain_registry().host_port(), "does not speak TLS");
    let own = own_authority("");
    check(&format!("{}/app", own.host_port()), "is no registry");
    check(&format!("http://{}", own.host_port()), "plain HTTP");
    let more = format!("    clientcas: [{}]\n", authority.file().display());
    let strict = registry(&authority, &more);
    check(strict.host_port(), "sends no certificate of its authority");
}
