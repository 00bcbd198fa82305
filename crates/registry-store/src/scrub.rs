//! Owns reading stored bytes again and comparing them with their digests, beside a server; and what
//! becomes of those that are wrong: marked as damaged, so that the next push mends them, and their
//! file put aside.
//!
//! Does not own when what is read, nor how fast.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use registry_core::{
    digest::Digest,
    name::RepoName,
    store::{OutboxEvent, Place, StoreError},
};
use rusqlite::{Connection, Row, params};

use crate::{
    blob::fs::FsBlobs,
    claims::Claims,
    data_dir::DataDir,
    disk::{Poison, sync_directory},
    maintenance::blocking,
    meta::{
        digest_from, now, readonly,
        sqlite::{OpenError, SqliteMetadata},
        statements::{place_from, place_number},
    },
    verify::{CHUNK, Flaw, Reading, Step, verify_bytes, verify_file},
};

/// Files of damaged blobs that are kept, and for how long: to look at, not to be served.
const KEPT: usize = 100;
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Repositories that are told of one damaged blob, and shown with it.
const HOLDERS: usize = 1000;

/// What is being done when a blob is verified.
const VERIFY: &str = "verify a blob";

/// A blob that is to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    id: i64,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    place: Place,
}

/// How much has been verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blobs that can be served, and their bytes.
    pub all: (u64, u64),
    /// Those of them that were not verified since the time that was asked for, and their bytes.
    pub due: (u64, u64),
    /// When the one was verified that waits longest, in seconds since 1970; 0 for never.
    pub oldest: i64,
}

/// A repository that holds a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub repository: RepoName,
    /// Whether the blob is a manifest there.
    pub is_manifest: bool,
}

/// A blob that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its digest.
    pub digest: Digest,
    /// The size that it should have.
    pub size: u64,
    /// Since when that is known, in seconds since 1970.
    pub since: i64,
    /// The repositories that hold it, a thousand at most.
    pub holders: Vec<Holder>,
}

/// What the rows say about verified and damaged blobs. Read on a connection of its own, so that no
/// request waits for it.
pub struct Ledger(Mutex<Connection>);

fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| StoreError::Failed { operation: operation.into(), source: error.into() }
}

fn holders(db: &Connection, blob: i64) -> rusqlite::Result<Vec<Holder>> {
    let mut statement = db.prepare_cached(
        "SELECT name, max(is_manifest) FROM (
            SELECT repository, 0 AS is_manifest FROM link WHERE blob = ?1
            UNION ALL SELECT repository, 1 FROM manifest WHERE blob = ?1 AND deleted_at IS NULL)
         JOIN repository ON repository.id = repository GROUP BY name ORDER BY name LIMIT ?2",
    )?;
    let rows = statement.query_map(params![blob, HOLDERS], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    rows.filter_map(|row| {
        row.map(|(name, is_manifest)| Some(Holder { repository: name.parse().ok()?, is_manifest })).transpose()
    })
    .collect()
}

