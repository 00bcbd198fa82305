//! The registry's configuration: CNCF distribution's `config.yml` and `REGISTRY_*` variables, read and explained.
//!
//! Four stages without I/O: `tree` parses YAML with positions, `environment` applies the variables, `schema` and
//! `interpret` turn the tree into a typed [`Config`] and report every problem at once, `report` tells what each key
//! does. Reads no file and no environment; the command line passes both in. Does not check that named files exist.

use std::collections::BTreeMap;

pub(crate) mod diagnostic;
mod environment;
mod interpret;
mod keys;
pub(crate) mod report;
mod scalar;
mod schema;
pub(crate) mod settings;
mod tree;

pub(crate) use diagnostic::Diagnostic;
pub(crate) use report::Report;
pub(crate) use settings::Config;

/// The configuration an installation begins with, in effect that of the original's container image.
pub(crate) const DEFAULT_YAML: &str = include_str!("config/default.yml");

/// What a file and an environment say.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The configuration; `None` if any diagnostic is an error.
    pub(crate) config: Option<Config>,
    /// Every problem: those of the file by line, then those of variables by name.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Every key and what becomes of it.
    pub(crate) report: Report,
}

/// Reads a configuration. `file_name` is only shown. Of `env`, names that begin with `REGISTRY_` are applied over
/// the file, in the order of their names.
pub(crate) fn load(file_name: &str, text: &str, env: &BTreeMap<String, String>) -> Loaded {
    let mut found = Vec::new();
    let mut root = match tree::parse_file(file_name, text) {
        Ok((root, more)) => {
            found.extend(more);
            root
        }
        Err(problem) => {
            let diagnostics = vec![problem];
            let nothing = tree::Node::null(diagnostics[0].place.clone());
            let report = Report::new(file_name, &nothing, &diagnostics);
            return Loaded { config: None, diagnostics, report };
        }
    };
    environment::apply(&mut root, env, &mut found);
    schema::check(&root, &mut found);
    let config = interpret::interpret(&root, &mut found);
    found.sort_by_key(|problem| problem.place.order());
    let report = Report::new(file_name, &root, &found);
    Loaded { config: report.is_valid().then_some(config), diagnostics: found, report }
}

#[cfg(test)]
mod tests;
