//! Checks our own tokens against forged, stale and misused ones.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use registry_core::access::Access;
use ring::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::{Key, Keyring, KeyringError, Kind, LEEWAY, MAX_PROVED, Ticket};
use crate::{scope, token::TokenFault};

const NOW: i64 = 1_800_000_000;

fn ring(keys: &[&Key]) -> Keyring {
    let keys: Vec<Key> = keys.iter().map(|key| (*key).clone()).collect();
    Keyring::new("https://reg.test".to_owned(), "reg.test".to_owned(), &keys).unwrap()
}

fn rights(scopes: &str) -> Arc<[Access]> {
    scope::parse([scopes]).unwrap().into()
}

fn ticket(kind: Kind) -> Ticket {
    Ticket {
        kind,
        account: Some(u64::MAX),
        name: "ann".to_owned(),
        credential: Some(7),
        access: rights("repository:team/api:pull,push repository:a:* registry:catalog:*"),
        issued_at: NOW,
        expires_at: NOW + 300,
    }
}

fn json_of(part: &str) -> Value {
    serde_json::from_slice(&B64.decode(part).unwrap()).unwrap()
}

fn header(key: &Key) -> Value {
    json!({"typ": "JWT", "alg": "EdDSA", "kid": key.id})
}

fn claims() -> Value {
    json!({"iss": "https://reg.test", "aud": "reg.test", "sub": "ann", "exp": NOW + 300, "nbf": NOW, "iat": NOW,
        "access": [{"type": "repository", "name": "a", "actions": ["pull"]}]})
}

/// A token of any header and claims, signed with the key.
fn forge(header: &Value, claims: &Value, key: &Key) -> String {
    let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    let pair = Ed25519KeyPair::from_pkcs8(&key.pkcs8).unwrap();
    format!("{message}.{}", B64.encode(pair.sign(message.as_bytes())))
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    if value.is_null() {
        object.as_object_mut().unwrap().remove(name);
    } else {
        object[name] = value;
    }
    object
}

#[test]
fn what_is_signed_is_what_is_read() {
    let ring = ring(&[&Key::generate(NOW).unwrap()]);
    let check = |ticket: Ticket| {
        let token = ring.sign(&ticket);
        for _ in 0..2 {
            assert_eq!(ring.verify(&token, ticket.kind, NOW).as_deref(), Ok(&ticket));
        }
    };
    check(ticket(Kind::Access));
    check(ticket(Kind::Refresh));
    let anonymous = Ticket { account: None, name: String::new(), credential: None, ..ticket(Kind::Access) };
    check(anonymous.clone());
    check(Ticket { access: Arc::default(), ..anonymous });
    check(Ticket { name: "Größe \"\\\n.".to_owned(), account: Some(0), ..ticket(Kind::Access) });
    check(Ticket { expires_at: NOW + 400 * 86_400, ..ticket(Kind::Refresh) });
    let token = ring.sign(&ticket(Kind::Access));
    assert_ne!(token, ring.sign(&ticket(Kind::Access)), "each has its own jti");
}

#[test]
fn a_token_has_the_form_that_others_read() {
    let key = Key::generate(NOW).unwrap();
    let token = ring(&[&key]).sign(&ticket(Kind::Access));
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(json_of(parts[0]), header(&key));
    let mut claims = json_of(parts[1]);
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(B64.decode(jti.as_str().unwrap()).unwrap().len(), 16);
    assert_eq!(
        claims,
        json!({
            "iss": "https://reg.test", "aud": "reg.test", "sub": "ann",
            "exp": NOW + 300, "nbf": NOW, "iat": NOW,
            "account": "18446744073709551615", "credential": "7",
            "access": [
                {"type": "repository", "name": "a", "actions": ["*"]},
                {"type": "repository", "name": "team/api", "actions": ["pull", "push"]},
                {"type": "registry", "name": "catalog", "actions": ["*"]},
            ],
        })
    );
}

