//! Bearer tokens from a token service the operator already has.

use testkit::client::Client;
use testkit::engine::Engine;
use testkit::image::{Image, write_layout};
use testkit::issuer::{Account, Issuer, KeyHint};
use testkit::server::{Server, Setup};

use crate::skopeo::{Skopeo, oci};
use crate::{PLAIN, REGISTRY};

const ACCOUNTS: &[Account] = &[
    Account { name: "dev", password: "dev-secret", access: &[("team/*", "pull,push"), ("public/*", "pull,push")] },
    Account { name: "reader", password: "reader-secret", access: &[("team/*", "pull")] },
    Account { name: "", password: "", access: &[("public/*", "pull")] },
];

const TURNED_AWAY: &[&str] = &["unauthorized", "denied", "authentication required", "insufficient"];

/// A registry that trusts `issuer`, in the way the key hint of its tokens calls for.
fn trusting_registry(issuer: &Issuer, hint: KeyHint) -> Server {
    let keys = match hint {
        KeyHint::Certificate => format!("rootcertbundle: {}", issuer.rootcertbundle().display()),
        KeyHint::KeyId => format!("jwks: {}", issuer.jwks().display()),
    };
    let (realm, service, name) = (issuer.realm(), Issuer::SERVICE, Issuer::NAME);
    let auth = format!("auth:\n  token:\n    realm: {realm}\n    service: {service}\n    issuer: {name}\n    {keys}\n");
    Setup::new(REGISTRY, &format!("{PLAIN}{auth}")).start()
}

#[test]
fn docker_users_get_what_the_issuer_grants() {
    let issuer = Issuer::start(ACCOUNTS, KeyHint::Certificate);
    let server = trusting_registry(&issuer, KeyHint::Certificate);
    let engine = Engine::start();
    let host = server.host_port();
    let (team, public) = (format!("{host}/team/api:1"), format!("{host}/public/base:1"));
    let (dev, reader, stranger) = (engine.client(), engine.client(), engine.client());

    let wrong = dev.try_run(&["login", "--username", "dev", "--password", "wrong", host]);
    wrong.refused(&["unauthorized", "incorrect username or password"]);
    for (docker, user) in [(&dev, "dev"), (&reader, "reader")] {
        let password = format!("{user}-secret");
        docker.run(&["login", "--username", user, "--password", &password, host]);
    }
    dev.load(&Image::busybox(), &team);
    dev.run(&["tag", &team, &public]);
    stranger.try_run(&["push", &public]).refused(TURNED_AWAY);
    let pushed = dev.push(&team);
    assert_eq!(dev.push(&public), pushed);
    assert!(issuer.posts() > 0, "docker renews a login with its refresh token");

    dev.forget_images();
    assert_eq!(reader.pull(&team), pushed);
    let theirs = format!("{host}/team/api:mine");
    reader.run(&["tag", &team, &theirs]);
    reader.try_run(&["push", &theirs]).refused(TURNED_AWAY);
    reader.try_run(&["pull", &theirs]).refused(&["manifest unknown", "not found"]);

    dev.forget_images();
    stranger.try_run(&["pull", &team]).refused(TURNED_AWAY);
    assert_eq!(stranger.pull(&public), pushed);
}

#[test]
fn skopeo_users_get_what_the_issuer_grants() {
    let issuer = Issuer::start(ACCOUNTS, KeyHint::Certificate);
    let server = trusting_registry(&issuer, KeyHint::Certificate);
    let skopeo = Skopeo::new();
    let layout = tempfile::tempdir().expect("create a temp dir");
    write_layout(layout.path(), "src", &[Image::busybox()]);
    let from = oci(layout.path(), "src");
    let copy = |repo: &str, creds: &[&str]| {
        let to = format!("docker://{}/{repo}:1", server.host_port());
        skopeo.run(&[&["copy", "--dest-tls-verify=false"], creds, &[&from, &to]].concat())
    };
    copy("team/api", &[]).refused(TURNED_AWAY);
    copy("team/api", &["--dest-creds", "reader:reader-secret"]).refused(TURNED_AWAY);
    copy("elsewhere", &["--dest-creds", "dev:dev-secret"]).refused(TURNED_AWAY);
    copy("team/api", &["--dest-creds", "dev:dev-secret"]).ok();
}

#[test]
fn tokens_with_a_certificate_are_judged() {
    check_judged(KeyHint::Certificate);
}

#[test]
fn tokens_with_a_key_id_are_judged() {
    check_judged(KeyHint::KeyId);
}

/// Fails unless signature, time and access decide about a token that names its key by `hint`.
#[track_caller]
fn check_judged(hint: KeyHint) {
    let issuer = Issuer::start(ACCOUNTS, hint);
    let stranger = Issuer::start(ACCOUNTS, hint);
    let server = trusting_registry(&issuer, hint);
    let realm = format!("Bearer realm=\"{}\",service=\"{}\"", issuer.realm(), Issuer::SERVICE);
    let check = |token: &str, method: &str, path: &str, expected: &str| {
        let client = match token {
            "" => server.client(),
            token => Client::bearer(&server.url(), token),
        };
        let got = client.send(method, path, &[], b"").expect("an answer");
        let challenge = got.header("www-authenticate");
        let error = challenge.split_once("error=\"").map_or("", |pair| pair.1);
        let error = error.split('"').next().unwrap_or_default();
        let seen = format!("{} {error}", got.status);
        assert_eq!(seen.trim(), expected, "{method} {path}: {challenge}");
        if got.status == 401 {
            assert!(challenge.starts_with(&realm), "{challenge}");
            assert_eq!(got.error_code(), "UNAUTHORIZED");
        }
    };
    let uploads = "/v2/team/api/blobs/uploads/";
    let manifest = "/v2/team/api/manifests/1";
    let scope = "repository:team/api:pull,push";
    check("", "GET", "/v2/", "401");
    check("", "POST", uploads, "401");
    let dev = issuer.token("dev", scope, 300);
    check(&dev, "GET", "/v2/", "200");
    check(&dev, "POST", uploads, "202");
    check(&dev, "GET", manifest, "404");
    let reader = issuer.token("reader", scope, 300);
    check(&reader, "GET", manifest, "404");
    check(&reader, "POST", uploads, "401 insufficient_scope");
    let anonymous = issuer.token("", scope, 300);
    check(&anonymous, "GET", manifest, "401 insufficient_scope");
    let expired = issuer.token("dev", scope, -120);
    check(&expired, "GET", manifest, "401 invalid_token");
    let foreign = stranger.token("dev", scope, 300);
    check(&foreign, "GET", manifest, "401 invalid_token");
    let (signed, _) = dev.rsplit_once('.').expect("a token has parts");
    check(&format!("{signed}.AAAA"), "GET", manifest, "401 invalid_token");
}

#[test]
fn a_challenge_names_the_scope_that_is_missing() {
    let issuer = Issuer::start(ACCOUNTS, KeyHint::Certificate);
    let server = trusting_registry(&issuer, KeyHint::Certificate);
    let check = |method: &str, path: &str, scope: &str| {
        let got = server.client().send(method, path, &[], b"").expect("an answer");
        let challenge = got.header("www-authenticate");
        assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{method} {path}: {challenge}");
    };
    check("GET", "/v2/team/api/manifests/1", "repository:team/api:pull");
    check("POST", "/v2/team/api/blobs/uploads/", "repository:team/api:pull,push");
    check("DELETE", "/v2/team/api/manifests/1", "repository:team/api:delete");
    check("GET", "/v2/_catalog", "registry:catalog:*");
}
