//! Owns keys and algorithms: reading a key from a certificate or a JWK, its names, and checking a
//! signature with it.
//!
//! Does not own which keys are trusted; see [`super::trust`].

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use ring::{
    digest, hmac,
    signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};
use serde::Deserialize;
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::TokenFault;

/// The shortest HMAC secret, in bytes; a shorter one can be guessed offline from one token.
const MIN_SECRET: usize = 32;

/// The algorithms that can sign a token. Source: RFC 7518, RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    /// Every algorithm with the name it has in a token's header.
    pub(super) const ALL: [(&'static str, Self); 12] = [
        ("EdDSA", Self::EdDsa),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }
}

/// The elliptic curves that we check signatures on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    /// Bytes of one coordinate.
    const fn field(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// What checks a signature. The variant is the algorithm family, so that a public key can never
/// serve as a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// Big-endian, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point: `4`, x, y.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { curve, .. } => curve.name(),
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "secret",
        })
    }
}

/// A key that this program cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the key is of a kind that is not supported (RSA, P-256, P-384, Ed25519 or oct)")]
    Kind,
    #[error("the RSA key is not between 2048 and 8192 bits")]
    RsaSize,
    #[error("the secret is shorter than {MIN_SECRET} bytes")]
    ShortSecret,
    #[error("the key is for encryption, not for signatures")]
    NotForSignatures,
    #[error("the key's numbers are missing or malformed")]
    Malformed,
}

impl Key {
    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaSize);
        }
        Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    fn ec(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != 1 + 2 * curve.field() || point[0] != 4 {
            return Err(KeyError::Malformed);
        }
        Ok(Self::Ec { curve, point: point.to_vec() })
    }

    fn ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() == 32 { Ok(Self::Ed25519(bytes.to_vec())) } else { Err(KeyError::Malformed) }
    }

    /// The public key of a certificate.
    pub(super) fn of_certificate(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let bits = &info.subject_public_key.data;
        let kind = &info.algorithm.algorithm;
        if *kind == OID_PKCS1_RSAENCRYPTION {
            match info.parsed() {
                Ok(PublicKey::RSA(rsa)) => Self::rsa(rsa.modulus, rsa.exponent),
                _ => Err(KeyError::Malformed),
            }
        } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            match curve {
                Some(curve) if curve == OID_EC_P256 => Self::ec(Curve::P256, bits),
                Some(curve) if curve == OID_NIST_EC_P384 => Self::ec(Curve::P384, bits),
                _ => Err(KeyError::Kind),
            }
        } else if *kind == OID_SIG_ED25519 {
            Self::ed25519(bits)
        } else {
            Err(KeyError::Kind)
        }
    }

    /// The RFC 7638 thumbprints of a public key; none of a secret, which would help to guess it.
    /// An EC key has a second one if a coordinate begins with a zero byte: distribution computes
    /// it without that byte.
    pub(super) fn thumbprints(&self) -> Vec<String> {
        let texts = match self {
            Self::Rsa { n, e } => {
                vec![format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, B64.encode(e), B64.encode(n))]
            }
            Self::Ec { curve, point } => {
                let (x, y) = point[1..].split_at(curve.field());
                let text = |x: &[u8], y: &[u8]| {
                    let (crv, x, y) = (curve.name(), B64.encode(x), B64.encode(y));
                    format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
                };
                let mut texts = vec![text(x, y), text(without_zeros(x), without_zeros(y))];
                texts.dedup();
                texts
            }
            Self::Ed25519(x) => return vec![ed25519_thumbprint(x)],
            Self::Secret(_) => Vec::new(),
        };
        texts.iter().map(|text| thumbprint(text)).collect()
    }

    /// Checks `signature` over `message`. An algorithm of another family than the key's is refused.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), TokenFault> {
        let plain = |kind: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(kind, key).verify(message, signature)
        };
        let outcome = match self {
            Self::Rsa { n, e } => {
                let kind = algorithm.rsa().ok_or(TokenFault::WrongFamily)?;
                RsaPublicKeyComponents { n, e }.verify(kind, message, signature)
            }
            Self::Secret(secret) => {
                let kind = algorithm.hmac().ok_or(TokenFault::WrongFamily)?;
                hmac::verify(&hmac::Key::new(kind, secret), message, signature)
            }
            Self::Ec { curve, point } => match (curve, algorithm) {
                (Curve::P256, Algorithm::Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
                (Curve::P384, Algorithm::Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
                _ => return Err(TokenFault::WrongFamily),
            },
            Self::Ed25519(bytes) if algorithm == Algorithm::EdDsa => plain(&signature::ED25519, bytes),
            Self::Ed25519(_) => return Err(TokenFault::WrongFamily),
        };
        outcome.map_err(|_| TokenFault::BadSignature)
    }
}

/// The RFC 7638 thumbprint of an Ed25519 public key. Source: RFC 8037, 2.
pub(crate) fn ed25519_thumbprint(x: &[u8]) -> String {
    thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, B64.encode(x)))
}

fn thumbprint(required_members: &str) -> String {
    B64.encode(digest::digest(&digest::SHA256, required_members.as_bytes()))
}

