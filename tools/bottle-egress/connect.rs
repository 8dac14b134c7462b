//! CONNECT: a tunnel that is not one. What comes through it is TLS for the host that it names, which
//! is intercepted, or plain HTTP for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bottle::host;
use bottle::policy::{Ask, Decision, Kind, Reason, Scheme};
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Request, Response};

use crate::body::Answer;
use crate::headers;
use crate::journal;
use crate::pool::Target;
use crate::proxy::Session;
use crate::reply;
use crate::tunnel;

/// Answers a CONNECT.
pub(crate) fn handle(session: &Arc<Session>, mut request: Request<Incoming>) -> Response<Answer> {
    if session.tunnel.is_some() {
        return reply::bad("a CONNECT inside a tunnel");
    }
    let force = session.egress.conf.force();
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let refuse = |reason, why: String| {
        let mut line = journal::line(Kind::Connect, session.client, "CONNECT", authority, &force);
        (line.reason, line.status) = (Some(reason), Some(403));
        session.egress.journal.record(&line);
        let asked = format!("CONNECT {authority}");
        reply::denied(&force.policy.refusal(reason, asked, why), request.headers().get(ACCEPT))
    };
    let target = match host::authority(authority) {
        Ok((host, Some(port))) => {
            Arc::new(Target { scheme: Scheme::Https, host: host.into_owned(), port })
        }
        Ok((_, None)) => return reply::bad("a CONNECT names a port"),
        Err(odd) => return refuse(Reason::BadHost, format!("'{authority}' is no host: {odd}")),
    };
    if let Err(why) = headers::host_agrees(request.headers(), &target) {
        return refuse(Reason::HostMismatch, why);
    }
    let ask = Ask { host: &target.host, port: target.port, request: None };
    let decision = force.policy.decide(&ask);
    // On 443 the client speaks TLS next and then reads an answer: it gets the refusal there, where
    // its user sees it, and the journal gets method and path.
    if let Decision::Deny { reason, nearest } = decision
        && target.port != 443
    {
        tunnel::record(session, &target, decision, Some(403));
        let explanation = force.policy.explain(&ask, reason, nearest);
        return reply::denied(&explanation, request.headers().get(ACCEPT));
    }
    session.raw.store(true, Ordering::Relaxed);
    let upgrade = hyper::upgrade::on(&mut request);
    let session = session.clone();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            tunnel::serve(&session, force, target, decision, upgraded).await;
        }
    });
    Response::new(Answer::Own(None))
}
