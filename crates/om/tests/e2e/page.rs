//! The page `docs/docker-private-registries.md`, typed word for word: its commands are taken from its text and run in
//! order, and what they print is compared with what it shows.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::{Command, Stdio},
};

use testkit::engine::Engine;

use crate::{Node, PASSWORD, is_inside, must, private_registry, registry};

/// The text.
const PAGE: &str = include_str!("../../../../docs/docker-private-registries.md");
/// The registry of the page that wants credentials.
const PRIVATE: &str = "some.private.registry";

/// A command of the page and what it shows after it.
#[derive(Debug)]
struct Step<'a> {
    command: String,
    shown: Vec<&'a str>,
}

/// The commands of a text's code blocks, and the settings in them.
fn steps(text: &str) -> (Vec<Step<'_>>, Vec<&str>) {
    let (mut steps, mut settings): (Vec<Step<'_>>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(fence) = lines.by_ref().find(|line| line.starts_with("```")) {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if fence == "```ini" {
            settings.extend(&block);
        } else if block.iter().any(|line| line.starts_with("$ ")) {
            for line in block.into_iter().filter(|line| !line.starts_with('#')) {
                match (line.strip_prefix("$ "), steps.last_mut()) {
                    (Some(command), _) => steps.push(Step { command: command.into(), shown: Vec::new() }),
                    (None, Some(step)) => step.shown.push(line),
                    (None, None) => panic!("{line}: output of nothing"),
                }
            }
        } else {
            steps.push(Step { command: block.join("\n"), shown: Vec::new() });
        }
    }
    (steps, settings)
}

/// The person at the terminal: an account of the node, and root.
struct Person<'a> {
    node: &'a Node,
}

impl<'a> Person<'a> {
    fn new(node: &'a Node) -> Self {
        let dir = node.dir.path();
        fs::create_dir_all(dir.join("home")).unwrap();
        fs::create_dir_all(dir.join("root-home")).unwrap();
        // What root logs in to is where the daemon looks for it.
        symlink(dir.join("login"), dir.join("root-home/.docker")).unwrap();
        let program = |name: &str, script: String| {
            let path = dir.join("bin").join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("sudo", format!("#!/bin/sh\nHOME={} exec \"$@\"\n", dir.join("root-home").display()));
        // Pastes, saves and exits.
        program("paste", format!("#!/bin/sh\ncat {}/.docker/config.json > \"$1\"\n", dir.join("home").display()));
        Self { node }
    }

    /// Types a command, and answers what it asks, on a terminal.
    fn types(&self, command: &str, answers: &str) -> String {
        let dir = self.node.dir.path();
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("script");
        shell.args(["--quiet", "--return", "--command", command, "/dev/null"]).env("PATH", path);
        shell.env("HOME", dir.join("home")).env("EDITOR", dir.join("bin/paste")).env("SHELL", "/bin/bash");
        shell.env("OM_ROOT", self.node.root()).env("DOCKER_HOST", self.node.engine.host()).env_remove("DOCKER_CONFIG");
        shell.env("NO_COLOR", "1").env("TERM", "dumb").env("COLUMNS", "200");
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(answers.as_bytes()).unwrap();
        // The terminal stays open until the command ends.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(output.status.success(), "$ {command}\n{text}\n{}", self.node.log());
        text
    }
}

/// What a terminal was told, a line for each place that was written to.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest =
        parts.map(|part| part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or_default());
    rest.fold(first, |all, part| format!("{all}\n{part}"))
}

/// A line in the form that it has whatever is named in it: words, with addresses, digests and sizes by their kind.
fn form(line: &str) -> Vec<String> {
    let kind = |word: &str| {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let is_address = word
            .split_once('/')
            .is_some_and(|(address, prefix)| address.parse::<std::net::Ipv4Addr>().is_ok() && number(prefix));
        let is_digest = word.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
        match word {
            _ if is_address => "ADDRESS".into(),
            _ if is_digest => "DIGEST".into(),
            _ if number(word) => "NUMBER".into(),
            _ => word.to_owned(),
        }
    };
    line.split_whitespace().map(kind).collect()
}

