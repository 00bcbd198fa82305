//! Owns asking for actions and following them: what is on its way is shown until it is done, failed, or the time is
//! up. Does not own what an action does. A command that is interrupted leaves its request to the daemon.

use std::{
    future::poll_fn,
    io::{self, IsTerminal as _},
    task::Poll,
    time::Duration,
};

use om_core::path::ObjectPath;
use tokio::time::{Instant, timeout_at};

use super::{Context, Failed, Format, Outcome, no_match, parse::Command, put, tell};
use crate::{
    api::{self, Event},
    client::{Client, ClientError},
};

/// How long is waited unless `--time` says otherwise.
const PATIENCE: Duration = Duration::from_secs(300);
/// Objects that are followed at once.
const MANY: usize = 64;

/// Every verb that is only a wish: `start`, `stop`, `provision`, …
pub async fn act(context: &Context, command: &Command) -> Outcome {
    let act = api::Act {
        selector: context.selector(command)?,
        verb: command.verb.words.into(),
        local: command.has("local"),
        rids: command.list("rid"),
        tags: command.list("tags"),
        subsets: command.list("subsets"),
        to: command.list("to"),
        force: command.has("force"),
        unprovision: command.has("unprovision"),
        disable_rollback: command.has("disable-rollback"),
        dry_run: command.has("dry-run"),
    };
    let time = patience(command)?;
    let acted = context.client.act(&act).await?;
    if acted.results.is_empty() {
        return Err(no_match());
    }
    if context.format != Format::Human {
        context.value(&serde_json::to_value(&acted).unwrap_or_default())?;
    }
    let (mut failed, mut requests) = (0, Vec::new());
    for result in acted.results {
        let path = short(&result.path);
        if let Some(refused) = &result.refused {
            failed += 1;
            let failure = Failed::said(refused);
            tell(&Failed { message: format!("{path}: {}", failure.message), ..failure }.text(super::coloured_errors()));
        } else if act.dry_run {
            plan(context, &path, &result.plan)?;
        } else {
            if context.format == Format::Human {
                put(&match &result.target {
                    Some(target) => format!("  {path} defer target state set to {target}\n"),
                    None => format!("  {path} {} done\n", act.verb),
                })?;
            }
            requests.extend(result.request.map(|request| (result.path.clone(), request)));
        }
    }
    if !command.has("no-wait") {
        failed += follow(&context.client, requests, time).await?;
    }
    Ok(u8::from(failed > 0))
}

/// The limit of `--time`.
pub fn patience(command: &Command) -> Result<Duration, Failed> {
    command.value("time").map_or(Ok(PATIENCE), |text| {
        duration(text).ok_or_else(|| {
            Failed::new(format!("--time {text}: a duration is expected")).hint("such as 90, 90s or 1m30s")
        })
    })
}

/// `1m30s`, or seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut number) = (0_u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    let bare = !text.contains(|c: char| !c.is_ascii_digit());
    match number.is_empty() {
        true if !text.is_empty() => Some(Duration::from_secs(total)),
        false if bare => number.parse().ok().map(Duration::from_secs),
        _ => None,
    }
}

/// Shows the steps of a plan.
pub fn plan(context: &Context, path: &str, steps: &[api::Step]) -> Outcome {
    if context.format != Format::Human {
        return Ok(0);
    }
    if steps.is_empty() {
        return put(&format!("  {path}: nothing to do\n"));
    }
    put(&format!("  {path}:\n"))?;
    let width = steps.iter().map(|step| step.verb.len()).max().unwrap_or(0);
    let rids = steps.iter().map(|step| step.rid.len()).max().unwrap_or(0);
    for (number, step) in steps.iter().enumerate() {
        put(&format!(
            "  {:>3}. {}: {:width$}  {:rids$}  {}\n",
            number + 1,
            step.node,
            step.verb,
            step.rid,
            step.label
        ))?;
    }
    Ok(0)
}

fn short(path: &str) -> String {
    path.parse::<ObjectPath>().map_or_else(|_| path.to_owned(), |path| path.to_string())
}

