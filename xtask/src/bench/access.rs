//! The scenarios that show what access control costs: those of the registry again, with a token, and its own.
//!
//! Does not own accounts and tokens, nor what is measured of a scenario that exists without access control, too.

use std::cell::{Cell, RefCell};

use anyhow::{Context, Result, ensure};

use super::drive::{Budget, Sample, block_on, drive};
use super::guard::{Guard, Shown, Who, bearer, field};
use super::payload::Payload;
use super::registry::{manifest_request, push_image, request, with_length};
use super::scenarios::{
    CATALOG, Fixture, PAGE, REPO, Round, Scenario, Site, all, manifests_from, page_starts, push_blobs, repeat,
};

/// Least share of the rate that is kept with a token: manifests and small blobs.
const KEPT: f64 = 0.8;
/// What Docker asks for when it pulls.
const SCOPE: &str = "repository:bench/app:pull";

/// Scenarios of the registry that the floor is for.
const JUDGED: [&str; 8] = [
    "push-small",
    "manifest-get-tag",
    "manifest-get-digest",
    "manifest-head-tag",
    "manifest-head-digest",
    "blob-get-10K",
    "manifest-put",
    "tag-put",
];
/// Scenarios of the registry that are compared, too.
const SHOWN: [&str; 2] = ["tags-page", "catalog-page"];

/// All scenarios; those that share a fixture are neighbours.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let (mut judged, mut shown) = (Vec::new(), Vec::new());
    for scenario in all() {
        // A floor against v2 says nothing here.
        let plain = Scenario { floor: Default::default(), limit: None, v3: None, ..scenario };
        if JUDGED.contains(&plain.name) {
            judged.push(plain.kept(KEPT));
        } else if SHOWN.contains(&plain.name) {
            shown.push(plain);
        }
    }
    let of_both = [Scenario::new("blob-push-10K", push_blobs).kept(KEPT)];
    let lists = [Scenario::new("catalog-page-fifth", page_of_some).with(Fixture::ManyRepositories)];
    let of_guarded = [
        Scenario::new("manifest-get-password", manifests_by_password),
        Scenario::new("challenge", challenges),
        Scenario::new("token-secret", |site| tokens(site, Proof::Secret)),
        Scenario::new("token-password", |site| tokens(site, Proof::Password)),
        Scenario::new("token-refresh", |site| tokens(site, Proof::Refresh)),
        Scenario::new("token-and-manifest", pulls),
    ];
    judged.into_iter().chain(of_both).chain(shown).chain(lists).chain(of_guarded).collect()
}

impl Scenario {
    fn kept(mut self, share: f64) -> Self {
        self.floor.kept = Some(share);
        self
    }
}

/// Makes sure that what a round asks for is refused to those who show nothing, or a token for something else: else a
/// server without access control would do very well here.
///
/// # Errors
/// If any of it was not answered with 401.
pub(crate) fn check_refusals(guard: &Guard, round: &mut Round) -> Result<u64> {
    let tried = [Shown::Nothing, Shown::Elsewhere];
    for shown in tried {
        let refusal = match guard.while_showing(shown, || round(Budget::operations(1))) {
            Err(error) => format!("{error:#}"),
            Ok(sample) => sample.first_error.unwrap_or_else(|| "it was allowed".to_owned()),
        };
        ensure!(refusal.contains("answered 401"), "a request that shows {shown:?} was not refused: {refusal}");
    }
    Ok(tried.len() as u64)
}

/// Pages for somebody who may see one repository in five: as many entries as for everybody else, but other ones.
fn page_of_some(site: &Site) -> Result<Option<Round>> {
    let target = site.with_token(Who::Reader, CATALOG)?;
    let pages =
        page_starts(site.held.get(), 5 * PAGE).map(|last| format!("/v2/_catalog?n={PAGE}&last=many/r{last:05}"));
    let requests: Vec<Vec<u8>> = pages.map(|path| request("GET", &path, "")).collect();
    let mut conn = target.conn();
    for page in &requests {
        block_on(conn.expect(&[page], true, 200))?;
        let names: Vec<&str> =
            std::str::from_utf8(conn.body())?.split('"').filter(|t| t.starts_with("many/")).collect();
        ensure!(names.len() == PAGE, "a page of {} repositories, expected {PAGE}", names.len());
        let hidden = names.iter().find(|name| !name.ends_with(['3', '8']) && site.guard.is_some());
        ensure!(hidden.is_none(), "the catalog shows `{hidden:?}`, which must not be seen");
    }
    let length = conn.body().len() as u64;
    Ok(Some(repeat(target, 1, requests, length..=length)))
}

/// Reads manifests as a client that never asks for tokens.
fn manifests_by_password(site: &Site) -> Result<Option<Round>> {
    let badge = site.guard.as_ref().map(|guard| guard.basic(Who::Admin));
    let target = site.with_badge(badge)?;
    let round = manifests_from(site, target.clone(), "GET", true)?;
    if site.guard.is_some() {
        // From here on the password is proved.
        block_on(target.conn().expect(&[&request("GET", "/v2/", "")], false, 200))?;
    }
    Ok(round)
}

