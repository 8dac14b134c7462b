//! The mirror of a remote: a bare repository whose refs are upstream's. Before anybody reads it or
//! pushes to it, it is made to be what upstream is now.
//!
//! Whoever changes it holds the lock, on an open file, which a push keeps until git has ended; so a
//! lock is never stale, and no more than one push of a remote is under way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::error::{Blame, world};
use bottle::gate::{Remote, refs};
use bottle::state::{self, Lock};

use crate::git::{Git, words};

/// How long upstream may take to list its refs, and to send what is new.
const LIST: Duration = Duration::from_mins(1);
const FETCH: Duration = Duration::from_mins(30);
/// How long git may take for what it does here.
const HERE: Duration = Duration::from_mins(2);
/// How long whoever wants the lock waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Lines of upstream's that are told.
const LINES: usize = 4;

/// The mirror of one remote.
pub(crate) struct Mirror {
    folder: PathBuf,
    lock: PathBuf,
    url: String,
    /// When the last refresh that succeeded began, and whoever makes one holds this.
    fresh: Mutex<Option<Instant>>,
}

/// All mirrors, by their folder.
#[derive(Default)]
pub(crate) struct Mirrors(Mutex<BTreeMap<PathBuf, Arc<Mirror>>>);

impl Mirrors {
    /// That of a remote. One of another URL is another one.
    pub(crate) fn of(&self, data: &Path, remote: &Remote) -> Arc<Mirror> {
        let digest = state::sha256_hex(remote.url.as_bytes());
        let folder = data.join(format!("{}-{}.git", remote.name, &digest[..12]));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Mirror {
                lock: folder.with_extension("lock"),
                folder: folder.clone(),
                url: remote.url.clone(),
                fresh: Mutex::default(),
            })
        };
        all.entry(folder.clone()).or_insert_with(new).clone()
    }
}

impl Mirror {
    /// The repository.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the lock for a push; it is the caller's, and its children's.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = state::lock_alone(&self.lock, PATIENCE)
            .world("wait for the push of this repository that is under way")?;
        lock.ok_or_else(|| world("lock the mirror: its lock is gone"))
    }

    /// Makes the mirror what upstream is now. Whoever comes while others do that shares the next
    /// one.
    pub(crate) fn refresh(&self, git: &Git) -> Result<()> {
        let asked = Instant::now();
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let began = Instant::now();
        self.update(git)?;
        *fresh = Some(began);
        Ok(())
    }

    /// The same for whoever holds the lock.
    pub(crate) fn update(&self, git: &Git) -> Result<()> {
        let theirs = self.list(git)?;
        let what = || format!("make '{}'", self.folder.display());
        let folder = self.folder.to_str().ok_or_else(|| world(what()))?;
        if !self.folder.join("HEAD").is_file() {
            state::make_folder(&self.folder, None)?;
            let long = theirs.refs.values().any(|id| id.len() == 64);
            let format = if long { "--object-format=sha256" } else { "--object-format=sha1" };
            let args = ["init", "--quiet", "--bare", "--template=", format, "--", folder];
            git.ask(&args, b"", HERE)?;
        }
        self.sweep()?;
        let at = format!("--git-dir={folder}");
        let args = [&at, "for-each-ref", "--format=%(objectname) %(refname)"];
        let ours = Refs::parse(&git.ask(&args, b"", HERE)?);
        if ours.refs != theirs.refs {
            let mut args = vec![
                &*at,
                "fetch",
                "--quiet",
                "--prune",
                "--no-tags",
                "--no-write-fetch-head",
                "--force",
                "--",
                &*self.url,
            ];
            let specs = refs::KINDS.map(|kind| format!("+{kind}*:{kind}*"));
            args.extend(specs.iter().map(String::as_str));
            let said = git.run(&args, b"", FETCH)?;
            if !said.status.success() {
                return Err(upstream(&said.stderr));
            }
        }
        if let Some(head) = &theirs.head {
            git.ask(&[&at, "symbolic-ref", "HEAD", head], b"", HERE)?;
        }
        Ok(())
    }

    fn list(&self, git: &Git) -> Result<Refs> {
        let said = git.run(&["ls-remote", "--symref", "--", &self.url], b"", LIST)?;
        if !said.status.success() {
            return Err(upstream(&said.stderr));
        }
        Ok(Refs::parse(&String::from_utf8(said.stdout).world("read upstream's refs")?))
    }

    /// Removes what a killed push left of its objects.
    fn sweep(&self) -> Result<()> {
        let objects = self.folder.join("objects");
        for name in state::names(&objects)? {
            if name.starts_with("tmp_objdir-") {
                state::remove_folder(&objects.join(name))?;
            }
        }
        Ok(())
    }
}

/// An error in upstream's own words.
fn upstream(said: &str) -> anyhow::Error {
    let mut words = words(said);
    // What git says of itself after the reason.
    words.retain(|line| {
        !line.starts_with("Could not read from remote repository")
            && !line.starts_with("Please make sure you have the correct access rights")
            && !line.starts_with("and the repository exists")
            && !line.starts_with('@')
    });
    // The last ones say what it ended with.
    words.drain(..words.len().saturating_sub(LINES));
    let words = if words.is_empty() { "it said nothing".to_owned() } else { words.join("; ") };
    world(format!("upstream: {words}"))
}

/// Refs, of the kinds that are mirrored.
#[derive(Debug, PartialEq, Eq)]
struct Refs {
    refs: BTreeMap<String, String>,
    head: Option<String>,
}

impl Refs {
    /// Reads what `ls-remote --symref` or `for-each-ref` prints.
    fn parse(text: &str) -> Self {
        let mut found = Self { refs: BTreeMap::new(), head: None };
        for line in text.lines() {
            let Some((id, name)) = line.split_once(['\t', ' ']) else { continue };
            if id == "ref:" {
                let target = name.strip_suffix("\tHEAD");
                found.head = target.filter(|name| refs::is_ref(name)).map(str::to_owned);
            } else if refs::KINDS.iter().any(|kind| name.starts_with(kind)) && refs::is_ref(name) {
                found.refs.insert(name.to_owned(), id.to_owned());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_sides_are_read_alike() {
        let theirs = "ref: refs/heads/main\tHEAD\n11\tHEAD\n11\trefs/heads/main\n22\trefs/tags/v1\n33\trefs/tags/v1^{}\n44\trefs/pull/1/head\n";
        let theirs = Refs::parse(theirs);
        assert_eq!(theirs.head.as_deref(), Some("refs/heads/main"));
        let ours = Refs::parse("11 refs/heads/main\n22 refs/tags/v1\n");
        assert_eq!(theirs.refs, ours.refs);
        assert_eq!(ours.refs.len(), 2);
    }
}
