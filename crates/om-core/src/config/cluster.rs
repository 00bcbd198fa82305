//! Owns what the configuration of the cluster means: its name, its nodes, its DNS, its networks and its pools, or
//! everything that is wrong with it at once. Does not own the keywords (see [`super::keyword`]).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    convert,
    diagnostic::{Diagnostic, Place, nearest},
    document::Document,
    keyword::{self, CLUSTER_GROUPS},
    resolve::{Context, Resolver, Value},
    schema::{MAX_NODES, found_place, section::Section},
};
use crate::{
    network::{self, Network, NetworkType},
    path::{NodeName, ObjectPath},
    pool::{self, Pool, PoolType},
};

/// Where the cluster's names are answered on every node, unless `cluster.dns` says otherwise: a link-local address on
/// `lo`. The node itself and its containers reach it, nobody else does.
const DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// The value of `cluster.dns` that turns it off.
const NONE: &str = "none";
/// Most addresses of a node's block.
const MAX_PER_NODE: u64 = 1 << 24;
/// The longest name of a pool.
const MAX_POOL_NAME: usize = 63;

/// The configuration of the cluster, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name: the zone of its DNS.
    pub name: String,
    /// All nodes, in order; the node that reads it is one of them.
    pub nodes: Vec<NodeName>,
    /// Addresses at which each node answers the cluster's names; empty: it does not.
    pub dns: Vec<IpAddr>,
    /// Servers that are asked for all other names; empty: those that the node asks.
    pub dns_upstream: Vec<IpAddr>,
    /// The directory of the CNI plugins; none: where distributions put them.
    pub plugins: Option<String>,
    /// Sorted by name; `default` is one of them.
    pub networks: Vec<Network>,
    /// Sorted by name; `default` is one of them.
    pub pools: Vec<Pool>,
}

/// What the configuration comes to on a node, with everything that is wrong with it, in the order of the text.
///
/// What is wrong is left out of the result, or has its default: a daemon has to run with a text that an older version
/// took.
pub fn read(document: &Document, node: &NodeName, cluster_id: &str) -> (ClusterConfig, Vec<Diagnostic>) {
    let mut found = Vec::new();
    // References of the other sections are to what these two come to.
    let bare = Context {
        path: ObjectPath::cluster(),
        node: node.clone(),
        cluster: String::new(),
        cluster_id: cluster_id.to_owned(),
        cluster_nodes: vec![node.clone()],
        dns: Vec::new(),
        labels: BTreeMap::new(),
    };
    let (name, nodes) = {
        let resolver = Resolver::new(document, &bare);
        let section = Section::new(&resolver, "cluster", "", &found_place(document, "cluster"));
        let read = (read_name(&section), read_nodes(&section, node));
        found.extend(section.into_found());
        read
    };
    let context = Context { cluster: name.clone(), cluster_nodes: nodes.clone(), ..bare };
    let resolver = Resolver::new(document, &context);
    let sections = check_sections(document, &resolver, &mut found);
    let section = Section::new(&resolver, "cluster", "", &found_place(document, "cluster"));
    let dns = match section.text("dns") {
        None => vec![DNS.into()],
        Some(value) if value.text.trim() == NONE => Vec::new(),
        Some(value) => addresses(&section, "dns", &value),
    };
    let upstream = section.text("dns_upstream").map(|value| addresses(&section, "dns_upstream", &value));
    found.extend(section.into_found());
    let section = Section::new(&resolver, "cni", "", &found_place(document, "cni"));
    let plugins = section.text("plugins").and_then(|value| section.absolute("plugins", &value));
    found.extend(section.into_found());
    let networks = read_networks(&resolver, &sections, &nodes, &mut found);
    let pools = read_pools(&resolver, &sections, &mut found);
    found.sort();
    found.dedup();
    (ClusterConfig { name, nodes, dns, dns_upstream: upstream.unwrap_or_default(), plugins, networks, pools }, found)
}

/// A section of a network or a pool: its name in the text, the name of what it makes, its type and its place.
struct Named<'a> {
    section: &'a str,
    name: &'a str,
    driver: &'static str,
    place: Place,
}

