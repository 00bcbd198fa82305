//! Real plugins, in network and mount namespaces of the test's own.

use std::{fs, path::Path, process::Command};

use om_core::network::{Network, Subnet};
use om_drivers::cni::{Attachment, Cni};

/// Says that the test runs in namespaces of its own.
const INSIDE: &str = "OM_TEST_INSIDE";

/// Runs the test named `test` once more in new network and mount namespaces, where `/run` is its own. True there.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
    false
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn attachment(container: &str) -> Attachment {
    run("ip", &["netns", "add", container]);
    named(container)
}

fn named(container: &str) -> Attachment {
    Attachment {
        container: container.into(),
        netns: format!("/run/netns/{container}"),
        device: "eth12".into(),
        network: "default".into(),
        owner: format!("ip#1 of {container}"),
    }
}

fn files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir.join("networks/default")) else { return 0 };
    entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count()
}

fn network() -> (Network, Subnet) {
    let network = Network::implied(1);
    let part = network.part(&[], &"n".parse().unwrap()).unwrap();
    (network, part)
}

#[tokio::test]
async fn an_address_is_given_once_and_given_back() {
    if !is_inside("an_address_is_given_once_and_given_back") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cni = Cni::new(dir.path().to_owned());
    let (network, part) = network();
    let one = attachment("one");
    assert_eq!(cni.check(&one).await.unwrap(), None);
    let given = cni.add(&one, &network, part, &[]).await.unwrap();
    assert_eq!((given.address.to_string().as_str(), given.prefix), ("10.22.0.2", 16));
    let shown = run("ip", &["-n", "one", "-4", "addr", "show", "eth12"]);
    assert!(shown.contains("10.22.0.2/16"), "{shown}");
    assert!(run("ip", &["-n", "one", "route"]).contains("default via 10.22.0.1"));
    assert!(run("ip", &["route", "get", "10.22.0.2"]).contains("dev obr_default"));

    assert_eq!(cni.add(&one, &network, part, &[]).await.unwrap(), given, "it is there already");
    assert_eq!(cni.check(&one).await.unwrap(), Some(given.clone()));
    let two = cni.add(&attachment("two"), &network, part, &[]).await.unwrap();
    assert_ne!(two, given);
    assert_eq!(files(dir.path()), 2);

    cni.del(&one).await.unwrap();
    cni.del(&one).await.unwrap();
    assert_eq!(cni.check(&one).await.unwrap(), None);
    assert_eq!(files(dir.path()), 1);
}

