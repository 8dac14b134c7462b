//! `decisions.jsonl`: one line a decision, written by the server and by its hooks alike, each line at
//! once, under a lock on a file beside it. What cannot be written down is refused by those who call.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bottle::error::Blame;
use bottle::gate::{DecisionLine, Kind, Rule};
use bottle::policy::Verdict;
use bottle::{record, state};
use rustix::fs::OFlags;

use crate::conf::Force;

/// The size at which a file is full, and how many are kept, the current one included.
const FULL: u64 = 16 << 20;
const FILES: u32 = 4;

/// Words of others in one line, and the length of each.
const WORDS: usize = 20;
const WORD: usize = 500;

/// A line about now, an allowance until something else is set.
pub(crate) fn line<'a>(kind: Kind, remote: &'a str, force: &'a Force) -> DecisionLine<'a> {
    DecisionLine {
        time: record::now().into(),
        kind,
        remote: remote.into(),
        decision: Verdict::Allow,
        rule: None,
        why: Vec::new(),
        updates: Vec::new(),
        grants: Vec::new(),
        generation: force.gate.generation,
        policy: force.sha256.as_str().into(),
    }
}

/// Makes a refusal of a line.
pub(crate) fn refuse(line: &mut DecisionLine<'_>, rule: Rule, why: &[String]) {
    line.decision = Verdict::Deny;
    line.rule = Some(rule);
    let cut = |word: &String| word[..word.floor_char_boundary(WORD)].to_owned().into();
    line.why = why.iter().take(WORDS).map(cut).collect();
}

/// Writes a line down.
pub(crate) fn record(run: &Path, line: &DecisionLine<'_>) -> Result<()> {
    let what = "write 'decisions.jsonl'";
    let mut text = serde_json::to_vec(line).world(what)?;
    text.push(b'\n');
    let _lock = state::lock_alone(&run.join("decisions.lock"), Duration::from_secs(10))?;
    let path = run.join("decisions.jsonl");
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() >= FULL) {
        rotate(&path).world(what)?;
    }
    let mut file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .world(what)?;
    let size = file.metadata().world(what)?.len();
    file.write_all(&text).inspect_err(|_| drop(file.set_len(size))).world(what)
}

fn rotate(path: &Path) -> std::io::Result<()> {
    let numbered = |n: u32| match n {
        0 => path.to_owned(),
        n => path.with_added_extension(n.to_string()),
    };
    for n in (0..FILES - 1).rev() {
        #[expect(clippy::disallowed_methods, reason = "the run folder is this program's own")]
        match std::fs::rename(numbered(n), numbered(n + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
