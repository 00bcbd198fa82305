//! Owns which driver makes which kind of resource so: the composition of real drivers. Does not own what they do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{Resource, ResourceKind},
    status::{Provisioned, ResourceStatus, Severity, Status},
};
use om_drivers::{
    address::AddressDriver,
    cni::Cni,
    directory::DirectoryDriver,
    docker::{DockerDriver, Paths, engine, events},
    flag::FlagDriver,
    loopdisk::LoopDriver,
    marks::Marks,
    sync::SyncDriver,
    volume::VolumeDriver,
};

use crate::{
    daemon::{
        app::{Ground, Parts},
        executor::Drivers,
        networks::networks,
        orchestrate::Engine,
        shown,
        supply::Labels,
    },
    places::Places,
};

/// Where the container engine is, unless the environment says otherwise.
const ENGINE: &str = "unix:///var/run/docker.sock";
/// The variable that Docker's own command line reads.
const ENGINE_VARIABLE: &str = "DOCKER_HOST";
/// The variable that says where Docker's command line keeps its login.
const LOGIN_VARIABLE: &str = "DOCKER_CONFIG";
/// Where root's is.
const LOGIN: &str = "/root/.docker";

/// The drivers of a real node.
struct Real {
    address: Arc<AddressDriver>,
    docker: Arc<DockerDriver>,
    volume: Arc<VolumeDriver>,
    directory: Arc<DirectoryDriver>,
    flag: Arc<FlagDriver>,
}

/// A kind of resource that this build cannot make so.
struct Absent;

impl Absent {
    fn missing<T>(resource: &Resource) -> Result<T, DriverError> {
        let what = format!("this build has no driver for {}", shown::kind(&resource.kind));
        Err(DriverError::Missing { what, hint: None })
    }
}

impl Driver for Absent {
    fn status<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let mut status = ResourceStatus::new(Status::Down, shown::label(&resource.kind));
            status.provisioned = Provisioned::No;
            Ok(status.with(Severity::Warn, "this build has no driver for it"))
        })
    }

    fn provision<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { Self::missing(resource) })
    }

    fn start<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { Self::missing(resource) })
    }

    /// Nothing that could not be started runs.
    fn stop<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn unprovision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Drivers for Real {
    fn of(&self, kind: &ResourceKind) -> Arc<dyn Driver> {
        match kind {
            ResourceKind::Cni(_) => Arc::clone(&self.address) as _,
            ResourceKind::Container(_) => Arc::clone(&self.docker) as _,
            ResourceKind::Volume(_) => Arc::clone(&self.volume) as _,
            ResourceKind::Directory(_) => Arc::clone(&self.directory) as _,
            ResourceKind::Flag => Arc::clone(&self.flag) as _,
            ResourceKind::Loop(_) => Arc::new(LoopDriver),
            ResourceKind::Sync => Arc::new(SyncDriver),
            ResourceKind::App(_) => Arc::new(Absent),
        }
    }
}

impl Labels for Real {
    fn wants_tls<'a>(&'a self, image: &'a str) -> Work<'a, bool> {
        Box::pin(self.docker.wants_tls(image))
    }
}

/// The socket that an engine's address names.
///
/// # Errors
/// It is not on this node; for people.
fn socket(host: &str) -> Result<PathBuf, String> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => {
            Err(format!("{ENGINE_VARIABLE}={host}: the engine of a node is on it (hint: unix:///var/run/docker.sock)"))
        }
    }
}

/// Where the drivers keep what they need.
fn paths(places: &Places, socket: PathBuf) -> Paths {
    let login = std::env::var_os(LOGIN_VARIABLE).map_or_else(|| PathBuf::from(LOGIN), PathBuf::from);
    Paths {
        socket,
        memory: places.run.join("containers"),
        grants: places.var.join("images.json"),
        login: login.join("config.json"),
    }
}

/// Has the orchestrator look again at once at what the engine says something of.
async fn follow(docker: Arc<engine::Engine>, engine: Engine) {
    let heard = |heard| match heard {
        events::Heard::Container { path, rid, what, .. } => {
            tracing::debug!(object.path = %path, %rid, "the engine says: {what}");
            engine.touch(Some(&path));
        }
        events::Heard::Connected => {
            tracing::info!("the container engine answers");
            engine.touch(None);
        }
        events::Heard::Lost { why } => {
            tracing::warn!("the container engine does not answer: {why}");
            engine.touch(None);
        }
    };
    events::listen(&docker, heard).await;
}

/// The parts of a real node.
///
/// # Errors
/// What a driver needs is not there and it cannot do without; for people.
pub async fn real(ground: &Ground) -> Result<Parts, String> {
    let engine_host = std::env::var(ENGINE_VARIABLE).unwrap_or_else(|_| ENGINE.into());
    let facts = BTreeMap::from([("engine".to_owned(), engine_host.clone())]);
    let places = &ground.places;
    let marks = |parent: &Path, name: &str| Marks::new(parent.join(name));
    let docker = Arc::new(DockerDriver::new(paths(places, socket(&engine_host)?)));
    let (networks, problems) = networks(&ground.world, &ground.cluster);
    for problem in problems {
        tracing::warn!("{problem}");
    }
    let cni = Cni::new(None, places.networks());
    let real = Arc::new(Real {
        address: Arc::new(AddressDriver::new(cni, networks, Arc::clone(&docker) as _)),
        docker: Arc::clone(&docker),
        volume: Arc::new(VolumeDriver::new(marks(&places.var, "claimed"), marks(&places.run, "used"))),
        directory: Arc::new(DirectoryDriver::new(marks(&places.run, "directories"))),
        flag: Arc::new(FlagDriver::new(marks(&places.run, "flags"))),
    });
    let news = Box::new(move |engine| Box::pin(follow(docker.engine(), engine)) as _);
    Ok(Parts {
        drivers: Arc::clone(&real) as _,
        labels: real,
        engine_host,
        facts,
        news: Some(news),
        dns_port: Some(om_dns::server::PORT),
    })
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn the_engine_is_on_the_node() {
        let check = |host: &str, expected: Option<&str>| {
            assert_eq!(socket(host).ok().as_deref(), expected.map(std::path::Path::new), "{host}");
        };
        check("unix:///var/run/docker.sock", Some("/var/run/docker.sock"));
        check("tcp://10.0.0.1:2375", None);
        check("unix://docker.sock", None);
        check("", None);
    }
}
