//! Owns `disk.loop`: a file with a filesystem, mounted, so that what is in it can't outgrow its size. Does not own what
//! is in it. The kernel's loop device is made by `mount` and goes with the mount, whatever becomes of the daemon.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{LoopDisk, Resource, ResourceKind},
    status::{Provisioned, ResourceStatus, Severity, Status},
};
use tokio::{process::Command, time::timeout};

use crate::directory;

/// The longest time to make a filesystem.
const MAKE_LIMIT: Duration = Duration::from_secs(300);
/// The longest time to mount one, which may have to read its journal.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
/// The least that makes a filesystem.
const LEAST: u64 = 1 << 20;

/// Makes loop disks so.
pub struct LoopDriver;

fn of(resource: &Resource) -> Result<&LoopDisk, DriverError> {
    match &resource.kind {
        ResourceKind::Loop(disk) => Ok(disk),
        _ => Err(DriverError::failed(format!("{} is no loop disk", resource.rid), None)),
    }
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::failed(format!("{operation} {}: {error}", path.display()), None)
}

/// Whether something is mounted there (proc(5), `mountinfo`).
fn is_mounted(path: &str) -> io::Result<bool> {
    Ok(mount_points(&fs::read_to_string("/proc/self/mountinfo")?).any(|point| point == path))
}

fn mount_points(text: &str) -> impl Iterator<Item = String> + '_ {
    let unescape = |field: &str| {
        [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
            .iter()
            .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    text.lines().filter_map(move |line| line.split(' ').nth(4).map(unescape))
}

async fn run(program: &str, words: &[&str], limit: Duration) -> Result<Output, DriverError> {
    let mut command = Command::new(program);
    command.args(words).kill_on_drop(true);
    match timeout(limit, command.output()).await {
        Err(_) => Err(DriverError::Timeout { what: program.to_owned(), limit }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(DriverError::Missing {
            what: format!("{program} is not installed"),
            hint: Some("install e2fsprogs and mount, or the tools of that filesystem".into()),
        }),
        Ok(Err(error)) => Err(DriverError::failed(format!("run {program}: {error}"), None)),
        Ok(Ok(output)) => Ok(output),
    }
}

async fn must(what: &str, program: &str, words: &[&str], limit: Duration) -> Result<(), DriverError> {
    let output = run(program, words, limit).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim().to_owned();
    Err(DriverError::failed(format!("{what}: {last}"), None))
}

async fn provisioned(disk: &LoopDisk, scene: &Scene) -> Result<(), DriverError> {
    let file = Path::new(&disk.file);
    if file.exists() {
        return Ok(());
    }
    if disk.size < LEAST {
        return Err(DriverError::failed(format!("make {}: {} bytes hold no filesystem", disk.file, disk.size), None));
    }
    let parent = file.parent().unwrap_or(Path::new("/"));
    directory::make(parent).map_err(|error| failed("make directory", parent, &error))?;
    let new = PathBuf::from(format!("{}.new", disk.file));
    let made = (|| {
        let made = File::options().write(true).create(true).truncate(true).open(&new)?;
        // All of it now: what was promised can't be taken by others later.
        rustix::fs::fallocate(&made, rustix::fs::FallocateFlags::empty(), 0, disk.size)?;
        Ok(())
    })();
    let result = match made {
        Err(error) => Err(failed("make", &new, &error)),
        Ok(()) => {
            scene.progress.tell(format!("making a filesystem {} in {}", disk.filesystem, disk.file));
            let path = new.to_string_lossy();
            let program = format!("mkfs.{}", disk.filesystem);
            let words: &[&str] = match disk.filesystem.as_str() {
                "ext4" | "ext3" | "ext2" => &["-q", "-F", "-m", "0", &path],
                _ => &["-q", &path],
            };
            must(&format!("make a filesystem in {}", disk.file), &program, words, MAKE_LIMIT).await
        }
    };
    let result = result.and_then(|()| {
        let kept = File::open(&new)
            .and_then(|made| made.sync_all())
            .and_then(|()| fs::rename(&new, file))
            .and_then(|()| File::open(parent)?.sync_all());
        kept.map_err(|error| failed("keep", file, &error))
    });
    if result.is_err() {
        // A half-made one is no filesystem; the next try begins anew in any case.
        let _ = fs::remove_file(&new);
    }
    result
}

async fn started(disk: &LoopDisk, scene: &Scene) -> Result<(), DriverError> {
    let point = Path::new(&disk.mount_point);
    if is_mounted(&disk.mount_point).map_err(|error| failed("look at the mounts for", point, &error))? {
        return Ok(());
    }
    if !Path::new(&disk.file).exists() {
        return Err(DriverError::Missing {
            what: format!("{} does not exist on this node", disk.file),
            hint: Some(format!("om {} provision makes it", scene.instance.path)),
        });
    }
    directory::make(point).map_err(|error| failed("make directory", point, &error))?;
    let words = ["-t", &disk.filesystem, "-o", "loop,nosuid,nodev", &disk.file, &disk.mount_point];
    must(&format!("mount {}", disk.file), "mount", &words, MOUNT_LIMIT).await
}

async fn stopped(disk: &LoopDisk) -> Result<(), DriverError> {
    let point = Path::new(&disk.mount_point);
    // Whoever mounted twice unmounts twice.
    while is_mounted(&disk.mount_point).map_err(|error| failed("look at the mounts for", point, &error))? {
        let what = format!("unmount {}", disk.mount_point);
        must(&what, "umount", &["-d", &disk.mount_point], MOUNT_LIMIT).await?;
    }
    Ok(())
}

impl Driver for LoopDriver {
    fn status<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let disk = of(resource)?;
            let point = Path::new(&disk.mount_point);
            let is_up =
                is_mounted(&disk.mount_point).map_err(|error| failed("look at the mounts for", point, &error))?;
            let is_there = Path::new(&disk.file).exists();
            let mut status =
                ResourceStatus::new(if is_up { Status::Up } else { Status::Down }, format!("loop {}", disk.file));
            status.provisioned = if is_there { Provisioned::Yes } else { Provisioned::No };
            status.info.insert("head".into(), disk.mount_point.clone());
            if !is_there {
                let severity = if is_up { Severity::Warn } else { Severity::Info };
                status = status.with(severity, "its file does not exist");
            }
            Ok(status)
        })
    }

    fn provision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { provisioned(of(resource)?, scene).await })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { started(of(resource)?, scene).await })
    }

    fn stop<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move { stopped(of(resource)?).await })
    }

    fn unprovision<'a>(&'a self, _: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let disk = of(resource)?;
            stopped(disk).await?;
            let file = Path::new(&disk.file);
            let removed = fs::remove_file(file).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            });
            removed.map_err(|error| failed("remove", file, &error))?;
            // Only if it is empty: it may be somebody's own.
            let _ = fs::remove_dir(&disk.mount_point);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::mount_points;

    #[test]
    fn mount_points_are_read() {
        let text =
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n36 22 7:0 / /srv/a\\040b rw,nosuid - ext4 /dev/loop0 rw\nbroken\n";
        assert_eq!(mount_points(text).collect::<Vec<_>>(), ["/", "/srv/a b"]);
    }
}
