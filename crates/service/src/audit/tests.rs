//! What lines look like, and what becomes of them when files move, fill up and fail.

use std::{os::unix::fs::PermissionsExt as _, thread};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;

fn options(dir: &TempDir, max_file_bytes: u64, keep_files: u32) -> AuditOptions {
    AuditOptions { directory: dir.path().join("audit"), max_file_bytes, keep_files }
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn numbered(number: usize) -> Record {
    Record::new("test").with("n", number)
}

/// The events of a file: the numbers of numbered lines, the counts of dropped ones as `-count`, and
/// 0 for what is no JSON.
#[track_caller]
fn events(path: &Path) -> Vec<i64> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let event = |line: &str| {
        let json: Json = serde_json::from_str(line).unwrap_or_default();
        json["n"].as_i64().or(json["count"].as_i64().map(|count| -count)).unwrap_or_default()
    };
    text.lines().map(event).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_record_becomes_one_line() {
    let check = |record: Record, expected: &str| {
        let line = record.line();
        let (time, rest) = line.split_once(',').unwrap();
        assert_eq!(format!("{{{rest}"), format!("{expected}\n"));
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, r#"{"time":"0000-00-00T00:00:00.000Z""#);
        let json: Json = serde_json::from_str(&line).unwrap();
        assert!(json.is_object(), "{line}");
        assert!(!line.trim_end().chars().any(is_unsafe), "{line:?}");
    };
    check(Record::new("login"), r#"{"event":"login"}"#);
    check(
        Record::new("token").with("who", "user:bob").with("from", "::1").with("ok", true).with("account", 7_u64),
        r#"{"event":"token","who":"user:bob","from":"::1","ok":true,"account":7}"#,
    );
    let rights = vec!["pull", "push"];
    check(
        Record::new("x").with("rights", rights).with("o", json!({"a": 1})),
        r#"{"event":"x","rights":["pull","push"],"o":{"a":1}}"#,
    );
    check(Record::new("x").with("rule", None::<u64>).with("y", Some(1)), r#"{"event":"x","y":1}"#);
    let forged = "a\n{\"event\":\"b\"}\r\0\x1b[2J\u{7f}\u{9b}\u{202e}\u{2028}é🦀";
    check(
        Record::new("x").with("name", forged),
        r#"{"event":"x","name":"a\n{\"event\":\"b\"}\r\u0000\u001b[2J\u007f\u009b\u202e\u2028é🦀"}"#,
    );
    check(Record::new("x").with("k\n\"\u{85}", 1), r#"{"event":"x","k\n\"\u0085":1}"#);
    let long = format!("a{}", "é".repeat(600));
    check(Record::new("x").with("v", long.as_str()), &format!(r#"{{"event":"x","v":"a{}…"}}"#, "é".repeat(511)));
    let list: Vec<u32> = vec![1_000_000; 1000];
    let line = Record::new("x").with("list", list).line();
    assert!(line.len() < 2 * MAX_VALUE && serde_json::from_str::<Json>(&line).unwrap()["list"].is_string(), "{line}");
}

#[tokio::test]
async fn what_is_recorded_is_written_by_the_end() {
    let check = async |end: &str| {
        let dir = temp();
        let log = AuditLog::open(options(&dir, u64::MAX, 1)).unwrap();
        for number in 1..=2000 {
            log.record(&numbered(number));
        }
        match end {
            "close" => {
                log.close().await;
                log.record(&numbered(2001));
                assert!(matches!(log.record_durably(&numbered(2002)).await, Err(AuditError::Closed)));
                assert_eq!(log.lost(), 2);
                log.close().await;
            }
            "two close" => drop(tokio::join!(log.close(), log.close())),
            "durable line" => log.record_durably(&numbered(2001)).await.unwrap(),
            _ => drop(log),
        }
        let found = events(&dir.path().join("audit/audit.log"));
        assert_eq!(found[..2000], (1..=2000).collect::<Vec<i64>>(), "{end}");
        assert_eq!(found.len(), if end == "durable line" { 2001 } else { 2000 }, "{end}");
    };
    for end in ["close", "two close", "durable line", "drop"] {
        check(end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_lines_of_many_tasks_are_all_there() {
    let dir = temp();
    let log = Arc::new(AuditLog::open(options(&dir, 1000, 100)).unwrap());
    let tasks = (1..=200_usize).map(|number| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.record_durably(&numbered(number)).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let mut found: Vec<i64> =
        fs::read_dir(dir.path().join("audit")).unwrap().flat_map(|file| events(&file.unwrap().path())).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=200).collect::<Vec<i64>>());
}

#[tokio::test]
async fn files_rotate_and_are_their_owners() {
    let dir = temp();
    let place = |name: &str| dir.path().join("audit").join(name);
    let log = AuditLog::open(options(&dir, 200, 3)).unwrap();
    for number in 1..=100 {
        log.record_durably(&numbered(number)).await.unwrap();
    }
    let mut all = Vec::new();
    for name in ["audit.log.3", "audit.log.2", "audit.log.1", "audit.log"] {
        let length = fs::metadata(place(name)).unwrap().len();
        assert!(length <= 200, "{name}: {length}");
        assert_eq!(mode(&place(name)), 0o600, "{name}");
        all.extend(events(&place(name)));
    }
    assert_eq!(mode(&place("")), 0o700);
    assert!(all.len() >= 9, "{all:?}");
    assert_eq!(all, ((101 - all.len() as i64)..=100).collect::<Vec<i64>>());
    assert_eq!(fs::read_dir(place("")).unwrap().count(), 4);
    // A gap, as a try leaves that failed half way, is filled, and nothing beyond it moves.
    let third = events(&place("audit.log.3"));
    fs::remove_file(place("audit.log.2")).unwrap();
    let first = events(&place("audit.log.1"));
    for number in 101.. {
        log.record_durably(&numbered(number)).await.unwrap();
        if place("audit.log.2").exists() {
            break;
        }
    }
    assert_eq!((events(&place("audit.log.3")), events(&place("audit.log.2"))), (third, first));
    // A line that is longer than the limit has a file of its own.
    log.record_durably(&numbered(7).with("long", "x".repeat(500))).await.unwrap();
    assert_eq!(events(&place("audit.log")), [7]);
}

#[tokio::test]
async fn a_torn_last_line_ends_before_the_next() {
    let check = async |before: &[u8], expected: &[i64]| {
        let dir = temp();
        let path = dir.path().join("audit/audit.log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, before).unwrap();
        AuditLog::open(options(&dir, u64::MAX, 1)).unwrap().record_durably(&numbered(2)).await.unwrap();
        assert_eq!(events(&path), expected, "{before:?}");
    };
    check(b"", &[2]).await;
    check(b"{\"n\":1}\n", &[1, 2]).await;
    check(b"{\"n\":1}\n{\"time\":\"20", &[1, 0, 2]).await;
    check(b"{\"n\":1}", &[1, 2]).await;
}

#[tokio::test]
async fn a_file_that_went_is_made_again() {
    let check = async |what: &str, take: fn(&Path), expected: &[i64]| {
        let dir = temp();
        let path = dir.path().join("audit/audit.log");
        let log = AuditLog::open(options(&dir, 10_000, 1)).unwrap();
        log.record_durably(&numbered(1)).await.unwrap();
        take(&path);
        log.record_durably(&numbered(2)).await.unwrap();
        log.record_durably(&numbered(3)).await.unwrap();
        assert_eq!(events(&path), expected, "{what}");
        assert_eq!((mode(&path), log.lost()), (0o600, 0), "{what}");
    };
    check("deleted", |path| fs::remove_file(path).unwrap(), &[2, 3]).await;
    check("moved", |path| fs::rename(path, path.with_extension("old")).unwrap(), &[2, 3]).await;
    check("directory deleted", |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(), &[2, 3]).await;
    let emptied = |path: &Path| File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    check("emptied", emptied, &[2, 3]).await;
    let replaced = |path: &Path| {
        fs::rename(path, path.with_extension("old")).unwrap();
        File::options().write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(b"{\"n\":9}\n").unwrap();
    };
    check("replaced", replaced, &[9, 2, 3]).await;
}

#[test]
fn what_finds_no_room_is_counted_and_told() {
    let dir = temp();
    let (log, writer, queue) = AuditLog::prepare(options(&dir, u64::MAX, 1), 4).unwrap();
    for number in 1..=10 {
        log.record(&numbered(number));
    }
    assert_eq!(log.lost(), 6);
    let path = log.path().to_owned();
    drop(log);
    thread::spawn(move || writer.run(queue)).join().unwrap();
    assert_eq!(events(&path), [1, 2, 3, 4, -6]);
}

#[tokio::test]
async fn a_failure_ends_nothing() {
    let dir = temp();
    let log = AuditLog::open(options(&dir, u64::MAX, 1)).unwrap();
    log.record_durably(&numbered(1)).await.unwrap();
    // A directory in place of the file cannot be written to, whoever one is.
    let old = log.path().with_extension("old");
    fs::rename(log.path(), &old).unwrap();
    fs::create_dir(log.path()).unwrap();
    for number in 2..=4 {
        let error = log.record_durably(&numbered(number)).await.unwrap_err();
        let path = log.path().to_owned();
        assert!(matches!(&error, AuditError::Write { path: named, .. } if *named == path), "{error}");
    }
    assert_eq!(log.lost(), 3);
    fs::remove_dir(log.path()).unwrap();
    log.record_durably(&numbered(5)).await.unwrap();
    log.record_durably(&numbered(6)).await.unwrap();
    assert_eq!((events(&old), events(log.path())), (vec![1], vec![5, -3, 6]));
}

#[tokio::test]
async fn lines_go_on_in_the_old_file_if_it_cannot_rotate() {
    let dir = temp();
    let log = AuditLog::open(options(&dir, 100, 1)).unwrap();
    fs::create_dir(log.path().with_extension("log.1")).unwrap();
    for number in 1..=5 {
        log.record_durably(&numbered(number)).await.unwrap();
    }
    assert_eq!((events(log.path()), log.lost()), (vec![1, 2, 3, 4, 5], 0));
}

#[test]
fn what_cannot_be_opened_is_said_at_once() {
    let check = |make: fn(&Path)| {
        let dir = temp();
        make(&dir.path().join("audit"));
        let error = AuditLog::open(options(&dir, 100, 1)).unwrap_err();
        assert!(matches!(&error, AuditError::Open { .. }), "{error}");
    };
    check(|directory| fs::write(directory, "").unwrap());
    check(|directory| fs::create_dir_all(directory.join("audit.log")).unwrap());
    check(|directory| {
        fs::create_dir(directory).unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.join("audit.log")).unwrap();
    });
}

#[test]
fn complaints_come_once_a_minute() {
    let (start, mut last) = (Instant::now(), None);
    let said: Vec<u64> = (0..200).filter(|second| is_due(&mut last, start + Duration::from_secs(*second))).collect();
    assert_eq!(said, [0, 60, 120, 180]);
}
