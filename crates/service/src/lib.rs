//! What every long-running process needs and no product is about: log lines, an orderly end,
//! sockets to listen on, TLS, and operating-system limits.
//!
//! Knows no word of the domain and reads no configuration file: callers pass plain values.

pub mod limits;
pub mod listen;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
