//! What begins with a prefix, and private data, which begins anywhere.

use super::super::engine::{self, Lead, Look, WINDOW};
use super::super::inflate::Inflate;
use super::super::rules::RULES;
use super::{Cx, DATUM, Layer};

impl Layer {
    pub(super) fn scan_prefixes(&mut self, cx: &mut Cx, last: bool) {
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

    pub(super) fn scan_private(&mut self, cx: &mut Cx, last: bool) {
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
}
