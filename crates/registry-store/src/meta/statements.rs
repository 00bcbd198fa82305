//! Owns what a change does to the rows. Runs inside the committer's transaction.

use std::collections::HashSet;

use bytes::Bytes;
use registry_core::{
    digest::Digest,
    gc::{PlaceFacts, choose_place},
    manifest::{Manifest, Role, is_manifest},
    name::RepoName,
    reference::Tag,
    retention::Rules,
    store::{BlobEntry, Change, Content, NewBlob, NewManifest, OutboxEvent, Place, Refusal, TagAction, TagFacts},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{history, quota, review};

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

pub(super) type Applied<T = ()> = Result<T, ApplyError>;

/// The columns of a blob, as [`blob_from`] reads them.
pub(super) const BLOB: &str = "blob.digest, blob.size, blob.place, content.bytes";

/// Reads the columns of [`BLOB`], starting at column `at`.
pub(super) fn blob_from(row: &Row<'_>, at: usize) -> rusqlite::Result<BlobEntry> {
    let digest = digest_from(row, at)?;
    let size = row.get(at + 1)?;
    let number = row.get_ref(at + 2)?.as_i64()?;
    let content = match place_from(number) {
        Some(Place::Inline) => Content::Inline(Bytes::copy_from_slice(row.get_ref(at + 3)?.as_blob()?)),
        Some(place) => Content::Stored(place),
        None => return Err(rusqlite::Error::IntegralValueOutOfRange(at + 2, number)),
    };
    Ok(BlobEntry { digest, size, content, used_at: 0 })
}

/// Reads a digest's key.
pub(crate) fn digest_from(row: &Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    let key = row.get_ref(at)?.as_blob()?;
    Digest::from_key(key).ok_or_else(|| {
        let message = "no digest key".to_owned();
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Blob, message.into())
    })
}

/// Where a change happens: the transaction, the rules and the time that hold for it.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) db: &'a Connection,
    pub(super) rules: &'a Rules,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// A repository's row.
#[derive(Clone, Copy)]
pub(super) struct Repository<'a> {
    pub(super) id: i64,
    pub(super) name: &'a RepoName,
}

/// Applies one change with its events.
pub(super) fn apply(at: Context<'_>, change: &Change, events: &[OutboxEvent]) -> Applied {
    let Context { db, now, .. } = at;
    match change {
        Change::PutBlob(name, blob) => {
            let repository = make_repository(db, name)?;
            let id = put_blob(at, blob)?;
            link(at, repository, id)?;
        }
        Change::Mount { digest, from, to } => {
            let unknown = || Refusal::BlobUnknown(*digest);
            let from = find_repository(db, from)?.ok_or_else(unknown)?;
            let blob = linked_blob(db, from.id, digest)?.ok_or_else(unknown)?;
            let to = make_repository(db, to)?;
            link(at, to, blob)?;
        }
        Change::PutManifest(name, manifest) => put_manifest(at, name, manifest)?,
        Change::DeleteTag(name, tag) => delete_tag(at, name, tag)?,
        Change::Expire(name, seen) => expire(at, name, seen)?,
        Change::DeleteManifest(name, digest) => delete_manifest(at, name, digest)?,
        Change::DeleteBlob(name, digest) => {
            let unknown = || Refusal::BlobUnknown(*digest);
            let repository = known_repository(db, name)?;
            let blob = linked_blob(db, repository.id, digest)?.ok_or_else(unknown)?;
            unlink(at, repository.id, blob)?;
            review::enqueue(db, review::BLOB, blob, 0, now)?;
        }
        Change::Undelete(name, reference) => history::undelete(at, name, reference)?,
        Change::Promise(name, digest) => promise(db, name, digest, now)?,
        Change::Used(used) => {
            for (name, digest, pulled) in used {
                db.prepare_cached(
                    "UPDATE manifest SET used_at = max(used_at, ?3), pulled_at = iif(?4, max(pulled_at, ?3), pulled_at)
                     WHERE blob = (SELECT id FROM blob WHERE digest = ?2)
                     AND repository = (SELECT id FROM repository WHERE name = ?1)",
                )?
                .execute(params![name.as_str(), digest.to_key(), now, pulled])?;
            }
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

pub(super) fn find_repository<'a>(db: &Connection, name: &'a RepoName) -> rusqlite::Result<Option<Repository<'a>>> {
    let id = db
        .prepare_cached("SELECT id FROM repository WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    Ok(id.map(|id| Repository { id, name }))
}

pub(super) fn known_repository<'a>(db: &Connection, name: &'a RepoName) -> Applied<Repository<'a>> {
    find_repository(db, name)?.ok_or_else(|| Refusal::NameUnknown(name.clone()).into())
}

