//! Owns manifests: what kind one is, what it refers to, and whether it is well formed. Keeps no
//! bytes and never re-serialises: a manifest is served exactly as it was pushed.
//!
//! Sources: OCI image spec, "Image Manifest" and "Image Index"; Docker's "Image Manifest V 2,
//! Schema 2"; CVE-2021-41190 for why an ambiguous document is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Media types of documents that this registry knows to be manifests.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// The artifact manifest of early OCI 1.1 candidates, still pushed by old tools.
    pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker schema 1, unsigned and signed.
    pub const SCHEMA_1: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
}

/// Which of the two shapes a manifest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refers to blobs: an image or an artifact.
    Image,
    /// Refers to other manifests.
    Index,
}

/// What a reference is to its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The configuration blob.
    Config,
    /// A layer or other content blob.
    Layer,
    /// A layer that lives elsewhere by its licence; it may be absent here.
    ForeignLayer,
    /// A manifest of an index.
    Child,
}

/// A platform of an index entry, as far as the index policy looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
}

/// One thing that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is to the manifest.
    pub role: Role,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, as the manifest claims it.
    pub size: u64,
    /// Its media type, as the manifest claims it.
    pub media_type: String,
    /// Where else it can be had.
    pub urls: Vec<String>,
    /// Its platform, for an index entry that names one.
    pub platform: Option<Platform>,
}

/// A checked manifest: the facts of it that the registry works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its shape.
    pub kind: Kind,
    /// Its media type, without parameters.
    pub media_type: String,
    /// What it refers to, in document order, `subject` left out.
    pub links: Vec<Link>,
    /// The manifest that this one is about, which need not exist.
    pub subject: Option<Digest>,
    /// `artifactType`, or the media type of an image's config; absent for a plain index.
    pub artifact_type: Option<String>,
    /// The annotations, by key.
    pub annotations: BTreeMap<String, String>,
}

/// Why a document is no manifest that this registry accepts. Texts name the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field of a wrong type.
    #[error("manifest is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    /// A Docker schema 1 manifest.
    #[error(
        "Docker image manifest schema 1 is no longer supported: push again with Docker 17.06 or later, or convert with skopeo"
    )]
    Schema1,
    /// `schemaVersion` is not 2.
    #[error("schemaVersion is {0}, expected 2")]
    SchemaVersion(i64),
    /// A media type that names no manifest.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// The header and the document disagree.
    #[error("Content-Type is {header:?}, but mediaType in the manifest is {document:?}")]
    Mismatch {
        /// The media type of the request.
        header: String,
        /// The media type in the document.
        document: String,
    },
    /// Fields of both an image and an index, which readers take for different things.
    #[error("manifest of type {media_type} must not have the field {field:?}")]
    Ambiguous {
        /// The media type that was taken.
        media_type: String,
        /// The field that does not belong.
        field: &'static str,
    },
    /// A field that must be there is not.
    #[error("manifest has no {0:?}")]
    Missing(&'static str),
    /// A descriptor is wrong.
    #[error("{place}: {problem}")]
    Descriptor {
        /// Where: `config`, `layers[2]`, `manifests[0]`, `subject`.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<i64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    platform: Option<Platform>,
}

impl Descriptor {
    fn digest(&self, place: &str) -> Result<Digest, ManifestError> {
        self.digest.parse().map_err(|error| ManifestError::Descriptor {
            place: place.into(),
            problem: format!("digest {:?}: {error}", self.digest.chars().take(160).collect::<String>()),
        })
    }

    fn link(self, role: Role, place: &str) -> Result<Link, ManifestError> {
        let digest = self.digest(place)?;
        let size = u64::try_from(self.size).map_err(|_| ManifestError::Descriptor {
            place: place.into(),
            problem: format!("size {} is negative", self.size),
        })?;
        let role = if role == Role::Layer && is_foreign(&self.media_type) { Role::ForeignLayer } else { role };
        let urls = self.urls.unwrap_or_default();
        Ok(Link { role, digest, size, media_type: self.media_type, urls, platform: self.platform })
    }
}

fn is_foreign(media_type: &str) -> bool {
    media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        media_type::OCI_MANIFEST | media_type::OCI_ARTIFACT | media_type::DOCKER_MANIFEST => Some(Kind::Image),
        media_type::OCI_INDEX | media_type::DOCKER_LIST => Some(Kind::Index),
        _ => None,
    }
}

