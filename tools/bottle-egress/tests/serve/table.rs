//! The table of requests, tests/fixtures/egress/requests.yaml, against a running engine. Each row is
//! sent on a connection of its own, byte for byte, and what the origin saw of it is compared.

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::Deserialize;

use crate::client::trusting;
use crate::origin::{Duplex, Seen, head};
use crate::support::{Bottle, PATIENCE, mitmdump};

/// The file, whose head says what its fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) rules: String,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) name: String,
    over: Over,
    to: Option<String>,
    sni: Option<String>,
    #[serde(default)]
    send: Vec<String>,
    raw: Option<String>,
    #[serde(default)]
    fields: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    pub(crate) expect: String,
    sees: Option<String>,
    host: Option<String>,
    #[serde(default)]
    lacks: Vec<String>,
    mitmproxy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    Plain,
    Connect,
    Tls,
    H2,
}

/// What an engine has to offer for a run.
pub(crate) struct Engine<'a> {
    pub(crate) proxy: SocketAddr,
    /// `$A` of the table.
    pub(crate) address: Ipv4Addr,
    /// Trusts the engine's CA and nothing else.
    pub(crate) trust: Arc<ClientConfig>,
    /// What the origins have seen since it was asked last.
    pub(crate) seen: &'a dyn Fn() -> Vec<Seen>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allow,
    Denied(String),
    /// How it ended otherwise.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Denied(reason) => f.write_str(reason),
            Self::Broken(_) => f.write_str("broken"),
        }
    }
}

impl Table {
    pub(crate) fn read() -> Self {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/egress/requests.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        bottle::strict::yaml(&text, "requests.yaml").unwrap_or_else(|e| panic!("{e:#}"))
    }
}

impl Row {
    /// What the engine under test has to do.
    fn expected(&self) -> &str {
        self.mitmproxy.as_deref().filter(|_| mitmdump().is_some()).unwrap_or(&self.expect)
    }
}

impl Engine<'_> {
    /// Sends a row and says in which way it went otherwise than `expect`.
    pub(crate) fn differs(&self, row: &Row, expect: &str) -> Option<String> {
        let outcome = self.send(row);
        let seen = (self.seen)();
        let name = &row.name;
        if outcome.to_string() != expect {
            return Some(format!("{name}: {outcome:?} instead of '{expect}', seen {seen:?}"));
        }
        if expect != "allow" {
            return (!seen.is_empty()).then(|| format!("{name}: the origin saw {seen:?}"));
        }
        let [seen] = &*seen else { return Some(format!("{name}: the origin saw {seen:?}")) };
        let line = seen.line.rsplit_once(' ').map_or("", |(line, _)| line);
        let fill = |text: &str| text.replace("$A", &self.address.to_string());
        let wanted = fill(row.sees.as_deref().expect("what is allowed says what the origin sees"));
        let host = row.host.as_deref().map(fill);
        let lacks = row.lacks.iter().all(|header| seen.header(header).is_none());
        (line != wanted || (host.is_some() && seen.header("host") != host.as_deref()) || !lacks)
            .then(|| format!("{name}: the origin saw {seen:?}"))
    }

    /// Sends a row and reads what comes back.
    pub(crate) fn send(&self, row: &Row) -> Outcome {
        let fill = |text: &str| text.replace("$A", &self.address.to_string());
        let bytes = row.raw.clone().unwrap_or_else(|| {
            row.send.iter().fold(String::new(), |all, line| all + line + "\r\n") + "\r\n"
        });
        let bytes = fill(&bytes) + &fill(&row.body);
        let stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        if row.over == Over::Plain {
            return talk(Box::new(stream), bytes.as_bytes());
        }
        let to = fill(row.to.as_deref().expect("the row says where its CONNECT goes"));
        let mut stream = BufReader::new(stream);
        let connect = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
        stream.get_mut().write_all(connect.as_bytes()).unwrap();
        match head(&mut stream) {
            None => return Outcome::Broken("no answer to the CONNECT".into()),
            Some(head) if head.line.contains(" 200") => {}
            Some(head) => return outcome(&head, &mut stream),
        }
        let stream = stream.into_inner();
        if row.over == Over::Connect {
            return talk(Box::new(stream), bytes.as_bytes());
        }
        let mut config = ClientConfig::clone(&self.trust);
        let asked = row.sni.as_deref().map(fill);
        config.enable_sni = asked.as_deref() != Some("");
        if row.over == Over::H2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let host = to.rsplit_once(':').unwrap().0.trim_end_matches('.').to_owned();
        let name = asked.filter(|asked| !asked.is_empty()).unwrap_or(host);
        let name = ServerName::try_from(name).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = Box::new(StreamOwned::new(session, stream));
        if row.over == Over::Tls {
            return talk(stream, bytes.as_bytes());
        }
        let fields: Vec<_> =
            row.fields.iter().map(|(name, value)| (fill(name), fill(value))).collect();
        talk_h2(stream, &fields, row.body.as_bytes())
    }
}

