//! Blobs as files, in the layout that distribution gives them.
//!
//! A blob becomes durable in this order: its bytes, its new name, the directories that hold the
//! name. Only then may a row be written. Where a directory is new, the one above it is synced as
//! well; who made it does not matter, because whoever made it may not have synced it yet.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io::{self, IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use quick_cache::sync::Cache;
use registry_core::{
    digest::{Algorithm, Digest},
    gc::Purge,
    name::RepoName,
    store::{Answer, BlobReader, Blobs, Commit, Place, Staging, StoreError},
};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    data_dir::{DataDir, place_of},
    disk::{Poison, start_writing, sync_directory, sync_file},
    hash::{Hasher, digest_of},
};

/// How many bytes are gathered before they are hashed and written, while the next are received.
const BATCH: usize = 512 * 1024;
/// How many bytes are written before the kernel is asked to start putting them on the disk.
const WRITE_BEHIND: u64 = 8 * 1024 * 1024;
/// Blobs kept open for reading. Each costs a descriptor.
const OPEN_BLOBS: usize = 512;

/// Blobs in a data directory.
#[derive(Clone)]
pub struct FsBlobs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: DataDir,
    poison: Poison,
    /// Fan-out directories whose own name is known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
    open: Cache<(Digest, Place), Arc<FileReader>>,
}

impl FsBlobs {
    /// Blobs in `dir`. `poison` is shared with the metadata of the same directory.
    pub fn new(dir: DataDir, poison: Poison) -> Self {
        let open = Cache::new(OPEN_BLOBS);
        Self { shared: Arc::new(Shared { dir, poison, durable: Mutex::default(), open }) }
    }

    /// The directory that this keeps blobs in.
    pub(crate) fn dir(&self) -> &DataDir {
        &self.shared.dir
    }

    /// Serves no more from a file that was opened before.
    pub(crate) fn forget(&self, digest: &Digest, place: Place) {
        self.shared.open.remove(&(*digest, place));
    }

