//! Turns rounds into Markdown and JSON: medians and ranges, ratios of neighbouring rounds, and verdicts.
//!
//! Only ratios within a round are compared, because two rounds on a shared machine may differ by a factor of two.

pub(crate) mod access;

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::drive::Sample;
use super::scenarios::{Fixture, Scenario};
use super::server::{Footprint, Kind};

/// Most that a median may grow with what the store holds and still count as flat.
const FLAT: f64 = 1.5;
/// Floors for resident memory in MB: just started on an empty store, and at any time in any scenario.
const READY_MEMORY: f64 = 12.0;
const PEAK_MEMORY: f64 = 35.0;

/// One round on one server, reduced to its figures.
pub(crate) struct Figures {
    operations: usize,
    /// Operations per second.
    rate: f64,
    p50: f64,
    p99: f64,
    cpu_ms: f64,
    /// Share of the time that the client's one thread was busy, 0 to 1.
    client: f64,
    ready_memory: Option<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// What one server did in one scenario.
pub(crate) struct Column {
    pub(crate) kind: Kind,
    pub(crate) rounds: Vec<Figures>,
    /// Resident bytes when it first answered, before the scenario's fixture was laid down.
    pub(crate) ready_memory: u64,
    pub(crate) footprint: Footprint,
}

/// One scenario with all its servers.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) columns: Vec<Column>,
    /// Servers that do not support it.
    pub(crate) unsupported: Vec<Kind>,
    /// Requests without rights that were tried before, and refused.
    pub(crate) refusals: u64,
    pub(crate) failure: Option<String>,
}

impl From<Sample> for Figures {
    fn from(sample: Sample) -> Self {
        Self {
            operations: sample.latencies.len(),
            rate: sample.rate(),
            p50: sample.quantile_ms(0.5),
            p99: sample.quantile_ms(0.99),
            cpu_ms: sample.cpu_ms(),
            client: sample.client_cpu / sample.seconds.max(1e-9),
            ready_memory: sample.ready_memory,
            errors: sample.errors,
            first_error: sample.first_error,
        }
    }
}

/// Median with the least and the greatest value.
#[derive(Clone, Copy)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    /// `None` without values or if one is not a number (a division by a CPU time too short to be seen).
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let spread = Self { low: values[0], median, high: values[values.len() - 1] };
        (spread.low.is_finite() && spread.high.is_finite()).then_some(spread)
    }

    fn divided_by(self, by: f64) -> Self {
        Self { low: self.low / by, median: self.median / by, high: self.high / by }
    }

    fn text(self) -> String {
        let Self { low, median, high } = self;
        format!("{} ({}-{})", short(median), short(low), short(high))
    }
}

impl Row {
    /// A row without figures yet.
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self { scenario, columns: Vec::new(), unsupported: Vec::new(), refusals: 0, failure: None }
    }

    fn column(&self, kind: Kind) -> Option<&Column> {
        self.columns.iter().find(|column| column.kind == kind)
    }

    fn median(&self, kind: Kind, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        Some(Spread::of(self.column(kind)?.rounds.iter().map(figure))?.median)
    }

    /// Ours divided by another's, round by round.
    fn ratio(&self, other: Kind, figure: impl Fn(&Figures) -> f64) -> Option<Spread> {
        self.ratio_of(Kind::Ours, other, figure)
    }

    /// One's divided by another's, round by round.
    fn ratio_of(&self, one: Kind, other: Kind, figure: impl Fn(&Figures) -> f64) -> Option<Spread> {
        let (one, other) = (self.column(one)?, self.column(other)?);
        Spread::of(one.rounds.iter().zip(&other.rounds).map(|(one, other)| figure(one) / figure(other)))
    }

    /// The rate in the unit of the scenario.
    fn rate(&self, kind: Kind) -> String {
        let Some(rate) = self.median(kind, |figures| figures.rate) else {
            return if self.unsupported.contains(&kind) { "404".to_owned() } else { "-".to_owned() };
        };
        let busy = self.median(kind, |figures| figures.client).is_some_and(|share| share > 0.9);
        let text = match self.scenario.bytes {
            Some(bytes) => format!("{} MB/s", short(rate * bytes as f64 / 1e6)),
            None => format!("{}/s", short(rate)),
        };
        if busy { format!("{text} †") } else { text }
    }
}

/// The whole result as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    measured(&mut text, rows);
    limits(&mut text, rows);
    memory(&mut text, rows);
    floors(&mut text, rows);
    failures(&mut text, rows);
    text
}

