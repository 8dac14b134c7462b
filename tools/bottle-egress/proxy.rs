//! The listener, and what every connection shares.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conf::Conf;
use crate::forward;
use crate::journal::Journal;
use crate::lanes::{Accepted, Lanes};
use crate::resolve::Resolver;
use crate::tls::Interceptor;
use crate::tunnel::Tunnel;

/// The most connections of clients at once. More wait in the kernel.
const CONNECTIONS: usize = 1024;

/// How long a client may take to send a request's head, and rest between requests.
const HEAD: Duration = Duration::from_secs(75);

/// The largest buffer of one direction of one connection, and so the longest head.
pub(crate) const BUFFER: usize = 64 << 10;

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

/// Serves HTTP on a stream until it ends.
pub(crate) async fn serve<S>(session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(forward::handle(&session, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off is no news.
    let _ = connection.await;
}

/// Lets the kernel find out that the other side is gone, where nobody else would.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_mins(1));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}
