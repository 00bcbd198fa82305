//! Owns the geometry of trees: a column of names behind bars, then three columns, one blank between.
//! Does not own what is written into them.

use super::text::{Colour, Text};

/// Columns a level of the tree takes.
const STEP: usize = 3;
/// Columns the longest name takes at least.
const MIN_NAME: usize = 14;
/// Columns of the third column: the longest state's word.
const STATUS: usize = 10;

/// A line of the tree with what hangs below it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The four columns' texts; missing ones at the end are not padded.
    pub cells: Vec<Text>,
    /// More lines of the last column.
    pub lines: Vec<Text>,
    /// What is below.
    pub children: Vec<Node>,
}

impl Node {
    /// A line with only a name.
    pub fn new(name: &str) -> Self {
        Self { cells: vec![Text::new(name, Colour::Plain)], ..Self::default() }
    }

    /// A line with all columns.
    pub fn row(name: Text, flags: &str, status: &str, notice: Text) -> Self {
        let status = Text::new(status, Colour::of_status(status));
        Self { cells: vec![name, Text::plain(flags), status, notice], ..Self::default() }
    }

    fn depth(&self) -> usize {
        self.children.iter().map(|child| 1 + child.depth()).max().unwrap_or(0)
    }

    fn widest(&self, column: usize) -> usize {
        let own = self.cells.get(column).map_or(0, Text::width);
        self.children.iter().map(|child| child.widest(column)).fold(own, usize::max)
    }
}

/// The tree's lines. With a `width`, the last column is broken to fit into it, as long as a few columns remain for it.
pub fn lines(root: &Node, width: Option<usize>) -> Vec<Text> {
    let names = MIN_NAME.max(root.widest(0)) + STEP * root.depth();
    let widths = [names, root.widest(1), STATUS.max(root.widest(2))];
    let before: usize = widths.iter().map(|width| width + 1).sum();
    let room = width.map(|width| width.saturating_sub(before)).filter(|room| *room >= 8);
    let mut out = Vec::new();
    draw(root, "", "", &widths, room, &mut out);
    out
}

/// `first` is before the node's own line, `rest` before what follows it.
fn draw(node: &Node, first: &str, rest: &str, widths: &[usize; 3], room: Option<usize>, out: &mut Vec<Text>) {
    let mut line = Text::plain(first);
    let mut column = 0;
    let mut more = Vec::new();
    for (index, cell) in node.cells.iter().enumerate() {
        if let Some(width) = widths.get(index) {
            line.append(cell);
            column += width + 1;
            line.pad(column);
        } else {
            let mut parts = wrapped(cell, room).into_iter();
            if let Some(part) = parts.next() {
                line.append(&part);
            }
            more.extend(parts);
        }
    }
    out.push(line);
    let before: usize = widths.iter().map(|width| width + 1).sum();
    more.extend(node.lines.iter().flat_map(|line| wrapped(line, room)));
    // Lines of a node with children keep the bar of the first child.
    let bars = if node.children.is_empty() { rest.to_owned() } else { format!("{rest}|") };
    for text in more {
        let mut line = Text::plain(&bars);
        line.pad(before);
        line.append(&text);
        out.push(line);
    }
    let last = node.children.len().saturating_sub(1);
    for (index, child) in node.children.iter().enumerate() {
        let (glyph, bar) = if index == last { ("`- ", "   ") } else { ("|- ", "|  ") };
        draw(child, &format!("{rest}{glyph}"), &format!("{rest}{bar}"), widths, room, out);
    }
}

fn wrapped(text: &Text, room: Option<usize>) -> Vec<Text> {
    room.map_or_else(|| vec![text.clone()], |room| text.wrap(room))
}
