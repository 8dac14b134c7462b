//! The listener, and what every connection shares.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conf::Conf;
use crate::forward;
use crate::journal::Journal;
use crate::lanes::{Accepted, Lanes};
use crate::resolve::Resolver;
use crate::strict::Strict;
use crate::tls::Interceptor;
use crate::tunnel::Tunnel;

/// The most connections of clients at once. More wait in the kernel.
const CONNECTIONS: usize = 1024;

/// How long a client may take to send a request's head, and rest between requests.
pub(crate) const HEAD: Duration = Duration::from_secs(75);

/// The largest buffer of one direction of one connection, and so the longest head.
pub(crate) const BUFFER: usize = 64 << 10;

/// What of HTTP/2 may be on its way, of one stream and of one connection, before it is read: with the
/// window, 1 MiB at 10 ms is 100 MB/s, and a connection never holds more than 4 MiB, whatever its
/// streams are.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;

/// The largest frame that is taken, and what of one stream waits at most to be sent.
pub(crate) const FRAME: u32 = 64 << 10;
pub(crate) const SEND_BUFFER: usize = 64 << 10;

/// The longest list of header fields, as HTTP/2 counts them.
pub(crate) const HEADER_LIST: u32 = 64 << 10;

/// The most requests at once on a client's connection of HTTP/2.
const STREAMS: u32 = 128;

/// Streams that a client resets before they were looked at, and that it is reset for its own errors,
/// until the connection is ended: what a client that only changes its mind never reaches (rapid
/// reset, CVE-2023-44487). Empty frames and CONTINUATION without end are bounded by h2 itself (from
/// 0.4.4).
const RESETS: usize = 20;
const ERRORS: usize = 256;

/// What all connections share.
pub(crate) struct Egress {
    pub(crate) conf: Arc<Conf>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) interceptor: Interceptor,
    pub(crate) resolver: Resolver,
}

/// One connection of a client, or one tunnel in it.
pub(crate) struct Session {
    pub(crate) egress: Arc<Egress>,
    /// The thread that serves it.
    pub(crate) lane: usize,
    pub(crate) client: IpAddr,
    /// Set inside a CONNECT.
    pub(crate) tunnel: Option<Tunnel>,
    /// Set once bytes of another protocol are what follows.
    pub(crate) raw: AtomicBool,
    /// Set once a request of HTTP/1 is framed in a way that programs read differently.
    pub(crate) fault: OnceLock<&'static str>,
    /// Its place among [`CONNECTIONS`], held by whatever lives longest.
    pub(crate) place: Arc<OwnedSemaphorePermit>,
}

/// Accepts for as long as the program runs.
pub(crate) async fn accept(mut lanes: Lanes, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Not closed before the program ends.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, client)) = listener.accept().await else {
            // Out of descriptors, or a client that went at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        if let Ok(stream) = stream.into_std() {
            lanes.give(Accepted { stream, client: client.ip().to_canonical(), place });
        }
    }
}

/// Serves HTTP/1 on a stream until it ends.
pub(crate) async fn serve<S>(session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let strict = session.clone();
    let service = service_fn(move |request| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(forward::handle(&session, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Strict::new(strict, stream)), service)
        .with_upgrades();
    // A client that breaks off is no news.
    let _ = connection.await;
}

/// Serves HTTP/2 on a stream until it ends. CONNECT with a protocol (RFC 8441) is not offered: clients
/// take HTTP/1 for a WebSocket then.
pub(crate) async fn serve_many<S>(session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(forward::handle(&session, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

/// Lets the kernel find out that the other side is gone, where nobody else would.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_mins(1));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}
