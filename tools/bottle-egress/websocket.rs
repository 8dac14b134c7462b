//! A WebSocket on a route whose bytes are looked at: frames pass as they come, and what the client
//! says in them is scanned: text message by message, across its frames, and all that is binary as one
//! stream. What may be the beginning of something waits, but not beyond the end of its message.

use bottle::policy::{Dlp, Reason};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::dlp::{self, Finding, Lens, Place, Scanner};
use crate::exchange::Upward;
use crate::leaks::{self, HOLD};
use crate::reply::Refusal;

mod frames;

use frames::{Frames, Kind};

/// What is read at once.
const AT_ONCE: usize = 16 << 10;

/// How long a client that is cut off may take to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// The scan of what a client says.
pub(crate) struct Messages {
    frames: Frames,
    lens: Lens,
    text: Scanner,
    binary: Scanner,
    control: Vec<u8>,
    mode: Dlp,
    held: BytesMut,
    payload: Vec<u8>,
    upward: Arc<Upward>,
}

impl Messages {
    pub(crate) fn new(mode: Dlp, lens: Lens, upward: Arc<Upward>) -> Self {
        let scanner = || Scanner::new(&lens, Place::Body, None);
        Self {
            frames: Frames::default(),
            text: scanner(),
            binary: scanner(),
            control: Vec::new(),
            lens,
            mode,
            held: BytesMut::new(),
            payload: Vec::new(),
            upward,
        }
    }

    /// Takes the next bytes and gives those that may leave; after an error none do.
    fn pass(&mut self, bytes: &[u8]) -> Result<Bytes, Refusal> {
        self.held.extend_from_slice(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = self.frames.next(rest).map_err(odd)?;
            let (now, after) = rest.split_at(piece.length);
            rest = after;
            self.payload.clear();
            if piece.payload {
                self.payload.extend_from_slice(now);
                self.frames.unmask(&mut self.payload);
            }
            self.look(piece.kind, piece.ends)?;
        }
        let open = self.text.held() + self.binary.held() + self.control.len();
        let waits = self.mode == Dlp::Block && !self.frames.is_over() && open > 0;
        let kept = if waits { self.held.len().min(Scanner::HELD) } else { 0 };
        Ok(self.held.split_to(self.held.len() - kept).freeze())
    }

    /// Looks at a payload, the last of its message or not.
    fn look(&mut self, kind: Kind, last: bool) -> Result<(), Refusal> {
        match kind {
            Kind::Text => self.text.feed(&self.payload),
            Kind::Binary => self.binary.feed(&self.payload),
            // A few bytes, which may come within a message.
            Kind::Control => self.control.extend_from_slice(&self.payload),
        }
        match kind {
            Kind::Text if last => {
                self.text.end();
                let ended = Scanner::new(&self.lens, Place::Body, None);
                let ended = std::mem::replace(&mut self.text, ended);
                return self.judge(ended.found());
            }
            Kind::Binary if last => self.binary.settle(),
            Kind::Control if last => {
                let found = dlp::scan_slice(&self.lens, Place::Body, &self.control);
                self.control.clear();
                return self.judge(&found);
            }
            _ => {}
        }
        self.judge(self.text.found())?;
        self.judge(self.binary.found())
    }

    /// Gives what has been held for too long, unless it is whole as it stands.
    fn waited(&mut self) -> Result<Bytes, Refusal> {
        self.text.settle();
        self.binary.settle();
        self.judge(self.text.found())?;
        self.judge(self.binary.found())?;
        Ok(self.held.split().freeze())
    }

    fn judge(&self, found: &[Finding]) -> Result<(), Refusal> {
        if found.is_empty() {
            return Ok(());
        }
        self.upward.add(found);
        leaks::verdict(self.mode, found)
    }

    /// Passes on what a client says until it ends its side.
    async fn relay(
        &mut self,
        mut client: impl AsyncRead + Unpin,
        mut server: impl AsyncWrite + Unpin,
    ) -> std::io::Result<Result<(), Refusal>> {
        let mut bytes = BytesMut::with_capacity(AT_ONCE);
        loop {
            bytes.clear();
            bytes.reserve(AT_ONCE);
            let read = client.read_buf(&mut bytes);
            let read = if self.held.is_empty() {
                Some(read.await?)
            } else {
                timeout(HOLD, read).await.ok().transpose()?
            };
            let passed = match read {
                // Both sides may wait for one another. And nobody else sees an end without one.
                None | Some(0) => self.waited(),
                Some(_) => self.pass(&bytes),
            };
            match passed {
                Ok(bytes) => server.write_all(&bytes).await?,
                Err(refusal) => return Ok(Err(refusal)),
            }
            if read == Some(0) {
                server.shutdown().await?;
                return Ok(Ok(()));
            }
            server.flush().await?;
        }
    }
}

