//! Judges the certificates that a server sends: which authority is behind them, and whether clients that trust it
//! would be content. Pure.

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{ServerName, UnixTime},
    server::ParsedCertificate,
};
use service::tls::certificate::{Facts, NotACertificate, facts, moment};
use time::OffsetDateTime;

use super::{Certificate, address::Address};

/// What can be said of a server.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A public authority vouches for it.
    Public,
    /// Its authority is one that clients have to be told of.
    Private {
        /// What to trust, never empty.
        authorities: Vec<Certificate>,
        /// The server's own certificate.
        server: Facts,
    },
}

/// Why clients would not be content.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChainError {
    #[error("{server} sent no certificate")]
    Empty { server: String },
    #[error("{server} sent something else than certificates")]
    Unreadable { server: String, source: NotACertificate },
    #[error(
        "{server} sends no certificate of its authority ({issuer}): get that file and name it with `--ca FILE`, or have \
         the server send it, by appending it to the file of http.tls.certificate"
    )]
    NoAuthority { server: String, issuer: String },
    #[error(
        "the certificate of {server} is not signed by {authority}, but by {issuer}: it is another server, or another authority is needed"
    )]
    Unsigned { server: String, authority: String, issuer: String },
    #[error("{subject} ended at {at}: renew it on the server first")]
    Ended { subject: String, at: String },
    #[error("{subject} is not valid before {at}: the clock of this machine or of the server is wrong")]
    Future { subject: String, at: String },
    #[error(
        "the certificate of {server} is not made out to {host}, but to {names}: use one of these, or on the server run \
         `registry init --name {host}`, or add it to roadstead.authority.names in its configuration"
    )]
    Name { server: String, host: String, names: String },
    #[error("the certificate of {server} is not accepted by clients")]
    Refused { server: String, source: Error },
}

/// Finds the authority among `sent`, the server's certificate first; or holds them against those that are `given`.
pub(super) fn judge(
    sent: &[Certificate],
    address: &Address,
    given: &[Certificate],
    now: UnixTime,
) -> Result<Verdict, ChainError> {
    let server = || address.text.clone();
    let unreadable = |source| ChainError::Unreadable { server: server(), source };
    let (leaf, others) = sent.split_first().ok_or_else(|| ChainError::Empty { server: server() })?;
    let described: Vec<Facts> = sent.iter().map(|der| facts(der)).collect::<Result<_, _>>().map_err(unreadable)?;
    let refused = |source| ChainError::Refused { server: server(), source };
    let parsed = ParsedCertificate::try_from(leaf).map_err(refused)?;
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let verify =
        |roots: &RootCertStore| verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms);
    let host = address.host.to_string();
    let name = ServerName::try_from(host.clone()).expect("every name for a certificate is one for a server");
    let name_fits = verify_server_name(&parsed, &name);

    if given.is_empty() && name_fits.is_ok() {
        let public = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if verify(&public).is_ok() {
            return Ok(Verdict::Public);
        }
    }
    let own = &described[0];
    let authorities = if given.is_empty() {
        vec![
            authority(sent, &described)
                .ok_or_else(|| ChainError::NoAuthority { server: server(), issuer: own.issuer.clone() })?,
        ]
    } else {
        given.to_vec()
    };
    let mut roots = RootCertStore::empty();
    let mut subjects = Vec::new();
    for der in &authorities {
        let facts = facts(der).map_err(unreadable)?;
        in_time(&facts, now)?;
        roots.add(der.clone()).map_err(refused)?;
        subjects.push(facts.subject);
    }
    in_time(own, now)?;
    // Clients accept a certificate that is trusted itself, whatever it may sign; the library does not.
    if !authorities.contains(leaf) {
        verify(&roots).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                ChainError::Unsigned { server: server(), authority: subjects.join(" or "), issuer: own.issuer.clone() }
            }
            error => refused(error),
        })?;
    }
    name_fits.map_err(|_| ChainError::Name { server: server(), host, names: listed(own) })?;
    Ok(Verdict::Private { authorities, server: own.clone() })
}

/// The authority of a chain: one that signed itself, else the last that may sign, else a server that signed itself.
fn authority(sent: &[Certificate], described: &[Facts]) -> Option<Certificate> {
    let find = |fits: &dyn Fn(&Facts) -> bool| described.iter().skip(1).rposition(fits).map(|at| at + 1);
    let signs_itself = |facts: &Facts| facts.subject == facts.issuer;
    find(&|facts| facts.is_authority && signs_itself(facts))
        .or_else(|| find(&|facts| facts.is_authority))
        .or_else(|| signs_itself(&described[0]).then_some(0))
        .map(|at| sent[at].clone())
}

fn in_time(facts: &Facts, now: UnixTime) -> Result<(), ChainError> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let subject = facts.subject.clone();
    if now > facts.not_after {
        return Err(ChainError::Ended { subject, at: moment(facts.not_after) });
    }
    if now < facts.not_before {
        return Err(ChainError::Future { subject, at: moment(facts.not_before) });
    }
    Ok(())
}

