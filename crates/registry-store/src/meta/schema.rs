//! Owns the versions of the metadata schema. Each migration is kept as it was released; a new
//! version is a new entry at the end.

use rusqlite::Connection;

use super::sqlite::OpenError;

/// Names in `sort` have the slash replaced by U+0001, which orders the catalog component by
/// component. Digests are keys of one algorithm byte and the raw hash. Times are seconds since
/// 1970. `blob.place`: 0 the bytes are in `content`, 1 they are in the digest's file, any other
/// number is in the name of the file. `blob.state`: 0 live, 1 condemned, 2 damaged; `state_at` since
/// when.
///
/// `edge` says which manifest of which repository refers to what; `referrer.hidden` is 1 while the
/// manifest is deleted. `review` is the collection's queue: `kind` 0 is the link of a repository to
/// blob `id`, 1 a manifest, 2 a blob; none is looked at before `due_at`. A row of `purge` is a file
/// that nothing names, or, with `done_at`, a place that was used once. `tag_event.action`: 0 set,
/// 1 deleted, 2 restored. `quota_blob` counts what holds a blob within a quota: links and manifests.
///
/// `directory` has one row at most: the accounts and rules as `document` writes them, with a
/// version that every change raises.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE repository (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sort TEXT NOT NULL,
    manifests INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX repository_listed ON repository (sort) WHERE manifests > 0;
CREATE TABLE blob (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    place INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE content (
    blob INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    bytes BLOB NOT NULL
);
CREATE TABLE link (
    blob INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (blob, repository)
) WITHOUT ROWID;
CREATE TABLE manifest (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    subject BLOB,
    created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX manifest_blob ON manifest (blob, repository);
CREATE TABLE edge (
    manifest INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (manifest, digest)
) WITHOUT ROWID;
CREATE INDEX edge_digest ON edge (digest);
CREATE TABLE tag (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX tag_manifest ON tag (manifest);
CREATE TABLE referrer (
    repository INTEGER NOT NULL,
    subject BLOB NOT NULL,
    digest BLOB NOT NULL,
    artifact_type TEXT,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (repository, subject, digest)
) WITHOUT ROWID;
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    dead TEXT
);
CREATE INDEX event_queue ON event (endpoint, id) WHERE dead IS NULL;
CREATE INDEX event_dead ON event (id) WHERE dead IS NOT NULL;
",
    "
CREATE TABLE directory (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL CHECK (version > 0),
    document TEXT NOT NULL
) STRICT;
",
    "
ALTER TABLE blob ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blob ADD COLUMN state_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blob ADD COLUMN verified_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX blob_state ON blob (state, state_at) WHERE state != 0;
ALTER TABLE link ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
UPDATE link SET used_at = created_at;
ALTER TABLE manifest ADD COLUMN deleted_at INTEGER;
ALTER TABLE manifest ADD COLUMN untagged_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE manifest ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE manifest ADD COLUMN pulled_at INTEGER NOT NULL DEFAULT 0;
UPDATE manifest SET untagged_at = created_at, used_at = created_at;
CREATE INDEX manifest_subject ON manifest (repository, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifest_deleted ON manifest (deleted_at) WHERE deleted_at IS NOT NULL;
ALTER TABLE referrer ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;
CREATE TABLE reference (
    digest BLOB NOT NULL,
    repository INTEGER NOT NULL,
    manifest INTEGER NOT NULL,
    PRIMARY KEY (digest, repository, manifest)
) WITHOUT ROWID;
INSERT INTO reference SELECT edge.digest, manifest.repository, manifest.id
    FROM edge JOIN manifest ON manifest.id = edge.manifest ORDER BY 1, 2, 3;
DROP TABLE edge;
ALTER TABLE reference RENAME TO edge;
CREATE INDEX edge_manifest ON edge (manifest);
CREATE TABLE review (
    kind INTEGER NOT NULL,
    id INTEGER NOT NULL,
    repository INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id, repository)
) WITHOUT ROWID;
CREATE INDEX review_due ON review (due_at);
INSERT INTO review SELECT 0, blob, repository, 0 FROM link;
INSERT INTO review SELECT 1, id, 0, 0 FROM manifest;
INSERT INTO review SELECT 2, id, 0, 0 FROM blob;
CREATE TABLE purge (
    digest BLOB NOT NULL,
    place INTEGER NOT NULL,
    size INTEGER NOT NULL,
    done_at INTEGER,
    PRIMARY KEY (digest, place)
) WITHOUT ROWID;
CREATE INDEX purge_waiting ON purge (digest, place) WHERE done_at IS NULL;
CREATE INDEX purge_done ON purge (done_at) WHERE done_at IS NOT NULL;
CREATE TABLE tag_event (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL,
    tag TEXT NOT NULL,
    action INTEGER NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX tag_event_tag ON tag_event (repository, tag, id);
INSERT INTO tag_event (repository, tag, action, digest, at)
    SELECT tag.repository, tag.name, 0, blob.digest, tag.updated_at
    FROM tag JOIN manifest ON manifest.id = tag.manifest JOIN blob ON blob.id = manifest.blob;
CREATE TABLE state (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE quota (
    id INTEGER PRIMARY KEY,
    prefix TEXT NOT NULL UNIQUE,
    used INTEGER NOT NULL
);
CREATE TABLE quota_blob (
    quota INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    holders INTEGER NOT NULL,
    PRIMARY KEY (quota, blob)
) WITHOUT ROWID;
",
];

/// Fails unless a database has exactly this program's version.
pub(crate) fn check(connection: &Connection) -> Result<(), OpenError> {
    let have: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match have.cmp(&MIGRATIONS.len()) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(OpenError::Newer { have, known: MIGRATIONS.len() }),
        std::cmp::Ordering::Less => Err(OpenError::Older { have, known: MIGRATIONS.len() }),
    }
}

/// Brings a database to the newest version, one transaction for each step.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let have: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if have > MIGRATIONS.len() {
        return Err(OpenError::Newer { have, known: MIGRATIONS.len() });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(have) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, migrate};
    use crate::meta::sqlite::OpenError;

    #[test]
    fn a_newer_schema_is_refused() {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", MIGRATIONS.len() + 1).unwrap();
        assert!(matches!(migrate(&mut connection), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn every_older_schema_is_brought_up_to_date_with_its_rows() {
        let schema = |connection: &rusqlite::Connection| -> Vec<String> {
            let mut statement = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name").unwrap();
            statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap().flat_map(Result::unwrap).collect()
        };
        let mut new = rusqlite::Connection::open_in_memory().unwrap();
        migrate(&mut new).unwrap();
        for version in 1..MIGRATIONS.len() {
            let mut old = rusqlite::Connection::open_in_memory().unwrap();
            MIGRATIONS[..version].iter().for_each(|migration| old.execute_batch(migration).unwrap());
            old.pragma_update(None, "user_version", version).unwrap();
            old.execute("INSERT INTO repository (name, sort) VALUES ('kept', 'kept')", []).unwrap();
            migrate(&mut old).unwrap();
            let kept: String = old.query_row("SELECT name FROM repository", [], |row| row.get(0)).unwrap();
            assert_eq!((kept.as_str(), schema(&old)), ("kept", schema(&new)), "from version {version}");
        }
    }
}
