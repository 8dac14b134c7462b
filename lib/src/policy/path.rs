//! The one form in which a path is judged and then sent.
//!
//! [`normalise`] does what RFC 3986 calls equivalent: escapes of unreserved characters decoded,
//! others in upper case, `.` and `..` resolved, what may not stand in a path escaped. Where servers
//! are known to read the result in different ways (`%2F` and `%5C` as `/`, `;x` cut off, `//` merged,
//! `%252e` decoded twice), a rule has to allow **every** reading: see [`Path::all`].

use std::borrow::Cow;

use crate::host::Odd;

/// The longest path.
const MAX: usize = 16 << 10;

/// Ways in which a server may read more into a path than it says.
const SLASH: u8 = 1;
const PARAMETER: u8 = 2;
const MERGE: u8 = 4;
const TWICE: u8 = 8;

/// A path in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    text: Cow<'a, str>,
    /// Of [`SLASH`] and the others, what the text gives reason for.
    readings: u8,
}

impl Path<'_> {
    /// The text to send.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ways in which a server may read it, the plain one first, each once.
    #[must_use]
    pub fn readings(&self) -> Vec<String> {
        let mut all = vec![self.text.clone().into_owned()];
        for reading in (1..16).filter(|reading| reading & !self.readings == 0) {
            all.extend(read(&self.text, reading).filter(|text| !all.contains(text)));
        }
        all
    }

    /// Whether `allowed` holds for every way in which a server may read the path.
    pub fn all(&self, allowed: impl Fn(&str) -> bool) -> bool {
        allowed(&self.text)
            && (1..16)
                .filter(|reading| reading & !self.readings == 0)
                .all(|reading| read(&self.text, reading).is_some_and(|text| allowed(&text)))
    }
}

/// The normal form of a path on the wire, without its query.
pub fn normalise(path: &str) -> Result<Path<'_>, Odd> {
    if !path.starts_with('/') {
        return Err(Odd("a path begins with '/'"));
    }
    if path.len() > MAX {
        return Err(Odd("a path has at most 16 KiB"));
    }
    let mut before = 0;
    let plain = path.bytes().all(|byte| {
        let fine = (is_unreserved(byte) && !(byte == b'.' && before == b'/'))
            || (byte == b'/' && before != b'/')
            || matches!(byte, b'@' | b':' | b'=' | b',' | b'+' | b'&' | b'$' | b'!' | b'*');
        before = byte;
        fine
    });
    if plain {
        return Ok(Path { text: Cow::Borrowed(path), readings: 0 });
    }
    let text = resolve(&decode(path, false)?);
    let readings = readings(&text);
    Ok(Path { text: Cow::Owned(text), readings })
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes and encodes, so that each character is written in one way. A `%` without digits is an
/// error, or where `lenient` itself.
fn decode(path: &str, lenient: bool) -> Result<String, Odd> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len() + 8);
    let escape = |out: &mut String, byte: u8| {
        out.push('%');
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    };
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        match byte {
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
                let (Some(high), Some(low)) = (digit(at), digit(at + 1)) else {
                    if lenient {
                        out.push_str("%25");
                        continue;
                    }
                    return Err(Odd("'%' in a path is followed by two hex digits"));
                };
                at += 2;
                #[expect(clippy::cast_possible_truncation, reason = "two hex digits are a byte")]
                let byte = (high << 4 | low) as u8;
                match byte {
                    0..0x20 | 0x7f => return Err(Odd("a path holds no control characters")),
                    _ if is_unreserved(byte) => out.push(char::from(byte)),
                    _ => escape(&mut out, byte),
                }
            }
            0..0x20 | 0x7f => return Err(Odd("a path holds no control characters")),
            b'\\' => return Err(Odd("a path holds no backslash")),
            b'?' | b'#' => return Err(Odd("a path ends before '?' and '#'")),
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' | 0x80.. => {
                escape(&mut out, byte);
            }
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