/// Whether `media_type` is one of a manifest, so that an index entry of it must be a manifest too.
pub fn is_manifest(media_type: &str) -> bool {
    kind_of(media_type).is_some()
}

/// Reads a manifest. `content_type` is the request's header; parameters are ignored, and an
/// absent or generic one gives way to the document's own `mediaType`.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    let header = content_type
        .map(|value| value.split(';').next().unwrap_or(value).trim())
        .filter(|value| !matches!(*value, "" | "application/json" | "application/octet-stream"));
    if header.is_some_and(|header| media_type::SCHEMA_1.contains(&header)) {
        return Err(ManifestError::Schema1);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    match document.schema_version {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        None if document.fs_layers.is_some() => return Err(ManifestError::Schema1),
        // The artifact manifest of the OCI candidates has none.
        None if header == Some(media_type::OCI_ARTIFACT) => {}
        None => return Err(ManifestError::Missing("schemaVersion")),
        Some(other) => return Err(ManifestError::SchemaVersion(other)),
    }
    let own = document.media_type.as_deref().filter(|own| !own.is_empty());
    if let (Some(header), Some(own)) = (header, own)
        && header != own
    {
        return Err(ManifestError::Mismatch { header: clip(header), document: clip(own) });
    }
    let media_type = match header.or(own) {
        Some(named) => named.to_owned(),
        // Without any name the shape decides, as it does for the `registry` image.
        None if document.manifests.is_some() => media_type::OCI_INDEX.to_owned(),
        None => media_type::OCI_MANIFEST.to_owned(),
    };
    let Some(kind) = kind_of(&media_type) else {
        return Err(ManifestError::MediaType(clip(&media_type)));
    };
    build(document, kind, media_type)
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

fn build(document: Document, kind: Kind, media_type: String) -> Result<Manifest, ManifestError> {
    let ambiguous = |field| Err(ManifestError::Ambiguous { media_type: media_type.clone(), field });
    let mut links = Vec::new();
    let mut artifact_type = document.artifact_type.filter(|text| !text.is_empty());
    match kind {
        Kind::Index => {
            if document.layers.is_some() {
                return ambiguous("layers");
            }
            if document.config.is_some() {
                return ambiguous("config");
            }
            for (index, child) in document.manifests.unwrap_or_default().into_iter().enumerate() {
                links.push(child.link(Role::Child, &format!("manifests[{index}]"))?);
            }
        }
        Kind::Image => {
            if document.manifests.is_some() {
                return ambiguous("manifests");
            }
            if media_type == media_type::OCI_ARTIFACT {
                for (index, blob) in document.blobs.unwrap_or_default().into_iter().enumerate() {
                    links.push(blob.link(Role::Layer, &format!("blobs[{index}]"))?);
                }
            } else {
                let config = document.config.ok_or(ManifestError::Missing("config"))?;
                if artifact_type.is_none() && !config.media_type.is_empty() {
                    artifact_type = Some(config.media_type.clone());
                }
                links.push(config.link(Role::Config, "config")?);
                for (index, layer) in document.layers.unwrap_or_default().into_iter().enumerate() {
                    links.push(layer.link(Role::Layer, &format!("layers[{index}]"))?);
                }
            }
        }
    }
    let subject = document.subject.map(|subject| subject.digest("subject")).transpose()?;
    let annotations = document.annotations.unwrap_or_default();
    Ok(Manifest { kind, media_type, links, subject, artifact_type, annotations })
}

impl Manifest {
    /// The descriptor that a referrers list shows for this manifest, as JSON text.
    ///
    /// Source: OCI distribution spec, "Listing Referrers".
    pub fn referrer_descriptor(&self, digest: &Digest, size: u64) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(rename = "mediaType")]
            media_type: &'a str,
            size: u64,
            digest: String,
            #[serde(rename = "artifactType", skip_serializing_if = "Option::is_none")]
            artifact_type: Option<&'a str>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let shown = Shown {
            media_type: &self.media_type,
            size,
            digest: digest.to_string(),
            artifact_type: self.artifact_type.as_deref(),
            annotations: &self.annotations,
        };
        serde_json::to_string(&shown).expect("strings and numbers always serialise")
    }
}

