//! The socket that the agent sees. Each connection has one of its own to the ssh-agent, because what
//! it was bound to is known by connection there.

use std::io::{Read, Result, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bottle_ssh_agent::frame::{self, ANSWER, FAILURE, REQUEST, Verdict};

/// The most connections at once. One more is closed at once: an agent that holds them all keeps
/// only itself out.
const CONNECTIONS: usize = 64;

/// A thread that holds a request and an answer needs no more.
const STACK: usize = 128 << 10;

/// A place among the connections.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(taken.clone());
        (taken.fetch_add(1, Ordering::Relaxed) < CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves for as long as the program runs.
pub(crate) fn serve(listener: &UnixListener, agent: &Path) {
    let taken = Arc::default();
    loop {
        let Ok((client, _)) = listener.accept() else {
            // Out of descriptors: never a reason to spin.
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        let Some(place) = Place::take(&taken) else { continue };
        let agent: PathBuf = agent.to_owned();
        let thread = std::thread::Builder::new().stack_size(STACK);
        // Out of threads, the connection ends.
        let _ = thread.spawn(move || {
            // A client or an ssh-agent that breaks off is no news.
            let _ = UnixStream::connect(agent).and_then(|agent| talk(client, agent));
            drop(place);
        });
    }
}

/// Passes requests on, one at a time, until one side ends.
pub(crate) fn talk(mut client: UnixStream, mut agent: UnixStream) -> Result<()> {
    loop {
        let mut head = [0; 4];
        client.read_exact(&mut head)?;
        let Some(length) = frame::length(head, REQUEST) else {
            return client.write_all(&FAILURE);
        };
        let payload = read(&mut client, length)?;
        if frame::judge(&payload) == Verdict::Refuse {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&[&head[..], &payload].concat())?;
        agent.read_exact(&mut head)?;
        let Some(length) = frame::length(head, ANSWER) else {
            return client.write_all(&FAILURE);
        };
        let answer = read(&mut agent, length)?;
        client.write_all(&[&head[..], &answer].concat())?;
    }
}

fn read(from: &mut UnixStream, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_never_reach_the_agent_and_the_connection_goes_on() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let (theirs, mut agent) = UnixStream::pair().unwrap();
        let talk = std::thread::spawn(move || talk(ours, theirs));
        let mut answer = [0; 5];
        // Remove all identities; lock; an empty extension.
        for payload in [&[19][..], &[22, 0, 0, 0, 0], &[27, 0, 0, 0, 0]] {
            let head = u32::try_from(payload.len()).unwrap().to_be_bytes();
            client.write_all(&[&head, payload].concat()).unwrap();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, FAILURE);
        }
        client.write_all(&[0, 0, 0, 1, 11]).unwrap();
        let mut asked = [0; 5];
        agent.read_exact(&mut asked).unwrap();
        assert_eq!(asked, [0, 0, 0, 1, 11]);
        agent.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 9];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0, 0, 0, 5, 12, 0, 0, 0, 0]);
        // Nobody knows where the next request begins.
        client.write_all(&[0xff; 4]).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, FAILURE);
        talk.join().unwrap().unwrap();
        assert_eq!(agent.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn answer_that_is_too_long_is_a_failure() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let (theirs, mut agent) = UnixStream::pair().unwrap();
        std::thread::spawn(move || talk(ours, theirs));
        client.write_all(&[0, 0, 0, 1, 11]).unwrap();
        agent.read_exact(&mut [0; 5]).unwrap();
        agent.write_all(&[0x7f, 0, 0, 0]).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, FAILURE);
    }
}
