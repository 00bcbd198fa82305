//! Owns the rows of the online collection: its queue, what a review finds, condemned blobs, files
//! to be purged. What they mean is decided in `registry_core::gc`.

use registry_core::{
    gc::{
        Backlog, BlobFacts, LinkFacts, ManifestFacts, Policy, Purge, Reviewed, Verdict, is_garbage, review_link,
        review_manifest,
    },
    name::RepoName,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    history,
    statements::{self, Context, digest_from, note_purge, place_from, place_number},
};

/// The link of a repository to a blob; `id` is the blob.
pub(crate) const LINK: i64 = 0;
/// A manifest.
pub(crate) const MANIFEST: i64 = 1;
/// A blob.
pub(crate) const BLOB: i64 = 2;

/// The state of a blob that somebody holds, or that nobody has looked at yet.
const LIVE: i64 = 0;
/// The state of a blob that goes unless it is pushed again.
const CONDEMNED: i64 = 1;

/// The number of the canonical place.
const CANONICAL: i64 = 1;
/// How long it is remembered that a place was used, in seconds. No writer is that slow.
const REMEMBERED: i64 = 30 * 24 * 3600;

/// Asks for a review no later than at `due`.
pub(crate) fn enqueue(db: &Connection, kind: i64, id: i64, repository: i64, due: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO review (kind, id, repository, due_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET due_at = min(due_at, excluded.due_at)",
    )?
    .execute(params![kind, id, repository, due])?;
    Ok(())
}

fn postpone(db: &Connection, kind: i64, id: i64, repository: i64, due: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE review SET due_at = ?4 WHERE kind = ?1 AND id = ?2 AND repository = ?3")?
        .execute(params![kind, id, repository, due])?;
    Ok(())
}

fn dequeue(db: &Connection, kind: i64, id: i64, repository: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM review WHERE kind = ?1 AND id = ?2 AND repository = ?3")?
        .execute(params![kind, id, repository])?;
    Ok(())
}

