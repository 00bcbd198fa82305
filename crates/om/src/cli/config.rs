//! Owns the verbs on configurations, other than creating and editing: set, unset, get, print, validate.

use std::fs;

use serde_json::{Map, Value, json};

use super::{
    Context, Failed, Format, Outcome, coloured_errors, diagnostic, grammar::Area, ini, parse::Command, put, tell,
};
use crate::{
    api,
    output::{table, text},
};

/// Shows warnings.
pub fn warn(diagnostics: &[api::Diagnostic]) {
    let lines: Vec<text::Text> = diagnostics.iter().map(diagnostic).collect();
    tell(&text::lines(&lines, coloured_errors()));
}

/// Keywords of `--kw` and of the words after the verb; `--param K --value V` is one too.
pub fn keywords(command: &Command) -> Vec<String> {
    let mut keywords = command.values("kw");
    if let (Some(value), Some(last)) = (command.value("value"), keywords.last_mut()) {
        last.push('=');
        last.push_str(value);
    }
    keywords.extend(command.rest.iter().cloned());
    keywords
}

/// The patch that `set` or `unset` means.
pub fn patch_of(command: &Command) -> Result<api::Patch, Failed> {
    let keywords = keywords(command);
    let sections = command.values("section");
    if keywords.is_empty() && sections.is_empty() {
        return Err(Failed::new(format!("{} what?", command.verb.words))
            .hint(format!("`om help {}` has examples", super::parse::full(command.verb))));
    }
    let dry_run = command.has("dry-run");
    Ok(match command.verb.words {
        "set" => api::Patch { set: keywords, dry_run, ..api::Patch::default() },
        _ => api::Patch { unset: keywords, sections, dry_run, ..api::Patch::default() },
    })
}

/// `set`, `unset`.
pub async fn patch(context: &Context, command: &Command) -> Outcome {
    let patch = patch_of(command)?;
    for path in context.paths(command).await? {
        let changed = context.client.config_patch(&path, &patch).await?;
        warn(&changed.diagnostics);
        put(&format!("  {path} {}\n", said(changed.changed, patch.dry_run)))?;
    }
    Ok(0)
}

/// What became of a change.
pub fn said(changed: bool, dry_run: bool) -> &'static str {
    match (changed, dry_run) {
        (true, false) => "configuration changed",
        (true, true) => "configuration would change",
        (false, _) => "configuration unchanged",
    }
}

/// `delete --rid`: sections, not the object.
pub async fn delete_sections(context: &Context, command: &Command) -> Outcome {
    let patch = api::Patch { sections: command.list("rid"), dry_run: command.has("dry-run"), ..api::Patch::default() };
    for path in context.paths(command).await? {
        let changed = context.client.config_patch(&path, &patch).await?;
        warn(&changed.diagnostics);
        put(&format!("  {path} {}\n", said(changed.changed, patch.dry_run)))?;
    }
    Ok(0)
}

/// `get`, `eval`.
pub async fn get(context: &Context, command: &Command) -> Outcome {
    let names = keywords(command);
    if names.is_empty() {
        return Err(Failed::new("which keyword?").hint("name it: --kw env.size"));
    }
    let evaluated = command.has("eval") || command.verb.words == "eval" || command.has("impersonate");
    for path in context.paths(command).await? {
        if evaluated {
            let found = context.client.config_eval(&path, command.value("impersonate")).await?;
            for name in &names {
                let value = lookup(&found, name).ok_or_else(|| unset(&path.to_string(), name))?;
                show(context, value)?;
            }
        } else {
            let sections = ini::read(&context.client.config(&path).await?.text)?;
            for name in &names {
                let value = ini::get(&sections, name).ok_or_else(|| unset(&path.to_string(), name))?;
                show(context, &value.into())?;
            }
        }
    }
    Ok(0)
}

fn lookup<'a>(found: &'a api::Evaluated, name: &str) -> Option<&'a Value> {
    let default = || found.get("DEFAULT").and_then(|section| section.get(name));
    name.split_once('.').and_then(|(section, key)| found.get(section)?.get(key)).or_else(default)
}

