//! Owns how a caller proves who they are: the `htpasswd`, `token` and `silly` schemes, with the
//! configuration, the challenges and the verdicts that the `registry` image gives.
//!
//! Does not own what a request needs (`registry-core::access`), nor the HTTP response: the caller
//! turns a [`Challenge`] into status 401. Nothing here reads a clock; [`Ask::now`] says the time.

pub mod challenge;
pub mod htpasswd;
pub mod setup;
pub mod silly;
pub mod token;

use registry_core::access::{Access, Caller, Grant};

pub use challenge::{Challenge, Reason, access_detail};
pub use htpasswd::Htpasswd;
pub use setup::SetupError;
pub use silly::Silly;
pub use token::Token;

/// What one request says about its caller, and what it wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The `Authorization` header; `None` too when it is no text.
    pub authorization: Option<&'a str>,
    /// Every right the request needs; empty for `/v2/`, which only needs a proved caller.
    pub wanted: &'a [Access],
    /// The `Host` header or the authority of the request, for `autoredirect`.
    pub host: Option<&'a str>,
    /// The `X-Forwarded-Proto` header, for `autoredirect`.
    pub forwarded_proto: Option<&'a str>,
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
}

/// No verdict could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Too many password checks are waiting for a core; worth status 503 and a `Retry-After`.
    #[error("check a password: too many other checks are under way")]
    Busy,
}

/// One configured scheme, chosen by the key under `auth` in the configuration.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Scheme {
    /// A file of users and bcrypt hashes.
    Htpasswd(Htpasswd),
    /// Bearer tokens of an external issuer.
    Token(Token),
    /// Anyone who sends any `Authorization` header; for tests of clients only.
    Silly(Silly),
}

impl Scheme {
    /// Decides about one request. Blocks: a password that is not in the cache costs one bcrypt run
    /// (some 50 ms), and up to [`htpasswd::MAX_WAIT`] of waiting for a free core before it.
    pub fn verify(&self, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
        match self {
            Self::Htpasswd(scheme) => scheme.verify(ask),
            Self::Token(scheme) => Ok(scheme.verify(ask)),
            Self::Silly(scheme) => Ok(scheme.verify(ask)),
        }
    }

    /// Decides without bcrypt and without waiting, so it may run on an async thread: a look into
    /// memory (and whether the password file changed), or a few signatures. `None` says that only
    /// [`Scheme::verify`] can tell.
    pub fn verify_quick(&self, ask: &Ask<'_>) -> Option<Verdict> {
        match self {
            Self::Htpasswd(scheme) => scheme.verify_quick(ask),
            Self::Token(scheme) => Some(scheme.verify(ask)),
            Self::Silly(scheme) => Some(scheme.verify(ask)),
        }
    }
}
