//! The listener: HTTP/1 on the internal network, bounded in connections, time and size, because the
//! only client is the agent. Each request stands alone; no session is kept.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bottle::policy::{Loaded, Routes};
use bottle::run::say;
use bottle::{Blame, record, state};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::TOOL;
use crate::args::Args;
use crate::desk::Desk;
use crate::rules::Rules;
use crate::tools::{Shared, Supervise};

/// The most connections at once.
const CONNECTIONS: usize = 64;
/// How long a connection may take to ask, and may last.
const HEAD: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_mins(10);
/// The largest request.
const LARGEST: usize = 64 << 10;
/// How often it is looked what has changed.
const TICK: Duration = Duration::from_secs(1);

type Service = StreamableHttpService<Supervise, NeverSessionManager>;

/// Serves until a signal ends it.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().world("start")?;
    runtime.block_on(serve_on(args))
}

async fn serve_on(args: &Args) -> Result<()> {
    // Before anything else: PID 1 has no default for signals that it does not handle.
    let mut term = signal(SignalKind::terminate()).world("take SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).world("take SIGINT")?;
    let desk = Desk::open(&args.conf, &args.run)?;
    desk.settings()?;
    let rules = Rules::new(&args.conf, &args.egress);
    let shared = Arc::new(Shared { desk, rules, egress: args.egress.clone() });
    let listener =
        TcpListener::bind(args.listen).await.world(format!("listen on {}", args.listen))?;
    let theirs = shared.clone();
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(LARGEST)
        .with_allowed_hosts([args.listen.ip().to_string(), "supervise".to_owned()]);
    let service = Service::new(move || Ok(Supervise::new(theirs.clone())), Arc::default(), config);
    let mut told = String::new();
    tell(&shared, &args.run, &mut told)?;
    tokio::select! {
        () = accept(listener, service) => {}
        () = look(&shared, &args.run, told) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, service: Service) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Not closed before the program ends.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(WHOLE, connection(stream, service)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, service: Service) {
    let service = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.handle(request).await) }
    });
    // A client that breaks off is no news.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Looks now and then what has changed.
async fn look(shared: &Shared, run: &Path, mut told: String) {
    loop {
        tokio::time::sleep(TICK).await;
        shared.desk.tidy();
        if let Err(error) = tell(shared, run, &mut told) {
            say(TOOL, &format!("{error:#}"));
        }
    }
}

/// Says which rules it explains, once it serves.
fn tell(shared: &Shared, run: &Path, told: &mut String) -> Result<()> {
    let bytes = shared.rules.bytes()?;
    let sha256 = state::sha256_hex(&bytes);
    if sha256 == *told {
        return Ok(());
    }
    let routes = Routes::parse(&bytes)?;
    let (generation, plan) = (routes.generation, routes.plan);
    let loaded_at = record::now();
    let loaded = Loaded { sha256: sha256.clone(), generation, plan, loaded_at, refused: None };
    let mut text = serde_json::to_string(&loaded).world("write 'loaded.json'")?;
    text.push('\n');
    state::write(&run.join("loaded.json"), text.as_bytes(), 0o600, None)?;
    *told = sha256;
    Ok(())
}