/// HTTP/1: the bytes, and what comes back.
fn talk(mut stream: Box<dyn Duplex>, bytes: &[u8]) -> Outcome {
    // Who has refused already may have gone.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut stream = BufReader::new(stream);
    match head(&mut stream) {
        Some(head) => outcome(&head, &mut stream),
        None => Outcome::Broken("the connection ended".into()),
    }
}

/// What an answer means.
fn outcome(head: &Seen, stream: &mut impl Read) -> Outcome {
    let length = head.header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = stream.read_exact(&mut body);
    meant(&head.line, &String::from_utf8_lossy(&body))
}

fn meant(line: &str, body: &str) -> Outcome {
    let reason = body
        .split_once("denied this request (")
        .and_then(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
    match reason {
        Some(reason) => Outcome::Denied(reason),
        None if body == "in" => Outcome::Allow,
        None => Outcome::Broken(format!("{line}: {body}")),
    }
}

/// HTTP/2: one request, in frames written by hand, so that nothing tidies it up.
fn talk_h2(mut stream: Box<dyn Duplex>, fields: &[(String, String)], body: &[u8]) -> Outcome {
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal, without indexing, not compressed.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a longer string has a longer length");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    let end = u8::from(body.is_empty());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block));
    if !body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, body));
    }
    let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Outcome::Broken("the connection ended".into());
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Broken("the connection ended".into());
        }
        match head[3] {
            RST_STREAM => return Outcome::Broken(format!("the stream was reset: {payload:?}")),
            GOAWAY => return Outcome::Broken(format!("the connection was ended: {payload:?}")),
            DATA => answer.extend(payload),
            _ => {}
        }
        if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
            return meant("HTTP/2", &String::from_utf8_lossy(&answer));
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![0, length[0], length[1], kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

#[test]
fn requests_of_the_table_are_allowed_and_refused_as_it_says() {
    let table = Table::read();
    let allowed = table.rows.iter().filter(|row| row.expect == "allow").count();
    assert!(
        table.rows.len() >= 80 && 2 * allowed >= table.rows.len(),
        "{allowed} of {}",
        table.rows.len()
    );
    let bottle = Bottle::with_rules(&table.rules);
    for (name, address) in [
        ("any.test", bottle.address.into()),
        ("wild.origin.test", bottle.address.into()),
        ("rebound.test", bottle.address.to_ipv6_mapped().into()),
        ("localhost", std::net::IpAddr::from(bottle.address)),
    ] {
        bottle.names.set(name, &[address]);
    }
    let names = ["origin.test", "any.test", "wild.origin.test", &bottle.address.to_string()];
    let answer = |e: &mut crate::origin::Exchange<'_>| {
        e.body();
        e.answer("in");
    };
    let tls = bottle.tls_origin_as(&names, answer);
    let plain = bottle.plain_origin(answer);
    let engine = Engine {
        proxy: bottle.proxy(),
        address: bottle.address,
        trust: trusting(&bottle),
        seen: &|| [tls.take(), plain.take()].concat(),
    };
    let wrong: Vec<_> =
        table.rows.iter().filter_map(|row| engine.differs(row, row.expected())).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.rows.len(), wrong.join("\n"));
}
