//! What holds for names: repositories, tags, references, principals, subjects, rights and globs.

use std::sync::LazyLock;

use regex_lite::Regex;
use registry_core::{
    account::{MAX_PRINCIPAL_NAME, PrincipalName},
    directory::SubjectName,
    name::{MAX_NAME, RepoName, sort_key},
    policy::{RepoGlob, Rights},
    reference::{Reference, Tag},
};

use super::text;

/// The grammar of the OCI distribution spec, as it stands there.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$").expect("it is one")
});
static TAG: LazyLock<Regex> = LazyLock::new(|| Regex::new("^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$").expect("it is one"));

/// Every line that is a name of some kind is the text of that name, and no other grammar's.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let lines: Vec<&str> = text.split('\n').take(4).collect();
    for line in &lines {
        one(line);
    }
    let names: Vec<RepoName> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let globs: Vec<RepoGlob> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    for (a, b) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
        assert_eq!(a.cmp(b), a.sort_key().cmp(&b.sort_key()), "{a} {b}");
    }
    for name in &names {
        assert!(RepoGlob::everything().holds(name));
        for glob in &globs {
            let parts: (Vec<&str>, Vec<&str>) =
                (glob.as_str().split('/').collect(), name.as_str().split('/').collect());
            assert_eq!(glob.holds(name), holds(&parts.0, &parts.1), "{glob} {name}");
            // A glob never leaks beyond another one that covers it.
            for wider in globs.iter().filter(|wider| wider.covers(glob)) {
                assert!(!glob.holds(name) || wider.holds(name), "{wider} covers {glob}, but does not hold {name}");
            }
        }
    }
}

fn one(line: &str) {
    let name = line.parse::<RepoName>();
    assert_eq!(name.is_ok(), line.len() <= MAX_NAME && NAME.is_match(line), "{line:?}");
    if let Ok(name) = name {
        assert_eq!(name.as_str(), line);
        assert_eq!(name.sort_key(), sort_key(line));
        let glob: RepoGlob = line.parse().expect("a name is a glob");
        assert!(glob.holds(&name) && glob.covers(&glob) && RepoGlob::everything().covers(&glob));
    }
    assert_eq!(line.parse::<Tag>().is_ok(), TAG.is_match(line), "{line:?}");
    same_text::<Tag>(line);
    same_text::<Reference>(line);
    same_text::<RepoGlob>(line);
    same_text::<SubjectName>(line);
    same_text::<PrincipalName>(line);
    if line.parse::<PrincipalName>().is_ok() {
        assert!(line.len() <= MAX_PRINCIPAL_NAME && !line.contains([':', '/', ' ', '\0']));
    }
    if let Ok(rights) = line.parse::<Rights>() {
        assert!(!rights.is_empty());
        assert_eq!(rights.to_string().parse(), Ok(rights));
    }
}

/// A text that is a `T` is shown as it was written.
fn same_text<T: std::str::FromStr + std::fmt::Display>(line: &str) {
    if let Ok(value) = line.parse::<T>() {
        assert_eq!(value.to_string(), line);
    }
}

/// What a glob means, from its definition.
fn holds(glob: &[&str], name: &[&str]) -> bool {
    match (glob, name) {
        ([], []) => true,
        (["**"], [_, ..]) => true,
        ([glob, globs @ ..], [name, names @ ..]) => stands_for(glob.as_bytes(), name.as_bytes()) && holds(globs, names),
        _ => false,
    }
}

/// Whether a component with stars stands for a name's, by a table over all pairs of prefixes.
fn stands_for(glob: &[u8], name: &[u8]) -> bool {
    let mut row: Vec<bool> = std::iter::once(true).chain(name.iter().map(|_| false)).collect();
    for c in glob {
        let above = std::mem::replace(&mut row, vec![false; name.len() + 1]);
        row[0] = *c == b'*' && above[0];
        for at in 0..name.len() {
            row[at + 1] = if *c == b'*' { above[at + 1] || row[at] } else { above[at] && *c == name[at] };
        }
    }
    row[name.len()]
}
