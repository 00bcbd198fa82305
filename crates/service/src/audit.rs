//! Owns the audit log: lines of JSON that say who did what, appended to a file that rotates itself.
//!
//! One thread writes. A request never waits for it: what finds no room in its queue is dropped and
//! counted, and a line tells how many were. A change that must not go unseen waits until its line is
//! on the disk. It does not decide what is worth a line, and fields are the caller's own: no secrets.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::StaticFormatDescription, macros::format_description};
use tokio::sync::{mpsc, oneshot};

use crate::telemetry::is_unsafe;

/// Lines that may wait to be written.
const QUEUE: usize = 4096;
/// Most lines between two looks at whether the file is still in its place.
const BATCH: usize = 256;
/// Longest value of a field, in bytes; the rest of it is cut off, and marked with `…`.
const MAX_VALUE: usize = 1024;
/// Most rotated files.
const MAX_FILES: u32 = 1000;
/// A failure is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

const NAME: &str = "audit.log";
const TIME: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Where the log is and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The directory of `audit.log` and the rotated files; made with mode 0700 if it is missing.
    pub directory: PathBuf,
    /// Before a line would make the file longer than this, in bytes, it becomes `audit.log.1`.
    pub max_file_bytes: u64,
    /// Rotated files to keep, `audit.log.1` being the newest; 1 to 1000, others count as the nearest.
    pub keep_files: u32,
}

impl AuditOptions {
    /// Eight rotated files of 16 MiB.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, max_file_bytes: 16 << 20, keep_files: 8 }
    }
}

/// Why there is no audit log, or a line is not in it.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file or its directory cannot be made or opened.
    #[error("open the audit log {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The line could not be written, or not made durable.
    #[error("write the audit log {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log was closed before.
    #[error("write the audit log: it is closed")]
    Closed,
    /// The writing thread cannot be started.
    #[error("start the thread of the audit log")]
    Thread(#[source] io::Error),
}

/// A line in the making: its fields, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Record(String);

impl Record {
    /// A line about `event`, a word like `login.refused`.
    pub fn new(event: &str) -> Self {
        Self(String::with_capacity(256)).with("event", event)
    }