/// A keyword that has no value.
pub fn unset(of: &str, name: &str) -> Failed {
    Failed::new(format!("{of}: {name} is not set"))
}

/// A value; lists separated by blanks for people.
pub fn show(context: &Context, value: &Value) -> Outcome {
    if context.format != Format::Human {
        return context.value(value);
    }
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(list) => put(&format!("{}\n", list.iter().map(word).collect::<Vec<_>>().join(" "))),
        other => put(&format!("{}\n", word(other))),
    }
}

/// `print config`.
pub async fn print(context: &Context, command: &Command) -> Outcome {
    let paths = context.paths(command).await?;
    let evaluated = command.has("eval") || command.has("impersonate");
    let mut values = Map::new();
    for path in &paths {
        let metadata =
            json!({"namespace": path.namespace.as_str(), "kind": path.kind.as_str(), "name": path.name.as_str()});
        let mut map = if evaluated {
            let found = context.client.config_eval(path, command.value("impersonate")).await?;
            found.into_iter().map(|(name, section)| (name, Value::from_iter(section))).collect()
        } else {
            let config = context.client.config(path).await?;
            if context.format == Format::Human {
                if paths.len() > 1 {
                    put(&format!("# {path}\n"))?;
                }
                put(&coloured(&config.text, context.colour))?;
                continue;
            }
            ini::json(&ini::read(&config.text)?)
        };
        map.insert("metadata".into(), metadata);
        values.insert(path.fqn(), map.into());
    }
    match values.len() {
        0 => Ok(0),
        1 if paths.len() == 1 => context.value(&values.into_iter().next().map(|(_, value)| value).unwrap_or_default()),
        _ => context.value(&values.into()),
    }
}

/// A configuration's text as it is written, with colours for its sections and keywords.
pub fn coloured(config: &str, colour: bool) -> String {
    let end = if config.is_empty() || config.ends_with('\n') { "" } else { "\n" };
    if !colour {
        return format!("{config}{end}");
    }
    let line = |line: &str| {
        // Tabs are the only control characters that a text may have.
        let line = line.replace('\t', "    ");
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            return text::Text::new(&line, text::Colour::Grey);
        }
        if trimmed.starts_with('[') {
            return text::Text::new(&line, text::Colour::Yellow);
        }
        match line.split_once('=').filter(|_| !line.starts_with([' ', '\t'])) {
            Some((key, value)) => {
                let mut text = text::Text::new(key, text::Colour::Bold);
                text.push(format!("={value}"), text::Colour::Plain);
                text
            }
            None => text::Text::plain(&line),
        }
    };
    text::lines(&config.lines().map(line).collect::<Vec<_>>(), true)
}

/// `print config mtime`.
pub async fn modified(context: &Context, command: &Command) -> Outcome {
    for path in context.paths(command).await? {
        let config = context.client.config(&path).await?;
        // Seconds fit into a float's whole numbers for millions of years.
        put(&format!("{}\n", table::time(config.modified as f64)))?;
    }
    Ok(0)
}

/// `validate`: code 0 nothing, 1 warnings, 2 errors.
pub async fn validate(context: &Context, command: &Command) -> Outcome {
    let checked = match command.value("config") {
        None if command.verb.area != Area::Cluster => {
            let mut all = Vec::new();
            for path in context.paths(command).await? {
                all.extend(context.client.config_check(&path).await?.diagnostics);
            }
            all
        }
        None => context.client.config_check(&context.one(command)?).await?.diagnostics,
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|error| Failed::io("read", file.as_ref(), &error))?;
            let replace = api::Replace { text, generation: None, file: file.into(), dry_run: true };
            context.client.config_check_text(&context.one(command)?, &replace).await?.diagnostics
        }
    };
    if context.format == Format::Human {
        warn(&checked);
    } else {
        context.value(&serde_json::to_value(&checked).unwrap_or_default())?;
    }
    let error = checked.iter().any(|found| found.severity == "error");
    Ok(if error { 2 } else { u8::from(!checked.is_empty()) })
}
