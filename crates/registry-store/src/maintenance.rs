//! Owns the work that goes on beside requests: moving small objects to their files, removing files
//! that nothing names, and reading what a plan of a collection is made from.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use registry_core::{
    collect::{Facts, ManifestFacts, RepositoryFacts},
    gc::{Collection, Purge},
    name::RepoName,
    store::{Blobs, Metadata, StoreError},
};

use crate::{
    blob::fs::FsBlobs,
    claims::Claims,
    meta::{digest_from, sqlite::SqliteMetadata},
};

/// Moves up to `limit` objects, written at least `age` seconds ago, from the metadata to their
/// files; returns how many. Idempotent: after a crash the same objects are moved again.
pub async fn settle(
    metadata: &SqliteMetadata,
    blobs: &FsBlobs,
    claims: &Claims,
    age: i64,
    limit: usize,
) -> Result<usize, StoreError> {
    let objects = metadata.inline_objects(age, limit)?;
    let count = objects.len();
    if count == 0 {
        return Ok(0);
    }
    let claim = claims.share(objects.iter().map(|(digest, _)| digest)).await;
    let mut placed = Vec::with_capacity(count);
    for (digest, bytes) in objects {
        let place = metadata.place(&digest).await?;
        placed.push((digest, bytes, place));
    }
    let settled = placed.iter().map(|(digest, _, place)| (*digest, *place)).collect();
    let blobs = blobs.clone();
    // The claim goes along: files of a call that was given up are written all the same.
    let (claim, written) = blocking("move objects to their files", move || (claim, blobs.write_all(&placed))).await?;
    written?;
    metadata.settled(settled).await?;
    drop(claim);
    Ok(count)
}

pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| StoreError::Failed { operation: operation.to_owned(), source: source.into() })
}

