//! The frames of a WebSocket (RFC 6455, 5.2), followed without being changed.

/// The most bytes of a frame's head.
const HEAD: usize = 14;

/// The longest payload of a frame of control.
const CONTROL: u64 = 125;

/// Where in a stream of frames it is.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head so far.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    /// Which byte of the mask is next.
    turn: usize,
    /// What message has begun and not ended.
    open: Option<Kind>,
    /// What the frame is of.
    kind: Kind,
}

/// What a frame is of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    #[default]
    Control,
}

/// What some bytes are, the first of those that were looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many they are.
    pub(super) length: usize,
    /// Whether they are payload, and not of a head.
    pub(super) payload: bool,
    /// What they are of; of a head that is not whole, anything.
    pub(super) kind: Kind,
    /// Whether a message, or a frame of control, ends with them.
    pub(super) ends: bool,
}

impl Frames {
    /// Looks at the next bytes, of which there are some. The error is a phrase for a person.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Piece, &'static str> {
        if self.left == 0 {
            return self.begin(bytes);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= length as u64;
        Ok(self.piece(length, true))
    }

    /// Takes the mask off a payload; those are the bytes that [`Frames::next`] told of last.
    pub(super) fn unmask(&mut self, payload: &mut [u8]) {
        if self.head[1] & 0x80 == 0 {
            return;
        }
        let at = 2 + length_of(self.head[1]);
        let mask: [u8; 4] = std::array::from_fn(|n| self.head[at + (self.turn + n) % 4]);
        for four in payload.chunks_mut(4) {
            four.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.turn = (self.turn + payload.len()) % 4;
    }

    /// Whether the last frame is whole and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether no message is under way either.
    pub(super) fn is_over(&self) -> bool {
        self.is_between() && self.open.is_none()
    }

    /// Gathers a head.
    fn begin(&mut self, bytes: &[u8]) -> Result<Piece, &'static str> {
        let mut taken = 0;
        for byte in bytes {
            self.head[self.have] = *byte;
            (self.have, taken) = (self.have + 1, taken + 1);
            let masked = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
            if self.have >= 2 && self.have == 2 + length_of(self.head[1]) + masked {
                self.whole()?;
                return Ok(self.piece(taken, false));
            }
        }
        Ok(Piece { length: taken, payload: false, kind: Kind::Control, ends: false })
    }

    fn whole(&mut self) -> Result<(), &'static str> {
        self.left = match length_of(self.head[1]) {
            0 => u64::from(self.head[1] & 0x7f),
            wide => self.head[2..2 + wide].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        (self.have, self.turn) = (0, 0);
        let (first, last) = (self.head[0], self.is_last());
        if first & 0x70 != 0 {
            return Err("a frame of an extension that was not agreed upon");
        }
        let kind = match (first & 0x0f, self.open) {
            (0, Some(kind)) => kind,
            (1, None) => Kind::Text,
            (2, None) => Kind::Binary,
            (0..=2, _) => return Err("a part of a message where none may be"),
            (8..=10, _) if last && self.left <= CONTROL => Kind::Control,
            (8..=10, _) => return Err("a frame of control that is too long or in parts"),
            _ => return Err("a frame of no known kind"),
        };
        if kind != Kind::Control {
            self.open = (!last).then_some(kind);
        }
        self.kind = kind;
        if self.left >> 63 != 0 {
            return Err("a frame without end");
        }
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.head[0] & 0x80 != 0
    }

    fn piece(&self, length: usize, payload: bool) -> Piece {
        let ends = self.left == 0 && self.is_last();
        Piece { length, payload, kind: self.kind, ends }
    }
}

/// How many bytes of a head say how long the payload is, after the first two.
fn length_of(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads of messages and of control, each with its end.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for bytes in pieces {
            let mut rest = *bytes;
            while !rest.is_empty() {
                let piece = frames.next(rest)?;
                let (now, after) = rest.split_at(piece.length);
                if piece.payload {
                    let mut payload = now.to_vec();
                    frames.unmask(&mut payload);
                    out.extend(payload);
                }
                if piece.ends {
                    out.push(if piece.kind == Kind::Control { b'!' } else { b'.' });
                }
                rest = after;
            }
        }
        Ok((out, frames.is_between()))
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        // "he", a ping within, "llo", masked and not; an empty message; one of 300 bytes.
        let mut bytes = vec![0x01, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, 0x89, 1, b'p', 0x80, 3];
        bytes.extend(b"llo\x82\x00\x82\x7e\x01\x2c");
        bytes.extend([b'x'; 300]);
        let whole = read(&[&bytes]).unwrap();
        assert_eq!(whole, ([&b"hep!llo..."[..9], &[b'x'; 300], b"."].concat(), true));
        for cut in 0..bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]).unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &[0xc1, 0][..],
            &[0x83, 0],
            &[0x80, 0],
            &[0x01, 0, 0x81, 0],
            &[0x09, 0],
            &[0x89, 126, 0, 126],
            &[0x8b, 0],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(read(&[bytes]).is_err(), "{bytes:x?}");
        }
        assert!(!read(&[&[0x81, 5, b'a']]).unwrap().1);
    }
}
