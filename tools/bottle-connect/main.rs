//! `bottle-connect`: a tunnel through the proxy of a bottle, as a command that speaks on stdin and
//! stdout. It runs in the agent, as whoever calls it.

mod answer;
mod args;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::{Blame, caller};

use answer::Answer;
use args::Args;

/// How long the proxy may take to accept a connection. It is next door.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may take to answer: it resolves and dials first.
const OPEN: Duration = Duration::from_mins(1);

/// How much goes at once.
const AT_ONCE: usize = 128 << 10;

fn main() -> ExitCode {
    bottle::run("bottle-connect", |args: Args| connect(&args))
}

fn connect(args: &Args) -> Result<()> {
    let target = target(&args.host, args.port)?;
    let stream = open(args, &target)?;
    let answer = Answer::read(&mut &stream).world(format!("connect to '{target}'"))?;
    let early = answer.tunnel(&target)?;
    stream.set_read_timeout(None).world("wait for the server")?;
    carry(stream, &early).world(format!("carry bytes from and to '{target}'"))
}

/// Host and port as a CONNECT names them.
fn target(host: &str, port: u16) -> Result<String> {
    if host.is_empty() || host.len() > 255 || !host.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(caller(format!("connect to '{host}': it is no host")));
    }
    Ok(match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    })
}

/// Asks the proxy for the tunnel.
fn open(args: &Args, target: &str) -> Result<TcpStream> {
    let what = || format!("reach the proxy of the bottle at {}", args.proxy);
    let mut stream = TcpStream::connect_timeout(&args.proxy, CONNECT).world(what())?;
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(OPEN)))
        .and_then(|()| stream.write_all(ask.as_bytes()))
        .world(what())?;
    Ok(stream)
}

/// Carries bytes both ways, each until its own end.
fn carry(stream: TcpStream, early: &[u8]) -> std::io::Result<()> {
    let mut stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut up = stream.try_clone()?;
    let upward = std::thread::Builder::new().spawn(move || {
        let ended = copy(&mut stdin, &mut up);
        // A server that has gone needs no end.
        let _ = up.shutdown(Shutdown::Write);
        ended
    })?;
    stdout.write_all(early)?;
    let mut down = stream;
    let ended = copy(&mut down, &mut stdout);
    // Whoever reads sees the end now, though it may go on sending.
    drop(stdout);
    rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
    ended?;
    // One that has ended too early has said so, in what it sent.
    upward.join().unwrap_or(Ok(()))
}

/// Until the end of `from`; a reader that went away is one too.
fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, Interrupted};
    let mut buffer = vec![0; AT_ONCE];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == Interrupted => continue,
            Err(error) if error.kind() == ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        match to.write_all(&buffer[..length]) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => return Ok(()),
            other => other?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_ipv6_gets_its_brackets() {
        assert_eq!(target("a.example", 22).unwrap(), "a.example:22");
        assert_eq!(target("2001:db8::1", 22).unwrap(), "[2001:db8::1]:22");
        for odd in ["", "a b", "a\r\nX: y", "a\u{e9}"] {
            assert!(target(odd, 22).is_err(), "{odd:?}");
        }
    }
}
