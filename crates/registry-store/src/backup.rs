//! Owns taking a data directory's copy while a server works on it, and putting one back.
//!
//! A backup is a data directory itself. It becomes another one at a single moment, when a finished
//! snapshot of the rows takes the place of the former: before, blobs are only added, and after, only
//! what the new one does not name is removed. So a crash at any time leaves a whole one.
//!
//! The collection is held meanwhile, so that what the snapshot names stays where it is.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use registry_core::{
    digest::{Algorithm, Digest},
    store::{Place, StoreError},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::{
    data_dir::{DataDir, DataDirError, place_of},
    disk::{Poison, start_writing, sync_directory, sync_file},
    meta::{
        digest_from, now, private, readonly, review, schema,
        sqlite::OpenError,
        statements::{place_from, place_number},
    },
    verify::{CHUNK, Flaw, verify_bytes, verify_file, verify_size},
};

/// How the names of files begin that are being copied.
pub(crate) const TEMPORARY: &str = "backup.";
/// The extension of a snapshot that is not finished.
pub(crate) const SNAPSHOT: &str = "backup";
/// The file that says that a directory is a backup, in its `roadstead`.
const MARK: &str = "backup";
/// The name of the switch that holds the collection, and of what says when a backup was taken.
const HOLD: &str = "gc.hold_until";
const TAKEN_AT: &str = "backup.taken_at";

/// How long a hold lasts that nobody renews, in seconds.
const HELD_FOR: i64 = 15 * 60;
/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(60);
/// Files that become durable together, and bytes after which they do.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 64 * 1024 * 1024;
/// Flawed blobs that are listed, and repositories of each.
const LISTED: usize = 1000;
const LISTED_REPOSITORIES: u64 = 20;

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blobs that are there, and all of them.
    pub blobs: (u64, u64),
    /// Bytes that are there, and all of them.
    pub bytes: (u64, u64),
}

/// A blob that has no good copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flawed {
    /// Which.
    pub digest: Digest,
    /// What is wrong with it where it was to be copied from.
    pub flaw: Flaw,
    /// Some repositories that hold it.
    pub repositories: Vec<String>,
}

/// What became of a copy.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Blobs that the rows name, and their bytes.
    pub blobs: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Blobs that were copied; the others were there.
    pub copied: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Files that the new rows do not name, removed.
    pub removed: u64,
    /// When the rows are from, in seconds since 1970.
    pub taken_at: i64,
    /// Where the rows are now that were there before, if they were put aside.
    pub put_aside: Option<PathBuf>,
    /// How many blobs have no good copy. They are marked as damaged there: not served, and mended by
    /// the next push.
    pub flawed_count: u64,
    /// The first 1,000 of those.
    pub flawed: Vec<Flawed>,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A directory cannot be opened, or somebody uses it.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// There is no metadata to copy.
    #[error("{} is not there: this is no data directory of this registry", .0.display())]
    NoMetadata(PathBuf),
    /// The destination is the source.
    #[error("{} cannot be copied to itself", .0.display())]
    Itself(PathBuf),
    /// The destination of a backup is something else.
    #[error(
        "{} is neither empty nor a backup of this program's: choose another directory, so that nothing is lost", .0.display()
    )]
    NoBackup(PathBuf),
    /// A server has opened the backup, and may have taken pushes there.
    #[error(
        "a server has run on the backup {} since it was taken, and may hold what the registry does not: \
         choose another directory, or move that one away", .0.display()
    )]
    Served(PathBuf),
    /// The directory to restore to has something in it.
    #[error("{} is not empty: choose another directory, or say --into-existing to keep and use the blobs in it", .0.display())]
    NotEmpty(PathBuf),
    /// The directory to restore to has metadata.
    #[error(
        "{} is there: say --replace-metadata to put it aside and take the backup's in its place", .0.display()
    )]
    MetadataThere(PathBuf),
    /// The metadata cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metadata cannot be read or written.
    #[error("{operation}")]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// A file cannot be read or written just now, or there is no room for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A good blob was read back wrong from where it had been written.
    #[error("{} was read back wrong after it was written: the disk there is not to be trusted", .0.display())]
    Unfaithful(PathBuf),
}

