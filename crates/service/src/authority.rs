//! Owns a local certificate authority: files in a directory, made once, and a server certificate that stays fresh.
//!
//! `ca.pem` and `ca.key` are the authority; `server.pem` (the server's certificate, then the authority's) and
//! `server.key` are what it issues. An authority that is there is never replaced: clients trust it.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rcgen::{KeyPair, PublicKeyData as _};
use rustix::fs::FlockOperation;
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use time::{Duration, OffsetDateTime};

use crate::{
    replace::replace,
    tls::{
        certificate::{Facts, NotACertificate, facts, fingerprint, moment, pem},
        name::Name,
    },
};
use plan::{AuthorityFound, Refusal, ServerFound, plan};

mod held;
mod machine;
mod plan;

pub use held::{Held, HeldError, Pair};
pub use plan::{Reason, Step};

/// How long an authority is good for.
const LIFE: Duration = Duration::days(3650);
/// Certificates begin so long ago, for clients whose clock is late.
const BACKDATED: Duration = Duration::hours(1);
/// Longest common name (RFC 5280, appendix A.1).
const MAX_COMMON_NAME: usize = 64;

/// An authority that is in order.
#[derive(Clone, Debug)]
pub struct Authority {
    /// PEM file with its certificate, for clients to trust.
    pub certificate: PathBuf,
    /// PEM file with the server's certificate, then the authority's.
    pub server_certificate: PathBuf,
    /// PEM file with the server's key.
    pub server_key: PathBuf,
    /// The authority's certificate: `sha256:<64 hex>` of its DER.
    pub fingerprint: String,
    /// What the server's certificate is made out to, sorted.
    pub names: Vec<Name>,
    /// When the authority's certificate ends.
    pub ends: OffsetDateTime,
    /// When the server's certificate ends.
    pub server_ends: OffsetDateTime,
    /// What was done now; nothing if all was well.
    pub done: Vec<Step>,
}

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory could not be read or written.
    #[error("{operation} `{}`", path.display())]
    File {
        /// What was tried, such as `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the authority is not what it should be.
    #[error(
        "use the certificate authority `{}`: {problem}; restore it from a backup, or move ca.pem and ca.key away to make a new authority, which clients then have to be told to trust",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The authority's time is over.
    #[error(
        "use the certificate authority `{}`: it ended at {}; move ca.pem and ca.key away to make a new authority, which clients then have to be told to trust",
        path.display(), moment(*at)
    )]
    Ended {
        /// The file.
        path: PathBuf,
        /// When.
        at: OffsetDateTime,
    },
    /// The authority's time has not come.
    #[error("use the certificate authority `{}`: it is not valid before {}; set the clock of this machine", path.display(), moment(*at))]
    Future {
        /// The file.
        path: PathBuf,
        /// When it begins.
        at: OffsetDateTime,
    },
    /// A server certificate has to be issued, but the authority's key is not there.
    #[error(
        "issue a certificate: the authority's key `{}` is missing; restore it from a backup, or move ca.pem away to make a new authority, which clients then have to be told to trust",
        path.display()
    )]
    NoKey {
        /// The missing file.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("make {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// Why it could not be.
        source: rcgen::Error,
    },
    /// What was just made cannot be read back.
    #[error("read back a certificate that was just made")]
    Made(#[from] NotACertificate),
}

/// Where the authority in `directory` has its certificate.
pub fn certificate_in(directory: &Path) -> PathBuf {
    directory.join("ca.pem")
}

/// Where the authority in `directory` has the server's certificate and key.
pub fn server_files_in(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("server.pem"), directory.join("server.key"))
}

/// Makes the authority and the server's certificate, as far as they are not there and good.
///
/// The certificate is made out to this machine's names and addresses, and to `extra`. It is issued anew if it is in
/// the last third of its 397 days, cannot be used, is of another authority, or lacks a name. Two processes take
/// turns. Blocks.
///
/// # Errors
/// See [`AuthorityError`]; each names the file and what helps.
pub fn ensure(directory: &Path, extra: &[Name], now: OffsetDateTime) -> Result<Authority, AuthorityError> {
    let mut wanted = machine::names();
    wanted.extend(extra.iter().cloned());
    let common = extra.iter().chain(&wanted).find_map(|name| match name {
        Name::Dns(name) if name != "localhost" && !name.starts_with('*') && name.len() <= MAX_COMMON_NAME => {
            Some(name.clone())
        }
        _ => None,
    });
    let common = common.unwrap_or_else(|| "localhost".into());
    Files::new(directory).ensure(&wanted, &common, now)
}

