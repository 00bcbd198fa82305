//! Owns coloured text: pieces with a colour, their visible width, and how they become bytes for a terminal.
//! Does not own which state has which colour on which line; those who make the text say so.

/// A colour, or another way to stand out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// As the terminal writes.
    #[default]
    Plain,
    /// Names.
    Bold,
    /// Something is wrong.
    Red,
    /// All is well.
    Green,
    /// Look at it.
    Yellow,
    /// Held.
    Blue,
    /// Less important.
    Grey,
}

impl Colour {
    /// The colour of a state's word.
    pub fn of_status(word: &str) -> Self {
        match word {
            "up" | "ok" | "stdby up" => Self::Green,
            "down" | "err" | "stdby down" => Self::Red,
            "warn" => Self::Yellow,
            _ => Self::Grey,
        }
    }

    /// The colour of a line's severity.
    pub fn of_severity(word: &str) -> Self {
        match word {
            "error" => Self::Red,
            "warn" | "warning" => Self::Yellow,
            _ => Self::Plain,
        }
    }

    /// The parameter of the escape sequence (ECMA-48 §8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Red => Some("31"),
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Blue => Some("34"),
            Self::Grey => Some("94"),
        }
    }
}

/// Text of one line, in pieces. What it holds can be written to a terminal: control characters are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    pieces: Vec<(String, Colour)>,
}

impl Text {
    /// Text of one colour.
    pub fn new(text: impl AsRef<str>, colour: Colour) -> Self {
        let mut made = Self::default();
        made.push(text, colour);
        made
    }

    /// Text without colour.
    pub fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Colour::Plain)
    }

    /// Adds text at the end.
    pub fn push(&mut self, text: impl AsRef<str>, colour: Colour) {
        let text = text.as_ref();
        if text.is_empty() {
            return;
        }
        // Labels and lines come from images, plugins and configurations; none of them may drive the terminal.
        let clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match self.pieces.last_mut() {
            Some((last, same)) if *same == colour => last.push_str(&clean),
            _ => self.pieces.push((clean, colour)),
        }
    }

    /// Adds another text at the end.
    pub fn append(&mut self, other: &Self) {
        for (text, colour) in &other.pieces {
            self.push(text, *colour);
        }
    }

    /// Columns it takes on a terminal, one a character.
    pub fn width(&self) -> usize {
        self.pieces.iter().map(|(text, _)| text.chars().count()).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Fills up with blanks to a width.
    pub fn pad(&mut self, width: usize) {
        let missing = width.saturating_sub(self.width());
        self.push(" ".repeat(missing), Colour::Plain);
    }

    /// The pieces with their colours.
    pub fn pieces(&self) -> impl Iterator<Item = (&str, Colour)> {
        self.pieces.iter().map(|(text, colour)| (text.as_str(), *colour))
    }

    /// Lines of at most `width` columns, broken at blanks where there are some.
    pub fn wrap(&self, width: usize) -> Vec<Self> {
        if width == 0 || self.width() <= width {
            return vec![self.clone()];
        }
        let characters: Vec<(char, Colour)> =
            self.pieces.iter().flat_map(|(text, colour)| text.chars().map(move |c| (c, *colour))).collect();
        let mut lines = Vec::new();
        let mut rest = &characters[..];
        while !rest.is_empty() {
            let end = if rest.len() <= width {
                rest.len()
            } else {
                // A blank just after the line is a place to break as well.
                rest[..=width].iter().rposition(|(c, _)| *c == ' ').filter(|at| *at > 0).unwrap_or(width)
            };
            let mut line = Self::default();
            for (c, colour) in &rest[..end] {
                line.push(c.encode_utf8(&mut [0; 4]), *colour);
            }
            lines.push(line);
            rest = &rest[end..];
            let blanks = rest.iter().take_while(|(c, _)| *c == ' ').count();
            rest = &rest[blanks..];
        }
        lines
    }

    /// The line without blanks at its end, with escape sequences if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        let last = self.pieces.iter().rposition(|(text, _)| !text.trim_end().is_empty());
        for (index, (text, of)) in self.pieces.iter().enumerate() {
            let text = match last {
                Some(last) if index < last => text.as_str(),
                Some(last) if index == last => text.trim_end_matches(' '),
                _ => break,
            };
            match of.code().filter(|_| colour) {
                Some(code) => {
                    out.push_str("\x1b[");
                    out.push_str(code);
                    out.push('m');
                    out.push_str(text);
                    out.push_str("\x1b[0m");
                }
                None => out.push_str(text),
            }
        }
        out
    }
}

/// Joins lines; each ends with a newline.
pub fn lines(lines: &[Text], colour: bool) -> String {
    lines.iter().map(|line| line.render(colour) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_without_its_colours() {
        let mut text = Text::new("warn", Colour::Yellow);
        text.push(", idle", Colour::Grey);
        text.pad(14);
        assert_eq!(text.width(), 14);
        assert_eq!(text.render(false), "warn, idle");
        assert_eq!(text.render(true), "\x1b[33mwarn\x1b[0m\x1b[94m, idle\x1b[0m");
        assert_eq!(Text::plain("a\x1b[31mb").render(true), "a\u{fffd}[31mb");
    }

    #[test]
    fn long_text_is_broken_at_blanks() {
        let check = |text: &str, width: usize, expected: &[&str]| {
            let got: Vec<String> = Text::plain(text).wrap(width).iter().map(|line| line.render(false)).collect();
            assert_eq!(got, expected);
        };
        check("info: volume registry-data does not exist", 27, &["info: volume registry-data", "does not exist"]);
        check("abcdefgh", 3, &["abc", "def", "gh"]);
        check("abc def", 3, &["abc", "def"]);
        check("short", 80, &["short"]);
    }
}
