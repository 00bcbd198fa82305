//! Writes link files for everything that the rows hold, so that another registry server can serve
//! the directory.
//!
//! Until the state says `released` the rows are the truth, and this can be run again. Link files
//! are written without a sync each: one of the whole file system comes before the state.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use registry_core::{
    adopt::{Finding, Rows, State},
    digest::Digest,
    gc::{Collection, Purge},
    name::RepoName,
    reference::Tag,
    store::{Place, StoreError},
};

use super::{Phase, Progress, Totals, declare, tree};
use crate::{
    blob::fs::FsBlobs,
    claims::Claims,
    data_dir::DataDir,
    disk::{Poison, sync_directory},
    maintenance::settle,
    meta::{adoption, now, sqlite::SqliteMetadata},
};

/// Objects that move to their files at a time.
const BATCH: usize = 256;
/// Seconds; no object is as much younger than now as this, whatever the clock did.
const ANY_AGE: i64 = -(1 << 40);

/// What a release did.
#[derive(Clone, Debug, Default)]
pub struct Released {
    /// What the directory holds.
    pub totals: Totals,
    /// Link files that were written.
    pub written: u64,
    /// Links that were removed: nothing here backs them.
    pub removed: u64,
    /// What cannot be given back.
    pub skipped: Vec<Finding>,
}

/// Writes the link files. The caller holds the lock of the directory, through `blobs`.
pub async fn release(
    metadata: &Arc<SqliteMetadata>,
    blobs: &FsBlobs,
    progress: &Arc<Progress>,
) -> Result<Released, StoreError> {
    let dir = blobs.dir();
    declare(metadata, dir, State::Own).await?;
    progress.start(Phase::Settling, 0);
    let claims = Claims::default();
    loop {
        match settle(metadata, blobs, &claims, ANY_AGE, BATCH).await? {
            0 => break,
            moved => progress.add(moved as u64),
        }
    }
    let mut released = Released { skipped: canonicalise(metadata, dir).await?, ..Released::default() };
    let work = {
        let (metadata, progress, root) = (Arc::clone(metadata), Arc::clone(progress), dir.root().to_owned());
        move || write_all(&metadata, &DataDir::peek(&root), &progress)
    };
    (released.written, released.removed) = blocking(work).await?;
    declare(metadata, dir, State::Released).await?;
    released.totals = metadata.query(adoption::totals)?;
    Ok(released)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| StoreError::Failed { operation: "write link files".into(), source: source.into() })?
}

/// Gives every blob its canonical file; returns those that cannot have it.
async fn canonicalise(metadata: &SqliteMetadata, dir: &DataDir) -> Result<Vec<Finding>, StoreError> {
    let (mut after, mut skipped) = (None, Vec::new());
    loop {
        let found = metadata.query(|db| adoption::numbered(db, after.as_ref(), BATCH))?;
        let Some((last, _)) = found.last() else { return Ok(skipped) };
        after = Some(*last);
        let moving = {
            let dir = DataDir::peek(dir.root());
            move || {
                let (mut moved, mut lost) = (Vec::new(), Vec::new());
                for (digest, place) in found {
                    let failed = |error| StoreError::io(format!("name the file of blob {digest}"), error);
                    match name_canonically(&dir, &digest, place) {
                        Ok(()) => moved.push((digest, place)),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => lost.push(digest),
                        Err(error) => return Err(failed(error)),
                    }
                }
                let dirs: BTreeSet<PathBuf> = moved
                    .iter()
                    .map(|(digest, _)| {
                        let [_, _, own] = dir.blob_dirs(digest);
                        own
                    })
                    .collect();
                dirs.iter().try_for_each(|dir| sync_directory(dir, &Poison::default()))?;
                Ok((moved, lost))
            }
        };
        let (moved, lost) = blocking(moving).await?;
        skipped.extend(
            lost.into_iter()
                .map(|digest| Finding { path: format!("blob {digest}"), reason: "its file is missing".into() }),
        );
        let files: Vec<Purge> = moved.iter().map(|(digest, place)| Purge { digest: *digest, place: *place }).collect();
        metadata.change(move |db| adoption::moved(db, &moved)).await?;
        for file in &files {
            // A second name of the same bytes; one that stays is removed by the next collection.
            fs::remove_file(dir.blob_at(&file.digest, file.place)).ok();
        }
        metadata.purged(now(), files).await?;
    }
}

