//! Trees and rows in a short notation. `a` to `f` are sha256 digests, `A` to `F` are sha512 ones.
//! A tree is made of `L:a` (a layer), `R:a` (a revision) and `T:name=a+b` (a tag that names `a` and
//! once named `b`); `L:a=text` has other content, `L:a?` no file, `L:a~` one that was not read
//! again.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding, Found, LinkFile, Mode, Next, Rows, Standing, State, TagFile, Tree, Wish, incomplete, next, schema_1,
    survey, tags,
};
use crate::{
    digest::Digest,
    manifest::{Link, Role},
};

fn digest(letter: &str) -> Digest {
    let wide = letter.chars().all(|c| c.is_ascii_uppercase());
    let algorithm = if wide { "sha512" } else { "sha256" };
    format!("{algorithm}:{}", letter.to_lowercase().repeat(if wide { 128 } else { 64 })).parse().unwrap()
}

fn is_letter(text: &str) -> bool {
    text.len() == 1 && "abcdefABCDEF".contains(text)
}

/// `a` stands for its digest in any text.
fn expand(text: &str) -> String {
    if is_letter(text) { digest(text).to_string() } else { text.to_owned() }
}

fn shrink(text: &str) -> String {
    "abcdefABCDEF".chars().fold(text.to_owned(), |text, letter| {
        let (letter, full) = (letter.to_string(), digest(&letter.to_string()).to_string());
        text.replace(&full, &letter).replace(&full.replacen(':', "/", 1), &letter)
    })
}

fn letters<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> String {
    digests.into_iter().map(|digest| shrink(&digest.to_string())).collect()
}

fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for token in text.split_whitespace() {
        let (kind, rest) = token.split_once(':').unwrap();
        let content = |text: &str| Found::Content(expand(text).into_bytes());
        let link = || match (rest.strip_suffix('?'), rest.strip_suffix('~'), rest.split_once('=')) {
            (Some(name), ..) => LinkFile { name: expand(name), found: Found::Absent },
            (_, Some(name), _) => LinkFile { name: expand(name), found: Found::Known },
            (.., Some((name, "EIO"))) => LinkFile { name: expand(name), found: Found::Unreadable("EIO".into()) },
            (.., Some((name, text))) => LinkFile { name: expand(name), found: content(text) },
            _ => LinkFile { name: expand(rest), found: content(rest) },
        };
        match kind {
            "L" => tree.layers.push(link()),
            "R" => tree.revisions.push(link()),
            _ => {
                let (name, named) = rest.split_once('=').unwrap();
                let mut named = named.split('+');
                let current = content(named.next().unwrap());
                let index = named.map(expand).collect();
                tree.tags.push(TagFile { name: name.into(), current, at: 7, index });
            }
        }
    }
    tree
}

fn rows(text: &str) -> Rows {
    let mut rows = Rows::default();
    for token in text.split_whitespace() {
        let (kind, rest) = token.split_once(':').unwrap();
        match kind {
            "L" => drop(rows.links.insert(digest(rest))),
            "R" => drop(rows.manifests.insert(digest(rest))),
            _ => {
                let (name, named) = rest.split_once('=').unwrap();
                rows.tags.insert(name.parse().unwrap(), digest(named));
            }
        }
    }
    rows
}

fn found(findings: &[Finding], words: &mut Vec<String>) {
    words.extend(findings.iter().map(|f| shrink(&format!("[{} {}]", f.path, f.reason))));
}

/// Every blob of `blobs` has ten bytes, but `f` has a hundred; manifests have fifty at most.
fn survey_of(text: &str, have: &str, blobs: &str, mode: Mode) -> super::Survey {
    let mut size = |digest: &Digest| {
        let letter = letters([digest]);
        blobs.contains(&letter).then_some(if letter == "f" { 100 } else { 10 })
    };
    survey(&tree(text), &rows(have), &mut size, 50, mode)
}

#[track_caller]
fn check_survey(mode: Mode, text: &str, have: &str, blobs: &str, want: &str) {
    let survey = survey_of(text, have, blobs, mode);
    let mut words = Vec::new();
    let named = |named: &super::Named| match (letters([&named.digest]), letters([&named.target])) {
        (digest, target) if digest == target => digest,
        (digest, target) => format!("{digest}>{target}"),
    };
    for (word, list) in [
        ("link", survey.link.iter().map(named).collect::<String>()),
        ("unlink", letters(&survey.unlink)),
        ("read", survey.read.iter().map(named).collect()),
        ("delete", letters(&survey.delete)),
        ("keep", letters(&survey.keep)),
    ] {
        if !list.is_empty() {
            words.push(format!("{word} {list}"));
        }
    }
    found(&survey.skipped, &mut words);
    assert_eq!(words.join(", "), want, "{text} | {have} | {blobs}");
}

