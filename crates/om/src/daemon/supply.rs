//! Owns what the daemon brings to the steps of a job: values of keys, certificates, and the volume objects that services
//! claim. Does not own steps.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use om_cluster::{Store, StoreError, store::New};
use om_core::{
    config::{Document, convert::size_shown, resolve::is_match},
    driver::{Cluster, DriverError, KeyName, Secret, Work},
    instance::{InstanceConfig, KeyFile, KeyVariable, Resource, ResourceKind, VolumeClaim},
    path::{Kind, Name, ObjectPath},
    pool,
    status::Status,
};

use crate::{
    daemon::{
        certificates::Certificates, executor::Supply, objects::uuid, orchestrate::Engine, texts, volumes,
        world::Current,
    },
    places::Places,
};

/// The directory of a container where a service's certificate is.
pub const TLS_DIRECTORY: &str = "/run/tls";
/// How often a change of a volume object is tried again when somebody else changed it meanwhile.
const TRIES: usize = 8;

/// Knows images, and containers that were made of them; the driver of containers can ask the engine.
pub trait Images: Send + Sync {
    /// Whether the image that the engine has under this name says that it serves TLS with what it is given.
    fn wants_tls<'a>(&'a self, image: &'a str) -> Work<'a, bool>;
    /// Whether the container engine finds the address of a name.
    fn resolves<'a>(&'a self, name: &'a str) -> Work<'a, bool>;
    /// Whether the container with this id has a shell.
    fn has_shell<'a>(&'a self, container: &'a str) -> Work<'a, bool>;
}

/// What jobs are supplied with.
pub struct Supplies {
    /// Facts of the cluster.
    pub current: Current,
    /// Paths of this node.
    pub places: Places,
    /// The shared state.
    pub store: Store,
    /// The cluster's authority.
    pub certificates: Arc<Certificates>,
    /// Who knows images.
    pub images: Arc<dyn Images>,
    /// The engine, once it is there.
    pub engine: OnceLock<Engine>,
}

fn failed(what: String, hint: Option<String>) -> DriverError {
    DriverError::Failed { what, hint }
}

fn of_store(what: &str, error: &StoreError) -> DriverError {
    failed(format!("{what}: {error}"), None)
}

impl Supplies {
    /// The pools as they are now, each with what it has left or why it cannot be used.
    pub fn pools(&self) -> Vec<(volumes::Pool, Result<pool::PoolFacts, String>)> {
        let pools = volumes::pools(&self.current.get(), &self.places);
        let promised = self.promised();
        let with_facts = |pool: volumes::Pool| {
            let facts = volumes::facts(&pool, promised.get(&pool.name).copied().unwrap_or(0));
            (pool, facts)
        };
        pools.into_iter().map(with_facts).collect()
    }

    /// Bytes that volumes of each pool were promised.
    fn promised(&self) -> BTreeMap<String, u64> {
        let mut promised = BTreeMap::new();
        let Some(engine) = self.engine.get() else { return promised };
        engine.read(|view| {
            for object in view.objects.values() {
                if let Some(volume) = object.config.as_ref().and_then(|config| config.volume.as_ref()) {
                    *promised.entry(volume.pool.clone()).or_insert(0) += volume.size;
                }
            }
        });
        promised
    }

    /// What a volume object means here, if it is there.
    async fn read_volume(&self, path: &ObjectPath) -> Result<Option<Arc<InstanceConfig>>, DriverError> {
        let what = || format!("read {path}");
        let Some(config) = self.store.config(path).await.map_err(|error| of_store(&what(), &error))? else {
            return Ok(None);
        };
        let known = self.engine.get().and_then(|engine| {
            engine.read(|view| {
                let object = view.objects.get(path)?;
                (object.generation == config.generation).then(|| object.config.clone()).flatten()
            })
        });
        if known.is_some() {
            return Ok(known);
        }
        match texts::read(&self.current.get(), path, &config.text) {
            Ok(read) => Ok(read.instance.map(Arc::new)),
            Err(found) => {
                let first = found.first().map(|diagnostic| diagnostic.shown(&path.to_string()).to_string());
                let hint = format!("om {path} validate config");
                Err(failed(first.unwrap_or_else(|| format!("{path} cannot be used")), Some(hint)))
            }
        }
    }

