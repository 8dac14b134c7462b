//! Secrets in what a push adds: all lines that its commits add, merges' own ones included, and the
//! commits, tags and names of files themselves, are written into files that gitleaks then looks into.
//!
//! gitleaks could read the repository itself, but would then heed what whoever pushed has written
//! there: a comment that silences it, a file's beginning that looks binary, a name that it passes
//! over. So it is given text without names, with a beginning that is none of a binary file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, world};
use bottle::spawn::{self, Group};
use bottle::state;
use serde_json::Value;

use crate::git::Git;
use crate::patch::{self, Broken, MARK, Visitor};

/// Where one file of text is full; a file of a commit is never cut.
const FULL: u64 = 1 << 20;

/// The most text that is scanned.
const MOST: u64 = 256 << 20;

/// What each file begins with: longer than where any kind of binary file has its mark.
const MARGIN: usize = 40 << 10;

/// What silences gitleaks, and what is scanned in its place.
const SILENCE: &[u8] = b"gitleaks:allow";
const SPOKEN: &[u8] = b"gitleaks_allow";

/// How long gitleaks may take.
const LIMIT: Duration = Duration::from_mins(15);

/// Its exit code where it found something.
const FOUND: i32 = 99;

/// Text to be scanned.
pub(crate) struct Scan {
    folder: PathBuf,
    file: Option<BufWriter<File>>,
    /// Lines and bytes of the file at hand.
    lines: u64,
    size: u64,
    total: u64,
    /// Where each stretch of a file comes from.
    places: Vec<Place>,
    files: usize,
    /// The end of the last piece, in which [`SILENCE`] may have begun.
    tail: Vec<u8>,
    ended: bool,
}

struct Place {
    file: usize,
    line: u64,
    commit: String,
    path: String,
    number: u64,
}

/// Something that looks like a secret. What it is, is not told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) commit: String,
    pub(crate) path: String,
    pub(crate) line: u64,
}

impl Scan {
    /// An empty one, below the gate's own folder.
    pub(crate) fn new(data: &Path) -> Result<Self> {
        let folder = data.join(format!("scan-{}", std::process::id()));
        state::remove_folder(&folder)?;
        state::make_folder(&folder, None)?;
        Ok(Self {
            folder,
            file: None,
            lines: 0,
            size: 0,
            total: 0,
            places: Vec::new(),
            files: 0,
            tail: Vec::new(),
            ended: true,
        })
    }

    /// Adds what commits add; `news` and what is there already are revisions as git takes them.
    pub(crate) fn patches(&mut self, git: &Git, revisions: &str) -> Result<(), Broken> {
        let format = format!("--format={MARK}%H");
        let common = [
            "log",
            &format,
            "--patch",
            "--unified=0",
            "--text",
            "--no-prefix",
            "--no-color",
            "--no-textconv",
            "--no-ext-diff",
            "--no-renames",
            "--submodule=short",
            "--stdin",
        ];
        // A merge of two is done again, and what differs is its own; of a larger one everything
        // counts that it has in addition to any of its parents.
        self.log(git, &[&common[..], &["--remerge-diff", "--max-parents=2"]].concat(), revisions)?;
        let large = [&common[..], &["--diff-merges=separate", "--min-parents=3"]].concat();
        self.log(git, &large, revisions)
    }

    fn log(&mut self, git: &Git, args: &[&str], revisions: &str) -> Result<(), Broken> {
        let broken = |error: anyhow::Error| Broken::World(format!("{error:#}"));
        let stdin = memory(revisions.as_bytes()).map_err(broken)?;
        let mut child =
            git.start("git", args, [stdin, Stdio::piped(), Stdio::null()]).map_err(broken)?;
        let stdout = child.stdout.take().ok_or(Broken::Odd("git says nothing"))?;
        let read = patch::read(&mut BufReader::with_capacity(64 << 10, stdout), self);
        if read.is_err() {
            let _ = child.kill();
        }
        let ended = child.wait().map_err(|e| Broken::World(e.to_string()))?;
        read?;
        if ended.success() { Ok(()) } else { Err(Broken::Odd("git cannot tell what commits add")) }
    }

    /// Adds a text that is not a file of a commit.
    pub(crate) fn text(&mut self, commit: &str, what: &str, text: &[u8]) -> Result<(), Broken> {
        self.file(commit, what)?;
        for (n, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            self.line(n, line)?;
        }
        self.write(b"\n")
    }

    /// Lets gitleaks look.
    pub(crate) fn findings(mut self, git: &Git) -> Result<Vec<Finding>> {
        let what = "look for secrets";
        self.close().world(what)?;
        if self.files == 0 {
            return Ok(Vec::new());
        }
        let folder = self.folder.to_str().ok_or_else(|| world("name the folder of the scan"))?;
        let report = format!("{folder}.json");
        let code = FOUND.to_string();
        let args = [
            "detect",
            "--no-git",
            "--no-banner",
            "--redact",
            "--log-level=warn",
            "--source",
            folder,
            "--report-format=json",
            "--report-path",
            &report,
            "--exit-code",
            &code,
        ];
        let said = git.run_program("gitleaks", &args, b"", LIMIT)?;
        let found = std::fs::read(&report);
        state::remove(Path::new(&report))?;
        match said.status.code() {
            Some(0) => return Ok(Vec::new()),
            Some(FOUND) => {}
            _ => {
                let last = said.stderr.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(world(format!("{what}: gitleaks failed: {last}")));
            }
        }
        let found: Vec<Value> = serde_json::from_slice(&found.world(what)?).world(what)?;
        if found.is_empty() {
            return Err(world(format!("{what}: gitleaks found something, and does not tell what")));
        }
        let mut found: Vec<Finding> = found.iter().map(|it| self.finding(it)).collect();
        found.dedup();
        Ok(found)
    }

