//! Owns which part of the daemon answers which route, and the streams of events and logs. Does not own the answers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use om_core::{
    config::diagnostic::nearest,
    path::{ObjectPath, Rid},
    status::{ResourceStatus, Status},
};
use serde::Serialize;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::{MissedTickBehavior, interval},
};

use crate::{
    api::{
        self, Event, code, openapi,
        routes::Route,
        server::{Answering, Call, Handler, Refusal, Reply},
    },
    daemon::{app::App, journal::now, networks},
};

/// What a line of output is taken to have, in bytes.
const LINE: u64 = 100;
/// Lines that a slow reader may be behind, before events are dropped and state is sent anew.
const QUEUE: usize = 64;
/// A stream says something at least so often.
const ALIVE: Duration = Duration::from_secs(10);
/// Of a log: bytes that are sent where nothing else was asked for.
const BACKLOG: u64 = 10 << 10;

/// The API of a running daemon.
pub struct Answers(pub Arc<App>);

impl Handler for Answers {
    fn answer(&self, call: Call) -> Answering<'_> {
        Box::pin(self.reply(call))
    }
}

impl Answers {
    async fn reply(&self, call: Call) -> Result<Reply, Refusal> {
        let app = &self.0;
        match call.route {
            Route::Daemon => Reply::json(&app.daemon()),
            Route::DaemonAct => {
                app.daemon_act(&call.read::<api::DaemonAct>()?.verb)?;
                Reply::json(&api::Done {})
            }
            Route::OpenApi => Reply::json(&openapi::document()),
            Route::Status => Reply::json(&self.status(&call).await?),
            Route::Objects => {
                let selected = app.select(&selector(&call)).await?;
                Reply::json(&api::Objects { paths: selected.iter().map(|(path, _)| path.fqn()).collect() })
            }
            Route::Create => Reply::json(&app.create(call.read()?).await?),
            Route::Config => Reply::json(&app.config(call.object()?).await?),
            Route::ConfigReplace => Reply::json(&app.replace(call.object()?, &call.read()?).await?),
            Route::ConfigPatch => Reply::json(&app.patch(call.object()?, &call.read()?).await?),
            Route::ConfigEval => Reply::json(&app.evaluate(call.object()?, call.value("node").as_deref()).await?),
            Route::ConfigCheck => Reply::json(&app.check(call.object()?, None).await?),
            Route::ConfigCheckText => Reply::json(&app.check(call.object()?, Some(call.read()?)).await?),
            Route::Keys => Reply::json(&app.keys(call.object()?, call.value("match").as_deref()).await?),
            Route::Value => Ok(Reply::Bytes(app.value(call.object()?, &key(&call)?).await?.0)),
            Route::ValuePut => {
                let mode = match call.value("mode").as_deref() {
                    Some("add") => api::WriteMode::Add,
                    None | Some("change") => api::WriteMode::Change,
                    Some("append") => api::WriteMode::Append,
                    Some(other) => {
                        return Err(Refusal::bad(format!("`{other}` is no mode")).hint("add, change or append"));
                    }
                };
                Reply::json(&app.put_value(call.object()?, &key(&call)?, mode, &call.body).await?)
            }
            Route::ValueDelete => Reply::json(&app.remove_value(call.object()?, &key(&call)?).await?),
            Route::Enter => Reply::json(&self.enter(call.object()?, call.value("rid").as_deref()).await?),
            Route::Output => {
                let backlog = call.value("backlog").and_then(|text| text.parse().ok()).unwrap_or(BACKLOG);
                let (rid, follow) =
                    (call.value("rid").unwrap_or_default(), call.value("follow").as_deref() == Some("true"));
                Reply::json(&self.output(call.object()?, &rid, follow, backlog)?)
            }
            Route::Act => Reply::json(&app.act(&call.read()?).await?),
            Route::Events => self.events(&call).await,
            Route::Logs => self.logs(&call).await,
            Route::Node => Reply::json(&app.node()),
            Route::NodeAct => {
                app.node_act(&call.read::<api::NodeAct>()?.verb).await?;
                Reply::json(&api::Done {})
            }
            Route::NodeConfig => Reply::json(&app.node_config()?),
            Route::NodeConfigReplace => Reply::json(&app.node_config_replace(&call.read()?).await?),
            Route::NodeConfigPatch => Reply::json(&app.node_config_patch(&call.read()?).await?),
            Route::Backup => app.backup().await.map(Reply::Bytes),
            Route::Pools => Reply::json(&self.pools()),
            Route::Networks => Reply::json(&self.networks()),
            Route::Dns => Reply::json(&app.names.told()),
            Route::DnsSetup => {
                let asked: api::DnsSetup = call.read()?;
                let done = app.names.setup(&asked).await?;
                if done.done && !asked.undo {
                    app.engine_follows().await;
                }
                Reply::json(&done)
            }
        }
    }

