//! Owns the log: how an event becomes a line on standard output, and which events do.
//!
//! Each event is one line and one write. Nothing that a client sends can add a line, a field or a
//! terminal command. It does not rotate or ship logs; whoever started the process does that.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::BTreeMap,
    env,
    error::Error,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use time::OffsetDateTime;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::LookupSpan,
};

/// Longest value, in bytes, that a line shows; the rest of it is cut off, and marked with `…`.
const MAX_VALUE: usize = 8 * 1024;

/// Libraries whose view of the world below a warning is of no use to an operator.
const CHATTY: &[&str] = &["h2", "hyper", "hyper_util", "mio", "rustls", "tokio_rustls", "tower", "tower_http"];

/// What a log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-23T10:00:00.123Z INFO message key=value`, for people.
    Text,
    /// `{"time":…,"level":…,"msg":…,…}`, one object per line.
    Json,
    /// `{"@timestamp":…,"@version":"1","level":…,"message":…,…}`, one object per line.
    Logstash,
}

/// What to log and how.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The least important level that is logged.
    pub level: Level,
    /// `None` means text if standard output is a terminal, and JSON otherwise.
    pub format: Option<Format>,
    /// Added to the end of every line, unless the event has a field of the same name.
    pub fields: BTreeMap<String, String>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The process has a log already.
    #[error("set up logging: it was set up before")]
    AlreadySet,
}

/// Changes the log of the running process. Clones share it.
#[derive(Clone, Debug)]
pub struct LogHandle(Arc<AtomicU8>);

impl LogHandle {
    /// Sets the least important level that is logged from now on.
    pub fn set_level(&self, level: Level) {
        self.0.store(rank(level), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Starts logging to standard output, for the whole process, until it ends.
///
/// Colours are used on a terminal only, and not if `NO_COLOR` is set. Lines that cannot be written, because
/// standard output is closed, are lost without a word.
///
/// # Errors
/// It was called before.
pub fn init(options: &LogOptions) -> Result<LogHandle, TelemetryError> {
    let terminal = io::stdout().is_terminal();
    let format = options.format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let colours = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let level = Arc::new(AtomicU8::new(rank(options.level)));
    let lines = Lines {
        format,
        colours,
        level: Arc::clone(&level),
        fields: options.fields.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        write: |line: &[u8]| {
            // Standard output is line buffered: a line is passed on in one write, as it is.
            let _ = io::stdout().lock().write_all(line);
        },
    };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))
        .map_err(|_| TelemetryError::AlreadySet)?;
    // Callsites that were hit before now remember that nobody listened.
    tracing::callsite::rebuild_interest_cache();
    Ok(LogHandle(level))
}

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// The layer that writes a line for each event.
struct Lines<W> {
    format: Format,
    colours: bool,
    level: Arc<AtomicU8>,
    fields: Vec<(String, String)>,
    write: W,
}

/// The fields of a span, kept for the events inside it.
#[derive(Default)]
struct SpanFields(Vec<(&'static str, String)>);

impl Visit for SpanFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.retain(|(name, _)| *name != field.name());
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + 'static,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.logs(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.logs(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level.load(Ordering::Relaxed) {
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = SpanFields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        thread_local!(static BUFFER: Cell<String> = const { Cell::new(String::new()) });
        // Taken, not borrowed: formatting a value may itself log. At the end of a thread there is none to take.
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        buffer.clear();

        let mut line = Line::start(self, buffer, *event.metadata().level(), OffsetDateTime::now_utc());
        event.record(&mut OnlyMessage(&mut line));
        line.end_head();
        event.record(&mut AllButMessage(&mut line));
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                for &(key, ref value) in fields {
                    line.field(key, Value::Text(value));
                }
            }
        }
        for (key, value) in &self.fields {
            line.field(key, Value::Text(value));
        }
        let mut buffer = line.finish();
        (self.write)(buffer.as_bytes());

        buffer.shrink_to(4 * MAX_VALUE);
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
}

impl<W> Lines<W> {
    fn logs(&self, metadata: &Metadata<'_>) -> bool {
        let level = rank(*metadata.level());
        let library = metadata.target().split("::").next().unwrap_or_default();
        level <= self.level.load(Ordering::Relaxed) && (level <= rank(Level::WARN) || !CHATTY.contains(&library))
    }
}

