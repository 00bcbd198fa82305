//! Owns this node's session: the sign of life that other nodes see.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use om_core::{
    status::Status,
    view::{At, Report, Session},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{Answered, Orchestrator, Outcome, STORE_LIMIT};

impl Orchestrator {
    /// A renewal whose answer was lost may have been made after all: it counts from when it was sent.
    pub(super) fn adopt(&mut self, before: Option<&At<Session>>, session: &At<Session>) {
        let same = before.is_none_or(|before| before.value.epoch == session.value.epoch) && session.value.live;
        if !same {
            self.renewed = None;
            self.sent.clear();
            self.next_renewal = Instant::now();
        } else if let Some(sent) = self.sent.get(&session.value.seq).copied() {
            self.renewed = self.renewed.max(Some(sent));
            self.sent = self.sent.split_off(&session.value.seq);
        }
    }

    /// Begins or renews this node's session. The only node of a cluster writes it when it starts, and when it changes.
    pub(super) fn renew(&mut self, done: Option<oneshot::Sender<Answered>>) {
        let now = Instant::now();
        let freeze = self.freeze.take();
        let settings = &self.settings;
        let (seen, session) = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let before = view.nodes.get(&settings.node).map(|node| node.session.clone());
            let runs = view.objects.values().any(|o| {
                let up = |report: &Report| matches!(report.summary.avail, Status::Up | Status::Warn);
                o.local.job.is_some() || o.reports.get(&settings.node).is_some_and(up)
            });
            let session = match &before {
                // The same boot, and nobody declared it dead: the daemon was started again, or renews.
                Some(At { value: old, .. }) if old.live && old.boot == settings.boot => {
                    Session { seq: old.seq + 1, takeover: settings.takeover, ..old.clone() }
                }
                // What ran under a dead session must be gone before there is another.
                Some(At { value: old, .. }) if old.boot == settings.boot && runs => {
                    tracing::warn!(
                        epoch = old.epoch,
                        "this node was declared dead; it begins anew when all is stopped"
                    );
                    self.next_renewal = now + self.settings.renew;
                    return;
                }
                old => Session {
                    epoch: old.as_ref().map_or(0, |old| old.value.epoch) + 1,
                    boot: settings.boot.clone(),
                    seq: 0,
                    live: true,
                    takeover: settings.takeover,
                    frozen: old.as_ref().and_then(|old| old.value.frozen),
                },
            };
            (before.map(|before| before.rev), session)
        };
        let session = Session { frozen: freeze.unwrap_or(session.frozen), ..session };
        self.renewing = true;
        let solo = self.settings.members.len() < 2;
        self.next_renewal = now + if solo { Duration::from_secs(86_400) } else { self.settings.renew };
        self.sent.insert(session.seq, now);
        let (truth, node, limit) = (Arc::clone(&self.truth), self.settings.node.clone(), self.settings.attempt);
        let limit = if solo { STORE_LIMIT } else { limit };
        self.tasks.spawn(async move {
            let result = match timeout(limit, truth.session(&node, seen, session.clone())).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("the store did not answer in time".into()),
            };
            Outcome::Renewed { sent: now, session, result, done }
        });
    }
}
