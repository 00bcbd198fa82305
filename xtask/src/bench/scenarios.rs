//! The scenarios: what each sends, what must be there before, and the floor it has to reach.
//!
//! Measuring and judging happen elsewhere; a scenario only hands out a [`Round`], one timed phase on one server.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};

use super::drive::{Budget, Sample, Target, block_on, drive};
use super::guard::{Badge, Guard, Who};
use super::http::Conn;
use super::payload::{Blob, Payload};
use super::registry::{
    Manifest, Style, blob_request, check_blob, image, manifest_request, mount_blob, push_blob, push_image,
    put_manifest, request, walk,
};
use super::server::{Launch, Server, cpu_seconds};

const MB: usize = 1_000_000;
const LARGE: usize = 100 * MB;
const CHUNKS: Style = Style::Chunks(5 * MB);
/// Tags or repositories present in the small variants of scenarios that must not depend on how many there are.
const FEW: usize = 300;
/// Large pushes in one round at most, to bound the disk space a run takes.
const LARGE_PUSHES: u64 = 24;
const REFERRERS: usize = 1000;
pub(super) const PAGE: usize = 100;

/// One timed phase; it may be called several times.
pub(crate) type Round = Box<dyn FnMut(Budget) -> Result<Sample>>;

/// A server with the means to start it again.
pub(crate) struct Site {
    pub(crate) launch: Launch,
    /// Empty while a scenario starts servers on its own.
    pub(crate) server: RefCell<Option<Server>>,
    /// Accounts and tokens of a server with access control.
    pub(crate) guard: Option<Guard>,
    /// Tags or repositories that the fixture laid down.
    pub(crate) held: Cell<usize>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// What a store holds before a scenario, by its own count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fixture {
    Empty,
    FewTags,
    ManyTags,
    FewRepositories,
    ManyRepositories,
}

/// Distribution 3.1.1 relative to 2.8.2 on the same machine, measured once in alternating rounds.
#[derive(Clone, Copy)]
pub(crate) struct V3 {
    pub(crate) rate: f64,
    pub(crate) cpu: Option<f64>,
}

/// What has to be reached; absent parts are not judged.
#[derive(Clone, Copy, Default)]
pub(crate) struct Floor {
    /// Least rate and most CPU per operation, as multiples of v3's.
    pub(crate) rate: Option<f64>,
    pub(crate) cpu: Option<f64>,
    /// Least rate with access control, as a share of the rate without.
    pub(crate) kept: Option<f64>,
    /// Most milliseconds at the median.
    pub(crate) median_ms: Option<f64>,
    /// Scenario whose median this one may exceed by half at most, being the same with less in the store.
    pub(crate) flat_with: Option<&'static str>,
}

/// One row of the result.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) fixture: Fixture,
    /// Bytes of one operation if the rate is to be told in MB/s.
    pub(crate) bytes: Option<usize>,
    pub(crate) v3: Option<V3>,
    pub(crate) floor: Floor,
    /// The nginx file set that shows the limit, with its workers.
    pub(crate) limit: Option<(&'static str, usize)>,
    /// Sets up one server; `None` if it does not support what the scenario needs.
    pub(crate) prepare: fn(&Site) -> Result<Option<Round>>,
}

