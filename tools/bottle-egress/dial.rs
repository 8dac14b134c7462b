//! Connections to upstream servers: resolve once, check every address, dial exactly one of those
//! that were checked, verify its certificate for the host that was judged.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bottle::host::Host;
use bottle::policy::{Closed, Scheme};
use bytes::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::conf::Force;
use crate::parent::{self, Trouble};
use crate::pool::{Sender, Target, Upstream};
use crate::proxy::{
    BUFFER, CONNECTION_WINDOW, FRAME, HEADER_LIST, SEND_BUFFER, STREAM_WINDOW, keep_alive,
};
use crate::resolve::Resolver;
use crate::tls;

/// How long one address has to take a connection, and TLS to be agreed.
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The most addresses of one name that are tried.
const TRIED: usize = 4;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Failure {
    /// All addresses are closed to the rule, which is a refusal; this is the first.
    Closed(IpAddr, Closed),
    /// The name could not be resolved.
    Resolve(String),
    /// Nobody took the connection.
    Connect(SocketAddr, std::io::Error),
    /// TLS failed, or the certificate is not good.
    Tls(std::io::Error),
    /// What was not done in time.
    Timeout(&'static str),
    /// The server broke the protocol or the connection.
    Protocol(hyper::Error),
    /// The proxy behind egress does not let it through, or cannot.
    Parent(Trouble),
}

impl Failure {
    /// Whether nobody who is trusted vouches for the server.
    pub(crate) fn is_unknown_authority(&self) -> bool {
        let Self::Tls(error) = self else { return false };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        error == Some(&unknown)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(address, closed) => write!(f, "{address} is {closed}"),
            Self::Resolve(error) => f.write_str(error),
            Self::Connect(address, error) => write!(f, "connect to {address}: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout(what) => write!(f, "{what} took too long"),
            Self::Parent(trouble) => trouble.fmt(f),
            Self::Protocol(error) => {
                write!(f, "the server's answer: {error}")?;
                let mut cause = std::error::Error::source(error);
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

/// Opens a connection that `rule` allows, of HTTP/2 where the server chooses that and `single` does
/// not forbid it.
pub(crate) async fn dial(
    resolver: &Resolver,
    force: &Force,
    rule: usize,
    target: &Target,
    single: bool,
) -> Result<Upstream, Failure> {
    let (stream, address) = connect(resolver, force, rule, target).await?;
    let sender = match target.scheme {
        Scheme::Http => attach(stream).await?,
        Scheme::Https => {
            let name = match &target.host {
                Host::Name(name) => ServerName::try_from(name.to_string())
                    .map_err(|error| Failure::Tls(std::io::Error::other(error)))?,
                Host::Address(address) => ServerName::IpAddress((*address).into()),
            };
            let connector = TlsConnector::from(Arc::clone(&force.upstream));
            let agreed = if single {
                connector.with_alpn(vec![tls::HTTP_1.to_vec()]).connect(name, stream)
            } else {
                connector.connect(name, stream)
            };
            let stream = timeout(HANDSHAKE, agreed)
                .await
                .map_err(|_| Failure::Timeout("the TLS handshake"))?
                .map_err(Failure::Tls)?;
            if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2) {
                attach_many(stream).await?
            } else {
                attach(stream).await?
            }
        }
    };
    Ok(Upstream { sender, address })
}

/// A connection to a server that speaks second, as in TLS and in HTTP; see [`open`].
pub(crate) async fn connect(
    resolver: &Resolver,
    force: &Force,
    rule: usize,
    target: &Target,
) -> Result<(TcpStream, IpAddr), Failure> {
    let opened = open(resolver, force, rule, target).await?;
    match force.policy.routes().parent {
        Some(parent) if !opened.early.is_empty() => {
            let why = "it speaks in the tunnel before it is asked".to_owned();
            Err(Failure::Parent(Trouble::Away(parent, why)))
        }
        _ => Ok((opened.stream, opened.address)),
    }
}

/// A connection that was opened.
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    /// What the server has said already.
    pub(crate) early: Bytes,
    /// The address that was dialled.
    pub(crate) address: IpAddr,
}

/// A TCP connection to one of the target's checked addresses; by the proxy behind egress where there
/// is one, for plain HTTP a connection to it.
pub(crate) async fn open(
    resolver: &Resolver,
    force: &Force,
    rule: usize,
    target: &Target,
) -> Result<Opened, Failure> {
    let addresses = match &target.host {
        Host::Address(address) => Arc::from([*address]),
        Host::Name(name) => resolver.resolve(name).await.map_err(Failure::Resolve)?,
    };
    let mut failure = None;
    let mut tried = 0;
    for address in addresses.iter().copied() {
        if let Err(closed) = force.policy.address(rule, address) {
            failure.get_or_insert(Failure::Closed(address, closed));
            continue;
        }
        if let Some(parent) = force.policy.routes().parent {
            let opened = match target.scheme {
                Scheme::Http => parent::connect(parent).await.map(|stream| (stream, Bytes::new())),
                Scheme::Https => parent::tunnel(parent, target).await,
            };
            let (stream, early) = opened.map_err(Failure::Parent)?;
            return Ok(Opened { stream, early, address });
        }
        tried += 1;
        if tried > TRIED {
            break;
        }
        let address = SocketAddr::new(address, target.port);
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                keep_alive(&stream);
                return Ok(Opened { stream, early: Bytes::new(), address: address.ip() });
            }
            Ok(Err(error)) => failure = Some(Failure::Connect(address, error)),
            Err(_) => failure = Some(Failure::Timeout("the connection")),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::Resolve("there is no address".into())))
}

/// Speaks HTTP/1 on a stream; a task of its own drives it, and ends with it.
pub(crate) async fn attach<S>(stream: S) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::Protocol)?;
    // How it ends is told to whoever waits for an answer.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Sender::One(sender))
}

/// Speaks HTTP/2 on a stream, in the same way. Servers that push are told not to.
async fn attach_many<S>(stream: S) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::Protocol)?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::Many(sender, Arc::default()))
}
