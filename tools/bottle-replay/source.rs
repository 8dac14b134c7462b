//! Where decisions are: the files that an argument names, oldest first, and their lines. What a
//! sidecar wrote is untrusted: only regular files are read, and a line has an end.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::render::EGRESS;
use bottle::state::{self, State};
use bottle::{Blame, Slug, caller};

/// The file of a sidecar's `run/` folder; older ones end with `.1`, `.2`, ….
const FILE: &str = "decisions.jsonl";

/// The longest line. Paths of 16 KiB are the longest part, escaped.
const LINE: u64 = 256 << 10;

/// The files of an argument.
pub(crate) fn files(name: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(name);
    if !name.contains('/')
        && let Ok(slug) = name.parse::<Slug>()
    {
        let folder = State::find()?.bottle(&slug);
        if folder.is_dir() {
            return in_folder(&folder, name);
        }
    }
    if path.is_dir() {
        return in_folder(path, name);
    }
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    Err(caller(format!(
        "read decisions: '{name}' is neither a file, nor a folder, nor a bottle: see 'bottle ps'"
    )))
}

/// Those of a bottle's folder, of its archive, or of a folder that holds them.
fn in_folder(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let folders = [folder.join(EGRESS).join("run"), folder.join(EGRESS), folder.to_owned()];
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let mut found: Vec<(u32, PathBuf)> = Vec::new();
        for name in state::names(folder)? {
            let Some(rest) = name.strip_prefix(FILE) else { continue };
            let age = if rest.is_empty() { Some(0) } else { rest[1..].parse().ok() };
            found.extend(age.map(|age| (age, folder.join(&name))));
        }
        if !found.is_empty() {
            found.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
            return Ok(found.into_iter().map(|(_, path)| path).collect());
        }
    }
    Err(caller(format!("read decisions: there are none in '{name}'")))
}

/// Calls `each` with every whole line of a file, in a buffer of one line.
pub(crate) fn lines(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let what = || format!("read '{}'", path.display());
    let Some(file) = state::open_report(path).world(what())? else {
        return Err(caller(format!("{}: it is not there any more", what())));
    };
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        take(&mut reader, &mut line).world(what())?;
        // A bottle that runs may be in the middle of a line.
        if line.pop_if(|last| *last == b'\n').is_none() {
            if line.len() as u64 >= LINE {
                return Err(caller(format!("{}:{number}: it is too long", path.display())));
            }
            return Ok(());
        }
        each(&line).caller(format!("{}:{number}", path.display()))?;
    }
    Ok(())
}

fn take(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<usize> {
    reader.by_ref().take(LINE).read_until(b'\n', line)
}
