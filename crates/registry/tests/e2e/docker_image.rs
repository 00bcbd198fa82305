//! The container image: `scripts/image.sh` builds it, and it takes the place of `registry:2` with
//! the arguments, variables and mounts that people run that image with.
//!
//! The image holds the program under test as cargo built it for the tests, with its libraries. The
//! static build of `make image` differs in the program only; `REGISTRY_UNDER_TEST=<path>` tests it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use testkit::client::Client;
use testkit::command::{self, Outcome, tool};
use testkit::engine::{Docker, Engine};
use testkit::image::{Image, host_architecture};
use testkit::process::wait_until;
use testkit::random::{Random, seed};

use crate::REGISTRY;

/// The name under which the image is loaded, so that the commands are those of the documentation
/// of the image that it replaces.
const NAME: &str = "registry:2";
const START_LIMIT: Duration = Duration::from_secs(30);
/// The engine kills after 10 seconds; an operator should never wait for that.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Proves by its header that it was read.
const CONFIG: &str = "
version: 0.1
storage:
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: {addr}
  headers:
    X-Config: [mounted]
";

/// Packages the program under test into `output` and, if an engine answers at `host`, loads it.
#[track_caller]
fn package(host: &str, output: &Path) -> Outcome {
    let mut script = tool(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/image.sh"));
    let program = std::env::var("REGISTRY_UNDER_TEST").unwrap_or_else(|_| REGISTRY.to_owned());
    script.args(["--binary", &program, "--tag", NAME, "--output"]).arg(output).env("DOCKER_HOST", host);
    command::run(script).ok()
}

/// An engine with the image loaded, and a folder for volumes and mounted files.
struct Stage {
    engine: Engine,
    docker: Docker,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let (engine, dir) = (Engine::start(), tempfile::tempdir().expect("create a temp dir"));
        let docker = engine.client();
        let context = docker.run(&["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]);
        let said = package(context.stdout.trim(), &dir.path().join("image.tar")).stdout;
        assert!(said.contains(&format!("Loaded image: {NAME}")), "{said}");
        Self { engine, docker, dir }
    }

    /// As [`Stage::new`], but `None` where containers do not run.
    fn running() -> Option<Self> {
        Some(Self::new()).filter(|stage| stage.engine.runs_containers())
    }

    /// An empty folder that belongs to user and group `owner`.
    fn folder(&self, name: &str, owner: u32) -> String {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).expect("create a folder for a volume");
        chown(&path, Some(owner), Some(owner)).expect("root gives folders away");
        path.to_string_lossy().into_owned()
    }

    /// Writes a file to mount; returns where.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("write a file to mount");
        path.to_string_lossy().into_owned()
    }

    /// Runs the image with `args` to its end.
    fn call(&self, options: &[&str], args: &[&str]) -> Outcome {
        let fixed = ["run", "--rm", "--network", "host"];
        self.docker.try_run(&[&fixed, options, &[NAME], args].concat())
    }

    /// Runs the image in the background and waits until it answers. In `options` and `args`,
    /// `{addr}` and `{debug}` stand for free addresses.
    #[track_caller]
    fn serve(&self, options: &[&str], args: &[&str]) -> Container<'_> {
        let [addr, debug] = free_addresses();
        let fill = |text: &&str| text.replace("{addr}", &addr).replace("{debug}", &debug);
        let line: Vec<String> = ["run", "--detach", "--network", "host"]
            .iter()
            .chain(options)
            .chain(&[NAME])
            .chain(args)
            .map(fill)
            .collect();
        let started = self.docker.run(&line.iter().map(String::as_str).collect::<Vec<_>>());
        let container = Container { docker: &self.docker, id: started.stdout.trim().to_owned(), addr, debug };
        container.wait();
        container
    }

    /// Writes [`CONFIG`] with an address of its own and runs the image with it.
    #[track_caller]
    fn check_config(&self, mount: &str, args: &[&str]) {
        let [addr, debug] = free_addresses();
        let file = self.file("config.yml", &CONFIG.replace("{addr}", &addr));
        let mount = format!("{file}:{mount}:ro");
        let options = ["run", "--detach", "--network", "host", "--volume", &mount, NAME];
        let started = self.docker.run(&[&options, args].concat());
        let id = started.stdout.trim().to_owned();
        let container = Container { docker: &self.docker, id, addr, debug };
        let answer = container.wait();
        assert_eq!(answer.header("x-config"), "mounted", "{mount} with {args:?}");
    }
}

