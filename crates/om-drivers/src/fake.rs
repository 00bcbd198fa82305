//! Owns a node without a kernel: a driver that keeps what is up in memory, follows the rules of shared network
//! namespaces, and fails when told to. For simulations and tests; it touches nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use om_core::{
    driver::{Driver, DriverError, Scene, Secret, Work},
    instance::{Namespace, Resource, ResourceKind},
    path::{ObjectPath, Rid},
    plan::Verb,
    status::{Provisioned, ResourceStatus, Status},
};

type Key = (ObjectPath, Rid);

/// How a step goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails at once, and nothing was done.
    Before,
    /// It fails when all was done.
    After,
    /// It never ends.
    Hang,
}

/// Decides of each step, given how many there were before, whether and how it goes wrong.
pub type Faults = Arc<dyn Fn(u64, Verb, &ObjectPath, &Rid) -> Option<Fault> + Send + Sync>;

/// A node's resources in memory. Clones share it: it outlives the daemon that uses it.
#[derive(Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    faults: Faults,
    takes: Duration,
}

#[derive(Default)]
struct World {
    made: BTreeSet<Key>,
    up: BTreeMap<Key, Running>,
    unknown: bool,
    steps: u64,
    log: Vec<String>,
    files: BTreeMap<Key, BTreeMap<String, Secret>>,
}

/// A resource that runs: which making of it, and which making of the one whose network it lives in.
#[derive(Clone, Copy)]
struct Running {
    number: u64,
    lives_in: Option<u64>,
}

impl Fake {
    /// A node where nothing is made; every step takes this long.
    pub fn new(takes: Duration, faults: Faults) -> Self {
        Self { world: Arc::default(), faults, takes }
    }

    /// A node where nothing goes wrong.
    pub fn faultless(takes: Duration) -> Self {
        Self::new(takes, Arc::new(|_, _, _, _| None))
    }

    /// A resource dies, as after a kill.
    pub fn kill(&self, path: &ObjectPath, rid: &Rid) {
        self.world(|world| world.up.remove(&(path.clone(), rid.clone())));
    }

    /// The machine is started anew: nothing runs, what was made stays.
    pub fn reboot(&self) {
        self.world(|world| world.up.clear());
    }

    /// Whether nothing can be said of resources, as when the engine does not answer.
    pub fn hide(&self, hidden: bool) {
        self.world(|world| world.unknown = hidden);
    }

    /// What runs, sorted.
    pub fn running(&self) -> Vec<(ObjectPath, Rid)> {
        self.world(|world| world.up.keys().cloned().collect())
    }

    /// What was made, sorted.
    pub fn made(&self) -> Vec<(ObjectPath, Rid)> {
        self.world(|world| world.made.iter().cloned().collect())
    }

    /// The files that a resource was given when it was started or refreshed last: path, bytes.
    pub fn files(&self, path: &ObjectPath, rid: &Rid) -> BTreeMap<String, Secret> {
        self.world(|world| world.files.get(&(path.clone(), rid.clone())).cloned().unwrap_or_default())
    }

    /// Takes the steps done so far, such as `start container#1`.
    pub fn log(&self) -> Vec<String> {
        self.world(|world| std::mem::take(&mut world.log))
    }

    fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn step(&self, verb: Verb, scene: &Scene, resource: &Resource) -> Result<(), DriverError> {
        let key = (scene.instance.path.clone(), resource.rid.clone());
        let number = self.world(|world| {
            world.steps += 1;
            world.steps
        });
        let fault = (self.faults)(number, verb, &key.0, &key.1);
        if fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.takes).await;
        let failed = || DriverError::failed("the fake was told to fail", Some("tell it otherwise".into()));
        if fault == Some(Fault::Before) {
            return Err(failed());
        }
        self.world(|world| world.step(verb, scene, resource, key, number))?;
        if fault == Some(Fault::After) { Err(failed()) } else { Ok(()) }
    }
}

impl World {
    fn step(
        &mut self,
        verb: Verb,
        scene: &Scene,
        resource: &Resource,
        key: Key,
        number: u64,
    ) -> Result<(), DriverError> {
        self.log.push(format!("{} {}", verb.as_str(), resource.rid));
        match verb {
            Verb::Provision => drop(self.made.insert(key)),
            Verb::Unprovision => drop(self.made.remove(&key)),
            Verb::Stop => drop(self.up.remove(&key)),
            Verb::Start if self.is_up(&key, scene, resource) => {}
            Verb::Start => {
                let lives_in = match owner(resource) {
                    None => None,
                    Some(owner) => match self.up.get(&(key.0.clone(), owner.clone())) {
                        Some(running) => Some(running.number),
                        None => return Err(DriverError::failed(format!("{owner} does not run"), None)),
                    },
                };
                if matches!(resource.kind, ResourceKind::Volume(_)) && !scene.volumes.contains_key(&resource.rid) {
                    return Err(DriverError::failed("the volume is not up", None));
                }
                self.files.insert(key.clone(), scene.files.iter().cloned().collect());
                self.up.insert(key, Running { number, lives_in });
            }
        }
        Ok(())
    }

    fn is_up(&self, key: &Key, _: &Scene, resource: &Resource) -> bool {
        let Some(running) = self.up.get(key) else { return false };
        let Some(owner) = owner(resource) else { return true };
        let now = self.up.get(&(key.0.clone(), owner.clone())).map(|owner| owner.number);
        now.is_some() && now == running.lives_in
    }
}

fn owner(resource: &Resource) -> Option<&Rid> {
    match &resource.kind {
        ResourceKind::Cni(ip) => ip.netns.as_ref(),
        ResourceKind::Container(container) => match &container.netns {
            Namespace::Of(rid) => Some(rid),
            _ => None,
        },
        _ => None,
    }
}

impl Driver for Fake {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let key = (scene.instance.path.clone(), resource.rid.clone());
            Ok(self.world(|world| {
                let status = match world.is_up(&key, scene, resource) {
                    _ if world.unknown => Status::Undef,
                    true => Status::Up,
                    false => Status::Down,
                };
                let mut status = ResourceStatus::new(status, "fake");
                let makes = matches!(
                    resource.kind,
                    ResourceKind::Volume(_) | ResourceKind::Directory(_) | ResourceKind::Loop(_)
                );
                status.provisioned = match (makes, world.made.contains(&key)) {
                    (false, _) => Provisioned::NotApplicable,
                    (true, true) => Provisioned::Yes,
                    (true, false) => Provisioned::No,
                };
                status
            }))
        })
    }

    fn provision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.step(Verb::Provision, scene, resource))
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.step(Verb::Start, scene, resource))
    }

    fn refresh<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        let key = (scene.instance.path.clone(), resource.rid.clone());
        self.world(|world| world.files.insert(key, scene.files.iter().cloned().collect()));
        Box::pin(async { Ok(()) })
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.step(Verb::Stop, scene, resource))
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.step(Verb::Unprovision, scene, resource))
    }
}
