//! The commands `backup` and `restore`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use registry_store::{
    backup::{BackupError, RestoreOptions, Summary, backup as take, restore as put_back},
    data_dir::DataDirError,
};
use serde_json::{Value, json};

use crate::{admin::plan::timestamp, cli::Format, meter::Meter, size::Size, target::Target};

/// What to back up where.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The directory of the backup: empty, missing, or an older backup, which becomes this one
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Keep blobs in the backup that the registry no longer has
    #[arg(long)]
    keep: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// What to restore where.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory of the backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The data directory to make, which is missing or empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// DIR may have blobs in it; those that are right are used
    #[arg(long)]
    into_existing: bool,
    /// DIR may have metadata; it is put aside under another name. Implies --into-existing
    #[arg(long)]
    replace_metadata: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Backs up. Exits with 1 where a blob could not be had.
pub(crate) fn backup(options: &Backup) -> Result<ExitCode> {
    let found = options.target.find()?;
    let mut meter = Meter::new("looked at or copied");
    let taken = take(&found.root, &options.dest, options.keep, &mut |at| meter.show(at.bytes.0, at.bytes.1));
    drop(meter);
    let summary = match taken {
        Err(error @ BackupError::Directory(DataDirError::Locked(_))) => {
            return Err(error).context("the backup is being served, checked or written by another command");
        }
        other => other.with_context(|| format!("back up {}", found.root.display()))?,
    };
    Ok(say(options.format, "backed up", &options.dest, &summary))
}

/// Restores. Exits with 1 where a blob could not be had.
pub(crate) fn restore(options: &Restore) -> Result<ExitCode> {
    let into_existing = options.into_existing || options.replace_metadata;
    let how = RestoreOptions { into_existing, replace_metadata: options.replace_metadata };
    let mut meter = Meter::new("looked at or copied");
    let done = put_back(&options.backup, &options.dir, how, &mut |at| meter.show(at.bytes.0, at.bytes.1));
    drop(meter);
    let summary = match done {
        Err(error @ BackupError::Directory(DataDirError::Locked(_))) => {
            return Err(error).context("nobody may use the backup or the directory meanwhile: stop the server first");
        }
        other => other.with_context(|| format!("restore {}", options.backup.display()))?,
    };
    Ok(say(options.format, "restored", &options.dir, &summary))
}

fn say(format: Format, verb: &str, to: &Path, summary: &Summary) -> ExitCode {
    let is_whole = summary.flawed_count == 0;
    match format {
        Format::Json => println!("{}", as_json(to, summary)),
        Format::Table => {
            for flawed in &summary.flawed {
                println!("{}: {} (in {})", flawed.digest, flawed.flaw, flawed.repositories.join(", "));
            }
            println!(
                "{verb} {} blobs with {} to {}: {} copied with {}, the others were there",
                summary.blobs - summary.flawed_count,
                Size(summary.bytes),
                to.display(),
                summary.copied,
                Size(summary.copied_bytes)
            );
            if summary.removed > 0 {
                println!("{} files removed that the registry no longer has", summary.removed);
            }
            if let Some(aside) = &summary.put_aside {
                println!("the metadata that was there is in {} now", aside.display());
            }
            if !is_whole {
                println!(
                    "incomplete: {} blobs could not be had; push them again, and repeat this",
                    summary.flawed_count
                );
            }
        }
    }
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_json(to: &Path, summary: &Summary) -> Value {
    let flawed: Vec<Value> = summary
        .flawed
        .iter()
        .map(|flawed| {
            json!({
                "digest": flawed.digest.to_string(),
                "flaw": flawed.flaw.to_string(),
                "repositories": flawed.repositories,
            })
        })
        .collect();
    json!({
        "ok": summary.flawed_count == 0,
        "directory": to.display().to_string(),
        "taken_at": (summary.taken_at > 0).then(|| timestamp(summary.taken_at)),
        "blobs": summary.blobs,
        "bytes": summary.bytes,
        "copied": summary.copied,
        "copied_bytes": summary.copied_bytes,
        "removed": summary.removed,
        "put_aside": summary.put_aside.as_ref().map(|path| path.display().to_string()),
        "flawed_count": summary.flawed_count,
        "flawed": flawed,
    })
}
