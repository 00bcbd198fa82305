//! Owns the verbs of the node, and those that show pools, networks and the zone.

use serde_json::json;

use super::{Context, Failed, Format, Outcome, ask, config, edit, ini, look, parse::Command, put};
use crate::{
    api::DnsSetup,
    output::table::{Table, size, time},
};

/// `om node …`, `nodemgr …`.
pub async fn run(context: &Context, command: &Command) -> Outcome {
    match command.verb.words {
        "status" => status(context).await,
        "ls" => {
            let found = context.client.status("**", false).await?;
            let names: Vec<String> = found.nodes.into_keys().collect();
            match context.format {
                Format::Human => put(&names.iter().map(|name| format!("{name}\n")).collect::<String>()),
                _ => context.value(&names.into()),
            }
        }
        "print config" => {
            let stored = context.client.node_config().await?;
            match context.format {
                Format::Human => put(&config::coloured(&stored.text, context.colour)),
                _ => context.value(&ini::json(&ini::read(&stored.text)?).into()),
            }
        }
        "edit" => edit::config(context, command).await,
        "set" | "unset" => {
            let patch = config::patch_of(command)?;
            let changed = context.client.node_config_patch(&patch).await?;
            config::warn(&changed.diagnostics);
            put(&format!("  node {}\n", config::said(changed.changed, false)))
        }
        "get" => {
            let sections = ini::read(&context.client.node_config().await?.text)?;
            for name in config::keywords(command) {
                let value = ini::get(&sections, &name).ok_or_else(|| config::unset("node", &name))?;
                config::show(context, &value.into())?;
            }
            Ok(0)
        }
        "logs" => look::said(context, command, None).await,
        verb => {
            context.client.node_act(verb).await?;
            put(&format!("  node {}\n", if verb == "freeze" { "frozen" } else { "thawed" }))
        }
    }
}

async fn status(context: &Context) -> Outcome {
    let node = context.client.node().await?;
    if context.format != Format::Human {
        return context.value(&serde_json::to_value(&node).unwrap_or_default());
    }
    let mut table = Table::new(&["node", &node.name]);
    let state =
        node.status.frozen.map_or_else(|| node.status.state.clone(), |since| format!("frozen since {}", time(since)));
    table.row(["state", &state]);
    table.row(["version", &node.status.version]);
    table.row(["load 15m", &format!("{:.2}", node.status.load_15m)]);
    table.row(["memory", &format!("{} free of {}", size(node.status.mem_available), size(node.status.mem_total))]);
    for (name, value) in &node.facts {
        table.row([name, value]);
    }
    for (name, value) in &node.status.labels {
        table.row([&format!("label {name}"), value]);
    }
    context.lines(&table.lines())
}

/// `om pool ls`, `om pool status`.
pub async fn pools(context: &Context, command: &Command) -> Outcome {
    let mut pools = context.client.pools().await?;
    if let Some(name) = command.value("name") {
        pools.retain(|pool| pool.name == name);
        if pools.is_empty() {
            return Err(Failed::new(format!("there is no pool {name}")).hint("`om pool ls` lists them"));
        }
    }
    if command.verb.words == "ls" {
        return names(context, pools.into_iter().map(|pool| pool.name).collect());
    }
    if context.format != Format::Human {
        return context.value(&serde_json::to_value(&pools).unwrap_or_default());
    }
    let mut table = Table::new(&["name", "type", "caps", "head", "vols", "size", "used", "free"]);
    let last = pools.len().saturating_sub(1);
    for (index, pool) in pools.iter().enumerate() {
        let (glyph, bar) = if index == last { ("`- ", "   ") } else { ("|- ", "|  ") };
        table.row([
            format!("{glyph}{}", pool.name),
            pool.kind.clone(),
            pool.capabilities.join(","),
            pool.problem.clone().unwrap_or_else(|| pool.head.clone()),
            pool.volumes.len().to_string(),
            size(pool.size),
            size(pool.used),
            size(pool.free),
        ]);
        let shown = if command.has("verbose") { &pool.volumes[..] } else { &[] };
        for (index, volume) in shown.iter().enumerate() {
            let glyph = if index + 1 == shown.len() { "`- " } else { "|- " };
            let users = volume.children.join(" ");
            table.row([
                format!("{bar}{glyph}{}", volume.path),
                String::new(),
                String::new(),
                users,
                String::new(),
                size(volume.size),
            ]);
        }
    }
    context.lines(&table.lines())
}

fn names(context: &Context, names: Vec<String>) -> Outcome {
    match context.format {
        Format::Human => put(&names.iter().map(|name| format!("{name}\n")).collect::<String>()),
        _ => context.value(&names.into()),
    }
}