fn measured(text: &mut String, rows: &[Row]) {
    *text += "\n### Ours and Docker Registry 2.8 (v2)\n\nRates and latencies are medians over rounds; ratios are medians of \
              the rounds' own ratios, with their range. Latency in ms, CPU in server ms per operation. †: the client \
              was more than 90 % busy.\n\n\
              | scenario | ours | v2 | ours/v2 | ours p50 / p99 | v2 p50 / p99 | ours CPU | v2 CPU | CPU ours/v2 | \
              ours threads |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let latency = |kind| {
            let quantiles = row.median(kind, |f| f.p50).zip(row.median(kind, |f| f.p99));
            quantiles.map_or("-".to_owned(), |(p50, p99)| format!("{} / {}", short(p50), short(p99)))
        };
        let cpu = |kind| row.median(kind, |f| f.cpu_ms).map_or("-".to_owned(), short);
        let ratio = |spread: Option<Spread>| spread.map_or("-".to_owned(), Spread::text);
        let threads = row
            .column(Kind::Ours)
            .map(|ours| ours.footprint.threads)
            .filter(|&threads| threads > 0)
            .map_or("-".to_owned(), |threads| threads.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {threads} |",
            row.scenario.name,
            row.rate(Kind::Ours),
            row.rate(Kind::V2),
            ratio(row.ratio(Kind::V2, |f| f.rate)),
            latency(Kind::Ours),
            latency(Kind::V2),
            cpu(Kind::Ours),
            cpu(Kind::V2),
            ratio(row.ratio(Kind::V2, |f| f.cpu_ms)),
        );
    }
}

fn limits(text: &mut String, rows: &[Row]) {
    if rows.iter().all(|row| row.column(Kind::Nginx).is_none()) {
        return;
    }
    *text += "\n### The limit for reads: nginx\n\nOne process, sendfile, static files of the same size, the same client, \
              in the same rounds.\n\n| scenario | files | nginx | ours/nginx | nginx CPU | CPU ours/nginx |\n\
              |---|---|---|---|---|---|\n";
    for row in rows {
        let Some((files, _)) = row.scenario.limit else {
            continue;
        };
        let ratio = |spread: Option<Spread>| spread.map_or("-".to_owned(), Spread::text);
        let _ = writeln!(
            text,
            "| {} | {files} | {} | {} | {} | {} |",
            row.scenario.name,
            row.rate(Kind::Nginx),
            ratio(row.ratio(Kind::Nginx, |f| f.rate)),
            row.median(Kind::Nginx, |f| f.cpu_ms).map_or("-".to_owned(), short),
            ratio(row.ratio(Kind::Nginx, |f| f.cpu_ms)),
        );
    }
}

fn memory(text: &mut String, rows: &[Row]) {
    *text += "\n### Memory, MB resident\n\n| scenario | ours ready | ours peak | v2 ready | v2 peak |\n|---|---|---|---|---|\n";
    for row in rows {
        let figures = |kind| {
            row.column(kind).map_or("- | -".to_owned(), |column| {
                let own = column.rounds.iter().filter_map(|f| f.ready_memory).max();
                let peak = column.footprint.peak;
                let peak = if peak == 0 { "-".to_owned() } else { megabytes(peak) };
                format!("{} | {peak}", megabytes(own.unwrap_or(column.ready_memory)))
            })
        };
        let _ = writeln!(text, "| {} | {} | {} |", row.scenario.name, figures(Kind::Ours), figures(Kind::V2));
    }
}

fn floors(text: &mut String, rows: &[Row]) {
    *text += "\n### Against the floors\n\nv3 is CNCF Distribution 3.1.1; it does not run here. *vs v3 (from table)* is our ratio \
              to v2, divided by the ratio of v3 to v2 that was measured once on such a machine: an estimate. *met*: in \
              every round; *met by median*: not in every one.\n\n\
              | scenario | what | floor | ours | verdict |\n|---|---|---|---|---|\n";
    for row in rows {
        for judged in judge(row, rows) {
            let _ = writeln!(text, "| {} | {judged} |", row.scenario.name);
        }
    }
    let ours = || rows.iter().filter_map(|row| row.column(Kind::Ours));
    let ready = Spread::of(ours().map(|column| column.ready_memory as f64 / 1e6));
    let peak = ours().map(|column| column.footprint.peak).max().filter(|&peak| peak > 0);
    let peak = Spread::of(peak.map(|peak| peak as f64 / 1e6).into_iter());
    let _ = writeln!(text, "| all | {} |", at_most("resident MB, ready", READY_MEMORY, ready));
    let _ = writeln!(text, "| all | {} |", at_most("resident MB, highest peak", PEAK_MEMORY, peak));
}

/// The verdicts on one row, each as four cells.
fn judge(row: &Row, rows: &[Row]) -> Vec<String> {
    let Scenario { floor, v3, .. } = &row.scenario;
    let mut cells = Vec::new();
    if let Some(least) = floor.rate {
        let seen = v3.and_then(|v3| Some(row.ratio(Kind::V2, |f| f.rate)?.divided_by(v3.rate)));
        cells.push(at_least("rate vs v3 (from table)", least, seen));
    }
    if let Some(most) = floor.cpu {
        let seen = v3.and_then(|v3| Some(row.ratio(Kind::V2, |f| f.cpu_ms)?.divided_by(v3.cpu?)));
        cells.push(at_most("CPU vs v3 (from table)", most, seen));
    }
    if let Some(most) = floor.median_ms {
        let seen = row.column(Kind::Ours).and_then(|ours| Spread::of(ours.rounds.iter().map(|f| f.p50)));
        cells.push(at_most("p50 in ms", most, seen));
    }
    if let Some(name) = floor.flat_with {
        let few = rows.iter().find(|row| row.scenario.name == name).and_then(|few| few.column(Kind::Ours));
        let seen = few.zip(row.column(Kind::Ours)).and_then(|(few, many)| {
            Spread::of(many.rounds.iter().zip(&few.rounds).map(|(many, few)| many.p50 / few.p50))
        });
        cells.push(at_most(&format!("p50 vs {name}"), FLAT, seen));
    }
    cells
}

