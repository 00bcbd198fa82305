//! Owns the `roadstead` scheme: this registry's own accounts, who prove themselves by password,
//! secret or token, and may do what the policy says; and the tokens that it issues for them.
//!
//! Does not own the directory: whoever changes it publishes the next one here, and from then on
//! every request is decided by that one, whatever an older token says.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use registry_core::{
    access::{Access, Action, Caller, Grant, PolicyGrant, Resource},
    account::{Account, AccountId, CredentialId, PrincipalName, Verifier},
    directory::Directory,
    policy::Policy,
};
use ring::{hmac, rand::SystemRandom};

use crate::{
    Ask, AuthError, SetupError, Verdict,
    basic::{Credential, credential},
    challenge::{self, Challenge, Forbidden, Reason},
    gate::{Gate, Tag},
    issuer::{Key, Keyring, Kind, Ticket},
    lockout::Lockout,
    password::PasswordHash,
    realm::{bearer, is_host, same_host},
    secret::{Secret, SecretHash},
};

/// Clients may write this in place of a name where the password is a token: Docker's own credential
/// helpers do. Source: docker/cli, `cli/config/credentials/native_store.go`.
const TOKEN_USER: &[u8] = b"<token>";
/// Administrators that a refusal names.
const NAMED_ADMINISTRATORS: usize = 3;

/// The settings of the scheme, as under `auth.roadstead`.
#[derive(Clone, Debug)]
pub struct RoadsteadConfig {
    /// Where clients get tokens; `None` for the host that they asked, with [`Self::path`].
    pub realm: Option<String>,
    /// The path of the token endpoint.
    pub path: String,
    /// The audience of the tokens.
    pub service: String,
    /// How long an access token lives, in seconds; 60 to 3600.
    pub token_lifetime: i64,
    /// How long a refresh token lives, in seconds.
    pub refresh_lifetime: i64,
}

/// Decides by the accounts and rules of the newest published directory.
pub struct Roadstead {
    config: RoadsteadConfig,
    state: RwLock<Arc<State>>,
    lockout: Lockout,
    gate: Gate,
    /// Makes the names under which proved passwords are remembered; random in every process.
    tag_key: hmac::Key,
    /// What the password of an unknown user is compared with: it costs the same time.
    nobody: PasswordHash,
}

impl fmt::Debug for Roadstead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roadstead").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A directory, ready to be asked.
struct State {
    directory: Arc<Directory>,
    policy: Arc<Policy>,
    names: HashMap<PrincipalName, AccountId>,
    secrets: HashMap<SecretHash, (AccountId, CredentialId)>,
    keyring: Keyring,
}

/// An account that has proved itself.
#[derive(Clone, Debug)]
struct Session {
    account: AccountId,
    name: String,
    credential: CredentialId,
    /// When the proof itself ends.
    expires_at: Option<i64>,
}

