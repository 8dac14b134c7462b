//! What the scan of outgoing bytes means for a request: it is refused, or leaves with a note in its
//! decision, or is not looked at, as the rule says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::dlp::{self, Coding, Finding, Lens, Place, Scanner};
use bottle::host::Host;
use bottle::policy::{Dlp, Reason};
use bytes::{Bytes, BytesMut};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Uri};
use tokio::time::Sleep;

use crate::conf::Force;
use crate::exchange::{Exchange, Upward};
use crate::pool::Target;
use crate::reply::Refusal;
use crate::websocket::Messages;

/// How long bytes are held that may be the beginning of something. Both sides may wait for one
/// another, and what began like a token most often ends as something else.
pub(crate) const HOLD: Duration = Duration::from_millis(250);

/// What is told in place of a path in which something was found.
pub(crate) const WITHHELD: &str = "/withheld";

/// What is looked at on the rule's route; `None` where nothing is.
pub(crate) fn lens(force: &Force, rule: usize, target: &Target) -> Option<(Dlp, Lens)> {
    let rule = force.policy.routes().routes.get(rule)?;
    if rule.dlp == Dlp::Off {
        return None;
    }
    let host = match &target.host {
        Host::Name(name) => name.to_string(),
        Host::Address(address) => address.to_string(),
    };
    Some((rule.dlp, Lens::new(force.engine.clone(), rule.dlp_exempt.clone(), host)))
}

/// What was found in the head of a request.
pub(crate) struct Looked {
    pub(crate) found: Vec<Finding>,
    /// Whether the path itself must not be told.
    pub(crate) withheld: bool,
    mode: Dlp,
}

impl Looked {
    /// Refuses what was found, where the rule wants that.
    pub(crate) fn verdict(&self) -> Result<(), Refusal> {
        verdict(self.mode, &self.found)
    }
}

/// Looks at a request's host, URL and headers, as the client sent them.
pub(crate) fn head(exchange: &mut Exchange, rule: usize, parts: &Parts) -> Result<(), Refusal> {
    exchange.lens = lens(&exchange.force, rule, &exchange.target);
    let Some(lens) = &exchange.lens else { return Ok(()) };
    let looked = look(lens, &exchange.target, exchange.uri.path(), parts);
    exchange.found.extend(looked.found.iter().map(ToString::to_string));
    if looked.withheld {
        exchange.uri = Uri::from_static(WITHHELD);
    }
    looked.verdict()
}

/// The same, where the request has no exchange; `path` is what is written down of it.
pub(crate) fn look(
    (mode, lens): &(Dlp, Lens),
    target: &Target,
    path: &str,
    parts: &Parts,
) -> Looked {
    let mut found = match &target.host {
        Host::Name(name) => dlp::host(lens, name),
        Host::Address(_) => Vec::new(),
    };
    if let Some(uri) = parts.uri.path_and_query() {
        found.extend(dlp::url(lens, uri.as_str()));
    }
    found.extend(fields(lens, &parts.headers));
    // What is written down and told of the request names its path.
    let withheld =
        found.iter().any(|finding| finding.place == Place::Url) && !dlp::url(lens, path).is_empty();
    Looked { found, withheld, mode: *mode }
}

/// Looks at headers or trailers.
fn fields(lens: &Lens, fields: &HeaderMap) -> Vec<Finding> {
    let mut text = Vec::with_capacity(1024);
    for (name, value) in fields {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        // What no header holds, so that two of them are never read as one.
        text.push(0);
    }
    dlp::scan_whole(lens, Place::Header, text)
}

/// Refuses what was found, where the rule wants that.
pub(crate) fn verdict(mode: Dlp, found: &[Finding]) -> Result<(), Refusal> {
    if found.is_empty() || mode != Dlp::Block {
        return Ok(());
    }
    let names: Vec<_> = found.iter().map(ToString::to_string).collect();
    let exempt: Vec<_> = found.iter().map(|finding| &*finding.rule).collect();
    Err(Refusal {
        reason: Reason::Dlp,
        why: format!(
            "the scan of what leaves found {}: if that belongs there, the owner of the bottle adds 'dlp_exempt: [{}]' to the rule",
            names.join(", "),
            exempt.join(", ")
        ),
    })
}

/// The scan of a request's body.
pub(crate) fn body((mode, lens): &(Dlp, Lens), parts: &Parts, upward: &Arc<Upward>) -> Box<Scan> {
    let scanner = Scanner::new(lens, Place::Body, Coding::of(&parts.headers));
    let upward = upward.clone();
    let lens = lens.clone();
    Box::new(Scan { lens, scanner, mode: *mode, held: BytesMut::new(), release: None, upward })
}

/// The scan of what a client says in a WebSocket, where the rule wants one.
pub(crate) fn messages(exchange: &Exchange, upward: &Arc<Upward>) -> Option<Messages> {
    let (mode, lens) = exchange.lens.as_ref()?;
    Some(Messages::new(*mode, lens.clone(), upward.clone()))
}

/// Whether anything is looked at on a rule's route.
pub(crate) fn looks(force: &Force, rule: usize) -> bool {
    force.policy.rule(rule).is_some_and(|rule| rule.dlp != Dlp::Off)
}

/// The scan of one body.
pub(crate) struct Scan {
    lens: Lens,
    scanner: Scanner,
    mode: Dlp,
    /// Bytes that may be the beginning of what must not leave.
    held: BytesMut,
    /// When they are sent all the same.
    release: Option<Pin<Box<Sleep>>>,
    upward: Arc<Upward>,
}

impl Scan {
    /// Looks at the next bytes and says how many of the last ones have to wait; after an error all do.
    pub(crate) fn look(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        self.scanner.feed(data);
        self.judge()?;
        Ok(if self.mode == Dlp::Block { self.scanner.held() } else { 0 })
    }

    /// Looks at what has waited until the end.
    pub(crate) fn close(&mut self) -> Result<(), Refusal> {
        self.scanner.end();
        self.judge()
    }

    /// Looks at what has waited for too long as if nothing more came.
    pub(crate) fn settle(&mut self) -> Result<(), Refusal> {
        self.scanner.settle();
        self.judge()
    }

    /// Takes the next bytes and gives those that may leave; after an error none do.
    pub(crate) fn pass(&mut self, data: Bytes) -> Result<Bytes, Refusal> {
        let wait = self.look(&data)?;
        self.release = None;
        if wait == 0 && self.held.is_empty() {
            return Ok(data);
        }
        self.held.extend_from_slice(&data);
        let sent = self.held.len().saturating_sub(wait);
        Ok(self.held.split_to(sent).freeze())
    }

    /// Looks at the trailers, before the end.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Refusal> {
        let found = fields(&self.lens, trailers);
        self.upward.add(&found);
        verdict(self.mode, &found)
    }

    /// Gives what was held until the end, if the end shows nothing.
    pub(crate) fn end(&mut self) -> Result<Bytes, Refusal> {
        self.close()?;
        Ok(self.held.split().freeze())
    }

    /// Gives what has been held for too long, unless it is whole as it stands.
    pub(crate) fn waited(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Refusal>> {
        if self.held.is_empty() {
            return Poll::Pending;
        }
        let release = self.release.get_or_insert_with(|| Box::pin(tokio::time::sleep(HOLD)));
        match release.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.release = None;
                Poll::Ready(self.settle().map(|()| self.held.split().freeze()))
            }
        }
    }

    fn judge(&self) -> Result<(), Refusal> {
        let found = self.scanner.found();
        if found.is_empty() {
            return Ok(());
        }
        self.upward.add(found);
        verdict(self.mode, found)
    }
}
