//! Owns who can have rights: users, robots and groups, and how accounts prove who they are.
//!
//! Does not own hashes or signatures (`registry-auth`), nor what anybody may do (`policy`).

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

/// The longest name of an account or group, in bytes.
pub const MAX_PRINCIPAL_NAME: usize = 64;

/// A name to log in with, or of a group: lower-case letters and digits, joined inside by `.`, `_`,
/// `-`, `+` or `@`; 1 to [`MAX_PRINCIPAL_NAME`] bytes.
///
/// A name says nothing about rights: they belong to the account's id, so that a new account of an
/// old name begins with none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalName(Arc<str>);

/// A text that is no name of an account or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to {MAX_PRINCIPAL_NAME} lower-case letters and digits, joined inside by `.`, `_`, `-`, `+` or `@`"
)]
pub struct PrincipalNameError;

impl PrincipalName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PrincipalName {
    type Err = PrincipalNameError;

    fn from_str(text: &str) -> Result<Self, PrincipalNameError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let good = bytes.len() <= MAX_PRINCIPAL_NAME
            && bytes.iter().all(|c| plain(*c) || b"._-+@".contains(c))
            && bytes.first().is_some_and(|c| plain(*c))
            && bytes.last().is_some_and(|c| plain(*c));
        if good { Ok(Self(text.into())) } else { Err(PrincipalNameError) }
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// An account, never used again after it was removed.
    AccountId;
    /// A group, never used again after it was removed.
    GroupId;
    /// A proof that an account has, never used again: what was issued for one ends with it.
    CredentialId;
    /// A rule of the policy, never used again after it was removed.
    RuleId;
}

/// What kind of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A person.
    User,
    /// A program.
    Robot,
}

impl Kind {
    /// `user` or `robot`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Robot => "robot",
        }
    }
}

/// What a given secret is compared with.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// The argon2id hash of a password, in PHC form.
    Password(String),
    /// The SHA-256 of a secret that this registry made: 256 random bits need no slow hash.
    Secret([u8; 32]),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "password",
            Self::Secret(_) => "secret",
        })
    }
}

/// One way for an account to prove itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// What it is compared with.
    pub verifier: Verifier,
    /// What it is for, in a person's words; may be empty.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// From when it proves nothing, in seconds since 1970.
    pub expires_at: Option<i64>,
}

impl Credential {
    /// Whether it proves anything at `now`.
    pub fn is_valid(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// A user or robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// What it logs in as; unique among users and robots together.
    pub name: PrincipalName,
    /// A person or a program.
    pub kind: Kind,
    /// Whether it is refused for now.
    pub disabled: bool,
    /// What it is for, in a person's words; may be empty.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// How it proves itself, oldest first.
    pub credentials: Vec<Credential>,
}

impl Account {
    /// The hash of its password, if it has one that is valid at `now`.
    pub fn password(&self, now: i64) -> Option<(CredentialId, &str)> {
        self.credentials.iter().filter(|credential| credential.is_valid(now)).find_map(|credential| {
            match &credential.verifier {
                Verifier::Password(hash) => Some((credential.id, hash.as_str())),
                Verifier::Secret(_) => None,
            }
        })
    }

    /// Whether `credential` is one of its proofs, valid at `now`, and the account is not disabled.
    pub fn accepts(&self, credential: CredentialId, now: i64) -> bool {
        !self.disabled && self.credentials.iter().any(|own| own.id == credential && own.is_valid(now))
    }
}

/// Accounts that get rights together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, unique among groups.
    pub name: PrincipalName,
    /// Who belongs to it.
    pub members: BTreeSet<AccountId>,
}

#[cfg(test)]
mod tests {
    use super::PrincipalName;

    #[test]
    fn names() {
        let check = |text: &str, good: bool| assert_eq!(text.parse::<PrincipalName>().is_ok(), good, "{text:?}");
        for good in ["a", "7", "alice", "ci-team.api", "a_b", "alice@example.org", "a+b", &"a".repeat(64)] {
            check(good, true);
        }
        for bad in ["", "A", "-a", "a-", ".", "a b", "a:b", "a/b", "<token>", "é", "a\n", "a\0b", &"a".repeat(65)] {
            check(bad, false);
        }
    }
}
