//! Owns the table of the command line: areas, verbs with their other spellings, options, and examples. Parsing, help
//! and completion are made of it. Does not own what a verb does.

/// What a verb is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Objects: services, volumes, key stores.
    Object,
    /// This node.
    Node,
    /// The cluster's own configuration, and everything in it.
    Cluster,
    /// The daemon.
    Daemon,
    /// Pools of volumes.
    Pool,
    /// Networks.
    Net,
    /// The zone.
    Dns,
    /// The program itself.
    Top,
}

impl Area {
    /// The word after `om`; none for objects, which are named instead.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Object | Self::Top => None,
            Self::Node => Some("node"),
            Self::Cluster => Some("cluster"),
            Self::Daemon => Some("daemon"),
            Self::Pool => Some("pool"),
            Self::Net => Some("net"),
            Self::Dns => Some("dns"),
        }
    }

    /// Those with a word.
    pub const NAMED: [Self; 6] = [Self::Node, Self::Cluster, Self::Daemon, Self::Pool, Self::Net, Self::Dns];
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// After two dashes.
    pub long: &'static str,
    /// After one.
    pub short: Option<char>,
    /// What its value is called; none: it takes none.
    pub value: Option<&'static str>,
    /// Half a sentence.
    pub about: &'static str,
}

impl Opt {
    /// As it is typed: `-s, --service SELECTOR`.
    pub fn spelling(&self) -> String {
        let short = self.short.map_or_else(String::new, |letter| format!("-{letter}, "));
        let value = self.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("{short}--{}{value}", self.long)
    }
}

const fn flag(long: &'static str, about: &'static str) -> Opt {
    Opt { long, short: None, value: None, about }
}

const fn value(long: &'static str, name: &'static str, about: &'static str) -> Opt {
    Opt { long, short: None, value: Some(name), about }
}

const fn short(letter: char, mut option: Opt) -> Opt {
    option.short = Some(letter);
    option
}

/// Options that every verb takes.
pub const COMMON: &[Opt] = &[
    short('s', value("service", "SELECTOR", "the objects, as the first word does; for svcmgr and `om svc`")),
    value("namespace", "NS", "the namespace of names without one (also OSVC_NAMESPACE)"),
    value("format", "FORM", "json, yaml or table"),
    value("filter", "JSONPATH", "only these parts of the answer, as JSON: $.objects..avail (RFC 9535)"),
    value("color", "WHEN", "auto, always or never"),
    value("root", "DIR", "keeps everything of the node below DIR (also OM_ROOT)"),
    short('h', flag("help", "shows this")),
];

/// Spellings of options that mean another one.
pub const OPTION_ALIASES: &[(&str, &str)] = &[
    ("selector", "service"),
    ("name", "key"),
    ("set", "kw"),
    ("param", "kw"),
    ("from-file", "from"),
    ("yes", "force"),
    ("colour", "color"),
    ("lines", "backlog"),
];

const WAIT: Opt = flag("wait", "waits until it is done, which is what happens anyway");
const NO_WAIT: Opt = flag("no-wait", "returns as soon as the request is taken");
const TIME: Opt = value("time", "DURATION", "how long to wait, 300s unless said; then `timeout` and code 1");
const LOCAL: Opt = flag("local", "only this node's instance, at once");
const RID: Opt = value("rid", "R[,R]", "only these resources or groups: container#1, ip; means --local");
const TAGS: Opt =
    value("tags", "T[+T][,T]", "only resources with one of these tags; + asks for several; means --local");
const SUBSETS: Opt = value("subsets", "S[,S]", "only resources of these subsets; means --local");
const DRY: Opt = flag("dry-run", "only shows what would be done");
const FORCE: Opt = short('f', flag("force", "skips checks; stops standby resources too"));
const ROLLBACK: Opt = flag("disable-rollback", "keeps what a failed start had started");
const KW: Opt = value("kw", "K=V", "a keyword: section.keyword=value, keyword@node=value (repeatable)");
const KEY: Opt = value("key", "KEY", "the key");
const NODE: Opt = value("node", "NODE", "the node");

