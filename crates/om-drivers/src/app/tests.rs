//! Real processes: started, killed, stubborn, left over by a daemon that died.

use std::collections::BTreeMap;

use om_core::{
    config::{Document, resolve::Context, schema},
    driver::{Cluster, Progress},
};

use super::*;

/// A service with one process, and a driver for it.
struct Stage {
    dir: tempfile::TempDir,
    driver: AppDriver,
    deaths: mpsc::UnboundedReceiver<ObjectPath>,
    scene: Scene,
    resource: Resource,
}

fn driver(dir: &Path) -> (AppDriver, mpsc::UnboundedReceiver<ObjectPath>) {
    AppDriver::new(dir.join("run"), dir.join("log"))
}

fn stage(settings: &str) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let path: ObjectPath = "test/app".parse().unwrap();
    let context = Context {
        path: path.clone(),
        node: "a".parse().unwrap(),
        cluster: "pool".into(),
        cluster_id: "id".into(),
        cluster_nodes: vec!["a".parse().unwrap()],
        dns: Vec::new(),
        labels: BTreeMap::new(),
    };
    // The directory's name is in no other test's.
    let id = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
    let text = format!("[DEFAULT]\nid = {id}\n[app#1]\n{settings}\n");
    let checked = schema::instance(&Document::parse(&text).unwrap(), &context);
    let instance = checked.unwrap_or_else(|wrong| panic!("{wrong:?}")).instance;
    let resource = instance.resources.values().next().unwrap().clone();
    let scene = Scene {
        instance,
        cluster: Cluster {
            name: "pool".into(),
            id: "id".into(),
            nodes: Vec::new(),
            dns: Vec::new(),
            networks: Vec::new(),
            plugins: None,
        },
        node: "a".parse().unwrap(),
        volumes: BTreeMap::new(),
        keys: BTreeMap::new(),
        files: Vec::new(),
        progress: Progress::silent(),
    };
    let (driver, deaths) = driver(dir.path());
    Stage { dir, driver, deaths, scene, resource }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for process in marked(&mark(&self.scene, &self.resource)) {
            let _ = kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
        }
    }
}

impl Stage {
    async fn start(&self) -> Result<(), String> {
        self.driver.start(&self.scene, &self.resource).await.map_err(|error| error.to_string())
    }

    async fn stop(&self) {
        self.driver.stop(&self.scene, &self.resource).await.unwrap();
    }

    async fn status(&self) -> ResourceStatus {
        self.driver.status(&self.scene, &self.resource).await.unwrap()
    }

    async fn pid(&self) -> i32 {
        self.status().await.info["pid"].parse().unwrap()
    }

    fn alive(&self) -> usize {
        marked(&mark(&self.scene, &self.resource)).len()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.driver.log(&self.scene, &self.resource)).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_process_is_started_and_stopped() {
    let stage = stage(
        "start = /bin/sh -c \"echo $LEVEL $PWD; sleep 1000 & exec sleep 1000\"\ncwd = /usr\nenvironment = LEVEL=debug\n",
    );
    assert_eq!(stage.status().await.status, Status::Down);
    stage.start().await.unwrap();
    let pid = stage.pid().await;
    assert_eq!((stage.status().await.status, stage.output().trim()), (Status::Up, "debug /usr"));
    assert_eq!(rustix::process::getsid(Pid::from_raw(pid)).unwrap(), Pid::from_raw(pid).unwrap());
    // Twice is once.
    stage.start().await.unwrap();
    assert_eq!((stage.pid().await, stage.alive()), (pid, 2));
    stage.stop().await;
    assert_eq!((stage.status().await.status, stage.alive()), (Status::Down, 0));
    stage.stop().await;
    stage.driver.unprovision(&stage.scene, &stage.resource).await.unwrap();
    assert_eq!(fs::read_dir(stage.dir.path().join("log")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_death_is_told_at_once_and_the_next_daemon_knows_it_again() {
    let mut stage = stage("start = /bin/sleep 1000\n");
    stage.start().await.unwrap();
    let pid = stage.pid().await;
    // Another daemon.
    (stage.driver, stage.deaths) = driver(stage.dir.path());
    stage.start().await.unwrap();
    assert_eq!((stage.pid().await, stage.alive()), (pid, 1));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let told = timeout(Duration::from_secs(1), stage.deaths.recv()).await.expect("in under a second");
    assert_eq!(told, Some(stage.scene.instance.path.clone()));
    assert_eq!(stage.status().await.status, Status::Down);
    stage.start().await.unwrap();
    assert_ne!(stage.pid().await, pid);
    // It died before it could note what it had started.
    fs::remove_file(stage.driver.note(&stage.scene, &stage.resource)).unwrap();
    let lost = marked(&mark(&stage.scene, &stage.resource))[0];
    stage.start().await.unwrap();
    assert!(gone(lost, Duration::from_secs(5)).await);
    assert_eq!(stage.alive(), 1);
    stage.stop().await;
}

#[tokio::test]
async fn a_stubborn_process_is_killed() {
    let stage = stage("start = /bin/sh -c \"trap '' TERM; while :; do sleep 1; done\"\nstop_timeout = 1s\n");
    stage.start().await.unwrap();
    stage.stop().await;
    assert_eq!(stage.alive(), 0);
}

#[tokio::test]
async fn what_fails_says_why() {
    let check = async |settings: &str, expected: &str| {
        let stage = stage(settings);
        let said = stage.start().await.err().unwrap_or_default();
        assert!(said.contains(expected), "{settings}: {said}");
        assert_eq!(stage.status().await.status, Status::Down, "{settings}");
    };
    check("start = /bin/sh -c \"echo no such luck; exit 3\"\n", "no such luck").await;
    check("start = /bin/sh -c \"exit 3\"\n", "exit status: 3").await;
    check("start = /no/such/program\n", "/no/such/program").await;
    check("start = /bin/sleep 1000\nuser = nobody-knows-me\n", "user nobody-knows-me is not in /etc/passwd").await;
    check("start = /bin/sleep 1000\ncwd = /no/such/dir\n", "No such file").await;
}

#[tokio::test]
async fn it_runs_as_its_user_and_is_checked() {
    let stage = stage("start = /bin/sh -c \"id -un; exec sleep 1000\"\nuser = nobody\ncheck = /bin/test -e CHECKED\n");
    let checked = stage.dir.path().join("checked");
    let mut resource = stage.resource.clone();
    if let ResourceKind::App(app) = &mut resource.kind {
        app.check = Some(vec!["/bin/test".into(), "-e".into(), checked.display().to_string()]);
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(stage.dir.path(), open).unwrap();
    stage.driver.start(&stage.scene, &resource).await.unwrap();
    assert_eq!(stage.output().trim(), "nobody");
    let status = stage.driver.status(&stage.scene, &resource).await.unwrap();
    assert!(status.status == Status::Warn && status.lines[0].text.contains("says no"), "{status:?}");
    fs::write(checked, "").unwrap();
    assert_eq!(stage.driver.status(&stage.scene, &resource).await.unwrap().status, Status::Up);
    stage.stop().await;
}

#[tokio::test]
async fn a_log_does_not_grow_without_end() {
    let stage = stage("start = /bin/sleep 1000\n");
    stage.start().await.unwrap();
    let log = stage.driver.log(&stage.scene, &stage.resource);
    let line = "a line of the output\n";
    fs::write(&log, line.repeat(500_000)).unwrap();
    stage.status().await;
    let left = stage.output();
    assert!(left.len() as u64 <= LOG_LIMIT && left.len() > 1 << 20 && left.starts_with(line), "{}", left.len());
    stage.stop().await;
}
