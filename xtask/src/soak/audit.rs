//! The end of a soak: everything that was acknowledged is pulled, and nothing is on the disk that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::bench::registry::request;

use super::Shared;
use super::client::{Client, Stop};
use super::server::{Server, Times};

/// What there is too much of, or too little.
#[derive(Default)]
struct Leftovers(Vec<String>);

/// Pulls all that must be there, through the eyes of one client.
pub(super) fn pull_everything(shared: &Shared) {
    let mut client = Client::new(shared, usize::MAX >> 32);
    client.adopt_generation();
    for repository in shared.repositories() {
        for tag in &shared.tags {
            if client.pull_tag(repository, tag).is_err() {
                shared.violation("end", &format!("{repository}:{tag}"), "cannot be pulled at the end");
            }
        }
        let images = shared.model().images(repository);
        for image in images {
            if client.pull_manifest(repository, &image.digest, true).is_err() {
                shared.violation("end", &image.digest, &format!("cannot be pulled from {repository} at the end"));
            }
        }
    }
}

/// Waits until all that nothing refers to is gone, and says what is still there after the time that this takes at most.
pub(super) fn wait_until_clean(shared: &Shared, server: &mut Server, times: &Times) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        server.check_alive()?;
        let left = leftovers(shared, server)?;
        if left.0.is_empty() {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > times.until_clean() {
            let count = left.0.len();
            for line in left.0.into_iter().take(50) {
                shared.violation("end", &line, "leaked");
            }
            shared.note("end", &format!("{count} leftovers"));
            return Ok(begin.elapsed());
        }
        sleep(Duration::from_secs(1));
    }
}

/// Compares what the registry serves with what is on its disk.
fn leftovers(shared: &Shared, server: &Server) -> Result<Leftovers> {
    let reachable = match reachable(shared) {
        Ok(reachable) => reachable,
        Err(Stop::Lost | Stop::Again) => {
            return Ok(Leftovers(vec!["a list of what is reachable cannot be had".to_owned()]));
        }
    };
    let files = server.blob_files()?;
    let mut left = Leftovers::default();
    for (digest, sizes) in &files.blobs {
        match (reachable.contains_key(digest), sizes.len()) {
            (true, 1) => {}
            (true, count) => left.0.push(format!("{digest}: {count} files of a blob that is in use")),
            (false, 0) => left.0.push(format!("{digest}: an empty directory")),
            (false, count) => left.0.push(format!("{digest}: {count} files of a blob that nothing refers to")),
        }
    }
    left.0.extend(files.strange.iter().map(|path| format!("{}: no blob's file", path.display())));
    left.0.extend(server.upload_files()?.iter().map(|path| format!("{}: an upload's file", path.display())));
    Ok(left)
}

/// The digests of all that tags reach, each with the repositories where they do.
fn reachable(shared: &Shared) -> Result<BTreeMap<String, BTreeSet<String>>, Stop> {
    let mut client = Client::new(shared, usize::MAX >> 32);
    client.adopt_generation();
    let mut reachable = BTreeMap::<String, BTreeSet<String>>::new();
    for repository in shared.repositories() {
        let tags = client.ask(&[&request("GET", &format!("/v2/{repository}/tags/list"), "")])?;
        let tags: Value = serde_json::from_slice(&tags.body).unwrap_or_default();
        let tags = tags["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let mut todo: Vec<String> = tags.collect();
        let mut seen = BTreeSet::new();
        while let Some(reference) = todo.pop() {
            if !seen.insert(reference.clone()) {
                continue;
            }
            let accept =
                "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json\r\n";
            let path = format!("/v2/{repository}/manifests/{reference}");
            let reply = client.ask(&[&request("GET", &path, accept)])?;
            if reply.status != 200 {
                continue;
            }
            let digest = crate::bench::payload::digest_of(&reply.body);
            let mut hold = |digest: &str| {
                reachable.entry(digest.to_owned()).or_default().insert(repository.clone());
            };
            hold(&digest);
            let manifest: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let digests = |value: &Value| -> Vec<String> {
                let all = value.as_array().into_iter().flatten();
                all.filter_map(|entry| entry["digest"].as_str()).map(str::to_owned).collect()
            };
            digests(&manifest["layers"]).iter().for_each(|digest| hold(digest));
            if let Some(config) = manifest["config"]["digest"].as_str() {
                hold(config);
            }
            // The bytes of an entry that a client deleted are still referred to.
            digests(&manifest["manifests"]).iter().for_each(|digest| hold(digest));
            todo.extend(digests(&manifest["manifests"]));
            // What is about it is kept with it.
            let path = format!("/v2/{repository}/referrers/{digest}");
            let referrers = client.ask(&[&request("GET", &path, "")])?;
            let referrers: Value = serde_json::from_slice(&referrers.body).unwrap_or_default();
            todo.extend(digests(&referrers["manifests"]));
        }
    }
    Ok(reachable)
}

/// What the program itself says about its directory, once the server has stopped.
pub(super) fn check_directory(shared: &Shared, server: &Server) -> Result<String> {
    let output = server.command(&["check"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Ok(report) = serde_json::from_str::<Value>(&text) else {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        shared.violation("end", "registry check", &format!("no report: {text} {error}"));
        return Ok("no report".to_owned());
    };
    let listed = report["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut by_clients = 0;
    for problem in listed {
        let field = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        if field("kind") == "dangling" && is_by_a_client(shared, &field("subject"), &field("detail")) {
            by_clients += 1;
            continue;
        }
        shared.violation("end", &field("subject"), &format!("registry check: {}: {}", field("kind"), field("detail")));
    }
    let well = output.status.success() && report["ok"] == Value::Bool(true);
    if !well && listed.is_empty() {
        shared.violation("end", "registry check", &format!("failed with {}: {text}", output.status));
    }
    Ok(match (well, by_clients) {
        (true, _) => "no problem".to_owned(),
        (false, count) if count == listed.len() => format!("no problem but {count} parts that clients deleted"),
        _ => "problems, see below".to_owned(),
    })
}

/// Whether what a manifest lacks was taken from under it by a client, which may delete any blob. `subject` is
/// `repository@digest`, and `detail` names the part.
fn is_by_a_client(shared: &Shared, subject: &str, detail: &str) -> bool {
    let Some((repository, manifest)) = subject.split_once('@') else {
        return false;
    };
    let part = detail.split_whitespace().find(|word| word.starts_with("sha256:"));
    let model = shared.model();
    part.is_some_and(|part| model.image(repository, manifest).is_some() && !model.is_whole(repository, manifest, part))
}
