//! Bodies in both directions: they pass frame by frame, as they come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::exchange::{Exchange, Upward};
use crate::gate::Wait;
use crate::grants::Ends;
use crate::leaks::Scan;
use crate::mask::Mask;
use crate::reply::Refusal;

/// What an answer carries.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
pub(crate) enum Answer {
    /// Text of our own, or nothing.
    Own(Option<Bytes>),
    /// What the server sends.
    Relayed(Relayed),
}

/// A server's body; when it ends the connection goes back to the pool, and if it is left before,
/// the connection ends with it.
pub(crate) struct Relayed {
    body: Incoming,
    exchange: Option<Exchange>,
    /// Hides the credential that was added to the request.
    mask: Option<Mask>,
    /// Trailers that wait for what the mask holds back.
    trailers: Option<Frame<Bytes>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

impl Relayed {
    pub(crate) fn new(body: Incoming, mut exchange: Exchange) -> Self {
        let mask = exchange.added.as_mut().and_then(|added| added.mask.take());
        Self { body, exchange: Some(exchange), mask, trailers: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(exchange)) = (frame.data_ref(), &mut self.exchange) {
                    *exchange.received.get_mut() += data.len() as u64;
                }
                self.body.is_end_stream()
            }
            _ => false,
        };
        if ended && let Some(exchange) = self.exchange.take() {
            exchange.end();
        }
        polled
    }

    /// The same, masked.
    fn poll_masked(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        let (frame, rest) = loop {
            let frame = match self.poll(cx) {
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(frame) => frame.and_then(Result::ok),
                Poll::Pending => return Poll::Pending,
            };
            let Some(mask) = &mut self.mask else { return Poll::Ready(frame.map(Ok)) };
            match frame.map(Frame::into_data) {
                None => break (None, mask.rest()),
                Some(Ok(data)) => {
                    let data = mask.pass(&data);
                    // All of it may be held back.
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(mut frame)) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        mask.headers(trailers);
                    }
                    break (Some(frame), mask.rest());
                }
            }
        };
        if rest.is_empty() {
            return Poll::Ready(frame.map(Ok));
        }
        self.trailers = frame;
        Poll::Ready(Some(Ok(Frame::data(rest))))
    }

    /// Whether nothing comes any more.
    fn is_end(&self) -> bool {
        self.mask.is_none() && self.body.is_end_stream()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relayed) if relayed.mask.is_some() => relayed.poll_masked(cx),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Relayed(relayed) => relayed.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}

/// What a request carries.
pub(crate) enum Upload {
    /// Nothing, so that it can be sent again.
    Empty,
    /// What the client sends.
    Relayed(Sending),
}

/// A client's body on its way out.
pub(crate) struct Sending {
    body: Incoming,
    /// Looks at it, where the rule wants that.
    scan: Option<Box<Scan>>,
    pub(crate) upward: Arc<Upward>,
    /// Set where the client has asked whether the server wants it.
    pub(crate) wait: Option<Wait>,
    /// Trailers that come after what the scan held.
    trailers: Option<Frame<Bytes>>,
    /// Nothing more is asked of the client.
    ended: bool,
    /// When the rule that let it through ends.
    ends: Option<Box<Ends>>,
}

/// What a body gives next.
type Sent = Option<Result<Frame<Bytes>, Broken>>;

impl Sending {
    pub(crate) fn new(
        body: Incoming,
        scan: Option<Box<Scan>>,
        upward: Arc<Upward>,
        wait: Option<Wait>,
        ends: Option<Box<Ends>>,
    ) -> Self {
        Self { body, scan, upward, wait, trailers: None, ended: false, ends }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        if let Some(wait) = &mut self.wait {
            if !std::task::ready!(wait.poll(&self.upward.gate, cx)) {
                return Poll::Ready(Some(Err(Broken::Unwanted)));
            }
            self.wait = None;
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
                // What is held does not wait for ever.
                let Some(scan) = &mut self.scan else { return Poll::Pending };
                let looked = std::task::ready!(scan.waited(cx));
                return Poll::Ready(self.looked(looked));
            };
            // All of it may be held.
            if let Poll::Ready(passed) = self.pass(polled) {
                return Poll::Ready(passed);
            }
        }
    }

    /// Counts and looks at what comes next; pending where all of it is held.
    fn pass(&mut self, polled: Option<Result<Frame<Bytes>, hyper::Error>>) -> Poll<Sent> {
        let frame = match polled {
            Some(Err(error)) => return Poll::Ready(Some(Err(Broken::Read(error)))),
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        if let Some(refusal) = self.ends.as_ref().and_then(|ends| ends.refusal()) {
            return Poll::Ready(self.looked(Err(refusal)));
        }
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.upward.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        let Some(scan) = &mut self.scan else { return Poll::Ready(frame.map(Ok)) };
        let looked = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                return match scan.pass(data) {
                    Ok(bytes) if bytes.is_empty() => Poll::Pending,
                    looked => Poll::Ready(self.looked(looked)),
                };
            }
            Some(Err(trailers)) => {
                let looked = match trailers.trailers_ref() {
                    Some(fields) => scan.trailers(fields),
                    None => Ok(()),
                };
                self.trailers = Some(trailers);
                looked.and_then(|()| scan.end())
            }
            None => {
                self.ended = true;
                scan.end()
            }
        };
        Poll::Ready(self.looked(looked))
    }

    fn looked(&mut self, looked: Result<Bytes, Refusal>) -> Sent {
        match looked {
            Ok(bytes) if !bytes.is_empty() => Some(Ok(Frame::data(bytes))),
            Ok(_) => self.trailers.take().map(Ok),
            Err(refusal) => {
                let _ = self.upward.refusal.set(refusal);
                self.ended = true;
                Some(Err(Broken::Refused))
            }
        }
    }
}

/// Why a body does not go on to the server.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client broke off.
    Read(hyper::Error),
    /// The rest must not leave.
    Refused,
    /// The server has answered without it.
    Unwanted,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Refused => f.write_str("the rest must not leave"),
            Self::Unwanted => f.write_str("the server does not want it"),
        }
    }
}

impl std::error::Error for Broken {}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Relayed(sending) => sending.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            // The scan has to see the end.
            Self::Relayed(sending) => sending.scan.is_none() && sending.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Relayed(sending) => sending.body.size_hint(),
        }
    }
}
