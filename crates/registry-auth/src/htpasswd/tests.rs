//! Checks the htpasswd scheme against real files and real bcrypt runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use registry_core::access::Grant;
use tempfile::TempDir;

use super::{Htpasswd, HtpasswdConfig};
use crate::{Ask, CACHE_TTL, MAX_PASSWORD, MAX_USER, SetupError, Verdict};

fn line(user: &str, password: &str) -> String {
    format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn open(path: &Path) -> Htpasswd {
    Htpasswd::open(HtpasswdConfig { realm: "basic-realm".to_owned(), path: path.to_owned() }).unwrap().0
}

struct Bed {
    _dir: TempDir,
    path: std::path::PathBuf,
    scheme: Htpasswd,
}

fn bed(text: &str) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("htpasswd");
    fs::write(&path, text).unwrap();
    Bed { scheme: open(&path), path, _dir: dir }
}

impl Bed {
    /// Checks who gets in (or the reason of the refusal) and how many bcrypt runs there were so far.
    fn check(&self, authorization: Option<&str>, now: i64, expected: &str, runs: u64) {
        let ask = Ask { authorization, wanted: &[], host: None, forwarded_proto: None, tls: false, address: None, now };
        let quick = self.scheme.verify_quick(&ask);
        let before = self.scheme.bcrypt_runs();
        let verdict = self.scheme.verify(&ask).unwrap();
        if self.scheme.bcrypt_runs() == before {
            assert_eq!(quick.as_ref(), Some(&verdict), "the quick path agrees");
        } else {
            assert_eq!(quick, None, "the quick path runs no bcrypt");
        }
        let seen = match verdict {
            Verdict::Granted { caller, grant, expires_at } => {
                assert_eq!((grant, expires_at), (Grant::Everything, None));
                caller.name
            }
            Verdict::Forbidden(forbidden) => panic!("{}", forbidden.message()),
            Verdict::Refused(challenge) => {
                assert_eq!(challenge.www_authenticate, r#"Basic realm="basic-realm""#);
                format!("! {}", challenge.reason)
            }
        };
        assert_eq!(seen, expected, "{authorization:?}");
        assert_eq!(self.scheme.bcrypt_runs(), runs, "{authorization:?}");
    }
}

const WRONG: &str = "! unknown user or wrong password";
const NONE: &str = "! no credentials";
const MALFORMED: &str = "! malformed credentials";

#[test]
fn only_the_right_password_gets_in() {
    let long = "p".repeat(80);
    let bed = bed(&[line("ann", "secret"), line("col", "a:b:c"), line("", "x"), line("long", &long)].concat());
    let mut runs = 0;
    let mut check = |header: Option<String>, expected: &str, cost: u64| {
        runs += cost;
        bed.check(header.as_deref(), 0, expected, runs);
    };
    check(Some(basic("ann", "secret")), "ann", 1);
    check(Some(basic("ann", "Secret")), WRONG, 1);
    check(Some(basic("ann", "")), WRONG, 1);
    check(Some(basic("bob", "secret")), WRONG, 1);
    check(Some(basic("col", "a:b:c")), "col", 1);
    check(Some(basic("", "x")), "", 1);
    check(Some(basic("long", &long)), "long", 1);
    check(Some(basic("ann", "secret").replacen("Basic", "bASIC", 1)), "ann", 0);
    check(Some(basic("ann", "secret").trim_end_matches('=').to_owned()), "ann", 0);
    check(None, NONE, 0);
    for other in ["", "Basic", "Bearer abc", "secret"] {
        check(Some(other.to_owned()), NONE, 0);
    }
    for bad in ["Basic !", "Basic  ", "Basic YQ==", "Basic a b"] {
        check(Some(bad.to_owned()), MALFORMED, 0);
    }
    check(Some(basic(&"u".repeat(MAX_USER), &"p".repeat(MAX_PASSWORD))), WRONG, 1);
    check(Some(basic(&"u".repeat(MAX_USER + 1), "p")), MALFORMED, 0);
    check(Some(basic("u", &"p".repeat(MAX_PASSWORD + 1))), MALFORMED, 0);
    check(Some(basic(&"u".repeat(1 << 20), "p")), MALFORMED, 0);
}

#[test]
fn hashes_of_other_programs_match() {
    // Made with `htpasswd -nbB ann secret` of Apache 2.4.
    let bed = bed("ann:$2y$05$zUJ92CffQY/aJxIN8p393ev2WhkwJf/uVozVNJRuubax4dZOGhNjm");
    bed.check(Some(&basic("ann", "secret")), 0, "ann", 1);
    bed.check(Some(&basic("ann", "secreT")), 0, WRONG, 2);
}

#[test]
fn other_hashes_never_match_and_cost_the_same() {
    let bed = bed("ann:secret\nbob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    bed.check(Some(&basic("ann", "secret")), 0, WRONG, 1);
    bed.check(Some(&basic("bob", "secret")), 0, WRONG, 2);
}

#[test]
fn a_pull_of_many_layers_costs_one_run() {
    let bed = bed(&line("ann", "secret"));
    for now in 0..20 {
        bed.check(Some(&basic("ann", "secret")), now, "ann", 1);
    }
    bed.check(Some(&basic("ann", "secret")), CACHE_TTL, "ann", 2);
    bed.check(Some(&basic("ann", "wrong")), CACHE_TTL, WRONG, 3);
    bed.check(Some(&basic("ann", "wrong")), CACHE_TTL, WRONG, 4);
}

#[test]
fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
    let bed = bed(&line("ann", "one"));
    bed.check(Some(&basic("ann", "one")), 0, "ann", 1);
    // A new user leaves the memory of the old one alone.
    let text = fs::read_to_string(&bed.path).unwrap() + &line("bob", "b");
    fs::write(&bed.path, &text).unwrap();
    bed.check(Some(&basic("bob", "b")), 0, "bob", 2);
    bed.check(Some(&basic("ann", "one")), 0, "ann", 2);
    // Broken or gone: the last good users stay.
    fs::write(&bed.path, "no colon here\n").unwrap();
    bed.check(Some(&basic("bob", "b")), 0, "bob", 2);
    fs::remove_file(&bed.path).unwrap();
    bed.check(Some(&basic("ann", "one")), 0, "ann", 2);
    // A new hash ends the old password.
    fs::write(&bed.path, line("ann", "two")).unwrap();
    bed.check(Some(&basic("ann", "one")), 0, WRONG, 3);
    bed.check(Some(&basic("ann", "two")), 0, "ann", 4);
    bed.check(Some(&basic("bob", "b")), 0, WRONG, 5);
    // Replaced by a rename, as editors and Kubernetes do.
    let other = bed.path.with_extension("new");
    fs::write(&other, line("eve", "e")).unwrap();
    fs::rename(&other, &bed.path).unwrap();
    bed.check(Some(&basic("eve", "e")), 0, "eve", 6);
    bed.check(Some(&basic("ann", "two")), 0, WRONG, 7);
}

#[test]
fn a_missing_file_is_made_with_a_random_password() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/htpasswd");
    let config = HtpasswdConfig { realm: "basic-realm".to_owned(), path: path.clone() };
    let (scheme, created) = Htpasswd::open(config.clone()).unwrap();
    let created = created.unwrap();
    assert_eq!((created.user, created.password.len()), ("docker", 43));
    assert!(!format!("{created:?}").contains(&created.password));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let bed = Bed { scheme, path, _dir: dir };
    bed.check(Some(&basic("docker", &created.password)), 0, "docker", 1);
    bed.check(Some(&basic("docker", "docker")), 0, WRONG, 2);
    assert!(Htpasswd::open(config).unwrap().1.is_none(), "an existing file stays");
}

#[test]
fn a_bad_file_stops_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |path: &Path, expected: &str| {
        let config = HtpasswdConfig { realm: String::new(), path: path.to_owned() };
        let error: SetupError = Htpasswd::open(config).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(path.to_str().unwrap()), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    let path = dir.path().join("bad");
    fs::write(&path, "# x\nann:x\nhunter2\n").unwrap();
    check(&path, "line 3 has no colon");
    check(dir.path(), "read `");
    check(&path.join("below"), "read `");
    let large = dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(17 << 20).unwrap();
    check(&large, "larger than");
}
