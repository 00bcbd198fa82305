//! Owns what a document comes to on one node: a typed [`InstanceConfig`], or everything that is wrong with it at once.
//! Does not own the keywords (see [`super::keyword`]), nor the reading of each kind of resource (`schema/…`).

mod container;
mod resource;
pub(super) mod section;

use std::collections::{BTreeMap, BTreeSet};

use self::section::Section;
use super::{
    convert,
    diagnostic::{Diagnostic, Place, Severity, nearest},
    document::Document,
    keyword::{self, GROUPS},
    resolve::{Context, Resolver},
};
use crate::{
    instance::{Access, InstanceConfig, Orchestrate, Placement, Resource, ResourceKind, VolumeObject},
    path::{Kind, NodeName, ObjectPath, Rid},
};

/// Most resources of an object.
pub const MAX_RESOURCES: usize = 128;
/// Most nodes of an object.
pub const MAX_NODES: usize = 32;

/// An instance, with what is to be known about its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The instance.
    pub instance: InstanceConfig,
    /// In the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// What a document comes to for one node.
///
/// # Errors
/// Everything that is wrong, with warnings among it, in the order of the text.
pub fn instance(document: &Document, context: &Context) -> Result<Checked, Vec<Diagnostic>> {
    let resolver = Resolver::new(document, context);
    let mut found = Vec::new();
    let sections = check_sections(document, &resolver, context.path.kind, &mut found);
    let head = Section::new(&resolver, "DEFAULT", "", &found_place(document, "DEFAULT"));
    let nodes = read_nodes(&head, &resolver, &mut found);
    let volume = (context.path.kind == Kind::Vol).then(|| read_volume(&head, &mut found)).flatten();
    let mut resources = BTreeMap::new();
    let volumes = volume_names(&resolver, &sections);
    let containers: BTreeSet<&Rid> = sections.keys().filter(|rid| rid.group() == "container").collect();
    for (rid, (driver, place)) in &sections {
        let section = Section::new(&resolver, &rid.to_string(), driver, place);
        let surroundings = resource::Surroundings { path: &context.path, volumes: &volumes, containers: &containers };
        let read = resource::read(&section, rid, driver, &surroundings);
        found.extend(section.into_found());
        resources.extend(read.map(|resource| (rid.clone(), resource)));
    }
    if nodes.len() > 1 && !resources.is_empty() {
        let rid: Rid = "sync#i0".parse().expect("a resource id");
        let disable = resolver.get("sync#i0", "disable").ok().flatten().and_then(|v| convert::boolean(&v.text).ok());
        resources.insert(rid.clone(), resource::sync(rid, disable.unwrap_or(false)));
    }
    check_names(&resources, &sections, &mut found);
    let orchestrate = match head.choice("orchestrate") {
        Some("ha") => Orchestrate::Ha,
        Some("start") => Orchestrate::Start,
        _ => Orchestrate::No,
    };
    let placement = match head.choice("placement") {
        Some("spread") => Placement::Spread,
        Some("none") => Placement::None,
        _ => Placement::NodesOrder,
    };
    head.choice("topology");
    let instance = InstanceConfig {
        path: context.path.clone(),
        id: head.text("id").map(|value| value.text).unwrap_or_default(),
        nodes,
        orchestrate,
        placement,
        rollback: head.boolean("rollback"),
        disable: head.boolean("disable"),
        priority: u32::try_from(head.integer("priority", 1_000_000)).unwrap_or(u32::MAX),
        volume,
        resources,
    };
    found.extend(head.into_found());
    found.sort();
    found.dedup();
    if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(found);
    }
    Ok(Checked { instance, warnings: found })
}

/// Where a section begins; the beginning of the text if it has none.
pub(super) fn found_place(document: &Document, section: &str) -> Place {
    let place = document.sections().into_iter().find(|(name, _)| *name == section).map(|(_, place)| place);
    place.unwrap_or(Place { line: 1, column: 1 })
}

