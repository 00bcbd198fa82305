//! Tables of texts, and what they come to: the page's template, inheritance, and each kind of mistake.

use super::*;
use crate::{
    config::resolve::tests::context,
    instance::{Container, MountSource, Namespace},
};

/// The template of the page.
const PAGE: &str = "[DEFAULT]\norchestrate = ha\nnodes = {clusternodes}\n\n[ip#1]\ntype = cni\nnetns = container#0\n\n\
                    [container#0]\ntype = docker\nimage = google/pause\n\n[container#1]\ntype = docker\nimage = registry\n\
                    volume_mounts = {svcname}-data/registry:/var/lib/registry\nnetns = container#0\n\n[volume#1]\n\
                    name = {svcname}-data\nsize = {env.size}\naccess = rwo\n\n[env]\nsize = 10g\n\n";

fn read(text: &str) -> Result<Checked, Vec<String>> {
    let shown = |all: Vec<Diagnostic>| all.iter().map(|d| d.shown("f").to_string()).collect::<Vec<_>>();
    let document = Document::parse(text).map_err(shown)?;
    instance(&document, &context()).map_err(shown)
}

fn resource<'a>(checked: &'a Checked, rid: &str) -> &'a Resource {
    &checked.instance.resources[&rid.parse::<Rid>().expect("a resource id")]
}

fn container<'a>(checked: &'a Checked, rid: &str) -> &'a Container {
    let ResourceKind::Container(container) = &resource(checked, rid).kind else { panic!("{rid} is no container") };
    container
}

#[test]
fn the_template_of_the_page_is_understood() {
    let checked = read(PAGE).expect("it is right");
    let InstanceConfig { orchestrate, nodes, resources, .. } = &checked.instance;
    assert_eq!(*orchestrate, Orchestrate::Ha);
    assert_eq!(nodes.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["n1", "n2"]);
    let rids: Vec<String> = resources.keys().map(ToString::to_string).collect();
    assert_eq!(rids, ["container#0", "container#1", "ip#1", "sync#i0", "volume#1"]);
    let zero = "container#0".parse::<Rid>().expect("a resource id");
    assert_eq!(container(&checked, "container#0").name, "test..registry.container.0");
    assert_eq!(container(&checked, "container#0").netns, Namespace::None);
    let one = container(&checked, "container#1");
    assert_eq!(one.netns, Namespace::Of(zero.clone()));
    let volume = "volume#1".parse().expect("a resource id");
    assert_eq!(one.mounts[0].source, MountSource::Volume { rid: volume, path: "registry".into() });
    assert_eq!(one.mounts[0].destination, "/var/lib/registry");
    let ResourceKind::Cni(ip) = &resource(&checked, "ip#1").kind else { panic!("an address") };
    assert_eq!((&*ip.network, &*ip.ipdev, &ip.netns), ("default", "eth12", &Some(zero)));
    let ResourceKind::Volume(claim) = &resource(&checked, "volume#1").kind else { panic!("a volume") };
    assert_eq!((claim.name.as_str(), claim.size, claim.access), ("registry-data", Some(10 << 30), Access::Rwo));
    assert_eq!(checked.warnings, []);
}

#[test]
fn defaults_are_inherited() {
    let text = "[DEFAULT]\nregistry_creds = creds\nrestart = 2\nstart_timeout = 1m\n[container#1]\nimage = x\nrestart = 3\n\
                run_args = --cap-drop ALL\ncommand = a 'b c'\n[container#2]\nimage = y\ntype = oci\n";
    let checked = read(text).expect("it is right");
    assert_eq!((resource(&checked, "container#1").restart, resource(&checked, "container#2").restart), (3, 2));
    assert_eq!(resource(&checked, "container#1").start_timeout.as_secs(), 60);
    let creds = container(&checked, "container#2").registry_creds.as_ref().map(ToString::to_string);
    assert_eq!(creds.as_deref(), Some("creds"));
    assert_eq!(container(&checked, "container#1").command, Some(vec!["a".into(), "b c".into()]));
}

