//! Owns what an order means: the edits that carry it out, and the answer. Pure: a directory, a time
//! and fresh random material go in.
//!
//! Does not own who may give it (`authority`), nor the edits' own rules (`registry-core`).

use std::collections::HashMap;

use registry_core::{
    account::{Account, AccountId, Group, Kind, PrincipalName, RuleId, Verifier},
    directory::{Directory, Edit, SigningKey, SubjectName},
    name::RepoName,
    policy::{Policy, Right, Rule, Says, Subject},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    authority::Authority,
    error::{OrderError, shown},
    order::Order,
};
use crate::signing::takeover;

const DAY: i64 = 24 * 3600;
/// How long a token is good where nothing is said, in seconds.
pub(crate) const TOKEN_LIFETIME: i64 = 90 * DAY;
/// How long a token can be good, in seconds.
pub(crate) const MAX_TOKEN_LIFETIME: i64 = 400 * DAY;
/// How long the secret of a robot can be good, in seconds, if it ends at all.
const MAX_SECRET_LIFETIME: i64 = 36_500 * DAY;
/// How long older secrets can go on after a rotation, in seconds.
const MAX_OVERLAP: i64 = 400 * DAY;
/// Most rules that a robot is made with.
const MAX_ALLOW: usize = 100;
/// Most administrators that an explanation names.
const MAX_ADMINISTRATORS: usize = 5;

/// What an order needs that no directory has: made before, because it is random or slow.
#[derive(Clone)]
pub(crate) enum Fresh {
    /// Nothing.
    Nothing,
    /// The hash of a password, and the password itself if it was made here.
    Password { hash: String, made: Option<String> },
    /// A secret and its SHA-256.
    Secret { text: String, hash: [u8; 32] },
    /// A signing key.
    Key(SigningKey),
}

impl Fresh {
    fn password(&self) -> &str {
        match self {
            Self::Password { hash, .. } => hash,
            _ => panic!("an order for a password comes with one"),
        }
    }

    fn secret(&self) -> (&str, [u8; 32]) {
        match self {
            Self::Secret { text, hash } => (text, *hash),
            _ => panic!("an order for a secret comes with one"),
        }
    }

    /// An answer, with the password in it if it was made here.
    fn told(&self, mut answer: Value) -> Value {
        if let Self::Password { made: Some(password), .. } = self {
            answer["password"] = json!(password);
        }
        answer
    }
}

