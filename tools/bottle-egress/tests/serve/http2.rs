//! HTTP/2 on either side and on both: gRPC, sharing, limits, abuse.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::{HeaderMap, Request, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::trusting;
use crate::support::{Bottle, PATIENCE, TLS};

pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An origin that speaks nothing but HTTP/2.
pub(crate) struct Origin {
    accepted: Arc<AtomicUsize>,
    pub(crate) heads: Arc<Mutex<Vec<Request<()>>>>,
}

impl Origin {
    pub(crate) fn serve(
        bottle: &Bottle,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Work + Send + Sync + 'static,
    ) -> Self {
        Self::limited(bottle, 100, answer)
    }

    fn limited(
        bottle: &Bottle,
        streams: u32,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Work + Send + Sync + 'static,
    ) -> Self {
        let mut config = rustls::ServerConfig::clone(&bottle.pki.server(&["origin.test"]));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let origin = Self { accepted: Arc::default(), heads: Arc::default() };
        let (accepted, heads) = (origin.accepted.clone(), origin.heads.clone());
        let listener = std::net::TcpListener::bind((bottle.address, TLS)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let (acceptor, heads, answer) =
                        (acceptor.clone(), heads.clone(), answer.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let mut builder = h2::server::Builder::new();
                        builder.max_concurrent_streams(streams);
                        let Ok(mut connection) = builder.handshake(stream).await else { return };
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            let (parts, body) = request.into_parts();
                            heads.lock().unwrap().push(Request::from_parts(parts.clone(), ()));
                            tokio::spawn(answer(Request::from_parts(parts, body), respond));
                        }
                    });
                }
            });
        });
        origin
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a client, with an end for a test that hangs.
pub(crate) fn client<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it hangs") })
}

