//! Owns the cluster's table: what each node is and how each selected object is there. Does not own the live view
//! around it.

use super::{
    table::size,
    text::{Colour, Text},
};
use crate::api::{InstanceStatus, NodeStatus, ObjectStatus, Snapshot};

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// What is written.
    pub text: Text,
    /// The full path of the object that it is of.
    pub path: Option<String>,
}

/// The table's lines. `parts` are the daemon's own, shown first.
pub fn lines(snapshot: &Snapshot, parts: &[(String, String)]) -> Vec<Line> {
    let nodes: Vec<(&str, &NodeStatus)> = snapshot.nodes.iter().map(|(name, node)| (name.as_str(), node)).collect();
    let mut rows: Vec<Row> = Vec::new();
    if !parts.is_empty() {
        rows.push(Row::head("Daemon", &[snapshot.node.as_str()]));
        for (name, what) in parts {
            rows.push(Row::new(&format!(" {name}"), vec![Text::new(what, Colour::Green)]));
        }
        rows.push(Row::empty());
    }
    let names: Vec<&str> = nodes.iter().map(|(name, _)| *name).collect();
    rows.push(Row::head("Nodes", &names));
    let each = |name: &str, cell: &dyn Fn(&NodeStatus) -> Text| {
        Row::new(name, nodes.iter().map(|(_, node)| if node.alive { cell(node) } else { Text::plain("-") }).collect())
    };
    rows.push(each(" score", &|node| node.score.to_string().into()));
    rows.push(each("  load 15m", &|node| format!("{:.1}", node.load_15m).into()));
    rows.push(each("  mem", &|node| share(node.mem_total, node.mem_available)));
    rows.push(each("  swap", &|node| share(node.swap_total, node.swap_free)));
    rows.push(Row::new(" state", nodes.iter().map(|(_, node)| node_state(node)).collect()));
    rows.push(Row::empty());
    rows.push(Row::head("Objects", &names));
    for (path, object) in &snapshot.objects {
        let cells =
            nodes.iter().map(|(node, _)| object.instances.get(*node).map_or_else(Text::default, cell)).collect();
        rows.push(Row {
            path: Some(path.clone()),
            columns: object_columns(object),
            ..Row::new(&format!(" {path}"), cells)
        });
    }
    if snapshot.objects.is_empty() {
        rows.push(Row::new(" (none selected)", Vec::new()));
    }
    layout(&rows)
}

#[derive(Default)]
struct Row {
    name: Text,
    path: Option<String>,
    /// Between the name and the nodes.
    columns: [Text; 3],
    cells: Vec<Text>,
    head: bool,
}

impl Row {
    fn new(name: &str, cells: Vec<Text>) -> Self {
        Self { name: Text::plain(name), cells, ..Self::default() }
    }

    fn head(name: &str, nodes: &[&str]) -> Self {
        let cells = nodes.iter().map(|node| Text::new(node, Colour::Bold)).collect();
        Self { name: Text::new(name, Colour::Bold), cells, head: true, ..Self::default() }
    }

    fn empty() -> Self {
        Self { head: true, ..Self::default() }
    }
}

fn layout(rows: &[Row]) -> Vec<Line> {
    let widest = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let name = widest(&|row| row.name.width());
    let columns: Vec<usize> = (0..3).map(|at| widest(&|row| row.columns[at].width())).collect();
    let nodes = widest(&|row| row.cells.len());
    let cells: Vec<usize> = (0..nodes).map(|at| widest(&|row| row.cells.get(at).map_or(0, Text::width))).collect();
    let line = |row: &Row| {
        let mut text = row.name.clone();
        let mut end = name + 2;
        text.pad(end);
        for (column, width) in row.columns.iter().zip(&columns) {
            text.append(column);
            end += width + 1;
            text.pad(end);
        }
        if !row.cells.is_empty() {
            text.push(if row.head { "  " } else { "| " }, Colour::Plain);
            end += 2;
        }
        for (cell, width) in row.cells.iter().zip(&cells) {
            text.append(cell);
            end += width + 2;
            text.pad(end);
        }
        Line { text, path: row.path.clone() }
    };
    rows.iter().map(line).collect()
}

