//! Owns pagination: the `n` and `last` parameters, and one page of a sorted list.

/// One page of a sorted list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub entries: Vec<T>,
    /// Whether the list goes on after the last entry.
    pub more: bool,
}

/// Which page a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// `n`: at most so many entries; absent when not asked for.
    pub limit: Option<usize>,
    /// `last`: start after this entry, which need not exist.
    pub after: Option<String>,
}

/// An `n` that is no count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("n is {0:?}, expected a whole number, 0 or more")]
pub struct LimitError(pub String);

/// Parses `n`. Absent or empty means no limit asked for.
pub fn parse_limit(n: Option<&str>) -> Result<Option<usize>, LimitError> {
    match n {
        None | Some("") => Ok(None),
        Some(text) if text.bytes().all(|c| c.is_ascii_digit()) => {
            text.parse().map(Some).map_err(|_| LimitError(text.into()))
        }
        Some(text) => Err(LimitError(text.chars().take(32).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_limit;

    #[test]
    fn limits() {
        assert_eq!(parse_limit(None), Ok(None));
        assert_eq!(parse_limit(Some("0")), Ok(Some(0)));
        assert_eq!(parse_limit(Some("25")), Ok(Some(25)));
        for bad in ["-1", "+1", "a", "1.5", " 1", "99999999999999999999999"] {
            assert!(parse_limit(Some(bad)).is_err(), "{bad}");
        }
    }
}
