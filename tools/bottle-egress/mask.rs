//! Hides a credential in an answer that echoes it, where the rule says so: each byte of it becomes
//! an asterisk, so that lengths stay as they are announced. It is found as it stands, in Base64, in
//! hexadecimal, percent-encoded and escaped for JSON, also where it comes in pieces; what cannot be
//! the beginning of it is passed on at once.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bottle::policy::Inject;
use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use memchr::memmem;

use crate::inject::{basic, encoded};

/// What a hidden byte becomes.
const HIDDEN: u8 = b'*';

/// The value in the forms in which it is found, and what of the body is held back.
pub(crate) struct Mask {
    forms: Vec<Vec<u8>>,
    /// Bytes that may be the beginning of a form.
    held: BytesMut,
    /// How many of them are to be hidden in any case.
    hidden: usize,
}

impl Mask {
    /// Hides a value that was added so.
    pub(crate) fn new(inject: &Inject, value: &str) -> Self {
        let percent = encoded(value);
        let hex = value.bytes().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let json = serde_json::to_string(value).unwrap_or_default();
        let mut forms = vec![
            value.to_owned(),
            percent.to_ascii_lowercase(),
            percent.replace("%20", "+"),
            hex.to_ascii_uppercase(),
            hex,
            json.trim_matches('"').replace('/', "\\/"),
            json.trim_matches('"').to_owned(),
            percent,
        ];
        // Where in a longer text it begins, decides how Base64 writes it. The characters that its
        // neighbours take part in are left out.
        for before in 0..3 {
            let text = [&b"\0\0"[..before], value.as_bytes()].concat();
            let own = (before * 8).div_ceil(6)..text.len() * 8 / 6;
            for form in [BASE64_STANDARD_NO_PAD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)]
            {
                forms.push(form[own.clone()].to_owned());
            }
        }
        forms.push(BASE64_STANDARD.encode(value));
        forms.push(BASE64_STANDARD_NO_PAD.encode(value));
        forms.push(BASE64_URL_SAFE_NO_PAD.encode(value));
        if let Some(user) = &inject.basic {
            forms.push(basic(user, value)["Basic ".len()..].to_owned());
        }
        // Of a short value a form can be so short that it is found everywhere.
        let least = value.len().min(6);
        let mut forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
        forms.retain(|form| form.len() >= least);
        forms.sort();
        forms.dedup();
        Self { forms, held: BytesMut::new(), hidden: 0 }
    }

    /// The next bytes of the body that can be passed on.
    pub(crate) fn pass(&mut self, data: &[u8]) -> Bytes {
        let mut hidden = Vec::from([(0, self.hidden)]);
        self.held.extend_from_slice(data);
        for form in &self.forms {
            let mut from = 0;
            // Overlapping ones too: `memmem` alone goes on behind what it has found.
            while let Some(at) = memmem::find(&self.held[from..], form) {
                hidden.push((from + at, from + at + form.len()));
                from += at + 1;
            }
        }
        let keep = self.beginning();
        let split = self.held.len() - keep;
        let end = hidden.iter().map(|(_, end)| *end).max().unwrap_or(0);
        let mut out = self.held.split_to(split);
        for (start, end) in hidden {
            out[start.min(split)..end.min(split)].fill(HIDDEN);
        }
        self.hidden = end.saturating_sub(split);
        out.freeze()
    }

    /// What is held back, at the end of the body.
    pub(crate) fn rest(&mut self) -> Bytes {
        let mut out = self.held.split();
        let hidden = std::mem::take(&mut self.hidden).min(out.len());
        out[..hidden].fill(HIDDEN);
        out.freeze()
    }

    /// Hides the value in headers or trailers.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let mut mask = Self { forms: self.forms.clone(), held: BytesMut::new(), hidden: 0 };
            let masked = [mask.pass(value.as_bytes()), mask.rest()].concat();
            if masked != value.as_bytes()
                && let Ok(masked) = HeaderValue::from_bytes(&masked)
            {
                *value = masked;
            }
        }
    }

    /// The length of the longest end of what is held that a form may begin with.
    fn beginning(&self) -> usize {
        let held = &self.held[..];
        let longest = |form: &Vec<u8>| {
            let most = held.len().min(form.len() - 1);
            (1..=most).rev().find(|length| held.ends_with(&form[..*length])).unwrap_or(0)
        };
        self.forms.iter().map(longest).max().unwrap_or(0)
    }
}