type Sections = BTreeMap<Rid, (&'static str, Place)>;

/// Looks at the names of sections and keywords; returns the sections of resources with their drivers.
fn check_sections(document: &Document, resolver: &Resolver<'_>, kind: Kind, found: &mut Vec<Diagnostic>) -> Sections {
    let mut sections = Sections::new();
    let mut drivers: BTreeMap<&str, (&str, &'static str)> = BTreeMap::new();
    for (name, place) in document.sections() {
        if ["DEFAULT", "env", "labels", "data"].contains(&name) || name.starts_with("subset#") {
            continue;
        }
        let groups = || GROUPS.iter().map(|(group, _)| *group);
        let group = name.split('#').next().unwrap_or(name);
        let Some((group, known)) = GROUPS.iter().find(|(known, _)| *known == group).copied() else {
            let words = groups().collect::<Vec<_>>().join(", ");
            let hint = nearest(group, groups().chain(["DEFAULT", "env"]))
                .map_or(format!("groups of resources are {words}"), |near| format!("did you mean [{near}…]?"));
            found.push(Diagnostic::error(place, format!("[{name}] is no group of resources that is known here"), hint));
            continue;
        };
        let Ok(rid) = name.parse::<Rid>() else {
            let hint = format!("write [{group}#1]");
            found.push(Diagnostic::error(place, format!("[{name}] is no resource id"), hint));
            continue;
        };
        if !kind.has_resources() {
            let hint = "resources belong to svc and vol objects".to_owned();
            found.push(Diagnostic::error(place, format!("[{name}] in a {kind} object"), hint));
            continue;
        }
        let driver = driver_of(resolver, name, group, known, found);
        let Some(driver) = driver else { continue };
        drivers.insert(name, (group, driver));
        sections.insert(rid, (driver, place));
    }
    if sections.len() > MAX_RESOURCES {
        let place = Place { line: 1, column: 1 };
        let what = format!("{} resources, {MAX_RESOURCES} are allowed", sections.len());
        found.push(Diagnostic::error(place, what, "make several objects of it".to_owned()));
    }
    for setting in document.settings() {
        let name = setting.keyword;
        let known = match (setting.section, drivers.get(setting.section)) {
            (_, Some((group, driver))) => keyword::find(group, driver, name).is_some(),
            ("DEFAULT", _) => keyword::find("DEFAULT", "", name).is_some() || keyword::in_default(name),
            _ => continue,
        };
        if !known {
            found.push(unknown(setting.section, name, setting.key_place, drivers.get(setting.section)));
        }
    }
    sections
}

/// The driver of a section: what its `type` says, or the first of its group.
fn driver_of(
    resolver: &Resolver<'_>,
    name: &str,
    group: &str,
    known: &'static [&'static str],
    found: &mut Vec<Diagnostic>,
) -> Option<&'static str> {
    let first = known.first().copied();
    // A volume's type is that of its pool.
    if group == "volume" {
        return first;
    }
    match resolver.get(name, "type") {
        Err(diagnostic) => {
            found.push(diagnostic);
            None
        }
        Ok(None) => first,
        Ok(Some(value)) => {
            let driver = known.iter().find(|driver| **driver == value.text).copied();
            if driver.is_none() {
                let hint = format!("types of {group} are {}", known.join(", "));
                found.push(Diagnostic::error(value.place, format!("`{}` is no type of {group}", value.text), hint));
            }
            driver
        }
    }
}