    async fn status(&self, call: &Call) -> Result<api::Snapshot, Refusal> {
        let app = &self.0;
        let mut selected = app.select(&selector(call)).await?;
        if call.is_set("refresh") {
            let paths =
                selected.iter().map(|(path, _)| path.clone()).filter(|path| path.kind.has_resources()).collect();
            app.engine.refresh(paths).await.map_err(|refused| crate::daemon::actions::refusal(&refused))?;
            selected = app.select(&selector(call)).await?;
        }
        let objects = selected.iter().map(|(path, config)| (path.fqn(), app.status_of(path, config)));
        Ok(api::Snapshot {
            cluster: app.current.get().cluster.name.clone(),
            node: app.current.get().node.to_string(),
            nodes: app.nodes(),
            objects: objects.collect(),
        })
    }

    /// The events of a selection, or of one request until it ended.
    async fn events(&self, call: &Call) -> Result<Reply, Refusal> {
        let app = Arc::clone(&self.0);
        let (lines, reply) = mpsc::channel(QUEUE);
        if let Some(request) = call.value("request") {
            let Some(path) = app.hub.path_of(&request) else {
                return Err(Refusal::new(code::NOT_FOUND, format!("there is no request {request}")));
            };
            let stopping = app.shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = follow(&app, &request, &path, &lines) => {}
                    () = stopping.requested() => {}
                    () = lines.closed() => {}
                }
            });
            return Ok(Reply::Lines(reply));
        }
        let selector = call.value("selector").unwrap_or_else(|| "**".into());
        // Said at once if it makes no sense.
        app.select(&selector).await?;
        let stopping = app.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tell(&app, &selector, &lines) => {}
                () = stopping.requested() => {}
                () = lines.closed() => {}
            }
        });
        Ok(Reply::Lines(reply))
    }

    async fn logs(&self, call: &Call) -> Result<Reply, Refusal> {
        let app = Arc::clone(&self.0);
        let of_node = call.is_set("node");
        let paths: BTreeSet<String> = match call.value("selector") {
            Some(selector) => app.select(&selector).await?.iter().map(|(path, _)| path.fqn()).collect(),
            None => BTreeSet::new(),
        };
        let wanted = move |line: &api::LogLine| {
            if line.path.is_empty() { of_node } else { of_node && paths.is_empty() || paths.contains(&line.path) }
        };
        let backlog = call.value("backlog").and_then(|text| text.parse().ok()).unwrap_or(BACKLOG);
        let mut followed = call.is_set("follow").then(|| app.journal.follow());
        let journal = app.journal.clone();
        let (lines, reply) = mpsc::channel(QUEUE);
        let stopping = app.shutdown.clone();
        tokio::spawn(async move {
            let work = async {
                let read = tokio::task::spawn_blocking(move || {
                    let found = journal.backlog(backlog, &wanted);
                    (found, wanted)
                });
                let Ok((found, wanted)) = read.await else { return };
                for line in found.unwrap_or_default() {
                    if !send(&lines, &line).await {
                        return;
                    }
                }
                let mut alive = interval(ALIVE);
                alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while let Some(followed) = followed.as_mut() {
                    let sent = tokio::select! {
                        line = followed.recv() => match line {
                            Ok(line) if wanted(&line) => send(&lines, &line).await,
                            Ok(_) | Err(RecvError::Lagged(_)) => true,
                            Err(RecvError::Closed) => false,
                        },
                        // An empty line of the node: readers know that the daemon lives.
                        _ = alive.tick() => send(&lines, &api::LogLine { time: now(), ..api::LogLine::default() }).await,
                    };
                    if !sent {
                        return;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = stopping.requested() => {}
                () = lines.closed() => {}
            }
        });
        Ok(Reply::Lines(reply))
    }

    /// What is known of the resources of an object here that are wanted: a fact of each, if it is known.
    fn facts_of<T>(&self, path: &ObjectPath, wanted: impl Fn(&Rid, &ResourceStatus) -> Option<Option<T>>) -> Facts<T> {
        self.0.engine.read(|view| {
            let report = view.objects.get(path).and_then(|object| object.report(&view.me));
            let seen = report.into_iter().flat_map(|report| &report.resources);
            seen.filter_map(|(rid, seen)| Some((rid.to_string(), wanted(rid, seen)?))).collect()
        })
    }

    async fn enter(&self, path: &ObjectPath, rid: Option<&str>) -> Result<api::Enter, Refusal> {
        let id = |seen: &ResourceStatus| seen.info.get("container_id").filter(|_| seen.status == Status::Up).cloned();
        let containers = self.facts_of(path, |rid, seen| (rid.group() == "container").then(|| id(seen)));
        let (rid, id) = choose(path, rid, &containers, "container")?;
        let Some(id) = id else {
            return Err(Refusal::new(code::CONFLICT, format!("{rid} of {path} does not run on this node")));
        };
        if !self.0.supplies.images.has_shell(id).await.map_err(|error| Refusal::internal(error.to_string()))? {
            let refusal = Refusal::new(code::CONFLICT, format!("{rid} of {path} has no shell in its image"));
            return Err(refusal.hint(format!(
                "the node's own programs in its network: nsenter --net --target $(docker inspect --format {{{{.State.Pid}}}} {})",
                &id[..id.len().min(12)]
            )));
        }
        tracing::info!(object.path = %path, %rid, "a shell is entered");
        let shell = "[ -x /bin/bash ] && exec /bin/bash; exec /bin/sh";
        let words = ["docker", "--host", &self.0.engine_host, "exec", "-it", id, "/bin/sh", "-c", shell];
        Ok(api::Enter { command: words.iter().map(ToString::to_string).collect() })
    }

    /// How to see what a resource prints: its container's output as the engine keeps it, or the file of its process.
    fn output(&self, path: &ObjectPath, rid: &str, follow: bool, backlog: u64) -> Result<api::Enter, Refusal> {
        let writers = self.facts_of(path, |rid, seen| {
            let fact = |name: &str| seen.info.get(name).cloned();
            match rid.group() {
                "container" => Some(fact("container_id").map(Output::Container)),
                "app" => Some(fact("output").map(Output::File)),
                _ => None,
            }
        });
        let (rid, output) = choose(path, Some(rid), &writers, "container or app")?;
        let follow = |word: &str| follow.then(|| word.to_owned());
        let command = match output {
            Some(Output::Container(id)) => {
                // The engine counts lines.
                let lines = (backlog / LINE).max(1).to_string();
                let words = ["docker", "--host", &self.0.engine_host, "logs", "--tail", &lines];
                let words = words.iter().map(ToString::to_string).chain(follow("--follow"));
                words.chain([id.clone()]).collect()
            }
            Some(Output::File(file)) => {
                let words =
                    ["tail".to_owned(), format!("--bytes={backlog}")].into_iter().chain(follow("--follow=name"));
                words.chain([file.clone()]).collect()
            }
            None => {
                let refusal = Refusal::new(code::CONFLICT, format!("{rid} of {path} has printed nothing on this node"));
                return Err(refusal.hint(format!("om {path} print status -r")));
            }
        };
        Ok(api::Enter { command })
    }

    fn pools(&self) -> api::Pools {
        let app = &self.0;
        let pools = app.supplies.pools();
        let told = |(pool, facts): (crate::daemon::volumes::Pool, Result<om_core::pool::PoolFacts, String>)| {
            let volumes = app.engine.read(|view| {
                let of_pool = view.objects.iter().filter_map(|(path, object)| {
                    let volume = object.config.as_ref()?.volume.as_ref().filter(|volume| volume.pool == pool.name)?;
                    Some(api::PoolVolume {
                        path: path.fqn(),
                        size: volume.size,
                        children: volume.children.iter().map(ObjectPath::fqn).collect(),
                    })
                });
                of_pool.collect()
            });
            let (room, problem) = match facts {
                Ok(facts) => ((facts.size, facts.size.saturating_sub(facts.free), facts.room()), None),
                Err(problem) => ((0, 0, 0), Some(problem)),
            };
            let accesses = [("rox", om_core::instance::Access::Rox), ("rwx", om_core::instance::Access::Rwx)];
            let accesses = accesses.into_iter().filter(|(_, access)| pool.kind.takes(*access)).map(|(word, _)| word);
            let shared = pool.kind.is_shared().then_some("shared");
            api::Pool {
                capabilities: accesses.chain(["roo", "rwo"]).chain(shared).map(ToOwned::to_owned).collect(),
                kind: pool.kind.as_str().into(),
                head: pool.path.display().to_string(),
                name: pool.name,
                size: room.0,
                used: room.1,
                free: room.2,
                problem,
                volumes,
            }
        };
        api::Pools { pools: pools.into_iter().map(told).collect() }
    }

    fn networks(&self) -> api::Networks {
        let world = self.0.current.get();
        let told = |view: &om_core::view::View| {
            world.cluster.networks.iter().map(|one| networks::told(&world, view, one)).collect()
        };
        api::Networks { networks: self.0.engine.read(told) }
    }
}

/// Resources, with a fact of each if it is known.
type Facts<T> = Vec<(String, Option<T>)>;

/// Where what a resource prints is kept.
enum Output {
    /// The engine keeps it for the container with this id.
    Container(String),
    /// A file of this node.
    File(String),
}

/// The resource that is named, or the only one of which something is known.
fn choose<'a, T>(
    path: &ObjectPath,
    rid: Option<&str>,
    found: &'a Facts<T>,
    what: &str,
) -> Result<&'a (String, Option<T>), Refusal> {
    let known: Vec<&(String, Option<T>)> = found.iter().filter(|(_, fact)| fact.is_some()).collect();
    match (rid, known.as_slice()) {
        (Some(rid), _) => found.iter().find(|(found, _)| found == rid).ok_or_else(|| {
            let names = found.iter().map(|(rid, _)| rid.as_str());
            let near = nearest(rid, names.clone());
            let hint = near.map_or_else(
                || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            Refusal::new(code::NOT_FOUND, format!("{path} has no {what} {rid} here")).hint(hint)
        }),
        (None, [one]) => Ok(one),
        (None, []) => Err(Refusal::new(code::CONFLICT, format!("no {what} of {path} runs on this node"))),
        (None, many) => {
            let names: Vec<&str> = many.iter().map(|(rid, _)| rid.as_str()).collect();
            let refusal = Refusal::bad(format!("{path} has several of them"));
            Err(refusal.hint(format!("write --rid with one of {}", names.join(", "))))
        }
    }
}

