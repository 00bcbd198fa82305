//! Owns the status tree of an object: its rows, their order, the flags and notices. Does not own the geometry.

use super::{
    text::{Colour, Text},
    tree::{self, Node},
};
use crate::api::{InstanceStatus, NodeStatus, ObjectStatus, ResourceStatus, Snapshot};

/// Groups of resources in the order they are shown; others follow by name.
const GROUPS: [&str; 9] = ["ip", "volume", "disk", "fs", "share", "container", "app", "sync", "task"];

/// What is shown of an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The name on the first line; none: the path as it is written short.
    pub heading: Option<&'a str>,
    /// The node whose resources are shown; none: the one that answered.
    pub node: Option<&'a str>,
    /// Leaves disabled resources out.
    pub hide_disabled: bool,
    /// Columns of the terminal; none: nothing is broken.
    pub width: Option<usize>,
}

/// The tree of one object of the snapshot.
pub fn lines(snapshot: &Snapshot, path: &str, object: &ObjectStatus, view: View<'_>) -> Vec<Text> {
    let heading = view.heading.unwrap_or(path);
    let mut root = Node::row(Text::new(heading, Colour::Bold), "", &object.avail, notices(object));
    for problem in &object.problems {
        let place = if problem.line > 0 { format!("line {}: ", problem.line) } else { String::new() };
        root.lines.push(Text::new(
            format!("{}: {place}{}", problem.severity, problem.message),
            Colour::of_severity(&problem.severity),
        ));
    }
    let mut instances = Node::new("instances");
    let shown = view.node.unwrap_or(&snapshot.node);
    for (node, instance) in object.instances.iter().filter(|(node, _)| *node != shown) {
        instances.children.push(instance_row(node, instance, snapshot.nodes.get(node), object));
    }
    if let Some(instance) = object.instances.get(shown) {
        let mut row = instance_row(shown, instance, snapshot.nodes.get(shown), object);
        row.children = resources(instance, view.hide_disabled);
        instances.children.push(row);
    }
    if !instances.children.is_empty() {
        root.children.push(instances);
    }
    tree::lines(&root, view.width)
}

fn notices(object: &ObjectStatus) -> Text {
    let mut notices = Notices::default();
    if object.overall == "warn" {
        notices.add("warn", Colour::Yellow);
    }
    if !matches!(object.placement.as_str(), "" | "optimal" | "n/a") {
        notices.add(&format!("{} placement", object.placement), Colour::Red);
    }
    notices.0
}

fn instance_row(name: &str, instance: &InstanceStatus, node: Option<&NodeStatus>, object: &ObjectStatus) -> Node {
    let mut notices = Notices::default();
    if instance.overall == "warn" {
        notices.add("warn", Colour::Yellow);
    }
    if instance.frozen.is_some() {
        notices.add("frozen", Colour::Blue);
    }
    if node.is_some_and(|node| node.frozen.is_some()) {
        notices.add("node frozen", Colour::Blue);
    }
    match instance.provisioned.as_str() {
        "no" => notices.add("not provisioned", Colour::Red),
        "mixed" => notices.add("part-provisioned", Colour::Red),
        _ => {}
    }
    if !matches!(object.priority, 0 | 100) {
        notices.add(&format!("p{}", object.priority), Colour::Grey);
    }
    if node.is_some_and(|node| !node.alive) {
        notices.add("daemon down", Colour::Red);
    } else {
        let colour = if instance.monitor == "idle" { Colour::Grey } else { Colour::Red };
        notices.add(&instance.monitor, colour);
        if let Some(expect) = &instance.local_expect {
            notices.add(expect, Colour::Grey);
        }
        if let Some(expect) = &instance.global_expect {
            notices.add(&format!(">{expect}"), Colour::Grey);
        }
    }
    let mut row = Node::row(Text::new(name, Colour::Bold), "", &instance.avail, notices.0);
    if let Some(progress) = &instance.progress {
        row.lines.push(Text::new(progress, Colour::Grey));
    }
    if let Some(failure) = &instance.error {
        row.lines.push(Text::new(format!("error: {}", failure.message), Colour::Red));
        row.lines.extend(failure.hint.iter().map(|hint| Text::plain(format!("hint: {hint}"))));
    }
    row
}

#[derive(Default)]
struct Notices(Text);

