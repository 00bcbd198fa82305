//! Orders of the page's service, and properties of plans.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::instance::{Access, CniIp, Container, Mount, Orchestrate, Placement, PullPolicy, VolumeClaim};

/// Resources such as `container#1@container#0`: one in the network of another. Containers mount `volume#1`.
pub(crate) fn config(text: &str) -> InstanceConfig {
    let resources = text.split_whitespace().map(|word| {
        let (rid, owner) = word.split_once('@').map_or((word, None), |(rid, owner)| (rid, Some(owner)));
        let rid: Rid = rid.parse().expect("a resource id");
        let owner: Option<Rid> = owner.map(|owner| owner.parse().expect("a resource id"));
        let kind = match rid.group() {
            "ip" => ResourceKind::Cni(CniIp {
                network: "default".into(),
                netns: owner,
                ipdev: "eth12".into(),
                expose: Vec::new(),
            }),
            "volume" => ResourceKind::Volume(claim()),
            "container" => ResourceKind::Container(Box::new(container(owner, text.contains("volume#1")))),
            "sync" => ResourceKind::Sync,
            _ => ResourceKind::Flag,
        };
        let resource = Resource {
            rid: rid.clone(),
            disable: false,
            optional: rid.group() == "sync",
            standby: false,
            shared: false,
            monitor: false,
            restart: 0,
            restart_delay: Duration::ZERO,
            provision: true,
            unprovision: true,
            subset: None,
            tags: Vec::new(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            kind,
        };
        (rid, resource)
    });
    InstanceConfig {
        path: "test/svc/web".parse().expect("a path"),
        id: "1".into(),
        nodes: ["a", "b"].map(|node| node.parse().expect("a node")).to_vec(),
        orchestrate: Orchestrate::Ha,
        placement: Placement::NodesOrder,
        rollback: true,
        disable: false,
        priority: 100,
        volume: None,
        resources: resources.collect(),
    }
}

fn claim() -> VolumeClaim {
    VolumeClaim {
        name: "data".parse().expect("a name"),
        size: Some(1),
        access: Access::Rwo,
        pool: None,
        pool_type: None,
        format: true,
        shared: false,
        directories: Vec::new(),
        user: None,
        group: None,
        perm: None,
        dirperm: None,
        configs: Vec::new(),
        secrets: Vec::new(),
    }
}

fn container(owner: Option<Rid>, mounts: bool) -> Container {
    let source = MountSource::Volume { rid: "volume#1".parse().expect("a resource id"), path: String::new() };
    let mount = Mount { source, destination: "/data".into(), read_only: false, options: Vec::new() };
    Container {
        name: "c".into(),
        image: "i".into(),
        pull_policy: PullPolicy::Once,
        pull_timeout: Duration::from_secs(60),
        command: None,
        entrypoint: None,
        run_args: Vec::new(),
        detach: true,
        rm: false,
        netns: owner.map_or(Namespace::Default, Namespace::Of),
        pidns: Namespace::Default,
        ipcns: Namespace::Default,
        utsns: Namespace::Default,
        hostname: None,
        user: None,
        cwd: None,
        privileged: false,
        interactive: false,
        tty: false,
        read_only: false,
        init: false,
        mounts: mounts.then_some(mount).into_iter().collect(),
        devices: Vec::new(),
        environment: Vec::new(),
        secrets_environment: Vec::new(),
        configs_environment: Vec::new(),
        secrets: Vec::new(),
        configs: Vec::new(),
        registry_creds: None,
        tls: None,
    }
}

/// All resources down and not made, but those named.
pub(crate) fn seen(config: &InstanceConfig, up: &str) -> Seen {
    let up: Vec<&str> = up.split_whitespace().collect();
    let status = |rid: &Rid| {
        let is_up = up.contains(&"*") || up.contains(&rid.to_string().as_str());
        let mut status = ResourceStatus::new(if is_up { Status::Up } else { Status::Down }, "");
        let makes = rid.group() == "volume";
        status.provisioned = match (makes, is_up) {
            (false, _) => Provisioned::NotApplicable,
            (true, true) => Provisioned::Yes,
            (true, false) => Provisioned::No,
        };
        status
    };
    config.resources.keys().map(|rid| (rid.clone(), status(rid))).collect()
}

const PAGE: &str = "ip#1@container#0 volume#1 container#0 container#1@container#0";

fn check(resources: &str, work: Work, only: &str, up: &str, expected: &str) {
    let config = config(resources);
    let mut job = Job::new(work);
    job.only = only.split_whitespace().map(|rid| rid.parse().expect("a resource id")).collect();
    let steps: Vec<String> = steps(&config, &job, &seen(&config, up)).iter().map(ToString::to_string).collect();
    assert_eq!(steps.join(", "), expected, "{work:?} {only} of {resources} with {up}");
}

#[test]
fn the_page_in_order() {
    let all = "start volume#1, start container#0, start ip#1, start container#1";
    check(PAGE, Work::Start, "", "", all);
    check(PAGE, Work::Start, "", "*", "");
    check(PAGE, Work::Provision, "", "", &format!("provision volume#1, {all}"));
    check(PAGE, Work::Provision, "", "*", "");
    let down = "stop container#1, stop ip#1, stop container#0, stop volume#1";
    check(PAGE, Work::Stop, "", "*", down);
    check(PAGE, Work::Stop, "", "", "");
    check(PAGE, Work::Restart, "", "*", &format!("{down}, {all}"));
    let destroy = "unprovision container#1, unprovision ip#1, unprovision container#0, unprovision volume#1";
    check(PAGE, Work::Unprovision, "", "*", &format!("{down}, {destroy}"));
}

#[test]
fn what_lives_in_a_namespace_goes_with_it() {
    let anew = "stop container#1, stop ip#1, start container#0, start ip#1, start container#1";
    check(PAGE, Work::Start, "", "ip#1 volume#1 container#1", anew);
    check(PAGE, Work::Repair, "container#0", "ip#1 volume#1 container#1", anew);
    check(PAGE, Work::Repair, "container#1", "ip#1 volume#1 container#0", "start container#1");
    check(PAGE, Work::Stop, "container#1", "*", "stop container#1");
}

#[test]
fn references_come_before_numbers() {
    check("container#0@container#2 container#2", Work::Start, "", "", "start container#2, start container#0");
    check("container#10 container#9", Work::Start, "", "", "start container#9, start container#10");
    check("sync#i0 fs#1 ip#2 container#1", Work::Stop, "", "*", "stop container#1, stop fs#1, stop ip#2");
}

fn words() -> impl Strategy<Value = (String, String)> {
    let resource = prop_oneof![
        (0..4_u8).prop_map(|n| format!("container#{n}")),
        (1..4_u8, 0..1_u8).prop_map(|(n, to)| format!("container#{n}@container#{to}")),
        (0..4_u8, 0..4_u8).prop_map(|(n, to)| format!("ip#{n}@container#{to}")),
        (1..2_u8).prop_map(|n| format!("volume#{n}")),
        (0..3_u8).prop_map(|n| format!("fs#{n}")),
    ];
    (proptest::collection::vec(resource, 1..8), proptest::collection::vec("(container|ip|volume|fs)#[0-3]", 0..8))
        .prop_map(|(resources, up)| (resources.join(" "), up.join(" ")))
}

proptest! {
    #[test]
    fn every_resource_has_one_place((resources, _) in words()) {
        let config = config(&resources);
        let mut order = start_order(&config);
        order.sort();
        let all: Vec<Rid> = config.resources.keys().cloned().collect();
        prop_assert_eq!(order, all);
    }

    #[test]
    fn a_plan_leads_where_it_should((resources, up) in words()) {
        let config = config(&resources);
        let mut now = seen(&config, &up);
        for (work, expected) in [(Work::Start, Status::Up), (Work::Stop, Status::Down)] {
            for step in steps(&config, &Job::new(work), &now) {
                let status = if step.verb == Verb::Start { Status::Up } else { Status::Down };
                now.get_mut(&step.rid).expect("a resource of it").status = status;
            }
            prop_assert!(now.values().all(|seen| seen.status == expected));
            prop_assert_eq!(steps(&config, &Job::new(work), &now), vec![]);
        }
    }

    #[test]
    fn undo_takes_back_what_was_started((resources, up) in words()) {
        let config = config(&resources);
        let done = steps(&config, &Job::new(Work::Start), &seen(&config, &up));
        let back: Vec<Rid> = undo(&config, &done).into_iter().map(|step| step.rid).collect();
        let mut started: Vec<Rid> = done.into_iter().filter(|s| s.verb == Verb::Start).map(|s| s.rid).collect();
        started.reverse();
        prop_assert_eq!(back, started);
    }
}
