//! Everything at once for a while, with the policy replaced ten times a second: no request is lost,
//! and memory does not grow. A few seconds in CI; `BOTTLE_SOAK_SECONDS=600` is the long run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::trusting;
use crate::support::{Bottle, RULES, TLS};

/// The host that all requests are for.
const HOST_NAME: &str = "origin.test:8443";

/// Length of an upload, its pieces, and how many events of a stream come how fast.
const UPLOAD: usize = 2 << 20;
const PIECE: usize = 16 << 10;
const EVENTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// How much more memory egress may have at the end than when it was warm, in KiB.
const GROWTH: u64 = 8 << 10;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A body of pieces with pauses between them.
struct Pieces {
    left: usize,
    piece: Bytes,
    pause: Option<Duration>,
    asleep: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Pieces {
    fn text(text: impl Into<Bytes>) -> Self {
        let piece = text.into();
        Self { left: usize::from(!piece.is_empty()), piece, pause: None, asleep: None }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        use std::task::Poll;
        if let Some(sleep) = &mut self.asleep {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.asleep = None;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.asleep = self.pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

/// Reads a body to its end; its length.
async fn drain(mut body: Incoming) -> Result<usize, hyper::Error> {
    let mut length = 0;
    while let Some(frame) = next(&mut body).await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

async fn next(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await
}

/// The origin's answers.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/ok/upload" => match drain(request.into_body()).await {
            Ok(length) => Pieces::text(length.to_string()),
            Err(error) => Pieces::text(error.to_string()),
        },
        "/ok/events" => Pieces {
            left: EVENTS,
            piece: Bytes::from_static(b"data: x\n\n"),
            pause: Some(PAUSE),
            asleep: None,
        },
        "/ok/socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(stream) = upgrade.await else { return };
                let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
            let mut response = Response::new(Pieces::text(""));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
            response.headers_mut().insert(UPGRADE, "websocket".parse().unwrap());
            return Ok(response);
        }
        _ => Pieces::text("ok"),
    };
    Ok(Response::new(body))
}

/// Serves until the runtime ends.
async fn serve(listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .with_upgrades()
                    .await;
            }
        });
    }
}

/// What all clients know.
#[derive(Clone)]
struct Way {
    proxy: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

impl Way {
    async fn connect(&self, tls: &TlsConnector) -> Result<Tls, Failed> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        let ask = format!("CONNECT {HOST_NAME} HTTP/1.1\r\nhost: {HOST_NAME}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        Ok(tls.connect(ServerName::try_from("origin.test")?, stream).await?)
    }

    /// Does one thing again and again; what fails is lost.
    async fn repeat<F: Future<Output = Result<u64, Failed>>>(
        self,
        what: &str,
        act: impl Fn(Self) -> F,
    ) {
        while !self.over.load(Ordering::Relaxed) {
            match act(self.clone()).await {
                Ok(done) => drop(self.done.fetch_add(done, Ordering::Relaxed)),
                Err(error) => self.lost.lock().unwrap().push(format!("{what}: {error:?}")),
            }
        }
    }
}

fn request(method: Method, path: &str, version2: bool, body: Pieces) -> Request<Pieces> {
    let builder = Request::builder().method(method);
    if version2 {
        builder.uri(format!("https://{HOST_NAME}{path}")).body(body).unwrap()
    } else {
        builder.uri(path).header(HOST, HOST_NAME).body(body).unwrap()
    }
}

fn upload() -> Pieces {
    let line = b"what is uploaded is text without a secret in it\n";
    let piece: Vec<u8> = line.iter().copied().cycle().take(PIECE).collect();
    Pieces { left: UPLOAD / PIECE, piece: piece.into(), pause: None, asleep: None }
}

/// A request that each path answers as it should.
async fn one<S, F>(send: S, path: &str, version2: bool) -> Result<(), Failed>
where
    S: FnOnce(Request<Pieces>) -> F,
    F: Future<Output = hyper::Result<Response<Incoming>>>,
{
    let (method, body) = match path {
        "/ok/upload" => (Method::POST, upload()),
        _ => (Method::GET, Pieces::text("")),
    };
    let response = send(request(method, path, version2, body)).await?;
    let status = response.status();
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Some(frame) = next(&mut body).await {
        text.extend(frame?.into_data().unwrap_or_default());
    }
    let whole = match path {
        "/ok/upload" => text == UPLOAD.to_string().as_bytes(),
        "/ok/events" => text == b"data: x\n\n".repeat(EVENTS),
        _ => text == b"ok",
    };
    if status == StatusCode::OK && whole {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    Err(format!("{path} was answered {status}: {} bytes, {text:.200}", text.len()).into())
}

/// Requests one after the other on one connection.
async fn over_http1(way: Way, path: &str, count: u64) -> Result<u64, Failed> {
    let stream = way.connect(&way.http1).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..count {
        sender.ready().await?;
        one(|request| sender.send_request(request), path, false).await?;
    }
    Ok(count)
}

/// Requests side by side on one connection.
async fn over_http2(way: Way, path: &'static str, count: u64) -> Result<u64, Failed> {
    let stream = way.connect(&way.http2).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let all: Vec<_> = (0..count)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                one(move |request| async move { sender.send_request(request).await }, path, true)
                    .await
            })
        })
        .collect();
    for one in all {
        one.await??;
    }
    Ok(count)
}

