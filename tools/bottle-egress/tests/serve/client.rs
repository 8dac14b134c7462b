//! A client that sends exactly the bytes that a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::origin::{Duplex, Seen, head};
use crate::support::{Bottle, PATIENCE};

/// A connection to the proxy, or through it.
pub(crate) struct Client(BufReader<Box<dyn Duplex>>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Seen,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The reason of a denial.
    pub(crate) fn denied(&self) -> Option<&str> {
        let reason = self.header("x-bottle-denied");
        assert_eq!(reason.is_some(), self.status == 403, "{self:?}");
        reason
    }
}

/// Trust in the bottle's CA and nothing else.
pub(crate) fn trusting(bottle: &Bottle) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(bottle.folder.join("conf/ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

impl Client {
    fn open(bottle: &Bottle) -> TcpStream {
        let stream = TcpStream::connect(bottle.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub(crate) fn plain(bottle: &Bottle) -> Self {
        Self(BufReader::new(Box::new(Self::open(bottle))))
    }

    /// A client at an address of its own; others are at 127.0.0.1, which is the agent's.
    pub(crate) fn at(bottle: &Bottle, address: [u8; 4]) -> Self {
        use rustix::net::{self, AddressFamily, SocketAddrV4, SocketType};
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddrV4::new(address.into(), 0)).unwrap();
        net::connect(&socket, &bottle.proxy()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    /// Asks for a tunnel, which has to be given.
    pub(crate) fn connect(bottle: &Bottle, host: &str) -> Self {
        Self::plain(bottle).connected(host)
    }

    /// The same on a connection that is there.
    pub(crate) fn connected(self, host: &str) -> Self {
        let mut client = self;
        let answer = client.ask_head(&format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert!(answer.line.starts_with("HTTP/1.1 200"), "{answer:?}");
        client
    }

    pub(crate) fn into_inner(self) -> Box<dyn Duplex> {
        assert!(self.0.buffer().is_empty());
        self.0.into_inner()
    }

    /// Begins TLS, trusting the bottle's CA and nothing else; an address sends no server name.
    pub(crate) fn tls(self, bottle: &Bottle, server_name: &str) -> Self {
        let name = ServerName::try_from(server_name.trim_matches(['[', ']']).to_owned()).unwrap();
        let session = ClientConnection::new(trusting(bottle), name).unwrap();
        Self(BufReader::new(Box::new(StreamOwned::new(session, self.into_inner()))))
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        let stream = self.0.get_mut();
        // A proxy that has refused may have gone already; its answer is what counts.
        let _ = stream.write_all(text.as_ref()).and_then(|()| stream.flush());
    }

    pub(crate) fn get(&mut self, path: &str, host: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        let without_body = request.starts_with("HEAD ");
        self.answer(without_body).expect("an answer")
    }

    pub(crate) fn ask_head(&mut self, request: &str) -> Seen {
        self.send(request);
        head(&mut self.0).expect("an answer")
    }

    /// Reads one answer; `None` where the connection ends.
    pub(crate) fn answer(&mut self, without_body: bool) -> Option<Answer> {
        let head = head(&mut self.0)?;
        let status = head.line.split(' ').nth(1)?.parse().ok()?;
        let mut body = Vec::new();
        if without_body || matches!(status, 100..200 | 204 | 304) {
        } else if let Some(length) = head.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body).unwrap();
        } else if head.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().filter(|chunk| !chunk.is_empty()) {
                body.extend(chunk);
            }
            while self.line().is_some_and(|trailer| !trailer.is_empty()) {}
        } else {
            self.0.read_to_end(&mut body).unwrap();
        }
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// Reads one chunk, empty at the end; trailers stay unread.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line()?;
        let mut chunk = vec![0; usize::from_str_radix(&size, 16).ok()?];
        self.0.read_exact(&mut chunk).ok()?;
        if !chunk.is_empty() {
            self.line()?;
        }
        Some(chunk)
    }

    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    }

    pub(crate) fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the other side has ended the connection, once all is read.
    pub(crate) fn ended(&mut self) -> bool {
        let mut rest = Vec::new();
        // An abrupt end is one too.
        self.0.read_to_end(&mut rest).map_or(true, |_| rest.is_empty())
    }
}
