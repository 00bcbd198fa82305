//! Owns who is asking and what they may do: actions, scopes, grants.
//!
//! Does not own how a caller proves who they are (`registry-auth`) nor how a refusal looks on the
//! wire (`registry`).

use std::{fmt, sync::Arc};

use crate::{
    account::AccountId,
    name::RepoName,
    policy::{Policy, Right},
};

/// What a request does to a repository, as the token specification spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read blobs, manifests, tags and referrers.
    Pull,
    /// Upload blobs, put manifests and tags.
    Push,
    /// Delete blobs, manifests and tags.
    Delete,
    /// Everything; only `registry:catalog:*` uses it.
    All,
}

impl Action {
    /// The wire spelling: `pull`, `push`, `delete` or `*`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::All => "*",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The thing that a right is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `repository:<name>`.
    Repository(RepoName),
    /// `registry:catalog`.
    Catalog,
}

/// One right that a request needs: an action on a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// On what.
    pub resource: Resource,
    /// To do what.
    pub action: Action,
}

impl Access {
    /// A right on a repository.
    pub fn repository(name: &RepoName, action: Action) -> Self {
        Self { resource: Resource::Repository(name.clone()), action }
    }

    /// The right to list the catalog, `registry:catalog:*`.
    pub const fn catalog() -> Self {
        Self { resource: Resource::Catalog, action: Action::All }
    }
}

/// Who is calling, as far as it was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name; empty for an anonymous caller. For people to read: rights belong to ids.
    pub name: String,
    /// The account, where this registry has accounts of its own.
    pub account: Option<AccountId>,
}

/// What a policy allows somebody, within the rights of the token that they came with.
#[derive(Clone, Debug)]
pub struct PolicyGrant {
    /// The policy at the time of the request.
    pub policy: Arc<Policy>,
    /// Whom it is asked about; `None` for an anonymous caller.
    pub who: Option<AccountId>,
    /// The rights of the token, shared with all requests that came with it; `None` for somebody who
    /// came without one.
    pub scope: Option<Arc<[Access]>>,
}

impl PolicyGrant {
    /// Whether the policy allows it, whatever the token says.
    pub fn would_allow(&self, wanted: &Access) -> bool {
        match &wanted.resource {
            Resource::Repository(name) => self.policy.allows(self.who, name, Right::of(wanted.action)),
            Resource::Catalog => self.policy.may_list(self.who),
        }
    }

    /// Whether the token holds it, whatever the policy says.
    pub fn is_in_scope(&self, wanted: &Access) -> bool {
        self.scope.as_ref().is_none_or(|rights| contain(rights, wanted))
    }
}

/// Of the same policy for the same caller.
impl PartialEq for PolicyGrant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy) && self.who == other.who && self.scope == other.scope
    }
}

impl Eq for PolicyGrant {}

/// What a caller may do, decided before the handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything: an open registry, or a scheme that only knows who is in (htpasswd).
    Everything,
    /// Exactly these rights: a bearer token. Sorted, without duplicates.
    Rights(Vec<Access>),
    /// What the policy of this registry allows.
    Policy(PolicyGrant),
}

/// Whether `rights` contain `wanted`. `*` on the same resource contains every action.
fn contain(rights: &[Access], wanted: &Access) -> bool {
    rights.iter().any(|right| {
        right.resource == wanted.resource && (right.action == wanted.action || right.action == Action::All)
    })
}

impl Grant {
    /// Whether this grant contains `wanted`.
    pub fn allows(&self, wanted: &Access) -> bool {
        match self {
            Self::Everything => true,
            Self::Rights(rights) => contain(rights, wanted),
            Self::Policy(grant) => grant.is_in_scope(wanted) && grant.would_allow(wanted),
        }
    }

    /// Whether the caller may pull from `name`.
    pub fn may_pull(&self, name: &RepoName) -> bool {
        self.allows(&Access::repository(name, Action::Pull))
    }

    /// Whether `name` is in the caller's list of repositories. A token for the list does not name
    /// what is in it, so that only the policy counts.
    pub fn may_see(&self, name: &RepoName) -> bool {
        match self {
            Self::Everything | Self::Rights(_) => true,
            Self::Policy(grant) => grant.would_allow(&Access::repository(name, Action::Pull)),
        }
    }
}
