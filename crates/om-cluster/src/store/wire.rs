//! Owns how records are written: JSON with types of its own, so that the domain can change without the store, and older
//! records read. A configuration is one line of JSON and then its text as it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use om_core::{
    aggregate::Summary,
    kv::Entry,
    path::Rid,
    status::{Line, Provisioned, ResourceStatus, Severity, Status},
    view::{At, Failure, Monitor, Order, Owner, Phase, Report, Session, Target, Want, Work},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Config, NodeFacts, StoreError, wall_ms};

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|_| damaged(entry))
}

fn damaged(entry: &Entry) -> StoreError {
    StoreError::Damaged(entry.key.to_string())
}

fn write(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records are maps with text keys, which JSON has")
}

// --- Cluster and nodes -----------------------------------------------------------------------------------------------

/// The cluster's own record.
#[derive(Serialize, Deserialize)]
pub(super) struct Cluster {
    pub(super) id: String,
    /// Nothing, sealed: opens with the cluster's key alone.
    pub(super) proof: Vec<u8>,
    created: u64,
}

pub(super) fn cluster(entry: Option<&Entry>) -> Result<Option<Cluster>, StoreError> {
    entry.map(read).transpose()
}

pub(super) fn put_cluster(id: String, proof: Vec<u8>) -> Vec<u8> {
    write(&Cluster { id, proof, created: wall_ms() })
}

#[derive(Serialize, Deserialize)]
struct NodeRecord {
    version: String,
    #[serde(default)]
    facts: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

pub(super) fn node(entry: &Entry) -> Result<NodeFacts, StoreError> {
    let NodeRecord { version, facts, labels } = read(entry)?;
    Ok(NodeFacts { version, facts, labels })
}

pub(super) fn put_node(facts: &NodeFacts) -> Vec<u8> {
    let NodeFacts { version, facts, labels } = facts.clone();
    write(&NodeRecord { version, facts, labels })
}

// --- Configurations --------------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct ConfigHead {
    generation: u64,
    modified: u64,
}

pub(super) fn config(entry: &Entry) -> Result<Config, StoreError> {
    let (head, text) =
        std::str::from_utf8(&entry.value).ok().and_then(|all| all.split_once('\n')).ok_or_else(|| damaged(entry))?;
    let ConfigHead { generation, modified } = serde_json::from_str(head).map_err(|_| damaged(entry))?;
    Ok(Config { generation, text: text.into(), modified, rev: entry.modified })
}

pub(super) fn put_config(generation: u64, text: &str, modified: u64) -> Vec<u8> {
    let mut record = write(&ConfigHead { generation, modified });
    record.push(b'\n');
    record.extend_from_slice(text.as_bytes());
    record
}

// --- Wants -----------------------------------------------------------------------------------------------------------

#[derive(Default, Serialize, Deserialize)]
struct WantRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<OrderRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen: Option<u64>,
    #[serde(default)]
    cleared: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<(String, Option<FailureRecord>)>,
}

#[derive(Serialize, Deserialize)]
struct OrderRecord {
    id: String,
    target: String,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    keep: bool,
}

#[derive(Serialize, Deserialize)]
struct FailureRecord {
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl From<FailureRecord> for Failure {
    fn from(FailureRecord { message, hint }: FailureRecord) -> Self {
        Self { message, hint }
    }
}

impl From<&Failure> for FailureRecord {
    fn from(failure: &Failure) -> Self {
        Self { message: failure.message.clone(), hint: failure.hint.clone() }
    }
}

pub(super) fn want(entry: &Entry) -> Result<At<Want>, StoreError> {
    let WantRecord { order, frozen, cleared, last } = read(entry)?;
    let order = order
        .map(|OrderRecord { id, target, force, keep }| {
            let target = Target::from_word(&target).ok_or_else(|| damaged(entry))?;
            Ok::<_, StoreError>(Order { id, target, force, keep })
        })
        .transpose()?;
    let last = last.map(|(id, failure)| (id, failure.map(Into::into)));
    Ok(At { value: Want { order, frozen, cleared, last }, rev: entry.modified })
}

pub(super) fn put_want(want: &Want) -> Vec<u8> {
    let order = want.order.as_ref().map(|order| OrderRecord {
        id: order.id.clone(),
        target: order.target.word(),
        force: order.force,
        keep: order.keep,
    });
    let last = want.last.as_ref().map(|(id, failure)| (id.clone(), failure.as_ref().map(Into::into)));
    write(&WantRecord { order, frozen: want.frozen, cleared: want.cleared, last })
}

// --- Owners and sessions ---------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct OwnerRecord {
    node: String,
    epoch: u64,
    /// False: nobody runs it.
    held: bool,
}

pub(super) fn owner(entry: &Entry) -> Result<At<Owner>, StoreError> {
    let OwnerRecord { node, epoch, held } = read(entry)?;
    let node = node.parse().map_err(|_| damaged(entry))?;
    let phase = if held { Phase::Held } else { Phase::Free };
    Ok(At { value: Owner { node, epoch, phase }, rev: entry.modified })
}