#[test]
fn keys_are_published_without_their_secrets() {
    // RFC 8037, A.1 to A.3.
    let seed = B64.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let start = b"\x30\x53\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let pkcs8 = [start, &seed[..], b"\xa1\x23\x03\x21\x00", &B64.decode(x).unwrap()].concat();
    let id = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let old = Key { id: id.to_owned(), pkcs8, created_at: NOW };
    let new = Key::generate(NOW + 1).unwrap();
    let jwks = ring(&[&old, &new]).jwks();
    assert_eq!(jwks["keys"][0]["kid"], new.id);
    assert_eq!(
        jwks["keys"][1],
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "alg": "EdDSA", "use": "sig"})
    );
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);

    let check = |keys: &[Key], error: KeyringError| {
        assert_eq!(Keyring::new(String::new(), String::new(), keys).unwrap_err(), error);
    };
    check(&[], KeyringError::Empty);
    let damaged = |id: &str| KeyringError::Damaged { id: id.to_owned() };
    check(&[new.clone(), Key { pkcs8: b"no key".to_vec(), ..old.clone() }], damaged(id));
    check(&[Key { id: "other".to_owned(), ..old.clone() }], damaged("other"));
    for shown in [format!("{old:?}"), format!("{:?}", ring(&[&old]))] {
        assert!(shown.contains(id) && !shown.contains("pkcs8"), "{shown}");
    }
}

