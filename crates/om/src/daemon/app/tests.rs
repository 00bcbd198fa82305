//! The whole daemon in process: the real API, loop and store on disk; resources are a fake's.

use std::time::Duration;

use om_core::{
    driver::{Driver, Work},
    instance::ResourceKind,
    path::Rid,
};
use om_drivers::fake::Fake;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::client::{Client, ClientError};

const TEMPLATE: &str = "[DEFAULT]\norchestrate = ha\nnodes = {clusternodes}\n\n[ip#1]\ntype = cni\nnetns = container#0\n\n\
    [container#0]\ntype = docker\nimage = google/pause\n\n[container#1]\ntype = docker\nimage = registry\n\
    volume_mounts = {svcname}-data/registry:/var/lib/registry\nnetns = container#0\nrestart = 2\n\n[volume#1]\n\
    name = {svcname}-data\nsize = {env.size}\naccess = rwo\n\n[env]\nsize = 1m\n";

struct Fakes(Fake);

impl Drivers for Fakes {
    fn of(&self, _: &ResourceKind) -> Arc<dyn Driver> {
        Arc::new(self.0.clone())
    }
}

impl Images for Fakes {
    fn wants_tls<'a>(&'a self, image: &'a str) -> Work<'a, bool> {
        Box::pin(async move { Ok(image == "registry") })
    }

    fn resolves<'a>(&'a self, _: &'a str) -> Work<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    fn has_shell<'a>(&'a self, _: &'a str) -> Work<'a, bool> {
        Box::pin(async { Ok(true) })
    }
}

/// A node: its disk, and what runs on it.
struct Node {
    root: TempDir,
    fake: Fake,
    shutdown: Shutdown,
    task: Option<JoinHandle<Result<(), StartError>>>,
}

impl Node {
    async fn start() -> Self {
        let (root, fake) = (tempfile::tempdir().unwrap(), Fake::faultless(Duration::from_millis(1)));
        let mut node = Self { root, fake, shutdown: Shutdown::new(), task: None };
        node.boot().await;
        node
    }

    fn places(&self) -> Places {
        Places::new(Some(self.root.path()))
    }

    fn client(&self) -> Client {
        Client::new(self.places().socket())
    }

    async fn boot(&mut self) {
        self.shutdown = Shutdown::new();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let (places, shutdown, fake) = (self.places(), self.shutdown.clone(), self.fake.clone());
        self.task = Some(tokio::spawn(async move {
            let make = async |_: &Ground| {
                Ok(Parts {
                    drivers: Arc::new(Fakes(fake.clone())),
                    images: Arc::new(Fakes(fake.clone())),
                    engine_host: "unix:///nowhere".into(),
                    facts: BTreeMap::new(),
                    news: None,
                    dns_port: None,
                })
            };
            run(places, shutdown, make, |_| ready.send(()).expect("the test waits")).await
        }));
        is_ready.await.expect("the daemon starts");
    }