impl Ledger {
    /// Of the data directory at `root`, whether a server runs or not.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Ok(Self(Mutex::new(readonly::beside_a_server(&DataDir::peek(root).metadata())?)))
    }

    fn read<T>(
        &self,
        operation: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).map_err(failed(operation))
    }

    /// Up to `limit` blobs that were not verified since `before`, those first that wait longest. Blocks.
    pub fn due(&self, before: i64, limit: usize) -> Result<Vec<Candidate>, StoreError> {
        let candidate = |row: &Row<'_>| {
            let number = row.get(3)?;
            let place = place_from(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(3, number))?;
            Ok(Candidate { id: row.get(0)?, digest: digest_from(row, 1)?, size: row.get(2)?, place })
        };
        self.read("list blobs to verify", |db| {
            db.prepare_cached(
                "SELECT id, digest, size, place FROM blob WHERE state = 0 AND verified_at < ?1
                 ORDER BY verified_at, id LIMIT ?2",
            )?
            .query_map(params![before, limit], candidate)?
            .collect()
        })
    }

    /// Whether a blob is still where it was when it was listed. Small ones move from the metadata to files, and what
    /// nothing needs goes: then it says nothing that the bytes are not in the old place. Blocks, but not for long.
    pub fn stays(&self, blob: &Candidate) -> Result<bool, StoreError> {
        self.read("look whether a blob has moved", |db| {
            db.prepare_cached("SELECT 1 FROM blob WHERE id = ?1 AND place = ?2 AND state = 0")?
                .exists(params![blob.id, place_number(blob.place)])
        })
    }

    /// How much has been verified since `before`. Looks at every row. Blocks.
    pub fn totals(&self, before: i64) -> Result<Totals, StoreError> {
        self.read("count verified blobs", |db| {
            db.prepare_cached(
                "SELECT count(*) FILTER (WHERE state = 0), ifnull(sum(size) FILTER (WHERE state = 0), 0),
                    count(*) FILTER (WHERE state = 0 AND verified_at < ?1),
                    ifnull(sum(size) FILTER (WHERE state = 0 AND verified_at < ?1), 0),
                    ifnull(min(verified_at) FILTER (WHERE state = 0), 0) FROM blob",
            )?
            .query_row([before], |row| {
                Ok(Totals { all: (row.get(0)?, row.get(1)?), due: (row.get(2)?, row.get(3)?), oldest: row.get(4)? })
            })
        })
    }

    /// How many blobs are damaged. Blocks, but not for long.
    pub fn damaged_count(&self) -> Result<u64, StoreError> {
        self.read("count damaged blobs", |db| {
            db.prepare_cached("SELECT count(*) FROM blob WHERE state = 2 AND state != 0")?
                .query_row([], |row| row.get(0))
        })
    }

    /// Up to `limit` damaged blobs, in the order of their digests. Blocks.
    pub fn damaged(&self, limit: usize) -> Result<Vec<Damaged>, StoreError> {
        self.read("list damaged blobs", |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, digest, size, state_at FROM blob WHERE state = 2 AND state != 0
                     ORDER BY digest LIMIT ?1",
            )?;
            let mut rows = statement.query([limit])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let holders = holders(db, row.get(0)?)?;
                all.push(Damaged { digest: digest_from(row, 1)?, size: row.get(2)?, since: row.get(3)?, holders });
            }
            Ok(all)
        })
    }
}

/// Makes the events about a blob that turned out to be damaged.
pub type Tell = Box<dyn FnOnce(&[Holder]) -> Vec<OutboxEvent> + Send>;

/// Verifies the blobs of a data directory that a server works on.
#[derive(Clone)]
pub struct Scrubber {
    ledger: Arc<Ledger>,
    metadata: Arc<SqliteMetadata>,
    blobs: FsBlobs,
    claims: Claims,
}

impl Scrubber {
    /// For the stores of one data directory.
    pub fn open(metadata: Arc<SqliteMetadata>, blobs: FsBlobs, claims: Claims) -> Result<Self, OpenError> {
        let ledger = Arc::new(Ledger::open(blobs.dir().root())?);
        Ok(Self { ledger, metadata, blobs, claims })
    }

