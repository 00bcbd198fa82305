//! The `check` command: whether a data directory is sound that nobody serves.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use registry_store::check::{CheckError, Kind, Options, Report, check as look};
use serde_json::{Map, Value, json};

use crate::{cli::Format, meter::Meter, serve::index_policy, size::Size, target::Target};

/// What it exits with when it cannot look.
const CANNOT_LOOK: u8 = 2;

/// How to look.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Read all bytes and compare their digests, instead of only their sizes
    #[arg(long)]
    read: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// Looks, and says what it found.
pub(crate) fn check(options: &Check) -> ExitCode {
    match found(options) {
        Ok(report) => {
            match options.format {
                Format::Table => show(&report),
                Format::Json => println!("{}", as_json(&report)),
            }
            if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("registry: error: {error:#}");
            ExitCode::from(CANNOT_LOOK)
        }
    }
}

fn found(options: &Check) -> anyhow::Result<Report> {
    let found = options.target.find()?;
    let index_policy =
        found.config.as_ref().map(|config| index_policy(&config.validation.index_platforms)).unwrap_or_default();
    let mut meter = Meter::new("checked");
    let seen = look(&found.root, &Options { read: options.read, index_policy }, &mut |done, all| meter.show(done, all));
    drop(meter);
    match seen {
        Err(error @ CheckError::Directory(registry_store::data_dir::DataDirError::Locked(_))) => {
            Err(error).context("a server must not run meanwhile: stop it, or use `registry scrub` beside it")
        }
        other => Ok(other?),
    }
}

fn show(report: &Report) {
    for problem in &report.problems {
        println!("{:<9} {}: {}", problem.kind.as_str(), problem.subject, problem.detail);
    }
    let listed = report.problems.len() as u64;
    let all: u64 = report.counts.values().sum();
    if all > listed {
        println!("and {} more", all - listed);
    }
    println!(
        "{} blobs with {}, {} manifests, {} tags in {} repositories",
        report.blobs,
        Size(report.bytes),
        report.manifests,
        report.tags,
        report.repositories
    );
    let counts: Vec<String> = report.counts.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
    match (report.is_sound(), counts.is_empty()) {
        (true, true) => println!("sound"),
        (true, false) => println!("sound; in the way: {}", counts.join(", ")),
        (false, _) => println!("not sound: {}", counts.join(", ")),
    }
}

fn as_json(report: &Report) -> Value {
    let kinds = [Kind::Missing, Kind::Damaged, Kind::Dangling, Kind::Orphan, Kind::Leftover, Kind::Metadata];
    let counts: Map<String, Value> = kinds
        .into_iter()
        .map(|kind| (kind.as_str().to_owned(), json!(report.counts.get(&kind).copied().unwrap_or(0))))
        .collect();
    let problem = |problem: &registry_store::check::Problem| json!({ "kind": problem.kind.as_str(), "subject": problem.subject, "detail": problem.detail });
    json!({
        "ok": report.is_sound(),
        "blobs": report.blobs,
        "bytes": report.bytes,
        "manifests": report.manifests,
        "tags": report.tags,
        "repositories": report.repositories,
        "counts": counts,
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}
