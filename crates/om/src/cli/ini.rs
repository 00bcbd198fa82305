//! Owns configurations as sections of keywords, to be shown and found, and made of JSON. Does not own the language:
//! how a text is read, scopes, references and errors are `om-core`'s.

use om_core::config::document::Document;
use serde_json::{Map, Value};

use super::Failed;

/// A section with its keywords, as written.
pub type Section = (String, Vec<(String, String)>);

/// Sections in order of appearance.
///
/// # Errors
/// The text is not of the form; the daemon takes no such text.
pub fn read(text: &str) -> Result<Vec<Section>, Failed> {
    let document = Document::parse(text).map_err(|found| {
        let first = found.first().map_or_else(String::new, |first| format!(": {}", first.what));
        Failed::new(format!("the configuration cannot be read{first}"))
    })?;
    let mut sections: Vec<Section> =
        document.sections().into_iter().map(|(name, _)| (name.to_owned(), Vec::new())).collect();
    for setting in document.settings() {
        let key =
            setting.scope.map_or_else(|| setting.keyword.to_owned(), |scope| format!("{}@{scope}", setting.keyword));
        if let Some((_, keywords)) = sections.iter_mut().find(|(name, _)| name == setting.section) {
            keywords.push((key, setting.value));
        }
    }
    Ok(sections)
}

/// A keyword's value: `section.keyword`, or a keyword of `[DEFAULT]`. The last one written counts.
pub fn get<'a>(sections: &'a [Section], name: &str) -> Option<&'a str> {
    let in_section = |section: &str, key: &str| {
        sections
            .iter()
            .filter(|(name, _)| name == section)
            .flat_map(|(_, keywords)| keywords)
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    // Keys of [env] and [labels] may have dots, names of sections have none.
    in_section("DEFAULT", name).or_else(|| name.split_once('.').and_then(|(section, key)| in_section(section, key)))
}

/// `{section: {keyword: value}}`.
pub fn json(sections: &[Section]) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, keywords) in sections {
        let section = map.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(section) = section {
            section.extend(keywords.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
        }
    }
    map
}

/// The text of `{section: {keyword: value}}`; `metadata` is left out. Numbers, booleans and lists are written as the
/// language reads them.
///
/// # Errors
/// What is not of this form, in words.
pub fn text(map: &Map<String, Value>) -> Result<String, String> {
    let mut out = String::new();
    // `[DEFAULT]` first, as people write it.
    let mut names: Vec<&String> = map.keys().filter(|name| *name != "metadata").collect();
    names.sort_by_key(|name| (*name != "DEFAULT", *name));
    for name in names {
        let Some(Value::Object(section)) = map.get(name) else {
            return Err(format!("`{name}` is no section: {{keyword: value}} is expected"));
        };
        if name.contains(['\n', ']']) {
            return Err(format!("`{name}` is no name of a section"));
        }
        out.push_str(&format!("[{name}]\n"));
        for (key, value) in section {
            let Some(value) = scalar(value) else {
                return Err(format!("`{name}.{key}`: a text, number, boolean or list of them is expected"));
            };
            if key.contains(['\n', '=', '[', '#', ';']) && name != "data" {
                return Err(format!("`{name}.{key}` is no name of a keyword"));
            }
            out.push_str(&format!("{key} = {}\n", value.replace('\n', "\n  ")));
        }
        out.push('\n');
    }
    Ok(out)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>().map(|words| words.join(" ")),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found() {
        let text = "# c\n[DEFAULT]\nnodes = a\n  b\n\n[env]\na.b = 1 = 2\nsize=10g\n[container#1]\nimage = y\n";
        let sections = read(text).unwrap();
        let check = |name: &str, expected: Option<&str>| assert_eq!(get(&sections, name), expected, "{name}");
        check("nodes", Some("a\nb"));
        check("DEFAULT.nodes", Some("a\nb"));
        check("env.size", Some("10g"));
        check("env.a.b", Some("1 = 2"));
        check("container#1.image", Some("y"));
        check("image", None);
    }

    #[test]
    fn json_is_written_as_a_text_that_reads_the_same() {
        let value = serde_json::json!({
            "metadata": {"name": "x"}, "env": {"size": "10g"}, "DEFAULT": {"nodes": ["a", "b"], "priority": 3},
            "container#1": {"image": "x", "rm": true, "command": "a\nb"}
        });
        let Value::Object(map) = value else { panic!("an object") };
        let written = text(&map).unwrap();
        assert!(written.starts_with("[DEFAULT]\nnodes = a b\npriority = 3\n"), "{written}");
        let back = json(&read(&written).unwrap());
        assert_eq!(back["container#1"], serde_json::json!({"image": "x", "rm": "true", "command": "a\nb"}));
        assert!(text(&serde_json::from_str(r#"{"a": 1}"#).unwrap()).is_err());
    }
}
