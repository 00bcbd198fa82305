//! Owns the verbs that only look: status, ls, logs, enter and their like.

use std::os::unix::process::CommandExt as _;

use om_core::{
    path::ObjectPath,
    status::{Merge, Status},
};
use serde_json::{Map, Value};

use super::{Context, Failed, Format, Outcome, no_match, parse::Command, put};
use crate::{
    api::{LogLine, Snapshot},
    output::{
        json, mon,
        status::{View, lines},
        table::{self, Table},
        text::{Colour, Text},
    },
};

/// How much of the past logs show, in bytes.
const BACKLOG: u64 = 10 << 10;

async fn snapshot(context: &Context, command: &Command) -> Result<Snapshot, Failed> {
    let found = context.client.status(&context.selector(command)?, command.has("refresh")).await?;
    if found.objects.is_empty() { Err(no_match()) } else { Ok(found) }
}

/// `print status`.
pub async fn status(context: &Context, command: &Command) -> Outcome {
    let found = snapshot(context, command).await?;
    let node = command.value("node");
    if let Some(node) = node.filter(|node| !found.nodes.contains_key(*node)) {
        let known: Vec<&str> = found.nodes.keys().map(String::as_str).collect();
        return Err(Failed::new(format!("there is no node {node}")).hint(format!("one of: {}", known.join(", "))));
    }
    if context.format != Format::Human {
        return context.value(&json::status(&found, node, true));
    }
    let mut first = true;
    for (path, object) in &found.objects {
        if !std::mem::take(&mut first) {
            put("\n")?;
        }
        let heading = context.heading(command, path);
        let hide_disabled = command.has("hide-disabled");
        context.lines(&lines(
            &found,
            path,
            object,
            View { heading: Some(&heading), node, hide_disabled, width: context.width },
        ))?;
    }
    Ok(0)
}

/// `status`: the exit code.
pub async fn code(context: &Context, command: &Command) -> Outcome {
    let found = snapshot(context, command).await?;
    let merged: Merge = found.objects.values().filter_map(|object| Status::from_word(&object.overall)).collect();
    Ok(merged.status().code())
}

/// `print resource status`: a word.
pub async fn resource(context: &Context, command: &Command) -> Outcome {
    let rids = command.list("rid");
    if rids.is_empty() {
        return Err(Failed::new("which resource?").hint("name it: --rid container#1"));
    }
    let found = snapshot(context, command).await?;
    for (path, object) in &found.objects {
        for rid in &rids {
            let resource = object.instances.get(&found.node).and_then(|instance| instance.resources.get(rid));
            let resource =
                resource.ok_or_else(|| Failed::new(format!("{path} has no resource {rid} on {}", found.node)))?;
            put(&format!("{}\n", resource.status))?;
        }
    }
    Ok(0)
}

/// `print devices`: facts of the resources.
pub async fn devices(context: &Context, command: &Command) -> Outcome {
    let found = snapshot(context, command).await?;
    let rids = command.list("rid");
    let wanted = |rid: &str| rids.is_empty() || rids.iter().any(|one| one == rid || rid.split('#').next() == Some(one));
    let mut table = Table::new(&["object", "resource", "fact", "value"]);
    let mut all = Map::new();
    for (path, object) in &found.objects {
        let Some(instance) = object.instances.get(&found.node) else { continue };
        let mut resources = Map::new();
        for (rid, resource) in instance.resources.iter().filter(|(rid, _)| wanted(rid)) {
            for (name, value) in &resource.info {
                table.row([path.as_str(), rid, name, value]);
            }
            resources.insert(
                rid.clone(),
                resource.info.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect(),
            );
        }
        all.insert(path.clone(), resources.into());
    }
    if context.format == Format::Human { context.lines(&table.lines()) } else { context.value(&all.into()) }
}

/// `frozen`: code 1 and the time if it is.
pub async fn frozen(context: &Context, command: &Command) -> Outcome {
    let found = snapshot(context, command).await?;
    let mut code = 0;
    for (path, object) in &found.objects {
        for (node, instance) in &object.instances {
            if let Some(since) = instance.frozen {
                code = 1;
                put(&format!("{path} on {node}: frozen since {}\n", table::time(since)))?;
            }
        }
    }
    Ok(code)
}

