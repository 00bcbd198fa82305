//! Owns the plan of an offline collection: which objects nothing refers to. Does not delete.

use std::collections::{BTreeMap, BTreeSet};

use crate::{digest::Digest, name::RepoName};

/// What a collection looks at. Taken while nobody writes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Per repository, what it holds.
    pub repositories: BTreeMap<RepoName, RepositoryFacts>,
    /// Every blob that there is.
    pub blobs: BTreeSet<Digest>,
}

/// What one repository holds.
#[derive(Clone, Debug, Default)]
pub struct RepositoryFacts {
    /// Its manifests.
    pub manifests: BTreeMap<Digest, ManifestFacts>,
    /// Its links to blobs that are no manifests.
    pub links: BTreeSet<Digest>,
}

/// What collection needs to know of a manifest.
#[derive(Clone, Debug, Default)]
pub struct ManifestFacts {
    /// Whether a tag names it.
    pub tagged: bool,
    /// The digests that it refers to, the subject left out.
    pub links: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Manifests that no tag reaches; empty unless untagged ones were asked for.
    pub manifests: BTreeSet<(RepoName, Digest)>,
    /// Links of repositories to blobs that none of their manifests refers to.
    pub links: BTreeSet<(RepoName, Digest)>,
    /// Blobs that nothing refers to.
    pub blobs: BTreeSet<Digest>,
    /// Blobs and manifests that stay.
    pub marked: BTreeSet<Digest>,
}

/// Decides what may go. With `untagged`, manifests go that no tag reaches, neither through an
/// index nor as a referrer of something that stays.
pub fn plan(facts: &Facts, untagged: bool) -> Plan {
    let mut plan = Plan::default();
    for (name, repository) in &facts.repositories {
        let kept = kept_manifests(repository, untagged);
        for digest in repository.manifests.keys().filter(|digest| !kept.contains(digest)) {
            plan.manifests.insert((name.clone(), *digest));
        }
        let mut marked: BTreeSet<Digest> = BTreeSet::new();
        for digest in kept {
            marked.insert(*digest);
            marked.extend(repository.manifests.get(digest).into_iter().flat_map(|manifest| &manifest.links));
        }
        for digest in repository.links.difference(&marked) {
            plan.links.insert((name.clone(), *digest));
        }
        plan.marked.extend(marked);
    }
    plan.blobs = facts.blobs.difference(&plan.marked).copied().collect();
    plan.marked.retain(|digest| facts.blobs.contains(digest));
    plan
}

fn kept_manifests(repository: &RepositoryFacts, untagged: bool) -> BTreeSet<&Digest> {
    let manifests = &repository.manifests;
    if !untagged {
        return manifests.keys().collect();
    }
    let mut kept = BTreeSet::new();
    let mut todo: Vec<&Digest> = manifests.iter().filter(|(_, m)| m.tagged).map(|(digest, _)| digest).collect();
    let mut referrers: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
    for (digest, manifest) in manifests {
        if let Some(subject) = &manifest.subject {
            referrers.entry(subject).or_default().push(digest);
        }
    }
    while let Some(digest) = todo.pop() {
        let Some((digest, manifest)) = manifests.get_key_value(digest) else {
            continue;
        };
        if kept.insert(digest) {
            todo.extend(&manifest.links);
            todo.extend(referrers.get(digest).into_iter().flatten());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{Facts, ManifestFacts, RepositoryFacts, plan};
    use crate::digest::{Algorithm, Digest};

    fn digest(name: u8) -> Digest {
        Digest::from_raw(Algorithm::Sha256, &[name; 32]).unwrap()
    }

    /// `manifests`: `*` marks a tagged one, then its name, links after `:`, subject after `^`.
    fn check(manifests: &str, links: &[u8], blobs: &[u8], untagged: bool, want_manifests: &[u8], want_blobs: &[u8]) {
        let mut repository =
            RepositoryFacts { links: links.iter().map(|b| digest(*b)).collect(), ..Default::default() };
        for text in manifests.split_whitespace() {
            let (text, tagged) = text.strip_prefix('*').map_or((text, false), |rest| (rest, true));
            let (text, subject) =
                text.split_once('^').map_or((text, None), |(t, s)| (t, Some(digest(s.as_bytes()[0]))));
            let (name, children) = text.split_once(':').unwrap_or((text, ""));
            let links = children.bytes().map(digest).collect();
            repository.manifests.insert(digest(name.as_bytes()[0]), ManifestFacts { tagged, links, subject });
        }
        let mut facts = Facts { blobs: blobs.iter().map(|b| digest(*b)).collect(), ..Default::default() };
        facts.repositories.insert("r".parse().unwrap(), repository);
        let plan = plan(&facts, untagged);
        let gone: Vec<Digest> = plan.manifests.iter().map(|(_, digest)| *digest).collect();
        assert_eq!(gone, want_manifests.iter().map(|b| digest(*b)).collect::<Vec<_>>(), "{manifests}: manifests");
        assert_eq!(
            plan.blobs.into_iter().collect::<Vec<_>>(),
            want_blobs.iter().map(|b| digest(*b)).collect::<Vec<_>>(),
            "{manifests}: blobs"
        );
    }

    #[test]
    fn plans() {
        check("*a:xy", b"xyz", b"axyz", false, b"", b"z");
        check("*a:x b:y", b"xy", b"abxy", false, b"", b"");
        check("*a:x b:y", b"xy", b"abxy", true, b"b", b"by");
        check("*i:ab a:x b:y c:z", b"xyz", b"iabcxyz", true, b"c", b"cz");
        check("*a:x s:y^a t:z^b", b"xyz", b"astxyz", true, b"t", b"tz");
        check("s:y^a", b"y", b"sy", false, b"", b"");
    }
}
