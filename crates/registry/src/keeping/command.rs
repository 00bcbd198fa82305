//! The commands `undelete`, `history`, `retention` and `quota`.
//!
//! With a server it is asked; without one, the command works on the data directory under its lock.
//! Does not own what they do (`keeping`).

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use registry_core::{
    name::RepoName,
    reference::{Reference, Tag},
    retention::Rules,
    store::Metadata as _,
};
use serde_json::Value;
use tokio::sync::Notify;

use super::Keeping;
use crate::{
    accounts::show::columns,
    app::now,
    cli::Format,
    config::settings::Notifications,
    gc::open,
    notify::Notifier,
    operations::{operation::Operation, server},
    reservations::Reservations,
    size::Size,
    target::{Found, Target},
};

/// What to bring back.
#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// A tag, or a manifest with the tags that went with it
    #[arg(value_name = "REPO:TAG|REPO@DIGEST")]
    image: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// Whose history.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// A repository, or one tag of it
    #[arg(value_name = "REPO[:TAG]")]
    image: String,
    /// Show so many entries, the newest
    #[arg(long, value_name = "N", default_value_t = super::ENTRIES, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// What retention shall do.
#[derive(Debug, Args)]
pub(crate) struct Retention {
    /// Only show which tags would go, which is what is done where nothing is said
    #[arg(long, conflicts_with = "run")]
    dry_run: bool,
    /// Remove them now
    #[arg(long)]
    run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// Whose quotas.
#[derive(Debug, Args)]
pub(crate) struct Quota {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

/// Brings back what was deleted.
pub(crate) fn undelete(options: &Undelete) -> Result<ExitCode> {
    let (repository, reference) = image(&options.image)?;
    let reference = reference.with_context(|| {
        format!(
            "{}: which tag or manifest? write REPO:TAG or REPO@DIGEST (`registry history` shows them)",
            options.image
        )
    })?;
    let reference = match reference {
        Reference::Tag(tag) => tag.to_string(),
        Reference::Digest(digest) => digest.to_string(),
    };
    let operation = Operation::Undelete { repository: repository.to_string(), reference };
    let answer = carry_out(&options.target, &operation)?;
    show(options.format, &answer, || {
        let tags = list(&answer["tags"]);
        let tags = if tags.is_empty() { "no tag names it".to_owned() } else { format!("tags: {tags}") };
        format!("{repository}@{} is there; {tags}\n", text(&answer["digest"]))
    })
}

/// Shows what became of tags.
pub(crate) fn history(options: &History) -> Result<ExitCode> {
    let (repository, reference) = image(&options.image)?;
    let tag = match reference {
        None => None,
        Some(Reference::Tag(tag)) => Some(tag.to_string()),
        Some(Reference::Digest(_)) => bail!("{}: tags have a history; write REPO or REPO:TAG", options.image),
    };
    let operation = Operation::History { repository: repository.to_string(), tag, limit: Some(options.limit) };
    let answer = carry_out(&options.target, &operation)?;
    show(options.format, &answer, || {
        let row = |entry: &Value| {
            let kept = if entry["kept"] == true { "" } else { "gone" };
            let cells = ["at", "tag", "action", "digest"].into_iter().map(|key| text(&entry[key]));
            cells.chain([kept.to_owned()]).collect()
        };
        table(&["WHEN", "TAG", "WHAT", "DIGEST", "MANIFEST"], &answer["entries"], row, "nothing became of it yet\n")
    })
}

/// Shows which tags go, or lets them go.
pub(crate) fn retention(options: &Retention) -> Result<ExitCode> {
    let operation = Operation::Retention { run: options.run };
    let mut answer = carry_out(&options.target, &operation)?;
    // Each order takes a bounded time: they follow until nothing is left to go.
    while answer["more"] == true && answer["expired"].as_u64() > Some(0) {
        let mut next = carry_out(&options.target, &operation)?;
        let sum = answer["expired"].as_u64().unwrap_or_default() + next["expired"].as_u64().unwrap_or_default();
        next["expired"] = sum.into();
        if let (Some(all), Some(more)) = (answer["listed"].as_array(), next["listed"].as_array()) {
            let all: Vec<Value> = all.iter().chain(more).take(crate::retention::LISTED).cloned().collect();
            next["listed"] = all.into();
        }
        answer = next;
    }
    show(options.format, &answer, || retained(&answer))
}

fn retained(answer: &Value) -> String {
    let rules = rows(&answer["rules"]);
    if rules.is_empty() {
        return "no rules: the configuration has no roadstead.retention, and every tag stays\n".to_owned();
    }
    let row = |gone: &Value| ["repository", "tag", "pushed", "pulled", "rule"].map(|key| text(&gone[key])).to_vec();
    let mut out = table(&["REPOSITORY", "TAG", "PUSHED", "PULLED", "RULE"], &answer["listed"], row, "");
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    let left = number("expired").saturating_sub(rows(&answer["listed"]).len() as u64);
    if left > 0 {
        out += &format!("and {left} more\n");
    }
    if !out.is_empty() {
        out.push('\n');
    }
    for (index, rule) in rules.iter().enumerate() {
        out += &format!("rule {} keeps of {}\n", index + 1, text(rule));
    }
    let (expired, repositories) = (number("expired"), number("repositories"));
    let looked = format!("{} tags in {repositories} repositories that rules are about", number("tags"));
    out + &match answer["run"] == true {
        true => format!("{expired} tags removed; `registry undelete` brings one back within the grace period\n"),
        false => format!("{expired} of {looked} would go; nothing was removed (--run removes them)\n"),
    }
}

/// Shows how full the quotas are.
pub(crate) fn quota(options: &Quota) -> Result<ExitCode> {
    let answer = carry_out(&options.target, &Operation::Quota {})?;
    show(options.format, &answer, || {
        let row = |quota: &Value| {
            let bytes = |key: &str| quota[key].as_u64().unwrap_or_default();
            let percent = u128::from(bytes("used")) * 100 / u128::from(bytes("limit").max(1));
            let sizes = ["limit", "used", "reserved"].map(|key| Size(bytes(key)).to_string());
            std::iter::once(text(&quota["prefix"])).chain(sizes).chain([format!("{percent}%")]).collect()
        };
        let none = "no quotas: the configuration has no roadstead.quotas\n";
        table(&["PREFIX", "LIMIT", "USED", "RESERVED", "FULL"], &answer["quotas"], row, none)
    })
}

/// Has an operation carried out where the data are.
fn carry_out(target: &Target, operation: &Operation) -> Result<Value> {
    let found = target.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match server::ask(&found.root, operation).await? {
            Some(answer) => Ok(answer),
            None => here(&found, operation).await,
        }
    })
}

