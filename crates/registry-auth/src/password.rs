//! Owns passwords of our own users: which are acceptable, how they are hashed, and checking one.
//!
//! Does not own users, nor how many checks run at once or how often one may guess
//! ([`crate::lockout`]).

use std::{fmt, str::FromStr};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as B64};
use subtle::ConstantTimeEq;

use crate::random;

/// The shortest password, in bytes. Source: NIST SP 800-63B, 5.1.1.2.
pub const MIN_PASSWORD: usize = 8;
/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// What a new hash costs: memory in KiB, passes, lanes.
/// Source: OWASP Password Storage Cheat Sheet, "Argon2id".
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The most that a hash from elsewhere may cost, so that one login cannot stop the process.
const MAX_COST: (u32, u32, u32) = (256 << 10, 10, 4);
/// The longest PHC string that is looked at, in bytes.
const MAX_PHC: usize = 256;

/// A text that is no acceptable password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Shorter than [`MIN_PASSWORD`].
    #[error("the password is shorter than {MIN_PASSWORD} bytes (a few random words are easy to keep)")]
    TooShort,
    /// Longer than [`MAX_PASSWORD`].
    #[error("the password is longer than {MAX_PASSWORD} bytes")]
    TooLong,
    /// A tab, a line end or the like, which no login prompt can send.
    #[error("the password contains a control character (is there more than one line?)")]
    Control,
    /// The user's name, in whatever case.
    #[error("the password is the user's name")]
    UserName,
}

/// A new password that a user may have; shows itself to nobody.
pub struct Password(String);

