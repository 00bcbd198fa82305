//! Owns the look at a data directory that nobody serves: whether its rows agree with each other and
//! with the files. Reads only.
//!
//! Does not own repairs: a damaged or missing blob is mended by pushing it again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use registry_core::{
    digest::{Algorithm, Digest},
    manifest::{IndexPolicy, Role, is_manifest, parse},
    store::Place,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    data_dir::{DataDir, DataDirError, place_of},
    meta::{
        digest_from, now, readonly,
        sqlite::OpenError,
        statements::{place_from, place_number},
    },
    verify::{CHUNK, Flaw, verify_bytes, verify_file, verify_size},
};

/// Problems that are listed; more are only counted.
const LISTED: usize = 10_000;
/// An upload that was not touched for so long is a leftover: no client comes back to it.
const UPLOAD_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Furthest that a review may lie ahead, in seconds: a hundred years.
const FURTHEST_REVIEW: i64 = 100 * 366 * 24 * 3600;

/// How to look.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether to read all bytes and compare their digests, instead of only their sizes.
    pub read: bool,
    /// Which entries of an index have to be there.
    pub index_policy: IndexPolicy,
}

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A blob without its bytes.
    Missing,
    /// A blob with wrong bytes.
    Damaged,
    /// Something names what is not there.
    Dangling,
    /// A file that no row names. It takes space, and does no harm.
    Orphan,
    /// Something that an interruption left behind. It takes space, and does no harm.
    Leftover,
    /// Rows that contradict each other.
    Metadata,
}