/// Follows requests until all ended or the time is up. Answers how many failed; their reasons are told.
pub async fn follow(client: &Client, requests: Vec<(String, String)>, time: Duration) -> Result<u32, Failed> {
    let until = Instant::now() + time;
    let mut shown = Shown::new(requests.len() > 1);
    let mut failed = 0;
    let mut waiting = requests.into_iter().peekable();
    while waiting.peek().is_some() {
        // Each stream begins with what happened before it was opened, so those that come later miss nothing.
        let now: Vec<(String, String)> = waiting.by_ref().take(MANY).collect();
        let mut following = Vec::new();
        for (path, request) in now {
            let events = client.events(None, Some(&request)).await?;
            following.push((path, request, events));
        }
        while !following.is_empty() {
            let next = timeout_at(until, any(&mut following)).await;
            let Ok((at, event)) = next else {
                shown.clear();
                return Err(Failed::new("timeout").hint("it goes on all the same; `print status` shows how it is"));
            };
            match event {
                Ok(Some(Event::Progress { path, node: _, rid, text, .. })) => shown.step(&path, rid.as_deref(), &text),
                Ok(Some(Event::Ended { path, failure, .. })) => {
                    shown.clear();
                    following.swap_remove(at);
                    if let Some(failure) = failure {
                        failed += 1;
                        let said = Failed::said(&failure);
                        let message = format!("{}: {}", short(&path), said.message);
                        tell(&Failed { message, ..said }.text(super::coloured_errors()));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    shown.clear();
                    let (path, ..) = following.swap_remove(at);
                    return Err(Failed::new(format!("{}: the daemon ended before the request did", short(&path)))
                        .hint("it goes on when the daemon is back"));
                }
                Err(error) => {
                    shown.clear();
                    return Err(error.into());
                }
            }
        }
    }
    shown.clear();
    Ok(failed)
}

/// The next event of any of the streams, and which it was. Cancel-safe as the streams are.
async fn any(
    following: &mut [(String, String, crate::client::Lines<Event>)],
) -> (usize, Result<Option<Event>, ClientError>) {
    let mut nexts: Vec<_> = following.iter_mut().map(|(_, _, events)| Box::pin(events.next())).collect();
    poll_fn(|task| {
        for (at, next) in nexts.iter_mut().enumerate() {
            if let Poll::Ready(event) = next.as_mut().poll(task) {
                return Poll::Ready((at, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// What is on its way: one line that is written over on a terminal, a line for each new step otherwise.
#[derive(Debug)]
struct Shown {
    terminal: bool,
    columns: usize,
    several: bool,
    last: String,
}

impl Shown {
    fn new(several: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col).max(20));
        Self { terminal, columns, several, last: String::new() }
    }

    fn step(&mut self, path: &str, rid: Option<&str>, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut line = String::from("  ");
        if self.several || !self.terminal {
            line.push_str(&short(path));
            line.push(' ');
        }
        if let Some(rid) = rid {
            line.push_str(rid);
            line.push_str(": ");
        }
        line.push_str(&text);
        if self.terminal {
            let line: String = line.chars().take(self.columns - 1).collect();
            tell(&format!("\r\x1b[K{line}"));
            self.last = line;
        } else if stem(&line) != stem(&self.last) {
            tell(&format!("{line}\n"));
            self.last = line;
        }
    }

    fn clear(&mut self) {
        if self.terminal && !self.last.is_empty() {
            tell("\r\x1b[K");
        }
        self.last.clear();
    }
}

/// A line without its numbers: `pulling registry: 12 of 40 MiB` is the same step as with 13. Ids of resources count.
fn stem(line: &str) -> String {
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    line.split(' ').filter(|word| !number(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let check =
            |text: &str, seconds: Option<u64>| assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
        check("90", Some(90));
        check("1m30s", Some(90));
        check("2H", Some(7200));
        check("1m30", None);
        check("m", None);
        check("", None);
        check("1y", None);
    }

    #[test]
    fn numbers_alone_are_no_new_step() {
        let check = |a: &str, b: &str, same: bool| assert_eq!(stem(a) == stem(b), same, "{a} / {b}");
        check(
            "  test/svc/a container#1: pulling x: 1.5 of 40 MiB",
            "  test/svc/a container#1: pulling x: 39 of 40 MiB",
            true,
        );
        check("  test/svc/a container#1: pulling x: 1", "  test/svc/a container#1: starting", false);
        check("  test/svc/a container#0: starting", "  test/svc/a container#1: starting", false);
    }
}
