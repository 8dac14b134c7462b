//! One stream of bytes, and the streams that are encoded in it.
//!
//! A layer keeps the bytes that are not judged yet and a few before them. Its children (the lanes of
//! a run of Base64 or hex, escapes undone, a compressed stream) are layers too, fed as their bytes
//! come. What all of them decode is bounded by what came in, and their number by [`LAYERS`].

use super::decode::{self, CLASS, Digits, Escape, HEX, LOWER, MEMBER, UPPER};
use super::engine::{self, Lead, Look, WINDOW};
use super::inflate::{Coding, Fed, Inflate};
use super::rules::RULES;
use super::{Finding, Lens, Place};

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

/// A run of fewer characters that stands for no text is not decoded.
const DULL: usize = 80;

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

    fn scan_prefixes(&mut self, cx: &mut Cx, last: bool) {
        let engine = cx.lens.0.engine.clone();
        let mut open = self.bytes.len();
        for group in engine.groups() {
            let mut from = self.judged;
            while let Some((start, leads)) = group.find(&self.bytes, from) {
                from = start + 1;
                for lead in leads {
                    if self.follow(cx, lead, start, last) == Look::Open {
                        open = open.min(start);
                    }
                }
            }
        }
        self.held = (self.bytes.len() - open) as u64;
        let searched = self.bytes.len().saturating_sub(cx.longest - 1);
        self.judged = if last { self.bytes.len() } else { open.min(searched).max(self.judged) };
    }

    fn follow(&mut self, cx: &mut Cx, lead: &Lead, start: usize, last: bool) -> Look {
        let (before, bytes) = self.bytes.split_at(start);
        let offset = self.base + start as u64;
        match lead {
            Lead::Rule(at) => {
                let rule = &RULES[*at];
                if !rule.at.contains(&cx.place) || rule.is_fine_at(&cx.lens.0.host, cx.place) {
                    return Look::None;
                }
                let bytes = &bytes[..bytes.len().min(WINDOW)];
                let look = engine::rule(rule, before, bytes, last);
                if look == Look::Found {
                    cx.find(&rule.name, offset);
                }
                look
            }
            Lead::Needle { secret, form } => {
                let look = engine::needle(form, bytes, last);
                if look == Look::Found {
                    let engine = cx.lens.0.engine.clone();
                    cx.find(engine.secret(*secret), offset);
                }
                look
            }
            Lead::Gzip => self.begin_inflate(cx, start, Inflate::gzip),
            Lead::Zip => self.begin_inflate(cx, start, Inflate::zip),
            Lead::Pack => {
                self.pack = true;
                Look::None
            }
        }
    }

    fn begin_inflate(
        &mut self,
        cx: &mut Cx,
        start: usize,
        begin: impl FnOnce(Box<Layer>) -> Inflate,
    ) -> Look {
        let offset = self.base + start as u64;
        if self.inflate.is_none()
            && offset >= self.inflated
            && let Some(child) = cx.open(self.depth)
        {
            self.inflate = Some(begin(child));
            self.feed_inflate(cx, start);
        }
        Look::None
    }

    /// Feeds the compressed stream from this place on.
    fn feed_inflate(&mut self, cx: &mut Cx, from: usize) {
        let Some(inflate) = &mut self.inflate else { return };
        let offset = self.base + from as u64;
        let fed = inflate.feed(cx, &self.bytes[from..], offset);
        self.inflated = match fed {
            Fed::All => return self.inflated = self.base + self.bytes.len() as u64,
            Fed::End(taken) => offset + taken as u64,
            // What is no stream is searched as any other bytes.
            Fed::Bad => offset + 1,
        };
        if let Some(inflate) = self.inflate.take() {
            inflate.finish(cx);
        }
    }

    /// The zlib streams of a git pack, which follow one another with a few bytes between them.
    fn scan_pack(&mut self, cx: &mut Cx, fresh: usize) {
        // A head may lie across two blocks.
        let mut from = fresh.saturating_sub(1);
        while self.inflate.is_none() {
            let done = self.inflated.saturating_sub(self.base);
            from = from.max(usize::try_from(done).unwrap_or(usize::MAX));
            let Some(rest) = self.bytes.get(from..) else { return };
            let Some(at) = memchr::memchr(0x78, rest) else { return };
            let start = from + at;
            if let Some(0x01 | 0x5e | 0x9c | 0xda) = self.bytes.get(start + 1) {
                self.begin_inflate(cx, start, Inflate::zlib);
            }
            from = start + 1;
        }
    }

    fn scan_private(&mut self, cx: &mut Cx, last: bool) {
        let private = cx.lens.0.engine.private();
        if private.is_empty() {
            return;
        }
        let length = self.bytes.len();
        let mut at = self.private;
        while let Some(byte) = self.bytes.get(at) {
            let inside = at > 0 && self.bytes[at - 1].is_ascii_alphanumeric();
            if (byte.is_ascii_alphanumeric() && !inside) || *byte == b'+' {
                let (before, rest) = self.bytes.split_at(at);
                let rest = &rest[..rest.len().min(DATUM)];
                for rule in private.iter().map(|at| &RULES[*at]) {
                    match engine::rule(rule, before, rest, last || at + DATUM <= length) {
                        Look::Found => cx.find(&rule.name, self.base + at as u64),
                        // It is looked at again when more has come.
                        Look::Open => return self.private = at,
                        Look::None => {}
                    }
                }
            }
            at += 1;
        }
        self.private = at;
    }

    fn scan_runs(&mut self, cx: &mut Cx, last: bool) {
        loop {
            let Some(run) = &mut self.run else {
                if !self.find_run(cx) {
                    return;
                }
                continue;
            };
            let rest = &self.bytes[self.runs..];
            let length = rest
                .iter()
                .position(|byte| CLASS[usize::from(*byte)] & run.class == 0)
                .unwrap_or(rest.len());
            let (chars, after) = rest.split_at(length);
            let good = run.push(cx, chars);
            self.runs += length;
            match gap(after, run.class) {
                _ if !good => {}
                Gap::Over(skip) => {
                    self.runs += skip;
                    continue;
                }
                Gap::Unknown if !last => return,
                _ => {}
            }
            self.end_run(cx);
        }
    }

    /// Looks for a run that is worth decoding; `false` when there is none before the end.
    fn find_run(&mut self, cx: &mut Cx) -> bool {
        let mut at = self.runs;
        'cells: while let Some(cell) = self.bytes.get(at..at + CELL) {
            let mut any = 0;
            let mut all = u8::MAX;
            // From its end, so that what is too short is passed over at once.
            for (place, byte) in cell.iter().enumerate().rev() {
                let class = CLASS[usize::from(*byte)];
                if class & MEMBER == 0 {
                    at += place + 1;
                    continue 'cells;
                }
                any |= class;
                all &= class;
            }
            let class = if all & HEX != 0 {
                HEX
            } else if any & (UPPER | LOWER) == UPPER | LOWER {
                MEMBER
            } else {
                // Base64 has letters of both cases; a path or a name often has not.
                at += CELL / 2;
                continue;
            };
            if let Some(end) = dull(&self.bytes[at..], class) {
                at += end;
                continue;
            }
            self.runs = at;
            self.run = Run::open(cx, self.depth, class);
            if self.run.is_none() {
                at += CELL;
                continue;
            }
            return true;
        }
        self.runs = at.min(self.bytes.len());
        false
    }

    fn end_run(&mut self, cx: &mut Cx) {
        if let Some(run) = self.run.take() {
            run.finish(cx);
        }
    }

    fn scan_escapes(&mut self, cx: &mut Cx, last: bool) {
        let mut out = Vec::new();
        let mut limit = self.bytes.len();
        loop {
            let rest = self.bytes.get(self.escapes..).unwrap_or_default();
            let Some(at) = memchr::memchr2(b'%', b'\\', rest) else {
                self.escapes = self.bytes.len();
                break;
            };
            let start = self.escapes + at;
            let (byte, length) = match decode::escape(&rest[at..]) {
                Escape::Byte(byte, length) => (byte, length),
                Escape::Short if !last => {
                    (self.escapes, limit) = (start, start);
                    break;
                }
                _ => {
                    self.escapes = start + 1;
                    continue;
                }
            };
            if self.escaped.as_ref().is_some_and(|escaped| escaped.until < start) {
                self.feed_escaped(cx, &mut out, limit);
                self.end_escaped(cx);
            }
            if self.escaped.is_none() {
                let Some(child) = cx.open(self.depth) else {
                    self.escapes = self.bytes.len();
                    break;
                };
                let fed = start.saturating_sub(AROUND);
                self.escaped = Some(Escaped { child, fed, until: fed, since: None });
            }
            if let Some(escaped) = &mut self.escaped {
                out.extend_from_slice(&self.bytes[escaped.fed..start]);
                out.push(byte);
                escaped.fed = start + length;
                escaped.until = escaped.fed + AROUND;
                self.escapes = escaped.fed;
            }
        }
        self.feed_escaped(cx, &mut out, limit);
        if self.escaped.as_ref().is_some_and(|escaped| escaped.until <= limit) {
            self.end_escaped(cx);
        }
    }

    /// Feeds what has been gathered, and the plain bytes after it.
    fn feed_escaped(&mut self, cx: &mut Cx, out: &mut Vec<u8>, limit: usize) {
        let Some(escaped) = &mut self.escaped else { return };
        let until = escaped.until.min(limit).max(escaped.fed);
        out.extend_from_slice(&self.bytes[escaped.fed..until]);
        let offset = self.base + escaped.fed.saturating_sub(out.len() * 6) as u64;
        escaped.fed = until;
        if !cx.decode(out.len()) {
            return out.clear();
        }
        escaped.child.feed(cx, out);
        out.clear();
        let waits = escaped.child.held() > 0;
        escaped.since = if waits { escaped.since.or(Some(offset)) } else { None };
    }

    fn end_escaped(&mut self, cx: &mut Cx) {
        if let Some(mut escaped) = self.escaped.take() {
            escaped.child.finish(cx);
            cx.close();
        }
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

impl Run {
    fn open(cx: &mut Cx, depth: u8, class: u8) -> Option<Self> {
        // Where a run begins in the middle of something else, so may what it stands for.
        let lanes = if class == HEX { 2 } else { 4 };
        let new = if class == HEX { Digits::hex } else { Digits::base64 };
        let lanes: Vec<_> =
            (0..lanes).map_while(|skip| Some((new(skip), cx.open(depth)?))).collect();
        (!lanes.is_empty()).then_some(Self { class, begun: false, lanes })
    }

    /// Where it stands for text from one place and not from the others, it begins there.
    fn settle(&mut self, cx: &mut Cx, chars: &[u8]) {
        let mut out = Vec::with_capacity(CELL);
        let text = self.lanes.iter().map(|(digits, _)| {
            out.clear();
            digits.clone().push(&chars[..chars.len().min(CELL + 4)], &mut out);
            out.iter().copied().all(decode::is_text)
        });
        let text: Vec<bool> = text.collect();
        if text.contains(&true) {
            let mut text = text.into_iter();
            let before = self.lanes.len();
            self.lanes.retain(|_| text.next().unwrap_or(true));
            (self.lanes.len()..before).for_each(|_| cx.close());
        }
    }

    /// Decodes more of it; `false` when that is too much.
    fn push(&mut self, cx: &mut Cx, chars: &[u8]) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            self.settle(cx, chars);
        }
        let mut out = Vec::with_capacity(chars.len().min(4096));
        for (digits, child) in &mut self.lanes {
            for part in chars.chunks(4096) {
                out.clear();
                digits.push(part, &mut out);
                if !cx.decode(out.len()) {
                    return false;
                }
                child.feed(cx, &out);
            }
        }
        true
    }

    fn finish(self, cx: &mut Cx) {
        let mut out = Vec::new();
        for (mut digits, mut child) in self.lanes {
            out.clear();
            digits.end(&mut out);
            child.feed(cx, &out);
            child.finish(cx);
            cx.close();
        }
    }
}

