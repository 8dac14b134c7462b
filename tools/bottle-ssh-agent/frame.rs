//! What a client of an ssh-agent may ask: for the list of keys, for a signature, and to bind its
//! connection to a host (`session-bind@openssh.com`), without which a key that is for some hosts only
//! signs nothing. All else is refused: adding, deleting and locking keys, other extensions, and
//! whatever is not whole. The protocol is draft-miller-ssh-agent, and OpenSSH's `PROTOCOL.agent`.

/// The longest request: a signature is asked for over a few hundred bytes and two public keys.
pub const REQUEST: usize = 32 << 10;

/// The longest answer, which is OpenSSH's own limit.
pub const ANSWER: usize = 256 << 10;

/// `SSH_AGENT_FAILURE`, a whole frame.
pub const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

const IDENTITIES: u8 = 11;
const SIGN: u8 = 13;
const EXTENSION: u8 = 27;

/// The one extension.
const BIND: &[u8] = b"session-bind@openssh.com";

/// The flags of a signature: none, and which hash RSA signs.
const FLAGS: [u32; 3] = [0, 2, 4];

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The ssh-agent is asked.
    Pass,
    /// It is answered by a failure.
    Refuse,
}

/// How long the payload is that a head of four bytes announces; `None`: it is no request, and nobody
/// knows where the next one begins.
#[must_use]
pub fn length(head: [u8; 4], longest: usize) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).ok()?;
    (1..=longest).contains(&length).then_some(length)
}

/// Judges the payload of a request.
#[must_use]
pub fn judge(payload: &[u8]) -> Verdict {
    let passes = match payload.split_first() {
        Some((&IDENTITIES, rest)) => rest.is_empty(),
        Some((&SIGN, rest)) => is_sign(rest).is_some(),
        Some((&EXTENSION, rest)) => is_bind(rest).is_some(),
        _ => false,
    };
    if passes { Verdict::Pass } else { Verdict::Refuse }
}

/// Key, data and flags, and no more.
fn is_sign(rest: &[u8]) -> Option<()> {
    let (key, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let flags = u32::from_be_bytes(rest.try_into().ok()?);
    (!key.is_empty() && FLAGS.contains(&flags)).then_some(())
}

/// The name, the host's key, the session, the host's signature over it, and whether the connection
/// is forwarded. A bind of a forwarded connection has to reach the ssh-agent too: only so does it
/// know that who asks is not who was let in.
fn is_bind(rest: &[u8]) -> Option<()> {
    let (name, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    (name == BIND && matches!(rest, [0 | 1])).then_some(())
}

/// A string, which says its length first.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*head)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn sign(flags: u32) -> Vec<u8> {
        [vec![SIGN], text(b"key"), text(b"data"), flags.to_be_bytes().to_vec()].concat()
    }

    fn extension(name: &[u8]) -> Vec<u8> {
        [vec![EXTENSION], text(name), text(b"host"), text(b"id"), text(b"sig"), vec![0]].concat()
    }

    #[test]
    fn keys_are_listed_and_used_and_bound_to_a_host() {
        for payload in [vec![IDENTITIES], sign(0), sign(2), sign(4), extension(BIND)] {
            assert_eq!(judge(&payload), Verdict::Pass, "{payload:?}");
        }
    }

    #[test]
    fn every_other_kind_of_request_is_refused() {
        for kind in 0..=255 {
            for body in [&sign(0)[1..], &extension(BIND)[1..], &[], &[0]] {
                let payload = [&[kind], body].concat();
                let known = payload == [IDENTITIES]
                    || (kind == SIGN && payload == sign(0))
                    || (kind == EXTENSION && payload == extension(BIND));
                let expected = if known { Verdict::Pass } else { Verdict::Refuse };
                assert_eq!(judge(&payload), expected, "{payload:?}");
            }
        }
    }

    #[test]
    fn other_extensions_and_flags_are_refused() {
        for payload in [
            extension(b"query"),
            extension(b"session-bind@openssh.com\0"),
            extension(b"restrict-destination-v00@openssh.com"),
            sign(1),
            sign(8),
            sign(u32::MAX),
        ] {
            assert_eq!(judge(&payload), Verdict::Refuse, "{payload:?}");
        }
    }

    #[test]
    fn what_is_cut_or_goes_on_is_refused() {
        for whole in [sign(0), extension(BIND)] {
            for end in 0..whole.len() {
                assert_eq!(judge(&whole[..end]), Verdict::Refuse, "{end} of {whole:?}");
            }
            assert_eq!(judge(&[&whole[..], &[0]].concat()), Verdict::Refuse);
        }
        let long = [vec![SIGN], vec![0xff; 4], vec![0; 64]].concat();
        assert_eq!(judge(&long), Verdict::Refuse);
    }

    #[test]
    fn length_is_bounded() {
        assert_eq!(length([0, 0, 0, 1], REQUEST), Some(1));
        assert_eq!(length([0, 0, 0x80, 0], REQUEST), Some(REQUEST));
        for head in [[0, 0, 0, 0], [0, 0, 0x80, 1], [0xff; 4]] {
            assert_eq!(length(head, REQUEST), None, "{head:?}");
        }
    }
}