impl Kind {
    /// As it is written: `missing`, `damaged`, `dangling`, `orphan`, `leftover` or `metadata`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Dangling => "dangling",
            Self::Orphan => "orphan",
            Self::Leftover => "leftover",
            Self::Metadata => "metadata",
        }
    }

    /// Whether something is wrong, rather than only in the way.
    pub const fn is_damage(self) -> bool {
        !matches!(self, Self::Orphan | Self::Leftover)
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// What it is about: a digest, `repository:tag`, `repository@digest`, or a path.
    pub subject: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What a look found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Manifests, those that can be brought back included.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Repositories.
    pub repositories: u64,
    /// How many problems of each kind there are.
    pub counts: BTreeMap<Kind, u64>,
    /// The first 10,000 of them.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether nothing is wrong. What is only in the way does not count.
    pub fn is_sound(&self) -> bool {
        self.counts.keys().all(|kind| !kind.is_damage())
    }

    fn add(&mut self, kind: Kind, subject: impl Into<String>, detail: impl Into<String>) {
        *self.counts.entry(kind).or_default() += 1;
        if self.problems.len() < LISTED {
            self.problems.push(Problem { kind, subject: subject.into(), detail: detail.into() });
        }
    }

    fn add_flaw(&mut self, digest: &Digest, flaw: &Flaw) {
        let kind = if *flaw == Flaw::Missing { Kind::Missing } else { Kind::Damaged };
        self.add(kind, digest.to_string(), flaw.to_string());
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory cannot be opened, or somebody uses it.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// There is no metadata.
    #[error("{} is not there: this is no data directory of this registry, or its metadata is lost", .0.display())]
    NoMetadata(PathBuf),
    /// The metadata cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metadata cannot be read.
    #[error("read the metadata")]
    Sqlite(#[from] rusqlite::Error),
    /// A file cannot be looked at just now, which says nothing about it.
    #[error("look at {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CheckError {
    let path = path.to_owned();
    move |source| CheckError::Io { path, source }
}

/// Looks at the data directory at `root`. `progress` is told how many bytes of how many are looked
/// at so far.
pub fn check(root: &Path, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, CheckError> {
    let dir = DataDir::open_to_read(root)?;
    let path = dir.metadata();
    if !path.exists() {
        return Err(CheckError::NoMetadata(path));
    }
    let db = readonly::open(&path)?;
    let mut report = Report::default();
    if !integrity(&db, &mut report)? {
        return Ok(report);
    }
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u64>(0));
    report.blobs = count("SELECT count(*) FROM blob")?;
    report.bytes = count("SELECT ifnull(sum(size), 0) FROM blob")?;
    report.manifests = count("SELECT count(*) FROM manifest")?;
    report.tags = count("SELECT count(*) FROM tag")?;
    report.repositories = count("SELECT count(*) FROM repository")?;
    rows(&db, &mut report)?;
    blobs(&db, &dir, options, &mut report, progress)?;
    references(&db, &dir, &options.index_policy, &mut report)?;
    files(&db, &dir, &mut report)?;
    leftovers(&dir, &mut report)?;
    Ok(report)
}

/// SQLite's own look; where that fails, nothing else can be believed.
fn integrity(db: &Connection, report: &mut Report) -> rusqlite::Result<bool> {
    let mut statement = db.prepare("PRAGMA integrity_check(100)")?;
    let found: Result<Vec<String>, _> = statement.query_map([], |row| row.get(0))?.collect();
    let found = found.unwrap_or_else(|error| vec![error.to_string()]);
    if found == ["ok"] {
        return Ok(true);
    }
    for text in found {
        report.add(Kind::Metadata, "meta.sqlite3", text);
    }
    Ok(false)
}

/// What rows say about other rows: each query gives a subject and maybe a digest behind `@`.
const CONTRADICTIONS: &[(Kind, &str, &str)] = &[
    (
        Kind::Dangling,
        "holds a blob that has no row",
        "SELECT ifnull(repository.name, 'repository ' || link.repository), NULL FROM link
         LEFT JOIN repository ON repository.id = link.repository LEFT JOIN blob ON blob.id = link.blob
         WHERE blob.id IS NULL OR repository.id IS NULL",
    ),
    (
        Kind::Dangling,
        "holds a blob that is about to be collected",
        "SELECT repository.name, blob.digest FROM link JOIN repository ON repository.id = link.repository
         JOIN blob ON blob.id = link.blob WHERE blob.state = 1
         UNION SELECT repository.name, blob.digest FROM manifest JOIN repository ON repository.id = manifest.repository
         JOIN blob ON blob.id = manifest.blob WHERE blob.state = 1",
    ),
    (
        Kind::Dangling,
        "has a manifest whose blob or repository has no row",
        "SELECT ifnull(repository.name, 'repository ' || manifest.repository), blob.digest FROM manifest
         LEFT JOIN repository ON repository.id = manifest.repository LEFT JOIN blob ON blob.id = manifest.blob
         WHERE blob.id IS NULL OR repository.id IS NULL",
    ),
    (
        Kind::Dangling,
        "the tag names no manifest of its repository",
        "SELECT ifnull(repository.name, 'repository ' || tag.repository) || ':' || tag.name, NULL FROM tag
         LEFT JOIN repository ON repository.id = tag.repository LEFT JOIN manifest ON manifest.id = tag.manifest
         WHERE manifest.id IS NULL OR repository.id IS NULL OR manifest.repository != tag.repository
         OR manifest.deleted_at IS NOT NULL",
    ),
    (
        Kind::Metadata,
        "a reference of a manifest that has no row",
        "SELECT 'manifest ' || edge.manifest, edge.digest FROM edge
         LEFT JOIN manifest ON manifest.id = edge.manifest AND manifest.repository = edge.repository
         WHERE manifest.id IS NULL",
    ),
    (
        Kind::Metadata,
        "bytes in the metadata that no row names",
        "SELECT 'content ' || content.blob, blob.digest FROM content LEFT JOIN blob ON blob.id = content.blob
         WHERE blob.id IS NULL OR blob.place != 0",
    ),
    (
        Kind::Metadata,
        "listed as a referrer, but no such manifest is there to be shown",
        "SELECT 'repository ' || referrer.repository, referrer.digest FROM referrer WHERE NOT EXISTS (
            SELECT 1 FROM blob JOIN manifest ON manifest.blob = blob.id
            WHERE blob.digest = referrer.digest AND manifest.repository = referrer.repository
            AND manifest.subject = referrer.subject AND (manifest.deleted_at IS NOT NULL) = referrer.hidden)",
    ),
    (
        Kind::Metadata,
        "the manifest has a subject, but is not listed as a referrer",
        "SELECT repository.name, blob.digest FROM manifest JOIN repository ON repository.id = manifest.repository
         JOIN blob ON blob.id = manifest.blob WHERE manifest.subject IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM referrer WHERE referrer.repository = manifest.repository
            AND referrer.subject = manifest.subject AND referrer.digest = blob.digest)",
    ),
    (
        Kind::Metadata,
        "the number of its manifests is wrong",
        "SELECT name, NULL FROM repository WHERE manifests != (
            SELECT count(*) FROM manifest WHERE manifest.repository = repository.id AND deleted_at IS NULL)",
    ),
    (
        Kind::Metadata,
        "the bytes that count for the quota are not the sum of its blobs",
        "SELECT 'quota ' || prefix, NULL FROM quota WHERE used != (
            SELECT ifnull(sum(blob.size), 0) FROM quota_blob JOIN blob ON blob.id = quota_blob.blob
            WHERE quota_blob.quota = quota.id)",
    ),
    (
        Kind::Metadata,
        "the quota counts other blobs than its repositories hold",
        "WITH held AS (
            SELECT quota.id AS quota, held.blob AS blob, count(*) AS holders FROM quota
            JOIN repository ON repository.name = quota.prefix
                OR substr(repository.name, 1, length(quota.prefix) + 1) = quota.prefix || '/'
            JOIN (SELECT blob, repository FROM link UNION ALL SELECT blob, repository FROM manifest) AS held
                ON held.repository = repository.id
            GROUP BY 1, 2)
         SELECT DISTINCT 'quota ' || quota.prefix, NULL FROM (
            SELECT * FROM (SELECT quota, blob, holders FROM quota_blob EXCEPT SELECT * FROM held)
            UNION ALL SELECT * FROM (SELECT * FROM held EXCEPT SELECT quota, blob, holders FROM quota_blob)) AS wrong
         LEFT JOIN quota ON quota.id = wrong.quota",
    ),
    (
        Kind::Metadata,
        "a file that is noted for removal, but a row names it",
        "SELECT 'purge', purge.digest FROM purge
         JOIN blob ON blob.digest = purge.digest AND blob.place = purge.place WHERE purge.done_at IS NULL",
    ),
    (
        Kind::Metadata,
        "a review of an unknown kind",
        "SELECT 'review ' || kind || '/' || id, NULL FROM review WHERE kind NOT IN (0, 1, 2)",
    ),
    (
        Kind::Leftover,
        "nothing needs it, and nobody will look at it: it would stay",
        "SELECT 'blob', blob.digest FROM blob WHERE state != 1
         AND NOT EXISTS (SELECT 1 FROM link WHERE link.blob = blob.id)
         AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.blob = blob.id)
         AND NOT EXISTS (SELECT 1 FROM edge WHERE edge.digest = blob.digest)
         AND NOT EXISTS (SELECT 1 FROM review WHERE kind = 2 AND review.id = blob.id)",
    ),
    (
        Kind::Leftover,
        "no manifest needs this blob of the repository, and nobody will look at it: it would stay",
        "SELECT repository.name, blob.digest FROM link JOIN blob ON blob.id = link.blob
         JOIN repository ON repository.id = link.repository
         WHERE NOT EXISTS (
            SELECT 1 FROM edge WHERE edge.digest = blob.digest AND edge.repository = link.repository)
         AND NOT EXISTS (
            SELECT 1 FROM review WHERE kind = 0 AND review.id = link.blob AND review.repository = link.repository)",
    ),
    (
        Kind::Leftover,
        "the manifest is deleted, and nobody will look at it: it would stay",
        "SELECT repository.name, blob.digest FROM manifest JOIN repository ON repository.id = manifest.repository
         JOIN blob ON blob.id = manifest.blob WHERE manifest.deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM review WHERE kind = 1 AND review.id = manifest.id)",
    ),
];

