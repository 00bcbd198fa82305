//! An external token service: knows users, narrows asked scopes, signs JWTs with ES256.
//!
//! It stands in for the services operators already have in front of a registry, so it follows
//! the token part of the distribution documentation in both forms (GET with Basic, POST form) and
//! publishes its key as a certificate bundle and as a JWK set.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::acceptor::Acceptor;
use crate::image::sha256;

const LIFETIME: u64 = 300;
const MAX_REQUEST: u64 = 64 << 10;

/// Someone who may ask for tokens.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// The name; empty for callers without credentials.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
    /// Repository and actions: `("team/*", "pull,push")`; `*` at the end matches any rest.
    pub access: &'static [(&'static str, &'static str)],
}

/// How a token names the key that signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHint {
    /// By the certificate itself, checked against `rootcertbundle`.
    Certificate,
    /// By `kid`, looked up in `jwks`.
    KeyId,
}

/// A running token service; dropping it ends it.
#[derive(Debug)]
pub struct Issuer {
    shared: Arc<Shared>,
    acceptor: Acceptor,
    dir: TempDir,
}

#[derive(Debug)]
struct Shared {
    accounts: &'static [Account],
    hint: KeyHint,
    key: EcdsaKeyPair,
    certificate: String,
    key_id: String,
    posts: AtomicU64,
    serial: AtomicU64,
}

impl Issuer {
    /// The `service` value tokens are made for.
    pub const SERVICE: &str = "registry.test";
    /// The `issuer` value tokens carry.
    pub const NAME: &str = "issuer.test";

