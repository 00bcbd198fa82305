//! Owns running CNI plugins: an address for a network namespace, kept in mind on disk until it is given back (CNI
//! specification 0.4.0, "Container Network Interface"). Does not own which networks there are.

mod masquerade;

use std::{
    ffi::OsStr,
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use om_core::{
    driver::DriverError,
    instance::Expose,
    network::{Network, Subnet},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::Mutex,
    time::timeout,
};

/// The version of the specification that is spoken: plugins of 2019 and later know it.
const VERSION: &str = "0.4.0";
/// What the plugin portmap says of rules for addresses that our networks do not have.
const NO_IPV6: &str = "could not check ipv6 dnat";
/// The longest time for one plugin.
const LIMIT: Duration = Duration::from_secs(30);
/// The most that a plugin may print.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// Where distributions put plugins.
const PLACES: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Runs plugins, one at a time: they share the bridge and the book of addresses. Clones wait for each other.
#[derive(Clone)]
pub struct Cni {
    plugins: Vec<PathBuf>,
    state: PathBuf,
    lock: Arc<Mutex<()>>,
}

/// A network namespace that is to have an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Whose it is: a container's id, so that it can be given back when the container is no more.
    pub container: String,
    /// The network namespace: a path.
    pub netns: String,
    /// The interface inside.
    pub device: String,
    /// The network's name.
    pub network: String,
    /// Whose it is, for people.
    #[serde(default)]
    pub owner: String,
}

impl Attachment {
    /// Whether it is the same address of the same namespace, whatever people call it.
    fn is(&self, other: &Self) -> bool {
        let Self { container, netns, device, network, owner: _ } = self;
        (container, netns, device, network) == (&other.container, &other.netns, &other.device, &other.network)
    }
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
}

/// What is kept on disk of an attachment, from before its first plugin runs until after its last one gave back.
#[derive(Serialize, Deserialize)]
struct Record {
    attachment: Attachment,
    /// The plugins, as they were when it was made.
    plugins: Vec<Value>,
    ports: Vec<Value>,
    /// The last plugin's result; none: it was begun.
    result: Option<Value>,
}

fn failed(what: String, error: impl std::fmt::Display) -> DriverError {
    DriverError::failed(format!("{what}: {error}"), None)
}

impl Cni {
    /// With plugins from where distributions put them; what is given is kept in `state`.
    pub fn new(state: PathBuf) -> Self {
        Self { plugins: PLACES.map(PathBuf::from).to_vec(), state, lock: Arc::default() }
    }

    /// The same with plugins from this directory, if there is one.
    #[must_use]
    pub fn with(&self, plugins: Option<&Path>) -> Self {
        let other = plugins.map(|dir| vec![dir.to_owned()]);
        Self { plugins: other.unwrap_or_else(|| self.plugins.clone()), ..self.clone() }
    }

    /// Gives an address, or says which one was given before and is still there.
    ///
    /// # Errors
    /// If a plugin is missing or fails; what was done until then is undone.
    pub async fn add(
        &self,
        attachment: &Attachment,
        network: &Network,
        part: Subnet,
        expose: &[Expose],
    ) -> Result<Given, DriverError> {
        let _one = self.lock.lock().await;
        if let Some(record) = self.read(attachment).await? {
            if record.attachment.is(attachment)
                && let Some(given) = record.result.as_ref().and_then(given)
                && self.check_all(&record).await.is_ok()
            {
                return Ok(given);
            }
            self.give_back(&record).await?;
        }
        let ports = ports(expose);
        fs::create_dir_all(&self.state)
            .await
            .map_err(|error| failed(format!("make {}", self.state.display()), error))?;
        self.check_ports(attachment, &ports).await?;
        let book = self.state.join("networks");
        let mut plugins = Vec::new();
        for plugin in network.plugins(part, !ports.is_empty()) {
            let mut plugin: Value = serde_json::from_str(&plugin).expect("the core writes JSON");
            if let Some(ipam) = plugin.get_mut("ipam").and_then(Value::as_object_mut) {
                ipam.insert("dataDir".into(), json!(book));
            }
            plugins.push(plugin);
        }
        // One that is missing could not give back what those before it took.
        for plugin in &plugins {
            self.find(name_of(plugin))?;
            plugin.get("ipam").map_or(Ok(()), |ipam| self.find(name_of(ipam)).map(|_| ()))?;
        }
        let mut record = Record { attachment: attachment.clone(), plugins, ports, result: None };
        // Before anything is taken: whoever comes after a crash knows what to give back.
        self.write(&record).await?;
        match self.add_all(&record).await {
            Ok(result) => {
                let Some(given) = given(&result) else {
                    self.give_back(&record).await?;
                    let what = format!("network {} gave no address to {}", attachment.network, attachment.container);
                    return Err(DriverError::failed(what, None));
                };
                record.result = Some(result);
                self.write(&record).await?;
                Ok(given)
            }
            Err(error) => {
                if let Err(undo) = self.give_back(&record).await {
                    tracing::warn!("an address is not given back yet: {undo}");
                }
                Err(error)
            }
        }
    }

