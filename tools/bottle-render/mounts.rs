//! What the agent sees of the host: its workspace, its mounts, its skills, its configuration. That
//! no target covers another is a rule of the plan.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::compose::Bind;
use bottle::plan::{Plan, Workspace, WorkspaceMode};
use bottle::render::SSH_AGENT;
use bottle::{Blame, caller};

use crate::environment::{CONF, SKILLS};
use crate::ssh;

/// One bind mount, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// Where the copy of a workspace lies.
pub(crate) fn copy_of(folder: &Path) -> PathBuf {
    folder.join("agent/workspace")
}

/// Where the socket of the keys lies.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(SSH_AGENT).join("socket")
}

/// All bind mounts of the agent, sorted by target, so that what lies within another comes later.
pub(crate) fn all(plan: &Plan, folder: &Path) -> Result<Vec<Mounted>> {
    let mut out = vec![
        Mounted::new(folder.join("agent/conf"), CONF.into(), true),
        Mounted::new(folder.join("agent/passwd"), "/etc/passwd".into(), true),
    ];
    if !plan.ssh.is_empty() {
        out.push(Mounted::new(folder.join("agent/tools"), ssh::TOOLS.into(), true));
        out.push(Mounted::new(folder.join("agent/ssh_config"), ssh::CONFIG.into(), true));
        // To connect to a socket writes nothing to what it lies in.
        out.push(Mounted::new(socket(folder), ssh::SOCKET.into(), true));
    }
    for mount in &plan.mounts {
        out.push(Mounted::new(mount.source.clone(), mount.target.clone(), mount.read_only));
    }
    for skill in &plan.skills {
        let name = skill.file_name().unwrap_or_default();
        out.push(Mounted::new(skill.clone(), Path::new(SKILLS).join(name), true));
    }
    match &plan.workspace {
        Some(space) if space.mode == WorkspaceMode::Copy => {
            out.push(Mounted::new(copy_of(folder), space.target.clone(), space.read_only));
        }
        Some(space) => out.extend(bound(space)?),
        None => {}
    }
    out.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(out)
}

/// The workspace, with the folders in it that may not be renamed, and what is read-only in any case.
fn bound(space: &Workspace) -> Result<Vec<Mounted>> {
    let mut out = vec![Mounted::new(space.source.clone(), space.target.clone(), space.read_only)];
    let pinned = space.pinned.iter().map(|path| (path, space.read_only));
    let protected = space.protected.iter().map(|path| (path, true));
    for (path, read_only) in pinned.chain(protected) {
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

/// Checks that what is mounted is there, and what it was when the plan was made: the engine would
/// make a missing folder as root, and go where a link leads.
pub(crate) fn check(plan: &Plan) -> Result<()> {
    let space = plan.workspace.iter();
    let sources =
        plan.mounts.iter().map(|mount| &mount.source).chain(&plan.skills).chain(
            space.flat_map(|s| [&s.source].into_iter().chain(&s.pinned).chain(&s.protected)),
        );
    for source in sources {
        let path = source.display();
        let found = match fs::symlink_metadata(source) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(caller(format!("mount '{path}': it is not there: make it first")));
            }
            other => other.caller(format!("mount '{path}'"))?,
        };
        if found.is_symlink() {
            return Err(caller(format!(
                "mount '{path}': it is a link now, and was none when the plan was made: run 'bottle-plan' again"
            )));
        }
    }
    Ok(())
}

impl Mounted {
    pub(crate) fn new(source: PathBuf, target: PathBuf, read_only: bool) -> Self {
        Self { source, target, read_only }
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
