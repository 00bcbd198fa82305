//! Owns the orders about what is stored, such as those to the collection: who may give them, and
//! writing down who did.
//!
//! Over the Unix socket root and the server's own user may give all of them; over HTTP, where there
//! are accounts, whoever has `admin` on everything; what is about one repository also who may delete
//! there. To add one: a variant of [`Operation`], an arm
//! in [`Operations::answer`], and what it works on as a field of [`Operations`], which `serve` fills;
//! a command sends it with [`server::ask`]. Does not own how orders arrive (`api/admin`,
//! `admin/socket`), nor those to access control (`admin`).

pub(crate) mod operation;
pub(crate) mod server;

use std::sync::Arc;

use serde_json::{Value, json};
use service::audit::{AuditLog, Record};

use crate::{
    admin::{
        Sender,
        authority::{Actor, authorize_deleting, authorize_everywhere},
        error::{Kind, OrderError},
        name_of,
    },
    collector::{Collector, Wanted},
    failure::Chain,
    keeping::Keeping,
    live::LiveDirectory,
    scrub::Scrub,
};
use operation::Operation;

/// Carries operations out.
pub(crate) struct Operations {
    /// The collection; `None` where nothing outlives the process.
    pub(crate) collector: Option<Arc<Collector>>,
    /// What is kept.
    pub(crate) keeping: Arc<Keeping>,
    /// The scrub; `None` where nothing outlives the process.
    pub(crate) scrub: Option<Arc<Scrub>>,
    /// Who there is, where there are accounts.
    pub(crate) live: Option<Arc<LiveDirectory>>,
    /// Where it is written down, where there is one.
    pub(crate) audit: Option<Arc<AuditLog>>,
}

impl Operations {
    /// Carries an operation out and returns its answer.
    ///
    /// Whoever stops waiting does not stop it, and what changes something is recorded either way.
    pub(crate) async fn carry_out(
        self: &Arc<Self>,
        operation: Operation,
        sender: Sender,
        now: i64,
    ) -> Result<Value, OrderError> {
        let operations = Arc::clone(self);
        let work = tokio::spawn(async move {
            let answer = match operations.authorize(&operation, sender.actor) {
                Ok(()) => operations.answer(&operation, &sender, now).await,
                Err(error) => Err(error),
            };
            if let Err(OrderError { source: Some(error), .. }) = &answer {
                tracing::error!(error = %Chain(&**error), "carry out the order {}", operation.name());
            }
            if operation.changes() {
                operations.record(&operation, &sender, &answer).await;
            }
            answer
        });
        work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an order was cut off");
            Err(OrderError::new(Kind::Failed, "the order was cut off", "look whether it was carried out"))
        })
    }

    fn authorize(&self, operation: &Operation, actor: Actor) -> Result<(), OrderError> {
        match (actor, &self.live) {
            (Actor::Local, _) => Ok(()),
            (Actor::Account(..), Some(live)) => match operation.repository() {
                Some(repository) => authorize_deleting(repository, actor, &live.current()),
                None => authorize_everywhere(operation.changes(), actor, &live.current()),
            },
            (Actor::Account(..), None) => {
                Err(OrderError::new(Kind::Denied, "there are no accounts here", "use the server's own machine"))
            }
        }
    }

    async fn answer(&self, operation: &Operation, sender: &Sender, now: i64) -> Result<Value, OrderError> {
        let collector = || {
            self.collector.as_ref().ok_or_else(|| {
                let hint = "storage.inmemory has no files to be collected";
                OrderError::new(Kind::Conflict, "nothing is collected here", hint)
            })
        };
        let scrub = || {
            self.scrub.as_ref().ok_or_else(|| {
                let hint = "storage.inmemory has no files to be verified";
                OrderError::new(Kind::Conflict, "nothing is verified here", hint)
            })
        };
        match operation {
            Operation::GcStatus {} => Ok(json!(collector()?.status(now).await?)),
            Operation::GcRun { now: at_once, untagged } => {
                let round = collector()?.ask(Wanted { now: *at_once, untagged: *untagged }).await?;
                Ok(json!({ "round": round }))
            }
            Operation::GcPause {} => Ok(json!(collector()?.pause(now).await?)),
            Operation::GcResume {} => Ok(json!(collector()?.resume(now).await?)),
            Operation::Undelete { .. }
            | Operation::History { .. }
            | Operation::Retention { .. }
            | Operation::Quota {} => self.keeping.answer(operation, &self.name_of(sender), now).await,
            Operation::ScrubStatus {} => Ok(json!(scrub()?.status().await?)),
            Operation::ScrubRun {} => Ok(json!({ "pass": scrub()?.ask() })),
            Operation::Foreign => Err(OrderError::invalid("this is no order", "look how it is written")),
        }
    }

    fn name_of(&self, sender: &Sender) -> String {
        match &self.live {
            Some(live) => name_of(sender.actor, &live.current()),
            None => "local".to_owned(),
        }
    }

    async fn record(&self, operation: &Operation, sender: &Sender, answer: &Result<Value, OrderError>) {
        let result = answer.as_ref().map_or_else(|error| error.kind.as_str(), |_| "ok");
        tracing::info!(order = operation.name(), from = sender.from, result, "order {}", operation.name());
        let Some(log) = &self.audit else { return };
        let entry = Record::new("admin").with("actor", self.name_of(sender)).with("from", sender.from.as_str());
        let entry = operation.fields().into_iter().fold(entry, |entry, (name, value)| entry.with(&name, value));
        if let Err(error) = log.record_durably(&entry.with("result", result)).await {
            tracing::error!(error = %Chain(&error), "an order is not in the audit log");
        }
    }
}
