//! Owns what becomes of another server's repositories: from the link files of a tree, and from what
//! our rows hold, to what is to be added, removed, and reported. Pure: facts in, a plan out.
//!
//! The tree is that of CNCF distribution. It says what a repository holds with small files called
//! `link`, each with a digest in it: `_layers/<alg>/<hex>/link` for a blob,
//! `_manifests/revisions/<alg>/<hex>/link` for a manifest, `_manifests/tags/<tag>/current/link` for
//! a tag. A link that is empty or malformed, as a crash or a full disk leaves them, counts as
//! absent and is reported; nothing stops at it.
//!
//! Does not own files and rows, nor hashing: whoever reads a manifest has compared its digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    digest::Digest,
    manifest::{Kind, Link, Manifest, Role, media_type},
    reference::Tag,
};

/// Most bytes of a link file that are read: twice what the longest digest takes.
pub const LINK_MAX: usize = 512;

/// A link file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none: what it named was deleted, and the directory stayed.
    Absent,
    /// It is there. It was not read again, because the rows hold what it names.
    Known,
    /// Its content, at most [`LINK_MAX`] bytes of it.
    Content(Vec<u8>),
    /// It cannot be read, and why.
    Unreadable(String),
}

impl Found {
    /// What was read.
    pub fn content(&self) -> Option<&[u8]> {
        match self {
            Self::Content(content) => Some(content),
            Self::Absent | Self::Known | Self::Unreadable(_) => None,
        }
    }
}

/// The place of a link, with its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFile {
    /// The names of its directories as a digest, `<alg>:<hex>`; anything, if somebody made them by
    /// hand.
    pub name: String,
    /// The file.
    pub found: Found,
}

/// The directory of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFile {
    /// Its name; anything, if somebody made it by hand.
    pub name: String,
    /// Its `current/link`.
    pub current: Found,
    /// When that was written, in seconds since 1970.
    pub at: i64,
    /// The names below `index`: all that the tag ever named.
    pub index: Vec<String>,
}

/// A repository as the tree has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// What is below `_layers`.
    pub layers: Vec<LinkFile>,
    /// What is below `_manifests/revisions`.
    pub revisions: Vec<LinkFile>,
    /// What is below `_manifests/tags`.
    pub tags: Vec<TagFile>,
}

/// A repository as our rows have it: what a client could read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The blobs that it holds.
    pub links: BTreeSet<Digest>,
    /// Its manifests.
    pub manifests: BTreeSet<Digest>,
    /// Its tags.
    pub tags: BTreeMap<Tag, Digest>,
}

/// What the tree is to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The truth: what it does not have goes from the rows.
    Mirror,
    /// More of the same: nothing goes, and a tag that the rows have stays as it is.
    Merge,
}

/// A digest, and the one that the bytes are stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// What clients call it.
    pub digest: Digest,
    /// What the link says. Another one where a blob was pushed as sha512: distribution stores all
    /// bytes under their sha256.
    pub target: Digest,
    /// How many bytes.
    pub size: u64,
}

/// Something that is left out, or that is odd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where: a path below the repository, such as `_layers/sha256/<hex>/link`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What is to be done about blobs and manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Blobs that the repository gets.
    pub link: Vec<Named>,
    /// Blobs that it no longer holds.
    pub unlink: Vec<Digest>,
    /// Blobs to be read: each becomes a manifest of the repository, if it is one.
    pub read: Vec<Named>,
    /// Manifests that it no longer has.
    pub delete: Vec<Digest>,
    /// Manifests that it has and keeps.
    pub keep: BTreeSet<Digest>,
    /// What is left out.
    pub skipped: Vec<Finding>,
}

/// What is to be done about tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Tags that are made or moved: what they name, and since when, in seconds since 1970.
    pub set: Vec<(Tag, Digest, i64)>,
    /// Tags that go.
    pub delete: Vec<Tag>,
    /// What is left out.
    pub skipped: Vec<Finding>,
}

/// Why a link counts as absent; `None` for one that is.
type Absent = Option<String>;

/// The digest in a link file: exactly `<alg>:<hex>`, as distribution reads it.
fn target(found: &Found) -> Result<Digest, Absent> {
    match found {
        Found::Absent | Found::Known => Err(None),
        Found::Unreadable(why) => Err(Some(format!("cannot be read: {why}"))),
        Found::Content(content) if content.is_empty() => Err(Some("the link is empty".into())),
        Found::Content(content) => std::str::from_utf8(content)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Some(format!("the link has no digest in it, but {:?}", clip(content)))),
    }
}

fn clip(content: &[u8]) -> String {
    String::from_utf8_lossy(&content[..content.len().min(80)]).into_owned()
}

/// `<folder>/<alg>/<hex>/link` of a name.
fn path(folder: &str, name: &str) -> String {
    format!("{folder}/{}/link", name.replacen(':', "/", 1))
}

/// The places of links.
const LAYERS: &str = "_layers";
const REVISIONS: &str = "_manifests/revisions";

/// What the links of a folder name: those to add, and all that count as present.
struct Sorted {
    new: Vec<Named>,
    present: BTreeSet<Digest>,
}