/// Resolves `.` and `..`, as RFC 3986 section 5.2.4 has it.
fn resolve(path: &str) -> String {
    if !path.contains("/.") {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push('/'),
            "." => {}
            ".." => {
                out.truncate(out.rfind('/').unwrap_or(0));
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

fn readings(text: &str) -> u8 {
    let mut found = 0;
    if text.contains("%2F") || text.contains("%5C") {
        found |= SLASH;
    }
    if text.contains(';') || text.contains("%3B") {
        found |= PARAMETER;
    }
    if text.contains("//") {
        found |= MERGE;
    }
    if text.contains("%25") {
        // What it hides shows only when it is decoded.
        found |= TWICE | SLASH | PARAMETER | MERGE;
    }
    if found & (SLASH | PARAMETER) != 0 {
        found |= MERGE;
    }
    found
}

/// The path with every `%25` made `%` until there is none: a server that decodes twice may sit behind
/// one that does. In one pass, because the path is an agent's.
fn uncovered(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('%');
        out.push_str(part.trim_start_matches("25"));
    }
    out
}

/// The path as a server reads it that does all of `reading`; `None` where that holds what no path
/// may.
fn read(text: &str, reading: u8) -> Option<String> {
    let mut text = text.to_owned();
    if reading & TWICE != 0 {
        text = decode(&uncovered(&text), true).ok()?;
    }
    if reading & SLASH != 0 {
        text = text.replace("%2F", "/").replace("%5C", "/");
    }
    if reading & PARAMETER != 0 {
        text = text
            .replace("%3B", ";")
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("/");
    }
    if reading & MERGE != 0 {
        while text.contains("//") {
            text = text.replace("//", "/");
        }
    }
    Some(resolve(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Random;

    fn normal(path: &str) -> String {
        normalise(path).unwrap_or_else(|e| panic!("{path}: {e}")).as_str().to_owned()
    }

    #[test]
    fn equivalent_paths_have_one_normal_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61/%7Eb%2d", "/a/~b-"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%2fb", "/a%2Fb"),
            ("/ü", "/%C3%BC"),
            ("/%c3%bc", "/%C3%BC"),
            ("/a{b}|\"", "/a%7Bb%7D%7C%22"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/100%25", "/100%25"),
            ("/(a)'", "/(a)'"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
            assert_eq!(normal(expected), expected, "{path} twice");
        }
    }

    #[test]
    fn what_no_path_may_hold_is_refused() {
        for path in [
            "", "a", "*", "/a\\b", "/\0", "/%00", "/%0d%0a", "/%7f", "/%", "/%4", "/%zz", "/a?b",
            "/a#b",
        ] {
            assert!(normalise(path).is_err(), "'{path}' was taken");
        }
        assert!(normalise(&format!("/{}", "a".repeat(MAX))).is_err());
    }

    #[test]
    fn every_reading_of_a_server_is_judged() {
        for (path, reading) in [
            ("/v1/..%2f..%2fadmin", "/admin"),
            ("/v1/..%5Cadmin", "/admin"),
            ("/v1/%252e%252e/admin", "/admin"),
            ("/v1/%25252e%25252e/admin", "/admin"),
            ("/v1/..%252fadmin", "/admin"),
            ("/v1/..;/admin", "/admin"),
            ("/v1/..%3Bx/admin", "/admin"),
            ("/v1/..;/..;x=1%2fadmin", "/admin"),
            ("/v1//../admin", "/v1/admin"),
            ("/v1/x//..%2f..%2f..%2fadmin", "/admin"),
            ("/a;.json", "/a"),
            ("/@scope%2Fname", "/@scope/name"),
            ("/a;b", "/a;b"),
            ("/a;/b", "/a/b"),
        ] {
            let path = normalise(path).unwrap();
            assert!(!path.all(|text| text != reading), "{path:?} is never read as {reading}");
        }
        // A second decoding that ends in a control character is nothing a rule could mean.
        assert!(!normalise("/%2500").unwrap().all(|_| true));
        assert!(normalise("/100%25").unwrap().all(|text| text == "/100%25"));
    }

    #[test]
    fn hostile_paths_are_read_in_one_pass() {
        let path = format!("/%{}2e/x", "25".repeat(8_000));
        let seen = std::cell::Cell::new(0);
        assert!(normalise(&path).unwrap().all(|_| {
            seen.set(seen.get() + 1);
            true
        }));
        assert_eq!(seen.get(), 16);
        assert_eq!(uncovered("/%2525%25/%2%255/25%"), "/%%/%2%5/25%");
    }

    #[test]
    fn normal_form_is_a_fixed_point_without_dot_segments() {
        let mut random = Random(3);
        let parts =
            ["/", ".", "..", "%2e", "%2F", "%25", "a", ";", "%3b", "%41", "ü", "{", "//", "%5c"];
        for _ in 0..100_000 {
            let mut path = String::from("/");
            for _ in 0..random.below(8) {
                path.push_str(parts[random.below(parts.len())]);
            }
            let first = normal(&path);
            assert_eq!(normal(&first), first, "{path}");
            assert!(first.is_ascii() && first.starts_with('/'), "{path}");
            assert!(!first.split('/').any(|segment| segment == "." || segment == ".."), "{path}");
        }
    }
}
