//! What goes wrong on a whole node: everything that was begun is taken back, everything that died comes again, nothing
//! leaks.

use std::{fs, net::TcpListener, os::unix::fs::symlink, path::Path, process::Stdio, thread::sleep, time::Duration};

use super::{Node, TEMPLATE, is_inside, must, until};

/// All that a service could leave behind on a node.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    containers: Vec<String>,
    leases: usize,
    records: usize,
    interfaces: usize,
    rules: Vec<String>,
    mounts: Vec<String>,
    loops: usize,
    files: usize,
}

impl Left {
    fn of(node: &Node) -> Self {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let count = |dir: &Path| fs::read_dir(dir).map_or(0, |entries| entries.filter_map(Result::ok).count());
        let root = node.root().display().to_string();
        let mounts = lines(fs::read_to_string("/proc/self/mountinfo").unwrap());
        let mine = |line: &String| line.contains(&root) && !line.contains("run/containers");
        let used = lines(must("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]));
        let records = fs::read_dir(node.root().join("var/net")).map_or(0, |entries| {
            entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count()
        });
        let links = lines(must("ip", &["-o", "link"]));
        let rules = lines(must("iptables", &["-t", "nat", "-S"]));
        Self {
            containers: node.containers(),
            leases: node.leases(),
            records,
            interfaces: links.iter().filter(|line| line.contains("veth")).count(),
            rules: rules.into_iter().filter(|line| line.contains("CNI-") && !line.contains("HOSTPORT")).collect(),
            mounts: mounts.into_iter().filter(mine).collect(),
            loops: used.iter().filter(|line| line.contains(&root)).count(),
            files: count(&node.root().join("run/containers")),
        }
    }
}

/// The page's template, with a volume whose size is enforced.
fn template(node: &Node) -> String {
    let file = node.dir.path().join("registry.template");
    fs::write(&file, TEMPLATE.replace("access = rwo", "access = rwo\ntype = loop").replace("100m", "24m")).unwrap();
    node.om_ok(&["cluster", "set", "--kw", "pool#small.type=loop"]);
    file.display().to_string()
}

/// A node with images, the template of a service, and what there is before it.
fn prepared() -> (Node, String, Left) {
    let node = Node::start();
    node.image("google/pause", "/bin/busybox sleep 1000000", None);
    node.image("registry", "/bin/busybox httpd -f -p 5000 -h /bin", Some("io.roadstead.tls=true"));
    let (template, before) = (template(&node), Left::of(&node));
    (node, template, before)
}

fn is_up(node: &Node) -> bool {
    // It may go while this is asked.
    let (done, text) = node.om(&["test/registry", "print", "status"]);
    done && text.lines().next().is_some_and(|line| line.ends_with("up"))
}

/// Takes the service and its volume away.
fn purge(node: &Node) {
    node.om_ok(&["test/registry", "purge"]);
    let (_, volumes) = node.om(&["test/vol/*", "ls"]);
    if volumes.contains("vol/") {
        node.om_ok(&["test/vol/*", "purge"]);
    }
}

#[test]
fn docker_and_a_daemon_that_is_killed_at_any_step() {
    if !is_inside() {
        return;
    }
    let (mut node, template, before) = prepared();
    // From before the first step to after the last one.
    for pause in [0, 30, 60, 100, 150, 200, 300, 400, 600, 900] {
        let mut create = node.command("svcmgr");
        create.args(["create", "-s", "test/registry", "--config", &template, "--provision"]);
        let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it is created", || node.om(&["test/registry", "ls"]).0);
        sleep(Duration::from_millis(pause));
        node.kill_daemon();
        // Whoever waited is told, and goes.
        create.wait().unwrap();
        // What was ordered is still wanted; what was not written down before the kill was never promised.
        if !node.om(&["test/registry", "ls"]).0 {
            node.om_ok(&["test/registry", "create", "--config", &template, "--provision"]);
        }
        until(&format!("it is up after a kill at {pause} ms"), || is_up(&node));
        assert_eq!((node.leases(), node.containers().len()), (1, 2), "{}", node.status());
        node.kill_daemon();
        until("it is known again", || is_up(&node));

        let mut purge = node.command("om");
        let mut purge =
            purge.args(["test/registry", "purge"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(pause));
        node.kill_daemon();
        purge.wait().unwrap();
        let is_gone = || !node.om(&["test/registry", "ls"]).0;
        if !is_gone() && is_up(&node) {
            // The order may not have come; if it had, this one changes nothing.
            node.om(&["test/registry", "purge"]);
        }
        until(&format!("it is gone after a kill at {pause} ms"), is_gone);
        node.om_ok(&["test/vol/registry-data", "purge"]);
        assert_eq!(Left::of(&node), before, "{pause} ms\n{}", node.log());
    }
}

#[test]
fn docker_comes_back_with_all_that_should_run() {
    if !is_inside() {
        return;
    }
    let (mut node, template, before) = prepared();
    node.om_ok(&["test/registry", "create", "--config", &template, "--provision"]);
    for ending in ["stopped", "killed"] {
        if ending == "killed" {
            node.engine.kill9();
        } else {
            node.engine.stop();
        }
        until("the engine is missed", || node.status().contains("undef"));
        let status = node.status();
        assert!(status.contains("container engine"), "{status}");
        node.engine.start_again();
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !is_up(&node) {
            assert!(
                std::time::Instant::now() < end,
                "not up after the engine was {ending}: {}\n{}",
                node.status(),
                node.log()
            );
            sleep(Duration::from_millis(50));
        }
        assert_eq!((node.leases(), node.docker(&["ps", "--quiet"]).lines().count()), (1, 2), "{}", node.status());
    }
    // Without an engine there is nothing that can be created, and nothing is begun.
    purge(&node);
    node.engine.stop();
    let (done, said) = node.om(&["test/registry", "create", "--config", &template, "--provision"]);
    assert!(!done && said.contains("container engine"), "{said}");
    node.engine.start_again();
    purge(&node);
    assert_eq!(Left::of(&node), before);
}

#[test]
fn docker_with_a_plugin_a_port_or_a_volume_that_fails() {
    if !is_inside() {
        return;
    }
    let (node, template, before) = prepared();
    let create = |more: &str| {
        let file = node.dir.path().join("more");
        fs::write(
            &file,
            fs::read_to_string(&template).unwrap().replace("[container#0]", &format!("{more}\n[container#0]")),
        )
        .unwrap();
        node.om(&["test/registry", "create", "--config", &file.display().to_string(), "--provision"])
    };
    let refused = |more: &str, expected: &[&str]| {
        let (done, said) = create(more);
        assert!(!done && expected.iter().all(|words| said.contains(words)), "{more}: {said}\n{}", node.log());
        assert_eq!((node.leases(), node.docker(&["ps", "--quiet"])), (0, String::new()), "{more}");
        purge(&node);
        assert_eq!(Left::of(&node), before, "{more}");
    };

    // The first plugin works, the second does not.
    let plugins = node.dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for name in ["bridge", "host-local"] {
        symlink(format!("/usr/lib/cni/{name}"), plugins.join(name)).unwrap();
    }
    let broken = plugins.join("portmap");
    fs::write(
        &broken,
        "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\necho '{\"code\": 7, \"msg\": \"no room\"}'\nexit 1\n",
    )
    .unwrap();
    must("chmod", &["+x", &broken.display().to_string()]);
    node.om_ok(&["cluster", "set", "--kw", &format!("cni.plugins={}", plugins.display())]);
    let port = "expose = 5000/tcp:18000\n";
    until("the directory counts", || node.om_ok(&["cluster", "get", "--kw", "cni.plugins"]).contains("plugins"));
    refused(port, &["portmap ADD", "no room"]);
    fs::remove_file(&broken).unwrap();
    refused(port, &["CNI plugin portmap is not in", "apt-get install"]);
    node.om_ok(&["cluster", "unset", "--kw", "cni.plugins"]);

    // Somebody listens on the port, then another service has it.
    let listener = TcpListener::bind("0.0.0.0:18000").unwrap();
    refused(port, &["port 18000/tcp of this node is taken by another program", "ss -lntp"]);
    drop(listener);
    let file = node.dir.path().join("other");
    let other =
        format!("[ip#1]\ntype = cni\nnetns = container#0\n{port}[container#0]\ntype = docker\nimage = google/pause\n");
    fs::write(&file, other).unwrap();
    node.om_ok(&["test/other", "create", "--config", &file.display().to_string(), "--provision"]);
    let (done, said) = create(port);
    assert!(!done && said.contains("port 18000/tcp of this node belongs to ip#1 of test/svc/other"), "{said}");
    purge(&node);
    node.om_ok(&["test/other", "purge"]);
    assert_eq!(Left::of(&node), before);

    // A claim that no pool can hold, and one that is full: only who writes notices.
    let huge = fs::read_to_string(&template).unwrap().replace("24m", "900t");
    fs::write(&file, huge).unwrap();
    let (done, said) = node.om(&["test/registry", "create", "--config", &file.display().to_string(), "--provision"]);
    assert!(!done && said.contains("no pool takes volume registry-data") && said.contains("om pool status"), "{said}");
    purge(&node);
    let (done, said) = create("");
    assert!(done, "{said}");
    let words = ["exec", "test..registry.container.1", "/bin/busybox", "dd", "if=/dev/zero"];
    let words = [&words[..], &["of=/var/lib/registry/a", "bs=1M", "count=64"]].concat();
    node.engine.client().try_run(&words).refused(&["no space left"]);
    assert!(is_up(&node), "{}", node.status());
    // What is in the volume does not keep it from being stopped, started and destroyed.
    node.om_ok(&["test/registry", "restart"]);
    purge(&node);
    assert_eq!(Left::of(&node), before);

    // A container of the same name that is not ours is left alone.
    node.docker(&["create", "--name", "test..registry.container.0", "google/pause"]);
    let (done, said) = create("");
    assert!(!done && said.contains("not of this object") && said.contains("docker rm"), "{said}");
    purge(&node);
    node.docker(&["rm", "test..registry.container.0"]);
    assert_eq!(Left::of(&node), before);
}

#[test]
fn docker_runs_what_should_run_after_a_boot() {
    if !is_inside() {
        return;
    }
    let (mut node, template, before) = prepared();
    node.om_ok(&["test/registry", "create", "--config", &template, "--provision"]);
    let write = ["exec", "test..registry.container.1", "/bin/busybox", "touch", "/var/lib/registry/kept"];
    node.docker(&write);

    // What a boot takes away: processes, what is mounted, interfaces, rules, and all in memory.
    node.daemon.kill().unwrap();
    node.daemon.wait().unwrap();
    node.engine.stop();
    let root = node.root().display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&root)) {
        must("umount", &[point]);
    }
    let loops = must("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    for device in loops.lines().filter(|line| line.contains(&root)).filter_map(|line| line.split(' ').next()) {
        must("losetup", &["--detach", device]);
    }
    fs::remove_dir_all(node.root().join("run")).unwrap();
    must("ip", &["link", "del", "obr_default"]);
    must("ip", &["address", "flush", "dev", "lo", "scope", "global"]);
    must("iptables", &["-t", "nat", "-F"]);
    must("iptables", &["-t", "nat", "-X"]);
    let boot = node.dir.path().join("boot_id");
    fs::write(&boot, "6f9619ff-8b86-4011-b42d-00c04fc964ff\n").unwrap();
    must("mount", &["--bind", &boot.display().to_string(), "/proc/sys/kernel/random/boot_id"]);

    // As service managers may have it: the daemon is there before the engine.
    node.begin_daemon();
    assert!(!is_up(&node), "{}", node.status());
    node.engine.start_again();
    until("it is up after the boot", || is_up(&node));
    assert_eq!((node.leases(), node.docker(&["ps", "--quiet"]).lines().count()), (1, 2), "{}", node.status());
    let look = ["exec", "test..registry.container.1", "/bin/busybox", "ls", "/var/lib/registry"];
    assert!(node.docker(&look).contains("kept"));
    purge(&node);
    assert_eq!(Left::of(&node), before);
}