/// Whether a body can be searched: it is not encoded.
pub(crate) fn can_mask(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_ENCODING).iter();
    all.all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VALUE: &str = "s3cr3t/to ken+\"1";

    fn mask() -> Mask {
        let inject = json!({ "secret": "t", "basic": "git", "mask": true });
        Mask::new(&serde_json::from_value(inject).unwrap(), VALUE)
    }

    /// A body that comes in pieces of one length.
    fn masked(body: &str, piece: usize) -> String {
        let mut mask = mask();
        let mut out = Vec::new();
        for piece in body.as_bytes().chunks(piece) {
            out.extend_from_slice(&mask.pass(piece));
        }
        out.extend_from_slice(&mask.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn value_is_hidden_wherever_the_body_is_cut_and_no_other_byte_is() {
        let body = format!("a {VALUE}, s3cr3t/to and s3cr3t/{VALUE}{VALUE} s3cr3t/to ken");
        let hidden = "*".repeat(VALUE.len());
        let expected = format!("a {hidden}, s3cr3t/to and s3cr3t/{hidden}{hidden} s3cr3t/to ken");
        for piece in 1..=body.len() {
            assert_eq!(masked(&body, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn value_is_hidden_in_every_form_that_a_server_echoes() {
        let forms = [
            BASE64_STANDARD.encode(VALUE),
            BASE64_URL_SAFE_NO_PAD.encode(VALUE),
            BASE64_STANDARD.encode(format!("git:{VALUE}")),
            "s3cr3t%2Fto%20ken%2B%221".to_owned(),
            "s3cr3t%2fto%20ken%2b%221".to_owned(),
            "s3cr3t%2Fto+ken%2B%221".to_owned(),
            r#"s3cr3t/to ken+\"1"#.to_owned(),
            r#"s3cr3t\/to ken+\"1"#.to_owned(),
            "7333637233742f746f206b656e2b2231".to_owned(),
        ];
        for form in forms {
            let out = masked(&format!("<{form}>"), 7);
            assert_eq!(out, format!("<{}>", "*".repeat(form.len())), "{form}");
        }
        // Inside another text's Base64 the characters at both ends are shared with its neighbours.
        for (before, after) in [("u:", "x"), ("us:", ""), ("user:", "yz")] {
            let whole = BASE64_STANDARD.encode(format!("{before}{VALUE}{after}"));
            let out = masked(&whole, 5);
            let stars = out.bytes().filter(|byte| *byte == HIDDEN).count();
            assert!(stars + 2 >= VALUE.len() * 8 / 6, "{out}");
        }
    }

    #[test]
    fn what_cannot_be_the_value_is_passed_on_at_once() {
        let mut mask = mask();
        assert_eq!(mask.pass(b"data: hello\n\n"), "data: hello\n\n");
        assert_eq!(mask.pass(b"data: s3cr"), "data: ");
        assert_eq!(mask.pass(b"eam\n"), "s3cream\n");
        assert_eq!(mask.rest(), "");
    }

    #[test]
    fn headers_are_masked_and_encoded_bodies_known() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_str(&format!("is {VALUE}!")).unwrap());
        headers.insert("x-other", HeaderValue::from_static("s3cr3t/"));
        mask().headers(&mut headers);
        assert_eq!(headers["x-echo"], format!("is {}!", "*".repeat(VALUE.len())));
        assert_eq!(headers["x-other"], "s3cr3t/");
        assert!(can_mask(&headers));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(can_mask(&headers));
        headers.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!can_mask(&headers));
    }
}
