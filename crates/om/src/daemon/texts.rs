//! Owns what the daemon does with texts of configurations: what they mean here, what is wrong with them on the wire, and
//! changes by expressions such as `app.start+=x`. Pure. Does not own the language.

use std::{collections::BTreeMap, net::IpAddr};

use om_core::{
    config::{
        Diagnostic, Document, Place, Severity,
        diagnostic::nearest,
        keyword::GROUPS,
        resolve::{Context, Resolver},
        schema,
    },
    instance::InstanceConfig,
    path::{Kind, NodeName, ObjectPath},
};

use crate::api;

/// Facts that texts refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// This node.
    pub node: NodeName,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// All nodes, in order.
    pub nodes: Vec<NodeName>,
    /// Addresses of the cluster's DNS.
    pub dns: Vec<IpAddr>,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
}

impl World {
    /// What a text of an object is read in, as a node sees it.
    pub fn context(&self, path: &ObjectPath, node: &NodeName) -> Context {
        Context {
            path: path.clone(),
            node: node.clone(),
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id.clone(),
            cluster_nodes: self.nodes.clone(),
            dns: self.dns.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// A text that was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The text with its places.
    pub document: Document,
    /// What it means on this node; none for objects without resources.
    pub instance: Option<InstanceConfig>,
    /// What is to be known about it.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the text of an object.
///
/// # Errors
/// All that is wrong with it.
pub fn read(world: &World, path: &ObjectPath, text: &str) -> Result<Read, Vec<Diagnostic>> {
    let document = Document::parse(text)?;
    if path.kind == Kind::Ccfg {
        let found = check_cluster(&document);
        let errors = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        return if errors { Err(found) } else { Ok(Read { document, instance: None, warnings: found }) };
    }
    let checked = schema::instance(&document, &world.context(path, &world.node))?;
    let instance = path.kind.has_resources().then_some(checked.instance);
    Ok(Read { document, instance, warnings: checked.warnings })
}

/// Sections of the cluster's configuration, with the keywords that count there.
const CLUSTER_SECTIONS: &[(&str, &[&str])] = &[
    ("DEFAULT", &["id"]),
    ("cluster", &["name", "dns"]),
    ("cni", &["plugins", "config"]),
    ("network", &["type", "network", "ips_per_node", "tunnel"]),
    ("pool", &["type", "path", "size", "name"]),
    ("env", &[]),
    ("labels", &[]),
];

fn check_cluster(document: &Document) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for setting in document.settings() {
        let group = setting.section.split('#').next().unwrap_or(setting.section);
        let Some((_, keywords)) = CLUSTER_SECTIONS.iter().find(|(name, _)| *name == group) else {
            let names = CLUSTER_SECTIONS.iter().map(|(name, _)| *name);
            let hint = nearest(group, names).map(|near| format!("did you mean [{near}]?"));
            let what = format!("[{}] is no section of the cluster's configuration", setting.section);
            found.push(Diagnostic::error(setting.key_place, what, hint));
            continue;
        };
        if !keywords.is_empty() && !keywords.contains(&setting.keyword) {
            let near = nearest(setting.keyword, keywords.iter().copied());
            let hint = near.map_or_else(|| format!("it takes {}", keywords.join(", ")), |near| format!("did you mean `{near}`?"));
            let what = format!("[{}] takes no `{}`", setting.section, setting.keyword);
            found.push(Diagnostic::error(setting.key_place, what, hint));
        }
        if (setting.section, setting.keyword) == ("cluster", "name") && setting.value.parse::<NodeName>().is_err() {
            let what = format!("`{}` cannot name a cluster", setting.value);
            let hint = "it is the zone of the cluster's DNS: lower-case letters, digits and hyphens".to_owned();
            found.push(Diagnostic::error(setting.value_place, what, hint));
        }
    }
    found.dedup();
    found
}

/// Diagnostics on the wire.
pub fn told(file: &str, found: &[Diagnostic]) -> Vec<api::Diagnostic> {
    let one = |diagnostic: &Diagnostic| api::Diagnostic {
        severity: match diagnostic.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
        .into(),
        file: file.into(),
        line: diagnostic.place.line,
        column: diagnostic.place.column,
        message: diagnostic.what.clone(),
        hint: diagnostic.hint.clone(),
    };
    found.iter().map(one).collect()
}

/// A change of a keyword, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change<'a> {
    section: &'a str,
    keyword: &'a str,
    op: Op,
    value: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Set,
    Append,
    Remove,
    Insert,
}

/// `section.keyword@scope` or `keyword@scope`, where a section has no dot before its `#`.
fn key(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    // A scope may have dots: it is a node's name.
    let name_end = text.find('@').unwrap_or(text.len());
    let (section, keyword) = match text[..name_end].find('.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => ("DEFAULT", text),
    };
    (!section.is_empty() && !keyword.is_empty() && !keyword.starts_with('@')).then_some((section, keyword))
}

fn change(text: &str) -> Option<Change<'_>> {
    let equals = text.find('=')?;
    let (before, value) = (&text[..equals], text[equals + 1..].trim());
    let (name, op) = match before.as_bytes().last() {
        Some(b'+') => (&before[..equals - 1], Op::Append),
        Some(b'-') => (&before[..equals - 1], Op::Remove),
        Some(b'|') => (&before[..equals - 1], Op::Insert),
        _ => (before, Op::Set),
    };
    let (section, keyword) = key(name)?;
    Some(Change { section, keyword, op, value })
}

