//! Owns the text of a configuration: sections, keys, values and where they stand; and changes of it that leave every
//! other character as it was. Does not own what a key means.

use std::fmt;

use super::diagnostic::{Diagnostic, Place};

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// The longest value, in bytes.
const MAX_VALUE: usize = 16 * 1024;

/// A configuration text, read.
///
/// `[section]`, `key = value`, lines that begin with blanks continue a value, lines that begin with `#` or `;` are
/// comments. Printing it gives the text back, character by character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// As it is written, without its line end.
    text: String,
    /// Its line end: empty only for the last.
    end: &'static str,
    kind: LineKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LineKind {
    /// Blank, or a comment.
    Other,
    Section(String),
    /// Its value begins at this byte.
    Key {
        key: String,
        value_at: usize,
    },
    /// More of the value above.
    More,
}

/// A key as it is written in a section, with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The section.
    pub section: &'a str,
    /// The keyword, without its scope.
    pub keyword: &'a str,
    /// What follows the `@`: a node, or a group of nodes.
    pub scope: Option<&'a str>,
    /// The value; lines of a continued one are joined by a line feed, without the blanks around them.
    pub value: String,
    /// Where the key is.
    pub key_place: Place,
    /// Where the value begins.
    pub value_place: Place,
}

fn place(line: usize, text: &str, byte: usize) -> Place {
    let column = text.get(..byte).map_or(byte, |before| before.chars().count()) + 1;
    Place { line: u32::try_from(line + 1).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// Everything that is wrong with its form.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        if text.len() > MAX_TEXT {
            let what = format!("the text has {} bytes, {MAX_TEXT} are allowed", text.len());
            return Err(vec![Diagnostic::error(Place { line: 1, column: 1 }, what, None)]);
        }
        let mut found = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        let (mut in_section, mut after_key) = (false, false);
        for (number, whole) in text.split_inclusive('\n').enumerate() {
            let (text, end) = match whole.strip_suffix("\r\n") {
                Some(text) => (text, "\r\n"),
                None => whole.strip_suffix('\n').map_or((whole, ""), |text| (text, "\n")),
            };
            let trimmed = text.trim();
            let at = |byte| place(number, text, byte);
            let first = text.len() - text.trim_start().len();
            if let Some(wrong) = text.find(|c: char| c.is_control() && c != '\t') {
                found.push(Diagnostic::error(at(wrong), "a control character", "remove it".to_owned()));
            }
            let kind = if trimmed.is_empty() || text.starts_with(['#', ';']) {
                after_key &= !trimmed.is_empty();
                LineKind::Other
            } else if text.starts_with([' ', '\t']) && after_key {
                LineKind::More
            } else if let Some(rest) = trimmed.strip_prefix('[') {
                after_key = false;
                match rest.strip_suffix(']').map(str::trim) {
                    Some(name) if !name.is_empty() && !name.contains(['[', ']']) => {
                        in_section = true;
                        LineKind::Section(name.to_owned())
                    }
                    _ => {
                        let what = format!("`{trimmed}` is no section");
                        found.push(Diagnostic::error(at(first), what, "write [NAME], alone on its line".to_owned()));
                        LineKind::Other
                    }
                }
            } else {
                match text.split_once(['=', ':']) {
                    _ if !in_section => {
                        let hint = "write [DEFAULT] above the first key".to_owned();
                        found.push(Diagnostic::error(at(first), format!("`{trimmed}` is in no section"), hint));
                        LineKind::Other
                    }
                    Some((key, value)) if is_key(key.trim()) => {
                        after_key = true;
                        let value_at = text.len() - value.trim_start().len();
                        LineKind::Key { key: key.trim().to_owned(), value_at }
                    }
                    _ => {
                        let hint = "write KEY = VALUE; a line that goes on begins with a blank".to_owned();
                        found.push(Diagnostic::error(at(first), format!("`{trimmed}` is no key with a value"), hint));
                        LineKind::Other
                    }
                }
            };
            lines.push(Line { text: text.to_owned(), end, kind });
        }
        let document = Self { lines };
        document.check_twice(&mut found);
        if found.is_empty() { Ok(document) } else { Err(found) }
    }

    fn check_twice(&self, found: &mut Vec<Diagnostic>) {
        let mut seen = std::collections::HashMap::new();
        for setting in self.settings() {
            let key = (setting.section.to_owned(), setting.keyword.to_owned(), setting.scope.map(str::to_owned));
            if setting.value.len() > MAX_VALUE {
                let what = format!("the value of `{}` is longer than {MAX_VALUE} bytes", setting.keyword);
                found.push(Diagnostic::error(setting.value_place, what, None));
            }
            if let Some(before) = seen.insert(key, setting.key_place.line) {
                let what = format!("`{}` is set twice in [{}]", setting.keyword, setting.section);
                found.push(Diagnostic::error(
                    setting.key_place,
                    what,
                    format!("the first is on line {before}: keep one"),
                ));
            }
        }
    }

    /// An empty text.
    pub fn empty() -> Self {
        Self { lines: Vec::new() }
    }

    /// The names of its sections, in order, each once, with where it begins.
    pub fn sections(&self) -> Vec<(&str, Place)> {
        let mut all: Vec<(&str, Place)> = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            if let LineKind::Section(name) = &line.kind
                && all.iter().all(|(other, _)| other != name)
            {
                all.push((name, place(number, &line.text, line.text.find('[').unwrap_or(0))));
            }
        }
        all
    }

    /// All settings, in order.
    pub fn settings(&self) -> Vec<Setting<'_>> {
        let mut all: Vec<Setting<'_>> = Vec::new();
        let mut section = "";
        for (number, line) in self.lines.iter().enumerate() {
            match &line.kind {
                LineKind::Section(name) => section = name,
                LineKind::Key { key, value_at } => {
                    let (keyword, scope) = key.split_once('@').map_or((&**key, None), |(k, s)| (k, Some(s)));
                    all.push(Setting {
                        section,
                        keyword,
                        scope,
                        value: line.text[*value_at..].trim_end().to_owned(),
                        key_place: place(number, &line.text, line.text.len() - line.text.trim_start().len()),
                        value_place: place(number, &line.text, *value_at),
                    });
                }
                LineKind::More => {
                    if let Some(setting) = all.last_mut() {
                        if !setting.value.is_empty() {
                            setting.value.push('\n');
                        }
                        setting.value.push_str(line.text.trim());
                    }
                }
                LineKind::Other => {}
            }
        }
        all
    }

    /// The value of a key as it is written: `key` may carry a scope.
    pub fn get(&self, section: &str, key: &str) -> Option<String> {
        let (keyword, scope) = key.split_once('@').map_or((key, None), |(k, s)| (k, Some(s)));
        self.settings()
            .into_iter()
            .find(|s| s.section == section && s.keyword == keyword && s.scope == scope)
            .map(|s| s.value)
    }

    /// Sets a key, where it stands or at the end of its section, which is made at the end of the text if need be.
    ///
    /// Line feeds of the value become lines that are set in; it must not have empty lines inside, which end a value.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let mut written = value.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut lines = vec![own_line(format!("{key} = {}", written.next().unwrap_or_default()), Some(key))];
        lines.extend(written.map(|more| own_line(format!("\t{more}"), None)));
        if let Some(range) = self.range_of(section, key) {
            self.lines.splice(range, lines);
            return;
        }
        if let Some(at) = self.end_of(section) {
            self.end_line_before(at);
            self.lines.splice(at..at, lines);
            return;
        }
        self.end_line_before(self.lines.len());
        if self.lines.last().is_some_and(|line| !line.text.trim().is_empty()) {
            self.lines.push(Line { text: String::new(), end: "\n", kind: LineKind::Other });
        }
        let kind = LineKind::Section(section.to_owned());
        self.lines.push(Line { text: format!("[{section}]"), end: "\n", kind });
        self.lines.extend(lines);
    }

    /// Removes a key; false if there is none.
    pub fn unset(&mut self, section: &str, key: &str) -> bool {
        self.range_of(section, key).map(|range| self.lines.drain(range)).is_some()
    }

    /// Removes a section with all that is in it; false if there is none.
    pub fn remove_section(&mut self, section: &str) -> bool {
        let before = self.lines.len();
        let mut inside = false;
        self.lines.retain(|line| {
            if let LineKind::Section(name) = &line.kind {
                inside = name == section;
            }
            !inside
        });
        self.lines.len() < before
    }

    fn end_line_before(&mut self, at: usize) {
        if let Some(line) = at.checked_sub(1).and_then(|last| self.lines.get_mut(last))
            && line.end.is_empty()
        {
            line.end = "\n";
        }
    }

    /// The lines of a key.
    fn range_of(&self, section: &str, key: &str) -> Option<std::ops::Range<usize>> {
        let mut current = "";
        for (number, line) in self.lines.iter().enumerate() {
            match &line.kind {
                LineKind::Section(name) => current = name,
                LineKind::Key { key: found, .. } if current == section && found == key => {
                    let mut end = number + 1;
                    for (later, line) in self.lines.iter().enumerate().skip(number + 1) {
                        match line.kind {
                            LineKind::More => end = later + 1,
                            LineKind::Other if !line.text.trim().is_empty() => {}
                            _ => break,
                        }
                    }
                    return Some(number..end);
                }
                _ => {}
            }
        }
        None
    }

    /// Where a new key of a section goes: after its last line that is not blank.
    fn end_of(&self, section: &str) -> Option<usize> {
        let mut inside = false;
        let mut end = None;
        for (number, line) in self.lines.iter().enumerate() {
            if let LineKind::Section(name) = &line.kind {
                inside = name == section;
            }
            if inside && !line.text.trim().is_empty() {
                end = Some(number + 1);
            }
        }
        end
    }
}

