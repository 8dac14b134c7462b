//! The first message of a TLS client, read strictly: which server it asks for, and whether it hides
//! that. What is not exactly one whole `ClientHello` is refused, so that no server reads another name
//! in the same bytes.

/// The longest message, and with it the longest record.
pub(crate) const MAX: usize = 16 << 10;

/// The first byte of a record of the handshake, and the first of a `ClientHello`.
pub(crate) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Extensions: the server's name, and what hides it (encrypted client hello, the draft's number that
/// clients use).
const SERVER_NAME: u16 = 0;
const ENCRYPTED: u16 = 0xfe0d;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// As it came; `None` where it names none.
    pub(crate) server_name: Option<String>,
    /// Whether there is an encrypted one, or what looks like that: many clients send random bytes
    /// in its place (GREASE), which nobody but the server can tell apart.
    pub(crate) encrypted: bool,
}

/// Reads a `ClientHello`; `None`: it goes on. The error is a phrase for a person.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Option<Hello>, &'static str> {
    let mut message = Vec::new();
    // A message may be cut into several records.
    while !bytes.is_empty() {
        let [kind, 3, _, high, low, rest @ ..] = bytes else {
            return match bytes {
                [HANDSHAKE] | [HANDSHAKE, 3, ..] => Ok(None),
                _ => Err("these are no records of TLS"),
            };
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE || length == 0 || length > MAX {
            return Err("the first records are not a handshake's");
        }
        let Some((record, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        message.extend_from_slice(record);
        bytes = rest;
        if let Some(whole) = whole(&message)? {
            return hello(whole).map(Some).ok_or("the ClientHello is malformed");
        }
    }
    Ok(None)
}

/// The body of the message, once it is whole.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let [kind, length @ ..] = message else { return Ok(None) };
    if *kind != CLIENT_HELLO {
        return Err("the handshake does not begin with a ClientHello");
    }
    let [high, middle, low, body @ ..] = length else { return Ok(None) };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if length > MAX {
        return Err("the ClientHello is too long");
    }
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Equal => Ok(Some(body)),
        std::cmp::Ordering::Greater => Err("something follows the ClientHello in its record"),
    }
}

/// RFC 8446, 4.1.2: version, random, session, cipher suites, compression, extensions.
fn hello(body: &[u8]) -> Option<Hello> {
    let mut rest = Reader(body.get(34..)?);
    rest.short()?;
    rest.long()?;
    rest.short()?;
    let mut hello = Hello { server_name: None, encrypted: false };
    if rest.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(rest.long()?);
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.long()?;
        if seen.contains(&kind) {
            return None;
        }
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ENCRYPTED => hello.encrypted = true,
            _ => {}
        }
    }
    rest.0.is_empty().then_some(hello)
}

/// RFC 6066, 3: a list, of which only one entry, the name of a host, has ever been defined.
fn server_name(data: &[u8]) -> Option<String> {
    let mut data = Reader(data);
    let mut list = Reader(data.long()?);
    let [0, rest @ ..] = list.0 else { return None };
    list.0 = rest;
    let name = list.long()?;
    let whole = data.0.is_empty() && list.0.is_empty() && name.is_ascii();
    whole.then(|| String::from_utf8_lossy(name).into_owned())
}

/// Takes vectors with their lengths before them.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// With one byte of length.
    fn short(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take((*length).into())
    }

    /// With two.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls sends for a name.
    fn real(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut bytes = Vec::new();
        ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1][..], &length, part].concat()
        };
        hello[5..].chunks(size).flat_map(record).collect()
    }

    /// With one more extension.
    fn with_extension(hello: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let mut body = hello[9..].to_vec();
        let at = 34 + 1 + usize::from(body[34]);
        let at = at + 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        let at = at + 1 + usize::from(body[at]);
        let length = u16::from_be_bytes([body[at], body[at + 1]]);
        let more = u16::try_from(data.len()).unwrap();
        body[at..at + 2].copy_from_slice(&(length + 4 + more).to_be_bytes());
        body.extend(kind.to_be_bytes());
        body.extend(more.to_be_bytes());
        body.extend(data);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE, 3, 1][..], &length, &message].concat()
    }

    #[test]
    fn name_is_read_however_the_message_is_cut() {
        let bytes = real("api.example.com");
        let expected = Hello { server_name: Some("api.example.com".into()), encrypted: false };
        for size in [1, 7, 100, 16_000] {
            assert_eq!(read(&in_records(&bytes, size)), Ok(Some(expected.clone())));
        }
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(read(&real("10.0.0.1")).unwrap().unwrap().server_name, None);
    }

    #[test]
    fn hidden_name_is_seen() {
        let bytes = with_extension(&real("cover.example"), ENCRYPTED, b"\0\0\x01\0\x01x");
        assert!(read(&bytes).unwrap().unwrap().encrypted);
        assert!(
            !read(&with_extension(&real("a.example"), 0x1234, b"x")).unwrap().unwrap().encrypted
        );
    }

    #[test]
    fn what_two_programs_could_read_differently_is_refused() {
        let bytes = real("a.example");
        let name = b"\0\x0c\0\0\x09b.example";
        for odd in [
            // A second name.
            with_extension(&bytes, SERVER_NAME, name),
            with_extension(
                &real("10.0.0.1"),
                SERVER_NAME,
                b"\0\x18\0\0\x09a.example\0\0\x09b.example",
            ),
            // A name of another kind, one with bytes behind it, an empty list.
            with_extension(&real("10.0.0.1"), SERVER_NAME, b"\0\x0c\x01\0\x09b.example"),
            with_extension(&real("10.0.0.1"), SERVER_NAME, b"\0\x0c\0\0\x09b.exampleX"),
            with_extension(&real("10.0.0.1"), SERVER_NAME, b"\0\0"),
            // Another message in the same record, another record before the end.
            [&[HANDSHAKE, 3, 1, 0, 4][..], b"\x02\0\0\0"].concat(),
            [&in_records(&bytes, 20)[..25], &[21, 3, 1, 0, 2, 1, 0]].concat(),
            b"GET / HTTP/1.1\r\n".to_vec(),
            vec![0x80, 0x2e, 1, 3, 1],
        ] {
            assert!(read(&odd).is_err(), "{odd:x?}");
        }
        let control = with_extension(&real("10.0.0.1"), SERVER_NAME, name);
        assert_eq!(read(&control).unwrap().unwrap().server_name.as_deref(), Some("b.example"));
    }

    #[test]
    fn bytes_of_any_kind_are_read_without_a_panic() {
        let bytes = real("api.example.com");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = bytes.clone();
                odd[at] = value;
                let _ = read(&odd);
            }
        }
    }
}
