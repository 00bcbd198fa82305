//! YAML text as a tree in which every key and value knows where it was written.
//!
//! Owns parsing, merge keys, aliases and their limits. Knows no configuration key; what a scalar means is
//! decided by `scalar`, what a key means by `schema`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::diagnostic::{Diagnostic, Place};

/// Largest text that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// Most nodes after aliases are expanded.
const MAX_NODES: usize = 5_000;
/// Most bytes of keys and scalars after aliases are expanded.
const MAX_EXPANDED: usize = 4 << 20;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Start of the value; the key's place where there is no value.
    pub(crate) place: Place,
    /// The value.
    pub(crate) value: Value,
}

/// What YAML can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// One plain or quoted word or text.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// A scalar's text, uninterpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    /// The text after unquoting.
    pub(crate) text: String,
    /// Written without quotes, so that it may be a number or a boolean.
    pub(crate) plain: bool,
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: String,
    /// Where the key was written.
    pub(crate) place: Place,
    /// Its value.
    pub(crate) value: Node,
}

impl Node {
    /// A node without a value.
    pub(crate) fn null(place: Place) -> Self {
        Self { place, value: Value::Null }
    }

    /// Whether there is no value.
    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The scalar, if it is one.
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The elements, if it is a list; none otherwise.
    pub(crate) fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries, if it is a mapping; none otherwise.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry under `key`, exactly as spelled.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Whether anything but nothing, empty text and empty collections is in there.
    pub(crate) fn is_filled(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Scalar(scalar) => !scalar.text.is_empty(),
            Value::List(items) => items.iter().any(Node::is_filled),
            Value::Map(entries) => entries.iter().any(|entry| entry.value.is_filled()),
        }
    }

    /// What it is, for a sentence: `a list`.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a plain value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Parses the first document of a file; also returns a warning if there are more.
///
/// # Errors
/// Text over [`MAX_BYTES`], broken YAML, a key twice in one mapping, or a tree beyond the limits.
pub(crate) fn parse_file(name: &str, text: &str) -> Result<(Node, Option<Diagnostic>), Diagnostic> {
    let name: Arc<str> = Arc::from(name);
    let at = move |marker: &Marker| Place::File {
        name: Arc::clone(&name),
        line: marker.line().max(1),
        column: marker.col() + 1,
    };
    parse(text, &at)
}

/// Parses the value of an environment variable; every node has the variable as its place.
///
/// # Errors
/// As [`parse_file`].
pub(crate) fn parse_variable(name: &str, text: &str) -> Result<Node, Diagnostic> {
    let place = Place::Variable(Arc::from(name));
    parse(text, &|_| place.clone()).map(|(node, _)| node)
}

type At<'a> = &'a dyn Fn(&Marker) -> Place;

fn parse(text: &str, at: At<'_>) -> Result<(Node, Option<Diagnostic>), Diagnostic> {
    let start = Marker::new(0, 1, 0);
    if text.len() > MAX_BYTES {
        return Err(Diagnostic::error(&at(&start), "", format!("is larger than {} KiB", MAX_BYTES >> 10)));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { parser: Parser::new_from_str(text), at, anchors: HashMap::new(), nodes: 0, bytes: 0 };
    let mut root = None;
    loop {
        match builder.next()? {
            (Event::DocumentStart(_), marker) if root.is_some() => {
                let more = Diagnostic::warning(&at(&marker), "", "only the first YAML document is read")
                    .hint("remove the line `---` and what follows it");
                return Ok((root.expect("just matched"), Some(more)));
            }
            (Event::DocumentStart(_), _) => {
                let (event, marker) = builder.next()?;
                root = Some(builder.node(event, marker, 0)?);
            }
            (Event::StreamEnd, _) => {
                return Ok((root.unwrap_or_else(|| Node::null(at(&start))), None));
            }
            _ => {}
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    at: At<'a>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Marker), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => {
                let place = (self.at)(error.marker());
                let hint = match &place {
                    Place::File { .. } => "check the indentation, and quote values that begin with a special character",
                    Place::Variable(_) => {
                        "a variable's value is read as YAML; put it in double quotes inside the variable"
                    }
                };
                let message = format!("is not YAML: {}", error.info());
                Err(Diagnostic::error(&place, "", message).hint(hint))
            }
            None => Ok((Event::StreamEnd, Marker::new(0, 1, 0))),
        }
    }

    fn node(&mut self, event: Event<'a>, marker: Marker, depth: usize) -> Result<Node, Diagnostic> {
        let place = (self.at)(&marker);
        if depth > MAX_DEPTH {
            return Err(Diagnostic::error(&place, "", format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(&place, 1, text.len())?;
                (scalar(text.into_owned(), style, tag.as_deref()), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.count(&place, 1, 0)?;
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, marker) => items.push(self.node(event, marker, depth + 1)?),
                    }
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => {
                self.count(&place, 1, 0)?;
                (self.mapping(depth)?, anchor)
            }
            Event::Alias(id) => {
                let Some(original) = self.anchors.get(&id).cloned() else {
                    return Err(Diagnostic::error(&place, "", "an alias stands inside the value it names"));
                };
                let (nodes, bytes, levels) = measure(&original);
                if depth + levels > MAX_DEPTH {
                    return Err(Diagnostic::error(&place, "", format!("is nested more than {MAX_DEPTH} levels deep")));
                }
                self.count(&place, nodes, bytes)?;
                (original.value, 0)
            }
            _ => (Value::Null, 0),
        };
        let node = Node { place, value };
        if anchor > 0 {
            let (nodes, bytes, _) = measure(&node);
            self.count(&node.place, nodes, bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, marker) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let place = (self.at)(&marker);
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = match self.node(event, marker, depth + 1)?.value {
                Value::Scalar(scalar) => scalar.text,
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    return Err(Diagnostic::error(&place, "", "a key must be a plain word")
                        .hint("a value that begins with `{` or `[` needs quotes"));
                }
            };
            let (event, marker) = self.next()?;
            let mut value = self.node(event, marker, depth + 1)?;
            if value.is_null() {
                value.place = place.clone();
            }
            if plain && key == "<<" {
                merged.push(value);
            } else if seen.insert(key.clone()) {
                entries.push(Entry { key, place, value });
            } else {
                return Err(Diagnostic::error(&place, "", format!("the key `{key}` stands here a second time"))
                    .hint("join the two sections; the original registry silently keeps the last one"));
            }
        }
        // A key written out wins over a merged one, an earlier merged mapping over a later one.
        for node in merged {
            let sources = match node.value {
                Value::Map(_) => vec![node],
                Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => items,
                _ => {
                    return Err(Diagnostic::error(&node.place, "", "`<<` merges a mapping or a list of mappings"));
                }
            };
            for source in sources {
                let Value::Map(source) = source.value else {
                    continue;
                };
                entries.extend(source.into_iter().filter(|entry| seen.insert(entry.key.clone())));
            }
        }
        Ok(Value::Map(entries))
    }

    fn count(&mut self, place: &Place, nodes: usize, bytes: usize) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES || self.bytes > MAX_EXPANDED {
            return Err(Diagnostic::error(place, "", "is too large once its aliases are expanded"));
        }
        Ok(())
    }
}

