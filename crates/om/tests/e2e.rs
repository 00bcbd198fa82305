//! A whole node: the real binary, a real Docker engine, real CNI plugins, in network and mount namespaces of the test's
//! own. The engine's images are made by hand.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use testkit::{
    engine::Engine,
    image,
    server::{Server, Setup},
};

#[path = "e2e/failures.rs"]
mod failures;
#[path = "e2e/page.rs"]
mod page;

/// Says that the test runs in namespaces of its own: a file that it makes.
const INSIDE: &str = "OM_TEST_INSIDE";
/// The page's template; only the size is smaller.
const TEMPLATE: &str = "\
[DEFAULT]
orchestrate = ha
nodes = {clusternodes}

[ip#1]
type = cni
netns = container#0

[container#0]
type = docker
image = google/pause

[container#1]
type = docker
image = registry
volume_mounts = {svcname}-data/registry:/var/lib/registry
netns = container#0

[volume#1]
name = {svcname}-data
size = {env.size}
access = rwo

[env]
size = 100m

";

/// Runs the test once more in new network, mount and host name namespaces. True there.
fn is_inside() -> bool {
    if let Some(mark) = std::env::var_os(INSIDE) {
        fs::write(mark, "").unwrap();
        // What is mounted here is seen by the engine, which has a namespace of its own, as on a machine.
        must("mount", &["--make-rshared", "/"]);
        must("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        must("ip", &["link", "set", "lo", "up"]);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("began");
    let thread = std::thread::current();
    let test = thread.name().expect("a test has a thread of its name");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--uts"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &mark)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
    assert!(mark.exists(), "{test} did not run in its namespaces");
    false
}

fn must(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node: its directory, its engine, its daemon.
struct Node {
    daemon: Child,
    engine: Engine,
    dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // What is mounted below the directory would keep it from being removed.
        let _ = Command::new("umount").arg(self.root().join("run/containers")).stderr(Stdio::null()).status();
    }
}

impl Node {
    fn start() -> Self {
        Self::on(Engine::start())
    }

    fn on(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["om", "svcmgr"] {
            symlink(env!("CARGO_BIN_EXE_om"), bin.join(name)).unwrap();
        }
        assert!(engine.runs_containers(), "no container runs here");
        let login = dir.path().join("login");
        fs::create_dir(&login).unwrap();
        // The engine's trust is where the engine looks for it.
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        symlink(engine.etc_docker(), dir.path().join("root/etc/docker")).unwrap();
        let node = Self { daemon: spawn(dir.path(), engine.host()), engine, dir };
        node.wait_for_daemon();
        node
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn wait_for_daemon(&self) {
        until("the daemon answers", || self.om(&["daemon", "status"]).0);
    }

    /// The daemon dies without a word, and is started again.
    fn kill_daemon(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.begin_daemon();
    }

    /// The daemon, which does not run, is started.
    fn begin_daemon(&mut self) {
        self.daemon = spawn(self.dir.path(), self.engine.host());
        self.wait_for_daemon();
    }

    /// An image with busybox that runs a script; it ends when it is told to.
    fn image(&self, name: &str, script: &str, label: Option<&str>) {
        let busybox = fs::read("/bin/busybox").unwrap();
        let archive = self.dir.path().join("image.tar");
        fs::write(&archive, image::tar(&[("bin/busybox", 0o755, &busybox), ("bin/sh", 0o755, &busybox)])).unwrap();
        let script = format!("trap 'exit 0' TERM; {script} & wait");
        let command = format!("CMD {}", serde_json::json!(["/bin/busybox", "sh", "-c", script]));
        let archive = archive.display().to_string();
        let mut words = vec!["import", "--change", &command];
        let label = label.map(|label| format!("LABEL {label}"));
        if let Some(label) = &label {
            words.extend(["--change", label]);
        }
        words.extend([archive.as_str(), name]);
        self.engine.client().run(&words);
    }

    /// The image `registry:latest` of this workspace.
    fn registry_image(&self) {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut script = Command::new(workspace.join("scripts/image.sh"));
        script.arg("--binary").arg(registry_program()).args(["--tag", "registry:latest", "--output"]);
        script.arg(self.dir.path().join("registry.tar")).env("DOCKER_HOST", self.engine.host()).current_dir(&workspace);
        let made = script.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.dir.path().join("bin").join(name));
        command.env("OM_ROOT", self.root()).env("DOCKER_HOST", self.engine.host()).stdin(Stdio::null());
        command
    }

    /// Whether it succeeded, and both outputs.
    fn run(&self, name: &str, words: &[&str]) -> (bool, String) {
        let output = self.command(name).args(words).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn om(&self, words: &[&str]) -> (bool, String) {
        self.run("om", words)
    }

    #[track_caller]
    fn om_ok(&self, words: &[&str]) -> String {
        let (done, text) = self.om(words);
        assert!(done, "om {words:?}: {text}");
        text
    }

    /// The registry's status as it is printed, without the name of the node.
    fn status(&self) -> String {
        self.om_ok(&["test/registry", "print", "status"])
    }

    fn docker(&self, words: &[&str]) -> String {
        self.engine.client().run(words).stdout
    }

    /// Names of all containers, sorted.
    fn containers(&self) -> Vec<String> {
        let names = self.docker(&["ps", "--all", "--format", "{{.Names}} {{.ID}}"]);
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Addresses that are given to somebody.
    fn leases(&self) -> usize {
        let dir = self.root().join("var/net/networks/default");
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn spawn(dir: &Path, engine: &str) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(dir.join("bin/om"));
    command.args(["daemon", "run"]).env("OM_ROOT", dir.join("root")).env("DOCKER_HOST", engine);
    command.env("DOCKER_CONFIG", dir.join("login"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "it never came to be that {what}");
        sleep(Duration::from_millis(50));
    }
}

/// The first line of the answer to a request at an address.
fn first_line(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /busybox HTTP/1.0\r\n\r\n").ok()?;
    let mut head = [0; 64];
    let count = stream.read(&mut head).ok()?;
    String::from_utf8_lossy(&head[..count]).lines().next().map(str::to_owned)
}

#[test]
fn docker_runs_the_template_of_the_page() {
    if !is_inside() {
        return;
    }
    let mut node = Node::start();
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    node.image("registry", "/bin/busybox httpd -f -p 5000 -h /bin", Some("io.roadstead.tls=true"));
    let template = node.dir.path().join("registry.template");
    fs::write(&template, TEMPLATE).unwrap();
    let template = template.display().to_string();

    let (done, text) = node.run("svcmgr", &["create", "-s", "test/registry", "--config", &template, "--provision"]);
    assert!(done, "{text}\n{}", node.log());
    let status = node.status();
    let name = must("uname", &["-n"]);
    let shown: Vec<String> = status.lines().map(|line| line.trim_end().replace(name.trim(), "NODE")).collect();
    let column = |text: &str| shown[0].len() - text.len();
    assert_eq!(column("up"), 33, "{status}");
    assert!(shown[2].starts_with("   `- NODE") && shown[2].ends_with("idle, started"), "{status}");
    assert_eq!(
        shown[3..],
        [
            "      |- ip#1           ........ up         cni default 10.22.0.2/16 eth12",
            "      |- volume#1       ........ up         registry-data",
            "      |- container#0    ........ up         docker container test..registry.container.0@google/pause",
            "      `- container#1    ........ up         docker container test..registry.container.1@registry",
        ],
        "{status}"
    );
    assert_eq!(first_line("10.22.0.2:5000").as_deref(), Some("HTTP/1.1 200 OK"));
    let files = node.docker(&["exec", "test..registry.container.1", "/bin/busybox", "ls", "/run/tls"]);
    assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    let inspected = node.docker(&["inspect", "test..registry.container.1"]);
    assert!(!inspected.contains("PRIVATE KEY") && inspected.contains("/var/lib/registry"), "{inspected}");

    let mut enter = node.command("om");
    let enter = enter.args(["test/registry", "enter", "--rid", "container#1"]).stdin(Stdio::piped());
    let mut enter = enter.stdout(Stdio::piped()).spawn().unwrap();
    enter.stdin.take().unwrap().write_all(b"/bin/busybox pwd; exit 7\n").unwrap();
    let entered = enter.wait_with_output().unwrap();
    assert_eq!((entered.status.code(), entered.stdout.as_slice()), (Some(7), b"/\n".as_slice()));

    // The daemon dies: what runs goes on, and is its own again.
    let before = node.containers();
    node.kill_daemon();
    until("all is up again", || node.status().lines().next().is_some_and(|line| line.ends_with("up")));
    assert_eq!(node.containers(), before);

    // A container dies: it is noticed, and its address is free for others.
    node.docker(&["kill", "test..registry.container.0"]);
    until("the death is noticed", || node.status().contains("it ended with exit code 137"));
    until("the address is given back", || node.leases() == 0);
    node.om_ok(&["test/registry", "stop"]);
    node.om_ok(&["test/registry", "start"]);
    assert!(node.status().contains("up         cni default 10.22.0.3/16 eth12"), "{}", node.status());
    assert_eq!(first_line("10.22.0.3:5000").as_deref(), Some("HTTP/1.1 200 OK"));

    // It goes, and leaves nothing behind but its volume.
    node.om_ok(&["test/registry", "purge"]);
    assert_eq!(node.containers(), Vec::<String>::new());
    assert_eq!(node.leases(), 0);
    let rules = must("iptables", &["-t", "nat", "-S"]);
    assert!(!rules.contains("CNI-"), "{rules}");
    let pool = node.root().join("var/pool/directory");
    assert!(pool.join("registry-data.test.vol.default/registry").is_dir());
    node.om_ok(&["test/vol/registry-data", "purge"]);
    assert_eq!(fs::read_dir(&pool).unwrap().count(), 0);
}

#[test]
fn docker_lacks_what_a_service_needs() {
    if !is_inside() {
        return;
    }
    let node = Node::start();
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    let create = |text: &str, expected: &str| {
        let file = node.dir.path().join("service");
        fs::write(&file, text).unwrap();
        let (done, said) = node.om(&["test/broken", "create", "--config", &file.display().to_string(), "--provision"]);
        assert!(!done && said.contains(expected), "{text}\n{said}");
        // What was begun is taken back.
        let running = node.docker(&["ps", "--format", "{{.Names}}"]);
        assert_eq!((running.as_str(), node.leases()), ("", 0), "{text}");
        node.om_ok(&["test/broken", "purge"]);
        assert_eq!(node.containers(), Vec::<String>::new(), "{text}");
    };
    let pause = "[container#0]\ntype = docker\nimage = google/pause\n\n";
    // Nothing listens there: as far as the engine can tell, no such registry.
    create("[container#0]\ntype = docker\nimage = 127.0.0.1:1/none\n", "127.0.0.1:1/none");
    create(
        &format!(
            "{pause}[container#1]\ntype = docker\nimage = google/pause\ncommand = /bin/nothing\nnetns = container#0\n"
        ),
        "/bin/nothing",
    );
    create(
        &format!("{pause}[ip#1]\ntype = cni\nnetns = container#0\nnetwork = nowhere\n"),
        "network nowhere is not configured",
    );
    create(
        "[container#0]\ntype = docker\nimage = 127.0.0.1:1/none\nregistry_creds = absent\n",
        "test/sec/absent does not exist",
    );
}

#[test]
fn docker_writes_to_a_volume_that_cannot_outgrow_its_size() {
    if !is_inside() {
        return;
    }
    let node = Node::start();
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    let file = node.dir.path().join("service");
    let disk = node.dir.path().join("disk");
    fs::write(
        &file,
        format!(
            "[disk#1]\ntype = loop\nfile = {0}.img\nsize = 16m\nmnt = {0}\n\n\
             [container#0]\ntype = docker\nimage = google/pause\nvolume_mounts = {0}:/data\n",
            disk.display()
        ),
    )
    .unwrap();
    node.om_ok(&["test/small", "create", "--config", &file.display().to_string(), "--provision"]);
    let words =
        ["exec", "test..small.container.0", "/bin/busybox", "dd", "if=/dev/zero", "of=/data/a", "bs=1M", "count=32"];
    node.engine.client().try_run(&words).refused(&["no space left"]);
    node.om_ok(&["test/small", "stop"]);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&disk.display().to_string()));
    node.om_ok(&["test/small", "start"]);
    assert!(fs::metadata(disk.join("a")).unwrap().len() > 8 << 20, "what was written is there again");
    node.om_ok(&["test/small", "purge"]);
    assert!(!disk.with_extension("img").exists());
    let used = must("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]);
    assert!(!used.contains(&disk.display().to_string()), "{used}");
}

#[test]
fn docker_or_not_a_plain_process_is_supervised() {
    if !is_inside() {
        return;
    }
    let mut node = Node::start();
    let file = node.dir.path().join("service");
    let app = "[app#1]\nstart = /bin/sh -c 'echo it began; exec /bin/sleep 1000000'\nrestart = 2\nrestart_delay = 0s\n";
    fs::write(&file, app).unwrap();
    node.om_ok(&["test/plain", "create", "--config", &file.display().to_string(), "--provision"]);
    let process = |node: &Node| -> String {
        let dir = node.root().join("run/apps");
        let notes = fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        notes.collect::<String>().split(' ').next().unwrap_or_default().to_owned()
    };
    let first = process(&node);
    let status = node.om_ok(&["test/plain", "print", "status"]);
    assert!(status.contains("up         app /bin/sh -c"), "{status}");
    assert_eq!(node.om_ok(&["test/plain", "logs", "--rid", "app#1"]), "it began\n");
    let (done, said) = node.om(&["test/plain", "logs", "--rid", "ap#1"]);
    assert!(!done && said.contains("did you mean app#1?"), "{said}");

    // Its death is noticed, and it is started again.
    must("kill", &["-9", &first]);
    until("another process runs", || ![&first, ""].contains(&process(&node).as_str()));
    let second = process(&node);

    // The next daemon finds it.
    node.kill_daemon();
    until("it is up", || node.om_ok(&["test/plain", "print", "status"]).contains("up         app /bin/sh"));
    assert_eq!(process(&node), second);
    node.om_ok(&["test/plain", "purge"]);
    // Whoever it was left to may not have collected it yet.
    let stat = fs::read_to_string(Path::new("/proc").join(&second).join("stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// A password that must be found nowhere.
const PASSWORD: &str = "correct-horse-battery";

/// Our own registry, with this section `auth`.
fn registry(auth: &str) -> Server {
    let config =
        format!("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {{data}}\nhttp:\n  addr: {{addr}}\n{auth}");
    Setup::new(&registry_program().display().to_string(), &config).start()
}

/// One where only `anna` may come in.
fn private_registry(dir: &Path) -> Server {
    let users = dir.join("htpasswd");
    must("htpasswd", &["-Bbc", &users.display().to_string(), "anna", PASSWORD]);
    registry(&format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", users.display()))
}

/// Cargo puts the programs of one build side by side.
fn registry_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_om")).with_file_name("registry");
    assert!(program.exists(), "{} is not built: cargo build --package registry", program.display());
    program
}

#[test]
fn docker_pushes_to_the_registry_of_the_page() {
    if !is_inside() {
        return;
    }
    // The machine's resolver is the test's own.
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    must("mount", &["--bind", &resolv_conf.path().display().to_string(), "/etc/resolv.conf"]);
    let node = Node::start();
    let (_, said) = node.om(&["dns", "status"]);
    assert!(said.contains("169.254.53.53:53") && said.contains("does not ask it"), "{said}\n{}", node.log());
    let planned = node.om_ok(&["dns", "setup", "--dry-run"]);
    assert!(planned.contains("nameserver 169.254.53.53"), "{planned}");
    assert_eq!(fs::read_to_string(resolv_conf.path()).unwrap(), "");
    node.om_ok(&["dns", "setup", "--yes"]);
    let said = node.om_ok(&["dns", "status"]);
    assert!(said.contains("this node asks the cluster's DNS"), "{said}");
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    node.registry_image();
    let template = node.dir.path().join("registry.template");
    fs::write(&template, TEMPLATE).unwrap();
    let template = template.display().to_string();
    let (done, text) = node.run("svcmgr", &["create", "-s", "test/registry", "--config", &template, "--provision"]);
    assert!(done, "{text}\n{}", node.log());

    let image = "registry.test.svc.default:5000/google/pause:latest";
    let docker = node.engine.client();
    docker.run(&["tag", "google/pause:latest", image]);
    let digest = docker.push(image);
    docker.run(&["rmi", image]);
    assert_eq!(docker.pull(image), digest);
    // Containers ask the same DNS.
    let words = ["exec", "test..registry.container.0", "/bin/busybox", "nslookup", "registry.test.svc.default"];
    let said = docker.run(&words).stdout;
    assert!(said.contains("169.254.53.53") && said.contains("10.22.0.2"), "{said}");
    let zone = node.om_ok(&["daemon", "dns", "dump"]);
    assert!(zone.contains("2.0.22.10.in-addr.arpa.") && zone.contains("registry.test.svc.default."), "{zone}");

    // What was pushed is in the volume, and outlives the service.
    node.om_ok(&["test/registry", "stop"]);
    docker.try_run(&["pull", image]).refused(&["no such host"]);
    node.om_ok(&["test/registry", "start"]);
    docker.run(&["rmi", image]);
    assert_eq!(docker.pull(image), digest);
    node.om_ok(&["test/registry", "purge"]);

    // The shipped template lets nobody in who has no account.
    let words = ["svc", "create", "test/private", "--template", "registry", "--env", "size=100m", "--provision"];
    node.om_ok(&words);
    let host = "private.test.svc.default:5000";
    let image = format!("{host}/google/pause");
    let docker = node.engine.client();
    docker.run(&["tag", "google/pause:latest", &image]);
    docker.try_run(&["push", &image]).refused(&["log in first"]);
    let file = node.root().join("var/pool/directory/private-data.test.vol.default/registry/admin.password");
    let password = fs::read_to_string(file).unwrap();
    docker.run(&["login", host, "--username", "admin", "--password", password.trim()]);
    let digest = docker.push(&image);
    docker.run(&["rmi", &image]);
    assert_eq!(docker.pull(&image), digest);
    assert!(!node.log().contains(password.trim()));

    let (done, said) = node.om(&["test/private", "enter", "--rid", "container#2"]);
    assert!(!done && said.contains("has no shell") && said.contains("nsenter"), "{said}");

    let said = node.om_ok(&["test/private", "logs", "--rid", "container#2"]);
    assert!(said.contains("listening") || said.contains("addr"), "{said}");

    // Its certificate is renewed while it runs: the registry serves the new one, the engine trusts it.
    let before = node.containers();
    let address = must("getent", &["ahostsv4", "private.test.svc.default"]);
    let address = address.split_whitespace().next().unwrap().to_owned();
    let served = || {
        must(
            "sh",
            &[
                "-c",
                &format!(
                    "openssl s_client -connect {address}:5000 </dev/null 2>/dev/null | openssl x509 -noout -serial"
                ),
            ],
        )
    };
    let old = served();
    node.om_ok(&["test/sec/private.tls", "remove", "--key", "private_key"]);
    until("the registry serves another certificate", || served() != old);
    docker.run(&["rmi", &image]);
    assert_eq!(docker.pull(&image), digest);
    assert_eq!(node.containers(), before);
    node.om_ok(&["test/private", "purge"]);
    node.om_ok(&["dns", "setup", "--undo", "--yes"]);
    assert_eq!(fs::read_to_string(resolv_conf.path()).unwrap(), "");
}

/// What `docker login` writes.
fn login(registry: &str, password: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let auth = STANDARD.encode(format!("anna:{password}"));
    serde_json::json!({ "auths": { registry: { "auth": auth } } }).to_string()
}

#[test]
fn docker_pulls_with_the_credentials_of_a_namespace_and_no_others() {
    if !is_inside() {
        return;
    }
    let node = Node::start();
    let registry = private_registry(node.dir.path());
    let host = registry.host_port();
    let image = format!("{host}/team/app:1");
    node.image(&image, "/bin/busybox sleep 1000000", None);
    let docker = node.engine.client();
    docker.run(&["login", host, "--username", "anna", "--password", PASSWORD]);
    docker.push(&image);
    docker.forget_images();

    let file = node.dir.path().join("service");
    let create = |path: &str, more: &str| {
        fs::write(&file, format!("[container#0]\ntype = docker\nimage = {image}\n{more}\n")).unwrap();
        let (done, text) = node.om(&[path, "create", "--config", &file.display().to_string(), "--provision"]);
        if !done {
            node.om_ok(&[path, "purge"]);
        }
        (done, text)
    };
    let refused = |path: &str, more: &str, expected: &str| {
        let (done, text) = create(path, more);
        assert!(!done && text.contains(expected) && !text.contains(PASSWORD), "{path}: {text}");
    };
    let secret = |path: &str, value: &str| {
        let from = node.dir.path().join("secret");
        fs::write(&from, value).unwrap();
        node.om(&[path, "create"]);
        let verb = if node.om(&[path, "keys"]).1.contains("config.json") { "change" } else { "add" };
        node.om_ok(&[path, verb, "--key", "config.json", "--from", &from.display().to_string()]);
        fs::remove_file(from).unwrap();
    };
    let creds = "registry_creds = creds";

    refused("one/app", "", &format!("no credentials for {host} were given"));
    refused("one/app", creds, "one/sec/creds does not exist");
    node.om_ok(&["one/sec/creds", "create"]);
    refused("one/app", creds, "or has no key config.json");
    for (value, expected) in [
        ("{", "key config.json of one/sec/creds"),
        (&*login("other.example", PASSWORD), "has no credentials for"),
        (&*login(host, "wrong"), "in key config.json of one/sec/creds were refused"),
    ] {
        secret("one/sec/creds", value);
        refused("one/app", creds, expected);
    }
    secret("one/sec/creds", &login(host, PASSWORD));
    let (done, text) = create("one/app", creds);
    assert!(done, "{text}\n{}", node.log());

    // The engine has the image now; another namespace may not use it for that.
    refused("two/app", "", "no credentials");
    refused("two/app", creds, "two/sec/creds does not exist");
    secret("two/sec/creds", &login(host, "wrong"));
    refused("two/app", creds, "of two/sec/creds were refused");

    // Root's own login serves every service of the node.
    fs::write(node.dir.path().join("login/config.json"), login(host, PASSWORD)).unwrap();
    let (done, text) = create("two/app", "");
    assert!(done, "{text}\n{}", node.log());

    let inspected = node.docker(&["inspect", "one..app.container.0"]);
    let encoded = login(host, PASSWORD);
    let encoded = encoded.split('"').find(|word| word.len() > 20 && !word.contains(':')).unwrap().to_owned();
    for secret in [PASSWORD, &encoded] {
        assert!(!inspected.contains(secret) && !node.log().contains(secret), "{secret}");
        let found = Command::new("grep").args(["-rlaF", secret]).arg(node.root()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{secret}");
    }
}
