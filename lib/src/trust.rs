//! The operator's trust record: which manifests, that an agent could have written, are the owner's
//! word all the same, and which folders agents could write.
//!
//! Below `trust/` of the state folder lies one file for each manifest, with a copy of the text that
//! was trusted, so that a later difference can be shown; and `written.json`, the folders that were
//! ever mounted writable: a manifest in one of them may be an agent's, whatever it says of itself.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::plan::{Plan, Workspace, WorkspaceMode};
use crate::record::now;
use crate::source::Source;
use crate::state::{self, State, sha256_hex};
use crate::strict;

/// A manifest that the operator trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// 1.
    pub version: u32,
    /// Where it lies, links resolved.
    pub path: PathBuf,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// When it was trusted, RFC 3339 in UTC.
    pub trusted_at: String,
    /// Its text.
    pub text: String,
}

/// The record of one manifest.
pub fn of(state: &State, path: &Path) -> Result<Option<Trusted>> {
    read(&file(state, path))
}

/// Trusts a manifest as it was read, in place of what was trusted at its path before.
pub fn add(state: &State, source: &Source) -> Result<()> {
    let trusted = Trusted {
        version: 1,
        path: source.path.clone(),
        sha256: source.sha256(),
        trusted_at: now(),
        text: source.text.clone(),
    };
    write(state, &file(state, &source.path), &trusted)
}

/// Ends the trust in a manifest, or the mistrust in a folder that agents could once write; whether
/// there was any.
pub fn forget(state: &State, path: &Path) -> Result<bool> {
    let file = file(state, path);
    let was = file.exists();
    state::remove(&file)?;
    if !written(state)?.iter().any(|folder| folder == path) {
        return Ok(was);
    }
    change_written(state, |all| all.retain(|folder| folder != path))?;
    Ok(true)
}

/// Everything that is trusted, by path.
pub fn all(state: &State) -> Result<Vec<Trusted>> {
    let names = state::names(&folder(state))?;
    let files = names.iter().filter(|name| is_record(name)).map(|name| folder(state).join(name));
    let mut all: Vec<Trusted> =
        files.map(|file| read(&file)).filter_map(Result::transpose).collect::<Result<_>>()?;
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// The folders that some agent could once write.
pub fn written(state: &State) -> Result<Vec<PathBuf>> {
    Ok(read(&folder(state).join("written.json"))?.unwrap_or_default())
}

/// What the agent of a plan can write on the host.
pub fn writable(plan: &Plan) -> impl Iterator<Item = &PathBuf> {
    let mounts = plan.mounts.iter().filter(|mount| !mount.read_only).map(|mount| &mount.source);
    let shared = |it: &&Workspace| !it.read_only && it.mode == WorkspaceMode::Bind;
    mounts.chain(plan.workspace.iter().filter(shared).map(|it| &it.source))
}

/// Notes what the agent of a plan can write, before it can.
pub fn note_written(state: &State, plan: &Plan) -> Result<()> {
    let new: Vec<PathBuf> = writable(plan).cloned().collect();
    let known = |all: &[PathBuf]| new.iter().all(|path| all.contains(path));
    if known(&written(state)?) {
        return Ok(());
    }
    change_written(state, |all| all.extend(new))
}

fn change_written(state: &State, change: impl FnOnce(&mut Vec<PathBuf>)) -> Result<()> {
    state::make_folder(&folder(state), None)?;
    // Two pipelines at once must not write over one another's notes.
    let _lock = state::lock_file(&folder(state).join("lock"), Duration::from_secs(10))?;
    let mut all = written(state)?;
    change(&mut all);
    all.sort();
    all.dedup();
    write(state, &folder(state).join("written.json"), &all)
}

fn folder(state: &State) -> PathBuf {
    state.root().join("trust")
}

fn file(state: &State, path: &Path) -> PathBuf {
    let name = sha256_hex(path.as_os_str().as_encoded_bytes());
    folder(state).join(format!("{}.json", &name[..32]))
}

fn is_record(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|stem| stem.len() == 32)
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match fs::read_to_string(file) {
        Ok(text) => strict::json(&text, "trust")
            .world(format!("read '{}': remove it, and trust the manifest anew", file.display()))
            .map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).world(format!("read '{}'", file.display())),
    }
}

fn write<T: Serialize>(state: &State, file: &Path, value: &T) -> Result<()> {
    state::make_folder(&folder(state), None)?;
    let mut text = serde_json::to_string(value).world("write a trust record")?;
    text.push('\n');
    state::write(file, text.as_bytes(), 0o600, None)
}

/// The longest texts whose lines are compared one by one, as a product of their numbers of lines.
const MAX_WORK: usize = 4_000_000;

/// The lines in which two texts differ, `-` before an old one and `+` before a new one.
#[must_use]
pub fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);

    // longest[i][j]: the longest common subsequence of old[i..] and new[j..].
    let far = old.len().saturating_mul(new.len()) > MAX_WORK;
    let mut longest = vec![vec![0_usize; new.len() + 1]; if far { 0 } else { old.len() + 1 }];
    if !far {
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                longest[i][j] = if old[i] == new[j] {
                    longest[i + 1][j + 1] + 1
                } else {
                    longest[i + 1][j].max(longest[i][j + 1])
                };
            }
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if !far && i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (far || j == new.len() || longest[i + 1][j] >= longest[i][j + 1])
        {
            out.push(format!("-{}", old[i]));
            i += 1;
        } else {
            out.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_of_lines_and_no_more_than_needed() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), ["-b", "+x", "+d"]);
        assert_eq!(difference("a\nb\n", "a\nb\n"), [""; 0]);
        assert_eq!(difference("", "a\n"), ["+a"]);
        assert_eq!(difference("a\n", ""), ["-a"]);
    }
}
