//! What is found in the zone of clusters that are seen in some state.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    aggregate,
    config::{Document, resolve::Context, schema},
    kv::Rev,
    status::ResourceStatus,
    view::{At, Local, Monitor, NodeView, ObjectView, Report, Session, Want},
};

const TEXT: &str = "[DEFAULT]\norchestrate = ha\nnodes = a b\n\n[ip#1]\ntype = cni\nnetns = container#0\n\
    expose = 5000/tcp 80/tcp\n\n[container#0]\ntype = docker\nimage = google/pause\n";

/// A cluster of the nodes a and b. Words: `a=10.22.0.2` (up there with that address), `a:10.22.0.3` (the address is up
/// and the container is not), `b-` (the node is dead), `root` (the service is of the namespace root).
fn view(words: &str) -> View {
    let words: Vec<&str> = words.split_whitespace().collect();
    let path: ObjectPath = if words.contains(&"root") { "registry" } else { "test/registry" }.parse().expect("a path");
    let nodes: Vec<NodeName> = ["a", "b"].map(|node| node.parse().expect("a node")).to_vec();
    let context = Context {
        path: path.clone(),
        node: nodes[0].clone(),
        cluster: "homepool2".into(),
        cluster_id: "id".into(),
        cluster_nodes: nodes.clone(),
        dns: Vec::new(),
        labels: BTreeMap::new(),
    };
    let checked = schema::instance(&Document::parse(TEXT).expect("a configuration"), &context);
    let config = checked.unwrap_or_else(|wrong| panic!("{wrong:?}")).instance;
    let report = |address: &str, whole: bool| {
        let mut ip = ResourceStatus::new(Status::Up, "");
        ip.info.insert("ipaddr".into(), address.into());
        let container = ResourceStatus::new(if whole { Status::Up } else { Status::Down }, "");
        let resources = BTreeMap::from([
            ("ip#1".parse().expect("a resource"), ip),
            ("container#0".parse().expect("a resource"), container),
        ]);
        Report {
            generation: 1,
            summary: aggregate::instance(&config, &resources),
            resources,
            restarts: BTreeMap::new(),
            monitor: Monitor::Idle,
            expected: true,
            boot: "1".into(),
            done: None,
            updated: 0,
        }
    };
    let mut reports = BTreeMap::new();
    for word in &words {
        for (separator, whole) in [('=', true), (':', false)] {
            if let Some((node, address)) = word.split_once(separator).filter(|(node, _)| node.len() == 1) {
                reports.insert(node.parse().expect("a node"), report(address, whole));
            }
        }
    }
    let session = |node: &NodeName| {
        let live = !words.contains(&&*format!("{node}-"));
        let session =
            Session { epoch: 1, boot: "1".into(), seq: 1, live, takeover: Duration::from_secs(20), frozen: None };
        (node.clone(), NodeView { session: At { value: session, rev: Rev(5) }, age: Duration::ZERO })
    };
    let object = ObjectView {
        generation: 1,
        config: Some(Arc::new(config.clone())),
        want: At { value: Want::default(), rev: Rev(1) },
        owner: None,
        reports,
        local: Local::default(),
    };
    View {
        me: nodes[0].clone(),
        members: nodes.clone(),
        now: Duration::from_secs(100),
        wall: 0,
        renewed: Some(Duration::ZERO),
        soft_stop: Duration::from_secs(10),
        nodes: nodes.iter().map(session).collect(),
        objects: BTreeMap::from([(path, object)]),
    }
}

fn zone(words: &str) -> Zone {
    let ground = Ground {
        cluster: "homepool2".into(),
        servers: vec!["169.254.53.53".parse().expect("an address")],
        networks: vec!["10.22.0.0/16".parse().expect("a network")],
        services: BTreeMap::from([((80, "tcp".into()), "http".into())]),
    };
    Zone::of(&view(words), &ground, 7)
}