/// The fingerprint that distribution v2 and its issuers name a key by: SHA-256 over the public key
/// info, its first 30 bytes in base32, in groups of four. Source: docker/libtrust, `util.go`.
pub(super) fn libtrust_fingerprint(public_key_info: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = digest::digest(&digest::SHA256, public_key_info);
    // 30 bytes are 6 blocks of 40 bits, each of 8 letters: no padding, two whole groups a block.
    let groups: Vec<String> = hash.as_ref()[..30]
        .chunks(5)
        .flat_map(|block| {
            let bits = block.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            let letters: String =
                (0..8).rev().map(|at| char::from(ALPHABET[(bits >> (at * 5) & 31) as usize])).collect();
            [letters[..4].to_owned(), letters[4..].to_owned()]
        })
        .collect();
    groups.join(":")
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// A JSON Web Key, as in a key set or in the header of a token. Source: RFC 7517.
#[derive(Default, Deserialize)]
pub(super) struct Jwk {
    #[serde(default)]
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    pub(super) alg: Option<String>,
    pub(super) kid: Option<String>,
    pub(super) x5c: Option<Vec<String>>,
}

impl Jwk {
    /// The key; private numbers beside it are ignored.
    pub(super) fn key(&self) -> Result<Key, KeyError> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(KeyError::NotForSignatures);
        }
        let number = |field: &Option<String>| {
            let text = field.as_deref().ok_or(KeyError::Malformed)?;
            B64.decode(text.trim_end_matches('=')).map_err(|_| KeyError::Malformed)
        };
        let ec = |curve: Curve| {
            let mut point = vec![4];
            for coordinate in [number(&self.x)?, number(&self.y)?] {
                let missing = curve.field().checked_sub(coordinate.len()).ok_or(KeyError::Malformed)?;
                point.resize(point.len() + missing, 0);
                point.extend(coordinate);
            }
            Key::ec(curve, &point)
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::rsa(&number(&self.n)?, &number(&self.e)?),
            ("EC", Some("P-256")) => ec(Curve::P256),
            ("EC", Some("P-384")) => ec(Curve::P384),
            ("OKP", Some("Ed25519")) => Key::ed25519(&number(&self.x)?),
            ("oct", _) => {
                let secret = number(&self.k)?;
                if secret.len() < MIN_SECRET { Err(KeyError::ShortSecret) } else { Ok(Key::Secret(secret)) }
            }
            _ => Err(KeyError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::{Algorithm, B64, Jwk, Key, TokenFault, libtrust_fingerprint};

    fn jwk(text: &str) -> Result<Key, String> {
        serde_json::from_str::<Jwk>(text).unwrap().key().map_err(|error| error.to_string())
    }

    #[test]
    fn thumbprints_are_those_of_the_specifications() {
        let check = |text: &str, expected: &str| assert_eq!(jwk(text).unwrap().thumbprints(), [expected]);
        // RFC 7638, 3.1.
        check(
            r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        );
        // RFC 8037, A.3.
        check(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        );
        // A coordinate with a leading zero byte also has distribution's name.
        let short = r#"{"kty":"EC","crv":"P-256","x":"AQ","y":"Ag"}"#;
        assert_eq!(jwk(short).unwrap().thumbprints().len(), 2);
        let secret = format!(r#"{{"kty":"oct","k":"{}"}}"#, "A".repeat(43));
        assert!(jwk(&secret).unwrap().thumbprints().is_empty());
    }

    #[test]
    fn fingerprints_are_those_of_libtrust() {
        // SHA-256 of nothing, with `printf '' | openssl sha256 -binary | head -c30 | base32`.
        assert_eq!(libtrust_fingerprint(b""), "4OYM:IQUY:7QOB:JGX3:6TEJ:S35Z:EQT2:4QPE:MSNZ:GTFE:SWMR:W6CS");
    }

    #[test]
    fn a_signature_of_the_specification_verifies() {
        // RFC 8037, A.4.
        let key = jwk(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#).unwrap();
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = B64
            .decode("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
            .unwrap();
        assert_eq!(key.verify(Algorithm::EdDsa, message, &signature), Ok(()));
        assert_eq!(key.verify(Algorithm::EdDsa, &message[1..], &signature), Err(TokenFault::BadSignature));
    }

    #[test]
    fn useless_keys_say_why() {
        let check = |text: &str, expected: &str| {
            let error = jwk(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("{}", "kind");
        check(r#"{"kty":"EC","crv":"P-521","x":"AQ","y":"AQ"}"#, "kind");
        check(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, "2048");
        check(r#"{"kty":"RSA","n":"","e":""}"#, "2048");
        check(r#"{"kty":"RSA","e":"AQAB"}"#, "missing");
        check(r#"{"kty":"oct","k":"c2hvcnQ"}"#, "shorter than 32");
        check(r#"{"kty":"OKP","crv":"Ed25519","x":"AQ"}"#, "malformed");
        check(r#"{"kty":"EC","crv":"P-256","x":"!","y":"AQ"}"#, "malformed");
        check(r#"{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}"#, "encryption");
        let long = "A".repeat(64);
        check(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{long}","y":"AQ"}}"#), "malformed");
    }
}