fn listed(facts: &Facts) -> String {
    let names: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
    if names.is_empty() { "no name at all".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use time::Duration;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn params(name: &str, hosts: &[&str], is_authority: bool) -> CertificateParams {
        let mut params =
            CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    struct Maker(Issuer<'static, KeyPair>, Certificate);

    impl Maker {
        fn new(name: &str) -> Self {
            let (params, key) = (params(name, &[], true), KeyPair::generate().expect("a key"));
            let own = params.self_signed(&key).expect("signed").der().clone();
            Self(Issuer::new(params, key), own)
        }

        /// Signs for ten days from `begin`, in days from now.
        fn sign(&self, name: &str, hosts: &[&str], begin: i64) -> Certificate {
            let mut params = params(name, hosts, false);
            let now = OffsetDateTime::from_unix_timestamp(NOW as i64).expect("a time");
            params.not_before = now + Duration::days(begin);
            params.not_after = params.not_before + Duration::days(10);
            params.signed_by(&KeyPair::generate().expect("a key"), &self.0).expect("signed").der().clone()
        }

        fn below(&self, name: &str) -> Self {
            let (params, key) = (params(name, &[], true), KeyPair::generate().expect("a key"));
            let own = params.signed_by(&key, &self.0).expect("signed").der().clone();
            Self(Issuer::new(params, key), own)
        }
    }

    #[test]
    fn chains() {
        let (root, stranger) = (Maker::new("root"), Maker::new("stranger"));
        let middle = root.below("middle");
        let leaf = root.sign("leaf", &["r.test", "192.0.2.7", "*.w.test"], -1);
        let deep = middle.sign("deep", &["r.test"], -1);
        let alone = params("alone", &["r.test"], false).self_signed(&KeyPair::generate().expect("a key"));
        let alone = alone.expect("signed").der().clone();
        let alone_ca = params("alone", &["r.test"], true).self_signed(&KeyPair::generate().expect("a key"));
        let alone_ca = alone_ca.expect("signed").der().clone();
        let check = |sent: &[&Certificate], host: &str, given: &[&Certificate], expected: &str| {
            let own = |list: &[&Certificate]| list.iter().map(|&der| der.clone()).collect::<Vec<_>>();
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
            let address = host.parse().expect("an address");
            let seen = match judge(&own(sent), &address, &own(given), now) {
                Ok(Verdict::Public) => "public".to_owned(),
                Ok(Verdict::Private { authorities, server }) => {
                    let subjects = authorities.iter().map(|der| facts(der).expect("a certificate").subject);
                    format!("{} for {}", subjects.collect::<Vec<_>>().join(" and "), server.subject)
                }
                Err(error) => error.to_string(),
            };
            assert!(seen.contains(expected), "{host}: {seen}");
        };
        let (root_is, middle_is) = (&root.1, &middle.1);
        check(&[&leaf, root_is], "r.test:5000", &[], "CN=root for CN=leaf");
        check(&[&leaf, root_is], "192.0.2.7", &[], "CN=root for CN=leaf");
        check(&[&leaf, root_is], "a.w.test", &[], "CN=root for CN=leaf");
        check(&[&deep, middle_is, root_is], "r.test", &[], "CN=root for CN=deep");
        check(&[&deep, root_is, middle_is], "r.test", &[], "CN=root for CN=deep");
        check(&[&deep, middle_is], "r.test", &[], "CN=middle for CN=deep");
        check(&[&alone], "r.test", &[], "CN=alone for CN=alone");
        check(&[&alone_ca], "r.test", &[], "CN=alone for CN=alone");
        check(&[&leaf], "r.test", &[], "sends no certificate of its authority (CN=root)");
        check(&[&leaf], "r.test", &[root_is], "CN=root for CN=leaf");
        check(&[&leaf, root_is], "r.test", &[&stranger.1, root_is], "CN=stranger and CN=root for CN=leaf");
        check(&[&leaf, root_is], "r.test", &[&stranger.1], "not signed by CN=stranger, but by CN=root");
        check(&[&leaf, &stranger.1], "r.test", &[], "not signed by CN=stranger, but by CN=root");
        check(&[&deep, root_is], "r.test", &[], "not signed by CN=root, but by CN=middle");
        check(
            &[&leaf, root_is],
            "x.test:5000",
            &[],
            "is not made out to x.test, but to r.test, 192.0.2.7, *.w.test: use one",
        );
        check(&[&leaf, root_is], "192.0.2.8", &[], "`registry init --name 192.0.2.8`");
        check(&[&root.sign("nameless", &[], -1), root_is], "r.test", &[], "but to no name at all");
        check(&[&root.sign("old", &["r.test"], -11), root_is], "r.test", &[], "CN=old ended at 2027-01-14");
        check(&[&root.sign("new", &["r.test"], 1), root_is], "r.test", &[], "CN=new is not valid before 2027-01-16");
        check(&[], "r.test", &[], "sent no certificate");
        check(&[&leaf, &Certificate::from(vec![1, 2])], "r.test", &[], "something else than certificates");
    }
}