fn io_failed(operation: &str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let operation = format!("{operation} {}", path.display());
    move |error| StoreError::io(operation, error).into()
}

fn sql_failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> BackupError {
    move |source| BackupError::Sqlite { operation, source }
}

/// Whether a directory is missing or empty. What a new file system has in it does not count.
fn is_empty(path: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(path) {
        Ok(entries) => {
            let names: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
            Ok(names.map_err(io_failed("list", path))?.iter().all(|name| name == "lost+found"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io_failed("list", path)(error)),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A hold on the collection of a data directory; it ends when this is dropped, or fifteen minutes
/// after a crash.
struct Hold(Option<(Sender<()>, JoinHandle<()>)>);

/// Renews the hold; returns until when it lasts. A longer one of somebody else stays.
fn hold(db: &Connection) -> rusqlite::Result<i64> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let held = (|| {
        let other = review::state(db, HOLD)?.and_then(|until| until.parse().ok()).unwrap_or(0);
        let until = now().saturating_add(HELD_FOR).max(other);
        review::set_state(db, HOLD, Some(&until.to_string()))?;
        Ok(until)
    })();
    db.execute_batch(if held.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    held
}

impl Hold {
    fn begin(metadata: &Path) -> Result<Self, BackupError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = || sql_failed("hold the collection");
        let db = Connection::open_with_flags(metadata, flags).map_err(failed())?;
        db.busy_timeout(Duration::from_secs(10)).map_err(failed())?;
        schema::check(&db)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(failed())?;
        let mut until = hold(&db).map_err(failed())?;
        let (stop, stopped) = channel();
        let renew = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(RENEWED) {
                match hold(&db) {
                    Ok(later) => until = later,
                    Err(error) => tracing::warn!(%error, "the hold on the collection is not renewed, trying again"),
                }
            }
            // Unless another backup holds it too, and longer.
            let ended =
                db.execute("DELETE FROM state WHERE name = ?1 AND value = ?2", params![HOLD, until.to_string()]);
            if let Err(error) = ended {
                tracing::warn!(%error, "the hold on the collection ends by itself, within fifteen minutes");
            }
        };
        let thread = std::thread::Builder::new()
            .name("hold".into())
            .spawn(renew)
            .map_err(io_failed("start a thread to hold the collection of", metadata))?;
        Ok(Self(Some((stop, thread))))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("the thread that held the collection panicked");
            }
        }
    }
}

