//! Owns the texts of a refusal: the `WWW-Authenticate` value, the `detail` of the error, the reason.
//!
//! Does not own the decision to refuse.

use std::fmt::Write;

use registry_core::access::{Access, Action, Caller, Resource};
use serde_json::{Value, json};

use crate::token::TokenFault;

/// A refusal; the answer is always status 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The whole value of the `WWW-Authenticate` header; visible ASCII and spaces only.
    pub www_authenticate: String,
    /// What the request wanted; [`access_detail`] makes the body's `detail` of it.
    pub wanted: Vec<Access>,
    /// Why, for the log; not for the client.
    pub reason: Reason,
}

/// A refusal of somebody who has proved who they are: the answer is status 403, because no other
/// token would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Who.
    pub caller: Caller,
    /// A right that they lack: the first, or to push there if they lack that too.
    pub missing: Access,
    /// Some who can give it; may be empty.
    pub administrators: Vec<String>,
}

impl Forbidden {
    /// What a person is told: which right is missing, and who can give it.
    pub fn message(&self) -> String {
        let Resource::Repository(name) = &self.missing.resource else {
            return format!("{} may not list the repositories of this registry", self.caller.name);
        };
        let ask = match &self.administrators[..] {
            [] => "an administrator of this registry".to_owned(),
            names => names.join(" or "),
        };
        format!("{} lacks the right to {} on {name}; ask {ask} for it", self.caller.name, self.missing.action)
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No `Authorization` header, or one of another kind: how every client begins.
    #[error("no credentials")]
    NoCredentials,
    /// A `Basic` header that is none, or is longer than any credential.
    #[error("malformed credentials")]
    MalformedCredentials,
    /// Unknown user or wrong password.
    #[error("unknown user or wrong password")]
    WrongPassword,
    /// The bearer token proves nothing.
    #[error("invalid token")]
    InvalidToken(#[from] TokenFault),
    /// The account behind the token is gone or disabled, or what it was issued for has ended.
    #[error("what the token was issued for has ended")]
    Ended,
    /// The token is good, but lacks a right.
    #[error("the token of `{caller}` does not allow {}", scope_of(missing))]
    InsufficientScope {
        /// The token's subject.
        caller: String,
        /// The first right it lacks.
        missing: Access,
    },
}

/// The `detail` of the UNAUTHORIZED error: one object per right, or `null` when none was wanted.
/// Source: distribution, `registry/handlers/app.go`.
pub fn access_detail(wanted: &[Access]) -> Value {
    if wanted.is_empty() {
        return Value::Null;
    }
    wanted
        .iter()
        .map(|access| {
            let (kind, name) = parts(&access.resource);
            json!({"Type": kind, "Class": "", "Name": name, "Action": access.action.as_str()})
        })
        .collect()
}

/// What somebody who is not logged in is told: it is the same whether there is such a repository or
/// not. `host` is the registry as image names begin.
pub(crate) fn log_in(missing: &Access, host: Option<&str>) -> String {
    let right = match &missing.resource {
        Resource::Repository(name) => format!("with the right to {} on {name}", missing.action),
        Resource::Catalog => "to list the repositories of this registry".to_owned(),
    };
    let how = host.map(|host| format!(": docker login {host}")).unwrap_or_default();
    format!("log in first, {right}{how}")
}

/// `Basic realm="…"`.
pub(crate) fn basic(realm: &str) -> String {
    format!("Basic realm={}", quoted(realm))
}

/// `Bearer realm="…",service="…"`, then `,scope="…"` unless `scope` is empty, then `,error="…"`, then
/// `,error_description="…"`, which Docker, podman and skopeo show to people.
pub(crate) fn bearer(
    realm: &str,
    service: &str,
    scope: &str,
    error: Option<&str>,
    description: Option<&str>,
) -> String {
    let mut text = format!("Bearer realm={},service={}", quoted(realm), quoted(service));
    let scope = (!scope.is_empty()).then_some(scope);
    for (key, value) in [("scope", scope), ("error", error), ("error_description", description)] {
        if let Some(value) = value {
            let _ = write!(text, ",{key}={}", quoted(value));
        }
    }
    text
}

/// The scope parameter with the actions of one resource merged: `repository:a:pull,push
/// repository:b:pull`. Resources and actions keep the order in which they were first wanted;
/// distribution's own order changes from request to request.
pub(crate) fn merged_scope(wanted: &[Access]) -> String {
    let mut merged: Vec<(&Resource, Vec<Action>)> = Vec::new();
    for Access { resource, action } in wanted {
        match merged.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, actions)) if actions.contains(action) => {}
            Some((_, actions)) => actions.push(*action),
            None => merged.push((resource, vec![*action])),
        }
    }
    let scopes: Vec<String> = merged
        .into_iter()
        .map(|(resource, actions)| {
            let (kind, name) = parts(resource);
            let actions: Vec<&str> = actions.into_iter().map(Action::as_str).collect();
            format!("{kind}:{name}:{}", actions.join(","))
        })
        .collect();
    scopes.join(" ")
}

