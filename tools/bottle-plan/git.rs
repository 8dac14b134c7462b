//! What git on the host obeys below a folder that an agent writes.
//!
//! A repository tells git what to run: hooks, `core.fsmonitor`, filters. So every `.git` is
//! protected, and what one refers to below the same folder: its git folder where that lies elsewhere,
//! hooks and included settings, and the folder of a submodule that is not checked out, in which `git
//! status` of the repository above would obey whatever an agent puts there (seen).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::path::{follow, plain};
use bottle::{Blame, caller};

mod config;
mod index;

/// The most entries that are looked at. It takes about a second to come that far.
const MAX_ENTRIES: usize = 1_000_000;

/// The way out of everything that cannot be protected.
const WAY_OUT: &str = "set 'workspace.mode' to copy";

/// What is to be read-only below a writable folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Protected {
    /// What is read-only, sorted; none lies in another.
    pub(crate) paths: Vec<PathBuf>,
    /// The folders on the way there, which must stay where they are, outer ones first.
    pub(crate) pinned: Vec<PathBuf>,
}

/// Finds what is to be protected in a workspace, whose top must hold a `.git`: where there is none,
/// the agent could make one.
pub(crate) fn protect(root: &Path) -> Result<Protected> {
    let gits = find(root)?;
    if gits.first().map(PathBuf::as_path) != Some(&*root.join(".git")) {
        return Err(caller(format!(
            "'{}' has no '.git', and an agent could make one that git on the host obeys: run 'git init' there, use the top folder of the repository, or {WAY_OUT}",
            root.display()
        )));
    }
    let mut paths: BTreeSet<PathBuf> = gits.iter().cloned().collect();
    for git in &gits {
        of_repository(git, root, &gits, &mut paths)?;
    }
    let all: Vec<PathBuf> = paths.iter().cloned().collect();
    paths.retain(|path| !all.iter().any(|other| path != other && path.starts_with(other)));
    let mut pinned = BTreeSet::new();
    for path in &paths {
        let way = path.ancestors().skip(1).take_while(|folder| *folder != root);
        pinned.extend(way.map(Path::to_owned));
    }
    Ok(Protected { paths: paths.into_iter().collect(), pinned: pinned.into_iter().collect() })
}

/// Every `.git` below a folder, the folder's own first. No link is followed, and nothing is looked
/// for inside a `.git`. A folder that cannot be read is passed over: the agent, who has no more
/// rights than the caller, cannot read it either.
pub(crate) fn find(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut ahead = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(folder) = ahead.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => continue,
            other => other.caller(format!("list '{}'", folder.display()))?,
        };
        for entry in entries {
            let entry = entry.caller(format!("list '{}'", folder.display()))?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(caller(format!(
                    "'{}' holds more than {MAX_ENTRIES} entries, too many to find every '.git' among: name a smaller folder, or {WAY_OUT}",
                    root.display()
                )));
            }
            let kind = entry.file_type().caller(format!("look at '{}'", entry.path().display()))?;
            // Some file systems do not tell upper case from lower.
            if entry.file_name().eq_ignore_ascii_case(".git") {
                if kind.is_symlink() {
                    return Err(caller(format!(
                        "'{}' is a link, which an agent could turn elsewhere: put the folder itself there, or {WAY_OUT}",
                        entry.path().display()
                    )));
                }
                found.push(entry.path());
            } else if kind.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    found.sort_by_key(|path| (path.components().count(), path.clone()));
    Ok(found)
}

/// Adds what one repository refers to below `root`.
fn of_repository(
    git: &Path,
    root: &Path,
    gits: &[PathBuf],
    paths: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    let Some(tree) = git.parent() else { return Ok(()) };
    let Some(folder) = folder_of(git)? else { return Ok(()) };
    let common = pointed(&folder, &folder.join("commondir"), "")?.unwrap_or_else(|| folder.clone());
    let mut refers = vec![folder.clone(), common.clone()];
    for settings in [common.join("config"), folder.join("config.worktree")] {
        if let Some(text) = read(&settings)? {
            refers.extend(config::refers(&text, &common, tree));
        }
    }
    // A repository whose git folder lies outside is reached by what lies there, not by the agent;
    // its submodules' folders lie in the tree all the same.
    for path in index::submodules(&folder)? {
        let path = tree.join(path);
        if !gits.contains(&path.join(".git")) {
            refers.push(path);
        }
    }
    for path in refers.iter().map(|path| plain(path)).filter(|path| path.starts_with(root)) {
        if path == root {
            return Err(caller(format!(
                "'{}' has git on the host run or read what lies in the workspace's top folder, which an agent writes: {WAY_OUT}",
                git.display()
            )));
        }
        let obeyed = format!(
            "git on the host obeys '{}', because '{}' says so",
            path.display(),
            git.display()
        );
        match follow(&path) {
            Ok(found) if found.path == path => {}
            Ok(_) => {
                return Err(caller(format!(
                    "{obeyed}, and an agent could turn the link there elsewhere: {WAY_OUT}"
                )));
            }
            Err(_) => {
                return Err(caller(format!(
                    "{obeyed}, and an agent could make it, because it is not there: make it first, or {WAY_OUT}"
                )));
            }
        }
        paths.insert(path);
    }
    Ok(())
}

