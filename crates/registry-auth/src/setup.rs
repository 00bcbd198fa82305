//! Owns what can go wrong while a scheme is set up, before the first request.
//!
//! Does not own refusals of requests; see [`crate::challenge`].

use std::{io, path::PathBuf};

/// A scheme cannot start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A configured file cannot be read.
    #[error("read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A missing htpasswd file cannot be created.
    #[error("create htpasswd file `{path}` (create it yourself with `htpasswd -Bc`)")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configured file is larger than this program accepts.
    #[error("read `{path}`: larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A line of an htpasswd file is none. The line itself is not shown: it may hold a secret.
    #[error("read htpasswd file `{path}`: line {line} has no colon (expected `user:hash`)")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A configured file does not hold what it should.
    #[error("read `{path}`: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A setting has a value that cannot work.
    #[error("set `{key}`: {problem}")]
    Setting {
        /// The setting, such as `auth.token.realm`.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The machine gives no random bytes.
    #[error("make a random secret: the operating system gives no random bytes")]
    Random,
}
