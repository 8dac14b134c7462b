//! Compressed streams that begin in the bytes.

use super::super::engine::Look;
use super::super::inflate::{Fed, Inflate};
use super::{Cx, Layer};

impl Layer {
    pub(super) fn begin_inflate(
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
    pub(super) fn feed_inflate(&mut self, cx: &mut Cx, from: usize) {
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
    pub(super) fn scan_pack(&mut self, cx: &mut Cx, fresh: usize) {
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
}