/// TLS in a tunnel, with HTTP/2 agreed on.
async fn tunnel(bottle: &Bottle, to: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(bottle.proxy()).await.unwrap();
    let connect = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut config = rustls::ClientConfig::clone(&trusting(bottle));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(to.rsplit_once(':').unwrap().0.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

/// A client of HTTP/2, whose connection goes on in a task of its own.
pub(crate) async fn connect(bottle: &Bottle) -> SendRequest<Bytes> {
    let stream = tunnel(bottle, "origin.test:8443").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn ask(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("https://origin.test:8443{path}"))
        .body(())
        .unwrap()
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> (u16, String) {
    let mut sender = sender.clone().ready().await.unwrap();
    let (answer, _) = sender.send_request(ask("GET", path), true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    (head.status.as_u16(), all(&mut body).await)
}

async fn all(body: &mut RecvStream) -> String {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend(data);
    }
    String::from_utf8(all).unwrap()
}

/// Answers with `text`.
fn says(text: &'static str) -> impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Work {
    move |_, mut respond| {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data(text.into(), true).unwrap();
        Box::pin(async {})
    }
}

#[test]
fn grpc_passes_message_by_message_with_trailers_both_ways() {
    let bottle = Bottle::start();
    let origin = Origin::serve(&bottle, |request, mut respond| {
        Box::pin(async move {
            let mut body = request.into_body();
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let mut send = respond.send_response(head, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                send.send_data(data, false).unwrap();
            }
            let theirs = body.trailers().await.unwrap().unwrap_or_default();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("echo", theirs["x-sum"].clone());
            send.send_trailers(trailers).unwrap();
        })
    });
    client(async {
        let mut sender = connect(&bottle).await.ready().await.unwrap();
        let mut head = ask("POST", "/ok/pkg.Service/Method");
        head.headers_mut().insert("te", "trailers".parse().unwrap());
        head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (answer, mut send) = sender.send_request(head, false).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc");
        for message in ["one", "two", "three"] {
            send.send_data(message.into(), false).unwrap();
            // The next one is sent only when this one has come back.
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["echo"]),
            (&"0".parse().unwrap(), &"7".parse().unwrap())
        );
    });
    let head = origin.heads.lock().unwrap().remove(0);
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(head.uri(), "https://origin.test:8443/ok/pkg.Service/Method");
    assert_eq!(head.headers().get("host"), None);
    assert_eq!(bottle.told(1), ["http POST origin.test /ok/pkg.Service/Method: Allow 200"]);
}

#[test]
fn denial_is_told_to_grpc_in_its_own_way() {
    let bottle = Bottle::start();
    client(async {
        let mut sender = connect(&bottle).await.ready().await.unwrap();
        let mut head = ask("POST", "/pkg.Service/%C3%A4");
        head.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        let (answer, _) = sender.send_request(head, true).unwrap();
        let head = answer.await.unwrap();
        assert!(head.body().is_end_stream());
        assert_eq!(
            (head.status().as_u16(), &head.headers()["x-bottle-denied"]),
            (403, &"path".parse().unwrap())
        );
        assert_eq!(head.headers()["grpc-status"], "7");
        assert_eq!(
            head.headers()["grpc-message"],
            "bottle-egress denied this request (path): no rule covers the path '/pkg.Service/%25C3%25A4'"
        );
        // Others get none of that.
        let (answer, _) =
            sender.ready().await.unwrap().send_request(ask("GET", "/secret"), true).unwrap();
        assert!(!answer.await.unwrap().headers().contains_key("grpc-status"));
    });
}

#[test]
fn each_side_has_its_own_version() {
    let bottle = Bottle::start();
    let origin = Origin::serve(&bottle, says("in"));
    // Of HTTP/1, to a server of HTTP/2; the reverse is in the table.
    let mut one = bottle.tunnel("origin.test:8443");
    for _ in 0..3 {
        let answer = one.get("/x", "origin.test:8443");
        assert_eq!((&*answer.head.line, &*answer.body), ("HTTP/1.1 200 OK", "in"));
    }
    let upload = "POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(one.ask(upload).body, "in");
    assert_eq!(one.get("/secret", "origin.test:8443").denied(), Some("path"));
    assert_eq!((origin.heads.lock().unwrap().len(), origin.accepted()), (4, 1));
}

#[test]
fn cookies_in_parts_are_one_for_a_server_of_http_1() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    client(async {
        let mut sender = connect(&bottle).await.ready().await.unwrap();
        let mut head = ask("GET", "/x");
        head.headers_mut().append("cookie", "a=1".parse().unwrap());
        head.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (answer, _) = sender.send_request(head, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
    assert_eq!(origin.seen()[0].header("cookie"), Some("a=1; b=2"));
}

#[test]
fn requests_at_once_share_one_connection() {
    let bottle = Bottle::start();
    let origin = Origin::serve(&bottle, |_, mut respond| {
        Box::pin(async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            respond.send_response(Response::new(()), true).unwrap();
        })
    });
    client(async {
        let sender = connect(&bottle).await;
        let asked: Vec<_> = (0..60)
            .map(|n| {
                let sender = sender.clone();
                tokio::spawn(async move { get(&sender, &format!("/ok/{n}")).await })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap().0, 200);
        }
    });
    assert_eq!((origin.heads.lock().unwrap().len(), origin.accepted()), (60, 1));
}

#[test]
fn limit_of_the_server_is_kept() {
    let bottle = Bottle::start();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let _origin = Origin::limited(&bottle, 3, move |_, mut respond| {
        let (now, most) = (now.clone(), most.clone());
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            respond.send_response(Response::new(()), true).unwrap();
        })
    });
    client(async {
        let sender = connect(&bottle).await;
        assert_eq!(get(&sender, "/x").await.0, 200);
        let asked: Vec<_> = (0..30)
            .map(|n| {
                let sender = sender.clone();
                tokio::spawn(async move { get(&sender, &format!("/ok/{n}")).await })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap().0, 200);
        }
    });
    assert_eq!(peak.load(Ordering::Relaxed), 3);
}

#[test]
fn request_that_the_server_has_not_looked_at_is_sent_again() {
    let bottle = Bottle::start();
    let origin = Origin::serve(&bottle, |request, mut respond| {
        static TIMES: AtomicUsize = AtomicUsize::new(0);
        match request.uri().path() {
            "/ok/refused" if TIMES.fetch_add(1, Ordering::Relaxed) == 0 => {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            "/ok/broken" => respond.send_reset(Reason::INTERNAL_ERROR),
            _ => drop(respond.send_response(Response::new(()), true)),
        }
        Box::pin(async {})
    });
    client(async {
        let sender = connect(&bottle).await;
        assert_eq!(get(&sender, "/x").await.0, 200);
        assert_eq!(get(&sender, "/ok/refused").await.0, 200);
        // Not where it may have been looked at.
        assert_eq!(get(&sender, "/ok/broken").await.0, 502);
    });
    assert_eq!(origin.heads.lock().unwrap().len(), 4);
}

/// Answers without end once there are `streams`, and counts the bytes.
fn endless(
    count: Arc<AtomicUsize>,
    streams: usize,
) -> impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Work + Send + Sync {
    let begun = Arc::new(AtomicUsize::new(0));
    move |_, mut respond| {
        let (count, begun) = (count.clone(), begun.clone());
        Box::pin(async move {
            let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
            begun.fetch_add(1, Ordering::Relaxed);
            while begun.load(Ordering::Relaxed) < streams {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            loop {
                send.reserve_capacity(64 << 10);
                let Some(Ok(given)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await
                else {
                    return;
                };
                if send.send_data(vec![7; given].into(), false).is_err() {
                    return;
                }
                count.fetch_add(given, Ordering::Relaxed);
            }
        })
    }
}

#[test]
fn hundred_streams_of_a_client_that_stops_reading_take_bounded_memory() {
    let bottle = Bottle::start();
    let told = Arc::new(AtomicUsize::new(0));
    let _origin = Origin::serve(&bottle, endless(told.clone(), 100));
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bottle.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    client(async {
        let stream = tunnel(&bottle, "origin.test:8443").await;
        let mut builder = h2::client::Builder::new();
        // It says that it takes all, and does not.
        builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
        let (mut sender, mut connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
        let before = memory();
        let heads = async {
            let mut answers = Vec::new();
            for n in 0..100 {
                sender = sender.clone().ready().await.unwrap();
                answers.push(sender.send_request(ask("GET", &format!("/ok/{n}")), true).unwrap().0);
            }
            let mut bodies = Vec::new();
            for answer in answers {
                bodies.push(answer.await.unwrap().into_body());
            }
            bodies
        };
        let _bodies = tokio::select! {
            bodies = heads => bodies,
            end = &mut connection => panic!("{end:?}"),
        };
        // From here on nothing is read.
        let mut last = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let now = told.load(Ordering::Relaxed);
            if now == last {
                break;
            }
            last = now;
        }
        let now = memory();
        assert!(now < before + 32, "{before} MiB became {now}");
        assert!(last > 1 << 20, "the origin has sent {last} bytes only");
    });
}

#[test]
fn reader_that_stops_stops_the_server() {
    let bottle = Bottle::start();
    let told = Arc::new(AtomicUsize::new(0));
    let _origin = Origin::serve(&bottle, endless(told.clone(), 1));
    client(async {
        let mut sender = connect(&bottle).await.ready().await.unwrap();
        let (answer, _) = sender.send_request(ask("GET", "/x"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut last = 0;
        // Until nothing moves any more.
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let now = told.load(Ordering::Relaxed);
            if now == last && now > 0 {
                break;
            }
            last = now;
        }
        // Windows, buffers of the kernel and what is being written.
        assert!(last < 16 << 20, "{last} bytes lie somewhere");
        // It goes on when the reader does.
        while told.load(Ordering::Relaxed) < last + (1 << 20) {
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    });
}

#[test]
fn client_that_resets_without_end_is_cut_off() {
    let bottle = Bottle::start();
    let _origin = Origin::serve(&bottle, says("in"));
    client(async {
        let mut stream = tunnel(&bottle, "origin.test:8443").await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // GET https /x, by the static table.
        let head = b"\x82\x87\x04\x02/x\x01\x10origin.test:8443";
        for stream in (1..40_000_u32).step_by(2) {
            bytes.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 5]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(head);
            bytes.extend([0, 0, 4, 3, 0]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend([0, 0, 0, 8]);
        }
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(ends_with_goaway(&answer, Reason::ENHANCE_YOUR_CALM), "{answer:x?}");
        // Others are served.
        assert_eq!(get(&connect(&bottle).await, "/x").await, (200, "in".into()));
    });
}

#[test]
fn head_without_end_is_cut_off() {
    let bottle = Bottle::start();
    let _origin = Origin::serve(&bottle, says("in"));
    client(async {
        let mut stream = tunnel(&bottle, "origin.test:8443").await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // A field of 16 KiB that is never the last one.
        let mut block = b"\0\x01x\x7f\x80\x7e".to_vec();
        block.resize(16_000, b'y');
        for (kind, count) in [(1, 1), (9, 200)] {
            for _ in 0..count {
                bytes.extend([0, 0x3e, 0x80, kind, 0, 0, 0, 0, 1]);
                bytes.extend(&block);
            }
        }
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.windows(9).any(|frame| frame[3] == 7 || frame[3] == 3), "{answer:x?}");
        assert_eq!(get(&connect(&bottle).await, "/x").await, (200, "in".into()));
    });
}

fn ends_with_goaway(answer: &[u8], reason: Reason) -> bool {
    let mut rest = answer;
    while let [_, high, low, kind, _, _, _, _, _, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((payload, tail)) = tail.split_at_checked(length) else { return false };
        if *kind == 7 {
            return payload[4..8] == u32::from(reason).to_be_bytes();
        }
        rest = tail;
    }
    false
}

#[test]
fn websocket_takes_http_1_where_the_server_has_both() {
    let bottle = Bottle::start();
    let mut config = rustls::ServerConfig::clone(&bottle.pki.server(&["origin.test"]));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let address = (bottle.address, TLS).into();
    let origin = crate::origin::Origin::serve(address, Some(Arc::new(config)), |e| {
        e.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        let mut bytes = [0; 6];
        while e.stream.read_exact(&mut bytes).is_ok() {
            e.send(std::str::from_utf8(&bytes[2..]).unwrap());
        }
        e.close = true;
    });
    let mut socket = bottle.tunnel("origin.test:8443");
    let head = socket.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\nsec-websocket-protocol: p\r\n\r\n");
    assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols");
    socket.send(b"\x81\x04ping");
    assert_eq!(socket.read_exact(4), b"ping");
    let seen = &origin.seen()[0];
    for (name, value) in [("sec-websocket-key", "k"), ("sec-websocket-protocol", "p")] {
        assert_eq!(seen.header(name), Some(value));
    }
}

#[test]
fn curl_speaks_http_2_through_it() {
    let bottle = Bottle::start();
    let origin = Origin::serve(&bottle, says("in"));
    let output = bottle.curl(&["-w", " %{http_version}", "https://origin.test:8443/x"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in 2");
    assert_eq!(origin.heads.lock().unwrap().len(), 1);
    assert_eq!(bottle.told(1), ["http GET origin.test /x: Allow 200"]);
}
