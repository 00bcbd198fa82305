//! Owns the cluster's DNS on this node: where it is answered, the zone that is answered now, who is asked for the rest.
//! Does not own what is in the zone, nor the protocol.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use om_core::{
    network::Network,
    view::View,
    zone::{Ground, Zone},
};
use om_dns::server::{self, Bound, Upstream};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    api::{self, server::Refusal},
    daemon::{resolver, texts::World},
};

/// Where the cluster's names are answered on every node, unless `cluster.dns` says otherwise: a link-local address on
/// `lo`. The node itself and its containers reach it, nobody else does.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// The value of `cluster.dns` that turns it off.
const NONE: &str = "none";
/// How often an address that could not be taken is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the servers of the node are believed to be the same.
const KEPT: Duration = Duration::from_secs(2);
/// Names of ports (services(5)).
const SERVICES: &str = "/etc/services";

/// The addresses that a value of `cluster.dns` means.
pub fn addresses(value: &str) -> Vec<IpAddr> {
    match value.trim() {
        "" => vec![ADDRESS.into()],
        NONE => Vec::new(),
        words => words.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
    }
}

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

/// The cluster's DNS on this node.
pub struct Names {
    ground: Ground,
    zone: watch::Sender<Arc<Zone>>,
    places: Mutex<Vec<Place>>,
    port: Option<u16>,
    upstream: Upstream,
}

impl Names {
    /// The names of a cluster. Nothing is answered yet, nothing is in the zone.
    pub fn new(world: &World, networks: &[Network], upstream: &str, port: Option<u16>) -> Self {
        let ground = Ground {
            cluster: world.cluster.clone(),
            servers: world.dns.clone(),
            networks: networks.iter().map(|network| network.subnet).collect(),
            services: fs::read_to_string(SERVICES).map(|text| services(&text)).unwrap_or_default(),
        };
        let place = |address: &IpAddr| Place { address: *address, bound: None, listens: None, problem: None };
        let places = if port.is_some() { world.dns.iter().map(place).collect() } else { Vec::new() };
        let servers = upstream.split_whitespace().filter_map(|word| Some(SocketAddr::new(word.parse().ok()?, 53)));
        let upstream = upstream_of(servers.filter(|server| !world.dns.contains(&server.ip())).collect(), &world.dns);
        Self { ground, zone: watch::Sender::new(Arc::default()), places: Mutex::new(places), port, upstream }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers from what is seen now.
    pub fn publish(&self, view: &View) {
        // The number of a zone is 32 bits that wrap (RFC 1982).
        let serial = u32::try_from(view.wall & u64::from(u32::MAX)).unwrap_or_default();
        let zone = Zone::of(view, &self.ground, serial);
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
                    tracing::info!("the names of {} are answered on {listens}", self.ground.cluster);
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

    /// Answers, until it is dropped. Addresses that could not be taken are tried again and again.
    pub async fn serve(&self) {
        let mut serving = JoinSet::new();
        loop {
            let bound: Vec<Bound> = self.lock().iter_mut().filter_map(|place| place.bound.take()).collect();
            for bound in bound {
                serving.spawn(server::serve(bound, self.zone.subscribe(), Arc::clone(&self.upstream)));
            }
            if self.lock().iter().all(|place| place.listens.is_some()) {
                // Ends with the daemon only.
                std::future::pending::<()>().await;
            }
            sleep(RETRY).await;
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
            zone: format!("{}.", self.ground.cluster),
            listen: places.iter().filter_map(|place| Some(place.listens?.to_string())).collect(),
            problems: places.iter().filter_map(|place| place.problem.clone()).collect(),
            upstream: (self.upstream)().iter().map(ToString::to_string).collect(),
            resolver: found.kind().as_str().into(),
            wired: found.is_wired(&self.ground.servers, &self.ground.cluster),
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
        let changes = resolver::plan(&found, &self.ground.servers, &self.ground.cluster, asked.undo);
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

/// Who is asked for what is not of the zone: `fixed`, or if there are none the node's servers but `own`. Those are read
/// again after some seconds, as they change with its networks.
fn upstream_of(fixed: Vec<SocketAddr>, own: &[IpAddr]) -> Upstream {
    let own = own.to_vec();
    let kept: Mutex<Option<(Instant, Vec<SocketAddr>)>> = Mutex::default();
    Arc::new(move || {
        if !fixed.is_empty() {
            return fixed.clone();
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((read, servers)) if read.elapsed() < KEPT => servers.clone(),
            _ => {
                let servers = resolver::servers(Path::new("/"), &own);
                *kept = Some((Instant::now(), servers.clone()));
                servers
            }
        }
    })
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
    fn addresses_are_said_or_not() {
        let check = |value: &str, expected: &[&str]| {
            let found: Vec<String> = addresses(value).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{value}");
        };
        check("", &["169.254.53.53"]);
        check("none", &[]);
        check("10.0.0.1 fd00::1", &["10.0.0.1", "fd00::1"]);
    }

    #[test]
    fn ports_have_names() {
        let found = services("# all\nhttp\t80/tcp www # web\nwww 80/tcp\n\nhttp 80/udp\nodd x/tcp\nbare\n");
        let shown: Vec<String> =
            found.iter().map(|((port, protocol), name)| format!("{port}/{protocol} {name}")).collect();
        assert_eq!(shown, ["80/tcp http", "80/udp http"]);
    }
}
