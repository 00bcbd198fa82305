//! Owns the typed configuration of one instance: what `config::schema` makes of an object's text on one node, and what
//! the drivers and plans read. Does not own texts, references or defaults.

use std::{collections::BTreeMap, time::Duration};

use crate::path::{Name, NodeName, ObjectPath, Rid};

/// An object as one node runs it: all references resolved, all values checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceConfig {
    /// Which object.
    pub path: ObjectPath,
    /// The `id` of `[DEFAULT]`: a UUID made when the object was created.
    pub id: String,
    /// Where it may run, in order of preference; never empty.
    pub nodes: Vec<NodeName>,
    /// What starts it.
    pub orchestrate: Orchestrate,
    /// In which order the nodes are preferred.
    pub placement: Placement,
    /// Whether what a failed start had started is stopped again.
    pub rollback: bool,
    /// Nothing is done to a disabled object.
    pub disable: bool,
    /// Lower ones start first; 100 unless said otherwise.
    pub priority: u32,
    /// Of a volume object: what it was made with.
    pub volume: Option<VolumeObject>,
    /// Sorted by id.
    pub resources: BTreeMap<Rid, Resource>,
}

/// What starts a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orchestrate {
    /// Only an order.
    No,
    /// A boot of the preferred node, or an order.
    Start,
    /// Whatever makes it be down: it runs on exactly one node.
    Ha,
}

/// In which order the nodes are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// As they are listed.
    NodesOrder,
    /// By a hash of the object and the node.
    Spread,
    /// None is.
    None,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Which.
    pub rid: Rid,
    /// It is skipped, and its state is n/a.
    pub disable: bool,
    /// Its failures stop nothing, its state does not count for `avail`.
    pub optional: bool,
    /// It is kept up on every node.
    pub standby: bool,
    /// It is made once for all nodes.
    pub shared: bool,
    /// When it is down and its restarts are spent, the instance moves.
    pub monitor: bool,
    /// How often it is started again before it is left down.
    pub restart: u32,
    /// Time between those.
    pub restart_delay: Duration,
    /// Whether `provision` makes it.
    pub provision: bool,
    /// Whether `unprovision` destroys it.
    pub unprovision: bool,
    /// Members of a subset keep together.
    pub subset: Option<String>,
    /// Words: `noaction`, `nostatus`, and the user's.
    pub tags: Vec<String>,
    /// Longest time for a start, without the pull of an image.
    pub start_timeout: Duration,
    /// Longest time for a stop.
    pub stop_timeout: Duration,
    /// What it is.
    pub kind: ResourceKind,
}

/// What a resource is, with what its driver needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// `ip`, `type = cni`.
    Cni(CniIp),
    /// `container`, `type = docker` or `oci`.
    Container(Box<Container>),
    /// `volume`.
    Volume(VolumeClaim),
    /// `fs`, `type = directory`.
    Directory(Directory),
    /// `fs`, `type = flag`: up where it was started, until the next boot.
    Flag,
    /// `disk`, `type = loop`: a file with a filesystem, mounted.
    Loop(LoopDisk),
    /// `app`: a process.
    App(App),
    /// `sync#i0`: the object's own configuration on the other nodes.
    Sync,
}

impl ResourceKind {
    /// Whether a driver that is given `new` still finds what it made of this one: containers, addresses and processes are
    /// found by their resource, whatever else is said of them; others by what they are called.
    pub fn finds(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::Volume(old), Self::Volume(new)) => old.name == new.name,
            (Self::Loop(old), Self::Loop(new)) => (&old.file, &old.mount_point) == (&new.file, &new.mount_point),
            (old, new) => std::mem::discriminant(old) == std::mem::discriminant(new),
        }
    }
}

/// An address that CNI plugins give to a container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniIp {
    /// Name of the network.
    pub network: String,
    /// The container whose network namespace gets it; none: a namespace of the object's own.
    pub netns: Option<Rid>,
    /// Name of the interface inside, 15 bytes at most.
    pub ipdev: String,
    /// Ports for SRV records, and ports of the host that lead to them.
    pub expose: Vec<Expose>,
}

/// A port that others reach: `port/protocol[:hostport]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// Inside.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// On the host.
    pub host_port: Option<u16>,
}

/// What a container shares, or has to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The engine's default.
    Default,
    /// The host's.
    Host,
    /// Its own; for a network one without an interface.
    None,
    /// That of another container of this object.
    Of(Rid),
    /// A network of the engine, by name.
    Named(String),
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the engine does not have it.
    Once,
    /// At every start.
    Always,
}

