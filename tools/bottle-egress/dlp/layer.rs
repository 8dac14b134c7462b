//! One stream of bytes, and the streams that are encoded in it.
//!
//! A layer keeps the bytes that are not judged yet and a few before them. Its children (the lanes of
//! a run of Base64 or hex, escapes undone, a compressed stream) are layers too, fed as their bytes
//! come. What all of them decode is bounded by what came in, and their number by [`LAYERS`].

use super::decode::{Digits, HEX};
use super::inflate::{Coding, Inflate};
use super::{Finding, Lens, Place};

mod escapes;
mod runs;
mod search;
mod streams;

/// How deep encodings are undone.
const DEPTH: u8 = 3;

/// The most layers of one scan; text that encodes more is no text.
const LAYERS: u32 = 64;

/// Decoded bytes that are looked at in any case, and how many more for each byte that came.
const DECODED: u64 = 4 << 20;
const RATIO: u64 = 100;

/// What is looked at in one go.
const BLOCK: usize = 16 << 10;

/// The characters of the shortest run that is decoded: fewer hold no token.
const CELL: usize = 24;

/// Plain bytes around an escape that are looked at with it, and bytes that are kept before what is
/// not judged yet.
const AROUND: usize = 256;

/// The longest private datum.
const DATUM: usize = 96;

/// What the layers of one scan share.
#[derive(Debug)]
pub(super) struct Cx {
    lens: Lens,
    place: Place,
    pub(super) found: Vec<Finding>,
    /// Bytes that came.
    pub(super) raw: u64,
    decoded: u64,
    layers: u32,
    longest: usize,
}

impl Cx {
    pub(super) fn new(lens: Lens, place: Place) -> Self {
        let longest = lens.0.engine.longest();
        Self { lens, place, found: Vec::new(), raw: 0, decoded: 0, layers: 1, longest }
    }

    fn find(&mut self, rule: &str, offset: u64) {
        let known = |exempt: &String| exempt == rule;
        if !self.lens.0.exempt.iter().any(known) && !self.found.iter().any(|f| f.rule == rule) {
            self.found.push(Finding { rule: rule.to_owned(), place: self.place, offset });
        }
    }

    /// Counts decoded bytes; `false` when they are too many.
    pub(super) fn decode(&mut self, bytes: usize) -> bool {
        self.decoded += bytes as u64;
        let good = self.decoded <= DECODED + self.raw.saturating_mul(RATIO);
        if !good {
            self.find("decode-limit", self.raw);
        }
        good
    }

    /// A layer below one of this depth, if there may be one.
    fn open(&mut self, depth: u8) -> Option<Box<Layer>> {
        if depth >= DEPTH {
            return None;
        }
        if self.layers >= LAYERS {
            self.find("decode-limit", self.raw);
            return None;
        }
        self.layers += 1;
        Some(Box::new(Layer::new(depth + 1)))
    }

    /// A layer has ended.
    pub(super) fn close(&mut self) {
        self.layers = self.layers.saturating_sub(1);
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Layer {
    depth: u8,
    bytes: Vec<u8>,
    /// Offset of the first of `bytes` in the stream.
    base: u64,
    /// Places in `bytes` before which all prefixes, private data, runs and escapes are judged.
    judged: usize,
    private: usize,
    runs: usize,
    escapes: usize,
    run: Option<Run>,
    escaped: Option<Escaped>,
    inflate: Option<Inflate>,
    /// Offset up to which a compressed stream has been decoded.
    inflated: u64,
    /// Whether the objects of a git pack have begun.
    pack: bool,
    /// How many bytes at the end wait for more.
    held: u64,
}

/// A run of characters, decoded from each place at which it may begin.
#[derive(Debug)]
struct Run {
    class: u8,
    begun: bool,
    lanes: Vec<(Digits, Box<Layer>)>,
}

/// What escapes stand for, with what is around them.
#[derive(Debug)]
struct Escaped {
    child: Box<Layer>,
    /// Place up to which the child was fed.
    fed: usize,
    /// Place up to which it is to be fed.
    until: usize,
    /// Offset from which the child waits for more.
    since: Option<u64>,
}

impl Layer {
    fn new(depth: u8) -> Self {
        Self {
            depth,
            bytes: Vec::new(),
            base: 0,
            judged: 0,
            private: 0,
            runs: 0,
            escapes: 0,
            run: None,
            escaped: None,
            inflate: None,
            inflated: 0,
            pack: false,
            held: 0,
        }
    }

    /// The outermost one.
    pub(super) fn top(cx: &mut Cx, coding: Option<Coding>) -> Self {
        let mut top = Self::new(0);
        if let Some(coding) = coding {
            top.inflate = cx.open(0).map(|child| Inflate::coded(coding, child));
        }
        top
    }

    /// How many of the last bytes may be part of something that is not judged yet.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Bytes that it and its children keep.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let lanes = self.run.iter().flat_map(|run| &run.lanes);
        let children = lanes
            .map(|(_, child)| child.size())
            .chain(self.escaped.iter().map(|escaped| escaped.child.size()))
            .chain(self.inflate.iter().map(Inflate::size));
        self.bytes.capacity() + children.sum::<usize>()
    }

    pub(super) fn feed(&mut self, cx: &mut Cx, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK) {
            let fresh = self.bytes.len();
            self.bytes.extend_from_slice(block);
            self.scan(cx, fresh, false);
        }
    }