#[test]
fn blobs_and_manifests_follow_the_tree() {
    let check = |text, have, blobs, want| check_survey(Mode::Mirror, text, have, blobs, want);
    check("", "", "", "");
    check("L:a L:b R:c", "", "abc", "link ab, read c");
    // Again: nothing to do, and nothing was read.
    check("L:a~ L:b~ R:c~", "L:a L:b R:c", "abc", "keep c");
    // The old server deleted something; its directory stays.
    check("L:a~ L:b? R:c?", "L:a L:b R:c", "abc", "unlink b, delete c");
    check("L:a~", "L:a L:b R:c", "abc", "unlink b, delete c");
    // What crashes, full disks and people leave.
    check(
        "L:a= L:b R:c=",
        "",
        "abc",
        "link b, [_layers/a/link the link is empty], [_manifests/revisions/c/link the link is empty]",
    );
    check("L:a=x", "", "a", r#"[_layers/a/link the link has no digest in it, but "x"]"#);
    check("L:a=EIO", "L:a", "a", "unlink a, [_layers/a/link cannot be read: EIO]");
    check("L:a=b", "", "ab", "[_layers/a/link the link names another blob, b]");
    check("L:a", "", "", "[_layers/a/link the link names a, whose bytes are missing]");
    check("L:a~ R:c~", "L:a R:c", "c", "unlink a, keep c, [_layers/a/link the link names a, whose bytes are missing]");
    check("R:c", "", "", "[_manifests/revisions/c/link the link names c, whose bytes are missing]");
    check("L:sha1:ab=a", "", "a", "[_layers/sha1/ab/link its directories name no blob: unsupported digest algorithm]");
    check(
        "L:sha256:ab=a",
        "",
        "a",
        "[_layers/sha256/ab/link its directories name no blob: invalid checksum digest format]",
    );
    check(
        "R:f",
        "",
        "f",
        "[_manifests/revisions/f/link the manifest has 100 bytes, more than the 50 that one may have]",
    );
    // Pushed as sha512, stored as sha256.
    check("L:A=a", "", "a", "link A>a");
    check("L:A=a", "", "A", "[_layers/A/link the link names a, whose bytes are missing]");
    check("R:A=a", "", "a", "read A>a");
    // Version 2.1.0: manifests among the layers.
    check("L:a L:b T:t=b", "", "ab", "link ab, read b");
    check("L:a L:b L:c T:t=b+c", "", "abc", "link abc, read bc");
    check("L:a~ L:b~ T:t=b", "L:a L:b R:b", "ab", "keep b");
    check("L:f T:t=f", "", "f", "link f");
    check("L:a T:t=b", "", "ab", "link a");
}

#[test]
fn a_merge_takes_nothing_away() {
    let check = |text, have, want| check_survey(Mode::Merge, text, have, "abc", want);
    check("L:a", "L:b R:c", "link a, keep c");
    check("L:a R:b", "L:a R:c", "read b, keep c");
    check("L:b?", "L:b", "");
}

#[test]
fn tags_follow_the_tree() {
    let check = |mode, text: &str, have: &str, manifests: &str, want: &str| {
        let manifests: BTreeSet<Digest> = manifests.split_whitespace().map(digest).collect();
        let tags = tags(&tree(text), &rows(have), &manifests, mode);
        let mut words: Vec<String> =
            tags.set.iter().map(|(tag, d, at)| format!("{tag}={}@{at}", letters([d]))).collect();
        words.extend(tags.delete.iter().map(|tag| format!("-{tag}")));
        found(&tags.skipped, &mut words);
        assert_eq!(words.join(" "), want, "{text} | {have}");
    };
    let mirror = |text, have, manifests, want| check(Mode::Mirror, text, have, manifests, want);
    mirror("T:t=a", "", "a", "t=a@7");
    mirror("T:t=a", "T:t=a", "a", "");
    mirror("T:t=a", "T:t=b", "a b", "t=a@7");
    mirror("", "T:t=b", "b", "-t");
    mirror(
        "T:t=a",
        "",
        "b",
        "[_manifests/tags/t/current/link the tag names a, which is no manifest of the repository]",
    );
    mirror("T:t=", "T:t=b", "b", "-t [_manifests/tags/t/current/link the link is empty]");
    let invalid = "[_manifests/tags/-t/current/link invalid tag: at most 128 characters of A-Z a-z 0-9 _ . - with no dot \
                   or dash at the start]";
    mirror("T:-t=a", "", "a", invalid);
    check(Mode::Merge, "T:t=a T:u=a", "T:t=b T:v=b", "a b", "u=a@7");
}

#[test]
fn what_an_image_lacks_is_said() {
    let check = |role, size, media_type: &str, have: Option<u64>, manifest, want: &[&str]| {
        let link =
            Link { role, digest: digest("a"), size, media_type: media_type.into(), urls: Vec::new(), platform: None };
        let reasons = incomplete(&[link], |_| have, |_| manifest);
        assert_eq!(reasons.iter().map(|text| shrink(text)).collect::<Vec<_>>(), want, "{role:?} {size} {have:?}");
    };
    check(Role::Layer, 3, "x", Some(3), false, &[]);
    check(Role::Layer, 3, "x", None, false, &["needs blob a, which is not there"]);
    check(Role::Config, 3, "x", Some(2), false, &["says that blob a has 3 bytes, but it has 2: it may be damaged"]);
    check(Role::Layer, 0, "", Some(2), false, &[]);
    check(Role::ForeignLayer, 3, "x", None, false, &[]);
    check(Role::Child, 3, "x", None, true, &[]);
    check(Role::Child, 3, "x", Some(3), false, &[]);
    check(Role::Child, 3, "x", None, false, &["lists manifest a, which is not there"]);
}

#[test]
fn schema_1_is_read() {
    let check = |text: &str, want: &str| {
        let seen = schema_1(expand_all(text).as_bytes()).map_or_else(
            || "no".into(),
            |m| format!("{} {}", m.media_type, letters(m.links.iter().map(|l| &l.digest))),
        );
        assert_eq!(seen, want, "{text}");
    };
    const V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    check(
        r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"$b"},{"blobSum":"$a"},{"blobSum":"$b"}]}"#,
        &format!("{V1} ab"),
    );
    let signed = V1.replace("+json", "+prettyjws a");
    check(r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"$a"}],"signatures":[{}]}"#, &signed);
    check(r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}"#, "no");
    check(r#"{"schemaVersion":2,"fsLayers":[]}"#, "no");
    check("\u{0}", "no");
}

