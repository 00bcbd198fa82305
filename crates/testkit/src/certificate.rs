//! Throw-away certificate authorities, and the certificates they sign, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority; its files go when it is dropped.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key, as files.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, trusted by nobody.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("authority-").tempdir().expect("create a temp dir");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.distinguished_name.push(DnType::CommonName, "a test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("generate a key");
        let certificate = params.self_signed(&key).expect("sign the authority");
        write(&dir.path().join("ca.pem"), &certificate.pem());
        Self { issuer: Issuer::new(params, key), dir }
    }

    /// The authority's own certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for `name`, a DNS name or an IP address.
    pub fn sign(&self, name: &str) -> Certificate {
        let key = KeyPair::generate().expect("generate a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a DNS name or an IP address");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &self.issuer).expect("sign the certificate");
        let file = |kind: &str| self.dir.path().join(format!("{name}.{kind}.pem"));
        let made = Certificate { certificate: file("crt"), key: file("key") };
        write(&made.certificate, &signed.pem());
        write(&made.key, &key.serialize_pem());
        made
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
