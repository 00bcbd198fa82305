//! Owns how the answer to an order looks to people and to programs.
//!
//! A secret that was made is alone on standard output, and what is to be said about it on standard
//! error, so that it can be piped to where it is needed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{admin::order::Order, cli::Format};

/// Shows an answer; the exit code is that of the command.
pub(crate) fn show(format: Format, order: &Order, answer: &Value) -> Result<ExitCode> {
    let allowed = !matches!(order, Order::GrantExplain { .. }) || answer["allowed"] == true;
    let said = match format {
        Format::Json => Said { out: format!("{answer}\n"), aside: String::new() },
        Format::Table => say(order, answer),
    };
    eprint!("{}", said.aside);
    let mut out = io::stdout().lock();
    let written = out.write_all(said.out.as_bytes()).and_then(|()| out.flush());
    written.context("print the answer; the order was carried out")?;
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What goes to standard output, and what beside it.
struct Said {
    out: String,
    aside: String,
}

fn say(order: &Order, answer: &Value) -> Said {
    let line = |text: String| Said { out: text + "\n", aside: String::new() };
    match order {
        Order::UserAdd { name, .. } => made(
            &answer["password"],
            format!("user `{name}` was made, without rights so far (next: registry grant add user:{name} GLOB RIGHTS)"),
            "the password, shown only now",
        ),
        Order::UserPasswd { name, .. } => {
            made(&answer["password"], format!("user `{name}` has another password"), "it is, shown only now")
        }
        Order::UserToken { name, .. } => {
            made(&answer["token"], format!("a token of `{name}`, good {}", until(&answer["expires"])), "shown only now")
        }
        Order::RobotCreate { name, .. } => {
            let grants = rows(&answer["grants"]);
            let what = match grants.len() {
                0 => format!(
                    "robot `{name}` was made, without rights so far (next: registry grant add robot:{name} GLOB RIGHTS)"
                ),
                _ => format!("robot `{name}` was made"),
            };
            made(
                &answer["secret"],
                format!("{what}; its secret is good {}", until(&answer["expires"])),
                "shown only now",
            )
        }
        Order::RobotRotate { name, .. } => {
            let old = answer["old_until"].as_str().map_or_else(String::new, |at| format!("; older ones end at {at}"));
            let what = format!("robot `{name}` has another secret, good {}{old}", until(&answer["expires"]));
            made(&answer["secret"], what, "shown only now")
        }
        Order::UserDisable { name } => line(format!("user `{name}` is disabled")),
        Order::UserEnable { name } => line(format!("user `{name}` is enabled")),
        Order::UserRevokeTokens { name } => {
            line(format!("{} of `{name}` ended", count(answer["revoked"].as_u64().unwrap_or_default(), "token")))
        }
        Order::UserRemove { .. } | Order::RobotRevoke { .. } | Order::GroupRemove { .. } => {
            let rules = rows(&answer["rules"]).len() as u64;
            line(format!("{} was removed, with {}", text(&answer["removed"]), count(rules, "rule")))
        }
        Order::GroupAdd { name } => {
            line(format!("group `{name}` was made (next: registry group join {name} user:NAME)"))
        }
        Order::GroupJoin { name, .. } | Order::GroupLeave { name, .. } => {
            let members = list(&answer["group"]["members"], ", ");
            line(format!("in group `{name}` now: {}", if members.is_empty() { "nobody" } else { &members }))
        }
        Order::GrantAdd { .. } => line(format!("rule {}", rule(&answer["grant"]))),
        Order::GrantRemove { .. } => line(format!("removed: rule {}", rule(&answer["removed"]))),
        Order::UserList {} => accounts(&answer["users"]),
        Order::RobotList {} => accounts(&answer["robots"]),
        Order::GroupList {} => table(
            &["GROUP", "MEMBERS"],
            rows(&answer["groups"]).iter().map(|group| vec![text(&group["name"]), list(&group["members"], ", ")]),
        ),
        Order::GrantList { .. } => table(
            &["RULE", "SUBJECT", "REPOSITORIES", "RIGHTS", "MADE"],
            rows(&answer["grants"]).iter().map(|grant| {
                ["rule", "subject", "repositories", "rights", "created"].iter().map(|key| text(&grant[key])).collect()
            }),
        ),
        Order::GrantExplain { .. } => explained(answer),
        Order::KeyList {} => table(
            &["KEY", "MADE", "STATE"],
            rows(&answer["keys"]).iter().map(|key| {
                let signs = if key["signs"] == true { "signs" } else { "verifies" };
                vec![text(&key["id"]), text(&key["created"]), signs.to_owned()]
            }),
        ),
        Order::KeyRotate {} => line(format!("key {} signs from now on", text(&answer["key"]["id"]))),
    }
}

/// A secret, if one was made, alone.
fn made(secret: &Value, what: String, about: &str) -> Said {
    match secret.as_str() {
        Some(secret) => Said { out: format!("{secret}\n"), aside: format!("{what}; {about}:\n") },
        None => Said { out: what + "\n", aside: String::new() },
    }
}

fn accounts(accounts: &Value) -> Said {
    table(
        &["NAME", "STATE", "GROUPS", "PROOFS", "MADE", "DESCRIPTION"],
        rows(accounts).iter().map(|account| {
            let proofs: Vec<String> = rows(&account["credentials"]).iter().map(proof).collect();
            vec![
                text(&account["name"]),
                text(&account["state"]),
                list(&account["groups"], ","),
                proofs.join(", "),
                text(&account["created"]),
                text(&account["description"]),
            ]
        }),
    )
}

/// `password`, or `secret laptop until 2027-01-01T00:00:00Z`.
fn proof(credential: &Value) -> String {
    let label = credential["label"].as_str().filter(|label| !label.is_empty()).map(|label| format!(" {label}"));
    let until = credential["expires"].as_str().map(|at| format!(" until {at}"));
    format!("{}{}{}", text(&credential["type"]), label.unwrap_or_default(), until.unwrap_or_default())
}

fn explained(answer: &Value) -> Said {
    let [subject, repository, right] = ["subject", "repository", "right"].map(|key| text(&answer[key]));
    let considered = rows(&answer["considered"]);
    let deciding = considered.iter().find(|grant| !answer["rule"].is_null() && grant["rule"] == answer["rule"]);
    let mut out = match (answer["allowed"] == true, deciding) {
        (true, Some(grant)) => format!("allowed: {subject} may {right} {repository}, by rule {}\n", rule(grant)),
        (true, None) => format!("allowed: {subject} may {right} {repository}\n"),
        (false, _) if answer["disabled"] == true => {
            format!("refused: {subject} may not {right} {repository}, because the account is disabled\n")
        }
        (false, _) => format!("refused: {subject} may not {right} {repository}, because no rule allows it\n"),
    };
    if !considered.is_empty() {
        out.push('\n');
        let rules = considered.iter().map(|grant| {
            ["rule", "subject", "repositories", "rights", "says"].iter().map(|key| text(&grant[key])).collect()
        });
        out += &table(&["RULE", "SUBJECT", "REPOSITORIES", "RIGHTS", "SAYS"], rules).out;
    }
    let administrators = list(&answer["administrators"], ", ");
    if answer["allowed"] != true && !administrators.is_empty() {
        out += &format!("\nwho can grant it: {administrators}\n");
    }
    Said { out, aside: String::new() }
}

fn rule(grant: &Value) -> String {
    let [number, subject, repositories, rights] =
        ["rule", "subject", "repositories", "rights"].map(|key| text(&grant[key]));
    format!("{number}: {subject} {repositories} {rights}")
}

fn until(at: &Value) -> String {
    at.as_str().map_or_else(|| "for ever".to_owned(), |at| format!("until {at}"))
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value as a cell. A server's text cannot move the cursor or draw other cells.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn list(value: &Value, between: &str) -> String {
    rows(value).iter().map(text).collect::<Vec<_>>().join(between)
}

/// A table with a line of titles, as wide as what is in it; without rows, it says so.
fn table(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Said {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return Said { out: String::new(), aside: "none\n".to_owned() };
    }
    Said { out: columns(titles, &rows), aside: String::new() }
}

/// A line of titles and a line for each row, in columns as wide as what is in them.
pub(crate) fn columns(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&titles).chain(rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut out = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let shown = if cell.is_empty() { "-" } else { cell };
            line += &format!("{shown:<width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fails unless an order's answer looks like this: standard output, then standard error.
    #[track_caller]
    fn check(order: Value, answer: Value, out: &str, aside: &str) {
        let order: Order = serde_json::from_value(order).expect("an order");
        let said = say(&order, &answer);
        assert_eq!((said.out.as_str(), said.aside.as_str()), (out, aside));
    }

    #[test]
    fn secrets_are_alone() {
        check(
            json!({"order": "robot-create", "name": "ci"}),
            json!({"robot": {}, "secret": "rsk_x", "expires": "2027-01-01T00:00:00Z", "grants": [{}]}),
            "rsk_x\n",
            "robot `ci` was made; its secret is good until 2027-01-01T00:00:00Z; shown only now:\n",
        );
        check(
            json!({"order": "robot-rotate", "name": "ci", "overlap": 60}),
            json!({"robot": {}, "secret": "rsk_y", "expires": null, "old_until": "2027-01-01T00:00:00Z"}),
            "rsk_y\n",
            "robot `ci` has another secret, good for ever; older ones end at 2027-01-01T00:00:00Z; shown only now:\n",
        );
        check(
            json!({"order": "user-passwd", "name": "alice"}),
            json!({"user": {}, "password": "x"}),
            "x\n",
            "user `alice` has another password; it is, shown only now:\n",
        );
        check(json!({"order": "user-passwd", "name": "a"}), json!({}), "user `a` has another password\n", "");
    }

    #[test]
    fn lists_and_reasons() {
        check(json!({"order": "user-list"}), json!({"users": []}), "", "none\n");
        check(
            json!({"order": "user-list"}),
            json!({"users": [{
                "name": "alice", "state": "enabled", "groups": ["dev", "ops"], "description": "a\u{1b}[2Jb",
                "created": "2026-01-01T00:00:00Z",
                "credentials": [
                    {"id": 1, "type": "password", "label": "", "expires": null},
                    {"id": 2, "type": "secret", "label": "laptop", "expires": "2027-01-01T00:00:00Z"},
                ],
            }]}),
            "NAME   STATE    GROUPS   PROOFS                                             MADE                  DESCRIPTION\n\
             alice  enabled  dev,ops  password, secret laptop until 2027-01-01T00:00:00Z  2026-01-01T00:00:00Z  a\u{fffd}[2Jb\n"
                .replace("PROOFS   ", "PROOFS    ")
                .as_str(),
            "",
        );
        let considered = json!([
            {"rule": 3, "subject": "users", "repositories": "team/*", "rights": "pull", "says": "other rights"},
            {"rule": 7, "subject": "group:dev", "repositories": "team/**", "rights": "push", "says": "allows"},
        ]);
        let order = json!({"order": "grant-explain", "subject": "user:a", "repository": "team/x", "right": "push"});
        let answer = |allowed: bool, rule: Value, disabled: bool, considered: Value| {
            json!({
                "subject": "user:a", "repository": "team/x", "right": "push", "allowed": allowed, "rule": rule,
                "disabled": disabled, "considered": considered, "administrators": ["root"],
            })
        };
        check(
            order.clone(),
            answer(true, json!(7), false, considered),
            "allowed: user:a may push team/x, by rule 7: group:dev team/** push\n\n\
             RULE  SUBJECT    REPOSITORIES  RIGHTS  SAYS\n\
             3     users      team/*        pull    other rights\n\
             7     group:dev  team/**       push    allows\n",
            "",
        );
        check(
            order.clone(),
            answer(false, Value::Null, false, json!([])),
            "refused: user:a may not push team/x, because no rule allows it\n\nwho can grant it: root\n",
            "",
        );
        check(
            order,
            answer(false, Value::Null, true, json!([])),
            "refused: user:a may not push team/x, because the account is disabled\n\nwho can grant it: root\n",
            "",
        );
    }
}