    /// The address that was given, if all plugins say that it is as they made it.
    ///
    /// # Errors
    /// If what is kept cannot be read.
    pub async fn check(&self, attachment: &Attachment) -> Result<Option<Given>, DriverError> {
        let _one = self.lock.lock().await;
        let Some(record) = self.read(attachment).await? else { return Ok(None) };
        if !record.attachment.is(attachment) {
            return Ok(None);
        }
        let Some(given) = record.result.as_ref().and_then(given) else { return Ok(None) };
        match self.check_all(&record).await {
            Ok(()) => Ok(Some(given)),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }

    /// Gives an address back; the namespace may be gone. Nothing happens if there was none.
    ///
    /// # Errors
    /// If a plugin fails; then it is still kept in mind.
    pub async fn del(&self, attachment: &Attachment) -> Result<(), DriverError> {
        let _one = self.lock.lock().await;
        match self.read(attachment).await? {
            None => Ok(()),
            Some(record) => self.give_back(&record).await,
        }
    }

    /// Gives an address back whose network namespace is gone. Nothing happens if it is there, or if there was none.
    ///
    /// # Errors
    /// If a plugin fails; then it is still kept in mind.
    pub async fn bury(&self, attachment: &Attachment) -> Result<(), DriverError> {
        let _one = self.lock.lock().await;
        match self.read(attachment).await? {
            Some(record) if !fs::try_exists(&record.attachment.netns).await.unwrap_or(true) => {
                self.give_back(&record).await
            }
            _ => Ok(()),
        }
    }

    /// Ports of the host belong to one at a time: for two, the plugin would make rules of which only the first counts.
    async fn check_ports(&self, attachment: &Attachment, ports: &[Value]) -> Result<(), DriverError> {
        if ports.is_empty() {
            return Ok(());
        }
        let what = || format!("read {}", self.state.display());
        let mut dir = fs::read_dir(&self.state).await.map_err(|error| failed(what(), error))?;
        while let Some(entry) = dir.next_entry().await.map_err(|error| failed(what(), error))? {
            let path = entry.path();
            if path.extension() != Some(OsStr::new("json")) || path == self.place(attachment) {
                continue;
            }
            let Some(other) = read_record(&path).await? else { continue };
            let is_same = |port: &&Value| other.ports.iter().any(|one| port_of(one) == port_of(port));
            if let Some((port, protocol)) = ports.iter().find(is_same).and_then(port_of) {
                let whose = &other.attachment.owner;
                let what = format!("port {port}/{protocol} of this node belongs to {whose}");
                return Err(DriverError::failed(what, "choose another one in `expose`".to_owned()));
            }
        }
        for (port, protocol) in ports.iter().filter_map(port_of) {
            let address = (Ipv4Addr::UNSPECIFIED, port);
            let bound = match protocol {
                "udp" => std::net::UdpSocket::bind(address).map(|_| ()),
                _ => std::net::TcpListener::bind(address).map(|_| ()),
            };
            if bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                let what = format!("port {port}/{protocol} of this node is taken by another program");
                let option = if protocol == "udp" { "u" } else { "t" };
                return Err(DriverError::failed(what, format!("ss -ln{option}p 'sport = :{port}' shows which")));
            }
        }
        Ok(())
    }

    /// One for each container, whatever its interface is called: with another name, the address of before is found.
    fn place(&self, attachment: &Attachment) -> PathBuf {
        self.state.join(format!("{}.json", attachment.container))
    }

    async fn read(&self, attachment: &Attachment) -> Result<Option<Record>, DriverError> {
        read_record(&self.place(attachment)).await
    }

    async fn write(&self, record: &Record) -> Result<(), DriverError> {
        let path = self.place(&record.attachment);
        let text = serde_json::to_vec(record).expect("a record is JSON");
        let written = async {
            let new = path.with_extension("new");
            let mut file = fs::File::create(&new).await?;
            file.write_all(&text).await?;
            file.sync_all().await?;
            fs::rename(&new, &path).await?;
            fs::File::open(&self.state).await?.sync_all().await
        };
        written.await.map_err(|error: io::Error| failed(format!("write {}", path.display()), error))
    }

    async fn add_all(&self, record: &Record) -> Result<Value, DriverError> {
        let mut previous = None;
        for plugin in &record.plugins {
            let output = self.run("ADD", plugin, record, previous.as_ref()).await?;
            let what = || format!("understand what CNI plugin {} printed", name_of(plugin));
            previous = Some(serde_json::from_slice(&output).map_err(|error| failed(what(), error))?);
        }
        Ok(previous.unwrap_or(Value::Null))
    }