/// A value as the event gave it.
enum Value<'a> {
    Text(&'a str),
    Shown(&'a dyn fmt::Debug),
    /// Already a JSON number or `true` or `false`.
    Bare(fmt::Arguments<'a>),
}

/// A line in the making: head, message, then fields in the order of precedence.
struct Line<'a> {
    format: Format,
    colours: bool,
    out: String,
    scratch: String,
    /// The keys written so far; a later field of the same name is left out.
    keys: Vec<Cow<'a, str>>,
    message: bool,
}

impl<'a> Line<'a> {
    fn start<W>(lines: &'a Lines<W>, out: String, level: Level, now: OffsetDateTime) -> Self {
        let mut line = Line {
            format: lines.format,
            colours: lines.colours,
            out,
            scratch: String::new(),
            keys: Vec::with_capacity(16),
            message: false,
        };
        let mut time = String::with_capacity(24);
        let (date, clock) = (now.date(), now.time());
        let _ = write!(
            time,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        );
        // The machine-readable names are those that readers of the original's logs filter by.
        let (upper, lower, colour) = match level {
            Level::ERROR => ("ERROR", "error", "31"),
            Level::WARN => ("WARN", "warning", "33"),
            Level::INFO => ("INFO", "info", "32"),
            Level::DEBUG => ("DEBUG", "debug", "34"),
            Level::TRACE => ("TRACE", "trace", "35"),
        };
        let _ = match line.format {
            Format::Text if line.colours => write!(line.out, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{upper}\x1b[0m"),
            Format::Text => write!(line.out, "{time} {upper}"),
            Format::Json => write!(line.out, r#"{{"time":"{time}","level":"{lower}","msg":""#),
            Format::Logstash => {
                write!(line.out, r#"{{"@timestamp":"{time}","@version":"1","level":"{lower}","message":""#)
            }
        };
        line
    }

    fn message(&mut self, message: &dyn fmt::Debug) {
        if self.message {
            return;
        }
        self.message = true;
        self.show(message);
        if self.format == Format::Text {
            self.out.push(' ');
            escape_text(&mut self.out, &self.scratch, false);
        } else {
            escape_json(&mut self.out, &self.scratch);
        }
    }

    fn end_head(&mut self) {
        if self.format != Format::Text {
            self.out.push('"');
        }
    }

    fn field(&mut self, key: &'a str, value: Value<'_>) {
        let reserved: &[&str] = match self.format {
            Format::Text => &[],
            Format::Json => &["time", "level", "msg"],
            Format::Logstash => &["@timestamp", "@version", "level", "message"],
        };
        let key = key.strip_prefix("r#").unwrap_or(key);
        let key = if reserved.contains(&key) { Cow::Owned(format!("fields.{key}")) } else { Cow::Borrowed(key) };
        if self.keys.contains(&key) {
            return;
        }
        let plain = match value {
            Value::Bare(number) => {
                self.show(&number);
                true
            }
            Value::Shown(shown) => {
                self.show(shown);
                false
            }
            Value::Text(text) => {
                self.show(&format_args!("{text}"));
                false
            }
        };
        match self.format {
            Format::Text => {
                let (dim, reset) = if self.colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
                let _ = write!(self.out, " {dim}");
                escape_text(&mut self.out, &key, needs_quotes(&key));
                let _ = write!(self.out, "={reset}");
                escape_text(&mut self.out, &self.scratch, needs_quotes(&self.scratch));
            }
            Format::Json | Format::Logstash => {
                self.out.push_str(",\"");
                escape_json(&mut self.out, &key);
                self.out.push_str("\":");
                if plain {
                    self.out.push_str(&self.scratch);
                } else {
                    self.out.push('"');
                    escape_json(&mut self.out, &self.scratch);
                    self.out.push('"');
                }
            }
        }
        self.keys.push(key);
    }

    /// Puts a value's text into the scratch buffer, as much of it as a line may show.
    fn show(&mut self, value: &dyn fmt::Debug) {
        self.scratch.clear();
        if write!(Limited(&mut self.scratch), "{value:?}").is_err() {
            self.scratch.push('…');
        }
    }

    fn finish(mut self) -> String {
        self.out.push_str(if self.format == Format::Text { "\n" } else { "}\n" });
        self.out
    }
}

/// Refuses more than [`MAX_VALUE`] bytes.
struct Limited<'a>(&'a mut String);

impl fmt::Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_VALUE.saturating_sub(self.0.len());
        let fits = text.len() <= room;
        let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        if fits { Ok(()) } else { Err(fmt::Error) }
    }
}

struct OnlyMessage<'l, 'a>(&'l mut Line<'a>);

impl Visit for OnlyMessage<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.message(value);
        }
    }
}

struct AllButMessage<'l, 'a>(&'l mut Line<'a>);

impl AllButMessage<'_, '_> {
    fn field(&mut self, field: &Field, value: Value<'_>) {
        if field.name() != "message" {
            self.0.field(field.name(), value);
        }
    }
}

