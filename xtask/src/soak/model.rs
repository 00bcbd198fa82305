//! What the server may answer, given what it was asked and what it acknowledged. Pure: times are handed in.
//!
//! An operation takes effect at some moment between its request and its answer; one without an answer may take effect
//! until the server is killed, or never. From these intervals follow the values that a tag may have, and whether a
//! manifest must be there. Whatever cannot be told for certain is legal: the model never accuses wrongly, and is
//! sharp where operations do not overlap.
//!
//! Does not own what is done about a wrong answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::content::Image;

/// Microseconds since the run began.
pub(crate) type Moment = u64;

pub(crate) const SECOND: Moment = 1_000_000;
/// For how long a request whose client went away may still take effect.
const LINGER: Moment = 30 * SECOND;
/// For how long an answer may be on its way: older operations are forgotten once others took their place.
const MEMORY: Moment = 90 * SECOND;
/// For how long a manifest is remembered that nothing vouches for.
const RECOLLECTION: Moment = 120 * SECOND;

/// How long the server was told to keep things, as far as its clients may rely on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// From "this repository has the blob" to a manifest that may refer to it.
    pub(crate) lease: Moment,
    /// A manifest whose subject is not there.
    pub(crate) grace: Moment,
    /// A manifest that nothing reaches.
    pub(crate) untagged: Moment,
}

#[derive(Clone, Debug, PartialEq)]
enum Effect {
    Set(String),
    Clear,
    /// Clears if it has this value.
    ClearIf(String),
}

#[derive(Clone, Debug)]
struct Operation {
    id: u64,
    effect: Effect,
    start: Moment,
    /// The last moment at which it can have taken effect; the end of time while it runs.
    end: Moment,
    acknowledged: bool,
    /// When its client gave up waiting.
    lost: Option<Moment>,
}

impl Operation {
    fn clears(&self, value: &str) -> bool {
        match &self.effect {
            Effect::Set(_) | Effect::Clear => true,
            Effect::ClearIf(only) => only == value,
        }
    }
}

/// One value that operations set and clear, at first absent.
#[derive(Clone, Debug, Default)]
struct Register(Vec<Operation>);

impl Register {
    fn begin(&mut self, id: u64, effect: Effect, start: Moment) {
        self.0.push(Operation { id, effect, start, end: Moment::MAX, acknowledged: false, lost: None });
    }

    fn settle(&mut self, id: u64, outcome: Outcome, last_kill: Moment) {
        match outcome {
            Outcome::Refused => self.0.retain(|operation| operation.id != id),
            Outcome::Done(at) => {
                for operation in self.0.iter_mut().filter(|operation| operation.id == id) {
                    (operation.end, operation.acknowledged) = (at, true);
                }
            }
            Outcome::Lost { at, hung_up } => {
                for operation in self.0.iter_mut().filter(|operation| operation.id == id) {
                    let died_with_server = !hung_up && last_kill >= operation.start;
                    operation.end = if died_with_server { at } else { at + LINGER };
                    operation.lost = Some(at);
                }
            }
        }
    }

    fn killed(&mut self, at: Moment) {
        for operation in self.0.iter_mut().filter(|operation| operation.lost.is_some_and(|lost| lost <= at)) {
            operation.end = operation.end.min(at);
        }
    }

    /// Whether something that was acknowledged before `from` certainly took the place of `value`, which was there
    /// until `end` at the latest.
    fn replaced(&self, value: Option<&str>, end: Moment, from: Moment) -> bool {
        self.0.iter().any(|later| {
            let replaces = match value {
                Some(value) => later.clears(value),
                None => matches!(later.effect, Effect::Set(_)),
            };
            later.acknowledged && replaces && end < later.start && later.end < from
        })
    }

