//! Answers of egress itself, and the types of bodies in both directions.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bottle::policy::Explanation;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::conf::Force;
use crate::dial::Failure;
use crate::pool::{Target, Upstream};

/// What an answer carries.
pub(crate) enum Answer {
    /// Text of our own, or nothing.
    Own(Option<Bytes>),
    /// What the server sends, frame by frame.
    Relayed(Relayed),
}

/// A server's body; when it ends the connection goes back to the pool, and if it is left before,
/// the connection ends with it.
pub(crate) struct Relayed {
    pub(crate) body: Incoming,
    pub(crate) home: Option<Home>,
}

/// Where a connection goes after its work.
pub(crate) struct Home {
    pub(crate) lane: usize,
    pub(crate) force: Arc<Force>,
    pub(crate) target: Arc<Target>,
    pub(crate) upstream: Upstream,
}

impl Home {
    pub(crate) fn go(self) {
        self.force.pool.put(self.lane, &self.target, self.upstream);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relayed) => {
                let polled = Pin::new(&mut relayed.body).poll_frame(cx);
                let ended = match &polled {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Ok(_))) => relayed.body.is_end_stream(),
                    _ => false,
                };
                if ended && let Some(home) = relayed.home.take() {
                    home.go();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Relayed(relayed) => relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}

/// What a request carries.
pub(crate) enum Upload {
    /// Nothing, so that it can be sent again.
    Empty,
    /// What the client sends, frame by frame.
    Relayed(Incoming),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Relayed(body) => body.size_hint(),
        }
    }
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

/// 502 or 504: the rules allow the request, but the server cannot be had.
pub(crate) fn failed(failure: &Failure, target: &Target) -> Response<Answer> {
    let (status, kind) = match failure {
        Failure::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        Failure::Resolve(_) => (StatusCode::BAD_GATEWAY, "resolve"),
        Failure::Connect(..) | Failure::Closed(..) => (StatusCode::BAD_GATEWAY, "connect"),
        Failure::Tls(_) => (StatusCode::BAD_GATEWAY, "tls"),
        Failure::Protocol(_) => (StatusCode::BAD_GATEWAY, "protocol"),
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
