//! Owns what a container's configuration is in the words of the engine's API, and the marks that tell whether a container
//! is still as configured. Pure. Does not own what it is made from: paths of volumes, ids of other containers.

use std::collections::BTreeMap;

use om_core::{
    driver::Scene,
    instance::{Container, MountSource, Namespace, Resource, ResourceKind},
    path::Rid,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::docker::arguments;

/// `<id of the object>.<rid>`: what a container is found by.
pub const LABEL_ID: &str = "com.opensvc.id";
/// The object's full path.
pub const LABEL_PATH: &str = "com.opensvc.path";
/// The resource's id.
pub const LABEL_RID: &str = "com.opensvc.rid";
/// The mark of the configuration that a container was made by.
pub const LABEL_CONFIG: &str = "io.roadstead.config";
/// The mark of everything that a container was made by.
pub const LABEL_MADE: &str = "io.roadstead.made";
/// The containers whose namespaces a container lives in, each as `rid=id@start`.
pub const LABEL_JOINED: &str = "io.roadstead.joined";

/// What a configuration refers to, as it is on this node now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Means {
    /// The ids of containers whose namespaces are shared.
    pub owners: BTreeMap<Rid, String>,
    /// Mounts, as `source:destination:options`.
    pub binds: Vec<String>,
    /// Variables, as `name=value`.
    pub environment: Vec<String>,
    /// In place of what the configuration says.
    pub entrypoint: Option<Vec<String>>,
    /// In place of what the configuration says.
    pub command: Option<Vec<String>>,
    /// Resolvers.
    pub dns: Vec<String>,
}

/// The label by which a resource's container is found.
pub fn id_of(scene: &Scene, rid: &Rid) -> String {
    format!("{}.{rid}", scene.instance.id)
}

