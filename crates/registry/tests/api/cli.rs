//! The command line: help, exit codes, and one clear line when the server cannot start.

use std::{fs, path::Path};

use testkit::{
    command::{Outcome, run, tool},
    server::Setup,
};

use crate::{DEBUG, PLAIN, REGISTRY, plain_registry, push_image};

fn registry(args: &[&str]) -> Outcome {
    let mut command = tool(REGISTRY);
    command.args(args).env_remove("REGISTRY_CONFIGURATION_PATH");
    run(command)
}

#[test]
fn help_has_examples() {
    let version = registry(&["--version"]).ok().stdout;
    assert!(version.starts_with("registry roadstead "), "{version}");
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["garbage-collect"],
        &["gc", "status"],
        &["gc", "run"],
        &["gc", "pause"],
        &["gc", "resume"],
        &["undelete"],
        &["history"],
        &["retention"],
        &["quota"],
        &["verify-config"],
        &["default-config"],
        &["notifications", "list"],
        &["notifications", "replay"],
        &["completion"],
        &["init"],
        &["user"],
        &["user", "add"],
        &["user", "token"],
        &["robot", "create"],
        &["robot", "rotate"],
        &["group", "join"],
        &["grant", "add"],
        &["grant", "explain"],
        &["key", "rotate"],
    ];
    for command in commands {
        let help = registry(&[command, &["--help"][..]].concat()).ok().stdout;
        assert!(help.contains("Example") && help.contains("  registry "), "{command:?}: {help}");
    }
    for wrong in [&["sreve"][..], &["serve", "--x"], &["garbage-collect", "a", "b"], &["notifications"], &[]] {
        let got = registry(wrong);
        assert_eq!(got.code, Some(2), "{got}");
        assert!(got.stderr.contains("Usage"), "{got}");
    }
}

#[test]
fn manual_and_completion_know_every_command() {
    let commands = [
        "init",
        "user",
        "robot",
        "group",
        "grant",
        "key",
        "trust",
        "garbage-collect",
        "gc",
        "pause",
        "undelete",
        "history",
        "retention",
        "quota",
        "revoke-tokens",
        "explain",
    ];
    let manual = registry(&["man"]).ok().stdout.replace('\\', "");
    for shell in ["bash", "zsh", "fish"] {
        let script = registry(&["completion", shell]).ok().stdout;
        for command in commands {
            assert!(script.contains(command), "{shell} does not complete {command}");
            assert!(manual.contains(command), "the manual lacks {command}");
        }
    }
}

#[test]
fn verify_config_says_whether_the_server_would_start() {
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("config.yml");
    let good = PLAIN.replace("{data}", "/tmp/x").replace("{addr}", "127.0.0.1:0");
    for (text, code) in [
        (good.clone(), 0),
        (good.replace("http:", "htpp:\n  x: y\nhttp:"), 0),
        (good.replace("addr: 127.0.0.1:0", "addr: nonsense"), 1),
        (good.replace("filesystem", "s3"), 1),
        (format!("{good}auth:\n  token: {{}}\n"), 1),
        (String::new(), 1),
        ("{[".into(), 1),
    ] {
        fs::write(&file, &text).expect("write the configuration");
        let path = file.display().to_string();
        for format in ["table", "json"] {
            let got = registry(&["verify-config", &path, "--format", format]);
            assert_eq!(got.code, Some(code), "{text}\n{got}");
            if format == "json" {
                serde_json::from_str::<serde_json::Value>(&got.stdout).unwrap_or_else(|error| panic!("{error}: {got}"));
            }
        }
    }
    let default = registry(&["default-config"]).ok().stdout;
    fs::write(&file, default).expect("write the configuration");
    assert_eq!(registry(&["verify-config", &file.display().to_string()]).code, Some(0));
    check_refused(registry(&["verify-config", "/nowhere/config.yml"]), "/nowhere/config.yml");
}

/// Fails unless the program ended with 1 and its last line of standard error says why.
#[track_caller]
fn check_refused(got: Outcome, reason: &str) {
    assert_eq!(got.code, Some(1), "{got}");
    let errors: Vec<&str> = got.stderr.lines().filter(|line| line.contains("error:")).collect();
    assert!(errors.last().is_some_and(|line| line.starts_with("registry: error: ")), "{got}");
    assert!(got.stderr.to_lowercase().contains(&reason.to_lowercase()), "{reason:?} is not said: {got}");
    assert!(!got.stderr.contains("panicked"), "{got}");
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let mut server = Setup::new(REGISTRY, &format!("{PLAIN}{DEBUG}")).start();
    push_image(&server.client(), "r", "t", 1);
    let dir = tempfile::tempdir().expect("create a temp dir");
    let file = dir.path().join("config.yml");
    let serve = |data: &Path, addr: &str, more: &str| {
        let text = PLAIN.replace("{data}", &data.display().to_string()).replace("{addr}", addr);
        fs::write(&file, text + more).expect("write the configuration");
        registry(&["serve", &file.display().to_string()])
    };
    let (fresh, free) = (dir.path().join("data"), "127.0.0.1:0");
    check_refused(registry(&["serve", "/nowhere/config.yml"]), "/nowhere/config.yml");
    check_refused(registry(&["serve"]), "no configuration");
    check_refused(serve(&fresh, "nonsense", ""), "addr");
    check_refused(serve(&fresh, server.host_port(), ""), "in use");
    let taken = format!("  debug:\n    addr: {}\n", server.debug_url().replace("http://", ""));
    check_refused(serve(&fresh, free, &taken), "http.debug.addr");
    check_refused(serve(server.data(), free, ""), "in use by another registry");
    check_refused(serve(Path::new("/proc/nowhere"), free, ""), "/proc/nowhere");
    check_refused(
        serve(&fresh, free, "  tls:\n    certificate: /nowhere.pem\n    key: /nowhere.key\n"),
        "/nowhere.pem",
    );
    check_refused(
        serve(&fresh, free, "auth:\n  htpasswd:\n    realm: r\n    path: /proc/nowhere/htpasswd\n"),
        "/proc/nowhere/htpasswd",
    );
    assert_eq!(server.client().get("/v2/").expect("an answer").status, 200);
    // A newer server's metadata: SQLite keeps the version at offset 60 of the file.
    server.stop();
    let database = find(server.data()).expect("a database");
    for log in ["-wal", "-shm"] {
        // Absent when all of it is in the database.
        let _ = fs::remove_file(format!("{}{log}", database.display()));
    }
    let mut bytes = fs::read(&database).expect("read the database");
    bytes[60..64].copy_from_slice(&1_000_000_u32.to_be_bytes());
    fs::write(&database, bytes).expect("write the database");
    check_refused(serve(server.data(), free, ""), "newer");
}

/// The SQLite file somewhere under a folder.
fn find(dir: &Path) -> Option<std::path::PathBuf> {
    for entry in fs::read_dir(dir).ok()?.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path) {
                return Some(found);
            }
        } else if fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")) {
            return Some(path);
        }
    }
    None
}

#[test]
fn a_signal_ends_the_server_in_order() {
    let mut server = plain_registry();
    push_image(&server.client(), "r", "t", 1);
    server.stop();
    let log = server.log();
    assert!(log.contains("stopped") && !log.contains("panicked"), "{log}");
}
