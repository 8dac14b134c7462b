//! One request: where it goes, whether it may, and its way there and back.

use std::sync::Arc;

use bottle::policy::{Ask, Decision, Reason, Request as Judged};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, CONNECTION, EXPECT, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use crate::body::{Answer, Relayed, Sending, Upload};
use crate::connect::{self, Handled};
use crate::dial::Failure;
use crate::exchange::Exchange;
use crate::headers;
use crate::inject;
use crate::journal;
use crate::leaks;
use crate::mask;
use crate::parent::{self, Trouble};
use crate::place::{self, Stray};
use crate::proxy::Session;
use crate::raw;
use crate::reply::{self, Refusal};
use crate::send;
use crate::upgrade;

/// Answers one request of a client.
pub(crate) async fn handle(session: &Arc<Session>, request: Request<Incoming>) -> Response<Answer> {
    let is_grpc = request.version() == Version::HTTP_2 && headers::is_grpc(request.headers());
    let response = answer(session, request).await;
    if is_grpc { reply::for_grpc(response) } else { response }
}

async fn answer(session: &Arc<Session>, mut request: Request<Incoming>) -> Response<Answer> {
    if let Some(why) = session.fault.get() {
        return place::malformed(session, why, request.headers().get(ACCEPT));
    }
    if request.method() == Method::CONNECT {
        return match connect::handle(session, request) {
            Handled::Answered(response) => *response,
            Handled::Raw(asked) => raw::handle(session, *asked).await,
        };
    }
    let force = session.egress.conf.force();
    let Some(client) = force.policy.client(session.client) else {
        let why = place::stranger(session.client);
        return place::stray(session, &force, &request, Reason::Client, why);
    };
    let target = match place::destination(session, &request) {
        Ok(target) => target,
        Err(Stray::Bad(why)) => return reply::bad(why),
        Err(Stray::Refused(reason, why)) => {
            return place::stray(session, &force, &request, reason, why);
        }
    };
    let asked = request.uri().path_and_query().cloned();
    let (path, uri) = match place::normal(asked.as_ref()) {
        Ok(normal) => normal,
        Err(odd) => {
            return place::stray(session, &force, &request, Reason::BadPath, odd.to_string());
        }
    };
    let method = request.method().clone();
    let judged = Judged { scheme: target.scheme, method: method.as_str(), path: &path };
    let (host, port) = (&target.host, target.port);
    let ask = Ask { client, host, port, request: Some(judged) };
    let decision = force.decide(&ask);
    let mut exchange =
        Exchange::new(session, &force, target.clone(), (method.clone(), uri.clone()), decision);
    let rule = match decision {
        Decision::Allow { rule } => rule,
        Decision::Deny { reason, nearest } => {
            exchange.status = Some(403);
            let explanation = force.policy.explain(&ask, reason, nearest);
            return reply::denied(&explanation, request.headers().get(ACCEPT));
        }
    };
    let accept = request.headers().get(ACCEPT).cloned();
    if session.egress.journal.refuses(force.policy.routes().audit) {
        return refused(exchange, &journal::unwritten(), accept.as_ref());
    }
    let upgrade =
        headers::wants_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    outward(&mut parts, uri, upgrade.is_some());
    if upgrade.is_some() && leaks::looks(&force, rule) {
        // Messages that are compressed cannot be looked into; it is an offer only.
        parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    let checked = leaks::head(&mut exchange, rule, &parts)
        .map(|()| upload(&mut exchange, &mut parts, body))
        .and_then(|body| {
            exchange.added = inject::add(&force, rule, &mut parts)?;
            force.take(rule)?;
            Ok(body)
        });
    let body = match checked {
        Ok(body) => body,
        Err(refusal) => return refused(exchange, &refusal, accept.as_ref()),
    };
    let request = Request::from_parts(parts, body);
    match send::send(session, &force, rule, &target, upgrade.is_some(), request).await {
        Ok((response, upstream)) => {
            exchange.address = Some(upstream.address);
            exchange.status = Some(response.status().as_u16());
            exchange.upstream = Some(upstream);
            inward(exchange, response, upgrade)
        }
        Err(Failure::Parent(Trouble::Refused(_, words))) => {
            refused(exchange, &parent::refusal(&words), accept.as_ref())
        }
        Err(failure) => {
            // The server may be felt to break off only because its request was broken off.
            let refusal = exchange.upward.clone();
            if let Some(refusal) = refusal.as_ref().and_then(|upward| upward.refusal.get()) {
                return refused(exchange, refusal, accept.as_ref());
            }
            if let Some(why) = session.fault.get() {
                exchange.refuse(Reason::Framing, Some(rule));
                exchange.status = Some(400);
                return reply::bad(why);
            }
            if let Failure::Closed(address, closed) = failure {
                exchange.address = Some(address);
                exchange.refuse(Reason::Address, Some(rule));
                exchange.status = Some(403);
                let explanation = force.policy.explain_address(&ask, rule, address, closed);
                return reply::denied(&explanation, accept.as_ref());
            }
            let response = reply::failed(&failure, &target);
            exchange.status = Some(response.status().as_u16());
            response
        }
    }
}

/// Refuses what a rule allows, for what is in it or lacks.
fn refused(
    mut exchange: Exchange,
    refusal: &Refusal,
    accept: Option<&HeaderValue>,
) -> Response<Answer> {
    let nearest = match exchange.decision {
        Decision::Allow { rule } => Some(rule),
        Decision::Deny { nearest, .. } => nearest,
    };
    exchange.refuse(refusal.reason, nearest);
    let asked = format!(
        "{} {}://{}{}",
        exchange.method,
        exchange.target.scheme.as_str(),
        headers::authority(&exchange.target),
        exchange.uri.path()
    );
    let explanation = exchange.force.policy.refusal(refusal.reason, asked, refusal.why.clone());
    let response = reply::refused(&explanation, accept);
    exchange.status = Some(response.status().as_u16());
    response
}

/// The request's head as it goes out: the path as it was judged, no header of this hop. The host is
/// added when it is sent.
fn outward(parts: &mut Parts, uri: Uri, websocket: bool) {
    parts.uri = uri;
    parts.version = Version::HTTP_11;
    headers::outward(&mut parts.headers);
    if websocket {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// The request's body as it goes out.
fn upload(exchange: &mut Exchange, parts: &mut Parts, body: Incoming) -> Upload {
    if body.is_end_stream() {
        parts.headers.remove(EXPECT);
        return Upload::Empty;
    }
    let upward = exchange.upward.insert(Arc::default()).clone();
    let scan = exchange.lens.as_ref().map(|lens| leaks::body(lens, parts, &upward));
    let wait = headers::waits(&parts.headers).then(|| upward.gate.shut());
    let ends = match exchange.decision {
        Decision::Allow { rule } => exchange.force.ends(rule).map(Box::new),
        Decision::Deny { .. } => None,
    };
    Upload::Relayed(Sending::new(body, scan, upward, wait, ends))
}

/// The answer as it goes to the client.
fn inward(
    mut exchange: Exchange,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Response<Answer> {
    if let Some(added) = &exchange.added {
        added.answered(response.status().as_u16());
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switched(exchange, response, upgrade);
    }
    headers::strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    if let Some(mask) = exchange.added.as_ref().and_then(|added| added.mask.as_ref()) {
        if !mask::can_mask(response.headers()) {
            let response = reply::unmaskable();
            exchange.status = Some(response.status().as_u16());
            return response;
        }
        mask.headers(response.headers_mut());
    }
    response.map(|body| {
        if body.is_end_stream() {
            exchange.end();
            return Answer::Own(None);
        }
        Answer::Relayed(Relayed::new(body, exchange))
    })
}
