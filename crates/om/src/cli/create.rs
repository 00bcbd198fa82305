//! Owns making objects: where the configuration comes from, and what is asked for with it.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::Path,
};

use om_core::{
    config::document::Document,
    path::{Kind, ObjectPath},
};
use serde_json::{Map, Value};

use super::{Context, Failed, Format, Outcome, config, follow, ini, parse::Command, put, tell};
use crate::api;

/// Templates that are part of the program, by name.
const SHIPPED: [(&str, &str); 1] = [("registry", include_str!("../../templates/registry.conf"))];
/// The longest configuration, in bytes.
const MAX: u64 = 1 << 20;

/// A configuration, and which object it is of if it says so itself.
#[derive(Debug, Default)]
struct Source {
    path: Option<ObjectPath>,
    text: String,
    file: String,
}

/// `create`, `deploy`.
pub async fn run(context: &Context, command: &Command) -> Outcome {
    let provision = command.has("provision") || command.verb.words == "deploy";
    let time = follow::patience(command)?;
    let named = if command.selector.is_empty() { None } else { Some(context.one(command)?) };
    let mut sources = sources(context, command).await?;
    if named.is_some() && sources.len() > 1 {
        return Err(Failed::new("the configuration has several objects")
            .hint("leave the object's name out: `om svc create --config -`"));
    }
    if command.has("interactive") {
        for source in &mut sources {
            source.text = prompted(&source.text)?;
        }
    }
    let mut requests = Vec::new();
    for source in sources {
        let Some(path) = named.clone().or(source.path) else {
            return Err(
                Failed::new("create what?").hint("`om NAMESPACE/NAME create`, or `svcmgr create -s NAMESPACE/NAME`")
            );
        };
        let create = api::Create {
            path: path.fqn(),
            config: source.text,
            file: source.file,
            keywords: config::keywords(command),
            env: command.values("env"),
            restore: command.has("restore"),
            provision,
            dry_run: command.has("dry-run"),
        };
        let created = context.client.create(&create).await?;
        config::warn(&created.diagnostics);
        if context.format != Format::Human {
            context.value(&serde_json::to_value(&created).unwrap_or_default())?;
        } else if create.dry_run {
            put(&format!("would create {path}\n"))?;
            if provision {
                follow::plan(context, &path.to_string(), &created.plan)?;
            }
        } else {
            put(&format!("create {path}\n"))?;
        }
        requests.extend(created.request.map(|request| (created.path, request)));
    }
    if command.has("no-wait") {
        return Ok(0);
    }
    Ok(u8::from(follow::follow(&context.client, requests, time).await? > 0))
}

