//! Owns everything that access control knows: accounts, groups, rules and signing keys, as one
//! value, and every way to change it.
//!
//! A change is a total function from a directory to the next; a store keeps the newest and
//! replaces it only if it is the one that was changed.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    account::{
        Account, AccountId, Credential, CredentialId, Group, GroupId, Kind, PrincipalName, PrincipalNameError, RuleId,
        Verifier,
    },
    policy::{RepoGlob, Right, Rights, Rule, Subject},
    store::Answer,
};

/// Most accounts, groups, or rules.
pub const MAX_ENTRIES: usize = 10_000;
/// Most proofs of one account.
pub const MAX_CREDENTIALS: usize = 64;
/// Most signing keys.
pub const MAX_KEYS: usize = 16;
/// The longest label or description, in bytes.
pub const MAX_TEXT: usize = 256;

/// A key that signs tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name in the header of a token.
    pub id: String,
    /// The private key, PKCS#8.
    pub pkcs8: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Accounts, groups, rules and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Names this directory in its tokens; random, made once.
    pub issuer: String,
    /// The next id that was never given.
    next: u64,
    accounts: BTreeMap<AccountId, Account>,
    groups: BTreeMap<GroupId, Group>,
    rules: BTreeMap<RuleId, Rule>,
    keys: Vec<SigningKey>,
}

/// The parts of a directory, for a store that writes them down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Directory`")]
pub struct Parts {
    pub issuer: String,
    pub next: u64,
    pub accounts: Vec<Account>,
    pub groups: Vec<Group>,
    pub rules: Vec<Rule>,
    pub keys: Vec<SigningKey>,
}

/// One change. Names are resolved when it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new account.
    AddAccount {
        /// What it logs in as.
        name: PrincipalName,
        /// A person or a program.
        kind: Kind,
        /// What it is for.
        description: String,
    },
    /// An account goes, with its credentials, memberships and rules.
    RemoveAccount(Kind, PrincipalName),
    /// An account is refused, or taken again.
    SetDisabled(Kind, PrincipalName, bool),
    /// A user gets a password in place of the one they had; what the old one proved ends.
    SetPassword(PrincipalName, String),
    /// An account gets another secret beside those it has.
    AddSecret {
        /// Whose kind.
        kind: Kind,
        /// Whose.
        name: PrincipalName,
        /// Its SHA-256.
        hash: [u8; 32],
        /// What it is for.
        label: String,
        /// From when it proves nothing.
        expires_at: Option<i64>,
    },
    /// The secrets that an account has end at a time at the latest: a rotation's overlap. The
    /// password is not one of them.
    EndSecrets(Kind, PrincipalName, i64),
    /// The secrets of an account go at once.
    RevokeSecrets(Kind, PrincipalName),
    /// A new group without members.
    AddGroup(PrincipalName),
    /// A group goes, with its rules.
    RemoveGroup(PrincipalName),
    /// An account joins a group.
    AddMember(PrincipalName, Kind, PrincipalName),
    /// An account leaves a group.
    RemoveMember(PrincipalName, Kind, PrincipalName),
    /// A new rule.
    AddRule(SubjectName, RepoGlob, Rights),
    /// A rule goes.
    RemoveRule(RuleId),
    /// A new key, which signs from now on.
    AddKey(SigningKey),
    /// A key goes, and what it signed is worth nothing.
    RemoveKey(String),
}

