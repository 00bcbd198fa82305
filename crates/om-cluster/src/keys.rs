//! Owns the layout of the store: the only place with names of keys. Does not own what is behind them.
//!
//! Everything is below `/om/1/`. Namespaces, kinds, names and nodes have no slash, so each can be a part of a key; the
//! name of a key of a `cfg` or `sec` object may have slashes and comes last.

use om_core::path::{NodeName, ObjectPath};

/// All keys.
pub(crate) const ROOT: &str = "/om/1/";
/// Id of the cluster.
pub(crate) const CLUSTER: &str = "/om/1/meta/cluster";
/// The sealed authority.
pub(crate) const AUTHORITY: &str = "/om/1/meta/authority";
/// Configurations of objects.
pub(crate) const CONFIGS: &str = "/om/1/cfg/";

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Configuration of an object.
    Config(ObjectPath),
    /// What is wanted of it.
    Want(ObjectPath),
    /// Who owns it.
    Owner(ObjectPath),
    /// What a node says of it.
    Report(ObjectPath, NodeName),
    /// A key of a `cfg` or `sec` object.
    Value(ObjectPath, String),
    /// A node's sign of life.
    Session(NodeName),
    /// Facts of a node.
    Node(NodeName),
}

impl Key {
    /// As the store names it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Config(path) => format!("{CONFIGS}{}", path.fqn()),
            Self::Want(path) => format!("{ROOT}want/{}", path.fqn()),
            Self::Owner(path) => format!("{ROOT}own/{}", path.fqn()),
            Self::Report(path, node) => format!("{ROOT}st/{}/{node}", path.fqn()),
            Self::Value(path, key) => format!("{ROOT}val/{}/{key}", path.fqn()),
            Self::Session(node) => format!("{ROOT}ses/{node}"),
            Self::Node(node) => format!("{ROOT}node/{node}"),
        }
    }

    /// What a name of the store is about; none: nothing that this version knows.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (area, rest) = name.strip_prefix(ROOT)?.split_once('/')?;
        let split_last =
            |rest: &str| rest.rsplit_once('/').and_then(|(path, node)| Some((object(path)?, node.parse().ok()?)));
        Some(match area {
            "cfg" => Self::Config(object(rest)?),
            "want" => Self::Want(object(rest)?),
            "own" => Self::Owner(object(rest)?),
            "st" => split_last(rest).map(|(path, node)| Self::Report(path, node))?,
            "val" => {
                let end = rest.match_indices('/').nth(2)?.0;
                Self::Value(object(&rest[..end])?, rest[end + 1..].to_owned())
            }
            "ses" => Self::Session(rest.parse().ok()?),
            "node" => Self::Node(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// All keys of a `cfg` or `sec` object.
pub(crate) fn values_of(path: &ObjectPath) -> String {
    format!("{ROOT}val/{}/", path.fqn())
}

/// What all nodes say of an object.
pub(crate) fn reports_of(path: &ObjectPath) -> String {
    format!("{ROOT}st/{}/", path.fqn())
}

fn object(fqn: &str) -> Option<ObjectPath> {
    let path: ObjectPath = fqn.parse().ok()?;
    (path.fqn() == fqn).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_they_were() {
        let path: ObjectPath = "test/registry".parse().expect("a path");
        let node: NodeName = "n1.example".parse().expect("a node");
        let check = |key: Key, name: &str| {
            assert_eq!(key.name(), name);
            assert_eq!(Key::parse(name), Some(key));
        };
        check(Key::Config(path.clone()), "/om/1/cfg/test/svc/registry");
        check(Key::Config(ObjectPath::cluster()), "/om/1/cfg/root/ccfg/cluster");
        check(Key::Want(path.clone()), "/om/1/want/test/svc/registry");
        check(Key::Owner(path.clone()), "/om/1/own/test/svc/registry");
        check(Key::Report(path.clone(), node.clone()), "/om/1/st/test/svc/registry/n1.example");
        check(Key::Value(path, "a/b.json".into()), "/om/1/val/test/svc/registry/a/b.json");
        check(Key::Session(node.clone()), "/om/1/ses/n1.example");
        check(Key::Node(node), "/om/1/node/n1.example");
        for strange in ["/om/2/cfg/a/svc/b", "/om/1/cfg/svc/b", "/om/1/new/x", "/om/1/val/test/sec/a", "", "/om/1/cfg"]
        {
            assert_eq!(Key::parse(strange), None, "{strange}");
        }
    }
}