/// One right as a scope, such as `repository:team/api:pull`.
pub fn scope_of(access: &Access) -> String {
    let (kind, name) = parts(&access.resource);
    format!("{kind}:{name}:{}", access.action)
}

pub(crate) fn parts(resource: &Resource) -> (&'static str, &str) {
    match resource {
        Resource::Repository(name) => ("repository", name.as_str()),
        Resource::Catalog => ("registry", "catalog"),
    }
}

/// A quoted-string that any HTTP library accepts and nothing can break out of: quotes and
/// backslashes escaped, control characters dropped, other non-ASCII shown as `?`.
/// Source: RFC 9110, 5.6.4.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ if c.is_control() => {}
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use registry_core::access::{Access, Action};
    use serde_json::json;

    use super::{access_detail, basic, bearer, merged_scope};

    fn repo(name: &str, action: Action) -> Access {
        Access::repository(&name.parse().unwrap(), action)
    }

    #[test]
    fn scopes_merge_in_order_of_appearance() {
        let check = |wanted: &[Access], text: &str| assert_eq!(merged_scope(wanted), text);
        check(&[], "");
        check(&[repo("team/api", Action::Pull)], "repository:team/api:pull");
        check(&[repo("team/api", Action::Pull), repo("team/api", Action::Push)], "repository:team/api:pull,push");
        check(
            &[repo("z", Action::Pull), repo("a", Action::Pull), repo("z", Action::Push), repo("z", Action::Pull)],
            "repository:z:pull,push repository:a:pull",
        );
        check(&[Access::catalog()], "registry:catalog:*");
    }

    #[test]
    fn header_values_cannot_be_broken_out_of() {
        let check = |realm: &str, text: &str| assert_eq!(basic(realm), text);
        check("basic-realm", r#"Basic realm="basic-realm""#);
        check(r#"a"b\c"#, r#"Basic realm="a\"b\\c""#);
        check("a\r\nSet-Cookie: x\0\u{7f}\u{85}", r#"Basic realm="aSet-Cookie: x""#);
        check("Größe", r#"Basic realm="Gr??e""#);
        assert_eq!(
            bearer("https://auth/token", "reg", "repository:a:pull", Some("invalid_token"), None),
            r#"Bearer realm="https://auth/token",service="reg",scope="repository:a:pull",error="invalid_token""#
        );
        assert_eq!(bearer("r", "s", "", None, None), r#"Bearer realm="r",service="s""#);
        assert_eq!(
            bearer("r", "s", "", Some("e"), Some("log in\r\n\"")),
            r#"Bearer realm="r",service="s",error="e",error_description="log in\"""#
        );
    }

    #[test]
    fn detail_lists_what_was_wanted() {
        assert_eq!(access_detail(&[]), json!(null));
        assert_eq!(
            access_detail(&[repo("team/api", Action::Pull), Access::catalog()]),
            json!([
                {"Type": "repository", "Class": "", "Name": "team/api", "Action": "pull"},
                {"Type": "registry", "Class": "", "Name": "catalog", "Action": "*"},
            ])
        );
    }
}