struct Files {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    server_certificate: PathBuf,
    server_key: PathBuf,
}

/// The authority's certificate.
struct Signer {
    der: CertificateDer<'static>,
    facts: Facts,
}

impl Files {
    fn new(directory: &Path) -> Self {
        let (server_certificate, server_key) = server_files_in(directory);
        Self {
            directory: directory.to_owned(),
            certificate: certificate_in(directory),
            key: directory.join("ca.key"),
            server_certificate,
            server_key,
        }
    }

    fn ensure(&self, wanted: &BTreeSet<Name>, common: &str, now: OffsetDateTime) -> Result<Authority, AuthorityError> {
        let in_directory =
            |operation| move |source| AuthorityError::File { operation, path: self.directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(in_directory("make"))?;
        let turn = File::open(&self.directory).map_err(in_directory("open"))?;
        // Some network file systems cannot lock directories; there, two first starts at once are the operator's to avoid.
        if let Err(error) = rustix::fs::flock(&turn, FlockOperation::LockExclusive) {
            tracing::debug!(%error, "lock `{}`", self.directory.display());
        }

        let mut key = self.read_key()?;
        let mut signer = self.read_signer(key.as_ref())?;
        let found = match (&signer, &key) {
            (None, None) => AuthorityFound::Nothing,
            (None, Some(_)) => AuthorityFound::KeyOnly,
            (Some(Signer { facts, .. }), key) => {
                AuthorityFound::Certificate { from: facts.not_before, to: facts.not_after, key: key.is_some() }
            }
        };
        let server = self.server(signer.as_ref())?;
        let steps = plan(found, &server, wanted, now).map_err(|refusal| match refusal {
            Refusal::Ended(at) => AuthorityError::Ended { path: self.certificate.clone(), at },
            Refusal::Future(at) => AuthorityError::Future { path: self.certificate.clone(), at },
            Refusal::NoKey => AuthorityError::NoKey { path: self.key.clone() },
        })?;
        for step in &steps {
            match (step, &signer, &key) {
                (Step::MakeAuthority | Step::RestoreAuthority, ..) => {
                    let made = self.make_authority(key.take(), now)?;
                    (signer, key) = (Some(made.0), Some(made.1));
                }
                (Step::IssueServer(_), Some(signer), Some(key)) => self.issue(signer, key, wanted, common, now)?,
                (Step::IssueServer(_), ..) => return Err(AuthorityError::NoKey { path: self.key.clone() }),
            }
        }
        let signer = signer.expect("a plan makes an authority where there is none");
        let server = self.server(Some(&signer))?;
        let ServerFound::Good { to, names, .. } = server else {
            let problem = format!("the server's certificate is {server:?} after it was issued");
            return Err(AuthorityError::Damaged { path: self.server_certificate.clone(), problem });
        };
        Ok(Authority {
            certificate: self.certificate.clone(),
            server_certificate: self.server_certificate.clone(),
            server_key: self.server_key.clone(),
            fingerprint: fingerprint(&signer.der),
            names: names.into_iter().collect(),
            ends: signer.facts.not_after,
            server_ends: to,
            done: steps,
        })
    }

    fn read_key(&self) -> Result<Option<KeyPair>, AuthorityError> {
        let Some(pem) = read(&self.key)? else { return Ok(None) };
        let key = KeyPair::from_pem(&pem);
        key.map(Some).map_err(|error| self.damaged(&self.key, format!("no private key can be read from it ({error})")))
    }

    /// The authority's certificate, which has to fit its key.
    fn read_signer(&self, key: Option<&KeyPair>) -> Result<Option<Signer>, AuthorityError> {
        let Some(pem) = read(&self.certificate)? else { return Ok(None) };
        let damaged = |problem: String| self.damaged(&self.certificate, problem);
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| damaged(format!("no certificate can be read from it ({error})")))?;
        let facts = facts(&der).map_err(|error| damaged(error.to_string()))?;
        if !facts.is_authority {
            return Err(damaged("it is the certificate of a server, not of an authority".into()));
        }
        if key.is_some_and(|key| key.der_bytes() != facts.public_key) {
            return Err(damaged("ca.key does not belong to it".into()));
        }
        Ok(Some(Signer { der, facts }))
    }

