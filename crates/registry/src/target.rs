//! Owns which data a command of maintenance is about: those of a configuration, or a directory.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use registry_store::{data_dir::DataDir, meta::sqlite::SqliteMetadata};

use crate::{cli::ConfigPath, config::Config, configured, data_root};

/// Which data.
#[derive(Debug, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) path: ConfigPath,
    /// The data directory itself, in place of a configuration
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// Data that were found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The data directory; it is there.
    pub(crate) root: PathBuf,
    /// What the configuration says; `None` where only the directory was named.
    pub(crate) config: Option<Config>,
}

impl Target {
    /// Finds the data directory that the command line means. It has metadata of ours.
    pub(crate) fn find(&self) -> Result<Found> {
        let found = match &self.data {
            Some(root) => Found { root: root.clone(), config: None },
            None => {
                let config =
                    configured(&self.path).context("which data? name CONFIG, or the data directory with --data DIR")?;
                Found { root: data_root(&config)?.to_owned(), config: Some(config) }
            }
        };
        let root = &found.root;
        ensure!(
            DataDir::peek(root).metadata().exists(),
            "{} holds no data of this registry (hint: it is what storage.filesystem.rootdirectory names, and a server \
             makes it at its first start)",
            root.display()
        );
        Ok(found)
    }
}

/// Opens the metadata of a directory that a server may be using.
pub(crate) fn attach(root: &Path) -> Result<SqliteMetadata> {
    let path = DataDir::peek(root).metadata();
    SqliteMetadata::attach(&path).with_context(|| format!("read {}", path.display()))
}
