//! What holds for the headers that say who calls: `Authorization`, `Host`, `X-Forwarded-Proto`, one
//! a line.

use base64::{Engine, prelude::BASE64_STANDARD};
use registry_auth::{
    Ask, AuthError, MAX_PASSWORD, MAX_USER, Reason, Verdict,
    issuer::Kind,
    name_and_password,
    roadstead::{IssueError, Issued, Proof, TokenAsk},
};
use registry_core::access::{Access, Action, Resource};

use super::{
    bed::{self, NOW, ROBOT_SECRET},
    text,
};

/// Nobody comes in without a proof, nobody gets more than the rules give, and a refusal is a good
/// header that shows nothing.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let header = lines.next().unwrap_or_default();
    let (host, forwarded_proto) = (lines.next(), lines.next());

    basic(header);
    for wanted in [vec![], rights("team/api", &[Action::Pull, Action::Push]), rights("private", &[Action::Pull])] {
        let ask =
            Ask { authorization: Some(header), wanted: &wanted, host, forwarded_proto, now: NOW, ..Ask::default() };
        let own = bed::ask(|scheme| scheme.verify_quick(&ask), |answer| matches!(answer, Some(Err(_))));
        match own {
            None => assert!(name_and_password(Some(header)).is_some(), "only a password takes a slow hash"),
            Some(Err(error)) => panic!("a new registry locked somebody out: {error}"),
            Some(Ok(verdict)) => {
                if let Verdict::Granted { .. } = verdict {
                    assert!(proves(header), "{header:?} proves nothing");
                }
                sound(&verdict, &ask);
            }
        }
        let external = bed::external().verify(&ask);
        if let Verdict::Granted { .. } = external {
            let token = bearer(header).expect("only a token proves anything there");
            assert!(bed::is_signed_by_key(token) || bed::is_signed_by_secret(token));
        }
        sound(&external, &ask);
    }
    issue(header);
}

fn rights(name: &str, actions: &[Action]) -> Vec<Access> {
    let name = name.parse().expect("a name");
    actions.iter().map(|action| Access::repository(&name, *action)).collect()
}

/// The Basic form has limits, and means the same in its usual spelling.
fn basic(header: &str) {
    let Some((user, password)) = name_and_password(Some(header)) else { return };
    assert!(user.len() <= MAX_USER && password.len() <= MAX_PASSWORD && !user.contains(&b':'));
    let usual = format!("Basic {}", BASE64_STANDARD.encode([&user, b":".as_slice(), &password].concat()));
    assert_eq!(name_and_password(Some(&usual)), Some((user, password)));
}

fn bearer(header: &str) -> Option<&str> {
    let (kind, token) = header.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// Whether there is anything in the header that may open a door: the robot's secret, or a token that
/// our key signed.
fn proves(header: &str) -> bool {
    if let Some(token) = bearer(header) {
        return bed::is_signed_by_key(token);
    }
    name_and_password(Some(header)).is_some_and(|(user, password)| {
        let named = user == b"ci" || user == b"<token>";
        let token = std::str::from_utf8(&password).is_ok_and(bed::is_signed_by_key);
        named && (token || password == ROBOT_SECRET.as_bytes())
    })
}

fn sound(verdict: &Verdict, ask: &Ask<'_>) {
    match verdict {
        Verdict::Granted { grant, expires_at, .. } => {
            assert!(ask.wanted.iter().all(|wanted| grant.allows(wanted)));
            assert!(expires_at.is_none_or(|at| at.saturating_add(registry_auth::token::LEEWAY) >= NOW));
        }
        Verdict::Refused(challenge) => {
            let value = &challenge.www_authenticate;
            assert!(value.bytes().all(|c| (b' '..=b'~').contains(&c)), "{value:?}");
            assert!(value.starts_with("Bearer realm=\"http"), "{value}");
            assert_eq!(value.replace("\\\\", "").replace("\\\"", "").matches('"').count() % 2, 0, "{value}");
            assert_eq!(challenge.wanted, ask.wanted);
            // What a log shows of it is short and on one line.
            if let Reason::InvalidToken(fault) = &challenge.reason {
                let shown = fault.to_string();
                assert!(shown.len() < 2048 && !shown.contains(char::is_control), "{shown:?}");
            }
        }
        Verdict::Forbidden(forbidden) => {
            assert!(ask.wanted.contains(&forbidden.missing));
            assert!(forbidden.message().contains("right") || forbidden.message().contains("may not"));
        }
    }
}

/// A token that is issued for the header is good, and carries no more than was asked and given.
fn issue(header: &str) {
    let wanted = [
        rights("team/api", &[Action::Pull, Action::All]),
        rights("private", &[Action::Pull]),
        rights("public/x", &[Action::Pull, Action::Push]),
    ]
    .concat();
    let ask = TokenAsk { proof: Proof::Header(header), wanted: &wanted, offline: true, address: None, now: NOW };
    let locked = |answer: &Option<Result<Issued, IssueError>>| {
        matches!(answer, Some(Err(IssueError::Undecided(AuthError::Locked { .. }))))
    };
    let Some(Ok(issued)) = bed::ask(|scheme| scheme.issue(&ask, false), locked) else { return };
    assert!(proves(header), "{header:?} proves nothing");
    assert_eq!(issued.caller.account, Some(bed::robot()));
    let of_robot = |access: &Access| match &access.resource {
        Resource::Repository(name) => match name.as_str() {
            "team/api" => matches!(access.action, Action::Pull | Action::Push),
            other => other == "public/x" && access.action == Action::Pull,
        },
        Resource::Catalog => false,
    };
    assert!(issued.granted.iter().all(of_robot), "{:?}", issued.granted);
    let ticket = bed::keyring().verify(&issued.token, Kind::Access, NOW).expect("it was issued just now");
    assert_eq!(ticket.access[..], issued.granted[..]);
    let refresh = issued.refresh_token.expect("one was asked for");
    assert!(bed::keyring().verify(&refresh, Kind::Refresh, NOW).is_ok());
    assert!(bed::keyring().verify(&refresh, Kind::Access, NOW).is_err());
}
