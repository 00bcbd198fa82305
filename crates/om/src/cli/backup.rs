//! Owns `om cluster backup` and `restore`. Does not own what is in the store.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use om_cluster::{
    Store,
    sqlite::{self, SqliteKv},
};
use service::replace::replace;

use super::{Context, Failed, Outcome, ask, parse::Command, put};
use crate::daemon::app;

/// The file that a verb names.
fn file<'a>(command: &'a Command, example: &str) -> Result<&'a Path, Failed> {
    match &command.rest[..] {
        [file] => Ok(Path::new(file)),
        _ => Err(Failed::new("which file?").hint(format!("om cluster {} {example}", command.verb.words))),
    }
}

/// `om cluster backup FILE`.
pub async fn backup(context: &Context, command: &Command) -> Outcome {
    let to = file(command, "/backup/om.db")?;
    let bytes = context.client.backup().await?;
    replace(to, &bytes, 0o600).map_err(|error| Failed::io("write", to, &error))?;
    put(&format!(
        "{}: {} bytes\nthe key that opens its secrets is not in it: keep {} elsewhere\n",
        to.display(),
        bytes.len(),
        context.places.key().display()
    ))
}

/// `om cluster restore FILE`.
pub async fn restore(context: &Context, command: &Command) -> Outcome {
    let from = file(command, "/backup/om.db")?;
    let (places, store) = (&context.places, context.places.store());
    let lock = places.lock();
    if app::running(&lock).map_err(|error| Failed::io("read", &lock, &error))?.is_some() {
        return Err(Failed::new("the daemon runs, and has the state").hint("om daemon stop; services go on"));
    }
    let question = format!("put {} in the place of {}?", from.display(), store.display());
    if store.exists() && !command.has("force") && !ask(&question, false) {
        return Err(Failed::new("nothing was changed").hint("--force does not ask"));
    }
    let new = store.with_extension("db.new");
    let bytes = fs::read(from).map_err(|error| Failed::io("read", from, &error))?;
    replace(&new, &bytes, 0o600).map_err(|error| Failed::io("write", &new, &error))?;
    let checked = check(&new, &store, places.key().as_path()).await;
    for suffix in ["-wal", "-shm"] {
        // The journal of the check, which is empty.
        let _ = fs::remove_file(beside(&new, suffix));
    }
    if let Err(failed) = checked {
        let _ = fs::remove_file(&new);
        return Err(failed);
    }
    let old = put_in_place(&new, &store).map_err(|error| Failed::io("replace", &store, &error))?;
    let kept =
        if old { format!("; the former state is in {}", beside(&store, ".old").display()) } else { String::new() };
    put(&format!("{} counts from the next start of the daemon on{kept}\n", from.display()))
}

/// Whether a backup is one of this node's key, made ready to be used.
async fn check(new: &Path, store: &Path, key: &Path) -> Result<(), Failed> {
    let failed = |error: &dyn std::error::Error| {
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        Failed::new(format!("the backup cannot be used: {error}{cause}"))
    };
    sqlite::prepare(new, sqlite::generation_of(store)).map_err(|error| failed(&error))?;
    let kv = SqliteKv::open(new).map_err(|error| failed(&error))?;
    Store::open(std::sync::Arc::new(kv), key)
        .await
        .map(drop)
        .map_err(|error| failed(&error).hint(format!("its key belongs into {}", key.display())))
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts the new store in the place of the old one, which stays beside it. Cut anywhere, a whole one is in place.
fn put_in_place(new: &Path, store: &Path) -> io::Result<bool> {
    let (exists, old) = (store.exists(), beside(store, ".old"));
    // Closing it takes its journal into it. One that is damaged keeps what it has.
    if exists {
        drop(SqliteKv::open(store));
    }
    for suffix in ["", "-wal", "-shm"] {
        // As SQLite looks for the journal of the old one.
        let (from, to) = (beside(store, suffix), beside(&old, suffix));
        fs::remove_file(&to).or_else(absent)?;
        fs::hard_link(&from, &to).or_else(absent)?;
    }
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(store, suffix)).or_else(absent)?;
    }
    fs::rename(new, store)?;
    File::open(store.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(exists)
}

/// What is not there is none to keep or to remove.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
