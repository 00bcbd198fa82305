//! What a cluster should do: names, the configuration language, states, plans. Pure: no runtime, no clock, no
//! randomness, no files, no environment.

pub mod config;
pub mod driver;
pub mod instance;
pub mod kv;
pub mod network;
pub mod path;
pub mod pool;
pub mod status;
