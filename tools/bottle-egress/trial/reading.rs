//! Requests of HTTP/1 as RFC 9112 has them, read slowly and by nothing that egress reads them with:
//! what a careful server would take of these bytes.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) method: String,
    /// The target, up to a fragment.
    pub(super) target: String,
    /// Names in lower case, values without the blanks around them.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// The body without its chunks, as far as it has come.
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
}

impl Reading {
    /// All values of a field.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| &value[..])
    }
}

/// The requests at the beginning of some bytes, up to the first that has no whole head or can be read
/// in two ways; and whether there were bytes that belong to none.
pub(super) fn requests(mut bytes: &[u8]) -> (Vec<Reading>, bool) {
    let mut all = Vec::new();
    while let Some((reading, rest)) = request(bytes) {
        bytes = rest;
        let is_whole = reading.is_whole;
        all.push(reading);
        if !is_whole {
            break;
        }
    }
    (all, !bytes.is_empty())
}

/// A line and what comes after it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r")?;
    (!line.contains(&b'\r') && !line.contains(&0)).then_some((line, &bytes[end + 1..]))
}

fn request(mut bytes: &[u8]) -> Option<(Reading, &[u8])> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let (first, mut rest) = line(bytes)?;
    let first = std::str::from_utf8(first).ok()?;
    let [method, target, version] = first.split(' ').collect::<Vec<_>>().try_into().ok()?;
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&field[..colon]).ok()?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        fields.push((name.to_ascii_lowercase(), field[colon + 1..].trim_ascii().to_vec()));
    }
    let target = target.split('#').next()?.to_owned();
    let mut reading =
        Reading { method: method.to_owned(), target, fields, body: Vec::new(), is_whole: true };
    let lengths: Vec<_> = reading.values("content-length").collect();
    let codings: Vec<_> = reading.values("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => {}
        ([length], []) => {
            if !length.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            let (body, after) = rest.split_at(length.min(rest.len()));
            (reading.is_whole, reading.body, rest) = (body.len() == length, body.into(), after);
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => {
            (reading.is_whole, rest) = chunks(rest, &mut reading.body);
        }
        _ => return None,
    }
    Some((reading, rest))
}

/// Reads chunks and trailers; whether they are whole, and what comes after them.
fn chunks<'a>(bytes: &'a [u8], body: &mut Vec<u8>) -> (bool, &'a [u8]) {
    let mut rest = bytes;
    loop {
        let read = line(rest).and_then(|(size, rest)| {
            let size = std::str::from_utf8(size).ok()?;
            let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some((usize::from_str_radix(size, 16).ok().filter(|_| digits)?, rest))
        });
        let Some((size, after)) = read else { return (false, &[]) };
        if size == 0 {
            rest = after;
            while let Some((trailer, after)) = line(rest) {
                rest = after;
                if trailer.is_empty() {
                    return (true, rest);
                }
            }
            return (false, &[]);
        }
        body.extend_from_slice(&after[..size.min(after.len())]);
        match after.get(size..).and_then(|after| after.strip_prefix(b"\r\n")) {
            Some(after) => rest = after,
            None => return (false, &[]),
        }
    }
}
