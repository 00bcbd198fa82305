//! Another registry's directories, made by hand: what is adopted of them, what is reported, and
//! what a release writes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use registry_core::{
    adopt::{Mode, State, Wish},
    digest::{Algorithm, Digest},
    gc::Collection,
    name::RepoName,
    reference::Reference,
    store::{Change, Content, Metadata, NewBlob, Place},
};
use registry_store::{
    adopt::{AdoptError, Changes, Progress, Released, Report, adopt, release, stand},
    blob::fs::FsBlobs,
    data_dir::DataDir,
    disk::Poison,
    hash::digest_of,
    meta::sqlite::{OpenError, SqliteMetadata},
};

/// More than any manifest here has.
const LIMIT: u64 = 4000;

fn sha256(bytes: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, bytes)
}

/// A data directory as distribution makes one.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join("docker/registry/v2").join(below)
    }

    fn write(&self, below: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn blob_path(digest: &Digest) -> String {
        let hex = digest.hex();
        format!("blobs/{}/{}/{hex}/data", digest.algorithm().as_str(), &hex[..2])
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        self.write(&Self::blob_path(&digest), bytes);
        digest
    }

    fn link_path(repository: &str, folder: &str, digest: &Digest) -> String {
        format!("repositories/{repository}/{folder}/{}/{}/link", digest.algorithm().as_str(), digest.hex())
    }

    fn link(&self, repository: &str, folder: &str, digest: &Digest) {
        self.write(&Self::link_path(repository, folder, digest), digest.to_string());
    }

    fn layer(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = self.blob(bytes);
        self.link(repository, "_layers", &digest);
        digest
    }

    fn manifest(&self, repository: &str, text: &str) -> Digest {
        let digest = self.blob(text.as_bytes());
        self.link(repository, "_manifests/revisions", &digest);
        digest
    }

    fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.write(&format!("repositories/{repository}/_manifests/tags/{tag}/current/link"), digest.to_string());
        self.link(repository, &format!("_manifests/tags/{tag}/index"), digest);
    }

    /// An image whose layer is `content`, under a tag.
    fn image(&self, repository: &str, tag: &str, content: &str) -> Digest {
        let text = image(&self.layer(repository, content.as_bytes()), content.len());
        let digest = self.manifest(repository, &text);
        self.tag(repository, tag, &digest);
        digest
    }

    /// The links of all repositories: path below it, content.
    fn links(&self) -> BTreeMap<String, String> {
        fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(path).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        let (root, mut found) = (self.path("repositories"), BTreeMap::new());
        walk(&root, &root, &mut found);
        found
    }

    fn open(&self) -> (DataDir, Arc<SqliteMetadata>) {
        let dir = DataDir::open(self.0.path()).unwrap();
        let metadata = SqliteMetadata::open_in(&dir, Poison::default()).unwrap();
        (dir, Arc::new(metadata))
    }

    async fn adopt_as(&self, mode: Mode, state: State) -> Report {
        let (dir, metadata) = self.open();
        adopt(&metadata, &dir, mode, state, LIMIT, &Arc::new(Progress::default())).await.unwrap()
    }

    async fn adopt(&self) -> Report {
        self.adopt_as(Mode::Mirror, State::Following).await
    }

    async fn release(&self) -> Released {
        let (dir, metadata) = self.open();
        let blobs = FsBlobs::new(dir, Poison::default());
        release(&metadata, &blobs, &Arc::new(Progress::default())).await.unwrap()
    }
}

fn image(layer: &Digest, size: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"c/t","digest":"{layer}","size":{size}}},"layers":[]}}"#
    )
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

/// What a client finds under the references, in short.
async fn seen(metadata: &SqliteMetadata, repository: &str, references: &[&str]) -> String {
    let mut seen = Vec::new();
    for reference in references {
        let parsed: Reference = reference.parse().unwrap();
        let entry = metadata.manifest(&name(repository), &parsed).await.unwrap();
        seen.push(entry.map_or("-".into(), |entry| entry.blob.digest.hex()[..6].to_owned()));
    }
    seen.join(" ")
}