    async fn claimed(
        &self,
        instance: &InstanceConfig,
        claim: &VolumeClaim,
    ) -> Result<Arc<InstanceConfig>, DriverError> {
        let path = volumes::path(instance, claim);
        let what = format!("claim volume {path}");
        for _ in 0..TRIES {
            match self.store.config(&path).await.map_err(|error| of_store(&what, &error))? {
                Some(config) => {
                    let text = volumes::with_child(&config.text, &instance.path, true)
                        .map_err(|problem| failed(format!("{what}: {problem}"), Some(format!("om {path} edit"))))?;
                    let Some(text) = text else { break };
                    match self.store.update(&path, Some(config.generation), &text).await {
                        Ok(_) => break,
                        Err(StoreError::Changed(_) | StoreError::Missing(_)) => {}
                        Err(error) => return Err(of_store(&what, &error)),
                    }
                }
                None => {
                    let text = self.new_volume(instance, claim, &what).await?;
                    match self.store.create(&[New { path: path.clone(), text, want: None }]).await {
                        Ok(_) => break,
                        Err(StoreError::Exists(_) | StoreError::Changed(_)) => {}
                        Err(error) => return Err(of_store(&what, &error)),
                    }
                }
            }
        }
        self.read_volume(&path).await?.ok_or_else(|| failed(format!("{what}: it was removed meanwhile"), None))
    }

    async fn new_volume(
        &self,
        instance: &InstanceConfig,
        claim: &VolumeClaim,
        what: &str,
    ) -> Result<String, DriverError> {
        let Some(size) = claim.size else {
            let hint = format!("set `size` in the volume's section of {}", instance.path);
            return Err(failed(format!("{what}: it is not there, and no size is given to make it"), Some(hint)));
        };
        let pools = self.pools();
        let facts: Vec<pool::PoolFacts> = pools.iter().filter_map(|(_, facts)| facts.clone().ok()).collect();
        let chosen = pool::choose(claim, &facts).map_err(|none| {
            failed(format!("{what}: {none}"), Some("om pool status shows what pools have left".into()))
        })?;
        let pool = pools.iter().map(|(pool, _)| pool).find(|pool| pool.name == chosen.name);
        let pool = pool.ok_or_else(|| failed(format!("{what}: pool {} is gone", chosen.name), None))?;
        tracing::info!(pool = %pool.name, "making volume {} of {}", claim.name, size_shown(size));
        let mut document = Document::parse(&volumes::text(instance, claim, pool, &self.current.get().cluster.name))
            .map_err(|_| failed(format!("{what}: its name makes no configuration"), None))?;
        document.set("DEFAULT", "id", &uuid().map_err(|error| failed(format!("{what}: {error}"), None))?);
        Ok(document.to_string())
    }

    /// The values of keys that match a pattern.
    async fn matching(
        &self,
        instance: &InstanceConfig,
        kind: Kind,
        object: &Name,
        pattern: &str,
        into: &mut BTreeMap<KeyName, Secret>,
    ) -> Result<(), DriverError> {
        let path = ObjectPath { namespace: instance.path.namespace.clone(), kind, name: object.clone() };
        let what = format!("read key {pattern} of {path}");
        let names: Vec<String> = if pattern.contains('*') {
            let keys = self.store.keys(&path).await.map_err(|error| of_store(&what, &error))?;
            keys.into_iter().map(|key| key.name).filter(|name| is_match(pattern, name)).collect()
        } else {
            vec![pattern.to_owned()]
        };
        for key in names {
            let value = self.store.value(&path, &key).await.map_err(|error| of_store(&what, &error))?;
            let Some(value) = value else {
                let there = self.store.config(&path).await.map_err(|error| of_store(&what, &error))?.is_some();
                let (text, hint) = if there {
                    (format!("{path} has no key {key}"), format!("om {path} edit --key {key}"))
                } else {
                    (format!("{path} does not exist"), format!("om {path} create"))
                };
                return Err(DriverError::Missing { what: text, hint: Some(hint) });
            };
            into.insert(KeyName { secret: kind == Kind::Sec, object: object.clone(), key }, value.bytes);
        }
        Ok(())
    }

    async fn all_keys(
        &self,
        instance: &InstanceConfig,
        resource: &Resource,
    ) -> Result<BTreeMap<KeyName, Secret>, DriverError> {
        let mut wanted: Vec<(Kind, &Name, &str)> = Vec::new();
        let variable = |kind| move |v: &'_ KeyVariable| (kind, v.object.clone(), v.key.clone());
        let file = |kind| move |f: &'_ KeyFile| (kind, f.object.clone(), f.key.clone());
        let mut owned: Vec<(Kind, Name, String)> = Vec::new();
        let mut keys = BTreeMap::new();
        match &resource.kind {
            ResourceKind::Container(container) => {
                owned.extend(container.secrets_environment.iter().map(variable(Kind::Sec)));
                owned.extend(container.configs_environment.iter().map(variable(Kind::Cfg)));
                owned.extend(container.secrets.iter().map(file(Kind::Sec)));
                owned.extend(container.configs.iter().map(file(Kind::Cfg)));
                if let Some(creds) = &container.registry_creds {
                    // Only a pull needs it, and only the driver knows whether there is one: it says what is missing.
                    let found = self.matching(instance, Kind::Sec, creds, "config.json", &mut keys).await;
                    if let Err(error) = found
                        && !matches!(error, DriverError::Missing { .. })
                    {
                        return Err(error);
                    }
                }
            }
            ResourceKind::Volume(claim) => {
                owned.extend(claim.secrets.iter().map(file(Kind::Sec)));
                owned.extend(claim.configs.iter().map(file(Kind::Cfg)));
            }
            _ => {}
        }
        wanted.extend(owned.iter().map(|(kind, object, key)| (*kind, object, key.as_str())));
        for (kind, object, key) in wanted {
            self.matching(instance, kind, object, key, &mut keys).await?;
        }
        Ok(keys)
    }
}

