//! The submodules that a repository's index names. See gitformat-index(5).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::{Blame, caller};

/// The mode of a commit in an index: a submodule.
const GITLINK: u32 = 0o160_000;

/// Paths of the submodules, relative to the work tree, of the repository with this git folder.
pub(super) fn submodules(folder: &Path) -> Result<Vec<PathBuf>> {
    let path = folder.join("index");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e).caller(format!("read '{}'", path.display())),
    };
    // SHA-256 repositories have longer names of objects; which one it is stands in the
    // configuration, but only one of them leads through the whole file.
    parse(&bytes, 20).or_else(|| parse(&bytes, 32)).ok_or_else(|| {
        caller(format!(
            "'{}' is not readable here (a split index, or a newer form), and may name submodules: {}",
            path.display(),
            super::WAY_OUT
        ))
    })
}

/// The gitlinks of an index, or `None` where it is not of the form that is known.
fn parse(bytes: &[u8], hash: usize) -> Option<Vec<PathBuf>> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(..4)? != b"DIRC" {
        return None;
    }
    let (version, count) = (number(4)?, number(8)?);
    if !(2..=4).contains(&version) {
        return None;
    }
    let mut found = Vec::new();
    let mut name: Vec<u8> = Vec::new();
    let mut at = 12;
    for _ in 0..count {
        let start = at;
        let mode = number(at + 24)?;
        at += 40 + hash;
        let flags = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
        at += if flags & 0x4000 == 0 { 2 } else { 4 };
        if version == 4 {
            let (cut, used) = offset(bytes.get(at..)?)?;
            at += used;
            name.truncate(name.len().checked_sub(cut)?);
        } else {
            name.clear();
        }
        let length = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
        name.extend_from_slice(&bytes[at..at + length]);
        at += length + 1;
        if version != 4 {
            // One to eight NUL bytes end an entry at a multiple of eight.
            let padded = (at - start).next_multiple_of(8);
            if bytes.get(at..start + padded)?.iter().any(|byte| *byte != 0) {
                return None;
            }
            at = start + padded;
        }
        if mode == GITLINK {
            found.push(PathBuf::from(String::from_utf8(name.clone()).ok()?));
        }
    }
    extensions_are_known(bytes, at, hash).then_some(found)
}

/// Whether what follows the entries is whole, and does not refer to entries elsewhere.
fn extensions_are_known(bytes: &[u8], mut at: usize, hash: usize) -> bool {
    while at + hash < bytes.len() {
        let Some(header) = bytes.get(at..at + 8) else { return false };
        if &header[..4] == b"link" {
            return false;
        }
        let size = header[4..].iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
        at += 8 + size;
    }
    at + hash == bytes.len()
}

/// git's variable-width number: how many bytes of the last name go, and the bytes it took.
fn offset(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value = value << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
        value += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of these entries: mode and name; of version 4, how much of the last name is cut.
    fn index(version: u32, hash: usize, entries: &[(u32, &str)], extensions: &[u8]) -> Vec<u8> {
        let count = u32::try_from(entries.len()).unwrap();
        let mut out = [b"DIRC".as_slice(), &version.to_be_bytes(), &count.to_be_bytes()].concat();
        let mut last = "";
        for (mode, name) in entries {
            let start = out.len();
            out.extend([0; 24]);
            out.extend(mode.to_be_bytes());
            out.resize(start + 40 + hash, 7);
            if version == 3 {
                out.extend([0x40, 0, 0, 0]);
            } else {
                out.extend([0, 0]);
            }
            if version == 4 {
                let same = last.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
                out.push(u8::try_from(last.len() - same).unwrap());
                out.extend(name[same..].bytes());
                out.push(0);
            } else {
                out.extend(name.bytes());
                let length = out.len() - start;
                out.resize(start + (length / 8 + 1) * 8, 0);
            }
            last = name;
        }
        out.extend(extensions);
        out.resize(out.len() + hash, 9);
        out
    }

    const ENTRIES: [(u32, &str); 5] = [
        (0o100_644, ".gitmodules"),
        (GITLINK, "third/party"),
        (GITLINK, "third/party-two"),
        (0o100_755, "third/run"),
        (0o120_000, "zzz"),
    ];

    #[test]
    fn submodules_are_found_in_every_form_of_an_index() {
        for version in [2, 3, 4] {
            for hash in [20, 32] {
                let bytes = index(version, hash, &ENTRIES, b"TREE\0\0\0\x02xx");
                let found = parse(&bytes, 20).or_else(|| parse(&bytes, 32)).unwrap();
                let expected = ["third/party", "third/party-two"].map(PathBuf::from);
                assert_eq!(found, expected, "version {version}, {hash}");
            }
        }
    }

    #[test]
    fn index_that_is_not_understood_is_no_index_without_submodules() {
        let whole = index(2, 20, &ENTRIES, b"");
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end], 20), None, "{end}");
        }
        assert_eq!(parse(&index(2, 20, &ENTRIES, b"link\0\0\0\x01x"), 20), None);
        assert_eq!(parse(&index(5, 20, &ENTRIES, b""), 20), None);
        assert_eq!(parse(b"", 20), None);
    }
}
