//! Owns the TLS configuration that is in use, and its exchange for a newer one when files change.
//!
//! It has no clock and no thread: whoever owns it calls [`Reloading::poll`] every few seconds. Connections keep the
//! configuration they began with.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};

use super::{
    TlsError, TlsOptions,
    certificate::{Facts, facts, moment},
    read_certificates, server_config,
};

/// Certificates that end within this time are warned about.
const SOON: Duration = Duration::days(14);

/// TLS whose files may change while it is in use.
#[derive(Debug)]
pub struct Reloading {
    options: TlsOptions,
    current: RwLock<Current>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The server's certificate first.
    chain: Vec<Facts>,
}

/// What was seen of the files at the last look.
#[derive(Debug)]
struct Watched {
    stamps: Vec<Option<Stamp>>,
    /// What was said of files that could not be used; `None` if these are in use.
    complaint: Option<String>,
}

/// What tells one state of a file from another: device, inode, size, and times of change in nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

/// What a look at the files led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nothing: they are as they were.
    Unchanged,
    /// New connections use the new files.
    Reloaded,
    /// They cannot be used; connections go on with the old ones, and the next look tries again.
    Kept,
}

impl Reloading {
    /// Reads the files for the first time. Blocks while reading.
    ///
    /// # Errors
    /// See [`TlsError`]; each names the file.
    pub fn open(options: TlsOptions) -> Result<Self, TlsError> {
        // Before the files are read: what changes meanwhile is seen at the next look.
        let stamps = stamps(&options);
        let current = Current::read(&options)?;
        Ok(Self { options, current: RwLock::new(current), watched: Mutex::new(Watched { stamps, complaint: None }) })
    }

    /// The configuration for a connection that begins now. Never blocks on files.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Looks whether files have changed and takes them into use if they are whole. Blocks while reading.
    ///
    /// Says in the log what came of a change, once.
    pub fn poll(&self) -> Polled {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.options);
        // Files that were no good are read at each look: a writer may be quicker than clocks of file systems.
        if stamps == watched.stamps && watched.complaint.is_none() {
            return Polled::Unchanged;
        }
        let changed = stamps != watched.stamps;
        watched.stamps = stamps;
        match Current::read(&self.options) {
            Ok(current) => {
                let path = self.options.certificate.display();
                let end = current.chain.first().map_or_else(String::new, |leaf| moment(leaf.not_after));
                tracing::info!(
                    certificate.end = end,
                    "new connections use the changed certificate `{path}`, valid until {end}"
                );
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                watched.complaint = None;
                Polled::Reloaded
            }
            Err(error) => {
                let complaint = complaint(&error);
                if changed || watched.complaint.as_ref() != Some(&complaint) {
                    tracing::error!("changed TLS files are not used, the old certificate stays in use: {complaint}");
                }
                watched.complaint = Some(complaint);
                Polled::Kept
            }
        }
    }

    /// Warns in the log of certificates in use that have ended or end within 14 days.
    pub fn warn_of_ends(&self, now: OffsetDateTime) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        for warning in ends(&current.chain, now) {
            tracing::warn!("{warning} (`{}`)", self.options.certificate.display());
        }
    }

    /// When the server's certificate ends, if it can be told.
    pub fn not_after(&self) -> Option<OffsetDateTime> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).chain.first().map(|leaf| leaf.not_after)
    }
}

impl Current {
    fn read(options: &TlsOptions) -> Result<Self, TlsError> {
        let config = server_config(options)?;
        // Read a second time, for the dates only: a change in between leads to another look.
        let chain = read_certificates(super::Role::Certificate, &options.certificate)?;
        Ok(Self { config, chain: chain.iter().filter_map(|der| facts(der).ok()).collect() })
    }
}

/// What has to be said about the ends of certificates.
fn ends(chain: &[Facts], now: OffsetDateTime) -> Vec<String> {
    let mut said = Vec::new();
    for Facts { subject, not_after, .. } in chain {
        let left = *not_after - now;
        if left.is_negative() {
            said.push(format!("the certificate of {subject} ended at {}: clients refuse it", moment(*not_after)));
        } else if left < SOON {
            let days = left.whole_days();
            said.push(format!("the certificate of {subject} ends in {days} days, at {}", moment(*not_after)));
        }
    }
    said
}

/// An error with its cause, on one line.
fn complaint(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn stamps(options: &TlsOptions) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let of = fs::metadata(path).ok()?;
        Some(Stamp(of.dev(), of.ino(), of.size(), (of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec())))
    };
    let authorities = options.client_authorities.iter();
    [&options.certificate, &options.key].into_iter().chain(authorities).map(|path| stamp(path)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::{super::ClientMode, *};
    use crate::replace::replace;

    fn pair(days: i64) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000 + days);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn changes_are_taken_when_they_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let write = |name: &str, content: &str| replace(&path(name), content.as_bytes(), 0o600).unwrap();
        let (old, new) = (pair(1), pair(2));
        write("c", &old.0);
        write("k", &old.1);
        write("ca", &old.0);
        let reloading = Reloading::open(TlsOptions {
            certificate: path("c"),
            key: path("k"),
            client_authorities: vec![path("ca")],
            client_mode: ClientMode::VerifyIfGiven,
            tls13_only: false,
            cipher_suites: vec![],
            alpn: vec![],
        })
        .unwrap();
        let check = |expected: Polled, days: i64| {
            let before = reloading.current();
            assert_eq!(reloading.poll(), expected);
            assert_eq!(!Arc::ptr_eq(&before, &reloading.current()), expected == Polled::Reloaded);
            assert_eq!((reloading.not_after().unwrap() - OffsetDateTime::UNIX_EPOCH).whole_days(), 20_000 + days);
        };
        check(Polled::Unchanged, 1);
        // Half of a pair, half of a file, no file, and then all of it.
        write("c", &new.0);
        check(Polled::Kept, 1);
        check(Polled::Kept, 1);
        fs::write(path("k"), &new.1[..new.1.len() / 2]).unwrap();
        check(Polled::Kept, 1);
        fs::remove_file(path("k")).unwrap();
        check(Polled::Kept, 1);
        write("k", &new.1);
        check(Polled::Reloaded, 2);
        check(Polled::Unchanged, 2);
        // The authorities of clients count too.
        write("ca", "");
        check(Polled::Kept, 2);
        write("ca", &new.0);
        check(Polled::Reloaded, 2);
        // Another file of the same name, with the same content.
        write("c", &new.0);
        check(Polled::Reloaded, 2);
    }

    #[test]
    fn ends_are_told_in_time() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let check = |days: i64, expected: &str| {
            let der = rustls::pki_types::pem::PemObject::from_pem_slice(pair(days).0.as_bytes());
            let der: rustls::pki_types::CertificateDer<'_> = der.unwrap();
            let seen = ends(&[facts(&der).unwrap()], now).join("\n");
            assert!(if expected.is_empty() { seen.is_empty() } else { seen.contains(expected) }, "{days}: {seen}");
        };
        check(-1, "ended at 2024-10-03T00:00:00Z");
        check(3, "ends in 3 days, at 2024-10-07T00:00:00Z");
        check(13, "ends in 13 days");
        check(14, "");
        check(400, "");
    }
}
