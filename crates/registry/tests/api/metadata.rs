//! The metadata file: what happens when it is lost, and what is in it after each kind of end.

use std::{fs, os::unix::fs::symlink};

use testkit::{
    command::{Outcome, run, tool},
    image::sha256,
    server::Server,
};

use crate::{PLAIN, REGISTRY, check, content, plain_registry, push, push_image};

fn command(name: &[&str], server: &Server) -> Outcome {
    let mut command = tool(REGISTRY);
    command.args(name).arg(server.config());
    run(command)
}

#[track_caller]
fn check_refused(got: &Outcome, reason: &str) {
    assert_eq!(got.code, Some(1), "{got}");
    let errors: Vec<&str> = got.stderr.lines().filter(|line| line.starts_with("registry: error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(reason), "{reason:?} is not said in one line: {got}");
    assert!(!got.stderr.contains("panicked"), "{got}");
}

#[test]
fn blobs_without_their_metadata_are_not_served() {
    let mut server = plain_registry();
    push(&server.client(), "r", sha256, &content(1, 200_000));
    server.stop();
    let database = server.data().join("roadstead/meta.sqlite3");
    for end in ["", "-wal", "-shm"] {
        // The last two are absent after an orderly end.
        let removed = fs::remove_file(format!("{}{end}", database.display()));
        assert!(removed.is_ok() || !end.is_empty(), "there is no {}", database.display());
    }
    for _ in 0..2 {
        check_refused(&command(&["serve"], &server), "meta.sqlite3");
        assert!(!database.exists(), "a refusal must not make the next start succeed");
    }
    let elsewhere = server.data().join("elsewhere");
    symlink(&elsewhere, &database).expect("make a dangling link");
    check_refused(&command(&["serve"], &server), "meta.sqlite3");
    assert_eq!(fs::read_link(&database).expect("the link is still there"), elsewhere);
    assert!(!elsewhere.exists());
}

#[test]
fn an_orderly_end_leaves_no_log_and_a_violent_one_loses_nothing() {
    let mut server = plain_registry();
    let client = server.client();
    let log = server.data().join("roadstead/meta.sqlite3-wal");
    let mut kept = Vec::new();
    for (seed, orderly) in [(0, true), (1, false), (2, false), (3, true)] {
        for number in 0..5 {
            let tag = format!("t{seed}-{number}");
            kept.push((tag.clone(), push_image(&client, "r", &tag, seed * 10 + number)));
        }
        if orderly {
            server.stop();
            assert_eq!(fs::metadata(&log).map_or(0, |file| file.len()), 0, "the log is not in the database");
        } else {
            server.kill9();
        }
        server.start_again();
        for (tag, digest) in &kept {
            let expected = format!("200 | docker-content-digest: {digest}");
            check(&client, &crate::get_manifest("r", tag), b"", &expected);
        }
    }
}

#[test]
fn listing_dead_letters_makes_no_metadata() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let (data, config) = (dir.path().join("data"), dir.path().join("config.yml"));
    let text = PLAIN.replace("{data}", &data.display().to_string()).replace("{addr}", "127.0.0.1:0");
    fs::write(&config, text).expect("write the configuration");
    for exists in [false, true] {
        if exists {
            fs::create_dir(&data).expect("make the data directory");
        }
        let mut command = tool(REGISTRY);
        command.args(["notifications", "list"]).arg(&config);
        check_refused(&run(command), "meta.sqlite3");
        assert_eq!(data.exists(), exists);
        assert!(!exists || fs::read_dir(&data).expect("list it").next().is_none(), "something was made");
    }
}