fn rows(db: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    for (kind, detail, sql) in CONTRADICTIONS {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let subject: Option<String> = row.get(0)?;
            let subject = subject.unwrap_or_else(|| "?".into());
            let digest = row.get_ref(1)?.as_blob().ok().and_then(Digest::from_key);
            let subject = digest.map_or(subject.clone(), |digest| format!("{subject}@{digest}"));
            report.add(*kind, subject, *detail);
        }
    }
    let mut statement = db.prepare("SELECT kind, id, due_at FROM review WHERE due_at > ?1")?;
    let mut rows = statement.query([now().saturating_add(FURTHEST_REVIEW)])?;
    while let Some(row) = rows.next()? {
        let (kind, id, due): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        report.add(Kind::Metadata, format!("review {kind}/{id}"), format!("is due at {due}, which never comes"));
    }
    Ok(())
}

/// Every row's bytes.
fn blobs(
    db: &Connection,
    dir: &DataDir,
    options: &Options,
    report: &mut Report,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), CheckError> {
    let (total, mut done) = (report.bytes, 0);
    let mut buffer = vec![0; if options.read { CHUNK } else { 0 }];
    let mut contents = db.prepare("SELECT bytes FROM content WHERE blob = ?1")?;
    let mut statement = db.prepare("SELECT id, digest, size, place, state, state_at FROM blob ORDER BY digest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let Ok(digest) = digest_from(row, 1) else {
            report.add(Kind::Metadata, format!("blob {id}"), "its digest is none");
            continue;
        };
        let (Ok(size), Some(place)) = (row.get::<_, u64>(2), place_from(row.get(3)?)) else {
            report.add(Kind::Metadata, digest.to_string(), "its size or place is none");
            continue;
        };
        let before = done;
        match (row.get::<_, i64>(4)?, place) {
            (2, _) => {
                let since: i64 = row.get(5)?;
                let detail = format!("found by the scrub at {since} (seconds since 1970); push it again to mend it");
                report.add(Kind::Damaged, digest.to_string(), detail);
            }
            (0 | 1, Place::Inline) => {
                let verdict = contents
                    .query_row([id], |row| {
                        let bytes = row.get_ref(0)?.as_blob()?;
                        Ok(match options.read {
                            true => verify_bytes(bytes, &digest, size),
                            false if bytes.len() as u64 == size => Ok(()),
                            false => Err(Flaw::Size { found: bytes.len() as u64, wanted: size }),
                        })
                    })
                    .optional()?;
                if let Err(flaw) = verdict.unwrap_or(Err(Flaw::Missing)) {
                    report.add_flaw(&digest, &flaw);
                }
            }
            (0 | 1, place) => {
                let path = dir.blob_at(&digest, place);
                let verdict = if options.read {
                    verify_file(&path, &digest, size, &mut buffer, |bytes| {
                        done += bytes;
                        progress(done, total);
                    })
                } else {
                    verify_size(&path, size)
                };
                if let Err(flaw) = verdict.map_err(failed(&path))? {
                    report.add_flaw(&digest, &flaw);
                }
            }
            (other, _) => {
                report.add(Kind::Metadata, digest.to_string(), format!("its state is {other}, which is none"));
            }
        }
        done = before.saturating_add(size);
        progress(done, total);
    }
    Ok(())
}

