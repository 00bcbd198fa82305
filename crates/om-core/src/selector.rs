//! Owns selectors: the texts that match many objects, by path, by configuration, by state. Does not own which objects
//! there are, nor what is known of them: that is asked through [`Facts`].

use std::str::FromStr;

use regex_lite::{Regex, RegexBuilder};

use crate::{
    config::{
        convert,
        keyword::{self, GROUPS},
        resolve::{Resolver, is_match},
    },
    path::{Kind, Namespace, ObjectPath, PathError},
};

/// The longest selector, in bytes.
pub const MAX_SELECTOR: usize = 4096;
/// Most parts between `,` and `+`.
const MAX_PARTS: usize = 256;
/// Memory that one expression may take when it is made, in bytes.
const MAX_REGEX: usize = 64 * 1024;

/// Objects that are meant: parts joined by `,` (any of them) and `+` (all of them, which binds closer), each turned
/// round by a leading `!`.
///
/// A part is a path in which `*` is any text and `?` any character, and `**` any namespace and kind; or a comparison
/// with the configuration, `[section.]keyword OP value`; or one with the state, `$.field OP value`. Operators are `=`,
/// `<`, `>`, `<=`, `>=`, `~` (an expression found in the value or a word of it), `~=` (the same, or a word that is
/// equal) and a `:` at the end (it is set).
#[derive(Clone, Debug)]
pub struct Selector {
    any: Vec<Vec<Part>>,
}

#[derive(Clone, Debug)]
struct Part {
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// A path without patterns.
    Path(ObjectPath),
    /// Patterns of namespace, kind and name.
    Paths([String; 3]),
    Config {
        section: String,
        keyword: Option<String>,
        compare: Compare,
    },
    Status {
        field: String,
        compare: Compare,
    },
}

#[derive(Clone, Debug)]
enum Compare {
    Exists,
    Equal(String),
    Order(Order, f64),
    Finds(Regex),
    Has(String, Option<Regex>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    More,
    AtMost,
    AtLeast,
}

/// A text that selects nothing that could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A part is missing.
    #[error("the selector `{0}` has an empty part (hint: `,` joins, `+` narrows, such as prod/*,web)")]
    Empty(String),
    /// Too long, or too many parts.
    #[error("the selector is too long (hint: at most {MAX_SELECTOR} bytes and {MAX_PARTS} parts)")]
    Long,
    /// A path outside the grammar.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A pattern that no path can match.
    #[error(
        "`{0}` is no pattern of paths (hint: NAMESPACE/KIND/NAME, in which `*` is any text: prod/*, */svc/*, **/web*)"
    )]
    Pattern(String),
    /// A number that is none.
    #[error("`{part}`: `{value}` is no number (hint: < and > compare numbers and sizes; = compares words)")]
    Number {
        /// The comparison.
        part: String,
        /// What was to be a number.
        value: String,
    },
    /// An expression that cannot be read.
    #[error("`{part}`: `{value}` is no regular expression (hint: = compares whole values)")]
    Regex {
        /// The comparison.
        part: String,
        /// The expression.
        value: String,
    },
}

/// What selectors may ask of an object besides its path.
pub trait Facts {
    /// Values of a keyword in a section: `DEFAULT`, `env`, `labels`, a resource, or all resources of a group. Without
    /// a keyword: one empty value for each such section that is there.
    fn values(&self, section: &str, keyword: Option<&str>) -> Vec<String>;

    /// The value of a field of its state, such as `avail`; fields of fields with dots. None: nothing is known.
    fn status(&self, field: &str) -> Option<String>;
}

/// Nothing is known besides the path.
impl Facts for () {
    fn values(&self, _: &str, _: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    fn status(&self, _: &str) -> Option<String> {
        None
    }
}

/// What the configuration says on one node, with defaults, and no state.
impl Facts for Resolver<'_> {
    fn values(&self, section: &str, keyword: Option<&str>) -> Vec<String> {
        let is_it = |name: &&str| *name == section || name.split('#').next() == Some(section);
        let of_it: Vec<&str> = if section == "DEFAULT" {
            vec!["DEFAULT"]
        } else {
            self.sections().iter().copied().filter(is_it).collect()
        };
        let Some(keyword) = keyword else { return of_it.into_iter().map(|_| String::new()).collect() };
        of_it.into_iter().filter_map(|name| value(self, name, keyword)).collect()
    }

    fn status(&self, _: &str) -> Option<String> {
        None
    }
}