    /// Whether a read between `from` and `to` may find this value.
    fn allows(&self, value: Option<&str>, from: Moment, to: Moment) -> bool {
        let source = |operation: &Operation| {
            let gives = match (&operation.effect, value) {
                (Effect::Set(set), Some(value)) => set == value,
                (Effect::Clear, None) => true,
                // It clears nothing if the value cannot have been there.
                (Effect::ClearIf(only), None) => self.allows(Some(only), operation.start, operation.end),
                _ => false,
            };
            gives && operation.start < to && !self.replaced(value, operation.end, from)
        };
        (value.is_none() && !self.replaced(None, 0, from)) || self.0.iter().any(source)
    }

    /// The value that a read must find, if only one is possible.
    fn certain(&self, from: Moment, to: Moment) -> Option<Option<&str>> {
        let values: BTreeSet<Option<&str>> = self.values().map(Some).chain([None]).collect();
        let mut possible = values.into_iter().filter(|value| self.allows(*value, from, to));
        possible.next().filter(|_| possible.next().is_none())
    }

    /// The values that it may have, or may still get from what is under way.
    fn possible(&self, now: Moment) -> impl Iterator<Item = &str> {
        self.values().filter(move |value| self.allows(Some(value), now, Moment::MAX))
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|operation| match &operation.effect {
            Effect::Set(value) => Some(value.as_str()),
            Effect::Clear | Effect::ClearIf(_) => None,
        })
    }

    /// Forgets what was replaced long ago.
    fn forget(&mut self, now: Moment) {
        let before = now.saturating_sub(MEMORY);
        let last = self
            .0
            .iter()
            .filter(|one| one.acknowledged && one.end < before && !matches!(one.effect, Effect::ClearIf(_)))
            .map(|one| one.start)
            .max();
        if let Some(start) = last {
            self.0.retain(|operation| operation.end >= start);
        }
    }

    fn is_running(&self) -> bool {
        self.0.iter().any(|operation| operation.end == Moment::MAX)
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// It was acknowledged at that moment.
    Done(Moment),
    /// It was answered that nothing happened.
    Refused,
    /// There was no answer.
    Lost {
        /// When the client knew.
        at: Moment,
        /// Whether the client went away by itself, so that the server may go on.
        hung_up: bool,
    },
}

#[derive(Debug)]
struct Manifest {
    image: Arc<Image>,
    there: Register,
    /// The start of the last acknowledged push, or a later moment at which a tag named it for certain.
    used: Moment,
    /// The start of the last acknowledged push.
    pushed: Moment,
    /// Whether it may have been collected since.
    doubtful: bool,
    touched: Moment,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, Register>,
    manifests: HashMap<String, Manifest>,
    /// Manifests to the indexes that list them.
    listed_by: HashMap<String, Vec<String>>,
    /// Blobs to the moment since which the repository's having them is promised.
    promises: HashMap<String, Moment>,
    /// Blobs to the moment at which a client's deletion of them ended.
    deletions: HashMap<String, Moment>,
}

impl Repository {
    /// Whether a read between `from` and `to` must find a manifest.
    fn must_have(&self, digest: &str, from: Moment, to: Moment, rules: &Rules) -> bool {
        let Some(manifest) = self.manifests.get(digest) else {
            return false;
        };
        if self.tags.values().any(|tag| tag.certain(from, to) == Some(Some(digest))) {
            return true;
        }
        if manifest.doubtful || manifest.there.allows(None, from, to) {
            return false;
        }
        let keep = if manifest.image.subject.is_some() { rules.grace } else { rules.untagged };
        let must_have = |other: &String| self.must_have(other, from, to, rules);
        to < manifest.used + keep
            || self.listed_by.get(digest).is_some_and(|indexes| indexes.iter().any(must_have))
            || manifest.image.subject.as_ref().is_some_and(must_have)
    }

