//! Owns `fs.directory`: a directory of the host that is made once, with an owner and a mode. Does not own what is in it.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{Directory, Resource, ResourceKind},
    status::{Provisioned, ResourceStatus, Severity, Status},
};

use crate::{marks::Marks, owner::Owner};

/// Makes directories so.
pub struct DirectoryDriver {
    up: Marks,
}

fn failed(operation: &str, path: &str, error: &io::Error) -> DriverError {
    DriverError::failed(format!("{operation} directory {path}: {error}"), None)
}

fn of(resource: &Resource) -> Result<&Directory, DriverError> {
    match &resource.kind {
        ResourceKind::Directory(directory) => Ok(directory),
        _ => Err(DriverError::failed(format!("{} is no directory", resource.rid), None)),
    }
}

impl DirectoryDriver {
    /// A driver; `up` is where a boot forgets it.
    pub fn new(up: Marks) -> Self {
        Self { up }
    }
}

/// Makes a directory and those above it, durably.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(path)?;
    for made in missing.into_iter().rev() {
        if let Some(parent) = made.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

impl Driver for DirectoryDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let path = &of(resource)?.path;
            let is_there = Path::new(path).is_dir();
            let is_up = is_there && self.up.has(scene, &resource.rid);
            let mut status =
                ResourceStatus::new(if is_up { Status::Up } else { Status::Down }, format!("directory {path}"));
            status.provisioned = if is_there { Provisioned::Yes } else { Provisioned::No };
            status.info.insert("head".into(), path.clone());
            Ok(if is_there { status } else { status.with(Severity::Info, "it does not exist") })
        })
    }

    fn provision<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let path = &of(resource)?.path;
            make(Path::new(path)).map_err(|error| failed("make", path, &error))
        })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let Directory { path, user, group, perm } = of(resource)?;
            // Made anew it would be empty: what was in it would seem to be lost, or to be there.
            let open = File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => DriverError::Missing {
                    what: format!("directory {path} does not exist on this node"),
                    hint: Some(format!("om {} provision makes it", scene.instance.path)),
                },
                _ => failed("open", path, &error),
            })?;
            let owner = Owner { user: user.as_deref(), group: group.as_deref(), mode: *perm };
            owner.give(&open, path)?;
            self.up.set(scene, &resource.rid)
        })
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.up.clear(scene, &resource.rid) })
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let path = of(resource)?.path.clone();
            self.up.clear(scene, &resource.rid)?;
            scene.progress.tell(format!("removing {path}"));
            let removed = tokio::task::spawn_blocking({
                let path = path.clone();
                move || fs::remove_dir_all(path)
            });
            match removed.await {
                Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
                Ok(_) => Ok(()),
                Err(error) => Err(DriverError::failed(format!("remove directory {path}: {error}"), None)),
            }
        })
    }
}
