//! Makes resources so: containers, addresses, volumes, directories, processes. The only crate that touches Docker, mounts or
//! namespaces.

pub mod address;
pub mod app;
pub mod cni;
pub mod directory;
pub mod docker;
pub mod fake;
pub mod flag;
mod iptables;
pub mod loopdisk;
pub mod marks;
pub mod netns;
pub mod owner;
pub mod sync;
pub mod volume;
