//! `bottle-probe origin`: a small web site over HTTP and HTTPS, a thread a connection, for the
//! demonstration, the tests and the benchmark. Not meant for the outside world.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bottle::Blame;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::args::Origin;
use crate::sleep;
use crate::wire::{Body, Head};

/// The most of a body that `/echo` gives back.
const MAX_ECHO: usize = 1 << 20;

/// What `/bytes/N` repeats: 251 is prime, so a piece that is lost or doubled shows.
const PERIOD: usize = 251;

pub(crate) fn serve(args: &Origin) -> Result<ExitCode> {
    let (config, ca) = certificates(&args.name).world("make certificates")?;
    let https = listen(args.https)?;
    let http = listen(args.http)?;
    let ready = format!(
        "https {}\nhttp {}\n{ca}",
        https.local_addr().world("listen")?,
        http.local_addr().world("listen")?
    );
    let config = Arc::new(config);
    std::thread::spawn(move || accept(&https, Some(&config)));
    std::thread::spawn(move || accept(&http, None));
    let mut stdout = std::io::stdout();
    stdout.write_all(ready.as_bytes()).world("tell that it serves")?;
    stdout.flush().world("tell that it serves")?;
    sleep::until_signal(None)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).world(format!("listen on '{address}'"))
}

/// A CA, and a certificate of it for the names; gives the certificate of the CA as PEM.
fn certificates(names: &[String]) -> Result<(ServerConfig, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "bottle-probe origin");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(names)?;
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, ca))
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
    for socket in listener.incoming().flatten() {
        let tls = tls.map(Arc::clone);
        // A connection that fails is the client's to notice.
        std::thread::spawn(move || greet(socket, tls));
    }
}

fn greet(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match tls {
        None => converse(socket, "http"),
        Some(config) => {
            let session = ServerConnection::new(config).map_err(io::Error::other)?;
            converse(StreamOwned::new(session, socket), "https")
        }
    }
}

/// Answers requests until the client ends.
fn converse(stream: impl Read + Write, scheme: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(head) = Head::read(&mut stream)? {
        if head.header("expect").is_some() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (body, length) = take_body(&head, &mut stream)?;
        let mut words = head.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let to = stream.get_mut();
        match parts.as_slice() {
            [""] => respond(to, method, 200, "text/plain", b"this is the origin\n")?,
            ["bytes", count] => bytes(to, method, count.parse().unwrap_or(0))?,
            ["status", code] => {
                respond(to, method, code.parse().unwrap_or(400), "text/plain", b"")?;
            }
            ["sse", rest @ ..] => {
                let number =
                    |at: usize, or| rest.get(at).and_then(|n| n.parse().ok()).unwrap_or(or);
                events(to, number(0, 10), Duration::from_millis(number(1, 100)))?;
            }
            ["echo", ..] => {
                let told = json!({
                    "scheme": scheme, "method": method, "path": target, "headers": head.headers,
                    "body": String::from_utf8_lossy(&body), "body_bytes": length,
                });
                respond(to, method, 200, "application/json", format!("{told}\n").as_bytes())?;
            }
            _ => respond(to, method, 404, "text/plain", b"no such page at the origin\n")?,
        }
        if head.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// Reads the whole body; keeps the beginning, counts all.
fn take_body(head: &Head, stream: &mut impl BufRead) -> io::Result<(Vec<u8>, u64)> {
    let (mut kept, mut length) = (Vec::new(), 0);
    head.body(Body::Length(0))?.read(stream, &mut |piece| {
        length += piece.len() as u64;
        kept.extend_from_slice(&piece[..piece.len().min(MAX_ECHO - kept.len())]);
        Ok(())
    })?;
    Ok((kept, length))
}

fn head(status: u16, kind: &str, length: &str) -> String {
    format!("HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n", reason(status))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        _ => "As Asked",
    }
}

fn respond(
    to: &mut impl Write,
    method: &str,
    status: u16,
    kind: &str,
    body: &[u8],
) -> io::Result<()> {
    let mut message = head(status, kind, &format!("Content-Length: {}", body.len())).into_bytes();
    if method != "HEAD" {
        message.extend_from_slice(body);
    }
    to.write_all(&message)?;
    to.flush()
}

fn bytes(to: &mut impl Write, method: &str, count: usize) -> io::Result<()> {
    let length = format!("Content-Length: {count}");
    to.write_all(head(200, "application/octet-stream", &length).as_bytes())?;
    let piece: Vec<u8> = (0..=250).cycle().take(PERIOD * 512).collect();
    let mut left = if method == "HEAD" { 0 } else { count };
    while left > 0 {
        let size = left.min(piece.len());
        to.write_all(&piece[..size])?;
        left -= size;
    }
    to.flush()
}

/// Server-sent events, each flushed by itself, as a model sends its words.
fn events(to: &mut impl Write, count: u64, pause: Duration) -> io::Result<()> {
    to.write_all(head(200, "text/event-stream", "Transfer-Encoding: chunked").as_bytes())?;
    to.flush()?;
    for number in 1..=count {
        if number > 1 {
            std::thread::sleep(pause);
        }
        let event = format!("data: {number}\n\n");
        write!(to, "{:x}\r\n{event}\r\n", event.len())?;
        to.flush()?;
    }
    to.write_all(b"0\r\n\r\n")?;
    to.flush()
}
