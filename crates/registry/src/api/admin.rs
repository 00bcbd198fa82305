//! Owns how orders and their answers travel over HTTP.
//!
//! Does not own what they do (`admin`, `operations`).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use registry_auth::name_and_password;
use registry_core::oci_error::Code;
use serde_json::{Value, json};

use super::{Call, Reply, inbound::Inbound, json_body};
use crate::{
    admin::{
        Admin, Sender,
        authority::{Actor, Proof},
        error::{Kind, OrderError},
        order::Order,
    },
    app::now,
    body::Body,
    failure::Failure,
    operations::operation::Operation,
    permit::client_address,
};

/// Where orders go, below the configured prefix.
pub(crate) const PATH: &str = "/roadstead/v1/admin";

/// The largest order, in bytes.
const MAX_ORDER: u64 = 64 * 1024;

/// The place for orders, if there is one and the request has Basic credentials: a token that was
/// given for pulling shall not change who may pull. Looked at before anything else.
pub(crate) fn admit<'a>(admin: Option<&'a Arc<Admin>>, head: &Parts) -> Result<&'a Arc<Admin>, Failure> {
    let nothing = || Failure::from(Code::Unsupported).status(StatusCode::NOT_FOUND).message("nothing is here");
    let admin = admin.ok_or_else(nothing)?;
    match basic_password(head) {
        Some(_) => Ok(admin),
        None => Err(unproved()),
    }
}

fn unproved() -> Failure {
    Failure::from(Code::Unauthorized)
        .message("orders to access control need the name and password of an account")
        .header(header::WWW_AUTHENTICATE, "Basic realm=\"Roadstead\", charset=\"UTF-8\"")
}

fn basic_password(head: &Parts) -> Option<Vec<u8>> {
    let authorization = head.headers.get(header::AUTHORIZATION)?.to_str().ok();
    name_and_password(authorization).map(|(_, password)| password)
}

/// Carries the order in a request's body out, for the account that the permit names.
pub(crate) async fn post(call: &Call<'_>, admin: &Arc<Admin>, body: &mut Inbound) -> Reply {
    let (Some(account), Some(password)) = (call.permit.caller.account, basic_password(call.head)) else {
        return Err(unproved());
    };
    let instruction = read(call.head, body).await?;
    let sender = Sender {
        actor: Actor::Account(account, Proof::of(&password)),
        from: client_address(call.app, call.peer, call.head)
            .map_or_else(|| "unix socket".to_owned(), |address| address.to_string()),
    };
    match instruction {
        Instruction::Access(order) => answer(admin.carry_out(order, sender, now()).await),
        Instruction::Operation(operation) => answer(call.app.operations.carry_out(operation, sender, now()).await),
    }
}

/// An order of either family.
#[derive(Debug)]
pub(crate) enum Instruction {
    /// To access control.
    Access(Order),
    /// About what is stored.
    Operation(Operation),
}

/// The order in a request's body.
pub(crate) async fn read(head: &Parts, body: &mut Inbound) -> Result<Instruction, Failure> {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Pages of other sites can send forms and plain text in a browser's name, but not this.
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Failure::from(Code::Unsupported)
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .message("an order comes with Content-Type: application/json"));
    }
    let text = body.whole(MAX_ORDER).await?.ok_or_else(|| {
        Failure::from(Code::SizeInvalid)
            .status(StatusCode::PAYLOAD_TOO_LARGE)
            .message(format!("an order has up to {MAX_ORDER} bytes"))
    })?;
    parse(&text).map_err(|error| {
        OrderError::invalid(format!("this is no order: {error}"), "is the client of the same version as the registry?")
            .into()
    })
}

fn parse(text: &[u8]) -> serde_json::Result<Instruction> {
    Ok(match serde_json::from_slice(text) {
        Ok(Operation::Foreign) => Instruction::Access(serde_json::from_slice(text)?),
        operation => Instruction::Operation(operation?),
    })
}