/// Looks at the names of sections and keywords; returns the sections of networks and pools.
fn check_sections<'a>(
    document: &'a Document,
    resolver: &Resolver<'_>,
    found: &mut Vec<Diagnostic>,
) -> BTreeMap<(&'a str, &'a str), Named<'a>> {
    let mut named = BTreeMap::new();
    let mut drivers: BTreeMap<&str, (&str, &'static str)> = BTreeMap::new();
    for (section, place) in document.sections() {
        if ["DEFAULT", "env", "labels"].contains(&section) {
            continue;
        }
        let (group, name) = section.split_once('#').map_or((section, None), |(group, name)| (group, Some(name)));
        let known = CLUSTER_GROUPS.iter().find(|(known, _)| *known == group).copied();
        let Some((group, types)) = known else {
            let groups = || CLUSTER_GROUPS.iter().map(|(known, _)| *known);
            let hint = nearest(group, groups().chain(["env", "labels"])).map_or_else(
                || format!("there are {}", groups().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean [{near}]?"),
            );
            let what = format!("[{section}] is no section of the cluster's configuration");
            found.push(Diagnostic::error(place, what, hint));
            continue;
        };
        let has_name = types.first().is_some_and(|first| !first.is_empty());
        let mut driver = "";
        match (has_name, name) {
            (true, None | Some("")) => {
                let what = format!("[{section}] does not say which {group}");
                found.push(Diagnostic::error(place, what, format!("write [{group}#NAME]")));
                continue;
            }
            (false, Some(_)) => {
                let what = format!("[{section}]: there is one [{group}]");
                found.push(Diagnostic::error(place, what, format!("write [{group}]")));
                continue;
            }
            (true, Some(name)) => {
                let written = resolver.get(section, "type").ok().flatten();
                // A wrong one is told by the section's reader.
                let chosen = written.and_then(|value| types.iter().find(|one| **one == value.text.trim()).copied());
                driver = chosen.unwrap_or_else(|| implied_type(group, types, resolver.context().cluster_nodes.len()));
                named.insert((group, name), Named { section, name, driver, place });
            }
            (false, None) => {}
        }
        drivers.insert(section, (group, driver));
    }
    for setting in document.settings() {
        let Some((group, driver)) = drivers.get(setting.section).copied() else { continue };
        if keyword::find(group, driver, setting.keyword).is_none() {
            found.push(unknown(setting.section, group, driver, setting.keyword, setting.key_place));
        }
    }
    named
}

fn implied_type(group: &str, types: &[&'static str], nodes: usize) -> &'static str {
    if group == "network" { Network::implied(nodes).kind.as_str() } else { types.first().copied().unwrap_or("") }
}

/// A slip is an error; what another program may know is kept and said.
fn unknown(section: &str, group: &str, driver: &str, name: &str, place: Place) -> Diagnostic {
    let names = || keyword::of(group, driver).map(|keyword| keyword.name);
    match nearest(name, names()) {
        Some(near) => {
            Diagnostic::error(place, format!("[{section}] takes no `{name}`"), format!("did you mean `{near}`?"))
        }
        None => Diagnostic::warning(
            place,
            format!("`{name}` has no effect in [{section}]"),
            format!("it takes {}", names().collect::<Vec<_>>().join(", ")),
        ),
    }
}

fn read_name(section: &Section<'_>) -> String {
    let default = || keyword::find("cluster", "", "name").and_then(|keyword| keyword.default).unwrap_or("").to_owned();
    let Some(value) = section.text("name") else { return default() };
    if value.text.parse::<NodeName>().is_err() {
        let hint = "it is the zone of the cluster's DNS: lower-case letters, digits and hyphens".to_owned();
        section.wrong(value.place, format!("`{}` cannot name a cluster", value.text), hint);
        return default();
    }
    value.text
}

fn read_nodes(section: &Section<'_>, node: &NodeName) -> Vec<NodeName> {
    let mut nodes: Vec<NodeName> = Vec::new();
    if let Some(value) = section.text("nodes") {
        for word in convert::list(&value.text) {
            match word.parse::<NodeName>() {
                Ok(name) if nodes.contains(&name) => {
                    section.wrong(value.place, format!("`{name}` is there twice"), "leave one out".to_owned());
                }
                Ok(name) => nodes.push(name),
                Err(error) => section.wrong(value.place, format!("`nodes`: {error}"), None),
            }
        }
        if nodes.len() > MAX_NODES {
            section.wrong(value.place, format!("more than {MAX_NODES} nodes"), None);
        }
    }
    if !nodes.contains(node) {
        nodes.push(node.clone());
    }
    nodes
}

fn addresses(section: &Section<'_>, keyword: &str, value: &Value) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for word in convert::list(&value.text) {
        match word.parse() {
            Ok(address) => all.push(address),
            Err(_) => {
                let hint = "such as 192.0.2.1 or fd00::1, with blanks between".to_owned();
                section.wrong(value.place, format!("`{keyword}`: `{word}` is no address"), hint);
            }
        }
    }
    all
}

type Sections<'a> = BTreeMap<(&'a str, &'a str), Named<'a>>;

fn of_group<'a>(sections: &'a Sections<'a>, group: &'a str) -> impl Iterator<Item = &'a Named<'a>> {
    sections.iter().filter(move |((of, _), _)| *of == group).map(|(_, named)| named)
}

fn read_networks(
    resolver: &Resolver<'_>,
    sections: &Sections<'_>,
    nodes: &[NodeName],
    found: &mut Vec<Diagnostic>,
) -> Vec<Network> {
    let implied = Network::implied(nodes.len());
    let mut networks = Vec::new();
    if !sections.contains_key(&("network", network::DEFAULT)) {
        networks.push(implied.clone());
    }
    for Named { section: name_of_section, name, driver, place } in of_group(sections, "network") {
        let section = Section::new(resolver, name_of_section, driver, place);
        let network = read_network(&section, name, driver, &implied, *place);
        found.extend(section.into_found());
        let Some(network) = network else { continue };
        if let Err(error) = nodes.iter().try_for_each(|node| network.part(nodes, node).map(|_| ())) {
            found.push(Diagnostic::error(*place, error.to_string(), None));
        } else if let Some(other) = networks.iter().find(|other: &&Network| other.subnet.overlaps(network.subnet)) {
            let what = format!("network {name} ({}) and {} ({}) overlap", network.subnet, other.name, other.subnet);
            let hint = match sections.contains_key(&("network", other.name.as_str())) {
                true => "give one other addresses".to_owned(),
                false => format!("[network#{}] would give that one others; it is there without a section", other.name),
            };
            found.push(Diagnostic::error(*place, what, hint));
        } else {
            networks.push(network);
        }
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks
}

fn read_network(section: &Section<'_>, name: &str, driver: &str, implied: &Network, place: Place) -> Option<Network> {
    if section.text("type").is_some() {
        section.choice("type")?;
    }
    let kind = [NetworkType::Bridge, NetworkType::RoutedBridge].into_iter().find(|kind| kind.as_str() == driver)?;
    let value = if name == network::DEFAULT { section.text("network") } else { Some(section.required("network")?) };
    let subnet = match value {
        None => implied.subnet,
        Some(value) => match value.text.parse() {
            Ok(subnet) => subnet,
            Err(network::SubnetError(_)) => {
                let hint = "an address and a prefix from 8 to 30, such as 10.22.0.0/16".to_owned();
                section.wrong(value.place, format!("`{}` is no network", value.text), hint);
                return None;
            }
        },
    };
    let ips_per_node = match kind {
        NetworkType::Bridge => implied.ips_per_node,
        NetworkType::RoutedBridge => section.integer("ips_per_node", MAX_PER_NODE),
    };
    let network = Network { name: name.to_owned(), kind, subnet, ips_per_node };
    if !network.has_name() {
        let error = network::NetworkError::Name(name.to_owned());
        section.wrong(place, error.to_string(), None);
        return None;
    }
    Some(network)
}

fn read_pools(resolver: &Resolver<'_>, sections: &Sections<'_>, found: &mut Vec<Diagnostic>) -> Vec<Pool> {
    let mut pools = Vec::new();
    if !sections.contains_key(&("pool", pool::DEFAULT)) {
        pools.push(Pool { name: pool::DEFAULT.to_owned(), kind: PoolType::Directory, path: None });
    }
    for Named { section: name_of_section, name, driver, place } in of_group(sections, "pool") {
        let section = Section::new(resolver, name_of_section, driver, place);
        let fits = name.len() <= MAX_POOL_NAME
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
            && !name.starts_with('.');
        if !fits {
            let hint = format!("1 to {MAX_POOL_NAME} letters, digits, hyphens, dots and underscores");
            section.wrong(*place, format!("`{name}` is no name of a pool"), hint);
        }
        let kind = section.choice("type").and_then(PoolType::from_word);
        let value = match kind {
            Some(PoolType::Shared) => section.required("path"),
            _ => section.text("path"),
        };
        let is_given = value.is_some();
        let path = value.and_then(|value| section.absolute("path", &value));
        if let Some(kind) = kind.filter(|_| fits && is_given == path.is_some())
            && (kind != PoolType::Shared || path.is_some())
        {
            pools.push(Pool { name: (*name).to_owned(), kind, path });
        }
        found.extend(section.into_found());
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    pools
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_text(text: &str) -> (ClusterConfig, Vec<String>) {
        let document = Document::parse(text).expect("a document");
        let (config, found) = read(&document, &"alpha".parse().expect("a node"), "id");
        (config, found.iter().map(|one| one.shown("f").to_string()).collect())
    }

    #[test]
    fn without_a_word_there_is_what_one_node_needs() {
        let (config, found) = read_text("");
        assert_eq!(found, Vec::<String>::new());
        assert_eq!((config.name.as_str(), config.nodes.len(), config.plugins), ("default", 1, None));
        assert_eq!(config.dns, ["169.254.53.53".parse::<IpAddr>().expect("an address")]);
        assert_eq!(config.networks, [Network::implied(1)]);
        assert_eq!(config.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["default"]);
    }

    #[test]
    fn all_of_it_is_read() {
        let (config, found) = read_text(
            "[cluster]\nname = homepool2\nnodes = alpha beta\ndns = none\ndns_upstream = 192.0.2.1 fd00::1\n\
             [cni]\nplugins = /opt/cni/bin\n[network#backend]\nnetwork = 10.30.0.0/16\nips_per_node = 256\n\
             [network#default]\ntype = bridge\n[pool#fast]\ntype = loop\npath = /srv/{clustername}\n\
             [pool#nas]\ntype = shared\npath = /mnt/nas\n[labels]\nsite = north\n",
        );
        assert_eq!(found, Vec::<String>::new());
        assert_eq!((config.dns.len(), config.dns_upstream.len()), (0, 2));
        let shown: Vec<String> = config
            .networks
            .iter()
            .map(|n| format!("{} {} {} {}", n.name, n.kind.as_str(), n.subnet, n.ips_per_node))
            .collect();
        assert_eq!(shown, ["backend routed_bridge 10.30.0.0/16 256", "default bridge 10.22.0.0/16 1024"]);
        let paths: Vec<Option<&str>> = config.pools.iter().map(|pool| pool.path.as_deref()).collect();
        assert_eq!(paths, [None, Some("/srv/homepool2"), Some("/mnt/nas")]);
    }

    #[test]
    fn mistakes_are_named_with_their_cure() {
        let check = |text: &str, expected: &str| {
            let (config, found) = read_text(text);
            assert!(found.iter().any(|one| one == expected), "{text}\n{found:#?}");
            assert!(
                config.networks.iter().any(|network| network.name == network::DEFAULT) || text.contains("#default")
            );
        };
        check(
            "[cluster]\nname = Bad Name\n",
            "f:2:8: error: `Bad Name` cannot name a cluster (hint: it is the zone of the cluster's DNS: lower-case \
             letters, digits and hyphens)",
        );
        check("[cluster]\nnodes = a a\n", "f:2:9: error: `a` is there twice (hint: leave one out)");
        check(
            "[cluster]\ndns = 10.0.0.1 junk\n",
            "f:2:7: error: `dns`: `junk` is no address (hint: such as 192.0.2.1 or fd00::1, with blanks between)",
        );
        check("[cluster]\nnmae = x\n", "f:2:1: error: [cluster] takes no `nmae` (hint: did you mean `name`?)");
        check(
            "[cluster]\nheartbeat = x\n",
            "f:2:1: warning: `heartbeat` has no effect in [cluster] (hint: it takes name, nodes, dns, dns_upstream)",
        );
        check(
            "[pol#x]\ntype = loop\n",
            "f:1:1: error: [pol#x] is no section of the cluster's configuration (hint: did you mean [pool]?)",
        );
        check("[pool]\ntype = loop\n", "f:1:1: error: [pool] does not say which pool (hint: write [pool#NAME])");
        check("[pool#x]\ntype = lop\n", "f:2:8: error: `lop` is no type (hint: did you mean loop?)");
        check("[pool#x]\ntype = shared\n", "f:1:1: error: [pool#x] needs `path` (hint: such as path = /srv/volumes)");
        check(
            "[pool#x]\npath = srv\n",
            "f:2:8: error: `path`: `srv` is no absolute path (hint: begin with /, without ..)",
        );
        check("[cni#1]\nplugins = /x\n", "f:1:1: error: [cni#1]: there is one [cni] (hint: write [cni])");
        check(
            "[network#x]\ntype = brigde\nnetwork = 10.9.0.0/16\n",
            "f:2:8: error: `brigde` is no type (hint: did you mean bridge?)",
        );
        check("[network#x]\n", "f:1:1: error: [network#x] needs `network` (hint: such as network = 10.30.0.0/16)");
        check(
            "[network#x]\nnetwork = 10.22.0.1/16\n",
            "f:2:11: error: `10.22.0.1/16` is no network (hint: an address and a prefix from 8 to 30, such as \
             10.22.0.0/16)",
        );
        check(
            "[network#x]\nnetwork = 10.22.4.0/24\n",
            "f:1:1: error: network x (10.22.4.0/24) and default (10.22.0.0/16) overlap (hint: [network#default] would \
             give that one others; it is there without a section)",
        );
        check(
            "[network#x]\nnetwork = 10.9.0.0/24\nips_per_node = 4\n",
            "f:3:1: warning: `ips_per_node` has no effect in [network#x] (hint: it takes type, network)",
        );
        check(
            "[cluster]\nnodes = alpha beta\n[network#x]\nnetwork = 10.9.0.0/24\nips_per_node = 256\n",
            "f:3:1: error: network x (10.9.0.0/24) has no block of 256 addresses for node beta (hint: a larger \
             network, or a smaller ips_per_node)",
        );
        check(
            "[network#a-long-name-x]\nnetwork = 10.9.0.0/24\n",
            "f:1:1: error: `a-long-name-x` is no name of a network (hint: 1 to 11 lower-case letters, digits and \
             hyphens)",
        );
    }

    fn any_text() -> impl Strategy<Value = String> {
        let sections = [
            "DEFAULT",
            "cluster",
            "cni",
            "network#default",
            "network#x",
            "pool#a",
            "pool#",
            "network",
            "env",
            "data",
            "ip#1",
            "container#0",
            "container#1",
            "volume#1",
            "disk#1",
            "fs#1",
            "app#1",
            "sync#i0",
            "subset#g",
            "#",
            "",
        ];
        let values = [
            "",
            "a",
            "true",
            "1g",
            "-1",
            "99999999999999999999",
            "10.30.0.0/16",
            "10.22.0.0/30",
            "rwo",
            "loop",
            "shared",
            "bridge",
            "routed_bridge",
            "/srv",
            "/a/../b",
            "container#0",
            "container#1",
            "{name}",
            "{cluster.name}",
            "{x",
            "{env.a}",
            "{DEFAULT.nodes}",
            "none",
            "127.0.0.1 é",
            "a b c",
            "\"",
            "5000/tcp:80",
            "s/k:/run/x",
            "*",
        ];
        let section = proptest::sample::select(sections.to_vec()).prop_map(|name| format!("[{name}]"));
        let names: Vec<&str> = keyword::KEYWORDS.iter().map(|keyword| keyword.name).collect();
        let scope = proptest::sample::select(vec!["", "", "@alpha", "@nodes", "@"]);
        let setting = (proptest::sample::select(names), scope, proptest::sample::select(values.to_vec()))
            .prop_map(|(name, scope, value)| format!("{name}{scope} = {value}"));
        let line = prop_oneof![1 => section, 3 => setting, 1 => "[\\[\\]=#; a-c@]{0,6}"];
        proptest::collection::vec(line, 0..24).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any_text()) {
            let Ok(document) = Document::parse(&text) else { return Ok(()) };
            let node: NodeName = "alpha".parse().expect("a node");
            let (config, found) = read(&document, &node, "id");
            prop_assert!(config.nodes.contains(&node) && config.name.parse::<NodeName>().is_ok());
            prop_assert!(found.is_sorted(), "in the order of the text");
            for (at, network) in config.networks.iter().enumerate() {
                prop_assert!(network.part(&config.nodes, &node).is_ok());
                prop_assert!(config.networks[at + 1..].iter().all(|other| !other.subnet.overlaps(network.subnet)));
            }
            prop_assert!(config.pools.iter().all(|pool| pool.kind != PoolType::Shared || pool.path.is_some()));
            // The same text as a service's: a verdict, whatever it is.
            let context = Context {
                path: "test/web".parse().expect("a path"),
                node: node.clone(),
                cluster: config.name.clone(),
                cluster_id: "id".to_owned(),
                cluster_nodes: config.nodes.clone(),
                dns: config.dns.clone(),
                labels: BTreeMap::new(),
            };
            if let Err(wrong) = super::super::schema::instance(&document, &context) {
                prop_assert!(!wrong.is_empty());
            }
        }
    }
}
