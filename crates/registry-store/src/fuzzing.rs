//! Owns what fuzzing sees of the parsers in this crate that have no public face of their own.
//!
//! No part of the crate's interface: it changes whenever a parser does.

use registry_core::directory::Directory;

use crate::meta::document;

/// Reads a stored directory.
///
/// # Errors
/// Why it cannot be read, for people.
pub fn decode(document: &[u8]) -> Result<Directory, String> {
    document::decode(document).map_err(|error| error.to_string())
}

/// Writes a directory down as it is stored.
///
/// # Errors
/// Why it cannot be written, for people.
pub fn encode(directory: Directory) -> Result<String, String> {
    document::encode(directory).map_err(|error| error.to_string())
}
