//! Owns completion in shells: small scripts that ask this program, and its answers. An answer comes at once even where
//! the daemon does not.

use std::time::Duration;

use om_core::{
    config::keyword::{CLUSTER_GROUPS, GROUPS, KEYWORDS},
    path::{Kind, ObjectPath},
};
use tokio::time::timeout;

use super::{
    Failed, Outcome,
    grammar::{Area, VERBS, find},
    put,
};
use crate::client::Client;

/// How long the daemon is waited for.
const LIMIT: Duration = Duration::from_millis(300);

const BASH: &str = r#"_om() {
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$(om __complete "${COMP_WORDS[0]##*/}" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _om om svcmgr volmgr secmgr cfgmgr nodemgr svcmon
"#;
const ZSH: &str = r#"#compdef om svcmgr volmgr secmgr cfgmgr nodemgr svcmon
_om() {
    local -a found
    found=("${(@f)$(om __complete "${words[1]:t}" "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found || _files
}
compdef _om om svcmgr volmgr secmgr cfgmgr nodemgr svcmon
"#;
const FISH: &str = r#"for name in om svcmgr volmgr secmgr cfgmgr nodemgr svcmon
    complete -c $name -l config -r -F
    complete -c $name -l from -r -F
    complete -c $name -f -a '(set -l w (commandline -opc); om __complete (basename $w[1]) $w[2..] (commandline -ct) 2>/dev/null)'
end
"#;

/// `om completion SHELL`.
pub fn script(shell: &str) -> Outcome {
    match shell {
        "bash" => put(BASH),
        "zsh" => put(ZSH),
        "fish" => put(FISH),
        _ => Err(Failed::new("for which shell?").hint("`om completion bash`, zsh or fish")),
    }
}

/// What may follow: the words so far, the program's name first, the word at the cursor last.
pub async fn candidates(client: &Client, words: &[String]) -> Outcome {
    let [name, before @ .., current] = words else { return Ok(0) };
    let (wanted, objects) = wanted(name, before, current);
    let mut found: Vec<String> = wanted.into_iter().filter(|word| word.starts_with(current.as_str())).collect();
    if objects && let Ok(Ok(paths)) = timeout(LIMIT, client.objects("**")).await {
        for path in paths {
            let Ok(path) = path.parse::<ObjectPath>() else { continue };
            // A service has a short form: the long one is for those who began it.
            let (short, long) = (format!("{}/{}", path.namespace, path.name), path.to_string());
            let shown = if path.kind == Kind::Svc && short.starts_with(current.as_str()) { short } else { long };
            found.extend(Some(shown).filter(|text| text.starts_with(current.as_str())));
        }
    }
    found.sort();
    found.dedup();
    put(&found.iter().map(|word| format!("{word}\n")).collect::<String>())
}

/// Fixed words that may follow, and whether objects may.
fn wanted(name: &str, before: &[String], current: &str) -> (Vec<String>, bool) {
    let last = before.last().map(String::as_str);
    if matches!(last, Some("-s" | "--service" | "--selector")) {
        return (Vec::new(), true);
    }
    let mut plain: Vec<&str> = before.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let mut area = Area::Object;
    let is_object = match name {
        "om" => match plain.first() {
            None => {
                let areas = Area::NAMED.into_iter().filter_map(Area::word);
                let top = VERBS.iter().filter(|verb| verb.area == Area::Top).map(|verb| verb.words);
                return (areas.chain(top).chain(["svc", "vol", "sec", "cfg"]).map(str::to_owned).collect(), true);
            }
            Some(first) => {
                if let Some(named) = Area::NAMED.into_iter().find(|area| area.word() == Some(*first)) {
                    area = named;
                } else if find(Area::Top, first).is_some() {
                    let words: Vec<&str> = match *first {
                        "completion" => vec!["bash", "zsh", "fish"],
                        "reference" => vec!["commands", "keywords", "man"],
                        "kw" => {
                            let groups = GROUPS.iter().chain(CLUSTER_GROUPS).map(|(group, _)| *group);
                            groups.chain(KEYWORDS.iter().map(|keyword| keyword.name)).chain(["DEFAULT"]).collect()
                        }
                        _ => Vec::new(),
                    };
                    return (words.into_iter().map(str::to_owned).collect(), false);
                }
                plain.remove(0);
                area == Area::Object
            }
        },
        "nodemgr" => {
            area = Area::Node;
            false
        }
        _ => true,
    };
    // The value of `-s` among the words of svcmgr.
    if is_object && let Some(at) = before.iter().position(|word| word == "-s" || word == "--service") {
        plain.retain(|word| before.get(at + 1).is_none_or(|value| value != word));
    }
    let verb = (1..=plain.len()).rev().find_map(|count| find(area, &plain[..count].join(" ")));
    if current.starts_with('-') {
        let options = verb.map(|verb| verb.all_options().map(|option| format!("--{}", option.long)).collect());
        return (options.unwrap_or_else(|| vec!["--service".into(), "--help".into()]), false);
    }
    let begun = plain.join(" ");
    let next = VERBS.iter().filter(|verb| verb.area == area).filter_map(|verb| {
        let rest = if begun.is_empty() { verb.words } else { verb.words.strip_prefix(&begun)?.strip_prefix(' ')? };
        rest.split(' ').next().map(str::to_owned)
    });
    (next.collect(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_may_follow() {
        let check = |line: &str, expected: &[&str], objects: bool| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (name, before, current) = (&words[0], &words[1..words.len() - 1], &words[words.len() - 1]);
            let (found, also) = wanted(name, before, current);
            for word in expected {
                assert!(found.iter().any(|found| found == word), "{line}: {found:?}");
            }
            assert_eq!(also, objects, "{line}");
        };
        check("om ", &["node", "mon", "svc"], true);
        check("om test/web ", &["start", "print", "edit"], false);
        check("om test/web print ", &["status", "config"], false);
        check("om test/web start --", &["--wait", "--rid", "--help"], false);
        check("om node ", &["freeze", "ls"], false);
        check("svcmgr -s ", &[], true);
        check("svcmgr -s test/web print ", &["status"], false);
        check("svcmgr create --", &["--config", "--provision"], false);
        check("om completion ", &["bash"], false);
        check("om kw ", &["container", "pool", "registry_creds", "DEFAULT"], false);
        check("om reference ", &["man"], false);
    }
}
