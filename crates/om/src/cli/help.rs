//! Owns help texts, made of the grammar's table.

use super::{
    grammar::{Area, COMMON, HEADINGS, Opt, VERBS, Verb},
    parse::full,
};
use crate::output::text::{Colour, Text};

/// The first page.
pub fn overview() -> Vec<Text> {
    let mut page = Page::default();
    page.head("Usage");
    page.plain("  om NAMESPACE/NAME VERB [OPTIONS]        an object; patterns too: 'test/*', '*/svc/*', '**'");
    page.plain("  svcmgr VERB -s NAMESPACE/NAME [OPTIONS] the same; also volmgr, secmgr, cfgmgr");
    page.plain("  om node|cluster|daemon|pool|net|dns VERB");
    page.plain("  om mon                                  the cluster, live (svcmon)");
    page.head("First steps");
    page.example("om daemon start", "the daemon of this node");
    page.example("svcmgr create -s test/web --config web.conf --provision", "a service, until it is up");
    page.example("om test/web print status", "how it is");
    page.example("om test/web logs --follow", "what it says");
    page.verbs(Area::Object);
    page.verbs(Area::Top);
    page.head("More");
    page.plain("  om help VERB        one verb, with its options and examples");
    page.plain("  om help node        the verbs of the node; likewise cluster, daemon, pool, net, dns");
    page.0
}

/// All verbs of an area.
pub fn area(area: Area) -> Vec<Text> {
    let mut page = Page::default();
    page.head("Usage");
    match area.word() {
        Some(word) => page.plain(&format!("  om {word} VERB [OPTIONS]")),
        None => {
            page.plain("  om SELECTOR VERB [OPTIONS]");
            page.plain("  svcmgr VERB -s SELECTOR [OPTIONS]");
        }
    }
    page.verbs(area);
    page.head("Options of all verbs");
    page.options(COMMON);
    page.0
}

/// One verb.
pub fn verb(verb: &Verb) -> Vec<Text> {
    let mut page = Page::default();
    page.plain(verb.about);
    page.head("Usage");
    let rest = if verb.rest.is_empty() { String::new() } else { format!(" {}", verb.rest) };
    match verb.area {
        Area::Object => {
            page.plain(&format!("  om SELECTOR {}{rest} [OPTIONS]", verb.words));
            page.plain(&format!("  svcmgr {}{rest} -s SELECTOR [OPTIONS]", verb.words));
        }
        _ => page.plain(&format!("  om {}{rest} [OPTIONS]", full(verb))),
    }
    if !verb.aliases.is_empty() {
        page.plain(&format!("  also written: {}", verb.aliases.join(", ")));
    }
    if !verb.options.is_empty() {
        page.head("Options");
        page.options(verb.options);
    }
    page.head("Options of all verbs");
    page.options(COMMON);
    page.head("Examples");
    if verb.examples.is_empty() {
        let line = if verb.area == Area::Object {
            format!("om test/web {}", verb.words)
        } else {
            format!("om {}", full(verb))
        };
        page.example(&line, "");
    }
    for (line, what) in verb.examples {
        page.example(line, what);
    }
    page.0
}

#[derive(Default)]
struct Page(Vec<Text>);

impl Page {
    fn plain(&mut self, line: &str) {
        self.0.push(Text::plain(line));
    }

    fn head(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push(Text::default());
        }
        self.0.push(Text::new(format!("{title}:"), Colour::Bold));
    }

    fn verbs(&mut self, area: Area) {
        let verbs = || VERBS.iter().filter(|verb| verb.area == area);
        let width = verbs().map(|verb| verb.words.len()).max().unwrap_or(0);
        if area != Area::Object {
            self.head(if area == Area::Top { "The program" } else { "Verbs" });
        }
        for verb in verbs() {
            if let Some((_, title)) = HEADINGS.iter().find(|(first, _)| area == Area::Object && *first == verb.words) {
                self.head(title);
            }
            self.plain(&format!("  {:width$}  {}", verb.words, verb.about));
        }
    }

    fn options(&mut self, options: &[Opt]) {
        let name = |option: &Opt| {
            // Those without a letter stand below the words of those with one.
            let indent = if option.short.is_none() { "    " } else { "" };
            format!("{indent}{}", option.spelling())
        };
        let width = options.iter().map(|option| name(option).len()).max().unwrap_or(0);
        for option in options {
            self.plain(&format!("  {:width$}  {}", name(option), option.about));
        }
    }

    fn example(&mut self, line: &str, what: &str) {
        let mut text = Text::plain("  ");
        text.push(line, Colour::Green);
        if !what.is_empty() {
            text.push(format!("   # {what}"), Colour::Grey);
        }
        self.0.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text;

    #[test]
    fn every_verb_has_help_with_an_example() {
        for each in VERBS {
            let page = text::lines(&verb(each), false);
            assert!(page.contains(each.about) && page.contains("Examples:\n  "), "{page}");
        }
        let page = text::lines(&overview(), false);
        for (_, title) in HEADINGS {
            assert!(page.contains(&format!("{title}:")), "{page}");
        }
    }
}