fn odd(why: &'static str) -> Refusal {
    let why = format!("the WebSocket cannot be looked into: {why}");
    Refusal { reason: Reason::Framing, why }
}

/// Joins client and server until both have ended their sides, or what the client says must not leave;
/// the client is told so then.
pub(crate) async fn join<C, S>(mut messages: Messages, client: C, server: S) -> Option<Refusal>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (from_client, mut to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let state = Downward::default();
    let refusal = {
        let mut up = std::pin::pin!(messages.relay(from_client, to_server));
        let mut down = std::pin::pin!(state.relay(from_server, &mut to_client));
        let mut ended = false;
        let refusal = loop {
            tokio::select! {
                relayed = &mut up, if !ended => match relayed {
                    Ok(Ok(())) => ended = true,
                    Ok(Err(refusal)) => break refusal,
                    Err(_) => return None,
                },
                relayed = &mut down => {
                    if relayed.is_ok() && !ended && let Ok(Err(refusal)) = up.await {
                        break refusal;
                    }
                    return None;
                }
            }
        };
        state.stop.store(true, Ordering::Relaxed);
        if !state.between.load(Ordering::Relaxed) {
            let _ = timeout(FAREWELL, down).await;
        }
        refusal
    };
    if state.between.load(Ordering::Relaxed) {
        let told = async {
            to_client.write_all(&close(&refusal)).await?;
            to_client.flush().await?;
            to_client.shutdown().await
        };
        let _ = timeout(FAREWELL, told).await;
    }
    Some(refusal)
}

/// What comes from the server.
struct Downward {
    /// Whether it is between two frames.
    between: AtomicBool,
    /// Whether it is to stop there.
    stop: AtomicBool,
}

impl Default for Downward {
    fn default() -> Self {
        Self { between: AtomicBool::new(true), stop: AtomicBool::new(false) }
    }
}

impl Downward {
    /// Passes on what a server says, whatever that is, until it ends its side.
    async fn relay(
        &self,
        mut server: impl AsyncRead + Unpin,
        mut client: impl AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut frames = Some(Frames::default());
        let mut bytes = BytesMut::with_capacity(AT_ONCE);
        loop {
            bytes.clear();
            bytes.reserve(AT_ONCE);
            if server.read_buf(&mut bytes).await? == 0 {
                return client.shutdown().await;
            }
            let length = self.follow(&mut frames, &bytes);
            client.write_all(&bytes[..length]).await?;
            client.flush().await?;
            self.between.store(frames.as_ref().is_some_and(Frames::is_between), Ordering::Relaxed);
            if length < bytes.len() || (self.stop.load(Ordering::Relaxed) && self.is_between()) {
                return Ok(());
            }
        }
    }

    /// Follows the frames, and gives how many bytes are to be sent.
    fn follow(&self, frames: &mut Option<Frames>, bytes: &[u8]) -> usize {
        self.between.store(false, Ordering::Relaxed);
        let mut at = 0;
        while let Some(known) = frames
            && at < bytes.len()
        {
            match known.next(&bytes[at..]) {
                Ok(piece) => at += piece.length,
                // Nobody knows any more where a frame ends.
                Err(_) => *frames = None,
            }
            if self.stop.load(Ordering::Relaxed) && frames.as_ref().is_some_and(Frames::is_between)
            {
                return at;
            }
        }
        bytes.len()
    }

    fn is_between(&self) -> bool {
        self.between.load(Ordering::Relaxed)
    }
}

/// The frame that ends it, which has room for 123 bytes of text.
fn close(refusal: &Refusal) -> Vec<u8> {
    let code: u16 = if refusal.reason == Reason::Dlp { 1008 } else { 1002 };
    let text = format!("denied by bottle-egress ({}): {}", refusal.reason.as_str(), refusal.why);
    let text = &text[..text.floor_char_boundary(123)];
    let length = u8::try_from(text.len() + 2).unwrap_or_default();
    [&[0x88, length][..], &code.to_be_bytes(), text.as_bytes()].concat()
}
