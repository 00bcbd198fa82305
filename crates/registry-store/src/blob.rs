//! Where bytes live: files in distribution's layout, or memory.

pub mod fs;
pub mod memory;
