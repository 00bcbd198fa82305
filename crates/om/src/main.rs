//! `om`, also called as `svcmgr`, `nodemgr`, `svcmon` and their like: the command line and the node daemon.

use std::{collections::BTreeMap, process::ExitCode};

use om::{
    daemon::{app, drivers},
    places::Places,
};
use service::{
    shutdown::{Shutdown, signals},
    telemetry::{self, LogOptions},
};
use tokio::runtime::Builder;
use tracing::Level;

fn main() -> ExitCode {
    om::cli::main(run_daemon)
}

/// Runs the daemon in this process until it is told to stop.
fn run_daemon(places: Places) -> ExitCode {
    let options = LogOptions { level: Level::INFO, format: None, fields: BTreeMap::new() };
    let runtime = telemetry::init(&options).map_err(anyhow::Error::from).and_then(|_| {
        // Nearly all of its time the daemon waits.
        Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
    });
    let result = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let shutdown = Shutdown::new();
            tokio::spawn(signals(shutdown.clone(), || {}));
            app::run(places, shutdown, drivers::real, |_| tracing::info!("the daemon answers")).await?;
            anyhow::Ok(())
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("E the daemon did not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
