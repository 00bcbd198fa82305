//! Owns the events that receivers are told: what they say, and who wants them.
//!
//! The form is distribution's envelope, version 2. An event is made before its change is applied
//! and stored in the same transaction; `deliver` sends it later.

use registry_core::{digest::Digest, manifest::Link, name::RepoName, reference::Tag, store::OutboxEvent};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api::route::UploadId,
    app::random,
    config::settings::{Endpoint, Notifications},
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
    Mount,
    Delete,
    /// Its bytes turned out to be damaged.
    Corrupt,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Mount => "mount",
            Self::Delete => "delete",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What it happened to.
pub(crate) struct Target<'a> {
    repository: &'a RepoName,
    digest: Option<&'a Digest>,
    size: Option<u64>,
    media_type: Option<&'a str>,
    tag: Option<&'a Tag>,
    is_manifest: bool,
    /// What a pushed manifest refers to.
    pub(crate) references: &'a [Link],
    /// Where a mounted blob comes from.
    pub(crate) from: Option<&'a RepoName>,
}

impl<'a> Target<'a> {
    /// A blob. The size is left out where it is not known.
    pub(crate) fn blob(repository: &'a RepoName, digest: &'a Digest, size: Option<u64>) -> Self {
        let media_type = Some("application/octet-stream");
        Self { digest: Some(digest), size, media_type, ..Self::of(repository) }
    }

    /// A manifest, by the tag that it was asked for with, if any.
    pub(crate) fn manifest(
        repository: &'a RepoName,
        digest: &'a Digest,
        size: Option<u64>,
        media_type: Option<&'a str>,
        tag: Option<&'a Tag>,
    ) -> Self {
        Self { digest: Some(digest), size, media_type, tag, is_manifest: true, ..Self::of(repository) }
    }

    /// A tag.
    pub(crate) fn tag(repository: &'a RepoName, tag: &'a Tag) -> Self {
        Self { tag: Some(tag), is_manifest: true, ..Self::of(repository) }
    }

    fn of(repository: &'a RepoName) -> Self {
        Self {
            repository,
            digest: None,
            size: None,
            media_type: None,
            tag: None,
            is_manifest: false,
            references: &[],
            from: None,
        }
    }
}

/// Something that receivers may want to know.
pub(crate) struct Told<'a> {
    pub(crate) action: Action,
    pub(crate) target: Target<'a>,
}

/// The request that did it.
pub(crate) struct Requested<'a> {
    pub(crate) id: &'a str,
    pub(crate) address: String,
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) actor: &'a str,
}

/// Makes events for the receivers that want them.
pub(crate) struct Notifier {
    endpoints: Vec<Endpoint>,
    include_references: bool,
    source: Value,
}

impl Notifier {
    /// For these receivers. `address` and `instance` say which server this is.
    pub(crate) fn new(config: &Notifications, address: &str, instance: &str) -> Self {
        Self {
            endpoints: config.endpoints.clone(),
            include_references: config.include_references,
            source: json!({ "addr": address, "instanceID": instance }),
        }
    }