    fn finding(&self, found: &Value) -> Finding {
        let text = |name: &str| found[name].as_str().unwrap_or_default();
        let name = Path::new(text("File")).file_name().unwrap_or_default().to_string_lossy();
        let file = name.parse().unwrap_or(usize::MAX);
        let at = found["StartLine"].as_u64().unwrap_or_default();
        let before = |place: &&Place| place.file == file && place.line <= at;
        // gitleaks counts from 0 where a match begins in the first line, and else from 1.
        let place = self.places.iter().rev().find(before);
        Finding {
            rule: text("RuleID").to_owned(),
            commit: place.map(|place| place.commit.clone()).unwrap_or_default(),
            path: place.map(|place| place.path.clone()).unwrap_or_default(),
            line: place.map(|place| place.number + (at - place.line)).unwrap_or_default(),
        }
    }

    fn open(&mut self) -> Result<(), Broken> {
        self.close()?;
        self.files += 1;
        let path = self.folder.join(self.files.to_string());
        let file = state::create_new(&path).map_err(|e| Broken::World(format!("{e:#}")))?;
        self.file = Some(BufWriter::new(file));
        (self.lines, self.size) = (1, 0);
        let margin = [&vec![b' '; MARGIN][..], b"\n"].concat();
        self.put(&margin)
    }

    fn close(&mut self) -> Result<(), Broken> {
        let tail = std::mem::take(&mut self.tail);
        if self.file.is_some() {
            self.put(&tail)?;
        }
        match self.file.take() {
            Some(mut file) => file.flush().map_err(|e| Broken::World(e.to_string())),
            None => Ok(()),
        }
    }

    /// Writes text in which nothing silences the scan, also where it comes in pieces.
    fn write(&mut self, part: &[u8]) -> Result<(), Broken> {
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(part);
        while let Some(at) = find(&text, SILENCE) {
            text[at..at + SILENCE.len()].copy_from_slice(SPOKEN);
        }
        if !text.ends_with(b"\n") {
            let keep = text.len().saturating_sub(SILENCE.len() - 1);
            self.tail = text.split_off(keep);
        }
        self.put(&text)
    }

    fn put(&mut self, text: &[u8]) -> Result<(), Broken> {
        self.size += text.len() as u64;
        self.total += text.len() as u64;
        if self.total > MOST {
            return Err(Broken::TooMuch);
        }
        self.lines += text.split(|byte| *byte == b'\n').count() as u64 - 1;
        let file = self.file.as_mut().ok_or(Broken::Odd("text is of no file"))?;
        file.write_all(text).map_err(|e| Broken::World(e.to_string()))
    }
}

impl Visitor for Scan {
    fn file(&mut self, commit: &str, path: &str) -> Result<(), Broken> {
        if self.file.is_none() || self.size >= FULL {
            self.open()?;
        }
        if !self.ended {
            self.write(b"\n")?;
        }
        self.ended = true;
        let (commit, path) = (commit.to_owned(), path.to_owned());
        self.places.push(Place { file: self.files, line: self.lines, commit, path, number: 0 });
        Ok(())
    }

    fn line(&mut self, number: u64, part: &[u8]) -> Result<(), Broken> {
        if self.ended {
            // Only where lines do not follow one another a new stretch begins.
            let last = self.places.last_mut().ok_or(Broken::Odd("a line is of no file"))?;
            let follows = last.number != 0 && last.number + (self.lines - last.line) == number;
            if last.number == 0 {
                (last.number, last.line) = (number, self.lines);
            } else if !follows {
                let (commit, path) = (last.commit.clone(), last.path.clone());
                let line = self.lines;
                self.places.push(Place { file: self.files, line, commit, path, number });
            }
        }
        self.ended = part.ends_with(b"\n");
        self.write(part)
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        // The server removes what is left.
        let _ = state::remove_folder(&self.folder);
    }
}

impl From<Broken> for anyhow::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Odd(why) => world(format!("read what commits add: {why}")),
            Broken::TooMuch => world(format!("it adds more than {} MiB of text", MOST >> 20)),
            Broken::World(why) => world(why),
        }
    }
}

/// A file in memory to be read from.
pub(crate) fn memory(bytes: &[u8]) -> Result<Stdio> {
    use std::io::Seek;
    let (mut file, end) = spawn::memory().world("make a memory file")?;
    file.write_all(bytes).and_then(|()| file.rewind()).world("make a memory file")?;
    Ok(end)
}

/// Reads all that a program says, at most `most` bytes.
pub(crate) fn all(git: &Git, args: &[&str], stdin: Stdio, most: u64) -> Result<Option<Vec<u8>>> {
    let what = || format!("run 'git {}'", args.first().unwrap_or(&""));
    let mut child = git.start("git", args, [stdin, Stdio::piped(), Stdio::null()])?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(most + 1).read_to_end(&mut said).world(what())?;
    }
    if said.len() as u64 > most {
        let _ = child.kill();
        let _ = child.wait();
        return Ok(None);
    }
    let status = spawn::wait(child, Group::Ours, LIMIT).world(what())?;
    if !status.is_some_and(|status| status.success()) {
        return Err(world(format!("{}: it failed", what())));
    }
    Ok(Some(said))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what))
}