/// What became of an order, as an answer that nobody keeps: it may hold a secret.
pub(crate) fn answer(result: Result<Value, OrderError>) -> Reply {
    let mut response: Response<Body> = json_body(StatusCode::OK, result?.to_string() + "\n");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        let failure = match error.kind {
            Kind::Invalid => Self::from(Code::Unsupported).status(StatusCode::BAD_REQUEST),
            Kind::Denied => Code::Denied.into(),
            Kind::NotFound => Self::from(Code::Unsupported).status(StatusCode::NOT_FOUND),
            Kind::Conflict => Self::from(Code::Unsupported).status(StatusCode::CONFLICT),
            Kind::Busy => Self::unavailable(""),
            Kind::Failed => Code::Unknown.into(),
        };
        failure.message(error.what).detail(json!({ "kind": error.kind.as_str(), "hint": error.hint }))
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, header, request::Parts};

    use super::{Instruction, admit, basic_password, parse};
    use crate::admin::{authority::Proof, tests::house};

    fn head(authorization: Option<&str>) -> Parts {
        let request = authorization
            .into_iter()
            .fold(Request::builder(), |request, value| request.header(header::AUTHORIZATION, value));
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn only_basic_credentials_are_admitted() {
        let root = tempfile::tempdir().unwrap();
        let (admin, ..) = house(root.path()).await;
        let check = |authorization: Option<&str>, admitted: bool| {
            let head = head(authorization);
            let status = admit(Some(&admin), &head).err().map(|failure| {
                let response = failure.into_response();
                let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned();
                assert!(challenge.starts_with("Basic realm="), "{challenge}");
                response.status().as_u16()
            });
            assert_eq!(status, if admitted { None } else { Some(401) }, "{authorization:?}");
            let elsewhere = admit(None, &head).unwrap_err().into_response();
            assert_eq!(elsewhere.status(), 404, "no access control of our own, no orders");
        };
        check(None, false);
        check(Some("Bearer eyJhbGciOiJFZERTQSJ9.e30.c2ln"), false);
        check(Some("Basic"), false);
        check(Some("Basic !"), false);
        check(Some("Basic Ym9i"), false);
        check(Some("Basic Ym9iOnB3"), true);
        check(Some("basic Ym9iOnB3"), true);
    }

    #[test]
    fn orders_of_both_families() {
        let check = |text: &str, expected: &str| {
            let seen = match parse(text.as_bytes()) {
                Ok(Instruction::Access(order)) => format!("access {}", order.audited()["order"]),
                Ok(Instruction::Operation(operation)) => format!("operation {operation:?}"),
                Err(error) => error.to_string(),
            };
            assert!(seen.starts_with(expected), "{text}: {seen}");
        };
        check(r#"{"order":"user-list"}"#, "access \"user-list\"");
        check(r#"{"order":"gc-status"}"#, "operation GcStatus");
        check(r#"{"order":"gc-run","now":true}"#, "operation GcRun { now: true, untagged: false }");
        check(r#"{"order":"gc-run","now":1}"#, "invalid type");
        check(r#"{"order":"gc-run","later":true}"#, "unknown field `later`");
        check(r#"{"order":"foreign"}"#, "unknown variant `foreign`");
        check(r#"{"order":"nonsense","x":[{}]}"#, "unknown variant `nonsense`");
        check(r#"{}"#, "missing field `order`");
        check("[]", "");
    }

    #[test]
    fn proofs_are_told_apart() {
        let secret = format!("rsk_{}", "A".repeat(43));
        for (password, proof) in [("pw", Proof::Password), ("rsk_short", Proof::Password), (&secret, Proof::Secret)] {
            let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("bob:{password}"));
            let password = basic_password(&head(Some(&format!("Basic {encoded}")))).unwrap();
            assert_eq!(Proof::of(&password), proof);
        }
        let colons = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "bob:a:b");
        assert_eq!(basic_password(&head(Some(&format!("Basic {colons}")))).as_deref(), Some(&b"a:b"[..]));
    }
}
