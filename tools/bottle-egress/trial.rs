//! One connection of a client, without a network: its bytes go through all that a real one's go
//! through, to a server that is a part of the trial. For fuzzers, and for what they found.
//!
//! [`Trial::holds`] says what has to be true of any bytes: what is forwarded is what was judged and
//! allowed, and what a careful reader reads in what the client sent, request by request.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Result as Io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bottle::host::Host;
use bottle::policy::Scheme;
use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::Semaphore;

use crate::body::Answer;
use crate::ca::{self, Ca};
use crate::conf::Conf;
use crate::dial;
use crate::journal::Journal;
use crate::pool::{Target, Upstream};
use crate::proxy::{self, Egress, Session};
use crate::resolve::Resolver;
use crate::tls::Interceptor;
use crate::tunnel::Tunnel;

mod holds;
mod reading;

/// The only host that there is.
const HOST: &str = "a.example";

/// Where its connections lead; to any other address none is made.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 216, 34));

const ROUTES: &str = "version: 1
generation: 1
plan: sha256:0
bottle: trial
names: {agent: 127.0.0.1}
routes:
- {host: a.example, kind: name, ports: [80, 443], methods: [GET, POST], paths: [/ok/**, /x]}
# end
";

/// Connections to the server that are there; each serves one request at a time.
const CONNECTIONS: usize = 4;

/// How often in a row nothing may happen before nothing happens any more.
const STILL: usize = 40;

/// The longest input.
const LONGEST: usize = 32 << 10;

/// How a client's bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the proxy itself.
    Proxy,
    /// In an intercepted tunnel to `a.example` on port 443.
    Tunnel,
}

/// What became of them.
#[derive(Debug, Default)]
struct Seen {
    /// What reached the server, by connection.
    forwarded: Vec<Vec<u8>>,
    /// The requests that the server's parser made of it, as method, target and `Host`, in turn.
    parsed: Vec<[String; 3]>,
    /// The lines of the journal.
    decisions: Vec<u8>,
    /// Whether the connection ended when the client had gone.
    ended: bool,
}

/// An egress to try things on.
pub struct Trial {
    egress: Arc<Egress>,
    places: Arc<Semaphore>,
    runtime: tokio::runtime::Runtime,
}

impl Trial {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let made = ca::create(&"trial".parse()?, 30)?;
        let (key, cert) = made.split_at(made.find("-----BEGIN CERT").context("find the CA")?);
        let egress = Egress {
            conf: Arc::new(Conf::fixed(ROUTES.as_bytes())?),
            journal: Arc::new(Journal::kept()),
            interceptor: Interceptor::new(Ca::load(cert, key)?)?,
            // Closed to the rule, so that nothing is dialled.
            resolver: Resolver::knowing(HOST, [127, 0, 0, 1].into()),
        };
        // No I/O: a dial would be a panic.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { egress: Arc::new(egress), places: Arc::new(Semaphore::new(1)), runtime })
    }

    /// Sends pieces of bytes as a client does, one after the other, and looks at what became of them.
    /// The number of requests that reached the server; the error says what does not hold.
    pub fn holds(&self, way: Way, pieces: &[&[u8]]) -> Result<usize, String> {
        let sent = pieces.concat();
        if sent.len() > LONGEST {
            return Ok(0);
        }
        let seen = self
            .runtime
            .block_on(self.connection(way, pieces))
            .map_err(|error| format!("the trial itself failed: {error:#}"))?;
        holds::check(&self.egress.conf.force().policy, way, &sent, &seen)
    }

    async fn connection(&self, way: Way, pieces: &[&[u8]]) -> Result<Seen> {
        let force = self.egress.conf.renew();
        let target = Arc::new(match way {
            Way::Proxy => Target { scheme: Scheme::Http, host: Host::Name(HOST.into()), port: 80 },
            Way::Tunnel => {
                Target { scheme: Scheme::Https, host: Host::Name(HOST.into()), port: 443 }
            }
        });
        let (moved, parsed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let mut forwarded = Vec::new();
        for _ in 0..CONNECTIONS {
            let (ours, theirs) = duplex(2 * LONGEST);
            let (server, bytes) = Recorded::new(theirs, &moved);
            forwarded.push(bytes);
            tokio::spawn(serve(server, parsed.clone()));
            let sender = dial::attach(ours).await.ok().context("attach a server")?;
            force.pool.put(0, &target, Upstream { sender, address: ADDRESS });
        }
        let tunnel = (way == Way::Tunnel).then(|| Tunnel {
            target,
            mismatch: None,
            used: AtomicBool::new(false),
        });
        let session = Arc::new(Session {
            egress: self.egress.clone(),
            lane: 0,
            client: [127, 0, 0, 1].into(),
            tunnel,
            raw: AtomicBool::new(false),
            fault: OnceLock::new(),
            place: Arc::new(self.places.clone().acquire_owned().await?),
        });
        let (ours, theirs) = duplex(2 * LONGEST);
        let served = tokio::spawn(proxy::serve(session, theirs));
        let (client, _) = Recorded::new(ours, &moved);
        let (mut reader, mut writer) = tokio::io::split(client);
        let reads = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while matches!(reader.read(&mut bytes).await, Ok(1..)) {}
        });
        for piece in pieces {
            // A connection that was refused is closed.
            let _ = writer.write_all(piece).await;
            still(&moved).await;
        }
        reads.abort();
        drop(writer);
        still(&moved).await;
        let ended = served.is_finished();
        served.abort();
        drop(force);
        self.egress.conf.renew();
        still(&moved).await;
        let lock = |bytes: &Bytes| bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let forwarded = forwarded.iter().map(lock).collect();
        Ok(Seen { forwarded, parsed, decisions: self.egress.journal.take(), ended })
    }
}

/// Waits until nothing moves.
async fn still(moved: &AtomicUsize) {
    let (mut before, mut times) = (moved.load(Ordering::Relaxed), 0);
    while times < STILL {
        tokio::task::yield_now().await;
        let now = moved.load(Ordering::Relaxed);
        times = if now == before { times + 1 } else { 0 };
        before = now;
    }
}

/// A server that takes any request and reads it to its end.
async fn serve(stream: Recorded, parsed: Arc<Mutex<Vec<[String; 3]>>>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let host = request.headers().get("host").map(|host| host.as_bytes().to_vec());
        let host = String::from_utf8_lossy(&host.unwrap_or_default()).into_owned();
        let told = [request.method().to_string(), request.uri().to_string(), host];
        parsed.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        let mut body = request.into_body();
        async move {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            Ok::<_, Infallible>(Response::new(Answer::Own(None)))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A stream whose reader is watched.
struct Recorded {
    inner: DuplexStream,
    read: Bytes,
    moved: Arc<AtomicUsize>,
}

impl Recorded {
    fn new(inner: DuplexStream, moved: &Arc<AtomicUsize>) -> (Self, Bytes) {
        let read = Bytes::default();
        (Self { inner, read: read.clone(), moved: moved.clone() }, read)
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Io<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        self.moved.fetch_add(read.len(), Ordering::Relaxed);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Io<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Io<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Io<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