const ACT: &[Opt] = &[WAIT, NO_WAIT, TIME, LOCAL, RID, TAGS, SUBSETS, DRY, FORCE, ROLLBACK];
const WISH: &[Opt] = &[WAIT, NO_WAIT, TIME, LOCAL, DRY, FORCE];
const KEY_VALUE: &[Opt] = &[
    KEY,
    value("value", "TEXT", "the value; others on this machine can see it: prefer --from"),
    value("from", "FILE", "a file, a directory, or - for stdin"),
];

/// A verb.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// What it is about.
    pub area: Area,
    /// Its words.
    pub words: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What may follow as words; empty: nothing.
    pub rest: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Its own options.
    pub options: &'static [Opt],
    /// Commands and what they do.
    pub examples: &'static [(&'static str, &'static str)],
}

const fn verb(area: Area, words: &'static str, about: &'static str) -> Verb {
    Verb { area, words, aliases: &[], rest: "", about, options: &[], examples: &[] }
}

impl Verb {
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn rest(mut self, rest: &'static str) -> Self {
        self.rest = rest;
        self
    }

    const fn options(mut self, options: &'static [Opt]) -> Self {
        self.options = options;
        self
    }

    const fn examples(mut self, examples: &'static [(&'static str, &'static str)]) -> Self {
        self.examples = examples;
        self
    }

    /// All options, its own first.
    pub fn all_options(&self) -> impl Iterator<Item = &'static Opt> {
        self.options.iter().chain(COMMON)
    }
}

use Area::{Cluster, Daemon, Dns, Net, Node, Object, Pool, Top};