/// What a client proves itself with at the token endpoint.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// Nothing: a token for anonymous use.
    None,
    /// An `Authorization` header.
    Header(&'a str),
    /// The name and password of a form.
    Password(&'a str, &'a str),
    /// The refresh token of a form.
    Refresh(&'a str),
}

/// A request for a token.
#[derive(Clone, Copy)]
pub struct TokenAsk<'a> {
    /// Who asks.
    pub proof: Proof<'a>,
    /// What for.
    pub wanted: &'a [Access],
    /// Whether a refresh token is asked for too.
    pub offline: bool,
    /// Where from.
    pub address: Option<IpAddr>,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// Tokens for somebody.
#[derive(Clone)]
pub struct Issued {
    /// The access token.
    pub token: String,
    /// A refresh token, if one was asked for and there is an account to refresh.
    pub refresh_token: Option<String>,
    /// How long the access token lives, in seconds.
    pub expires_in: i64,
    /// Whom it is for; the name is empty for an anonymous caller.
    pub caller: Caller,
    /// The rights in it: those of the wanted ones that the policy allows.
    pub granted: Vec<Access>,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The credentials are missing parts or prove nothing.
    #[error(transparent)]
    Wrong(#[from] WrongCredentials),
    /// Not decided.
    #[error(transparent)]
    Undecided(#[from] AuthError),
}

/// Credentials that prove nothing. Nobody is told which part was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown user, wrong password, or a token or secret that has ended")]
pub struct WrongCredentials;

/// A log-in, decided or not yet.
enum Login {
    Proved(Session),
    Wrong,
    Undecided(AuthError),
    /// Only a slow hash can tell.
    Slow,
}

impl Roadstead {
    /// The scheme on a first directory.
    ///
    /// # Errors
    /// A signing key of the directory cannot be used.
    pub fn new(config: RoadsteadConfig, directory: Arc<Directory>) -> Result<Self, SetupError> {
        let random = SystemRandom::new();
        Ok(Self {
            state: RwLock::new(Arc::new(State::new(&config, directory)?)),
            lockout: Lockout::default(),
            gate: Gate::new(std::thread::available_parallelism().map_or(2, usize::from)),
            tag_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| SetupError::Random)?,
            nobody: PasswordHash::nobody(),
            config,
        })
    }

    /// Decides by `directory` from now on.
    ///
    /// # Errors
    /// A signing key of it cannot be used; the older directory stays.
    pub fn publish(&self, directory: Arc<Directory>) -> Result<(), SetupError> {
        let state = Arc::new(State::new(&self.config, directory)?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// The public keys, as a JWK set.
    pub fn jwks(&self) -> serde_json::Value {
        self.state().keyring.jwks()
    }

    /// How many slow hashes ran since the start, for a metric.
    pub fn hash_runs(&self) -> u64 {
        self.gate.runs()
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides about one request; see [`crate::Scheme::verify`] for how long it may block.
    pub fn verify(&self, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
        self.decide(ask, true).expect("a slow look always decides")
    }

    /// Decides unless that needs a slow hash; see [`crate::Scheme::verify_quick`].
    pub fn verify_quick(&self, ask: &Ask<'_>) -> Option<Result<Verdict, AuthError>> {
        self.decide(ask, false)
    }

    fn decide(&self, ask: &Ask<'_>, may_block: bool) -> Option<Result<Verdict, AuthError>> {
        let state = self.state();
        let policy = Arc::clone(&state.policy);
        if let Some(token) = bearer(ask.authorization) {
            let ticket = match state.keyring.verify(token, Kind::Access, ask.now) {
                Ok(ticket) => ticket,
                Err(fault) => return Some(Ok(self.refuse(ask, Some("invalid_token"), fault.into()))),
            };
            let who = match state.holder(&ticket, ask.now) {
                Ok(who) => who,
                Err(gone) => return Some(Ok(self.refuse(ask, Some("invalid_token"), gone))),
            };
            let caller = Caller { name: ticket.name.clone(), account: who };
            let grant = PolicyGrant { policy, who, scope: Some(Arc::clone(&ticket.access)) };
            return Some(Ok(self.within(ask, &state, caller, grant, Some(ticket.expires_at))));
        }
        match credential(ask.authorization) {
            Credential::Refused(Reason::NoCredentials) if !ask.wanted.is_empty() => {
                let grant = PolicyGrant { policy, who: None, scope: None };
                Some(Ok(self.within(ask, &state, Caller::default(), grant, None)))
            }
            // `/v2/` without credentials is where clients learn how to log in, or to get an
            // anonymous token: an answer of 200 would keep them from ever sending either.
            Credential::Refused(reason) => Some(Ok(self.refuse(ask, None, reason))),
            Credential::Given { user, password } => {
                match self.login(&state, &user, &password, ask.address, ask.now, may_block) {
                    Login::Slow => None,
                    Login::Undecided(error) => Some(Err(error)),
                    Login::Wrong => Some(Ok(self.refuse(ask, None, Reason::WrongPassword))),
                    Login::Proved(session) => {
                        let who = Some(session.account);
                        let caller = Caller { name: session.name, account: who };
                        let grant = PolicyGrant { policy, who, scope: None };
                        Some(Ok(self.within(ask, &state, caller, grant, None)))
                    }
                }
            }
        }
    }

    /// Grants what is wanted, or says what is missing.
    fn within(
        &self,
        ask: &Ask<'_>,
        state: &State,
        caller: Caller,
        grant: PolicyGrant,
        expires_at: Option<i64>,
    ) -> Verdict {
        let lacking = || ask.wanted.iter().filter(|wanted| !grant.would_allow(wanted));
        if let Some(first) = lacking().next() {
            // A push wants to pull as well: who may do neither is told of what they were about to do.
            let push = lacking().find(|access| access.resource == first.resource && access.action == Action::Push);
            let missing = push.unwrap_or(first);
            // Whoever is logged in gains nothing by another token; everybody else may log in.
            if grant.who.is_none() {
                // Without a token the client asks for one next, and has nothing to show to anybody.
                if grant.scope.is_none() {
                    return self.refuse(ask, None, Reason::NoCredentials);
                }
                let advice = challenge::log_in(missing, ask.host.filter(|host| is_host(host)));
                let reason = Reason::InsufficientScope { caller: caller.name, missing: missing.clone() };
                return self.refuse_with(ask, Some("insufficient_scope"), Some(&advice), reason);
            }
            return Verdict::Forbidden(Forbidden {
                administrators: state.administrators(missing),
                caller,
                missing: missing.clone(),
            });
        }
        if let Some(missing) = ask.wanted.iter().find(|wanted| !grant.is_in_scope(wanted)) {
            let reason = Reason::InsufficientScope { caller: caller.name, missing: missing.clone() };
            return self.refuse(ask, Some("insufficient_scope"), reason);
        }
        Verdict::Granted { caller, grant: Grant::Policy(grant), expires_at }
    }

    fn refuse(&self, ask: &Ask<'_>, error: Option<&str>, reason: Reason) -> Verdict {
        self.refuse_with(ask, error, None, reason)
    }

    fn refuse_with(&self, ask: &Ask<'_>, error: Option<&str>, description: Option<&str>, reason: Reason) -> Verdict {
        let scope = challenge::merged_scope(ask.wanted);
        let realm = match &self.config.realm {
            Some(realm) => Cow::Borrowed(realm.as_str()),
            None => Cow::Owned(self.realm_beside(ask)),
        };
        Verdict::Refused(Challenge {
            www_authenticate: challenge::bearer(&realm, &self.config.service, &scope, error, description),
            wanted: ask.wanted.to_vec(),
            reason,
        })
    }

    /// The token endpoint on the host that the client asked.
    fn realm_beside(&self, ask: &Ask<'_>) -> String {
        let scheme = if ask.tls { "https" } else { "http" };
        same_host(ask, scheme, &self.config.path).unwrap_or_else(|| format!("{scheme}://localhost{}", self.config.path))
    }

    /// A token for whoever proves themselves, or `None` if only a slow hash can tell and
    /// `may_block` is false.
    pub fn issue(&self, ask: &TokenAsk<'_>, may_block: bool) -> Option<Result<Issued, IssueError>> {
        let state = self.state();
        let login = |user: &[u8], password: &[u8]| self.login(&state, user, password, ask.address, ask.now, may_block);
        let login = match ask.proof {
            Proof::None => return Some(Ok(self.tokens(&state, None, ask))),
            Proof::Header(header) => match credential(Some(header)) {
                Credential::Given { user, password } => login(&user, &password),
                Credential::Refused(_) => Login::Wrong,
            },
            Proof::Password(user, password) => login(user.as_bytes(), password.as_bytes()),
            Proof::Refresh(token) => state.refreshed(token, ask.now).map_or(Login::Wrong, Login::Proved),
        };
        match login {
            Login::Slow => None,
            Login::Undecided(error) => Some(Err(error.into())),
            Login::Wrong => Some(Err(WrongCredentials.into())),
            Login::Proved(session) => Some(Ok(self.tokens(&state, Some(&session), ask))),
        }
    }

    fn tokens(&self, state: &State, session: Option<&Session>, ask: &TokenAsk<'_>) -> Issued {
        let who = session.map(|session| session.account);
        let policy = PolicyGrant { policy: Arc::clone(&state.policy), who, scope: None };
        let mut granted: Vec<Access> =
            ask.wanted.iter().flat_map(single_actions).filter(|access| policy.would_allow(access)).collect();
        granted.sort();
        granted.dedup();
        // What a proof gives ends with the proof.
        let within = |lifetime: i64| {
            let end = session.and_then(|session| session.expires_at).unwrap_or(i64::MAX);
            ask.now.saturating_add(lifetime).min(end)
        };
        let name = session.map(|session| session.name.clone()).unwrap_or_default();
        let ticket = |kind, access: &[Access], lifetime| Ticket {
            kind,
            account: who.map(|account| account.0),
            name: name.clone(),
            credential: session.map(|session| session.credential.0),
            access: access.into(),
            issued_at: ask.now,
            expires_at: within(lifetime),
        };
        let access = ticket(Kind::Access, &granted, self.config.token_lifetime);
        let refresh = (ask.offline && session.is_some())
            .then(|| state.keyring.sign(&ticket(Kind::Refresh, &[], self.config.refresh_lifetime)));
        Issued {
            token: state.keyring.sign(&access),
            refresh_token: refresh,
            expires_in: access.expires_at - ask.now,
            caller: Caller { name, account: who },
            granted,
        }
    }

    fn login(
        &self,
        state: &State,
        user: &[u8],
        password: &[u8],
        address: Option<IpAddr>,
        now: i64,
        may_block: bool,
    ) -> Login {
        let name = String::from_utf8_lossy(user);
        let matches = |session: &Session| session.name.as_bytes() == user || user == TOKEN_USER;
        // Neither of these can be guessed, so that neither costs a slow hash. Nor does a good one
        // wait for anybody's failures: else whatever still uses a robot's older secret would lock
        // out those that have the new one.
        let made = if let Some(hash) = Secret::parse(password) {
            Some(state.owner(&hash, now))
        } else if is_token(password) {
            Some(std::str::from_utf8(password).ok().and_then(|token| state.refreshed(token, now)))
        } else {
            None
        };
        let is_made = made.is_some();
        if let Some(session) = made.flatten().filter(matches) {
            return Login::Proved(session);
        }
        if let Err(locked) = self.lockout.permit(&name, address, now) {
            return Login::Undecided(AuthError::Locked { retry_after: u64::from(locked.retry_after) });
        }
        let settle = |session: Option<Session>| match session {
            Some(session) => Login::Proved(session),
            None => {
                self.lockout.failed(&name, address, now);
                Login::Wrong
            }
        };
        if is_made {
            return settle(None);
        }
        let found = state.by_password(&name, now);
        let hash = found.as_ref().map_or(self.nobody.as_str(), |(_, hash)| hash);
        let tag = self.tag(user, hash, password);
        if let Some((session, _)) = &found
            && self.gate.remembers(&tag, now)
        {
            return Login::Proved(session.clone());
        }
        if !may_block {
            return Login::Slow;
        }
        let check = || match &found {
            Some((_, hash)) => hash.parse().is_ok_and(|hash: PasswordHash| hash.verify(password)),
            None => {
                self.nobody.verify(password);
                false
            }
        };
        match self.gate.check(tag, now, check) {
            Err(error) => Login::Undecided(error),
            Ok(false) => settle(None),
            Ok(true) => {
                self.lockout.succeeded(&name, address, now);
                settle(found.map(|(session, _)| session))
            }
        }
    }

    /// The name of a proved password in memory. The hash is part of it, so that a new password
    /// makes the older entry unfindable.
    fn tag(&self, user: &[u8], hash: &str, password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.tag_key);
        for part in [user, hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

impl State {
    fn new(config: &RoadsteadConfig, directory: Arc<Directory>) -> Result<Self, SetupError> {
        let keys: Vec<Key> = directory
            .keys()
            .iter()
            .map(|key| Key { id: key.id.clone(), pkcs8: key.pkcs8.clone(), created_at: key.created_at })
            .collect();
        let keyring = Keyring::new(directory.issuer.clone(), config.service.clone(), &keys).map_err(|error| {
            SetupError::Setting { key: "auth.roadstead", problem: format!("the signing keys cannot be used: {error}") }
        })?;
        let secrets = directory.accounts().flat_map(|account| {
            account.credentials.iter().filter_map(|own| match own.verifier {
                Verifier::Secret(hash) => Some((SecretHash::from(hash), (account.id, own.id))),
                Verifier::Password(_) => None,
            })
        });
        Ok(Self {
            policy: Arc::new(Policy::new(&directory)),
            names: directory.accounts().map(|account| (account.name.clone(), account.id)).collect(),
            secrets: secrets.collect(),
            keyring,
            directory,
        })
    }

    /// The account and proof, if both are good now.
    fn session(&self, account: AccountId, credential: CredentialId, now: i64) -> Option<Session> {
        let account = self.directory.account(account)?;
        let own = account.credentials.iter().find(|own| own.id == credential)?;
        let session = Session {
            account: account.id,
            name: account.name.as_str().to_owned(),
            credential,
            expires_at: own.expires_at,
        };
        account.accepts(credential, now).then_some(session)
    }

    fn owner(&self, hash: &SecretHash, now: i64) -> Option<Session> {
        let (account, credential) = self.secrets.get(hash)?;
        self.session(*account, *credential, now)
    }

    fn refreshed(&self, token: &str, now: i64) -> Option<Session> {
        let ticket = self.keyring.verify(token, Kind::Refresh, now).ok()?;
        let session = self.session(AccountId(ticket.account?), CredentialId(ticket.credential?), now)?;
        // A token made from this one does not outlive it.
        let end = session.expires_at.map_or(ticket.expires_at, |end| end.min(ticket.expires_at));
        Some(Session { expires_at: Some(end), ..session })
    }

    /// The user of a name with the hash to compare a password with. Disabled users are unknown.
    fn by_password(&self, name: &str, now: i64) -> Option<(Session, String)> {
        let id = self.names.get(&name.parse().ok()?)?;
        let (credential, hash) = self.directory.account(*id)?.password(now)?;
        Some((self.session(*id, credential, now)?, hash.to_owned()))
    }

    /// Whom a token is for today. Nobody, if the account is gone or disabled, or the proof that the
    /// token was issued for has ended.
    fn holder(&self, ticket: &Ticket, now: i64) -> Result<Option<AccountId>, Reason> {
        let Some(account) = ticket.account else {
            return Ok(None);
        };
        let account = self.directory.account(AccountId(account));
        let credential = ticket.credential.map(CredentialId);
        let good = |account: &&Account| credential.is_some_and(|credential| account.accepts(credential, now));
        account.filter(good).map(|account| Some(account.id)).ok_or(Reason::Ended)
    }

    /// Some who can give the missing right, users first.
    fn administrators(&self, missing: &Access) -> Vec<String> {
        let Resource::Repository(name) = &missing.resource else {
            return Vec::new();
        };
        let accounts = self.policy.administrators(name).filter_map(|id| self.directory.account(id));
        accounts
            .filter(|account| account.kind == registry_core::account::Kind::User)
            .take(NAMED_ADMINISTRATORS)
            .map(|account| account.name.as_str().to_owned())
            .collect()
    }
}

/// `*` on a repository stands for each of its actions.
fn single_actions(access: &Access) -> Vec<Access> {
    match (&access.resource, access.action) {
        (Resource::Repository(name), Action::All) => {
            [Action::Pull, Action::Push, Action::Delete].map(|action| Access::repository(name, action)).to_vec()
        }
        _ => vec![access.clone()],
    }
}

/// Whether what came as a password was made by a registry, a secret or a token, and not chosen.
pub fn is_made(password: &[u8]) -> bool {
    Secret::parse(password).is_some() || is_token(password)
}

/// Whether a password looks like a token that was pasted: three parts, and JSON's first bytes in
/// base64.
fn is_token(password: &[u8]) -> bool {
    password.starts_with(b"eyJ") && password.iter().filter(|byte| **byte == b'.').count() == 2
}

#[cfg(test)]
mod tests;
