//! Owns what anybody may do: repository globs, rights, rules, and the decision.
//!
//! Rules only allow. What no rule allows is refused, so that taking any rule away never gives
//! anybody more, and adding one changes nothing outside its subject, its glob and its rights.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

use crate::{
    access::Action,
    account::{AccountId, GroupId, Kind, RuleId},
    directory::Directory,
    name::{MAX_NAME, RepoName},
};

/// A set of repositories: a name whose components may contain `*`, which stands for any number of
/// characters other than a slash, and whose last component may be `**`, which stands for one or
/// more components. `team/*` holds `team/api` and neither `team` nor `team/api/v2`, `team/**` holds
/// both of the latter but not `team`, `**` holds all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoGlob(String);

/// A text that is no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Longer than a repository name can be.
    #[error("a glob must not be more than {MAX_NAME} characters")]
    TooLong,
    /// An empty component: a slash at an end, or two in a row.
    #[error("`{0}` has an empty component; globs look like team/api, team/*, team/** or **")]
    Empty(String),
    /// A character that no repository name has.
    #[error(
        "`{0}` has a character that no repository name has; names are lower-case letters, digits, `.`, `_`, `-` and `/`"
    )]
    Character(String),
    /// `**` is not the whole last component.
    #[error("`{0}` has `**` where it cannot be: it stands for the whole last component, as in team/**")]
    DoubleStar(String),
}

const ANY_DEPTH: &str = "**";

impl RepoGlob {
    /// The glob that holds every repository.
    pub fn everything() -> Self {
        Self(ANY_DEPTH.to_owned())
    }

    /// The glob as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds `name`.
    pub fn holds(&self, name: &RepoName) -> bool {
        let mut components = name.as_str().split('/');
        for pattern in self.0.split('/') {
            match components.next() {
                None => return false,
                Some(_) if pattern == ANY_DEPTH => return true,
                Some(component) if matches(pattern.as_bytes(), component.as_bytes()) => {}
                Some(_) => return false,
            }
        }
        components.next().is_none()
    }

    /// Whether it holds every repository that `other` holds. May say no where the truth is yes, and
    /// never the other way round.
    pub fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.0.split('/');
        for ours in self.0.split('/') {
            match theirs.next() {
                None => return false,
                Some(_) if ours == ANY_DEPTH => return true,
                Some(ANY_DEPTH) => return false,
                // Their star as a character that only a star of ours can stand for.
                Some(component) if matches(ours.as_bytes(), component.as_bytes()) => {}
                Some(_) => return false,
            }
        }
        theirs.next().is_none()
    }
}

