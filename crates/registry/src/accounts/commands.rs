//! Owns the words of the account commands, and the order that each of them means.
//!
//! Values are read strictly here, so that a slip of the pen is a usage error and no order. Does not
//! own where an order goes, nor how its answer is shown.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use registry_core::{
    account::PrincipalName,
    directory::SubjectName,
    name::RepoName,
    policy::{RepoGlob, Right, Rights},
};

use super::{
    password::NewPassword,
    value::{lifetime, member, overlap, scope, subject},
};
use crate::{
    admin::order::{Allowed, Order},
    cli::Format,
};

/// A command with where it goes.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct With<C: Subcommand> {
    #[command(flatten)]
    pub(crate) to: To,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// Where an order goes, and how its answer is shown.
#[derive(Debug, Args)]
pub(crate) struct To {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) format: Format,
    /// The configuration of the registry on this machine, running or not
    #[arg(
        long,
        value_name = "CONFIG",
        global = true,
        env = "REGISTRY_CONFIGURATION_PATH",
        hide_env_values = true,
        help_heading = "Which registry"
    )]
    pub(crate) config: Option<String>,
    /// A running registry on any machine, as https://HOST:PORT
    #[arg(long, value_name = "URL", global = true, help_heading = "Which registry")]
    pub(crate) server: Option<String>,
    /// Who gives the order to the server [default: admin]
    #[arg(long, value_name = "NAME", global = true, help_heading = "Which registry")]
    pub(crate) login: Option<String>,
    /// Read that user's password from a file in place of the terminal
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "REGISTRY_ADMIN_PASSWORD_FILE",
        hide_env_values = true,
        help_heading = "Which registry"
    )]
    pub(crate) login_password_file: Option<PathBuf>,
    /// Also trust the authorities in this PEM file; those that Docker trusts for it are trusted
    #[arg(long, value_name = "FILE", global = true, help_heading = "Which registry")]
    pub(crate) ca: Option<PathBuf>,
    /// Send the password to a server that does not encrypt
    #[arg(long, global = true, help_heading = "Which registry")]
    pub(crate) insecure_http: bool,
}

/// What becomes an order.
pub(crate) trait Orders {
    /// What would be lost for good; a person is asked about it.
    fn loses(&self) -> Option<String> {
        None
    }

    /// The order. Reads passwords from where they come from.
    fn order(self) -> Result<Order>;
}

/// Users.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make a user, who begins without rights
    #[command(after_help = "Examples:\n  registry user add alice\n  registry user add alice --generate > password\n  \
                      registry user add alice --password-file - < password")]
    Add {
        /// What to log in as
        name: PrincipalName,
        /// Who it is
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a user another password; tokens stay
    #[command(after_help = "Examples:\n  registry user passwd alice\n  registry user passwd alice --generate")]
    Passwd {
        /// Whose
        name: PrincipalName,
        #[command(flatten)]
        password: NewPassword,
    },
    /// List the users
    #[command(after_help = "Example:\n  registry user list --format json")]
    List,
    /// Refuse a user from the next request on; everything is kept
    #[command(after_help = "Example:\n  registry user disable alice")]
    Disable {
        /// Whom
        name: PrincipalName,
    },
    /// Take a disabled user again
    #[command(after_help = "Example:\n  registry user enable alice")]
    Enable {
        /// Whom
        name: PrincipalName,
    },
    /// Remove a user with their tokens and rules
    #[command(after_help = "Example:\n  registry user remove alice --yes")]
    Remove {
        /// Whom
        name: PrincipalName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make a token that a user can paste in place of the password
    #[command(
        after_help = "Example:\n  registry user token alice --label laptop --expires 90d | docker login -u alice --password-stdin localhost:5000"
    )]
    Token {
        /// Whose
        name: PrincipalName,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        label: String,
        /// How long it is good, such as 12h or 90d [default: 90d]
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
    },
    /// End all tokens of a user; the password stays
    #[command(name = "revoke-tokens", after_help = "Example:\n  registry user revoke-tokens alice")]
    RevokeTokens {
        /// Whose
        name: PrincipalName,
    },
}