/// G1. The names of the repositories whose answers it altered go to `touched`.
pub(super) fn review(
    at: Context<'_>,
    policy: &Policy,
    limit: usize,
    touched: &mut Vec<RepoName>,
) -> rusqlite::Result<Reviewed> {
    let Context { db, now, .. } = at;
    let mut statement =
        db.prepare_cached("SELECT kind, id, repository FROM review WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2")?;
    let due: Vec<(i64, i64, i64)> = statement
        .query_map(params![now, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let mut done = Reviewed { reviews: due.len(), ..Reviewed::default() };
    for (kind, id, repository) in due {
        let verdict = match kind {
            LINK => link_facts(db, id, repository)?.map(|facts| review_link(&facts, policy, now)),
            MANIFEST => manifest_facts(db, id)?.map(|facts| review_manifest(&facts, policy, now)),
            _ => Some(Verdict::Remove),
        };
        match verdict {
            None | Some(Verdict::Keep) => dequeue(db, kind, id, repository)?,
            Some(Verdict::Later(due)) => postpone(db, kind, id, repository, due)?,
            Some(Verdict::Remove) => {
                dequeue(db, kind, id, repository)?;
                match kind {
                    LINK => {
                        touched.extend(name_of(db, repository)?);
                        statements::unlink(at, repository, id)?;
                        done.links += 1;
                        done.condemned += usize::from(condemn(db, id, now)?);
                    }
                    MANIFEST => {
                        let (repository, blob): (i64, i64) = db
                            .prepare_cached("SELECT repository, blob FROM manifest WHERE id = ?1")?
                            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                        touched.extend(name_of(db, repository)?);
                        statements::remove_manifest(db, id, now)?;
                        done.manifests += 1;
                        done.condemned += usize::from(condemn(db, blob, now)?);
                    }
                    _ => done.condemned += usize::from(condemn(db, id, now)?),
                }
            }
        }
    }
    Ok(done)
}

fn name_of(db: &Connection, repository: i64) -> rusqlite::Result<Option<RepoName>> {
    let name: Option<String> = db
        .prepare_cached("SELECT name FROM repository WHERE id = ?1")?
        .query_row([repository], |row| row.get(0))
        .optional()?;
    Ok(name.and_then(|name| name.parse().ok()))
}

fn link_facts(db: &Connection, blob: i64, repository: i64) -> rusqlite::Result<Option<LinkFacts>> {
    db.prepare_cached(
        "SELECT link.used_at, EXISTS (
            SELECT 1 FROM edge WHERE edge.digest = blob.digest AND edge.repository = link.repository)
         FROM link JOIN blob ON blob.id = link.blob WHERE link.blob = ?1 AND link.repository = ?2",
    )?
    .query_row(params![blob, repository], |row| Ok(LinkFacts { used_at: row.get(0)?, referred: row.get(1)? }))
    .optional()
}

fn manifest_facts(db: &Connection, manifest: i64) -> rusqlite::Result<Option<ManifestFacts>> {
    db.prepare_cached(
        "SELECT manifest.deleted_at, manifest.untagged_at, manifest.used_at,
            EXISTS (SELECT 1 FROM tag WHERE tag.manifest = manifest.id),
            EXISTS (SELECT 1 FROM edge WHERE edge.digest = blob.digest AND edge.repository = manifest.repository),
            manifest.subject IS NOT NULL,
            EXISTS (SELECT 1 FROM blob AS about JOIN manifest AS subject ON subject.blob = about.id
                WHERE about.digest = manifest.subject AND subject.repository = manifest.repository)
         FROM manifest JOIN blob ON blob.id = manifest.blob WHERE manifest.id = ?1",
    )?
    .query_row([manifest], |row| {
        let subject = if row.get(5)? { Some(row.get(6)?) } else { None };
        Ok(ManifestFacts {
            deleted_at: row.get(0)?,
            untagged_at: row.get(1)?,
            used_at: row.get(2)?,
            tagged: row.get(3)?,
            listed: row.get(4)?,
            subject,
        })
    })
    .optional()
}

fn blob_facts(db: &Connection, blob: i64) -> rusqlite::Result<Option<BlobFacts>> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM link WHERE link.blob = blob.id)
             OR EXISTS (SELECT 1 FROM manifest WHERE manifest.blob = blob.id),
            EXISTS (SELECT 1 FROM edge WHERE edge.digest = blob.digest)
         FROM blob WHERE blob.id = ?1",
    )?
    .query_row([blob], |row| Ok(BlobFacts { held: row.get(0)?, referred: row.get(1)? }))
    .optional()
}

/// Condemns a blob that nothing needs; returns whether it did.
fn condemn(db: &Connection, blob: i64, now: i64) -> rusqlite::Result<bool> {
    if !blob_facts(db, blob)?.is_some_and(|facts| is_garbage(&facts)) {
        return Ok(false);
    }
    let condemned = db
        .prepare_cached("UPDATE blob SET state = ?2, state_at = ?3 WHERE id = ?1 AND state != ?2")?
        .execute(params![blob, CONDEMNED, now])?;
    Ok(condemned > 0)
}

/// G2.
pub(super) fn retire(at: Context<'_>, policy: &Policy, limit: usize) -> rusqlite::Result<usize> {
    let Context { db, now, .. } = at;
    if is_held(db)? {
        return Ok(0);
    }
    history::forget(db, now)?;
    let mut statement = db.prepare_cached(
        // SQLite takes the index of what is not live only where that is said in its own words.
        "SELECT id, digest, place, size FROM blob WHERE state = ?1 AND state != 0 AND state_at <= ?2
         ORDER BY state_at LIMIT ?3",
    )?;
    let condemned: Vec<(i64, Vec<u8>, i64, i64)> = statement
        .query_map(params![CONDEMNED, now.saturating_sub(policy.quarantine), limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    let count = condemned.len();
    for (id, key, place, size) in condemned {
        if !blob_facts(db, id)?.is_some_and(|facts| is_garbage(&facts)) {
            db.prepare_cached("UPDATE blob SET state = ?2 WHERE id = ?1")?.execute(params![id, LIVE])?;
            continue;
        }
        db.prepare_cached("DELETE FROM content WHERE blob = ?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM quota_blob WHERE blob = ?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM blob WHERE id = ?1")?.execute([id])?;
        dequeue(db, BLOB, id, 0)?;
        // What is inline may be on its way to its file at this moment, or was before a crash.
        note_purge(db, &key, place.max(CANONICAL), size)?;
    }
    Ok(count)
}

/// Whether somebody, such as a backup, asked that no bytes go. By the clock that they went by.
fn is_held(db: &Connection) -> rusqlite::Result<bool> {
    let until = state(db, "gc.hold_until")?.and_then(|until| until.parse::<i64>().ok());
    Ok(until.is_some_and(|until| until > super::now()))
}

/// Files to be removed.
pub(super) fn purges(db: &Connection, limit: usize) -> rusqlite::Result<Vec<Purge>> {
    if is_held(db)? {
        return Ok(Vec::new());
    }
    let mut statement =
        db.prepare_cached("SELECT digest, place FROM purge WHERE done_at IS NULL ORDER BY digest, place LIMIT ?1")?;
    let mut rows = statement.query([limit])?;
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get(1)?;
        let place = place_from(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(1, number))?;
        files.push(Purge { digest: digest_from(row, 0)?, place });
    }
    Ok(files)
}

/// Whether a row names the file.
pub(super) fn names(db: &Connection, file: &Purge) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1 AND place = ?2")?
        .exists(params![file.digest.to_key(), place_number(file.place)])
}