    /// Judges what is held as it stands, and keeps it.
    pub(super) fn settle(&mut self, cx: &mut Cx) {
        if self.held == 0 {
            return;
        }
        let kept = (self.judged, self.held);
        self.scan_prefixes(cx, true);
        (self.judged, self.held) = kept;
        if let Some(run) = &mut self.run {
            run.lanes.iter_mut().for_each(|(_, child)| child.settle(cx));
        }
        if let Some(escaped) = &mut self.escaped {
            escaped.child.settle(cx);
        }
        if let Some(inflate) = &mut self.inflate {
            inflate.settle(cx);
        }
    }

    /// Takes bytes that are all there is.
    pub(super) fn whole(&mut self, cx: &mut Cx, bytes: Vec<u8>) {
        if bytes.len() > BLOCK {
            self.feed(cx, &bytes);
            return self.finish(cx);
        }
        self.bytes = bytes;
        self.scan(cx, 0, true);
        self.end(cx);
    }

    pub(super) fn finish(&mut self, cx: &mut Cx) {
        self.scan(cx, self.bytes.len(), true);
        self.end(cx);
    }

    fn end(&mut self, cx: &mut Cx) {
        if let Some(inflate) = self.inflate.take() {
            inflate.finish(cx);
        }
        self.end_run(cx);
        self.end_escaped(cx);
        self.held = 0;
    }

    fn scan(&mut self, cx: &mut Cx, fresh: usize, last: bool) {
        if self.inflate.is_some() {
            self.feed_inflate(cx, fresh);
        }
        self.scan_prefixes(cx, last);
        if self.depth < DEPTH {
            if self.pack {
                self.scan_pack(cx, fresh);
            }
            self.scan_runs(cx, last);
            self.scan_escapes(cx, last);
        } else {
            (self.runs, self.escapes) = (self.bytes.len(), self.bytes.len());
        }
        self.scan_private(cx, last);
        self.weigh();
        self.forget();
    }

    fn end_offset(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Adds what the children wait for to what is held.
    fn weigh(&mut self) {
        let end = self.end_offset();
        let since = [
            self.inflate.as_ref().and_then(|inflate| inflate.since),
            self.escaped.as_ref().and_then(|escaped| escaped.since),
        ];
        for since in since.into_iter().flatten() {
            self.held = self.held.max(end.saturating_sub(since));
        }
        if let Some(run) = &self.run {
            // Four characters for three bytes, two for one, and those of a group not yet whole.
            let times = if run.class == HEX { 2 } else { 4 };
            let held = run.lanes.iter().map(|(_, child)| child.held()).max().unwrap_or(0);
            if held > 0 {
                let thirds = if run.class == HEX { 1 } else { 3 };
                let after = (self.bytes.len() - self.runs) as u64;
                self.held = self.held.max((held * times).div_ceil(thirds) + 4 + after);
            }
        }
    }

    /// Gives up the bytes that are judged in every way, but for some of context.
    fn forget(&mut self) {
        let mut keep = self.judged.min(self.runs).min(self.escapes);
        if self.private > 0 {
            keep = keep.min(self.private);
        }
        if let Some(escaped) = &self.escaped {
            keep = keep.min(escaped.fed);
        }
        let keep = keep.saturating_sub(AROUND);
        if keep == 0 {
            return;
        }
        self.bytes.drain(..keep);
        self.base += keep as u64;
        self.judged -= keep;
        self.private = self.private.saturating_sub(keep);
        self.runs -= keep;
        self.escapes -= keep;
        if let Some(escaped) = &mut self.escaped {
            escaped.fed -= keep;
            escaped.until -= keep;
        }
    }
}
