//! HTTP/1 of a client, looked at before it is parsed. The parser behind is lenient where programs
//! differ (a bare line feed ends a line, `Content-Length` beside `Transfer-Encoding` is dropped,
//! `identity, chunked` is chunked, chunks have extensions), and does not tell. What it sends on is
//! framed anew, so none of that gets through; but a client that says such things means harm, and is
//! told so.
//!
//! A head is held back until it is whole and has been looked at. This can only refuse more: what it
//! lets through is still parsed as ever.

use std::future::Future;
use std::io::{ErrorKind, IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::proxy::{BUFFER, Session};

mod chunks;
mod head;

use chunks::{Chunks, Scanned};
use head::{Body, Head};

/// How much is read of a head at once.
const AT_ONCE: usize = 4096;

/// Why a head without end is refused, which has a status of its own.
pub(crate) const TOO_LONG: &str = "the head is longer than 64 KiB";

/// The request that stands for one that is refused; whoever answers looks at the session's fault.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// A client's stream.
pub(crate) struct Strict<S> {
    inner: S,
    session: Arc<Session>,
    state: State,
    /// What has been read and not passed on, and how much of that may be.
    held: BytesMut,
    ready: usize,
}

enum State {
    /// Before the end of a head.
    Head(Head),
    /// In a body of so many more bytes.
    Length(u64),
    /// In a body of chunks.
    Chunked(Chunks),
    /// After a request that asks for another protocol, before its answer.
    Asked,
    /// In another protocol.
    Raw,
    /// After a fault of a head: nothing more is read.
    Over,
    /// After a fault of a body.
    Broken,
}

impl<S> Strict<S> {
    pub(crate) fn new(session: Arc<Session>, inner: S) -> Self {
        let state = State::Head(Head::default());
        Self { inner, session, state, held: BytesMut::new(), ready: 0 }
    }

    /// The stream, and what has been read of it and not passed on.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.inner, self.held.freeze())
    }

    /// Refuses what has not been passed on.
    fn refuse(&mut self, why: &'static str) {
        let _ = self.session.fault.set(why);
        self.held = STAND_IN.into();
        self.ready = STAND_IN.len();
        self.state = State::Over;
    }

    /// Looks at what is held; whether something may be passed on now.
    fn look(&mut self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        match &mut self.state {
            State::Head(head) => match head.look(&self.held) {
                Ok(None) if self.held.len() <= BUFFER => {}
                Ok(None) => self.refuse(TOO_LONG),
                Ok(Some((end, body))) => self.begin(end, body),
                Err(why) => self.refuse(why),
            },
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.held.len());
                *left -= length as u64;
                self.ready = length;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
            }
            State::Chunked(chunks) => {
                let (length, scanned) = chunks.scan(&self.held);
                self.ready = length;
                self.turn(scanned);
            }
            State::Raw => self.ready = self.held.len(),
            State::Asked | State::Over | State::Broken => {}
        }
        self.ready > 0
    }

    /// Passes on a head, unless the body that is there already is at fault.
    fn begin(&mut self, end: usize, body: Body) {
        self.ready = end;
        self.state = match body {
            Body::None => State::Head(Head::default()),
            Body::Other => State::Asked,
            Body::Length(length) => State::Length(length),
            Body::Chunked => {
                let mut first = Chunks::default();
                if let (_, Scanned::Fault(why)) = first.scan(&self.held[end..]) {
                    return self.refuse(why);
                }
                State::Chunked(Chunks::default())
            }
        };
    }

    /// Goes on after a part of a body of chunks.
    fn turn(&mut self, scanned: Scanned) {
        match scanned {
            Scanned::More => {}
            Scanned::End => self.state = State::Head(Head::default()),
            Scanned::Fault(why) => {
                let _ = self.session.fault.set(why);
                self.state = State::Broken;
            }
        }
    }

    /// Looks at bytes that were read straight into the reader's buffer, and gives how many of them
    /// belong to the body.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                length
            }
            State::Chunked(chunks) => {
                let (length, scanned) = chunks.scan(bytes);
                self.turn(scanned);
                length
            }
            _ => bytes.len(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let me = &mut *self;
        loop {
            if me.ready > 0 {
                let length = me.ready.min(buffer.remaining());
                buffer.put_slice(&me.held[..length]);
                me.held.advance(length);
                me.ready -= length;
                return Poll::Ready(Ok(()));
            }
            if matches!(me.state, State::Head(_) | State::Asked)
                && me.session.raw.load(Ordering::Relaxed)
            {
                me.state = State::Raw;
            }
            if me.look() {
                continue;
            }
            match me.state {
                State::Over => return Poll::Pending,
                State::Broken => return Poll::Ready(Err(ErrorKind::InvalidData.into())),
                State::Asked if me.held.len() > BUFFER => return Poll::Pending,
                State::Head(_) | State::Asked => {
                    me.held.reserve(AT_ONCE);
                    let read = pin!(me.inner.read_buf(&mut me.held)).poll(cx);
                    match std::task::ready!(read) {
                        Err(error) => return Poll::Ready(Err(error)),
                        // The parser knows what half a head is.
                        Ok(0) => {
                            me.state = State::Raw;
                            if me.held.is_empty() {
                                return Poll::Ready(Ok(()));
                            }
                        }
                        Ok(_) => {}
                    }
                }
                State::Length(_) | State::Chunked(_) | State::Raw => {
                    let before = buffer.filled().len();
                    std::task::ready!(Pin::new(&mut me.inner).poll_read(cx, buffer))?;
                    let length = me.pass(&buffer.filled()[before..]);
                    me.held.extend_from_slice(&buffer.filled()[before + length..]);
                    let read = buffer.filled().len();
                    buffer.set_filled(before + length);
                    // Nothing is the end of the stream to the reader, but not after a fault.
                    if length > 0 || read == before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Strict<S> {
    /// An answer goes out: unless it changes the protocol, requests go on.
    fn answers(&mut self, cx: &Context<'_>) {
        if matches!(self.state, State::Asked) {
            self.state = if self.session.raw.load(Ordering::Relaxed) {
                State::Raw
            } else {
                State::Head(Head::default())
            };
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.answers(cx);
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.answers(cx);
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
