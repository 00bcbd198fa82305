//! Owns an authority that is held in memory, for who keeps its bytes elsewhere: makes it, issues for servers, says when
//! a certificate has to be issued anew. Also what both kinds of authority put into certificates.

use std::{collections::BTreeSet, fmt};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;

use super::{
    AuthorityError, BACKDATED, LIFE, MAX_COMMON_NAME, Reason, Signer, Step, is_signed_by,
    plan::{self, AuthorityFound, Refusal, ServerFound, plan},
};
use crate::tls::{
    certificate::{facts, fingerprint, moment, pem},
    name::Name,
};

/// A certificate with its key, as PEM. A server's certificate is followed by its authority's.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// For everybody.
    pub certificate: String,
    /// For the owner only.
    pub key: String,
}

/// Without the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why an authority that is held in memory issues nothing.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// Its bytes are not what they should be.
    #[error("use the certificate authority: {0}")]
    Damaged(String),
    /// Its time is over.
    #[error("use the certificate authority: it ended at {}", moment(*.0))]
    Ended(OffsetDateTime),
    /// Its time has not come.
    #[error("use the certificate authority: it is not valid before {}; set the clock of this machine", moment(*.0))]
    Future(OffsetDateTime),
    /// A certificate could not be made.
    #[error(transparent)]
    Make(#[from] AuthorityError),
}

/// An authority with its key, in memory.
pub struct Held {
    signer: Signer,
    key: KeyPair,
}

/// Without the key.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("fingerprint", &fingerprint(&self.signer.der)).finish_non_exhaustive()
    }
}

impl Held {
    /// Makes an authority, good for ten years. Its common name is `title` and eight digits of its key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn make(title: &str, now: OffsetDateTime) -> Result<Pair, AuthorityError> {
        let key =
            KeyPair::generate().map_err(|source| AuthorityError::Make { what: "a certificate authority", source })?;
        let certificate = authority_certificate(title, &key, now)?;
        Ok(Pair { certificate: pem(&certificate), key: key.serialize_pem() })
    }

    /// Reads an authority back.
    ///
    /// # Errors
    /// [`HeldError::Damaged`].
    pub fn read(pair: &Pair) -> Result<Self, HeldError> {
        let damaged = |problem: &str| HeldError::Damaged(problem.to_owned());
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes())
            .map_err(|_| damaged("its certificate cannot be read"))?;
        let facts = facts(&der).map_err(|_| damaged("its certificate cannot be read"))?;
        let key = KeyPair::from_pem(&pair.key).map_err(|_| damaged("its key cannot be read"))?;
        if !facts.is_authority {
            return Err(damaged("its certificate is one of a server"));
        }
        if key.der_bytes() != facts.public_key {
            return Err(damaged("its key does not belong to its certificate"));
        }
        Ok(Self { signer: Signer { der, facts }, key })
    }

    /// Its certificate, for clients to trust: PEM.
    pub fn certificate(&self) -> String {
        pem(&self.signer.der)
    }

    /// Its certificate: `sha256:<64 hex>` of its DER.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.signer.der)
    }

    /// Why a server's certificate has to be issued anew, by the rules of [`super::ensure`]; none: it is good.
    ///
    /// # Errors
    /// The authority's time is over or has not come.
    pub fn due(
        &self,
        server: Option<&Pair>,
        names: &BTreeSet<Name>,
        now: OffsetDateTime,
    ) -> Result<Option<Reason>, HeldError> {
        let authority = AuthorityFound::Certificate {
            from: self.signer.facts.not_before,
            to: self.signer.facts.not_after,
            key: true,
        };
        let steps = plan(authority, &self.found(server), names, now).map_err(|refusal| match refusal {
            Refusal::Ended(at) => HeldError::Ended(at),
            Refusal::Future(at) => HeldError::Future(at),
            Refusal::NoKey => HeldError::Damaged("its key is missing".into()),
        })?;
        Ok(steps.into_iter().find_map(|step| match step {
            Step::IssueServer(reason) => Some(reason),
            Step::MakeAuthority | Step::RestoreAuthority => None,
        }))
    }

    /// Issues a server's certificate for a new key.
    ///
    /// # Errors
    /// A name that cannot be put into a certificate.
    pub fn issue(&self, names: &BTreeSet<Name>, now: OffsetDateTime) -> Result<Pair, AuthorityError> {
        let common = names.iter().find_map(|name| match name {
            Name::Dns(name) if name.len() <= MAX_COMMON_NAME => Some(name.as_str()),
            _ => None,
        });
        server_certificate(&self.signer, &self.key, names, common.unwrap_or("localhost"), now)
    }

    fn found(&self, server: Option<&Pair>) -> ServerFound {
        let Some(pair) = server else { return ServerFound::Missing };
        let damaged = || ServerFound::Unusable("it is damaged".into());
        let Ok(der) = CertificateDer::from_pem_slice(pair.certificate.as_bytes()) else { return damaged() };
        let (Ok(facts), Ok(key)) = (facts(&der), KeyPair::from_pem(&pair.key)) else { return damaged() };
        if key.der_bytes() != facts.public_key {
            return ServerFound::Unusable("its key does not belong to it".into());
        }
        if !is_signed_by(&der, &self.signer.der, facts.not_before) {
            return ServerFound::Foreign;
        }
        ServerFound::Good { from: facts.not_before, to: facts.not_after, names: facts.names.into_iter().collect() }
    }
}

