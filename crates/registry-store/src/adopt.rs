//! Owns taking over the data directory of another registry server, and giving one back.
//!
//! No blob is copied or read: rows are made for the files that are there. Only manifests are read.
//! An adoption compares the tree with the rows, so that it can be run again: after a crash, and
//! while the other server goes on writing. What is to be done is decided in
//! `registry_core::adopt`; what rows look like is `meta::adoption`'s.

mod release;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use registry_core::{
    adopt::{Denial, Finding, Mode, Named, Next, State, Tags, Wish, incomplete, next, schema_1, survey, tags},
    digest::Digest,
    manifest::{Link, Manifest, ManifestError, parse},
    name::RepoName,
    store::StoreError,
};
use tokio::sync::mpsc;

pub use self::release::{Released, release};
pub use crate::meta::adoption::Totals;
use crate::{
    adopt::tree::BlobFiles,
    data_dir::DataDir,
    hash::digest_of,
    meta::{
        adoption::{self, Step},
        sqlite::SqliteMetadata,
    },
};

/// Threads that read.
const READERS: usize = 2;
/// Steps that are handed to the writer together.
const BATCH: usize = 256;
/// Steps of a transaction.
const TRANSACTION: usize = 4096;
/// Batches that wait for the writer.
const QUEUE: usize = 32;
/// Findings that are kept; more are only counted.
const FINDINGS: usize = 10_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Blobs are listed.
    Blobs,
    /// The sizes of blobs are looked at.
    Sizes,
    /// Repositories are read.
    Repositories,
    /// What no repository names is looked for.
    Unnamed,
    /// Small objects are moved to their files.
    Settling,
    /// Link files are written.
    Links,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Blobs, Self::Sizes, Self::Repositories, Self::Unnamed, Self::Settling, Self::Links];

    /// What is being done, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blobs => "listing blobs",
            Self::Sizes => "looking at blobs",
            Self::Repositories => "reading repositories",
            Self::Unnamed => "looking for blobs that no repository names",
            Self::Settling => "moving small objects to their files",
            Self::Links => "writing link files",
        }
    }
}