/// All scenarios; those that share a fixture are neighbours.
pub(crate) fn all() -> Vec<Scenario> {
    use Fixture::{FewRepositories, FewTags, ManyRepositories, ManyTags};
    vec![
        Scenario::new("push-small", |s| push_small(s, 8)).v3(1.51, 0.65).rate(4.0).cpu(0.2),
        Scenario::new("push-small-c1", |s| push_small(s, 1)).v3(1.25, 0.65).rate(4.0).cpu(0.2),
        Scenario::new("push-put-100M", |s| push_large(s, Style::Put)).large().v3(1.28, 0.85).rate(2.0),
        Scenario::new("push-patch-100M", |s| push_large(s, Style::Stream)).large().v3(1.17, 0.8).rate(2.0),
        Scenario::new("push-chunks-100M", |s| push_large(s, CHUNKS)).large().v3(1.12, 0.88).rate(3.0),
        Scenario::new("manifest-get-tag", |s| manifests(s, "GET", false)).v3(3.6, 0.256).rate(4.0).cpu(0.15),
        Scenario::new("manifest-get-digest", |s| manifests(s, "GET", true))
            .v3(4.3, 0.238)
            .rate(4.0)
            .cpu(0.15)
            .limit("1k", 8),
        Scenario::new("manifest-head-tag", |s| manifests(s, "HEAD", false)).v3(3.7, 0.267).rate(4.0).cpu(0.15),
        Scenario::new("manifest-head-digest", |s| manifests(s, "HEAD", true)).v3(4.1, 0.237).rate(4.0).cpu(0.15),
        Scenario::new("blob-get-10K", |s| blobs(s, 1000, 10_000, 8)).v3(1.34, 0.73).rate(20.0).limit("10k", 8),
        Scenario::new("blob-get-100M", |s| blobs(s, 2, LARGE, 2))
            .large()
            .v3(0.95, 1.05)
            .rate(1.0)
            .cpu(0.75)
            .limit("100m", 2),
        Scenario::new("mixed", mixed).v3(1.32, 0.74).rate(3.0),
        Scenario::new("mount", mount).v3(2.05, 0.49).rate(4.0),
        // The table has no row for plain manifests; the one with a subject stands for both.
        Scenario::new("manifest-put", |s| put_manifests(s, false)).v3(1.39, 0.57).rate(4.0),
        Scenario::new("manifest-put-subject", |s| put_manifests(s, true)).v3(1.39, 0.57).rate(4.0),
        Scenario::new("tag-put", put_tags).v3(1.28, 0.79).rate(4.0),
        Scenario::new("tags-page-few", page_of_tags).with(FewTags).median(0.5),
        Scenario::new("manifest-delete", delete_manifests).with(FewTags).v3(0.84, 1.27).rate(10.0),
        Scenario::new("tags-page", page_of_tags).with(ManyTags).v3_rate(1.14).median(0.5).flat("tags-page-few"),
        Scenario::new("tags-whole", whole_tags).with(ManyTags).v3_rate(0.21),
        Scenario::new("manifest-delete-many", delete_manifests).with(ManyTags).flat("manifest-delete"),
        Scenario::new("catalog-page-few", page_of_catalog).with(FewRepositories).median(0.5),
        Scenario::new("catalog-page", page_of_catalog)
            .with(ManyRepositories)
            .v3_rate(21.0)
            .median(0.5)
            .flat("catalog-page-few"),
        Scenario::new("start-many", start).with(ManyRepositories).median(50.0),
        Scenario::new("start", start).v3_rate(0.59).median(10.0),
        Scenario::new("referrers-page", |s| referrers(s, false)).median(0.5),
        Scenario::new("referrers-whole", |s| referrers(s, true)).median(1.5),
    ]
}

impl Scenario {
    pub(super) fn new(name: &'static str, prepare: fn(&Site) -> Result<Option<Round>>) -> Self {
        let floor = Floor::default();
        Self { name, fixture: Fixture::Empty, bytes: None, v3: None, floor, limit: None, prepare }
    }

    /// Operations of 100 MB, told in MB/s.
    fn large(self) -> Self {
        Self { bytes: Some(LARGE), ..self }
    }

    pub(super) fn with(self, fixture: Fixture) -> Self {
        Self { fixture, ..self }
    }

    fn v3(self, rate: f64, cpu: f64) -> Self {
        Self { v3: Some(V3 { rate, cpu: Some(cpu) }), ..self }
    }

    fn v3_rate(self, rate: f64) -> Self {
        Self { v3: Some(V3 { rate, cpu: None }), ..self }
    }

    fn limit(self, files: &'static str, workers: usize) -> Self {
        Self { limit: Some((files, workers)), ..self }
    }

    fn rate(mut self, floor: f64) -> Self {
        self.floor.rate = Some(floor);
        self
    }

    fn cpu(mut self, floor: f64) -> Self {
        self.floor.cpu = Some(floor);
        self
    }

    fn median(mut self, milliseconds: f64) -> Self {
        self.floor.median_ms = Some(milliseconds);
        self
    }

