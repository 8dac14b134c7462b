//! The proxy behind egress, pipelock. It sees names, not addresses: a tunnel by CONNECT to the host
//! that was judged, and plain HTTP in the absolute form, because it takes all that comes through a
//! CONNECT for TLS.
//!
//! Egress has resolved the name and checked its addresses by then. The parent resolves it again,
//! which cannot be avoided, and checks what it finds itself: what egress keeps closed is on its list.

use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use bottle::error::visible;
use bottle::policy::Reason;
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, Scheme as UriScheme};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::body::Upload;
use crate::pool::Target;
use crate::proxy::{BUFFER, keep_alive};
use crate::reply::Refusal;

/// How long the parent may take to accept a connection. It is next door.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to open a tunnel: it resolves and connects first.
const OPEN: Duration = Duration::from_secs(30);

/// How much of its words are kept.
const WORDS: usize = 1024;

/// Why there is no way through the parent.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It does not let this request through.
    Refused(StatusCode, String),
    /// It would, but could not reach the server.
    Failed(StatusCode, String),
    /// It is not there, or does not speak as it should.
    Away(SocketAddrV4, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status, words) => {
                write!(f, "pipelock refuses it ({}): {words}", status.as_u16())
            }
            Self::Failed(status, words) => {
                write!(f, "pipelock could not reach it ({}): {words}", status.as_u16())
            }
            Self::Away(parent, why) => write!(
                f,
                "pipelock, by which all that leaves goes, does not answer at {parent}: {why}"
            ),
        }
    }
}

/// A connection to the parent.
pub(crate) async fn connect(parent: SocketAddrV4) -> Result<TcpStream, Trouble> {
    let stream = timeout(CONNECT, TcpStream::connect(parent))
        .await
        .map_err(|_| Trouble::Away(parent, "it took too long".into()))?
        .map_err(|error| Trouble::Away(parent, error.to_string()))?;
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    Ok(stream)
}

/// A tunnel through the parent to the target, and what has come out of it already.
pub(crate) async fn tunnel(
    parent: SocketAddrV4,
    target: &Target,
) -> Result<(TcpStream, Bytes), Trouble> {
    let away = |why: String| Trouble::Away(parent, why);
    let stream = connect(parent).await?;
    let asked = async {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let request = request(target).map_err(|error| away(error.to_string()))?;
        let response =
            sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
        let status = response.status();
        if status == StatusCode::OK {
            let upgraded =
                hyper::upgrade::on(response).await.map_err(|error| away(error.to_string()))?;
            let parts = upgraded
                .downcast::<TokioIo<TcpStream>>()
                .map_err(|_| away("the tunnel is of another kind".into()))?;
            return Ok((parts.io.into_inner(), parts.read_buf));
        }
        let words = words(response).await;
        let is_refused = status.is_client_error();
        Err(if is_refused { Trouble::Refused } else { Trouble::Failed }(status, words))
    };
    timeout(OPEN, asked)
        .await
        .unwrap_or_else(|_| Err(away("it took too long to open a tunnel".into())))
}

/// The CONNECT.
fn request(target: &Target) -> Result<Request<Upload>, hyper::http::Error> {
    let authority = format!("{}:{}", target.host, target.port);
    Request::connect(&*authority)
        .header(HOST, HeaderValue::try_from(&authority)?)
        .body(Upload::Empty)
}

/// A request's URL as the parent needs it where there is no tunnel.
pub(crate) fn absolute(target: &Target, uri: &Uri) -> Result<Uri, hyper::http::Error> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(UriScheme::HTTP);
    parts.authority = Some(Authority::try_from(format!("{}:{}", target.host, target.port))?);
    Ok(Uri::from_parts(parts)?)
}

/// A refusal of what the rules allow, in the parent's own words.
pub(crate) fn refusal(words: &str) -> Refusal {
    let why = format!(
        "the rules of the bottle allow it, and pipelock, which is behind them, refuses: {words}"
    );
    Refusal { reason: Reason::Parent, why }
}

/// What the parent says in its answer, on one line, fit to be shown.
async fn words(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < WORDS {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { break };
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
    }
    text.truncate(WORDS);
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        "" => "it does not say why".to_owned(),
        words => visible(words),
    }
}

#[cfg(test)]
mod tests {
    use bottle::host::Host;
    use bottle::policy::Scheme;

    use super::*;

    #[test]
    fn host_and_port_are_always_named() {
        for (host, port, authority) in [
            (Host::Name("a.example".into()), 443, "a.example:443"),
            (Host::Address([192, 0, 2, 7].into()), 80, "192.0.2.7:80"),
            (Host::Address("2001:db8::1".parse().unwrap()), 8443, "[2001:db8::1]:8443"),
        ] {
            let target = Target { scheme: Scheme::Http, host, port };
            let request = request(&target).unwrap();
            assert_eq!(request.uri().to_string(), authority);
            assert_eq!(request.headers()[HOST], authority);
            let uri = absolute(&target, &Uri::from_static("/a%20b?c")).unwrap();
            assert_eq!(uri.to_string(), format!("http://{authority}/a%20b?c"));
        }
    }
}
