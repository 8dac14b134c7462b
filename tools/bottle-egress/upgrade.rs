//! A WebSocket, once its request was judged like any other and the server has agreed: bytes in both
//! directions, each until its own end. What the client says is looked at where the rule wants that.

use std::sync::atomic::Ordering;

use bottle::policy::Decision;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::body::Answer;
use crate::counted::Counted;
use crate::exchange::Exchange;
use crate::headers;
use crate::leaks;
use crate::reply;
use crate::revoke;
use crate::websocket;

/// Joins both sides.
pub(crate) fn switched(
    mut exchange: Exchange,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Response<Answer> {
    let Some(upgrade) = upgrade else {
        exchange.status = Some(502);
        return reply::text(StatusCode::BAD_GATEWAY, "the server changed the protocol unasked\n");
    };
    exchange.session.raw.store(true, Ordering::Relaxed);
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let (Ok(client), Ok(server)) = tokio::join!(upgrade, server) {
            let upward = exchange.upward.get_or_insert_default().clone();
            let messages = leaks::messages(&exchange, &upward);
            let mut client = TokioIo::new(client);
            let mut server = Counted::new(TokioIo::new(server), &upward.bytes, &exchange.received);
            let joined = async {
                let Some(messages) = messages else {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return None;
                };
                websocket::join(messages, client, server).await
            };
            let refusal = tokio::select! {
                refusal = joined => refusal,
                () = revoke::exchange(&exchange) => None,
            };
            if let (Some(refusal), Decision::Allow { rule }) = (refusal, exchange.decision) {
                exchange.refuse(refusal.reason, Some(rule));
            }
        }
        drop(exchange);
    });
    headers::strip(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.map(|_| Answer::Own(None))
}