/// The edits that carry `order` out, none if it only asks, and what it answers.
pub(crate) fn plan(
    order: &Order,
    directory: &Directory,
    authority: &Authority,
    fresh: &Fresh,
    now: i64,
) -> Result<(Vec<Edit>, Value), OrderError> {
    // The answer is about the directory as it will be.
    let change = |edits: Vec<Edit>, answer: &dyn Fn(&Directory) -> Value| {
        let after = directory.edited(&edits, now)?;
        let answer = answer(&after);
        Ok((edits, answer))
    };
    let about = |kind: Kind, name: &PrincipalName, edit: Edit| {
        change(vec![edit], &|after| fresh.told(json!({ kind.as_str(): account_named(after, kind, name) })))
    };
    let remove = |subject: SubjectName, edit: Edit| {
        let subject_id = directory.subject(&subject)?;
        let rules: Vec<u64> =
            directory.rules().filter(|rule| rule.subject == subject_id).map(|rule| rule.id.0).collect();
        change(vec![edit], &|_| json!({ "removed": subject.to_string(), "rules": rules }))
    };
    let grouped = |name: &PrincipalName, edit: Edit| {
        change(vec![edit], &|after| {
            let group = after.group_named(name).expect("it is there after the edit");
            json!({ "group": group_json(after, group) })
        })
    };
    match order {
        Order::UserAdd { name, description, .. } => {
            let (name, kind) = (name.parse::<PrincipalName>()?, Kind::User);
            let add = Edit::AddAccount { name: name.clone(), kind, description: description.clone() };
            let edits = vec![add, Edit::SetPassword(name.clone(), fresh.password().to_owned())];
            change(edits, &|after| fresh.told(json!({ "user": account_named(after, kind, &name) })))
        }
        Order::UserPasswd { name, .. } => {
            let name = name.parse()?;
            about(Kind::User, &name, Edit::SetPassword(name.clone(), fresh.password().to_owned()))
        }
        Order::UserList {} => Ok((Vec::new(), json!({ "users": accounts(directory, Kind::User) }))),
        Order::UserDisable { name } => {
            let name = name.parse()?;
            about(Kind::User, &name, Edit::SetDisabled(Kind::User, name.clone(), true))
        }
        Order::UserEnable { name } => {
            let name = name.parse()?;
            about(Kind::User, &name, Edit::SetDisabled(Kind::User, name.clone(), false))
        }
        Order::UserRemove { name } => {
            let name: PrincipalName = name.parse()?;
            remove(SubjectName::Account(Kind::User, name.clone()), Edit::RemoveAccount(Kind::User, name))
        }
        Order::UserToken { name, label, expires_in } => {
            let (name, kind, (text, hash)) = (name.parse::<PrincipalName>()?, Kind::User, fresh.secret());
            let lifetime = lifetime(*expires_in, MAX_TOKEN_LIFETIME)?.unwrap_or(TOKEN_LIFETIME);
            let expires_at = Some(now + lifetime);
            let edit = Edit::AddSecret { kind, name: name.clone(), hash, label: label.clone(), expires_at };
            change(vec![edit], &|after| {
                let user = account_named(after, kind, &name);
                json!({ "user": user, "token": text, "expires": expires_at.map(timestamp) })
            })
        }
        Order::UserRevokeTokens { name } => {
            let name = name.parse()?;
            let account = directory.account_named(Kind::User, &name)?;
            let revoked = account.credentials.iter().filter(|own| matches!(own.verifier, Verifier::Secret(_))).count();
            change(
                vec![Edit::RevokeSecrets(Kind::User, name.clone())],
                &|after| json!({ "user": account_named(after, Kind::User, &name), "revoked": revoked }),
            )
        }
        Order::RobotCreate { name, description, expires_in, allow } => {
            let (name, kind, (text, hash)) = (name.parse::<PrincipalName>()?, Kind::Robot, fresh.secret());
            let expires_at = lifetime(*expires_in, MAX_SECRET_LIFETIME)?.map(|lifetime| now + lifetime);
            if allow.len() > MAX_ALLOW {
                let what = format!("a robot is made with up to {MAX_ALLOW} rules");
                return Err(OrderError::invalid(what, "let it join a group that has them"));
            }
            let mut edits = vec![
                Edit::AddAccount { name: name.clone(), kind, description: description.clone() },
                Edit::AddSecret { kind, name: name.clone(), hash, label: String::new(), expires_at },
            ];
            for allowed in allow {
                let subject = SubjectName::Account(kind, name.clone());
                edits.push(Edit::AddRule(subject, allowed.repositories.parse()?, allowed.rights.parse()?));
            }
            change(edits, &|after| {
                let robot = after.account_named(kind, &name).expect("it was made just now");
                let own = after.rules().filter(|rule| rule.subject == Subject::Account(robot.id));
                json!({
                    "robot": account_named(after, kind, &name),
                    "secret": text,
                    "expires": expires_at.map(timestamp),
                    "grants": own.map(|rule| grant(after, rule)).collect::<Vec<_>>(),
                })
            })
        }
        Order::RobotList {} => Ok((Vec::new(), json!({ "robots": accounts(directory, Kind::Robot) }))),
        Order::RobotRotate { name, overlap, expires_in } => {
            let (name, kind, (text, hash)) = (name.parse::<PrincipalName>()?, Kind::Robot, fresh.secret());
            let overlap = within(*overlap, 0, MAX_OVERLAP, "older secrets work for")?;
            let expires_at = lifetime(*expires_in, MAX_SECRET_LIFETIME)?.map(|lifetime| now + lifetime);
            let edits = vec![
                Edit::EndSecrets(kind, name.clone(), now + overlap),
                Edit::AddSecret { kind, name: name.clone(), hash, label: String::new(), expires_at },
            ];
            change(edits, &|after| {
                json!({
                    "robot": account_named(after, kind, &name),
                    "secret": text,
                    "expires": expires_at.map(timestamp),
                    "old_until": timestamp(now + overlap),
                })
            })
        }
        Order::RobotRevoke { name } => {
            let name: PrincipalName = name.parse()?;
            remove(SubjectName::Account(Kind::Robot, name.clone()), Edit::RemoveAccount(Kind::Robot, name))
        }
        Order::GroupAdd { name } => {
            let name = name.parse()?;
            grouped(&name, Edit::AddGroup(name.clone()))
        }
        Order::GroupList {} => {
            let groups: Vec<Value> = directory.groups().map(|group| group_json(directory, group)).collect();
            Ok((Vec::new(), json!({ "groups": groups })))
        }
        Order::GroupRemove { name } => {
            let name: PrincipalName = name.parse()?;
            remove(SubjectName::Group(name.clone()), Edit::RemoveGroup(name))
        }
        Order::GroupJoin { name, member } => {
            let (name, (kind, member)) = (name.parse()?, self::member(member)?);
            grouped(&name, Edit::AddMember(name.clone(), kind, member))
        }
        Order::GroupLeave { name, member } => {
            let (name, (kind, member)) = (name.parse()?, self::member(member)?);
            grouped(&name, Edit::RemoveMember(name.clone(), kind, member))
        }
        Order::GrantAdd { subject, repositories, rights } => {
            let edit = Edit::AddRule(subject.parse()?, repositories.parse()?, rights.parse()?);
            change(vec![edit], &|after| {
                let newest = after.rules().last().expect("it was made just now");
                json!({ "grant": grant(after, newest) })
            })
        }
        Order::GrantList { subject, repository } => {
            let subject = subject.as_ref().map(|text| Ok::<_, OrderError>(directory.subject(&text.parse()?)?));
            let subject = subject.transpose()?;
            let repository = repository.as_ref().map(|text| text.parse::<RepoName>()).transpose()?;
            let listed = directory.rules().filter(|rule| {
                authority.covers(&rule.repositories)
                    && subject.is_none_or(|subject| rule.subject == subject)
                    && repository.as_ref().is_none_or(|name| rule.repositories.holds(name))
            });
            Ok((Vec::new(), json!({ "grants": listed.map(|rule| grant(directory, rule)).collect::<Vec<_>>() })))
        }
        Order::GrantRemove { rule } => {
            let id = RuleId(*rule);
            let removed = directory.rules().find(|rule| rule.id == id).map(|rule| grant(directory, rule));
            change(vec![Edit::RemoveRule(id)], &|_| json!({ "removed": removed }))
        }
        Order::GrantExplain { subject, repository, right } => {
            let (subject, repository) = (subject.parse()?, repository.parse()?);
            Ok((Vec::new(), explain(directory, authority, &subject, &repository, right.parse()?)?))
        }
        Order::KeyList {} => {
            let keys: Vec<Value> = directory.keys().iter().map(|key| key_json(directory, key)).collect();
            Ok((Vec::new(), json!({ "keys": keys })))
        }
        Order::KeyRotate {} => {
            let Fresh::Key(key) = fresh else { panic!("an order for a key comes with one") };
            change(takeover(directory, key.clone()), &|after| {
                let newest = after.keys().last().expect("it was made just now");
                json!({ "key": key_json(after, newest) })
            })
        }
    }
}

