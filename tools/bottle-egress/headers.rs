//! Headers that concern one hop only, and the ones that say where a request goes.

use bottle::host::{self, Odd};
use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

use crate::pool::Target;

/// Headers that are never passed on, whatever `Connection` says.
static HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what concerns this hop only; hyper then frames the body anew. `TE: trailers` stays,
/// because trailers are passed on.
pub(crate) fn strip(headers: &mut HeaderMap) {
    // Most heads have none, and a comparison costs less than a search for each.
    if !headers.keys().any(|name| HOP.contains(name)) {
        return;
    }
    let trailers =
        headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = named(headers).filter(|name| *name != CONTENT_LENGTH).collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The headers that `Connection` names.
fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
}

/// Makes a request's headers fit for the upstream server; `Host` is set when it is sent.
pub(crate) fn outward(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(HOST);
}

/// HTTP/2 may send one `Cookie` in parts, of which servers of HTTP/1 read only the first.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_some() && cookies.next().is_some() {
        let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Whether a request asks for a WebSocket. Other upgrades are not passed on, which a server may do
/// with any: the request then goes as it is.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE);
    asked.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && named(headers).any(|name| name == UPGRADE)
}

/// Whether a request is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the client waits for the server's word before it sends the body.
pub(crate) fn waits(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether `Host`, if it is there, says the same as the target; it may leave out the port.
pub(crate) fn host_agrees(headers: &HeaderMap, target: &Target) -> Result<(), String> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else { return Ok(()) };
    if values.next().is_some() {
        return Err("there are two 'Host' headers".into());
    }
    let odd = Odd("it is not ASCII");
    let (host, port) = value
        .to_str()
        .map_err(|_| odd)
        .and_then(host::authority)
        .map_err(|odd| format!("the 'Host' header is no host: {odd}"))?;
    if host == target.host && port.is_none_or(|port| port == target.port) {
        return Ok(());
    }
    Err(format!(
        "the 'Host' header says '{}', but the request goes to '{}'",
        value.to_str().unwrap_or_default(),
        authority(target)
    ))
}

/// Host, and port where it is not the usual one.
pub(crate) fn authority(target: &Target) -> String {
    if target.port == target.scheme.port() {
        target.host.to_string()
    } else {
        format!("{}:{}", target.host, target.port)
    }
}