    /// What the rows say.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Begins to verify a blob.
    pub fn examine(&self, blob: &Candidate) -> Examination<'_> {
        Examination { scrubber: self, blob: blob.clone(), reading: None }
    }

    /// Verifies a blob without a rest.
    async fn verify(&self, blob: &Candidate) -> Result<Result<(), Flaw>, StoreError> {
        let mut examination = self.examine(blob);
        loop {
            if let Examined::Over(_, verdict) = examination.step().await? {
                return Ok(verdict);
            }
        }
    }

    async fn verify_inline(&self, blob: Candidate) -> Result<Result<(), Flaw>, StoreError> {
        let ledger = Arc::clone(&self.ledger);
        let verify = move || {
            ledger.read(VERIFY, |db| {
                let mut statement = db.prepare_cached("SELECT bytes FROM content WHERE blob = ?1")?;
                let mut rows = statement.query([blob.id])?;
                Ok(match rows.next()? {
                    Some(row) => verify_bytes(row.get_ref(0)?.as_blob()?, &blob.digest, blob.size),
                    None => Err(Flaw::Missing),
                })
            })
        };
        blocking(VERIFY, verify).await?
    }

    /// Where all blobs of an algorithm are gone, it is not the blobs that are damaged.
    fn judged(&self, blob: &Candidate, flaw: Flaw) -> Result<Result<(), Flaw>, StoreError> {
        let [algorithm, ..] = self.blobs.dir().blob_dirs(&blob.digest);
        if flaw == Flaw::Missing && !algorithm.exists() {
            let operation = format!("look into {} (is something to be mounted there?)", algorithm.display());
            return Err(StoreError::io(operation, io::ErrorKind::NotFound.into()));
        }
        Ok(Err(flaw))
    }

    /// Writes down that blobs were verified at `now`.
    pub async fn verified(&self, blobs: Vec<Candidate>, now: i64) -> Result<(), StoreError> {
        self.metadata
            .change(move |db| {
                let mut statement =
                    db.prepare_cached("UPDATE blob SET verified_at = ?3 WHERE id = ?1 AND place = ?2 AND state = 0")?;
                for blob in &blobs {
                    statement.execute(params![blob.id, place_number(blob.place), now])?;
                }
                Ok(())
            })
            .await
    }

    /// Looks at a blob once more that seemed damaged. If it is, and still in the same place, it is
    /// marked, its file put aside, and the events stored that `tell` makes; returns what is wrong then.
    pub async fn put_aside(&self, blob: &Candidate, tell: Tell) -> Result<Option<Flaw>, StoreError> {
        const OPERATION: &str = "look at a damaged blob";
        let path = self.blobs.dir().blob_at(&blob.digest, blob.place);
        let identity = {
            let path = path.clone();
            move || fs::metadata(&path).ok().map(|file| (file.dev(), file.ino(), file.len(), file.mtime_nsec()))
        };
        // Read before the claim is taken, for which pushes wait.
        let seen = blocking(OPERATION, identity.clone()).await?;
        let Err(flaw) = self.verify(blob).await? else { return Ok(None) };
        let claim = self.claims.alone(&blob.digest).await;
        if blocking(OPERATION, identity).await? != seen {
            return Ok(None);
        }
        // In a task of its own: whoever gives up does not part the row from the file.
        let (this, blob) = (self.clone(), blob.clone());
        let done = tokio::spawn(async move {
            let _claim = claim;
            if !this.metadata.mark_damaged(blob.id, blob.digest, blob.place, tell).await? {
                return Ok(false);
            }
            this.blobs.forget(&blob.digest, blob.place);
            if blob.place != Place::Inline && seen.is_some() {
                let aside = this.blobs.dir().quarantine();
                blocking("put a damaged file aside", move || set_aside(&path, &aside, &blob)).await??;
            }
            Ok(true)
        });
        let marked: Result<bool, StoreError> = done.await.map_err(|source| StoreError::Failed {
            operation: "put a damaged blob aside".into(),
            source: source.into(),
        })?;
        Ok(marked?.then_some(flaw))
    }

    /// Serves damaged blobs again whose file is right, such as one that was put back by hand. Returns
    /// which.
    pub async fn reinstate(&self) -> Result<Vec<Digest>, StoreError> {
        const OPERATION: &str = "look at damaged blobs";
        let (ledger, dir) = (Arc::clone(&self.ledger), DataDir::peek(self.blobs.dir().root()));
        let sound = blocking(OPERATION, move || {
            let rows: Vec<(i64, Digest, u64, i64)> = ledger.read(OPERATION, |db| {
                db.prepare_cached("SELECT id, digest, size, place FROM blob WHERE state = 2 AND state != 0 AND place != 0 LIMIT 10000")?
                    .query_map([], |row| Ok((row.get(0)?, digest_from(row, 1)?, row.get(2)?, row.get(3)?)))?
                    .collect()
            })?;
            let mut buffer = vec![0; CHUNK];
            let is_sound = |(_, digest, size, place): &(i64, Digest, u64, i64)| {
                let path = dir.blob_at(digest, place_from(*place).unwrap_or(Place::Canonical));
                matches!(verify_file(&path, digest, *size, &mut buffer, |_| {}), Ok(Ok(())))
            };
            let mut sound = rows;
            let mut is_sound = is_sound;
            sound.retain(|row| is_sound(row));
            Ok::<_, StoreError>(sound)
        })
        .await??;
        let mut digests = Vec::new();
        for (id, digest, _, place) in sound {
            if self.metadata.mark_sound(id, place).await? {
                digests.push(digest);
            }
        }
        Ok(digests)
    }

    /// Removes files that were put aside long ago, or that are too many; returns how many.
    pub async fn tidy(&self) -> Result<usize, StoreError> {
        let quarantine = self.blobs.dir().quarantine();
        blocking("tidy the quarantine", move || tidy(&quarantine)).await?
    }
}