/// Carries an operation out in this process, which is the only one with the data.
async fn here(found: &Found, operation: &Operation) -> Result<Value> {
    let rules_matter = matches!(operation, Operation::Retention { .. } | Operation::Quota {});
    if found.config.is_none() && rules_matter {
        bail!("no server runs here, and the rules are in its configuration (hint: name CONFIG in place of --data)");
    }
    let metadata = open(&found.root)?.metadata;
    let (rules, retention, notifications) = match &found.config {
        Some(config) => {
            let rules =
                Rules { immutable: config.immutable.clone(), quotas: config.quotas.clone(), gc: config.gc.policy };
            (Some(rules), config.retention.rules.clone(), config.notifications.clone())
        }
        // What the quotas hold stays counted for whoever knows them.
        None => (None, Vec::new(), Notifications { include_references: false, endpoints: Vec::new() }),
    };
    let (immutable, quotas) =
        rules.as_ref().map_or_else(Default::default, |rules| (rules.immutable.clone(), rules.quotas.clone()));
    if let Some(rules) = rules {
        metadata.govern(rules).await.context("count what the quotas hold")?;
    }
    let keeping = Keeping {
        metadata: metadata.clone(),
        state: Some(metadata),
        retention,
        immutable,
        reservations: Reservations::new(quotas),
        notifier: Notifier::new(&notifications, "command", "command"),
        outbox: Arc::new(Notify::new()),
        started: now(),
    };
    let answer = keeping.answer(operation, "local", now()).await;
    answer.map_err(|error| match error.source {
        Some(ref source) => anyhow!("{error}: {}", crate::failure::Chain(source)),
        None => anyhow!("{error} (hint: {})", error.hint),
    })
}

