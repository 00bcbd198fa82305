//! Owns the API's wire types: what the daemon's socket takes and answers, version 1. Does not own what any of it means.
//!
//! HTTP/1.1 over a Unix socket, JSON bodies in UTF-8, every path below `/v1`. Answers that go on, such as events, are
//! one JSON object a line. Fields are only ever added within a version; readers ignore those they do not know.
//! Paths of objects are always full here: `test/svc/registry`. Times are seconds since 1970, with a fraction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod openapi;
pub mod routes;
pub mod server;

/// The version that is part of every path.
pub const VERSION: &str = "v1";
/// The longest body that is taken, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// The longest value of a key, in bytes.
pub const MAX_VALUE: usize = 48 << 10;

// --- Who answers -----------------------------------------------------------------------------------------------------

/// `GET /v1/daemon`: the daemon that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// This program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: f64,
    /// Its node.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id: a UUID.
    pub cluster_id: String,
    /// What it does besides: `dns 127.0.0.1:53`, `docker 26.1.5`, in words.
    pub parts: BTreeMap<String, String>,
}

// --- Status ----------------------------------------------------------------------------------------------------------

/// `GET /v1/status?selector=…[&refresh=true]`: what is known of the cluster and the selected objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// All nodes, by name.
    pub nodes: BTreeMap<String, NodeStatus>,
    /// The selected objects, by full path.
    pub objects: BTreeMap<String, ObjectStatus>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether its daemon is heard of.
    pub alive: bool,
    /// `idle`, or what it is busy with.
    pub state: String,
    /// Since when it starts nothing by itself.
    pub frozen: Option<f64>,
    /// The version of its daemon.
    pub version: String,
    /// Load of the last 15 minutes.
    pub load_15m: f64,
    /// Memory, in bytes.
    pub mem_total: u64,
    /// Memory that is not in use, in bytes.
    pub mem_available: u64,
    /// Swap, in bytes.
    pub swap_total: u64,
    /// Swap that is not in use, in bytes.
    pub swap_free: u64,
    /// 0 to 100, higher is less busy.
    pub score: u32,
    /// Words for selectors, from its configuration.
    pub labels: BTreeMap<String, String>,
}

/// An object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Its namespace.
    pub namespace: String,
    /// `svc`, `vol`, `cfg`, `sec` or `usr`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Number of its configuration: grows with every change.
    pub generation: u64,
    /// State over all nodes, a word: `up`, `down`, `warn`, `n/a`, `undef`, `stdby up`, `stdby down`.
    pub avail: String,
    /// The same, tainted by optional resources and warnings.
    pub overall: String,
    /// `optimal`, `non-optimal` or `n/a`.
    pub placement: String,
    /// `yes`, `no`, `mixed` or `n/a`.
    pub provisioned: String,
    /// `no`, `start` or `ha`.
    pub orchestrate: String,
    /// `failover`.
    pub topology: String,
    /// Lower starts first; 100 unless said.
    pub priority: u32,
    /// How many instances are up.
    pub up: u32,
    /// How many should be.
    pub target: u32,
    /// Why its configuration cannot be used, if it cannot.
    pub problems: Vec<Diagnostic>,
    /// By node.
    pub instances: BTreeMap<String, InstanceStatus>,
}

/// An object on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// State, a word.
    pub avail: String,
    /// State with optional resources and warnings.
    pub overall: String,
    /// State of optional resources.
    pub optional: String,
    /// `yes`, `no`, `mixed` or `n/a`.
    pub provisioned: String,
    /// Since when nothing is started by itself.
    pub frozen: Option<f64>,
    /// What is being done: `idle`, `starting`, `stopping`, `provisioning`, `start failed`, …
    pub monitor: String,
    /// `started` once it was: what dies is started again.
    pub local_expect: Option<String>,
    /// The wish that is not yet fulfilled: `started`, `provisioned`, …
    pub global_expect: Option<String>,
    /// The step that is under way, for people.
    pub progress: Option<String>,
    /// What made `monitor` a failure.
    pub error: Option<Failure>,
    /// Whether this node is the one to run it by preference.
    pub leader: bool,
    /// When its resources were looked at.
    pub updated: f64,
    /// Sorted by id.
    pub resources: BTreeMap<String, ResourceStatus>,
}

