//! Owns why an order is not carried out, in words for whoever gave it.
//!
//! Does not own how that looks on the wire (`failure`) or in a terminal.

use registry_core::{
    account::PrincipalNameError,
    directory::{EditError, SubjectNameError},
    name::NameError,
    policy::{GlobError, RightError},
    store::{Refusal, StoreError},
};

/// What kind of reason, after the statuses of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The order makes no sense: 400.
    Invalid,
    /// Whoever gave it may not: 403.
    Denied,
    /// It is about something that is not there: 404.
    NotFound,
    /// It contradicts what is there: 409.
    Conflict,
    /// Too much is going on; it may be given again: 503.
    Busy,
    /// The store failed: 500. What is known of it is in the source, for the log.
    Failed,
}

impl Kind {
    /// One word for the audit log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// Why an order is not carried out. Nothing has been changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct OrderError {
    /// What kind of reason.
    pub(crate) kind: Kind,
    /// What is wrong, without secrets.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: &'static str,
    /// What failed below.
    #[source]
    pub(crate) source: Option<Box<StoreError>>,
}

impl OrderError {
    /// A reason of the given kind.
    pub(crate) fn new(kind: Kind, what: impl Into<String>, hint: &'static str) -> Self {
        Self { kind, what: what.into(), hint, source: None }
    }

    /// An order that makes no sense.
    pub(crate) fn invalid(what: impl Into<String>, hint: &'static str) -> Self {
        Self::new(Kind::Invalid, what, hint)
    }
}

/// A text from an order as it can be shown: not too long, on one line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

macro_rules! invalid {
    ($($error:ty: $hint:literal,)*) => {$(
        impl From<$error> for OrderError {
            fn from(error: $error) -> Self {
                Self::invalid(error.to_string(), $hint)
            }
        }
    )*};
}

invalid! {
    PrincipalNameError: "names look like alice, ci-team.api or alice@example.org",
    GlobError: "write a glob such as team/api, team/*, team/** or **",
    RightError: "write rights such as pull or pull,push,delete",
    SubjectNameError: "write user:NAME, robot:NAME, group:NAME, users or anonymous",
    NameError: "write the whole name of a repository, such as team/api",
}

impl From<EditError> for OrderError {
    fn from(error: EditError) -> Self {
        let (kind, hint) = match &error {
            EditError::AccountExists { .. } => {
                (Kind::Conflict, "users and robots share their names: choose another, or remove that one first")
            }
            EditError::GroupExists(_) => (Kind::Conflict, "let members join it with `group join`"),
            EditError::RuleExists(_) => (Kind::Conflict, "nothing has to be done"),
            EditError::LastAdmin => {
                (Kind::Conflict, "give another user `admin` on `**` first: grant add user:NAME '**' admin")
            }
            EditError::TooMany(..) => (Kind::Conflict, "remove what is not needed any more"),
            EditError::NoAccount { kind, .. } => (
                Kind::NotFound,
                match kind {
                    registry_core::account::Kind::User => "`user list` shows the users",
                    registry_core::account::Kind::Robot => "`robot list` shows the robots",
                },
            ),
            EditError::NoGroup(_) => (Kind::NotFound, "`group list` shows the groups; `group add` makes one"),
            EditError::NoMember { .. } => (Kind::NotFound, "`group list` shows who is in it"),
            EditError::NoRule(_) => (Kind::NotFound, "`grant list` shows the rules with their numbers"),
            EditError::NoKey(_) => (Kind::NotFound, "`key list` shows the keys"),
            EditError::NoRights => (Kind::Invalid, "write rights such as pull or pull,push,delete"),
            EditError::AdminForAll => (Kind::Invalid, "name a user, robot or group: user:NAME, robot:NAME, group:NAME"),
            EditError::Text => (Kind::Invalid, "shorten it to one line"),
        };
        Self::new(kind, error.to_string(), hint)
    }
}

impl From<StoreError> for OrderError {
    fn from(error: StoreError) -> Self {
        let (kind, what, hint) = match &error {
            StoreError::Refused(Refusal::DirectoryChanged) => {
                (Kind::Busy, "accounts or rules were changed meanwhile", "try again")
            }
            StoreError::Full { .. } => {
                (Kind::Busy, "the registry has no space left; nothing was changed", "make room in the data directory")
            }
            StoreError::Poisoned => {
                (Kind::Busy, "the registry's storage failed; it takes no changes for now", "restart the registry")
            }
            StoreError::Refused(_) | StoreError::Failed { .. } => {
                (Kind::Failed, "the registry's storage failed", "the registry's log says why")
            }
        };
        Self { source: Some(Box::new(error)), ..Self::new(kind, what, hint) }
    }
}
