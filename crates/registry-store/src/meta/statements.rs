//! Owns what a change does to the rows. Runs inside the committer's transaction.

use std::collections::HashSet;

use bytes::Bytes;
use registry_core::{
    digest::Digest,
    manifest::{Role, is_manifest},
    name::RepoName,
    reference::Tag,
    store::{BlobEntry, Change, Content, NewBlob, NewManifest, OutboxEvent, Place, Refusal},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Most unknown references that a refusal names: enough to see what is wrong.
const UNKNOWN_MAX: usize = 100;

/// A refusal, or SQLite's own failure.
#[derive(Debug)]
pub(super) enum ApplyError {
    Refused(Refusal),
    Sql(rusqlite::Error),
}

impl From<Refusal> for ApplyError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

type Applied<T = ()> = Result<T, ApplyError>;

/// The columns of a blob, as [`blob_from`] reads them.
pub(super) const BLOB: &str = "blob.digest, blob.size, blob.place, content.bytes";

/// Reads the columns of [`BLOB`], starting at column `at`.
pub(super) fn blob_from(row: &Row<'_>, at: usize) -> rusqlite::Result<BlobEntry> {
    let digest = digest_from(row, at)?;
    let size = row.get(at + 1)?;
    let content = match row.get_ref(at + 2)?.as_i64()? {
        0 => Content::Inline(Bytes::copy_from_slice(row.get_ref(at + 3)?.as_blob()?)),
        1 => Content::Stored(Place::Canonical),
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(at + 2, other)),
    };
    Ok(BlobEntry { digest, size, content })
}

/// Reads a digest's key.
pub(crate) fn digest_from(row: &Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    let key = row.get_ref(at)?.as_blob()?;
    Digest::from_key(key).ok_or_else(|| {
        let message = "no digest key".to_owned();
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Blob, message.into())
    })
}

/// Applies one change with its events at `now`.
pub(super) fn apply(db: &Connection, change: &Change, events: &[OutboxEvent], now: i64) -> Applied {
    match change {
        Change::PutBlob(name, blob) => {
            let repository = make_repository(db, name)?;
            let blob = put_blob(db, blob, now)?;
            link(db, repository, blob, now)?;
        }
        Change::Mount { digest, from, to } => {
            let unknown = || Refusal::BlobUnknown(*digest);
            let from = find_repository(db, from)?.ok_or_else(unknown)?;
            let blob = linked_blob(db, from, digest)?.ok_or_else(unknown)?;
            let to = make_repository(db, to)?;
            link(db, to, blob, now)?;
        }
        Change::PutManifest(name, manifest) => put_manifest(db, name, manifest, now)?,
        Change::DeleteTag(name, tag) => {
            let repository = known_repository(db, name)?;
            let gone = db
                .prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2")?
                .execute(params![repository, tag.as_str()])?;
            if gone == 0 {
                return Err(Refusal::ManifestUnknown(tag.to_string()).into());
            }
        }
        Change::DeleteManifest(name, digest) => delete_manifest(db, name, digest)?,
        Change::DeleteBlob(name, digest) => {
            let unknown = || Refusal::BlobUnknown(*digest);
            let repository = known_repository(db, name)?;
            let blob = linked_blob(db, repository, digest)?.ok_or_else(unknown)?;
            db.prepare_cached("DELETE FROM link WHERE blob = ?1 AND repository = ?2")?
                .execute(params![blob, repository])?;
        }
        Change::Nothing => {}
    }
    for event in events {
        db.prepare_cached("INSERT INTO event (endpoint, body, created_at) VALUES (?1, ?2, ?3)")?.execute(params![
            event.endpoint,
            event.body,
            now
        ])?;
    }
    Ok(())
}

fn find_repository(db: &Connection, name: &RepoName) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM repository WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

fn known_repository(db: &Connection, name: &RepoName) -> Applied<i64> {
    find_repository(db, name)?.ok_or_else(|| Refusal::NameUnknown(name.clone()).into())
}

