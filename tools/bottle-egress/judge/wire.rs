//! Questions and verdicts on their way between the proxy and the judge: a JSON object a line, and
//! behind it the bytes that it announces.

use std::io::{BufRead, Read, Write};
use std::net::IpAddr;

use anyhow::{Result, bail};
use bottle::error::Blame;
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::body::Answer;
use crate::proxy::BUFFER;
use crate::reply;

/// The longest question, and the most bytes behind one: a head is no longer.
const LONGEST: u64 = 1 << 20;

/// Names and values, each byte as the character of that number.
pub(super) type Lines = Vec<(String, String)>;

/// What the proxy asks or tells.
#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Question {
    /// It listens now.
    Ready,
    /// May this tunnel be opened?
    Connect { id: u64, client: IpAddr, authority: String, headers: Lines },
    /// May this request leave?
    Request(Box<Asked>),
    /// What to answer to a request that programs read differently?
    Malformed { id: u64, client: IpAddr, tunnel: Option<Within>, why: String },
    /// May these bytes of its body leave, or those that have waited for `long`? `size` bytes follow.
    Body { id: u64, of: u64, size: u64, end: bool, long: bool },
    /// May these trailers of its body leave?
    Trailers { id: u64, of: u64, headers: Lines },
    /// What becomes of the head of its answer, or of the trailers, where a credential is masked?
    Answer { id: u64, of: u64, headers: Lines },
    /// What becomes of the body of its answer then? `size` bytes follow.
    Back { id: u64, of: u64, size: u64, end: bool },
    /// A request that was allowed is over, or a tunnel of which no request came.
    End { of: u64, status: Option<u16>, sent: u64, received: u64 },
    /// A request came of a tunnel, and then is the line in the journal.
    Used { of: u64 },
}

/// One request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) client: IpAddr,
    /// Set inside a CONNECT.
    pub(super) tunnel: Option<Within>,
    pub(super) method: String,
    /// That of the URL, or `:scheme`; empty where there is none.
    pub(super) scheme: String,
    /// Host and port of the URL, or `:authority`; empty where there is none.
    pub(super) authority: String,
    /// Path and query as they came.
    pub(super) path: String,
    pub(super) headers: Lines,
    /// Addresses to which this client has connections for that host.
    pub(super) dialled: Vec<IpAddr>,
}

/// The tunnel that a request came by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    /// As the verdict on its CONNECT named it.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// The TLS server name, where the client gave one.
    pub(super) server_name: Option<String>,
}

impl Question {
    /// How many bytes follow it.
    fn size(&self) -> u64 {
        match self {
            Self::Body { size, .. } | Self::Back { size, .. } => *size,
            _ => 0,
        }
    }
}

/// The verdict on one question; to `ready`, which is question 0, none.
#[derive(Default, Serialize)]
pub(super) struct Answered {
    pub(super) id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<Opened>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allow: Option<Allowed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refuse: Option<Refused>,
    /// How many of the last bytes of the body have to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Changes>,
    /// How many bytes follow, which take the place of those asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<usize>,
}

/// A tunnel that may be opened.
#[derive(Serialize)]
pub(super) struct Opened {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A request that may leave, and how.
#[derive(Serialize)]
pub(super) struct Allowed {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    #[serde(rename = "headers")]
    pub(super) changes: Changes,
    pub(super) addresses: Vec<IpAddr>,
    /// Whether its body has to be asked about.
    pub(super) scan: bool,
    /// Whether its answer has to be.
    pub(super) mask: bool,
}

/// What to take from headers, and then what to put there.
#[derive(Default, Serialize)]
pub(super) struct Changes {
    #[serde(serialize_with = "names")]
    pub(super) remove: Vec<HeaderName>,
    pub(super) set: Lines,
}

fn names<S: serde::Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

/// The answer to give in place of the server's.
#[derive(Serialize)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) headers: Lines,
    pub(super) body: String,
}

impl From<Response<Answer>> for Refused {
    fn from(response: Response<Answer>) -> Self {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), chars(value))).collect();
        let status = response.status().as_u16();
        let body = match response.into_body() {
            Answer::Own(Some(body)) => String::from_utf8_lossy(&body).into_owned(),
            _ => String::new(),
        };
        Self { status, headers, body }
    }
}

/// Headers as hyper holds them; pseudo-headers are none.
pub(super) fn header_map(lines: &Lines) -> Result<HeaderMap, Box<Response<Answer>>> {
    let bad = || Box::new(reply::bad("a header is none"));
    let size: usize = lines.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > BUFFER {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Box::new(reply::text(status, "the head of the request is too long\n")));
    }
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines.iter().filter(|(name, _)| !name.starts_with(':')) {
        let value = bytes(value);
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        let value = value.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).ok_or_else(bad)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(lines: &Lines) -> bool {
    let kind = lines.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    kind.is_some_and(|(_, kind)| kind.starts_with("application/grpc"))
}

/// The bytes that such characters stand for.
pub(super) fn bytes(chars: &str) -> Option<Vec<u8>> {
    chars.chars().map(|c| u8::try_from(c).ok()).collect()
}

pub(super) fn chars(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// The next question and the bytes behind it; `None` where stdin has ended or is not read whole.
pub(super) fn read(stdin: &mut impl BufRead) -> Result<Option<(Question, Bytes)>> {
    let mut line = Vec::new();
    match stdin.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
        Ok(1..) if line.ends_with(b"\n") => {}
        _ => return Ok(None),
    }
    let question: Question = serde_json::from_slice(&line).caller("read a question")?;
    let size = question.size();
    if size > LONGEST {
        bail!("read a question: {size} bytes are too many");
    }
    let mut bytes = Vec::new();
    let whole = stdin.by_ref().take(size).read_to_end(&mut bytes);
    let whole = whole.is_ok_and(|count| u64::try_from(count).is_ok_and(|count| count == size));
    Ok(whole.then(|| (question, bytes.into())))
}

/// Tells the proxy; one that went away needs no answer.
pub(super) fn say(verdict: &Answered, bytes: &[u8]) {
    // Strings and numbers always serialise.
    if let Ok(mut text) = serde_json::to_vec(verdict) {
        text.push(b'\n');
        text.extend_from_slice(bytes);
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&text).and_then(|()| stdout.flush());
    }
}
