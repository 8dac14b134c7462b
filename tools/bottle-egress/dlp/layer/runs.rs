//! Runs of Base64 and hex, decoded from each place at which they may begin.

use super::super::decode::{self, CLASS, Digits, HEX, LOWER, MEMBER, UPPER};
use super::{CELL, Cx, Layer, Run};

/// A run of fewer characters that stands for no text is not decoded.
const DULL: usize = 80;

impl Layer {
    pub(super) fn scan_runs(&mut self, cx: &mut Cx, last: bool) {
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

    pub(super) fn end_run(&mut self, cx: &mut Cx) {
        if let Some(run) = self.run.take() {
            run.finish(cx);
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