    async fn stop(&mut self) {
        self.shutdown.request();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    /// Follows a request to its end.
    async fn follow(&self, request: &str) -> Result<Vec<String>, api::Failure> {
        let mut events = self.client().events(None, Some(request)).await.unwrap();
        let mut steps = Vec::new();
        while let Some(event) = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap() {
            match event {
                Event::Progress { text, .. } => steps.push(text),
                Event::Ended { failure: None, .. } => return Ok(steps),
                Event::Ended { failure: Some(failure), .. } => return Err(failure),
                _ => {}
            }
        }
        panic!("the stream ended before the request: {steps:?}");
    }

    async fn act(&self, selector: &str, verb: &str) -> Result<Vec<String>, api::Failure> {
        let act = api::Act { selector: selector.into(), verb: verb.into(), ..api::Act::default() };
        let result = self.client().act(&act).await.unwrap().results.remove(0);
        match (result.refused, result.request) {
            (Some(refused), _) => Err(refused),
            (None, Some(request)) => self.follow(&request).await,
            (None, None) => Ok(Vec::new()),
        }
    }

    async fn avail(&self, path: &str) -> String {
        self.client().status(path, true).await.unwrap().objects.remove(path).unwrap().avail
    }

    async fn provision(&self) -> api::Created {
        let create = api::Create {
            path: "test/svc/registry".into(),
            config: TEMPLATE.into(),
            file: "/tmp/registry.template".into(),
            provision: true,
            ..api::Create::default()
        };
        let created = self.client().create(&create).await.unwrap();
        self.follow(created.request.as_deref().unwrap()).await.unwrap();
        created
    }
}

/// Waits until it is so.
async fn comes_true(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to be that {what}");
}

#[tokio::test]
async fn the_page_s_service_comes_and_goes() {
    let mut node = Node::start().await;
    node.provision().await;
    let client = node.client();
    let snapshot = client.status("test/registry", false).await.unwrap();
    let status = &snapshot.objects["test/svc/registry"];
    let instance = &status.instances[&snapshot.node];
    assert_eq!((status.avail.as_str(), instance.monitor.as_str()), ("up", "idle"), "{status:#?}");
    assert_eq!(
        (instance.local_expect.as_deref(), instance.frozen, status.provisioned.as_str()),
        (Some("started"), None, "yes")
    );
    assert_eq!(
        instance.resources.keys().map(String::as_str).collect::<Vec<_>>(),
        ["container#0", "container#1", "ip#1", "volume#1"]
    );
    assert_eq!(node.avail("test/vol/registry-data").await, "up");
    let trusted = node.places().docker_etc.join("certs.d/registry.test.svc.default:5000/ca.crt");
    let is_trusted = async || fs::read_to_string(&trusted).is_ok_and(|text| text.contains("BEGIN CERTIFICATE"));
    comes_true("the engine trusts the registry", is_trusted).await;
    assert_eq!(client.pools().await.unwrap()[0].volumes[0].children, ["test/svc/registry"]);

    // A daemon that starts again finds everything as it left it.
    drop(node.fake.log());
    node.stop().await;
    node.boot().await;
    assert_eq!(node.avail("test/svc/registry").await, "up");
    assert_eq!(node.fake.log(), Vec::<String>::new(), "nothing was started again");

    node.act("test/registry", "stop").await.unwrap();
    assert_eq!(node.avail("test/svc/registry").await, "down");
    node.act("test/registry", "start").await.unwrap();
    assert_eq!(node.avail("test/svc/registry").await, "up");
    let refused = node.act("test/vol/registry-data", "purge").await.unwrap_err();
    assert!(refused.message.contains("is used by test/svc/registry"), "{refused:?}");
    node.act("test/registry", "purge").await.unwrap();
    assert!(client.objects("test/registry").await.unwrap_err().is_not_found());
    // The volume stays, with its data; the certificate goes.
    let left = async { while client.objects("**").await.unwrap() != ["test/vol/registry-data"] {} };
    tokio::time::timeout(Duration::from_secs(20), left).await.unwrap();
    node.act("test/vol/registry-data", "purge").await.unwrap();
    assert_eq!(node.fake.running(), []);
    assert_eq!(node.fake.made(), []);
    node.stop().await;
}

#[tokio::test]
async fn what_dies_is_started_again() {
    let mut node = Node::start().await;
    node.provision().await;
    let rid: Rid = "container#1".parse().unwrap();
    node.fake.kill(&"test/registry".parse().unwrap(), &rid);
    let mut events = node.client().events(Some("test/registry"), None).await.unwrap();
    node.client().status("test/registry", true).await.unwrap();
    let seen = async {
        let mut died = false;
        while let Some(event) = events.next().await.unwrap() {
            let Event::Instance { object, .. } = event else { continue };
            died |= object.avail == "warn";
            let instance = object.instances.values().next().unwrap();
            if died && object.avail == "up" && instance.monitor == "idle" {
                return instance.resources["container#1"].restart;
            }
        }
        panic!("it stays down");
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap(), 1);
    node.stop().await;
}

#[tokio::test]
async fn mistakes_are_told_and_change_nothing() {
    let mut node = Node::start().await;
    let client = node.client();
    let create = |config: &str| api::Create {
        path: "test/svc/bad".into(),
        config: config.into(),
        file: "/tmp/t".into(),
        ..api::Create::default()
    };
    let check = async |config: &str, expected: &str| {
        let Err(ClientError::Refused { failure, .. }) = client.create(&create(config)).await else {
            panic!("{config} is taken")
        };
        let said: Vec<String> =
            failure.diagnostics.iter().map(|d| format!("{}:{}: {}", d.file, d.line, d.message)).collect();
        assert!(said.iter().any(|line| line.contains(expected)), "{said:?}");
        assert!(client.objects("**").await.unwrap().is_empty());
    };
    check("[container#1]\nimge = x\n", "/tmp/t:2: ").await;
    check("[contaner#1]\nimage = x\n", "/tmp/t:1: ").await;
    check("[DEFAULT]\nnodes = elsewhere\n", "/tmp/t:2: ").await;
    check("no section\n", "/tmp/t:1: ").await;
    client.create(&create("[DEFAULT]\n")).await.unwrap();
    let again = client.create(&create("[DEFAULT]\n")).await.unwrap_err();
    assert!(matches!(&again, ClientError::Refused { status: 409, .. }), "{again:?}");
    let patch = |set: &str| api::Patch { set: vec![set.into()], ..api::Patch::default() };
    let path = "test/svc/bad".parse().unwrap();
    assert!(client.config_patch(&path, &patch("orchestrate=ha")).await.unwrap().changed);
    assert!(!client.config_patch(&path, &patch("orchestrate=ha")).await.unwrap().changed);
    client.config_patch(&path, &patch("orchestrate=hi")).await.unwrap_err();
    let config = client.config(&path).await.unwrap();
    assert!(config.text.contains("orchestrate = ha") && config.generation == 2, "{config:?}");
    let stale = api::Replace { text: "[DEFAULT]\n".into(), generation: Some(1), ..api::Replace::default() };
    let refused = client.config_replace(&path, &stale).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 409, .. }));
    node.stop().await;
}

