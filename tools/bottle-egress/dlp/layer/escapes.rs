//! Escapes, undone with what is around them.

use super::super::decode::{self, Escape};
use super::{AROUND, Cx, Escaped, Layer};

impl Layer {
    pub(super) fn scan_escapes(&mut self, cx: &mut Cx, last: bool) {
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

    pub(super) fn end_escaped(&mut self, cx: &mut Cx) {
        if let Some(mut escaped) = self.escaped.take() {
            escaped.child.finish(cx);
            cx.close();
        }
    }
}
