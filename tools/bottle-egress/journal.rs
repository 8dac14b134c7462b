//! `decisions.jsonl`: one JSON line a decision.
//!
//! Whoever decides only appends to a buffer; a thread of its own writes. An agent that asks without
//! end fills neither memory nor disk: the buffer is bounded, and lines that do not fit are counted
//! in the next one (`dropped`); the file is rotated, and the oldest of [`FILES`] is given up aloud.
//! What cannot be written is kept and tried again, and meanwhile [`Journal::refuses`] what the plan
//! does not let pass unwritten. [`Journal::close`] writes what is left.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use bottle::error::Blame;
use bottle::policy::{Audit, Decision, DecisionLine, Kind, Reason, Verdict};
use bottle::record;
use bottle::run::say;
use rustix::fs::OFlags;

use crate::conf::Force;
use crate::reply::Refusal;

/// The size at which a file is full.
const FULL: u64 = 16 << 20;

/// Files that are kept, the current one included.
const FILES: u32 = 4;

/// The buffer that counts as full.
const BUFFER: usize = 4 << 20;

/// What is left beyond it for lines of exchanges that had been let through before it was full.
const SPARE: usize = 8 << 20;

/// Between two tries to write what could not be written.
const AGAIN: Duration = Duration::from_millis(200);

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// A line about now, a refusal until something else is set.
pub(crate) fn line<'a>(
    kind: Kind,
    client: IpAddr,
    method: impl Into<Cow<'a, str>>,
    host: impl Into<Cow<'a, str>>,
    force: &'a Force,
) -> DecisionLine<'a> {
    line_of(record::now(), kind, client, method, host, force)
}

/// The same about another time, RFC 3339.
pub(crate) fn line_of<'a>(
    time: String,
    kind: Kind,
    client: IpAddr,
    method: impl Into<Cow<'a, str>>,
    host: impl Into<Cow<'a, str>>,
    force: &'a Force,
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
        found: Vec::new(),
        sent: 0,
        received: 0,
        duration_us: 0,
        generation: force.policy.routes().generation,
        policy: force.sha256.as_str().into(),
        dropped: None,
    }
}

/// The refusal of what [`Journal::refuses`].
pub(crate) fn unwritten() -> Refusal {
    let why = "decisions cannot be written down at the moment, and nothing leaves without: the disk of the host may be full: try again";
    Refusal { reason: Reason::Audit, why: why.to_owned() }
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
    /// Whether the last try to write failed.
    failing: AtomicBool,
    /// Whether the buffer counts as full.
    full: AtomicBool,
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

    /// One that nobody writes: what it records is there to be taken.
    #[cfg(any(test, feature = "trial"))]
    pub(crate) fn kept() -> Self {
        Self { shared: Arc::default(), writer: Mutex::default() }
    }

    /// Takes the lines that it holds.
    #[cfg(any(test, feature = "trial"))]
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.lock().buffer)
    }

    /// Whether a new request has to be refused, because its line could be lost.
    pub(crate) fn refuses(&self, audit: Audit) -> bool {
        audit == Audit::Deny
            && (self.shared.failing.load(Ordering::Relaxed)
                || self.shared.full.load(Ordering::Relaxed))
    }

    /// Records one decision. Never waits for the disk.
    pub(crate) fn record(&self, line: &DecisionLine<'_>) {
        let mut state = self.shared.lock();
        let room = match line.decision {
            Verdict::Allow => BUFFER + SPARE,
            Verdict::Deny => BUFFER,
        };
        if state.buffer.len() >= BUFFER {
            self.shared.full.store(true, Ordering::Relaxed);
        }
        if state.buffer.len() >= room {
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
    loop {
        let mut state = shared.lock();
        while state.buffer.is_empty() && !state.done {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut lines, &mut state.buffer);
        shared.full.store(false, Ordering::Relaxed);
        let mut done = state.done;
        drop(state);
        while let Err(error) = disk.append(&lines) {
            if !shared.failing.swap(true, Ordering::Relaxed) {
                let text = format!("write 'decisions.jsonl': {error}: trying again");
                say("bottle-egress", &text);
            }
            if done {
                let lost = lines.split(|byte| *byte == b'\n').skip(1).count();
                say("bottle-egress", &format!("end: {lost} decisions could not be written"));
                return;
            }
            let state = shared.lock();
            let woken = shared.wake.wait_timeout_while(state, AGAIN, |state| !state.done);
            done = woken.unwrap_or_else(PoisonError::into_inner).0.done;
        }
        if shared.failing.swap(false, Ordering::Relaxed) {
            say("bottle-egress", "write 'decisions.jsonl': it can be written again");
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
    use super::*;

    fn line(host: &str) -> DecisionLine<'_> {
        let text = r#"{"time":"","kind":"connect","client":"127.0.0.1","method":"CONNECT","host":"",
            "decision":"deny","sent":0,"received":0,"duration_us":0,"generation":1,"policy":""}"#;
        let line: DecisionLine<'_> = serde_json::from_str(text).unwrap();
        DecisionLine { host: host.into(), ..line }
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
        let journal = Journal::kept();
        let long = "x".repeat(1 << 20);
        for _ in 0..7 {
            journal.record(&line(&long));
        }
        let written = journal.take();
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
    fn full_queue_refuses_what_comes_and_has_room_for_what_is_under_way() {
        let journal = Journal::kept();
        let long = "x".repeat(1 << 20);
        assert!(!journal.refuses(Audit::Deny));
        for _ in 0..5 {
            journal.record(&line(&long));
        }
        assert!(journal.refuses(Audit::Deny));
        // The plan may let them pass.
        assert!(!journal.refuses(Audit::Allow));
        let kept = journal.shared.lock().buffer.len();
        journal.record(&line("refused"));
        let (length, dropped) = {
            let state = journal.shared.lock();
            (state.buffer.len(), state.dropped)
        };
        assert_eq!((length, dropped), (kept, 2));
        let under_way = DecisionLine { decision: Verdict::Allow, ..line("under way") };
        journal.record(&under_way);
        assert!(journal.shared.lock().buffer.len() > kept);
        // Not without end.
        for _ in 0..20 {
            journal.record(&DecisionLine { host: long.as_str().into(), ..under_way.clone() });
        }
        assert!(journal.shared.lock().buffer.len() < BUFFER + SPARE + (2 << 20));
        assert!(journal.shared.lock().dropped > 0);
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
