//! Owns the command line: what can be asked, and the help that says so.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{
    accounts::commands::{Grant, Group, Key, Robot, User, With},
    backup::{Backup, Restore},
    check::Check,
    gc::Gc,
    init::Init,
    keeping::command::{History, Quota, Retention, Undelete},
};

/// A private container registry.
#[derive(Debug, Parser)]
#[command(
    name = "registry",
    version = concat!("roadstead ", env!("CARGO_PKG_VERSION")),
    about = "A private container registry: a drop-in for the registry image that keeps what it acknowledged.",
    after_help = "Examples:\n  registry init\n  registry serve /etc/distribution/config.yml\n  registry grant add user:alice 'team/*' push\n  \
                  REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/srv/registry registry serve config.yml\n\n\
                  CONFIG may be left out where REGISTRY_CONFIGURATION_PATH names it.",
    arg_required_else_help = true,
    subcommand_required = true,
    disable_version_flag = true
)]
pub(crate) struct Cli {
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a registry with access control and TLS, ready to serve
    #[command(
        after_help = "Asks nothing, and prints once what must be kept. Where a registry is already, nothing is changed.\n\n\
                      Examples:\n  registry init\n  registry init /srv/registry --name registry.example.com --anonymous-pull\n  \
                      registry init /srv/registry --password-file /root/registry-password --format json"
    )]
    Init(Init),
    /// Serve the registry until SIGTERM; SIGHUP re-reads the log level and the read-only switch
    #[command(after_help = "Example:\n  registry serve /etc/distribution/config.yml")]
    Serve(ConfigPath),
    /// Look at the collection of what nothing needs, and tell it to run or to rest
    #[command(subcommand)]
    Gc(Gc),
    /// Look at the verifying of what is stored, and have it done now
    #[command(subcommand)]
    Scrub(crate::scrub::Command),
    /// Remove what nothing refers to, beside a server or without one
    #[command(
        name = "garbage-collect",
        after_help = "A server that runs is asked to do it, and keeps what a client was promised within the last hour. Without a \
                      server nothing is kept back.\n\nExamples:\n  registry garbage-collect --dry-run config.yml\n  registry garbage-collect -m config.yml"
    )]
    GarbageCollect(GarbageCollect),
    /// Say whether a data directory is sound: rows, files, and that they agree
    #[command(
        after_help = "Only reads. The server must be stopped; beside it there is `registry scrub`. Exits with 0 if all is sound, \
                      with 1 if something is wrong, with 2 if it could not look. Files that only take space are no damage.\n\n\
                      Examples:\n  registry check config.yml\n  registry check --read --data /srv/registry\n  \
                      registry check --data /backups/registry --format json"
    )]
    Check(Check),
    /// Copy all data to another directory, while the server runs
    #[command(
        after_help = "The copy is a data directory itself, as the registry was at one moment: `registry check` works on it, and a \
                      server can serve it. A second time only what is new is copied. Exits with 1 if a blob could not be had.\n\n\
                      Examples:\n  registry backup /backups/registry config.yml\n  \
                      registry backup /backups/registry --data /srv/registry --keep"
    )]
    Backup(Backup),
    /// Make a data directory of a backup
    #[command(after_help = "All blobs are verified while they are copied. Exits with 1 if one could not be had.\n\n\
                      Examples:\n  registry restore /backups/registry /srv/registry\n  \
                      registry restore /backups/registry /srv/registry --replace-metadata")]
    Restore(Restore),
    /// Bring back a tag or a manifest that was deleted, within the grace period
    #[command(
        after_help = "A tag comes back to what it named last; a manifest comes back with the tags that went with it. What was \
                      deleted can be brought back for roadstead.gc.grace, a day where nothing is set.\n\n\
                      Examples:\n  registry undelete team/api:1.4 config.yml\n  registry undelete team/api@sha256:2cf2… --data /var/lib/registry"
    )]
    Undelete(Undelete),
    /// Show what became of the tags of a repository
    #[command(after_help = "`gone` under MANIFEST says that it cannot be brought back any more.\n\n\
                      Examples:\n  registry history team/api config.yml\n  registry history team/api:latest --limit 5 config.yml")]
    History(History),
    /// Show which tags the retention rules let go, or let them go now
    #[command(after_help = "A server does this by itself every roadstead.retention.interval.\n\n\
                      Examples:\n  registry retention config.yml\n  registry retention --run config.yml\n  \
                      registry retention --format json config.yml | jq -r '.listed[] | .repository + \":\" + .tag'")]
    Retention(Retention),
    /// Show how full the quotas are
    #[command(after_help = "Example:\n  registry quota config.yml")]
    Quota(Quota),
    /// Take over the data directory of a distribution registry, in place and while it serves
    #[command(after_help = ADOPT_HELP)]
    Adopt(Adopt),
    /// Write link files, so that a distribution registry can serve the data directory
    #[command(
        after_help = "The server must be stopped. Accounts, history and settings stay in the directory's `roadstead`; \
                      `registry adopt` takes the directory back.\n\n\
                      Examples:\n  registry release /var/lib/registry\n  registry release --config config.yml --format json"
    )]
    Release(Adopt),
    /// Say of every key of a configuration whether it is honoured
    #[command(
        name = "verify-config",
        after_help = "Exits with 1 if the server would not start with it.\n\nExample:\n  registry verify-config config.yml --format json"
    )]
    VerifyConfig(VerifyConfig),
    /// Print the configuration that the image starts with, to begin one from
    #[command(name = "default-config", after_help = "Example:\n  registry default-config > config.yml")]
    DefaultConfig,
    /// Look at events that could not be delivered, and send them again
    #[command(subcommand)]
    Notifications(Notifications),
    /// Have Docker and podman trust a registry that has its own certificate authority
    #[command(after_help = TRUST_HELP)]
    Trust(Trust),
    /// Manage users: people, who log in with a password or a token
    #[command(
        after_help = "Examples:\n  registry user add alice\n  registry user list --server https://localhost:5000\n  \
                      registry user token alice --label laptop"
    )]
    User(With<User>),
    /// Manage robots: programs, which log in with a secret
    #[command(
        after_help = "Examples:\n  registry robot create ci --allow 'team/*:push' > secret\n  registry robot list"
    )]
    Robot(With<Robot>),
    /// Manage groups, whose members get rights together
    #[command(after_help = "Examples:\n  registry group add dev\n  registry group join dev user:alice")]
    Group(With<Group>),
    /// Manage rules: who may do what where
    #[command(
        after_help = "Examples:\n  registry grant add user:alice 'team/*' push\n  registry grant add anonymous 'public/**' pull\n  \
                      registry grant explain user:alice team/api push"
    )]
    Grant(With<Grant>),
    /// Manage the keys that tokens are signed with
    #[command(after_help = "Examples:\n  registry key list\n  registry key rotate")]
    Key(With<Key>),
    /// Print the manual page
    #[command(after_help = "Example:\n  registry man > /usr/local/share/man/man1/registry.1")]
    Man,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  registry completion bash > /etc/bash_completion.d/registry")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigPath {
    /// The configuration file
    #[arg(value_name = "CONFIG", env = "REGISTRY_CONFIGURATION_PATH", hide_env_values = true)]
    pub(crate) config: Option<String>,
}

