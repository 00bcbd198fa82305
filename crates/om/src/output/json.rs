//! Owns the JSON of a status for people's programs, which is flatter than the API's: the shown node's instance with
//! the object's own values beside it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::{ObjectStatus, ResourceStatus, Snapshot};

/// One object: itself. Several: by path.
pub fn status(snapshot: &Snapshot, node: Option<&str>, one: bool) -> Value {
    let of = |object: &ObjectStatus| object_status(snapshot, object, node.unwrap_or(&snapshot.node));
    match snapshot.objects.values().next() {
        Some(object) if one && snapshot.objects.len() == 1 => of(object),
        _ => snapshot.objects.iter().map(|(path, object)| (path.clone(), of(object))).collect::<Map<_, _>>().into(),
    }
}

fn object_status(snapshot: &Snapshot, object: &ObjectStatus, node: &str) -> Value {
    let absent = crate::api::InstanceStatus {
        avail: "undef".into(),
        overall: "undef".into(),
        optional: "undef".into(),
        ..Default::default()
    };
    let here = object.instances.get(node).unwrap_or(&absent);
    let instances: Map<String, Value> = object
        .instances
        .iter()
        .map(|(name, instance)| {
            let alive = snapshot.nodes.get(name).is_some_and(|node| node.alive);
            let value = json!({
                "avail": instance.avail, "overall": instance.overall, "frozen": instance.frozen.unwrap_or(0.0),
                "provisioned": provisioned(&instance.provisioned), "monitor": instance.monitor, "alive": alive,
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "namespace": object.namespace, "kind": object.kind, "name": object.name,
        "topology": object.topology, "orchestrate": object.orchestrate, "priority": object.priority,
        "generation": object.generation, "node": node,
        "avail": here.avail, "overall": here.overall, "optional": here.optional,
        "provisioned": provisioned(&here.provisioned),
        "frozen": here.frozen.unwrap_or(0.0), "updated": here.updated,
        "cluster": {
            "avail": object.avail, "overall": object.overall, "placement": object.placement,
            "up": object.up, "target": object.target,
        },
        "monitor": {
            "status": here.monitor, "local_expect": here.local_expect, "global_expect": here.global_expect,
            "placement": if here.leader { "leader" } else { "" },
            "error": here.error, "progress": here.progress,
        },
        "status_group": groups(&here.resources),
        "problems": object.problems,
        "instances": instances,
        "resources": here.resources.iter().map(|(rid, one)| (rid.clone(), resource(one))).collect::<Map<_, _>>(),
    })
}

/// States of resources, merged by group.
fn groups(resources: &BTreeMap<String, ResourceStatus>) -> BTreeMap<&str, &'static str> {
    let mut groups: BTreeMap<&str, om_core::status::Merge> = BTreeMap::new();
    for (rid, resource) in resources {
        let status = om_core::status::Status::from_word(&resource.status).unwrap_or(om_core::status::Status::Undef);
        let group = groups.entry(rid.split('#').next().unwrap_or(rid)).or_default();
        *group = group.and(status);
    }
    groups.into_iter().map(|(group, merged)| (group, merged.status().as_str())).collect()
}

fn provisioned(word: &str) -> Value {
    match word {
        "yes" => true.into(),
        "no" => false.into(),
        other => other.into(),
    }
}

fn resource(resource: &ResourceStatus) -> Value {
    // The wire's own form leaves out what is not set, as it is wanted here; only `provisioned` differs.
    let mut value = serde_json::to_value(resource).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("provisioned".into(), json!({ "state": provisioned(&resource.provisioned) }));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::status::tests::page;

    #[test]
    fn one_object_is_itself_and_several_are_a_map() {
        let snapshot = page();
        let one = status(&snapshot, None, true);
        let check = |pointer: &str, expected: Value| assert_eq!(one.pointer(pointer), Some(&expected), "{pointer}");
        check("/avail", "up".into());
        check("/cluster/placement", "optimal".into());
        check("/monitor/local_expect", "started".into());
        check("/status_group/container", "up".into());
        check("/resources/ip#1/label", "cni default 10.22.0.122/16 eth12".into());
        check("/resources/sync#i0/optional", true.into());
        check("/resources/volume#1/provisioned/state", true.into());
        check("/instances/nuc-cva/avail", "down".into());
        let other = status(&snapshot, Some("nuc-cva"), false);
        assert_eq!(other.pointer("/test~1svc~1registry/avail"), Some(&"down".into()));
    }
}
