//! Owns the rows of an adoption and of a release: what a repository holds, taken over in large
//! transactions, and read in whole. Knows no files.

use std::collections::HashMap;

use registry_core::{
    adopt::{Named, Rows, Standing, State},
    digest::Digest,
    gc,
    manifest::Manifest,
    name::RepoName,
    reference::Tag,
    retention::Rules,
    store::{Change, Place, TagAction},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    now, review,
    statements::{
        self, Applied, ApplyError, Context, digest_from, find_manifest, find_repository, insert_manifest_row, link,
        make_repository, note_purge, place_from, place_number, set_tag, show_manifest,
    },
};

/// A change of one repository.
#[derive(Debug)]
pub(crate) enum Step {
    /// It gets a blob.
    Link(Named),
    /// It gets a manifest; whether a tag will name it.
    Manifest(Named, Box<Manifest>, bool),
    /// A tag is made or moved, at that time.
    SetTag(Tag, Digest, i64),
    /// A tag goes.
    DeleteTag(Tag),
    /// A manifest goes, for the grace period.
    DeleteManifest(Digest),
    /// A blob is no longer held.
    Unlink(Digest),
}

/// What the rows hold that a client can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Repositories that have a manifest.
    pub repositories: u64,
    /// Manifests, each counted in each repository.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs, manifests among them.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Whose the directory is. `links` is for the caller to tell.
pub(crate) fn standing(db: &Connection, links: bool) -> rusqlite::Result<Standing> {
    let state = review::state(db, registry_core::adopt::STATE)?.and_then(|text| State::from_text(&text));
    let rows = db.prepare("SELECT 1 FROM repository")?.exists([])?;
    Ok(Standing { state, rows, links })
}

/// Keeps whose the directory is.
pub(crate) fn set_state(db: &Connection, state: State) -> rusqlite::Result<()> {
    review::set_state(db, registry_core::adopt::STATE, Some(state.as_str()))
}

/// Before rows are taken over: quotas are counted anew by the next server.
pub(crate) fn begin(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("DELETE FROM quota_blob; DELETE FROM quota")
}

/// The names of all repositories.
pub(crate) fn repositories(db: &Connection) -> rusqlite::Result<Vec<RepoName>> {
    let mut statement = db.prepare("SELECT name FROM repository ORDER BY sort")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    names.filter_map(|name| name.map(|name| name.parse().ok()).transpose()).collect()
}

/// What a client could read of a repository.
pub(crate) fn rows(db: &Connection, name: &RepoName) -> rusqlite::Result<Rows> {
    let mut rows = Rows::default();
    let Some(repository) = find_repository(db, name)? else { return Ok(rows) };
    let mut statement = db.prepare_cached(
        "SELECT blob.digest FROM link JOIN blob ON blob.id = link.blob WHERE link.repository = ?1 AND blob.state = 0",
    )?;
    rows.links = statement.query_map([repository.id], |row| digest_from(row, 0))?.collect::<Result<_, _>>()?;
    let mut statement = db.prepare_cached(
        "SELECT blob.digest FROM manifest JOIN blob ON blob.id = manifest.blob
         WHERE manifest.repository = ?1 AND manifest.deleted_at IS NULL AND blob.state = 0",
    )?;
    rows.manifests = statement.query_map([repository.id], |row| digest_from(row, 0))?.collect::<Result<_, _>>()?;
    let mut statement = db.prepare_cached(
        "SELECT tag.name, blob.digest FROM tag JOIN manifest ON manifest.id = tag.manifest
         JOIN blob ON blob.id = manifest.blob WHERE tag.repository = ?1 AND blob.state = 0",
    )?;
    let mut tags = statement.query([repository.id])?;
    while let Some(row) = tags.next()? {
        if let Ok(tag) = row.get_ref(0)?.as_str()?.parse() {
            rows.tags.insert(tag, digest_from(row, 1)?);
        }
    }
    Ok(rows)
}

/// Carries steps out, in order.
pub(crate) fn take(db: &Connection, steps: &[(RepoName, Vec<Step>)]) -> rusqlite::Result<()> {
    // No rules: the other server has let all of this in.
    let (rules, now) = (Rules::default(), now());
    let at = Context { db, rules: &rules, now };
    for (name, steps) in steps {
        for step in steps {
            match one(at, name, step) {
                // What is to go is gone already.
                Ok(()) | Err(ApplyError::Refused(_)) => {}
                Err(ApplyError::Sql(error)) => return Err(error),
            }
        }
    }
    Ok(())
}

