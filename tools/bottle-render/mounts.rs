//! What the agent sees of the host: its workspace, its mounts, its skills, its configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::compose::Bind;
use bottle::plan::{Plan, Workspace, WorkspaceMode};
use bottle::{Blame, caller};

use crate::environment::{CONF, SKILLS};
use crate::passwd::HOME;

/// One bind mount, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
    /// Where the host has what `source` will be; another path where the workspace is copied.
    origin: PathBuf,
}

/// Where the copy of a workspace lies.
pub(crate) fn copy_of(folder: &Path) -> PathBuf {
    folder.join("agent/workspace")
}

/// All bind mounts of the agent, in an order in which none hides another.
pub(crate) fn all(plan: &Plan, folder: &Path) -> Result<Vec<Mounted>> {
    let mut out = Vec::new();
    let mut add = |source: &Path, target, read_only| {
        out.push(Mounted::new(source.into(), target, read_only));
    };
    for mount in &plan.mounts {
        add(&mount.source, mount.target.clone(), mount.read_only);
    }
    for skill in &plan.skills {
        let name = skill
            .file_name()
            .ok_or_else(|| caller(format!("mount skill '{}': it has no name", skill.display())))?;
        add(skill, Path::new(SKILLS).join(name), true);
    }
    add(&folder.join("agent/conf"), CONF.into(), true);
    add(&folder.join("agent/passwd"), "/etc/passwd".into(), true);
    if let Some(space) = &plan.workspace {
        out.extend(workspace(space, folder)?);
    }
    out.sort_by(|a, b| a.target.cmp(&b.target));
    for pair in out.windows(2) {
        if pair[0].target == pair[1].target {
            return Err(caller(format!(
                "mount '{}': '{}' is mounted there too: choose another target",
                pair[1].source.display(),
                pair[0].source.display(),
            )));
        }
    }
    guard(&out)?;
    Ok(out)
}

/// The workspace, and read-only over it what the host would run if the agent could write it. The
/// folders on the way there are mounted too, because a mount point cannot be renamed.
fn workspace(space: &Workspace, folder: &Path) -> Result<Vec<Mounted>> {
    let copied = space.mode == WorkspaceMode::Copy;
    let source = if copied { copy_of(folder) } else { space.source.clone() };
    let mut out = vec![Mounted {
        origin: space.source.clone(),
        ..Mounted::new(source, space.target.clone(), space.read_only)
    }];
    let pinned = space.pinned.iter().map(|path| (path, space.read_only));
    let protected = space.protected.iter().map(|path| (path, true));
    for (path, read_only) in pinned.chain(protected).filter(|_| !copied) {
        let below = path.strip_prefix(&space.source).map_err(|_| {
            caller(format!(
                "protect '{}': it is not below the workspace '{}'",
                path.display(),
                space.source.display()
            ))
        })?;
        out.push(Mounted::new(path.clone(), space.target.join(below), read_only));
    }
    Ok(out)
}

/// Refuses a mount that would hide what the bottle needs, or open what another one protects.
fn guard(mounts: &[Mounted]) -> Result<()> {
    for mount in mounts {
        let at = |path: &Path| mount.target != path && mount.target.starts_with(path);
        let ours = [Path::new(CONF), Path::new(HOME), Path::new("/etc/passwd")];
        let closed = mounts.iter().find(|over| {
            over.read_only
                && !mount.read_only
                && at(&over.target)
                && mount.origin.starts_with(&over.origin)
        });
        if ours.iter().any(|path| at(path)) || mount.target == Path::new(HOME) {
            return Err(caller(format!(
                "mount '{}' at '{}': bottle keeps that place: choose another target",
                mount.source.display(),
                mount.target.display()
            )));
        }
        if let Some(over) = closed {
            return Err(caller(format!(
                "mount '{}' at '{}': '{}' is read-only there: leave the mount out, or make it read-only",
                mount.source.display(),
                mount.target.display(),
                over.target.display()
            )));
        }
    }
    Ok(())
}

/// Checks against the host's files that the engine will make nothing there: a missing source or
/// mount point would become a folder of root's.
pub(crate) fn check(mounts: &[Mounted], folder: &Path) -> Result<()> {
    for mount in mounts.iter().filter(|mount| !mount.origin.starts_with(folder)) {
        let path = mount.origin.display();
        let found = fs::symlink_metadata(&mount.origin).caller(format!("mount '{path}'"))?;
        if found.is_symlink() {
            return Err(caller(format!(
                "mount '{path}': it is a link now, and was none when the plan was made: run 'bottle-plan' again"
            )));
        }
        let within = mounts
            .iter()
            .filter(|outer| mount.target != outer.target && mount.target.starts_with(&outer.target))
            .max_by_key(|outer| outer.target.components().count());
        let Some(outer) = within else { continue };
        let below = mount.target.strip_prefix(&outer.target).unwrap_or(Path::new(""));
        let point = outer.origin.join(below);
        let fits = fs::symlink_metadata(&point).is_ok_and(|there| there.is_dir() == found.is_dir());
        if !fits {
            return Err(caller(format!(
                "mount '{path}' at '{}': the engine would make '{}' as root: make it yourself first",
                mount.target.display(),
                point.display()
            )));
        }
    }
    Ok(())
}

impl Mounted {
    pub(crate) fn new(source: PathBuf, target: PathBuf, read_only: bool) -> Self {
        Self { origin: source.clone(), source, target, read_only }
    }

    /// The mount in Compose's terms, which know UTF-8 paths only.
    pub(crate) fn bind(&self, selinux: bool) -> Result<Bind> {
        let text = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| caller(format!("mount '{}': its path is not UTF-8", path.display())))
        };
        Ok(Bind::new(&text(&self.source)?, &text(&self.target)?, self.read_only, selinux))
    }
}
