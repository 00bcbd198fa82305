//! Rows in memory: the model that SQLite is tested against, and the `inmemory` storage driver.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use registry_core::{
    digest::Digest,
    directory::{Directories, Directory},
    manifest::{Role, is_manifest},
    name::{RepoName, sort_key},
    page::Page,
    reference::{Reference, Tag},
    retention::{Quota, Rules, Usage},
    store::{
        Answer, BlobEntry, Change, Content, Delivered, Delivery, ManifestEntry, Metadata, NewBlob, NewManifest,
        OutboxEvent, Place, Refusal, StoreError, TagAction, TagEvent, TagFacts,
    },
};

use super::now;

/// Metadata in memory. Nothing survives.
#[derive(Debug, Default)]
pub struct MemoryMetadata(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, BlobEntry>,
    repositories: HashMap<RepoName, Repository>,
    events: BTreeMap<i64, Delivery>,
    last_event: i64,
    /// With its version.
    directory: Option<(u64, Directory)>,
    rules: Rules,
}

#[derive(Debug, Default)]
struct Repository {
    links: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Held>,
    /// Deleted and not forgotten: nothing collects here.
    hidden: BTreeMap<Digest, Held>,
    tags: BTreeMap<Tag, Named>,
    /// Oldest first.
    events: Vec<TagEvent>,
}

/// What a tag names.
#[derive(Clone, Copy, Debug)]
struct Named {
    digest: Digest,
    pushed_at: i64,
}

#[derive(Debug)]
struct Held {
    media_type: String,
    subject: Option<Digest>,
    artifact_type: Option<String>,
    descriptor: String,
    pulled_at: i64,
}

impl Repository {
    fn note(&mut self, tag: &Tag, action: TagAction, digest: Digest) {
        self.events.push(TagEvent { at: now(), tag: tag.clone(), action, digest, kept: true });
    }

    fn set_tag(&mut self, tag: &Tag, digest: Digest, action: TagAction) {
        let old = self.tags.insert(tag.clone(), Named { digest, pushed_at: now() });
        if old.is_none_or(|old| old.digest != digest) {
            self.note(tag, action, digest);
        }
    }

    fn show(&mut self, digest: &Digest) -> bool {
        match self.hidden.remove(digest) {
            Some(held) => self.manifests.insert(*digest, held).is_none(),
            None => self.manifests.contains_key(digest),
        }
    }

    fn last(&self, tag: &Tag) -> Option<&TagEvent> {
        self.events.iter().rev().find(|event| event.tag == *tag)
    }
}

