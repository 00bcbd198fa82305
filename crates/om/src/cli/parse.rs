//! Owns reading a command line: which objects, which verb, which options. Does not own what they mean.

use std::fmt;

use om_core::path::{Kind, Namespace, ObjectPath};

use super::grammar::{Area, COMMON, OPTION_ALIASES, Opt, VERBS, Verb, find, nearest};

/// A command, read.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which verb.
    pub verb: &'static Verb,
    /// Which objects, as they were written; empty: none were.
    pub selector: String,
    /// The kind of names without one.
    pub kind: Option<Kind>,
    /// Words after the verb.
    pub rest: Vec<String>,
    options: Vec<(&'static str, String)>,
}

impl Command {
    /// The last value of an option.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of an option.
    pub fn values(&self, long: &str) -> Vec<String> {
        self.options.iter().filter(|(name, _)| *name == long).map(|(_, value)| value.clone()).collect()
    }

    /// All values of an option that takes a list with commas.
    pub fn list(&self, long: &str) -> Vec<String> {
        let values = self.values(long);
        values.iter().flat_map(|value| value.split(',')).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    }

    /// Whether an option is there.
    pub fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }
}

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A command.
    Run(Box<Command>),
    /// Help about a verb.
    HelpVerb(&'static Verb),
    /// Help about everything of an area; objects for `None`'s place.
    HelpArea(Area),
    /// The first page.
    Help,
    /// The words that may follow; for shells.
    Complete(Vec<String>),
}

/// A command line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl UsageError {
    /// Without a hint.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None }
    }

    /// With what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

/// Groups that may be glued to a verb: `startip` is `start --rid ip`.
const GLUED: [&str; 7] = ["ip", "volume", "disk", "fs", "share", "container", "app"];

/// Reads a command line. `name` is what the program was called by, `words` what follows.
///
/// # Errors
/// The first thing that is wrong, with the nearest right one.
pub fn parse(name: &str, words: &[String]) -> Result<Asked, UsageError> {
    let program = name.rsplit('/').next().unwrap_or(name);
    if program == "om" && words.first().is_some_and(|word| word == "__complete") {
        return Ok(Asked::Complete(words[1..].to_vec()));
    }
    let (mut words, raw_options) = split(words)?;
    let mut kind = match program {
        "svcmgr" => Some(Kind::Svc),
        "volmgr" => Some(Kind::Vol),
        "secmgr" => Some(Kind::Sec),
        "cfgmgr" => Some(Kind::Cfg),
        "usrmgr" => Some(Kind::Usr),
        _ => None,
    };
    match program {
        "nodemgr" => words.insert(0, "node".into()),
        "svcmon" => words.insert(0, "mon".into()),
        _ => {}
    }
    let wants_help = raw_options.iter().any(|raw| raw.name == "help" || raw.name == "h");
    let selected = raw_options.iter().any(|raw| matches!(raw.name.as_str(), "s" | "service" | "selector"));
    let first = words.first().cloned().unwrap_or_default();
    let (area, mut rest, mut selector) = if kind.is_some() {
        (Area::Object, words, String::new())
    } else if let Some(area) = Area::NAMED.into_iter().find(|area| area.word() == Some(first.as_str())) {
        (area, words.split_off(1), String::new())
    } else if let Some(named) = first.parse::<Kind>().ok().filter(|kind| !matches!(kind, Kind::Ccfg | Kind::Nscfg)) {
        kind = Some(named);
        (Area::Object, words.split_off(1), String::new())
    } else if first.is_empty() && !selected {
        return if wants_help || raw_options.is_empty() {
            Ok(Asked::Help)
        } else if raw_options.iter().any(|raw| raw.name == "version" || raw.name == "V") {
            run(top("version"), Vec::new(), String::new(), None, Vec::new())
        } else {
            Err(UsageError::new("no object and no verb").hint("`om help` shows what there is"))
        };
    } else if let Some(verb) = find(Area::Top, &first).filter(|verb| verb.words != "mon" || words.len() == 1) {
        if verb.words == "help" {
            return help(&words[1..]);
        }
        let rest = words.split_off(1);
        (Area::Top, [vec![verb.words.to_owned()], rest].concat(), String::new())
    } else if selected {
        (Area::Object, words, String::new())
    } else {
        (Area::Object, words.split_off(1), first.clone())
    };
    if rest.first().is_some_and(|word| word == "help") {
        rest.remove(0);
        return match longest(area, &rest) {
            Some((verb, _)) => Ok(Asked::HelpVerb(verb)),
            None => Ok(Asked::HelpArea(area)),
        };
    }
    let Some((verb, taken)) = longest(area, &rest) else {
        if wants_help {
            return Ok(Asked::HelpArea(area));
        }
        return glued(area, &rest, &raw_options, kind, &selector).unwrap_or_else(|| Err(unknown(area, &first, &rest)));
    };
    if wants_help {
        return Ok(Asked::HelpVerb(verb));
    }
    let mut rest = rest.split_off(taken);
    if let (Some(_), [path], "") = (kind, &rest[..], selector.as_str())
        && verb.rest.is_empty()
    {
        // `om svc create test/web`: the kind is where the object's name is otherwise.
        selector.clone_from(path);
        rest.clear();
    }
    if !rest.is_empty() && verb.rest.is_empty() {
        return Err(unknown(area, &first, &[verb.words.split(' ').map(str::to_owned).collect(), rest].concat()));
    }
    let options = named(verb, raw_options)?;
    if let Some((_, value)) = options.iter().rev().find(|(name, _)| *name == "service") {
        selector = value.clone();
    }
    run(verb, rest, selector, kind, options)
}

