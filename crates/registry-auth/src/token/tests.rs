//! Checks the token scheme against keys, certificates and tokens made on the spot.

use std::path::PathBuf;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as B64},
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData};
use registry_core::access::{Access, Action, Grant};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    LEEWAY, MAX_TOKEN, Token, TokenConfig,
    key::{Algorithm, Key, libtrust_fingerprint},
};
use crate::{Ask, Verdict};

const NOW: i64 = 1_800_000_000;
const SECRET: &[u8] = &[7; 64];

const RSA: &str = "RSA";
const P256: &str = "P-256";
const P384: &str = "P-384";
const ED25519: &str = "Ed25519";

/// A new key of a kind; RSA is always the same one, because making one is slow.
fn key(kind: &str) -> KeyPair {
    match kind {
        RSA => KeyPair::from_pem(include_str!("test_rsa.pem")).unwrap(),
        P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        _ => KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
    }
}

fn signature(algorithm: &str, key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let der = key.serialized_der();
    let ecdsa = |kind| {
        let key = EcdsaKeyPair::from_pkcs8(kind, der, &random).unwrap();
        key.sign(&random, message).unwrap().as_ref().to_vec()
    };
    let rsa = |kind: &'static dyn signature::RsaEncoding| {
        let key = RsaKeyPair::from_pkcs8(der).unwrap();
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(kind, &random, message, &mut signature).unwrap();
        signature
    };
    match algorithm {
        "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
        "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
        "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
        "PS256" => rsa(&signature::RSA_PSS_SHA256),
        "PS384" => rsa(&signature::RSA_PSS_SHA384),
        "PS512" => rsa(&signature::RSA_PSS_SHA512),
        "EdDSA" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap().sign(message).as_ref().to_vec(),
        other => panic!("{other}"),
    }
}

fn mac(algorithm: &str, secret: &[u8], message: &[u8]) -> Vec<u8> {
    let kind = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(kind, secret), message).as_ref().to_vec()
}

fn claims() -> Value {
    json!({
        "iss": "issuer", "aud": "registry", "sub": "ann", "exp": NOW + 300, "nbf": NOW, "iat": NOW, "jti": "1",
        "access": [{"type": "repository", "name": "team/api", "actions": ["pull", "push"]}],
    })
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()))
}

/// A token of [`claims`], or of others, that `key` signed.
fn token_of(header: &Value, claims: &Value, key: &KeyPair) -> String {
    let message = message(header, claims);
    let signature = signature(header["alg"].as_str().unwrap(), key, message.as_bytes());
    format!("{message}.{}", B64.encode(signature))
}

fn token(header: Value, key: &KeyPair) -> String {
    token_of(&header, &claims(), key)
}

fn secret_token(header: Value, secret: &[u8]) -> String {
    let message = message(&header, &claims());
    let mac = mac(header["alg"].as_str().unwrap(), secret, message.as_bytes());
    format!("{message}.{}", B64.encode(mac))
}

/// The public half as a JWK.
fn jwk(key: &KeyPair) -> Value {
    let raw = key.public_key_raw();
    let ec = |crv: &str, field: usize| json!({"kty": "EC", "crv": crv, "x": B64.encode(&raw[1..=field]), "y": B64.encode(&raw[1 + field..])});
    if key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
        ec(P256, 32)
    } else if key.is_compatible(&rcgen::PKCS_ECDSA_P384_SHA384) {
        ec(P384, 48)
    } else if key.is_compatible(&rcgen::PKCS_ED25519) {
        json!({"kty": "OKP", "crv": ED25519, "x": B64.encode(raw)})
    } else {
        let key = RsaKeyPair::from_pkcs8(key.serialized_der()).unwrap();
        let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
        json!({"kty": "RSA", "n": B64.encode(public.n), "e": B64.encode(public.e)})
    }
}

fn with(mut object: Value, key: &str, value: impl Into<Value>) -> Value {
    object[key] = value.into();
    object
}

fn thumbprint(jwk: &Value) -> String {
    let parsed: super::Jwk = serde_json::from_value(jwk.clone()).unwrap();
    parsed.key().unwrap().thumbprints().remove(0)
}

