//! Runs every fuzz target over the inputs that are kept in `fuzz/corpus`, without a fuzzer: what was
//! found once never comes back.

#[expect(unreachable_pub, reason = "the same files are a library for the fuzz targets")]
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn kept_inputs_hold() {
    let mut broken = Vec::new();
    for (target, check) in fuzz::TARGETS {
        let dir = root().join("corpus").join(target);
        let inputs = names_in(&dir);
        assert!(!inputs.is_empty(), "{target} has no inputs");
        for input in inputs {
            let data = fs::read(dir.join(&input)).unwrap();
            if catch_unwind(AssertUnwindSafe(|| check(&data))).is_err() {
                broken.push(format!("fuzz/corpus/{target}/{input}"));
            }
        }
        check(b"");
    }
    assert!(broken.is_empty(), "broken by {broken:?}; the reasons are above");
}

#[test]
fn every_check_is_a_target_with_inputs() {
    let checks: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&root().join("corpus")), checks);
    let targets = names_in(&root().join("fuzz_targets"));
    assert_eq!(targets, checks.iter().map(|name| format!("{name}.rs")).collect());
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in checks {
        let text = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("roadstead_fuzz::{name}::check(")), "{name}.rs runs something else");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
    }
}
