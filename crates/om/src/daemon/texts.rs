//! Owns what the daemon does with texts of configurations: what they mean here, what is wrong with them on the wire, and
//! changes by expressions such as `app.start+=x`. Pure. Does not own the language.

use std::collections::BTreeMap;

use om_core::{
    config::{
        Diagnostic, Document, Place, Severity, cluster,
        edit::{self, Assignment, EditError},
        evaluated::{self, Evaluated},
        schema,
    },
    instance::InstanceConfig,
    path::{Kind, NodeName, ObjectPath},
};

use crate::{api, daemon::world::World};

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
        let (_, found) = cluster::read(&document, &world.node, &world.cluster_id);
        let errors = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        return if errors { Err(found) } else { Ok(Read { document, instance: None, warnings: found }) };
    }
    let checked = schema::instance(&document, &world.context(path, &world.node))?;
    let instance = path.kind.has_resources().then_some(checked.instance);
    Ok(Read { document, instance, warnings: checked.warnings })
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

/// A document with changes applied: all of them, or none.
///
/// # Errors
/// What cannot be changed so, each with its reason.
pub fn patch(document: &Document, patch: &api::Patch) -> Result<Document, Vec<Diagnostic>> {
    let mut changed = document.clone();
    let mut wrong = Vec::new();
    let bad = |error: EditError| Diagnostic::error(Place::default(), error.to_string(), None);
    for text in &patch.set {
        let done = text.parse::<Assignment>().and_then(|assignment| assignment.apply(&mut changed));
        wrong.extend(done.err().map(bad));
    }
    for text in &patch.unset {
        wrong.extend(edit::unset(&mut changed, text).err().map(bad));
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
    let json = |value: Evaluated| match value {
        Evaluated::Text(text) => text.into(),
        Evaluated::Boolean(truth) => truth.into(),
        Evaluated::Integer(number) => number.into(),
        Evaluated::List(words) => words.into(),
    };
    let all = evaluated::all(document, &world.context(path, node))?;
    let typed = |(section, values): (String, BTreeMap<String, Evaluated>)| {
        (section, values.into_iter().map(|(keyword, value)| (keyword, json(value))).collect())
    };
    let mut sections: api::Evaluated = all.into_iter().map(typed).collect();
    if path.kind != Kind::Ccfg {
        let names = [
            ("kind", path.kind.to_string()),
            ("name", path.name.to_string()),
            ("namespace", path.namespace.to_string()),
        ];
        let metadata = names.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        sections.insert("metadata".into(), metadata.collect());
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        crate::daemon::world::tests::world("[cluster]\nname = homepool2\n")
    }

    const TEMPLATE: &str = "[DEFAULT]\norchestrate = ha\nnodes = {clusternodes}\n\n[ip#1]\ntype = cni\nnetns = container#0\n\n\
        [container#0]\ntype = docker\nimage = google/pause\n\n[container#1]\ntype = docker\nimage = registry\n\
        volume_mounts = {svcname}-data/registry:/var/lib/registry\nnetns = container#0\n\n[volume#1]\n\
        name = {svcname}-data\nsize = {env.size}\naccess = rwo\n\n[env]\nsize = 10g\n";

    #[test]
    fn keywords_are_changed_all_or_none() {
        let check = |set: &[&str], unset: &[&str], sections: &[&str], expected: &str| {
            let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
            let changes =
                api::Patch { set: words(set), unset: words(unset), sections: words(sections), dry_run: false };
            let text = "[DEFAULT]\nnodes = a b\n[app#1]\nstart = x\n[app#2]\nstart = y\n";
            let got = match patch(&Document::parse(text).unwrap(), &changes) {
                Ok(document) => document.to_string(),
                Err(wrong) => format!("{} wrong: {}", wrong.len(), wrong[0].what),
            };
            assert!(got.contains(expected), "{set:?} {unset:?}: {got}");
        };
        check(&["orchestrate=ha"], &[], &[], "orchestrate = ha");
        check(&["nodes+=c"], &[], &[], "nodes = a b c");
        check(&["app.start=z"], &[], &[], "[app#1]\nstart = z\n[app#2]\nstart = z");
        check(&[], &["app#1.start"], &[], "[app#1]\n[app#2]");
        check(&[], &[], &["app#1"], "[DEFAULT]\nnodes = a b\n[app#2]");
        check(&["nonsense"], &[], &["app#9"], "2 wrong");
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
    }
}
