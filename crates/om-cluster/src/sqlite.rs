//! Owns the store of one node: a SQLite database in WAL mode with `synchronous=FULL`. One thread writes and commits all
//! that waits at once; reads have a connection of their own.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use om_core::kv::{Answer, Changed, Compare, Entry, KeyRange, Kv, KvError, Op, Outcome, Rev, Watch, WatchMsg};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use crate::limits::{bounds, check};

/// Revisions that watches can go back to.
const KEPT: u64 = 10_000;
/// How often old ones are forgotten, in transactions.
const COMPACT_EVERY: u64 = 1000;
/// Transactions that share one commit.
const GROUP: usize = 128;
/// Transactions that wait for the writer; the next ones wait before they are sent.
const QUEUE: usize = 1024;
/// The version of the schema.
const SCHEMA: i64 = 1;

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("open {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer version (schema {found}, this one knows {SCHEMA})", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// It is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says of it.
        what: String,
    },
    /// Another process has it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The thread that writes cannot be made.
    #[error("start the thread that writes")]
    Thread(#[source] io::Error),
}

/// The store. Dropping the last handle ends the writer, after all that waits.
pub struct SqliteKv {
    reader: Arc<Mutex<Connection>>,
    orders: Option<mpsc::SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    newest: watch::Receiver<Rev>,
    generation: u64,
}

enum Order {
    Txn(Vec<Compare>, Vec<Op>, oneshot::Sender<Result<Outcome, KvError>>),
    Compact(Rev, oneshot::Sender<Result<(), KvError>>),
}

impl SqliteKv {
    /// Opens the database at `path`, or makes it; its directory is there. It is this process's alone until it is
    /// dropped.
    ///
    /// # Errors
    /// If it is in use, of a newer version, or not to be opened.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path: path.to_owned() },
            _ => OpenError::Sqlite { path: path.to_owned(), source },
        };
        let mut db = Connection::open(path).map_err(failed)?;
        db.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA {
            return Err(OpenError::Newer { path: path.to_owned(), found });
        }
        let (rev, generation) = migrate(&mut db, found).map_err(failed)?;
        let reader = Connection::open(path).map_err(failed)?;
        reader.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        reader.pragma_update(None, "query_only", true).map_err(failed)?;
        let (newest, subscription) = watch::channel(rev);
        let (orders, waiting) = mpsc::sync_channel(QUEUE);
        let mut writer = Writer { db, rev, newest, poisoned: None, since_compaction: 0 };
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&waiting))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            reader: Arc::new(Mutex::new(reader)),
            orders: Some(orders),
            writer: Some(writer),
            newest: subscription,
            generation,
        })
    }

    async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, KvError>>) -> Order) -> Result<T, KvError> {
        let ended = || KvError::Failed("use a store that has ended".into());
        let (answer, answered) = oneshot::channel();
        let mut order = make(answer);
        loop {
            match self.orders.as_ref().ok_or_else(ended)?.try_send(order) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(ended()),
                Err(mpsc::TrySendError::Full(back)) => order = back,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answered.await.map_err(|_| KvError::Unknown("the store's writer ended".into()))?
    }
}

impl Drop for SqliteKv {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was printed by itself.
            drop(writer.join());
        }
    }
}

/// Writes what a store has now to `to`, where nothing is: one file, as of one revision. The store may be in use. Blocks.
///
/// # Errors
/// SQLite could not read the one or write the other.
pub fn backup(store: &Path, to: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: store.to_owned(), source };
    let db = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    let failed = |source| OpenError::Sqlite { path: to.to_owned(), source };
    db.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed).map(drop)
}

/// Makes a backup what a store can begin with: it is whole, of a version that is known, and its generation grows, so that
/// what was seen of the store that it replaces never counts again. `newest` is that one's generation. Blocks until it is on
/// disk.
///
/// # Errors
/// It is no store, is damaged, or of a newer version.
pub fn prepare(path: &Path, newest: u64) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    let sound: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(OpenError::Damaged { path: path.to_owned(), what: sound });
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let generation = number(&db, "generation").map_err(failed)?.max(newest) + 1;
    set_number(&db, "generation", generation).map_err(failed)
}

/// The generation of a store that nobody has open; 0 if there is none that can be read.
pub fn generation_of(path: &Path) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(path, flags).and_then(|db| number(&db, "generation")).unwrap_or(0)
}

