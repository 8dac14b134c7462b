//! Requests to servers: on an address that was judged, with TLS verified as Go does it, by the roots
//! in `SSL_CERT_FILE`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection to the first of the addresses that takes one.
pub(crate) async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream> {
    let mut last = anyhow!("no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Sends one request, inside TLS for `host` where that is given.
pub(crate) async fn send(
    addresses: &[SocketAddr],
    host: Option<&str>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>> {
    let stream = dial(addresses).await?;
    let Some(host) = host else { return exchange(stream, request).await };
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let connector = TlsConnector::from(Arc::new(trust()?));
    exchange(connector.connect(name, stream).await.context("TLS")?, request).await
}

async fn exchange<S>(stream: S, request: Request<Incoming>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn trust() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        for cert in CertificateDer::pem_file_iter(file)? {
            roots.add_parsable_certificates([cert?]);
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