/// Which entries of an index have to exist when it is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IndexPolicy {
    /// Every entry.
    #[default]
    All,
    /// None: sparse indexes are welcome.
    None,
    /// Entries of these platforms.
    Platforms(Vec<Platform>),
}

impl IndexPolicy {
    /// Whether the thing behind `link` has to exist in the repository.
    pub fn requires(&self, link: &Link) -> bool {
        match (link.role, self) {
            (Role::ForeignLayer, _) | (Role::Child, Self::None) => false,
            (Role::Config | Role::Layer, _) | (Role::Child, Self::All) => true,
            (Role::Child, Self::Platforms(platforms)) => link
                .platform
                .as_ref()
                .is_some_and(|have| platforms.iter().any(|p| p.architecture == have.architecture && p.os == have.os)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Role, media_type, parse};

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn check(content_type: Option<&str>, body: &str, want: &str) {
        let body = body.replace("$A", A);
        let seen = match parse(body.as_bytes(), content_type) {
            Ok(manifest) => format!(
                "{:?} {} {}",
                manifest.kind,
                manifest.links.len(),
                manifest.artifact_type.as_deref().unwrap_or("-")
            ),
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, want, "{content_type:?} {body}");
    }

    #[test]
    fn accepts() {
        let image = r#"{"schemaVersion":2,"config":{"mediaType":"c/t","digest":"$A","size":2},"layers":[]}"#;
        check(None, image, "Image 1 c/t");
        check(Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), image, "Image 1 c/t");
        check(
            Some(media_type::DOCKER_MANIFEST),
            r#"{"schemaVersion":2,"config":{"mediaType":"c/t","digest":"$A","size":2,"data":"e30="},
                "layers":[{"digest":"$A","size":3,"mediaType":"x"}],"unknown":[1,{}]}"#,
            "Image 2 c/t",
        );
        check(None, r#"{"schemaVersion":2,"manifests":[]}"#, "Index 0 -");
        check(
            Some(media_type::OCI_INDEX),
            r#"{"schemaVersion":2,"artifactType":"a/b","manifests":[{"digest":"$A","size":3}],
                "subject":{"digest":"$A","size":3,"mediaType":"x"}}"#,
            "Index 1 a/b",
        );
        check(Some(media_type::OCI_ARTIFACT), r#"{"artifactType":"a/b","blobs":[]}"#, "Image 0 a/b");
    }

    #[test]
    fn refuses() {
        let schema1 = "Docker image manifest schema 1 is no longer supported: push again with Docker 17.06 or later, or convert with skopeo";
        check(None, r#"{"schemaVersion":1,"fsLayers":[]}"#, schema1);
        check(Some(media_type::SCHEMA_1[1]), "{}", schema1);
        check(None, "{", "manifest is not valid JSON of its kind");
        check(None, "{}", "manifest has no \"schemaVersion\"");
        check(None, r#"{"schemaVersion":2}"#, "manifest has no \"config\"");
        check(None, r#"{"schemaVersion":3}"#, "schemaVersion is 3, expected 2");
        check(Some("text/html"), r#"{"schemaVersion":2}"#, "unsupported manifest media type \"text/html\"");
        check(
            Some(media_type::OCI_INDEX),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
            "Content-Type is \"application/vnd.oci.image.index.v1+json\", but mediaType in the manifest is \"application/vnd.oci.image.manifest.v1+json\"",
        );
        check(
            None,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            "manifest of type application/vnd.oci.image.index.v1+json must not have the field \"layers\"",
        );
        check(
            None,
            r#"{"schemaVersion":2,"config":{"digest":"sha256:0","size":1}}"#,
            "config: digest \"sha256:0\": invalid checksum digest format",
        );
        check(None, r#"{"schemaVersion":2,"config":{"digest":"$A","size":-1}}"#, "config: size -1 is negative");
    }

    #[test]
    fn foreign_layers_need_not_be_here() {
        let body = r#"{"schemaVersion":2,"config":{"digest":"$A","size":1},"layers":[
            {"digest":"$A","size":1,"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}]}"#
            .replace("$A", A);
        let manifest = parse(body.as_bytes(), None).unwrap();
        assert_eq!((manifest.kind, manifest.links[1].role), (Kind::Image, Role::ForeignLayer));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), header in ".{0,30}") {
            let _ = parse(&bytes, Some(&header));
        }
    }
}
