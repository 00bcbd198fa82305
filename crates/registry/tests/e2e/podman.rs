//! Podman and buildah, which speak to registries without an engine.

use std::fs;

use tempfile::TempDir;
use testkit::command::{self, Outcome, tool};
use testkit::image::{Image, sha256};
use testkit::random::{Random, seed};

use crate::plain_registry;
use crate::skopeo::Skopeo;

/// Podman and buildah with storage and credentials of their own.
pub(crate) struct Podman {
    dir: TempDir,
}

impl Podman {
    /// Empty storage, no credentials.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("create a temp dir");
        // Named explicitly, the file has to exist.
        fs::write(dir.path().join("auth.json"), "{}").expect("write the credentials file");
        Self { dir }
    }

    /// Runs `program` (`podman` or `buildah`) with `args`, whatever comes of it.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Outcome {
        let mut command = tool(program);
        let path = |name: &str| self.dir.path().join(name);
        command.env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.dir.path());
        command.env("REGISTRY_AUTH_FILE", path("auth.json"));
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run"));
        command.args(["--storage-driver", "vfs"]).args(args);
        command::run(command)
    }
}

#[test]
fn podman_pushes_and_pulls() {
    let (server, podman) = (plain_registry(), Podman::new());
    let (image, _) = Image::busybox().with_random(&mut Random::new(seed()), 500_000);
    let reference = format!("{}/team/pod:1", server.host_port());
    let archive = podman.dir.path().join("image.tar");
    fs::write(&archive, image.docker_archive(&reference)).expect("write the archive");
    podman.run("podman", &["load", "--input", &archive.to_string_lossy()]).ok();
    let id = podman.run("podman", &["image", "ls", "--quiet", "--no-trunc"]);
    let id = id.ok().stdout;
    let id = id.trim().trim_start_matches("sha256:");
    podman.run("podman", &["push", "--tls-verify=false", id, &reference]).ok();
    podman.run("podman", &["rmi", "--force", id]).ok();
    let pulled = podman.run("podman", &["pull", "--quiet", "--tls-verify=false", &reference]).ok();
    assert_eq!(pulled.stdout.trim(), id, "the image id is the digest of its config");
}

#[test]
fn buildah_commits_into_the_registry() {
    let (server, buildah) = (plain_registry(), Podman::new());
    let content = Random::new(seed()).bytes(100_000);
    let file = buildah.dir.path().join("payload");
    fs::write(&file, &content).expect("write the payload");
    let target = format!("docker://{}/team/built:1", server.host_port());
    let container = buildah.run("buildah", &["from", "scratch"]).ok().stdout;
    let container = container.trim();
    buildah.run("buildah", &["copy", container, &file.to_string_lossy(), "/payload"]).ok();
    buildah.run("buildah", &["commit", "--tls-verify=false", container, &target]).ok();

    let layout = tempfile::tempdir().expect("create a temp dir");
    let to = format!("dir:{}", layout.path().display());
    Skopeo::new().run(&["copy", "--src-tls-verify=false", &target, &to]).ok();
    let manifest = fs::read(layout.path().join("manifest.json")).expect("skopeo has copied it");
    let path = format!("/v2/team/built/manifests/{}", sha256(&manifest));
    assert_eq!(server.client().head(&path).expect("head of the manifest").status, 200);

    let reference = target.trim_start_matches("docker://");
    buildah.run("buildah", &["pull", "--tls-verify=false", reference]).ok();
}
