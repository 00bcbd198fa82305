//! Applies `REGISTRY_*` variables to the tree, by the rule of CNCF distribution.
//!
//! Owns how a variable's name finds its key: Go field names in structured sections, keys in any case in maps,
//! numbers in lists. Does not read the environment and does not judge values.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Place};
use super::keys::{self, Field, Shape};
use super::tree::{self, Entry, Node, Value};

const PREFIX: &str = "REGISTRY_";
/// Names the configuration file; the command line reads it.
const PATH_VARIABLE: &str = "REGISTRY_CONFIGURATION_PATH";

/// Sets each variable's value in the tree, in the order of their names, so that `REGISTRY_STORAGE` comes
/// before `REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY`. Values get the variable as their place.
pub(crate) fn apply(root: &mut Node, env: &BTreeMap<String, String>, found: &mut Vec<Diagnostic>) {
    spread_drivers(root);
    let ours = env.iter().filter_map(|(name, text)| Some((name, name.strip_prefix(PREFIX)?, text)));
    for (name, path, text) in ours {
        let place = Place::Variable(name.as_str().into());
        if name == PATH_VARIABLE {
            continue;
        }
        if path == "VERSION" {
            found.push(
                Diagnostic::warning(&place, "version", "the version cannot be set by a variable, it is ignored")
                    .hint("write `version: 0.1` in the file"),
            );
            continue;
        }
        let parts: Vec<&str> = path.split('_').collect();
        match tree::parse_variable(name, text) {
            Ok(value) => {
                let mut assignment = Assignment { parts: &parts, place, value: Some(value), path: String::new() };
                if let Err(problem) = assignment.set(root, &keys::ROOT, &parts) {
                    found.push(problem);
                }
            }
            Err(problem) => found.push(problem),
        }
        spread_drivers(root);
    }
}

/// Turns `storage: filesystem` into `storage: {filesystem: }`.
fn spread_drivers(root: &mut Node) {
    let (Value::Map(entries), Shape::Struct(fields)) = (&mut root.value, keys::ROOT) else {
        return;
    };
    for entry in entries {
        let drivers = fields.iter().any(|f| f.key == entry.key && matches!(f.shape, Shape::Drivers(_)));
        if let (true, Value::Scalar(scalar)) = (drivers, &entry.value.value) {
            let place = entry.value.place.clone();
            let driver = Entry { key: scalar.text.clone(), place: place.clone(), value: Node::null(place) };
            entry.value.value = Value::Map(vec![driver]);
        }
    }
}

struct Assignment<'a> {
    /// All parts of the variable's name.
    parts: &'a [&'a str],
    place: Place,
    /// Taken when it finds its key.
    value: Option<Node>,
    /// The key reached so far.
    path: String,
}

impl Assignment<'_> {
    fn set(&mut self, node: &mut Node, shape: &Shape, parts: &[&str]) -> Result<(), Diagnostic> {
        let Some((&part, rest)) = parts.split_first() else {
            if let Some(value) = self.value.take() {
                *node = value;
            }
            return Ok(());
        };
        match shape {
            Shape::Struct(fields) => {
                let Some(field) = fields.iter().find(|field| field.variable == part) else {
                    return Err(self.unrecognised(parts, fields));
                };
                self.descend(node, field.key.to_owned(), &field.shape, rest)
            }
            Shape::Params(fields) | Shape::Drivers(fields) => {
                let key = existing_or_lower(node, part);
                let shape = fields.iter().find(|field| field.key == key).map_or(&Shape::Any, |field| &field.shape);
                self.descend(node, key, shape, rest)
            }
            Shape::Map(inner) => self.descend(node, existing_or_lower(node, part), inner, rest),
            Shape::List(inner) => self.element(node, part, inner, rest),
            Shape::Any => match &node.value {
                Value::List(_) => self.element(node, part, &Shape::Any, rest),
                Value::Map(_) | Value::Null => self.descend(node, existing_or_lower(node, part), &Shape::Any, rest),
                Value::Scalar(_) => Err(self.too_deep(part)),
            },
            _ => Err(self.too_deep(part)),
        }
    }

    fn descend(&mut self, node: &mut Node, key: String, shape: &Shape, rest: &[&str]) -> Result<(), Diagnostic> {
        if node.is_null() {
            node.value = Value::Map(Vec::new());
            node.place = self.place.clone();
        }
        // A scalar or list where a section belongs is reported with the file; there is nothing to set in it.
        let Value::Map(entries) = &mut node.value else {
            return Ok(());
        };
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(&key);
        let at = match entries.iter().position(|entry| entry.key == key) {
            Some(at) => at,
            None => {
                let place = self.place.clone();
                entries.push(Entry { key, place: place.clone(), value: Node::null(place) });
                entries.len() - 1
            }
        };
        let entry = &mut entries[at];
        let result = self.set(&mut entry.value, shape, rest);
        if rest.is_empty() {
            entry.place = self.place.clone();
        }
        // A section that was only made on the way to an unrecognised name is taken back.
        if result.is_err() && entry.value.is_null() && entry.place == self.place {
            entries.remove(at);
        }
        result
    }

    fn element(&mut self, node: &mut Node, part: &str, shape: &Shape, rest: &[&str]) -> Result<(), Diagnostic> {
        if node.is_null() {
            node.value = Value::List(Vec::new());
            node.place = self.place.clone();
        }
        let Value::List(items) = &mut node.value else {
            return Ok(());
        };
        let length = items.len();
        let Some(index) = part.parse::<usize>().ok().filter(|index| *index <= length) else {
            let message = format!("`{part}` is no element of this list");
            return Err(Diagnostic::error(&self.place, &self.path, message).hint(match length {
                0 => "the list is empty; begin with 0".to_owned(),
                _ => format!("it has {length}; write a number below that, or {length} to add one"),
            }));
        };
        if index == length {
            items.push(Node::null(self.place.clone()));
        }
        self.path.push_str(&format!("[{index}]"));
        self.set(&mut items[index], shape, rest)
    }

    /// `rest` begins with the part that is no field.
    fn unrecognised(&self, rest: &[&str], fields: &[Field]) -> Diagnostic {
        let part = rest[0];
        let message = format!("`{part}` is no setting, the variable is ignored");
        let problem = Diagnostic::warning(&self.place, &self.path, message);
        if self.path.is_empty() && matches!(part, "SERVICE" | "PORT") {
            return problem.hint(
                "Kubernetes sets such variables for a service named `registry`; `enableServiceLinks: false` stops it",
            );
        }
        let near = fields
            .iter()
            .find(|field| field.key.eq_ignore_ascii_case(part))
            .map(|field| field.variable)
            .or_else(|| keys::closest(part, fields.iter().map(|field| field.variable)));
        match near {
            Some(near) => {
                let mut parts = self.parts.to_vec();
                parts[self.parts.len() - rest.len()] = near;
                problem.hint(format!("did you mean `{PREFIX}{}`?", parts.join("_")))
            }
            None => problem,
        }
    }

    fn too_deep(&self, part: &str) -> Diagnostic {
        let message = format!("is a plain value without a part `{part}`, the variable is ignored");
        Diagnostic::warning(&self.place, &self.path, message)
            .hint("`_` separates keys; a key with `_` in its name cannot be set by a variable")
    }
}

/// The key of the map that equals `part` in any case, else `part` in lower case.
fn existing_or_lower(node: &Node, part: &str) -> String {
    node.entries()
        .iter()
        .find(|entry| entry.key.eq_ignore_ascii_case(part))
        .map_or_else(|| part.to_lowercase(), |entry| entry.key.clone())
}