/// How far the work is; to be looked at from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicUsize,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    fn start(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as usize, Ordering::Relaxed);
    }

    fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// What is being done, how many of its things are done, and of how many; 0 if that is not
    /// known.
    pub fn now(&self) -> (Phase, u64, u64) {
        let phase = Phase::ALL[self.phase.load(Ordering::Relaxed).min(Phase::ALL.len() - 1)];
        (phase, self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Blobs that repositories hold, each counted in each.
    pub blobs: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
}

/// What an adoption did, and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What there is now.
    pub totals: Totals,
    /// What was new; a tag that moved is one.
    pub added: Changes,
    /// What the other server had removed.
    pub removed: Changes,
    /// Blobs that no repository names: the collection removes them after the grace period.
    pub unnamed: u64,
    /// What was left out, by path below `docker/registry/v2`, sorted.
    pub skipped: Vec<Finding>,
    /// What is adopted and odd.
    pub warnings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

/// Why a directory is not adopted or released.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It does not fit what the directory is.
    #[error("data directory {}: {denial}", .root.display())]
    Denied {
        /// Which.
        root: PathBuf,
        /// Why.
        denial: Denial,
    },
    /// Its files or rows fail.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What has to be done before `wish` with a directory, or why not.
pub fn stand(metadata: &SqliteMetadata, dir: &DataDir, wish: Wish) -> Result<Next, AdoptError> {
    let standing = metadata.query(|db| adoption::standing(db, dir.has_links()))?;
    match next(wish, standing) {
        Next::Refuse(denial) => Err(AdoptError::Denied { root: dir.root().to_owned(), denial }),
        next => Ok(next),
    }
}

/// Declares whose the directory is, in the order that a crash may cut: what follows is never lost.
async fn declare(metadata: &SqliteMetadata, dir: &DataDir, state: State) -> Result<(), StoreError> {
    let mark =
        |outdated| dir.outdate_links(outdated).map_err(|error| StoreError::io("mark whether link files count", error));
    if state == State::Own {
        mark(true)?;
    }
    metadata.change(move |db| adoption::set_state(db, state)).await?;
    if state == State::Own { Ok(()) } else { mark(false) }
}

/// Makes the rows say what the tree says; `state` is what the directory is afterwards. The caller
/// holds its lock. Manifests of more than `limit` bytes are left out.
///
/// A crash, or dropping the future, leaves a part of it done: run it again.
pub async fn adopt(
    metadata: &Arc<SqliteMetadata>,
    dir: &DataDir,
    mode: Mode,
    state: State,
    limit: u64,
    progress: &Arc<Progress>,
) -> Result<Report, StoreError> {
    if mode == Mode::Mirror {
        // From now on rows that are not in the tree are not taken for our own.
        declare(metadata, dir, State::Following).await?;
    }
    metadata.change(adoption::begin).await?;
    let (send, mut steps) = mpsc::channel(QUEUE);
    let findings = Arc::new(Findings::default());
    let reading = {
        let (metadata, progress, findings) = (Arc::clone(metadata), Arc::clone(progress), Arc::clone(&findings));
        let (blobs, repositories) = (dir.blobs(), dir.repositories());
        move || {
            let files = BlobFiles::list(&blobs, &mut |odd| findings.skip("blobs", odd), &progress)
                .map_err(|error| StoreError::io("list the blobs", error))?;
            Reading { metadata: &metadata, repositories, files: &files, mode, limit, findings: &findings, send }
                .run(&progress)?;
            Ok::<_, StoreError>(files)
        }
    };
    let reading = tokio::task::spawn_blocking(reading);
    let (mut added, mut removed) = (Changes::default(), Changes::default());
    let (mut batch, mut gathered) = (Vec::new(), 0);
    loop {
        let next: Option<(RepoName, Vec<Step>)> = steps.recv().await;
        let last = next.is_none();
        if let Some((name, steps)) = next {
            steps.iter().for_each(|step| step.count(&mut added, &mut removed));
            gathered += steps.len();
            batch.push((name, steps));
        }
        if gathered >= TRANSACTION || (last && gathered > 0) {
            let batch = std::mem::take(&mut batch);
            gathered = 0;
            metadata.change(move |db| adoption::take(db, &batch)).await?;
        }
        if last {
            break;
        }
    }
    let failed = |source: tokio::task::JoinError| StoreError::Failed {
        operation: "take over the other registry's files".into(),
        source: source.into(),
    };
    let files = reading.await.map_err(failed)??;
    let unnamed = compare_files(metadata, &files, mode, progress).await?;
    // The other server does not sync all that it writes; from here on rows promise that it is there.
    let blobs = dir.blobs();
    let sync = move || rustix::fs::syncfs(std::fs::File::open(&blobs)?).map_err(io::Error::from);
    let synced = tokio::task::spawn_blocking(sync).await.map_err(failed)?;
    synced.map_err(|error| StoreError::io("sync the blobs", error))?;
    declare(metadata, dir, state).await?;
    let totals = metadata.query(adoption::totals)?;
    let Kept { mut skipped, mut warnings, more } = findings.take();
    skipped.sort_unstable();
    warnings.sort_unstable();
    Ok(Report { totals, added, removed, unnamed, skipped, warnings, more })
}

/// Gives files that no repository names a row, and takes rows away whose files are gone. Returns
/// how many of the first there are.
async fn compare_files(
    metadata: &SqliteMetadata,
    files: &BlobFiles,
    mode: Mode,
    progress: &Progress,
) -> Result<u64, StoreError> {
    let rows = metadata.query(adoption::canonical_blobs)?;
    progress.start(Phase::Unnamed, rows.len() as u64);
    let named: HashSet<Digest> = rows.into_iter().collect();
    if mode == Mode::Mirror {
        let gone: Vec<Digest> = named.iter().filter(|digest| files.size(digest).is_none()).copied().collect();
        for part in gone.chunks(TRANSACTION) {
            let part = part.to_vec();
            metadata.change(move |db| adoption::forget(db, &part)).await?;
        }
    }
    let new: Vec<(Digest, u64)> =
        files.iter().filter(|(digest, _)| !named.contains(digest)).map(|(digest, size)| (*digest, *size)).collect();
    let mut unnamed = 0;
    for part in new.chunks(TRANSACTION) {
        let part = part.to_vec();
        unnamed += metadata.change(move |db| adoption::take_unnamed(db, &part)).await?;
    }
    Ok(unnamed)
}

impl Step {
    fn count(&self, added: &mut Changes, removed: &mut Changes) {
        let counter = match self {
            Self::Link(_) => &mut added.blobs,
            Self::Manifest(..) => &mut added.manifests,
            Self::SetTag(..) => &mut added.tags,
            Self::Unlink(_) => &mut removed.blobs,
            Self::DeleteManifest(_) => &mut removed.manifests,
            Self::DeleteTag(_) => &mut removed.tags,
        };
        *counter += 1;
    }
}

#[derive(Default)]
struct Kept {
    skipped: Vec<Finding>,
    warnings: Vec<Finding>,
    more: u64,
}

/// What the reading threads find, within bounds.
#[derive(Default)]
struct Findings(Mutex<Kept>);

impl Findings {
    fn keep(&self, folder: &str, finding: Finding, list: fn(&mut Kept) -> &mut Vec<Finding>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list(&mut kept).len() < FINDINGS {
            list(&mut kept).push(Finding { path: format!("{folder}/{}", finding.path), ..finding });
        } else {
            kept.more += 1;
        }
    }

    fn skip(&self, folder: &str, finding: Finding) {
        self.keep(folder, finding, |kept| &mut kept.skipped);
    }

    fn warn(&self, folder: &str, finding: Finding) {
        self.keep(folder, finding, |kept| &mut kept.warnings);
    }

    fn take(&self) -> Kept {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the reading threads work with.
struct Reading<'a> {
    metadata: &'a SqliteMetadata,
    repositories: PathBuf,
    files: &'a BlobFiles,
    mode: Mode,
    limit: u64,
    findings: &'a Findings,
    send: mpsc::Sender<(RepoName, Vec<Step>)>,
}

/// Why reading ended early.
enum Ended {
    Failed(StoreError),
    /// The writer has failed, and tells.
    Unwanted,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Reading<'_> {
    /// Reads all repositories, those of the rows as well: the tree may have lost them.
    fn run(&self, progress: &Progress) -> Result<(), StoreError> {
        let (mut names, odd) =
            tree::repositories(&self.repositories).map_err(|error| StoreError::io("list the repositories", error))?;
        odd.into_iter().for_each(|odd| self.findings.skip("repositories", odd));
        if self.mode == Mode::Mirror {
            names.extend(self.metadata.query(adoption::repositories)?);
            names.sort_unstable();
            names.dedup();
        }
        progress.start(Phase::Repositories, names.len() as u64);
        let turn = AtomicUsize::new(0);
        let work = || {
            while let Some(name) = names.get(turn.fetch_add(1, Ordering::Relaxed)) {
                match self.repository(name) {
                    Ok(()) => progress.add(1),
                    Err(Ended::Failed(error)) => return Err(error),
                    Err(Ended::Unwanted) => return Ok(()),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..READERS).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                let panicked = |_| StoreError::io("read repositories", io::Error::other("a thread panicked"));
                worker.join().map_err(panicked)?
            })
        })
    }

    fn hand_over(&self, name: &RepoName, steps: impl IntoIterator<Item = Step>) -> Result<(), Ended> {
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let batch = steps.by_ref().take(BATCH).collect();
            self.send.blocking_send((name.clone(), batch)).map_err(|_| Ended::Unwanted)?;
        }
        Ok(())
    }

    fn repository(&self, name: &RepoName) -> Result<(), Ended> {
        let folder = format!("repositories/{name}");
        let skip = |finding| self.findings.skip(&folder, finding);
        let rows = self.metadata.query(|db| adoption::rows(db, name))?;
        let tree = tree::repository(&self.repositories.join(name.as_str()), &rows)
            .map_err(|error| StoreError::io(format!("read repository {name}"), error))?;
        let mut plan = survey(&tree, &rows, &mut |digest| self.files.size(digest), self.limit, self.mode);
        plan.skipped.drain(..).for_each(skip);
        for list in [&mut plan.link, &mut plan.read] {
            list.retain(|named| self.has_own_file(&folder, named));
        }
        let links: BTreeMap<Digest, u64> = plan.link.iter().map(|named| (named.digest, named.size)).collect();
        self.hand_over(name, plan.link.into_iter().map(Step::Link))?;

        let tagged: BTreeSet<&[u8]> = tree.tags.iter().filter_map(|tag| tag.current.content()).collect();
        let mut manifests = plan.keep;
        let mut references = Vec::new();
        let mut batch = Vec::new();
        for named in plan.read {
            match self.manifest(&named) {
                Ok(manifest) => {
                    manifests.insert(named.digest);
                    references.push((named.digest, manifest.links.clone()));
                    let tagged = tagged.contains(named.digest.to_string().as_bytes());
                    batch.push(Step::Manifest(named, Box::new(manifest), tagged));
                    if batch.len() == BATCH {
                        self.hand_over(name, batch.drain(..))?;
                    }
                }
                Err(reason) => skip(Finding { path: format!("manifest {}", named.digest), reason }),
            }
        }
        self.hand_over(name, batch)?;
        self.warn_of_gaps(&folder, &references, &manifests, |digest| {
            let held = links.get(digest).copied();
            held.or_else(|| rows.links.contains(digest).then(|| self.files.size(digest)).flatten())
        });

        let Tags { set, delete, skipped } = tags(&tree, &rows, &manifests, self.mode);
        skipped.into_iter().for_each(skip);
        self.hand_over(name, set.into_iter().map(|(tag, digest, at)| Step::SetTag(tag, digest, at)))?;
        self.hand_over(name, delete.into_iter().map(Step::DeleteTag))?;
        self.hand_over(name, plan.delete.into_iter().map(Step::DeleteManifest))?;
        self.hand_over(name, plan.unlink.into_iter().map(Step::Unlink))
    }

    /// What is stored under another digest than it is called by gets a second name.
    fn has_own_file(&self, folder: &str, named: &Named) -> bool {
        if named.digest == named.target {
            return true;
        }
        let made = self.files.alias(&named.target, &named.digest);
        if let Err(error) = &made {
            let reason = format!("its bytes are those of {} and get no second name: {error}", named.target);
            self.findings.skip(folder, Finding { path: format!("blob {}", named.digest), reason });
        }
        made.is_ok()
    }

    /// Reads a manifest, or says why it is none.
    fn manifest(&self, named: &Named) -> Result<Manifest, String> {
        let bytes = self.files.read(&named.target, self.limit).map_err(|error| format!("cannot be read: {error}"))?;
        let actual = digest_of(named.digest.algorithm(), &bytes);
        if actual != named.digest {
            return Err(format!("its bytes are damaged: they have the digest {actual}"));
        }
        match parse(&bytes, None) {
            Ok(manifest) => Ok(manifest),
            Err(ManifestError::Schema1) => schema_1(&bytes).ok_or_else(|| "not a manifest of schema 1".to_owned()),
            Err(error) => {
                Err(std::error::Error::source(&error).map_or(error.to_string(), |cause| format!("{error}: {cause}")))
            }
        }
    }

    fn warn_of_gaps(
        &self,
        folder: &str,
        references: &[(Digest, Vec<Link>)],
        manifests: &BTreeSet<Digest>,
        blob: impl Fn(&Digest) -> Option<u64>,
    ) {
        for (digest, links) in references {
            for reason in incomplete(links, &blob, |child| manifests.contains(child)) {
                self.findings.warn(folder, Finding { path: format!("manifest {digest}"), reason });
            }
        }
    }
}
