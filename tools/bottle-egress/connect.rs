//! CONNECT: a tunnel that is not one. What comes through it is TLS for the host that it names, which
//! is intercepted, or plain HTTP for it.

use std::sync::Arc;

use bottle::host;
use bottle::policy::{Ask, Decision, DecisionLine, Kind, Reason, Scheme, Verdict};
use bottle::record;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::headers;
use crate::pool::Target;
use crate::proxy::Session;
use crate::reply::{self, Answer};
use crate::tunnel;

/// Answers a CONNECT.
pub(crate) fn handle(session: &Arc<Session>, mut request: Request<Incoming>) -> Response<Answer> {
    if session.tunnel.is_some() {
        return reply::bad("a CONNECT inside a tunnel");
    }
    let force = session.egress.conf.force();
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let refuse = |reason, why: String| {
        let mut line = line(session, authority, None, force.policy.routes().generation);
        (line.decision, line.reason, line.status) = (Verdict::Deny, Some(reason), Some(403));
        session.egress.journal.record(&line);
        let asked = format!("CONNECT {authority}");
        reply::denied(&force.policy.refusal(reason, asked, why), request.headers())
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
        tunnel::record(session, &target, &decision, Some(403));
        let explanation = force.policy.explain(&ask, reason, nearest);
        return reply::denied(&explanation, request.headers());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let session = session.clone();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            tunnel::serve(&session, target, decision, upgraded).await;
        }
    });
    Response::new(Answer::Own(None))
}

/// A line about a CONNECT, allowed so far.
pub(crate) fn line<'a>(
    session: &Session,
    host: &'a str,
    port: Option<u16>,
    generation: u64,
) -> DecisionLine<'a> {
    DecisionLine {
        time: record::now().into(),
        kind: Kind::Connect,
        client: session.client,
        scheme: None,
        method: "CONNECT".into(),
        host: host.into(),
        port,
        path: None,
        decision: Verdict::Allow,
        rule: None,
        reason: None,
        nearest: None,
        address: None,
        status: None,
        generation,
        dropped: None,
    }
}
