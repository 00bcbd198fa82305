//! Owns what became of tags, and bringing back what was deleted.

use registry_core::{
    digest::Digest,
    name::RepoName,
    reference::{Reference, Tag},
    store::{Refusal, TagAction, TagEvent},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::statements::{
    Applied, Context, Repository, digest_from, find_manifest, find_repository, set_tag, show_manifest,
};

/// Entries of one tag that are kept at least.
const KEPT: i64 = 100;
/// How long entries are kept, in seconds: a year.
const KEPT_FOR: i64 = 366 * 24 * 3600;
/// Old entries that go at a time.
const FORGOTTEN: i64 = 256;

fn number(action: TagAction) -> i64 {
    match action {
        TagAction::Set => 0,
        TagAction::Deleted => 1,
        TagAction::Restored => 2,
    }
}

/// Writes down what becomes of a tag.
pub(super) fn note(
    at: Context<'_>,
    repository: i64,
    tag: &Tag,
    action: TagAction,
    digest: &Digest,
) -> rusqlite::Result<()> {
    let db = at.db;
    db.prepare_cached("INSERT INTO tag_event (repository, tag, action, digest, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![repository, tag.as_str(), number(action), digest.to_key(), at.now])?;
    // Now and then is enough to keep a tag that moves every minute within bounds.
    if db.last_insert_rowid() % 32 == 0 {
        db.prepare_cached(
            "DELETE FROM tag_event WHERE repository = ?1 AND tag = ?2 AND id <= (
                SELECT id FROM tag_event WHERE repository = ?1 AND tag = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![repository, tag.as_str(), KEPT])?;
    }
    Ok(())
}

/// Forgets some of what is older than a year.
pub(super) fn forget(db: &Connection, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM tag_event WHERE at < ?1 AND id IN (SELECT id FROM tag_event ORDER BY id LIMIT ?2)")?
        .execute(params![now.saturating_sub(KEPT_FOR), FORGOTTEN])?;
    Ok(())
}

/// What became of a repository's tags, or of one, newest first.
pub(super) fn list(
    db: &Connection,
    repository: &RepoName,
    tag: Option<&Tag>,
    limit: usize,
) -> rusqlite::Result<Vec<TagEvent>> {
    let mut statement = db.prepare_cached(
        "SELECT tag_event.at, tag_event.tag, tag_event.action, tag_event.digest, EXISTS (
            SELECT 1 FROM blob JOIN manifest ON manifest.blob = blob.id
            WHERE blob.digest = tag_event.digest AND manifest.repository = tag_event.repository)
         FROM tag_event WHERE repository = (SELECT id FROM repository WHERE name = ?1)
         AND (?2 IS NULL OR tag = ?2) ORDER BY id DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![repository.as_str(), tag.map(Tag::as_str), limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(tag) = row.get_ref(1)?.as_str()?.parse() else { continue };
        let action = match row.get(2)? {
            0 => TagAction::Set,
            1 => TagAction::Deleted,
            2 => TagAction::Restored,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        };
        events.push(TagEvent { at: row.get(0)?, tag, action, digest: digest_from(row, 3)?, kept: row.get(4)? });
    }
    Ok(events)
}

/// Brings back a tag as it was last, or a manifest with the tags that were taken with it.
pub(super) fn undelete(at: Context<'_>, name: &RepoName, reference: &Reference) -> Applied {
    let nothing = || {
        Refusal::NothingToUndelete(match reference {
            Reference::Tag(tag) => format!("{name}:{tag}"),
            Reference::Digest(digest) => format!("{name}@{digest}"),
        })
    };
    let repository = find_repository(at.db, name)?.ok_or_else(nothing)?;
    match reference {
        Reference::Tag(tag) => {
            if let Some(digest) = named(at.db, repository.id, tag)? {
                return Err(Refusal::TagTaken { tag: tag.clone(), digest }.into());
            }
            let digest = last(at.db, repository.id, tag)?.map(|(digest, _)| digest).ok_or_else(nothing)?;
            bring_back(at, repository, tag, &digest, nothing)
        }
        Reference::Digest(digest) => {
            let (manifest, deleted_at) = find_manifest(at.db, repository.id, digest)?.ok_or_else(nothing)?;
            let Some(deleted_at) = deleted_at else { return Ok(()) };
            show_manifest(at, repository, manifest, digest)?;
            for tag in taken_with(at.db, repository.id, digest, deleted_at)? {
                let is_last = last(at.db, repository.id, &tag)?.is_some_and(|(named, _)| named == *digest);
                if is_last && named(at.db, repository.id, &tag)?.is_none() {
                    set_tag(at, repository, &tag, manifest, digest, TagAction::Restored)?;
                }
            }
            Ok(())
        }
    }
}

fn bring_back(
    at: Context<'_>,
    repository: Repository<'_>,
    tag: &Tag,
    digest: &Digest,
    nothing: impl Fn() -> Refusal,
) -> Applied {
    let (manifest, deleted_at) = find_manifest(at.db, repository.id, digest)?.ok_or_else(nothing)?;
    if deleted_at.is_some() {
        show_manifest(at, repository, manifest, digest)?;
    }
    set_tag(at, repository, tag, manifest, digest, TagAction::Restored)
}

fn named(db: &Connection, repository: i64, tag: &Tag) -> rusqlite::Result<Option<Digest>> {
    db.prepare_cached(
        "SELECT blob.digest FROM tag JOIN manifest ON manifest.id = tag.manifest JOIN blob ON blob.id = manifest.blob
         WHERE tag.repository = ?1 AND tag.name = ?2",
    )?
    .query_row(params![repository, tag.as_str()], |row| digest_from(row, 0))
    .optional()
}

/// What a tag named last, and the number of what became of it then.
fn last(db: &Connection, repository: i64, tag: &Tag) -> rusqlite::Result<Option<(Digest, i64)>> {
    db.prepare_cached(
        "SELECT digest, action FROM tag_event WHERE repository = ?1 AND tag = ?2 ORDER BY id DESC LIMIT 1",
    )?
    .query_row(params![repository, tag.as_str()], |row| Ok((digest_from(row, 0)?, row.get(1)?)))
    .optional()
}

/// The tags that went when a manifest was deleted.
fn taken_with(db: &Connection, repository: i64, digest: &Digest, deleted_at: i64) -> rusqlite::Result<Vec<Tag>> {
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT tag FROM tag_event WHERE repository = ?1 AND digest = ?2 AND action = 1 AND at = ?3",
    )?;
    let rows = statement.query_map(params![repository, digest.to_key(), deleted_at], |row| row.get::<_, String>(0))?;
    rows.filter_map(|tag| tag.map(|tag| tag.parse().ok()).transpose()).collect()
}
