//! Owns the way from a command to the server that has a data directory: its Unix socket.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use registry_store::data_dir::DataDir;
use serde_json::Value;

use super::operation::Operation;
use crate::{accounts::messenger::Messenger, admin::socket};

/// The way to the server of the data directory at `root`; `None` where none runs.
pub(crate) fn find(root: &Path) -> Result<Option<Messenger>> {
    let socket = DataDir::peek(root).admin_socket();
    match socket::connect(&socket) {
        Ok(_) => Ok(Some(Messenger::over_socket(socket))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!("ask the server at {} (hint: run this as the user who runs the server)", socket.display())
        }),
    }
}

/// Has the server of the data directory at `root` carry an operation out, and returns the answer;
/// `None` where none runs.
pub(crate) async fn ask(root: &Path, operation: &Operation) -> Result<Option<Value>> {
    match find(root)? {
        Some(messenger) => messenger.send(operation).await.map(Some),
        None => Ok(None),
    }
}
