//! How answers are shown: texts for people and for programs, made of wire types by pure functions. Nothing here reads
//! or writes anything.

pub mod json;
pub mod mon;
pub mod status;
pub mod table;
pub mod text;
pub mod tree;
pub mod yaml;