/// A document with expressions applied: all of them, or none.
///
/// A section that is a group's name alone, such as `app`, means all its sections.
///
/// # Errors
/// What is no expression, one line each.
pub fn patch(document: &Document, patch: &api::Patch) -> Result<Document, Vec<Diagnostic>> {
    let mut changed = document.clone();
    let mut wrong = Vec::new();
    let bad = |text: &str, hint: &str| {
        Diagnostic::error(Place::default(), format!("`{text}` is no change of a keyword"), hint.to_owned())
    };
    for text in &patch.set {
        let Some(Change { section, keyword, op, value }) = change(text) else {
            wrong.push(bad(text, "write [SECTION.]KEYWORD[@SCOPE]=VALUE, or with += to append, -= to remove"));
            continue;
        };
        for section in sections(&changed, section) {
            let old = changed.get(&section, keyword).unwrap_or_default();
            let mut words: Vec<&str> = old.split_whitespace().collect();
            let new = match op {
                Op::Set => value.to_owned(),
                Op::Append => {
                    words.push(value);
                    words.join(" ")
                }
                Op::Insert if words.contains(&value) => old.clone(),
                Op::Insert => {
                    words.push(value);
                    words.join(" ")
                }
                Op::Remove => {
                    words.retain(|word| *word != value);
                    words.join(" ")
                }
            };
            changed.set(&section, keyword, &new);
        }
    }
    for text in &patch.unset {
        let Some((section, keyword)) = key(text) else {
            wrong.push(bad(text, "write [SECTION.]KEYWORD[@SCOPE]"));
            continue;
        };
        for section in sections(&changed, section) {
            changed.unset(&section, keyword);
        }
    }
    for section in &patch.sections {
        if !changed.remove_section(section) {
            let names: Vec<String> = changed.sections().iter().map(|(name, _)| (*name).to_owned()).collect();
            let hint = format!("there are {}", names.join(", "));
            wrong.push(Diagnostic::error(Place::default(), format!("there is no section [{section}]"), hint));
        }
    }
    if wrong.is_empty() { Ok(changed) } else { Err(wrong) }
}

/// The sections that a name means: itself, or those of a group.
fn sections(document: &Document, name: &str) -> Vec<String> {
    let is_group = GROUPS.iter().any(|(group, _)| *group == name);
    if !is_group {
        return vec![name.to_owned()];
    }
    let of_group = |section: &str| section.split_once('#').is_some_and(|(group, _)| group == name);
    document.sections().into_iter().map(|(section, _)| section).filter(|s| of_group(s)).map(ToOwned::to_owned).collect()
}

/// What a configuration means on a node, by section and keyword: references resolved, lists as lists, sizes and times as
/// numbers.
///
/// # Errors
/// Values that cannot be resolved.
pub fn evaluated(
    world: &World,
    path: &ObjectPath,
    node: &NodeName,
    document: &Document,
) -> Result<api::Evaluated, Vec<Diagnostic>> {
    let context = world.context(path, node);
    let resolver = Resolver::new(document, &context);
    let (mut sections, mut wrong) = (api::Evaluated::new(), Vec::new());
    for (name, _) in document.sections() {
        let mut values = BTreeMap::new();
        let driver = resolver.get(name, "type").ok().flatten().map(|value| value.text);
        for keyword in resolver.keywords(name) {
            match resolver.get(name, keyword) {
                Ok(Some(value)) => {
                    let group = name.split('#').next().unwrap_or(name);
                    let typed = typed(group, driver.as_deref().unwrap_or_default(), keyword, &value.text);
                    values.insert(keyword.to_owned(), typed);
                }
                Ok(None) => {}
                Err(diagnostic) => wrong.push(diagnostic),
            }
        }
        sections.insert(name.to_owned(), values);
    }
    if path.kind != Kind::Ccfg {
        let names = [("kind", path.kind.to_string()), ("name", path.name.to_string()), ("namespace", path.namespace.to_string())];
        let metadata = names.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        sections.insert("metadata".into(), metadata.collect());
    }
    if wrong.is_empty() { Ok(sections) } else { Err(wrong) }
}