fn value(resolver: &Resolver<'_>, section: &str, keyword: &str) -> Option<String> {
    let written = |section: &str| resolver.get(section, keyword).ok().flatten().map(|value| value.text);
    if let Some(text) = written(section) {
        return Some(text);
    }
    let group = section.split('#').next().unwrap_or(section);
    let first = GROUPS.iter().find(|(known, _)| *known == group).and_then(|(_, drivers)| drivers.first());
    let driver = resolver.get(section, "type").ok().flatten().map(|value| value.text);
    let driver = driver.unwrap_or_else(|| first.copied().unwrap_or_default().to_owned());
    if keyword == "type" {
        return first.map(|_| driver);
    }
    let known = keyword::find(group, &driver, keyword)?;
    let inherited = if known.inherit == keyword::Inherit::LeafThenHead { written("DEFAULT") } else { None };
    inherited.or_else(|| resolver.text(section, known.default?).ok())
}

impl Selector {
    /// A selector as it is written where a name without a namespace means `namespace`, and one without a kind `kind`.
    ///
    /// # Errors
    /// If it is outside the grammar.
    pub fn parse_in(text: &str, namespace: &Namespace, kind: Kind) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR || text.matches([',', '+']).count() >= MAX_PARTS {
            return Err(SelectorError::Long);
        }
        let part = |part: &str| {
            let (negated, rest) = part.strip_prefix('!').map_or((false, part), |rest| (true, rest));
            if rest.is_empty() {
                return Err(SelectorError::Empty(text.to_owned()));
            }
            Ok(Part { negated, test: test(rest, namespace, kind)? })
        };
        let all = |all: &str| all.split('+').map(|text| part(text.trim())).collect::<Result<Vec<_>, _>>();
        Ok(Self { any: text.split(',').map(all).collect::<Result<_, _>>()? })
    }

    /// The path, where the selector is one plain path: then it is an error if there is no such object.
    pub fn exact(&self) -> Option<&ObjectPath> {
        match &self.any[..] {
            [all] => match &all[..] {
                [Part { negated: false, test: Test::Path(path) }] => Some(path),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it asks for more than paths; without that `()` will do for [`Self::matches`].
    pub fn needs_facts(&self) -> bool {
        self.any.iter().flatten().any(|part| matches!(part.test, Test::Config { .. } | Test::Status { .. }))
    }

    /// Whether an object is selected.
    pub fn matches(&self, path: &ObjectPath, facts: &dyn Facts) -> bool {
        self.any.iter().any(|all| all.iter().all(|part| part.test.matches(path, facts) != part.negated))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse_in(text, &Namespace::root(), Kind::Svc)
    }
}

fn test(text: &str, namespace: &Namespace, kind: Kind) -> Result<Test, SelectorError> {
    if let Some((name, compare)) = comparison(text)? {
        if let Some(field) = name.strip_prefix("$.") {
            return Ok(Test::Status { field: field.to_owned(), compare });
        }
        let (section, keyword) = match name.split_once('.') {
            Some((section, keyword)) => (section, Some(keyword)),
            // `app:` asks for the section, `orchestrate:` for the keyword.
            None if matches!(compare, Compare::Exists) && is_section(name) => (name, None),
            None => ("DEFAULT", Some(name)),
        };
        return Ok(Test::Config { section: section.to_owned(), keyword: keyword.map(str::to_owned), compare });
    }
    let is_all = text.ends_with('/') && text.matches('/').count() == 2;
    if !is_all && !text.contains(['*', '?']) {
        return Ok(Test::Path(ObjectPath::parse_in(text, namespace, kind)?));
    }
    let parts: Vec<&str> = text.split('/').collect();
    let is_kind = |part: &str| part.parse::<Kind>().is_ok();
    let [ns, of, name] = match parts[..] {
        ["**"] => ["*", "*", "*"],
        [name] => [namespace.as_str(), kind.as_str(), name],
        ["**", name] => ["*", "*", name],
        [of, name] if is_kind(of) => [namespace.as_str(), of, name],
        [ns, "**"] => [ns, "*", "*"],
        [ns, name] => [ns, kind.as_str(), name],
        [ns, of, ""] => [ns, of, "*"],
        [ns, of, name] => [ns, of, name],
        _ => return Err(SelectorError::Pattern(text.to_owned())),
    };
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.*?".contains(&c))
    };
    if !([ns, of, name].into_iter().all(fits) && Kind::ALL.iter().any(|kind| is_match(of, kind.as_str()))) {
        return Err(SelectorError::Pattern(text.to_owned()));
    }
    Ok(Test::Paths([ns, of, name].map(str::to_owned)))
}

fn is_section(name: &str) -> bool {
    name.contains('#')
        || ["DEFAULT", "env", "labels", "data"].contains(&name)
        || GROUPS.iter().any(|(group, _)| *group == name)
}

/// What is left of the operator of a part, and the comparison; none if it has no operator.
fn comparison(part: &str) -> Result<Option<(&str, Compare)>, SelectorError> {
    let Some(at) = part.find(['=', '<', '>', '~']) else {
        return Ok(part.strip_suffix(':').filter(|name| !name.is_empty()).map(|name| (name, Compare::Exists)));
    };
    let (name, rest) = part.split_at(at);
    let operators = ["~=", "<=", ">=", "=", "<", ">", "~"];
    let operator = operators.into_iter().find(|operator| rest.starts_with(operator)).unwrap_or("=");
    let value = rest[operator.len()..].trim();
    let order = |order| {
        let wrong = || SelectorError::Number { part: part.to_owned(), value: value.to_owned() };
        number(value).map(|number| Compare::Order(order, number)).ok_or_else(wrong)
    };
    let regex = || RegexBuilder::new(value).size_limit(MAX_REGEX).build();
    let compare = match operator {
        "~=" => Compare::Has(value.to_owned(), regex().ok()),
        "<=" => order(Order::AtMost)?,
        ">=" => order(Order::AtLeast)?,
        "<" => order(Order::Less)?,
        ">" => order(Order::More)?,
        "~" => {
            let wrong = |_| SelectorError::Regex { part: part.to_owned(), value: value.to_owned() };
            Compare::Finds(regex().map_err(wrong)?)
        }
        _ => Compare::Equal(value.to_owned()),
    };
    match name.trim() {
        "" => Err(SelectorError::Empty(part.to_owned())),
        name => Ok(Some((name, compare))),
    }
}

/// A plain number, or a size.
#[expect(clippy::cast_precision_loss, reason = "sizes are compared, not summed")]
fn number(text: &str) -> Option<f64> {
    let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
    plain.or_else(|| convert::size(text).ok().map(|bytes| bytes as f64))
}

impl Test {
    fn matches(&self, path: &ObjectPath, facts: &dyn Facts) -> bool {
        match self {
            Self::Path(exact) => path == exact,
            Self::Paths([namespace, kind, name]) => {
                is_match(namespace, path.namespace.as_str())
                    && is_match(kind, path.kind.as_str())
                    && is_match(name, path.name.as_str())
            }
            Self::Config { section, keyword, compare } => {
                facts.values(section, keyword.as_deref()).iter().any(|value| compare.holds(value))
            }
            Self::Status { field, compare } => facts.status(field).is_some_and(|value| compare.holds(&value)),
        }
    }
}

impl Compare {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exists => true,
            // `True` and `true` are one; so are sizes only where they are written alike.
            Self::Equal(wanted) => value == wanted || (is_truth(wanted) && value.eq_ignore_ascii_case(wanted)),
            Self::Order(order, wanted) => number(value).is_some_and(|number| match order {
                Order::Less => number < *wanted,
                Order::More => number > *wanted,
                Order::AtMost => number <= *wanted,
                Order::AtLeast => number >= *wanted,
            }),
            Self::Finds(regex) => regex.is_match(value),
            Self::Has(wanted, regex) => {
                value.split_whitespace().any(|word| word == wanted)
                    || regex.as_ref().is_some_and(|regex| regex.is_match(value))
            }
        }
    }
}