fn share(total: u64, free: u64) -> Text {
    match total {
        0 => "-".into(),
        _ => format!("{}%:{}", total.saturating_sub(free).saturating_mul(100) / total, size(total)).into(),
    }
}

fn node_state(node: &NodeStatus) -> Text {
    if !node.alive {
        return Text::new("down", Colour::Red);
    }
    let mut text = Text::default();
    if node.frozen.is_some() {
        text.push("frozen", Colour::Blue);
    }
    if !matches!(node.state.as_str(), "" | "idle") {
        text.push(if text.is_empty() { "" } else { ", " }, Colour::Plain);
        text.push(&node.state, Colour::Yellow);
    }
    text
}

fn object_columns(object: &ObjectStatus) -> [Text; 3] {
    let mut avail = Text::new(&object.avail, Colour::of_status(&object.avail));
    if object.overall == "warn" && object.avail != "warn" {
        avail.push("!", Colour::Yellow);
    }
    if object.placement == "non-optimal" {
        avail.push("^", Colour::Red);
    }
    if object.target == 0 && object.instances.is_empty() {
        return [Text::plain(&object.kind), Text::default(), Text::default()];
    }
    [avail, Text::plain(&object.orchestrate), Text::plain(format!("{}/{}", object.up, object.target))]
}

/// An instance, in a few characters.
fn cell(instance: &InstanceStatus) -> Text {
    let icon = match instance.avail.as_str() {
        "up" => "O",
        "down" => "X",
        "warn" => "!",
        "n/a" => "/",
        "stdby up" => "S",
        "stdby down" => "s",
        _ => "?",
    };
    let mut text = Text::new(icon, Colour::of_status(&instance.avail));
    if instance.overall == "warn" {
        text.push("!", Colour::Yellow);
    }
    if instance.leader {
        text.push("^", Colour::Plain);
    }
    if instance.frozen.is_some() {
        text.push("*", Colour::Blue);
    }
    if matches!(instance.provisioned.as_str(), "no" | "mixed") {
        text.push("P", Colour::Red);
    }
    if !matches!(instance.monitor.as_str(), "" | "idle") {
        let colour = if instance.monitor.ends_with("failed") { Colour::Red } else { Colour::Plain };
        text.push(format!(" {}", instance.monitor), colour);
    } else if let Some(expect) = &instance.global_expect {
        text.push(format!(" >{expect}"), Colour::Grey);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{status::tests::page, text};

    #[test]
    fn the_cluster_is_a_table() {
        let mut snapshot = page();
        let object = snapshot.objects.values_mut().next().unwrap();
        object.overall = "warn".into();
        object.instances.get_mut("aubergine").unwrap().leader = true;
        let other = object.instances.get_mut("nuc-cva").unwrap();
        other.frozen = Some(1.0);
        other.provisioned = "no".into();
        other.monitor = "start failed".into();
        let node = snapshot.nodes.get_mut("aubergine").unwrap();
        node.mem_total = 32 << 30;
        node.mem_available = 24 << 30;
        node.score = 71;
        node.load_15m = 0.42;
        snapshot.nodes.get_mut("nuc-cva").unwrap().alive = false;
        let expected = "\
Nodes                             aubergine  nuc-cva
 score                          | 71         -
  load 15m                      | 0.4        -
  mem                           | 25%:32g    -
  swap                          | -          -
 state                          |            down

Objects                           aubergine  nuc-cva
 test/svc/registry  up! ha 1/1  | O^         X*P start failed
";
        let lines: Vec<Text> = lines(&snapshot, &[]).into_iter().map(|line| line.text).collect();
        let got = text::lines(&lines, false);
        // Blanks between the counters and the bar depend on nothing but the widest of each.
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect::<String>()
        };
        assert_eq!(squeeze(&got), squeeze(expected), "\n{got}");
        let bars: Vec<usize> = got.lines().filter_map(|line| line.find('|')).collect();
        assert!(bars.windows(2).all(|pair| pair[0] == pair[1]), "{got}");
    }
}
