//! One request and its answer, from the decision until the last byte; its line in the journal is
//! recorded when it ends, however it ends.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::dlp::{Finding, Lens};
use bottle::host::Host;
use bottle::policy::{Decision, Dlp, Kind, Reason};
use bottle::record;
use hyper::{Method, Uri};

use crate::conf::Force;
use crate::gate::Gate;
use crate::inject::Added;
use crate::journal;
use crate::pool::{Sender, Target, Upstream};
use crate::proxy::Session;
use crate::reply::Refusal;

/// What is told of a body on its way out, which goes on in another task.
#[derive(Default)]
pub(crate) struct Upward {
    /// Bytes so far.
    pub(crate) bytes: AtomicU64,
    /// Why the rest must not leave.
    pub(crate) refusal: OnceLock<Refusal>,
    /// What holds it back.
    pub(crate) gate: Gate,
    /// What the scan found in it.
    found: Mutex<Vec<String>>,
}

impl Upward {
    /// Keeps what was found, once.
    pub(crate) fn add(&self, found: &[Finding]) {
        let mut noted = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for text in found.iter().map(ToString::to_string) {
            if !noted.contains(&text) {
                noted.push(text);
            }
        }
    }

    /// Gives what was found.
    pub(crate) fn found(&self) -> Vec<String> {
        std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An exchange under way.
pub(crate) struct Exchange {
    pub(crate) session: Arc<Session>,
    pub(crate) force: Arc<Force>,
    pub(crate) target: Arc<Target>,
    /// Path and query as they were judged.
    pub(crate) uri: Uri,
    pub(crate) method: Method,
    /// What was decided.
    pub(crate) decision: Decision,
    /// The address that was, or was not, dialled.
    pub(crate) address: Option<IpAddr>,
    /// The status that the client is given.
    pub(crate) status: Option<u16>,
    /// Set where the request has a body.
    pub(crate) upward: Option<Arc<Upward>>,
    /// What is looked for in it, once its head was looked at.
    pub(crate) lens: Option<(Dlp, Lens)>,
    /// What the scan found in the head.
    pub(crate) found: Vec<String>,
    /// Bytes of the answer's body so far.
    pub(crate) received: AtomicU64,
    /// The connection to the server, while this exchange has it to itself.
    pub(crate) upstream: Option<Upstream>,
    /// The credential that was added to the request.
    pub(crate) added: Option<Added>,
    /// When it was decided, RFC 3339.
    time: String,
    begun: Instant,
}

impl Exchange {
    pub(crate) fn new(
        session: &Arc<Session>,
        force: &Arc<Force>,
        target: Arc<Target>,
        (method, uri): (Method, Uri),
        decision: Decision,
    ) -> Self {
        Self {
            session: session.clone(),
            force: force.clone(),
            target,
            uri,
            method,
            decision,
            address: None,
            status: None,
            upward: None,
            lens: None,
            found: Vec::new(),
            received: AtomicU64::new(0),
            upstream: None,
            added: None,
            time: record::now(),
            begun: Instant::now(),
        }
    }

    /// Makes a refusal of it.
    pub(crate) fn refuse(&mut self, reason: Reason, nearest: Option<usize>) {
        self.decision = Decision::Deny { reason, nearest };
    }

    /// All has come: the connection to the server is free for the next one.
    pub(crate) fn end(mut self) {
        if let Some(upstream) = self.upstream.take()
            && matches!(upstream.sender, Sender::One(_))
            // One whose request has never been whole is of no more use.
            && !self.upward.as_ref().is_some_and(|upward| upward.gate.is_shut())
        {
            self.force.pool.put(self.session.lane, &self.target, upstream);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upward) = &self.upward {
            upward.gate.give_up();
        }
        let host: Cow<'_, str> = match &self.target.host {
            Host::Name(name) => (&**name).into(),
            Host::Address(_) => self.target.host.to_string().into(),
        };
        let (client, method) = (self.session.client, self.method.as_str());
        let time = std::mem::take(&mut self.time);
        let mut line = journal::line_of(time, Kind::Http, client, method, host, &self.force);
        journal::decided(&mut line, self.decision);
        line.scheme = Some(self.target.scheme);
        line.port = Some(self.target.port);
        line.path = Some(self.uri.path().into());
        (line.address, line.status) = (self.address, self.status);
        line.found = std::mem::take(&mut self.found);
        if let Some(upward) = &self.upward {
            line.found.append(&mut upward.found());
        }
        let sent = self.upward.as_ref().map(|upward| upward.bytes.load(Ordering::Relaxed));
        line.sent = sent.unwrap_or_default();
        line.received = self.received.load(Ordering::Relaxed);
        line.duration_us = self.begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        self.session.egress.journal.record(&line);
    }
}