impl Password {
    /// Accepts [`MIN_PASSWORD`] to [`MAX_PASSWORD`] bytes without control characters that are not
    /// the name of the user.
    pub fn parse(text: &str, user: &str) -> Result<Self, PasswordError> {
        if text.len() < MIN_PASSWORD {
            Err(PasswordError::TooShort)
        } else if text.len() > MAX_PASSWORD {
            Err(PasswordError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(PasswordError::Control)
        } else if text.eq_ignore_ascii_case(user) {
            Err(PasswordError::UserName)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// A password to print once: 22 letters, digits, `-` and `_`; 128 random bits.
    pub fn generate() -> Self {
        Self(base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<16>()))
    }

    /// The password itself, to show it to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A stored text that is no hash of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// Not the PHC string of an argon2id hash.
    #[error("no argon2id hash (expected `$argon2id$v=19$m=…,t=…,p=…$salt$hash`)")]
    Malformed,
    /// A hash that would take too long or too much memory to check.
    #[error("an argon2id hash that costs too much (at most m={}, t={}, p={})", MAX_COST.0, MAX_COST.1, MAX_COST.2)]
    TooCostly,
}

/// An argon2id hash, kept as a PHC string; shows itself to nobody.
/// Source: RFC 9106; PHC string format specification.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: String,
    params: Params,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl PasswordHash {
    /// Hashes a password with a new salt. Takes some 20 ms of a core and 19 MiB.
    pub fn new(password: &Password) -> Self {
        let salt = random::bytes::<16>();
        let mut digest = [0; 32];
        fill(&default_params(), &salt, password.0.as_bytes(), &mut digest);
        Self::render(default_params(), &salt, &digest)
    }

    /// A hash that no password matches and that costs as much to check as a new one: checked for
    /// unknown users, so that time does not tell who exists. Cheap to make.
    pub fn nobody() -> Self {
        // A digest that is not the digest of anything: finding its password is finding a preimage.
        Self::render(default_params(), &random::bytes::<16>(), &random::bytes::<32>())
    }

    /// Whether this is the password's hash. Takes as long as [`PasswordHash::new`], whatever the
    /// outcome.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut digest = vec![0; self.digest.len()];
        fill(&self.params, &self.salt, password, &mut digest);
        digest.ct_eq(&self.digest).into()
    }

    /// The PHC string, at most 256 bytes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn render(params: Params, salt: &[u8], digest: &[u8]) -> Self {
        let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
        let text = format!("$argon2id$v=19$m={m},t={t},p={p}${}${}", B64.encode(salt), B64.encode(digest));
        Self { text, params, salt: salt.to_vec(), digest: digest.to_vec() }
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, PasswordHashError> {
        if text.len() > MAX_PHC {
            return Err(PasswordHashError::Malformed);
        }
        let hash = parse(text).ok_or(PasswordHashError::Malformed)?;
        let (m, t, p) = (hash.params.m_cost(), hash.params.t_cost(), hash.params.p_cost());
        if m > MAX_COST.0 || t > MAX_COST.1 || p > MAX_COST.2 {
            return Err(PasswordHashError::TooCostly);
        }
        // Numbers and base64 have one spelling, so a hash has one text.
        if hash.text == text { Ok(hash) } else { Err(PasswordHashError::Malformed) }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

fn parse(text: &str) -> Option<PasswordHash> {
    let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
    let (cost, salt, digest) = (parts.next()?, parts.next()?, parts.next()?);
    let mut cost = ["m=", "t=", "p="].into_iter().zip(cost.splitn(3, ','));
    let mut number = || cost.next().and_then(|(key, text)| text.strip_prefix(key)?.parse::<u32>().ok());
    let params = Params::new(number()?, number()?, number()?, None).ok()?;
    let (salt, digest) = (B64.decode(salt).ok()?, B64.decode(digest).ok()?);
    // Fewer bytes could be guessed.
    let good = parts.next().is_none() && (8..=64).contains(&salt.len()) && (16..=64).contains(&digest.len());
    good.then(|| PasswordHash::render(params, &salt, &digest))
}

fn default_params() -> Params {
    let (m, t, p) = COST;
    Params::new(m, t, p, None).expect("the cost is in range")
}

fn fill(params: &Params, salt: &[u8], password: &[u8], digest: &mut [u8]) {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password, salt, digest)
        .expect("cost, salt and digest were checked, and no request holds 4 GiB of password");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::{ProptestConfig, proptest};

    use super::{Password, PasswordError, PasswordHash, PasswordHashError};

    const PHC: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn passwords_are_checked_at_the_edge() {
        let check = |text: &str, expected: Option<PasswordError>| {
            assert_eq!(Password::parse(text, "deborah-ann").err(), expected, "{text:?}");
        };
        check("1234567", Some(PasswordError::TooShort));
        check("", Some(PasswordError::TooShort));
        check("12345678", None);
        check("pässwör", None); // Bytes count, as they do in a header.
        check(&"x".repeat(1024), None);
        check(&"x".repeat(1025), Some(PasswordError::TooLong));
        check("correct horse battery", None);
        check("hunter2hunter2\n", Some(PasswordError::Control));
        check("hunter2\0hunter2", Some(PasswordError::Control));
        check("hunter2\u{85}hunter2", Some(PasswordError::Control));
        check("Deborah-Ann", Some(PasswordError::UserName));
        check("deborah-ann1", None);
    }

    #[test]
    fn a_hash_proves_its_password_only() {
        let password = Password::parse("correct horse", "u").unwrap();
        let hash = PasswordHash::new(&password);
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        let stored: PasswordHash = hash.as_str().parse().unwrap();
        assert_eq!(stored, hash);
        assert!(stored.verify(b"correct horse"));
        for wrong in ["correct horsf", "correct horse ", "", "correct"] {
            assert!(!stored.verify(wrong.as_bytes()), "{wrong}");
        }
        assert_ne!(PasswordHash::new(&password), hash, "the salt is new every time");
        assert!(!stored.verify(&[0xff; 4096]));
        let shown = format!("{hash:?} {password:?}");
        assert_eq!(shown, "PasswordHash(..) Password(..)");
    }

    #[test]
    fn the_reference_implementation_agrees() {
        // Source: phc-winner-argon2, `src/test.c`, argon2id.
        let check = |text: &str, password: &str, good: bool| {
            assert_eq!(text.parse::<PasswordHash>().unwrap().verify(password.as_bytes()), good, "{text}");
        };
        check(PHC, "password", true);
        check(PHC, "Password", false);
        let other = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        check(other, "password", true);
    }

    #[test]
    fn only_bounded_argon2id_is_read() {
        use PasswordHashError::{Malformed, TooCostly};
        let check =
            |text: &str, error: PasswordHashError| assert_eq!(text.parse::<PasswordHash>(), Err(error), "{text}");
        let with = |cost: &str| PHC.replace("m=65536,t=2,p=1", cost);
        check("", Malformed);
        check("$2y$05$abcdefghijklmnopqrstuv", Malformed);
        for (from, to) in [("argon2id", "argon2i"), ("argon2id", "argon2d"), ("v=19", "v=16"), ("v=19$", "")] {
            check(&PHC.replace(from, to), Malformed);
        }
        for cost in ["m=65536,t=2", "t=2,m=65536,p=1", "m=65536,t=2,p=1,x=1", "m=065536,t=2,p=1", "m=+65536,t=2,p=1"] {
            check(&with(cost), Malformed);
        }
        check(&with("m=1,t=2,p=1"), Malformed);
        check(&with("m=65536,t=0,p=1"), Malformed);
        check(&with("m=99999999999,t=1,p=1"), Malformed);
        check(&with("m=262145,t=2,p=1"), TooCostly);
        check(&with("m=65536,t=11,p=1"), TooCostly);
        check(&with("m=65536,t=2,p=5"), TooCostly);
        assert!(with("m=262144,t=10,p=4").parse::<PasswordHash>().is_ok());
        check(&format!("{PHC}="), Malformed);
        check(&format!("{PHC}$"), Malformed);
        check(&PHC.replace("c29tZXNhbHQ", "c29t"), Malformed);
        check(&PHC.replace("$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "$CTFhFdXP"), Malformed);
        check(&PHC.replace("PPc", &"A".repeat(300)), Malformed);
    }

    #[test]
    fn nobody_has_no_password_and_costs_the_same() {
        let nobody = PasswordHash::nobody();
        assert!(!nobody.verify(b"") && !nobody.verify(b"password"));
        assert_eq!(nobody.as_str().len(), PasswordHash::new(&Password::generate()).as_str().len());
        // Made without hashing: a thousand take less time than a few checks would.
        let started = Instant::now();
        for _ in 0..1000 {
            let _ = PasswordHash::nobody();
        }
        assert!(started.elapsed().as_millis() < 2000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_does_not_panic(text in ".{0,80}", tail in "[$a-zA-Z0-9+/,=]{0,120}") {
            let _ = text.parse::<PasswordHash>();
            let _ = Password::parse(&text, &tail);
            if let Ok(hash) = format!("$argon2id$v=19$m=8,t=1,p=1${tail}").parse::<PasswordHash>() {
                assert!(hash.as_str().ends_with(&tail));
            }
        }
    }
}
