//! Owns changes of single keywords as people write them: `om set`, `om unset`, `om get`. Does not own whether what
//! comes of them is right: the changed text is read and checked as a whole.

use std::str::FromStr;

use super::{convert, document::Document, keyword::GROUPS};

/// Groups of sections of which one name can mean all, besides those of resources.
const SHARED_GROUPS: [&str; 3] = ["pool", "network", "subset"];

/// Which setting is meant: `[section.]keyword[@scope]`.
///
/// Without a section it is `DEFAULT`. The name of a group, such as `app`, means all of its sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A section, or a group.
    pub section: String,
    /// The keyword, with its scope.
    pub key: String,
}

/// What `om set` does to a setting: `[section.]keyword[@scope][[index]]OP value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which setting.
    pub target: Target,
    /// Which word of its list, from 0; none: all of it.
    pub index: Option<usize>,
    /// How.
    pub operator: Operator,
    /// The value.
    pub value: String,
}

/// How a value gets into a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`: in place of what is there.
    Set,
    /// `+=`: a word at the end of the list, or before the one with the index.
    Append,
    /// `-=`: words that leave the list.
    Remove,
    /// `|=`: a word at the end of the list, if it is not in it.
    Add,
}

/// A change that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No assignment.
    #[error("`{0}` sets nothing (hint: [SECTION.]KEYWORD=VALUE, such as env.size=10g; += -= |= change lists)")]
    NoOperator(String),
    /// No keyword.
    #[error("`{0}` names no keyword (hint: [SECTION.]KEYWORD[@NODE], such as container#1.image)")]
    Key(String),
    /// A group without sections.
    #[error("there is no section of group {group} (hint: name one, such as {group}#1.{key})")]
    NoSection {
        /// The group.
        group: String,
        /// The keyword.
        key: String,
    },
    /// No such word.
    #[error("`{key}` has {count} words, not one with number {index} (hint: they count from 0)")]
    Index {
        /// The keyword.
        key: String,
        /// Its words.
        count: usize,
        /// What was asked for.
        index: usize,
    },
    /// An index that means nothing.
    #[error("`{0}`: an index goes with = and += only (hint: -= takes the word itself)")]
    IndexedOperator(String),
    /// Quotes in a list.
    #[error("the value of `{0}` has quotes, of which words are not taken apart (hint: set the whole value with =)")]
    Quotes(String),
    /// A control character.
    #[error("the value of `{0}` has a control character (hint: line feeds and tabs only)")]
    Control(String),
}

impl FromStr for Target {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        let wrong = || EditError::Key(text.to_owned());
        let trimmed = text.trim();
        // Scopes are names of nodes, which may have dots.
        let before_scope = trimmed.split('@').next().unwrap_or(trimmed);
        let (section, key) = match before_scope.split_once('.') {
            Some((section, _)) => (section, &trimmed[section.len() + 1..]),
            None => ("DEFAULT", trimmed),
        };
        let is_plain = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "[]=".contains(c))
        };
        let (keyword, scope) = key.split_once('@').map_or((key, None), |(keyword, scope)| (keyword, Some(scope)));
        let fits = is_plain(section)
            && is_plain(keyword)
            && !keyword.contains(':')
            && !keyword.starts_with(['#', ';'])
            && scope.is_none_or(|scope| is_plain(scope) && !scope.contains([':', '@']));
        if !fits {
            return Err(wrong());
        }
        Ok(Self { section: section.to_owned(), key: key.to_owned() })
    }
}

impl Target {
    /// The sections of a document that are meant; a section that is not there yet is among them, a group is not.
    pub fn sections(&self, document: &Document) -> Vec<String> {
        let is_group = GROUPS.iter().map(|(group, _)| *group).chain(SHARED_GROUPS).any(|group| group == self.section);
        if !is_group {
            return vec![self.section.clone()];
        }
        let all = document.sections().into_iter().map(|(name, _)| name);
        all.filter(|name| name.split_once('#').is_some_and(|(group, _)| group == self.section))
            .map(str::to_owned)
            .collect()
    }

