//! Says what a run was made on, for whoever reads its figures later.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::server::Kind;

/// Names and values for the head of the report.
///
/// # Errors
/// If `data` lies on a file system in memory, where a sync costs nothing and figures would mislead.
pub(crate) fn describe(data: &Path, programs: &[(Kind, PathBuf)]) -> Result<Vec<(&'static str, String)>> {
    let file_system = file_system(data)?;
    ensure!(
        !file_system.starts_with("tmpfs") && !file_system.starts_with("ramfs"),
        "{} is on {file_system}, where syncing costs nothing; choose a real disk with --data",
        data.display()
    );
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let sha = if flags.contains(" sha_ni") { ", SHA instructions" } else { "" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let memory = line("/proc/meminfo");
    let kilobytes = memory.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    let mut facts = vec![
        ("CPU", format!("{}{sha}", model.trim_start_matches([' ', '\t', ':']))),
        ("cores", cores.to_string()),
        ("memory", format!("{:.0} GB", kilobytes * 1024.0 / 1e9)),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("file system", file_system),
        ("load average at start", line("/proc/loadavg")),
    ];
    for (kind, program) in programs {
        let flag = if *kind == Kind::Nginx { "-v" } else { "--version" };
        facts.push((kind.name(), version(program, flag)));
    }
    Ok(facts)
}

/// The type of the file system that holds `path`, with its mount options.
fn file_system(path: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(point, ..)| path.starts_with(point))
        .max_by_key(|(point, ..)| point.len())
        .with_context(|| format!("find the mount of {}", path.display()))?;
    Ok(format!("{} ({})", mount.1, mount.2))
}

fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return "unknown".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}