    /// Adds a field, once for each key; `time` is the log's own. Null is left out. What is longer
    /// than a KiB is cut.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::Null => return self,
            Value::String(text) => Value::String(cut(text)),
            other => {
                let text = other.to_string();
                if text.len() > MAX_VALUE { Value::String(cut(text)) } else { other }
            }
        };
        self.0.push(',');
        for text in [Value::from(key).to_string(), ":".to_owned(), value.to_string()] {
            for c in text.chars() {
                // JSON escapes only some of what a terminal obeys. All of these have four digits.
                if is_unsafe(c) {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                } else {
                    self.0.push(c);
                }
            }
        }
        self
    }

    /// The line of something that happens now.
    fn line(&self) -> String {
        let time = OffsetDateTime::now_utc().format(&TIME).expect("a time has all that the format names");
        format!("{{\"time\":\"{time}\"{}}}\n", self.0)
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_VALUE {
        let end = (0..=MAX_VALUE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// An open audit log. Dropping it writes what was recorded.
#[derive(Debug)]
pub struct AuditLog {
    /// Gone while the log is dropped.
    queue: Option<mpsc::Sender<Job>>,
    /// Gone once somebody closes the log.
    thread: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    lost: Arc<AtomicU64>,
}

type Reply = oneshot::Sender<Result<(), AuditError>>;

#[derive(Debug)]
enum Job {
    Line(String, Option<Reply>),
    /// What is recorded later is lost; let go when all else is written.
    Close(oneshot::Sender<()>),
}

impl AuditLog {
    /// Opens the log, makes what is missing, and starts its thread.
    ///
    /// # Errors
    /// The file cannot be opened for writing, or is no regular file.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let (log, writer, queue) = Self::prepare(options, QUEUE)?;
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(queue));
        *log.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread.map_err(AuditError::Thread)?);
        Ok(log)
    }

    fn prepare(options: AuditOptions, room: usize) -> Result<(Self, Writer, mpsc::Receiver<Job>), AuditError> {
        let path = options.directory.join(NAME);
        let file = Some(open(&options.directory).map_err(|source| AuditError::Open { path: path.clone(), source })?);
        let (sender, queue) = mpsc::channel(room);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Self { queue: Some(sender), thread: Mutex::new(None), path, lost: Arc::clone(&lost) };
        Ok((log, Writer { options, file, suspect: false, lost, told: 0, complained: None }, queue))
    }

    fn queue(&self) -> &mpsc::Sender<Job> {
        self.queue.as_ref().expect("the queue lives as long as the log")
    }

    /// Records a line, some time soon, without ever waiting. It is lost if there is no room, if it
    /// cannot be written, or if the machine stops before the kernel wrote it to the disk.
    pub fn record(&self, record: &Record) {
        if self.queue().try_send(Job::Line(record.line(), None)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a line and waits until it is on the disk. If the future is dropped, the line is
    /// written or not.
    ///
    /// # Errors
    /// It could not be written and synced, or the log is closed.
    pub async fn record_durably(&self, record: &Record) -> Result<(), AuditError> {
        let (reply, written) = oneshot::channel();
        let job = Job::Line(record.line(), Some(reply));
        let outcome = match self.queue().send(job).await {
            Ok(()) => written.await.ok(),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| {
            self.lost.fetch_add(1, Ordering::Relaxed);
            Err(AuditError::Closed)
        })
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The file that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what was recorded and syncs it; later lines are lost. Takes as long as the disk does:
    /// whoever wants to end earlier drops the future.
    pub async fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (held, released) = oneshot::channel();
        // Refused only if it has ended already.
        if self.queue().send(Job::Close(held)).await.is_ok() {
            // The thread lets go when it has nothing left to do.
            let _ = released.await;
        }
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the audit log panicked");
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.queue.take();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the audit log panicked");
        }
    }
}

/// The file, open, with what is known of it.
struct Open {
    file: File,
    /// Device and number, to tell it from another file of its name.
    id: (u64, u64),
    size: u64,
    /// Whether the last line has no end: the server or the machine died, or the disk was full.
    torn: bool,
}

fn open(directory: &Path) -> io::Result<Open> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = File::options().read(true).append(true).create(true).mode(0o600).open(directory.join(NAME))?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut last = [b'\n'];
    if found.len() > 0 {
        file.read_exact_at(&mut last, found.len() - 1)?;
    } else {
        // Made just now, by all appearances: its name is durable before a line of it is promised to be.
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        for directory in [Some(directory), parent].into_iter().flatten() {
            File::open(directory)?.sync_all()?;
        }
    }
    Ok(Open { file, id: (found.dev(), found.ino()), size: found.len(), torn: last != [b'\n'] })
}

