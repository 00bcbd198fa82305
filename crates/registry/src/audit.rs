//! Owns what the audit log says: who did or tried what, from where, with what result. One JSON
//! object a line; the fields are listed in `docs/access-control.md`.
//!
//! Never a password, secret or token. Names that a stranger sent are cut short, and one that holds
//! a secret or a token, which was pasted into the wrong field, is not written down.

use std::{net::IpAddr, sync::Arc};

use http::{Method, header, request::Parts};
use registry_auth::{
    Challenge, Forbidden, Reason, challenge::scope_of, name_and_password, roadstead::Issued, secret::PREFIX,
    token::TokenFault,
};
use registry_core::{access::Access, account::MAX_PRINCIPAL_NAME};
use serde_json::{Value, json};
use service::audit::{AuditLog, Record};

/// The audit log; silent where there is none.
pub(crate) struct Audit(Option<Arc<AuditLog>>);

fn scopes(rights: &[Access]) -> Value {
    rights.iter().map(scope_of).collect::<Vec<_>>().join(" ").into()
}

impl Audit {
    /// Writes to `log`, if there is one.
    pub(crate) fn new(log: Option<Arc<AuditLog>>) -> Self {
        Self(log)
    }

    /// The log itself.
    pub(crate) fn log(&self) -> Option<&AuditLog> {
        self.0.as_deref()
    }

    fn record(&self, event: &str, who: &str, from: Option<IpAddr>, what: Value, result: &str) {
        let Some(log) = &self.0 else {
            return;
        };
        let who: String =
            if holds_secret(who) { "(a secret)".to_owned() } else { who.chars().take(MAX_PRINCIPAL_NAME).collect() };
        let from = from.map(|from| from.to_string());
        log.record(&Record::new(event).with("who", who).with("from", from).with("what", what).with("result", result));
    }

    /// A request without good credentials. Those without any, and expired tokens, are how clients
    /// begin, and say nothing.
    pub(crate) fn refused(&self, from: Option<IpAddr>, head: &Parts, challenge: &Challenge) {
        let result = match &challenge.reason {
            Reason::WrongPassword => "wrong credentials".to_owned(),
            Reason::InvalidToken(TokenFault::Expired { .. }) => return,
            Reason::InvalidToken(fault) => fault.to_string(),
            Reason::Ended => challenge.reason.to_string(),
            Reason::NoCredentials | Reason::MalformedCredentials | Reason::InsufficientScope { .. } => return,
        };
        self.record("login", &name_in(head), from, scopes(&challenge.wanted), &result);
    }

    /// Wrong credentials at the token endpoint.
    pub(crate) fn wrong_credentials(&self, from: Option<IpAddr>, name: &str) {
        self.record("login", name, from, json!("token"), "wrong credentials");
    }

    /// A login that was not looked at, after too many failures.
    pub(crate) fn locked(&self, from: Option<IpAddr>, name: &str) {
        self.record("login", name, from, Value::Null, "locked out");
    }

    /// A request of somebody known who may not do it.
    pub(crate) fn forbidden(&self, from: Option<IpAddr>, forbidden: &Forbidden) {
        let what = scopes(std::slice::from_ref(&forbidden.missing));
        self.record("request", &forbidden.caller.name, from, what, "denied");
    }

    /// A token. Those for anonymous use say nothing about anybody.
    pub(crate) fn issued(&self, from: Option<IpAddr>, issued: &Issued) {
        if issued.caller.account.is_some() {
            self.record("token", &issued.caller.name, from, scopes(&issued.granted), "ok");
        }
    }

    /// A change of the content: a manifest or tag that was put or deleted, a blob that was deleted.
    pub(crate) fn changed(&self, who: &str, from: Option<IpAddr>, method: &Method, path: &str) {
        let event = if *method == Method::DELETE { "delete" } else { "push" };
        self.record(event, who, from, path.into(), "ok");
    }
}

/// Whether what came as a name is a secret or a token of a registry, or a large part of one.
fn holds_secret(name: &str) -> bool {
    const PART: usize = 16;
    let long = |rest: &str| rest.len() >= PART;
    name.split_once(PREFIX).is_some_and(|(_, rest)| long(rest)) || name.strip_prefix("eyJ").is_some_and(long)
}

/// The name that a request was sent with.
pub(crate) fn name_in(head: &Parts) -> String {
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    name_and_password(authorization).map(|(name, _)| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::holds_secret;

    #[test]
    fn secrets_are_no_names() {
        let check = |name: &str, expected: bool| assert_eq!(holds_secret(name), expected, "{name}");
        check(&format!("rsk_{}", "A".repeat(43)), true);
        check(&format!("ci:rsk_{}", "A".repeat(43)), true);
        check(&format!("rsk_{}", "A".repeat(20)), true);
        check("eyJhbGciOiJFZERTQSJ9.e30.c2ln", true);
        for name in ["", "alice", "rsk_", "rsk_bot", "the-rsk_-team", "eyJ", "eyjafjallajokull-mirror"] {
            check(name, false);
        }
    }
}