/// What manifests refer to, where the repository may not hold it.
fn references(db: &Connection, dir: &DataDir, policy: &IndexPolicy, report: &mut Report) -> Result<(), CheckError> {
    let mut suspects = db.prepare(
        "SELECT manifest.id, repository.name, blob.digest, manifest.media_type, blob.place, content.bytes, edge.digest
         FROM edge JOIN manifest ON manifest.id = edge.manifest AND manifest.deleted_at IS NULL
         JOIN repository ON repository.id = manifest.repository JOIN blob ON blob.id = manifest.blob
         LEFT JOIN content ON content.blob = blob.id
         LEFT JOIN blob AS wanted ON wanted.digest = edge.digest
         WHERE NOT EXISTS (SELECT 1 FROM link WHERE link.blob = wanted.id AND link.repository = manifest.repository)
         AND NOT EXISTS (SELECT 1 FROM manifest AS child WHERE child.blob = wanted.id
            AND child.repository = manifest.repository AND child.deleted_at IS NULL)",
    )?;
    let mut rows = suspects.query([])?;
    while let Some(row) = rows.next()? {
        let (name, media_type): (String, String) = (row.get(1)?, row.get(3)?);
        let (digest, wanted) = (digest_from(row, 2)?, digest_from(row, 6)?);
        let bytes = match row.get_ref(5)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            Some(bytes) => Ok(bytes.to_vec()),
            None => fs::read(dir.blob_at(&digest, place_from(row.get(4)?).unwrap_or(Place::Canonical))),
        };
        // What cannot be read or understood is reported by what looks at its bytes.
        let Some(manifest) = bytes.ok().and_then(|bytes| parse(&bytes, Some(&media_type)).ok()) else { continue };
        let needed = manifest.links.iter().find(|link| link.digest == wanted && policy.requires(link));
        if let Some(link) = needed {
            let what = match link.role {
                Role::Config => "its configuration",
                Role::Child if is_manifest(&link.media_type) => "its entry",
                _ => "its content",
            };
            report.add(
                Kind::Dangling,
                format!("{name}@{digest}"),
                format!("{what} {wanted} is not in the repository: push it again, or delete the manifest"),
            );
        }
    }
    Ok(())
}