/// A resource of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Such as `ip.cni`, `container.docker`, `volume`, `sync.rsync`.
    #[serde(rename = "type")]
    pub kind: String,
    /// State, a word.
    pub status: String,
    /// What it is, for people.
    pub label: String,
    /// `yes`, `no` or `n/a`.
    pub provisioned: String,
    /// Explanations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<StatusLine>,
    /// Facts: `ipaddr`, `container_id`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub info: BTreeMap<String, String>,
    /// Words of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// It is being worked on now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub running: bool,
    /// When it is down for good, the instance moves.
    #[serde(default, skip_serializing_if = "is_false")]
    pub monitor: bool,
    /// It is skipped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable: bool,
    /// It does not count for `avail`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// It is inside a container's own system.
    #[serde(default, skip_serializing_if = "is_false")]
    pub encap: bool,
    /// It is up on every node.
    #[serde(default, skip_serializing_if = "is_false")]
    pub standby: bool,
    /// How often it is still started again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u32,
}

/// A line about a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusLine {
    /// `info`, `warn` or `error`.
    pub severity: String,
    /// One sentence, without a full stop.
    pub text: String,
}

// --- Errors ----------------------------------------------------------------------------------------------------------

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A word for programs; see [`code`].
    pub code: String,
    /// What failed, without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What is wrong with a configuration, all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// The words of [`Failure::code`].
pub mod code {
    /// The request makes no sense (400).
    pub const BAD_REQUEST: &str = "bad_request";
    /// The caller is not root (403).
    pub const FORBIDDEN: &str = "forbidden";
    /// No such object, key or path (404).
    pub const NOT_FOUND: &str = "not_found";
    /// It is there already (409).
    pub const EXISTS: &str = "exists";
    /// It was changed meanwhile, or is busy (409).
    pub const CONFLICT: &str = "conflict";
    /// A configuration has errors (422).
    pub const INVALID: &str = "invalid";
    /// Too large (413).
    pub const TOO_LARGE: &str = "too_large";
    /// The daemon failed (500).
    pub const INTERNAL: &str = "internal";
    /// What it needs does not answer (503).
    pub const UNAVAILABLE: &str = "unavailable";
}

/// Something wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// `warning` or `error`.
    pub severity: String,
    /// The file as the caller named it.
    pub file: String,
    /// From 1; 0: nowhere in particular.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

// --- Objects and their configuration ---------------------------------------------------------------------------------

/// `GET /v1/objects?selector=…`: full paths, sorted. 404 `not_found` where the selector is one plain path of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// Full paths.
    pub paths: Vec<String>,
}

/// `POST /v1/objects`: a new object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Full path.
    pub path: String,
    /// The configuration's text; empty for a default one.
    #[serde(default)]
    pub config: String,
    /// What to call the text in diagnostics, such as `/tmp/registry.template`.
    #[serde(default)]
    pub file: String,
    /// Keywords set in it, `section.keyword=value`.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// Keys of `[env]`, `key=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Keeps the `id` of the text.
    #[serde(default)]
    pub restore: bool,
    /// Provisions it too.
    #[serde(default)]
    pub provision: bool,
    /// Only checks, and says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to [`Create`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Full path.
    pub path: String,
    /// Number of its configuration.
    pub generation: u64,
    /// With `provision`: the request to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// With `dry_run`: the steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Step>,
    /// Warnings about the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `GET /v1/objects/{ns}/{kind}/{name}/config`: the text. Secrets' values are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// As it was written.
    pub text: String,
    /// Its number, to be sent back with a change.
    pub generation: u64,
    /// When it was changed last.
    pub modified: u64,
}

/// `PUT …/config`: another text. 409 `conflict` if the generation is no longer this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    /// The text.
    pub text: String,
    /// The generation it was made from; none: whatever is there.
    #[serde(default)]
    pub generation: Option<u64>,
    /// What to call the text in diagnostics.
    #[serde(default)]
    pub file: String,
    /// Only checks.
    #[serde(default)]
    pub dry_run: bool,
}