/// Why a change is refused. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The name is taken, by a user or a robot.
    #[error("there is a {} `{name}` already", kind.as_str())]
    AccountExists {
        /// Of which kind.
        kind: Kind,
        /// The name.
        name: PrincipalName,
    },
    /// There is no such account.
    #[error("there is no {} `{name}`", kind.as_str())]
    NoAccount {
        /// Of which kind.
        kind: Kind,
        /// The name.
        name: PrincipalName,
    },
    /// The name of the group is taken.
    #[error("there is a group `{0}` already")]
    GroupExists(PrincipalName),
    /// There is no such group.
    #[error("there is no group `{0}`")]
    NoGroup(PrincipalName),
    /// The account is not in the group.
    #[error("`{member}` is not in group `{group}`")]
    NoMember {
        /// The group.
        group: PrincipalName,
        /// The account.
        member: PrincipalName,
    },
    /// There is such a rule already.
    #[error("rule {0} says the same already")]
    RuleExists(RuleId),
    /// There is no such rule.
    #[error("there is no rule {0}")]
    NoRule(RuleId),
    /// The rule would allow nothing.
    #[error("a rule allows at least one of pull, push, delete and admin")]
    NoRights,
    /// Everybody would be able to change the rules.
    #[error("the right `admin` is for users, robots and groups that are named")]
    AdminForAll,
    /// Nobody could change the rules of all repositories any more.
    #[error("nobody would be left who may change everything: a user that is not disabled needs `admin` on `**`")]
    LastAdmin,
    /// Too many of something.
    #[error("there are {0} {1} already, which is the most")]
    TooMany(usize, &'static str),
    /// A label or description is too long, or has control characters.
    #[error("a label or description is at most {MAX_TEXT} bytes without control characters")]
    Text,
    /// There is no such key, or it is the last.
    #[error("there is no key `{0}` that could be spared")]
    NoKey(String),
}

impl Directory {
    /// A directory with nobody in it.
    pub fn new(issuer: String) -> Self {
        let (accounts, groups, rules, keys) = Default::default();
        Self { issuer, next: 1, accounts, groups, rules, keys }
    }

    /// Puts together what a store has read.
    pub fn from_parts(parts: Parts) -> Self {
        Self {
            issuer: parts.issuer,
            next: parts.next,
            accounts: parts.accounts.into_iter().map(|account| (account.id, account)).collect(),
            groups: parts.groups.into_iter().map(|group| (group.id, group)).collect(),
            rules: parts.rules.into_iter().map(|rule| (rule.id, rule)).collect(),
            keys: parts.keys,
        }
    }

    /// What a store has to write.
    pub fn into_parts(self) -> Parts {
        Parts {
            issuer: self.issuer,
            next: self.next,
            accounts: self.accounts.into_values().collect(),
            groups: self.groups.into_values().collect(),
            rules: self.rules.into_values().collect(),
            keys: self.keys,
        }
    }

    /// The accounts, oldest first.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// The groups, oldest first.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// The rules, oldest first.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// The signing keys, oldest first.
    pub fn keys(&self) -> &[SigningKey] {
        &self.keys
    }

    /// An account by its id.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// An account by its name. Goes through all of them: for commands, not for requests.
    pub fn account_named(&self, kind: Kind, name: &PrincipalName) -> Result<&Account, EditError> {
        self.accounts()
            .find(|account| account.name == *name && account.kind == kind)
            .ok_or_else(|| EditError::NoAccount { kind, name: name.clone() })
    }

    /// A group by its name.
    pub fn group_named(&self, name: &PrincipalName) -> Result<&Group, EditError> {
        self.groups().find(|group| group.name == *name).ok_or_else(|| EditError::NoGroup(name.clone()))
    }

    /// The subject of a name.
    pub fn subject(&self, name: &SubjectName) -> Result<Subject, EditError> {
        Ok(match name {
            SubjectName::Account(kind, name) => Subject::Account(self.account_named(*kind, name)?.id),
            SubjectName::Group(name) => Subject::Group(self.group_named(name)?.id),
            SubjectName::Users => Subject::Users,
            SubjectName::Anonymous => Subject::Anonymous,
        })
    }

    /// The name of a rule's subject.
    pub fn subject_name(&self, subject: Subject) -> Option<SubjectName> {
        Some(match subject {
            Subject::Account(id) => {
                let account = self.accounts.get(&id)?;
                SubjectName::Account(account.kind, account.name.clone())
            }
            Subject::Group(id) => SubjectName::Group(self.groups.get(&id)?.name.clone()),
            Subject::Users => SubjectName::Users,
            Subject::Anonymous => SubjectName::Anonymous,
        })
    }

    /// Whether a user that is not disabled may change everything.
    pub fn has_admin(&self) -> bool {
        let everything = RepoGlob::everything();
        let policy = crate::policy::Policy::new(self);
        self.accounts()
            .any(|account| account.kind == Kind::User && policy.may_administer(Some(account.id), &everything))
    }

