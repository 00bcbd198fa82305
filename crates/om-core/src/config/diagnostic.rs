//! Owns what is said about a text that is wrong: where, what, and the cure.

use std::fmt;

/// A place in a text. Both count from 1; columns are characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The text can be used.
    Warning,
    /// It can't.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// How bad it is.
    pub severity: Severity,
    /// What: lowercase, without a full stop.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Something that makes the text useless.
    pub fn error(place: Place, what: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { place, severity: Severity::Error, what: what.into(), hint: hint.into() }
    }

    /// Something that is to be known.
    pub fn warning(place: Place, what: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, what, hint) }
    }

    /// `file:line:column: error: …`, with the hint.
    pub fn shown<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        Shown(self, file)
    }
}

struct Shown<'a>(&'a Diagnostic, &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { place, severity, what, hint } = self.0;
        let word = match severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}:{}:{}: {word}: {what}", self.1, place.line, place.column)?;
        hint.as_ref().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

/// The word of `known` that is nearest to a wrong one, if one is near enough to have been meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = wrong.chars().count().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|word| (distance(wrong, word), word))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, word)| word)
}

/// Characters to add, remove, change or swap with the next, to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    rows.extend((1..=a.len()).map(|i| [vec![i], vec![0; b.len()]].concat()));
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested() {
        let check = |wrong: &str, expected: Option<&str>| {
            assert_eq!(nearest(wrong, ["image", "netns", "volume_mounts", "access", "size"]), expected, "{wrong}");
        };
        check("imgae", Some("image"));
        check("netn", Some("netns"));
        check("volumes_mount", Some("volume_mounts"));
        check("acces", Some("access"));
        check("xyz", None);
        check("", None);
    }

    #[test]
    fn a_diagnostic_names_the_place_and_the_cure() {
        let place = Place { line: 3, column: 7 };
        let diagnostic = Diagnostic::error(place, "`10x` is no size", "write 10g or 500m".to_owned());
        assert_eq!(
            diagnostic.shown("f.conf").to_string(),
            "f.conf:3:7: error: `10x` is no size (hint: write 10g or 500m)"
        );
    }
}
