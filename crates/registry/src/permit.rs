//! Owns the one place where a request becomes a known caller with a granted scope.

use std::{net::IpAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderName, header, request::Parts};
use registry_auth::{Ask, AuthError, Scheme, Verdict, access_detail};
use registry_core::{
    access::{Access, Caller, Grant},
    oci_error::Code,
};
use tokio::sync::Semaphore;

use crate::{
    api::{Peer, host_of, public_host},
    app::{App, now},
    audit::name_in,
    failure::Failure,
};

/// A request that may go on: who calls, and what they may do.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    /// Who calls; the name is empty for an anonymous caller.
    pub(crate) caller: Caller,
    /// What they may do.
    pub(crate) grant: Grant,
    /// When the proof ends, in seconds since 1970.
    pub(crate) expires_at: Option<i64>,
}

impl Permit {
    /// Where nobody has to prove anything.
    pub(crate) fn everyone() -> Self {
        Self { caller: Caller::default(), grant: Grant::Everything, expires_at: None }
    }
}

/// Passwords that may be checked at a time, and requests that may wait for their turn.
pub(crate) struct Turns {
    checking: Semaphore,
    waiting: Semaphore,
}

/// What proxies say of where a request came from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Requests that may wait for the check of a password.
const WAITING: usize = 256;
/// How long one waits at most.
const PATIENCE: Duration = Duration::from_secs(10);

impl Turns {
    /// One check for each core: a check is nothing but computing.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { checking: Semaphore::new(cores), waiting: Semaphore::new(WAITING) }
    }
}

/// The address of the client behind a request.
pub(crate) fn client_address(app: &App, peer: &Peer, head: &Parts) -> Option<IpAddr> {
    let peer = peer.address.map(|address| address.ip());
    if !head.headers.contains_key(FORWARDED_FOR) {
        return peer;
    }
    // Bytes that are no text do not hide what a proxy wrote behind them.
    let hops: Vec<_> =
        head.headers.get_all(FORWARDED_FOR).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    app.config.proxies.client(peer, Some(&hops.join(",")))
}

/// Checks that a request may do all of `wanted`.
pub(crate) async fn permit(app: &App, peer: &Peer, head: &Parts, wanted: &[Access]) -> Result<Permit, Failure> {
    match &app.scheme {
        None => Ok(Permit::everyone()),
        Some(scheme) => settle(app, peer, head, judge(app, scheme, peer, head, wanted).await),
    }
}

/// Checks that a request may do all of `wanted`, and, if it can, `extra` too. Who may not do the
/// extra still gets the rest.
pub(crate) async fn permit_with(
    app: &App,
    peer: &Peer,
    head: &Parts,
    wanted: &[Access],
    extra: Access,
) -> Result<Permit, Failure> {
    let Some(scheme) = &app.scheme else {
        return Ok(Permit::everyone());
    };
    let all: Vec<Access> = wanted.iter().cloned().chain([extra]).collect();
    let both = judge(app, scheme, peer, head, &all).await;
    if matches!(both, Ok(Verdict::Refused(_) | Verdict::Forbidden(_))) {
        // Tokens and policies have some rights and not others. Who lacks even the rest is told of
        // both, so that a client asks for a token with both.
        let rest = judge(app, scheme, peer, head, wanted).await;
        if matches!(rest, Ok(Verdict::Granted { .. })) {
            return settle(app, peer, head, rest);
        }
    }
    settle(app, peer, head, both)
}

async fn judge(
    app: &App,
    scheme: &Arc<Scheme>,
    peer: &Peer,
    head: &Parts,
    wanted: &[Access],
) -> Result<Verdict, AuthError> {
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ask = Ask {
        authorization: text(header::AUTHORIZATION),
        wanted,
        // The original builds its own realms from `Host` alone.
        host: if matches!(**scheme, Scheme::Roadstead(_)) { public_host(head) } else { host_of(head) },
        forwarded_proto: text(HeaderName::from_static("x-forwarded-proto")),
        tls: peer.tls,
        address: client_address(app, peer, head),
        now: now(),
    };
    match scheme.verify_quick(&ask) {
        Some(verdict) => verdict,
        None => verify_slowly(app, scheme, &ask).await,
    }
}

/// Makes an answer of a verdict, and notes refusals that somebody may want to know of.
fn settle(app: &App, peer: &Peer, head: &Parts, verdict: Result<Verdict, AuthError>) -> Result<Permit, Failure> {
    match verdict {
        Ok(Verdict::Granted { caller, grant, expires_at }) => Ok(Permit { caller, grant, expires_at }),
        Ok(Verdict::Refused(challenge)) => {
            app.audit.refused(client_address(app, peer, head), head, &challenge);
            Err(Failure::from(Code::Unauthorized)
                .detail(access_detail(&challenge.wanted))
                .header(header::WWW_AUTHENTICATE, &challenge.www_authenticate))
        }
        Ok(Verdict::Forbidden(forbidden)) => {
            app.audit.forbidden(client_address(app, peer, head), &forbidden);
            Err(Failure::from(Code::Denied)
                .message(forbidden.message())
                .detail(access_detail(std::slice::from_ref(&forbidden.missing))))
        }
        Err(error) => Err(undecided(app, client_address(app, peer, head), &name_in(head), error)),
    }
}

/// The answer where no verdict was reached.
pub(crate) fn undecided(app: &App, from: Option<IpAddr>, name: &str, error: AuthError) -> Failure {
    match error {
        AuthError::Busy => Failure::unavailable("too many passwords are being checked; try again"),
        AuthError::Locked { retry_after } => {
            app.audit.locked(from, name);
            Failure::from(Code::TooManyRequests)
                .message(format!("too many failed logins; try again in {retry_after} s"))
                .header(header::RETRY_AFTER, &retry_after.to_string())
        }
    }
}

impl Turns {
    /// Does work that takes tens of milliseconds of computing, on a thread of its own, when it is
    /// its turn.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let _place = self.waiting.try_acquire().map_err(|_| AuthError::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, self.checking.acquire());
        let _turn = turn.await.map_err(|_| AuthError::Busy)?.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.map_err(|_| AuthError::Busy)
    }
}

/// Checks a password that was not proved before.
async fn verify_slowly(app: &App, scheme: &Arc<Scheme>, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (authorization, host) = (owned(ask.authorization), owned(ask.host));
    let (forwarded_proto, wanted) = (owned(ask.forwarded_proto), ask.wanted.to_vec());
    let (tls, address, now) = (ask.tls, ask.address, ask.now);
    let scheme = Arc::clone(scheme);
    let check = move || {
        scheme.verify(&Ask {
            authorization: authorization.as_deref(),
            wanted: &wanted,
            host: host.as_deref(),
            forwarded_proto: forwarded_proto.as_deref(),
            tls,
            address,
            now,
        })
    };
    app.turns.take(check).await?
}
