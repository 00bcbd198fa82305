//! Owns our own tokens: the keys that sign them, what a token says, proving one.
//!
//! Does not own who gets a token with which rights, nor where keys are kept. A proved token says
//! what was true when it was signed: whether its account still exists is the caller's to check.

use std::{collections::HashMap, fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use quick_cache::sync::Cache;
use registry_core::access::{Access, Action};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    SetupError, challenge, random,
    token::{MAX_TOKEN, Parts, TokenFault, claims, key::ed25519_thumbprint, shown},
};

/// How far a token may begin in the future, in seconds: the clocks of two of our own processes.
const LEEWAY: i64 = 5;
/// The most access tokens that are remembered as proved.
const MAX_PROVED: usize = 4096;
/// The only algorithm. Source: RFC 8037.
const ALGORITHM: &str = "EdDSA";

/// A private key that signs tokens, as it is kept; shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The `kid` of its tokens: the RFC 7638 thumbprint of the public key.
    pub id: String,
    /// An Ed25519 key with its public key. Source: RFC 8410, 7; RFC 5958.
    pub pkcs8: Vec<u8>,
    /// In seconds since 1970. The newest key signs.
    pub created_at: i64,
}

impl Key {
    /// Makes a new key.
    pub fn generate(now: i64) -> Result<Self, SetupError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SetupError::Random)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key that was made just now can be read");
        let id = ed25519_thumbprint(pair.public_key().as_ref());
        Ok(Self { id, pkcs8: pkcs8.as_ref().to_vec(), created_at: now })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

/// Keys that cannot make a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is none.
    #[error("load the keys that sign tokens: there is none")]
    Empty,
    /// The stored bytes are no key, or the key has another id.
    #[error("load the key `{id}` that signs tokens: it is damaged (make a new one; clients log in again)")]
    Damaged {
        /// The key's stored id.
        id: String,
    },
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sent with every request; carries rights.
    Access,
    /// Exchanged for access tokens; carries none.
    Refresh,
}

impl Kind {
    /// The longest life of such a token, in seconds. A longer one is refused even with a good
    /// signature, so that no clock and no mistake makes one for ever.
    pub const fn max_lifetime(self) -> i64 {
        match self {
            Self::Access => 60 * 60,
            Self::Refresh => 400 * 24 * 60 * 60,
        }
    }

    /// The `typ` of the header, which keeps the kinds apart. Source: RFC 8725, 3.11.
    const fn media_type(self) -> &'static str {
        match self {
            Self::Access => "JWT",
            Self::Refresh => "roadstead-refresh+jwt",
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What it is for.
    pub kind: Kind,
    /// Whose it is; `None` for an anonymous caller.
    pub account: Option<u64>,
    /// The name of the account when the token was signed, for logs. Decides nothing.
    pub name: String,
    /// The robot secret or personal token that it was issued for.
    pub credential: Option<u64>,
    /// The rights; sorted, without duplicates.
    pub access: Arc<[Access]>,
    /// In seconds since 1970; the token is good from then on.
    pub issued_at: i64,
    /// In seconds since 1970; the token is good before then.
    pub expires_at: i64,
}

impl Ticket {
    fn check_time(&self, now: i64) -> Result<(), TokenFault> {
        if now >= self.expires_at {
            return Err(TokenFault::Expired { by: now.saturating_sub(self.expires_at) });
        }
        if now < self.issued_at.saturating_sub(LEEWAY) {
            return Err(TokenFault::NotYet { by: self.issued_at.saturating_sub(now) });
        }
        Ok(())
    }
}

/// The header, as far as it counts: whatever else it holds, only `kid` chooses the key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

/// All are required, but for the private ones.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    access: Vec<Value>,
    /// Decimal, because JSON numbers lose digits in other people's programs.
    account: Option<String>,
    credential: Option<String>,
}