impl Notices {
    fn add(&mut self, text: &str, colour: Colour) {
        if text.is_empty() {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(", ", Colour::Plain);
        }
        self.0.push(text, colour);
    }
}

/// Where a resource is in the tree: by group, then those without a subset, then by subset.
fn place(rid: &str) -> (usize, &str) {
    let group = rid.split('#').next().unwrap_or(rid);
    (GROUPS.iter().position(|known| *known == group).unwrap_or(GROUPS.len()), group)
}

/// A number at the end counts as a number: `container#10` is after `container#9`.
fn index(rid: &str) -> (u64, &str) {
    let index = rid.split_once('#').map_or("", |(_, index)| index);
    (index.parse().unwrap_or(u64::MAX), index)
}

fn resources(instance: &InstanceStatus, hide_disabled: bool) -> Vec<Node> {
    let mut sorted: Vec<(&String, &ResourceStatus)> =
        instance.resources.iter().filter(|(_, resource)| !(hide_disabled && resource.disable)).collect();
    sorted.sort_by_key(|(rid, resource)| (place(rid), resource.subset.as_deref(), index(rid)));
    let mut rows: Vec<Node> = Vec::new();
    let mut current: Option<(String, usize)> = None;
    for (rid, resource) in sorted {
        let row = resource_row(rid, resource);
        let Some(subset) = &resource.subset else {
            rows.push(row);
            continue;
        };
        let name = format!("{}:{subset}", place(rid).1);
        match &current {
            Some((same, at)) if *same == name => rows[*at].children.push(row),
            _ => {
                let mut parent = Node::new(&name);
                parent.children.push(row);
                current = Some((name, rows.len()));
                rows.push(parent);
            }
        }
    }
    rows
}

fn resource_row(rid: &str, resource: &ResourceStatus) -> Node {
    let mut row = Node::row(Text::plain(rid), &flags(resource), &resource.status, Text::plain(&resource.label));
    row.lines = resource
        .log
        .iter()
        .map(|line| Text::new(format!("{}: {}", line.severity, line.text), Colour::of_severity(&line.severity)))
        .collect();
    row
}

