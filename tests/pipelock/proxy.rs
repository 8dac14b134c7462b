//! The listener: health, tunnels by CONNECT, intercepted or not, and plain proxying.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context as Waker, Poll};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;
use crate::config::Config;
use crate::judge::{Blocked, judge, listed};
use crate::reload::{self, Force};
use crate::{log, upstream};

/// What an answer carries: a text, or what the server sends.
enum Answer {
    Text(Option<Bytes>),
    Relayed(Incoming),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
        }
    }
}

struct Proxy {
    force: Force,
    ca: Option<Ca>,
}

/// Serves until SIGTERM.
pub(crate) fn serve(file: &Path) -> Result<()> {
    let config = Config::read(file)?;
    let tls = &config.tls_interception;
    let ca = tls.enabled.then(|| Ca::load(tls)).transpose()?;
    let listen = config.fetch_proxy.listen.clone();
    let force: Force = Arc::new(RwLock::new(Arc::new(config)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let listener = TcpListener::bind(&listen).await.context("listen")?;
        log("startup", &[("listen", &listen)]);
        let proxy = Arc::new(Proxy { force: force.clone(), ca });
        let reload = reload::watch(file, force);
        tokio::select! {
            ended = reload => ended,
            _ = term.recv() => Ok(()),
            () = accept(proxy, listener) => Ok(()),
        }
    })
}