    fn forget(&mut self, now: Moment, rules: &Rules) {
        self.tags.values_mut().for_each(|tag| tag.forget(now));
        let uncertain: BTreeSet<String> =
            self.manifests.keys().filter(|digest| !self.must_have(digest, now, now, rules)).cloned().collect();
        let named: BTreeSet<String> = self.tags.values().flat_map(|tag| tag.possible(now)).map(str::to_owned).collect();
        for (digest, manifest) in &mut self.manifests {
            manifest.there.forget(now);
            manifest.doubtful |= uncertain.contains(digest);
        }
        let mut kept: BTreeSet<String> = self
            .manifests
            .iter()
            .filter(|(digest, manifest)| {
                !uncertain.contains(*digest)
                    || named.contains(*digest)
                    || manifest.there.is_running()
                    || manifest.touched + RECOLLECTION > now
            })
            .map(|(digest, _)| digest.clone())
            .collect();
        let children: Vec<String> = kept
            .iter()
            .flat_map(|digest| &self.manifests[digest].image.children)
            .map(|child| child.digest.clone())
            .collect();
        kept.extend(children);
        self.manifests.retain(|digest, _| kept.contains(digest));
        self.listed_by.retain(|digest, _| kept.contains(digest));
        self.listed_by.values_mut().for_each(|indexes| indexes.retain(|index| kept.contains(index)));
        self.promises.retain(|_, since| *since + rules.lease > now);
        let needed: BTreeSet<&str> = self
            .manifests
            .values()
            .flat_map(|manifest| &manifest.image.blobs)
            .map(|blob| blob.digest.as_str())
            .collect();
        self.deletions.retain(|digest, _| needed.contains(digest.as_str()));
    }
}

/// An operation that is under way.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    repository: String,
    digest: Option<String>,
    tag: Option<String>,
    start: Moment,
    is_push: bool,
}

/// The model of the whole registry.
#[derive(Debug)]
pub(crate) struct Model {
    rules: Rules,
    repositories: BTreeMap<String, Repository>,
    last_kill: Moment,
    next: u64,
}

impl Model {
    /// An empty registry with these repositories, and these tags in each.
    pub(crate) fn new(rules: Rules, repositories: &[String], tags: &[String]) -> Self {
        let empty = || Repository {
            tags: tags.iter().map(|tag| (tag.clone(), Register::default())).collect(),
            ..Repository::default()
        };
        let repositories = repositories.iter().map(|name| (name.clone(), empty())).collect();
        Self { rules, repositories, last_kill: 0, next: 0 }
    }

    fn repository(&self, name: &str) -> &Repository {
        self.repositories.get(name).expect("clients use the repositories that the model was made with")
    }

