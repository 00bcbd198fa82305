//! Owns the directory of accounts and rules as a JSON document, the form in which a store keeps it.
//!
//! What cannot be read is an error, never an empty directory: that would let the next start set up
//! the registry anew and take every right away. Errors name places and ids, and no values: there are
//! secrets among them.

use std::collections::{BTreeSet, HashSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use registry_core::{
    account::{Account, AccountId, Credential, CredentialId, Group, GroupId, Kind, RuleId, Verifier},
    directory::{Directory, Parts, SigningKey},
    policy::{Right, Rule, Subject},
    store::StoreError,
};
use serde::Deserialize;
use serde_json::error::Category;

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// Most bytes of a document; ten thousand accounts with a dozen secrets each fit.
const MAX_BYTES: usize = 32 << 20;
/// The highest id that can be next: more than anybody ever gives, and far from where ids begin anew,
/// which would give somebody the rights of somebody else.
const MAX_NEXT: u64 = 1 << 62;

/// Why a directory cannot be written down or read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// A newer server has written it.
    #[error(
        "they have format {0}, this server knows {FORMAT}: run the newer server that wrote them, \
         or restore the data directory from a backup"
    )]
    Newer(u32),
    /// It is not what any server writes.
    #[error("they are damaged ({0}): restore the data directory from a backup")]
    Damaged(String),
    /// It could not be read again.
    #[error("they contradict themselves ({0}); nothing was changed")]
    Contradiction(String),
    /// It is too long.
    #[error("they take {0} bytes, which is more than {MAX_BYTES}: revoke secrets or remove accounts that nobody uses")]
    TooLong(usize),
}

impl DocumentError {
    pub(crate) fn during(self, operation: &'static str) -> StoreError {
        StoreError::Failed { operation: operation.to_owned(), source: Box::new(self) }
    }
}