    async fn check_all(&self, record: &Record) -> Result<(), DriverError> {
        for plugin in &record.plugins {
            match self.run("CHECK", plugin, record, record.result.as_ref()).await {
                // Up to 1.1 it looks for rules of IPv6 where there is no such address, after it found those of IPv4.
                Err(error) if name_of(plugin) == "portmap" && error.to_string().contains(NO_IPV6) => {}
                checked => checked.map(|_| ())?,
            }
        }
        Ok(())
    }

    async fn give_back(&self, record: &Record) -> Result<(), DriverError> {
        let Attachment { network, container, .. } = &record.attachment;
        let masquerades = record.plugins.iter().any(|plugin| plugin.get("ipMasq") == Some(&Value::Bool(true)));
        if masquerades {
            masquerade::empty(network, container).await?;
        }
        for plugin in record.plugins.iter().rev() {
            self.run("DEL", plugin, record, record.result.as_ref()).await?;
        }
        if masquerades {
            masquerade::remove(network, container).await?;
        }
        let path = self.place(&record.attachment);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    fn find(&self, name: &str) -> Result<PathBuf, DriverError> {
        self.plugins.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
            let places = self.plugins.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
            DriverError::Missing {
                what: format!("CNI plugin {name} is not in {places}"),
                hint: Some("install it, on Debian: apt-get install containernetworking-plugins".into()),
            }
        })
    }

    async fn run(
        &self,
        command: &str,
        plugin: &Value,
        record: &Record,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>, DriverError> {
        let Record { attachment, ports, .. } = record;
        let name = name_of(plugin);
        let program = self.find(name)?;
        let mut config = plugin.as_object().cloned().unwrap_or_default();
        config.insert("cniVersion".into(), json!(VERSION));
        config.insert("name".into(), json!(attachment.network));
        if config.remove("capabilities").is_some() {
            config.insert("runtimeConfig".into(), json!({ "portMappings": ports }));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        let what =
            format!("run CNI plugin {name} {command} for {} in network {}", attachment.container, attachment.network);
        let output = timeout(LIMIT, self.spawn(&program, command, attachment, config)).await;
        let (is_success, out, err) = match output {
            Err(_) => return Err(DriverError::Timeout { what, limit: LIMIT }),
            Ok(Err(error)) => return Err(failed(what, error)),
            Ok(Ok(output)) => output,
        };
        if is_success {
            return Ok(out);
        }
        // Section "Error": an object with a code and a message.
        let said: Option<Value> = serde_json::from_slice(&out).ok();
        let text = |key: &str| said.as_ref().and_then(|said| said.get(key)?.as_str()).filter(|text| !text.is_empty());
        let mut words: Vec<String> = ["msg", "details"].into_iter().filter_map(text).map(str::to_owned).collect();
        if words.is_empty() {
            words.push(String::from_utf8_lossy(&err).trim().chars().take(500).collect());
        }
        let words = words.join(": ");
        let hint = words
            .contains("no IP addresses available")
            .then(|| format!("network {} is full: `om net status` shows who has its addresses", attachment.network));
        Err(DriverError::failed(format!("{what}: {words}"), hint))
    }

    async fn spawn(
        &self,
        program: &Path,
        command: &str,
        attachment: &Attachment,
        config: Map<String, Value>,
    ) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
        let places = std::env::join_paths(&self.plugins).map_err(io::Error::other)?;
        let mut child = Command::new(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &attachment.container)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", &attachment.device)
            .env("CNI_PATH", places)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let text = Value::Object(config).to_string();
        let mut input = child.stdin.take().expect("it is piped");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (mut stdout, mut stderr) = (stdout.take(MAX_OUTPUT), stderr.take(MAX_OUTPUT));
        let feed = async move {
            // A plugin that reads nothing may end first.
            match input.write_all(text.as_bytes()).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            }
        };
        tokio::try_join!(feed, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err))?;
        Ok((child.wait().await?.success(), out, err))
    }
}

async fn read_record(path: &Path) -> Result<Option<Record>, DriverError> {
    let what = || format!("read {}", path.display());
    match fs::read(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(what(), error)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(what(), error)),
    }
}

fn name_of(plugin: &Value) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The port of the host and the protocol of what [`ports`] made.
fn port_of(port: &Value) -> Option<(u16, &str)> {
    Some((u16::try_from(port.get("hostPort")?.as_u64()?).ok()?, port.get("protocol")?.as_str()?))
}

/// The first address of a result.
fn given(result: &Value) -> Option<Given> {
    let (address, prefix) = result.get("ips")?.get(0)?.get("address")?.as_str()?.split_once('/')?;
    Some(Given { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
}

/// Ports of the host, as the portmap plugin takes them.
fn ports(expose: &[Expose]) -> Vec<Value> {
    let port = |Expose { port, protocol, host_port }: &Expose| {
        Some(json!({ "containerPort": port, "hostPort": (*host_port)?, "protocol": protocol }))
    };
    expose.iter().filter_map(port).collect()
}
