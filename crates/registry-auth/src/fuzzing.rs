//! Owns what fuzzing sees of the parsers in this crate that have no public face of their own.
//!
//! No part of the crate's interface: it changes whenever a parser does.

use crate::htpasswd;

/// A name, and the hash that proves it.
pub type User = (Vec<u8>, Vec<u8>);

/// Each user of an htpasswd file with the hash that proves them, empty if nothing does; by name.
///
/// # Errors
/// The number of the line that has no colon.
pub fn htpasswd(file: &[u8]) -> Result<Vec<User>, usize> {
    htpasswd::users(file)
}
