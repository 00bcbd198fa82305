//! Owns `ip.cni`: an address for the network namespace of a container. Does not own running plugins, nor containers.

use std::{path::PathBuf, sync::Arc};

use om_core::{
    driver::{Driver, DriverError, Scene, Work},
    instance::{CniIp, Resource, ResourceKind},
    path::Rid,
    status::{Provisioned, ResourceStatus, Severity, Status},
};

use crate::{
    cni::{Attachment, Cni, Given},
    iptables,
    netns::Sandboxes,
};

/// The chain that Docker's forwarding asks first, and that it leaves to others.
const CHAIN: &str = "DOCKER-USER";

/// Makes addresses so.
pub struct AddressDriver {
    cni: Cni,
    sandboxes: Arc<dyn Sandboxes>,
}

fn of(resource: &Resource) -> Result<&CniIp, DriverError> {
    match &resource.kind {
        ResourceKind::Cni(ip) => Ok(ip),
        _ => Err(DriverError::failed(format!("{} is no address", resource.rid), None)),
    }
}

fn owner<'a>(ip: &'a CniIp, resource: &Resource) -> Result<&'a Rid, DriverError> {
    ip.netns.as_ref().ok_or_else(|| DriverError::Missing {
        what: format!("{} names no container whose network gets it", resource.rid),
        hint: Some("set netns = container#0 in its section".into()),
    })
}

impl AddressDriver {
    /// A driver for containers that `sandboxes` finds.
    pub fn new(cni: Cni, sandboxes: Arc<dyn Sandboxes>) -> Self {
        Self { cni, sandboxes }
    }

    fn cni(&self, scene: &Scene) -> Cni {
        self.cni.with(scene.cluster.plugins.as_deref())
    }

    /// What plugins are told. The id is the resource's own, not the container's: it can be given back when that is gone.
    fn attachment(scene: &Scene, resource: &Resource, ip: &CniIp, netns: PathBuf) -> Attachment {
        Attachment {
            container: format!("{}.{}", scene.instance.id, resource.rid.to_string().replace('#', ".")),
            netns: netns.to_string_lossy().into_owned(),
            device: ip.ipdev.clone(),
            network: ip.network.clone(),
            owner: format!("{} of {}", resource.rid, scene.instance.path),
        }
    }

    async fn seen(&self, scene: &Scene, resource: &Resource, ip: &CniIp) -> Result<Option<Given>, DriverError> {
        let Some(sandbox) = self.sandboxes.sandbox(scene, owner(ip, resource)?).await? else {
            // Its container died, or was stopped by somebody else: the address is free for others.
            self.cni(scene).bury(&Self::attachment(scene, resource, ip, PathBuf::new())).await?;
            return Ok(None);
        };
        self.cni(scene).check(&Self::attachment(scene, resource, ip, sandbox.netns)).await
    }

    async fn started(&self, scene: &Scene, resource: &Resource) -> Result<(), DriverError> {
        let ip = of(resource)?;
        let networks = &scene.cluster.networks;
        let network = networks.iter().find(|network| network.name == ip.network).ok_or_else(|| {
            let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
            DriverError::Missing {
                what: format!("network {} is not configured", ip.network),
                hint: Some(format!(
                    "there is {}; om cluster edit adds a section [network#{}]",
                    known.join(", "),
                    ip.network
                )),
            }
        })?;
        let part = network.part(&scene.cluster.nodes, &scene.node).map_err(|error| failed(&error))?;
        let rid = owner(ip, resource)?;
        let Some(sandbox) = self.sandboxes.sandbox(scene, rid).await? else {
            return Err(DriverError::Missing {
                what: format!("{rid}, whose network gets the address, does not run"),
                hint: Some(format!("om {} start", scene.instance.path)),
            });
        };
        let attachment = Self::attachment(scene, resource, ip, sandbox.netns);
        let given = self.cni(scene).add(&attachment, network, part, &ip.expose).await?;
        let_through(&network.bridge()).await?;
        scene.progress.tell(format!("{} has {}/{}", ip.ipdev, given.address, given.prefix));
        Ok(())
    }
}

fn failed(error: &impl std::fmt::Display) -> DriverError {
    DriverError::failed(error.to_string(), None)
}

/// Lets what a bridge forwards through Docker's rules, which refuse all that is not Docker's own. Nothing to do where
/// Docker made no rules.
async fn let_through(bridge: &str) -> Result<(), DriverError> {
    if !iptables::run(["-n", "-L", CHAIN]).await?.0 {
        return Ok(());
    }
    for side in ["-i", "-o"] {
        let rule = [CHAIN, side, bridge, "-j", "ACCEPT"];
        if iptables::run([&["-C"], &rule[..]].concat()).await?.0 {
            continue;
        }
        let (done, said) = iptables::run([&["-I"], &rule[..]].concat()).await?;
        if !done {
            return Err(DriverError::failed(format!("let {bridge} through {CHAIN}: {said}"), None));
        }
    }
    Ok(())
}

impl Driver for AddressDriver {
    fn status<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ResourceStatus> {
        Box::pin(async move {
            let ip = of(resource)?;
            let label = |address: &str| format!("cni {} {address}{}", ip.network, ip.ipdev);
            let status = |status, label| {
                let mut status = ResourceStatus::new(status, label);
                status.provisioned = Provisioned::NotApplicable;
                status.info.insert("ipdev".into(), ip.ipdev.clone());
                status
            };
            match self.seen(scene, resource, ip).await {
                Err(error) => Ok(status(Status::Undef, label("")).with(Severity::Warn, error.to_string())),
                Ok(None) => Ok(status(Status::Down, label(""))),
                Ok(Some(given)) => {
                    let mut status = status(Status::Up, label(&format!("{}/{} ", given.address, given.prefix)));
                    status.provisioned = Provisioned::Yes;
                    status.info.insert("ipaddr".into(), given.address.to_string());
                    Ok(status)
                }
            }
        })
    }

    fn provision<'a>(&'a self, _: &'a Scene, _: &'a Resource) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(self.started(scene, resource))
    }

    fn stop<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        Box::pin(async move {
            let ip = of(resource)?;
            // Which namespace it was is in the record of what was given.
            self.cni(scene).del(&Self::attachment(scene, resource, ip, PathBuf::new())).await
        })
    }

    fn unprovision<'a>(&'a self, scene: &'a Scene, resource: &'a Resource) -> Work<'a, ()> {
        self.stop(scene, resource)
    }
}
