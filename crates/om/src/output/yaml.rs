//! Owns YAML of JSON values, in block style, as YAML 1.2 readers and those of 1.1 understand it alike.

use serde_json::Value;

/// The document, with a newline at its end.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let blanks = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&blanks);
                out.push_str(&text(key));
                out.push(':');
                after(value, indent, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&blanks);
                out.push('-');
                after(value, indent, out);
            }
        }
        _ => {}
    }
}

fn after(value: &Value, indent: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// Plain where nobody can take it for something else, in JSON's quotes otherwise, which YAML reads too.
fn text(string: &str) -> String {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && string.chars().all(|c| c.is_ascii_alphanumeric() || " ._/-+@#".contains(c))
        && !string.contains(" #")
        && !string.ends_with(' ')
        && !["y", "n", "yes", "no", "true", "false", "on", "off", "null"]
            .contains(&string.to_ascii_lowercase().as_str());
    if plain { string.into() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_blocks() {
        let value = serde_json::json!({
            "avail": "up", "n/a": "n/a", "no": "no", "number": 1.5, "text": "1.5", "colon": "a: b", "none": null,
            "list": ["vm", {"a": true, "b": []}], "map": {"ip#1": {"status": "up"}}, "empty": {}
        });
        let expected = "\
avail: up
colon: \"a: b\"
empty: {}
list:
  - vm
  -
    a: true
    b: []
map:
  ip#1:
    status: up
n/a: n/a
\"no\": \"no\"
none: null
number: 1.5
text: \"1.5\"
";
        assert_eq!(write(&value), expected);
        assert_eq!(write(&serde_json::json!("a # b")), "\"a # b\"\n");
    }
}
