//! Rows in SQLite: one thread writes, in groups; readers look at the last commit.
//!
//! Requests that want to write at the same time share one transaction and one sync of the
//! write-ahead log. Each has a savepoint of its own, so that a refused one leaves no trace.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use registry_core::{
    digest::Digest,
    directory::{Directories, Directory},
    gc::{Backlog, Collection, Policy, Purge, Reviewed},
    name::{RepoName, sort_key},
    page::Page,
    reference::{Reference, Tag},
    retention::{Rules, Usage},
    store::{
        Answer, BlobEntry, Change, Delivered, Delivery, ManifestEntry, Metadata, OutboxEvent, Place, StoreError,
        TagEvent, TagFacts,
    },
};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, hooks::Wal, params};
use tokio::sync::oneshot;

use super::{
    document, history, now, private, quota, review, schema,
    statements::{self, ApplyError, BLOB, Context, blob_from, digest_from, place_number},
};
use crate::{data_dir::DataDir, disk::Poison, scrub};

/// Most requests that share a commit; bounds what a crash may leave unacknowledged.
const GROUP: usize = 64;
/// Pages in the write-ahead log, 4 KiB each, before they are moved to the database file.
const CHECKPOINT_PAGES: i32 = 2000;
/// Connections that read.
const READERS: usize = 2;
/// Cache of a connection, in KiB.
const CACHE_KIB: i64 = 1024;
/// Slots of version counters; repositories that share one only lose some cached answers.
const VERSIONS: usize = 1024;

/// Why a metadata database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite's own failure.
    #[error("open the metadata database")]
    Sqlite(#[from] rusqlite::Error),
    /// Another, newer server has written it.
    #[error(
        "the metadata has schema version {have}, this server knows up to {known}: \
         run the newer server that wrote it, or restore a backup"
    )]
    Newer {
        /// The database's version.
        have: usize,
        /// The newest that this program knows.
        known: usize,
    },
    /// The directory of the database cannot be looked at, written or synced.
    #[error("prepare the metadata database in its directory")]
    Directory(#[source] std::io::Error),
    /// There are blobs and no rows that name them.
    #[error(
        "{} is missing or empty, but the data directory holds blobs: put the metadata back from a backup, or, to begin anew, \
         move the directories `docker` and `roadstead` away", .0.display()
    )]
    Lost(std::path::PathBuf),
    /// A link stands in place of the database, and there is nothing behind it.
    #[error("{} is a link to a file that is missing: mount or restore what it points to, or remove it", .0.display())]
    Dangling(std::path::PathBuf),
    /// Another process reads the database and does not let go.
    #[error("another process uses the metadata database; end it first")]
    Busy,
    /// An older server writes it.
    #[error("the metadata has schema version {have}, this program works on {known}: start the newer server first")]
    Older {
        /// The database's version.
        have: usize,
        /// This program's.
        known: usize,
    },
    /// The committing thread cannot be started.
    #[error("start the committing thread")]
    Thread(#[source] std::io::Error),
}

/// Metadata in a SQLite database.
pub struct SqliteMetadata {
    jobs: Option<mpsc::SyncSender<Box<dyn Job>>>,
    committer: Option<JoinHandle<()>>,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    versions: Arc<Versions>,
    rules: Mutex<Arc<Rules>>,
    poison: Poison,
}

struct Versions(Vec<AtomicU64>);

impl Versions {
    fn slot(&self, name: &RepoName) -> &AtomicU64 {
        // FNV-1a: short names, no adversary worth a keyed hash; a collision only costs a re-read.
        let hash = name
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        &self.0[(hash >> 20) as usize % self.0.len()]
    }
}

/// One request's part of a group commit.
trait Job: Send {
    /// Whether anybody still waits for it. What nobody waits for is not done: it could overtake
    /// what its client did next.
    fn is_wanted(&self) -> bool;
    /// Does the work in a savepoint; an error rolls it back.
    fn run(&mut self, db: &Connection) -> bool;
    /// Answers, once the group's fate is known.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>, versions: &Versions);
}

