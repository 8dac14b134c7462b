//! The way out of ssh: egress's CONNECT, then stdin and stdout.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, no, visible, world};

use crate::args::Connect;

/// How long egress may take to dial.
const DIAL: Duration = Duration::from_secs(30);

/// The longest head of an answer.
const HEAD: usize = 16 << 10;

/// Connects, and copies until both sides have ended.
pub(crate) fn connect(args: &Connect) -> Result<()> {
    let Connect { proxy, host, port } = args;
    let what = format!("go to '{host}:{port}' by egress");
    let mut stream = TcpStream::connect_timeout(proxy, DIAL).world(&what)?;
    stream.set_read_timeout(Some(DIAL)).world(&what)?;
    // ssh writes small packets, and waits for each answer.
    stream.set_nodelay(true).world(&what)?;
    let asked = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(asked.as_bytes()).world(&what)?;
    let head = head(&mut stream).world(&what)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let why = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let ours = name.to_ascii_lowercase().starts_with("x-bottle-");
            ours.then(|| format!("egress refuses it: {}", value.trim()))
        });
        let why = why.unwrap_or_else(|| head.lines().next().unwrap_or_default().to_owned());
        return Err(no(format!("{what}: {}", visible(&why))));
    }
    stream.set_read_timeout(None).world(&what)?;
    let mut there = stream.try_clone().world(&what)?;
    std::thread::spawn(move || {
        let _ = copy(&mut std::io::stdin().lock(), &mut there);
        let _ = there.shutdown(Shutdown::Write);
    });
    copy(&mut stream, &mut std::io::stdout().lock()).world(what)
}

/// Reads the head of an answer and not a byte more: what comes then is the other side's.
fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > HEAD {
            return Err(world("it did not answer as a proxy does"));
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
