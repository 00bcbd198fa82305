//! The `adopt` and `release` commands, and what `serve` does with the directory of another
//! registry: progress, report, hints. The work itself is `registry_store::adopt`'s.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use registry_core::adopt::{Denial, Finding, Next, State, Wish};
use registry_store::{
    adopt::{
        AdoptError, Changes, Phase, Progress, Released, Report, Totals, adopt as take_over, release as give_back, stand,
    },
    blob::fs::FsBlobs,
    data_dir::DataDir,
    disk::Poison,
    meta::sqlite::SqliteMetadata,
};
use serde_json::{Value, json};

use crate::{
    cli::{Adopt, ConfigPath, Format},
    configured, data_root,
};

/// Largest manifest where no configuration says; distribution takes no larger ones either.
const MANIFEST_MAX: u64 = 4 << 20;
/// How often progress is shown on a terminal, and where it makes lines.
const REDRAW: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The directory that the command line means, and how large a manifest may be.
fn find(options: &Adopt) -> anyhow::Result<(PathBuf, u64)> {
    let from_config = |config: Option<String>| {
        let config = configured(&ConfigPath { config })?;
        anyhow::Ok((data_root(&config)?.to_owned(), config.limits.manifest))
    };
    if let Some(root) = &options.data {
        return Ok((root.clone(), MANIFEST_MAX));
    }
    match &options.place {
        Some(path) if path.is_file() => from_config(Some(path.to_string_lossy().into_owned())),
        Some(path) => Ok((path.clone(), MANIFEST_MAX)),
        None => {
            let config = options.config.clone().or_else(|| std::env::var("REGISTRY_CONFIGURATION_PATH").ok());
            from_config(config).context("which data directory? name it, or a configuration (see --help)")
        }
    }
}

/// Opens a directory that is there already.
fn open(root: &Path) -> anyhow::Result<(DataDir, Poison, Arc<SqliteMetadata>)> {
    ensure!(
        root.join("docker/registry/v2").is_dir(),
        "{} is no registry's data directory: it has no docker/registry/v2 (hint: name what \
         storage.filesystem.rootdirectory names)",
        root.display()
    );
    warn_of_owner(root);
    let dir = DataDir::open(root).context("stop the server that has it first")?;
    let poison = Poison::default();
    let metadata = Arc::new(SqliteMetadata::open_in(&dir, poison.clone())?);
    Ok((dir, poison, metadata))
}

/// Files that root makes are none that a server of another user can change.
fn warn_of_owner(root: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid().as_raw();
    if let Ok(owner) = root.join("docker/registry/v2").metadata().map(|dir| dir.uid())
        && owner != me
    {
        eprintln!(
            "registry: warning: {} belongs to user {owner}, and this runs as user {me}: run it as the server's user, \
             or give the files to that user before the server starts",
            root.display()
        );
    }
}

/// Takes over the directory of another registry server, which may go on serving it.
pub(crate) fn adopt(options: &Adopt) -> anyhow::Result<ExitCode> {
    let (root, limit) = find(options)?;
    let there = DataDir::peek(&root);
    if !there.looks_foreign() && !there.metadata().exists() {
        // Nothing of ours is made where there is nothing to take over.
        return Err(AdoptError::Denied { root, denial: Denial::NoLinks }.into());
    }
    let (dir, _, metadata) = open(&root)?;
    let Next::Adopt(mode, state) = stand(&metadata, &dir, Wish::Adopt)? else {
        unreachable!("an adoption is refused or done")
    };
    let started = Instant::now();
    let report = watched(async |progress| take_over(&metadata, &dir, mode, state, limit, progress).await)?;
    let text = match options.format {
        Format::Table => adopted_text(&root, state, &report, started.elapsed()),
        Format::Json => format!("{}\n", adopted_json(state, &report, started.elapsed())),
    };
    io::stdout().write_all(text.as_bytes()).context("print the report")?;
    Ok(ExitCode::SUCCESS)
}

/// Gives a directory to another registry server.
pub(crate) fn release(options: &Adopt) -> anyhow::Result<ExitCode> {
    let (root, _) = find(options)?;
    let (dir, poison, metadata) = open(&root)?;
    let started = Instant::now();
    let released = if stand(&metadata, &dir, Wish::Release)? == Next::Done {
        eprintln!("registry: {} is released already; nothing was changed", root.display());
        None
    } else {
        let blobs = FsBlobs::new(dir, poison);
        Some(watched(async |progress| give_back(&metadata, &blobs, progress).await)?)
    };
    let text = match (released, options.format) {
        (None, Format::Table) => String::new(),
        (None, Format::Json) => format!("{}\n", json!({"state": State::Released.as_str()})),
        (Some(released), Format::Table) => released_text(&root, &released, started.elapsed()),
        (Some(released), Format::Json) => format!("{}\n", released_json(&released, started.elapsed())),
    };
    io::stdout().write_all(text.as_bytes()).context("print the report")?;
    Ok(ExitCode::SUCCESS)
}

