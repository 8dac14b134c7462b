//! A request to an upstream server and the head of its answer, on a connection that rests or on a
//! new one.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use tokio::time::timeout;

use crate::body::Upload;
use crate::conf::Force;
use crate::dial::{self, Failure};
use crate::pool::{Target, Upstream};
use crate::proxy::Session;

/// A connection that has rested longer may have been closed by the server at this very moment.
const FRESH: Duration = Duration::from_secs(1);

/// How long a resting connection may take to be ready. It is at once, unless the server has answered
/// without waiting for the end of an upload that still goes on.
const READY: Duration = Duration::from_millis(50);

/// Sends a request on a connection that rests, or on a new one. Of a resting connection nobody
/// knows whether the server is just closing it: what was not sent, or may be sent twice, is sent
/// again.
pub(crate) async fn send(
    session: &Session,
    force: &Arc<Force>,
    rule: usize,
    target: &Arc<Target>,
    mut request: Request<Upload>,
) -> Result<(Response<Incoming>, Upstream), Failure> {
    let allowed = |address| force.policy.address(rule, address).is_ok();
    while let Some((mut upstream, rested)) = force.pool.take(session.lane, target, allowed) {
        if !matches!(timeout(READY, upstream.sender.ready()).await, Ok(Ok(()))) {
            continue;
        }
        let again =
            rested > FRESH && request.body().is_end_stream() && request.method().is_idempotent();
        let copy = again.then(|| copy(&request));
        match upstream.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, upstream)),
            Err(mut error) => match error.take_message().or(copy) {
                Some(unsent) => request = unsent,
                None => return Err(Failure::Protocol(error.into_error())),
            },
        }
    }
    let mut upstream = dial::dial(&session.egress.resolver, force, rule, target).await?;
    let response = upstream.sender.send_request(request).await.map_err(Failure::Protocol)?;
    Ok((response, upstream))
}

/// The same request, without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}