    fn flat(mut self, with: &'static str) -> Self {
        self.floor.flat_with = Some(with);
        self
    }
}

impl Site {
    /// Requests with nothing, or with the secret of a robot that may do everything.
    pub(crate) fn target(&self) -> Result<Target> {
        self.with_badge(self.guard.as_ref().map(|guard| guard.basic(Who::Robot)))
    }

    /// Requests with nothing, or with a token of `who` for `scope`.
    pub(crate) fn with_token(&self, who: Who, scope: &str) -> Result<Target> {
        self.with_badge(self.guard.as_ref().map(|guard| guard.bearer(who, scope)).transpose()?)
    }

    /// Requests with what Docker sends when it pulls from, or with `pull,push` pushes to, a repository.
    pub(crate) fn with_rights(&self, repo: &str, actions: &str) -> Result<Target> {
        self.with_token(Who::Robot, &format!("repository:{repo}:{actions}"))
    }

    /// Requests with nothing, or with this.
    pub(crate) fn with_badge(&self, badge: Option<Badge>) -> Result<Target> {
        let server = self.server.borrow();
        let server = server.as_ref().context("the server is not running")?;
        Ok(Target { addr: server.addr, pid: server.pid(), stop: self.stop.clone(), badge })
    }
}

impl Fixture {
    /// Fills a fresh store; `many` is the number of tags or repositories in the large variants.
    pub(crate) fn fill(self, site: &Site, many: usize) -> Result<()> {
        let target = site.target()?;
        let count = if matches!(self, Self::FewTags | Self::FewRepositories) { FEW } else { many };
        site.held.set(count);
        match self {
            Self::Empty => Ok(()),
            Self::FewTags | Self::ManyTags => {
                let payload = Payload::new(1000, 1);
                let blobs = [payload.variant(0), payload.variant(1)];
                let manifest = block_on(push_image(&mut target.conn(), TAGGED, "v00000", &blobs))?;
                fill(&target, count, async |conn, id| put_manifest(conn, TAGGED, &format!("v{id:05}"), &manifest).await)
            }
            Self::FewRepositories | Self::ManyRepositories => {
                // v2 lists a repository only if it has a blob, so each gets one by mounting it.
                let payload = Payload::new(1000, 1);
                let blob = [payload.variant(0)];
                let manifest = block_on(push_image(&mut target.conn(), REPO, "1", &blob))?;
                fill(&target, count, async |conn, id| {
                    let repo = format!("many/r{id:05}");
                    mount_blob(conn, &repo, REPO, &blob[0].digest).await?;
                    put_manifest(conn, &repo, "1", &manifest).await
                })
            }
        }
    }
}

/// The repository with many tags, `v00000` and up.
const TAGGED: &str = "bench/tagged";
const TAGS_PATH: &str = "/v2/bench/tagged/tags/list";
pub(super) const REPO: &str = "bench/app";
/// What Docker asks a token for.
const PULL: &str = "pull";
const PUSH: &str = "pull,push";
pub(super) const CATALOG: &str = "registry:catalog:*";

/// Runs an untimed operation for each id below `count`.
fn fill(target: &Target, count: usize, operation: impl AsyncFn(&mut Conn, u64) -> Result<()>) -> Result<()> {
    drive(target, 8, Budget::operations(count as u64), &Cell::new(0), operation)?.ok().map(drop)
}

fn push_small(site: &Site, workers: usize) -> Result<Option<Round>> {
    let (target, ids) = (site.with_rights(REPO, PUSH)?, Cell::new(0));
    let payloads = [9_000, 10_000, 11_000, 12_000].map(|size| Payload::new(size, size as u64));
    Ok(Some(Box::new(move |budget| {
        let sample = drive(&target, workers, budget, &ids, async |conn, id| {
            push_image(conn, REPO, &format!("v{id}"), &payloads.each_ref().map(|p| p.variant(id))).await.map(drop)
        })?;
        read_back(&target, sample, &payloads[3].variant(ids.get() - 1))
    })))
}

