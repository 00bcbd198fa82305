//! What a cluster should do: names, the configuration language, states, plans. Pure: no runtime, no clock, no
//! randomness, no files, no environment.

pub mod aggregate;
pub mod config;
pub mod decide;
pub mod driver;
pub mod instance;
pub mod kv;
pub mod network;
pub mod path;
pub mod placement;
pub mod plan;
pub mod pool;
pub mod selector;
pub mod status;
pub mod truth;
pub mod view;
pub mod zone;
