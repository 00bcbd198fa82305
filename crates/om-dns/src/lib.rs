//! Answers DNS from a snapshot of the cluster's zone, and has everything else answered by the servers that the node used
//! before. Does not own what is in the zone.

pub mod forward;
pub mod message;
pub mod server;
