//! Where a request goes, and what is refused because nobody could say: `Host`, TLS server name and
//! URL have to agree, because servers choose by any of them, and a path has one form.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bottle::host::{self, Odd};
use bottle::policy::{DecisionLine, Kind, Path, Reason, Scheme, normal_path};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};

use crate::body::Answer;
use crate::conf::Force;
use crate::headers;
use crate::journal;
use crate::pool::Target;
use crate::proxy::{Egress, Session};
use crate::reply;
use crate::strict::TOO_LONG;

/// The longest path or host of a request that cannot be judged, as it is written down.
const WRITTEN: usize = 1024;

/// A request without a destination that could be judged.
pub(crate) enum Stray {
    /// It is none for a proxy.
    Bad(&'static str),
    /// It says two things, or one that programs read in two ways.
    Refused(Reason, String),
}

/// Where a request goes: in a tunnel where that goes, else where its URL says.
pub(crate) fn destination(
    session: &Session,
    request: &Request<Incoming>,
) -> Result<Arc<Target>, Stray> {
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

/// The path as it is judged, and the same with its query as it is sent.
pub(crate) fn normal(asked: Option<&PathAndQuery>) -> Result<(Path<'_>, Uri), Odd> {
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

/// Why an address that is none of the bottle's gets nothing.
pub(crate) fn stranger(client: IpAddr) -> String {
    format!("{client} is the address of nobody in the bottle who may ask")
}

/// Refuses and records a request that cannot be judged.
pub(crate) fn stray(
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
    let method = request.method().as_str();
    let mut line = journal::line(Kind::Http, session.client, method, &*host, force);
    line.scheme = Some(target.map_or(Scheme::Http, |target| target.scheme));
    line.port = target.map(|target| target.port);
    line.path = Some(path.into());
    (line.reason, line.status) = (Some(reason), Some(403));
    session.egress.journal.record(&line);
    let asked = format!("{method} {host}{path}");
    reply::denied(&force.policy.refusal(reason, asked, why), request.headers().get(ACCEPT))
}

/// Refuses a request that is framed in a way that programs read differently, and ends the
/// connection, because nobody knows where the next one begins.
pub(crate) fn malformed(
    session: &Session,
    why: &str,
    accept: Option<&HeaderValue>,
) -> Response<Answer> {
    let force = session.egress.conf.force();
    let target = session.tunnel.as_ref().map(|tunnel| &tunnel.target);
    if let Some(tunnel) = &session.tunnel {
        tunnel.used.store(true, Ordering::Relaxed);
    }
    let host = target.map(|target| target.host.to_string()).unwrap_or_default();
    let mut line = journal::line(Kind::Http, session.client, "", &*host, &force);
    line.scheme = Some(target.map_or(Scheme::Http, |target| target.scheme));
    line.port = target.map(|target| target.port);
    unclear(&session.egress, &force, line, why, accept)
}

/// Records such a request, and says what is wrong with it.
pub(crate) fn unclear(
    egress: &Egress,
    force: &Force,
    mut line: DecisionLine<'_>,
    why: &str,
    accept: Option<&HeaderValue>,
) -> Response<Answer> {
    let status = match why {
        TOO_LONG => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    (line.reason, line.status) = (Some(Reason::Framing), Some(status.as_u16()));
    egress.journal.record(&line);
    let host = &line.host;
    let why = format!("the request can be read in more than one way: {why}");
    let asked = format!("a request that cannot be told apart, to '{host}'");
    let explanation = force.policy.refusal(Reason::Framing, asked, why);
    let mut response = reply::denied(&explanation, accept);
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