#[test]
fn forged_headers_are_refused() {
    let (key, other) = (Key::generate(NOW).unwrap(), Key::generate(NOW).unwrap());
    let ring = ring(&[&key]);
    let check = |token: &str, expected: TokenFault| {
        for kind in [Kind::Access, Kind::Refresh] {
            let outcome = ring.verify(token, kind, NOW);
            if kind == Kind::Access {
                assert_eq!(outcome, Err(expected.clone()), "{token}");
            } else {
                assert!(outcome.is_err(), "{token}");
            }
        }
    };
    let with_header = |name: &str, value: Value| forge(&with(header(&key), name, value), &claims(), &key);
    assert!(ring.verify(&forge(&header(&key), &claims(), &key), Kind::Access, NOW).is_ok());
    for alg in ["none", "None", "NONE", "HS256", "HS512", "RS256", "PS256", "ES256", "ES384", "Ed25519", "eddsa", ""] {
        check(&with_header("alg", json!(alg)), TokenFault::Algorithm(alg.to_owned()));
    }
    check(&with_header("alg", json!(null)), TokenFault::Malformed("header"));
    check(&with_header("alg", json!(["EdDSA"])), TokenFault::Malformed("header"));
    check(&with_header("crit", json!(["exp"])), TokenFault::Critical);
    check(&with_header("kid", json!(null)), TokenFault::NoKey);
    check(&with_header("kid", json!("../../dev/null")), TokenFault::UnknownKey("../../dev/null".to_owned()));
    check(&with_header("kid", json!(other.id)), TokenFault::UnknownKey(other.id.clone()));
    let purpose = TokenFault::Malformed("it is for another purpose");
    for typ in [json!(null), json!("jwt"), json!("at+jwt"), json!("")] {
        check(&with_header("typ", typ), purpose.clone());
    }
    // A signature of another key, which the header brings along.
    let x = B64.encode(Ed25519KeyPair::from_pkcs8(&other.pkcs8).unwrap().public_key());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.id});
    check(&forge(&with(header(&key), "jwk", jwk), &claims(), &other), TokenFault::BadSignature);

    // No signature, and the public key as a secret in each form that a stranger can get.
    let unsigned = |alg: &str| {
        let header = with(header(&key), "alg", json!(alg));
        format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims().to_string()))
    };
    check(&format!("{}.", unsigned("none")), TokenFault::Algorithm("none".to_owned()));
    check(&format!("{}.", unsigned("EdDSA")), TokenFault::BadSignature);
    let raw = B64.decode(ring.jwks()["keys"][0]["x"].as_str().unwrap()).unwrap();
    for secret in [raw.clone(), B64.encode(raw).into_bytes(), ring.jwks()["keys"][0].to_string().into_bytes()] {
        for alg in ["HS256", "EdDSA"] {
            let message = unsigned(alg);
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            let fault = if alg == "EdDSA" { TokenFault::BadSignature } else { TokenFault::Algorithm(alg.to_owned()) };
            check(&format!("{message}.{}", B64.encode(mac)), fault);
        }
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let key = Key::generate(NOW).unwrap();
    let ring = ring(&[&key]);
    let good = ring.sign(&ticket(Kind::Access));
    let check = |token: &str, expected: TokenFault| assert_eq!(ring.verify(token, Kind::Access, NOW), Err(expected));
    let parts = TokenFault::Malformed("not three parts of base64url");
    for bad in ["", ".", "..", "...", "a.b", "é.é.é", &good[..good.rfind('.').unwrap()]] {
        assert!(ring.verify(bad, Kind::Access, NOW).is_err(), "{bad}");
    }
    for bad in [format!("{good}."), format!(".{good}"), format!("{good}.e30"), format!("{good}="), format!("{good} ")] {
        check(&bad, parts.clone());
    }
    check(&"a".repeat(16 << 10), parts);
    check(&"a".repeat((16 << 10) + 1), TokenFault::TooLong);
    // 86 characters less 6 are whole bytes again.
    check(&good[..good.len() - 6], TokenFault::BadSignature);

    let with_claim = |name: &str, value: Value| forge(&header(&key), &with(claims(), name, value), &key);
    for (name, value) in [
        ("iss", json!(null)),
        ("aud", json!(null)),
        ("aud", json!(["reg.test"])),
        ("sub", json!(null)),
        ("exp", json!(null)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("exp", json!("1800000300")),
        ("nbf", json!(null)),
        ("iat", json!(null)),
        ("access", json!(null)),
        ("account", json!(7)),
        ("account", json!("")),
        ("account", json!("-1")),
        ("credential", json!("18446744073709551616")),
    ] {
        check(&with_claim(name, value), TokenFault::Malformed("claims"));
    }
    check(&with_claim("iss", json!("https://evil\n")), TokenFault::Issuer("https://evil\\n".to_owned()));
    check(&with_claim("aud", json!("reg.test:5000")), TokenFault::Audience);
    let life = TokenFault::Malformed("its life is not one of its kind");
    check(&with_claim("exp", json!(NOW + 3601)), life.clone());
    check(&with_claim("exp", json!(i64::MAX)), life.clone());
    check(&with_claim("exp", json!(NOW)), life.clone());
    check(&with_claim("nbf", json!(NOW - 1)), life.clone());
    let ends = with(with(with(claims(), "iat", json!(i64::MIN)), "nbf", json!(i64::MIN)), "exp", json!(i64::MAX));
    check(&forge(&header(&key), &ends, &key), life);
    assert!(ring.verify(&with_claim("exp", json!(NOW + 3600)), Kind::Access, NOW).is_ok());
}

#[test]
fn each_kind_serves_its_purpose_only() {
    let ring = ring(&[&Key::generate(NOW).unwrap()]);
    let purpose = Err(TokenFault::Malformed("it is for another purpose"));
    let (access, refresh) = (ring.sign(&ticket(Kind::Access)), ring.sign(&ticket(Kind::Refresh)));
    for _ in 0..2 {
        assert!(ring.verify(&access, Kind::Access, NOW).is_ok());
        assert!(ring.verify(&refresh, Kind::Refresh, NOW).is_ok());
        // Whether it was proved before or not.
        assert_eq!(ring.verify(&access, Kind::Refresh, NOW), purpose);
        assert_eq!(ring.verify(&refresh, Kind::Access, NOW), purpose);
    }
    // A long life is cut to the kind's.
    let long = |kind| {
        let token = ring.sign(&Ticket { expires_at: i64::MAX, ..ticket(kind) });
        ring.verify(&token, kind, NOW).unwrap().expires_at - NOW
    };
    assert_eq!(long(Kind::Access), 3600);
    assert_eq!(long(Kind::Refresh), 400 * 86_400);
}

#[test]
fn time_counts_whether_remembered_or_not() {
    let key = Key::generate(NOW).unwrap();
    let ring_of_all = ring(&[&key]);
    let token = ring_of_all.sign(&ticket(Kind::Access));
    assert!(ring_of_all.verify(&token, Kind::Access, NOW).is_ok());
    let check = |now: i64, expected: Option<TokenFault>| {
        // The first ring remembers the token, the second has never seen it.
        assert_eq!(ring_of_all.verify(&token, Kind::Access, now).err(), expected);
        assert_eq!(ring(&[&key]).verify(&token, Kind::Access, now).err(), expected);
    };
    check(NOW + 299, None);
    check(NOW + 300, Some(TokenFault::Expired { by: 0 }));
    check(NOW + 301, Some(TokenFault::Expired { by: 1 }));
    check(NOW - LEEWAY, None);
    check(NOW - LEEWAY - 1, Some(TokenFault::NotYet { by: LEEWAY + 1 }));
    check(i64::MAX, Some(TokenFault::Expired { by: i64::MAX - NOW - 300 }));
    check(i64::MIN, Some(TokenFault::NotYet { by: i64::MAX }));
}

#[test]
fn keys_rotate() {
    let (old, new) = (Key::generate(NOW).unwrap(), Key::generate(NOW + 10).unwrap());
    let before = ring(&[&old]);
    let token = before.sign(&ticket(Kind::Access));
    assert!(before.verify(&token, Kind::Access, NOW).is_ok());
    // In whatever order they come, the newest signs and the old one still counts.
    for keys in [[&old, &new], [&new, &old]] {
        let during = ring(&keys);
        assert!(during.verify(&token, Kind::Access, NOW).is_ok());
        let newer = during.sign(&ticket(Kind::Access));
        assert_eq!(json_of(newer.split('.').next().unwrap())["kid"], new.id);
        assert_eq!(before.verify(&newer, Kind::Access, NOW), Err(TokenFault::UnknownKey(new.id.clone())));
    }
    assert_eq!(ring(&[&new]).verify(&token, Kind::Access, NOW), Err(TokenFault::UnknownKey(old.id.clone())));
}

#[test]
fn memory_is_bounded_and_used() {
    let ring = ring(&[&Key::generate(NOW).unwrap()]);
    let token = ring.sign(&ticket(Kind::Access));
    let (first, second) = (ring.verify(&token, Kind::Access, NOW), ring.verify(&token, Kind::Access, NOW));
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()), "the second is remembered");
    assert!(ring.verify(&ring.sign(&ticket(Kind::Refresh)), Kind::Refresh, NOW).is_ok());
    assert!(ring.verify(&token[1..], Kind::Access, NOW).is_err());
    assert_eq!(ring.proved.len(), 1, "neither refresh tokens nor bad ones take room");
    for _ in 0..MAX_PROVED + 500 {
        assert!(ring.verify(&ring.sign(&ticket(Kind::Access)), Kind::Access, NOW).is_ok());
    }
    assert!(ring.proved.len() <= MAX_PROVED, "{}", ring.proved.len());
}

