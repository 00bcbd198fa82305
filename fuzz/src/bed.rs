//! Owns the registries that tokens and credentials are tried on: fixed keys, accounts and rules, so
//! that inputs stay meaningful; and an independent look at who signed a token.

use std::{
    cell::RefCell,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use registry_auth::{
    Roadstead, Token,
    issuer::{Key, Keyring},
    roadstead::RoadsteadConfig,
    secret::Secret,
    token::TokenConfig,
};
use registry_core::{
    account::{AccountId, Kind, PrincipalName},
    directory::{Directory, Edit, SigningKey},
};
use ring::{
    digest, hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

/// The time at which everything happens.
pub(crate) const NOW: i64 = 1_800_000_000;
/// The `aud` of good tokens.
pub(crate) const SERVICE: &str = "reg";
/// The `iss` of good tokens.
pub(crate) const ISSUER: &str = "iss";
/// The secret of the robot `ci`.
pub(crate) const ROBOT_SECRET: &str = "rsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The seed of the one Ed25519 key. No secret: it signs for nobody but these checks.
const SEED: [u8; 32] = [7; 32];
/// The one secret that an external issuer signs with; as little a secret.
const HMAC_SECRET: [u8; 32] = [9; 32];
/// A self-signed certificate of the Ed25519 key, valid for a thousand years.
const CERTIFICATE: &str = include_str!("../fixtures/issuer.pem");

static PAIR: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed of 32 bytes"));

/// The key as a registry keeps it. Source: RFC 8410, 7.
fn signing_key() -> Key {
    let public = PAIR.public_key().as_ref();
    let pkcs8 = [
        b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(),
        &SEED,
        b"\x81\x21\x00",
        public,
    ]
    .concat();
    let id = thumbprint(public);
    Key { id, pkcs8, created_at: NOW - 100 }
}

/// The name of the Ed25519 key. Source: RFC 8037, 2.
fn thumbprint(public: &[u8]) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, B64.encode(public));
    B64.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

/// The keys of the registry's own tokens.
pub(crate) fn keyring() -> &'static Keyring {
    static KEYRING: LazyLock<Keyring> =
        LazyLock::new(|| Keyring::new(ISSUER.to_owned(), SERVICE.to_owned(), &[signing_key()]).expect("a good key"));
    &KEYRING
}

/// Signs `<header>.<claims>`: with the shared secret if the header speaks of HMAC, else with the key.
pub(crate) fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
    let by_secret = [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        .into_iter()
        .find(|(name, _)| header.contains(name));
    let signature = match by_secret {
        Some((_, kind)) => B64.encode(hmac::sign(&hmac::Key::new(kind, &HMAC_SECRET), message.as_bytes())),
        None => B64.encode(PAIR.sign(message.as_bytes())),
    };
    format!("{message}.{signature}")
}

/// Whether the key itself signed the token.
pub(crate) fn is_signed_by_key(token: &str) -> bool {
    let good = |(message, signature): (&str, &str)| {
        let signature = B64.decode(signature).ok()?;
        UnparsedPublicKey::new(&ED25519, PAIR.public_key()).verify(message.as_bytes(), &signature).ok()
    };
    token.rsplit_once('.').and_then(good).is_some()
}

/// Whether the shared secret signed the token.
pub(crate) fn is_signed_by_secret(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = B64.decode(signature) else { return false };
    [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512]
        .into_iter()
        .any(|kind| hmac::verify(&hmac::Key::new(kind, &HMAC_SECRET), message.as_bytes(), &signature).is_ok())
}

/// A registry that believes an external issuer: the key by its name and by its certificate, and the
/// shared secret as `shared`.
pub(crate) fn external() -> &'static Token {
    static EXTERNAL: LazyLock<Token> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a directory for a moment");
        let write = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a file for a moment");
            path
        };
        let x = B64.encode(PAIR.public_key());
        let k = B64.encode(HMAC_SECRET);
        let keys = serde_json::json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "key"},
            {"kty": "oct", "k": k, "kid": "shared"},
        ]});
        Token::open(TokenConfig {
            realm: "https://auth.test/token".into(),
            service: SERVICE.into(),
            issuer: ISSUER.into(),
            rootcertbundle: Some(write("issuer.pem", CERTIFICATE)),
            jwks: Some(write("keys.json", &keys.to_string())),
            autoredirect: true,
            ..TokenConfig::default()
        })
        .expect("good settings")
    });
    &EXTERNAL
}

fn name(text: &str) -> PrincipalName {
    text.parse().expect("a good name")
}

/// A new account.
pub(crate) fn add(account: &str, kind: Kind) -> Edit {
    Edit::AddAccount { name: name(account), kind, description: String::new() }
}

/// A secret of an account.
pub(crate) fn secret(kind: Kind, account: &str, secret: &str) -> Edit {
    let hash = Secret::parse(secret.as_bytes()).expect("a good secret").into();
    Edit::AddSecret { kind, name: name(account), hash, label: String::new(), expires_at: None }
}

/// A rule.
pub(crate) fn rule(subject: &str, glob: &str, rights: &str) -> Edit {
    let subject = subject.parse().expect("a subject");
    Edit::AddRule(subject, glob.parse().expect("a glob"), rights.parse().expect("rights"))
}

/// The user `root` who may do everything, the robot `ci` who may pull `team/**` and push
/// `team/api`, and `public/**` for everybody.
static DIRECTORY: LazyLock<Arc<Directory>> = LazyLock::new(|| {
    let Key { id, pkcs8, created_at } = signing_key();
    let edits = [
        Edit::AddKey(SigningKey { id, pkcs8, created_at }),
        add("root", Kind::User),
        add("ci", Kind::Robot),
        secret(Kind::Robot, "ci", ROBOT_SECRET),
        rule("user:root", "**", "admin"),
        rule("robot:ci", "team/**", "pull"),
        rule("robot:ci", "team/api", "push"),
        rule("anonymous", "public/**", "pull"),
    ];
    Arc::new(Directory::new(ISSUER.into()).edited(&edits, NOW - 100).expect("good edits"))
});

/// The robot `ci`.
pub(crate) fn robot() -> AccountId {
    DIRECTORY.account_named(Kind::Robot, &name("ci")).expect("it was added").id
}

fn fresh() -> Roadstead {
    let config = RoadsteadConfig {
        realm: None,
        path: "/token".into(),
        service: SERVICE.into(),
        token_lifetime: 300,
        refresh_lifetime: 86_400,
    };
    Roadstead::new(config, Arc::clone(&DIRECTORY)).expect("a good directory")
}

/// Asks the registry with accounts of its own. One that has locked somebody out by now gives way to
/// a new one.
pub(crate) fn ask<T>(question: impl Fn(&Roadstead) -> T, is_locked: impl Fn(&T) -> bool) -> T {
    thread_local!(static SCHEME: RefCell<Roadstead> = RefCell::new(fresh()));
    SCHEME.with_borrow_mut(|scheme| {
        let answer = question(scheme);
        if !is_locked(&answer) {
            return answer;
        }
        *scheme = fresh();
        question(scheme)
    })
}