/// `PATCH …/config`: some keywords, in one write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// `[section.]keyword[@scope]OP value` with OP one of `=`, `+=`, `-=`, `|=`.
    #[serde(default)]
    pub set: Vec<String>,
    /// `[section.]keyword[@scope]`, or `section` alone with its `#` to remove it whole.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Removed sections.
    #[serde(default)]
    pub sections: Vec<String>,
    /// Only checks.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to a change of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The number of the configuration now.
    pub generation: u64,
    /// Whether it is another text than before.
    pub changed: bool,
    /// Warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// `GET …/config/eval[?node=N]`: what the configuration means on a node, by section and keyword. Numbers, lists and
/// booleans are JSON's.
pub type Evaluated = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

/// `POST …/config/check` with a [`Replace`] (the stored text if its text is empty), `GET …/config/check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// All that is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

// --- Keys ------------------------------------------------------------------------------------------------------------

/// `GET …/keys[?match=GLOB]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Sorted.
    pub keys: Vec<KeyInfo>,
}

/// A key, without its value. `GET …/keys/value?key=K` answers the bytes themselves,
/// `PUT …/keys/value?key=K&mode=add|change|append` takes them, `DELETE …/keys/value?key=K` removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name; may have slashes.
    pub name: String,
    /// Bytes of its value.
    pub size: u64,
    /// Grows with every change.
    pub version: u64,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The key must not be there.
    Add,
    /// The key may be there.
    Change,
    /// After what is there.
    Append,
}

impl WriteMode {
    /// The word in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Append => "append",
        }
    }
}

/// Answer to `PUT` and `DELETE` of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// False: there was nothing to do.
    pub changed: bool,
    /// Bytes of the value now.
    pub size: u64,
}

// --- Actions ---------------------------------------------------------------------------------------------------------

/// `POST /v1/actions`: a verb for the selected objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Which objects.
    pub selector: String,
    /// `provision`, `unprovision`, `start`, `stop`, `restart`, `shutdown`, `freeze`, `thaw`, `clear`, `abort`,
    /// `delete`, `purge`, `switch`, `takeover`, `giveback`, `enable`, `disable`, `refresh`.
    pub verb: String,
    /// Only this node's instance.
    #[serde(default)]
    pub local: bool,
    /// Only these resources, or groups of them: `container#1`, `ip`.
    #[serde(default)]
    pub rids: Vec<String>,
    /// Only resources with one of these tags; `a+b` asks for both.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Only resources of these subsets.
    #[serde(default)]
    pub subsets: Vec<String>,
    /// Nodes of `switch`.
    #[serde(default)]
    pub to: Vec<String>,
    /// Skips checks, stops standby resources too.
    #[serde(default)]
    pub force: bool,
    /// `delete` unprovisions before.
    #[serde(default)]
    pub unprovision: bool,
    /// Keeps what a failed start had started.
    #[serde(default)]
    pub disable_rollback: bool,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to [`Act`]: one for each object, sorted by path. The status is 200 also if some were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// What became of the wish.
    pub results: Vec<ActResult>,
}

/// What became of a wish for one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActResult {
    /// Full path.
    pub path: String,
    /// The request to follow with [`Event`]s; none: done, or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The target that was set: `started`, `stopped`, `provisioned`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Failure>,
    /// With `dry_run`: the steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Step>,
}

/// A step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub node: String,
    /// `provision`, `start`, `stop`, `unprovision`.
    pub verb: String,
    /// Which resource.
    pub rid: String,
    /// What it is, for people.
    pub label: String,
}

// --- Events and logs -------------------------------------------------------------------------------------------------

/// A line of `GET /v1/events[?selector=…][&request=ID]`.
///
/// With `request` the stream begins with what was said of the request before, and ends after its [`Event::Ended`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An instance is seen otherwise than before. Also sent for every selected object at the beginning.
    Instance {
        /// Full path.
        path: String,
        /// Where.
        node: String,
        /// The object as it is now.
        object: Box<ObjectStatus>,
    },
    /// An object is no more.
    Gone {
        /// Full path.
        path: String,
    },
    /// A node is seen otherwise.
    Node {
        /// Which.
        node: String,
        /// As it is now.
        status: Box<NodeStatus>,
    },
    /// How far a step is.
    Progress {
        /// Full path.
        path: String,
        /// Where.
        node: String,
        /// Which resource, if one.
        rid: Option<String>,
        /// A short line: `pulling registry: 12.3 of 40.1 MiB`.
        text: String,
        /// The request that it is part of.
        request: Option<String>,
    },
    /// A request is done, or failed, or was taken back.
    Ended {
        /// Full path.
        path: String,
        /// The request.
        request: String,
        /// Why it failed; none: it is as was asked.
        failure: Option<Failure>,
    },
    /// Nothing happened for some seconds; the reader knows that the daemon lives.
    Alive,
}