    /// Its values as they are written, each with its section; empty where it is not set.
    pub fn get(&self, document: &Document) -> Vec<(String, String)> {
        let sections = self.sections(document).into_iter();
        sections.filter_map(|section| document.get(&section, &self.key).map(|value| (section, value))).collect()
    }

    /// Removes it; false if it is not set.
    pub fn unset(&self, document: &mut Document) -> bool {
        let sections = self.sections(document);
        sections.iter().filter(|section| document.unset(section, &self.key)).count() > 0
    }
}

/// Removes what `om unset` names: a keyword, or a section with a `#` and all that is in it. False if there is none.
///
/// # Errors
/// If the text names neither.
pub fn unset(document: &mut Document, text: &str) -> Result<bool, EditError> {
    let name = text.trim();
    if name.contains('#') && !name.contains('.') {
        return Ok(document.remove_section(name));
    }
    Ok(name.parse::<Target>()?.unset(document))
}

impl FromStr for Assignment {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        let (left, value) = text.split_once('=').ok_or_else(|| EditError::NoOperator(text.to_owned()))?;
        let (left, operator) = [('+', Operator::Append), ('-', Operator::Remove), ('|', Operator::Add)]
            .into_iter()
            .find_map(|(sign, operator)| left.strip_suffix(sign).map(|left| (left, operator)))
            .unwrap_or((left, Operator::Set));
        let left = left.trim();
        let (target, index) = match left.strip_suffix(']').and_then(|left| left.rsplit_once('[')) {
            Some((target, index)) => (target, Some(index.parse().map_err(|_| EditError::Key(left.to_owned()))?)),
            None => (left, None),
        };
        let target: Target = target.parse()?;
        let value = value.trim();
        if value.contains(|c: char| c.is_control() && !['\n', '\r', '\t'].contains(&c)) {
            return Err(EditError::Control(target.key));
        }
        if index.is_some() && !matches!(operator, Operator::Set | Operator::Append) {
            return Err(EditError::IndexedOperator(text.to_owned()));
        }
        Ok(Self { target, index, operator, value: value.to_owned() })
    }
}

impl Assignment {
    /// Makes the change; on an error nothing is changed.
    ///
    /// # Errors
    /// If a group has no sections, an index is outside of the list, or the list has quotes.
    pub fn apply(&self, document: &mut Document) -> Result<(), EditError> {
        let Target { section, key } = &self.target;
        let sections = self.target.sections(document);
        if sections.is_empty() {
            return Err(EditError::NoSection { group: section.clone(), key: key.clone() });
        }
        let changed = sections
            .into_iter()
            .map(|section| {
                let value = self.changed(document.get(&section, key))?;
                Ok((section, value))
            })
            .collect::<Result<Vec<_>, EditError>>()?;
        for (section, value) in changed {
            document.set(&section, key, &value);
        }
        Ok(())
    }

