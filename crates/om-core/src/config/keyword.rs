//! Owns which keywords there are: where they stand, what they mean, their type, default and an example. `om kw`, the
//! schema and its suggestions read the same table. Does not own what a value becomes.

/// Where a keyword is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// In the resource's section.
    Leaf,
    /// In `[DEFAULT]`.
    Head,
    /// In the resource's section, then in `[DEFAULT]`.
    LeafThenHead,
}

/// What its values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Bytes, such as `10g`.
    Size,
    /// A time, such as `5m`.
    Duration,
    /// Words between blanks.
    List,
    /// Words as a shell splits them.
    Words,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Type {
    /// For people.
    pub fn text(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Integer => "integer".to_owned(),
            Self::Size => "size (10g)".to_owned(),
            Self::Duration => "duration (1m30s)".to_owned(),
            Self::List => "list".to_owned(),
            Self::Words => "shell words".to_owned(),
            Self::Choice(words) => words.join(" | "),
        }
    }
}

/// A keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyword {
    /// `DEFAULT`, a group of resources such as `container`, `*` for all resources, or a group of sections of the
    /// cluster's configuration such as `pool`.
    pub group: &'static str,
    /// The `type` of the resource that has it; empty: all of the group.
    pub driver: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: Type,
    /// Where it is looked for.
    pub inherit: Inherit,
    /// The value when none is written; may have references. None: it has no default.
    pub default: Option<&'static str>,
    /// What it means, in a sentence or two.
    pub text: &'static str,
    /// A value that is taken; empty where the default shows it.
    pub example: &'static str,
}

impl Keyword {
    /// A line that sets it: to its example, or to its default.
    pub fn line(&self) -> String {
        let value = if self.example.is_empty() { self.default.unwrap_or_default() } else { self.example };
        format!("{} = {value}", self.name)
    }
}

/// Groups of resources, with their drivers; the first is the default.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("ip", &["cni"]),
    ("volume", &[""]),
    ("disk", &["loop"]),
    ("fs", &["directory", "flag"]),
    ("container", &["docker", "oci"]),
    ("app", &["simple"]),
    ("sync", &["rsync"]),
];

/// Groups of sections of the cluster's configuration, with their types; the first is the default.
pub const CLUSTER_GROUPS: &[(&str, &[&str])] =
    &[("cluster", &[""]), ("cni", &[""]), ("network", &NETWORK_TYPES), ("pool", &POOL_TYPES)];

/// Types of networks.
const NETWORK_TYPES: [&str; 2] = ["bridge", "routed_bridge"];
/// Types of pools.
const POOL_TYPES: [&str; 3] = ["directory", "loop", "shared"];

const fn kw(
    place: (&'static str, &'static str, Inherit),
    name: &'static str,
    kind: Type,
    default: Option<&'static str>,
    text: &'static str,
    example: &'static str,
) -> Keyword {
    Keyword { group: place.0, driver: place.1, name, kind, inherit: place.2, default, text, example }
}

const HEAD: (&str, &str, Inherit) = ("DEFAULT", "", Inherit::Head);
const ALL: (&str, &str, Inherit) = ("*", "", Inherit::LeafThenHead);
const ALL_LEAF: (&str, &str, Inherit) = ("*", "", Inherit::Leaf);
const IP: (&str, &str, Inherit) = ("ip", "cni", Inherit::Leaf);
const IP_HEAD: (&str, &str, Inherit) = ("ip", "cni", Inherit::LeafThenHead);
const CONTAINER: (&str, &str, Inherit) = ("container", "", Inherit::Leaf);
const CONTAINER_HEAD: (&str, &str, Inherit) = ("container", "", Inherit::LeafThenHead);
const VOLUME: (&str, &str, Inherit) = ("volume", "", Inherit::Leaf);
const VOLUME_HEAD: (&str, &str, Inherit) = ("volume", "", Inherit::LeafThenHead);
const DIRECTORY: (&str, &str, Inherit) = ("fs", "directory", Inherit::Leaf);
const LOOP: (&str, &str, Inherit) = ("disk", "loop", Inherit::Leaf);
const APP: (&str, &str, Inherit) = ("app", "", Inherit::Leaf);
const CLUSTER: (&str, &str, Inherit) = ("cluster", "", Inherit::Leaf);
const CNI: (&str, &str, Inherit) = ("cni", "", Inherit::Leaf);
const NETWORK: (&str, &str, Inherit) = ("network", "", Inherit::Leaf);
const ROUTED: (&str, &str, Inherit) = ("network", "routed_bridge", Inherit::Leaf);
const POOL: (&str, &str, Inherit) = ("pool", "", Inherit::Leaf);