/// `team/api`, `team/api:1.4` or `team/api@sha256:…`.
fn image(given: &str) -> Result<(RepoName, Option<Reference>)> {
    let (name, reference) = match (given.split_once('@'), given.rsplit_once(':')) {
        (Some((name, digest)), _) => {
            let digest = digest.parse().map_err(|error| anyhow!("{given}: {error}"))?;
            (name, Some(Reference::Digest(digest)))
        }
        (None, Some((name, tag))) if !tag.contains('/') => {
            let tag: Tag = tag.parse().map_err(|error| anyhow!("{given}: {error}"))?;
            (name, Some(Reference::Tag(tag)))
        }
        _ => (given, None),
    };
    let name = name.parse().map_err(|error| {
        anyhow!("{given}: {error} (hint: write the repository without the registry's address, such as team/api)")
    })?;
    Ok((name, reference))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> String {
    rows(value).iter().map(text).collect::<Vec<_>>().join(", ")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn table(titles: &[&str], values: &Value, row: impl Fn(&Value) -> Vec<String>, none: &str) -> String {
    let rows: Vec<Vec<String>> = rows(values).iter().map(row).collect();
    if rows.is_empty() { none.to_owned() } else { columns(titles, &rows) }
}

fn show(format: Format, answer: &Value, table: impl FnOnce() -> String) -> Result<ExitCode> {
    let shown = match format {
        Format::Json => format!("{answer}\n"),
        Format::Table => table(),
    };
    let mut out = io::stdout().lock();
    out.write_all(shown.as_bytes()).and_then(|()| out.flush()).context("print the answer")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use registry_core::reference::Reference;
    use serde_json::json;

    use super::{image, retained};

    #[test]
    fn images_are_read_as_people_write_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |given: &str, want: &str| {
            let seen = match image(given) {
                Ok((name, None)) => name.to_string(),
                Ok((name, Some(Reference::Tag(tag)))) => format!("{name} tag {tag}"),
                Ok((name, Some(Reference::Digest(digest)))) => format!("{name} digest {digest}"),
                Err(error) => error.to_string(),
            };
            assert!(seen.contains(want), "{given}: {seen}");
        };
        check("team/api", "team/api");
        check("team/api:1.4", "team/api tag 1.4");
        check(&format!("team/api@{digest}"), &format!("team/api digest {digest}"));
        check("team/api@sha256:abc", "team/api@sha256:abc: ");
        check("localhost:5000/team/api", "without the registry's address");
        check("localhost:5000/team/api:1.4", "without the registry's address");
        check("team/api:-x", "invalid tag");
        check("Team/api:x", "without the registry's address");
    }

    #[test]
    fn what_goes_is_told_to_people() {
        let answer = json!({
            "run": false, "rules": ["team/*: the last 2"], "repositories": 1, "tags": 3, "expired": 2, "more": false,
            "listed": [{ "repository": "team/api", "tag": "1", "digest": "sha256:x", "pushed": "T", "pulled": null, "rule": 1 }],
        });
        let want = "REPOSITORY  TAG  PUSHED  PULLED  RULE\nteam/api    1    T       -       1\nand 1 more\n\n\
                    rule 1 keeps of team/*: the last 2\n\
                    2 of 3 tags in 1 repositories that rules are about would go; nothing was removed (--run removes them)\n";
        assert_eq!(retained(&answer), want);
        assert!(retained(&json!({ "rules": [] })).starts_with("no rules"));
    }
}