struct Work<F, T> {
    operation: &'static str,
    /// The repositories whose answers it alters.
    touches: Vec<RepoName>,
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Work<F, T>
where
    F: FnOnce(&Connection, &mut Vec<RepoName>) -> Result<T, ApplyError> + Send,
    T: Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, db: &Connection) -> bool {
        let work = self.work.take().expect("a job runs once");
        let outcome = work(db, &mut self.touches).map_err(|error| match error {
            ApplyError::Refused(refusal) => refusal.into(),
            ApplyError::Sql(error) => sql_error(self.operation, error),
        });
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>, versions: &Versions) {
        let outcome = match (self.outcome, committed) {
            // A refusal may rest on another one's change, which did not come to be either.
            (_, Err(error)) => Err(error),
            (None, Ok(())) => unreachable!("a group commits only after all its jobs ran"),
            (Some(Err(own)), Ok(())) => Err(own),
            (Some(Ok(value)), Ok(())) => {
                // Before the answer leaves, so that whoever saw it never reads an older answer.
                for name in &self.touches {
                    versions.slot(name).fetch_add(1, Ordering::Release);
                }
                Ok(value)
            }
        };
        // A receiver that is gone has hung up; its change stands all the same.
        drop(self.reply.send(outcome));
    }
}

fn sql_error(operation: &str, error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        StoreError::Full { operation: operation.to_owned() }
    } else {
        StoreError::Failed { operation: operation.to_owned(), source: error.into() }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(96);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Makes an empty database, with few syncs: it is built under another name, and appears whole,
/// after the names of the directories around it are durable.
fn make(path: &Path, dir: &DataDir) -> Result<(), OpenError> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(OpenError::Directory(error)),
        _ => {}
    }
    private::make(&new).map_err(OpenError::Directory)?;
    let mut connection = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    schema::migrate(&mut connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)?;
    let appear = || {
        std::fs::File::open(&new)?.sync_all()?;
        dir.sync()?;
        // A link, not a rename: it never takes the place of something.
        std::fs::hard_link(&new, path)?;
        std::fs::remove_file(&new)?;
        dir.sync()
    };
    appear().map_err(OpenError::Directory)
}

impl SqliteMetadata {
    /// Opens or makes the database of a data directory, whose lock the caller holds.
    pub fn open_in(dir: &DataDir, poison: Poison) -> Result<Self, OpenError> {
        let path = dir.metadata();
        match std::fs::symlink_metadata(&path) {
            // A link to nothing would be followed, and an empty database made where it points.
            Ok(_) if !path.exists() => return Err(OpenError::Dangling(path)),
            Ok(file) => {
                let orphaned = || dir.holds_orphaned_blobs().map_err(OpenError::Directory);
                if file.is_file() && file.len() == 0 && orphaned()? {
                    return Err(OpenError::Lost(path));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if dir.holds_orphaned_blobs().map_err(OpenError::Directory)? {
                    return Err(OpenError::Lost(path));
                }
                make(&path, dir)?;
            }
            Err(error) => return Err(OpenError::Directory(error)),
        }
        if dir.is_new() {
            dir.sync().map_err(OpenError::Directory)?;
        }
        Self::open(&path, poison)
    }

    /// Opens the outbox of a database that a server may be using: never makes it, never changes
    /// its schema.
    pub fn attach(path: &Path) -> Result<Self, OpenError> {
        let writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        schema::check(&writer)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        Self::start(writer, path, Poison::default())
    }

    /// Opens or makes the database at `path` and brings its schema up to date. Nobody else brings
    /// it up to date meanwhile.
    pub fn open(path: &Path, poison: Poison) -> Result<Self, OpenError> {
        private::make(path).map_err(OpenError::Directory)?;
        private::tighten(path);
        let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut writer)?;
        // The log may hold what a failed sync left in memory and not on the disk. Nothing may be
        // appended behind that: it moves to the database, synced, and the log begins anew.
        let busy: i64 = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy != 0 {
            return Err(OpenError::Busy);
        }
        Self::start(writer, path, poison)
    }