async fn accept(proxy: Arc<Proxy>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let proxy = proxy.clone();
        let service = service_fn(move |request| {
            let proxy = proxy.clone();
            async move { Ok::<_, Infallible>(handle(&proxy, request).await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection.with_upgrades());
    }
}

async fn handle(proxy: &Arc<Proxy>, request: Request<Incoming>) -> Response<Answer> {
    let config = proxy.force.read().map_or_else(|e| e.into_inner().clone(), |now| now.clone());
    if request.method() == Method::CONNECT {
        return connect(proxy, config, request).await;
    }
    if request.uri().authority().is_some() {
        return plain(&config, request).await;
    }
    match request.uri().path() {
        "/health" => text(StatusCode::OK, r#"{"status":"healthy"}"#),
        "/metrics" | "/stats" if config.metrics_listen.is_empty() => text(StatusCode::OK, "0"),
        _ => text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// A tunnel, which is opened before it is said to be.
async fn connect(
    proxy: &Arc<Proxy>,
    config: Arc<Config>,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    if !config.forward_proxy.enabled {
        return text(StatusCode::METHOD_NOT_ALLOWED, "forward proxy disabled");
    }
    let Some((host, port)) = split(request.uri(), 443) else {
        return text(StatusCode::BAD_REQUEST, "malformed target authority");
    };
    let target = format!("{host}:{port}");
    let addresses = match judged(&config, "CONNECT", &host, port).await {
        Ok(addresses) => addresses,
        Err(refusal) => return refusal,
    };
    let server = match upstream::dial(&addresses).await {
        Ok(server) => server,
        Err(error) => {
            log("error", &[("target", &target), ("error", &error.to_string())]);
            return text(StatusCode::BAD_GATEWAY, "tunnel dial failed");
        }
    };
    let tls = &config.tls_interception;
    let intercepts = tls.enabled && !listed(&tls.passthrough_domains, &host);
    let (upgrade, proxy) = (hyper::upgrade::on(&mut request), proxy.clone());
    tokio::spawn(async move {
        let Ok(client) = upgrade.await else { return };
        let ended = if intercepts {
            log("tls_intercept", &[("target", &target)]);
            intercept(&proxy, config, &host, port, client).await
        } else {
            log("tunnel_open", &[("target", &target)]);
            relay(client, server).await
        };
        if let Err(error) = ended {
            log("error", &[("target", &target), ("error", &format!("{error:#}"))]);
        }
    });
    Response::new(Answer::Text(None))
}

async fn relay(client: Upgraded, mut server: TcpStream) -> Result<()> {
    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut server).await?;
    Ok(())
}

/// Looks into what comes through a tunnel, which has to be TLS.
async fn intercept(
    proxy: &Proxy,
    config: Arc<Config>,
    host: &str,
    port: u16,
    client: Upgraded,
) -> Result<()> {
    let ca = proxy.ca.as_ref().context("no CA")?;
    let acceptor = TlsAcceptor::from(ca.server(host)?);
    let stream = acceptor.accept(TokioIo::new(client)).await.context("TLS of the client")?;
    let service = service_fn(|request| {
        let (config, host) = (config.clone(), host.to_owned());
        async move { Ok::<_, Infallible>(inner(&config, &host, port, request).await) }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// One request in an intercepted tunnel.
async fn inner(
    config: &Config,
    host: &str,
    port: u16,
    request: Request<Incoming>,
) -> Response<Answer> {
    let url = format!("https://{host}:{port}{}", request.uri());
    let addresses = match judged(config, request.method().as_str(), host, port).await {
        Ok(addresses) => addresses,
        Err(refusal) => return refusal,
    };
    log("allowed", &[("method", request.method().as_str()), ("url", &url)]);
    match upstream::send(&addresses, Some(host), request).await {
        Ok(response) => looked_into(config, response),
        Err(error) => text(StatusCode::BAD_GATEWAY, format!("upstream error: {error:#}")),
    }
}

/// Answers that cannot be looked into are blocked.
fn looked_into(config: &Config, response: Response<Incoming>) -> Response<Answer> {
    let headers = response.headers();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if headers.contains_key(CONTENT_ENCODING) {
        return text(StatusCode::FORBIDDEN, "blocked: compressed response cannot be scanned");
    }
    if length.is_some_and(|length: u64| length > config.tls_interception.max_response_bytes) {
        return text(StatusCode::FORBIDDEN, "blocked: response exceeds max_response_bytes");
    }
    response.map(Answer::Relayed)
}

/// Plain HTTP in the absolute form.
async fn plain(config: &Config, mut request: Request<Incoming>) -> Response<Answer> {
    if !config.forward_proxy.enabled {
        return text(StatusCode::METHOD_NOT_ALLOWED, "forward proxy disabled");
    }
    let Some((host, port)) = split(request.uri(), 80) else {
        return text(StatusCode::BAD_REQUEST, "malformed target authority");
    };
    let addresses = match judged(config, request.method().as_str(), &host, port).await {
        Ok(addresses) => addresses,
        Err(refusal) => return refusal,
    };
    let url = request.uri().to_string();
    log("allowed", &[("method", request.method().as_str()), ("url", &url)]);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    match path.parse::<Uri>() {
        Ok(path) => *request.uri_mut() = path,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    }
    match upstream::send(&addresses, None, request).await {
        Ok(response) => response.map(Answer::Relayed),
        Err(error) => text(StatusCode::BAD_GATEWAY, format!("upstream error: {error:#}")),
    }
}

async fn judged(
    config: &Config,
    method: &str,
    host: &str,
    port: u16,
) -> Result<Vec<std::net::SocketAddr>, Response<Answer>> {
    let verb = if method == "CONNECT" { "CONNECT blocked" } else { "blocked" };
    match judge(config, host, port).await {
        Ok(addresses) => Ok(addresses),
        Err(Blocked::Policy(why)) => {
            log("blocked", &[("target", &format!("{host}:{port}")), ("reason", &why)]);
            Err(text(StatusCode::FORBIDDEN, format!("{verb}: {why}")))
        }
        Err(Blocked::World(why)) => Err(text(StatusCode::BAD_GATEWAY, why)),
    }
}

fn split(uri: &Uri, port: u16) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    Some((authority.host().to_owned(), authority.port_u16().unwrap_or(port)))
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Text(Some(text.into())));
    *response.status_mut() = status;
    response
}
