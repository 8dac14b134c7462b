//! What is kept of a bottle's folder, and where.
//!
//! The folder is cleared of everything else, keys above all, and then moved as it is: its `run`
//! folders and workspace hold what containers wrote, and nothing here looks into those.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::Slug;
use bottle::error::Blame;
use bottle::record::now;
use bottle::render::SUPERVISE;
use bottle::state::{self, State};
use bottle::{grant, story};

/// What is kept at the top of a bottle's folder, beside the logs.
const KEPT: [&str; 4] = ["metadata.json", "plan.json", "docker-compose.yml", "grants"];

/// What is kept in the folder of a service.
const KEPT_OF_SERVICE: [&str; 4] = ["run", "workspace", story::FILE, story::STORY];

/// Moves what is worth it into the archive; removes the folder where there is nothing. The record
/// goes with the move, in one step, so it is there until everything else is done.
pub(crate) fn keep(state: &State, slug: &Slug) -> Result<Option<PathBuf>> {
    let folder = state.bottle(slug);
    let mut is_worth_it = false;
    for name in state::names(&folder)? {
        let path = folder.join(&name);
        if is_log(&name) || KEPT.contains(&name.as_str()) {
            is_worth_it = true;
        } else if is_folder(&path)? {
            is_worth_it |= clear(&path)?;
        } else if name != "lock" {
            state::remove(&path)?;
        }
    }
    if !is_worth_it {
        state.forget(slug)?;
        return Ok(None);
    }
    state::make_folder(&state.archive(), None)?;
    let time: String = now().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let target = state.archive().join(format!("{slug}-{time}"));
    state::rename(&folder, &target)?;
    state::remove(&target.join("lock"))?;
    Ok(Some(target))
}

/// Puts in order what was asked for, decided and ended, where there was a way to ask.
pub(crate) fn tell(folder: &Path) -> Result<()> {
    if !is_there(&folder.join(SUPERVISE)) {
        return Ok(());
    }
    grant::settle(folder)?;
    story::write(folder)
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Where the next log goes: a bottle whose teardown failed half-way has one already.
pub(crate) fn next_log(folder: &Path) -> PathBuf {
    let names = (1..).map(|n: u32| match n {
        1 => "compose.log".to_owned(),
        n => format!("compose.{n}.log"),
    });
    names
        .map(|name| folder.join(name))
        .find(|path| fs::symlink_metadata(path).is_err())
        .unwrap_or_default()
}

fn is_log(name: &str) -> bool {
    name.strip_prefix("compose.").is_some_and(|rest| rest.split('.').next_back() == Some("log"))
}

/// Clears the folder of a service; whether something of it is kept. One that is empty is removed.
fn clear(folder: &Path) -> Result<bool> {
    let mut keeps = false;
    for name in state::names(folder)? {
        let path = folder.join(&name);
        if KEPT_OF_SERVICE.contains(&name.as_str()) {
            keeps = true;
        } else if is_folder(&path)? {
            state::remove_folder(&path)?;
        } else {
            state::remove(&path)?;
        }
    }
    if !keeps {
        state::remove_folder(folder)?;
    }
    Ok(keeps)
}

/// Whether a path is a folder, and no link to one.
fn is_folder(path: &Path) -> Result<bool> {
    let found = fs::symlink_metadata(path).world(format!("look at '{}'", path.display()))?;
    Ok(found.is_dir())
}