/// Gives a file the canonical name in addition to its own.
fn name_canonically(dir: &DataDir, digest: &Digest, place: Place) -> io::Result<()> {
    let (own, canonical) = (dir.blob_at(digest, place), dir.blob_at(digest, Place::Canonical));
    let new = canonical.with_extension("release.tmp");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    match fs::hard_link(&own, &new) {
        // A file system without second names.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            fs::copy(&own, &new)?;
            File::open(&new)?.sync_all()?;
        }
        other => other?,
    }
    fs::rename(&new, &canonical)
}

/// Writes the links of all repositories; returns how many were written and removed.
fn write_all(metadata: &SqliteMetadata, dir: &DataDir, progress: &Progress) -> Result<(u64, u64), StoreError> {
    let root = dir.repositories();
    let failed = |error| StoreError::io(format!("write link files below {}", root.display()), error);
    fs::create_dir_all(&root).map_err(failed)?;
    let (mut names, _) = tree::repositories(&root).map_err(failed)?;
    names.extend(metadata.query(adoption::repositories)?);
    names.sort_unstable();
    names.dedup();
    progress.start(Phase::Links, names.len() as u64);
    let mut links = Links { written: 0, removed: 0 };
    for name in &names {
        let (rows, past) = metadata.query(|db| Ok((adoption::rows(db, name)?, adoption::past(db, name)?)))?;
        links
            .repository(&root, name, &rows, &past)
            .map_err(|error| StoreError::io(format!("write the link files of {name}"), error))?;
        progress.add(1);
    }
    let above = root.parent().unwrap_or(&root);
    for path in [&root, above] {
        let opened = File::open(path).map_err(failed)?;
        rustix::fs::syncfs(&opened).map_err(|error| failed(error.into()))?;
    }
    Ok((links.written, links.removed))
}

struct Links {
    written: u64,
    removed: u64,
}

impl Links {
    fn repository(
        &mut self,
        root: &Path,
        name: &RepoName,
        rows: &Rows,
        past: &HashMap<Tag, Vec<Digest>>,
    ) -> io::Result<()> {
        let repository = root.join(name.as_str());
        let manifests = repository.join("_manifests");
        let tags = manifests.join("tags");
        self.folder(&repository.join("_layers"), &rows.links)?;
        self.folder(&manifests.join("revisions"), &rows.manifests)?;
        for name in tree::names(&tags)? {
            if !name.parse().is_ok_and(|tag: Tag| rows.tags.contains_key(&tag)) {
                self.remove(&tags.join(&name))?;
            }
        }
        for (tag, digest) in &rows.tags {
            let tag_dir = tags.join(tag.as_str());
            let index = past.get(tag).into_iter().flatten().chain([digest]).copied().collect();
            self.folder(&tag_dir.join("index"), &index)?;
            self.link(&tag_dir.join("current"), digest)?;
        }
        if rows.manifests.is_empty() {
            // A repository without manifests is in no catalog here, and there if this is left.
            if manifests.exists() {
                fs::remove_dir_all(&manifests)?;
            }
            if rows.links.is_empty() {
                fs::remove_dir_all(repository.join("_layers")).ok();
                // Unless it has something else, such as uploads or repositories below it.
                fs::remove_dir(&repository).ok();
            }
        } else {
            // The other server takes a missing folder for a missing repository.
            fs::create_dir_all(&tags)?;
            fs::create_dir_all(repository.join("_layers"))?;
        }
        Ok(())
    }

    /// Makes the links of a folder those of `digests`.
    fn folder(&mut self, folder: &Path, digests: &BTreeSet<Digest>) -> io::Result<()> {
        for algorithm in tree::names(folder)? {
            let below = folder.join(&algorithm);
            for hex in tree::names(&below)? {
                let is_backed =
                    format!("{algorithm}:{hex}").parse().is_ok_and(|digest: Digest| digests.contains(&digest));
                if !is_backed {
                    self.remove(&below.join(&hex))?;
                }
            }
        }
        digests
            .iter()
            .try_for_each(|digest| self.link(&folder.join(digest.algorithm().as_str()).join(digest.hex()), digest))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
        self.removed += 1;
        Ok(())
    }

    fn link(&mut self, dir: &Path, digest: &Digest) -> io::Result<()> {
        let (path, text) = (dir.join("link"), digest.to_string());
        if fs::read(&path).is_ok_and(|content| content == text.as_bytes()) {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        let new = dir.join("link.release.tmp");
        fs::write(&new, text)?;
        fs::rename(&new, &path)?;
        self.written += 1;
        Ok(())
    }
}
