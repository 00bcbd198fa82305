//! Owns what can be asked about what is stored, as it goes over the wire: one JSON object with
//! `order` and the order's own fields, as orders to access control have it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One operation. No field holds a secret: all of them are written to the audit log.
///
/// Each says what it answers: a JSON object, whose times are RFC 3339 texts in UTC or null.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Operation {
    /// What the collection does and what waits for it.
    ///
    /// See [`Status`](crate::collector::status::Status).
    GcStatus {},
    /// Begins a round of the collection soon. With `now` it does not wait for grace periods, only
    /// for promises of the last hour; with `untagged` it removes manifests that no tag reaches.
    ///
    /// `{round: number}`; the round is over once `gc-status` shows that number as its last one
    GcRun {
        #[serde(default)]
        now: bool,
        #[serde(default)]
        untagged: bool,
    },
    /// Stops the collection until it is resumed, over restarts too.
    ///
    /// As `gc-status`
    GcPause {},
    /// Lets the collection go on, and has it believe the clock.
    ///
    /// As `gc-status`
    GcResume {},
    /// Brings back what was deleted: a tag, or by `reference` a digest a manifest with its tags. Who
    /// has `delete` on the repository may do so.
    ///
    /// `{repository, digest, tags}`: the tags that are there again
    Undelete { repository: String, reference: String },
    /// What became of the tags of a repository, or of one, newest first. Who has `delete` on the
    /// repository may ask.
    ///
    /// `{repository, entries: [{at, tag, action, digest, kept}]}`: `action` is `set`, `deleted` or
    /// `restored`; `kept` says whether the manifest is still there, deleted or not
    History {
        repository: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Which tags retention lets go now. With `run` they go, up to
    /// [`AT_ONCE`](crate::keeping::AT_ONCE) of them.
    ///
    /// `{run, rules, repositories, tags, expired, more, listed}`: `rules` are texts; `repositories`
    /// and `tags` count what the rules cover, `expired` what goes or went; `more` says that others
    /// are left to go; `listed` is `[{repository, tag, digest, pushed, pulled, rule}]`, with `rule` a
    /// place in `rules`, from 1, and `pulled` null for never or not since pulls are counted
    Retention {
        #[serde(default)]
        run: bool,
    },
    /// How full the quotas are.
    ///
    /// `{quotas: [{prefix, limit, used, reserved}]}`, in bytes, in the order of the configuration;
    /// `reserved` is for uploads under way
    Quota {},
    /// How much is verified, and what is damaged.
    ///
    /// See [`Status`](crate::scrub::status::Status).
    ScrubStatus {},
    /// Begins to verify everything now.
    ///
    /// `{pass: number}`; the pass is over once `scrub-status` shows that number as its last one
    ScrubRun {},
    /// An order that belongs to another family.
    #[serde(other)]
    Foreign,
}

impl Operation {
    /// Whether it changes anything.
    pub(crate) fn changes(&self) -> bool {
        !matches!(
            self,
            Self::GcStatus {}
                | Self::History { .. }
                | Self::Retention { run: false }
                | Self::Quota {}
                | Self::ScrubStatus {}
                | Self::Foreign
        )
    }

    /// The repository that it is about, where that is one.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Self::Undelete { repository, .. } | Self::History { repository, .. } => Some(repository),
            _ => None,
        }
    }

    /// What the audit log says of it: `order` and all fields.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("an operation is an object of texts and numbers"),
        }
    }

    /// The name on the wire.
    pub(crate) fn name(&self) -> String {
        self.fields().get("order").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}