fn run(
    verb: &'static Verb,
    rest: Vec<String>,
    selector: String,
    kind: Option<Kind>,
    options: Vec<(&'static str, String)>,
) -> Result<Asked, UsageError> {
    if verb.area == Area::Object
        && selector.is_empty()
        && verb.words != "ls"
        && verb.words != "mon"
        && verb.words != "create"
    {
        return Err(UsageError::new(format!("{} what?", verb.words))
            .hint(format!("`om NAMESPACE/NAME {0}`, or `svcmgr {0} -s NAMESPACE/NAME`", verb.words)));
    }
    Ok(Asked::Run(Box::new(Command { verb, selector, kind, rest, options })))
}

fn top(words: &str) -> &'static Verb {
    // The table has it; help is never wrong.
    find(Area::Top, words).unwrap_or(&VERBS[VERBS.len() - 1])
}

fn help(words: &[String]) -> Result<Asked, UsageError> {
    let Some(first) = words.first() else { return Ok(Asked::Help) };
    if let Some(area) = Area::NAMED.into_iter().find(|area| area.word() == Some(first.as_str())) {
        return Ok(longest(area, &words[1..]).map_or(Asked::HelpArea(area), |(verb, _)| Asked::HelpVerb(verb)));
    }
    if matches!(first.as_str(), "object" | "objects" | "svc" | "vol" | "sec" | "cfg" | "usr") && words.len() == 1 {
        return Ok(Asked::HelpArea(Area::Object));
    }
    let words = if first.parse::<Kind>().is_ok() { &words[1..] } else { words };
    [Area::Object, Area::Top]
        .into_iter()
        .find_map(|area| longest(area, words))
        .map(|(verb, _)| Asked::HelpVerb(verb))
        .ok_or_else(|| unknown(Area::Object, "SELECTOR", words))
}

/// The verb with the most of the first words, and how many they are.
fn longest(area: Area, words: &[String]) -> Option<(&'static Verb, usize)> {
    (1..=words.len().min(3)).rev().find_map(|count| find(area, &words[..count].join(" ")).map(|verb| (verb, count)))
}

fn glued(
    area: Area,
    words: &[String],
    raw: &[Raw],
    kind: Option<Kind>,
    selector: &str,
) -> Option<Result<Asked, UsageError>> {
    let [word] = words else { return None };
    if area != Area::Object {
        return None;
    }
    let (verb, group) = ["start", "stop", "provision", "unprovision"].into_iter().find_map(|action| {
        let group = GLUED.into_iter().find(|group| word.strip_prefix(action) == Some(group))?;
        Some((find(area, action)?, group))
    })?;
    let mut options = match named(verb, raw.to_vec()) {
        Ok(options) => options,
        Err(error) => return Some(Err(error)),
    };
    options.push(("rid", group.to_owned()));
    let selector = options
        .iter()
        .rev()
        .find(|(name, _)| *name == "service")
        .map_or(selector.to_owned(), |(_, value)| value.clone());
    Some(run(verb, Vec::new(), selector, kind, options))
}

