//! Owns how sizes look to people. Programs get bytes.

use std::fmt;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    /// As `512 B`, `9.8 GiB` or `120 MiB`: never more than it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let Some(exponent) = (1..=UNITS.len()).rev().find(|&exponent| self.0 >> (10 * exponent) > 0) else {
            return write!(f, "{} B", self.0);
        };
        let unit = 1_u64 << (10 * exponent);
        let (whole, tenths) = (self.0 / unit, u128::from(self.0 % unit) * 10 / u128::from(unit));
        let name = UNITS[exponent - 1];
        if tenths == 0 || whole >= 100 { write!(f, "{whole} {name}") } else { write!(f, "{whole}.{tenths} {name}") }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_short() {
        let check = |bytes: u64, text: &str| assert_eq!(Size(bytes).to_string(), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1 KiB");
        check(1536, "1.5 KiB");
        check((10 << 30) - 1, "9.9 GiB");
        check(10 << 30, "10 GiB");
        check((120 << 20) + 900_000, "120 MiB");
        check(u64::MAX, "15.9 EiB");
    }
}