fn push_large(site: &Site, style: Style) -> Result<Option<Round>> {
    let (target, ids) = (site.target()?, Cell::new(0));
    let payload = Payload::new(LARGE, 3);
    Ok(Some(Box::new(move |budget| {
        let budget = Budget { operations: budget.operations.min(LARGE_PUSHES), ..budget };
        // Digests of variants are all but free, so hashing takes no part in the time.
        let sample =
            drive(&target, 1, budget, &ids, async |conn, id| push_blob(conn, REPO, &payload.variant(id), style).await)?;
        read_back(&target, sample, &payload.variant(ids.get() - 1))
    })))
}

/// Pushes blobs of 10 KB, and nothing else.
pub(super) fn push_blobs(site: &Site) -> Result<Option<Round>> {
    let (target, ids) = (site.with_rights(REPO, PUSH)?, Cell::new(0));
    let payload = Payload::new(10_000, 11);
    Ok(Some(Box::new(move |budget| {
        let push = async |conn: &mut Conn, id| push_blob(conn, REPO, &payload.variant(id), Style::Put).await;
        let sample = drive(&target, 8, budget, &ids, push)?;
        read_back(&target, sample, &payload.variant(ids.get() - 1))
    })))
}

/// Makes sure that the last blob of a round was really kept.
fn read_back(target: &Target, sample: Sample, last: &Blob<'_>) -> Result<Sample> {
    if sample.errors == 0 {
        block_on(check_blob(&mut target.conn(), REPO, last))?;
    }
    Ok(sample)
}

fn manifests(site: &Site, method: &str, by_digest: bool) -> Result<Option<Round>> {
    manifests_from(site, site.with_rights(REPO, PULL)?, method, by_digest)
}

/// Reads manifests from `target`, after they were pushed to `site`.
pub(super) fn manifests_from(site: &Site, target: Target, method: &str, by_digest: bool) -> Result<Option<Round>> {
    let payload = Payload::new(10_000, 4);
    let mut conn = site.target()?.conn();
    let (mut requests, mut length) = (Vec::new(), 0);
    for id in 0..100 {
        let blobs = [0, 1, 2, 3].map(|layer| payload.variant(id * 4 + layer));
        let manifest = block_on(push_image(&mut conn, REPO, &format!("v{id}"), &blobs))?;
        let reference = if by_digest { manifest.digest } else { format!("v{id}") };
        requests.push(manifest_request(method, REPO, &reference));
        length = manifest.bytes.len() as u64;
    }
    Ok(Some(repeat(target, 8, requests, length..=length)))
}

fn blobs(site: &Site, count: u64, size: usize, workers: usize) -> Result<Option<Round>> {
    let target = site.with_rights(REPO, PULL)?;
    let payload = Payload::new(size, 5);
    fill(&site.target()?, count as usize, async |conn, id| {
        push_blob(conn, REPO, &payload.variant(id), Style::Put).await
    })?;
    block_on(check_blob(&mut target.conn(), REPO, &payload.variant(count - 1)))?;
    let requests = (0..count).map(|id| blob_request("GET", REPO, &payload.variant(id).digest)).collect();
    Ok(Some(repeat(target, workers, requests, size as u64..=size as u64)))
}

/// The same reads as a registry gets, from nginx.
pub(crate) fn read_static(target: Target, files: &str, workers: usize) -> Round {
    let (names, size) = match files {
        "10k" => ((0..1000).map(|file| format!("/10k/{file}")).collect(), 10_000),
        "1k" => (vec!["/1k".to_owned()], 1_000),
        _ => (vec!["/100m".to_owned()], LARGE as u64),
    };
    let requests = names.iter().map(|name| request("GET", name, "")).collect();
    repeat(target, workers, requests, size..=size)
}

/// Sends ready requests in turn; each must be answered with 200 and a body of a length in `length`.
pub(super) fn repeat(target: Target, workers: usize, requests: Vec<Vec<u8>>, length: RangeInclusive<u64>) -> Round {
    let ids = Cell::new(0);
    Box::new(move |budget| {
        drive(&target, workers, budget, &ids, async |conn, id| {
            let answer = conn.expect(&[&requests[id as usize % requests.len()]], false, 200).await?;
            ensure!(length.contains(&answer.length), "answer of {} bytes, expected {length:?}", answer.length);
            Ok(())
        })
    })
}

