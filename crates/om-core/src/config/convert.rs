//! Owns what the values of keywords mean: booleans, numbers, sizes, durations, lists, words. Pure; an error is a
//! sentence with a cure.

use std::time::Duration;

/// What is wrong with a value, and the cure.
pub type Wrong = (String, &'static str);

/// `yes`, `true`, `t`, `y`, `1` and their opposites, in any case.
///
/// # Errors
/// For every other word.
pub fn boolean(text: &str) -> Result<bool, Wrong> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" | "y" | "true" | "t" | "1" => Ok(true),
        "no" | "n" | "false" | "f" | "0" | "none" => Ok(false),
        _ => Err((format!("`{text}` is neither true nor false"), "write true or false")),
    }
}

/// A whole number, not negative.
///
/// # Errors
/// If it is none, or larger than `most`.
pub fn integer(text: &str, most: u64) -> Result<u64, Wrong> {
    match text.trim().parse() {
        Ok(number) if number <= most => Ok(number),
        Ok(_) => Err((format!("`{text}` is more than {most}"), "write a smaller number")),
        Err(_) => Err((format!("`{text}` is no whole number"), "write digits only")),
    }
}

/// A number of bytes: digits, perhaps with a fraction, and a unit of which the first letter counts: `k`, `m`, `g`,
/// `t`, `p`, in any case. All units are powers of 1024, `10g`, `10GB` and `10GiB` alike.
///
/// # Errors
/// If it is none, zero, or more than 2^60.
pub fn size(text: &str) -> Result<u64, Wrong> {
    const HINT: &str = "write a number and a unit, such as 500m, 10g or 1.5t";
    let wrong = || (format!("`{text}` is no size"), HINT);
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim().to_ascii_lowercase());
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    if fraction.len() > 9 || number.ends_with('.') {
        return Err(wrong());
    }
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let bytes = whole.checked_mul(1 << shift).ok_or_else(wrong)? + part * (1 << shift) / scale;
    match u64::try_from(bytes) {
        Ok(0) => Err((format!("`{text}` is nothing"), HINT)),
        Ok(bytes) if bytes <= 1 << 60 => Ok(bytes),
        _ => Err((format!("`{text}` is more than there can be"), HINT)),
    }
}

/// Bytes as a configuration says them: the largest unit that divides them.
pub fn size_text(bytes: u64) -> String {
    let units = ["p", "t", "g", "m", "k"];
    let shifts = [50, 40, 30, 20, 10];
    let fits = units.into_iter().zip(shifts).find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// Bytes for people: `10.0 GiB`.
pub fn size_shown(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A time: `1w2d3h4m5s` in any part; digits alone are seconds.
///
/// # Errors
/// If it is none, or longer than a hundred years.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    const HINT: &str = "write seconds, or a number with a unit, such as 30s, 5m or 1h30m";
    const MOST: u64 = 100 * 366 * 86_400;
    let wrong = || (format!("`{text}` is no duration"), HINT);
    let trimmed = text.trim().to_ascii_lowercase();
    let mut total: u64 = 0;
    let mut digits = String::new();
    let (mut last, mut parts) = (u64::MAX, 0);
    for c in trimmed.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'w' => 604_800,
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        // Each unit once, the larger ones first: `5m5m` and `5s1h` are slips.
        if unit >= last {
            return Err(wrong());
        }
        last = unit;
        parts += 1;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if !digits.is_empty() {
        if parts > 0 {
            return Err(wrong());
        }
        total = digits.parse().map_err(|_| wrong())?;
    } else if parts == 0 {
        return Err(wrong());
    }
    if total > MOST { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// Words between blanks.
pub fn list(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Words as a shell splits them: blanks part them, quotes and backslashes keep them together. Nothing is expanded.
///
/// # Errors
/// If a quote is not closed, or a backslash ends the text.
pub fn words(text: &str) -> Result<Vec<String>, Wrong> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err((format!("a ' is not closed in `{text}`"), "write another '")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err((format!("a \" is not closed in `{text}`"), "write another \"")),
                        },
                        Some(c) => word.push(c),
                        None => return Err((format!("a \" is not closed in `{text}`"), "write another \"")),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err((format!("a backslash ends `{text}`"), "remove it, or write \\\\")),
            },
            c if c.is_whitespace() => all.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: Debug>(convert: impl Fn(&str) -> Result<T, Wrong>, text: &str, expected: &str) {
        let got = convert(text).map_or_else(|(what, _)| format!("error: {what}"), |value| format!("{value:?}"));
        assert!(got.starts_with(expected), "{text:?}: {got}");
    }

    #[test]
    fn booleans() {
        for text in ["yes", "Y", "TRUE", "t", "1"] {
            check(boolean, text, "true");
        }
        for text in ["no", "N", "False", "f", "0", "none"] {
            check(boolean, text, "false");
        }
        check(boolean, "maybe", "error: `maybe` is neither");
    }

    #[test]
    fn sizes() {
        check(size, "10g", "10737418240");
        check(size, "10GB", "10737418240");
        check(size, "10GiB", "10737418240");
        check(size, "512", "512");
        check(size, "1.5k", "1536");
        check(size, ".5m", "524288");
        check(size, "2 t", "2199023255552");
        for text in ["", "g", "10x", "-1", "1.", "1.2.3", "10gg", "1e3", "."] {
            check(size, text, "error:");
        }
        check(size, "0g", "error: `0g` is nothing");
        check(size, "99999999999999999999999p", "error:");
        check(size, "2048p", "error: `2048p` is more");
        for text in ["10g", "3m", "1t", "1k", "7"] {
            assert_eq!(size(text).map(size_text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn durations() {
        let seconds = |text: &str| duration(text).map(|d| d.as_secs());
        check(seconds, "90", "90");
        check(seconds, "1h30m", "5400");
        check(seconds, "1w2d3h4m5s", "788645");
        check(seconds, "0", "0");
        for text in ["", "m", "1h30", "5s1h", "5m5m", "1y", "-5s", "99999999999999999999", "9999999w"] {
            check(seconds, text, "error: ");
        }
    }

    #[test]
    fn numbers() {
        check(|text| integer(text, 100), "42", "42");
        check(|text| integer(text, 100), "101", "error: `101` is more than 100");
        check(|text| integer(text, 100), "1.9", "error: `1.9` is no whole");
    }

    #[test]
    fn words_as_a_shell_splits_them() {
        check(words, "a  b\nc", "[\"a\", \"b\", \"c\"]");
        check(words, "'a b' \"c \\\" d\" e\\ f ''", "[\"a b\", \"c \\\" d\", \"e f\", \"\"]");
        check(words, "--x='y z'", "[\"--x=y z\"]");
        check(words, "", "[]");
        check(words, "'a", "error: a ' is not closed");
        check(words, "\"a", "error: a \" is not closed");
        check(words, "a\\", "error: a backslash");
    }
}
