//! What a regular expression cannot say: checksums, structure, randomness.

use serde::Deserialize;

use super::decode;

/// What is asked of what matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Check {
    /// The last six characters are the CRC-32 of the 30 before them, as GitHub and npm write it.
    Crc32Base62,
    /// Letters of both cases or letters and digits, and no character too often: no placeholder.
    Mixed,
    /// Letters of both cases, and no character too often.
    MixedCase,
    /// It does not say that it is an example.
    NoExample,
    /// The head is JSON that names an algorithm.
    Jwt,
    /// The password in a URL is no placeholder, and the host no example.
    Password,
    /// The domain is none of those set aside for examples, and the user not that of git.
    Email,
    /// Digits that are not all alike.
    Phone,
    /// ISO 7064 MOD 97-10.
    Iban,
    /// ISO 7812.
    Luhn,
}

impl Check {
    /// Whether the text holds what is asked.
    pub(super) fn holds(self, text: &[u8]) -> bool {
        match self {
            Self::Crc32Base62 => crc32_base62(text),
            Self::Mixed => mixed(tail(text), false),
            Self::MixedCase => mixed(tail(text), true),
            Self::NoExample => !contains(text, b"EXAMPLE") && varied(tail(text)),
            Self::Jwt => jwt(text),
            Self::Password => password(text),
            Self::Email => email(text),
            Self::Phone => distinct(text.iter().filter(|b| b.is_ascii_digit())) > 3,
            Self::Iban => iban(text),
            Self::Luhn => luhn(text),
        }
    }
}

/// The part after the last mark that ends a prefix.
fn tail(text: &[u8]) -> &[u8] {
    let at = text[..text.len().min(24)].iter().rposition(|b| b"_-=\" ".contains(b));
    &text[at.map_or(0, |at| at + 1).min(text.len().saturating_sub(8))..]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// How many different bytes there are.
fn distinct<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    seen.iter().map(|seen| u32::from(*seen)).sum()
}

fn varied(text: &[u8]) -> bool {
    distinct(text.iter()) >= 7
}

fn mixed(text: &[u8], cases: bool) -> bool {
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    let (upper, lower) = (has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase));
    let (digit, letter) = (has(u8::is_ascii_digit), upper || lower);
    varied(text) && ((upper && lower) || (!cases && digit && letter))
}

/// Bits of a byte of the text, by Shannon.
pub(super) fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    let length = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum()
}

/// CRC-32 as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn crc32_base62(text: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((head, sum)) = text.split_last_chunk::<6>() else { return false };
    let Some((_, body)) = head.split_last_chunk::<30>() else { return false };
    let mut left = crc32(body);
    let told = sum.iter().rev().all(|digit| {
        let wanted = DIGITS[(left % 62) as usize];
        left /= 62;
        wanted == *digit
    });
    told && left == 0
}

fn jwt(text: &[u8]) -> bool {
    let head = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    let decoded = decode::base64(head);
    let Ok(head) = serde_json::from_slice::<serde_json::Value>(&decoded) else { return false };
    head.get("alg").is_some_and(serde_json::Value::is_string)
}

fn password(text: &[u8]) -> bool {
    // "://user:password@" and the first byte of the host.
    let Some(text) = text.strip_prefix(b"://") else { return false };
    let Some(at) = text.iter().rposition(|byte| *byte == b'@') else { return false };
    let Some(colon) = text[..at].iter().position(|byte| *byte == b':') else { return false };
    let (user, word) = (&text[..colon], &text[colon + 1..at]);
    let lower = word.to_ascii_lowercase();
    let placeholder = [&b"passw"[..], b"secret1", b"example", b"changeme", b"xxxx", b"token"]
        .iter()
        .any(|part| lower.starts_with(part));
    let digits = word.iter().any(u8::is_ascii_digit) && !word.iter().all(u8::is_ascii_digit);
    let letters = word.iter().filter(|b| b.is_ascii_alphabetic()).count() >= 3;
    // A port and an '@' further on in a path are no password.
    let plain = !word.contains(&b'/') && user != word;
    plain && !placeholder && digits && letters && entropy(word) >= 2.7
}

fn email(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let Some(at) = lower.iter().position(|byte| *byte == b'@') else { return false };
    let (user, domain) = (&lower[..at], &lower[at + 1..]);
    let reserved = [&b"example.com"[..], b"example.org", b"example.net", b".example", b".test"]
        .iter()
        .any(|end| domain.ends_with(end));
    let file = [&b".call"[..], b".png", b".js", b".py", b".rs", b".ts", b".svg", b".css"]
        .iter()
        .any(|end| domain.ends_with(end));
    let robot = user == b"git" || user.starts_with(b"noreply") || user.starts_with(b"no-reply");
    !reserved && !file && !robot && !domain.ends_with(b"noreply.github.com")
}

fn iban(text: &[u8]) -> bool {
    let text: Vec<u8> = text.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    if !(15..=34).contains(&text.len()) {
        return false;
    }
    let rest = text[4..].iter().chain(&text[..4]).fold(0_u32, |rest, byte| {
        let value = char::from(*byte).to_digit(36).unwrap_or(0);
        (rest * if value < 10 { 10 } else { 100 } + value) % 97
    });
    rest == 1
}

fn luhn(text: &[u8]) -> bool {
    let digits: Vec<u32> = text.iter().filter_map(|byte| char::from(*byte).to_digit(10)).collect();
    if !(13..=19).contains(&digits.len()) || distinct(text.iter()) < 2 {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}