/// What the thread has.
struct Writer {
    options: AuditOptions,
    file: Option<Open>,
    /// Whether the file failed, so that it is opened anew.
    suspect: bool,
    lost: Arc<AtomicU64>,
    /// How many of the lost lines the log tells of.
    told: u64,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let (mut jobs, mut held) = (Vec::new(), Vec::new());
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let mut lines = Vec::with_capacity(jobs.len());
            for job in jobs.drain(..) {
                match job {
                    Job::Line(line, reply) => lines.push((line, reply)),
                    Job::Close(hold) => {
                        // What is in the queue by now still comes.
                        queue.close();
                        held.push(hold);
                    }
                }
            }
            self.write(lines);
        }
        if let Err(error) = self.sync() {
            self.complain(&error);
        }
    }

    fn write(&mut self, lines: Vec<(String, Option<Reply>)>) {
        self.look_at_the_file();
        let mut waiting = Vec::new();
        for (line, reply) in lines {
            if self.is_full_for(&line) {
                // They wait for the file that goes.
                self.settle(&mut waiting);
                if let Err(error) = self.rotate() {
                    // The lines matter more than the limit.
                    self.complain(&error);
                }
            }
            match self.append(&line) {
                Ok(()) => waiting.extend(reply),
                Err(error) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    self.complain(&error);
                    if let Some(reply) = reply {
                        let _ = reply.send(self.failed(&error));
                    }
                }
            }
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told && !self.suspect {
            let line = Record::new("audit.dropped").with("count", lost - self.told).line();
            match self.append(&line) {
                Ok(()) => self.told = lost,
                Err(error) => self.complain(&error),
            }
        }
        self.settle(&mut waiting);
    }

    /// Lets go of the file if it is not in its place any more, or has failed.
    fn look_at_the_file(&mut self) {
        let suspect = std::mem::take(&mut self.suspect);
        if let Some(open) = &mut self.file {
            match fs::metadata(self.options.directory.join(NAME)) {
                // Somebody may have emptied it.
                Ok(found) if !suspect && (found.dev(), found.ino()) == open.id => open.size = found.len(),
                _ => self.file = None,
            }
        }
    }

    fn file(&mut self) -> io::Result<&mut Open> {
        if self.file.is_none() {
            self.file = Some(open(&self.options.directory)?);
        }
        Ok(self.file.as_mut().expect("it was opened just now"))
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let written = self.file().and_then(|open| {
            let end = if open.torn { "\n" } else { "" };
            let text = format!("{end}{line}");
            let written = open.file.write_all(text.as_bytes());
            match &written {
                Ok(()) => {
                    open.size += text.len() as u64;
                    open.torn = false;
                }
                // Half a line goes again.
                Err(_) => open.torn |= open.file.set_len(open.size).is_err(),
            }
            written
        });
        self.suspect |= written.is_err();
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        let synced = self.file().and_then(|open| open.file.sync_data());
        self.suspect |= synced.is_err();
        synced
    }

    /// Answers those whose lines are written, once they are on the disk.
    fn settle(&mut self, waiting: &mut Vec<Reply>) {
        if waiting.is_empty() {
            return;
        }
        let synced = self.sync();
        if let Err(error) = &synced {
            self.complain(error);
        }
        for reply in waiting.drain(..) {
            let answer = match &synced {
                Ok(()) => Ok(()),
                Err(error) => self.failed(error),
            };
            // Who does not wait any more has what they wanted.
            let _ = reply.send(answer);
        }
    }

    fn is_full_for(&self, line: &str) -> bool {
        let full = |open: &Open| open.size > 0 && open.size + line.len() as u64 > self.options.max_file_bytes;
        self.file.as_ref().is_some_and(full)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let place = |number: u32| self.options.directory.join(format!("{NAME}.{number}"));
        let last = self.options.keep_files.clamp(1, MAX_FILES);
        // Only up to a gap: a try that failed half way leaves one, and the next one moves no more.
        let free = (1..last).find(|number| !place(*number).exists()).unwrap_or(last);
        for number in (1..free).rev() {
            fs::rename(place(number), place(number + 1))?;
        }
        fs::rename(self.options.directory.join(NAME), place(1))?;
        self.file = None;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Result<(), AuditError> {
        // Errors cannot be cloned; each of those who wait gets one of the same meaning.
        let source = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        Err(AuditError::Write { path: self.options.directory.join(NAME), source })
    }

    fn complain(&mut self, error: &io::Error) {
        if is_due(&mut self.complained, Instant::now()) {
            let (file, lost) = (self.options.directory.join(NAME), self.lost.load(Ordering::Relaxed));
            tracing::error!(
                file = %file.display(), %error, lost,
                "the audit log cannot be written: make room or mend its directory; said once a minute"
            );
        }
    }
}

/// Whether it is time to complain, which counts as done then.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests;
