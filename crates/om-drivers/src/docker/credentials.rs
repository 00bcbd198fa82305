//! Owns credentials for pulls: those of a service, which are a secret of its namespace, and those of the node, which are
//! root's own `docker login`, with credential helpers. They go to the engine from memory, in the header
//! `X-Registry-Auth`. Does not own pulls.
//!
//! The file is Docker's `config.json` (<https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties>).

use std::{collections::BTreeMap, io, path::Path, process::Stdio, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use crate::docker::image::HUB;

/// The largest `config.json`, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The longest wait for a credential helper.
const HELPER_LIMIT: Duration = Duration::from_secs(15);
/// The most that a helper may print, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// How `docker login` calls Docker's own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name with which a helper gives an identity token.
const TOKEN_USER: &str = "<token>";

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Larger than any is.
    #[error("it is larger than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    /// Not the file that `docker login` writes.
    #[error("it is not what `docker login` writes: line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An entry that does not read. What is in it is not told.
    #[error("its entry for {registry} does not have a user name and a password")]
    Entry {
        /// Of which registry.
        registry: String,
    },
    /// The file refers to a helper that only the machine of the login has.
    #[error(
        "it keeps no credentials: they are in the credential helper `{helper}` of the machine where it was written"
    )]
    Elsewhere {
        /// The helper.
        helper: String,
    },
    /// A helper did not do it.
    #[error("the credential helper docker-credential-{helper}: {problem}")]
    Helper {
        /// Its name.
        helper: String,
        /// What happened.
        problem: String,
    },
    /// The file does not read.
    #[error("read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What one registry is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
    identity: Option<String>,
    server: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} at {}, …)", self.user, self.server)
    }
}

impl Login {
    /// The value of the header `X-Registry-Auth`.
    pub fn header(&self) -> String {
        let value = match &self.identity {
            Some(token) => json!({ "identitytoken": token, "serveraddress": self.server }),
            None => json!({ "username": self.user, "password": self.password, "serveraddress": self.server }),
        };
        URL_SAFE.encode(value.to_string())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// A `config.json`.
pub struct Credentials(File);

impl Credentials {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// It is not what `docker login` writes; the error tells nothing of what is in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialsError> {
        if bytes.len() > MAX_FILE {
            return Err(CredentialsError::TooLarge);
        }
        let place = |error: serde_json::Error| CredentialsError::Syntax { line: error.line(), column: error.column() };
        serde_json::from_slice(bytes).map(Self).map_err(place)
    }

    /// What the file itself has for a registry; none: it has no entry.
    ///
    /// # Errors
    /// The entry does not read, or is in a helper, which for a service's credentials is never run: its name comes from
    /// whoever may write secrets, and programs of the node are not theirs to run.
    pub fn of(&self, registry: &str) -> Result<Option<Login>, CredentialsError> {
        let entry = self.0.auths.iter().find(|(key, _)| is_key_of(key, registry));
        if let Some((key, entry)) = entry
            && let Some(login) = entry.login(key, registry)?
        {
            return Ok(Some(login));
        }
        match (self.helper(registry), entry) {
            (Some(helper), Some(_)) => Err(CredentialsError::Elsewhere { helper: helper.to_owned() }),
            (Some(helper), None) if self.0.cred_helpers.values().any(|name| name == helper) => {
                Err(CredentialsError::Elsewhere { helper: helper.to_owned() })
            }
            (None, Some(_)) => Err(CredentialsError::Entry { registry: registry.to_owned() }),
            (_, None) => Ok(None),
        }
    }

    /// What the node has for a registry, in root's file or its helpers; none: it is not logged in there.
    ///
    /// # Errors
    /// The file or an entry does not read, or a helper fails.
    pub async fn of_node(path: &Path, registry: &str) -> Result<Option<Login>, CredentialsError> {
        let bytes = match fs::read(path).await {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(CredentialsError::Read { path: path.display().to_string(), source }),
        };
        let credentials = Self::parse(&bytes)?;
        if let Some(helper) = credentials.helper(registry) {
            return ask_helper(helper, registry).await;
        }
        credentials.of(registry)
    }

    /// The helper that has a registry's credentials, if any.
    fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.0.cred_helpers.iter().find(|(key, _)| is_key_of(key, registry)).map(|(_, name)| name.as_str());
        own.or(Some(self.0.creds_store.as_str())).filter(|name| !name.is_empty())
    }
}

