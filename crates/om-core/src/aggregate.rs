//! Owns how states come together: of resources into an instance, of instances into an object. Does not own how two
//! states merge, which is [`crate::status::Merge`]'s.

use std::collections::BTreeMap;

use crate::{
    instance::{InstanceConfig, Resource, ResourceKind},
    path::{NodeName, Rid},
    status::{Merge, Provisioned, ResourceStatus, Severity, Status},
};

/// The states of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of the resources that count.
    pub avail: Status,
    /// Of the optional ones.
    pub optional: Status,
    /// Of all, tainted by warnings.
    pub overall: Status,
    /// Whether what it needs was made.
    pub provisioned: Provisioned,
}

impl Summary {
    /// Nothing was seen yet.
    pub const UNKNOWN: Self = Self {
        avail: Status::Undef,
        optional: Status::NotApplicable,
        overall: Status::Undef,
        provisioned: Provisioned::NotApplicable,
    };
}

/// The state of a resource as it counts: what was seen, by the words of its configuration.
pub fn effective(resource: &Resource, seen: Option<&ResourceStatus>) -> Status {
    if resource.disable || resource.tags.iter().any(|tag| tag == "nostatus") {
        return Status::NotApplicable;
    }
    match seen.map_or(Status::Undef, |seen| seen.status) {
        Status::Up if resource.standby => Status::StandbyUp,
        Status::Down if resource.standby => Status::StandbyDown,
        status => status,
    }
}

/// Merges the resources of an instance.
pub fn instance(config: &InstanceConfig, seen: &BTreeMap<Rid, ResourceStatus>) -> Summary {
    let (mut avail, mut optional, mut overall) = (Merge::default(), Merge::default(), Merge::default());
    let (mut made, mut missing) = (false, false);
    for (rid, resource) in &config.resources {
        let found = seen.get(rid);
        let status = match (effective(resource, found), &resource.kind) {
            // A late copy taints, it does not make anything unavailable.
            (Status::Up, ResourceKind::Sync) => Status::NotApplicable,
            (Status::Down, ResourceKind::Sync) => Status::Warn,
            (status, _) => status,
        };
        if resource.optional || matches!(resource.kind, ResourceKind::Sync) {
            optional = optional.and(status);
        } else {
            avail = avail.and(status);
        }
        let Some(found) = found else { continue };
        if !resource.disable && found.lines.iter().any(|line| line.severity > Severity::Info) {
            overall = overall.and(Status::Warn);
        }
        if !resource.disable && resource.provision {
            made |= found.provisioned == Provisioned::Yes;
            missing |= matches!(found.provisioned, Provisioned::No | Provisioned::Mixed);
        }
    }
    let known = |status: Status, none: Status| if status == Status::Undef { none } else { status };
    // Resources of which nothing is known are unlike no resources.
    let silent = config.resources.iter().any(|(rid, r)| effective(r, seen.get(rid)) == Status::Undef);
    let (avail, optional) =
        (known(avail.status(), if silent { Status::Undef } else { Status::NotApplicable }), optional.status());
    let overall = overall.and(avail).and(optional).status();
    Summary {
        avail,
        optional: known(optional, Status::NotApplicable),
        overall,
        provisioned: match (made, missing) {
            (true, true) => Provisioned::Mixed,
            (true, false) => Provisioned::Yes,
            (false, true) => Provisioned::No,
            (false, false) => Provisioned::NotApplicable,
        },
    }
}

/// How an object lies on its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Where it is preferred.
    Optimal,
    /// Elsewhere.
    NonOptimal,
    /// Nowhere.
    NotApplicable,
}

impl Placed {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optimal => "optimal",
            Self::NonOptimal => "non-optimal",
            Self::NotApplicable => "n/a",
        }
    }
}

/// The states of an object over its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Whether one instance is up.
    pub avail: Status,
    /// The same, tainted by warnings.
    pub overall: Status,
    /// Where it is up.
    pub placed: Placed,
    /// Whether all instances are made.
    pub provisioned: Provisioned,
    /// How many are up.
    pub up: usize,
}

/// Merges the instances of an object that runs on one node at a time. `preferred`: where it would run best.
pub fn object(instances: &BTreeMap<NodeName, Summary>, preferred: Option<&NodeName>) -> Whole {
    let count = |status: Status| instances.values().filter(|i| i.avail == status).count();
    let up = count(Status::Up);
    let all = |status: Status| count(status) == instances.len();
    let standby = count(Status::StandbyUp) + count(Status::StandbyDown);
    let avail = match up {
        _ if instances.is_empty() || all(Status::Undef) => Status::Undef,
        1 => Status::Up,
        2.. => Status::Warn,
        _ if all(Status::NotApplicable) => Status::NotApplicable,
        _ if count(Status::Warn) > 0 => Status::Warn,
        _ if count(Status::StandbyUp) > 0 && count(Status::Down) + standby == instances.len() => Status::StandbyUp,
        _ => Status::Down,
    };
    let tainted = instances.values().any(|i| matches!(i.overall, Status::Warn | Status::StandbyDown));
    let overall = if tainted { Status::Warn } else { avail };
    let placed = match instances.iter().find(|(_, i)| i.avail == Status::Up) {
        _ if instances.len() < 2 && up > 0 => Placed::Optimal,
        None => Placed::NotApplicable,
        Some((node, _)) if preferred.is_none_or(|preferred| preferred == node) => Placed::Optimal,
        Some(_) => Placed::NonOptimal,
    };
    let (mut made, mut missing) = (false, false);
    for summary in instances.values() {
        made |= matches!(summary.provisioned, Provisioned::Yes | Provisioned::Mixed);
        missing |= matches!(summary.provisioned, Provisioned::No | Provisioned::Mixed);
    }
    let provisioned = match (made, missing) {
        (true, true) => Provisioned::Mixed,
        (true, false) => Provisioned::Yes,
        (false, true) => Provisioned::No,
        (false, false) => Provisioned::NotApplicable,
    };
    Whole { avail, overall, placed, provisioned, up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_come_together() {
        let check = |states: &str, avail: &str, placed: &str| {
            let instances = states.split_whitespace().map(|word| {
                let (node, status) = word.split_once(':').expect("node:status");
                let avail = Status::from_word(&status.replace('_', " ")).expect("a state");
                (node.parse().expect("a node"), Summary { avail, overall: avail, ..Summary::UNKNOWN })
            });
            let whole = object(&instances.collect(), Some(&"a".parse().expect("a node")));
            assert_eq!((whole.avail.as_str(), whole.placed.as_str()), (avail, placed), "{states}");
        };
        check("a:up b:down", "up", "optimal");
        check("a:down b:up", "up", "non-optimal");
        check("a:up b:up", "warn", "optimal");
        check("a:down b:down", "down", "n/a");
        check("a:warn b:down", "warn", "n/a");
        check("a:n/a b:n/a", "n/a", "n/a");
        check("a:stdby_up b:stdby_up", "stdby up", "n/a");
        check("a:up", "up", "optimal");
        check("b:up", "up", "optimal");
        check("a:undef", "undef", "n/a");
    }
}
