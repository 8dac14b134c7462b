//! Any number of TCP connections, tried at once and by one thread: a host may have hundreds of
//! addresses, and the container of the probe few threads.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bottle::verdict::Got;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::attempt::{Outcome, silent, words};

/// One connection: under way, or judged.
enum Try {
    UnderWay(OwnedFd),
    Done(Outcome),
}

/// Tries to connect to each address, and gives what came of each.
pub(crate) fn connect_all(addresses: &[SocketAddr], limit: Duration) -> Vec<Outcome> {
    raise_descriptor_limit();
    let end = Instant::now() + limit;
    let mut tries: Vec<Try> = addresses.iter().map(begin).collect();
    loop {
        let mut waiting: Vec<(usize, PollFd)> = Vec::new();
        for (at, one) in tries.iter().enumerate() {
            if let Try::UnderWay(socket) = one {
                waiting.push((at, PollFd::new(socket, PollFlags::OUT)));
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if waiting.is_empty() || left.is_zero() {
            break;
        }
        let (at, mut polled): (Vec<usize>, Vec<PollFd>) = waiting.into_iter().unzip();
        let left = Timespec::try_from(left).ok();
        if let Err(code) = poll(&mut polled, left.as_ref())
            && code != Errno::INTR
        {
            break;
        }
        let ready: Vec<usize> = at
            .into_iter()
            .zip(&polled)
            .filter(|(_, polled)| !polled.revents().is_empty())
            .map(|(at, _)| at)
            .collect();
        for at in ready {
            if let Try::UnderWay(socket) = &tries[at] {
                let error = sockopt::socket_error(socket).unwrap_or_else(Err);
                tries[at] = Try::Done(judged(error));
            }
        }
    }
    tries
        .into_iter()
        .map(|one| match one {
            Try::UnderWay(_) => silent(limit),
            Try::Done(outcome) => outcome,
        })
        .collect()
}

fn begin(address: &SocketAddr) -> Try {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = match socket_with(family, SocketType::STREAM, flags, None) {
        Ok(socket) => socket,
        Err(code) => return Try::Done(judged(Err(code))),
    };
    match connect(&socket, address) {
        Err(Errno::INPROGRESS) => Try::UnderWay(socket),
        other => Try::Done(judged(other)),
    }
}

/// A refusal is an answer: only who was reached can refuse.
fn judged(outcome: Result<(), Errno>) -> Outcome {
    match outcome {
        Ok(()) => (Got::Passed, "connected".to_owned()),
        Err(Errno::CONNREFUSED | Errno::CONNRESET) => (Got::Passed, "refused by it".to_owned()),
        // EINVAL and ENODEV: a link-local address where there is no such link.
        Err(
            code @ (Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::ADDRNOTAVAIL
            | Errno::AFNOSUPPORT
            | Errno::NODEV
            | Errno::INVAL
            | Errno::ACCESS
            | Errno::PERM),
        ) => (Got::Unreachable, words(code)),
        Err(Errno::TIMEDOUT) => (Got::Silent, "no answer".to_owned()),
        Err(code) => (Got::Failed, io::Error::from(code).to_string()),
    }
}

/// What came of all that was tried of one host, in which the worst counts.
pub(crate) fn worst(outcomes: &[(u16, Outcome)]) -> Outcome {
    let of = |wanted: Got| outcomes.iter().filter(move |(_, (got, _))| *got == wanted);
    let passed: Vec<_> = of(Got::Passed).collect();
    match passed.as_slice() {
        [] => {}
        [(_, outcome)] if outcomes.len() == 1 => return outcome.clone(),
        all if all.len() > 2 && all.iter().all(|(_, (_, how))| *how == all[0].1.1) => {
            return (Got::Passed, format!("{} on {} ports", all[0].1.1, all.len()));
        }
        all => {
            let told: Vec<String> =
                all.iter().map(|(port, (_, how))| format!("{port} {how}")).collect();
            return (Got::Passed, told.join(", "));
        }
    }
    let rest =
        [Got::Failed, Got::Silent, Got::Unreachable].into_iter().find_map(|got| of(got).next());
    rest.map_or_else(|| (Got::Failed, "nothing to try".to_owned()), |(_, outcome)| outcome.clone())
}

/// A socket an attempt may be more than the usual soft limit of open files.
fn raise_descriptor_limit() {
    let now = getrlimit(Resource::Nofile);
    // Where it is refused, the attempts past the limit fail and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now });
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn refusal_counts_as_reached() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        // No machine has a link of that number.
        let nowhere = "[fe80::1%2000000000]:1".parse().unwrap();
        let got =
            connect_all(&[open.local_addr().unwrap(), closed, nowhere], Duration::from_millis(200));
        assert_eq!(got[0], (Got::Passed, "connected".to_owned()));
        assert_eq!(got[1], (Got::Passed, "refused by it".to_owned()));
        assert_eq!(got[2].0, Got::Unreachable);
    }

    #[test]
    fn one_open_port_outweighs_the_closed_ones() {
        let silence = (Got::Silent, "no answer".to_owned());
        let open = (Got::Passed, "connected".to_owned());
        let outcomes = [(22, silence.clone()), (80, open), (81, silence.clone())];
        assert_eq!(worst(&outcomes), (Got::Passed, "80 connected".to_owned()));
        assert_eq!(worst(&outcomes[..1]), silence);
    }
}