/// `om net ls`, `om net status`.
pub async fn networks(context: &Context, command: &Command) -> Outcome {
    let mut networks = context.client.networks().await?;
    if let Some(name) = command.value("name") {
        networks.retain(|network| network.name == name);
        if networks.is_empty() {
            return Err(Failed::new(format!("there is no network {name}")).hint("`om net ls` lists them"));
        }
    }
    if command.verb.words == "ls" {
        return names(context, networks.into_iter().map(|network| network.name).collect());
    }
    if context.format != Format::Human {
        return context.value(&serde_json::to_value(&networks).unwrap_or_default());
    }
    let mut table = Table::new(&["name", "type", "network", "subnet", "used", "free"]);
    let last = networks.len().saturating_sub(1);
    for (index, network) in networks.iter().enumerate() {
        let (glyph, bar) = if index == last { ("`- ", "   ") } else { ("|- ", "|  ") };
        let used = network.addresses.len() as u64;
        table.row([
            format!("{glyph}{}", network.name),
            network.kind.clone(),
            network.network.clone(),
            network.subnet.clone(),
            used.to_string(),
            network.size.saturating_sub(used).to_string(),
        ]);
        let shown = if command.has("verbose") { &network.addresses[..] } else { &[] };
        for (index, address) in shown.iter().enumerate() {
            let glyph = if index + 1 == shown.len() { "`- " } else { "|- " };
            let name = format!("{bar}{glyph}{}", address.address);
            table.row([name, address.node.clone(), address.path.clone(), address.rid.clone()]);
        }
    }
    context.lines(&table.lines())
}

/// `om dns dump`, as a zone file.
pub async fn dns(context: &Context) -> Outcome {
    let zone = context.client.dns().await?;
    if context.format != Format::Human {
        return context.value(&serde_json::to_value(&zone).unwrap_or_default());
    }
    put(&format!("; {} answered on {}\n", zone.zone, zone.listen.join(", ")))?;
    let mut table = Table::default();
    for record in &zone.records {
        table.row([record.name.as_str(), &record.ttl.to_string(), "IN", &record.kind, &record.data]);
    }
    context.lines(&table.lines())
}

/// `om dns status`. 1 where the cluster's names are not answered, or the node does not ask for them.
pub async fn dns_status(context: &Context) -> Outcome {
    let zone = context.client.dns().await?;
    let whole = zone.problems.is_empty() && zone.wired;
    if context.format != Format::Human {
        let listed = json!({"zone": zone.zone, "listen": zone.listen, "problems": zone.problems,
            "upstream": zone.upstream, "resolver": zone.resolver, "wired": zone.wired, "records": zone.records.len()});
        context.value(&listed)?;
        return Ok(u8::from(!whole));
    }
    let or_none = |words: &[String]| if words.is_empty() { "nowhere".to_owned() } else { words.join(", ") };
    let wired = if zone.wired { "asks the cluster's DNS" } else { "does not ask it (hint: om dns setup)" };
    put(&format!("  zone      {} with {} records\n", zone.zone, zone.records.len()))?;
    put(&format!("  answered  {}\n", or_none(&zone.listen)))?;
    put(&zone.problems.iter().map(|problem| format!("            {problem}\n")).collect::<String>())?;
    put(&format!("  others    {}\n", or_none(&zone.upstream)))?;
    put(&format!("  this node {wired}, by {}\n", zone.resolver))?;
    Ok(u8::from(!whole))
}

/// `om dns setup`: shows the changes, asks, and makes them.
pub async fn dns_setup(context: &Context, command: &Command) -> Outcome {
    let undo = command.has("undo");
    let plan = context.client.dns_setup(&DnsSetup { undo, dry_run: true }).await?;
    if context.format == Format::Human {
        put(&format!("  this node resolves names with {}\n", plan.resolver))?;
        put(&plan.changes.iter().map(|change| format!("  {change}\n")).collect::<String>())?;
    }
    if plan.changes.is_empty() {
        return put(if context.format == Format::Human { "  nothing to change\n" } else { "" });
    }
    if !command.has("dry-run") && !command.has("force") && !ask("change this?", false) {
        return Err(Failed::new("nothing is changed").hint("without a terminal: `om dns setup --yes`"));
    }
    let done = if command.has("dry-run") {
        plan
    } else {
        if context.format == Format::Human && !undo {
            put("  waiting until the container engine asks there, too\n")?;
        }
        context.client.dns_setup(&DnsSetup { undo, dry_run: false }).await?
    };
    match context.format {
        Format::Human => put(if done.done { "  done\n" } else { "" }),
        _ => context.value(&json!({"resolver": done.resolver, "changes": done.changes, "done": done.done})),
    }
}
