//! Owns how a caller proves who they are: the `htpasswd`, `token` and `silly` schemes, with the
//! configuration, the challenges and the verdicts that the `registry` image gives, and `roadstead`,
//! the accounts of our own.
//!
//! Does not own what a request needs (`registry-core::access`), nor the HTTP response: the caller
//! turns a [`Challenge`] into status 401. Nothing here reads a clock; [`Ask::now`] says the time.

mod basic;
pub mod challenge;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod htpasswd;
pub mod issuer;
pub mod lockout;
pub mod password;
mod random;
mod realm;
pub mod roadstead;
pub mod scope;
pub mod secret;
pub mod setup;
pub mod silly;
pub mod token;

use std::{net::IpAddr, sync::Arc};

use registry_core::access::{Access, Caller, Grant};

pub use basic::{MAX_PASSWORD, MAX_USER, name_and_password};
pub use challenge::{Challenge, Forbidden, Reason, access_detail};
pub use gate::{CACHE_TTL, MAX_WAIT};
pub use htpasswd::Htpasswd;
pub use roadstead::Roadstead;
pub use setup::SetupError;
pub use silly::Silly;
pub use token::Token;

/// What one request says about its caller, and what it wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The `Authorization` header; `None` too when it is no text.
    pub authorization: Option<&'a str>,
    /// Every right the request needs; empty for `/v2/`, which only needs a proved caller.
    pub wanted: &'a [Access],
    /// The `Host` header or the authority of the request, for `autoredirect`.
    pub host: Option<&'a str>,
    /// The `X-Forwarded-Proto` header, for `autoredirect`.
    pub forwarded_proto: Option<&'a str>,
    /// Whether the connection is encrypted here.
    pub tls: bool,
    /// The client's address, where it is known.
    pub address: Option<IpAddr>,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// What a scheme decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller is known, and `grant` contains everything that was wanted.
    Granted {
        /// Who is calling.
        caller: Caller,
        /// What they may do.
        grant: Grant,
        /// When the proof ends, in seconds since 1970; a token is accepted for
        /// [`token::LEEWAY`] seconds longer. `None` for a proof without an end.
        expires_at: Option<i64>,
    },
    /// The request is answered 401 with this challenge.
    Refused(Challenge),
    /// The request is answered 403: the caller is known, and may not do it.
    Forbidden(Forbidden),
}

/// No verdict could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Too many password checks are waiting for a core; worth status 503 and a `Retry-After`.
    #[error("check a password: too many other checks are under way")]
    Busy,
    /// Too many failures came before; worth status 429 and a `Retry-After`.
    #[error("log in: too many failures; try again in {retry_after} s")]
    Locked {
        /// Seconds until the next try counts.
        retry_after: u64,
    },
}

/// One configured scheme, chosen by the key under `auth` in the configuration.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Scheme {
    /// A file of users and bcrypt hashes.
    Htpasswd(Htpasswd),
    /// Bearer tokens of an external issuer.
    Token(Token),
    /// This registry's own accounts, rules and tokens.
    Roadstead(Arc<Roadstead>),
    /// Anyone who sends any `Authorization` header; for tests of clients only.
    Silly(Silly),
}

impl Scheme {
    /// Decides about one request. Blocks: a password that is not in the cache costs one run of a
    /// slow hash (some 50 ms), and up to [`MAX_WAIT`] of waiting for a free core before it.
    pub fn verify(&self, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
        match self {
            Self::Htpasswd(scheme) => scheme.verify(ask),
            Self::Token(scheme) => Ok(scheme.verify(ask)),
            Self::Roadstead(scheme) => scheme.verify(ask),
            Self::Silly(scheme) => Ok(scheme.verify(ask)),
        }
    }

    /// Decides without a slow hash and without waiting, so it may run on an async thread: a look into
    /// memory (and whether the password file changed), or a few signatures. `None` says that only
    /// [`Scheme::verify`] can tell.
    pub fn verify_quick(&self, ask: &Ask<'_>) -> Option<Result<Verdict, AuthError>> {
        match self {
            Self::Htpasswd(scheme) => scheme.verify_quick(ask).map(Ok),
            Self::Token(scheme) => Some(Ok(scheme.verify(ask))),
            Self::Roadstead(scheme) => scheme.verify_quick(ask),
            Self::Silly(scheme) => Some(Ok(scheme.verify(ask))),
        }
    }
}
