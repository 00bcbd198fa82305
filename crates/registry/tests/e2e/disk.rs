//! The disk is full or broken: no false promise, a clear refusal, and work goes on afterwards.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::client::{Client, PushError};
use testkit::command::{self, tool};
use testkit::http::Response;
use testkit::image::{OCI_CONFIG, OCI_MANIFEST, descriptor, sha256};
use testkit::process::{Process, wait_until};
use testkit::random::{Random, seed};
use testkit::server::Setup;

use crate::{PLAIN, REGISTRY, plain_registry};

const MIB: usize = 1 << 20;

/// A small file system of its own, unmounted when dropped.
struct Tmpfs {
    dir: TempDir,
}

impl Tmpfs {
    fn mount(size: usize) -> Self {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let mut command = tool("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        command::run(command).ok();
        Self { dir }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a failing test must not be hidden by a panic here.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}

/// Fails unless `response` is a server error with a body that says so in the OCI form.
#[track_caller]
fn check_clean_failure(response: &Response) {
    let text = response.text();
    assert!((500..600).contains(&response.status), "{} {text}", response.status);
    assert_ne!(response.error_code(), "", "{} {text}", response.status);
}

/// Judges a push: true when acknowledged, in which case `path` must read back as `content`.
#[track_caller]
fn check_push<T>(client: &Client, path: &str, content: &[u8], push: Result<T, PushError>) -> bool {
    let got = client.get(path).unwrap_or_else(|error| panic!("get {path}: {error}"));
    let intact = got.status == 200 && got.body == content;
    match push {
        Ok(_) => assert!(intact, "acknowledged, but {path} gives {}", got.status),
        Err(PushError::Refused(response)) => {
            check_clean_failure(&response);
            assert!(intact || got.status == 404, "refused, but {path} gives {}", got.status);
            return false;
        }
        Err(PushError::Lost(error)) => panic!("no answer to the push of {path}: {error}"),
    }
    true
}

fn blob_path(content: &[u8]) -> String {
    format!("/v2/team/api/blobs/{}", sha256(content))
}

fn manifest_of(config: &[u8]) -> Vec<u8> {
    let config = descriptor(OCI_CONFIG, config);
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}).to_string().into_bytes()
}

/// Pushes one blob in each of the ways there are, then a manifest; says which were acknowledged.
#[track_caller]
fn push_all(client: &Client, random: &mut Random, config: &[u8]) -> [bool; 3] {
    let (whole, parts) = (random.bytes(200_000), random.bytes(200_000));
    let manifest = manifest_of(config);
    let tag = format!("t{}", random.next_u64());
    let path = format!("/v2/team/api/manifests/{tag}");
    [
        check_push(client, &blob_path(&whole), &whole, client.push_blob("team/api", &whole)),
        check_push(client, &blob_path(&parts), &parts, client.push_parts("team/api", &parts, 50_000)),
        check_push(client, &path, &manifest, client.push_manifest("team/api", &tag, &manifest)),
    ]
}

#[test]
fn a_full_disk_refuses_pushes_and_recovers() {
    let disk = Tmpfs::mount(24 * MIB);
    let ballast = disk.dir.path().join("ballast");
    fs::write(&ballast, vec![1; 8 * MIB]).expect("write the ballast");
    let mut server = Setup::new(REGISTRY, PLAIN).data(&disk.dir.path().join("data")).start();
    let client = server.client();
    let mut random = Random::new(seed());
    let config = b"{}".to_vec();
    client.push_blob("team/api", &config).expect("push the config while there is room");

    let mut kept = vec![];
    let full = (0..40).any(|number| {
        let content = random.bytes(700_000);
        let pushed = match number % 2 {
            0 => client.push_blob("team/api", &content),
            _ => client.push_parts("team/api", &content, 300_000),
        };
        let acknowledged = check_push(&client, &blob_path(&content), &content, pushed);
        if acknowledged {
            kept.push(content);
        }
        !acknowledged
    });
    assert!(full, "a disk of 24 MiB should not take 28 MB");
    fill(&disk.dir.path().join("filler"));
    let [whole, parts, _] = push_all(&client, &mut random, &config);
    assert!(!whole && !parts, "there is no room for a blob");
    check_all_kept(&client, &kept);

    fs::remove_file(&ballast).expect("remove the ballast");
    assert_eq!(push_all(&client, &mut random, &config), [true; 3], "there is room again");
    server.restart();
    check_all_kept(&client, &kept);
    assert_eq!(push_all(&client, &mut random, &config), [true; 3], "also after a restart");
}