fn explain(
    directory: &Directory,
    authority: &Authority,
    subject: &SubjectName,
    repository: &RepoName,
    right: Right,
) -> Result<Value, OrderError> {
    let account = match subject {
        SubjectName::Account(kind, name) => Some(directory.account_named(*kind, name)?),
        SubjectName::Anonymous => None,
        SubjectName::Group(_) | SubjectName::Users => {
            let what = format!("`{subject}` pulls and pushes nothing: its members do");
            return Err(OrderError::invalid(what, "ask about user:NAME, robot:NAME or anonymous"));
        }
    };
    let policy = Policy::new(directory);
    let who = account.map(|account| account.id);
    let considered = policy.explain(who, repository, right).into_iter();
    let considered = considered.filter(|(rule, says)| {
        // What decides is shown to whoever may ask; what is about other repositories is not.
        *says != Says::OtherRepositories || authority.covers(&rule.repositories)
    });
    let considered: Vec<Value> = considered
        .map(|(rule, says)| {
            let mut shown = grant(directory, rule);
            shown["says"] = json!(match says {
                Says::Yes => "allows",
                Says::OtherRights => "other rights",
                Says::OtherRepositories => "other repositories",
            });
            shown
        })
        .collect();
    let administrators = policy.administrators(repository).filter_map(|id| directory.account(id));
    let people = administrators.filter(|account| account.kind == Kind::User).take(MAX_ADMINISTRATORS);
    let rule = policy.decide(who, repository, right);
    Ok(json!({
        "subject": subject.to_string(),
        "repository": repository.as_str(),
        "right": right.as_str(),
        "allowed": rule.is_some(),
        "rule": rule.map(|rule| rule.0),
        "disabled": account.is_some_and(|account| account.disabled),
        "considered": considered,
        "administrators": people.map(|account| account.name.to_string()).collect::<Vec<_>>(),
    }))
}

