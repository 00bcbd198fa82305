//! Owns what the core asks of whoever makes resources so: the trait [`Driver`], what it is given, how it fails.

use std::{collections::BTreeMap, fmt, future::Future, net::IpAddr, path::PathBuf, pin::Pin, time::Duration};

use crate::{
    instance::{InstanceConfig, Resource},
    network::Network,
    path::{Name, NodeName, Rid},
    status::ResourceStatus,
};

/// The future of an effect.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, DriverError>> + Send + 'a>>;

/// Makes resources so, on one node.
///
/// Every effect is idempotent: what is so already is left alone. Each ends within its deadline; a future that is
/// dropped leaves what a later call of the same method completes, or its opposite undoes.
pub trait Driver: Send + Sync {
    /// What is so now. An engine that does not answer makes the state undef or down with a line, not an error.
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus>;
    /// Makes what the resource needs, such as a directory or a filesystem; for a container: pulls its image.
    fn provision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()>;
    /// Starts it.
    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()>;
    /// Stops it.
    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()>;
    /// Brings files of something that is up to date with `scene`'s keys and files; nothing is restarted, and what is
    /// not up is left alone. Most have none.
    fn refresh<'a>(&'a self, _scene: &'a Scene, _resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }
    /// Destroys what [`Driver::provision`] made, with its data. It is stopped.
    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()>;
}

/// What an effect is given besides its resource.
#[derive(Clone)]
pub struct Scene {
    /// The instance that the resource belongs to.
    pub instance: InstanceConfig,
    /// Facts of the cluster.
    pub cluster: Cluster,
    /// This node.
    pub node: NodeName,
    /// Volumes of the instance that are up, by resource: the directory that is the volume's head, and whether it
    /// must not be written.
    pub volumes: BTreeMap<Rid, (PathBuf, bool)>,
    /// Values of keys of this namespace's objects that the resource refers to, fetched before the effect.
    pub keys: BTreeMap<KeyName, Secret>,
    /// Files for the container beside those of the configuration, such as certificates: path in it, bytes.
    pub files: Vec<(String, Secret)>,
    /// Where progress is told.
    pub progress: Progress,
}

/// A key of an object of the instance's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    /// Whether it is in a `sec` object; else in a `cfg` object.
    pub secret: bool,
    /// The object.
    pub object: Name,
    /// The key.
    pub key: String,
}

/// Facts of the cluster that drivers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name, which is the zone of its DNS.
    pub name: String,
    /// Its id: a UUID.
    pub id: String,
    /// All nodes.
    pub nodes: Vec<NodeName>,
    /// Addresses of the cluster's DNS as containers of this node reach it; empty: containers keep the engine's.
    pub dns: Vec<IpAddr>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// The directory of the CNI plugins; none: where distributions put them.
    pub plugins: Option<PathBuf>,
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where an effect tells how far it is: short lines such as `pulling registry: 12.3 of 40.1 MiB`.
#[derive(Clone)]
pub struct Progress(std::sync::Arc<dyn Fn(String) + Send + Sync>);

impl Progress {
    /// Calls `tell` for each line.
    pub fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(tell))
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Tells a line.
    pub fn tell(&self, line: impl Into<String>) {
        (self.0)(line.into());
    }
}

/// An effect that failed. Reads well after "cannot start container#1 of test/svc/registry: ".
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Something outside said no.
    #[error("{what}")]
    Failed {
        /// The operation, its subject, and what was said.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It took too long.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Timeout {
        /// The operation and its subject.
        what: String,
        /// How long it may take.
        limit: Duration,
    },
    /// What it needs is not there: an engine, a plugin, a volume that is up.
    #[error("{what}")]
    Missing {
        /// What.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl DriverError {
    /// A failure with a hint.
    pub fn failed(what: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self::Failed { what: what.into(), hint: hint.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Failed { hint, .. } | Self::Missing { hint, .. } => hint.as_deref(),
            Self::Timeout { .. } => None,
        }
    }
}
