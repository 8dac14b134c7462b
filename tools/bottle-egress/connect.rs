//! CONNECT: a tunnel that mostly is not one. What comes through it is TLS for the host that it names,
//! which is intercepted, or plain HTTP for it; or whatever it is, where a rule says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bottle::host;
use bottle::policy::{Ask, Decision, Kind, Reason, Scheme};
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Request, Response};

use crate::body::Answer;
use crate::conf::Force;
use crate::headers;
use crate::journal;
use crate::place;
use crate::pool::Target;
use crate::proxy::Session;
use crate::raw;
use crate::reply;
use crate::tunnel;

/// What becomes of a CONNECT.
pub(crate) enum Handled {
    /// It is answered.
    Answered(Box<Response<Answer>>),
    /// It is a tunnel of bytes, which has to be opened first.
    Raw(Box<raw::Asked>),
}

/// Judges a CONNECT.
pub(crate) fn handle(session: &Arc<Session>, request: Request<Incoming>) -> Handled {
    if session.tunnel.is_some() {
        return Handled::Answered(reply::bad("a CONNECT inside a tunnel").into());
    }
    match judge(session, &request) {
        Err(refusal) => Handled::Answered(refusal),
        Ok(Judged { force, target, decision: Decision::Allow { rule } })
            if force.policy.rule(rule).is_some_and(|rule| rule.raw) =>
        {
            Handled::Raw(raw::Asked { force, target, rule, request }.into())
        }
        Ok(judged) => Handled::Answered(look_into(session, judged, request).into()),
    }
}

/// A CONNECT that is answered with a tunnel.
struct Judged {
    force: Arc<Force>,
    target: Arc<Target>,
    decision: Decision,
}

fn judge(
    session: &Arc<Session>,
    request: &Request<Incoming>,
) -> Result<Judged, Box<Response<Answer>>> {
    let force = session.egress.conf.force();
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let refuse = |reason, why: String| {
        let mut line = journal::line(Kind::Connect, session.client, "CONNECT", authority, &force);
        (line.reason, line.status) = (Some(reason), Some(403));
        session.egress.journal.record(&line);
        let asked = format!("CONNECT {authority}");
        let explanation = force.policy.refusal(reason, asked, why);
        Box::new(reply::denied(&explanation, request.headers().get(ACCEPT)))
    };
    let Some(client) = force.policy.client(session.client) else {
        return Err(refuse(Reason::Client, place::stranger(session.client)));
    };
    let target = match host::authority(authority) {
        Ok((host, Some(port))) => {
            Arc::new(Target { scheme: Scheme::Https, host: host.into_owned(), port })
        }
        Ok((_, None)) => return Err(reply::bad("a CONNECT names a port").into()),
        Err(odd) => {
            return Err(refuse(Reason::BadHost, format!("'{authority}' is no host: {odd}")));
        }
    };
    if let Err(why) = headers::host_agrees(request.headers(), &target) {
        return Err(refuse(Reason::HostMismatch, why));
    }
    let ask = Ask { client, host: &target.host, port: target.port, request: None };
    let decision = force.decide(&ask);
    // On 443 the client speaks TLS next and then reads an answer: it gets the refusal there, where
    // its user sees it, and the journal gets method and path.
    if let Decision::Deny { reason, nearest } = decision
        && target.port != 443
    {
        tunnel::record(session, &target, decision, Some(403));
        let explanation = force.policy.explain(&ask, reason, nearest);
        return Err(reply::denied(&explanation, request.headers().get(ACCEPT)).into());
    }
    Ok(Judged { force, target, decision })
}

/// Answers with a tunnel whose bytes are looked into.
fn look_into(
    session: &Arc<Session>,
    judged: Judged,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    let Judged { force, target, decision } = judged;
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