fn sort(
    folder: &str,
    links: &[LinkFile],
    known: &BTreeSet<Digest>,
    size: &mut dyn FnMut(&Digest) -> Option<u64>,
    skipped: &mut Vec<Finding>,
) -> Sorted {
    let mut sorted = Sorted { new: Vec::new(), present: BTreeSet::new() };
    for link in links {
        let mut skip = |reason: String| skipped.push(Finding { path: path(folder, &link.name), reason });
        if link.found == Found::Absent {
            continue;
        }
        let digest: Digest = match link.name.parse() {
            Ok(digest) => digest,
            Err(error) => {
                skip(format!("its directories name no blob: {error}"));
                continue;
            }
        };
        let target = match (&link.found, target(&link.found)) {
            (Found::Known, _) => digest,
            (_, Ok(target)) => target,
            (_, Err(reason)) => {
                reason.into_iter().for_each(skip);
                continue;
            }
        };
        if target != digest && target.algorithm() == digest.algorithm() {
            skip(format!("the link names another blob, {target}"));
            continue;
        }
        let Some(size) = size(&target) else {
            skip(format!("the link names {target}, whose bytes are missing"));
            continue;
        };
        sorted.present.insert(digest);
        if !known.contains(&digest) {
            sorted.new.push(Named { digest, target, size });
        }
    }
    sorted
}

/// Compares the blobs and manifests of a repository. `size` tells how many bytes are stored under a
/// digest, if any; `limit` is the size of the largest manifest.
///
/// Distribution 2.1.0 put the links of manifests below `_layers`: what a tag names, or once named,
/// is looked for there as well.
pub fn survey(
    tree: &Tree,
    rows: &Rows,
    size: &mut dyn FnMut(&Digest) -> Option<u64>,
    limit: u64,
    mode: Mode,
) -> Survey {
    let mut survey = Survey::default();
    let layers = sort(LAYERS, &tree.layers, &rows.links, size, &mut survey.skipped);
    let mut revisions = sort(REVISIONS, &tree.revisions, &rows.manifests, size, &mut survey.skipped);
    revisions.new.retain(|named| {
        let fits = named.size <= limit;
        if !fits {
            let reason = format!("the manifest has {} bytes, more than the {limit} that one may have", named.size);
            survey.skipped.push(Finding { path: path(REVISIONS, &named.digest.to_string()), reason });
        }
        fits
    });
    let wanted = tree
        .tags
        .iter()
        .flat_map(|tag| target(&tag.current).into_iter().chain(tag.index.iter().filter_map(|name| name.parse().ok())));
    for digest in wanted.collect::<BTreeSet<Digest>>() {
        if !layers.present.contains(&digest) || !revisions.present.insert(digest) || rows.manifests.contains(&digest) {
            continue;
        }
        if let Some(size) = size(&digest).filter(|size| *size <= limit) {
            revisions.new.push(Named { digest, target: digest, size });
        }
    }
    if mode == Mode::Mirror {
        survey.unlink = rows.links.difference(&layers.present).copied().collect();
        survey.delete = rows.manifests.difference(&revisions.present).copied().collect();
    }
    survey.keep = rows.manifests.iter().filter(|digest| !survey.delete.contains(digest)).copied().collect();
    survey.link = layers.new;
    survey.read = revisions.new;
    survey
}

/// Compares the tags of a repository, whose manifests are `manifests` by now.
pub fn tags(tree: &Tree, rows: &Rows, manifests: &BTreeSet<Digest>, mode: Mode) -> Tags {
    let mut tags = Tags::default();
    let mut present = BTreeSet::new();
    for file in &tree.tags {
        let mut skip = |reason: String| {
            tags.skipped.push(Finding { path: format!("_manifests/tags/{}/current/link", file.name), reason });
        };
        let digest = match target(&file.current) {
            Ok(digest) => digest,
            Err(reason) => {
                reason.into_iter().for_each(skip);
                continue;
            }
        };
        let tag: Tag = match file.name.parse() {
            Ok(tag) => tag,
            Err(error) => {
                skip(format!("{error}"));
                continue;
            }
        };
        if !manifests.contains(&digest) {
            skip(format!("the tag names {digest}, which is no manifest of the repository"));
            continue;
        }
        match rows.tags.get(&tag) {
            Some(named) if *named == digest || mode == Mode::Merge => {}
            _ => tags.set.push((tag.clone(), digest, file.at)),
        }
        present.insert(tag);
    }
    if mode == Mode::Mirror {
        tags.delete = rows.tags.keys().filter(|tag| !present.contains(*tag)).cloned().collect();
    }
    tags
}

/// What a manifest refers to and cannot have: such an image does not pull completely, from the old
/// server either. `blob` tells the size of a blob that the repository holds, `manifest` whether it
/// has a manifest.
pub fn incomplete(
    links: &[Link],
    blob: impl Fn(&Digest) -> Option<u64>,
    manifest: impl Fn(&Digest) -> bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    for link in links {
        let digest = &link.digest;
        match (link.role, blob(digest)) {
            (Role::ForeignLayer, None) => {}
            (Role::Child, held) if manifest(digest) || held.is_some() => {}
            (Role::Child, _) => reasons.push(format!("lists manifest {digest}, which is not there")),
            (_, None) => reasons.push(format!("needs blob {digest}, which is not there")),
            (_, Some(size)) if size != link.size && !link.media_type.is_empty() => reasons
                .push(format!("says that blob {digest} has {} bytes, but it has {size}: it may be damaged", link.size)),
            (_, Some(_)) => {}
        }
    }
    reasons
}

