//! Checks the rules of the house that no compiler knows: who may depend on whom, and that every
//! file says what it owns.
//!
//! The allowed arrows are read from ARCHITECTURE.md, so that the map and the check cannot differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Words that a pure crate must not use: they reach for the clock, the disk, the environment or a
/// runtime.
const IMPURE: [&str; 6] = ["std::fs", "std::env", "std::net", "Instant::now", "SystemTime::now", "tokio::"];

/// Runs every check; all problems are shown at once.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?.to_owned();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).context("read ARCHITECTURE.md")?;
    let allowed = allowed_arrows(&map)?;
    let mut problems = check_arrows(&allowed, &metadata(&root)?);
    for file in rust_files(&root)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let shown = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        problems.extend(check_file(&shown, &text));
    }
    problems.extend(check_links(&root)?);
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    ensure!(problems.is_empty(), "{} problems", problems.len());
    println!("tidy: the house is in order");
    Ok(())
}

/// The arrows in the fenced block `arrows` of the map: `from -> to to`, one crate a line. A crate
/// without arrows stands alone.
fn allowed_arrows(map: &str) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let block = map
        .split_once("```arrows\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .context("ARCHITECTURE.md has no ```arrows block")?
        .0;
    let mut arrows = BTreeMap::new();
    for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (from, to) = line.split_once("->").unwrap_or((line, ""));
        arrows.insert(from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect());
    }
    Ok(arrows)
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn check_arrows(allowed: &BTreeMap<String, BTreeSet<String>>, metadata: &Value) -> Vec<String> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let members: BTreeSet<String> = packages().map(&name).collect();
    let mut problems = Vec::new();
    for package in packages() {
        let from = name(package);
        let Some(arrows) = allowed.get(&from) else {
            problems.push(format!("crate `{from}` is not in the arrows of ARCHITECTURE.md: add it with a word why"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = name(dependency);
            let dev = dependency["kind"].as_str() == Some("dev");
            if to == "testkit" && !dev {
                problems.push(format!("`{from}` -> `testkit`: testkit is only ever a dev-dependency"));
            } else if members.contains(&to) && !arrows.contains(&to) && !(dev && to == "testkit") {
                problems.push(format!(
                    "`{from}` -> `{to}` is not an arrow of ARCHITECTURE.md: turn the dependency round, or argue for the arrow there"
                ));
            }
        }
    }
    problems.extend(
        allowed
            .keys()
            .filter(|name| !members.contains(*name))
            .map(|name| format!("ARCHITECTURE.md names a crate `{name}` that is gone")),
    );
    problems
}

fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut todo = vec![root.join("crates"), root.join("xtask"), root.join("fuzz")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(shown: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(format!("{shown}:1: say with `//!` what the file owns"));
    }
    if shown.ends_with("/mod.rs") {
        problems.push(format!("{shown}: use `name.rs` beside `name/`"));
    }
    let core = shown.split('/').nth(1).is_some_and(|name| name.ends_with("-core"));
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        for word in IMPURE.iter().filter(|word| core && code.contains(**word)) {
            problems.push(format!("{shown}:{}: `{word}` in a pure crate: pass the fact in", index + 1));
        }
        if code.trim_start().starts_with("#[ignore") {
            problems.push(format!("{shown}:{}: an ignored test: use a filter of nextest", index + 1));
        }
    }
    problems
}

/// Links between the documents of the repository lead somewhere.
fn check_links(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut documents: Vec<PathBuf> = Vec::new();
    for dir in [root.to_owned(), root.join("docs"), root.join("docs/adr")] {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        documents.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "md")),
        );
    }
    let mut problems = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document)?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or(target);
            let local = !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:");
            if local && !document.with_file_name(path).exists() {
                problems.push(format!("{}: the link to {target} leads nowhere", document.display()));
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{allowed_arrows, check_arrows, check_file};

    #[test]
    fn arrows() {
        let allowed = allowed_arrows("x\n```arrows\napp -> core\ncore\nkit\n```\n").unwrap();
        let package = |name: &str, to: &[(&str, Option<&str>)]| {
            let dependencies: Vec<_> = to.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
            json!({ "name": name, "dependencies": dependencies })
        };
        let check = |packages: &[serde_json::Value], want: usize| {
            let problems = check_arrows(&allowed, &json!({ "packages": packages }));
            assert_eq!(problems.len(), want, "{problems:?}");
        };
        let (core, kit) = (package("core", &[("serde", None)]), package("kit", &[]));
        check(&[package("app", &[("core", None)]), core.clone(), kit.clone()], 0);
        check(&[package("app", &[]), package("core", &[("app", None)]), kit.clone()], 1);
        check(&[package("app", &[("kit", Some("dev"))]), core.clone(), kit.clone()], 1);
        check(&[package("app", &[]), core.clone(), kit.clone(), package("new", &[])], 1);
        check(&[package("app", &[]), core], 1);
    }

    #[test]
    fn files() {
        assert!(check_file("crates/a/src/lib.rs", "//! A.\nuse std::fs;\n").is_empty());
        assert_eq!(check_file("crates/a-core/src/lib.rs", "//! A.\nuse std::fs; // std::env\n").len(), 1);
        assert_eq!(check_file("crates/a/src/mod.rs", "fn a() {}\n").len(), 2);
    }
}
