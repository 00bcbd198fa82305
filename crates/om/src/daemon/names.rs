//! Owns the cluster's DNS on this node: where it is answered, the zone that is answered now, who is asked for the rest.
//! Does not own what is in the zone, nor the protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use om_core::{
    config::cluster::ClusterConfig,
    view::View,
    zone::{Ground, Zone},
};
use om_dns::server::{self, Bound, Upstream};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    api::{self, server::Refusal},
    daemon::resolver,
};

/// How often an address that could not be taken is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the servers of the node are believed to be the same.
const KEPT: Duration = Duration::from_secs(2);
/// Names of ports (services(5)).
const SERVICES: &str = "/etc/services";

/// An address at which names are to be answered.
struct Place {
    address: IpAddr,
    /// Taken and not yet served.
    bound: Option<Bound>,
    /// Where it is, once it was taken.
    listens: Option<SocketAddr>,
    /// Why it could not be taken.
    problem: Option<String>,
}

impl Place {
    fn new(address: IpAddr) -> Self {
        Self { address, bound: None, listens: None, problem: None }
    }
}

/// The cluster's DNS on this node.
pub struct Names {
    ground: RwLock<Ground>,
    zone: watch::Sender<Arc<Zone>>,
    places: Mutex<Vec<Place>>,
    port: Option<u16>,
    asked: Arc<Mutex<Asked>>,
    changed: Notify,
}

/// Who is asked for what is not of the zone.
struct Asked {
    /// The servers of the configuration; empty: those of the node.
    fixed: Vec<SocketAddr>,
    /// Where the cluster's names are answered: never asked.
    own: Vec<IpAddr>,
    /// The node's servers, and when they were read.
    kept: Option<(Instant, Vec<SocketAddr>)>,
}

impl Asked {
    fn new(config: &ClusterConfig) -> Self {
        let others = config.dns_upstream.iter().filter(|address| !config.dns.contains(address));
        let fixed = others.map(|address| SocketAddr::new(*address, server::PORT)).collect();
        Self { fixed, own: config.dns.clone(), kept: None }
    }

    /// The node's servers are read again after some seconds, as they change with its networks.
    fn servers(&mut self) -> Vec<SocketAddr> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        match &self.kept {
            Some((read, servers)) if read.elapsed() < KEPT => servers.clone(),
            _ => {
                let servers = resolver::servers(Path::new("/"), &self.own);
                self.kept = Some((Instant::now(), servers.clone()));
                servers
            }
        }
    }
}

fn ground(config: &ClusterConfig) -> Ground {
    Ground {
        cluster: config.name.clone(),
        servers: config.dns.clone(),
        networks: config.networks.iter().map(|network| network.subnet).collect(),
        services: fs::read_to_string(SERVICES).map(|text| services(&text)).unwrap_or_default(),
    }
}

impl Names {
    /// The names of a cluster. Nothing is answered yet, nothing is in the zone.
    pub fn new(config: &ClusterConfig, port: Option<u16>) -> Self {
        let places = if port.is_some() { config.dns.iter().copied().map(Place::new).collect() } else { Vec::new() };
        Self {
            ground: RwLock::new(ground(config)),
            zone: watch::Sender::new(Arc::default()),
            places: Mutex::new(places),
            port,
            asked: Arc::new(Mutex::new(Asked::new(config))),
            changed: Notify::new(),
        }
    }

    /// The configuration of the cluster was changed. Addresses are taken and given up by [`Names::serve`].
    pub fn change(&self, config: &ClusterConfig) {
        *self.ground.write().unwrap_or_else(PoisonError::into_inner) = ground(config);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked::new(config);
        if self.port.is_some() {
            let mut places = self.lock();
            places.retain(|place| config.dns.contains(&place.address));
            let missing: Vec<IpAddr> =
                config.dns.iter().filter(|a| places.iter().all(|place| place.address != **a)).copied().collect();
            places.extend(missing.into_iter().map(Place::new));
        }
        self.changed.notify_one();
    }

