//! Owns where an order is carried out: by a server that is named, by the server that has the data
//! directory, or, where none runs, here.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use registry_store::{
    data_dir::{DataDir, DataDirError},
    disk::Poison,
    meta::sqlite::SqliteMetadata,
};
use serde_json::Value;
use service::audit::{AuditLog, AuditOptions};

use super::{commands::To, messenger::Messenger};
use crate::{
    admin::{self, Admin, Sender, authority::Actor, order::Order},
    app,
    cli::ConfigPath,
    config::settings::Auth,
    configured, data_root, init,
    live::LiveDirectory,
};

/// Where orders go.
pub(crate) enum Place {
    /// To a server.
    Served(Messenger),
    /// Into a data directory that nobody serves.
    Directory(PathBuf),
}

impl Place {
    /// The place that the command line means.
    pub(crate) fn find(to: &To) -> Result<Self> {
        if let Some(url) = &to.server {
            return Messenger::over_http(url, to).map(Self::Served);
        }
        if to.login.is_some() || to.ca.is_some() || to.insecure_http {
            bail!("--login, --ca and --insecure-http are for a server: name it with --server https://HOST:PORT");
        }
        let config = to.config.clone().or_else(installed).ok_or_else(|| {
            anyhow!(
                "which registry? name its configuration with --config CONFIG, or a server with --server \
                 https://HOST:PORT (hint: `registry init` makes a registry with access control)"
            )
        })?;
        let settings = configured(&ConfigPath { config: Some(config.clone()) })?;
        if !matches!(settings.auth, Auth::Roadstead(_) | Auth::Unset) {
            bail!(
                "{config} has no accounts: its `auth` is not `roadstead` (hint: `registry init` makes a registry with \
                 access control)"
            );
        }
        let root = data_root(&settings)?;
        let socket = DataDir::peek(root).admin_socket();
        match admin::socket::connect(&socket) {
            Ok(_) => Ok(Self::Served(Messenger::over_socket(socket))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(Self::Directory(root.to_owned()))
            }
            Err(error) => Err(error).with_context(|| {
                let hint = "run this as the user who runs the server";
                format!("ask the server at {} (hint: {hint})", socket.display())
            }),
        }
    }

    /// Carries an order out and returns its answer.
    pub(crate) async fn carry_out(&self, order: Order) -> Result<Value> {
        match self {
            Self::Served(messenger) => messenger.send(&order).await,
            Self::Directory(root) => here(root, order).await,
        }
    }
}

/// The configuration that `registry init` left, where it puts it.
fn installed() -> Option<String> {
    let places = [init::home(), Some(init::SYSTEM.into())];
    let config = places.into_iter().flatten().map(|dir| dir.join(init::CONFIG)).find(|path| path.exists())?;
    config.to_str().map(str::to_owned)
}

/// Carries an order out in this process, which is the only one with the directory.
async fn here(root: &Path, order: Order) -> Result<Value> {
    let uninitialised =
        || anyhow!("{} has no accounts (hint: `registry init {}` makes the first)", root.display(), root.display());
    if !DataDir::peek(root).metadata().exists() {
        return Err(uninitialised());
    }
    let dir = DataDir::open(root).map_err(|error| match error {
        DataDirError::Locked(_) => {
            anyhow!("{error}, which does not take orders now (hint: it starts, ends or is another command; try again)")
        }
        error => error.into(),
    })?;
    let store = Arc::new(SqliteMetadata::open_in(&dir, Poison::default())?);
    let live = LiveDirectory::open(store).await?.ok_or_else(uninitialised)?;
    let audit = AuditLog::open(AuditOptions::new(dir.audit())).context("open the audit log")?;
    let sender = Sender { actor: Actor::Local, from: format!("command, uid {}", rustix::process::getuid().as_raw()) };
    let answer = Admin::new(live, Arc::new(audit)).carry_out(order, sender, app::now()).await;
    answer.map_err(|error| anyhow!("{error} (hint: {})", error.hint))
}
