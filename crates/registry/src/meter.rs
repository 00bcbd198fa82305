//! Owns how long work is shown to whoever waits for it: how far it is, and how long it may take.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::size::Size;

/// How often a terminal is told, and a log.
const TERMINAL_EVERY: Duration = Duration::from_millis(200);
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Shows progress on standard error: in place on a terminal, else a line now and then.
pub(crate) struct Meter {
    verb: &'static str,
    began: Instant,
    shown: Instant,
    is_terminal: bool,
    has_line: bool,
}

impl Meter {
    /// Begins; `verb` says what is done to the bytes.
    pub(crate) fn new(verb: &'static str) -> Self {
        let now = Instant::now();
        Self { verb, began: now, shown: now, is_terminal: io::stderr().is_terminal(), has_line: false }
    }

    /// Shows that `done` of `all` bytes are done, if it is time to.
    pub(crate) fn show(&mut self, done: u64, all: u64) {
        let every = if self.is_terminal { TERMINAL_EVERY } else { LOG_EVERY };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let left =
            estimate(self.began.elapsed(), done, all).map_or(String::new(), |left| format!(", {} left", span(left)));
        let line = format!("{} of {} {}{left}", Size(done), Size(all), self.verb);
        // Nobody reads it: no reason to stop the work.
        if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K{line}").ok();
            self.has_line = true;
        } else {
            writeln!(io::stderr(), "{line}").ok();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.has_line {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// How long the rest takes at the speed so far; nothing while that cannot be said.
pub(crate) fn estimate(took: Duration, done: u64, all: u64) -> Option<Duration> {
    if done == 0 || took < Duration::from_secs(2) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let share = all.saturating_sub(done) as f64 / done as f64;
    Duration::try_from_secs_f64(took.as_secs_f64() * share).ok()
}

/// A span of time for people.
pub(crate) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{estimate, span};

    #[test]
    fn for_people() {
        let check = |got: String, want: &str| assert_eq!(got, want);
        check(span(Duration::from_secs(119)), "119 s");
        check(span(Duration::from_secs(3600)), "60 min");
        check(span(Duration::from_secs(86_400)), "24 h");
        check(span(Duration::from_secs(30 * 86_400)), "30 days");
        let left = |took, done, all| estimate(Duration::from_secs(took), done, all);
        assert_eq!(left(1, 10, 20), None);
        assert_eq!(left(10, 0, 20), None);
        assert_eq!(left(10, 10, 30), Some(Duration::from_secs(20)));
    }
}
