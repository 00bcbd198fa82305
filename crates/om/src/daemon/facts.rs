//! Owns the facts of this node as the kernel tells them: name, load, memory, what runs it. Reads only.

use std::{collections::BTreeMap, fs, path::Path};

use om_core::path::NodeName;

use crate::api::NodeStatus;

/// A host without a usable name.
#[derive(Debug, thiserror::Error)]
#[error("this machine's name `{name}` cannot name a node")]
pub struct BadName {
    /// What the kernel says.
    name: String,
    /// What is wrong with it.
    source: om_core::path::PathError,
}

/// The node's name: the machine's, in lower case.
///
/// # Errors
/// It is no host name.
pub fn node_name() -> Result<NodeName, BadName> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    name.parse().map_err(|source| BadName { name, source })
}

/// Load, memory and the score made of them.
pub fn status() -> NodeStatus {
    let load = read("/proc/loadavg");
    let load_15m = load.split_whitespace().nth(2).and_then(|text| text.parse().ok()).unwrap_or_default();
    let text = read("/proc/meminfo");
    let memory = memory(&text);
    let of = |name: &str| memory.get(name).copied().unwrap_or_default();
    let mut status = NodeStatus {
        alive: true,
        state: "idle".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        load_15m,
        mem_total: of("MemTotal"),
        mem_available: of("MemAvailable"),
        swap_total: of("SwapTotal"),
        swap_free: of("SwapFree"),
        ..NodeStatus::default()
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    status.score = score(&status, cpus);
    status
}

/// 100 for a node that has nothing to do: 60 points are free memory, 40 are idle processors.
fn score(status: &NodeStatus, cpus: usize) -> u32 {
    let free = if status.mem_total == 0 { 0.0 } else { status.mem_available as f64 / status.mem_total as f64 };
    let idle = 1.0 - (status.load_15m / cpus as f64).clamp(0.0, 1.0);
    // Between 0 and 100 by construction.
    free.clamp(0.0, 1.0).mul_add(60.0, idle * 40.0).round() as u32
}

/// Facts for people.
pub fn facts() -> BTreeMap<String, String> {
    let system = rustix::system::uname();
    let mut facts = BTreeMap::from([
        ("kernel".to_owned(), system.release().to_string_lossy().into_owned()),
        ("machine".to_owned(), system.machine().to_string_lossy().into_owned()),
        ("cpus".to_owned(), std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        ("boot".to_owned(), boot_id()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    if let Some(name) = pretty {
        facts.insert("os".into(), name.trim_matches('"').to_owned());
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    facts.insert("cgroup".into(), if unified { "v2" } else { "v1" }.into());
    facts
}

/// Another text after every boot.
pub fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id").trim().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Lines such as `MemTotal:  16 kB`, in bytes.
fn memory(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let number: u64 = value.split_whitespace().next()?.parse().ok()?;
            Some((name, number.saturating_mul(1024)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_facts() {
        let status = status();
        assert!(status.mem_total > 0 && status.score <= 100, "{status:?}");
        assert!(!boot_id().is_empty() && facts().contains_key("kernel"));
    }

    #[test]
    fn scores() {
        let check = |load: f64, available: u64, expected: u32| {
            let status =
                NodeStatus { load_15m: load, mem_total: 100, mem_available: available, ..NodeStatus::default() };
            assert_eq!(score(&status, 4), expected, "{load} {available}");
        };
        check(0.0, 100, 100);
        check(4.0, 100, 60);
        check(100.0, 0, 0);
        check(2.0, 50, 50);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory("MemTotal:  16 kB\nodd\nHuge: x\n"), BTreeMap::from([("MemTotal", 16384)]));
    }
}