/// How far the verifying of a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// So many bytes were read, and there are more.
    Read(u64),
    /// That was all; so many bytes were read.
    Over(u64, Result<(), Flaw>),
}

/// A blob that is being verified, piece by piece, so that somebody can rest in between.
pub struct Examination<'a> {
    scrubber: &'a Scrubber,
    blob: Candidate,
    reading: Option<(Reading, Vec<u8>)>,
}

impl Examination<'_> {
    /// Reads the next piece, a mebibyte at most. An error is one that may pass, and says nothing
    /// about the blob; after one, or the end, it begins anew.
    pub async fn step(&mut self) -> Result<Examined, StoreError> {
        let Self { scrubber, blob, reading } = self;
        if blob.place == Place::Inline {
            return Ok(Examined::Over(0, scrubber.verify_inline(blob.clone()).await?));
        }
        let path = scrubber.blobs.dir().blob_at(&blob.digest, blob.place);
        let failed = |error| StoreError::io(format!("verify {}", path.display()), error);
        let (opened, blob, before) = (path.clone(), blob.clone(), reading.take());
        let read = move || {
            let (mut reading, mut buffer) = match before {
                Some(before) => before,
                None => match Reading::open(&opened, &blob.digest, blob.size)? {
                    Ok(reading) => {
                        let length = CHUNK.min(usize::try_from(blob.size).unwrap_or(CHUNK)).max(1);
                        (reading, vec![0; length])
                    }
                    Err(flaw) => return Ok((None, Step::Over(0, Err(flaw)))),
                },
            };
            let step = reading.step(&mut buffer)?;
            Ok((Some((reading, buffer)), step))
        };
        let (after, step) = blocking(VERIFY, read).await?.map_err(failed)?;
        match step {
            Step::Read(bytes) => {
                *reading = after;
                Ok(Examined::Read(bytes))
            }
            Step::Over(bytes, Ok(())) => Ok(Examined::Over(bytes, Ok(()))),
            Step::Over(bytes, Err(flaw)) => Ok(Examined::Over(bytes, scrubber.judged(&self.blob, flaw)?)),
        }
    }
}

/// Moves a damaged file to the quarantine, durably. A crash in between leaves it where it was: the
/// next push of the digest goes elsewhere.
fn set_aside(path: &Path, quarantine: &Path, blob: &Candidate) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("put {} aside", path.display()), error);
    fs::create_dir_all(quarantine).map_err(failed)?;
    let target = quarantine.join(format!("{}.{:016x}", blob.digest.hex(), place_number(blob.place)));
    match fs::rename(path, &target) {
        // The blobs may be a mount of their own: there it is only taken away.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::remove_file(path).map_err(failed)?,
        other => other.map_err(failed)?,
    }
    // Neither name matters much after a crash; a failed sync here must not stop the server's writes.
    sync_directory(quarantine, &Poison::default())
}

fn tidy(quarantine: &Path) -> Result<usize, StoreError> {
    let failed = |error| StoreError::io(format!("tidy {}", quarantine.display()), error);
    let entries = match fs::read_dir(quarantine) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // When it was put there, not when it was written.
        let changed = entry.metadata().map_err(failed)?.ctime();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(changed).unwrap_or(0));
        files.push((changed, entry.path()));
    }
    files.sort_by(|one, other| other.cmp(one));
    let now = SystemTime::now();
    let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > KEPT_FOR);
    let gone: Vec<PathBuf> = files
        .into_iter()
        .enumerate()
        .filter(|(rank, (at, _))| *rank >= KEPT || is_old(*at))
        .map(|(_, (_, path))| path)
        .collect();
    gone.iter().try_for_each(fs::remove_file).map_err(failed)?;
    Ok(gone.len())
}