#[test]
fn the_largest_scope_fits_into_a_token() {
    let ring = ring(&[&Key::generate(NOW).unwrap()]);
    let check = |actions: &str, name: usize| {
        let scopes: Vec<String> =
            (0..scope::MAX_SCOPES).map(|n| format!("repository:{}{n:02}:{actions}", "a".repeat(name))).collect();
        let text = scopes.join(" ");
        assert!((scope::MAX_BYTES - 64..=scope::MAX_BYTES).contains(&text.len()), "{}", text.len());
        let ticket = Ticket { access: rights(&text), name: "n".repeat(256), ..ticket(Kind::Access) };
        assert_eq!(ring.verify(&ring.sign(&ticket), Kind::Access, NOW).as_deref(), Ok(&ticket));
    };
    check("pull", 109);
    check("pull,push,delete,*", 95);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused(
        text in ".{0,100}",
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 3),
        flip in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        now in any::<i64>(),
    ) {
        use std::sync::OnceLock;
        static BED: OnceLock<(Keyring, String)> = OnceLock::new();
        let (ring, good) = BED.get_or_init(|| {
            let ring = ring(&[&Key::generate(NOW).unwrap()]);
            let token = ring.sign(&ticket(Kind::Access));
            (ring, token)
        });
        let mut flipped = good.clone().into_bytes();
        let at = flip.index(flipped.len());
        flipped[at] = if flipped[at] == byte { byte ^ 1 } else { byte };
        let made: Vec<String> = parts.iter().map(|part| B64.encode(part)).collect();
        for token in [text, made.join("."), String::from_utf8_lossy(&flipped).into_owned()] {
            for kind in [Kind::Access, Kind::Refresh] {
                assert!(ring.verify(&token, kind, NOW).is_err(), "{token}");
                assert!(ring.verify(&token, kind, now).is_err(), "{token}");
            }
        }
        assert_eq!(ring.verify(good, Kind::Access, now).is_ok(), (NOW - LEEWAY..NOW + 300).contains(&now));
    }

    /// Whatever rights are signed, exactly those are read.
    #[test]
    fn rights_survive(
        scopes in "((repository:[a-c](/[a-c])?|registry:catalog):(pull|push|delete|\\*)(,(pull|push|delete|\\*))? ){0,12}",
        account in any::<Option<u64>>(),
        name in ".{0,40}",
        life in 1_i64..=3600,
    ) {
        let ring = ring(&[&Key::generate(NOW).unwrap()]);
        let ticket = Ticket { access: rights(&scopes), account, name, expires_at: NOW + life, ..ticket(Kind::Access) };
        assert_eq!(ring.verify(&ring.sign(&ticket), Kind::Access, NOW).as_deref(), Ok(&ticket));
    }
}
