//! The scan of what leaves (DLP): does a request hold the plan's own secrets, credentials in a
//! well-known form, or data smuggled out in its URL?
//!
//! A [`Scanner`] takes the bytes as they come and keeps a bounded number of them. What is plain is
//! searched for all prefixes at once, and only where one begins a rule is matched; long runs of
//! Base64 and hex, escapes and compressed streams are decoded and searched in turn, three deep. Rules
//! are data: `dlp/rules.yaml`.

use std::fmt;
use std::sync::Arc;

mod check;
mod decode;
mod engine;
mod head;
mod inflate;
mod layer;
mod needles;
mod rules;
#[cfg(test)]
mod tests;

pub use engine::{Engine, SHORTEST};
pub use head::{host, url};
pub use inflate::Coding;
pub use rules::names;

use layer::{Cx, Layer};

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The path or the query.
    Url,
    /// The value of a header, or of a trailer.
    Header,
    /// The body, or a WebSocket's messages.
    Body,
    /// A label of the host's name.
    Host,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "url",
            Self::Header => "header",
            Self::Body => "body",
            Self::Host => "host",
        })
    }
}

/// What must not leave. It never holds what was found, only its kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Name of the rule, or `secret:NAME`.
    pub rule: String,
    /// Where.
    pub place: Place,
    /// Where in those bytes; of what was decoded, where its last part lay.
    pub offset: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.rule, self.place)
    }
}

/// What is looked at on one route.
#[derive(Debug, Clone)]
pub struct Lens(Arc<Looked>);

#[derive(Debug)]
struct Looked {
    engine: Arc<Engine>,
    exempt: Vec<String>,
    host: String,
}

impl Lens {
    /// What `engine` looks for, but for findings with the names in `exempt`, on the way to a host, which
    /// may have handed out some of it.
    #[must_use]
    pub fn new(engine: Arc<Engine>, exempt: Vec<String>, host: String) -> Self {
        Self(Arc::new(Looked { engine, exempt, host }))
    }

    /// The same on the way to another host.
    #[must_use]
    pub fn to(&self, host: &str) -> Self {
        Self::new(self.0.engine.clone(), self.0.exempt.clone(), host.to_owned())
    }
}

/// A search through one stream of bytes.
#[derive(Debug)]
pub struct Scanner {
    cx: Cx,
    top: Layer,
}

impl Scanner {
    /// Begins one; bytes in a content coding are searched as they are and decoded.
    #[must_use]
    pub fn new(lens: &Lens, place: Place, coding: Option<Coding>) -> Self {
        let mut cx = Cx::new(lens.clone(), place);
        let top = Layer::top(&mut cx, coding);
        Self { cx, top }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.cx.raw += bytes.len() as u64;
        self.top.feed(&mut self.cx, bytes);
    }

    /// How many of the last bytes may be part of something that is not judged yet: to pass them on
    /// would be too early. At most [`Scanner::HELD`].
    #[must_use]
    pub fn held(&self) -> usize {
        usize::try_from(self.top.held()).unwrap_or(usize::MAX).min(Self::HELD)
    }

    /// Judges what is held as if nothing more came, and goes on: what may be whole is found before it is
    /// passed on.
    pub fn settle(&mut self) {
        self.top.settle(&mut self.cx);
    }

    /// The most bytes that are ever held.
    pub const HELD: usize = 64 << 10;

    /// What was found so far; each rule once.
    #[must_use]
    pub fn found(&self) -> &[Finding] {
        &self.cx.found
    }

    /// Ends the search: what was held is judged as it stands.
    pub fn end(&mut self) -> &[Finding] {
        self.top.finish(&mut self.cx);
        &self.cx.found
    }
}

/// Searches bytes that are all there.
#[must_use]
pub fn scan_slice(lens: &Lens, place: Place, bytes: &[u8]) -> Vec<Finding> {
    scan_whole(lens, place, bytes.to_vec())
}

/// The same of bytes that are given away.
#[must_use]
pub fn scan_whole(lens: &Lens, place: Place, bytes: Vec<u8>) -> Vec<Finding> {
    let mut cx = Cx::new(lens.clone(), place);
    cx.raw = bytes.len() as u64;
    Layer::top(&mut cx, None).whole(&mut cx, bytes);
    cx.found
}