/// Marks a blob as damaged if it still is where it was; the repositories whose answers that alters
/// go to `touched`.
pub(crate) fn mark_damaged(
    db: &Connection,
    id: i64,
    digest: &Digest,
    place: Place,
    tell: Tell,
    touched: &mut Vec<RepoName>,
) -> rusqlite::Result<bool> {
    let marked = db
        .prepare_cached(
            "UPDATE blob SET state = 2, state_at = ?4 WHERE id = ?1 AND digest = ?2 AND place = ?3 AND state = 0",
        )?
        .execute(params![id, digest.to_key(), place_number(place), now()])?;
    if marked == 0 {
        return Ok(false);
    }
    touched.extend(every_holder(db, id)?);
    for event in tell(&holders(db, id)?) {
        db.prepare_cached("INSERT INTO event (endpoint, body, created_at) VALUES (?1, ?2, ?3)")?.execute(params![
            event.endpoint,
            event.body,
            now()
        ])?;
    }
    Ok(true)
}

/// Marks a damaged blob as sound, if it is still where it was.
pub(crate) fn mark_sound(db: &Connection, id: i64, place: i64, touched: &mut Vec<RepoName>) -> rusqlite::Result<bool> {
    let marked = db
        .prepare_cached(
            "UPDATE blob SET state = 0, state_at = ?3, verified_at = ?3 WHERE id = ?1 AND place = ?2 AND state = 2",
        )?
        .execute(params![id, place, now()])?;
    touched.extend(every_holder(db, id)?);
    Ok(marked > 0)
}

