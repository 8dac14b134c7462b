//! Base64, hex and escapes, read leniently and piece by piece.

/// A character of Base64, of either alphabet.
pub(super) const MEMBER: u8 = 1;
/// An upper-case letter.
pub(super) const UPPER: u8 = 2;
/// A lower-case letter.
pub(super) const LOWER: u8 = 4;
/// A hex digit.
pub(super) const HEX: u8 = 8;

/// What a byte is.
#[expect(clippy::cast_possible_truncation, reason = "it is less than 256")]
pub(super) static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = match at as u8 {
            b'A'..=b'F' => MEMBER | UPPER | HEX,
            b'G'..=b'Z' => MEMBER | UPPER,
            b'a'..=b'f' => MEMBER | LOWER | HEX,
            b'g'..=b'z' => MEMBER | LOWER,
            b'0'..=b'9' => MEMBER | HEX,
            b'+' | b'/' | b'-' | b'_' => MEMBER,
            _ => 0,
        };
        at += 1;
    }
    table
};

/// The value of a character of Base64; 0 for what is none.
#[expect(clippy::cast_possible_truncation, reason = "it is less than 256")]
static SIX: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => 0,
        };
        at += 1;
    }
    table
};

/// The value of a hex digit; 0 for what is none.
fn nibble(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 0,
    }
}

/// What a run of characters stands for, whose first `skip` are not part of it.
#[derive(Debug, Clone)]
pub(super) struct Digits {
    /// Bits of a character: 6 or 4.
    bits: u8,
    skip: u8,
    /// Characters that are not a whole group yet.
    open: [u8; 4],
    count: usize,
}

impl Digits {
    pub(super) fn base64(skip: u8) -> Self {
        Self { bits: 6, skip, open: [0; 4], count: 0 }
    }

    pub(super) fn hex(skip: u8) -> Self {
        Self { bits: 4, skip, open: [0; 4], count: 0 }
    }

    fn group(&self) -> usize {
        if self.bits == 6 { 4 } else { 2 }
    }

    /// Adds to `out` what the next characters stand for.
    pub(super) fn push(&mut self, mut chars: &[u8], out: &mut Vec<u8>) {
        let skipped = usize::from(self.skip).min(chars.len());
        chars = &chars[skipped..];
        // At most three.
        self.skip -= u8::try_from(skipped).unwrap_or(0);
        let group = self.group();
        while self.count > 0 {
            let Some((first, rest)) = chars.split_first() else { return };
            self.open[self.count] = *first;
            self.count += 1;
            chars = rest;
            if self.count == group {
                self.whole(&self.open[..group], out);
                self.count = 0;
            }
        }
        let (groups, rest) = chars.split_at(chars.len() - chars.len() % group);
        self.whole(groups, out);
        self.open[..rest.len()].copy_from_slice(rest);
        self.count = rest.len();
    }

    fn whole(&self, chars: &[u8], out: &mut Vec<u8>) {
        if self.bits == 6 {
            out.extend(chars.as_chunks::<4>().0.iter().flat_map(|group| {
                let six = group.map(|byte| u32::from(SIX[usize::from(byte)]));
                let bits = six[0] << 18 | six[1] << 12 | six[2] << 6 | six[3];
                let [_, three @ ..] = bits.to_be_bytes();
                three
            }));
        } else {
            let pairs = chars.as_chunks::<2>().0;
            out.extend(pairs.iter().map(|[high, low]| nibble(*high) << 4 | nibble(*low)));
        }
    }

    /// Adds the bytes that an unfinished group still holds.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if self.bits == 6 && self.count >= 2 {
            let mut last = [b'A'; 4];
            last[..self.count].copy_from_slice(&self.open[..self.count]);
            let keep = out.len() + self.count - 1;
            self.whole(&last, out);
            out.truncate(keep);
        }
        self.count = 0;
    }
}

/// Whether the whole groups of some characters stand for text; the first that does not ends the search,
/// which for names is most often the first.
pub(super) fn stands_for_text(chars: &[u8], hex: bool) -> bool {
    if hex {
        return chars
            .as_chunks::<2>()
            .0
            .iter()
            .all(|[high, low]| is_text(nibble(*high) << 4 | nibble(*low)));
    }
    chars.as_chunks::<4>().0.iter().all(|group| {
        let six = group.map(|byte| u32::from(SIX[usize::from(byte)]));
        let [_, three @ ..] = (six[0] << 18 | six[1] << 12 | six[2] << 6 | six[3]).to_be_bytes();
        three.into_iter().all(is_text)
    })
}

/// Whether text has such a byte.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// What Base64 of either alphabet stands for, padded or not.
pub(super) fn base64(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut digits = Digits::base64(0);
    digits.push(text, &mut out);
    digits.end(&mut out);
    out
}

/// What may be an escape.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// It stands for this byte, and is so long.
    Byte(u8, usize),
    /// It is none.
    None,
    /// More has to come before that can be said.
    Short,
}

/// The escape at the beginning of the bytes: `%41`, `\x41` or `\u0041`.
pub(super) fn escape(bytes: &[u8]) -> Escape {
    let (skip, zeros) = match bytes {
        [b'%', ..] => (1, 0),
        [b'\\', b'x', ..] => (2, 0),
        [b'\\', b'u', ..] => (2, 2),
        [b'\\'] => return Escape::Short,
        _ => return Escape::None,
    };
    let rest = &bytes[skip..];
    let high = &rest[..rest.len().min(zeros)];
    if high.iter().any(|byte| *byte != b'0') {
        return Escape::None;
    }
    let digits = &rest[high.len()..rest.len().min(zeros + 2)];
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Escape::None;
    }
    match digits {
        [high, low] => Escape::Byte(nibble(*high) << 4 | nibble(*low), skip + zeros + 2),
        _ => Escape::Short,
    }
}

/// The text with its escapes undone, once.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let Escape::Byte(byte, length) = escape(rest) {
            out.push(byte);
            rest = &rest[length..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_decode_as_the_whole() {
        let text = b"RkFLRTBmYWtlMUZha2UyRkFLRTBmYWtlMUZha2Uy";
        for skip in 0..4 {
            let mut whole = Vec::new();
            let mut digits = Digits::base64(skip);
            digits.push(text, &mut whole);
            digits.end(&mut whole);
            let mut parts = Vec::new();
            let mut digits = Digits::base64(skip);
            for byte in text {
                digits.push(&[*byte], &mut parts);
            }
            digits.end(&mut parts);
            assert_eq!(whole, parts);
        }
        assert_eq!(base64(text), b"FAKE0fake1Fake2FAKE0fake1Fake2");
        assert_eq!(base64(b"-_8"), [0xfb, 0xff]);
    }

    #[test]
    fn escapes_of_urls_json_and_programs_are_one_byte() {
        assert_eq!(unescaped(b"%41\\u0042\\x43%4\\u1234%zz\\n"), b"ABC%4\\u1234%zz\\n");
        assert_eq!(escape(b"%4"), Escape::Short);
        assert_eq!(escape(b"\\u00"), Escape::Short);
        assert_eq!(escape(b"\\n"), Escape::None);
    }
}
