//! The head of a request of HTTP/1, line by line, as RFC 9112 writes it and not as it is tolerated.

/// How far a head has been looked at.
#[derive(Default)]
pub(super) struct Head {
    /// Where the line under way begins, and up to where it has been searched for its end.
    line: usize,
    searched: usize,
    /// Whether it is of HTTP/1.0, once the first line has said so.
    old: Option<bool>,
    other: bool,
    length: Option<u64>,
    chunked: bool,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    /// Maybe another protocol.
    Other,
}

impl Head {
    /// Looks at the bytes since the last time; where the head ends and what follows, once it is whole.
    /// The error is a phrase for a person.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<Option<(usize, Body)>, &'static str> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + at;
            let line = bytes[self.line..end]
                .strip_suffix(b"\r")
                .ok_or("a line of the head ends with a line feed alone")?;
            (self.line, self.searched) = (end + 1, end + 1);
            match (line.is_empty(), self.old.is_some()) {
                // Some old clients send one behind a body.
                (true, false) => {}
                (true, true) => return Ok(Some((end + 1, self.body()?))),
                (false, false) => self.first(line)?,
                (false, true) => self.field(line)?,
            }
        }
        self.searched = bytes.len();
        Ok(None)
    }

    fn body(&self) -> Result<Body, &'static str> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err("it has 'Content-Length' and 'Transfer-Encoding'"),
            (None, true) if self.old == Some(true) => Err("HTTP/1.0 has no 'Transfer-Encoding'"),
            (None, true) => Ok(Body::Chunked),
            (Some(length @ 1..), false) => Ok(Body::Length(length)),
            (_, false) if self.other => Ok(Body::Other),
            (_, false) => Ok(Body::None),
        }
    }

    /// `GET /path HTTP/1.1`.
    fn first(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) =
            (method, target, version, parts.next())
        else {
            return Err("the first line is not method, target and version with one space between");
        };
        if !is_token(method) {
            return Err("the method is not one");
        }
        if target.is_empty() || target.iter().any(u8::is_ascii_control) {
            return Err("the target is empty or holds control characters");
        }
        self.old = match version {
            b"HTTP/1.1" => Some(false),
            b"HTTP/1.0" => Some(true),
            b"HTTP/2.0" => return Err("HTTP/2 is spoken within TLS only: use https, or HTTP/1.1"),
            _ => return Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
        };
        self.other = method == b"CONNECT";
        Ok(())
    }

    /// `name: value`.
    fn field(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line[0] == b' ' || line[0] == b'\t' {
            return Err("a field goes on in the next line");
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or("a line of the head is no field")?);
        if !is_token(name) {
            return Err("the name of a field is not one");
        }
        let value = value[1..].trim_ascii();
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("a field holds control characters");
        }
        // Most names have another length, and are no more looked at.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.other = true,
            14 if same(name, b"content-length") => {
                exact(name, b"content-length")?;
                // Some programs read digits after a zero as octal.
                let digits = value.iter().all(u8::is_ascii_digit)
                    && (value == b"0" || !value.starts_with(b"0"));
                let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                if self.length.is_some() {
                    return Err("it has two 'Content-Length'");
                }
                self.length = Some(
                    length.filter(|_| digits).ok_or("'Content-Length' is not one plain number")?,
                );
            }
            17 if same(name, b"transfer-encoding") => {
                exact(name, b"transfer-encoding")?;
                if self.chunked {
                    return Err("it has two 'Transfer-Encoding'");
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("'Transfer-Encoding' is other than 'chunked'");
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a name is `known` to programs that take `_` for `-`, as CGI and what came of it do.
fn same(name: &[u8], known: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.iter().map(plain).eq(known.iter().copied())
}

fn exact(name: &[u8], known: &[u8]) -> Result<(), &'static str> {
    let plain = name.eq_ignore_ascii_case(known);
    plain.then_some(()).ok_or("the name of a field of framing is written with '_'")
}

fn is_token(text: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(fields: &str) -> Result<Body, &'static str> {
        let text = format!("POST /x HTTP/1.1\r\n{fields}\r\n");
        Head::default().look(text.as_bytes()).map(|whole| {
            let (end, body) = whole.expect("it is whole");
            assert_eq!(end, text.len());
            body
        })
    }

    #[test]
    fn plain_heads_are_let_through_however_they_are_cut() {
        assert_eq!(look("host: a\r\n"), Ok(Body::None));
        assert_eq!(look("Content-Length: 12\r\nx:\r\ny: \t a\tb \r\n"), Ok(Body::Length(12)));
        assert_eq!(look("content-length: 0\r\n"), Ok(Body::None));
        assert_eq!(look("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
        assert_eq!(look("upgrade: websocket\r\n"), Ok(Body::Other));
        assert_eq!(look("x: caf\u{e9}\r\n"), Ok(Body::None));
        let text = b"\r\nGET / HTTP/1.0\r\nhost: a\r\n\r\nrest";
        let mut head = Head::default();
        for length in 0..text.len() - 4 {
            assert_eq!(head.look(&text[..length]), Ok(None), "{length}");
        }
        assert_eq!(head.look(text), Ok(Some((text.len() - 4, Body::None))));
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        for fields in [
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: 1\r\ncontent-length: 2\r\n",
            "content-length: 1, 1\r\n",
            "content-length: +1\r\n",
            "content-length: 0x1\r\n",
            "content-length: 010\r\n",
            "content-length: 1 1\r\n",
            "content-length:\r\n",
            "content-length: 18446744073709551616\r\n",
            "content_length: 1\r\n",
            "transfer_encoding: chunked\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity, chunked\r\n",
            "transfer-encoding: xchunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: \"chunked\"\r\n",
            "transfer-encoding:\x0bchunked\r\n",
            "transfer-encoding : chunked\r\n",
            "x: a\r\n transfer-encoding: chunked\r\n",
            "x: a\r\n\tb\r\n",
            " x: a\r\n",
            "x: a\rb\r\n",
            "x: a\0b\r\n",
            "x: a\nb: c\r\n",
            "x\r\n",
            ": a\r\n",
            "x y: a\r\n",
            "(x): a\r\n",
        ] {
            assert!(look(fields).is_err(), "{fields:?}");
        }
        for text in [
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /\tHTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(Head::default().look(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
