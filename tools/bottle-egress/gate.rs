//! Holds back a body whose client has asked whether the server wants it (`Expect: 100-continue`).
//!
//! The server's "100 Continue" opens it, and its refusal comes to the client before the body has left
//! there. What hyper permits: a client of HTTP/1 is sent its "100 Continue" at the moment when the
//! body is read, which is then; upstream, interim answers of HTTP/1 are shown, of HTTP/2 they are
//! not, so there the body goes at once. Other interim answers (103) hyper cannot pass on.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long a server is waited for that may not know of such questions. curl waits as long.
const PATIENCE: Duration = Duration::from_secs(1);

const OPEN: u8 = 0;
const SHUT: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Open, until it is shut.
#[derive(Default)]
pub(crate) struct Gate {
    state: AtomicU8,
    waiting: Mutex<Option<Waker>>,
}

impl Gate {
    /// Shuts it before a body is sent, and gives the wait for it.
    pub(crate) fn shut(&self) -> Wait {
        self.state.store(SHUT, Ordering::Release);
        Wait(None)
    }

    /// Lets the body through.
    pub(crate) fn open(&self) {
        self.turn(OPEN);
    }

    /// Gives up the body, if it still waits: the exchange has ended without it.
    pub(crate) fn give_up(&self) {
        self.turn(GIVEN_UP);
    }

    /// Whether a body waits, or did so to the end.
    pub(crate) fn is_shut(&self) -> bool {
        self.state.load(Ordering::Acquire) != OPEN
    }

    fn turn(&self, state: u8) {
        let turned =
            self.state.compare_exchange(SHUT, state, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if turned && let Some(waker) = waiting() {
            waker.wake();
        }
    }
}

/// The wait of one body.
pub(crate) struct Wait(Option<Pin<Box<Sleep>>>);

impl Wait {
    /// Whether the body may be read now; not, if it is given up.
    pub(crate) fn poll(&mut self, gate: &Gate, cx: &mut Context<'_>) -> Poll<bool> {
        *gate.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        match gate.state.load(Ordering::Acquire) {
            OPEN => return Poll::Ready(true),
            GIVEN_UP => return Poll::Ready(false),
            _ => {}
        }
        let patience = self.0.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        std::task::ready!(patience.as_mut().poll(cx));
        gate.open();
        Poll::Ready(true)
    }
}
