//! The bottle's DNS.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use crate::support::{Bottle, DNS, PATIENCE};

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out
}

fn ask(bottle: &Bottle, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(packet, (bottle.address, DNS)).unwrap();
    let mut reply = vec![0; 600];
    let length = socket.recv(&mut reply).unwrap();
    reply.truncate(length);
    reply
}

/// The code of a reply, and its address.
fn read(reply: &[u8]) -> (u8, Option<[u8; 4]>) {
    assert_eq!(&reply[..2], [0x12, 0x34]);
    let address = (reply[7] == 1).then(|| reply[reply.len() - 4..].try_into().unwrap());
    (reply[3] & 15, address)
}

#[test]
fn names_of_the_bottle_are_answered_and_all_else_is_refused_and_recorded() {
    let bottle = Bottle::start();
    assert_eq!(read(&ask(&bottle, &query("agent", A))), (0, Some([127, 0, 0, 1])));
    assert_eq!(read(&ask(&bottle, &query("EGRESS", A))), (0, Some([10, 201, 0, 2])));
    assert_eq!(read(&ask(&bottle, &query("agent", AAAA))), (0, None));
    assert_eq!(read(&ask(&bottle, &query("c2VjcmV0.evil.example", TXT))), (5, None));
    // Allowed to go to, but not to ask for: the proxy resolves.
    assert_eq!(read(&ask(&bottle, &query("origin.test", A))), (5, None));
    assert_eq!(
        bottle.told(2),
        ["dns TXT c2vjcmv0.evil.example: Deny dns", "dns A origin.test: Deny dns"]
    );
    assert_eq!(bottle.names.asked(), 0);
}

#[test]
fn names_are_answered_over_tcp_too() {
    let bottle = Bottle::start();
    let mut stream = TcpStream::connect((bottle.address, DNS)).unwrap();
    for name in ["agent", "evil.example"] {
        let packet = query(name, A);
        stream.write_all(&u16::try_from(packet.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&packet).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(read(&reply).0, if name == "agent" { 0 } else { 5 });
    }
}

#[test]
fn broken_packets_change_nothing() {
    let bottle = Bottle::start();
    let good = query("agent", A);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for end in 0..good.len() {
        socket.send_to(&good[..end], (bottle.address, DNS)).unwrap();
    }
    socket.send_to(&[0xff; 4000], (bottle.address, DNS)).unwrap();
    assert_eq!(read(&ask(&bottle, &good)).0, 0);
}

#[test]
fn flood_of_questions_is_counted_and_not_written_out() {
    let bottle = Bottle::start();
    for n in 0..400 {
        assert_eq!(read(&ask(&bottle, &query(&format!("n{n}.evil.example"), A))).0, 5);
    }
    bottle.plain().get("http://evil.test/", "evil.test");
    let lines = crate::support::until("the last line is written", || {
        let text = crate::support::read(&bottle.folder, "run/decisions.jsonl");
        text.contains("evil.test").then_some(text)
    });
    let dropped: u64 = lines
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<bottle::policy::DecisionLine<'_>>(line).unwrap().dropped
        })
        .sum();
    assert_eq!(lines.lines().count() as u64 + dropped, 401);
    assert!(dropped > 0, "all 400 were written");
}
