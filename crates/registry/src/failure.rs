//! Owns the one mapping from what goes wrong to an HTTP answer. Inner detail is logged here, once,
//! and never sent.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use registry_core::{
    manifest::ManifestError,
    oci_error::Code,
    retention::Exceeded,
    store::{Refusal, StoreError},
};
use serde_json::{Value, json};

use crate::{body::Body, size::Size};

/// A request that is answered with an error.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    status: Option<StatusCode>,
    message: Option<String>,
    detail: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self { code, status: None, message: None, detail: None, headers: Vec::new() }
    }
}

impl Failure {
    /// With a text in place of the code's own.
    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// With details for programs.
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }

    /// With another status than the code's own.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// With a header. Values that are no header values are left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// An answer that asks the client to come back: Docker does so for 503.
    pub(crate) fn unavailable(message: &str) -> Self {
        Self::from(Code::Unavailable).message(message).header(header::RETRY_AFTER, "1")
    }

    /// Whether this is the code of the error.
    pub(crate) fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let message = self.message.unwrap_or_else(|| self.code.message().to_owned());
        let mut error = json!({ "code": self.code.as_str(), "message": message });
        if let Some(detail) = self.detail {
            error["detail"] = detail;
        }
        let body = Bytes::from(json!({ "errors": [error] }).to_string() + "\n");
        let status = self
            .status
            .unwrap_or_else(|| StatusCode::from_u16(self.code.status()).expect("every code has a valid status"));
        let mut response = Response::new(Body::Full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers);
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Full { operation } => {
                tracing::error!(operation, "no space left in the data directory");
                Self::unavailable("the registry has no space left; nothing was stored")
            }
            StoreError::Poisoned => Self::unavailable("the registry's storage failed; it takes no writes for now"),
            StoreError::Failed { operation, source } => {
                tracing::error!(operation, error = %Chain(&*source), "storage failed");
                Self::from(Code::Unknown).message("the registry's storage failed; nothing was stored")
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BlobUnknown(digest) => Self::from(Code::BlobUnknown).detail(json!(digest.to_string())),
            Refusal::ManifestUnknown(reference) => Self::from(Code::ManifestUnknown).detail(json!(reference)),
            Refusal::NameUnknown(name) => Self::from(Code::NameUnknown).detail(json!({ "name": name.as_str() })),
            Refusal::TagImmutable(ref tag) => {
                Self::from(Code::Denied).message(refusal.to_string()).detail(json!({ "tag": tag.as_str() }))
            }
            Refusal::QuotaExceeded(exceeded) => exceeded.into(),
            Refusal::PlaceRetired(_) => Self::unavailable(&refusal.to_string()),
            // These two are answers to orders, which say them in their own way.
            Refusal::NothingToUndelete(_) => Self::from(Code::ManifestUnknown).message(refusal.to_string()),
            Refusal::TagTaken { .. } => {
                Self::from(Code::Unsupported).status(StatusCode::CONFLICT).message(refusal.to_string())
            }
            Refusal::DirectoryChanged => Self::unavailable("accounts or rules were changed meanwhile; try again"),
            Refusal::ReferencesUnknown(digests) => {
                let shown: Vec<String> = digests.iter().take(100).map(ToString::to_string).collect();
                Self::from(Code::ManifestBlobUnknown)
                    .message(format!("manifest references {} that this repository does not hold", shown.join(", ")))
                    .detail(json!({ "digests": shown }))
            }
        }
    }
}

impl From<Exceeded> for Failure {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded { quota, used, asked } = exceeded;
        let message = format!(
            "the quota of {} is {}: images and uploads under way take {}, and {} more were asked for; delete images, whose room \
             is free after the grace period, or have it raised",
            quota.prefix,
            Size(quota.limit),
            Size(used),
            Size(asked)
        );
        let detail = json!({ "prefix": quota.prefix.as_str(), "limit": quota.limit, "used": used, "asked": asked });
        Self::from(Code::Denied).message(message).detail(detail)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::from(Code::ManifestInvalid).message(Chain(&error).to_string())
    }
}

/// An error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