    /// The directories that blobs are spread over. Blocks.
    pub(crate) fn fan_outs(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            all.extend(list(&self.shared.dir.blobs().join(algorithm.as_str()))?);
        }
        Ok(all)
    }

    /// The files of blobs in one of the directories, with when each was last renamed or written,
    /// and its size. Other files are passed over. Blocks.
    pub(crate) fn files(&self, fan_out: &Path) -> Result<Vec<(Purge, SystemTime, u64)>, StoreError> {
        let algorithm = fan_out.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let mut files = Vec::new();
        for own in list(fan_out)? {
            let hex = own.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
            for path in list(&own)? {
                let Some(place) = path.file_name().and_then(|name| place_of(&name.to_string_lossy())) else {
                    continue;
                };
                // Gone meanwhile, if it cannot be looked at.
                let Ok(file) = fs::symlink_metadata(&path) else { continue };
                let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(file.ctime()).unwrap_or(0));
                files.push((Purge { digest, place }, changed, file.len()));
            }
        }
        Ok(files)
    }

    /// Removes what is left of copies that a crash cut off, from one of the directories, if it has
    /// not changed for `age`; returns how many there were. Blocks.
    pub(crate) fn remove_leftovers(&self, fan_out: &Path, age: Duration) -> Result<u64, StoreError> {
        let mut removed = 0;
        for own in list(fan_out)? {
            for path in list(&own)? {
                let is_copy = path.extension().is_some_and(|extension| extension == "tmp");
                let old = |path: &Path| {
                    let changed = fs::symlink_metadata(path).and_then(|file| file.modified()).ok()?;
                    SystemTime::now().duration_since(changed).ok().filter(|idle| *idle >= age)
                };
                if is_copy && old(&path).is_some() && fs::remove_file(&path).is_ok() {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Makes the removal of files durable. Blocks.
    pub(crate) fn sync_removed(&self, files: &[Purge]) -> Result<(), StoreError> {
        let fan_outs: BTreeSet<PathBuf> = files
            .iter()
            .map(|file| {
                let [_, fan_out, _] = self.shared.dir.blob_dirs(&file.digest);
                fan_out
            })
            .collect();
        fan_outs.iter().filter(|dir| dir.exists()).try_for_each(|dir| sync_directory(dir, &self.shared.poison))
    }

    /// Writes small objects to their files, durably, names included. Blocks.
    pub(crate) fn write_all(&self, objects: &[(Digest, Bytes, Place)]) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.poison.check()?;
        let staged = |digest: &Digest| shared.dir.uploads().join(format!("settle.{}", digest.hex()));
        let mut files = Vec::with_capacity(objects.len());
        for (digest, bytes, _) in objects {
            let path = staged(digest);
            let failed = |error| StoreError::io(format!("write {}", path.display()), error);
            let mut file = File::create(&path).map_err(failed)?;
            file.write_all(bytes).map_err(failed)?;
            start_writing(&file, 0, 0);
            files.push(file);
        }
        // All are on their way to the disk by now, so that the first sync waits for nearly all.
        for (file, (digest, ..)) in files.iter().zip(objects) {
            sync_file(file, &shared.poison, || format!("sync {digest}"))?;
        }
        drop(files);
        let mut dirs = HashSet::new();
        for (digest, _, place) in objects {
            dirs.extend(shared.put_in_place(&staged(digest), digest, *place)?);
            shared.open.remove(&(*digest, *place));
        }
        dirs.iter().try_for_each(|dir| sync_directory(dir, &shared.poison))
    }
}

impl Shared {
    /// Renames a synced file to a place of its digest; returns the directories to sync next.
    fn put_in_place(&self, staged: &Path, digest: &Digest, place: Place) -> Result<[PathBuf; 2], StoreError> {
        let [algorithm, fan_out, own] = self.dir.blob_dirs(digest);
        let known = |path: &PathBuf| self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        let make = |path: &Path| {
            fs::create_dir_all(path).map_err(|error| StoreError::io(format!("make {}", path.display()), error))
        };
        if !known(&fan_out) {
            make(&fan_out)?;
            sync_directory(&self.dir.blobs(), &self.poison)?;
            sync_directory(&algorithm, &self.poison)?;
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(fan_out.clone());
        }
        make(&own)?;
        let target = self.dir.blob_at(digest, place);
        match fs::rename(staged, &target) {
            Ok(()) => {}
            // The blobs may be a mount of their own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_in_place(staged, &target)?,
            Err(error) => return Err(StoreError::io(format!("rename to {}", target.display()), error)),
        }
        Ok([own, fan_out])
    }

    fn copy_in_place(&self, staged: &Path, target: &Path) -> Result<(), StoreError> {
        // The name of the upload in it keeps two copies of one blob apart.
        let name = staged.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!("new.{name}.tmp"));
        let failed = |error| StoreError::io(format!("copy to {}", target.display()), error);
        let copied = || {
            fs::copy(staged, &temporary).map_err(failed)?;
            let file = File::open(&temporary).map_err(failed)?;
            sync_file(&file, &self.poison, || format!("sync {}", temporary.display()))?;
            fs::rename(&temporary, target).map_err(failed)
        };
        if let Err(error) = copied() {
            fs::remove_file(&temporary).ok();
            return Err(error);
        }
        fs::remove_file(staged).map_err(failed)
    }

    fn upload_path(&self, owner: &RepoName, id: &str) -> PathBuf {
        // The owner is part of the name, so that an upload can only go on where it began.
        let owner = digest_of(Algorithm::Sha256, owner.as_str().as_bytes()).hex();
        self.dir.uploads().join(format!("{id}.{}", &owner[..32]))
    }
}

/// The part of an upload that moves between the request's task and the writing threads.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    size: u64,
    started: u64,
}

impl Writer {
    fn write(&mut self, batch: &[Bytes]) -> Result<(), StoreError> {
        for bytes in batch {
            // At its place, not at the end: nothing else can get in between.
            self.file
                .write_all_at(bytes, self.size)
                .map_err(|error| StoreError::io(format!("write upload {}", self.path.display()), error))?;
            self.hasher.update(bytes);
            self.size += bytes.len() as u64;
        }
        if self.size - self.started >= WRITE_BEHIND {
            start_writing(&self.file, self.started, self.size - self.started);
            self.started = self.size;
        }
        Ok(())
    }

