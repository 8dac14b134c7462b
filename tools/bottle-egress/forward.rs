//! One request: where it goes, whether it may, and its way there and back.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bottle::host::{self, Host, Odd};
use bottle::policy::{
    Ask, Decision, DecisionLine, Kind, Path, Reason, Request as Judged, Scheme, Verdict,
    normal_path,
};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, CONNECTION, HeaderValue, UPGRADE};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use crate::conf::Force;
use crate::connect;
use crate::dial::Failure;
use crate::headers;
use crate::journal::{self, Journal};
use crate::pool::{Target, Upstream};
use crate::proxy::Session;
use crate::reply::{self, Answer, Home, Relayed, Upload};
use crate::send;

/// The longest path or host of a request that cannot be judged, as it is written down.
const WRITTEN: usize = 1024;

/// Answers one request of a client.
pub(crate) async fn handle(
    session: &Arc<Session>,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    if request.method() == Method::CONNECT {
        return connect::handle(session, request);
    }
    let force = session.egress.conf.force();
    let target = match destination(session, &request) {
        Ok(target) => target,
        Err(Stray::Bad(why)) => return reply::bad(why),
        Err(Stray::Refused(reason, why)) => {
            return stray(session, &force, &request, reason, why);
        }
    };
    let method = request.method().clone();
    let asked = request.uri().path_and_query().cloned();
    let asked = asked.as_ref();
    let (path, uri) = match normal(asked) {
        Ok(normal) => normal,
        Err(odd) => {
            return stray(session, &force, &request, Reason::BadPath, odd.to_string());
        }
    };
    let judged = Judged { scheme: target.scheme, method: method.as_str(), path: &path };
    let ask = Ask { host: &target.host, port: target.port, request: Some(judged) };
    let decision = force.policy.decide(&ask);
    let mut entry = Entry::new(session, &force, &target, judged);
    journal::decided(&mut entry.line, decision);
    let rule = match decision {
        Decision::Allow { rule } => rule,
        Decision::Deny { reason, nearest } => {
            entry.status(403);
            let explanation = force.policy.explain(&ask, reason, nearest);
            return reply::denied(&explanation, request.headers().get(ACCEPT));
        }
    };
    let upgrade =
        headers::wants_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let accept = request.headers().get(ACCEPT).cloned();
    let request = outward(request, &target, uri, upgrade.is_some());
    match send::send(session, &force, rule, &target, request).await {
        Ok((response, upstream)) => {
            entry.line.address = Some(upstream.address);
            entry.status(response.status().as_u16());
            inward(session, &force, &target, upstream, response, upgrade)
        }
        Err(Failure::Closed(address, closed)) => {
            entry.line.address = Some(address);
            entry.deny(Reason::Address, rule);
            entry.status(403);
            let explanation = force.policy.explain_address(&ask, rule, address, closed);
            reply::denied(&explanation, accept.as_ref())
        }
        Err(failure) => {
            let response = reply::failed(&failure, &target);
            entry.status(response.status().as_u16());
            response
        }
    }
}