fn is_truth(word: &str) -> bool {
    word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, resolve::tests::context};

    const OBJECTS: [&str; 9] =
        ["web", "db", "sec/tls", "prod/web", "prod/web2", "prod/vol/data", "prod/sec/tls", "test/registry", "cluster"];

    /// The objects that match, in order, short.
    fn selected(selector: &str) -> String {
        let selector = match selector.parse::<Selector>() {
            Ok(selector) => selector,
            Err(error) => return format!("error: {error}"),
        };
        let paths = OBJECTS.iter().map(|path| path.parse::<ObjectPath>().expect("a path"));
        paths.filter(|path| selector.matches(path, &())).map(|path| path.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_match_patterns() {
        let check = |selector: &str, expected: &str| {
            let got = selected(selector);
            assert!(
                got == expected || (expected.starts_with("error: ") && got.starts_with(expected)),
                "{selector}: {got}"
            );
        };
        check("web", "web");
        check("test/registry", "test/svc/registry");
        check("**", "web db sec/tls prod/svc/web prod/svc/web2 prod/vol/data prod/sec/tls test/svc/registry cluster");
        check("*", "web db");
        check("*/svc/*", "web db prod/svc/web prod/svc/web2 test/svc/registry");
        check("prod/**", "prod/svc/web prod/svc/web2 prod/vol/data prod/sec/tls");
        check("prod/*", "prod/svc/web prod/svc/web2");
        check("test/*", "test/svc/registry");
        check("*/*", "web db prod/svc/web prod/svc/web2 test/svc/registry");
        check("**/web*", "web prod/svc/web prod/svc/web2");
        check("**/tls", "sec/tls prod/sec/tls");
        check("prod/svc/", "prod/svc/web prod/svc/web2");
        check("prod/svc/web?", "prod/svc/web2");
        check("sec/t*", "sec/tls");
        check("web,db,web", "web db");
        check("*/svc/*+!**/web*", "db test/svc/registry");
        check("prod/**+!*/svc/*,db", "db prod/vol/data prod/sec/tls");
        check("nothing", "");
        check("", "error: the selector `` has an empty part");
        check("a,,b", "error: the selector `a,,b` has an empty part");
        check("!", "error: the selector `!` has an empty part");
        check("a/b/c/*", "error: `a/b/c/*` is no pattern");
        check("*/srv/*", "error: `*/srv/*` is no pattern");
        check("Web", "error: `Web` is no name");
        check(&"a,".repeat(300), "error: the selector is too long");
        check("$.avail=up", "");
        check("=x", "error: the selector `=x` has an empty part");
        check("a~(", "error: `a~(`: `(` is no regular expression");
        check("size<much", "error: `size<much`: `much` is no number");
    }

    #[test]
    fn what_is_written_short_depends_on_the_surroundings() {
        let prod = "prod".parse().expect("a namespace");
        let selector = Selector::parse_in("t*", &prod, Kind::Sec).expect("a selector");
        assert!(selector.matches(&"prod/sec/tls".parse().expect("a path"), &()));
        assert!(!selector.matches(&"sec/tls".parse().expect("a path"), &()));
        let exact = |text: &str| text.parse::<Selector>().expect("a selector").exact().map(ObjectPath::fqn);
        assert_eq!(exact("test/registry").as_deref(), Some("test/svc/registry"));
        for text in ["a,b", "a*", "!a", "a+orchestrate=ha"] {
            assert_eq!(exact(text), None, "{text}");
        }
    }

    struct Known<'a>(Resolver<'a>);

    impl Facts for Known<'_> {
        fn values(&self, section: &str, keyword: Option<&str>) -> Vec<String> {
            self.0.values(section, keyword)
        }

        fn status(&self, field: &str) -> Option<String> {
            (field == "avail").then(|| "warn".to_owned())
        }
    }

    #[test]
    fn configurations_and_states_are_compared() {
        let text = "[DEFAULT]\norchestrate = ha\nrestart = 3\nrollback = True\n[ip#1]\n[container#0]\nimage = google/pause\n\
                    [container#1]\nimage = {name}:2\n[volume#1]\nsize = {env.size}\n[env]\nsize = 10g\n[labels]\nteam = a b\n";
        let document = Document::parse(text).expect("a text");
        let context = context();
        let known = Known(Resolver::new(&document, &context));
        let check = |selector: &str, expected: bool| {
            let parsed: Selector = selector.parse().expect("a selector");
            assert_eq!(parsed.matches(&context.path, &known), expected, "{selector}");
            assert!(parsed.needs_facts(), "{selector}");
        };
        check("orchestrate=ha", true);
        check("test/*+orchestrate=ha", true);
        check("prod/*+orchestrate=ha", false);
        check("!orchestrate=no", true);
        check("rollback=true", true);
        check("topology=failover", true);
        check("priority>50", true);
        check("priority<=50", false);
        check("volume.size>=10g", true);
        check("volume.size>10g", false);
        check("orchestrate>1", false);
        check("ip.type=cni", true);
        check("container.type=docker", true);
        check("container.restart=3", true);
        check("container#1.image=registry:2", true);
        check("container.image~^google/", true);
        check("container.image~^goggle/", false);
        check("labels.team~=b", true);
        check("labels.team=b", false);
        check("labels.team~=^a", true);
        check("app:", false);
        check("container:", true);
        check("container#0:", true);
        check("orchestrate:", true);
        check("comment:", false);
        check("container.command:", false);
        check("$.avail=warn", true);
        check("$.avail=up", false);
        check("$.overall=warn", false);
        check("env.size=10g", true);
    }
}
