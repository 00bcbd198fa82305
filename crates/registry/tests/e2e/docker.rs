//! Docker pushes, pulls, runs, mounts and deletes.

use testkit::engine::{Docker, Engine};
use testkit::image::{GREETING, Image, host_architecture, sha256, write_layout};
use testkit::random::{Random, seed};

use crate::plain_registry;
use crate::skopeo::Skopeo;

/// Fails unless the image under `reference` prints its greeting, if containers run here at all.
#[track_caller]
fn check_runs(engine: &Engine, docker: &Docker, reference: &str) {
    if engine.runs_containers() {
        let printed = docker.run(&["run", "--rm", "--network", "none", reference]).stdout;
        assert_eq!(printed.trim(), GREETING);
    }
}

#[test]
fn an_image_of_many_layers_travels_whole() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let mut random = Random::new(seed());
    let mut image = Image::busybox();
    let mut files = vec![];
    for len in [0, 1, 70_000, 300_000, 20 << 20] {
        let (grown, digest) = image.with_random(&mut random, len);
        image = grown;
        files.push((format!("/random/{}", files.len() + 1), digest));
    }
    let reference = format!("{}/team/api:1.4", server.host_port());
    docker.load(&image, &reference);
    let pushed = docker.push(&reference);

    let manifest = server.client().get("/v2/team/api/manifests/1.4").expect("get the manifest");
    assert_eq!((manifest.status, sha256(&manifest.body)), (200, pushed.clone()));
    assert_eq!(manifest.header("docker-content-digest"), pushed);

    docker.forget_images();
    assert_eq!(docker.pull(&reference), pushed);
    for (path, digest) in &files {
        assert_eq!(&sha256(&docker.file_of(&reference, path)), digest, "{path}");
    }
    check_runs(&engine, &docker, &reference);

    docker.forget_images();
    let by_digest = format!("{}/team/api@{pushed}", server.host_port());
    assert_eq!(docker.pull(&by_digest), pushed);
}

#[test]
fn known_layers_are_not_sent_again() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let mut random = Random::new(seed());
    let (image, _) = Image::busybox().with_random(&mut random, 200_000);
    let (image, _) = image.with_random(&mut random, 300_000);
    let reference = |name: &str| format!("{}/{name}", server.host_port());
    docker.load(&image, &reference("team/api:1"));

    let check = |name: &str, said: &str| {
        docker.run(&["tag", &reference("team/api:1"), &reference(name)]);
        let text = docker.run(&["push", &reference(name)]).text();
        assert_eq!(text.matches(said).count(), 3, "{name} should say `{said}` 3 times: {text}");
    };
    check("team/api:1", "Pushed");
    check("team/api:1", "Layer already exists");
    check("team/api:2", "Layer already exists");
    check("other/app:1", "Mounted from team/api");

    docker.forget_images();
    docker.pull(&reference("other/app:1"));
    check_runs(&engine, &docker, &reference("other/app:1"));
}

#[test]
fn a_built_image_is_pulled_by_someone_else() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let context = tempfile::tempdir().expect("create a temp dir");
    let file = |name: &str| context.path().join(name);
    std::fs::copy("/bin/busybox", file("busybox")).expect("copy busybox");
    let text = format!(
        "FROM scratch\nLABEL made.by=test\nCOPY busybox /bin/busybox\n\
         COPY Dockerfile /etc/recipe\nCMD [\"/bin/busybox\", \"echo\", \"{GREETING}\"]\n"
    );
    std::fs::write(file("Dockerfile"), &text).expect("write the Dockerfile");
    let reference = format!("{}/built:latest", server.host_port());
    docker.run(&["build", "--tag", &reference, &context.path().to_string_lossy()]);
    let pushed = docker.push(&reference);

    docker.forget_images();
    let other = engine.client();
    assert_eq!(other.pull(&reference), pushed);
    assert_eq!(other.file_of(&reference, "/etc/recipe"), text.as_bytes());
    check_runs(&engine, &other, &reference);
}

#[test]
fn a_deleted_image_is_gone_and_its_neighbour_stays() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let reference = |name: &str| format!("{}/{name}", server.host_port());
    let (neighbour, _) = Image::busybox().with_random(&mut Random::new(1), 50_000);
    docker.load(&Image::busybox(), &reference("team/api:old"));
    docker.load(&neighbour, &reference("team/api:new"));
    let old = docker.push(&reference("team/api:old"));
    docker.push(&reference("team/api:new"));

    let target = format!("{}/v2/team/api/manifests/{old}", server.url());
    assert_eq!(crate::artifact::curl(&["-X", "DELETE", &target]).status, 202);

    docker.forget_images();
    let unknown = ["manifest unknown", "not found"];
    docker.try_run(&["pull", &reference("team/api:old")]).refused(&unknown);
    docker.try_run(&["pull", &reference(&format!("team/api@{old}"))]).refused(&unknown);
    docker.pull(&reference("team/api:new"));
    check_runs(&engine, &docker, &reference("team/api:new"));
}

#[test]
fn the_right_architecture_is_pulled_from_an_index() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let other = if host_architecture() == "amd64" { "arm64" } else { "amd64" };
    let foreign = Image::empty(other).with_file("bin/busybox", 0o755, b"for another machine");
    let layout = tempfile::tempdir().expect("create a temp dir");
    let index = write_layout(layout.path(), "multi", &[foreign, Image::busybox()]);
    let reference = format!("{}/multi:1", server.host_port());
    Skopeo::new().push(layout.path(), "multi", &reference);

    assert_eq!(docker.pull(&reference), index);
    check_runs(&engine, &docker, &reference);
    let local = docker.run(&["image", "inspect", "--format", "{{.Architecture}}", &reference]);
    assert_eq!(local.stdout.trim(), host_architecture());
}

#[test]
fn a_manifest_list_is_assembled_by_docker() {
    let (engine, server) = (Engine::start(), plain_registry());
    let docker = engine.client();
    let reference = |tag: &str| format!("{}/team/list:{tag}", server.host_port());
    let list = reference("all");
    for architecture in ["amd64", "arm64"] {
        let image = Image::empty(architecture).with_file("for", 0o644, architecture.as_bytes());
        docker.load(&image, &reference(architecture));
        docker.push(&reference(architecture));
    }
    let (one, other) = (reference("amd64"), reference("arm64"));
    docker.run(&["manifest", "create", "--insecure", &list, &one, &other]);
    let pushed = docker.run(&["manifest", "push", "--insecure", "--purge", &list]);
    let pushed = pushed.stdout.trim().to_owned();

    let seen = docker.run(&["manifest", "inspect", "--insecure", &list]);
    for architecture in ["amd64", "arm64"] {
        assert!(seen.stdout.contains(architecture), "{seen}");
    }
    docker.forget_images();
    assert_eq!(docker.pull(&list), pushed);
    assert_eq!(docker.file_of(&list, "/for"), host_architecture().as_bytes());
}
