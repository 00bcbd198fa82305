//! Owns `fs.flag`: something that is up where it was started, until the next boot. It has nothing else.

use om_core::{
    driver::{Driver, Scene, Work},
    instance::Resource,
    status::{Provisioned, ResourceStatus, Status},
};

use crate::marks::Marks;

/// Makes flags so.
pub struct FlagDriver {
    up: Marks,
}

impl FlagDriver {
    /// A driver; `up` is where a boot forgets it.
    pub fn new(up: Marks) -> Self {
        Self { up }
    }
}

impl Driver for FlagDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let is_up = self.up.has(scene, &resource.rid);
            let mut status = ResourceStatus::new(if is_up { Status::Up } else { Status::Down }, "flag");
            status.provisioned = Provisioned::NotApplicable;
            Ok(status)
        })
    }

    fn provision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.up.set(scene, &resource.rid) })
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.up.clear(scene, &resource.rid) })
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        self.stop(scene, resource)
    }
}
