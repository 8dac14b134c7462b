//! The few settings of a repository that name files which git runs or obeys: `core.hooksPath` and
//! `include.path`. See git-config(1).

use std::path::{Path, PathBuf};

/// The files and folders that a configuration refers to. Hooks are relative to the work tree,
/// includes to the file that has them, which lies in `folder`.
pub(super) fn refers(text: &str, folder: &Path, tree: &Path) -> Vec<PathBuf> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let line = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, after)) => {
                section = name.split([' ', '"', '.']).next().unwrap_or_default().to_lowercase();
                // A setting may follow on the line of its section.
                after.trim()
            }
            None => line,
        };
        let Some((name, value)) = line.split_once('=') else { continue };
        let base = match (&*section, &*name.trim().to_lowercase()) {
            ("core", "hookspath") => tree,
            ("include" | "includeif", "path") => folder,
            _ => continue,
        };
        let value = unquoted(value.trim());
        // What is below a home is not below a workspace, unless the home is: that is refused, for
        // the state folder is there.
        if !value.is_empty() && !value.starts_with('~') {
            found.push(base.join(value));
        }
    }
    found
}

/// A value without quotes, escapes and comment.
fn unquoted(value: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => out.extend(chars.next()),
            '#' | ';' if !quoted => break,
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_and_includes_are_found_however_they_are_written() {
        let text = "[core]\n\tbare = false\n\tHooksPath = .husky # mine\n[include] path = ../a\n\
                    [includeIf \"gitdir:~/x]\"]\n[includeIf \"onbranch:main\"]\n path = \"../b c\"\n\
                    [remote \"path\"]\n\tpath = no\n";
        let found = refers(text, Path::new("/w/.git"), Path::new("/w"));
        let expected = ["/w/.husky", "/w/.git/../a", "/w/.git/../b c"].map(PathBuf::from);
        assert_eq!(found, expected);
    }
}
