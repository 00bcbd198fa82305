//! What an image store is: names, digests, manifests, uploads, access, accounts and their rights,
//! what is kept how long, collection, and the store traits. Pure: no runtime, clock, randomness, files or environment.

pub mod access;
pub mod account;
pub mod adopt;
pub mod collect;
pub mod digest;
pub mod directory;
pub mod gc;
pub mod manifest;
pub mod name;
pub mod oci_error;
pub mod page;
pub mod policy;
pub mod range;
pub mod reference;
pub mod retention;
pub mod store;
pub mod upload;