    fn changed(&self, before: Option<String>) -> Result<String, EditError> {
        if self.operator == Operator::Set && self.index.is_none() {
            return Ok(self.value.clone());
        }
        let before = before.unwrap_or_default();
        // What is only appended may be anything.
        if before.contains(['\'', '"', '\\']) && (self.operator != Operator::Append || self.index.is_some()) {
            return Err(EditError::Quotes(self.target.key.clone()));
        }
        let mut words = convert::list(&before);
        let outside = |index, count| EditError::Index { key: self.target.key.clone(), count, index };
        match (self.operator, self.index) {
            (Operator::Set, Some(index)) => {
                let count = words.len();
                *words.get_mut(index).ok_or_else(|| outside(index, count))? = self.value.clone();
            }
            (Operator::Append, Some(index)) if index <= words.len() => words.insert(index, self.value.clone()),
            (Operator::Append, Some(index)) => return Err(outside(index, words.len())),
            (Operator::Remove, _) => {
                let gone = convert::list(&self.value);
                words.retain(|word| !gone.contains(word));
            }
            (Operator::Add, _) => {
                for word in convert::list(&self.value) {
                    if !words.contains(&word) {
                        words.push(word);
                    }
                }
            }
            (Operator::Append | Operator::Set, None) => {
                return Ok(format!("{before} {}", self.value).trim().to_owned());
            }
        }
        Ok(words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[DEFAULT]\nnodes = a b\nnodes@a.b = c\n[app#1]\nstart = /x 'y z'\n[app#2]\nstart = /y\n";

    #[test]
    fn assignments_change_what_they_name() {
        let check = |assignment: &str, expected: Result<String, &str>| {
            let mut document = Document::parse(TEXT).expect("a text");
            let done = assignment.parse::<Assignment>().and_then(|assignment| assignment.apply(&mut document));
            match (done, expected) {
                (Ok(()), Ok(expected)) => assert_eq!(document.to_string(), expected, "{assignment}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().starts_with(expected), "{assignment}: {error}");
                    assert_eq!(document.to_string(), TEXT, "{assignment}");
                }
                (got, expected) => panic!("{assignment}: {got:?}, not {expected:?}"),
            }
        };
        let replaced = |from: &str, to: &str| Ok(TEXT.replacen(from, to, 1));
        check("nodes=x y", replaced("a b", "x y"));
        check("DEFAULT.nodes = x", replaced("a b", "x"));
        check("nodes+=c", replaced("a b", "a b c"));
        check("nodes-=a", replaced("a b", "b"));
        check("nodes|=b", replaced("a b", "a b"));
        check("nodes|=b c", replaced("a b", "a b c"));
        check("nodes[1]=x", replaced("a b", "a x"));
        check("nodes[0]+=x", replaced("a b", "x a b"));
        check("nodes@a.b=d", replaced("= c", "= d"));
        check("env.size=10g", Ok(format!("{TEXT}\n[env]\nsize = 10g\n")));
        check("env.opts=--a=b -c", Ok(format!("{TEXT}\n[env]\nopts = --a=b -c\n")));
        check("app#1.start=/z", replaced("/x 'y z'", "/z"));
        check("app#1.start+=w", replaced("/x 'y z'", "/x 'y z' w"));
        check("app.restart=2", Ok(TEXT.replace("'y z'\n", "'y z'\nrestart = 2\n") + "restart = 2\n"));
        check("disk.size=1g", Err("there is no section of group disk (hint: name one, such as disk#1.size"));
        check("app#1.start-=/x", Err("the value of `start` has quotes"));
        check("nodes[2]=x", Err("`nodes` has 2 words, not one with number 2"));
        check("nodes[3]+=x", Err("`nodes` has 2 words"));
        check("nodes[0]-=x", Err("`nodes[0]-=x`: an index goes with"));
        check("nodes[x]=x", Err("`nodes[x]` names no keyword"));
        check("nodes", Err("`nodes` sets nothing"));
        check("=x", Err("`` names no keyword"));
        check("a b=x", Err("`a b` names no keyword"));
        check("#a=x", Err("`#a` names no keyword"));
        check("[env].size=1", Err("`[env].size` names no keyword"));
        check("nodes@=x", Err("`nodes@` names no keyword"));
        check("nodes=\u{7}", Err("the value of `nodes` has a control character"));
        check("nodes=x\n[app#9]\ny=1", Ok(TEXT.replace("a b", "x\n\t[app#9]\n\ty=1")));
    }

    #[test]
    fn settings_are_got_and_unset() {
        let mut document = Document::parse(TEXT).expect("a text");
        let get = |document: &Document, text: &str| {
            let found = text.parse::<Target>().expect("a target").get(document);
            found.iter().map(|(section, value)| format!("{section} {value}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(get(&document, "nodes"), "DEFAULT a b");
        assert_eq!(get(&document, "nodes@a.b"), "DEFAULT c");
        assert_eq!(get(&document, "app.start"), "app#1 /x 'y z', app#2 /y");
        assert_eq!(get(&document, "app#3.start"), "");
        for (text, expected) in
            [("nodes", true), ("nodes", false), ("app.start", true), ("app#2", true), ("app#2", false)]
        {
            assert_eq!(unset(&mut document, text), Ok(expected), "{text}");
        }
        assert_eq!(document.to_string(), "[DEFAULT]\nnodes@a.b = c\n[app#1]\n");
    }
}