/// The error of words that are no verb.
fn unknown(area: Area, first: &str, words: &[String]) -> UsageError {
    let prefix = area.word().map_or_else(String::new, |word| format!("{word} "));
    let spellings = |area: Area| {
        VERBS
            .iter()
            .filter(move |verb| verb.area == area)
            .flat_map(|verb| [verb.words].into_iter().chain(verb.aliases.iter().copied()))
    };
    if words.is_empty() {
        let error = UsageError::new(match area {
            Area::Object => format!("what about `{first}`?"),
            _ => format!("what about the {first}?"),
        });
        if area == Area::Object {
            if let Some(verb) = nearest(first, spellings(Area::Object).filter(|words| !words.contains(' '))) {
                return error
                    .hint(format!("if `{first}` is a verb, name the object first: `om NAMESPACE/NAME {verb}`"));
            }
            return error.hint(format!("`om {first} print status` shows it, `om help objects` all verbs"));
        }
        let verbs: Vec<&str> = VERBS.iter().filter(|verb| verb.area == area).map(|verb| verb.words).collect();
        return error.hint(format!("one of: {}", verbs.join(", ")));
    }
    let asked = words.join(" ");
    let error = UsageError::new(format!("there is no verb `{prefix}{asked}`"));
    // `om start test/web`: the verb was written first.
    if area == Area::Object
        && find(area, first).is_some()
        && ObjectPath::parse_in(&words[0], &Namespace::root(), Kind::Svc).is_ok()
    {
        return error.hint(format!("did you mean `om {} {first}`? The object comes first", words[0]));
    }
    let candidates: Vec<&str> = spellings(area).filter(|known| known.starts_with(&asked)).collect();
    if !candidates.is_empty() {
        return error.hint(format!("one of: {}", candidates.join(", ")));
    }
    match nearest(&asked, spellings(area)).or_else(|| nearest(&words[0], spellings(area))) {
        Some(verb) if area == Area::Object => error.hint(format!("did you mean `om {first} {verb}`?")),
        Some(verb) => error.hint(format!("did you mean `om {prefix}{verb}`?")),
        None => error.hint(match area {
            Area::Object => "`om help objects` shows all verbs".to_owned(),
            _ => format!("`om help {}` shows all verbs", prefix.trim()),
        }),
    }
}

/// An option as written, with its value if there was a `=`, and the word behind it.
#[derive(Clone, Debug)]
struct Raw {
    name: String,
    value: Option<String>,
    next: Vec<String>,
    written: String,
}

/// Words before the first option, and the options with the words behind each.
fn split(words: &[String]) -> Result<(Vec<String>, Vec<Raw>), UsageError> {
    let (mut plain, mut options): (Vec<String>, Vec<Raw>) = (Vec::new(), Vec::new());
    let mut only_plain = false;
    for word in words {
        let option = !only_plain && word.len() > 1 && word.starts_with('-');
        if word == "--" && !only_plain {
            only_plain = true;
        } else if option && !is_value(&options) {
            let body = word.trim_start_matches('-');
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (body.to_owned(), None),
            };
            // `-stest/web`: the letter and its value.
            let (name, value) = match name.char_indices().nth(1) {
                Some((at, _)) if !word.starts_with("--") && short_takes_value(&name[..at]) => {
                    (name[..at].to_owned(), Some(body[at..].trim_start_matches('=').to_owned()))
                }
                _ => (name, value),
            };
            options.push(Raw { name, value, next: Vec::new(), written: word.clone() });
        } else if let Some(last) = options.last_mut() {
            last.next.push(word.clone());
        } else {
            plain.push(word.clone());
        }
    }
    // Words behind an option that takes no value belong to the verb: `svcmgr -s a/b print status`.
    for option in &mut options {
        let takes = usize::from(option.value.is_none() && takes_value(&option.name));
        if option.next.len() > takes {
            plain.extend(option.next.split_off(takes));
        }
        if takes == 1 && option.next.is_empty() {
            return Err(UsageError::new(format!("{} needs a value", option.written)));
        }
    }
    Ok((plain, options))
}