/// A request without a destination that could be judged.
enum Stray {
    /// It is none for a proxy.
    Bad(&'static str),
    /// It says two things, or one that programs read in two ways.
    Refused(Reason, String),
}

/// Where a request goes: in a tunnel where that goes, else where its URL says. `Host`, server name
/// and URL have to agree, because servers choose by any of them.
fn destination(session: &Session, request: &Request<Incoming>) -> Result<Arc<Target>, Stray> {
    let uri = request.uri();
    let refused = |why| Stray::Refused(Reason::HostMismatch, why);
    let of_url = match uri.authority() {
        None => None,
        Some(authority) => {
            let (host, port) = host::authority(authority.as_str()).map_err(|odd| {
                Stray::Refused(Reason::BadHost, format!("'{authority}' is no host: {odd}"))
            })?;
            let scheme = match uri.scheme_str() {
                Some("https") => Scheme::Https,
                _ => Scheme::Http,
            };
            let port = port.unwrap_or(scheme.port());
            Some(Target { scheme, host: host.into_owned(), port })
        }
    };
    let target = match (&session.tunnel, of_url) {
        (Some(tunnel), of_url) => {
            tunnel.used.store(true, Ordering::Relaxed);
            if let Some(why) = &tunnel.mismatch {
                return Err(refused(why.clone()));
            }
            if of_url.is_some_and(|url| url != *tunnel.target) {
                return Err(refused(format!(
                    "the request is for '{uri}', but the tunnel goes to '{}'",
                    headers::authority(&tunnel.target)
                )));
            }
            tunnel.target.clone()
        }
        (None, Some(target)) if target.scheme == Scheme::Http => Arc::new(target),
        (None, Some(_)) => return Err(Stray::Bad("https goes through CONNECT")),
        (None, None) => return Err(Stray::Bad("this is a proxy, and the request names no host")),
    };
    headers::host_agrees(request.headers(), &target).map_err(refused)?;
    Ok(target)
}

/// Refuses and records a request that cannot be judged.
fn stray(
    session: &Session,
    force: &Force,
    request: &Request<Incoming>,
    reason: Reason,
    why: String,
) -> Response<Answer> {
    let uri = request.uri();
    let path = &uri.path()[..uri.path().floor_char_boundary(WRITTEN)];
    let target = session.tunnel.as_ref().map(|tunnel| &tunnel.target);
    let mut host = match (target, uri.authority()) {
        (Some(target), _) => target.host.to_string(),
        (None, Some(authority)) => authority.to_string(),
        (None, None) => String::new(),
    };
    host.truncate(host.floor_char_boundary(WRITTEN));
    let generation = force.policy.routes().generation;
    let method = request.method().as_str();
    let mut line = journal::line(Kind::Http, session.client, method, &*host, generation);
    line.scheme = Some(target.map_or(Scheme::Http, |target| target.scheme));
    line.port = target.map(|target| target.port);
    line.path = Some(path.into());
    (line.reason, line.status) = (Some(reason), Some(403));
    session.egress.journal.record(&line);
    let asked = format!("{method} {host}{path}");
    reply::denied(&force.policy.refusal(reason, asked, why), request.headers().get(ACCEPT))
}

/// The path as it is judged, and the same with its query as it is sent.
fn normal(asked: Option<&PathAndQuery>) -> Result<(Path<'_>, Uri), Odd> {
    let path = normal_path(asked.map_or("/", PathAndQuery::path))?;
    let uri = match asked {
        Some(asked) if asked.path() == path.as_str() => Ok(asked.clone()),
        asked => match asked.and_then(PathAndQuery::query) {
            None => path.as_str().parse(),
            Some(query) => format!("{}?{query}", path.as_str()).parse(),
        },
    };
    Ok((path, uri.map_err(|_| Odd("path and query are too long"))?.into()))
}

/// The request as it goes out: the path as it was judged, the host that is dialled, no header of
/// this hop.
fn outward(
    request: Request<Incoming>,
    target: &Target,
    uri: Uri,
    websocket: bool,
) -> Request<Upload> {
    let (mut parts, body) = request.into_parts();
    parts.uri = uri;
    parts.version = Version::HTTP_11;
    headers::outward(&mut parts.headers, target);
    if websocket {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let body = if body.is_end_stream() { Upload::Empty } else { Upload::Relayed(body) };
    Request::from_parts(parts, body)
}

/// The answer as it goes to the client, frame by frame as it comes.
fn inward(
    session: &Arc<Session>,
    force: &Arc<Force>,
    target: &Arc<Target>,
    upstream: Upstream,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Response<Answer> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switched(session, response, upgrade);
    }
    headers::strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let (force, target) = (force.clone(), target.clone());
    let home = Home { lane: session.lane, force, target, upstream };
    response.map(|body| {
        if body.is_end_stream() {
            home.go();
            return Answer::Own(None);
        }
        Answer::Relayed(Relayed { body, home: Some(home) })
    })
}

/// Joins both sides of a WebSocket.
fn switched(
    session: &Arc<Session>,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Response<Answer> {
    let Some(upgrade) = upgrade else {
        return reply::text(StatusCode::BAD_GATEWAY, "the server changed the protocol unasked\n");
    };
    let server = hyper::upgrade::on(&mut response);
    let session = session.clone();
    tokio::spawn(async move {
        if let (Ok(client), Ok(server)) = tokio::join!(upgrade, server) {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        drop(session);
    });
    headers::strip(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.map(|_| Answer::Own(None))
}

/// The line of one request, recorded when its status is known or when the client has gone.
struct Entry<'a> {
    journal: &'a Journal,
    line: DecisionLine<'a>,
}

impl<'a> Entry<'a> {
    fn new(session: &'a Session, force: &Force, target: &'a Target, judged: Judged<'a>) -> Self {
        let host: Cow<'a, str> = match &target.host {
            Host::Name(name) => (&**name).into(),
            Host::Address(_) => target.host.to_string().into(),
        };
        let generation = force.policy.routes().generation;
        let mut line = journal::line(Kind::Http, session.client, judged.method, host, generation);
        line.scheme = Some(target.scheme);
        line.port = Some(target.port);
        line.path = Some(judged.path.as_str().into());
        Self { journal: &session.egress.journal, line }
    }

    fn deny(&mut self, reason: Reason, nearest: usize) {
        self.line.decision = Verdict::Deny;
        (self.line.rule, self.line.reason, self.line.nearest) = (None, Some(reason), Some(nearest));
    }

    fn status(&mut self, status: u16) {
        self.line.status = Some(status);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.journal.record(&self.line);
    }
}