/// How long a run is that is short and stands for no text, neither at its beginning nor at its end,
/// wherever it begins: a name, most often.
fn dull(bytes: &[u8], class: u8) -> Option<usize> {
    let end = bytes.iter().take(DULL).position(|byte| CLASS[usize::from(*byte)] & class == 0)?;
    let (first, last) = (&bytes[..CELL], &bytes[end - CELL..end]);
    let steps = if class == HEX { 2 } else { 4 };
    let text = [first, last]
        .iter()
        .any(|cell| (0..steps).any(|skip| decode::stands_for_text(&cell[skip..], class == HEX)));
    (!text).then_some(end)
}

/// What comes between two lines of one run.
enum Gap {
    /// So many bytes, and the run goes on.
    Over(usize),
    /// The run ends.
    End,
    /// More has to come before that can be said.
    Unknown,
}

/// Whether a run goes on after an end of line, as it is or as JSON has it.
fn gap(bytes: &[u8], class: u8) -> Gap {
    if bytes.is_empty() {
        return Gap::Unknown;
    }
    for end in [&b"\n"[..], b"\r\n", b"\\n", b"\\r\\n"] {
        match bytes.strip_prefix(end) {
            Some([next, ..]) if CLASS[usize::from(*next)] & class != 0 => {
                return Gap::Over(end.len());
            }
            Some([]) => return Gap::Unknown,
            None if end.starts_with(bytes) => return Gap::Unknown,
            _ => {}
        }
    }
    Gap::End
}
