//! Names and passwords from an htpasswd file.

use std::fs;

use tempfile::TempDir;
use testkit::client::Client;
use testkit::command::{self, tool};
use testkit::engine::Engine;
use testkit::image::{Image, write_layout};
use testkit::server::{Server, Setup};

use crate::podman::Podman;
use crate::skopeo::Skopeo;
use crate::{PLAIN, REGISTRY};

const USER: &str = "ada";
const PASSWORD: &str = "correct horse: battery?";

/// What the clients say when they are turned away.
const TURNED_AWAY: &[&str] = &["unauthorized", "no basic auth credentials", "authentication required"];

/// A registry that only lets [`USER`] in; the folder holds the password file.
fn closed_registry() -> (Server, TempDir) {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let mut command = tool("htpasswd");
    // Cost 5 keeps the test quick; the file format is the same.
    command.args(["-nbB", "-C", "5", USER, PASSWORD]);
    let line = command::run(command).ok().stdout;
    let file = dir.path().join("htpasswd");
    fs::write(&file, line).expect("write the password file");
    let auth = format!("auth:\n  htpasswd:\n    realm: Test Realm\n    path: {}\n", file.display());
    (Setup::new(REGISTRY, &format!("{PLAIN}{auth}")).start(), dir)
}

#[test]
fn the_api_asks_for_basic_credentials() {
    let (server, _dir) = closed_registry();
    let check = |client: Client, method: &str, path: &str, status: u16| {
        let got = client.send(method, path, &[], b"").expect("an answer");
        assert_eq!(got.status, status, "{method} {path}: {}", got.text());
        if status == 401 {
            assert_eq!(got.header("www-authenticate"), "Basic realm=\"Test Realm\"");
            assert_eq!(got.error_code(), "UNAUTHORIZED");
        }
    };
    let url = server.url();
    check(server.client(), "GET", "/v2/", 401);
    check(server.client(), "POST", "/v2/team/api/blobs/uploads/", 401);
    check(Client::basic(&url, USER, "wrong"), "GET", "/v2/", 401);
    check(Client::basic(&url, "nobody", PASSWORD), "GET", "/v2/", 401);
    check(Client::basic(&url, USER, PASSWORD), "GET", "/v2/", 200);
    check(Client::basic(&url, USER, PASSWORD), "POST", "/v2/team/api/blobs/uploads/", 202);
    check(Client::basic(&url, USER, PASSWORD), "GET", "/v2/team/api/manifests/1", 404);
    let log = server.log();
    assert!(!log.contains(PASSWORD), "the password is in the log");
}

#[test]
fn docker_logs_in_before_it_may_push_or_pull() {
    let (server, _dir) = closed_registry();
    let engine = Engine::start();
    let host = server.host_port();
    let reference = format!("{host}/team/api:1");
    let login = |docker: &testkit::engine::Docker, password: &str| {
        docker.try_run(&["login", "--username", USER, "--password", password, host])
    };
    let docker = engine.client();
    docker.load(&Image::busybox(), &reference);
    docker.try_run(&["push", &reference]).refused(TURNED_AWAY);
    login(&docker, "wrong").refused(&["unauthorized", "401"]);
    docker.try_run(&["push", &reference]).refused(TURNED_AWAY);
    assert!(login(&docker, PASSWORD).ok().stdout.contains("Login Succeeded"));
    let pushed = docker.push(&reference);

    docker.forget_images();
    let stranger = engine.client();
    stranger.try_run(&["pull", &reference]).refused(TURNED_AWAY);
    assert_eq!(docker.pull(&reference), pushed);
    docker.run(&["logout", host]);
    docker.forget_images();
    docker.try_run(&["pull", &reference]).refused(TURNED_AWAY);
}

#[test]
fn skopeo_and_podman_log_in() {
    let (server, _dir) = closed_registry();
    let (skopeo, podman) = (Skopeo::new(), Podman::new());
    let layout = tempfile::tempdir().expect("create a temp dir");
    write_layout(layout.path(), "src", &[Image::busybox()]);
    let from = crate::skopeo::oci(layout.path(), "src");
    let target = format!("docker://{}/team/api:1", server.host_port());
    let copy = |creds: &[&str]| {
        let args = [&["copy", "--dest-tls-verify=false"], creds, &[&from, &target]].concat();
        skopeo.run(&args)
    };
    copy(&[]).refused(TURNED_AWAY);
    copy(&["--dest-creds", &format!("{USER}:wrong")]).refused(&["unauthorized", "invalid username/password"]);
    copy(&["--dest-creds", &format!("{USER}:{PASSWORD}")]).ok();

    let login = |password: &str| {
        let user = ["--username", USER, "--password", password];
        let args = [&["login", "--tls-verify=false"], &user[..], &[server.host_port()]].concat();
        podman.run("podman", &args)
    };
    let reference = target.trim_start_matches("docker://");
    let pull = || podman.run("podman", &["pull", "--tls-verify=false", reference]);
    pull().refused(TURNED_AWAY);
    login("wrong").refused(&["unauthorized", "invalid username/password"]);
    login(PASSWORD).ok();
    pull().ok();
}