fn own_line(text: String, key: Option<&str>) -> Line {
    let kind = key.map_or(LineKind::More, |key| {
        let value_at = (key.len() + 3).min(text.len());
        LineKind::Key { key: key.to_owned(), value_at }
    });
    Line { text, end: "\n", kind }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || "[]".contains(c))
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| write!(f, "{}{}", line.text, line.end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# head\n[DEFAULT]\nnodes = a b\n  c\n# inside\nsize@a: 1\n\n[fs#1]\ntype=directory ; x\n";

    #[test]
    fn settings_have_places_and_values() {
        let document = Document::parse(TEXT).expect("a text");
        let shown: Vec<String> = document
            .settings()
            .iter()
            .map(|s| {
                let Place { line, column } = s.value_place;
                format!("{}.{}@{}={:?} {line}:{column}", s.section, s.keyword, s.scope.unwrap_or("-"), s.value)
            })
            .collect();
        assert_eq!(
            shown,
            ["DEFAULT.nodes@-=\"a b\\nc\" 3:9", "DEFAULT.size@a=\"1\" 6:9", "fs#1.type@-=\"directory ; x\" 9:6",]
        );
    }

    #[test]
    fn all_errors_come_at_once() {
        let check = |text: &str, expected: &[&str]| {
            let got = Document::parse(text).expect_err("errors");
            let got: Vec<String> = got.iter().map(|d| d.shown("f").to_string()).collect();
            assert_eq!(got.len(), expected.len(), "{got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert!(got.starts_with(expected), "{got} is not {expected}");
            }
        };
        check("a = 1\n", &["f:1:1: error: `a = 1` is in no section"]);
        check(
            "[DEFAULT\n[x]\nword\na = 1\na = 2\n",
            &[
                "f:1:1: error: `[DEFAULT` is no section",
                "f:3:1: error: `word` is no key",
                "f:5:1: error: `a` is set twice in [x] (hint: the first is on line 4",
            ],
        );
        check("[x]\na = \u{7}b\n", &["f:2:5: error: a control character"]);
        check(&"#".repeat(MAX_TEXT + 1), &["f:1:1: error: the text has 65537 bytes"]);
    }

    #[test]
    fn changes_leave_the_rest_as_it_was() {
        let check = |change: &dyn Fn(&mut Document), expected: &str| {
            let mut document = Document::parse(TEXT).expect("a text");
            change(&mut document);
            assert_eq!(document.to_string(), expected);
            Document::parse(expected).expect("it reads back");
        };
        check(&|d| d.set("DEFAULT", "nodes", "x"), &TEXT.replace("a b\n  c", "x"));
        check(&|d| d.set("DEFAULT", "new", "1\n2"), &TEXT.replace("size@a: 1\n", "size@a: 1\nnew = 1\n\t2\n"));
        check(&|d| d.set("env", "size", "10g"), &format!("{TEXT}\n[env]\nsize = 10g\n"));
        check(&|d| assert!(d.unset("DEFAULT", "size@a")), &TEXT.replace("size@a: 1\n", ""));
        check(&|d| assert!(!d.unset("DEFAULT", "size")), TEXT);
        check(&|d| assert!(d.remove_section("fs#1")), &TEXT.replace("[fs#1]\ntype=directory ; x\n", ""));
    }

    proptest! {
        #[test]
        fn printing_gives_the_text_back(text in "(\\[[a-z#1]{1,4}\\]\r?\n|[a-z@]{1,5} ?[=:] ?[a-z ]{0,6}\n|[ \t][a-z]{1,4}\n|[#;][ -~]{0,8}\n|\n){0,20}") {
            if let Ok(document) = Document::parse(&text) {
                prop_assert_eq!(document.to_string(), text);
            }
        }

        #[test]
        fn what_was_set_is_got(section in "[a-z]{1,3}", key in "[a-z]{1,3}", value in "[a-z =:\\[]{0,9}") {
            let mut document = Document::parse(TEXT).expect("a text");
            document.set(&section, &key, &value);
            prop_assert_eq!(document.get(&section, &key), Some(value.trim().to_owned()));
            let again = Document::parse(&document.to_string()).expect("it reads back");
            prop_assert_eq!(again.get(&section, &key), Some(value.trim().to_owned()));
        }
    }
}
