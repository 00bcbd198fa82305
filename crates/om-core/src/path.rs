//! Owns the names of objects: namespaces, kinds, names, nodes, resource ids, and how they are written.
//! Does not own selectors, which match many of them.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest name or namespace, in bytes: a DNS label (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, or with an empty part.
    #[error("`{0}` has an empty part (hint: write NAME, NAMESPACE/NAME or NAMESPACE/KIND/NAME)")]
    Empty(String),
    /// Outside the grammar.
    #[error(
        "`{0}` is no name (hint: lower-case letters, digits and hyphens, a letter first, a letter or digit last, at \
         most {MAX_LABEL} characters)"
    )]
    Grammar(String),
    /// A word that means something else.
    #[error("`{0}` is a reserved word and cannot be a name")]
    Reserved(String),
    /// Not a kind.
    #[error("`{0}` is no kind of object (hint: svc, vol, cfg, sec or usr)")]
    Kind(String),
    /// More than three parts.
    #[error("`{0}` has too many parts (hint: NAMESPACE/KIND/NAME)")]
    TooMany(String),
    /// Not a resource id.
    #[error("`{0}` is no resource id (hint: GROUP#INDEX, such as container#1)")]
    Rid(String),
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = PathError;

            fn from_str(text: &str) -> Result<Self, PathError> {
                let check: fn(&str) -> Result<(), PathError> = $check;
                check(text).map(|()| Self(text.into()))
            }
        }
    };
}

label!(
    /// A namespace: one DNS label. [`Namespace::root`] is the one of objects written without any.
    Namespace,
    |text| is_label(text).then_some(()).ok_or_else(|| PathError::Grammar(text.into())).and_then(|()| unreserved(text))
);
label!(
    /// The name of an object inside its namespace: DNS labels joined by single dots, [`MAX_LABEL`] bytes at most.
    Name,
    |text| {
        let valid = text.len() <= MAX_LABEL && text.split('.').all(is_label_or_number);
        valid.then_some(()).ok_or_else(|| PathError::Grammar(text.into())).and_then(|()| unreserved(text))
    }
);
label!(
    /// The name of a node: a host name in lower case (RFC 1123 §2.1), 253 bytes at most.
    NodeName,
    |text| {
        let valid = text.len() <= 253
            && text.split('.').all(|part| {
                !part.is_empty()
                    && part.len() <= MAX_LABEL
                    && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            });
        valid.then_some(()).ok_or_else(|| PathError::Grammar(text.into()))
    }
);

fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// A part of a name: a label, or the number of a scaler's slice.
fn is_label_or_number(text: &str) -> bool {
    is_label(text) || (!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()))
}

fn unreserved(text: &str) -> Result<(), PathError> {
    if text == "node" || text == "auth" || text.parse::<Kind>().is_ok() {
        return Err(PathError::Reserved(text.into()));
    }
    Ok(())
}

impl Namespace {
    /// The namespace of objects that are written without one.
    pub fn root() -> Self {
        Self("root".into())
    }

    /// Whether it is the one that is left out in writing.
    pub fn is_root(&self) -> bool {
        &*self.0 == "root"
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A service.
    Svc,
    /// A volume.
    Vol,
    /// Clear keys and values.
    Cfg,
    /// Sealed keys and values.
    Sec,
    /// A user.
    Usr,
    /// The configuration of the cluster; there is one.
    Ccfg,
    /// The configuration of a namespace.
    Nscfg,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [Self::Svc, Self::Vol, Self::Cfg, Self::Sec, Self::Usr, Self::Ccfg, Self::Nscfg];

    /// The word in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Svc => "svc",
            Self::Vol => "vol",
            Self::Cfg => "cfg",
            Self::Sec => "sec",
            Self::Usr => "usr",
            Self::Ccfg => "ccfg",
            Self::Nscfg => "nscfg",
        }
    }

    /// Whether objects of this kind hold keys in a `[data]` section.
    pub fn is_key_store(self) -> bool {
        matches!(self, Self::Cfg | Self::Sec | Self::Usr)
    }

    /// Whether objects of this kind have resources that are started and stopped.
    pub fn has_resources(self) -> bool {
        matches!(self, Self::Svc | Self::Vol)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| PathError::Kind(text.into()))
    }
}

/// The full name of an object: namespace, kind, name.
///
/// Written `ns/kind/name`; `kind/name` is in the root namespace where the first part is a kind; `ns/name` is the
/// service of a namespace otherwise; `name` alone is a service of the root namespace. `ns/` is the configuration of a
/// namespace and `cluster` that of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectPath {
    /// Where it belongs.
    pub namespace: Namespace,
    /// What it is.
    pub kind: Kind,
    /// Its name there.
    pub name: Name,
}

impl ObjectPath {
    /// The configuration of the cluster.
    pub fn cluster() -> Self {
        Self { namespace: Namespace::root(), kind: Kind::Ccfg, name: Name("cluster".into()) }
    }

