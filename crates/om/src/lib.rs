//! The cluster half of the product: the node daemon, its API, and the command line. Nothing here decides what a cluster
//! should do; that is `om-core`.

pub mod api;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod output;
pub mod places;