#[test]
fn what_is_up_has_names() {
    let check = |words: &str, name: &str, expected: &str| {
        let zone = zone(words);
        let found = match zone.find(name) {
            Found::Elsewhere => "elsewhere".to_owned(),
            Found::Nothing => "nothing".to_owned(),
            Found::Records(records) => {
                let shown: Vec<String> =
                    records.iter().map(|data| format!("{} {}", data.kind(), data.text())).collect();
                shown.join(", ")
            }
        };
        assert_eq!(found, expected, "{words}: {name}");
    };
    let name = "registry.test.svc.homepool2";
    check("a=10.22.0.2", name, "A 10.22.0.2");
    check("a=10.22.0.2 b=10.22.4.2", name, "A 10.22.0.2, A 10.22.4.2");
    check("a=fd00::2", name, "AAAA fd00::2");
    // Neither an instance that is up in part, nor one of a dead node.
    check("a:10.22.0.2", name, "nothing");
    check("a=10.22.0.2 b=10.22.4.2 b-", name, "A 10.22.0.2");
    check("", name, "nothing");

    check("root a=10.22.0.2", "registry.root.svc.homepool2", "A 10.22.0.2");
    check("a=10.22.0.2 b=10.22.4.2", "registry.test.svc.b.node.homepool2", "A 10.22.4.2");
    check("a=10.22.0.2", "registry.test.svc.b.node.homepool2", "nothing");
    check("a=10.22.0.2", "10-22-0-2.registry.test.svc.homepool2", "A 10.22.0.2");
    check("a=fd00::2", "fd00--2.registry.test.svc.homepool2", "AAAA fd00::2");
    check(
        "a=10.22.0.2",
        "_5000._tcp.registry.test.svc.homepool2",
        "SRV 0 100 5000 10-22-0-2.registry.test.svc.homepool2.",
    );
    check(
        "a=10.22.0.2",
        "_http._tcp.registry.test.svc.homepool2",
        "SRV 0 100 80 10-22-0-2.registry.test.svc.homepool2.",
    );
    check("a=10.22.0.2", "_80._tcp.registry.test.svc.homepool2", "SRV 0 100 80 10-22-0-2.registry.test.svc.homepool2.");
    check("a=10.22.0.2", "2.0.22.10.in-addr.arpa", "PTR registry.test.svc.homepool2.");
    check("a=10.22.0.2", "3.0.22.10.in-addr.arpa", "nothing");
    check("a=10.99.0.2", "2.0.99.10.in-addr.arpa", "PTR registry.test.svc.homepool2.");
    check("a=10.22.0.2", "2.0.99.10.in-addr.arpa", "elsewhere");

    check("", "homepool2", "SOA ns1.homepool2. hostmaster.homepool2. 7 7200 3600 432000 5, NS ns1.homepool2.");
    check("", "ns1.homepool2", "A 169.254.53.53");
    // Names between others exist.
    check("a=10.22.0.2", "test.svc.homepool2", "");
    check("a=10.22.0.2", "svc.homepool2", "");
    check("", "svc.homepool2", "nothing");
    check("a=10.22.0.2", "example.org", "elsewhere");
    check("a=10.22.0.2", "nothomepool2", "elsewhere");
    check("a=10.22.0.2", "", "elsewhere");
}

#[test]
fn addresses_are_answered_for_by_whole_blocks() {
    let check = |network: &str, expected: &[&str], count: usize| {
        let ends = ends(network.parse().expect("a network"));
        assert_eq!(ends.len(), count, "{network}");
        assert!(ends.iter().take(expected.len()).eq(expected), "{network}: {ends:?}");
    };
    check("10.0.0.0/8", &["10.in-addr.arpa"], 1);
    check("10.22.0.0/16", &["22.10.in-addr.arpa"], 1);
    check("172.16.0.0/12", &["16.172.in-addr.arpa", "17.172.in-addr.arpa"], 16);
    check("192.168.32.0/20", &["32.168.192.in-addr.arpa", "33.168.192.in-addr.arpa"], 16);
    check("192.168.1.0/24", &["1.168.192.in-addr.arpa"], 1);
    check("192.168.1.0/25", &[], 0);
    check("128.0.0.0/9", &["0.128.in-addr.arpa"], 128);
}

#[test]
fn an_address_is_looked_up_backwards() {
    let check = |address: &str, expected: &str| {
        assert_eq!(reversed(address.parse().expect("an address")), expected);
    };
    check("10.22.0.2", "2.0.22.10.in-addr.arpa");
    check("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

#[test]
fn zones_differ_by_what_they_answer() {
    let same = |one: &str, other: &str| zone(one).same(&zone(other));
    assert!(same("a=10.22.0.2", "a=10.22.0.2"));
    assert!(same("a=10.22.0.2", "a=10.22.0.2 b:10.22.4.2"));
    assert!(!same("a=10.22.0.2", "a=10.22.0.3"));
    let mut renumbered = zone("");
    renumbered.names.clear();
    renumbered.put("homepool2", Data::Authority { server: "x".into(), contact: "y".into(), serial: 9 });
    assert!(!zone("").same(&renumbered));
}
