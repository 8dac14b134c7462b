//! One request to a URL, through a proxy or straight, with a deadline on every step.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::{Blame, caller};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wire::{Body, Head};

/// The part of a URL that a request needs.
#[derive(Debug, Clone)]
pub(crate) struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || caller(format!("read URL '{text}': it has to look like 'https://host[:port]/path'"));
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        // A colon within brackets belongs to an address, not to a port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        if host.is_empty() || host.contains('@') {
            return Err(bad());
        }
        Ok(Self { tls, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != usual {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

/// How requests leave: by which proxy, and whom they trust.
#[derive(Debug)]
pub(crate) struct Client {
    proxy: Option<Url>,
    tls: Arc<ClientConfig>,
}

/// The head of an answer, and the rest of it to read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    stream: Box<dyn BufRead>,
}

impl Client {
    /// A client that goes by `proxy`, or by what the environment names, and trusts the
    /// certificates in `ca`.
    pub(crate) fn new(proxy: Option<&str>, ca: &Path) -> Result<Self> {
        let named = ["HTTPS_PROXY", "https_proxy"].iter().find_map(|name| std::env::var(name).ok());
        let proxy = match proxy.map(str::to_owned).or(named).as_deref() {
            None | Some("" | "none") => None,
            Some(url) => Some(url.parse::<Url>()?),
        };
        if proxy.as_ref().is_some_and(|proxy| proxy.tls) {
            return Err(caller("use the proxy: only a proxy at 'http://…' is spoken to"));
        }
        let what = || format!("read certificates '{}'", ca.display());
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(ca).caller(what())?;
        roots
            .add_parsable_certificates(certificates.collect::<Result<Vec<_>, _>>().caller(what())?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .world("set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { proxy, tls: Arc::new(tls) })
    }

    /// The host of the proxy, where there is one.
    pub(crate) fn proxy_host(&self) -> Option<&str> {
        self.proxy.as_ref().map(|proxy| proxy.host.as_str())
    }

    /// Sends a request and reads the head of its answer. A refused CONNECT is an answer too.
    pub(crate) fn send(
        &self,
        method: &str,
        url: &Url,
        body: &[u8],
        end: Instant,
    ) -> io::Result<Answer> {
        let next = self.proxy.as_ref().unwrap_or(url);
        let mut socket = Timed::connect(next, end)?;
        let authority = format!("{}:{}", url.host, url.port);
        if !url.tls {
            let target = if self.proxy.is_some() { url.to_string() } else { url.path.clone() };
            return exchange(socket, method, &target, &url.host_header(), body);
        }
        if self.proxy.is_some() {
            write!(socket, "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")?;
            let mut reader = BufReader::new(socket);
            let answer = Answer::read(&mut reader)?;
            if answer.0 != 200 {
                let (status, head) = answer;
                return Ok(Answer { status, head, stream: Box::new(reader) });
            }
            socket = reader.into_inner();
        }
        let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned())
            .map_err(io::Error::other)?;
        let session =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let stream = StreamOwned::new(session, socket);
        exchange(stream, method, &url.path, &url.host_header(), body)
    }
}

impl Url {
    fn host_header(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl Answer {
    fn read(stream: &mut impl BufRead) -> io::Result<(u16, Head)> {
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "ended without an answer");
        let head = Head::read(stream)?.ok_or_else(ended)?;
        let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the answer has no status"))?;
        Ok((status, head))
    }

    /// Hands the body to `take`, piece by piece.
    pub(crate) fn body(&mut self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.head.body(Body::Close)?.read(&mut self.stream, take)
    }
}

fn exchange<S: Read + Write + 'static>(
    mut stream: S,
    method: &str,
    target: &str,
    host: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bottle-probe\r\nAccept: */*\r\nConnection: close\r\n{length}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut stream = BufReader::new(stream);
    let (status, head) = Answer::read(&mut stream)?;
    Ok(Answer { status, head, stream: Box::new(stream) })
}

/// A socket whose every read and write ends at one moment.
struct Timed {
    socket: TcpStream,
    end: Instant,
}

impl Timed {
    fn connect(url: &Url, end: Instant) -> io::Result<Self> {
        let addresses = (url.host.trim_matches(['[', ']']), url.port).to_socket_addrs()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, left(end)?) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Self { socket, end });
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// What is left of the time; an error when nothing is.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.end)?))?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.end)?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_keeps_its_text() {
        for url in
            ["https://a.test/", "http://a.test:81/x?y", "https://[::1]:8443/", "http://[::1]/"]
        {
            assert_eq!(url.parse::<Url>().unwrap().to_string(), url);
        }
        assert_eq!("https://a.test".parse::<Url>().unwrap().to_string(), "https://a.test/");
    }

    #[test]
    fn odd_url_is_the_callers_fault() {
        for url in ["a.test", "ftp://a.test/", "https://", "https://u@a.test/", "https://a:x/"] {
            let error = url.parse::<Url>().unwrap_err();
            assert_eq!(bottle::error::exit_of(&error), bottle::Exit::Caller, "{url}");
        }
    }
}