/// Whether the next word is the value of the last option even if it begins with a dash: `--value -1`, `--from -`.
fn is_value(options: &[Raw]) -> bool {
    options.last().is_some_and(|last| last.value.is_none() && last.next.is_empty() && last.name == "value")
}

fn every_option() -> impl Iterator<Item = &'static Opt> {
    VERBS.iter().flat_map(|verb| verb.options.iter()).chain(COMMON)
}

fn alias(name: &str) -> &str {
    OPTION_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, means)| means)
}

/// `--name` is a pool's or a key's, either with a value; no option takes one for one verb and none for another.
fn takes_value(name: &str) -> bool {
    every_option()
        .find(|option| option.long == name || option.short.is_some_and(|letter| name.chars().eq([letter])))
        .or_else(|| every_option().find(|option| option.long == alias(name)))
        .is_some_and(|option| option.value.is_some())
}

fn short_takes_value(letter: &str) -> bool {
    every_option().any(|option| option.value.is_some() && option.short.is_some_and(|own| letter.chars().eq([own])))
}

/// The options with their long names.
fn named(verb: &'static Verb, raw: Vec<Raw>) -> Result<Vec<(&'static str, String)>, UsageError> {
    let mut options = Vec::new();
    for raw in raw {
        let known = |name: &str| verb.all_options().find(|option| option.long == name);
        let option = known(&raw.name)
            .or_else(|| known(alias(&raw.name)))
            .or_else(|| verb.all_options().find(|option| option.short.is_some_and(|own| raw.name.chars().eq([own]))));
        let Some(option) = option else {
            let error = UsageError::new(format!(
                "`{}` takes no {}",
                verb.words,
                raw.written.split('=').next().unwrap_or_default()
            ));
            let near = nearest(&raw.name, verb.all_options().map(|option| option.long));
            return Err(match near {
                Some(near) => error.hint(format!("did you mean --{near}?")),
                None => error.hint(format!("`om help {}` shows its options", full(verb))),
            });
        };
        match (option.value, raw.value.or_else(|| raw.next.into_iter().next())) {
            (Some(_), Some(value)) => options.push((option.long, value)),
            (Some(name), None) => return Err(UsageError::new(format!("--{} needs a value: {name}", option.long))),
            (None, Some(_)) => return Err(UsageError::new(format!("--{} takes no value", option.long))),
            (None, None) => options.push((option.long, String::new())),
        }
    }
    Ok(options)
}

