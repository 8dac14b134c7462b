//! The head of a request: its URL, its headers and the host that it goes to.

use std::borrow::Cow;
use std::net::IpAddr;

use bottle::host::special;

use super::check::entropy;
use super::decode::{self, CLASS, HEX, LOWER, MEMBER, UPPER};
use super::rules::RULES;
use super::{Finding, Lens, Place, scan_slice};

/// The shortest text of a URL that is taken for smuggled data, and how random it must be. Digests
/// are hex and no longer than [`DIGEST`]; session and page tokens are mostly shorter.
const SMUGGLED: usize = 72;
const RANDOM: f64 = 4.7;
const DIGEST: usize = 128;

/// The same of a part of a label of a host.
const LABEL: usize = 36;
const LABEL_RANDOM: f64 = 3.0;

/// How often the escapes of a URL are undone.
const ROUNDS: usize = 3;

/// What must not leave in a path and its query.
#[must_use]
pub fn url(lens: &Lens, path_and_query: &str) -> Vec<Finding> {
    let bytes = path_and_query.as_bytes();
    let mut found = scan_slice(lens, Place::Url, bytes);
    if bytes.len() >= SMUGGLED
        && let Some(offset) = smuggled(bytes)
    {
        find(lens, &mut found, "high-entropy-url", Place::Url, offset);
    }
    let mut text = Cow::Borrowed(bytes);
    for _ in 0..ROUNDS {
        if let Some(offset) = leads_inside(&text) {
            find(lens, &mut found, "ssrf-target", Place::Url, offset);
            break;
        }
        if !text.contains(&b'%') {
            break;
        }
        text = decode::unescaped(&text).into();
    }
    found
}

/// What must not leave in the name of a host.
#[must_use]
pub fn host(lens: &Lens, name: &str) -> Vec<Finding> {
    let mut found = scan_slice(lens, Place::Host, name.as_bytes());
    let carries = |part: &str| {
        let digit = part.bytes().any(|byte| byte.is_ascii_digit());
        let letter = part.bytes().any(|byte| byte.is_ascii_alphabetic());
        part.len() >= LABEL && digit && letter && entropy(part.as_bytes()) >= LABEL_RANDOM
    };
    if name.len() >= LABEL && name.split(['.', '-']).any(carries) {
        find(lens, &mut found, "high-entropy-host", Place::Host, 0);
    }
    found
}

fn find(lens: &Lens, found: &mut Vec<Finding>, rule: &str, place: Place, offset: usize) {
    let fine = RULES.iter().any(|it| it.name == rule && it.is_fine_at(&lens.0.host, place));
    if !fine && !lens.0.exempt.iter().any(|exempt| exempt == rule) {
        found.push(Finding { rule: rule.to_owned(), place, offset: offset as u64 });
    }
}

/// Where random text is that is no digest.
fn smuggled(bytes: &[u8]) -> Option<usize> {
    let rule = RULES.iter().find(|rule| rule.name == "high-entropy-url")?;
    let mut at = 0;
    bytes
        .split(|byte| b"/?&=;,:@%.".contains(byte))
        .map(|part| {
            let start = at;
            at += part.len() + 1;
            (start, part)
        })
        .find(|(start, part)| {
            let harmless = |text: &String| bytes[..*start].ends_with(text.as_bytes());
            part.len() >= SMUGGLED && random(part) && !rule.unless_after.iter().any(harmless)
        })
        .map(|(start, _)| start)
}

fn random(part: &[u8]) -> bool {
    let (mut any, mut all) = (0, u8::MAX);
    for byte in part {
        any |= CLASS[usize::from(*byte)];
        all &= CLASS[usize::from(*byte)];
    }
    if all & HEX != 0 {
        return part.len() > DIGEST;
    }
    let digits = part.iter().filter(|byte| byte.is_ascii_digit()).count();
    all & MEMBER != 0
        && any & UPPER != 0
        && any & LOWER != 0
        && digits * 25 >= part.len()
        && entropy(part) >= RANDOM
}

/// Where a URL is that leads its reader inside: to metadata, private addresses or files.
fn leads_inside(text: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(text, "://").find(|at| {
        let from = text[..*at].iter().rposition(|byte| !byte.is_ascii_alphanumeric());
        let scheme = text[from.map_or(0, |from| from + 1)..*at].to_ascii_lowercase();
        let rest = &text[at + 3..];
        match &scheme[..] {
            b"http" | b"https" | b"ftp" | b"ws" | b"wss" => inside(rest),
            b"file" | b"gopher" | b"dict" | b"netdoc" | b"jar" => !rest.is_empty(),
            _ => false,
        }
    })
}

/// Whether an authority is one that only a server inside reaches. Loopback is not: it is the very
/// thing to redirect a browser to after a login.
fn inside(rest: &[u8]) -> bool {
    let end = rest.iter().position(|byte| b"/?#&\"' \\".contains(byte)).unwrap_or(rest.len());
    let authority = &rest[..end];
    let at = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let Ok(authority) = std::str::from_utf8(&authority[at..]) else { return false };
    let host = match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = host.parse::<IpAddr>() {
        let open =
            address.is_loopback() || matches!(special(address), None | Some("documentation"));
        return !open;
    }
    let named =
        ["metadata", "metadata.google.internal", "metadata.azure.internal", "instance-data"]
            .contains(&&*host);
    // Numbers that are no address in its usual form are one that is hidden.
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()),
    };
    named || host.split('.').all(number)
}
