//! Owns the administration of access control: carrying orders out, and recording who gave them.
//!
//! An order is authorised and planned on the very directory that it changes, so that neither rests
//! on an older one. Does not own how orders arrive (`api/admin`, `admin/socket`).

pub(crate) mod authority;
pub(crate) mod error;
pub(crate) mod order;
pub(crate) mod plan;
pub(crate) mod socket;

use std::{fmt, sync::Arc, time::Duration};

use registry_auth::{
    password::{Password, PasswordHash},
    roadstead::is_made,
    secret::Secret,
};
use registry_core::{
    account::AccountId,
    directory::{Directory, SubjectName},
};
use serde_json::Value;
use service::audit::{AuditLog, Record};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use crate::{
    failure::Chain,
    live::{LiveDirectory, Unchanged},
    signing::new_key,
};
use authority::{Actor, Proof, authorize};
use error::{Kind, OrderError};
use order::Order;
use plan::{Fresh, plan};

/// Orders that may wait for the hash of their password.
const WAITING: usize = 16;
/// How long one waits at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries orders out.
pub(crate) struct Admin {
    live: Arc<LiveDirectory>,
    audit: Arc<AuditLog>,
    hashing: Semaphore,
    waiting: Semaphore,
}

/// Whom an order comes from.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// Who gives it.
    pub(crate) actor: Actor,
    /// By which way, for the audit log: an address, or the user of a process.
    pub(crate) from: String,
}

impl Admin {
    /// For orders about `live`, recorded in `audit`.
    pub(crate) fn new(live: Arc<LiveDirectory>, audit: Arc<AuditLog>) -> Arc<Self> {
        Arc::new(Self { live, audit, hashing: Semaphore::new(1), waiting: Semaphore::new(WAITING) })
    }

    /// Carries an order out at `now`, in seconds since 1970, and returns its answer.
    ///
    /// Whoever stops waiting does not stop the order, which is recorded either way.
    pub(crate) async fn carry_out(
        self: &Arc<Self>,
        order: Order,
        sender: Sender,
        now: i64,
    ) -> Result<Value, OrderError> {
        let admin = Arc::clone(self);
        let work = tokio::spawn(async move {
            let answer = admin.answer(&order, sender.actor, now).await;
            if let Err(OrderError { source: Some(error), .. }) = &answer {
                tracing::error!(error = %Chain(&**error), "carry out an order to access control");
            }
            if order.changes() {
                let entry = entry(&order, &sender, &admin.live.current(), &answer);
                if let Err(error) = admin.audit.record_durably(&entry).await {
                    // It has happened, and its answer may hold a secret that is not told twice.
                    tracing::error!(error = %Chain(&error), "an order to access control is not in the audit log");
                }
            }
            answer
        });
        work.await.unwrap_or_else(|error| Err(died(&error)))
    }

    async fn answer(&self, order: &Order, actor: Actor, now: i64) -> Result<Value, OrderError> {
        // A hash costs more than a refusal: who may not give the order does not get that far.
        let current = self.live.current();
        let authority = authorize(order, actor, &current)?;
        if !order.changes() {
            return Ok(plan(order, &current, &authority, &Fresh::Nothing, now)?.1);
        }
        drop(current);
        let fresh = self.fresh(order, now).await?;
        let planned = |directory: &Directory| {
            let authority = authorize(order, actor, directory)?;
            plan(order, directory, &authority, &fresh, now)
        };
        self.live.edit(planned, now).await.map_err(|error| match error {
            Unchanged::Planned(error) => error,
            Unchanged::Refused(error) => error.into(),
            Unchanged::Store(error) => error.into(),
        })
    }

    async fn fresh(&self, order: &Order, now: i64) -> Result<Fresh, OrderError> {
        Ok(match order {
            Order::UserAdd { name, password, .. } | Order::UserPasswd { name, password } => {
                let given = password.as_ref().map(|given| Password::parse(&given.0, name)).transpose();
                let given = given.map_err(|error| {
                    OrderError::invalid(error.to_string(), "choose another, or leave it out to get a good one")
                })?;
                let made = given.is_none();
                let password = given.unwrap_or_else(Password::generate);
                let shown = made.then(|| password.as_str().to_owned());
                Fresh::Password { hash: self.hash(password).await?, made: shown }
            }
            Order::UserToken { .. } | Order::RobotCreate { .. } | Order::RobotRotate { .. } => {
                let secret = Secret::generate();
                Fresh::Secret { text: secret.as_str().to_owned(), hash: secret.hash().into() }
            }
            Order::KeyRotate {} => {
                Fresh::Key(new_key(now).map_err(|error| {
                    OrderError::new(Kind::Failed, format!("make a signing key: {error}"), "try again")
                })?)
            }
            _ => Fresh::Nothing,
        })
    }

    async fn hash(&self, password: Password) -> Result<String, OrderError> {
        let busy = || OrderError::new(Kind::Busy, "too many passwords are being changed", "try again in a moment");
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        let turn = timeout(PATIENCE, self.hashing.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.expect("the semaphore is never closed");
        let hashed = spawn_blocking(move || PasswordHash::new(&password).as_str().to_owned());
        hashed.await.map_err(|error| died(&error))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

fn died(error: &JoinError) -> OrderError {
    tracing::error!(%error, "an order to access control was cut off");
    OrderError::new(Kind::Failed, "the order was cut off", "look whether it was carried out")
}

/// What the audit log says of an order.
fn entry(order: &Order, sender: &Sender, directory: &Directory, answer: &Result<Value, OrderError>) -> Record {
    let entry = Record::new("admin").with("actor", name_of(sender.actor, directory)).with("from", sender.from.as_str());
    let entry = order.audited().into_iter().fold(entry, |entry, (name, value)| entry.with(&name, value));
    match answer {
        Ok(answer) => {
            // What can only be known afterwards, and is no secret.
            let known = ["grant", "grants", "removed", "rules", "expires", "key"];
            let told = known.into_iter().filter_map(|name| Some((name, answer.get(name)?.clone())));
            told.fold(entry, |entry, (name, value)| entry.with(name, value)).with("result", "ok")
        }
        Err(error) => entry.with("result", error.kind.as_str()),
    }
}

/// What the audit log calls somebody.
pub(crate) fn name_of(actor: Actor, directory: &Directory) -> String {
    match actor {
        Actor::Local => "local".to_owned(),
        Actor::Account(id, _) => {
            let name = |id: AccountId| {
                let account = directory.account(id)?;
                Some(SubjectName::Account(account.kind, account.name.clone()).to_string())
            };
            name(id).unwrap_or_else(|| format!("account {id}"))
        }
    }
}

impl Proof {
    /// What the password of Basic credentials is.
    pub(crate) fn of(password: &[u8]) -> Self {
        if is_made(password) { Self::Secret } else { Self::Password }
    }
}

#[cfg(test)]
pub(crate) mod tests;