    fn wanting<'a>(&'a self, told: &'a Told<'_>) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.iter().filter(|endpoint| {
            let action = told.action.as_str();
            let media_type = told.target.media_type.unwrap_or_default();
            !endpoint.ignored_actions.iter().any(|ignored| ignored == action)
                && !endpoint.ignored_media_types.iter().any(|ignored| ignored == media_type)
        })
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_wanted(&self, told: &Told<'_>) -> bool {
        self.wanting(told).next().is_some()
    }

    /// The events of something that happened, one for each receiver that wants it.
    pub(crate) fn events(&self, told: &Told<'_>, requested: &Requested<'_>, origin: &str) -> Vec<OutboxEvent> {
        let target = &told.target;
        let mut shown = Map::new();
        let mut put = |key: &str, value: Value| drop(shown.insert(key.to_owned(), value));
        if let Some(media_type) = target.media_type {
            put("mediaType", json!(media_type));
        }
        if let Some(digest) = target.digest {
            put("digest", json!(digest.to_string()));
        }
        if let Some(size) = target.size {
            put("size", json!(size));
            put("length", json!(size));
        }
        put("repository", json!(target.repository.as_str()));
        if let Some(from) = target.from {
            put("fromRepository", json!(from.as_str()));
        }
        if let (Some(digest), false) = (target.digest, told.action == Action::Delete) {
            let kind = if target.is_manifest { "manifests" } else { "blobs" };
            put("url", json!(format!("{origin}/v2/{}/{kind}/{digest}", target.repository)));
        }
        if let Some(tag) = target.tag {
            put("tag", json!(tag.as_str()));
        }
        if self.include_references && !target.references.is_empty() {
            let reference = |link: &Link| json!({ "mediaType": link.media_type, "digest": link.digest.to_string(), "size": link.size });
            put("references", target.references.iter().map(reference).collect());
        }
        let timestamp = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        self.wanting(told)
            .map(|endpoint| {
                let body = json!({
                    "id": UploadId::from_random(random()).as_str(),
                    "timestamp": timestamp,
                    "action": told.action.as_str(),
                    "target": shown,
                    "request": {
                        "id": requested.id,
                        "addr": requested.address,
                        "host": requested.host,
                        "method": requested.method,
                        "useragent": requested.user_agent,
                    },
                    "actor": { "name": requested.actor },
                    "source": self.source,
                });
                OutboxEvent { endpoint: endpoint.name.clone(), body: body.to_string() }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry_core::digest::{Algorithm, Digest};

    use super::{Action, Notifier, Requested, Target, Told};
    use crate::config::settings::{Endpoint, Notifications};

    fn endpoint(name: &str, types: &[&str], actions: &[&str]) -> Endpoint {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Endpoint {
            name: name.into(),
            url: "http://127.0.0.1:1/".into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            threshold: 10,
            backoff: Duration::from_secs(1),
            ignored_media_types: owned(types),
            ignored_actions: owned(actions),
        }
    }

    #[test]
    fn only_those_who_want_are_told() {
        let endpoints = vec![
            endpoint("all", &[], &[]),
            endpoint("no-blobs", &["application/octet-stream"], &[]),
            endpoint("no-pulls", &[], &["pull"]),
        ];
        let notifier = Notifier::new(&Notifications { include_references: true, endpoints }, "host:5000", "i");
        let name = "team/api".parse().unwrap();
        let digest = Digest::from_raw(Algorithm::Sha256, &[1; 32]).unwrap();
        let tag = "1.4".parse().unwrap();
        let requested = Requested {
            id: "r-1",
            address: "10.0.0.7:51322".into(),
            host: "reg.example",
            method: "PUT",
            user_agent: "docker/28.0",
            actor: "ci",
        };
        let check = |action, target: Target<'_>, want: &[&str]| {
            let told = Told { action, target };
            let events = notifier.events(&told, &requested, "https://reg.example");
            let names: Vec<&str> = events.iter().map(|event| event.endpoint.as_str()).collect();
            assert_eq!(names, want);
            serde_json::from_str::<serde_json::Value>(&events[0].body).unwrap()
        };
        check(Action::Pull, Target::blob(&name, &digest, Some(3)), &["all"]);
        let event = check(
            Action::Push,
            Target::manifest(&name, &digest, Some(612), Some("m/t"), Some(&tag)),
            &["all", "no-blobs", "no-pulls"],
        );
        assert_eq!(event["action"], "push");
        assert_eq!(event["target"]["tag"], "1.4");
        assert_eq!(event["target"]["size"], 612);
        assert_eq!(event["target"]["url"], format!("https://reg.example/v2/team/api/manifests/{digest}"));
        assert_eq!(event["actor"]["name"], "ci");
        let event = check(Action::Delete, Target::tag(&name, &tag), &["all", "no-blobs", "no-pulls"]);
        assert!(event["target"].get("digest").is_none() && event["target"].get("url").is_none());
    }
}
