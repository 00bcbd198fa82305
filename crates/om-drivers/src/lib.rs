//! Makes resources so: containers, addresses, volumes, processes. The only crate that touches Docker, mounts or
//! namespaces.

pub mod cni;
pub mod fake;
