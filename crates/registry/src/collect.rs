//! The `garbage-collect` command: a collection while no server runs.

use std::process::ExitCode;

use anyhow::Context;
use registry_core::collect::{Plan, plan};
use registry_store::{
    blob::fs::FsBlobs,
    data_dir::DataDir,
    disk::Poison,
    maintenance::{collect as carry_out, facts, orphans},
    meta::sqlite::SqliteMetadata,
};

use crate::{cli::GarbageCollect, configured, data_root};

/// Collects, or says what it would collect.
pub(crate) fn collect(options: &GarbageCollect) -> anyhow::Result<ExitCode> {
    let config = configured(&options.path)?;
    let dir = DataDir::open(data_root(&config)?).context("a server must not run meanwhile; stop it first")?;
    let poison = Poison::default();
    let metadata = SqliteMetadata::open_in(&dir, poison.clone())?;
    let blobs = FsBlobs::new(dir, poison);
    let facts = facts(&metadata)?;
    let plan = plan(&facts, options.delete_untagged);
    let orphans = orphans(&facts, &blobs)?;
    if !options.quiet {
        show(&facts, &plan);
        for digest in &orphans {
            println!("blob eligible for deletion: {digest} (a file that nothing names)");
        }
    }
    if !options.dry_run {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(carry_out(&metadata, &blobs, &plan, &orphans))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(facts: &registry_core::collect::Facts, plan: &Plan) {
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
