//! The bottle's DNS: answers the bottle's own names, refuses all else and records it. Nothing an
//! agent asks here is ever asked elsewhere, so names carry nothing out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bottle::policy::{Kind, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::journal;
use crate::proxy::Egress;

pub(crate) mod wire;

/// The most refusals that are recorded a second; more are only counted.
const RECORDED: u64 = 100;

/// The most TCP connections, and how long one may say nothing.
const CONNECTIONS: usize = 32;
const IDLE: Duration = Duration::from_secs(5);

/// Serves UDP for as long as the program runs.
pub(crate) async fn udp(egress: Arc<Egress>, socket: UdpSocket) {
    let meter = Meter::default();
    let mut packet = [0; 4096];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, client)) => {
                if let Some(reply) = respond(&egress, &meter, client, &packet[..length]) {
                    let _ = socket.try_send_to(&reply, client);
                }
            }
            // Out of memory, at worst; never a reason to spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Serves TCP for as long as the program runs.
pub(crate) async fn tcp(egress: Arc<Egress>, listener: TcpListener) {
    let meter = Arc::new(Meter::default());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Not closed before the program ends.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (egress, meter) = (egress.clone(), meter.clone());
        tokio::spawn(async move {
            let _ = talk(&egress, &meter, stream, client).await;
            drop(place);
        });
    }
}

async fn talk(
    egress: &Egress,
    meter: &Meter,
    mut stream: TcpStream,
    client: SocketAddr,
) -> std::io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut packet)).await??;
        let Some(reply) = respond(egress, meter, client, &packet) else { return Ok(()) };
        let length = u16::try_from(reply.len()).unwrap_or_default();
        let message = [&length.to_be_bytes(), &*reply].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// The reply to one packet.
fn respond(egress: &Egress, meter: &Meter, client: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let question = match wire::question(packet) {
        Ok(question) => question,
        Err(code) => return code.map(|code| wire::reply(packet, None, code, None)),
    };
    let force = egress.conf.force();
    let address = force.policy.names().get(&question.name).copied();
    let is_known = force.policy.client(client.ip()).is_some();
    if let Some(address) = address.filter(|_| question.internet && is_known) {
        let address = (question.kind == wire::A).then_some(address);
        return Some(wire::reply(packet, Some(&question), wire::NOERROR, address));
    }
    if meter.admits() {
        let client = IpAddr::to_canonical(&client.ip());
        let kind = type_name(question.kind);
        let mut line = journal::line(Kind::Dns, client, kind, &*question.name, &force);
        line.reason = Some(if is_known { Reason::Dns } else { Reason::Client });
        egress.journal.record(&line);
    } else {
        egress.journal.skip();
    }
    Some(wire::reply(packet, Some(&question), wire::REFUSED, None))
}

fn type_name(kind: u16) -> String {
    match kind {
        wire::A => "A".into(),
        wire::AAAA => "AAAA".into(),
        5 => "CNAME".into(),
        12 => "PTR".into(),
        15 => "MX".into(),
        16 => "TXT".into(),
        33 => "SRV".into(),
        65 => "HTTPS".into(),
        other => format!("TYPE{other}"),
    }
}

/// Admits [`RECORDED`] a second. Counts that race let a few more through.
struct Meter {
    start: Instant,
    second: AtomicU64,
    count: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { start: Instant::now(), second: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
}

impl Meter {
    fn admits(&self) -> bool {
        let now = self.start.elapsed().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < RECORDED
    }
}