/// The labels that say whose a container is.
pub fn labels(scene: &Scene, rid: &Rid) -> Map<String, Value> {
    let path = &scene.instance.path;
    let all = [
        (LABEL_ID, id_of(scene, rid)),
        (LABEL_PATH, path.fqn()),
        ("com.opensvc.namespace", path.namespace.to_string()),
        ("com.opensvc.name", path.name.to_string()),
        ("com.opensvc.kind", path.kind.to_string()),
        (LABEL_RID, rid.to_string()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

/// The body of the request that makes the container, without labels of ours.
///
/// # Errors
/// What the engine cannot do, or an option that is not taken; for people.
pub fn body(scene: &Scene, rid: &Rid, container: &Container, means: &Means) -> Result<Value, String> {
    let arguments::Arguments { mut top, mut host } = arguments::parse(&container.run_args)?;
    let mut set = |name: &str, value: Value| top.insert(name.to_owned(), value);
    set("Image", json!(container.image));
    if !means.environment.is_empty() {
        set("Env", json!(means.environment));
    }
    if let Some(words) = means.entrypoint.as_ref().or(container.entrypoint.as_ref()) {
        set("Entrypoint", json!(words));
    }
    if let Some(words) = means.command.as_ref().or(container.command.as_ref()) {
        set("Cmd", json!(words));
    }
    for (name, text) in [("Hostname", &container.hostname), ("User", &container.user), ("WorkingDir", &container.cwd)] {
        if let Some(text) = text {
            set(name, json!(text));
        }
    }
    if container.tty {
        set("Tty", json!(true));
    }
    if container.interactive {
        set("OpenStdin", json!(true));
    }
    let mut set = |name: &str, value: Value| host.insert(name.to_owned(), value);
    for (name, on) in
        [("Privileged", container.privileged), ("ReadonlyRootfs", container.read_only), ("Init", container.init)]
    {
        if on {
            set(name, json!(true));
        }
    }
    // Who restarts it is the daemon, which counts.
    set("RestartPolicy", json!({ "Name": "no" }));
    set("AutoRemove", json!(false));
    if !means.binds.is_empty() {
        set("Binds", json!(means.binds));
    }
    if !container.devices.is_empty() {
        set("Devices", Value::Array(container.devices.iter().map(|device| device_of(device)).collect()));
    }
    let joined = |owner: &Rid| {
        let id = means.owners.get(owner).ok_or_else(|| format!("{owner} does not run"))?;
        Ok::<_, String>(format!("container:{id}"))
    };
    let network = match &container.netns {
        Namespace::Default => "default".to_owned(),
        Namespace::Host => "host".to_owned(),
        Namespace::None => "none".to_owned(),
        Namespace::Of(owner) => joined(owner)?,
        Namespace::Named(name) => name.clone(),
    };
    set("NetworkMode", json!(network));
    match &container.pidns {
        Namespace::Host => drop(set("PidMode", json!("host"))),
        Namespace::Of(owner) => drop(set("PidMode", json!(joined(owner)?))),
        Namespace::Default | Namespace::None | Namespace::Named(_) => {}
    }
    match &container.ipcns {
        Namespace::Host => drop(set("IpcMode", json!("host"))),
        Namespace::Of(owner) => drop(set("IpcMode", json!(joined(owner)?))),
        Namespace::None => drop(set("IpcMode", json!("none"))),
        // The engine has others join only where it is told so in advance.
        _ if is_ipc_shared(scene, rid) => drop(set("IpcMode", json!("shareable"))),
        Namespace::Default | Namespace::Named(_) => {}
    }
    match &container.utsns {
        Namespace::Host => drop(set("UTSMode", json!("host"))),
        Namespace::Of(owner) => {
            return Err(format!("utsns: the engine cannot share the host name of {owner}; only `host` is possible"));
        }
        Namespace::Default | Namespace::None | Namespace::Named(_) => {}
    }
    // Who joins a network or has the host's gets its resolver with it.
    let own_network = matches!(container.netns, Namespace::Default | Namespace::None | Namespace::Named(_));
    if own_network && !means.dns.is_empty() && !host.contains_key("Dns") {
        let (path, zone) = (&scene.instance.path, &scene.cluster.name);
        let namespace = &path.namespace;
        let search =
            [format!("{}.{namespace}.svc.{zone}", path.name), format!("{namespace}.svc.{zone}"), format!("svc.{zone}")];
        let mut default = |name: &str, value: Value| {
            host.entry(name.to_owned()).or_insert(value);
        };
        default("Dns", json!(means.dns));
        default("DnsSearch", json!(search));
        default("DnsOptions", json!(["ndots:2", "edns0"]));
    }
    top.insert("HostConfig".into(), Value::Object(host));
    Ok(Value::Object(top))
}

/// The mark of a configuration: another one when somebody changed what a container is made of. Needs neither keys nor
/// volumes, and does not depend on the node.
pub fn mark_of(scene: &Scene, rid: &Rid, container: &Container) -> String {
    let owners = shared(container).into_iter().map(|owner| (owner.clone(), owner.to_string())).collect();
    let binds = container.mounts.iter().map(|mount| {
        let source = match &mount.source {
            MountSource::Host(path) => path.clone(),
            MountSource::Volume { rid, path } => format!("{rid}/{path}"),
        };
        format!("{source}:{}:{}:{}", mount.destination, mount.read_only, mount.options.join(","))
    });
    let mut environment: Vec<String> = container.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    for variable in container.secrets_environment.iter().chain(&container.configs_environment) {
        environment.push(format!("{}={}/{}", variable.variable, variable.object, variable.key));
    }
    for file in container.secrets.iter().chain(&container.configs) {
        environment.push(format!("{}={}/{}", file.path, file.object, file.key));
    }
    let means = Means { owners, binds: binds.collect(), environment, ..Means::default() };
    match body(scene, rid, container, &means) {
        Ok(body) => mark(&body),
        Err(error) => mark(&json!(error)),
    }
}

/// The mark of a value: `<32 hex>`.
pub fn mark(value: &Value) -> String {
    Sha256::digest(value.to_string().as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The containers whose namespaces this one lives in.
pub fn shared(container: &Container) -> Vec<&Rid> {
    let mut all: Vec<&Rid> = [&container.netns, &container.pidns, &container.ipcns, &container.utsns]
        .into_iter()
        .filter_map(|namespace| match namespace {
            Namespace::Of(rid) => Some(rid),
            _ => None,
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn is_ipc_shared(scene: &Scene, owner: &Rid) -> bool {
    scene.instance.resources.values().any(|Resource { kind, .. }| {
        matches!(kind, ResourceKind::Container(other) if other.ipcns == Namespace::Of(owner.clone()))
    })
}

/// `host[:container[:permissions]]`.
fn device_of(text: &str) -> Value {
    let mut parts = text.split(':');
    let outside = parts.next().unwrap_or_default();
    let inside = parts.next().unwrap_or(outside);
    let permissions = parts.next().unwrap_or("rwm");
    json!({ "PathOnHost": outside, "PathInContainer": inside, "CgroupPermissions": permissions })
}