    /// The directory after `edits`, all of them or none. An administrator that was there is still
    /// there afterwards.
    pub fn edited(&self, edits: &[Edit], now: i64) -> Result<Self, EditError> {
        let mut next = self.clone();
        for edit in edits {
            next.apply(edit, now)?;
        }
        if self.has_admin() && !next.has_admin() {
            return Err(EditError::LastAdmin);
        }
        Ok(next)
    }

    fn apply(&mut self, edit: &Edit, now: i64) -> Result<(), EditError> {
        match edit {
            Edit::AddAccount { name, kind, description } => {
                if let Some(known) = self.accounts().find(|account| account.name == *name) {
                    return Err(EditError::AccountExists { kind: known.kind, name: name.clone() });
                }
                room(self.accounts.len(), MAX_ENTRIES, "accounts")?;
                let id = AccountId(self.id());
                let account = Account {
                    id,
                    name: name.clone(),
                    kind: *kind,
                    disabled: false,
                    description: text(description)?,
                    created_at: now,
                    credentials: Vec::new(),
                };
                self.accounts.insert(id, account);
            }
            Edit::RemoveAccount(kind, name) => {
                let id = self.account_named(*kind, name)?.id;
                self.accounts.remove(&id);
                self.rules.retain(|_, rule| rule.subject != Subject::Account(id));
                for group in self.groups.values_mut() {
                    group.members.remove(&id);
                }
            }
            Edit::SetDisabled(kind, name, disabled) => self.account_mut(*kind, name)?.disabled = *disabled,
            Edit::SetPassword(name, hash) => {
                let id = CredentialId(self.id());
                let account = self.account_mut(Kind::User, name)?;
                account.credentials.retain(|own| !matches!(own.verifier, Verifier::Password(_)));
                let verifier = Verifier::Password(hash.clone());
                account.add(Credential { id, verifier, label: String::new(), created_at: now, expires_at: None })?;
            }
            Edit::AddSecret { kind, name, hash, label, expires_at } => {
                let (id, label) = (CredentialId(self.id()), text(label)?);
                let account = self.account_mut(*kind, name)?;
                // What has ended is of no use to anybody.
                account.credentials.retain(|own| own.is_valid(now));
                let (verifier, expires_at) = (Verifier::Secret(*hash), *expires_at);
                account.add(Credential { id, verifier, label, created_at: now, expires_at })?;
            }
            Edit::EndSecrets(kind, name, at) => {
                for secret in self.account_mut(*kind, name)?.secrets() {
                    secret.expires_at = Some(secret.expires_at.map_or(*at, |own| own.min(*at)));
                }
            }
            Edit::RevokeSecrets(kind, name) => {
                let account = self.account_mut(*kind, name)?;
                account.credentials.retain(|own| matches!(own.verifier, Verifier::Password(_)));
            }
            Edit::AddGroup(name) => {
                if self.group_named(name).is_ok() {
                    return Err(EditError::GroupExists(name.clone()));
                }
                room(self.groups.len(), MAX_ENTRIES, "groups")?;
                let id = GroupId(self.id());
                self.groups.insert(id, Group { id, name: name.clone(), members: Default::default() });
            }
            Edit::RemoveGroup(name) => {
                let id = self.group_named(name)?.id;
                self.groups.remove(&id);
                self.rules.retain(|_, rule| rule.subject != Subject::Group(id));
            }
            Edit::AddMember(group, kind, name) => {
                let member = self.account_named(*kind, name)?.id;
                self.group_mut(group)?.members.insert(member);
            }
            Edit::RemoveMember(group, kind, name) => {
                let member = self.account_named(*kind, name)?.id;
                if !self.group_mut(group)?.members.remove(&member) {
                    return Err(EditError::NoMember { group: group.clone(), member: name.clone() });
                }
            }
            Edit::AddRule(subject, repositories, rights) => {
                let (subject, rights) = (self.subject(subject)?, *rights);
                if rights.is_empty() {
                    return Err(EditError::NoRights);
                }
                if rights.give(Right::Admin) && matches!(subject, Subject::Users | Subject::Anonymous) {
                    return Err(EditError::AdminForAll);
                }
                let same =
                    |rule: &&Rule| (rule.subject, &rule.repositories, rule.rights) == (subject, repositories, rights);
                if let Some(known) = self.rules().find(same) {
                    return Err(EditError::RuleExists(known.id));
                }
                room(self.rules.len(), MAX_ENTRIES, "rules")?;
                let id = RuleId(self.id());
                let rule = Rule { id, subject, repositories: repositories.clone(), rights, created_at: now };
                self.rules.insert(id, rule);
            }
            Edit::RemoveRule(id) => {
                self.rules.remove(id).ok_or(EditError::NoRule(*id))?;
            }
            Edit::AddKey(key) => {
                room(self.keys.len(), MAX_KEYS, "keys")?;
                self.keys.push(key.clone());
            }
            Edit::RemoveKey(id) => {
                let at = self.keys.iter().position(|key| key.id == *id).filter(|_| self.keys.len() > 1);
                self.keys.remove(at.ok_or_else(|| EditError::NoKey(id.clone()))?);
            }
        }
        Ok(())
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn account_mut(&mut self, kind: Kind, name: &PrincipalName) -> Result<&mut Account, EditError> {
        let id = self.account_named(kind, name)?.id;
        Ok(self.accounts.get_mut(&id).expect("it was found just now"))
    }

    fn group_mut(&mut self, name: &PrincipalName) -> Result<&mut Group, EditError> {
        let id = self.group_named(name)?.id;
        Ok(self.groups.get_mut(&id).expect("it was found just now"))
    }
}

impl Account {
    fn add(&mut self, credential: Credential) -> Result<(), EditError> {
        room(self.credentials.len(), MAX_CREDENTIALS, "secrets of this account")?;
        self.credentials.push(credential);
        Ok(())
    }

