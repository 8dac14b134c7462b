//! What the proxy answers to a CONNECT.

use std::io::{Error, ErrorKind, Read, Result};

use bottle::{no, world};

/// The longest head, and how much of a refusal's words is read.
const HEAD: usize = 64 << 10;
const WORDS: usize = 8 << 10;

/// A head, and what has come after it.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    /// Whether the proxy denied it, and did not only fail.
    denied: bool,
    rest: Vec<u8>,
}

impl Answer {
    /// Reads the answer; of a refusal its words too.
    pub(crate) fn read(from: &mut impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if bytes.len() > HEAD {
                return Err(Error::new(ErrorKind::InvalidData, "the proxy's answer has no end"));
            }
            if more(from, &mut bytes)? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the proxy does not answer"));
            }
        };
        let rest = bytes.split_off(end);
        let head = String::from_utf8_lossy(&bytes);
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::InvalidData, "the proxy speaks no HTTP"))?;
        let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
        let field = |name: &str| fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        let denied = field("x-bottle-denied").is_some();
        let length = field("content-length").and_then(|(_, value)| value.trim().parse().ok());
        let mut answer = Self { status, denied, rest };
        if status != 200 {
            let length = length.unwrap_or(0).min(WORDS);
            while answer.rest.len() < length && more(from, &mut answer.rest)? > 0 {}
        }
        Ok(answer)
    }

    /// What the server has said already, or the refusal in one line.
    pub(crate) fn tunnel(self, target: &str) -> anyhow::Result<Vec<u8>> {
        if self.status == 200 {
            return Ok(self.rest);
        }
        let words = String::from_utf8_lossy(&self.rest);
        let words = words.lines().next().unwrap_or_default().trim();
        let words = if words.is_empty() { "it does not say why" } else { words };
        let what = format!("connect to '{target}': the proxy answers {}: {words}", self.status);
        Err(if self.denied { no(what) } else { world(what) })
    }
}

fn more(from: &mut impl Read, bytes: &mut Vec<u8>) -> Result<usize> {
    let mut buffer = [0; 4096];
    let length = loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    bytes.extend_from_slice(&buffer[..length]);
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> std::result::Result<String, String> {
        let answer = Answer::read(&mut text.as_bytes()).map_err(|error| error.to_string())?;
        let early = answer.tunnel("a:22").map_err(|error| format!("{error:#}"))?;
        Ok(String::from_utf8(early).unwrap())
    }

    #[test]
    fn what_the_server_says_first_is_kept() {
        assert_eq!(told("HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n").unwrap(), "SSH-2.0-x\r\n");
        assert_eq!(told("HTTP/1.0 200 Connection Established\r\nx: y\r\n\r\n").unwrap(), "");
    }

    #[test]
    fn refusal_is_told_in_its_first_line() {
        let text = "HTTP/1.1 403 Forbidden\r\nX-Bottle-Denied: host\r\ncontent-length: 9\r\n\r\nno\nrest\ncut";
        assert_eq!(told(text).unwrap_err(), "connect to 'a:22': the proxy answers 403: no");
        assert_eq!(
            told("HTTP/1.1 502 Bad Gateway\r\n\r\n").unwrap_err(),
            "connect to 'a:22': the proxy answers 502: it does not say why"
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, why) in [
            ("", "does not answer"),
            ("HTTP/1.1 200 OK\r\n", "does not answer"),
            ("SSH-2.0-x\r\n\r\n", "speaks no HTTP"),
            ("HTTP/1.1 abc\r\n\r\n", "speaks no HTTP"),
            (&"x".repeat(70_000), "has no end"),
        ] {
            assert!(told(text).unwrap_err().contains(why), "{why}");
        }
    }
}