fn expand_all(text: &str) -> String {
    let letters: BTreeMap<&str, String> = ["a", "b"].map(|letter| (letter, digest(letter).to_string())).into();
    letters.iter().fold(text.to_owned(), |text, (letter, full)| text.replace(&format!("${letter}"), full))
}

#[test]
fn whose_a_directory_is() {
    let check = |state: &str, have: &str, want: [&str; 4]| {
        let standing =
            Standing { state: State::from_text(state), rows: have.contains("rows"), links: have.contains("links") };
        assert_eq!(standing.state.is_some(), !state.is_empty(), "{state} is a state");
        let seen = [Wish::Adopt, Wish::Serve, Wish::Release, Wish::Work].map(|wish| match next(wish, standing) {
            Next::Adopt(mode, state) => format!("{mode:?} {}", state.as_str()),
            Next::Refuse(denial) => format!("no: {denial:?}"),
            other => format!("{other:?}"),
        });
        assert_eq!(seen, want, "{state} {have}");
    };
    //                         adopt                serve               release           work
    check("", "", ["no: NoLinks", "Go", "Go", "Go"]);
    check("", "rows", ["no: NoLinks", "Go", "Go", "Go"]);
    check("", "links", ["Mirror following", "Mirror own", "no: NotAdopted", "Go"]);
    check("", "rows links", ["Merge own", "GoWithout", "no: NotAdopted", "Go"]);
    check("following", "rows links", ["Mirror following", "Mirror own", "no: Following", "no: Following"]);
    check("own", "rows links", ["no: Own", "Go", "Go", "Go"]);
    check("released", "rows links", ["Mirror following", "no: Released", "Done", "no: Released"]);
}
