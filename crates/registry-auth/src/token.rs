//! Owns the `token` scheme: bearer tokens that an external issuer signed.
//!
//! Does not issue tokens, and does not know users: the issuer decided who may do what.

pub(crate) mod claims;
pub(crate) mod key;
mod trust;

use std::{borrow::Cow, fmt::Write, path::PathBuf};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use registry_core::access::{Caller, Grant};
use serde::{Deserialize, de::IgnoredAny};
use tracing::warn;

use crate::{
    Ask, SetupError, Verdict,
    challenge::{self, Challenge, Reason},
    realm::{bearer, same_host},
};
use claims::Claims;
pub use claims::LEEWAY;
use key::{Algorithm, Jwk};
use trust::{Trust, TrustedKey};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 << 10;
/// Where `autoredirect` sends clients unless configured otherwise.
pub const DEFAULT_AUTOREDIRECT_PATH: &str = "/auth/token";

/// How many characters of a token's text a log shows.
const MAX_SHOWN: usize = 80;

/// The settings of the scheme, as under `auth.token`.
#[derive(Clone, Debug, Default)]
pub struct TokenConfig {
    /// Where clients get a token: a URL.
    pub realm: String,
    /// Our name at the issuer; the `aud` of every token.
    pub service: String,
    /// The `iss` of every token.
    pub issuer: String,
    /// PEM certificates whose keys, or whose subordinates' keys, sign tokens.
    pub rootcertbundle: Option<PathBuf>,
    /// A JSON Web Key Set whose keys sign tokens.
    pub jwks: Option<PathBuf>,
    /// The accepted algorithms by their JOSE names; empty for all that are supported.
    pub signingalgorithms: Vec<String>,
    /// Send clients to the host they asked, instead of to `realm`.
    pub autoredirect: bool,
    /// The path there; empty for [`DEFAULT_AUTOREDIRECT_PATH`].
    pub autoredirectpath: String,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not three parts of base64url with JSON inside, or a claim of the wrong type.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// An `alg` that is unknown, or that the configuration excludes.
    #[error("the algorithm `{0}` is not accepted (see `signingalgorithms`)")]
    Algorithm(String),
    /// A `crit` header: the issuer insists on an extension, and there is none that we know.
    #[error("the token needs an extension")]
    Critical,
    /// Its certificate does not lead to the bundle.
    #[error("the certificate chain is not trusted: {0}")]
    Chain(String),
    /// It names a key that is not trusted.
    #[error("the key `{0}` is not trusted")]
    UnknownKey(String),
    /// It names no key at all.
    #[error("the token names no key (x5c, jwk or kid)")]
    NoKey,
    /// The key it names is not for its algorithm.
    #[error("the key is not for the token's algorithm")]
    WrongFamily,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    BadSignature,
    /// Another issuer than ours.
    #[error("the issuer is `{0}`, which is not the configured one")]
    Issuer(String),
    /// For another service than ours.
    #[error("the audience does not contain the configured service")]
    Audience,
    /// Past its end, leeway included.
    #[error("the token expired {by} s ago")]
    Expired {
        /// Seconds since `exp`.
        by: i64,
    },
    /// Before its begin, leeway included.
    #[error("the token is not valid for another {by} s (is a clock wrong?)")]
    NotYet {
        /// Seconds until `nbf`.
        by: i64,
    },
}

/// Checks the bearer tokens of one issuer.
#[derive(Debug)]
pub struct Token {
    realm: String,
    service: String,
    issuer: String,
    /// The percent-encoded path, if clients are sent to the host they asked.
    autoredirect: Option<String>,
    algorithms: Vec<Algorithm>,
    trust: Trust,
}

/// The parts of a token's header that count. Source: RFC 7515, 4.1.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    jwk: Option<Jwk>,
    x5c: Option<Vec<String>>,
    crit: Option<IgnoredAny>,
}

impl Token {
    /// Checks the settings and reads the keys, which are not read again.
    pub fn open(config: TokenConfig) -> Result<Self, SetupError> {
        for (key, value) in [
            ("auth.token.realm", &config.realm),
            ("auth.token.service", &config.service),
            ("auth.token.issuer", &config.issuer),
        ] {
            check_setting(key, value)?;
        }
        let path = Some(config.autoredirectpath.as_str()).filter(|path| !path.is_empty());
        let path = path.unwrap_or(DEFAULT_AUTOREDIRECT_PATH);
        Ok(Self {
            autoredirect: config.autoredirect.then(|| url_path(path)),
            algorithms: algorithms(&config.signingalgorithms)?,
            trust: Trust::load(config.rootcertbundle.as_deref(), config.jwks.as_deref())?,
            realm: config.realm,
            service: config.service,
            issuer: config.issuer,
        })
    }

    /// Decides about one request; never slow (one signature, plus one per certificate of a chain).
    pub fn verify(&self, ask: &Ask<'_>) -> Verdict {
        let Some(token) = bearer(ask.authorization) else {
            return self.refuse(ask, None, Reason::NoCredentials);
        };
        let (claims, expires) = match self.prove(token, ask.now) {
            Ok(proved) => proved,
            Err(fault) => return self.refuse(ask, Some("invalid_token"), fault.into()),
        };
        let caller = Caller { name: claims.subject().to_owned(), account: None };
        let grant = Grant::Rights(claims.rights());
        if let Some(missing) = ask.wanted.iter().find(|wanted| !grant.allows(wanted)) {
            let reason = Reason::InsufficientScope { caller: caller.name, missing: missing.clone() };
            return self.refuse(ask, Some("insufficient_scope"), reason);
        }
        Verdict::Granted { caller, grant, expires_at: Some(expires) }
    }

