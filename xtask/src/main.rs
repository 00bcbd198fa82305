//! Chores of this workspace, one file for each: `cargo xtask <chore>`.
//!
//! Owns only the dispatch; what a chore does and which arguments it takes is in its own file.

mod bench;
mod bench_om;
mod soak;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measures our registry against Docker Registry 2.8 and nginx, side by side on this machine.
    Bench(bench::Options),
    /// Measures what pushes and pulls feel of the collection and of the scrub.
    BenchUpkeep(bench::upkeep::Options),
    /// Measures what a node of `om` costs, and how long its commands take.
    BenchOm(bench_om::Options),
    /// Runs clients against a server that collects and is killed, and checks all that it answers.
    Soak(soak::Options),
    /// Checks the rules of the house: allowed arrows, module docs, links between documents.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Bench(options) => bench::run(&options),
        Chore::BenchUpkeep(options) => bench::upkeep::run(&options),
        Chore::BenchOm(options) => bench_om::run(&options),
        Chore::Soak(options) => soak::run(&options),
        Chore::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
