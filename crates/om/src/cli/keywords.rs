//! Owns `om kw`: what the keywords' table says, for people and programs. Does not own the table.

use om_core::config::keyword::{CLUSTER_GROUPS, GROUPS, Inherit, KEYWORDS, Keyword, is_resource, of};
use serde_json::{Value, json};

use super::{Context, Failed, Format, Outcome, grammar::nearest, parse::Command};
use crate::output::text::{Colour, Text};

/// Columns of a paragraph.
const WIDTH: usize = 96;

/// `om kw [WHAT]`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    let found = match command.rest.first() {
        Some(what) => find(what)?,
        None => KEYWORDS.iter().collect(),
    };
    if context.format != Format::Human {
        return context.value(&found.iter().map(|keyword| value(keyword)).collect());
    }
    let lines =
        if command.rest.is_empty() { overview() } else { found.iter().flat_map(|one| explained(one)).collect() };
    context.lines(&lines)
}

/// Groups of resources and of sections of the cluster's configuration, with their types.
fn groups() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    GROUPS.iter().chain(CLUSTER_GROUPS).copied()
}

fn groups_of_cluster() -> impl Iterator<Item = &'static str> {
    CLUSTER_GROUPS.iter().map(|(group, _)| *group)
}

/// How the sections of a group are written.
fn section(group: &str) -> String {
    let has_name = is_resource(group) || groups().any(|(name, types)| name == group && !types.contains(&""));
    match group {
        "DEFAULT" => "[DEFAULT]".to_owned(),
        "*" => "every resource".to_owned(),
        group if has_name => format!("[{group}#…]"),
        group => format!("[{group}]"),
    }
}

/// Keywords of a group, of a group's type, one of either, or those of a name wherever they are.
fn find(what: &str) -> Result<Vec<&'static Keyword>, Failed> {
    // `container#1.image` is as good.
    let parts: Vec<&str> = what.split('.').map(|part| part.split('#').next().unwrap_or(part)).collect();
    let drivers = |group: &str| groups().find(|(name, _)| *name == group).map(|(_, drivers)| drivers);
    // What all resources have, groups of resources have too.
    let is_of = |keyword: &Keyword, group: &str| keyword.group == group || (keyword.group == "*" && is_resource(group));
    let found: Vec<&Keyword> = match parts[..] {
        ["DEFAULT"] => KEYWORDS.iter().filter(|keyword| keyword.group == "DEFAULT").collect(),
        [group] if drivers(group).is_some() => KEYWORDS.iter().filter(|keyword| is_of(keyword, group)).collect(),
        [group, driver] if drivers(group).is_some_and(|known| known.contains(&driver)) => of(group, driver).collect(),
        [group, driver, name] if drivers(group).is_some_and(|known| known.contains(&driver)) => {
            of(group, driver).filter(|keyword| keyword.name == name).collect()
        }
        ["DEFAULT", name] => KEYWORDS.iter().filter(|one| one.name == name && one.inherit != Inherit::Leaf).collect(),
        [group, name] if drivers(group).is_some() => {
            KEYWORDS.iter().filter(|one| one.name == name && is_of(one, group)).collect()
        }
        [name] => KEYWORDS.iter().filter(|keyword| keyword.name == name).collect(),
        _ => Vec::new(),
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let last = parts.last().copied().unwrap_or_default();
    let words = groups().flat_map(|(group, drivers)| [group].into_iter().chain(drivers.iter().copied()));
    let near = nearest(last, KEYWORDS.iter().map(|keyword| keyword.name).chain(words));
    let failed = Failed::new(format!("there is no keyword `{what}`"));
    Err(match near {
        Some(near) => {
            failed.hint(format!("did you mean `{}`?", [&parts[..parts.len() - 1], &[near]].concat().join(".")))
        }
        None => failed.hint("`om kw` shows what there is"),
    })
}

/// Where a keyword stands, such as `[container#…] type = docker`.
fn place(keyword: &Keyword) -> String {
    let section = section(keyword.group);
    let driver = if keyword.driver.is_empty() { String::new() } else { format!(" type = {}", keyword.driver) };
    let inherited = if keyword.inherit == Inherit::LeafThenHead { ", or [DEFAULT] for all" } else { "" };
    let file = if groups_of_cluster().any(|group| group == keyword.group) { " of the cluster" } else { "" };
    format!("{section}{driver}{inherited}{file}")
}

