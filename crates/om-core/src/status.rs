//! Owns what is seen of resources and instances: states, how they merge, and the flags and lines that explain them.
//! Does not own how it is shown.

use std::{collections::BTreeMap, fmt};

use crate::path::{NodeName, ObjectPath, Rid};

/// The state of a resource, an instance or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It runs.
    Up,
    /// It does not.
    Down,
    /// It runs with a fault, or in part.
    Warn,
    /// The question does not apply.
    NotApplicable,
    /// Nothing is known.
    Undef,
    /// A resource that is kept up on every node, and is.
    StandbyUp,
    /// A resource that is kept up on every node, and is not.
    StandbyDown,
}

impl Status {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Warn => "warn",
            Self::NotApplicable => "n/a",
            Self::Undef => "undef",
            Self::StandbyUp => "stdby up",
            Self::StandbyDown => "stdby down",
        }
    }

    /// The exit code of `om … status`.
    pub fn code(self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Down => 1,
            Self::Warn => 2,
            Self::NotApplicable => 3,
            Self::Undef => 5,
            Self::StandbyUp => 6,
            Self::StandbyDown => 7,
        }
    }

    /// The state that a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        use Status::{Down, NotApplicable, StandbyDown, StandbyUp, Undef, Up, Warn};
        [Up, Down, Warn, NotApplicable, Undef, StandbyUp, StandbyDown].into_iter().find(|s| s.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Many states merged into one, in any order.
///
/// Inside it two more states are told apart, so that the order makes no difference: a standby resource that is up
/// beside one that is up, and beside one that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge(Inner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    Plain(Status),
    UpBesideStandby,
    DownBesideStandby,
}

impl Default for Merge {
    fn default() -> Self {
        Self(Inner::Plain(Status::Undef))
    }
}

impl Merge {
    /// Adds one state.
    #[must_use]
    pub fn and(self, other: Status) -> Self {
        use Inner::{DownBesideStandby, Plain, UpBesideStandby};
        use Status::{Down, NotApplicable, StandbyDown, StandbyUp, Undef, Up, Warn};
        Self(match (self.0, other) {
            (state, Undef) => state,
            (Plain(Undef), other) => Plain(other),
            (state, NotApplicable) => state,
            (Plain(NotApplicable), other) => Plain(other),
            (Plain(Warn), _) | (_, Warn) => Plain(Warn),
            (Plain(a), b) if a == b => Plain(a),
            (Plain(Up | StandbyUp), Up | StandbyUp) => UpBesideStandby,
            (Plain(Down | StandbyUp), Down | StandbyUp) => DownBesideStandby,
            (Plain(Down | StandbyDown), Down | StandbyDown) => Plain(StandbyDown),
            (UpBesideStandby, Up | StandbyUp) => UpBesideStandby,
            (DownBesideStandby, Down | StandbyUp) => DownBesideStandby,
            _ => Plain(Warn),
        })
    }

    /// What it comes to.
    pub fn status(self) -> Status {
        match self.0 {
            Inner::Plain(status) => status,
            Inner::UpBesideStandby => Status::Up,
            Inner::DownBesideStandby => Status::StandbyUp,
        }
    }
}

impl FromIterator<Status> for Merge {
    fn from_iter<I: IntoIterator<Item = Status>>(states: I) -> Self {
        states.into_iter().fold(Self::default(), Self::and)
    }
}

/// Whether what a resource needs was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provisioned {
    /// It was.
    Yes,
    /// It was not.
    No,
    /// Of an instance: some resources were.
    Mixed,
    /// There is nothing to make.
    NotApplicable,
}

/// How bad a line about a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Taints nothing.
    Info,
    /// Makes the overall state `warn`.
    Warn,
    /// Makes the overall state `warn`.
    Error,
}

/// A line that explains the state of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence, without a full stop.
    pub text: String,
}

/// What was seen of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its state. A driver says up, down, warn, n/a or undef; standby is added by [`crate::instance`]'s rules.
    pub status: Status,
    /// Such as `cni default 10.22.0.2/16 eth12`.
    pub label: String,
    /// Explanations, oldest first.
    pub lines: Vec<Line>,
    /// Whether it was made.
    pub provisioned: Provisioned,
    /// Facts that others build on: `ipaddr`, `ipdev`, `hostname`, `expose`, `container_id`, `head` (a volume's path).
    pub info: BTreeMap<String, String>,
}

impl ResourceStatus {
    /// A state with a label and nothing else.
    pub fn new(status: Status, label: impl Into<String>) -> Self {
        Self { status, label: label.into(), lines: Vec::new(), provisioned: Provisioned::Yes, info: BTreeMap::new() }
    }

    /// With one more line.
    #[must_use]
    pub fn with(mut self, severity: Severity, text: impl Into<String>) -> Self {
        self.lines.push(Line { severity, text: text.into() });
        self
    }
}

/// What was seen of one instance: an object on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Which object.
    pub path: ObjectPath,
    /// On which node.
    pub node: NodeName,
    /// Its resources.
    pub resources: BTreeMap<Rid, ResourceStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_merge_in_any_order() {
        let check = |states: &str, expected: Status| {
            let mut states: Vec<Status> =
                states.split(',').map(|word| Status::from_word(word.trim()).expect("a state")).collect();
            for _ in 0..states.len() {
                states.rotate_left(1);
                assert_eq!(states.iter().copied().collect::<Merge>().status(), expected, "{states:?}");
                let back: Merge = states.iter().rev().copied().collect();
                assert_eq!(back.status(), expected, "{states:?} backwards");
            }
        };
        check("up, up", Status::Up);
        check("up, down", Status::Warn);
        check("up, n/a", Status::Up);
        check("n/a, n/a", Status::NotApplicable);
        check("undef, n/a", Status::NotApplicable);
        check("undef", Status::Undef);
        check("down, down, n/a", Status::Down);
        check("stdby up, up", Status::Up);
        check("stdby up, down", Status::StandbyUp);
        check("stdby up, down, down", Status::StandbyUp);
        check("stdby up, up, down", Status::Warn);
        check("stdby down, down", Status::StandbyDown);
        check("stdby down, up", Status::Warn);
        check("stdby up, stdby down", Status::Warn);
        check("warn, down", Status::Warn);
    }
}
