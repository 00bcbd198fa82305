//! Tries the collection against the writers in every order of their steps, with a crash between
//! any two. The rows are the real statements on a database in memory; files, claims and the clock
//! are modelled here.
//!
//! What must hold after every step: no row names a file that is gone; what was acknowledged and not
//! deleted is there; within a lease a promise is kept. And once all is quiet: no file that no row
//! names, nothing left in the queue.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::{Strategy, any, proptest};
use registry_core::{
    digest::{Algorithm, Digest},
    gc::{Policy, Purge},
    manifest::{IndexPolicy, parse},
    name::RepoName,
    reference::{Reference, Tag},
    retention::Rules,
    store::{Change, Content, NewBlob, NewManifest, Place, Refusal},
};
use rusqlite::Connection;

use super::{
    review, schema,
    statements::{ApplyError, Context, apply, digest_from, place_for, place_from},
};
use crate::hash::digest_of;

const POLICY: Policy = Policy { grace: 40, lease: 40, quarantine: 10, untagged: Some(80) };
/// Beyond every period of the policy.
const LONG: i64 = 200;

/// What an actor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// W1: claims the digest and asks for a place.
    Place,
    /// W1: the bytes are at the place.
    File,
    /// W1: the row, the end of the claim, and the answer.
    Row,
    /// W1, small: bytes and row in one.
    Inline,
    /// W2: asks whether the repository has the blob.
    Head,
    /// W2: mounts it from the other repository.
    Mount,
    /// W3: puts the manifest that refers to it, under a tag or not.
    Manifest,
    Untagged,
    /// W4.
    DeleteManifest,
    DeleteTag,
    DeleteBlob,
    Undelete,
    /// Time goes by.
    Tick(i64),
    /// The collector's steps.
    Review,
    Retire,
    List,
    Remove,
    Forget,
}

const COLLECT: [Step; 5] = [Step::Review, Step::Retire, Step::List, Step::Remove, Step::Forget];

/// What a writer holds in memory: a crash loses it.
#[derive(Clone, Debug, Default)]
struct Writer {
    place: Option<Place>,
    refused: bool,
}

#[derive(Clone, Debug)]
struct World {
    now: i64,
    files: BTreeSet<(Digest, Place)>,
    writers: Vec<Writer>,
    /// Until when a client may rely on the blob being in a repository.
    promised: BTreeMap<&'static str, i64>,
    /// Repositories whose manifest was acknowledged and not deleted since.
    kept: BTreeSet<&'static str>,
    listed: Vec<Purge>,
    removed: Vec<Purge>,
    /// Places that bytes were purged from: none may be used again.
    burnt: BTreeSet<(Digest, Place)>,
    trace: Vec<(usize, Step)>,
}

fn blob() -> Digest {
    digest_of(Algorithm::Sha256, b"layer")
}

fn config() -> NewBlob {
    let bytes = Bytes::from_static(b"{}");
    NewBlob { digest: digest_of(Algorithm::Sha256, &bytes), size: 2, content: Content::Inline(bytes) }
}

fn manifest(tagged: bool) -> Box<NewManifest> {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"c/t","digest":"{}","size":2}},"layers":[{{"mediaType":"l/t","digest":"{}","size":5}}]}}"#,
        config().digest,
        blob()
    );
    let bytes = Bytes::from(text);
    let digest = digest_of(Algorithm::Sha256, &bytes);
    let tags = if tagged { vec!["t".parse::<Tag>().unwrap()] } else { Vec::new() };
    let parsed = parse(&bytes, None).unwrap();
    let blob = NewBlob { digest, size: bytes.len() as u64, content: Content::Inline(bytes) };
    Box::new(NewManifest { blob, manifest: parsed, tags, index_policy: IndexPolicy::All })
}

fn new_blob(place: Place) -> NewBlob {
    NewBlob { digest: blob(), size: 5, content: Content::Stored(place) }
}

/// An actor: its steps, and the repository that it works on.
#[derive(Clone, Debug)]
struct Actor {
    repository: &'static str,
    steps: Vec<Step>,
}

fn actor(repository: &'static str, steps: impl Into<Vec<Step>>) -> Actor {
    Actor { repository, steps: steps.into() }
}

