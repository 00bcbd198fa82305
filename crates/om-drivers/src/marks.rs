//! Owns marks: empty files that say of a resource that it was made, or is up, on this node. Does not own what they mean.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use om_core::{
    driver::{DriverError, Scene},
    path::Rid,
};

/// A directory of marks.
#[derive(Clone, Debug)]
pub struct Marks(PathBuf);

impl Marks {
    /// Marks below this directory, which is made when it is needed. Those of what is up belong where a boot forgets them.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// By the id of the object, which no other one ever has: a new object of the same name begins without marks.
    fn place(&self, scene: &Scene, rid: &Rid) -> PathBuf {
        self.0.join(format!("{}.{}", scene.instance.id, rid.to_string().replace('#', ".")))
    }

    /// Whether the resource has the mark.
    pub fn has(&self, scene: &Scene, rid: &Rid) -> bool {
        self.place(scene, rid).exists()
    }

    /// Sets the mark, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set(&self, scene: &Scene, rid: &Rid) -> Result<(), DriverError> {
        let path = self.place(scene, rid);
        let written = fs::create_dir_all(&self.0)
            .and_then(|()| fs::File::create(&path))
            .and_then(|file| file.sync_all())
            .and_then(|()| sync(&self.0));
        written.map_err(|error| failed("write", &path, &error))
    }

    /// Takes the mark away; there may be none.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self, scene: &Scene, rid: &Rid) -> Result<(), DriverError> {
        let path = self.place(scene, rid);
        match fs::remove_file(&path).and_then(|()| sync(&self.0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::failed(format!("{operation} {}: {error}", path.display()), None)
}