/// All verbs, in the order that help shows them.
pub const VERBS: &[Verb] = &[
    // --- Make and configure
    verb(Object, "create", "Makes an object from a configuration.")
        .options(&[
            value("config", "FILE", "its configuration: a file, - for stdin, or another object"),
            value("template", "NAME", "a shipped or installed template: registry, or a file in templates/"),
            KW,
            value("env", "K=V", "a key of [env] (repeatable)"),
            flag("provision", "makes its volumes and starts it too"),
            short('i', flag("interactive", "asks for each key of [env]")),
            flag("restore", "keeps the id of the configuration"),
            WAIT,
            NO_WAIT,
            TIME,
            DRY,
        ])
        .examples(&[
            ("svcmgr create -s test/registry --config /tmp/registry.template --provision", "a service, until it is up"),
            ("om test/registry create --template registry --env size=20g --provision", "a registry in one command"),
            ("om myns/sec/creds create", "an empty secret"),
            ("om test/web print config --format json | om test/copy create --config -", "a copy of a service"),
        ]),
    verb(Object, "deploy", "Makes an object, its volumes, and starts it: create --provision.")
        .options(&[
            value("config", "FILE", "its configuration: a file, - for stdin, or another object"),
            value("template", "NAME", "a shipped or installed template"),
            KW,
            value("env", "K=V", "a key of [env] (repeatable)"),
            short('i', flag("interactive", "asks for each key of [env]")),
            flag("restore", "keeps the id of the configuration"),
            WAIT,
            NO_WAIT,
            TIME,
            DRY,
        ])
        .examples(&[("om test/web deploy --config web.conf", "the same as create --provision")]),
    verb(
        Object,
        "edit",
        "Opens the configuration, or with --key a value, in $EDITOR; saves it if it changed and is valid.",
    )
    .also(&["edit config", "config edit", "key edit"])
    .options(&[
        KEY,
        flag("recover", "goes on with the text that was refused last time"),
        flag("discard", "drops the text that was refused last time"),
        short('f', flag("force", "overwrites a value that was changed meanwhile")),
    ])
    .examples(&[
        ("om test/registry edit", "its configuration"),
        ("om myns/sec/creds-some-private-registry edit --key config.json", "a secret; it never touches a disk"),
    ]),
    verb(Object, "set", "Sets keywords, all in one write.")
        .also(&["config update", "update"])
        .rest("K=V...")
        .options(&[KW, value("value", "VALUE", "the value, with --param"), DRY])
        .examples(&[
            ("om test/web set --kw container#1.image=nginx:1.29", "another image"),
            ("om test/web set --kw nodes+=n3 --kw orchestrate=ha", "adds to a list; += -= |= and ="),
        ]),
    verb(Object, "unset", "Removes keywords, or whole sections.")
        .rest("K...")
        .options(&[KW, value("section", "NAME", "removes a whole section (repeatable)"), DRY])
        .examples(&[("om test/web unset --kw container#1.command", "back to the image's own")]),
    verb(Object, "get", "Shows a keyword's value as written.")
        .also(&["config get"])
        .rest("K")
        .options(&[KW, flag("eval", "with references resolved"), value("impersonate", "NODE", "as that node sees it")])
        .examples(&[
            ("om test/web get --kw env.size", "10g"),
            ("om test/web get --kw nodes --eval", "the nodes' names"),
        ]),
    verb(Object, "eval", "Shows a keyword's value with references resolved.")
        .rest("K")
        .options(&[KW, value("impersonate", "NODE", "as that node sees it")])
        .examples(&[("om test/web eval --kw volume#1.name", "web-data")]),
    verb(Object, "print config", "Shows the configuration.")
        .also(&["config show", "config print"])
        .options(&[flag("eval", "what it means on a node"), value("impersonate", "NODE", "on that node")])
        .examples(&[
            ("om test/web print config", "as written"),
            ("om test/web print config --eval --format json", "typed values"),
        ]),
    verb(Object, "print config mtime", "Shows when the configuration was changed last."),
    verb(Object, "validate", "Says all that is wrong with the configuration: code 0 nothing, 1 warnings, 2 errors.")
        .also(&["validate config", "config validate"])
        .options(&[value("config", "FILE", "a file that would be the configuration")])
        .examples(&[("om test/web validate --config web.conf", "before it is installed")]),
    verb(Object, "delete", "Removes an object everywhere; its volumes' data stay.")
        .options(&[
            value("rid", "R[,R]", "removes these sections only"),
            flag("unprovision", "destroys what it made before, as purge does; volume objects stay"),
            WAIT,
            NO_WAIT,
            TIME,
            LOCAL,
            DRY,
            FORCE,
        ])
        .examples(&[
            ("om test/web delete", "its volumes' objects stay"),
            ("om test/web delete --rid container#2", "one section"),
        ]),
    // --- Run
    verb(Object, "provision", "Makes what the object needs, then starts it.")
        .options(ACT)
        .examples(&[("om test/web provision", "until it is up"), ("om test/web provision --dry-run", "the steps")]),
    verb(Object, "unprovision", "Stops it and destroys what provision made; volume objects stay.")
        .options(ACT)
        .examples(&[("om test/web unprovision", "the configuration stays")]),
    verb(Object, "purge", "Unprovisions and deletes; the volume objects of a service stay.")
        .options(WISH)
        .examples(&[("om test/web purge", ""), ("om test/vol/web-data purge", "the data of a volume")]),
    verb(Object, "start", "Starts it where it is best placed.").options(ACT).examples(&[
        ("om 'test/*' start", "all services of a namespace"),
        ("om test/web start --rid container#1", "one container, here"),
    ]),
    verb(Object, "stop", "Freezes it, then stops it.")
        .options(ACT)
        .examples(&[("om test/web stop", ""), ("om test/web stop --rid container", "its containers, here")]),
    verb(Object, "restart", "Stops it and starts it again.").options(ACT).examples(&[("om test/web restart", "")]),
    verb(Object, "shutdown", "Stops it, standby resources too.")
        .options(ACT)
        .examples(&[("om '**' shutdown", "before a shutdown")]),
    verb(Object, "freeze", "Lets nothing start by itself.").options(WISH).examples(&[("om test/web freeze", "")]),
    verb(Object, "thaw", "Takes a freeze back.")
        .also(&["unfreeze"])
        .options(WISH)
        .examples(&[("om test/web thaw", "")]),
    verb(Object, "switch", "Moves it to another node.")
        .also(&["move"])
        .options(&[value("to", "NODE[,NODE]", "where"), WAIT, NO_WAIT, TIME, DRY])
        .examples(&[("om test/web switch --to n2", "")]),
    verb(Object, "takeover", "Moves it to this node.").options(&[WAIT, NO_WAIT, TIME, DRY]),
    verb(Object, "giveback", "Moves it to the node it prefers.").options(&[WAIT, NO_WAIT, TIME, DRY]),
    verb(Object, "abort", "Takes back what was asked and is not yet done.").options(WISH),
    verb(Object, "clear", "Forgets failures and spent restarts, so that it is tried again.")
        .options(&[NODE, WAIT, NO_WAIT, TIME])
        .examples(&[("om test/web clear", "after `start failed`")]),
    verb(Object, "enable", "Takes a disable back.").options(&[RID]),
    verb(Object, "disable", "Leaves it, or some of its resources, alone.")
        .options(&[RID])
        .examples(&[("om test/web disable --rid container#2", "")]),
    // --- Look
    verb(Object, "print status", "Shows the state of each resource.")
        .also(&["instance status"])
        .options(&[
            short('r', flag("refresh", "asks the drivers first")),
            value("node", "NODE", "the resources of that node"),
            flag("hide-disabled", "without disabled resources"),
            flag("show-disabled", "with them"),
        ])
        .examples(&[("om test/registry print status", ""), ("om test/web print status -r --format json", "")]),
    verb(Object, "print resource status", "Shows one resource's state as a word.")
        .options(&[RID, short('r', flag("refresh", "asks the drivers first"))])
        .examples(&[("om test/web print resource status --rid container#1", "up")]),
    verb(
        Object,
        "status",
        "Says the state with its exit code: up 0, down 1, warn 2, n/a 3, undef 5, stdby up 6, stdby down 7.",
    )
    .options(&[short('r', flag("refresh", "asks the drivers first"))])
    .examples(&[("om test/web status && echo it is up", "")]),
    verb(Object, "frozen", "Exits with 1 and shows since when, if it is frozen."),
    verb(Object, "ls", "Lists the paths.")
        .also(&["list"])
        .examples(&[("om '*/svc/*' ls", "all services"), ("om '**' ls", "everything")]),
    verb(Object, "mon", "Shows the cluster's table, live on a terminal.").also(&["monitor"]).options(&[
        short('w', flag("watch", "goes on, also where it is no terminal")),
        flag("once", "shows it once"),
        value("interval", "DURATION", "taken for the sake of scripts; changes show at once"),
    ]),
    verb(Object, "logs", "Shows what was done with it; with --rid what a container or an app prints.")
        .also(&["log"])
        .options(&[
            value("rid", "R", "the output of this container or app"),
            short('F', flag("follow", "goes on")),
            value("backlog", "BYTES", "how much of the past, 10k unless said"),
            flag("no-pager", "never uses a pager, which is what happens anyway"),
        ])
        .examples(&[
            ("om test/web logs --follow", "starts, stops, failures, as they happen"),
            ("om test/web logs --rid container#1 --follow", "what the container prints"),
        ]),
    verb(Object, "enter", "Opens a shell in a container.").options(&[RID]).examples(&[
        ("om test/web enter --rid container#1", ""),
        ("echo 'cat /etc/hosts' | om test/web enter --rid container#1", "what comes in is run"),
    ]),
    verb(Object, "print devices", "Shows files, mounts and addresses that its resources use.")
        .also(&["print devs", "print resinfo"])
        .options(&[RID]),
    // --- Keys
    verb(Object, "add", "Adds a key; it must not be there.").also(&["key add"]).options(KEY_VALUE).examples(&[
        ("om myns/sec/creds add --key config.json --from ~/.docker/config.json", ""),
        ("pass show token | om myns/sec/creds add --key token --from -", "a value that is in no file"),
    ]),
    verb(Object, "change", "Gives a key another value.")
        .also(&["key change"])
        .options(KEY_VALUE)
        .examples(&[("om myns/cfg/motd change --key motd --value hello", "")]),
    verb(Object, "append", "Adds to the end of a key's value.").options(KEY_VALUE),
    verb(Object, "decode", "Writes a key's value as it is.")
        .also(&["key decode"])
        .options(&[KEY])
        .examples(&[("om myns/sec/creds decode --key config.json", "")]),
    verb(Object, "keys", "Lists the keys.")
        .also(&["key list", "key ls"])
        .options(&[value("match", "GLOB", "only those")])
        .examples(&[("om myns/sec/creds keys", "")]),
    verb(Object, "remove", "Removes a key.")
        .also(&["key remove", "key rm"])
        .options(&[KEY])
        .examples(&[("om myns/sec/creds remove --key config.json", "")]),
    // --- Node
    verb(Node, "status", "Shows this node's state, facts and labels.")
        .also(&["show", "print status", "facts", "print facts"])
        .examples(&[("om node status --format json", "")]),
    verb(Node, "ls", "Lists the nodes."),
    verb(Node, "print config", "Shows this node's configuration.").also(&["config show"]),
    verb(Node, "edit", "Opens this node's configuration in $EDITOR.")
        .also(&["edit config"])
        .options(&[flag("recover", "goes on with the text that was refused last time"), flag("discard", "drops it")]),
    verb(Node, "set", "Sets keywords of this node.")
        .also(&["config update"])
        .rest("K=V...")
        .options(&[KW, value("value", "VALUE", "the value, with --param")])
        .examples(&[("om node set --kw labels.rack=3", "a label for selectors")]),
    verb(Node, "unset", "Removes keywords of this node.")
        .rest("K...")
        .options(&[KW, value("section", "NAME", "removes a whole section")]),
    verb(Node, "get", "Shows a keyword of this node.").rest("K").options(&[KW]),
    verb(Node, "freeze", "Lets nothing start by itself on this node."),
    verb(Node, "thaw", "Takes a freeze back.").also(&["unfreeze"]),
    verb(Node, "logs", "Shows what the daemon said.").options(&[
        short('F', flag("follow", "goes on")),
        value("backlog", "BYTES", "how much of the past, 10k unless said"),
    ]),
    // --- Cluster
    verb(Cluster, "status", "Shows the nodes, and all services.").also(&["print status"]),
    verb(Cluster, "name", "Shows the cluster's name."),
    verb(Cluster, "print config", "Shows the cluster's configuration.")
        .also(&["config show"])
        .options(&[flag("eval", "what it means on a node"), value("impersonate", "NODE", "on that node")]),
    verb(Cluster, "edit", "Opens the cluster's configuration in $EDITOR.")
        .also(&["edit config"])
        .options(&[flag("recover", "goes on with the text that was refused last time"), flag("discard", "drops it")]),
    verb(Cluster, "set", "Sets keywords of the cluster.")
        .also(&["config update"])
        .rest("K=V...")
        .options(&[KW, value("value", "VALUE", "the value, with --param"), DRY])
        .examples(&[
            ("om cluster set --kw cluster.name=homepool2", "the zone of all names"),
            ("om cluster set --kw pool#fast.type=loop", "a pool"),
        ]),
    verb(Cluster, "unset", "Removes keywords of the cluster.").rest("K...").options(&[
        KW,
        value("section", "NAME", "removes a whole section"),
        DRY,
    ]),
    verb(Cluster, "get", "Shows a keyword of the cluster.").rest("K").options(&[
        KW,
        flag("eval", "with references resolved"),
        value("impersonate", "NODE", "as that node sees it"),
    ]),
    verb(Cluster, "validate", "Says all that is wrong with the cluster's configuration.").also(&["validate config"]),
    verb(Cluster, "backup", "Writes the state of the cluster, secrets sealed, to a file that `restore` takes.")
        .rest("FILE")
        .examples(&[("om cluster backup /backup/om-$(date +%F).db", "not its key, which has to be kept elsewhere")]),
    verb(Cluster, "restore", "Puts a backup in the place of the state, while the daemon does not run.")
        .rest("FILE")
        .options(&[short('f', flag("force", "does not ask"))])
        .examples(&[("om daemon stop && om cluster restore /backup/om-2026-11-24.db && om daemon start", "")]),
    verb(Cluster, "freeze", "Freezes this node, which is the cluster's only one."),
    verb(Cluster, "thaw", "Takes a freeze back."),
    // --- Daemon
    verb(Daemon, "start", "Starts the daemon and waits until it answers."),
    verb(Daemon, "stop", "Ends the daemon; services go on."),
    verb(Daemon, "restart", "Ends the daemon and starts it again; services go on."),
    verb(Daemon, "status", "Shows the daemon, the nodes and all services."),
    verb(Daemon, "running", "Exits with 0 if the daemon answers, with 1 otherwise."),
    verb(Daemon, "shutdown", "Stops all services, then the daemon."),
    verb(Daemon, "run", "Is the daemon, in the foreground; for service managers.")
        .options(&[flag("session", "leaves the terminal's session")]),
    verb(Daemon, "dns dump", "Shows the zone.").also(&["print dns"]),
    // --- The rest of the cluster
    verb(Pool, "ls", "Lists the pools."),
    verb(Pool, "status", "Shows pools and what is free.")
        .options(&[value("name", "POOL", "only this one"), short('v', flag("verbose", "with their volumes"))])
        .examples(&[("om pool status --verbose", "")]),
    verb(Net, "ls", "Lists the networks."),
    verb(Net, "status", "Shows networks and addresses in use.")
        .also(&["show"])
        .options(&[value("name", "NET", "only this one"), short('v', flag("verbose", "with their addresses"))]),
    verb(Dns, "dump", "Shows the zone as it is answered now.").also(&["show"]),
    verb(Dns, "status", "Says where the cluster's names are answered, and whether this node asks there."),
    verb(Dns, "setup", "Makes this node ask the cluster's DNS for the cluster's names; shows first what it changes.")
        .options(&[flag("undo", "takes it back"), DRY, short('y', flag("force", "does not ask"))])
        .examples(&[("om dns setup --dry-run", "what would be changed"), ("om dns setup --undo", "as it was before")]),
    // --- The program
    verb(Top, "mon", "Shows the cluster's table, live on a terminal.")
        .also(&["monitor"])
        .options(&[
            short('w', flag("watch", "goes on, also where it is no terminal")),
            flag("once", "shows it once"),
            value("interval", "DURATION", "taken for the sake of scripts; changes show at once"),
        ])
        .examples(&[("om mon", "q ends it"), ("svcmon -s 'test/*' --once", "")]),
    verb(Top, "kw", "Explains keywords of configurations.")
        .also(&["keywords"])
        .rest("[GROUP[.TYPE][.KEYWORD] | KEYWORD]")
        .examples(&[
            ("om kw", "the groups, and all keywords"),
            ("om kw container.docker", "all that a container takes"),
            ("om kw container.image", "one of them"),
            ("om kw registry_creds", "wherever it is"),
        ]),
    verb(Top, "completion", "Writes a completion script for a shell.")
        .rest("bash|zsh|fish")
        .examples(&[("om completion bash > /etc/bash_completion.d/om", "")]),
    verb(Top, "reference", "Writes the reference of commands or keywords, or the man page om(1).")
        .rest("commands|keywords|man")
        .examples(&[("om reference man > /usr/local/share/man/man1/om.1", "")]),
    verb(Top, "templates", "Lists templates for create --template."),
    verb(Top, "version", "Shows the version."),
    verb(Top, "help", "Shows help.").rest("[VERB]"),
];