fn short(digest: &Digest) -> String {
    digest.hex()[..6].to_owned()
}

fn changes(changes: Changes) -> [u64; 3] {
    [changes.blobs, changes.manifests, changes.tags]
}

fn reasons(report: &Report) -> Vec<String> {
    report
        .skipped
        .iter()
        .chain(&report.warnings)
        .map(|finding| format!("{}: {}", finding.path, finding.reason))
        .collect()
}

#[tokio::test]
async fn the_rows_follow_the_tree() {
    let tree = Tree::new();
    let first = tree.image("team/api", "1", "one");
    tree.image("team/api", "2", "two");
    tree.image("web", "1", "one");
    let (lonely, shared) = (tree.blob(b"nobody names this"), sha256(b"one"));
    let report = tree.adopt().await;
    assert_eq!(reasons(&report), [""; 0]);
    assert_eq!((changes(report.added), changes(report.removed), report.unnamed), ([3, 3, 3], [0; 3], 1));
    assert_eq!((report.totals.repositories, report.totals.blobs), (2, 5));

    // Nothing happened.
    let report = tree.adopt().await;
    assert_eq!((changes(report.added), changes(report.removed), report.unnamed), ([0; 3], [0; 3], 0));

    // The old server goes on: a tag moves, one is deleted with its manifest, a repository goes, a blob is collected.
    let moved = tree.image("team/api", "1", "three");
    fs::remove_dir_all(tree.path("repositories/web")).unwrap();
    fs::remove_dir_all(tree.path("repositories/team/api/_manifests/tags/2")).unwrap();
    let second = sha256(image(&sha256(b"two"), 3).as_bytes());
    fs::remove_file(tree.path(&Tree::link_path("team/api", "_manifests/revisions", &second))).unwrap();
    fs::remove_file(tree.path(&Tree::blob_path(&lonely))).unwrap();
    let report = tree.adopt().await;
    assert_eq!((changes(report.added), changes(report.removed)), ([1, 1, 1], [1, 2, 2]));
    let (_dir, metadata) = tree.open();
    assert_eq!(seen(&metadata, "team/api", &["1", "2"]).await, format!("{} -", short(&moved)));
    assert_eq!(seen(&metadata, "team/api", &[&first.to_string()]).await, short(&first), "by its digest it is there");
    assert_eq!(seen(&metadata, "web", &["1"]).await, "-");
    assert!(metadata.blob(&name("web"), &shared).await.unwrap().is_none());
    assert!(metadata.blob_anywhere(&lonely).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_broken_is_reported_and_skipped() {
    let check = async |prepare: fn(&Tree), want: &[&str]| {
        let tree = Tree::new();
        let good = tree.image("team/api", "good", "content");
        prepare(&tree);
        let report = tree.adopt().await;
        let (good, hex) = (short(&good), sha256(b"x").hex());
        let reasons: Vec<String> = reasons(&report).iter().map(|text| text.replace(&hex, "$x")).collect();
        assert_eq!(reasons, want);
        let (_dir, metadata) = tree.open();
        assert_eq!(seen(&metadata, "team/api", &["good", "bad"]).await, format!("{good} -"), "{want:?}");
    };
    let bad = "repositories/team/api/_manifests/tags/bad/current/link";
    let api = "repositories/team/api";
    check(
        |tree| tree.write("repositories/team/api/_manifests/tags/bad/current/link", ""),
        &[&format!("{bad}: the link is empty")],
    )
    .await;
    check(
        |tree| tree.write(&Tree::link_path("team/api", "_layers", &sha256(b"x")), ""),
        &[&format!("{api}/_layers/sha256/$x/link: the link is empty")],
    )
    .await;
    check(
        |tree| tree.tag("team/api", "bad", &sha256(b"x")),
        &[&format!("{bad}: the tag names sha256:$x, which is no manifest of the repository")],
    )
    .await;
    check(
        |tree| tree.link("team/api", "_manifests/revisions", &sha256(b"x")),
        &[&format!("{api}/_manifests/revisions/sha256/$x/link: the link names sha256:$x, whose bytes are missing")],
    )
    .await;
    // A manifest that is none, and one with other bytes than its name says.
    check(
        |tree| {
            tree.manifest("team/api", "x");
        },
        &[&format!(
            "{api}/manifest sha256:$x: manifest is not valid JSON of its kind: expected value at line 1 column 1"
        )],
    )
    .await;
    check(
        |tree| {
            tree.manifest("team/api", "x");
            tree.write(&Tree::blob_path(&sha256(b"x")), "{}");
        },
        &[&format!("{api}/manifest sha256:$x: its bytes are damaged: they have the digest {}", sha256(b"{}"))],
    )
    .await;
    check(
        |tree| tree.write(&Tree::blob_path(&sha256(b"x")), ""),
        &[&format!("blobs/sha256/{}/$x/data: the file is empty: the blob counts as missing", &sha256(b"x").hex()[..2])],
    )
    .await;
    check(
        |tree| {
            tree.manifest("team/api", &image(&sha256(b"x"), 1));
        },
        &[&format!(
            "{api}/manifest {}: needs blob sha256:$x, which is not there",
            sha256(image(&sha256(b"x"), 1).as_bytes())
        )],
    )
    .await;
    check(|tree| tree.write("repositories/Team/_layers/x", ""), &["repositories/Team: invalid repository name"]).await;
    check(
        |tree| std::os::unix::fs::symlink(tree.path("repositories/team"), tree.path("repositories/team/loop")).unwrap(),
        &["repositories/team/loop: a symbolic link, which is not followed"],
    )
    .await;
    // What crashes leave, and what is not ours to judge.
    check(
        |tree| {
            tree.write(&(Tree::link_path("team/api", "_layers", &sha256(b"x")) + ".8a1c.tmp"), "");
            tree.write(&(Tree::blob_path(&sha256(b"x")) + ".8a1c.tmp"), "");
            tree.write("repositories/team/api/_uploads/8a1c/data", "part");
            tree.write("repositories/team/api/_manifests/tags/bad/index/sha256/x", "");
            tree.write("repositories/never/finished/_uploads/8a1c/startedat", "");
        },
        &[],
    )
    .await;
}

#[tokio::test]
async fn odd_generations_are_understood() {
    let tree = Tree::new();
    // sha512: stored under the sha256, whose digest is in the link.
    let content = b"pushed as sha512";
    let (plain, wide) = (tree.layer("old", content), digest_of(Algorithm::Sha512, content));
    tree.write(&Tree::link_path("old", "_layers", &wide), plain.to_string());
    // 2.1.0: a manifest among the layers.
    let text = image(&plain, content.len());
    let manifest = tree.layer("old", text.as_bytes());
    tree.tag("old", "misplaced", &manifest);
    // Schema 1.
    let schema_1 = format!(r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{plain}"}}],"signatures":[]}}"#);
    let ancient = tree.manifest("old", &schema_1);
    tree.tag("old", "ancient", &ancient);
    for _ in 0..2 {
        let report = tree.adopt().await;
        assert_eq!(reasons(&report), [""; 0]);
        let (dir, metadata) = tree.open();
        let references = ["misplaced", "ancient"];
        let want = format!("{} {}", short(&manifest), short(&ancient));
        assert_eq!(seen(&metadata, "old", &references).await, want);
        let blob = metadata.blob(&name("old"), &wide).await.unwrap().unwrap();
        assert_eq!((blob.size, blob.content), (content.len() as u64, Content::Stored(Place::Canonical)));
        assert_eq!(fs::read(dir.blob_at(&wide, Place::Canonical)).unwrap(), content);
    }
}

#[tokio::test]
async fn a_directory_is_one_servers_at_a_time() {
    let tree = Tree::new();
    tree.image("team/api", "1", "one");
    let check = |wish, want: &str| {
        let (dir, metadata) = tree.open();
        let seen = match stand(&metadata, &dir, wish) {
            Ok(next) => format!("{next:?}"),
            Err(AdoptError::Denied { denial, .. }) => format!("no: {denial:?}"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(seen, want, "{wish:?}");
    };
    check(Wish::Serve, "Adopt(Mirror, Own)");
    tree.adopt().await;
    check(Wish::Adopt, "Adopt(Mirror, Following)");
    check(Wish::Release, "no: Following");
    // Lost metadata costs nothing as long as the tree is the truth.
    let lose = || fs::remove_file(tree.0.path().join("roadstead/meta.sqlite3")).unwrap();
    lose();
    check(Wish::Serve, "Adopt(Mirror, Own)");
    tree.adopt_as(Mode::Mirror, State::Own).await;
    check(Wish::Adopt, "no: Own");
    check(Wish::Serve, "Go");
    tree.release().await;
    check(Wish::Serve, "no: Released");
    check(Wish::Adopt, "Adopt(Mirror, Following)");
    tree.adopt_as(Mode::Mirror, State::Own).await;
    lose();
    let dir = DataDir::open(tree.0.path()).unwrap();
    let opened = SqliteMetadata::open_in(&dir, Poison::default()).map(drop);
    assert!(matches!(opened, Err(OpenError::Lost(_))), "stale links are not adopted: {opened:?}");
}

#[tokio::test]
async fn a_release_gives_back_what_is_served() {
    let tree = Tree::new();
    let kept = tree.image("team/api", "kept", "one");
    let moved = tree.image("team/api", "moved", "two");
    tree.image("gone", "1", "three");
    tree.write("repositories/team/api/_manifests/tags/broken/current/link", "");
    tree.write("repositories/team/api/_uploads/8a1c/data", "part");
    tree.adopt_as(Mode::Mirror, State::Own).await;

    // Served: a small blob arrives, one whose place was used before, manifests are deleted, a tag moves.
    let (small, again) = (b"small".as_slice(), b"collected once".as_slice());
    let numbered = Place::Unique(7);
    {
        let (dir, metadata) = tree.open();
        let put = async |bytes: &[u8], content| {
            let blob = NewBlob { digest: sha256(bytes), size: bytes.len() as u64, content };
            metadata.apply(Change::PutBlob(name("team/api"), blob), Vec::new()).await.unwrap();
        };
        put(small, Content::Inline(Bytes::from_static(b"small"))).await;
        let path = dir.blob_at(&sha256(again), numbered);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, again).unwrap();
        put(again, Content::Stored(numbered)).await;
        let manifest = sha256(image(&sha256(b"three"), 5).as_bytes());
        metadata.apply(Change::DeleteManifest(name("gone"), manifest), Vec::new()).await.unwrap();
        metadata.apply(Change::DeleteBlob(name("gone"), sha256(b"three")), Vec::new()).await.unwrap();
        metadata.apply(Change::DeleteTag(name("team/api"), "moved".parse().unwrap()), Vec::new()).await.unwrap();
    }
    for turn in 0..2 {
        let released = tree.release().await;
        assert_eq!((released.written > 0, released.removed > 0), (turn == 0, turn == 0), "turn {turn}");
        let want: BTreeMap<String, String> = [
            ("_layers", sha256(b"one")),
            ("_layers", sha256(b"two")),
            ("_layers", sha256(small)),
            ("_layers", sha256(again)),
            ("_manifests/revisions", kept),
            ("_manifests/revisions", moved),
            ("_manifests/tags/kept/index", kept),
        ]
        .into_iter()
        .map(|(folder, digest)| (Tree::link_path("team/api", folder, &digest), digest.to_string()))
        .chain([("repositories/team/api/_manifests/tags/kept/current/link".to_owned(), kept.to_string())])
        .chain([("repositories/team/api/_uploads/8a1c/data".to_owned(), "part".to_owned())])
        .map(|(path, text)| (path.strip_prefix("repositories/").unwrap().to_owned(), text))
        .collect();
        assert_eq!(tree.links(), want);
        for bytes in [small, again] {
            assert_eq!(fs::read(tree.path(&Tree::blob_path(&sha256(bytes)))).unwrap(), bytes);
        }
        let dir = DataDir::peek(tree.0.path());
        assert!(!dir.blob_at(&sha256(again), numbered).exists());
    }
    // Taken back: what was deleted here stays deleted, and its history is kept.
    let report = tree.adopt().await;
    assert_eq!((reasons(&report), changes(report.added), changes(report.removed)), (Vec::new(), [0; 3], [0; 3]));
    let (_dir, metadata) = tree.open();
    assert_eq!(seen(&metadata, "team/api", &["kept", "moved"]).await, format!("{} -", short(&kept)));
    let history = metadata.history(&name("team/api"), None, 10).await.unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(metadata.purges(10).await.unwrap(), []);
}

/// By hand with `ADOPT_IMAGES=10000`: a hundred thousand blobs and more, timed.
#[tokio::test]
async fn many_images_are_adopted_again_after_an_interruption() {
    let images: usize = std::env::var("ADOPT_IMAGES").map_or(40, |count| count.parse().unwrap());
    let tree = Tree::new();
    let mut layers = 0;
    for number in 0..images {
        let repository = format!("group{}/app{}", number % 7, number % 100);
        let mut links = Vec::new();
        for layer in 0..10 {
            let content = format!("layer {layer} of image {number}");
            links.push(format!(
                r#"{{"mediaType":"l","digest":"{}","size":{}}}"#,
                tree.layer(&repository, content.as_bytes()),
                content.len()
            ));
            layers += 1;
        }
        let config = links.pop().unwrap();
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, links.join(","));
        let digest = tree.manifest(&repository, &text);
        tree.tag(&repository, &format!("v{number}"), &digest);
    }
    {
        let (dir, metadata) = tree.open();
        let progress = Arc::new(Progress::default());
        let work = adopt(&metadata, &dir, Mode::Mirror, State::Own, LIMIT, &progress);
        let cut = tokio::time::timeout(std::time::Duration::from_millis(20), work).await;
        eprintln!("cut after 20 ms: {}", cut.is_err());
    }
    for turn in ["the first time", "again"] {
        let started = std::time::Instant::now();
        let report = tree.adopt_as(Mode::Mirror, State::Own).await;
        eprintln!("{} blobs {turn}: {:?}", report.totals.blobs, started.elapsed());
        assert_eq!(reasons(&report), [""; 0]);
        let totals = report.totals;
        assert_eq!(
            (totals.manifests, totals.tags, totals.blobs),
            (images as u64, images as u64, layers + images as u64)
        );
    }
    let started = std::time::Instant::now();
    let released = tree.release().await;
    eprintln!("released: {:?}", started.elapsed());
    assert_eq!((released.written, released.removed), (0, 0), "all of it was there");
}

#[tokio::test]
async fn what_was_pushed_here_before_is_kept() {
    let tree = Tree::new();
    let theirs = tree.image("theirs", "1", "one");
    tree.image("both", "1", "two");
    let (mine, layer) = {
        let (_dir, metadata) = tree.open();
        let layer = NewBlob { digest: sha256(b"x"), size: 1, content: Content::Inline(Bytes::from_static(b"x")) };
        let text = image(&sha256(b"x"), 1);
        let manifest = registry_core::store::NewManifest {
            blob: NewBlob {
                digest: sha256(text.as_bytes()),
                size: text.len() as u64,
                content: Content::Inline(Bytes::copy_from_slice(text.as_bytes())),
            },
            manifest: registry_core::manifest::parse(text.as_bytes(), None).unwrap(),
            tags: vec!["1".parse().unwrap()],
            index_policy: registry_core::manifest::IndexPolicy::All,
        };
        let digest = manifest.blob.digest;
        metadata.apply(Change::PutBlob(name("both"), layer), Vec::new()).await.unwrap();
        metadata.apply(Change::PutManifest(name("both"), Box::new(manifest)), Vec::new()).await.unwrap();
        (digest, sha256(b"x"))
    };
    tree.adopt_as(Mode::Merge, State::Own).await;
    let (_dir, metadata) = tree.open();
    assert_eq!(seen(&metadata, "both", &["1"]).await, short(&mine));
    assert_eq!(seen(&metadata, "theirs", &["1"]).await, short(&theirs));
    assert!(metadata.blob(&name("both"), &layer).await.unwrap().is_some());
}
