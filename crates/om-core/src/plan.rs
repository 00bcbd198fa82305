//! Owns the order in which the resources of an instance are made, started, stopped and destroyed, and what undoes a
//! plan that failed. Does not own whether a job is due, nor how a step is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    aggregate::effective,
    instance::{InstanceConfig, MountSource, Namespace, Resource, ResourceKind},
    path::Rid,
    status::{Provisioned, ResourceStatus, Status},
    view::{Job, Work},
};

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Makes what it needs.
    Provision,
    /// Starts it.
    Start,
    /// Stops it.
    Stop,
    /// Destroys what was made.
    Unprovision,
}

impl Verb {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Unprovision => "unprovision",
        }
    }

    /// What undoes it.
    fn inverse(self) -> Option<Self> {
        match self {
            Self::Provision => Some(Self::Unprovision),
            Self::Start => Some(Self::Stop),
            Self::Stop | Self::Unprovision => None,
        }
    }
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Step {
    /// What is done.
    pub verb: Verb,
    /// To which resource.
    pub rid: Rid,
    /// Its failure is told, and the plan goes on.
    pub optional: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.as_str(), self.rid)
    }
}

/// What resources were seen to be.
pub type Seen = BTreeMap<Rid, ResourceStatus>;

/// The steps of a job, in order; empty: nothing is left to do.
///
/// Resources that are so already are left out, so that a plan of a plan's result is empty.
pub fn steps(config: &InstanceConfig, job: &Job, seen: &Seen) -> Vec<Step> {
    let order = start_order(config);
    let chosen = |rid: &Rid| job.only.is_empty() || job.only.contains(rid);
    let resources: Vec<&Resource> = order.iter().filter_map(|rid| config.resources.get(rid)).collect();
    let resources: Vec<&Resource> = resources.into_iter().filter(|r| acts(r) && chosen(&r.rid)).collect();
    match job.work {
        Work::Start | Work::Repair => start(config, &resources, seen, job.work == Work::Start),
        Work::Stop => stop(&resources, seen, job.force || !job.only.is_empty()),
        Work::Restart => {
            let mut steps = stop(&resources, seen, job.force || !job.only.is_empty());
            steps.extend(resources.iter().map(|r| step(Verb::Start, r)));
            steps
        }
        Work::Provision => provision(config, &resources, seen, job.leader),
        Work::Unprovision => {
            let mut steps = stop(&resources, seen, true);
            let made = |r: &&&Resource| {
                r.unprovision && !matches!(seen.get(&r.rid).map(|s| s.provisioned), Some(Provisioned::No))
            };
            steps.extend(resources.iter().rev().filter(made).map(|r| step(Verb::Unprovision, r)));
            steps
        }
    }
}

/// The steps that take back what was done, the last first. Standby resources stay.
pub fn undo(config: &InstanceConfig, done: &[Step]) -> Vec<Step> {
    let back = |step: &Step| {
        let resource = config.resources.get(&step.rid)?;
        let verb = step.verb.inverse()?;
        (!resource.standby).then(|| Step { verb, rid: step.rid.clone(), optional: true })
    };
    done.iter().rev().filter_map(back).collect()
}

/// The resources to start, in order: volumes and disks, then containers, each followed by its addresses, then programs.
///
/// Inside a group subsets by name, members by number; but a container comes after the one whose network, processes
/// or memory it shares, and a filesystem in front of what is mounted from it.
pub fn start_order(config: &InstanceConfig) -> Vec<Rid> {
    let mut waiting: Vec<&Resource> = config.resources.values().collect();
    waiting.sort_by_cached_key(|r| {
        let number = r.rid.index().parse::<u64>().unwrap_or(u64::MAX);
        (group(config, r), r.subset.clone(), number, r.rid.clone())
    });
    let mut order: Vec<Rid> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        // The first one that waits for nobody; in a circle, which validation refuses, the first of all.
        let ready = waiting.iter().position(|r| needs(r).all(|need| !waiting.iter().any(|w| w.rid == *need)));
        let next = waiting.remove(ready.unwrap_or(0));
        order.push(next.rid.clone());
        // Its addresses are part of its start: the next container may need them.
        let (own, rest) = waiting.into_iter().partition(|r| shares_network(r) == Some(&next.rid) && is_address(r));
        waiting = rest;
        order.extend(Vec::into_iter(own).map(|r: &Resource| r.rid.clone()));
    }
    order
}