/// A container that serves; dropping it removes it with its anonymous volumes.
struct Container<'a> {
    docker: &'a Docker,
    id: String,
    addr: String,
    debug: String,
}

impl Container<'_> {
    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.addr))
    }

    fn log(&self) -> String {
        self.docker.run(&["logs", &self.id]).text()
    }

    /// Waits for an answer to `GET /v2/`, whatever its status.
    #[track_caller]
    fn wait(&self) -> testkit::http::Response {
        let mut answer = None;
        let up = wait_until(START_LIMIT, || {
            answer = self.client().get("/v2/").ok();
            answer.is_some() || self.state("{{.State.Running}}") != "true"
        });
        answer.filter(|_| up).unwrap_or_else(|| panic!("the container should answer: {}", self.log()))
    }

    fn state(&self, format: &str) -> String {
        self.docker.run(&["inspect", "--format", format, &self.id]).stdout.trim().to_owned()
    }

    /// Stops it as an operator does; fails unless it ends in time and by itself.
    #[track_caller]
    fn stop(&self) {
        let since = Instant::now();
        self.docker.run(&["stop", &self.id]);
        let took = since.elapsed();
        assert!(took < STOP_LIMIT, "docker stop took {took:?}: {}", self.log());
        assert_eq!(self.state("{{.State.ExitCode}}"), "0", "{}", self.log());
    }

    /// Pushes a new image through the container, forgets and pulls it; returns its digest.
    #[track_caller]
    fn push_and_pull(&self, reference: &str) -> String {
        let (image, _) = Image::busybox().with_random(&mut Random::new(seed()), 300_000);
        self.docker.load(&image, reference);
        let pushed = self.docker.push(reference);
        self.check_pull(reference, &pushed);
        pushed
    }

    #[track_caller]
    fn check_pull(&self, reference: &str, digest: &str) {
        self.docker.run(&["rmi", reference]);
        assert_eq!(self.docker.pull(reference), digest, "{}", self.log());
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the container ----\n{}----", self.docker.try_run(&["logs", &self.id]).text());
        }
        self.docker.try_run(&["rm", "--force", "--volumes", &self.id]);
    }
}

/// Two free addresses below the range Linux takes for outgoing connections, and above the one that
/// the other tests take from.
fn free_addresses() -> [String; 2] {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let mut random = Random::new(u64::from(nanos) ^ (u64::from(process::id()) << 32));
    let mut pick = || {
        let bound = (0..1000).find_map(|_| TcpListener::bind(("127.0.0.1", 30_000 + random.below(2_700) as u16)).ok());
        bound.expect("no free port between 30000 and 32700")
    };
    // Both are taken before either is given back: they differ.
    [pick(), pick()].map(|listener| listener.local_addr().expect("a bound listener has an address").to_string())
}