fn selector(call: &Call) -> String {
    call.value("selector").unwrap_or_else(|| "**".into())
}

fn key(call: &Call) -> Result<String, Refusal> {
    call.value("key").ok_or_else(|| Refusal::bad("no key is named").hint("write --key NAME"))
}

/// Sends a line; false if nobody reads any more.
async fn send(lines: &mpsc::Sender<Bytes>, value: &impl Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(value) else { return false };
    line.push(b'\n');
    lines.send(line.into()).await.is_ok()
}

/// What was and is told of a request, until it ended.
async fn follow(app: &App, request: &str, path: &str, lines: &mpsc::Sender<Bytes>) {
    let (told, mut news) = app.hub.listen_for(request);
    for event in told {
        if !send(lines, &*event).await || matches!(*event, Event::Ended { .. }) {
            return;
        }
    }
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = news.recv() => event,
            _ = alive.tick() => {
                if !send(lines, &Event::Alive).await {
                    return;
                }
                continue;
            }
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Closed) => return,
            // The end may be among what was missed, and is remembered.
            Err(RecvError::Lagged(_)) => {
                let (told, _) = app.hub.listen_for(request);
                match told.into_iter().next_back().filter(|last| matches!(**last, Event::Ended { .. })) {
                    Some(last) => last,
                    None => continue,
                }
            }
        };
        let (wanted, last) = match &*event {
            // A job that was begun here without an order has no request.
            Event::Progress { request: of, path: at, .. } => {
                (of.as_deref() == Some(request) || of.is_none() && at == path, false)
            }
            Event::Ended { request: of, .. } => (of == request, of == request),
            Event::Instance { path: at, .. } => (at == path, false),
            _ => (false, false),
        };
        if wanted && (!send(lines, &*event).await || last) {
            return;
        }
    }
}

