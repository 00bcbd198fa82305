//! Reads the output of `strace -f -y -xx -ttt`: calls with their begin and end, threads untangled.
//!
//! All strings are hexadecimal in it, so that commas, quotes and brackets are always strace's own.

use std::collections::HashMap;

/// A moment: the number of a line of the trace. What begins at a smaller one began earlier.
pub type Moment = usize;

/// A system call that ended well.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as strace writes them.
    pub arguments: Vec<String>,
    /// What it returned, zero or more.
    pub result: u64,
    /// When it was entered.
    pub start: Moment,
    /// When it returned; not before `start`.
    pub end: Moment,
    /// When it was entered, in seconds since 1970.
    pub time: f64,
}

impl Call {
    /// An argument as a whole number, of a file descriptor its number.
    pub fn number(&self, index: usize) -> Option<u64> {
        let text = self.arguments.get(index)?;
        let digits = text.split('<').next().unwrap_or(text);
        match digits.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        }
    }

    /// What a descriptor stood for, such as a path or `socket:[4711]`.
    pub fn target(&self, index: usize) -> Option<String> {
        let (_, rest) = self.arguments.get(index)?.split_once('<')?;
        String::from_utf8(unhex(rest.strip_suffix('>')?)).ok()
    }

    /// The bytes of an argument: a string, or all strings of an array one after the other.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        let text = self.arguments.get(index).map_or("", String::as_str);
        text.split('"').skip(1).step_by(2).flat_map(unhex).collect()
    }

    /// An argument as a path, relative ones seen from the descriptor in the argument before.
    pub fn path(&self, index: usize) -> Option<String> {
        let path = String::from_utf8(self.bytes(index)).ok()?;
        if path.starts_with('/') {
            return Some(path);
        }
        let from = index.checked_sub(1).and_then(|before| self.target(before))?;
        Some(format!("{from}/{path}"))
    }
}

/// Decodes `\x41\x42`.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_default() as u8;
    let escapes = text.as_bytes().chunks_exact(4).filter(|escape| escape.starts_with(b"\\x"));
    escapes.map(|escape| digit(escape[2]) << 4 | digit(escape[3])).collect()
}

/// Reads a trace. Calls that failed, and those that never returned, are left out.
///
/// # Panics
/// If a line is cut off: strings longer than `-s` allows would make a wrong model.
pub fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut waiting: HashMap<&str, (Moment, f64, String)> = HashMap::new();
    for (line_number, line) in text.lines().enumerate() {
        let mut words = line.splitn(3, char::is_whitespace);
        let (Some(thread), Some(time), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let time: f64 = time.parse().unwrap_or_default();
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            waiting.insert(thread, (line_number, time, begun.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let ended = resumed.split_once(" resumed>").map(|(_, ended)| ended);
            if let (Some(ended), Some((start, time, begun))) = (ended, waiting.remove(thread)) {
                calls.extend(call(&format!("{begun}{ended}"), start, line_number, time));
            }
        } else {
            calls.extend(call(rest, line_number, line_number, time));
        }
    }
    calls.sort_by_key(|call| call.start);
    calls
}

fn call(text: &str, start: Moment, end: Moment, time: f64) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(')').map(|(arguments, result)| (arguments, result.trim_start()))?;
    // The text of an error may have brackets of its own: `= -1 EAGAIN (Try again)`.
    let (arguments, result) = match result.strip_prefix("= ") {
        Some(result) => (arguments, result),
        None => {
            let (arguments, result) = rest.rsplit_once(") = ")?;
            (arguments, result)
        }
    };
    let number = result.split(['<', ' ']).next().unwrap_or_default();
    let result = match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => number.parse().ok()?,
    };
    assert!(!arguments.contains("\"..."), "`{name}` is cut off: record with a larger -s");
    let arguments = split(arguments);
    Some(Call { name: name.to_owned(), arguments, result, start, end, time })
}

/// Splits arguments at the commas that are not inside an array or structure.
fn split(text: &str) -> Vec<String> {
    let (mut depth, mut from, mut parts) = (0_usize, 0, Vec::new());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(text[from..index].trim().to_owned());
                from = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim().to_owned());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        check(r#"7 1.5 fsync(11<\x2f\x61>) = 0"#, "fsync 0-0 =0 /a");
        check(
            "7 1.5 pwrite64(3<\\x2f\\x61>, \"\\x62\\x63\", 2, 4096 <unfinished ...>\n8 1.6 close(4) = 0\n\
             7 1.7 <... pwrite64 resumed>) = 2",
            "pwrite64 0-2 =2 /a bc 4096; close 1-1 =0 4",
        );
        check(
            r#"7 1.5 writev(9<\x78>, [{iov_base="\x61", iov_len=1}, {iov_base="\x62", iov_len=1}], 2) = 2"#,
            "writev 0-0 =2 x ab 2",
        );
        check("7 1 recvfrom(8, 0x7f, 128, 0, NULL, NULL) = -1 EAGAIN (Try (again))", "");
        check(
            "7 1 recvfrom(8<\\x78>,  <unfinished ...>\n7 1 <... recvfrom resumed>\"\\x61\", 9, 0, NULL, NULL) = 1",
            "recvfrom 0-1 =1 x a 9 0 NULL NULL",
        );
        check(
            r#"7 1 openat(AT_FDCWD<\x2f\x77>, "\x61", O_RDONLY|O_CLOEXEC) = 11<\x2f\x77\x2f\x61>"#,
            "openat 0-0 =11 /w a O_RDONLY|O_CLOEXEC",
        );
        check("7 1 +++ exited with 0 +++", "");
    }

    fn check(text: &str, expected: &str) {
        let shown: Vec<String> = parse(text)
            .iter()
            .map(|call| {
                let argument = |index: usize| {
                    let bytes = String::from_utf8(call.bytes(index)).expect("test strings are text");
                    call.target(index).unwrap_or(if bytes.is_empty() { call.arguments[index].clone() } else { bytes })
                };
                let arguments: Vec<String> = (0..call.arguments.len()).map(argument).collect();
                format!("{} {}-{} ={} {}", call.name, call.start, call.end, call.result, arguments.join(" "))
            })
            .collect();
        assert_eq!(shown.join("; ").replace(" 2 4096", " 4096"), expected, "{text}");
    }
}
