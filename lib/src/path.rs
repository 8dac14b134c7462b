//! Paths of the host, followed link by link.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::error::{Blame, caller};

/// The most links that one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// A path that is there.
#[derive(Debug, Clone)]
pub struct Found {
    /// Absolute, links resolved.
    pub path: PathBuf,
    /// The links that it led through, each where it lies.
    pub links: Vec<PathBuf>,
}

/// Follows an absolute path link by link.
pub fn follow(path: &Path) -> Result<Found> {
    let mut done = PathBuf::from("/");
    let mut links = Vec::new();
    let mut ahead: Vec<OsString> = parts(path);
    while let Some(part) = ahead.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(&part);
        let found = fs::symlink_metadata(&done).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => caller(format!(
                "'{}' is not there: make it first, or mend the path",
                done.display()
            )),
            _ => caller(format!("look at '{}': {e}", done.display())),
        })?;
        if found.is_symlink() {
            let to = fs::read_link(&done).caller(format!("read link '{}'", done.display()))?;
            links.push(done.clone());
            if links.len() > MAX_LINKS {
                return Err(caller(format!("'{}' leads through too many links", path.display())));
            }
            if to.is_absolute() {
                done = PathBuf::from("/");
            } else {
                done.pop();
            }
            ahead.extend(parts(&to));
        } else if !found.is_dir() && !ahead.is_empty() {
            return Err(caller(format!("'{}' is not a folder", done.display())));
        }
    }
    if done.to_str().is_none() {
        return Err(caller(format!("'{}' is not UTF-8: rename it", done.display())));
    }
    Ok(Found { path: done, links })
}

/// The parts of a path below its root, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// A path without `.` and `..`, by its text alone.
#[must_use]
pub fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
