//! Owns the verbs on keys of `sec` and `cfg` objects, other than editing one.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use super::{Context, Failed, Format, Outcome, edit::word, parse::Command, put, put_bytes};
use crate::api::{MAX_VALUE, WriteMode};

/// `add`, `change`, `append`.
pub async fn write(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    let key = command.value("key").filter(|key| !key.is_empty());
    let values: Vec<(String, Vec<u8>)> = match (command.value("value"), command.value("from")) {
        (Some(_), Some(_)) => return Err(Failed::new("--value and --from exclude each other")),
        (Some(value), None) => vec![(named(key)?, value.as_bytes().to_vec())],
        (None, Some("-")) => vec![(named(key)?, limited(io::stdin().lock(), "the standard input")?)],
        (None, Some(from)) => files(from, key)?,
        (None, None) => vec![(named(key)?, Vec::new())],
    };
    let (mode, done) = match command.verb.words {
        "add" => (WriteMode::Add, "added"),
        "append" => (WriteMode::Append, "appended"),
        _ => (WriteMode::Change, "changed"),
    };
    // An empty key is made where there is none, and left where there is one.
    let empty = mode == WriteMode::Add && command.value("value").is_none() && command.value("from").is_none();
    for (key, value) in values {
        if empty && context.client.keys(&path, None).await?.iter().any(|known| known.name == key) {
            continue;
        }
        let changed = context.client.value_put(&path, &key, mode, value).await?;
        put(&format!("  {} key '{key}' {done} ({})\n", word(path.kind), changed.size))?;
    }
    Ok(0)
}

fn named(key: Option<&str>) -> Result<String, Failed> {
    key.map(str::to_owned).ok_or_else(|| Failed::new("which key?").hint("name it: --key NAME"))
}

/// A file under its own name or the one given; every file of a directory, below the one given.
fn files(from: &str, key: Option<&str>) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    let path = Path::new(from);
    let found = fs::metadata(path).map_err(|error| Failed::io("read", path, &error))?;
    if !found.is_dir() {
        let file = fs::File::open(path).map_err(|error| Failed::io("read", path, &error))?;
        let own = path.file_name().map(|name| name.to_string_lossy().into_owned());
        return Ok(vec![(named(key.or(own.as_deref()))?, limited(file, from)?)]);
    }
    let mut values = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory).map_err(|error| Failed::io("read", &directory, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Failed::io("read", &directory, &error))?.path();
            if fs::symlink_metadata(&entry).is_ok_and(|found| found.is_dir()) {
                open.push(entry);
                continue;
            }
            if values.len() >= 1000 {
                return Err(Failed::new(format!("{from} has more than 1000 files")));
            }
            let relative = entry.strip_prefix(path).unwrap_or(&entry).to_string_lossy().into_owned();
            let name = key.map_or(relative.clone(), |prefix| format!("{}/{relative}", prefix.trim_end_matches('/')));
            let file = fs::File::open(&entry).map_err(|error| Failed::io("read", &entry, &error))?;
            values.push((name, limited(file, &entry.to_string_lossy())?));
        }
    }
    values.sort();
    Ok(values)
}

fn limited(from: impl io::Read, name: &str) -> Result<Vec<u8>, Failed> {
    let mut value = Vec::new();
    from.take(MAX_VALUE as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failed::new(format!("read {name}: {error}")))?;
    if value.len() > MAX_VALUE {
        return Err(Failed::new(format!("{name} has more than {MAX_VALUE} bytes, the most a key may hold")));
    }
    Ok(value)
}

/// `decode`: the bytes as they are.
pub async fn decode(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    let value = context.client.value(&path, &named(command.value("key"))?).await?;
    put_bytes(&value)
}

/// `keys`.
pub async fn list(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    let keys = context.client.keys(&path, command.value("match")).await?;
    if context.format != Format::Human {
        return context.value(&keys.iter().map(|key| key.name.as_str()).collect());
    }
    put(&keys.iter().map(|key| format!("{}\n", key.name)).collect::<String>())
}

/// `remove`.
pub async fn remove(context: &Context, command: &Command) -> Outcome {
    let path = context.one(command)?;
    let key = named(command.value("key"))?;
    let removed = context.client.value_delete(&path, &key).await?;
    let done = if removed.changed { "removed" } else { "is not there" };
    put(&format!("  {} key '{key}' {done}\n", word(path.kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_key_for_each_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), "1").unwrap();
        fs::write(directory.path().join("c"), "2").unwrap();
        let from = directory.path().to_string_lossy().into_owned();
        let names =
            |key: Option<&str>| files(&from, key).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(None), ["a/b", "c"]);
        assert_eq!(names(Some("tls/")), ["tls/a/b", "tls/c"]);
        let one = files(&format!("{from}/c"), None).unwrap();
        assert_eq!(one, [("c".to_owned(), b"2".to_vec())]);
        assert!(limited(io::repeat(0), "it").is_err());
    }
}
