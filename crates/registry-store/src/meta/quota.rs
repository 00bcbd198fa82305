//! Owns the counting of bytes within quotas, in the transactions that alter them: each blob once,
//! however many repositories below the prefix hold it, as a blob or as a manifest.

use registry_core::{
    retention::{Quota, Rules, Usage},
    store::Refusal,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::statements::{Applied, ApplyError, Context, Repository};

/// Counts one more holder of a blob, and refuses it where there is no room.
pub(super) fn hold(at: Context<'_>, repository: Repository<'_>, blob: i64) -> Applied {
    let db = at.db;
    for quota in at.rules.quotas.iter().filter(|quota| quota.covers(repository.name)) {
        let Some(id) = find(db, quota)? else { continue };
        db.prepare_cached(
            "INSERT INTO quota_blob (quota, blob, holders) VALUES (?1, ?2, 1)
             ON CONFLICT DO UPDATE SET holders = holders + 1",
        )?
        .execute(params![id, blob])?;
        let first = db
            .prepare_cached("SELECT 1 FROM quota_blob WHERE quota = ?1 AND blob = ?2 AND holders = 1")?
            .exists(params![id, blob])?;
        if !first {
            continue;
        }
        let (used, size): (u64, u64) = db
            .prepare_cached("SELECT quota.used, blob.size FROM quota, blob WHERE quota.id = ?1 AND blob.id = ?2")?
            .query_row(params![id, blob], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let usage = Usage { quota: quota.clone(), used };
        usage.admit(0, size).map_err(|exceeded| ApplyError::Refused(Refusal::QuotaExceeded(exceeded)))?;
        db.prepare_cached("UPDATE quota SET used = used + ?2 WHERE id = ?1")?.execute(params![id, size])?;
    }
    Ok(())
}

/// Counts one holder less.
pub(super) fn release(db: &Connection, repository: i64, blob: i64) -> rusqlite::Result<()> {
    if !db.prepare_cached("SELECT 1 FROM quota")?.exists([])? {
        return Ok(());
    }
    let name: Option<String> = db
        .prepare_cached("SELECT name FROM repository WHERE id = ?1")?
        .query_row([repository], |row| row.get(0))
        .optional()?;
    let Some(name) = name else { return Ok(()) };
    let mut statement = db.prepare_cached(
        "SELECT quota.id FROM quota JOIN quota_blob ON quota_blob.quota = quota.id AND quota_blob.blob = ?2
         WHERE ?1 = quota.prefix OR substr(?1, 1, length(quota.prefix) + 1) = quota.prefix || '/'",
    )?;
    let ids: Vec<i64> = statement.query_map(params![name, blob], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in ids {
        db.prepare_cached("UPDATE quota_blob SET holders = holders - 1 WHERE quota = ?1 AND blob = ?2")?
            .execute(params![id, blob])?;
        let gone = db
            .prepare_cached("DELETE FROM quota_blob WHERE quota = ?1 AND blob = ?2 AND holders <= 0")?
            .execute(params![id, blob])?;
        if gone > 0 {
            db.prepare_cached(
                "UPDATE quota SET used = max(0, used - (SELECT size FROM blob WHERE id = ?2)) WHERE id = ?1",
            )?
            .execute(params![id, blob])?;
        }
    }
    Ok(())
}

fn find(db: &Connection, quota: &Quota) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM quota WHERE prefix = ?1")?
        .query_row([quota.prefix.as_str()], |row| row.get(0))
        .optional()
}

/// Makes the rows those of the rules: what is new is counted, what is no longer asked for goes.
pub(super) fn follow(db: &Connection, rules: &Rules) -> rusqlite::Result<()> {
    let mut statement = db.prepare("SELECT id, prefix FROM quota")?;
    let rows: Vec<(i64, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (id, prefix) in rows {
        if !rules.quotas.iter().any(|quota| quota.prefix.as_str() == prefix) {
            db.execute("DELETE FROM quota_blob WHERE quota = ?1", [id])?;
            db.execute("DELETE FROM quota WHERE id = ?1", [id])?;
        }
    }
    for quota in &rules.quotas {
        if find(db, quota)?.is_none() {
            db.execute("INSERT INTO quota (prefix, used) VALUES (?1, 0)", [quota.prefix.as_str()])?;
            count(db, db.last_insert_rowid())?;
        }
    }
    Ok(())
}

/// Counts what a quota holds, from nothing.
fn count(db: &Connection, id: i64) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO quota_blob (quota, blob, holders)
         SELECT ?1, held.blob, count(*) FROM (
            SELECT blob, repository FROM link UNION ALL SELECT blob, repository FROM manifest) AS held
         JOIN repository ON repository.id = held.repository JOIN quota ON quota.id = ?1
         WHERE repository.name = quota.prefix
            OR substr(repository.name, 1, length(quota.prefix) + 1) = quota.prefix || '/'
         GROUP BY held.blob",
        [id],
    )?;
    db.execute(
        "UPDATE quota SET used = (SELECT ifnull(sum(blob.size), 0) FROM quota_blob
            JOIN blob ON blob.id = quota_blob.blob WHERE quota_blob.quota = ?1) WHERE id = ?1",
        [id],
    )?;
    Ok(())
}

/// What the quotas hold, in the order of the rules.
pub(super) fn usage(db: &Connection, rules: &Rules) -> rusqlite::Result<Vec<Usage>> {
    let used = |quota: &Quota| {
        db.prepare_cached("SELECT used FROM quota WHERE prefix = ?1")?
            .query_row([quota.prefix.as_str()], |row| row.get(0))
            .optional()
    };
    rules.quotas.iter().map(|quota| Ok(Usage { quota: quota.clone(), used: used(quota)?.unwrap_or(0) })).collect()
}
