//! A tunnel of bytes, as ssh needs it. The server is dialled before the client is answered, so that
//! whatever forbids or hinders it is told in words that a client of HTTP understands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bottle::policy::{Ask, Reason};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::Answer;
use crate::conf::Force;
use crate::dial::{self, Failure, Opened};
use crate::journal;
use crate::parent::{self, Trouble};
use crate::passage::Passage;
use crate::pool::Target;
use crate::prefixed::Prefixed;
use crate::proxy::Session;
use crate::reply::{self, Refusal};
use crate::strict::Strict;

/// A CONNECT that a rule allows as a tunnel of bytes.
pub(crate) struct Asked {
    pub(crate) force: Arc<Force>,
    pub(crate) target: Arc<Target>,
    pub(crate) rule: usize,
    pub(crate) request: Request<Incoming>,
}

/// Opens the tunnel and answers.
pub(crate) async fn handle(session: &Arc<Session>, asked: Asked) -> Response<Answer> {
    let Asked { force, target, rule, mut request } = asked;
    let mut passage = Passage::new(session, force, target, rule);
    let refused = match open(&mut passage).await {
        Ok(opened) => {
            passage.status = Some(200);
            session.raw.store(true, Ordering::Relaxed);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    join(&passage, opened, upgraded).await;
                }
            });
            return Response::new(Answer::Own(None));
        }
        Err(refused) => refused,
    };
    let accept = request.headers().get(ACCEPT);
    let policy = &passage.force.policy;
    let response = match &refused {
        Refused::Said(refusal) => {
            let asked = format!("CONNECT {}:{}", passage.target.host, passage.target.port);
            let why = refusal.why.clone();
            reply::refused(&policy.refusal(refusal.reason, asked, why), accept)
        }
        Refused::Failed(Failure::Closed(address, closed)) => {
            let (host, port) = (&passage.target.host, passage.target.port);
            let client = policy.client(session.client).unwrap_or_default();
            let ask = Ask { client, host, port, request: None };
            reply::denied(&policy.explain_address(&ask, rule, *address, *closed), accept)
        }
        Refused::Failed(failure) => reply::failed(failure, &passage.target),
    };
    passage.status = Some(response.status().as_u16());
    response
}

/// Why there is no tunnel.
enum Refused {
    Said(Refusal),
    Failed(Failure),
}

async fn open(passage: &mut Passage) -> Result<Opened, Refused> {
    let force = &passage.force;
    let egress = &passage.session.egress;
    if egress.journal.refuses(force.policy.routes().audit) {
        passage.refuse(Reason::Audit);
        return Err(Refused::Said(journal::unwritten()));
    }
    match dial::open(&egress.resolver, force, passage.rule, &passage.target).await {
        Ok(opened) => {
            passage.address = Some(opened.address);
            Ok(opened)
        }
        Err(Failure::Parent(Trouble::Refused(_, words))) => {
            passage.refuse(Reason::Parent);
            Err(Refused::Said(parent::refusal(&words)))
        }
        Err(failure) => {
            if let Failure::Closed(address, _) = failure {
                passage.address = Some(address);
                passage.refuse(Reason::Address);
            }
            Err(Refused::Failed(failure))
        }
    }
}

async fn join(passage: &Passage, opened: Opened, upgraded: Upgraded) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Strict<TcpStream>>>() else { return };
    let (stream, held) = parts.io.into_inner().into_parts();
    // A client may speak before it is answered.
    let mut first = BytesMut::from(&*parts.read_buf);
    first.extend_from_slice(&held);
    let client = Prefixed::new(Bytes::from(first), stream);
    let server = Prefixed::new(opened.early, opened.stream);
    passage.join(client, server, |rule| rule.raw).await;
}
