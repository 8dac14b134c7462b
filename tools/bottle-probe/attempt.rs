//! The single attempts, each within a deadline: a request, a DNS query.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use bottle::verdict::Got;
use rustix::io::Errno;

use crate::fetch::{Client, Url};

/// What happened, and that in words.
pub(crate) type Outcome = (Got, String);

/// Sends a request. An answer counts as egress's denial only with egress's own header: a 403 of
/// the server itself means that the request got there.
pub(crate) fn request(client: &Client, method: &str, url: &Url, limit: Duration) -> Outcome {
    match client.send(method, url, b"", Instant::now() + limit) {
        Ok(answer) => match answer.head.header("x-bottle-denied") {
            Some(reason) => (Got::Denied, format!("{} {reason}", answer.status)),
            None if matches!(answer.status, 502 | 504) && client.proxy_host().is_some() => {
                (Got::Failed, format!("{}: egress does not reach the server", answer.status))
            }
            None => (Got::Passed, answer.status.to_string()),
        },
        Err(e) if timed_out(&e) => silent(limit),
        Err(e) => (Got::Failed, e.to_string()),
    }
}

/// Asks a resolver for the address of a name. That there is no such name is an answer too: only
/// somebody outside knows it.
pub(crate) fn resolve(name: &str, server: IpAddr, limit: Duration) -> Outcome {
    match ask(name, server, limit) {
        Ok(0) => (Got::Passed, "found".to_owned()),
        Ok(3) => (Got::Passed, "no such name".to_owned()),
        Ok(2) => (Got::Denied, "server failure".to_owned()),
        Ok(5) => (Got::Denied, "refused".to_owned()),
        Ok(code) => (Got::Denied, format!("error {code}")),
        Err(e) if timed_out(&e) => silent(limit),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            (Got::Unreachable, "nobody serves DNS there".to_owned())
        }
        Err(e) => (Got::Unreachable, Errno::from_io_error(&e).map_or(e.to_string(), words)),
    }
}

/// Sends a query of type A, RFC 1035 section 4, and gives the code of the response.
fn ask(name: &str, server: IpAddr, limit: Duration) -> io::Result<u8> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, 53))?;
    let id = std::process::id().to_be_bytes();
    let mut query = vec![id[2], id[3], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).ok().filter(|length| *length < 64).ok_or_else(
            || io::Error::new(ErrorKind::InvalidInput, "a label is longer than 63 bytes"),
        )?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query)?;
    let end = Instant::now() + limit;
    let mut response = [0; 512];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut response)?;
        if length >= 12 && response[..2] == query[..2] {
            return Ok(response[3] & 15);
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

pub(crate) fn silent(limit: Duration) -> Outcome {
    (Got::Silent, format!("no answer in {} ms", limit.as_millis()))
}

pub(crate) fn words(code: Errno) -> String {
    let text = io::Error::from(code).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