/// G3, afterwards.
pub(super) fn purged(db: &Connection, files: &[Purge], now: i64) -> rusqlite::Result<()> {
    for file in files {
        let key = file.digest.to_key();
        if file.place == registry_core::store::Place::Canonical {
            db.prepare_cached("UPDATE purge SET done_at = ?3 WHERE digest = ?1 AND place = ?2")?.execute(params![
                key,
                place_number(file.place),
                now
            ])?;
        } else {
            // Its number never comes again.
            db.prepare_cached("DELETE FROM purge WHERE digest = ?1 AND place = ?2")?
                .execute(params![key, place_number(file.place)])?;
        }
    }
    db.prepare_cached("DELETE FROM purge WHERE done_at < ?1")?.execute([now.saturating_sub(REMEMBERED)])?;
    Ok(())
}

/// Puts everything that may be garbage into the queue, and makes all of it due.
pub(crate) fn review_all(db: &Connection) -> rusqlite::Result<u64> {
    db.execute_batch(
        "UPDATE review SET due_at = 0;
         INSERT OR IGNORE INTO review SELECT 0, link.blob, link.repository, 0 FROM link JOIN blob ON blob.id = link.blob
            WHERE NOT EXISTS (SELECT 1 FROM edge WHERE edge.digest = blob.digest AND edge.repository = link.repository);
         INSERT OR IGNORE INTO review SELECT 1, id, 0, 0 FROM manifest
            WHERE NOT EXISTS (SELECT 1 FROM tag WHERE tag.manifest = manifest.id);
         INSERT OR IGNORE INTO review SELECT 2, id, 0, 0 FROM blob
            WHERE NOT EXISTS (SELECT 1 FROM link WHERE link.blob = blob.id)
            AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.blob = blob.id);",
    )?;
    db.query_row("SELECT count(*) FROM review", [], |row| row.get(0))
}

/// What waits.
pub(super) fn backlog(db: &Connection, now: i64) -> rusqlite::Result<Backlog> {
    let one = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| row.get::<_, u64>(0));
    let two = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(Backlog {
        reviews: one("SELECT count(*) FROM review")?,
        due: db.prepare_cached("SELECT count(*) FROM review WHERE due_at <= ?1")?.query_row([now], |row| row.get(0))?,
        condemned: two("SELECT count(*), ifnull(sum(size), 0) FROM blob WHERE state = 1 AND state != 0")?,
        purges: two("SELECT count(*), ifnull(sum(size), 0) FROM purge WHERE done_at IS NULL")?,
        deleted: one("SELECT count(*) FROM manifest WHERE deleted_at IS NOT NULL")?,
    })
}

/// A value that outlives the process.
pub(crate) fn state(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT value FROM state WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// Keeps or forgets a value.
pub(crate) fn set_state(db: &Connection, name: &str, value: Option<&str>) -> rusqlite::Result<()> {
    match value {
        Some(value) => db
            .prepare_cached("INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)")?
            .execute(params![name, value])?,
        None => db.prepare_cached("DELETE FROM state WHERE name = ?1")?.execute([name])?,
    };
    Ok(())
}
