//! What was allowed and goes on, until its line is written: its body passes by here, and its answer
//! where a credential has to be masked in it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bottle::policy::{DecisionLine, Kind, Verdict};
use bytes::Bytes;
use hyper::Response;
use hyper::header::HeaderValue;

use super::Judge;
use super::request::changed;
use super::wire::{Changes, Lines, header_map};
use crate::body::Answer;
use crate::conf::Force;
use crate::exchange::Upward;
use crate::inject::Added;
use crate::journal;
use crate::leaks::Scan;
use crate::mask;
use crate::reply::{self, Refusal};

/// A request that was allowed and goes on, or a tunnel.
pub(super) struct Open {
    pub(super) line: DecisionLine<'static>,
    pub(super) rule: usize,
    /// What was asked, for a refusal.
    pub(super) words: String,
    pub(super) accept: Option<HeaderValue>,
    pub(super) added: Option<Added>,
    /// Looks at the body.
    pub(super) scan: Option<Box<Scan>>,
    pub(super) upward: Arc<Upward>,
    force: Arc<Force>,
    since: Instant,
}

impl Open {
    pub(super) fn new(line: DecisionLine<'static>, rule: usize, force: &Arc<Force>) -> Self {
        Self {
            line,
            rule,
            words: String::new(),
            accept: None,
            added: None,
            scan: None,
            upward: Arc::default(),
            force: force.clone(),
            since: Instant::now(),
        }
    }

    /// Makes a refusal of it, for what is in it or lacks.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Box<Response<Answer>> {
        let line = &mut self.line;
        line.decision = Verdict::Deny;
        (line.rule, line.reason, line.nearest) = (None, Some(refusal.reason), Some(self.rule));
        let (words, why) = (self.words.clone(), refusal.why.clone());
        let explanation = self.force.policy.refusal(refusal.reason, words, why);
        let response = reply::refused(&explanation, self.accept.as_ref());
        line.status = Some(response.status().as_u16());
        Box::new(response)
    }

    /// How many of the last bytes of the body have to wait.
    fn body(
        &mut self,
        bytes: &[u8],
        end: bool,
        long: bool,
    ) -> Result<usize, Box<Response<Answer>>> {
        let Some(scan) = &mut self.scan else { return Ok(0) };
        let wait = scan.look(bytes).and_then(|wait| match (end, long) {
            (true, _) => scan.close().map(|()| 0),
            (false, true) => scan.settle().map(|()| 0),
            (false, false) => Ok(wait),
        });
        wait.map_err(|refusal| self.refuse(&refusal))
    }
}

impl Judge {
    /// May these bytes of a body leave? How many of the last ones have to wait.
    pub(super) fn body(
        &self,
        of: u64,
        bytes: &[u8],
        end: bool,
        long: bool,
    ) -> Result<usize, Box<Response<Answer>>> {
        let mut all = self.open();
        all.get_mut(&of).ok_or_else(forgotten)?.body(bytes, end, long)
    }

    /// May these trailers of a body leave?
    pub(super) fn trailers(&self, of: u64, lines: &Lines) -> Result<usize, Box<Response<Answer>>> {
        let trailers = header_map(lines)?;
        let mut all = self.open();
        let open = all.get_mut(&of).ok_or_else(forgotten)?;
        let Some(scan) = &mut open.scan else { return Ok(0) };
        scan.trailers(&trailers).map(|()| 0).map_err(|refusal| open.refuse(&refusal))
    }

    /// The head or the trailers of an answer, masked.
    pub(super) fn head(&self, of: u64, lines: &Lines) -> Result<Changes, Box<Response<Answer>>> {
        let before = header_map(lines)?;
        let mut all = self.open();
        let open = all.get_mut(&of).ok_or_else(forgotten)?;
        let Some(mask) = open.added.as_ref().and_then(|added| added.mask.as_ref()) else {
            return Ok(Changes::default());
        };
        if !mask::can_mask(&before) {
            return Err(Box::new(reply::unmaskable()));
        }
        let mut after = before.clone();
        mask.headers(&mut after);
        Ok(changed(&before, &after))
    }

    /// The next bytes of an answer, masked.
    pub(super) fn back(
        &self,
        of: u64,
        bytes: &[u8],
        end: bool,
    ) -> Result<Bytes, Box<Response<Answer>>> {
        let mut all = self.open();
        let open = all.get_mut(&of).ok_or_else(forgotten)?;
        let Some(mask) = open.added.as_mut().and_then(|added| added.mask.as_mut()) else {
            return Ok(Bytes::copy_from_slice(bytes));
        };
        let masked = mask.pass(bytes);
        Ok(if end { [masked, mask.rest()].concat().into() } else { masked })
    }

    pub(super) fn end(&self, id: u64, status: Option<u16>, sent: u64, received: u64) {
        let Some(mut open) = self.open().remove(&id) else { return };
        let line = &mut open.line;
        (line.status, line.sent, line.received) = (status, sent, received);
        line.duration_us = u64::try_from(open.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        line.found.append(&mut open.upward.found());
        if let (Some(added), Some(status)) = (&open.added, status) {
            added.answered(status);
        }
        self.egress.journal.record(line);
    }
}

/// Of a request that no verdict is known of nothing passes: the judge may be another one by now.
fn forgotten() -> Box<Response<Answer>> {
    let why = "bottle-egress no longer knows this request, so it is refused\n";
    Box::new(reply::text(hyper::StatusCode::SERVICE_UNAVAILABLE, why))
}

/// A line that may outlive the policy, a refusal until something else is set.
pub(super) fn line(
    kind: Kind,
    client: IpAddr,
    method: &str,
    host: &str,
    force: &Force,
) -> DecisionLine<'static> {
    let line = journal::line(kind, client, method, host, force);
    DecisionLine {
        time: Cow::Owned(line.time.into_owned()),
        kind,
        client,
        scheme: None,
        method: Cow::Owned(method.to_owned()),
        host: Cow::Owned(host.to_owned()),
        port: None,
        path: None,
        decision: line.decision,
        rule: None,
        reason: None,
        nearest: None,
        address: None,
        status: None,
        sent: 0,
        received: 0,
        duration_us: 0,
        generation: line.generation,
        policy: Cow::Owned(line.policy.into_owned()),
        found: Vec::new(),
        dropped: None,
    }
}
