//! `cargo xtask bench`: our registry next to Docker Registry 2.8 and nginx, in alternating rounds.
//!
//! This file owns the options and the order of things; the client, the servers, the scenarios and the report are
//! below `bench/`. Servers listen on loopback only, their data lies on a real disk and is removed afterwards.

mod access;
pub(crate) mod drive;
mod guard;
pub(crate) mod http;
mod machine;
pub(crate) mod payload;
pub(crate) mod registry;
mod report;
mod scenarios;
mod server;
pub(crate) mod upkeep;
mod verify;

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use drive::Budget;
use guard::Guard;
use report::{Column, Figures, Row};
use scenarios::{Fixture, Round, Scenario, Site};
use server::{Kind, Launch};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Our server; it is started as `PATH serve CONFIG`.
    #[arg(long, value_name = "PATH", default_value = "target/release/registry")]
    ours: PathBuf,
    /// Docker Registry 2.8 (Debian package docker-registry).
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/docker-registry")]
    peer: PathBuf,
    /// nginx, the limit for reads.
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// Compare our server with access control and without, in place of comparing it with others.
    #[arg(long, conflicts_with = "only")]
    access_control: bool,
    /// Rounds of each scenario on each server, in turns [default: 3, with --access-control 9, with --quick 1].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Length of a round [default: 4, with --access-control 1.5, with --quick 1].
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Only scenarios whose name contains one of these words; `verify` is one, too.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    scenario: Vec<String>,
    /// One short round, a tenth of the tags and repositories: to see that all works, not to compare.
    #[arg(long)]
    quick: bool,
    /// Measure one server alone, without nginx.
    #[arg(long, value_name = "SERVER")]
    only: Option<Only>,
    /// Write all figures of all rounds.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the servers keep their data, on a real disk [default: target/bench-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Name the scenarios and stop.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Ours,
    V2,
}

/// What a run needs to know everywhere.
struct Bench {
    programs: Vec<(Kind, PathBuf)>,
    data: PathBuf,
    rounds: usize,
    budget: Budget,
    /// Tags or repositories of the large fixtures.
    many: usize,
    stop: Arc<AtomicBool>,
}

