//! The registry under test as a real process: its config, port, data, log and violent ends.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::client::Client;
use crate::command::tool;
use crate::process::{Process, wait_until};
use crate::random::Random;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Another process may take the free port between our look and the server's start.
const PORT_TRIES: usize = 5;

/// How to start a registry: configuration text, environment and data folder.
///
/// In the text and in environment values `{addr}` stands for `127.0.0.1:<port>`, `{port}` for its
/// port alone, `{debug}` for a second free address and `{data}` for the data folder.
#[derive(Debug, Clone)]
pub struct Setup {
    program: String,
    config: String,
    env: Vec<(String, String)>,
    data: Option<PathBuf>,
    probe: Probe,
}

/// How a test learns that the server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// It answers `GET /v2/` in plain text.
    Ask,
    /// It says so in its log.
    Log,
}

impl Setup {
    /// A registry with YAML `config`. `program` is its path; `REGISTRY_UNDER_TEST` overrides it.
    pub fn new(program: &str, config: &str) -> Self {
        let program = std::env::var("REGISTRY_UNDER_TEST").unwrap_or_else(|_| program.to_owned());
        Self { program, config: config.to_owned(), env: Vec::new(), data: None, probe: Probe::Ask }
    }

    /// A server that is not the one under test, such as the registry that it takes over from.
    pub fn other(program: &str, config: &str) -> Self {
        Self { program: program.to_owned(), ..Self::new(program, config) }
    }

    /// Sets an environment variable of the server.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses an existing folder for `{data}` instead of a fresh one.
    pub fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// For servers that do not speak plain text over TCP: waits for `listening on` in the log.
    pub fn probe_log(mut self) -> Self {
        self.probe = Probe::Log;
        self
    }

    /// Starts the server and waits until `GET /v2/` answers.
    #[track_caller]
    pub fn start(self) -> Server {
        let dir = tempfile::Builder::new().prefix("registry-").tempdir().expect("create a temp dir");
        let data = self.data.clone().unwrap_or_else(|| dir.path().join("data"));
        fs::create_dir_all(&data).expect("create the data folder");
        let addr = free_address();
        let debug = free_address();
        let mut server = Server { process: None, setup: self, addr, debug, data, dir };
        for _ in 0..PORT_TRIES {
            match server.launch() {
                Ok(()) => return server,
                Err(text) if text.to_lowercase().contains("address already in use") => {
                    (server.addr, server.debug) = (free_address(), free_address());
                }
                Err(text) => panic!("{text}"),
            }
        }
        panic!("no free port in {PORT_TRIES} tries: {}", server.log());
    }
}

/// A running registry; dropping it ends it and, when the test failed, prints its log.
#[derive(Debug)]
pub struct Server {
    // Fields drop in this order: first the process, then its files.
    process: Option<Process>,
    setup: Setup,
    addr: String,
    debug: String,
    data: PathBuf,
    dir: TempDir,
}

impl Server {
    /// The base address, `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The part before the repository in an image name, `127.0.0.1:<port>`.
    pub fn host_port(&self) -> &str {
        &self.addr
    }

    /// The port.
    pub fn port(&self) -> &str {
        self.addr.rsplit_once(':').expect("an address has a port").1
    }

    /// The base address of the debug listener, if the configuration opens `{debug}`.
    pub fn debug_url(&self) -> String {
        format!("http://{}", self.debug)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// An anonymous client of this server.
    pub fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// The process id of the running server.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// All the server wrote since its first start.
    pub fn log(&self) -> String {
        fs::read(self.dir.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The configuration file the server was started with.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.yml")
    }

    /// Writes another configuration, `{…}` filled in as at the start; a running server is not told.
    pub fn write_config(&mut self, config: &str) {
        config.clone_into(&mut self.setup.config);
        fs::write(self.config(), self.fill(config)).expect("write the configuration");
    }

    /// Ends the server as an operator would and leaves it so.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.take().expect("the server runs").stop();
    }

    /// Ends the server as an operator would and starts it again on the same data and port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.take().expect("the server runs").stop();
        self.start_again();
    }

    /// Kills the server with SIGKILL and leaves it dead.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.process.take().expect("the server runs").kill9();
    }

    /// Starts the server after [`Server::kill9`] on the same data and port.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch().unwrap_or_else(|text| panic!("{text}"));
    }

    fn fill(&self, text: &str) -> String {
        let data = self.data.to_string_lossy();
        let text = text.replace("{addr}", &self.addr).replace("{port}", self.port());
        text.replace("{debug}", &self.debug).replace("{data}", &data)
    }

    fn launch(&mut self) -> Result<(), String> {
        let config = self.config();
        fs::write(&config, self.fill(&self.setup.config)).expect("write the configuration");
        let mut command = tool(&self.setup.program);
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        // Only the test's own overrides: the server reads every `REGISTRY_…` variable.
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
        for (name, value) in &self.setup.env {
            command.env(name, self.fill(value));
        }
        let log = self.dir.path().join("log");
        let logged = fs::metadata(&log).map_or(0, |file| file.len()) as usize;
        let probe = self.setup.probe;
        let process = Process::spawn(&self.setup.program, command, &log, STOP_LIMIT);
        let process = self.process.insert(process);
        let client = Client::new(&format!("http://{}", self.addr));
        let mut ended = None;
        // Any well-formed answer counts: 401 is ready as well.
        let up = wait_until(START_LIMIT, || {
            ended = process.ended();
            ended.is_some()
                || match probe {
                    Probe::Ask => client.get("/v2/").is_ok(),
                    Probe::Log => process.log().get(logged..).is_some_and(|new| new.contains("listening on")),
                }
        });
        match ended {
            None if up => Ok(()),
            None => Err(format!("`{}` does not answer:\n{}", self.setup.program, process.log())),
            Some(status) => Err(format!(
                "`{} serve` ended with {status} before it answered:\n{}",
                self.setup.program,
                process.log()
            )),
        }
    }
}

/// Picks a free port below the range Linux takes for outgoing connections: while a killed server
/// is down, a client's own connection must not sit on its port.
fn free_address() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.subsec_nanos());
    let mut random = Random::new(u64::from(nanos) ^ (u64::from(process::id()) << 32));
    for _ in 0..1000 {
        let port = 15_000 + random.below(15_000);
        if let Ok(listener) = TcpListener::bind(format!("127.0.0.1:{port}")) {
            let addr = listener.local_addr();
            return addr.expect("a bound listener has an address").to_string();
        }
    }
    panic!("no free port between 15000 and 30000");
}
