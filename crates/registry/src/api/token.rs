//! Owns the token endpoint: the forms in which clients ask for tokens, and the answers.
//!
//! Sources: the token authentication specification of distribution, `docs/content/spec/auth`, and
//! RFC 6749, which its POST form follows.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use registry_auth::{
    AuthError, Roadstead,
    roadstead::{IssueError, Issued, Proof, TokenAsk},
    scope,
};
use registry_core::{access::Access, oci_error::Code};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api::{Call, Reply, inbound::Inbound, json_body, route::Query},
    app::now,
    audit::name_in,
    body::Body,
    failure::Failure,
    permit::{client_address, undecided},
};

/// The largest form, in bytes: a refresh token and many scopes.
const MAX_FORM: u64 = 32 * 1024;

/// A token request, independent of its form.
pub(crate) struct Request {
    pub(crate) proof: Given,
    pub(crate) wanted: Vec<Access>,
    pub(crate) offline: bool,
}

/// What came to prove somebody.
pub(crate) enum Given {
    Nothing,
    Header(String),
    Password(String, String),
    Refresh(String),
}

impl Given {
    fn proof(&self) -> Proof<'_> {
        match self {
            Self::Nothing => Proof::None,
            Self::Header(header) => Proof::Header(header),
            Self::Password(name, password) => Proof::Password(name, password),
            Self::Refresh(token) => Proof::Refresh(token),
        }
    }
}

/// Issues a token.
pub(crate) async fn issue(call: &Call<'_>, scheme: &Arc<Roadstead>, body: &mut Inbound) -> Reply {
    let (app, head) = (call.app, call.head);
    let request = match head.method {
        Method::GET => of_query(call)?,
        Method::POST => of_form(call, body).await?,
        _ => return Err(Failure::from(Code::Unsupported).header(header::ALLOW, "GET, POST")),
    };
    let (address, now) = (client_address(app, call.peer, head), now());
    let name = match &request.proof {
        Given::Password(name, _) => name.clone(),
        _ => name_in(head),
    };
    let ask = move |request: &Request, scheme: &Roadstead, may_block| {
        let (proof, wanted, offline) = (request.proof.proof(), &request.wanted[..], request.offline);
        scheme.issue(&TokenAsk { proof, wanted, offline, address, now }, may_block)
    };
    let answer = match ask(&request, scheme, false) {
        Some(answer) => answer,
        None => {
            let scheme = Arc::clone(scheme);
            let slow = move || ask(&request, &scheme, true).expect("a slow look always decides");
            app.turns.take(slow).await.unwrap_or_else(|error: AuthError| Err(error.into()))
        }
    };
    match answer {
        Ok(issued) => {
            app.audit.issued(address, &issued);
            Ok(answered(&issued, now))
        }
        Err(IssueError::Wrong(wrong)) => {
            app.audit.wrong_credentials(address, &name);
            Err(Failure::from(Code::Unauthorized)
                .message(wrong.to_string())
                .header(header::WWW_AUTHENTICATE, "Basic realm=\"registry\""))
        }
        Err(IssueError::Undecided(error)) => Err(undecided(app, address, &name, error)),
    }
}

/// The public keys.
pub(crate) fn keys(scheme: &Roadstead) -> Response<Body> {
    json_body(StatusCode::OK, scheme.jwks().to_string() + "\n")
}

fn answered(issued: &Issued, now: i64) -> Response<Body> {
    let issued_at = OffsetDateTime::from_unix_timestamp(now).ok().and_then(|at| at.format(&Rfc3339).ok());
    let mut answer = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued_at,
    });
    if let Some(token) = &issued.refresh_token {
        answer["refresh_token"] = json!(token);
    }
    let mut response = json_body(StatusCode::OK, answer.to_string() + "\n");
    // Source: RFC 6749, 5.1.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn of_query(call: &Call<'_>) -> Result<Request, Failure> {
    // One that is no text proves nothing, and is not the same as none.
    let header = call.head.headers.get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().unwrap_or_default().to_owned());
    Ok(Request {
        proof: header.map_or(Given::Nothing, Given::Header),
        wanted: scopes(&call.query)?,
        offline: call.query.get("offline_token") == Some("true"),
    })
}

async fn of_form(call: &Call<'_>, body: &mut Inbound) -> Result<Request, Failure> {
    let kind = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(invalid("a token is asked for by a form: application/x-www-form-urlencoded"));
    }
    let form = body.whole(MAX_FORM).await?.ok_or_else(|| invalid("the form is larger than 32 KiB"))?;
    read_form(&form)
}

fn invalid(message: &str) -> Failure {
    Failure::from(Code::Unsupported).status(StatusCode::BAD_REQUEST).message(message)
}

/// What a form asks for.
pub(crate) fn read_form(form: &[u8]) -> Result<Request, Failure> {
    let form = Query::parse(Some(&String::from_utf8_lossy(form)));
    let field = |name: &str| {
        let value = form.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        value.ok_or_else(|| invalid(&format!("the form lacks `{name}`")))
    };
    let proof = match field("grant_type")?.as_str() {
        "password" => Given::Password(field("username")?, field("password")?),
        "refresh_token" => Given::Refresh(field("refresh_token")?),
        _ => return Err(invalid("`grant_type` is neither `password` nor `refresh_token`")),
    };
    Ok(Request { proof, wanted: scopes(&form)?, offline: form.get("access_type") == Some("offline") })
}

fn scopes(query: &Query) -> Result<Vec<Access>, Failure> {
    scope::parse(query.all("scope")).map_err(|error| invalid(&error.to_string()))
}
