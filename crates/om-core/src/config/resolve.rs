//! Owns what the settings of a document are worth on one node: scopes, inheritance, references. Does not own what a
//! keyword means.

use std::{cell::Cell, collections::BTreeMap, net::IpAddr};

use super::{
    diagnostic::{Diagnostic, Place},
    document::{Document, Setting},
};
use crate::path::{NodeName, ObjectPath};

/// How deep references may lead to references.
const MAX_DEPTH: usize = 16;
/// The longest value that references may make, in bytes.
const MAX_EXPANDED: usize = 64 * 1024;
/// References that one value may lead to: a handful of lines can lead to billions.
const MAX_REFERENCES: usize = 1000;

/// What a document is evaluated for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The object.
    pub path: ObjectPath,
    /// The node whose instance it is.
    pub node: NodeName,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// All nodes of the cluster, in order.
    pub cluster_nodes: Vec<NodeName>,
    /// Addresses of the cluster's DNS.
    pub dns: Vec<IpAddr>,
    /// Labels of the node, for `{node.labels.…}`.
    pub labels: BTreeMap<String, String>,
}

/// The value of a keyword, with where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// With all references replaced.
    pub text: String,
    /// Where it begins in the document.
    pub place: Place,
    /// The section that it was found in.
    pub section: String,
}

/// The settings of a document as one node sees them.
pub struct Resolver<'a> {
    context: &'a Context,
    /// By section, then by keyword.
    settings: BTreeMap<&'a str, BTreeMap<&'a str, Vec<Setting<'a>>>>,
    /// Sorted; with those that have no keyword.
    sections: Vec<&'a str>,
    nodes: Vec<NodeName>,
    /// References that the value which is being evaluated may still have.
    left: Cell<usize>,
}

impl<'a> Resolver<'a> {
    /// Of a document, in a context.
    pub fn new(document: &'a Document, context: &'a Context) -> Self {
        let mut settings: BTreeMap<&str, BTreeMap<&str, Vec<_>>> = BTreeMap::new();
        for setting in document.settings() {
            settings.entry(setting.section).or_default().entry(setting.keyword).or_default().push(setting);
        }
        let mut sections: Vec<&str> = document.sections().into_iter().map(|(name, _)| name).collect();
        sections.sort_unstable();
        let mut this = Self { context, settings, sections, nodes: Vec::new(), left: Cell::new(0) };
        this.nodes = this.listed_nodes();
        this
    }

    /// The nodes of `[DEFAULT] nodes`, in order: names, `*`, and patterns with `*` of nodes of the cluster; this node
    /// if there are none. Names that are no nodes are left out here, and found by the schema.
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// What the resolver is for.
    pub fn context(&self) -> &Context {
        self.context
    }

    fn listed_nodes(&self) -> Vec<NodeName> {
        let text = self.get("DEFAULT", "nodes").ok().flatten().map(|value| value.text).unwrap_or_default();
        let mut nodes: Vec<NodeName> = Vec::new();
        for word in text.split_whitespace() {
            if word.contains('*') {
                let matching = self.context.cluster_nodes.iter().filter(|node| is_match(word, node.as_str()));
                nodes.extend(matching.cloned());
            } else if let Ok(node) = word.parse() {
                nodes.push(node);
            }
        }
        if nodes.is_empty() {
            nodes.push(self.context.node.clone());
        }
        let mut seen = std::collections::HashSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        nodes
    }

    /// The names of the sections, sorted.
    pub fn sections(&self) -> &[&'a str] {
        &self.sections
    }