/// Makes an authority's certificate for its key.
pub(super) fn authority_certificate(
    title: &str,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let make = |source| AuthorityError::Make { what: "a certificate authority", source };
    let mut params = CertificateParams::new(Vec::new()).map_err(make)?;
    // Authorities with one name and different keys confuse clients that know both. Made from the key, the name is
    // also the same again if the certificate is lost.
    let id = &fingerprint(key.der_bytes())["sha256:".len()..][..8];
    let mut common = format!("{title} {id}");
    if common.len() > MAX_COMMON_NAME {
        common = format!("Certificate authority {id}");
    }
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATED, now + LIFE);
    Ok(params.self_signed(key).map_err(make)?.der().clone())
}

/// Makes a server's key, and the certificate for it.
pub(super) fn server_certificate(
    signer: &Signer,
    key: &KeyPair,
    names: &BTreeSet<Name>,
    common: &str,
    now: OffsetDateTime,
) -> Result<Pair, AuthorityError> {
    let make = |source| AuthorityError::Make { what: "a server certificate", source };
    let issuer = Issuer::from_ca_cert_der(&signer.der, key).map_err(make)?;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).map_err(make)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - BACKDATED).max(signer.facts.not_before);
    params.not_after = plan::server_end(now, signer.facts.not_after);
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(make)?;
    Ok(Pair { certificate: certificate.pem() + &pem(&signer.der), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    fn day(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000 + day)
    }

    fn names(list: &str) -> BTreeSet<Name> {
        list.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_held_authority_issues_and_renews() {
        let authority = Held::make("Cluster homepool2", day(0)).unwrap();
        let held = Held::read(&authority).unwrap();
        assert_eq!(held.certificate(), authority.certificate);
        let wanted = names("registry.test.svc.homepool2 10.22.0.2");
        let issued = held.issue(&wanted, day(0)).unwrap();
        assert_eq!(issued.certificate.matches("BEGIN CERTIFICATE").count(), 2);

        let check = |server: Option<&Pair>, list: &str, at: i64, expected: &str| {
            let due = held.due(server, &names(list), day(at)).unwrap();
            let due = due.map(|reason| reason.to_string()).unwrap_or_default();
            assert!(if expected.is_empty() { due.is_empty() } else { due.contains(expected) }, "{due:?} | {expected}");
        };
        check(None, "a", 0, "there was none");
        check(Some(&issued), "registry.test.svc.homepool2", 1, "");
        check(Some(&issued), "registry.test.svc.homepool2", 300, "ends at");
        check(Some(&issued), "other", 1, "not made out to other");
        let foreign = Held::read(&Held::make("Other", day(0)).unwrap()).unwrap().issue(&wanted, day(0)).unwrap();
        check(Some(&foreign), "registry.test.svc.homepool2", 1, "another authority");
        let mixed = Pair { key: foreign.key.clone(), ..issued.clone() };
        check(Some(&mixed), "registry.test.svc.homepool2", 1, "does not belong");

        assert!(matches!(held.due(None, &wanted, day(4000)), Err(HeldError::Ended(_))));
        assert!(matches!(Held::read(&issued), Err(HeldError::Damaged(_))));
        assert!(!format!("{held:?}{issued:?}").contains("PRIVATE"));
    }
}