/// All that happens to a selection, beginning with how it is.
async fn tell(app: &App, selector: &str, lines: &mpsc::Sender<Bytes>) {
    let mut news = app.hub.listen();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut whole = true;
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if std::mem::take(&mut whole) {
            let Ok(selected) = app.select(selector).await else { return };
            let now: BTreeSet<String> = selected.iter().map(|(path, _)| path.fqn()).collect();
            for path in known.difference(&now) {
                if !send(lines, &Event::Gone { path: path.clone() }).await {
                    return;
                }
            }
            for (path, config) in &selected {
                let object = Box::new(app.status_of(path, config));
                let event = Event::Instance { path: path.fqn(), node: app.current.get().node.to_string(), object };
                if !send(lines, &event).await {
                    return;
                }
            }
            known = now;
        }
        let event = tokio::select! {
            event = news.recv() => event,
            _ = alive.tick() => {
                if !send(lines, &Event::Alive).await {
                    return;
                }
                continue;
            }
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(_)) => {
                whole = true;
                continue;
            }
        };
        let wanted = match &*event {
            Event::Instance { path, .. } if !known.contains(path) => {
                // A new object, or one that is selected by how it is.
                let selected = app.select(selector).await.unwrap_or_default();
                let selected = selected.iter().any(|(found, _)| found.fqn() == *path);
                if selected {
                    known.insert(path.clone());
                }
                selected
            }
            Event::Gone { path } => known.remove(path),
            Event::Instance { .. } | Event::Node { .. } | Event::Alive => true,
            Event::Progress { path, .. } | Event::Ended { path, .. } => known.contains(path),
        };
        if wanted && !send(lines, &*event).await {
            return;
        }
    }
}
