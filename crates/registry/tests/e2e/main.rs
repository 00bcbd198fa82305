//! End-to-end tests: the `registry` program as users meet it, through the tools they have.
//!
//! They run real Docker engines, skopeo, podman, buildah and curl against a real server process;
//! a missing tool fails the test. `REGISTRY_UNDER_TEST=<path>` tests another program with the
//! same command line, such as the one this registry replaces. Tests whose path contains `docker`
//! start an engine and run one at a time (`.config/nextest.toml`).

mod access;
mod adopt;
mod artifact;
mod crash;
mod disk;
mod docker;
mod docker_image;
mod drop_in;
mod htpasswd;
mod podman;
mod power_cut;
mod skopeo;
mod token;
mod upload;

use testkit::server::{Server, Setup};

/// The program under test.
const REGISTRY: &str = env!("CARGO_BIN_EXE_registry");

/// The least a registry that stores in a folder needs.
const PLAIN: &str = "
version: 0.1
storage:
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
http:
  addr: {addr}
";

/// Starts a registry that lets everyone do everything.
#[track_caller]
fn plain_registry() -> Server {
    Setup::new(REGISTRY, PLAIN).start()
}
