//! Compressed streams, decoded as they come: gzip, zlib, raw deflate and the files of ZIP archives.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::layer::{Cx, Layer};

/// A content coding that can be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `deflate`, which is zlib, and with some programs raw.
    Deflate,
}

impl Coding {
    /// That of a request's body.
    #[must_use]
    pub fn of(headers: &HeaderMap<HeaderValue>) -> Option<Self> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = codings.next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// What is expected next of a stream.
#[derive(Debug)]
enum Stage {
    /// This many bytes, of which some say what comes after.
    Fixed(Vec<u8>, usize),
    /// So many bytes of no interest.
    Skip(usize),
    /// Text up to a zero, of so many bytes at most.
    Text(usize),
    /// The first byte says whether it is zlib or raw.
    Guess,
    /// The compressed bytes.
    Body,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// All are taken, and more may come.
    All,
    /// The stream ended after so many of them.
    End(usize),
    /// It is none, or not whole.
    Bad,
}

/// One stream.
pub(super) struct Inflate {
    /// The last is next.
    stages: Vec<Stage>,
    state: Option<Box<InflateState>>,
    format: DataFormat,
    child: Box<Layer>,
    /// Offset in the parent from which the child waits for more.
    pub(super) since: Option<u64>,
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").field("stages", &self.stages).finish_non_exhaustive()
    }
}

const GZIP: usize = 10;
const ZIP: usize = 30;

/// The longest name or comment of a gzip stream.
const TEXT: usize = 1024;

impl Inflate {
    fn new(stages: Vec<Stage>, format: DataFormat, child: Box<Layer>) -> Self {
        Self { stages, state: None, format, child, since: None }
    }

    pub(super) fn gzip(child: Box<Layer>) -> Self {
        let stages = vec![Stage::Body, Stage::Fixed(Vec::new(), GZIP)];
        Self::new(stages, DataFormat::Raw, child)
    }

    pub(super) fn zip(child: Box<Layer>) -> Self {
        let stages = vec![Stage::Body, Stage::Fixed(Vec::new(), ZIP)];
        Self::new(stages, DataFormat::Raw, child)
    }

    pub(super) fn zlib(child: Box<Layer>) -> Self {
        Self::new(vec![Stage::Body], DataFormat::Zlib, child)
    }

    pub(super) fn coded(coding: Coding, child: Box<Layer>) -> Self {
        match coding {
            Coding::Gzip => Self::gzip(child),
            Coding::Deflate => Self::new(vec![Stage::Body, Stage::Guess], DataFormat::Zlib, child),
        }
    }

    /// Takes bytes, the first of which is at `offset` in the parent.
    pub(super) fn feed(&mut self, cx: &mut Cx, bytes: &[u8], offset: u64) -> Fed {
        let mut rest = bytes;
        while let Some(stage) = self.stages.last_mut() {
            match stage {
                Stage::Body => break,
                Stage::Guess => {
                    let Some(first) = rest.first() else { return Fed::All };
                    if first & 15 != 8 {
                        self.format = DataFormat::Raw;
                    }
                    self.stages.pop();
                }
                Stage::Skip(left) => {
                    let skipped = rest.len().min(*left);
                    (*left, rest) = (*left - skipped, &rest[skipped..]);
                    if *left > 0 {
                        return Fed::All;
                    }
                    self.stages.pop();
                }
                Stage::Text(left) => {
                    // Text without end would hide what comes after it.
                    let Some(zero) = memchr::memchr(0, rest) else {
                        *left = left.saturating_sub(rest.len());
                        return if *left == 0 { Fed::Bad } else { Fed::All };
                    };
                    rest = &rest[zero + 1..];
                    self.stages.pop();
                }
                Stage::Fixed(held, wanted) => {
                    let taken = rest.len().min(*wanted - held.len());
                    held.extend(&rest[..taken]);
                    rest = &rest[taken..];
                    if held.len() < *wanted {
                        return Fed::All;
                    }
                    let held = std::mem::take(held);
                    self.stages.pop();
                    match after(&held) {
                        Some(next) => self.stages.extend(next),
                        None => return Fed::Bad,
                    }
                }
            }
        }
        let fed = self.body(cx, &mut rest);
        self.since = if self.child.held() > 0 { self.since.or(Some(offset)) } else { None };
        match fed {
            Fed::End(_) => Fed::End(bytes.len() - rest.len()),
            fed => fed,
        }
    }

    /// Judges what the stream has stood for so far.
    pub(super) fn settle(&mut self, cx: &mut Cx) {
        self.child.settle(cx);
    }

    fn body(&mut self, cx: &mut Cx, rest: &mut &[u8]) -> Fed {
        let mut out = [0; 8 << 10];
        let format = self.format;
        let state = self.state.get_or_insert_with(|| InflateState::new_boxed(format));
        loop {
            let step = inflate(state, rest, &mut out, MZFlush::None);
            *rest = &rest[step.bytes_consumed.min(rest.len())..];
            if !cx.decode(step.bytes_written) {
                return Fed::Bad;
            }
            self.child.feed(cx, &out[..step.bytes_written]);
            match step.status {
                Ok(MZStatus::StreamEnd) => return Fed::End(0),
                Ok(_) if rest.is_empty() && step.bytes_written < out.len() => return Fed::All,
                Ok(_) if step.bytes_consumed + step.bytes_written > 0 => {}
                Ok(_) | Err(MZError::Buf) if rest.is_empty() => return Fed::All,
                _ => return Fed::Bad,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        (48 << 10) + self.child.size()
    }

    /// Ends the search in what was decoded.
    pub(super) fn finish(mut self, cx: &mut Cx) {
        self.child.finish(cx);
        cx.close();
    }
}

/// What a fixed head says that comes after it, the last first.
fn after(head: &[u8]) -> Option<Vec<Stage>> {
    let mut next = Vec::new();
    match head {
        [0x1f, 0x8b, 8, flags, ..] if head.len() == GZIP => {
            // In the order of RFC 1952 from its end: CRC, comment, name, extra field.
            if flags & 2 != 0 {
                next.push(Stage::Skip(2));
            }
            if flags & 16 != 0 {
                next.push(Stage::Text(TEXT));
            }
            if flags & 8 != 0 {
                next.push(Stage::Text(TEXT));
            }
            if flags & 4 != 0 {
                next.push(Stage::Fixed(Vec::new(), 2));
            }
        }
        [low, high] => next.push(Stage::Skip(usize::from(u16::from_le_bytes([*low, *high])))),
        [b'P', b'K', 3, 4, _, _, flags, _, 8, 0, ..] if head.len() == ZIP => {
            // An encrypted file cannot be looked into.
            if flags & 1 != 0 {
                return None;
            }
            let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
            next.push(Stage::Skip(length(26) + length(28)));
        }
        _ => return None,
    }
    Some(next)
}
