//! Owns plain tables: columns as wide as their widest cell, two blanks between, and sizes and times for people.

use super::text::{Colour, Text};

/// A table with a head. Rows may be shorter than it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Text>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|name| Text::new(name, Colour::Bold)).collect()] }
    }

    /// Adds a row.
    pub fn row<T: Into<Text>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Its lines.
    pub fn lines(&self) -> Vec<Text> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(Text::width).max().unwrap_or(0))
            .collect();
        let line = |row: &Vec<Text>| {
            let (mut line, mut end) = (Text::default(), 0);
            for (cell, width) in row.iter().zip(&widths) {
                line.append(cell);
                end += width + 2;
                line.pad(end);
            }
            line
        };
        self.rows.iter().map(line).collect()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::plain(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::plain(text)
    }
}

/// Bytes as people write them, with powers of 1024: `0`, `512`, `10g`, `72.7g`.
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 && unit < 6 {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let letter = ["", "k", "m", "g", "t", "p", "e"][unit];
    match rest * 10 / 1024 {
        0 => format!("{whole}{letter}"),
        _ if whole >= 100 => format!("{whole}{letter}"),
        tenths => format!("{whole}.{tenths}{letter}"),
    }
}

/// A time, in seconds since 1970, as `2026-11-24 02:20:43` in UTC.
pub fn time(seconds: f64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    // Fractions are dropped; what is out of range is shown as the number it is.
    time::OffsetDateTime::from_unix_timestamp(seconds as i64)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| format!("{seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "type"]);
        table.row(["default", "directory"]);
        table.row(["x"]);
        assert_eq!(text::lines(&table.lines(), false), "name     type\ndefault  directory\nx\n");
    }

    #[test]
    fn sizes_and_times_are_short() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0");
        check(1023, "1023");
        check(10 << 30, "10g");
        check((10 << 30) + (512 << 20), "10.5g");
        check(251 << 30, "251g");
        assert_eq!(time(1_795_486_843.9), "2026-11-24 02:20:43");
    }
}
