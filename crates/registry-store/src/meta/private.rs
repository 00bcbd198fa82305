//! Owns who may read the files of the metadata: their owner alone, as they hold password hashes and
//! private keys. SQLite gives the files that it makes beside the database the database's own mode.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

const OWNER_ONLY: u32 = 0o600;

/// Makes an empty file for a database, unless something is there.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes the database at `path` and the files beside it away from everybody but their owner. Older
/// servers made them for all to read. Where that is not allowed it says so, and the server goes on.
pub(super) fn tighten(path: &Path) {
    // Files are not opened here: closing one would let go of locks that this process has on it. A
    // link is followed, and the other files are beside what it points to.
    let Ok(path) = fs::canonicalize(path) else {
        return;
    };
    for file in ["", "-wal", "-shm"].map(|end| beside(&path, end)) {
        let Ok(found) = fs::metadata(&file) else {
            continue;
        };
        let mode = found.permissions().mode();
        if mode & 0o7777 & !OWNER_ONLY == 0 {
            continue;
        }
        let tightened = fs::set_permissions(&file, Permissions::from_mode(mode & OWNER_ONLY));
        let file = file.display();
        match tightened {
            Ok(()) => tracing::info!(%file, "only its owner may read the metadata from now on"),
            Err(error) => tracing::warn!(
                %file, %error, "others may read the metadata, which holds password hashes and private keys: \
                 give it to the user of the server, with mode 0600"
            ),
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