fn one(at: Context<'_>, name: &RepoName, step: &Step) -> Applied {
    match step {
        Step::Link(named) => {
            let repository = make_repository(at.db, name)?;
            let blob = blob(at, &named.digest, named.size)?;
            link(at, repository, blob)
        }
        Step::Manifest(named, manifest, tagged) => {
            let repository = make_repository(at.db, name)?;
            let blob = blob(at, &named.digest, named.size)?;
            let id = match find_manifest(at.db, repository.id, &named.digest)? {
                Some((id, None)) => id,
                Some((id, Some(_))) => {
                    show_manifest(at, repository, id, &named.digest)?;
                    id
                }
                None => insert_manifest_row(at, repository, blob, &named.digest, named.size, manifest)?,
            };
            if !tagged {
                let policy = &at.rules.gc;
                let due = at.now.saturating_add(policy.grace.min(policy.untagged.unwrap_or(policy.grace)));
                review::enqueue(at.db, review::MANIFEST, id, 0, due)?;
            }
            Ok(())
        }
        Step::SetTag(tag, digest, pushed_at) => {
            let repository = make_repository(at.db, name)?;
            let Some((manifest, None)) = find_manifest(at.db, repository.id, digest)? else { return Ok(()) };
            // A clock that was wrong must not make a tag younger than now.
            let at = Context { now: (*pushed_at).min(at.now), ..at };
            set_tag(at, repository, tag, manifest, digest, TagAction::Set)
        }
        Step::DeleteTag(tag) => statements::apply(at, &Change::DeleteTag(name.clone(), tag.clone()), &[]),
        Step::DeleteManifest(digest) => statements::apply(at, &Change::DeleteManifest(name.clone(), *digest), &[]),
        Step::Unlink(digest) => statements::apply(at, &Change::DeleteBlob(name.clone(), *digest), &[]),
    }
}

/// The row of a blob whose bytes are in its canonical file; live again if it was not.
fn blob(at: Context<'_>, digest: &Digest, size: u64) -> rusqlite::Result<i64> {
    let Context { db, now, .. } = at;
    let (key, size) = (digest.to_key(), i64::try_from(size).unwrap_or(i64::MAX));
    let known: Option<(i64, i64, i64)> = db
        .prepare_cached("SELECT id, place, state FROM blob WHERE digest = ?1")?
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    // The file is there and needed, whatever became of one at that place before.
    let keep = || {
        db.prepare_cached("DELETE FROM purge WHERE digest = ?1 AND place = 1")?.execute([&key])?;
        Ok::<(), rusqlite::Error>(())
    };
    match known {
        None => {
            keep()?;
            db.prepare_cached("INSERT INTO blob (digest, size, place, created_at) VALUES (?1, ?2, 1, ?3)")?
                .execute(params![key, size, now])?;
            Ok(db.last_insert_rowid())
        }
        Some((id, _, 0)) => Ok(id),
        Some((id, place, _)) => {
            keep()?;
            if place > 1 {
                note_purge(db, &key, place, size)?;
            }
            db.prepare_cached("DELETE FROM content WHERE blob = ?1")?.execute([id])?;
            db.prepare_cached("UPDATE blob SET place = 1, size = ?2, state = 0, state_at = ?3 WHERE id = ?1")?
                .execute(params![id, size, now])?;
            Ok(id)
        }
    }
}