/// Nodes, bytes of text, and levels below this node.
fn measure(node: &Node) -> (usize, usize, usize) {
    let join = |(n, b, l): (usize, usize, usize), child: &Node, key: usize| {
        let (nodes, bytes, levels) = measure(child);
        (n + nodes, b + bytes + key, l.max(levels + 1))
    };
    match &node.value {
        Value::Null => (1, 0, 0),
        Value::Scalar(scalar) => (1, scalar.text.len(), 0),
        Value::List(items) => items.iter().fold((1, 0, 0), |sum, item| join(sum, item, 0)),
        Value::Map(entries) => entries.iter().fold((1, 0, 0), |sum, entry| join(sum, &entry.value, entry.key.len())),
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let plain = match core {
        Some("str") => false,
        Some(_) => true,
        None => style == ScalarStyle::Plain,
    };
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar { text, plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders the tree on one line, with `key@line:column`.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Scalar(s) if s.plain => s.text.clone(),
            Value::Scalar(s) => format!("{:?}", s.text),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let at = |place: &Place| place.to_string().replace("f:", "@");
                let parts: Vec<_> =
                    entries.iter().map(|e| format!("{}{}={}", e.key, at(&e.place), show(&e.value))).collect();
                format!("{{{}}}", parts.join(" "))
            }
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let seen = match parse_file("f", text) {
            Ok((node, None)) => show(&node),
            Ok((node, Some(more))) => format!("{} + {more}", show(&node)),
            Err(error) => error.to_string(),
        };
        assert!(seen.starts_with(expected), "{text:.200}\n  expected {expected}\n  seen     {seen}");
    }

    #[test]
    fn trees() {
        check("", "null");
        check("a: 1\nb:\n  c: 'x y'\n", "{a@1:1=1 b@2:1={c@3:3=\"x y\"}}");
        check("addr: :5000", "{addr@1:1=:5000}");
        check("a: [x, \"1\", ~]\n", "{a@1:1=[x \"1\" null]}");
        check("a: !!str 12\n", "{a@1:1=\"12\"}");
        check("a: &x {b: 1}\nc: *x\n", "{a@1:1={b@1:8=1} c@2:1={b@1:8=1}}");
        check("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", "{a@1:1={b@1:8=1 c@1:14=2} d@2:1={c@2:13=3 b@1:8=1}}");
        check("d: {<<: [{a: 1}, {a: 2}]}\n", "{d@1:1={a@1:11=1}}");
        check("a: 1\n---\nb: 2\n", "{a@1:1=1} + f:2:1: warning: only the first YAML document is read");
    }

    #[test]
    fn refused() {
        check("a: 1\nb: 2\na: 3\n", "f:3:1: error: the key `a` stands here a second time");
        check("a: b: c\n", "f:1:5: error: is not YAML: ");
        check("a: *nowhere\n", "f:1:4: error: is not YAML: ");
        check("a: &x [*x]\n", "f:1:8: error: an alias stands inside the value it names");
        check("a: {<<: 3}\n", "f:1:9: error: `<<` merges");
        check("{}: 1\n", "f:1:1: error: a key must be a plain word");
        check(&"x".repeat(MAX_BYTES + 1), "f:1:1: error: is larger than 1024 KiB");
        check(&"[".repeat(100_000), "f:1:256: error: is not YAML: ");
        check(&"[".repeat(100), "f:1:66: error: is nested more than 64 levels deep");
        check(&"- ".repeat(100_000), "f:1:131: error: is nested more than 64 levels deep");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        check(&bomb, "f:4:20: error: is too large once");
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 1000].join(", "));
        check(&wide, "f:2:");
    }
}