const ACCESS: Type = Type::Choice(&["rwo", "roo", "rwx", "rox"]);

/// Every keyword: of `[DEFAULT]`, of all resources, then by group; those of the cluster's configuration at the end.
pub const KEYWORDS: &[Keyword] = &[
    kw(
        HEAD,
        "id",
        Type::Text,
        None,
        "The id of the object: a UUID, made when it is created.",
        "5d3c7a3e-7d2f-4d1c-9a43-2f6f9f1d2b11",
    ),
    kw(
        HEAD,
        "nodes",
        Type::List,
        None,
        "Where instances may run, in order of preference: names, patterns with `*`, references. Without it: the node that created the object.",
        "{clusternodes}",
    ),
    kw(
        HEAD,
        "orchestrate",
        Type::Choice(&["no", "start", "ha"]),
        Some("no"),
        "What starts the service: `no`, only orders; `start`, a boot of the first node; `ha`, whatever makes it be down.",
        "ha",
    ),
    kw(HEAD, "topology", Type::Choice(&["failover"]), Some("failover"), "How many instances run: `failover`, one.", ""),
    kw(
        HEAD,
        "placement",
        Type::Choice(&["nodes order", "spread", "none"]),
        Some("nodes order"),
        "In which order nodes are preferred: as listed, spread over the nodes by a hash, or none is.",
        "spread",
    ),
    kw(
        HEAD,
        "rollback",
        Type::Boolean,
        Some("true"),
        "Whether a start that fails stops again what it had started.",
        "",
    ),
    kw(HEAD, "disable", Type::Boolean, Some("false"), "Orders do nothing to a disabled object.", "true"),
    kw(HEAD, "priority", Type::Integer, Some("100"), "Objects with lower numbers start first.", "50"),
    kw(HEAD, "comment", Type::Text, None, "Any words.", "the registry of the team"),
    kw(HEAD, "app", Type::Text, Some("default"), "The application that the object belongs to; shown only.", "shop"),
    kw(
        HEAD,
        "env",
        Type::Text,
        None,
        "The environment that the object belongs to, such as PRD or TST; shown only.",
        "TST",
    ),
    kw(HEAD, "pool", Type::Text, None, "Of a volume: the pool that it is in; written when it is made.", "default"),
    kw(HEAD, "size", Type::Size, None, "Of a volume: its size; written when it is made.", "10g"),
    kw(HEAD, "access", ACCESS, None, "Of a volume: how it may be used; written when it is made.", "rwo"),
    kw(
        HEAD,
        "children",
        Type::List,
        None,
        "Of a volume: the services that use it; written by them.",
        "test/svc/registry",
    ),
    kw(ALL_LEAF, "type", Type::Text, None, "The driver of the resource; each group has a default.", "docker"),
    kw(
        ALL_LEAF,
        "disable",
        Type::Boolean,
        Some("false"),
        "A disabled resource is skipped, and its state is n/a.",
        "true",
    ),
    kw(
        ALL,
        "optional",
        Type::Boolean,
        Some("false"),
        "Failures of an optional resource stop nothing, and its state does not count for the instance's.",
        "true",
    ),
    kw(ALL, "standby", Type::Boolean, Some("false"), "Kept up on every node.", "true"),
    kw(ALL, "shared", Type::Boolean, Some("false"), "Made once for all nodes.", "true"),
    kw(
        ALL,
        "monitor",
        Type::Boolean,
        Some("false"),
        "When it is down and its restarts are spent, the instance moves to another node.",
        "true",
    ),
    kw(
        ALL,
        "restart",
        Type::Integer,
        Some("0"),
        "How often the resource is started again when it goes down by itself.",
        "3",
    ),
    kw(ALL, "restart_delay", Type::Duration, Some("0s"), "The least time between two of those starts.", "5s"),
    kw(ALL, "provision", Type::Boolean, Some("true"), "Whether `provision` makes what the resource needs.", "false"),
    kw(ALL, "unprovision", Type::Boolean, Some("true"), "Whether `unprovision` destroys it.", "false"),
    kw(ALL_LEAF, "subset", Type::Text, None, "Resources of a group with the same subset keep together.", "g1"),
    kw(
        ALL,
        "tags",
        Type::List,
        None,
        "Words to select resources by. `noaction`: nothing is ever done to it. `nostatus`: its state is n/a.",
        "noaction",
    ),
    kw(
        ALL,
        "start_timeout",
        Type::Duration,
        Some("30s"),
        "The longest time for a start, without the pull of an image.",
        "1m",
    ),
    kw(ALL, "stop_timeout", Type::Duration, Some("10s"), "The longest time for a stop before it is forced.", "1m"),
    kw(
        IP_HEAD,
        "network",
        Type::Text,
        Some("default"),
        "The network of the cluster that gives the address; `om net ls` lists them.",
        "backend",
    ),
    kw(IP, "netns", Type::Text, None, "The container whose network namespace gets the address.", "container#0"),
    kw(IP, "ipdev", Type::Text, Some("eth12"), "The name of the interface inside.", "eth0"),
    kw(
        IP,
        "expose",
        Type::List,
        None,
        "Ports that others reach, as PORT/PROTOCOL or PORT/PROTOCOL:HOSTPORT: an SRV record each, and a port of the host.",
        "5000/tcp 80/tcp:8080",
    ),
    kw(
        CONTAINER,
        "name",
        Type::Text,
        None,
        "The name of the container. Without it: [NAMESPACE..]NAME.container.INDEX.",
        "registry",
    ),
    kw(CONTAINER_HEAD, "image", Type::Text, None, "The image; without a tag `latest`. Required.", "registry:2"),
    kw(
        CONTAINER_HEAD,
        "image_pull_policy",
        Type::Choice(&["once", "always"]),
        Some("once"),
        "When the image is pulled: if the engine has none, or at each start.",
        "always",
    ),
    kw(CONTAINER_HEAD, "pull_timeout", Type::Duration, Some("2m"), "The longest time for a pull.", "10m"),
    kw(
        CONTAINER,
        "command",
        Type::Words,
        None,
        "Words in place of the image's command.",
        "serve /etc/registry/config.yml",
    ),
    kw(CONTAINER, "entrypoint", Type::Words, None, "Words in place of the image's entrypoint.", "/bin/registry"),
    kw(
        CONTAINER,
        "run_args",
        Type::Words,
        None,
        "Options of `docker run` that no keyword has.",
        "--cap-drop ALL --memory 512m",
    ),
    kw(
        CONTAINER,
        "detach",
        Type::Boolean,
        Some("true"),
        "False: the container runs to its end before the next resource starts, and its state is n/a.",
        "false",
    ),
    kw(CONTAINER, "rm", Type::Boolean, Some("false"), "The container is removed when it stops.", "true"),
    kw(
        CONTAINER,
        "netns",
        Type::Text,
        Some("none"),
        "Its network: `container#N` for that of another container, `host`, `none` for one without interfaces, or a network of the engine.",
        "container#0",
    ),
    kw(CONTAINER, "pidns", Type::Text, None, "Whose processes it sees: `host` or `container#N`.", "container#0"),
    kw(CONTAINER, "ipcns", Type::Text, None, "Whose shared memory it has: `host` or `container#N`.", "container#0"),
    kw(CONTAINER, "utsns", Type::Text, None, "Whose host name it has: `host`.", "host"),
    kw(CONTAINER, "hostname", Type::Text, None, "Its host name; only with a network of its own.", "registry"),
    kw(CONTAINER, "user", Type::Text, None, "USER or USER:GROUP that it runs as.", "1000:1000"),
    kw(CONTAINER, "cwd", Type::Text, None, "Its working directory.", "/srv"),
    kw(
        CONTAINER,
        "privileged",
        Type::Boolean,
        Some("false"),
        "All capabilities and devices of the host. Whoever is in it is root on the node.",
        "true",
    ),
    kw(CONTAINER, "interactive", Type::Boolean, Some("false"), "Keeps standard input open.", "true"),
    kw(CONTAINER, "tty", Type::Boolean, Some("false"), "Has a terminal.", "true"),
    kw(CONTAINER, "read_only", Type::Boolean, Some("false"), "Its root filesystem cannot be written.", "true"),
    kw(
        CONTAINER,
        "init",
        Type::Boolean,
        Some("false"),
        "A process 1 that reaps orphans and passes signals on.",
        "true",
    ),
    kw(
        CONTAINER,
        "volume_mounts",
        Type::Words,
        None,
        "SOURCE:DESTINATION[:OPTIONS]. The source is a path of the host, or the name of a volume of this object and a path in it.",
        "{name}-data/registry:/var/lib/registry",
    ),
    kw(CONTAINER, "devices", Type::Words, None, "Devices, as `docker run --device` takes them.", "/dev/fuse"),
    kw(
        CONTAINER_HEAD,
        "environment",
        Type::Words,
        None,
        "NAME=VALUE words. Whoever may talk to the engine can read them.",
        "REGISTRY_LOG_LEVEL=debug",
    ),
    kw(
        CONTAINER_HEAD,
        "secrets_environment",
        Type::Words,
        None,
        "NAME=SECRET/KEY words: variables with values of secrets. `docker inspect` shows them; files are better.",
        "TOKEN=ci/token",
    ),
    kw(
        CONTAINER_HEAD,
        "configs_environment",
        Type::Words,
        None,
        "NAME=CONFIG/KEY words: variables with values of configs.",
        "LEVEL=app/level",
    ),
    kw(
        CONTAINER_HEAD,
        "secrets",
        Type::Words,
        None,
        "SECRET/KEY:PATH words: files in the container, in memory, that only its user reads.",
        "tls/private_key:/run/secrets/key",
    ),
    kw(
        CONTAINER_HEAD,
        "configs",
        Type::Words,
        None,
        "CONFIG/KEY:PATH words: files in the container.",
        "app/config.yml:/etc/registry/config.yml",
    ),
    kw(
        CONTAINER_HEAD,
        "registry_creds",
        Type::Text,
        None,
        "The secret of the same namespace whose key config.json has the credentials for pulls. Without it: those of root's `docker login` on the node.",
        "creds-some-private-registry",
    ),
    kw(
        CONTAINER,
        "tls",
        Type::Boolean,
        None,
        "Whether the container gets a certificate of the cluster for the service's names. Without it: as the label of the image says.",
        "true",
    ),
    kw(
        VOLUME,
        "name",
        Type::Text,
        Some("{name}-vol-{rindex}"),
        "The name of the volume object, which is made if there is none.",
        "{name}-data",
    ),
    kw(VOLUME, "size", Type::Size, None, "The size that the volume has when it is made.", "10g"),
    kw(VOLUME, "access", ACCESS, Some("rwo"), "How it is used: read-write or read-only, by one node or many.", ""),
    kw(
        VOLUME_HEAD,
        "pool",
        Type::Text,
        None,
        "The pool that it is made in; without it, the one with the most room that fits.",
        "default",
    ),
    kw(VOLUME, "type", Type::Text, None, "Only pools of this type.", "loop"),
    kw(VOLUME, "format", Type::Boolean, Some("true"), "A filesystem; false: a device.", ""),
    kw(VOLUME, "directories", Type::List, None, "Directories that are made in it.", "registry"),
    kw(VOLUME, "user", Type::Text, None, "The owner of its head: a name or a number.", "1000"),
    kw(VOLUME, "group", Type::Text, None, "The group of its head.", "1000"),
    kw(VOLUME, "perm", Type::Text, None, "The mode of its head, in octal.", "750"),
    kw(VOLUME, "dirperm", Type::Text, None, "The mode of the directories that are made in it, in octal.", "700"),
    kw(
        VOLUME,
        "configs",
        Type::Words,
        None,
        "CONFIG/KEY:PATH words: files that are put into it.",
        "app/config.yml:/config.yml",
    ),
    kw(
        VOLUME,
        "secrets",
        Type::Words,
        None,
        "SECRET/KEY:PATH words: files that are put into it, and stay on its disk in clear.",
        "tls/*:/tls/",
    ),
    kw(DIRECTORY, "path", Type::Text, None, "The directory; absolute. Required.", "/srv/data"),
    kw(DIRECTORY, "user", Type::Text, None, "Its owner: a name or a number.", "1000"),
    kw(DIRECTORY, "group", Type::Text, None, "Its group.", "1000"),
    kw(DIRECTORY, "perm", Type::Text, None, "Its mode, in octal.", "750"),
    kw(LOOP, "file", Type::Text, None, "The file with the filesystem; absolute. Required.", "/var/lib/images/data.img"),
    kw(LOOP, "size", Type::Size, None, "Its size. Required.", "10g"),
    kw(LOOP, "mnt", Type::Text, None, "Where it is mounted; absolute. Required.", "/srv/data"),
    kw(LOOP, "filesystem", Type::Choice(&["ext4", "xfs"]), Some("ext4"), "The filesystem that is made in it.", ""),
    kw(
        APP,
        "start",
        Type::Words,
        None,
        "The program and its words; the program's path is absolute. Required.",
        "/usr/bin/sleep infinity",
    ),
    kw(
        APP,
        "stop",
        Type::Words,
        None,
        "A command that stops it. Without it: SIGTERM, then SIGKILL.",
        "/usr/bin/appctl stop",
    ),
    kw(
        APP,
        "check",
        Type::Words,
        None,
        "A command that checks it: 0 up, 1 down, else warn. Without it: whether the process lives.",
        "/usr/bin/appctl ping",
    ),
    kw(APP, "user", Type::Text, None, "The user that it runs as.", "www-data"),
    kw(APP, "cwd", Type::Text, None, "Its working directory.", "/srv"),
    kw(APP, "environment", Type::Words, None, "NAME=VALUE words.", "LEVEL=debug"),
    kw(
        CLUSTER,
        "name",
        Type::Text,
        Some("default"),
        "The name of the cluster: the zone of its DNS. Services get new certificates when it changes.",
        "homepool2",
    ),
    kw(
        CLUSTER,
        "nodes",
        Type::List,
        None,
        "The nodes of the cluster, in order. Without it: the node itself.",
        "alpha beta",
    ),
    kw(
        CLUSTER,
        "dns",
        Type::List,
        Some("169.254.53.53"),
        "Addresses at which each node answers the cluster's names; link-local ones are put on `lo`. `none`: it does not.",
        "none",
    ),
    kw(
        CLUSTER,
        "dns_upstream",
        Type::List,
        None,
        "Servers that are asked for all other names. Without it: those that the node asks.",
        "192.0.2.1 192.0.2.2",
    ),
    kw(
        CNI,
        "plugins",
        Type::Text,
        None,
        "The directory of the CNI plugins; absolute. Without it: /opt/cni/bin, /usr/lib/cni or /usr/libexec/cni.",
        "/opt/cni/bin",
    ),
    kw(
        NETWORK,
        "type",
        Type::Choice(&NETWORK_TYPES),
        None,
        "`bridge`: each node hands out the same addresses, behind its own. `routed_bridge`: each has a block of its own. Without it: `bridge` on one node, `routed_bridge` on several.",
        "bridge",
    ),
    kw(
        NETWORK,
        "network",
        Type::Text,
        None,
        "All addresses of the network; no other network may have any of them. Required but for `default`, which has 10.22.0.0/16.",
        "10.30.0.0/16",
    ),
    kw(
        ROUTED,
        "ips_per_node",
        Type::Integer,
        Some("1024"),
        "Addresses of each node's block, rounded up to a power of two.",
        "256",
    ),
    kw(
        POOL,
        "type",
        Type::Choice(&POOL_TYPES),
        Some("directory"),
        "What volumes are made of. `directory`: a directory, whose size is not enforced. `loop`: a file with a filesystem of the size. `shared`: a directory that several nodes mount.",
        "loop",
    ),
    kw(
        POOL,
        "path",
        Type::Text,
        None,
        "The directory that volumes are in; absolute. Without it, a directory of the daemon's own. Required of shared ones.",
        "/srv/volumes",
    ),
];

