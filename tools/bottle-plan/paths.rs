//! Paths of the host as a manifest writes them: absolute, below `~`, or relative to its folder.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use bottle::{Blame, caller};

/// The most links that one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// What paths are relative to.
pub(crate) struct Base {
    /// The manifest's folder, links resolved.
    pub(crate) folder: PathBuf,
    /// The caller's home.
    pub(crate) home: Option<PathBuf>,
    /// The links that paths have led through so far, each with the text of the path: whoever can
    /// write where a link lies decides where the path leads.
    pub(crate) links: RefCell<Vec<(String, PathBuf)>>,
}

/// A path that is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Absolute, links resolved.
    pub(crate) path: PathBuf,
    /// The links that it led through, each where it lies.
    pub(crate) links: Vec<PathBuf>,
}

impl Base {
    /// Finds a path, which must be there. A relative one may not leave the manifest's folder: what
    /// is far away is written as such.
    pub(crate) fn find(&self, text: &str) -> Result<Found> {
        let path = self.absolute(text)?;
        let found = follow(&path).map_err(|why| {
            let hint = if text.contains('$') { ": variables are not expanded here" } else { "" };
            caller(format!("'{text}': {why:#}{hint}"))
        })?;
        let relative = !text.starts_with(['~', '/']);
        if relative && !found.path.starts_with(&self.folder) {
            return Err(caller(format!(
                "'{text}' leaves the manifest's folder '{}': write it absolute, '{}'",
                self.folder.display(),
                found.path.display()
            )));
        }
        let links = found.links.iter().map(|link| (text.to_owned(), link.clone()));
        self.links.borrow_mut().extend(links);
        Ok(found)
    }

    /// Where a path leads, if it does.
    pub(crate) fn locate(&self, text: &str) -> Option<PathBuf> {
        Some(follow(&self.absolute(text).ok()?).ok()?.path)
    }

    fn absolute(&self, text: &str) -> Result<PathBuf> {
        match (text.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                Ok(home.join(rest.trim_start_matches('/')))
            }
            (Some(_), None) => {
                Err(caller(format!("'{text}': there is no home folder: write it absolute")))
            }
            (Some(_), Some(_)) => Err(caller(format!(
                "'{text}': only the caller's own '~/' is known: write it absolute"
            ))),
            (None, _) => Ok(self.folder.join(text)),
        }
    }
}

/// Follows an absolute path link by link.
pub(crate) fn follow(path: &Path) -> Result<Found> {
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
pub(crate) fn plain(path: &Path) -> PathBuf {
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