/// `user:NAME` or `robot:NAME`.
fn member(text: &str) -> Result<(Kind, PrincipalName), OrderError> {
    match text.parse()? {
        SubjectName::Account(kind, name) => Ok((kind, name)),
        _ => Err(OrderError::invalid(
            format!("`{}` cannot be in a group", shown(text)),
            "members are users and robots: write user:NAME or robot:NAME",
        )),
    }
}

fn lifetime(expires_in: Option<u64>, most: i64) -> Result<Option<i64>, OrderError> {
    expires_in.map(|seconds| within(seconds, 1, most, "expires_in is")).transpose()
}

fn within(seconds: u64, least: i64, most: i64, what: &str) -> Result<i64, OrderError> {
    let whole = i64::try_from(seconds).ok().filter(|seconds| (least..=most).contains(seconds));
    let wrong = || {
        let what = format!("{what} {least} to {most} seconds ({} days), not {seconds}", most / DAY);
        OrderError::invalid(what, "choose a time in that range")
    };
    whole.ok_or_else(wrong)
}

/// A time as RFC 3339 text.
pub(crate) fn timestamp(at: i64) -> String {
    let text = OffsetDateTime::from_unix_timestamp(at).ok().and_then(|at| at.format(&Rfc3339).ok());
    // Nothing here lives until the year 10000.
    text.unwrap_or_else(|| at.to_string())
}

fn account_named(directory: &Directory, kind: Kind, name: &PrincipalName) -> Value {
    let account = directory.account_named(kind, name).expect("it is there after the edit");
    let groups = directory.groups().filter(|group| group.members.contains(&account.id));
    account_json(account, groups.map(|group| group.name.as_str()).collect())
}

fn accounts(directory: &Directory, kind: Kind) -> Vec<Value> {
    let mut groups: HashMap<AccountId, Vec<&str>> = HashMap::new();
    for group in directory.groups() {
        for member in &group.members {
            groups.entry(*member).or_default().push(group.name.as_str());
        }
    }
    let wanted = directory.accounts().filter(|account| account.kind == kind);
    wanted.map(|account| account_json(account, groups.remove(&account.id).unwrap_or_default())).collect()
}

fn account_json(account: &Account, mut groups: Vec<&str>) -> Value {
    groups.sort_unstable();
    let credentials = account.credentials.iter().map(|own| {
        json!({
            "id": own.id.0,
            "type": match own.verifier {
                Verifier::Password(_) => "password",
                Verifier::Secret(_) => "secret",
            },
            "label": own.label,
            "created": timestamp(own.created_at),
            "expires": own.expires_at.map(timestamp),
        })
    });
    json!({
        "name": account.name.as_str(),
        "kind": account.kind.as_str(),
        "state": if account.disabled { "disabled" } else { "enabled" },
        "description": account.description,
        "created": timestamp(account.created_at),
        "groups": groups,
        "credentials": credentials.collect::<Vec<_>>(),
    })
}

fn group_json(directory: &Directory, group: &Group) -> Value {
    let members = group.members.iter().filter_map(|id| directory.subject_name(Subject::Account(*id)));
    json!({ "name": group.name.as_str(), "members": members.map(|name| name.to_string()).collect::<Vec<_>>() })
}

fn grant(directory: &Directory, rule: &Rule) -> Value {
    json!({
        "rule": rule.id.0,
        "subject": directory.subject_name(rule.subject).map(|name| name.to_string()),
        "repositories": rule.repositories.as_str(),
        "rights": rule.rights.to_string(),
        "created": timestamp(rule.created_at),
    })
}

fn key_json(directory: &Directory, key: &SigningKey) -> Value {
    let signs = directory.keys().last().is_some_and(|newest| newest.id == key.id);
    json!({ "id": key.id, "created": timestamp(key.created_at), "signs": signs })
}

#[cfg(test)]
mod tests;