/// Groups of verbs in the overview of objects' verbs, by their first verb.
pub const HEADINGS: &[(&str, &str)] =
    &[("create", "Make and configure"), ("provision", "Run"), ("print status", "Look"), ("add", "Keys of sec and cfg")];

/// The verb whose words, or another spelling, these are.
pub fn find(area: Area, words: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.area == area && (verb.words == words || verb.aliases.contains(&words)))
}

/// The nearest of some words, if one is near: at most a third of its letters are other ones.
pub fn nearest<'a>(word: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    among
        .into_iter()
        .map(|known| (distance(word, known), known))
        .filter(|(distance, known)| *distance * 3 <= known.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Insertions, removals, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    // Words of a command line; longer ones are near nothing.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1);
            least = least.min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_spelling_means_one_verb() {
        let mut seen = BTreeSet::new();
        for verb in VERBS {
            for words in [verb.words].iter().chain(verb.aliases) {
                assert!(seen.insert((verb.area, *words)), "{:?} {words}", verb.area);
            }
            assert!(verb.about.ends_with('.'), "{}", verb.words);
            let mut options = BTreeSet::new();
            for option in verb.all_options() {
                assert!(options.insert(option.long), "{} --{}", verb.words, option.long);
                assert!(option.short.is_none_or(|letter| options.insert(letter.to_string().leak())), "{}", verb.words);
            }
        }
    }

    #[test]
    fn the_nearest_word_is_found() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, ["start", "status", "stop", "print status"]), expected);
        };
        check("strat", Some("start"));
        check("statu", Some("status"));
        check("print staus", Some("print status"));
        check("purge", None);
    }
}