fn explained(keyword: &Keyword) -> Vec<Text> {
    let mut head = Text::new(keyword.name, Colour::Bold);
    head.push(format!("   {}", place(keyword)), Colour::Grey);
    let mut lines = vec![head];
    for line in Text::plain(keyword.text).wrap(WIDTH) {
        let mut indented = Text::plain("    ");
        indented.append(&line);
        lines.push(indented);
    }
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(Text::plain(format!("    {name:8} {value}")));
        }
    };
    fact("type", &keyword.kind.text());
    fact("default", keyword.default.unwrap_or_default());
    fact("example", &keyword.line());
    lines.push(Text::default());
    lines
}

fn overview() -> Vec<Text> {
    let mut lines = Vec::new();
    for (group, drivers) in ["DEFAULT", "*"].into_iter().map(|group| (group, &[][..])).chain(groups()) {
        if Some(group) == groups_of_cluster().next() {
            lines.push(Text::default());
            lines.push(Text::plain("The configuration of the cluster (om cluster edit):"));
        }
        let mut head = Text::new(section(group), Colour::Bold);
        let types: Vec<&str> = drivers.iter().copied().filter(|driver| !driver.is_empty()).collect();
        if !types.is_empty() {
            head.push(format!("   type = {}", types.join(" | ")), Colour::Grey);
        }
        lines.push(head);
        let mut names: Vec<&str> = KEYWORDS.iter().filter(|one| one.group == group).map(|one| one.name).collect();
        names.sort_unstable();
        names.dedup();
        for line in Text::plain(names.join(" ")).wrap(WIDTH) {
            let mut indented = Text::plain("    ");
            indented.append(&line);
            lines.push(indented);
        }
    }
    lines.push(Text::default());
    lines.push(Text::plain("`om kw container.docker` explains those of a type, `om kw container.image` one"));
    lines
}

fn value(keyword: &Keyword) -> Value {
    json!({
        "group": keyword.group, "driver": keyword.driver, "name": keyword.name, "type": keyword.kind.text(),
        "inherit": match keyword.inherit {
            Inherit::Leaf => "leaf",
            Inherit::Head => "head",
            Inherit::LeafThenHead => "leaf > head",
        },
        "default": keyword.default, "text": keyword.text, "example": keyword.example,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text;

    #[test]
    fn keywords_are_found_and_explained() {
        let check = |what: &str, expected: &str| {
            let got = match find(what) {
                Ok(found) => text::lines(&found.iter().flat_map(|one| explained(one)).collect::<Vec<_>>(), false),
                Err(failed) => format!("{} ({})", failed.message, failed.hint.unwrap_or_default()),
            };
            assert!(got.contains(expected), "{what}: {got}");
        };
        check("container.docker", "registry_creds");
        check("container.docker", "restart");
        check("container.image", "[container#…]");
        check("container#1.image", "    type     text");
        check("orchestrate", "    type     no | start | ha");
        check("orchestrate", "    default  no");
        check("pool", "[pool#…] of the cluster");
        check("network.routed_bridge", "ips_per_node");
        check("cluster.dns", "default  169.254.53.53");
        check("pool#fast.pth", "did you mean `pool.path`?");
        check("DEFAULT.restart", "[DEFAULT] for all");
        check("container.imgae", "there is no keyword `container.imgae` (did you mean `container.image`?)");
        check("contaner", "did you mean `container`?");
    }

    #[test]
    fn each_keyword_says_what_it_is_for() {
        for keyword in KEYWORDS {
            let page = text::lines(&explained(keyword), false);
            assert!(page.contains("example") || keyword.default.is_none(), "{page}");
        }
        let all = text::lines(&overview(), false);
        for line in ["[container#…]   type = docker | oci", "[pool#…]   type = directory | loop | shared", "[cni]\n"]
        {
            assert!(all.contains(line), "{all}");
        }
    }
}
