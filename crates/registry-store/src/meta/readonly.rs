//! Opening a metadata database to look at it only: nothing of it is written, not even a file
//! beside it where that can be helped.

use std::{fmt::Write as _, fs, os::unix::ffi::OsStrExt as _, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{schema, sqlite::OpenError};

/// Opens a database that nobody writes meanwhile. Works on a read-only file system, unless a server
/// was killed and its log's index is gone.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_any_version(path)?;
    schema::check(&connection)?;
    Ok(connection)
}

/// Opens such a database, whichever server wrote it.
pub(crate) fn open_any_version(path: &Path) -> Result<Connection, OpenError> {
    // The log is beside the file itself, also where a link leads to that.
    let path = fs::canonicalize(path).map_err(OpenError::Directory)?;
    let beside = |end: &str| {
        let mut name = path.clone().into_os_string();
        name.push(end);
        fs::metadata(name)
    };
    let has_log = beside("-wal").is_ok_and(|log| log.len() > 0);
    // What a killed server left in its log counts. SQLite reads that without writing where the
    // index beside it is; else it has to make one.
    let how = match (has_log, beside("-shm").is_ok()) {
        (false, _) => "immutable=1",
        (true, true) => "mode=ro&readonly_shm=1",
        (true, false) => "mode=ro",
    };
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            other => write!(uri, "%{other:02X}").expect("a string takes everything"),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("{uri}?{how}"), flags)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Opens a database that a server may be writing.
pub(crate) fn beside_a_server(path: &Path) -> Result<Connection, OpenError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    schema::check(&connection)?;
    Ok(connection)
}
