//! Owns what holds for every input of each parser that a stranger reaches: one module a parser, one
//! function `check` each, which panics where something does not hold.
//!
//! Nothing here knows what calls it: libFuzzer (`fuzz_targets`) with inputs of its own, or the test
//! `corpus` of the crate `registry`, on every run of the tests, with those that are kept. What a
//! parser sees is separated by line feeds, so that people can read and write the inputs.

pub mod authorization;
mod bed;
pub mod config;
pub mod digest;
pub mod directory;
pub mod form;
pub mod forwarded;
pub mod htpasswd;
pub mod manifest;
pub mod name;
pub mod order;
pub mod range;
pub mod route;
pub mod scope;
pub mod token;

/// The name of a target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// The check of a parser, by the name of its target.
pub const TARGETS: [Target; 14] = [
    ("authorization", authorization::check),
    ("config", config::check),
    ("digest", digest::check),
    ("directory", directory::check),
    ("form", form::check),
    ("forwarded", forwarded::check),
    ("htpasswd", htpasswd::check),
    ("manifest", manifest::check),
    ("name", name::check),
    ("order", order::check),
    ("range", range::check),
    ("route", route::check),
    ("scope", scope::check),
    ("token", token::check),
];

/// The input as text, where a parser only sees such.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
