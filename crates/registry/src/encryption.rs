//! Owns the server's TLS from its configuration on: what is made before the port is taken, and what keeps it fresh.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use service::{
    authority,
    shutdown::Shutdown,
    tls::{
        ClientMode, TlsOptions,
        certificate::moment,
        reload::{Polled, Reloading},
    },
};
use time::OffsetDateTime;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::config::{
    Config,
    settings::{Authority, CipherSuite, ClientAuth, Tls},
};

/// How often files are looked at for changes.
const POLL: Duration = Duration::from_secs(3);
/// How often a certificate of our own is looked at for renewal, and ends are warned about.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// Where a container finds a certificate that was issued for it, as `om` gives it to images with the label
/// `io.roadstead.tls`.
pub(crate) const GIVEN: &str = "/run/tls";

/// TLS with the certificate in a directory, for a server whose configuration says nothing of TLS. `None` without both
/// files.
pub(crate) fn given(dir: &Path) -> Option<Tls> {
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    if !certificate.exists() || !key.exists() {
        return None;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Some(Tls {
        certificate: text(&certificate),
        key: text(&key),
        clients: None,
        tls13_only: false,
        cipher_suites: CipherSuite::ALL.to_vec(),
    })
}

/// TLS of the API's port.
pub(crate) struct Encryption {
    reloading: Arc<Reloading>,
    authority: Option<Authority>,
    hurry: Notify,
}

impl Encryption {
    /// Makes what the configuration asks for; `None` if it asks for no TLS. Blocks while files are read and written.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(tls) = &config.http.tls else { return Ok(None) };
        let now = OffsetDateTime::now_utc();
        if let Some(authority) = &config.authority {
            let made = ensure(authority, now).context("roadstead.authority")?;
            let names: Vec<String> = made.names.iter().map(ToString::to_string).collect();
            tracing::info!(
                authority.fingerprint = made.fingerprint,
                certificate.names = names.join(" "),
                "the certificate is of the local authority `{}`; clients trust it after `registry trust`",
                made.certificate.display()
            );
        }
        let reloading = Reloading::open(options(tls, config.http.http2)).context("http.tls")?;
        reloading.warn_of_ends(now);
        Ok(Some(Arc::new(Self {
            reloading: Arc::new(reloading),
            authority: config.authority.clone(),
            hurry: Notify::new(),
        })))
    }

    /// What a connection that begins now uses.
    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.reloading.current().into()
    }

    /// Has the files looked at soon, as an operator who changed them wishes.
    pub(crate) fn look_now(&self) {
        self.hurry.notify_one();
    }

    /// Follows the files, and renews a certificate of our own, until shutdown.
    pub(crate) async fn keep_fresh(self: Arc<Self>, shutdown: Shutdown) {
        let mut daily = Instant::now() + RENEW;
        loop {
            let next = daily.min(Instant::now() + POLL);
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.hurry.notified() => {}
                () = shutdown.requested() => return,
            }
            let due = Instant::now() >= daily;
            if due {
                daily = Instant::now() + RENEW;
            }
            let this = Arc::clone(&self);
            tokio::select! {
                // A panic there is a bug that has been reported; the certificate in use stays.
                _ = spawn_blocking(move || this.refresh(due)) => {}
                // A file system may hang; the end of the process does not wait for it.
                () = shutdown.requested() => return,
            }
        }
    }

    fn refresh(&self, due: bool) {
        let now = OffsetDateTime::now_utc();
        if due
            && let Some(authority) = &self.authority
            && let Err(error) = ensure(authority, now)
        {
            tracing::error!("the server's certificate is not renewed: {error:#}");
        }
        if self.reloading.poll() == Polled::Reloaded || due {
            self.reloading.warn_of_ends(now);
        }
    }
}

fn ensure(authority: &Authority, now: OffsetDateTime) -> anyhow::Result<authority::Authority> {
    let made = authority::ensure(Path::new(&authority.directory), &authority.names, now)?;
    for step in &made.done {
        tracing::info!(
            authority.fingerprint = made.fingerprint,
            certificate.end = moment(made.server_ends),
            "{step} (in `{}`)",
            authority.directory
        );
    }
    Ok(made)
}

fn options(tls: &Tls, http2: bool) -> TlsOptions {
    let (authorities, mode) = match &tls.clients {
        None => (Vec::new(), ClientMode::None),
        Some(clients) => (
            clients.authorities.iter().map(Into::into).collect(),
            match clients.mode {
                ClientAuth::Request => ClientMode::Request,
                ClientAuth::RequireAny => ClientMode::RequireAny,
                ClientAuth::VerifyIfGiven => ClientMode::VerifyIfGiven,
                ClientAuth::RequireAndVerify => ClientMode::RequireAndVerify,
            },
        ),
    };
    let mut alpn = vec![b"http/1.1".to_vec()];
    if http2 {
        alpn.insert(0, b"h2".to_vec());
    }
    TlsOptions {
        certificate: (&tls.certificate).into(),
        key: (&tls.key).into(),
        client_authorities: authorities,
        client_mode: mode,
        tls13_only: tls.tls13_only,
        cipher_suites: tls.cipher_suites.iter().map(|suite| suite.number).collect(),
        alpn,
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn a_certificate_that_was_given_is_used_with_its_key() {
        let dir = tempfile::tempdir().expect("create a temp dir");
        assert_eq!(given(dir.path()), None);
        std::fs::write(dir.path().join("tls.crt"), "").expect("write a file");
        assert_eq!(given(dir.path()), None);
        std::fs::write(dir.path().join("tls.key"), "").expect("write a file");
        let tls = given(dir.path()).expect("TLS");
        assert!(tls.key.ends_with("/tls.key") && !tls.cipher_suites.is_empty());
    }

    #[test]
    fn a_certificate_of_our_own_is_renewed_and_used() {
        let dir = tempfile::tempdir().expect("create a temp dir");
        let authority = Authority { directory: dir.path().display().to_string(), names: Vec::new() };
        let old = OffsetDateTime::now_utc() - Duration::days(300);
        let made = authority::ensure(dir.path(), &[], old).expect("an authority");
        let path = |path: &Path| path.display().to_string();
        let tls = Tls {
            certificate: path(&made.server_certificate),
            key: path(&made.server_key),
            clients: None,
            tls13_only: false,
            cipher_suites: Vec::new(),
        };
        let reloading = Arc::new(Reloading::open(options(&tls, true)).expect("TLS"));
        let encryption = Encryption { reloading, authority: Some(authority), hurry: Notify::new() };
        let left = || encryption.reloading.not_after().expect("an end") - OffsetDateTime::now_utc();
        encryption.refresh(false);
        assert_eq!(left().whole_days(), 96);
        encryption.refresh(true);
        assert_eq!(left().whole_days(), 396);
    }
}
