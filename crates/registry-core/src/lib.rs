//! What an image store is: names, digests, manifests, uploads, access, collection, and the two
//! store traits. Pure: no runtime, clock, randomness, files or environment.

pub mod access;
pub mod collect;
pub mod digest;
pub mod manifest;
pub mod name;
pub mod oci_error;
pub mod page;
pub mod range;
pub mod reference;
pub mod store;
pub mod upload;