/// Copies the data directory at `source` to `dest`, while a server may be working on it. Blobs that
/// are there already are not copied again; with `keep`, those that the registry no longer has stay.
pub fn backup(
    source: &Path,
    dest: &Path,
    keep: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, BackupError> {
    let from = DataDir::peek(source);
    if !from.metadata().exists() {
        return Err(BackupError::NoMetadata(from.metadata()));
    }
    if is_same(source, dest) {
        return Err(BackupError::Itself(source.to_owned()));
    }
    let to = open_destination(dest)?;
    let _hold = Hold::begin(&from.metadata())?;
    let live = readonly::beside_a_server(&from.metadata())?;
    let snapshot = Snapshot::take(&live, &to)?;
    let taken_at = now();
    snapshot.run(
        "prepare the snapshot",
        "DELETE FROM content WHERE blob IN (SELECT id FROM blob WHERE state = 1);
         DELETE FROM quota_blob WHERE blob IN (SELECT id FROM blob WHERE state = 1);
         DELETE FROM review WHERE kind = 2 AND id IN (SELECT id FROM blob WHERE state = 1);
         DELETE FROM blob WHERE state = 1;
         DELETE FROM purge;
         DELETE FROM state WHERE name IN ('gc.hold_until', 'backup.taken_at');",
    )?;
    review::set_state(&snapshot.db, TAKEN_AT, Some(&taken_at.to_string())).map_err(sql_failed("date the snapshot"))?;
    let mut copy = Copy::new(&from, &to, Some(&live), false);
    let mut summary = copy.all(&snapshot.db, progress)?;
    summary.taken_at = taken_at;
    snapshot.finish(&to)?;
    if !keep {
        let db = readonly::open(&to.metadata())?;
        summary.removed = remove_unnamed(&db, &to)?;
    }
    Ok(summary)
}

/// Opens the directory of a backup, new or not.
fn open_destination(dest: &Path) -> Result<DataDir, BackupError> {
    let mark = |dir: &DataDir| dir.metadata().with_file_name(MARK);
    let seen = DataDir::peek(dest);
    let is_new = is_empty(dest)?;
    if !is_new && !mark(&seen).exists() {
        return Err(BackupError::NoBackup(dest.to_owned()));
    }
    let to = DataDir::open(dest)?;
    if is_new {
        let path = mark(&to);
        let text = "A backup that `registry backup` keeps up to date. What else is put here is lost.\n";
        fs::write(&path, text).map_err(io_failed("write", &path))?;
    }
    // A snapshot keeps a journal of the old kind; the first thing that a server does is to change
    // that. It is said in two bytes of the database's head. Source: sqlite.org, "Database File
    // Format", 1.3.3.
    let mut head = [1; 20];
    match File::open(to.metadata()).and_then(|file| file.read_exact_at(&mut head, 0)) {
        Ok(()) if head[18] != 1 => return Err(BackupError::Served(dest.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_failed("read", &to.metadata())(error));
        }
        _ => {}
    }
    clean(&to)?;
    to.sync().map_err(io_failed("sync", dest))?;
    Ok(to)
}

/// Removes what an interrupted copy left behind.
fn clean(to: &DataDir) -> Result<(), BackupError> {
    let uploads = to.uploads();
    for entry in fs::read_dir(&uploads).map_err(io_failed("list", &uploads))? {
        let entry = entry.map_err(io_failed("list", &uploads))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path()).map_err(io_failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Rows that are being made ready under another name.
struct Snapshot {
    db: Connection,
    path: PathBuf,
}

impl Snapshot {
    /// Copies all rows as they are at one moment.
    fn take(live: &Connection, to: &DataDir) -> Result<Self, BackupError> {
        let path = to.metadata().with_extension(SNAPSHOT);
        for end in ["", "-journal", "-wal", "-shm"] {
            match fs::remove_file(beside(&path, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_failed("remove the old", &beside(&path, end))(error));
                }
                _ => {}
            }
        }
        // It holds password hashes and keys, from its first byte.
        private::make(&path).map_err(io_failed("make", &path))?;
        live.execute("VACUUM INTO ?1", [path.to_string_lossy()]).map_err(sql_failed("copy the metadata"))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = || sql_failed("open the copy of the metadata");
        let mut db = Connection::open_with_flags(&path, flags).map_err(failed())?;
        // It counts for nothing until it is whole, and is synced then.
        db.pragma_update(None, "synchronous", "OFF").map_err(failed())?;
        db.pragma_update(None, "journal_mode", "MEMORY").map_err(failed())?;
        db.pragma_update(None, "temp_store", "MEMORY").map_err(failed())?;
        schema::migrate(&mut db)?;
        Ok(Self { db, path })
    }

    fn run(&self, operation: &'static str, sql: &str) -> Result<(), BackupError> {
        let batch = format!("BEGIN; {sql} COMMIT;");
        self.db.execute_batch(&batch).map_err(sql_failed(operation))
    }

    /// Takes the place of the rows that are there, durably.
    fn finish(self, to: &DataDir) -> Result<(), BackupError> {
        self.db.close().map_err(|(_, error)| sql_failed("close the copy of the metadata")(error))?;
        let failed = || io_failed("put in place", &self.path);
        let file = File::open(&self.path).map_err(failed())?;
        sync_file(&file, &Poison::default(), || "sync the copy of the metadata".into())?;
        fs::rename(&self.path, to.metadata()).map_err(failed())?;
        to.sync().map_err(failed())
    }
}

/// A file of a batch that is written and not yet synced.
struct Written {
    file: File,
    temporary: PathBuf,
    blob: Blob,
}

/// A row of a blob.
#[derive(Clone, Copy)]
struct Blob {
    id: i64,
    digest: Digest,
    size: u64,
    place: Place,
    is_damaged: bool,
}

/// A copy of blobs from one data directory to another.
struct Copy<'a> {
    from: &'a DataDir,
    to: &'a DataDir,
    /// The rows of a server that may move blobs meanwhile.
    live: Option<&'a Connection>,
    /// Whether what is there is read and compared, instead of only its size.
    verify_present: bool,
    batch: Vec<Written>,
    batch_bytes: u64,
    /// Directories whose names are durable.
    durable: HashSet<PathBuf>,
    buffer: Vec<u8>,
    poison: Poison,
    /// What became of each row that is not as it says.
    flaws: HashMap<i64, (Digest, Flaw)>,
    mended: Vec<i64>,
    copied: u64,
    copied_bytes: u64,
}

impl<'a> Copy<'a> {
    fn new(from: &'a DataDir, to: &'a DataDir, live: Option<&'a Connection>, verify_present: bool) -> Self {
        Self {
            from,
            to,
            live,
            verify_present,
            batch: Vec::new(),
            batch_bytes: 0,
            durable: HashSet::new(),
            buffer: vec![0; CHUNK],
            poison: Poison::default(),
            flaws: HashMap::new(),
            mended: Vec::new(),
            copied: 0,
            copied_bytes: 0,
        }
    }

    /// Sees to it that every blob of the rows is there, and marks in them what is not to be had.
    fn all(&mut self, rows: &Connection, progress: &mut dyn FnMut(Progress)) -> Result<Summary, BackupError> {
        let failed = || sql_failed("read the copy of the metadata");
        let (blobs, bytes): (u64, u64) = rows
            .query_row("SELECT count(*), ifnull(sum(size), 0) FROM blob", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed())?;
        let mut done = Progress { blobs: (0, blobs), bytes: (0, bytes) };
        {
            let mut statement = rows
                .prepare(
                    "SELECT blob.id, blob.digest, blob.size, blob.place, blob.state = 2, content.bytes FROM blob
                     LEFT JOIN content ON content.blob = blob.id AND blob.place = 0 ORDER BY blob.digest",
                )
                .map_err(failed())?;
            let mut rows = statement.query([]).map_err(failed())?;
            while let Some(row) = rows.next().map_err(failed())? {
                let read = || {
                    let number = row.get(3)?;
                    let place = place_from(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(3, number))?;
                    let (id, digest, size) = (row.get(0)?, digest_from(row, 1)?, row.get(2)?);
                    Ok(Blob { id, digest, size, place, is_damaged: row.get(4)? })
                };
                let blob = read().map_err(failed())?;
                if blob.place == Place::Inline {
                    let bytes = row.get_ref(5).and_then(|value| Ok(value.as_blob_or_null()?)).map_err(failed())?;
                    let verdict =
                        bytes.map_or(Err(Flaw::Missing), |bytes| verify_bytes(bytes, &blob.digest, blob.size));
                    self.note(blob, verdict);
                } else {
                    self.see_to(blob)?;
                }
                done.blobs.0 += 1;
                done.bytes.0 += blob.size;
                progress(done);
            }
        }
        self.flush()?;
        self.mark(rows)?;
        let mut summary = Summary {
            blobs,
            bytes,
            copied: self.copied,
            copied_bytes: self.copied_bytes,
            flawed_count: self.flaws.len() as u64,
            ..Summary::default()
        };
        let mut flaws: Vec<_> = self.flaws.drain().collect();
        flaws.sort_by_key(|(_, (digest, _))| *digest);
        for (id, (digest, flaw)) in flaws.into_iter().take(LISTED) {
            let repositories = holders(rows, id).map_err(failed())?;
            summary.flawed.push(Flawed { digest, flaw, repositories });
        }
        Ok(summary)
    }

    fn note(&mut self, blob: Blob, verdict: Result<(), Flaw>) {
        match verdict {
            Ok(()) if blob.is_damaged => self.mended.push(blob.id),
            Ok(()) => {}
            Err(flaw) => drop(self.flaws.insert(blob.id, (blob.digest, flaw))),
        }
    }

    /// Writes down in the rows what was found.
    fn mark(&self, rows: &Connection) -> Result<(), BackupError> {
        let mark = || {
            rows.execute_batch("BEGIN")?;
            let (mut damaged, mut sound) = (
                rows.prepare("UPDATE blob SET state = 2, state_at = ?2 WHERE id = ?1 AND state != 2")?,
                rows.prepare("UPDATE blob SET state = 0, state_at = ?2 WHERE id = ?1")?,
            );
            for id in self.flaws.keys() {
                damaged.execute(params![id, now()])?;
            }
            for id in &self.mended {
                sound.execute(params![id, now()])?;
            }
            rows.execute_batch("COMMIT")
        };
        mark().map_err(sql_failed("mark damaged blobs in the copy of the metadata"))
    }

    /// Copies a blob unless it is there.
    fn see_to(&mut self, blob: Blob) -> Result<(), BackupError> {
        let target = self.to.blob_at(&blob.digest, blob.place);
        let present = if self.verify_present || blob.is_damaged {
            verify_file(&target, &blob.digest, blob.size, &mut self.buffer, |_| {})
        } else {
            verify_size(&target, blob.size)
        };
        if present.map_err(io_failed("look at", &target))?.is_ok() {
            self.note(blob, Ok(()));
            return Ok(());
        }
        match self.write(blob)? {
            Ok(written) => {
                self.batch.push(written);
                self.batch_bytes += blob.size;
                if self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
            }
            Err(flaw) => {
                self.note(blob, Err(flaw));
                Ok(())
            }
        }
    }

    /// Where the bytes of a blob are by now, if a server moved them.
    fn moved(&self, blob: Blob) -> Result<Option<Place>, BackupError> {
        let Some(live) = self.live else { return Ok(None) };
        let place: Option<i64> = live
            .prepare_cached("SELECT place FROM blob WHERE digest = ?1 AND state != 2")
            .and_then(|mut statement| statement.query_row([blob.digest.to_key()], |row| row.get(0)).optional())
            .map_err(sql_failed("look up a blob"))?;
        Ok(place.and_then(place_from).filter(|place| *place != blob.place))
    }

    /// Writes a blob's bytes under a temporary name.
    fn write(&mut self, blob: Blob) -> Result<Result<Written, Flaw>, BackupError> {
        let temporary = self.to.uploads().join(format!("{TEMPORARY}{}", blob.digest.hex()));
        let mut source = self.from.blob_at(&blob.digest, blob.place);
        let mut opened = File::open(&source);
        if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            match self.moved(blob)? {
                // A push brought it again meanwhile, and it is small.
                Some(Place::Inline) => {
                    let bytes: Option<Vec<u8>> = self
                        .live
                        .and_then(|live| {
                            let sql = "SELECT bytes FROM content JOIN blob ON blob.id = content.blob WHERE digest = ?1";
                            live.query_row(sql, [blob.digest.to_key()], |row| row.get(0)).optional().transpose()
                        })
                        .transpose()
                        .map_err(sql_failed("look up a blob"))?;
                    if let Some(bytes) = bytes {
                        fs::write(&temporary, bytes).map_err(io_failed("write", &temporary))?;
                        let file = File::open(&temporary).map_err(io_failed("open", &temporary))?;
                        return Ok(Ok(Written { file, temporary, blob }));
                    }
                }
                Some(place) => {
                    source = self.from.blob_at(&blob.digest, place);
                    opened = File::open(&source);
                }
                None => {}
            }
        }
        let Ok(mut opened) = opened else { return self.flaw_at(&source, blob) };
        let file = File::create(&temporary).map_err(io_failed("write", &temporary))?;
        // On file systems that can, both share the bytes until one is written to.
        if rustix::fs::ioctl_ficlone(&file, &opened).is_err() {
            // Inside the kernel, where it can.
            if let Err(error) = io::copy(&mut opened, &mut &file) {
                drop(file);
                fs::remove_file(&temporary).ok();
                return match self.flaw_at(&source, blob) {
                    Ok(Ok(_)) | Err(_) => Err(io_failed("copy to", &temporary)(error)),
                    flaw => flaw,
                };
            }
        }
        start_writing(&file, 0, 0);
        Ok(Ok(Written { file, temporary, blob }))
    }

    /// What is wrong with a file that could not be read; an error if nothing is.
    fn flaw_at(&mut self, source: &Path, blob: Blob) -> Result<Result<Written, Flaw>, BackupError> {
        match verify_file(source, &blob.digest, blob.size, &mut self.buffer, |_| {}) {
            Ok(Err(flaw)) => Ok(Err(flaw)),
            Ok(Ok(())) => Err(io_failed("read", source)(io::Error::other("it could not be read just now"))),
            Err(error) => Err(io_failed("read", source)(error)),
        }
    }

    /// Makes a batch durable: bytes, then what was read back, then names.
    fn flush(&mut self) -> Result<(), BackupError> {
        for written in &self.batch {
            sync_file(&written.file, &self.poison, || format!("sync {}", written.temporary.display()))?;
        }
        self.batch_bytes = 0;
        let mut dirs = HashSet::new();
        for Written { file, temporary, blob } in std::mem::take(&mut self.batch) {
            drop(file);
            let verdict = verify_file(&temporary, &blob.digest, blob.size, &mut self.buffer, |_| {})
                .map_err(io_failed("read back", &temporary))?;
            if let Err(flaw) = verdict {
                fs::remove_file(&temporary).map_err(io_failed("remove", &temporary))?;
                let source = self.from.blob_at(&blob.digest, blob.place);
                let at_source = verify_file(&source, &blob.digest, blob.size, &mut self.buffer, |_| {})
                    .map_err(io_failed("read", &source))?;
                if at_source.is_ok() {
                    return Err(BackupError::Unfaithful(temporary));
                }
                self.note(blob, Err(flaw));
                continue;
            }
            let [algorithm, fan_out, own] = self.to.blob_dirs(&blob.digest);
            fs::create_dir_all(&own).map_err(io_failed("make", &own))?;
            let target = self.to.blob_at(&blob.digest, blob.place);
            fs::rename(&temporary, &target).map_err(io_failed("rename to", &target))?;
            if self.durable.insert(fan_out.clone()) {
                dirs.extend([self.to.blobs(), algorithm]);
            }
            dirs.extend([fan_out, own]);
            self.copied += 1;
            self.copied_bytes += blob.size;
            self.note(blob, Ok(()));
        }
        Ok(dirs.iter().try_for_each(|dir| sync_directory(dir, &self.poison))?)
    }
}

