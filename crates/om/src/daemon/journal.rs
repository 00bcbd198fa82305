//! Owns what the daemon tells people about objects and the node: a file of JSON lines that `om logs` reads and follows.
//! Does not own the program's own log, where each line goes as well.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use om_core::path::{NodeName, ObjectPath, Rid};
use tokio::sync::broadcast;
use tracing::{debug, error, info, warn};

use crate::api::LogLine;

/// A file is put aside at this size, in bytes; one old file is kept.
const MAX_FILE: u64 = 8 << 20;
/// The most of a backlog that is read, in bytes.
const MAX_BACKLOG: u64 = 4 << 20;
/// The longest text of a line, in bytes: what an engine said may be any size.
const MAX_TEXT: usize = 4096;
/// Lines that a slow reader may be behind.
const FOLLOWERS: usize = 1024;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something was done.
    Info,
    /// How it was done.
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The journal of this node. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeName,
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
    followers: broadcast::Sender<LogLine>,
}

impl Journal {
    /// Opens the journal in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// The directory or its file cannot be made.
    pub fn open(directory: &Path, node: NodeName) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("journal.log");
        let file = append(&path)?;
        let (followers, _) = broadcast::channel(FOLLOWERS);
        Ok(Self(Arc::new(Inner { node, path, file: Mutex::new(Some(file)), followers })))
    }

    /// Says something about an object, or without one about the node.
    pub fn say(&self, level: Level, object: Option<&ObjectPath>, rid: Option<&Rid>, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        let line = LogLine {
            time: now(),
            node: self.0.node.to_string(),
            level: level.as_str().into(),
            path: object.map(ObjectPath::fqn).unwrap_or_default(),
            rid: rid.map(ToString::to_string),
            text,
        };
        let (path, rid) = (line.path.as_str(), line.rid.as_deref().unwrap_or_default());
        match level {
            Level::Error => error!(object.path = path, rid, "{}", line.text),
            Level::Warn => warn!(object.path = path, rid, "{}", line.text),
            Level::Info => info!(object.path = path, rid, "{}", line.text),
            Level::Debug => debug!(object.path = path, rid, "{}", line.text),
        }
        if let Err(error) = self.write(&line) {
            warn!(%error, "cannot write {}", self.0.path.display());
        }
        // Nobody may be listening.
        let _ = self.0.followers.send(line);
    }

    fn write(&self, line: &LogLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut slot = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(_, size)| size + text.len() as u64 > MAX_FILE) {
            *slot = None;
            if fs::metadata(&self.0.path).is_ok_and(|file| file.len() + text.len() as u64 > MAX_FILE) {
                fs::rename(&self.0.path, old(&self.0.path))?;
            }
            *slot = Some(append(&self.0.path)?);
        }
        if let Some((file, size)) = slot.as_mut() {
            file.write_all(&text)?;
            *size += text.len() as u64;
        }
        Ok(())
    }

    /// The last lines that `wanted` accepts, oldest first: about `bytes` bytes of them. Blocks.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn backlog(&self, bytes: u64, wanted: impl Fn(&LogLine) -> bool) -> io::Result<Vec<LogLine>> {
        let bytes = bytes.min(MAX_BACKLOG);
        let (mut lines, mut taken) = (Vec::new(), 0);
        for path in [self.0.path.clone(), old(&self.0.path)] {
            let text = match tail(&path, MAX_BACKLOG) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            for line in text.split(|byte| *byte == b'\n').rev() {
                // A line that was cut by the end of the machine, or by the limit, is left out.
                let Ok(line) = serde_json::from_slice::<LogLine>(line) else { continue };
                if !wanted(&line) {
                    continue;
                }
                taken += line.text.len() as u64 + 40;
                if taken > bytes {
                    lines.reverse();
                    return Ok(lines);
                }
                lines.push(line);
            }
        }
        lines.reverse();
        Ok(lines)
    }

    /// All lines from now on.
    pub fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.0.followers.subscribe()
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(text)
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_and_found() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("log"), "n1".parse().unwrap()).unwrap();
        let (web, db) = ("test/svc/web".parse().unwrap(), "test/svc/db".parse().unwrap());
        let mut followed = journal.follow();
        journal.say(Level::Info, Some(&web), Some(&"ip#1".parse().unwrap()), "started");
        journal.say(Level::Error, Some(&db), None, "x".repeat(10_000));
        journal.say(Level::Warn, None, None, "no engine");
        let texts = |bytes: u64, path: &str| -> Vec<String> {
            let lines = journal.backlog(bytes, |line| line.path == path).unwrap();
            lines.into_iter().map(|line| line.text).collect()
        };
        assert_eq!(texts(10_000, "test/svc/web"), ["started"]);
        assert_eq!(texts(10_000, ""), ["no engine"]);
        assert_eq!(texts(10_000, "test/svc/db")[0].len(), MAX_TEXT + "…".len());
        assert_eq!(texts(50, "test/svc/db"), Vec::<String>::new());
        assert_eq!(followed.try_recv().unwrap().rid.as_deref(), Some("ip#1"));
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "n1".parse().unwrap()).unwrap();
        let text = "y".repeat(MAX_TEXT);
        for _ in 0..=MAX_FILE / MAX_TEXT as u64 {
            journal.say(Level::Debug, None, None, text.as_str());
        }
        journal.say(Level::Info, None, None, "last");
        let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
        assert!(size("journal.log") < MAX_FILE && size("journal.log.1") <= MAX_FILE);
        assert_eq!(journal.backlog(100, |_| true).unwrap().last().unwrap().text, "last");
    }
}