#[test]
fn every_mistake_is_named_with_its_cure() {
    let check = |text: &str, expected: &[&str]| {
        let got = read(text).expect_err("it is wrong");
        assert_eq!(got.len(), expected.len(), "{got:#?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.starts_with(expected), "{got}\nis not\n{expected}");
        }
    };
    check(
        "[container#0]\nimgae = x\n",
        &[
            "f:1:1: error: [container#0] needs `image` (hint: such as image = registry:2)",
            "f:2:1: error: [container#0] takes no `imgae` (hint: did you mean `image`?)",
        ],
    );
    check(
        "[contaner#0]\nimage = x\n",
        &["f:1:1: error: [contaner#0] is no group of resources that is known here (hint: did you mean [container"],
    );
    check("[container]\nimage = x\n", &["f:1:1: error: [container] is no resource id (hint: write [container#1])"]);
    check(
        "[DEFAULT]\norchestrate = hy\nnodes = n1 n3\nrollback = perhaps\n",
        &[
            "f:2:15: error: `hy` is no orchestrate (hint: did you mean ha?)",
            "f:3:9: error: `n3` is no node of the cluster (hint: did you mean n",
            "f:4:12: error: `rollback`: `perhaps` is neither true nor false",
        ],
    );
    check(
        &PAGE.replace("size = 10g", "size = 10x").replace("access = rwo", "access = rw"),
        &["f:21:8: error: `size`: `10x` is no size", "f:22:10: error: `rw` is no access (hint: did you mean rwo"],
    );
    check(
        &PAGE.replace("{svcname}-data/registry:", "{svcname}-dat/registry:"),
        &[
            "f:16:17: error: `volume_mounts`: the object has no volume `registry-dat` (hint: did you mean registry-data?)",
        ],
    );
    check(
        &PAGE.replace("netns = container#0", "netns = container#7"),
        &[
            "f:7:9: error: `netns`: `container#7` is no container of this object (hint: it has container#0, container#1)",
            "f:17:9: error: `netns`: `container#7` is no container",
        ],
    );
    check(
        "[container#0]\nimage = x\nrun_args = --net host\n",
        &["f:3:12: error: `run_args`: --net is what a keyword is for (hint: set `netns`)"],
    );
    check(
        "[container#0]\nimage = x\nnetns = container#1\n[container#1]\nimage = x\nnetns = container#0\n",
        &["f:1:1: error: the network namespaces of container#0 lead in a circle", "f:4:1: error: the network"],
    );
    check("[fs#1]\npath = ../x\n", &["f:2:8: error: `path`: `../x` is no absolute path"]);
    check("[fs#1]\ntype = zfs\n", &["f:2:8: error: `zfs` is no type of fs (hint: types of fs are directory, flag)"]);
    check("[app#1]\nstart = sleep 1\n", &["f:2:9: error: `start` begins with no absolute path"]);
    check(
        "[container#0]\nimage = x\nvolume_mounts = /a:/x /b:/x:wo c\nsecrets = a:/x\nsecrets_environment = A=b\n",
        &[
            "f:3:17: error: `volume_mounts`: `c` has no absolute destination",
            "f:3:17: error: `volume_mounts`: `wo` is no option",
            "f:3:17: error: `volume_mounts`: two mounts on /x",
            "f:4:11: error: `secrets`: `a:/x` is no NAME/KEY:PATH",
            "f:5:23: error: `secrets_environment`: `A=b` is no VARIABLE=NAME/KEY",
        ],
    );
}

#[test]
fn what_others_may_know_is_kept_and_said() {
    let text = format!("[DEFAULT]\nmonitor_action = reboot\nsubset = x\n{}", PAGE.trim_start_matches("[DEFAULT]\n"));
    let warnings = read(&text).expect("it is right").warnings;
    let shown: Vec<String> = warnings.iter().map(|d| d.shown("f").to_string()).collect();
    assert_eq!(
        shown,
        [
            "f:2:1: warning: `monitor_action` has no effect in [DEFAULT] (hint: `om kw DEFAULT` lists what it takes)",
            "f:3:1: warning: `subset` has no effect in [DEFAULT] (hint: it belongs to *)",
        ]
    );
}

#[test]
fn a_volume_object_says_what_it_was_made_with() {
    let text = "[DEFAULT]\npool = default\nsize = 10g\naccess = rwo\nchildren = test/svc/registry\n[fs#1]\ntype = flag\n\
                [fs#2]\npath = /var/x\n";
    let document = Document::parse(text).expect("a text");
    let mut context = context();
    context.path = "test/vol/registry-data".parse().expect("a path");
    let volume = instance(&document, &context).expect("it is right").instance.volume.expect("a volume");
    assert_eq!((&*volume.pool, volume.size, volume.children.len()), ("default", 10 << 30, 1));
}
