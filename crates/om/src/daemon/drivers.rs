//! Owns which driver makes which kind of resource so: the composition of real drivers. Does not own what they do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use om_core::{
    driver::{Driver, Work},
    instance::ResourceKind,
    path::ObjectPath,
};
use om_drivers::{
    address::AddressDriver,
    app::AppDriver,
    cni::Cni,
    directory::DirectoryDriver,
    docker::{DockerDriver, Paths, engine, events},
    flag::FlagDriver,
    loopdisk::LoopDriver,
    marks::Marks,
    sync::SyncDriver,
    volume::VolumeDriver,
};

use tokio::sync::mpsc;

use crate::{
    daemon::{
        app::{Ground, Parts},
        executor::Drivers,
        orchestrate::Engine,
        supply::Images,
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
    app: Arc<AppDriver>,
    flag: Arc<FlagDriver>,
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
            ResourceKind::App(_) => Arc::clone(&self.app) as _,
        }
    }
}

impl Images for Real {
    fn wants_tls<'a>(&'a self, image: &'a str) -> Work<'a, bool> {
        Box::pin(self.docker.wants_tls(image))
    }

    fn resolves<'a>(&'a self, name: &'a str) -> Work<'a, bool> {
        Box::pin(self.docker.resolves(name))
    }

    fn has_shell<'a>(&'a self, container: &'a str) -> Work<'a, bool> {
        Box::pin(self.docker.has_shell(container))
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

/// Has the orchestrator look again at once at what the container engine says something of, and at what a process died of.
async fn follow(docker: Arc<engine::Engine>, mut deaths: mpsc::UnboundedReceiver<ObjectPath>, engine: Engine) {
    let of_processes = async {
        while let Some(path) = deaths.recv().await {
            tracing::debug!(object.path = %path, "a process died");
            engine.touch(Some(&path));
        }
    };
    let heard = |heard| match heard {
        events::Heard::Container { path, rid, what, .. } => {
            tracing::debug!(object.path = %path, %rid, "the engine says: {what}");
            engine.touch(Some(&path));
        }
        events::Heard::Connected => {
            tracing::info!("the container engine answers");
            engine.interrupted();
        }
        events::Heard::Lost { why } => {
            tracing::warn!("the container engine does not answer: {why}");
            engine.touch(None);
        }
    };
    tokio::join!(events::listen(&docker, heard), of_processes);
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
    let (app, deaths) = AppDriver::new(places.run.join("apps"), places.logs().join("apps"));
    let cni = Cni::new(places.networks());
    let real = Arc::new(Real {
        address: Arc::new(AddressDriver::new(cni, Arc::clone(&docker) as _)),
        docker: Arc::clone(&docker),
        volume: Arc::new(VolumeDriver::new(marks(&places.var, "claimed"), marks(&places.run, "used"))),
        directory: Arc::new(DirectoryDriver::new(marks(&places.run, "directories"))),
        app: Arc::new(app),
        flag: Arc::new(FlagDriver::new(marks(&places.run, "flags"))),
    });
    let news = Box::new(move |engine| Box::pin(follow(docker.engine(), deaths, engine)) as _);
    Ok(Parts {
        drivers: Arc::clone(&real) as _,
        images: real,
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
