//! Owns what a node knows of the cluster when it decides: what users asked for, who owns what, what was reported. Plain
//! facts, each with the revision it was read at. Does not own how facts are stored, and decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    aggregate::Summary,
    instance::InstanceConfig,
    kv::Rev,
    path::{NodeName, ObjectPath, Rid},
    status::ResourceStatus,
};

/// A fact of the shared state, with the transaction that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The fact.
    pub value: T,
    /// The revision to compare with in a change.
    pub rev: Rev,
}

/// Where an order leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything it needs is made; then it is started.
    Provisioned,
    /// Stopped, and what it needed is destroyed.
    Unprovisioned,
    /// Unprovisioned, and the object is no more.
    Purged,
    /// Stopped, and the object is no more; its data stays.
    Deleted,
    /// It runs.
    Started,
    /// It does not.
    Stopped,
    /// It does not, standby resources included.
    Shutdown,
    /// It was stopped and started where it runs.
    Restarted,
    /// It runs on this node.
    Placed(NodeName),
    /// It runs on the node that is preferred.
    Giveback,
}

impl Target {
    /// The word for people, as in `>started`.
    pub fn word(&self) -> String {
        match self {
            Self::Provisioned => "provisioned".into(),
            Self::Unprovisioned => "unprovisioned".into(),
            Self::Purged => "purged".into(),
            Self::Deleted => "deleted".into(),
            Self::Started => "started".into(),
            Self::Stopped => "stopped".into(),
            Self::Shutdown => "shutdown".into(),
            Self::Restarted => "restarted".into(),
            Self::Placed(node) => format!("placed@{node}"),
            Self::Giveback => "placed".into(),
        }
    }

    /// The target that a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "provisioned" => Self::Provisioned,
            "unprovisioned" => Self::Unprovisioned,
            "purged" => Self::Purged,
            "deleted" => Self::Deleted,
            "started" => Self::Started,
            "stopped" => Self::Stopped,
            "shutdown" => Self::Shutdown,
            "restarted" => Self::Restarted,
            "placed" => Self::Giveback,
            _ => Self::Placed(word.strip_prefix("placed@")?.parse().ok()?),
        })
    }

    /// Whether it ends with nothing running.
    pub fn stops(&self) -> bool {
        matches!(self, Self::Unprovisioned | Self::Purged | Self::Deleted | Self::Stopped | Self::Shutdown)
    }
}

/// Something asked for that is not yet so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who asked can follow it by this.
    pub id: String,
    /// Where it leads.
    pub target: Target,
    /// Skips checks.
    pub force: bool,
    /// What a failed start had started is kept.
    pub keep: bool,
}

/// What users want of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The order that is not yet fulfilled.
    pub order: Option<Order>,
    /// Since when nothing is done by itself; seconds since 1970.
    pub frozen: Option<u64>,
    /// How often failures were cleared: reports of before do not count as failed.
    pub cleared: u64,
    /// The order that ended last, and why it failed.
    pub last: Option<(String, Option<Failure>)>,
}

impl Want {
    /// This, with a new order: starts thaw, stops freeze, so that nothing is started again by itself.
    #[must_use]
    pub fn ordered(&self, order: Order, now: u64) -> Self {
        let frozen = match &order.target {
            target if target.stops() => self.frozen.or(Some(now)),
            Target::Provisioned | Target::Restarted => self.frozen,
            _ => None,
        };
        Self { order: Some(order), frozen, cleared: self.cleared + 1, last: self.last.clone() }
    }

    /// This, with the order ended: as was asked, or with a failure.
    #[must_use]
    pub fn ended(&self, failure: Option<Failure>) -> Self {
        let last = self.order.as_ref().map(|order| (order.id.clone(), failure)).or_else(|| self.last.clone());
        Self { order: None, last, ..self.clone() }
    }

    /// This, frozen or not.
    #[must_use]
    pub fn freeze(&self, since: Option<u64>) -> Self {
        Self { frozen: since, ..self.clone() }
    }

    /// This, with failures forgotten.
    #[must_use]
    pub fn clear(&self) -> Self {
        Self { cleared: self.cleared + 1, ..self.clone() }
    }
}

/// Why something did not come about, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How far an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It may be running.
    Held,
    /// Nobody runs it.
    Free,
}

/// Which node may run a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeName,
    /// The session of the node that it was granted to.
    pub epoch: u64,
    /// How far it is.
    pub phase: Phase,
}

/// A node's sign of life, written again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Another one whenever the node's daemon lost its session.
    pub epoch: u64,
    /// Another one after every boot.
    pub boot: String,
    /// Grows with every renewal.
    pub seq: u64,
    /// False: declared dead.
    pub live: bool,
    /// How long others wait for a renewal before they declare it dead.
    pub takeover: Duration,
    /// Since when nothing is started on the node by itself; seconds since 1970.
    pub frozen: Option<u64>,
}

/// A node as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its last sign of life.
    pub session: At<Session>,
    /// How long ago this one was first seen here.
    pub age: Duration,
}

/// What an instance is busy with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// Nothing.
    #[default]
    Idle,
    /// A job.
    Busy(Work),
    /// Its last job failed, and was not cleared.
    Failed {
        /// The job.
        work: Work,
        /// The order that it was for.
        request: Option<String>,
        /// [`Want::cleared`] of then.
        cleared: u64,
        /// Why.
        failure: Failure,
    },
}

/// Kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Makes what is needed.
    Provision,
    /// Starts all.
    Start,
    /// Starts some again.
    Repair,
    /// Stops all.
    Stop,
    /// Stops, and starts.
    Restart,
    /// Stops, and destroys.
    Unprovision,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Provision, Self::Start, Self::Repair, Self::Stop, Self::Restart, Self::Unprovision];

    /// What it is called while it goes on.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Provision => "provisioning",
            Self::Start => "starting",
            Self::Repair | Self::Restart => "restarting",
            Self::Stop => "stopping",
            Self::Unprovision => "unprovisioning",
        }
    }

    /// What it is called in an order, and before `failed`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Start => "start",
            Self::Repair => "repair",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Unprovision => "unprovision",
        }
    }
}

/// What a node says of its instance of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Generation of the configuration that it is of.
    pub generation: u64,
    /// Its resources, merged.
    pub summary: Summary,
    /// Its resources.
    pub resources: BTreeMap<Rid, ResourceStatus>,
    /// Restarts left, of resources that have any.
    pub restarts: BTreeMap<Rid, u32>,
    /// What it is busy with.
    pub monitor: Monitor,
    /// It was started and not stopped: what dies is started again.
    pub expected: bool,
    /// The boot in which this was seen.
    pub boot: String,
    /// The last order whose job was done here.
    pub done: Option<String>,
    /// When its resources were looked at; milliseconds since 1970.
    pub updated: u64,
}

/// What this node alone knows of its instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// A job is running.
    pub job: Option<Job>,
    /// Its resources were looked at since the daemon started.
    pub seen: bool,
    /// The boot in which it was last reported is another.
    pub booted: bool,
    /// Whatever runs its resources was away: what is down since may not have died by itself.
    pub interrupted: bool,
    /// Earliest time of another start by itself; of [`View::now`].
    pub not_before: Duration,
    /// Earliest time of another restart of these resources.
    pub resources: BTreeMap<Rid, Duration>,
}

/// A job of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it does.
    pub work: Work,
    /// The order that it is for.
    pub request: Option<String>,
    /// Only these resources; empty: all.
    pub only: BTreeSet<Rid>,
    /// Standby resources are stopped too.
    pub force: bool,
    /// What a failed start had started is kept.
    pub keep: bool,
    /// Of a provision: this node makes what is made once for all nodes, and starts it.
    pub leader: bool,
}

impl Job {
    /// A job of all resources that nobody ordered.
    pub fn new(work: Work) -> Self {
        Self { work, request: None, only: BTreeSet::new(), force: false, keep: false, leader: true }
    }

    /// For an order.
    #[must_use]
    pub fn ordered(mut self, order: &Order) -> Self {
        self.request = Some(order.id.clone());
        self.force = order.force || order.target == Target::Shutdown;
        self.keep = order.keep;
        self
    }
}

/// An object as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// Number of its configuration.
    pub generation: u64,
    /// What it means on this node; none: it cannot be used.
    pub config: Option<Arc<InstanceConfig>>,
    /// What is wanted of it.
    pub want: At<Want>,
    /// Who owns it; none: nobody ever.
    pub owner: Option<At<Owner>>,
    /// What nodes say of it. Of this node: what it would say now.
    pub reports: BTreeMap<NodeName, Report>,
    /// What only this node knows.
    pub local: Local,
}

/// Everything a node knows when it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// This node.
    pub me: NodeName,
    /// All nodes of the cluster, also those that were never heard of.
    pub members: Vec<NodeName>,
    /// Time since the daemon started.
    pub now: Duration,
    /// Seconds since 1970, to be written, never compared.
    pub wall: u64,
    /// How long ago the last renewal of this node's session that succeeded was sent; none: it has none.
    pub renewed: Option<Duration>,
    /// Without a renewal for so long, this node stops what it owns.
    pub soft_stop: Duration,
    /// Nodes with sessions, this one included.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// All objects that have resources.
    pub objects: BTreeMap<ObjectPath, ObjectView>,
}

impl View {
    /// Whether this node may start things: its session is renewed. A cluster of one node has nobody to agree with.
    pub fn is_live(&self) -> bool {
        self.members.len() < 2 || self.renewed.is_some_and(|age| age < self.soft_stop)
    }

    /// Whether a node's session is live.
    pub fn lives(&self, node: &NodeName) -> bool {
        if *node == self.me {
            return self.is_live();
        }
        self.nodes.get(node).is_some_and(|seen| seen.session.value.live)
    }

    /// This node's session number; 0 where there is none.
    pub fn epoch(&self) -> u64 {
        self.nodes.get(&self.me).map_or(0, |node| node.session.value.epoch)
    }

    /// Whether nothing is started by itself on a node.
    pub fn is_frozen(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|seen| seen.session.value.frozen.is_some())
    }
}

impl ObjectView {
    /// What a node says of it.
    pub fn report(&self, node: &NodeName) -> Option<&Report> {
        self.reports.get(node)
    }

    /// Why the last job of a node failed, if that still counts.
    pub fn failure(&self, node: &NodeName) -> Option<(Work, Option<&str>, &Failure)> {
        match &self.report(node)?.monitor {
            Monitor::Failed { work, request, cleared, failure } if *cleared == self.want.value.cleared => {
                Some((*work, request.as_deref(), failure))
            }
            _ => None,
        }
    }

    /// Whether a node is busy with it.
    pub fn is_busy(&self, node: &NodeName) -> bool {
        self.report(node).is_some_and(|report| matches!(report.monitor, Monitor::Busy(_)))
    }
}