/// Three whole pulls (manifest, config, layer of 1 MB) to one push of such an image.
fn mixed(site: &Site) -> Result<Option<Round>> {
    const IMAGES: u64 = 50;
    let (target, ids) = (site.target()?, Cell::new(0));
    let (config, layer) = (Payload::new(2_000, 6), Payload::new(MB, 7));
    let mut conn = target.conn();
    let mut pulls = Vec::new();
    for id in 0..IMAGES {
        let blobs = [config.variant(id), layer.variant(id)];
        let tag = format!("v{id}");
        block_on(push_image(&mut conn, REPO, &tag, &blobs))?;
        let [config, layer] = blobs.map(|blob| blob_request("GET", REPO, &blob.digest));
        pulls.push([manifest_request("GET", REPO, &tag), config, layer]);
    }
    ids.set(IMAGES);
    Ok(Some(Box::new(move |budget| {
        drive(&target, 8, budget, &ids, async |conn, id| {
            if id % 4 == 0 {
                let blobs = [config.variant(id), layer.variant(id)];
                push_image(conn, REPO, &format!("v{id}"), &blobs).await?;
            } else {
                for request in &pulls[(id % IMAGES) as usize] {
                    conn.expect(&[request], false, 200).await?;
                }
            }
            Ok(())
        })
    })))
}

fn mount(site: &Site) -> Result<Option<Round>> {
    const BLOBS: u64 = 64;
    let (target, ids) = (site.target()?, Cell::new(0));
    let payload = Payload::new(10_000, 8);
    fill(&target, BLOBS as usize, async |conn, id| push_blob(conn, REPO, &payload.variant(id), Style::Put).await)?;
    let digests: Vec<String> = (0..BLOBS).map(|id| payload.variant(id).digest).collect();
    Ok(Some(Box::new(move |budget| {
        drive(&target, 8, budget, &ids, async |conn, id| {
            let (to, digest) = (id / BLOBS, &digests[(id % BLOBS) as usize]);
            mount_blob(conn, &format!("mounted/r{to}"), REPO, digest).await
        })
    })))
}

/// Manifests that differ in an annotation only, by digest; their config and layer are there.
fn put_manifests(site: &Site, with_subject: bool) -> Result<Option<Round>> {
    let (target, ids) = (site.with_rights(REPO, PUSH)?, Cell::new(1));
    let payload = Payload::new(10_000, 9);
    let image_of = push_parts(&target, &payload)?;
    Ok(Some(Box::new(move |budget| {
        let blobs = [payload.variant(0), payload.variant(1)];
        drive(&target, 8, budget, &ids, async |conn, id| {
            let manifest = image(&blobs, with_subject.then_some(&image_of), id);
            put_manifest(conn, REPO, &manifest.digest, &manifest).await
        })
    })))
}

/// Pushes the image that [`put_manifests`], [`delete_manifests`] and [`referrers`] vary.
fn push_parts(target: &Target, payload: &Payload) -> Result<Manifest> {
    let blobs = [payload.variant(0), payload.variant(1)];
    block_on(push_image(&mut target.conn(), REPO, "base", &blobs))
}

fn put_tags(site: &Site) -> Result<Option<Round>> {
    let (target, ids) = (site.with_rights(REPO, PUSH)?, Cell::new(0));
    let manifest = push_parts(&target, &Payload::new(10_000, 10))?;
    Ok(Some(Box::new(move |budget| {
        drive(&target, 8, budget, &ids, async |conn, id| put_manifest(conn, REPO, &format!("v{id}"), &manifest).await)
    })))
}

/// Deletes untagged manifests, stored just before, from the repository with tags.
fn delete_manifests(site: &Site) -> Result<Option<Round>> {
    let (target, ids) = (site.target()?, Cell::new(0));
    let payload = Payload::new(1000, 1);
    let pool = RefCell::new(Vec::<String>::new());
    Ok(Some(Box::new(move |budget| {
        let blobs = [payload.variant(0), payload.variant(1)];
        drive(&target, 8, budget, &ids, async |conn, id| {
            let manifest = image(&blobs, None, id + 1);
            put_manifest(conn, TAGGED, &manifest.digest, &manifest).await?;
            pool.borrow_mut().push(manifest.digest);
            Ok(())
        })?
        .ok()?;
        let budget = Budget { operations: pool.borrow().len() as u64, ..budget };
        drive(&target, 8, budget, &Cell::new(0), async |conn, _| {
            let digest = pool.borrow_mut().pop().context("nothing left to delete")?;
            conn.expect(&[&manifest_request("DELETE", TAGGED, &digest)], false, 202).await.map(drop)
        })
    })))
}