/// The first request of every client.
fn challenges(site: &Site) -> Result<Option<Round>> {
    if site.guard.is_none() {
        return Ok(None);
    }
    let (target, ask) = (site.with_badge(None)?, request("GET", "/v2/", ""));
    Ok(Some(Box::new(move |budget| {
        drive(&target, 8, budget, &Cell::new(0), async |conn, _| conn.expect(&[&ask], false, 401).await.map(drop))
    })))
}

/// What a token is asked for with.
#[derive(Clone, Copy)]
enum Proof {
    /// That of a robot.
    Secret,
    /// One that was proved before.
    Password,
    /// In a form.
    Refresh,
}

/// A request for a token, and one that differs in the proof only, which is wrong.
fn token_requests(site: &Site, guard: &Guard, proof: Proof) -> Result<[Vec<u8>; 2]> {
    let path = guard.token_path(SCOPE);
    let by_header =
        |who| [guard.basic_line(who), guard.wrong_line(who)].map(|authorization| request("GET", &path, &authorization));
    Ok(match proof {
        Proof::Secret => by_header(Who::Robot),
        Proof::Password => by_header(Who::Admin),
        Proof::Refresh => {
            let mut conn = site.with_badge(None)?.conn();
            let ask = request("GET", &format!("{path}&offline_token=true"), &guard.basic_line(Who::Admin));
            block_on(conn.expect(&[&ask], true, 200))?;
            let (address, query) = path.split_once('?').context("a path without query")?;
            // An access token of the same user is no refresh token.
            let names = ["refresh_token", "token"];
            let tokens = names.map(|name| field(conn.body(), name));
            let [good, wrong] = tokens.map(|token| {
                let form = format!("grant_type=refresh_token&client_id=bench&{query}&refresh_token={}", token?);
                let media = "application/x-www-form-urlencoded";
                anyhow::Ok([with_length("POST", address, media, form.len(), ""), form.into_bytes()].concat())
            });
            [good?, wrong?]
        }
    })
}

/// Asks for tokens.
fn tokens(site: &Site, proof: Proof) -> Result<Option<Round>> {
    let Some(guard) = &site.guard else {
        return Ok(None);
    };
    let target = site.with_badge(None)?;
    let [ask, wrong] = token_requests(site, guard, proof)?;
    block_on(target.conn().expect(&[&wrong], false, 401)).context("ask with a wrong proof")?;
    // A password is proved by its first use.
    block_on(target.conn().expect(&[&ask], false, 200))?;
    let read = PrivateManifest::new(site)?;
    Ok(Some(Box::new(move |budget| {
        let last = RefCell::new(Vec::new());
        let sample = drive(&target, 8, budget, &Cell::new(0), async |conn, _| {
            conn.expect(&[&ask], true, 200).await?;
            last.borrow_mut().clear();
            last.borrow_mut().extend_from_slice(conn.body());
            Ok(())
        })?;
        if sample.errors == 0 {
            let request = read.request(&bearer(&field(&last.borrow(), "token")?));
            block_on(target.conn().expect(&[&request], false, 200)).context("use the last token")?;
        }
        Ok::<Sample, _>(sample)
    })))
}

/// Asks for a token and reads a manifest with it, as every `docker pull` begins: this token was not seen before.
fn pulls(site: &Site) -> Result<Option<Round>> {
    let Some(guard) = &site.guard else {
        return Ok(None);
    };
    let target = site.with_badge(None)?;
    let [ask, _] = token_requests(site, guard, Proof::Secret)?;
    let read = PrivateManifest::new(site)?;
    block_on(target.conn().expect(&[&read.request("")], false, 401)).context("read without a token")?;
    Ok(Some(Box::new(move |budget| {
        drive(&target, 8, budget, &Cell::new(0), async |conn, _| {
            conn.expect(&[&ask], true, 200).await?;
            let request = read.request(&bearer(&field(conn.body(), "token")?));
            let answer = conn.expect(&[&request], false, 200).await?;
            ensure!(answer.length == read.length, "a manifest of {} bytes, expected {}", answer.length, read.length);
            Ok(())
        })
    })))
}

/// A manifest that nobody reads without rights.
struct PrivateManifest {
    digest: String,
    length: u64,
}

impl PrivateManifest {
    fn new(site: &Site) -> Result<Self> {
        let payload = Payload::new(1_000, 12);
        let blobs = [payload.variant(0), payload.variant(1)];
        let manifest = block_on(push_image(&mut site.target()?.conn(), REPO, "private", &blobs))?;
        Ok(Self { length: manifest.bytes.len() as u64, digest: manifest.digest })
    }

    /// A request for it, with an authorization line.
    fn request(&self, line: &str) -> Vec<u8> {
        let request = manifest_request("GET", REPO, &self.digest);
        let at = request.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        [&request[..at], line.as_bytes(), &request[at..]].concat()
    }
}
