//! The `garbage-collect` command: a collection while no server runs.

use std::process::ExitCode;

use anyhow::Context;
use registry_core::{
    adopt::Wish,
    collect::{Plan, plan},
    gc::{Collection, Policy},
    store::StoreError,
};
use registry_store::{
    adopt::stand,
    blob::fs::FsBlobs,
    claims::Claims,
    data_dir::DataDir,
    disk::Poison,
    maintenance::{facts, purge},
    meta::sqlite::SqliteMetadata,
};

use crate::{app::now, cli::GarbageCollect, configured, data_root};

/// Collects, or says what it would collect.
pub(crate) fn collect(options: &GarbageCollect) -> anyhow::Result<ExitCode> {
    let config = configured(&options.path)?;
    let dir = DataDir::open(data_root(&config)?).context("a server must not run meanwhile; stop it first")?;
    let poison = Poison::default();
    let metadata = SqliteMetadata::open_in(&dir, poison.clone())?;
    stand(&metadata, &dir, Wish::Work)?;
    let blobs = FsBlobs::new(dir, poison);
    let facts = facts(&metadata)?;
    let plan = plan(&facts, options.delete_untagged);
    if !options.quiet {
        show(&facts, &plan);
    }
    if !options.dry_run {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(carry_out(&metadata, &blobs, options.delete_untagged))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A whole collection that waits for nothing.
async fn carry_out(metadata: &SqliteMetadata, blobs: &FsBlobs, untagged: bool) -> Result<(), StoreError> {
    const BATCH: usize = 1000;
    let claims = Claims::default();
    let policy = Policy { grace: 0, lease: 0, quarantine: 0, untagged: untagged.then_some(0) };
    let now = now();
    metadata.review_all().await?;
    while metadata.review(now, policy, BATCH).await?.reviews > 0 {}
    while metadata.retire(now, policy, BATCH).await? > 0 {}
    while purge(metadata, blobs, &claims, now, BATCH).await? > 0 {}
    Ok(())
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
