//! A body in chunks, followed without being changed: sizes in hex, nothing behind them, whole line
//! ends.

/// The most digits of a size, and the most bytes of trailers.
const DIGITS: u8 = 15;
const TRAILERS: u32 = 16 << 10;

/// Where in a body it is.
#[derive(Default)]
pub(super) struct Chunks {
    at: At,
    /// Of the chunk whose size is under way, or whose data is.
    size: u64,
    digits: u8,
    /// Of the trailers, and of the line under way.
    trailers: u32,
    line: u32,
}

#[derive(Default, Clone, Copy)]
enum At {
    #[default]
    Size,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
}

/// What some bytes have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    More,
    /// The body has ended with them.
    End,
    /// Why the rest is not let through.
    Fault(&'static str),
}

impl Chunks {
    /// Follows the body through `bytes`; how many of them belong to it.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (usize, Scanned) {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.at, At::Data) {
                let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= length as u64;
                at += length;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.step(bytes[at]) {
                Ok(false) => at += 1,
                Ok(true) => return (at + 1, Scanned::End),
                Err(why) => return (at, Scanned::Fault(why)),
            }
        }
        (at, Scanned::More)
    }

    /// One byte outside of data; whether it is the last one.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                At::Size
            }
            (At::Size, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size, b';' | b' ' | b'\t') => {
                return Err("a chunk has more than its size before it");
            }
            (At::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.size == 0 { At::Trailer } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::Trailer, b'\n') => return Err("a trailer ends with a line feed alone"),
            (At::Trailer, _) => {
                (self.line, self.trailers) = (self.line + 1, self.trailers + 1);
                if self.trailers > TRAILERS {
                    return Err("the trailers are longer than 16 KiB");
                }
                At::Trailer
            }
            (At::TrailerLf, b'\n') => {
                if std::mem::take(&mut self.line) == 0 {
                    return Ok(true);
                }
                At::Trailer
            }
            (At::TrailerLf, _) => return Err("a trailer holds a carriage return"),
            _ => return Err("a chunk is malformed"),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_ends_where_it_says_however_it_is_cut() {
        for body in
            ["0\r\n\r\n", "4\r\nbody\r\n00\r\n\r\n", "A\r\n0123456789\r\n0\r\nx: y\r\nz: \r\n\r\n"]
        {
            let text = format!("{body}GET / HTTP/1.1");
            assert_eq!(Chunks::default().scan(text.as_bytes()), (body.len(), Scanned::End));
            for cut in 0..body.len() {
                let mut chunks = Chunks::default();
                assert_eq!(chunks.scan(&text.as_bytes()[..cut]), (cut, Scanned::More));
                let rest = chunks.scan(&text.as_bytes()[cut..]);
                assert_eq!(rest, (body.len() - cut, Scanned::End), "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        for body in [
            "0;x\r\n\r\n",
            "0 \r\n\r\n",
            " 0\r\n\r\n",
            "\r\n",
            "0x1\r\n",
            "-1\r\n",
            "1\n",
            "1\r\nab",
            "1\r\na\n",
            "1000000000000000\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\nx: y\rz\r\n",
            "0\r\n\n",
        ] {
            let (_, scanned) = Chunks::default().scan(body.as_bytes());
            assert!(matches!(scanned, Scanned::Fault(_)), "{body:?}: {scanned:?}");
        }
    }
}