    fn start(mut writer: Connection, path: &Path, poison: Poison) -> Result<Self, OpenError> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let noted = Arc::clone(&log_pages);
        writer.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            noted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let versions = Arc::new(Versions((0..VERSIONS).map(|_| AtomicU64::new(0)).collect()));
        let (jobs, queue) = mpsc::sync_channel(4 * GROUP);
        let committer = {
            let (versions, poison) = (Arc::clone(&versions), poison.clone());
            std::thread::Builder::new()
                .name("committer".into())
                .spawn(move || commit_groups(&writer, &queue, &versions, &poison, &log_pages))
                .map_err(OpenError::Thread)?
        };
        let readers = (0..READERS)
            .map(|_| Ok(Mutex::new(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)))
            .collect::<Result<_, rusqlite::Error>>()?;
        let next_reader = AtomicUsize::new(0);
        let rules = Mutex::default();
        Ok(Self { jobs: Some(jobs), committer: Some(committer), readers, next_reader, versions, rules, poison })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        if let Some(free) = self.readers.iter().find_map(|reader| reader.try_lock().ok()) {
            return free;
        }
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        self.readers[turn].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads at once: a lookup costs some microseconds and its pages are in memory, which is less
    /// than a trip to another thread.
    fn read<'a, T: Send + 'a>(
        &'a self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Answer<'a, T> {
        let answer = query(&self.reader()).map_err(|error| sql_error(operation, error));
        Box::pin(std::future::ready(answer))
    }

    fn write<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        touches: Option<RepoName>,
        work: impl FnOnce(&Connection) -> Result<T, ApplyError> + Send + 'static,
    ) -> Answer<'a, T> {
        self.write_touching(operation, touches.into_iter().collect(), move |db, _| work(db))
    }

    /// Writes; `work` adds the repositories whose answers it turns out to alter.
    fn write_touching<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        touches: Vec<RepoName>,
        work: impl FnOnce(&Connection, &mut Vec<RepoName>) -> Result<T, ApplyError> + Send + 'static,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            self.poison.check()?;
            let (reply, answer) = oneshot::channel();
            let job: Box<dyn Job> = Box::new(Work { operation, touches, work: Some(work), outcome: None, reply });
            let jobs = self.jobs.as_ref().expect("the queue lives as long as the store");
            let gone = || StoreError::Failed {
                operation: operation.to_owned(),
                source: "the committing thread has ended".into(),
            };
            match jobs.try_send(job) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Full(job)) => {
                    // Wait for room on a thread that may wait.
                    let jobs = jobs.clone();
                    tokio::task::spawn_blocking(move || jobs.send(job))
                        .await
                        .map_err(|_| gone())?
                        .map_err(|_| gone())?;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(gone()),
            }
            answer.await.map_err(|_| gone())?
        })
    }

    /// Inline objects written at least `age` seconds ago, at most `limit`, oldest first.
    pub(crate) fn inline_objects(&self, age: i64, limit: usize) -> Result<Vec<(Digest, Bytes)>, StoreError> {
        let query = |db: &Connection| {
            let mut statement = db.prepare_cached(
                "SELECT blob.digest, content.bytes FROM content JOIN blob ON blob.id = content.blob
                 WHERE content.created_at <= ?1 ORDER BY content.blob LIMIT ?2",
            )?;
            let object = |row: &Row<'_>| Ok((digest_from(row, 0)?, Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)));
            statement.query_map(params![now() - age, limit], object)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        query(&self.reader()).map_err(|error| sql_error("read inline objects", error))
    }

    /// Records that objects are in files by now; an object that is not inline any more has no use
    /// for its file.
    pub(crate) fn settled(&self, objects: Vec<(Digest, Place)>) -> Answer<'_, ()> {
        self.write("settle objects", None, move |db| {
            for (digest, place) in &objects {
                let (key, number) = (digest.to_key(), place_number(*place));
                let moved = db
                    .prepare_cached("UPDATE blob SET place = ?2 WHERE digest = ?1 AND place = 0")?
                    .execute(params![key, number])?;
                if moved > 0 {
                    db.prepare_cached("DELETE FROM content WHERE blob = (SELECT id FROM blob WHERE digest = ?1)")?
                        .execute([&key])?;
                } else if !review::names(db, &Purge { digest: *digest, place: *place })? {
                    statements::note_purge(db, &key, number, 0)?;
                }
            }
            Ok(())
        })
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tags that name a manifest, in byte order.
    pub fn tags_of(&self, repository: &RepoName, digest: &Digest) -> Result<Vec<Tag>, StoreError> {
        statements::tags_of(&self.reader(), repository, digest).map_err(|error| sql_error("list tags", error))
    }

    /// Runs `query` on a reader, for maintenance.
    pub(crate) fn query<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        query(&self.reader()).map_err(|error| sql_error("read metadata", error))
    }

    /// Marks a blob as damaged that is still where it was, with the events that `tell` makes.
    pub(crate) fn mark_damaged(&self, id: i64, digest: Digest, place: Place, tell: scrub::Tell) -> Answer<'_, bool> {
        self.write_touching("mark a damaged blob", Vec::new(), move |db, touched| {
            Ok(scrub::mark_damaged(db, id, &digest, place, tell, touched)?)
        })
    }

    /// Marks a damaged blob as sound.
    pub(crate) fn mark_sound(&self, id: i64, place: i64) -> Answer<'_, bool> {
        self.write_touching("mark a sound blob", Vec::new(), move |db, touched| {
            Ok(scrub::mark_sound(db, id, place, touched)?)
        })
    }

    /// Runs `change` in a transaction, for maintenance.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        self.write("change metadata", None, move |db| Ok(change(db)?))
    }
}