/// How to collect.
#[derive(Debug, Args)]
pub(crate) struct GarbageCollect {
    /// Only say what would go
    #[arg(short, long)]
    pub(crate) dry_run: bool,
    /// Also remove manifests that no tag reaches
    #[arg(short = 'm', long)]
    pub(crate) delete_untagged: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) path: ConfigPath,
}

/// Shown after the options of `adopt`.
const ADOPT_HELP: &str = "\
No blob is copied or read; only manifests are. The other registry may go on serving meanwhile: run this again for what \
came since, then stop it, and start `registry serve`. What is broken, such as an empty link file, is listed and left out.

Examples:
  registry adopt /var/lib/registry
  registry adopt --config /etc/distribution/config.yml
  registry adopt /var/lib/registry --format json | jq .skipped";

/// Which data directory is taken over or given back.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The data directory (`rootdirectory`), or a configuration that names it
    #[arg(value_name = "DIR|CONFIG", conflicts_with = "config")]
    pub(crate) place: Option<PathBuf>,
    /// The configuration that names the directory [env: REGISTRY_CONFIGURATION_PATH]
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: Option<String>,
    /// The data directory, as other commands take it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["place", "config"])]
    pub(crate) data: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// How to show the verdict.
#[derive(Debug, Args)]
pub(crate) struct VerifyConfig {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) path: ConfigPath,
}

/// What to do with undelivered events.
#[derive(Debug, Subcommand)]
pub(crate) enum Notifications {
    /// List the dead letters: events that were given up
    #[command(after_help = "Example:\n  registry notifications list config.yml")]
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        path: ConfigPath,
    },
    /// Put dead letters back into the queue; a running server sends them within seconds
    #[command(
        after_help = "Examples:\n  registry notifications replay --all config.yml\n  registry notifications replay --id 7 --id 9 config.yml"
    )]
    Replay {
        /// Replay these, by the numbers that `list` shows
        #[arg(long, value_name = "NUMBER", required_unless_present = "all", conflicts_with = "all")]
        id: Vec<i64>,
        /// Replay all
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        path: ConfigPath,
    },
}

