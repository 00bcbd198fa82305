//! Owns how what a node knows is told to callers of the API: a [`View`] in wire types. Pure. Does not own how it is
//! drawn, nor what is true.

use std::collections::BTreeMap;

use om_core::{
    aggregate::{self, Summary},
    instance::{InstanceConfig, Orchestrate, Resource, ResourceKind},
    path::{NodeName, ObjectPath, Rid},
    placement::{preferred, rank},
    status::{Provisioned, ResourceStatus, Severity, Status},
    view::{Failure, Monitor, ObjectView, Report, View},
};

use crate::api;

/// An object with resources.
pub fn object(
    view: &View,
    path: &ObjectPath,
    object: &ObjectView,
    problems: Vec<api::Diagnostic>,
) -> api::ObjectStatus {
    let config = object.config.as_deref();
    let nodes: Vec<NodeName> = match config {
        Some(config) => config.nodes.clone(),
        None => object.reports.keys().cloned().collect(),
    };
    let summary = |node: &NodeName| match object.report(node) {
        Some(report) if view.lives(node) || *node == view.me => report.summary,
        _ => Summary::UNKNOWN,
    };
    let summaries: BTreeMap<NodeName, Summary> = nodes.iter().map(|node| (node.clone(), summary(node))).collect();
    let whole = aggregate::object(&summaries, config.and_then(preferred).as_ref());
    let leader = config.map(rank).and_then(|nodes| nodes.into_iter().next());
    let instances = nodes.iter().map(|node| {
        let mut shown = instance(view, object, node);
        shown.leader = leader.as_ref() == Some(node);
        (node.to_string(), shown)
    });
    api::ObjectStatus {
        generation: object.generation,
        avail: whole.avail.as_str().into(),
        overall: whole.overall.as_str().into(),
        placement: whole.placed.as_str().into(),
        provisioned: made(whole.provisioned).into(),
        orchestrate: config.map_or("no", |config| orchestrate(config.orchestrate)).into(),
        topology: "failover".into(),
        priority: config.map_or(100, |config| config.priority),
        up: u32::try_from(whole.up).unwrap_or(u32::MAX),
        target: 1,
        problems,
        instances: instances.collect(),
        ..named(path)
    }
}

/// An object without resources.
pub fn key_store(path: &ObjectPath, generation: u64) -> api::ObjectStatus {
    let none = || Status::NotApplicable.as_str().to_owned();
    api::ObjectStatus {
        generation,
        avail: none(),
        overall: none(),
        placement: none(),
        provisioned: made(Provisioned::NotApplicable).into(),
        orchestrate: "no".into(),
        topology: "failover".into(),
        priority: 100,
        ..named(path)
    }
}

fn named(path: &ObjectPath) -> api::ObjectStatus {
    api::ObjectStatus {
        namespace: path.namespace.to_string(),
        kind: path.kind.to_string(),
        name: path.name.to_string(),
        ..api::ObjectStatus::default()
    }
}

fn instance(view: &View, object: &ObjectView, node: &NodeName) -> api::InstanceStatus {
    let want = &object.want.value;
    let global = want.order.as_ref().map(|order| order.target.word());
    let frozen = want.frozen.map(|since| since as f64);
    let Some(report) = object.report(node) else {
        let summary = Summary::UNKNOWN;
        return api::InstanceStatus {
            avail: summary.avail.as_str().into(),
            overall: summary.overall.as_str().into(),
            optional: summary.optional.as_str().into(),
            provisioned: made(summary.provisioned).into(),
            frozen,
            monitor: "idle".into(),
            global_expect: global,
            ..api::InstanceStatus::default()
        };
    };
    let config = object.config.as_deref();
    api::InstanceStatus {
        avail: report.summary.avail.as_str().into(),
        overall: report.summary.overall.as_str().into(),
        optional: report.summary.optional.as_str().into(),
        provisioned: made(report.summary.provisioned).into(),
        frozen,
        monitor: monitor(object, node, &report.monitor),
        local_expect: report.expected.then(|| "started".into()),
        global_expect: global,
        progress: None,
        error: object.failure(node).map(|(_, _, failure)| told(failure)),
        leader: false,
        updated: report.updated as f64 / 1000.0,
        resources: resources(view, config, report, node),
    }
}