/// `ls`: nothing is no error.
pub async fn list(context: &Context, command: &Command) -> Outcome {
    let paths = context.client.objects(&context.selector(command)?).await?;
    if context.format != Format::Human {
        return context.value(&paths.into());
    }
    let short = |path: &String| path.parse::<ObjectPath>().map_or_else(|_| path.clone(), |path| path.to_string());
    put(&paths.iter().map(|path| short(path) + "\n").collect::<String>())
}

/// `om cluster status`, `om daemon status`: the table, once.
pub async fn cluster(context: &Context, command: &Command) -> Outcome {
    let daemon = context.client.daemon().await?;
    let found = context.client.status(&context.selector(command)?, false).await?;
    if context.format != Format::Human {
        let mut value = serde_json::to_value(&found).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("daemon".into(), serde_json::to_value(&daemon).unwrap_or_default());
        }
        return context.value(&value);
    }
    let mut parts = vec![("daemon".to_owned(), format!("running {} (pid {})", daemon.version, daemon.pid))];
    parts.extend(daemon.parts);
    let table: Vec<Text> = mon::lines(&found, &parts).into_iter().map(|line| line.text).collect();
    put(&format!("Cluster {}\n\n", found.cluster))?;
    context.lines(&table)
}

/// `logs`.
pub async fn logs(context: &Context, command: &Command) -> Outcome {
    if let Some(rid) = command.value("rid") {
        let path = context.one(command)?;
        let output = context.client.output(&path, rid, backlog(command)?, command.has("follow")).await?;
        return become_program(&path, &output.command, |word| word);
    }
    let selector = context.selector(command)?;
    said(context, command, Some(&selector)).await
}

/// Logs of objects, or of the node.
pub async fn said(context: &Context, command: &Command, selector: Option<&str>) -> Outcome {
    let backlog = backlog(command)?;
    let mut lines = context.client.logs(selector, Some(backlog), command.has("follow")).await?;
    while let Some(line) = lines.next().await? {
        // A daemon that has nothing to say shows with an empty line that it lives.
        if line.text.is_empty() {
            continue;
        }
        match context.format {
            Format::Human => context.lines(&[log_line(&line)])?,
            _ => put(&format!("{}\n", serde_json::to_string(&line).unwrap_or_default()))?,
        };
    }
    Ok(0)
}

fn backlog(command: &Command) -> Result<u64, Failed> {
    let Some(text) = command.value("backlog") else { return Ok(BACKLOG) };
    bytes(text).ok_or_else(|| Failed::new(format!("--backlog {text}: a size is expected")).hint("such as 10k or 1m"))
}

fn log_line(line: &LogLine) -> Text {
    let mut text = Text::new(table::time(line.time), Colour::Grey);
    text.push(format!(" {}", line.node), Colour::Bold);
    for part in [Some(&line.path), line.rid.as_ref()].into_iter().flatten().filter(|part| !part.is_empty()) {
        text.push(format!(" {part}"), Colour::Plain);
    }
    text.push(format!(" {}: ", line.level), Colour::of_severity(&line.level));
    text.push(&line.text, Colour::Plain);
    text
}

/// `10k`, `1m`, or bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].trim_end_matches(['b', 'i']) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// `enter`: becomes the shell.
pub async fn enter(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    let enter = context.client.enter(&path, command.value("rid")).await?;
    // Without a terminal it runs what comes in, as a shell does.
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    become_program(&path, &enter.command, |word| if word == "-it" && !is_terminal { "-i" } else { word })
}

/// Becomes the program that the daemon names.
fn become_program(path: &ObjectPath, words: &[String], change: impl Fn(&str) -> &str) -> Outcome {
    let [program, words @ ..] = words else { return Err(Failed::new(format!("{path}: the daemon names no way"))) };
    let error = std::process::Command::new(program).args(words.iter().map(|word| change(word))).exec();
    Err(Failed::new(format!("run {program}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text), expected, "{text}");
        check("10k", Some(10 << 10));
        check("1MiB", Some(1 << 20));
        check("512", Some(512));
        check("1x", None);
        check("k", None);
    }
}