impl Drop for SqliteMetadata {
    fn drop(&mut self) {
        // The readers are gone before the writer goes: the last connection moves the log to the
        // database and removes it, and of two that close at the same time none is the last.
        self.readers.clear();
        // The committer ends once its queue is empty; it closes the database in good order.
        self.jobs.take();
        if let Some(thread) = self.committer.take()
            && thread.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
    }
}

fn commit_groups(
    db: &Connection,
    queue: &mpsc::Receiver<Box<dyn Job>>,
    versions: &Versions,
    poison: &Poison,
    log_pages: &AtomicI32,
) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        group.retain(|job| job.is_wanted());
        if group.is_empty() {
            continue;
        }
        // Asked again here: what waited in the queue while a sync failed must not be acknowledged.
        let committed = if poison.check().is_ok() { Some(commit_group(db, &mut group, poison)) } else { None };
        for job in group {
            let fate = match &committed {
                _ if poison.check().is_err() => Err(StoreError::Poisoned),
                None => Err(StoreError::Poisoned),
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(sql_error("commit", copy(error))),
            };
            job.finish(fate, versions);
        }
        if log_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            checkpoint(db, poison);
            log_pages.store(0, Ordering::Relaxed);
        }
    }
}

/// SQLite's errors cannot be cloned; each of a group's requests gets one of the same meaning.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}

fn commit_group(db: &Connection, group: &mut [Box<dyn Job>], poison: &Poison) -> Result<(), rusqlite::Error> {
    let run = |sql: &str| db.prepare_cached(sql)?.execute([]).map(drop);
    let mut all = || {
        run("BEGIN IMMEDIATE")?;
        for job in group.iter_mut() {
            run("SAVEPOINT job")?;
            if !job.run(db) {
                run("ROLLBACK TO job")?;
            }
            run("RELEASE job")?;
        }
        run("COMMIT")
    };
    let result = all();
    if let Err(error) = &result {
        // Some errors end the transaction by themselves.
        if !db.is_autocommit()
            && let Err(error) = db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "roll back");
        }
        note_failed_sync(error, poison);
    }
    result
}

fn note_failed_sync(error: &rusqlite::Error, poison: &Poison) {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    let code = error.sqlite_error().map(|error| error.extended_code);
    if matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC)) {
        tracing::error!(%error, "the metadata could not be synced");
        poison.set();
    }
}

/// Moves the log's pages to the database file, so that the log starts over.
fn checkpoint(db: &Connection, poison: &Poison) {
    let moved = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
    if let Err(error) = moved {
        tracing::warn!(%error, "checkpoint the metadata");
        note_failed_sync(&error, poison);
    }
}

fn delivery_from(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        event: OutboxEvent { endpoint: row.get(1)?, body: row.get(2)? },
        created_at: row.get(3)?,
        attempts: row.get(4)?,
        dead: row.get(5)?,
    })
}

/// One more than `limit`, so that a page knows whether the list goes on.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn page<T>(mut entries: Vec<T>, limit: usize) -> Page<T> {
    let more = entries.len() > limit;
    entries.truncate(limit);
    Page { entries, more }
}