fn x5c(certificates: &[&rcgen::Certificate]) -> Value {
    certificates.iter().map(|certificate| BASE64_STANDARD.encode(certificate.der())).collect()
}

fn params(is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["issuer.test".to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Writes the files, and gives settings that name them.
fn config(bundle: &[&rcgen::Certificate], keys: Option<Value>) -> (TempDir, TokenConfig) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pem: String = bundle.iter().map(|certificate| certificate.pem()).collect();
    let config = TokenConfig {
        realm: "https://auth.test/token".to_owned(),
        service: "registry".to_owned(),
        issuer: "issuer".to_owned(),
        rootcertbundle: (!bundle.is_empty()).then(|| file("bundle.pem", pem)),
        jwks: keys.map(|keys| file("jwks.json", json!({ "keys": keys }).to_string())),
        ..TokenConfig::default()
    };
    (dir, config)
}

fn scheme(bundle: &[&rcgen::Certificate], keys: Option<Value>) -> Token {
    let (_dir, config) = config(bundle, keys);
    Token::open(config).unwrap()
}

fn ask<'a>(authorization: Option<&'a str>, wanted: &'a [Access]) -> Ask<'a> {
    Ask { authorization, wanted, host: Some("reg.test"), forwarded_proto: None, tls: false, address: None, now: NOW }
}

/// The user that a token proves, or `! ` and why it proves none.
fn outcome(scheme: &Token, token: &str) -> String {
    let header = format!("Bearer {token}");
    match scheme.verify(&ask(Some(&header), &[])) {
        Verdict::Granted { caller, .. } => caller.name,
        Verdict::Forbidden(forbidden) => panic!("{}", forbidden.message()),
        Verdict::Refused(challenge) => {
            assert_eq!(
                challenge.www_authenticate,
                r#"Bearer realm="https://auth.test/token",service="registry",error="invalid_token""#
            );
            let source = std::error::Error::source(&challenge.reason).expect("a fault");
            format!("! {source}")
        }
    }
}

#[track_caller]
fn check(scheme: &Token, token: &str, expected: &str) {
    let seen = outcome(scheme, token);
    assert!(seen == expected || (expected.starts_with('!') && seen.starts_with(expected)), "{seen}");
}

const KINDS: [(&str, &[&str]); 4] = [
    (RSA, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    (P256, &["ES256"]),
    (P384, &["ES384"]),
    (ED25519, &["EdDSA"]),
];

#[test]
fn every_algorithm_works_with_its_own_keys_only() {
    for (kind, algorithms) in KINDS {
        let key = key(kind);
        let certificate = params(false).self_signed(&key).unwrap();
        let fingerprint = libtrust_fingerprint(&key.subject_public_key_info());
        let set = json!([with(jwk(&key), "kid", "named")]);
        for algorithm in algorithms {
            let names = [thumbprint(&jwk(&key)), fingerprint.clone()];
            for kid in &names {
                check(&scheme(&[&certificate], None), &token(json!({"alg": algorithm, "kid": kid}), &key), "ann");
            }
            for kid in ["named", &names[0]] {
                check(&scheme(&[], Some(set.clone())), &token(json!({"alg": algorithm, "kid": kid}), &key), "ann");
            }
        }
        // Any other algorithm with the same signature and the same key.
        let scheme = scheme(&[&certificate], Some(set));
        let signature = signature(algorithms[0], &key, b"x");
        for (other, _) in Algorithm::ALL.iter().filter(|(other, _)| !algorithms.contains(other)) {
            let message = message(&json!({"alg": other, "kid": "named"}), &claims());
            check(&scheme, &format!("{message}.{}", B64.encode(&signature)), "! the key is not for");
        }
    }
    for (kind, other) in [(P256, P384), (P384, P256)] {
        let (key, other) = (key(kind), key(other));
        let scheme = scheme(&[], Some(json!([with(jwk(&key), "kid", "k")])));
        let algorithm = if kind == P256 { "ES384" } else { "ES256" };
        check(&scheme, &token(json!({"alg": algorithm, "kid": "k"}), &other), "! the key is not for");
    }
}

#[test]
fn secrets_come_only_from_the_key_set() {
    let set = json!([{"kty": "oct", "k": B64.encode(SECRET), "kid": "s"}]);
    let shared = scheme(&[], Some(set));
    for algorithm in ["HS256", "HS384", "HS512"] {
        check(&shared, &secret_token(json!({"alg": algorithm, "kid": "s"}), SECRET), "ann");
        check(&shared, &secret_token(json!({"alg": algorithm, "kid": "s"}), &[8; 64]), "! the signature");
    }
    // Everything public about a key, taken for a secret.
    let key = key(RSA);
    let certificate = params(true).self_signed(&key).unwrap();
    let public = scheme(&[&certificate], None);
    let kid = thumbprint(&jwk(&key));
    let publics = [
        certificate.pem().into_bytes(),
        certificate.der().to_vec(),
        key.subject_public_key_info(),
        key.public_key_raw().to_vec(),
    ];
    for secret in &publics {
        for header in [
            json!({"alg": "HS256", "kid": kid}),
            json!({"alg": "HS256", "x5c": x5c(&[&certificate])}),
            json!({"alg": "HS256", "jwk": {"kty": "oct", "k": B64.encode(secret), "kid": kid}}),
        ] {
            check(&public, &secret_token(header, secret), "! the key is not for");
        }
    }
    // A secret that the token brings along.
    let own = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": B64.encode(SECRET), "kid": "x"}});
    check(&public, &secret_token(own, SECRET), "! the key `x` is not trusted");
}

#[test]
fn chains_lead_to_the_bundle() {
    let (root, middle, leaf, evil) = (key(P384), key(ED25519), key(P256), key(P256));
    let root_params = params(true);
    let root_cert = root_params.self_signed(&root).unwrap();
    let root_issuer = Issuer::from_params(&root_params, &root);
    let mut middle_params = params(true);
    middle_params.distinguished_name.push(rcgen::DnType::CommonName, "middle");
    let middle_cert = middle_params.signed_by(&middle, &root_issuer).unwrap();
    let middle_issuer = Issuer::from_params(&middle_params, &middle);
    let mut leaf_params = params(false);
    leaf_params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    leaf_params.insert_extended_key_usage(ExtendedKeyUsagePurpose::CodeSigning);
    let leaf_cert = leaf_params.signed_by(&leaf, &middle_issuer).unwrap();
    let direct = leaf_params.signed_by(&leaf, &root_issuer).unwrap();
    let mut expired_params = leaf_params.clone();
    expired_params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = expired_params.signed_by(&leaf, &root_issuer).unwrap();
    let own = params(false).self_signed(&evil).unwrap();
    // The same name as the root, another key.
    let fake = leaf_params.signed_by(&evil, &Issuer::from_params(&root_params, &evil)).unwrap();

    let trusting = scheme(&[&root_cert], None);
    let header = |chain: &[&rcgen::Certificate]| json!({"alg": "ES256", "x5c": x5c(chain)});
    let nested = |chain: &[&rcgen::Certificate]| json!({"alg": "ES256", "jwk": with(jwk(&leaf), "x5c", x5c(chain))});
    for chain in [&[&direct][..], &[&leaf_cert, &middle_cert], &[&leaf_cert, &middle_cert, &root_cert]] {
        check(&trusting, &token(header(chain), &leaf), "ann");
        check(&trusting, &token(nested(chain), &leaf), "ann");
        check(&trusting, &token(header(chain), &evil), "! the signature");
    }
    for chain in [&[&leaf_cert][..], &[&own], &[&expired], &[&fake], &[&own, &root_cert]] {
        for key in [&leaf, &evil] {
            check(&trusting, &token(header(chain), key), "! the certificate chain");
            check(&trusting, &token(nested(chain), key), "! the certificate chain");
        }
    }
    // An intermediate in the bundle ends a chain too.
    check(&scheme(&[&middle_cert], None), &token(header(&[&leaf_cert]), &leaf), "ann");
    // A failing chain is not made up for by a good name.
    let kid = thumbprint(&jwk(&leaf));
    let both = scheme(&[&root_cert], Some(json!([jwk(&leaf)])));
    check(&both, &token(json!({"alg": "ES256", "kid": kid}), &leaf), "ann");
    check(&both, &token(with(header(&[&own]), "kid", kid), &leaf), "! the certificate chain");
    for bad in [json!(["!"]), json!(["AAAA"]), json!(vec![BASE64_STANDARD.encode(root_cert.der()); 9])] {
        check(&trusting, &token(json!({"alg": "ES256", "x5c": bad}), &leaf), "! the certificate chain");
    }
    check(&trusting, &token(json!({"alg": "ES256", "x5c": []}), &leaf), "! the token names no key");
}

#[test]
fn a_bundle_certificate_proves_itself_even_as_a_ca() {
    for is_ca in [true, false] {
        let key = key(RSA);
        let certificate = params(is_ca).self_signed(&key).unwrap();
        let trusting = scheme(&[&certificate], None);
        check(&trusting, &token(json!({"alg": "RS256", "x5c": x5c(&[&certificate])}), &key), "ann");
        let mut past = params(is_ca);
        past.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let past = past.self_signed(&key).unwrap();
        let header = json!({"alg": "RS256", "x5c": x5c(&[&past])});
        check(
            &scheme(&[&past], None),
            &token(header, &key),
            "! the certificate chain is not trusted: the certificate is not valid",
        );
    }
}

#[test]
fn keys_in_the_header_only_name_trusted_ones() {
    let (key, evil) = (key(P256), key(P256));
    let certificate = params(true).self_signed(&key).unwrap();
    let kid = thumbprint(&jwk(&key));
    let set = json!([with(with(jwk(&key), "kid", "k"), "alg", "ES256"), {"kty": "unknown", "kid": "u"}]);
    for trusting in [scheme(&[&certificate], None), scheme(&[], Some(set.clone()))] {
        let header = |jwk: Value| json!({"alg": "ES256", "jwk": jwk});
        check(&trusting, &token(header(jwk(&key)), &key), "ann");
        check(&trusting, &token(header(with(jwk(&key), "kid", kid.clone())), &key), "ann");
        check(&trusting, &token(header(jwk(&evil)), &evil), "! the key `` is not trusted");
        // Its own numbers under a trusted name.
        check(&trusting, &token(header(with(jwk(&evil), "kid", kid.clone())), &evil), "! the signature");
        check(&trusting, &token(json!({"alg": "ES256", "kid": kid}), &evil), "! the signature");
        check(&trusting, &token(json!({"alg": "ES256", "kid": "x\n"}), &key), "! the key `x\\n` is not trusted");
        check(&trusting, &token(json!({"alg": "ES256"}), &key), "! the token names no key");
        check(&trusting, &token(json!({"alg": "ES256", "kid": "u"}), &key), "! the key `u` is not trusted");
    }
    // A key that the set keeps for one algorithm.
    let rsa = self::key(RSA);
    let trusting = scheme(&[], Some(json!([with(with(jwk(&rsa), "kid", "r"), "alg", "RS256")])));
    check(&trusting, &token(json!({"alg": "RS256", "kid": "r"}), &rsa), "ann");
    check(&trusting, &token(json!({"alg": "PS256", "kid": "r"}), &rsa), "! the key is not for");
}

#[test]
fn headers_and_claims_must_be_right() {
    let key = key(ED25519);
    let trusting = scheme(&[], Some(json!([with(jwk(&key), "kid", "k")])));
    let good = json!({"alg": "EdDSA", "kid": "k", "typ": "JWT"});
    let claim = |name: &str, value: Value, expected: &str| {
        check(&trusting, &token_of(&good, &with(claims(), name, value), &key), expected);
    };
    claim("extra", json!({"x": 1}), "ann");
    claim("sub", json!(""), "");
    claim("sub", json!(null), "");
    claim("sub", json!(7), "! the token is malformed: claims");
    claim("aud", json!(["other", "registry"]), "ann");
    claim("aud", json!(["other"]), "! the audience");
    claim("aud", json!("registry2"), "! the audience");
    claim("aud", json!([]), "! the audience");
    claim("aud", json!(null), "! the audience");
    claim("aud", json!(7), "! the token is malformed: claims");
    claim("iss", json!("Issuer"), "! the issuer is `Issuer`");
    claim("iss", json!(null), "! the issuer");
    claim("exp", json!(NOW - LEEWAY), "ann");
    claim("exp", json!(NOW - LEEWAY - 1), "! the token expired 61 s ago");
    claim("exp", json!(null), "! the token expired");
    claim("exp", json!("2100"), "! the token is malformed: claims");
    claim("nbf", json!(NOW + LEEWAY), "ann");
    claim("nbf", json!(NOW + LEEWAY + 1), "! the token is not valid for another 61 s");
    claim("access", json!({}), "! the token is malformed: claims");

    let header = |header: Value, expected: &str| {
        let message = message(&header, &claims());
        let signature = signature("EdDSA", &key, message.as_bytes());
        check(&trusting, &format!("{message}.{}", B64.encode(signature)), expected);
    };
    header(good.clone(), "ann");
    header(with(good.clone(), "crit", json!(["b64"])), "! the token needs an extension");
    header(with(good.clone(), "crit", json!([])), "! the token needs an extension");
    for alg in ["none", "None", "", "eddsa", "ES512"] {
        header(with(good.clone(), "alg", alg), "! the algorithm");
    }
    header(json!({"kid": "k"}), "! the token is malformed: header");
    header(json!([]), "! the token is malformed: header");
    header(with(good.clone(), "kid", json!(1)), "! the token is malformed: header");
    check(&trusting, &format!("{}.", message(&json!({"alg": "none"}), &claims())), "! the algorithm `none`");

    // Changed, cut or lengthened.
    let token = token(good.clone(), &key);
    let parts: Vec<&str> = token.split('.').collect();
    let other = B64.encode(with(claims(), "sub", "eve").to_string());
    check(&trusting, &format!("{}.{other}.{}", parts[0], parts[2]), "! the signature");
    check(&trusting, &format!("{}.{}.", parts[0], parts[1]), "! the signature");
    for bad in
        [parts[0], &token[..token.len() - 90], &format!("{token}.x"), &format!("{token}="), "...", "a.b.c", "é.é.é"]
    {
        check(&trusting, bad, "! the token is malformed");
    }
    let long = token_of(&good, &with(claims(), "pad", "x".repeat(MAX_TOKEN)), &key);
    check(&trusting, &long, "! the token is longer");
    let fits = token_of(&good, &with(claims(), "pad", "x".repeat(MAX_TOKEN * 3 / 4 - 1000)), &key);
    check(&trusting, &fits, "ann");
}

#[test]
fn only_configured_algorithms_count() {
    let key = key(RSA);
    let opened = |algorithms: &[&str]| {
        let (_dir, mut config) = config(&[], Some(json!([with(jwk(&key), "kid", "k")])));
        config.signingalgorithms = algorithms.iter().map(|name| (*name).to_owned()).collect();
        Token::open(config)
    };
    let trusting = opened(&["PS256", "ES512"]).unwrap();
    check(&trusting, &token(json!({"alg": "PS256", "kid": "k"}), &key), "ann");
    check(&trusting, &token(json!({"alg": "RS256", "kid": "k"}), &key), "! the algorithm `RS256`");
    for bad in [&["ES512"][..], &["none"], &["PS256", "rs256"]] {
        let text = opened(bad).unwrap_err().to_string();
        assert!(text.contains("signingalgorithms") && text.contains("EdDSA, HS256"), "{text}");
    }
}

#[test]
fn challenges_are_exact() {
    let key = key(P256);
    let (_dir, config) = config(&[], Some(json!([with(jwk(&key), "kid", "k")])));
    let trusting = Token::open(config.clone()).unwrap();
    let (api, base) = ("team/api".parse().unwrap(), "team/base".parse().unwrap());
    let right = Access::repository;
    let check = |authorization: Option<&str>, wanted: &[Access], expected: &str| {
        let seen = match trusting.verify(&ask(authorization, wanted)) {
            Verdict::Forbidden(forbidden) => panic!("{}", forbidden.message()),
            Verdict::Refused(challenge) => {
                assert_eq!(challenge.wanted, wanted);
                challenge.www_authenticate
            }
            Verdict::Granted { caller, grant, expires_at } => {
                let rights = vec![right(&api, Action::Pull), right(&api, Action::Push)];
                assert_eq!((grant, expires_at), (Grant::Rights(rights), Some(NOW + 300)));
                caller.name
            }
        };
        assert_eq!(seen, expected);
    };
    let token = format!("bearer  {} ", token(json!({"alg": "ES256", "kid": "k"}), &key));
    let push = [right(&api, Action::Pull), right(&api, Action::Push)];
    let mount = [push[0].clone(), push[1].clone(), right(&base, Action::Pull)];
    for none in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic YTpi"), Some("Bearerx y")] {
        check(none, &[], r#"Bearer realm="https://auth.test/token",service="registry""#);
        check(
            none,
            &push,
            r#"Bearer realm="https://auth.test/token",service="registry",scope="repository:team/api:pull,push""#,
        );
    }
    check(
        Some("Bearer x"),
        &mount,
        r#"Bearer realm="https://auth.test/token",service="registry",scope="repository:team/api:pull,push repository:team/base:pull",error="invalid_token""#,
    );
    check(Some(&token), &[], "ann");
    check(Some(&token), &push, "ann");
    check(
        Some(&token),
        &mount,
        r#"Bearer realm="https://auth.test/token",service="registry",scope="repository:team/api:pull,push repository:team/base:pull",error="insufficient_scope""#,
    );
    check(
        Some(&token),
        &[right(&api, Action::Delete)],
        r#"Bearer realm="https://auth.test/token",service="registry",scope="repository:team/api:delete",error="insufficient_scope""#,
    );
    check(
        Some(&token),
        &[Access::catalog()],
        r#"Bearer realm="https://auth.test/token",service="registry",scope="registry:catalog:*",error="insufficient_scope""#,
    );
}

#[test]
fn autoredirect_leads_back_to_the_host() {
    let (_dir, config) = config(&[], Some(json!([with(jwk(&key(P256)), "kid", "k")])));
    let check = |path: &str, host: Option<&str>, proto: Option<&str>, realm: &str| {
        let config = TokenConfig { autoredirect: true, autoredirectpath: path.to_owned(), ..config.clone() };
        let asked = Ask { host, forwarded_proto: proto, ..ask(None, &[]) };
        let Verdict::Refused(challenge) = Token::open(config).unwrap().verify(&asked) else { panic!() };
        assert_eq!(challenge.www_authenticate, format!(r#"Bearer realm="{realm}",service="registry""#));
    };
    let host = Some("reg.test:5000");
    check("", host, None, "https://reg.test:5000/auth/token");
    check("", host, Some("http"), "http://reg.test:5000/auth/token");
    check("", host, Some("HTTPS"), "https://reg.test:5000/auth/token");
    check("", host, Some("http, https"), "http://reg.test:5000/auth/token");
    check("", host, Some("javascript"), "https://reg.test:5000/auth/token");
    check("/auth/token/", host, None, "https://reg.test:5000/auth/token/");
    check("jwt?x=\"é", host, None, "https://reg.test:5000/jwt%3Fx=%22%C3%A9");
    check("", Some("[::1]:5000"), None, "https://[::1]:5000/auth/token");
    let long = "a".repeat(261);
    for bad in ["", "a\"b", "a b", "a\r\nX: y", "user@evil", "a/b", "a?b", "a#b", "a\\b", "é", &long] {
        check("", Some(bad), None, "https://auth.test/token");
    }
    check("", None, None, "https://auth.test/token");
}

#[test]
fn bad_settings_stop_the_start() {
    let set = json!([with(jwk(&key(P256)), "kid", "k")]);
    let check = |keys: Value, change: &dyn Fn(&mut TokenConfig), expected: &str| {
        let (dir, mut config) = config(&[], Some(keys));
        std::fs::write(dir.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        std::fs::write(dir.path().join("key.pem"), include_str!("test_rsa.pem")).unwrap();
        change(&mut config);
        for path in [&mut config.rootcertbundle, &mut config.jwks].into_iter().flatten() {
            *path = dir.path().join(&*path);
        }
        let text = Token::open(config).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    check(set.clone(), &|config| config.realm.clear(), "auth.token.realm`: is required");
    check(set.clone(), &|config| config.realm = "https://größe/".to_owned(), "visible ASCII");
    check(set.clone(), &|config| config.service.clear(), "auth.token.service`: is required");
    check(set.clone(), &|config| config.issuer.clear(), "auth.token.issuer`: is required");
    check(set.clone(), &|config| config.jwks = None, "no key can sign tokens");
    check(set.clone(), &|config| config.jwks = Some("none.json".into()), "none.json");
    check(set.clone(), &|config| config.jwks = Some("key.pem".into()), "no JSON Web Key Set");
    check(set.clone(), &|config| config.rootcertbundle = Some("bad.pem".into()), "certificate 1");
    check(json!([]), &|_| {}, "no key can sign tokens");
    check(json!([]), &|config| config.rootcertbundle = Some("key.pem".into()), "no key can sign tokens");
    check(json!([{"kty": "oct", "k": "hunter2", "kid": "s"}]), &|_| {}, "no key can sign tokens");
    check(json!([{"kty": "oct", "k": B64.encode(SECRET)}]), &|_| {}, "secret without a `kid`");
    check(json!([{"kty": "oct", "k": ["hunter2"]}]), &|_| {}, "key 1 is no JSON Web Key");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives, the answer is a refusal.
    #[test]
    fn garbage_is_refused(
        text in ".{0,200}",
        header in prop::collection::vec(any::<u8>(), 0..60),
        payload in prop::collection::vec(any::<u8>(), 0..60),
        flip in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        use std::sync::OnceLock;
        static BED: OnceLock<(Token, String)> = OnceLock::new();
        let (trusting, good) = BED.get_or_init(|| {
            let key = key(ED25519);
            let certificate = params(true).self_signed(&key).unwrap();
            let trusting = scheme(&[&certificate], None);
            let header = json!({"alg": "EdDSA", "x5c": x5c(&[&certificate])});
            (trusting, token(header, &key))
        });
        let mut flipped = good.clone().into_bytes();
        let at = flip.index(flipped.len());
        flipped[at] = if flipped[at] == byte { byte ^ 1 } else { byte };
        let flipped = String::from_utf8_lossy(&flipped).into_owned();
        let made = format!("{}.{}.{}", B64.encode(&header), B64.encode(&payload), B64.encode(b"x"));
        for token in [text.clone(), format!("Bearer {text}"), format!("Bearer {made}"), format!("Bearer {flipped}")] {
            let verdict = trusting.verify(&ask(Some(&token), &[]));
            assert!(matches!(verdict, Verdict::Refused(_)), "{token}");
        }
    }

    /// Numbers of any length never panic, in a key or as a point.
    #[test]
    fn odd_keys_do_not_panic(x in prop::collection::vec(any::<u8>(), 0..70), message in ".{0,20}") {
        for (kty, crv) in [("EC", P256), ("EC", P384), ("OKP", ED25519), ("RSA", ""), ("oct", "")] {
            let number = B64.encode(&x);
            let jwk = json!({"kty": kty, "crv": crv, "x": number, "y": number, "n": number.repeat(8), "e": "AQAB", "k": number});
            let parsed: super::Jwk = serde_json::from_value(jwk).unwrap();
            if let Ok(key) = parsed.key() {
                let _: Vec<String> = Key::thumbprints(&key);
                for (_, algorithm) in Algorithm::ALL {
                    assert!(key.verify(algorithm, message.as_bytes(), &x).is_err());
                }
            }
        }
    }
}
