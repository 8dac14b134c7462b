//! A request to an upstream server and the head of its answer, on a connection that is there or on
//! a new one, in the version of HTTP that the connection speaks.

use std::sync::Arc;
use std::time::Duration;

use bottle::policy::Scheme;
use h2::Reason;
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::ext::on_informational;
use hyper::header::{EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::{self, PathAndQuery, Uri};
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::timeout;

use crate::body::Upload;
use crate::conf::Force;
use crate::dial::{self, Failure};
use crate::headers;
use crate::parent;
use crate::pool::{Sender, Target, Upstream};
use crate::proxy::Session;

/// A connection that has rested longer may have been closed by the server at this very moment.
const FRESH: Duration = Duration::from_secs(1);

/// How long a resting connection may take to be ready. It is at once, unless the server has answered
/// without waiting for the end of an upload that still goes on.
const READY: Duration = Duration::from_millis(50);

/// How often a request is given to connections of HTTP/2 that are shared.
const TRIES: u32 = 3;

/// Sends a request on a connection that rests or is shared, or on a new one. Of a connection that is
/// there nobody knows whether the server is just closing it: what was not sent, or may be sent
/// twice, is sent again. `single` asks for HTTP/1.
pub(crate) async fn send(
    session: &Session,
    force: &Arc<Force>,
    rule: usize,
    target: &Arc<Target>,
    single: bool,
    mut request: Request<Upload>,
) -> Result<(Response<Incoming>, Upstream), Failure> {
    let lane = session.lane;
    // Plain HTTP goes by a proxy behind egress in the form that proxies take.
    let by_parent = target.scheme == Scheme::Http && force.policy.routes().parent.is_some();
    let allowed = |address| force.policy.address(rule, address).is_ok();
    let (mut turn, mut times) = (None, 0);
    loop {
        while let Some((mut upstream, rested)) = force.pool.take(lane, target, single, allowed) {
            if let Sender::One(sender) = &mut upstream.sender
                && !matches!(timeout(READY, sender.ready()).await, Ok(Ok(())))
            {
                continue;
            }
            let shared = matches!(upstream.sender, Sender::Many(..));
            let again = if shared {
                times += 1;
                times < TRIES
            } else {
                rested > FRESH && request.method().is_idempotent()
            };
            let copy = (again && request.body().is_end_stream()).then(|| copy(&request));
            match on(&mut upstream, target, by_parent, request).await {
                Ok(response) => return Ok((response, upstream)),
                Err(mut error) => {
                    let unsent = error.take_message();
                    let error = error.into_error();
                    let copy = copy.filter(|_| !shared || is_unprocessed(&error));
                    request = unsent.or(copy).ok_or(Failure::Protocol(error))?;
                }
            }
        }
        if target.scheme == Scheme::Http || single || turn.is_some() {
            break;
        }
        turn = force.pool.turn(lane, target).await;
        if turn.is_none() {
            break;
        }
    }
    let dialled = dial::dial(&session.egress.resolver, force, rule, target, single).await;
    if turn.is_some() {
        let many = dialled.as_ref().is_ok_and(|up| matches!(up.sender, Sender::Many(..)));
        force.pool.note(lane, target, !many);
    }
    let mut upstream = force.pool.keep(lane, target, dialled?);
    drop(turn);
    let sent = on(&mut upstream, target, by_parent, request).await;
    sent.map(|response| (response, upstream)).map_err(|error| Failure::Protocol(error.into_error()))
}

/// Whether the server says that it has not looked at a request.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(Reason::REFUSED_STREAM))
    })
}

/// Sends a request on one connection.
async fn on(
    upstream: &mut Upstream,
    target: &Target,
    by_parent: bool,
    mut request: Request<Upload>,
) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
    match &mut upstream.sender {
        Sender::One(sender) => {
            if !request.headers().contains_key(HOST) {
                for_one(&mut request, target);
            }
            if let Upload::Relayed(sending) = request.body()
                && sending.wait.is_some()
            {
                let upward = sending.upward.clone();
                on_informational(&mut request, move |interim| {
                    if interim.status() == StatusCode::CONTINUE {
                        upward.gate.open();
                    }
                });
            }
            // Host and path have been parsed before, and parse again.
            if by_parent && let Ok(uri) = parent::absolute(target, request.uri()) {
                *request.uri_mut() = uri;
            }
            sender.try_send_request(request).await
        }
        Sender::Many(sender, _) => {
            for_many(&mut request, target);
            sender.try_send_request(request).await
        }
    }
}

/// HTTP/1: path and query on the first line, and `Host`.
fn for_one(request: &mut Request<Upload>, target: &Target) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_some() {
        *request.uri_mut() = path(request.uri()).into();
    }
    headers::join_cookies(request.headers_mut());
    // hyper takes it that a GET without a length has no body, and drops the one that it has.
    if request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    let value = HeaderValue::try_from(headers::authority(target));
    let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
    request.headers_mut().insert(HOST, value);
}

/// HTTP/2: scheme and authority beside path and query, and no `Host`.
fn for_many(request: &mut Request<Upload>, target: &Target) {
    *request.version_mut() = Version::HTTP_2;
    if request.uri().authority().is_none() {
        let mut parts = uri::Parts::default();
        parts.scheme = target.scheme.as_str().parse().ok();
        parts.authority = headers::authority(target).parse().ok();
        parts.path_and_query = Some(path(request.uri()));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    if request.headers_mut().remove(EXPECT).is_some()
        && let Upload::Relayed(sending) = request.body()
    {
        sending.upward.gate.open();
    }
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// The same request, without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    copy
}