/// The git folder of a `.git`: itself, or what the file says. `None`: it is no repository.
fn folder_of(git: &Path) -> Result<Option<PathBuf>> {
    if git.is_dir() {
        return Ok(Some(git.to_owned()));
    }
    pointed(git.parent().unwrap_or(git), git, "gitdir:")
}

/// The path that a small file holds after a key, relative to `base`.
fn pointed(base: &Path, file: &Path, key: &str) -> Result<Option<PathBuf>> {
    let text = read(file)?;
    let to = text.as_deref().and_then(|text| text.trim_end_matches('\n').strip_prefix(key));
    Ok(to.map(|to| plain(&base.join(to.trim_start()))))
}

/// The text of a file that may be missing.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).caller(format!("read '{}'", path.display())),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test writes files")]
mod tests {
    use super::*;

    /// A folder with these files, each with its text; a name that ends in `/` is a folder.
    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = root.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (folder, root)
    }

    /// What is protected and pinned, relative to the folder.
    fn found(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let (_folder, root) = folder(files);
        let found = protect(&root).unwrap();
        let relative = |paths: &[PathBuf]| {
            let paths = paths.iter().map(|path| path.strip_prefix(&root).unwrap());
            paths.map(|path| path.to_str().unwrap().to_owned()).collect()
        };
        (relative(&found.paths), relative(&found.pinned))
    }

    fn refusal(files: &[(&str, &str)]) -> String {
        let (_folder, root) = folder(files);
        format!("{:#}", protect(&root).unwrap_err()).replace(root.to_str().unwrap(), "ROOT")
    }

    fn owned(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn nested_repositories_are_found_and_the_way_to_them_is_pinned() {
        let (paths, pinned) =
            found(&[(".git/", ""), ("a/b/.git/", ""), ("a/c/.git", "gitdir: /elsewhere\n")]);
        assert_eq!(paths, owned(&[".git", "a/b/.git", "a/c/.git"]));
        assert_eq!(pinned, owned(&["a", "a/b", "a/c"]));
    }

    #[test]
    fn git_folder_that_lies_beside_its_file_is_protected() {
        let (paths, pinned) = found(&[
            (".git", "gitdir: store/git\n"),
            ("store/git/config", "[core]\n\thooksPath = hooks\n"),
            ("hooks/", ""),
        ]);
        assert_eq!(paths, owned(&[".git", "hooks", "store/git"]));
        assert_eq!(pinned, owned(&["store"]));
    }

    #[test]
    fn what_lies_in_a_protected_folder_is_protected_with_it() {
        let (paths, _) = found(&[
            (".git/config", "[include]\n\tpath = more\n"),
            (".git/more", ""),
            (".git/modules/sub/HEAD", ""),
            ("sub/.git", "gitdir: ../.git/modules/sub\n"),
        ]);
        assert_eq!(paths, owned(&[".git", "sub/.git"]));
    }

    #[test]
    fn name_in_capitals_counts_where_file_systems_do_not_tell() {
        let (paths, _) = found(&[(".git/", ""), ("a/.GIT/", "")]);
        assert_eq!(paths, owned(&[".git", "a/.GIT"]));
    }

    #[test]
    fn workspace_in_which_a_repository_could_be_made_is_refused() {
        assert!(refusal(&[("a/.git/", "")]).contains("'ROOT' has no '.git'"));
        assert!(refusal(&[("x", "")]).ends_with("set 'workspace.mode' to copy"));
    }

    #[test]
    fn settings_that_are_missing_or_everything_are_refused() {
        let hooks = |path: &str| format!("[core]\n\thooksPath = {path}\n");
        let missing = refusal(&[(".git/config", &hooks("h"))]);
        assert!(missing.contains("an agent could make it"), "{missing}");
        let whole = refusal(&[(".git/config", &hooks("./"))]);
        assert!(whole.contains("the workspace's top folder"), "{whole}");
        let (_folder, root) = folder(&[(".git/config", &hooks("h")), ("real/", "")]);
        std::os::unix::fs::symlink("real", root.join("h")).unwrap();
        let link = format!("{:#}", protect(&root).unwrap_err());
        assert!(link.contains("an agent could turn the link there elsewhere"), "{link}");
    }
}