pub(super) fn put_owner(owner: &Owner) -> Vec<u8> {
    write(&OwnerRecord { node: owner.node.to_string(), epoch: owner.epoch, held: owner.phase == Phase::Held })
}

#[derive(Serialize, Deserialize)]
struct SessionRecord {
    epoch: u64,
    boot: String,
    seq: u64,
    live: bool,
    takeover_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen: Option<u64>,
}

pub(super) fn session(entry: &Entry) -> Result<At<Session>, StoreError> {
    let SessionRecord { epoch, boot, seq, live, takeover_ms, frozen } = read(entry)?;
    let takeover = Duration::from_millis(takeover_ms);
    Ok(At { value: Session { epoch, boot, seq, live, takeover, frozen }, rev: entry.modified })
}

pub(super) fn put_session(session: &Session) -> Vec<u8> {
    let Session { epoch, boot, seq, live, takeover, frozen } = session.clone();
    let takeover_ms = u64::try_from(takeover.as_millis()).unwrap_or(u64::MAX);
    write(&SessionRecord { epoch, boot, seq, live, takeover_ms, frozen })
}

// --- Reports ---------------------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct ReportRecord {
    generation: u64,
    /// `avail`, `optional`, `overall`, words.
    states: [String; 3],
    provisioned: String,
    resources: BTreeMap<String, ResourceRecord>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    restarts: BTreeMap<String, u32>,
    monitor: MonitorRecord,
    expected: bool,
    boot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<String>,
    updated: u64,
}

#[derive(Serialize, Deserialize)]
struct ResourceRecord {
    status: String,
    label: String,
    provisioned: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<(char, String)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    info: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MonitorRecord {
    Idle,
    Busy(String),
    Failed { work: String, request: Option<String>, cleared: u64, failure: FailureRecord },
}

fn provisioned_word(provisioned: Provisioned) -> &'static str {
    match provisioned {
        Provisioned::Yes => "yes",
        Provisioned::No => "no",
        Provisioned::Mixed => "mixed",
        Provisioned::NotApplicable => "n/a",
    }
}

fn provisioned_of(word: &str) -> Option<Provisioned> {
    let all = [Provisioned::Yes, Provisioned::No, Provisioned::Mixed, Provisioned::NotApplicable];
    all.into_iter().find(|one| provisioned_word(*one) == word)
}

fn severity_sign(severity: Severity) -> char {
    match severity {
        Severity::Info => 'i',
        Severity::Warn => 'w',
        Severity::Error => 'e',
    }
}

fn severity_of(sign: char) -> Option<Severity> {
    [Severity::Info, Severity::Warn, Severity::Error].into_iter().find(|one| severity_sign(*one) == sign)
}

fn work_of(verb: &str) -> Option<Work> {
    Work::ALL.into_iter().find(|work| work.verb() == verb)
}

pub(super) fn report(entry: &Entry) -> Result<Report, StoreError> {
    read(entry).and_then(|record| report_of(record).ok_or_else(|| damaged(entry)))
}

fn report_of(record: ReportRecord) -> Option<Report> {
    let [avail, optional, overall] = &record.states;
    let resource = |(rid, record): (String, ResourceRecord)| -> Option<(Rid, ResourceStatus)> {
        let line = |(sign, text)| Some(Line { severity: severity_of(sign)?, text });
        let status = ResourceStatus {
            status: Status::from_word(&record.status)?,
            label: record.label,
            lines: record.lines.into_iter().map(line).collect::<Option<_>>()?,
            provisioned: provisioned_of(&record.provisioned)?,
            info: record.info,
        };
        Some((rid.parse().ok()?, status))
    };
    Some(Report {
        generation: record.generation,
        summary: Summary {
            avail: Status::from_word(avail)?,
            optional: Status::from_word(optional)?,
            overall: Status::from_word(overall)?,
            provisioned: provisioned_of(&record.provisioned)?,
        },
        resources: record.resources.into_iter().map(resource).collect::<Option<_>>()?,
        restarts: record
            .restarts
            .into_iter()
            .map(|(rid, left)| Some((rid.parse().ok()?, left)))
            .collect::<Option<_>>()?,
        monitor: match record.monitor {
            MonitorRecord::Idle => Monitor::Idle,
            MonitorRecord::Busy(work) => Monitor::Busy(work_of(&work)?),
            MonitorRecord::Failed { work, request, cleared, failure } => {
                Monitor::Failed { work: work_of(&work)?, request, cleared, failure: failure.into() }
            }
        },
        expected: record.expected,
        boot: record.boot,
        done: record.done,
        updated: record.updated,
    })
}

