//! Owns reading the keywords of one section by the table: inheritance, defaults, conversion; and collecting what is
//! wrong.

use std::{cell::RefCell, time::Duration};

use super::super::{
    convert::{self, Wrong},
    diagnostic::{Diagnostic, Place},
    keyword::{self, Inherit, Keyword, Type},
    resolve::{Resolver, Value},
};

/// A section that is being read.
pub(in crate::config) struct Section<'a> {
    resolver: &'a Resolver<'a>,
    name: String,
    group: String,
    driver: &'a str,
    place: Place,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Section<'a> {
    pub(in crate::config) fn new(resolver: &'a Resolver<'a>, name: &str, driver: &'a str, place: &Place) -> Self {
        let group = name.split('#').next().unwrap_or(name).to_owned();
        Self { resolver, name: name.to_owned(), group, driver, place: *place, found: RefCell::default() }
    }

    pub(in crate::config) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    /// Says that something is wrong.
    pub(in crate::config) fn wrong(&self, place: Place, what: impl Into<String>, hint: impl Into<Option<String>>) {
        self.found.borrow_mut().push(Diagnostic::error(place, what, hint));
    }

    fn keyword(&self, name: &str) -> &'static Keyword {
        keyword::find(&self.group, self.driver, name).expect("the reader asks for keywords of the table")
    }

    /// The value of a keyword: its own, `[DEFAULT]`'s, or the default. An empty one is none.
    pub(in crate::config) fn text(&self, name: &str) -> Option<Value> {
        let keyword = self.keyword(name);
        let sections: &[&str] = match keyword.inherit {
            Inherit::Leaf => &[&self.name],
            Inherit::Head => &["DEFAULT"],
            Inherit::LeafThenHead => &[&self.name, "DEFAULT"],
        };
        for section in sections {
            match self.resolver.get(section, name) {
                Ok(Some(value)) => {
                    let unknown = self.resolver.unknown_references(section, &value.text);
                    for reference in unknown {
                        let what = format!("`{{{reference}}}` refers to nothing");
                        let hint = "it stays as written; set it in this section, in [DEFAULT] or in [env]".to_owned();
                        self.found.borrow_mut().push(Diagnostic::warning(value.place, what, hint));
                    }
                    return Some(value).filter(|value| !value.text.trim().is_empty());
                }
                Ok(None) => {}
                Err(diagnostic) => {
                    self.found.borrow_mut().push(diagnostic);
                    return None;
                }
            }
        }
        let text = self.resolver.text(&self.name, keyword.default?).ok()?;
        Some(Value { text, place: self.place, section: self.name.clone() })
    }

    /// The value of a keyword that has to be there.
    pub(in crate::config) fn required(&self, name: &str) -> Option<Value> {
        let value = self.text(name);
        if value.is_none() && !self.found.borrow().iter().any(|found| found.what.starts_with(&format!("`{name}`"))) {
            let example = self.keyword(name).example;
            self.wrong(self.place, format!("[{}] needs `{name}`", self.name), format!("such as {name} = {example}"));
        }
        value
    }

    fn converted<T>(&self, name: &str, convert: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let value = self.text(name)?;
        match convert(&value.text) {
            Ok(converted) => Some(converted),
            Err((what, hint)) => {
                self.wrong(value.place, format!("`{name}`: {what}"), hint.to_owned());
                None
            }
        }
    }

    pub(in crate::config) fn boolean(&self, name: &str) -> bool {
        self.converted(name, convert::boolean).unwrap_or(false)
    }

    pub(in crate::config) fn tristate(&self, name: &str) -> Option<bool> {
        self.converted(name, convert::boolean)
    }

    pub(in crate::config) fn integer(&self, name: &str, most: u64) -> u64 {
        self.converted(name, |text| convert::integer(text, most)).unwrap_or(0)
    }

    pub(in crate::config) fn size(&self, name: &str) -> Option<u64> {
        self.converted(name, convert::size)
    }

    pub(in crate::config) fn duration(&self, name: &str) -> Duration {
        self.converted(name, convert::duration).unwrap_or_default()
    }

    pub(in crate::config) fn words(&self, name: &str) -> Option<Vec<String>> {
        self.converted(name, convert::words)
    }

    pub(in crate::config) fn list(&self, name: &str) -> Vec<String> {
        self.text(name).map(|value| convert::list(&value.text)).unwrap_or_default()
    }

    /// One of the words that the table allows.
    pub(in crate::config) fn choice(&self, name: &str) -> Option<&'static str> {
        let Type::Choice(words) = self.keyword(name).kind else { unreachable!("the table has words for {name}") };
        let value = self.text(name)?;
        let chosen = words.iter().find(|word| **word == value.text.trim()).copied();
        if chosen.is_none() {
            let near = super::nearest(&value.text, words.iter().copied());
            let hint =
                near.map_or_else(|| format!("write {}", words.join(", ")), |near| format!("did you mean {near}?"));
            self.wrong(value.place, format!("`{}` is no {name}", value.text), hint);
        }
        chosen
    }

    /// An octal mode.
    pub(in crate::config) fn mode(&self, name: &str) -> Option<u32> {
        self.converted(name, |text| match u32::from_str_radix(text.trim(), 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err((format!("`{text}` is no mode"), "write octal digits, such as 750")),
        })
    }

    /// An absolute path without `..`.
    pub(in crate::config) fn absolute(&self, name: &str, value: &Value) -> Option<String> {
        let text = value.text.trim();
        if is_absolute(text) {
            return Some(text.to_owned());
        }
        self.wrong(
            value.place,
            format!("`{name}`: `{text}` is no absolute path"),
            "begin with /, without ..".to_owned(),
        );
        None
    }
}

/// Whether a path begins at the root and never goes up.
pub(in crate::config) fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}
