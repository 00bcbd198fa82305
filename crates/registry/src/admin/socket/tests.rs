//! The socket in process: who gets in, what is answered, what is left.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use service::shutdown::Shutdown;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{AdminSocket, Desk, connect};
use crate::{
    admin::{
        Admin,
        tests::{house, written},
    },
    keeping::tests::empty,
    operations::Operations,
};

/// Sends bytes, and returns what comes back until the end.
async fn ask(path: &Path, request: String) -> String {
    let path = path.to_owned();
    let work = spawn_blocking(move || {
        let mut stream = connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    work.await.unwrap()
}

fn post(body: &str) -> String {
    let length = body.len();
    let head = "POST /roadstead/v1/admin HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
    format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn served(path: &Path, admin: &Arc<Admin>) -> (Shutdown, JoinHandle<()>) {
    let stop = Shutdown::new();
    let socket = AdminSocket::bind(path).unwrap();
    let desk = Desk { admin: Some(admin.clone()), operations: operations() };
    (stop.clone(), tokio::spawn(socket.serve(desk, stop)))
}

fn operations() -> Arc<Operations> {
    Arc::new(Operations { collector: None, keeping: Arc::new(empty()), scrub: None, live: None, audit: None })
}

#[tokio::test]
async fn without_accounts_there_are_operations_only() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("admin.sock");
    let stop = Shutdown::new();
    let desk = Desk { admin: None, operations: operations() };
    let serving = tokio::spawn(AdminSocket::bind(&path).unwrap().serve(desk, stop.clone()));
    let check = async |order: &str, wanted: &[&str]| {
        let answer = ask(&path, post(order)).await;
        for wanted in wanted {
            assert!(answer.contains(wanted), "{order}\n{answer}");
        }
    };
    check(r#"{"order":"user-list"}"#, &["HTTP/1.1 409 ", "this registry has no accounts", "registry init"]).await;
    check(r#"{"order":"gc-status"}"#, &["HTTP/1.1 409 ", "nothing is collected here"]).await;
    check(r#"{"order":"gc-run","quickly":true}"#, &["HTTP/1.1 400 ", "unknown field `quickly`"]).await;
    stop.request();
    serving.await.unwrap();
}

#[tokio::test]
async fn orders_are_taken_and_answered() {
    let root = tempfile::tempdir().unwrap();
    let (admin, live) = house(root.path()).await;
    let path = root.path().join("admin.sock");
    let (stop, serving) = served(&path, &admin);
    let check = async |request: String, wanted: &[&str]| {
        let answer = ask(&path, request.clone()).await;
        for wanted in wanted {
            assert!(answer.contains(wanted), "{request}\n{answer}");
        }
    };
    let created = r#"{"order":"robot-create","name":"ci","allow":[{"repositories":"a","rights":"pull"}]}"#;
    check(post(created), &["HTTP/1.1 200 ", "cache-control: no-store", "application/json", r#""secret":"rsk_"#]).await;
    assert_eq!(live.current().accounts().count(), 3);
    assert_eq!(written(root.path())[0]["actor"], "local");
    let from = format!("socket, uid {}", rustix::process::geteuid().as_raw());
    assert_eq!(written(root.path())[0]["from"], from.as_str());
    check(post(created), &["HTTP/1.1 409 ", r#""kind":"conflict""#, r#""hint":"#, "there is a robot `ci` already"])
        .await;
    check(post(r#"{"order":"user-remove","name":"x"}"#), &["HTTP/1.1 404 ", "there is no user `x`"]).await;
    check(post(r#"{"order":"nonsense"}"#), &["HTTP/1.1 400 ", "this is no order", "unknown variant"]).await;
    check(post("{"), &["HTTP/1.1 400 "]).await;
    check(post(&format!("{{\"order\":\"{}\"}}", "x".repeat(65_536))), &["HTTP/1.1 413 "]).await;
    check(post("{}").replace("application/json", "text/plain"), &["HTTP/1.1 415 "]).await;
    check(post("{}").replace("/v1/admin", "/v1/other"), &["HTTP/1.1 404 ", "nothing is here"]).await;
    check(post("{}").replace("POST", "GET"), &["HTTP/1.1 405 ", "allow: POST"]).await;
    check("nonsense\r\n\r\n".into(), &["HTTP/1.1 400 "]).await;
    stop.request();
    serving.await.unwrap();
    assert!(!path.exists(), "the socket goes with its server");
}

#[tokio::test]
async fn paths_of_any_length_and_old_sockets() {
    let root = tempfile::tempdir().unwrap();
    let (admin, ..) = house(root.path()).await;
    let long = root.path().join("x".repeat(120)).join("y".repeat(200));
    fs::create_dir_all(&long).unwrap();
    for path in [root.path().join("admin.sock"), long.join("admin.sock")] {
        assert_eq!(connect(&path).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let leave = |path: &PathBuf| {
            let socket = AdminSocket::bind(path).unwrap();
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            // As a server that is killed does.
            let AdminSocket { listener, .. } = &*std::mem::ManuallyDrop::new(socket);
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
            fs::metadata(path).unwrap().ino()
        };
        leave(&path);
        assert!(connect(&path).is_err(), "nobody answers there");
        let (stop, serving) = served(&path, &admin);
        assert!(ask(&path, post(r#"{"order":"user-list"}"#)).await.contains("HTTP/1.1 200 "));
        stop.request();
        serving.await.unwrap();
        assert!(!path.exists());
        // What is no socket stays.
        fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(error.to_string().starts_with("make the socket /"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}

#[tokio::test]
async fn a_socket_of_another_server_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("admin.sock");
    let first = AdminSocket::bind(&path).unwrap();
    let second = AdminSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out() {
    let root = tempfile::tempdir().unwrap();
    let (admin, ..) = house(root.path()).await;
    let path = root.path().join("admin.sock");
    let (stop, serving) = served(&path, &admin);
    let silent: Vec<_> = (0..super::CONNECTIONS - 1).map(|_| connect(&path).unwrap()).collect();
    assert!(ask(&path, post(r#"{"order":"user-list"}"#)).await.contains("HTTP/1.1 200 "));
    stop.request();
    serving.await.unwrap();
    drop(silent);
}