/// Every file among the blobs.
fn files(db: &Connection, dir: &DataDir, report: &mut Report) -> Result<(), CheckError> {
    let adoption: Option<String> =
        db.query_row("SELECT value FROM state WHERE name = 'adoption'", [], |row| row.get(0)).optional()?;
    // Another server's links may name them.
    if dir.has_foreign_links() && adoption.as_deref() != Some("own") {
        return Ok(());
    }
    // What is inline may have a file already: a crash came between that and the row.
    let mut named = db.prepare("SELECT 1 FROM blob WHERE digest = ?1 AND (place = ?2 OR place = 0 AND ?2 = 1)")?;
    let mut waiting = db.prepare("SELECT 1 FROM purge WHERE digest = ?1 AND place = ?2 AND done_at IS NULL")?;
    let shown = |path: &Path| path.strip_prefix(dir.root()).unwrap_or(path).display().to_string();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for fan_out in list(&dir.blobs().join(algorithm.as_str()))? {
            for own in list(&fan_out)? {
                let hex = own.file_name().unwrap_or_default().to_string_lossy();
                let Ok(digest) = format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() else {
                    report.add(Kind::Leftover, shown(&own), "no blob is named like this");
                    continue;
                };
                for path in list(&own)? {
                    let size = fs::symlink_metadata(&path).map_err(failed(&path))?.len();
                    let place = path.file_name().and_then(|name| place_of(&name.to_string_lossy()));
                    let Some(place) = place else {
                        report.add(Kind::Leftover, shown(&path), format!("{size} bytes, of an interrupted write"));
                        continue;
                    };
                    let key = params![digest.to_key(), place_number(place)];
                    if !named.exists(key)? && !waiting.exists(key)? {
                        report.add(Kind::Orphan, shown(&path), format!("{size} bytes that no row names"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// What interruptions left beside the blobs.
fn leftovers(dir: &DataDir, report: &mut Report) -> Result<(), CheckError> {
    let now = SystemTime::now();
    for path in list(&dir.uploads())? {
        let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let age = found.modified().ok().and_then(|touched| now.duration_since(touched).ok()).unwrap_or_default();
        let what = if name.starts_with("settle.") || name.starts_with(crate::backup::TEMPORARY) {
            "of an interrupted write"
        } else if age > UPLOAD_AGE {
            "of an upload that nobody goes on with"
        } else {
            continue;
        };
        report.add(Kind::Leftover, format!("roadstead/uploads/{name}"), format!("{} bytes, {what}", found.len()));
    }
    for end in ["new", crate::backup::SNAPSHOT] {
        let path = dir.metadata().with_extension(end);
        if let Ok(found) = fs::symlink_metadata(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let detail = format!("{} bytes, of a database that was not finished", found.len());
            report.add(Kind::Leftover, format!("roadstead/{name}"), detail);
        }
    }
    Ok(())
}

/// What is in a directory; nothing if there is none.
fn list(path: &Path) -> Result<Vec<PathBuf>, CheckError> {
    match fs::read_dir(path) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use registry_core::{
        digest::Algorithm,
        manifest::parse,
        retention::{Quota, Rules},
        store::{Change, Content, Metadata as _, NewBlob, NewManifest},
    };

    use super::{IndexPolicy, Kind, Options, check};
    use crate::{data_dir::DataDir, disk::Poison, hash::digest_of, meta::sqlite::SqliteMetadata};

    fn blob(bytes: &[u8]) -> NewBlob {
        let content = Content::Inline(Bytes::copy_from_slice(bytes));
        NewBlob { digest: digest_of(Algorithm::Sha256, bytes), size: bytes.len() as u64, content }
    }

    /// An image with a referrer, tagged, within a quota.
    async fn fill(root: &std::path::Path) {
        let dir = DataDir::open(root).unwrap();
        let metadata = SqliteMetadata::open_in(&dir, Poison::default()).unwrap();
        let name: registry_core::name::RepoName = "team/app".parse().unwrap();
        let quotas = vec![Quota { prefix: "team".parse().unwrap(), limit: 1 << 20 }];
        metadata.govern(Rules { quotas, ..Rules::default() }).await.unwrap();
        metadata.apply(Change::PutBlob(name.clone(), blob(b"{}")), Vec::new()).await.unwrap();
        let mut subject = String::new();
        for tag in ["1", "2"] {
            let config = digest_of(Algorithm::Sha256, b"{}");
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"c/t","digest":"{config}","size":2}},"layers":[]{subject}}}"#,
            );
            let new = blob(text.as_bytes());
            subject = format!(r#","subject":{{"mediaType":"x/y","digest":"{}","size":{}}}"#, new.digest, new.size);
            let manifest = NewManifest {
                blob: new,
                manifest: parse(text.as_bytes(), None).unwrap(),
                tags: vec![tag.parse().unwrap()],
                index_policy: IndexPolicy::All,
            };
            metadata.apply(Change::PutManifest(name.clone(), Box::new(manifest)), Vec::new()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn rows_that_contradict_each_other_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whole");
        fill(&root).await;
        let mut number = 0;
        let mut check = |sql: &str, want: &[Kind]| {
            number += 1;
            let copy = dir.path().join(number.to_string());
            drop(DataDir::open(&copy).unwrap());
            std::fs::copy(DataDir::peek(&root).metadata(), DataDir::peek(&copy).metadata()).unwrap();
            let db = rusqlite::Connection::open(DataDir::peek(&copy).metadata()).unwrap();
            db.execute_batch(sql).unwrap();
            db.close().unwrap();
            let report = check(&copy, &Options { read: true, ..Options::default() }, &mut |_, _| {}).unwrap();
            assert_eq!(report.counts.keys().copied().collect::<Vec<_>>(), want, "{sql}: {:#?}", report.problems);
            assert_eq!(report.is_sound(), want.iter().all(|kind| !kind.is_damage()), "{sql}");
        };
        check("", &[]);
        check("UPDATE content SET bytes = x'7b7c' WHERE blob = 1", &[Kind::Damaged]);
        check("UPDATE content SET bytes = x'7b' WHERE blob = 1", &[Kind::Damaged]);
        check("DELETE FROM content WHERE blob = 1", &[Kind::Missing]);
        check("UPDATE blob SET place = 1 WHERE id = 1", &[Kind::Missing, Kind::Metadata]);
        check("UPDATE blob SET state = 2 WHERE id = 1", &[Kind::Damaged]);
        check("UPDATE blob SET state = 1 WHERE id = 1", &[Kind::Dangling]);
        check("UPDATE blob SET state = 9 WHERE id = 1", &[Kind::Metadata]);
        check("DELETE FROM link; UPDATE quota_blob SET holders = 0", &[Kind::Dangling, Kind::Metadata]);
        check("INSERT INTO link (blob, repository, created_at) VALUES (77, 1, 0)", &[Kind::Dangling, Kind::Metadata]);
        check("UPDATE tag SET manifest = 77 WHERE name = '1'", &[Kind::Dangling]);
        check("DELETE FROM edge WHERE manifest = 1; INSERT INTO edge VALUES (x'01', 1, 77)", &[Kind::Metadata]);
        check("DELETE FROM referrer", &[Kind::Metadata]);
        check("UPDATE referrer SET hidden = 1", &[Kind::Metadata]);
        check("UPDATE repository SET manifests = 1", &[Kind::Metadata]);
        check("UPDATE quota SET used = used + 1", &[Kind::Metadata]);
        check("UPDATE quota_blob SET holders = holders + 1 WHERE blob = 1", &[Kind::Metadata]);
        check("INSERT INTO purge (digest, place, size) SELECT digest, place, size FROM blob", &[Kind::Metadata]);
        check("INSERT INTO review VALUES (7, 1, 1, 0)", &[Kind::Metadata]);
        check("INSERT INTO review VALUES (2, 1, 0, 99999999999)", &[Kind::Metadata]);
        check(
            "UPDATE manifest SET deleted_at = 1; DELETE FROM tag; DELETE FROM review;
               UPDATE repository SET manifests = 0; UPDATE referrer SET hidden = 1",
            &[Kind::Leftover],
        );
        check(
            "INSERT INTO blob (id, digest, size, place, created_at) VALUES (9, x'02', 0, 0, 0)",
            &[Kind::Leftover, Kind::Metadata],
        );
    }
}
