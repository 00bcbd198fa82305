//! The configuration language: INI text with scopes and references. What a text means is made in steps, each pure:
//! a [`Document`] that keeps every character, values for one node ([`resolve`]), and a typed instance ([`schema`]); [`edit`] changes
//! single keywords, [`evaluated`] is what `print config` shows.

pub mod cluster;
pub mod convert;
pub mod diagnostic;
pub mod document;
pub mod edit;
pub mod evaluated;
pub mod keyword;
pub mod resolve;
pub mod schema;

pub use diagnostic::{Diagnostic, Place, Severity};
pub use document::Document;