/// Whether `text` is `pattern` with something in place of each star. Linear in the product of the
/// lengths, which are those of names.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star was, and how much of the text it stood for so far.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if at < pattern.len() && pattern[at] == b'*' {
            star = Some((at, from));
            at += 1;
        } else if at < pattern.len() && pattern[at] == text[from] {
            at += 1;
            from += 1;
        } else if let Some((place, begin)) = star {
            star = Some((place, begin + 1));
            at = place + 1;
            from = begin + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

impl FromStr for RepoGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.len() > MAX_NAME {
            return Err(GlobError::TooLong);
        }
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-/*".contains(&c);
        if !text.bytes().all(known) {
            return Err(GlobError::Character(text.chars().flat_map(char::escape_debug).collect()));
        }
        let mut components = text.split('/').peekable();
        while let Some(component) = components.next() {
            if component.is_empty() {
                return Err(GlobError::Empty(text.to_owned()));
            }
            let is_last = components.peek().is_none();
            if component.contains(ANY_DEPTH) && !(is_last && component == ANY_DEPTH) {
                return Err(GlobError::DoubleStar(text.to_owned()));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RepoGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule can allow on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Read blobs, manifests, tags and referrers; see the name in the catalog.
    Pull,
    /// Upload. Includes pulling: Docker asks what is there before it sends anything.
    Push,
    /// Delete blobs, manifests and tags. Includes nothing else.
    Delete,
    /// Give and take rights on these repositories. Includes all others.
    Admin,
}

impl Right {
    /// Every right, in the order in which lists show them.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Delete, Self::Admin];

    /// `pull`, `push`, `delete` or `admin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// The right that an action of the protocol takes; all of them for `*`.
    pub const fn of(action: Action) -> Self {
        match action {
            Action::Pull => Self::Pull,
            Action::Push => Self::Push,
            Action::Delete => Self::Delete,
            Action::All => Self::Admin,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The rights of which each includes this one.
    const fn given_by(self) -> u8 {
        match self {
            Self::Pull => Self::Pull.bit() | Self::Push.bit() | Self::Admin.bit(),
            Self::Push => Self::Push.bit() | Self::Admin.bit(),
            Self::Delete => Self::Delete.bit() | Self::Admin.bit(),
            Self::Admin => Self::Admin.bit(),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no right: there are pull, push, delete and admin, joined by commas")]
pub struct RightError(String);

impl FromStr for Right {
    type Err = RightError;

    fn from_str(text: &str) -> Result<Self, RightError> {
        let shown = || text.chars().take(64).flat_map(char::escape_debug).collect();
        Self::ALL.into_iter().find(|right| right.as_str() == text).ok_or_else(|| RightError(shown()))
    }
}

/// A set of rights, as it was written down: what they include is found when it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Whether it gives `right`, by itself or because another one includes it.
    pub const fn give(self, right: Right) -> bool {
        self.0 & right.given_by() != 0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights that were written down.
    pub fn listed(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.0 & right.bit() != 0)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<T: IntoIterator<Item = Right>>(rights: T) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

impl FromStr for Rights {
    type Err = RightError;

    fn from_str(text: &str) -> Result<Self, RightError> {
        text.split(',').map(|right| right.trim().parse::<Right>()).collect()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.listed().map(Right::as_str).collect();
        f.write_str(&names.join(","))
    }
}

/// Whom a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One account.
    Account(AccountId),
    /// The members of a group.
    Group(GroupId),
    /// Every user, and no robot: robots have what they were given.
    Users,
    /// Everybody, logged in or not.
    Anonymous,
}

/// One sentence of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its id; rules are looked at in the order of their ids.
    pub id: RuleId,
    /// Whom it is for.
    pub subject: Subject,
    /// Where it holds.
    pub repositories: RepoGlob,
    /// What it allows.
    pub rights: Rights,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
}

/// The rules, ready to decide.
#[derive(Debug, Default)]
pub struct Policy {
    rules: HashMap<Subject, Vec<Rule>>,
    /// The subjects that stand for each enabled account, itself first.
    subjects: BTreeMap<AccountId, Vec<Subject>>,
}

/// What one rule says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It allows.
    Yes,
    /// It is about other repositories.
    OtherRepositories,
    /// It is about this repository, but does not give the right.
    OtherRights,
}

impl Policy {
    /// The policy of a directory. Disabled accounts have no rights, not even those of everybody.
    pub fn new(directory: &Directory) -> Self {
        let mut rules: HashMap<Subject, Vec<Rule>> = HashMap::new();
        for rule in directory.rules() {
            rules.entry(rule.subject).or_default().push(rule.clone());
        }
        let mut subjects: BTreeMap<AccountId, Vec<Subject>> = directory
            .accounts()
            .filter(|account| !account.disabled)
            .map(|account| {
                let users = (account.kind == Kind::User).then_some(Subject::Users);
                let own = [Subject::Account(account.id), Subject::Anonymous];
                (account.id, own.into_iter().chain(users).collect())
            })
            .collect();
        for group in directory.groups() {
            for member in &group.members {
                if let Some(subjects) = subjects.get_mut(member) {
                    subjects.push(Subject::Group(group.id));
                }
            }
        }
        Self { rules, subjects }
    }

    /// The rules for `who`; `None` is somebody who is not logged in.
    fn rules_for(&self, who: Option<AccountId>) -> impl Iterator<Item = &Rule> {
        let subjects: &[Subject] = match who {
            None => &[Subject::Anonymous],
            Some(account) => self.subjects.get(&account).map_or(&[], Vec::as_slice),
        };
        subjects.iter().filter_map(|subject| self.rules.get(subject)).flatten()
    }

    /// The rule with the lowest id that allows `who` to do it; `None` says that it is refused.
    pub fn decide(&self, who: Option<AccountId>, repository: &RepoName, right: Right) -> Option<RuleId> {
        self.rules_for(who)
            .filter(|rule| rule.rights.give(right) && rule.repositories.holds(repository))
            .map(|rule| rule.id)
            .min()
    }

    /// Whether `who` may do it.
    pub fn allows(&self, who: Option<AccountId>, repository: &RepoName, right: Right) -> bool {
        self.rules_for(who).any(|rule| rule.rights.give(right) && rule.repositories.holds(repository))
    }

    /// What each rule for `who` says, in the order of the ids. The first yes is what
    /// [`Policy::decide`] finds.
    pub fn explain(&self, who: Option<AccountId>, repository: &RepoName, right: Right) -> Vec<(&Rule, Says)> {
        let mut said: Vec<(&Rule, Says)> = self
            .rules_for(who)
            .map(|rule| {
                let says = match (rule.repositories.holds(repository), rule.rights.give(right)) {
                    (false, _) => Says::OtherRepositories,
                    (true, false) => Says::OtherRights,
                    (true, true) => Says::Yes,
                };
                (rule, says)
            })
            .collect();
        said.sort_by_key(|(rule, _)| rule.id);
        said
    }

    /// Whether `who` may give and take rights on everything that `glob` holds.
    pub fn may_administer(&self, who: Option<AccountId>, glob: &RepoGlob) -> bool {
        self.rules_for(who).any(|rule| rule.rights.give(Right::Admin) && rule.repositories.covers(glob))
    }

    /// Whether `who` may look at the list of repositories, which then holds those that they may
    /// pull from.
    pub fn may_list(&self, who: Option<AccountId>) -> bool {
        match who {
            Some(account) => self.subjects.contains_key(&account),
            None => self.rules_for(None).any(|rule| rule.rights.give(Right::Pull)),
        }
    }

    /// The accounts that may give rights on `repository`, lowest id first.
    pub fn administrators(&self, repository: &RepoName) -> impl Iterator<Item = AccountId> {
        self.subjects.keys().copied().filter(move |account| self.allows(Some(*account), repository, Right::Admin))
    }
}

#[cfg(test)]
mod tests;
