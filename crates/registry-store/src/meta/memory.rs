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
    store::{
        Answer, BlobEntry, Change, Content, Delivered, Delivery, ManifestEntry, Metadata, NewBlob, NewManifest,
        OutboxEvent, Refusal, StoreError,
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
}

#[derive(Debug, Default)]
struct Repository {
    links: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Held>,
    tags: BTreeMap<Tag, Digest>,
}

#[derive(Debug)]
struct Held {
    media_type: String,
    subject: Option<Digest>,
    artifact_type: Option<String>,
    descriptor: String,
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
        let fresh = || BlobEntry { digest: new.digest, size: new.size, content: new.content.clone() };
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
        self.put_blob(&new.blob);
        let (digest, facts) = (new.blob.digest, &new.manifest);
        let repository = self.repositories.entry(name.clone()).or_default();
        let held = repository.manifests.entry(digest).or_insert_with(|| Held {
            media_type: String::new(),
            subject: facts.subject,
            artifact_type: facts.artifact_type.clone(),
            descriptor: facts.referrer_descriptor(&digest, new.blob.size),
        });
        held.media_type.clone_from(&facts.media_type);
        for tag in &new.tags {
            repository.tags.insert(tag.clone(), digest);
        }
        Ok(())
    }

    fn apply(&mut self, change: Change, events: Vec<OutboxEvent>) -> Result<(), Refusal> {
        match change {
            Change::PutBlob(name, blob) => {
                self.put_blob(&blob);
                self.repositories.entry(name).or_default().links.insert(blob.digest);
            }
            Change::Mount { digest, from, to } => {
                if !self.repositories.get(&from).is_some_and(|from| from.links.contains(&digest)) {
                    return Err(Refusal::BlobUnknown(digest));
                }
                self.repositories.entry(to).or_default().links.insert(digest);
            }
            Change::PutManifest(name, manifest) => self.put_manifest(&name, &manifest)?,
            Change::DeleteTag(name, tag) => {
                if self.known(&name)?.tags.remove(&tag).is_none() {
                    return Err(Refusal::ManifestUnknown(tag.to_string()));
                }
            }
            Change::DeleteManifest(name, digest) => {
                let repository = self.known(&name)?;
                if repository.manifests.remove(&digest).is_none() {
                    return Err(Refusal::ManifestUnknown(digest.to_string()));
                }
                repository.tags.retain(|_, named| *named != digest);
            }
            Change::DeleteBlob(name, digest) => {
                if !self.known(&name)?.links.remove(&digest) {
                    return Err(Refusal::BlobUnknown(digest));
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
        ready(Ok(held.then(|| state.blobs.get(digest).cloned()).flatten()))
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
                Reference::Tag(tag) => repository.tags.get(tag)?,
                Reference::Digest(digest) => digest,
            };
            let media_type = repository.manifests.get(digest)?.media_type.clone();
            Some(ManifestEntry { media_type, blob: state.blobs.get(digest)?.clone() })
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
