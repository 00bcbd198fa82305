//! Owns what a certificate says of itself, for people and for decisions.
//!
//! Nothing here is verified: a certificate can say anything.

use std::net::IpAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest::{SHA256, digest};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::name::Name;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whom it is made out to, such as `CN=registry, O=Example`; at most 200 characters, none of control.
    pub subject: String,
    /// Who made it out.
    pub issuer: String,
    /// It is valid from here
    pub not_before: OffsetDateTime,
    /// to here.
    pub not_after: OffsetDateTime,
    /// The hosts it is good for, in its own order. Names that are not names of hosts are left out.
    pub names: Vec<Name>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// The public key's bits.
    pub public_key: Vec<u8>,
}

/// Bytes that are no X.509 certificate.
#[derive(Debug, thiserror::Error)]
#[error("read the certificate: {0}")]
pub struct NotACertificate(String);

/// Reads a certificate in DER.
///
/// # Errors
/// It is not one.
pub fn facts(der: &[u8]) -> Result<Facts, NotACertificate> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|error| NotACertificate(error.to_string()))?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names);
    Ok(Facts {
        subject: printable(&certificate.subject().to_string()),
        issuer: printable(&certificate.issuer().to_string()),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        names: names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => name.parse().ok(),
                GeneralName::IPAddress(bytes) => match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Name::Ip(IpAddr::from(bytes))),
                    _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Name::Ip(IpAddr::from(bytes))),
                },
                _ => None,
            })
            .collect(),
        is_authority: certificate.is_ca(),
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
    })
}

/// A text that somebody else chose, without what would play tricks on a terminal.
fn printable(text: &str) -> String {
    text.chars().take(200).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Names a certificate by its bytes: `sha256:<64 hex>`.
pub fn fingerprint(der: &[u8]) -> String {
    let hex: String = digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Writes a moment the way logs do: `2027-11-23T18:00:00Z`.
pub fn moment(at: OffsetDateTime) -> String {
    // Only years beyond 9999 cannot be written so, and certificates end there at the latest.
    at.format(&Rfc3339).unwrap_or_else(|_| at.unix_timestamp().to_string())
}

/// Writes a certificate as a PEM section.
pub fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;

    #[test]
    fn certificates_are_read() {
        let names = ["a.example.com", "*.b.test", "10.0.0.1", "fd00::1"];
        let mut params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let seen = facts(certificate.der()).unwrap();
        assert_eq!((&*seen.subject, &*seen.issuer, seen.is_authority), ("CN=a name", "CN=a name", true));
        assert_eq!(seen.names.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
        assert_eq!(moment(seen.not_before), "1975-01-01T00:00:00Z");
        assert_eq!(pem(certificate.der()), certificate.pem());
        assert_eq!(fingerprint(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(printable("CN=a\u{1b}[2J\n"), "CN=a\\u{1b}[2J\\n");
        assert!(facts(b"no certificate").is_err());
    }
}
