//! Connections to upstream servers that can take a request, kept by scheme, host and port: a
//! connection is never used for anything but the target that it was checked, dialled and verified
//! for. One of HTTP/1 rests here between requests; one of HTTP/2 stays while it is used, because
//! it is shared.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bottle::host::Host;
use bottle::policy::Scheme;
use hyper::client::conn::{http1, http2};
use tokio::sync::OwnedMutexGuard;

use crate::body::Upload;
use crate::lanes::LANES;

/// How long a connection is kept without work. Servers close after 60 s and more.
const KEPT: Duration = Duration::from_secs(30);

/// The most connections of HTTP/1 that a lane keeps, of one target and in all.
const OF_ONE: usize = 64;
const IN_ALL: usize = 256;

/// The most requests at once on one connection of HTTP/2 before another one is made. Servers allow
/// 100 at least; where one allows less, what is more waits for its turn.
const SHARED: usize = 100;

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
    pub(crate) sender: Sender,
    /// The address that was dialled.
    pub(crate) address: IpAddr,
}

/// The two versions of HTTP.
pub(crate) enum Sender {
    /// One request at a time.
    One(http1::SendRequest<Upload>),
    /// Many; the second part is held by each request under way.
    Many(http2::SendRequest<Upload>, Arc<()>),
}

impl Upstream {
    /// The same connection for one more request, where it can take more than one.
    fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Many(sender, users) => Some(Self {
                sender: Sender::Many(sender.clone(), users.clone()),
                address: self.address,
            }),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Many(sender, _) => sender.is_closed(),
        }
    }

    /// Requests under way on a connection that is shared.
    fn users(&self) -> usize {
        match &self.sender {
            Sender::One(_) => 0,
            // The pool's own.
            Sender::Many(_, users) => Arc::strong_count(users) - 1,
        }
    }
}

/// Connections, and since when each rests, or when it was given out last.
type Kept = Vec<(Upstream, Instant)>;

/// What is known of one target.
#[derive(Default)]
struct Known {
    resting: Kept,
    shared: Kept,
    /// Held by whoever dials, while it is not known that the server speaks HTTP/1.
    dialling: Arc<tokio::sync::Mutex<()>>,
    /// Whether the server speaks HTTP/1, or could not be had: nobody waits for another's dial.
    apart: bool,
}

impl Known {
    /// Forgets what is closed or old; whether anything is left.
    fn sweep(&mut self, now: Instant) -> bool {
        let fresh = |(old, since): &(Upstream, Instant)| {
            !old.is_closed() && (old.users() > 0 || now - *since < KEPT)
        };
        self.resting.retain(fresh);
        self.shared.retain(fresh);
        !(self.resting.is_empty() && self.shared.is_empty())
            || Arc::strong_count(&self.dialling) > 1
    }
}

/// The connections, by the lane that drives them.
#[derive(Default)]
pub(crate) struct Pool {
    lanes: [Mutex<HashMap<Arc<Target>, Known>>; LANES],
}

impl Pool {
    /// Takes a connection to `target` that can take a request and whose address is `allowed`, and
    /// says how long it rested. Of those that rest it is the one that did least. `single` asks for
    /// HTTP/1.
    pub(crate) fn take(
        &self,
        lane: usize,
        target: &Target,
        single: bool,
        allowed: impl Fn(IpAddr) -> bool,
    ) -> Option<(Upstream, Duration)> {
        let mut lane = self.lock(lane);
        let known = lane.get_mut(target)?;
        if !single && !known.shared.is_empty() {
            let now = Instant::now();
            known.sweep(now);
            let free = known
                .shared
                .iter_mut()
                .find(|(upstream, _)| upstream.users() < SHARED && allowed(upstream.address));
            if let Some((upstream, used)) = free {
                let rested = now - std::mem::replace(used, now);
                return upstream.share().map(|upstream| (upstream, rested));
            }
        }
        let kept = &mut known.resting;
        while let Some(at) = kept.iter().rposition(|(upstream, _)| allowed(upstream.address)) {
            let (upstream, since) = kept.remove(at);
            let rested = since.elapsed();
            if !upstream.is_closed() && rested < KEPT {
                return Some((upstream, rested));
            }
        }
        None
    }

    /// Keeps a connection: of HTTP/1 when its work is done, of HTTP/2 as soon as it is there.
    pub(crate) fn put(&self, lane: usize, target: &Arc<Target>, upstream: Upstream) {
        if upstream.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut lane = self.lock(lane);
        let known = known(&mut lane, target, now);
        let kept = match upstream.sender {
            Sender::One(_) => &mut known.resting,
            Sender::Many(..) => &mut known.shared,
        };
        if kept.len() >= OF_ONE {
            kept.remove(0);
        }
        kept.push((upstream, now));
    }

    /// Keeps a connection of HTTP/2 and gives it back; one of HTTP/1 is only given back.
    pub(crate) fn keep(&self, lane: usize, target: &Arc<Target>, upstream: Upstream) -> Upstream {
        if let Some(upstream) = upstream.share() {
            self.put(lane, target, upstream);
        }
        upstream
    }

    /// The turn to dial `target`. While it is not known whether its server speaks HTTP/2, one dials
    /// and the others wait, because one connection may do for all.
    pub(crate) async fn turn(
        &self,
        lane: usize,
        target: &Arc<Target>,
    ) -> Option<OwnedMutexGuard<()>> {
        let dialling = {
            let mut lane = self.lock(lane);
            let known = known(&mut lane, target, Instant::now());
            if known.apart {
                return None;
            }
            known.dialling.clone()
        };
        let turn = dialling.lock_owned().await;
        let apart = self.lock(lane).get(target).is_some_and(|known| known.apart);
        (!apart).then_some(turn)
    }

    /// Notes whether connections to `target` are for one request at a time.
    pub(crate) fn note(&self, lane: usize, target: &Arc<Target>, apart: bool) {
        known(&mut self.lock(lane), target, Instant::now()).apart = apart;
    }

    fn lock(&self, lane: usize) -> MutexGuard<'_, HashMap<Arc<Target>, Known>> {
        self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a target, maybe nothing yet.
fn known<'a>(
    lane: &'a mut HashMap<Arc<Target>, Known>,
    target: &Arc<Target>,
    now: Instant,
) -> &'a mut Known {
    if !lane.contains_key(target) {
        // A new target is a good moment to forget old ones.
        lane.retain(|_, known| known.sweep(now));
        if lane.values().map(|known| known.resting.len()).sum::<usize>() >= IN_ALL {
            for known in lane.values_mut() {
                known.resting.clear();
            }
        }
    }
    lane.entry(target.clone()).or_default()
}