    fn repository_mut(&mut self, name: &str) -> &mut Repository {
        self.repositories.get_mut(name).expect("clients use the repositories that the model was made with")
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A push of a manifest begins, under a tag or its digest.
    pub(crate) fn begin_push(&mut self, now: Moment, name: &str, image: &Arc<Image>, tag: Option<&str>) -> Ticket {
        let id = self.id();
        let repository = self.repository_mut(name);
        if !repository.manifests.contains_key(&image.digest) {
            for child in &image.children {
                repository.listed_by.entry(child.digest.clone()).or_default().push(image.digest.clone());
            }
        }
        let manifest = repository.manifests.entry(image.digest.clone()).or_insert_with(|| Manifest {
            image: Arc::clone(image),
            there: Register::default(),
            used: 0,
            pushed: 0,
            doubtful: true,
            touched: now,
        });
        manifest.there.begin(id, Effect::Set(String::new()), now);
        manifest.touched = now;
        if let Some(tag) = tag {
            repository.leave(tag, now);
            repository.tag_mut(tag).begin(id, Effect::Set(image.digest.clone()), now);
        }
        Ticket {
            id,
            repository: name.to_owned(),
            digest: Some(image.digest.clone()),
            tag: tag.map(str::to_owned),
            start: now,
            is_push: true,
        }
    }

    /// A deletion of a tag begins.
    pub(crate) fn begin_tag_deletion(&mut self, now: Moment, name: &str, tag: &str) -> Ticket {
        let id = self.id();
        let repository = self.repository_mut(name);
        repository.leave(tag, now);
        repository.tag_mut(tag).begin(id, Effect::Clear, now);
        let (repository, tag) = (name.to_owned(), Some(tag.to_owned()));
        Ticket { id, repository, digest: None, tag, start: now, is_push: false }
    }

    /// A deletion of a manifest begins; it takes its tags along.
    pub(crate) fn begin_manifest_deletion(&mut self, now: Moment, name: &str, digest: &str) -> Ticket {
        let (id, rules) = (self.id(), self.rules);
        let repository = self.repository_mut(name);
        for tag in repository.tags.values_mut() {
            tag.begin(id, Effect::ClearIf(digest.to_owned()), now);
        }
        for manifest in repository.manifests.values_mut() {
            if manifest.image.digest == digest {
                manifest.there.begin(id, Effect::Clear, now);
                manifest.touched = now;
            } else if manifest.image.subject.as_deref() == Some(digest) && manifest.used + rules.grace <= now {
                // What was only kept for its subject may be gone before the subject is back.
                manifest.doubtful = true;
            }
        }
        Ticket {
            id,
            repository: name.to_owned(),
            digest: Some(digest.to_owned()),
            tag: None,
            start: now,
            is_push: false,
        }
    }

    /// Notes what became of an operation.
    pub(crate) fn settle(&mut self, ticket: &Ticket, outcome: Outcome) {
        let last_kill = self.last_kill;
        let repository = self.repository_mut(&ticket.repository);
        match &ticket.tag {
            Some(tag) => repository.tag_mut(tag).settle(ticket.id, outcome, last_kill),
            None => repository.tags.values_mut().for_each(|tag| tag.settle(ticket.id, outcome, last_kill)),
        }
        let Some(manifest) = ticket.digest.as_ref().and_then(|digest| repository.manifests.get_mut(digest)) else {
            return;
        };
        manifest.there.settle(ticket.id, outcome, last_kill);
        let Outcome::Done(at) = outcome else {
            return;
        };
        manifest.touched = at;
        if ticket.is_push {
            manifest.used = manifest.used.max(ticket.start);
            manifest.pushed = manifest.pushed.max(ticket.start);
            manifest.doubtful = false;
            let children: Vec<String> = manifest.image.children.iter().map(|child| child.digest.clone()).collect();
            for child in children {
                // The server has just seen that it is there.
                if let Some(child) = repository.manifests.get_mut(&child) {
                    child.doubtful = false;
                }
            }
        }
    }

    /// The server was killed and is gone: what had no answer by then has taken effect or never will.
    pub(crate) fn killed(&mut self, at: Moment) {
        self.last_kill = at;
        for repository in self.repositories.values_mut() {
            let manifests = repository.manifests.values_mut().map(|manifest| &mut manifest.there);
            repository.tags.values_mut().chain(manifests).for_each(|register| register.killed(at));
        }
    }

    /// Forgets what can no longer matter; to be called twice a second or so.
    pub(crate) fn sweep(&mut self, now: Moment) {
        let rules = self.rules;
        self.repositories.values_mut().for_each(|repository| repository.forget(now, &rules));
    }

    /// Whether a read of a tag may have had this result.
    pub(crate) fn allows_tag(&self, name: &str, tag: &str, digest: Option<&str>, from: Moment, to: Moment) -> bool {
        self.repository(name).tags.get(tag).is_some_and(|register| register.allows(digest, from, to))
    }

    /// The manifest that a read of a tag must find.
    pub(crate) fn certain_tag(&self, name: &str, tag: &str, from: Moment, to: Moment) -> Option<Option<&str>> {
        self.repository(name).tags.get(tag).and_then(|register| register.certain(from, to))
    }

    /// Whether a read of a manifest by its digest may have found it.
    pub(crate) fn allows_manifest(&self, name: &str, digest: &str, from: Moment, to: Moment) -> bool {
        let manifest = self.repository(name).manifests.get(digest);
        manifest.is_some_and(|manifest| manifest.there.allows(Some(""), from, to))
    }

    /// Whether a read of a manifest must find it.
    pub(crate) fn must_have(&self, name: &str, digest: &str, from: Moment, to: Moment) -> bool {
        self.repository(name).must_have(digest, from, to, &self.rules)
    }

    /// Whether no client deleted a part of a manifest since that was pushed.
    pub(crate) fn is_whole(&self, name: &str, parent: &str, part: &str) -> bool {
        let repository = self.repository(name);
        let Some(parent) = repository.manifests.get(parent) else {
            return false;
        };
        let kept_blob = repository.deletions.get(part).is_none_or(|end| *end < parent.pushed);
        let deletes = |operation: &&Operation| operation.effect == Effect::Clear && operation.end >= parent.pushed;
        kept_blob && repository.manifests.get(part).is_none_or(|part| !part.there.0.iter().any(|one| deletes(&one)))
    }

    /// Whether a push or deletion of a manifest overlaps that time.
    pub(crate) fn is_touched(&self, name: &str, digest: &str, from: Moment, to: Moment) -> bool {
        let manifest = self.repository(name).manifests.get(digest);
        manifest.is_none_or(|manifest| manifest.there.0.iter().any(|one| one.start < to && one.end > from))
    }

    /// A repository was said to have a blob, in an answer to a request of that moment.
    pub(crate) fn promise(&mut self, name: &str, blob: &str, asked: Moment) {
        let repository = self.repository_mut(name);
        let since = repository.promises.entry(blob.to_owned()).or_default();
        *since = asked.max(*since);
        if repository.deletions.get(blob).is_some_and(|end| *end < asked) {
            repository.deletions.remove(blob);
        }
    }

    /// Whether a blob must be found in a repository up to that moment, because its clients were told so.
    pub(crate) fn is_promised(&self, name: &str, blob: &str, to: Moment) -> bool {
        self.repository(name).promises.get(blob).is_some_and(|since| to < since + self.rules.lease)
    }

    /// A client is about to delete a blob from a repository.
    pub(crate) fn begin_blob_deletion(&mut self, name: &str, blob: &str) {
        let repository = self.repository_mut(name);
        repository.promises.remove(blob);
        repository.deletions.insert(blob.to_owned(), Moment::MAX);
    }

    /// That deletion is over, whatever became of it.
    pub(crate) fn end_blob_deletion(&mut self, name: &str, blob: &str, at: Moment) {
        self.repository_mut(name).deletions.insert(blob.to_owned(), at);
    }

    /// A manifest that was pushed to a repository, by its digest.
    pub(crate) fn image(&self, name: &str, digest: &str) -> Option<Arc<Image>> {
        self.repository(name).manifests.get(digest).map(|manifest| Arc::clone(&manifest.image))
    }

    /// All manifests of a repository that the model knows, in an arbitrary order.
    pub(crate) fn images(&self, name: &str) -> Vec<Arc<Image>> {
        self.repository(name).manifests.values().map(|manifest| Arc::clone(&manifest.image)).collect()
    }

    /// The manifests that must be listed as referrers of another one.
    pub(crate) fn certain_referrers(&self, name: &str, subject: &str, from: Moment, to: Moment) -> Vec<String> {
        let repository = self.repository(name);
        let about = repository.manifests.values().map(|manifest| &manifest.image);
        about
            .filter(|image| image.subject.as_deref() == Some(subject))
            .filter(|image| repository.must_have(&image.digest, from, to, &self.rules))
            .map(|image| image.digest.clone())
            .collect()
    }

    /// What the model holds: operations and manifests, to see that it stays bounded.
    pub(crate) fn size(&self) -> (usize, usize) {
        let tags = self.repositories.values().flat_map(|repository| repository.tags.values());
        let manifests = || self.repositories.values().flat_map(|repository| repository.manifests.values());
        let operations = tags.chain(manifests().map(|manifest| &manifest.there)).map(|register| register.0.len());
        (operations.sum(), manifests().count())
    }
}

impl Repository {
    fn tag_mut(&mut self, tag: &str) -> &mut Register {
        self.tags.get_mut(tag).expect("clients use the tags that the model was made with")
    }

