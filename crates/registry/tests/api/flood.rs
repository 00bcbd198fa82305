//! Floods: what many or huge wrong requests cost everyone else.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use testkit::{
    client::Client,
    command::{run, tool},
    image::{OCI_LAYER, sha256},
    server::Setup,
};

use crate::{OCI_MANIFEST, PLAIN, REGISTRY, descriptor, image, plain_registry, push, put};

#[test]
fn wrong_passwords_hold_nobody_up() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("htpasswd");
    let mut command = tool("htpasswd");
    command.args(["-nbBC", "12", "ada", "right"]);
    fs::write(&file, run(command).ok().stdout).expect("write the password file");
    let auth = format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", file.display());
    let server = Setup::new(REGISTRY, &format!("{PLAIN}{auth}")).start();
    let right = Client::basic(&server.url(), "ada", "right");
    assert_eq!(right.get("/v2/").expect("an answer").status, 200);
    let end = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for number in 0..100 {
            let url = server.url();
            scope.spawn(move || {
                let wrong = Client::basic(&url, "ada", &format!("wrong{number}"));
                while Instant::now() < end {
                    // Whoever is not refused as wrong is asked to come back.
                    let status = wrong.get("/v2/").expect("an answer").status;
                    assert!([401, 429, 503].contains(&status), "{status}");
                }
            });
        }
        while Instant::now() < end {
            let (anyone, asked) = (server.client(), Instant::now());
            assert_eq!(anyone.get("/healthz").expect("an answer").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(1), "/healthz took {:?}", asked.elapsed());
            let asked = Instant::now();
            assert_eq!(right.get("/v2/").expect("an answer").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "a proved password took {:?}", asked.elapsed());
            thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_manifest_of_unknown_layers_is_refused_soon_and_in_short() {
    let server = plain_registry();
    let client = server.client();
    let config = push(&client, "r", sha256, b"{}");
    let layer = |number: u32| descriptor(OCI_LAYER, &sha256(&number.to_be_bytes()), 1, "");
    let layers: Vec<String> = (0..20_000).map(layer).collect();
    let text = image(&[(&config, 2)]).replace("\"layers\":[", &format!("\"layers\":[{}", layers.join(",")));
    let begun = Instant::now();
    let got = put(&client, "r", "t", OCI_MANIFEST, text.as_bytes(), "400 MANIFEST_BLOB_UNKNOWN");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let errors = got.json()["errors"].as_array().expect("a list").clone();
    let named: usize = errors.iter().map(|error| error["detail"]["digests"].as_array().map_or(1, Vec::len)).sum();
    assert!((1..=100).contains(&named), "{named} layers are named");
    assert!(got.body.len() < 32 << 10, "an answer of {} bytes", got.body.len());
}