/// The verb's words with its area's before them.
pub fn full(verb: &Verb) -> String {
    verb.area.word().map_or_else(|| verb.words.to_owned(), |area| format!("{area} {}", verb.words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb | selector | kind | rest | options`, or the error with its hint, or the help.
    fn read(line: &str) -> String {
        let mut words = line.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap();
        let words: Vec<String> = words.collect();
        match parse(&name, &words) {
            Ok(Asked::Run(command)) => {
                let options: Vec<String> = command
                    .options
                    .iter()
                    .filter(|(name, _)| *name != "service")
                    .map(|(name, value)| if value.is_empty() { (*name).to_owned() } else { format!("{name}={value}") })
                    .collect();
                let kind = command.kind.map_or("-", Kind::as_str);
                format!(
                    "{} | {} | {kind} | {} | {}",
                    full(command.verb),
                    command.selector,
                    command.rest.join(" "),
                    options.join(" ")
                )
            }
            Ok(Asked::HelpVerb(verb)) => format!("help {}", full(verb)),
            Ok(Asked::HelpArea(area)) => format!("help {area:?}"),
            Ok(Asked::Help) => "help".into(),
            Ok(Asked::Complete(words)) => format!("complete {words:?}"),
            Err(error) => format!("{} ({})", error.message, error.hint.unwrap_or_default()),
        }
    }

    #[test]
    fn command_lines_are_read() {
        let check = |line: &str, expected: &str| assert_eq!(read(line), expected, "{line}");
        // The page.
        check("om myns/sec/creds create", "create | myns/sec/creds | - |  | ");
        check("om myns/sec/creds edit --key config.json", "edit | myns/sec/creds | - |  | key=config.json");
        check(
            "svcmgr create -s test/registry --config /tmp/registry.template --provision",
            "create | test/registry | svc |  | config=/tmp/registry.template provision",
        );
        check("om test/registry print status", "print status | test/registry | - |  | ");
        // Other spellings.
        check("/usr/bin/svcmgr -s test/web print status -r", "print status | test/web | svc |  | refresh");
        check("svcmgr --service=test/web start", "start | test/web | svc |  | ");
        check("svcmgr -stest/web start", "start | test/web | svc |  | ");
        check("om svc start -s web", "start | web | svc |  | ");
        check("om web instance status", "print status | web | - |  | ");
        check("om web unfreeze", "thaw | web | - |  | ");
        check("om web startip", "start | web | - |  | rid=ip");
        check("om web stopcontainer --wait", "stop | web | - |  | wait rid=container");
        check("secmgr decode -s myns/creds --name config.json", "decode | myns/creds | sec |  | key=config.json");
        check("om web set a=b c.d+=e", "set | web | - | a=b c.d+=e | ");
        check("om web set --kw a=b --kw c.d+=e", "set | web | - |  | kw=a=b kw=c.d+=e");
        check("om a/sec/b add --key k --from -", "add | a/sec/b | - |  | key=k from=-");
        check("om a/sec/b add --key k --value -1", "add | a/sec/b | - |  | key=k value=-1");
        check("om web print config mtime", "print config mtime | web | - |  | ");
        check("om ** ls", "ls | ** | - |  | ");
        check("svcmgr ls", "ls |  | svc |  | ");
        // Areas.
        check("om node ls", "node ls |  | - |  | ");
        check("nodemgr set --kw labels.rack=3", "node set |  | - |  | kw=labels.rack=3");
        check("om daemon dns dump", "daemon dns dump |  | - |  | ");
        check("om pool status --name fast", "pool status |  | - |  | name=fast");
        check("om cluster print config", "cluster print config |  | - |  | ");
        check("om dns setup --yes", "dns setup |  | - |  | force");
        check("om svc create test/web --provision", "create | test/web | svc |  | provision");
        check("svcmon", "mon |  | - |  | ");
        check("svcmon --once -s test/*", "mon | test/* | - |  | once");
        check("om mon", "mon |  | - |  | ");
        check("om test/* mon", "mon | test/* | - |  | ");
        check("om completion bash", "completion |  | - | bash | ");
        check("om --version", "version |  | - |  | ");
    }

    #[test]
    fn help_is_everywhere() {
        let check = |line: &str, expected: &str| assert_eq!(read(line), expected, "{line}");
        check("om", "help");
        check("om --help", "help");
        check("om help", "help");
        check("om svc create --help", "help create");
        check("om web create -h", "help create");
        check("svcmgr --help", "help Object");
        check("om node --help", "help Node");
        check("om help create", "help create");
        check("om help svc create", "help create");
        check("om help node set", "help node set");
        check("om help objects", "help Object");
    }

    #[test]
    fn wrong_words_get_the_nearest_right_ones() {
        let check = |line: &str, expected: &str| assert_eq!(read(line), expected, "{line}");
        check("om web strat", "there is no verb `strat` (did you mean `om web start`?)");
        check(
            "om web print",
            "there is no verb `print` (one of: print config, print config mtime, print status, print resource status, print devices, print devs, print resinfo)",
        );
        check(
            "om start test/web",
            "there is no verb `test/web` (did you mean `om test/web start`? The object comes first)",
        );
        check("om web", "what about `web`? (`om web print status` shows it, `om help objects` all verbs)");
        check(
            "om start",
            "what about `start`? (if `start` is a verb, name the object first: `om NAMESPACE/NAME start`)",
        );
        check("om node thwa", "there is no verb `node thwa` (did you mean `om node thaw`?)");
        check("om pool", "what about the pool? (one of: ls, status)");
        check("om web start --wiat", "`start` takes no --wiat (did you mean --wait?)");
        check("om web start --key a", "`start` takes no --key (`om help start` shows its options)");
        check("om web logs --follow=x", "--follow takes no value ()");
        check("om web decode --key", "--key needs a value ()");
        check("om web start now", "there is no verb `start now` (did you mean `om web start`?)");
        check("svcmgr start", "start what? (`om NAMESPACE/NAME start`, or `svcmgr start -s NAMESPACE/NAME`)");
    }
}
