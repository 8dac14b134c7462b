//! Idle connections to upstream servers, kept by scheme, host and port: a connection is never used
//! for anything but the target that it was checked, dialled and verified for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle::host::Host;
use bottle::policy::Scheme;
use hyper::client::conn::http1::SendRequest;

use crate::body::Upload;
use crate::lanes::LANES;

/// How long a connection is kept without work. Servers close after 60 s and more.
const KEPT: Duration = Duration::from_secs(30);

/// The most that a lane keeps, of one target and in all.
const OF_ONE: usize = 64;
const IN_ALL: usize = 256;

/// Where a request goes: what was judged, and so what is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host<'static>,
    pub(crate) port: u16,
}

/// A connection to an upstream server.
pub(crate) struct Upstream {
    /// The way to send a request on it.
    pub(crate) sender: SendRequest<Upload>,
    /// The address that was dialled.
    pub(crate) address: IpAddr,
}

/// Connections to one target, and since when each rests.
type Resting = Vec<(Upstream, Instant)>;

/// The idle connections, by the lane that drives them.
#[derive(Default)]
pub(crate) struct Pool {
    lanes: [Mutex<HashMap<Arc<Target>, Resting>>; LANES],
}

impl Pool {
    /// Takes the connection to `target` that rested least, if one is open whose address is
    /// `allowed`, and says how long it rested.
    pub(crate) fn take(
        &self,
        lane: usize,
        target: &Target,
        allowed: impl Fn(IpAddr) -> bool,
    ) -> Option<(Upstream, Duration)> {
        let mut idle = self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(target)?;
        while let Some(at) = kept.iter().rposition(|(upstream, _)| allowed(upstream.address)) {
            let (upstream, since) = kept.remove(at);
            let rested = since.elapsed();
            if !upstream.sender.is_closed() && rested < KEPT {
                return Some((upstream, rested));
            }
        }
        None
    }

    /// Keeps a connection whose work is done.
    pub(crate) fn put(&self, lane: usize, target: &Arc<Target>, upstream: Upstream) {
        if upstream.sender.is_closed() {
            return;
        }
        let mut idle = self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !idle.contains_key(target) {
            // A new target is a good moment to forget old ones.
            idle.retain(|_, kept| {
                kept.retain(|(old, since)| !old.sender.is_closed() && now - *since < KEPT);
                !kept.is_empty()
            });
            if idle.values().map(Vec::len).sum::<usize>() >= IN_ALL {
                idle.clear();
            }
        }
        let kept = idle.entry(target.clone()).or_default();
        if kept.len() >= OF_ONE {
            kept.remove(0);
        }
        kept.push((upstream, now));
    }
}