/// Some repositories that hold a blob.
fn holders(db: &Connection, blob: i64) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(
        "SELECT name FROM repository WHERE id IN (
            SELECT repository FROM link WHERE blob = ?1 UNION SELECT repository FROM manifest WHERE blob = ?1)
         ORDER BY name LIMIT ?2",
    )?
    .query_map(params![blob, LISTED_REPOSITORIES], |row| row.get(0))?
    .collect()
}

/// Removes the files of a backup that its rows do not name; returns how many.
fn remove_unnamed(db: &Connection, to: &DataDir) -> Result<u64, BackupError> {
    let mut removed = 0;
    let mut named = db
        .prepare("SELECT 1 FROM blob WHERE digest = ?1 AND place = ?2")
        .map_err(sql_failed("look for files that nothing names"))?;
    let list = |path: &Path| -> Result<Vec<PathBuf>, BackupError> {
        match fs::read_dir(path) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
                .map_err(io_failed("list", path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io_failed("list", path)(error)),
        }
    };
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for fan_out in list(&to.blobs().join(algorithm.as_str()))? {
            for own in list(&fan_out)? {
                let hex = own.file_name().unwrap_or_default().to_string_lossy();
                let Ok(digest) = format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() else { continue };
                for path in list(&own)? {
                    let place = path.file_name().and_then(|name| place_of(&name.to_string_lossy()));
                    let Some(place) = place else { continue };
                    let is_named = named
                        .exists(params![digest.to_key(), place_number(place)])
                        .map_err(sql_failed("look for files that nothing names"))?;
                    if !is_named {
                        fs::remove_file(&path).map_err(io_failed("remove", &path))?;
                        removed += 1;
                    }
                }
                // Fails where something is left in it.
                fs::remove_dir(&own).ok();
            }
        }
    }
    Ok(removed)
}