    /// The configuration of a namespace.
    pub fn namespace(namespace: Namespace) -> Self {
        Self { namespace, kind: Kind::Nscfg, name: Name("namespace".into()) }
    }

    /// A path as it is written where a name without a kind means `kind`, and one without a namespace `namespace`.
    ///
    /// # Errors
    /// If it is outside the grammar; the error names the part and how to write it.
    pub fn parse_in(text: &str, namespace: &Namespace, kind: Kind) -> Result<Self, PathError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["cluster"] => Ok(Self::cluster()),
            ["", ""] => Ok(Self::namespace(Namespace::root())),
            [ns, ""] if !ns.is_empty() => Ok(Self::namespace(ns.parse()?)),
            [_, "", _] | ["", ..] | [.., ""] => Err(PathError::Empty(text.into())),
            [name] => Ok(Self { namespace: namespace.clone(), kind, name: name.parse()? }),
            [first, name] => match first.parse() {
                Ok(kind) => Ok(Self { namespace: namespace.clone(), kind, name: name.parse()? }),
                Err(_) => Ok(Self { namespace: first.parse()?, kind, name: name.parse()? }),
            },
            ["root", "ccfg", "cluster"] => Ok(Self::cluster()),
            [ns, "nscfg", "namespace"] => Ok(Self::namespace(ns.parse()?)),
            [ns, kind, name] => Ok(Self { namespace: ns.parse()?, kind: kind.parse()?, name: name.parse()? }),
            _ => Err(PathError::TooMany(text.into())),
        }
    }

    /// `ns/kind/name`, always with all three parts.
    pub fn fqn(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

/// The short way of writing: no `root/`, and no `svc/` in the root namespace.
impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.namespace.is_root()) {
            (Kind::Ccfg, _) => f.pad("cluster"),
            (Kind::Nscfg, _) => f.pad(&format!("{}/", self.namespace)),
            (Kind::Svc, true) => f.pad(self.name.as_str()),
            (kind, true) => f.pad(&format!("{kind}/{}", self.name)),
            _ => f.pad(&self.fqn()),
        }
    }
}

impl FromStr for ObjectPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse_in(text, &Namespace::root(), Kind::Svc)
    }
}

/// The id of a resource in its object: `group#index`, such as `container#1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rid {
    group: Arc<str>,
    index: Arc<str>,
}

impl Rid {
    /// The part before the `#`: what kind of resource it is.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The part after the `#`.
    pub fn index(&self) -> &str {
        &self.index
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}#{}", self.group, self.index))
    }
}

impl FromStr for Rid {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= MAX_LABEL
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
        };
        match text.split_once('#') {
            Some((group, index)) if word(group) && word(index) => Ok(Self { group: group.into(), index: index.into() }),
            _ => Err(PathError::Rid(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: &str) {
        let got = written.parse::<ObjectPath>().map_or_else(|error| error.to_string(), |path| path.fqn());
        assert!(got.starts_with(expected), "{written}: {got}");
        if let Ok(path) = written.parse::<ObjectPath>() {
            assert_eq!(path.to_string().parse(), Ok(path.clone()), "{path} reads back");
            assert_eq!(path.fqn().parse(), Ok(path));
        }
    }

    #[test]
    fn paths_are_read_as_people_write_them() {
        check("web", "root/svc/web");
        check("sec/tls", "root/sec/tls");
        check("prod/svc/web", "prod/svc/web");
        check("test/registry", "test/svc/registry");
        check("prod/", "prod/nscfg/namespace");
        check("/", "root/nscfg/namespace");
        check("cluster", "root/ccfg/cluster");
        check("0.web", "root/svc/0.web");
        check("", "`` has an empty part");
        check("a//b", "`a//b` has an empty part");
        check("a/b/c/d", "`a/b/c/d` has too many parts");
        check("a/b/c", "`b` is no kind");
        check("Web", "`Web` is no name");
        check("web-", "`web-` is no name");
        check("svc", "`svc` is a reserved word");
        check("node", "`node` is a reserved word");
        check(&"a".repeat(64), "`aaaa");
    }

    #[test]
    fn a_path_is_shown_short() {
        let check = |fqn: &str, shown: &str| assert_eq!(fqn.parse::<ObjectPath>().expect("a path").to_string(), shown);
        check("root/svc/web", "web");
        check("root/sec/tls", "sec/tls");
        check("prod/svc/web", "prod/svc/web");
        check("prod/nscfg/namespace", "prod/");
    }

    #[test]
    fn resource_ids_have_two_parts() {
        let rid: Rid = "container#db".parse().expect("a resource id");
        assert_eq!((rid.group(), rid.index()), ("container", "db"));
        assert_eq!(rid.to_string(), "container#db");
        for wrong in ["container", "#1", "container#", "a#b#c", "a b#1"] {
            assert!(wrong.parse::<Rid>().is_err(), "{wrong}");
        }
    }
}
