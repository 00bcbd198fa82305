//! Owns the `htpasswd` scheme: Basic credentials checked against a file of bcrypt hashes.
//!
//! Does not decide about repositories: whoever is in may do everything.

mod file;

use std::{fmt, path::PathBuf, sync::Arc};

use registry_core::access::{Caller, Grant};
use ring::{hmac, rand::SystemRandom};

use crate::{
    Ask, AuthError, SetupError, Verdict,
    basic::{Credential, credential},
    challenge::{self, Challenge, Reason},
    fuzzing::User,
    gate::{Gate, Tag},
};
use file::{UserFile, Users};

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

/// For fuzzing: see [`crate::fuzzing::htpasswd`].
pub(crate) fn users(file: &[u8]) -> Result<Vec<User>, usize> {
    Users::parse(file).map(|users| users.by_name())
}

fn granted(user: &[u8]) -> Verdict {
    let caller = Caller { name: String::from_utf8_lossy(user).into_owned(), account: None };
    Verdict::Granted { caller, grant: Grant::Everything, expires_at: None }
}

#[cfg(test)]
mod tests;