    fn ground(&self) -> Ground {
        self.ground.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn upstream(&self) -> Upstream {
        let asked = Arc::clone(&self.asked);
        Arc::new(move || asked.lock().unwrap_or_else(PoisonError::into_inner).servers())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers from what is seen now.
    pub fn publish(&self, view: &View) {
        // The number of a zone is 32 bits that wrap (RFC 1982).
        let serial = u32::try_from(view.wall & u64::from(u32::MAX)).unwrap_or_default();
        let zone = Zone::of(view, &self.ground(), serial);
        self.zone.send_if_modified(|old| {
            let changed = !old.same(&zone);
            if changed {
                *old = Arc::new(zone);
            }
            changed
        });
    }

    /// Takes the addresses that are not taken yet. What cannot be taken is said once.
    pub async fn bind(&self) {
        let Some(port) = self.port else { return };
        let missing: Vec<IpAddr> =
            self.lock().iter().filter(|place| place.listens.is_none()).map(|place| place.address).collect();
        for address in missing {
            let bound = take(address, port).await;
            let mut places = self.lock();
            let Some(place) = places.iter_mut().find(|place| place.address == address) else { continue };
            match bound {
                Ok((bound, listens)) => {
                    tracing::info!("the names of {} are answered on {listens}", self.ground().cluster);
                    *place = Place { address, bound: Some(bound), listens: Some(listens), problem: None };
                }
                Err(problem) if place.problem.as_ref() != Some(&problem) => {
                    tracing::warn!("{problem}");
                    place.problem = Some(problem);
                }
                Err(_) => {}
            }
        }
    }

    /// Answers, until it is dropped. Addresses that could not be taken are tried again and again; those that are not
    /// configured any more are given up.
    pub async fn serve(&self) {
        let mut serving: BTreeMap<IpAddr, JoinSet<()>> = BTreeMap::new();
        loop {
            let wanted: BTreeSet<IpAddr> = self.lock().iter().map(|place| place.address).collect();
            let former: Vec<IpAddr> = serving.keys().filter(|address| !wanted.contains(address)).copied().collect();
            for address in former {
                // Dropping it ends it.
                serving.remove(&address);
                give_up(address).await;
            }
            let bound: Vec<(IpAddr, Bound)> =
                self.lock().iter_mut().filter_map(|place| Some((place.address, place.bound.take()?))).collect();
            for (address, bound) in bound {
                let tasks = serving.entry(address).or_default();
                tasks.spawn(server::serve(bound, self.zone.subscribe(), self.upstream()));
            }
            let missing = self.lock().iter().any(|place| place.listens.is_none());
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(RETRY), if missing => {}
            }
            self.bind().await;
        }
    }

    /// The zone and how it is answered, for callers.
    pub fn told(&self) -> api::Dns {
        let zone = Arc::clone(&self.zone.borrow());
        let found = resolver::Found::read(Path::new("/"));
        let places = self.lock();
        let record = |(name, data): (&str, &om_core::zone::Data)| api::DnsRecord {
            name: format!("{name}."),
            ttl: data.ttl(),
            kind: data.kind().into(),
            data: data.text(),
        };
        api::Dns {
            zone: format!("{}.", self.ground().cluster),
            listen: places.iter().filter_map(|place| Some(place.listens?.to_string())).collect(),
            problems: places.iter().filter_map(|place| place.problem.clone()).collect(),
            upstream: (self.upstream())().iter().map(ToString::to_string).collect(),
            resolver: found.kind().as_str().into(),
            wired: found.is_wired(&self.ground().servers, &self.ground().cluster),
            records: zone.records().map(record).collect(),
        }
    }

    /// Makes the node ask the cluster's DNS, or takes that back.
    ///
    /// # Errors
    /// There is none, or a file cannot be changed.
    pub async fn setup(&self, asked: &api::DnsSetup) -> Result<api::DnsSetupDone, Refusal> {
        if !asked.undo && self.lock().iter().all(|place| place.listens.is_none()) {
            let problems: Vec<String> = self.lock().iter().filter_map(|place| place.problem.clone()).collect();
            let refusal = Refusal::new(api::code::UNAVAILABLE, "this node does not answer the cluster's names");
            return Err(refusal.hint(match &problems[..] {
                [] => "cluster.dns is none: om cluster unset --kw cluster.dns".to_owned(),
                problems => problems.join("; "),
            }));
        }
        let found = resolver::Found::read(Path::new("/"));
        let changes = resolver::plan(&found, &self.ground().servers, &self.ground().cluster, asked.undo);
        if !asked.dry_run {
            resolver::carry_out(Path::new("/"), &changes).await.map_err(Refusal::internal)?;
            for change in &changes {
                tracing::info!("dns setup: {change}");
            }
        }
        Ok(api::DnsSetupDone {
            resolver: found.kind().as_str().into(),
            done: !asked.dry_run && !changes.is_empty(),
            changes: changes.iter().map(ToString::to_string).collect(),
        })
    }
}

/// Takes an address that was put on `lo` away again.
async fn give_up(address: IpAddr) {
    if is_link_local(address)
        && let Err(error) = resolver::run(&["ip", "address", "del", &format!("{address}/32"), "dev", "lo"]).await
    {
        tracing::warn!("{error}");
    }
}

/// Takes an address; a link-local one is put on `lo` where it is missing.
async fn take(address: IpAddr, port: u16) -> Result<(Bound, SocketAddr), String> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                " (hint: another DNS server has it; let it listen on its own addresses only, or set cluster.dns)"
            }
            io::ErrorKind::AddrNotAvailable => " (hint: cluster.dns names addresses of the node, or link-local ones)",
            _ => "",
        };
        format!("the cluster's names cannot be answered on {}: {error}{hint}", SocketAddr::new(address, port))
    };
    let bound = match Bound::new(address, port).await {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && is_link_local(address) => {
            resolver::run(&["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]).await?;
            Bound::new(address, port).await
        }
        bound => bound,
    };
    let bound = bound.map_err(failed)?;
    let listens = bound.address().map_err(failed)?;
    Ok((bound, listens))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_link_local())
}

/// The names of ports in a text such as `http 80/tcp www`; the first name of a port counts.
fn services(text: &str) -> BTreeMap<(u16, String), String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (Some(name), Some((port, protocol))) = (words.next(), words.next().and_then(|word| word.split_once('/')))
        else {
            continue;
        };
        if let Ok(port) = port.parse() {
            found.entry((port, protocol.to_owned())).or_insert_with(|| name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_names() {
        let found = services("# all\nhttp\t80/tcp www # web\nwww 80/tcp\n\nhttp 80/udp\nodd x/tcp\nbare\n");
        let shown: Vec<String> =
            found.iter().map(|((port, protocol), name)| format!("{port}/{protocol} {name}")).collect();
        assert_eq!(shown, ["80/tcp http", "80/udp http"]);
    }
}