fn every_holder(db: &Connection, blob: i64) -> rusqlite::Result<Vec<RepoName>> {
    let mut statement = db.prepare_cached(
        "SELECT name FROM repository WHERE id IN (
            SELECT repository FROM link WHERE blob = ?1 UNION SELECT repository FROM manifest WHERE blob = ?1)",
    )?;
    let names = statement.query_map([blob], |row| row.get::<_, String>(0))?;
    names.filter_map(|name| name.map(|name| name.parse().ok()).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use registry_core::store::{Blobs as _, Change, Commit, Content, Metadata as _, NewBlob};

    use super::*;
    use crate::{hash::digest_of, maintenance::settle};

    struct Stores {
        metadata: Arc<SqliteMetadata>,
        blobs: FsBlobs,
        scrubber: Scrubber,
    }

    fn open(root: &Path) -> Stores {
        let (dir, poison) = (DataDir::open(root).unwrap(), Poison::default());
        let metadata = Arc::new(SqliteMetadata::open_in(&dir, poison.clone()).unwrap());
        let blobs = FsBlobs::new(dir, poison);
        let scrubber = Scrubber::open(Arc::clone(&metadata), blobs.clone(), Claims::default()).unwrap();
        Stores { metadata, blobs, scrubber }
    }

    async fn push(stores: &Stores, bytes: &[u8]) -> (Digest, PathBuf) {
        let name: RepoName = "r".parse().unwrap();
        let digest = digest_of(registry_core::digest::Algorithm::Sha256, bytes);
        let place = stores.metadata.place(&digest).await.unwrap();
        let mut staging = stores.blobs.stage(&name, "id", digest.algorithm()).await.unwrap();
        staging.append(bytes.to_vec().into()).await.unwrap();
        let Commit::Stored { place, size } = staging.commit(digest, place).await.unwrap() else { panic!("no match") };
        let blob = NewBlob { digest, size, content: Content::Stored(place) };
        stores.metadata.apply(Change::PutBlob(name, blob), Vec::new()).await.unwrap();
        (digest, stores.blobs.dir().blob_at(&digest, place))
    }

    fn tell() -> Tell {
        Box::new(|holders| {
            let body = holders.iter().map(|holder| holder.repository.to_string()).collect();
            vec![OutboxEvent { endpoint: "e".into(), body }]
        })
    }

    async fn is_served(stores: &Stores, digest: &Digest) -> bool {
        stores.metadata.blob(&"r".parse().unwrap(), digest).await.unwrap().is_some()
    }

    /// What moves from the metadata to its file between the list and the look seems to be missing.
    #[tokio::test]
    async fn a_blob_that_moved_is_not_suspected() {
        let dir = tempfile::tempdir().unwrap();
        let stores = open(dir.path());
        let digest = digest_of(registry_core::digest::Algorithm::Sha256, b"small");
        let blob = NewBlob { digest, size: 5, content: Content::Inline(b"small".to_vec().into()) };
        stores.metadata.apply(Change::PutBlob("r".parse().unwrap(), blob), Vec::new()).await.unwrap();
        let due = || stores.scrubber.ledger().due(i64::MAX, 10).unwrap();
        let [listed] = &due()[..] else { panic!("one is due") };
        assert!(stores.scrubber.ledger().stays(listed).unwrap());
        settle(&stores.metadata, &stores.blobs, &Claims::default(), 0, 10).await.unwrap();
        assert_eq!(stores.scrubber.verify(listed).await.unwrap(), Err(Flaw::Missing));
        assert!(!stores.scrubber.ledger().stays(listed).unwrap());
        let [moved] = &due()[..] else { panic!("it is due in its new place") };
        assert_eq!(stores.scrubber.verify(moved).await.unwrap(), Ok(()));
        assert!(stores.scrubber.ledger().stays(moved).unwrap());
    }

    #[tokio::test]
    async fn a_blob_is_only_put_aside_where_it_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let stores = open(dir.path());
        let bytes = vec![7; 100_000];
        let (digest, path) = push(&stores, &bytes).await;
        let due = || stores.scrubber.ledger().due(i64::MAX, 10).unwrap();
        let [blob] = &due()[..] else { panic!("one is due") };
        fs::write(&path, [8; 100_000]).unwrap();
        // Mended by a push between the look and the claim.
        push(&stores, &bytes).await;
        assert_eq!(stores.scrubber.put_aside(blob, tell()).await.unwrap(), None);
        assert!(is_served(&stores, &digest).await);

        fs::write(&path, [8; 100_000]).unwrap();
        let version = stores.metadata.version(&"r".parse().unwrap());
        let flaw = stores.scrubber.put_aside(blob, tell()).await.unwrap();
        assert!(matches!(flaw, Some(Flaw::Content(_))), "{flaw:?}");
        assert_ne!(stores.metadata.version(&"r".parse().unwrap()), version, "kept answers are still good");
        assert!(!is_served(&stores, &digest).await && !path.exists());
        assert_eq!(stores.metadata.pending("e", 10).await.unwrap()[0].event.body, "r");
        assert_eq!(stores.scrubber.ledger().damaged(10).unwrap()[0].digest, digest);
        assert!(due().is_empty());
        // A second time there is nothing to do, and the event is not told again.
        assert_eq!(stores.scrubber.put_aside(blob, tell()).await.unwrap(), None);
        assert_eq!(stores.metadata.pending("e", 10).await.unwrap().len(), 1);

        // Put back by hand, or brought again by a push, it is served.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(stores.scrubber.reinstate().await.unwrap(), [digest]);
        assert!(is_served(&stores, &digest).await);
        fs::write(&path, [8; 100_000]).unwrap();
        let [blob] = &due()[..] else { panic!("one is due") };
        assert!(stores.scrubber.put_aside(blob, tell()).await.unwrap().is_some());
        let (_, elsewhere) = push(&stores, &bytes).await;
        assert!(is_served(&stores, &digest).await && elsewhere != path);
        assert_eq!(stores.scrubber.ledger().damaged_count().unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_verified_is_not_due_again() {
        let dir = tempfile::tempdir().unwrap();
        let stores = open(dir.path());
        for seed in 0..5_u8 {
            push(&stores, &[seed; 70_000]).await;
        }
        let ledger = stores.scrubber.ledger();
        assert!(ledger.due(now() - 60, 10).unwrap().is_empty(), "its digest was compared when it came");
        let due = ledger.due(now() + 10, 3).unwrap();
        assert_eq!(due.len(), 3);
        stores.scrubber.verified(due.clone(), now() + 10).await.unwrap();
        let rest = ledger.due(now() + 10, 10).unwrap();
        assert!(rest.len() == 2 && rest.iter().all(|blob| !due.contains(blob)));
        let totals = ledger.totals(now() + 10).unwrap();
        assert_eq!((totals.all, totals.due), ((5, 350_000), (2, 140_000)));
    }

    #[test]
    fn the_quarantine_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tidy(&dir.path().join("none")).unwrap(), 0);
        for number in 0..KEPT + 5 {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(tidy(dir.path()).unwrap(), 5);
        assert_eq!(tidy(dir.path()).unwrap(), 0);
    }
}