/// The resources that must be made anew when these were, because they live in their network, process or other
/// namespaces; without themselves.
pub fn sharers(config: &InstanceConfig, of: &BTreeSet<Rid>) -> BTreeSet<Rid> {
    let mut found: BTreeSet<Rid> = BTreeSet::new();
    loop {
        let more: Vec<Rid> = config
            .resources
            .values()
            .filter(|r| !of.contains(&r.rid) && !found.contains(&r.rid))
            .filter(|r| shared(r).any(|owner| of.contains(owner) || found.contains(owner)))
            .map(|r| r.rid.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn acts(resource: &Resource) -> bool {
    !resource.disable && !resource.tags.iter().any(|tag| tag == "noaction")
}

fn step(verb: Verb, resource: &Resource) -> Step {
    Step { verb, rid: resource.rid.clone(), optional: resource.optional }
}

fn is_up(resource: &Resource, seen: &Seen) -> bool {
    let status = seen.get(&resource.rid).map(|seen| seen.status);
    // A container that runs to its end says n/a: it is started each time.
    let runs_once = matches!(&resource.kind, ResourceKind::Container(c) if !c.detach);
    match status {
        Some(Status::Up | Status::StandbyUp) => true,
        Some(Status::NotApplicable) => !runs_once,
        _ => false,
    }
}

fn is_down(resource: &Resource, seen: &Seen) -> bool {
    matches!(seen.get(&resource.rid).map(|seen| seen.status), Some(Status::Down | Status::StandbyDown))
}

fn start(config: &InstanceConfig, resources: &[&Resource], seen: &Seen, whole: bool) -> Vec<Step> {
    let missing: BTreeSet<Rid> = resources.iter().filter(|r| !is_up(r, seen)).map(|r| r.rid.clone()).collect();
    // What is gone takes the namespaces of others with it, whether or not those were asked for.
    let gone: BTreeSet<Rid> = resources.iter().filter(|r| is_down(r, seen)).map(|r| r.rid.clone()).collect();
    let stranded: BTreeSet<Rid> = sharers(config, &gone)
        .into_iter()
        .filter(|rid| !missing.contains(rid))
        .filter(|rid| config.resources.get(rid).is_some_and(|r| acts(r) && (whole || !is_down(r, seen))))
        .collect();
    let order = start_order(config);
    let all = || order.iter().filter_map(|rid| config.resources.get(rid));
    let stops = all().rev().filter(|r| stranded.contains(&r.rid)).map(|r| step(Verb::Stop, r));
    let starts = all().filter(|r| missing.contains(&r.rid) || stranded.contains(&r.rid)).map(|r| step(Verb::Start, r));
    stops.chain(starts).collect()
}

fn stop(resources: &[&Resource], seen: &Seen, standby_too: bool) -> Vec<Step> {
    let due = |r: &&&Resource| {
        let none = matches!(effective(r, seen.get(&r.rid)), Status::Down | Status::StandbyDown);
        !none && (standby_too || !r.standby) && !matches!(r.kind, ResourceKind::Sync)
    };
    resources.iter().rev().filter(due).map(|r| step(Verb::Stop, r)).collect()
}

fn provision(config: &InstanceConfig, resources: &[&Resource], seen: &Seen, leader: bool) -> Vec<Step> {
    let starts = if leader { start(config, resources, seen, true) } else { Vec::new() };
    let mut steps: Vec<Step> = starts.iter().filter(|s| s.verb == Verb::Stop).cloned().collect();
    for resource in resources {
        let made = seen.get(&resource.rid).is_some_and(|seen| match seen.provisioned {
            Provisioned::Yes => true,
            Provisioned::NotApplicable => seen.status != Status::Undef,
            Provisioned::No | Provisioned::Mixed => false,
        });
        if resource.provision && !made && (leader || !resource.shared) {
            steps.push(step(Verb::Provision, resource));
        }
        steps.extend(starts.iter().find(|s| s.verb == Verb::Start && s.rid == resource.rid).cloned());
    }
    steps
}

/// The place of a resource's group.
fn group(config: &InstanceConfig, resource: &Resource) -> u8 {
    match &resource.kind {
        ResourceKind::Cni(ip) if ip.netns.as_ref().is_some_and(|rid| config.resources.contains_key(rid)) => 6,
        ResourceKind::Cni(_) => 0,
        ResourceKind::Volume(_) => 1,
        ResourceKind::Loop(_) => 2,
        ResourceKind::Directory(_) | ResourceKind::Flag => 3,
        ResourceKind::Container(_) => 5,
        ResourceKind::App(_) => 7,
        ResourceKind::Sync => 8,
    }
}

fn is_address(resource: &Resource) -> bool {
    matches!(resource.kind, ResourceKind::Cni(_))
}

fn shares_network(resource: &Resource) -> Option<&Rid> {
    match &resource.kind {
        ResourceKind::Cni(ip) => ip.netns.as_ref(),
        ResourceKind::Container(container) => of(&container.netns),
        _ => None,
    }
}

fn of(namespace: &Namespace) -> Option<&Rid> {
    match namespace {
        Namespace::Of(rid) => Some(rid),
        _ => None,
    }
}

/// Resources whose namespaces this one lives in.
fn shared(resource: &Resource) -> impl Iterator<Item = &Rid> {
    let more = match &resource.kind {
        ResourceKind::Container(c) => [of(&c.pidns), of(&c.ipcns), of(&c.utsns)],
        _ => [None; 3],
    };
    shares_network(resource).into_iter().chain(more.into_iter().flatten())
}

/// Resources that must be started before.
fn needs(resource: &Resource) -> impl Iterator<Item = &Rid> {
    let mounts = match &resource.kind {
        ResourceKind::Container(c) => c.mounts.as_slice(),
        _ => &[],
    };
    let volumes = mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { rid, .. } => Some(rid),
        MountSource::Host(_) => None,
    });
    shared(resource).chain(volumes)
}

#[cfg(test)]
pub(crate) mod tests;