/// Measures, prints Markdown to standard output and progress to standard error.
///
/// # Errors
/// If a server does not start, any request is answered wrongly, or the run is interrupted.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |name: &str| options.scenario.is_empty() || options.scenario.iter().any(|word| name.contains(word));
    let all = if options.access_control { access::scenarios() } else { scenarios::all() };
    let scenarios: Vec<Scenario> = all.into_iter().filter(|scenario| wanted(scenario.name)).collect();
    if options.list {
        println!("verify");
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return Ok(());
    }
    ensure!(!scenarios.is_empty() || wanted("verify"), "no such scenario; `--list` names them");
    let bench = Bench::new(options)?;
    let machine = machine::describe(&bench.data, &bench.programs)?;
    println!("### Machine\n\n| | |\n|---|---|");
    machine.iter().for_each(|(name, value)| println!("| {name} | {value} |"));
    let mut faults = if wanted("verify") { bench.verify()? } else { 0 };
    let mut rows = Vec::new();
    let mut rest = scenarios.into_iter().peekable();
    while let Some(first) = rest.next() {
        let fixture = first.fixture;
        let mut group = vec![first];
        while let Some(next) = rest.next_if(|next| fixture != Fixture::Empty && next.fixture == fixture) {
            group.push(next);
        }
        rows.extend(bench.measure(fixture, group)?);
        if bench.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    if !rows.is_empty() {
        let text = if options.access_control { report::access::markdown(&rows) } else { report::markdown(&rows) };
        println!("{text}");
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report::raw(&machine, &rows))?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    ensure!(!bench.stop.load(Ordering::Relaxed), "interrupted");
    for row in &rows {
        faults += row.columns.iter().flat_map(|column| &column.rounds).map(|figures| figures.errors).sum::<u64>();
        faults += u64::from(row.failure.is_some());
    }
    ensure!(faults == 0, "{faults} errors; see above");
    Ok(())
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
        // Relative to where the user stands, else to the workspace: the alias works in any folder below it.
        let program = |path: &Path| match path.canonicalize().or_else(|_| root.join(path).canonicalize()) {
            Ok(path) => Ok(path),
            Err(error) => {
                bail!("find {}: {error}; build it, install it, or name another one (see --help)", path.display())
            }
        };
        let kinds: &[Kind] = match options.only {
            Some(Only::Ours) => &[Kind::Ours],
            Some(Only::V2) => &[Kind::V2],
            None if options.access_control => &[Kind::Ours, Kind::Guarded],
            None => &[Kind::Ours, Kind::V2, Kind::Nginx],
        };
        let path = |kind| match kind {
            Kind::Ours | Kind::Guarded | Kind::Upkept => &options.ours,
            Kind::V2 => &options.peer,
            Kind::Nginx => &options.nginx,
        };
        let programs = kinds.iter().map(|&kind| Ok((kind, program(path(kind))?))).collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, stop.clone()).context("install a signal handler")?;
        }
        let (rounds, seconds) = match (options.quick, options.access_control) {
            (true, _) => (1, 1.0),
            // Two builds of the same code differ little: many short rounds show more than few long ones.
            (false, true) => (9, 1.5),
            (false, false) => (3, 4.0),
        };
        let seconds = options.seconds.unwrap_or(seconds);
        ensure!(seconds > 0.0 && seconds <= 600.0, "--seconds must be above 0 and at most 600");
        let budget = Budget { time: Duration::from_secs_f64(seconds), operations: u64::MAX };
        let rounds = options.rounds.unwrap_or(rounds);
        ensure!((1..=100).contains(&rounds), "--rounds must be 1 to 100");
        let data = options.data.clone().unwrap_or_else(|| root.join("target/bench-data"));
        let data = data.join(std::process::id().to_string());
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let data = data.canonicalize()?;
        Ok(Self { programs, data, rounds, budget, many: if options.quick { 1_000 } else { 10_000 }, stop })
    }

    fn site(&self, kind: Kind, program: &Path) -> Result<Site> {
        let dir = self.data.join(kind.name());
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let launch = Launch { kind, program: program.to_owned(), dir };
        if kind == Kind::Nginx {
            server::write_static_files(&launch.dir)?;
        }
        if kind == Kind::Guarded {
            Guard::initialise(&launch)?;
        }
        let server = launch.start()?;
        let guard = (kind == Kind::Guarded).then(|| Guard::of(&launch, &server)).transpose()?;
        let server = RefCell::new(Some(server));
        Ok(Site { launch, server, guard, held: Cell::new(0), stop: self.stop.clone() })
    }

    /// Checks every byte on each registry; returns the number of faults.
    fn verify(&self) -> Result<u64> {
        println!("\n### Verification\n");
        let mut faults = 0;
        for (kind, program) in self.programs.iter().filter(|(kind, _)| *kind != Kind::Nginx) {
            eprintln!("verify: {}", kind.name());
            let site = self.site(*kind, program)?;
            // v2 answers a POST with `?digest=` as if it had none, which the specification allows.
            let findings = verify::verify(&site.with_rights(verify::REPO, "pull,push")?, *kind != Kind::V2);
            println!("{}: {} checks, {} wrong  ", kind.name(), findings.checks, findings.wrong.len());
            findings.wrong.iter().for_each(|line| println!("- {line}"));
            faults += findings.wrong.len() as u64;
        }
        Ok(faults)
    }

    /// Runs scenarios that share a fixture on one set of servers.
    fn measure(&self, fixture: Fixture, group: Vec<Scenario>) -> Result<Vec<Row>> {
        let with_limit = group.iter().any(|scenario| scenario.limit.is_some());
        let mut sites = Vec::new();
        for (kind, program) in &self.programs {
            if *kind == Kind::Nginx && !with_limit {
                continue;
            }
            let site = self.site(*kind, program)?;
            let ready = site.server.borrow().as_ref().map_or(0, |server| server.ready_memory);
            if *kind != Kind::Nginx {
                let filled = fixture.fill(&site, self.many);
                if let Err(error) = filled {
                    let failure = format!("fill {}: {error:#}", kind.name());
                    eprintln!("{failure}");
                    let fail = |scenario| Row { failure: Some(failure.clone()), ..Row::new(scenario) };
                    return Ok(group.into_iter().map(fail).collect());
                }
            }
            sites.push((site, ready));
        }
        let rows = group.into_iter().map(|scenario| {
            let mut row = Row::new(scenario);
            if let Err(error) = self.rounds(&mut row, &sites) {
                row.failure = Some(format!("{error:#}"));
                eprintln!("{}: {error:#}", row.scenario.name);
            }
            row
        });
        Ok(rows.collect())
    }

    /// The rounds of one scenario, in turns, into its row.
    fn rounds(&self, row: &mut Row, sites: &[(Site, u64)]) -> Result<()> {
        let scenario = &row.scenario;
        eprint!("{}:", scenario.name);
        let mut lanes: Vec<(&Site, Round)> = Vec::new();
        for (site, ready_memory) in sites {
            let kind = site.launch.kind;
            let round = match (kind, scenario.limit) {
                (Kind::Nginx, Some((files, workers))) => Some(scenarios::read_static(site.target()?, files, workers)),
                (Kind::Nginx, None) => continue,
                _ => (scenario.prepare)(site).with_context(|| format!("prepare {}", kind.name()))?,
            };
            let Some(mut round) = round else {
                row.unsupported.push(kind);
                continue;
            };
            // What only a guarded server has is refused, or not, by scenarios of their own.
            if let (Some(guard), [_, ..]) = (&site.guard, &lanes[..]) {
                row.refusals += access::check_refusals(guard, &mut round).context("try without rights")?;
            }
            lanes.push((site, round));
            let (rounds, footprint) = (Vec::new(), server::Footprint::default());
            row.columns.push(Column { kind, rounds, ready_memory: *ready_memory, footprint });
        }
        for number in 0..self.rounds {
            // Nobody is always the first.
            let mut turns: Vec<_> = lanes.iter_mut().zip(&mut row.columns).collect();
            if number % 2 == 1 {
                turns.reverse();
            }
            for ((site, round), column) in turns {
                let sample = round(self.budget).with_context(|| format!("measure {}", column.kind.name()))?;
                let unit = scenario.bytes.map_or(1.0, |bytes| bytes as f64 / 1e6);
                eprint!(" {} {:.1}", column.kind.name(), sample.rate() * unit);
                column.rounds.push(Figures::from(sample));
                if let Some(server) = site.server.borrow().as_ref() {
                    column.footprint = server.footprint()?;
                }
            }
        }
        eprintln!();
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Whatever is left is below `target`; a failure here must not hide the result.
        let _ = fs::remove_dir_all(&self.data);
        if let Some(parent) = self.data.parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}
