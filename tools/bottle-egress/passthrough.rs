//! TLS that is not intercepted: tunnelled byte for byte to the server that the CONNECT named, if the
//! client asks that one for the same name in the clear.

use std::sync::Arc;

use bottle::host::request_host;
use bottle::policy::Reason;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::conf::Force;
use crate::dial::{self, Failure};
use crate::hello::{self, Hello};
use crate::parent::Trouble;
use crate::passage::Passage;
use crate::pool::Target;
use crate::proxy::Session;
use crate::tunnel::PATIENCE;

/// Alerts of TLS, in a record: they are all that its client understands. Access denied, and internal
/// error.
const DENIED: &[u8] = &[21, 3, 1, 0, 2, 2, 49];
const FAILED: &[u8] = &[21, 3, 1, 0, 2, 2, 80];

/// Tunnels what comes after a CONNECT that `rule` allows; `first` has been read already.
pub(crate) async fn serve(
    session: &Arc<Session>,
    force: Arc<Force>,
    target: Arc<Target>,
    rule: usize,
    mut first: BytesMut,
    mut client: TcpStream,
) {
    let mut passage = Passage::new(session, force, target.clone(), rule);
    if session.egress.journal.refuses(passage.force.policy.routes().audit) {
        passage.refuse(Reason::Audit);
        let _ = client.write_all(DENIED).await;
        return;
    }
    let asked = timeout(PATIENCE, hello(&mut client, &mut first)).await;
    let Ok(asked) = asked else { return };
    if let Err(reason) = asked.and_then(|hello| agrees(&hello, &target)) {
        passage.refuse(reason);
        let _ = client.write_all(DENIED).await;
        return;
    }
    let dialled = dial::connect(&session.egress.resolver, &passage.force, rule, &target).await;
    let mut server = match dialled {
        Ok((server, address)) => {
            passage.address = Some(address);
            server
        }
        Err(failure) => {
            let reason = match failure {
                Failure::Closed(address, _) => {
                    passage.address = Some(address);
                    Some(Reason::Address)
                }
                Failure::Parent(Trouble::Refused(..)) => Some(Reason::Parent),
                _ => None,
            };
            if let Some(reason) = reason {
                passage.refuse(reason);
            }
            let alert = if reason.is_some() { DENIED } else { FAILED };
            let _ = client.write_all(alert).await;
            return;
        }
    };
    if server.write_all(&first).await.is_err() {
        return;
    }
    passage.sent(first.len());
    // Gives the memory back, for a connection may be long.
    drop(first);
    passage.join(client, server, |rule| rule.passthrough).await;
}

/// Reads until the `ClientHello` is whole.
async fn hello(client: &mut TcpStream, read: &mut BytesMut) -> Result<Hello, Reason> {
    loop {
        match hello::read(read) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) if read.len() < 2 * hello::MAX => {}
            _ => return Err(Reason::NotHttp),
        }
        read.reserve(4096);
        if !matches!(client.read_buf(read).await, Ok(1..)) {
            return Err(Reason::NotHttp);
        }
    }
}

/// Whether the client asks in the clear for the host that the CONNECT named. What looks like an
/// encrypted name is refused even where it is none (GREASE, of some browsers): only the server
/// could tell.
fn agrees(hello: &Hello, target: &Target) -> Result<(), Reason> {
    match hello.server_name.as_deref().map(request_host) {
        None => Err(Reason::ServerName),
        Some(_) if hello.encrypted => Err(Reason::ServerName),
        Some(Ok(host)) if host == target.host => Ok(()),
        Some(_) => Err(Reason::HostMismatch),
    }
}
