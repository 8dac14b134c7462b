//! The forms in which a secret of the plan is looked for.

use std::collections::BTreeSet;

/// The longest part of a secret that is looked for in one piece: a multiple of three, so that its
/// Base64 is the same wherever it begins.
const PART: usize = 48;

/// The most parts of one secret that are looked for.
const PARTS: usize = 64;

/// All forms of a secret: as it is, in hex of both cases, in Base64 of both alphabets wherever it
/// begins, URL-encoded, and as a string of JSON. A long one is looked for in parts, so that a leak of
/// a part is one too.
pub(super) fn forms(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    let shortest = super::SHORTEST;
    // The lines of a file are what stays whole however it is sent.
    let lines: Vec<&[u8]> = secret
        .split(|byte| *byte == b'\n' || *byte == b'\r')
        .filter(|line| line.len() >= shortest)
        .collect();
    let whole = [secret];
    let lines = if secret.len() <= PART { &whole[..] } else { &lines };
    let parts = lines.iter().flat_map(|line| line.chunks(PART)).filter(|part| {
        // What many files have in common is no secret.
        part.len() >= shortest && !part.starts_with(b"-----")
    });
    for part in parts.take(PARTS) {
        forms.insert(part.to_vec());
        let hex: Vec<u8> = part.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        forms.insert(hex.to_ascii_uppercase());
        forms.insert(hex);
        for skip in 0..3 {
            let standard = base64(part, skip);
            let url = standard.iter().map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            });
            forms.insert(url.collect());
            forms.insert(standard);
        }
        for keep in [&b"-._~"[..], b"-._~!*'()", b"-._"] {
            let encoded = percent(part, keep);
            forms.insert(encoded.to_lowercase_escapes());
            forms.insert(encoded.0);
        }
        if let Ok(text) = std::str::from_utf8(part)
            && let Ok(json) = serde_json::to_string(text)
        {
            forms.insert(json.as_bytes()[1..json.len() - 1].to_vec());
        }
    }
    forms
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// The characters of Base64 that do not depend on what comes before or after, if that part begins
/// `skip` bytes into a group of three.
fn base64(part: &[u8], skip: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded: Vec<u8> = [0; 2].into_iter().take(skip).chain(part.iter().copied()).collect();
    let (first, end) = ((skip * 8).div_ceil(6), padded.len() * 8 / 6);
    (first..end)
        .map(|at| {
            let (byte, bit) = (at * 6 / 8, at * 6 % 8);
            let pair = u16::from(padded[byte]) << 8
                | u16::from(padded.get(byte + 1).copied().unwrap_or(0));
            DIGITS[usize::from(pair >> (10 - bit) & 63)]
        })
        .collect()
}

/// Text in which escapes are of upper case.
struct Encoded(Vec<u8>);

fn percent(part: &[u8], keep: &[u8]) -> Encoded {
    let mut out = Vec::new();
    for byte in part {
        if byte.is_ascii_alphanumeric() || keep.contains(byte) {
            out.push(*byte);
        } else {
            out.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    Encoded(out)
}

impl Encoded {
    fn to_lowercase_escapes(&self) -> Vec<u8> {
        let mut out = self.0.clone();
        let marks: Vec<usize> = (0..out.len()).filter(|at| out[*at] == b'%').collect();
        for at in marks {
            out[at + 1..at + 3].make_ascii_lowercase();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_wherever_the_secret_begins() {
        let text = |skip| String::from_utf8(base64(b"correct horse", skip)).unwrap();
        // "correct horse", "xcorrect horse" and "xxcorrect horse", less what x decides.
        assert_eq!(
            [text(0), text(1), text(2)],
            ["Y29ycmVjdCBob3JzZ", "NvcnJlY3QgaG9yc2", "jb3JyZWN0IGhvcnNl"]
        );
    }
}
