//! Owns which driver makes which kind of resource so: the composition of real drivers. Does not own what they do.

use std::{collections::BTreeMap, sync::Arc};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{Resource, ResourceKind},
    status::{Provisioned, ResourceStatus, Severity, Status},
};

use crate::daemon::{
    app::{Ground, Parts},
    executor::Drivers,
    shown,
    supply::Labels,
};

/// Where the container engine is, unless the environment says otherwise.
const ENGINE: &str = "unix:///var/run/docker.sock";
/// The variable that Docker's own command line reads.
const ENGINE_VARIABLE: &str = "DOCKER_HOST";

/// The drivers of a real node.
struct Real;

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
            ResourceKind::Cni(_)
            | ResourceKind::Container(_)
            | ResourceKind::Volume(_)
            | ResourceKind::Directory(_)
            | ResourceKind::Flag
            | ResourceKind::Loop(_)
            | ResourceKind::App(_)
            | ResourceKind::Sync => Arc::new(Absent),
        }
    }
}

impl Labels for Real {
    fn wants_tls<'a>(&'a self, _: &'a str) -> Work<'a, bool> {
        Box::pin(async { Ok(false) })
    }
}

/// The parts of a real node.
///
/// # Errors
/// What a driver needs is not there and it cannot do without; for people.
pub async fn real(_: &Ground) -> Result<Parts, String> {
    let engine_host = std::env::var(ENGINE_VARIABLE).unwrap_or_else(|_| ENGINE.into());
    let facts = BTreeMap::from([("engine".to_owned(), engine_host.clone())]);
    let real = Arc::new(Real);
    Ok(Parts { drivers: Arc::clone(&real) as _, labels: real, engine_host, facts })
}
