//! Owns what a service does with a volume that it claims: owner and mode of its head, directories and files in it, and
//! whether the service uses it. Does not own the volume, which is an object of its own.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
};

use om_core::{
    config::resolve::is_match,
    driver::{Driver, DriverError, Scene, Work},
    instance::{KeyFile, Resource, ResourceKind, VolumeClaim},
    status::{Provisioned, ResourceStatus, Severity, Status},
};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, open, openat, renameat, unlinkat};

use crate::{marks::Marks, owner::Owner};

/// The longest path of a file in a volume, in parts.
const DEPTH: usize = 64;

/// Makes claims of volumes so.
pub struct VolumeDriver {
    claimed: Marks,
    used: Marks,
}

fn of(resource: &Resource) -> Result<&VolumeClaim, DriverError> {
    match &resource.kind {
        ResourceKind::Volume(claim) => Ok(claim),
        _ => Err(DriverError::failed(format!("{} is no volume", resource.rid), None)),
    }
}

fn failed(what: String, error: impl Into<io::Error>) -> DriverError {
    DriverError::failed(format!("{what}: {}", error.into()), None)
}

/// Opens a directory below another one, made where it is not there. Links are not followed: who writes to the volume
/// could have made one that leads out of it. Those that are made get the mode.
fn enter(head: &Path, path: &str, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut dir = open(head, flags, Mode::empty())?;
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    for (depth, part) in parts.enumerate() {
        if part == ".." || depth == DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is no path inside a volume")));
        }
        let made = match mkdirat(&dir, part, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let next = openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if made {
            fsync(&dir)?;
            // Whatever the umask is.
            rustix::fs::fchmod(&next, Mode::from_raw_mode(mode))?;
        }
        dir = next;
    }
    Ok(dir)
}

/// Whether a file in an open directory is as it should be.
fn is_so(dir: &OwnedFd, name: &str, bytes: &[u8], mode: u32) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(dir, name, flags, Mode::empty()).map(std::fs::File::from) else { return false };
    let (size, limit) = (bytes.len() as u64, bytes.len() as u64 + 1);
    let fits = file.metadata().is_ok_and(|seen| {
        seen.is_file() && seen.len() == size && std::os::unix::fs::MetadataExt::mode(&seen) & 0o7777 == mode
    });
    let mut old = Vec::new();
    fits && file.take(limit).read_to_end(&mut old).is_ok() && old == bytes
}

/// Writes a file in an open directory: whole or not at all. One that is as it should be is left alone.
fn write(dir: &OwnedFd, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    if is_so(dir, name, bytes, mode) {
        return Ok(());
    }
    let new = format!(".{name}.om-new");
    match unlinkat(dir, &new, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(dir, &new, flags, Mode::from_raw_mode(mode))?);
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    renameat(dir, &new, dir, name)?;
    fsync(dir)?;
    Ok(())
}

impl VolumeDriver {
    /// A driver. `claimed` outlives a boot, `used` is where a boot forgets it.
    pub fn new(claimed: Marks, used: Marks) -> Self {
        Self { claimed, used }
    }

    fn started(&self, scene: &Scene, resource: &Resource) -> Result<(), DriverError> {
        let claim = of(resource)?;
        let Some((head, read_only)) = scene.volumes.get(&resource.rid) else {
            let what = format!("volume {} is not up on this node", claim.name);
            let hint = format!("om {}/vol/{} print status", scene.instance.path.namespace, claim.name);
            return Err(DriverError::Missing { what, hint: Some(hint) });
        };
        if !read_only {
            self.fill(scene, claim, head)?;
        }
        self.used.set(scene, &resource.rid)
    }

    fn fill(&self, scene: &Scene, claim: &VolumeClaim, head: &Path) -> Result<(), DriverError> {
        let what = || format!("open {}", head.display());
        let top = enter(head, "", 0o755).map_err(|error| failed(what(), error))?;
        let owner = Owner { user: claim.user.as_deref(), group: claim.group.as_deref(), mode: claim.perm };
        owner.give(&top, &head.display().to_string())?;
        let mode = claim.dirperm.unwrap_or(0o755);
        let below = Owner { mode: None, ..owner };
        for path in &claim.directories {
            let what = format!("{path} of volume {}", claim.name);
            let dir = enter(head, path, mode).map_err(|error| failed(format!("make {what}"), error))?;
            below.give(&dir, &what)?;
        }
        for (secret, files) in [(false, &claim.configs), (true, &claim.secrets)] {
            for file in files {
                place(scene, claim, head, secret, file, mode, below)?;
            }
        }
        Ok(())
    }
}

/// Writes the files that one word of the configuration asks for: a key, or all keys that match.
fn place(
    scene: &Scene,
    claim: &VolumeClaim,
    head: &Path,
    secret: bool,
    file: &KeyFile,
    mode: u32,
    owner: Owner<'_>,
) -> Result<(), DriverError> {
    let keys = scene
        .keys
        .iter()
        .filter(|(name, _)| name.secret == secret && name.object == file.object && is_match(&file.key, &name.key));
    for (name, value) in keys {
        let path = file.destination(&name.key);
        let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", &path));
        let what = format!("write {path} of volume {}", claim.name);
        if leaf.is_empty() || leaf == "." || leaf == ".." {
            return Err(DriverError::failed(format!("{what}: it names no file"), None));
        }
        let dir = enter(head, parent, mode).map_err(|error| failed(what.clone(), error))?;
        write(&dir, leaf, &value.0, if secret { 0o600 } else { 0o644 }).map_err(|error| failed(what.clone(), error))?;
        let open = openat(&dir, leaf, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(what.clone(), error))?;
        owner.give(&open, &what)?;
    }
    Ok(())
}

impl Driver for VolumeDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let claim = of(resource)?;
            let head = scene.volumes.get(&resource.rid).map(|(head, _)| head);
            let is_used = self.used.has(scene, &resource.rid);
            let up = head.is_some() && is_used;
            let mut status = ResourceStatus::new(if up { Status::Up } else { Status::Down }, claim.name.to_string());
            status.provisioned =
                if self.claimed.has(scene, &resource.rid) { Provisioned::Yes } else { Provisioned::No };
            if let Some(head) = head {
                status.info.insert("head".into(), head.display().to_string());
            } else if is_used {
                status = status.with(Severity::Info, format!("volume {} is not up", claim.name));
            }
            Ok(status)
        })
    }

    fn provision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.claimed.set(scene, &resource.rid) })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.started(scene, resource) })
    }

    fn refresh<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let claim = of(resource)?;
            let Some((head, read_only)) = scene.volumes.get(&resource.rid) else { return Ok(()) };
            let has_files = !claim.configs.is_empty() || !claim.secrets.is_empty();
            if *read_only || !has_files || !self.used.has(scene, &resource.rid) {
                return Ok(());
            }
            self.fill(scene, claim, head)
        })
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { self.used.clear(scene, &resource.rid) })
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            self.used.clear(scene, &resource.rid)?;
            self.claimed.clear(scene, &resource.rid)
        })
    }
}
