//! An origin server that does exactly what a test says, and tells exactly what it saw.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority of the outside world.
pub(crate) struct Pki(CertifiedIssuer<'static, KeyPair>);

impl Pki {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for what `params` say.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> CertificateDer<'static> {
        params.clone().signed_by(key, &self.0).unwrap().der().clone()
    }

    /// The certificate and key of a server that proves to be `names`.
    pub(crate) fn identity(
        &self,
        names: &[&str],
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let cert = self.sign(&CertificateParams::new(names).unwrap(), &key);
        (vec![cert], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// A server that proves to be `names`.
    pub(crate) fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (chain, key) = self.identity(names);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

/// Anything that bytes come from and go to.
pub(crate) trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A running origin.
pub(crate) struct Origin {
    seen: Arc<Mutex<Vec<Seen>>>,
    accepted: Arc<AtomicUsize>,
}

/// One request, as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `GET /path HTTP/1.1`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One request and the stream that it came on, read up to the end of its head.
pub(crate) struct Exchange<'a> {
    pub(crate) seen: Seen,
    pub(crate) stream: &'a mut BufReader<Box<dyn Duplex>>,
    /// Set by the test to end the connection after this exchange.
    pub(crate) close: bool,
}

impl Exchange<'_> {
    /// Sends bytes at once.
    pub(crate) fn send(&mut self, text: &str) {
        let stream = self.stream.get_mut();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// A whole answer.
    pub(crate) fn answer(&mut self, body: &str) {
        self.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    /// Reads the body, whose frame is told by the head; `None`: the client went first.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if self.seen.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().filter(|chunk| !chunk.is_empty()) {
                body.extend(chunk);
            }
        } else if let Some(length) = self.seen.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).ok()?;
        }
        Some(body)
    }

    /// Reads one chunk; empty at the end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).ok()?];
        self.stream.read_exact(&mut chunk).ok()?;
        self.stream.read_line(&mut line).ok()?;
        Some(chunk)
    }
}

impl Origin {
    pub(crate) fn serve(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let origin = Self { seen: Arc::default(), accepted: Arc::default() };
        let (seen, accepted) = (origin.seen.clone(), origin.accepted.clone());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                accepted.fetch_add(1, Ordering::Relaxed);
                let (tls, seen, answer) = (tls.clone(), seen.clone(), answer.clone());
                std::thread::spawn(move || talk(stream, tls, &seen, &*answer));
            }
        });
        origin
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests since this was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn talk(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    all: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&mut Exchange<'_>) + Send + Sync),
) {
    stream.set_nodelay(true).unwrap();
    let stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
    };
    let mut stream = BufReader::new(stream);
    while let Some(seen) = head(&mut stream) {
        all.lock().unwrap().push(seen.clone());
        let mut exchange = Exchange { seen, stream: &mut stream, close: false };
        answer(&mut exchange);
        if exchange.close {
            return;
        }
    }
}

/// Reads one head.
pub(crate) fn head(stream: &mut impl BufRead) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
    line.trim_end().clone_into(&mut seen.line);
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(seen) };
        seen.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
}