/// Words there and back through a WebSocket's tunnel.
async fn socket(way: Way) -> Result<u64, Failed> {
    let mut stream = way.connect(&way.http1).await?;
    let ask = format!(
        "GET /ok/socket HTTP/1.1\r\nhost: {HOST_NAME}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&head).into());
    }
    for n in 0..100_u32 {
        // A whole frame, masked with nothing: a final text of four bytes.
        let sent = [&[0x81, 0x84, 0, 0, 0, 0][..], format!("{n:04}").as_bytes()].concat();
        stream.write_all(&sent).await?;
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).await?;
        if back != sent {
            return Err(format!("{sent:?} came back as {back:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(1)
}

/// Resident memory in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn mixed_load_with_reloads_loses_nothing_and_grows_no_memory() {
    let seconds = std::env::var("BOTTLE_SOAK_SECONDS").ok();
    let time = Duration::from_secs(seconds.map_or(4, |text| text.parse().unwrap()));
    let bottle = Bottle::start();
    let mut config = (*bottle.pki.server(&["origin.test"])).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = std::net::TcpListener::bind((bottle.address, TLS)).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            serve(listener, TlsAcceptor::from(Arc::new(config))).await;
        });
    });
    let connector = |alpn: &[u8]| {
        let mut config = (*trusting(&bottle)).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    };
    let way = Way {
        proxy: bottle.proxy(),
        http1: connector(b"http/1.1"),
        http2: connector(b"h2"),
        over: Arc::default(),
        done: Arc::default(),
        lost: Arc::default(),
    };
    let load = std::thread::spawn({
        let way = way.clone();
        move || {
            let local = tokio::task::LocalSet::new();
            for _ in 0..2 {
                local.spawn_local(
                    way.clone().repeat("HTTP/1.1", |way| over_http1(way, "/ok/small", 50)),
                );
                local.spawn_local(
                    way.clone().repeat("HTTP/2", |way| over_http2(way, "/ok/small", 50)),
                );
                local.spawn_local(
                    way.clone().repeat("upload", |way| over_http1(way, "/ok/upload", 4)),
                );
                local.spawn_local(
                    way.clone().repeat("HTTP/2 upload", |way| over_http2(way, "/ok/upload", 4)),
                );
                local.spawn_local(
                    way.clone().repeat("events", |way| over_http1(way, "/ok/events", 4)),
                );
                local.spawn_local(
                    way.clone().repeat("HTTP/2 events", |way| over_http2(way, "/ok/events", 4)),
                );
                local.spawn_local(way.clone().repeat("WebSocket", socket));
            }
            runtime().block_on(local);
        }
    });
    // The policy goes back and forth, and what is under way is allowed by each.
    let begin = Instant::now();
    let (mut generation, mut warm, mut end) = (1, 0, 0);
    while begin.elapsed() < time {
        generation += 1;
        let more = if generation % 2 == 0 {
            "- {host: more.test, kind: name, ports: [443]}\n"
        } else {
            ""
        };
        bottle.replace("routes.yaml", &bottle.rules(generation, &format!("{RULES}{more}")));
        std::thread::sleep(Duration::from_millis(100));
        let now = memory(bottle.pid());
        if begin.elapsed() < time / 3 {
            warm = warm.max(now);
        } else if begin.elapsed() > time * 9 / 10 {
            end = end.max(now);
        }
    }
    way.over.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let lost = way.lost.lock().unwrap();
    assert!(lost.is_empty(), "{} lost, the first: {:#?}", lost.len(), &lost[..lost.len().min(5)]);
    let done = way.done.load(Ordering::Relaxed);
    eprintln!(
        "{done} requests in {time:?}, {generation} policies, {warm} KiB warm, {end} at the end"
    );
    assert!(done > 100, "{done} requests");
    assert_eq!(bottle.loaded().unwrap().refused, None);
    assert!(end < warm + GROWTH, "{warm} KiB became {end}");
}
