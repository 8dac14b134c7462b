//! What commits add, line by line, out of the patches that git prints. Strict and bounded: a hunk is
//! as long as its head says, so no content is ever taken for anything else. Pure.

use std::io::{BufRead, Read};

/// What marks a commit in git's format; what a hunk holds cannot begin with it.
pub(crate) const MARK: &str = "\u{1}";

/// The longest line outside of hunks.
const HEAD: u64 = 64 << 10;

/// What is found, in its order.
pub(crate) trait Visitor {
    /// The next additions are in a file of a commit.
    fn file(&mut self, commit: &str, path: &str) -> Result<(), Broken>;
    /// Reads a line that is added, with its newline, at most `length` bytes of it at once; `number` is
    /// its number in the file.
    fn line(&mut self, number: u64, part: &[u8]) -> Result<(), Broken>;
}

/// Why a patch could not be read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is none of git's, or ends too early.
    Odd(&'static str),
    /// It is more than may be looked at.
    TooMuch,
    /// What it is given to does not take it.
    World(String),
}

/// Reads `git log --patch` of commits that are marked by [`MARK`].
pub(crate) fn read(from: &mut impl BufRead, to: &mut impl Visitor) -> Result<(), Broken> {
    let mut commit = String::new();
    let mut path = String::new();
    let mut line = Vec::new();
    while head(from, &mut line)? {
        if let Some(id) = line.strip_prefix(MARK.as_bytes()) {
            commit = String::from_utf8_lossy(id).into_owned();
        } else if let Some(name) = line.strip_prefix(b"+++ ") {
            path = unquote(name);
            to.file(&commit, &path)?;
        } else if line.starts_with(b"@@ ") {
            let (removed, first, added) = hunk(&line).ok_or(Broken::Odd("a hunk has no head"))?;
            if commit.is_empty() || path.is_empty() {
                return Err(Broken::Odd("a hunk is of no file"));
            }
            body(from, to, removed, first, added)?;
        } else if line.starts_with(b"+") || line.starts_with(b"GIT binary patch") {
            return Err(Broken::Odd("something is added outside of a hunk"));
        }
    }
    Ok(())
}

/// Reads a line without its newline; `false` at the end.
fn head(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Broken> {
    line.clear();
    from.take(HEAD).read_until(b'\n', line).map_err(|e| Broken::World(e.to_string()))?;
    if line.is_empty() {
        return Ok(false);
    }
    line.pop_if(|last| *last == b'\n').map(|_| true).ok_or(Broken::Odd("a line does not end"))
}

/// `@@ -first,removed +first,added @@`: lines removed, the first one's number that is added, and how
/// many.
fn hunk(line: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b'@').nth(2)?).ok()?;
    let (from, to) = text.trim().split_once(' ')?;
    let range = |text: &str| -> Option<(u64, u64)> {
        match text.split_once(',') {
            Some((first, count)) => Some((first.parse().ok()?, count.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    let (first, added) = range(to.strip_prefix('+')?)?;
    Some((range(from.strip_prefix('-')?)?.1, first, added))
}

/// Reads the lines of a hunk without context.
fn body(
    from: &mut impl BufRead,
    to: &mut impl Visitor,
    mut removed: u64,
    first: u64,
    added: u64,
) -> Result<(), Broken> {
    let mut number = first;
    while removed > 0 || number < first + added {
        let mut sign = [0];
        from.read_exact(&mut sign).map_err(|_| Broken::Odd("a hunk is cut off"))?;
        match sign[0] {
            b'-' if removed > 0 => {
                rest(from, |_| Ok(()))?;
                removed -= 1;
            }
            b'+' if number < first + added => {
                rest(from, |part| to.line(number, part))?;
                number += 1;
            }
            b'\\' => rest(from, |_| Ok(()))?,
            _ => return Err(Broken::Odd("a hunk is not as long as it says")),
        }
    }
    Ok(())
}

/// Reads to the end of a line, however long that is, a piece at a time.
fn rest(
    from: &mut impl BufRead,
    mut piece: impl FnMut(&[u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    loop {
        let buffer = from.fill_buf().map_err(|e| Broken::World(e.to_string()))?;
        if buffer.is_empty() {
            return Err(Broken::Odd("a line does not end"));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        piece(&buffer[..length])?;
        from.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// The path behind `+++ `, for a person: git quotes what is odd, and adds a tab behind a space.
fn unquote(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.trim_end_matches('\t').trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Visitor for Seen {
        fn file(&mut self, commit: &str, path: &str) -> Result<(), Broken> {
            self.0.push(format!("{commit} {path}"));
            Ok(())
        }

        fn line(&mut self, number: u64, part: &[u8]) -> Result<(), Broken> {
            self.0.push(format!("{number}:{}", String::from_utf8_lossy(part)));
            Ok(())
        }
    }

    fn seen(text: &str) -> Result<Vec<String>, Broken> {
        let mut seen = Seen::default();
        read(&mut text.as_bytes(), &mut seen).map(|()| seen.0)
    }

    #[test]
    fn what_is_added_is_read_with_its_place() {
        let text = "\u{1}c1\n\ndiff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ x\n@@ -3 +3,2 @@ fn\n-old\n+one\n+two\n@@ -9,2 +9,0 @@\n-a\n-b\n\u{1}c2\n\ndiff --git a/y b/y\n--- /dev/null\n+++ y\n@@ -0,0 +1 @@\n+last\n\\ No newline at end of file\n";
        assert_eq!(seen(text).unwrap(), ["c1 x", "3:one\n", "4:two\n", "c2 y", "1:last\n"]);
    }

    #[test]
    fn content_is_never_taken_for_a_head() {
        let text = "\u{1}c1\n--- a/x\n+++ x\n@@ -0,0 +1,4 @@\n+\u{1}c9\n+++ evil\n+@@ -1 +1,99 @@\n+diff --git\n";
        let found = seen(text).unwrap();
        assert_eq!(
            found,
            ["c1 x", "1:\u{1}c9\n", "2:++ evil\n", "3:@@ -1 +1,99 @@\n", "4:diff --git\n"]
        );
    }

    #[test]
    fn patch_that_is_not_whole_is_refused() {
        for text in [
            "\u{1}c1\n+++ x\n@@ -0,0 +1,2 @@\n+one\n",
            "\u{1}c1\n+++ x\n@@ -0,0 +1,1 @@\n-one\n",
            "\u{1}c1\n+++ x\n@@ x @@\n",
            "\u{1}c1\n+++ x\n@@ -0,0 +1,1 @@\n+one\n+two\n",
            "\u{1}c1\n@@ -0,0 +1,1 @@\n+one\n",
            "\u{1}c1\n+++ x\n@@ -0,0 +1 @@\n+one",
            "\u{1}c1\nGIT binary patch\n",
        ] {
            assert!(matches!(seen(text), Err(Broken::Odd(_))), "{text:?}");
        }
    }
}
