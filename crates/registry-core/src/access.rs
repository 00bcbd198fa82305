//! Owns who is asking and what they may do: actions, scopes, grants.
//!
//! Does not own how a caller proves who they are (`registry-auth`) nor how a refusal looks on the
//! wire (`registry`).

use std::fmt;

use crate::name::RepoName;

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
    /// The user's name; empty for an anonymous caller.
    pub name: String,
}

/// What a caller may do, decided before the handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything: an open registry, or a scheme that only knows who is in (htpasswd).
    Everything,
    /// Exactly these rights: a bearer token. Sorted, without duplicates.
    Rights(Vec<Access>),
}

impl Grant {
    /// Whether this grant contains `wanted`. `*` on the same resource contains every action.
    pub fn allows(&self, wanted: &Access) -> bool {
        match self {
            Self::Everything => true,
            Self::Rights(rights) => rights.iter().any(|right| {
                right.resource == wanted.resource && (right.action == wanted.action || right.action == Action::All)
            }),
        }
    }

    /// Whether the caller may pull from `name`.
    pub fn may_pull(&self, name: &RepoName) -> bool {
        self.allows(&Access::repository(name, Action::Pull))
    }
}
