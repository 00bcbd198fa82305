//! Decides what a local authority has to do, from what is on disk, the names wanted and the time. Pure.

use std::{collections::BTreeSet, fmt};

use time::{Duration, OffsetDateTime};

use crate::tls::{certificate::moment, name::Name};

/// How long a server's certificate is good for. No client accepts more from public authorities.
pub(super) const SERVER_LIFE: Duration = Duration::days(397);

/// What is on disk of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorityFound {
    Nothing,
    /// The key without the certificate: somebody lost the latter, or was interrupted while making it.
    KeyOnly,
    /// A certificate that is good between these moments, perhaps with its key.
    Certificate {
        from: OffsetDateTime,
        to: OffsetDateTime,
        key: bool,
    },
}

/// What is on disk of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerFound {
    Missing,
    /// Files that are damaged or do not fit each other, and how.
    Unusable(String),
    /// Signed by somebody else.
    Foreign,
    /// Signed by the authority.
    Good {
        from: OffsetDateTime,
        to: OffsetDateTime,
        names: BTreeSet<Name>,
    },
}

/// One thing that has to be done, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the authority's key and certificate.
    MakeAuthority,
    /// Make the authority's certificate anew, for the key that is there.
    RestoreAuthority,
    /// Issue the server's certificate, and why.
    IssueServer(Reason),
}

/// Why a server's certificate is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    Missing,
    /// The files cannot be used, and why.
    Unusable(String),
    /// It is of another authority.
    Foreign,
    /// Its time is not yet.
    Future(OffsetDateTime),
    /// It ends in time to be renewed.
    Ending(OffsetDateTime),
    /// It is not made out to these.
    Names(Vec<Name>),
}

/// Why nothing can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The authority's certificate ended.
    Ended(OffsetDateTime),
    /// The authority's certificate begins later.
    Future(OffsetDateTime),
    /// The authority's key is missing and needed for this.
    NoKey,
}

/// What has to be done, in this order; nothing if all is well.
pub(super) fn plan(
    authority: AuthorityFound,
    server: &ServerFound,
    wanted: &BTreeSet<Name>,
    now: OffsetDateTime,
) -> Result<Vec<Step>, Refusal> {
    let ca_end = match authority {
        AuthorityFound::Nothing | AuthorityFound::KeyOnly => {
            let first = if authority == AuthorityFound::Nothing { Step::MakeAuthority } else { Step::RestoreAuthority };
            let reason = if *server == ServerFound::Missing { Reason::Missing } else { Reason::Foreign };
            return Ok(vec![first, Step::IssueServer(reason)]);
        }
        AuthorityFound::Certificate { from, .. } if now < from => return Err(Refusal::Future(from)),
        AuthorityFound::Certificate { to, .. } if now >= to => return Err(Refusal::Ended(to)),
        AuthorityFound::Certificate { to, .. } => to,
    };
    let reason = match server {
        ServerFound::Missing => Some(Reason::Missing),
        ServerFound::Unusable(why) => Some(Reason::Unusable(why.clone())),
        ServerFound::Foreign => Some(Reason::Foreign),
        ServerFound::Good { from, to, names } => {
            let missing: Vec<Name> = wanted.difference(names).cloned().collect();
            // An authority that ends soon cannot give a later end: then the old certificate is as good as a new one.
            let gain = server_end(now, ca_end) - *to;
            if now < *from {
                Some(Reason::Future(*from))
            } else if now >= *to - (*to - *from) / 3 && gain >= Duration::DAY {
                Some(Reason::Ending(*to))
            } else if !missing.is_empty() {
                Some(Reason::Names(missing))
            } else {
                None
            }
        }
    };
    match (reason, authority) {
        (None, _) => Ok(Vec::new()),
        (Some(_), AuthorityFound::Certificate { key: false, .. }) => Err(Refusal::NoKey),
        (Some(reason), _) => Ok(vec![Step::IssueServer(reason)]),
    }
}

/// When a server's certificate ends that is issued now: not after its authority.
pub(super) fn server_end(now: OffsetDateTime, ca_end: OffsetDateTime) -> OffsetDateTime {
    ca_end.min(now + SERVER_LIFE)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeAuthority => f.write_str("made a certificate authority"),
            Self::RestoreAuthority => {
                f.write_str("made the certificate of the authority anew, for the key that was there")
            }
            Self::IssueServer(reason) => write!(f, "issued a certificate for this server: {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there was none"),
            Self::Unusable(why) => write!(f, "the old one could not be used ({why})"),
            Self::Foreign => f.write_str("the old one was of another authority"),
            Self::Future(from) => write!(f, "the old one was not valid before {}", moment(*from)),
            Self::Ending(to) => write!(f, "the old one ends at {}", moment(*to)),
            Self::Names(names) => {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                write!(f, "the old one was not made out to {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000 + day)
    }

    fn names(list: &str) -> BTreeSet<Name> {
        list.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn plans() {
        use AuthorityFound::{Certificate, KeyOnly, Nothing};
        let whole = Certificate { from: day(-100), to: day(3550), key: true };
        let keyless = Certificate { from: day(-100), to: day(3550), key: false };
        let good =
            |from: i64, list: &str| ServerFound::Good { from: day(from), to: day(from + 397), names: names(list) };
        let check = |authority: AuthorityFound, server: ServerFound, expected: &str| {
            let seen = match plan(authority, &server, &names("a b"), day(0)) {
                Ok(steps) => steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + "),
                Err(refusal) => format!("{refusal:?}"),
            };
            assert!(if expected.is_empty() { seen.is_empty() } else { seen.contains(expected) }, "{seen} | {expected}");
        };
        check(
            Nothing,
            ServerFound::Missing,
            "made a certificate authority + issued a certificate for this server: there was none",
        );
        check(Nothing, good(-1, "a b"), "authority + issued a certificate for this server: the old one was of another");
        check(KeyOnly, good(-1, "a b"), "anew, for the key that was there + issued");
        check(whole, ServerFound::Missing, "issued a certificate for this server: there was none");
        check(whole, ServerFound::Unusable("damaged".into()), "could not be used (damaged)");
        check(whole, ServerFound::Foreign, "of another authority");
        check(whole, good(-1, "a b"), "");
        check(whole, good(-1, "a b c"), "");
        check(whole, good(-1, "b c"), "was not made out to a");
        check(whole, good(-264, "a b"), "");
        check(whole, good(-265, "a b"), "the old one ends at 2025-02-13");
        check(whole, good(-500, "a b"), "the old one ends at");
        check(whole, good(1, "a b"), "not valid before 2024-10-05");
        check(keyless, good(-1, "a b"), "");
        check(keyless, good(-300, "a b"), "NoKey");
        check(keyless, ServerFound::Missing, "NoKey");
        // An authority near its end: nothing is gained by renewing what ends with it.
        let ending = Certificate { from: day(-3600), to: day(50), key: true };
        let last = ServerFound::Good { from: day(-300), to: day(50), names: names("a b") };
        check(ending, last, "");
        check(ending, good(-390, "a b"), "the old one ends at");
        check(Certificate { from: day(-100), to: day(0), key: true }, good(-1, "a b"), "Ended");
        check(Certificate { from: day(1), to: day(9), key: true }, good(-1, "a b"), "Future");
    }
}