pub(super) fn make_repository<'a>(db: &Connection, name: &'a RepoName) -> rusqlite::Result<Repository<'a>> {
    if let Some(known) = find_repository(db, name)? {
        return Ok(known);
    }
    db.prepare_cached("INSERT INTO repository (name, sort) VALUES (?1, ?2)")?
        .execute(params![name.as_str(), name.sort_key()])?;
    Ok(Repository { id: db.last_insert_rowid(), name })
}

/// A live blob that the repository holds.
fn linked_blob(db: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "SELECT blob.id FROM blob JOIN link ON link.blob = blob.id
         WHERE blob.digest = ?1 AND blob.state = 0 AND link.repository = ?2",
    )?
    .query_row(params![digest.to_key(), repository], |row| row.get(0))
    .optional()
}

fn promise(db: &Connection, name: &RepoName, digest: &Digest, now: i64) -> Applied {
    let renewed = db
        .prepare_cached(
            "UPDATE link SET used_at = max(used_at, ?3)
             WHERE blob = (SELECT id FROM blob WHERE digest = ?2 AND state = 0)
             AND repository = (SELECT id FROM repository WHERE name = ?1)",
        )?
        .execute(params![name.as_str(), digest.to_key(), now])?;
    if renewed == 0 { Err(Refusal::BlobUnknown(*digest).into()) } else { Ok(()) }
}

/// The number of a place in its column.
pub(crate) fn place_number(place: Place) -> i64 {
    match place {
        Place::Inline => 0,
        Place::Canonical => 1,
        Place::Unique(number) => i64::try_from(number).unwrap_or(i64::MAX),
    }
}

/// The place that a number stands for.
pub(crate) fn place_from(number: i64) -> Option<Place> {
    match number {
        0 => Some(Place::Inline),
        1 => Some(Place::Canonical),
        other => u64::try_from(other).ok().map(Place::Unique),
    }
}

/// Whether a place was given up: a purge will come to it, or did.
fn is_retired(db: &Connection, key: &[u8], place: i64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM purge WHERE digest = ?1 AND place = ?2")?.exists(params![key, place])
}

/// Where the file of new bytes goes; see [`choose_place`].
pub(super) fn place_for(db: &Connection, digest: &Digest) -> rusqlite::Result<Place> {
    let key = digest.to_key();
    let row: Option<(i64, i64)> = db
        .prepare_cached("SELECT place, state FROM blob WHERE digest = ?1")?
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let row = row.and_then(|(place, state)| Some((place_from(place)?, state == 0)));
    let facts = PlaceFacts { row, canonical_retired: is_retired(db, &key, place_number(Place::Canonical))? };
    // 62 random bits: no two are the same before the sun burns out.
    let random: i64 = db.prepare_cached("SELECT random()")?.query_row([], |row| row.get(0))?;
    Ok(choose_place(&facts, (random.unsigned_abs() >> 1).max(2)))
}

/// Notes a file that nothing names any more.
pub(super) fn note_purge(db: &Connection, key: &[u8], place: i64, size: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO purge (digest, place, size) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![key, place, size])?;
    Ok(())
}

