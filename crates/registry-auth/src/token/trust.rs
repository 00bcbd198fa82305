//! Owns which keys are trusted: the certificate bundle, the key set, and the chains between a
//! token's certificate and the bundle.
//!
//! Does not own tokens. Files are read at the start only, as distribution does.

use std::{collections::HashMap, fs::File, io::Read, path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    TokenFault,
    key::{Algorithm, Jwk, Key, libtrust_fingerprint},
};
use crate::SetupError;

/// The largest bundle or key set, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The most certificates in the chain of one token.
const MAX_CHAIN: usize = 8;

/// A key that may sign tokens.
#[derive(Clone, Debug)]
pub(super) struct TrustedKey {
    pub(super) key: Key,
    /// The only algorithm, if the key set names one.
    pub(super) only: Option<Algorithm>,
}

/// Everything that may prove a token.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Under every name that a token may call a key by.
    keys: HashMap<String, TrustedKey>,
    /// The bundle.
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Trust {
    /// Reads the configured files; at least one usable key must come of it.
    pub(super) fn load(bundle: Option<&Path>, jwks: Option<&Path>) -> Result<Self, SetupError> {
        let mut trust = Self::default();
        if let Some(path) = bundle {
            trust.add_bundle(path)?;
        }
        if let Some(path) = jwks {
            trust.add_key_set(path)?;
        }
        // A certificate whose key we cannot use cannot end a chain either.
        if trust.keys.is_empty() {
            return Err(SetupError::Setting {
                key: "auth.token.rootcertbundle",
                problem: "no key can sign tokens (set `rootcertbundle` or `jwks` to a file with at least one)"
                    .to_owned(),
            });
        }
        Ok(trust)
    }

    fn add_bundle(&mut self, path: &Path) -> Result<(), SetupError> {
        let bad = |number: usize, problem: String| SetupError::Content {
            path: path.to_owned(),
            problem: format!("certificate {number}: {problem}"),
        };
        let text = read(path)?;
        for (index, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
            let number = index + 1;
            let certificate = certificate.map_err(|error| bad(number, error.to_string()))?;
            let (_, parsed) =
                X509Certificate::from_der(&certificate).map_err(|error| bad(number, error.to_string()))?;
            match Key::of_certificate(parsed.public_key()) {
                Ok(key) => {
                    let fingerprint = libtrust_fingerprint(parsed.public_key().raw);
                    for name in key.thumbprints().into_iter().chain([fingerprint]) {
                        self.keys.insert(name, TrustedKey { key: key.clone(), only: None });
                    }
                }
                Err(error) => {
                    warn!(path = %path.display(), certificate = number, "certificate {number} cannot sign tokens: {error}");
                }
            }
            match anchor_from_trusted_cert(&certificate) {
                Ok(anchor) => self.anchors.push(anchor.to_owned()),
                Err(error) => {
                    warn!(path = %path.display(), certificate = number, "certificate {number} cannot end a chain: {error}");
                }
            }
            self.certificates.push(certificate);
        }
        Ok(())
    }

    fn add_key_set(&mut self, path: &Path) -> Result<(), SetupError> {
        #[derive(Deserialize)]
        struct KeySet {
            keys: Vec<Value>,
        }
        let bad = |problem: String| SetupError::Content { path: path.to_owned(), problem };
        let set: KeySet =
            serde_json::from_slice(&read(path)?).map_err(|error| bad(format!("no JSON Web Key Set: {error}")))?;
        for (index, value) in set.keys.into_iter().enumerate() {
            let number = index + 1;
            // The parser's message could quote a secret.
            let jwk: Jwk =
                serde_json::from_value(value).map_err(|_| bad(format!("key {number} is no JSON Web Key")))?;
            let key = match jwk.key() {
                Ok(key) => key,
                Err(error) => {
                    warn!(path = %path.display(), key = number, "key {number} cannot sign tokens: {error}");
                    continue;
                }
            };
            let kid = jwk.kid.filter(|kid| !kid.is_empty());
            if kid.is_none() && matches!(key, Key::Secret(_)) {
                return Err(bad(format!("key {number} is a secret without a `kid`, so no token can name it")));
            }
            let trusted = TrustedKey { key, only: jwk.alg.as_deref().and_then(Algorithm::named) };
            for thumbprint in trusted.key.thumbprints() {
                // Another key with its own name keeps it.
                self.keys.entry(thumbprint).or_insert_with(|| trusted.clone());
            }
            if let Some(kid) = kid {
                self.keys.insert(kid, trusted);
            }
        }
        Ok(())
    }

    /// The trusted key with this name.
    pub(super) fn named(&self, kid: &str) -> Option<&TrustedKey> {
        self.keys.get(kid)
    }

    /// The trusted key that a header's key is: by its name, else by its thumbprint. Never the
    /// header's own numbers.
    pub(super) fn matching(&self, jwk: &Jwk) -> Option<&TrustedKey> {
        jwk.kid.as_deref().and_then(|kid| self.named(kid)).or_else(|| {
            let key = jwk.key().ok()?;
            key.thumbprints().iter().find_map(|name| self.named(name))
        })
    }

    /// The key of a chain's first certificate, if the chain leads to the bundle. `x5c` is standard
    /// base64 of DER, the signer first. Source: RFC 7515, 4.1.6.
    pub(super) fn chained(&self, x5c: &[String], now: i64) -> Result<TrustedKey, TokenFault> {
        if x5c.len() > MAX_CHAIN {
            return Err(TokenFault::Chain(format!("more than {MAX_CHAIN} certificates")));
        }
        let chain: Vec<CertificateDer<'static>> = x5c
            .iter()
            .map(|text| BASE64_STANDARD.decode(text).map(CertificateDer::from))
            .collect::<Result<_, _>>()
            .map_err(|_| TokenFault::Chain("a certificate is no base64".to_owned()))?;
        let (leaf, intermediates) =
            chain.split_first().ok_or_else(|| TokenFault::Chain("no certificate".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| TokenFault::Chain(error.to_string()))?;
        if self.certificates.contains(leaf) {
            // A bundle certificate proves itself while it lasts, even a CA, which a chain may not
            // begin with: many issuers sign with the one self-signed certificate.
            let validity = parsed.validity();
            if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
                return Err(TokenFault::Chain("the certificate is not valid now".to_owned()));
            }
        } else {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
            EndEntityCert::try_from(leaf)
                .and_then(|leaf| {
                    let algorithms = webpki::ALL_VERIFICATION_ALGS;
                    leaf.verify_for_usage(algorithms, &self.anchors, intermediates, time, AnyUsage, None, None)?;
                    Ok(())
                })
                .map_err(|error| TokenFault::Chain(error.to_string()))?;
        }
        let key = Key::of_certificate(parsed.public_key()).map_err(|error| TokenFault::Chain(error.to_string()))?;
        Ok(TrustedKey { key, only: None })
    }
}

/// Certificates that sign tokens have no usage of their own, so any will do.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    let failed = |source| SetupError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE {
        return Err(SetupError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    Ok(content)
}