    /// A tag is about to leave what it names: that is kept from now on as what no tag names.
    fn leave(&mut self, tag: &str, now: Moment) {
        let Some(Some(digest)) = self.tags.get(tag).and_then(|register| register.certain(now, now)) else {
            return;
        };
        if let Some(manifest) = self.manifests.get_mut(digest) {
            manifest.used = manifest.used.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations as `<name>:<what> <start>-<end>`, an end of `?` for one without an answer, `!` for a kill; then
    /// reads of the tag as `<from>-<to>` with the values that are possible.
    fn check(script: &str, read: (Moment, Moment), expected: &str) {
        let mut register = Register::default();
        let mut last_kill = 0;
        for (id, word) in (1..).zip(script.split(", ").filter(|word| !word.is_empty())) {
            let (what, when) = word.split_once(' ').expect("<what> <start>-<end>");
            let (start, end) = when.split_once('-').expect("<start>-<end>");
            let start = start.parse().expect("a number");
            if what == "kill" {
                last_kill = start;
                register.killed(start);
                continue;
            }
            let effect = match what.split_once(' ').unwrap_or((what, "")).0 {
                "clear" => Effect::Clear,
                set if set.starts_with('~') => Effect::ClearIf(set[1..].to_owned()),
                set => Effect::Set(set.to_owned()),
            };
            register.begin(id, effect, start);
            match end.strip_prefix('?') {
                Some(at) => {
                    let at = at.parse().expect("a number");
                    register.settle(id, Outcome::Lost { at, hung_up: false }, last_kill);
                }
                None => register.settle(id, Outcome::Done(end.parse().expect("a number")), last_kill),
            }
        }
        let mut values: BTreeSet<Option<&str>> = register.values().map(Some).collect();
        values.insert(None);
        let seen: Vec<&str> = values
            .into_iter()
            .filter(|value| register.allows(*value, read.0, read.1))
            .map(|value| value.unwrap_or("none"))
            .collect();
        assert_eq!(seen.join(" "), expected, "{script} read at {read:?}");
        // Forgetting what is long past changes nothing for reads that begin now.
        let mut later = register.clone();
        later.forget(read.0 + MEMORY);
        for value in seen {
            let value = (value != "none").then_some(value);
            assert!(
                later.allows(value, read.0 + MEMORY, read.1 + MEMORY)
                    || !register.allows(value, read.0 + MEMORY, read.1 + MEMORY)
            );
        }
    }

    #[test]
    fn a_tag_has_a_value_that_the_intervals_permit() {
        check("", (5, 6), "none");
        check("a 10-20", (5, 6), "none");
        check("a 10-20", (5, 15), "none a");
        check("a 10-20", (25, 26), "a");
        check("a 10-20, b 30-40", (35, 36), "a b");
        check("a 10-20, b 30-40", (41, 42), "b");
        check("a 10-30, b 20-40", (41, 42), "a b");
        check("a 10-20, clear 30-40", (41, 42), "none");
        check("a 10-20, clear 15-40", (41, 42), "none a");
        // A deleted manifest takes its tags along, and no others.
        check("a 10-20, ~a 30-40", (41, 42), "none");
        check("a 10-20, ~b 30-40", (41, 42), "a");
        check("a 10-20, b 15-40, ~a 50-60", (61, 62), "none b");
        // Without an answer it may happen later, until the server is killed.
        check("a 10-20, b 30-?31", (40, 41), "a b");
        check("a 10-20, b 30-?31, a 50-60", (70, 71), "a b");
        check("a 10-20, b 30-?31, kill 45-45, a 50-60", (70, 71), "a");
        check("a 10-20, kill 35-35, b 30-?36, a 50-60", (70, 71), "a");
    }

    const RULES: Rules = Rules { lease: 8 * SECOND, grace: 4 * SECOND, untagged: 6 * SECOND };

    fn registry() -> Model {
        Model::new(RULES, &["r".to_owned()], &["t".to_owned(), "u".to_owned()])
    }

    fn push(model: &mut Model, at: Moment, image: &Arc<Image>, tag: Option<&str>) {
        let ticket = model.begin_push(at, "r", image, tag);
        model.settle(&ticket, Outcome::Done(at + 1));
    }

    fn image(mark: u64, subject: Option<&Image>) -> Arc<Image> {
        let config = Arc::new(super::super::content::Content::new(mark, 10));
        Arc::new(Image::of(vec![config], subject, mark))
    }

    #[test]
    fn a_manifest_must_be_there_while_something_vouches_for_it() {
        let (one, two) = (image(1, None), image(2, None));
        let (signature, index) = (image(3, Some(&one)), Arc::new(Image::index(vec![two.clone()], 4)));
        let mut model = registry();
        let must = |model: &Model, image: &Image, at: Moment| model.must_have("r", &image.digest, at, at);
        for (at, image, tag) in
            [(10, &one, Some("t")), (20, &two, None), (30, &signature, None), (40, &index, Some("u"))]
        {
            push(&mut model, at, image, tag);
        }
        model.sweep(50);
        let late = 60 * SECOND;
        // Tagged, listed, about one that is tagged: all of them.
        for image in [&one, &two, &signature, &index] {
            assert!(must(&model, image, late), "{image:?}");
        }
        let ticket = model.begin_tag_deletion(late, "r", "t");
        assert!(must(&model, &one, late + 1) && !must(&model, &one, late + RULES.untagged));
        model.settle(&ticket, Outcome::Done(late + 1));
        model.sweep(late + RULES.untagged + 1);
        // It may be gone, and what is about it; only a push makes it certain again.
        push(&mut model, late + RULES.untagged + 2, &one, Some("t"));
        let end = late + RULES.untagged + 10;
        assert!(must(&model, &one, end) && !must(&model, &signature, end) && must(&model, &two, end));
        let ticket = model.begin_manifest_deletion(end, "r", &index.digest);
        assert!(!must(&model, &two, end + 1) && !must(&model, &index, end + 1));
        model.settle(&ticket, Outcome::Done(end + 5));
        assert!(model.allows_manifest("r", &index.digest, end + 1, end + 2));
        assert!(!model.allows_manifest("r", &index.digest, end + 6, end + 7));
        assert!(model.allows_tag("r", "u", None, end + 6, end + 7));
        // All is forgotten that nothing vouches for.
        model.sweep(end + RECOLLECTION + 10);
        assert_eq!(model.images("r").len(), 1);
    }

    #[test]
    fn a_promise_holds_for_the_lease_unless_the_blob_is_deleted() {
        let mut model = registry();
        model.promise("r", "b", 10);
        assert!(model.is_promised("r", "b", RULES.lease) && !model.is_promised("r", "b", RULES.lease + 10));
        let image = image(1, None);
        push(&mut model, 20, &image, Some("t"));
        let part = image.blobs[0].digest.clone();
        assert!(model.is_whole("r", &image.digest, &part));
        model.begin_blob_deletion("r", &part);
        model.end_blob_deletion("r", &part, 40);
        assert!(!model.is_whole("r", &image.digest, &part));
        model.promise("r", &part, 50);
        assert!(model.is_whole("r", &image.digest, &part));
    }
}