#[tokio::test]
async fn keys_are_kept_and_not_told() {
    let mut node = Node::start().await;
    let client = node.client();
    let path: ObjectPath = "myns/sec/creds".parse().unwrap();
    let create = api::Create { path: path.fqn(), ..api::Create::default() };
    client.create(&create).await.unwrap();
    let secret = b"correct horse battery".to_vec();
    use api::WriteMode::{Add, Append, Change};
    assert!(client.value(&path, "config.json").await.unwrap_err().is_not_found());
    assert!(client.value_put(&path, "config.json", Add, secret.clone()).await.unwrap().changed);
    client.value_put(&path, "config.json", Add, secret.clone()).await.unwrap_err();
    assert!(!client.value_put(&path, "config.json", Change, secret.clone()).await.unwrap().changed);
    assert_eq!(client.value_put(&path, "config.json", Append, b"!".to_vec()).await.unwrap().size, 22);
    assert_eq!(client.value(&path, "config.json").await.unwrap(), b"correct horse battery!");
    assert_eq!(client.keys(&path, Some("conf*")).await.unwrap().len(), 1);
    node.stop().await;
    // Neither the store nor the journal has it in clear.
    let mut looked = 0;
    for directory in [node.places().var.clone(), node.places().logs()] {
        for entry in fs::read_dir(directory).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let bytes = fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(12).any(|window| window == b"horse batter"), "{}", entry.path().display());
            looked += 1;
        }
    }
    assert!(looked > 2, "{looked}");
    node.boot().await;
    assert_eq!(client.value(&path, "config.json").await.unwrap(), b"correct horse battery!");
    assert!(client.value_delete(&path, "config.json").await.unwrap().changed);
    assert!(!client.value_delete(&path, "config.json").await.unwrap().changed);
    assert!(matches!(running(&node.places().lock()), Ok(Some(_))));
    node.stop().await;
    assert!(matches!(running(&node.places().lock()), Ok(None)));
}

