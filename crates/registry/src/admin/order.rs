//! Owns what can be asked of access control, as it goes over the wire: one JSON object with
//! `order` and the order's own fields. The commands and the admin API share it.
//!
//! Fields are plain text; whoever carries an order out parses them, and says what is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Order {
    /// Makes a user. Without a password one is made, and answered once.
    UserAdd {
        name: String,
        #[serde(default)]
        description: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Given>,
    },
    /// Gives a user another password, or makes one, which is answered once. A user may do so for
    /// themselves.
    UserPasswd {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Given>,
    },
    /// Lists users.
    UserList {},
    /// Refuses a user from the next request on.
    UserDisable { name: String },
    /// Takes a user again.
    UserEnable { name: String },
    /// Removes a user with their rules.
    UserRemove { name: String },
    /// Makes a token to paste in place of the password; answered once. A user may do so for
    /// themselves.
    UserToken {
        name: String,
        #[serde(default)]
        label: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
    },
    /// Ends all tokens of a user. A user may do so for themselves.
    UserRevokeTokens { name: String },
    /// Makes a robot with its rights; its secret is answered once.
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
    RobotList {},
    /// Gives a robot another secret, answered once; those that it has work for `overlap` more.
    RobotRotate {
        name: String,
        overlap: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
    },
    /// Removes a robot with its secrets and rules, at once.
    RobotRevoke { name: String },
    /// Makes a group.
    GroupAdd { name: String },
    /// Lists groups with their members.
    GroupList {},
    /// Removes a group with its rules.
    GroupRemove { name: String },
    /// Lets a member (`user:NAME` or `robot:NAME`) into a group.
    GroupJoin { name: String, member: String },
    /// Takes a member out of a group.
    GroupLeave { name: String, member: String },
    /// Makes a rule.
    GrantAdd { subject: String, repositories: String, rights: String },
    /// Lists rules: all, those for a subject, or those that hold on a repository.
    GrantList {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
    },
    /// Removes a rule.
    GrantRemove { rule: u64 },
    /// Says whether a subject (`user:NAME`, `robot:NAME` or `anonymous`) may do something, and
    /// which rule decides.
    GrantExplain { subject: String, repository: String, right: String },
    /// Lists the keys that tokens are signed with.
    KeyList {},
    /// Signs with a new key from now on; what older ones signed stays good until it ends.
    KeyRotate {},
}