/// Does what has to be done before a directory is served: takes over what another server left.
pub(crate) async fn before_serving(metadata: &Arc<SqliteMetadata>, dir: &DataDir, limit: u64) -> anyhow::Result<()> {
    let root = dir.root().display();
    let (mode, state) = match stand(metadata, dir, Wish::Serve)? {
        Next::GoWithout => {
            tracing::warn!(
                "{root} also holds images of another registry, which are not served: `registry adopt` takes them over"
            );
            return Ok(());
        }
        Next::Adopt(mode, state) => (mode, state),
        Next::Go | Next::Done | Next::Refuse(_) => return Ok(()),
    };
    tracing::info!("{root} holds images of another registry: taking them over, in place");
    let (started, progress) = (Instant::now(), Arc::new(Progress::default()));
    let mut work = std::pin::pin!(take_over(metadata, dir, mode, state, limit, &progress));
    let mut gauge = Gauge::new();
    let report = loop {
        match tokio::time::timeout(LINE_EVERY, &mut work).await {
            Ok(done) => break done?,
            Err(_) => tracing::info!("{}", gauge.line(progress.now())),
        }
    };
    for finding in report.skipped.iter().take(SHOWN) {
        tracing::warn!(path = finding.path, "not taken over: {}: {}", finding.path, finding.reason);
    }
    for finding in report.warnings.iter().take(SHOWN) {
        tracing::warn!(path = finding.path, "taken over with a fault: {}: {}", finding.path, finding.reason);
    }
    tracing::info!(
        skipped = report.skipped.len(),
        warnings = report.warnings.len(),
        "taken over in {}: {}; the other registry must not serve {root} from now on (`registry release` gives it back)",
        seconds(started.elapsed()),
        totals_text(&report.totals)
    );
    Ok(())
}

/// Findings that go to the log.
const SHOWN: usize = 100;

/// Runs `work`, with its progress on standard error.
fn watched<T, E: std::error::Error + Send + Sync + 'static>(
    work: impl AsyncFnOnce(&Arc<Progress>) -> Result<T, E>,
) -> anyhow::Result<T> {
    let progress = Arc::new(Progress::default());
    let (end, ended) = mpsc::channel::<()>();
    let shown = Arc::clone(&progress);
    let watcher = std::thread::spawn(move || {
        let terminal = io::stderr().is_terminal();
        let (every, mut gauge) = (if terminal { REDRAW } else { LINE_EVERY }, Gauge::new());
        let mut drawn = false;
        while ended.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
            let line = gauge.line(shown.now());
            if terminal {
                eprint!("\r\x1b[K{line}");
                drawn = true;
            } else {
                eprintln!("registry: {line}");
            }
        }
        if drawn {
            eprint!("\r\x1b[K");
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work(&progress));
    drop(end);
    watcher.join().ok();
    Ok(result?)
}

/// Makes lines of progress, with an estimate from the time that the phase has taken so far.
struct Gauge {
    phase: Option<Phase>,
    since: Instant,
}

impl Gauge {
    fn new() -> Self {
        Self { phase: None, since: Instant::now() }
    }

    fn line(&mut self, (phase, done, total): (Phase, u64, u64)) -> String {
        if self.phase != Some(phase) {
            *self = Self { phase: Some(phase), since: Instant::now() };
        }
        line(phase, done, total, self.since.elapsed())
    }
}

fn line(phase: Phase, done: u64, total: u64, elapsed: Duration) -> String {
    let mut line = phase.as_str().to_owned();
    if total > 0 {
        let done = done.min(total);
        write!(line, ": {done} of {total} ({} %)", done * 100 / total).expect("strings take all writes");
        // The first second tells too little.
        if done > 0 && done < total && elapsed >= Duration::from_secs(1) {
            let left = elapsed.mul_f64((total - done) as f64 / done as f64);
            write!(line, ", about {} left", seconds(left)).expect("strings take all writes");
        }
    } else if done > 0 {
        write!(line, ": {done}").expect("strings take all writes");
    }
    line
}

fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min", whole.div_ceil(60)),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = count as f64;
    let mut unit = None;
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = Some(next);
    }
    unit.map_or_else(|| format!("{count} bytes"), |unit| format!("{size:.1} {unit}"))
}

fn totals_text(totals: &Totals) -> String {
    let Totals { repositories, manifests, tags, blobs, bytes: size } = totals;
    format!("{repositories} repositories, {manifests} manifests, {tags} tags, {blobs} blobs with {}", bytes(*size))
}

