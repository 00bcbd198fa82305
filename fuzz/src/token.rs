//! What holds for JSON Web Tokens: those of the registry itself, and those of an external issuer.
//!
//! One line is a token as it comes. Two lines are the header and the claims of one, which is signed
//! here: so the checks behind the signature are reached too.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use registry_auth::{
    Ask, Reason, Verdict,
    issuer::{Kind, Ticket},
    token::{LEEWAY, MAX_TOKEN, TokenFault},
};
use registry_core::access::Grant;
use serde_json::Value;

use super::{
    bed::{self, ISSUER, NOW, SERVICE},
    text,
};

/// A token that proves something was signed by a key that is trusted, for us, for now, and for one
/// purpose.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let token = match text.split_once('\n') {
        None => text.to_owned(),
        Some((header, claims)) => bed::signed(header, claims),
    };
    own(&token);
    external(&token);
}

fn own(token: &str) {
    let keyring = bed::keyring();
    let mut kinds = 0;
    for kind in [Kind::Access, Kind::Refresh] {
        match keyring.verify(token, kind, NOW) {
            Err(fault) => shown(&fault),
            Ok(ticket) => {
                kinds += 1;
                assert!(token.len() <= MAX_TOKEN && bed::is_signed_by_key(token), "nobody signed it");
                good(&ticket, kind);
                // Remembered or not, the answer is the same; and it ends.
                assert_eq!(keyring.verify(token, kind, NOW).as_ref(), Ok(&ticket));
                for ended in [ticket.expires_at, i64::MAX] {
                    assert!(matches!(keyring.verify(token, kind, ended), Err(TokenFault::Expired { .. })));
                }
                let again = keyring.sign(&ticket);
                assert_eq!(keyring.verify(&again, kind, NOW).as_ref(), Ok(&ticket));
            }
        }
    }
    assert!(kinds < 2, "a token is for one purpose");
}

fn good(ticket: &Ticket, kind: Kind) {
    assert_eq!(ticket.kind, kind);
    assert!(ticket.issued_at <= NOW + 5 && NOW < ticket.expires_at);
    assert!((1..=kind.max_lifetime()).contains(&(ticket.expires_at - ticket.issued_at)));
    assert!(ticket.access.is_sorted_by(|a, b| a < b));
}

fn external(token: &str) {
    let header = format!("Bearer {token}");
    let ask = Ask { authorization: Some(&header), now: NOW, ..Ask::default() };
    match bed::external().verify(&ask) {
        Verdict::Granted { grant, expires_at, .. } => {
            let token = token.trim_matches(' ');
            assert!(token.len() <= MAX_TOKEN);
            let part = |at: usize| -> Value {
                let part = token.split('.').nth(at).and_then(|part| B64.decode(part).ok()).expect("it was read");
                serde_json::from_slice(&part).unwrap_or_default()
            };
            // A public key never serves as a secret, nor the other way round.
            match part(0)["alg"].as_str() {
                Some("EdDSA") => assert!(bed::is_signed_by_key(token)),
                Some("HS256" | "HS384" | "HS512") => assert!(bed::is_signed_by_secret(token)),
                other => panic!("{other:?} is no algorithm of a trusted key"),
            }
            let claims = part(1);
            if !claims.is_null() {
                assert_eq!(claims["iss"], ISSUER);
                let aud = &claims["aud"];
                assert!(*aud == SERVICE || aud.as_array().is_some_and(|all| all.iter().any(|one| *one == SERVICE)));
            }
            assert!(expires_at.expect("a token ends").saturating_add(LEEWAY) >= NOW);
            let Grant::Rights(rights) = grant else { panic!("a token gives the rights that it names") };
            assert!(rights.is_sorted_by(|a, b| a < b));
        }
        Verdict::Refused(challenge) => {
            if let Reason::InvalidToken(fault) = &challenge.reason {
                shown(fault);
            }
        }
        Verdict::Forbidden(_) => panic!("nothing was wanted"),
    }
}

/// What a log shows of a bad token is short and on one line.
fn shown(fault: &TokenFault) {
    let shown = fault.to_string();
    assert!(shown.len() < 2048 && !shown.contains(char::is_control), "{shown:?}");
}
