//! Owns the work that goes on beside requests: moving small objects to their files, and the
//! offline collection.

use std::collections::BTreeSet;

use registry_core::{
    collect::{Facts, ManifestFacts, Plan, RepositoryFacts},
    digest::Digest,
    name::RepoName,
    store::{Blobs, Change, Metadata, Place, StoreError},
};
use rusqlite::params;

use crate::{
    blob::fs::FsBlobs,
    meta::{digest_from, sqlite::SqliteMetadata},
};

/// Moves up to `limit` objects, written at least `age` seconds ago, from the metadata to their
/// files; returns how many. Idempotent: after a crash the same objects are moved again.
pub async fn settle(metadata: &SqliteMetadata, blobs: &FsBlobs, age: i64, limit: usize) -> Result<usize, StoreError> {
    let objects = metadata.inline_objects(age, limit)?;
    let count = objects.len();
    if count == 0 {
        return Ok(0);
    }
    let digests = objects.iter().map(|(digest, _)| *digest).collect();
    let blobs = blobs.clone();
    let failed = |source: tokio::task::JoinError| StoreError::Failed {
        operation: "move objects to their files".into(),
        source: source.into(),
    };
    tokio::task::spawn_blocking(move || blobs.write_all(&objects)).await.map_err(failed)??;
    metadata.settled(digests).await?;
    Ok(count)
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
             JOIN blob ON blob.id = manifest.blob",
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

/// Files that no row names: what crashes left between bytes and row. Nobody may write meanwhile.
pub fn orphans(facts: &Facts, blobs: &FsBlobs) -> Result<Vec<Digest>, StoreError> {
    blobs.unknown(&facts.blobs)
}

/// Carries a plan out: rows first, then bytes, then the orphans. Nobody else may write meanwhile.
/// A crash leaves files without rows at most: orphans for the next time.
pub async fn collect(
    metadata: &SqliteMetadata,
    blobs: &FsBlobs,
    plan: &Plan,
    orphans: &[Digest],
) -> Result<(), StoreError> {
    for (name, digest) in &plan.manifests {
        metadata.apply(Change::DeleteManifest(name.clone(), *digest), Vec::new()).await?;
    }
    for (name, digest) in &plan.links {
        metadata.apply(Change::DeleteBlob(name.clone(), *digest), Vec::new()).await?;
    }
    let doomed: BTreeSet<Digest> = plan.blobs.clone();
    metadata
        .change(move |db| {
            for digest in &doomed {
                let key = digest.to_key();
                db.execute("DELETE FROM content WHERE blob = (SELECT id FROM blob WHERE digest = ?1)", params![key])?;
                db.execute("DELETE FROM link WHERE blob = (SELECT id FROM blob WHERE digest = ?1)", params![key])?;
                db.execute("DELETE FROM blob WHERE digest = ?1", params![key])?;
            }
            Ok(())
        })
        .await?;
    for digest in plan.blobs.iter().chain(orphans) {
        blobs.remove(digest, &Place::Canonical).await?;
    }
    Ok(())
}
