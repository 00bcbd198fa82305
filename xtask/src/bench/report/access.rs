//! The report about access control: ours with it and without, in the form of the other report.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Row, Spread, at_least, failures, megabytes, short, verdict};
use crate::bench::server::Kind;

/// The comparison as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let (both, own): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.unsupported.is_empty());
    compared(&mut text, &both);
    alone(&mut text, &own);
    verdicts(&mut text, &both);
    memory(&mut text, rows);
    failures(&mut text, rows);
    text
}

fn latency(row: &Row, kind: Kind) -> String {
    let quantiles = row.median(kind, |f| f.p50).zip(row.median(kind, |f| f.p99));
    quantiles.map_or("-".to_owned(), |(p50, p99)| format!("{} / {}", short(p50), short(p99)))
}

fn cpu(row: &Row, kind: Kind) -> String {
    row.median(kind, |f| f.cpu_ms).map_or("-".to_owned(), short)
}

/// The rate with access control as a share of that without.
fn kept(row: &Row) -> Option<Spread> {
    row.ratio_of(Kind::Guarded, Kind::Ours, |f| f.rate)
}

fn compared(text: &mut String, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    let refusals: u64 = rows.iter().map(|row| row.refusals).sum();
    let _ = write!(
        text,
        "\n### With access control and without\n\nThe same build twice: *open*, and *guarded* by `auth.roadstead` with a \
         bearer token on every request (*-password*: with name and password). Rates and latencies are medians over rounds; ratios are medians of the rounds' \
         own ratios, with their range. Latency in ms, CPU in server ms per operation. †: the client was more than 90 % \
         busy. The guarded server refused all {refusals} tries without a token, or with a token for another \
         repository.\n\n\
         | scenario | open | guarded | guarded/open | open p50 / p99 | guarded p50 / p99 | open CPU | guarded CPU | \
         CPU guarded/open |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let ratio = |spread: Option<Spread>| spread.map_or("-".to_owned(), Spread::text);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.scenario.name,
            row.rate(Kind::Ours),
            row.rate(Kind::Guarded),
            ratio(kept(row)),
            latency(row, Kind::Ours),
            latency(row, Kind::Guarded),
            cpu(row, Kind::Ours),
            cpu(row, Kind::Guarded),
            ratio(row.ratio_of(Kind::Guarded, Kind::Ours, |f| f.cpu_ms)),
        );
    }
}

fn alone(text: &mut String, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    *text += "\n### What only a guarded server does\n\nMedians over rounds, with the range of the rates.\n\n\
              | scenario | guarded | range | p50 / p99 | CPU |\n|---|---|---|---|---|\n";
    for row in rows {
        let rates = row.column(Kind::Guarded).and_then(|column| Spread::of(column.rounds.iter().map(|f| f.rate)));
        let range = rates.map_or("-".to_owned(), |rates| format!("{}-{}/s", short(rates.low), short(rates.high)));
        let (name, rate) = (row.scenario.name, row.rate(Kind::Guarded));
        let _ = writeln!(
            text,
            "| {name} | {rate} | {range} | {} | {} |",
            latency(row, Kind::Guarded),
            cpu(row, Kind::Guarded)
        );
    }
}

fn verdicts(text: &mut String, rows: &[&Row]) {
    *text += "\n### Against the floor\n\nManifests and small blobs keep 80 % of their rate. *met*: in every round; *met by \
              median*: not in every one.\n\n| scenario | what | floor | guarded | verdict |\n|---|---|---|---|---|\n";
    for row in rows {
        if let Some(floor) = row.scenario.floor.kept {
            let _ = writeln!(text, "| {} | {} |", row.scenario.name, at_least("rate vs open", floor, kept(row)));
        }
    }
}

fn memory(text: &mut String, rows: &[Row]) {
    *text += "\n### Memory, MB resident\n\n| scenario | open ready | open peak | guarded ready | guarded peak |\n\
              |---|---|---|---|---|\n";
    for row in rows {
        let figures = |kind| {
            row.column(kind).map_or("- | -".to_owned(), |column| {
                format!("{} | {}", megabytes(column.ready_memory), megabytes(column.footprint.peak))
            })
        };
        let _ = writeln!(text, "| {} | {} | {} |", row.scenario.name, figures(Kind::Ours), figures(Kind::Guarded));
    }
}

/// The comparison of one row, for other tools; null where there is nothing to compare.
pub(crate) fn raw(row: &Row) -> Value {
    let Some(seen) = kept(row) else {
        return Value::Null;
    };
    let floor = row.scenario.floor.kept;
    let verdict = floor.map(|floor| verdict(seen, |share| share >= floor).trim_matches('*'));
    json!({
        "share": { "median": seen.median, "low": seen.low, "high": seen.high }, "floor": floor, "verdict": verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Column, Figures};
    use super::{Kind, Row, markdown, raw};
    use crate::bench::access;
    use crate::bench::drive::Sample;

    /// A row whose servers did so many operations in each round of a second.
    fn row(name: &str, open: &[usize], guarded: &[usize]) -> Row {
        let scenario = access::scenarios().into_iter().find(|scenario| scenario.name == name);
        let mut row = Row::new(scenario.expect("the scenario exists"));
        for (kind, rounds) in [(Kind::Ours, open), (Kind::Guarded, guarded)] {
            if rounds.is_empty() {
                row.unsupported.push(kind);
                continue;
            }
            let figures = |&operations: &usize| {
                Figures::from(Sample { seconds: 1.0, latencies: vec![100; operations], ..Sample::default() })
            };
            let (rounds, footprint) = (rounds.iter().map(figures).collect(), Default::default());
            row.columns.push(Column { kind, rounds, ready_memory: 0, footprint });
        }
        row
    }

    /// Checks the share as a table shows it, and the verdict, which is none where there is no floor.
    fn check(name: &str, open: &[usize], guarded: &[usize], share: &str, verdict: Option<&str>) {
        let row = row(name, open, guarded);
        assert_eq!(raw(&row)["verdict"].as_str(), verdict, "{name}");
        let text = markdown(&[row]);
        assert!(text.contains(&format!("/s | {share} | ")), "no `{share}` in {text}");
        let judged = text.lines().find(|line| line.contains("rate vs open"));
        let seen = judged.and_then(|line| Some(line.rsplit(" | ").next()?.trim_end_matches(" |").trim_matches('*')));
        assert_eq!(seen, verdict, "{text}");
    }

    #[test]
    fn shares_are_those_of_the_rounds() {
        check("manifest-put", &[100, 200, 100], &[90, 160, 85], "0.85 (0.8-0.9)", Some("met"));
        check("manifest-put", &[100, 200, 100], &[90, 140, 85], "0.85 (0.7-0.9)", Some("met by median"));
        check("manifest-put", &[100, 200, 100], &[90, 140, 75], "0.75 (0.7-0.9)", Some("missed"));
        check("catalog-page", &[100], &[50], "0.5 (0.5-0.5)", None);
        check("challenge", &[], &[50, 60], "50-60/s", None);
    }

    #[test]
    fn all_scenarios_of_the_floor_exist() {
        let judged = access::scenarios().iter().filter(|scenario| scenario.floor.kept.is_some()).count();
        assert_eq!(judged, 9);
    }
}
