//! Owns `sync#i0`: the object's configuration on the other nodes. The shared state brings it there, so that it is up
//! wherever a daemon can be asked. Does not own that state.

use om_core::{
    driver::{Driver, Scene, Work},
    instance::Resource,
    status::{Provisioned, ResourceStatus, Status},
};

/// Shows that configurations are everywhere.
pub struct SyncDriver;

impl Driver for SyncDriver {
    fn status<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async {
            let mut status = ResourceStatus::new(Status::Up, "rsync svc config to nodes");
            status.provisioned = Provisioned::NotApplicable;
            Ok(status)
        })
    }

    fn provision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn stop<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn unprovision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
