//! Holds a tree against the table of keys: unknown keys, wrong shapes, keys without effect, features not there.
//!
//! Judges one value at a time; what values mean together is for `settings`.

use super::diagnostic::{Diagnostic, Place};
use super::keys::{self, Field, Shape, Stance};
use super::report;
use super::scalar::{self, Span};
use super::tree::{Entry, Node, Value};

/// After so many problems the file is no configuration, and looking for near names only takes time.
const MAX_HINTS: usize = 100;

/// Reports every problem of the tree under `ROOT`, in the order written.
pub(crate) fn check(root: &Node, found: &mut Vec<Diagnostic>) {
    value(root, &keys::ROOT, "", found);
}

fn value(node: &Node, shape: &Shape, path: &str, found: &mut Vec<Diagnostic>) {
    match (shape, &node.value) {
        (Shape::Any, _) | (_, Value::Null) => {}
        (Shape::Struct(fields) | Shape::Params(fields), Value::Map(entries)) => {
            section(entries, fields, path, true, found);
        }
        (Shape::Drivers(fields), Value::Map(entries)) => {
            section(entries, fields, path, false, found);
        }
        (Shape::Map(inner), Value::Map(entries)) => {
            for entry in entries {
                value(&entry.value, inner, &join(path, &entry.key), found);
            }
        }
        (Shape::List(inner), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                value(item, inner, &format!("{path}[{index}]"), found);
            }
        }
        (_, Value::Scalar(scalar)) => {
            let fine = match shape {
                Shape::Text => true,
                Shape::Flag => scalar::flag(scalar).is_some(),
                Shape::Int => scalar::int(scalar).is_some(),
                Shape::Duration | Shape::UnitDuration => return duration(node, shape, path, found),
                Shape::Size => scalar::size(scalar).is_some(),
                Shape::Choice(words) => words.iter().any(|word| word.eq_ignore_ascii_case(&scalar.text)),
                _ => false,
            };
            if !fine {
                found.push(wrong(node, shape, path));
            }
        }
        _ => found.push(wrong(node, shape, path)),
    }
}

fn section(entries: &[Entry], fields: &[Field], path: &str, strict: bool, found: &mut Vec<Diagnostic>) {
    for entry in entries {
        let path = join(path, &entry.key);
        let Some(field) = fields.iter().find(|field| field.key == entry.key) else {
            if strict {
                let hints = found.len() < MAX_HINTS;
                found.push(unknown(entry, fields, &path, hints));
            }
            continue;
        };
        match field.stance {
            Stance::Honoured => value(&entry.value, &field.shape, &path, found),
            Stance::Ignored(why) if entry.value.is_filled() => {
                found.push(Diagnostic::no_effect(&entry.place, &path, why));
            }
            Stance::Refused(what, hint) => {
                found.push(Diagnostic::not_yet(&entry.place, &path, what).hint(hint));
            }
            Stance::NotYet(what, hint) if entry.value.is_filled() => {
                found.push(Diagnostic::not_yet(&entry.place, &path, what).hint(hint));
            }
            Stance::Ignored(_) | Stance::NotYet(..) => {}
        }
    }
}

/// `path.key`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn unknown(entry: &Entry, fields: &[Field], path: &str, hints: bool) -> Diagnostic {
    let problem = Diagnostic::unknown(&entry.place, path, "no such key, it is ignored");
    if !hints {
        return problem;
    }
    if let Some(near) = keys::closest(&entry.key, fields.iter().map(|field| field.key)) {
        return problem.hint(format!("did you mean `{near}`?"));
    }
    // A key in the wrong section is mostly a matter of indentation.
    let suffix = format!(".{}", entry.key);
    let mut elsewhere = keys::leaves().into_iter().filter(|leaf| leaf.ends_with(&suffix));
    match (elsewhere.next(), elsewhere.next()) {
        (Some(leaf), None) => problem.hint(format!("there is `{leaf}`; check the indentation")),
        _ => problem,
    }
}

fn wrong(node: &Node, shape: &Shape, path: &str) -> Diagnostic {
    let expected = match shape {
        Shape::Flag => "true or false".to_owned(),
        Shape::Int => "a whole number".to_owned(),
        Shape::Duration | Shape::UnitDuration => "a duration".to_owned(),
        Shape::Size => "a size such as 4MiB".to_owned(),
        Shape::Choice(words) => format!("one of {}", words.join(", ")),
        Shape::Text => "a plain value".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        _ => "a mapping".to_owned(),
    };
    let problem =
        Diagnostic::error(&node.place, path, format!("expected {expected}, found {}", shown(node, shape, path)));
    match (shape, &node.value) {
        (Shape::Flag | Shape::Int, Value::Scalar(s)) if !s.plain => problem.hint("remove the quotes"),
        (Shape::Duration | Shape::UnitDuration, _) => {
            problem.hint("write a number and a unit, such as 90s, 1h30m or 168h")
        }
        (Shape::List(_), Value::Scalar(_)) => match &node.place {
            Place::File { .. } => problem.hint("put the value in brackets: [value]"),
            Place::Variable(_) => problem.hint("a variable's value is read as YAML; put it in brackets: [value]"),
        },
        (Shape::Text, _) if matches!(node.place, Place::Variable(_)) => {
            problem.hint("a variable's value is read as YAML; put it in double quotes inside the variable")
        }
        (Shape::Text, _) => problem.hint("put the value in quotes"),
        (Shape::Choice(words), Value::Scalar(s)) => match keys::closest(&s.text, words.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        },
        _ => problem,
    }
}

/// The value for a sentence, unless it could be a secret.
fn shown(node: &Node, shape: &Shape, path: &str) -> String {
    // Where a section or list is expected, a plain value may be anything, an address with a password too.
    let section = !matches!(
        shape,
        Shape::Flag | Shape::Int | Shape::Duration | Shape::UnitDuration | Shape::Size | Shape::Choice(_)
    );
    match node.scalar() {
        Some(scalar) if !section && !report::is_secret(path) => {
            let quote = if scalar.plain { "" } else { "\"" };
            let text: String = report::without_password(&scalar.text).chars().take(80).collect();
            format!("`{quote}{}{quote}`", text.escape_debug())
        }
        _ => node.noun().to_owned(),
    }
}

fn duration(node: &Node, shape: &Shape, path: &str, found: &mut Vec<Diagnostic>) {
    let Some(scalar) = node.scalar() else { return };
    let unit = format!("add a unit: {0}s, {0}m or {0}h", scalar.text);
    found.push(match (scalar::span(scalar), shape) {
        (Some(Span::Unit(_)), _) => return,
        (Some(Span::Bare(_)), Shape::Duration) => {
            let message = format!("`{}` without a unit counts nanoseconds, as in the original", scalar.text);
            Diagnostic::warning(&node.place, path, message).hint(unit)
        }
        (Some(Span::Bare(_)), _) => {
            Diagnostic::error(&node.place, path, format!("`{}` has no unit", scalar.text)).hint(unit)
        }
        (Some(Span::Negative), _) => Diagnostic::error(&node.place, path, "a duration cannot be negative"),
        (None, _) => wrong(node, shape, path),
    });
}
