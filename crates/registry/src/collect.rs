//! The `garbage-collect` command of distribution: it says what nothing refers to, and has it
//! collected, by the server that runs or, without one, here.
//!
//! Does not own the collecting (`collector`): what is said is read from the metadata before.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use registry_core::{
    collect::{Facts, Plan, plan},
    gc::{Policy, Purge},
};
use registry_store::{
    blob::fs::FsBlobs,
    data_dir::DataDir,
    disk::Poison,
    maintenance::{facts, sweep_parts, unnamed},
    meta::sqlite::SqliteMetadata,
};

use crate::{
    cli::GarbageCollect,
    collector::{PROMISED, Wanted},
    config::settings::Collecting,
    configured, data_root,
    gc::{Told, alone, open, promised, served},
    operations::server,
    target::attach,
};

/// Collects, or says what it would collect.
pub(crate) fn collect(options: &GarbageCollect) -> Result<ExitCode> {
    let config = configured(&options.path)?;
    let root = data_root(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match server::find(root)? {
            Some(messenger) => {
                let within = Duration::from_secs(PROMISED.unsigned_abs());
                say(options, &attach(root)?, &peek(root), config.gc.orphans.min(within)).await?;
                if options.dry_run {
                    return Ok(ExitCode::SUCCESS);
                }
                let wanted = Wanted { now: true, untagged: options.delete_untagged };
                let (round, status) = served(&messenger, wanted, &mut Told::new(options.quiet)).await?;
                if !options.quiet {
                    promised(&round).into_iter().for_each(|line| println!("{line}"));
                    if let Some(until) = &status.held_until {
                        println!("the bytes stay until {until}: a backup or another command holds them");
                    }
                }
                check(round.error)
            }
            None => {
                let files = open(root)?;
                say(options, &files.metadata, &files.blobs, Duration::ZERO).await?;
                if options.dry_run {
                    return Ok(ExitCode::SUCCESS);
                }
                // Nobody pushes: no promise holds, and what is not asked for stays.
                let untagged = if options.delete_untagged { config.gc.policy.untagged } else { None };
                let settings = Collecting { policy: Policy { untagged, ..config.gc.policy }, ..config.gc };
                let wanted = Wanted { now: true, untagged: options.delete_untagged };
                let (round, _) = alone(files, settings, 0, wanted, &mut Told::new(options.quiet)).await?;
                check(round.error)
            }
        }
    })
}

fn check(error: Option<String>) -> Result<ExitCode> {
    match error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => bail!("the collection did not come to its end: {error}"),
    }
}

/// The files of a data directory that a server has, to be looked at.
fn peek(root: &Path) -> FsBlobs {
    FsBlobs::new(DataDir::peek(root), Poison::default())
}

/// Prints what nothing refers to; files that nothing names only if they have not changed for `age`.
async fn say(options: &GarbageCollect, metadata: &SqliteMetadata, blobs: &FsBlobs, age: Duration) -> Result<()> {
    if options.quiet {
        return Ok(());
    }
    let facts = facts(metadata)?;
    show(&facts, &plan(&facts, options.delete_untagged));
    for part in sweep_parts(metadata, blobs).await? {
        for (Purge { digest, .. }, _) in unnamed(metadata, blobs, &part, age).await?.0 {
            println!("blob eligible for deletion: {digest} (a file that nothing names)");
        }
    }
    Ok(())
}

fn show(facts: &Facts, plan: &Plan) {
    for (name, repository) in &facts.repositories {
        println!("{name}");
        for digest in repository.manifests.keys() {
            if plan.manifests.contains(&(name.clone(), *digest)) {
                println!("{name}: manifest eligible for deletion: {digest}");
            } else {
                println!("{name}: marking manifest {digest}");
            }
        }
    }
    println!(
        "\n{} blobs marked, {} blobs and {} manifests eligible for deletion",
        plan.marked.len(),
        plan.blobs.len(),
        plan.manifests.len()
    );
    for digest in &plan.blobs {
        println!("blob eligible for deletion: {digest}");
    }
}
