//! Owns the question where the network namespace of a resource is: the seam between addresses and containers. Does not
//! own who answers it.

use std::path::PathBuf;

use om_core::{
    driver::{Scene, Work},
    path::Rid,
};

/// A network namespace that something else may be put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Whose it is: the container's id, which is told again when what was put into it is taken back, even after the
    /// container's death.
    pub container: String,
    /// The namespace: a path that can be opened as long as the container runs, and another one after each start.
    pub netns: PathBuf,
}

/// Finds network namespaces of containers.
pub trait Sandboxes: Send + Sync {
    /// The namespace of a container of this instance; none: it does not run.
    fn sandbox<'a>(&'a self, scene: &'a Scene, rid: &'a Rid) -> Work<'a, Option<Sandbox>>;
}
