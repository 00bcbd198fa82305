//! Reads what another registry server keeps in its directories, while it may be writing there.
//!
//! What it writes appears in the order blob, layer link, revision link, tag; so tags are read first
//! and blobs last, and nothing is found that names something newer than what was read.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use registry_core::{
    adopt::{Finding, Found, LINK_MAX, LinkFile, Rows, TagFile, Tree},
    digest::{Algorithm, Digest},
    name::{MAX_NAME, RepoName},
};

use super::{Phase, Progress, READERS};
use crate::hash::digest_of;

/// A link that is empty and as young as this may be just being written: version 2 truncates the
/// file before it writes.
const FRESH: Duration = Duration::from_secs(60);
/// How often, and at what distance, such a link is looked at again.
const LOOKS: usize = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The names in a directory; none if there is no such directory.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// The repositories below `root`, in the order of their names, and what is none.
pub(super) fn repositories(root: &Path) -> io::Result<(Vec<RepoName>, Vec<Finding>)> {
    let (mut found, mut odd) = (Vec::new(), Vec::new());
    let mut waiting = vec![String::new()];
    while let Some(above) = waiting.pop() {
        let here = root.join(&above);
        let mut is_repository = false;
        for entry in read_dir(&here)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('_') {
                is_repository |= matches!(name.as_str(), "_layers" | "_manifests");
                continue;
            }
            let path = if above.is_empty() { name } else { format!("{above}/{name}") };
            let mut skip = |reason: &str| odd.push(Finding { path: path.clone(), reason: reason.into() });
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                skip("a symbolic link, which is not followed");
            } else if path.len() > MAX_NAME {
                skip("too long for the name of a repository");
            } else if kind.is_dir() {
                waiting.push(path);
            }
        }
        if is_repository {
            match above.parse() {
                Ok(name) => found.push(name),
                Err(error) => odd.push(Finding { path: above, reason: format!("{error}") }),
            }
        }
    }
    found.sort_unstable();
    Ok((found, odd))
}

/// The entries of a directory; none if it is gone by now.
fn read_dir(path: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<fs::DirEntry>>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(error),
    }
}

/// What the tree has of a repository. Links whose names the rows hold are not read again.
pub(super) fn repository(path: &Path, rows: &Rows) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let tags = path.join("_manifests/tags");
    for name in names(&tags)? {
        let tag = tags.join(&name);
        let current = tag.join("current/link");
        let at = fs::metadata(&current).map_or(0, |file| file.mtime());
        let mut index = Vec::new();
        for_each_digest(&tag.join("index"), |_, name| index.push(name))?;
        tree.tags.push(TagFile { name, current: read_link(&current), at, index });
    }
    tree.revisions = links(&path.join("_manifests/revisions"), &rows.manifests)?;
    tree.layers = links(&path.join("_layers"), &rows.links)?;
    Ok(tree)
}

fn for_each_digest(folder: &Path, mut each: impl FnMut(PathBuf, String)) -> io::Result<()> {
    for algorithm in names(folder)? {
        let below = folder.join(&algorithm);
        for hex in names(&below)? {
            each(below.join(&hex), format!("{algorithm}:{hex}"));
        }
    }
    Ok(())
}

fn links(folder: &Path, known: &BTreeSet<Digest>) -> io::Result<Vec<LinkFile>> {
    let mut links = Vec::new();
    for_each_digest(folder, |path, name| {
        let path = path.join("link");
        let is_known = name.parse().is_ok_and(|digest| known.contains(&digest));
        let found = match fs::metadata(&path) {
            Ok(file) if is_known && file.is_file() && file.len() > 0 => Found::Known,
            _ => read_link(&path),
        };
        links.push(LinkFile { name, found });
    })?;
    Ok(links)
}