    fn damaged(&self, path: &Path, problem: String) -> AuthorityError {
        AuthorityError::Damaged { path: path.to_owned(), problem }
    }

    /// Looks at the server's files. Only what cannot be read at all is an error: the rest is issued anew.
    fn server(&self, authority: Option<&Signer>) -> Result<ServerFound, AuthorityError> {
        let (certificate, key) = (read(&self.server_certificate)?, read(&self.server_key)?);
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Ok(ServerFound::Missing);
        };
        let unusable = |why: &str| Ok(ServerFound::Unusable(why.to_owned()));
        let Ok(chain) = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>() else {
            return unusable("server.pem is damaged");
        };
        let Some((leaf, rest)) = chain.split_first() else { return unusable("server.pem holds no certificate") };
        let Ok(facts) = facts(leaf) else { return unusable("server.pem is damaged") };
        match KeyPair::from_pem(&key) {
            Ok(key) if key.der_bytes() == facts.public_key => {}
            Ok(_) => return unusable("server.key does not belong to server.pem"),
            Err(_) => return unusable("server.key is damaged"),
        }
        let Some(authority) = authority else { return Ok(ServerFound::Foreign) };
        if !is_signed_by(leaf, &authority.der, facts.not_before) {
            return Ok(ServerFound::Foreign);
        }
        if rest.last() != Some(&authority.der) {
            return unusable("server.pem does not end with the certificate of the authority");
        }
        Ok(ServerFound::Good { from: facts.not_before, to: facts.not_after, names: facts.names.into_iter().collect() })
    }

    /// Makes the authority, or only its certificate if there is a key.
    fn make_authority(&self, key: Option<KeyPair>, now: OffsetDateTime) -> Result<(Signer, KeyPair), AuthorityError> {
        let make = |source| AuthorityError::Make { what: "a certificate authority", source };
        let new = key.is_none();
        let key = key.map_or_else(KeyPair::generate, Ok).map_err(make)?;
        let der = held::authority_certificate("Local certificate authority", &key, now)?;
        if new {
            self.write(&self.key, &key.serialize_pem(), 0o600)?;
        }
        // Last: without it, the key counts as unfinished.
        self.write(&self.certificate, &pem(&der), 0o644)?;
        Ok((Signer { facts: facts(&der)?, der }, key))
    }

    fn issue(
        &self,
        signer: &Signer,
        key: &KeyPair,
        names: &BTreeSet<Name>,
        common: &str,
        now: OffsetDateTime,
    ) -> Result<(), AuthorityError> {
        let made = held::server_certificate(signer, key, names, common, now)?;
        self.write(&self.server_key, &made.key, 0o600)?;
        self.write(&self.server_certificate, &made.certificate, 0o644)
    }

    fn write(&self, path: &Path, content: &str, mode: u32) -> Result<(), AuthorityError> {
        replace(path, content.as_bytes(), mode).map_err(|source| AuthorityError::File {
            operation: "write",
            path: path.to_owned(),
            source,
        })
    }
}

/// Reads a text file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { operation: "read", path: path.to_owned(), source }),
    }
}

