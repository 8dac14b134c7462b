//! Answers of egress itself.

use bottle::policy::{Explanation, Reason};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::body::Answer;
use crate::dial::Failure;
use crate::pool::Target;

/// Why a request that a rule allows does not leave all the same.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// A phrase for a person; it holds no secret.
    pub(crate) why: String,
}

/// An answer with a text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Some(text.into())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 403: who denied, why, the nearest rule and how to ask for it; as JSON for those who accept that.
pub(crate) fn denied(explanation: &Explanation, accept: Option<&HeaderValue>) -> Response<Answer> {
    let json = accept
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let body = match serde_json::to_string_pretty(explanation) {
        Ok(body) if json => body + "\n",
        _ => explanation.to_text(),
    };
    let mut response = text(StatusCode::FORBIDDEN, body);
    let headers = response.headers_mut();
    if json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert("x-bottle-denied", HeaderValue::from_static(explanation.reason.as_str()));
    response
}

/// A refusal of what a rule allows: 503 where the cause passes by itself, else 403.
pub(crate) fn refused(explanation: &Explanation, accept: Option<&HeaderValue>) -> Response<Answer> {
    let mut response = denied(explanation, accept);
    if explanation.reason == Reason::Audit {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// 502: an answer that cannot be searched for the credential that it must not show.
pub(crate) fn unmaskable() -> Response<Answer> {
    let mut response = text(
        StatusCode::BAD_GATEWAY,
        "bottle-egress does not pass this answer on: the rule masks a credential in it \
         ('inject.mask'), and the server has encoded it all the same\n",
    );
    response.headers_mut().insert("x-bottle-error", HeaderValue::from_static("mask"));
    response
}

/// 502 or 504: the rules allow the request, but the server cannot be had.
pub(crate) fn failed(failure: &Failure, target: &Target) -> Response<Answer> {
    let (status, kind) = match failure {
        Failure::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        Failure::Resolve(_) => (StatusCode::BAD_GATEWAY, "resolve"),
        Failure::Connect(..) | Failure::Closed(..) => (StatusCode::BAD_GATEWAY, "connect"),
        Failure::Tls(_) => (StatusCode::BAD_GATEWAY, "tls"),
        Failure::Protocol(_) => (StatusCode::BAD_GATEWAY, "protocol"),
        Failure::Parent(_) => (StatusCode::BAD_GATEWAY, "parent"),
    };
    let mut body = format!(
        "bottle-egress could not reach '{}' on port {}: {failure}\n\
         this is not a denial: the rules of the bottle allow the request\n",
        target.host, target.port
    );
    if failure.is_unknown_authority() {
        body.push_str(
            "if the server's certificate is of a private authority, the owner adds that one to \
             'egress.ca_certificates' of the manifest\n",
        );
    }
    let mut response = text(status, body);
    response.headers_mut().insert("x-bottle-error", HeaderValue::from_static(kind));
    response
}

/// 400: not a request for this proxy.
pub(crate) fn bad(why: &str) -> Response<Answer> {
    text(
        StatusCode::BAD_REQUEST,
        format!("bottle-egress does not understand this request: {why}\n"),
    )
}

/// The same denial for a client of gRPC, which shows its user a status and a message, and takes them
/// from an answer without a body only.
pub(crate) fn for_grpc(mut response: Response<Answer>) -> Response<Answer> {
    if !response.headers().contains_key("x-bottle-denied") {
        return response;
    }
    let Answer::Own(Some(text)) = response.body() else { return response };
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // As gRPC writes messages: what is not plain ASCII is escaped.
    let message = line.iter().fold(String::new(), |message, byte| match byte {
        b' '..=b'~' if *byte != b'%' => message + std::str::from_utf8(&[*byte]).unwrap_or_default(),
        _ => message + &format!("%{byte:02X}"),
    });
    *response.body_mut() = Answer::Own(None);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    // PERMISSION_DENIED.
    headers.insert("grpc-status", HeaderValue::from_static("7"));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    response
}
