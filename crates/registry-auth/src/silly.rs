//! Owns the `silly` scheme: any `Authorization` header is enough. It exists to test clients.
//!
//! Does not check anything, on purpose; never use it in production.

use registry_core::access::{Caller, Grant};

use crate::{
    Ask, Verdict,
    challenge::{self, Challenge, Reason},
};

/// Lets in anyone who sends a non-empty `Authorization` header, as the user `silly`.
#[derive(Clone, Debug)]
pub struct Silly {
    /// The realm of the challenge, from `auth.silly.realm`.
    pub realm: String,
    /// The service of the challenge, from `auth.silly.service`.
    pub service: String,
}

impl Silly {
    /// Decides about one request; never slow.
    pub fn verify(&self, ask: &Ask<'_>) -> Verdict {
        if ask.authorization.is_some_and(|value| !value.is_empty()) {
            let caller = Caller { name: "silly".to_owned(), account: None };
            return Verdict::Granted { caller, grant: Grant::Everything, expires_at: None };
        }
        // One scope per right, not merged, as in distribution.
        let scopes: Vec<String> = ask.wanted.iter().map(challenge::scope_of).collect();
        Verdict::Refused(Challenge {
            www_authenticate: challenge::bearer(&self.realm, &self.service, &scopes.join(" "), None, None),
            wanted: ask.wanted.to_vec(),
            reason: Reason::NoCredentials,
        })
    }
}

#[cfg(test)]
mod tests {
    use registry_core::access::{Access, Action};

    use super::Silly;
    use crate::{Ask, Verdict};

    /// Checks what `authorization` leads to: the caller's name, or the challenge.
    fn check(authorization: Option<&str>, wanted: &[Access], expected: &str) {
        let silly = Silly { realm: "https://auth/".to_owned(), service: "reg".to_owned() };
        let ask = Ask { authorization, wanted, host: None, forwarded_proto: None, tls: false, address: None, now: 0 };
        let seen = match silly.verify(&ask) {
            Verdict::Granted { caller, .. } => caller.name,
            Verdict::Forbidden(forbidden) => panic!("{}", forbidden.message()),
            Verdict::Refused(challenge) => challenge.www_authenticate,
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn any_header_will_do() {
        let name = "a/b".parse().unwrap();
        let rights = [Access::repository(&name, Action::Pull), Access::repository(&name, Action::Push)];
        check(Some("seriously, anything"), &rights, "silly");
        check(None, &[], r#"Bearer realm="https://auth/",service="reg""#);
        check(
            Some(""),
            &rights,
            r#"Bearer realm="https://auth/",service="reg",scope="repository:a/b:pull repository:a/b:push""#,
        );
    }
}