impl Entry {
    fn login(&self, key: &str, registry: &str) -> Result<Option<Login>, CredentialsError> {
        let login = |user: &str, password: &str, identity: Option<String>| Login {
            user: user.to_owned(),
            password: password.to_owned(),
            identity,
            server: key.to_owned(),
        };
        if !self.identitytoken.is_empty() {
            return Ok(Some(login("", "", Some(self.identitytoken.clone()))));
        }
        if !self.auth.is_empty() {
            let wrong = || CredentialsError::Entry { registry: registry.to_owned() };
            let pair = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.ok_or_else(wrong)?;
            let (user, password) = pair.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(wrong)?;
            // Some versions of Docker end the password with a zero byte.
            return Ok(Some(login(user, password.trim_end_matches('\0'), None)));
        }
        let has_pair = !self.username.is_empty() && !self.password.is_empty();
        Ok(has_pair.then(|| login(&self.username, &self.password, None)))
    }
}

/// Whether a key of the file means this registry: with or without a scheme, a path or a slash.
fn is_key_of(key: &str, registry: &str) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = key.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let host = if host == "index.docker.io" || host == "registry-1.docker.io" { HUB.to_owned() } else { host };
    host == registry
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks a helper, as Docker does: the registry on its standard input, JSON on its standard output.
async fn ask_helper(helper: &str, registry: &str) -> Result<Option<Login>, CredentialsError> {
    let failed = |problem: String| CredentialsError::Helper { helper: helper.to_owned(), problem };
    if !helper.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        return Err(failed("this is no name of a helper".into()));
    }
    let key = if registry == HUB { HUB_KEY } else { registry };
    let work = async {
        let mut child = Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (mut input, output) = (child.stdin.take(), child.stdout.take());
        if let Some(input) = &mut input {
            match input.write_all(key.as_bytes()).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        drop(input);
        let mut text = Vec::new();
        if let Some(output) = output {
            output.take(MAX_OUTPUT).read_to_end(&mut text).await?;
        }
        Ok((child.wait().await?.success(), text))
    };
    let (success, text) = match timeout(HELPER_LIMIT, work).await {
        Err(_) => return Err(failed(format!("it did not answer for {} s", HELPER_LIMIT.as_secs()))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failed("it is not installed".into()));
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Ok(Ok(result)) => result,
    };
    if !success {
        // The words that the protocol has for it.
        let said = String::from_utf8_lossy(&text);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed("it failed".into()));
    }
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| failed("its answer does not read".into()))?;
    let is_token = answer.username == TOKEN_USER;
    Ok(Some(Login {
        identity: is_token.then(|| answer.secret.clone()),
        user: answer.username,
        password: answer.secret,
        server: key.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, registry: &str, expected: &str) {
        let got = Credentials::parse(file.as_bytes()).and_then(|credentials| credentials.of(registry));
        let got = match got {
            Ok(None) => "none".to_owned(),
            Ok(Some(Login { identity: Some(token), .. })) => format!("token {token}"),
            Ok(Some(login)) => format!("{}:{}", login.user, login.password),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{file}");
    }

    #[test]
    fn a_file_of_docker_login_is_read() {
        // `joe:pass:word` in base64.
        let joe = r#"{"auths":{"some.private.registry":{"auth":"am9lOnBhc3M6d29yZA=="}}}"#;
        check(joe, "some.private.registry", "joe:pass:word");
        check(joe, "other.registry", "none");
        check(joe, HUB, "none");
        check(r#"{"auths":{"https://reg:5000/v2/":{"username":"a","password":"b"}}}"#, "reg:5000", "a:b");
        check(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#, HUB, "a:b");
        check(r#"{"auths":{"reg":{"identitytoken":"t"}}}"#, "reg", "token t");
        check("{}", "reg", "none");
        check(r#"{"auths":{},"credsStore":"desktop"}"#, "reg", "none");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_its_content() {
        let entry = "its entry for reg does not have a user name and a password";
        check(r#"{"auths":{"reg":{"auth":"!!"}}}"#, "reg", entry);
        check(r#"{"auths":{"reg":{"auth":"am9l"}}}"#, "reg", entry);
        check(r#"{"auths":{"reg":{}}}"#, "reg", entry);
        check("secret", "reg", "it is not what `docker login` writes: line 1, column 1");
        check(r#"{"auths":"secret"}"#, "reg", "it is not what `docker login` writes: line 1, column 17");
        let elsewhere = |helper| {
            format!(
                "it keeps no credentials: they are in the credential helper `{helper}` of the machine where it was written"
            )
        };
        check(r#"{"auths":{"reg":{}},"credsStore":"desktop"}"#, "reg", &elsewhere("desktop"));
        check(r#"{"credHelpers":{"reg":"ecr"}}"#, "reg", &elsewhere("ecr"));
    }

    #[test]
    fn a_login_is_not_shown() {
        let credentials = Credentials::parse(br#"{"auths":{"reg":{"auth":"am9lOnBhc3M6d29yZA=="}}}"#).unwrap();
        let login = credentials.of("reg").unwrap().unwrap();
        assert_eq!(format!("{login:?}"), "Login(joe at reg, …)");
        let header = URL_SAFE.decode(login.header()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header, json!({ "username": "joe", "password": "pass:word", "serveraddress": "reg" }));
    }
}
