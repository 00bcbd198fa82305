//! Owns who may give which order. Pure; decided on the directory that the order is carried out on.
//!
//! Does not say what exists: whoever may not give an order gets the same answer whether or not
//! the things that it names are there.

use registry_core::{
    account::{Account, AccountId, Kind},
    directory::Directory,
    name::RepoName,
    policy::{Policy, RepoGlob, Right},
};

use super::{
    error::{self, OrderError},
    order::Order,
};

/// Who gives an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Root or the server's own user on the same machine.
    Local,
    /// An account that proved itself, and how.
    Account(AccountId, Proof),
}

/// How an account proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// With the password of a user.
    Password,
    /// With the secret of a robot, or the token of a user.
    Secret,
}

/// How far the orders of somebody reach.
#[derive(Debug)]
pub(crate) enum Authority {
    /// Everything.
    All,
    /// The rules of the repositories on which an account has `admin`.
    Within(Policy, AccountId),
    /// The account itself.
    Own,
}

impl Authority {
    /// Whether the rules about everything in `glob` are within it.
    pub(crate) fn covers(&self, glob: &RepoGlob) -> bool {
        match self {
            Self::All => true,
            Self::Within(policy, account) => policy.may_administer(Some(*account), glob),
            Self::Own => false,
        }
    }
}

const ASK: &str = "ask an administrator";
const EVERYWHERE: &str = "only who has `admin` on `**` may give this order";

fn denied(what: impl Into<String>) -> OrderError {
    OrderError::new(error::Kind::Denied, what, ASK)
}

fn ends_own_tokens(order: &Order, account: &Account) -> bool {
    matches!(order, Order::UserRevokeTokens { name } if account.name.as_str() == name)
}

/// Says whether `actor` may give orders about all that is stored; `changes` says whether this one
/// changes anything.
pub(crate) fn authorize_everywhere(changes: bool, actor: Actor, directory: &Directory) -> Result<(), OrderError> {
    let Actor::Account(id, proof) = actor else {
        return Ok(());
    };
    let account = proved(id, directory)?;
    if changes {
        refuse_tokens(account, proof)?;
    }
    if Policy::new(directory).may_administer(Some(id), &RepoGlob::everything()) {
        return Ok(());
    }
    Err(denied(EVERYWHERE))
}

/// Says whether `actor` may look after what is deleted of a repository: whoever may delete there. What
/// a token may delete it may bring back as well.
pub(crate) fn authorize_deleting(repository: &str, actor: Actor, directory: &Directory) -> Result<(), OrderError> {
    let Actor::Account(id, _) = actor else {
        return Ok(());
    };
    proved(id, directory)?;
    let name: RepoName = repository.parse()?;
    if Policy::new(directory).allows(Some(id), &name, Right::Delete) {
        return Ok(());
    }
    Err(denied(format!("this takes the right to delete from `{name}`")))
}

fn proved(id: AccountId, directory: &Directory) -> Result<&Account, OrderError> {
    let account = directory.account(id).filter(|account| !account.disabled);
    account.ok_or_else(|| denied("this account may give no orders"))
}

// Docker keeps such a token in a file: else one that leaked would make its thief's own accounts,
// and outlive its end and its revocation. Robots have nothing but secrets.
fn refuse_tokens(account: &Account, proof: Proof) -> Result<(), OrderError> {
    if account.kind == Kind::User && proof == Proof::Secret {
        return Err(OrderError::new(
            error::Kind::Denied,
            "a token of a user changes nothing here",
            "log in with the password, or let a robot with the right to `admin` do it",
        ));
    }
    Ok(())
}

/// Says how far an order of `actor` reaches, or that they may not give it.
pub(crate) fn authorize(order: &Order, actor: Actor, directory: &Directory) -> Result<Authority, OrderError> {
    let Actor::Account(id, proof) = actor else {
        return Ok(Authority::All);
    };
    let account = proved(id, directory)?;
    if order.changes() && !ends_own_tokens(order, account) {
        refuse_tokens(account, proof)?;
    }
    let policy = Policy::new(directory);
    if policy.may_administer(Some(id), &RepoGlob::everything()) {
        return Ok(Authority::All);
    }
    let within = |covered: bool, refusal: String| {
        if covered { Ok(()) } else { Err(denied(refusal)) }
    };
    match order {
        Order::UserPasswd { name, .. } | Order::UserToken { name, .. } | Order::UserRevokeTokens { name }
            if account.kind == Kind::User && account.name.as_str() == name =>
        {
            return Ok(Authority::Own);
        }
        Order::GrantAdd { repositories, .. } => {
            let glob: RepoGlob = repositories.parse()?;
            let refusal = format!("rules about `{glob}` are made by who has `admin` on all of it");
            within(policy.may_administer(Some(id), &glob), refusal)?;
        }
        Order::GrantRemove { rule } => {
            let known = directory.rules().find(|known| known.id.0 == *rule);
            let refusal = format!("rule {rule} is for others to remove, or there is none");
            within(known.is_some_and(|rule| policy.may_administer(Some(id), &rule.repositories)), refusal)?;
        }
        Order::GrantExplain { repository, .. } => {
            let name: RepoName = repository.parse()?;
            let refusal = format!("rights on `{name}` are explained to who has `admin` on it");
            within(policy.allows(Some(id), &name, Right::Admin), refusal)?;
        }
        Order::GrantList { .. } => {
            let somewhere = directory.rules().any(|rule| policy.may_administer(Some(id), &rule.repositories));
            within(somewhere, "rules are shown to who has `admin` on their repositories".to_owned())?;
        }
        _ => return Err(denied(EVERYWHERE)),
    }
    Ok(Authority::Within(policy, id))
}
