//! The node daemon: what it knows, answers and makes so. Each part is a file below; `app` puts them together.

pub mod actions;
pub mod answer;
pub mod app;
pub mod backup;
pub mod certificates;
pub mod drivers;
pub mod executor;
pub mod facts;
pub mod hub;
pub mod journal;
pub mod names;
pub mod networks;
pub mod node;
pub mod objects;
pub mod orchestrate;
pub mod refresh;
pub mod resolver;
pub mod secrets;
pub mod shown;
pub mod supply;
pub mod telling;
pub mod texts;
pub mod trust;
pub mod volumes;
pub mod world;