    fn commit(mut self, digest: Digest, place: Place) -> Result<Commit, StoreError> {
        self.shared.poison.check()?;
        // The kernel writes the rest while a digest of the other algorithm is taken.
        start_writing(&self.file, self.started, 0);
        let actual = if self.hasher.algorithm() == digest.algorithm() {
            self.hasher.clone().finish()
        } else {
            self.rehash(digest.algorithm())?
        };
        if actual != digest {
            self.remove();
            return Ok(Commit::Mismatch { actual });
        }
        let whole = self.file.metadata().is_ok_and(|file| file.len() == self.size && file.nlink() == 1);
        if !whole {
            self.remove();
            let source = "its file is not what was written to it".into();
            return Err(StoreError::Failed { operation: format!("commit blob {digest}"), source });
        }
        if let Err(error) = sync_file(&self.file, &self.shared.poison, || format!("sync blob {digest}")) {
            self.remove();
            return Err(error);
        }
        let dirs = match self.shared.put_in_place(&self.path, &digest, place) {
            Ok(dirs) => dirs,
            Err(error) => {
                self.remove();
                return Err(error);
            }
        };
        dirs.iter().try_for_each(|dir| sync_directory(dir, &self.shared.poison))?;
        self.shared.open.remove(&(digest, place));
        Ok(Commit::Stored { place, size: self.size })
    }

    fn rehash(&mut self, algorithm: Algorithm) -> Result<Digest, StoreError> {
        hash_file(&self.path, algorithm).map(Hasher::finish)
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "an abandoned upload stays until the next purge");
        }
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Hasher, StoreError> {
    let failed = |error| StoreError::io(format!("read upload {}", path.display()), error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BATCH];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher),
            length => hasher.update(&buffer[..length]),
        }
    }
}

enum State {
    Idle(Box<Writer>),
    Busy(JoinHandle<(Box<Writer>, Result<(), StoreError>)>),
    /// Committed, thrown away, or failed.
    Over,
}

struct FsStaging {
    state: State,
    batch: Vec<Bytes>,
    gathered: usize,
}

fn over() -> StoreError {
    let cause = io::Error::other("it has failed or ended before");
    StoreError::Failed { operation: "continue the upload".into(), source: cause.into() }
}

async fn join<T>(handle: &mut JoinHandle<T>) -> Result<T, StoreError> {
    handle.await.map_err(|error| StoreError::Failed { operation: "run a storage thread".into(), source: error.into() })
}

impl FsStaging {
    /// The writer once it has nothing to do. Cancel-safe: the running batch is waited for again.
    async fn idle(&mut self) -> Result<Box<Writer>, StoreError> {
        if let State::Busy(handle) = &mut self.state {
            let (writer, result) = match join(handle).await {
                Ok(done) => done,
                Err(error) => {
                    self.state = State::Over;
                    return Err(error);
                }
            };
            match result {
                Ok(()) => self.state = State::Idle(writer),
                Err(error) => {
                    writer.remove();
                    self.state = State::Over;
                    return Err(error);
                }
            }
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(writer) => Ok(writer),
            State::Busy(_) | State::Over => Err(over()),
        }
    }

    async fn start_batch(&mut self) -> Result<(), StoreError> {
        let mut writer = self.idle().await?;
        let batch = std::mem::take(&mut self.batch);
        self.gathered = 0;
        self.state = State::Busy(spawn_blocking(move || {
            let result = writer.write(&batch);
            (writer, result)
        }));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Box<Writer>, StoreError> {
        if !self.batch.is_empty() {
            self.start_batch().await?;
        }
        self.idle().await
    }
}

impl Staging for FsStaging {
    fn append(&mut self, bytes: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            self.gathered += bytes.len();
            self.batch.push(bytes);
            if self.gathered >= BATCH { self.start_batch().await } else { Ok(()) }
        })
    }

    fn flush(&mut self) -> Answer<'_, u64> {
        Box::pin(async move {
            let writer = self.settled().await?;
            let size = writer.size;
            self.state = State::Idle(writer);
            Ok(size)
        })
    }

    fn commit(&mut self, digest: Digest, place: Place) -> Answer<'_, Commit> {
        Box::pin(async move {
            let writer = self.settled().await?;
            join(&mut spawn_blocking(move || writer.commit(digest, place))).await?
        })
    }

    fn discard(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.batch.clear();
            if let Ok(writer) = self.idle().await {
                join(&mut spawn_blocking(move || writer.remove())).await?;
            }
            Ok(())
        })
    }
}

