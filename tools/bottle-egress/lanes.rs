//! The threads that serve. A connection stays on the thread that it is given to, and so do its
//! tunnel and its connections upstream: a request then never waits for another thread to wake.

use std::io::Result;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::proxy::{self, Egress, Session};

/// How many there are.
pub(crate) const LANES: usize = 2;

/// A connection that a client has made.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) client: IpAddr,
    pub(crate) place: OwnedSemaphorePermit,
}

/// The ways to the threads, which end when it is dropped.
pub(crate) struct Lanes {
    senders: Vec<UnboundedSender<Accepted>>,
    next: usize,
}

/// The threads.
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Waits until all have ended, and with them what was under way, which is in the journal then.
    pub(crate) fn join(self) {
        for thread in self.0 {
            let _ = thread.join();
        }
    }
}

impl Lanes {
    /// Starts the threads.
    pub(crate) fn start(egress: &Arc<Egress>) -> Result<(Self, Threads)> {
        let mut senders = Vec::with_capacity(LANES);
        let mut threads = Vec::with_capacity(LANES);
        for lane in 0..LANES {
            // What waits is bounded by the places that there are for connections.
            let (sender, receiver) = unbounded_channel();
            let egress = egress.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new()
                .name(format!("lane-{lane}"))
                .spawn(move || runtime.block_on(serve(egress, lane, receiver)))?;
            senders.push(sender);
            threads.push(thread);
        }
        Ok((Self { senders, next: 0 }, Threads(threads)))
    }

    /// Gives a connection to the next thread in turn.
    pub(crate) fn give(&mut self, accepted: Accepted) {
        self.next = (self.next + 1) % LANES;
        // A thread ends with the program only.
        let _ = self.senders[self.next].send(accepted);
    }
}

async fn serve(egress: Arc<Egress>, lane: usize, mut connections: UnboundedReceiver<Accepted>) {
    tokio::spawn(tick());
    while let Some(Accepted { stream, client, place }) = connections.recv().await {
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let session = Session {
            egress: egress.clone(),
            lane,
            client,
            tunnel: None,
            raw: AtomicBool::new(false),
            fault: OnceLock::new(),
            place: Arc::new(place),
        };
        tokio::spawn(proxy::serve(Arc::new(session), stream));
    }
}

/// Keeps a timer that ends before those that each request sets for the next one's head. tokio wakes its own
/// thread, by a write and one more wait, whenever a timer becomes the first to end: a quarter of all
/// system calls of a request.
async fn tick() {
    let mut tick = tokio::time::interval(proxy::HEAD / 3);
    loop {
        tick.tick().await;
    }
}
