//! The few parts of DNS messages (RFC 1035) that a stub resolver and a server of fixed names need.
//! Everything that is read comes from an agent or from the network: each read is bounded, and no
//! compression pointer is followed.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// The length of a header.
const HEADER: usize = 12;
/// The longest UDP message without EDNS.
pub(crate) const UDP_MAX: usize = 512;

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;
const IN: u16 = 1;

/// Codes of a reply.
pub(crate) const NOERROR: u8 = 0;
pub(crate) const FORMERR: u8 = 1;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const NOTIMP: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

/// A query with its one question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The name: lower case, without trailing dot; bytes that are not printable ASCII as `\DDD`.
    pub(crate) name: String,
    /// The type asked for.
    pub(crate) kind: u16,
    /// Whether it is of class IN.
    pub(crate) internet: bool,
    /// Where the question ends in the packet.
    end: usize,
}

/// Reads a query. `Err(None)`: say nothing to it; `Err(Some(code))`: reply with this code.
pub(crate) fn question(packet: &[u8]) -> Result<Question, Option<u8>> {
    let head = packet.get(..HEADER).ok_or(None)?;
    // A reply, which must never be replied to.
    if head[2] & 0x80 != 0 {
        return Err(None);
    }
    if head[2] & 0x78 != 0 {
        return Err(Some(NOTIMP));
    }
    if word(packet, 4) != Some(1) {
        return Err(Some(FORMERR));
    }
    read_question(packet).ok_or(Some(FORMERR))
}

/// The question after the header.
fn read_question(packet: &[u8]) -> Option<Question> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..64 => {}
            // A pointer, which has nothing to point at here.
            _ => return None,
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in packet.get(at..at + length)? {
            match byte.to_ascii_lowercase() {
                plain @ (b'!'..=b'-' | b'/'..=b'[' | b']'..=b'~') => name.push(char::from(plain)),
                other => {
                    // Writing to a string cannot fail.
                    let _ = write!(name, "\\{other:03}");
                }
            }
        }
        at += length;
        if at > HEADER + 255 {
            return None;
        }
    }
    let (kind, class) = (word(packet, at)?, word(packet, at + 2)?);
    Some(Question { name, kind, internet: class == IN, end: at + 4 })
}

/// The reply to a query: a code, and an address where there is one.
pub(crate) fn reply(
    packet: &[u8],
    question: Option<&Question>,
    code: u8,
    address: Option<Ipv4Addr>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(UDP_MAX);
    // Identity, opcode and "recursion desired" come back; the question too, where it was read.
    out.extend_from_slice(packet.get(..2).unwrap_or(&[0, 0]));
    let flags = packet.get(2).copied().unwrap_or_default();
    out.extend([0x80 | (flags & 0x79), code]);
    out.extend([0, u8::from(question.is_some()), 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(question) = question {
        out.extend_from_slice(packet.get(HEADER..question.end).unwrap_or_default());
    }
    if let Some(address) = address {
        // Name (the question's), type, class, 30 seconds, length.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        out.extend(address.octets());
    }
    out
}

/// A query of our own, with recursion. `None`: the name is none that DNS can hold.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend(id.to_be_bytes());
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend(IN.to_be_bytes());
    Some(out)
}

/// What a name server replied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its code.
    pub(crate) code: u8,
    /// Whether it has to be asked again over TCP.
    pub(crate) truncated: bool,
    /// The addresses; a chain of CNAMEs has been followed by the server.
    pub(crate) addresses: Vec<IpAddr>,
    /// The shortest life of them, in seconds.
    pub(crate) ttl: u32,
}

/// Reads the reply to a query; `None` if it is none, or is broken.
pub(crate) fn answer(query: &[u8], packet: &[u8]) -> Option<Answer> {
    let head = packet.get(..HEADER)?;
    let (asked, echoed) = (read_question(query)?, read_question(packet)?);
    let ours = head[..2] == query[..2] && head[2] & 0x80 != 0 && word(packet, 4) == Some(1);
    if !ours || asked.name != echoed.name || asked.kind != echoed.kind || !echoed.internet {
        return None;
    }
    let mut answer = Answer {
        code: head[3] & 15,
        truncated: head[2] & 2 != 0,
        addresses: Vec::new(),
        ttl: u32::MAX,
    };
    let mut at = echoed.end;
    for _ in 0..word(packet, 6)? {
        at = skip_name(packet, at)?;
        let (kind, class) = (word(packet, at)?, word(packet, at + 2)?);
        let ttl = u32::from(word(packet, at + 4)?) << 16 | u32::from(word(packet, at + 6)?);
        let length = usize::from(word(packet, at + 8)?);
        let data = packet.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        if kind != asked.kind || class != IN {
            continue;
        }
        answer.addresses.push(match kind {
            A => <[u8; 4]>::try_from(data).ok()?.into(),
            AAAA => <[u8; 16]>::try_from(data).ok()?.into(),
            _ => continue,
        });
        answer.ttl = answer.ttl.min(ttl);
    }
    Some(answer)
}

/// Where a name ends that begins at `at`.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_reads_back() {
        let packet = query(7, "Egress.Internal", A).unwrap();
        let question = question(&packet).unwrap();
        assert_eq!((&*question.name, question.kind), ("egress.internal", A));
        let reply = reply(&packet, Some(&question), NOERROR, Some([10, 0, 0, 2].into()));
        assert_eq!(
            answer(&packet, &reply),
            Some(Answer {
                code: NOERROR,
                truncated: false,
                addresses: vec![[10, 0, 0, 2].into()],
                ttl: 30
            })
        );
    }

    #[test]
    fn foreign_replies_are_not_ours() {
        let ours = query(7, "a.example", A).unwrap();
        for other in
            [query(8, "a.example", A), query(7, "b.example", A), query(7, "a.example", AAAA)]
        {
            let other = other.unwrap();
            let question = question(&other).unwrap();
            let reply = reply(&other, Some(&question), NOERROR, Some([6, 6, 6, 6].into()));
            assert_eq!(answer(&ours, &reply), None);
        }
    }

    #[test]
    fn replies_are_not_replied_to_and_odd_queries_are_refused() {
        let mut packet = query(7, "a", A).unwrap();
        packet[2] |= 0x80;
        assert_eq!(question(&packet), Err(None));
        packet[2] = 0x28;
        assert_eq!(question(&packet), Err(Some(NOTIMP)));
        packet[2] = 0;
        packet[5] = 2;
        assert_eq!(question(&packet), Err(Some(FORMERR)));
        assert_eq!(question(&packet[..11]), Err(None));
        let control = query(7, "a\n\u{e9}b", A).unwrap();
        assert_eq!(question(&control).unwrap().name, "a\\010\\195\\169b");
    }

    #[test]
    fn no_bytes_whatever_make_it_panic() {
        let good = query(7, "egress.internal", A).unwrap();
        let question_of_good = question(&good).unwrap();
        let good_reply = reply(&good, Some(&question_of_good), NOERROR, Some([1, 2, 3, 4].into()));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        for round in 0..200_000 {
            let mut packet = if round % 2 == 0 { good.clone() } else { good_reply.clone() };
            let [count, cut, changes @ ..] = random();
            for change in changes.chunks(2).take(usize::from(count % 4)) {
                let at = usize::from(change[0]) % packet.len();
                packet[at] = change[1];
            }
            packet.truncate(packet.len() - usize::from(cut % 8));
            if let Ok(question) = question(&packet) {
                let _ = reply(&packet, Some(&question), REFUSED, None);
            }
            let _ = answer(&good, &packet);
        }
    }
}
