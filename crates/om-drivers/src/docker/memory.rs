//! Owns files of containers that never touch a disk: secrets, configurations and certificates, kept on a memory
//! filesystem of the host below a directory that only root enters, and mounted from there. Does not own their bytes.
//!
//! Files below `/run` of a container come with their directory, so that a new one takes the old one's place at once;
//! others are mounted one by one, to leave the rest of their directories alone, and are written in place.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use om_core::driver::Secret;
use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};
use sha2::{Digest as _, Sha256};

/// `f_type` of filesystems in memory, see statfs(2).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
/// The most bytes of all files of one container.
const MAX_BYTES: usize = 16 << 20;
/// Room of the filesystem that is mounted where there is none in memory.
const OPTIONS: &std::ffi::CStr = c"mode=0700,size=256m";

/// Where the files are.
pub struct Memory(PathBuf);

/// A mount of a container: where it is on the host, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// On the host.
    pub source: PathBuf,
    /// In the container: a directory or a file.
    pub destination: String,
}

/// Who may read the files inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The user with this number and this group.
    User(u32, u32),
    /// All of the container: the image calls its user by a name, which only the image knows the number of.
    All,
}

impl Reader {
    /// The reader that `user[:group]` of a container means; nothing is root.
    pub fn of(user: &str) -> Self {
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| if text.is_empty() || text == "root" { Some(0) } else { text.parse().ok() };
        match (number(user), number(group)) {
            (Some(user), Some(group)) => Self::User(user, group),
            (Some(user), None) => Self::User(user, 0),
            (None, _) => Self::All,
        }
    }
}

impl Memory {
    /// Files below this directory, which becomes one in memory when it is needed.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The mounts that these files make, without making any.
    pub fn mounts<'a>(&self, container: &str, paths: impl Iterator<Item = &'a str>) -> Vec<Placed> {
        let mut all: Vec<Placed> = paths.map(|path| self.placed(container, path).0).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Writes the files of a container: path inside, bytes. What is as it should be is left alone.
    ///
    /// # Errors
    /// If they are too large, or cannot be written.
    pub fn write(&self, container: &str, files: &BTreeMap<String, Secret>, reader: Reader) -> io::Result<()> {
        if files.values().map(|bytes| bytes.0.len()).sum::<usize>() > MAX_BYTES {
            let what = format!("the files of one container are larger than {} MiB", MAX_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        if files.is_empty() {
            return Ok(());
        }
        self.make()?;
        for (path, bytes) in files {
            let (placed, file) = self.placed(container, path);
            let is_single = placed.source == file;
            let dir = file.parent().unwrap_or(&self.0);
            // The container enters it; the directory above is root's alone.
            DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            write_one(&file, &bytes.0, reader, is_single)?;
        }
        Ok(())
    }

    /// Forgets the files of a container.
    ///
    /// # Errors
    /// If they cannot be removed; there may be none.
    pub fn forget(&self, container: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.0.join(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What is mounted for a path, and the file that is the path.
    fn placed(&self, container: &str, path: &str) -> (Placed, PathBuf) {
        let (dir, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        let is_run = |root: &str| dir.strip_prefix(root).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        let with_directory = is_run("/run") || is_run("/var/run");
        let destination = if with_directory { dir } else { path };
        let sum = Sha256::digest(destination.as_bytes());
        let name: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let base = self.0.join(container).join(name);
        let file = base.join(leaf);
        let source = if with_directory { base } else { file.clone() };
        (Placed { source, destination: destination.to_owned() }, file)
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        if !is_in_memory(&self.0)? {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("om", &self.0, "tmpfs", flags, OPTIONS)?;
        }
        fs::set_permissions(&self.0, Permissions::from_mode(0o700))
    }
}

fn is_in_memory(dir: &Path) -> io::Result<bool> {
    // The field's type differs between architectures; the numbers have 32 bits.
    let kind = statfs(dir)?.f_type as u64 & 0xffff_ffff;
    Ok(kind == TMPFS || kind == RAMFS)
}

fn write_one(path: &Path, bytes: &[u8], reader: Reader, in_place: bool) -> io::Result<()> {
    let finish = |file: &File| {
        let (mode, owner) = match reader {
            Reader::User(user, group) => (0o400, (user, group)),
            Reader::All => (0o444, (0, 0)),
        };
        file.set_permissions(Permissions::from_mode(mode))?;
        fchown(file, Some(owner.0), Some(owner.1))
    };
    match fs::read(path) {
        Ok(old) if old == bytes => return finish(&File::open(path)?),
        Ok(_) | Err(_) if in_place => {
            // The mount holds the file itself: one that takes its name would not be seen.
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o400).open(path)?;
            file.write_all(bytes)?;
            return finish(&file);
        }
        _ => {}
    }
    let new = path.with_file_name(".new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&new)?;
    file.write_all(bytes)?;
    finish(&file)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_run_come_with_their_directory() {
        let memory = Memory::new("/memory".into());
        let check = |path: &str, destination: &str| {
            let placed = memory.mounts("c", [path].into_iter());
            assert_eq!(placed[0].destination, destination);
        };
        check("/run/tls/tls.crt", "/run/tls");
        check("/var/run/a/b", "/var/run/a");
        check("/run/secret", "/run/secret");
        check("/etc/app/config.yml", "/etc/app/config.yml");
        check("/running/x", "/running/x");
        let both = memory.mounts("c", ["/run/tls/tls.crt", "/run/tls/tls.key"].into_iter());
        assert_eq!(both.len(), 1);
    }

    #[test]
    fn readers_are_numbers_or_everybody_inside() {
        let check = |user: &str, expected: Reader| assert_eq!(Reader::of(user), expected, "{user}");
        check("", Reader::User(0, 0));
        check("root", Reader::User(0, 0));
        check("1000", Reader::User(1000, 0));
        check("1000:100", Reader::User(1000, 100));
        check("1000:www", Reader::User(1000, 0));
        check("www", Reader::All);
    }

    #[test]
    fn files_are_written_and_forgotten() {
        let dir = tempfile::Builder::new().prefix("om-memory-").tempdir_in("/dev/shm").unwrap();
        let memory = Memory::new(dir.path().join("files"));
        let check = |path: &str, text: &str| {
            let files = BTreeMap::from([(path.to_owned(), Secret(text.into()))]);
            memory.write("c", &files, Reader::All).unwrap();
            let (_, file) = memory.placed("c", path);
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            (
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap()),
            )
        };
        let (mode, first) = check("/etc/one", "a");
        assert_eq!(mode, 0o444);
        assert_eq!(check("/etc/one", "b").1, first, "a file that is mounted by itself stays the same file");
        let (_, first) = check("/run/a/b", "a");
        assert_ne!(check("/run/a/b", "b").1, first, "one in a directory is replaced at once");
        memory.forget("c").unwrap();
        memory.forget("c").unwrap();
        assert!(!dir.path().join("files/c").exists());
        let large = BTreeMap::from([("/a".to_owned(), Secret(vec![0; MAX_BYTES + 1]))]);
        assert!(memory.write("c", &large, Reader::All).is_err());
    }
}
