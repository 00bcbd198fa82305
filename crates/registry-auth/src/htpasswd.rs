//! Owns the `htpasswd` scheme: Basic credentials checked against a file of bcrypt hashes.
//!
//! Does not decide about repositories: whoever is in may do everything.

mod file;
mod gate;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use registry_core::access::{Caller, Grant};
use ring::{hmac, rand::SystemRandom};

use crate::{
    Ask, AuthError, SetupError, Verdict,
    challenge::{self, Challenge, Reason},
};
use file::{UserFile, Users};
use gate::{Gate, Tag};

/// The longest user name that is looked at, in bytes.
pub const MAX_USER: usize = 256;
/// The longest password that is looked at, in bytes. Like every bcrypt, the check itself only uses
/// the first 72; `htpasswd -B` and distribution accept longer ones that way, so we do too.
pub const MAX_PASSWORD: usize = 1024;
/// How long a password that was proved stays proved without another bcrypt run, in seconds.
/// A change of the user's hash ends it at once.
pub const CACHE_TTL: i64 = 300;
/// How long a check waits for a free core before it is [`AuthError::Busy`].
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// Standard base64 with or without padding; stricter readings turn real clients away.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The settings of the scheme, as under `auth.htpasswd`.
#[derive(Clone, Debug)]
pub struct HtpasswdConfig {
    /// Shown to people who are asked for a password.
    pub realm: String,
    /// The file; created when missing.
    pub path: PathBuf,
}

/// The user that was made because the file was missing. The caller logs it, once.
pub struct NewUser {
    /// Always `docker`.
    pub user: &'static str,
    /// Random, 43 characters; stored nowhere else.
    pub password: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Checks Basic credentials against an htpasswd file that may change while in use.
pub struct Htpasswd {
    realm: String,
    file: UserFile,
    gate: Gate,
    /// Makes the names under which proved credentials are remembered; random in every process.
    tag_key: hmac::Key,
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd").field("realm", &self.realm).field("path", &self.file.path()).finish_non_exhaustive()
    }
}

/// A request's credentials, or why there are none.
enum Credential {
    Given { user: Vec<u8>, password: Vec<u8> },
    Refused(Reason),
}

impl Htpasswd {
    /// Loads the file, or creates it with one user whose password is handed back.
    pub fn open(config: HtpasswdConfig) -> Result<(Self, Option<NewUser>), SetupError> {
        let random = SystemRandom::new();
        let created = file::create_if_missing(&config.path, &random)?;
        let scheme = Self {
            realm: config.realm,
            file: UserFile::open(config.path)?,
            gate: Gate::new(std::thread::available_parallelism().map_or(2, usize::from)),
            tag_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| SetupError::Random)?,
        };
        Ok((scheme, created))
    }

    /// How many times bcrypt ran since the start, for a metric.
    pub fn bcrypt_runs(&self) -> u64 {
        self.gate.runs()
    }

    /// Decides about one request; see [`crate::Scheme::verify`] for how long it may block.
    pub fn verify(&self, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
        let (user, password) = match credential(ask.authorization) {
            Credential::Given { user, password } => (user, password),
            Credential::Refused(reason) => return Ok(self.refuse(ask, reason)),
        };
        let users = self.file.current();
        let tag = self.tag(&users, &user, &password);
        let proved = self.gate.check(tag, ask.now, || users.check(&user, &password))?;
        Ok(if proved { granted(&user) } else { self.refuse(ask, Reason::WrongPassword) })
    }

    /// Decides unless that needs a bcrypt run; see [`crate::Scheme::verify_quick`].
    pub fn verify_quick(&self, ask: &Ask<'_>) -> Option<Verdict> {
        match credential(ask.authorization) {
            Credential::Refused(reason) => Some(self.refuse(ask, reason)),
            Credential::Given { user, password } => {
                let tag = self.tag(&self.file.current(), &user, &password);
                self.gate.remembers(&tag, ask.now).then(|| granted(&user))
            }
        }
    }

    fn refuse(&self, ask: &Ask<'_>, reason: Reason) -> Verdict {
        Verdict::Refused(Challenge {
            www_authenticate: challenge::basic(&self.realm),
            wanted: ask.wanted.to_vec(),
            reason,
        })
    }

    /// The name of a credential in the cache. The user's hash is part of it, so a changed hash
    /// makes every older entry unfindable.
    fn tag(&self, users: &Arc<Users>, user: &[u8], password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.tag_key);
        for part in [user, users.hash_of(user), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

fn granted(user: &[u8]) -> Verdict {
    let caller = Caller { name: String::from_utf8_lossy(user).into_owned(), account: None };
    Verdict::Granted { caller, grant: Grant::Everything, expires_at: None }
}

/// Reads `Basic <base64 of user:password>`. Source: RFC 7617.
fn credential(authorization: Option<&str>) -> Credential {
    let Some((kind, encoded)) = authorization.and_then(|value| value.split_once(' ')) else {
        return Credential::Refused(Reason::NoCredentials);
    };
    if !kind.eq_ignore_ascii_case("basic") {
        return Credential::Refused(Reason::NoCredentials);
    }
    let encoded = encoded.trim_matches(' ');
    if encoded.len() > (MAX_USER + MAX_PASSWORD + 1).div_ceil(3) * 4 {
        return Credential::Refused(Reason::MalformedCredentials);
    }
    let Ok(mut user) = BASIC.decode(encoded) else {
        return Credential::Refused(Reason::MalformedCredentials);
    };
    let Some(colon) = user.iter().position(|byte| *byte == b':') else {
        return Credential::Refused(Reason::MalformedCredentials);
    };
    let password = user.split_off(colon + 1);
    user.pop();
    if user.len() > MAX_USER || password.len() > MAX_PASSWORD {
        return Credential::Refused(Reason::MalformedCredentials);
    }
    Credential::Given { user, password }
}

#[cfg(test)]
mod tests;
