//! The files of the git gate that the host has and the agent never sees: keys, known hosts, signers.
//! `bottle-up` copies them at the last moment into a folder that the gate alone has mounted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Blame, caller};
use crate::plan::{GitRemote, Plan};
use crate::render::GIT_GATE;
use crate::secret::readable;
use crate::state;

/// The largest file.
const MAX: u64 = 1 << 20;

/// The folder of the copies, in that of a bottle.
#[must_use]
pub fn folder(bottle: &Path) -> PathBuf {
    bottle.join(GIT_GATE).join("secrets")
}

/// The files of a remote, by the ends of their copies' names.
fn of(remote: &GitRemote) -> impl Iterator<Item = (&'static str, &Path)> {
    let all = [
        ("key", &remote.key),
        ("known_hosts", &remote.known_hosts),
        ("allowed_signers", &remote.allowed_signers),
    ];
    all.into_iter().filter_map(|(end, path)| Some((end, path.as_deref()?)))
}

/// Checks that all of them are there, without reading one.
pub fn check(plan: &Plan) -> Result<()> {
    plan.git.iter().try_for_each(|remote| {
        of(remote).try_for_each(|(end, path)| {
            readable(path).caller(format!("find the {end} of git remote '{}'", remote.name))
        })
    })
}

/// Copies them, for the owner of the folder that `bottle-render` made. The lock of the bottle is held.
pub fn write(bottle: &Path, plan: &Plan) -> Result<()> {
    let folder = folder(bottle);
    let found =
        std::fs::symlink_metadata(&folder).world(format!("look at '{}'", folder.display()))?;
    let ids = Some((found.uid(), found.gid()));
    forget(bottle)?;
    for remote in &plan.git {
        for (end, path) in of(remote) {
            let what = || format!("read the {end} of git remote '{}'", remote.name);
            readable(path).caller(what())?;
            let mut bytes = Vec::new();
            let file = File::open(path).caller(what())?;
            file.take(MAX + 1).read_to_end(&mut bytes).world(what())?;
            if bytes.len() as u64 > MAX {
                return Err(caller(format!("{}: it is larger than {} KiB", what(), MAX >> 10)));
            }
            let name = format!("{}.{end}", remote.name);
            state::write_unsynced(&folder.join(name), &bytes, 0o600, ids)?;
        }
    }
    Ok(())
}

/// Removes the copies; the folder stays, because it is mounted.
pub fn forget(bottle: &Path) -> Result<()> {
    let folder = folder(bottle);
    state::names(&folder)?.iter().try_for_each(|name| state::remove(&folder.join(name)))
}
