//! The node daemon: what it knows, answers and makes so. Each part is a file below; `app` puts them together.

pub mod executor;
pub mod facts;
pub mod hub;
pub mod journal;
pub mod orchestrate;
pub mod shown;
pub mod texts;
pub mod trust;
