//! What a soak found, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::SECOND;
use super::{Summary, TIMES, Violation};

/// The report: what was done, what was collected, what was wrong. `total` counts violations that are not kept, too.
pub(super) fn markdown(
    summary: &Summary,
    counts: &BTreeMap<&'static str, u64>,
    violations: &[Violation],
    total: u64,
) -> String {
    let mut text = String::new();
    let seconds = |time: std::time::Duration| format!("{:.1} s", time.as_secs_f64());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    line("violations", total.to_string());
    line("seed", summary.seed.to_string());
    line("clients", summary.clients.to_string());
    line("asked to run", seconds(summary.asked));
    line("ran", seconds(summary.took));
    line("SIGKILLs of the server", summary.kills.to_string());
    line("slowest start of the server", seconds(summary.slowest_start));
    line(
        "server's times",
        format!(
            "grace {} s, lease {} s, quarantine {} s, untagged {} s, orphans {} s, uploads {} s, a collection every second",
            TIMES.grace, TIMES.lease, TIMES.quarantine, TIMES.untagged, TIMES.orphans, TIMES.uploads
        ),
    );
    let clean = summary.clean_after.map_or("not looked at".to_owned(), seconds);
    line("nothing left over on the disk after", clean);
    line("`registry check` after the stop", summary.check.clone());
    line("files at the end in a second place", summary.moved.to_string());
    line("metadata at the end", format!("{} KiB", summary.metadata_bytes / 1024));
    line("model at most", format!("{} operations, {} manifests", summary.model.0, summary.model.1));
    let mut report = format!("### Soak\n\n| | |\n|---|---|\n{text}\n### What the clients did\n\n| | |\n|---|---:|\n");
    for (name, count) in counts {
        let _ = writeln!(report, "| {name} | {count} |");
    }
    if !summary.collected.is_empty() {
        report += "\n### What was collected meanwhile\n\nAs far as each process could tell before it was killed.\n\n| | |\n|---|---:|\n";
        for (name, count) in &summary.collected {
            let _ = writeln!(report, "| {name} | {count} |");
        }
    }
    if let Some(status) = &summary.status {
        let pretty = serde_json::to_string_pretty(status).unwrap_or_default();
        let _ = writeln!(report, "\n### `registry gc status` at the end\n\n```json\n{pretty}\n```");
    }
    if !summary.complaints.is_empty() {
        let _ = writeln!(report, "\n### Errors in the server's log\n\n```\n{}\n```", summary.complaints.join("\n"));
    }
    if total == 0 && summary.clean_after.is_some() {
        let _ = writeln!(report, "\nNo acknowledged object was lost, no reference dangles, no file is left over.");
    }
    for violation in violations {
        let Violation { at, who, subject, what, explanation } = violation;
        let at = *at as f64 / SECOND as f64;
        let _ = writeln!(report, "\n### Violation at {at:.3} s, seen by {who}\n\n`{subject}`: {what}\n\n```");
        explanation.iter().for_each(|line| {
            let _ = writeln!(report, "{line}");
        });
        report += "```\n";
    }
    report
}