/// A line of `GET /v1/logs?selector=…[&follow=true][&backlog=BYTES][&node=true]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub time: f64,
    /// Where.
    pub node: String,
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// Full path, or empty for the node.
    pub path: String,
    /// The resource, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    /// What was said.
    pub text: String,
}

/// `GET …/enter?rid=R`: how to get a shell in a container; `GET …/output?rid=R`: how to see what a resource prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enter {
    /// The program and its words, to be run on the caller's terminal.
    pub command: Vec<String>,
}

// --- Node, cluster, pools, networks, DNS -----------------------------------------------------------------------------

/// `GET /v1/node`: this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// As other nodes see it.
    pub status: NodeStatus,
    /// Facts: `kernel`, `os`, `cpus`, `engine`, `cgroup`, …
    pub facts: BTreeMap<String, String>,
}

/// `POST /v1/node/actions`: `freeze` or `thaw` this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAct {
    /// The verb.
    pub verb: String,
}

/// `GET /v1/pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// Sorted by name.
    pub pools: Vec<Pool>,
}

/// A pool of volumes, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `directory`, `loop` or `shared`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Such as `rox`, `rwx`, `shared`.
    pub capabilities: Vec<String>,
    /// Where it is.
    pub head: String,
    /// Bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can be promised.
    pub free: u64,
    /// Why it cannot be used, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Volumes in it.
    pub volumes: Vec<PoolVolume>,
}

/// A volume in a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolVolume {
    /// The volume object: full path.
    pub path: String,
    /// Bytes that were promised.
    pub size: u64,
    /// Services that use it: full paths.
    pub children: Vec<String>,
}

/// `GET /v1/networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// Sorted by name.
    pub networks: Vec<Network>,
}

/// A network, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// `bridge` or `routed_bridge`.
    #[serde(rename = "type")]
    pub kind: String,
    /// All of it: `10.22.0.0/16`.
    pub network: String,
    /// This node's part.
    pub subnet: String,
    /// Addresses of this node's part that can be given.
    pub size: u64,
    /// Addresses in use here.
    pub addresses: Vec<Address>,
}

/// An address that a resource has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: String,
    /// The service: full path.
    pub path: String,
    /// Its resource.
    pub rid: String,
    /// Where.
    pub node: String,
}

/// `GET /v1/dns`: the zone as it is answered now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The zone, with its last dot.
    pub zone: String,
    /// Where it is answered: `169.254.53.53:53`.
    pub listen: Vec<String>,
    /// Why it is not answered where it should be, a line each.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The servers that are asked for all other names.
    #[serde(default)]
    pub upstream: Vec<String>,
    /// How the node resolves names: `systemd-resolved`, `resolv.conf`, `NetworkManager`.
    #[serde(default)]
    pub resolver: String,
    /// Whether the node itself asks the cluster's DNS.
    #[serde(default)]
    pub wired: bool,
    /// In the order of a zone file.
    pub records: Vec<DnsRecord>,
}

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// With its last dot.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// `A`, `SRV`, `PTR`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// As in a zone file.
    pub data: String,
}

/// `POST /v1/dns/setup`: makes this node's resolver ask the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSetup {
    /// Takes it back.
    #[serde(default)]
    pub undo: bool,
    /// Only says what would be changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to [`DnsSetup`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSetupDone {
    /// How the node resolves names: `systemd-resolved`, `resolv.conf`, `NetworkManager`.
    pub resolver: String,
    /// What is changed, a line each.
    pub changes: Vec<String>,
    /// Whether it was.
    pub done: bool,
}

/// `POST /v1/daemon/actions`: `stop` ends the daemon and leaves services as they are, `shutdown` stops them before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonAct {
    /// The verb.
    pub verb: String,
}

/// The answer where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
