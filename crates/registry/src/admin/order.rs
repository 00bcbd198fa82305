//! Owns what can be asked of access control, as it goes over the wire: one JSON object with
//! `order` and the order's own fields. The commands and the admin API share it.
//!
//! Fields are plain text; whoever carries an order out parses them, and says what is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A password on its way; never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Given(pub(crate) String);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Rights on repositories, for a robot that is made together with them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowed {
    /// A glob.
    pub(crate) repositories: String,
    /// Joined by commas.
    pub(crate) rights: String,
}

/// One order. Times are in seconds.
///
/// Each says what it answers: a JSON object, whose times are RFC 3339 texts in UTC or null, and
/// which has a password, token or secret only where the order made one. What comes up in several:
///
/// - ACCOUNT: `{name, kind, state, description, created, groups, credentials}`; `kind` is `user` or
///   `robot`, `state` is `enabled` or `disabled`, `groups` are sorted names, `credentials` is
///   `[{id, type, label, created, expires}]`, oldest first, with `type` `password` or `secret`.
/// - GROUP: `{name, members}`; `members` are texts as `user:alice`, oldest account first.
/// - GRANT: `{rule, subject, repositories, rights, created}`; `rule` is the number, `subject` as
///   `group:dev`, `rights` joined by commas.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Order {
    /// Makes a user. Without a password one is made, and answered once.
    ///
    /// `{user: ACCOUNT, password?}`
    UserAdd {
        name: String,
        #[serde(default)]
        description: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Given>,
    },
    /// Gives a user another password, or makes one, which is answered once. A user may do so for
    /// themselves.
    ///
    /// `{user: ACCOUNT, password?}`
    UserPasswd {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Given>,
    },
    /// Lists users.
    ///
    /// `{users: [ACCOUNT]}`, oldest first
    UserList {},
    /// Refuses a user from the next request on.
    ///
    /// `{user: ACCOUNT}`
    UserDisable { name: String },
    /// Takes a user again.
    ///
    /// `{user: ACCOUNT}`
    UserEnable { name: String },
    /// Removes a user with their rules.
    ///
    /// `{removed: "user:NAME", rules: [the numbers of the rules that went too]}`
    UserRemove { name: String },
    /// Makes a token to paste in place of the password; answered once. A user may do so for
    /// themselves. Ends after [`TOKEN_LIFETIME`](super::plan::TOKEN_LIFETIME) where nothing is said.
    ///
    /// `{user: ACCOUNT, token, expires}`
    UserToken {
        name: String,
        #[serde(default)]
        label: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
    },
    /// Ends all tokens of a user. A user may do so for themselves.
    ///
    /// `{user: ACCOUNT, revoked: how many}`
    UserRevokeTokens { name: String },
    /// Makes a robot with its rights; its secret is answered once, and ends only if it is said when.
    ///
    /// `{robot: ACCOUNT, secret, expires, grants: [GRANT]}`
    RobotCreate {
        name: String,
        #[serde(default)]
        description: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        #[serde(default)]
        allow: Vec<Allowed>,
    },
    /// Lists robots.
    ///
    /// `{robots: [ACCOUNT]}`, oldest first
    RobotList {},
    /// Gives a robot another secret, answered once; those that it has work for `overlap` more.
    ///
    /// `{robot: ACCOUNT, secret, expires, old_until: until when older secrets work at most}`
    RobotRotate {
        name: String,
        overlap: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
    },
    /// Removes a robot with its secrets and rules, at once.
    ///
    /// `{removed: "robot:NAME", rules: [the numbers of the rules that went too]}`
    RobotRevoke { name: String },
    /// Makes a group.
    ///
    /// `{group: GROUP}`
    GroupAdd { name: String },
    /// Lists groups with their members.
    ///
    /// `{groups: [GROUP]}`, oldest first
    GroupList {},
    /// Removes a group with its rules.
    ///
    /// `{removed: "group:NAME", rules: [the numbers of the rules that went too]}`
    GroupRemove { name: String },
    /// Lets a member (`user:NAME` or `robot:NAME`) into a group.
    ///
    /// `{group: GROUP}`
    GroupJoin { name: String, member: String },
    /// Takes a member out of a group.
    ///
    /// `{group: GROUP}`
    GroupLeave { name: String, member: String },
    /// Makes a rule. Who has `admin` on all that it is about may do so.
    ///
    /// `{grant: GRANT}`
    GrantAdd { subject: String, repositories: String, rights: String },
    /// Lists rules: all, those for a subject, or those that hold on a repository. Who has `admin`
    /// on some repositories sees the rules that are about nothing else.
    ///
    /// `{grants: [GRANT]}`, in the order of the numbers
    GrantList {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
    },
    /// Removes a rule. Who has `admin` on all that it is about may do so.
    ///
    /// `{removed: GRANT}`
    GrantRemove { rule: u64 },
    /// Says whether a subject (`user:NAME`, `robot:NAME` or `anonymous`) may do something, and
    /// which rule decides. Who has `admin` on the repository may ask, and sees of the rules that do
    /// not hold on it only those that they could change.
    ///
    /// `{subject, repository, right, allowed, rule, disabled, considered, administrators}`: `rule`
    /// is the number of the one that allows it, or null; `disabled` says that the account is refused
    /// whatever the rules say; `considered` is GRANTs with `says` in addition, one of `allows`,
    /// `other rights` and `other repositories`, in the order of the numbers; `administrators` are
    /// the names of up to five users who can give rights there
    GrantExplain { subject: String, repository: String, right: String },
    /// Lists the keys that tokens are signed with.
    ///
    /// `{keys: [{id, created, signs}]}`, oldest first; the last one `signs`
    KeyList {},
    /// Signs with a new key from now on; what older ones signed stays good until it ends. Where
    /// there are as many as there may be, the oldest goes with what it signed.
    ///
    /// `{key: {id, created, signs}}`
    KeyRotate {},
}

impl Order {
    /// Whether it changes anything.
    pub(crate) fn changes(&self) -> bool {
        !matches!(
            self,
            Self::UserList {}
                | Self::RobotList {}
                | Self::GroupList {}
                | Self::GrantList { .. }
                | Self::GrantExplain { .. }
                | Self::KeyList {}
        )
    }

    /// What the audit log says of it: `order` and the fields that are no secrets. They are named
    /// here, so that none is written down that was not thought of.
    pub(crate) fn audited(&self) -> Map<String, Value> {
        const NAMED: [&str; 12] = [
            "order",
            "name",
            "description",
            "label",
            "expires_in",
            "overlap",
            "allow",
            "member",
            "subject",
            "repositories",
            "rights",
            "rule",
        ];
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            unreachable!("an order is an object of texts and numbers");
        };
        fields.retain(|name, _| NAMED.contains(&name.as_str()));
        fields
    }
}
