//! Owns how a pull is told: progress over all layers, and what its errors mean to whoever configured it. Pure. Does not
//! own pulls.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::docker::image::ImageName;

/// A line of the engine's stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PullLine {
    /// Such as `Downloading`.
    pub status: String,
    /// The layer.
    pub id: String,
    /// How far it is.
    #[serde(rename = "progressDetail")]
    pub detail: Detail,
    /// Why the pull failed.
    pub error: Option<String>,
}

/// How far a layer is, in bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// Done.
    pub current: u64,
    /// Of so many.
    pub total: u64,
}

/// How far a pull is.
#[derive(Default)]
pub struct Tally {
    /// Bytes done and bytes in all, by layer.
    layers: BTreeMap<String, (u64, u64)>,
    unpacking: bool,
}

impl Tally {
    /// Counts a line. Returns whether it changed anything.
    pub fn count(&mut self, line: &PullLine) -> bool {
        match line.status.as_str() {
            "Downloading" if line.detail.total > 0 => {
                self.layers.insert(line.id.clone(), (line.detail.current, line.detail.total));
            }
            "Download complete" | "Pull complete" => match self.layers.get_mut(&line.id) {
                Some((done, total)) => *done = *total,
                None => return false,
            },
            "Extracting" => self.unpacking = true,
            _ => return false,
        }
        true
    }

    /// Such as `pulling registry: 12.3 of 40.1 MiB`.
    pub fn shown(&self, image: &ImageName) -> String {
        let (done, total) = self.layers.values().fold((0, 0), |(a, b), (done, total)| (a + done, b + total));
        if total == 0 {
            return format!("pulling {image}");
        }
        if done == total && self.unpacking {
            return format!("unpacking {image}: {} MiB", mebibytes(total));
        }
        format!("pulling {image}: {} of {} MiB", mebibytes(done), mebibytes(total))
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Whose credentials a pull was tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Used {
    /// Those of the key `config.json` of this `sec` object.
    Secret(String),
    /// That object's, but it has none for the registry.
    NoneInSecret(String),
    /// Those of root on this node.
    Node,
    /// None.
    Nobody,
}

/// What an error of a pull means: text and hint.
pub fn meaning(image: &ImageName, used: &Used, said: &str) -> (String, Option<String>) {
    let lower = said.to_ascii_lowercase();
    let registry = &image.registry;
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let what = format!("pull image {image}: {said}");
    if has(&["http response to https client"]) {
        let hint = format!(
            "{registry} does not serve TLS: serve it, or list it in insecure-registries of /etc/docker/daemon.json"
        );
        return (what, Some(hint));
    }
    if has(&["x509", "certificate"]) {
        let hint = format!("put the authority's certificate into /etc/docker/certs.d/{registry}/ca.crt");
        return (what, Some(hint));
    }
    if has(&[
        "unauthorized",
        "denied",
        "authentication required",
        "no basic auth",
        "incorrect username",
        "403 forbidden",
    ]) {
        let (told, hint) = match used {
            Used::Secret(path) => (
                format!("the credentials for {registry} in key config.json of {path} were refused"),
                format!("om {path} edit --key config.json"),
            ),
            Used::NoneInSecret(path) => (
                format!("key config.json of {path} has no credentials for {registry}"),
                format!("docker login {registry} elsewhere, then om {path} edit --key config.json"),
            ),
            Used::Node => (
                format!("the credentials of root on this node for {registry} were refused"),
                format!("docker login {registry}, or set registry_creds"),
            ),
            Used::Nobody => (
                format!("no credentials for {registry} were given"),
                format!("docker login {registry} on this node, or set registry_creds"),
            ),
        };
        return (format!("{what} ({told})"), Some(hint));
    }
    if has(&["manifest unknown", "not found", "name unknown", "repository does not exist"]) {
        return (what, Some(format!("{registry} has no such image: check `image`, and push it if it is yours")));
    }
    if has(&[
        "no such host",
        "server misbehaving",
        "connection refused",
        "i/o timeout",
        "no route",
        "unreachable",
        "deadline",
    ]) {
        return (what, Some(format!("check that this node reaches {registry}")));
    }
    if has(&["toomanyrequests", "rate limit"]) {
        return (what, Some(format!("docker login {registry} raises the limit")));
    }
    if has(&["invalid reference", "no space left"]) {
        return (what, None);
    }
    (what, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_together() {
        let mut tally = Tally::default();
        let image = ImageName::parse("registry");
        let mut check = |status: &str, id: &str, current: u64, total: u64, expected: &str| {
            let detail = Detail { current, total };
            tally.count(&PullLine { status: status.into(), id: id.into(), detail, error: None });
            assert_eq!(tally.shown(&image), expected, "{status} {id}");
        };
        check("Pulling from library/registry", "2", 0, 0, "pulling registry");
        check("Downloading", "a", 1 << 20, 4 << 20, "pulling registry: 1.0 of 4.0 MiB");
        check("Downloading", "b", 512 << 10, 1 << 20, "pulling registry: 1.5 of 5.0 MiB");
        check("Download complete", "a", 0, 0, "pulling registry: 4.5 of 5.0 MiB");
        check("Extracting", "a", 1, 2, "pulling registry: 4.5 of 5.0 MiB");
        check("Download complete", "b", 0, 0, "unpacking registry: 5.0 MiB");
        check("Pull complete", "c", 0, 0, "unpacking registry: 5.0 MiB");
    }

    #[test]
    fn errors_say_whose_credentials_were_used() {
        let check = |used: Used, said: &str, expected: &str, hint: &str| {
            let (text, got) = meaning(&ImageName::parse("reg:5000/app"), &used, said);
            assert_eq!((&*text, &*got.unwrap_or_default()), (expected, hint));
        };
        check(
            Used::Secret("myns/sec/creds".into()),
            "unauthorized: no",
            "pull image reg:5000/app: unauthorized: no (the credentials for reg:5000 in key config.json of \
             myns/sec/creds were refused)",
            "om myns/sec/creds edit --key config.json",
        );
        check(
            Used::NoneInSecret("myns/sec/creds".into()),
            "denied",
            "pull image reg:5000/app: denied (key config.json of myns/sec/creds has no credentials for reg:5000)",
            "docker login reg:5000 elsewhere, then om myns/sec/creds edit --key config.json",
        );
        check(
            Used::Nobody,
            "no basic auth credentials",
            "pull image reg:5000/app: no basic auth credentials (no credentials for reg:5000 were given)",
            "docker login reg:5000 on this node, or set registry_creds",
        );
        check(
            Used::Node,
            "manifest unknown",
            "pull image reg:5000/app: manifest unknown",
            "reg:5000 has no such image: check `image`, and push it if it is yours",
        );
        check(
            Used::Nobody,
            "dial tcp: lookup reg: no such host",
            "pull image reg:5000/app: dial tcp: lookup reg: no such host",
            "check that this node reaches reg:5000",
        );
    }
}
