//! Owns byte ranges: what a reader asks for, and what an uploader says it sends.

/// A slice of a blob, `start` inclusive to `end` exclusive, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What to answer to a `Range` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole blob: no range, several ranges, or a unit or syntax that RFC 9110 says to ignore.
    Whole,
    /// One slice, `206`.
    Part(Slice),
    /// Nothing of it exists, `416`.
    Unsatisfiable,
}

/// Chooses what of `size` bytes a `Range` header asks for.
///
/// One range is served; a list of ranges is answered with the whole blob, which RFC 9110 §14.2
/// allows and which no registry client asks for.
pub fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Selection::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Selection::Whole;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    // A number too large for u64 lies beyond every blob.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    match (first.trim(), last.trim()) {
        ("", suffix) if digits(suffix) => match number(suffix).min(size) {
            0 => Selection::Unsatisfiable,
            length => Selection::Part(Slice { start: size - length, end: size }),
        },
        (first, "") if digits(first) => match number(first) {
            start if start < size => Selection::Part(Slice { start, end: size }),
            _ => Selection::Unsatisfiable,
        },
        (first, last) if digits(first) && digits(last) => {
            let (start, last) = (number(first), number(last));
            if last < start {
                Selection::Whole
            } else if start >= size {
                Selection::Unsatisfiable
            } else {
                Selection::Part(Slice { start, end: last.saturating_add(1).min(size) })
            }
        }
        _ => Selection::Whole,
    }
}

/// Parses the `Content-Range` of a chunk: `<first>-<last>`, both inclusive, as the distribution
/// spec has it; the form of RFC 9110, `bytes <first>-<last>/<size or *>`, is taken as well.
pub fn parse_content_range(header: &str) -> Option<Slice> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").map_or(text, |rest| rest.split('/').next().unwrap_or(rest));
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (start, last) = (number(first)?, number(last)?);
    (start <= last).then_some(Slice { start, end: last.checked_add(1)? })
}

#[cfg(test)]
mod tests {
    use super::{Selection, Slice, parse_content_range, select};

    #[test]
    fn selects() {
        let part = |start, end| Selection::Part(Slice { start, end });
        let check = |header: &str, size, want| assert_eq!(select(Some(header), size), want, "{header} of {size}");
        check("bytes=0-0", 10, part(0, 1));
        check("bytes=2-5", 10, part(2, 6));
        check("bytes=2-", 10, part(2, 10));
        check("bytes=-3", 10, part(7, 10));
        check("bytes=-30", 10, part(0, 10));
        check("bytes=5-99999999999999999999999", 10, part(5, 10));
        check("bytes=10-", 10, Selection::Unsatisfiable);
        check("bytes=10-12", 10, Selection::Unsatisfiable);
        check("bytes=-0", 10, Selection::Unsatisfiable);
        check("bytes=0-", 0, Selection::Unsatisfiable);
        for whole in ["bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=+1-2"] {
            check(whole, 10, Selection::Whole);
        }
        assert_eq!(select(None, 10), Selection::Whole);
    }

    #[test]
    fn content_ranges() {
        let check = |header: &str, want: Option<(u64, u64)>| {
            assert_eq!(parse_content_range(header), want.map(|(start, end)| Slice { start, end }), "{header}");
        };
        check("0-9", Some((0, 10)));
        check("bytes 10-19/*", Some((10, 20)));
        check("bytes 10-19/30", Some((10, 20)));
        for bad in ["", "-", "1-", "-1", "5-4", "a-b", "0-18446744073709551615", "+1-2", "bytes */5"] {
            check(bad, None);
        }
    }
}
