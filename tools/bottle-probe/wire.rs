//! HTTP/1.1 as both ends of the probe speak it: heads, and bodies by length, chunk or end.

use std::io::{self, BufRead, Read};

/// The largest head that is read.
const MAX_HEAD: u64 = 64 << 10;

/// The first line and the headers of a message.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` where the other side has ended.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut stream = stream.take(MAX_HEAD);
        let first = line(&mut stream)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let text = line(&mut stream)?;
            if text.is_empty() {
                return Ok(Some(Self { first, headers }));
            }
            let (name, value) = text.split_once(':').ok_or_else(|| bad("a header has no colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// How the body ends.
    pub(crate) fn body(&self, otherwise: Body) -> io::Result<Body> {
        if self.header("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
            return Ok(Body::Chunked);
        }
        match self.header("content-length") {
            Some(length) => {
                length.parse().map(Body::Length).map_err(|_| bad("the length is no number"))
            }
            None => Ok(otherwise),
        }
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
    Close,
}

impl Body {
    /// Hands the body to `take`, piece by piece.
    pub(crate) fn read(
        self,
        stream: &mut impl BufRead,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Length(length) => exactly(stream, length, take),
            Self::Close => exactly(stream, u64::MAX, take),
            Self::Chunked => loop {
                let size = line(stream)?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk has no size"))?;
                exactly(stream, size, take)?;
                // The end of a chunk is an empty line; after the last one trailers may come.
                while !line(stream)?.is_empty() {}
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }
}

fn exactly(
    stream: &mut impl BufRead,
    length: u64,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let piece = stream.fill_buf()?;
        if piece.is_empty() {
            return if length == u64::MAX { Ok(()) } else { Err(bad("the body is cut short")) };
        }
        let size = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        take(&piece[..size])?;
        stream.consume(size);
        left -= size as u64;
    }
    Ok(())
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut text = Vec::new();
    stream.read_until(b'\n', &mut text)?;
    while matches!(text.last(), Some(b'\r' | b'\n')) {
        text.pop();
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(head: &str, rest: &str) -> io::Result<String> {
        let text = format!("{head}\r\n\r\n{rest}");
        let mut stream = text.as_bytes();
        let head = Head::read(&mut stream)?.unwrap();
        let mut out = Vec::new();
        head.body(Body::Close)?.read(&mut stream, &mut |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn body_ends_by_length_chunk_or_close() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3", "abcd").unwrap(), "abc");
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked";
        assert_eq!(body(chunked, "2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: t\r\n\r\n").unwrap(), "abc");
        assert_eq!(body("HTTP/1.1 200 OK", "abc").unwrap(), "abc");
    }

    #[test]
    fn body_that_is_cut_short_is_an_error() {
        assert!(body("HTTP/1.1 200 OK\r\nContent-Length: 4", "abc").is_err());
        assert!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "5\r\nab").is_err());
    }

    #[test]
    fn end_of_the_connection_is_no_head() {
        assert!(Head::read(&mut &b""[..]).unwrap().is_none());
    }
}
