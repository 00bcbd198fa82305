//! Owns files that an editor works on: in a memory file system, for root only, overwritten and removed at the end.
//! Does not own what is edited.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::Failed;

/// The file system's type that statfs(2) answers for tmpfs, and for ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Directories are called so, then the process's id.
const PREFIX: &str = "om-edit-";
/// The largest file that is read back, in bytes.
const MAX: u64 = 1 << 20;

/// A directory with one file in it. Everything in it is wiped when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    file: PathBuf,
}

impl Scratch {
    /// A file with these bytes, called `name` as far as that is a plain name.
    ///
    /// # Errors
    /// No directory is in memory, or it cannot be written.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self, Failed> {
        let places = ["/dev/shm", "/run", "/tmp"].map(Path::new);
        let Some(base) = places.into_iter().find(|base| is_memory(base)) else {
            return Err(Failed::new("no memory file system for the editor: neither /dev/shm nor /run is one")
                .hint("mount one: mount -t tmpfs -o mode=1777 tmpfs /dev/shm"));
        };
        sweep(base);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Failed::new(format!("take random bytes: {error}")))?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = base.join(format!("{PREFIX}{}-{random}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| Failed::io("make", &directory, &error))?;
        // From here on it is removed whatever happens.
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        let name = name.trim_start_matches(['.', '-']);
        let file = directory.join(if name.is_empty() { "value" } else { name });
        let made = Self { directory, file };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&made.file)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| Failed::io("write", &made.file, &error))?;
        Ok(made)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The directory, for what the editor keeps beside.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is in the file now.
    ///
    /// # Errors
    /// It is gone, or larger than a mebibyte.
    pub fn read(&self) -> Result<Vec<u8>, Failed> {
        let size = fs::metadata(&self.file).map_err(|error| Failed::io("read", &self.file, &error))?.len();
        if size > MAX {
            return Err(Failed::new(format!("the edited text has {size} bytes; {MAX} are allowed")));
        }
        fs::read(&self.file).map_err(|error| Failed::io("read", &self.file, &error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        wipe(&self.directory);
    }
}

fn is_memory(base: &Path) -> bool {
    // The field's type differs between architectures; its numbers do not.
    #[expect(clippy::cast_sign_loss, reason = "a magic number, not an amount")]
    let kind = |found: rustix::fs::StatFs| found.f_type as u64;
    rustix::fs::statfs(base).is_ok_and(|found| MEMORY.contains(&kind(found)))
}

/// Removes what editors of processes that were killed left.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            wipe(&entry.path());
        }
    }
}

fn wipe(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            // It is removed all the same.
            let _ = overwrite(&path);
        }
    }
    // What cannot be removed now is swept by the next edit.
    let _ = fs::remove_dir_all(directory);
}

fn overwrite(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let length = fs::metadata(path)?.len().min(16 * MAX);
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_left() {
        let scratch = Scratch::new("tls/config.json", b"secret").unwrap();
        assert_eq!(scratch.path().file_name().unwrap(), "tls_config.json");
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(scratch.directory()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(scratch.directory().join("backup~"), b"secret").unwrap();
        assert_eq!(scratch.read().unwrap(), b"secret");
        let directory = scratch.directory().to_owned();
        drop(scratch);
        assert!(!directory.exists());
    }
}