async fn sources(context: &Context, command: &Command) -> Result<Vec<Source>, Failed> {
    match (command.value("config"), command.value("template")) {
        (Some(_), Some(_)) => Err(Failed::new("--config and --template exclude each other")),
        (None, None) => Ok(vec![Source::default()]),
        (None, Some(name)) => Ok(vec![template(context, name)?]),
        (Some("-"), None) => read(&limited(io::stdin().lock(), "the standard input")?, "-", command.kind),
        (Some(file), None) if Path::new(file).exists() => {
            let path = Path::new(file);
            let opened = fs::File::open(path).map_err(|error| Failed::io("read", path, &error))?;
            read(&limited(opened, file)?, file, command.kind)
        }
        (Some(other), None) => {
            let absent = || Failed::new(format!("there is no file {other}"));
            if other.contains("://") {
                return Err(absent().hint(format!("download it first: curl {other} | om … create --config -")));
            }
            // Another object's, if there is one of this name.
            let path = other.parse::<ObjectPath>().map_err(|_| absent())?;
            match context.client.config(&path).await {
                Ok(found) => Ok(vec![Source { path: None, text: found.text, file: path.to_string() }]),
                Err(error) if error.is_not_found() => {
                    Err(absent().hint("a file, - for the standard input, or an object"))
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

fn limited(from: impl io::Read, name: &str) -> Result<String, Failed> {
    let mut text = String::new();
    from.take(MAX + 1).read_to_string(&mut text).map_err(|error| Failed::new(format!("read {name}: {error}")))?;
    if text.len() as u64 > MAX {
        return Err(Failed::new(format!("{name} has more than {MAX} bytes")));
    }
    Ok(text)
}

/// INI text as it is; JSON of one object, of a list of them, or by path.
fn read(text: &str, file: &str, kind: Option<Kind>) -> Result<Vec<Source>, Failed> {
    let trimmed = text.trim_start();
    // A list in JSON and a section in INI begin alike; a section has no quote or brace after its bracket.
    let list = trimmed.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'));
    if !trimmed.starts_with('{') && !list {
        return Ok(vec![Source { path: None, text: text.into(), file: file.into() }]);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| Failed::new(format!("{file}: {error}")))?;
    let one = |map: &Map<String, Value>, path: Option<&str>| {
        let path = match path {
            Some(path) => Some(path.parse().map_err(|error| Failed::new(format!("{file}: {error}")))?),
            None => metadata(map, kind).transpose()?,
        };
        let text = ini::text(map).map_err(|error| Failed::new(format!("{file}: {error}")))?;
        Ok(Source { path, text, file: file.into() })
    };
    let object = |value: &Value| {
        value
            .as_object()
            .cloned()
            .ok_or_else(|| Failed::new(format!("{file}: an object is {{section: {{keyword: value}}}}")))
    };
    match &value {
        Value::Array(list) => list.iter().map(|value| one(&object(value)?, None)).collect(),
        Value::Object(map) if !map.is_empty() && map.keys().all(|key| key.contains('/')) => {
            map.iter().map(|(path, value)| one(&object(value)?, Some(path))).collect()
        }
        value => Ok(vec![one(&object(value)?, None)?]),
    }
}

fn metadata(map: &Map<String, Value>, kind: Option<Kind>) -> Option<Result<ObjectPath, Failed>> {
    let metadata = map.get("metadata")?;
    let word = |name: &str| metadata.get(name).and_then(Value::as_str);
    let namespace = word("namespace").unwrap_or("root");
    let kind = word("kind").unwrap_or(kind.unwrap_or(Kind::Svc).as_str());
    Some(format!("{namespace}/{kind}/{}", word("name")?).parse().map_err(Failed::new))
}

fn template(context: &Context, name: &str) -> Result<Source, Failed> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('.');
    let installed = context.places.etc.join("templates").join(format!("{name}.conf"));
    for path in [Some(installed).filter(|_| plain), Some(name.into()).filter(|_| !plain)].into_iter().flatten() {
        if let Ok(file) = fs::File::open(&path) {
            return Ok(Source {
                path: None,
                text: limited(file, &path.to_string_lossy())?,
                file: path.display().to_string(),
            });
        }
    }
    match SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        Some((_, text)) => Ok(Source { path: None, text: (*text).into(), file: format!("template {name}") }),
        None => Err(Failed::new(format!("there is no template {name}")).hint("`om templates` lists them")),
    }
}

/// `om templates`.
pub fn templates(context: &Context) -> Outcome {
    let mut names: Vec<String> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    if let Ok(entries) = fs::read_dir(context.places.etc.join("templates")) {
        let name = |entry: fs::DirEntry| Some(entry.file_name().to_string_lossy().strip_suffix(".conf")?.to_owned());
        names.extend(entries.flatten().filter_map(name));
    }
    names.sort();
    names.dedup();
    put(&names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// Asks for each key of `[env]`; answers the text with what was said in it.
fn prompted(text: &str) -> Result<String, Failed> {
    if !io::stdin().is_terminal() {
        return Err(Failed::new("--interactive needs a terminal").hint("use --env KEY=VALUE"));
    }
    let sections = ini::read(text)?;
    let mut document = Document::parse(text).unwrap_or_else(|_| Document::empty());
    for (_, keywords) in sections.iter().filter(|(name, _)| name == "env") {
        for (key, value) in keywords {
            tell(&format!("{key} [{value}]: "));
            let mut answer = String::new();
            io::stdin()
                .lock()
                .read_line(&mut answer)
                .map_err(|error| Failed::new(format!("read the answer: {error}")))?;
            if !answer.trim().is_empty() {
                document.set("env", key, answer.trim());
            }
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_come_in_several_forms() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let got: Vec<(String, String)> = read(text, "f", None)
                .unwrap()
                .into_iter()
                .map(|source| (source.path.map_or_else(String::new, |path| path.fqn()), source.text))
                .collect();
            let expected: Vec<(String, String)> = expected.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            assert_eq!(got, expected);
        };
        check("[DEFAULT]\nnodes = a\n", &[("", "[DEFAULT]\nnodes = a\n")]);
        check(r#"{"env": {"a": 1}}"#, &[("", "[env]\na = 1\n\n")]);
        check(
            r#"{"metadata": {"name": "x", "namespace": "n"}, "env": {"a": "1"}}"#,
            &[("n/svc/x", "[env]\na = 1\n\n")],
        );
        check(r#" [ {"metadata": {"name": "x", "kind": "sec"}} ]"#, &[("root/sec/x", "")]);
        check(r#"{"n/svc/x": {}, "n/svc/y": {}}"#, &[("n/svc/x", ""), ("n/svc/y", "")]);
        assert!(read("{", "f", None).unwrap_err().message.starts_with("f: "));
    }
}
