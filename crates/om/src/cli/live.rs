//! Owns the live view of the cluster: the table, a selected object's tree, and keys. On anything but a terminal the
//! table is written once. Does not own either text.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, Failed, Format, Outcome, parse::Command, put};
use crate::{
    api::{Event, Snapshot},
    client::{ClientError, Lines},
    output::{
        mon,
        status::{self, View},
        text::{Colour, Text},
    },
};

/// How often keys are looked for.
const TICK: Duration = Duration::from_millis(50);
/// Ticks until all is asked for again, which shows new nodes' loads: two seconds.
const REFRESH: u32 = 40;

/// `mon`, `svcmon`.
pub async fn run(context: &Context, command: &Command) -> Outcome {
    let selector = if command.selector.is_empty() && command.kind.is_none() && context.namespace.is_none() {
        "*/svc/*".to_owned()
    } else {
        context.selector(command)?
    };
    let found = context.client.status(&selector, false).await?;
    if context.format != Format::Human {
        return context.value(&serde_json::to_value(&found).unwrap_or_default());
    }
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if command.has("once") || !(terminal || command.has("watch")) {
        return context.lines(&mon::lines(&found, &[]).into_iter().map(|line| line.text).collect::<Vec<_>>());
    }
    let events = context.client.events(Some(&selector), None).await?;
    if !terminal {
        return watch(context, &selector, events).await;
    }
    let mut screen = ratatui::try_init().map_err(|error| Failed::new(format!("draw on the terminal: {error}")))?;
    let ended = live(context, &selector, found, events, &mut screen).await;
    ratatui::restore();
    ended
}

/// The table again after every change.
async fn watch(context: &Context, selector: &str, mut events: Lines<Event>) -> Outcome {
    let mut last = String::new();
    loop {
        let found = context.client.status(selector, false).await?;
        let lines: Vec<Text> = mon::lines(&found, &[]).into_iter().map(|line| line.text).collect();
        let text = crate::output::text::lines(&lines, context.colour);
        if text != last {
            put(&format!("{text}\n"))?;
            last = text;
        }
        if events.next().await?.is_none() {
            return Err(Failed::new("the daemon has ended"));
        }
    }
}

async fn live(
    context: &Context,
    selector: &str,
    found: Snapshot,
    events: Lines<Event>,
    screen: &mut DefaultTerminal,
) -> Outcome {
    let mut view = Live { snapshot: found, selected: 0, first: 0, open: false, problem: None };
    let mut events = Some(events);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut draw) = (0_u32, true);
    loop {
        if std::mem::take(&mut draw) {
            screen
                .draw(|frame| view.draw(frame))
                .map_err(|error| Failed::new(format!("draw on the terminal: {error}")))?;
        }
        tokio::select! {
            event = next(&mut events) => {
                match event {
                    Ok(Some(event)) => view.apply(event),
                    Ok(None) | Err(_) => {
                        events = None;
                        view.problem = Some("the daemon does not answer; waiting for it".into());
                    }
                }
                draw = true;
            }
            _ = ticks.tick() => {
                let input = |error: io::Error| Failed::new(format!("read keys: {error}"));
                while event::poll(Duration::ZERO).map_err(input)? {
                    if view.key(&event::read().map_err(input)?) {
                        return Ok(0);
                    }
                    draw = true;
                }
                count += 1;
                if count.is_multiple_of(REFRESH) {
                    view.renew(context, selector, &mut events).await;
                    draw = true;
                }
            }
        }
    }
}

/// The next event; never without a stream.
async fn next(events: &mut Option<Lines<Event>>) -> Result<Option<Event>, ClientError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

struct Live {
    snapshot: Snapshot,
    /// Which object.
    selected: usize,
    /// The first line that is shown.
    first: usize,
    /// Whether the selected object's tree is shown.
    open: bool,
    problem: Option<String>,
}

