//! `om`, also called as `svcmgr`, `nodemgr`, `svcmon` and their like: the command line and the node daemon.

use std::process::ExitCode;

use om::places::Places;

fn main() -> ExitCode {
    om::cli::main(run_daemon)
}

fn run_daemon(places: Places) -> ExitCode {
    eprintln!("E this build has no daemon for {}", places.var.display());
    ExitCode::FAILURE
}