/// Eight characters: running, monitored, disabled, optional, encapsulated, provisioned, standby, restarts left.
pub fn flags(resource: &ResourceStatus) -> String {
    let flag = |set: bool, letter: char| if set { letter } else { '.' };
    let provisioned = match resource.provisioned.as_str() {
        "no" => 'P',
        "n/a" => '/',
        "mixed" => 'p',
        "unknown" => '?',
        _ => '.',
    };
    let restart = match resource.restart {
        0 => '.',
        left => char::from_digit(left, 10).unwrap_or('+'),
    };
    [
        flag(resource.running, 'R'),
        flag(resource.monitor, 'M'),
        flag(resource.disable, 'D'),
        flag(resource.optional, 'O'),
        flag(resource.encap, 'E'),
        provisioned,
        flag(resource.standby, 'S'),
        restart,
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{api::StatusLine, output::text};

    pub(crate) fn resource(status: &str, provisioned: &str, label: &str) -> ResourceStatus {
        ResourceStatus {
            kind: "any".into(),
            status: status.into(),
            provisioned: provisioned.into(),
            label: label.into(),
            ..ResourceStatus::default()
        }
    }

    fn instance(avail: &str, resources: Vec<(&str, ResourceStatus)>) -> InstanceStatus {
        InstanceStatus {
            avail: avail.into(),
            overall: avail.into(),
            provisioned: "yes".into(),
            monitor: "idle".into(),
            resources: resources.into_iter().map(|(rid, resource)| (rid.to_owned(), resource)).collect(),
            ..InstanceStatus::default()
        }
    }

    /// The page's own service.
    pub(crate) fn page() -> Snapshot {
        let mut here = instance(
            "up",
            vec![
                ("ip#1", resource("up", "yes", "cni default 10.22.0.122/16 eth12")),
                ("volume#1", resource("up", "yes", "registry-data")),
                ("container#0", resource("up", "yes", "docker container test..registry.container.0@google/pause")),
                ("container#1", resource("up", "yes", "docker container test..registry.container.1@registry")),
                ("sync#i0", ResourceStatus { optional: true, ..resource("up", "n/a", "rsync svc config to nodes") }),
            ],
        );
        here.local_expect = Some("started".into());
        let alive = NodeStatus { alive: true, ..NodeStatus::default() };
        let object = ObjectStatus {
            namespace: "test".into(),
            kind: "svc".into(),
            name: "registry".into(),
            avail: "up".into(),
            overall: "up".into(),
            placement: "optimal".into(),
            provisioned: "yes".into(),
            orchestrate: "ha".into(),
            topology: "failover".into(),
            priority: 100,
            up: 1,
            target: 1,
            instances: BTreeMap::from([("aubergine".into(), here), ("nuc-cva".into(), instance("down", Vec::new()))]),
            ..ObjectStatus::default()
        };
        Snapshot {
            cluster: "homepool2".into(),
            node: "aubergine".into(),
            nodes: BTreeMap::from([("aubergine".into(), alive.clone()), ("nuc-cva".into(), alive)]),
            objects: BTreeMap::from([("test/svc/registry".into(), object)]),
        }
    }

    fn check(snapshot: &Snapshot, view: View<'_>, expected: &str) {
        let (path, object) = snapshot.objects.iter().next().unwrap();
        let got = text::lines(&lines(snapshot, path, object, view), false);
        assert_eq!(got, expected, "\n{got}");
    }

    #[test]
    fn the_page_s_tree_is_drawn() {
        let expected = "\
registry                         up
`- instances
   |- nuc-cva                    down       idle
   `- aubergine                  up         idle, started
      |- ip#1           ........ up         cni default 10.22.0.122/16 eth12
      |- volume#1       ........ up         registry-data
      |- container#0    ........ up         docker container test..registry.container.0@google/pause
      |- container#1    ........ up         docker container test..registry.container.1@registry
      `- sync#i0        ...O./.. up         rsync svc config to nodes
";
        check(&page(), View { heading: Some("registry"), ..View::default() }, expected);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut snapshot = page();
        let object = snapshot.objects.values_mut().next().unwrap();
        object.overall = "warn".into();
        object.placement = "non-optimal".into();
        object.priority = 50;
        object.instances.remove("nuc-cva");
        let here = object.instances.get_mut("aubergine").unwrap();
        here.overall = "warn".into();
        here.frozen = Some(1.0);
        here.provisioned = "mixed".into();
        here.monitor = "provision failed".into();
        here.local_expect = None;
        here.global_expect = Some("provisioned".into());
        here.resources.retain(|rid, _| rid == "volume#1" || rid == "ip#1");
        let volume = here.resources.get_mut("volume#1").unwrap();
        volume.status = "down".into();
        volume.provisioned = "no".into();
        volume.restart = 12;
        volume.log = vec![
            StatusLine { severity: "info".into(), text: "volume registry-data does not exist".into() },
            StatusLine { severity: "error".into(), text: "no pool has 10 GiB".into() },
        ];
        let expected = "\
registry                         up         warn, non-optimal placement
`- instances
   `- aubergine                  up         warn, frozen, part-provisioned, p50, provision failed, >provisioned
      |- ip#1           ........ up         cni default 10.22.0.122/16 eth12
      `- volume#1       .....P.+ down       registry-data
                                            info: volume registry-data does not exist
                                            error: no pool has 10 GiB
";
        check(&snapshot, View { heading: Some("registry"), ..View::default() }, expected);
    }

    #[test]
    fn a_narrow_terminal_breaks_the_last_column() {
        let mut snapshot = page();
        let object = snapshot.objects.values_mut().next().unwrap();
        let here = object.instances.get_mut("aubergine").unwrap();
        here.resources.retain(|rid, _| rid == "container#0" || rid == "sync#i0");
        let expected = "\
registry                         up
`- instances
   |- nuc-cva                    down       idle
   `- aubergine                  up         idle, started
      |- container#0    ........ up         docker container
      |                                     test..registry.container
      |                                     .0@google/pause
      `- sync#i0        ...O./.. up         rsync svc config to
                                            nodes
";
        check(&snapshot, View { heading: Some("registry"), width: Some(68), ..View::default() }, expected);
    }

    #[test]
    fn flags_are_eight_characters() {
        let all = ResourceStatus {
            running: true,
            monitor: true,
            disable: true,
            optional: true,
            encap: true,
            standby: true,
            restart: 2,
            ..resource("up", "no", "")
        };
        assert_eq!(flags(&all), "RMDOEPS2");
        assert_eq!(flags(&ResourceStatus::default()), "........");
    }
}
