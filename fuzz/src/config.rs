//! What holds for configurations: YAML, then a line `%%`, then variables, `NAME=value` one a line.

use std::collections::BTreeMap;

use registry::fuzzing::{Configuration, config};

use super::text;

/// Stands nowhere but where it is put.
const SECRET: &str = "hunter2-hunter2-hunter2";

/// A configuration means the same every time, is used if and only if nothing is wrong with it, and
/// what is shown of it shows no secret.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (yaml, variables) = text.split_once("\n%%\n").unwrap_or((text, ""));
    let mut env: BTreeMap<String, String> = variables
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();

    let loaded = config(yaml, &env);
    assert_eq!(config(yaml, &env), loaded);
    sound(&loaded);

    // Variables of others change nothing.
    env.insert("PATH".to_owned(), "/bin".to_owned());
    env.insert("REGISTRYX_LOG_LEVEL".to_owned(), "debug".to_owned());
    assert_eq!(config(yaml, &env), loaded);

    if !text.contains(SECRET) {
        env.insert("REGISTRY_HTTP_SECRET".to_owned(), SECRET.to_owned());
        let loaded = config(yaml, &env);
        sound(&loaded);
        assert!(!format!("{loaded:?}").contains(SECRET), "a secret is shown");
    }
}

fn sound(loaded: &Configuration) {
    assert_eq!(loaded.config.is_some(), loaded.errors == 0);
    assert_eq!(loaded.json["valid"], loaded.errors == 0);
    let problems = loaded.json["problems"].as_array().expect("a list");
    let errors = problems.iter().filter(|problem| problem["severity"] == "error").count();
    assert_eq!(errors, loaded.errors);
    // A person sees every problem that a program sees.
    for problem in problems {
        let message = problem["message"].as_str().expect("a text");
        assert!(!message.is_empty() && loaded.table.contains(message), "{message:?}");
    }
}
