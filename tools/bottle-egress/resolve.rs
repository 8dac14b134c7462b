//! Names to addresses, for allowed hosts only.
//!
//! A stub resolver of its own and not the C library's: that one blocks a thread for up to half a
//! minute a name, which an agent could make it do, tries `name.search.domain` too, and can load
//! nothing in a static binary. `/etc/hosts` is honoured, search domains are not.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::error::Blame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::wire::{self, Answer};

/// How long one server has for one try, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 2;

/// Bounds of the time for which an answer is kept: long enough for a burst of connections, short
/// enough that nobody waits for a change.
const KEEP: std::ops::RangeInclusive<u32> = 1..=30;

/// The most names that are kept.
const KEPT: usize = 1024;

/// The addresses of a name, and until when they are kept.
type Kept = (Arc<[IpAddr]>, Instant);

/// The resolver; shared by all connections.
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    kept: Mutex<HashMap<String, Kept>>,
    random: RandomState,
    asked: AtomicU64,
}

impl Resolver {
    /// Asks `server`, or those of `/etc/resolv.conf`.
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self> {
        let servers = match server {
            Some(server) => vec![server],
            None => servers(
                &std::fs::read_to_string("/etc/resolv.conf").world("read '/etc/resolv.conf'")?,
            ),
        };
        Ok(Self {
            servers,
            kept: Mutex::default(),
            random: RandomState::new(),
            asked: AtomicU64::new(0),
        })
    }

    /// One that asks nobody, and holds a name to have one address.
    #[cfg(any(test, feature = "trial"))]
    pub(crate) fn knowing(name: &str, address: IpAddr) -> Self {
        let until = Instant::now() + Duration::from_hours(10_000);
        let kept = HashMap::from([(name.to_owned(), (Arc::from([address]), until))]);
        Self {
            servers: Vec::new(),
            kept: kept.into(),
            random: RandomState::new(),
            asked: AtomicU64::new(0),
        }
    }

    /// The addresses of a name, IPv4 first. The error is a phrase for a person.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Arc<[IpAddr]>, String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((addresses, until)) = kept
            && until > Instant::now()
        {
            return Ok(addresses);
        }
        let (mut addresses, seconds) = match in_hosts(name) {
            own if !own.is_empty() => (own, *KEEP.start()),
            _ => self.ask(name).await?,
        };
        addresses.sort_by_key(IpAddr::is_ipv6);
        let addresses: Arc<[IpAddr]> = addresses.into();
        let until = Instant::now() + Duration::from_secs(seconds.into());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(name.to_owned(), (addresses.clone(), until));
        Ok(addresses)
    }

    async fn ask(&self, name: &str) -> Result<(Vec<IpAddr>, u32), String> {
        let (v4, v6) = tokio::join!(self.question(name, wire::A), self.question(name, wire::AAAA));
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let found = v4.iter().chain(&v6);
        let ttl = found.clone().map(|answer| answer.ttl).min().unwrap_or_default();
        let addresses: Vec<_> = found.flat_map(|answer| &answer.addresses).copied().collect();
        if addresses.is_empty() {
            return Err(format!("'{name}' has no address"));
        }
        Ok((addresses, ttl.clamp(*KEEP.start(), *KEEP.end())))
    }

    async fn question(&self, name: &str, kind: u16) -> Result<Answer, String> {
        let mut failure = String::from("no name server is configured");
        for _ in 0..TRIES {
            for server in &self.servers {
                let exchanged = match wire::query(self.id(), name, kind) {
                    Some(query) => timeout(PATIENCE, exchange(*server, &query)).await,
                    None => return Err(format!("'{name}' is no name for DNS")),
                };
                match exchanged {
                    Ok(Ok(answer)) => match answer.code {
                        wire::NOERROR => return Ok(answer),
                        wire::NXDOMAIN => return Err(format!("'{name}' does not exist")),
                        code => failure = format!("name server {server} says code {code}"),
                    },
                    Ok(Err(error)) => failure = format!("ask name server {server}: {error}"),
                    Err(_) => failure = format!("name server {server} does not answer"),
                }
            }
        }
        Err(failure)
    }

    /// An identity that nobody off the path can guess; the kernel's choice of port adds to it.
    fn id(&self) -> u16 {
        let count = self.asked.fetch_add(1, Ordering::Relaxed);
        let [a, b, ..] = self.random.hash_one(count).to_le_bytes();
        u16::from_le_bytes([a, b])
    }
}

/// One question to one server: UDP, and TCP where the answer does not fit.
async fn exchange(server: SocketAddr, query: &[u8]) -> std::io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut packet = vec![0; 4096];
    loop {
        let length = socket.recv(&mut packet).await?;
        match wire::answer(query, &packet[..length]) {
            Some(answer) if answer.truncated => break,
            Some(answer) => return Ok(answer),
            // Not ours: somebody guesses. Ours may still come.
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut packet = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut packet).await?;
    wire::answer(query, &packet)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "a broken answer"))
}

/// The name servers of a `resolv.conf`.
fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .take(3)
        .collect()
}

/// The addresses of a name in `/etc/hosts`.
fn in_hosts(name: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split('#').next()?.split_once(char::is_whitespace))
        .filter(|(_, names)| names.split_whitespace().any(|known| known.eq_ignore_ascii_case(name)))
        .filter_map(|(address, _)| address.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# x\nsearch a b\nnameserver 127.0.0.11\nnameserver ::1 # y\noptions ndots:0\nnameserver bad\n";
        assert_eq!(servers(text), ["127.0.0.11:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn answer_that_does_not_fit_is_asked_for_over_tcp() {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(server).await.unwrap();
        let answer = |query: &[u8], truncated: bool| {
            let question = wire::question(query).unwrap();
            let address = (question.kind == wire::A).then_some(Ipv4Addr::new(192, 0, 2, 7));
            let mut reply = wire::reply(query, Some(&question), wire::NOERROR, address);
            reply[2] |= if truncated { 2 } else { 0 };
            reply
        };
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut packet).await {
                // Somebody guesses first.
                let mut forged = answer(&packet[..length], false);
                forged[0] ^= 1;
                udp.send_to(&forged, client).await.unwrap();
                udp.send_to(&answer(&packet[..length], true), client).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let reply = answer(&query, false);
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        let resolver = Resolver::new(Some(server)).unwrap();
        let addresses = resolver.resolve("big.example").await.unwrap();
        assert_eq!(*addresses, [IpAddr::from([192, 0, 2, 7])]);
    }
}