/// What is said of a keyword that its section does not take: a slip is an error, what another program may know is
/// kept and said.
fn unknown(section: &str, name: &str, place: Place, driver: Option<&(&str, &'static str)>) -> Diagnostic {
    let (group, driver) = driver.copied().unwrap_or(("DEFAULT", ""));
    let names = keyword::KEYWORDS
        .iter()
        .filter(|keyword| {
            if group == "DEFAULT" {
                keyword.group == "DEFAULT" || keyword::in_default(keyword.name)
            } else {
                keyword::find(group, driver, keyword.name).is_some()
            }
        })
        .map(|keyword| keyword.name);
    if let Some(near) = nearest(name, names) {
        return Diagnostic::error(place, format!("[{section}] takes no `{name}`"), format!("did you mean `{near}`?"));
    }
    let elsewhere = keyword::KEYWORDS.iter().find(|keyword| keyword.name == name).map(|keyword| keyword.group);
    let hint = elsewhere.map_or_else(
        || format!("`om kw {}` lists what it takes", if group == "DEFAULT" { "DEFAULT" } else { group }),
        |group| format!("it belongs to {group}"),
    );
    Diagnostic::warning(place, format!("`{name}` has no effect in [{section}]"), hint)
}

fn read_nodes(head: &Section<'_>, resolver: &Resolver<'_>, found: &mut Vec<Diagnostic>) -> Vec<NodeName> {
    let nodes = resolver.nodes().to_vec();
    let Some(value) = head.text("nodes") else { return nodes };
    let known = &resolver.context().cluster_nodes;
    for word in value.text.split_whitespace().filter(|word| !word.contains('*')) {
        let is_known = word.parse::<NodeName>().is_ok_and(|node| known.contains(&node));
        if !is_known {
            let names = known.iter().map(NodeName::as_str);
            let hint = nearest(word, names.clone()).map_or_else(
                || format!("nodes are {}", names.collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            found.push(Diagnostic::error(value.place, format!("`{word}` is no node of the cluster"), hint));
        }
    }
    if nodes.len() > MAX_NODES {
        found.push(Diagnostic::error(value.place, format!("more than {MAX_NODES} nodes"), None));
    }
    nodes
}

fn read_volume(head: &Section<'_>, found: &mut Vec<Diagnostic>) -> Option<VolumeObject> {
    let pool = head.text("pool")?.text;
    let size = head.size("size")?;
    let access = head.choice("access").and_then(access)?;
    let mut children = Vec::new();
    if let Some(value) = head.text("children") {
        for word in value.text.split_whitespace() {
            match word.parse::<ObjectPath>() {
                Ok(path) => children.push(path),
                Err(error) => found.push(Diagnostic::error(value.place, error.to_string(), None)),
            }
        }
    }
    Some(VolumeObject { pool, size, access, children })
}

fn access(word: &str) -> Option<Access> {
    [Access::Roo, Access::Rwo, Access::Rox, Access::Rwx].into_iter().find(|access| access.as_str() == word)
}

/// The names of the volumes of an object, by which mounts refer to them.
fn volume_names(resolver: &Resolver<'_>, sections: &Sections) -> BTreeMap<String, Rid> {
    let volumes = sections.iter().filter(|(rid, _)| rid.group() == "volume");
    volumes
        .filter_map(|(rid, (driver, place))| {
            let section = Section::new(resolver, &rid.to_string(), driver, place);
            section.text("name").map(|value| (value.text, rid.clone()))
        })
        .collect()
}

/// Two containers cannot have one name, and namespaces must not lead in a circle.
fn check_names(resources: &BTreeMap<Rid, Resource>, sections: &Sections, found: &mut Vec<Diagnostic>) {
    let place = |rid: &Rid| sections.get(rid).map(|(_, place)| *place).unwrap_or_default();
    let mut names: BTreeMap<&str, &Rid> = BTreeMap::new();
    for (rid, resource) in resources {
        let ResourceKind::Container(container) = &resource.kind else { continue };
        if let Some(other) = names.insert(&container.name, rid) {
            let what = format!("{rid} and {other} have the same name, {}", container.name);
            found.push(Diagnostic::error(place(rid), what, "give one another `name`".to_owned()));
        }
        let (mut at, mut steps) = (rid, 0);
        while let Some(ResourceKind::Container(container)) = resources.get(at).map(|resource| &resource.kind)
            && let crate::instance::Namespace::Of(next) = &container.netns
        {
            steps += 1;
            if next == rid || steps > MAX_RESOURCES {
                let what = format!("the network namespaces of {rid} lead in a circle");
                found.push(Diagnostic::error(place(rid), what, "one container must have its own".to_owned()));
                break;
            }
            at = next;
        }
    }
}

#[cfg(test)]
mod tests;