impl Live {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Instance { path, object, .. } => {
                self.snapshot.objects.insert(path, *object);
            }
            Event::Gone { path } => {
                self.snapshot.objects.remove(&path);
            }
            Event::Node { node, status } => {
                self.snapshot.nodes.insert(node, *status);
            }
            Event::Progress { .. } | Event::Ended { .. } | Event::Alive => {}
        }
    }

    async fn renew(&mut self, context: &Context, selector: &str, events: &mut Option<Lines<Event>>) {
        match context.client.status(selector, false).await {
            Ok(found) => {
                self.snapshot = found;
                if events.is_none() {
                    *events = context.client.events(Some(selector), None).await.ok();
                }
                self.problem = None;
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    /// Whether it was the last one.
    fn key(&mut self, input: &Input) -> bool {
        let Input::Key(key) = input else { return false };
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let last = self.snapshot.objects.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q') => return true,
            KeyCode::Esc if self.open => self.open = false,
            KeyCode::Esc => return true,
            KeyCode::Enter | KeyCode::Char(' ') => self.open = !self.open,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(20),
            KeyCode::PageDown => self.selected = (self.selected + 20).min(last),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = last,
            _ => {}
        }
        false
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        self.selected = self.selected.min(self.snapshot.objects.len().saturating_sub(1));
        let selected = self.snapshot.objects.iter().nth(self.selected);
        let area = frame.area();
        let tree = match selected.filter(|_| self.open) {
            Some((path, object)) => {
                let width = Some(usize::from(area.width));
                status::lines(&self.snapshot, path, object, View { width, ..View::default() })
            }
            None => Vec::new(),
        };
        let half = u16::try_from(tree.len() + 1).unwrap_or(u16::MAX).min(area.height * 2 / 3);
        let below = if tree.is_empty() { 0 } else { half };
        let [top, detail, foot] =
            Layout::vertical([Constraint::Min(1), Constraint::Length(below), Constraint::Length(1)]).areas(area);

        let table = mon::lines(&self.snapshot, &[]);
        let path = selected.map(|(path, _)| path.as_str());
        let at = table.iter().position(|line| path.is_some() && line.path.as_deref() == path).unwrap_or(0);
        let height = usize::from(top.height).max(1);
        // The selected line stays in sight; the head is shown as long as it fits.
        self.first = if at < height { 0 } else { at + 1 - height };
        let lines: Vec<Line<'_>> = table
            .iter()
            .enumerate()
            .skip(self.first)
            .take(height)
            .map(|(index, line)| {
                let drawn = drawn(&line.text);
                if index == at && path.is_some() {
                    drawn.style(Style::new().add_modifier(Modifier::REVERSED))
                } else {
                    drawn
                }
            })
            .collect();
        frame.render_widget(Paragraph::new(lines), top);
        let mut lines = vec![Line::raw("─".repeat(usize::from(area.width)))];
        lines.extend(tree.iter().map(drawn));
        frame.render_widget(Paragraph::new(lines), detail);
        let foot_text = match &self.problem {
            Some(problem) => Text::new(problem, Colour::Red),
            None => Text::new(
                format!("cluster {}   arrows: select   enter: resources   q: quit", self.snapshot.cluster),
                Colour::Grey,
            ),
        };
        frame.render_widget(Paragraph::new(drawn(&foot_text)), foot);
    }
}

fn drawn(text: &Text) -> Line<'static> {
    let style = |colour: Colour| match colour {
        Colour::Plain => Style::new(),
        Colour::Bold => Style::new().add_modifier(Modifier::BOLD),
        Colour::Red => Style::new().fg(Color::Red),
        Colour::Green => Style::new().fg(Color::Green),
        Colour::Yellow => Style::new().fg(Color::Yellow),
        Colour::Blue => Style::new().fg(Color::Blue),
        Colour::Grey => Style::new().fg(Color::LightBlue),
    };
    Line::from(text.pieces().map(|(text, colour)| Span::styled(text.to_owned(), style(colour))).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::output::status::tests::page;

    #[test]
    fn the_view_shows_the_table_and_a_tree() {
        let mut live = Live { snapshot: page(), selected: 7, first: 0, open: true, problem: None };
        let mut terminal = Terminal::new(TestBackend::new(110, 30)).unwrap();
        terminal.draw(|frame| live.draw(frame)).unwrap();
        let shown = terminal.backend().to_string();
        for text in ["test/svc/registry", "aubergine", "cni default 10.22.0.122/16 eth12", "q: quit"] {
            assert!(shown.contains(text), "{shown}");
        }
        live.apply(Event::Gone { path: "test/svc/registry".into() });
        terminal.draw(|frame| live.draw(frame)).unwrap();
        assert!(terminal.backend().to_string().contains("(none selected)"));
        assert!(live.key(&Input::Key(KeyCode::Char('q').into())));
    }
}