fn migrate(db: &mut Connection, found: i64) -> rusqlite::Result<(Rev, u64)> {
    let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found == 0 {
        txn.execute_batch(
            "CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,
                modified INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE log (rev INTEGER NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,
                PRIMARY KEY (rev, seq)) WITHOUT ROWID;
             CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             INSERT INTO meta VALUES ('rev', 0), ('compacted', 0), ('generation', 1);",
        )?;
        txn.pragma_update(None, "user_version", SCHEMA)?;
    }
    let (rev, generation) = (number(&txn, "rev")?, number(&txn, "generation")?);
    txn.commit()?;
    Ok((Rev(rev), generation))
}

fn number(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

fn set_number(db: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?.execute(params![name, value]).map(drop)
}

struct Writer {
    db: Connection,
    rev: Rev,
    newest: watch::Sender<Rev>,
    /// Why nothing is written any more. After a failed sync the kernel may have dropped what it could not write, and
    /// the next sync would say that all is well.
    poisoned: Option<String>,
    since_compaction: u64,
}

type Reply = oneshot::Sender<Result<Outcome, KvError>>;

impl Writer {
    fn run(&mut self, orders: &mpsc::Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let mut group = Vec::new();
            let mut compactions = Vec::new();
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Txn(conditions, changes, reply) => group.push((conditions, changes, reply)),
                    Order::Compact(rev, reply) => compactions.push((rev, reply)),
                }
                next = if group.len() < GROUP { orders.try_recv().ok() } else { None };
            }
            self.commit(group);
            for (rev, reply) in compactions {
                // Whoever asked may have gone.
                drop(reply.send(self.compact(rev).map_err(|error| KvError::Failed(format!("compact: {error}")))));
            }
            if self.since_compaction >= COMPACT_EVERY {
                self.since_compaction = 0;
                if let Err(error) = self.compact(Rev(self.rev.0.saturating_sub(KEPT))) {
                    tracing::warn!(%error, "old changes are not forgotten yet: {error}");
                }
            }
        }
    }

    fn commit(&mut self, group: Vec<(Vec<Compare>, Vec<Op>, Reply)>) {
        let mut replies = Vec::new();
        let mut answers: Vec<Result<Outcome, KvError>> = Vec::new();
        let ended = match &self.poisoned {
            Some(why) => Err(KvError::Failed(format!("write after a failed sync ({why}): restart the daemon"))),
            None => write(&mut self.db, self.rev, group, &mut replies, &mut answers),
        };
        match ended {
            Ok(rev) => {
                self.since_compaction += rev.0 - self.rev.0;
                self.rev = rev;
                self.newest.send_replace(rev);
                for (reply, answer) in replies.into_iter().zip(answers) {
                    drop(reply.send(answer));
                }
            }
            Err(error) => {
                if let KvError::Unknown(why) = &error {
                    tracing::error!("the store cannot write any more: {why}");
                    self.poisoned = Some(why.clone());
                }
                // None of them was done, or none is known to be.
                for reply in replies {
                    drop(reply.send(Err(match &error {
                        KvError::Unknown(why) => KvError::Unknown(why.clone()),
                        other => KvError::Failed(other.to_string()),
                    })));
                }
            }
        }
    }

    fn compact(&mut self, rev: Rev) -> rusqlite::Result<()> {
        let txn = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let wanted = rev.0.saturating_sub(1).min(self.rev.0);
        if wanted > number(&txn, "compacted")? {
            txn.prepare_cached("DELETE FROM log WHERE rev <= ?1")?.execute([wanted])?;
            set_number(&txn, "compacted", wanted)?;
        }
        txn.commit()
    }
}

/// Writes a group in one commit. `replies` gets all of the group, whatever becomes of it.
fn write(
    db: &mut Connection,
    before: Rev,
    group: Vec<(Vec<Compare>, Vec<Op>, Reply)>,
    replies: &mut Vec<Reply>,
    answers: &mut Vec<Result<Outcome, KvError>>,
) -> Result<Rev, KvError> {
    let mut work = Vec::new();
    for (conditions, changes, reply) in group {
        work.push((conditions, changes));
        replies.push(reply);
    }
    let failed = |error: rusqlite::Error| KvError::Failed(format!("write to the store: {error}"));
    let txn = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let mut rev = before;
    for (conditions, changes) in work {
        let mut done = true;
        for condition in &conditions {
            done = done && holds(&txn, condition).map_err(failed)?;
        }
        if done && apply(&txn, Rev(rev.0 + 1), changes).map_err(failed)? {
            rev = Rev(rev.0 + 1);
        }
        answers.push(Ok(Outcome { done, rev }));
    }
    if rev == before {
        return Ok(rev);
    }
    set_number(&txn, "rev", rev.0).map_err(failed)?;
    txn.commit().map_err(|error| match error.sqlite_error_code() {
        // Rolled back: nothing was done, and the next one may fit.
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => failed(error),
        _ => KvError::Unknown(format!("commit to the store: {error}")),
    })?;
    Ok(rev)
}

