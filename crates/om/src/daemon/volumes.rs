//! Owns volume objects: the text of one that is made for a claim, who uses it, and the pools of the cluster's
//! configuration. Pure, but for asking filesystems how full they are. Does not own making volumes so.

use std::path::Path;

use om_core::{
    config::{Document, convert},
    instance::{InstanceConfig, VolumeClaim},
    path::{Kind, ObjectPath},
    pool::{self, PoolFacts, PoolType},
};

use crate::{daemon::world::World, places::Places};

/// A pool on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it makes volumes of.
    pub kind: PoolType,
    /// The directory that volumes are in.
    pub path: std::path::PathBuf,
}

/// The pools of the cluster, sorted by name, as they are on this node: without a path, in the daemon's own directory.
pub fn pools(world: &World, places: &Places) -> Vec<Pool> {
    let here = |pool: &pool::Pool| Pool {
        name: pool.name.clone(),
        kind: pool.kind,
        path: match &pool.path {
            Some(path) => path.into(),
            None if pool.name == pool::DEFAULT => places.pool(),
            None => places.var.join("pool").join(&pool.name),
        },
    };
    world.cluster.pools.iter().map(here).collect()
}

/// What a pool has left on this node. `volumes`: those in it, with the bytes they were promised.
///
/// # Errors
/// Its filesystem cannot be asked; why, for people.
pub fn facts(pool: &Pool, promised: u64) -> Result<PoolFacts, String> {
    // The directory is made with its first volume: until then its parent's filesystem counts.
    let found = pool.path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if pool.kind == PoolType::Shared && !pool.path.is_dir() {
        return Err(format!("{} is not there: mount it on this node", pool.path.display()));
    }
    let stat = rustix::fs::statvfs(found).map_err(|error| format!("ask {}: {error}", found.display()))?;
    let size = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(PoolFacts { name: pool.name.clone(), kind: pool.kind, size, free, promised })
}

/// The volume object of a claim.
pub fn path(instance: &InstanceConfig, claim: &VolumeClaim) -> ObjectPath {
    ObjectPath { namespace: instance.path.namespace.clone(), kind: Kind::Vol, name: claim.name.clone() }
}

/// The text of a volume object that is made for a claim, without its id.
pub fn text(instance: &InstanceConfig, claim: &VolumeClaim, pool: &Pool, cluster: &str) -> String {
    let backing = format!("{}.{}.vol.{cluster}", claim.name, instance.path.namespace);
    let size = claim.size.unwrap_or(0);
    let at = pool.path.join(&backing);
    let at = at.display();
    let resources = match pool.kind {
        PoolType::Directory => format!("[fs#1]\ntype = flag\n\n[fs#2]\ntype = directory\npath = {at}\n"),
        PoolType::Shared => format!("[fs#1]\ntype = directory\npath = {at}\nshared = true\n"),
        PoolType::Loop => {
            format!("[disk#1]\ntype = loop\nfile = {at}.img\nsize = {size}\nmnt = {at}\n")
        }
    };
    format!(
        "[DEFAULT]\npool = {}\nsize = {size}\naccess = {}\nnodes = {}\nchildren = {}\n\n{resources}\n[sync#i0]\ndisable = true\n",
        pool.name,
        claim.access.as_str(),
        instance.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        instance.path.fqn(),
    )
}

/// The text of a volume object with a service among its users, or not; none: it is so already.
///
/// # Errors
/// The text does not read.
pub fn with_child(text: &str, child: &ObjectPath, wanted: bool) -> Result<Option<String>, String> {
    let mut document = Document::parse(text).map_err(|_| "its configuration cannot be read".to_owned())?;
    let listed = document.get("DEFAULT", "children").unwrap_or_default();
    let mut children = convert::list(&listed);
    let is_child = |word: &String| word.parse::<ObjectPath>().is_ok_and(|path| path == *child);
    match (children.iter().any(is_child), wanted) {
        (true, true) | (false, false) => return Ok(None),
        (false, true) => children.push(child.fqn()),
        (true, false) => children.retain(|word| !is_child(word)),
    }
    document.set("DEFAULT", "children", &children.join(" "));
    Ok(Some(document.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{texts, world::tests::world};

    #[test]
    fn every_type_of_pool_makes_a_volume_that_can_be_read() {
        let service: ObjectPath = "test/registry".parse().unwrap();
        let text_of = "[volume#1]\nname = data\nsize = 10m\naccess = rwo\n";
        let world = world("[pool#a]\ntype = loop\n[pool#b]\ntype = shared\npath = /srv\n");
        let instance = texts::read(&world, &service, text_of).unwrap().instance.unwrap();
        let resource = instance.resources.values().next().unwrap();
        let om_core::instance::ResourceKind::Volume(claim) = &resource.kind else { panic!("{resource:?}") };
        let pools = pools(&world, &Places::new(Some(Path::new("/r"))));
        assert_eq!(pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["a", "b", "default"]);
        for pool in &pools {
            let text = text(&instance, claim, pool, "homepool2");
            let read = texts::read(&world, &path(&instance, claim), &text);
            let read = read.unwrap_or_else(|wrong| panic!("{text}\n{wrong:?}"));
            let made = read.instance.unwrap().volume.unwrap();
            assert_eq!((made.size, made.children), (10 << 20, vec![service.clone()]), "{text}");
            let without = with_child(&text, &service, false).unwrap().unwrap();
            assert_eq!(with_child(&without, &service, false).unwrap(), None);
            assert!(with_child(&without, &service, true).unwrap().unwrap().contains("children = test/svc/registry"));
        }
    }
}