impl Supply for Supplies {
    fn cluster(&self) -> Cluster {
        let world = self.current.get();
        Cluster {
            name: world.cluster.name.clone(),
            id: world.cluster_id.clone(),
            nodes: world.cluster.nodes.clone(),
            dns: world.cluster.dns.clone(),
            networks: world.cluster.networks.clone(),
            plugins: world.cluster.plugins.as_ref().map(Into::into),
        }
    }

    fn keys<'a>(&'a self, instance: &'a InstanceConfig, resource: &'a Resource) -> Work<'a, BTreeMap<KeyName, Secret>> {
        Box::pin(self.all_keys(instance, resource))
    }

    fn files<'a>(&'a self, instance: &'a InstanceConfig, resource: &'a Resource) -> Work<'a, Vec<(String, Secret)>> {
        Box::pin(async move {
            let ResourceKind::Container(container) = &resource.kind else { return Ok(Vec::new()) };
            let wanted = match container.tls {
                Some(wanted) => wanted,
                None => self.images.wants_tls(&container.image).await?,
            };
            if !wanted {
                return Ok(Vec::new());
            }
            let world = self.current.get();
            let (cluster, nodes) = (&world.cluster.name, &world.cluster.nodes);
            let pair = self.certificates.of(&self.store, &instance.path, cluster, nodes).await;
            let pair = pair.map_err(|error| failed(format!("a certificate for {}: {error}", instance.path), None))?;
            let file = |name: &str, text: String| (format!("{TLS_DIRECTORY}/{name}"), Secret(text.into_bytes()));
            Ok(vec![
                file("tls.crt", pair.certificate),
                file("tls.key", pair.key),
                file("ca.crt", self.certificates.authority()),
            ])
        })
    }

    fn volume<'a>(
        &'a self,
        instance: &'a InstanceConfig,
        claim: &'a VolumeClaim,
    ) -> Work<'a, Option<Arc<InstanceConfig>>> {
        Box::pin(async move { self.read_volume(&volumes::path(instance, claim)).await })
    }

    fn claim<'a>(&'a self, instance: &'a InstanceConfig, claim: &'a VolumeClaim) -> Work<'a, Arc<InstanceConfig>> {
        Box::pin(self.claimed(instance, claim))
    }

    fn unclaim<'a>(&'a self, instance: &'a InstanceConfig, claim: &'a VolumeClaim) -> Work<'a, ()> {
        Box::pin(async move {
            let path = volumes::path(instance, claim);
            let what = format!("give up volume {path}");
            for _ in 0..TRIES {
                let Some(config) = self.store.config(&path).await.map_err(|error| of_store(&what, &error))? else {
                    return Ok(());
                };
                let text = volumes::with_child(&config.text, &instance.path, false)
                    .map_err(|problem| failed(format!("{what}: {problem}"), None))?;
                let Some(text) = text else { return Ok(()) };
                match self.store.update(&path, Some(config.generation), &text).await {
                    Ok(_) => return Ok(()),
                    Err(StoreError::Changed(_) | StoreError::Missing(_)) => {}
                    Err(error) => return Err(of_store(&what, &error)),
                }
            }
            Err(failed(format!("{what}: it is changed again and again"), None))
        })
    }

    fn is_used<'a>(&'a self, volume: &'a InstanceConfig, but: &'a InstanceConfig) -> Work<'a, bool> {
        Box::pin(async move {
            let Some(engine) = self.engine.get() else { return Ok(true) };
            let uses = |config: &InstanceConfig| {
                config.path.namespace == volume.path.namespace
                    && config.resources.values().any(|resource| {
                        matches!(&resource.kind, ResourceKind::Volume(claim) if claim.name == volume.path.name)
                    })
            };
            Ok(engine.read(|view| {
                view.objects.iter().any(|(path, object)| {
                    let Some(config) = object.config.as_deref().filter(|_| *path != but.path) else { return false };
                    let up = object.report(&view.me).is_some_and(|report| {
                        report.resources.iter().any(|(rid, seen)| rid.group() == "volume" && seen.status == Status::Up)
                    });
                    up && uses(config)
                })
            }))
        })
    }
}
