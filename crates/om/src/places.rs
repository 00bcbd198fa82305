//! Owns where everything of this program lies on a node: configuration, state, the socket. Makes nothing.

use std::path::{Path, PathBuf};

/// The variable that moves every path below one directory, as `--root` does.
pub const ROOT_VARIABLE: &str = "OM_ROOT";

/// The directories and files of one node. All absolute if the root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Configuration that people write: `node.conf`, templates.
    pub etc: PathBuf,
    /// State that outlives a boot: the store, keys, pools, logs.
    pub var: PathBuf,
    /// State that does not outlive a boot.
    pub run: PathBuf,
    /// The engine's configuration; `certs.d` is below it.
    pub docker_etc: PathBuf,
    /// Whether it is not the machine's own.
    pub moved: bool,
}

impl Places {
    /// The machine's own places, or the same below `root`.
    pub fn new(root: Option<&Path>) -> Self {
        match root {
            None => Self {
                etc: "/etc/om".into(),
                var: "/var/lib/om".into(),
                run: "/run/om".into(),
                docker_etc: "/etc/docker".into(),
                moved: false,
            },
            Some(root) => Self {
                etc: root.join("etc"),
                var: root.join("var"),
                run: root.join("run"),
                docker_etc: root.join("etc/docker"),
                moved: true,
            },
        }
    }

    /// The socket of the API.
    pub fn socket(&self) -> PathBuf {
        self.var.join("api.sock")
    }

    /// The configuration of this node.
    pub fn node_config(&self) -> PathBuf {
        self.etc.join("node.conf")
    }

    /// The store of the cluster's state, where the cluster is this node.
    pub fn store(&self) -> PathBuf {
        self.var.join("store.db")
    }

    /// The key that seals secrets: readable by root only, not part of the store.
    pub fn key(&self) -> PathBuf {
        self.var.join("cluster.key")
    }

    /// Files that tell who the daemon is: its process id, held locked while it runs.
    pub fn lock(&self) -> PathBuf {
        self.var.join("daemon.lock")
    }

    /// What the daemon and its actions said.
    pub fn logs(&self) -> PathBuf {
        self.var.join("log")
    }

    /// Volumes of the implied pool `default`.
    pub fn pool(&self) -> PathBuf {
        self.var.join("pool/directory")
    }

    /// Results and configurations of network plugins.
    pub fn networks(&self) -> PathBuf {
        self.var.join("net")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_moves_every_path() {
        let moved = Places::new(Some(Path::new("/r")));
        for path in [&moved.etc, &moved.var, &moved.run, &moved.docker_etc, &moved.socket(), &moved.store()] {
            assert!(path.starts_with("/r"), "{}", path.display());
        }
        assert_eq!(Places::new(None).socket(), Path::new("/var/lib/om/api.sock"));
    }
}