/// How to restore.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// The directory may have blobs in it; those that are right are used.
    pub into_existing: bool,
    /// The directory may have metadata; it is put aside under another name.
    pub replace_metadata: bool,
}

/// Makes a data directory at `root` of a backup, which nobody may be serving or writing. All blobs
/// are verified. The rows come last: where this is interrupted, no server starts there.
pub fn restore(
    backup: &Path,
    root: &Path,
    options: RestoreOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, BackupError> {
    let from = DataDir::open_to_read(backup)?;
    if !from.metadata().exists() {
        return Err(BackupError::NoMetadata(from.metadata()));
    }
    if is_same(backup, root) {
        return Err(BackupError::Itself(backup.to_owned()));
    }
    if !options.into_existing && !options.replace_metadata && !is_empty(root)? {
        return Err(BackupError::NotEmpty(root.to_owned()));
    }
    let to = DataDir::open(root)?;
    let has_metadata = fs::symlink_metadata(to.metadata()).is_ok();
    if has_metadata && !options.replace_metadata {
        return Err(BackupError::MetadataThere(to.metadata()));
    }
    clean(&to)?;
    to.sync().map_err(io_failed("sync", root))?;
    let old = readonly::open_any_version(&from.metadata())?;
    let snapshot = Snapshot::take(&old, &to)?;
    drop(old);
    let mut copy = Copy::new(&from, &to, None, true);
    let mut summary = copy.all(&snapshot.db, progress)?;
    let taken_at = review::state(&snapshot.db, TAKEN_AT).map_err(sql_failed("read the backup's date"))?;
    summary.taken_at = taken_at.and_then(|at| at.parse().ok()).unwrap_or(0);
    // Every time of rest begins anew: what is old only because the backup is must not go at once.
    let now = now();
    snapshot.run(
        "make the metadata ready",
        &format!(
            "DELETE FROM purge;
             DELETE FROM state WHERE name IN ('gc.hold_until', 'backup.taken_at');
             UPDATE blob SET state = 0, state_at = {now} WHERE state = 1;
             UPDATE blob SET verified_at = {now} WHERE state = 0;
             UPDATE link SET used_at = max(used_at, {now});
             UPDATE manifest SET untagged_at = max(untagged_at, {now});"
        ),
    )?;
    if !to.has_foreign_links() {
        // What the rows say of another server's files is about another directory.
        review::set_state(&snapshot.db, "adoption", None).map_err(sql_failed("make the metadata ready"))?;
    }
    review::review_all(&snapshot.db).map_err(sql_failed("review everything"))?;
    if has_metadata {
        summary.put_aside = Some(put_aside(&to.metadata(), now)?);
    }
    snapshot.finish(&to)?;
    Ok(summary)
}

/// Gives a database and the files beside it another name.
fn put_aside(metadata: &Path, now: i64) -> Result<PathBuf, BackupError> {
    let aside = beside(metadata, &format!(".before-restore-{now}"));
    // The log goes with it: a log that is left would be taken for the new one's.
    for end in ["-wal", "-shm", "-journal", ""] {
        let (old, new) = (beside(metadata, end), beside(&aside, end));
        match fs::rename(&old, &new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_failed("put aside", &old)(error));
            }
            _ => {}
        }
    }
    Ok(aside)
}