impl Orders for User {
    fn loses(&self) -> Option<String> {
        match self {
            Self::Remove { name, yes: false } => Some(format!("user `{name}` with all tokens and rules")),
            _ => None,
        }
    }

    fn order(self) -> Result<Order> {
        Ok(match self {
            Self::Add { name, description, password } => {
                Order::UserAdd { password: password.read(name.as_str())?, name: name.to_string(), description }
            }
            Self::Passwd { name, password } => {
                Order::UserPasswd { password: password.read(name.as_str())?, name: name.to_string() }
            }
            Self::List => Order::UserList {},
            Self::Disable { name } => Order::UserDisable { name: name.to_string() },
            Self::Enable { name } => Order::UserEnable { name: name.to_string() },
            Self::Remove { name, .. } => Order::UserRemove { name: name.to_string() },
            Self::Token { name, label, expires } => {
                Order::UserToken { name: name.to_string(), label, expires_in: expires }
            }
            Self::RevokeTokens { name } => Order::UserRevokeTokens { name: name.to_string() },
        })
    }
}

/// Robots.
#[derive(Debug, Subcommand)]
pub(crate) enum Robot {
    /// Make a robot with its rights; its secret is printed once
    #[command(
        after_help = "Examples:\n  registry robot create ci --allow 'team/*:push,delete' --expires 90d > secret\n  \
                      docker login -u ci --password-stdin localhost:5000 < secret"
    )]
    Create {
        /// What it logs in as
        name: PrincipalName,
        /// What it may do where, as GLOB:RIGHTS; can be given again
        #[arg(long, value_name = "GLOB:RIGHTS", value_parser = scope)]
        allow: Vec<(RepoGlob, Rights)>,
        /// How long its secret is good, such as 12h or 90d; for ever if left out
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
    },
    /// List the robots
    #[command(after_help = "Example:\n  registry robot list --format json")]
    List,
    /// Give a robot another secret, while the old one works a little longer
    #[command(after_help = "Example:\n  registry robot rotate ci --overlap 1h --expires 90d > secret")]
    Rotate {
        /// Which
        name: PrincipalName,
        /// How long the secrets that it has still work; 0s ends them at once
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = overlap)]
        overlap: u64,
        /// How long the new secret is good; for ever if left out
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
    },
    /// Remove a robot with its secrets and rules, at once
    #[command(after_help = "Example:\n  registry robot revoke ci --yes")]
    Revoke {
        /// Which
        name: PrincipalName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Orders for Robot {
    fn loses(&self) -> Option<String> {
        match self {
            Self::Revoke { name, yes: false } => Some(format!("robot `{name}` with its secrets and rules")),
            _ => None,
        }
    }

    fn order(self) -> Result<Order> {
        Ok(match self {
            Self::Create { name, allow, expires, description } => Order::RobotCreate {
                name: name.to_string(),
                description,
                expires_in: expires,
                allow: allow
                    .iter()
                    .map(|(glob, rights)| Allowed { repositories: glob.to_string(), rights: rights.to_string() })
                    .collect(),
            },
            Self::List => Order::RobotList {},
            Self::Rotate { name, overlap, expires } => {
                Order::RobotRotate { name: name.to_string(), overlap, expires_in: expires }
            }
            Self::Revoke { name, .. } => Order::RobotRevoke { name: name.to_string() },
        })
    }
}

/// Groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Make a group without members
    #[command(after_help = "Example:\n  registry group add dev")]
    Add {
        /// Its name
        name: PrincipalName,
    },
    /// Remove a group with its rules; its members stay
    #[command(after_help = "Example:\n  registry group remove dev --yes")]
    Remove {
        /// Which
        name: PrincipalName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List the groups with their members
    #[command(after_help = "Example:\n  registry group list")]
    List,
    /// Let a user or robot into a group
    #[command(after_help = "Examples:\n  registry group join dev user:alice\n  registry group join dev robot:ci")]
    Join {
        /// The group
        group: PrincipalName,
        /// Whom, as user:NAME or robot:NAME
        #[arg(value_parser = member)]
        member: SubjectName,
    },
    /// Take a user or robot out of a group
    #[command(after_help = "Example:\n  registry group leave dev user:alice")]
    Leave {
        /// The group
        group: PrincipalName,
        /// Whom, as user:NAME or robot:NAME
        #[arg(value_parser = member)]
        member: SubjectName,
    },
}

impl Orders for Group {
    fn loses(&self) -> Option<String> {
        match self {
            Self::Remove { name, yes: false } => Some(format!("group `{name}` with its rules")),
            _ => None,
        }
    }

    fn order(self) -> Result<Order> {
        Ok(match self {
            Self::Add { name } => Order::GroupAdd { name: name.to_string() },
            Self::Remove { name, .. } => Order::GroupRemove { name: name.to_string() },
            Self::List => Order::GroupList {},
            Self::Join { group, member } => Order::GroupJoin { name: group.to_string(), member: member.to_string() },
            Self::Leave { group, member } => Order::GroupLeave { name: group.to_string(), member: member.to_string() },
        })
    }
}

/// Rules.
#[derive(Debug, Subcommand)]
pub(crate) enum Grant {
    /// Allow somebody something on some repositories; what no rule allows is refused
    #[command(
        after_help = "SUBJECT is user:NAME, robot:NAME, group:NAME, users (all of them) or anonymous (everybody).\n\
                      In GLOB, * stands for a part of a name between slashes, ** at the end for all below.\n\
                      RIGHTS are pull, push (includes pull), delete and admin (includes all), joined by commas.\n\n\
                      Examples:\n  registry grant add user:alice 'team/*' push,delete\n  \
                      registry grant add anonymous 'public/**' pull\n  registry grant add group:ops '**' admin"
    )]
    Add {
        /// Whom
        #[arg(value_parser = subject)]
        subject: SubjectName,
        /// On which repositories
        #[arg(value_name = "GLOB")]
        repositories: RepoGlob,
        /// What
        rights: Rights,
    },
    /// List the rules
    #[command(after_help = "Examples:\n  registry grant list\n  registry grant list --repository team/api")]
    List {
        /// Only those for a subject
        #[arg(long, value_parser = subject)]
        subject: Option<SubjectName>,
        /// Only those that hold on a repository
        #[arg(long)]
        repository: Option<RepoName>,
    },
    /// Remove a rule
    #[command(after_help = "Example:\n  registry grant remove 12")]
    Remove {
        /// Its number, as `grant list` shows it
        rule: u64,
    },
    /// Say whether somebody may do something, and which rule decides
    #[command(
        after_help = "Exits with 0 if it is allowed, with 1 if not.\n\nExamples:\n  registry grant explain user:alice team/api push\n  \
                      registry grant explain anonymous public/base pull"
    )]
    Explain {
        /// Who, as user:NAME, robot:NAME or anonymous
        #[arg(value_parser = subject)]
        subject: SubjectName,
        /// Where
        repository: RepoName,
        /// What: pull, push, delete or admin
        right: Right,
    },
}

impl Orders for Grant {
    fn order(self) -> Result<Order> {
        Ok(match self {
            Self::Add { subject, repositories, rights } => Order::GrantAdd {
                subject: subject.to_string(),
                repositories: repositories.to_string(),
                rights: rights.to_string(),
            },
            Self::List { subject, repository } => Order::GrantList {
                subject: subject.map(|subject| subject.to_string()),
                repository: repository.map(|repository| repository.to_string()),
            },
            Self::Remove { rule } => Order::GrantRemove { rule },
            Self::Explain { subject, repository, right } => Order::GrantExplain {
                subject: subject.to_string(),
                repository: repository.to_string(),
                right: right.to_string(),
            },
        })
    }
}

/// Signing keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List the keys that tokens are signed with
    #[command(after_help = "Example:\n  registry key list")]
    List,
    /// Sign with a new key from now on; tokens that are out stay good until they end
    #[command(after_help = "Example:\n  registry key rotate")]
    Rotate,
}

impl Orders for Key {
    fn order(self) -> Result<Order> {
        Ok(match self {
            Self::List => Order::KeyList {},
            Self::Rotate => Order::KeyRotate {},
        })
    }
}