#[tokio::test]
async fn a_port_of_the_host_is_looked_after() {
    if !is_inside("a_port_of_the_host_is_looked_after") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cni = Cni::new(dir.path().to_owned());
    let (network, part) = network();
    let one = attachment("one");
    let expose = om_core::instance::Expose { port: 80, protocol: "tcp".into(), host_port: Some(8080) };
    let given = cni.add(&one, &network, part, &[expose]).await.unwrap();
    assert_eq!(cni.check(&one).await.unwrap(), Some(given));
    let rules = run("iptables", &["-t", "nat", "-S"]);
    let chain = rules.lines().find_map(|line| line.strip_prefix("-N CNI-DN-")).expect("a chain of the port");
    run("iptables", &["-t", "nat", "-F", &format!("CNI-DN-{chain}")]);
    assert_eq!(cni.check(&one).await.unwrap(), None, "somebody took the rules away");
    cni.del(&one).await.unwrap();
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn what_the_dead_had_is_given_back() {
    if !is_inside("what_the_dead_had_is_given_back") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cni = Cni::new(dir.path().to_owned());
    let (network, part) = network();
    for name in ["one", "two", "three"] {
        cni.add(&attachment(name), &network, part, &[]).await.unwrap();
    }
    run("ip", &["netns", "del", "two"]);
    cni.bury(&named("two")).await.unwrap();
    // This one lives.
    cni.bury(&named("three")).await.unwrap();
    assert_eq!(files(dir.path()), 2);
    cni.del(&named("three")).await.unwrap();
    assert_eq!(files(dir.path()), 1);
    // Rules that lead to nobody would keep their chains for ever.
    let rules = run("iptables", &["-t", "nat", "-S"]);
    assert_eq!(rules.lines().filter(|line| line.starts_with("-N CNI-")).count(), 1, "{rules}");

    // Called otherwise, it is the same address's: the former one is given back.
    let renamed = Attachment { device: "eth0".into(), ..named("one") };
    cni.add(&renamed, &network, part, &[]).await.unwrap();
    assert!(!run("ip", &["-n", "one", "link"]).contains("eth12"));
    assert_eq!(files(dir.path()), 1);
    cni.add(&named("one"), &network, part, &[]).await.unwrap();
    assert_eq!(files(dir.path()), 1);

    // Somebody took the interface away.
    run("ip", &["-n", "one", "link", "del", "eth12"]);
    cni.del(&Attachment { netns: "/run/netns/one".into(), ..named("one") }).await.unwrap();
    let rules = run("iptables", &["-t", "nat", "-S"]);
    assert!(!rules.contains("CNI-"), "{rules}");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn an_address_is_buried_only_with_its_namespace() {
    if !is_inside("an_address_is_buried_only_with_its_namespace") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cni = Cni::new(dir.path().to_owned());
    let (network, part) = network();
    cni.add(&attachment("one"), &network, part, &[]).await.unwrap();
    cni.bury(&named("one")).await.unwrap();
    assert_eq!(files(dir.path()), 1);
    run("ip", &["netns", "del", "one"]);
    cni.bury(&named("one")).await.unwrap();
    cni.bury(&named("one")).await.unwrap();
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn what_cannot_be_given_leaves_nothing_behind() {
    if !is_inside("what_cannot_be_given_leaves_nothing_behind") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let one = attachment("one");
    let (network, part) = network();
    let check = async |cni: &Cni, attachment: &Attachment, expected: &str, hint: bool| {
        let error = cni.add(attachment, &network, part, &[]).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.hint().is_some(), hint, "{error}");
    };
    let nowhere = Cni::new(dir.path().join("a")).with(Some("/nonexistent".as_ref()));
    check(&nowhere, &one, "CNI plugin bridge is not in /nonexistent", true).await;

    // The first plugin of a list works, the second fails half-way.
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for name in ["bridge", "host-local"] {
        std::os::unix::fs::symlink(format!("/usr/lib/cni/{name}"), plugins.join(name)).unwrap();
    }
    let broken = plugins.join("portmap");
    fs::write(&broken, "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\necho '{\"code\": 7, \"msg\": \"no room\", \"details\": \"at all\"}'\nexit 1\n").unwrap();
    run("chmod", &["+x", broken.to_str().unwrap()]);
    let cni = Cni::new(dir.path().join("b")).with(Some(&plugins));
    let expose = om_core::instance::Expose { port: 80, protocol: "tcp".into(), host_port: Some(8080) };
    let error = cni.add(&one, &network, part, &[expose]).await.unwrap_err();
    assert!(error.to_string().contains("portmap ADD for one in network default: no room: at all"), "{error}");
    assert_eq!(files(&dir.path().join("b")), 0, "the address was given back");
    assert!(!run("ip", &["-n", "one", "link"]).contains("eth12"));

    let small = Network { name: "small".into(), subnet: "10.44.0.0/30".parse().unwrap(), ..network.clone() };
    let of_small = |attachment: Attachment| Attachment { network: "small".into(), ..attachment };
    let one = of_small(one);
    let cni = Cni::new(dir.path().join("c"));
    cni.add(&one, &small, small.subnet, &[]).await.unwrap();
    let error = cni.add(&of_small(attachment("two")), &small, small.subnet, &[]).await.unwrap_err();
    assert!(error.to_string().contains("no IP addresses available"), "{error}");
    assert!(error.hint().unwrap().contains("om net status"));
    let book = dir.path().join("c/networks/small");
    let taken = fs::read_dir(book).unwrap().filter_map(Result::ok);
    assert_eq!(taken.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count(), 1);
}
