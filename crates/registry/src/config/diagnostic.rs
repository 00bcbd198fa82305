//! One problem found in a configuration: where it is, what it is and how to cure it.
//!
//! Owns the wording's frame only; the stages that find problems own the sentences. Never prints by itself.

use std::fmt;
use std::sync::Arc;

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A position in the file; line and column count from 1, columns in characters.
    File {
        /// The file's name as the user gave it.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The environment variable that set the value.
    Variable(Arc<str>),
}

impl Place {
    /// Sorts the file by position, then the variables by name.
    pub(crate) fn order(&self) -> (usize, usize, Arc<str>) {
        match self {
            Self::File { line, column, .. } => (*line, *column, Arc::from("")),
            Self::Variable(name) => (usize::MAX, 0, Arc::clone(name)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Whether the server can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The configuration is refused.
    Error,
    /// The server starts; somebody should look.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// What the problem means for the key it names and everything below that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The value is wrong or doubtful.
    Value,
    /// No such key, here or in the original.
    Unknown,
    /// A key of the original that changes nothing here.
    NoEffect,
    /// A feature of the original that is not there yet.
    NotYet,
}

/// One problem, with its place and its cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// Whether the server can start in spite of it.
    pub(crate) severity: Severity,
    /// What it means for the key.
    pub(crate) kind: Kind,
    /// Where the key or value was written.
    pub(crate) place: Place,
    /// Dotted path with list indexes, `notifications.endpoints[0].url`; empty for the whole file.
    pub(crate) key_path: String,
    /// One sentence without a full stop. Never contains a secret.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Diagnostic {
    /// Whether the configuration is refused.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// A wrong value: the configuration is refused.
    pub(crate) fn error(place: &Place, key_path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Kind::Value, place, key_path, message.into())
    }

    /// A doubtful value: the server starts.
    pub(crate) fn warning(place: &Place, key_path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Kind::Value, place, key_path, message.into())
    }

    /// A key nobody knows.
    pub(crate) fn unknown(place: &Place, key_path: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Kind::Unknown, place, key_path, message.into())
    }

    /// A known key that changes nothing here.
    pub(crate) fn no_effect(place: &Place, key_path: &str, why: &str) -> Self {
        Self::new(Severity::Warning, Kind::NoEffect, place, key_path, format!("has no effect here: {why}"))
    }

    /// A feature that is not there yet: the configuration is refused rather than half obeyed.
    pub(crate) fn not_yet(place: &Place, key_path: &str, what: &str) -> Self {
        Self::new(Severity::Error, Kind::NotYet, place, key_path, format!("not yet: {what}"))
    }

    /// Adds the cure.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(severity: Severity, kind: Kind, place: &Place, key_path: &str, message: String) -> Self {
        Self { severity, kind, place: place.clone(), key_path: key_path.to_owned(), message, hint: None }
    }

    /// Tells whether this speaks about `path` itself or a section that contains it.
    pub(crate) fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.key_path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.severity.name())?;
        if !self.key_path.is_empty() {
            write!(f, "{}: ", self.key_path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