    /// Starts a service for `accounts`.
    pub fn start(accounts: &'static [Account], hint: KeyHint) -> Self {
        let dir = tempfile::Builder::new().prefix("issuer-").tempdir().expect("create a temp dir");
        let signing = rcgen::KeyPair::generate().expect("generate a P-256 key");
        let params = rcgen::CertificateParams::new(vec![Self::NAME.to_owned()]);
        let params = params.expect("the name is a DNS name");
        let certificate = params.self_signed(&signing).expect("sign the certificate");
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signing.serialize_der(), &SystemRandom::new());
        let key = key.expect("the generated key is P-256");
        // An uncompressed point: 0x04, x, y.
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638: the required members in order, without blanks.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = ring::digest::digest(&ring::digest::SHA256, thumbprint.as_bytes());
        let key_id = URL_SAFE_NO_PAD.encode(thumbprint);
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "kid": key_id, "alg": "ES256", "use": "sig",
        }]});
        fs::write(dir.path().join("bundle.pem"), certificate.pem()).expect("write the bundle");
        fs::write(dir.path().join("jwks.json"), jwks.to_string()).expect("write the key set");

        let shared = Arc::new(Shared {
            accounts,
            hint,
            key,
            certificate: STANDARD.encode(certificate.der()),
            key_id,
            posts: AtomicU64::new(0),
            serial: AtomicU64::new(0),
        });
        let worker = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |stream| worker.answer(stream));
        Self { shared, acceptor, dir }
    }

    /// The `realm`: where clients ask for tokens.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.acceptor.addr())
    }

    /// The certificate bundle, PEM.
    pub fn rootcertbundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    /// The public keys as a JWK set.
    pub fn jwks(&self) -> PathBuf {
        self.dir.path().join("jwks.json")
    }

    /// How many tokens were asked for with POST.
    pub fn posts(&self) -> u64 {
        self.shared.posts.load(Ordering::Relaxed)
    }

    /// Signs a token for `account` (a name from the table) without asking over HTTP. `life` is
    /// in seconds from now; a negative one gives an expired token.
    pub fn token(&self, account: &str, scope: &str, life: i64) -> String {
        let account = self.shared.accounts.iter().find(|known| known.name == account);
        let account = account.expect("the account is in the table");
        self.shared.sign(account.name, &grant(account, scope), life)
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = read_request(&mut stream)?;
        let (status, body) = self.decide(&request);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    }

    fn decide(&self, request: &Request) -> (&'static str, Value) {
        let refuse = |text: &str| {
            let error = json!({"code": "UNAUTHORIZED", "message": text});
            ("401 Unauthorized", json!({"errors": [error], "error": "invalid_grant"}))
        };
        let field = |name: &str| request.fields.get(name).map_or("", String::as_str);
        if request.method == "POST" {
            self.posts.fetch_add(1, Ordering::Relaxed);
        }
        if field("service") != Issuer::SERVICE {
            return refuse("unknown service");
        }
        let known = |name: &str| self.accounts.iter().find(|account| account.name == name);
        let account = match (request.method.as_str(), field("grant_type")) {
            ("POST", "refresh_token") => {
                self.accounts.iter().find(|account| refresh_token(account) == field("refresh_token"))
            }
            ("POST", _) => known(field("username")).filter(|account| account.password == field("password")),
            _ => match &request.basic {
                Some((name, password)) => known(name).filter(|account| account.password == password),
                None => known(""),
            },
        };
        let Some(account) = account else {
            return refuse("incorrect username or password");
        };
        let token = self.sign(account.name, &grant(account, field("scope")), LIFETIME as i64);
        let mut body = json!({"token": token, "access_token": token, "expires_in": LIFETIME});
        let refreshable = field("offline_token") == "true"
            || field("access_type") == "offline"
            || field("grant_type") == "refresh_token";
        if refreshable && !account.name.is_empty() {
            body["refresh_token"] = json!(refresh_token(account));
        }
        ("200 OK", body)
    }

    fn sign(&self, subject: &str, access: &[Value], life: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let now = i64::try_from(now.as_secs()).expect("before the end of time");
        let mut header = json!({"typ": "JWT", "alg": "ES256"});
        match self.hint {
            KeyHint::Certificate => header["x5c"] = json!([self.certificate]),
            KeyHint::KeyId => header["kid"] = json!(self.key_id),
        }
        // An expired token was valid once, so it starts before it ends.
        let from = now.min(now + life) - 10;
        let claims = json!({
            "iss": Issuer::NAME, "aud": Issuer::SERVICE, "sub": subject,
            "iat": from, "nbf": from, "exp": now + life,
            "jti": self.serial.fetch_add(1, Ordering::Relaxed).to_string(),
            "access": access,
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("sign");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn refresh_token(account: &Account) -> String {
    sha256(format!("refresh {} {}", account.name, account.password).as_bytes()).replace(':', "-")
}

/// Narrows `scope` (`repository:<name>:<action>,…`, several parted by blanks) to what `account`
/// may do; entries without any allowed action are left out.
fn grant(account: &Account, scope: &str) -> Vec<Value> {
    let mut access = Vec::new();
    for entry in scope.split_whitespace() {
        let Some((kind, rest)) = entry.split_once(':') else {
            continue;
        };
        let Some((name, asked)) = rest.rsplit_once(':') else {
            continue;
        };
        let allowed = account.access.iter().filter(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        });
        let allowed: Vec<_> = allowed.flat_map(|(_, actions)| actions.split(',')).collect();
        let actions: Vec<_> = asked.split(',').filter(|action| allowed.contains(action)).collect();
        if !actions.is_empty() {
            access.push(json!({"type": kind, "name": name, "actions": actions}));
        }
    }
    access
}

struct Request {
    method: String,
    basic: Option<(String, String)>,
    fields: HashMap<String, String>,
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut stream = stream.take(MAX_REQUEST);
    let mut raw = Vec::new();
    let head_end = loop {
        if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        read_some(&mut stream, &mut raw)?;
    };
    let head = String::from_utf8_lossy(&raw[..head_end]).into_owned();
    let mut words = head.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let query = words.next().and_then(|target| target.split_once('?')).map_or("", |pair| pair.1);
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|pair| pair.1.trim())
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while raw.len() < head_end + length {
        read_some(&mut stream, &mut raw)?;
    }
    let form = String::from_utf8_lossy(&raw[head_end..]).into_owned();
    let basic = header("authorization").and_then(|value| value.strip_prefix("Basic "));
    let basic = basic.and_then(|value| STANDARD.decode(value).ok());
    let basic = basic.and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        text.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
    });
    let mut fields = HashMap::<String, String>::new();
    for pair in query.split('&').chain(form.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = fields.entry(unescape(name)).or_default();
        // `scope` may come more than once; blanks part its values.
        *field = format!("{field} {}", unescape(value)).trim().to_owned();
    }
    Ok(Request { method, basic, fields })
}

fn read_some(stream: &mut impl Read, raw: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        count => {
            raw.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (hex(rest.next()), hex(rest.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => b'?',
            },
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Account, grant, unescape};

    #[test]
    fn asked_scopes_are_narrowed_to_what_the_account_may_do() {
        let account =
            Account { name: "dev", password: "", access: &[("team/*", "pull,push"), ("public/base", "pull")] };
        let check = |scope: &str, expected: &[&str]| {
            let got: Vec<_> = grant(&account, scope)
                .iter()
                .map(|entry| format!("{}:{}", entry["name"], entry["actions"]).replace('"', ""))
                .collect();
            assert_eq!(got, expected, "{scope}");
        };
        check("repository:team/api:pull,push,delete", &["team/api:[pull,push]"]);
        check("repository:public/base:pull,push", &["public/base:[pull]"]);
        check("repository:public/base2:pull", &[]);
        check("repository:team/a:pull repository:other:pull", &["team/a:[pull]"]);
        check("", &[]);
        check("nonsense", &[]);
    }

    #[test]
    fn form_values_are_unescaped() {
        assert_eq!(unescape("repository%3Ateam%2Fapi%3apull+push"), "repository:team/api:pull push");
    }
}