    fn secrets(&mut self) -> impl Iterator<Item = &mut Credential> {
        self.credentials.iter_mut().filter(|own| matches!(own.verifier, Verifier::Secret(_)))
    }
}

fn room(have: usize, most: usize, of: &'static str) -> Result<(), EditError> {
    if have < most { Ok(()) } else { Err(EditError::TooMany(have, of)) }
}

fn text(text: &str) -> Result<String, EditError> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) { Err(EditError::Text) } else { Ok(text.to_owned()) }
}

/// Whom a rule is for, by name: `user:alice`, `robot:ci`, `group:dev`, `users`, `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// One account.
    Account(Kind, PrincipalName),
    /// The members of a group.
    Group(PrincipalName),
    /// Every user.
    Users,
    /// Everybody.
    Anonymous,
}

/// A text that names no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectNameError {
    /// None of the forms.
    #[error("`{0}` names nobody: write user:NAME, robot:NAME, group:NAME, users or anonymous")]
    Form(String),
    /// What comes after the colon is no name.
    #[error("`{0}`: {1}")]
    Name(String, #[source] PrincipalNameError),
}

impl FromStr for SubjectName {
    type Err = SubjectNameError;

    fn from_str(text: &str) -> Result<Self, SubjectNameError> {
        let shown = || text.chars().take(80).flat_map(char::escape_debug).collect::<String>();
        let name = |name: &str| name.parse().map_err(|error| SubjectNameError::Name(shown(), error));
        match text.split_once(':') {
            None if text == "users" => Ok(Self::Users),
            None if text == "anonymous" => Ok(Self::Anonymous),
            Some(("user", user)) => Ok(Self::Account(Kind::User, name(user)?)),
            Some(("robot", robot)) => Ok(Self::Account(Kind::Robot, name(robot)?)),
            Some(("group", group)) => Ok(Self::Group(name(group)?)),
            _ => Err(SubjectNameError::Form(shown())),
        }
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(kind, name) => write!(f, "{}:{name}", kind.as_str()),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Users => f.write_str("users"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// Where the directory lives.
pub trait Directories: Send + Sync {
    /// The newest directory with its version, above zero; `None` if there never was one.
    fn load(&self) -> Answer<'_, Option<(u64, Directory)>>;
    /// Replaces the version `expected`, durably, and returns the new version; 0 is where there is
    /// none yet. Refused with [`crate::store::Refusal::DirectoryChanged`] if another one is there.
    fn save(&self, expected: u64, directory: Directory) -> Answer<'_, u64>;
}

#[cfg(test)]
mod tests;