fn make_repository(db: &Connection, name: &RepoName) -> rusqlite::Result<i64> {
    if let Some(id) = find_repository(db, name)? {
        return Ok(id);
    }
    db.prepare_cached("INSERT INTO repository (name, sort) VALUES (?1, ?2)")?
        .execute(params![name.as_str(), name.sort_key()])?;
    Ok(db.last_insert_rowid())
}

fn linked_blob(db: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "SELECT blob.id FROM blob JOIN link ON link.blob = blob.id WHERE blob.digest = ?1 AND link.repository = ?2",
    )?
    .query_row(params![digest.to_key(), repository], |row| row.get(0))
    .optional()
}

/// The row of a blob whose bytes are durable, or become so in this transaction.
fn put_blob(db: &Connection, blob: &NewBlob, now: i64) -> rusqlite::Result<i64> {
    let key = blob.digest.to_key();
    let known: Option<(i64, i64)> = db
        .prepare_cached("SELECT id, place FROM blob WHERE digest = ?1")?
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let place = i64::from(matches!(blob.content, Content::Stored(_)));
    match known {
        Some((id, 0)) if place == 1 => {
            db.prepare_cached("UPDATE blob SET place = 1 WHERE id = ?1")?.execute([id])?;
            db.prepare_cached("DELETE FROM content WHERE blob = ?1")?.execute([id])?;
            Ok(id)
        }
        Some((id, _)) => Ok(id),
        None => {
            let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
            db.prepare_cached("INSERT INTO blob (digest, size, place, created_at) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![key, size, place, now])?;
            let id = db.last_insert_rowid();
            if let Content::Inline(bytes) = &blob.content {
                db.prepare_cached("INSERT INTO content (blob, created_at, bytes) VALUES (?1, ?2, ?3)")?
                    .execute(params![id, now, bytes.as_ref()])?;
            }
            Ok(id)
        }
    }
}

fn link(db: &Connection, repository: i64, blob: i64, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO link (blob, repository, created_at) VALUES (?1, ?2, ?3)")?
        .execute(params![blob, repository, now])?;
    Ok(())
}

fn find_manifest(db: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "SELECT manifest.id FROM blob JOIN manifest ON manifest.blob = blob.id
         WHERE blob.digest = ?1 AND manifest.repository = ?2",
    )?
    .query_row(params![digest.to_key(), repository], |row| row.get(0))
    .optional()
}

fn put_manifest(db: &Connection, name: &RepoName, new: &NewManifest, now: i64) -> Applied {
    let repository = find_repository(db, name)?;
    let (mut unknown, mut seen) = (Vec::new(), HashSet::new());
    for wanted in new.manifest.links.iter().filter(|link| new.index_policy.requires(link)) {
        if !seen.insert((wanted.digest, wanted.role == Role::Child)) {
            continue;
        }
        let held = match repository {
            None => false,
            Some(repository) if wanted.role == Role::Child => {
                find_manifest(db, repository, &wanted.digest)?.is_some()
                    // An index may list other things than manifests, as build caches do.
                    || (!is_manifest(&wanted.media_type) && linked_blob(db, repository, &wanted.digest)?.is_some())
            }
            Some(repository) => linked_blob(db, repository, &wanted.digest)?.is_some(),
        };
        if !held && !unknown.contains(&wanted.digest) {
            unknown.push(wanted.digest);
            if unknown.len() == UNKNOWN_MAX {
                break;
            }
        }
    }
    if !unknown.is_empty() {
        return Err(Refusal::ReferencesUnknown(unknown).into());
    }
    let repository = match repository {
        Some(id) => id,
        None => make_repository(db, name)?,
    };
    let digest = &new.blob.digest;
    let manifest = match find_manifest(db, repository, digest)? {
        Some(id) => {
            // The same bytes may come back under another type, where neither names itself.
            db.prepare_cached("UPDATE manifest SET media_type = ?2 WHERE id = ?1 AND media_type != ?2")?
                .execute(params![id, new.manifest.media_type])?;
            id
        }
        None => insert_manifest(db, repository, new, now)?,
    };
    for tag in &new.tags {
        db.prepare_cached(
            "INSERT INTO tag (repository, name, manifest, updated_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET manifest = ?3, updated_at = ?4",
        )?
        .execute(params![repository, tag.as_str(), manifest, now])?;
    }
    Ok(())
}