pub(super) fn put_report(report: &Report) -> Vec<u8> {
    let Summary { avail, optional, overall, provisioned } = report.summary;
    let resource = |(rid, status): (&Rid, &ResourceStatus)| {
        let record = ResourceRecord {
            status: status.status.to_string(),
            label: status.label.clone(),
            provisioned: provisioned_word(status.provisioned).into(),
            lines: status.lines.iter().map(|line| (severity_sign(line.severity), line.text.clone())).collect(),
            info: status.info.clone(),
        };
        (rid.to_string(), record)
    };
    write(&ReportRecord {
        generation: report.generation,
        states: [avail, optional, overall].map(|status| status.to_string()),
        provisioned: provisioned_word(provisioned).into(),
        resources: report.resources.iter().map(resource).collect(),
        restarts: report.restarts.iter().map(|(rid, left)| (rid.to_string(), *left)).collect(),
        monitor: match &report.monitor {
            Monitor::Idle => MonitorRecord::Idle,
            Monitor::Busy(work) => MonitorRecord::Busy(work.verb().into()),
            Monitor::Failed { work, request, cleared, failure } => MonitorRecord::Failed {
                work: work.verb().into(),
                request: request.clone(),
                cleared: *cleared,
                failure: failure.into(),
            },
        },
        expected: report.expected,
        boot: report.boot.clone(),
        done: report.done.clone(),
        updated: report.updated,
    })
}

/// A configuration as the engine sees it.
pub(super) fn object(entry: &Entry) -> Result<At<om_core::truth::Object>, StoreError> {
    let Config { generation, text, rev, .. } = config(entry)?;
    Ok(At { value: om_core::truth::Object { generation, text: Arc::clone(&text) }, rev })
}

#[cfg(test)]
mod tests {
    use om_core::kv::Rev;

    use super::*;

    fn entry(value: Vec<u8>) -> Entry {
        Entry { key: "/k".into(), value: value.into(), created: Rev(1), modified: Rev(7) }
    }

    #[test]
    fn records_read_back() {
        let failure = Failure { message: "no".into(), hint: Some("try".into()) };
        let targets = [
            Target::Provisioned,
            Target::Unprovisioned,
            Target::Purged,
            Target::Deleted,
            Target::Started,
            Target::Stopped,
            Target::Shutdown,
            Target::Restarted,
            Target::Placed("n2".parse().expect("a node")),
            Target::Giveback,
        ];
        for target in targets {
            let value = Want {
                order: Some(Order { id: "r1".into(), target, force: true, keep: false }),
                frozen: Some(5),
                cleared: 3,
                last: Some(("r0".into(), Some(failure.clone()))),
            };
            let back = want(&entry(put_want(&value))).expect("a want");
            assert_eq!(back, At { value, rev: Rev(7) });
        }
        let node: om_core::path::NodeName = "n1".parse().expect("a node");
        for phase in [Phase::Held, Phase::Free] {
            let value = Owner { node: node.clone(), epoch: 4, phase };
            assert_eq!(owner(&entry(put_owner(&value))).expect("an owner").value, value);
        }
        let value =
            Session { epoch: 2, boot: "b".into(), seq: 9, live: true, takeover: Duration::from_secs(20), frozen: None };
        assert_eq!(session(&entry(put_session(&value))).expect("a session").value, value);
        let read = config(&entry(put_config(3, "[DEFAULT]\n\nx = ü\n", 8))).expect("a configuration");
        assert_eq!((read.generation, &*read.text, read.modified), (3, "[DEFAULT]\n\nx = ü\n", 8));
        assert_eq!(&*config(&entry(put_config(1, "", 8))).expect("an empty one").text, "");
        assert!(config(&entry(b"{}".to_vec())).is_err());
        assert!(want(&entry(br#"{"order":{"id":"x","target":"flying"}}"#.to_vec())).is_err());
        assert_eq!(want(&entry(b"{}".to_vec())).expect("all of it is optional").value, Want::default());
    }

    #[test]
    fn reports_read_back() {
        let rid: Rid = "container#1".parse().expect("a resource");
        let monitors = [
            Monitor::Idle,
            Monitor::Busy(Work::Provision),
            Monitor::Failed {
                work: Work::Start,
                request: None,
                cleared: 2,
                failure: Failure { message: "no".into(), hint: None },
            },
        ];
        for monitor in monitors {
            let mut status = ResourceStatus::new(Status::Warn, "docker x").with(Severity::Error, "it broke");
            status.info.insert("ipaddr".into(), "10.0.0.1".into());
            let value = Report {
                generation: 3,
                summary: Summary { provisioned: Provisioned::Mixed, avail: Status::StandbyUp, ..Summary::UNKNOWN },
                resources: BTreeMap::from([(rid.clone(), status)]),
                restarts: BTreeMap::from([(rid.clone(), 2)]),
                monitor,
                expected: true,
                boot: "b".into(),
                done: Some("r1".into()),
                updated: 5,
            };
            assert_eq!(report(&entry(put_report(&value))).expect("a report"), value);
        }
        assert!(report(&entry(b"{}".to_vec())).is_err());
    }
}
