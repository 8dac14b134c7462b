//! A tunnel of bytes under way; its line in the journal is recorded when it ends, however it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bottle::policy::{Decision, Kind, Reason, Rule};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::conf::Force;
use crate::counted::Counted;
use crate::journal;
use crate::pool::Target;
use crate::proxy::Session;
use crate::revoke;

/// A tunnel that a rule allows, until something forbids it.
pub(crate) struct Passage {
    pub(crate) session: Arc<Session>,
    pub(crate) force: Arc<Force>,
    pub(crate) target: Arc<Target>,
    /// The rule that allows it.
    pub(crate) rule: usize,
    /// The address that was, or was not, dialled.
    pub(crate) address: Option<IpAddr>,
    /// The status that the client is given, where it is told after the judgement.
    pub(crate) status: Option<u16>,
    decision: Decision,
    sent: AtomicU64,
    received: AtomicU64,
    time: String,
    begun: Instant,
}

impl Passage {
    pub(crate) fn new(
        session: &Arc<Session>,
        force: Arc<Force>,
        target: Arc<Target>,
        rule: usize,
    ) -> Self {
        Self {
            session: session.clone(),
            force,
            target,
            rule,
            address: None,
            status: None,
            decision: Decision::Allow { rule },
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            time: bottle::record::now(),
            begun: Instant::now(),
        }
    }

    /// Makes a refusal of it.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.decision = Decision::Deny { reason, nearest: Some(self.rule) };
    }

    /// Counts what was sent before [`Passage::join`].
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Carries bytes, each direction until its own end, and all of it until the policy in force has no
    /// such rule for the target any more.
    pub(crate) async fn join<C, S>(&self, mut client: C, server: S, holds: impl Fn(&Rule) -> bool)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server = Counted::new(server, &self.sent, &self.received);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = revoke::passage(&self.session, &self.target, self.address, holds) => {}
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let host = self.target.host.to_string();
        let time = std::mem::take(&mut self.time);
        let client = self.session.client;
        let mut line = journal::line_of(time, Kind::Connect, client, "CONNECT", host, &self.force);
        (line.port, line.address) = (Some(self.target.port), self.address);
        line.status = self.status;
        journal::decided(&mut line, self.decision);
        line.sent = self.sent.load(Ordering::Relaxed);
        line.received = self.received.load(Ordering::Relaxed);
        line.duration_us = self.begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        self.session.egress.journal.record(&line);
    }
}