/// The row of a blob whose bytes are durable, or become so in this transaction. What was condemned
/// or damaged is live again, with the new bytes.
fn put_blob(at: Context<'_>, blob: &NewBlob) -> Applied<i64> {
    let Context { db, now, .. } = at;
    let key = blob.digest.to_key();
    let known: Option<(i64, i64, i64, i64)> = db
        .prepare_cached("SELECT id, place, state, size FROM blob WHERE digest = ?1")?
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let place = match &blob.content {
        Content::Inline(_) => 0,
        Content::Stored(place) => place_number(*place),
    };
    let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
    let keep_content = |id: i64| -> Applied {
        if let Content::Inline(bytes) = &blob.content {
            db.prepare_cached("INSERT OR REPLACE INTO content (blob, created_at, bytes) VALUES (?1, ?2, ?3)")?
                .execute(params![id, now, bytes.as_ref()])?;
        }
        Ok(())
    };
    let Some((id, have, state, old_size)) = known else {
        if place != 0 && is_retired(db, &key, place)? {
            return Err(Refusal::PlaceRetired(blob.digest).into());
        }
        // Its digest was compared just now, on its way in.
        db.prepare_cached(
            "INSERT INTO blob (digest, size, place, created_at, verified_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        )?
        .execute(params![key, size, place, now])?;
        let id = db.last_insert_rowid();
        keep_content(id)?;
        return Ok(id);
    };
    if state == 0 {
        if have == place || place == 0 {
            return Ok(id);
        }
        if have != 0 {
            // Somebody else brought the same bytes to another place meanwhile.
            note_purge(db, &key, place, size)?;
            return Ok(id);
        }
    } else if have != place && have != 0 {
        note_purge(db, &key, have, old_size)?;
    }
    if place != 0 && have != place && is_retired(db, &key, place)? {
        return Err(Refusal::PlaceRetired(blob.digest).into());
    }
    if place == 0 {
        keep_content(id)?;
    } else if have == 0 {
        db.prepare_cached("DELETE FROM content WHERE blob = ?1")?.execute([id])?;
    }
    db.prepare_cached(
        "UPDATE blob SET place = ?2, size = ?3, state = 0, state_at = ?4, verified_at = ?4 WHERE id = ?1",
    )?
    .execute(params![id, place, size, now])?;
    Ok(id)
}

/// Lets a repository hold a blob, with a promise that begins now.
pub(super) fn link(at: Context<'_>, repository: Repository<'_>, blob: i64) -> Applied {
    let Context { db, rules, now } = at;
    let new = db
        .prepare_cached("INSERT OR IGNORE INTO link (blob, repository, created_at, used_at) VALUES (?1, ?2, ?3, ?3)")?
        .execute(params![blob, repository.id, now])?;
    if new == 0 {
        db.prepare_cached("UPDATE link SET used_at = max(used_at, ?3) WHERE blob = ?1 AND repository = ?2")?
            .execute(params![blob, repository.id, now])?;
        return Ok(());
    }
    quota::hold(at, repository, blob)?;
    // Where no manifest comes that refers to it, it goes when the promise ends.
    review::enqueue(db, review::LINK, blob, repository.id, now.saturating_add(rules.gc.lease))?;
    Ok(())
}

/// Takes a blob out of a repository.
pub(super) fn unlink(at: Context<'_>, repository: i64, blob: i64) -> rusqlite::Result<()> {
    at.db.prepare_cached("DELETE FROM link WHERE blob = ?1 AND repository = ?2")?.execute(params![blob, repository])?;
    at.db.prepare_cached("DELETE FROM review WHERE kind = ?1 AND id = ?2 AND repository = ?3")?.execute(params![
        review::LINK,
        blob,
        repository
    ])?;
    quota::release(at.db, repository, blob)
}

/// A manifest's row: its number, and since when it is deleted.
pub(super) fn find_manifest(
    db: &Connection,
    repository: i64,
    digest: &Digest,
) -> rusqlite::Result<Option<(i64, Option<i64>)>> {
    db.prepare_cached(
        "SELECT manifest.id, manifest.deleted_at FROM blob JOIN manifest ON manifest.blob = blob.id
         WHERE blob.digest = ?1 AND manifest.repository = ?2",
    )?
    .query_row(params![digest.to_key(), repository], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
}

fn holds_manifest(db: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM blob JOIN manifest ON manifest.blob = blob.id
         WHERE blob.digest = ?1 AND blob.state = 0 AND manifest.repository = ?2 AND manifest.deleted_at IS NULL",
    )?
    .exists(params![digest.to_key(), repository])
}

fn put_manifest(at: Context<'_>, name: &RepoName, new: &NewManifest) -> Applied {
    let Context { db, rules, now } = at;
    let repository = find_repository(db, name)?;
    let (mut unknown, mut seen) = (Vec::new(), HashSet::new());
    for wanted in new.manifest.links.iter().filter(|link| new.index_policy.requires(link)) {
        if !seen.insert((wanted.digest, wanted.role == Role::Child)) {
            continue;
        }
        let held = match repository {
            None => false,
            Some(Repository { id, .. }) if wanted.role == Role::Child => {
                holds_manifest(db, id, &wanted.digest)?
                    // An index may list other things than manifests, as build caches do.
                    || (!is_manifest(&wanted.media_type) && linked_blob(db, id, &wanted.digest)?.is_some())
            }
            Some(Repository { id, .. }) => linked_blob(db, id, &wanted.digest)?.is_some(),
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
        Some(known) => known,
        None => make_repository(db, name)?,
    };
    // Also where the manifest is known: its bytes may be damaged, and these are not.
    let blob = put_blob(at, &new.blob)?;
    let digest = &new.blob.digest;
    let manifest = match find_manifest(db, repository.id, digest)? {
        Some((id, deleted_at)) => {
            // The same bytes may come back under another type, where neither names itself.
            db.prepare_cached("UPDATE manifest SET media_type = ?2, used_at = max(used_at, ?3) WHERE id = ?1")?
                .execute(params![id, new.manifest.media_type, now])?;
            if deleted_at.is_some() {
                show_manifest(at, repository, id, digest)?;
            }
            id
        }
        None => insert_manifest(at, repository, blob, new)?,
    };
    for tag in &new.tags {
        set_tag(at, repository, tag, manifest, digest, TagAction::Set)?;
    }
    if new.tags.is_empty() {
        let due = now.saturating_add(rules.gc.grace.min(rules.gc.untagged.unwrap_or(rules.gc.grace)));
        review::enqueue(db, review::MANIFEST, manifest, 0, due)?;
    }
    Ok(())
}

/// Lets a tag name a manifest.
pub(super) fn set_tag(
    at: Context<'_>,
    repository: Repository<'_>,
    tag: &Tag,
    manifest: i64,
    digest: &Digest,
    action: TagAction,
) -> Applied {
    let Context { db, rules, now } = at;
    let old: Option<i64> = db
        .prepare_cached("SELECT manifest FROM tag WHERE repository = ?1 AND name = ?2")?
        .query_row(params![repository.id, tag.as_str()], |row| row.get(0))
        .optional()?;
    if old.is_some_and(|old| old != manifest) && rules.is_immutable(repository.name, tag) {
        return Err(Refusal::TagImmutable(tag.clone()).into());
    }
    db.prepare_cached(
        "INSERT INTO tag (repository, name, manifest, updated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET manifest = ?3, updated_at = ?4",
    )?
    .execute(params![repository.id, tag.as_str(), manifest, now])?;
    if old != Some(manifest) {
        history::note(at, repository.id, tag, action, digest)?;
    }
    if let Some(old) = old.filter(|old| *old != manifest) {
        untagged(at, old)?;
    }
    Ok(())
}

/// Looks after a manifest that lost a tag.
fn untagged(at: Context<'_>, manifest: i64) -> rusqlite::Result<()> {
    let Context { db, rules, now } = at;
    db.prepare_cached("UPDATE manifest SET untagged_at = ?2 WHERE id = ?1")?.execute(params![manifest, now])?;
    let due = now.saturating_add(rules.gc.grace.min(rules.gc.untagged.unwrap_or(rules.gc.grace)));
    review::enqueue(db, review::MANIFEST, manifest, 0, due)
}

fn delete_tag(at: Context<'_>, name: &RepoName, tag: &Tag) -> Applied {
    let Context { db, rules, .. } = at;
    let repository = known_repository(db, name)?;
    let named: Option<(i64, Digest)> = db
        .prepare_cached(
            "SELECT manifest.id, blob.digest FROM tag JOIN manifest ON manifest.id = tag.manifest
             JOIN blob ON blob.id = manifest.blob WHERE tag.repository = ?1 AND tag.name = ?2",
        )?
        .query_row(params![repository.id, tag.as_str()], |row| Ok((row.get(0)?, digest_from(row, 1)?)))
        .optional()?;
    let (manifest, digest) = named.ok_or_else(|| Refusal::ManifestUnknown(tag.to_string()))?;
    if rules.is_immutable(name, tag) {
        return Err(Refusal::TagImmutable(tag.clone()).into());
    }
    db.prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2")?
        .execute(params![repository.id, tag.as_str()])?;
    history::note(at, repository.id, tag, TagAction::Deleted, &digest)?;
    untagged(at, manifest)?;
    Ok(())
}

/// Deletes a tag that is as it was seen.
fn expire(at: Context<'_>, name: &RepoName, seen: &TagFacts) -> Applied {
    let repository = known_repository(at.db, name)?;
    let unchanged = at
        .db
        .prepare_cached(
            "SELECT 1 FROM tag JOIN manifest ON manifest.id = tag.manifest JOIN blob ON blob.id = manifest.blob
             WHERE tag.repository = ?1 AND tag.name = ?2 AND tag.updated_at = ?3 AND blob.digest = ?4",
        )?
        .exists(params![repository.id, seen.tag.as_str(), seen.pushed_at, seen.digest.to_key()])?;
    if !unchanged {
        return Err(Refusal::ManifestUnknown(seen.tag.to_string()).into());
    }
    delete_tag(at, name, &seen.tag)
}

fn insert_manifest(at: Context<'_>, repository: Repository<'_>, blob: i64, new: &NewManifest) -> Applied<i64> {
    let manifest = insert_manifest_row(at, repository, blob, &new.blob.digest, new.blob.size, &new.manifest)?;
    quota::hold(at, repository, blob)?;
    Ok(manifest)
}

/// Writes the rows of a manifest that the repository does not have yet: its own, what it refers
/// to, and the one that makes it a referrer.
pub(super) fn insert_manifest_row(
    at: Context<'_>,
    repository: Repository<'_>,
    blob: i64,
    digest: &Digest,
    size: u64,
    facts: &Manifest,
) -> Applied<i64> {
    let Context { db, now, .. } = at;
    let subject = facts.subject.map(|subject| subject.to_key());
    db.prepare_cached(
        "INSERT INTO manifest (repository, blob, media_type, subject, created_at, untagged_at, used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5)",
    )?
    .execute(params![repository.id, blob, facts.media_type, subject, now])?;
    let manifest = db.last_insert_rowid();
    for link in &facts.links {
        let key = link.digest.to_key();
        db.prepare_cached("INSERT OR IGNORE INTO edge (digest, repository, manifest) VALUES (?1, ?2, ?3)")?
            .execute(params![key, repository.id, manifest])?;
        // It is needed from now on; the end of that puts it into the queue again.
        db.prepare_cached(
            "DELETE FROM review WHERE kind = ?1 AND repository = ?2 AND id = (SELECT id FROM blob WHERE digest = ?3)",
        )?
        .execute(params![review::LINK, repository.id, key])?;
    }
    if let Some(subject) = subject {
        db.prepare_cached(
            "INSERT OR REPLACE INTO referrer (repository, subject, digest, artifact_type, descriptor)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            repository.id,
            subject,
            digest.to_key(),
            facts.artifact_type,
            facts.referrer_descriptor(digest, size)
        ])?;
    }
    db.prepare_cached("UPDATE repository SET manifests = manifests + 1 WHERE id = ?1")?.execute([repository.id])?;
    Ok(manifest)
}

/// Hides a manifest and takes its tags away. The collection removes it after the grace period.
fn delete_manifest(at: Context<'_>, name: &RepoName, digest: &Digest) -> Applied {
    let Context { db, rules, now } = at;
    let repository = known_repository(db, name)?;
    let Some((manifest, None)) = find_manifest(db, repository.id, digest)? else {
        return Err(Refusal::ManifestUnknown(digest.to_string()).into());
    };
    for tag in tags_of(db, name, digest)? {
        if rules.is_immutable(name, &tag) {
            return Err(Refusal::TagImmutable(tag).into());
        }
        history::note(at, repository.id, &tag, TagAction::Deleted, digest)?;
    }
    db.prepare_cached("DELETE FROM tag WHERE manifest = ?1")?.execute([manifest])?;
    db.prepare_cached("UPDATE manifest SET deleted_at = ?2, untagged_at = ?2 WHERE id = ?1")?
        .execute(params![manifest, now])?;
    hide_referrer(db, repository.id, digest, true)?;
    db.prepare_cached("UPDATE repository SET manifests = manifests - 1 WHERE id = ?1")?.execute([repository.id])?;
    review::enqueue(db, review::MANIFEST, manifest, 0, now.saturating_add(rules.gc.grace))?;
    Ok(())
}

fn hide_referrer(db: &Connection, repository: i64, digest: &Digest, hidden: bool) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE referrer SET hidden = ?3 WHERE repository = ?1 AND digest = ?2 AND subject = (
            SELECT subject FROM manifest WHERE repository = ?1 AND blob = (SELECT id FROM blob WHERE digest = ?2))",
    )?
    .execute(params![repository, digest.to_key(), hidden])?;
    Ok(())
}