/// Pages of 100 from positions all over the list.
fn page_of_tags(site: &Site) -> Result<Option<Round>> {
    let pages = page_starts(site.held.get(), PAGE).map(|last| format!("{TAGS_PATH}?n={PAGE}&last=v{last:05}"));
    let requests = pages.map(|path| request("GET", &path, "")).collect();
    // v2 ignores `n` and sends all tags; that is what its clients wait for.
    Ok(Some(repeat(site.with_rights(TAGGED, PULL)?, 1, requests, 900..=u64::MAX)))
}

fn page_of_catalog(site: &Site) -> Result<Option<Round>> {
    let pages = page_starts(site.held.get(), PAGE).map(|last| format!("/v2/_catalog?n={PAGE}&last=many/r{last:05}"));
    let requests = pages.map(|path| request("GET", &path, "")).collect();
    Ok(Some(repeat(site.with_token(Who::Robot, CATALOG)?, 1, requests, 1400..=u64::MAX)))
}

/// Positions with at least `page` entries behind them, in an order that jumps about.
pub(super) fn page_starts(count: usize, page: usize) -> impl Iterator<Item = usize> {
    let room = count - page - 1;
    (0..97).map(move |step| step * 7919 % room)
}

fn whole_tags(site: &Site) -> Result<Option<Round>> {
    Ok(Some(whole_list(site.target()?, TAGS_PATH.to_owned(), "\"v", site.held.get())))
}

/// Reads a list to its end; it must have `count` times `entry`.
fn whole_list(target: Target, path: String, entry: &'static str, count: usize) -> Round {
    Box::new(move |budget| {
        drive(&target, 1, budget, &Cell::new(0), async |conn, _| {
            let (seen, pages) = walk(conn, &path, entry).await?;
            ensure!(seen == count, "{seen} entries on {pages} pages, expected {count}");
            Ok(())
        })
    })
}

fn referrers(site: &Site, whole: bool) -> Result<Option<Round>> {
    let target = site.target()?;
    let payload = Payload::new(10_000, 9);
    let subject = push_parts(&target, &payload)?;
    let path = format!("/v2/{REPO}/referrers/{}", subject.digest);
    let probe = request("GET", &path, "");
    match block_on(target.conn().exchange(&[&probe], false))?.status {
        200 => {}
        404 => return Ok(None),
        status => bail!("`GET {path}` answered {status}"),
    }
    let blobs = [payload.variant(0), payload.variant(1)];
    fill(&target, REFERRERS, async |conn, id| {
        let manifest = image(&blobs, Some(&subject), id + 1);
        put_manifest(conn, REPO, &manifest.digest, &manifest).await
    })?;
    if whole {
        return Ok(Some(whole_list(target, path, "sha256:", REFERRERS)));
    }
    let requests = vec![request("GET", &format!("{path}?n={PAGE}"), "")];
    Ok(Some(repeat(target, 1, requests, 10_000..=u64::MAX)))
}

/// From exec to the first answer, fifteen times, on what the store holds.
fn start(site: &Site) -> Result<Option<Round>> {
    site.server.replace(None);
    let (launch, stop) = (site.launch.clone(), site.stop.clone());
    Ok(Some(Box::new(move |_| {
        let mut sample = Sample::default();
        for _ in 0..15 {
            ensure!(!stop.load(std::sync::atomic::Ordering::Relaxed), "interrupted");
            let server = launch.start()?;
            sample.seconds += server.start.as_secs_f64();
            sample.latencies.push(server.start.as_micros() as u32);
            sample.server_cpu += cpu_seconds(server.pid())?;
            sample.ready_memory = sample.ready_memory.max(Some(server.ready_memory));
        }
        sample.latencies.sort_unstable();
        Ok(sample)
    })))
}