/// The keys in use: the newest signs, all verify. Made anew when keys change.
pub struct Keyring {
    issuer: String,
    service: String,
    signer: Ed25519KeyPair,
    signer_id: String,
    /// The public keys by their ids.
    public: HashMap<String, [u8; 32]>,
    jwks: Value,
    /// The proved access tokens by their SHA-256. A new ring begins without any, so a token dies
    /// with its key.
    proved: Cache<[u8; 32], Arc<Ticket>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("issuer", &self.issuer).field("signer", &self.signer_id).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Takes the keys in any order. `issuer` becomes the `iss` and `service` the `aud` of tokens.
    pub fn new(issuer: String, service: String, keys: &[Key]) -> Result<Self, KeyringError> {
        let mut newest_first: Vec<&Key> = keys.iter().collect();
        newest_first.sort_by_key(|key| (std::cmp::Reverse(key.created_at), &key.id));
        let mut public = HashMap::new();
        let mut set = Vec::new();
        let mut signer = None;
        for key in newest_first {
            let damaged = || KeyringError::Damaged { id: key.id.clone() };
            let pair = Ed25519KeyPair::from_pkcs8(&key.pkcs8).map_err(|_| damaged())?;
            let bytes: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| damaged())?;
            if ed25519_thumbprint(&bytes) != key.id {
                return Err(damaged());
            }
            let x = B64.encode(bytes);
            set.push(json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.id, "alg": ALGORITHM, "use": "sig"}));
            public.insert(key.id.clone(), bytes);
            signer.get_or_insert((pair, key.id.clone()));
        }
        let (signer, signer_id) = signer.ok_or(KeyringError::Empty)?;
        let jwks = json!({ "keys": set });
        Ok(Self { issuer, service, signer, signer_id, public, jwks, proved: Cache::new(MAX_PROVED) })
    }

    /// The public keys as a JSON Web Key Set, the newest first. Source: RFC 7517, RFC 8037.
    pub fn jwks(&self) -> Value {
        self.jwks.clone()
    }

    /// Signs a token. One that would live longer than [`Kind::max_lifetime`] is cut to that.
    pub fn sign(&self, ticket: &Ticket) -> String {
        let header = json!({"typ": ticket.kind.media_type(), "alg": ALGORITHM, "kid": self.signer_id});
        let latest = ticket.issued_at.saturating_add(ticket.kind.max_lifetime());
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.service,
            "sub": ticket.name,
            "exp": ticket.expires_at.min(latest),
            "nbf": ticket.issued_at,
            "iat": ticket.issued_at,
            "jti": B64.encode(random::bytes::<16>()),
            "access": access_claim(&ticket.access),
        });
        for (name, id) in [("account", ticket.account), ("credential", ticket.credential)] {
            if let Some(id) = id {
                claims[name] = id.to_string().into();
            }
        }
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature = B64.encode(self.signer.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// What a token says, if it is one of ours, of this kind, and good at `now`. An access token
    /// that was proved before costs one SHA-256; any other one signature.
    pub fn verify(&self, token: &str, kind: Kind, now: i64) -> Result<Arc<Ticket>, TokenFault> {
        if token.len() > MAX_TOKEN {
            return Err(TokenFault::TooLong);
        }
        let mut name = [0; 32];
        name.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        let remembered = (kind == Kind::Access).then(|| self.proved.get(&name)).flatten();
        if let Some(ticket) = remembered {
            ticket.check_time(now)?;
            return Ok(ticket);
        }
        let ticket = Arc::new(self.prove(token, kind)?);
        ticket.check_time(now)?;
        if kind == Kind::Access {
            self.proved.insert(name, Arc::clone(&ticket));
        }
        Ok(ticket)
    }

    /// Everything but the time.
    fn prove(&self, token: &str, kind: Kind) -> Result<Ticket, TokenFault> {
        let Parts { message, header, payload, signature } = Parts::of(token)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenFault::Malformed("header"))?;
        if header.alg != ALGORITHM {
            return Err(TokenFault::Algorithm(shown(&header.alg)));
        }
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        if header.typ.as_deref() != Some(kind.media_type()) {
            return Err(TokenFault::Malformed("it is for another purpose"));
        }
        let kid = header.kid.ok_or(TokenFault::NoKey)?;
        let public = self.public.get(&kid).ok_or_else(|| TokenFault::UnknownKey(shown(&kid)))?;
        UnparsedPublicKey::new(&ED25519, public)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| TokenFault::BadSignature)?;

        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenFault::Malformed("claims"))?;
        if claims.iss != self.issuer {
            return Err(TokenFault::Issuer(shown(&claims.iss)));
        }
        if claims.aud != self.service {
            return Err(TokenFault::Audience);
        }
        let lifetime = claims.exp.checked_sub(claims.iat);
        if claims.nbf != claims.iat || !lifetime.is_some_and(|life| (1..=kind.max_lifetime()).contains(&life)) {
            return Err(TokenFault::Malformed("its life is not one of its kind"));
        }
        let id = |text: Option<String>| {
            text.map(|text| text.parse().map_err(|_| TokenFault::Malformed("claims"))).transpose()
        };
        Ok(Ticket {
            kind,
            account: id(claims.account)?,
            name: claims.sub,
            credential: id(claims.credential)?,
            access: claims::rights(&claims.access).into(),
            issued_at: claims.iat,
            expires_at: claims.exp,
        })
    }
}

/// The rights as a token carries them, one entry per resource.
/// Source: distribution, `docs/content/spec/auth/jwt.md`.
fn access_claim(access: &[Access]) -> Value {
    access
        .chunk_by(|a, b| a.resource == b.resource)
        .map(|rights| {
            let (kind, name) = challenge::parts(&rights[0].resource);
            let actions: Vec<&str> = rights.iter().map(|right| Action::as_str(right.action)).collect();
            json!({"type": kind, "name": name, "actions": actions})
        })
        .collect()
}

#[cfg(test)]
mod tests;