struct Explorer {
    db: Connection,
    rules: Rules,
    orders: u64,
    /// Whether the collector waits for the claims of writers, as it does.
    claims: bool,
}

impl Explorer {
    fn new() -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        db.set_prepared_statement_cache_capacity(128);
        schema::migrate(&mut db).unwrap();
        Self { db, rules: Rules { gc: POLICY, ..Rules::default() }, orders: 0, claims: true }
    }

    fn change(&self, world: &World, change: &Change) -> Result<(), Refusal> {
        let at = Context { db: &self.db, rules: &self.rules, now: world.now };
        self.db.execute_batch("SAVEPOINT change").unwrap();
        let result = apply(at, change, &[]);
        if result.is_err() {
            self.db.execute_batch("ROLLBACK TO change").unwrap();
        }
        self.db.execute_batch("RELEASE change").unwrap();
        match result {
            Ok(()) => Ok(()),
            Err(ApplyError::Refused(refusal)) => Err(refusal),
            Err(ApplyError::Sql(error)) => panic!("{error} after {:?}", world.trace),
        }
    }

    /// Whether a step can be done now: removing a file waits for the claims of writers.
    fn enabled(&self, world: &World, step: Step) -> bool {
        step != Step::Remove || !self.claims || world.writers.iter().all(|writer| writer.place.is_none())
    }

    fn step(&self, world: &mut World, who: usize, repository: &'static str, step: Step) {
        world.trace.push((who, step));
        let name: RepoName = repository.parse().unwrap();
        let at = Context { db: &self.db, rules: &self.rules, now: world.now };
        if world.writers[who].refused {
            return;
        }
        match step {
            Step::Place => world.writers[who].place = Some(place_for(&self.db, &blob()).unwrap()),
            Step::File => {
                let place = world.writers[who].place.expect("placed");
                assert!(!world.burnt.contains(&(blob(), place)), "a place is used twice: {:?}", world.trace);
                world.files.insert((blob(), place));
            }
            Step::Row => {
                let place = world.writers[who].place.take().expect("placed");
                match self.change(world, &Change::PutBlob(name, new_blob(place))) {
                    Ok(()) => drop(world.promised.insert(repository, world.now + POLICY.lease)),
                    Err(Refusal::PlaceRetired(_)) => world.writers[who].refused = true,
                    Err(other) => panic!("{other} after {:?}", world.trace),
                }
            }
            Step::Inline => {
                let content = Content::Inline(Bytes::from_static(b"layer"));
                let new = NewBlob { digest: blob(), size: 5, content };
                self.change(world, &Change::PutBlob(name, new)).unwrap();
                world.promised.insert(repository, world.now + POLICY.lease);
            }
            Step::Head => match self.change(world, &Change::Promise(name, blob())) {
                Ok(()) => drop(world.promised.insert(repository, world.now + POLICY.lease)),
                Err(_) => world.writers[who].refused = true,
            },
            Step::Mount => {
                let from = if repository == "a" { "b" } else { "a" };
                let mount = Change::Mount { digest: blob(), from: from.parse().unwrap(), to: name };
                match self.change(world, &mount) {
                    Ok(()) => drop(world.promised.insert(repository, world.now + POLICY.lease)),
                    Err(_) => world.writers[who].refused = true,
                }
            }
            Step::Manifest | Step::Untagged => {
                let held = Change::PutBlob(name.clone(), config());
                self.change(world, &held).unwrap();
                let put = Change::PutManifest(name, manifest(step == Step::Manifest));
                match self.change(world, &put) {
                    Ok(()) => {
                        if step == Step::Manifest {
                            world.kept.insert(repository);
                        }
                    }
                    Err(refusal) => {
                        let promised = world.promised.get(repository).is_some_and(|until| world.now < *until);
                        assert!(!promised, "{refusal}: a promise was broken after {:?}", world.trace);
                    }
                }
            }
            Step::DeleteManifest => {
                self.change(world, &Change::DeleteManifest(name, manifest(true).blob.digest)).ok();
                world.kept.remove(repository);
            }
            Step::DeleteTag => {
                self.change(world, &Change::DeleteTag(name, "t".parse().unwrap())).ok();
                world.kept.remove(repository);
            }
            Step::DeleteBlob => {
                self.change(world, &Change::DeleteBlob(name, blob())).ok();
                world.promised.remove(repository);
                world.kept.remove(repository);
            }
            Step::Undelete => {
                let tag = Reference::Tag("t".parse().unwrap());
                if self.change(world, &Change::Undelete(name, tag)).is_ok() && self.serves(repository) {
                    world.kept.insert(repository);
                }
            }
            Step::Tick(length) => world.now += length,
            Step::Review => drop(review::review(at, &POLICY, 10, &mut Vec::new()).unwrap()),
            Step::Retire => drop(review::retire(at, &POLICY, 10).unwrap()),
            Step::List => world.listed = review::purges(&self.db, 10).unwrap(),
            Step::Remove => {
                for file in std::mem::take(&mut world.listed) {
                    if !review::names(&self.db, &file).unwrap() {
                        world.files.remove(&(file.digest, file.place));
                        world.burnt.insert((file.digest, file.place));
                    }
                    world.removed.push(file);
                }
            }
            Step::Forget => {
                review::purged(&self.db, &std::mem::take(&mut world.removed), world.now).unwrap();
            }
        }
        self.check(world);
    }

    /// Whether a repository's manifest can be pulled whole.
    fn serves(&self, repository: &str) -> bool {
        self.db
            .prepare_cached(
                "SELECT 1 FROM repository JOIN tag ON tag.repository = repository.id AND tag.name = 't'
                 JOIN manifest ON manifest.id = tag.manifest AND manifest.deleted_at IS NULL
                 JOIN blob ON blob.digest = ?2 AND blob.state = 0
                 JOIN link ON link.blob = blob.id AND link.repository = repository.id WHERE repository.name = ?1",
            )
            .unwrap()
            .exists(rusqlite::params![repository, blob().to_key()])
            .unwrap()
    }

    fn named(&self) -> BTreeSet<(Digest, Place)> {
        let mut statement = self.db.prepare_cached("SELECT digest, place FROM blob WHERE place != 0").unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((digest_from(row, 0)?, place_from(row.get(1)?).unwrap()));
        statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn check(&self, world: &World) {
        let missing: Vec<_> = self.named().difference(&world.files).copied().collect();
        assert!(missing.is_empty(), "rows name what is gone: {missing:?} after {:?}", world.trace);
        for repository in &world.kept {
            assert!(self.serves(repository), "{repository} lost its image after {:?}", world.trace);
        }
    }

    /// The process dies here. What follows is a new one, and a long time.
    fn crash(&mut self, world: &World) {
        self.db.execute_batch("SAVEPOINT crash").unwrap();
        let mut world = world.clone();
        world.writers.iter_mut().for_each(|writer| *writer = Writer::default());
        (world.listed, world.removed) = (Vec::new(), Vec::new());
        self.settle_down(world);
        self.db.execute_batch("ROLLBACK TO crash; RELEASE crash").unwrap();
    }

    /// All is quiet: the collector goes on until it has nothing to do.
    fn settle_down(&self, mut world: World) {
        world.writers.push(Writer::default());
        let collector = world.writers.len() - 1;
        for _ in 0..6 {
            self.step(&mut world, collector, "a", Step::Tick(LONG));
            for step in COLLECT {
                self.step(&mut world, collector, "a", step);
            }
            let waits = "SELECT 1 FROM review UNION ALL SELECT 1 FROM purge WHERE done_at IS NULL
                UNION ALL SELECT 1 FROM blob WHERE state = 1";
            if !self.db.prepare_cached(waits).unwrap().exists([]).unwrap() {
                break;
            }
        }
        let named = self.named();
        // What a crash left between bytes and row is the sweep's.
        world.files.retain(|file| named.contains(file) || world.trace.iter().all(|(_, step)| *step != Step::File));
        let leaked: Vec<_> = world.files.difference(&named).collect();
        assert!(leaked.is_empty(), "files that nothing names: {leaked:?} after {:?}", world.trace);
        let count = |sql: &str| -> i64 { self.db.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(count("SELECT count(*) FROM review"), 0, "reviews stay after {:?}", world.trace);
        assert_eq!(count("SELECT count(*) FROM purge WHERE done_at IS NULL"), 0, "purges stay after {:?}", world.trace);
        if count("SELECT count(*) FROM tag") == 0 {
            assert_eq!(count("SELECT count(*) FROM blob"), 0, "garbage stays after {:?}", world.trace);
        }
    }

    /// Every order of the actors' steps.
    fn explore(&mut self, world: &World, actors: &[Actor], at: &mut Vec<usize>, crashes: bool) {
        // After a step that changed nothing that lasts, a crash is that before it.
        let lasts = |step: &Step| !matches!(step, Step::Tick(_) | Step::List | Step::Place);
        if crashes && world.trace.last().is_some_and(|(_, step)| lasts(step)) {
            self.crash(world);
        }
        let mut over = true;
        for who in 0..actors.len() {
            let Some(step) = actors[who].steps.get(at[who]).copied() else { continue };
            over = false;
            if !self.enabled(world, step) {
                continue;
            }
            self.db.execute_batch("SAVEPOINT step").unwrap();
            let mut next = world.clone();
            self.step(&mut next, who, actors[who].repository, step);
            at[who] += 1;
            self.explore(&next, actors, at, crashes);
            at[who] -= 1;
            self.db.execute_batch("ROLLBACK TO step; RELEASE step").unwrap();
        }
        if over {
            self.orders += 1;
            self.crash(world);
        }
    }

    fn world(actors: usize) -> World {
        World {
            now: 1000,
            files: BTreeSet::new(),
            writers: vec![Writer::default(); actors],
            promised: BTreeMap::new(),
            kept: BTreeSet::new(),
            listed: Vec::new(),
            removed: Vec::new(),
            burnt: BTreeSet::new(),
            trace: Vec::new(),
        }
    }
}

const PUSH: [Step; 3] = [Step::Place, Step::File, Step::Row];
/// A push that is over, in repository `a`.
const PUSHED: &[Step] = &[Step::Place, Step::File, Step::Row, Step::Manifest];
/// And deleted, until its blob is condemned.
const CONDEMNED: &[Step] = &[
    Step::Place,
    Step::File,
    Step::Row,
    Step::Manifest,
    Step::DeleteManifest,
    Step::Tick(LONG),
    Step::Review,
    Step::Review,
];
/// And until its row is gone and its file is not.
const RETIRED: &[Step] = &[
    Step::Place,
    Step::File,
    Step::Row,
    Step::Manifest,
    Step::DeleteManifest,
    Step::Tick(LONG),
    Step::Review,
    Step::Review,
    Step::Tick(LONG),
    Step::Retire,
];
/// And until its file is gone too.
const PURGED: &[Step] = &[
    Step::Place,
    Step::File,
    Step::Row,
    Step::Tick(LONG),
    Step::Review,
    Step::Tick(LONG),
    Step::Retire,
    Step::List,
    Step::Remove,
    Step::Forget,
];
/// A blob that nothing refers to, its promise over.
const FORGOTTEN: &[Step] = &[Step::Place, Step::File, Step::Row, Step::Tick(LONG)];

/// Explores every order of `actors` after `before`; at least `least` of them.
fn check(before: &[Step], actors: &[Actor], crashes: bool, least: u64) {
    let mut explorer = Explorer::new();
    let mut world = Explorer::world(actors.len());
    for step in before {
        explorer.step(&mut world, 0, "a", *step);
    }
    explorer.explore(&world, actors, &mut vec![0; actors.len()], crashes);
    assert!(explorer.orders >= least, "{} orders only", explorer.orders);
}

fn push_and_manifest(repository: &'static str) -> Actor {
    actor(repository, [&PUSH[..], &[Step::Manifest]].concat())
}

#[test]
fn push_against_collection() {
    for before in [&[][..], PUSHED, CONDEMNED, RETIRED, PURGED, FORGOTTEN] {
        let actors = [
            push_and_manifest("a"),
            actor("a", COLLECT),
            actor("a", [Step::Tick(POLICY.quarantine), Step::Tick(LONG)]),
        ];
        check(before, &actors, true, 500);
    }
}

#[test]
fn small_push_against_collection() {
    for before in [&[Step::Inline, Step::Tick(LONG)][..], CONDEMNED, RETIRED, PURGED] {
        let actors = [
            actor("a", [Step::Inline, Step::Manifest]),
            actor("a", COLLECT),
            actor("a", [Step::Tick(POLICY.quarantine), Step::Tick(LONG)]),
        ];
        check(before, &actors, true, 500);
    }
}

#[test]
fn head_against_collection() {
    for before in [PUSHED, CONDEMNED, FORGOTTEN] {
        let actors = [
            actor("a", [Step::Head, Step::Manifest]),
            actor("a", [&COLLECT[..], &COLLECT[..1]].concat()),
            actor("a", [Step::Tick(POLICY.lease - 1), Step::Tick(1)]),
        ];
        check(before, &actors, true, 500);
    }
}

#[test]
fn mount_against_deletion_and_collection() {
    for before in [PUSHED, FORGOTTEN] {
        let actors = [
            actor("b", [Step::Mount, Step::Manifest]),
            actor("a", [Step::DeleteManifest, Step::Tick(LONG)]),
            actor("a", [Step::Review, Step::Review, Step::Retire, Step::List, Step::Remove]),
        ];
        check(before, &actors, true, 500);
    }
}

#[test]
fn deletion_and_undeletion_against_collection() {
    for deletion in [Step::DeleteManifest, Step::DeleteTag, Step::DeleteBlob] {
        let actors = [
            actor("a", [deletion, Step::Undelete]),
            actor("a", [Step::Review, Step::Review, Step::Retire, Step::List, Step::Remove, Step::Forget]),
            actor("a", [Step::Tick(POLICY.grace), Step::Tick(LONG)]),
        ];
        check(PUSHED, &actors, true, 500);
    }
}

#[test]
fn two_pushes_of_one_blob_against_collection() {
    let actors = [push_and_manifest("a"), actor("b", PUSH), actor("a", &COLLECT[1..])];
    check(CONDEMNED, &actors, false, 1_000);
}

#[test]
fn a_planted_mistake_is_found() {
    // Files are removed without regard to the claims of writers.
    let found = std::panic::catch_unwind(|| {
        let mut explorer = Explorer { claims: false, ..Explorer::new() };
        let collect = [Step::Review, Step::Tick(LONG), Step::Retire, Step::List, Step::Remove];
        let actors = [push_and_manifest("a"), actor("a", collect)];
        let mut world = Explorer::world(actors.len());
        FORGOTTEN.iter().for_each(|step| explorer.step(&mut world, 0, "a", *step));
        explorer.explore(&world, &actors, &mut vec![0; 2], true);
    });
    assert!(found.is_err());
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]

    /// All four writers at once, in two repositories, and several rounds of the collector, in an
    /// order that chance decides, with a crash after every step.
    #[test]
    fn all_writers_against_collection(order in proptest::collection::vec(any::<u8>(), 60..61),
                                      choice in (0..4_u8, 0..4_u8).prop_map(|(a, b)| [a, b])) {
        let end = |choice: u8| match choice {
            0 => Step::DeleteManifest,
            1 => Step::DeleteTag,
            2 => Step::Undelete,
            _ => Step::Untagged,
        };
        let actors = [
            actor("a", [&PUSH[..], &[Step::Manifest, end(choice[0])]].concat()),
            actor("b", [&PUSH[..], &[Step::Head, Step::Manifest, end(choice[1])]].concat()),
            actor("b", [Step::Mount, Step::Manifest, Step::DeleteManifest, Step::Undelete]),
            actor("a", [Step::Inline, Step::Untagged, Step::DeleteBlob]),
            actor("a", [COLLECT, COLLECT, COLLECT, COLLECT].concat()),
            actor("a", [Step::Tick(39), Step::Tick(1), Step::Tick(10), Step::Tick(LONG), Step::Tick(40)]),
        ];
        let mut explorer = Explorer::new();
        let mut world = Explorer::world(actors.len());
        let mut at = vec![0; actors.len()];
        for choice in order {
            let ready: Vec<usize> = (0..actors.len())
                .filter(|who| actors[*who].steps.get(at[*who]).is_some_and(|step| explorer.enabled(&world, *step)))
                .collect();
            let Some(who) = ready.get(usize::from(choice) % ready.len().max(1)).copied() else { break };
            explorer.step(&mut world, who, actors[who].repository, actors[who].steps[at[who]]);
            at[who] += 1;
            explorer.crash(&world);
        }
    }
}