/// Shown after the options of `trust`.
const TRUST_HELP: &str = "\
Without --install, the authority's certificate is printed, and its fingerprint to compare. Docker, podman, skopeo and \
buildah read what --install writes at their next connection: no restart, and no insecure-registries.

Exits with 1 if the server cannot be reached, if its certificate is not one that clients would accept, or if nobody \
vouches for its authority.

Examples:
  registry trust registry.example.com:5000
  registry trust registry.example.com:5000 --install --fingerprint sha256:2cf2…
  registry trust registry.example.com:5000 --install --ca ca.pem --offline
  registry trust localhost:5000 --install --config config.yml
  registry trust registry.example.com:5000 --remove";

/// Whom to trust, and on whose word.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// The registry as image names begin; without a port it is 443
    #[arg(value_name = "HOST:PORT")]
    pub(crate) registry: String,
    /// Write the certificate to where Docker and podman look for it
    #[arg(long, conflicts_with = "remove")]
    pub(crate) install: bool,
    /// Take the certificate away from there
    #[arg(long)]
    pub(crate) remove: bool,
    /// Trust the authority with this SHA-256 fingerprint
    #[arg(long, value_name = "SHA256", conflicts_with = "remove")]
    pub(crate) fingerprint: Option<String>,
    /// Trust the authority in this PEM file; the server has to have a certificate of it
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub(crate) ca: Option<PathBuf>,
    /// Do not connect to the registry
    #[arg(long, requires = "ca", conflicts_with = "remove")]
    pub(crate) offline: bool,
    /// Trust the authority that this configuration names, on the server itself [env:
    /// REGISTRY_CONFIGURATION_PATH]
    #[arg(long, value_name = "CONFIG", conflicts_with = "remove")]
    pub(crate) config: Option<String>,
    /// Install it even if another certificate is there
    #[arg(long, requires = "install")]
    pub(crate) replace: bool,
    /// Where the clients look
    #[arg(long, value_name = "DIR", default_value = "/etc/docker/certs.d")]
    pub(crate) directory: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// What the image's entry point makes of its arguments, as the `registry` image's script does:
/// a configuration is served, a command of ours is run, anything else is another program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Run ourselves with these arguments.
    Registry(Vec<String>),
    /// Run another program.
    Exec(Vec<String>),
}

/// Decides what the entry point does with its arguments, the program's name left out.
pub(crate) fn entry(args: Vec<String>) -> Entry {
    match args.first().map(String::as_str) {
        Some(first) if first.ends_with(".yml") || first.ends_with(".yaml") => {
            Entry::Registry(std::iter::once("serve".to_owned()).chain(args).collect())
        }
        Some(first) if first.starts_with('-') || first == "help" || Cli::command().find_subcommand(first).is_some() => {
            Entry::Registry(args)
        }
        Some("registry") => Entry::Registry(args.into_iter().skip(1).collect()),
        Some(_) => Entry::Exec(args),
        None => Entry::Registry(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, Entry, entry};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn entry_point() {
        let check = |args: &str, want: &str| {
            let seen = match entry(args.split_whitespace().map(str::to_owned).collect()) {
                Entry::Registry(args) => format!("registry {}", args.join(" ")),
                Entry::Exec(args) => format!("exec {}", args.join(" ")),
            };
            assert_eq!(seen.trim_end(), want, "{args}");
        };
        check("/etc/distribution/config.yml", "registry serve /etc/distribution/config.yml");
        check("x.yaml --y", "registry serve x.yaml --y");
        check("serve x.yml", "registry serve x.yml");
        check("garbage-collect -m x.yml", "registry garbage-collect -m x.yml");
        check("trust x:5000", "registry trust x:5000");
        check("scrub status x.yml", "registry scrub status x.yml");
        check("check --data /srv", "registry check --data /srv");
        check("backup /b --data /srv", "registry backup /b --data /srv");
        check("restore /b /srv", "registry restore /b /srv");
        check("--version", "registry --version");
        check("help grant", "registry help grant");
        for command in
            ["init", "user list", "robot list", "group list", "grant list", "key list", "trust x:5000", "man"]
        {
            check(command, &format!("registry {command}"));
        }
        check("sh -c true", "exec sh -c true");
        check("", "registry");
    }
}
