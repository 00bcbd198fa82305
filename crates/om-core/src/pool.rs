//! Owns pools of volumes: what each can do, and which one a volume is made in. Does not own making it.

use std::fmt;

use crate::{
    config::convert::size_shown,
    instance::{Access, VolumeClaim},
};

/// The pool that is there when none is configured.
pub const DEFAULT: &str = "default";

/// A pool of the cluster's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it makes volumes of.
    pub kind: PoolType,
    /// The directory that volumes are in; none: one of the daemon's own. A shared one has one.
    pub path: Option<String>,
}

/// What a pool makes volumes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolType {
    /// A directory. The size is not enforced, and the data stays on its node.
    Directory,
    /// A file with a filesystem. The size is enforced, the data stays on its node.
    Loop,
    /// A directory that several nodes mount.
    Shared,
}

impl PoolType {
    /// The word in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Loop => "loop",
            Self::Shared => "shared",
        }
    }

    /// The type that a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Directory, Self::Loop, Self::Shared].into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether all nodes see the same data.
    pub fn is_shared(self) -> bool {
        self == Self::Shared
    }

    /// How volumes of it may be used.
    pub fn takes(self, access: Access) -> bool {
        match self {
            Self::Directory | Self::Shared => true,
            Self::Loop => matches!(access, Access::Rwo | Access::Roo),
        }
    }
}

/// A pool as a node sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// Its name.
    pub name: String,
    /// What it makes volumes of.
    pub kind: PoolType,
    /// Bytes of the filesystem that it is on.
    pub size: u64,
    /// Bytes of it that are free.
    pub free: u64,
    /// Bytes that volumes of it were promised and do not use yet.
    pub promised: u64,
}

impl PoolFacts {
    /// Bytes that a new volume can have.
    pub fn room(&self) -> u64 {
        self.free.saturating_sub(self.promised)
    }
}

/// Why no pool takes a volume: each, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPool {
    /// The volume's name.
    pub volume: String,
    /// Name of each pool, and what is in the way.
    pub reasons: Vec<(String, String)>,
}

impl fmt::Display for NoPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no pool takes volume {}", self.volume)?;
        for (n, (pool, reason)) in self.reasons.iter().enumerate() {
            write!(f, "{} {pool}: {reason}", if n == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for NoPool {}

/// The pool that a volume is made in: of those that take it, one that is not shared where nobody asked for that, then
/// the one with the most room, then the first by name.
///
/// # Errors
/// What is in the way, pool by pool.
pub fn choose<'a>(claim: &VolumeClaim, pools: &'a [PoolFacts]) -> Result<&'a PoolFacts, NoPool> {
    let refused = |pool: &PoolFacts| -> Option<String> {
        if claim.pool.as_ref().is_some_and(|name| *name != pool.name) {
            return Some("another one was asked for".to_owned());
        }
        if claim.pool_type.as_ref().is_some_and(|kind| kind != pool.kind.as_str()) {
            return Some(format!("it is of type {}", pool.kind.as_str()));
        }
        if claim.shared && !pool.kind.is_shared() {
            return Some("it is not shared".to_owned());
        }
        if !pool.kind.takes(claim.access) {
            return Some(format!("its volumes cannot be used as {}", claim.access.as_str()));
        }
        let wanted = claim.size.unwrap_or(0);
        (wanted > pool.room()).then(|| format!("{} are wanted, it has {}", size_shown(wanted), size_shown(pool.room())))
    };
    let mut reasons = Vec::new();
    let mut fitting = Vec::new();
    for pool in pools {
        match refused(pool) {
            Some(reason) => reasons.push((pool.name.clone(), reason)),
            None => fitting.push(pool),
        }
    }
    fitting
        .into_iter()
        .min_by_key(|pool| (pool.kind.is_shared() != claim.shared, u64::MAX - pool.room(), &pool.name))
        .ok_or(NoPool { volume: claim.name.to_string(), reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(change: impl FnOnce(&mut VolumeClaim)) -> VolumeClaim {
        let mut claim = VolumeClaim {
            name: "data".parse().expect("a name"),
            size: Some(10 << 30),
            access: Access::Rwo,
            pool: None,
            pool_type: None,
            format: true,
            shared: false,
            directories: vec![],
            user: None,
            group: None,
            perm: None,
            dirperm: None,
            configs: vec![],
            secrets: vec![],
        };
        change(&mut claim);
        claim
    }

    #[test]
    fn the_pool_that_fits_best_is_chosen() {
        let pool = |name: &str, kind, free: u64, promised: u64| PoolFacts {
            name: name.into(),
            kind,
            size: 100 << 30,
            free: free << 30,
            promised: promised << 30,
        };
        let pools = [
            pool("default", PoolType::Directory, 50, 0),
            pool("big", PoolType::Loop, 90, 60),
            pool("nas", PoolType::Shared, 99, 0),
        ];
        let check = |change: fn(&mut VolumeClaim), expected: &str| {
            let got = choose(&claim(change), &pools).map_or_else(|no| no.to_string(), |pool| pool.name.clone());
            assert_eq!(got, expected);
        };
        check(|_| {}, "default");
        check(|c| c.pool_type = Some("loop".into()), "big");
        check(|c| c.shared = true, "nas");
        check(|c| c.pool = Some("nas".into()), "nas");
        check(|c| c.access = Access::Rwx, "default");
        check(|c| c.size = Some(60 << 30), "nas");
        check(
            |c| c.size = Some(200 << 30),
            "no pool takes volume data: default: 200.0 GiB are wanted, it has 50.0 GiB; big: 200.0 GiB are wanted, it has \
             30.0 GiB; nas: 200.0 GiB are wanted, it has 99.0 GiB",
        );
        check(
            |c| {
                c.pool_type = Some("loop".into());
                c.access = Access::Rwx;
            },
            "no pool takes volume data: default: it is of type directory; big: its volumes cannot be used as rwx; nas: it \
             is of type shared",
        );
    }
}