fn holds(txn: &Transaction<'_>, condition: &Compare) -> rusqlite::Result<bool> {
    let modified = |key: &str| {
        txn.prepare_cached("SELECT modified FROM kv WHERE key = ?1")?
            .query_row([key], |row| row.get::<_, u64>(0))
            .optional()
    };
    Ok(match condition {
        Compare::Absent(key) => modified(key)?.is_none(),
        Compare::Modified(key, rev) => modified(key)? == Some(rev.0),
    })
}

/// Makes the changes of one transaction; false if there was nothing to change.
fn apply(txn: &Transaction<'_>, rev: Rev, changes: Vec<Op>) -> rusqlite::Result<bool> {
    let mut log = txn.prepare_cached("INSERT INTO log (rev, seq, key, value) VALUES (?1, ?2, ?3, ?4)")?;
    let mut seq = 0;
    for change in changes {
        let logged = match change {
            Op::Put(key, value) => {
                txn.prepare_cached(
                    "INSERT INTO kv (key, value, created, modified) VALUES (?1, ?2, ?3, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3",
                )?
                .execute(params![key, value, rev.0])?;
                log.execute(params![rev.0, seq, key, value])?
            }
            Op::Delete(key) => match txn.prepare_cached("DELETE FROM kv WHERE key = ?1")?.execute([&key])? {
                0 => 0,
                _ => log.execute(params![rev.0, seq, key, None::<Vec<u8>>])?,
            },
        };
        seq += logged;
    }
    Ok(seq > 0)
}

fn entries(db: &mut Connection, range: &KeyRange) -> rusqlite::Result<(Vec<Entry>, Rev)> {
    // One snapshot for the entries and their revision.
    let txn = db.transaction()?;
    let (from, to) = bounds(range);
    let entry = |row: &rusqlite::Row<'_>| {
        let (key, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok(Entry { key: key.into(), value: value.into(), created: Rev(row.get(2)?), modified: Rev(row.get(3)?) })
    };
    const COLUMNS: &str = "SELECT key, value, created, modified FROM kv WHERE";
    let found = match to {
        None => txn.prepare_cached(&format!("{COLUMNS} key = ?1"))?.query_map([from], entry)?.collect(),
        Some(to) => txn
            .prepare_cached(&format!("{COLUMNS} key >= ?1 AND key < ?2 ORDER BY key"))?
            .query_map([from, to], entry)?
            .collect::<rusqlite::Result<Vec<_>>>(),
    };
    Ok((found?, Rev(number(&txn, "rev")?)))
}

impl Kv for SqliteKv {
    fn range(&self, range: KeyRange) -> Answer<'_, (Vec<Entry>, Rev)> {
        // Microseconds from a warm cache: not worth a trip to another thread.
        let mut db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let read = entries(&mut db, &range).map_err(|error| KvError::Failed(format!("read the store: {error}")));
        Box::pin(std::future::ready(read))
    }

    fn txn(&self, conditions: Vec<Compare>, changes: Vec<Op>) -> Answer<'_, Outcome> {
        Box::pin(async move {
            check(&conditions, &changes)?;
            self.order(|reply| Order::Txn(conditions, changes, reply)).await
        })
    }

    fn watch(&self, range: KeyRange, from: Rev) -> Box<dyn Watch> {
        let (reader, newest) = (Arc::clone(&self.reader), self.newest.clone());
        Box::new(SqliteWatch { reader, range, from, newest, pending: VecDeque::new() })
    }

    fn compact(&self, rev: Rev) -> Answer<'_, ()> {
        Box::pin(self.order(move |reply| Order::Compact(rev, reply)))
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

struct SqliteWatch {
    reader: Arc<Mutex<Connection>>,
    range: KeyRange,
    from: Rev,
    newest: watch::Receiver<Rev>,
    pending: VecDeque<WatchMsg>,
}

/// Revisions that a watch reads at a time.
const READ: u64 = 256;

