//! `decisions.jsonl`: one JSON line a decision.
//!
//! Whoever decides only appends to a buffer; a thread of its own writes. An agent that asks without
//! end fills neither memory nor disk: the buffer is bounded, and lines that do not fit are counted
//! in the next one (`dropped`); the file is rotated, and the oldest of [`FILES`] is given up aloud.
//! [`Journal::close`] writes what is left.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use bottle::error::Blame;
use bottle::policy::{Decision, DecisionLine, Kind, Verdict};
use bottle::record;
use bottle::run::say;
use rustix::fs::OFlags;

/// The size at which a file is full.
const FULL: u64 = 16 << 20;

/// Files that are kept, the current one included.
const FILES: u32 = 4;

/// The largest buffer.
const BUFFER: usize = 4 << 20;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// A line about now, a refusal until something else is set.
pub(crate) fn line<'a>(
    kind: Kind,
    client: IpAddr,
    method: impl Into<Cow<'a, str>>,
    host: impl Into<Cow<'a, str>>,
    generation: u64,
) -> DecisionLine<'a> {
    line_of(record::now(), kind, client, method, host, generation)
}

/// The same about another time, RFC 3339.
pub(crate) fn line_of<'a>(
    time: String,
    kind: Kind,
    client: IpAddr,
    method: impl Into<Cow<'a, str>>,
    host: impl Into<Cow<'a, str>>,
    generation: u64,
) -> DecisionLine<'a> {
    DecisionLine {
        time: time.into(),
        kind,
        client,
        scheme: None,
        method: method.into(),
        host: host.into(),
        port: None,
        path: None,
        decision: Verdict::Deny,
        rule: None,
        reason: None,
        nearest: None,
        address: None,
        status: None,
        generation,
        dropped: None,
    }
}

/// Writes a decision into its line.
pub(crate) fn decided(line: &mut DecisionLine<'_>, decision: Decision) {
    match decision {
        Decision::Allow { rule } => (line.decision, line.rule) = (Verdict::Allow, Some(rule)),
        Decision::Deny { reason, nearest } => {
            (line.reason, line.nearest) = (Some(reason), nearest);
        }
    }
}

/// The journal; shared by all that decide.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    dropped: u64,
    done: bool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere must not silence the journal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Opens `decisions.jsonl` in the run folder and goes on at its end.
    pub(crate) fn open(run: &Path) -> Result<Self> {
        let mut disk =
            Disk::open(run.join("decisions.jsonl"), FULL).world("open 'decisions.jsonl'")?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_on(&theirs, &mut disk))
            .world("start the journal")?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Records one decision.
    pub(crate) fn record(&self, line: &DecisionLine<'_>) {
        let mut state = self.shared.lock();
        if state.buffer.len() >= BUFFER {
            state.dropped += 1;
            return;
        }
        let first = state.buffer.is_empty();
        // Strings and numbers always serialise, and a vector takes them.
        let _ = match std::mem::take(&mut state.dropped) {
            0 => serde_json::to_writer(&mut state.buffer, line),
            lost => {
                let line = DecisionLine { dropped: Some(lost), ..line.clone() };
                serde_json::to_writer(&mut state.buffer, &line)
            }
        };
        state.buffer.push(b'\n');
        drop(state);
        if first {
            self.shared.wake.notify_one();
        }
    }

    /// Counts a line that is not worth its place.
    pub(crate) fn skip(&self) {
        self.shared.lock().dropped += 1;
    }

    /// Writes what is left. What is recorded later is lost.
    pub(crate) fn close(&self) {
        self.shared.lock().done = true;
        self.shared.wake.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

/// The writer's life.
fn write_on(shared: &Shared, disk: &mut Disk) {
    let mut lines = Vec::new();
    let mut complained = false;
    loop {
        let mut state = shared.lock();
        while state.buffer.is_empty() && !state.done {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let done = state.done;
        std::mem::swap(&mut lines, &mut state.buffer);
        drop(state);
        match disk.append(&lines) {
            Ok(()) => complained = false,
            Err(error) => {
                shared.lock().dropped += lines.split(|byte| *byte == b'\n').skip(1).count() as u64;
                if !std::mem::replace(&mut complained, true) {
                    say(
                        "bottle-egress",
                        &format!("write 'decisions.jsonl': {error}: decisions are lost"),
                    );
                }
            }
        }
        lines.clear();
        // The buffers of a burst are not kept for ever.
        lines.shrink_to(64 << 10);
        if done {
            return;
        }
        let state = shared.lock();
        let _ = shared.wake.wait_timeout_while(state, GATHER, |state| !state.done);
    }
}

/// The files.
struct Disk {
    path: PathBuf,
    file: File,
    size: u64,
    full: u64,
}

impl Disk {
    fn open(path: PathBuf, full: u64) -> std::io::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, full })
    }

    fn append(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.size >= self.full {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            // Of a full disk: half a line would spoil the next one.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |n: u32| match n {
            0 => self.path.clone(),
            n => self.path.with_added_extension(n.to_string()),
        };
        if numbered(FILES - 1).exists() {
            say("bottle-egress", "rotate 'decisions.jsonl': the oldest decisions are given up");
        }
        for n in (0..FILES - 1).rev() {
            #[expect(clippy::disallowed_methods, reason = "the run folder is this program's own")]
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self::open(self.path.clone(), self.full)?;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a folder of its own")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn line(host: &str) -> DecisionLine<'_> {
        super::line(Kind::Connect, Ipv4Addr::LOCALHOST.into(), "CONNECT", host, 1)
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_in_the_next_one() {
        // Nobody writes, so the buffer fills.
        let journal = Journal { shared: Arc::default(), writer: Mutex::default() };
        let long = "x".repeat(1 << 20);
        for _ in 0..7 {
            journal.record(&line(&long));
        }
        let written = std::mem::take(&mut journal.shared.lock().buffer);
        assert!(written.len() < BUFFER + (2 << 20));
        let kept = written.split(|byte| *byte == b'\n').count() as u64 - 1;
        journal.record(&line("next"));
        journal.record(&line("last"));
        let text = String::from_utf8(journal.shared.lock().buffer.clone()).unwrap();
        let lines: Vec<DecisionLine<'_>> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines[0].dropped, lines[1].dropped), (Some(7 - kept), None));
    }

    #[test]
    fn files_are_rotated_and_only_the_oldest_is_given_up() {
        let folder = folder("journal-rotation");
        let path = folder.join("decisions.jsonl");
        let mut disk = Disk::open(path.clone(), 4).unwrap();
        for text in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n"] {
            disk.append(text.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            [read("decisions.jsonl"), read("decisions.jsonl.1"), read("decisions.jsonl.3")],
            ["six\n", "five\n", "three\n"]
        );
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
        // A restart goes on where the file ends.
        let mut disk = Disk::open(path, 100).unwrap();
        disk.append(b"seven\n").unwrap();
        assert_eq!(read("decisions.jsonl"), "six\nseven\n");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn closing_writes_what_is_left() {
        let folder = folder("journal-close");
        let journal = Journal::open(&folder).unwrap();
        for _ in 0..1000 {
            journal.record(&line("a"));
        }
        journal.close();
        let text = std::fs::read_to_string(folder.join("decisions.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1000);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
