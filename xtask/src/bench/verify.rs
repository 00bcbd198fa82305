//! Checks that a server keeps every byte: all upload styles at sizes around page and chunk borders.
//!
//! Not a conformance suite: it makes sure that what is measured is a registry that works.

use anyhow::{Result, ensure};

use super::drive::{Target, block_on};
use super::http::Conn;
use super::payload::{Blob, digest_of, random_bytes};
use super::registry::{
    OCI_MANIFEST, Style, blob_request, check_blob, closing, image, location, manifest_request, push_blob, put_manifest,
    request, with_length,
};

pub(crate) const REPO: &str = "verify/app";
const SIZES: [usize; 11] = [0, 1, 4_095, 4_096, 4_097, 65_535, 65_537, 1_048_576, 5_000_000, 5_242_881, 20_000_000];

/// What a verification found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) checks: u64,
    /// One line for each check that failed.
    pub(crate) wrong: Vec<String>,
}

impl Findings {
    /// Counts a check; true if it found nothing wrong.
    fn note(&mut self, what: &str, result: Result<()>) -> bool {
        self.checks += 1;
        let good = result.is_ok();
        if let Err(error) = result {
            self.wrong.push(format!("{what}: {error:#}"));
        }
        good
    }
}

/// Runs all checks; `single_post` tells whether the server is expected to take a blob in one POST.
pub(crate) fn verify(target: &Target, single_post: bool) -> Findings {
    let mut findings = Findings::default();
    block_on(async {
        let mut conn = target.conn();
        let mut styles = vec![Style::Put, Style::Stream, Style::Chunks(1_000_000)];
        if single_post {
            styles.push(Style::Post);
        }
        for (kind, style) in styles.into_iter().enumerate() {
            for (nth, size) in SIZES.into_iter().enumerate() {
                let bytes = random_bytes(size, (kind * SIZES.len() + nth) as u64 + 100);
                let what = format!("blob of {size} bytes by {style:?}");
                let result = blob(&mut conn, &Blob::whole(&bytes), style).await;
                if !findings.note(&what, result) || size == 0 {
                    continue; // ranges of what is not there would only repeat the fault
                }
                let (middle, end) = (size / 2, size - 1);
                for (first, last) in [(0, 0), (middle, end.min(middle + 4_096)), (end.saturating_sub(4), end)] {
                    let result = range(&mut conn, &bytes, first, last).await;
                    findings.note(&format!("{what}, bytes {first}-{last}"), result);
                }
            }
        }
        findings.note("manifest by tag and digest", manifests(&mut conn).await);
        findings.note("blob with a wrong digest", wrong_blob(&mut conn).await);
        findings.note("manifest with a wrong digest", wrong_manifest(&mut conn).await);
        findings.note("absent blob and manifest", absent(&mut conn).await);
    });
    findings
}

async fn blob(conn: &mut Conn, blob: &Blob<'_>, style: Style) -> Result<()> {
    push_blob(conn, REPO, blob, style).await?;
    let head = conn.expect(&[&blob_request("HEAD", REPO, &blob.digest)], false, 200).await?;
    ensure!(head.length == blob.size() as u64, "HEAD says {} bytes", head.length);
    ensure!(conn.header("docker-content-digest") == Some(&blob.digest), "HEAD tells another digest");
    check_blob(conn, REPO, blob).await
}

/// Reads `first` to `last`, both included.
async fn range(conn: &mut Conn, bytes: &[u8], first: usize, last: usize) -> Result<()> {
    let path = format!("/v2/{REPO}/blobs/{}", digest_of(bytes));
    let request = request("GET", &path, &format!("Range: bytes={first}-{last}\r\n"));
    conn.expect(&[&request], true, 206).await?;
    ensure!(conn.body() == &bytes[first..=last], "other bytes came back");
    let expected = format!("bytes {first}-{last}/{}", bytes.len());
    ensure!(conn.header("content-range") == Some(&expected), "Content-Range {:?}", conn.header("content-range"));
    Ok(())
}

async fn manifests(conn: &mut Conn) -> Result<()> {
    let parts = [random_bytes(500, 1), random_bytes(5_000, 2)];
    let blobs = [Blob::whole(&parts[0]), Blob::whole(&parts[1])];
    for blob in &blobs {
        push_blob(conn, REPO, blob, Style::Put).await?;
    }
    let manifest = image(&blobs, None, 1);
    put_manifest(conn, REPO, "v1", &manifest).await?;
    for reference in ["v1", &manifest.digest] {
        conn.expect(&[&manifest_request("GET", REPO, reference)], true, 200).await?;
        ensure!(conn.body() == manifest.bytes, "other bytes by `{reference}`");
        ensure!(conn.header("content-type") == Some(OCI_MANIFEST), "other type by `{reference}`");
        let head = conn.expect(&[&manifest_request("HEAD", REPO, reference)], false, 200).await?;
        ensure!(head.length == manifest.bytes.len() as u64, "HEAD says {} bytes", head.length);
        ensure!(conn.header("docker-content-digest") == Some(&manifest.digest), "HEAD tells another digest");
    }
    Ok(())
}

async fn wrong_blob(conn: &mut Conn) -> Result<()> {
    let wrong = digest_of(b"something else");
    conn.expect(&[&request("POST", &format!("/v2/{REPO}/blobs/uploads/"), "")], false, 202).await?;
    let path = closing(&location(conn)?, &wrong);
    let head = with_length("PUT", &path, "application/octet-stream", 5, "");
    conn.expect(&[&head, b"bytes"], false, 400).await?;
    conn.expect(&[&blob_request("HEAD", REPO, &wrong)], false, 404).await.map(drop)
}

async fn wrong_manifest(conn: &mut Conn) -> Result<()> {
    let part = random_bytes(500, 1);
    let manifest = image(&[Blob::whole(&part)], None, 2);
    let path = format!("/v2/{REPO}/manifests/{}", digest_of(b"something else"));
    let head = with_length("PUT", &path, OCI_MANIFEST, manifest.bytes.len(), "");
    conn.expect(&[&head, &manifest.bytes], false, 400).await.map(drop)
}

async fn absent(conn: &mut Conn) -> Result<()> {
    let digest = digest_of(b"never pushed");
    conn.expect(&[&blob_request("GET", REPO, &digest)], false, 404).await?;
    conn.expect(&[&manifest_request("GET", REPO, &digest)], false, 404).await?;
    conn.expect(&[&manifest_request("GET", REPO, "never-pushed")], false, 404).await.map(drop)
}