impl SqliteWatch {
    fn look(&mut self) -> rusqlite::Result<()> {
        let mut db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let txn = db.transaction()?;
        let (compacted, newest) = (number(&txn, "compacted")?, number(&txn, "rev")?);
        if self.from.0 < compacted {
            self.pending.push_back(WatchMsg::Compacted(Rev(compacted)));
            return Ok(());
        }
        let (first, end) = bounds(&self.range);
        let end = end.unwrap_or_else(|| format!("{first}\0"));
        while self.from.0 < newest && self.pending.is_empty() {
            let until = newest.min(self.from.0 + READ);
            let mut statement = txn.prepare_cached(
                "SELECT rev, key, value FROM log WHERE rev > ?1 AND rev <= ?2 AND key >= ?3 AND key < ?4 ORDER BY rev, seq",
            )?;
            let mut rows = statement.query(params![self.from.0, until, first, end])?;
            let mut batch: Option<(Rev, Vec<Changed>)> = None;
            while let Some(row) = rows.next()? {
                let (rev, key, value): (u64, String, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if batch.as_ref().is_some_and(|(current, _)| current.0 != rev) {
                    self.pending.extend(batch.take().map(|(rev, changes)| WatchMsg::Batch(rev, changes)));
                }
                let (_, changes) = batch.get_or_insert_with(|| (Rev(rev), Vec::new()));
                changes.push((key.into(), value.map(Into::into)));
            }
            self.pending.extend(batch.map(|(rev, changes)| WatchMsg::Batch(rev, changes)));
            self.from = Rev(until);
        }
        Ok(())
    }
}

impl Watch for SqliteWatch {
    fn next(&mut self) -> Answer<'_, WatchMsg> {
        Box::pin(async move {
            loop {
                if let Some(message) = self.pending.pop_front() {
                    return Ok(message);
                }
                self.newest.borrow_and_update();
                self.look().map_err(|error| KvError::Failed(format!("read changes from the store: {error}")))?;
                if self.pending.is_empty() {
                    let ended = |_| KvError::Failed("watch a store that has ended".into());
                    self.newest.changed().await.map_err(ended)?;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    #[tokio::test]
    async fn a_backup_is_a_store_of_a_later_generation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("store.db"), dir.path().join("copy.db"));
        let store = SqliteKv::open(&path).unwrap();
        let put = async |value: &str| {
            store.txn(Vec::new(), vec![Op::Put("k".into(), value.as_bytes().to_vec())]).await.unwrap();
        };
        put("one").await;
        backup(&path, &copy).unwrap();
        assert!(backup(&path, &copy).is_err(), "what is there is not overwritten");
        put("two").await;
        prepare(&copy, store.generation()).unwrap();
        let other = SqliteKv::open(&copy).unwrap();
        let (entries, _) = other.range(KeyRange::Key("k".into())).await.unwrap();
        assert_eq!(*entries[0].value, *b"one");
        assert_eq!((store.generation(), other.generation(), generation_of(&path)), (1, 2, 1));
        drop(other);
        let damaged = dir.path().join("damaged.db");
        std::fs::write(&damaged, "no database at all, but long enough to be looked at").unwrap();
        assert!(prepare(&damaged, 1).is_err() && generation_of(&damaged) == 0);
    }

    use crate::contract;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dirs = StdMutex::new(Vec::new());
        contract::all(|| async {
            let dir = tempfile::tempdir().unwrap();
            let kv = SqliteKv::open(&dir.path().join("kv")).unwrap();
            dirs.lock().unwrap().push(dir);
            kv
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        let kv = SqliteKv::open(&path).unwrap();
        for i in 0..50 {
            let done = kv.txn(Vec::new(), vec![Op::Put(format!("/k{i}"), vec![i])]).await.unwrap();
            assert_eq!(done, Outcome { done: true, rev: Rev(u64::from(i) + 1) });
        }
        drop(kv);
        let kv = SqliteKv::open(&path).unwrap();
        let (entries, rev) = kv.range(KeyRange::Prefix("/k".into())).await.unwrap();
        assert_eq!((entries.len(), rev), (50, Rev(50)));
        let mut watch = kv.watch(KeyRange::Key("/k49".into()), Rev(3));
        assert!(matches!(watch.next().await, Ok(WatchMsg::Batch(Rev(50), _))));
    }

    #[tokio::test]
    async fn many_at_once_share_commits_and_each_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let kv = Arc::new(SqliteKv::open(&dir.path().join("kv")).unwrap());
        let tasks: Vec<_> = (0..500)
            .map(|i| {
                let kv = Arc::clone(&kv);
                tokio::spawn(async move {
                    kv.txn(
                        vec![Compare::Absent("/one".into())],
                        vec![Op::Put("/one".into(), vec![0]), Op::Put(format!("/n{i}"), vec![])],
                    )
                    .await
                    .unwrap()
                })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += usize::from(task.await.unwrap().done);
        }
        assert_eq!(winners, 1);
        assert_eq!(kv.range(KeyRange::Prefix("/".into())).await.unwrap().0.len(), 2);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        drop(SqliteKv::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(SqliteKv::open(&path), Err(OpenError::Newer { found: 99, .. })));
    }
}