/// The shapes of the document. Ids are numbers, secrets hex, private keys base64, times seconds
/// since 1970.
mod wire {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Document {
        pub(super) format: u32,
        pub(super) issuer: String,
        pub(super) next: u64,
        pub(super) accounts: Vec<Account>,
        pub(super) groups: Vec<Group>,
        pub(super) rules: Vec<Rule>,
        pub(super) keys: Vec<Key>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Account {
        pub(super) id: u64,
        pub(super) name: String,
        pub(super) kind: Kind,
        pub(super) disabled: bool,
        pub(super) description: String,
        pub(super) created_at: i64,
        pub(super) credentials: Vec<Credential>,
    }

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Kind {
        User,
        Robot,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Credential {
        pub(super) id: u64,
        pub(super) verifier: Verifier,
        pub(super) label: String,
        pub(super) created_at: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(super) expires_at: Option<i64>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Verifier {
        Password(String),
        SecretSha256(String),
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Group {
        pub(super) id: u64,
        pub(super) name: String,
        pub(super) members: Vec<u64>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Rule {
        pub(super) id: u64,
        pub(super) subject: Subject,
        pub(super) repositories: String,
        pub(super) rights: Vec<String>,
        pub(super) created_at: i64,
    }

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Subject {
        Account(u64),
        Group(u64),
        Users,
        Anonymous,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Key {
        pub(super) id: String,
        pub(super) pkcs8: String,
        pub(super) created_at: i64,
    }
}

/// Writes a directory down. What was written can be read.
pub(crate) fn encode(directory: Directory) -> Result<String, DocumentError> {
    let parts = directory.into_parts();
    agrees(&parts).map_err(DocumentError::Contradiction)?;
    let document = wire::Document {
        format: FORMAT,
        issuer: parts.issuer,
        next: parts.next,
        accounts: parts.accounts.into_iter().map(account_out).collect(),
        groups: parts.groups.into_iter().map(group_out).collect(),
        rules: parts.rules.iter().map(rule_out).collect(),
        keys: parts.keys.into_iter().map(key_out).collect(),
    };
    let text = serde_json::to_string(&document).expect("no map with other keys than strings is in it");
    if text.len() > MAX_BYTES { Err(DocumentError::TooLong(text.len())) } else { Ok(text) }
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(text: &[u8]) -> Result<Directory, DocumentError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(text).map_err(|error| json(&error))?;
    if head.format > FORMAT {
        return Err(DocumentError::Newer(head.format));
    }
    if head.format < FORMAT {
        return Err(DocumentError::Damaged(format!("there is no format {}", head.format)));
    }
    let document: wire::Document = serde_json::from_slice(text).map_err(|error| json(&error))?;
    parts(document)
        .and_then(|parts| agrees(&parts).map(|()| Directory::from_parts(parts)))
        .map_err(DocumentError::Damaged)
}

/// Where it went wrong. The error's own text would show the value, which may be a secret.
fn json(error: &serde_json::Error) -> DocumentError {
    let what = match error.classify() {
        Category::Eof => "the document ends early",
        Category::Data => "something is not as this format has it",
        Category::Syntax | Category::Io => "this is no JSON",
    };
    DocumentError::Damaged(format!("{what}, line {} column {}", error.line(), error.column()))
}

/// What went wrong, with the place.
type Read<T> = Result<T, String>;

fn parts(document: wire::Document) -> Read<Parts> {
    Ok(Parts {
        issuer: document.issuer,
        next: document.next,
        accounts: document.accounts.into_iter().map(account_in).collect::<Read<_>>()?,
        groups: document.groups.into_iter().map(group_in).collect::<Read<_>>()?,
        rules: document.rules.iter().map(rule_in).collect::<Read<_>>()?,
        keys: document.keys.into_iter().map(key_in).collect::<Read<_>>()?,
    })
}

/// Whether every id and name is there once, below the next, and whatever is named exists. An id
/// that comes twice would give somebody the rights of somebody else.
fn agrees(parts: &Parts) -> Read<()> {
    if parts.next > MAX_NEXT {
        return Err(format!("the next id is {}, above all that can have been given", parts.next));
    }
    let accounts: HashSet<AccountId> = parts.accounts.iter().map(|account| account.id).collect();
    let groups: HashSet<GroupId> = parts.groups.iter().map(|group| group.id).collect();
    let credentials = parts.accounts.iter().flat_map(|account| &account.credentials).map(|own| own.id.0);
    let ids = (parts.accounts.iter().map(|account| account.id.0))
        .chain(credentials)
        .chain(parts.groups.iter().map(|group| group.id.0))
        .chain(parts.rules.iter().map(|rule| rule.id.0));
    let mut seen = HashSet::new();
    for id in ids {
        if id >= parts.next {
            return Err(format!("id {id} is not below {}, the next", parts.next));
        }
        if !seen.insert(id) {
            return Err(format!("id {id} is there twice"));
        }
    }
    let mut names = HashSet::new();
    if let Some(twice) = parts.accounts.iter().find(|account| !names.insert(&account.name)) {
        return Err(format!("account {} has the name of another one", twice.id));
    }
    names.clear();
    if let Some(twice) = parts.groups.iter().find(|group| !names.insert(&group.name)) {
        return Err(format!("group {} has the name of another one", twice.id));
    }
    for group in &parts.groups {
        if let Some(member) = group.members.iter().find(|member| !accounts.contains(member)) {
            return Err(format!("group {} has the member {member}, which does not exist", group.id));
        }
    }
    let exists = |subject: Subject| match subject {
        Subject::Account(id) => accounts.contains(&id),
        Subject::Group(id) => groups.contains(&id),
        Subject::Users | Subject::Anonymous => true,
    };
    match parts.rules.iter().find(|rule| !exists(rule.subject)) {
        Some(rule) => Err(format!("rule {} is for somebody who does not exist", rule.id)),
        None => Ok(()),
    }
}

fn account_out(account: Account) -> wire::Account {
    wire::Account {
        id: account.id.0,
        name: account.name.to_string(),
        kind: match account.kind {
            Kind::User => wire::Kind::User,
            Kind::Robot => wire::Kind::Robot,
        },
        disabled: account.disabled,
        description: account.description,
        created_at: account.created_at,
        credentials: account.credentials.into_iter().map(credential_out).collect(),
    }
}

fn account_in(account: wire::Account) -> Read<Account> {
    let id = account.id;
    Ok(Account {
        id: AccountId(id),
        name: account.name.parse().map_err(|_| format!("account {id} has no good name"))?,
        kind: match account.kind {
            wire::Kind::User => Kind::User,
            wire::Kind::Robot => Kind::Robot,
        },
        disabled: account.disabled,
        description: account.description,
        created_at: account.created_at,
        credentials: account.credentials.into_iter().map(credential_in).collect::<Read<_>>()?,
    })
}

fn credential_out(credential: Credential) -> wire::Credential {
    wire::Credential {
        id: credential.id.0,
        verifier: match credential.verifier {
            Verifier::Password(hash) => wire::Verifier::Password(hash),
            Verifier::Secret(hash) => {
                wire::Verifier::SecretSha256(hash.iter().map(|byte| format!("{byte:02x}")).collect())
            }
        },
        label: credential.label,
        created_at: credential.created_at,
        expires_at: credential.expires_at,
    }
}

fn credential_in(credential: wire::Credential) -> Read<Credential> {
    let id = credential.id;
    Ok(Credential {
        id: CredentialId(id),
        verifier: match credential.verifier {
            wire::Verifier::Password(hash) => Verifier::Password(hash),
            wire::Verifier::SecretSha256(hex) => {
                Verifier::Secret(from_hex(&hex).ok_or_else(|| format!("credential {id} is not 64 hex digits"))?)
            }
        },
        label: credential.label,
        created_at: credential.created_at,
        expires_at: credential.expires_at,
    })
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

fn group_out(group: Group) -> wire::Group {
    let members = group.members.iter().map(|member| member.0).collect();
    wire::Group { id: group.id.0, name: group.name.to_string(), members }
}

fn group_in(group: wire::Group) -> Read<Group> {
    let id = group.id;
    let members: BTreeSet<AccountId> = group.members.into_iter().map(AccountId).collect();
    let name = group.name.parse().map_err(|_| format!("group {id} has no good name"))?;
    Ok(Group { id: GroupId(id), name, members })
}

fn rule_out(rule: &Rule) -> wire::Rule {
    wire::Rule {
        id: rule.id.0,
        subject: match rule.subject {
            Subject::Account(id) => wire::Subject::Account(id.0),
            Subject::Group(id) => wire::Subject::Group(id.0),
            Subject::Users => wire::Subject::Users,
            Subject::Anonymous => wire::Subject::Anonymous,
        },
        repositories: rule.repositories.to_string(),
        rights: rule.rights.listed().map(|right| right.to_string()).collect(),
        created_at: rule.created_at,
    }
}

fn rule_in(rule: &wire::Rule) -> Read<Rule> {
    let id = rule.id;
    let rights = rule.rights.iter().map(|right| right.parse::<Right>()).collect::<Result<_, _>>();
    Ok(Rule {
        id: RuleId(id),
        subject: match rule.subject {
            wire::Subject::Account(id) => Subject::Account(AccountId(id)),
            wire::Subject::Group(id) => Subject::Group(GroupId(id)),
            wire::Subject::Users => Subject::Users,
            wire::Subject::Anonymous => Subject::Anonymous,
        },
        repositories: rule.repositories.parse().map_err(|_| format!("rule {id} has no good repositories"))?,
        rights: rights.map_err(|_| format!("rule {id} has no good rights"))?,
        created_at: rule.created_at,
    })
}

fn key_out(key: SigningKey) -> wire::Key {
    wire::Key { id: key.id, pkcs8: STANDARD.encode(&key.pkcs8), created_at: key.created_at }
}

fn key_in(key: wire::Key) -> Read<SigningKey> {
    let pkcs8 = STANDARD.decode(&key.pkcs8).map_err(|_| "a signing key is not base64".to_owned())?;
    Ok(SigningKey { id: key.id, pkcs8, created_at: key.created_at })
}

#[cfg(test)]
mod tests;