fn is_signed_by(leaf: &CertificateDer<'_>, authority: &CertificateDer<'static>, at: OffsetDateTime) -> bool {
    let mut roots = RootCertStore::empty();
    let at = u64::try_from(at.unix_timestamp()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    roots.add(authority.clone()).is_ok()
        && ParsedCertificate::try_from(leaf)
            .is_ok_and(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], at, algorithms).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn day(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000 + day)
    }

    fn names(list: &str) -> Vec<Name> {
        list.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(directory: &Path, extra: &str, at: i64, expected: &str) -> Option<Authority> {
        let result = ensure(directory, &names(extra), day(at));
        let seen = match &result {
            Ok(made) => made.done.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + "),
            Err(error) => error.to_string(),
        };
        assert!(if expected.is_empty() { seen.is_empty() } else { seen.contains(expected) }, "{seen:?} | {expected}");
        result.ok()
    }

    #[test]
    fn an_authority_is_made_once_and_kept_fresh() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("made/tls");
        let path = |name: &str| directory.join(name);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let first =
            check(&directory, "registry.example.com 192.0.2.7", 0, "made a certificate authority + issued").unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!((mode(&path("ca.key")), mode(&path("server.key")), mode(&path("ca.pem"))), (0o600, 0o600, 0o644));
        for name in names("localhost 127.0.0.1 ::1 registry.example.com 192.0.2.7") {
            assert!(first.names.contains(&name), "{name}");
        }
        assert!(first.server_ends == day(397) && first.ends == day(3650));
        // Fewer names are wanted, or none: nothing to do.
        for (extra, at) in [("registry.example.com 192.0.2.7", 1), ("", 2), ("", 200)] {
            check(&directory, extra, at, "");
        }
        check(&directory, "*.example.com", 3, "was not made out to *.example.com");
        check(&directory, "", 300, "the old one ends at 2025");
        fs::write(path("server.pem"), &fs::read(path("server.pem")).unwrap()[..100]).unwrap();
        check(&directory, "", 301, "server.pem is damaged");
        fs::copy(path("ca.key"), path("server.key")).unwrap();
        check(&directory, "", 301, "server.key does not belong to server.pem");
        fs::remove_file(path("server.key")).unwrap();
        check(&directory, "", 301, "there was none");
        let chain = fs::read_to_string(path("server.pem")).unwrap();
        fs::write(path("server.pem"), &chain[..chain.len() / 2]).unwrap();
        check(&directory, "", 301, "the old one could not be used");
        // Somebody else's pair.
        let other = temporary.path().join("other");
        let stranger = check(&other, "", 301, "made").unwrap();
        assert_ne!(stranger.fingerprint, first.fingerprint);
        for name in ["server.pem", "server.key"] {
            fs::copy(other.join(name), path(name)).unwrap();
        }
        let again = check(&directory, "", 301, "of another authority").unwrap();
        assert_eq!(again.fingerprint, first.fingerprint);
        // Without its key it still does while nothing has to be signed.
        fs::rename(path("ca.key"), path("away")).unwrap();
        check(&directory, "", 302, "");
        check(&directory, "new.example.com", 302, "ca.key` is missing; restore it from a backup");
        fs::rename(path("away"), path("ca.key")).unwrap();
        // The certificate alone comes back under the same name and key, so that clients who know the old one go on.
        let old = CertificateDer::from_pem_slice(&fs::read(path("ca.pem")).unwrap()).unwrap();
        fs::remove_file(path("ca.pem")).unwrap();
        check(&directory, "", 302, "anew, for the key that was there");
        let leaf = CertificateDer::from_pem_slice(&fs::read(path("server.pem")).unwrap()).unwrap();
        assert!(is_signed_by(&leaf, &old, day(302)));
        assert!(fs::read_dir(&directory).unwrap().count() == 4, "nothing is left behind");
    }

    #[test]
    fn an_authority_is_never_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path();
        check(directory, "", 0, "made");
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        let good = (fs::read(&certificate).unwrap(), fs::read(&key).unwrap());
        let leaf = fs::read(directory.join("server.pem")).unwrap();
        let foreign = KeyPair::generate().unwrap().serialize_pem().into_bytes();
        for (certificate_is, key_is, at, expected) in [
            (&b""[..], &good.1[..], 1, "ca.pem`: no certificate can be read from it"),
            (&b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"[..], &good.1, 1, "ca.pem`: "),
            (&leaf, &good.1, 1, "certificate of a server, not of an authority"),
            (&good.0, b"", 1, "ca.key`: no private key can be read from it"),
            (&good.0, &foreign, 1, "ca.key does not belong to it"),
            (&good.0, &good.1, 3650, "it ended at 2034-10-02T00:00:00Z; move ca.pem and ca.key away"),
            (&good.0, &good.1, -1, "set the clock"),
        ] {
            fs::write(&certificate, certificate_is).unwrap();
            fs::write(&key, key_is).unwrap();
            check(directory, "", at, expected);
            assert_eq!(
                (fs::read(&certificate).unwrap(), fs::read(&key).unwrap()),
                (certificate_is.into(), key_is.into())
            );
        }
        fs::write(directory.join("file"), "").unwrap();
        check(&directory.join("file"), "", 1, "make `");
    }
}