/// Reads a link file; looks again at one that may be just being written.
fn read_link(path: &Path) -> Found {
    for look in 1.. {
        let mut content = Vec::new();
        // A pipe in this place must not hold us up.
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let read = opened.and_then(|file| {
            (&file).take(LINK_MAX as u64).read_to_end(&mut content)?;
            file.metadata()?.modified()
        });
        match read {
            Ok(modified) if content.is_empty() && look < LOOKS => {
                let age = SystemTime::now().duration_since(modified).unwrap_or_default();
                if age > FRESH {
                    break;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            Ok(_) => return Found::Content(content),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Found::Absent;
            }
            Err(error) => return Found::Unreadable(error.to_string()),
        }
    }
    Found::Content(Vec::new())
}

/// The size of a blob's file; `None` if there is none, or if it is empty and must not be.
fn size_of(path: &Path, digest: &Digest) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(file) if !file.is_file() => Ok(None),
        Ok(file) if file.len() == 0 && digest_of(digest.algorithm(), b"") != *digest => Ok(None),
        Ok(file) => Ok(Some(file.len())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The blobs of a tree, with their sizes.
pub(super) struct BlobFiles {
    root: PathBuf,
    sizes: HashMap<Digest, u64>,
}

impl BlobFiles {
    /// Lists the files below `root`; what is odd there goes to `odd`.
    pub(super) fn list(root: &Path, odd: &mut dyn FnMut(Finding), progress: &Progress) -> io::Result<Self> {
        progress.start(Phase::Blobs, 0);
        let mut digests = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let above = root.join(algorithm.as_str());
            for fan_out in names(&above)? {
                for hex in names(&above.join(&fan_out))? {
                    match format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() {
                        Ok(digest) if hex.starts_with(&fan_out) && fan_out.len() == 2 => digests.push(digest),
                        _ => odd(Finding {
                            path: format!("{}/{fan_out}/{hex}", algorithm.as_str()),
                            reason: "not the place of a blob".into(),
                        }),
                    }
                }
            }
        }
        progress.start(Phase::Sizes, digests.len() as u64);
        let files = Self { root: root.to_owned(), sizes: HashMap::new() };
        let (sizes, empty) = (Mutex::new(HashMap::with_capacity(digests.len())), Mutex::new(Vec::new()));
        let turn = AtomicUsize::new(0);
        let work = || -> io::Result<()> {
            loop {
                let from = turn.fetch_add(512, Ordering::Relaxed);
                let Some(part) = digests.get(from..digests.len().min(from + 512)).filter(|part| !part.is_empty())
                else {
                    return Ok(());
                };
                for digest in part {
                    let path = files.path(digest);
                    match size_of(&path, digest)? {
                        Some(size) => {
                            sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, size);
                        }
                        None if path.exists() => {
                            empty.lock().unwrap_or_else(PoisonError::into_inner).push(*digest);
                        }
                        None => {}
                    }
                }
                progress.add(part.len() as u64);
            }
        };
        std::thread::scope(|scope| -> io::Result<()> {
            let workers: Vec<_> = (0..READERS).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                worker.join().map_err(|_| io::Error::other("a reading thread panicked"))??;
            }
            Ok(())
        })?;
        for digest in empty.into_inner().unwrap_or_else(PoisonError::into_inner) {
            odd(Finding {
                path: format!("{}/{}/{}/data", digest.algorithm().as_str(), &digest.hex()[..2], digest.hex()),
                reason: "the file is empty: the blob counts as missing".into(),
            });
        }
        Ok(Self { sizes: sizes.into_inner().unwrap_or_else(PoisonError::into_inner), ..files })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(format!("{}/{}/{hex}/data", digest.algorithm().as_str(), &hex[..2]))
    }

    /// The size of a blob, also of one that came after the list was made.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.sizes.get(digest).copied().or_else(|| size_of(&self.path(digest), digest).ok().flatten())
    }

    /// All of the list.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Digest, &u64)> {
        self.sizes.iter()
    }

    /// Reads a blob that has `size` bytes or fewer.
    pub(super) fn read(&self, digest: &Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default().min(1 << 20));
        File::open(self.path(digest))?.take(size + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Lets a blob be found under another digest of the same bytes as well, durably, by a second
    /// name of its file.
    pub(super) fn alias(&self, target: &Digest, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        let own = path.parent().expect("a blob's file is in a directory");
        fs::create_dir_all(own)?;
        match fs::hard_link(self.path(target), &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // From the innermost directory, with the new name, to the one that all are in.
        for dir in own.ancestors().take(4) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}