/// Lets a manifest be there again that was deleted.
pub(super) fn show_manifest(at: Context<'_>, repository: Repository<'_>, manifest: i64, digest: &Digest) -> Applied {
    let Context { db, rules, now } = at;
    db.prepare_cached("UPDATE manifest SET deleted_at = NULL, untagged_at = ?2 WHERE id = ?1")?
        .execute(params![manifest, now])?;
    hide_referrer(db, repository.id, digest, false)?;
    db.prepare_cached("UPDATE repository SET manifests = manifests + 1 WHERE id = ?1")?.execute([repository.id])?;
    let due = now.saturating_add(rules.gc.grace.min(rules.gc.untagged.unwrap_or(rules.gc.grace)));
    review::enqueue(db, review::MANIFEST, manifest, 0, due)?;
    Ok(())
}

/// Removes a hidden or unreachable manifest for good; what it held is reviewed next.
pub(super) fn remove_manifest(db: &Connection, manifest: i64, now: i64) -> rusqlite::Result<()> {
    let (repository, blob, digest, deleted): (i64, i64, Digest, bool) = db
        .prepare_cached(
            "SELECT manifest.repository, manifest.blob, blob.digest, manifest.deleted_at IS NOT NULL
             FROM manifest JOIN blob ON blob.id = manifest.blob WHERE manifest.id = ?1",
        )?
        .query_row([manifest], |row| Ok((row.get(0)?, row.get(1)?, digest_from(row, 2)?, row.get(3)?)))?;
    // Layers and configs by their links, entries of an index as manifests, all as blobs.
    for (sql, kind) in [
        (
            "INSERT INTO review SELECT ?1, link.blob, link.repository, ?4 FROM edge
             JOIN blob ON blob.digest = edge.digest JOIN link ON link.blob = blob.id AND link.repository = ?3
             WHERE edge.manifest = ?2 ON CONFLICT DO UPDATE SET due_at = min(due_at, excluded.due_at)",
            review::LINK,
        ),
        (
            "INSERT INTO review SELECT ?1, child.id, 0, ?4 FROM edge
             JOIN blob ON blob.digest = edge.digest JOIN manifest AS child ON child.blob = blob.id AND child.repository = ?3
             WHERE edge.manifest = ?2 ON CONFLICT DO UPDATE SET due_at = min(due_at, excluded.due_at)",
            review::MANIFEST,
        ),
        (
            "INSERT INTO review SELECT ?1, blob.id, 0, ?4 FROM edge JOIN blob ON blob.digest = edge.digest
             WHERE edge.manifest = ?2 AND ?3 IS NOT NULL
             ON CONFLICT DO UPDATE SET due_at = min(due_at, excluded.due_at)",
            review::BLOB,
        ),
    ] {
        db.prepare_cached(sql)?.execute(params![kind, manifest, repository, now])?;
    }
    db.prepare_cached(
        "INSERT INTO review SELECT ?1, id, 0, ?4 FROM manifest WHERE repository = ?2 AND subject = ?3
         ON CONFLICT DO UPDATE SET due_at = min(due_at, excluded.due_at)",
    )?
    .execute(params![review::MANIFEST, repository, digest.to_key(), now])?;
    db.prepare_cached("DELETE FROM tag WHERE manifest = ?1")?.execute([manifest])?;
    db.prepare_cached("DELETE FROM edge WHERE manifest = ?1")?.execute([manifest])?;
    db.prepare_cached(
        "DELETE FROM referrer WHERE repository = ?1 AND digest = ?2
         AND subject = (SELECT subject FROM manifest WHERE id = ?3)",
    )?
    .execute(params![repository, digest.to_key(), manifest])?;
    db.prepare_cached("DELETE FROM manifest WHERE id = ?1")?.execute([manifest])?;
    if !deleted {
        db.prepare_cached("UPDATE repository SET manifests = manifests - 1 WHERE id = ?1")?.execute([repository])?;
    }
    quota::release(db, repository, blob)?;
    review::enqueue(db, review::BLOB, blob, 0, now)
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