/// Gives files that no repository names a row, and a review once the grace period is over. Returns
/// how many there are.
pub(crate) fn take_unnamed(db: &Connection, files: &[(Digest, u64)]) -> rusqlite::Result<u64> {
    let now = now();
    let mut count = 0;
    for (digest, size) in files {
        let (key, size) = (digest.to_key(), i64::try_from(*size).unwrap_or(i64::MAX));
        let new = db
            .prepare_cached(
                "INSERT INTO blob (digest, size, place, created_at) VALUES (?1, ?2, 1, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![key, size, now])?;
        if new > 0 {
            let id = db.last_insert_rowid();
            db.prepare_cached("DELETE FROM purge WHERE digest = ?1 AND place = 1")?.execute([&key])?;
            review::enqueue(db, review::BLOB, id, 0, now.saturating_add(gc::Policy::default().grace))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Live blobs whose bytes are in their canonical file, as far as rows say.
pub(crate) fn canonical_blobs(db: &Connection) -> rusqlite::Result<Vec<Digest>> {
    let mut statement = db.prepare("SELECT digest FROM blob WHERE place = 1 AND state = 0")?;
    statement.query_map([], |row| digest_from(row, 0))?.collect()
}

/// Forgets blobs whose files the other server has removed, with all that names them.
pub(crate) fn forget(db: &Connection, digests: &[Digest]) -> rusqlite::Result<()> {
    let now = now();
    for digest in digests {
        let key = digest.to_key();
        let id: Option<i64> = db
            .prepare_cached("SELECT id FROM blob WHERE digest = ?1 AND place = 1 AND state = 0")?
            .query_row([&key], |row| row.get(0))
            .optional()?;
        let Some(id) = id else { continue };
        let mut statement = db.prepare_cached("SELECT id FROM manifest WHERE blob = ?1")?;
        let manifests: Vec<i64> = statement.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for manifest in manifests {
            statements::remove_manifest(db, manifest, now)?;
        }
        for sql in [
            "DELETE FROM link WHERE blob = ?1",
            "DELETE FROM review WHERE id = ?1 AND kind IN (0, 2)",
            "DELETE FROM blob WHERE id = ?1",
        ] {
            db.prepare_cached(sql)?.execute([id])?;
        }
    }
    Ok(())
}

/// What the rows hold.
pub(crate) fn totals(db: &Connection) -> rusqlite::Result<Totals> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u64>(0));
    let (blobs, bytes) =
        db.query_row("SELECT count(*), ifnull(sum(size), 0) FROM blob WHERE state = 0", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(Totals {
        repositories: count("SELECT count(*) FROM repository WHERE manifests > 0")?,
        manifests: count("SELECT count(*) FROM manifest WHERE deleted_at IS NULL")?,
        tags: count("SELECT count(*) FROM tag")?,
        blobs,
        bytes,
    })
}

/// What the tags of a repository ever named and that still is there, beside what they name now.
pub(crate) fn past(db: &Connection, name: &RepoName) -> rusqlite::Result<HashMap<Tag, Vec<Digest>>> {
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT tag_event.tag, tag_event.digest FROM tag_event
         JOIN blob ON blob.digest = tag_event.digest
         JOIN manifest ON manifest.blob = blob.id AND manifest.repository = tag_event.repository
         WHERE tag_event.repository = (SELECT id FROM repository WHERE name = ?1)
         AND manifest.deleted_at IS NULL AND blob.state = 0",
    )?;
    let mut past: HashMap<Tag, Vec<Digest>> = HashMap::new();
    let mut rows = statement.query([name.as_str()])?;
    while let Some(row) = rows.next()? {
        if let Ok(tag) = row.get_ref(0)?.as_str()?.parse() {
            past.entry(tag).or_default().push(digest_from(row, 1)?);
        }
    }
    Ok(past)
}

/// Up to `limit` live blobs after `after` whose bytes are in files with a number in the name, in
/// the order of their digests.
pub(crate) fn numbered(
    db: &Connection,
    after: Option<&Digest>,
    limit: usize,
) -> rusqlite::Result<Vec<(Digest, Place)>> {
    let mut statement = db.prepare_cached(
        "SELECT digest, place FROM blob WHERE place > 1 AND state = 0 AND digest > ?1 ORDER BY digest LIMIT ?2",
    )?;
    let after = after.map(Digest::to_key).unwrap_or_default();
    let rows = statement.query_map(params![after, limit], |row| Ok((digest_from(row, 0)?, place_from(row.get(1)?))))?;
    rows.filter_map(|row| row.map(|(digest, place)| Some((digest, place?))).transpose()).collect()
}

/// Records that the canonical files of these blobs hold their bytes; their other files are to be
/// removed.
pub(crate) fn moved(db: &Connection, blobs: &[(Digest, Place)]) -> rusqlite::Result<()> {
    for (digest, place) in blobs {
        let key = digest.to_key();
        db.prepare_cached("DELETE FROM purge WHERE digest = ?1 AND place = 1")?.execute([&key])?;
        db.prepare_cached("UPDATE blob SET place = 1 WHERE digest = ?1")?.execute([&key])?;
        note_purge(db, &key, place_number(*place), 0)?;
    }
    Ok(())
}
