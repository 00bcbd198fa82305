//! Container images made by hand, since none can be downloaded: layers, OCI layouts, archives.
//!
//! Layers hold either Debian's static busybox, so that the image runs, or random bytes, so that
//! it has a size. All timestamps are fixed: the same content gives the same digests.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use ring::digest;
use serde_json::{Value, json};

use crate::random::Random;

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a gzip-compressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What the busybox image prints when it runs.
pub const GREETING: &str = "an image that came from the registry";

/// The digest of `bytes` as `sha256:<64 hex>`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&digest::SHA256, bytes))
}

/// The digest of `bytes` as `sha512:<128 hex>`.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&digest::SHA512, bytes))
}

fn hex(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> String {
    digest::digest(algorithm, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The architecture tests run on, in the words of the OCI image specification.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// One image for one architecture.
#[derive(Debug, Clone)]
pub struct Image {
    architecture: String,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    tar: Vec<u8>,
    gzip: Vec<u8>,
}

impl Image {
    /// An empty image; no engine runs it.
    pub fn empty(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), layers: Vec::new() }
    }

    /// An image for this machine that prints [`GREETING`] when it runs.
    pub fn busybox() -> Self {
        let program = fs::read("/bin/busybox").unwrap_or_else(|error| {
            panic!("read `/bin/busybox`: {error}\nhint: install `busybox-static`, as `make test` does")
        });
        Self::empty(host_architecture()).with_file("bin/busybox", 0o755, &program)
    }

    /// Adds a layer with one file.
    pub fn with_file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        let tar = tar(&[(path, mode, content)]);
        self.layers.push(Layer { gzip: gzip(&tar), tar });
        self
    }

    /// Adds a layer with `len` random bytes in the file `random/<layer number>`; returns the
    /// image and the digest of that file.
    pub fn with_random(self, random: &mut Random, len: usize) -> (Self, String) {
        let content = random.bytes(len);
        let path = format!("random/{}", self.layers.len());
        (self.with_file(&path, 0o644, &content), sha256(&content))
    }

    /// An archive for `docker load`, with the image under the name `reference`.
    pub fn docker_archive(&self, reference: &str) -> Vec<u8> {
        let config = self.config();
        let layers: Vec<_> = (0..self.layers.len()).map(|i| format!("{i}.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": layers}]);
        let manifest = manifest.to_string();
        let mut files = vec![("manifest.json", 0o644, manifest.as_bytes()), ("config.json", 0o644, config.as_slice())];
        for (name, layer) in layers.iter().zip(&self.layers) {
            files.push((name, 0o644, &layer.tar));
        }
        tar(&files)
    }

    /// The image config blob.
    pub fn config(&self) -> Vec<u8> {
        let ids: Vec<_> = self.layers.iter().map(|layer| sha256(&layer.tar)).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/busybox", "echo", GREETING]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        config.to_string().into_bytes()
    }

    /// The layer blobs, gzip-compressed, lowest first.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().map(|layer| layer.gzip.as_slice())
    }

    /// The OCI image manifest.
    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self.blobs().map(|blob| descriptor(OCI_LAYER, blob)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &self.config()),
            "layers": layers,
        });
        manifest.to_string().into_bytes()
    }
}

/// A descriptor of `content`: media type, digest and size.
pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

/// Writes `content` into the OCI layout at `dir` under the name `tag`: one image as a manifest,
/// several as an index over one manifest per architecture. Returns the digest of the top.
pub fn write_layout(dir: &Path, tag: &str, images: &[Image]) -> String {
    let mut manifests = Vec::new();
    for image in images {
        let manifest = image.manifest();
        let config = image.config();
        for blob in image.blobs().chain([config.as_slice(), manifest.as_slice()]) {
            write_blob(dir, blob);
        }
        let mut entry = descriptor(OCI_MANIFEST, &manifest);
        entry["platform"] = json!({"architecture": image.architecture, "os": "linux"});
        manifests.push(entry);
    }
    let mut top = match manifests.as_slice() {
        [single] => single.clone(),
        _ => {
            let index = index(&manifests);
            write_blob(dir, &index);
            descriptor(OCI_INDEX, &index)
        }
    };
    top["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    write(&dir.join("index.json"), &index(std::slice::from_ref(&top)));
    top["digest"].as_str().expect("a descriptor has a digest").to_owned()
}

fn index(manifests: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    index.to_string().into_bytes()
}

fn write_blob(dir: &Path, content: &[u8]) {
    write(&dir.join("blobs").join(sha256(content).replace(':', "/")), content);
}

fn write(path: &Path, content: &[u8]) {
    let written = fs::create_dir_all(path.parent().expect("below a layout")).and_then(|()| fs::write(path, content));
    written.unwrap_or_else(|error| panic!("write `{}`: {error}", path.display()));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes all writes");
    encoder.finish().expect("memory takes all writes")
}

/// Returns a POSIX `ustar` archive of `(path, mode, content)`; paths up to 100 bytes.
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, mode, content) in files {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The checksum counts its own field as blanks.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