    /// The claims of a token and its expiry, if everything about it is right.
    fn prove(&self, token: &str, now: i64) -> Result<(Claims, i64), TokenFault> {
        let Parts { message, header, payload, signature } = Parts::of(token)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenFault::Malformed("header"))?;
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        let algorithm = Algorithm::named(&header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or_else(|| TokenFault::Algorithm(shown(&header.alg)))?;
        let trusted = self.key_of(&header, now)?;
        if trusted.only.is_some_and(|only| only != algorithm) {
            return Err(TokenFault::WrongFamily);
        }
        trusted.key.verify(algorithm, message.as_bytes(), &signature)?;

        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenFault::Malformed("claims"))?;
        let expires = claims.check(&self.issuer, &self.service, now)?;
        Ok((claims, expires))
    }

    /// The trusted key that signed, as far as the header tells: `x5c`, else `jwk`, else `kid`. A
    /// way that is given and fails is not made up for by the next.
    fn key_of(&self, header: &Header, now: i64) -> Result<Cow<'_, TrustedKey>, TokenFault> {
        let named = |key: Option<_>, kid: Option<&String>| {
            let unknown = || TokenFault::UnknownKey(kid.map_or_else(String::new, |kid| shown(kid)));
            key.map(Cow::Borrowed).ok_or_else(unknown)
        };
        let given = |x5c: &Option<Vec<String>>| x5c.clone().filter(|chain| !chain.is_empty());
        if let Some(chain) = given(&header.x5c) {
            return self.trust.chained(&chain, now).map(Cow::Owned);
        }
        match (&header.jwk, &header.kid) {
            (Some(jwk), _) => match given(&jwk.x5c) {
                Some(chain) => self.trust.chained(&chain, now).map(Cow::Owned),
                None => named(self.trust.matching(jwk), jwk.kid.as_ref()),
            },
            (None, Some(kid)) => named(self.trust.named(kid), Some(kid)),
            (None, None) => Err(TokenFault::NoKey),
        }
    }

    fn refuse(&self, ask: &Ask<'_>, error: Option<&str>, reason: Reason) -> Verdict {
        let scope = challenge::merged_scope(ask.wanted);
        Verdict::Refused(Challenge {
            www_authenticate: challenge::bearer(&self.realm_for(ask), &self.service, &scope, error, None),
            wanted: ask.wanted.to_vec(),
            reason,
        })
    }

    /// Where this client gets a token. A `Host` that is none leads to the configured realm.
    fn realm_for(&self, ask: &Ask<'_>) -> Cow<'_, str> {
        let beside = self.autoredirect.as_ref().and_then(|path| same_host(ask, "https", path));
        beside.map_or(Cow::Borrowed(&self.realm), Cow::Owned)
    }
}

/// A token in compact form, taken apart. Source: RFC 7515, 7.1.
pub(crate) struct Parts<'a> {
    /// What is signed: the first two parts as they are.
    pub(crate) message: &'a str,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// The parts of a token of at most [`MAX_TOKEN`] bytes.
    pub(crate) fn of(token: &'a str) -> Result<Self, TokenFault> {
        if token.len() > MAX_TOKEN {
            return Err(TokenFault::TooLong);
        }
        let malformed = || TokenFault::Malformed("not three parts of base64url");
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        // A fourth part fails here: a dot is no base64url.
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        Ok(Self { message, header: decode(header)?, payload: decode(payload)?, signature: decode(signature)? })
    }
}

/// A text from a token as a log may show it: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

/// A path that cannot leave its place in a URL: it begins with a slash, and every byte that is not
/// plain is percent-encoded.
fn url_path(path: &str) -> String {
    let mut url = String::from("/");
    for byte in path.strip_prefix('/').unwrap_or(path).bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// A value that appears in a challenge or is compared with a claim must be there, and must survive
/// a header.
fn check_setting(key: &'static str, value: &str) -> Result<(), SetupError> {
    let problem = if value.is_empty() {
        "is required"
    } else if key != "auth.token.issuer" && !value.bytes().all(|c| (b' '..=b'~').contains(&c)) {
        "may only hold visible ASCII (percent-encode the rest of a URL)"
    } else {
        return Ok(());
    };
    Err(SetupError::Setting { key, problem: problem.to_owned() })
}

/// The configured algorithms; all when none are named.
fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, SetupError> {
    if names.is_empty() {
        return Ok(Algorithm::ALL.map(|(_, algorithm)| algorithm).to_vec());
    }
    let bad = |problem: String| SetupError::Setting { key: "auth.token.signingalgorithms", problem };
    let known = || Algorithm::ALL.map(|(name, _)| name).join(", ");
    let mut algorithms = Vec::new();
    for name in names {
        match Algorithm::named(name) {
            Some(algorithm) => algorithms.push(algorithm),
            // distribution has it, so a list that works there may name it.
            None if name == "ES512" => {
                warn!("signing algorithm ES512 is not supported; such tokens are refused");
            }
            None => {
                return Err(bad(format!("`{name}` is no signing algorithm (one of {})", known())));
            }
        }
    }
    if algorithms.is_empty() {
        return Err(bad(format!("ES512 is not supported (add one of {})", known())));
    }
    Ok(algorithms)
}

#[cfg(test)]
mod tests;