fn list(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(format!("list {}", path.display()), error);
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

struct FileReader {
    file: File,
    size: u64,
}

impl BlobReader for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_now(&self, offset: u64, length: usize) -> Option<io::Result<Bytes>> {
        let mut buffer = vec![0; length];
        let mut done = 0;
        while done < length {
            let slices = &mut [IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.file, slices, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // Not in the page cache, or a file system that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => return None,
                Err(error) => return Some(Err(error.into())),
            }
        }
        Some(Ok(buffer.into()))
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    join(&mut spawn_blocking(work)).await?
}

impl Blobs for FsBlobs {
    fn stage<'a>(&'a self, owner: &'a RepoName, id: &'a str, algorithm: Algorithm) -> Answer<'a, Box<dyn Staging>> {
        let path = self.shared.upload_path(owner, id);
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || {
            shared.poison.check()?;
            let file = File::options()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| StoreError::io(format!("create upload {}", path.display()), error))?;
            let writer = Box::new(Writer { shared, path, file, hasher: Hasher::new(algorithm), size: 0, started: 0 });
            Ok(Box::new(FsStaging { state: State::Idle(writer), batch: Vec::new(), gathered: 0 }) as Box<dyn Staging>)
        }))
    }

    fn resume<'a>(
        &'a self,
        owner: &'a RepoName,
        id: &'a str,
        algorithm: Algorithm,
    ) -> Answer<'a, Option<(Box<dyn Staging>, u64)>> {
        let path = self.shared.upload_path(owner, id);
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || {
            let failed = |error| StoreError::io(format!("open upload {}", path.display()), error);
            let file = match File::options().write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            // The state of the hash died with the process that received the bytes.
            let hasher = hash_file(&path, algorithm)?;
            let size = file.metadata().map_err(failed)?.len();
            let writer = Box::new(Writer { shared, path, file, hasher, size, started: 0 });
            let staging = FsStaging { state: State::Idle(writer), batch: Vec::new(), gathered: 0 };
            Ok(Some((Box::new(staging) as Box<dyn Staging>, size)))
        }))
    }

    fn open<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, Option<Arc<dyn BlobReader>>> {
        if let Some(reader) = self.shared.open.get(&(*digest, *place)) {
            return Box::pin(std::future::ready(Ok(Some(reader as Arc<dyn BlobReader>))));
        }
        let (shared, digest, place) = (Arc::clone(&self.shared), *digest, *place);
        Box::pin(blocking(move || {
            let path = shared.dir.blob_at(&digest, place);
            let failed = |error| StoreError::io(format!("open blob {digest}"), error);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            let size = file.metadata().map_err(failed)?.len();
            let reader = Arc::new(FileReader { file, size });
            shared.open.insert((digest, place), Arc::clone(&reader));
            Ok(Some(reader as Arc<dyn BlobReader>))
        }))
    }

    fn remove<'a>(&'a self, digest: &'a Digest, place: &'a Place) -> Answer<'a, ()> {
        let (shared, digest, place) = (Arc::clone(&self.shared), *digest, *place);
        Box::pin(blocking(move || {
            shared.open.remove(&(digest, place));
            let path = shared.dir.blob_at(&digest, place);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io(format!("remove blob {digest}"), error));
                }
                _ => {}
            }
            let [_, _, own] = shared.dir.blob_dirs(&digest);
            match fs::remove_dir(&own) {
                // The digest has other files, or another one removed it.
                Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {
                    Err(StoreError::io(format!("remove {}", own.display()), error))
                }
                _ => Ok(()),
            }
        }))
    }

    fn purge_uploads(&self, age: Duration, dry_run: bool) -> Answer<'_, Vec<String>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || {
            let uploads = shared.dir.uploads();
            let failed = |error| StoreError::io(format!("purge {}", uploads.display()), error);
            let now = SystemTime::now();
            let mut purged = Vec::new();
            for entry in fs::read_dir(&uploads).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let touched = entry.metadata().and_then(|meta| meta.modified());
                let old = touched.is_ok_and(|at| now.duration_since(at).is_ok_and(|idle| idle >= age));
                if old && (dry_run || fs::remove_file(entry.path()).is_ok()) {
                    purged.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            Ok(purged)
        }))
    }

    fn check(&self) -> Answer<'_, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || {
            let blobs = shared.dir.blobs();
            fs::metadata(&blobs)
                .map(drop)
                .map_err(|error| StoreError::io(format!("look at {}", blobs.display()), error))
        }))
    }
}
