//! Owns the reference of commands and keywords, for documents and for man(1): made of the tables that the program itself
//! reads. Does not own the tables.

use om_core::config::keyword::{CLUSTER_GROUPS, GROUPS, Inherit, KEYWORDS, Keyword};

use super::{
    Failed, Outcome,
    grammar::{Area, COMMON, HEADINGS, Opt, VERBS, Verb},
    parse::full,
    put,
};

/// Says that a document is not to be changed by hand.
const MADE: &str = "<!-- Made by `make reference`; the text is in the tables of the program. -->";

/// `om reference WHAT`.
pub fn run(what: &str) -> Outcome {
    match what {
        "commands" => put(&commands()),
        "keywords" => put(&keywords()),
        "man" => put(&manual()),
        _ => Err(Failed::new("the reference of what?").hint("`om reference commands`, keywords or man")),
    }
}

/// Titles with the verbs below each.
fn chapters() -> Vec<(String, Vec<&'static Verb>)> {
    let of = |area: Area| VERBS.iter().filter(move |verb| verb.area == area);
    let mut all: Vec<(String, Vec<&'static Verb>)> = Vec::new();
    for verb in of(Area::Object) {
        match HEADINGS.iter().find(|(first, _)| *first == verb.words) {
            Some((_, title)) => all.push(((*title).to_owned(), vec![verb])),
            None => all.last_mut().expect("the first verb has a heading").1.push(verb),
        }
    }
    let named = Area::NAMED.into_iter().filter_map(|area| Some((format!("om {}", area.word()?), of(area).collect())));
    all.extend(named);
    all.push(("The program".to_owned(), of(Area::Top).collect()));
    all
}

fn usage(verb: &Verb) -> String {
    let rest = if verb.rest.is_empty() { String::new() } else { format!(" {}", verb.rest) };
    let options = if verb.options.is_empty() { "" } else { " [OPTIONS]" };
    match verb.area {
        Area::Object => format!("om SELECTOR {}{rest}{options}", verb.words),
        _ => format!("om {}{rest}{options}", full(verb)),
    }
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn options(page: &mut String, options: &[Opt]) {
    *page += "| option | |\n|---|---|\n";
    for option in options {
        *page += &format!("| `{}` | {} |\n", cell(&option.spelling()), cell(option.about));
    }
    *page += "\n";
}

/// The commands, as a document.
pub fn commands() -> String {
    let mut page = format!(
        "# Commands of `om`\n\n{MADE}\n\n`om SELECTOR VERB` works on objects; `svcmgr VERB -s SELECTOR` is the same. A \
         selector is a name such as `test/web` or\n`test/vol/web-data`, a pattern such as `'test/*'` or `'**'`, or \
         several of them with commas. `om help VERB` shows each of\nthese in a terminal.\n\n## Options of all verbs\n\n"
    );
    options(&mut page, COMMON);
    for (title, verbs) in chapters() {
        page += &format!("## {title}\n\n");
        for verb in verbs {
            page += &format!("### {}\n\n{}\n\n```\n{}\n```\n\n", full(verb), verb.about, usage(verb));
            if !verb.aliases.is_empty() {
                let aliases: Vec<String> = verb.aliases.iter().map(|alias| format!("`{alias}`")).collect();
                page += &format!("Also written {}.\n\n", aliases.join(", "));
            }
            if !verb.options.is_empty() {
                options(&mut page, verb.options);
            }
            if !verb.examples.is_empty() {
                page += "```sh\n";
                for (line, what) in verb.examples {
                    let what = if what.is_empty() { String::new() } else { format!("   # {what}") };
                    page += &format!("{line}{what}\n");
                }
                page += "```\n\n";
            }
        }
    }
    page.trim_end().to_owned() + "\n"
}

/// Sections of configurations: how each is written, and the keywords in it.
fn sections() -> Vec<(String, String, Vec<&'static Keyword>)> {
    let of = |group: &str| KEYWORDS.iter().filter(|keyword| keyword.group == group).collect();
    let types = |drivers: &[&str]| {
        let named: Vec<String> = drivers.iter().filter(|one| !one.is_empty()).map(|one| format!("`{one}`")).collect();
        match &named[..] {
            [] => String::new(),
            [only] => format!("Type: {only}."),
            several => format!("Types: {}; the first is the default.", several.join(", ")),
        }
    };
    let mut all = vec![
        ("[DEFAULT]".to_owned(), "What the whole object is.".to_owned(), of("DEFAULT")),
        ("Every resource".to_owned(), "What all sections of resources take.".to_owned(), of("*")),
    ];
    all.extend(GROUPS.iter().map(|(group, drivers)| (format!("[{group}#…]"), types(drivers), of(group))));
    for (group, drivers) in CLUSTER_GROUPS {
        let name = if drivers.contains(&"") { format!("[{group}]") } else { format!("[{group}#…]") };
        let text = match *group {
            // On several nodes another one is.
            "network" => "Types: `bridge`, `routed_bridge`.".to_owned(),
            _ => types(drivers),
        };
        all.push((format!("{name} of the cluster"), text, of(group)));
    }
    all.retain(|(_, _, keywords): &(String, String, Vec<&Keyword>)| !keywords.is_empty());
    all
}

fn facts(keyword: &Keyword) -> Vec<String> {
    let mut facts = vec![keyword.kind.text()];
    facts.extend(keyword.default.map(|default| format!("default `{default}`")));
    let types = GROUPS.iter().chain(CLUSTER_GROUPS).find(|(group, _)| *group == keyword.group);
    if !keyword.driver.is_empty() && types.is_some_and(|(_, types)| types.len() > 1) {
        facts.push(format!("type `{}`", keyword.driver));
    }
    if keyword.inherit == Inherit::LeafThenHead {
        facts.push("in `[DEFAULT]` for all".to_owned());
    }
    facts
}

/// The keywords, as a document.
pub fn keywords() -> String {
    let mut page = format!(
        "# Keywords of configurations\n\n{MADE}\n\nThe sections of an object's configuration, then those of the \
         cluster's (`om cluster edit`). `om kw container.image` shows\none of them in a terminal. \
         `keyword@node = value` counts on that node only; `{{section.keyword}}` stands for another value.\n\n"
    );
    for (title, text, keywords) in sections() {
        page += &format!("## {title}\n\n");
        if !text.is_empty() {
            page += &format!("{text}\n\n");
        }
        page += "| keyword | | value | example |\n|---|---|---|---|\n";
        for keyword in keywords {
            let (facts, example) = (facts(keyword).join("; "), keyword.line());
            let (name, text) = (keyword.name, cell(keyword.text));
            page += &format!("| `{name}` | {text} | {} | `{}` |\n", cell(&facts), cell(&example));
        }
        page += "\n";
    }
    page.trim_end().to_owned() + "\n"
}

/// A text of a man page: no line of it is a request, no hyphen becomes another character.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// The man page om(1).
pub fn manual() -> String {
    let mut page = format!(
        ".TH OM 1 \"\" \"om {}\" \"Roadstead\"\n.SH NAME\nom, svcmgr, nodemgr, svcmon \\- run services on a node\n\
         .SH SYNOPSIS\n.B om\n.I SELECTOR VERB\n[options]\n.br\n.B svcmgr\n.I VERB\n.B \\-s\n.I SELECTOR\n[options]\n\
         .br\n.B om\nnode|cluster|daemon|pool|net|dns\n.I VERB\n.SH DESCRIPTION\n\
         A node daemon, and the command line that asks it. Services are described in small INI files; their keywords \
         are\nexplained by\n.BR \"om kw\" .\n.SH OPTIONS OF ALL VERBS\n",
        env!("CARGO_PKG_VERSION")
    );
    let option = |page: &mut String, option: &Opt| {
        *page += &format!(".TP\n.B {}\n{}\n", roff(&option.spelling()), roff(option.about));
    };
    COMMON.iter().for_each(|one| option(&mut page, one));
    for (title, verbs) in chapters() {
        page += &format!(".SH {}\n", roff(&title.to_uppercase()));
        for verb in verbs {
            page += &format!(".SS {}\n{}\n", roff(&usage(verb)), roff(verb.about));
            verb.options.iter().for_each(|one| option(&mut page, one));
        }
    }
    page += ".SH EXIT STATUS\n0 if all was done; 1 if something was not; 2 if the command makes no sense.\n.B om SELECTOR \
             status\nhas codes of its own.\n.SH FILES\n";
    for (file, what) in [
        ("/var/lib/om", "the store, its key, the socket of the API, logs"),
        ("/etc/om/node.conf", "the configuration of this node"),
        ("/run/om", "what a boot forgets: files of containers, in memory"),
    ] {
        page += &format!(".TP\n.I {file}\n{what}\n");
    }
    page += ".SH ENVIRONMENT\n";
    for (name, what) in [
        ("OM_ROOT", "keeps everything of the node below this directory"),
        ("OSVC_NAMESPACE", "the namespace of names without one"),
        ("EDITOR", "what `edit` opens"),
        ("DOCKER_HOST", "the engine of this node: unix:///var/run/docker.sock"),
        ("DOCKER_CONFIG", "the directory of root's docker login"),
        ("NO_COLOR", "no colours"),
    ] {
        page += &format!(".TP\n.B {name}\n{}\n", roff(what));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    #[test]
    fn the_documents_are_those_of_the_tables() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (file, text) in
            [("docs/om-commands.md", commands()), ("docs/om-keywords.md", keywords()), ("packaging/om.1", manual())]
        {
            let found = fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(found == text, "{file} is old; `make reference` makes it again");
        }
    }

    #[test]
    fn the_man_page_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("om.1");
        fs::write(&file, manual()).unwrap();
        // Debian's man-db need not be installed; groff says what is wrong with a page.
        let Ok(output) = Command::new("groff").args(["-man", "-Tascii", "-ww", "-P-cbou"]).arg(&file).output() else {
            eprintln!("note: there is no groff here, the page is not rendered");
            return;
        };
        let (page, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.is_empty(), "{said}");
        assert!(page.contains("--dry-run") && page.contains("om SELECTOR print status"), "{page}");
    }
}
