//! Owns the one place where a request becomes a known caller with a granted scope.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderName, header, request::Parts};
use registry_auth::{Ask, AuthError, Scheme, Verdict, access_detail};
use registry_core::{
    access::{Access, Caller, Grant},
    oci_error::Code,
};
use tokio::sync::Semaphore;

use crate::{
    api::host_of,
    app::{App, now},
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

/// Checks that a request may do all of `wanted`.
pub(crate) async fn permit(app: &App, head: &Parts, wanted: &[Access]) -> Result<Permit, Failure> {
    let Some(scheme) = &app.scheme else {
        return Ok(Permit::everyone());
    };
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ask = Ask {
        authorization: text(header::AUTHORIZATION),
        wanted,
        host: host_of(head),
        forwarded_proto: text(HeaderName::from_static("x-forwarded-proto")),
        now: now(),
    };
    let verdict = match scheme.verify_quick(&ask) {
        Some(verdict) => Ok(verdict),
        None => verify_slowly(app, scheme, &ask).await,
    };
    match verdict {
        Ok(Verdict::Granted { caller, grant, expires_at }) => Ok(Permit { caller, grant, expires_at }),
        Ok(Verdict::Refused(challenge)) => Err(Failure::from(Code::Unauthorized)
            .detail(access_detail(&challenge.wanted))
            .header(header::WWW_AUTHENTICATE, &challenge.www_authenticate)),
        Err(AuthError::Busy) => Err(Failure::unavailable("too many passwords are being checked; try again")),
    }
}

/// Checks a password that was not proved before: tens of milliseconds, on a thread of its own.
async fn verify_slowly(app: &App, scheme: &Arc<Scheme>, ask: &Ask<'_>) -> Result<Verdict, AuthError> {
    let _place = app.turns.waiting.try_acquire().map_err(|_| AuthError::Busy)?;
    let turn = tokio::time::timeout(PATIENCE, app.turns.checking.acquire());
    let _turn = turn.await.map_err(|_| AuthError::Busy)?.expect("the semaphore is never closed");
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (authorization, host) = (owned(ask.authorization), owned(ask.host));
    let (forwarded_proto, wanted, now) = (owned(ask.forwarded_proto), ask.wanted.to_vec(), ask.now);
    let scheme = Arc::clone(scheme);
    let check = tokio::task::spawn_blocking(move || {
        scheme.verify(&Ask {
            authorization: authorization.as_deref(),
            wanted: &wanted,
            host: host.as_deref(),
            forwarded_proto: forwarded_proto.as_deref(),
            now,
        })
    });
    check.await.unwrap_or(Err(AuthError::Busy))
}

/// Checks that a request may do all of `wanted`, and, if it can, `extra` too. Who may not do the
/// extra still gets the rest, and is told of both when even that is refused.
pub(crate) async fn permit_with(app: &App, head: &Parts, wanted: &[Access], extra: Access) -> Result<Permit, Failure> {
    let all: Vec<Access> = wanted.iter().cloned().chain([extra]).collect();
    match permit(app, head, &all).await {
        // Only tokens carry some rights and not others.
        Err(refused) if matches!(app.scheme.as_deref(), Some(Scheme::Token(_))) => {
            permit(app, head, wanted).await.map_err(|_| refused)
        }
        other => other,
    }
}