    /// The names of the keywords of a section, sorted.
    pub fn keywords(&self, section: &str) -> Vec<&'a str> {
        self.settings.get(section).map(|keywords| keywords.keys().copied().collect()).unwrap_or_default()
    }

    /// The setting of a keyword that counts on this node: its own, that of a group which it belongs to, or the one
    /// without a scope.
    pub fn raw(&self, section: &str, keyword: &str) -> Option<&Setting<'a>> {
        let written = self.settings.get(section)?.get(keyword)?;
        let of = |scope: Option<&str>| written.iter().find(|setting| setting.scope == scope);
        let in_nodes = keyword != "nodes" && self.nodes.contains(&self.context.node);
        of(Some(self.context.node.as_str())).or_else(|| of(Some("nodes")).filter(|_| in_nodes)).or_else(|| of(None))
    }

    /// The value of a keyword in its section.
    ///
    /// # Errors
    /// If its references lead to no end, or to a value that is too long.
    pub fn get(&self, section: &str, keyword: &str) -> Result<Option<Value>, Diagnostic> {
        let Some(setting) = self.raw(section, keyword) else { return Ok(None) };
        let place = setting.value_place;
        let text = self.text(section, &setting.value).map_err(|what| {
            Diagnostic::error(place, format!("`{keyword}`: {what}"), "let references end in plain values".to_owned())
        })?;
        Ok(Some(Value { text, place, section: section.to_owned() }))
    }

    /// A text with its references replaced, as if it stood in `section`. Unknown ones are left as written.
    ///
    /// # Errors
    /// If the references lead to no end, or to a value that is too long.
    pub fn text(&self, section: &str, text: &str) -> Result<String, String> {
        self.left.set(MAX_REFERENCES);
        self.expand(section, text, 0)
    }

    fn expand(&self, section: &str, text: &str, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("its references lead to no end".to_owned());
        }
        let mut done = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            done.push_str(&rest[..open]);
            let inside =
                rest[open + 1..].split_once('}').map(|(inside, _)| inside).filter(|inside| is_reference(inside));
            match inside {
                None => {
                    done.push('{');
                    rest = &rest[open + 1..];
                }
                Some(inside) => {
                    let left = self.left.get().checked_sub(1);
                    self.left.set(left.ok_or_else(|| format!("it leads to more than {MAX_REFERENCES} references"))?);
                    match self.reference(section, inside, depth)? {
                        Some(value) => done.push_str(&value),
                        None => done.push_str(&rest[open..open + inside.len() + 2]),
                    }
                    rest = &rest[open + inside.len() + 2..];
                }
            }
            if done.len() > MAX_EXPANDED {
                return Err(format!("its references make more than {MAX_EXPANDED} bytes"));
            }
        }
        done.push_str(rest);
        Ok(done)
    }

    /// References of a text that mean nothing here.
    pub fn unknown_references(&self, section: &str, text: &str) -> Vec<String> {
        self.left.set(MAX_REFERENCES);
        let mut unknown = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            rest = &rest[open + 1..];
            if let Some((inside, after)) = rest.split_once('}')
                && is_reference(inside)
            {
                if matches!(self.reference(section, inside, 0), Ok(None)) {
                    unknown.push(inside.to_owned());
                }
                rest = after;
            }
        }
        unknown
    }

    /// What `{inside}` is worth; none if it is unknown.
    fn reference(&self, section: &str, inside: &str, depth: usize) -> Result<Option<String>, String> {
        if let Some((modifier, argument)) = inside.split_once(':') {
            let Some(argument) = self.reference(section, argument, depth)? else { return Ok(None) };
            return Ok(match modifier {
                "upper" => Some(argument.to_uppercase()),
                "lower" => Some(argument.to_lowercase()),
                "capitalize" => {
                    let mut chars = argument.chars();
                    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                    Some(first + &chars.as_str().to_lowercase())
                }
                _ => None,
            });
        }
        if let Some(counted) = inside.strip_prefix('#') {
            let value = self.reference(section, counted, depth)?;
            return Ok(value.map(|value| value.split_whitespace().count().to_string()));
        }
        if let Some((listed, index)) = inside.strip_suffix(']').and_then(|inside| inside.split_once('[')) {
            let Ok(index) = index.parse::<usize>() else { return Ok(None) };
            let value = self.reference(section, listed, depth)?;
            return Ok(value.and_then(|value| value.split_whitespace().nth(index).map(str::to_owned)));
        }
        if let Some(fact) = self.fact(section, inside) {
            return Ok(Some(fact));
        }
        let found = match inside.rsplit_once('.') {
            Some((other, keyword)) => self.raw(other, keyword).map(|setting| (other, setting)),
            None => self
                .raw(section, inside)
                .map(|setting| (section, setting))
                .or_else(|| self.raw("DEFAULT", inside).map(|setting| ("DEFAULT", setting))),
        };
        found.map(|(section, setting)| self.expand(section, &setting.value, depth + 1)).transpose()
    }

    /// What is known without the document.
    fn fact(&self, section: &str, name: &str) -> Option<String> {
        let Context { path, node, cluster, cluster_id, cluster_nodes, dns, labels } = self.context;
        let short = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
        let joined = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        Some(match name {
            "name" | "svcname" => path.name.to_string(),
            "namespace" => path.namespace.to_string(),
            "kind" => path.kind.to_string(),
            "path" | "svcpath" => path.to_string(),
            "short_name" => short(path.name.as_str()),
            "scaler_name" => {
                let name = path.name.as_str();
                let slice = name.split_once('.').filter(|(number, _)| number.bytes().all(|c| c.is_ascii_digit()));
                slice.map_or(name, |(_, name)| name).to_owned()
            }
            "nodename" => node.to_string(),
            "short_nodename" => short(node.as_str()),
            "clustername" => cluster.clone(),
            "clusterid" => cluster_id.clone(),
            "clusternodes" => joined(cluster_nodes),
            "dns" => dns.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
            "fqdn" => format!("{}.{}.{}.{cluster}", path.name, path.namespace, path.kind),
            "domain" => format!("{}.{}.{cluster}", path.namespace, path.kind),
            "rid" => section.to_owned(),
            "rindex" => section.split_once('#')?.1.to_owned(),
            _ => return labels.get(name.strip_prefix("node.labels.")?).cloned(),
        })
    }
}

