//! Owns telling this node's Docker engine to trust the cluster's authority for the registries that the cluster runs:
//! `certs.d/<host>:<port>/ca.crt`. Puts nothing else there and removes only what it put.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use service::replace::replace;

/// A directory of the engine that could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("make the engine trust the cluster: {operation} {}", path.display())]
pub struct TrustError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes the engine trust the authority for exactly these registries, written `host:port`.
///
/// Only directories of the cluster's zone are looked at, so that others' certificates stay. Blocks.
///
/// # Errors
/// The first file that could not be written or removed.
pub fn trust(docker_etc: &Path, zone: &str, registries: &BTreeSet<String>, authority: &str) -> Result<(), TrustError> {
    let certs = docker_etc.join("certs.d");
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| TrustError { operation, path, source }
    };
    for registry in registries {
        let directory = certs.join(registry);
        let file = directory.join("ca.crt");
        if fs::read(&file).is_ok_and(|found| found == authority.as_bytes()) {
            continue;
        }
        fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        replace(&file, authority.as_bytes(), 0o644).map_err(failed("write", &file))?;
    }
    let found = match fs::read_dir(&certs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("read", &certs))?,
    };
    for entry in found.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
        let ours = host.strip_suffix(zone).is_some_and(|rest| rest.ends_with(".svc."));
        let file = entry.path().join("ca.crt");
        if !ours || registries.contains(&name) || !fs::read(&file).is_ok_and(|found| found == authority.as_bytes()) {
            continue;
        }
        fs::remove_file(&file).map_err(failed("remove", &file))?;
        // Something else of the user's may be in it.
        let _ = fs::remove_dir(entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_files_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs.d");
        let put = |name: &str, text: &str| {
            fs::create_dir_all(certs.join(name)).unwrap();
            fs::write(certs.join(name).join("ca.crt"), text).unwrap();
        };
        put("other.example:5000", "CA");
        put("own.test.svc.pool:5000", "someone's");
        let check = |registries: &[&str], expected: &[&str]| {
            let registries = registries.iter().map(ToString::to_string).collect();
            trust(directory.path(), "pool", &registries, "CA").unwrap();
            let mut found: Vec<String> =
                fs::read_dir(&certs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            found.sort();
            assert_eq!(found, expected);
        };
        let all = ["other.example:5000", "own.test.svc.pool:5000", "registry.test.svc.pool:5000"];
        check(&["registry.test.svc.pool:5000"], &all);
        assert_eq!(fs::read_to_string(certs.join(all[2]).join("ca.crt")).unwrap(), "CA");
        check(&["registry.test.svc.pool:5000"], &all);
        check(&[], &all[..2]);
    }
}