impl Visit for AllButMessage<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, Value::Text(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, Value::Shown(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, Value::Bare(format_args!("{value}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, Value::Bare(format_args!("{value}")));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, Value::Bare(format_args!("{value}")));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.field(field, Value::Bare(format_args!("{value}")));
        } else {
            self.field(field, Value::Shown(&value));
        }
    }

    /// Shows an error with its causes, `outer: inner: innermost`.
    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.field(field, Value::Text(&text));
    }
}

/// Characters that a terminal or a reader takes for something else than text: controls, line separators, and marks
/// that change the direction of writing.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.chars().any(|c| c.is_whitespace() || matches!(c, '"' | '=' | '\\') || is_unsafe(c))
}

fn escape_text(out: &mut String, text: &str, quoted: bool) {
    if quoted {
        out.push('"');
    }
    for c in text.chars() {
        match c {
            '"' | '\\' if quoted => out.extend(['\\', c]),
            _ if is_unsafe(c) => out.extend(c.escape_default()),
            _ => out.push(c),
        }
    }
    if quoted {
        out.push('"');
    }
}

fn escape_json(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of these have four digits at most.
            _ if is_unsafe(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        sync::Mutex,
    };

    use serde_json::{Value as Json, json};
    use tracing::{debug, error, info, info_span, subscriber::with_default, warn};

    use super::*;

    /// Runs the code and returns what it wrote, one entry per write.
    fn writes(format: Format, level: Level, fields: &[(&str, &str)], log: impl FnOnce(LogHandle)) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let handle = LogHandle(Arc::new(AtomicU8::new(rank(level))));
        let lines = Lines {
            format,
            colours: false,
            level: Arc::clone(&handle.0),
            fields: fields.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            write: {
                let written = Arc::clone(&written);
                move |line: &[u8]| written.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap())
            },
        };
        with_default(tracing_subscriber::registry().with(lines), || log(handle));
        let written = written.lock().unwrap().clone();
        for write in &written {
            assert_eq!(write.matches('\n').count(), 1, "{write:?}");
            assert!(write.ends_with('\n'), "{write:?}");
        }
        written
    }

    /// Checks one event in all formats: the text after the time, and the JSON object without the time.
    fn check(fields: &[(&str, &str)], log: impl Fn(), text: &str, json: Json) {
        let is_time = |time: &str| {
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        };
        let [line] = &writes(Format::Text, Level::INFO, fields, |_| log())[..] else { panic!("one line") };
        let (time, rest) = line.split_once(' ').unwrap();
        is_time(time);
        assert_eq!(rest, format!("{text}\n"));

        let [line] = &writes(Format::Json, Level::INFO, fields, |_| log())[..] else { panic!("one line") };
        let mut object: serde_json::Map<String, Json> = serde_json::from_str(line).unwrap();
        assert_eq!(object.len(), line.matches("\":").count(), "no key twice: {line}");
        is_time(object.remove("time").unwrap().as_str().unwrap());
        assert_eq!(Json::Object(object.clone()), json);

        let [line] = &writes(Format::Logstash, Level::INFO, fields, |_| log())[..] else { panic!("one line") };
        let mut other: serde_json::Map<String, Json> = serde_json::from_str(line).unwrap();
        is_time(other.remove("@timestamp").unwrap().as_str().unwrap());
        assert_eq!(other.remove("@version"), Some(json!("1")));
        assert_eq!(other.remove("message"), object.remove("msg"));
        assert_eq!(other.remove("level"), object.remove("level"));
    }

    #[test]
    fn events_become_lines() {
        check(&[], || info!("listening"), "INFO listening", json!({"level": "info", "msg": "listening"}));
        check(
            &[],
            || warn!(port = 5000, ok = true, ratio = 0.5, name = "a b", path = %"/x", "a {}", "message"),
            r#"WARN a message port=5000 ok=true ratio=0.5 name="a b" path=/x"#,
            json!({"level": "warning", "msg": "a message", "port": 5000, "ok": true, "ratio": 0.5, "name": "a b",
                   "path": "/x"}),
        );
        check(
            &[],
            || info!(target: "access", empty = "", not = f64::NAN, big = u64::MAX, minus = -1),
            r#"INFO empty="" not=NaN big=18446744073709551615 minus=-1"#,
            json!({"level": "info", "msg": "", "empty": "", "not": "NaN", "big": u64::MAX, "minus": -1}),
        );
    }

    #[test]
    fn no_value_forges_a_line() {
        check(
            &[],
            || info!(agent = "x\" y=\"z\n\x1b[31m", shown = ?"q", "first\nsecond\x1b[0m\u{202e}"),
            r#"INFO first\nsecond\u{1b}[0m\u{202e} agent="x\" y=\"z\n\u{1b}[31m" shown="\"q\"""#,
            json!({"level": "info", "msg": "first\nsecond\u{1b}[0m\u{202e}", "agent": "x\" y=\"z\n\u{1b}[31m",
                   "shown": "\"q\""}),
        );
        check(
            &[("a key", "v"), ("e\"vil\n", "w")],
            || info!("m"),
            r#"INFO m "a key"=v "e\"vil\n"=w"#,
            json!({"level": "info", "msg": "m", "a key": "v", "e\"vil\n": "w"}),
        );
    }

    #[test]
    fn nearest_field_wins_and_the_head_is_kept() {
        let nested = || {
            let _outer = info_span!("outer", id = 1, place = "outer").entered();
            let _inner = info_span!("inner", id = 2, late = tracing::field::Empty).entered();
            tracing::Span::current().record("late", "yes");
            info!(own = true, msg = "mine", "m");
        };
        check(
            &[("environment", "test"), ("id", "3"), ("time", "never")],
            nested,
            "INFO m own=true msg=mine id=2 late=yes place=outer environment=test time=never",
            json!({"level": "info", "msg": "m", "own": true, "fields.msg": "mine", "id": "2", "late": "yes",
                   "place": "outer", "environment": "test", "fields.time": "never"}),
        );
    }

    #[test]
    fn errors_are_shown_with_their_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("read the file")]
        struct Outer(#[source] io::Error);
        let outer = Outer(io::Error::other("disk on fire"));
        check(
            &[],
            || error!(error = &outer as &(dyn Error + 'static), "failed"),
            r#"ERROR failed error="read the file: disk on fire""#,
            json!({"level": "error", "msg": "failed", "error": "read the file: disk on fire"}),
        );
    }

    #[test]
    fn long_values_are_cut() {
        let long = "é".repeat(MAX_VALUE);
        let lines = writes(Format::Json, Level::INFO, &[], |_| info!(long, "m"));
        let object: Json = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(object["long"], json!("é".repeat(MAX_VALUE / 2) + "…"));
    }

    #[test]
    fn level_can_change_and_libraries_are_quiet() {
        let lines = writes(Format::Text, Level::WARN, &[], |handle| {
            for level in [Level::WARN, Level::TRACE, Level::ERROR] {
                handle.set_level(level);
                debug!("ours {level}");
                debug!(target: "hyper::proto", "theirs {level}");
                warn!(target: "rustls::conn", "their warning {level}");
                debug!(target: "hyperspace", "not theirs {level}");
            }
        });
        let said: Vec<&str> = lines.iter().map(|line| line.trim_end().splitn(3, ' ').last().unwrap()).collect();
        assert_eq!(said, ["their warning WARN", "ours TRACE", "their warning TRACE", "not theirs TRACE"]);
    }

    #[test]
    fn formatting_may_log() {
        struct Talker;
        impl fmt::Display for Talker {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                info!("from inside");
                f.write_str("talker")
            }
        }
        let lines = writes(Format::Text, Level::INFO, &[], |_| info!(who = %Talker, "outside"));
        assert!(lines.last().unwrap().ends_with("INFO outside who=talker\n"), "{lines:?}");
    }

    /// Not a test of its own: the process that `standard_output_gets_the_log` looks at.
    #[test]
    fn child() {
        if env::var_os("TELEMETRY_TEST_CHILD").is_none() {
            return;
        }
        let options = LogOptions { level: Level::INFO, format: None, fields: BTreeMap::new() };
        let handle = init(&options).unwrap();
        assert!(matches!(init(&options), Err(TelemetryError::AlreadySet)));
        info!("shown");
        debug!("hidden");
        handle.set_level(Level::DEBUG);
        debug!("shown later");
    }

    #[test]
    fn standard_output_gets_the_log() {
        let child = |stdout: Stdio| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "telemetry::tests::child", "--nocapture"]).env("TELEMETRY_TEST_CHILD", "1");
            command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).output().unwrap()
        };
        let output = String::from_utf8(child(Stdio::piped()).stdout).unwrap();
        let said: Vec<Json> = output
            .lines()
            .filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok())
            .map(|object: Json| object["msg"].clone())
            .collect();
        assert_eq!(said, ["shown", "shown later"], "{output}");

        // Nobody reads: the log must not be what ends the process.
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let errors = String::from_utf8(child(writer.into()).stderr).unwrap();
        assert!(!errors.contains("telemetry.rs"), "{errors}");
    }
}