/// Reads a Docker manifest of schema 1, which this registry no longer takes in pushes. What is
/// stored is served as it is, and its layers are kept.
pub fn schema_1(bytes: &[u8]) -> Option<Manifest> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "schemaVersion")]
        schema_version: i64,
        #[serde(rename = "fsLayers")]
        layers: Vec<Layer>,
        signatures: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Layer {
        #[serde(rename = "blobSum")]
        digest: String,
    }
    let document: Document = serde_json::from_slice(bytes).ok()?;
    if document.schema_version != 1 {
        return None;
    }
    let digests: BTreeSet<Digest> =
        document.layers.iter().map(|layer| layer.digest.parse().ok()).collect::<Option<_>>()?;
    let link = |digest| Link {
        role: Role::Layer,
        digest,
        size: 0,
        media_type: String::new(),
        urls: Vec::new(),
        platform: None,
    };
    let [plain, signed] = media_type::SCHEMA_1;
    Some(Manifest {
        kind: Kind::Image,
        media_type: if document.signatures.is_some() { signed } else { plain }.to_owned(),
        links: digests.into_iter().map(link).collect(),
        subject: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    })
}

/// Whom a data directory belongs to. Kept under the name [`STATE`]; there is none where nothing was
/// ever adopted or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Another server, whose link files our rows follow.
    Following,
    /// This one; link files are what they were when it took over.
    Own,
    /// Another server again: this one has written its rows into link files.
    Released,
}

/// The name that a [`State`] is kept under.
pub const STATE: &str = "adoption";

impl State {
    /// The stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Own => "own",
            Self::Released => "released",
        }
    }

    /// The state whose [`as_str`](Self::as_str) is `text`.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Following, Self::Own, Self::Released].into_iter().find(|state| state.as_str() == text)
    }
}

/// What somebody wants to do with a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Take over what another server has.
    Adopt,
    /// Serve it.
    Serve,
    /// Give it to another server.
    Release,
    /// Work on its rows and files without a server, as a collection does.
    Work,
}

/// What is known of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is.
    pub state: Option<State>,
    /// Whether our rows know a repository.
    pub rows: bool,
    /// Whether another server's links are there.
    pub links: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing has to be done before.
    Go,
    /// The same, but the links of another server are not served.
    GoWithout,
    /// The rows take over what the tree has, and the directory is in this state then.
    Adopt(Mode, State),
    /// It is done already.
    Done,
    /// It would lose or mix up something.
    Refuse(Denial),
}

/// Why a wish is refused. Texts say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is nothing to adopt.
    #[error(
        "there is no other registry's data: no docker/registry/v2/repositories; name the rootdirectory of its storage"
    )]
    NoLinks,
    /// It was adopted before.
    #[error(
        "it is this registry's own since it was served, and its link files are out of date: \
         to give it to the old registry, run `registry release` first"
    )]
    Own,
    /// It was released.
    #[error("it was released to another registry: run `registry adopt` to take it back")]
    Released,
    /// The other server may still be writing to it.
    #[error("it still is the other registry's, and followed: `registry serve` takes it over")]
    Following,
    /// There are links that were never adopted.
    #[error("it also holds another registry's repositories, which would be lost: run `registry adopt` first")]
    NotAdopted,
}

/// Decides what a wish takes.
pub fn next(wish: Wish, standing: Standing) -> Next {
    use State::{Following, Own, Released};
    match (wish, standing.state) {
        (Wish::Adopt, Some(Own)) => Next::Refuse(Denial::Own),
        (Wish::Adopt, _) if !standing.links => Next::Refuse(Denial::NoLinks),
        (Wish::Adopt, None) if standing.rows => Next::Adopt(Mode::Merge, Own),
        (Wish::Adopt, _) => Next::Adopt(Mode::Mirror, Following),
        (Wish::Serve, Some(Following)) => Next::Adopt(Mode::Mirror, Own),
        (Wish::Serve, None) if standing.links && standing.rows => Next::GoWithout,
        (Wish::Serve, None) if standing.links => Next::Adopt(Mode::Mirror, Own),
        (Wish::Serve | Wish::Work, Some(Released)) => Next::Refuse(Denial::Released),
        (Wish::Serve, _) | (Wish::Work, None | Some(Own)) => Next::Go,
        (Wish::Work | Wish::Release, Some(Following)) => Next::Refuse(Denial::Following),
        (Wish::Release, Some(Released)) => Next::Done,
        (Wish::Release, None) if standing.links => Next::Refuse(Denial::NotAdopted),
        (Wish::Release, None | Some(Own)) => Next::Go,
    }
}

#[cfg(test)]
mod tests;