/// G3: removes up to `limit` files that were noted for it; returns how many there were. A file that
/// cannot be removed stays noted; the first such error is returned after the others are gone.
pub async fn purge(
    metadata: &SqliteMetadata,
    blobs: &FsBlobs,
    claims: &Claims,
    now: i64,
    limit: usize,
) -> Result<usize, StoreError> {
    let files = metadata.purges(limit).await?;
    let (mut gone, mut failed) = (Vec::with_capacity(files.len()), None);
    for file in files {
        match remove(metadata, blobs, claims, &file).await {
            Ok(_) => gone.push(file),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let count = gone.len();
    if count > 0 {
        let blobs = blobs.clone();
        let (gone, synced) = blocking("sync removed files", move || {
            let synced = blobs.sync_removed(&gone);
            (gone, synced)
        })
        .await?;
        synced?;
        metadata.purged(now, gone).await?;
    }
    failed.map_or(Ok(count), Err)
}

/// Removes a file unless a row names it; returns whether it was removed.
async fn remove(metadata: &SqliteMetadata, blobs: &FsBlobs, claims: &Claims, file: &Purge) -> Result<bool, StoreError> {
    let claim = claims.alone(&file.digest).await;
    if metadata.names(file).await? {
        return Ok(false);
    }
    // In a task of its own: a call that was given up still holds the claim until the file is gone.
    let (blobs, file) = (blobs.clone(), file.clone());
    let removed = tokio::spawn(async move {
        let removed = blobs.remove(&file.digest, &file.place).await;
        drop(claim);
        removed
    });
    removed
        .await
        .map_err(|source| StoreError::Failed { operation: "remove a file".into(), source: source.into() })??;
    Ok(true)
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that were looked at.
    pub looked: u64,
    /// Files that nothing named, removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The parts that a sweep goes through, one after the other. Empty while another server's links
/// may name the files.
pub async fn sweep_parts(metadata: &SqliteMetadata, blobs: &FsBlobs) -> Result<Vec<PathBuf>, StoreError> {
    if blobs.dir().has_foreign_links() && metadata.state("adoption").await?.as_deref() != Some("own") {
        return Ok(Vec::new());
    }
    let blobs = blobs.clone();
    blocking("list blobs", move || blobs.fan_outs()).await?
}

/// Removes the files of a part that no row names and that have not changed for `age`: what a crash
/// left between bytes and row. Meanwhile the collection must not be held.
pub async fn sweep(
    metadata: &SqliteMetadata,
    blobs: &FsBlobs,
    claims: &Claims,
    part: &Path,
    age: Duration,
) -> Result<Swept, StoreError> {
    let (lister, there) = (blobs.clone(), part.to_owned());
    let leftovers = blocking("list blobs", move || lister.remove_leftovers(&there, age)).await??;
    let (found, looked) = unnamed(metadata, blobs, part, age).await?;
    let mut swept = Swept { looked, files: leftovers, bytes: 0 };
    for (file, size) in found {
        if remove(metadata, blobs, claims, &file).await? {
            swept.files += 1;
            swept.bytes += size;
        }
    }
    Ok(swept)
}

/// The files of a part that no row names and that have not changed for `age`, with their sizes, and
/// how many were looked at. A push may give them a row at any moment.
pub async fn unnamed(
    metadata: &SqliteMetadata,
    blobs: &FsBlobs,
    part: &Path,
    age: Duration,
) -> Result<(Vec<(Purge, u64)>, u64), StoreError> {
    let (lister, part) = (blobs.clone(), part.to_owned());
    let files = blocking("list blobs", move || lister.files(&part)).await??;
    let (now, looked) = (SystemTime::now(), files.len() as u64);
    let mut found = Vec::new();
    for (file, changed, size) in files {
        let old = now.duration_since(changed).is_ok_and(|idle| idle >= age);
        if old && !metadata.names(&file).await? {
            found.push((file, size));
        }
    }
    Ok((found, looked))
}

/// How many reviews come due within so many seconds after `now`. After a round that waits only for
/// promises these are what stays because of them.
pub fn due_within(metadata: &SqliteMetadata, now: i64, seconds: i64) -> Result<u64, StoreError> {
    metadata.query(|db| {
        db.prepare_cached("SELECT count(*) FROM review WHERE due_at > ?1 AND due_at <= ?2")?
            .query_row([now, now.saturating_add(seconds)], |row| row.get(0))
    })
}

/// Reads everything that a collection looks at.
pub fn facts(metadata: &SqliteMetadata) -> Result<Facts, StoreError> {
    metadata.query(|db| {
        let mut facts = Facts::default();
        let name = |text: String| text.parse::<RepoName>().ok();
        let mut statement = db.prepare("SELECT name FROM repository")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(name) = name(row.get(0)?) {
                facts.repositories.insert(name, RepositoryFacts::default());
            }
        }
        let mut statement = db.prepare("SELECT digest FROM blob")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            facts.blobs.insert(digest_from(row, 0)?);
        }
        let mut statement = db.prepare(
            "SELECT repository.name, blob.digest FROM link JOIN repository ON repository.id = link.repository
             JOIN blob ON blob.id = link.blob",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(repository) = name(row.get(0)?).and_then(|name| facts.repositories.get_mut(&name)) {
                repository.links.insert(digest_from(row, 1)?);
            }
        }
        let mut statement = db.prepare(
            "SELECT repository.name, blob.digest, manifest.subject IS NOT NULL, manifest.subject,
                    EXISTS (SELECT 1 FROM tag WHERE tag.manifest = manifest.id), manifest.id
             FROM manifest JOIN repository ON repository.id = manifest.repository
             JOIN blob ON blob.id = manifest.blob WHERE manifest.deleted_at IS NULL",
        )?;
        let mut edges = db.prepare("SELECT digest FROM edge WHERE manifest = ?1")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let subject = if row.get(2)? { Some(digest_from(row, 3)?) } else { None };
            let links =
                edges.query_map([row.get::<_, i64>(5)?], |row| digest_from(row, 0))?.collect::<Result<_, _>>()?;
            let manifest = ManifestFacts { tagged: row.get(4)?, links, subject };
            if let Some(repository) = name(row.get(0)?).and_then(|name| facts.repositories.get_mut(&name)) {
                repository.manifests.insert(digest_from(row, 1)?, manifest);
            }
        }
        Ok(facts)
    })
}
