//! Owns the shape of request paths. Pure: a path goes in, a route or an error comes out.

use registry_core::{
    digest::Digest,
    name::RepoName,
    oci_error::Code,
    reference::{Reference, ReferenceError},
};

/// Where tokens are issued, below the prefix.
pub(crate) const TOKEN: &str = "/token";

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/`.
    Root,
    /// `/v2/`.
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/tags/list`.
    Tags(RepoName),
    /// `/v2/<name>/manifests/<reference>`.
    Manifest(RepoName, Reference),
    /// `/v2/<name>/blobs/<digest>`.
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/`.
    Uploads(RepoName),
    /// `/v2/<name>/blobs/uploads/<id>`.
    Upload(RepoName, UploadId),
    /// `/v2/<name>/referrers/<digest>`.
    Referrers(RepoName, Digest),
    /// `/token`: tokens of this registry.
    Token,
    /// `/.well-known/jwks.json`: the keys that sign them.
    Keys,
    /// `/healthz`: the process answers.
    Healthz,
    /// `/readyz`: it can do its work.
    Readyz,
    /// `/roadstead/v1/admin`: orders to access control.
    Admin,
}

/// The name of an upload: a UUID in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

impl UploadId {
    /// A name from 16 random bytes, in the form of a version 4 UUID.
    pub(crate) fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in random.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let good = |(index, byte): (usize, u8)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
        };
        (text.len() == 36 && text.bytes().enumerate().all(good)).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a path has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// Nothing is there.
    NotFound,
    /// A part of it is malformed: the code to answer, and what is wrong.
    Malformed(Code, String),
}

/// Finds the route of a path. `path` is decoded; `prefix` is the configured one without a slash
/// at its end.
pub(crate) fn parse(path: &str, prefix: &str) -> Result<Route, NoRoute> {
    match path {
        "/healthz" => return Ok(Route::Healthz),
        "/readyz" => return Ok(Route::Readyz),
        _ => {}
    }
    let path = path.strip_prefix(prefix).ok_or(NoRoute::NotFound)?;
    let rest = match path {
        "/" | "" => return Ok(Route::Root),
        "/v2" | "/v2/" => return Ok(Route::Base),
        "/v2/_catalog" => return Ok(Route::Catalog),
        TOKEN => return Ok(Route::Token),
        "/.well-known/jwks.json" => return Ok(Route::Keys),
        super::admin::PATH => return Ok(Route::Admin),
        _ => path.strip_prefix("/v2/").ok_or(NoRoute::NotFound)?,
    };
    // From the right, because a name may contain the words that separate it from the rest.
    let (head, last) = rest.rsplit_once('/').ok_or(NoRoute::NotFound)?;
    let (name, kind) = head.rsplit_once('/').ok_or(NoRoute::NotFound)?;
    let repository =
        |name: &str| name.parse::<RepoName>().map_err(|error| NoRoute::Malformed(Code::NameInvalid, error.to_string()));
    let digest =
        |text: &str| text.parse::<Digest>().map_err(|error| NoRoute::Malformed(Code::DigestInvalid, error.to_string()));
    match (kind, last) {
        ("uploads", id) if name.ends_with("/blobs") => {
            let name = repository(&name[..name.len() - "/blobs".len()])?;
            if id.is_empty() {
                return Ok(Route::Uploads(name));
            }
            let unknown = || NoRoute::Malformed(Code::BlobUploadUnknown, "an upload's name is a UUID".into());
            Ok(Route::Upload(name, UploadId::parse(id).ok_or_else(unknown)?))
        }
        ("blobs", "uploads") => Ok(Route::Uploads(repository(name)?)),
        ("blobs", text) => Ok(Route::Blob(repository(name)?, digest(text)?)),
        ("referrers", text) => Ok(Route::Referrers(repository(name)?, digest(text)?)),
        ("tags", "list") => Ok(Route::Tags(repository(name)?)),
        ("manifests", text) => {
            let name = repository(name)?;
            let reference = text.parse().map_err(|error| match error {
                ReferenceError::Digest(error) => NoRoute::Malformed(Code::DigestInvalid, error.to_string()),
                ReferenceError::Tag(error) => NoRoute::Malformed(Code::TagInvalid, error.to_string()),
            })?;
            Ok(Route::Manifest(name, reference))
        }
        _ => Err(NoRoute::NotFound),
    }
}

/// Decodes `%xx`; a malformed escape or text that is not UTF-8 is nothing.
pub(crate) fn decode(text: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            u8::try_from(high << 4 | low).expect("two hexadecimal digits fit a byte")
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok().map(Into::into)
}

/// Encodes text for use as the value of a query parameter.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// The parameters of a query, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows the question mark. Malformed pairs are left out, as Go does.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let value = |text: &str| decode(&text.replace('+', " ")).map(std::borrow::Cow::into_owned);
        let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .filter_map(|pair| {
                    let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((value(name)?, value(text)?))
                })
                .collect(),
        )
    }

    /// Every parameter with its value.
    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{NoRoute, Query, Route, UploadId, decode, encode, parse};

    const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn check(path: &str, want: &str) {
        let seen = match parse(&path.replace("$D", &format!("sha256:{HEX}")), "") {
            Ok(Route::Manifest(name, reference)) => format!("manifest {name} {reference}"),
            Ok(Route::Blob(name, _)) => format!("blob {name}"),
            Ok(Route::Uploads(name)) => format!("uploads {name}"),
            Ok(Route::Upload(name, _)) => format!("upload {name}"),
            Ok(Route::Tags(name)) => format!("tags {name}"),
            Ok(Route::Referrers(name, _)) => format!("referrers {name}"),
            Ok(other) => format!("{other:?}"),
            Err(NoRoute::NotFound) => "404".into(),
            Err(NoRoute::Malformed(code, _)) => code.as_str().into(),
        };
        assert_eq!(seen, want, "{path}");
    }

    #[test]
    fn routes() {
        check("/", "Root");
        check("/v2/", "Base");
        check("/v2/_catalog", "Catalog");
        check("/v2/a/b/tags/list", "tags a/b");
        check("/v2/a/manifests/latest", "manifest a latest");
        check("/v2/a/manifests/manifests/x", "manifest a/manifests x");
        check("/v2/a/blobs/$D", "blob a");
        check("/v2/a/blobs/uploads/", "uploads a");
        check("/v2/a/blobs/uploads", "uploads a");
        check("/v2/a/blobs/blobs/uploads/", "uploads a/blobs");
        check("/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000", "upload a");
        check("/v2/a/referrers/$D", "referrers a");
        check("/v2/a/blobs/uploads/nonsense", "BLOB_UPLOAD_UNKNOWN");
        check("/v2/A/tags/list", "NAME_INVALID");
        check("/v2/../a/tags/list", "NAME_INVALID");
        check("/v2/a//b/manifests/x", "NAME_INVALID");
        check("/v2/a/blobs/sha256:12", "DIGEST_INVALID");
        check("/v2/a/manifests/sha256:12", "DIGEST_INVALID");
        check("/v2/a/manifests/-x", "TAG_INVALID");
        check("/v2/a", "404");
        check("/v2/tags/list", "404");
        check("/v1/_ping", "404");
        check("/roadstead/v1/admin", "Admin");
        check("/roadstead/v1/admin/", "404");
        check("/v2/a/manifests", "404");
    }

    #[test]
    fn prefix_and_escapes() {
        assert_eq!(parse("/p/q/v2/", "/p/q"), Ok(Route::Base));
        assert_eq!(parse("/v2/", "/p/q"), Err(NoRoute::NotFound));
        assert_eq!(parse("/p/q/roadstead/v1/admin", "/p/q"), Ok(Route::Admin));
        assert_eq!(decode("a%3Ab").as_deref(), Some("a:b"));
        for bad in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(encode("a b&c=é/x:1"), "a%20b%26c%3D%C3%A9/x:1");
        let query = Query::parse(Some("n=5&last=a%2Fb&tag=1&tag=2&%zz=1&x"));
        assert_eq!(query.get("last"), Some("a/b"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.get("x"), Some(""));
    }

    #[test]
    fn upload_ids_are_uuids() {
        let id = UploadId::from_random([0xff; 16]);
        assert_eq!(id.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(UploadId::parse(id.as_str()), Some(id));
    }
}
