//! The `trust` command: has Docker, podman and their kin trust a registry that has its own certificate authority.
//!
//! They all read `/etc/docker/certs.d/HOST:PORT/ca.crt`, at each connection. What a server sends is shown, but never
//! trusted for its own sake: somebody has to vouch for the authority before it is installed.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use serde_json::json;
use service::{
    authority,
    replace::replace,
    tls::certificate::{Facts, facts, fingerprint, moment, pem},
};

use crate::{
    cli::{self, ConfigPath, Format},
    load,
};
use address::Address;
use chain::Verdict;

mod address;
mod chain;
mod fetch;

/// Longest time for connecting to the server and hearing of its certificates.
const LIMIT: Duration = Duration::from_secs(10);

type Certificate = CertificateDer<'static>;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Shown,
    Public,
    Installed,
    Replaced,
    Unchanged,
    Removed,
    Absent,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Public => "public",
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Absent => "absent",
        }
    }
}

/// Where the certificate for a registry goes.
struct Place {
    file: PathBuf,
    folder: PathBuf,
}

/// Shows, installs or removes the authority of a registry.
pub(crate) fn trust(options: &cli::Trust) -> anyhow::Result<ExitCode> {
    let registry: Address = options.registry.parse()?;
    let folder = options.directory.join(&registry.text);
    let place = Place { file: folder.join("ca.crt"), folder };
    if options.remove {
        let outcome = place.remove()?;
        report(options, &registry, &place, outcome, &[], None);
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = options.fingerprint.as_deref().map(normal).transpose()?;
    let given = options.ca.as_deref().map(read_authorities).transpose()?.unwrap_or_default();
    let (authorities, server) = if options.offline {
        (given, None)
    } else {
        let sent = fetch::chain(&registry, LIMIT)?;
        match chain::judge(&sent, &registry, &given, UnixTime::now())? {
            Verdict::Public => {
                report(options, &registry, &place, Outcome::Public, &[], None);
                return Ok(ExitCode::SUCCESS);
            }
            Verdict::Private { authorities, server } => (authorities, Some(server)),
        }
    };
    if let Some(wanted) = &wanted
        && !authorities.iter().any(|der| fingerprint(der) == *wanted)
    {
        let seen: Vec<String> = authorities.iter().map(|der| fingerprint(der)).collect();
        bail!(
            "the authority of {} has the fingerprint {}, not {wanted}: somebody may sit between, or the fingerprint is \
             of another server; nothing was changed",
            registry.text,
            seen.join(", ")
        );
    }
    let outcome = if options.install {
        install(options, &registry, &place, &authorities, wanted.is_some())?
    } else {
        Outcome::Shown
    };
    report(options, &registry, &place, outcome, &authorities, server.as_ref());
    Ok(ExitCode::SUCCESS)
}

fn install(
    options: &cli::Trust,
    registry: &Address,
    place: &Place,
    authorities: &[Certificate],
    is_confirmed: bool,
) -> anyhow::Result<Outcome> {
    let outcome = match place.read()? {
        None => Outcome::Installed,
        Some(there) if same(&there, authorities) => return Ok(Outcome::Unchanged),
        Some(_) if options.replace => Outcome::Replaced,
        Some(there) => {
            let held: Vec<String> = there.iter().map(|der| fingerprint(der)).collect();
            let held = if held.is_empty() { "no certificate".into() } else { held.join(", ") };
            bail!(
                "{} is there already and holds something else ({held}): nothing was changed; `--replace` puts the new \
                 one in its place",
                place.file.display()
            );
        }
    };
    let vouched = is_confirmed
        || options.ca.is_some()
        || own_authority(options.config.as_deref())?.is_some_and(|own| same(&[own], authorities))
        || match answer_by_hand(registry, authorities)? {
            Some(false) => bail!("not confirmed: nothing was changed"),
            answer => answer == Some(true),
        };
    if !vouched {
        let seen = authorities.first().map(|der| fingerprint(der)).unwrap_or_default();
        bail!(
            "nobody vouches for the authority of {}, so it is not installed; compare its fingerprint with what the \
             server's operator says (`registry init` prints it) and give `--fingerprint {seen}`, or name the \
             authority's file with `--ca FILE`, or on the server itself its configuration with `--config CONFIG`",
            registry.text
        );
    }
    place.write(authorities)?;
    Ok(outcome)
}

/// The authority of the server with this configuration, or with that of the environment if it can be read.
fn own_authority(config: Option<&str>) -> anyhow::Result<Option<Certificate>> {
    let path = config.map(str::to_owned).or_else(|| std::env::var("REGISTRY_CONFIGURATION_PATH").ok());
    let Some(path) = path else { return Ok(None) };
    let own = || {
        let config = load(&ConfigPath { config: Some(path.clone()) })?.config;
        let config = config.with_context(|| format!("{path} has errors; `registry verify-config {path}` tells"))?;
        let authority = config.authority.with_context(|| format!("{path} has no section roadstead.authority"))?;
        let file = authority::certificate_in(Path::new(&authority.directory));
        read_authorities(&file)?.into_iter().next().context("read the authority")
    };
    match own() {
        Ok(own) => Ok(Some(own)),
        // Nobody named it: then it is only one way less.
        Err(_) if config.is_none() => Ok(None),
        Err(error) => Err(error.context("use the authority of --config")),
    }
}

/// Asks at a terminal; elsewhere nobody answers.
fn answer_by_hand(registry: &Address, authorities: &[Certificate]) -> anyhow::Result<Option<bool>> {
    let mut terminal = io::stderr();
    if !io::stdin().is_terminal() || !terminal.is_terminal() {
        return Ok(None);
    }
    for der in authorities {
        let subject = facts(der)?.subject;
        writeln!(terminal, "{} uses the authority {}\n  {}", registry.text, subject, fingerprint(der))?;
    }
    write!(terminal, "Is this the fingerprint that the server's operator gave you? Then it is trusted. [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}

/// Reads the certificates of a PEM file, all of authorities or at least one.
fn read_authorities(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let shown = path.display();
    let found: Vec<Certificate> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the authority `{shown}`"))?;
    for der in &found {
        facts(der).with_context(|| format!("read the authority `{shown}`"))?;
    }
    if found.is_empty() {
        bail!("read the authority `{shown}`: no PEM section `BEGIN CERTIFICATE` in it");
    }
    Ok(found)
}

/// Reads a fingerprint in any of the forms that tools print: with or without `sha256:`, colons, and in any case.
fn normal(text: &str) -> anyhow::Result<String> {
    let lower = text.trim().to_ascii_lowercase();
    let rest = ["sha256 fingerprint=", "sha256:", "sha256="].iter().find_map(|prefix| lower.strip_prefix(prefix));
    let hex: String = rest.unwrap_or(&lower).chars().filter(|c| *c != ':').collect();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("`{}` is no fingerprint; write it as sha256:<64 hex digits>", text.escape_debug());
    }
    Ok(format!("sha256:{hex}"))
}

fn same(one: &[Certificate], other: &[Certificate]) -> bool {
    one.len() == other.len() && one.iter().all(|der| other.contains(der))
}

impl Place {
    /// What is there; `None` if nothing is. A file that is no list of certificates holds none.
    fn read(&self) -> anyhow::Result<Option<Vec<Certificate>>> {
        match fs::read(&self.file) {
            Ok(bytes) => Ok(Some(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn write(&self, authorities: &[Certificate]) -> anyhow::Result<()> {
        let text: String = authorities.iter().map(|der| pem(der)).collect();
        self.make_folders()
            .and_then(|()| replace(&self.file, text.as_bytes(), 0o644))
            .map_err(|error| self.failed("write", error))
    }

    /// Makes the missing directories so that everybody can read them, whatever the umask.
    fn make_folders(&self) -> io::Result<()> {
        let missing: Vec<&Path> = self.folder.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
            match DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))?,
            }
        }
        Ok(())
    }

    fn remove(&self) -> anyhow::Result<Outcome> {
        match fs::remove_file(&self.file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Absent),
            Err(error) => return Err(self.failed("remove", error)),
        }
        // It stays if it holds anything else, such as client certificates.
        fs::remove_dir(&self.folder).ok();
        Ok(Outcome::Removed)
    }

    fn failed(&self, operation: &str, error: io::Error) -> anyhow::Error {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" };
        anyhow::Error::new(error).context(format!("{operation} {}{hint}", self.file.display()))
    }
}

/// Says what is so now. The certificate goes to standard output, what people read to standard error.
fn report(
    options: &cli::Trust,
    registry: &Address,
    place: &Place,
    outcome: Outcome,
    authorities: &[Certificate],
    server: Option<&Facts>,
) {
    let (name, file) = (&registry.text, place.file.display());
    if options.format == Format::Json {
        let listed: Vec<_> = authorities
            .iter()
            .map(|der| {
                let facts = facts(der).ok();
                json!({
                    "subject": facts.as_ref().map(|facts| &facts.subject),
                    "expires": facts.as_ref().map(|facts| moment(facts.not_after)),
                    "fingerprint": fingerprint(der),
                    "pem": pem(der),
                })
            })
            .collect();
        let server = server.map(|facts| {
            let names: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
            json!({ "subject": facts.subject, "expires": moment(facts.not_after), "names": names })
        });
        let file = place.file.display().to_string();
        let whole = json!({
            "registry": name, "outcome": outcome.word(), "file": file, "authorities": listed, "server": server,
        });
        println!("{whole:#}");
        return;
    }
    if outcome == Outcome::Shown {
        authorities.iter().for_each(|der| print!("{}", pem(der)));
    }
    for (der, facts) in authorities.iter().filter_map(|der| Some((der, facts(der).ok()?))) {
        eprintln!("authority    {}", facts.subject);
        eprintln!("valid until  {}", moment(facts.not_after));
        eprintln!("fingerprint  {}", fingerprint(der));
    }
    let first = authorities.first().map(|der| fingerprint(der)).unwrap_or_default();
    match outcome {
        Outcome::Shown => eprintln!(
            "\nIf the server's operator confirms the fingerprint, then as root on every Docker host:\n  \
             registry trust {name} --install --fingerprint {first}"
        ),
        Outcome::Public => {
            eprintln!("{name} has a certificate of a public authority, which Docker trusts already: nothing to do");
        }
        Outcome::Installed | Outcome::Replaced => {
            eprintln!("\n{} as {file}; no restart is needed:\n  docker login {name}", outcome.word());
        }
        Outcome::Unchanged => eprintln!("\nalready there as {file}: nothing to do"),
        Outcome::Removed => eprintln!("removed {file}: {name} is no longer trusted"),
        Outcome::Absent => eprintln!("{file} is not there: nothing to do"),
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn fingerprints() {
        let hex = "0123456789abcdef".repeat(4);
        let pairs = hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
        let colons = pairs.collect::<Vec<_>>().join(":");
        let openssl = format!("sha256 Fingerprint={colons}");
        for form in [&hex, &format!("sha256:{hex}"), &colons, &format!("SHA256:{colons}"), &openssl] {
            assert_eq!(normal(form).expect("a fingerprint"), format!("sha256:{hex}"), "{form}");
        }
        for form in ["", "sha256:", "sha1:00", &hex[1..], &format!("{hex}0"), &hex.replace('0', "g")] {
            assert!(normal(form).expect_err("no fingerprint").to_string().contains("64 hex digits"), "{form}");
        }
    }
}