/// Whether what stands between braces can be a reference: else the braces are plain text, as in JSON.
fn is_reference(inside: &str) -> bool {
    !inside.is_empty()
        && inside.len() <= 256
        && inside.bytes().all(|c| c.is_ascii_alphanumeric() || b"#_.:[]-".contains(&c))
        && inside.starts_with(|c: char| c.is_ascii_alphabetic() || c == '#')
}

/// Whether a name matches a pattern in which `*` is any text and `?` any character.
pub fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star did not fit.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Object `test/svc/registry` on node `n1` of the two-node cluster `c1`.
    pub(crate) fn context() -> Context {
        Context {
            path: "test/registry".parse().expect("a path"),
            node: "n1".parse().expect("a node"),
            cluster: "c1".into(),
            cluster_id: "id".into(),
            cluster_nodes: ["n1", "n2"].map(|node| node.parse().expect("a node")).to_vec(),
            dns: vec!["10.0.0.1".parse().expect("an address")],
            labels: [("zone".to_owned(), "east".to_owned())].into(),
        }
    }

    const TEXT: &str = "[DEFAULT]\nnodes = {clusternodes}\na = 1\na@n1 = 2\na@nodes = 3\nb@n2 = x\nb@nodes = 4\nb = 5\nc@n9 = 6\nc = 7\n\
                        loop = {loop2}\nloop2 = {loop}\n[env]\nsize = 10g\nlist = x y z\n[container#0]\nimage = pause\n\
                        [container#1]\nimage = {container#0.image}-{rindex}\njson = {\"a\": {env.size}}\n";

    fn value(section: &str, keyword: &str) -> String {
        let document = Document::parse(TEXT).expect("a text");
        let context = context();
        match Resolver::new(&document, &context).get(section, keyword) {
            Ok(value) => value.map_or_else(|| "-".to_owned(), |value| value.text),
            Err(diagnostic) => diagnostic.shown("f").to_string(),
        }
    }

    #[test]
    fn the_nearest_scope_counts() {
        assert_eq!(value("DEFAULT", "a"), "2");
        assert_eq!(value("DEFAULT", "b"), "4");
        assert_eq!(value("DEFAULT", "c"), "7");
        assert_eq!(value("DEFAULT", "d"), "-");
    }

    #[test]
    fn references_are_replaced() {
        let document = Document::parse(TEXT).expect("a text");
        let context = context();
        let resolver = Resolver::new(&document, &context);
        let check = |text: &str, expected: &str| {
            assert_eq!(resolver.text("container#1", text).as_deref(), Ok(expected), "{text}");
        };
        check("{svcname}-data/registry:/var/lib/registry", "registry-data/registry:/var/lib/registry");
        check("{env.size}", "10g");
        check("{clusternodes}", "n1 n2");
        check("{#clusternodes} {clusternodes[1]} {env.list[2]}", "2 n2 z");
        check("{fqdn} {domain}", "registry.test.svc.c1 test.svc.c1");
        check("{rid} {rindex} {nodename} {dns}", "container#1 1 n1 10.0.0.1");
        check("{upper:name} {capitalize:namespace}", "REGISTRY Test");
        check("{image}", "pause-1");
        check("{a}", "2");
        check("{node.labels.zone}", "east");
        check("{nothing} {env.nothing} {clusternodes[7]}", "{nothing} {env.nothing} {clusternodes[7]}");
        check("{\"a\": 1} { {", "{\"a\": 1} { {");
        assert_eq!(value("container#1", "image"), "pause-1");
        assert_eq!(value("container#1", "json"), "{\"a\": 10g}");
        assert_eq!(resolver.unknown_references("env", "{x} {env.size} {y.z}"), ["x", "y.z"]);
    }

    #[test]
    fn references_that_multiply_are_an_error() {
        let mut text = "[DEFAULT]\na0 =\n".to_owned();
        for i in 1..16 {
            text += &format!("a{i} = {}\n", format!("{{a{}}}", i - 1).repeat(100));
        }
        let document = Document::parse(&text).expect("a text");
        let context = context();
        let got = Resolver::new(&document, &context).get("DEFAULT", "a15").expect_err("too many");
        assert!(got.what.contains("more than 1000 references"), "{}", got.what);
    }

    #[test]
    fn references_in_a_circle_are_an_error() {
        assert!(value("DEFAULT", "loop").starts_with("f:11:8: error: `loop`: its references lead to no end"));
    }

    #[test]
    fn patterns_match_as_a_shell_matches() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("?b", "ab", true),
            ("?b", "b", false),
            ("*a*b*", "xxaxxbxx", true),
            ("n[1]", "n1", false),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
        }
    }
}
