//! The `notifications` command: dead letters, listed and replayed beside a running server.

use std::process::ExitCode;

use registry_core::store::{Delivered, Delivery, Metadata};
use registry_store::{data_dir::DataDir, meta::sqlite::SqliteMetadata};
use serde_json::{Value, json};

use crate::{cli::Format, config::Config, data_root};

/// Dead letters that are looked at at a time.
const MOST: usize = 10_000;

fn open(config: &Config) -> anyhow::Result<SqliteMetadata> {
    // SQLite's own locks keep a running server and this look at its outbox apart.
    Ok(SqliteMetadata::attach(&DataDir::peek(data_root(config)?).metadata())?)
}

fn letters(metadata: &SqliteMetadata) -> anyhow::Result<Vec<Delivery>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(metadata.dead_letters(MOST))?)
}

/// Lists the dead letters.
pub(crate) fn list(format: Format, config: &Config) -> anyhow::Result<ExitCode> {
    let letters = letters(&open(config)?)?;
    let event = |letter: &Delivery| serde_json::from_str::<Value>(&letter.event.body).unwrap_or(Value::Null);
    match format {
        Format::Json => {
            let shown: Vec<Value> = letters
                .iter()
                .map(|letter| {
                    json!({
                        "id": letter.id,
                        "endpoint": letter.event.endpoint,
                        "attempts": letter.attempts,
                        "created_at": letter.created_at,
                        "error": letter.dead,
                        "event": event(letter),
                    })
                })
                .collect();
            println!("{}", Value::from(shown));
        }
        Format::Table if letters.is_empty() => println!("no dead letters"),
        Format::Table => {
            println!(
                "{:>8}  {:<16} {:<7} {:<40} {:>8}  LAST ERROR",
                "NUMBER", "ENDPOINT", "ACTION", "REPOSITORY", "ATTEMPTS"
            );
            for letter in &letters {
                let event = event(letter);
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                println!(
                    "{:>8}  {:<16} {:<7} {:<40} {:>8}  {}",
                    letter.id,
                    letter.event.endpoint,
                    text(&event["action"]),
                    text(&event["target"]["repository"]),
                    letter.attempts,
                    letter.dead.as_deref().unwrap_or("-")
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts dead letters back into the queue: these, or all if none is named.
pub(crate) fn replay(ids: &[i64], config: &Config) -> anyhow::Result<ExitCode> {
    let metadata = open(config)?;
    let known: Vec<i64> = letters(&metadata)?.iter().map(|letter| letter.id).collect();
    if let Some(unknown) = ids.iter().find(|id| !known.contains(id)) {
        anyhow::bail!("there is no dead letter {unknown}; `registry notifications list` shows them");
    }
    let chosen = if ids.is_empty() { &known[..] } else { ids };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for id in chosen {
        runtime.block_on(metadata.delivered(*id, Delivered::Replayed))?;
    }
    println!("{} event{} back in the queue", chosen.len(), if chosen.len() == 1 { "" } else { "s" });
    Ok(ExitCode::SUCCESS)
}