/// Writes zeros to `path` until the file system takes no more.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("create the filler");
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[track_caller]
fn check_all_kept(client: &Client, kept: &[Vec<u8>]) {
    assert!(!kept.is_empty(), "nothing was acknowledged at all");
    for content in kept {
        let got = client.get(&blob_path(content)).expect("an answer");
        assert!(got.status == 200 && got.body == *content, "an acknowledged blob is lost");
    }
}

/// Makes every flush to disk of a running process fail with EIO until dropped.
///
/// A debugger rather than a preloaded library, because it also reaches programs that make
/// system calls themselves: statically linked ones, and Rust code that goes past libc.
struct BrokenFlush {
    _strace: Process,
    _dir: TempDir,
}

impl BrokenFlush {
    fn of(process: u32) -> Self {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let calls = "fsync,fdatasync,sync_file_range,syncfs,sync,msync";
        let mut command = tool("strace");
        command.args(["-f", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error=EIO"), "-p", &process.to_string()]);
        let log = dir.path().join("log");
        let mut strace = Process::spawn("strace", command, &log, Duration::from_secs(5));
        let attached = wait_until(Duration::from_secs(20), || strace.ended().is_some() || is_traced(process));
        assert!(attached && strace.ended().is_none(), "strace does not attach: {}", strace.log());
        Self { _strace: strace, _dir: dir }
    }
}

/// True when every thread of `process` has a tracer.
fn is_traced(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the server runs");
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.lines().any(|line| line == "TracerPid:\t0")
    })
}

#[test]
fn a_disk_that_cannot_flush_gets_no_acknowledgement() {
    let mut server = plain_registry();
    let client = server.client();
    let mut random = Random::new(seed());
    let config = b"{}".to_vec();
    client.push_blob("team/api", &config).expect("push the config while the disk works");
    assert_eq!(push_all(&client, &mut random, &config), [true; 3]);

    let broken = BrokenFlush::of(server.id());
    assert_eq!(push_all(&client, &mut random, &config), [false; 3], "nothing reaches the disk");
    let read = client.get(&blob_path(&config)).expect("an answer");
    assert_eq!(read.status, 200, "reading needs no flush");

    // A flush that failed says nothing of what was written before: only a restart, which reads
    // what is there, makes the next acknowledgement worth something.
    drop(broken);
    assert_eq!(push_all(&client, &mut random, &config), [false; 3], "a failed flush is final");
    assert_eq!(client.get("/readyz").expect("an answer").status, 503);
    server.restart();
    assert_eq!(push_all(&server.client(), &mut random, &config), [true; 3], "the disk works again");
}

#[test]
fn pulls_go_on_after_a_failed_flush() {
    let health = "health:\n  storagedriver: {enabled: true, interval: 100ms, threshold: 2}\n";
    for more in ["", health] {
        let server = Setup::new(REGISTRY, &format!("{PLAIN}{more}")).start();
        let client = server.client();
        let mut random = Random::new(seed());
        let config = b"{}".to_vec();
        let blob = random.bytes(200_000);
        let manifest = manifest_of(&config);
        for content in [&config, &blob] {
            client.push_blob("team/api", content).expect("push while the disk works");
        }
        client.push_manifest("team/api", "kept", &manifest).expect("push while the disk works");
        let broken = BrokenFlush::of(server.id());
        assert_eq!(push_all(&client, &mut random, &config), [false; 3], "nothing reaches the disk");
        drop(broken);
        // Longer than the check takes to fail for good.
        for _ in 0..5 {
            assert_eq!(client.get("/readyz").expect("an answer").status, 503, "{more}");
            for (path, content) in [
                (blob_path(&config), &config),
                (blob_path(&blob), &blob),
                ("/v2/team/api/manifests/kept".into(), &manifest),
            ] {
                let got = client.get(&path).expect("an answer");
                assert!(got.status == 200 && got.body == *content, "{more}: {path} gives {}", got.status);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
