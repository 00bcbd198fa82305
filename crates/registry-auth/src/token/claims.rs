//! Owns what a token says once its signature is proved: for whom, until when, which rights.
//!
//! Does not own signatures; see [`super::key`].

use registry_core::access::Access;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::{TokenFault, shown};
use crate::scope;

/// How far the issuer's clock may be off, in seconds. Source: distribution, `token.go`.
pub const LEEWAY: i64 = 60;

/// The claims that count; others are ignored.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<Number>,
    nbf: Option<Number>,
    access: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Rights {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Option<Vec<Value>>,
}

impl Claims {
    /// Checks issuer, audience and time; gives the expiry, in seconds since 1970.
    pub(super) fn check(&self, issuer: &str, service: &str, now: i64) -> Result<i64, TokenFault> {
        if self.iss.as_deref() != Some(issuer) {
            return Err(TokenFault::Issuer(shown(self.iss.as_deref().unwrap_or_default())));
        }
        let for_us = match &self.aud {
            None => false,
            Some(Audience::One(one)) => one == service,
            Some(Audience::Many(many)) => many.iter().any(|one| one == service),
        };
        if !for_us {
            return Err(TokenFault::Audience);
        }
        // A token without an end would be one for ever.
        let expires = self.exp.as_ref().map_or(0, seconds);
        if now > expires.saturating_add(LEEWAY) {
            return Err(TokenFault::Expired { by: now.saturating_sub(expires) });
        }
        let begins = self.nbf.as_ref().map_or(i64::MIN, seconds);
        if now < begins.saturating_sub(LEEWAY) {
            return Err(TokenFault::NotYet { by: begins.saturating_sub(now) });
        }
        Ok(expires)
    }

    /// The user; empty for an anonymous one.
    pub(super) fn subject(&self) -> &str {
        self.sub.as_deref().unwrap_or_default()
    }

    /// The rights, sorted and without duplicates. What we do not understand gives none.
    pub(super) fn rights(&self) -> Vec<Access> {
        rights(self.access.as_deref().unwrap_or_default())
    }
}

/// The rights of an `access` claim, sorted and without duplicates.
pub(crate) fn rights(entries: &[Value]) -> Vec<Access> {
    let mut rights: Vec<Access> = entries.iter().flat_map(understood).collect();
    rights.sort();
    rights.dedup();
    rights
}

/// The rights of one entry, such as `{"type":"repository","name":"a/b","actions":["pull"]}`.
fn understood(entry: &Value) -> Vec<Access> {
    let Ok(rights) = Rights::deserialize(entry) else {
        return Vec::new();
    };
    let Some(resource) = scope::resource(&rights.kind, &rights.name) else {
        return Vec::new();
    };
    let actions = rights.actions.iter().flatten().filter_map(|action| scope::action(action.as_str()?));
    actions.map(|action| Access { resource: resource.clone(), action }).collect()
}

/// A NumericDate, rounded down; out of range it is the nearest end. Source: RFC 7519, 2.
fn seconds(date: &Number) -> i64 {
    date.as_i64().unwrap_or_else(|| date.as_f64().map_or(0, |date| date.floor() as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Claims, LEEWAY};
    use crate::challenge;

    fn rights(access: &serde_json::Value) -> String {
        let claims: Claims = serde_json::from_value(json!({ "access": access })).unwrap();
        let scopes: Vec<String> = claims.rights().iter().map(challenge::scope_of).collect();
        scopes.join(" ")
    }

    #[test]
    fn rights_are_what_we_understand() {
        let check = |access: serde_json::Value, expected: &str| {
            assert_eq!(rights(&access), expected, "{access}");
        };
        let one = |kind: &str, name: &str, actions: serde_json::Value| json!([{"type": kind, "name": name, "actions": actions}]);
        check(json!(null), "");
        check(json!([]), "");
        check(
            one("repository", "team/api", json!(["push", "pull", "push"])),
            "repository:team/api:pull repository:team/api:push",
        );
        check(one("repository", "a", json!(["*"])), "repository:a:*");
        check(one("repository", "a", json!(["delete", "admin", "PULL", "", 7, null, ["pull"]])), "repository:a:delete");
        check(one("repository", "a", json!(null)), "");
        check(one("repository(plugin)", "a", json!(["pull"])), "repository:a:pull");
        check(
            json!([{"type": "repository", "class": "plugin", "name": "a", "actions": ["pull"]}]),
            "repository:a:pull",
        );
        for kind in ["repository()", "repository(", "(x)repository", "repository(X)", "repo", "Repository", ""] {
            check(one(kind, "a", json!(["pull"])), "");
        }
        for name in ["", "A", "*", "../a", "a/", "a b"] {
            check(one("repository", name, json!(["pull"])), "");
        }
        check(one("registry", "catalog", json!(["*"])), "registry:catalog:*");
        check(one("registry", "other", json!(["*"])), "");
        // A broken entry does not spoil the others.
        check(
            json!([7, {"type": "repository"}, {"type": "repository", "name": "a", "actions": ["pull"]}]),
            "repository:a:pull",
        );
    }

    #[test]
    fn time_has_a_minute_of_leeway() {
        const NOW: i64 = 1_700_000_000;
        let check = |exp: serde_json::Value, nbf: serde_json::Value, good: bool| {
            let claims = json!({"iss": "i", "aud": "s", "exp": exp, "nbf": nbf});
            let parsed: Claims = serde_json::from_value(claims.clone()).unwrap();
            assert_eq!(parsed.check("i", "s", NOW).is_ok(), good, "{claims}");
        };
        check(json!(NOW), json!(NOW), true);
        check(json!(NOW - LEEWAY), json!(null), true);
        check(json!(NOW - LEEWAY - 1), json!(null), false);
        check(json!(NOW), json!(NOW + LEEWAY), true);
        check(json!(NOW), json!(NOW + LEEWAY + 1), false);
        check(json!(NOW as f64 + 0.5), json!(1.5), true);
        check(json!(null), json!(null), false);
        check(json!(u64::MAX), json!(i64::MIN), true);
        check(json!(1e300), json!(-1e300), true);
        check(json!(i64::MIN), json!(0), false);
        check(json!(NOW), json!(1e300), false);
    }
}