#[test]
fn the_image_says_what_the_replaced_one_says() {
    let stage = Stage::new();
    let check = |format: &str, want: &str| {
        let seen = stage.docker.run(&["image", "inspect", "--format", format, NAME]).stdout;
        assert_eq!(seen.trim(), want, "{format}");
    };
    check("{{json .Config.Entrypoint}}", r#"["/entrypoint.sh"]"#);
    check("{{json .Config.Cmd}}", r#"["/etc/distribution/config.yml"]"#);
    check("{{json .Config.ExposedPorts}}", r#"{"5000/tcp":{}}"#);
    check("{{json .Config.Volumes}}", r#"{"/var/lib/registry":{}}"#);
    check("{{json .Config.User}}", r#""""#);
    check("{{index .Config.Env 1}}", "OTEL_TRACES_EXPORTER=none");
    check("{{index .Config.Labels \"org.opencontainers.image.version\"}}", env!("CARGO_PKG_VERSION"));
    check("{{index .Config.Labels \"io.roadstead.tls\"}}", "true");
    check("{{.Os}}/{{.Architecture}}", &format!("linux/{}", host_architecture()));

    let authorities = stage.docker.file_of(NAME, "/etc/ssl/certs/ca-certificates.crt");
    assert!(authorities.windows(9).any(|part| part == b"BEGIN CER"), "certificates of authorities");
    let config = stage.docker.file_of(NAME, "/etc/docker/registry/config.yml");
    assert_eq!(config, include_bytes!("../../src/config/default.yml"));
}

#[test]
fn the_same_program_gives_the_same_docker_image() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let archive = |name: &str| {
        let output = dir.path().join(name);
        let said = package("unix:///nowhere/docker.sock", &output).stdout;
        assert!(said.contains("docker load --input"), "without an engine it says how to load: {said}");
        fs::read(&output).expect("read the archive")
    };
    assert!(archive("one.tar") == archive("other.tar"), "the archives differ");
}

#[test]
fn arguments_are_those_of_the_replaced_docker_image() {
    let Some(stage) = Stage::running() else { return };
    let check = |args: &[&str], want: &str| {
        let outcome = stage.call(&[], args).ok();
        assert!(outcome.stdout.contains(want), "{args:?} should say `{want}`: {outcome}");
    };
    let version = concat!("roadstead ", env!("CARGO_PKG_VERSION"));
    check(&["--version"], version);
    check(&["registry", "--version"], version);
    check(&["/bin/registry", "--version"], version);
    check(&["bin/registry", "--version"], version);
    check(&["help"], "garbage-collect");
    check(&["garbage-collect", "--help"], "--delete-untagged");
    check(&["garbage-collect", "--dry-run", "/etc/distribution/config.yml"], "0 blobs marked");
    check(&["garbage-collect", "-d", "-m", "/etc/docker/registry/config.yml"], "0 blobs marked");
    stage.call(&[], &["sh", "-c", "true"]).refused(&["run sh"]);
}

#[test]
fn a_docker_container_serves_and_keeps_its_volume() {
    let Some(stage) = Stage::running() else { return };
    let mount = format!("{}:/var/lib/registry", stage.folder("volume", 0));
    let options = [
        ["--volume", mount.as_str()],
        ["--env", "REGISTRY_HTTP_ADDR={addr}"],
        ["--env", "REGISTRY_HTTP_DEBUG_ADDR={debug}"],
        ["--env", "REGISTRY_STORAGE_DELETE_ENABLED=true"],
    ];
    let first = stage.serve(options.as_flattened(), &[]);
    let reference = format!("{}/team/api:1", first.addr);
    let digest = first.push_and_pull(&reference);
    let debug = Client::new(&format!("http://{}", first.debug));
    for path in ["/debug/health", "/metrics"] {
        assert_eq!(debug.get(path).expect("an answer").status, 200, "{path}");
    }
    let changed = stage.docker.run(&["diff", &first.id]).stdout;
    assert_eq!(changed, "", "nothing is written outside the volume");

    first.stop();
    let kept = stage.call(&["--volume", &mount], &["garbage-collect", "--dry-run", "/etc/distribution/config.yml"]);
    assert!(kept.ok().stdout.contains("0 blobs and 0 manifests eligible"), "all that was pushed is in use");
    stage.docker.run(&["start", &first.id]);
    first.wait();
    first.check_pull(&reference, &digest);
    first.stop();

    let second = stage.serve(options.as_flattened(), &["serve", "/etc/distribution/config.yml"]);
    let again = format!("{}/team/api:1", second.addr);
    assert_eq!(stage.docker.pull(&again), digest);
    let target = format!("/v2/team/api/manifests/{digest}");
    assert_eq!(second.client().send("DELETE", &target, &[], b"").expect("an answer").status, 202);
    second.stop();
}

#[test]
fn a_docker_container_runs_as_any_user_on_a_read_only_root() {
    let Some(stage) = Stage::running() else { return };
    let check = |volume: &str, user: u32| {
        let (volume, user) = (format!("{volume}:/var/lib/registry"), format!("{user}:{user}"));
        let options = [
            ["--user", user.as_str()],
            ["--volume", &volume],
            ["--cap-drop", "ALL"],
            ["--security-opt", "no-new-privileges"],
            ["--env", "REGISTRY_HTTP_ADDR={addr}"],
            ["--env", "REGISTRY_HTTP_DEBUG_ADDR={debug}"],
        ];
        let container = stage.serve(&[&["--read-only"], options.as_flattened()].concat(), &[]);
        container.push_and_pull(&format!("{}/team/api:1", container.addr));
        container.stop();
    };
    let folder = stage.folder("volume", 1000);
    check(&folder, 1000);
    let entries: Vec<_> = fs::read_dir(&folder).expect("list the volume").flatten().collect();
    assert!(!entries.is_empty(), "the volume holds the data");
    for entry in entries {
        assert_eq!(entry.metadata().expect("look at an entry").uid(), 1000, "{:?}", entry.path());
    }
    // A volume that the engine creates takes the mode of the image's folder.
    check("new-volume", 4321);
}

#[test]
fn a_mounted_configuration_is_read_at_either_path_in_docker() {
    let Some(stage) = Stage::running() else { return };
    let (old, new) = ("/etc/docker/registry/config.yml", "/etc/distribution/config.yml");
    stage.check_config(new, &[]);
    stage.check_config(old, &[]);
    stage.check_config(old, &[old]);
    stage.check_config(old, &["serve", old]);
    stage.check_config("/srv/registry.yaml", &["/srv/registry.yaml"]);
}

#[test]
fn passwords_come_from_a_mounted_file_in_docker() {
    let Some(stage) = Stage::running() else { return };
    let mut htpasswd = tool("htpasswd");
    htpasswd.args(["-Bbn", "ada", "correct horse"]);
    let auth = stage.folder("auth", 0);
    stage.file("auth/htpasswd", &command::run(htpasswd).ok().stdout);
    let mount = format!("{auth}:/auth:ro");
    let options = [
        ["--volume", mount.as_str()],
        ["--env", "REGISTRY_AUTH=htpasswd"],
        ["--env", "REGISTRY_AUTH_HTPASSWD_REALM=Registry Realm"],
        ["--env", "REGISTRY_AUTH_HTPASSWD_PATH=/auth/htpasswd"],
        ["--env", "REGISTRY_HTTP_ADDR={addr}"],
        ["--env", "REGISTRY_HTTP_DEBUG_ADDR={debug}"],
    ];
    let container = stage.serve(options.as_flattened(), &[]);
    let refused = container.wait();
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"Registry Realm\""));
    stage.docker.run(&["login", "--username", "ada", "--password", "correct horse", &container.addr]);
    container.push_and_pull(&format!("{}/team/api:1", container.addr));
}

#[test]
fn names_are_resolved_in_a_docker_container() {
    let Some(stage) = Stage::running() else { return };
    let backend = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    backend.set_nonblocking(true).expect("a listener can be asked without waiting");
    let port = backend.local_addr().expect("a bound listener has an address").port();
    let checked = format!("REGISTRY_HEALTH_TCPCHECKERS_0_ADDR=backend.example:{port}");
    let options = [
        ["--add-host", "backend.example:127.0.0.1"],
        ["--env", checked.as_str()],
        ["--env", "REGISTRY_HEALTH_TCPCHECKERS_0_INTERVAL=1s"],
        ["--env", "REGISTRY_HTTP_ADDR={addr}"],
        ["--env", "REGISTRY_HTTP_DEBUG_ADDR={debug}"],
    ];
    let container = stage.serve(options.as_flattened(), &[]);
    let reached = wait_until(START_LIMIT, || backend.accept().is_ok());
    assert!(reached, "the health check finds its host: {}", container.log());
}

#[test]
fn a_docker_container_gets_accounts_from_init() {
    let Some(stage) = Stage::running() else { return };
    let data = format!("{}:/var/lib/registry", stage.folder("data", 1000));
    // This user has no home in the image.
    let user = ["--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--volume", &data];
    stage.call(&user, &["init", "--no-tls"]).ok();
    let options = [&user[..], &["--env", "REGISTRY_HTTP_ADDR={addr}"]].concat();
    let container = stage.serve(&options, &["serve", "/var/lib/registry/config.yml"]);
    let order = |line: &str| {
        let words = ["exec", &container.id, "registry"].into_iter().chain(line.split(' '));
        stage.docker.run(&words.collect::<Vec<_>>()).stdout
    };
    let password = order("user add bob --generate");
    order("grant add user:bob team/* push");
    let reference = format!("{}/team/api:1", container.addr);
    stage.docker.load(&Image::busybox(), &reference);
    stage.docker.try_run(&["push", &reference]).refused(&["denied: log in first, with the right to push on team/api"]);
    stage.docker.run(&["login", "--username", "bob", "--password", password.trim(), &container.addr]);
    container.push_and_pull(&reference);
    let elsewhere = reference.replace("team", "other");
    stage.docker.run(&["tag", &reference, &elsewhere]);
    stage.docker.try_run(&["push", &elsewhere]).refused(&["denied: bob lacks the right to push on other/api"]);
}