/// Resources as the configuration has them; those that are only in the report are being removed.
fn resources(
    view: &View,
    config: Option<&InstanceConfig>,
    report: &Report,
    node: &NodeName,
) -> BTreeMap<String, api::ResourceStatus> {
    let Some(config) = config else { return BTreeMap::new() };
    let busy = matches!(report.monitor, Monitor::Busy(_)) && *node == view.me;
    let of = |(rid, resource): (&Rid, &Resource)| {
        let seen = report.resources.get(rid);
        let mut shown = one(resource, seen);
        shown.restart = report.restarts.get(rid).copied().unwrap_or(resource.restart);
        shown.running = busy && matches!(resource.kind, ResourceKind::Sync);
        (rid.to_string(), shown)
    };
    config.resources.iter().map(of).collect()
}

fn one(resource: &Resource, seen: Option<&ResourceStatus>) -> api::ResourceStatus {
    let line = |line: &om_core::status::Line| api::StatusLine {
        severity: severity(line.severity).into(),
        text: line.text.clone(),
    };
    api::ResourceStatus {
        kind: kind(&resource.kind).into(),
        status: aggregate::effective(resource, seen).as_str().into(),
        label: seen
            .map(|seen| seen.label.clone())
            .filter(|label| !label.is_empty())
            .unwrap_or_else(|| label(&resource.kind)),
        provisioned: made(seen.map_or(Provisioned::NotApplicable, |seen| seen.provisioned)).into(),
        log: seen.map(|seen| seen.lines.iter().map(line).collect()).unwrap_or_default(),
        info: seen.map(|seen| seen.info.clone()).unwrap_or_default(),
        tags: resource.tags.clone(),
        subset: resource.subset.clone(),
        running: false,
        monitor: resource.monitor,
        disable: resource.disable,
        optional: resource.optional || matches!(resource.kind, ResourceKind::Sync),
        encap: false,
        standby: resource.standby,
        restart: 0,
    }
}

/// What a resource is, as far as its configuration says it: for one that was not looked at yet.
pub fn label(kind: &ResourceKind) -> String {
    match kind {
        ResourceKind::Cni(ip) => format!("cni {} {}", ip.network, ip.ipdev),
        ResourceKind::Container(container) => format!("docker container {}@{}", container.name, container.image),
        ResourceKind::Volume(claim) => claim.name.to_string(),
        ResourceKind::Directory(directory) => format!("directory {}", directory.path),
        ResourceKind::Flag => "flag".into(),
        ResourceKind::Loop(disk) => format!("loop {}", disk.file),
        ResourceKind::App(app) => format!("app {}", app.start.join(" ")),
        ResourceKind::Sync => "rsync svc config to nodes".into(),
    }
}

/// The group and driver of a resource.
pub fn kind(kind: &ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cni(_) => "ip.cni",
        ResourceKind::Container(_) => "container.docker",
        ResourceKind::Volume(_) => "volume",
        ResourceKind::Directory(_) => "fs.directory",
        ResourceKind::Flag => "fs.flag",
        ResourceKind::Loop(_) => "disk.loop",
        ResourceKind::App(_) => "app",
        ResourceKind::Sync => "sync.rsync",
    }
}

/// A failure on the wire.
pub fn told(failure: &Failure) -> api::Failure {
    api::Failure {
        code: api::code::INTERNAL.into(),
        message: failure.message.clone(),
        hint: failure.hint.clone(),
        diagnostics: Vec::new(),
    }
}

fn monitor(object: &ObjectView, node: &NodeName, monitor: &Monitor) -> String {
    match monitor {
        Monitor::Busy(work) => work.doing().into(),
        // A failure that was cleared is none.
        Monitor::Failed { work, .. } if object.failure(node).is_some() => format!("{} failed", work.verb()),
        Monitor::Idle | Monitor::Failed { .. } => "idle".into(),
    }
}

fn orchestrate(orchestrate: Orchestrate) -> &'static str {
    match orchestrate {
        Orchestrate::No => "no",
        Orchestrate::Start => "start",
        Orchestrate::Ha => "ha",
    }
}

fn made(provisioned: Provisioned) -> &'static str {
    match provisioned {
        Provisioned::Yes => "yes",
        Provisioned::No => "no",
        Provisioned::Mixed => "mixed",
        Provisioned::NotApplicable => "n/a",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warn => "warn",
        Severity::Error => "error",
    }
}
