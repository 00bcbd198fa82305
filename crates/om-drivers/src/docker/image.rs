//! Owns reading names of images as Docker reads them: registry, repository, tag, digest. Does not own images.

use std::fmt;

/// The registry of images that are named without one.
pub const HUB: &str = "docker.io";

/// The name of an image, as the user wrote it, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    written: String,
    /// Where it is pulled from: `host[:port]`, in lower case.
    pub registry: String,
    /// As written, without tag and digest.
    pub repository: String,
    /// A tag, or `sha256:…`; the digest where there are both.
    pub version: String,
}

impl ImageName {
    /// Takes a name apart. The first part is a registry if it has a dot or a colon, or is `localhost`.
    pub fn parse(text: &str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash is that of a port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        let registry = match repository.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first.to_ascii_lowercase(),
            _ => HUB.to_owned(),
        };
        let registry = if registry == "index.docker.io" { HUB.to_owned() } else { registry };
        Self {
            written: text.to_owned(),
            registry,
            repository: repository.to_owned(),
            version: digest.or(tag).unwrap_or("latest").to_owned(),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_docker_does() {
        let check = |text: &str, registry: &str, repository: &str, version: &str| {
            let name = ImageName::parse(text);
            assert_eq!((&*name.registry, &*name.repository, &*name.version), (registry, repository, version), "{text}");
            assert_eq!(name.to_string(), text);
        };
        check("registry", HUB, "registry", "latest");
        check("registry:2", HUB, "registry", "2");
        check("google/pause", HUB, "google/pause", "latest");
        check("docker.io/library/registry", HUB, "docker.io/library/registry", "latest");
        check("index.docker.io/a/b:1", HUB, "index.docker.io/a/b", "1");
        check("localhost/a", "localhost", "localhost/a", "latest");
        check("localhost:5000/a", "localhost:5000", "localhost:5000/a", "latest");
        check("Reg.Example/a/b:v1", "reg.example", "Reg.Example/a/b", "v1");
        check("reg:5000/a:1@sha256:ab", "reg:5000", "reg:5000/a", "sha256:ab");
        check("a@sha256:ab", HUB, "a", "sha256:ab");
    }
}