fn ready<'a, T: Send + 'a>(value: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

fn page<T>(entries: impl Iterator<Item = T>, limit: usize) -> Page<T> {
    let mut entries: Vec<T> = entries.take(limit.saturating_add(1)).collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    Page { entries, more }
}

impl State {
    fn put_blob(&mut self, new: &NewBlob) {
        let fresh = || BlobEntry { digest: new.digest, size: new.size, content: new.content.clone(), used_at: 0 };
        let entry = self.blobs.entry(new.digest).or_insert_with(fresh);
        if let Content::Stored(_) = new.content {
            entry.content = new.content.clone();
        }
    }

    fn known(&mut self, name: &RepoName) -> Result<&mut Repository, Refusal> {
        self.repositories.get_mut(name).ok_or_else(|| Refusal::NameUnknown(name.clone()))
    }

    fn put_manifest(&mut self, name: &RepoName, new: &NewManifest) -> Result<(), Refusal> {
        let held = |wanted: &registry_core::manifest::Link| {
            let Some(repository) = self.repositories.get(name) else {
                return false;
            };
            let linked = repository.links.contains(&wanted.digest);
            match wanted.role {
                Role::Child => {
                    repository.manifests.contains_key(&wanted.digest) || (!is_manifest(&wanted.media_type) && linked)
                }
                Role::Config | Role::Layer | Role::ForeignLayer => linked,
            }
        };
        let mut unknown = Vec::new();
        for wanted in new.manifest.links.iter().filter(|link| new.index_policy.requires(link)) {
            if !held(wanted) && !unknown.contains(&wanted.digest) {
                unknown.push(wanted.digest);
            }
        }
        if !unknown.is_empty() {
            return Err(Refusal::ReferencesUnknown(unknown));
        }
        let (digest, facts) = (new.blob.digest, &new.manifest);
        let old = |tag: &Tag| Some(self.repositories.get(name)?.tags.get(tag)?.digest);
        for tag in &new.tags {
            if old(tag).is_some_and(|old| old != digest) && self.rules.is_immutable(name, tag) {
                return Err(Refusal::TagImmutable(tag.clone()));
            }
        }
        self.admit(name, &new.blob.digest, new.blob.size)?;
        self.put_blob(&new.blob);
        let repository = self.repositories.entry(name.clone()).or_default();
        repository.show(&digest);
        let held = repository.manifests.entry(digest).or_insert_with(|| Held {
            media_type: String::new(),
            subject: facts.subject,
            artifact_type: facts.artifact_type.clone(),
            descriptor: facts.referrer_descriptor(&digest, new.blob.size),
            pulled_at: 0,
        });
        held.media_type.clone_from(&facts.media_type);
        for tag in &new.tags {
            repository.set_tag(tag, digest, TagAction::Set);
        }
        Ok(())
    }

    /// What a quota holds: each blob once.
    fn used(&self, quota: &Quota) -> BTreeSet<Digest> {
        let covered = self.repositories.iter().filter(|(name, _)| quota.covers(name)).map(|(_, held)| held);
        covered
            .flat_map(|held| held.links.iter().chain(held.manifests.keys()).chain(held.hidden.keys()))
            .copied()
            .collect()
    }

    fn usage(&self, quota: &Quota) -> (Usage, BTreeSet<Digest>) {
        let held = self.used(quota);
        let used = held.iter().filter_map(|digest| self.blobs.get(digest)).map(|blob| blob.size).sum();
        (Usage { quota: quota.clone(), used }, held)
    }

    fn admit(&self, name: &RepoName, digest: &Digest, size: u64) -> Result<(), Refusal> {
        for quota in self.rules.quotas.iter().filter(|quota| quota.covers(name)) {
            let (usage, held) = self.usage(quota);
            if !held.contains(digest) {
                usage.admit(0, size)?;
            }
        }
        Ok(())
    }

    fn undelete(&mut self, name: &RepoName, reference: &Reference) -> Result<(), Refusal> {
        let nothing = || {
            Refusal::NothingToUndelete(match reference {
                Reference::Tag(tag) => format!("{name}:{tag}"),
                Reference::Digest(digest) => format!("{name}@{digest}"),
            })
        };
        let repository = self.repositories.get_mut(name).ok_or_else(nothing)?;
        match reference {
            Reference::Tag(tag) => {
                if let Some(named) = repository.tags.get(tag) {
                    return Err(Refusal::TagTaken { tag: tag.clone(), digest: named.digest });
                }
                let digest = repository.last(tag).ok_or_else(nothing)?.digest;
                if !repository.show(&digest) {
                    return Err(nothing());
                }
                repository.set_tag(tag, digest, TagAction::Restored);
            }
            Reference::Digest(digest) => {
                if repository.manifests.contains_key(digest) {
                    return Ok(());
                }
                if !repository.show(digest) {
                    return Err(nothing());
                }
                let tags: BTreeSet<Tag> = repository.events.iter().map(|event| event.tag.clone()).collect();
                for tag in tags {
                    let is_last = repository
                        .last(&tag)
                        .is_some_and(|last| last.digest == *digest && last.action == TagAction::Deleted);
                    if is_last && !repository.tags.contains_key(&tag) {
                        repository.set_tag(&tag, *digest, TagAction::Restored);
                    }
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: Change, events: Vec<OutboxEvent>) -> Result<(), Refusal> {
        match change {
            Change::PutBlob(name, blob) => {
                self.admit(&name, &blob.digest, blob.size)?;
                self.put_blob(&blob);
                self.repositories.entry(name).or_default().links.insert(blob.digest);
            }
            Change::Mount { digest, from, to } => {
                if !self.repositories.get(&from).is_some_and(|from| from.links.contains(&digest)) {
                    return Err(Refusal::BlobUnknown(digest));
                }
                let size = self.blobs.get(&digest).map_or(0, |blob| blob.size);
                self.admit(&to, &digest, size)?;
                self.repositories.entry(to).or_default().links.insert(digest);
            }
            Change::PutManifest(name, manifest) => self.put_manifest(&name, &manifest)?,
            Change::DeleteTag(name, tag) => {
                let immutable = self.rules.is_immutable(&name, &tag);
                let repository = self.known(&name)?;
                let Some(named) = repository.tags.get(&tag).copied() else {
                    return Err(Refusal::ManifestUnknown(tag.to_string()));
                };
                if immutable {
                    return Err(Refusal::TagImmutable(tag));
                }
                repository.tags.remove(&tag);
                repository.note(&tag, TagAction::Deleted, named.digest);
            }
            Change::Expire(name, facts) => {
                let current = self.repositories.get(&name).and_then(|repository| repository.tags.get(&facts.tag));
                if current.is_none_or(|now| (now.digest, now.pushed_at) != (facts.digest, facts.pushed_at)) {
                    return Err(Refusal::ManifestUnknown(facts.tag.to_string()));
                }
                self.apply(Change::DeleteTag(name, facts.tag), Vec::new())?;
            }
            Change::DeleteManifest(name, digest) => {
                let rules = self.rules.clone();
                let repository = self.known(&name)?;
                if !repository.manifests.contains_key(&digest) {
                    return Err(Refusal::ManifestUnknown(digest.to_string()));
                }
                let naming = repository.tags.iter().filter(|(_, named)| named.digest == digest);
                let tags: Vec<Tag> = naming.map(|(tag, _)| tag.clone()).collect();
                if let Some(tag) = tags.iter().find(|tag| rules.is_immutable(&name, tag)) {
                    return Err(Refusal::TagImmutable(tag.clone()));
                }
                for tag in tags {
                    repository.tags.remove(&tag);
                    repository.note(&tag, TagAction::Deleted, digest);
                }
                if let Some(held) = repository.manifests.remove(&digest) {
                    repository.hidden.insert(digest, held);
                }
            }
            Change::DeleteBlob(name, digest) => {
                if !self.known(&name)?.links.remove(&digest) {
                    return Err(Refusal::BlobUnknown(digest));
                }
            }
            Change::Undelete(name, reference) => self.undelete(&name, &reference)?,
            Change::Promise(name, digest) => {
                if !self.repositories.get(&name).is_some_and(|repository| repository.links.contains(&digest)) {
                    return Err(Refusal::BlobUnknown(digest));
                }
            }
            Change::Used(used) => {
                for (name, digest, _) in used.iter().filter(|(.., pulled)| *pulled) {
                    let manifests = self.repositories.get_mut(name).map(|repository| &mut repository.manifests);
                    if let Some(held) = manifests.and_then(|manifests| manifests.get_mut(digest)) {
                        held.pulled_at = now();
                    }
                }
            }
            Change::Nothing => {}
        }
        let created_at = now();
        for event in events {
            self.last_event += 1;
            let id = self.last_event;
            self.events.insert(id, Delivery { id, event, attempts: 0, created_at, dead: None });
        }
        Ok(())
    }
}

impl MemoryMetadata {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metadata for MemoryMetadata {
    fn apply(&self, change: Change, events: Vec<OutboxEvent>) -> Answer<'_, ()> {
        ready(self.lock().apply(change, events).map_err(StoreError::from))
    }

    fn blob<'a>(&'a self, repository: &'a RepoName, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>> {
        let state = self.lock();
        let held = state.repositories.get(repository).is_some_and(|repository| repository.links.contains(digest));
        // Nothing is collected here: every promise is as good as new.
        let entry = || Some(BlobEntry { used_at: now(), ..state.blobs.get(digest)?.clone() });
        ready(Ok(held.then(entry).flatten()))
    }

    fn blob_anywhere<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>> {
        ready(Ok(self.lock().blobs.get(digest).cloned()))
    }

    fn holders<'a>(&'a self, digest: &'a Digest, limit: usize) -> Answer<'a, Vec<RepoName>> {
        let state = self.lock();
        let holders = state.repositories.iter().filter(|(_, repository)| repository.links.contains(digest));
        ready(Ok(holders.map(|(name, _)| name.clone()).take(limit).collect()))
    }

    fn manifest<'a>(&'a self, repository: &'a RepoName, reference: &'a Reference) -> Answer<'a, Option<ManifestEntry>> {
        let state = self.lock();
        let entry = || {
            let repository = state.repositories.get(repository)?;
            let digest = match reference {
                Reference::Tag(tag) => &repository.tags.get(tag)?.digest,
                Reference::Digest(digest) => digest,
            };
            let media_type = repository.manifests.get(digest)?.media_type.clone();
            let blob = BlobEntry { used_at: now(), ..state.blobs.get(digest)?.clone() };
            Some(ManifestEntry { media_type, blob })
        };
        ready(Ok(entry()))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Option<Page<String>>> {
        let state = self.lock();
        let after = after.unwrap_or("");
        ready(Ok(state.repositories.get(repository).map(|repository| {
            page(repository.tags.keys().map(Tag::to_string).filter(|tag| tag.as_str() > after), limit)
        })))
    }

    fn repositories<'a>(&'a self, after: Option<&'a str>, limit: usize) -> Answer<'a, Page<RepoName>> {
        let state = self.lock();
        let after = sort_key(after.unwrap_or(""));
        let mut names: Vec<&RepoName> = state
            .repositories
            .iter()
            .filter(|(name, repository)| !repository.manifests.is_empty() && name.sort_key() > after)
            .map(|(name, _)| name)
            .collect();
        names.sort();
        ready(Ok(page(names.into_iter().cloned(), limit)))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepoName,
        subject: &'a Digest,
        artifact_type: Option<&'a str>,
        after: Option<&'a Digest>,
        limit: usize,
        budget: usize,
    ) -> Answer<'a, Page<(Digest, String)>> {
        let state = self.lock();
        let Some(repository) = state.repositories.get(repository) else {
            return ready(Ok(page(std::iter::empty(), limit)));
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = repository
            .manifests
            .range::<Digest, _>((start, Bound::Unbounded))
            .filter(|(_, held)| held.subject.as_ref() == Some(subject))
            .filter(|(_, held)| artifact_type.is_none() || held.artifact_type.as_deref() == artifact_type)
            .map(|(digest, held)| (*digest, held.descriptor.clone()));
        let mut page = page(entries, limit);
        let mut bytes = 0;
        let fits = page.entries.iter().take_while(|(_, text)| {
            bytes += text.len();
            bytes <= budget
        });
        let fits = fits.count().max(1);
        page.more |= fits < page.entries.len();
        page.entries.truncate(fits);
        ready(Ok(page))
    }

    fn pending<'a>(&'a self, endpoint: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>> {
        let state = self.lock();
        let alive = state.events.values().filter(|event| event.dead.is_none() && event.event.endpoint == endpoint);
        ready(Ok(alive.take(limit).cloned().collect()))
    }

    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<Delivery>> {
        ready(Ok(self.lock().events.values().filter(|event| event.dead.is_some()).take(limit).cloned().collect()))
    }

    fn delivered(&self, id: i64, outcome: Delivered) -> Answer<'_, ()> {
        let mut state = self.lock();
        if let Some(event) = state.events.get_mut(&id) {
            match outcome {
                Delivered::Accepted => drop(state.events.remove(&id)),
                Delivered::Failed => event.attempts += 1,
                Delivered::Dead(why) => {
                    event.attempts += 1;
                    event.dead = Some(why);
                }
                Delivered::Replayed if event.dead.is_some() => {
                    event.attempts = 0;
                    event.dead = None;
                }
                Delivered::Replayed => {}
            }
        }
        ready(Ok(()))
    }

    fn trim_outbox<'a>(&'a self, endpoint: &'a str, waiting: usize, dead: usize) -> Answer<'a, usize> {
        let mut state = self.lock();
        let alive = state.events.values_mut().filter(|event| event.dead.is_none() && event.event.endpoint == endpoint);
        let mut buried = 0;
        for event in alive.rev().skip(waiting) {
            event.dead = Some("the queue was full".into());
            buried += 1;
        }
        let gone = state.events.values().filter(|event| event.dead.is_some()).rev().skip(dead);
        for id in gone.map(|event| event.id).collect::<Vec<_>>() {
            state.events.remove(&id);
        }
        ready(Ok(buried))
    }

    fn version(&self, _: &RepoName) -> Option<u64> {
        None
    }

    fn check(&self) -> Answer<'_, ()> {
        ready(Ok(()))
    }

    fn place<'a>(&'a self, _: &'a Digest) -> Answer<'a, Place> {
        ready(Ok(Place::Canonical))
    }

    fn govern(&self, rules: Rules) -> Answer<'_, ()> {
        self.lock().rules = rules;
        ready(Ok(()))
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        let state = self.lock();
        ready(Ok(state.rules.quotas.iter().map(|quota| state.usage(quota).0).collect()))
    }

    fn history<'a>(
        &'a self,
        repository: &'a RepoName,
        tag: Option<&'a Tag>,
        limit: usize,
    ) -> Answer<'a, Vec<TagEvent>> {
        let state = self.lock();
        let events =
            state.repositories.get(repository).into_iter().flat_map(|repository| repository.events.iter().rev());
        ready(Ok(events.filter(|event| tag.is_none_or(|tag| event.tag == *tag)).take(limit).cloned().collect()))
    }

    fn tag_facts<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a Tag>,
        limit: usize,
    ) -> Answer<'a, Page<TagFacts>> {
        let state = self.lock();
        let tags = state.repositories.get(repository).into_iter().flat_map(|repository| {
            let facts = |(tag, named): (&Tag, &Named)| TagFacts {
                tag: tag.clone(),
                digest: named.digest,
                pushed_at: named.pushed_at,
                pulled_at: repository.manifests.get(&named.digest).map_or(0, |held| held.pulled_at),
            };
            repository.tags.iter().filter(|(tag, _)| after.is_none_or(|after| *tag > after)).map(facts)
        });
        ready(Ok(page(tags, limit)))
    }
}

impl Directories for MemoryMetadata {
    fn load(&self) -> Answer<'_, Option<(u64, Directory)>> {
        ready(Ok(self.lock().directory.clone()))
    }

    fn save(&self, expected: u64, directory: Directory) -> Answer<'_, u64> {
        let mut state = self.lock();
        if state.directory.as_ref().map_or(0, |(version, _)| *version) != expected {
            return ready(Err(Refusal::DirectoryChanged.into()));
        }
        let version = expected + 1;
        state.directory = Some((version, directory));
        ready(Ok(version))
    }
}
