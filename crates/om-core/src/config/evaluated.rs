//! Owns what `print config` and `get` show: the settings by section, as they are written, or as one node sees them,
//! converted by the type of their keywords. Does not own JSON.

use std::collections::BTreeMap;

use super::{
    convert,
    diagnostic::Diagnostic,
    document::Document,
    keyword::{self, GROUPS, Type},
    resolve::{Context, Resolver},
};
use crate::path::NodeName;

/// A converted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// Any text.
    Text(String),
    /// A truth.
    Boolean(bool),
    /// A number; sizes are bytes, durations seconds.
    Integer(u64),
    /// Words.
    List(Vec<String>),
}

impl Evaluated {
    /// As one text: the words of a list with blanks between.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Boolean(truth) => truth.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::List(words) => words.join(" "),
        }
    }
}

/// By section, then by keyword.
pub type Sections<V> = BTreeMap<String, BTreeMap<String, V>>;

/// All settings as they are written; keywords with their scopes.
pub fn written(document: &Document) -> Sections<String> {
    let mut all: Sections<String> =
        document.sections().into_iter().map(|(name, _)| (name.to_owned(), BTreeMap::new())).collect();
    for setting in document.settings() {
        let key = setting.scope.map_or(setting.keyword.to_owned(), |scope| format!("{}@{scope}", setting.keyword));
        all.entry(setting.section.to_owned()).or_default().insert(key, setting.value);
    }
    all
}

/// All settings that count on the node of the context, without scopes; what is no value of its type stays text.
///
/// # Errors
/// Every setting whose references lead to no end.
pub fn all(document: &Document, context: &Context) -> Result<Sections<Evaluated>, Vec<Diagnostic>> {
    let resolver = Resolver::new(document, context);
    let (mut all, mut found) = (Sections::new(), Vec::new());
    for section in resolver.sections() {
        let values: &mut BTreeMap<String, Evaluated> = all.entry((*section).to_owned()).or_default();
        // What is set for other nodes only is not shown.
        for keyword in resolver.keywords(section).into_iter().filter(|keyword| resolver.raw(section, keyword).is_some())
        {
            match one(&resolver, section, keyword) {
                Ok(Some(value)) => _ = values.insert(keyword.to_owned(), value),
                Ok(None) => {}
                Err(diagnostic) => found.push(diagnostic),
            }
        }
    }
    if found.is_empty() { Ok(all) } else { Err(found) }
}

/// A setting as the node of the context sees it: written in the section, inherited or a default; none if it is none
/// of these. `[DEFAULT] nodes` is always known.
///
/// # Errors
/// If its references lead to no end.
pub fn one(resolver: &Resolver<'_>, section: &str, keyword: &str) -> Result<Option<Evaluated>, Diagnostic> {
    let known = keyword_of(resolver, section, keyword);
    let mut value = resolver.get(section, keyword)?.map(|value| value.text);
    if let (None, Some(known)) = (&value, known) {
        if known.inherit == keyword::Inherit::LeafThenHead && section != "DEFAULT" {
            value = resolver.get("DEFAULT", keyword)?.map(|value| value.text);
        }
        value = value.or_else(|| known.default.and_then(|text| resolver.text(section, text).ok()));
    }
    if (section, keyword) == ("DEFAULT", "nodes") {
        return Ok(Some(Evaluated::List(resolver.nodes().iter().map(NodeName::to_string).collect())));
    }
    Ok(value.map(|text| converted(known.map_or(Type::Text, |known| known.kind), text)))
}

/// What the table says of a keyword where it stands.
fn keyword_of(resolver: &Resolver<'_>, section: &str, name: &str) -> Option<&'static keyword::Keyword> {
    let group = section.split('#').next().unwrap_or(section);
    if group == "DEFAULT" {
        let inherited =
            || keyword::KEYWORDS.iter().find(|known| known.name == name && known.inherit != keyword::Inherit::Leaf);
        return keyword::find("DEFAULT", "", name).or_else(inherited);
    }
    let (_, drivers) = GROUPS.iter().find(|(known, _)| *known == group)?;
    let written = resolver.get(section, "type").ok().flatten().map(|value| value.text);
    let driver = drivers.iter().find(|driver| Some(**driver) == written.as_deref()).or(drivers.first());
    keyword::find(group, driver.copied().unwrap_or_default(), name)
}

fn converted(kind: Type, text: String) -> Evaluated {
    let value = match kind {
        Type::Text | Type::Choice(_) => None,
        Type::Boolean => convert::boolean(&text).ok().map(Evaluated::Boolean),
        Type::Integer => convert::integer(&text, u64::MAX).ok().map(Evaluated::Integer),
        Type::Size => convert::size(&text).ok().map(Evaluated::Integer),
        Type::Duration => convert::duration(&text).ok().map(|time| Evaluated::Integer(time.as_secs())),
        Type::List => Some(Evaluated::List(convert::list(&text))),
        Type::Words => convert::words(&text).ok().map(Evaluated::List),
    };
    value.unwrap_or(Evaluated::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::context;

    const TEXT: &str = "[DEFAULT]\nnodes = {clusternodes}\nrestart@n2 = 3\nstart_timeout = 1m\n[container#1]\ntty = Yes\n\
                        volume_mounts = {svcname}-data/registry:/var/lib/registry '/a b:/c'\nrestart = many\n\
                        [volume#1]\nsize = {env.size}\n[env]\nsize = 10g\nsize@n2 = 1g\n[labels]\n";

    fn shown<V: std::fmt::Debug>(sections: Sections<V>) -> Vec<String> {
        let lines = |(section, values): (String, BTreeMap<String, V>)| {
            values.into_iter().map(move |(key, value)| format!("{section}.{key} {value:?}")).collect::<Vec<_>>()
        };
        sections.into_iter().flat_map(lines).collect()
    }

    #[test]
    fn settings_are_shown_as_the_node_sees_them() {
        let document = Document::parse(TEXT).expect("a text");
        assert_eq!(
            shown(all(&document, &context()).expect("it ends")),
            [
                "DEFAULT.nodes List([\"n1\", \"n2\"])",
                "DEFAULT.start_timeout Integer(60)",
                "container#1.restart Text(\"many\")",
                "container#1.tty Boolean(true)",
                "container#1.volume_mounts List([\"registry-data/registry:/var/lib/registry\", \"/a b:/c\"])",
                "env.size Text(\"10g\")",
                "volume#1.size Integer(10737418240)",
            ]
        );
        assert_eq!(shown(written(&document)).len(), 9);
    }

    #[test]
    fn one_setting_has_what_is_inherited() {
        let document = Document::parse(TEXT).expect("a text");
        let mut context = context();
        context.node = "n2".parse().expect("a node");
        let resolver = Resolver::new(&document, &context);
        let check = |section: &str, keyword: &str, expected: &str| {
            let got = one(&resolver, section, keyword).expect("it ends");
            assert_eq!(got.map_or("-".to_owned(), |value| value.text()), expected, "{section}.{keyword}");
        };
        check("volume#1", "size", "1073741824");
        check("volume#1", "restart", "3");
        check("volume#1", "name", "registry-vol-1");
        check("container#1", "start_timeout", "60");
        check("container#1", "type", "-");
        check("DEFAULT", "nodes", "n1 n2");
        check("DEFAULT", "orchestrate", "no");
        check("DEFAULT", "comment", "-");
        check("env", "size", "1g");
        check("env", "nothing", "-");
    }
}