/// A container of the Docker engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The container's name; by default `[namespace..]name.container.1`.
    pub name: String,
    /// Reference of the image, as the user wrote it.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
    /// Longest time for a pull.
    pub pull_timeout: Duration,
    /// Words in place of the image's command.
    pub command: Option<Vec<String>>,
    /// Words in place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Options of `docker run` that are taken, already split into words.
    pub run_args: Vec<String>,
    /// False: it runs to its end, and its state is n/a.
    pub detach: bool,
    /// Removed when it stops.
    pub rm: bool,
    /// Its network.
    pub netns: Namespace,
    /// Its processes.
    pub pidns: Namespace,
    /// Its shared memory.
    pub ipcns: Namespace,
    /// Its host name's.
    pub utsns: Namespace,
    /// Host name, only with a network namespace of its own.
    pub hostname: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// All capabilities of the host.
    pub privileged: bool,
    /// Keeps standard input open.
    pub interactive: bool,
    /// Has a terminal.
    pub tty: bool,
    /// The root filesystem cannot be written.
    pub read_only: bool,
    /// A process 1 that reaps.
    pub init: bool,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Devices, as `docker run --device` takes them.
    pub devices: Vec<String>,
    /// Variables, in clear.
    pub environment: Vec<(String, String)>,
    /// Variables with values from `sec` objects.
    pub secrets_environment: Vec<KeyVariable>,
    /// Variables with values from `cfg` objects.
    pub configs_environment: Vec<KeyVariable>,
    /// Files with values from `sec` objects of this namespace, on a memory filesystem.
    pub secrets: Vec<KeyFile>,
    /// Files with values from `cfg` objects of this namespace.
    pub configs: Vec<KeyFile>,
    /// The `sec` object of this namespace whose key `config.json` has the credentials for pulls.
    pub registry_creds: Option<Name>,
    /// Asks for a certificate of the cluster's authority for the service's names; none: as the image's label says.
    pub tls: Option<bool>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it comes from.
    pub source: MountSource,
    /// An absolute path in the container.
    pub destination: String,
    /// Cannot be written.
    pub read_only: bool,
    /// Other options, such as `Z` or `rshared`.
    pub options: Vec<String>,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host, which must exist.
    Host(String),
    /// A path inside a volume of this object; empty: its head.
    Volume {
        /// The resource.
        rid: Rid,
        /// Without a leading slash.
        path: String,
    },
}

/// A variable whose value is a key of another object of the namespace: `VAR=name/key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVariable {
    /// The variable.
    pub variable: String,
    /// The object.
    pub object: Name,
    /// The key.
    pub key: String,
}

/// A file whose bytes are a key of another object of the namespace: `name/key:path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The object.
    pub object: Name,
    /// The key; may be a pattern with `*`.
    pub key: String,
    /// Where: absolute in a container, relative in a volume.
    pub path: String,
}

impl KeyFile {
    /// Where the file of a key is that matches: what the keys of a pattern have in common is no part of it, and a path
    /// that is a directory gets the key's last part.
    pub fn destination(&self, key: &str) -> String {
        let inside = |leaf: &str| format!("{}/{leaf}", self.path.trim_end_matches('/'));
        let leaf = || key.rsplit('/').next().unwrap_or(key);
        match self.key.find('*') {
            Some(star) => inside(&key[self.key[..star].rfind('/').map_or(0, |slash| slash + 1)..]),
            None if self.path.is_empty() => leaf().to_owned(),
            None if self.path.ends_with('/') => inside(leaf()),
            None => self.path.clone(),
        }
    }
}

/// How a volume may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, one node.
    Roo,
    /// Read and write, one node.
    Rwo,
    /// Read only, many nodes.
    Rox,
    /// Read and write, many nodes.
    Rwx,
}

impl Access {
    /// The word in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roo => "roo",
            Self::Rwo => "rwo",
            Self::Rox => "rox",
            Self::Rwx => "rwx",
        }
    }

    /// Whether nothing is written.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Roo | Self::Rox)
    }
}

/// A volume that a service uses: the object `<namespace>/vol/<name>`, made when it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeClaim {
    /// The volume object's name.
    pub name: Name,
    /// Bytes it must have when it is made.
    pub size: Option<u64>,
    /// How it is used.
    pub access: Access,
    /// Only this pool.
    pub pool: Option<String>,
    /// Only pools of this type.
    pub pool_type: Option<String>,
    /// A filesystem, not a device.
    pub format: bool,
    /// All nodes see the same data.
    pub shared: bool,
    /// Directories that are made in it.
    pub directories: Vec<String>,
    /// Owner of its head: a name or number.
    pub user: Option<String>,
    /// Group of its head.
    pub group: Option<String>,
    /// Mode of its head.
    pub perm: Option<u32>,
    /// Mode of made directories.
    pub dirperm: Option<u32>,
    /// Files from `cfg` objects.
    pub configs: Vec<KeyFile>,
    /// Files from `sec` objects.
    pub secrets: Vec<KeyFile>,
}

/// What a volume object was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeObject {
    /// The pool that it is in.
    pub pool: String,
    /// Bytes.
    pub size: u64,
    /// How it may be used.
    pub access: Access,
    /// Services that use it.
    pub children: Vec<ObjectPath>,
}

/// A directory of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute.
    pub path: String,
    /// Owner.
    pub user: Option<String>,
    /// Group.
    pub group: Option<String>,
    /// Mode.
    pub perm: Option<u32>,
}

/// A file with a filesystem, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopDisk {
    /// The file; absolute.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Where it is mounted; absolute.
    pub mount_point: String,
    /// `ext4` unless said otherwise.
    pub filesystem: String,
}

/// A plain process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Words; the first is a program's absolute path.
    pub start: Vec<String>,
    /// Words of a command that stops it; none: SIGTERM, then SIGKILL.
    pub stop: Option<Vec<String>>,
    /// Words of a command that checks it: 0 up, 1 down, else warn; none: whether the process lives.
    pub check: Option<Vec<String>>,
    /// User it runs as.
    pub user: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Variables.
    pub environment: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_files() {
        let check = |pattern: &str, path: &str, key: &str, expected: &str| {
            let object = "creds".parse().expect("a name");
            let file = KeyFile { object, key: pattern.into(), path: path.into() };
            assert_eq!(file.destination(key), expected, "{pattern} {path} {key}");
        };
        check("a", "/etc/x", "a", "/etc/x");
        check("d/a", "/etc/", "d/a", "/etc/a");
        check("d/a", "", "d/a", "a");
        check("d/*", "/etc", "d/a", "/etc/a");
        check("d/*", "/etc/", "d/e/a", "/etc/e/a");
        check("*", "/etc/x/", "d/a", "/etc/x/d/a");
    }
}