/// The keyword of a name that a section of a group with a driver takes: the driver's own before the group's, and that
/// before those of all resources.
pub fn find(group: &str, driver: &str, name: &str) -> Option<&'static Keyword> {
    let rank = |keyword: &Keyword| match (keyword.group == group, keyword.driver.is_empty()) {
        (true, false) => 0,
        (true, true) => 1,
        _ => 2,
    };
    of(group, driver).filter(|keyword| keyword.name == name).min_by_key(|keyword| rank(keyword))
}

/// All keywords that a section of a group with a driver takes.
pub fn of<'a>(group: &'a str, driver: &'a str) -> impl Iterator<Item = &'static Keyword> + 'a {
    KEYWORDS.iter().filter(move |keyword| {
        let is_its_group = keyword.group == group || (keyword.group == "*" && is_resource(group));
        is_its_group && (keyword.driver.is_empty() || keyword.driver == driver)
    })
}

/// Whether sections of this group are resources.
pub fn is_resource(group: &str) -> bool {
    GROUPS.iter().any(|(known, _)| *known == group)
}

/// Whether `[DEFAULT]` takes it: its own, and those that resources inherit.
pub fn in_default(name: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.name == name && keyword.inherit != Inherit::Leaf)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_keyword_is_described_once() {
        let mut seen = HashSet::new();
        for keyword in KEYWORDS {
            let Keyword { group, driver, name, text, example, default, .. } = keyword;
            assert!(seen.insert((group, driver, name)), "{group}.{name} is there twice");
            assert!(text.ends_with('.') && text.len() > 8, "{group}.{name}: {text}");
            assert!(!example.is_empty() || default.is_some(), "{group}.{name} has neither default nor example");
            let mut groups = GROUPS.iter().chain(CLUSTER_GROUPS);
            let is_group = ["DEFAULT", "*"].contains(group) || groups.any(|(known, _)| known == group);
            assert!(is_group, "{group}");
        }
    }

    #[test]
    fn the_closest_keyword_is_found() {
        let check = |group, driver, name, expected: Option<(&str, &str)>| {
            assert_eq!(
                find(group, driver, name).map(|keyword| (keyword.group, keyword.driver)),
                expected,
                "{group}.{name}"
            );
        };
        check("volume", "", "type", Some(("volume", "")));
        check("container", "docker", "type", Some(("*", "")));
        check("fs", "directory", "path", Some(("fs", "directory")));
        check("fs", "flag", "path", None);
        check("DEFAULT", "", "restart", None);
        check("pool", "loop", "type", Some(("pool", "")));
        check("pool", "loop", "restart", None);
        check("network", "bridge", "ips_per_node", None);
        assert!(in_default("restart") && in_default("nodes") && !in_default("subset") && !in_default("command"));
    }
}