fn findings_text(text: &mut String, title: &str, findings: &[Finding]) {
    if !findings.is_empty() {
        writeln!(text, "\n{title}:").expect("strings take all writes");
        for Finding { path, reason } in findings {
            writeln!(text, "  {path}: {reason}").expect("strings take all writes");
        }
    }
}

fn adopted_text(root: &Path, state: State, report: &Report, elapsed: Duration) -> String {
    let mut text = format!("{}: {}\ncompared in {}\n", root.display(), totals_text(&report.totals), seconds(elapsed));
    for (what, Changes { blobs, manifests, tags }) in [("added", report.added), ("removed", report.removed)] {
        if [blobs, manifests, tags] != [0; 3] {
            writeln!(text, "{what}: {manifests} manifests, {tags} tags, {blobs} links to blobs")
                .expect("strings take all writes");
        }
    }
    if report.unnamed > 0 {
        writeln!(text, "{} files of blobs are named by no repository; the collection removes them", report.unnamed)
            .expect("strings take all writes");
    }
    findings_text(&mut text, "not taken over", &report.skipped);
    findings_text(&mut text, "taken over with a fault", &report.warnings);
    if report.more > 0 {
        writeln!(text, "  and {} more", report.more).expect("strings take all writes");
    }
    text.push_str(match state {
        State::Following => {
            "\nThe other registry may go on serving. Run this again whenever you like; at last stop it, and start\n\
             `registry serve`, which takes over what came since.\n"
        }
        State::Own | State::Released => "\n`registry serve` serves it all.\n",
    });
    text
}

fn released_text(root: &Path, released: &Released, elapsed: Duration) -> String {
    let mut text = format!(
        "{}: {}\nreleased in {}: {} link files written, {} removed\n",
        root.display(),
        totals_text(&released.totals),
        seconds(elapsed),
        released.written,
        released.removed
    );
    findings_text(&mut text, "not given back", &released.skipped);
    text.push_str("\nAnother registry can serve it now. `registry adopt` takes it back.\n");
    text
}

fn findings_json(findings: &[Finding]) -> Value {
    findings.iter().map(|finding| json!({"path": finding.path, "reason": finding.reason})).collect()
}

fn merged(mut value: Value, totals: &Totals, elapsed: Duration) -> Value {
    let Totals { repositories, manifests, tags, blobs, bytes } = totals;
    let counts =
        json!({"repositories": repositories, "manifests": manifests, "tags": tags, "blobs": blobs, "bytes": bytes});
    if let (Value::Object(value), Value::Object(counts)) = (&mut value, counts) {
        value.extend(counts);
        value.insert("seconds".into(), json!(elapsed.as_secs_f64()));
    }
    value
}

fn adopted_json(state: State, report: &Report, elapsed: Duration) -> Value {
    let changes =
        |changes: &Changes| json!({"blobs": changes.blobs, "manifests": changes.manifests, "tags": changes.tags});
    let value = json!({
        "state": state.as_str(),
        "added": changes(&report.added),
        "removed": changes(&report.removed),
        "unnamed": report.unnamed,
        "skipped": findings_json(&report.skipped),
        "warnings": findings_json(&report.warnings),
        "more": report.more,
    });
    merged(value, &report.totals, elapsed)
}

fn released_json(released: &Released, elapsed: Duration) -> Value {
    let value = json!({
        "state": State::Released.as_str(),
        "written": released.written,
        "removed": released.removed,
        "skipped": findings_json(&released.skipped),
    });
    merged(value, &released.totals, elapsed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry_store::adopt::Phase;

    use super::{bytes, line};

    #[test]
    fn progress_has_an_estimate_once_there_is_one() {
        let check = |done, total, seconds, want| {
            assert_eq!(line(Phase::Sizes, done, total, Duration::from_secs(seconds)), want);
        };
        check(0, 0, 5, "looking at blobs");
        check(7, 0, 5, "looking at blobs: 7");
        check(0, 10, 5, "looking at blobs: 0 of 10 (0 %)");
        check(1, 10, 0, "looking at blobs: 1 of 10 (10 %)");
        check(1, 10, 5, "looking at blobs: 1 of 10 (10 %), about 45 s left");
        check(1, 100, 5, "looking at blobs: 1 of 100 (1 %), about 9 min left");
        check(10, 10, 5, "looking at blobs: 10 of 10 (100 %)");
    }

    #[test]
    fn sizes_are_short() {
        let seen = [0, 1023, 1536, 5 << 30].map(bytes);
        assert_eq!(seen, ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB"]);
    }
}
