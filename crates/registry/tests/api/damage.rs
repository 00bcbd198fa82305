//! Damaged files: a blob that lost its bytes is not served, and a new push makes it whole.

use std::{fs, path::PathBuf, time::Duration};

use testkit::{image::sha256, process::wait_until};

use crate::{OCI_MANIFEST, check, content, get_manifest, image, plain_registry, push, put};

#[test]
fn small_objects_that_lost_their_file_can_be_pushed_again() {
    let mut server = plain_registry();
    let client = server.client();
    let blobs: Vec<Vec<u8>> = (0..2).map(|seed| content(seed, 500)).collect();
    let config = push(&client, "r", sha256, b"{}");
    let manifests: Vec<String> =
        blobs.iter().map(|blob| image(&[(&config, 2), (&push(&client, "r", sha256, blob), 500)])).collect();
    for text in &manifests {
        put(&client, "r", &sha256(text.as_bytes()), OCI_MANIFEST, text.as_bytes(), "201");
    }
    let all = || blobs.iter().map(Vec::as_slice).chain(manifests.iter().map(String::as_bytes));
    let data = server.data().to_owned();
    let file = |bytes: &[u8]| -> PathBuf {
        let digest = sha256(bytes);
        let hex = digest.trim_start_matches("sha256:");
        data.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    };
    // They rest in the metadata for some seconds.
    let moved = wait_until(Duration::from_secs(25), || all().all(|bytes| file(bytes).exists()));
    assert!(moved, "small objects never get their files");
    server.stop();
    for (index, bytes) in all().enumerate() {
        match index % 2 {
            0 => fs::write(file(bytes), &bytes[..bytes.len() / 2]).expect("truncate the file"),
            _ => fs::remove_file(file(bytes)).expect("remove the file"),
        }
    }
    server.start_again();

    for (index, bytes) in all().enumerate() {
        let digest = sha256(bytes);
        let is_blob = index < blobs.len();
        let target = if is_blob { format!("GET /v2/r/blobs/{digest}") } else { get_manifest("r", &digest) };
        let path = target.split(' ').nth(1).expect("a path");
        let got = client.get(path).expect("an answer");
        assert!([404, 500].contains(&got.status), "{target}: {}", got.status);
        if is_blob {
            push(&client, "r", sha256, bytes);
        } else {
            put(&client, "r", &digest, OCI_MANIFEST, bytes, "201");
        }
        let got = check(&client, &target, b"", "200");
        assert!(got.body == bytes, "{target} differs after a new push");
    }
}
