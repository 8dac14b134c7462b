//! The load: one thread, TLS and HTTP/1.1 with keep-alive through any proxy's CONNECT, or without a
//! proxy. The same client for every peer, so what it costs is the same on both sides of a ratio.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::origin::HOST;
use crate::report::median;

/// A way to the origin.
#[derive(Clone)]
pub(crate) struct Way {
    proxy: Option<SocketAddr>,
    origin: SocketAddr,
    tls: TlsConnector,
}

impl Way {
    /// To the origin by a proxy, or without one, trusting one CA.
    pub(crate) fn new(proxy: Option<SocketAddr>, origin: SocketAddr, ca: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(ca?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { proxy, origin, tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        self.connect_to(HOST, self.origin.port()).await
    }

    async fn connect_to(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>> {
        let mut tcp = TcpStream::connect(self.proxy.unwrap_or(self.origin)).await?;
        tcp.set_nodelay(true)?;
        if self.proxy.is_some() {
            let target = format!("{host}:{port}");
            let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            tcp.write_all(ask.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(tcp.read_u8().await.context("read the answer to CONNECT")?);
            }
            if !answer.starts_with(b"HTTP/1.1 200") && !answer.starts_with(b"HTTP/1.0 200") {
                bail!("CONNECT was answered '{}'", String::from_utf8_lossy(&answer).trim());
            }
        }
        Ok(self.tls.connect(ServerName::try_from(host.to_owned())?, tcp).await?)
    }
}

/// Runs something that waits, on this thread.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::time::timeout(Duration::from_mins(1), future).await.context("took over a minute")?
    })
}

/// Requests a second over `connections` connections for about `time`. The connections are made, and
/// each has had an answer, before the clock starts.
pub(crate) fn requests(way: &Way, connections: usize, time: Duration) -> Result<f64> {
    let port = way.origin.port();
    block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let mut stream = way.connect().await?;
            exchange(&mut stream, port, "/small", &mut Vec::new()).await?;
            streams.push(stream);
        }
        let local = tokio::task::LocalSet::new();
        let begin = Instant::now();
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                local.spawn_local(async move {
                    let (mut done, mut buffer) = (0_u32, Vec::new());
                    while begin.elapsed() < time {
                        exchange(&mut stream, port, "/small", &mut buffer).await?;
                        done += 1;
                    }
                    anyhow::Ok(done)
                })
            })
            .collect();
        local.await;
        let elapsed = begin.elapsed().as_secs_f64();
        let mut all = 0;
        for task in tasks {
            all += task.await??;
        }
        Ok(f64::from(all) / elapsed)
    })
}

/// The median time of a request on one connection, in seconds.
pub(crate) fn latency(way: &Way, requests: usize) -> Result<f64> {
    let port = way.origin.port();
    block_on(async {
        let mut stream = way.connect().await?;
        let (mut times, mut buffer) = (Vec::with_capacity(requests), Vec::new());
        exchange(&mut stream, port, "/small", &mut buffer).await?;
        for _ in 0..requests {
            let begin = Instant::now();
            exchange(&mut stream, port, "/small", &mut buffer).await?;
            times.push(begin.elapsed().as_secs_f64());
        }
        Ok(median(&times))
    })
}

/// Asks for `count` hosts that no rule allows, each over TLS, eight at a time.
pub(crate) fn hosts(way: &Way, count: usize) -> Result<()> {
    const AT_ONCE: usize = 8;
    block_on(async {
        let local = tokio::task::LocalSet::new();
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|first| {
                let way = way.clone();
                local.spawn_local(async move {
                    for n in (first..count).step_by(AT_ONCE) {
                        let host = format!("denied-{n}.bench.example");
                        let mut stream = way.connect_to(&host, 443).await?;
                        let ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
                        stream.write_all(ask.as_bytes()).await?;
                        let mut answer = [0; 12];
                        stream.read_exact(&mut answer).await?;
                        if &answer != b"HTTP/1.1 403" {
                            bail!("'{host}' was answered '{}'", String::from_utf8_lossy(&answer));
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        local.await;
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

/// Bytes a second of one large download; the connection is made before the clock starts.
pub(crate) fn bulk(way: &Way) -> Result<f64> {
    let port = way.origin.port();
    block_on(async {
        let mut stream = way.connect().await?;
        exchange(&mut stream, port, "/small", &mut Vec::new()).await?;
        let begin = Instant::now();
        let bytes = exchange(&mut stream, port, "/large", &mut Vec::new()).await?;
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    })
}

/// One request and its answer; gives the length of the body.
async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    port: u16,
    path: &str,
    buffer: &mut Vec<u8>,
) -> Result<u64> {
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    buffer.clear();
    buffer.reserve(64 << 10);
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the connection ended before an answer");
        }
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
    if !text.starts_with("http/1.1 200") {
        bail!("GET {path} was answered '{}'", text.lines().next().unwrap_or_default());
    }
    let length: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .context("the answer has no length")?;
    let mut got = (buffer.len() - head) as u64;
    while got < length {
        buffer.clear();
        match stream.read_buf(buffer).await? {
            0 => bail!("the answer to {path} is cut off"),
            more => got += more as u64,
        }
    }
    Ok(length)
}
