//! `om`, also called as `svcmgr` and `nodemgr`: the command line and the node daemon.

fn main() {}
