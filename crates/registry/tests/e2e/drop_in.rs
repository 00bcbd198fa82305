//! A server that takes the place of the original one: same file, same environment, same commands.

use testkit::command::{self, tool};
use testkit::engine::Engine;
use testkit::http;
use testkit::image::Image;
use testkit::server::Setup;

use crate::REGISTRY;

/// The configuration the original image has inside, as its users see it.
const ORIGINAL_V3: &str = "
version: 0.1
log:
  level: debug
  fields:
    service: registry
    environment: development
storage:
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  tag:
    concurrencylimit: 5
http:
  addr: :5000
  debug:
    addr: :5001
    prometheus:
      enabled: true
      path: /metrics
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// The one before: version 2.
const ORIGINAL_V2: &str = "
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// The original file with the environment that `docker run -e` users set.
fn original(config: &str) -> Setup {
    Setup::new(REGISTRY, config)
        .env("REGISTRY_HTTP_ADDR", "{addr}")
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "{data}")
}

/// The version 3 file, whose debug listener needs a free port as well.
fn original_v3() -> Setup {
    original(ORIGINAL_V3).env("REGISTRY_HTTP_DEBUG_ADDR", "{debug}")
}

#[test]
fn the_version_2_file_works_with_docker() {
    check_works_with_docker(original(ORIGINAL_V2));
}

#[test]
fn the_version_3_file_works_with_docker() {
    check_works_with_docker(original_v3());
}

#[track_caller]
fn check_works_with_docker(setup: Setup) {
    let (engine, mut server) = (Engine::start(), setup.start());
    let docker = engine.client();
    let reference = format!("{}/team/api:1", server.host_port());
    docker.load(&Image::busybox(), &reference);
    let pushed = docker.push(&reference);
    server.restart();
    docker.forget_images();
    assert_eq!(docker.pull(&reference), pushed);
    let data = std::fs::read_dir(server.data()).expect("read the data folder");
    assert!(data.count() > 0, "the data is where the environment says");
    let root = server.client().get("/v2/").expect("an answer");
    assert_eq!((root.status, root.text().trim()), (200, "{}"));
    assert_eq!(root.header("x-content-type-options"), "nosniff");
    let version = root.header("docker-distribution-api-version");
    assert_eq!(version, "registry/2.0");
}

#[test]
fn the_debug_listener_serves_health_and_metrics() {
    let server = original_v3().start();
    let check = |path: &str, part: &str| {
        let url = format!("{}{path}", server.debug_url());
        let got = http::send("GET", &url, &[], b"").expect("an answer");
        assert_eq!(got.status, 200, "{path}");
        assert!(got.text().contains(part), "{path}: {}", got.text());
    };
    check("/debug/health", "{}");
    check("/metrics", "# TYPE ");
}

#[test]
fn the_environment_overrides_the_version_2_file() {
    let setup = |name: &str, value: &str| original(ORIGINAL_V2).env(name, value);
    check_delete(original(ORIGINAL_V2), 405);
    check_delete(setup("REGISTRY_STORAGE_DELETE_ENABLED", "true"), 202);
    let get = |setup: Setup, path: &str| setup.start().client().get(path).expect("an answer");
    let answer = get(setup("REGISTRY_HTTP_HEADERS_X-Frame-Options", "[DENY]"), "/v2/");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    let answer = get(setup("REGISTRY_HTTP_PREFIX", "/images/"), "/images/v2/");
    assert_eq!(answer.status, 200);
}

#[test]
fn the_environment_overrides_the_version_3_file() {
    check_delete(original_v3(), 202);
    check_delete(original_v3().env("REGISTRY_STORAGE_DELETE_ENABLED", "false"), 405);
}

/// Fails unless deleting a blob is answered with `status`.
#[track_caller]
fn check_delete(setup: Setup, status: u16) {
    let server = setup.start();
    let client = server.client();
    let pushed = client.push_blob("team/api", b"content");
    let target = format!("/v2/team/api/blobs/{}", pushed.expect("push a blob"));
    let got = client.send("DELETE", &target, &[], b"").expect("an answer");
    assert_eq!(got.status, status, "{}", got.text());
}

#[test]
fn the_command_line_answers_like_the_original() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let config = dir.path().join("config.yml");
    let run = |args: &[&str]| {
        let program = std::env::var("REGISTRY_UNDER_TEST").unwrap_or_else(|_| REGISTRY.to_owned());
        let mut command = tool(&program);
        command.args(args);
        command::run(command)
    };
    let path = config.to_string_lossy().into_owned();
    let refused = |text: &str, says: &str| {
        std::fs::write(&config, text).expect("write the configuration");
        run(&["serve", &path]).refused(&[says]);
    };
    assert!(!run(&["--version"]).ok().text().is_empty());
    run(&["serve"]).refused(&["config"]);
    run(&["serve", "/no/such/file.yml"]).refused(&["no such file"]);
    refused("version: 0.1\nstorage: [", "config");
    refused("storage:\n  inmemory: {}\n", "version");
    refused("version: 0.1\nhttp:\n  addr: 127.0.0.1:0\n", "storage");
}