#[test]
fn docker_follows_the_page_word_for_word() {
    if !is_inside() {
        return;
    }
    let (steps, settings) = steps(PAGE);
    assert_eq!(steps.len(), 9, "{steps:#?}");
    assert_eq!(settings, ["registry_creds = creds-some-private-registry"]);

    // The world of the page: its node, its cluster, docker.io, and a registry that wants credentials.
    fs::write("/proc/sys/kernel/hostname", "aubergine").unwrap();
    let files = tempfile::tempdir().unwrap();
    for (name, text) in [("resolv.conf", String::new()), ("hosts", format!("127.0.0.1 localhost {PRIVATE}\n"))] {
        let file = files.path().join(name);
        fs::write(&file, text).unwrap();
        must("mount", &["--bind", &file.display().to_string(), &format!("/etc/{name}")]);
    }
    let (hub, private) = (registry(""), private_registry(files.path()));
    // Docker speaks plain HTTP with what is on the loopback interface.
    for port in ["80", "443"] {
        let words = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", "127.0.0.1", "--dport", port, "-j", "REDIRECT"];
        must("iptables", &[&words[..], &["--to-ports", private.port()]].concat());
    }
    let mirror = format!("--registry-mirror=http://{}", hub.host_port());
    let mut node = Node::on(Engine::start_with(&[&mirror]));
    let docker = node.engine.client();
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    node.registry_image();
    docker.run(&["login", private.host_port(), "--username", "anna", "--password", PASSWORD]);
    for (image, of) in [
        ("google/pause", format!("{}/google/pause", hub.host_port())),
        ("registry", format!("{}/library/registry", hub.host_port())),
        ("google/pause", format!("{}/team/app:1", private.host_port())),
    ] {
        docker.run(&["tag", image, &of]);
        docker.push(&of);
    }
    docker.forget_images();
    node.om_ok(&["cluster", "set", "--kw", "cluster.name=homepool2"]);
    node.kill_daemon();
    node.om_ok(&["dns", "setup", "--yes"]);
    // The size of the page is there, whatever this machine has.
    let pool = node.root().join("var/pool");
    fs::create_dir_all(&pool).unwrap();
    must("mount", &["-t", "tmpfs", "-o", "size=12g", "tmpfs", &pool.display().to_string()]);

    let person = Person::new(&node);
    for step in &steps {
        let login = step.command.contains("docker login");
        let answers = if login { format!("anna\n{PASSWORD}\n") } else { String::new() };
        let said = person.types(&step.command, &answers);
        // The terminal shows what was typed before Docker asked for it.
        assert!(login || !said.contains(PASSWORD), "{said}");
        if step.command.contains("print status") {
            compare_trees(&step.shown, &said);
        } else if step.command.contains("docker push") {
            // What lies between is of Docker's version and of the image.
            let said = plain(&said).replace("refers to a repository", "refers to repository");
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            let first = step.shown[0].replace("refers to a repository", "refers to repository");
            assert_eq!(form(lines[0]), form(&first), "{said}");
            assert!(lines.iter().any(|line| line.trim_end().ends_with(": Pushed")), "{said}");
            assert_eq!(form(lines[lines.len() - 1]), form(step.shown[step.shown.len() - 1]), "{said}");
        } else {
            assert_eq!(step.shown, Vec::<&str>::new(), "{}: nobody compares this", step.command);
        }
    }
    fs::remove_file("/tmp/registry.template").unwrap();

    // The credentials serve whom they are for: the namespace by its secret, all others by root's login.
    let image = format!("{PRIVATE}/team/app:1");
    let create = |path: &str, setting: &str| {
        let file = node.dir.path().join("service");
        fs::write(&file, format!("[container#0]\ntype = docker\nimage = {image}\n{setting}\n")).unwrap();
        node.om(&[path, "create", "--config", &file.display().to_string(), "--provision"])
    };
    let (done, text) = create("other/app", "");
    assert!(done, "{text}\n{}", node.log());
    node.om_ok(&["other/app", "purge"]);
    person.types(&format!("sudo docker logout {PRIVATE}"), "");
    docker.run(&["rmi", "--force", &image]);
    let (done, text) = create("third/app", "");
    assert!(!done && text.contains("no credentials"), "{text}");
    let (done, text) = create("third/app2", settings[0]);
    assert!(!done && text.contains("third/sec/creds-some-private-registry"), "{text}");
    let (done, text) = create("myns/app", settings[0]);
    assert!(done, "{text}\n{}", node.log());
    let decoded = node.om_ok(&["myns/sec/creds-some-private-registry", "decode", "--key", "config.json"]);
    assert!(decoded.contains(PRIVATE), "{decoded}");

    for path in ["myns/app", "third/app", "third/app2", "test/registry", "test/vol/registry-data"] {
        node.om_ok(&[path, "purge"]);
    }
    assert_eq!((node.containers(), node.leases()), (Vec::new(), 0));
    must("umount", &[&pool.display().to_string()]);
}

/// The tree is the page's, but for the second node and what only two nodes have.
fn compare_trees(shown: &[&str], said: &str) {
    let said: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let of_two = ["nuc-cva", "sync#i0"];
    let mut expected: Vec<String> = shown
        .iter()
        .filter(|line| !of_two.iter().any(|word| line.contains(word)))
        .map(|line| line.trim_end().to_owned())
        .collect();
    if let Some(last) = expected.last_mut() {
        *last = last.replace("|- container#1 ", "`- container#1 ");
    }
    let forms = |lines: &[String]| lines.iter().map(|line| form(line)).collect::<Vec<_>>();
    let said: Vec<String> = said.into_iter().map(str::to_owned).collect();
    assert_eq!(forms(&said), forms(&expected), "{}", said.join("\n"));
    // Columns are where the page has them.
    for (line, of_page) in said.iter().zip(&expected) {
        let column = |line: &str| line.find(" up ").or_else(|| line.find(" up"));
        assert_eq!(column(line), column(of_page), "{line}");
    }
}
