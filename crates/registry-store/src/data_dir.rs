//! Owns the layout of the data directory, and the lock that keeps a second server out of it.
//!
//! ```text
//! <root>/docker/registry/v2/blobs/<alg>/<first 2 hex>/<hex>/data    bytes, as distribution has them
//! <root>/docker/registry/v2/blobs/<alg>/<2>/<hex>/data.<16 hex>     bytes of a digest that was collected before
//! <root>/roadstead/lock                                             held while a server runs
//! <root>/roadstead/meta.sqlite3                                     rows
//! <root>/roadstead/uploads/<id>.<owner>                             uploads in progress
//! <root>/roadstead/quarantine/<hex>.<place>                         files of damaged blobs, for a while
//! <root>/roadstead/admin.sock                                       takes commands while a server runs
//! <root>/roadstead/adopted                                          another server's link files are out of date
//! <root>/roadstead/audit/audit.log                                  who did what; older ones end in .1, .2, ...
//! ```
//!
//! The rows hold password hashes and private keys, so that `roadstead` is made for its owner alone.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use registry_core::{digest::Digest, store::Place};

/// An open data directory. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    is_new: bool,
    _lock: Option<File>,
}

/// The name of a blob's file in the directory of its digest.
fn file_name(place: Place) -> String {
    match place {
        Place::Inline | Place::Canonical => "data".to_owned(),
        Place::Unique(number) => format!("data.{number:016x}"),
    }
}

/// The place that a file's name stands for.
pub(crate) fn place_of(file_name: &str) -> Option<Place> {
    let number = match file_name.strip_prefix("data")? {
        "" => return Some(Place::Canonical),
        rest => rest.strip_prefix('.').filter(|hex| hex.len() == 16)?,
    };
    u64::from_str_radix(number, 16).ok().filter(|number| *number > 1).map(Place::Unique)
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A directory or file of it cannot be made or opened.
    #[error("open data directory {}", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another server has it.
    #[error("data directory {} is in use by another registry process", .0.display())]
    Locked(PathBuf),
}

impl DataDir {
    /// Opens a data directory for the one process that writes to it, making what is missing.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Open { path, source }
        };
        let mut dir = Self { root: root.to_owned(), is_new: false, _lock: None };
        for (path, mode) in [(dir.blobs(), 0o777), (dir.own(), 0o700), (dir.uploads(), 0o777)] {
            dir.is_new |= !path.exists();
            fs::DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(failed(&path))?;
        }
        let path = dir.own().join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
        }
        Ok(Self { _lock: Some(lock), ..dir })
    }

    /// Opens a data directory that nobody may write to meanwhile, to look at it; others may look as
    /// well. Makes nothing, and works where nothing can be written.
    pub fn open_to_read(root: &Path) -> Result<Self, DataDirError> {
        let mut dir = Self::peek(root);
        let path = dir.own().join("lock");
        let failed = |source| DataDirError::Open { path: path.clone(), source };
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // Nobody ever wrote here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(dir),
            Err(error) => return Err(failed(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        dir._lock = Some(lock);
        Ok(dir)
    }

    /// Whether some of the directories were made just now.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where another server keeps what its repositories hold; this one writes there only when the
    /// directory is released.
    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.join("docker/registry/v2/repositories")
    }

    /// Whether blobs here may be named by another server's links, which count.
    pub(crate) fn has_foreign_links(&self) -> bool {
        self.repositories().exists() && !self.marker().exists()
    }

    /// Whether another server's links are here, whether they count or not.
    pub(crate) fn has_links(&self) -> bool {
        self.repositories().read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The file that says that link files are out of date, so that nobody takes them for the truth
    /// when the metadata is lost.
    fn marker(&self) -> PathBuf {
        self.own().join("adopted")
    }

    /// Declares link files out of date, durably, or up to date again.
    pub(crate) fn outdate_links(&self, outdated: bool) -> io::Result<()> {
        let marker = self.marker();
        if outdated {
            fs::write(&marker, "The metadata beside this says what is here; link files are out of date.\n")?;
            File::open(&marker)?.sync_all()?;
        } else {
            match fs::remove_file(&marker) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(self.own())?.sync_all()
    }

    /// Whether there are blobs here that are ours by all appearances: no other server's links.
    pub(crate) fn holds_orphaned_blobs(&self) -> io::Result<bool> {
        if self.has_foreign_links() {
            return Ok(false);
        }
        for algorithm in fs::read_dir(self.blobs())? {
            if fs::read_dir(algorithm?.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the names of the directories durable, before anything below them is promised to be.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let root = &self.root;
        let above = [root.join("docker/registry/v2"), root.join("docker/registry"), root.join("docker")];
        let all = [self.own(), self.blobs(), self.uploads()].into_iter().chain(above).chain([root.clone()]);
        for path in all {
            File::open(&path)?.sync_all()?;
        }
        match root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// A look at a data directory that another process may be serving, without the lock.
    pub fn peek(root: &Path) -> Self {
        Self { root: root.to_owned(), is_new: false, _lock: None }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn own(&self) -> PathBuf {
        self.root.join("roadstead")
    }

    /// The metadata database.
    pub fn metadata(&self) -> PathBuf {
        self.own().join("meta.sqlite3")
    }

    /// Where uploads in progress are.
    pub fn uploads(&self) -> PathBuf {
        self.own().join("uploads")
    }

    /// Where files of damaged blobs are kept for a while.
    pub fn quarantine(&self) -> PathBuf {
        self.own().join("quarantine")
    }

    /// The socket of the admin API.
    pub fn admin_socket(&self) -> PathBuf {
        self.own().join("admin.sock")
    }

    /// The directory of the audit log.
    pub fn audit(&self) -> PathBuf {
        self.own().join("audit")
    }

    /// Whether another registry server has left images here that no row of ours knows: a
    /// repository, and no metadata yet or any more.
    pub fn looks_foreign(&self) -> bool {
        !self.metadata().exists() && self.has_links()
    }

    /// Where blobs are.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("docker/registry/v2/blobs")
    }

    /// The directories of a blob from the outermost: algorithm, fan-out, its own.
    pub(crate) fn blob_dirs(&self, digest: &Digest) -> [PathBuf; 3] {
        let hex = digest.hex();
        let algorithm = self.blobs().join(digest.algorithm().as_str());
        let fan_out = algorithm.join(&hex[..2]);
        let own = fan_out.join(&hex);
        [algorithm, fan_out, own]
    }

    /// The file of a blob at a place; what is inline will be at the canonical one.
    pub fn blob_at(&self, digest: &Digest, place: Place) -> PathBuf {
        let [_, _, own] = self.blob_dirs(digest);
        own.join(file_name(place))
    }
}
