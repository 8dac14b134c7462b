//! Inside a CONNECT: finds out what is spoken, intercepts TLS, and holds the server name that the
//! client asks for against the host that the CONNECT named.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bottle::host::{Host, request_host};
use bottle::policy::{Decision, Kind, Reason, Scheme};
use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::conf::Force;
use crate::hello::HANDSHAKE;
use crate::journal;
use crate::passthrough;
use crate::pool::Target;
use crate::prefixed::Prefixed;
use crate::proxy::{self, Session};
use crate::strict::Strict;
use crate::tls;

/// How long a client may take to begin, and to agree on TLS.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What requests inside a CONNECT are held against.
pub(crate) struct Tunnel {
    /// What the CONNECT named.
    pub(crate) target: Arc<Target>,
    /// Set where the TLS server name is another.
    pub(crate) mismatch: Option<String>,
    /// Whether a request came, which then is the line in the journal.
    pub(crate) used: AtomicBool,
}

/// Serves what comes through a CONNECT.
pub(crate) async fn serve(
    session: &Arc<Session>,
    force: Arc<Force>,
    target: Arc<Target>,
    decision: Decision,
    upgraded: Upgraded,
) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Strict<TcpStream>>>() else { return };
    let (mut stream, held) = parts.io.into_inner().into_parts();
    let mut first = BytesMut::from(&*parts.read_buf);
    first.extend_from_slice(&held);
    if first.is_empty() {
        first.reserve(4096);
        match timeout(PATIENCE, stream.read_buf(&mut first)).await {
            Ok(Ok(1..)) => {}
            _ => return record(session, &target, decision, None),
        }
    }
    let passes = |rule| force.policy.rule(rule).is_some_and(|rule| rule.passthrough);
    if let Decision::Allow { rule } = decision
        && passes(rule)
        && !first[0].is_ascii_uppercase()
    {
        return passthrough::serve(session, force, target, rule, first, stream).await;
    }
    drop(force);
    let first = first.freeze();
    let inner = match first[0] {
        HANDSHAKE => {
            let stream = Prefixed::new(first, stream);
            let served = timeout(PATIENCE, intercept(session, &target, stream)).await;
            let Ok(Ok((inner, stream))) = served else {
                return record(session, &target, decision, None);
            };
            if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2) {
                proxy::serve_many(inner.clone(), stream).await;
            } else {
                proxy::serve(inner.clone(), stream).await;
            }
            inner
        }
        b'A'..=b'Z' => {
            let target = Target { scheme: Scheme::Http, ..Target::clone(&target) };
            let inner = within(session, Arc::new(target), None);
            proxy::serve(inner.clone(), Prefixed::new(first, stream)).await;
            inner
        }
        _ => {
            let decision = Decision::Deny { reason: Reason::NotHttp, nearest: None };
            return record(session, &target, decision, None);
        }
    };
    let used = inner.tunnel.as_ref().is_some_and(|tunnel| tunnel.used.load(Ordering::Relaxed));
    if !used {
        record(session, &target, decision, None);
    }
}

type Intercepted = tokio_rustls::server::TlsStream<Prefixed<TcpStream>>;

/// Agrees on TLS as the host that the client asks for. A name that is not the CONNECT's is let in
/// too, to be told so in an answer that its user can read.
async fn intercept(
    session: &Arc<Session>,
    target: &Arc<Target>,
    stream: Prefixed<TcpStream>,
) -> anyhow::Result<(Arc<Session>, Intercepted)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let asked = start.client_hello().server_name().map(str::to_owned);
    let (host, mismatch) = match asked.as_deref().map(|asked| (asked, request_host(asked))) {
        None => (target.host.clone(), None),
        Some((_, Ok(host))) if host == target.host => (host.into_owned(), None),
        Some((asked, host)) => {
            let why = format!(
                "the TLS server name is '{asked}', but the CONNECT goes to '{}'",
                target.host
            );
            (host.map_or_else(|_| target.host.clone(), Host::into_owned), Some(why))
        }
    };
    let config = session.egress.interceptor.config(&host)?;
    let stream = start.into_stream(config).await?;
    Ok((within(session, target.clone(), mismatch), stream))
}

/// The session of the requests inside.
fn within(outer: &Arc<Session>, target: Arc<Target>, mismatch: Option<String>) -> Arc<Session> {
    Arc::new(Session {
        egress: outer.egress.clone(),
        lane: outer.lane,
        client: outer.client,
        tunnel: Some(Tunnel { target, mismatch, used: AtomicBool::new(false) }),
        raw: AtomicBool::new(false),
        fault: OnceLock::new(),
        place: outer.place.clone(),
    })
}

/// Records a CONNECT that no request came of.
pub(crate) fn record(session: &Session, target: &Target, decision: Decision, status: Option<u16>) {
    let host = target.host.to_string();
    let force = session.egress.conf.force();
    let mut line = journal::line(Kind::Connect, session.client, "CONNECT", host, &force);
    (line.port, line.status) = (Some(target.port), status);
    journal::decided(&mut line, decision);
    session.egress.journal.record(&line);
}