#[tokio::test]
async fn the_cluster_s_configuration_is_followed() {
    let node = Node::start().await;
    let client = node.client();
    let cluster = ObjectPath::cluster();
    let set = async |text: &str| {
        let patch = api::Patch { set: vec![text.into()], ..api::Patch::default() };
        client.config_patch(&cluster, &patch).await
    };
    node.provision().await;

    set("network#backend.network=10.30.0.0/16").await.unwrap();
    let has_network = async || client.networks().await.unwrap().iter().any(|network| network.name == "backend");
    comes_true("the new network is known", has_network).await;

    // The name is in configurations, in the zone, and in certificates.
    let tls: ObjectPath = "test/sec/registry.tls".parse().unwrap();
    let of = async |key: &str| client.value(&tls, key).await.unwrap_or_default();
    let (service, rid): (ObjectPath, Rid) = ("test/registry".parse().unwrap(), "container#1".parse().unwrap());
    let in_container = || node.fake.files(&service, &rid).remove("/run/tls/tls.key").unwrap().0;
    let before = of("private_key").await;
    assert_eq!(in_container(), before);
    set("cluster.name=homepool2").await.unwrap();
    let is_named = async || client.daemon().await.unwrap().cluster == "homepool2";
    comes_true("the cluster has its name", is_named).await;
    let is_renewed = async || in_container() != before && in_container() == of("private_key").await;
    comes_true("the container has a certificate for its new name", is_renewed).await;

    // One that was damaged is made again, without an order and without a start.
    let (before, log) = (of("private_key").await, node.fake.log());
    assert!(log.iter().any(|step| step == "start container#1"), "{log:?}");
    client.value_delete(&tls, "private_key").await.unwrap();
    let is_renewed = async || in_container() != before && in_container() == of("private_key").await;
    comes_true("the container has another certificate", is_renewed).await;
    assert_eq!(node.fake.log(), Vec::<String>::new());

    // What makes no sense changes nothing, and says where it is.
    let refused = set("cluster.dns=10.0.0.1 junk").await.unwrap_err();
    let ClientError::Refused { failure, .. } = &refused else { panic!("{refused:?}") };
    let said = &failure.diagnostics[0];
    assert_eq!((said.message.as_str(), said.line, said.column), ("`dns`: `junk` is no address", 4, 7));
}

#[tokio::test]
async fn what_is_up_keeps_its_section() {
    let node = Node::start().await;
    node.provision().await;
    let client = node.client();
    let path: ObjectPath = "test/registry".parse().unwrap();
    let without = api::Patch { sections: vec!["container#1".into()], ..api::Patch::default() };
    let refused = client.config_patch(&path, &without).await.unwrap_err();
    assert!(refused.to_string().contains("container#1 of test/svc/registry is up, and nobody"), "{refused}");
    assert!(client.config(&path).await.unwrap().text.contains("[container#1]"));
    let words = ["volume#1.name=other", "container#1.volume_mounts=other/registry:/var/lib/registry"];
    let renamed = api::Patch { set: words.map(Into::into).to_vec(), ..api::Patch::default() };
    let refused = client.config_patch(&path, &renamed).await.unwrap_err();
    assert!(refused.to_string().contains("volume#1 of test/svc/registry is up"), "{refused}");
    node.act("test/registry", "freeze").await.unwrap();
    let stop = api::Act {
        selector: "test/registry".into(),
        verb: "stop".into(),
        rids: vec!["container#1".into()],
        ..api::Act::default()
    };
    let request = client.act(&stop).await.unwrap().results.remove(0).request.unwrap();
    node.follow(&request).await.unwrap();
    client.config_patch(&path, &without).await.unwrap();
    assert!(!client.config(&path).await.unwrap().text.contains("[container#1]"));
}
