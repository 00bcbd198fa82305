//! What every long-running process needs and no product is about: log lines, an audit log, an
//! orderly end, sockets to listen on, TLS, a local certificate authority, and operating-system
//! limits.
//!
//! Knows no word of the domain and reads no configuration file: callers pass plain values.

pub mod audit;
pub mod authority;
pub mod limits;
pub mod listen;
pub mod replace;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