impl Metadata for SqliteMetadata {
    fn apply(&self, change: Change, events: Vec<OutboxEvent>) -> Answer<'_, ()> {
        let touches = change.repository().cloned();
        let rules = self.rules();
        self.write("commit", touches, move |db| {
            statements::apply(Context { db, rules: &rules, now: now() }, &change, &events)
        })
    }

    fn blob<'a>(&'a self, repository: &'a RepoName, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>> {
        self.read("look up blob", |db| {
            db.prepare_cached(&format!(
                "SELECT {BLOB}, link.used_at FROM blob CROSS JOIN link ON link.blob = blob.id
                 LEFT JOIN content ON content.blob = blob.id
                 WHERE blob.digest = ?2 AND blob.state = 0
                 AND link.repository = (SELECT id FROM repository WHERE name = ?1)"
            ))?
            .query_row(params![repository.as_str(), digest.to_key()], |row| {
                Ok(BlobEntry { used_at: row.get(4)?, ..blob_from(row, 0)? })
            })
            .optional()
        })
    }

    fn blob_anywhere<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<BlobEntry>> {
        self.read("look up blob", |db| {
            db.prepare_cached(&format!(
                "SELECT {BLOB} FROM blob LEFT JOIN content ON content.blob = blob.id
                 WHERE blob.digest = ?1 AND blob.state = 0"
            ))?
            .query_row([digest.to_key()], |row| blob_from(row, 0))
            .optional()
        })
    }

    fn holders<'a>(&'a self, digest: &'a Digest, limit: usize) -> Answer<'a, Vec<RepoName>> {
        self.read("look up blob", |db| {
            let mut statement = db.prepare_cached(
                "SELECT repository.name FROM blob JOIN link ON link.blob = blob.id
                 JOIN repository ON repository.id = link.repository
                 WHERE blob.digest = ?1 AND blob.state = 0 LIMIT ?2",
            )?;
            let names = statement.query_map(params![digest.to_key(), limit], |row| row.get::<_, String>(0))?;
            names.filter_map(|name| name.map(|name| name.parse().ok()).transpose()).collect()
        })
    }

    fn manifest<'a>(&'a self, repository: &'a RepoName, reference: &'a Reference) -> Answer<'a, Option<ManifestEntry>> {
        let entry = |row: &Row<'_>| {
            let blob = BlobEntry { used_at: row.get(5)?, ..blob_from(row, 1)? };
            Ok(ManifestEntry { media_type: row.get(0)?, blob })
        };
        self.read("look up manifest", |db| match reference {
            Reference::Tag(tag) => db
                .prepare_cached(&format!(
                    "SELECT manifest.media_type, {BLOB}, manifest.used_at FROM repository
                     CROSS JOIN tag ON tag.repository = repository.id AND tag.name = ?2
                     CROSS JOIN manifest ON manifest.id = tag.manifest
                     CROSS JOIN blob ON blob.id = manifest.blob
                     LEFT JOIN content ON content.blob = blob.id
                     WHERE repository.name = ?1 AND blob.state = 0"
                ))?
                .query_row(params![repository.as_str(), tag.as_str()], entry)
                .optional(),
            Reference::Digest(digest) => db
                .prepare_cached(&format!(
                    "SELECT manifest.media_type, {BLOB}, manifest.used_at FROM blob
                     CROSS JOIN manifest ON manifest.blob = blob.id
                     LEFT JOIN content ON content.blob = blob.id
                     WHERE blob.digest = ?2 AND blob.state = 0 AND manifest.deleted_at IS NULL
                     AND manifest.repository = (SELECT id FROM repository WHERE name = ?1)"
                ))?
                .query_row(params![repository.as_str(), digest.to_key()], entry)
                .optional(),
        })
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Option<Page<String>>> {
        self.read("list tags", |db| {
            let Some(id) = db
                .prepare_cached("SELECT id FROM repository WHERE name = ?1")?
                .query_row([repository.as_str()], |row| row.get::<_, i64>(0))
                .optional()?
            else {
                return Ok(None);
            };
            let mut statement =
                db.prepare_cached("SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
            let tags = statement
                .query_map(params![id, after.unwrap_or(""), one_more(limit)], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(Some(page(tags, limit)))
        })
    }

    fn repositories<'a>(&'a self, after: Option<&'a str>, limit: usize) -> Answer<'a, Page<RepoName>> {
        self.read("list repositories", |db| {
            let mut statement = db.prepare_cached(
                "SELECT name FROM repository WHERE manifests > 0 AND sort > ?1 ORDER BY sort LIMIT ?2",
            )?;
            let names = statement
                .query_map(params![sort_key(after.unwrap_or("")), one_more(limit)], |row| row.get::<_, String>(0))?
                .filter_map(|name| name.map(|name| name.parse().ok()).transpose())
                .collect::<Result<_, _>>()?;
            Ok(page(names, limit))
        })
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
        self.read("list referrers", |db| {
            let mut statement = db.prepare_cached(
                "SELECT digest, descriptor FROM referrer
                 WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND subject = ?2 AND digest > ?3
                 AND hidden = 0 AND (?4 IS NULL OR artifact_type = ?4) ORDER BY digest LIMIT ?5",
            )?;
            let after = after.map(Digest::to_key).unwrap_or_default();
            let mut rows = statement.query(params![
                repository.as_str(),
                subject.to_key(),
                after,
                artifact_type,
                one_more(limit)
            ])?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                bytes += row.get_ref(1)?.as_str()?.len();
                if entries.len() == limit || (bytes > budget && !entries.is_empty()) {
                    return Ok(Page { entries, more: true });
                }
                entries.push((digest_from(row, 0)?, row.get(1)?));
            }
            Ok(Page { entries, more: false })
        })
    }

    fn pending<'a>(&'a self, endpoint: &'a str, limit: usize) -> Answer<'a, Vec<Delivery>> {
        self.read("read the outbox", |db| {
            db.prepare_cached(
                "SELECT id, endpoint, body, created_at, attempts, dead FROM event
                 WHERE endpoint = ?1 AND dead IS NULL ORDER BY id LIMIT ?2",
            )?
            .query_map(params![endpoint, limit], delivery_from)?
            .collect()
        })
    }

    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<Delivery>> {
        self.read("read the dead letters", |db| {
            db.prepare_cached(
                "SELECT id, endpoint, body, created_at, attempts, dead FROM event
                 WHERE dead IS NOT NULL ORDER BY id LIMIT ?1",
            )?
            .query_map([limit], delivery_from)?
            .collect()
        })
    }

    fn delivered(&self, id: i64, outcome: Delivered) -> Answer<'_, ()> {
        self.write("record a delivery", None, move |db| {
            match outcome {
                Delivered::Accepted => db.prepare_cached("DELETE FROM event WHERE id = ?1")?.execute([id])?,
                Delivered::Failed => {
                    db.prepare_cached("UPDATE event SET attempts = attempts + 1 WHERE id = ?1")?.execute([id])?
                }
                Delivered::Dead(why) => db
                    .prepare_cached("UPDATE event SET attempts = attempts + 1, dead = ?2 WHERE id = ?1")?
                    .execute(params![id, why])?,
                Delivered::Replayed => db
                    .prepare_cached("UPDATE event SET attempts = 0, dead = NULL WHERE id = ?1 AND dead IS NOT NULL")?
                    .execute([id])?,
            };
            Ok(())
        })
    }

    fn trim_outbox<'a>(&'a self, endpoint: &'a str, waiting: usize, dead: usize) -> Answer<'a, usize> {
        let endpoint = endpoint.to_owned();
        self.write("trim the outbox", None, move |db| {
            let buried = db
                .prepare_cached(
                    "UPDATE event SET dead = 'the queue was full' WHERE endpoint = ?1 AND dead IS NULL AND id <=
                     (SELECT id FROM event WHERE endpoint = ?1 AND dead IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute(params![endpoint, waiting])?;
            db.prepare_cached(
                "DELETE FROM event WHERE dead IS NOT NULL AND id <=
                 (SELECT id FROM event WHERE dead IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?1)",
            )?
            .execute([dead])?;
            Ok(buried)
        })
    }

    fn version(&self, repository: &RepoName) -> Option<u64> {
        Some(self.versions.slot(repository).load(Ordering::Acquire))
    }

    fn check(&self) -> Answer<'_, ()> {
        if let Err(error) = self.poison.check() {
            return Box::pin(std::future::ready(Err(error)));
        }
        if self.committer.as_ref().is_none_or(JoinHandle::is_finished) {
            let source = "the committing thread has ended".into();
            let error = StoreError::Failed { operation: "commit".into(), source };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.read("read metadata", |db| {
            db.query_row("SELECT count(*) FROM (SELECT 1 FROM repository LIMIT 1)", [], |_| Ok(()))
        })
    }

    fn place<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Place> {
        self.read("choose a place", |db| statements::place_for(db, digest))
    }

    fn govern(&self, rules: Rules) -> Answer<'_, ()> {
        let rules = Arc::new(rules);
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rules);
        self.write("count what the quotas hold", None, move |db| Ok(quota::follow(db, &rules)?))
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        let rules = self.rules();
        self.read("read the quotas", |db| quota::usage(db, &rules))
    }

    fn history<'a>(
        &'a self,
        repository: &'a RepoName,
        tag: Option<&'a Tag>,
        limit: usize,
    ) -> Answer<'a, Vec<TagEvent>> {
        self.read("read the history", |db| history::list(db, repository, tag, limit))
    }

    fn tag_facts<'a>(
        &'a self,
        repository: &'a RepoName,
        after: Option<&'a Tag>,
        limit: usize,
    ) -> Answer<'a, Page<TagFacts>> {
        self.read("list tags", |db| {
            let mut statement = db.prepare_cached(
                "SELECT tag.name, blob.digest, tag.updated_at, manifest.pulled_at FROM tag
                 JOIN manifest ON manifest.id = tag.manifest JOIN blob ON blob.id = manifest.blob
                 WHERE tag.repository = (SELECT id FROM repository WHERE name = ?1) AND tag.name > ?2
                 ORDER BY tag.name LIMIT ?3",
            )?;
            let after = after.map_or("", Tag::as_str);
            let mut rows = statement.query(params![repository.as_str(), after, one_more(limit)])?;
            let mut tags = Vec::new();
            while let Some(row) = rows.next()? {
                let Ok(tag) = row.get_ref(0)?.as_str()?.parse() else { continue };
                tags.push(TagFacts {
                    tag,
                    digest: digest_from(row, 1)?,
                    pushed_at: row.get(2)?,
                    pulled_at: row.get(3)?,
                });
            }
            Ok(page(tags, limit))
        })
    }
}

