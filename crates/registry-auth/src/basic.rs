//! Owns the form of Basic credentials. Source: RFC 7617.
//!
//! Does not know which are right.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::challenge::Reason;

/// The longest user name that is looked at, in bytes.
pub const MAX_USER: usize = 256;
/// The longest password that is looked at, in bytes. Like every bcrypt, the check itself only uses
/// the first 72; `htpasswd -B` and distribution accept longer ones that way, so we do too.
pub const MAX_PASSWORD: usize = 1024;
/// Standard base64 with or without padding; stricter readings turn real clients away.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A request's credentials, or why there are none.
pub(crate) enum Credential {
    Given { user: Vec<u8>, password: Vec<u8> },
    Refused(Reason),
}

/// Reads `Basic <base64 of user:password>`. Source: RFC 7617.
pub(crate) fn credential(authorization: Option<&str>) -> Credential {
    let Some((kind, encoded)) = authorization.and_then(|value| value.split_once(' ')) else {
        return Credential::Refused(Reason::NoCredentials);
    };
    if !kind.eq_ignore_ascii_case("basic") {
        return Credential::Refused(Reason::NoCredentials);
    }
    let encoded = encoded.trim_matches(' ');
    if encoded.len() > (MAX_USER + MAX_PASSWORD + 1).div_ceil(3) * 4 {
        return Credential::Refused(Reason::MalformedCredentials);
    }
    let Ok(mut user) = BASIC.decode(encoded) else {
        return Credential::Refused(Reason::MalformedCredentials);
    };
    let Some(colon) = user.iter().position(|byte| *byte == b':') else {
        return Credential::Refused(Reason::MalformedCredentials);
    };
    let password = user.split_off(colon + 1);
    user.pop();
    if user.len() > MAX_USER || password.len() > MAX_PASSWORD {
        return Credential::Refused(Reason::MalformedCredentials);
    }
    Credential::Given { user, password }
}

/// The name and password of a `Basic` header, if it is one.
pub fn name_and_password(authorization: Option<&str>) -> Option<(Vec<u8>, Vec<u8>)> {
    match credential(authorization) {
        Credential::Given { user, password } => Some((user, password)),
        Credential::Refused(_) => None,
    }
}
