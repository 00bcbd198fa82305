//! What a scalar means: booleans, integers, durations and sizes, read as the original's YAML library reads them.
//!
//! Owns no message and no key; callers say what was expected.

use std::time::Duration;

use super::tree::Scalar;

/// `true`/`false`, `yes`/`no`, `on`/`off`, `y`/`n` in the three usual spellings; quoted words are text.
pub(crate) fn flag(scalar: &Scalar) -> Option<bool> {
    match scalar.text.as_str() {
        _ if !scalar.plain => None,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A plain integer: decimal, `0x`, `0o`, `0b`, a leading `0` for octal, `_` between digits.
pub(crate) fn int(scalar: &Scalar) -> Option<i64> {
    if !scalar.plain {
        return None;
    }
    let text = scalar.text.replace('_', "");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

/// A time span as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// With a unit, or zero.
    Unit(Duration),
    /// A bare integer, which the original reads as nanoseconds.
    Bare(Duration),
    /// Below zero.
    Negative,
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `300ms`; units `ns us µs ms s m h`.
/// `None` if it is none, or longer than Go can hold (about 292 years).
pub(crate) fn span(scalar: &Scalar) -> Option<Span> {
    if let Some(nanos) = int(scalar) {
        return Some(match u64::try_from(nanos) {
            Ok(0) => Span::Unit(Duration::ZERO),
            Ok(nanos) => Span::Bare(Duration::from_nanos(nanos)),
            Err(_) => Span::Negative,
        });
    }
    let text = scalar.text.as_str();
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Span::Unit(Duration::ZERO));
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, next) = after.split_at(end);
        let unit: u128 = match name {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if whole.len() > 19 {
            return None;
        }
        total += whole.parse::<u128>().unwrap_or(0) * unit;
        // Digits beyond the eighteenth are below a nanosecond whatever the unit.
        let fraction = &fraction[..fraction.len().min(18)];
        let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        total += fraction.parse::<u128>().unwrap_or(0) * unit / scale;
        if total > i64::MAX as u128 {
            return None;
        }
        rest = next;
    }
    match u64::try_from(total) {
        Ok(0) => Some(Span::Unit(Duration::ZERO)),
        Ok(_) if negative => Some(Span::Negative),
        Ok(nanos) => Some(Span::Unit(Duration::from_nanos(nanos))),
        Err(_) => None,
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A size in bytes: a bare number, or one with `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`, `GB` or `TB`.
pub(crate) fn size(scalar: &Scalar) -> Option<u64> {
    let (number, unit) = digits(scalar.text.trim());
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.into(), plain: true }
    }

    #[test]
    fn durations() {
        let check = |text: &str, nanos: Option<i128>| {
            let seen = span(&plain(text)).map(|span| match span {
                Span::Unit(d) => i128::try_from(d.as_nanos()).expect("small"),
                Span::Bare(d) => 1_000_000_000_000_000_000_000 + i128::try_from(d.as_nanos()).expect("small"),
                Span::Negative => -1,
            });
            assert_eq!(seen, nanos, "{text}");
        };
        check("0", Some(0));
        check("0s", Some(0));
        check("10s", Some(10_000_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("168h", Some(604_800_000_000_000));
        check("1.5s", Some(1_500_000_000));
        check(".5m", Some(30_000_000_000));
        check("5.s", Some(5_000_000_000));
        check("1us1\u{b5}s", Some(2_000));
        check("60", Some(1_000_000_000_000_000_000_060));
        check("-3s", Some(-1));
        check("-3", Some(-1));
        for bad in ["", "s", "10 s", "1d", "1h30", ".s", "1.2.3s", "9999999999h", "1e3s", "+", "-"] {
            check(bad, None);
        }
    }

    #[test]
    fn quoted_numbers_are_text() {
        let quoted = |text: &str| Scalar { text: text.into(), plain: false };
        assert_eq!(flag(&quoted("true")), None);
        assert_eq!(int(&quoted("3")), None);
        assert_eq!(span(&quoted("3")), None);
        assert_eq!(span(&quoted("3s")), Some(Span::Unit(Duration::from_secs(3))));
        assert_eq!(flag(&plain("Yes")), Some(true));
        assert_eq!(flag(&plain("off")), Some(false));
        assert_eq!(flag(&plain("1")), None);
    }

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0", Some(0)),
            ("1_000", Some(1000)),
            ("-7", Some(-7)),
            ("0x1F", Some(31)),
            ("010", Some(8)),
            ("0o10", Some(8)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("0x-1", None),
            ("1.5", None),
            ("ten", None),
        ] {
            assert_eq!(int(&plain(text)), value, "{text}");
        }
        for (text, value) in [
            ("4194304", Some(4 << 20)),
            ("4MiB", Some(4 << 20)),
            ("64 kib", Some(64 << 10)),
            ("1MB", Some(1_000_000)),
            ("2TiB", Some(2 << 40)),
            ("2tb", Some(2_000_000_000_000)),
            ("MiB", None),
            ("-1", None),
            ("4M", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size(&plain(text)), value, "{text}");
        }
    }
}