impl Collection for SqliteMetadata {
    fn review(&self, now: i64, policy: Policy, limit: usize) -> Answer<'_, Reviewed> {
        let rules = self.rules();
        self.write_touching("review", Vec::new(), move |db, touched| {
            Ok(review::review(Context { db, rules: &rules, now }, &policy, limit, touched)?)
        })
    }

    fn retire(&self, now: i64, policy: Policy, limit: usize) -> Answer<'_, usize> {
        let rules = self.rules();
        self.write("retire blobs", None, move |db| {
            Ok(review::retire(Context { db, rules: &rules, now }, &policy, limit)?)
        })
    }

    fn purges(&self, limit: usize) -> Answer<'_, Vec<Purge>> {
        self.read("list files to remove", |db| review::purges(db, limit))
    }

    fn names<'a>(&'a self, file: &'a Purge) -> Answer<'a, bool> {
        self.read("look up file", |db| review::names(db, file))
    }

    fn purged(&self, now: i64, files: Vec<Purge>) -> Answer<'_, ()> {
        self.write("forget removed files", None, move |db| Ok(review::purged(db, &files, now)?))
    }

    fn review_all(&self) -> Answer<'_, u64> {
        self.write("review everything", None, move |db| Ok(review::review_all(db)?))
    }

    fn backlog(&self, now: i64) -> Answer<'_, Backlog> {
        self.read("count what waits", |db| review::backlog(db, now))
    }

    fn state<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>> {
        self.read("read the state", |db| review::state(db, name))
    }

    fn set_state<'a>(&'a self, name: &'a str, value: Option<String>) -> Answer<'a, ()> {
        let name = name.to_owned();
        self.write("keep the state", None, move |db| Ok(review::set_state(db, &name, value.as_deref())?))
    }
}

impl Directories for SqliteMetadata {
    fn load(&self) -> Answer<'_, Option<(u64, Directory)>> {
        const OPERATION: &str = "read the accounts and rules";
        let row = self.read(OPERATION, |db| {
            db.prepare_cached("SELECT version, document FROM directory")?
                .query_row([], |row| Ok((row.get(0)?, row.get_ref(1)?.as_bytes()?.to_vec())))
                .optional()
        });
        Box::pin(async move {
            let Some((version, text)) = row.await? else {
                return Ok(None);
            };
            let directory = document::decode(&text).map_err(|error| error.during(OPERATION))?;
            Ok(Some((version, directory)))
        })
    }

    fn save(&self, expected: u64, directory: Directory) -> Answer<'_, u64> {
        const OPERATION: &str = "store the accounts and rules";
        let text = match document::encode(directory) {
            Ok(text) => text,
            Err(error) => return Box::pin(std::future::ready(Err(error.during(OPERATION)))),
        };
        self.write(OPERATION, None, move |db| statements::save_directory(db, expected, &text))
    }
}