fn at_least(what: &str, floor: f64, seen: Option<Spread>) -> String {
    cells(what, "≥", floor, seen, |value| value >= floor)
}

fn at_most(what: &str, floor: f64, seen: Option<Spread>) -> String {
    cells(what, "≤", floor, seen, |value| value <= floor)
}

fn cells(what: &str, sign: &str, floor: f64, seen: Option<Spread>, good: impl Fn(f64) -> bool) -> String {
    let (text, verdict) = match seen {
        None => ("-".to_owned(), "not judged"),
        Some(seen) => (seen.text(), verdict(seen, good)),
    };
    format!("{what} | {sign} {} | {text} | {verdict}", short(floor))
}

fn verdict(seen: Spread, good: impl Fn(f64) -> bool) -> &'static str {
    match seen {
        seen if good(seen.low) && good(seen.high) => "met",
        seen if good(seen.median) => "met by median",
        _ => "**missed**",
    }
}

fn failures(text: &mut String, rows: &[Row]) {
    for row in rows {
        if let Some(failure) = &row.failure {
            let _ = writeln!(text, "\n**{} failed:** {failure}", row.scenario.name);
        }
        for column in &row.columns {
            let errors: u64 = column.rounds.iter().map(|figures| figures.errors).sum();
            let first = column.rounds.iter().find_map(|figures| figures.first_error.as_ref());
            if let Some(first) = first {
                let (name, kind) = (row.scenario.name, column.kind.name());
                let _ = writeln!(text, "\n**{name}, {kind}: {errors} errors**, first: {first}");
            }
        }
    }
}

/// Every round, for other tools.
pub(crate) fn raw(machine: &[(&str, String)], rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let columns: Vec<Value> = row.columns.iter().map(raw_column).collect();
            let unsupported: Vec<&str> = row.unsupported.iter().map(|kind| kind.name()).collect();
            json!({
                "scenario": row.scenario.name,
                "fixture_shared": row.scenario.fixture != Fixture::Empty,
                "bytes_per_operation": row.scenario.bytes,
                "servers": columns,
                "unsupported": unsupported,
                "refusals": row.refusals,
                "rate_with_access_control": access::raw(row),
                "failure": row.failure,
            })
        })
        .collect();
    let machine: serde_json::Map<String, Value> =
        machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({ "machine": machine, "scenarios": rows })
}

fn raw_column(column: &Column) -> Value {
    let rounds: Vec<Value> = column
        .rounds
        .iter()
        .map(|f| {
            json!({
                "operations": f.operations, "rate": f.rate, "p50_ms": f.p50, "p99_ms": f.p99,
                "server_cpu_ms": f.cpu_ms, "client_busy": f.client, "ready_memory": f.ready_memory,
                "errors": f.errors, "first_error": f.first_error,
            })
        })
        .collect();
    json!({
        "server": column.kind.name(),
        "rounds": rounds,
        "ready_memory": column.ready_memory,
        "resident_memory": column.footprint.resident,
        "peak_memory": column.footprint.peak,
        "threads": column.footprint.threads,
    })
}

fn megabytes(bytes: u64) -> String {
    short(bytes as f64 / 1e6)
}

/// Three significant digits, at least.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        check(&[3.0, 1.0, 2.0], "2 (1-3)");
        check(&[0.02, 0.04], "0.03 (0.02-0.04)");
        check(&[1234.5], "1234 (1234-1234)");
        check(&[], "none");
        check(&[1.0, f64::NAN], "none");
        check(&[1.0, f64::INFINITY], "none");
    }

    fn check(values: &[f64], expected: &str) {
        let seen = Spread::of(values.iter().copied()).map_or("none".to_owned(), Spread::text);
        assert_eq!(seen, expected, "{values:?}");
    }

    #[test]
    fn verdicts() {
        check_verdict(at_least("x", 4.0, Spread::of([4.0, 5.0].into_iter())), "met");
        check_verdict(at_least("x", 4.0, Spread::of([3.9, 4.1, 5.0].into_iter())), "met by median");
        check_verdict(at_least("x", 4.0, Spread::of([3.0, 3.9, 5.0].into_iter())), "**missed**");
        check_verdict(at_most("x", 0.2, Spread::of([0.1, 0.2].into_iter())), "met");
        check_verdict(at_most("x", 0.2, None), "not judged");
    }

    fn check_verdict(cells: String, expected: &str) {
        assert_eq!(cells.rsplit(" | ").next(), Some(expected), "{cells}");
    }
}