fn insert_manifest(db: &Connection, repository: i64, new: &NewManifest, now: i64) -> rusqlite::Result<i64> {
    let (digest, facts) = (&new.blob.digest, &new.manifest);
    let blob = put_blob(db, &new.blob, now)?;
    let subject = facts.subject.map(|subject| subject.to_key());
    db.prepare_cached(
        "INSERT INTO manifest (repository, blob, media_type, subject, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![repository, blob, facts.media_type, subject, now])?;
    let manifest = db.last_insert_rowid();
    for link in &facts.links {
        db.prepare_cached("INSERT OR IGNORE INTO edge (manifest, digest) VALUES (?1, ?2)")?
            .execute(params![manifest, link.digest.to_key()])?;
    }
    if let Some(subject) = subject {
        db.prepare_cached("INSERT OR REPLACE INTO referrer VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            repository,
            subject,
            digest.to_key(),
            facts.artifact_type,
            facts.referrer_descriptor(digest, new.blob.size)
        ])?;
    }
    db.prepare_cached("UPDATE repository SET manifests = manifests + 1 WHERE id = ?1")?.execute([repository])?;
    Ok(manifest)
}

pub(super) fn delete_manifest(db: &Connection, name: &RepoName, digest: &Digest) -> Applied {
    let repository = known_repository(db, name)?;
    let manifest =
        find_manifest(db, repository, digest)?.ok_or_else(|| Refusal::ManifestUnknown(digest.to_string()))?;
    db.prepare_cached("DELETE FROM tag WHERE manifest = ?1")?.execute([manifest])?;
    db.prepare_cached("DELETE FROM edge WHERE manifest = ?1")?.execute([manifest])?;
    db.prepare_cached(
        "DELETE FROM referrer WHERE repository = ?1 AND digest = ?2
         AND subject = (SELECT subject FROM manifest WHERE id = ?3)",
    )?
    .execute(params![repository, digest.to_key(), manifest])?;
    db.prepare_cached("DELETE FROM manifest WHERE id = ?1")?.execute([manifest])?;
    db.prepare_cached("UPDATE repository SET manifests = manifests - 1 WHERE id = ?1")?.execute([repository])?;
    Ok(())
}

/// Replaces version `expected` of the directory, 0 being none; returns the new version.
pub(super) fn save_directory(db: &Connection, expected: u64, document: &str) -> Applied<u64> {
    let saved = if expected == 0 {
        db.prepare_cached("INSERT INTO directory (id, version, document) VALUES (1, 1, ?1) ON CONFLICT DO NOTHING")?
            .execute([document])?
    } else {
        db.prepare_cached("UPDATE directory SET version = version + 1, document = ?2 WHERE version = ?1")?
            .execute(params![expected, document])?
    };
    if saved == 0 { Err(Refusal::DirectoryChanged.into()) } else { Ok(expected + 1) }
}

/// The tags that name a manifest.
pub(super) fn tags_of(db: &Connection, name: &RepoName, digest: &Digest) -> rusqlite::Result<Vec<Tag>> {
    let mut statement = db.prepare_cached(
        "SELECT tag.name FROM repository
         JOIN blob ON blob.digest = ?2
         JOIN manifest ON manifest.blob = blob.id AND manifest.repository = repository.id
         JOIN tag ON tag.manifest = manifest.id
         WHERE repository.name = ?1 ORDER BY tag.name",
    )?;
    let rows = statement.query_map(params![name.as_str(), digest.to_key()], |row| row.get::<_, String>(0))?;
    rows.filter_map(|tag| tag.map(|tag| tag.parse().ok()).transpose()).collect()
}