/// A value by the type of its keyword.
fn typed(group: &str, driver: &str, keyword: &str, text: &str) -> serde_json::Value {
    use om_core::config::{convert, keyword, keyword::Type};
    let known = keyword::find(group, driver, keyword).or_else(|| keyword::find("DEFAULT", "", keyword));
    let as_text = || serde_json::Value::from(text);
    match known.map(|known| known.kind) {
        Some(Type::Size) => convert::size(text).map_or_else(|_| as_text(), Into::into),
        Some(Type::Integer) => convert::integer(text, u64::MAX).map_or_else(|_| as_text(), Into::into),
        Some(Type::Boolean) => convert::boolean(text).map_or_else(|_| as_text(), Into::into),
        Some(Type::Duration) => convert::duration(text).map_or_else(|_| as_text(), |value| value.as_secs().into()),
        Some(Type::List) => convert::list(text).into(),
        Some(Type::Words) => convert::words(text).map_or_else(|_| as_text(), Into::into),
        _ => as_text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let node: NodeName = "aubergine".parse().unwrap();
        World {
            node: node.clone(),
            cluster: "homepool2".into(),
            cluster_id: "id".into(),
            nodes: vec![node],
            dns: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    const TEMPLATE: &str = "[DEFAULT]\norchestrate = ha\nnodes = {clusternodes}\n\n[ip#1]\ntype = cni\nnetns = container#0\n\n\
        [container#0]\ntype = docker\nimage = google/pause\n\n[container#1]\ntype = docker\nimage = registry\n\
        volume_mounts = {svcname}-data/registry:/var/lib/registry\nnetns = container#0\n\n[volume#1]\n\
        name = {svcname}-data\nsize = {env.size}\naccess = rwo\n\n[env]\nsize = 10g\n";

    #[test]
    fn keywords_are_changed_by_expressions() {
        let check = |set: &[&str], unset: &[&str], expected: &str| {
            let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
            let patch_ = api::Patch { set: words(set), unset: words(unset), ..api::Patch::default() };
            let text = "[DEFAULT]\nnodes = a b\n[app#1]\nstart = x\n[app#2]\nstart = y\n";
            let got = match patch(&Document::parse(text).unwrap(), &patch_) {
                Ok(document) => document.to_string(),
                Err(wrong) => wrong[0].what.clone(),
            };
            assert!(got.contains(expected), "{set:?} {unset:?}: {got}");
        };
        check(&["orchestrate=ha"], &[], "orchestrate = ha");
        check(&["nodes+=c"], &[], "nodes = a b c");
        check(&["nodes-=a"], &[], "nodes = b");
        check(&["nodes|=a"], &[], "nodes = a b\n");
        check(&["app.start=z"], &[], "[app#1]\nstart = z\n[app#2]\nstart = z");
        check(&["app#1.start@n1.example=q=1"], &[], "start@n1.example = q=1");
        check(&[], &["app#1.start"], "[app#1]\n[app#2]");
        check(&["nonsense"], &[], "`nonsense` is no change of a keyword");
        check(&[".x=1"], &[], "`.x=1` is no change of a keyword");
    }

    #[test]
    fn the_page_s_template_is_evaluated() {
        let path: ObjectPath = "test/registry".parse().unwrap();
        let read = read(&world(), &path, TEMPLATE).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(read.instance.unwrap().resources.len(), 4);
        let node = world().node;
        let sections = evaluated(&world(), &path, &node, &read.document).unwrap();
        assert_eq!(sections["volume#1"]["size"], 10_737_418_240_u64);
        assert_eq!(sections["volume#1"]["name"], "registry-data");
        assert_eq!(sections["DEFAULT"]["nodes"], serde_json::json!(["aubergine"]));
        assert_eq!(sections["metadata"]["namespace"], "test");
    }

    #[test]
    fn the_cluster_s_configuration_is_checked() {
        let check = |text: &str, expected: &str| {
            let found = read(&world(), &ObjectPath::cluster(), text);
            let said = found.map_or_else(|wrong| wrong[0].shown("f").to_string(), |_| "good".into());
            assert!(said.contains(expected), "{text}: {said}");
        };
        check("[cluster]\nname = homepool2\n[pool#fast]\ntype = loop\n", "good");
        check("[cluster]\nname = Bad Name\n", "cannot name a cluster");
        check("[pol#x]\ntype = loop\n", "did you mean [pool]");
        check("[network#x]\ntyp = bridge\n", "did you mean `type`");
    }
}
